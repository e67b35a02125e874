"""The line-search skeleton: accept and reject are here, once; a method is a direction.

    evaluate f, g at x + t d  ->  accept?  yes: remember (s, y), new direction, t = 1
                                           no:  a shorter or longer t, by a cubic

One evaluation a step, accepted or not, so that the lanes of a batch never wait for each other's
searches; the first step evaluates the start. The objective stands once in the compiled program.
"""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...core import Point, Report, Residuals, Solver, Status
from ...linalg import choose, once

# Evaluations in a row that lower f by no more than its rounding, before ...
EASY = 10  # sufficient decrease alone is enough
RESTART = 30  # the direction is given up for minus the gradient
PATIENCE = 200  # STALLED


class LineSearchState(NamedTuple):
    """Between two evaluations."""

    # where we stand, changed when a step is accepted
    point: Point
    value: Array  # f_k, infinite before the start is evaluated
    gradient: Array  # g_k
    reference: Array | None  # None: f must fall below f_k; else below this average of the past
    memory: Any  # of the direction
    direction: Array  # d_k
    bend: Array | None  # d_k'Hd_k, where the method knows and uses it
    accepted: Array  # number of accepted steps; -1 before the start is evaluated
    # the search along d_k, changed at each evaluation
    step: Array  # the next trial t
    idle: Array  # evaluations since f last fell by more than its rounding


class Pair(NamedTuple):
    """What a step teaches: s = x_{k+1} - x_k = t d, y = g_{k+1} - g_k, s'y, t, and k.

    k = -1 is the evaluation of the start: s = 0, and y is the gradient there.
    """

    s: Array
    y: Array
    sy: Array
    step: Array
    number: Array


class LineSearch(Solver):
    """x <- x + t d with t by the Wolfe conditions. A subclass says how d is found.

    It has `start_memory(x)`, `remember(memory, pair, accept)` and `direct(memory, gradient)` -> d,
    scaled so that t = 1 is the first trial. Sufficient decrease is f(x + t d) <= f + c1 t g'd or,
    within eps^(3/4) |f|, the approximate Wolfe condition of Hager and Zhang (2005), without which a
    search stalls at |g| = sqrt(eps). So close, trials are found from slopes alone too.

    A method with second derivatives overrides `learn` instead of `remember`, and gives d'Hd as
    `bend(memory)`: where that is negative, decrease is measured against t g'd + t^2 d'Hd / 2, so
    that g'd may be 0. It also says whether it is `settled(memory)`. Source for such searches:
    Moré & Sorensen (1979).

    The curvature condition is the weak one: it makes s'y > 0, which is what quasi-Newton methods
    need, and asks for fewer evaluations than the strong one (2,400 against 2,437 over the 38 test
    problems).

    Unrolled derivatives hold step lengths and memory fixed: they then converge with the iterates to
    the implicit derivative, and do not pass through the divisions of a search.

    The state is small on purpose: on a CPU each number carried through the loop costs about as
    much as a dot product of a few dozen entries.
    """

    sufficient_decrease: ClassVar[float] = 1e-4  # c1
    curvature: ClassVar[float | None] = 0.9  # c2 in g(x + t d)'d >= c2 g'd; None: decrease alone
    averaging: ClassVar[float] = 0.0  # 0: monotone; else weight of the past in the reference value

    def start_memory(self, x: Array) -> Any:
        """The direction's memory before the start is evaluated."""
        raise NotImplementedError

    def remember(self, memory: Any, pair: Pair, accept: Array) -> Any:
        """The memory with `pair`, if `accept`."""
        raise NotImplementedError

    def direct(self, memory: Any, gradient: Array) -> Array:
        """The direction d."""
        raise NotImplementedError

    # -- for second derivatives, optional -----------------------------------------------------

    def learn(self, problem, memory: Any, pair: Pair, x: Array, gradient: Array, accept, args):
        """The memory after a trial; `x` is where we stand now, with its gradient."""
        return self.remember(memory, pair, accept)

    def bend(self, memory: Any) -> Array | None:
        """The curvature d'Hd of the newest d; None: not used."""
        return None

    def settled(self, memory: Any) -> Array | bool:
        """False while there is a reason not to stop although the gradient is small."""
        return True

    # -- the protocol -------------------------------------------------------------------------

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        x = point.x
        zero, infinite = jnp.zeros((), x.dtype), jnp.full((), jnp.inf, x.dtype)
        memory = self.start_memory(x)
        return LineSearchState(
            point=point,
            value=infinite,
            gradient=jnp.zeros_like(x),
            reference=infinite if self.averaging else None,
            memory=memory,
            direction=jnp.zeros_like(x),
            bend=None if self.bend(memory) is None else zero,
            accepted=jnp.int32(-1),
            step=zero,
            idle=jnp.int32(0),
        )

    def step(self, problem, state, args):
        """Evaluate one trial; accept it or choose the next."""
        d, move = state.direction, state.step * state.direction
        x = state.point.x + move
        value, gradient = problem.value_and_gradient(x, args)
        slope0, slope = state.gradient @ d, gradient @ d
        eps, size = jnp.finfo(x.dtype).eps, jnp.abs(value)
        fall, rise = state.value - value, slope - slope0  # of f, and of its slope
        noise = 10 * eps * size  # rounding of f
        blur = eps**0.75 * size  # the same where f is a small sum of large terms
        down = slope0 <= 0
        fair, steep = slope0, slope0  # slopes that a model of f along d expects up to t, and at t
        if state.bend is not None:
            fair = slope0 + 0.5 * state.step * jnp.minimum(state.bend, 0)
            steep = slope0 + state.step * jnp.minimum(state.bend, 0)
        decrease, accept = self._judge(state, slope0, fair, steep, value, slope, blur)
        accept = once(accept & down)
        hopeless = ~accept & ((state.idle == RESTART) | ~down)
        turn = accept | hopeless

        sy = state.step * rise
        pair = Pair(move, gradient - state.gradient, sy, state.step, state.accepted)
        new = choose(accept, x, state.point.x)
        here = choose(accept, gradient, state.gradient)
        pair = lax.stop_gradient(pair)
        memory = self.learn(problem, state.memory, pair, new, here, accept, args)
        ahead = choose(hopeless, -here, self.direct(memory, here))
        search = lax.stop_gradient((state.step, fall, slope0, slope, rise))
        trial = next_trial(*search, jnp.abs(fall) > blur, decrease & (slope < 0))
        fallen = accept & (fall > noise)
        return LineSearchState(
            point=state.point._replace(x=new),
            value=choose(accept, value, state.value),
            gradient=here,
            reference=self._reference(state, value, accept),
            memory=memory,
            direction=choose(turn, ahead, d),
            bend=self._bend(state, memory, accept, hopeless),
            accepted=choose(accept, state.accepted + 1, state.accepted),
            step=choose(turn, 1, trial),
            idle=choose(fallen, 0, state.idle + 1),
        )

    def report(self, problem, state, args):
        """The last accepted point."""
        running, stalled = jnp.int32(Status.RUNNING), int(Status.STALLED)
        failure = choose(state.idle > PATIENCE, stalled, running)
        residuals = Residuals.unconstrained(state.gradient)
        return Report(state.point, state.value, residuals, self.settled(state.memory), failure)

    # -- the search -----------------------------------------------------------------------------

    def _judge(self, state: LineSearchState, slope0, fair, steep, value, slope, blur):
        """Is there sufficient decrease; is the trial accepted?"""
        c1, c2 = self.sufficient_decrease, self.curvature
        reference = state.value if state.reference is None else state.reference
        armijo = value <= reference + c1 * state.step * fair
        flat = (value <= state.value + blur) & (slope <= (2 * c1 - 1) * slope0)
        decrease = (armijo | flat) & jnp.isfinite(value + slope)
        if c2 is None:
            return decrease, decrease
        bent = (slope >= c2 * steep) | (state.idle > EASY)
        return decrease, decrease & bent

    def _bend(self, state: LineSearchState, memory: Any, accept: Array, hopeless: Array):
        """The next direction's d'Hd; 0 for minus the gradient, which is judged by its slope."""
        if state.bend is None:
            return None
        return choose(hopeless, 0, choose(accept, self.bend(memory), state.bend))

    def _reference(self, state: LineSearchState, value: Array, accept: Array):
        """The average of past values, exponentially forgotten."""
        if state.reference is None:
            return None
        mixed = self.averaging * state.reference + (1 - self.averaging) * value
        return choose(accept, choose(state.accepted < 0, value, mixed), state.reference)


def first_length(x: Array) -> Array:
    """How far the first trial may go: 10 max(1, |x|). The search comes back if that is too far."""
    return 10 * jnp.maximum(1, jnp.sqrt(x @ x))


def first_scale(length: Array, gg: Array) -> Array:
    """The step along -g to try first, given g'g: 1, or what goes as far as `length`."""
    return jnp.minimum(1, length / jnp.sqrt(gg))


def next_trial(t, fall, slope0, slope, rise, is_clear: Array, is_short: Array) -> Array:
    """Where the cubic with slopes `slope0` at 0 and `slope` at t, lower by `fall` there, is least.

    With `rise` = slope - slope0; where `fall` is not clear of rounding, of the quadratic with these
    slopes. Kept between two and ten times t after a step that was too short, else between 0.18 and
    0.9 t, whose lower end is also taken where there is no such point. There is no bracket: should
    trials alternate, a short one is soon accepted for its decrease alone.
    Source: Nocedal & Wright (2006), eq. 3.59.
    """
    both = slope0 + slope
    d1 = both + choose(is_clear, 3 * fall / t, -1.5 * both)
    d2 = jnp.sqrt(d1 * d1 - slope0 * slope)
    best = t * (d2 + d1 - slope0) / (rise + 2 * d2)
    furthest = t * choose(is_short, 10, jnp.full_like(t, 0.9))
    nearest = 0.2 * furthest
    return choose(best > nearest, jnp.minimum(best, furthest), nearest)
