"""Import a user's net by name: ``my_package.my_module:MyNet``."""

import importlib
import operator
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from ..common.errors import UserError, did_you_mean
from .hooks import first_line


def load_own_net(name: str) -> nn.Module:
    """Import a net, ``package.module:attribute``; this runs that module's code.

    The attribute (or nested attribute, ``nets:zoo.small``) is an ``nn.Module``, or a class or function that returns one
    when called without arguments. The current folder is searched first, as by ``python -m``.

    Raises:
        UserError: there is no such module or attribute, it fails, or gives no ``nn.Module``.
    """
    module, path = own_parts(name)
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        net = _built(name, _attribute(name, _imported(name, module), path))
    finally:
        sys.path.remove(here)
    if not isinstance(net, nn.Module):
        raise UserError(f"net={name}: gives a {type(net).__name__}, where an nn.Module is needed")
    return net


def own_parts(name: str) -> tuple[str, str]:
    """The module and the attribute; ``UserError`` if these are no names."""
    module, _, path = name.partition(":")
    if not all(part.isidentifier() for part in [*module.split("."), *path.split(".")]):
        raise UserError(f"net={name}: write MODULE:NAME, as Python imports it: my_package.my_module:MyNet")
    return module, path


def _imported(name: str, module: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            raise UserError(f"net={name}: there is no module {missing}, in this folder or installed") from error
        raise UserError(f"net={name}: {module} needs the module {missing}, which is not installed") from error
    except (Exception, SystemExit) as error:  # a user's code can raise anything; a script ends, as by argparse
        raise UserError(f"net={name}: {module} cannot be imported ({first_line(error)})") from error


def _attribute(name: str, module: ModuleType, path: str) -> Any:
    try:
        return operator.attrgetter(path)(module)
    except AttributeError as error:
        meant = did_you_mean(path, vars(module))
        raise UserError(f"net={name}: {module.__name__} has no {path}; {meant}".rstrip("; ")) from error


def _built(name: str, net: Any) -> Any:
    """The net itself, or what a class or function gives."""
    if isinstance(net, nn.Module):
        return net
    if not callable(net):
        kind = type(net).__name__
        raise UserError(
            f"net={name}: is a {kind}, where an nn.Module, or a class or function that gives one, is needed"
        )
    try:
        return net()
    except (Exception, SystemExit) as error:
        raise UserError(f"net={name}: calling it without arguments fails ({first_line(error)})") from error
