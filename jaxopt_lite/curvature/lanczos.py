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

from ..linalg import Krylov, band_lanczos, extend_basis
from .operators import LinearOperator

PyTree = Any
WHICH = ("largest", "smallest", "magnitude", "both", "nearest")


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
    rows = jax.random.normal(key, (block, operator.domain.size), operator.dtype)
    rows = rows if start is None else rows.at[0].set(start)
    return band_lanczos(operator.linear(), rows, steps, key, locked)


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
        return extend_basis(searched.linear(), basis, matrix, keep, fresh, locked), turns + 1

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
