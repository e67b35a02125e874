"""Least squares with signs: min |E u - f| over u_i >= 0, by block principal pivoting."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .solve import least_norm

TRIES = 3  # exchanges of all wrong signs at once that need not help, before one at a time


class Pivot(NamedTuple):
    """Which entries are free to move, and how the exchange goes."""

    free: Array  # (k,)
    u: Array
    wrong: Array  # (k,), entries of the wrong sign: of u where free, of the gradient elsewhere
    fewest: Array
    tries: Array
    rounds: Array


def non_negative_least_squares(matrix: Array, rhs: Array, signed: Array, used: Array) -> Array:
    """The u (k,) of least |E u - f|, of least norm among these, with u_i >= 0 where `signed`.

    Entries that are not `used` are 0. E (m, k) should have columns of norm about 1: a Tikhonov term
    eps^(2/3) |u|^2 decides between solutions, and the answer is solved anew without it, by singular
    values. A few LU factors of (k, k) and one SVD; exact signs but for ties within rounding.
    Source: Kim & Park (2011); Portugal, Júdice & Vicente (1994).
    """
    k, eps = matrix.shape[1], float(jnp.finfo(matrix.dtype).eps)
    if not k:
        return jnp.zeros(0, matrix.dtype)
    matrix = jnp.where(used, matrix, 0)
    normal = matrix.T @ matrix + eps ** (2 / 3) * jnp.eye(k, dtype=matrix.dtype)
    target = matrix.T @ rhs
    noise = 100 * eps * (1 + jnp.max(jnp.abs(target), initial=0))

    def step(pivot: Pivot) -> Pivot:
        pivot = exchange(pivot)
        both = pivot.free[:, None] & pivot.free
        system = jnp.where(both, normal, jnp.eye(k, dtype=matrix.dtype))
        u = jnp.linalg.solve(system, jnp.where(pivot.free, target, 0))
        gradient = normal @ u - target
        wrong = signed & used & jnp.where(pivot.free, u < -noise, gradient < -noise)
        return pivot._replace(u=u, wrong=wrong, rounds=pivot.rounds + 1)

    def exchange(pivot: Pivot) -> Pivot:
        number = jnp.sum(pivot.wrong, dtype=jnp.int32)
        fewer = number < pivot.fewest
        last = jnp.arange(k) == k - 1 - jnp.argmax(pivot.wrong[::-1])
        all_at_once = fewer | (pivot.tries > 0)
        flipped = jnp.where(all_at_once, pivot.wrong, pivot.wrong & last)
        return pivot._replace(
            free=pivot.free ^ flipped,
            fewest=jnp.where(fewer, number, pivot.fewest),
            tries=jnp.where(fewer, TRIES, jnp.maximum(pivot.tries - 1, 0)),
        )

    zero = jnp.int32(0)
    # All that are used are wrong at first, so that all of them are freed.
    start = Pivot(~used & False, target * 0, used, zero + k + 1, zero + TRIES, zero)
    end = lax.while_loop(
        lambda pivot: jnp.any(pivot.wrong) & (pivot.rounds < 20 + 5 * k), step, start
    )
    exact = least_norm(jnp.where(end.free, matrix, 0), rhs, 100 * k * eps)
    exact = jnp.where(end.free, exact, 0)
    # Where that would leave the orthant, which the term kept it in, the term stays.
    kept = jnp.all(~signed | (exact >= -noise))
    u = jnp.where(kept, exact, end.u)
    return jnp.where(signed, jnp.maximum(u, 0), u)
