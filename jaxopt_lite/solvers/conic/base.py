"""What a solver of quadratic programs is: a `Solver` whose data are the arrays of the program.

    @program_solver
    class Name(ProgramSolver):
        init(problem, point, program) -> state
        step(problem, state, program) -> state
        report(problem, state, program) -> Report     # unscaled; failure says what is infeasible
        proof(problem, state, program) -> Proof       # the rays behind such a failure

`iterate` runs it as it runs every solver; `problem` is None, for the arrays say everything.
"""

import dataclasses
import typing
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ...core import Multipliers, QuadraticProgram, Residuals, Solver
from ...linalg import as_pytree

S = typing.TypeVar("S", bound="ProgramSolver")
PROGRAM_SOLVERS: dict[str, type["ProgramSolver"]] = {}


class Proof(NamedTuple):
    """Rays that prove a program infeasible or unbounded; zeros where there is nothing to prove.

    farkas: prices y and z, l, u >= 0 with A'y + G'z - l + u = 0 and b'y + h'z - lower'l + upper'u
    = -1: summed with these prices the constraints say 0 <= -1. No point satisfies them.
    direction: d with Pd = 0, Ad = 0, Gd <= 0, d >= 0 where there is a lower bound and <= 0 where
    there is an upper one, and q'd = -1: the value falls for ever along it.
    """

    farkas: Multipliers
    direction: Array


def units_at(value: Array) -> Residuals:
    """What residuals are measured in: of prices times slacks, as of the gap, 1 + |value|."""
    one = jnp.ones_like(value)
    return Residuals(one, one, one, 1 + jnp.abs(value))


def worst_at(value: Array, gap: Array, residuals: Residuals) -> Array:
    """The largest residual in those units, the gap among them."""
    units = units_at(value)
    relative = [residual / unit for residual, unit in zip(residuals, units, strict=True)]
    return jnp.max(jnp.stack([*relative, jnp.abs(gap) / units.complementarity]))


class ProgramSolver(Solver):
    """Base of the solvers for `solve_qp`; see the module docstring."""

    def proof(self, problem: None, state: Any, program: QuadraticProgram) -> Proof:
        """The rays with which the solver gives up, normalised as in `Proof`."""
        raise NotImplementedError  # each solver's own


@typing.dataclass_transform(frozen_default=True)
def program_solver(cls: type[S]) -> type[S]:
    """Make a class a solver of programs: frozen dataclass, pytree of its numbers."""
    cls = dataclasses.dataclass(frozen=True, eq=True)(cls)
    PROGRAM_SOLVERS[cls.__name__] = as_pytree(cls)
    return cls
