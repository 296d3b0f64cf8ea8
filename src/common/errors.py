"""Errors that a user reads in one line: bad input, and that a signal stopped a run."""

import difflib
import signal
from collections.abc import Iterable

#: characters of a line that says what is wrong
LONGEST = 2000


class UserError(ValueError):
    """Bad input: said in one line that names what was wrong and what would be right; exit code 2, no traceback.

    Whatever a value that it quotes holds, it is one line that a person can read: of a long one the middle is left out.
    """

    def __init__(self, text: object = "") -> None:
        line = " ".join(str(text).splitlines())
        super().__init__(line if len(line) <= LONGEST else f"{line[: LONGEST // 2]} … {line[-LONGEST // 4 :]}")


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``did you mean NAME? ``, with a space after it, for the closest name; empty where none is close.

    >>> did_you_mean("acuracy", ["accuracy", "loss"])
    'did you mean accuracy? '
    """
    return "".join(f"did you mean {name}? " for name in difflib.get_close_matches(word, names, n=1))


class Interrupted(SystemExit):
    """A signal asked the process to stop, and its work is saved: one line, and a shell's exit code for that signal."""

    def __init__(self, signum: int) -> None:
        super().__init__(128 + signum)
        self.name = signal.Signals(signum).name
