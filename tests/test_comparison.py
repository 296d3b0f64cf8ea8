"""The comparison against numbers worked out by hand, and the page against hostile names."""

from pathlib import Path

import pytest
import yaml

from src import files
from src.config import from_dict, to_dict
from src.measures.rows import Estimate, Row
from src.runs import find_runs, write_measures
from src.views.comparison import comparison_rows, shown_rows, variants
from src.views.page import answer, conclude


def leave_run(folder: Path, accuracy: float, distance: float, **settings: object) -> None:
    """A finished run as it lies on disk."""
    files.write(folder / files.CONFIG, yaml.safe_dump(to_dict(from_dict(settings))))
    spots = [("test", 0, "accuracy", accuracy), ("train", 0, "accuracy", accuracy + 0.05)]
    for protocol in ("crop", "roll"):
        for name in ("output_distance", "output_distance_untrained", "consistency", "consistency_corrected"):
            spots.append((protocol, 1, name, distance))
    rows = [
        Row("output", "shift" if a else "none", p, a, m, Estimate(v, v - 0.01, v + 0.01, 100)) for p, a, m, v in spots
    ]
    write_measures(folder / files.MEASURES, rows)
    shape = {"layer": "stage1.conv", "kind": "Conv2d", "channels": 4, "height": 8, "width": 8, "receptive_field": 3.0,
             "jump": 1.0, "start": 0.5, "parameters": 40, "multiply_adds": 2304, "input_seen": 0.1}  # fmt: skip
    files.write_rows(folder / files.SHAPES, [shape])
    losses = {"train/loss": 1.0, "val/loss": 1.1, "train/accuracy": 0.5, "val/accuracy": 0.5}
    files.write_rows(folder / files.HISTORY, [{"epoch": 1, "step": 10, **losses, "seconds": 1.0}])
    facts = {"seconds": 3.0, "parameters": 40, "multiply_adds": 2304, "hardware": "<b>cpu</b>", "torch": "2",
             "split_checksum": "s", "probe_checksum": "p", "realised_label_noise": 0.0}  # fmt: skip
    files.write_json(folder / files.RUN, facts)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    for seed, (accuracy, distance) in enumerate([(0.90, 0.10), (0.92, 0.20), (0.94, 0.30)]):
        leave_run(tmp_path / f"max{seed}", accuracy, distance, seed=seed)
    leave_run(tmp_path / "<script>alert(1)</script>", 0.80, 0.05, model={"pool": "avg"})
    files.write(tmp_path / "broken" / files.CONFIG, yaml.safe_dump(to_dict(from_dict({"seed": 9}))))
    files.write(tmp_path / "broken" / files.FAILED, "Traceback\nRuntimeError: <i>boom</i>")
    files.write_json(
        tmp_path / files.SWEEP, {"command": "c", "question": "<q>?", "jobs": ["max0", "max1", "max2", "later"]}
    )
    return tmp_path


def test_variants_are_means_and_sds_over_seeds(sweep: Path) -> None:
    runs, others = find_runs(sweep)
    rows = {row["variant"]: row for row in comparison_rows(variants(runs))}
    assert set(rows) == {"pool=max", "pool=avg"}
    best = rows["pool=max"]
    assert best["seeds"] == 3
    assert best["test_accuracy"] == pytest.approx(0.92)
    assert best["test_accuracy_sd"] == pytest.approx(0.02)
    assert best["crop_1px_output_distance"] == pytest.approx(0.2)
    assert best["crop_1px_output_distance_sd"] == pytest.approx(0.1)
    assert best["gap"] == pytest.approx(0.05)
    assert rows["pool=avg"]["test_accuracy_sd"] != rows["pool=avg"]["test_accuracy_sd"], "no sd of one seed"
    assert others == {"broken": "RuntimeError: <i>boom</i>", "later": "not started"}
    assert shown_rows(variants(runs))[0]["test_accuracy"] == "0.920 ± 0.020"


def test_the_answer_names_the_winners_and_its_own_weakness(sweep: Path) -> None:
    text = answer(variants(find_runs(sweep)[0]))
    assert "moves pool=avg least: 0.050 [0.040, 0.060]; next is pool=max with 0.200" in text
    assert "pool=max is the most accurate: 0.920 ± 0.020 over 3 seeds" in text
    assert "With 1 seed a variant it is a look, not a claim" in text


def test_names_on_the_page_are_text(sweep: Path) -> None:
    text = conclude(sweep).read_text()
    page = text[: text.index("<script>")] + text[text.index("<body>") :]  # without plotly's own code
    for hostile in ("<script>alert(1)", "<i>boom", "<b>cpu", "<q>"):
        assert hostile not in page
    assert "&lt;i&gt;boom" in page and "&lt;q&gt;?" in page
    assert "http" not in page, "nothing is fetched"


def test_a_run_of_its_own_is_compared_with_nothing(tmp_path: Path) -> None:
    leave_run(tmp_path / "one", 0.9, 0.1)
    text = answer(variants(find_runs(tmp_path)[0]))
    assert text.startswith("Test accuracy 0.900 [0.890, 0.910]; a 1-px crop moves the answer by")
    assert text.endswith(
        "0.100 [0.090, 0.110]; untrained 0.100 [0.090, 0.110]. Nothing stands beside it to compare it with."
    )


def test_two_runs_stand_side_by_side(tmp_path: Path) -> None:
    one, other = tmp_path / "here" / "one", tmp_path / "there" / "other"
    leave_run(one, 0.9, 0.1)
    leave_run(other, 0.8, 0.2, model={"pool": "avg"}, train={"epochs": 7})
    page = conclude(one, beside=other)
    assert page == one / "beside-other" / files.PAGE
    rows = files.read_rows(page.with_name(files.COMPARISON))
    assert [(row["model.pool"], row["train.epochs"], float(row["test_accuracy"])) for row in rows] == [
        ("max", "2", 0.9),
        ("avg", "7", 0.8),
    ]
    assert len(find_runs(one)[0]) == 1, "the page that was written is no run"


def test_the_page_says_what_all_runs_have_set(sweep: Path, tmp_path: Path) -> None:
    leave_run(tmp_path / "a" / "max", 0.9, 0.1, train={"lr": 0.05})
    leave_run(tmp_path / "a" / "avg", 0.8, 0.2, train={"lr": 0.05}, model={"pool": "avg"})
    text = conclude(tmp_path / "a").read_text()
    assert "The runs differ in model.pool; all have train.lr=0.05; the rest is the default." in text
