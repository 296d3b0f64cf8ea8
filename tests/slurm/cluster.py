"""A SLURM of one node from Debian's packages, in one folder: no systemd, no cgroups, nothing in /etc is read.

Its daemons run in the foreground as children of this process, so that they end with it. GPUs are device files that
stand for some; jobs get CUDA_VISIBLE_DEVICES for them.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge".split()
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
CPUS, GPUS = 2, 2


def why_not() -> str | None:
    """What stands in the way of a SLURM here; None: nothing."""
    if os.geteuid() != 0:
        return "a private SLURM needs root"
    if not all(map(shutil.which, NEEDED)) and shutil.which("apt-get") is None:
        return "SLURM is not installed, and this is no Debian to install it from"
    return None


def install() -> None:
    """Get Debian's packages, where they are not here yet."""
    if all(map(shutil.which, NEEDED)):
        return
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for words in (["update"], ["install", "--yes", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", "-qq", *words], check=True, env=environment, stdout=subprocess.DEVNULL)


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait(what: str, done: Callable[[], bool], seconds: float = 300) -> None:
    """Until it is so.

    Raises:
        TimeoutError: it was not in that time.
    """
    until = time.monotonic() + seconds
    while not done():
        if time.monotonic() > until:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.2)


def _works(*command: str, environment: dict[str, str]) -> bool:
    try:
        done = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=10)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def _configure(folder: Path, host: str) -> None:
    gpus = [folder / f"gpu{i}" for i in range(GPUS)]
    for one in gpus:
        os.mknod(one, 0o20666, os.makedev(1, 3))  # character devices, as SLURM takes no plain files for GPUs
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    # A job that is queued again starts after twice cred_expire; a node may believe in more CPUs than it has.
    (folder / "slurm.conf").write_text(f"""
ClusterName=private
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={free_port()}
SlurmdPort={free_port()}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
MinJobAge=600
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={CPUS} RealMemory=4000 Gres=gpu:{GPUS} State=UNKNOWN
PartitionName=usual Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=40
PartitionName=urgent Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
""")


@contextmanager
def private_slurm(folder: Path) -> Iterator[dict[str, str]]:
    """Bring it up; take it down again, whatever happened inside.

    Args:
        folder: an empty one, for all that it keeps.

    Yields:
        The environment in which SLURM's commands find it.
    """
    install()
    host = socket.gethostname().split(".")[0]
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    folder.chmod(0o755)
    shutil.copy(Path(__file__).with_name("sacct"), folder / "bin")
    _configure(folder, host)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
    environment |= {"SLURM_CONF": f"{folder}/slurm.conf", "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    daemons: list[subprocess.Popen[bytes]] = []

    def begin(name: str, *options: str) -> None:
        with (folder / f"{name}.log").open("wb") as log:
            daemons.append(subprocess.Popen([name, *options], env=environment, stdout=log, stderr=log))

    socket_ = f"{folder}/munge.socket"
    try:
        begin(
            "munged",
            "--foreground",
            f"--key-file={folder}/munge.key",
            f"--socket={socket_}",
            f"--pid-file={folder}/munged.pid",
            f"--seed-file={folder}/munged.seed",
            f"--log-file={folder}/munged.out",
        )
        wait("munged", lambda: _works("munge", "-n", "-S", socket_, environment=environment))
        begin("slurmctld", "-D")
        wait("slurmctld", lambda: _works("scontrol", "ping", environment=environment))
        begin("slurmd", "-D")
        idle = ["sh", "-c", "sinfo --noheader --format=%T | grep -q idle"]
        wait("the node", lambda: _works(*idle, environment=environment))
        yield environment
    finally:
        if len(daemons) == 3:
            _works("scancel", "--user=root", environment=environment)
            free = ["sh", "-c", "! squeue --noheader --states=running,completing | grep -q ."]
            try:
                wait("the jobs to end", lambda: _works(*free, environment=environment), 30)
            except TimeoutError as late:
                print(late)
        for daemon in reversed(daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(daemons):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
