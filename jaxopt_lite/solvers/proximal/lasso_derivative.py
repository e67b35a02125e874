"""Derivatives of the lasso's answer: a linear system of the size of its support.

    (X_S'X_S / n + r I) dw_S = -d(X_S'(Xw - y) / n + l_S sign(w_S) + r w_S),   dw = 0 elsewhere

The support S and its signs do not change in a neighbourhood, but at breakpoints, where w_j = 0 and
|X_j'(y - Xw)| / n = l_j: those count as zero, which is the derivative from one side.
Source: Bertrand et al. (2022), implicit differentiation of nonsmooth problems, section 3.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...core import Implicit
from ...core.implicit import attach_value, linear_solve, perturbed
from ...linalg import psd_factor, psd_solve


class Given(NamedTuple):
    """What the answer is a function of."""

    X: Array
    y: Array
    limit: Array  # (p,), l
    ridge: Array


def objective(w: Array, given: Given) -> Array:
    """||y - Xw||^2 / (2n) + sum_j l_j |w_j| + r/2 w'w."""
    residual = given.y - given.X @ w
    smooth = residual @ residual / given.y.shape[0] + given.ridge * (w @ w)
    return smooth / 2 + given.limit @ jnp.abs(w)


def with_derivatives(
    sizes: tuple[int, ...], w: Array, value: Array, given: Given, finished: Array
) -> tuple[Array, Array]:
    """`w` and its `value` as functions of what is given; `sizes` that the support may have."""
    w = attach(sizes, w, given, finished)
    return w, attach_value(objective, value, w, given, finished)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach(sizes: tuple[int, ...], w: Array, given: Given, finished: Array) -> Array:
    """`w`, the answer for what is given, with its derivative; NaN where not `finished`."""
    return w


@functools.partial(attach.defjvp, symbolic_zeros=True)
def _attach_jvp(sizes, primals, tangents):
    w, given, finished = primals
    w = attach(sizes, w, given, finished)
    moved, rebuild = perturbed(given, tangents[1])
    if not moved:
        return w, jnp.zeros_like(w)
    on = (w != 0).astype(w.dtype)
    signs = jnp.sign(w)
    count = given.y.shape[0]

    def conditions(new):
        data = rebuild(new)
        misfit = (data.X @ w - data.y) @ data.X / count
        return on * (misfit + data.limit * signs + data.ridge * w)

    primal, tangent = zip(*moved, strict=True)
    _, push = jax.jvp(conditions, (primal,), (tangent,))

    def matvec(d):
        moves = on * d
        return on * ((given.X @ moves) @ given.X / count + given.ridge * moves) + (1 - on) * d

    X, ridge, held = jax.tree.map(lax.stop_gradient, (given.X, given.ridge, on))
    solver = Implicit(linear_solver=lambda _, rhs: _solve(sizes, X, ridge, held, rhs))
    return w, linear_solve(matvec, -push, True, solver, finished)


def _solve(sizes: tuple[int, ...], X: Array, ridge: Array, on: Array, rhs: Array) -> Array:
    """The system by a Cholesky factorisation of the smallest size that holds the support."""
    p = on.shape[0]

    def sized(m: int, rhs: Array) -> Array:
        index = jnp.nonzero(on > 0, size=m, fill_value=p)[0]
        real = index < p
        columns = jnp.where(real, X[:, jnp.minimum(index, p - 1)], 0)
        diagonal = jnp.where(real, ridge, 1)
        matrix = columns.T @ columns / X.shape[0] + jnp.diag(diagonal)
        # Room that is not used has pivots like the others: scale does not decide on singularity.
        scale = jnp.max(jnp.where(real, jnp.diagonal(matrix), 0))
        matrix = jnp.where(jnp.diag(~real), jnp.where(scale > 0, scale, 1), matrix)
        factor, good = psd_factor(matrix)
        b = rhs.at[index].get(mode="fill", fill_value=0)
        d = psd_solve(factor, b)
        d = d + psd_solve(factor, b - matrix @ d)
        d = jnp.where(good, d, jnp.nan)
        return (rhs * (1 - on)).at[index].set(d, mode="drop")

    def at(stage: int, rhs: Array) -> Array:
        if stage == len(sizes) - 1:
            return sized(sizes[-1], rhs)
        return lax.cond(
            jnp.sum(on) <= sizes[stage],
            functools.partial(sized, sizes[stage]),
            functools.partial(at, stage + 1),
            rhs,
        )

    return at(0, rhs)
