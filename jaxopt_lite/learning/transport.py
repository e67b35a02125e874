"""Entropic optimal transport: Sinkhorn's iteration on the dual, in logarithms."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import Implicit, Multipliers, Residuals, Solution, Status, check
from ..core.implicit import attach
from ..core.stopping import default_tolerance
from ..prox.arguments import array
from ._data import finite, known, still

MAX_STEPS = 10_000


class TransportState(NamedTuple):
    """`gap`, the value less that of the dual at the potentials; `entropy` of the plan."""

    gap: Array
    entropy: Array


class _Potentials(NamedTuple):
    f: Array
    g: Array
    off: Array
    steps: Array


def optimal_transport(
    cost: ArrayLike,
    rows: ArrayLike,
    columns: ArrayLike,
    epsilon: ArrayLike,
    *,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    r"""Minimise sum_ij C_ij P_ij + epsilon sum_ij P_ij (log P_ij - 1), P 1 = rows, P'1 = columns.

    P_ij = exp((f_i + g_j - C_ij) / epsilon): f and g in turn meet the rows and the columns, which
    is the ascent of the dual rows'f + columns'g - epsilon sum P by blocks. Everything in
    logarithms, so that a small epsilon cannot overflow. mn a step; the number of steps grows as
    1 / epsilon.

    Args:
        cost: C, (m, n).
        rows: (m,), > 0, what leaves each i.
        columns: (n,), > 0, what arrives at each j, the same in total.
        epsilon: > 0, in units of the cost.
        tol: CONVERGED means that rows are met to `tol` in total variation, columns exactly. None:
            sqrt(eps).
        max_steps: None: 10,000.

    Returns a `Solution`: x is the plan (m, n); `multipliers.eq` = (-f, -g), so that by one more
    unit leaving i and arriving at j the value rises by f_i + g_j; f and g are unique up to a
    constant, here with sum f = 0. x and value have derivatives of any order in cost, rows, columns
    and epsilon, by one linear system of m + n. Raises TypeError or ValueError for negative masses,
    totals that differ, epsilon <= 0. Source: Peyré & Cuturi (2019), section 4.

    """
    C = array("`cost`", cost, 2, "C_ij is the price of a unit from i to j.")
    a = array("`rows`", rows, 1, "One mass a row of `cost`.").astype(C.dtype)
    b = array("`columns`", columns, 1, "One mass a column of `cost`.").astype(C.dtype)
    finite("`cost`", C)
    if (a.shape[0], b.shape[0]) != C.shape:
        raise ValueError(
            f"`rows` and `columns` must have shapes {C.shape[:1]} and {C.shape[1:]} as `cost` has, "
            f"but they have {a.shape} and {b.shape}."
        )
    for name, mass in (("rows", a), ("columns", b)):
        if known(mass) and not np.all(np.asarray(mass) > 0):
            raise ValueError(
                f"`{name}` must be > 0 everywhere, but {float(jnp.min(mass))!r} came. Leave out "
                "what has no mass."
            )
    if known((a, b)):
        apart = abs(float(jnp.sum(a) - jnp.sum(b)))
        if apart > 1e3 * float(jnp.finfo(C.dtype).eps) * float(jnp.sum(a)):
            raise ValueError(
                f"`rows` and `columns` must have the same total, but they sum to "
                f"{float(jnp.sum(a)):.6g} and {float(jnp.sum(b)):.6g}."
            )
    check.number("`epsilon`", epsilon, 0.0, strict=True, way_out="0 is a linear program: solve_lp.")
    check.options(tol, max_steps, False, "implicit")
    tol = default_tolerance(C.dtype) if tol is None else tol
    steps = MAX_STEPS if max_steps is None else int(max_steps)
    e = jnp.asarray(epsilon, C.dtype)
    return _solved(C, a, b, e, jnp.asarray(tol, C.dtype), jnp.asarray(steps, jnp.int32))


def _plan(z: Array, params: tuple) -> Array:
    C, a, _, e = params
    m = a.shape[0]
    return jnp.exp((z[:m, None] + z[m:] - C) / e)


def _unmet(z: Array, params: tuple) -> Array:
    """Minus the gradient of the dual in (f, g)."""
    P = _plan(z, params)
    return jnp.concatenate([jnp.sum(P, 1) - params[1], jnp.sum(P, 0) - params[2]])


@jax.jit
def _solved(C: Array, a: Array, b: Array, e: Array, tol: Array, max_steps: Array) -> Solution:
    params = (C, a, b, e)
    cost, row, column, width, tol = still((*params, tol))
    logs = jnp.log(row), jnp.log(column)

    def advance(p: _Potentials) -> _Potentials:
        f = width * (logs[0] - jax.nn.logsumexp((p.g - cost) / width, axis=1))
        g = width * (logs[1] - jax.nn.logsumexp((f[:, None] - cost) / width, axis=0))
        sums = jnp.exp(jax.nn.logsumexp((f[:, None] + g - cost) / width, axis=1))
        return _Potentials(f, g, jnp.sum(jnp.abs(sums - row)), p.steps + 1)

    goal = tol * jnp.sum(row)
    start = _Potentials(
        jnp.zeros_like(row), jnp.zeros_like(column), jnp.full_like(width, jnp.inf), jnp.int32(0)
    )
    end = lax.while_loop(lambda p: (p.off > goal) & (p.steps < max_steps), advance, start)
    fine = jnp.isfinite(end.off)
    status = jnp.where(end.off <= goal, int(Status.CONVERGED), int(Status.MAX_STEPS))
    status = jnp.where(fine, status, int(Status.NONFINITE)).astype(jnp.int32)
    success = status == int(Status.CONVERGED)
    level = jnp.mean(end.f)
    z = jnp.where(fine, jnp.concatenate([end.f - level, end.g + level]), 0)
    z = attach(_unmet, True, Implicit(), z, params, success)
    P, m = _plan(z, params), row.shape[0]
    # The dual: its derivatives are those of the value, by the envelope theorem and to any order.
    value = a @ z[:m] + b @ z[m:] - e * jnp.sum(P)
    P0, z0 = still((P, z))
    entropy = -jnp.sum(jnp.where(P0 > 0, P0 * jnp.log(jnp.where(P0 > 0, P0, 1)), 0))
    primal = jnp.sum(cost * P0) - width * (entropy + jnp.sum(P0))
    off = jnp.max(jnp.abs(_unmet(z0, still(params))))
    nothing = jnp.zeros_like(off)
    return Solution(
        x=P,
        value=value,
        aux=None,
        multipliers=Multipliers(eq=(-z[:m], -z[m:])),
        status=status,
        success=success,
        steps=end.steps,
        residuals=Residuals(nothing, off, nothing, nothing),
        history=None,
        state=TransportState(primal - lax.stop_gradient(value), entropy),
    )
