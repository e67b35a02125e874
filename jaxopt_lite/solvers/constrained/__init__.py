"""Solvers for problems with constraints."""

from .augmented_lagrangian import AugmentedLagrangian
from .bounded import LBFGSB
from .interior_point import InteriorPoint

__all__ = ["LBFGSB", "AugmentedLagrangian", "InteriorPoint"]
