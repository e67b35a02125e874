"""The first-order skeleton: evaluate, then move by a rule. One evaluation a step, no search."""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ...core import Point, Report, Residuals, Solver, Status
from ...linalg import choose


class FirstOrderState(NamedTuple):
    """`point` is where the rule moved to, `measured` where value and gradient were evaluated."""

    point: Point
    measured: Point
    value: Array
    gradient: Array
    memory: Any  # of the rule
    still: Array  # how many moves in a row have been no moves at all


class FirstOrder(Solver):
    """x <- x + move, where `move(problem, memory, x, value, gradient, args)` -> (move, memory).

    `rests` says after how many moves in a row that were none the rule will never move again: then
    that is STALLED. 0: it may always.
    """

    rests: ClassVar[int] = 0

    def start_memory(self, problem, x: Array) -> Any:
        """The rule's memory before the first step."""
        return ()

    def move(self, problem, memory: Any, x: Array, value: Array, gradient: Array, args: tuple):
        """The displacement, and the rule's new memory."""
        raise NotImplementedError

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        zero, gradient = jnp.zeros((), point.x.dtype), jnp.zeros_like(point.x)
        memory = self.start_memory(problem, point.x)
        return FirstOrderState(point, point, zero, gradient, memory, jnp.int32(0))

    def step(self, problem, state, args):
        """Evaluate where we stand, then move."""
        x = state.point.x
        value, gradient = problem.value_and_gradient(x, args)
        move, memory = self.move(problem, state.memory, x, value, gradient, args)
        moved = state.point._replace(x=x + move)
        still = choose(jnp.all(moved.x == x), state.still + 1, jnp.zeros_like(state.still))
        return FirstOrderState(moved, state.point, value, gradient, memory, still)

    def report(self, problem, state, args):
        """The point that was measured, one move behind the newest."""
        failure = jnp.int32(Status.RUNNING)
        if self.rests:
            failure = choose(state.still >= self.rests, int(Status.STALLED), failure)
        residuals = Residuals.unconstrained(state.gradient)
        return Report(state.measured, state.value, residuals, True, failure)


def require_number(
    label: str, value: Any, low: float, high: float = jnp.inf, *, closed: bool = False, way_out=""
) -> None:
    """A field that is a number, or an array of them for a sweep, within (low, high).

    `closed`: `low` itself is allowed. Tracers and the placeholders of `jax.tree` pass.
    """
    if not isinstance(value, (int, float, np.ndarray, np.generic, jax.Array, str)):
        return
    if isinstance(value, jax.core.Tracer):
        return
    real = not isinstance(value, (bool, str)) and np.asarray(value).dtype.kind in "iuf"
    if real:
        given = np.asarray(value)
        above = given >= low if closed else given > low
        if np.all(above & (given < high)):
            return
    sign = ">=" if closed else ">"
    limits = [f"{sign} {low:g}"] * (low > -np.inf) + [f"< {high:g}"] * (high < np.inf)
    expected = " and ".join(limits) or "that is finite"
    raise ValueError(f"{label} must be a number {expected}, but {value!r} came. {way_out}")
