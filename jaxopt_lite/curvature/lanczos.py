"""Eigenvalues of symmetric operators by products alone: Lanczos with restarts and error bounds.

start block -> band Lanczos -> T = V A V' -> eigh -> bounds small? -> eigenpairs
                    ^--- the best Ritz vectors kept, and the last block <--- no
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import choose
from .operators import LinearOperator

PyTree = Any
SEGMENTS, LONG = 4, 2_000_000  # of the loop over the basis, if it has so many numbers
WHICH = ("largest", "smallest", "magnitude", "both", "nearest")


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
    operator: LinearOperator,
    steps: int,
    start: PyTree = None,
    key: Array | None = None,
    block: int = 1,
) -> Krylov:
    """`steps` products, every basis vector orthogonalised against all before.

    The recurrence's own terms are subtracted first; what one pass over the whole basis then still
    takes away is rounding, and a second is made only where it took more than 3/10 of the length:
    the basis is orthonormal to rounding, without which the largest eigenvalues come out many times
    over. m products, 4 m^2 n further operations, memory m n. Where the space is exhausted it goes
    on in a new direction, decoupled.

    Args:
        operator: symmetric.
        steps: m, at most the size of the operator.
        start: a pytree of its domain, or a vector. None: random.
        key: for what is random.
        block: start vectors p; an eigenvalue is found up to p times. T is then banded.

    Sources: Lanczos (1950); Ruhe (1979) for p > 1; Daniel, Gragg, Kaufman & Stewart (1976) on
    the second pass; Parlett (1998) on rounding.

    """
    n = _symmetric_size(operator)
    steps = _count("steps", steps, n)
    block = _block(block, steps, n)
    key = jax.random.key(0) if key is None else key
    first = None if start is None else _vector(operator, start)
    return _lanczos(operator, steps, block, first, key)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _lanczos(
    operator: LinearOperator,
    steps: int,
    block: int,
    start: Array | None,
    key: Array,
    locked: Array | None = None,
) -> Krylov:
    """Band Lanczos from `start` and random vectors, orthogonal to the rows of `locked`."""
    n, dtype = operator.domain.size, operator.dtype
    rows = jax.random.normal(key, (block, n), dtype)
    if start is not None:
        rows = rows.at[0].set(start)
    locked = jnp.zeros((0, n), dtype) if locked is None else locked
    basis = jnp.zeros((steps + block, n), dtype)

    def place(i: Array, basis: Array) -> Array:
        size = jnp.linalg.norm(rows[i])
        w, _ = _orthogonal(rows[i], basis, locked, size, size, jax.random.fold_in(key, i))
        return basis.at[i].set(w / _length(w))

    basis = lax.fori_loop(0, block, place, basis)
    matrix = jnp.zeros((steps + block, steps), dtype)
    return _extend(operator.linear(), basis, matrix, 0, key, locked)


def _extend(
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
        column = jnp.pad(jnp.where(new, more, 0), (0, m + p - basis.shape[0]))
        column = lax.dynamic_update_slice(
            column, lax.dynamic_slice(column, (first,), (2 * p,)) + along, (first,)
        )
        beta = choose(jnp.all(new), length, jnp.zeros_like(length))
        column = column.at[j + p].set(beta)
        return basis.at[j + p].set(w / length), matrix.at[:, j].set(column), size

    # Rows still to come are zero: where they would cost more than programs do, leave them out.
    size, cuts = jnp.zeros((), basis.dtype), SEGMENTS if (m - known) * n > LONG else 1
    ends = [known + (m - known) * (i + 1) // cuts for i in range(cuts)]
    done = basis[: known + p]
    for first, end in zip([known, *ends], ends, strict=False):
        done = jnp.concatenate([done, jnp.zeros((end - first, n), basis.dtype)])
        done, matrix, size = lax.fori_loop(first, end, step, (done, matrix, size))
    basis = done
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
    poor = jnp.linalg.norm(w) < jnp.maximum(0.7 * before, 10 * eps * size)
    return lax.cond(poor, again, lambda w, along: (w, along), w, along)


def _length(w: Array) -> Array:
    """|w|, 1 for no vector at all."""
    length = jnp.linalg.norm(w)
    return choose(length == 0, jnp.ones_like(length), length)


# -- eigenpairs ------------------------------------------------------------------------------------


def eigenpairs(
    operator: LinearOperator,
    count: int,
    which: str = "largest",
    *,
    shift: ArrayLike = 0.0,
    tol: float | None = None,
    room: int | None = None,
    block: int = 1,
    deflate: EigenPairs | None = None,
    max_restarts: int = 100,
    key: Array | None = None,
) -> EigenPairs:
    """Some eigenvalues and vectors by restarted Lanczos, each with a bound on its error.

    Thick restarts: the basis has `room` vectors; when it is full the best Ritz vectors are kept,
    and it grows again. Each value comes with the residual norm of its vector, within which there
    is an eigenvalue. An eigenvalue whose vector is orthogonal to a random start can be missed: with
    probability 0, unless it is multiple, of which `block` copies are found at once and further ones
    take rounding to appear.

    Interior pairs are those of (A - shift)^2 that are smallest: two products a step, and about as
    many steps as the width of the spectrum is wider than the gaps near the shift.

    Args:
        operator: symmetric.
        count: k.
        which: "largest", "smallest", "magnitude", "both" ends (half of `count` each, the odd one
            on top), or "nearest" to `shift`.
        shift: for "nearest".
        tol: bound asked for, relative to the largest |value| seen. None: eps^(2/3). For "nearest"
            it is one for (A - shift)^2, and the bounds at most its root. None: 100 eps.
        room: basis vectors. None: 2 k + 20 and what the block needs; memory room * n.
        block: start vectors; the largest multiplicity to be told.
        deflate: known pairs: what is orthogonal to their vectors is searched. Their own errors add
            to the bounds.
        max_restarts: restarts at most.
        key: for the random start.

    Raises ValueError if products are not finite; under `jit` values are NaN and not converged.
    Sources: Wu & Simon (2000); Ruhe (1979); Wang & Zunger (1994) for the folded spectrum.

    """
    n = _symmetric_size(operator)
    known = 0 if deflate is None else deflate.values.shape[0]
    count = _count("count", count, n - known)
    if which not in WHICH:
        raise ValueError(f"`which` must be one of {', '.join(WHICH)}, but {which!r} came.")
    least = min(n - known, count + 2 * block)
    room = min(n - known, 2 * count + 18 + 2 * block if room is None else int(room))
    if room < least:
        raise ValueError(f"`room` must be at least {least}, `count` and two blocks, but is {room}.")
    block = _block(block, room, n)
    eps = float(jnp.finfo(operator.dtype).eps)
    tol = (100 * eps if which == "nearest" else eps ** (2 / 3)) if tol is None else tol
    key = jax.random.key(0) if key is None else key
    searched = operator
    if which == "nearest":
        shift = jnp.asarray(shift, operator.dtype)
        pair = (operator.operands, shift)
        folded = _Folded(operator.forward)
        searched = LinearOperator(folded, None, pair, operator.domain, operator.domain)
    setting = count, which, room, block, max_restarts
    pairs = _eigenpairs(operator, searched, setting, jnp.asarray(tol, operator.dtype), deflate, key)
    return checked(pairs, pairs.values)


def checked(result: Any, numbers: Array) -> Any:
    """`result`, or an error where its numbers are known and not finite."""
    if not isinstance(numbers, jax.core.Tracer) and not bool(jnp.all(jnp.isfinite(numbers))):
        raise ValueError(
            "The operator's products are not finite, so it has no eigenvalues. Look where the "
            "function or its derivatives are infinite or NaN at this point, as sqrt and log are at "
            "zero; `jax.config.update('jax_debug_nans', True)` tells the operation."
        )
    return result


@functools.partial(jax.jit, static_argnums=2)
def _eigenpairs(
    operator: LinearOperator,
    searched: LinearOperator,
    setting: tuple,
    tol: Array,
    deflate: EigenPairs | None,
    key: Array,
) -> EigenPairs:
    count, which, room, block, max_restarts = setting
    form, eps = operator.domain, jnp.finfo(operator.dtype).eps
    locked, blur = jnp.zeros((0, form.size), operator.dtype), jnp.zeros((), operator.dtype)
    if deflate is not None:
        locked = jax.vmap(form.ravel)(deflate.vectors)
        blur = jnp.linalg.norm(deflate.bounds)
    order = functools.partial(_order, count, "smallest" if which == "nearest" else which)
    keep = max(count, min(count + (room - count) // 2, room - 2 * block))
    folded = which == "nearest"

    def unfinished(carry: tuple) -> Array:
        space, turns = carry
        values, _, bounds = space.ritz()
        best = order(values)[:count]
        small = tol * jnp.max(jnp.abs(values))
        return jnp.any(bounds[best] > small) & (turns < max_restarts)

    def restart(carry: tuple) -> tuple:
        space, turns = carry
        values, inner, _ = space.ritz()
        best = order(values)[:keep]
        basis = jnp.concatenate([jnp.zeros_like(space.basis), jnp.zeros_like(space.residual)])
        basis = basis.at[:keep].set(inner[:, best].T @ space.basis)
        basis = basis.at[keep : keep + block].set(space.residual)
        matrix = jnp.zeros((room + block, room), basis.dtype)
        matrix = matrix.at[jnp.arange(keep), jnp.arange(keep)].set(values[best])
        fresh = jax.random.fold_in(key, turns)
        return _extend(searched.linear(), basis, matrix, keep, fresh, locked), turns + 1

    space = _lanczos(searched, room, block, None, key, locked)
    turns = jnp.int32(0)
    if room + locked.shape[0] < form.size:
        space, turns = lax.while_loop(unfinished, restart, (space, turns))
    values, inner, bounds = space.ritz()
    best = order(values)[:count]
    values, bounds = values[best], bounds[best]
    vectors = inner[:, best].T @ space.basis
    products = room + turns * (room - keep)
    if folded:
        # Values at equal distances on both sides of the shift mix: part them by A itself.
        images = lax.map(operator.linear(), vectors)
        values, turn = jnp.linalg.eigh(vectors @ images.T)
        vectors, images = turn.T @ vectors, turn.T @ images
        bounds = jnp.linalg.norm(images - values[:, None] * vectors, axis=1)
        products = 2 * products + count
    up = jnp.argsort(values)
    scale = jnp.max(jnp.abs(space.ritz()[0]))
    scale = jnp.maximum(scale**0.5, jnp.max(jnp.abs(values))) if folded else scale
    rounding = 10 * eps * scale
    bounds = jnp.hypot(bounds[up], blur) + rounding
    goal = jnp.maximum(tol, tol**0.5 if folded else 0) * scale
    return EigenPairs(
        values=values[up],
        vectors=jax.vmap(form.unravel)(vectors[up]),
        bounds=bounds,
        converged=bounds <= goal + blur + rounding,
        products=products,
    )


@dataclasses.dataclass(frozen=True)
class _Folded:
    """(A - s)^2 v, the operands those of A and s."""

    forward: Callable

    def __call__(self, operands: tuple, v: Array) -> Array:
        return self.once(operands)(v)

    def once(self, operands: tuple) -> Callable[[Array], Array]:
        """The same for many vectors."""
        inner, shift = operands
        find = getattr(self.forward, "once", None)
        apply = functools.partial(self.forward, inner) if find is None else find(inner)
        less = lambda v: apply(v) - shift * v
        return lambda v: less(less(v))


def _order(count: int, which: str, values: Array) -> Array:
    """Indices of ascending `values`, those asked for first."""
    if which == "both":  # in turns from both ends, from the top first
        n = values.shape[0]
        place = jnp.arange(n)
        return jnp.argsort(jnp.minimum(2 * (n - 1 - place), 2 * place + 1))
    score = {"largest": -values, "smallest": values, "magnitude": -jnp.abs(values)}[which]
    return jnp.argsort(score)


# -- what is refused -------------------------------------------------------------------------------


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


def _block(block: int, room: int, n: int) -> int:
    """Start vectors; where the whole space is spanned one is enough."""
    if not 1 <= int(block) <= max(1, room // 2):
        raise ValueError(
            f"`block` must be between 1 and half of the basis, {max(1, room // 2)}, but {block} "
            "came."
        )
    return int(block)


def _vector(operator: LinearOperator, start: PyTree) -> Array:
    flat = start if getattr(start, "shape", None) == (operator.domain.size,) else None
    flat = operator.domain.ravel(start) if flat is None else flat
    return jnp.asarray(flat, operator.dtype)
