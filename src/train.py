"""Train and measure one net, or every net of a sweep.

    python -m src.train model.pool=blur                     one run
    python -m src.train -m model.pool=max,avg,none          a sweep; any key takes a list
    python -m src.train -m sweeps=pooling                   a named sweep, see sweeps/
    python -m src.train -m name=mine seed=0,1,2             the same in outputs/mine
    python -m src.train --cfg job                           the whole config, with its defaults

The same command finds its folder again: finished runs are kept, an interrupted one goes on. A sweep can grow by seeds,
axes and (with train.schedule=constant) epochs: what is finished anywhere below outputs/ is found by what it is, and
used.
"""

import os
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig


@hydra.main(version_base="1.3", config_path="../conf", config_name="config")
def job(cfg: DictConfig) -> None:
    """One job of a sweep, in whatever process a launcher starts it; thin, as launchers pickle it by value."""
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
            sys.argv.append(sweep.SEARCHPATH)
            job()
        elif made.multirun:
            from src.errors import Stopped
            from src.locks import at_work
            from src.reuse import reuse

            with at_work(made.folder):
                sweep.start(made, sys.argv[1:])
                if made.store:
                    reuse(made.jobs, made.store)
                sys.argv += made.arguments
                failure: BaseException | None = None
                try:
                    job()
                except Stopped:  # whoever stops it wants it gone
                    raise
                except BaseException as error:  # what is finished is compared all the same
                    failure = error
                sweep_ends(made.folder, failure)
        else:
            from src import files
            from src.reuse import reuse
            from src.run import is_main_process, run
            from src.views.page import leave_page

            ((folder, cfg),) = made.jobs.items()
            if made.store and cfg.trainer.devices * cfg.trainer.num_nodes == 1:  # else other ranks have begun already
                reuse(made.jobs, made.store)
            run(cfg, folder)
            if is_main_process() and not (folder.parent / files.SWEEP).exists():  # else it is on the sweep's page
                leave_page(folder)


def sweep_ends(folder: Path, failure: BaseException | None) -> None:
    """Compare what is finished; then say what failed, whose traceback lies in the run's ``failed.txt``."""
    from src.errors import Refusal
    from src.views.page import conclude

    try:
        conclude(folder)
    except Refusal as refusal:  # nothing is finished
        if failure is None:
            raise
        print(refusal, file=sys.stderr)
    except OSError as error:  # a full disk; it must not hide what else failed
        print(f"the comparison could not be written: {error}", file=sys.stderr)
        failure = failure or error
    if isinstance(failure, Refusal) or not isinstance(failure, Exception | None):
        raise failure
    if failure is not None:
        print(
            f"\nfailed: {type(failure).__name__}: {failure}; the traceback is in the run's failed.txt", file=sys.stderr
        )
        raise SystemExit(1)


if __name__ == "__main__":
    main()
