"""Numbers of a pair of runs that differ in nothing but the seed: how alike two nets are that were trained alike.

Seeds 2k and 2k + 1 make a pair. So a pair is the same for all sides of all contrasts, whichever runs are finished and
however many seeds are added, and no run is in two pairs: the numbers of pairs are independent of each other.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..common.errors import UserError
from ..config import NON_IDENTITY_KEYS, PAIRS, Config, Reading, flatten, format_override
from ..results.runs import FinishedRun
from ..results.saved_maps import maps_file, read_maps
from ..stats.decisions import MINIMUM_SEEDS
from ..stats.matching import LEAST_IMAGES, matched_correlation, matched_correlation_shuffled

#: number of a pair → the function of the maps of both nets
NUMBERS: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = dict(
    zip(PAIRS, (matched_correlation, matched_correlation_shuffled), strict=True)
)
#: the settings of a run without its seed: what both runs of a pair have in common
Twins = tuple[str, ...]


def first_of_pair(seed: int) -> int:
    """The first seed of the pair that a seed belongs to, which the pair's number is filed under.

    >>> [first_of_pair(seed) for seed in range(5)]
    [0, 0, 2, 2, 4]
    """
    return seed - seed % 2


def other_of_pair(seed: int) -> int:
    """The seed that a seed is paired with.

    >>> [other_of_pair(seed) for seed in range(4)]
    [1, 0, 3, 2]
    """
    return 2 * first_of_pair(seed) + 1 - seed


def twins(settings: Mapping[str, Any]) -> Twins:
    """What a run must have in common with the other of its pair: all settings that matter but the seed."""
    skipped = {*NON_IDENTITY_KEYS, "seed"}
    return tuple(f"{key}={format_override(value)}" for key, value in settings.items() if key not in skipped)


def pairs_of(runs: Sequence[FinishedRun]) -> tuple[list[tuple[FinishedRun, FinishedRun]], list[FinishedRun]]:
    """The pairs among runs, the lower seed first; and the runs whose other one is not among them."""
    by_pair: dict[tuple[int, Twins], list[FinishedRun]] = {}
    for run in sorted(runs, key=lambda run: int(run.settings["seed"])):
        by_pair.setdefault((first_of_pair(int(run.settings["seed"])), twins(run.settings)), []).append(run)
    # a seed may have run twice, where the sweep is over settings that are none of a run's identity
    whole = {
        key: len(some) == 2 and some[0].settings["seed"] != some[1].settings["seed"] for key, some in by_pair.items()
    }
    pairs = [(some[0], some[1]) for key, some in by_pair.items() if whole[key]]
    return pairs, [run for key, some in by_pair.items() if not whole[key] for run in some]


def pair_number(first: FinishedRun, second: FinishedRun, reading: Reading) -> float:
    """The number of a pair; nan where a run has no such maps, or their example images are not the same."""
    found = []
    for run in (first, second):
        epoch = 0 if reading.untrained else int(run.history[-1]["epoch"]) if run.history else -1
        if not maps_file(run.folder, epoch).exists():
            return float("nan")
        images, maps = read_maps(run.folder, epoch)
        if reading.layer not in maps:
            return float("nan")
        found.append((images, maps[reading.layer]))
    (images, a), (other_images, b) = found
    if not np.array_equal(images, other_images) or a.shape != b.shape or len(a) < LEAST_IMAGES:
        return float("nan")
    return NUMBERS[str(reading.pairs)](a, b)


def check_maps(reading: Reading, cfg: Config, channels: Mapping[str, int], place: str) -> None:
    """Refuse a layer that has no saved maps, and maps of a part of its channels, whose best match may be missing.

    Args:
        reading: of a number of pairs.
        cfg: of a run that it selects.
        channels: of each stage of the run's net.
        place: in the study, for the message.
    """
    layer = str(reading.layer)
    if layer not in channels:
        names = ", ".join(channels) or "none: the net has no stages"
        raise UserError(f"{place}.layer={layer}: maps are saved of stages; choose one of {names}")
    if cfg.probe.channels < channels[layer]:
        raise UserError(
            f"{place}: {layer} has {channels[layer]} channels, and maps of {cfg.probe.channels} are saved; all are "
            f"matched, set probe.channels={channels[layer]}"
        )
    if (images := len(cfg.probe.files) or cfg.probe.images) < LEAST_IMAGES:
        raise UserError(f"{place}: maps of {images} images are saved; matching takes probe.images={LEAST_IMAGES}")


def check_pairs(chosen: Mapping[str, Sequence[Config]], place: str) -> None:
    """Refuse runs without another one to be paired with, and fewer pairs than a verdict needs.

    Args:
        chosen: side of the contrast → the jobs that it selects.
        place: of the contrast in the study, for the message.
    """
    pairs = []
    for side, configs in chosen.items():
        seeds: dict[tuple[int, Twins], set[int]] = {}
        for cfg in configs:
            seeds.setdefault((first_of_pair(cfg.seed), twins(flatten(cfg))), set()).add(cfg.seed)
        if alone := sorted({seed for some in seeds.values() if len(some) == 1 for seed in some}):
            lone = f"seeds {_listed(alone)} have" if len(alone) > 1 else f"seed {alone[0]} has"
            raise UserError(
                f"{place}.{side}: {lone} no run to be paired with: seeds 0 and 1, 2 and 3, … make pairs; add seed"
                f"{'s' * (len(alone) > 1)} {_listed(other_of_pair(seed) for seed in alone)}, as in seed=range(10)"
            )
        pairs.append({first for first, _ in seeds})
    count = len(set.intersection(*pairs)) or min(map(len, pairs))
    if count < MINIMUM_SEEDS:
        raise UserError(
            f"{place}: {count} pair{'s' * (count != 1)} of seeds, and a verdict needs {MINIMUM_SEEDS} pairs, "
            f"{2 * MINIMUM_SEEDS} seeds; add seeds (seeds=auto: to study.looks), or look without a verdict: "
            "study.judge=false"
        )


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
