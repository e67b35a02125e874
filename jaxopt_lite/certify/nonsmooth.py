"""First- and second-order conditions of f + g, g convex and known by its prox.

    0 in grad f(x) + dg(x)     distance of -grad f(x) to the subdifferential, entry by entry
    curvature where g is smooth along its active manifold       Z'(H + hess g)Z
    F(x) - F* <= gap           Fenchel's dual at a multiple of grad f(x), for convex f

Everything is taken from the functions at x; no solver is asked.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ..core.tracing import FlatProblem
from ..core.types import Residuals
from ..linalg import Form, choose, inertia_tolerance, materialize, norm_inf
from ..prox import Proximable
from .classify import Kind

PyTree = Any


class NonsmoothReport(NamedTuple):
    """Optimality of f + g at x, in detail; pytrees have the structure of x.

    `value` is F(x). `subgradient` is the element of dg(x) nearest to -grad f(x), `scaled` its
    distance from there over the size of the two, to be compared with `tolerance`.

    For a g that is a sum over the entries of x: `at_kink` says where g is not differentiable,
    `slack` how far -grad f is inside the interval of subgradients there (NaN elsewhere), for the l1
    norm weight - |df/dx_i|: so much the gradient may still change before the entry leaves 0. `weak`
    counts kinks without slack: there derivatives of the answer are one-sided. None for other g.

    The active manifold at x, where g is smooth, has `dimension` d; the first d `eigenvalues` (n,)
    are those of the Hessian of F along it, weak kinks counted as free, the rest NaN; `negative`,
    `zero` and `positive` is their inertia. `gap` bounds F(x) - F* if f is convex; infinite where no
    dual point is known.
    """

    value: Array
    subgradient: PyTree
    scaled: Array
    tolerance: Array
    at_kink: PyTree
    slack: PyTree
    weak: Array | None
    dimension: Array
    eigenvalues: Array
    negative: Array
    zero: Array
    positive: Array
    gap: Array


def examine_nonsmooth(
    problem: FlatProblem,
    form: Form,
    x: PyTree,
    params: tuple,
    tol: ArrayLike | None,
    floor: ArrayLike | None,
) -> tuple[Residuals, NonsmoothReport, Array]:
    """The residuals, the report and the verdict at a point."""
    x = form.ravel(x)
    eps = jnp.finfo(x.dtype).eps
    tol = jnp.asarray(eps**0.375 if tol is None else tol, x.dtype)
    term = problem.term(params)
    value, gradient = problem.value_and_gradient(x, params)
    total = value + term.value(x)
    near = term.nearest_subgradient(x, -gradient)
    distance = norm_inf(gradient + near)
    size = jnp.maximum(norm_inf(gradient), norm_inf(near))
    scaled = distance / jnp.where(size > 0, size, 1)

    kink, slack, weak = _kinks(term, x, gradient, tol * size)
    push = jax.linearize(lambda u: term.prox(u, 1.0), x - gradient)[1]
    spread = materialize(push, x.shape[0], x.dtype)
    if weak is not None:
        spread = spread + jnp.diag(jnp.where(weak, 1 - jnp.diagonal(spread), 0))
    hessian = problem.hessian(x, params)
    dimension, values, (negative, zero, positive) = _curvature(hessian, spread)

    stationary = scaled <= tol
    kind = jnp.where(
        negative > 0,
        int(Kind.SADDLE),
        jnp.where(zero > 0, int(Kind.DEGENERATE), int(Kind.STRICT_MINIMUM)),
    )
    kind = jnp.where(stationary, kind, int(Kind.NOT_STATIONARY))
    kind = jnp.where(jnp.isfinite(total) & jnp.isfinite(distance), kind, int(Kind.NONFINITE))
    kind = jnp.where(jnp.isposinf(term.value(x)), int(Kind.INFEASIBLE), kind)
    report = NonsmoothReport(
        value=total,
        subgradient=form.unravel(near),
        scaled=scaled,
        tolerance=tol,
        at_kink=None if kink is None else _like(form, kink),
        slack=None if slack is None else form.unravel(slack),
        weak=None if weak is None else jnp.sum(weak, dtype=jnp.int32),
        dimension=dimension,
        eigenvalues=values,
        negative=negative,
        zero=zero,
        positive=positive,
        gap=_gap(problem, term, x, value, gradient, floor),
    )
    zero_residual = jnp.zeros_like(distance)
    residuals = Residuals(distance, zero_residual, zero_residual, zero_residual)
    return residuals, report, kind.astype(jnp.int32)


def _kinks(term: Proximable, x: Array, gradient: Array, rounding: Array):
    """Where the subdifferential is an interval, the slack inside it, and where derivatives break.

    They do at a kink without slack, and within rounding of a kink, where the subdifferentials on
    both sides of x differ by more than a smooth function's would.
    """
    if not term.separable:
        return None, None, None
    infinite = jnp.full_like(x, jnp.inf)
    low, high = (term.nearest_subgradient(x, end) for end in (-infinite, infinite))
    kink = low < high
    slack = jnp.where(kink, jnp.minimum(-gradient - low, high + gradient), jnp.nan)
    reach = jnp.finfo(x.dtype).eps ** (2 / 3) * jnp.maximum(1, jnp.abs(x))
    below = term.nearest_subgradient(x - reach, -infinite)
    above = term.nearest_subgradient(x + reach, infinite)
    near = ~kink & (above - below > rounding)
    return kink, slack, (kink & (slack <= rounding)) | near


def _curvature(hessian: Array, spread: Array) -> tuple[Array, Array, tuple[Array, ...]]:
    """Dimension, eigenvalues and inertia of the Hessian of F along the range of J = `spread`.

    J = (I + hess g)^-1 there, so that the curvature of g itself is J^-1 - I.
    """
    n, eps = hessian.shape[0], jnp.finfo(hessian.dtype).eps
    share, basis = jnp.linalg.eigh(0.5 * (spread + spread.T))
    inside = share > eps**0.5
    along = basis.T @ (0.5 * (hessian + hessian.T)) @ basis
    along = jnp.where(inside[:, None] & inside, along, 0)
    along = along + jnp.diag(jnp.where(inside, 1 / jnp.where(inside, share, 1) - 1, 0))
    size = jnp.sqrt(jnp.sum(along * along))
    # Directions outside get an eigenvalue above all others, and so come last.
    filled = along + jnp.diag(jnp.where(inside, 0, 1 + 2 * size))
    values = jnp.linalg.eigh(jnp.where(jnp.isfinite(size), filled, 0))[0]
    dimension = jnp.sum(inside, dtype=jnp.int32)
    counted = jnp.arange(n, dtype=jnp.int32) < dimension
    unsure = inertia_tolerance(jnp.where(counted, values, 0)) + 1e-2 * eps**0.5 * size
    tally = lambda which: jnp.sum(counted & which, dtype=jnp.int32)
    inertia = tally(values < -unsure), tally(jnp.abs(values) <= unsure), tally(values > unsure)
    return dimension, jnp.where(counted, values, jnp.nan), inertia


def _gap(problem, term, x: Array, value: Array, gradient: Array, floor) -> Array:
    """F(x) minus the best dual value found at multiples s y of y = grad f(x).

    D(s y) = -f*(s y) - g*(-s y). For convex f, f*(s y) <= s (x'y - f) - (1 - s) inf f: all that is
    needed is a lower bound of f, and for s = 1 not even that. For half a sum of squares of affine
    residuals, f*(s y) <= s^2 f + s (x'y - 2 f). Conjugates that are indicators forgive a relative
    excess of eps^(3/5): a multiple counts if one a little larger is finite.
    """
    squares = problem.kind == "least squares"
    low = jnp.asarray((0.0 if squares else -jnp.inf) if floor is None else floor, x.dtype)
    margin = 2 * float(jnp.finfo(x.dtype).eps) ** 0.6
    inner, total = x @ gradient, value + term.value(x)

    def at(e: Array) -> Array:
        s = 1 / (1 + e)
        bound = s * (inner - value) - choose(e > 0, (1 - s) * low, jnp.zeros_like(low))
        if squares:
            bound = jnp.minimum(bound, s * s * value + s * (inner - 2 * value))
        inside = jnp.isfinite(term.conjugate_value(-(1 + margin) * s * gradient))
        gap = total + bound + term.conjugate_value(-s * gradient)
        return jnp.where(inside & ~jnp.isnan(gap), gap, jnp.inf)

    try:
        octaves = jnp.asarray([0.0, *(margin * 2.0**k for k in range(48))], x.dtype)
        coarse = jax.vmap(at)(octaves)
    except NotImplementedError:
        return jnp.full_like(value, jnp.inf)
    best = jnp.argmin(coarse)
    start, end = octaves[jnp.maximum(best - 1, 0)], octaves[best]
    share = jnp.linspace(0, 1, 64, dtype=x.dtype)
    fine = jax.vmap(at)(start + share * (end - start))
    return jnp.minimum(coarse[best], jnp.min(fine))


def _like(form: Form, flags: Array) -> PyTree:
    """A vector of truth values in the structure of x."""
    numbers = form.unravel(flags.astype(form.dtype))
    return jax.tree.map(lambda leaf: leaf > 0.5, numbers)


VERDICTS = {
    Kind.STRICT_MINIMUM: "strict local minimum",
    Kind.SADDLE: "stationary, but no minimum",
    Kind.DEGENERATE: "stationary, not decided by second derivatives",
    Kind.NOT_STATIONARY: "not stationary",
    Kind.INFEASIBLE: "outside the domain of the non-smooth term",
    Kind.NONFINITE: "not defined here",
}
THEOREMS = {
    Kind.STRICT_MINIMUM: "0 is a subgradient, and the Hessian of F is positive definite along the "
    "active\n               manifold, weak kinks counted as free",
    Kind.SADDLE: "0 is a subgradient, and F falls along a direction of negative curvature in the "
    "active\n               manifold",
    Kind.DEGENERATE: "0 is a subgradient; the Hessian of F is singular along the active manifold. "
    "If f is\n               convex, x is a global minimum all the same",
    Kind.NOT_STATIONARY: "0 is no subgradient of F at x",
}


def nonsmooth_lines(certificate: Any, count: Callable[[PyTree], int]) -> list[str]:
    """The report as lines for a person: verdict, distance, kinks, curvature, gap, theorem."""
    kind, r = Kind(int(certificate.verdict)), certificate.nonsmooth
    lines = [
        VERDICTS.get(kind, kind.verdict),
        f"  value        {float(r.value):.10g}",
        f"  subgradient  0 is within {float(certificate.residuals.stationarity):.2g} of the "
        f"subdifferential ({float(r.scaled):.2g} of its terms; tolerance {float(r.tolerance):.2g})",
    ]
    if r.at_kink is not None:
        slacks = jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(r.slack)])
        kinks = count(r.at_kink)
        least = f", slack {float(jnp.nanmin(slacks)):.4g} or more" if kinks else ""
        weakly = f"; {int(r.weak)} on the edge of one: one-sided derivatives" if int(r.weak) else ""
        lines.append(f"  kinks        {kinks} of {slacks.size} entries{least}{weakly}")
    k = int(r.dimension)
    spread = (
        f", eigenvalues from {float(r.eigenvalues[0]):.4g} to {float(r.eigenvalues[k - 1]):.4g}"
    )
    lines.append(f"  curvature    active manifold of dimension {k}{spread if k else ''}")
    if jnp.isfinite(r.gap):
        lines.append(f"  gap          F(x) - F* <= {max(float(r.gap), 0.0):.2g} if f is convex")
    lines.append(f"  because      {THEOREMS.get(kind, kind.theorem)}")
    lines.append("  assumed      f is twice continuously differentiable, the term is convex")
    return lines
