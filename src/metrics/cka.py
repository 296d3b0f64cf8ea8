"""Linear CKA: similarity of two layers' outputs up to rotation and scale. Unbiased, in minibatches."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from scipy.stats import t as student
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from .quantities import Quantity
from .rows import Estimate

QUANTITIES = (
    Quantity("cka", low=-1, high=1, formula="HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)), unbiased; x and y two layers",
        null="0 on average: independent outputs", source="Kornblith et al. 2019, Nguyen et al. 2021"),
    Quantity("cka_against", low=-1, high=1, formula="cka of a layer with one of another net, on the same images",
        null="0 on average: independent outputs", source="Kornblith et al. 2019, Nguyen et al. 2021"),
)  # fmt: skip
#: the least number of batches for an interval
MIN_BATCHES = 5


def gram(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n n"]:
    """The Gram matrix of outputs minus the first image's: HSIC does not depend on an offset, and so outputs that are
    all the same give exactly 0.
    """
    flat = x.detach().flatten(1)
    flat = flat - flat[:1]
    return (flat @ flat.T).double()


def u_centred(k: Float[Tensor, "*layers n n"]) -> Float[Tensor, "*layers n n"]:
    """The U-centred Gram matrix: a diagonal of 0, and rows and columns that sum to 0.

    The mean product of two such matrices is the unbiased HSIC (Székely & Rizzo 2014), so each is centred once.
    """
    n = k.shape[-1]
    if n < 4:
        raise ValueError(f"unbiased HSIC needs 4 images per batch, not {n}")
    off = 1 - torch.eye(n, dtype=k.dtype, device=k.device)
    k = k * off
    rows = k.sum(-1, keepdim=True) / (n - 2)
    return (k - rows - rows.mT + rows.sum(-2, keepdim=True) / (n - 1)) * off


def unbiased_hsic(k: Float[Tensor, "n n"], l: Float[Tensor, "n n"]) -> Float[Tensor, ""]:  # noqa: E741
    """HSIC₁ of two Gram matrices (Song et al. 2012), n ≥ 4: 0 on average for independent outputs, so also negative.

    ``[tr(K̃L̃) + 1ᵀK̃1·1ᵀL̃1 / ((n-1)(n-2)) - 2 / (n-2) · 1ᵀK̃L̃1] / (n(n-3))``, K̃ and L̃ with zero
    diagonals; computed as the mean product of both U-centred matrices, which is equal.

    >>> points = torch.tensor([[0.0], [1], [2], [3]])
    >>> round(unbiased_hsic(points @ points.T, points @ points.T).item(), 4)
    2.1667
    """
    n = len(k)
    return (u_centred(k) * u_centred(l)).sum() / (n * (n - 3))


def cka(x: Float[Tensor, "n ..."], y: Float[Tensor, "n ..."]) -> Float[Tensor, ""]:
    """``HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y))``, at most 1: 1 is equal up to rotation and scale, 0 on average for
    independent outputs (Kornblith et al. 2019, Nguyen et al. 2021). nan if an output is the same for all images.

    The biased estimator gives .99 for independent Gaussians of 64 images and 8192 units.

    >>> x = torch.tensor([[0.0, 0], [1, 0], [2, 0], [0, 3]])
    >>> round(cka(x, 5 - 2 * x.flip(1)).item(), 4)
    1.0
    """
    k, l = gram(x), gram(y)  # noqa: E741
    return ratio(unbiased_hsic(k, l), unbiased_hsic(k, k), unbiased_hsic(l, l))


def ratio(
    cross: Float[Tensor, "*sets"], of_x: Float[Tensor, "*sets"], of_y: Float[Tensor, "*sets"]
) -> Float[Tensor, "*sets"]:
    """The normalised HSIC; nan where the HSIC of a layer with itself is not above 0."""
    scale = (of_x.clamp(min=0) * of_y.clamp(min=0)).sqrt()
    return torch.where(scale > 0, cross / scale, torch.nan)


class CKAMatrix(Metric):
    """``cka`` of every layer of one net with every layer of another, or of the same; each Gram matrix is computed once.

    HSICs are summed over batches and divided once (Nguyen et al. 2021): each is unbiased for any batch size. Only three
    numbers a batch and pair of layers are kept.

    Intervals: batches are independent samples, so the jackknife over them gives the standard error, with Student's t
    for their small number; nan for fewer than five batches. A bootstrap over images would be wrong: an image drawn
    twice is a pair of equal images, which raises every HSIC.
    """

    full_state_update = False
    n: Tensor
    hsics: list[Tensor]

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.add_state("n", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("hsics", default=[], dist_reduce_fx="cat")

    def update(self, xs: Sequence[Float[Tensor, "n ..."]], ys: Sequence[Float[Tensor, "n ..."]] | None = None) -> None:
        """Add a batch of at least 4 images: the outputs of all layers of one net, and of another (None: the same)."""
        k = self._centred(xs)
        l = k if ys is None else self._centred(ys)  # noqa: E741
        self.n = self.n + len(xs[0])
        of_x, of_y = k.square().sum(1)[:, None], l.square().sum(1)[None]
        sums = torch.stack([product.expand(len(k), len(l)) for product in (k @ l.T, of_x, of_y)])
        self.hsics.append(sums[None] / (len(xs[0]) * (len(xs[0]) - 3)))

    @staticmethod
    def _centred(outputs: Iterable[Float[Tensor, "n ..."]]) -> Float[Tensor, "layers nn"]:
        return u_centred(torch.stack([gram(layer) for layer in outputs])).flatten(1)

    def compute(self) -> Float[Tensor, "layers others"]:
        """The CKA of all pairs of layers (torchmetrics makes a single one a scalar)."""
        return ratio(*dim_zero_cat(self.hsics).sum(0))

    def intervals(self) -> tuple[Float[Tensor, "layers others"], Float[Tensor, "layers others"]]:
        """The lower and the upper ends of the 95% intervals of all pairs of layers."""
        hsics = dim_zero_cat(self.hsics)
        batches, value = len(hsics), ratio(*hsics.sum(0))
        if batches < MIN_BATCHES:
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
        """The CKA, for all batches so far."""
        value: Tensor = self.matrix.compute()
        return value

    def reset(self) -> None:
        """Forget all batches."""
        super().reset()
        self.matrix.reset()

    def estimate(self) -> Estimate:
        """The CKA with its interval over batches; n counts images."""
        low, high = self.matrix.intervals()
        return Estimate(self.compute().item(), low.item(), high.item(), int(self.matrix.n))
