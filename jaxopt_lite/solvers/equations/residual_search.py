"""The skeleton of Newton's relatives: a direction, and backtracking on the size of F.

    evaluate F at x + t d  ->  |F| small enough?  yes: remember, new direction, t = 1
                                                  no:  a shorter t, by a parabola

One evaluation of F a step, accepted or not; the first step evaluates the start. A search that gets
nowhere asks the method for another direction once; if that gets nowhere either, it is STALLED.
"""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...core import Point, Report, Residuals, Solver, Status
from ...linalg import choose, once

DECREASE = 1e-4  # of the fall that the slope promises; Armijo's constant
TRIALS = 40  # evaluations along one direction, the last resort: t is 1e-12 at most by then
PATIENCE = 100  # evaluations in a row that lower |F|^2 by no more than its rounding


class Turn(NamedTuple):
    """What a method is told when it is to choose a direction."""

    x: Array  # where we stand
    residual: Array  # F(x)
    around: Any  # what `measure` returned besides; of x if `accept`, else to be ignored
    start: Array  # nothing came before
    accept: Array  # x is new
    failed: Array  # x is not, and the search along the last direction is given up
    step: Array  # s, the last trial less where we stood then
    change: Array  # y, the change of F over s


class Direction(NamedTuple):
    """d, and the derivative of 1/2 |F|^2 along it: what it is, or is taken to be."""

    d: Array
    slope: Array


class SearchState(NamedTuple):
    """Between two evaluations."""

    # where we stand, changed when a step is accepted
    point: Point
    residual: Array  # F_k
    value: Array  # 1/2 |F_k|^2, infinite before the start is evaluated
    memory: Any  # of the method
    direction: Direction
    least: Array  # smallest value so far
    accepted: Array  # number of accepted steps; -1 before the start is evaluated
    last_resort: Array  # the direction is the second one tried from here
    # the search along d, changed at each evaluation
    step: Array  # the next trial t
    trials: Array  # along this direction
    idle: Array  # evaluations since |F|^2 last fell below all before by more than rounding
    failure: Array


class ResidualSearch(Solver):
    """x <- x + t d. A subclass says `start_memory` and `turn`; `measure` if it needs more than F.

    Sufficient decrease is phi(x + t d) <= phi(x) + 1e-4 t phi' with phi = 1/2 |F|^2. Unrolled
    derivatives hold step lengths fixed.
    """

    kinds = ("equations",)
    trials: ClassVar[int] = TRIALS  # from one point, before a last direction is asked for
    bends: ClassVar[bool] = False  # a rejected trial too changes the direction

    def start_memory(self, problem, x: Array, args: tuple) -> Any:
        """The method's memory before the start is evaluated."""
        return ()

    def measure(self, problem, x: Array, args: tuple) -> tuple[Array, Any]:
        """F(x), and what else the method wants to know there."""
        return problem.equations(x, args), ()

    def turn(self, problem, memory: Any, turn: Turn, args: tuple) -> tuple[Direction, Any]:
        """A direction and the new memory."""
        raise NotImplementedError

    def slack(self, accepted: Array) -> Array | float:
        """How much |F|^2 may rise, relative to what it is."""
        return 0.0

    def init(self, problem, point, args):
        """At the start, F not evaluated."""
        x = point.x
        zero, infinite = jnp.zeros((), x.dtype), jnp.full((), jnp.inf, x.dtype)
        count, no = jnp.int32(0), jnp.array(False)
        return SearchState(
            point=point,
            residual=jnp.zeros_like(x),
            value=infinite,
            memory=self.start_memory(problem, x, args),
            direction=Direction(jnp.zeros_like(x), zero),
            least=infinite,
            accepted=count - 1,
            last_resort=no,
            step=zero,
            trials=count,
            idle=count,
            failure=count,
        )

    def step(self, problem, state, args):
        """Evaluate one trial; accept it or choose the next."""
        start = state.accepted < 0
        old, (d, slope), t = state.point.x, state.direction, state.step
        x = old + t * d
        residual, around = self.measure(problem, x, args)
        value = 0.5 * (residual @ residual)
        slack = self.slack(state.accepted.astype(x.dtype))
        allowed = state.value * (1 + slack) + DECREASE * t * slope
        accept = once(start | ((value <= allowed) & (slope < 0) & jnp.any(x != old)))
        tried = state.trials + 1
        least = jnp.where(state.last_resort, TRIALS, self.trials)
        failed = ~accept & ((tried >= least) | jnp.all(x == old))
        # A direction that is no descent, or no direction, is not worth a second trial.
        failed = failed | (~accept & ~(slope < 0))

        here, f = choose(accept, (x, residual), (old, state.residual))
        change = residual - state.residual
        turn = Turn(here, f, around, start, accept, failed, x - old, change)
        direction, memory = self.turn(problem, state.memory, turn, args)
        shorter = _shorter(*lax.stop_gradient((t, slope, value - state.value)))
        new = accept | failed
        if self.bends:
            shorter = _half_as_far(x - old, direction.d)
        else:
            direction, memory = choose(new, (direction, memory), (state.direction, state.memory))

        fallen = start | (accept & (value < state.least * (1 - 10 * jnp.finfo(x.dtype).eps)))
        idle = choose(fallen, 0, state.idle + 1)
        stalled = (failed & state.last_resort) | (idle > PATIENCE)
        return SearchState(
            point=state.point._replace(x=here),
            residual=f,
            value=choose(accept, value, state.value),
            memory=memory,
            direction=direction,
            least=choose(start | (value < state.least), value, state.least),
            accepted=choose(accept, state.accepted + 1, state.accepted),
            last_resort=choose(accept, jnp.array(False), state.last_resort | failed),
            step=choose(new, 1, shorter),
            trials=choose(new, 0, tried),
            idle=idle,
            failure=choose(stalled, int(Status.STALLED), jnp.int32(Status.RUNNING)),
        )

    def report(self, problem, state, args):
        """The last accepted point."""
        residuals = Residuals.equations(state.residual)
        return Report(state.point, state.value, residuals, True, state.failure)


def _half_as_far(move: Array, d: Array) -> Array:
    """The t that makes t d half as long as `move`, 1 at most."""
    ahead = jnp.linalg.norm(d)
    return jnp.minimum(1, 0.5 * jnp.linalg.norm(move) / jnp.where(ahead > 0, ahead, 1))


def _shorter(t: Array, slope: Array, rise: Array) -> Array:
    """Where the parabola with `slope` at 0, higher by `rise` at t, is least; 0.1 t to 0.5 t."""
    best = -0.5 * slope * t * t / (rise - t * slope)
    return jnp.where(best > 0.1 * t, jnp.minimum(best, 0.5 * t), 0.1 * t)  # 0.1 t for NaN
