"""Coordinate descent on f + a separable term, one coordinate or block of them at a time.

    evaluate f, g at the trial -> did F fall?  yes: it is the new base; a new Hessian if the model
                                                    of the last one was wrong there
                                               no:  the model is made stiffer
    sweep: for each coordinate the exact minimiser of  g'd + d'Hd/2 + term  over it alone

A sweep costs n^2 multiplications and no evaluation of f: gradients follow from the Hessian, which
for a quadratic f is computed once. For other f this is a proximal Newton method, of which a sweep
solves the subproblem roughly.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...core import Point, Report, Residuals, Solver, Status, check, solver, static
from ...linalg import choose, norm_inf, once
from ...prox import GroupLasso, Proximable, Zero
from ...prox.proximable import OnVector
from .forward_backward import Known

ORDERS = ("cyclic", "random", "greedy")
PATIENCE = 200  # evaluations in a row that gained nothing, before STALLED


class CoordinateState(NamedTuple):
    """Between two evaluations."""

    point: Point
    base: Known
    total: Array
    residual: Array
    hessian: Array  # (n, n), of f at the base or where it was last found wrong
    stiffness: Array  # the model's diagonal is this multiple of the Hessian's
    trial: Array
    leaps: Array  # whether the trial is an extrapolation
    past: Array  # (K + 1, n) ends of sweeps, newest last
    kept: Array  # how many of them there are
    accepted: Array  # -1 before the start is evaluated
    idle: Array


class Sweeping(Solver):
    """What methods by coordinates have in common; one says what a sweep is."""

    order: str
    acceleration: int
    blockwise: ClassVar[bool] = False

    def unrolls(self, size):
        """A sweep is a loop."""
        return True

    def sweep(self, term, base: Known, hessian, stiffness, number: Array) -> Array:
        """The end of a sweep from the base."""
        raise NotImplementedError  # each method's own

    def init(self, problem, point, args):
        """At the start, in the domain of the term, nothing evaluated."""
        x, term = point.x, problem.term(args)
        _require_parts(type(self).__name__, term, self.blockwise)
        inside = jnp.isfinite(term.value(x)) | jnp.any(jnp.isnan(x))
        x = choose(inside, x, term.prox(x, 1.0))
        n, zero = x.shape[0], jnp.zeros((), x.dtype)
        base = Known(x, zero + jnp.inf, jnp.zeros_like(x))
        return CoordinateState(
            Point(x), base, zero + jnp.inf, zero + jnp.inf, jnp.zeros((n, n), x.dtype), zero + 1,
            x, jnp.array(False), jnp.zeros((self.acceleration + 1, n), x.dtype), jnp.int32(0),
            jnp.int32(-1), jnp.int32(0),
        )  # fmt: skip

    def step(self, problem, state, args):
        """Evaluate the trial; accept it or not; sweep."""
        term, base = problem.term(args), state.base
        value, gradient = problem.value_and_gradient(state.trial, args)
        new, start = Known(state.trial, value, gradient), state.accepted < 0
        total = value + term.value(new.x)
        noise = 10 * jnp.finfo(value.dtype).eps * jnp.abs(total)
        fine = jnp.isfinite(total) & jnp.all(jnp.isfinite(gradient))
        spare = choose(state.leaps, jnp.zeros_like(noise), noise)
        accept = once(start | (fine & (total <= state.total + spare)))
        residual = norm_inf(gradient + term.nearest_subgradient(new.x, -gradient))

        d = new.x - base.x
        bent = state.hessian @ d
        wrong = norm_inf(gradient - base.gradient - bent) > 0.1 * residual + noise
        anew = accept & (start | wrong)
        look = lambda: problem.hessian(new.x, args)
        hessian = lax.cond(anew, look, lambda: state.hessian)
        stiffness = choose(
            accept | state.leaps, jnp.maximum(0.5 * state.stiffness, 1), 4 * state.stiffness
        )
        held = choose(accept, (new, total, residual), (state.base, state.total, state.residual))

        # A new Hessian is another model: sweeps before it are no part of the same iteration.
        kept = choose(anew | (state.leaps & accept), 0, state.kept)
        plain = accept & ~state.leaps
        past = choose(plain, jnp.concatenate([state.past[1:], new.x[None]]), state.past)
        kept = choose(plain, kept + 1, kept)
        number = state.accepted + 1
        swept = self.sweep(term, held[0], hessian, stiffness, number)
        trial, leaps = swept, jnp.array(False)
        if self.acceleration:
            leaps = plain & (kept > self.acceleration)
            trial = choose(leaps, _extrapolated(past), swept)
            kept = choose(leaps, 0, kept)
        gain = accept & ((total < state.total) | (residual < state.residual))
        return CoordinateState(
            Point(held[0].x), held[0], held[1], held[2], hessian, stiffness, trial, leaps, past,
            kept, choose(accept, number, state.accepted), choose(gain, 0, state.idle + 1),
        )  # fmt: skip

    def report(self, problem, state, args):
        """The last point accepted."""
        failure = jnp.int32(Status.RUNNING)
        failure = choose(state.idle > PATIENCE, int(Status.STALLED), failure)
        return Report(
            state.point, state.total, Residuals(state.residual, 0.0, 0.0, 0.0), True, failure
        )


def _curved(bound: Array, base: Known) -> Array:
    """Curvatures, none so small that a step goes further than 1/sqrt(eps) times max(1, |x|)."""
    eps = jnp.finfo(bound.dtype).eps
    reach = jnp.maximum(1, norm_inf(base.x)) / eps**0.5
    least = jnp.maximum(eps * jnp.max(bound), norm_inf(base.gradient) / reach)
    return jnp.maximum(bound, jnp.maximum(least, jnp.finfo(bound.dtype).tiny))


def _extrapolated(past: Array) -> Array:
    """Anderson's: the combination of past ends of sweeps whose own moves cancel best."""
    moves = past[1:] - past[:-1]
    gram = moves @ moves.T
    size = jnp.trace(gram)
    shift = jnp.where(size > 0, 10 * jnp.finfo(gram.dtype).eps * size, 1)
    ones = jnp.ones(gram.shape[0], gram.dtype)
    weights = jnp.linalg.solve(gram + shift * jnp.eye(gram.shape[0], dtype=gram.dtype), ones)
    return (weights / jnp.sum(weights)) @ past[1:]


def _require_parts(name: str, term: Proximable, blockwise: bool) -> None:
    inner = term.function if isinstance(term, OnVector) else term
    if term.separable or isinstance(inner, Zero) or (blockwise and isinstance(inner, GroupLasso)):
        return
    way_out = "FISTA and ProximalLBFGS take any prox."
    if isinstance(inner, GroupLasso):
        way_out = "BlockCoordinateDescent takes its groups as blocks."
    raise TypeError(
        f"{name} takes terms that are sums over "
        f"{'blocks: separable ones and GroupLasso' if blockwise else 'coordinates'}, but "
        f"{type(inner).__name__} came. {way_out}"
    )


@solver(accepts={"nonsmooth"})
class CoordinateDescent(Sweeping):
    """Coordinate descent for f + sum_i g_i(x_i): a step is a sweep over all coordinates.

    x_i <- prox of g_i at x_i - s_i/h_i with step 1/h_i, s the gradient of the quadratic model where
    the sweep stands and h the diagonal of its Hessian: exact for a quadratic f, whose Hessian is
    computed once; for others a sweep on a model that is renewed where it proves wrong. Every few
    sweeps their ends are extrapolated, which is kept if F is lower there. Converges for convex f;
    linearly for the lasso once the support is right. A sweep is n^2 multiplications, one evaluation
    of f. Memory n^2: for data with more rows than columns and up to a few thousand columns.
    `jol.learning.lasso` is the faster way to a lasso.

    Args:
        order: "cyclic"; "random", a new permutation each sweep; "greedy", each time the coordinate
            whose step is longest in units of h_i^-1/2, n times.
        acceleration: how many sweeps are extrapolated from; 0: none.

    Sources: Tseng (2001); Friedman, Hastie & Tibshirani (2010); Bertrand & Massias (2021) for the
    extrapolation; Nutini et al. (2015) for the greedy rule.

    """

    order: str = static(default="cyclic")
    acceleration: int = static(default=5)

    def __post_init__(self):
        """Refuse unknown orders."""
        _require_order(self)

    def sweep(self, term, base, hessian, stiffness, number):
        """Each coordinate to its minimum, n times."""
        n = base.x.shape[0]
        diagonal = jnp.diagonal(hessian)
        h = stiffness * _curved(jnp.abs(diagonal), base)
        places = jnp.arange(n)
        if self.order == "random":
            places = jax.random.permutation(jax.random.fold_in(jax.random.key(0), number), n)

        def turn(k, carry):
            x, s = carry
            p = term.prox(x - s / h, 1 / h)
            i = places[k]
            if self.order == "greedy":
                i = jnp.argmax(jnp.abs(p - x) * jnp.sqrt(h))
            move = p[i] - x[i]
            s = (s + move * hessian[i]).at[i].add(move * (h[i] - diagonal[i]))
            return x.at[i].add(move), s

        return lax.fori_loop(0, n, turn, (base.x, base.gradient))[0]


@solver(accepts={"nonsmooth"})
class BlockCoordinateDescent(Sweeping):
    """Block coordinate descent for f + sum_b g_b(x_b), the group lasso for instance.

    As `CoordinateDescent`, with steps x_b <- prox of g_b at x_b - s_b/L_b with step 1/L_b, L_b a
    bound on the largest eigenvalue of the block of the Hessian. A sweep is n^2 multiplications a
    block.

    Args:
        blocks: the number of its block for each entry of x, raveled; those of `GroupLasso`.
        order: "cyclic", "random" or "greedy", by the length of the blocks' steps.
        acceleration: how many sweeps are extrapolated from; 0: none.

    Sources: Tseng (2001); Qin, Scheinberg & Goldfarb (2013).

    """

    blocks: tuple[int, ...] = static(default=())
    order: str = static(default="cyclic")
    acceleration: int = static(default=5)
    blockwise = True

    def __post_init__(self):
        """Make the labels a tuple of counting numbers."""
        _require_order(self)
        labels = np.asarray(self.blocks)
        if (
            labels.ndim != 1
            or labels.size == 0
            or labels.dtype.kind not in "iu"
            or labels.min() < 0
        ):
            raise ValueError(
                "BlockCoordinateDescent(blocks=...) must hold the number of its block for each "
                f"entry of x, integers from 0, but {self.blocks!r} came. Without blocks there is "
                "CoordinateDescent."
            )
        object.__setattr__(self, "blocks", tuple(int(label) for label in labels))

    def sweep(self, term, base, hessian, stiffness, number):
        """Each block by a prox step."""
        n, dtype = base.x.shape[0], base.x.dtype
        if len(self.blocks) != n:
            raise ValueError(
                f"BlockCoordinateDescent(blocks=...) has {len(self.blocks)} labels, but x has {n} "
                "entries."
            )
        labels = np.asarray(self.blocks)
        count = int(labels.max()) + 1
        inside = jnp.asarray(labels[None] == np.arange(count)[:, None])  # (blocks, n)
        rows = jnp.abs(hessian) @ inside.T.astype(dtype)  # of each row, over each block
        bound = jnp.max(jnp.where(inside.T, rows, 0), axis=0)
        size = stiffness * _curved(bound, base)
        places = jnp.arange(count)
        if self.order == "random":
            places = jax.random.permutation(jax.random.fold_in(jax.random.key(0), number), count)

        def along(b, x, s):
            p = term.prox(x - s / size[b], 1 / size[b])
            return jnp.where(inside[b], p - x, 0)

        def turn(k, carry):
            x, s = carry
            b = places[k]
            if self.order == "greedy":
                every = jax.vmap(lambda b: along(b, x, s))(jnp.arange(count))
                b = jnp.argmax(jnp.sum(every * every, axis=1) * size)
            move = along(b, x, s)
            return x + move, s + hessian @ move

        return lax.fori_loop(0, count, turn, (base.x, base.gradient))[0]


def _require_order(solver: Any) -> None:
    name = type(solver).__name__
    if solver.order not in ORDERS:
        raise ValueError(
            f"{name}(order=...) must be one of {', '.join(ORDERS)}, but {solver.order!r} came."
        )
    label = f"{name}(acceleration=...)"
    if solver.acceleration != 0:
        object.__setattr__(solver, "acceleration", check.count(label, solver.acceleration))
