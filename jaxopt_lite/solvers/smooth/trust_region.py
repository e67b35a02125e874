"""The trust-region skeleton: accept, reject and the radius are here, once; a method is a model.

    evaluate f, g at x + p  ->  rho = actual / predicted decrease  ->  accept? radius?
                            ->  model at the new x (kept if rejected)  ->  new p, |p| <= radius

One evaluation of f and its gradient a step, accepted or not; the first step evaluates the start.
The model says whether it saw negative curvature: while it does, the solver is not settled, however
small the gradient, so a start on a strict saddle point is left and never reported as converged.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Point, Report, Residuals, Solver, Status, solver, static
from ...linalg import Spectrum, choose, norm_inf, once, psd_factor, psd_solve, safe_norm, spectrum
from .line_search import Pair

PATIENCE = 20  # accepted steps without progress beyond rounding, before STALLED
# Largest relative residual of a truncated step. Over the 41 test problems 0.5 cost 2,799 steps and
# 8,268 products and never got to the minimum of Meyer's; 0.01 costs 1,873 and 7,401, and does.
FORCING = 0.01


class Proposal(NamedTuple):
    """A step of the model: p, how much it lowers it, and whether curvature is nonnegative.

    `length` is that of p in the norm of the radius, if that is not |p|.
    """

    step: Array
    decrease: Array
    settled: Array
    length: Array | None = None


class TrustRegionState(NamedTuple):
    """Between two evaluations."""

    # where we stand, changed when a step is accepted
    point: Point
    value: Array
    gradient: Array
    model: Any  # what the method keeps of the second derivatives
    accepted: Array  # number of accepted steps; -1 before the start is evaluated
    # the next trial
    proposal: Proposal
    radius: Array  # or what plays its part
    # giving up
    mark: tuple[Array, Array]  # f and ||g||_inf when there was progress last
    idle: Array  # accepted steps since the last progress
    failure: Array


class TrustRegionSkeleton(Solver):
    """x <- x + p where p minimises a model within a radius. A subclass says `model` and `propose`.

    Optional: `learn`, for models that grow from trials and not from the problem alone;
    `first_size` and `resize`, for a size that is not a radius, such as a weight on |p|^3.

    Unrolled derivatives pass through Newton steps, and so converge quadratically too; they hold the
    radius fixed, and the model of steps that end on it.
    """

    growth: ClassVar[float] = 2.0  # of the radius, after a good step

    def start_model(self, x: Array) -> Any:
        """A model of the right shape, before anything is known."""
        raise NotImplementedError

    def model(self, problem, x: Array, args: tuple) -> Any:
        """The model at an accepted x; evaluated only then."""
        raise NotImplementedError

    def propose(self, problem, model: Any, x: Array, gradient: Array, radius: Array, args: tuple):
        """The `Proposal`: a (nearly) best step of the model within the radius."""
        raise NotImplementedError

    def learn(self, problem, model: Any, pair: Pair, x: Array, gradient: Array, accept, args):
        """The model after a trial, accepted or not; `x` is where we stand now."""
        return lax.cond(accept, lambda: self.model(problem, x, args), lambda: model)

    def measure(self, problem, x: Array, args: tuple) -> tuple[Array, Array, Any]:
        """F and its gradient at a trial, and what else was seen there; `adopt` gets that."""
        return *problem.value_and_gradient(x, args), None

    def adopt(self, model: Any, seen: Any, accept: Array) -> Any:
        """The model after a trial that `measure` saw more of, in place of `learn`."""
        raise NotImplementedError

    def place(self, problem, x: Array, step: Array, args: tuple) -> Array:
        """Where a trial is evaluated: x + p, or the nearest point of a set."""
        return x + step

    def left(self, problem, x: Array, gradient: Array, args: tuple) -> Array:
        """What is left of the optimality conditions: progress is when it falls."""
        return norm_inf(gradient)

    def first_size(self, model: Any, x: Array, gradient: Array) -> Array:
        """The first radius, or what plays its part, given the model at the start."""
        return 0.25 * jnp.maximum(1, jnp.linalg.norm(x))

    def resize(self, size: Array, ratio: Array, finite: Array, proposal: Proposal) -> Array:
        """Shrink after a bad prediction, grow after a good one that used the whole radius.

        `ratio` is actual over predicted decrease of `proposal`; `finite` is False where there was
        nothing to measure.
        """
        length = jnp.linalg.norm(proposal.step) if proposal.length is None else proposal.length
        shrunk = jnp.where(finite, 0.25, 0.1) * length
        grown = jnp.where(length > 0.8 * size, self.growth * size, size)
        bad = ~finite | (ratio < 0.25)
        return jnp.where(bad, shrunk, jnp.where(ratio > 0.75, grown, size))

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        x = point.x
        zero, inf = jnp.zeros((), x.dtype), jnp.full((), jnp.inf, x.dtype)
        count = jnp.zeros((), jnp.int32)
        return TrustRegionState(
            point=point, value=zero, gradient=jnp.zeros_like(x), model=self.start_model(x),
            accepted=count - 1, proposal=Proposal(jnp.zeros_like(x), zero, jnp.array(False), zero),
            radius=zero, mark=(inf, inf), idle=count,
            failure=count + Status.RUNNING,
        )  # fmt: skip

    def step(self, problem, state, args):
        """Evaluate the proposal, accept or reject it, propose the next."""
        start = state.accepted < 0
        p, predicted = state.proposal.step, state.proposal.decrease
        x = self.place(problem, state.point.x, p, args)
        value, gradient, seen = self.measure(problem, x, args)
        finite = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        by_slopes = -0.5 * ((x - state.point.x) @ (state.gradient + gradient))
        ratio = _agreement(*lax.stop_gradient((state.value, value, predicted, by_slopes)))
        accept = once(start | (finite & (ratio > 1e-4)))

        new = state._replace(point=state.point._replace(x=x), value=value, gradient=gradient)
        here = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, state)
        x = here.point.x
        change = gradient - state.gradient
        pair = lax.stop_gradient(Pair(p, change, p @ change, jnp.ones_like(value), state.accepted))
        if seen is None:
            model = self.learn(problem, state.model, pair, x, here.gradient, accept, args)
        else:
            model = self.adopt(state.model, seen, accept)
        resized = self.resize(state.radius, ratio, finite, state.proposal)
        radius = jnp.where(start, self.first_size(model, x, gradient), resized)
        radius = lax.stop_gradient(radius)
        proposal = self.propose(problem, model, x, here.gradient, radius, args)
        if proposal.length is None:
            proposal = proposal._replace(length=jnp.linalg.norm(proposal.step))

        norm = self.left(problem, new.point.x, gradient, args)
        noise = 10 * jnp.finfo(x.dtype).eps * jnp.abs(state.value)
        lowest, least = state.mark
        better = accept & (start | (value < lowest - noise) | (norm < 0.9 * least))
        mark = jnp.minimum(lowest, value), jnp.minimum(least, norm)
        idle = jnp.where(accept, jnp.where(better, 0, state.idle + 1), state.idle)
        tiny = jnp.finfo(x.dtype).eps * jnp.linalg.norm(x)
        stuck = ~start & ~accept & (jnp.linalg.norm(p) <= tiny)
        failure = jnp.where(stuck | (idle > PATIENCE), Status.STALLED, Status.RUNNING)
        return here._replace(
            model=model,
            accepted=jnp.where(accept, state.accepted + 1, state.accepted),
            proposal=proposal,
            radius=radius,
            mark=choose(better, mark, state.mark),
            idle=idle,
            failure=failure.astype(jnp.int32),
        )

    def report(self, problem, state, args):
        """The last accepted point; settled when the model saw no negative curvature there."""
        residuals = Residuals.unconstrained(state.gradient)
        return Report(state.point, state.value, residuals, state.proposal.settled, state.failure)


def _agreement(before: Array, after: Array, predicted: Array, by_slopes: Array) -> Array:
    """Actual over predicted decrease, tending to 1 as both sink into the rounding of f.

    Where values differ by less than eps^(3/4) of their size, the decrease is taken from the slopes
    at both ends: f may be a small sum of large terms, whose rounding its size does not tell.
    Source: Conn, Gould & Toint (2000), section 17.4.2, for the rounding.
    """
    eps = jnp.finfo(before.dtype).eps
    size = jnp.maximum(jnp.abs(before), jnp.abs(after))
    actual = before - after
    blurred = jnp.maximum(jnp.abs(actual), predicted) <= eps**0.75 * size
    actual = jnp.where(blurred, by_slopes, actual)
    noise = 10 * eps * size
    denominator = predicted + noise
    good = denominator > 0
    return jnp.where(good, (actual + noise) / jnp.where(good, denominator, 1), 0)


@solver()
class TrustRegion(TrustRegionSkeleton):
    """Newton's method in a trust region, on the exact Hessian or on its products.

    p = argmin g'p + p'Hp/2 over |p| <= radius. Globally convergent, quadratic near a minimiser with
    positive definite Hessian; leaves strict saddle points along negative curvature, so CONVERGED
    means a small gradient and no curvature below -sqrt(eps) max|lambda| ("exact": all directions;
    "cg": the Krylov space of a random direction).

    Args:
        subproblem: "exact": the Hessian (n, n) at each accepted point, Cholesky, and where that
            does not settle it, `eigh` and the secular equation of Moré & Sorensen (1983), hard case
            included. "cg": Steihaug's truncated conjugate gradients (1983) on Hessian-vector
            products, n vectors of memory. None: "exact" up to 1,000 variables.
        tol: stopping tolerance, needed by "cg" to know when to look for negative curvature;
            `solve` fills it in.

    """

    subproblem: str | None = static(default=None)
    tol: ArrayLike | None = None

    def unrolls(self, size: int) -> bool:
        """Reverse mode passes through "exact" only: "cg" has a loop of its own."""
        return self._exact(size)

    def __post_init__(self):
        """Refuse unknown subproblem solvers."""
        if self.subproblem not in (None, "exact", "cg"):
            raise ValueError(
                f"TrustRegion(subproblem=...) must be 'exact', 'cg' or None, but "
                f"{self.subproblem!r} came."
            )

    def _exact(self, size: int) -> bool:
        return self.subproblem == "exact" or (self.subproblem is None and size <= 1000)

    def start_model(self, x):
        """A zero Hessian, or nothing."""
        return jnp.zeros((x.shape[0], x.shape[0]), x.dtype) if self._exact(x.shape[0]) else ()

    def model(self, problem, x, args):
        """The Hessian, or nothing: products are taken where they are needed."""
        return problem.hessian(x, args) if self._exact(x.shape[0]) else ()

    def propose(self, problem, model, x, gradient, radius, args):
        """The minimiser of the model within the radius, exact or truncated."""
        if self._exact(x.shape[0]):
            return exact_step(model, gradient, radius)
        tol = jnp.finfo(x.dtype).eps ** 0.5 if self.tol is None else self.tol
        probe = norm_inf(gradient) <= tol
        return truncated_step(problem.hessian_product(x, args), gradient, radius, probe)


# -- exact subproblem ------------------------------------------------------------------------------


def exact_step(hessian: Array, gradient: Array, radius: Array) -> Proposal:
    """The global minimiser of g'p + p'Hp/2 within |p| <= radius.

    The Newton step where H is positive definite and the step fits, by Cholesky; else by `eigh`,
    exact in the hard case too. O(n^3). A Hessian that is not finite counts as 0, unsettled.
    """
    finite = jnp.all(jnp.isfinite(hessian))
    hessian = jnp.where(finite, hessian, 0)
    frozen = lax.stop_gradient(hessian)
    newton, definite = newton_step(hessian, gradient)
    inside = definite & (safe_norm(newton) <= radius)
    # In a batch both branches run. The second gets the identity where it is not needed: that is
    # cheap, and it orders the two LAPACK calls, which can deadlock jaxlib's CPU threads otherwise.
    other = choose(inside, jnp.eye(gradient.shape[0], dtype=gradient.dtype), frozen)

    def easy(_):
        decrease = -0.5 * (gradient @ newton)
        return Proposal(newton, decrease, jnp.array(True))

    def hard(_):
        proposal = spectral_step(spectrum(other), gradient, radius)
        return proposal._replace(settled=proposal.settled & finite)

    return lax.cond(inside, easy, hard, None)


def newton_step(hessian: Array, gradient: Array) -> tuple[Array, Array]:
    """-H^-1 g by Cholesky, and whether H is safely positive definite."""
    frozen = lax.stop_gradient(hessian)
    # Scaled to a unit diagonal, so that units of x decide neither what is safe nor the rounding.
    diagonal = jnp.diagonal(frozen)
    units = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
    factor, definite = psd_factor(units[:, None] * frozen * units)
    newton = lax.custom_linear_solve(
        lambda v: hessian @ v,
        -gradient,
        lambda _, b: units * psd_solve(factor, units * b),
        symmetric=True,  # derivatives go by the product
    )
    return newton, definite


def spectral_step(
    hessian: Spectrum, gradient: Array, radius: Array, slope: Array | float = 0.0
) -> Proposal:
    """By eigenvalues: p = -(H + mu)^-1 g with |p| = radius + slope mu, mu >= max(0, -lambda_1).

    With slope 0 the minimiser of g'p + p'Hp/2 within the radius, mu = 0 where it lies inside. With
    radius 0 and slope 1/sigma that of g'p + p'Hp/2 + sigma |p|^3/3. `decrease` is without |p|^3.
    """
    values, vectors = hessian
    eps, tiny = jnp.finfo(values.dtype).eps, jnp.finfo(values.dtype).tiny
    size = jnp.max(jnp.abs(values))
    b = vectors.T @ gradient
    least = values[0]
    # Work in t = mu + min(lambda_1, 0) above the pole, where the shifted eigenvalues are gap + t.
    gap = values - jnp.minimum(least, 0)
    radius = radius - slope * jnp.minimum(least, 0)
    # The least t is far below any that matters, so that small eigenvalues keep their steps.
    ceiling = jnp.maximum(_lone_root(jnp.linalg.norm(b), 0 * radius, radius, slope), tiny)
    floor = 10 * eps * jnp.minimum(size, jnp.maximum(ceiling, eps * size))
    floor = jnp.maximum(floor, tiny)
    ceiling = jnp.maximum(ceiling, floor)
    # Each |b_i| / (gap_i + t) is at most |p|: a lower bound, from which Newton is monotone.
    below = jnp.clip(jnp.max(_lone_root(jnp.abs(b), gap, radius, slope)), floor, ceiling)
    t = lax.stop_gradient(secular_root(gap, b, radius, slope, below, ceiling))
    radius = radius + slope * t
    p = -b / (gap + t)
    # Inside at t = floor: interior minimiser if convex, hard case if not: go on along v_1.
    indefinite = least < -(eps**0.5) * size
    short = indefinite & (safe_norm(p) < radius)
    missing = lax.stop_gradient(jnp.sqrt(jnp.maximum(radius**2 - jnp.sum(p[1:] ** 2), 0)))
    p = p.at[0].set(jnp.where(short, jnp.where(b[0] > 0, -missing, missing), p[0]))
    p = p * jnp.minimum(1, radius / jnp.maximum(safe_norm(p), tiny))
    decrease = -(b @ p + 0.5 * (values * p) @ p)
    return Proposal(vectors @ p, decrease, ~indefinite)


def _lone_root(b: Array, gap: Array, radius: Array, slope: Array | float) -> Array:
    """The t with b / (gap + t) = radius + slope t, for b >= 0; negative if it is at t < 0."""
    root = jnp.sqrt((radius - slope * gap) ** 2 + 4 * slope * b)
    below = radius + slope * gap + root
    return 2 * (b - gap * radius) / jnp.where(below > 0, below, 1)


def secular_root(gap, b, radius, slope, floor: Array, ceiling: Array) -> Array:
    """T in [floor, ceiling] with |b / (gap + t)| = radius + slope t; `floor` where less there.

    Newton on 1/|p| - 1/(radius + slope t), concave and nearly linear, kept in a shrinking bracket.
    """

    def refine(_, carry):
        t, low, high = carry
        p = b / (gap + t)
        length, goal = jnp.linalg.norm(p), radius + slope * t
        low = jnp.where(length > goal, t, low)
        high = jnp.where(length > goal, high, t)
        bend = jnp.sum(p * p / (gap + t)) * goal + slope * length * length * (length / goal)
        safe = jnp.where(bend > 0, bend, 1)
        newton = t + (length - goal) * length**2 / safe
        middle = jnp.sqrt(low * high)
        good = (newton >= low) & (newton <= high) & (bend > 0)  # equal: converged, stay
        return jnp.where(good, newton, middle), low, high

    return lax.fori_loop(0, 12, refine, (floor, floor, ceiling))[0]


# -- truncated subproblem --------------------------------------------------------------------------


class _Krylov(NamedTuple):
    """Steihaug's iteration: p with image hp = H p, residual r = b + H p, direction d."""

    p: Array
    hp: Array
    r: Array
    d: Array
    bend: Array  # d'Hd / d'd of the last direction
    stiffest: Array  # largest |d'Hd / d'd| so far
    products: Array
    stop: Array


def truncated_step(
    product, gradient: Array, radius: Array, probe: Array, *, reflect: bool = False
) -> Proposal:
    """Steihaug's conjugate gradients on g'p + p'Hp/2, up to the radius or a d with d'Hd <= 0.

    Such a d is followed to the radius, or with `reflect` as far as -d'Hd in its place would lead.
    With `probe`, b is a fixed random direction in place of g: not a step towards a smaller gradient
    but a search of the Krylov space of b for negative curvature, which is followed if found.
    At most min(n, 200) products; relative residual min(0.01, sqrt|g|). Source: Steihaug (1983).
    """
    n, dtype = gradient.shape[0], gradient.dtype
    root = float(jnp.finfo(dtype).eps) ** 0.5
    random = jax.random.normal(jax.random.key(0), (n,), dtype)
    b = jnp.where(probe, random / jnp.linalg.norm(random), gradient)
    norm = jnp.linalg.norm(b)
    target = jnp.where(probe, root**0.5, jnp.minimum(FORCING, jnp.sqrt(norm))) * norm

    def going(k: _Krylov):
        return (jnp.linalg.norm(k.r) > target) & (k.products < min(n, 200)) & ~k.stop

    def advance(k: _Krylov):
        image = product(k.d)
        dd, rr = k.d @ k.d, k.r @ k.r
        bend = (k.d @ image) / dd
        stiffest = jnp.maximum(k.stiffest, jnp.abs(bend))
        convex = bend > root * root * stiffest
        alpha = jnp.where(convex, rr / jnp.where(convex, bend * dd, 1), 0)
        leaves = ~probe & (~convex | (jnp.linalg.norm(k.p + alpha * k.d) >= radius))
        edge = _to_boundary(k.p, k.d, radius)
        if reflect:
            bent = jnp.abs(bend) * dd
            edge = jnp.where(bent * edge > rr, rr / jnp.where(bent > 0, bent, 1), edge)
        alpha = jnp.where(leaves, edge, alpha)
        r = k.r + alpha * image
        d = -r + (r @ r) / rr * k.d
        stop = leaves | ~convex
        return _Krylov(
            k.p + alpha * k.d, k.hp + alpha * image, r, jnp.where(stop, k.d, d), bend, stiffest,
            k.products + 1, stop,
        )  # fmt: skip

    zero, no = jnp.zeros_like(b), jnp.array(False)
    start = _Krylov(zero, zero, b, -b, norm * 0, norm * 0, jnp.zeros((), jnp.int32), no)
    end = lax.while_loop(going, advance, start)
    negative = end.stop & (end.bend < -root * end.stiffest)

    decrease = -(gradient @ end.p + 0.5 * (end.p @ end.hp))
    length = jnp.linalg.norm(end.d)
    uphill = gradient @ end.d > 0
    escape = jnp.where(uphill, -1, 1) * radius / jnp.where(length > 0, length, 1) * end.d
    gained = -(gradient @ escape) - 0.5 * radius**2 * end.bend
    p = jnp.where(probe, jnp.where(negative, escape, 0), end.p)
    return Proposal(p, jnp.where(probe, jnp.where(negative, gained, 0), decrease), ~negative)


def _to_boundary(p: Array, d: Array, radius: Array) -> Array:
    """The t >= 0 with |p + t d| = radius, for |p| <= radius."""
    length = jnp.linalg.norm(d)
    p = p / radius  # so that the square of a long radius does not overflow
    along = p @ (d / length)
    room = jnp.maximum(1 - p @ p, 0)
    return (jnp.sqrt(along * along + room) - along) * (radius / length)
