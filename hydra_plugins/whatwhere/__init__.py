"""Registers the launchers, the sweeper and the search path with Hydra, which finds plugins only in packages called
``hydra_plugins``.

Every Hydra application in the same environment imports this file; only this one, run from a checkout (``src``) or
installed (``whatwhere``), gets them.
"""

import sys

_PLUGINS = {"launchers": ("LocalLauncher", "SlurmLauncher"), "sweeper": ("StudySweeper",), "user_files": ("UserConf",)}

for _package in ("src", "whatwhere"):
    if "IS_WHATWHERE" not in vars(sys.modules.get(_package, object)):  # another application can be called src
        continue
    for _name, _classes in _PLUGINS.items():
        if _module := sys.modules.get(f"{_package}.launch.{_name}"):
            for _class in _classes:
                globals()[_class] = _plugin = getattr(_module, _class)
                _plugin.__module__ = __name__  # by which a config's _target_ finds them
