"""Statistics that know no measure by name: intervals by bootstrap and by formula, comparisons, corrections."""
