"""Jobs as children of a process that has imported everything: ``multiprocessing``'s fork server.

Importing takes longer than a small job. A forked job starts as a fresh ``python -m src.train`` does, but for the
imports: the server runs no net, draws no random number, starts no thread and never touches a GPU, so a job finds
nothing of it, and nothing of the job before. Linux only.
"""

import multiprocessing
import os
import runpy
import signal
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

from ..common.naming import PACKAGE

#: what a job imports, also when it comes to it
MODULES = (
    *(
        f"{PACKAGE}.{name}"
        for name in ("launch.sweep", "launch.reuse", "reporting.page", "training.run", "models.ladder")
    ),
    "captum.attr",
    "rich.status",
    "pandas",
    "wandb.sdk.launch.inputs.internal",  # the slowest part of wandb
)
#: whether this machine has a fork server that is safe to use: on others, libraries start threads as they are imported
AVAILABLE = sys.platform == "linux"


class ForkedJob:
    """A job that the server has forked: the part of ``subprocess.Popen`` that a scheduler uses. Its output is added to
    ``log``; the environment of the first job is also that of the server.
    """

    def __init__(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(MODULES))
        self._process: ForkServerProcess = context.Process(
            target=_be_the_command, args=(list(arguments), log, dict(environment))
        )
        # a server that starts now inherits the environment; its consoles have no colours and no width of their own
        with mock.patch.dict(os.environ, {"COLUMNS": "", **environment, "TERM": "dumb"}, clear=True):
            resource_tracker.ensure_running()  # it unblocks the signal as it starts
            # the server inherits this: Ctrl-C at the terminal would end its imports with a traceback
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                self._process.start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs; may be asked in a signal handler."""
        return not wait([self._process.sentinel], 0)

    @property
    def returncode(self) -> int | None:
        """Its exit code; minus the signal's number, where a signal ended it; None while it runs."""
        return self._process.exitcode

    def wait(self) -> int:
        """Wait for its end; returns its exit code."""
        self._process.join()
        assert self._process.exitcode is not None
        return self._process.exitcode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.alive:
            os.kill(self.pid, signum)


def _be_the_command(arguments: list[str], log: Path, environment: dict[str, str]) -> None:
    """Make this child of the server what a fresh process of the job would be."""
    import numpy as np
    import torch

    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    with log.open("ab") as output:
        os.dup2(output.fileno(), 1)
        os.dup2(output.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(int(environment["OMP_NUM_THREADS"]))
    np.random.seed()  # from the system, as in a fresh process; Python does so for its own generator
    sys.argv[1:] = arguments
    runpy.run_module(f"{PACKAGE}.train", run_name="__main__", alter_sys=True)


def _end_with_launcher() -> None:
    """In a job: save and end when the process that started it is gone, also by kill -9."""
    launcher = multiprocessing.parent_process()
    assert launcher is not None
    launcher.join()
    os.kill(os.getpid(), signal.SIGTERM)
