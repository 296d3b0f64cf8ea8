"""The sections of a page: a title, an explanation of how to read the figure, and the figure."""

from collections.abc import Callable
from dataclasses import dataclass

import plotly.graph_objects as go

from . import effects, heatmaps, measure_figures, other_measures, plots


@dataclass(frozen=True)
class Section:
    """A part of a page, left out where its figure is empty.

    Args:
        title: its heading.
        reading: what 0, 1 and the lines mean.
        figure: variants → its figure.
        family: metric group whose notes are shown below the heading.
        collapsed: whether the figure is hidden until a click.
    """

    title: str
    reading: str
    figure: Callable[..., go.Figure]
    family: str = ""
    collapsed: bool = False


UNTRAINED = "the same net before training, the baseline that training has to beat"
LINES = f"Solid: trained; dotted: {UNTRAINED}"

#: measures of a net, in the order of a page
MEASURED_SECTIONS = (
    Section(
        "How far a transform moves the output",
        f"Output distance: 0 = the output does not change, 1 = it changes as much as to another image. {LINES}; thin "
        "dashes: interpolation alone, the image transformed there and back. roll: circular shift; crop: shift that "
        "reveals what is outside the frame; disc: compared on the largest inscribed disc.",
        measure_figures.transform_curves,
    ),
    Section(
        "How often a shift changes the prediction",
        f"1 - consistency: 0 = never, 1 = always. A net with constant predictions never changes them. {LINES}.",
        measure_figures.flip_curves,
    ),
    Section(
        "Does the predicted position move with the object?",
        "Position equivariance error: distance from where the prediction should have moved, relative to how far the "
        "object moved. 0 = it moves along, 1 = it stays, as for a net that ignores the position.",
        measure_figures.position_curves,
    ),
    Section(
        "How far a 1-px shift moves each layer",
        f"Invariance error: 0 = the layer does not change, 1 = it changes as much as to another image. {LINES}.",
        measure_figures.layer_curves,
    ),
    Section(
        "Do feature maps move with the image?",
        "Equivariance error: 0 = the map moves exactly with the image, 1 = the error is as large as the map itself. "
        f"{LINES}; thin dashes: interpolation baseline, pixels averaged to the layer's resolution; errors below it "
        "mean nothing.",
        measure_figures.equivariance_curves,
    ),
    Section(
        "All rolls: worst case",
        "Accuracy, 1 = all right: without a roll; mean over all rolls of each image (or a random sample of them); and "
        "share of images that are classified right under every one. All three are of the same images, fewer than the "
        "test set has. Below the bars: numbers of rolls and images; more rolls make the worst case worse.",
        measure_figures.worst_case_bars,
        "rolls",
    ),
    Section(
        "All rolls: invariance error by roll",
        "Invariance error for each roll, first seed of each variant; no roll in the middle, axes in pixels down and "
        "right. Dark = 0, no change; yellow = the maximum, given above each map and the same for a layer in all rows, "
        f"{heatmaps.MOST_NETS} nets at most. A periodic pattern shows the net's strides. Nets with randomly sampled "
        "rolls have no map.",
        heatmaps.roll_maps,
    ),
    Section(
        "All crops: invariance error by shift",
        "Invariance error for each true shift, first seed of each variant; no shift in the middle, axes in pixels down "
        "and right. Dark = 0, no change: the size of the dark area is the shift that a layer tolerates. Yellow = the "
        "maximum, given above each map and the same for a layer in all rows.",
        heatmaps.crop_maps,
        "crops",
    ),
    Section(
        "All crops: sensitivity maps",
        "Cosine between a layer's outputs for the image and the shifted image, by shift: yellow = 1, same direction; "
        "dark = the cosine of two random images, given above each map, which is far above 0 after a ReLU.",
        heatmaps.sensitivity_maps,
    ),
    Section(
        "Local equivariance error (Lie derivative)",
        "Squared rate of change of the output per pixel, degree or per cent of an infinitesimal transform, relative to "
        f"the mean squared distance between two images' outputs: 0 = no change. Untrained: {UNTRAINED}. "
        "Each panel has its own scale.",
        measure_figures.lie_derivatives,
    ),
    Section(
        "Aliasing at subsampling layers",
        "Share of a map's energy, before subsampling, above the new Nyquist frequency, which returns as lower "
        f"frequencies: 0 = none, 1 = all. {LINES}.",
        measure_figures.aliasing_curves,
    ),
    Section(
        "Linear probes of class and position, layer by layer",
        "Class: accuracy, 1 = all right. Position: R², 1 = exact, 0 = always predicting the mean. "
        f"{LINES}; grey dashes: the same probe on pixels; grey dots: on shuffled targets (chance).",
        measure_figures.probe_curves,
    ),
    Section(
        "Channels, layer by layer",
        "Effective rank: number of directions that a layer uses. Selectivity: class selectivity of channels minus its "
        f"chance level, so that 0 = none. Dead channels: share that is always 0. {LINES}.",
        measure_figures.channel_curves,
    ),
    Section(
        "Invariance of single units",
        "Goodfellow's invariance score of the best fifth of units: how often an active unit stays active under a "
        "shift, relative to how often units are active at all: 1 = chance (more with few images), 100 = always. "
        f"{LINES}.",
        measure_figures.unit_invariance,
    ),
    Section(
        "Similarity of layers (CKA)",
        f"CKA of every two layers, {heatmaps.MOST_NETS} nets at most: 1 = equal up to rotation and scale, 0 = nothing "
        "in common.",
        heatmaps.layer_similarity,
    ),
    Section(
        "Similarity of layers of two nets (CKA)",
        "CKA of every layer of this net (down) with every layer of the other (across), on the same images: 1 = equal "
        f"up to rotation and scale, 0 = nothing in common. Untrained: {UNTRAINED}, against the same other net.",
        heatmaps.layer_similarity_between,
    ),
    Section(
        "Effective receptive fields",
        "Gradient magnitude on the pixels for the middle unit of each layer, first seed of each variant "
        f"({heatmaps.MOST_NETS} at most); yellow = the maximum of each map. Above: side of the square that holds 95% "
        "of it, and the theoretical receptive field.",
        heatmaps.receptive_fields,
    ),
)

#: of a sweep
SWEEP_SECTIONS = (
    Section(
        "Accuracy against invariance, and against cost",
        "Towards the upper left is better: accurate, and invariant or cheap.",
        plots.trade_off,
    ),
    Section(
        "Main effects",
        "Mean over all other axes for each level of an axis. Panels of one quantity share a scale, which need not "
        "begin at 0; a flat line is an axis with little effect. Bars: 95% over seeds (Student's t), of the distance "
        "from the seed's mean over all variants, so that effects common to a seed cancel.",
        effects.main_effects,
    ),
    Section(
        "Interactions",
        "Whether the effect of one axis depends on another: a line for each level of the second, mean over all further "
        "axes. Parallel lines: the effects add up; lines that diverge or cross: an interaction. Bars: as above.",
        effects.interactions,
    ),
    Section(
        "Share of variance explained by each axis",
        "η², all add up to 1: each axis, each interaction of two, seeds, and the rest (single runs). Grey: the share "
        "expected by chance.",
        effects.variance_bars,
    ),
    *MEASURED_SECTIONS,
    Section(
        "Training",
        "Solid: validation; dotted: training, during the epoch and, with data.label_noise, by the noisy labels; "
        "validation labels are clean. A gap: infinite or nan.",
        plots.training_curves,
    ),
    Section(
        "Invariance over training",
        "Output distance and invariance error of each layer for a 1-px crop, by epoch: 0 = no change, 1 = as much as "
        "to another image. Epoch 0 is the untrained net. With several seeds: mean and 95%.",
        measure_figures.over_training,
    ),
)

#: of measures that no section above shows; their figures also take the keys of those that are shown
OTHER_SECTIONS = (
    Section(
        "Other measures, by amount",
        f"Measures of the output that no figure above shows, by protocol and measure. {LINES}; thin dashes: "
        "interpolation baseline. Each panel has its own scale.",
        other_measures.other_by_amount,
        collapsed=True,
    ),
    Section(
        "Other measures, by layer",
        "The same for layers, and for the output at a single amount; of several amounts, the smallest and the largest. "
        f"Pale: {UNTRAINED}, or the interpolation baseline. Each panel has its own scale.",
        other_measures.other_by_layer,
        collapsed=True,
    ),
)
