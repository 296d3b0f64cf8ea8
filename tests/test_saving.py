"""What a run's checkpoints are for: interrupted anywhere it ends with the same numbers, and no fault loses it."""

import resource
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import pytest
import torch

from src.common.errors import Interrupted, UserError
from src.config import Config
from src.data.batches import Batches
from src.data.sets import Images
from src.data.splits import normalise
from src.results import files
from src.results.locks import folder_lock, lock_holder
from src.results.runs import find_runs
from src.training.checkpoints import SIGNALS, resume_from
from src.training.lightning_module import Training
from src.training.run import run
from tests.faults import FORK, contents
from tests.helpers import tiny

pytestmark = pytest.mark.filterwarnings("default")  # Lightning's own
#: four batches and one of a few images an epoch; the augmentation and the dropout draw random numbers
CONFIG = {"data": {"augment": "flip_shift", "train_size": 260}, "measure": {"every": 2}}
STEPS = 2 * 5


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    run(tiny(**CONFIG), folder)
    return folder


@pytest.fixture
def at_step(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Callable[[int], None]], list[int]]]:
    """Does something at each training step, counted over all attempts; gives the list of those that were done."""
    step = Training.training_step

    def install(what: Callable[[int], None]) -> list[int]:
        done: list[int] = []

        def stepped(self: Training, batch: tuple[torch.Tensor, ...], index: int) -> torch.Tensor:
            done.append(len(done) + 1)
            what(len(done))
            return step(self, batch, index)

        monkeypatch.setattr(Training, "training_step", stepped)
        return done

    yield install


def until_done(cfg: Config, folder: Path, *errors: type[BaseException]) -> int:
    """Start the run again and again; how often it stopped."""
    for stops in range(100):
        try:
            run(cfg, folder)
        except errors:
            continue
        return stops
    raise AssertionError("it never ends")


def test_a_run_stopped_by_a_signal_at_every_step_ends_with_the_same_files(
    undisturbed: Path, tmp_path: Path, at_step: Callable[..., list[int]]
) -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    done = at_step(lambda step: signal.raise_signal(SIGNALS[step % len(SIGNALS)]))
    stops = until_done(tiny(**CONFIG), tmp_path, Interrupted)
    assert len(done) == stops == STEPS, "no batch is done twice"
    assert contents(tmp_path) == contents(undisturbed)
    assert [signal.getsignal(signum) for signum in SIGNALS] == before
    assert not (tmp_path / files.FAILED).exists(), "to be stopped is no failure"


def test_what_is_saved_every_few_minutes_is_not_done_again(
    undisturbed: Path, tmp_path: Path, at_step: Callable[..., list[int]]
) -> None:
    def fail(step: int) -> None:
        if step in (4, 9):
            raise RuntimeError("the power went")

    for minutes, again in ((1e-9, [4, 9]), (0, [1, 2, 3, 4, *range(1, 6)])):
        folder = tmp_path / str(minutes)
        done = at_step(fail)
        assert until_done(tiny(**CONFIG, trainer={"save_minutes": minutes}), folder, RuntimeError) == 2
        assert len(done) == STEPS + len(again), "with it, only what was interrupted; without, since the epoch began"
        assert contents(folder) == contents(undisturbed)


def test_the_earlier_signal_handler_is_called_once_the_run_is_saved(
    undisturbed: Path, tmp_path: Path, at_step: Callable[..., list[int]]
) -> None:
    got = []

    def requeue(signum: int, frame: object) -> None:
        (last,) = tmp_path.glob("checkpoints/last.ckpt")
        got.append((signum, torch.load(last, weights_only=True)["global_step"]))

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        at_step(lambda step: signal.raise_signal(signal.SIGUSR2) if step == 3 else None)
        run(tiny(**CONFIG), tmp_path)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert got == [(signal.SIGUSR2, 3)]
    assert contents(tmp_path) == contents(undisturbed), "as it returned, the run went on"


def test_a_damaged_checkpoint_does_not_lose_the_run(
    undisturbed: Path, tmp_path: Path, at_step: Callable[..., list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    at_step(lambda step: signal.raise_signal(signal.SIGTERM) if step in (3, 7) else None)
    for _ in range(2):
        with pytest.raises(Interrupted):
            run(tiny(**CONFIG), tmp_path)
    kept = tmp_path / files.CHECKPOINTS
    whole = (kept / files.LAST).read_bytes()
    for damage in (whole[: len(whole) // 2], b"", whole[:3000] + bytes([whole[3000] ^ 1]) + whole[3001:]):
        (kept / files.LAST).write_bytes(damage)
        said: list[str] = []
        assert resume_from(kept, said.append) == kept / files.PREVIOUS
        assert said == [f"{kept / files.LAST} is damaged: resuming from previous.ckpt"]
    files.write(tmp_path / files.MAPS / f".scale.json.abc{files.PART}", b"{")  # as one leaves it that was killed
    run(tiny(**CONFIG), tmp_path)
    assert "is damaged: resuming from previous.ckpt" in " ".join(capsys.readouterr().out.split())
    assert contents(tmp_path) == contents(undisturbed)
    assert {path.name for path in kept.iterdir()} == {files.LAST, files.BEST}, "a finished run needs no more"
    assert not list(tmp_path.rglob(f".*{files.PART}"))


def test_without_an_intact_checkpoint_training_starts_over(tmp_path: Path) -> None:
    said: list[str] = []
    assert resume_from(tmp_path, said.append) is None and not said
    for name in (files.LAST, files.PREVIOUS):
        (tmp_path / name).write_bytes(b"PK")
    assert resume_from(tmp_path, said.append) is None
    assert said == [f"{tmp_path / files.LAST} is damaged: resuming from the start"]


def test_without_the_weights_of_the_best_epoch_training_starts_over(
    undisturbed: Path, tmp_path: Path, at_step: Callable[..., list[int]]
) -> None:
    at_step(lambda step: signal.raise_signal(signal.SIGTERM) if step == 7 else None)
    with pytest.raises(Interrupted):
        run(tiny(**CONFIG), tmp_path)
    best = tmp_path / files.CHECKPOINTS / files.BEST
    best.write_bytes(best.read_bytes()[:100])
    run(tiny(**CONFIG), tmp_path)
    assert contents(tmp_path) == contents(undisturbed)


def test_a_disk_that_fills_up_costs_nothing_that_was_saved(
    undisturbed: Path, tmp_path: Path, at_step: Callable[..., list[int]]
) -> None:
    """By the limit on a file's size, which cuts it off as a full disk does; tests/faults.py fills a real one."""
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(step: int) -> None:
        if step == 7:
            resource.setrlimit(resource.RLIMIT_FSIZE, (8000, unlimited[1]))

    at_step(fill)
    try:
        with pytest.raises(OSError, match="File too large"):
            run(tiny(**CONFIG, trainer={"save_minutes": 1e-9}), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert not list(tmp_path.rglob(f".*{files.PART}"))
    assert resume_from(tmp_path / files.CHECKPOINTS, pytest.fail) == tmp_path / files.CHECKPOINTS / files.LAST
    with pytest.raises(UserError, match=r"OSError: .*File too large"):
        find_runs(tmp_path)
    run(tiny(**CONFIG), tmp_path)
    assert contents(tmp_path) == contents(undisturbed)


# --- one process at a time -----------------------------------------------------------------------------------------


def test_a_second_process_is_refused_and_writes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with folder_lock(folder):
        assert (lock_holder(folder) or "").startswith("process ")
        with pytest.raises(UserError, match=r"run: process \d+ on .* is using this folder; wait"):
            run(tiny(), folder)
        assert {path.name for path in folder.iterdir()} == {files.LOCK}
    assert lock_holder(folder) is None


def test_a_killed_process_leaves_no_lock(tmp_path: Path) -> None:
    def hold() -> None:
        with folder_lock(tmp_path):
            held.set()
            time.sleep(600)

    held = FORK.Event()
    holder = FORK.Process(target=hold)
    holder.start()
    assert held.wait(60)
    with pytest.raises(UserError, match=f"process {holder.pid} "), folder_lock(tmp_path):
        pass
    holder.kill()
    holder.join()
    with folder_lock(tmp_path):
        pass


def test_readers_do_not_block_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = iter([False, False, True])
    monkeypatch.setattr("src.results.locks._taken", lambda file: next(looks))
    with folder_lock(tmp_path):
        pass


# --- the parts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", ["none", "flip_shift"])
def test_batches_resume_at_their_position(augment: str) -> None:
    images = torch.randint(0, 256, (50, 1, 8, 8), dtype=torch.uint8)
    part = Images(images, torch.arange(50) % 5)

    def batches() -> Batches:
        made = Batches(part, 8, partial(normalise, mean=torch.zeros(1), std=torch.ones(1)), seed=1, augment=augment)
        made.set_epoch(3)
        return made

    whole = [x for x, _, _ in batches()]
    first, again = batches(), batches()
    passed = [x for x, _, _ in islice(first, 3)]
    again.load_state_dict(first.state_dict())
    rest = [x for x, _, _ in again]
    assert len(whole) == len(passed) + len(rest) == 7
    assert all(map(torch.equal, whole, [*passed, *rest]))
    assert all(map(torch.equal, whole, [x for x, _, _ in again])), "the next pass is a whole one"
