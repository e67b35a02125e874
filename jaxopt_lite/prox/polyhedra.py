"""Projections on boxes, simplices, l1 balls, half spaces and affine sets.

    sort (no derivative) -> which constraints bind -> the linear formula that holds there

The formula is evaluated with the binding set held fixed. It is exact there, so it gives the point
to rounding and derivatives of any order in x and in the parameters, without one through a sort.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import Form
from .arguments import (
    PyTree,
    array,
    at_least,
    flat,
    parameter,
    parameters,
    require,
    snap,
    tree,
    valid,
)

ROWS = "For many vectors use `jax.vmap`; for all entries of an array as one, `x.ravel()`."


def box(x: PyTree, lower: PyTree, upper: PyTree) -> PyTree:
    r"""Nearest point with lower <= p <= upper: each entry is clipped. O(n).

    `x` is any pytree, `lower` and `upper` are like it or numbers; infinite bounds are none. The
    derivative is 1 for entries in the closed interval and 0 outside, and where lower = upper;
    there it goes to the bound. Source: Parikh and Boyd (2014), section 6.2.4.

    Raises ValueError where lower > upper; traced crossed bounds give NaN.
    """
    x = tree("`x`", x)
    lower, upper = parameters("`lower`", lower, x), parameters("`upper`", upper, x)

    def ordered(lower, upper):
        each = jax.tree.map(lambda a, b: jnp.all(a <= b), lower, upper)
        return jnp.all(jnp.stack(jax.tree.leaves(each)))

    def message():
        return (
            "`lower` must not be above `upper`, nor NaN, but in some entries it is. Swap the "
            "bounds, or fix a variable by giving both the same value."
        )

    condition = require(ordered, (lower, upper), message)
    return valid(jax.tree.map(_clip, x, lower, upper), (x, lower, upper), condition)


def _clip(x: Array, lower: Array, upper: Array) -> Array:
    """Entries at a bound are free, unless there is nothing between the bounds."""
    middle = jnp.where(lower == upper, lower, x)
    return jnp.where(x < lower, lower, jnp.where(x > upper, upper, middle))


def non_negative(x: PyTree) -> PyTree:
    r"""Nearest point with p >= 0: max(x, 0) in each entry of any pytree. O(n).

    The derivative is 1 where x >= 0 (0 included: x is in the set), else 0.
    """
    return jax.tree.map(lambda leaf: jnp.where(leaf < 0, 0, leaf), tree("`x`", x))


def linf_ball(x: PyTree, radius: ArrayLike = 1.0, centre: PyTree = 0.0) -> PyTree:
    r"""Nearest point with max_i |p_i - centre_i| <= radius, over all entries of a pytree. O(n).

    A box: see `box` for the derivative. Raises ValueError if radius < 0; NaN if it is traced.
    """
    x = tree("`x`", x)
    centre = parameters("`centre`", centre, x)
    size = parameter("`radius`", radius, flat(x)[1].dtype, ())
    condition = at_least("`radius`", size, 0.0)

    def clip(leaf, middle):
        reach = size.astype(leaf.dtype)
        return _clip(leaf, middle - reach, middle + reach)

    return valid(jax.tree.map(clip, x, centre), (x, size, centre), condition)


def threshold(x: Array, total: Array) -> Array:
    """The t with sum max(x - t, 0) = total over the last axis, by sorting; `total` is (...)."""
    top = jnp.max(x, axis=-1, keepdims=True)
    total = total[..., None]
    # t >= max x - total, so what lies below does not enter; and sums stay of the size of total.
    falling = jnp.flip(jnp.sort(jnp.maximum(x - top, -total), axis=-1), axis=-1)
    rank = jnp.arange(1, x.shape[-1] + 1, dtype=x.dtype)
    inside = falling * rank > jnp.cumsum(falling, axis=-1) - total
    count = jnp.maximum(jnp.sum(inside, axis=-1, dtype=x.dtype), 1)
    excess = jnp.sum(jnp.where(inside, falling, 0), axis=-1) - total[..., 0]
    return top[..., 0] + excess / count


def simplex(x: Array, total: ArrayLike = 1.0) -> Array:
    r"""Nearest point with p >= 0 and sum(p) = total: p = max(x - t, 0). `x` is (n,).

    t is the root of sum_i max(x_i - t, 0) = total, found by one sort: O(n log n).
    Derivative on the support S = {i: x_i >= t}: dp_S = dx_S - mean(dx_S) + dtotal / |S|; else 0.
    An entry with x_i = t exactly counts as one of S. If total = 0, p is 0 whatever x is.

    Raises ValueError if total < 0; NaN if it is traced. Source: Duchi et al. (2008), figure 1;
    Condat (2016) compares the methods.
    """
    x = array("`x`", x, 1, ROWS)
    size = parameter("`total`", total, x.dtype, ())
    condition = at_least("`total`", size, 0.0, "There are no such points with entries >= 0.")
    return valid(_simplex(x, size), (x, size), condition)


def _shifted(x: Array) -> Array:
    """Minus its largest entry, so that t and all sums are of the size of differences in x."""
    return x - lax.stop_gradient(jnp.max(x))


@jax.jit
def _simplex(x: Array, total: Array) -> Array:
    x = jnp.where(total > 0, x, lax.stop_gradient(x))  # a set of one point does not move with x
    y = _shifted(x)
    y = y - threshold(lax.stop_gradient(y), lax.stop_gradient(total))
    support = y >= 0
    count = jnp.maximum(jnp.sum(support, dtype=x.dtype), 1)
    excess = (jnp.sum(jnp.where(support, y, 0)) - total) / count
    p = jnp.where(support, y - excess, 0)
    return jnp.where(jnp.any(jnp.isnan(y)), jnp.nan, snap(p, 0, jnp.inf))


def l1_ball(x: PyTree, radius: ArrayLike = 1.0, centre: PyTree = 0.0) -> PyTree:
    r"""Nearest point with sum_i |p_i - centre_i| <= radius, over all entries of a pytree.

    With d = x - centre, outside: sign(d) max(|d| - t, 0), where t is that of the simplex of total
    `radius`. O(n log n). The derivative is the identity in the closed ball (of radius > 0).

    Raises ValueError if radius < 0; NaN if it is traced. Source: Duchi et al. (2008), section 3.
    """
    x = tree("`x`", x)
    form, vector = flat(x)
    middle = form.ravel(parameters("`centre`", centre, x))
    size = parameter("`radius`", radius, vector.dtype, ())
    condition = at_least("`radius`", size, 0.0)
    offset = vector - middle
    sign = jnp.where(offset < 0, -1, 1).astype(vector.dtype)
    within = (jnp.sum(jnp.abs(offset)) <= size) & (size > 0)
    outside = middle + sign * _simplex(sign * offset, jnp.where(size == jnp.inf, 1, size))
    return valid(
        form.unravel(jnp.where(within, vector, outside)), (vector, size, middle), condition
    )


def capped_simplex(x: Array, total: ArrayLike, upper: ArrayLike = 1.0) -> Array:
    r"""Nearest point with 0 <= p <= upper and sum(p) = total: p = clip(x - t, 0, upper).

    `x` is (n,), `upper` a number or (n,). The sum is piecewise linear in t, with a breakpoint at
    each x_i and x_i - upper_i: one sort of 2 n numbers, no iteration, O(n log n).

    Derivative: entries with 0 <= x_i - t <= upper_i are free, F: dp_F = dx_F - mean(dx_F) +
    (dtotal - sum of dupper over those at their bound) / |F|; these move with their bound. Where t
    is not unique (total is the sum of some bounds) nothing is free, and dtotal has no effect.

    Raises ValueError if upper < 0 or total is not in [0, sum(upper)]; NaN if they are traced.
    Source: Held, Wolfe and Crowder (1974), section 4; Brucker (1984) for the breakpoints.
    """
    x = array("`x`", x, 1, ROWS)
    total = parameter("`total`", total, x.dtype, ())
    upper = parameter("`upper`", upper, x.dtype, x.shape)
    # The sum of n bounds is rounded, and so is a total computed from the same numbers elsewhere.
    slack = 1 + x.size * float(jnp.finfo(x.dtype).eps)

    def reachable(total, upper):
        most = jnp.sum(upper) * slack
        return jnp.all(upper >= 0) & (total >= 0) & (total <= most) & (total < jnp.inf)

    def message():
        return (
            f"`upper` must be >= 0 and `total` in [0, sum(upper)] and finite, but `total` is "
            f"{total.item()!r}, sum(upper) is {jnp.sum(upper).item()!r} and the least of `upper` "
            f"{jnp.min(upper).item()!r}. No point adds up to `total`: lower it or raise `upper`."
        )

    condition = require(reachable, (total, upper), message)
    return valid(_capped(x, total, upper), (x, total, upper), condition)


@jax.jit
def _capped(x: Array, total: Array, upper: Array) -> Array:
    y = _shifted(x)
    y = y - _cap_threshold(*lax.stop_gradient((y, total, upper)))
    free = (y >= 0) & (y <= upper) & (upper > 0)
    full = y > upper
    count = jnp.sum(free, dtype=x.dtype)
    sums = jnp.sum(jnp.where(free, y, 0)) + jnp.sum(jnp.where(full, upper, 0)) - total
    excess = jnp.where(count > 0, sums / jnp.maximum(count, 1), 0)
    p = jnp.where(free, snap(y - excess, 0, upper), jnp.where(full, upper, 0))
    return jnp.where(jnp.isnan(y), jnp.nan, p)


def _cap_threshold(x: Array, total: Array, upper: Array) -> Array:
    """A t with sum clip(x - t, 0, upper) = total: the middle of them if there is an interval."""
    cap = jnp.minimum(upper, total)  # the same set, and finite
    one = jnp.ones_like(x)
    # Downward along t an entry starts to grow at x_i and stops at x_i - cap_i.
    falling, change = lax.sort((-jnp.concatenate([x, x - cap]), jnp.concatenate([one, -one])))
    growth = jnp.cumsum(change)[:-1] * (falling[1:] - falling[:-1])
    breaks, sums = -falling, jnp.concatenate([jnp.zeros_like(x[:1]), jnp.cumsum(growth)])
    rounding = 4 * jnp.finfo(x.dtype).eps * total
    less, more = sums < total - rounding, sums > total + rounding
    level = ~(less | more)
    # The sum falls with t: linear between the nearest breaks on both sides, if none meets it.
    high, low = jnp.min(breaks, where=less, initial=jnp.inf), _max(breaks, more)
    few, many = _max(sums, less), jnp.min(sums, where=more, initial=jnp.inf)
    between = high - (total - few) * (high - low) / (many - few)
    # An interval of t has no end at total = 0 and = sum(cap): any point in its interior.
    top, bottom = jnp.max(breaks), jnp.min(breaks)
    room = 1 + top - bottom
    start = jnp.min(breaks, where=level, initial=jnp.inf)
    end = jnp.where(jnp.any(less), _max(breaks, level), top + room)
    start = jnp.where(jnp.any(more), start, jnp.where(total > 0, bottom - room, top))
    return jnp.where(jnp.any(level), start / 2 + end / 2, between)


def _max(values: Array, where: Array) -> Array:
    return jnp.max(values, where=where, initial=-jnp.inf)


def _plane(x: PyTree, normal: PyTree, offset: ArrayLike) -> tuple[PyTree, PyTree, Array]:
    x = tree("`x`", x)
    normal = parameters("`normal`", normal, x)
    return x, normal, parameter("`offset`", offset, Form.of(x).dtype, ())


def _residual(x: PyTree, normal: PyTree, b: Array):
    """(form, vector x, scaled normal a, (a'x - b) / a'a, condition) of a'x = b."""
    form, vector = flat(x)

    def usable(normal):
        longest = jnp.max(jnp.abs(form.ravel(normal)))
        return (longest > 0) & (longest < jnp.inf)

    def message():
        return (
            "`normal` must be finite and not zero, but it is not. A zero normal describes all of "
            "space or nothing: leave the constraint out."
        )

    condition = require(usable, (normal,), message)
    a = form.ravel(normal)
    longest = lax.stop_gradient(jnp.max(jnp.abs(a)))
    scale = jnp.where(longest > 0, longest, 1)  # squares neither overflow nor vanish
    a, b = a / scale, b / scale
    square = a @ a
    return form, vector, a, (a @ vector - b) / jnp.where(square > 0, square, 1), condition


def hyperplane(x: PyTree, normal: PyTree, offset: ArrayLike) -> PyTree:
    r"""Nearest point with <normal, p> = offset: p = x - (<a, x> - b) a / <a, a>. O(n).

    `x` is any pytree, `normal` one like it. Smooth in everything. Raises ValueError if normal = 0;
    NaN if it is traced. Source: Parikh and Boyd (2014), section 6.2.
    """
    x, normal, offset = _plane(x, normal, offset)
    form, vector, a, excess, condition = _residual(x, normal, offset)
    return valid(form.unravel(vector - excess * a), (x, normal, offset), condition)


def half_space(x: PyTree, normal: PyTree, offset: ArrayLike) -> PyTree:
    r"""Nearest point with <normal, p> <= offset: p = x - max(<a, x> - b, 0) a / <a, a>. O(n).

    As `hyperplane`; the derivative is the identity where <normal, x> <= offset.
    """
    x, normal, offset = _plane(x, normal, offset)
    form, vector, a, excess, condition = _residual(x, normal, offset)
    p = form.unravel(vector - jnp.where(excess > 0, excess, 0) * a)
    return valid(p, (x, normal, offset), condition)


def affine(x: Array, A: Array, b: Array) -> Array:
    r"""Nearest point with A p = b: x plus the correction of least norm, p = x - A^+ (A x - b).

    `x` is (n,), `A` (m, n), `b` (m,). One SVD, O(m n min(m, n)), and one step of refinement.
    Singular values below max(m, n) eps max(s) count as zero, so A may have dependent rows. The
    derivative, of any order, solves p + A'm = x, A p = b with the same factors; for dependent rows
    it is that of changes of A and b which keep the rank and the system consistent.

    Raises ValueError if no p fits: |A p - b| above 100 max(m, n) eps (|A| |p| + |b|); traced, this
    gives NaN. Source: Golub and Van Loan (2013), sections 5.5 and 6.1.
    """
    x = array("`x`", x, 1, ROWS)
    A = array("`A`", A, 2, "One row for each equation.").astype(x.dtype)
    if A.shape[1] != x.shape[0]:
        raise ValueError(
            f"`A` must have a column for each of the {x.shape[0]} entries of x, but its shape is "
            f"{A.shape}. For a transposed matrix pass `A.T`."
        )
    b = parameter("`b`", b, x.dtype, A.shape[:1])
    p, fits = _equations(x, A, b)

    def message():
        return (
            "`A p = b` must have a solution, but it has none. Drop the equation that contradicts "
            "the others; the nearest right-hand side is `A @ jnp.linalg.lstsq(A, b)[0]`."
        )

    return valid(p, (x, A, b), require(lambda fits: fits, (fits,), message))


@jax.jit
def _equations(x: Array, A: Array, b: Array) -> tuple[Array, Array]:
    """The point, and whether it solves A p = b."""
    fixed = lax.stop_gradient(A)
    left, values, right = jnp.linalg.svd(fixed, full_matrices=False)
    rounding = max(A.shape) * jnp.finfo(x.dtype).eps
    keep = values > rounding * values[0]
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)

    n = x.shape[0]

    def saddle(unknown, A=A):
        p, multiplier = unknown[:n], unknown[n:]
        return jnp.concatenate([p + multiplier @ A, A @ p])

    def direct(rhs):
        inside, wanted = jnp.where(keep, right @ rhs[:n], 0), inverse * (left.T @ rhs[n:])
        p, multiplier = rhs[:n] - (inside - wanted) @ right, left @ (inverse * (inside - wanted))
        return jnp.concatenate([p, multiplier])

    def solve(_, rhs):
        first = direct(rhs)
        return first + direct(rhs - saddle(first, fixed))

    p = lax.custom_linear_solve(saddle, jnp.concatenate([x, b]), solve, symmetric=True)[:n]
    still = lax.stop_gradient(p)
    size = values[0] * jnp.linalg.norm(still) + jnp.linalg.norm(lax.stop_gradient(b))
    missed = jnp.linalg.norm(fixed @ still - lax.stop_gradient(b))
    return p, ~(missed > 100 * rounding * size)  # NaN says so itself
