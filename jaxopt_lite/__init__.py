"""jaxopt_lite: solve, certify, differentiate and look at optimisation problems in JAX."""

from . import implicit
from .core import (
    Multipliers,
    Point,
    Problem,
    Residuals,
    Solution,
    SolveError,
    Solver,
    Status,
    minimize,
    solve,
)
from .solvers import LBFGS, FixedStep, GradientDescent, Optax, TrustRegion

__all__ = [
    "LBFGS", "FixedStep", "GradientDescent", "Multipliers", "Optax", "Point", "Problem",
    "Residuals", "Solution", "SolveError", "Solver", "Status", "TrustRegion", "implicit",
    "minimize", "solve",
]
