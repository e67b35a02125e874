"""The spine: problems, points, the loop, the verdict, the derivative. It knows no algorithm."""

from . import check
from .implicit import Implicit, custom_fixed_point, custom_root
from .iterate import iterate
from .problem import Problem
from .solve import default_solver, minimize, solve
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
)

__all__ = [
    "TABLE",
    "History",
    "Implicit",
    "Multipliers",
    "Point",
    "Problem",
    "Report",
    "Residuals",
    "Solution",
    "SolveError",
    "Solver",
    "Status",
    "Stepping",
    "check",
    "custom_fixed_point",
    "custom_root",
    "default_solver",
    "default_tolerance",
    "iterate",
    "minimize",
    "solve",
    "solver",
    "static",
]
