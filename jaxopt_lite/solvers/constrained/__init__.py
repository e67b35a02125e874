"""Solvers for problems with constraints."""

from .augmented_lagrangian import AugmentedLagrangian
from .bounded import LBFGSB, ProjectedGradient
from .interior_point import InteriorPoint
from .simplex import FrankWolfe, MirrorDescent
from .sqp import SQP
from .tron import TRON

__all__ = [
    "LBFGSB",
    "SQP",
    "TRON",
    "AugmentedLagrangian",
    "FrankWolfe",
    "InteriorPoint",
    "MirrorDescent",
    "ProjectedGradient",
]
