"""Solvers for smooth problems without constraints."""

from .gauss_newton import GaussNewton, NaturalGradient
from .gradient_descent import FixedStep, GradientDescent, PolyakStep
from .lbfgs import LBFGS
from .least_squares import Dogleg, LevenbergMarquardt
from .momentum import HeavyBall, Nesterov
from .nonlinear_cg import NonlinearCG
from .optax_bridge import Optax
from .perturbed import PerturbedGradientDescent
from .trust_region import TrustRegion

__all__ = [
    "LBFGS",
    "Dogleg",
    "FixedStep",
    "GaussNewton",
    "GradientDescent",
    "HeavyBall",
    "LevenbergMarquardt",
    "NaturalGradient",
    "Nesterov",
    "NonlinearCG",
    "Optax",
    "PerturbedGradientDescent",
    "PolyakStep",
    "TrustRegion",
]
