"""Fits that are quadratic programs: non-negative least squares, portfolios, monotone regression."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import Multipliers, Solution, Status
from ..prox.arguments import array
from ..solvers import solve_lp, solve_qp
from ._data import Linear, finite, known, penalty_of, reported, samples, shares, still


class PricedState(NamedTuple):
    """What holds weights at 0: `price` (p,) >= 0, what the value rises by for each unit forced in.

    `price` is the multiplier of w_j >= 0, here measured as the gradient of the rest; it is 0 where
    w_j > 0. `program` is the state of `solve_qp`.
    """

    price: Array
    program: Any


def nnls(
    X: ArrayLike,
    y: ArrayLike,
    *,
    penalty: ArrayLike = 0.0,
    sample_weight: ArrayLike | None = None,
    intercept: bool = False,
    tol: ArrayLike | None = None,
) -> Solution:
    """Minimise ||y - Xw - b||^2 / (2n) + penalty/2 ||w||^2 subject to w >= 0.

    The quadratic program of X'X / n, by `solve_qp`: p^3 a step. Arguments are those of `ridge`; x
    is `Linear(weights, intercept)`, `multipliers.lower` (p,) the prices of w >= 0 and `state` a
    `PricedState`. scikit-learn's `LinearRegression(positive=True)` is penalty 0.
    """
    data = samples(X, y, sample_weight)
    p, dtype = data.X.shape[1], data.X.dtype
    level = jnp.broadcast_to(penalty_of(penalty, p, dtype), (p,))
    center = data.share @ data.X if intercept else jnp.zeros(p, dtype)
    mean = data.share @ data.y if intercept else jnp.zeros((), dtype)
    A, b = data.X - center, data.y - mean
    weighed = data.share[:, None] * A
    P, q = weighed.T @ A + jnp.diag(level), -weighed.T @ b
    found = solve_qp(P, q, lower=0.0, tol=tol)
    x = Linear(found.x, mean - center @ found.x)
    price = still(P @ found.x + q)
    return dataclasses.replace(
        found, x=x, value=found.value + data.share @ b**2 / 2, state=PricedState(price, found.state)
    )


def markowitz(
    covariance: ArrayLike,
    mean: ArrayLike,
    *,
    target: ArrayLike | None = None,
    aversion: ArrayLike | None = None,
    lower: ArrayLike = 0.0,
    upper: ArrayLike | None = None,
    tol: ArrayLike | None = None,
) -> Solution:
    """The portfolio of least variance: minimise 1/2 w'Sw s.t. sum w = 1, mean'w >= target.

    Or, with `aversion`, minimise aversion/2 w'Sw - mean'w s.t. sum w = 1: the same portfolios,
    since the multiplier of the target is 1 / aversion.

    Args:
        covariance: S, (n, n), positive semidefinite.
        mean: expected returns (n,).
        target: the least expected return. None: none.
        aversion: > 0; instead of a target.
        lower: of each holding, a number or (n,); -inf allows short positions.
        upper: likewise. None: none.
        tol: of `solve_qp`.

    Returns the `Solution` of `solve_qp`, with derivatives in all numbers. Shadow prices:
    `multipliers.ineq[0]` is what half the variance rises by for each unit more of expected return
    asked for, `multipliers.lower[j]` for each unit of asset j that has to be held though none would
    be, `multipliers.eq[0]`, less, for each unit of budget. A target that no portfolio reaches is
    PRIMAL_INFEASIBLE, with prices that prove it. Source: Markowitz (1952).

    """
    S = array("`covariance`", covariance, 2, "One row an asset.")
    m = array("`mean`", mean, 1, "One expected return an asset.")
    finite("`covariance`", S)
    finite("`mean`", m)
    n = m.shape[0]
    if S.shape != (n, n):
        raise ValueError(
            f"`covariance` must have shape {(n, n)} for {n} assets, but its shape is {S.shape}."
        )
    if target is not None and aversion is not None:
        raise ValueError("Pass `target` or `aversion`, not both: one fixes the other.")
    if aversion is not None and known(aversion) and not np.all(np.asarray(aversion) > 0):
        raise ValueError(f"`aversion` must be a number > 0, but {aversion!r} came.")
    one, budget = jnp.ones((1, n), S.dtype), jnp.ones(1, S.dtype)
    if aversion is not None:
        weight = jnp.asarray(aversion, S.dtype)
        return solve_qp(weight * S, -m, one, budget, lower=lower, upper=upper, tol=tol)
    G, h = (None, None) if target is None else (-m[None], -jnp.asarray(target, S.dtype)[None])
    zero = jnp.zeros(n, S.dtype)
    return solve_qp(S, zero, one, budget, G, h, lower=lower, upper=upper, tol=tol)


def diet(
    cost: ArrayLike,
    content: ArrayLike,
    need: ArrayLike,
    *,
    upper: ArrayLike | None = None,
    tol: ArrayLike | None = None,
) -> Solution:
    """The cheapest amounts of foods that meet every need: minimise cost'x s.t. content x >= need.

    Args:
        cost: of one unit of each food, (n,).
        content: (m, n), of each nutrient in one unit of each food.
        need: (m,), of each nutrient.
        upper: most of each food, a number or (n,). None: none. The least is 0.
        tol: of `solve_lp`.

    Returns the `Solution` of `solve_lp`. Shadow prices: `multipliers.ineq[i]` is what one unit more
    of nutrient i would cost, 0 where more than needed is eaten anyway: the price of a pill at which
    it would be bought. `multipliers.lower[j]` is by how much food j is too dear: what it costs more
    than the nutrients in it are worth at those prices. At the optimum their worth, need'price, is
    the cost of the diet (strong duality). Needs that no amounts meet are PRIMAL_INFEASIBLE.
    Source: Stigler (1945); Dantzig (1963), section 27.1.

    """
    price = array("`cost`", cost, 1, "One a food.")
    parts = array("`content`", content, 2, "One row a nutrient, one column a food.")
    least = array("`need`", need, 1, "One a nutrient.")
    for name, value in (("`cost`", price), ("`content`", parts), ("`need`", least)):
        finite(name, value)
    if parts.shape != (least.shape[0], price.shape[0]):
        raise ValueError(
            f"`content` must have shape {(least.shape[0], price.shape[0])}, a row for each entry "
            f"of `need` and a column for each of `cost`, but its shape is {parts.shape}."
        )
    return solve_lp(price, G=-parts, h=-least, lower=0.0, upper=upper, tol=tol)


class IsotonicState(NamedTuple):
    """`price` (n - 1,) >= 0 of x_i <= x_{i+1}, 0 at jumps; `blocks` (n,) number equal values."""

    price: Array
    blocks: Array


def isotonic(
    y: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    increasing: bool = True,
) -> Solution:
    """The nearest monotone sequence: minimise sum_i s_i (x_i - y_i)^2 / (2 sum s), x_i <= x_{i+1}.

    `y` is (n,), in the order of what it depends on. Pool adjacent violators: neighbouring blocks
    out of order become one, of their mean; O(n), one after the other. The multipliers of the order,
    `state.price`, are sums of s_i (y_i - x_i) / sum s up to i: that they are >= 0, and 0 at jumps,
    proves it. x and value have derivatives: those of the means of blocks.
    Source: Best & Chakravarti (1990).
    """
    y = array("`y`", y, 1, "A sequence.")
    finite("`y`", y)
    share = shares(sample_weight, y.shape[0], y.dtype)
    return _isotonic(y, share, increasing=bool(increasing))


class _Pools(NamedTuple):
    """A stack of blocks: sums of s y and s, where each begins, and how many there are."""

    sums: Array
    weights: Array
    first: Array
    size: Array


@functools.partial(jax.jit, static_argnames=("increasing",))
def _isotonic(y: Array, share: Array, *, increasing: bool) -> Solution:
    n, sign = y.shape[0], 1 if increasing else -1
    # A weight of 0 has no say: it follows its neighbours.
    weight = jnp.maximum(lax.stop_gradient(share), jnp.finfo(y.dtype).tiny)
    value = sign * lax.stop_gradient(y)

    def out_of_order(p: _Pools) -> Array:
        last, before = p.size - 1, jnp.maximum(p.size - 2, 0)
        left, right = p.sums[before] * p.weights[last], p.sums[last] * p.weights[before]
        return (p.size > 1) & (left >= right)

    def merge(p: _Pools) -> _Pools:
        last, before = p.size - 1, p.size - 2
        return _Pools(
            p.sums.at[before].add(p.sums[last]),
            p.weights.at[before].add(p.weights[last]),
            p.first,
            last,
        )

    def push(i: Array, p: _Pools) -> _Pools:
        grown = _Pools(
            p.sums.at[p.size].set(weight[i] * value[i]),
            p.weights.at[p.size].set(weight[i]),
            p.first.at[p.size].set(i),
            p.size + 1,
        )
        return lax.while_loop(out_of_order, merge, grown)

    blank = jnp.zeros(n, y.dtype)
    start = _Pools(blank, blank, jnp.zeros(n, jnp.int32), jnp.int32(0))
    pools = lax.fori_loop(jnp.int32(0), jnp.int32(n), push, start)
    begins = jnp.where(jnp.arange(n, dtype=jnp.int32) < pools.size, pools.first, n)
    hits = jnp.zeros(n, jnp.int32).at[begins].set(1, mode="drop")
    blocks = jnp.cumsum(hits) - 1
    total = jax.ops.segment_sum(share, blocks, num_segments=n)
    none = total <= 0
    tops = jax.ops.segment_sum(share * y, blocks, num_segments=n)
    alone = jax.ops.segment_sum(weight * y, blocks, num_segments=n)
    heavy = jax.ops.segment_sum(weight, blocks, num_segments=n)
    means = jnp.where(
        none, alone / jnp.where(heavy > 0, heavy, 1), tops / jnp.where(none, 1, total)
    )
    x = means[blocks]
    misfit = y - x
    slack = sign * jnp.cumsum(share * misfit)[:-1]
    jump = blocks[1:] != blocks[:-1]
    price = still(jnp.where(jump, 0, slack))
    off = jnp.max(jnp.where(jump, jnp.abs(slack), jnp.maximum(-slack, 0)), initial=0)
    fine = jnp.all(jnp.isfinite(x))
    status = jnp.where(fine, int(Status.CONVERGED), int(Status.NONFINITE)).astype(jnp.int32)
    loss = share @ misfit**2 / 2
    found = reported(
        jnp.where(fine, x, 0), loss, status, 1, still(off), IsotonicState(price, blocks)
    )
    return dataclasses.replace(found, multipliers=Multipliers(ineq=price))
