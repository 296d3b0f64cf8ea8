"""A study is refused before the first job where its runs could not decide it."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..common.errors import UserError, did_you_mean
from ..config import Config, Contrast, Reading, Study, flatten
from ..data.options import image_shape
from ..data.sets import SETS
from ..evaluation.families import ALWAYS
from ..evaluation.followed import FOLLOWED
from ..metrics.quantities import quantities, quantity_of
from ..metrics.rows import Estimate, Row
from ..models import network
from ..models.tasks import Task
from ..results.measures import family_of_row
from ..results.where import matching
from ..stats.alarms import least_calibration_runs
from ..stats.decisions import MINIMUM_SEEDS
from ..stats.shares import least_runs
from ..summary import summarize
from ..transforms import TABLE, shift_amounts
from .calibrate import FALSE_ALARMS
from .seed_pairs import check_maps, check_pairs

#: numbers of a run's ``run.json`` that can be compared
FACTS = ("train_seconds", "seconds", "steps", "parameters", "multiply_adds", "realised_label_noise")
#: columns of ``history.csv`` that every run has, and beginnings of those that measuring while training adds
HISTORY = ("grad_norm", "grad_norm_max", "lr", "seconds", "step")
HISTORY_GROUPS = ("train/", "val/", "invariance/", "layers/")
#: families that measure layers, and nothing of the output
OF_LAYERS = ("aliasing", "equal_dimension", "field", "layers", "maximum_sampling", "units")
#: numbers that say how well a net does its task
SCORES = ("accuracy", "r2", "calibration_error", "position_error", "loss", "location_leak")
#: model and data → names of layers, stages first, as they are what a message should name: many readings ask for them
_NAMES: dict[str, tuple[str, ...]] = {}


def check_study(study: Study, jobs: Mapping[Path, Config]) -> None:
    """Check that the jobs of a sweep could decide every claim.

    Raises:
        UserError: a selection matches no job, no job makes a number that is compared, or there are too few seeds for
            any verdict.
    """
    for number, claim in enumerate(study.claims):
        for index, contrast in enumerate(claim.contrasts):
            _check_contrast(contrast, list(jobs.values()), f"study.claims[{number}].contrasts[{index}]")
    if study.calibrate:
        _check_calibration(study, list(jobs.values()))


def _check_calibration(study: Study, jobs: Sequence[Config]) -> None:
    """Refuse calibration runs that are too few, or that are not independent of those whose alarms they calibrate."""
    place = f"study.calibrate={study.calibrate}"
    clean = _selected(Reading(where=study.calibrate), jobs, "study.calibrate")
    if len(clean) < (least := least_calibration_runs(FALSE_ALARMS)):
        raise UserError(
            f"{place}: {len(clean)} runs, and a threshold that {FALSE_ALARMS:.0%} of such runs exceed needs {least}"
        )
    seeds = {cfg.seed for cfg in clean}
    for alarm in study.alarms():
        _check_reading(alarm, clean, "study.calibrate")
        if both := sorted(seeds & {cfg.seed for cfg in _selected(alarm, jobs, place)}):
            raise UserError(
                f"{place}: seed {', '.join(map(str, both))} also has runs that are compared, where={alarm.where}; "
                "calibrate by runs with other seeds"
            )


def _check_contrast(contrast: Contrast, jobs: Sequence[Config], place: str) -> None:
    chosen: dict[str, list[Config]] = {}
    for side, reading in {**contrast.readings(), **{f"floor of {k}": v for k, v in contrast.floors().items()}}.items():
        chosen[side] = _selected(reading, jobs, f"{place}.{side}")
        if not contrast.share or contrast.share == "alarm":
            _check_reading(reading, chosen[side], f"{place}.{side}")
    if contrast.slope:
        for side, configs in chosen.items():
            _check_axis(contrast.slope, configs, f"{place}.{side}")
    _check_seeds(contrast, chosen, place)


def _selected(reading: Reading, jobs: Sequence[Config], place: str) -> list[Config]:
    if not reading.where:
        return list(jobs)
    try:
        kept = matching(reading.where, [flatten(cfg) for cfg in jobs])
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    return [cfg for cfg, keep in zip(jobs, kept, strict=True) if keep]


def _check_reading(reading: Reading, jobs: Sequence[Config], place: str) -> None:
    """Refuse a number that some job does not make."""
    if reading.tuned and reading.tuned not in (settings := flatten(jobs[0])):
        raise UserError(f"{place}.tuned={reading.tuned}: no such setting; {_meant(reading.tuned, settings)}")
    if reading.history or reading.alarm:
        _check_column(reading, jobs, place)
        return
    if reading.pairs:
        for cfg in {repr((job.model, job.data, job.probe)): job for job in jobs}.values():
            check_maps(reading, cfg, _channels(cfg), place)
        return
    if reading.fact:
        if reading.fact not in FACTS:
            raise UserError(f"{place}.fact={reading.fact}: {_meant(reading.fact, FACTS)}")
        return
    _check_measure(reading, jobs, place)


def _check_measure(reading: Reading, jobs: Sequence[Config], place: str) -> None:
    """Refuse a row that ``measures.csv`` of some job does not have."""
    measure = str(reading.measure)
    if quantity_of(measure) is None:
        raise UserError(f"{place}.measure={measure}: no such measure; {_meant(measure, quantities())}")
    if measure in SCORES and reading.layer != "output":
        raise UserError(f"{place}.layer={reading.layer}: {measure} is of the output; leave it out")
    family = _family(reading, place)
    for cfg in {repr((job.model, job.data, job.measure)): job for job in jobs}.values():
        if family not in (ALWAYS, *cfg.measure.what):
            raise UserError(
                f"{place}: {reading.label()} is measured by measure.what=[{family}], and the runs measure "
                f"[{','.join(cfg.measure.what)}]"
            )
        layers = _inverted(cfg) if measure.startswith("metamer_") else _layers(cfg, family)
        if reading.layer not in layers:
            raise UserError(f"{place}.layer={reading.layer}: {_meant(str(reading.layer), layers)}")
        if family == ALWAYS:
            _check_score(reading, cfg, place)
        if family == "equal_dimension" and reading.amount not in cfg.measure.dimensions:
            raise UserError(
                f"{place}.amount={reading.amount:g}: choose one of measure.dimensions={cfg.measure.dimensions}"
            )
        if family == "shift" and reading.amount not in (amounts := shift_amounts(cfg.measure.max_shift)):
            shifts = f"shifts are of {', '.join(f'{amount:g}' for amount in amounts)} px"
            raise UserError(
                f"{place}.amount={reading.amount:g}: with measure.max_shift={cfg.measure.max_shift}, {shifts}"
            )


def _check_score(reading: Reading, cfg: Config, place: str) -> None:
    """Refuse a score that nets with this task do not have, or of images that the data set does not have."""
    score, scores = str(reading.measure), _scores(cfg)
    if score not in SCORES:
        layers = _layers(cfg, "layers")
        raise UserError(f"{place}.layer=output: {score} is of layers; choose one of {', '.join(layers)}")
    if score not in scores:
        raise UserError(f"{place}.measure={score}: with data.task={cfg.data.task} choose one of {', '.join(scores)}")
    noisy = ["train_clean"] * (cfg.data.label_noise > 0)
    parts = ["test", "val", "train", *noisy, *SETS[str(cfg.data.name)].others]
    if reading.protocol not in parts:
        raise UserError(f"{place}.protocol={reading.protocol}: {_meant(str(reading.protocol), parts)}")


def _scores(cfg: Config) -> list[str]:
    """Names of the numbers that say how well a net does its task."""
    task = Task(str(cfg.data.task), 1)
    others = ["calibration_error"] * task.classifies + ["position_error"] * task.localizes
    return [*task.scores, *others, "loss", *["location_leak"] * (cfg.data.name == "red_green")]


def _check_column(reading: Reading, jobs: Sequence[Config], place: str) -> None:
    """Refuse a column that ``history.csv`` of some job does not have."""
    column = str(reading.history or reading.alarm)
    place = f"{place}.{'history' if reading.history else 'alarm'}={column}"
    if column not in HISTORY and not column.startswith(HISTORY_GROUPS):
        raise UserError(f"{place}: no column of history.csv; {_meant(column, HISTORY)}")
    group, _, statistic = column.rpartition("/")
    if statistic in FOLLOWED and not all(statistic in cfg.measure.follow for cfg in jobs):
        raise UserError(f"{place}: is followed by measure.follow=[{statistic}]")
    of_layers = [name for name, file in FOLLOWED.items() if file == "of_layers"]
    for cfg in {repr((job.model, job.data)): job for job in jobs}.values():
        of_training = [*_scores(cfg), *(name for name in FOLLOWED if name not in of_layers)]
        names = {"train": of_training, "val": _scores(cfg)}.get(group)
        if names and statistic not in names:
            raise UserError(f"{place}: no column of history.csv; {_meant(statistic, names)}")
        layer = group.removeprefix("layers/")
        if group != layer and layer not in (layers := [*_layers(cfg, "layers")]):
            raise UserError(f"{place}: no such layer; {_meant(layer, layers)}")
        if group != layer and statistic not in of_layers:
            raise UserError(f"{place}: no column of history.csv; {_meant(statistic, of_layers)}")


def _family(reading: Reading, place: str) -> str:
    """The entry of ``measure.what`` that a number comes from."""
    protocols = {t.protocol: t.name for t in TABLE if reading.transform in (None, t.name)}
    transform = protocols.get(str(reading.protocol), "none")
    if reading.transform not in (None, transform):
        names = [t.protocol for t in TABLE if t.name == reading.transform] or [t.name for t in TABLE]
        given = f"transform={reading.transform}, protocol={reading.protocol}"
        raise UserError(f"{place}: {given}: choose one of {', '.join(names)}")
    nothing = Estimate(0, 0, 0, 0)
    return family_of_row(Row(str(reading.layer), transform, str(reading.protocol), 0, str(reading.measure), nothing))


def _layers(cfg: Config, family: str) -> tuple[str, ...]:
    """The layers that a run is measured at."""
    key = repr((cfg.model, cfg.data))
    if key not in _NAMES:
        image, classes = image_shape(cfg.data)
        with torch.device("meta"):
            net = network(cfg.model, image, Task(str(cfg.data.task), classes).outputs)
        names = [*net.stages, "features", "pixels", *(name for name, _ in net.named_modules() if name)]
        _NAMES[key] = tuple(dict.fromkeys(names))
    output = () if family in OF_LAYERS else ("output",)
    return output if family == ALWAYS else (*output, *_NAMES[key])


def _channels(cfg: Config) -> dict[str, int]:
    """Stage → the channels of its maps."""
    stages = [name for name in _layers(cfg, "layers") if re.fullmatch(r"stage\d+", name)]
    image, classes = image_shape(cfg.data)
    with torch.device("meta"):
        layers = summarize(network(cfg.model, image, Task(str(cfg.data.task), classes).outputs), image).layers
    channels = {
        stage: [each.channels for each in layers if f"{each.name}.".startswith(f"{stage}.")] for stage in stages
    }
    return {stage: of_layers[-1] for stage, of_layers in channels.items()}  # a stage may be one layer itself


def _inverted(cfg: Config) -> tuple[str, ...]:
    """The layers that metamers are made of."""
    stages = (name for name in _layers(cfg, "layers") if name == "features" or re.fullmatch(r"stage\d+", name))
    return tuple(cfg.measure.metamer_layers) or tuple(stages)


def _check_axis(axis: str, jobs: Sequence[Config], place: str) -> None:
    settings = [flatten(cfg) for cfg in jobs]
    if axis not in settings[0] or axis == "seed":
        raise UserError(f"{place}, slope={axis}: no such setting; {_meant(axis, settings[0])}")
    values = {setting[axis] for setting in settings}
    if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        raise UserError(f"{place}, slope={axis}: must be a setting that holds numbers")
    for seed in {cfg.seed for cfg in jobs}:
        if len(levels := {cfg[axis] for cfg in settings if cfg["seed"] == seed}) < 2:
            raise UserError(f"{place}, slope={axis}: all jobs of a seed have {axis}={levels.pop()}; sweep over it")


def _check_seeds(contrast: Contrast, chosen: Mapping[str, list[Config]], place: str) -> None:
    if contrast.share:
        least = least_runs()
        counts = {side: len(chosen[side]) for side in ("a", "b")}
        if min(counts.values()) < least:
            raise UserError(
                f"{place}: {counts['a']} and {counts['b']} runs; an exact test of shares needs {least} a side to show "
                "any difference"
            )
        return
    if contrast.of_pairs:
        check_pairs(chosen, place)
        return
    seeds = [{cfg.seed for cfg in some} for side, some in chosen.items() if not side.startswith("floor")]
    pairs = len(set.intersection(*seeds)) or min(map(len, seeds))
    if pairs < MINIMUM_SEEDS:
        raise UserError(
            f"{place}: {pairs} {'seed' if pairs == 1 else 'seeds'}, and a verdict needs {MINIMUM_SEEDS}; add seeds, or "
            "look without a verdict: study.judge=false"
        )


def _meant(word: str, names: Iterable[Any]) -> str:
    """The closest name, or all names."""
    names = [str(name) for name in names]
    return did_you_mean(word, names).strip() or f"choose one of {', '.join(names)}"
