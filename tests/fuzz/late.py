"""Values that the schema takes and a run would fail by later: each must be refused before the work."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from tests.fuzz.cases import Case
from tests.fuzz.commands import SMALL, main_of, plan

#: of a single run, beside ``SMALL``
SINGLE = (
    "trainer.accelerator=zzz", "trainer.accelerator=gpu", "trainer.accelerator=tpu", "trainer.accelerator=mps",
    "trainer.strategy=zzz", "trainer.strategy=", "trainer.strategy=deepspeed", "trainer.strategy=fsdp",
    "trainer.precision=64-true", "trainer.precision=zzz", "trainer.devices=1000", "trainer.num_nodes=2",
    "trainer.accelerator=cpu trainer.devices=1000", "trainer.accelerator=", "trainer.save_minutes=nan",
    "probe.files=[pyproject.toml]", "probe.files=[/dev/null]", "probe.files=[.]", "probe.files=[zzz]",
    "wandb.project=a/b wandb.mode=offline", "wandb.project= wandb.mode=offline", "wandb.mode=foo",
    "wandb.project='a b:c' wandb.mode=offline", "wandb.entity=a/b wandb.mode=offline",
    "model.pool_at=[[1]]", "model.pool_at=[3]", "model.pool_at=[0]", "model.pool_at=[]", "model.pool_at=[1,1]",
    "model=null", "data=null", "train=null", "trainer=null", "model.pool=null", "model.width=null",
    "model.width=1000000000000", "model.depth=100000", "model.convs=100000",
    "model.depth=100000 model.stride=1", "model.parameters=1000000000000", "model.parameters=999999999999999999999",
    "model.max_width=10000000 model.width=10000000", "data.image_size=100000", "data.image_size=10000000",
    "data.canvas=100000", "data.canvas=10000000", "data.image_size=0", "data.train_size=1000000000000",
    "data.val_size=1000000", "measure.max_shift=16", "measure.max_shift=1000000000", "measure.images=1",
    "model.pool=blur model.window=1000", "model.window=17", "model.window=5 model.pool=none",
    "model.window=3 model.pool=wavelet", "model.window=5 model.pool=aps model=allconv",
    "model.stride=100000", "model.stride=1000000000000",
    "train.lr=nan", "train.lr=inf", "train.weight_decay=nan", "train.label_smoothing=nan", "model.dropout=nan",
    "data.label_noise=nan", "data.object_size=[nan,nan]", "train.epochs=1000000000000000000000000000000",
    "train.batch_size=1", "hydra.sweeper.params={model.pool:max}", "hydra/sweeper=optuna", "hydra/launcher=joblib",
    "hydra/sweeper=zzz", "hydra.mode=zzz", "+zzz=1", "hydra.run.dir=/dev/null/x", "hydra.run.dir=file",
    "hydra.run.dir=file/x", "hydra.run.dir=dangling", "hydra.run.dir=locked/x", "hydra.run.dir=loop/x",
    "data=folder data.root=/dev/null", "data=folder data.root=file", "data=folder data.root=loop",
    "data=folder data.root=empty", "data=folder data.root=fifos", "name=a/b", "name=..", "name=", "seed=0,1",
    "seed=9999999999999", "measure.what=[]", "measure.what=[zzz]", "measure.what=[[shift]]", "measure.follow=[zzz]",
    "measure.dimensions=[100000000000]", "measure.dimensions=[0]", "probe.images=0", "probe.every=0",
)  # fmt: skip
#: of a sweep
SWEEPS = (
    "seed=range(0)", "seed=range(5,1)", "seed=choice()", "model.pool=glob(zzz)", "seed=glob(*,exclude=*)",
    "seed=interval(0,1)", "model=glob(zzz*)", "sweeps=glob(zzz)", "sweeps=zzz", "seed=",
    "probe.files=[a/b],[a_b]", "wandb.project=a/b,c wandb.mode=offline", "model.pool=max,zzz",
    "model.pool=max,avg hydra.sweep.subdir=x", "model.pool=max,avg hydra.sweep.subdir=../x",
    "model.pool=max,avg hydra.sweep.subdir=", "model.pool=max,avg hydra.sweep.subdir=a/${model.pool}/b",
    "model.pool=max,avg hydra.sweep.subdir=/tmp/x", "model.pool=max,avg hydra.sweep.subdir=${model.pool}/..",
    "model.pool=max,avg hydra.sweep.dir=file", "model.pool=max,avg hydra.sweep.dir=dangling",
    "model.pool=max,avg hydra.sweep.dir=/dev/null/x", "model.pool=max,avg hydra.sweep.dir=locked/x",
    "model.pool=max,avg name=a,b", "model.pool=max,avg trainer.devices=2", "model.pool=max,avg trainer.num_nodes=2",
    "model.pool=max,avg hydra/launcher=local trainer.num_nodes=2", "model.pool=max,avg trainer.accelerator=zzz",

    "model.pool=max,avg hydra/launcher=local hydra.launcher.gpus=7", "model.pool=max,avg preset=zzz",
    "model.pool=max,avg seeds=auto", "model.width=4,1000000000000", "model.depth=2,100000", "data.image_size=16,100000",
    "sweeps=q3_stride model.pool=max", "hydra.sweeper.params=[1] seed=0,1", "hydra.sweeper.params=zzz",
    "hydra.sweeper.params={zzz:1}", "hydra.sweeper.params={seed:[]}", "hydra.sweeper.params={seed:{}}",
    "+hydra.sweeper.params.seed='range(0)'", "study.variants={a:[zzz]}", "study.variants={a:[]} seed=0,1 zzz=1",
    "study.variants={a:zzz}", "study.claims=[{text:a}]", "study.looks=[]", "study.presets={quick:{zzz:1}}",
)  # fmt: skip
#: places of the tables and pages of other commands, that cannot be written
PLACES = ("file", "file/x", "dangling/x", "locked/x", "/dev/null/x", "/proc/x", "loop/x")


def surroundings(folder: Path) -> None:
    """Files and folders of every awkward kind, that cases refer to by their names."""
    folder.mkdir(parents=True)
    (folder / "file").write_text("zzz", encoding="utf-8")
    (folder / "pyproject.toml").write_text("zzz", encoding="utf-8")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "empty").mkdir()
    for name in ("a", "b"):
        (folder / "fifos" / name).mkdir(parents=True)
        os.mkfifo(folder / "fifos" / name / "x.png")
    (folder / "locked").mkdir()
    (folder / "locked").chmod(0o555)


def cases(runs: Path) -> Iterator[Case]:
    """The lists above; ``runs`` is a finished sweep."""

    def words(line: str) -> list[str]:
        given = line.split(" ")
        keys = {word.partition("=")[0] for word in given}
        return [*(f"{key}={value}" for key, value in SMALL.items() if key not in keys), *given]

    accepted = {"name=", "model.pool_at=[]", "train.batch_size=1", "measure.what=[]"}  # whose meaning is plain
    root = os.geteuid() == 0  # who may write anywhere
    for line in SINGLE:
        free = line in accepted or (root and "locked" in line)
        yield Case("late: run", line, partial(plan, words(line)), refused=not free)
    for line in SWEEPS:
        yield Case("late: sweep", line, partial(plan, ["-m", *words(line)]), refused=not (root and "locked" in line))
    for mode in ("foo", "ONLINE!", ""):
        call: Callable[[], object] = partial(plan, [*words("wandb.mode=offline")])
        yield Case("late: environment", f"WANDB_MODE={mode}", call, bool(mode), environment=(("WANDB_MODE", mode),))
    for place in PLACES:
        refused = not (root and place == "locked/x")
        reporting = ["report", [f"runs={runs}", f"out={place}"]]
        answering = ["answers", ["run=false", "studies=q3_stride", f"out={place}"]]
        pooling = ["pools", ["size=4", "images=1", "shifts=1", "depth=1", f"out={place}/x.md"]]
        for name, given in (reporting, answering, pooling):
            yield Case("late: places", f"{name} {place}", partial(main_of, name, given), refused=refused)  # type: ignore[arg-type]
