"""Run every study and put all verdicts into one table.

    python -m src.answers preset=quick                     every study of sweeps/, small: under an hour on 2 cores
    python -m src.answers preset=full                      as large as the claims deserve: on a GPU
    python -m src.answers studies=q1_what_over_where,q3_stride
    python -m src.answers run=false                        the table again, from finished studies

A study is a named sweep that states claims. Each runs by its own command, two or more jobs at a time
(hydra/launcher=local); what is finished is kept, so the same command goes on after an interruption. The table goes to
docs/answers.md, the verdicts of each study to docs/answers/.

options: preset=quick|full  studies=all|NAME,NAME  run=true|false  launcher=local|slurm|basic  out=FOLDER
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Options:
    """Options of the command line."""

    preset: str = "quick"
    studies: str = "all"
    run: bool = True
    launcher: str = "local"
    out: str = "docs"


def main() -> None:
    """Run the studies one after the other, with a line each; then write the table."""
    from .config import cli_errors, from_command_line

    with cli_errors():
        options = from_command_line(Options, sys.argv[1:], __doc__ or "")
        from .launch.sweep import OUTPUTS, study_names
        from .reporting.answers import collect, write_answers
        from .reporting.terminal import console

        names = study_names(options.studies)
        failed = []
        for name in names:
            folder = OUTPUTS / name if options.preset == "quick" else OUTPUTS / f"{name},preset={options.preset}"
            if options.run and not run_study(name, options, folder):
                failed.append(name)
            collect(name, folder, Path(options.out))
        console.print(f"  {write_answers(Path(options.out))}", markup=False)
        if failed:
            console.print(f"  failed: {', '.join(failed)}; their output: {OUTPUTS}/answers/", markup=False)
            raise SystemExit(1)


def run_study(name: str, options: Options, folder: Path) -> bool:
    """Run one study by its command, with its output in a log; whether it ended well."""
    from .launch.sweep import OUTPUTS
    from .naming import command_words
    from .reporting.answers import progress_line
    from .reporting.terminal import console

    log = OUTPUTS / "answers" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    words = [*command_words("train"), "-m", f"sweeps={name}", f"hydra/launcher={options.launcher}"]
    words += [f"preset={options.preset}"] * (options.preset != "quick")
    start = time.monotonic()
    with log.open("w") as output, console.status(name) as status:
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT)
        try:
            while process.poll() is None:
                status.update(f"{name}  {progress_line(folder)}")
                time.sleep(0.5)
        except BaseException:
            process.terminate()
            process.wait()
            raise
    minutes = (time.monotonic() - start) / 60
    console.print(f"  {name}  {progress_line(folder)}  {minutes:.1f} min", markup=False)
    return process.returncode == 0


if __name__ == "__main__":
    main()
