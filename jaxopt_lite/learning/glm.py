"""Generalised linear models: logistic (binary, multinomial), Poisson and gamma regression.

check -> solve(Problem(Likelihood(family)), IRLS or L-BFGS or a proximal method) -> is there a
minimiser at all? -> Solution
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import Point, Problem, Report, Residuals, Solution, Solver, Status, check, solve
from ..linalg import as_pytree, psd_factor, psd_solve, static
from ..prox import L1
from ..prox.arguments import array
from ..solvers import LBFGS
from ._data import (
    Linear,
    at_least_zero,
    batching_of,
    finite,
    fold_count,
    grid_of,
    held_out,
    known,
    matching,
    penalty_of,
    rows,
    shares,
)

FAMILIES = ("logistic", "multinomial", "poisson", "gamma")
METHODS = ("newton", "lbfgs")
NEWTON_UP_TO = 300  # unknowns,
NEWTON_WORK = 3e7  # and rows times their square: beyond, L-BFGS takes a fifth of the time


class Data(NamedTuple):
    """What a likelihood is a function of, besides the predictor."""

    X: Array  # (n, p)
    y: Array  # (n,): 0 or 1; the class; a count; a positive number
    share: Array  # (n,), sample weights over their sum
    penalty: Array  # (p,)
    offset: Array  # (n,) or (n, k), added to X w + b


class GLMState(NamedTuple):
    """Whether a finite minimiser exists, and if not why.

    `separable`: along `direction`, a `Linear`, no row's loss ever grows and some fall for ever, so
    that the infimum is not attained: `direction` separates the classes, rows on the border
    included. `margin` is its least margin, y_i (x_i'd + c) for two classes, where the largest
    |x_i'd + c| is 1: > 0 if no row is on the border; for counts, 0. Without such a direction it is
    0, as is `margin`. `errors`, of `logistic_folds`: mean losses on the rows left out.
    """

    separable: Array
    direction: Linear
    margin: Array
    errors: Array | None = None


@dataclasses.dataclass(frozen=True)
class Likelihood:
    """sum_i share_i loss(x_i'w + b + offset_i, y_i) + 1/2 sum_j penalty_j w_j^2, of (x, data).

    The objective of the functions below, for `Problem`, `certify` and solvers of your own: x is a
    `Linear`, the argument a `Data`. loss is log(1 + e^z) - y z ("logistic"), logsumexp(z) - z_y
    ("multinomial"), e^z - y z ("poisson"), y e^-z + z ("gamma").
    """

    family: str
    intercept: bool = True

    def __call__(self, x: Linear, data: Data, *others: Any) -> Array:
        """The value; what belongs to other terms is passed over."""
        w = x.weights
        penalty = data.penalty if w.ndim == 1 else data.penalty[:, None]
        return data.share @ self.losses(x, data) + jnp.sum(penalty * w * w) / 2

    def losses(self, x: Linear, data: Data) -> Array:
        """One a row."""
        z = data.X @ x.weights + data.offset
        z = z + x.intercept if self.intercept else z
        if self.family == "logistic":
            return jax.nn.softplus(z) - data.y * z
        if self.family == "multinomial":
            own = jnp.sum(jnp.where(_one_hot(data.y, z.shape[1]), z, 0), 1)
            return jax.nn.logsumexp(z, axis=1) - own
        if self.family == "poisson":
            return jnp.exp(z) - data.y * z
        return data.y * jnp.exp(-z) + z


@functools.cache
def _likelihood(family: str, intercept: bool) -> Likelihood:
    """One object for each: what is traced of an objective is kept with it."""
    return Likelihood(family, intercept)


def logistic(
    X: ArrayLike,
    y: ArrayLike,
    penalty: ArrayLike,
    *,
    l1: ArrayLike | None = None,
    classes: int | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ArrayLike | str | None = None,
    offset: ArrayLike | None = None,
    intercept: bool = True,
    method: str | None = None,
    x0: Linear | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    r"""Minimise mean_i log(1 + exp(-y_i (x_i'w + b))) + penalty/2 ||w||^2 + l1 ||w||_1.

    For k > 2 classes mean_i (logsumexp(z_i) - z_{i, y_i}), z = X W + b with W (p, k). Means are
    weighted by samples. scikit-learn's `LogisticRegression(C)` is penalty = 1 / (C n), or
    1 / (C sum_i s_i). The intercept is not penalised.

    Args:
        X: (n, p).
        y: (n,), labels -1 and 1, or 0 and 1, or 0 ... k - 1.
        penalty: >= 0, a number or (p,), one a feature.
        l1: >= 0, a number or (p,), of |w_j|. None: no such term.
        classes: k, needed inside `jit` where it is not 2.
        sample_weight: (n,), >= 0. None: 1.
        class_weight: (k,), factors of the weights of a class's rows, or "balanced": n / (k times
            the rows of the class).
        offset: (n,) or (n, k), added to the predictor.
        intercept: whether there is a b.
        method: "newton", iteratively reweighted least squares with backtracking: n p^2 k^2 a step,
            quadratic at the end and indifferent to scales; "lbfgs", n p k a step. None: "newton"
            for up to 300 unknowns, if rows times their square are at most 3e7.
            With `l1`, `ProximalNewton` up to 200 unknowns and `ProximalLBFGS` above.
        x0: where to start, a `Linear`. None: 0.
        tol: CONVERGED means a gradient, or with `l1` a subgradient, of at most `tol` in every
            entry. None: sqrt(eps).
        max_steps: evaluations of loss and gradient. None: 10,000.

    Returns a `Solution`: x is `Linear(weights, intercept)`, `state` a `GLMState`. x and value have
    derivatives of any order in X, penalties, weights and offset. If some features are not penalised
    the loss may have no minimiser: classes that a plane separates, rows on it included. Then the
    status is DIVERGED, and `state.direction` proves it.

    Raises TypeError or ValueError for shapes that do not fit, other labels, a single class, and
    data that are not finite. Source: Hastie, Tibshirani & Friedman (2009), section 4.4.

    """
    X = rows(X)
    labels, classes = _labels(y, X, classes)
    weight = _class_weighted(sample_weight, class_weight, labels, classes, X)
    family = "logistic" if classes == 2 else "multinomial"
    return _fitted(family, classes, X, labels, penalty, l1, weight, offset, intercept,
                   method, x0, tol, max_steps)  # fmt: skip


def poisson(
    X: ArrayLike,
    y: ArrayLike,
    penalty: ArrayLike,
    *,
    l1: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    intercept: bool = True,
    method: str | None = None,
    x0: Linear | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise mean_i (exp(z_i) - y_i z_i) + penalty/2 ||w||^2, z = Xw + b + offset: counts.

    `offset` is the log of what a count is per: exposure, time, area. Else as `logistic`;
    scikit-learn's `PoissonRegressor(alpha)` is penalty = alpha. Without penalty there is no
    minimiser if some direction lowers the predictor where y is 0 and leaves it where y > 0.
    Raises ValueError for y < 0.
    """
    X = rows(X)
    y = _targets(y, X, 0.0, strict=False)
    return _fitted("poisson", 2, X, y, penalty, l1, sample_weight, offset, intercept,
                   method, x0, tol, max_steps)  # fmt: skip


def gamma(
    X: ArrayLike,
    y: ArrayLike,
    penalty: ArrayLike,
    *,
    l1: ArrayLike | None = None,
    sample_weight: ArrayLike | None = None,
    offset: ArrayLike | None = None,
    intercept: bool = True,
    method: str | None = None,
    x0: Linear | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise mean_i (y_i exp(-z_i) + z_i) + penalty/2 ||w||^2: y > 0 with mean exp(z).

    Else as `poisson`; scikit-learn's `GammaRegressor(alpha)` is penalty = alpha. Raises ValueError
    for y <= 0.
    """
    X = rows(X)
    y = _targets(y, X, 0.0, strict=True)
    return _fitted("gamma", 2, X, y, penalty, l1, sample_weight, offset, intercept,
                   method, x0, tol, max_steps)  # fmt: skip


def logistic_folds(
    X: ArrayLike,
    y: ArrayLike,
    penalties: ArrayLike,
    *,
    folds: int = 5,
    classes: int | None = None,
    sample_weight: ArrayLike | None = None,
    class_weight: ArrayLike | str | None = None,
    intercept: bool = True,
    method: str | None = None,
    batching: str = "auto",
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """`logistic` for each of `penalties` (L,) on all rows but those of a fold: (folds, L) lanes.

    Each fit starts where the one before ended. Folds are blocks of neighbouring rows as in
    `lasso_folds`: shuffle rows that have an order. `state.errors` (folds, L) are mean losses on the
    rows left out, with derivatives. `batching` "vmap" takes all folds at once, so that their
    Hessians are one product of matrices; "map" one after the other; "auto" is "map" for "lbfgs" on
    a CPU, else "vmap". Other arguments are those of `logistic`.
    """
    X = rows(X)
    labels, classes = _labels(y, X, classes)
    weight = _class_weighted(sample_weight, class_weight, labels, classes, X)
    grid = grid_of(penalties, X.dtype)
    n, p = X.shape
    data = Data(X, labels.astype(X.dtype), shares(weight, n, X.dtype), jnp.zeros(p, X.dtype),
                _offset(None, n, classes, X.dtype))  # fmt: skip
    likelihood = _likelihood("logistic" if classes == 2 else "multinomial", bool(intercept))
    check.options(tol, max_steps, False, "implicit")
    method = _method(method, X.shape, classes)
    batching = batching_of(batching) if method == "lbfgs" or batching != "auto" else "vmap"
    return _by_folds(
        data,
        grid,
        tol,
        folds=fold_count(folds, n),
        likelihood=likelihood,
        classes=classes,
        max_steps=None if max_steps is None else int(max_steps),
        method=method,
        batching=batching,
    )


# -- input ----------------------------------------------------------------------------------------


def _labels(y: Any, X: Array, classes: int | None) -> tuple[Array, int]:
    """The classes 0 ... k - 1 as integers, and k."""
    if not isinstance(y, (jax.Array, np.ndarray, np.generic)) or np.ndim(y) != 1:
        raise ValueError(
            f"`y` must be an array of labels with one axis, but {type(y).__name__} of shape "
            f"{np.shape(y)} came."
        )
    matching("y", y, X)
    if classes is not None and check.count("`classes`", classes) < 2:
        raise ValueError("`classes` must be at least 2, but 1 came.")
    if not known(y):
        k, traced = classes or 2, jnp.asarray(y)
        inside = jnp.where(traced > 0, traced, 0) if k > 2 else traced > 0
        return inside.astype(jnp.int32), k
    found = np.unique(np.asarray(y))
    if np.issubdtype(found.dtype, np.floating):
        finite("`y`", y)
    if len(found) < 2 and classes is None:
        raise ValueError(
            f"`y` must have at least two classes, but all of its labels are {found.tolist()[0]}."
        )
    if set(found.tolist()) <= {-1, 1} and -1 in found:
        return jnp.asarray(np.asarray(y) > 0, jnp.int32), 2
    k = classes or (int(found.max()) + 1 if found.dtype.kind in "iufb" else 0)
    if not set(found.tolist()) <= set(range(k)) or (classes is None and len(found) < k):
        shown = ", ".join(map(str, found[:6].tolist()))
        raise ValueError(
            "`y` must have the labels -1 and 1, or 0 and 1, or each of 0 ... k - 1, but has "
            f"{shown}{', ...' if len(found) > 6 else ''}. "
            "`np.unique(y, return_inverse=True)[1]` numbers any labels."
        )
    return jnp.asarray(y, jnp.int32), k


def _targets(y: Any, X: Array, least: float, *, strict: bool) -> Array:
    """Numbers that the family allows."""
    y = array("`y`", y, 1, "One number a row of X.")
    matching("y", y, X)
    finite("`y`", y)
    if known(y):
        worst = float(jnp.min(y))
        if worst < least or (strict and worst == least):
            sign = ">" if strict else ">="
            raise ValueError(f"`y` must be {sign} {least:g} everywhere, but {worst!r} came.")
    return y


def _class_weighted(sample_weight, class_weight, labels, classes, X) -> Any:
    if class_weight is None:
        return sample_weight
    if isinstance(class_weight, str):
        if class_weight != "balanced":
            raise ValueError(
                f"`class_weight` must be 'balanced' or an array, but {class_weight!r} came."
            )
        counts = jnp.sum(_one_hot(labels, classes), 0).astype(X.dtype)
        factors = X.shape[0] / (classes * jnp.maximum(counts, 1))
    else:
        at_least_zero("`class_weight`", class_weight)
        if np.shape(class_weight) != (classes,):
            raise ValueError(
                f"`class_weight` must have one entry for each of the {classes} classes, but its "
                f"shape is {np.shape(class_weight)}."
            )
        factors = jnp.asarray(class_weight, X.dtype)
    base = jnp.ones(X.shape[0], X.dtype) if sample_weight is None else sample_weight
    at_least_zero("`sample_weight`", base)
    return jnp.asarray(base, X.dtype) * factors[labels]


def _offset(offset: Any, n: int, classes: int, dtype) -> Array:
    shape = (n,) if classes == 2 else (n, classes)
    if offset is None:
        return jnp.zeros((1,) * len(shape), dtype)
    finite("`offset`", offset)
    if np.shape(offset) != shape:
        raise ValueError(f"`offset` must have shape {shape}, but its shape is {np.shape(offset)}.")
    return jnp.asarray(offset, dtype)


def _method(method: str | None, shape: tuple[int, ...], classes: int) -> str:
    if method is None:
        n, unknowns = shape[0], (shape[1] + 1) * max(classes - 1, 1)
        small = unknowns <= NEWTON_UP_TO and n * unknowns**2 <= NEWTON_WORK
        return "newton" if small else "lbfgs"
    if method not in METHODS:
        raise ValueError(
            f"`method` must be None or one of {', '.join(METHODS)}, but {method!r} came."
        )
    return method


def _fitted(family, classes, X, y, penalty, l1, weight, offset, intercept, method, x0, tol,
            max_steps) -> Solution:  # fmt: skip
    n, p = X.shape
    dtype = X.dtype
    level = jnp.broadcast_to(penalty_of(penalty, p, dtype), (p,))
    y = y.astype(dtype)
    data = Data(X, y, shares(weight, n, dtype), level, _offset(offset, n, classes, dtype))
    chosen = _method(method, X.shape, classes)
    check.options(tol, max_steps, False, "implicit")
    likelihood = _likelihood(family, bool(intercept))
    x = _start(x0, p, classes, dtype)
    penalised = known(penalty) and bool(np.all(np.asarray(penalty) > 0))
    steps = None if max_steps is None else int(max_steps)
    if l1 is not None:
        if method is not None:
            raise ValueError(f"`method` must be None with `l1`, but {method!r} came.")
        slope = penalty_of(l1, p, dtype, "l1")
        problem = Problem(likelihood, nonsmooth=_Sparse(classes))
        found = solve(problem, x, (data, slope), tol=tol, max_steps=steps)
        return dataclasses.replace(found, state=_attained(x))
    solver: Any = IRLS(likelihood) if chosen == "newton" else LBFGS()
    found = solve(Problem(likelihood), x, (data,), solver, tol=tol, max_steps=steps)
    if penalised:  # then nothing but the intercept can run off
        return _level(likelihood, found, data)
    last = found.state.direction if chosen == "newton" else None
    return _checked(likelihood, found, data, last)


@dataclasses.dataclass(frozen=True)
class _Sparse:
    """The l1 norm of the weights alone."""

    classes: int

    def __call__(self, data: Data, slope: Array) -> L1:
        slope = jnp.broadcast_to(slope, data.X.shape[1:])
        if self.classes == 2:
            return L1(Linear(slope, jnp.zeros((), slope.dtype)))
        slope = jnp.broadcast_to(slope[:, None], (slope.shape[0], self.classes))
        return L1(Linear(slope, jnp.zeros(self.classes, slope.dtype)))


def _start(x0: Linear | None, p: int, classes: int, dtype) -> Linear:
    shapes = ((p,), ()) if classes == 2 else ((p, classes), (classes,))
    if x0 is None:
        return Linear(*(jnp.zeros(shape, dtype) for shape in shapes))
    if not (isinstance(x0, tuple) and len(x0) == 2) or tuple(map(np.shape, x0)) != shapes:
        raise ValueError(
            f"`x0` must be a Linear(weights, intercept) of shapes {shapes[0]} and {shapes[1]}, but "
            f"{jax.tree.map(np.shape, x0)} came."
        )
    return Linear(*(jnp.asarray(part, dtype) for part in x0))


# -- iteratively reweighted least squares ---------------------------------------------------------


class _Search(NamedTuple):
    """The accepted point, what was measured there, and the step being tried from it."""

    point: Point
    value: Array
    gradient: Array
    direction: Array  # -H^-1 g
    length: Array
    first: Array


@as_pytree
@dataclasses.dataclass(frozen=True)
class IRLS(Solver):
    """Newton's method on a `Likelihood`, one evaluation of loss, gradient and Hessian a step.

    A trial that does not decrease the loss enough is tried again at half its length. The Hessian
    X' diag(v) X, v the second derivatives of the losses, is scaled to a unit diagonal and gets
    10 p eps more, which decides where columns are dependent. Source: Nelder & Wedderburn (1972).
    """

    likelihood: Likelihood = static()

    def init(self, problem, point, args):
        """Nothing measured yet: the first trial is the start."""
        x = point.x
        zero = jnp.zeros((), x.dtype)
        blank = jnp.zeros_like(x)
        return _Search(point, zero, blank, blank, zero, jnp.asarray(True))

    def step(self, problem, state, args):
        """Measure the trial; accept it and aim anew, or halve."""
        data = args[0][0]
        trial = state.point.x + state.length * state.direction
        value, gradient, hessian = self.measured(trial, data)
        slope = state.gradient @ state.direction
        noise = 10 * jnp.finfo(trial.dtype).eps * jnp.abs(state.value)
        enough = value <= state.value + 1e-4 * state.length * slope + noise
        accept = state.first | (enough & jnp.all(jnp.isfinite(gradient)))
        fresh = _newton(hessian, gradient)
        if self.likelihood.family == "multinomial":
            fresh = _balanced(fresh, data)
        moved = _Search(Point(trial), value, gradient, fresh, jnp.ones_like(value), state.first)
        halved = state._replace(length=state.length / 2)
        chosen = jax.tree.map(lambda a, b: jnp.where(accept, a, b), moved, halved)
        return chosen._replace(first=jnp.asarray(False))

    def report(self, problem, state, args):
        """What was measured at the accepted point."""
        stuck = state.length < 10 * jnp.finfo(state.length.dtype).eps
        failure = jnp.where(stuck & ~state.first, int(Status.STALLED), int(Status.RUNNING))
        residuals = Residuals.unconstrained(state.gradient)
        return Report(state.point, state.value, residuals, failure=failure)

    def measured(self, x: Array, data: Data) -> tuple[Array, Array, Array]:
        """Value, gradient and Hessian for the flat x."""
        X, y, share, penalty, offset = data
        family, intercept = self.likelihood.family, self.likelihood.intercept
        p = X.shape[1]
        if family == "multinomial":
            return _multinomial(x, data, intercept)
        w, b = x[:p], x[p]
        z = X @ w + offset + (b if intercept else 0)
        if family == "logistic":
            mean = jax.nn.sigmoid(z)
            losses, first, second = jax.nn.softplus(z) - y * z, mean - y, mean * (1 - mean)
        elif family == "poisson":
            mean = jnp.exp(z)
            losses, first, second = mean - y * z, mean - y, mean
        else:
            ratio = y * jnp.exp(-z)
            losses, first, second = ratio + z, 1 - ratio, ratio
        value = share @ losses + jnp.sum(penalty * w * w) / 2
        pull, curvature = share * first, share * second
        inner = (X * curvature[:, None]).T @ X + jnp.diag(penalty)
        side = curvature @ X if intercept else jnp.zeros(p, x.dtype)
        corner = jnp.sum(curvature) if intercept else jnp.ones((), x.dtype)
        hessian = jnp.block([[inner, side[:, None]], [side[None], corner[None, None]]])
        level = jnp.sum(pull) if intercept else jnp.zeros((), x.dtype)
        gradient = jnp.append(pull @ X + penalty * w, level)
        return value, gradient, hessian


def _multinomial(x: Array, data: Data, intercept: bool) -> tuple[Array, Array, Array]:
    """As `IRLS.measured`; weights (p, k) row by row, then k intercepts."""
    X, y, share, penalty, offset = data
    n, p = X.shape
    k = x.shape[0] // (p + 1)
    A = jnp.concatenate([X, jnp.full((n, 1), 1.0 if intercept else 0.0, X.dtype)], 1)
    W = x.reshape(p + 1, k)
    level = jnp.append(penalty, jnp.zeros((), x.dtype))
    z = A @ W + offset
    whole = jax.nn.logsumexp(z, axis=1)
    mean = jnp.exp(z - whole[:, None])
    hit = _one_hot(y, k)
    value = share @ (whole - jnp.sum(jnp.where(hit, z, 0), 1))
    value = value + jnp.sum(level[:, None] * W * W) / 2
    gradient = A.T @ (share[:, None] * jnp.where(hit, mean - 1, mean)) + level[:, None] * W

    def block(c):  # rows of class c: X' diag(mean_c (1[c = d] - mean_d)) X for all d
        by = share[:, None] * mean[:, c, None] * jnp.where(jnp.arange(k) == c, 1 - mean, -mean)
        return A.T @ (by[:, None, :] * A[:, :, None]).reshape(n, -1)

    blocks = lax.map(block, jnp.arange(k)).reshape(k, p + 1, p + 1, k)
    hessian = blocks.transpose(1, 0, 2, 3).reshape((p + 1) * k, (p + 1) * k)
    return value, gradient.reshape(-1), hessian + jnp.diag(jnp.repeat(level, k))


def _balanced(direction: Array, data: Data) -> Array:
    """What moves all classes alike, and is not penalised, is rounding: taken out."""
    p = data.X.shape[1]
    rows = direction.reshape(p + 1, -1)
    free = jnp.append(data.penalty == 0, True)[:, None]
    return jnp.where(free, rows - jnp.mean(rows, 1, keepdims=True), rows).reshape(-1)


def _one_hot(y: Array, k: int) -> Array:
    return y[:, None] == jnp.arange(k, dtype=y.dtype)


def _newton(hessian: Array, gradient: Array) -> Array:
    """-H^-1 g, of least size where H is singular; NaN where it is not finite."""
    diagonal = jnp.diagonal(hessian)
    scale = 1 / jnp.sqrt(jnp.where(diagonal > 0, diagonal, 1))
    fine = jnp.all(jnp.isfinite(hessian))
    m = hessian.shape[0]
    unit = jnp.eye(m, dtype=hessian.dtype)
    scaled = jnp.where(fine, hessian * scale[:, None] * scale, unit)
    factor, _ = psd_factor(scaled + 10 * m * jnp.finfo(hessian.dtype).eps * unit)
    return -scale * psd_solve(factor, scale * gradient)


# -- is there a minimiser? ------------------------------------------------------------------------


def _attained(x: Linear) -> GLMState:
    none = jax.tree.map(lambda leaf: jnp.zeros_like(lax.stop_gradient(leaf)), x)
    zero = jnp.zeros((), x.weights.dtype)
    return GLMState(jnp.zeros((), bool), none, zero)


@functools.partial(jax.jit, static_argnums=(0,))
def _level(likelihood: Likelihood, found: Solution, data: Data) -> Solution:
    """As `_checked` where all weights are penalised: rows that count may be of one class only."""
    y, share = jax.tree.map(lax.stop_gradient, (data.y, data.share))
    rows = share > 0
    b = jnp.zeros_like(found.x.intercept)
    if likelihood.family == "logistic":
        aim = jnp.where(jnp.any(rows & (y > 0)), 1, -1).astype(b.dtype)
        alone = ~(jnp.any(rows & (y > 0)) & jnp.any(rows & (y <= 0)))
    elif likelihood.family == "multinomial":
        missing = ~jnp.any(_one_hot(y, b.shape[0]) & rows[:, None], 0)
        aim, alone = jnp.where(missing, -1, 0).astype(b.dtype), jnp.any(missing)
    elif likelihood.family == "poisson":
        aim, alone = b - 1, ~jnp.any(rows & (y > 0))
    else:
        aim, alone = b, jnp.asarray(False)
    alone = alone & likelihood.intercept & jnp.isfinite(found.value)
    aim = lax.stop_gradient(jnp.where(alone, aim, 0))
    state = GLMState(
        alone,
        Linear(jnp.zeros_like(lax.stop_gradient(found.x.weights)), aim),
        jnp.where(alone & (b.ndim == 0) & (likelihood.family == "logistic"), 1, 0).astype(b.dtype),
    )
    status = jnp.where(alone, int(Status.DIVERGED), found.status).astype(jnp.int32)
    return dataclasses.replace(
        found, status=status, success=status == int(Status.CONVERGED), state=state
    )


@functools.partial(jax.jit, static_argnums=(0,))
def _checked(likelihood: Likelihood, found: Solution, data: Data, last: Array | None) -> Solution:
    """DIVERGED with its proof if a direction of recession was found.

    Where the infimum is not attained, Newton's steps do not get small: in the tail of the loss each
    is about as long as the one before, along such a direction. So is, at last, the iterate.
    """
    x, data = jax.tree.map(lax.stop_gradient, (found.x, data))
    separable, direction, margin = _recession(likelihood, x, data, 0.0)
    if last is not None:
        p = data.X.shape[1]
        if x.weights.ndim == 1:
            step = Linear(last[:p], last[p])
        else:
            k = x.weights.shape[1]
            step = Linear(last[: p * k].reshape(p, k), last[p * k :])
        slack = float(jnp.finfo(margin.dtype).eps) ** 0.4
        along, aim, near = _recession(likelihood, step, data, slack)
        along = along & (_reach(likelihood, step, data) > 0.1)
        direction = jax.tree.map(lambda a, b: jnp.where(separable, a, b), direction, aim)
        margin = jnp.where(separable, margin, near)
        separable = separable | along
    direction = jax.tree.map(lambda leaf: jnp.where(separable, leaf, 0), direction)
    state = GLMState(separable, direction, jnp.where(separable, margin, 0))
    status = jnp.where(separable, int(Status.DIVERGED), found.status).astype(jnp.int32)
    return dataclasses.replace(
        found, status=status, success=status == int(Status.CONVERGED), state=state
    )


def _along(likelihood: Likelihood, d: Linear, data: Data) -> tuple[Linear, Array]:
    """`d` without what is penalised, and how predictors of rows that count move along it."""
    free = data.penalty == 0
    w = jnp.where(free if d.weights.ndim == 1 else free[:, None], d.weights, 0)
    b = d.intercept if likelihood.intercept else jnp.zeros_like(d.intercept)
    moves = data.X @ w + b
    counts = data.share > 0
    return Linear(w, b), jnp.where(counts if moves.ndim == 1 else counts[:, None], moves, 0)


def _reach(likelihood: Likelihood, d: Linear, data: Data) -> Array:
    moves = _along(likelihood, d, data)[1]
    if moves.ndim == 2:
        moves = moves - jnp.mean(moves, 1, keepdims=True)
    return jnp.max(jnp.abs(moves))


def _recession(likelihood: Likelihood, d: Linear, data: Data, slack: float):
    """Whether no loss ever grows along `d` and some fall; d scaled to reach 1; its least margin."""
    d, moves = _along(likelihood, d, data)
    if moves.ndim == 2:
        moves = moves - jnp.mean(moves, 1, keepdims=True)
    reach = jnp.max(jnp.abs(moves))
    unit = jnp.where(reach > 0, reach, 1)
    moves = moves / unit
    if likelihood.family == "logistic":
        margins = (2 * data.y - 1) * moves
        margins = jnp.where(data.share > 0, margins, 1)
    elif likelihood.family == "multinomial":
        hit = _one_hot(data.y, moves.shape[1])
        own = jnp.sum(jnp.where(hit, moves, 0), 1)
        margins = own - jnp.max(jnp.where(hit, -jnp.inf, moves), 1)
        margins = jnp.where(data.share > 0, margins, 1)
    elif likelihood.family == "poisson":
        margins = jnp.where(data.y > 0, -jnp.abs(moves), jnp.minimum(-moves, 0))
    else:
        margins = -jnp.abs(moves)
    least = jnp.min(margins)
    separable = (reach > 0) & jnp.isfinite(reach) & (least >= -slack)
    return separable, jax.tree.map(lambda leaf: leaf / unit, d), least


# -- folds ----------------------------------------------------------------------------------------


_STATIC = ("folds", "likelihood", "classes", "max_steps", "method", "batching")


@functools.partial(jax.jit, static_argnames=_STATIC)
def _by_folds(
    data: Data, penalties: Array, tol, *, folds, likelihood, classes, max_steps, method, batching
):
    n, p = data.X.shape
    begin = _start(None, p, classes, data.X.dtype)
    solver: Any = IRLS(likelihood) if method == "newton" else LBFGS()

    def fold(held):
        kept = jnp.where(held, 0, data.share)
        kept = kept / jnp.sum(kept)
        out = jnp.where(held, data.share, 0)
        out = out / jnp.where(jnp.sum(out) > 0, jnp.sum(out), 1)

        def fit(x, penalty):
            given = data._replace(share=kept, penalty=jnp.full(p, penalty))
            found = solve(Problem(likelihood), x, (given,), solver, tol=tol, max_steps=max_steps)
            last = found.state.direction if isinstance(solver, IRLS) else None
            found = _checked(likelihood, found, given, last)
            errors = out @ likelihood.losses(found.x, data)
            found = dataclasses.replace(found, state=found.state._replace(errors=errors))
            return lax.stop_gradient(found.x), found

        return lax.scan(fit, begin, penalties)[1]

    held = jnp.asarray(held_out(n, folds))
    return lax.map(fold, held) if batching == "map" else jax.vmap(fold)(held)
