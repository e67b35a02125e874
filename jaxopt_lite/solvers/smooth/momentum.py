"""Steps that remember the last: heavy ball, and Nesterov's with its estimate of L and restarts."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Point, Report, Residuals, Solver, Status, solver, static
from ...linalg import choose, once
from .first_order import FirstOrder, require_number
from .line_search import first_length, first_scale

PATIENCE = 200  # evaluations in a row that were rejected, or moved nowhere, before STALLED


@solver()
class HeavyBall(FirstOrder):
    """x <- x - t grad f(x) + m (x - previous x), t and m constant.

    On a quadratic with curvatures in [mu, L], kappa = L/mu, the error falls by
    (sqrt(kappa) - 1)/(sqrt(kappa) + 1) a step in the limit, where gradient descent has kappa for
    sqrt(kappa), if t = 4/(sqrt(L) + sqrt(mu))^2 and m is the square of that rate. It converges
    there for 0 <= m < 1 and 0 < t < 2 (1 + m)/L. On other convex f the same t and m can cycle for
    ever: then take `Nesterov`. Ends DIVERGED, NONFINITE or MAX_STEPS when t is too long. Memory n.
    Sources: Polyak (1964); Lessard, Recht & Packard (2016), section 4.6, for the cycle.

    Args:
        step_size: t > 0, in units of x per unit of the gradient.
        momentum: 0 <= m < 1, the part of the last displacement that is repeated.

    """

    step_size: ArrayLike
    momentum: ArrayLike = 0.9
    rests = 2  # after one move of nothing there is no displacement to repeat

    def __post_init__(self):
        """Refuse a step that goes up or nowhere, and momentum that never dies."""
        require_number("HeavyBall(step_size=...)", self.step_size, 0.0)
        way_out = "It is the part of the last displacement that is repeated; 0.9 is usual."
        require_number(
            "HeavyBall(momentum=...)", self.momentum, 0.0, 1.0, closed=True, way_out=way_out
        )

    def start_memory(self, problem, x):
        """The previous x."""
        return x

    def move(self, problem, memory, x, value, gradient, args):
        """-t g + m (x - previous)."""
        return self.momentum * (x - memory) - self.step_size * gradient, x


class NesterovState(NamedTuple):
    """Between two evaluations."""

    point: Point  # y, where f is evaluated next
    # what was accepted last
    measured: Point  # the y before
    value: Array
    gradient: Array
    # the step from there
    previous: Array  # where the step before led
    x: Array  # where this one led: `measured` - t gradient
    length: Array  # t
    weights: tuple[Array, Array]  # t_k of Beck and Teboulle for `measured` and for `point`
    # counters
    accepted: Array  # number of accepted evaluations; 0 before the start is evaluated
    idle: Array  # evaluations in a row that were rejected or moved nothing


@solver()
class Nesterov(Solver):
    """Accelerated gradient: x <- y - t grad f(y), y <- x + b (x - previous x), with restarts.

    For convex f, b grows towards 1: f(x_k) - f* <= 2 L |x_0 - x*|^2 / (k + 1)^2 with t = 1/L, the
    order no first-order method can beat. With a given mu, b = (1 - sqrt(mu t))/(1 + sqrt(mu t)):
    f(x_k) - f* falls by 1 - sqrt(mu/L) a step. Restarts, which drop the momentum where it leads
    uphill, grad f(y)'(x - previous x) > 0, give about that rate without mu.

    Where t is not given, an evaluation at y is accepted if the step that led there was short
    enough, f(y) <= f(z) - t |grad f(z)|^2/2 + grad f(y)'(y - x) with z the y before: that is all
    the proof of the bound asks of f between the two, and for b = 0 it is Armijo's condition. Else
    it goes back to z with a shorter t, the second time in a row without momentum. Each accepted t
    is followed by one 2% longer, so that L may fall. One evaluation a step, at y, and y is what is
    reported. Memory 5n.

    Converges for convex f; for others nothing is proved, but it mostly does, to a minimum or a
    saddle point. Ends DIVERGED, NONFINITE or MAX_STEPS when a given t is longer than 4/(3L).

    Args:
        step_size: t, at best 1/L. None: estimated.
        strong_convexity: mu, the least curvature; one that is too large costs the acceleration,
            not convergence. None: unknown, or 0.
        restart: whether momentum is dropped where it leads uphill.

    Sources: Nesterov (1983); Nesterov (2018), section 2.2; Beck & Teboulle (2009), theorem 4.4;
    Scheinberg, Goldfarb & Bai (2014) for a t that grows; O'Donoghue & Candès (2015), section 3.2,
    for restarts.

    """

    step_size: ArrayLike | None = None
    strong_convexity: ArrayLike | None = None
    restart: bool = static(default=True)

    def __post_init__(self):
        """Refuse a step or a curvature that is not positive."""
        way_out = "None estimates it."
        require_number("Nesterov(step_size=...)", self.step_size, 0.0, way_out=way_out)
        way_out = "None does without it."
        require_number(
            "Nesterov(strong_convexity=...)", self.strong_convexity, 0.0, closed=True,
            way_out=way_out,
        )  # fmt: skip

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        x, zero, count = point.x, jnp.zeros((), point.x.dtype), jnp.int32(0)
        length = first_length(x) if self.step_size is None else zero + self.step_size
        return NesterovState(
            point=point, measured=point, value=zero, gradient=jnp.zeros_like(x), previous=x, x=x,
            length=length, weights=(zero + 1, zero + 1), accepted=count, idle=count,
        )  # fmt: skip

    def step(self, problem, state, args):
        """Evaluate at y; accept it or go back; step from there and extrapolate."""
        y, start = state.point.x, state.accepted == 0
        value, gradient = problem.value_and_gradient(y, args)
        accept = keep = jnp.array(True)
        length = state.length
        if self.step_size is None:
            new = lax.stop_gradient((value, gradient))
            accept = once(start | self._is_short(state, *new))
            length, leaps = self._length(state, start, accept, new[1])
            keep = ~start & ~leaps & (accept | (state.idle == 0))
        evaluated = state.point, value, gradient, state.x, state.weights[1]
        before = state.measured, state.value, state.gradient, state.previous, state.weights[0]
        measured, value, gradient, previous, weight = choose(accept, evaluated, before)

        x = measured.x - length * gradient
        ahead = x - previous
        if self.restart:
            keep &= gradient @ ahead <= 0
        weight = choose(keep, weight, jnp.ones_like(weight))
        shrinking = jnp.minimum(state.length / length, 1)
        heavier = 0.5 + jnp.sqrt(0.25 + choose(start, 1, shrinking) * weight * weight)
        pull = (weight - 1) / heavier
        if self.strong_convexity is not None:
            root = jnp.sqrt(jnp.minimum(self.strong_convexity * length, 1))
            pull = choose(keep, (1 - root) / (1 + root), jnp.zeros_like(root))
        ahead = x + pull * ahead
        moved = accept & jnp.any(ahead != y)
        return NesterovState(
            point=state.point._replace(x=ahead),
            measured=measured,
            value=value,
            gradient=gradient,
            previous=previous,
            x=x,
            length=length,
            weights=(weight, heavier),
            accepted=choose(accept, state.accepted + 1, state.accepted),
            idle=choose(moved, 0, state.idle + 1),
        )

    def report(self, problem, state, args):
        """The last accepted y."""
        running, stalled = jnp.int32(Status.RUNNING), int(Status.STALLED)
        failure = choose(state.idle > PATIENCE, stalled, running)
        residuals = Residuals.unconstrained(state.gradient)
        return Report(state.measured, state.value, residuals, True, failure)

    def _is_short(self, state: NesterovState, value: Array, gradient: Array) -> Array:
        """Whether the step from the last y was short enough; False where f is not finite."""
        t, old, leap = state.length, state.gradient, state.point.x - state.measured.x
        spare = (0.5 - 1e-3) * t * (old @ old)  # in one dimension t = 1/L gives equality
        gain = gradient @ (state.point.x - state.x) - spare
        noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
        # Within rounding of f the slopes say how much it fell, as they would for a quadratic.
        fall = 0.5 * ((gradient + old) @ leap)
        flat = (jnp.abs(value - state.value) <= noise) & (fall <= gain)
        return ((value - state.value <= gain) | flat) & jnp.all(jnp.isfinite(gradient))

    def _length(self, state: NesterovState, start, accept, gradient: Array) -> tuple[Array, Array]:
        """The next t, and whether it is much longer: where a plain step shows little curvature.

        Rejected, it falls to a secant estimate of 1/L, to between 0.1 and 0.7 of what it was.
        2% and 0.7 were best of a few over 25 problems, by 26% in the steps.
        """
        t, leap, change = state.length, state.point.x - state.measured.x, gradient - state.gradient
        secant = jnp.sqrt(leap @ leap / (change @ change))
        secant = choose(secant >= 0, secant, jnp.full_like(t, jnp.inf))
        plain = jnp.all(state.point.x == state.x)
        leaps = accept & plain & (secant > 8 * t)
        longer = choose(leaps, 4 * t, 1.02 * t)
        length = choose(accept, longer, jnp.clip(secant, 0.1 * t, 0.7 * t))
        return choose(start, first_scale(t, gradient @ gradient), length), leaps
