"""Registers the launchers and the sweeper with Hydra, which finds plugins only in packages called ``hydra_plugins``.

Every Hydra application in the same environment imports this file; only this one, run from a checkout (``src``) or
installed (``whatwhere``), gets them.
"""

import sys

_PLUGINS = {"launchers": ("LocalLauncher", "SlurmLauncher"), "sweeper": ("StudySweeper",)}

for _package in ("src", "whatwhere"):
    for _name, _classes in _PLUGINS.items():
        if _module := sys.modules.get(f"{_package}.launch.{_name}"):
            for _class in _classes:
                globals()[_class] = _plugin = getattr(_module, _class)
                _plugin.__module__ = __name__  # by which a config's _target_ finds them
