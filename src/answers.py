"""Run every study and put all verdicts into one table.

    python -m src.answers preset=quick
                            every study, small: about an hour on 2 cores
    python -m src.answers preset=full
                            as large as the claims deserve: on a GPU
    python -m src.answers studies=q1_what_over_where,q3_stride
    python -m src.answers run=false
                            the table again, from finished studies

A study is a named sweep that states claims, and runs by its own command.
Several run side by side, each in one process on one core (jobs=); what is
finished is kept, so the same command goes on after an interruption. The table
goes to docs/answers.md, the verdicts of each study to docs/answers/.

options: preset=quick|full  studies=all|NAME,NAME  run=true|false  out=FOLDER
         (all: but those with study.separate, which take long)
         jobs=N (studies side by side; by default one per core; with a GPU or a
             cluster: 1)
         launcher=basic|local|slurm (of each study: basic runs its jobs one
             after the other)
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Options:
    """Options of the command line."""

    preset: str = "quick"
    studies: str = "all"
    run: bool = True
    launcher: str = "basic"
    jobs: int | None = None
    out: str = "docs"


def main() -> None:
    """Run the studies, with a line each; then write the table."""
    from .common.cli_errors import cli_errors

    with cli_errors():
        from .config import from_command_line

        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from .launch.jobs import cores
        from .launch.sweep import OUTPUTS, study_names
        from .launch.user_files import choices
        from .reporting.answers import FOLDER, collect, longest_first, write_answers
        from .reporting.terminal import console
        from .results.files import refuse_unwritable

        _refuse_unknown(options)
        refuse_unwritable("out", Path(options.out))
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # studies save, as on Ctrl-C
        studies = {}
        for name in longest_first(study_names(options.studies), Path(options.out) / FOLDER):
            studies[name] = OUTPUTS / (name if options.preset == "quick" else f"{name},preset={options.preset}")
        failed = run_studies(studies, options, options.jobs or cores()) if options.run else []
        for name, folder in studies.items():
            collect(name, folder, Path(options.out))
        page = write_answers(Path(options.out), study_names(), choices("sweeps"))
        console.print(f"  {page}", markup=False, soft_wrap=True)
        if failed:
            console.print(f"  failed: {', '.join(failed)}; their output: {OUTPUTS}/answers/", markup=False)
            raise SystemExit(1)


def _refuse_unknown(options: Options) -> None:
    """``UserError`` for a preset or a launcher that is none, for no studies, and for none at a time."""
    from .common.errors import UserError, did_you_mean
    from .launch.user_files import choices

    if not options.studies:
        raise UserError("studies=: choose all, or name some")
    if options.jobs is not None and options.jobs < 1:
        raise UserError(f"jobs={options.jobs}: must be 1 or more studies side by side")
    for key, names in {"preset": ("quick", "full"), "launcher": ("basic", *choices("hydra/launcher"))}.items():
        if (name := getattr(options, key)) not in names:
            raise UserError(f"{key}={name}: {did_you_mean(name, names)}choose one of {', '.join(names)}")


def run_studies(studies: Mapping[str, Path], options: Options, side_by_side: int) -> list[str]:
    """Run studies (name → the folder of its sweep), some side by side, each by its command and with its output in a
    log; returns those that failed.
    """
    from .reporting.answers import progress_line
    from .reporting.terminal import console

    waiting, running, failed = list(studies), dict[str, tuple[subprocess.Popen[bytes], float]](), list[str]()
    try:
        with console.status("") as status:
            while waiting or running:
                while waiting and len(running) < side_by_side:
                    name = waiting.pop(0)
                    running[name] = start_study(name, options, side_by_side), time.monotonic()
                status.update("; ".join(f"{name}: {progress_line(studies[name])}" for name in running))
                time.sleep(0.5)
                for name, (process, start) in list(running.items()):
                    if process.poll() is not None:
                        del running[name]
                        minutes = (time.monotonic() - start) / 60
                        console.print(f"  {name}: {progress_line(studies[name])}, {minutes:.1f} min", markup=False)
                        failed += [name] * (process.returncode != 0)
    except BaseException:  # they save what they have
        for process, _ in running.values():
            process.terminate()
        for process, _ in running.values():
            process.wait()
        raise
    return failed


def start_study(name: str, options: Options, side_by_side: int) -> "subprocess.Popen[bytes]":
    """Start a study's command."""
    from .common.naming import command_words
    from .launch.jobs import THREADS
    from .launch.sweep import OUTPUTS
    from .training.ranks import end_with_parent

    log = OUTPUTS / "answers" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [*command_words("train"), "-m", f"sweeps={name}", f"hydra/launcher={options.launcher}"]
    words += [f"preset={options.preset}"] * (options.preset != "quick")
    environment = os.environ | (dict.fromkeys(THREADS, "1") if side_by_side > 1 else {})
    with log.open("w", encoding="utf-8") as output:
        return subprocess.Popen(
            words,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            preexec_fn=end_with_parent,  # noqa: PLW1509 (all it does is one system call)
        )


if __name__ == "__main__":
    main()
