"""The commands of the lab by their names: ``whatwhere train …`` is ``python -m src.train …`` of a checkout.

    whatwhere train -m model.pool=max,avg,none     train and measure one net, or every net of a sweep
    whatwhere measure net=torchvision/resnet18     measure any net, or a finished run again
    whatwhere report runs=outputs/SWEEP            compare finished runs: table, page, W&B Report
    whatwhere answers preset=quick                 run every study, and put all verdicts into one table
    whatwhere shapes model.depth=4                 the model summary of a config
    whatwhere pools                                all poolings: formula, cost, where each is exact

whatwhere COMMAND --help says more of each.
"""

import sys
from importlib import import_module

from .common.errors import did_you_mean

COMMANDS = ("train", "measure", "report", "answers", "shapes", "pools")


def main() -> None:
    """Run the command that the first word names."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("-h", "--help"):
        print((__doc__ or "").strip())
        raise SystemExit(0 if len(sys.argv) > 1 else 2)
    if name not in COMMANDS:
        meant = did_you_mean(name, COMMANDS)
        print(f"error: {name}: no such command; {meant}choose one of {', '.join(COMMANDS)}", file=sys.stderr)
        raise SystemExit(2)
    sys.argv[:2] = [f"whatwhere {name}"]
    import_module(f".{name}", __package__).main()


if __name__ == "__main__":
    main()
