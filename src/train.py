"""Train and measure one net, or every net of a sweep.

    python -m src.train model.pool=blur                     one run
    python -m src.train -m model.pool=max,avg,none          a sweep; any key takes a list
    python -m src.train -m sweeps=pooling                   a named sweep, see sweeps/
    python -m src.train --cfg job                           the whole config, with its defaults

The same command finds its folder again: finished runs are kept, an interrupted one goes on.
"""

import os
import sys

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def job(cfg: DictConfig) -> None:
    """One job of a sweep, in whatever process a launcher starts it; thin, as launchers pickle it by value."""
    from pathlib import Path

    from hydra.core.hydra_config import HydraConfig

    from src.config import from_hydra
    from src.run import run

    run(from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Check every job, run them, compare them."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra passes errors on, instead of ending the process itself
    from src.config import refusing

    with refusing():
        from src import sweep

        made = sweep.plan(sys.argv[1:])
        if made is None:  # --help, --cfg …
            job()
        elif made.multirun:
            sweep.start(made, sys.argv[1:])
            sys.argv += made.arguments
            try:
                job()
            finally:
                from src.views.page import conclude

                conclude(made.folder)
        else:
            from src.run import run

            ((folder, cfg),) = made.jobs.items()
            run(cfg, folder)


if __name__ == "__main__":
    main()
