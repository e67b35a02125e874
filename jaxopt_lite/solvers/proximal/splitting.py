"""Splitting methods: f + g(x) + h(K x + b), the prox of g and of h one by one.

All three report a pair (x, y) and measure, with z a point that y is a subgradient of h at,

    stationarity  || grad f(x) + a subgradient of g at x + K'y ||_inf
    primal        || K x + b - z ||_inf

both 0 exactly at a solution; y is `Solution.multipliers.eq`, the price of K x + b = z. The value is
f(x) + g(x) + h(z), in the domain of h. How a term is taken apart: `jaxopt_lite/prox/splitting.py`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ...core import Multipliers, Point, Report, Residuals, Solver, Status, solver
from ...linalg import Form, choose, conjugate_gradient, norm_inf, once
from ...prox import SeparableSum, Zero
from ...prox.proximable import OnVector
from ...prox.splitting import Split
from ..smooth.first_order import require_number
from .forward_backward import Known

PATIENCE = 200  # evaluations in a row that were rejected, or moved nothing, before STALLED
POWERS = 30  # products with K'K that find ||K||


class SplittingState(NamedTuple):
    """Between two evaluations; `point` is what was measured last."""

    point: Point  # (x, y)
    total: Array
    residuals: Residuals
    base: Known  # x that the trial came from
    price: Array  # y there
    trial: Array  # where f is evaluated next
    ahead: Any  # what goes with it: y and z; for Douglas and Rachford v
    memory: Any
    accepted: Array  # -1 before the start is evaluated
    idle: Array


class Splitting(Solver):
    """What the three have in common: how they start and what they report."""

    def unrolls(self, size):
        """Numbers of theirs are found by loops."""
        return False

    def start(self, problem, point, args, memory, dual: Array) -> SplittingState:
        """At x0 in the domain of g, nothing evaluated."""
        simple = problem.term_parts(args).simple
        x, count = point.x, jnp.int32(0)
        inside = jnp.isfinite(simple.value(x)) | jnp.any(jnp.isnan(x))
        x = choose(inside, x, simple.prox(x, 1.0))
        infinite = jnp.full((), jnp.inf, x.dtype)
        known = Known(x, infinite, jnp.zeros_like(x))
        y = jnp.zeros_like(dual)
        none = Residuals(infinite, infinite, jnp.zeros_like(infinite), jnp.zeros_like(infinite))
        return SplittingState(
            Point(x, Multipliers(y)), infinite, none, known, y, x, y, memory, count - 1, count
        )

    def report(self, problem, state, args):
        """The pair measured last."""
        failure = jnp.int32(Status.RUNNING)
        failure = choose(state.idle > PATIENCE, int(Status.STALLED), failure)
        return Report(state.point, state.total, state.residuals, state.accepted > 0, failure)


def _measured(stationarity: Array, primal: Array) -> Residuals:
    zero = jnp.zeros((), stationarity.dtype)
    return Residuals(norm_inf(stationarity), norm_inf(primal), zero, zero)


class Steps(NamedTuple):
    """What the step sizes of Condat and Vu are made of."""

    curvature: Array  # L, of f so far
    norm: Array  # ||K||
    balance: Array  # sigma ||K||
    change: Array  # by how much that may still change, relatively


@solver(accepts={"nonsmooth"})
class CondatVu(Splitting):
    """Primal-dual splitting for f + g(x) + h(K x + b): one product with K and K' a step, no solve.

        x+ = prox_g(x - t (grad f(x) + K'y), t)
        y+ = prox_h*(y + s (K (2 x+ - x) + b), s),     1/t = L + s ||K||^2

    Without f that is Chambolle and Pock's method. L is found by backtracking, ||K|| by power
    iteration, and s is balanced so that both residuals shrink alike, ever less. One evaluation of
    f and its gradient a step. Converges for convex f, g, h; the sublinear order is 1/k, linear
    where F is sharp or strongly convex. Memory of a few vectors.

    Sources: Condat (2013); Vũ (2013); Chambolle & Pock (2011); Goldstein et al. (2015) for s.
    """

    def init(self, problem, point, args):
        """Nothing evaluated but K, for its norm."""
        parts, x = problem.term_parts(args), point.x
        linear = lambda v: parts.apply(v) - parts.apply(jnp.zeros_like(v))

        def again(_, v):
            w = parts.transpose(linear(v))
            size = jnp.linalg.norm(w)
            return jnp.where(size > 0, w / jnp.where(size > 0, size, 1), v)

        start = jax.random.normal(jax.random.key(0), x.shape, x.dtype)
        v = jax.lax.fori_loop(0, POWERS, again, start / jnp.linalg.norm(start))
        norm = 1.02 * jnp.linalg.norm(linear(v))
        zero = jnp.zeros((), x.dtype)
        steps = Steps(zero, jnp.where(norm > 0, norm, 1), zero + 1, zero + 0.5)
        state = self.start(problem, point, args, steps, parts.apply(x))
        return state._replace(ahead=(state.price, state.price))

    def step(self, problem, state, args):
        """Evaluate the trial; accept it, or go back with a larger L."""
        parts, base, steps = problem.term_parts(args), state.base, state.memory
        value, gradient = problem.value_and_gradient(state.trial, args)
        new = Known(state.trial, value, gradient)
        start = state.accepted < 0
        move, change = new.x - base.x, gradient - base.gradient
        square, bend = move @ move, move @ change
        above = value - base.value - base.gradient @ move
        noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(base.value)
        clear = steps.curvature * square > noise
        short = choose(clear, above <= 0.5 * steps.curvature * square,
                       bend <= (1 + 1e-6) * steps.curvature * square + noise)  # fmt: skip
        accept = once(start | (short & jnp.all(jnp.isfinite(gradient))))

        t, s = _lengths(steps)
        images = parts.apply(new.x) - parts.apply(base.x)
        ahead, z = state.ahead
        risen = ahead - state.price
        stationarity = change - move / t + parts.transpose(risen)
        primal = risen / s - images
        total = value + parts.simple.value(new.x) + parts.outer.value(z)
        residuals = _measured(stationarity, primal)
        old = state.point, state.total, state.residuals
        fresh = Point(new.x, Multipliers(ahead)), total, residuals
        at_start = Point(new.x, state.point.multipliers), value, _measured(gradient, 0 * primal)
        fresh = choose(start, at_start, fresh)
        point, total, residuals = choose(accept, fresh, old)

        seen = jnp.where(square > 0, bend / jnp.where(square > 0, square, 1), 0)
        larger = jnp.clip(1.05 * seen, 1.5 * steps.curvature, 20 * steps.curvature)
        first = jnp.maximum(seen, 1e-3 * steps.norm)
        larger = jnp.where(steps.curvature > 0, larger, first)
        curvature = choose(accept, steps.curvature, larger)
        steps = self._balanced(steps._replace(curvature=curvature), residuals, accept & ~start)
        stretch = jnp.linalg.norm(images) / jnp.where(square > 0, jnp.sqrt(square), 1)
        steps = steps._replace(norm=jnp.maximum(steps.norm, stretch))

        base = choose(accept, new, base)
        price = choose(accept & ~start, ahead, state.price)
        t, s = _lengths(steps)
        trial = parts.simple.prox(base.x - t * (base.gradient + parts.transpose(price)), t)
        image = parts.apply(2 * trial - base.x)
        z = parts.outer.prox(image + price / s, 1 / s)
        ahead = price + s * (image - z)
        moved = accept & (jnp.any(move != 0) | jnp.any(risen != 0) | start)
        return SplittingState(
            point, total, residuals, base, price, trial, (ahead, z), steps,
            choose(accept, state.accepted + 1, state.accepted),
            choose(moved, 0, state.idle + 1),
        )  # fmt: skip

    def _balanced(self, steps: Steps, residuals: Residuals, accept: Array) -> Steps:
        """A longer t where stationarity lags, a longer s where the primal residual does."""
        lags = residuals.stationarity > 3 * residuals.primal * steps.norm
        leads = 3 * residuals.stationarity < residuals.primal * steps.norm
        factor = jnp.where(lags, 1 - steps.change, jnp.where(leads, 1 / (1 - steps.change), 1))
        changed = accept & (lags | leads)
        new = steps._replace(balance=steps.balance * factor, change=0.97 * steps.change)
        return choose(changed, new, steps)


def _lengths(steps: Steps) -> tuple[Array, Array]:
    """T and s."""
    return 1 / (steps.curvature + steps.balance * steps.norm), steps.balance / steps.norm


@solver(accepts={"nonsmooth"})
class ADMM(Splitting):
    """Alternating directions for f + h(K x + b): prox of h, then a Newton step in x.

        z = prox_h(K x + b + y/rho, 1/rho),   y <- y + rho (K x + b - z)
        x <- x - (H + rho K'K)^-1 (grad f(x) + K'(y + rho (K x + b - z)))

    H is the Hessian of f at x: for a quadratic f that is the exact minimiser over x, for others one
    Newton step toward it. The system is solved by conjugate gradients on products, to 1e-4 of what
    is left. What of the term is g goes with h. rho is balanced so that both residuals shrink alike,
    ever more rarely. Few steps where H + K'K is well conditioned or cheap to solve with.

    Args:
        rho: the first weight of the constraint K x + b = z, in units of f over those of z squared.

    Sources: Boyd et al. (2011), sections 3 and 3.4.1.

    """

    rho: ArrayLike = 1.0

    def __post_init__(self):
        """Refuse a weight that is not positive."""
        require_number("ADMM(rho=...)", self.rho, 0.0)

    def init(self, problem, point, args):
        """No price yet."""
        x = point.x
        whole = _whole(problem.term_parts(args), x.shape[0])
        rho = jnp.zeros((), x.dtype) + self.rho
        memory = rho, jnp.int32(0)
        state = self.start(problem, point, args, memory, problem.term_parts(args).apply(x))
        return state._replace(price=jnp.zeros_like(whole.apply(x)), ahead=x[:0])

    def step(self, problem, state, args):
        """Evaluate at x; measure; the next x."""
        x, (rho, number) = state.trial, state.memory
        parts = _whole(problem.term_parts(args), x.shape[0])
        value, gradient = problem.value_and_gradient(x, args)
        image = parts.apply(x)
        lifted = image + state.price / rho
        z = parts.outer.prox(lifted, 1 / rho)
        price = rho * (lifted - z)
        primal = image - z
        residuals = _measured(gradient + parts.transpose(price), primal)

        product = problem.hessian_product(x, args)
        flat = parts.apply(jnp.zeros_like(x))
        system = lambda v: product(v) + rho * parts.transpose(parts.apply(v) - flat)
        rhs = gradient + parts.transpose(price + rho * primal)
        d = conjugate_gradient(system, rhs, 1e-4, 2 * x.shape[0]).x
        d = jnp.where(jnp.all(d == 0), rhs / rho, d)  # f is concave along the gradient

        tiny = jnp.finfo(x.dtype).tiny
        ratio = rho * residuals.primal / jnp.maximum(residuals.stationarity, tiny)
        due = (number % 10 == 9) & (number < 500) & ((ratio < 0.2) | (ratio > 5))
        factor = jnp.where(due, jnp.clip(jnp.sqrt(ratio), 0.2, 5), 1)
        m = state.point.multipliers.eq.shape[0]
        return SplittingState(
            Point(x, Multipliers(price[:m])), value + parts.outer.value(z), residuals,
            Known(x, value, gradient), price, x - d, state.ahead, (rho * factor, number + 1),
            state.accepted + 1, choose(jnp.any(d != 0), 0, state.idle + 1),
        )  # fmt: skip


def _whole(parts: Split, size: int) -> Split:
    """The term as h alone, of (K x + b, x) where g is not zero."""
    if isinstance(parts.simple, Zero):
        return parts
    image = jax.eval_shape(parts.apply, jax.ShapeDtypeStruct((size,), parts.dtype))
    form = Form.of((image, jax.ShapeDtypeStruct((size,), parts.dtype)))
    return Split(
        simple=Zero(),
        outer=OnVector(SeparableSum((parts.outer, parts.simple)), form),
        apply=lambda x: jnp.concatenate([parts.apply(x), x]),
        transpose=lambda y: parts.transpose(y[:-size]) + y[-size:],
        dtype=parts.dtype,
    )


@solver(accepts={"nonsmooth"})
class DouglasRachford(Splitting):
    """Douglas-Rachford splitting, and with f that of Davis and Yin, for f + g(x) + h(x).

        x = prox_g(v, t),   z = prox_h(2 x - v - t grad f(x), t),   v <- v + z - x

    For terms whose proxes are known one by one: `jol.prox.L1(1.0) + jol.prox.Simplex()`. t is the
    one given, or found: shorter until f bends no more from x to x than 1/t allows. One
    evaluation of f and its gradient a step. Converges for convex f, g, h and t < 2/L; linearly
    where one of them is smooth and strongly convex. y is (2x - v - z)/t - grad f(x).

    Args:
        step_size: t. None: found, from 1.

    Sources: Davis & Yin (2017); Lions & Mercier (1979); Pedregosa & Gidel (2018) for t.

    """

    step_size: ArrayLike | None = None

    def __post_init__(self):
        """Refuse a step that is not positive."""
        require_number("DouglasRachford(step_size=...)", self.step_size, 0.0)

    def init(self, problem, point, args):
        """V = x0."""
        parts, x = problem.term_parts(args), point.x
        if not parts.plain:
            raise TypeError(
                "DouglasRachford takes f + g(x) + h(x), g and h with a known prox, but this term "
                "has a linear map inside, or more than two such parts. CondatVu and ADMM take it."
            )
        t = jnp.zeros((), x.dtype) + (1.0 if self.step_size is None else self.step_size)
        state = self.start(problem, point, args, t, x)
        return state._replace(trial=parts.simple.prox(state.trial, t), ahead=state.trial)

    def step(self, problem, state, args):
        """Evaluate at x; then z and the next v.

        How f bent since the last x says whether t is too long. With a shorter one v still stands
        for the same subgradient (v - x)/t of g.
        """
        parts, x, v, t = problem.term_parts(args), state.trial, state.ahead, state.memory
        value, gradient = problem.value_and_gradient(x, args)
        u = (v - x) / t  # of g at x
        if self.step_size is None:
            move, change = x - state.base.x, gradient - state.base.gradient
            bend, square = move @ change, move @ move
            long = (state.accepted >= 0) & (bend * t > square) & (square > 0)
            safe = jnp.where(bend > 0, 0.9 * square / jnp.where(bend > 0, bend, 1), t)
            t = choose(long, jnp.maximum(safe, 0.1 * t), t)
            v = x + t * u
        z = parts.outer.prox(2 * x - v - t * gradient, t)
        y = (2 * x - v - z) / t - gradient
        primal = x - z
        residuals = _measured((x - z) / t, primal)
        total = value + parts.simple.value(x) + parts.outer.value(z)
        ahead = v + z - x
        return SplittingState(
            Point(x, Multipliers(y)), total, residuals, Known(x, value, gradient), y,
            parts.simple.prox(ahead, t), ahead, t, state.accepted + 1,
            choose(jnp.any(primal != 0), 0, state.idle + 1),
        )  # fmt: skip
