"""Sequential minimal optimisation: the dual of every support vector machine here.

    minimise 1/2 b'Kb - c'b + e ||b||_1   subject to   sum b = total,   lower <= b <= upper

Two entries move at a time, the pair with the largest decrease of a quadratic model (WSS 2).
Source: Fan, Chen & Lin (2005), section 2.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..core import Status


class Dual(NamedTuple):
    """The program."""

    K: Array  # (n, n)
    c: Array  # (n,)
    e: Array  # ()
    lower: Array  # (n,), <= 0 if e > 0
    upper: Array
    total: Array


class Found(NamedTuple):
    """Where it ended; `slope` = c - K b, which is the bias where an entry is free (e = 0)."""

    b: Array
    slope: Array
    violation: Array  # max over pairs of the gain per unit moved
    steps: Array
    status: Array


class _Loop(NamedTuple):
    b: Array
    slope: Array
    i: Array
    high: Array  # slope of i, the most that an increase gains
    violation: Array
    steps: Array
    status: Array


def directions(dual: Dual, b: Array, slope: Array) -> tuple[Array, Array]:
    """What a unit of increase gains, -inf where there is no room, and of decrease costs, or inf."""
    e, zero = dual.e, jnp.zeros_like(b)
    gain = slope - jnp.where(b >= zero, e, -e)
    cost = slope - jnp.where(b > zero, e, -e)
    gain = jnp.where(b < dual.upper, gain, -jnp.inf)
    return gain, jnp.where(b > dual.lower, cost, jnp.inf)


def _where(values: Array, most: Array) -> Array:
    """The first index of `most`: `argmax` of XLA takes six times as long on a CPU."""
    index = jnp.arange(values.shape[0], dtype=jnp.int32)
    return jnp.min(jnp.where(values == most, index, values.shape[0] - 1))


def smo(dual: Dual, b: Array, tol: Array, max_steps: Array) -> Found:
    """From a feasible `b` until no pair gains more than `tol` per unit, in one `while_loop`."""
    K = dual.K
    diagonal = jnp.diagonal(K)
    n, dtype = b.shape[0], b.dtype
    least = jnp.finfo(dtype).eps * jnp.max(jnp.abs(diagonal)) + jnp.finfo(dtype).tiny

    def best(b, slope):
        gain, cost = directions(dual, b, slope)
        high = jnp.max(gain)
        return _where(gain, high), high, high - jnp.min(cost)

    def advance(run: _Loop) -> _Loop:
        i = run.i
        _, cost = directions(dual, run.b, run.slope)
        row = lax.dynamic_index_in_dim(K, i, keepdims=False)
        lead = run.high - cost
        bend = diagonal[i] + diagonal - 2 * row
        score = jnp.where(lead > 0, lead * lead / jnp.maximum(bend, least), -1)
        j = _where(score, jnp.max(score))
        curved = bend[j]
        other = lax.dynamic_index_in_dim(K, j, keepdims=False)
        bi, bj = run.b[i], run.b[j]
        # Up to a bound, or to 0, where |b| bends.
        room_i = jnp.where((dual.e > 0) & (bi < 0), -bi, dual.upper[i] - bi)
        room_j = jnp.where((dual.e > 0) & (bj > 0), bj, bj - dual.lower[j])
        full = lead[j] / jnp.maximum(curved, least)
        by = jnp.minimum(full, jnp.minimum(room_i, room_j))
        # What reaches a bound is on it exactly.
        to_i = jnp.where(
            by == room_i, jnp.where((dual.e > 0) & (bi < 0), 0, dual.upper[i]), bi + by
        )
        to_j = jnp.where(
            by == room_j, jnp.where((dual.e > 0) & (bj > 0), 0, dual.lower[j]), bj - by
        )
        b = run.b.at[i].set(to_i).at[j].set(to_j)
        slope = run.slope - by * (row - other)
        first, high, violation = best(b, slope)
        steps = run.steps + 1
        status = jnp.where(steps >= max_steps, int(Status.MAX_STEPS), int(Status.RUNNING))
        indefinite = curved < -1e4 * n * least
        status = jnp.where(indefinite, int(Status.NONCONVEX), status)
        status = jnp.where(violation <= tol, int(Status.CONVERGED), status)
        status = jnp.where(jnp.isfinite(violation), status, int(Status.NONFINITE))
        return _Loop(b, slope, first, high, violation, steps, status.astype(jnp.int32))

    slope = dual.c - K @ b
    i, high, violation = best(b, slope)
    status = jnp.where(violation <= tol, int(Status.CONVERGED), int(Status.RUNNING))
    status = jnp.where(jnp.isfinite(jnp.sum(slope)), status, int(Status.NONFINITE))
    start = _Loop(b, slope, i, high, violation, jnp.int32(0), status.astype(jnp.int32))
    end = lax.while_loop(lambda run: run.status == int(Status.RUNNING), advance, start)
    return Found(end.b, dual.c - K @ end.b, end.violation, end.steps, end.status)


def one_by_one(dual: Dual, b: Array, tol: Array, max_steps: Array) -> Found:
    """`smo`; lanes of a batch one after the other, since each step of the slowest is of all."""
    return jax.custom_batching.sequential_vmap(smo)(dual, b, tol, max_steps)
