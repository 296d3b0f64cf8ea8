"""Claims of a study: checked before the first job, and judged by what its runs left."""
