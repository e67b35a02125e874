"""Levenberg-Marquardt and Powell's dogleg: sums of squares, robust sums, equations, bounds.

    f(x) = sum_i h_i(r_i(x))  ->  |A p + b|^2 / 2  with  A = sqrt(w) J,  w = h'',  b = h' / sqrt(w)

Both minimise that model within a region on the trust-region skeleton; they differ in the step.
"""

from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array, lax

from ...core import Multipliers, Point, Residuals, solver, static
from ...linalg import choose, psd_factor, psd_solve, safe_norm
from .trust_region import (
    Proposal,
    TrustRegionSkeleton,
    secular_root,
    truncated_step,
)

DENSE_LIMIT = 500  # unknowns; above, products with J and J' in place of J
# Up to here J is taken at every trial and gives the gradient too: one sweep over the residuals
# where a gradient first and J after acceptance make two. Rejected trials waste a J.
SWEEP_LIMIT = 10


class LinearModel(NamedTuple):
    """The residuals at an accepted point, linearised and weighted: |A p + b|^2 / 2."""

    residuals: Array  # r (m,), as they are
    jacobian: Array | None  # A (m, n); None if matrix-free
    shift: Array | None  # b (m,)
    scale: Array  # D (n,), the largest norms of the columns of A so far
    free: Array  # (n,), 1 where a variable may move, 0 where a bound holds it


class Sweep(NamedTuple):
    """The residuals at a trial and all first derivatives there."""

    residuals: Array  # r (m,)
    jacobian: Array  # J (m, n)
    slope: Array  # h' (m,)
    weight: Array  # w (m,)
    free: Array  # (n,)


class LeastSquares(TrustRegionSkeleton):
    """What the methods for residuals share: the linear model, its bounds and what is reported.

    Weights are the second derivatives h'' of the terms, at least a tenth of h'/r so that the model
    stays convex under a loss that is not (Triggs et al., 2000, section 4.3). Variables on a bound
    whose gradient points out of the box are held, steps of the others are cut off at the bounds
    (Kanzow, Yamashita & Fukushima, 2004).
    """

    kinds: ClassVar = ("least squares", "equations")

    def unrolls(self, size: int) -> bool:
        """No: derivatives do not pass through the factorisations of a rank-deficient Jacobian."""
        return False

    def _dense(self, size: int) -> bool:
        return size <= DENSE_LIMIT

    def init(self, problem, point, args):
        """At the start, within the bounds, nothing evaluated."""
        x = jnp.clip(point.x, *problem.box(args))
        state = super().init(problem, Point(x, _prices(problem, x, x * 0, args)), args)
        n, m = x.shape[0], jax.eval_shape(problem.inner, x, args).shape[0]
        dense = self._dense(n)
        self._check(n, m)
        model = LinearModel(
            jnp.zeros(m, x.dtype),
            jnp.zeros((m, n), x.dtype) if dense else None,
            jnp.zeros(m, x.dtype) if dense else None,
            jnp.zeros(n, x.dtype),
            jnp.ones(n, x.dtype),
        )
        return state._replace(model=(model, self.factor(model)))

    def _check(self, n: int, m: int) -> None:
        """Refuse shapes the method is not for."""

    def start_model(self, x):
        """Made in `init`, which knows the number of residuals."""
        return ()

    def factor(self, model: LinearModel) -> Any:
        """What is computed once for all steps from a point."""
        return ()

    def place(self, problem, x, step, args):
        """Within the bounds, and on one that is missed by rounding only."""
        if problem.bounds is None:
            return x + step
        lower, upper = problem.box(args)
        near = 4 * jnp.finfo(x.dtype).eps * jnp.maximum(jnp.abs(x), jnp.abs(x + step))
        x = x + step
        x = jnp.where(x - lower <= near, lower, x)
        return jnp.where(upper - x <= near, upper, x)

    def first_size(self, model, x, gradient):
        """|D x|, or the norm of the residuals at 0: Moré (1978), section 6."""
        size = safe_norm(_positive(model[0].scale) * x)
        other = safe_norm(model[0].residuals)
        return choose(size > 0, size, choose(other > 0, other, jnp.ones_like(other)))

    def learn(self, problem, model, pair, x, gradient, accept, args):
        """Linearise at an accepted point; a rejected trial changes nothing."""

        def look():
            new = self._linearise(problem, model[0], x, gradient, args)
            return new, self.factor(new)

        return lax.cond(accept, look, lambda: model)

    def _linearise(self, problem, old: LinearModel, x, gradient, args) -> LinearModel:
        if self._dense(x.shape[0]):
            return _weigh(old, _sweep(problem, x, gradient, args))
        free = _free(problem, x, gradient, args)
        return LinearModel(problem.inner(x, args), None, None, jnp.ones_like(x), free)

    def measure(self, problem, x, args):
        """With few unknowns, the gradient from J."""
        if x.shape[0] > SWEEP_LIMIT:
            return super().measure(problem, x, args)
        seen = _sweep(problem, x, None, args)
        gradient = seen.slope @ seen.jacobian
        seen = seen._replace(free=_free(problem, x, gradient, args))
        return problem.outer(seen.residuals, args), gradient, seen

    def adopt(self, model, seen, accept):
        """The linear model of the trial, if accepted."""

        def look():
            new = _weigh(model[0], seen)
            return new, self.factor(new)

        return lax.cond(accept, look, lambda: model)

    def propose(self, problem, model, x, gradient, radius, args):
        """The method's step, cut off at the bounds, and what it promises."""
        linear, factor = model
        if self._dense(x.shape[0]):
            return self._within(problem, linear, factor, x, gradient, radius, args)
        product = gauss_newton_product(problem, x, args)
        free = lambda v: linear.free * product(linear.free * v)
        proposal = truncated_step(free, linear.free * gradient, radius, jnp.array(False))
        p = jnp.clip(x + proposal.step, *problem.box(args)) - x
        decrease = -(gradient @ p + 0.5 * p @ product(p))
        return Proposal(p, decrease, jnp.array(True), safe_norm(p))

    def _within(self, problem, linear: LinearModel, factor, x, gradient, radius, args):
        scale = _positive(linear.scale)
        p = self.dense_step(linear, factor, scale, radius)
        p = jnp.clip(x + p, *problem.box(args)) - x
        image = linear.jacobian @ p
        decrease = -(linear.shift @ image + 0.5 * image @ image)
        return Proposal(p, decrease, jnp.array(True), safe_norm(scale * p))

    def dense_step(self, linear: LinearModel, factor, scale: Array, radius: Array) -> Array:
        """A (nearly) least |A p + b| with |scale p| <= radius."""
        raise NotImplementedError

    def report(self, problem, state, args):
        """The last accepted point, with the prices of its bounds; for equations, their residual."""
        report = super().report(problem, state, args)
        if problem.kind == "equations":
            return report._replace(residuals=Residuals.equations(state.model[0].residuals))
        if problem.bounds is None:
            return report
        prices = _prices(problem, state.point.x, state.gradient, args)
        net = state.gradient - prices.lower + prices.upper
        return report._replace(
            point=Point(state.point.x, prices), residuals=Residuals.unconstrained(net)
        )


def _free(problem, x: Array, gradient: Array, args: tuple) -> Array:
    """1 where a variable may move, 0 where it is on a bound that its gradient pushes against."""
    lower, upper = problem.box(args)
    held = ((x <= lower) & (gradient > 0)) | ((x >= upper) & (gradient < 0))
    return jnp.where(held, 0, 1).astype(x.dtype)


def _sweep(problem, x: Array, gradient: Array | None, args: tuple) -> Sweep:
    """Residuals, J and the derivatives of the terms; all are free where no gradient is given."""
    residuals = problem.inner(x, args)
    slope, weight = terms(problem, residuals, args)
    jacobian = jax.jacfwd if x.shape[0] <= residuals.shape[0] else jax.jacrev
    free = jnp.ones_like(x) if gradient is None else _free(problem, x, gradient, args)
    return Sweep(residuals, jacobian(lambda x: problem.inner(x, args))(x), slope, weight, free)


def _weigh(old: LinearModel, seen: Sweep) -> LinearModel:
    """A and b from J and the terms, and the scale that never shrinks."""
    root = jnp.sqrt(seen.weight)
    a = root[:, None] * seen.jacobian * seen.free
    scale = jnp.maximum(old.scale, jnp.linalg.norm(a, axis=0))
    return LinearModel(seen.residuals, a, seen.slope / root, scale, seen.free)


def _positive(scale: Array) -> Array:
    """1 in place of the zero norm of a column that no residual depends on so far."""
    return jnp.where(scale > 0, scale, 1)


def _prices(problem, x: Array, gradient: Array, args: tuple) -> Multipliers:
    """The multipliers of the bounds: what the gradient pushes against them."""
    if problem.bounds is None:
        return Multipliers()
    lower, upper = problem.box(args)
    below = jnp.where(x <= lower, jnp.maximum(gradient, 0), 0)
    above = jnp.where(x >= upper, jnp.maximum(-gradient, 0), 0)
    return Multipliers(lower=below, upper=above)


def terms(problem, residuals: Array, args: tuple) -> tuple[Array, Array]:
    """h'(r) and the weights, for the terms of a separable outer function."""
    slope_of = jax.grad(lambda z: problem.outer(z, args))
    slope, bend = jax.jvp(slope_of, (residuals,), (jnp.ones_like(residuals),))
    away = jnp.abs(residuals) > 0
    secant = jnp.where(away, slope / jnp.where(away, residuals, 1), bend)
    return slope, jnp.maximum(bend, 0.1 * secant)


def gauss_newton_product(problem, x: Array, args: tuple):
    """V -> J'HJ v, H the Hessian of the outer function: one product with J and one with J'."""
    z, push = jax.linearize(lambda x: problem.inner(x, args), x)
    pull = jax.linear_transpose(push, x)
    bend = jax.linearize(jax.grad(lambda z: problem.outer(z, args)), z)[1]
    return lambda v: pull(bend(push(v)))[0]


# -- the methods -----------------------------------------------------------------------------------


class _Triangle(NamedTuple):
    """A D^-1 = Q U diag(s) V' through its triangular factor: s (k,), V' (k, n), and U'Q'b."""

    values: Array
    right: Array
    shift: Array


@solver(accepts={"bounds"})
class LevenbergMarquardt(LeastSquares):
    """p = argmin |A p + b|^2 / 2 + lambda |D p|^2 / 2, D the largest column norms seen of A.

    Converges from far; quadratic where residuals vanish at the answer, else linear at a rate of
    residual times curvature. Invariant to the units of the unknowns. A rank-deficient Jacobian gets
    its minimum-norm step. Fewer residuals than unknowns are allowed.

    Args:
        damping: "radius": lambda so that |D p| <= radius, by singular values once a point and a
            secular equation a trial (Moré, 1978). "weight": lambda itself goes up and down with the
            quality of the model (Nielsen, 1999), one factorisation a trial; faster for thousands of
            small fits.
        factorization: of A: "qr", or "cholesky" of A'A, cheaper for many residuals, right up to a
            condition number of 1e7 in float64. None: "qr" for "radius", "cholesky" for "weight".

    Above 500 unknowns: Steihaug's conjugate gradients on products with J and J', no matrix.

    """

    # Over 90 CUTEst problems 2 took 24,138 steps and solved 85; 1.7, 1.5, 1.3: 20,729, 20,469 and
    # 20,034 steps, 85, 86 and 86 solved. A radius that hurries leads to other valleys.
    growth: ClassVar[float] = 1.5
    damping: str = static(default="radius")
    factorization: str | None = static(default=None)

    def __post_init__(self):
        """Refuse unknown names."""
        for name, known in (
            ("damping", ("radius", "weight")),
            ("factorization", (None, "qr", "cholesky")),
        ):
            value = getattr(self, name)
            if value not in known:
                raise ValueError(
                    f"LevenbergMarquardt({name}=...) must be one of {known}, but {value!r} came."
                )

    @property
    def _squares(self) -> bool:
        """Whether A'A is formed."""
        default = "qr" if self.damping == "radius" else "cholesky"
        return (self.factorization or default) == "cholesky"

    def first_size(self, model, x, gradient):
        """A radius, or the inverse of a weight of 1/1000 of the squared columns."""
        if self.damping == "radius" or not self._dense(x.shape[0]):
            return super().first_size(model, x, gradient)
        return jnp.full((), 1e3, x.dtype)

    def resize(self, size, ratio, finite, proposal):
        """The radius as ever; the inverse of the weight by Nielsen's rule, to 1/4 if rejected."""
        if self.damping == "radius" or not self._dense(proposal.step.shape[0]):
            return super().resize(size, ratio, finite, proposal)
        grown = size / jnp.maximum(1 / 3, 1 - (2 * ratio - 1) ** 3)
        return jnp.where(finite & (ratio > 1e-4), grown, 0.25 * size)

    def factor(self, model):
        """Singular values for "radius"; for "weight" what does not depend on it."""
        if not self._dense(model.scale.shape[0]):
            return ()
        a, b = model.jacobian, model.shift
        if self.damping == "weight":
            return (a.T @ a, a.T @ b) if self._squares else _triangular(a, b)
        scaled = a / _positive(model.scale)
        if self._squares:
            values, vectors = jnp.linalg.eigh(scaled.T @ scaled)
            values = jnp.sqrt(jnp.maximum(values, 0))
            safe = jnp.where(values > 0, values, 1)
            return _Triangle(values, vectors.T, vectors.T @ (scaled.T @ b) / safe)
        r, c = _triangular(scaled, b)
        left, values, right = jnp.linalg.svd(r, full_matrices=False)
        return _Triangle(values, right, left.T @ c)

    def dense_step(self, linear, factor, scale, radius):
        """By the secular equation, or with the weight that `radius` is the inverse of."""
        if self.damping == "radius":
            return _radius_step(factor, radius, linear.jacobian.shape[0], self._squares) / scale
        first, second = factor
        weighted = _weighted_normal if self._squares else _weighted_qr
        return weighted(first, second, scale, 1 / radius)


def _triangular(a: Array, b: Array) -> tuple[Array, Array]:
    """R and Q'b of A = QR, both from the triangle of [A b]: Q is never formed.

    Were it formed, that call of LAPACK and the next, of R, would not depend on each other, and such
    pairs can deadlock jaxlib's CPU threads in a batch.
    """
    k, n = min(a.shape), a.shape[1]
    triangle = jnp.linalg.qr(jnp.concatenate([a, b[:, None]], axis=1), mode="r")
    return triangle[:k, :n], triangle[:k, n]


def _radius_step(factor: _Triangle, radius: Array, m: int, squared: bool) -> Array:
    """Argmin |A p + b| with |p| <= radius, in the scaled variables; least norm if A is singular."""
    values, right, shift = factor
    eps = jnp.finfo(values.dtype).eps
    noise = max(m, right.shape[1]) * eps
    largest = jnp.max(values)
    keep = values > (noise**0.5 if squared else noise) * largest
    gap = jnp.where(keep, values * values, 1)
    b = jnp.where(keep, values * shift, 0)
    inside = safe_norm(b / gap) <= radius
    tiny = jnp.finfo(values.dtype).tiny
    ceiling = jnp.maximum(safe_norm(b) / radius, tiny)
    below = jnp.clip(jnp.max(jnp.abs(b) / radius - gap), tiny, ceiling)
    t = jnp.where(inside, 0, secular_root(gap, b, radius, 0.0, below, ceiling))
    return right.T @ (-b / (gap + t))


def _weighted_normal(square: Array, slope: Array, scale: Array, weight: Array) -> Array:
    """-(A'A + weight D^2)^-1 A'b, in scaled variables, by Cholesky."""
    scaled = square / jnp.outer(scale, scale) + weight * jnp.eye(scale.shape[0], dtype=scale.dtype)
    factor, _ = psd_factor(scaled)
    return -psd_solve(factor, slope / scale) / scale


def _weighted_qr(r: Array, c: Array, scale: Array, weight: Array) -> Array:
    """The least-squares solution of [A; sqrt(weight) D] p = [-b; 0], by QR."""
    n = scale.shape[0]
    rows = jnp.concatenate([r / scale, jnp.sqrt(weight) * jnp.eye(n, dtype=scale.dtype)])
    triangle, rhs = _triangular(rows, jnp.concatenate([c, jnp.zeros(n, c.dtype)]))
    return -jsl.solve_triangular(triangle, rhs) / scale


@solver(accepts={"bounds"})
class Dogleg(LeastSquares):
    """Powell's dogleg: along -g to the Cauchy point, then towards the Gauss-Newton step.

    One factorisation an accepted step, O(mn) a trial; otherwise as `LevenbergMarquardt`, whose
    steps are a little better. Source: Nocedal & Wright (2006), section 4.1; Powell (1970).
    """

    def factor(self, model):
        """The Gauss-Newton step in scaled variables, of least norm where A is singular."""
        if not self._dense(model.scale.shape[0]):
            return ()
        a, b = model.jacobian / _positive(model.scale), model.shift
        r, c = _triangular(a, b)
        left, values, right = jnp.linalg.svd(r, full_matrices=False)
        wide = jnp.full((), jnp.inf, b.dtype)
        newton = _radius_step(_Triangle(values, right, left.T @ c), wide, a.shape[0], False)
        slope = a.T @ b
        bend = jnp.sum((a @ slope) ** 2)
        cauchy = -(slope @ slope) / jnp.where(bend > 0, bend, 1) * slope
        return newton, cauchy

    def dense_step(self, linear, factor, scale, radius):
        """The point of the dogleg at the radius, or the Gauss-Newton step within it."""
        newton, cauchy = factor
        far, near = safe_norm(newton), safe_norm(cauchy)
        leg = newton - cauchy
        aa, ab = leg @ leg, cauchy @ leg
        room = jnp.maximum(radius**2 - near**2, 0)
        along = room / jnp.maximum(ab + jnp.sqrt(ab**2 + aa * room), jnp.finfo(aa.dtype).tiny)
        bent = cauchy + jnp.minimum(along, 1) * leg
        first = radius / jnp.where(near > 0, near, 1) * cauchy
        p = jnp.where(far <= radius, newton, jnp.where(near >= radius, first, bent))
        return p / scale
