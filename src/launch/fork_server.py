"""A process that has imported everything a job needs, and forks a child for each job of a sweep.

Importing takes longer than a small job. A child starts as a fresh ``python -m src.train`` does, but for the imports:
the server runs no net, draws no random number, starts no thread and never touches a GPU, so a job finds nothing of it,
and nothing of the job before. It becomes a child of the process that asked for it, which sees how it ends, and outlives
a server that is killed. Linux only.
"""

import gc
import json
import os
import runpy
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

from ..naming import PACKAGE
from ..training.ranks import adopt_orphans, end_with_parent

#: what a job imports only when it comes to it, beside the modules that ``_import_everything`` names
LATE = (f"{PACKAGE}.models.ladder", "captum.attr", "rich.status")
#: whether this machine has what the server needs: a child that passes to the process that asked for it
AVAILABLE = sys.platform == "linux"


class ForkedJob:
    """A job that a server has forked: the part of ``subprocess.Popen`` that a scheduler uses.

    Args:
        pid: a child of this process.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def wait(self) -> int:
        """Its exit code; minus the signal's number, where a signal ended it."""
        if self.returncode is None:
            self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.returncode

    def send_signal(self, signum: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, signum)


class ForkServer:
    """Starts the server, asks it for jobs, and starts another where it has died.

    Args:
        environment: of the server. What libraries read as they are imported, as their threads, is that of all jobs.
        name: shown by ``ps``: of the sweep.
    """

    def __init__(self, environment: Mapping[str, str], name: str) -> None:
        self.environment, self.name = environment, name
        self.process: subprocess.Popen[bytes] | None = self._start()
        self.forked = False

    def fork(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str]) -> ForkedJob | None:
        """Start a job.

        Args:
            arguments: of the train command.
            log: to which its output is added.
            environment: of the job.

        Returns:
            None where the server is gone: the job needs a process of its own. The next job gets a new server, unless
            this one has died without forking any.
        """
        if self.process is None:
            if not self.forked:
                return None
            self.process, self.forked = self._start(), False
        assert self.process.stdin and self.process.stdout
        request = {"arguments": list(arguments), "log": str(log), "environment": dict(environment)}
        try:
            with _adopting():
                self.process.stdin.write(json.dumps(request).encode() + b"\n")
                self.process.stdin.flush()
                pid = int(self.process.stdout.readline())
        except (OSError, ValueError):  # it is gone, or the job did not come up
            self.close()
            return None
        self.forked = True
        return ForkedJob(pid)

    def close(self) -> None:
        """End the server; jobs that it has forked run on."""
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None

    def _start(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", f"{PACKAGE}.launch.fork_server", self.name],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # jobs then start on their own, and say what is wrong
            start_new_session=True,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (all it does is one system call)
        )


@contextmanager
def _adopting() -> Iterator[None]:
    """Inside the ``with``, a process whose parent ends becomes a child of this one."""
    adopt_orphans(True)
    try:
        yield
    finally:
        adopt_orphans(False)


def _serve() -> list[str] | None:
    """Fork a job for each request that comes by stdin.

    Returns:
        In a job: the arguments of its command. In the server, at its end: None.
    """
    launcher = os.getppid()
    requests, replies = os.fdopen(os.dup(0), "rb"), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    _import_everything()
    if not _may_fork():
        return None
    gc.collect()
    gc.freeze()  # so that a job's garbage collections copy no page of the server
    for line in requests:
        reading, writing = os.pipe()
        middle = os.fork()
        if not middle:
            middle = os.getpid()
            if os.fork():
                os._exit(0)  # its child passes to the launcher
            for unused in (reading, replies, requests.fileno()):
                os.close(unused)
            return _become_job(json.loads(line), middle, launcher, writing)
        os.close(writing)
        os.waitpid(middle, 0)
        with os.fdopen(reading, "rb") as ready:
            os.write(replies, (ready.read() or b"none") + b"\n")
    return None


def _become_job(request: dict[str, object], middle: int, launcher: int, ready: int) -> list[str]:
    """Make this child of the server what a fresh process of the job would be, and say that it is there.

    Args:
        request: as ``ForkServer.fork`` sends it.
        middle: the process that forked this one.
        launcher: the process whose child this one becomes.
        ready: file descriptor that gets its process id.

    Returns:
        The arguments of its command.
    """
    import numpy as np

    os.setsid()
    while os.getppid() == middle:
        time.sleep(0.001)
    end_with_parent()
    if os.getppid() != launcher:  # it has ended already
        os._exit(1)
    log = os.open(str(request["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    environment, arguments = request["environment"], request["arguments"]
    assert isinstance(environment, dict) and isinstance(arguments, list)
    os.environ.clear()
    os.environ.update(environment)
    np.random.seed()  # from the system, as in a fresh process; Python does so for its own generator
    os.write(ready, str(os.getpid()).encode())
    os.close(ready)
    return arguments


def _import_everything() -> None:
    """Import what a job imports, and let Hydra read its plugins and parse a config."""
    from ..reporting import page
    from ..training import callbacks, checkpoints, evaluate_run, lightning_module, run
    from . import reuse, sweep
    from .compose import compose_one

    del page, callbacks, checkpoints, evaluate_run, lightning_module, run, reuse, sweep
    for name in LATE:
        import_module(name)
    compose_one([])


def _may_fork() -> bool:
    """Whether children can be forked: no Python thread runs, and the GPUs' driver is not loaded, as it would be useless
    in a child.
    """
    return threading.active_count() == 1 and "/libcuda.so" not in Path("/proc/self/maps").read_text()


def main() -> None:
    """Serve; in a job, be ``python -m src.train``."""
    arguments = _serve()
    if arguments is not None:
        sys.argv[1:] = arguments
        runpy.run_module(f"{PACKAGE}.train", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
