"""A SLURM of two nodes from Debian's packages, in one folder: no systemd, no cgroups, nothing in /etc is read.

Both nodes are this machine. The daemons run in the foreground as children of this process, so that they end with it.
GPUs are device files that stand for some; jobs get CUDA_VISIBLE_DEVICES for them.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PACKAGES = "slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge".split()
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scancel", "scontrol")
CPUS, GPUS = 2, 2
HOST = socket.gethostname().split(".")[0]
NODES = (HOST, "localhost")  # names by which their ranks find each other


def why_not() -> str | None:
    """What stands in the way of a SLURM here; None: nothing."""
    if os.geteuid() != 0:
        return "a private SLURM needs root"
    if HOST == "localhost":
        return "a SLURM of two nodes needs two names for this machine"
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


def _configure(folder: Path) -> None:
    gpus = [folder / f"gpu{i}" for i in range(GPUS)]
    for gpu in gpus:
        os.mknod(gpu, 0o20666, os.makedev(1, 3))  # character devices, as SLURM takes no plain files for GPUs
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-{GPUS - 1}]\n")
    (folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    nodes = "\n".join(
        f"NodeName={node} NodeHostname={HOST} NodeAddr=127.0.0.1 Port={free_port()} CPUs={CPUS} RealMemory=4000 "
        f"Gres=gpu:{GPUS} State=UNKNOWN"
        for node in NODES
    )
    # A job that is queued again starts after twice cred_expire; a node may believe in more CPUs than it has; one that
    # has not answered for SlurmdTimeout is down. With pgid, signals reach what SLURM started and not what that started,
    # as with the cgroups of most clusters.
    (folder / "slurm.conf").write_text(f"""
ClusterName=private
SlurmctldHost={HOST}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
SlurmctldPort={free_port()}
SlurmdTimeout=15
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
MinJobAge=600
GresTypes=gpu
{nodes}
PartitionName=usual Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=40
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
""")


class Cluster:
    """Its daemons, and what goes wrong with its nodes.

    Args:
        folder: an empty one, for all that it keeps.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM")}
        #: in which SLURM's commands find it
        self.environment = kept | {"SLURM_CONF": f"{folder}/slurm.conf"}

    def start(self) -> None:
        """Bring it up."""
        socket_ = f"{self.folder}/munge.socket"
        self._begin(
            "munged",
            "--foreground",
            f"--key-file={self.folder}/munge.key",
            f"--socket={socket_}",
            f"--pid-file={self.folder}/munged.pid",
            f"--seed-file={self.folder}/munged.seed",
            f"--log-file={self.folder}/munged.out",
        )
        wait("munged", lambda: self._works("munge", "-n", "-S", socket_))
        self._begin("slurmctld", "-D")
        wait("slurmctld", lambda: self._works("scontrol", "ping"))
        for node in NODES:
            self.find(node)

    def stop(self) -> None:
        """Take it down, with all its jobs."""
        if set(NODES) <= set(self.daemons):
            self._works("scancel", "--user=root")
            try:
                free = ["sh", "-c", "! squeue --noheader --states=running,completing | grep -q ."]
                wait("the jobs to end", lambda: self._works(*free), 30)
            except TimeoutError as late:
                print(late)
        for daemon in reversed(self.daemons.values()):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self.daemons.values()):
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def ask(self, *command: str) -> str:
        """What a command of SLURM says."""
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def lose(self, node: str) -> None:
        """Pull its plug: nothing that runs there says or saves anything any more."""
        self.daemons[node].kill()
        self.daemons[node].wait()
        jobs = [pid for pid, words in processes("environ") if {f"SLURMD_NODENAME={node}", self._conf} <= words]
        keepers = {_parent(pid) for pid in jobs} & {pid for pid, words in processes("environ") if self._conf in words}
        for pid in [*keepers.difference(jobs), *jobs]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def find(self, node: str) -> None:
        """Start it, and wait until it may be used."""
        self._begin(node, "-D", "-N", node, program="slurmd")
        idle = ["sh", "-c", f"sinfo --noheader --nodes={node} --format=%T | grep -q ^idle$"]
        wait(f"node {node}", lambda: self._works(*idle))

    @property
    def _conf(self) -> str:
        return f"SLURM_CONF={self.folder}/slurm.conf"

    def _begin(self, name: str, *options: str, program: str = "") -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [program or name, *options]
            self.daemons[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def _works(self, *command: str) -> bool:
        try:
            done = subprocess.run(command, env=self.environment, capture_output=True, check=False, timeout=10)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def processes(what: str) -> Iterator[tuple[int, set[str]]]:
    """Every process with the words of its ``environ`` or ``cmdline``."""
    for path in Path("/proc").glob(f"[0-9]*/{what}"):
        with suppress(OSError):  # it has ended
            yield int(path.parent.name), set(path.read_text(errors="replace").split("\0"))


def _parent(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return 0


@contextmanager
def private_slurm(folder: Path) -> Iterator[Cluster]:
    """Bring one up; take it down again, whatever happened inside.

    Args:
        folder: an empty one, for all that it keeps.
    """
    install()
    (folder / "state").mkdir()
    folder.chmod(0o755)
    _configure(folder)
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
