"""Hydra looks for launchers in packages of this name, and nowhere else.

Every application of Hydra in the same environment imports this file: only the lab itself, in a checkout (``src``) or
installed (``whatwhere``), gets launchers from it.
"""

import sys

for _package in ("src", "whatwhere"):
    if _launchers := sys.modules.get(f"{_package}.launch.launchers"):
        for _name in ("LocalLauncher", "SlurmLauncher"):
            globals()[_name] = _launcher = getattr(_launchers, _name)
            _launcher.__module__ = __name__  # by which a config's _target_ finds them
