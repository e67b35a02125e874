"""Lanczos' recurrence for symmetric maps given by products, with an orthonormal basis."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .trees import choose


class Krylov(NamedTuple):
    """What m steps give: an orthonormal basis V (m, n) with A V' = V'T + R'C."""

    basis: Array  # V (m, n), rows
    projected: Array  # T = V A V' (m, m), tridiagonal without restarts and blocks
    coupling: Array  # C (p, m), zero but for its last p columns
    residual: Array  # R (p, n), orthonormal rows, orthogonal to V: where it would go on

    def ritz(self) -> tuple[Array, Array, Array]:
        """Eigenvalues of T in ascending order, eigenvectors in columns, |A u - theta u| of each."""
        values, inner = jnp.linalg.eigh(self.projected)
        return values, inner, jnp.linalg.norm(self.coupling @ inner, axis=0)


def band_lanczos(
    apply: Callable[[Array], Array],
    starts: Array,
    steps: int,
    key: Array,
    locked: Array | None = None,
) -> Krylov:
    """`steps` products from the rows of `starts` (p, n), in the complement of `locked` (l, n).

    `steps` is at least 2 p, or 1 for p = 1. Rows that depend on others give way to random ones.
    Sources: Lanczos (1950); Ruhe (1979) for p > 1.
    """
    (block, n), dtype = starts.shape, starts.dtype
    locked = jnp.zeros((0, n), dtype) if locked is None else locked
    basis = jnp.zeros((steps + block, n), dtype)

    def place(i: Array, basis: Array) -> Array:
        size = jnp.linalg.norm(starts[i])
        w, _ = _orthogonal(starts[i], basis, locked, size, size, jax.random.fold_in(key, i))
        return basis.at[i].set(w / _length(w))

    basis = lax.fori_loop(0, block, place, basis)
    matrix = jnp.zeros((steps + block, steps), dtype)
    return extend_basis(apply, basis, matrix, 0, key, locked)


def extend_basis(
    apply: Callable[[Array], Array],
    basis: Array,
    matrix: Array,
    known: int,
    key: Array,
    locked: Array,
) -> Krylov:
    """Fill the basis (m + p, n) from row `known` + p on, the rows before being given.

    Column j of the matrix (m + p, m) holds v_i'A v_j, for i <= j + p and j >= known.
    """
    m, n = matrix.shape[1], basis.shape[1]
    p = basis.shape[0] - m

    def step(j: Array, carry: tuple) -> tuple:
        basis, matrix, size = carry
        image = apply(basis[j])
        size = jnp.maximum(size, jnp.linalg.norm(image))
        # The terms of the recurrence, v_{j-p} ... v_{j+p-1}; after a restart, more.
        first = jnp.maximum(j - p, 0)
        near = lax.dynamic_slice(basis, (first, jnp.zeros_like(first)), (2 * p, n))
        along = near @ image
        w = image - along @ near
        spare = jax.random.fold_in(key, j)
        w, more = _orthogonal(w, basis, locked, jnp.linalg.norm(w), size, spare)
        length = _length(w)
        new = more < jnp.inf  # not a direction of its own
        column = jnp.where(new, more, 0)
        column = lax.dynamic_update_slice(
            column, lax.dynamic_slice(column, (first,), (2 * p,)) + along, (first,)
        )
        beta = choose(jnp.all(new), length, jnp.zeros_like(length))
        column = column.at[j + p].set(beta)
        return basis.at[j + p].set(w / length), matrix.at[:, j].set(column), size

    size = jnp.zeros((), basis.dtype)
    basis, matrix, _ = lax.fori_loop(known, m, step, (basis, matrix, size))
    # A column tells of the rows before its own; the rest follows from symmetry.
    square = matrix[:m]
    square = jnp.triu(square) + jnp.triu(square, 1).T
    return Krylov(basis[:m], square, matrix[m:], basis[m:])


def _orthogonal(
    w: Array, basis: Array, locked: Array, before: Array, size: Array, key: Array
) -> tuple[Array, Array]:
    """W without its part in the rows of `basis` and `locked`, and its products with the former.

    One pass, and more where it lost more than 3/10 of its length. Where nothing but rounding was
    left, beside the largest image `size`, a random direction of length 1 comes instead, 0 where
    there is none, and infinity for the products.
    """
    eps = jnp.finfo(w.dtype).eps

    def once(w: Array) -> tuple[Array, Array]:
        along = basis @ w
        w = w - along @ basis
        return (w - (locked @ w) @ locked if locked.shape[0] else w), along

    def again(w: Array, along: Array) -> tuple[Array, Array]:
        first = jnp.linalg.norm(w)
        w, more = once(w)
        lost = ~(jnp.linalg.norm(w) > jnp.maximum(10 * eps * size, 0.5 * first))
        w = choose(lost, jax.random.normal(key, w.shape, w.dtype) / w.shape[0] ** 0.5, w)
        w, least = once(w)
        w, last = once(w)
        total = along + more + least + last
        none = ~(jnp.linalg.norm(w) > 1000 * eps)  # the basis spans the whole space
        w = choose(lost, choose(none, jnp.zeros_like(w), w / _length(w)), w)
        return w, choose(lost, jnp.full_like(total, jnp.inf), total)

    w, along = once(w)
    poor = jnp.linalg.norm(w) <= jnp.maximum(0.7 * before, 10 * eps * size)
    return lax.cond(poor, again, lambda w, along: (w, along), w, along)


def _length(w: Array) -> Array:
    """|w|, 1 for no vector at all."""
    length = jnp.linalg.norm(w)
    return choose(length == 0, jnp.ones_like(length), length)
