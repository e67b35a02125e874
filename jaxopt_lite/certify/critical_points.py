r"""All critical points of a function in a box that many starts find: minima, maxima, saddles.

    box -> low-discrepancy starts -> [ root of the gradient -> Newton steps -> measure ] each
        -> critical? in the box? -> one of each -> classify -> sorted, with the fate of every start

The part in brackets is one program for all starts, in units of the box: u = -1 is the lower bound
and 1 the upper. What is judged is the gradient, not a status: a minimum of |grad f| that is no
critical point is not in the answer.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..core import Problem, check, default_tolerance, root
from ..core.tracing import FlatProblem, flatten
from ..linalg import Form, choose, inertia_tolerance, norm_inf, safe_norm, spectrum
from .classify import DENSE_LIMIT, CriticalPoint, Kind, describe

PyTree = Any
MAX_STEPS = 200  # of the search from one start; most need 5 to 20
NEWTON_STEPS = 8
PROBE = 0.1  # how far along a flat direction a second critical point is looked for
ROWS = 40  # printed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CriticalPoints:
    """What `find_critical_points` found, and what became of every start.

    `points` is a batched `CriticalPoint`, lowest value first; `len` is how many. `hits` (k,) is how
    many starts ended at each. Where `continuum` (k,) is True, the point is one of a curve or
    surface of critical points; all that were reached with the same value are this one row, since f
    is constant on a connected set of them. hits.sum() + outside + unresolved + nonfinite ==
    starts: `outside` starts ended at critical points outside of the box, `unresolved` where the
    gradient is not zero to the tolerance, `nonfinite` where something is NaN or infinite.
    """

    points: CriticalPoint
    hits: Array
    continuum: Array
    starts: int
    outside: int
    unresolved: int
    nonfinite: int

    def __len__(self) -> int:
        """How many points."""
        return int(self.hits.shape[0])

    def only(self, kind: Kind) -> CriticalPoint:
        """The points of one kind, `Kind.SADDLE` for instance, as a batched `CriticalPoint`."""
        mask = np.asarray(self.points.kind) == kind
        return jax.tree.map(lambda leaf: leaf[mask], self.points)

    @property
    def index_sum(self) -> int | None:
        """The sum of (-1)^(Morse index); None if a point is degenerate or one of a continuum.

        It is 1 for all critical points of a function that grows without bound in all directions
        (Morse, 1934); another sum then says that some were not found, or are outside of the box.
        """
        index, kind = np.asarray(self.points.morse_index), np.asarray(self.points.kind)
        if np.any(kind == Kind.DEGENERATE) or np.any(np.asarray(self.continuum)):
            return None
        return int(np.sum((-1) ** index))

    def __str__(self) -> str:
        """A table a person can read."""
        return "\n".join(_report(self))


def find_critical_points(
    fun: Callable[..., Any],
    lower: PyTree,
    upper: PyTree,
    args: tuple = (),
    *,
    starts: int = 1000,
    key: Array | None = None,
    tol: float | None = None,
    has_aux: bool = False,
) -> CriticalPoints:
    r"""Search a box for points with grad f = 0, and classify them: minima, maxima and saddles.

    A search, no proof: what is in the answer is critical to the accuracy below, but a point that
    attracts few starts can be missed. Points with few `hits` say that there may be more of them,
    another key or more starts tell, and `CriticalPoints.index_sum` is a necessary test.

    From each start `root` solves grad f = 0, drawn to saddles and maxima as to minima; Newton steps
    follow. A point is critical when the next one is at most `tol`, by the pseudo-inverse of the
    Hessian, and no gradient beyond rounding is left along the Hessian's null space; or, where
    rounding hides a degenerate point, when the gradient is all rounding and Newton steps shrink.
    Rounding is that of a gradient of the size of the median over the starts: what is smaller by
    1e-15 (1e-6 in float32) everywhere around is a plateau, and a plateau is a continuum.

    Two ends are one point when closer than 20 `tol` plus what both may be off: for a degenerate
    point up to the cube root of rounding, 3e-5 of the box in float64, 2e-2 in float32. A step along
    the null space tells an isolated degenerate point from one of a continuum, the floor of a valley
    for instance: that is one row, flagged, however many of its points were reached.

    Args:
        fun: objective `fun(x, *args)`, twice differentiable; `(value, aux)` with `has_aux=True`.
            The search may leave the box; where fun is not finite it turns back.
        lower: the box: pytree of finite floating arrays, of the structure of x.
        upper: the same, > `lower` in every entry. Points on the boundary are in the box.
        args: tuple of pytrees.
        starts: how many, spread evenly over the box (Roberts' sequence, 2018).
        key: `jax.random.key` of a shift of that sequence; None is `jax.random.key(0)`. The same key
            gives the same answer.
        tol: distance from the exact point, as a part of half the width of the box in every entry.
            None is sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32.
        has_aux: whether `fun` returns a second output.

    Runs eagerly, as the size of its answer depends on the data; compiled once for each structure of
    x and `args` and number of starts. Cost: for every start some 30 dense Hessians and their
    factorisations, O(n^3), at most 220; memory for all starts at once, 10 n^2 numbers each.

    The kinds are those of `classify`, which takes eigenvalues of the Hessian in the units of x:
    where those of two variables differ by 1e7 (3e3 in float32) the softer one looks degenerate.

    Raises TypeError or ValueError for bad input as `solve` does, for infinite or crossed bounds,
    and inside `jit`, `vmap` or `grad`.

    """
    check.args_tuple(args)
    starts = check.count("`starts`", starts, way_out="A thousand is a good number in 2-D.")
    if tol is not None:
        check.number("`tol`", tol, 0.0, strict=True, way_out="None takes the default.")
    lower, upper = _box(lower, upper)
    form = Form.of(lower)
    if key is not None and not _is_key(key):
        raise TypeError(
            f"`key` must be a `jax.random.key(seed)` or None, but {key!r} came. The search is "
            "deterministic: the same key gives the same starts."
        )
    if form.size > DENSE_LIMIT:
        raise ValueError(
            f"the box has {form.size} variables; Hessians are dense, for at most {DENSE_LIMIT}."
        )
    problem = Problem(fun, has_aux=has_aux)
    flat, captured = flatten(problem, form, args)
    _refuse_tracers((lower, upper, args, captured))

    below, above = form.ravel(lower), form.ravel(upper)
    tol = default_tolerance(form.dtype) if tol is None else float(np.asarray(tol))
    ends = _search(
        flat, form, _spread(starts, form, key), (below + above) / 2, (above - below) / 2,
        jnp.asarray(tol, form.dtype), (args, captured),
    )  # fmt: skip
    ends = jax.tree.map(np.asarray, ends)

    finite = np.isfinite(ends.error) & np.all(np.isfinite(ends.x), axis=1)
    critical = finite & ends.critical
    inside = critical & (np.max(np.abs(ends.u), axis=1) <= 1 + tol + ends.error)
    chosen, owner = _one_of_each(ends, np.flatnonzero(inside), tol)
    points = _classified(problem, form, ends, chosen, args)
    # `classify` has the last word.
    kept = ~np.isin(points.kind, (Kind.NOT_STATIONARY, Kind.NONFINITE))
    hits = np.bincount(owner, minlength=len(chosen))
    order = np.argsort(points.value, kind="stable")
    order = order[kept[order]]
    return CriticalPoints(
        points=jax.tree.map(lambda leaf: jnp.asarray(leaf[order]), points),
        hits=jnp.asarray(hits[order], jnp.int32),
        continuum=jnp.asarray(ends.continuum[chosen][order]),
        starts=starts,
        outside=int(np.sum(critical & ~inside)),
        unresolved=int(np.sum(finite & ~critical)) + int(np.sum(hits[~kept])),
        nonfinite=int(np.sum(~finite)),
    )


# -- the search, one program for all starts --------------------------------------------------------


class _End(NamedTuple):
    """Where a start ended."""

    u: Array  # (n,), the box is [-1, 1]
    x: Array  # (n,), in the user's units
    value: Array  # in units of what f typically changes by over the box
    error: Array  # how far the exact critical point may be, infinity norm in u
    critical: Array
    degenerate: Array  # not located to the tolerance, because of the gradient's rounding
    continuum: Array
    slack: Array  # (n,), how far rounding of the gradient may have moved x
    noise: Array  # rounding of the gradient in x, infinity norm


class _Newton(NamedTuple):
    """The equation grad f(u + p) = 0 linearised at u, solved as far as the Hessian is regular."""

    gradient: Array
    step: Array  # p, of least norm
    remainder: Array  # |g| along the eigenvectors of eigenvalues that are zero to rounding
    flattest: Array  # a unit vector along those, or of the smallest eigenvalue
    smallest: Array  # |eigenvalue|, zero to rounding or not
    noise: Array  # rounding of the gradient


@functools.partial(jax.jit, static_argnums=(0, 1))
def _search(
    problem: FlatProblem,
    form: Form,
    starts: Array,
    middle: Array,
    half: Array,
    tol: Array,
    params: tuple,
) -> _End:
    def gradient(u: Array, data: tuple) -> Array:
        """Of f in units of the box."""
        middle, half, params, unit = data
        return half * problem.gradient(middle + half * u, params) / unit

    one = jnp.ones((), form.dtype)
    slopes = jax.vmap(lambda u: jnp.linalg.norm(gradient(u, (middle, half, params, one))))(starts)
    typical = _positive(jnp.nanmedian(jnp.where(jnp.isfinite(slopes), slopes, jnp.nan)))

    def from_start(u: Array, slope: Array) -> _End:
        # In its own units a start on a plain goes on, in the typical ones a start on a wall does.
        unit = jnp.minimum(_positive(slope), typical)
        eps = float(jnp.finfo(form.dtype).eps)
        data = (middle, half, params, unit)
        u = root(gradient, u, args=(data,), tol=eps, max_steps=MAX_STEPS).x
        end = _measure(lambda u: gradient(u, (middle, half, params, typical)), u, tol)
        x = middle + half * end.u
        return end._replace(
            x=x,
            value=problem.value(x, params) / typical,
            slack=end.slack * half,
            noise=jnp.max(end.noise * typical / half),
        )

    return jax.vmap(from_start)(starts, slopes)


def _positive(scale: Array) -> Array:
    """`scale`, or 1 where it is zero or no number."""
    good = jnp.isfinite(scale) & (scale > jnp.finfo(scale.dtype).tiny)
    return jnp.where(good, scale, 1)


def _measure(gradient: Callable[[Array], Array], u: Array, tol: Array) -> _End:
    """Polish `u`, say how exact it is, and look for another critical point along flat directions.

    Newton steps shrink to 0 at a simple root of the gradient, by 1 - 1/m at one of order m, and
    hardly on the way to a gradient that vanishes at infinity: their geometric series is how far
    there is to go. Rounding of the gradient moves a simple root by noise / |eigenvalue|, one where
    the gradient grows as the cube by the cube root of the noise.
    """

    def polish(u: Array, _: None) -> tuple[Array, tuple[Array, _Newton, Array]]:
        u, newton, shrink = _polish(gradient, u)
        return u + PROBE * newton.flattest, (u, newton, shrink)

    # One loop for both, so that the Hessian stands once in the program.
    ends = lax.scan(polish, u, length=2)[1]
    (u, newton, shrink), (there, again, _) = (_row(ends, 0), _row(ends, 1))

    length, noise = norm_inf(newton.step), newton.noise
    error = length / jnp.clip(1 - shrink, 0.01, 1 / 3)
    moved = jnp.minimum(noise / jnp.maximum(newton.smallest, noise), jnp.cbrt(noise))
    close = length <= tol
    hidden = (norm_inf(newton.gradient) <= noise) & (error <= tol**0.25)
    critical = (newton.remainder <= noise) & (close | hidden)
    away = safe_norm(there - u) > PROBE / 2
    level = (again.remainder <= again.noise) & (norm_inf(again.step) <= PROBE / 50)
    degenerate = moved > tol
    return _End(
        u=u, x=u, value=length, error=error + moved, critical=critical, degenerate=degenerate,
        continuum=critical & degenerate & away & level, slack=moved, noise=noise,
    )  # fmt: skip


def _row(tree: PyTree, i: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[i], tree)


def _polish(gradient: Callable[[Array], Array], u: Array) -> tuple[Array, _Newton, Array]:
    """Newton steps of at most a tenth in every entry, kept while the gradient does not grow.

    Also returns by how much the last step was shorter than the one before.
    """

    def advance(_, carry):
        best, newton, shrink, trial = carry
        new = _newton(gradient, trial)
        better = norm_inf(new.gradient) <= norm_inf(newton.gradient)
        before = jnp.maximum(norm_inf(newton.step), jnp.finfo(u.dtype).tiny)
        ratio = norm_inf(new.step) / before
        best, newton, shrink = choose(better, (trial, new, ratio), (best, newton, shrink))
        shorter = 0.1 / jnp.maximum(norm_inf(newton.step), 0.1)
        return best, newton, shrink, best + shorter * newton.step

    far, inf = jnp.full_like(u, jnp.inf), jnp.full((), jnp.inf, u.dtype)
    unknown = _Newton(far, far, inf, u * 0, inf, jnp.zeros_like(inf))
    return lax.fori_loop(0, NEWTON_STEPS + 1, advance, (u, unknown, inf, u))[:3]


def _newton(gradient: Callable[[Array], Array], u: Array) -> _Newton:
    g = gradient(u)
    values, vectors = spectrum(jax.jacfwd(gradient)(u))
    sizes = jnp.abs(values)
    eps = float(jnp.finfo(u.dtype).eps)
    noise = 10 * eps * (1 + jnp.max(sizes))
    zero = sizes <= inertia_tolerance(values)
    b = vectors.T @ g
    step = -(vectors @ jnp.where(zero, 0, b / jnp.where(zero, 1, values)))
    # A fixed mixture of the flat directions: each has a part in it.
    flat = zero | (sizes <= jnp.min(sizes))
    weights = jnp.where(flat, 1 + jnp.cos(jnp.arange(1, u.shape[0] + 1, dtype=u.dtype)) / 2, 0)
    flattest = vectors @ (weights / safe_norm(weights))
    remainder = safe_norm(jnp.where(zero, b, 0))
    return _Newton(g, step, remainder, flattest, jnp.min(sizes), noise)


def _spread(starts: int, form: Form, key: Array | None) -> Array:
    """Points (starts, n) in [-1, 1]: multiples of powers of 1/phi, phi^(n+1) = phi + 1, shifted.

    phi is the golden ratio for n = 1; the points of any length fill the cube evenly up to some ten
    dimensions. In float64, since multiples are taken modulo 1. Source: Roberts (2018).
    """
    n, phi = form.size, 2.0
    for _ in range(60):
        phi = (1 + phi) ** (1 / (n + 1))
    key = jax.random.key(0) if key is None else key
    shift = np.asarray(jax.random.uniform(key, (n,), jnp.float32), np.float64)
    powers = phi ** -np.arange(1.0, n + 1)
    u = (shift + np.arange(1.0, starts + 1)[:, None] * powers) % 1
    return jnp.asarray(2 * u - 1, form.dtype)


# -- what was found, on the host -------------------------------------------------------------------


def _one_of_each(ends: _End, found: np.ndarray, tol: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices into `ends` of distinct points, and for each of `found` the number of its point.

    A continuum has one value of f: what is degenerate and has it too, belongs to it. Of the rest
    the most exact point comes first and takes all that may be the same: O(k) memory, and O(k) time
    for each distinct point.
    """
    owner = np.full(len(found), -1)
    chosen: list[int] = []
    u, values, errors, degenerate, continuum = (
        a[found] for a in (ends.u, ends.value, ends.error, ends.degenerate, ends.continuum)
    )
    root_eps = np.sqrt(np.finfo(values.dtype).eps)
    for i in np.lexsort((errors, ~continuum)):
        if owner[i] >= 0:
            continue
        if continuum[i]:
            same = degenerate & (np.abs(values - values[i]) <= root_eps * (1 + np.abs(values[i])))
        else:
            same = np.max(np.abs(u - u[i]), axis=1) <= 20 * tol + errors + errors[i]
        owner[same & (owner < 0)] = len(chosen)
        chosen.append(int(found[i]))
    return np.asarray(chosen, int), owner


def _classified(
    problem: Problem, form: Form, ends: _End, chosen: np.ndarray, args: tuple
) -> CriticalPoint:
    """The certificates of the chosen points, in a batch padded so that few lengths are compiled."""
    count = len(chosen)
    room = 32
    while room < count:
        room *= 4
    padded = np.concatenate([chosen, np.zeros(room - count, int)])
    x, slack, noise = ends.x[padded], ends.slack[padded], ends.noise[padded]
    # Not less than the default of `classify`, and not less than the gradient's rounding.
    tol = 10 * default_tolerance(form.dtype) * np.maximum(1, np.max(np.abs(x), axis=1))
    tol = np.maximum(tol, noise).astype(form.dtype)

    def certificate(x: Array, tol: Array, slack: Array) -> CriticalPoint:
        x = form.unravel(x)
        return describe(problem, x, args, tol=tol, evidence=True, slack=slack)

    points = jax.vmap(certificate)(x, tol, slack)
    return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], points)


# -- input and output ------------------------------------------------------------------------------


def _box(lower: PyTree, upper: PyTree) -> tuple[PyTree, PyTree]:
    """Both bounds as arrays of the same shapes and dtypes, after refusing what is no box."""
    for name, side in (("lower", lower), ("upper", upper)):
        for path, leaf in jax.tree_util.tree_leaves_with_path(side):
            numeric = isinstance(leaf, (float, np.ndarray, np.generic, jax.Array))
            _refuse_tracers(leaf)
            if numeric and not np.all(np.isfinite(np.asarray(leaf))):
                raise ValueError(
                    f"`{name}{jax.tree_util.keystr(path)}` must be finite, but it is "
                    f"{np.asarray(leaf)}. Starts are spread over the box: give the range that is "
                    "of interest; what is found outside of it is only counted."
                )
    lower, upper = check.start("lower", lower), check.start("upper", upper)
    _refuse_tracers((lower, upper))  # inside of `jit` even constants are traced
    ours, theirs = Form.of(lower), Form.of(upper)
    if (ours.treedef, ours.shapes) != (theirs.treedef, theirs.shapes):
        raise ValueError(
            "`lower` and `upper` must have the structure and shapes of x, but they have shapes "
            f"{ours.shapes} and {theirs.shapes}. For the same bound everywhere write "
            "`jnp.full(shape, bound)`."
        )
    dtype = jnp.result_type(*(np.dtype(d) for d in (*ours.dtypes, *theirs.dtypes)))
    lower, upper = (jax.tree.map(lambda a: jnp.asarray(a, dtype), s) for s in (lower, upper))
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(lower), jax.tree.leaves(upper), strict=True
    ):
        if not np.all(np.asarray(a) < np.asarray(b)):
            where = jax.tree_util.keystr(path)
            raise ValueError(
                f"`lower{where}` must be below `upper{where}` in every entry, but they are "
                f"{np.asarray(a)} and {np.asarray(b)}. To hold a variable fixed, pass it in `args`."
            )
    return lower, upper


def _is_key(key: Any) -> bool:
    """Of the new type, or two numbers of the old."""
    dtype = getattr(key, "dtype", None)
    new = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    return new or (dtype == jnp.uint32 and key.shape == (2,))


def _refuse_tracers(tree: PyTree) -> None:
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree)):
        raise TypeError(
            "`find_critical_points` runs eagerly, since the number of points it returns depends on "
            "the data, but a traced value came. Call it outside of `jit`, `vmap` and `grad`; "
            "`classify`, and `root` on the gradient, work inside."
        )


NAMES = {
    Kind.STRICT_MINIMUM: ("minimum", "minima"),
    Kind.SADDLE: ("saddle", "saddles"),
    Kind.STRICT_MAXIMUM: ("maximum", "maxima"),
    Kind.DEGENERATE: ("degenerate", "degenerate"),
}


def _report(found: CriticalPoints) -> list[str]:
    """The lines of the table."""
    points = found.points
    codes, flat = np.asarray(points.kind), np.asarray(found.continuum)
    counts = {kind: int(np.sum(codes == kind)) for kind in NAMES}
    tally = ", ".join(f"{c} {NAMES[k][c > 1]}" for k, c in counts.items() if c)
    many = "point" if len(found) == 1 else "points"
    lines = [f"{len(found)} critical {many} in the box{': ' if tally else ''}{tally}"]
    if len(found):
        lines.append(f"{'value':>14}{'index':>7}{'hits':>7}   {'kind':<13}x")
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(points.x)]
    x = np.concatenate([leaf.reshape(len(leaf), math.prod(leaf.shape[1:])) for leaf in leaves], 1)
    rows = zip(
        *map(np.asarray, (points.value, points.morse_index, found.hits, codes, flat, x)),
        strict=True,
    )
    for value, index, hits, code, continuum, where in itertools.islice(rows, ROWS):
        short = np.array2string(where + 0.0, precision=5, threshold=8, suppress_small=True)
        name = NAMES[Kind(int(code))][0] + (", one of a continuum" if continuum else "")
        lines.append(f"{value + 0.0:>14.7g}{index:>7}{hits:>7}   {name:<12} {short}")
    if len(found) > ROWS:
        lines.append(f"{'...':>14}   and {len(found) - ROWS} more")
    landed = int(np.sum(np.asarray(found.hits)))
    lines.append(
        f"{found.starts} starts: {landed} ended at these, {found.outside} at critical points "
        f"outside of the box, {found.unresolved} where the gradient is not zero, "
        f"{found.nonfinite} at NaN or infinity"
    )
    if found.index_sum is not None and len(found):
        lines.append(
            f"sum of (-1)^index: {found.index_sum} (all critical points of a function that grows "
            "in all directions: 1)"
        )
    return lines
