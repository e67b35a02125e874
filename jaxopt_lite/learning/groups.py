"""The group lasso and the multi-task lasso: weights of a group or a feature vanish together."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Problem, Solution, Solver, check, solve
from ..prox import GroupLasso
from ..prox.arguments import array
from ._data import at_least_zero, finite, known, matching, rows, still


class GroupState(NamedTuple):
    """Why a fit is optimal.

    `gap` is the primal less the dual value, relative to the value at 0, recomputed from the data.
    `dual`, shaped like y, is feasible: ||X_g'dual|| / n <= penalty weight_g for each group, where
    there is no ridge. `slack` (groups,) is penalty weight_g - ||X_g'(y - Xw) / n - ridge w_g||:
    where it is > 0 the group is 0 because of it. `support` is how many groups are not 0.
    """

    gap: Array
    dual: Array
    slack: Array
    support: Array


@dataclasses.dataclass(frozen=True)
class _Squares:
    """||y - Xw||^2 / (2n) + ridge/2 ||w||^2."""

    def __call__(self, w: Array, X: Array, y: Array, ridge: Array, *_: Array) -> Array:
        residual = y - X @ w
        return (jnp.sum(residual**2) / X.shape[0] + ridge * jnp.sum(w * w)) / 2


def _term(X: Array, y: Array, ridge: Array, limit: Array, groups: Array) -> GroupLasso:
    return GroupLasso(groups, limit)


_PROBLEM = Problem(_Squares(), nonsmooth=_term)  # one object: what is traced is kept with it


def group_lasso(
    X: ArrayLike,
    y: ArrayLike,
    penalty: ArrayLike,
    groups: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    solver: Solver | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise ||y - Xw||^2 / (2n) + penalty sum_g weights_g ||w_g||_2 + ridge/2 ||w||^2.

    Args:
        X: (n, p), centred: there is no intercept.
        y: (n,).
        penalty: a number >= 0. From max_g ||X_g'y|| / (n weights_g) on the answer is 0.
        groups: (p,), the number of its group for each feature, integers 0 ... m - 1.
        ridge: a number >= 0.
        weights: (m,), >= 0. None: the square root of how many features a group has.
        x0: (p,), where to start.
        solver: for a non-smooth term. None: `ProximalNewton`, above 200 features `ProximalLBFGS`.
        tol: CONVERGED means that 0 is within `tol` of the subdifferential. None: sqrt(eps).
        max_steps: of the solver.

    Returns a `Solution`: x (p,), `state` a `GroupState`. Derivatives are those of the support, as
    in `lasso`. Raises TypeError or ValueError as `lasso` does. Source: Yuan & Lin (2006).

    """
    X, y = rows(X), array("`y`", y, 1, "One number a row of X.")
    p = X.shape[1]
    if np.shape(groups) != (p,) or not jnp.issubdtype(jnp.result_type(groups), jnp.integer):
        raise ValueError(
            f"`groups` must hold the number of its group for each of the {p} features, but "
            f"{jnp.result_type(groups)} of shape {np.shape(groups)} came."
        )
    if not known(groups):
        raise TypeError("`groups` must be known, but it is traced. Close over it.")
    labels = np.asarray(groups)
    count = int(labels.max()) + 1
    if labels.min() < 0:
        raise ValueError(f"`groups` must be integers from 0, but {int(labels.min())} came.")
    if weights is None:
        weights = np.sqrt(np.bincount(labels, minlength=count))
    return _fitted(X, y, penalty, labels, count, ridge, weights, x0, solver, tol, max_steps)


def multi_task_lasso(
    X: ArrayLike,
    Y: ArrayLike,
    penalty: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    solver: Solver | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise ||Y - XW||^2 / (2n) + penalty sum_j weights_j ||W_j||_2 + ridge/2 ||W||^2.

    A feature serves all of the k targets Y (n, k), or none: W_j (k,) are rows of W (p, k).
    scikit-learn's `MultiTaskLasso(alpha)` is penalty = alpha, its `coef_` is W'. `weights` (p,),
    None: 1. All else as in `group_lasso`, where groups are features.
    """
    X, Y = rows(X), array("`Y`", Y, 2, "Columns are targets.")
    p, k = X.shape[1], Y.shape[1]
    labels = np.repeat(np.arange(p), k).reshape(p, k)
    weights = np.ones(p) if weights is None else weights
    return _fitted(X, Y, penalty, labels, p, ridge, weights, x0, solver, tol, max_steps)


def _fitted(X, y, penalty, labels, count, ridge, weights, x0, solver, tol, max_steps) -> Solution:
    matching("y", y, X)
    finite("`y`", y)
    dtype = jnp.promote_types(X.dtype, y.dtype)
    X, y = X.astype(dtype), y.astype(dtype)
    for name, value in (("penalty", penalty), ("ridge", ridge), ("weights", weights)):
        at_least_zero(f"`{name}`", value)
        shape = (count,) if name == "weights" else ()
        if np.shape(value) != shape:
            raise ValueError(
                f"`{name}` must have shape {shape}, but its shape is {np.shape(value)}."
            )
    check.options(tol, max_steps, False, "implicit")
    limit = jnp.asarray(penalty, dtype) * jnp.asarray(weights, dtype)
    start: Any = jnp.zeros(labels.shape, dtype) if x0 is None else jnp.asarray(x0, dtype)
    if start.shape != labels.shape:
        raise ValueError(f"`x0` must have shape {labels.shape}, but its shape is {start.shape}.")
    args = (X, y, jnp.asarray(ridge, dtype), limit, jnp.asarray(labels))
    found = solve(_PROBLEM, start, args, solver, tol=tol, max_steps=max_steps)
    state = _state(*still((found.x, X, y, args[2], limit)), args[4], count=count)
    return dataclasses.replace(found, state=state)


@functools.partial(jax.jit, static_argnames=("count",))
def _state(w, X, y, ridge, limit, labels, *, count) -> GroupState:
    """The gap by the dual point that is the residual, scaled until it is feasible."""
    n = X.shape[0]
    residual = y - X @ w
    push = X.T @ residual / n - ridge * w

    def lengths(v):
        squares = jax.ops.segment_sum(jnp.ravel(v * v), jnp.ravel(labels), num_segments=count)
        return jnp.sqrt(squares)

    reach, norms = lengths(push), lengths(w)
    over = reach / jnp.where(limit > 0, limit, 1)
    scale = 1 / jnp.maximum(1, jnp.max(jnp.where(limit > 0, over, 0)))
    square = jnp.sum(residual**2) / n + ridge * jnp.sum(w * w)
    primal = square / 2 + limit @ norms
    dual = scale * jnp.sum(y * residual) / n - scale**2 * square / 2
    null = jnp.sum(y * y) / (2 * n)
    gap = (primal - dual) / jnp.where(null > 0, null, 1)
    return GroupState(gap, scale * residual, limit - reach, jnp.sum(norms > 0, dtype=jnp.int32))
