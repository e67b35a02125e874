"""Every solver, by family."""

from .default import choose
from .equations import ITP, Anderson, Bisection, Brent, Broyden, Chord, NewtonRoot, Picard
from .smooth import (
    LBFGS,
    Dogleg,
    FixedStep,
    GaussNewton,
    GradientDescent,
    HeavyBall,
    LevenbergMarquardt,
    NaturalGradient,
    Nesterov,
    NonlinearCG,
    Optax,
    PerturbedGradientDescent,
    PolyakStep,
    TrustRegion,
)

__all__ = [
    "ITP",
    "LBFGS",
    "Anderson",
    "Bisection",
    "Brent",
    "Broyden",
    "Chord",
    "Dogleg",
    "FixedStep",
    "GaussNewton",
    "GradientDescent",
    "HeavyBall",
    "LevenbergMarquardt",
    "NaturalGradient",
    "Nesterov",
    "NewtonRoot",
    "NonlinearCG",
    "Optax",
    "PerturbedGradientDescent",
    "Picard",
    "PolyakStep",
    "TrustRegion",
    "choose",
]
