"""Dense solves that say when a matrix is singular and then return the minimum-norm answer.

matvec -> materialize -> Cholesky or LU, one refinement -> (singular?) eigen- or SVD pseudo-inverse
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array, lax

from .trees import choose

# Up to this size factors are unrolled: 10,000 fits of 3 unknowns took 0.34 s by LAPACK, 0.28 so.
UNROLLED = 4


class Spectrum(NamedTuple):
    """Eigenvalues (n,), ascending, and orthonormal eigenvectors in the columns of (n, n)."""

    values: Array
    vectors: Array


def spectrum(matrix: Array) -> Spectrum:
    """`jnp.linalg.eigh` of the symmetric part; all NaN when `matrix` is not finite."""
    symmetric = 0.5 * (matrix + matrix.T)
    finite = jnp.all(jnp.isfinite(symmetric))
    values, vectors = jnp.linalg.eigh(
        jnp.where(finite, symmetric, jnp.eye(matrix.shape[0], dtype=matrix.dtype))
    )
    bad = jnp.where(finite, 0, jnp.nan).astype(values.dtype)
    return Spectrum(values + bad, vectors + bad)


def inertia_tolerance(values: Array) -> Array:
    """Eigenvalues closer to zero than 10 n eps max|lambda| are zero to working precision.

    The backward error of a symmetric eigensolver is a small multiple of n eps ||A||_2; the
    factor 10 leaves room for the rounding made when the matrix itself was computed.
    """
    eps = jnp.finfo(values.dtype).eps
    return 10 * values.shape[0] * eps * jnp.max(jnp.abs(values))


def materialize(matvec: Callable[[Array], Array], size: int, dtype) -> Array:
    """The matrix (size, size) of a linear map, one product per column, in one batch."""
    return jax.vmap(matvec, out_axes=1)(jnp.eye(size, dtype=dtype))


def psd_factor(matrix: Array) -> tuple[Array, Array]:
    """Cholesky factor L (lower) of a symmetric matrix, and whether it is safely positive definite.

    Safely: every pivot is above n eps times the largest diagonal entry of `matrix`. When it is
    not, L is the identity, so that what is computed from it stays finite and can be discarded.
    """
    n = matrix.shape[0]
    diagonal = jnp.diagonal(matrix)
    floor = n * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(diagonal))
    factor = (
        _unrolled_cholesky(matrix)
        if n <= UNROLLED
        else lax.linalg.cholesky(matrix, symmetrize_input=False)
    )
    pivots = jnp.diagonal(factor) ** 2
    good = jnp.all(jnp.isfinite(pivots)) & (jnp.min(pivots) > floor)
    return jnp.where(good, factor, jnp.eye(n, dtype=matrix.dtype)), good


def psd_solve(factor: Array, rhs: Array) -> Array:
    """(L L')^-1 b for a factor of `psd_factor` and a vector b."""
    n = factor.shape[0]
    if n > UNROLLED:
        return jsl.cho_solve((factor, True), rhs)
    y: list[Array] = []
    for i in range(n):
        known = [factor[i, k] * y[k] for k in range(i)]
        y.append((rhs[i] - sum(known)) / factor[i, i] if known else rhs[i] / factor[i, i])
    x = y
    for i in reversed(range(n)):
        for k in range(i + 1, n):
            x[i] = x[i] - factor[k, i] * x[k]
        x[i] = x[i] / factor[i, i]
    return jnp.stack(x)


def _unrolled_cholesky(matrix: Array) -> Array:
    """Entry by entry: in a batch, vectorised over its lanes, where LAPACK is called for each."""
    n = matrix.shape[0]
    zero = jnp.zeros((), matrix.dtype)
    rows: list[list[Array]] = []
    for i in range(n):
        row: list[Array] = []
        for j in range(i):
            inner = [row[k] * rows[j][k] for k in range(j)]
            rest = matrix[i, j] - sum(inner) if inner else matrix[i, j]
            row.append(rest / rows[j][j])
        squares = [entry * entry for entry in row]
        row.append(jnp.sqrt(matrix[i, i] - sum(squares) if squares else matrix[i, i]))
        rows.append(row)
    return jnp.stack([jnp.stack(row + [zero] * (n - len(row))) for row in rows])


def least_norm(matrix: Array, rhs: Array, rcond: float | None = None) -> Array:
    """The least-squares solution of least norm; 0 for a matrix of zeros.

    `jnp.linalg.lstsq` is NaN there with JAX 0.7. Singular values up to `rcond` of the largest count
    as 0; None: max(m, n) eps.
    """
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    small = max(matrix.shape) * float(jnp.finfo(matrix.dtype).eps) if rcond is None else rcond
    keep = ~(values <= small * jnp.max(values, initial=0))  # what is no number stays none
    seen = jnp.where(keep, left.T @ rhs / jnp.where(keep, values, 1), 0)
    return right.T @ seen


def dense_solve(matrix: Array, rhs: Array, symmetric: bool) -> Array:
    """A^-1 b, or the minimum-norm least-squares solution A^+ b when A is singular.

    `matrix` is (n, n), `rhs` is (n,). Positive definite matrices go by Cholesky, general ones by
    LU, each refined once; a matrix with a pivot below n eps max|pivot| goes by eigenvalues or
    singular values, those below 10 n eps max counted as zero. O(n^3). NaN in gives NaN out.
    """
    if symmetric:
        matrix = 0.5 * (matrix + matrix.T)
        factor, good = psd_factor(matrix)

        def direct(b):
            return psd_solve(factor, b)

    else:
        lu, pivots = jsl.lu_factor(matrix)
        diagonal = jnp.abs(jnp.diagonal(lu))
        eps = jnp.finfo(matrix.dtype).eps
        good = jnp.min(diagonal) > matrix.shape[0] * eps * jnp.max(diagonal)

        def direct(b):
            return jsl.lu_solve((lu, pivots), b)

    def refined(b):
        x = direct(b)
        return x + direct(b - matrix @ x)

    # In a batch both branches run. The second gets the identity where it is not needed: that is
    # cheap, and it orders the two LAPACK calls, which can deadlock jaxlib's CPU threads otherwise.
    other = choose(good, jnp.eye(matrix.shape[0], dtype=matrix.dtype), matrix)
    return lax.cond(good, refined, lambda b: _minimum_norm(other, b, symmetric), rhs)


def _minimum_norm(matrix: Array, rhs: Array, symmetric: bool) -> Array:
    """A^+ b by eigenvalues (symmetric) or singular values."""
    if symmetric:
        values, left = spectrum(matrix)
        right = left
    else:
        left, values, right_t = jnp.linalg.svd(matrix)
        right = right_t.T
    keep = jnp.abs(values) > inertia_tolerance(values)
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)
    answer = right @ (inverse * (left.T @ rhs))
    return jnp.where(jnp.all(jnp.isfinite(values)), answer, jnp.nan)
