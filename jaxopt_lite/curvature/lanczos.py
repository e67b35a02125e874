"""Eigenvalues of symmetric operators by products alone: Lanczos with restarts and error bounds."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..linalg import choose
from .operators import LinearOperator

PyTree = Any


class Krylov(NamedTuple):
    """What m steps give: an orthonormal basis V (m, n) with A V' = V'T + beta v e_m'."""

    basis: Array  # V (m, n), rows
    projected: Array  # T = V A V' (m, m), tridiagonal without restarts
    beta: Array  # the length of what is left
    residual: Array  # v (n,), of length 1, orthogonal to V


class EigenPairs(NamedTuple):
    """Some eigenvalues, with a bound on the error of each.

    `values` (k,) ascend; `vectors` (k, n) are orthonormal rows, or pytrees with that first axis.
    Within `bounds` (k,) of each value there is an eigenvalue of the operator, whatever was missed.
    `converged` where the bound is at most tol max|values|; `products` were used.
    """

    values: Array
    vectors: PyTree
    bounds: Array
    converged: Array
    products: Array


def lanczos(
    operator: LinearOperator, steps: int, start: PyTree = None, key: Array | None = None
) -> Krylov:
    """`steps` products from one start, every basis vector orthogonalised against all before.

    Twice, by matrix-vector products: the basis is orthonormal to rounding, without which the
    largest eigenvalues come out many times over. m products, 8 m^2 n further operations, memory
    m n. Where the space is exhausted it goes on in a new direction, decoupled.

    Args:
        operator: symmetric.
        steps: m, at most the size of the operator.
        start: a pytree of its domain, or a vector. None: random.
        key: for the random start.

    Sources: Lanczos (1950); Golub & Van Loan (2013), section 10.3; Parlett (1998) on rounding.

    """
    n = _symmetric_size(operator)
    steps = _count("steps", steps, n)
    first = _start(operator, start, key)
    empty = jnp.zeros((steps, n), operator.dtype)
    return _extend(operator.apply, empty, jnp.zeros((steps, steps), operator.dtype), first, 0)


def eigenpairs(
    operator: LinearOperator,
    count: int,
    which: str = "largest",
    *,
    tol: float | None = None,
    room: int | None = None,
    max_restarts: int = 100,
    key: Array | None = None,
) -> EigenPairs:
    """The `count` largest or smallest eigenvalues, or the largest in size, by restarted Lanczos.

    Thick restarts: the basis has `room` vectors; when it is full the best Ritz vectors are kept,
    and it grows again. Each value comes with the residual norm of its vector, within which there
    is an eigenvalue. An eigenvalue whose vector is orthogonal to a random start can be missed: with
    probability 0, unless it is multiple, of which copies beyond the first take rounding to appear.

    Args:
        operator: symmetric.
        count: k.
        which: "largest", "smallest" or "magnitude".
        tol: bound asked for, relative to the largest |value| seen. None: eps^(2/3).
        room: basis vectors. None: 2 k + 20; memory room * n.
        max_restarts: restarts at most.
        key: for the random start.

    Source: Wu & Simon (2000).

    """
    n = _symmetric_size(operator)
    count = _count("count", count, n)
    if which not in ("largest", "smallest", "magnitude"):
        raise ValueError(
            f"`which` must be 'largest', 'smallest' or 'magnitude', but {which!r} came."
        )
    room = min(n, 2 * count + 20 if room is None else int(room))
    if room < min(n, count + 2):
        raise ValueError(
            f"`room` must be at least {min(n, count + 2)}, two more than `count`, but is {room}."
        )
    eps = float(jnp.finfo(operator.dtype).eps)
    tol = eps ** (2 / 3) if tol is None else tol
    keep = min(count + (room - count) // 2, room - 1) if room < n else room

    def order(values: Array) -> Array:
        score = {"largest": -values, "smallest": values, "magnitude": -jnp.abs(values)}[which]
        return jnp.argsort(score)

    def ritz(space: Krylov):
        values, inner = jnp.linalg.eigh(space.projected)
        bounds = jnp.abs(space.beta * inner[-1])
        best = order(values)
        return values[best], inner[:, best], bounds[best]

    def unfinished(carry) -> Array:
        space, turns = carry
        values, _, bounds = ritz(space)
        small = tol * jnp.max(jnp.abs(values))
        return jnp.any(bounds[:count] > small) & (turns < max_restarts)

    def restart(carry):
        space, turns = carry
        values, inner, _ = ritz(space)
        kept = inner[:, :keep].T @ space.basis
        basis = jnp.zeros_like(space.basis).at[:keep].set(kept)
        matrix = jnp.zeros_like(space.projected)
        matrix = matrix.at[jnp.arange(keep), jnp.arange(keep)].set(values[:keep])
        return _extend(operator.apply, basis, matrix, space.residual, keep), turns + 1

    space = lanczos(operator, room, key=key)
    space, turns = lax.while_loop(unfinished, restart, (space, jnp.int32(0)))
    values, inner, bounds = ritz(space)
    values, inner, bounds = values[:count], inner[:, :count], bounds[:count]
    up = jnp.argsort(values)
    vectors = (inner.T @ space.basis)[up]
    scale = jnp.max(jnp.abs(values))
    rounding = 10 * eps * scale
    bounds = bounds[up] + rounding
    return EigenPairs(
        values=values[up],
        vectors=jax.vmap(operator.domain.unravel)(vectors),
        bounds=bounds,
        converged=bounds <= tol * scale + rounding,
        products=room + turns * (room - keep),
    )


def _extend(
    apply: Callable[[Array], Array], basis: Array, matrix: Array, vector: Array, known: int
) -> Krylov:
    """Fill the basis from row `known` on, starting with `vector`; T = V A V' column by column."""
    m, n = basis.shape
    eps = jnp.finfo(basis.dtype).eps

    def orthogonal(w: Array, basis: Array) -> tuple[Array, Array]:
        first = basis @ w
        w = w - first @ basis
        second = basis @ w
        return w - second @ basis, first + second

    def step(j, carry):
        basis, matrix, v, _, size = carry
        basis = basis.at[j].set(v)
        image = apply(v)
        w, along = orthogonal(image, basis)
        size = jnp.maximum(size, jnp.linalg.norm(image))
        beta = jnp.linalg.norm(w)
        # An invariant space was found: go on in a direction of its own, which is decoupled.
        spare = jax.random.normal(jax.random.fold_in(jax.random.key(7), j), (n,), basis.dtype)
        spare, _ = orthogonal(spare, basis)
        spare, _ = orthogonal(spare, basis)
        lost = beta <= 10 * n * eps * size
        v = choose(lost, spare / jnp.linalg.norm(spare), w / jnp.where(lost, 1, beta))
        beta = choose(lost, jnp.zeros_like(beta), beta)
        return basis, matrix.at[:, j].set(along), v, beta, size

    zero = jnp.zeros((), basis.dtype)
    vector, _ = orthogonal(vector, basis)
    vector = vector / jnp.linalg.norm(vector)
    basis, matrix, v, beta, _ = lax.fori_loop(known, m, step, (basis, matrix, vector, zero, zero))
    # A column tells of the rows before its own; the rest follows from symmetry.
    matrix = jnp.triu(matrix) + jnp.triu(matrix, 1).T
    return Krylov(basis, matrix, beta, v)


def _symmetric_size(operator: Any) -> int:
    if not isinstance(operator, LinearOperator):
        raise TypeError(
            "`operator` must be a linear operator, `curvature.hessian(fun, x)` for instance, but "
            f"a {type(operator).__name__} came."
        )
    if not operator.symmetric:
        raise ValueError(
            f"`operator` must be symmetric, but it is a map of shape {operator.shape} with a "
            "transpose of its own. For singular values take that of J'J or J J'."
        )
    return operator.domain.size


def _count(name: str, value: int, most: int) -> int:
    if not 1 <= int(value) <= most:
        raise ValueError(
            f"`{name}` must be between 1 and the size of the operator, {most}, but {value} came."
        )
    return int(value)


def _start(operator: LinearOperator, start: PyTree, key: Array | None) -> Array:
    n = operator.domain.size
    if start is not None:
        flat = start if getattr(start, "shape", None) == (n,) else operator.domain.ravel(start)
        return jnp.asarray(flat, operator.dtype)
    key = jax.random.key(0) if key is None else key
    return jax.random.normal(key, (n,), operator.dtype)
