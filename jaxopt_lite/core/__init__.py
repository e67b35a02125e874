"""The spine: problems, points, the loop, the verdict, the derivative. It knows no algorithm."""

from . import check
from .front import Displacement, fixed_point, least_squares, minimize, root
from .implicit import Implicit, custom_fixed_point, custom_root
from .iterate import iterate
from .kinds import Kind
from .problem import Composite, Fixed, Problem
from .program import QuadraticProgram, dual_of
from .solve import default_solver, solve
from .solver import TABLE, Solver, Stepping, solver, static
from .stopping import default_tolerance
from .types import (
    History,
    Multipliers,
    Point,
    Report,
    Residuals,
    Solution,
    SolveError,
    Status,
    apart,
)

__all__ = [
    "TABLE",
    "Composite",
    "Displacement",
    "Fixed",
    "History",
    "Implicit",
    "Kind",
    "Multipliers",
    "Point",
    "Problem",
    "QuadraticProgram",
    "Report",
    "Residuals",
    "Solution",
    "SolveError",
    "Solver",
    "Status",
    "Stepping",
    "apart",
    "check",
    "custom_fixed_point",
    "custom_root",
    "default_solver",
    "default_tolerance",
    "dual_of",
    "fixed_point",
    "iterate",
    "least_squares",
    "minimize",
    "root",
    "solve",
    "solver",
    "static",
]
