"""Standard output and error that take any text, and whose loss stops no work."""

import io
import os
import sys
from typing import Any


class _Lenient(io.FileIO):
    """What cannot be written, as its reader is gone or a disk is full, is dropped, which is said once."""

    def write(self, data: object, /) -> int:
        """Write bytes; after an error they go nowhere."""
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            if self.fileno() == 1:
                print(f"standard output cannot be written ({error.strerror}): going on without it", file=sys.stderr)
            return len(memoryview(data).cast("B"))  # type: ignore[arg-type]


def make_lenient() -> None:
    """Let this process write on where its output is closed, full, or of an encoding that lacks a character."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        captured = stream is not getattr(sys, f"__{name}__")
        if stream is None or captured:
            continue
        try:
            stream.flush()
            raw = _Lenient(stream.fileno(), "w", closefd=False)
        except OSError:
            continue
        lines = name == "stderr" or stream.isatty()
        lenient = io.TextIOWrapper(io.BufferedWriter(raw), stream.encoding, "replace", line_buffering=lines)
        setattr(sys, name, lenient)
