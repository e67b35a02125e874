"""Solvers for smooth problems without constraints."""

from .gradient_descent import FixedStep, GradientDescent
from .lbfgs import LBFGS
from .least_squares import Dogleg, LevenbergMarquardt
from .optax_bridge import Optax
from .trust_region import TrustRegion

__all__ = [
    "LBFGS",
    "Dogleg",
    "FixedStep",
    "GradientDescent",
    "LevenbergMarquardt",
    "Optax",
    "TrustRegion",
]
