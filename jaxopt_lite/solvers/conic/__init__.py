"""Quadratic and linear programs."""

from .base import PROGRAM_SOLVERS, ProgramSolver, Proof, program_solver
from .files import ProgramFile, read_program
from .first_order import PDHG
from .front import solve_lp, solve_qp
from .interior import ProximalInteriorPoint

__all__ = [
    "PDHG",
    "PROGRAM_SOLVERS",
    "ProgramFile",
    "ProgramSolver",
    "Proof",
    "ProximalInteriorPoint",
    "program_solver",
    "read_program",
    "solve_lp",
    "solve_qp",
]
