r"""What a feasible point is, by the KKT conditions and the Hessian of the Lagrangian.

    constraints near x -> multipliers by least squares with signs -> residuals
                       \-> singular values: LICQ;  a theorem of the alternative: MFCQ
    which of them bind strongly -> tangent space -> reduced Hessian -> eigh -> inertia -> kind

Nothing here asks a solver: the problem and the point are all that is used, and the multipliers only
if they are given.

Legend: c constraints, all in one vector, A their Jacobian with rows of length 1, u multipliers for
such rows, L the Lagrangian, Z the tangent space of what binds strongly.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..core import Multipliers, Point, Residuals
from ..core.tracing import FlatProblem
from ..linalg import (
    Form,
    choose,
    inertia_tolerance,
    least_norm,
    non_negative_least_squares,
    norm_inf,
)
from .classify import Kind
from .stacking import flattened, shaped, sizes_of, split, stack

PyTree = Any
DENSE_LIMIT = 1000  # variables, and constraints with both sides of the bounds
MOST_WEAK = 4  # weakly active constraints whose cone is searched, face by face


class Qualification(NamedTuple):
    """Whether the gradients of the active constraints let multipliers exist and be unique.

    `licq`: they are linearly independent, so multipliers are unique; `smallest` is the least
    singular value of their Jacobian with rows of length 1 (1 where nothing is active). `mfcq`: the
    equalities are independent and some direction leads inside all active inequalities, so
    multipliers exist and are bounded; `margin` is 0 where a nonnegative combination of active
    gradients vanishes, which is when it fails (Gordan; Motzkin).
    """

    licq: Array
    smallest: Array
    mfcq: Array
    margin: Array


class ReducedHessian(NamedTuple):
    """The Hessian of the Lagrangian on the tangent space of the strongly active constraints.

    `dimension` k of that space; the first k `eigenvalues` (n,) ascend, the others are NaN; those
    within `uncertainty` of 0 count as zero. `negative`, `zero`, `positive` is the inertia.
    `descent`, in the structure of x, is the eigenvector of the smallest if that is negative, else
    0.
    """

    dimension: Array
    eigenvalues: Array
    uncertainty: Array
    negative: Array
    zero: Array
    positive: Array
    descent: PyTree


class ConstraintReport(NamedTuple):
    """The constraints at a point: prices, which of them bind, and which qualification holds.

    `multipliers`, `active` and `strong` have one entry a constraint, in its shape. Active is what
    is within rounding of its limit, measured by its gradient; strongly active what also has a
    multiplier surely above 0, as every equality. `scaled` is the largest entry of grad L over the
    terms it sums. `feasible` and `stationary` are the first-order verdicts. `by_cone`: curvature
    is negative somewhere in the tangent space, but positive in all of the critical cone, which
    weakly active constraints make smaller; looked for with up to 4 of these.
    """

    multipliers: Multipliers
    active: Multipliers
    strong: Multipliers
    scaled: Array
    feasible: Array
    stationary: Array
    qualification: Qualification
    hessian: ReducedHessian
    by_cone: Array
    value: Array
    tolerance: Array


@functools.partial(jax.jit, static_argnums=(0, 1))
def examine(
    problem: FlatProblem, form: Form, x: PyTree, params: tuple, given: Multipliers | None, tol: Any
) -> tuple[Residuals, ConstraintReport, Array]:
    """Residuals, report and `Kind` code; `given` multipliers are shaped as those of a solution."""
    x = form.ravel(x)
    dtype = x.dtype
    eps = float(jnp.finfo(dtype).eps)
    tol = jnp.asarray(eps**0.375 if tol is None else tol, dtype)
    reach = 1 + norm_inf(x)

    rows = lambda y: stack(problem.slacks(y, params))
    c, raw = rows(x), jax.jacfwd(rows)(x)
    sizes = sizes_of(problem.slacks(x, params))
    equal = np.arange(c.size) < sizes[0]
    value, gradient = problem.value_and_gradient(x, params)
    slopes = jnp.sqrt(jnp.sum(raw * raw, axis=1))
    steep = slopes > 0
    a = raw / jnp.where(steep, slopes, 1)[:, None]
    # Bounds that are infinite have c = -1 and no slope.
    exists = steep | (np.arange(c.size) < sizes[0] + sizes[1])

    # -- feasible? active? ---------------------------------------------------------------------
    violation = jnp.where(equal, jnp.abs(c), jnp.maximum(c, 0))
    # As a distance from the constraint; one whose gradient vanishes there is measured by itself.
    feasible = jnp.all(violation <= tol * reach * jnp.maximum(slopes, tol**0.5))
    if given is not None:
        flat = stack(flattened(given, form, sizes, dtype))
        rough = problem.residuals(Point(x, split(flat, sizes)), params).worst()
    near = tol if given is None else jnp.maximum(tol, jnp.sqrt(jnp.minimum(rough, 1e-2)))
    is_equality = jnp.asarray(equal)
    active = is_equality | (exists & (c >= -near * (1 + slopes) * reach))

    # A gradient that is gone, or turned, where the constraint is met is none: x^2 = 0 near 0.
    if c.size:
        to_it = jnp.where(active & steep, -c / jnp.where(steep, slopes, 1), 0)
        move = least_norm(jnp.where(active[:, None], a, 0), to_it, eps**0.5)
        turned = jax.jacfwd(rows)(x + move) - raw
        steep &= jnp.sqrt(jnp.sum(turned * turned, axis=1)) <= 0.1 * slopes
        a = jnp.where(steep[:, None], a, 0)

    # -- multipliers, first order ----------------------------------------------------------------
    signed = jnp.asarray(~equal)
    if given is None:
        u = non_negative_least_squares(a.T, -gradient, signed, active & steep)
        price = u / jnp.where(steep, slopes, 1)
    else:
        price = flat
    force = gradient + price @ raw
    terms = jnp.abs(gradient) + jnp.abs(price) @ jnp.abs(raw)
    scale = jnp.maximum(1, norm_inf(terms))
    scaled = norm_inf(force) / scale
    weight = price * slopes
    signs = jnp.all(~signed | ((weight >= -tol * scale) & (active | (weight <= near * scale))))
    priced = jnp.all(steep | (jnp.abs(price) * slopes <= tol * scale))
    stationary = (scaled <= tol) & signs & priced
    # A bound on both sides is an equality; its lower side stands for it.
    lower, upper = problem.box(params)
    pinned = (
        jnp.zeros(c.size, bool)
        .at[sum(sizes[:2]) :]
        .set(jnp.concatenate([lower == upper, 0 * lower > 1])[: sum(sizes[2:])])
    )
    strong = is_equality | pinned | (active & (weight > near * scale))
    weak = active & ~strong

    # -- qualifications and second order ---------------------------------------------------------
    qualification = _qualify(a, active, equal, eps)
    point = Point(x, split(price, sizes))
    hessian, shape = _reduced_hessian(problem, point, params, a, c, slopes, strong, force)
    along = a @ shape.lowest
    up, down = jnp.all(~weak | (along <= near)), jnp.all(~weak | (along >= -near))
    fits = (hessian.negative > 0) & (up | down)
    cone = Cone(fits, jnp.array(False), choose(up, shape.lowest, -shape.lowest))
    if any(sizes[1:]):
        open_still = (hessian.negative > 0) & ~fits & (jnp.sum(weak) <= MOST_WEAK)
        cone = jax.lax.cond(
            open_still,
            lambda: _search_cone(shape.full, a, strong, weak, hessian.uncertainty, near),
            lambda: cone,
        )
    kind = _kind(
        finite=jnp.isfinite(value + norm_inf(force) + norm_inf(c) + shape.size),
        feasible=feasible,
        stationary=stationary,
        licq=qualification.licq,
        mfcq=qualification.mfcq,
        hessian=hessian,
        inward=jnp.any(strong & signed),
        cone=cone,
    )
    report = ConstraintReport(
        multipliers=shaped(problem, form, price, sizes),
        active=shaped(problem, form, active, sizes),
        strong=shaped(problem, form, strong, sizes),
        scaled=scaled,
        feasible=feasible,
        stationary=stationary,
        qualification=qualification,
        hessian=hessian._replace(
            descent=form.unravel(choose(cone.falls, cone.direction, hessian.descent))
        ),
        by_cone=cone.strict,
        value=value,
        tolerance=tol,
    )
    return problem.residuals(point, params), report, kind


# -- constraint qualifications ---------------------------------------------------------------------


def _qualify(a: Array, active: Array, equal: np.ndarray, eps: float) -> Qualification:
    """LICQ by singular values, MFCQ by the alternative to a direction that leads inside."""
    small = 10 * eps**0.5
    one, yes = jnp.ones((), a.dtype), jnp.array(True)
    if not a.shape[0]:
        return Qualification(yes, one, yes, one)
    smallest = _smallest(a, active)
    margin = one
    if not equal.all():
        # A'u = 0, sum of u over inequalities 1, these u >= 0: possible just where MFCQ fails.
        signed = jnp.asarray(~equal)
        weights = (active & signed).astype(a.dtype)
        matrix = jnp.concatenate([a.T, weights[None]])
        rhs = jnp.zeros(matrix.shape[0], a.dtype).at[-1].set(1)
        u = non_negative_least_squares(matrix, rhs, signed, active)
        margin = jnp.linalg.norm(matrix @ u - rhs)
    some = equal.any() and not equal.all()
    equalities = _smallest(a[equal], jnp.ones(int(equal.sum()), bool)) if some else one
    equalities = smallest if equal.all() else equalities
    return Qualification(
        smallest > small, smallest, (margin > small) & (equalities > small), margin
    )


def _smallest(a: Array, used: Array) -> Array:
    """The least singular value of the used rows, 0 if they are more than the columns, 1 if none."""
    values = jnp.linalg.svd(jnp.where(used[:, None], a, 0), compute_uv=False)
    number = jnp.sum(used, dtype=jnp.int32)
    least = values[jnp.clip(number - 1, 0, values.size - 1)]
    least = jnp.where(number > values.size, 0, least)
    return jnp.where(number == 0, 1, least)


# -- second order ----------------------------------------------------------------------------------


class Cone(NamedTuple):
    """What is known of curvature on the critical cone {A_strong d = 0, A_weak d <= 0}."""

    falls: Array  # negative along `direction`, which is in the cone
    strict: Array  # positive in all of it
    direction: Array  # (n,)


class Shape(NamedTuple):
    """What the verdict needs besides the `ReducedHessian`."""

    full: Array  # (n, n), the Hessian of the Lagrangian
    lowest: Array  # (n,), the eigenvector of the smallest eigenvalue, 0 if the space is a point
    size: Array  # Frobenius norm of Z'HZ


def _reduced_hessian(problem, point, params, a, c, slopes, strong, force):
    """Z'HZ and its inertia; how far eigenvalues move over one Newton step makes them uncertain."""
    x, dtype, n = point.x, point.x.dtype, point.x.shape[0]
    eps = jnp.finfo(dtype).eps
    held = jnp.where(strong[:, None], a, 0)
    if a.shape[0]:
        left, singular, basis = jnp.linalg.svd(held, full_matrices=True)
        rank = jnp.sum(singular > 10 * eps**0.5, dtype=jnp.int32)
    else:
        basis, rank = jnp.eye(n, dtype=dtype), jnp.int32(0)
    inside = jnp.arange(n, dtype=jnp.int32) >= rank
    dimension = n - rank

    def lagrangian_hessian(y):
        slope = jax.grad(lambda z: problem.lagrangian(point._replace(x=z), params))
        return jax.jacfwd(slope)(y)

    def reduced(hessian):
        w = basis @ hessian @ basis.T
        w = jnp.where(inside[:, None] & inside, w, 0)
        return w, jnp.sqrt(jnp.sum(w * w))

    def decomposed(hessian):
        # Directions outside get an eigenvalue above all others, and so come last.
        w, size = reduced(hessian)
        w = jnp.where(jnp.isfinite(size), w, 0)
        return jnp.linalg.eigh(w + jnp.diag(jnp.where(inside, 0, 1 + 2 * size)))

    hessian = lagrangian_hessian(x)
    size = reduced(hessian)[1]
    values, vectors = decomposed(hessian)
    counted = jnp.arange(n, dtype=jnp.int32) < dimension
    rounding = inertia_tolerance(jnp.where(counted, values, 0)) + eps**0.5 * 1e-2 * size
    solvable = counted & (jnp.abs(values) > rounding)
    pull = vectors.T @ jnp.where(inside, basis @ force, 0)
    step = vectors @ jnp.where(solvable, -pull / jnp.where(solvable, values, 1), 0)
    normal = jnp.where(strong, -c / jnp.where(slopes > 0, slopes, 1), 0)
    correction = basis.T @ step
    if a.shape[0]:
        short = min(held.shape)
        large = singular > 10 * eps**0.5
        back = jnp.where(large, (left.T @ normal)[:short] / jnp.where(large, singular, 1), 0)
        correction += back @ basis[:short]
    there = decomposed(lagrangian_hessian(x + correction))[0]
    moved = 2 * jnp.max(jnp.where(counted, jnp.abs(there - values), 0))
    unsure = rounding + jnp.where(jnp.isfinite(moved), moved, jnp.inf)

    tally = lambda which: jnp.sum(counted & which, dtype=jnp.int32)
    negative, positive = tally(values < -unsure), tally(values > unsure)
    lowest = basis.T @ jnp.where(inside, vectors[:, 0], 0)
    descent = choose(negative > 0, lowest, jnp.zeros_like(lowest))
    return ReducedHessian(
        dimension=dimension,
        eigenvalues=jnp.where(counted, values, jnp.nan),
        uncertainty=jnp.where(dimension > 0, jnp.max(unsure), 0),
        negative=negative,
        zero=dimension - negative - positive,
        positive=positive,
        descent=descent,
    ), Shape(hessian, lowest, size)


def _search_cone(hessian, a, strong, weak, uncertainty, near) -> Cone:
    """Is d'Hd > 0 on the critical cone, or negative somewhere in it?

    Where d'Hd / d'd is least over the cone, d is an eigenvector of H on the span of a face: faces
    are what is left when some weakly active constraints are held. All are looked at; eigenvectors
    that are not isolated could hide one, and leave the question open.
    """
    n, most = hessian.shape[0], min(MOST_WEAK, a.shape[0])
    size = jnp.sqrt(jnp.sum(hessian * hessian))
    _, which = jax.lax.top_k(weak.astype(a.dtype), most)
    subsets = np.array(list(itertools.product((False, True), repeat=most)))
    held = strong | jnp.zeros((len(subsets), a.shape[0]), bool).at[:, which].set(
        jnp.asarray(subsets) & weak[which]
    )

    def face(held):
        _, singular, basis = jnp.linalg.svd(jnp.where(held[:, None], a, 0), full_matrices=True)
        rank = jnp.sum(singular > 10 * float(jnp.finfo(a.dtype).eps) ** 0.5, dtype=jnp.int32)
        inside = jnp.arange(n, dtype=jnp.int32) >= rank
        w = jnp.where(inside[:, None] & inside, basis @ hessian @ basis.T, 0)
        values, vectors = jnp.linalg.eigh(w + jnp.diag(jnp.where(inside, 0, 1 + 2 * size)))
        low = (jnp.arange(n, dtype=jnp.int32) < n - rank) & (values <= uncertainty)
        directions = basis.T @ vectors
        along = jnp.where(weak[:, None], a @ directions, 0)
        up, down = jnp.all(along <= near, axis=0), jnp.all(along >= -near, axis=0)
        gaps = jnp.diff(values, prepend=-jnp.inf, append=jnp.inf)
        alone = jnp.minimum(gaps[:-1], gaps[1:]) > 10 * uncertainty
        falls = low & (values < -uncertainty) & (up | down)
        first = jnp.argmax(falls)
        direction = jnp.where(up[first], 1, -1) * directions[:, first]
        return jnp.any(falls), jnp.all(~low | (~up & ~down & alone)), direction

    falls, clear, directions = jax.vmap(face)(held)
    return Cone(jnp.any(falls), jnp.all(clear), directions[jnp.argmax(falls)])


def _kind(finite, feasible, stationary, licq, mfcq, hessian, inward, cone: Cone) -> Array:
    """The verdict: the last line that applies decides."""
    minimum = ((hessian.negative == 0) & (hessian.zero == 0)) | cone.strict
    # Where f rises inward from an inequality it is no maximum. Necessary conditions need LICQ.
    falls = (hessian.negative > 0) & cone.falls & licq
    maximum = falls & (hessian.negative == hessian.dimension) & ~inward
    code = jnp.int32(Kind.DEGENERATE)
    code = choose(minimum, int(Kind.STRICT_MINIMUM), code)
    code = choose(falls, int(Kind.SADDLE), code)
    code = choose(maximum, int(Kind.STRICT_MAXIMUM), code)
    code = choose(~stationary, int(Kind.NOT_STATIONARY), code)
    code = choose(~stationary & ~mfcq, int(Kind.UNQUALIFIED), code)
    code = choose(~feasible, int(Kind.INFEASIBLE), code)
    return choose(~finite, int(Kind.NONFINITE), code)
