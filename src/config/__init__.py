"""The configuration: typed, checked, and refused in one line where it is wrong."""

from ..common.cli_errors import cli_errors, omegaconf_errors
from ..data.options import Data, Probe
from ..models.options import Model
from .command_line import from_command_line
from .convert import fitting_name, flatten, format_override, from_dict, from_omegaconf, plain_name, to_dict
from .schema import COMMAND_KEYS, MEASURE_NAMES, MEASURES, NON_IDENTITY_KEYS, Config
from .study import PAIRS, QUICK, Claim, Command, Contrast, Reading, Study, study_of

__all__ = [
    "COMMAND_KEYS",
    "MEASURES",
    "MEASURE_NAMES",
    "NON_IDENTITY_KEYS",
    "PAIRS",
    "QUICK",
    "Claim",
    "Command",
    "Config",
    "Contrast",
    "Data",
    "Model",
    "Probe",
    "Reading",
    "Study",
    "cli_errors",
    "fitting_name",
    "flatten",
    "format_override",
    "from_command_line",
    "from_dict",
    "from_omegaconf",
    "omegaconf_errors",
    "plain_name",
    "study_of",
    "to_dict",
]
