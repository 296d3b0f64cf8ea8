"""``data.permute``: each transform acts on the image, and the net sees the result with its pixels permuted."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from src.data.batches import Batches
from src.data.permutation import Permutation, draw_permutation
from src.data.splits import Splits, split
from src.evaluation.suite import evaluate_families
from src.metrics.rows import Heatmap, Row
from src.results import files
from src.training.evaluate_run import adapter_of_run, evaluation_set
from src.training.following import FollowStatistics
from src.training.lightning_module import Training, module
from src.training.run import run
from tests.helpers import model, tiny


def cfg_of(name: str, permute: bool, **sections: dict[str, object]):  # type: ignore[no-untyped-def]
    cfg = tiny(data={"permute": permute}, measure={"images": 20, "max_shift": 2, "what": []}, **sections)
    wide = {"width": 32} if name == "mlp" else {}  # so that no image has features of zeros, whose cosines are nan
    return replace(cfg, model=model(name, **wide))


def pair(name: str) -> tuple[tuple[Training, Splits], tuple[Training, Splits]]:
    """A net of permuted images; and one of the images as they are, whose first weights are permuted instead."""
    permuted, plain = (split(cfg_of(name, permute).data) for permute in (True, False))
    one, other = (module(cfg_of(name, False), plain.image, len(plain.classes)).eval() for _ in range(2))
    assert permuted.permutation is not None and plain.permutation is None
    with torch.no_grad():
        ours, theirs = (next(m for m in net.modules() if isinstance(m, nn.Linear)) for net in (one, other))
        theirs.weight[:, permuted.permutation.order] = ours.weight
    return (one, permuted), (other, plain)


@pytest.mark.parametrize("name", ["mlp", "pixels"])
def test_a_net_without_locality_with_permuted_first_weights_answers_the_same(name: str) -> None:
    (one, permuted), (other, plain) = pair(name)
    images = plain.test.images[:50]
    with torch.no_grad():
        answers = other(plain.normalise(images))
        torch.testing.assert_close(one(permuted.normalise(images)), answers, rtol=1e-4, atol=1e-5)
    assert (one(plain.normalise(images)) - answers).abs().max() > 0.1, "or this shows nothing"


def numbers(net: Training, splits: Splits) -> Iterator[Row | Heatmap]:
    families = ["shift", "rotate", "flip", "blur", "erase", "rolls", "crops", "velocity", "field", "layers"]
    images = evaluation_set(cfg_of("mlp", False), splits)
    for result in evaluate_families(adapter_of_run(net, splits), images, families):
        if isinstance(result, Row | Heatmap):
            yield result


def test_all_that_is_measured_is_that_of_the_same_motion_of_the_image() -> None:
    found, expected = (list(numbers(*each)) for each in pair("mlp"))
    assert len(found) == len(expected) > 300
    for one, other in zip(found, expected, strict=True):
        if isinstance(one, Row) and isinstance(other, Row):
            assert one.values()[:5] == other.values()[:5]
            if not one.measure.startswith("probe"):  # solved iteratively
                value = pytest.approx(other.estimate.value, rel=1e-3, abs=1e-4, nan_ok=True)
                assert one.estimate.value == value, one
        else:
            assert isinstance(one, Heatmap) and isinstance(other, Heatmap)
            np.testing.assert_allclose(one.values, other.values, rtol=1e-3, atol=1e-4)


def test_every_image_is_permuted_alike_after_augmentation() -> None:
    permuted, plain = (split(cfg_of("mlp", permute).data) for permute in (True, False))
    order = permuted.permutation
    assert order is not None
    for part in (permuted.train, permuted.val, permuted.test):
        x = permuted.normalise(part.images[:9])
        assert torch.equal(x, order(plain.normalise(part.images[:9])))
        assert torch.equal(x.flatten(1).sort(1).values, plain.normalise(part.images[:9]).flatten(1).sort(1).values)
    both = (Batches(plain.train, 64, splits.normalise, seed=1, augment="flip_shift") for splits in (permuted, plain))
    moved, as_it_is = both
    for (x, labels, _), (other, other_labels, _) in zip(moved, as_it_is, strict=True):
        assert torch.equal(x, order(other)) and torch.equal(labels, other_labels)


def test_what_is_followed_while_a_net_trains_is_of_permuted_images() -> None:
    (net, permuted), _ = pair("mlp")
    look = FollowStatistics(cfg_of("mlp", permute=True), permuted)._look(net)
    assert torch.equal(torch.cat(list(look.images)), permuted.normalise(permuted.val.images[:250]))
    batches = torch.cat([x for x, *_ in look.train])
    assert torch.equal(batches, permuted.normalise(permuted.train.images[: len(batches)]))


def test_a_permutation_is_that_of_its_seed_and_the_same_in_every_channel() -> None:
    permutation = draw_permutation(4, 5, seed=3)
    assert sorted(permutation.order.tolist()) == list(range(20))
    assert torch.equal(permutation.order, draw_permutation(4, 5, seed=3).order)
    assert not torch.equal(permutation.order, draw_permutation(4, 5, seed=4).order)
    colours = torch.arange(60.0).view(1, 3, 4, 5)
    by_hand = [[colours[0, c, i // 5, i % 5].item() for i in permutation.order.tolist()] for c in range(3)]
    assert permutation(colours).flatten(2)[0].tolist() == by_hand
    assert Permutation(torch.arange(20))(colours).equal(colours)


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_a_run_of_permuted_images(tmp_path: Path) -> None:
    cfg = tiny(data={"permute": True}, measure={"what": ["shift"]})
    run(cfg, tmp_path / "permuted")
    run(tiny(measure={"what": []}, train={"epochs": 1}), tmp_path / "plain")
    shapes = [(tmp_path / name / files.SHAPES).read_bytes() for name in ("permuted", "plain")]
    assert shapes[0] == shapes[1]
    assert not (tmp_path / "permuted" / files.INSIDE).exists()
    facts = [json.loads((tmp_path / name / files.RUN).read_text()) for name in ("permuted", "plain")]
    assert facts[0]["split_checksum"] == facts[1]["split_checksum"]
