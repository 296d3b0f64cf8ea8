"""The sections of a page: a title, a sentence that says how to read it, and the figure."""

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from . import effects, heatmaps, measure_figures, plots


@dataclass(frozen=True)
class Section:
    """A part of a page, left out where its figure is empty.

    Args:
        title: its heading.
        reading: what is 0, what is 1, what the lines are.
        figure: variants → its figure.
        family: whose notes stand below it.
    """

    title: str
    reading: str
    figure: Callable[..., go.Figure]
    family: str = ""


TWIN_IS = "the same net before training, the floor that training has to beat"
TWIN = f"Solid: trained; dotted: {TWIN_IS}"

#: what was measured on a net, in the order of a page
MEASURED_SECTIONS = (
    Section(
        "How far a transform moves the answer",
        f"Output distance: 0 = the answer stays, 1 = it moves as far as to another image's. {TWIN}; thin dashes: what "
        "interpolation alone does, the image moved there and back. roll: what leaves on one side comes back on the "
        "other; crop: what comes in is what lies beyond the image; disc: compared on the disc that fits in.",
        measure_figures.transform_curves,
    ),
    Section(
        "How often a shift changes the answer",
        f"1 - consistency: 0 = never, 1 = always. A net that always says the same changes nothing. {TWIN}.",
        measure_figures.flip_curves,
    ),
    Section(
        "Does the answer “where” move as the object does?",
        "How far the answer is from where it should have moved, over how far the object has: 0 = it moves along, 1 = "
        "it stays where it was, as that of a net that sees the object and not its place.",
        measure_figures.position_curves,
    ),
    Section(
        "How far a 1-px shift moves each layer",
        f"Invariance error: 0 = the layer does not notice, 1 = it moves as far as to another image's. {TWIN}.",
        measure_figures.layer_curves,
    ),
    Section(
        "Do maps move as the image does?",
        "Equivariance error: 0 = the map moves along exactly, 1 = it is off by as much as the map itself is. "
        f"{TWIN}; thin dashes: the same of pixels averaged to the layer's resolution: below that, the number says "
        "nothing.",
        measure_figures.equivariance_curves,
    ),
    Section(
        "All rolls: the worst case",
        "1 = always right. In place; then the mean over all rolls of an image (or as many as were drawn); then the "
        "share of images that are right for every one of them; all three of the same images, which are fewer than the "
        "test set has. Below the bars: how many rolls and images; the more rolls, the worse the worst.",
        measure_figures.worst_case,
        "rolls",
    ),
    Section(
        "All rolls: which ones a layer notices",
        "Invariance error of each roll, of each variant's first seed: no roll in the middle; axes in pixels, down and "
        "right. Dark = 0, not noticed; yellow = the high end, written above each map and the same for a layer in all "
        f"rows, {heatmaps.MOST} nets at most. A pattern that repeats shows the net's strides. A net whose rolls were "
        "drawn, not all taken, has none.",
        heatmaps.roll_maps,
    ),
    Section(
        "All crops: which ones a layer notices",
        "Invariance error of each shift of the window over what lies beyond the image, of each variant's first seed: "
        "no shift in the middle; axes in pixels, down and right. Dark = 0, not noticed, and how far it is dark is how "
        "much a layer forgives; yellow = the high end, written above each map and the same for a layer in all rows.",
        heatmaps.crop_maps,
        "crops",
    ),
    Section(
        "All crops: sensitivity maps",
        "Cosine of a layer's output for the image and for the image shifted, by shift: yellow = 1, the same direction; "
        "dark = the cosine of two different images, written above each map, which after a ReLU is far above 0.",
        heatmaps.sensitivity,
    ),
    Section(
        "How fast the answer changes when the image begins to move",
        "The square of the answer's speed, by a pixel, a degree or a per cent, over the mean squared distance of two "
        f"images' answers: 0 = the beginning of the motion changes nothing. Untrained: {TWIN_IS}. "
        "Each panel has its own scale.",
        measure_figures.speeds,
    ),
    Section(
        "Aliasing where maps shrink",
        "Share of the energy of a map, before samples are left out, that is too fine for those that stay and returns "
        f"as something else: 0 = none, 1 = all. {TWIN}.",
        measure_figures.aliasing,
    ),
    Section(
        "What and where, layer by layer",
        "A linear probe on each layer: accuracy of the class (1 = all right), R² of the position (1 = exact, 0 = "
        f"always answering the middle). {TWIN}; grey dashes: the same probe on the pixels; grey dots: on shuffled "
        "answers, what chance gives.",
        measure_figures.probes,
    ),
    Section(
        "Units and channels, layer by layer",
        "Effective rank: directions that a layer uses, 1 = one alone. Selectivity: how much channels prefer a class, "
        "with what chance gives taken off, so that 0 = none. Dead share: channels that never answer, 1 = all. "
        f"{TWIN}.",
        measure_figures.hierarchy,
    ),
    Section(
        "Invariance of single units",
        "Goodfellow's score of the best fifth of units: how often a unit that fires still fires when the image is "
        "shifted, over how often units fire at all: 1 = like chance (more at few images), 100 = always. "
        f"{TWIN}.",
        measure_figures.units,
    ),
    Section(
        "How alike layers are",
        f"CKA of every two layers, of {heatmaps.MOST} nets at the most: 1 = the same up to rotation and scale, 0 = "
        "nothing in common.",
        heatmaps.similarity,
    ),
    Section(
        "How alike the layers of two nets are",
        "CKA of every layer of this net (down) with every layer of the other (across), on the same images: 1 = the "
        f"same up to rotation and scale, 0 = nothing in common. Untrained: {TWIN_IS}, against the other as it is.",
        heatmaps.similarity_against,
    ),
    Section(
        "What a unit sees",
        "Effective receptive field of the middle unit of each layer, of the first seed of each variant "
        f"({heatmaps.MOST} at most): gradients on the pixels; yellow = the strongest of its own picture. Above: the "
        "side of the square that holds 95% of it, of the side that arithmetic allows.",
        heatmaps.fields,
    ),
)

#: and of a sweep
OF_A_SWEEP = (
    Section(
        "Accuracy against invariance, and against cost",
        "Left and up is better: an answer that a shift leaves where it was, at little cost, and right.",
        plots.trade_off,
    ),
    Section(
        "Main effects",
        "What each axis does by itself: a number's mean over all other axes, level by level. The panels of a number "
        "have one scale, which need not begin at 0: a flat line is an axis that matters little. Bars: 95% over seeds "
        "(Student's t) of the distance from the seed's mean over all variants; what a seed does to all is not in them.",
        effects.main_effects,
    ),
    Section(
        "Interactions",
        "Whether what one axis does hangs on another: a line for each level of the other, a mean over all further "
        "axes. Parallel lines: each axis adds its own part; lines that fan or cross: the two have to be read together. "
        "Bars: as above.",
        effects.interactions,
    ),
    Section(
        "How much each axis explains",
        "Share of a number's variance over all runs (η², all add up to 1): of each axis, of what two do together "
        "beyond that, and of seeds; rest: what is left of single runs. Grey: what it would be on "
        "average if nothing but chance were at work.",
        effects.shares,
    ),
    *MEASURED_SECTIONS,
    Section(
        "Training",
        "Solid: validation; dotted: training, while weights still change and, under data.label_noise, by the labels "
        "trained with, some of them wrong; those of validation are true. A gap: infinite or nan.",
        plots.training_curves,
    ),
    Section(
        "Invariance over training",
        "How far a 1-px crop moves the answer and each layer, by epoch, where the net was looked at: 0 = not noticed, "
        "1 = as far as to another image's. Epoch 0 is the untrained net. Over several seeds: mean and 95%.",
        measure_figures.over_training,
    ),
)
