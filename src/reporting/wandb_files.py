"""W&B's own logs of the parts of a run: what they hold, and mending those that a kill cut off.

A run that was interrupted has a log for each of its parts. ``wandb sync`` leaves out the parts after one that ends
within a record, sends that one again each time, and where a log does not get as far as naming its run it sends nothing
at all, of no run.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: the format is LevelDB's: chunks of checksum, size, kind and content, none of which lies across the border of a block
HEADER, CHUNK, BLOCK = b":W&B\xe1\xbe\x00", struct.Struct("<IHB"), 32_768
FULL, LAST = 1, 4


def logged_before(run: Path, identity: str) -> dict[tuple[str, Any], int]:
    """What earlier parts of a run logged: name and epoch → W&B's step, -1 offline; their logs are mended on the way.

    Args:
        run: its folder. No process may be at work in it.
        identity: its id at W&B; others' logs may lie there too.
    """
    logs = sorted(run.glob(f"wandb/*run-*/run-{identity}.wandb"))
    if not logs:
        return {}
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # made for each protobuf

    found: dict[tuple[str, Any], int] = {}
    for log in logs:
        content = log.read_bytes()
        if not content.startswith(HEADER[: len(content)]):
            continue  # of another version: its own to mend
        whole = list(records(content))
        read = [Record.FromString(record) for _, record in whole]
        if not any(record.HasField("run") for record in read):
            log.unlink()
            continue
        os.truncate(log, whole[-1][0])
        offline = log.parent.name.startswith("offline-")
        for record in read:
            row = {(item.nested_key or [item.key])[0]: item.value_json for item in record.history.item}
            epoch = json.loads(row.get("epoch", "null"))
            step = -1 if offline else record.history.step.num
            found |= {(name, epoch): min(step, found.get((name, epoch), step)) for name in row}
    return found


def records(log: bytes) -> Iterator[tuple[int, bytes]]:
    """The whole records of a log, each after the place where it ends."""
    place, parts = len(HEADER), b""
    while place + CHUNK.size <= len(log):
        if place % BLOCK > BLOCK - CHUNK.size:  # too little is left of the block for another chunk
            place += BLOCK - place % BLOCK
            continue
        checksum, size, kind = CHUNK.unpack_from(log, place)
        end = place + CHUNK.size + size
        if end > len(log) or zlib.crc32(log[place + CHUNK.size - 1 : end]) != checksum:
            return
        parts += log[place + CHUNK.size : end]
        place = end
        if kind in (FULL, LAST):
            yield end, parts
            parts = b""
