"""Local logs of W&B runs: what they contain, and repair of logs that a killed process left incomplete.

A run that was interrupted has a log for each of its parts. ``wandb sync`` skips all parts after one that ends within a
record and sends that one again each time; a log that ends before it names its run makes it send nothing of any run.
"""

import json
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

#: LevelDB's log format: chunks of checksum, size, kind and content, none of which crosses the end of a block
HEADER, CHUNK, BLOCK = b":W&B\xe1\xbe\x00", struct.Struct("<IHB"), 32_768
FULL, LAST = 1, 4


def logged_before(run: Path, run_id: str) -> dict[tuple[str, Any], int]:
    """What earlier parts of a run logged, (name, epoch) → W&B's step (-1 offline); their logs are repaired. No process
    may be writing to the run's folder, which may have logs of runs with other ids at W&B.
    """
    logged: dict[tuple[str, Any], int] = {}
    for log in sorted(run.glob(f"wandb/*run-*/run-{run_id}.wandb")):
        content = log.read_bytes()
        if not content.startswith(HEADER[: len(content)]):
            continue  # another version of the format
        complete = list(records(content))
        parsed = parse_records([record for _, record in complete])
        if not any(record.HasField("run") for record in parsed):
            log.unlink()
            continue
        os.truncate(log, complete[-1][0])
        offline = log.parent.name.startswith("offline-")
        for record in parsed:
            row = {(item.nested_key or [item.key])[0]: item.value_json for item in record.history.item}
            epoch = json.loads(row.get("epoch", "null"))
            step = -1 if offline else record.history.step.num
            logged |= {(name, epoch): min(step, logged.get((name, epoch), step)) for name in row}
    return logged


def parse_records(contents: Sequence[bytes]) -> list[Any]:
    """Protobuf records of a log. W&B's protocol is not part of its public interface (``tests/test_private_api.py``)."""
    if not contents:
        return []  # without importing W&B
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]  # generated for each protobuf

    return [Record.FromString(content) for content in contents]


def records(log: bytes) -> Iterator[tuple[int, bytes]]:
    """The complete records of a log, each with the position where it ends."""
    position, parts = len(HEADER), b""
    while position + CHUNK.size <= len(log):
        if position % BLOCK > BLOCK - CHUNK.size:  # the rest of the block is too small for another chunk
            position += BLOCK - position % BLOCK
            continue
        checksum, size, kind = CHUNK.unpack_from(log, position)
        end = position + CHUNK.size + size
        if end > len(log) or zlib.crc32(log[position + CHUNK.size - 1 : end]) != checksum:
            return
        parts += log[position + CHUNK.size : end]
        position = end
        if kind in (FULL, LAST):
            yield end, parts
            parts = b""
