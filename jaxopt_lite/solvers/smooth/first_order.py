"""The first-order skeleton: evaluate, then move by a rule. One evaluation a step, no search."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from ...core import Point, Report, Residuals, Solver, Status


class FirstOrderState(NamedTuple):
    """`point` is where the rule moved to, `measured` where value and gradient were evaluated."""

    point: Point
    measured: Point
    value: Array
    gradient: Array
    memory: Any  # of the rule
    still: Array  # whether the last move was no move at all


class FirstOrder(Solver):
    """x <- x + move, where `move(problem, memory, x, value, gradient, args)` -> (move, memory).

    `constant` says that a rule which once does not move never will: then that is STALLED.
    """

    constant: ClassVar[bool] = False

    def start_memory(self, problem, x: Array) -> Any:
        """The rule's memory before the first step."""
        return ()

    def move(self, problem, memory: Any, x: Array, value: Array, gradient: Array, args: tuple):
        """The displacement, and the rule's new memory."""
        raise NotImplementedError

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        zero, still = jnp.zeros((), point.x.dtype), jnp.array(False)
        memory = self.start_memory(problem, point.x)
        return FirstOrderState(point, point, zero, jnp.zeros_like(point.x), memory, still)

    def step(self, problem, state, args):
        """Evaluate where we stand, then move."""
        x = state.point.x
        value, gradient = problem.value_and_gradient(x, args)
        move, memory = self.move(problem, state.memory, x, value, gradient, args)
        moved = state.point._replace(x=x + move)
        return FirstOrderState(
            moved, state.point, value, gradient, memory, jnp.all(moved.x == x) & self.constant
        )

    def report(self, problem, state, args):
        """The point that was measured, one move behind the newest."""
        failure = jnp.where(state.still, Status.STALLED, Status.RUNNING).astype(jnp.int32)
        residuals = Residuals.unconstrained(state.gradient)
        return Report(state.measured, state.value, residuals, True, failure)
