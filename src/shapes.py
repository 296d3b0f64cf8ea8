"""The model summary of a config, without data or training.

    python -m src.shapes model.depth=4 model.pool=blur
    python -m src.shapes model=resnet data=cifar10

Shapes, receptive fields and multiply-adds (MACs) of every layer.
"""

import sys


def main() -> None:
    """Print the model summary of the config that the command line names."""
    from .common.cli_errors import cli_errors
    from .common.naming import commands_here

    if {"-h", "--help"} & set(sys.argv[1:]):
        print(commands_here(__doc__ or "").strip())
        return
    with cli_errors():
        from .launch.compose import compose_one
        from .launch.sweep import summarize_config
        from .reporting.terminal import show_summary

        show_summary(summarize_config(compose_one(sys.argv[1:])), " ".join(sys.argv[1:]) or "the default net")


if __name__ == "__main__":
    main()
