"""The projection on the matrices with given row and column sums (not the entropic one).

    (u, v) -> P = max(C + u 1' + 1 v', 0) -> sums -> Newton, exact search -> support S -> formula

The dual of min 1/2 ||P - C||^2 s.t. P 1 = row, P'1 = col, P >= 0 is smooth, convex and piecewise
quadratic in (u, v). Its Hessian is that of a graph: row i and column j are joined where P_ij > 0.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import inertia_tolerance, psd_factor, psd_solve, spectrum
from .arguments import array, parameter, require, snap, valid
from .polyhedra import threshold

MAX_STEPS = 200  # 5 to 40 were needed for 60 x 60 and a spread of C of 1e-2 to 1e4 times the sums
TRIALS = 16  # of the search for a minimum along a line
ROUGH, GROWTH = 0.1, 4.0  # sums met to this part of themselves: C may grow by this factor


def transport(C: Array, row: ArrayLike = 1.0, col: ArrayLike = 1.0) -> Array:
    r"""Nearest matrix to C with P >= 0, P 1 = row and P'1 = col: a transport plan.

    `C` is (m, n), `row` (m,) or a number, `col` (n,) or a number; ones give the doubly stochastic
    matrices (Birkhoff polytope). P = max(C + u 1' + 1 v', 0) by a regularised semismooth Newton
    method on the dual with exact line search: a Cholesky factorisation of min(m, n) rows a step,
    5 to 40 steps, more the larger the spread of C against the sums. At the end the equations of
    the support are solved once more, which makes P exact to rounding.

    Derivative: with the support S fixed, dP = S * (dC + du 1' + 1 dv') where the sums move as row
    and col do; of any order, in all three. Entries with C + u + v = 0 exactly count as in S. Where
    the graph of S is not connected, changes of row and col that S cannot follow have the effect of
    the nearest ones that it can.

    Raises ValueError if row or col are negative or their sums differ; NaN if they are traced, or
    if the sums of the answer are not met to 1e3 eps (max(row) + max(col)) after 200 steps.
    Source: Li, Sun and Toh (2020); Lorenz, Manns and Meyer (2021).
    """
    C = array("`C`", C, 2, "For a batch of matrices use `jax.vmap`.")
    row = parameter("`row`", row, C.dtype, C.shape[:1])
    col = parameter("`col`", col, C.dtype, C.shape[1:])
    eps = float(jnp.finfo(C.dtype).eps)

    def balanced(row, col):
        supply, demand = jnp.sum(row), jnp.sum(col)
        near = jnp.abs(supply - demand) <= 4 * sum(C.shape) * eps * supply
        return jnp.all(row >= 0) & jnp.all(col >= 0) & near & (supply < jnp.inf)

    def message():
        return (
            "`row` and `col` must be >= 0, finite and of the same sum, but their sums are "
            f"{jnp.sum(row).item()!r} and {jnp.sum(col).item()!r}, their least entries "
            f"{jnp.min(row).item()!r} and {jnp.min(col).item()!r}. Scale one to the other's sum: "
            "`col * row.sum() / col.sum()`."
        )

    condition = require(balanced, (row, col), message)
    if C.shape[0] <= C.shape[1]:
        P, met = _plan(C, row, col)
    else:
        P, met = _plan(C.T, col, row)
        P = P.T
    return valid(P, (C, row, col), condition, met)


class _Carry(NamedTuple):
    base: Array  # (m, n) C, times `size`, plus the u and v of earlier sizes
    u: Array  # (m,)
    v: Array  # (n,)
    size: Array  # what C is multiplied by at present, from small to 1
    last: Array  # the base is the last one
    gap: Array  # by how much the sums are missed, at most
    steps: Array


@jax.jit
def _plan(C: Array, row: Array, col: Array) -> tuple[Array, Array]:
    """P (m, n), m <= n, and whether its sums are what they should be."""
    shifted, _ = _dual(*lax.stop_gradient((C, row, col)))
    shifted = shifted + (C - lax.stop_gradient(C))  # C + u + v, with the derivative of C
    shifted = shifted - threshold(lax.stop_gradient(shifted).T, lax.stop_gradient(col))
    support = (shifted >= 0) & (col > 0)  # nothing to share where the sum is 0
    S = support.astype(C.dtype)
    count = jnp.maximum(jnp.sum(S, axis=0), 1)
    # With S fixed P is linear in everything; what C + u + v misses is made up by du and dv.
    laplacian = jnp.diag(jnp.sum(S, axis=1)) - (S / count) @ S.T
    values, vectors = spectrum(laplacian)
    keep = values > inertia_tolerance(values)
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)
    P = jnp.where(support, shifted, 0)
    P = P + S * ((col - jnp.sum(P, axis=0)) / count)
    du = vectors @ (inverse * (vectors.T @ (row - jnp.sum(P, axis=1))))
    P = snap(P + S * (du[:, None] - (du @ S) / count), 0, jnp.inf)
    sums = lax.stop_gradient((jnp.sum(P, axis=1) - row, jnp.sum(P, axis=0) - col))
    worst = jnp.maximum(jnp.max(jnp.abs(sums[0])), jnp.max(jnp.abs(sums[1])))
    return P, worst <= 1e3 * jnp.finfo(C.dtype).eps * (jnp.max(row) + jnp.max(col))


def _dual(C: Array, row: Array, col: Array) -> tuple[Array, Array]:
    """C + u 1' + 1 v' for the best u and v, m <= n, and the number of steps.

    Against small sums a C of large entries is nearly an assignment problem, of many pieces. So C
    is scaled down at first, and up when the sums are roughly met; u and v keep their proportion.
    Each time, and once more at the end, u and v are added into the base: what counts is then of
    the size of P, and sums are not rounded at the size of C.
    """
    m, n = C.shape
    eps = jnp.finfo(C.dtype).eps
    rounding = 4 * eps * (m + n) ** 0.5
    least = eps**0.6  # of the Hessian's regularisation; its entries are counts
    C = C - jnp.mean(C, axis=0)  # no change to the answer
    C = C - jnp.mean(C, axis=1, keepdims=True)
    spread, most = jnp.max(jnp.abs(C)), jnp.max(row) + jnp.max(col)
    most = jnp.where(most > 0, most, 1)  # nothing to transport: no scale

    def going(c: _Carry):
        return ~(c.last & (c.gap <= rounding * most)) & (c.steps < MAX_STEPS)

    def advance(c: _Carry):
        shifted = c.base + c.u[:, None] + c.v
        plan = jnp.maximum(shifted, 0)
        missing = row - jnp.sum(plan, axis=1), col - jnp.sum(plan, axis=0)
        gap = jnp.maximum(jnp.max(jnp.abs(missing[0])), jnp.max(jnp.abs(missing[1])))
        weight = jnp.clip(0.1 * gap / jnp.maximum(c.size * spread, most), least, 1e-2)
        du, dv = _newton(shifted, missing, weight)
        met = c.last & (gap <= rounding * most)  # then stay: this was the last evaluation
        length = jnp.where(met, 0, _search(shifted, du, dv, missing))
        small = jnp.where(c.size < 1, ROUGH * most, 1e-3 * most + rounding * spread)
        grow = ~c.last & (gap <= small)
        size = jnp.where(grow, jnp.minimum(GROWTH * c.size, 1), c.size)
        return _Carry(
            base=jnp.where(grow, shifted * (size / c.size), c.base),
            u=jnp.where(grow, 0, c.u + length * du),
            v=jnp.where(grow, 0, c.v + length * dv),
            size=size,
            last=c.last | (grow & (c.size == 1)),
            gap=gap,
            steps=c.steps + 1,
        )

    size = jnp.minimum(1, most / jnp.maximum(spread, most))
    start = _Carry(
        base=size * C,
        u=row / n,  # with v the answer but for P >= 0
        v=col / m - jnp.sum(row) / (m * n),
        size=size,
        last=jnp.zeros((), bool),
        gap=jnp.full_like(size, jnp.inf),
        steps=jnp.zeros((), jnp.int32),
    )
    end = lax.while_loop(going, advance, start)
    return end.base + end.u[:, None] + end.v, end.steps


def _newton(shifted: Array, missing: tuple[Array, Array], weight: Array) -> tuple[Array, Array]:
    """(H + weight I)^-1 missing for H = [diag(S 1), S; S', diag(S'1)], by the Schur complement."""
    S = (shifted > 0).astype(shifted.dtype)
    below = jnp.sum(S, axis=0) + weight
    schur = jnp.diag(jnp.sum(S, axis=1) + weight) - (S / below) @ S.T
    factor, _ = psd_factor(schur)  # the identity if that fails, still a direction of descent
    du = psd_solve(factor, missing[0] - S @ (missing[1] / below))
    dv = (missing[1] - S.T @ du) / below
    # What u gains and v loses alike changes nothing but rounding.
    both = jnp.mean(du)
    return du - both, dv + both


def _search(shifted: Array, du: Array, dv: Array, missing: tuple[Array, Array]) -> Array:
    """The minimum along (du, dv): 1 if that is nearly it, or to 1 % by bisection of logarithms.

    Each trial is a sum over the matrix, far cheaper than the step; and as many for all lanes.
    """
    change, plan = du[:, None] + dv, jnp.maximum(shifted, 0)
    fall = missing[0] @ du + missing[1] @ dv  # minus the slope at the start

    def slope(length):
        return jnp.sum((jnp.maximum(shifted + length * change, 0) - plan) * change) - fall

    def halve(_, ends):
        low, high = ends
        between = jnp.where(low == 0, high / 4, jnp.sqrt(low * high))
        trial = jnp.where(high == jnp.inf, 4 * low, between)
        rises = slope(trial) > 0
        return jnp.where(rises, low, trial), jnp.where(rises, trial, high)

    at_one = slope(jnp.ones_like(fall))
    # At the end only rounding is left of the sums, and 1 is right.
    noise = 8 * jnp.finfo(fall.dtype).eps * jnp.sum(plan * jnp.abs(change))
    rises = at_one > 0
    ends = jnp.where(rises, 0, 1).astype(fall.dtype), jnp.where(rises, 1, jnp.inf)
    low, high = lax.fori_loop(0, TRIALS, halve, (ends[0], ends[1].astype(fall.dtype)))
    found = jnp.where(high == jnp.inf, low, high)
    return jnp.where(jnp.abs(at_one) <= 1e-3 * jnp.abs(fall) + noise, 1, found)
