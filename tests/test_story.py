"""The story of a page: the answer, why, the warnings, and the definitions of its terms."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jinja2 import Environment, FileSystemLoader
from scipy import stats

from src.claims.judge import ClaimVerdict, ContrastVerdict
from src.claims.record import StudyVerdict
from src.reporting.cautions import cautions
from src.reporting.story import answer, causes, no_cause
from src.reporting.terms import WORDS, used_terms, with_terms
from src.reporting.variant import Variant
from src.reporting.verdicts import page_of
from src.results.runs import FinishedRun
from src.stats.correlation import rank_correlations
from src.stats.decisions import Verdict
from tests.helpers import ROOT

CLASSES = [str(i) for i in range(10)]


def variant(
    name: str, accuracy: float, distance: float, measures: dict[Any, float] | None = None, scores: Sequence[float] = (),
    parameters: int = 1000, **settings: Any,
) -> Variant:  # fmt: skip
    """A variant of one run that needs no disk; ``scores`` are its validation accuracies by epoch."""
    run = FinishedRun(Path(), {"seed": 0} | settings)
    values = {("output", "test", 0.0, "accuracy"): accuracy, ("output", "train", 0.0, "accuracy"): accuracy,
              ("output", "crop", 1.0, "output_distance"): distance} | (measures or {})  # fmt: skip
    facts = {"seconds": 3.0, "parameters": parameters, "multiply_adds": 2304, "classes": CLASSES}
    history = [{"epoch": str(i), "val/accuracy": str(score)} for i, score in enumerate(scores, start=1)]
    vars(run).update(measures={key: (v, v - 0.001, v + 0.001) for key, v in values.items()}, facts=facts)
    vars(run).update(history=history, earlier=False, counts={}, per_image={}, shapes=[])
    return Variant(name, settings, [run])


def test_rank_correlations_are_spearmans_with_an_exact_permutation_test() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=6), rng.normal(size=6)
    (found,) = rank_correlations({"y": list(y)}, {"x": list(x)})
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    oracle = stats.permutation_test(
        (x,), lambda one: abs(stats.spearmanr(one, y).statistic), permutation_type="pairings", n_resamples=np.inf,
        alternative="greater",
    )  # fmt: skip
    assert found.p == pytest.approx(oracle.pvalue)


def test_ties_constants_and_missing_values() -> None:
    tied, y = [1.0, 1, 2, 3, 3, 4], [1.0, 2, 2, 5, 4, 9]
    found = rank_correlations({"y": y}, {"tied": tied, "constant": [1.0] * 6, "gap": [float("nan"), 1, 2, 3, 4, 5]})
    assert [pair.candidate for pair in found] == ["tied"]
    assert found[0].rho == pytest.approx(stats.spearmanr(tied, y).statistic)
    assert rank_correlations({"y": y[:4]}, {"tied": tied[:4]}) == [], "four variants show nothing"


@pytest.mark.parametrize("variants", [5, 7, 9])
def test_where_nothing_is_related_a_cause_is_named_in_5_percent_of_comparisons_at_most(variants: int) -> None:
    rng = np.random.default_rng(variants)
    studies, named = (300, 0) if variants < 9 else (100, 0)
    for _ in range(studies):
        shared = rng.normal(size=variants)  # candidates that go along with each other, as those of nets do
        outcomes = {name: list(rng.standard_t(2, variants)) for name in ("accuracy", "distance")}
        found = rank_correlations(outcomes, {f"{i}": list(shared + rng.normal(size=variants)) for i in range(5)})
        named += any(pair.p <= 0.05 for pair in found)
    assert named <= stats.binom.ppf(0.999, studies, 0.05)


def test_a_cause_that_goes_along_is_named_with_its_correlation_and_n() -> None:
    aliasing = [0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5]
    key = ("stage1.pool", "subsampling", 0.0, "aliasing_fraction")
    nets = [variant(f"v{i}", 0.9 - 0.01 * (i % 3), 0.1 + x, {key: x}) for i, x in enumerate(aliasing)]
    (text,) = causes(nets)
    assert text.startswith(
        "The more a net aliases, the further a 1-px crop moves its output (aliasing fraction: 0.05 in v0"
    )
    assert "Rank correlation +1.00 over 7 variants" in text and "tried 2 pairs" in text and "not prove" in text
    assert no_cause(nets) == "" == no_cause(nets[:1])
    assert causes(nets[:4]) == [], "too few variants"
    assert no_cause(nets[:4]).startswith("Why? 4 variants are too few to say which measured number goes along")
    assert causes([*nets, variant("without", 0.9, 0.2)]) == [], "not measured in all"
    shuffled = [
        variant(f"v{i}", 0.9, 0.1 + aliasing[j], {key: aliasing[i]}) for i, j in enumerate([3, 0, 6, 2, 5, 1, 4])
    ]
    assert causes(shuffled) == []


def test_the_answer_is_a_sentence_about_the_winners() -> None:
    max_, avg = variant("pool=max", 0.92, 0.3), variant("pool=avg", 0.85, 0.1)
    text = (
        "No variant wins everything: pool=max is the most accurate (0.920), and pool=avg is moved least by a 1-px crop"
    )
    assert answer([max_, avg]) == f"{text} (output distance 0.100)."
    both = answer([max_, variant("pool=blur", 0.95, 0.05)])
    assert both.startswith("pool=blur is the most accurate (0.950) and is moved least by a 1-px crop")
    close = answer([max_, variant("pool=avg", 0.9205, 0.1)])
    assert close.endswith("These runs cannot tell pool=max from pool=avg in accuracy.")
    assert answer([variant("the run", 0.9, 0.2)]).startswith("The net is right on 90.0% of the test images")


def test_nets_near_chance_are_named() -> None:
    nets = [variant("bad", 0.12, 0.1), variant("good", 0.9, 0.1)]
    assert [text.split(".")[0] for text in cautions(nets)] == ["Near chance: bad"]
    assert cautions(nets[1:]) == []


@pytest.mark.parametrize(
    ("scores", "rising"),
    [
        ([0.2, 0.4, 0.6, 0.7, 0.8], True),
        ([0.2, 0.7, 0.8, 0.8, 0.805], False),  # by less than 0.01
        ([0.2, 0.7, 0.9, 0.6, 0.8], False),  # was better before
        ([0.2], False),  # one epoch says nothing
    ],
)
def test_nets_whose_validation_score_still_rises_are_named(scores: list[float], rising: bool) -> None:
    nets = [variant("short", 0.9, 0.1, scores=scores), variant("long", 0.9, 0.1, scores=[0.5, 0.9, 0.9, 0.9, 0.9])]
    assert [text.split(". ")[0] for text in cautions(nets)] == ["Undertrained: short"] * rising


def test_nets_of_other_sizes_or_data_are_named() -> None:
    nets = [variant("small", 0.9, 0.1, parameters=1000, **{"data.label_noise": 0.0}),
            variant("large", 0.9, 0.1, parameters=4000, **{"data.label_noise": 0.4})]  # fmt: skip
    data, sizes = cautions(nets)
    assert data == "Unlike data: the variants differ in data.label_noise (0.0 and 0.4)."
    assert sizes.startswith("Unlike sizes: small has 1 k parameters, large has 4 k parameters (4 times as many)")


def test_terms_are_marked_once_and_text_stays_text() -> None:
    html = with_terms("Output distance <b> & output distances; rolls and pool=roll")
    assert html.count('class="term"') == 2 and "&lt;b&gt; &amp;" in html and "pool=roll" in html
    assert [*used_terms(html)] == ["output-distance", "roll"]
    assert re.sub("<[^>]+>", "", html) == "Output distance &lt;b&gt; &amp; output distances; rolls and pool=roll"


def test_the_glossary_defines_words_as_pages_do() -> None:
    rows = re.findall(r"^\| ([^|]+?) \| (.+?) \|$", (ROOT / "docs/reference/glossary.md").read_text(), re.MULTILINE)
    glossary = {term: re.sub(r"\s*\(\[.*?\]\(.*?\)\)|`", "", meaning) for term, meaning in rows}
    assert [word for word, meaning in WORDS.items() if not glossary.get(word, "").startswith(meaning)] == []


@pytest.mark.parametrize(("verdict", "counted"), [(Verdict.INADMISSIBLE, False), (Verdict.HOLDS, True)])
def test_comparisons_that_hold_are_counted_where_they_were_judged(verdict: Verdict, counted: bool) -> None:
    contrast = ContrastVerdict("a − b", "accuracy", "a>b", 0.01, verdict, value=0.1, low=0.05, high=0.15)
    claims = [ClaimVerdict("It rises.", "all", verdict, [contrast, contrast])]
    found = StudyVerdict("Q1", "Why?", "much", "quick", claims, "abc", "2026-11-29", [], 0, 1, 1)
    environment = Environment(loader=FileSystemLoader(ROOT / "src/reporting"), autoescape=True)
    environment.filters["terms"] = with_terms
    top = environment.get_template("story.html.j2").render(verdict=page_of(found)).split("<details")[0]
    assert ("comparisons hold" in top) == counted and "[+0.05, +0.15]" not in top
