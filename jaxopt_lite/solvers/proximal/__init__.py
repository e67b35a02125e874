"""Methods for f + nonsmooth: smooth f, and a convex term known by its prox."""

from .coordinate import BlockCoordinateDescent, CoordinateDescent
from .proximal_gradient import FISTA, ISTA
from .second_order import ProximalLBFGS, ProximalNewton
from .splitting import ADMM, CondatVu, DouglasRachford
from .subgradient import Subgradient

__all__ = [
    "ADMM",
    "FISTA",
    "ISTA",
    "BlockCoordinateDescent",
    "CondatVu",
    "CoordinateDescent",
    "DouglasRachford",
    "ProximalLBFGS",
    "ProximalNewton",
    "Subgradient",
]
