"""Families of measures beside transforms. The file's name is its registration, and its name in ``measure.what``.

A family's file has ``rows(model, images)``, which gives what is measured.
"""

from ...registry import registered

FAMILIES = registered(__file__, ("rolls", "crops", "velocity", "aliasing", "layers", "field", "units"))
