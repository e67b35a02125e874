"""jaxopt_lite: solve, certify, differentiate and look at optimisation problems in JAX."""

from . import implicit
from .certify import Certificate, CriticalPoint, Kind, certify, classify
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
    FixedStep,
    GradientDescent,
    NewtonRoot,
    Optax,
    Picard,
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
    "CriticalPoint",
    "FixedStep",
    "GradientDescent",
    "Kind",
    "Multipliers",
    "NewtonRoot",
    "Optax",
    "Picard",
    "Point",
    "Problem",
    "Residuals",
    "Solution",
    "SolveError",
    "Solver",
    "Status",
    "TrustRegion",
    "certify",
    "classify",
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
