"""Ridge regression: one penalty, a path of them from one spectrum, a path for every fold.

check -> centre (the intercept) -> factorise -> solve, with derivatives -> measure
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import Solution, Status
from ..linalg import psd_factor, spectrum
from ._data import (
    Linear,
    Samples,
    batching_of,
    fold_count,
    grid_of,
    held_out,
    known,
    penalty_of,
    reported,
    samples,
    still,
)

METHODS = ("cholesky", "dual", "qr", "svd")


class RidgeState(NamedTuple):
    """What is known of a fit, each in closed form; these have no derivatives.

    `unique`: the penalty is > 0 or the columns are independent; else the weights are those of
    least norm. `filters` f_i = s_i^2 / (s_i^2 + penalty), how much of each singular direction is
    kept (None for methods without singular values). `dof` = tr(hat matrix), effective degrees of
    freedom, the intercept included. `leave_one_out` (n,) or (n, k) are residuals
    y_i - prediction of the fit without row i, r_i / (1 - h_i), where the total penalty
    (`penalty` times the sum of all sample weights) stays; `gcv` their mean square with h_i
    replaced by the mean. `errors`, of `ridge_folds`: mean squares on the rows left out.
    """

    unique: Array
    filters: Array | None
    dof: Array
    leave_one_out: Array | None
    gcv: Array | None
    errors: Array | None = None


def ridge(
    X: ArrayLike,
    y: ArrayLike,
    penalty: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    intercept: bool = True,
    method: str | None = None,
) -> Solution:
    r"""Minimise sum_i s_i (y_i - x_i'w - b)^2 / (2 sum_i s_i) + 1/2 sum_j penalty_j w_j^2.

    With equal weights ||y - Xw - b||^2 / (2n) + penalty/2 ||w||^2, as in `lasso`. scikit-learn's
    `Ridge(alpha)` is alpha = penalty * n, or penalty * sum_i s_i. The answer is also that of
    least squares subject to ||w||^2 / 2 <= C, whose multiplier is `penalty`.

    Args:
        X: (n, p).
        y: (n,), or (n, k) for k targets at once.
        penalty: >= 0, a number or (p,), one a feature.
        sample_weight: s, (n,), >= 0. None: 1.
        intercept: whether there is a b, which is not penalised: X and y are centred.
        method: "cholesky" of the normal equations, n p^2 + p^3/3; "dual", of X X', n^2 p + n^3/3;
            "qr" of the rows and the penalty together, 2 n p^2, whose error grows with the condition
            of X instead of its square; "svd", which gives the filter factors and, without penalty,
            the weights of least norm. None: "svd" for a penalty that is known to be 0, else
            "dual" where n < p and "cholesky" where not.

    Returns a `Solution`: x is `Linear(weights, intercept)`, `state` a `RidgeState`. x and value
    have derivatives of any order in X, y, penalty and weights, by the factorisation of the fit.
    Where columns are dependent and nothing is penalised they are those of least norm. A singular
    system by "cholesky", "dual" or "qr" is STALLED: take "svd".

    Raises TypeError or ValueError for shapes that do not fit, negative penalties, data that are
    not finite, and "dual" or "svd" with a penalty that is 0 for some features only.
    Sources: Hoerl & Kennard (1970); Golub, Heath & Wahba (1979).

    """
    data = samples(X, y, sample_weight, targets=2)
    n, p = data.X.shape
    strength = penalty_of(penalty, p, data.X.dtype)
    return _ridge(data, strength, method=_method(method, penalty, n, p), intercept=bool(intercept))


def ridge_path(
    X: ArrayLike,
    y: ArrayLike,
    penalties: ArrayLike,
    *,
    sample_weight: ArrayLike | None = None,
    intercept: bool = True,
) -> Solution:
    """`ridge` for each of `penalties` (L,): a `Solution` of L lanes from one factorisation.

    One `eigh` of X'X or X X', whichever is smaller, then n p a penalty. Directions whose eigenvalue
    is below 10 min(n, p) eps of the largest count as 0 where the penalty is 0.
    """
    data = samples(X, y, sample_weight, targets=2)
    grid = grid_of(penalties, data.X.dtype)
    return _path(data, grid, intercept=bool(intercept))


def ridge_folds(
    X: ArrayLike,
    y: ArrayLike,
    penalties: ArrayLike,
    *,
    folds: int = 10,
    sample_weight: ArrayLike | None = None,
    intercept: bool = True,
    batching: str = "auto",
) -> Solution:
    """`ridge_path` on all rows but those of a fold, for each of `folds`: (folds, L) lanes.

    Folds are blocks of neighbouring rows as in `lasso_folds`; shuffle rows that have an order. The
    Gram matrix of a fold is that of all rows less the fold's, and one `eigh` gives all penalties.
    `state.errors` (folds, L) are mean squares over the rows left out (weighted, and over targets),
    with derivatives in `penalties` and data.

    Args:
        X: (n, p).
        y: (n,) or (n, k).
        penalties: (L,), in any order.
        folds: how many, from 2 to n.
        sample_weight: as in `ridge`.
        intercept: as in `ridge`.
        batching: "map" takes one fold after the other, "vmap" all at once. "auto": "map" on a CPU.

    """
    data = samples(X, y, sample_weight, targets=2)
    grid = grid_of(penalties, data.X.dtype)
    count = fold_count(folds, data.X.shape[0])
    batching = batching_of(batching)
    return _folds(data, grid, folds=count, intercept=bool(intercept), batching=batching)


def _method(method: str | None, penalty: Any, n: int, p: int) -> str:
    positive = not known(penalty) or bool(np.all(np.asarray(penalty) > 0))
    if method is None:
        if known(penalty) and not np.any(np.asarray(penalty)):
            return "svd"
        return "dual" if n < p and positive else "cholesky"
    if method not in METHODS:
        raise ValueError(
            f"`method` must be None or one of {', '.join(METHODS)}, but {method!r} came."
        )
    if method in ("dual", "svd") and not positive and np.any(np.asarray(penalty)):
        raise ValueError(
            f"`penalty` must be > 0 for every feature, or 0 for all, with method={method!r}, but "
            "some are 0. Take 'cholesky' or 'qr'."
        )
    return method


# -- one penalty ----------------------------------------------------------------------------------


class _Centred(NamedTuple):
    """Rows times the square roots of their shares, less their means; targets as (n, k)."""

    X: Array
    y: Array
    center: Array  # (p,)
    level: Array  # (k,)


class _Solved(NamedTuple):
    """Weights (p, k), and what the factorisation says."""

    weights: Array
    leverage: Array  # (n,)
    good: Array
    filters: Array | None
    dof: Array
    unique: Array


def _centred(data: Samples, intercept: bool) -> _Centred:
    X, y, share = data
    Y = y[:, None] if y.ndim == 1 else y
    center = share @ X if intercept else jnp.zeros(X.shape[1], X.dtype)
    level = share @ Y if intercept else jnp.zeros(Y.shape[1], X.dtype)
    root = _root(share)[:, None]
    return _Centred(root * (X - center), root * (Y - level), center, level)


def _root(share: Array) -> Array:
    """Square roots, with derivative 0 at 0."""
    return jnp.where(share > 0, jnp.sqrt(jnp.where(share > 0, share, 1)), 0)


@functools.partial(jax.jit, static_argnames=("method", "intercept"))
def _ridge(data: Samples, penalty: Array, *, method: str, intercept: bool) -> Solution:
    rows = _centred(data, intercept)
    p = rows.X.shape[1]
    spread = method in ("dual", "svd") and penalty.ndim == 1
    # One penalty a feature is the penalty 1 on columns that are scaled.
    scale = 1 / jnp.sqrt(penalty) if spread else None
    A = rows.X if scale is None else rows.X * scale
    level = jnp.ones((), A.dtype) if spread else penalty
    solved = _BY[method](A, rows.y, jnp.broadcast_to(level, (p,)) if method in _WIDE else level)
    weights = solved.weights if scale is None else scale[:, None] * solved.weights
    return _measured(data, rows, penalty, solved._replace(weights=weights), intercept)


def _linear(matvec: Callable[[Array], Array], rhs: Array, solve: Callable[[Array], Array]) -> Array:
    """The answer of a symmetric system: derivatives are those of the system, whatever solves it."""

    def by(_, b):
        return solve(b)

    return lax.custom_linear_solve(matvec, rhs, by, by, symmetric=True)


def _by_cholesky(A: Array, Y: Array, penalty: Array) -> _Solved:
    G = A.T @ A + jnp.diag(penalty)
    factor, good = psd_factor(lax.stop_gradient(G))

    def solve(b):
        w = jsl.cho_solve((factor, True), b)
        return w + jsl.cho_solve((factor, True), b - lax.stop_gradient(G) @ w)

    W = _linear(lambda w: A.T @ (A @ w) + penalty[:, None] * w, A.T @ Y, solve)
    half = jsl.solve_triangular(factor, lax.stop_gradient(A).T, lower=True)
    leverage = jnp.sum(half * half, 0)
    return _Solved(W, leverage, good, None, jnp.sum(leverage), good)


def _by_qr(A: Array, Y: Array, penalty: Array) -> _Solved:
    """Of A above the roots of the penalties: the corrected seminormal equations."""
    n, p = A.shape
    stack = lax.stop_gradient(jnp.concatenate([A, jnp.diag(_root(penalty))]))
    Q, R = jnp.linalg.qr(stack)
    pivots = jnp.abs(jnp.diagonal(R))
    good = jnp.min(pivots) > max(stack.shape) * jnp.finfo(A.dtype).eps * jnp.max(pivots)
    R = jnp.where(good, R, jnp.eye(p, dtype=A.dtype))

    def triangular(b, trans):
        return jsl.solve_triangular(R, b, trans=trans)

    def solve(b):
        return triangular(triangular(b, 1), 0)

    top = Q[:n]
    # The answer by Q'y itself; the system, of which it is the root, only gives derivatives.
    W = lax.stop_gradient(triangular(top.T @ lax.stop_gradient(Y), 0))
    rest = A.T @ (Y - A @ W) - penalty[:, None] * W
    W = W + _linear(lambda w: A.T @ (A @ w) + penalty[:, None] * w, rest, solve)
    leverage = jnp.sum(top * top, 1)
    return _Solved(W, leverage, good, None, jnp.sum(leverage), good)


def _by_dual(A: Array, Y: Array, penalty: Array) -> _Solved:
    K = A @ A.T
    K = K + penalty * jnp.eye(A.shape[0], dtype=A.dtype)
    factor, good = psd_factor(lax.stop_gradient(K))

    def solve(b):
        a = jsl.cho_solve((factor, True), b)
        return a + jsl.cho_solve((factor, True), b - lax.stop_gradient(K) @ a)

    a = _linear(lambda a: A @ (A.T @ a) + penalty * a, Y, solve)
    inverse = jsl.solve_triangular(factor, jnp.eye(A.shape[0], dtype=A.dtype), lower=True)
    leverage = 1 - lax.stop_gradient(penalty) * jnp.sum(inverse * inverse, 0)
    return _Solved(A.T @ a, leverage, good, None, jnp.sum(leverage), good)


def _by_svd(A: Array, Y: Array, penalty: Array) -> _Solved:
    """Filter factors; least norm for what is neither seen nor penalised."""
    n, p = A.shape
    level = lax.stop_gradient(penalty)
    U, s, Vt = jnp.linalg.svd(lax.stop_gradient(A), full_matrices=False)
    small = max(n, p) * jnp.finfo(A.dtype).eps * jnp.max(s)
    seen = s > small
    total = s * s + level
    keep = seen | (level > 0)
    inverse = jnp.where(keep, 1 / jnp.where(keep, total, 1), 0)
    filters = jnp.where(seen, s * s, 0) * inverse
    # From the singular values themselves, not their squares; the system then gives derivatives.
    W = Vt.T @ ((jnp.where(seen, s, 0) * inverse)[:, None] * (U.T @ lax.stop_gradient(Y)))
    if n < p:
        # W = A'a: least norm whatever the penalty, so that derivatives are those of least norm too.
        a = U @ ((jnp.where(seen, inverse, 0))[:, None] * (U.T @ lax.stop_gradient(Y)))
        rest = Y - A @ (A.T @ a) - penalty * a
        moved = _linear(lambda v: A @ (A.T @ v) + penalty * v, rest, _spectral(U, inverse, level))
        # A'(a + moved) with the value of W, that is more accurate.
        exact = A.T @ (a + moved)
        W = exact + lax.stop_gradient(W - exact)
    else:
        rest = A.T @ (Y - A @ W) - penalty * W
        W = W + _linear(
            lambda w: A.T @ (A @ w) + penalty * w, rest, _spectral(Vt.T, inverse, level)
        )
    leverage = (U * U) @ filters
    full = jnp.sum(seen) == p
    return _Solved(
        W, leverage, jnp.all(jnp.isfinite(s)), filters, jnp.sum(filters), full | (level > 0)
    )


def _spectral(V: Array, inverse: Array, level: Array) -> Callable[[Array], Array]:
    """B -> V inverse V'b, plus what is outside of V by the penalty alone."""

    def solve(b):
        inside = V.T @ b
        outside = b - V @ inside
        by = jnp.where(level > 0, 1 / jnp.where(level > 0, level, 1), 0)
        return V @ (inverse[:, None] * inside) + by * outside

    return solve


_BY = {"cholesky": _by_cholesky, "qr": _by_qr, "dual": _by_dual, "svd": _by_svd}
_WIDE = ("cholesky", "qr")  # with a penalty for each feature


def _measured(
    data: Samples, rows: _Centred, penalty: Array, solved: _Solved, intercept: bool
) -> Solution:
    W = solved.weights
    residual = rows.y - rows.X @ W
    value = (jnp.sum(residual**2) + jnp.sum(penalty * jnp.sum(W * W, 1))) / 2
    W0, X0, penalty0, residual0 = still((W, rows.X, penalty, residual))
    strength = penalty0[:, None] if penalty0.ndim else penalty0
    push = X0.T @ residual0
    off = jnp.max(jnp.abs(push - strength * W0))
    scale = jnp.max(jnp.abs(X0.T @ lax.stop_gradient(rows.y)))
    status = _verdict(solved.good, off, scale, jnp.all(jnp.isfinite(W0)))
    share = lax.stop_gradient(data.share)
    # The intercept's part of the hat matrix is 1 s', the rest is in rows times roots of shares.
    leverage = solved.leverage + (share if intercept else 0)
    raw = residual0 / jnp.where(share > 0, _root(share), 1)[:, None]
    alone = raw / jnp.maximum(1 - leverage, jnp.finfo(W.dtype).tiny)[:, None]
    dof = solved.dof + (1 if intercept else 0)
    n = share.shape[0]
    gcv = jnp.sum(residual0**2, 0) / (1 - dof / n) ** 2
    single = data.y.ndim == 1
    weights = W[:, 0] if single else W
    level = rows.level - rows.center @ W
    x = Linear(weights, level[0] if single else level)
    x = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), x)
    state = RidgeState(
        solved.unique,
        solved.filters,
        dof,
        alone[:, 0] if single else alone,
        gcv[0] if single else gcv,
    )
    return reported(x, value, status, 1, off, still(state))


def _verdict(good: Array, off: Array, scale: Array, fine: Array) -> Array:
    """CONVERGED if the normal equations hold to sqrt(eps) of their right-hand side."""
    met = good & (off <= float(jnp.finfo(off.dtype).eps) ** 0.5 * scale)
    status = jnp.where(met, int(Status.CONVERGED), int(Status.STALLED))
    return jnp.where(fine, status, int(Status.NONFINITE)).astype(jnp.int32)


# -- a path ---------------------------------------------------------------------------------------


class _Grid(NamedTuple):
    """(M + l I)^-1 b for all l from one spectrum of M (m, m)."""

    values: Array  # (m,)
    vectors: Array
    inverse: Array  # (L, m), 0 for what is neither seen nor penalised

    @classmethod
    def of(cls, M: Array, penalties: Array) -> "_Grid":
        values, vectors = spectrum(lax.stop_gradient(M))
        level = lax.stop_gradient(penalties)[:, None]
        floor = 10 * M.shape[0] * jnp.finfo(M.dtype).eps * jnp.max(values)
        seen = values > floor
        values = jnp.where(seen, values, 0)
        keep = seen | (level > 0)
        inverse = jnp.where(keep, 1 / jnp.where(keep, values + level, 1), 0)
        return cls(values, vectors, inverse)

    def solve(self, M: Array, penalties: Array, rhs: Array) -> Array:
        """(L, m, k) for right-hand sides (m, k)."""

        def by_spectrum(b):
            inside = jnp.einsum("ij,lik->ljk", self.vectors, b)
            return jnp.einsum("ij,ljk->lik", self.vectors, self.inverse[:, :, None] * inside)

        def matvec(Z):
            return jnp.einsum("ij,ljk->lik", M, Z) + penalties[:, None, None] * Z

        # All right-hand sides are the same: the answer by one product, derivatives by the system.
        common = self.vectors.T @ lax.stop_gradient(rhs)
        Z = jnp.einsum("ij,ljk->lik", self.vectors, self.inverse[:, :, None] * common)
        rest = rhs - matvec(Z)
        rest = rest - lax.stop_gradient(rest)  # 0, with its derivatives
        return Z + _linear(matvec, rest, by_spectrum)

    def filters(self) -> Array:
        """(L, m)."""
        return self.values * self.inverse


@functools.partial(jax.jit, static_argnames=("intercept",))
def _path(data: Samples, penalties: Array, *, intercept: bool) -> Solution:
    rows = _centred(data, intercept)
    n, p = rows.X.shape
    wide = n < p
    M = rows.X @ rows.X.T if wide else rows.X.T @ rows.X
    grid = _Grid.of(M, penalties)
    Z = grid.solve(M, penalties, rows.y if wide else rows.X.T @ rows.y)
    W = jnp.einsum("np,lnk->lpk", rows.X, Z) if wide else Z
    residual = rows.y - jnp.einsum("np,lpk->lnk", rows.X, W)
    squares = jnp.sum(residual**2, (1, 2))
    value = (squares + penalties * jnp.sum(W * W, (1, 2))) / 2
    X0, residual0, W0, level = still((rows.X, residual, W, penalties))
    if wide:
        leverage = grid.filters() @ (grid.vectors * grid.vectors).T
    else:
        leverage = grid.inverse @ ((X0 @ grid.vectors) ** 2).T
    share = lax.stop_gradient(data.share)
    leverage = leverage + (share if intercept else 0)
    raw = residual0 / jnp.where(share > 0, _root(share), 1)[:, None]
    tiny = jnp.finfo(W.dtype).tiny
    alone = raw / jnp.maximum(1 - leverage, tiny)[:, :, None]
    filters = grid.filters()
    dof = jnp.sum(filters, 1) + (1 if intercept else 0)
    gcv = jnp.sum(residual0**2, 1) / (1 - dof / n)[:, None] ** 2
    push = jnp.einsum("np,lnk->lpk", X0, residual0)
    off = jnp.max(jnp.abs(push - level[:, None, None] * W0), (1, 2))
    scale = jnp.max(jnp.abs(X0.T @ lax.stop_gradient(rows.y)))
    fine = jnp.all(jnp.isfinite(W0), (1, 2))
    status = _verdict(jnp.ones_like(fine), off, scale, fine)
    unique = (level > 0) | (jnp.sum(grid.values > 0) == p)
    x = _predictor(W, rows.center, rows.level, data.y.ndim == 1)
    single = data.y.ndim == 1
    alone, gcv = (alone[..., 0], gcv[..., 0]) if single else (alone, gcv)
    state = RidgeState(unique, filters, dof, alone, gcv)
    return reported(x, value, status, 1, off, still(state))


def _predictor(W: Array, center: Array, level: Array, single: bool) -> Linear:
    """Lanes of weights (L, p, k) with their intercepts, NaN made 0."""
    b = level - jnp.einsum("p,lpk->lk", center, W)
    x = Linear(W[..., 0], b[..., 0]) if single else Linear(W, b)
    return jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), x)


# -- folds ----------------------------------------------------------------------------------------


@functools.partial(jax.jit, static_argnames=("folds", "intercept", "batching"))
def _folds(data: Samples, penalties: Array, *, folds: int, intercept: bool, batching: str):
    X, y, share = data
    Y = y[:, None] if y.ndim == 1 else y
    n, p = X.shape
    # Once for all: means that differ from 0 would cost the differences below their digits.
    offset, raised = (share @ X, share @ Y) if intercept else (0, 0)
    X, Y = X - offset, Y - raised
    whole = None if n < p else _moments(X, Y, share)
    held = held_out(n, folds)
    longest = -(-n // folds)
    first = np.minimum(np.argmax(held, 1), n - longest)
    fold = functools.partial(_fold, X, Y, share, whole, penalties, longest, intercept)
    lanes = (jnp.asarray(held), jnp.asarray(first, jnp.int32))
    W, b, value, dof, errors, off, fine = (
        lax.map(fold, lanes) if batching == "map" else jax.vmap(fold)(lanes)
    )
    b = b + raised - (jnp.einsum("p,flpk->flk", offset, W) if intercept else 0)
    x = Linear(W[..., 0], b[..., 0]) if data.y.ndim == 1 else Linear(W, b)
    x = jax.tree.map(lambda leaf: jnp.where(jnp.isfinite(leaf), leaf, 0), x)
    status = _verdict(jnp.ones_like(fine), off[0], off[1], fine)
    unique = still(jnp.broadcast_to(penalties > 0, dof.shape))
    state = RidgeState(unique, None, still(dof), None, None, errors)
    return reported(x, value, status, 1, still(off[0]), state)


class _Moments(NamedTuple):
    """Weighted sums over rows."""

    total: Array
    X: Array
    y: Array
    XX: Array
    Xy: Array
    yy: Array


def _moments(X: Array, Y: Array, share: Array) -> _Moments:
    by = share[:, None] * X
    return _Moments(
        jnp.sum(share), share @ X, share @ Y, by.T @ X, by.T @ Y, jnp.sum(share[:, None] * Y * Y)
    )


def _fold(X, Y, share, whole, penalties, longest, intercept, lane):
    held, first = lane
    inside = lax.dynamic_slice_in_dim(held, first, longest)
    Xk = lax.dynamic_slice_in_dim(X, first, longest)
    Yk = lax.dynamic_slice_in_dim(Y, first, longest)
    part = jnp.where(inside, lax.dynamic_slice_in_dim(share, first, longest), 0)
    if whole is not None:
        rest = jax.tree.map(jnp.subtract, whole, _moments(Xk, Yk, part))
        rest = jax.tree.map(lambda leaf: leaf / rest.total, rest)
        center, level = (rest.X, rest.y) if intercept else (0 * rest.X, 0 * rest.y)
        M = rest.XX - jnp.outer(center, center)
        rhs = rest.Xy - jnp.outer(center, level)
        grid = _Grid.of(M, penalties)
        W = grid.solve(M, penalties, rhs)
        MW = jnp.einsum("ij,ljk->lik", M, W)
        squares = rest.yy - jnp.sum(level * level)
        squares = squares - jnp.sum(W * (2 * rhs - MW), (1, 2))
        off = jnp.max(jnp.abs(rhs - MW - penalties[:, None, None] * W), (1, 2))
    else:
        kept = jnp.where(held, 0, share)
        kept = kept / jnp.sum(kept)
        center, level = (kept @ X, kept @ Y) if intercept else (0 * X[0], 0 * Y[0])
        root = _root(kept)[:, None]
        A, rhs = root * (X - center), root * (Y - level)
        M = A @ A.T
        grid = _Grid.of(M, penalties)
        a = grid.solve(M, penalties, rhs)
        W = jnp.einsum("np,lnk->lpk", A, a)
        residual = rhs - jnp.einsum("nm,lmk->lnk", M, a)
        squares = jnp.sum(residual**2, (1, 2))
        push = jnp.einsum("np,lnk->lpk", A, residual) - penalties[:, None, None] * W
        off = jnp.max(jnp.abs(push), (1, 2))
        rhs = A.T @ rhs
    value = (squares + penalties * jnp.sum(W * W, (1, 2))) / 2
    b = level - jnp.einsum("p,lpk->lk", center, W)
    missed = Yk - jnp.einsum("np,lpk->lnk", Xk, W) - b[:, None, :]
    missed = jnp.sum(part[:, None] * missed**2, (1, 2))
    there = jnp.sum(part)
    errors = missed / jnp.where(there > 0, there, 1) / Y.shape[1]
    dof = jnp.sum(grid.filters(), 1) + (1 if intercept else 0)
    scale = jnp.broadcast_to(jnp.max(jnp.abs(rhs)), off.shape)
    return W, b, value, dof, errors, (off, scale), jnp.all(jnp.isfinite(W), (1, 2))
