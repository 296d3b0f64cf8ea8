"""Baseline: a Gaussian-kernel classifier of histograms of oriented gradients, the strong hand-crafted opponent."""

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from ..summary import Layer
from .blocks import NO_LAYERS
from .hog import HOG, Histograms
from .options import Model

#: length of the longest feature vector: with it, the learning rates of the other architectures suit the head
SCALE = 10
#: σ in median distances between landmarks; on Fashion-MNIST the most accurate of .25, .5 and 1, by validation
WIDTH = 0.5
#: directions of less than this share of the largest eigenvalue are rounding errors
NEGLIGIBLE = 1e-6
#: least median distance, in lengths of the longest landmark: of shorter ones, rounding errors are a large part
SHORTEST = 0.1


class Nystrom(nn.Module):
    """Fixed features z with z(x)·z(y) = ``SCALE``² k(x, y) on the landmarks, for the Gaussian kernel
    k(x, y) = exp(−‖x − y‖² / 2σ²), and nearly so between them (Nyström's method).

    A linear classifier of z is a kernel machine; with all training images as landmarks, none of the kernel is left out.
    Source: Williams & Seeger 2001.

    Args:
        inputs: dimension of x.
        landmarks: dimension of z. Where fewer vectors are given to ``fit``, the rest of z is 0 and costs nothing.
    """

    landmarks: Tensor
    whiten: Tensor
    sigma: Tensor

    def __init__(self, inputs: int, landmarks: int) -> None:
        super().__init__()
        self.register_buffer("landmarks", torch.randn(landmarks, inputs))
        self.register_buffer("whiten", torch.eye(landmarks))
        self.register_buffer("sigma", torch.tensor(inputs**0.5))
        self._used = landmarks
        self.register_load_state_dict_post_hook(_count_used)

    @torch.no_grad()
    def fit(self, vectors: Float[Tensor, "n i"]) -> None:
        """Take the first vectors as landmarks, and half the median distance between them, if there are two, as σ."""
        count = min(len(vectors), len(self.landmarks))
        if count > 1:
            least = SHORTEST * float(vectors[:count].norm(dim=1).max())
            self.sigma.fill_(WIDTH * torch.pdist(vectors[:count]).median().clamp(min=max(least, 1e-6)))
        self._used = count
        self.landmarks.zero_()[:count] = vectors[:count]
        values, directions = torch.linalg.eigh(self._kernel(vectors[:count]).double())
        kept = values > NEGLIGIBLE * values[-1]
        self.whiten.zero_()[:count, : int(kept.sum())] = (directions[:, kept] / values[kept].sqrt()).to(vectors.dtype)

    def forward(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n m"]:
        """Vectors to features of length up to ``SCALE``."""
        features = SCALE * F.linear(self._kernel(x), self.whiten[: self._used, : self._used].T)
        return F.pad(features, (0, len(self.landmarks) - self._used))

    def _kernel(self, x: Float[Tensor, "n i"]) -> Float[Tensor, "n used"]:
        landmarks = self.landmarks[: self._used]
        lengths = x.square().sum(1, keepdim=True) + landmarks.square().sum(1)
        squares = (lengths - 2 * F.linear(x, landmarks)).clamp(min=0)
        return torch.exp(-squares / (2 * self.sigma**2))

    def summary_rule(self, layer: Layer) -> Layer:
        """Two linear layers without parameters."""
        count, inputs = self.landmarks.shape
        return replace(layer, channels=count, multiply_adds=count * (inputs + count))

    def extra_repr(self) -> str:
        """Shown by ``print(net)``."""
        return "{1} → {0}".format(*self.landmarks.shape)


def _count_used(kernel: Nystrom, _: object) -> None:
    """How many landmarks a loaded kernel was fitted to; the others have weights of 0."""
    kernel._used = int(kernel.whiten.any(1).nonzero().max()) + 1


class HOGKernel(HOG):
    """Fixed histograms, their kernel with up to ``width`` training images, and a trained head.

    With a head trained to the same steps as every other net it is as accurate as a support vector machine of the same
    kernel (``sklearn.svm.SVC``, C = 10): .857 and .859 on Fashion-MNIST with 2,000 training images, .793 and .790
    with 250.
    """

    unsupported_axes: ClassVar = NO_LAYERS | {"parameters": None}

    def build(self, model: Model) -> None:
        """Add the histograms and the kernel."""
        super().build(model)
        histograms = self.get_submodule("histograms")
        assert isinstance(histograms, Histograms)
        self.add("kernel", Nystrom(histograms.out_features, model.width))

    def fit(self, images: UInt8[Tensor, "n c h w"], normalise: Callable[[Tensor], Tensor]) -> None:
        """Fit the kernel to the first ``width`` training images."""
        kernel = self.get_submodule("kernel")
        assert isinstance(kernel, Nystrom)
        kernel.fit(self.get_submodule("histograms")(normalise(images[: len(kernel.landmarks)])))
