"""Statistics followed while a net trains: against closed forms and other libraries, and without a trace in training."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import energy_distance, norm
from sklearn.neighbors import NearestNeighbors
from torch import nn

from src.common.errors import UserError
from src.config import from_dict
from src.data.splits import split
from src.evaluation.followed import FOLLOWED, OF_CLASSES, statistic
from src.evaluation.followed.look import Look
from src.evaluation.followed.of_fitting import susceptibility
from src.metrics.class_divergence import class_divergence
from src.metrics.dimension import effective_rank, eigenvalues, participation_ratio
from src.metrics.local_dimension import local_dimension
from src.metrics.quantities import quantity_of
from src.models.tasks import Task
from src.results.files import BEST, CHECKPOINTS, HISTORY, LAST, read_rows
from src.training.checkpoints import SaveCheckpoints
from src.training.following import FollowStatistics
from src.training.lightning_module import module
from src.training.run import run
from tests.helpers import tiny

ALL = list(FOLLOWED)
CLASSES, SIDE, EACH, SIZE = 3, 4, 5, 12


def points(n: int, d: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# --- pure functions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d", [1, 2, 4])
def test_local_dimension_is_that_of_a_flat_torus_which_has_no_border(d):
    k = 20
    angles = 2 * np.pi * torch.rand(3000 if d == 4 else 1500, d, generator=torch.Generator().manual_seed(1))
    torus = torch.cat([angles.cos(), angles.sin()], 1) @ torch.linalg.qr(points(10, 2 * d)).Q.T
    assert local_dimension(torus, k) == pytest.approx(d * k / (k - 2), rel=0.06 if d == 4 else 0.03)


def test_local_dimension_is_the_formula_with_another_search_for_neighbours():
    x, k = points(60, 7).double(), 9
    distances = NearestNeighbors(n_neighbors=k + 1).fit(x.numpy()).kneighbors(x.numpy())[0][:, 1:]
    expected = np.mean([-k / sum(np.log(r / row[-1]) for r in row) for row in distances])
    assert local_dimension(x, k) == pytest.approx(expected)
    assert local_dimension(3 * x + 5, k) == pytest.approx(expected), "of neither scale nor place"


def test_local_dimension_of_the_same_point_is_not_defined():
    assert np.isnan(local_dimension(torch.ones(10, 3)))
    assert np.isnan(local_dimension(torch.full((10, 3), torch.nan)))


def test_class_divergence_of_gaussian_classes_is_their_distance_from_the_mixture():
    n, apart = 20_000, 1.5
    labels = torch.arange(n) % 2
    units = points(n, 1) + apart * (2 * labels[:, None] - 1)
    x = np.linspace(-9, 9, 20_001)
    mixture = (norm.cdf(x, -apart) + norm.cdf(x, apart)) / 2
    distance = np.trapezoid(abs(norm.cdf(x, apart) - mixture), x) / np.sqrt(1 + apart**2)
    assert class_divergence(units, labels) == pytest.approx(distance, rel=0.01)
    assert class_divergence(-7 * units + 3, labels) == pytest.approx(class_divergence(units, labels))
    shuffled = labels[torch.randperm(n, generator=torch.Generator().manual_seed(0))]
    assert class_divergence(units, shuffled) < 0.03 < distance


def test_class_divergence_orders_nets_as_another_distance_does():
    labels = torch.arange(300) % 3
    nets = [points(300, 2) + strength * F.one_hot(labels, 3)[:, :2] for strength in (0, 1, 2, 4)]
    other = [
        np.mean([energy_distance(u[labels == c], u) / u.std() for u in x.T.numpy() for c in range(3)]) for x in nets
    ]
    ours = [class_divergence(x, labels) for x in nets]
    assert ours == sorted(ours) and other == sorted(other)


# --- of a look -------------------------------------------------------------------------------------------------------


class Linear(nn.Module):
    """Logits of a linear map: the gradient of its loss has a closed form."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Flatten()
        self.map = nn.Linear(SIDE**2, CLASSES)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.map(self.flat(x))
        return out


def look(**changes: Any) -> Look:
    torch.manual_seed(3)
    batches = [
        (torch.randn(SIZE, 1, SIDE, SIDE), torch.arange(SIZE) % CLASSES, torch.zeros(SIZE, 0)) for _ in range(EACH)
    ]
    images = [torch.randn(20, 1, SIDE, SIDE), torch.randn(19, 1, SIDE, SIDE)]
    settings: dict[str, Any] = {"lr": 0.05, "seed": 7} | changes
    return Look(Linear(), ["flat", "map"], Task("what", CLASSES), images, batches, **settings)


def closed_form(
    net: Linear, x: np.ndarray, y: np.ndarray, weights: np.ndarray, bias: np.ndarray
) -> tuple[float, Any, Any]:
    """Loss of a softmax regression, and its gradient by weights and bias."""
    logits = x @ weights.T + bias
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    error = (p - np.eye(CLASSES)[y]) / len(y)
    return float(-np.log(p[np.arange(len(y)), y]).mean()), error.T @ x, error.sum(0)


def numpy_of(seen: Look) -> tuple[Linear, np.ndarray, np.ndarray]:
    net = seen.net
    assert isinstance(net, Linear)
    return net, net.map.weight.detach().double().numpy(), net.map.bias.detach().double().numpy()


def test_susceptibility_is_a_step_of_softmax_regression():
    seen = look()
    net, weights, bias = numpy_of(seen)
    x = seen.train[0][0].flatten(1).double().numpy()
    y = torch.randint(CLASSES, (SIZE,), generator=torch.Generator().manual_seed(7)).numpy()
    before, by_weights, by_bias = closed_form(net, x, y, weights, bias)
    after, _, _ = closed_form(net, x, y, weights - 0.05 * by_weights, bias - 0.05 * by_bias)
    assert susceptibility(seen)["train/susceptibility"] == pytest.approx(before - after, rel=1e-3)
    tiny_step = susceptibility(look(lr=1e-3))["train/susceptibility"] / 1e-3
    assert tiny_step == pytest.approx((by_weights**2).sum() + (by_bias**2).sum(), rel=0.02), "η |∇L|²"


def test_gradient_disparity_is_the_mean_distance_of_closed_form_gradients():
    seen = look()
    net, weights, bias = numpy_of(seen)
    gradients = []
    for images, labels, _ in seen.train:
        _, by_weights, by_bias = closed_form(net, images.flatten(1).double().numpy(), labels.numpy(), weights, bias)
        gradients.append(np.r_[by_weights.ravel(), by_bias])
    distances = [np.linalg.norm(a - b) for i, a in enumerate(gradients) for b in gradients[:i]]
    found = statistic("gradient_disparity")(seen)["train/gradient_disparity"]
    assert len(distances) == 10 and found == pytest.approx(np.mean(distances), rel=1e-5)
    seen.train = [seen.train[0]] * EACH
    assert statistic("gradient_disparity")(seen)["train/gradient_disparity"] == 0, "all batches pull the same way"


def test_prediction_change_is_the_share_that_changed():
    seen = look()
    assert np.isnan(statistic("prediction_change")(seen)["train/prediction_change"])
    before = seen.predictions.clone()
    before[:15] = (before[:15] + 1) % CLASSES
    changed = look(before=before)
    assert statistic("prediction_change")(changed)["train/prediction_change"] == pytest.approx(15 / (EACH * SIZE))


def test_layers_have_what_the_metrics_give_for_all_images_at_once():
    seen = look()
    outputs = seen.net(torch.cat(list(seen.images))).detach()
    spectrum = eigenvalues(outputs)
    expected = {"effective_rank": effective_rank(spectrum), "participation_ratio": participation_ratio(spectrum)}
    expected["dead_share"] = (outputs.amax(0) <= 0).float().mean()
    for name, value in expected.items():
        found = statistic(name)(seen)
        assert list(found) == [f"layers/flat/{name}", f"layers/map/{name}"]
        assert found[f"layers/map/{name}"] == pytest.approx(value.item(), rel=1e-6)
    assert statistic("local_dimension")(seen) == {"layers/map/local_dimension": pytest.approx(local_dimension(outputs))}


@pytest.mark.parametrize("name", ALL)
def test_a_statistic_leaves_the_net_as_it_is_and_says_what_it_is(name):
    seen = look()
    seen.net.eval()
    before = {key: value.clone() for key, value in seen.net.state_dict().items()}
    numbers = statistic(name)(seen)
    assert all(torch.equal(value, before[key]) for key, value in seen.net.state_dict().items())
    assert all(parameter.grad is None for parameter in seen.net.parameters())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in seen.net.modules())
    assert all(column.rpartition("/")[2] == name for column in numbers)
    assert quantity_of(name) is not None and inspect.getdoc(statistic(name))


# --- in a run --------------------------------------------------------------------------------------------------------


def config(follow: list[str], **changes: Any) -> Any:
    return tiny(train={"epochs": 3}, data={"label_noise": 0.2}, measure={"follow": follow, **changes})


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("followed")
    run(config(ALL), folder)
    return folder


def weights_of(folder: Path, name: str) -> dict[str, Any]:
    kept: dict[str, Any] = torch.load(folder / CHECKPOINTS / name, weights_only=True)
    return kept


def history_of(folder: Path) -> list[dict[str, str]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in read_rows(folder / HISTORY)]


def test_following_changes_no_bit_of_training(followed: Path, tmp_path: Path) -> None:
    run(config([]), tmp_path)
    for name in (BEST, LAST):
        with_it, without = (weights_of(folder, name) for folder in (followed, tmp_path))
        assert all(torch.equal(value, without["state_dict"][key]) for key, value in with_it["state_dict"].items())
    slots = zip(*(weights_of(folder, LAST)["optimizer_states"][0]["state"].values() for folder in (followed, tmp_path)),
                strict=True)  # fmt: skip
    assert all(torch.equal(a[key], b[key]) for a, b in slots for key in a)
    for ours, theirs in zip(history_of(followed), history_of(tmp_path), strict=True):
        assert {name: ours[name] for name in theirs} == theirs
    assert (followed / "measures.csv").read_bytes() == (tmp_path / "measures.csv").read_bytes()


def test_every_epoch_has_every_statistic_of_every_layer(followed: Path) -> None:
    rows, layers = history_of(followed), ["stage1", "stage2", "features"]
    expected = {f"layers/{layer}/{name}" for layer in layers for name in ALL[:3]} | {"layers/features/local_dimension"}
    expected |= {f"train/{name}" for name in ALL[4:]}
    assert {name for name in rows[0] if name.rpartition("/")[2] in FOLLOWED} == expected
    empty = {(row["epoch"], name) for row in rows for name in expected if not row[name]}
    assert empty <= {
        ("1", "train/prediction_change"),
        *((row["epoch"], "layers/features/local_dimension") for row in rows),
    }
    assert ("1", "train/prediction_change") in empty
    assert all(0 <= float(row["train/prediction_change"]) <= 1 for row in rows[1:])


def test_looks_keep_the_cadence_of_measure_every(tmp_path: Path) -> None:
    run(config(["effective_rank", "prediction_change"], every=2), tmp_path)
    rows = history_of(tmp_path)
    assert [bool(row["layers/stage1/effective_rank"]) for row in rows] == [False, True, False]
    assert [bool(row["invariance/crop/1px/output_distance"]) for row in rows] == [False, True, False]


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_resumed_run_logs_what_an_uninterrupted_one_does(
    epoch: int, followed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = SaveCheckpoints.on_train_epoch_end

    def fail(self: SaveCheckpoints, trainer: Any, net: Any) -> None:
        save(self, trainer, net)
        if trainer.current_epoch == epoch:
            raise RuntimeError("the power went")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="the power went"):
        patch.setattr(SaveCheckpoints, "on_train_epoch_end", fail)
        run(config(ALL), tmp_path)
    run(config(ALL), tmp_path)
    assert history_of(tmp_path) == history_of(followed)


@pytest.mark.parametrize("axes", [{"norm": "none"}, {"norm": "batch"}])
def test_a_look_draws_nothing_and_touches_neither_modes_nor_gradients(axes: dict[str, Any]) -> None:
    cfg = tiny(model=axes, measure={"follow": ALL})
    splits = split(cfg.data)
    net = module(cfg, splits.image, len(splits.classes)).train()
    net(splits.normalise(splits.train.images[:8])).sum().backward()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    gradients, random = (
        [parameter.grad.clone() for parameter in net.parameters() if parameter.grad is not None],
        torch.get_rng_state(),
    )
    follow = FollowStatistics(cfg, splits)
    numbers = follow.look(net)
    again = follow.look(net)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    kept = [parameter.grad for parameter in net.parameters() if parameter.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(kept, gradients, strict=True))
    assert torch.equal(torch.get_rng_state(), random) and all(module.training for module in net.modules())
    assert again.pop("train/prediction_change") == 0 and np.isnan(numbers.pop("train/prediction_change"))
    assert again == pytest.approx(numbers, abs=0, nan_ok=True), "the same images each time"


@pytest.mark.parametrize("name", OF_CLASSES)
def test_a_net_without_classes_is_refused_what_is_of_classes(name: str) -> None:
    with pytest.raises(
        UserError, match=rf"^measure\.follow={name}: is of nets that classify, not of data\.task=where$"
    ):
        from_dict({"data": {"name": "shapes", "task": "where"}, "measure": {"follow": [name]}})


def test_a_net_of_positions_is_followed_by_the_others() -> None:
    names = [name for name in ALL if name not in OF_CLASSES]
    cfg = tiny(data={"task": "where"}, measure={"follow": names})
    splits = split(cfg.data)
    numbers = FollowStatistics(cfg, splits).look(module(cfg, splits.image, len(splits.classes)))
    assert numbers["train/gradient_disparity"] > 0 and "layers/stage2/effective_rank" in numbers


def test_a_wrong_statistic_is_refused() -> None:
    with pytest.raises(UserError, match=r"^measure\.follow=efective_rank: did you mean effective_rank\? choose one of"):
        from_dict({"measure": {"follow": ["efective_rank"]}})
