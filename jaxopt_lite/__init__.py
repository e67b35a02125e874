"""jaxopt_lite: solve, certify, differentiate and look at optimisation problems in JAX."""

from . import implicit
from .certify import (
    Certificate,
    Covariance,
    CriticalPoint,
    CriticalPoints,
    Kind,
    certify,
    classify,
    covariance,
    find_critical_points,
)
from .core import (
    Composite,
    Multipliers,
    Point,
    Problem,
    Residuals,
    Solution,
    SolveError,
    Solver,
    Status,
    fixed_point,
    least_squares,
    minimize,
    root,
    solve,
)
from .solvers import (
    ITP,
    LBFGS,
    Anderson,
    Bisection,
    Brent,
    Broyden,
    Chord,
    Dogleg,
    FixedStep,
    GaussNewton,
    GradientDescent,
    HeavyBall,
    LevenbergMarquardt,
    NaturalGradient,
    Nesterov,
    NewtonRoot,
    NonlinearCG,
    Optax,
    PerturbedGradientDescent,
    Picard,
    PolyakStep,
    TrustRegion,
)

__version__ = "0.1.0"

__all__ = [
    "ITP",
    "LBFGS",
    "Anderson",
    "Bisection",
    "Brent",
    "Broyden",
    "Certificate",
    "Chord",
    "Composite",
    "Covariance",
    "CriticalPoint",
    "CriticalPoints",
    "Dogleg",
    "FixedStep",
    "GaussNewton",
    "GradientDescent",
    "HeavyBall",
    "Kind",
    "LevenbergMarquardt",
    "Multipliers",
    "NaturalGradient",
    "Nesterov",
    "NewtonRoot",
    "NonlinearCG",
    "Optax",
    "PerturbedGradientDescent",
    "Picard",
    "Point",
    "PolyakStep",
    "Problem",
    "Residuals",
    "Solution",
    "SolveError",
    "Solver",
    "Status",
    "TrustRegion",
    "certify",
    "classify",
    "covariance",
    "find_critical_points",
    "fixed_point",
    "implicit",
    "least_squares",
    "minimize",
    "root",
    "solve",
]


def __getattr__(name: str) -> object:
    """Load `plotting` when it is first asked for: it needs matplotlib, the rest does not."""
    if name == "plotting":
        import importlib

        return importlib.import_module(".plotting", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
