"""Options of the entry points that need no config tree: ``key=value`` words into a dataclass."""

from typing import TypeVar

from omegaconf import OmegaConf

from ..common.cli_errors import omegaconf_errors
from ..common.errors import UserError
from ..common.naming import commands_here

Arguments = TypeVar("Arguments")


def from_command_line(schema: type[Arguments], arguments: list[str], usage: str) -> Arguments:
    """``key=value`` words into a dataclass of plain options, for the entry points that need no config tree.

    A value is taken as it stands, but for ``null``; of a group, as Hydra has it, ``data=folder`` is its name.
    """
    if not arguments or {"-h", "--help"} & set(arguments):
        print(commands_here(usage).strip())
        raise SystemExit(0 if arguments else 2)
    for word in arguments:
        if "=" not in word:
            raise UserError(f"{word}: options are written key=value; see --help")
    with omegaconf_errors():
        merged = OmegaConf.structured(schema)
        for key, value in (word.split("=", 1) for word in arguments):
            group = key in merged and OmegaConf.is_config(merged[key])
            OmegaConf.update(merged, f"{key}.name" if group else key, None if value == "null" else value)
        missing = sorted(OmegaConf.missing_keys(merged))
        if missing:
            raise UserError(f"{', '.join(f'{key}=' for key in missing)} is needed; see --help")
        return OmegaConf.to_object(merged)  # type: ignore[return-value]
