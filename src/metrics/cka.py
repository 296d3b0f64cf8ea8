"""Linear CKA: how alike are two layers' outputs, up to rotation and scale? Unbiased, in minibatches."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from .rows import Estimate

FEWEST = 5  # batches that give an interval


def gram(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n n"]:
    """Inner products of all pairs of images, of outputs less the first image's: HSIC does not depend on an offset, and
    so outputs that are all the same have exactly 0.
    """
    flat = x.detach().flatten(1)
    flat = flat - flat[:1]
    return (flat @ flat.T).double()


def u_centred(k: Float[Tensor, "*layers n n"]) -> Float[Tensor, "*layers n n"]:
    """A Gram matrix without its diagonal, centred so that off the diagonal all rows and columns have the sum 0.

    The mean product of two such matrices is the unbiased HSIC (Székely & Rizzo 2014), so each is centred once.
    """
    n = k.shape[-1]
    if n < 4:
        raise ValueError(f"unbiased HSIC needs 4 images a batch, not {n}")
    off = 1 - torch.eye(n, dtype=k.dtype, device=k.device)
    k = k * off
    rows = k.sum(-1, keepdim=True) / (n - 2)
    return (k - rows - rows.mT + rows.sum(-2, keepdim=True) / (n - 1)) * off


def unbiased_hsic(k: Float[Tensor, "n n"], l: Float[Tensor, "n n"]) -> Float[Tensor, ""]:  # noqa: E741
    """HSIC₁ of two Gram matrices (Song et al. 2012), n ≥ 4: 0 on average for independent outputs, so also negative.

    ``[tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1 / ((n-1)(n-2)) - 2 / (n-2) · 1ᵀK̃L̃1] / (n(n-3))``, K̃ and L̃ with diagonals of 0; computed
    as the equal product of both, centred.

    >>> points = torch.tensor([[0.0], [1], [2], [3]])
    >>> round(unbiased_hsic(points @ points.T, points @ points.T).item(), 4)
    2.1667
    """
    n = len(k)
    return (u_centred(k) * u_centred(l)).sum() / (n * (n - 3))


def cka(x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """``HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))``, at most about 1: 1 equal up to rotation and scale, 0 on average for
    independent outputs (Kornblith et al. 2019, Nguyen et al. 2021). nan where an output is the same for all images.

    The biased estimate gives independent Gaussians of 64 images and 8192 units .99.

    >>> x = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0, 3]])
    >>> round(cka(x, 5 - 2 * x.flip(1)).item(), 4)
    1.0
    """
    k, l = gram(x), gram(y)  # noqa: E741
    return ratio(unbiased_hsic(k, l), unbiased_hsic(k, k), unbiased_hsic(l, l))


def ratio(
    cross: Float[Tensor, "*sets"], of_x: Float[Tensor, "*sets"], of_y: Float[Tensor, "*sets"]
) -> Float[Tensor, "*sets"]:
    """HSIC over the root of both HSICs with themselves; nan where one of these is not above 0."""
    scale = (of_x.clamp(min=0) * of_y.clamp(min=0)).sqrt()
    return torch.where(scale > 0, cross / scale, torch.nan)


class CKAMatrix(Metric):
    """``cka`` of every layer of one net with every layer of another, or of its own; each Gram matrix is made once.

    HSICs are summed over batches and divided once (Nguyen et al. 2021): each is unbiased, whatever the batch's size. A
    batch leaves three numbers for each pair of layers and is forgotten.

    Intervals: batches are independent samples, so the jackknife over them gives the standard error, with Student's t
    for their small number; nan with fewer than five. A bootstrap over images does not do: an image drawn twice is a
    pair of equal images, which raises every HSIC.
    """

    full_state_update = False
    n: Tensor
    hsics: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("hsics", default=[], dist_reduce_fx="cat")

    def update(self, xs: Sequence[Float[Tensor, "n ..."]], ys: Sequence[Float[Tensor, "n ..."]] | None = None) -> None:
        """Add a batch of at least 4 images: the outputs of all layers of one net, and of another (null: the same)."""
        k = self._centred(xs)
        l = k if ys is None else self._centred(ys)  # noqa: E741
        self.n = self.n + len(xs[0])
        of_x, of_y = k.square().sum(1)[:, None], l.square().sum(1)[None]
        sums = torch.stack([one.expand(len(k), len(l)) for one in (k @ l.T, of_x, of_y)])
        self.hsics.append(sums[None] / (len(xs[0]) * (len(xs[0]) - 3)))

    @staticmethod
    def _centred(outputs: Iterable[Float[Tensor, "n ..."]]) -> Float[Tensor, "layers nn"]:
        return u_centred(torch.stack([gram(one) for one in outputs])).flatten(1)

    def compute(self) -> Float[Tensor, "layers others"]:
        """The CKA of all pairs of layers (of one pair: torchmetrics makes it a scalar)."""
        return ratio(*dim_zero_cat(self.hsics).sum(0))

    def intervals(self) -> tuple[Float[Tensor, "layers others"], Float[Tensor, "layers others"]]:
        """95% intervals of all pairs: the lower ends, the upper ends."""
        hsics = dim_zero_cat(self.hsics)
        batches, value = len(hsics), ratio(*hsics.sum(0))
        if batches < FEWEST:
            return torch.full_like(value, torch.nan), torch.full_like(value, torch.nan)
        without = ratio(*(hsics.sum(0) - hsics).unbind(1))  # each batch left out once
        error = ((batches - 1) * (without - without.mean(0)).square().mean(0)).sqrt()
        half = float(student.ppf(0.975, batches - 1)) * error
        return value - half, value + half


class CKA(Metric):
    """``cka`` of two layers, in batches; see ``CKAMatrix``."""

    full_state_update = False

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.matrix = CKAMatrix(**options)

    def update(self, x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> None:
        """Add a batch of at least 4 images: the outputs of both layers."""
        self.matrix.update([x], [y])

    def compute(self) -> Float[Tensor, ""]:
        """The CKA of all batches."""
        value: Tensor = self.matrix.compute()
        return value

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.matrix.reset()

    def estimate(self) -> Estimate:
        """The same with its interval over batches; n counts images."""
        low, high = self.matrix.intervals()
        return Estimate(self.compute().item(), low.item(), high.item(), int(self.matrix.n))
