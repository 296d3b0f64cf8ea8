"""What every run of a study is checked for beside its claims: shapes by arithmetic (Q12), the same images (Q13)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..config import NON_IDENTITY_KEYS, format_override
from ..results.runs import FinishedRun
from ..stats.decisions import Verdict

#: data settings that say how many images are learned and with which labels, not how an image looks
NOT_OF_IMAGES = ("data.train_size", "data.val_size", "data.label_noise", "data.label_noise_kind", "data.task")


@dataclass(frozen=True)
class Checks:
    """Counts over the runs of a sweep.

    Attributes:
        nets: different nets, whose model summaries were each compared with the running net before training.
        layers: of these nets; each one's shape and number of parameters.
        refused: jobs that did not start, as a net differed from its summary.
        runs: with example images.
        views: kinds of images: data sets, and settings that change how their images look.
        changed: of these, those whose example images were not the same in all runs.
    """

    nets: int = 0
    layers: int = 0
    refused: int = 0
    runs: int = 0
    views: int = 0
    changed: int = 0

    def __add__(self, other: "Checks") -> "Checks":
        return Checks(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def of_shapes(self) -> Verdict:
        """Q12: shapes can be computed by hand."""
        return Verdict.REFUTED if self.refused else Verdict.HOLDS if self.nets else Verdict.INADMISSIBLE

    @property
    def of_images(self) -> Verdict:
        """Q13: the same few images every time."""
        return Verdict.REFUTED if self.changed else Verdict.HOLDS if self.views else Verdict.INADMISSIBLE


def checks_of(runs: Sequence[FinishedRun], missing: Mapping[str, str]) -> Checks:
    """Count over finished runs, and over the reasons of unfinished ones."""
    nets = {tuple(tuple(row.values()) for row in run.shapes) for run in runs if run.shapes}
    images: dict[tuple[str, ...], set[str]] = {}
    for run in runs:
        if checksum := run.facts.get("probe_checksum"):
            images.setdefault(_view(run), set()).add(str(checksum))
    return Checks(
        nets=len(nets),
        layers=sum(map(len, nets)),
        refused=sum("the summary says" in reason for reason in missing.values()),
        runs=sum("probe_checksum" in run.facts for run in runs),
        views=len(images),
        changed=sum(len(checksums) > 1 for checksums in images.values()),
    )


def _view(run: FinishedRun) -> tuple[str, ...]:
    """The settings that an example image depends on."""
    skipped = {*NON_IDENTITY_KEYS, *NOT_OF_IMAGES}
    keys = [key for key in run.settings if key.startswith(("data.", "probe.")) and key not in skipped]
    return tuple(f"{key}={format_override(run.settings[key])}" for key in keys)
