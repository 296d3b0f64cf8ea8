"""Whether a net can be trained here as ``trainer`` says; refused before anything is loaded."""

import logging
import os
import warnings
from dataclasses import asdict

from ..common.errors import UserError
from ..config.schema import Trainer
from .ranks import forget_ranks, is_main_process

#: variables of the environment by which what starts a run on several machines is known
CLUSTERS = ("SLURM_NTASKS", "TORCHELASTIC_RUN_ID", "MASTER_ADDR", "LSB_JOBID", "OMPI_COMM_WORLD_SIZE")
#: strategies that give each process a part of the weights, which are measured and saved whole
SHARDED = ("fsdp", "deepspeed", "xla_fsdp")
#: what Lightning takes on any machine: it is not asked, as it takes seconds to import
ANYWHERE = {"accelerator": ("auto", "cpu"), "strategy": ("auto", "ddp")}


def check_trainer(options: Trainer) -> None:
    """Let Lightning choose devices by these options; ``UserError`` in a line where it cannot, or where it would wait
    for processes that are never started. The first process checks for all ranks.
    """
    forget_ranks(options.devices * options.num_nodes)
    default = asdict(Trainer())
    given = {key: value for key, value in asdict(options).items() if value != default[key] and key != "save_minutes"}
    if not is_main_process() or all(value in ANYWHERE.get(key, ()) for key, value in given.items()):
        return
    said = ", ".join(f"trainer.{key}={value}" for key, value in given.items())
    if options.num_nodes > 1 and not any(name in os.environ for name in CLUSTERS):
        raise UserError(f"{said}: several machines need a scheduler that starts them, as srun does; there is none here")
    if options.strategy.startswith(SHARDED):
        raise UserError(f"{said}: each process needs the whole net; take ddp, or auto")
    from lightning.pytorch import Trainer as LightningTrainer
    from lightning.pytorch.accelerators import CPUAccelerator

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    arguments = {key: value for key, value in asdict(options).items() if key != "save_minutes"}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer = LightningTrainer(**arguments, logger=False, enable_checkpointing=False, enable_progress_bar=False)
    except Exception as error:  # each of its parts raises its own types
        raise UserError(f"{said}: {' '.join(str(error).split())[:300] or type(error).__name__}") from error
    cores = max(os.cpu_count() or 1, 2)
    if isinstance(trainer.accelerator, CPUAccelerator) and options.devices > cores:
        raise UserError(f"{said}: on a CPU each is a process of its own; this machine has {cores} cores")
