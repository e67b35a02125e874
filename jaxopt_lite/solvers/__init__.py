"""Every solver, by family."""

from .default import choose
from .equations import ITP, Anderson, Bisection, Brent, Broyden, Chord, NewtonRoot, Picard
from .smooth import LBFGS, FixedStep, GradientDescent, Optax, TrustRegion

__all__ = [
    "ITP",
    "LBFGS",
    "Anderson",
    "Bisection",
    "Brent",
    "Broyden",
    "Chord",
    "FixedStep",
    "GradientDescent",
    "NewtonRoot",
    "Optax",
    "Picard",
    "TrustRegion",
    "choose",
]
