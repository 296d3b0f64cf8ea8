"""The one kind of error a user is meant to read."""


class Refusal(ValueError):
    """Bad input: said in one line that names what was wrong and what would be right; exit code 2, no traceback."""
