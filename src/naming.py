"""What the package is called here: ``src`` in a checkout, ``whatwhere`` where it is installed."""

PACKAGE = __name__.partition(".")[0]


def command(name: str) -> str:
    """How a person starts a command: ``python -m src.train`` in a checkout, else ``whatwhere train``."""
    return f"python -m {PACKAGE}.{name}" if PACKAGE == "src" else f"{PACKAGE} {name}"


def commands_here(text: str) -> str:
    """A text that names commands of a checkout, as it is right here.

    >>> commands_here("python -m src.report runs=outputs")
    'python -m src.report runs=outputs'
    """
    return text if PACKAGE == "src" else text.replace("python -m src.", f"{PACKAGE} ")
