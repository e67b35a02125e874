"""Solvers for problems with constraints."""

from .bounded import LBFGSB
from .interior_point import InteriorPoint

__all__ = ["LBFGSB", "InteriorPoint"]
