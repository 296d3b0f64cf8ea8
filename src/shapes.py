"""The shape ledger of a config, from its arithmetic alone: no data, no training, no running.

python -m src.shapes model.depth=4 model.pool=blur
python -m src.shapes model=resnet data=cifar10
"""

import sys

from hydra import compose, initialize_config_dir


def main() -> None:
    """Print it."""
    from src.config import ROOT, from_hydra, refusing
    from src.sweep import config_ledger
    from src.views.terminal import show_ledger

    if {"-h", "--help"} & set(sys.argv[1:]):
        print(__doc__)
        return
    with refusing():
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = from_hydra(compose("config", sys.argv[1:]))
        show_ledger(config_ledger(cfg), " ".join(sys.argv[1:]) or "the default net")


if __name__ == "__main__":
    main()
