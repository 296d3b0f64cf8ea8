"""Import a user's net by name: ``my_package.my_module:MyNet``."""

import importlib
import operator
import sys
from pathlib import Path

from torch import nn

from ..errors import UserError


def load_own_net(name: str) -> nn.Module:
    """Import a net, ``package.module:attribute``; this runs that module's code.

    The attribute (or nested attribute, ``nets:zoo.small``) is an ``nn.Module``, or a class or function that returns one
    when called without arguments. The current folder is searched first, as by ``python -m``.

    Raises:
        UserError: there is no such module or attribute, it fails, or gives no ``nn.Module``.
    """
    module, _, path = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise UserError(f"net={name}: write MODULE:NAME, as Python imports it: my_package.my_module:MyNet")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        net = operator.attrgetter(path)(importlib.import_module(module))
        net = net if isinstance(net, nn.Module) else net()
    except Exception as error:  # a user's code can raise anything
        raise UserError(f"net={name}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    if not isinstance(net, nn.Module):
        raise UserError(f"net={name}: gives a {type(net).__name__}, where an nn.Module is needed")
    return net
