"""Errors that a user reads in one line: bad input, and that a signal stopped a run."""

import signal


class UserError(ValueError):
    """Bad input: said in one line that names what was wrong and what would be right; exit code 2, no traceback."""


class Interrupted(SystemExit):
    """A signal asked the process to stop, and its work is saved: one line, and a shell's exit code for that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.name = signal.Signals(signum).name
