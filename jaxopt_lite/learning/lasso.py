"""The lasso and the elastic net: one penalty, a path of them, a path for every fold.

check -> working sets on values without derivatives -> measure -> attach the derivative
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import Multipliers, Residuals, Solution, Status, check
from ..prox.arguments import array, parameter
from ..solvers.proximal.lasso_derivative import Given, with_derivatives
from ..solvers.proximal.working_set import (
    Moments,
    Path,
    Rows,
    Task,
    ahead_of,
    driven,
    duality_gap,
    rooms,
    rounding,
    staged,
)
from ._data import at_least_zero, known

MAX_STEPS = 100
MAX_COLUMNS = 8192  # of a working set, unless more are asked for: its Gram matrix has 0.5 GB
GRAM_UP_TO = 2000  # features, for folds from one Gram matrix
AHEAD_IN_FOLDS = 1  # penalties between two products


class LassoState(NamedTuple):
    """Why a fit is optimal: what anyone can check with the data, and which weights are zero.

    `gap` is P(w) - D(dual), relative to P(0); `dual` (n,) the dual point, feasible as
    |X_j'dual / n| <= l_j where there is no ridge. `correlation` is X_j'(y - Xw) / n - ridge w_j,
    equal to l_j sign(w_j) where w_j is not zero; `slack` is l_j less its size: where it is
    positive w_j is zero because of it. `boundary` marks weights that are zero without slack, at a
    breakpoint: derivatives are those from the side where they stay zero.
    """

    gap: Array
    dual: Array
    correlation: Array
    slack: Array
    boundary: Array
    support: Array  # how many weights are not zero
    errors: Array | None = None  # of `lasso_folds`: mean squares on the rows left out


def lasso(
    X: ArrayLike,
    y: ArrayLike,
    penalty: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    x0: ArrayLike | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
    working_set: int | None = None,
) -> Solution:
    """Minimise ||y - Xw||^2 / (2n) + penalty sum_j weights_j |w_j| + ridge/2 ||w||^2.

    The objective of scikit-learn's `Lasso`; its `ElasticNet(alpha, l1_ratio)` is penalty = alpha
    l1_ratio, ridge = alpha (1 - l1_ratio). There is no intercept: centre X and y.

    Args:
        X: (n, p), dense.
        y: (n,).
        penalty: a number >= 0. From max_j |X_j'y| / (n weights_j) on the answer is 0.
        ridge: a number >= 0; with it the answer is the elastic net's.
        weights: (p,), >= 0, of the penalty on each feature; 0 leaves one free. None: 1.
        x0: (p,), where to start.
        tol: CONVERGED means that the duality gap is at most tol P(0), measured on the data. None:
            1e-6, in float32 1e-4. The last step solves the equations of the support, so that the
            gap is mostly 1e-12 or less.
        max_steps: how many products with X; None: 100.
        working_set: how many columns to work with at most. None: 8,192. If more are needed the
            answer is STALLED.

    Returns a `Solution`: `state` is a `LassoState`, with gap, dual point and slacks. Cost: a few
    products with X, and the Gram matrix of the columns that are needed. Called on values, sizes
    are chosen by need; inside `jit` each size of a short list is compiled; batches by `vmap` are
    run one after the other.

    x and value have derivatives of any order in X, y, penalty, ridge and weights, at the cost of
    a factorisation of the size of the support. They are NaN if not CONVERGED, or if columns of the
    support are linearly dependent without ridge; see `LassoState.boundary` for breakpoints.

    Raises TypeError or ValueError for shapes that do not fit, negative penalties, and data that
    are not finite. Source: Massias, Gramfort & Salmon (2018).

    """
    data = _checked(X, y, penalty, "penalty", 0, ridge, weights, tol, max_steps, working_set)
    start = None
    if x0 is not None:
        start = parameter("`x0`", x0, data.X.dtype, data.X.shape[1:])
        start = lax.stop_gradient(start)
    return _solved(data, start, many=False)


def lasso_path(
    X: ArrayLike,
    y: ArrayLike,
    penalties: ArrayLike,
    *,
    ridge: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
    working_set: int | None = None,
) -> Solution:
    """`lasso` for each of `penalties` (L,), in descending order: a `Solution` of L lanes.

    Each starts where the last ended, and columns once taken stay, with their Gram matrix. Other
    arguments are those of `lasso`; `max_steps` counts for each penalty.
    """
    data = _checked(X, y, penalties, "penalties", 1, ridge, weights, tol, max_steps, working_set)
    return _solved(data, None, many=True)


def lasso_folds(
    X: ArrayLike,
    y: ArrayLike,
    penalties: ArrayLike,
    *,
    folds: int = 10,
    ridge: ArrayLike = 0.0,
    weights: ArrayLike | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
    working_set: int | None = None,
    batching: str = "auto",
) -> Solution:
    """`lasso_path` on all rows but those of a fold, for each of `folds`: (folds, L) lanes.

    Folds are blocks of neighbouring rows, the first n % folds of them one row larger; shuffle rows
    that have an order. `state.errors` (folds, L) are mean squares of y - Xw on the rows left out.
    With p <= n, and up to 2,000 features, Gram matrices are that of all rows less the fold's.

    Args:
        X: (n, p).
        y: (n,).
        penalties: (L,), in descending order.
        folds: how many, from 2 to n.
        ridge: as in `lasso`.
        weights: as in `lasso`.
        tol: as in `lasso`.
        max_steps: as in `lasso`, for each penalty.
        working_set: as in `lasso`.
        batching: "map" takes one fold after the other, "vmap" all at once: every step of the
            slowest fold is then computed for all. "auto": "map" on a CPU, else "vmap".

    Derivatives are those of `lasso`, fold by fold.

    """
    data = _checked(X, y, penalties, "penalties", 1, ridge, weights, tol, max_steps, working_set)
    n = data.y.shape[0]
    folds = check.count("`folds`", folds, way_out="5 or 10 are usual.")
    if not 2 <= folds <= n:
        raise ValueError(f"`folds` must be from 2 to the number of rows, {n}, but {folds} came.")
    if batching not in ("auto", "map", "vmap"):
        raise ValueError(f"`batching` must be 'auto', 'map' or 'vmap', but {batching!r} came.")
    if batching == "auto":
        batching = "map" if jax.default_backend() == "cpu" else "vmap"
    still = jax.tree.map(lax.stop_gradient, data.operands())
    sizes = rooms(data.X.shape, data.most, 0, True)
    found = _by_folds(folds, batching, sizes)(*still)
    return _folds_attached(data, found, folds=folds, sizes=sizes)


# -- what the three share -------------------------------------------------------------------------


class _Problem(NamedTuple):
    X: Array
    y: Array
    penalties: Array  # (L,)
    weights: Array  # (p,)
    ridge: Array
    tol: Array
    max_steps: int
    most: int

    def operands(self) -> tuple[Array, Array, Task]:
        """What may be traced."""
        steps: Any = np.asarray(self.max_steps, np.int32)
        return self.X, self.y, Task(*self[2:6], steps)

    def given(self) -> Given:
        """For every penalty, its own limits (L, p)."""
        limit = self.penalties[:, None] * self.weights
        return Given(self.X, self.y, jnp.asarray(limit), jnp.asarray(self.ridge))


def _checked(X, y, penalty, name, ndim, ridge, weights, tol, max_steps, working_set) -> _Problem:
    X = array("`X`", X, 2, "Rows are samples, columns features.")
    y = array("`y`", y, 1, "One number a row of X.")
    if y.shape[0] != X.shape[0]:
        raise ValueError(
            f"`y` must have one entry for each row of `X`, but y has shape {y.shape} and X "
            f"{X.shape}."
        )
    dtype = jnp.promote_types(X.dtype, y.dtype)
    X = X if X.dtype == dtype else X.astype(dtype)
    y, p = y if y.dtype == dtype else y.astype(dtype), X.shape[1]
    at_least_zero(f"`{name}`", penalty)
    at_least_zero("`ridge`", ridge)
    if ndim == 0:
        way_out = " For one penalty a feature pass `weights`; for many, call `lasso_path`."
        if np.shape(penalty) != ():
            raise ValueError(
                f"`{name}` must be a number, but its shape is {np.shape(penalty)}.{way_out}"
            )
        penalties = _numbers(penalty, dtype).reshape(1)
    else:
        array(f"`{name}`", penalty, 1, "For a single penalty call `lasso`.")
        penalties = _numbers(penalty, dtype)
        if known(penalty) and np.any(np.diff(np.asarray(penalty)) > 0):
            raise ValueError(
                f"`{name}` must be in descending order, where each fit starts the next, but they "
                "are not. Write `jnp.sort(penalties)[::-1]`."
            )
    if weights is None:
        weights = np.ones(p, dtype)
    else:
        at_least_zero("`weights`", weights)
        if np.shape(weights) != (p,):
            raise ValueError(
                f"`weights` must have one entry for each column of `X`, but weights has shape "
                f"{np.shape(weights)} and X {X.shape}."
            )
        weights = _numbers(weights, dtype)
    check.options(tol, max_steps, False, "implicit")
    if tol is None:
        tol = 1e-6 if dtype.itemsize > 4 else 1e-4
    most = min(p, MAX_COLUMNS)
    if working_set is not None:
        way_out = "None takes what is needed."
        most = min(p, check.count("`working_set`", working_set, way_out=way_out))
    steps = MAX_STEPS if max_steps is None else int(max_steps)
    if np.shape(ridge) != ():
        raise ValueError(f"`ridge` must be a number, but its shape is {np.shape(ridge)}.")
    ridge, tol = _numbers(ridge, dtype), _numbers(tol, dtype)
    return _Problem(X, y, penalties, weights, ridge, tol, steps, most)


def _numbers(value: Any, dtype) -> Any:
    """In this dtype; those that are known without a call of the compiler."""
    return np.asarray(value, dtype) if known(value) else jnp.asarray(value, dtype)


@jax.jit
def _products(X: Array, y: Array) -> tuple[Array, Array]:
    return Rows.of(X, y)[2:]  # handing X back would copy it


def _solved(problem: _Problem, start: Array | None, many: bool) -> Solution:
    X, y, task = problem.operands()
    moving = _traced((X, y, task))
    if moving:
        X, y, task = jax.tree.map(lax.stop_gradient, (X, y, task))
    concrete = not _traced((X, y, task, start))
    nonzero = int(np.count_nonzero(start)) if concrete and start is not None else 0
    sizes = rooms(X.shape, problem.most, min(nonzero, problem.most), not concrete)
    if concrete:
        data = Rows(X, y, *_products(X, y))
        _finite(data, X, y)
        ahead = ahead_of(data, task.penalties.shape[0])
        path = driven(data, task, start, ahead=ahead, sizes=sizes)
        found = _measured(task, path, many)
    else:
        found = _one_by_one(sizes, many)(X, y, task, start)
    return _attached(problem, found, sizes, many) if moving else found


def _one_by_one(sizes: tuple[int, ...], many: bool):
    """The solve whose batches are run lane by lane, since lanes differ in what they need."""

    def solve(X, y, task, start):
        data = Rows.of(X, y)
        ahead = ahead_of(data, task.penalties.shape[0])
        path = staged(data, task, start, ahead=ahead, sizes=sizes)
        return _measured(task, path, many)

    if jax.default_backend() != "cpu" and len(sizes) == 1:
        return solve
    return jax.custom_batching.sequential_vmap(solve)


@functools.partial(jax.jit, static_argnames=("many",))
def _measured(task: Task, path: Path, many: bool) -> Solution:
    """What is true of the weights, as a `Solution` without derivatives, one lane a penalty."""
    w = jnp.where(jnp.isfinite(path.weights), path.weights, 0)
    residual = path.residual
    limit = task.penalties[:, None] * task.weights
    square = jnp.mean(residual * residual, 1) + task.ridge * jnp.sum(w * w, 1)
    value = square / 2 + jnp.sum(limit * jnp.abs(w), 1)
    found = _reported(w, value, path.dual[:, None] * residual, limit, path)
    return found if many else jax.tree.map(lambda leaf: leaf[0], found)


def _reported(w: Array, value: Array, dual: Array, limit: Array, path: Path) -> Solution:
    slack = limit - jnp.abs(path.correlation)
    zero = w == 0
    off = jnp.where(zero, jnp.maximum(-slack, 0), path.correlation - limit * jnp.sign(w))
    near = float(jnp.finfo(w.dtype).eps) ** (2 / 3) * jnp.max(limit, 1, keepdims=True)
    boundary = zero & (limit > 0) & (slack <= near)
    support = jnp.sum(~zero, 1, dtype=jnp.int32)
    nothing = jnp.zeros_like(value)
    return Solution(
        x=w,
        value=value,
        aux=None,
        multipliers=Multipliers(),
        status=path.status,
        success=path.status == int(Status.CONVERGED),
        steps=path.steps,
        residuals=Residuals(jnp.max(jnp.abs(off), 1), nothing, nothing, nothing),
        history=None,
        state=LassoState(path.gap, dual, path.correlation, slack, boundary, support),
    )


def _finite(data: Rows, X: Array, y: Array) -> None:
    """What is not finite in the data shows in two sums that are needed anyway."""
    if np.all(np.isfinite(np.asarray(data.cross))) and np.isfinite(float(data.total)):
        return
    for name, whole in (("X", X), ("y", y)):
        bad = np.argwhere(~np.isfinite(np.asarray(whole)))
        if len(bad):
            raise ValueError(
                f"`{name}` must be finite, but {len(bad)} of its entries are NaN or infinite, the "
                f"first at {tuple(bad[0].tolist())}. Drop those rows, or fill them in."
            )


def _traced(tree: Any) -> bool:
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(tree))


def _attached(problem: _Problem, found: Solution, sizes: tuple[int, ...], many: bool) -> Solution:
    """`found` with derivatives; of one lane alone if not `many`."""
    support = found.state.support
    if not isinstance(support, jax.core.Tracer):
        most = int(np.max(np.asarray(support), initial=0))
        sizes = (next((size for size in sizes if size >= most), sizes[-1]),)
    given = problem.given()
    lanes = (found.x, found.value, given.limit, found.success)

    def one(lane):
        w, value, limit, finished = lane
        return with_derivatives(sizes, w, value, given._replace(limit=limit), finished)

    if not many:
        x, value = one((*lanes[:2], given.limit[0], found.success))
    elif len(sizes) == 1:
        x, value = jax.vmap(one)(lanes)
    else:  # in a batch every size would be computed for each lane
        x, value = lax.map(one, lanes)
    return _with(found, x=x, value=value)


def _with(solution: Solution, **changes: Any) -> Solution:
    return dataclasses.replace(solution, **changes)


# -- folds ----------------------------------------------------------------------------------------


def _held(n: int, folds: int) -> np.ndarray:
    """(folds, n): which rows a fold leaves out."""
    sizes = np.full(folds, n // folds) + (np.arange(folds) < n % folds)
    return np.repeat(np.arange(folds), sizes) == np.arange(folds)[:, None]


def _reduced(X: Array, y: Array, held: Array) -> tuple[Array, Array]:
    """X and y with zeros for rows held out, scaled so that the mean over n is over the others."""
    n = y.shape[0]
    scale = jnp.where(held, 0, jnp.sqrt(n / jnp.sum(~held).astype(y.dtype)))
    return X * scale[:, None], y * scale


def _errors(X: Array, y: Array, w: Array, held: Array) -> Array:
    """Mean squares (L,) on the rows held out."""
    misfit = jnp.where(held, y - w @ X.T, 0)
    return jnp.sum(misfit * misfit, 1) / jnp.sum(held).astype(y.dtype)


@functools.partial(jax.jit, static_argnames=("folds", "batching", "sizes"))
def _folded(X, y, task, *, folds, batching, sizes):
    n, p = X.shape
    held = _held(n, folds)
    by_moments = p <= min(n, GRAM_UP_TO)
    whole = (X.T @ X, y @ X, y @ y) if by_moments else None
    largest = -(-n // folds)
    first = np.argmax(held, 1)

    def one(lane):
        left_out, at = lane
        if whole is not None:
            # The fold's rows, all folds as long as the longest: what is too much is made zero.
            begin = jnp.minimum(at, n - largest)
            inside = lax.dynamic_slice_in_dim(left_out, begin, largest)
            Xk = jnp.where(inside[:, None], lax.dynamic_slice_in_dim(X, begin, largest), 0)
            yk = jnp.where(inside, lax.dynamic_slice_in_dim(y, begin, largest), 0)
            kept = n - jnp.sum(inside).astype(y.dtype)
            parts = (Xk.T @ Xk, yk @ Xk, yk @ yk)
            data: Any = Moments(*((a - b) / kept for a, b in zip(whole, parts, strict=True)))
        else:
            data = Rows.of(*_reduced(X, y, left_out))
        path = staged(data, task, None, ahead=AHEAD_IN_FOLDS, sizes=sizes)
        return _measured_fold(X, y, left_out, task, path)

    lanes = (jnp.asarray(held), jnp.asarray(first, jnp.int32))
    return lax.map(one, lanes) if batching == "map" else jax.vmap(one)(lanes)


def _by_folds(folds: int, batching: str, sizes: tuple[int, ...]):
    """As `_one_by_one`, for all folds."""

    def solve(*operands):
        return _folded(*operands, folds=folds, batching=batching, sizes=sizes)

    return jax.custom_batching.sequential_vmap(solve)


def _measured_fold(X: Array, y: Array, held: Array, task: Task, path: Path) -> Solution:
    """As `_measured`, on the rows of a fold; the gap anew from the rows themselves."""
    ridge, tol = task.ridge, task.tol
    w = jnp.where(jnp.isfinite(path.weights), path.weights, 0)
    misfit = y - w @ X.T
    rest = (~held).astype(y.dtype)
    kept = jnp.sum(rest)
    residual = misfit * rest
    errors = jnp.sum((misfit - residual) ** 2, 1) / (y.shape[0] - kept)
    limit = task.penalties[:, None] * task.weights
    remaining = jnp.sum(residual * residual, 1) / kept
    value = (remaining + ridge * jnp.sum(w * w, 1)) / 2 + jnp.sum(limit * jnp.abs(w), 1)
    correlation = residual @ X / kept - ridge * w
    start = rest * y
    floor = rounding(start @ X / kept)
    gap, scale = jax.vmap(functools.partial(duality_gap, ridge=ridge, floor=floor))(
        w, correlation, limit, remaining
    )
    null = start @ start / (2 * kept)
    gap = gap / jnp.where(null > 0, null, 1)
    claimed = path.status == int(Status.CONVERGED)
    status = jnp.where(claimed & (gap > tol), int(Status.STALLED), path.status)
    status = jnp.where(jnp.isfinite(gap), status, int(Status.NONFINITE)).astype(jnp.int32)
    path = path._replace(correlation=correlation, gap=gap, dual=scale, status=status)
    found = _reported(w, value, scale[:, None] * residual, limit, path)
    return _with(found, state=found.state._replace(errors=errors))


def _folds_attached(problem: _Problem, found: Solution, *, folds: int, sizes) -> Solution:
    """`found` with the derivatives of every fold's path."""
    if not _traced(problem.operands()):
        return found
    held = jnp.asarray(_held(problem.y.shape[0], folds))

    def one(lane):
        solution, left_out = lane
        Xs, ys = _reduced(problem.X, problem.y, left_out)
        path = _attached(problem._replace(X=Xs, y=ys), solution, sizes, True)
        errors = _errors(problem.X, problem.y, path.x, left_out)
        return path.x, path.value, errors

    x, value, errors = lax.map(one, (found, held))
    return _with(found, x=x, value=value, state=found.state._replace(errors=errors))
