"""The columns of the comparison: where each value stands in a run's measures, its heading, and what it means."""

from collections.abc import Iterable

from ..metrics.quantities import range_of
from ..results.outcomes import COLLAPSED, DIVERGED, rule_of

#: column → layer, protocol, amount, measure
MEASURED = {
    "test_accuracy": ("output", "test", 0, "accuracy"),
    "dissimilar_accuracy": ("output", "dissimilar", 0, "accuracy"),
    "test_r2": ("output", "test", 0, "r2"),
    "crop_1px_output_distance": ("output", "crop", 1, "output_distance"),
    "crop_1px_output_distance_untrained": ("output", "crop", 1, "output_distance_untrained"),
    "roll_1px_output_distance": ("output", "roll", 1, "output_distance"),
    "roll_1px_output_distance_untrained": ("output", "roll", 1, "output_distance_untrained"),
    "crop_1px_consistency": ("output", "crop", 1, "consistency"),
    "crop_1px_consistency_corrected": ("output", "crop", 1, "consistency_corrected"),
}
#: costs, from ``run.json``
FACTS = ("parameters", "multiply_adds", "seconds")
#: training score minus test score: by the true labels, and by the (noisy) labels of training
GAPS = ("gap", "gap_trained_labels")
#: numbers of runs whose training failed
FAILURES = (DIVERGED, COLLAPSED)
#: column → heading, of those that terminal and page show where a variant has a value
HEADINGS = {
    "variant": "variant", "seeds": "seeds", "diverged": "di-\nverged", "collapsed": "col-\nlapsed",
    "test_accuracy": "accuracy", "dissimilar_accuracy": "dis-\nsimilar", "test_r2": "R²",
    "gap": "gap", "gap_trained_labels": "gap,\nnoisy",
    "crop_1px_output_distance": "distance\n(crop)", "roll_1px_output_distance": "distance\n(roll)",
    "crop_1px_consistency": "consis-\ntency",
    "parameters": "para-\nmeters", "multiply_adds": "mult-adds", "seconds": "seconds",
}  # fmt: skip
LEGEND = {
    "diverged": "{}; all means are over the other runs",
    "collapsed": "{}; its values are included in the means where it has them, and left out of verdicts on claims",
    "test_accuracy": "accuracy: on the test set",
    "dissimilar_accuracy": "dissimilar: accuracy on test images whose positions suggest the wrong class",
    "test_r2": "R²: of the object's position on the test set, 0 = always predicting the mean",
    "gap": "gap: training minus test score, both by true labels",
    "gap_trained_labels": "gap, noisy: the same with the (partly wrong) training labels",
    "crop_1px_output_distance": "distance: how far a shift by 1 px moves the output, 0 = not at all, 1 = as far as to "
    "another image's output",
    "crop_1px_consistency": "consistency: share of images whose prediction a 1-px crop does not change",
    "multiply_adds": "mult-adds: multiply-adds (MACs) per image",
}


def column_range(column: str) -> tuple[float, float]:
    """The least and the largest possible value of a column."""
    return range_of(MEASURED[column][-1] if column in MEASURED else column)


def legend(columns: Iterable[str]) -> str:
    """What the columns mean."""
    columns = list(columns)
    scores = [column.removeprefix("test_") for column in columns]
    rules = {column: f"{column}: {rule_of(column, scores)}" for column in FAILURES}
    return "; ".join(LEGEND[column].format(rules.get(column)) for column in columns if column in LEGEND)


def one_line(heading: str) -> str:
    """A heading on one line.

    >>> one_line("para-\\nmeters"), one_line("distance\\n(crop)")
    ('parameters', 'distance (crop)')
    """
    return heading.replace("-\n", "").replace("\n", " ")
