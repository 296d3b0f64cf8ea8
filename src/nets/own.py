"""A net of a user's own, by the name that Python imports it by: ``my_package.my_module:MyNet``."""

import importlib
import sys
from pathlib import Path

from torch import nn

from ..errors import UserError


def load_own_net(name: str) -> nn.Module:
    """Import a net: a module instance, or a class or function that gives one when it is called without arguments.

    The current folder is searched first, as by ``python -m``. This runs the code of that module, as any import does.

    Args:
        name: ``package.module:attribute``; the attribute may have parts, ``nets:zoo.small``.

    Raises:
        UserError: there is no such module or attribute, it fails, or gives no ``nn.Module``.
    """
    module, _, path = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise UserError(f"net={name}: write MODULE:NAME, as Python imports it: my_package.my_module:MyNet")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        found = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        net = found if isinstance(found, nn.Module) else found()  # type: ignore[operator]
    except Exception as error:  # a user's code can raise anything
        raise UserError(f"net={name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if not isinstance(net, nn.Module):
        raise UserError(f"net={name}: gives a {type(net).__name__}, where an nn.Module is needed")
    return net
