"""Registers the launchers with Hydra, which finds plugins only in packages called ``hydra_plugins``.

Every Hydra application in the same environment imports this file; only this one, run from a checkout (``src``) or
installed (``whatwhere``), gets the launchers.
"""

import sys

for _package in ("src", "whatwhere"):
    if _launchers := sys.modules.get(f"{_package}.launch.launchers"):
        for _name in ("LocalLauncher", "SlurmLauncher"):
            globals()[_name] = _launcher = getattr(_launchers, _name)
            _launcher.__module__ = __name__  # by which a config's _target_ finds them
