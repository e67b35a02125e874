"""The search within bounds: accept and reject are here, once; a method is a direction.

    evaluate f, g at x + t d  ->  accept?  yes: remember (s, y), new direction d, t = 1
                                           no:  a shorter or longer t, by a cubic

Directions end within the bounds at t = 1, so that all of the segment is feasible and f is smooth
along it: cubics and the Wolfe conditions hold as without bounds, which they do not on the bent path
P(x - t g). One evaluation a step, accepted or not, as in the line-search skeleton; x is within its
bounds exactly, and exactly on one where the segment ends there.
"""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...core import Multipliers, Point, Report, Residuals, Solver, Status
from ...linalg import choose, once
from ..smooth.line_search import (
    EASY,
    PATIENCE,
    RESTART,
    Pair,
    first_length,
    first_scale,
    next_trial,
)


class Box(NamedTuple):
    """The bounds as vectors, infinite where there are none."""

    lower: Array
    upper: Array

    def nearest(self, x: Array) -> Array:
        """The projection P(x)."""
        return jnp.clip(x, self.lower, self.upper)

    def room(self, x: Array, d: Array) -> Array:
        """The largest t with x + t d in the box, for x in it."""
        ahead = jnp.where(d > 0, self.upper - x, self.lower - x)
        return jnp.min(jnp.where(d == 0, jnp.inf, ahead / jnp.where(d == 0, 1, d)))

    def along(self, x: Array, t: Array, d: Array) -> Array:
        """X + t d, on a bound that it misses by the rounding of that sum."""
        end = x + t * d
        near = 4 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(x), jnp.abs(end))
        end = jnp.where(end - self.lower <= near, self.lower, end)
        end = jnp.where(self.upper - end <= near, self.upper, end)
        return jnp.where(d == 0, x, end)

    def slope(self, gradient: Array, d: Array) -> Array:
        """The slope along d."""
        return gradient @ d

    def held(self, x: Array, gradient: Array, scale: Array) -> Array:
        """Where the step -scale g ends on a bound: what binds, once x is near its answer.

        With any scale > 0 these are the bounds that bind in a neighbourhood of an answer whose
        multipliers are positive. Source: Facchinei, Fischer & Kanzow (1998).
        """
        low, high = x - self.lower < scale * gradient, self.upper - x < -scale * gradient
        return low | high | (self.lower == self.upper)

    def crossed(self) -> Array:
        """By how much a lower bound is above its upper one; 0 if none is."""
        return jnp.maximum(jnp.max(self.lower - self.upper), 0)


def box_of(problem, args: tuple) -> Box:
    """The bounds of a flat problem."""
    return Box(*problem.box(args))


def bound_prices(problem, x: Array, gradient: Array, args: tuple) -> Multipliers:
    """The multipliers of the bounds that x is on: what the gradient pushes against them."""
    if problem.bounds is None:
        return Multipliers()
    below, above = (side is not None for side in problem.bounds(*args))
    box = box_of(problem, args)
    low = jnp.where(x <= box.lower, jnp.maximum(gradient, 0), 0)
    high = jnp.where(x >= box.upper, jnp.maximum(-gradient, 0), 0)
    return Multipliers(lower=low if below else None, upper=high if above else None)


def bound_residuals(
    problem, x: Array, gradient: Array, prices: Multipliers, args: tuple
) -> Residuals:
    """Only stationarity can be left: x is feasible, and prices have signs and meet no slack."""
    net = gradient
    net = net if prices.lower is None else net - prices.lower
    net = net if prices.upper is None else net + prices.upper
    residuals = Residuals.unconstrained(net)
    if problem.bounds is None:
        return residuals
    return residuals._replace(primal=box_of(problem, args).crossed())


def crossed_or(problem, residuals: Residuals, failure: Array) -> Array:
    """`failure`, or that of crossed bounds, which no point can be within."""
    if problem.bounds is None:
        return failure
    return choose(jnp.asarray(residuals.primal > 0), int(Status.PRIMAL_INFEASIBLE), failure)


class ProjectedState(NamedTuple):
    """Between two evaluations."""

    # where we stand, changed when a step is accepted
    point: Point
    value: Array  # f_k, infinite before the start is evaluated
    gradient: Array  # g_k
    reference: Array | None  # None: f must fall below f_k; else below the largest of these
    memory: Any  # of the direction
    direction: Array  # d_k
    longest: Array  # the t >= 1 at which the segment meets a bound
    accepted: Array  # number of accepted steps; -1 before the start is evaluated
    # the search along d_k, changed at each evaluation
    step: Array  # the next trial t
    idle: Array  # evaluations since f last fell by more than its rounding


class ProjectedSearch(Solver):
    """x <- x + t d, d = P(.) - x, t by the Wolfe conditions. A subclass says how d is found.

    It has `start_memory(x)`, `remember(memory, pair, x, accept)` and `direct(memory, x, gradient,
    box)` -> d with x + d in the box. Sufficient decrease is that of the line-search skeleton. Where
    t is at its largest, decrease alone is enough. For a set other than the box, it says `region`.
    """

    sufficient_decrease: ClassVar[float] = 1e-4  # c1
    curvature: ClassVar[float | None] = 0.9  # c2 in g(x + t d)'d >= c2 g'd; None: decrease alone
    window: ClassVar[int] = 0  # f must fall below the largest of so many past values; 0: the last

    def start_memory(self, x: Array) -> Any:
        """The direction's memory before the start is evaluated."""
        raise NotImplementedError  # each method's own

    def remember(self, memory: Any, pair: Pair, x: Array, accept: Array) -> Any:
        """The memory with `pair`, whose step ended at x, if `accept`."""
        raise NotImplementedError  # each method's own

    def direct(self, memory: Any, x: Array, gradient: Array, box: Box) -> Array:
        """The direction d."""
        raise NotImplementedError  # each method's own

    def region(self, problem, args: tuple) -> Any:
        """The set to stay in: what has `nearest`, `along`, `room` and `slope`."""
        return box_of(problem, args)

    def init(self, problem, point, args):
        """At the start, within the bounds, nothing evaluated."""
        x = self.region(problem, args).nearest(point.x)
        zero, infinite = jnp.zeros((), x.dtype), jnp.full((), jnp.inf, x.dtype)
        return ProjectedState(
            point=Point(x),
            value=infinite,
            gradient=jnp.zeros_like(x),
            reference=jnp.full(self.window, -jnp.inf, x.dtype) if self.window else None,
            memory=self.start_memory(x),
            direction=jnp.zeros_like(x),
            longest=zero + 1,
            accepted=jnp.int32(-1),
            step=zero,
            idle=jnp.int32(0),
        )

    def restart(self, state: ProjectedState) -> ProjectedState:
        """The same point and memory for an objective that has changed: f and g are taken anew."""
        zero, infinite = jnp.zeros_like(state.value), jnp.full_like(state.value, jnp.inf)
        return state._replace(
            value=infinite,
            reference=None if state.reference is None else jnp.full_like(state.reference, -jnp.inf),
            direction=jnp.zeros_like(state.direction),
            longest=zero + 1,
            accepted=jnp.full_like(state.accepted, -1),
            step=zero,
            idle=jnp.zeros_like(state.idle),
        )

    def step(self, problem, state, args):
        """Evaluate one trial; accept it or choose the next."""
        box = self.region(problem, args)
        d, t = state.direction, state.step
        x = box.along(state.point.x, t, d)
        value, gradient = problem.value_and_gradient(x, args)
        slope0, slope = box.slope(state.gradient, d), box.slope(gradient, d)
        eps, size = jnp.finfo(x.dtype).eps, jnp.abs(value)
        fall, rise = state.value - value, slope - slope0
        noise = 10 * eps * size  # rounding of f
        blur = eps**0.75 * size  # the same where f is a small sum of large terms
        down = slope0 <= 0
        decrease, accept = self._judge(state, slope0, value, slope, blur)
        accept = once(accept & down)
        hopeless = ~accept & ((state.idle == RESTART) | ~down)
        turn = accept | hopeless

        move = x - state.point.x
        change = gradient - state.gradient
        pair = lax.stop_gradient(Pair(move, change, move @ change, t, state.accepted))
        new = choose(accept, x, state.point.x)
        here = choose(accept, gradient, state.gradient)
        memory = self.remember(state.memory, pair, x, accept)
        plain = first_scale(first_length(new), here @ here)
        plain = box.nearest(new - lax.stop_gradient(plain) * here) - new
        ahead = choose(hopeless, plain, self.direct(memory, new, here, box))
        longest = lax.stop_gradient(jnp.maximum(box.room(new, ahead), 1))
        search = lax.stop_gradient((t, fall, slope0, slope, rise))
        trial = next_trial(*search, jnp.abs(fall) > blur, decrease & (slope < 0))
        fallen = accept & (fall > noise)
        return ProjectedState(
            point=state.point._replace(x=new),
            value=choose(accept, value, state.value),
            gradient=here,
            reference=self._reference(state, value, accept),
            memory=memory,
            direction=choose(turn, ahead, d),
            longest=choose(turn, longest, state.longest),
            accepted=choose(accept, state.accepted + 1, state.accepted),
            step=choose(turn, 1, jnp.minimum(trial, state.longest)),
            idle=choose(fallen, 0, state.idle + 1),
        )

    def report(self, problem, state, args):
        """The last accepted point, with the prices of its bounds."""
        prices = bound_prices(problem, state.point.x, state.gradient, args)
        residuals = bound_residuals(problem, state.point.x, state.gradient, prices, args)
        running, stalled = jnp.int32(Status.RUNNING), int(Status.STALLED)
        failure = choose(state.idle > PATIENCE, stalled, running)
        failure = crossed_or(problem, residuals, failure)
        return Report(Point(state.point.x, prices), state.value, residuals, True, failure)

    # -- the search -----------------------------------------------------------------------------

    def _judge(self, state: ProjectedState, slope0, value, slope, blur):
        """Is there sufficient decrease; is the trial accepted?"""
        c1, c2 = self.sufficient_decrease, self.curvature
        reference = state.value
        if state.reference is not None:
            reference = jnp.maximum(reference, jnp.max(state.reference))
        armijo = value <= reference + c1 * state.step * slope0
        flat = (value <= state.value + blur) & (slope <= (2 * c1 - 1) * slope0)
        decrease = (armijo | flat) & jnp.isfinite(value + slope)
        if c2 is None:
            return decrease, decrease
        bent = (slope >= c2 * slope0) | (state.idle > EASY) | (state.step >= state.longest)
        return decrease, decrease & bent

    def _reference(self, state: ProjectedState, value: Array, accept: Array):
        """The values of the last accepted points."""
        if state.reference is None:
            return None
        return choose(accept, jnp.roll(state.reference, 1).at[0].set(value), state.reference)
