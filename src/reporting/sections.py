"""The sections of a page: a title, an explanation of how to read the figure, and the figure."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go

from . import effects, heatmaps, measure_figures, metamers, other_measures, parallel, plots, recognition
from .groups import COMPARED, INSIDE, INVARIANCE, LAYERS, OTHERS, TRAINING, Group
from .variant import Variant


@dataclass(frozen=True)
class Section:
    """A part of a page, left out where its figure is empty.

    Args:
        title: its heading.
        figure: variants → its figure.
        reading: what 0, 1 and the lines mean.
        group: that it is folded into; None: it is always open.
        look: what to look for first, after "Look for …".
        family: metric group whose notes are shown below the figure.
    """

    title: str
    figure: Callable[..., go.Figure]
    reading: str
    group: Group | None = None
    look: str = ""
    family: str = ""


UNTRAINED = "the same net before training, the baseline that training has to beat"
LINES = f"Solid: trained; dotted: {UNTRAINED}"
#: measures of a net, in the order of a page
MEASURED_SECTIONS = (
    Section("How far a transform moves the output", measure_figures.transform_curves, group=INVARIANCE,
        look="curves that stay low as the shift grows, and a wide gap between solid and dotted: what training added.",
        reading=
        f"Output distance: 0 = the output does not change, 1 = it changes as much as to another image. {LINES}; thin "
        "dashes: interpolation alone, the image transformed there and back. roll: circular shift; crop: shift that "
        "reveals what is outside the frame; disc: compared on the largest inscribed disc."),
    Section("How often a shift changes the prediction", measure_figures.flip_curves, group=INVARIANCE,
        look="the lowest curve: the fewest predictions that flip.", reading=
        f"1 - consistency: 0 = never, 1 = always. A net with constant predictions never changes them. {LINES}."),
    Section("Does the predicted position move with the object?", measure_figures.position_curves, group=INVARIANCE,
        look="curves near 0: the prediction follows the object.", reading=
        "Position equivariance error: distance from where the prediction should have moved, relative to how far the "
        "object moved. 0 = it moves along, 1 = it stays, as for a net that ignores the position."),
    Section("How far a 1-px shift moves each layer", measure_figures.layer_curves, group=LAYERS,
        look="where a curve falls: that layer gives the invariance.", reading=
        f"Invariance error: 0 = the layer does not change, 1 = it changes as much as to another image. {LINES}."),
    Section("Do feature maps move with the image?", measure_figures.equivariance_curves, group=LAYERS,
        look="the layer at which a curve jumps: there equivariance is lost.", reading=
        "Equivariance error: 0 = the map moves exactly with the image, 1 = the error is as large as the map itself. "
        f"{LINES}; thin dashes: interpolation baseline, pixels averaged to the layer's resolution; errors below it "
        "mean nothing."),
    Section("All rolls: worst case", measure_figures.worst_case_bars, group=INVARIANCE, family="rolls",
        look="bars that fall from left to right: predictions that some roll overturns.", reading=
        "Accuracy, 1 = all right: without a roll; mean over all rolls of each image (or a random sample of them); and "
        "share of images that are classified right under every one. All three are of the same images, fewer than the "
        "test set has. Below the bars: numbers of rolls and images; more rolls make the worst case worse."),
    Section("All rolls: invariance error by roll", heatmaps.roll_maps, group=LAYERS,
        look="a grid of dark dots: rolls by multiples of the stride cost nothing.", reading=
        "Invariance error for each roll, first seed of each variant; no roll in the middle, axes in pixels down and "
        "right. Dark = 0, no change; yellow = the maximum, given above each map and the same for a layer in all rows, "
        f"{heatmaps.MOST_NETS} nets at most. A periodic pattern shows the net's strides. Nets with randomly sampled "
        "rolls have no map."),
    Section("All crops: invariance error by shift", heatmaps.crop_maps, group=LAYERS, family="crops",
        look="how large the dark area in the middle is: the shift that a layer tolerates.", reading=
        "Invariance error for each true shift, first seed of each variant; no shift in the middle, axes in pixels down "
        "and right. Dark = 0, no change: the size of the dark area is the shift that a layer tolerates. Yellow = the "
        "maximum, given above each map and the same for a layer in all rows."),
    Section("All crops: sensitivity maps", heatmaps.sensitivity_maps, group=LAYERS,
        look="how far the bright area reaches from the middle.", reading=
        "Cosine between a layer's outputs for the image and the shifted image, by shift: yellow = 1, same direction; "
        "dark = the cosine of two random images, given above each map, which is far above 0 after a ReLU."),
    Section("Local equivariance error (Lie derivative)", measure_figures.lie_derivatives, group=INVARIANCE,
        look="the tallest bar: the transform that the output feels most.", reading=
        "Squared rate of change of the output per pixel, degree or per cent of an infinitesimal transform, relative to "
        f"the mean squared distance between two images' outputs: 0 = no change. Untrained: {UNTRAINED}. "
        "Each panel has its own scale."),
    Section("Aliasing at subsampling layers", measure_figures.aliasing_curves, group=LAYERS,
        look="the highest points: layers that fold the most detail back as false patterns.", reading=
        "Share of a map's energy, before subsampling, above the new Nyquist frequency, which returns as lower "
        f"frequencies: 0 = none, 1 = all. {LINES}."),
    Section("Linear probes of class and position, layer by layer", measure_figures.probe_curves, group=LAYERS,
        look="class rising while position falls: what is kept over where.", reading=
        "Class: accuracy, 1 = all right. Position: R², 1 = exact, 0 = always predicting the mean. "
        f"{LINES}; grey dashes: the same probe on pixels; grey dots: on shuffled targets (chance)."),
    Section("Channels, layer by layer", measure_figures.channel_curves, group=INSIDE,
        look="dead channels that rise with depth, and ranks far below the number of channels.", reading=
        "Effective rank: number of directions that a layer uses. Selectivity: class selectivity of channels minus its "
        f"chance level, so that 0 = none. Dead channels: share that is always 0. {LINES}."),
    Section("Invariance of single units", measure_figures.unit_invariance, group=INSIDE,
        look="values far above 1, and whether they rise with depth.", reading=
        "Goodfellow's invariance score of the best fifth of units: how often an active unit stays active under a "
        "shift, relative to how often units are active at all: 1 = chance (more with few images), 100 = always. "
        f"{LINES}."),
    Section("Similarity of layers (CKA)", heatmaps.layer_similarity, group=INSIDE,
        look="blocks of high values: layers that compute nearly the same.", reading=
        f"CKA of every two layers, {heatmaps.MOST_NETS} nets at most: 1 = equal up to rotation and scale, 0 = nothing "
        "in common."),
    Section("Similarity of layers of two nets (CKA)", heatmaps.layer_similarity_between, group=INSIDE,
        look="a bright diagonal: both nets do the same at the same depth.", reading=
        "CKA of every layer of this net (down) with every layer of the other (across), on the same images: 1 = equal "
        f"up to rotation and scale, 0 = nothing in common. Untrained: {UNTRAINED}, against the same other net."),
    Section("What each layer throws away: metamers", metamers.metamer_pictures, group=INSIDE, family="metamers",
        look="the layer from which on pictures no longer look like the image in their row.", reading=
        "Images that were noise, and were changed until a layer has the same activation as for the image in the first "
        "column, up to a tenth of the distance between two images; two starts each, first seed of each variant. "
        "To that layer and all after it they are the image. Above each: how many optimisations got there; those that "
        "did not are crossed out, and are no metamers."),
    Section("Metamers in numbers", metamers.metamer_curves, group=INSIDE,
        look="whether the high frequencies, or the place of things, are lost first.", reading=
        "Of the optimisations that reached their target. Pixel distance and spread: 0 = nothing is thrown away, 1 = as "
        "far as another image. Error: the same for the energy in a band of frequencies. Displaced: the share of the "
        "difference that goes away as windows move by up to 2 pixels. Recognised: by the net itself, 1 = in the class "
        f"of the image. {LINES}."),
    Section("What linear layers throw away, exactly", measure_figures.null_space_curves, group=INSIDE,
        look="how far a layer lies below its dashes: its maps avoid what it cannot see.", reading=
        "Of linear layers that downsample, the share of the variance of the maps entering them that lies in their null "
        "space, which no later layer can see: 0 = nothing, 1 = all. Solid: trained; dotted: the same net before "
        "training; dashes: of white noise, which is the share of dimensions."),
    Section("Do other nets recognise the metamers?", recognition.recognition, group=INSIDE,
        look="cells off the diagonal that are brighter than the last column: nets that throw away the same.", reading=
        "Metamers of a net (down) that a net of another variant (across) puts into the class that it puts their image "
        "into: 1 = all; of different seeds, where there are several. On the diagonal the net itself, the ceiling; in "
        "the last column the same variant with another seed, which differs by its training alone; in the last row the "
        "floor, the noise that metamers were made of. n: images with a metamer, over all seeds. Intervals, 95%: over "
        "seeds, or over the images of a single one."),
    Section("Effective receptive fields", heatmaps.receptive_fields, group=INSIDE,
        look="how small the bright spot is beside the theoretical field.", reading=
        "Gradient magnitude on the pixels for the middle unit of each layer, first seed of each variant "
        f"({heatmaps.MOST_NETS} at most); yellow = the maximum of each map. Above: side of the square that holds 95% "
        "of it, and the theoretical receptive field."),
)  # fmt: skip
#: of a sweep
SWEEP_SECTIONS = (
    Section("Accuracy against invariance, and against cost", plots.trade_off,
        look="the upper left corner, and whether the intervals of two variants overlap.", reading=
        "Towards the upper left is better: accurate, and invariant or cheap."),
    Section("Main effects", effects.main_effects, group=COMPARED,
        look="steep lines: axes that matter.", reading=
        "Mean over all other axes for each level of an axis. Panels of one quantity share a scale, which need not "
        "begin at 0; a flat line is an axis with little effect. Bars: 95% over seeds (Student's t), of the distance "
        "from the seed's mean over all variants, so that effects common to a seed cancel."),
    Section("Interactions", effects.interactions, group=COMPARED,
        look="lines that cross: the effect of one axis depends on the other.", reading=
        "Whether the effect of one axis depends on another: a line for each level of the second, mean over all further "
        "axes. Parallel lines: the effects add up; lines that diverge or cross: an interaction. Bars: as above."),
    Section("Share of variance explained by each axis", effects.variance_bars, group=COMPARED,
        look="bars longer than the grey one below them.", reading=
        "η², all add up to 1: each axis, each interaction of two, seeds, and the rest (single runs). Grey: the share "
        "expected by chance."),
    Section("Parallel coordinates", parallel.parallel_coordinates, group=COMPARED,
        look="the levels that the lines at the top of an outcome come from.", reading=
        "A line a variant: through its level of each axis, on to its test score, output distance for a 1-px crop and "
        "multiply-adds, means over seeds. Each outcome has its own scale, from the worst value up to the best; where "
        "most lines cross between two outcomes, one is traded for the other. Lines of one level are spread, so that "
        "all can be seen. A click on a line marks its variant."),
    *MEASURED_SECTIONS,
    Section("Training", plots.training_curves, group=TRAINING,
        look="solid curves that still rise at the end, and the gap to the dotted ones.", reading=
        "Solid: validation; dotted: training, during the epoch and, with data.label_noise, by the noisy labels; "
        "validation labels are clean. A gap: infinite or nan."),
    Section("Invariance over training", measure_figures.over_training, group=TRAINING,
        look="whether invariance is there at epoch 0, comes with training, or is lost by it.", reading=
        "Output distance and invariance error of each layer for a 1-px crop, by epoch: 0 = no change, 1 = as much as "
        "to another image. Epoch 0 is the untrained net. With several seeds: mean and 95%."),
)  # fmt: skip
#: of measures that no section above shows; their figures also take the keys of those that are shown
OTHER_SECTIONS = (
    Section("Other measures, by amount", other_measures.other_by_amount, group=OTHERS,
        look="curves that separate the variants.", reading=
        f"Measures of the output that no figure above shows, by protocol and measure. {LINES}; thin dashes: "
        "interpolation baseline. Each panel has its own scale. The table that is saved as CSV has all protocols."),
    Section("Other measures, by layer", other_measures.other_by_layer, group=OTHERS,
        look="bars that separate the variants.", reading=
        "The same for layers, and for the output at a single amount; of several amounts, the smallest and the largest. "
        f"Pale: {UNTRAINED}, or the interpolation baseline. Each panel has its own scale."),
)  # fmt: skip


def drawn(variants: Sequence[Variant], sections: Iterable[Section]) -> list[tuple[Section, go.Figure]]:
    """The sections whose figures have data, with them; all other measures last."""
    pairs = [(section, section.figure(variants)) for section in sections]
    taken = {key for variant in variants for key in variant.drawn}
    pairs += [(section, section.figure(variants, taken)) for section in OTHER_SECTIONS]
    return [(section, figure) for section, figure in pairs if figure.data]
