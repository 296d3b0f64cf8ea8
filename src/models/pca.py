"""Baseline: a linear classifier of the pixels' principal components, fitted by scikit-learn."""

from collections import OrderedDict
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from ..common.errors import UserError
from .blocks import NO_LAYERS, Network
from .options import Model


class PCA(Network):
    """``width`` fixed components and a trained head; a random projection until it is fitted."""

    unsupported_axes: ClassVar = NO_LAYERS

    def build(self, model: Model) -> None:
        """Add the projection."""
        channels, height, width = self.image
        pixels = channels * height * width
        if model.width > pixels:
            raise UserError(f"model.width={model.width}: an image of {pixels} pixels has no more components than that")
        project = nn.Linear(pixels, model.width).requires_grad_(False)
        self.add("components", nn.Sequential(OrderedDict(flatten=nn.Flatten(), project=project)))

    def fit(self, images: UInt8[Tensor, "n c h w"], normalise: Callable[[Tensor], Tensor]) -> None:
        """Fit the components of largest variance; ``UserError`` if there are fewer images than components."""
        from sklearn import decomposition

        project = self.get_submodule("components.project")
        assert isinstance(project, nn.Linear)
        if len(images) < project.out_features:
            raise UserError(
                f"model.width={project.out_features}: {len(images)} training images have no more components"
            )
        flat = normalise(images[:20_000]).flatten(1).cpu().numpy()  # more would take long
        fitted = decomposition.PCA(project.out_features, svd_solver="covariance_eigh").fit(flat)
        components = torch.from_numpy(fitted.components_)
        with torch.no_grad():
            project.weight.copy_(components)
            project.bias.copy_(-components @ torch.from_numpy(fitted.mean_))
