"""The measure command: a net of a library or of one's own, or a finished run again."""
