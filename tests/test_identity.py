"""What a run is: which settings and which pictures make two runs two, for names, resuming and the comparison alike."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from src.common.errors import UserError
from src.config import NON_IDENTITY_KEYS, Config, flatten, from_dict, to_dict
from src.data.splits import split
from src.launch.sweep import plan, sweep_name
from src.reporting.comparison import group_into_variants
from src.results import files
from src.results.identity import is_finished, write_identity
from src.training.run import run
from tests.helpers import tiny
from tests.test_comparison import found_below, leave_run

#: a value of each kind that is not the default
OTHERS: dict[str, Any] = {
    "model.name": "mlp", "model.variant": "a", "model.pool": "avg", "model.dropout_kind": "channel",
    "model.padding": "circular", "model.norm": "group", "model.activation": "gelu", "model.head": "flatten",
    "model.pool_at": [1], "data.name": "shapes", "data.task": "where", "data.root": "elsewhere",
    "data.augment": "flip", "train.optimizer": "sgd", "train.schedule": "constant", "train.keep": "last",
    "trainer.strategy": "ddp", "trainer.accelerator": "cpu", "trainer.precision": "bf16-mixed",
    "data.label_noise_kind": "random", "data.object_size": [0.05, 0.1], "measure.dimensions": [3],
    "measure.metamer_layers": ["stage1"],
    "measure.follow": ["dead_share"], "measure.what": ["shift"],
    "probe.choice": "balanced", "probe.files": [__file__], "wandb.mode": "disabled",
    "wandb.project": "mine", "wandb.entity": "us", "question": "why?", "name": "mine", "trainer.devices": 2,
}  # fmt: skip
KEYS = list(flatten(Config()))
#: keys that other settings are needed for
NEEDS = {"data.object_size": {"data": {"name": "shapes"}}, "data.skip_damaged": {"data": {"name": "folder"}}}


def default(key: str) -> Config:
    """The default config, with what a key needs."""
    return from_dict(NEEDS.get(key, {}))


def changed(key: str) -> Config:
    """The same config but for one key."""
    match flatten(Config())[key]:
        case bool(before):
            value: Any = not before
        case int(before) | float(before):
            value = before + 1 if isinstance(before, int) else before / 2 or 0.25
        case _:
            value = 7
    tree = to_dict(default(key))
    section, _, name = key.rpartition(".")
    (tree[section] if section else tree)[name] = OTHERS.get(key, value)
    return from_dict(tree)


def leave(folder: Path, cfg: Config) -> None:
    """A finished run, as far as being found goes."""
    files.write(folder / files.CONFIG, yaml.safe_dump(to_dict(cfg)))
    files.write_json(folder / files.RUN, {})


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_part_of_a_run_or_a_circumstance_everywhere(key: str, tmp_path: Path) -> None:
    cfg = changed(key)
    value = flatten(cfg)[key]
    assert value != flatten(default(key))[key]
    leave(tmp_path / "run", default(key))
    circumstance = key in NON_IDENTITY_KEYS
    assert (sweep_name(["seed=0,1", f"{key}={value}"]) == "seed=0,1") == circumstance
    if circumstance:
        assert is_finished(tmp_path / "run", cfg)
    else:
        with pytest.raises(UserError, match=f"holds a run with {key}="):
            is_finished(tmp_path / "run", cfg)
    if key != "seed":
        for name, one in (("default", default(key)), ("changed", cfg)):
            leave_run(tmp_path / "sweep" / name, 0.9, 0.1, **to_dict(one))
        assert len(group_into_variants(found_below(tmp_path / "sweep"))) == (1 if circumstance else 2)


def test_every_circumstance_is_a_key() -> None:
    assert set(NON_IDENTITY_KEYS) <= set(KEYS)


def test_settings_outside_a_runs_identity_are_not_in_its_folders_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["-m", "data=shapes", "seed=0,1"]
    elsewhere = ["data.root=far/away", "trainer.accelerator=cpu", "trainer.strategy=auto", "wandb.mode=disabled"]
    made, again = plan(command), plan([*command, *elsewhere, "trainer.save_minutes=1", "question=why"])
    assert made is not None and again is not None
    assert list(made.jobs) == list(again.jobs)
    assert [folder.name for folder in made.jobs] == ["data=shapes,seed=0", "data=shapes,seed=1"], "as it always was"
    precise = plan([*command, "trainer.precision=bf16-mixed"])
    assert precise is not None and precise.folder != made.folder and not set(precise.jobs) & set(made.jobs)


def test_two_jobs_never_share_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^default: two jobs that differ would have this one folder; "):
        plan(["-m", "sweeps=pooling,pool_at"])


# --- pictures --------------------------------------------------------------------------------------------------------


def leave_pictures(root: Path, seed: int = 0) -> Path:
    """Two classes of 20 pictures."""
    generator = np.random.default_rng(seed)
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for i in range(20):
            pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / kind / f"{i:02}.bmp")  # all of one size, whatever is in them
    return root


def on(root: Path, **data: Any) -> Config:
    return tiny(data={"name": "folder", "root": str(root), "train_size": None, "val_size": 8, **data})


def begun(folder: Path, cfg: Config) -> None:
    write_identity(folder, cfg)
    leave(folder, cfg)


def test_the_same_pictures_elsewhere_are_the_same_run(tmp_path: Path) -> None:
    here = leave_pictures(tmp_path / "here")
    begun(tmp_path / "run", on(here))
    shutil.copytree(here, tmp_path / "there")
    assert is_finished(tmp_path / "run", on(tmp_path / "there"))


def test_other_pictures_are_another_run(tmp_path: Path) -> None:
    begun(tmp_path / "run", on(leave_pictures(tmp_path / "here")))
    with pytest.raises(UserError, match=r"holds a run of other image files: data\.root=.*here, .*data\.root=.*there"):
        is_finished(tmp_path / "run", on(leave_pictures(tmp_path / "there", seed=1)))


@pytest.mark.parametrize("change", ["pixels", "one more", "one less", "another class", "all gone"])
@pytest.mark.parametrize("done", [True, False])
def test_a_folder_that_changed_is_never_used_as_if_it_had_not(change: str, done: bool, tmp_path: Path) -> None:
    root = leave_pictures(tmp_path / "here")
    begun(tmp_path / "run", on(root))
    if not done:
        (tmp_path / "run" / files.RUN).unlink()
    picture = root / "cat" / "03.bmp"
    if change == "pixels":
        size = picture.stat().st_size
        shutil.copy(root / "dog" / "07.bmp", picture)
        assert picture.stat().st_size == size
    elif change == "one more":
        shutil.copy(picture, root / "cat" / "99.bmp")
    elif change == "one less":
        picture.unlink()
    elif change == "another class":
        picture.rename(root / "dog" / "99.bmp")
    else:
        shutil.rmtree(root)
    with pytest.raises(UserError, match=r"holds a run of other image files") as caught:
        is_finished(tmp_path / "run", on(root))
    assert "\n" not in str(caught.value)


def test_a_run_of_before_checksums_is_held_to_the_folder_it_names(tmp_path: Path) -> None:
    here, there = leave_pictures(tmp_path / "here"), leave_pictures(tmp_path / "there", seed=1)
    leave(tmp_path / "run", on(here))
    assert is_finished(tmp_path / "run", on(here))
    with pytest.raises(UserError, match="other image files"):
        is_finished(tmp_path / "run", on(there))


def test_pictures_to_look_at_are_part_of_a_run_too(tmp_path: Path) -> None:
    picture = leave_pictures(tmp_path / "here") / "cat" / "00.bmp"
    cfg = tiny(probe={"files": [str(picture)]})
    begun(tmp_path / "run", cfg)
    assert is_finished(tmp_path / "run", cfg)
    shutil.copy(picture.with_name("01.bmp"), picture)
    with pytest.raises(UserError, match=r"other image files: probe\.files="):
        is_finished(tmp_path / "run", cfg)


def test_a_process_sees_that_the_pictures_changed_since_it_read_them(tmp_path: Path) -> None:
    root = leave_pictures(tmp_path / "here")
    before = split(on(root).data)
    assert split(on(root).data) is before
    shutil.rmtree(root)
    leave_pictures(root, seed=1)
    after = split(on(root).data)
    assert not torch.equal(before.train.images, after.train.images)


def test_folders_of_pictures_are_an_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate("AB"):
        leave_pictures(tmp_path / "sets" / name, seed)
    made = plan(["-m", "data=folder", "data.root=sets/A,sets/B", "data.val_size=8", "seed=0,1"])
    assert made is not None
    assert [folder.name for folder in made.jobs] == [
        f"data.root=sets_{name},data.val_size=8,data=folder,seed={seed}" for name in "AB" for seed in (0, 1)
    ]
    assert made.folder == Path("outputs/data=folder,data.root=sets_A,sets_B,data.val_size=8,seed=0,1")
    for folder, cfg in made.jobs.items():
        write_identity(folder, cfg)
        leave_run(folder, 0.9, 0.1, **to_dict(cfg))
    assert [(variant.name, variant.seeds) for variant in group_into_variants(found_below(made.folder))] == [
        ("data.root=sets/A", [0, 1]),
        ("data.root=sets/B", [0, 1]),
    ]


def test_changed_images_in_a_folder_change_its_checksum(tmp_path: Path) -> None:
    root = leave_pictures(tmp_path / "here")
    for name in ("before", "after"):
        write_identity(tmp_path / "runs" / name, on(root))
        leave_run(tmp_path / "runs" / name, 0.9, 0.1, **to_dict(on(root)))
        (root / "cat" / "00.bmp").unlink(missing_ok=True)
    names = [variant.name for variant in group_into_variants(found_below(tmp_path / "runs"))]
    assert len(set(names)) == 2 and all(name.startswith("data.pictures=") for name in names)


@pytest.mark.filterwarnings("default")  # Lightning's own
def test_a_finished_run_stores_its_identity(tmp_path: Path) -> None:
    root = leave_pictures(tmp_path / "here")
    run(on(root), tmp_path / "run")
    assert is_finished(tmp_path / "run", on(root))
    (root / "cat" / "00.bmp").unlink()
    with pytest.raises(UserError, match="other image files"):
        run(on(root), tmp_path / "run")
