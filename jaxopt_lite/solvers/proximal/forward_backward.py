"""The forward-backward skeleton: accept and reject are here, once; a method is a leap.

    evaluate f, g at p = prox(x - t g(x), t)  ->  short enough?  no:  a shorter t, from x again
                                                                yes: p is measured; leap from it?
    evaluate f, g at a leap x' from p         ->  good?  yes: the next step starts at x'
                                                         no:  it starts at p, as without a leap

One evaluation of f and its gradient a step. What is reported is always some p: it is in the domain
of the non-smooth term and has its exact zeros. Stationarity is the distance of 0 to the
subdifferential of f + nonsmooth at p where that has a closed form; else || g(p) + (x - p)/t - g(x)
||_inf, which bounds it, since (x - p)/t - g(x) is a subgradient of the term at p by definition of
the prox.
"""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Point, Report, Residuals, Solver, Status
from ...linalg import choose, once
from ...prox import Proximable

PATIENCE = 200  # evaluations in a row that gained nothing, before STALLED
MARGIN = 0.95  # of the curvature that a step of length t allows, 1/t: some decrease remains


class Known(NamedTuple):
    """A point and what f is there."""

    x: Array
    value: Array  # of f alone
    gradient: Array


class ForwardBackwardState(NamedTuple):
    """Between two evaluations."""

    point: Point  # the last p that was measured
    here: Known  # the same, with f and its gradient
    total: Array  # f + nonsmooth there
    residual: Array  # ||.||_inf of the subgradient of the total there
    base: Known  # where the next p comes from
    after: Array  # prox of the step from `point`: the next p where a leap fails
    trial: Array  # where f is evaluated next
    leaps: Array  # whether that is a leap
    length: Array  # t
    bounded: Array  # whether a t was too long yet
    memory: Any  # of the method
    accepted: Array  # how many p were measured; -1 before the start is evaluated
    idle: Array  # evaluations since the total last fell, or the residual shrank


class Measured(NamedTuple):
    """What a method sees when it may leap: p, where it came from and where the next step ends."""

    p: Known
    came_from: Array  # x
    before: Array  # the p before
    after: Array  # prox(p - t g(p), t)
    length: Array  # t
    residual: Array
    number: Array  # of p's measured before this one


class ForwardBackward(Solver):
    """x <- prox(x - t grad f(x), t), and leaps. A subclass says where to leap to, if at all.

    It has `start_memory(x)` and `leap(problem, memory, measured, term, args)` -> (x', wanted,
    memory), and says by `trusts` whether leaps are taken unseen; else one is taken if the
    forward-backward envelope there is not above the total at p: then totals fall monotonically.
    With a step size of its own the subclass is right about t; else t is found by
    f(p) <= f(x) + g(x)'(p - x) + 0.95 |p - x|^2/(2 t).
    """

    step_size: ArrayLike | None
    leaping: ClassVar[bool] = True
    trusts: ClassVar[bool] = False
    growth: ClassVar[float] = 1.02  # of t after each measured p

    def start_memory(self, x: Array) -> Any:
        """The method's memory before the start is evaluated."""
        return ()

    def leap(
        self, problem, memory: Any, measured: Measured, term: Proximable, args: tuple
    ) -> tuple[Array, Array, Any]:
        """Where to go from p, whether to, and the new memory."""
        raise NotImplementedError  # each method's own

    def init(self, problem, point, args):
        """At the start, in the domain of the term, nothing evaluated."""
        x, count = point.x, jnp.int32(0)
        term = problem.term(args)
        inside = jnp.isfinite(term.value(x)) | jnp.any(jnp.isnan(x))
        x = choose(inside, x, term.prox(x, 1.0))
        zero, infinite = jnp.zeros((), x.dtype), jnp.full((), jnp.inf, x.dtype)
        here = Known(x, infinite, jnp.zeros_like(x))
        length = zero + 1 if self.step_size is None else zero + self.step_size
        return ForwardBackwardState(
            point=Point(x), here=here, total=infinite, residual=infinite, base=here, after=x,
            trial=x, leaps=jnp.array(False), length=length, bounded=jnp.array(False),
            memory=self.start_memory(x), accepted=count - 1, idle=count,
        )  # fmt: skip

    def step(self, problem, state, args):
        """Evaluate a forward-backward point or a leap; say where to evaluate next."""
        term = problem.term(args)
        value, gradient = problem.value_and_gradient(state.trial, args)
        new = Known(state.trial, value, gradient)
        start = state.accepted < 0
        short, secant = self._short(state.base, new, state.length)
        fresh = once(start | (~state.leaps & short))
        # A leap was judged by t: where that is too long there, it is taken back, and t is kept.
        back = jnp.any(state.base.x != state.here.x) & (not self.trusts)
        missed = ~start & ~state.leaps & ~fresh
        failed = missed & ~back
        # t is a number that was found, not a function of the data.
        length = self._length(*lax.stop_gradient((state, new, start, fresh, failed, secant)))

        after = term.prox(new.x - length * gradient, length)
        total = value + term.value(new.x)
        residual = self._residual(state, new, after, term)
        here = choose(fresh, new, state.here)
        measured = Measured(
            here, state.base.x, state.here.x, after, length, residual, state.accepted
        )
        held = choose(fresh, (total, residual, after), (state.total, state.residual, state.after))

        ahead, leaps, memory = self._leaped(
            problem, state.memory, measured, term, args, fresh & ~start
        )
        good = state.leaps & self._good(state, new, after, total, term)
        bad = (missed & back) | (state.leaps & ~good)
        base = choose(fresh | good, new, choose(failed, state.base, here))
        again = lambda: term.prox(base.x - length * base.gradient, length)
        trial = lax.cond(failed, again, lambda: choose(bad, state.after, after))
        trial = choose(leaps, ahead, trial)

        gain = (total < state.total) | (residual < state.residual)
        if self.step_size is not None:  # a step that is too long rises until it is DIVERGED
            gain = jnp.any(new.x != state.base.x)
        nothing = failed | bad | (fresh & ~gain)
        return ForwardBackwardState(
            point=Point(here.x), here=here, total=held[0], residual=held[1], base=base,
            after=held[2], trial=trial, leaps=leaps, length=length,
            bounded=state.bounded | failed, memory=memory,
            accepted=choose(fresh, state.accepted + 1, state.accepted),
            idle=choose(nothing, state.idle + 1, choose(fresh, 0, state.idle)),
        )  # fmt: skip

    def report(self, problem, state, args):
        """The last p that was measured."""
        running, stalled = jnp.int32(Status.RUNNING), int(Status.STALLED)
        failure = choose(state.idle > PATIENCE, stalled, running)
        residuals = Residuals(state.residual, 0.0, 0.0, 0.0)
        sure = True if problem.term(args).has_subgradient else state.accepted > 0
        return Report(state.point, state.total, residuals, sure, failure)

    def _leaped(
        self, problem, memory: Any, measured: Measured, term: Proximable, args: tuple, may: Array
    ) -> tuple[Array, Array, Any]:
        """Where the method leaps to from p, whether it does, and its memory."""
        still = measured.p.x, jnp.array(False), memory
        if not self.leaping:
            return still
        leap = lambda: self.leap(problem, memory, measured, term, args)
        ahead, wanted, memory = lax.cond(may, leap, lambda: still)
        return ahead, may & wanted & jnp.all(jnp.isfinite(ahead)), memory

    def _residual(self, state, new: Known, after: Array, term: Proximable) -> Array:
        """||grad f + a subgradient of the term||_inf at the new p.

        The nearest one where it has a closed form. Else the one that the prox gives, with its
        rounding added, which a short t enlarges; at the start, what a step changes.
        """
        if term.has_subgradient:
            near = term.nearest_subgradient(new.x, -new.gradient)
            return jnp.max(jnp.abs(new.gradient + near))
        base, t = state.base, state.length
        rounding = 4 * jnp.finfo(t.dtype).eps * jnp.max(jnp.abs(base.x)) / t
        change = new.gradient - base.gradient + (base.x - new.x) / t
        at_start = jnp.max(jnp.abs(new.x - after)) / t
        return choose(state.accepted < 0, at_start, jnp.max(jnp.abs(change)) + rounding)

    def _short(self, base: Known, new: Known, length: Array) -> tuple[Array, Array]:
        """Whether p is near enough to x for the bound on f to hold, and 1 / curvature seen.

        Within the rounding of f slopes say how much it bends, as they would for a quadratic.
        """
        move, change = new.x - base.x, new.gradient - base.gradient
        bend, square = move @ change, move @ move
        secant = jnp.where(bend > 0, square / jnp.where(bend > 0, bend, 1), jnp.inf)
        if self.step_size is not None:
            return jnp.array(True), secant
        allowed = MARGIN * square / length
        above = new.value - base.value - base.gradient @ move
        noise = 10 * jnp.finfo(length.dtype).eps * jnp.abs(base.value)
        clear = allowed > noise
        short = choose(clear, above <= 0.5 * allowed, bend <= allowed)
        return short & jnp.all(jnp.isfinite(new.gradient)), secant

    def _length(self, state, new: Known, start, fresh, failed, secant: Array) -> Array:
        """The next t: a little longer, much where little curvature shows, shorter after a fail."""
        t = state.length
        if self.step_size is not None:
            return t
        far = 10 * jnp.maximum(1, jnp.sqrt(new.x @ new.x))
        first = jnp.minimum(1, far / jnp.sqrt(new.gradient @ new.gradient))
        free = jnp.array(not self.trusts) | ~state.bounded  # momentum needs a t that stays
        longer = jnp.where(free & (secant > 8 * t), 4 * t, self.growth * t)
        shorter = jnp.clip(MARGIN * secant, 0.1 * t, 0.7 * t)
        return choose(start, first, choose(fresh, longer, choose(failed, shorter, t)))

    def _good(self, state, new: Known, after: Array, total: Array, term: Proximable) -> Array:
        """Whether a leap pays: by the forward-backward envelope, which p bounds from above."""
        if self.trusts:
            return jnp.all(jnp.isfinite(new.gradient)) & jnp.isfinite(new.value)
        step = after - new.x
        envelope = (
            new.value + new.gradient @ step + step @ step / (2 * state.length) + term.value(after)
        )
        noise = 10 * jnp.finfo(envelope.dtype).eps * jnp.abs(state.total)
        below = envelope <= state.total + choose(state.idle < 10, noise, 0 * noise)
        return below & jnp.all(jnp.isfinite(new.gradient))
