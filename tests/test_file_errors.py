"""What is wrong with a file of ``conf`` or ``sweeps`` is said in one line that names the file and the place in it."""

from pathlib import Path

import pytest

from src.common.errors import UserError
from src.common.option_fields import check_fields
from src.config import Reading
from src.launch import compose, user_files
from src.launch.compose import compose_jobs, compose_one
from src.launch.sweep import plan, study_names
from src.results.where import matching

HEADER = "# @package _global_\n"
CLAIM = "study: {claims: [{text: t, contrasts: [{a: {measure: accuracy, KEY}, margin: 0.1}]}]}\n"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which an installed package would find ``conf`` and ``sweeps`` of the user's own."""
    for folder in ("conf/model", "conf/data", "sweeps"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.setattr(user_files, "HERE", tmp_path)
    monkeypatch.setattr(compose, "SEARCHPATH", user_files.search_path())
    return tmp_path


def refusal(*words: str) -> str:
    with pytest.raises(UserError) as refused:
        compose_jobs([*words])
    message = str(refused.value)
    assert "\n" not in message
    return message


SWEEPS = {
    CLAIM.replace("KEY", "protokol: crop"): (
        "study.claims[0].contrasts[0].a.protokol: no such key; did you mean a.protocol? valid here: where, measure"
    ),
    CLAIM.replace("KEY", "amount: many"): "study.claims[0].contrasts[0].a.amount: Value 'many' of type 'str' could not",
    "modl: {pool: max}": "modl: no such key; did you mean model? valid here: model, data",
    "hydra: {swepeer: 3}": "hydra.swepeer: no such key; did you mean hydra.sweeper?",
    "model: 3": "model: Merge error: int is not",
    "study: {claims: {a: 1}}": "study: one of its keys has a list where key: value is needed, or the reverse",
    "- a": "one of its keys has a list",
    "model:\n\tpool: max": "line 3: found character",
    "question: 'abc": "line 2: found unexpected end of stream",
    "seed: 1\nseed: 2": "line 3: found duplicate key seed",
    "question: a\0b": "line 2: special characters are not allowed",
    "question: caf\xe9": "line 2: is not in UTF-8",
    "3": "must hold keys and values, key: value",
}


@pytest.mark.parametrize("text", SWEEPS)
def test_a_wrong_sweep_is_named_with_the_place_in_it(own, text):
    (own / "sweeps" / "bad.yaml").write_bytes((HEADER + text).encode("latin-1"))
    assert refusal("-m", "sweeps=bad").startswith(f"sweeps/bad.yaml: {SWEEPS[text]}")


@pytest.mark.parametrize(
    ("text", "empty"), [("", "is empty; "), ("# a comment\n", ""), ("model: {pool: max}\n", "")], ids=repr
)
def test_a_sweep_without_package_global_is_refused_with_the_line_it_needs(own, text, empty):
    (own / "sweeps" / "bad.yaml").write_text(text)
    assert refusal("-m", "sweeps=bad") == f"sweeps/bad.yaml: {empty}its first line must be # @package _global_"


@pytest.mark.parametrize("group", ["model", "data"])
@pytest.mark.parametrize(
    ("text", "right"), [("", False), ("{GROUP}", False), ("name: NAME\n", True), ("defaults: [NAME]\n", True)]
)
def test_a_file_of_a_group_says_what_it_is(own, group, text, right):
    name, key = {"model": ("mlp", "width: 7"), "data": ("mnist", "val_size: 7")}[group]
    written = text.replace("{GROUP}", f"{key}\n").replace("NAME", name)
    (own / "conf" / group / "zzz.yaml").write_text(written)
    if right:
        assert getattr(compose_one([f"{group}=zzz"]), group).name == name
        return
    line = f"conf/{group}/zzz.yaml: needs a line name: NAME, one of "
    for words in ([f"{group}=zzz"], ["-m", f"{group}={name},zzz"]):
        assert refusal(*words).startswith(line)
    with pytest.raises(UserError, match=f"^{line}.*{name}"):
        compose_one([f"{group}=zzz"])


def test_a_wrong_file_of_a_group_is_named(own):
    (own / "conf" / "model" / "zzz.yaml").write_text("name: mlp\nwidht: 3\n")
    assert refusal("model=zzz").startswith("conf/model/zzz.yaml: model.widht: no such key; did you mean model.width?")


def test_a_sweep_that_cannot_be_read_is_in_nobodys_way(own):
    before = study_names()
    (own / "sweeps" / "bad.yaml").write_bytes(b"question: caf\xe9\0\n")
    assert study_names() == before


@pytest.mark.parametrize("word", ["--hlp", "-x", "model.pool"])
def test_a_wrong_option_is_one_line(word):
    message = refusal(word)
    assert word in message and message.endswith("; see --help")


@pytest.mark.parametrize(
    ("words", "key"), [([], "hydra.run.dir"), (["-m", "seed=0,1"], "hydra.sweep.dir")], ids=["run", "sweep"]
)
@pytest.mark.parametrize("below", ["", "/run"])
def test_a_file_where_a_folder_is_needed_is_refused(tmp_path, words, key, below):
    (tmp_path / "file").write_text("")
    folder = f"{tmp_path}/file{below}"
    with pytest.raises(UserError) as refused:
        plan([*words, f"{key}={folder}"])
    line = f"{tmp_path}/file is a file, where a folder is needed: choose another "
    assert line in str(refused.value) and str(refused.value).startswith(folder)


def test_a_job_whose_folder_is_a_file_is_refused(tmp_path):
    (tmp_path / "seed=1").write_text("")
    with pytest.raises(UserError, match=r"seed=1 is a file, where a folder is needed"):
        plan(["-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}"])


def test_a_name_is_refused_where_a_field_may_be_left_out():
    with pytest.raises(UserError, match=r"^a\.look=lastt: did you mean last\? choose one of last, best, .*, mean$"):
        check_fields(Reading(look="lastt"), "a.")


def test_an_unknown_key_of_a_selection_is_shown_with_its_value():
    with pytest.raises(UserError, match=r"^where=pol=max,avg: no such key; did you mean pool\?"):
        matching("pol=max,avg,seed=0", [{"model.pool": "max", "seed": 0}])
