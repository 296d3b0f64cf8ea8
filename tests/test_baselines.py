"""The baselines' frozen features against scikit-image and scikit-learn; their runs, which have no maps to show."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import hog
from sklearn.decomposition import PCA
from sklearn.kernel_approximation import Nystroem
from sklearn.metrics.pairwise import rbf_kernel

from src.common.errors import UserError
from src.models.hog import Histograms
from src.models.hog_kernel import SCALE, WIDTH, Nystrom
from src.nets.hooks import record_outputs
from src.reporting.page import write_run_page
from src.training.run import run
from tests.helpers import composed, network


@settings(max_examples=30)
@given(st.integers(1, 3), st.integers(8, 30), st.integers(8, 30), st.integers(2, 4))
def test_histograms_are_scikit_images(channels, height, width, cell):
    x = torch.randn(3, channels, height, width, dtype=torch.float64)
    histograms = Histograms((channels, height, width), cell)
    options = {"orientations": 9, "pixels_per_cell": (cell, cell), "cells_per_block": (2, 2), "channel_axis": -1}
    wanted = np.stack([hog(one.permute(1, 2, 0).numpy(), **options) for one in x])
    assert wanted.shape == (3, histograms.out_features)
    np.testing.assert_allclose(histograms(x).numpy(), wanted, atol=1e-6)


def test_a_flat_image_has_empty_histograms():
    assert not Histograms((1, 16, 16), 4)(torch.full((2, 1, 16, 16), 3.0)).any()


@pytest.mark.parametrize(
    ("name", "count"), [("pixels", 3 * 17 * 22), ("pca", 7), ("hog", 3 * 4 * 4 * 9), ("hog_kernel", 7)]
)
def test_features_are_frozen_and_the_head_is_trained(name, count):
    net = network((3, 17, 22), name=name, **({"width": 7} if count == 7 else {}))
    assert net.stages == []
    assert {key for key, one in net.named_parameters() if one.requires_grad} == {"logits.weight", "logits.bias"}
    with record_outputs(net, ["features"]) as maps:
        net(torch.randn(2, 3, 17, 22))
    assert maps["features"].shape == (2, count)


def test_components_are_scikit_learns():
    net = network((2, 5, 6), name="pca", width=4)
    images = (torch.rand(80, 2, 5, 6) * torch.linspace(10, 255, 6)).to(torch.uint8)
    net.fit(images, lambda pixels: pixels / 255)
    with record_outputs(net, ["features"]) as maps:
        net(images / 255)
    wanted = PCA(4).fit_transform((images / 255).flatten(1).numpy())
    np.testing.assert_allclose(np.abs(maps["features"].detach().numpy()), np.abs(wanted), atol=1e-3)


def test_more_components_than_pixels_or_images_are_refused():
    with pytest.raises(UserError, match=r"^model\.width=61: an image of 60 pixels has no more components than that$"):
        network((2, 5, 6), name="pca", width=61)
    with pytest.raises(UserError, match=r"^model\.width=9: 8 training images have no more components(\n|$)"):
        network((2, 5, 6), name="pca", width=9).fit(torch.zeros(8, 2, 5, 6, dtype=torch.uint8), torch.Tensor.float)


@settings(max_examples=20)
@given(st.integers(2, 12), st.integers(2, 9), st.integers(0, 5), st.integers(0, 1000))
def test_kernel_features_are_scikit_learns(landmarks, inputs, spare, seed):
    generator = torch.Generator().manual_seed(seed)
    fitted, others = torch.randn(2, landmarks, inputs, generator=generator, dtype=torch.float64)
    kernel = Nystrom(inputs, landmarks + spare).double()
    kernel.fit(fitted)
    sigma = WIDTH * torch.pdist(fitted).median().item()
    wanted = Nystroem(gamma=1 / (2 * sigma**2), n_components=landmarks).fit(fitted.numpy()).transform(others.numpy())
    z = kernel(others).numpy() / SCALE
    np.testing.assert_allclose(z @ z.T, wanted @ wanted.T, atol=1e-4)
    assert not z[:, landmarks:].any(), "what is left of the features is 0"
    there = kernel(fitted).numpy() / SCALE
    np.testing.assert_allclose(there @ there.T, rbf_kernel(fitted.numpy(), gamma=1 / (2 * sigma**2)), atol=1e-4)
    loaded = Nystrom(inputs, landmarks + spare).double()
    loaded.load_state_dict(copy.deepcopy(kernel).state_dict())
    assert torch.equal(loaded(others), kernel(others)), "from a checkpoint, too"
    assert loaded._used == landmarks, "landmarks that were not fitted cost nothing"


def test_a_kernel_of_equal_images_or_of_one_is_finite():
    for images in (torch.full((5, 1, 16, 16), 7), torch.randint(256, (1, 1, 16, 16))):
        net = network((1, 16, 16), name="hog_kernel", width=5)
        net.fit(images.to(torch.uint8), lambda pixels: pixels / 255)
        assert torch.isfinite(net(torch.randn(4, 1, 16, 16))).all()


@pytest.mark.parametrize("others", [0, 9])
def test_a_kernel_of_images_most_of_which_are_equal_is_that_of_a_loaded_one(others):
    """Between equal vectors, a kernel is 1 and a distance a rounding error."""
    generator = torch.Generator().manual_seed(0)
    one, *rest = 6 * F.normalize(torch.rand(1 + others, 200, generator=generator))
    vectors = torch.stack([*[one] * 60, *rest])
    kernel, loaded = Nystrom(200, 80), Nystrom(200, 80)
    kernel.fit(vectors)
    z = kernel(vectors) / SCALE
    wanted = rbf_kernel(vectors.double().numpy(), gamma=float(1 / (2 * kernel.sigma**2)))
    np.testing.assert_allclose((z @ z.T).numpy(), wanted, atol=0.01)
    loaded.load_state_dict(kernel.state_dict())
    assert torch.equal(loaded(vectors), kernel(vectors))


@pytest.mark.filterwarnings("default")  # Lightning's own
@pytest.mark.parametrize("name", ["pixels", "pca", "hog", "hog_kernel"])
def test_a_run_of_its_own_ends_with_a_page(name, tmp_path: Path) -> None:
    keys = "data=shapes data.image_size=16 data.train_size=128 data.val_size=64 measure.what=[shift] measure.images=20"
    width = ["model.width=8"] if name in ("pca", "hog_kernel") else []
    run(composed(f"model={name}", "train.epochs=1", "wandb.mode=disabled", *keys.split(), *width), tmp_path)
    write_run_page(tmp_path)
    assert "output distance" in (tmp_path / "report.html").read_text()
