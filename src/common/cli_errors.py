"""How bad input is refused: one line on standard error, exit code 2."""

import errno
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

from omegaconf.errors import OmegaConfBaseException

from .errors import Interrupted, UserError, did_you_mean
from .naming import command
from .streams import make_lenient


def one_line(error: BaseException) -> str:
    """OmegaConf's many lines as one that names the key, the value and the valid ones."""
    cause = error
    while cause.__cause__ is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__
    text = str(getattr(cause, "msg", None) or cause)
    if text.startswith("Ambiguous value"):
        return f"{text.splitlines()[0].split(chr(39))[1]}: a list of values is a sweep: {command('train')} -m"
    key, schema = getattr(cause, "full_key", None), getattr(cause, "object_type", None)
    if key and is_dataclass(schema) and str(key).split(".")[-1] not in {f.name for f in fields(schema)}:
        path, _, word = str(key).rpartition(".")
        names = [f.name for f in fields(schema)]
        meant = did_you_mean(word, names).replace("mean ", f"mean {path}." if path else "mean ")
        return f"{key}: no such key; {meant}valid here: {', '.join(names)}"
    if key:
        return f"{key}: {text.splitlines()[0]}"
    if text.startswith("Cannot merge "):
        return "one of its keys has a list where key: value is needed, or the reverse"
    return " ".join(text.split())


@contextmanager
def omegaconf_errors() -> Iterator[None]:
    """OmegaConf's errors as a ``UserError``."""
    try:
        yield
    except OmegaConfBaseException as error:
        raise UserError(one_line(error)) from error


@contextmanager
def cli_errors() -> Iterator[None]:
    """Around an entry point: a ``UserError`` becomes one line on standard error and exit code 2. An output that cannot
    be written stops no work.
    """
    make_lenient()
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # as it was while the package was imported
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with omegaconf_errors():
            yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            print(f"error: {error.strerror}: make room, and the same command goes on where it stopped", file=sys.stderr)
            raise SystemExit(2) from None
        if error.filename is None:  # no place that the user named
            raise
        print(f"error: {str(error.filename)[:500]}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None
    except Interrupted as stop:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C from here on ends the process at once
        print(f"stopped by {stop.name}: the same command goes on where this one stopped", file=sys.stderr)
        raise
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        raise SystemExit(130) from None
