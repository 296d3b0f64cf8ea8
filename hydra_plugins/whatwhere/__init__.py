"""Hydra looks for launchers in packages of this name, and nowhere else."""

from src.launch.launchers import LocalLauncher, SlurmLauncher

for _one in (LocalLauncher, SlurmLauncher):
    _one.__module__ = __name__  # by which a config's _target_ finds them
