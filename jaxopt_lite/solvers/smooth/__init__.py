"""Solvers for smooth problems without constraints."""

from .bfgs import BFGS
from .cubic import CubicNewton
from .gauss_newton import GaussNewton, NaturalGradient
from .gradient_descent import FixedStep, GradientDescent, PolyakStep
from .lbfgs import LBFGS
from .least_squares import Dogleg, LevenbergMarquardt
from .momentum import HeavyBall, Nesterov
from .newton import Newton, NewtonCG
from .nonlinear_cg import NonlinearCG
from .optax_bridge import Optax
from .perturbed import PerturbedGradientDescent
from .saddle_free import SaddleFreeNewton
from .sr1 import SR1
from .trust_region import TrustRegion

__all__ = [
    "BFGS",
    "LBFGS",
    "SR1",
    "CubicNewton",
    "Dogleg",
    "FixedStep",
    "GaussNewton",
    "GradientDescent",
    "HeavyBall",
    "LevenbergMarquardt",
    "NaturalGradient",
    "Nesterov",
    "Newton",
    "NewtonCG",
    "NonlinearCG",
    "Optax",
    "PerturbedGradientDescent",
    "PolyakStep",
    "SaddleFreeNewton",
    "TrustRegion",
]
