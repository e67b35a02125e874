"""The projection on an intersection, from projections on the sets."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..linalg import Form, materialize, minres, spectrum
from .arguments import PyTree, flat, tree, valid

DENSE_LIMIT = 512  # unknowns of the derivative's linear system up to which it is a matrix


class _Round(NamedTuple):
    x: Array  # (n,) after the last projection
    moved: Array  # (k, n) p_i: what the i-th projection took away last time
    ahead: Array  # (k, n) the same, extrapolated: where the next round starts
    weight: Array  # of the extrapolation, as in FISTA
    change: Array  # max |p_i - where its round started|
    rounds: Array


def intersection(
    x: PyTree,
    projections: Sequence[Callable[[PyTree], PyTree]],
    *,
    tol: float | None = None,
    max_rounds: int = 1000,
    unfinished: str = "nan",
) -> PyTree:
    r"""Nearest point of the intersection of closed convex sets, given by their projections.

    Args:
        x: any pytree.
        projections: functions P_i of such a pytree; they may close over traced parameters.
        tol: stop when in one round no projection changes its correction by more than
            tol (1 + max|x|), in any entry. None is eps^(3/4): 2e-12 in float64, 6e-6 in float32.
        max_rounds: a round is one call of each projection.
        unfinished: what comes out if `tol` was not met, as for an empty intersection: "nan", or
            "allow" for the last point and the derivative that would hold if it were the answer.

    Dykstra's corrections: y = P_i(x + p_i), p_i <- x + p_i - y, x <- y. When they stand still, x is
    in every set and x0 - x = sum of p_i is normal to them: it is the answer. A round is one of
    coordinate ascent on the dual; it is extrapolated with momentum, which is dropped when it points
    against the last change. Far from the sets the plain method can stand still in x for many
    rounds; so can this one, for about their square root. For polyhedra the error falls linearly, by
    a factor c < 1 a round, and that of the answer is about tol / (1 - c); c is near 1 where sets
    meet at small angles. It falls slower where curved sets only touch. Memory 2 k n for k sets.

    The derivative is that of x = P_i(x + p_i), sum of p_i = x0 - x at the end, by the implicit
    function theorem: forward, reverse and higher order, in x and in what the projections close
    over. One symmetric system of (k + 1) n unknowns, by eigenvalues (minimum norm where the
    corrections are not unique) up to 512 of them, above by MINRES (NaN if that fails).

    Call it under `jit`: outside, each call compiles its loop anew.

    Source: Boyle and Dykstra (1986); Chambolle, Tan and Vaiter (2017) for the momentum (proved for
    two sets), O'Donoghue and Candes (2015) for its restarts; Birgin and Raydan (2005): the test.

    """
    x = tree("`x`", x)
    sets = list(projections) if isinstance(projections, Sequence) else []
    if not sets or not all(callable(project) for project in sets):
        raise TypeError(
            f"`projections` must be a nonempty list of functions of x, but {projections!r} came. "
            "Fix their parameters first: `lambda x: jol.projections.box(x, 0.0, 1.0)`."
        )
    if unfinished not in ("nan", "allow"):
        raise ValueError(f"`unfinished` must be 'nan' or 'allow', but {unfinished!r} came.")
    if not isinstance(max_rounds, int) or max_rounds < 1:
        raise ValueError(f"`max_rounds` must be an integer >= 1, but {max_rounds!r} came.")
    form, vector = flat(x)
    k, n = len(sets), form.size
    eps = float(jnp.finfo(vector.dtype).eps)
    tol = eps**0.75 if tol is None else tol

    def project(i: int, v: Array) -> Array:
        out = sets[i](form.unravel(v))
        if jax.tree.structure(out) != form.treedef or Form.of(out).shapes != form.shapes:
            got = jax.tree.map(jnp.shape, out)
            raise ValueError(
                f"`projections[{i}]` must return a pytree like x, of shapes {form.shapes}, but "
                f"{got} came."
            )
        return form.ravel(out)

    def optimality(unknown):
        """Zero at the answer x and the points q_i = x + p_i; its derivative is symmetric."""
        p, q = unknown
        normal = (1 - k) * p + jnp.sum(q, axis=0) - vector
        return normal, jnp.stack([p - project(i, q[i]) for i in range(k)])

    def solve(_, start):
        p, _ = start
        scale = 1 + jnp.max(jnp.abs(p))

        def going(c: _Round):
            return (c.change > tol * scale) & (c.rounds < max_rounds)

        def advance(c: _Round):
            p, moved = vector - jnp.sum(c.ahead, axis=0), []
            for i in range(k):
                out = project(i, p + c.ahead[i])
                moved.append(p + c.ahead[i] - out)
                p = out
            new = jnp.stack(moved)
            step = new - c.moved
            against = jnp.sum((c.ahead - new) * step) > 0
            weight = jnp.where(against, 1, 0.5 + jnp.sqrt(0.25 + c.weight**2))
            momentum = jnp.where(against, 0, (c.weight - 1) / weight)
            change = jnp.max(jnp.abs(new - c.ahead))
            return _Round(p, new, new + momentum * step, weight, change, c.rounds + 1)

        zero, one = jnp.zeros((k, n), p.dtype), jnp.ones((), p.dtype)
        first = _Round(p, zero, zero, one, one * jnp.inf, jnp.zeros((), jnp.int32))
        last = lax.while_loop(going, advance, first)
        return (last.x, last.x + last.moved), (last.change <= tol * scale).astype(p.dtype)

    def tangent_solve(linear, rhs):
        both = Form.of(rhs)

        def product(w):
            return both.ravel(linear(both.unravel(w)))

        answer = lax.custom_linear_solve(product, both.ravel(rhs), _symmetric_solve, symmetric=True)
        return both.unravel(answer)

    start = (vector, jnp.zeros((k, n), vector.dtype))
    (p, _), met = lax.custom_root(optimality, start, solve, tangent_solve, has_aux=True)
    return form.unravel(valid(p, vector, met > 0) if unfinished == "nan" else p)


def _symmetric_solve(product: Callable[[Array], Array], b: Array) -> Array:
    """The minimum-norm solution of a consistent symmetric system, perhaps singular."""
    if b.shape[0] > DENSE_LIMIT:
        tol = float(jnp.finfo(b.dtype).eps) ** (2 / 3)
        answer = minres(product, b, tol, min(10 * b.shape[0], 10_000))
        return jnp.where(answer.converged, answer.x, jnp.nan)
    values, vectors = spectrum(materialize(product, b.shape[0], b.dtype))
    # Null vectors are those of corrections that are not unique: a gap, but for Dykstra's error.
    keep = jnp.abs(values) > jnp.sqrt(jnp.finfo(b.dtype).eps) * jnp.max(jnp.abs(values))
    inverse = jnp.where(keep, 1 / jnp.where(keep, values, 1), 0)
    return vectors @ (inverse * (vectors.T @ b))
