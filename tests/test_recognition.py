"""Who recognises whose metamers: the matrix against shares counted by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from src.common.errors import UserError
from src.evaluation.adapter import EvaluationSet, ModelAdapter
from src.evaluation.families import MetamerOptions
from src.evaluation.families.metamers import rows
from src.evaluation.inversion import noise
from src.models.tasks import Task
from src.reporting import recognition
from src.reporting.figure_files import figure_csv
from src.reporting.recognition import FLOOR, OTHER_SEED
from src.reporting.variant import Variant
from src.results.measures import write_measures
from src.results.runs import FinishedRun

N, SIDE, LOGITS = 8, 6, "1"
IMAGES = torch.rand(N, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(7))


def to_input(pixels: Tensor) -> Tensor:
    return pixels / 255


class Sweep:
    """Two variants of linear nets: ``sees`` with two seeds, and ``blind``, which puts all images into one class."""

    def __init__(self, folder: Path) -> None:
        self.nets: dict[Path, nn.Module] = {}
        self.variants = [Variant("sees", {}, []), Variant("blind", {}, [])]
        for variant, seed in ((0, 0), (0, 1), (1, 0), (1, 1)):
            net = nn.Sequential(nn.Flatten(), nn.Linear(SIDE**2, 5))
            torch.manual_seed(seed)
            nn.init.normal_(net[1].weight) if variant == 0 else nn.init.zeros_(net[1].weight)
            run = FinishedRun(folder / f"{variant},{seed}", {"seed": seed})
            run.folder.mkdir()
            of = ModelAdapter(net, ["0", LOGITS], to_input)
            padded = nn.functional.pad(IMAGES * 255, (1, 1, 1, 1))
            options = MetamerOptions(images=N, steps=150)
            write_measures(run.folder / "measures.csv", rows(of, EvaluationSet(padded, 1, metamers=options)))
            self.nets[run.folder] = net
            self.variants[variant].runs.append(run)

    def load_net(self, run: FinishedRun, _: object) -> tuple[nn.Module, object, Task]:
        return self.nets[run.folder], to_input, Task("what", 5)

    def share(self, of: FinishedRun, by: FinishedRun, pictures: Tensor | None = None) -> float:
        """Of metamers of the logits, all of which were reached, or of other pictures."""
        net = self.nets[by.folder]
        assert (of.pictures[f"metamers/{LOGITS}/distance"] < 0.1).all()
        metamers = torch.from_numpy(of.pictures[f"metamers/{LOGITS}"]).float() / 255 if pictures is None else pictures
        targets = torch.from_numpy(of.pictures["metamers/image"]).flatten(0, 1).float() / 255
        same = net(metamers.flatten(0, 1)).argmax(1).view(N, 2) == net(targets).argmax(1)[:, None]
        return float(same.double().mean())


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    return Sweep(tmp_path_factory.mktemp("sweep"))


def matrix(variants: list[Variant], layer: int) -> dict[tuple[str, str], float]:
    trace = recognition.recognition(variants).data[layer]
    names = [y.partition(" (n")[0] for y in trace.y]
    return {(of, by): trace.z[i][j] for i, of in enumerate(names) for j, by in enumerate(trace.x)}


def test_shares_are_those_of_the_pictures(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "load_net", sweep.load_net)
    first, second = sweep.variants[0].runs
    found = matrix(sweep.variants, 1)
    starts = torch.stack([noise(N, (1, SIDE, SIDE), 0, number) for number in range(2)], 1)
    expected = {
        ("sees", "sees"): (sweep.share(first, first) + sweep.share(second, second)) / 2,
        ("sees", OTHER_SEED): (sweep.share(first, second) + sweep.share(second, first)) / 2,
        ("sees", "blind"): 1.0,
        ("noise (floor)", "sees"): np.mean([sweep.share(run, run, starts) for run in (first, second)]),
    }
    for key, share in expected.items():
        assert found[key] == pytest.approx(share), key
    assert expected["sees", OTHER_SEED] < expected["sees", "sees"], "what is told apart"
    assert np.isnan(found[FLOOR, OTHER_SEED])
    assert ("blind", "sees") not in found, "its logits are constant and have no metamers"
    assert matrix(sweep.variants, 0)["blind", "sees"] > 0.9, "metamers of pixels are the images"


def test_one_seed_has_intervals_over_images_and_no_other_seed(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "load_net", sweep.load_net)
    single = [Variant(variant.name, {}, variant.runs[:1]) for variant in sweep.variants]
    figure = recognition.recognition(single)
    assert OTHER_SEED not in figure.data[1].x
    run = single[0].runs[0]
    (line,) = (line for line in figure_csv(figure).splitlines() if line.startswith("1,,,sees,sees (n = 8)"))
    numbers = [float(part) for part in line.split(",")[-3:]]
    assert numbers == pytest.approx(run.measures[LOGITS, "test", 0, "metamer_recognised"], abs=0.07), "but for rounding"
    alone = FinishedRun(run.folder, {})  # as the page of measures has it
    assert not recognition.recognition([Variant("sees", {}, [alone])]).data


def test_a_net_without_weights_is_judged_and_judges_none(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_net(run: FinishedRun, image: object) -> object:
        if run in sweep.variants[1].runs:
            raise UserError("its weights are not in the run's folder")
        return sweep.load_net(run, image)

    monkeypatch.setattr(recognition, "load_net", load_net)
    found = matrix(sweep.variants, 0)
    assert found["blind", "sees"] > 0.9
    assert {by for _, by in found} == {"sees", OTHER_SEED}
