"""Methods for f + nonsmooth: smooth f, and a convex term known by its prox."""

from .proximal_gradient import FISTA, ISTA
from .second_order import ProximalLBFGS, ProximalNewton

__all__ = ["FISTA", "ISTA", "ProximalLBFGS", "ProximalNewton"]
