"""Statistics of how a net fits its training labels, on fixed training images: ``train/NAME``. All are computed in eval
mode, without label smoothing, and leave the net as it is.
"""

from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from ...metrics.class_divergence import class_divergence as of_units
from ...metrics.quantities import Quantity
from .look import Batch, Look

QUANTITIES = (
    Quantity("prediction_change", low=0, high=1,
        formula="share of fixed training images whose predicted class is not that of the look before",
        null="0: the net has not moved; its first minimum is said to precede the fitting of wrong labels",
        source="Yuan et al. 2025 (Label Wave)"),
    Quantity("susceptibility",
        formula="L(w) - L(w - η ∇L(w)), L the loss of a fixed batch with fixed random labels, η train.lr: one SGD step",
        null="≈ η |∇L|² for small η; below 0 where the step is too long", source="Forouzesh et al. 2023"),
    Quantity("gradient_disparity", low=0,
        formula="mean of |∇Lᵢ - ∇Lⱼ|₂ over all pairs of 5 fixed training batches of one size, Lᵢ the mean loss",
        null="0: all batches pull the same way", source="Forouzesh & Thiran 2021"),
)  # fmt: skip


def prediction_change(look: Look) -> dict[str, float]:
    """The share of predictions that changed since the look before; nan in the first look."""
    if look.before is None:
        return {"train/prediction_change": float("nan")}
    return {"train/prediction_change": (look.predictions != look.before).double().mean().item()}


def class_divergence(look: Look) -> dict[str, float]:
    """``metrics.class_divergence.class_divergence`` of the logits, by the labels that are trained with."""
    return {"train/class_divergence": of_units(look.train_logits, torch.cat([labels for _, labels, _ in look.train]))}


def gradient_disparity(look: Look) -> dict[str, float]:
    """The mean distance between the gradients of two batches; nan for a single batch."""
    gradients = [torch.cat([gradient.flatten() for gradient in _gradient(look, batch)[1]]) for batch in look.train]
    distances = [torch.linalg.vector_norm(a - b) for a, b in combinations(gradients, 2)]
    return {"train/gradient_disparity": torch.stack(distances).mean().item() if distances else float("nan")}


def susceptibility(look: Look) -> dict[str, float]:
    """The drop of the loss of the first training batch with random labels, by one step of plain SGD.

    The step is taken on copies of the weights: the net's own are not written.
    """
    images, labels, positions = look.train[0]
    generator = torch.Generator().manual_seed(look.seed)
    random = torch.randint(look.task.classes, labels.shape, generator=generator).to(labels.device)
    before, gradient = _gradient(look, (images, random, positions))
    stepped = {name: weights - look.lr * step for (name, weights), step in zip(_learned(look), gradient, strict=True)}
    with torch.no_grad():
        outputs = functional_call(look.net, stepped, (images.clone(),))
        after = look.task.loss(outputs, random, positions)
    return {"train/susceptibility": (before - after).item()}


def _learned(look: Look) -> list[tuple[str, Tensor]]:
    return [(name, weights) for name, weights in look.net.named_parameters() if weights.requires_grad]


def _gradient(look: Look, batch: Batch) -> tuple[Float[Tensor, ""], list[Tensor]]:
    """The mean loss of a batch, and its gradient by every learned parameter; ``.grad`` is not touched."""
    images, labels, positions = batch
    learned = [weights for _, weights in _learned(look)]
    with torch.enable_grad():
        loss = look.task.loss(look.net(images.clone()), labels, positions)
        gradient = torch.autograd.grad(loss, learned, allow_unused=True)
    return loss.detach(), [
        torch.zeros_like(weights) if partial is None else partial
        for partial, weights in zip(gradient, learned, strict=True)
    ]
