"""Sweeps through a real SLURM, a private one on this machine: ``make test-slurm``."""
