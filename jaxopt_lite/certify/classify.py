r"""What a critical point is, by the exact Hessian: minimum, maximum, saddle, or not decided by it.

    gradient, Hessian -> eigh -> which eigenvalues are surely not zero -> inertia -> kind
                                 \-> where some may be: higher derivatives and samples, as evidence

Nothing here asks a solver: the objective and the point are all that is used.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Kind, Problem, check
from ..core.tracing import FlatProblem, flatten
from ..linalg import Form, choose, inertia_tolerance, norm_inf, spectrum

PyTree = Any
DENSE_LIMIT = 3000  # variables; the Hessian and its eigenvectors take 16 n^2 bytes in float64
NULL_DIRECTIONS = 8  # at most so many flat directions are looked at by higher derivatives
SAMPLES = 64  # directions of the sampling test, at each of its radii


class Evidence(NamedTuple):
    """What looking beyond second derivatives found. Evidence, no proof; empty of meaning unless
    some eigenvalue may be zero.

    `third` and `fourth` (k,) are directional derivatives along the k flattest eigenvectors, `below`
    and `above` by how much sampled values near x go below and above f(x), beyond what the gradient
    at x explains. `not_minimum` and
    `not_maximum` are True where one of these speaks against a minimum or a maximum by more than
    its rounding.
    """

    third: Array
    fourth: Array
    below: Array
    above: Array
    not_minimum: Array
    not_maximum: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CriticalPoint:
    """A point and the second-order story there; a batched one has one entry a lane.

    `kind` is a `Kind` code. `gradient_norm` is ||grad f||_inf; `distance` is max_i |q_i'g| /
    max(1, |lambda_i|) over eigenpairs of the Hessian, a gradient where curvature is small and a
    distance from the critical point where it is large; stationary when it is <= `tolerance`.
    `eigenvalues` (n,) ascend, `eigenvectors` (n, n) in columns over the raveled x; an eigenvalue
    counts as zero when within `uncertainty` (n,) of zero. `negative`, `zero`, `positive` is the
    inertia; the Morse index is `negative`. `descent` has the structure of x: the unit direction of
    most negative curvature, or zero where there is none.
    """

    x: PyTree
    value: Array
    gradient_norm: Array
    distance: Array
    tolerance: Array
    eigenvalues: Array
    eigenvectors: Array
    uncertainty: Array
    negative: Array
    zero: Array
    positive: Array
    kind: Array
    descent: PyTree
    evidence: Evidence

    @property
    def morse_index(self) -> Array:
        """Number of negative eigenvalues: independent directions along which f falls."""
        return self.negative

    def __str__(self) -> str:
        """A short report a person can read."""
        if isinstance(self.kind, jax.core.Tracer):
            return "CriticalPoint(being traced)"
        codes = np.asarray(self.kind)
        if codes.ndim:
            names, counts = np.unique(codes, return_counts=True)
            tally = ", ".join(
                f"{c} {Kind(int(k)).name}" for k, c in zip(names, counts, strict=True)
            )
            return f"CriticalPoint batch {codes.shape}: {tally}"
        return "\n".join(second_order_report(self))


def second_order_report(point: CriticalPoint) -> list[str]:
    """The lines of the report on one point: verdict, gradient, Hessian, theorem, evidence."""
    kind = Kind(int(point.kind))
    values = np.asarray(point.eigenvalues)
    negative, zero, positive = int(point.negative), int(point.zero), int(point.positive)
    relation = "<=" if float(point.distance) <= float(point.tolerance) else ">"
    lines = [
        kind.verdict,
        f"  value        {float(point.value):.10g}",
        f"  |gradient|   {float(point.gradient_norm):.3g}; scaled by curvature "
        f"{float(point.distance):.3g} {relation} {float(point.tolerance):.3g}",
        f"  Hessian      {positive} positive, {zero} zero, {negative} negative eigenvalues",
        f"               from {values[0]:.4g} to {values[-1]:.4g}, Morse index {negative}",
    ]
    if kind == Kind.STRICT_MINIMUM:
        lines.append(f"               condition number {values[-1] / values[0]:.3g}")
    width = float(np.max(np.asarray(point.uncertainty)))
    if zero and width > 0:
        lines.append(f"               eigenvalues within {width:.1g} of 0 count as zero")
    lines.append(f"  because      {kind.theorem}")
    if kind in (Kind.SADDLE, Kind.DEGENERATE) and negative:
        lines.append("  descent      along `descent`, the eigenvector of the smallest eigenvalue")
    if kind == Kind.DEGENERATE:
        lines.extend(_evidence_lines(point))
    lines.append("  assumed      f is twice continuously differentiable near x")
    return lines


def _evidence_lines(point: CriticalPoint) -> list[str]:
    """What speaks for or against a minimum where second derivatives do not decide."""
    found = point.evidence
    against = []
    if int(point.negative):
        against.append("a minimum (negative curvature)")
    elif bool(found.not_minimum):
        against.append("a minimum")
    if int(point.positive):
        against.append("a maximum (positive curvature)")
    elif bool(found.not_maximum):
        against.append("a maximum")
    third = float(np.max(np.abs(np.asarray(found.third))))
    fourth = np.asarray(found.fourth)
    return [
        "  evidence     " + ("against " + ", against ".join(against) if against else "none found"),
        f"               flat directions: |third derivative| up to {third:.2g}, fourth from "
        f"{fourth.min():.2g} to {fourth.max():.2g}",
        f"               samples nearby: down to f(x) - {float(found.below):.2g}, up to f(x) + "
        f"{float(found.above):.2g}",
    ]


def classify(
    fun: Callable[..., Array],
    x: PyTree,
    args: tuple = (),
    *,
    tol: ArrayLike | None = None,
    evidence: bool = True,
    has_aux: bool = False,
) -> CriticalPoint:
    """Decide by exact second derivatives what kind of critical point of `fun` the point `x` is.

    An eigenvalue of the Hessian counts as nonzero only if it exceeds 10 n eps max|lambda|, the
    rounding of `eigh`, plus twice its change over one Newton step from x: a verdict at an
    approximate critical point is one about the exact point nearby (Newton-Kantorovich), which a
    singular Hessian does not allow. So `x**4` near 0 is DEGENERATE however small its gradient.

    Args:
        fun: objective `fun(x, *args)`; returns `(value, aux)` with `has_aux=True`.
        x: pytree of floating arrays, at most 3,000 numbers: the Hessian is dense.
        args: tuple of pytrees.
        tol: x is stationary when max_i |q_i'g| / max(1, |lambda_i|) <= tol, over eigenpairs of the
            Hessian; None is 10 sqrt(eps) max(1, ||x||_inf): 1.5e-7 in float64, 3.5e-3 in float32.
        evidence: where the Hessian is singular, also take third and fourth derivatives along up to
            8 flat directions and sample values nearby.
        has_aux: whether `fun` returns a second output.

    Works under `jit` and `vmap`. Cost: two Hessians, two `eigh`, O(n^3). Raises as `solve` does.

    """
    return describe(Problem(fun, has_aux=has_aux), x, args, tol=tol, evidence=evidence)


def describe(
    problem: Problem,
    x: PyTree,
    args: tuple,
    *,
    tol: ArrayLike | None,
    evidence: bool,
    slack: ArrayLike | None = None,
) -> CriticalPoint:
    """`classify` for a `Problem` without constraints.

    `slack`, a number or (n,), is by how much the point may be off because the gradient is rounded,
    for a caller who knows: eigenvalues are then uncertain by their change over that distance too.
    """
    check.args_tuple(args)
    x = check.start("x", x)
    form = Form.of(x)
    if form.size > DENSE_LIMIT:
        raise ValueError(
            f"`x` has {form.size} variables; the Hessian is dense, for at most {DENSE_LIMIT}. "
            "For larger models look at a few Hessian-vector products, "
            "`jax.jvp(jax.grad(fun), (x,), (v,))`, along the directions of interest."
        )
    flat, captured = flatten(problem, form, args)
    return _describe(flat, form, x, (args, captured), tol, evidence, slack)


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _describe(
    problem: FlatProblem,
    form: Form,
    x: PyTree,
    params: tuple,
    tol: Any,
    evidence: bool,
    slack: Any,
) -> CriticalPoint:
    vector = form.ravel(x)
    value, gradient = problem.value_and_gradient(vector, params)
    values, vectors = spectrum(problem.hessian(vector, params))
    uncertainty = _uncertainty(problem, vector, params, gradient, values, vectors, slack)
    size = jnp.max(jnp.abs(values))
    eps = jnp.finfo(vector.dtype).eps
    tolerance = 10 * eps**0.5 * jnp.maximum(1, norm_inf(vector))
    tolerance = tolerance if tol is None else jnp.asarray(tol, vector.dtype)
    distance = jnp.max(jnp.abs(vectors.T @ gradient) / jnp.maximum(1, jnp.abs(values)))

    zero = jnp.abs(values) <= uncertainty
    negative = jnp.sum(~zero & (values < 0), dtype=jnp.int32)
    positive = jnp.sum(~zero & (values > 0), dtype=jnp.int32)
    zeros = jnp.sum(zero, dtype=jnp.int32)
    finite = jnp.isfinite(value + norm_inf(gradient) + size)
    stationary = distance <= tolerance
    descent = choose(negative > 0, vectors[:, 0], jnp.zeros_like(vector))
    descent = choose(gradient @ descent > 0, -descent, descent)
    return CriticalPoint(
        x=x,
        value=value,
        gradient_norm=norm_inf(gradient),
        distance=distance,
        tolerance=tolerance,
        eigenvalues=values,
        eigenvectors=vectors,
        uncertainty=uncertainty,
        negative=negative,
        zero=zeros,
        positive=positive,
        kind=_kind(finite, stationary, negative, zeros, positive),
        descent=form.unravel(descent),
        evidence=_look_further(problem, vector, params, values, vectors, value, gradient, evidence),
    )


def _uncertainty(problem, x, params, gradient, values, vectors, slack) -> Array:
    """How far each eigenvalue may be from that at the exact critical point: (n,)."""
    rounding = inertia_tolerance(values)
    solvable = jnp.abs(values) > rounding
    inverse = jnp.where(solvable, 1 / jnp.where(solvable, values, 1), 0)
    newton = vectors @ (inverse * (vectors.T @ gradient))
    ends = (x - newton)[None]
    if slack is not None:  # to both sides along the direction in which rounding moves x most
        flattest = vectors[:, jnp.argmin(jnp.abs(values))]
        moved = flattest * jnp.sum(jnp.abs(flattest) * slack)
        ends = jnp.stack([x - newton - moved, x - newton + moved])
    there = jax.vmap(lambda end: spectrum(problem.hessian(end, params)).values)(ends)
    moved = 2 * jnp.max(jnp.abs(there - values), axis=0)
    return rounding + jnp.where(jnp.isfinite(moved), moved, jnp.inf)


def _kind(finite: Array, stationary: Array, negative: Array, zero: Array, positive: Array) -> Array:
    """The verdict: the last line that applies decides."""
    code = jnp.int32(Kind.DEGENERATE)
    code = choose((zero == 0) & (negative == 0), int(Kind.STRICT_MINIMUM), code)
    code = choose((zero == 0) & (positive == 0), int(Kind.STRICT_MAXIMUM), code)
    code = choose((negative > 0) & (positive > 0), int(Kind.SADDLE), code)
    code = choose(~stationary, int(Kind.NOT_STATIONARY), code)
    return choose(~finite, int(Kind.NONFINITE), code)


def _look_further(problem, x, params, values, vectors, value, gradient, evidence: bool) -> Evidence:
    """Third and fourth derivatives along flat directions, and samples mostly in their span.

    x is only near the critical point. What the gradient left at x explains is no evidence: samples
    count beyond 2 |g| |distance|, third derivatives beyond what the fourth makes of the distance
    (6 |g| / |f4|)^(1/3) at which a quartic has that gradient.
    """
    n, dtype = x.shape[0], x.dtype
    none, no = jnp.zeros((), dtype), jnp.array(False)
    if not evidence:
        empty = jnp.zeros(0, dtype)
        return Evidence(empty, empty, none, none, no, no)
    flattest = jnp.argsort(jnp.abs(values))[: min(n, NULL_DIRECTIONS)]
    flat = vectors[:, flattest]

    def along(v: Array) -> tuple[Array, Array]:
        def f(t):
            return problem.value(x + t * v, params)

        third = _derivative(_derivative(_derivative(f)))
        return third(none), _derivative(third)(none)

    third, fourth = jax.lax.map(along, flat.T)
    slope, scale = jnp.linalg.norm(gradient), 1 + jnp.abs(value)
    rough = float(jnp.finfo(dtype).eps) ** 0.5 * scale
    explained = 2 * jnp.cbrt(6 * slope * fourth**2)
    bent = jnp.any(jnp.abs(third) > explained + rough)
    change, radii = _samples(problem, x, params, flat, value)
    noise = 10 * jnp.finfo(dtype).eps * scale + 2 * slope * radii
    below, above = jnp.max(-change - noise), jnp.max(change - noise)
    return Evidence(
        third,
        fourth,
        below=jnp.maximum(below, 0),
        above=jnp.maximum(above, 0),
        not_minimum=bent | (~bent & jnp.any(fourth < -rough)) | (below > 0),
        not_maximum=bent | (~bent & jnp.any(fourth > rough)) | (above > 0),
    )


def _derivative(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """F' of a function of one number, by forward mode."""
    return lambda t: jax.jvp(f, (t,), (jnp.ones_like(t),))[1]


def _samples(problem, x, params, flat: Array, value: Array) -> tuple[Array, Array]:
    """How f changes from x to points in the span of the flat directions, and their distances."""
    weights = jax.random.normal(jax.random.key(0), (SAMPLES, flat.shape[1]), x.dtype)
    directions = weights @ flat.T
    directions = directions / jnp.linalg.norm(directions, axis=1, keepdims=True)
    directions = jnp.concatenate([flat.T, -flat.T, directions])
    radii = jnp.asarray([1e-3, 1e-2, 3e-2, 1e-1], x.dtype) * (1 + jnp.linalg.norm(x))
    radii = jnp.repeat(radii, directions.shape[0])
    points = x + radii[:, None] * jnp.tile(directions, (4, 1))
    change = jax.lax.map(lambda p: problem.value(p, params), points, batch_size=SAMPLES) - value
    return jnp.where(jnp.isfinite(change), change, 0), radii
