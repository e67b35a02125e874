"""Methods for f + nonsmooth: smooth f, and a convex term known by its prox."""

from .proximal_gradient import FISTA, ISTA
from .second_order import ProximalLBFGS, ProximalNewton
from .splitting import ADMM, CondatVu, DouglasRachford

__all__ = [
    "ADMM",
    "FISTA",
    "ISTA",
    "CondatVu",
    "DouglasRachford",
    "ProximalLBFGS",
    "ProximalNewton",
]
