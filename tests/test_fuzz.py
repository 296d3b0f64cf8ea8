"""A seeded sample of the fuzzer's cases; all of them: ``make test-fuzz``."""

from pathlib import Path

from tests.fuzz.drawn import draw, faults_of


def test_bad_input_is_refused_in_one_line_or_does_no_harm(tmp_path: Path) -> None:
    ended = list(faults_of(draw(tmp_path, seed=0, count=75), tmp_path))
    assert len(ended) == 75
    assert not [f"{case.kind} {case.words[:100]}: {words}" for case, words in ended if words]
