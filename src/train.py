"""Train and measure one net, or every net of a sweep.

    python -m src.train model.pool=blur             one run
    python -m src.train -m model.pool=max,avg,none  a sweep; a key takes a list
    python -m src.train -m sweeps=pooling           a named sweep, see sweeps/
    python -m src.train -m name=mine seed=0,1,2     the same in outputs/mine
    python -m src.train --cfg job                   all keys, with defaults

The same command finds its folder again: finished runs are kept, an interrupted
one goes on. A sweep can grow by seeds, axes and (with train.schedule=constant)
epochs: what is finished anywhere below outputs/ is found by what it is, and
used.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .launch.sweep import Plan


def main() -> None:
    """Check every job, run them, compare them."""
    from .common.cli_errors import cli_errors

    with cli_errors():
        from .launch import sweep
        from .launch.compose import SEARCHPATH, run_hydra

        made = sweep.plan(sys.argv[1:])
        if {"-h", "--help"} & set(sys.argv[1:]):
            from .launch.help import help_text

            print(help_text(__doc__ or ""))
        elif made is None:  # --cfg …
            run_hydra([SEARCHPATH])
        elif made.looks:
            add_seeds_until_decided(sys.argv[1:], made.looks)
        elif made.multirun:
            run_sweep(made, sys.argv[1:])
        else:
            run_single(made)


def run_sweep(made: "Plan", arguments: list[str]) -> None:
    """Run the jobs of a sweep and compare them."""
    from .common.errors import Interrupted
    from .launch import sweep
    from .launch.compose import run_hydra
    from .launch.reuse import reuse
    from .results.locks import folder_lock

    with folder_lock(made.folder):
        if made.store:
            reuse(made.jobs, made.store)
        sweep.start(made, arguments)  # it says how many runs were finished when claims are stated, reused ones too
        failure: BaseException | None = None
        try:
            run_hydra(made.arguments)
        except Interrupted:  # a signal: end at once, without a comparison
            raise
        except BaseException as error:  # finished runs are compared all the same
            failure = error
        sweep_ends(made.folder, failure)


def add_seeds_until_decided(arguments: list[str], looks: list[int]) -> None:
    """Run a sweep with more and more seeds, until each of its claims has a verdict.

    Every look spends its part of the error probability (``stats.decisions.spent``): the verdict of the last look is as
    sure as one by a number of seeds that was fixed before.
    """
    from .claims.record import undecided
    from .launch import sweep
    from .stats.decisions import spent

    program = sys.argv[0]
    for seeds, alpha in zip(looks, spent(looks, looks[-1]), strict=True):
        sys.argv = [program, *arguments, f"++hydra.sweeper.params.seed='range({seeds})'"]
        made = sweep.plan(sys.argv[1:])
        assert made is not None
        if seeds < looks[-1] and sweep.has_seeds_from(made.folder, seeds):
            continue  # interrupted after this look, which decided nothing: one more at its α would not be planned
        run_sweep(replace(made, alpha=alpha), arguments)
        if not undecided(made.folder):
            return


def run_single(made: "Plan") -> None:
    """Run the one job of a command line, and write its page."""
    from .launch.reuse import reuse
    from .reporting.page import write_run_page
    from .results import files
    from .training.ranks import is_main_process
    from .training.run import run

    ((folder, cfg),) = made.jobs.items()
    if made.store and cfg.trainer.devices * cfg.trainer.num_nodes == 1:  # else other ranks have started already
        reuse(made.jobs, made.store)
    run(cfg, folder)
    if is_main_process() and not (folder.parent / files.SWEEP).exists():  # else it is on the sweep's page
        write_run_page(folder)


def sweep_ends(folder: Path, failure: BaseException | None) -> None:
    """Compare what is finished; then say what failed, whose traceback lies in the run's ``failed.txt``."""
    from .common.errors import UserError
    from .reporting.page import build_report

    try:
        build_report(folder)
    except UserError as error:  # nothing is finished
        if failure is None:
            raise
        if not isinstance(failure, KeyboardInterrupt):
            print(error, file=sys.stderr)
    except OSError as error:  # a full disk; it must not hide what else failed
        print(f"the comparison could not be written: {error}", file=sys.stderr)
        failure = failure or error
    if isinstance(failure, UserError) or not isinstance(failure, Exception | None):
        raise failure
    if failure is not None:
        print(
            f"\nfailed: {type(failure).__name__}: {failure}; the traceback is in the run's failed.txt", file=sys.stderr
        )
        raise SystemExit(1)


if __name__ == "__main__":
    main()
