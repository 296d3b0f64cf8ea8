"""The schema: what goes in comes back, and what is wrong is refused in one line that says what would be right."""

import json
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from omegaconf import MISSING

from src.common.errors import UserError
from src.common.option_fields import check_fields, counts_field
from src.config import Config, Model, cli_errors, flatten, from_command_line, from_dict, to_dict
from src.data.sets import SETS
from src.models import ARCHITECTURES
from src.pooling import POOLS
from tests.helpers import ROOT, composed, nested

# --- what goes in comes back -----------------------------------------------------------------------------------------

CHANGES = [
    {},
    {"model": {"pool": "blur", "window": 5, "dropout": 0.25}, "seed": 7},
    {"data": {"name": "shapes", "train_size": 100, "label_noise": 1.0}, "train": {"lr": 1e-3}},
    {"wandb": {"mode": "offline", "entity": "us"}, "question": "Does it? – “yes”: no, 50%"},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_config_survives_json(change):
    cfg = from_dict(change)
    saved = json.dumps(to_dict(cfg))
    assert from_dict(json.loads(saved)) == cfg
    flat = flatten(cfg)
    for key, value in change.items():
        for name, one in value.items() if isinstance(value, dict) else [("", value)]:
            assert flat[f"{key}.{name}".rstrip(".")] == one


@pytest.mark.parametrize(
    ("axis", "choice"), [(item.name, choice) for item in fields(Model) for choice in item.metadata.get("names", ())]
)
def test_every_choice_of_the_model_is_a_plain_string_outside(axis, choice):
    saved = to_dict(from_dict({"model": {axis: choice}}))
    assert type(saved["model"][axis]) is str
    assert saved["model"][axis] == choice == getattr(from_dict(saved).model, axis)


def test_the_defaults_of_the_command_line_are_those_of_the_schema():
    assert composed() == Config()


def test_overrides_and_groups_arrive():
    cfg = composed("model=resnet", "data=cifar10", "model.pool=aps", "train.lr=0.5", "model.window=null")
    assert (cfg.model.name, cfg.data.name, cfg.model.pool, cfg.train.lr, cfg.model.window) == (
        "resnet", "cifar10", "aps", 0.5, None,
    )  # fmt: skip


@pytest.mark.parametrize(("group", "names"), [("model", ARCHITECTURES), ("data", SETS)])
def test_every_architecture_and_set_has_its_file(group, names):
    assert {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")} == set(names)
    for name in names:
        assert getattr(composed(f"{group}={name}"), group).name == name


def test_saved_text_stays_text(monkeypatch):
    monkeypatch.setenv("SECRET", "42")
    text = "${oc.env:SECRET}"
    try:
        assert from_dict({"question": text}).question == text
    except UserError as refusal:
        assert "42" not in str(refusal)


# --- values that no type can refuse ----------------------------------------------------------------------------------

COUNTS = [
    f"{group.name}.{one.name}" if is_dataclass(group.type) else group.name
    for group in fields(Config)
    for one in (fields(group.type) if is_dataclass(group.type) else [group])
    if one.metadata.get("low") == 1
]
LISTS = {key for key, value in flatten(Config()).items() if isinstance(value, list)}
NEGATIVE_OR_ZERO = [(key, value) for key in COUNTS for value in (0, -1)]
OUT_OF_RANGE = [
    ("model.dropout", 1.5),
    ("model.dropout", 1.0),
    ("model.dropout", -0.1),
    ("model.dropout", float("nan")),
    ("train.label_smoothing", 1.0),
    ("data.label_noise", -1.0),
    ("data.label_noise", 1.01),
    ("train.lr", 0.0),
    ("train.lr", -0.1),
    ("train.lr", float("inf")),
    ("train.weight_decay", -0.01),
    ("trainer.save_minutes", -1.0),
    ("seed", -1),
    ("seed", 2**32),
    ("measure.seed", -1),  # NumPy's generator takes no negative seed: it would stop after the training
    ("measure.images", 1),  # an image needs another to be compared with
]


@pytest.mark.parametrize(("key", "value"), NEGATIVE_OR_ZERO + OUT_OF_RANGE)
def test_a_bad_value_is_refused_with_its_key(key, value):
    with pytest.raises(UserError) as refusal:
        from_dict(nested(key, value := [value] if key in LISTS else value))
    assert str(refusal.value).startswith(f"{key}={value}: must be ")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.dropout", 0.0),
        ("model.dropout", 0.99),
        ("data.label_noise", 1.0),
        ("train.weight_decay", 0.0),
        ("trainer.save_minutes", 0.0),
        ("seed", 0),
    ],
)
def test_the_ends_of_a_range_are_taken(key, value):
    assert flatten(from_dict(nested(key, value)))[key] == value


def test_a_learned_pool_without_padding_is_refused():
    with pytest.raises(UserError, match=r"model\.pool=conv .* model\.padding=valid"):
        from_dict({"model": {"pool": "conv", "padding": "valid"}})


# --- keys, types and choices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("model.pool=avgg", ["model.pool", "avgg", *POOLS]),
        ("model.pol=max", ["model.pol", "did you mean model.pool", "window", "stride", "head"]),
        ("model.depth=three", ["model.depth", "three", "Integer"]),
        ("model.depth=2.5", ["model.depth", "2.5", "Integer"]),
        ("train.lr=fast", ["train.lr", "fast", "Float"]),
        ("model=laddr", ["model=laddr", *ARCHITECTURES]),
        ("data=cifar", ["data=cifar", *SETS]),
        ("+sede=1", ["sede", "seed"]),
        ("+model.pol=max", ["pol", "pool"]),
        ("sede=1", ["sede", "did you mean seed", "model", "train"]),
        ("model.depth=0", ["model.depth=0", "at least 1"]),
        ("model.pool=[max", ["model.pool=[max"]),
        ("model.pool=max,avg", ["model.pool", "-m"]),
    ],
)
def test_a_wrong_word_is_refused_in_one_line_that_names_the_right_ones(override, named):
    with pytest.raises(UserError) as refusal:
        composed(override)
    message = str(refusal.value)
    assert "\n" not in message
    assert [word for word in named if word not in message] == []


@pytest.mark.parametrize("saved", [{"model": {"pol": "max"}}, {"mdel": {}}, {"model": {"depth": "three"}}])
def test_a_saved_config_is_held_to_the_same_schema(saved):
    with pytest.raises(UserError, match=r"pol|mdel|depth"):
        from_dict(saved)


# --- entry points ----------------------------------------------------------------------------------------------------


@dataclass
class Options:
    path: str = MISSING
    images: int = 10


def read(*words: str) -> Options:
    return from_command_line(Options, list(words), "\nusage: read path=PATH [images=10]\n")


def test_options_are_read():
    assert read("path=a/b", "images=3") == Options("a/b", 3)
    assert read("path=a/b") == Options("a/b", 10)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["path=a", "imges=3"], ["imges", "images", "path"]),
        (["path=a", "images=many"], ["images", "many"]),
        (["images=3"], ["path="]),
        (["a/b"], ["a/b", "key=value"]),
    ],
)
def test_wrong_options_are_refused_in_one_line(words, named):
    with pytest.raises(UserError) as refusal:
        read(*words)
    assert "\n" not in str(refusal.value)
    assert [word for word in named if word not in str(refusal.value)] == []


@pytest.mark.parametrize(("words", "code"), [([], 2), (["--help"], 0), (["path=a", "-h"], 0)])
def test_usage_is_shown(words, code, capsys):
    with pytest.raises(SystemExit) as leaving:
        read(*words)
    assert leaving.value.code == code
    assert capsys.readouterr().out == "usage: read path=PATH [images=10]\n"


@pytest.mark.parametrize(("error", "code"), [(UserError("depth=0: no"), 2), (KeyboardInterrupt(), 130)])
def test_a_refusal_is_one_line_on_standard_error(error, code, capsys):
    with pytest.raises(SystemExit) as leaving, cli_errors():
        raise error
    shown = capsys.readouterr()
    assert leaving.value.code == code
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert code != 2 or shown.err == "error: depth=0: no\n"


def test_a_full_disk_is_one_line_also_without_a_name(capsys):
    with pytest.raises(SystemExit) as leaving, cli_errors(), Path("/dev/full").open("w", buffering=1) as file:
        file.write("a line\n")
    assert leaving.value.code == 2
    assert capsys.readouterr().err.startswith("error: No space left on device: make room, and the same command goes on")


def test_other_errors_are_not_hidden():
    with pytest.raises(ZeroDivisionError), cli_errors():
        raise ZeroDivisionError


def test_what_an_interpolation_puts_into_a_number_is_refused():
    @dataclass
    class Options:
        sizes: Any = counts_field((1,))

    check_fields(Options([1, 2]))
    for value in (Model(), [Model()], "3", ["3"]):
        with pytest.raises(UserError, match=r"^group\.sizes=.*must be whole numbers of at least 1"):
            check_fields(Options(value), "group.")
