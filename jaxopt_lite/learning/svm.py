"""Support vector machines: classification, regression, one class. One dual, one derivative.

check -> kernel matrix -> SMO or an interior point on values -> attach the derivative -> measure
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.core import Tracer
from jax.typing import ArrayLike

from ..core import (
    Implicit,
    Multipliers,
    Problem,
    Residuals,
    Solution,
    Status,
    check,
    solve,
)
from ..core.implicit import linear_solve, perturbed
from ..linalg import norm_inf, psd_factor, psd_solve
from ..prox.arguments import array
from ..solvers import LBFGS, Newton, solve_qp
from ._data import Linear, finite, known, matching, rows, still
from ._smo import Dual, Found, directions, one_by_one
from .kernels import Linear as LinearKernel
from .kernels import gram

LOSSES = ("hinge", "squared_hinge")
METHODS = ("smo", "qp")
MAX_STEPS = 10_000_000
NEWTON_UP_TO = 200  # features
REPEATS = 8  # solves with one factor, each of what the last left over


class SVMState(NamedTuple):
    """Why a machine is optimal, and what its data are to it.

    `dual` (n,) are the multipliers a_i of the margins (for `svr` a_i - a_i*, signed), in three
    cases by complementary slackness: `outside`, a_i = 0 and a margin beyond 1; `free`,
    0 < a_i < C_i and a margin of exactly 1: these give the bias; `bound`, a_i = C_i and a margin
    of at most 1. `scores` (n,) are f(x_i). `margin` is 1 / ||w||. `primal` and `gap`, the primal
    value less the dual one, >= 0 by weak and about 0 by strong duality, are computed from these
    alone. `violation` is the most that moving two multipliers would gain, per unit.
    """

    dual: Array
    outside: Array
    free: Array
    bound: Array
    scores: Array
    margin: Array
    primal: Array
    gap: Array
    violation: Array


def svc(
    X: ArrayLike,
    y: ArrayLike,
    C: ArrayLike = 1.0,
    *,
    kernel: Any = LinearKernel(),
    loss: str = "hinge",
    method: str = "smo",
    warm: Solution | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    r"""Minimise 1/2 ||w||^2 + sum_i C_i loss(y_i (w'phi(x_i) + b)): a classifier of two classes.

    Solved in the dual, where only inner products K = phi'phi enter:

        maximise sum_i a_i - 1/2 sum_ij a_i a_j y_i y_j K_ij   s.t.   0 <= a <= C,   y'a = 0.

    Args:
        X: (n, p) rows; or K (n, n) with kernel="precomputed".
        y: (n,), labels -1 and 1, or 0 and 1.
        C: > 0, a number or (n,), one a row; scikit-learn's. inf: a hard margin.
        kernel: one of `learning.kernels`, "precomputed", or a function (A, B) -> K.
        loss: "hinge", max(0, 1 - m), or "squared_hinge", its square: then K has 1 / (2 C_i) more
            on its diagonal, and a no upper bound.
        method: "smo", pairs of multipliers, n a step: best up to tolerances of 1e-6. "qp", an
            interior point, n^3 a step, for 1e-9.
        warm: a `Solution` for the same rows, where to start SMO.
        tol: CONVERGED means that no pair of multipliers gains more than `tol` per unit moved:
            scikit-learn's. None: 1e-6, in float32 1e-3.
        max_steps: pairs. None: 10 million.

    Returns a `Solution`: x is `Linear(weights, intercept)` over kernel values, weights y_i a_i, so
    that scores of new rows are `fit.x(kernel(new, X))`; w itself is X' weights for a linear kernel.
    `value` is that of the dual, `state` an `SVMState`. x and value have derivatives in X, C and the
    numbers of the kernel, of any order, at the cost of a Cholesky factorisation: those of the three
    cases, which do not change nearby but where a margin of 1 has a multiplier of 0 or C. Batches
    are run one after the other by SMO.

    With a hard margin and classes that no surface of the kernel separates, multipliers grow for
    ever: PRIMAL_INFEASIBLE, if seen within `max_steps`.

    Raises TypeError or ValueError for shapes that do not fit, other labels, a single class, C <= 0,
    data that are not finite, and a kernel matrix that is not symmetric positive semidefinite,
    saying by how much: for matrices and functions of yours by a Cholesky factorisation, outside
    `jit` only. Sources: Cortes & Vapnik (1995); Fan, Chen & Lin (2005).

    """
    K = _gram(kernel, X)
    n = K.shape[0]
    sign = _signs(y, n, K.dtype)
    C = _costs(C, n, K.dtype)
    if loss not in LOSSES:
        raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but {loss!r} came.")
    limit = C
    if loss == "squared_hinge":
        K = K + jnp.diag(1 / (2 * C))
        limit = jnp.full(n, jnp.inf, K.dtype)
    lower, upper = jnp.where(sign > 0, 0, -limit), jnp.where(sign > 0, limit, 0)
    zero = jnp.zeros((), K.dtype)
    dual = Dual(K, sign, zero, lower, upper, zero)
    start = jnp.zeros(n, K.dtype)
    if warm is not None:
        start = _feasible(jnp.asarray(warm.x.weights, K.dtype), lower, upper)
    return _machine(dual, start, sign, "svc", method, tol, max_steps, (C, loss))


def svr(
    X: ArrayLike,
    y: ArrayLike,
    C: ArrayLike = 1.0,
    *,
    epsilon: ArrayLike = 0.1,
    kernel: Any = LinearKernel(),
    method: str = "smo",
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise 1/2 ||w||^2 + sum_i C_i max(0, |y_i - f(x_i)| - epsilon): support vector regression.

    The dual is max y'b - 1/2 b'Kb - epsilon ||b||_1 s.t. |b| <= C, sum b = 0, the lasso's cousin:
    rows that are fitted to within epsilon have b_i = 0. `y` is (n,) numbers, epsilon >= 0; all else
    as in `svc`.
    """
    K = _gram(kernel, X)
    n = K.shape[0]
    y = array("`y`", y, 1, "One number a row of X.").astype(K.dtype)
    matching("y", y, K)
    finite("`y`", y)
    check.number("`epsilon`", epsilon, 0.0)
    C = _costs(C, n, K.dtype)
    e = jnp.asarray(epsilon, K.dtype)
    dual = Dual(K, y, e, -C, C, jnp.zeros((), K.dtype))
    return _machine(dual, jnp.zeros(n, K.dtype), y, "svr", method, tol, max_steps, (C, "hinge"))


def one_class_svm(
    X: ArrayLike,
    nu: ArrayLike = 0.5,
    *,
    kernel: Any = LinearKernel(),
    method: str = "smo",
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise 1/2 ||w||^2 - rho + sum_i max(0, rho - w'phi(x_i)) / (nu n): where rows are.

    f(x) = w'phi(x) - rho is >= 0 where rows are many. At most a fraction nu of the rows have
    f < 0, and at least nu are support vectors. The dual is min 1/2 a'Ka s.t. 0 <= a <= 1 / (nu n),
    sum a = 1; scikit-learn's multipliers are nu n times these. 0 < nu <= 1; all else as in `svc`.
    """
    K = _gram(kernel, X)
    n = K.shape[0]
    if not isinstance(nu, Tracer) and not (np.ndim(nu) == 0 and 0 < float(np.asarray(nu)) <= 1):
        raise ValueError(f"`nu` must be a number in (0, 1], but {nu!r} came.")
    top = jnp.broadcast_to(1 / (jnp.asarray(nu, K.dtype) * n), (n,))
    one, zero = jnp.ones((), K.dtype), jnp.zeros((), K.dtype)
    dual = Dual(K, jnp.zeros(n, K.dtype), zero, jnp.zeros(n, K.dtype), top, one)
    # The first nu n rows carry all, as in libsvm.
    start = jnp.clip(1 - jnp.arange(n, dtype=K.dtype) * top, 0, top)
    target = jnp.ones(n, K.dtype)
    return _machine(dual, start, target, "one class", method, tol, max_steps, (top, "hinge"))


@dataclasses.dataclass(frozen=True)
class _SquaredHinge:
    """1/2 ||w||^2 + sum_i C_i max(0, 1 - y_i (x_i'w + b))^2."""

    def __call__(self, x: Linear, X: Array, sign: Array, C: Array) -> Array:
        short = jnp.maximum(1 - sign * x(X), 0)
        return jnp.sum(x.weights * x.weights) / 2 + C @ (short * short)


_SQUARED_HINGE = Problem(_SquaredHinge())  # one object: what is traced of it is kept with it


def linear_svc(
    X: ArrayLike,
    y: ArrayLike,
    C: ArrayLike = 1.0,
    *,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise 1/2 ||w||^2 + sum_i C_i max(0, 1 - y_i (x_i'w + b))^2 in the primal.

    `svc(X, y, C, loss="squared_hinge")` for many rows: x is `Linear(weights (p,), intercept)`, in
    np memory. By `Newton` up to 200 features and `LBFGS` above, whose tolerance `tol` is. The
    certificate is a dual point: a_i = 2 C_i (hinge), `SVMState.gap` the primal less the dual value.
    """
    X = rows(X)
    n, p = X.shape
    sign, C = _signs(y, n, X.dtype), _costs(C, n, X.dtype)
    check.options(tol, max_steps, False, "implicit")
    start = Linear(jnp.zeros(p, X.dtype), jnp.zeros((), X.dtype))
    solver: Any = Newton() if p <= NEWTON_UP_TO else LBFGS()
    steps = None if max_steps is None else int(max_steps)
    found = solve(_SQUARED_HINGE, start, (X, sign, C), solver, tol=tol, max_steps=steps)
    return dataclasses.replace(found, state=_primal_state(*still((found.x, X, sign, C))))


@jax.jit
def _primal_state(x: Linear, X: Array, sign: Array, C: Array) -> SVMState:
    scores = x(X)
    short = jnp.maximum(1 - sign * scores, 0)
    dual = 2 * C * short
    w = X.T @ (sign * dual)  # feasible as y'a = 0 where the intercept is optimal
    primal = x.weights @ x.weights / 2 + C @ short**2
    bottom = jnp.sum(dual) - w @ w / 2 - jnp.sum(dual * dual / (4 * C))
    on = short > 0
    no = jnp.zeros_like(on)
    return SVMState(dual, ~on, on, no, scores, 1 / jnp.sqrt(x.weights @ x.weights), primal,
                    primal - bottom, jnp.abs(sign @ dual))  # fmt: skip


# -- input ----------------------------------------------------------------------------------------


def _gram(kernel: Any, X: Any) -> Array:
    """The kernel matrix; that of strangers is looked at."""
    if isinstance(kernel, str):
        if kernel != "precomputed":
            raise ValueError(
                f"`kernel` must be 'precomputed', one of `learning.kernels` or a function, but "
                f"{kernel!r} came. `learning.kernels.RBF(gamma)` is one."
            )
        K, trusted = rows(X), False
        if K.shape[0] != K.shape[1]:
            raise ValueError(
                "`X` must be a square matrix with kernel='precomputed', but its shape is "
                f"{K.shape}."
            )
    else:
        K, trusted = gram(kernel, rows(X))
    if not trusted and known(K):
        _semidefinite(K)
    return K


def _semidefinite(K: Array) -> None:
    """Refuse what is no matrix of inner products, and say by how much."""
    finite("the kernel matrix", K)
    scale = float(jnp.max(jnp.abs(K)))
    skew = float(jnp.max(jnp.abs(K - K.T)))
    small = float(jnp.finfo(K.dtype).eps) ** 0.5
    if skew > small * scale:
        raise ValueError(
            f"The kernel matrix must be symmetric, but K - K' has entries of size {skew:.3g}."
        )
    slack = small * scale * jnp.eye(K.shape[0], dtype=K.dtype)
    if bool(psd_factor(K + slack)[1]):
        return
    values = np.linalg.eigvalsh(np.asarray(K))
    if values[0] < -small * max(scale, values[-1]):
        raise ValueError(
            "The kernel matrix must be positive semidefinite, but its least eigenvalue is "
            f"{values[0]:.3g} (the largest {values[-1]:.3g}; {int(np.sum(values < 0))} of "
            f"{len(values)} are negative). Add {-values[0]:.3g} to its diagonal, or take its "
            "projection V max(L, 0) V'."
        )


def _signs(y: Any, n: int, dtype) -> Array:
    """Labels as -1 and 1."""
    if not isinstance(y, (jax.Array, np.ndarray)) or np.ndim(y) != 1:
        raise ValueError(
            f"`y` must be an array of labels with one axis, but {type(y).__name__} of shape "
            f"{np.shape(y)} came."
        )
    if np.shape(y) != (n,):
        raise ValueError(f"`y` must have {n} entries, one a row, but its shape is {np.shape(y)}.")
    if known(y):
        found = np.unique(np.asarray(y))
        if not (set(found.tolist()) <= {-1, 1} or set(found.tolist()) <= {0, 1}):
            shown = ", ".join(map(str, found[:6].tolist()))
            raise ValueError(
                f"`y` must have the labels -1 and 1, or 0 and 1, but has {shown}"
                f"{', ...' if len(found) > 6 else ''}. For more classes fit one against another."
            )
        if len(found) < 2:
            raise ValueError(
                f"`y` must have two classes, but all of its labels are {found.tolist()[0]}."
            )
    return jnp.where(jnp.asarray(y) > 0, 1, -1).astype(dtype)


def _costs(C: Any, n: int, dtype) -> Array:
    if not isinstance(C, Tracer):
        check.leaf("`C`", C, 0.0, way_out="It is the price of a violated margin.")
        if isinstance(C, str) or not np.all(np.asarray(C) > 0):
            raise ValueError(f"`C` must be a number > 0, but {C!r} came.")
    if np.shape(C) not in ((), (n,)):
        raise ValueError(
            f"`C` must be a number or have one entry for each of the {n} rows, but its shape is "
            f"{np.shape(C)}."
        )
    return jnp.broadcast_to(jnp.asarray(C, dtype), (n,))


def _feasible(b: Array, lower: Array, upper: Array) -> Array:
    """`b` within new bounds, with sum 0: the heavier side is scaled down."""
    b = jnp.clip(b, lower, upper)
    up, down = jnp.sum(jnp.maximum(b, 0)), -jnp.sum(jnp.minimum(b, 0))
    small = jnp.minimum(up, down)
    return jnp.where(
        b > 0,
        b * small / jnp.where(up > 0, up, 1),
        b * small / jnp.where(down > 0, down, 1),
    )


# -- solve, attach, measure -----------------------------------------------------------------------


def _machine(dual, start, target, kind, method, tol, max_steps, price) -> Solution:
    if method not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, but {method!r} came.")
    check.options(tol, max_steps, False, "implicit")
    dtype = dual.K.dtype
    tol = (1e-6 if dtype.itemsize > 4 else 1e-3) if tol is None else tol
    steps = jnp.asarray(MAX_STEPS if max_steps is None else int(max_steps), jnp.int32)
    tol = jnp.asarray(tol, dtype)
    # Values without derivatives; those are attached to the answer.
    fixed, start, tol = still((dual, start, tol))
    found = _by_program(fixed, tol) if method == "qp" else _by_pairs(fixed, start, tol, steps)
    cases = _cases(fixed, found)
    size = dual.K.shape[0]
    if known(cases.free):  # a factorisation of what is needed only
        size = min(size, _room(int(np.sum(np.asarray(cases.free)))))
    if known(dual):
        b, bias = cases.b, cases.bias
    else:
        both = _attach(size, jnp.append(cases.b, cases.bias), dual, cases)
        b, bias = both[:-1], both[-1]
    return _reported(dual, b, bias, target, found, cases, *price, kind=kind)


def _room(count: int) -> int:
    return max(32, 1 << (count - 1).bit_length()) if count else 32


@jax.jit
def _by_pairs(dual: Dual, start: Array, tol: Array, steps: Array) -> Found:
    return one_by_one(dual, start, tol, steps)


def _by_program(dual: Dual, tol: Array) -> Found:
    """The same by an interior point; |b| as the difference of two parts."""
    K, c, e, lower, upper, total = dual
    n = c.shape[0]
    one, none = jnp.ones((1, n), K.dtype), jnp.zeros(n, K.dtype)
    zero_e = known(e) and float(e) == 0
    if zero_e:
        found = solve_qp(K, -c, one, total[None], lower=lower, upper=upper, tol=tol / 10)
        b = found.x
    else:
        P = jnp.block([[K, -K], [-K, K]])
        q = jnp.concatenate([e - c, e + c])
        found = solve_qp(
            P, q, jnp.concatenate([one, -one], 1), total[None],
            lower=jnp.concatenate([none, none]), upper=jnp.concatenate([upper, -lower]),
            tol=tol / 10,
        )  # fmt: skip
        b = found.x[:n] - found.x[n:]
    # On a bound where the program says that it binds, so that cases are cases.
    small = 10 * tol * jnp.max(jnp.abs(b))
    b = jnp.where(b - lower <= small, lower, jnp.where(upper - b <= small, upper, b))
    b = jnp.where(jnp.abs(b) <= small, 0, b) if not zero_e else b
    slope = c - K @ b
    gain, cost = directions(dual, b, slope)
    return Found(b, slope, jnp.max(gain) - jnp.min(cost), found.steps, found.status)


class _Cases(NamedTuple):
    b: Array
    bias: Array
    free: Array  # as numbers 0 and 1
    side: Array  # where not free: -1, 0 or 1, at the lower bound, at 0, at the upper one
    sign: Array  # of b, for e ||b||_1
    finished: Array


@jax.jit
def _cases(dual: Dual, found: Found) -> _Cases:
    b = jnp.where(jnp.isfinite(found.b), found.b, 0)
    top, bottom = b >= dual.upper, b <= dual.lower
    kink = (dual.e > 0) & (b == 0)
    free = ~(top | bottom | kink)
    side = jnp.where(top, 1, jnp.where(bottom, -1, 0)).astype(b.dtype)
    sign = jnp.where(dual.e > 0, jnp.sign(b), 0)
    gain, cost = directions(dual, b, found.slope)
    # The bias: by free entries, whose margin is 1; else from the middle of what is optimal.
    count = jnp.sum(free)
    by_free = jnp.sum(jnp.where(free, found.slope - dual.e * sign, 0))
    between = (jnp.max(gain) + jnp.min(cost)) / 2
    bias = jnp.where(count > 0, by_free / jnp.maximum(count, 1).astype(b.dtype), between)
    bias = jnp.where(jnp.isfinite(bias), bias, 0)
    finished = found.status == int(Status.CONVERGED)
    return _Cases(b, bias, free.astype(b.dtype), side, sign, finished)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _attach(size: int, both: Array, dual: Dual, cases: _Cases) -> Array:
    """(b, bias) as functions of the program, while no row changes its case.

    Free rows (K b)_i + bias = c_i - e sign(b_i); others are on their bound or at 0; sum b = total.
    """
    return both


@functools.partial(_attach.defjvp, symbolic_zeros=True)
def _attach_jvp(size, primals, tangents):
    both, dual, cases = primals
    both = _attach(size, both, dual, cases)
    moved, rebuild = perturbed(dual, tangents[1])
    if not moved:
        return both, jnp.zeros_like(both)
    b, bias = both[:-1], both[-1]
    free, side = lax.stop_gradient((cases.free, cases.side))

    def conditions(new):
        K, c, e, lower, upper, total = rebuild(new)
        bound = jnp.where(side > 0, upper, jnp.where(side < 0, lower, 0))
        # Bounds may be infinite where nothing is on them.
        bound = jnp.where(free > 0, 0, bound)
        on = free * (K @ b + bias - c + e * cases.sign)
        return jnp.append(on + (1 - free) * (b - bound), jnp.sum(b) - total)

    primal, tangent = zip(*moved, strict=True)
    _, push = jax.jvp(conditions, (primal,), (tangent,))
    fixed = -(1 - free) * push[:-1]  # rows on bounds move with them
    rest = free * (-push[:-1] - dual.K @ fixed)
    last = -push[-1] - jnp.sum(fixed)

    def matvec(v):
        d, t = v[:-1], v[-1]
        inner = free * (dual.K @ (free * d) + t) + (1 - free) * d
        return jnp.append(inner, jnp.sum(free * d))

    K, mask = lax.stop_gradient((dual.K, free))
    how = Implicit(linear_solver=lambda _, rhs: _saddle(size, K, mask, rhs))
    moves = linear_solve(matvec, jnp.append(rest, last), True, how, cases.finished)
    return both, moves + jnp.append(fixed, jnp.zeros((), both.dtype))


def _saddle(size: int, K: Array, free: Array, rhs: Array) -> Array:
    """[K_FF 1; 1' 0] by the Cholesky factor of K_FF + s 1 1', in room for `size` free rows.

    Equal rows make K_FF singular, and how they share a multiplier arbitrary; scores do not depend
    on it. The factor is of a matrix a little larger, and solves are repeated on what they left:
    that converges where there is a solution. Where there is none the answer is NaN.
    """
    n = free.shape[0]
    index = jnp.nonzero(free > 0, size=size, fill_value=n)[0]
    real = index < n
    at = jnp.minimum(index, n - 1)
    scale = jnp.max(jnp.diagonal(K))
    lift = jnp.where(real[:, None] & real, K[at][:, at] + scale, 0)
    matrix = lift + jnp.diag(jnp.where(real, 0, scale).astype(K.dtype))
    eps = float(jnp.finfo(K.dtype).eps)
    more = 4 * size * eps * jnp.max(jnp.diagonal(matrix))
    one = real.astype(K.dtype)
    r, s = jnp.where(real, rhs[at], 0), rhs[-1]
    factor, good = psd_factor(matrix + more * jnp.eye(size, dtype=K.dtype))

    def apply(v):
        nearer = lambda _, w: w + psd_solve(factor, v - matrix @ w)
        return lax.fori_loop(0, REPEATS, nearer, jnp.zeros_like(v))

    def solves(v, w):
        return norm_inf(v - matrix @ w) <= eps**0.375 * norm_inf(v)

    # (K + s 1 1') d + 1 t = r + s 1 (1'd), with 1'd given.
    right = r + scale * s * one
    base, ones = apply(right), apply(one)
    good = good & solves(right, base) & solves(one, ones)
    weight = one @ ones
    t = jnp.where(weight > 0, (one @ base - s) / jnp.where(weight > 0, weight, 1), 0)
    d = jnp.where(good, base - t * ones, jnp.nan)
    whole = (rhs * jnp.append(1 - free, jnp.zeros((), K.dtype))).at[index].set(d, mode="drop")
    return whole.at[-1].set(jnp.where(good, t, jnp.nan))


@functools.partial(jax.jit, static_argnames=("kind", "loss"))
def _reported(dual, b, bias, target, found, cases, C, loss, *, kind) -> Solution:
    value = dual.c @ b - b @ (dual.K @ b) / 2 - dual.e * (cases.sign @ b)
    K0, b0, bias0, target, C = still((dual.K, b, bias, target, C))
    product = K0 @ b0
    square = b0 @ product
    scores = product + bias0
    if loss == "squared_hinge":  # K has 1 / (2 C) on its diagonal, which is no part of f
        own = b0 / (2 * C)
        scores, square = scores - own, square - b0 @ own
    if kind == "svc":
        short = jnp.maximum(1 - target * scores, 0)
        multipliers = jnp.abs(b0)
    elif kind == "svr":
        short = jnp.maximum(jnp.abs(target - scores) - dual.e, 0)
        multipliers = b0
    else:
        short, multipliers = jnp.maximum(-scores, 0), b0
    cost = short**2 if loss == "squared_hinge" else short
    # Of a hard margin, what is short by rounding or the tolerance costs nothing.
    met = jnp.isinf(C) & (short <= float(jnp.finfo(b0.dtype).eps) ** 0.375)
    priced = jnp.where((cost > 0) & ~met, C * cost, 0)
    primal = square / 2 + jnp.sum(priced) + (bias0 if kind == "one class" else 0)
    free = cases.free > 0
    bound = ~free & (b0 != 0)
    status = found.status
    blown = (
        jnp.max(jnp.abs(b0)) * jnp.max(jnp.diagonal(K0)) > float(jnp.finfo(b0.dtype).eps) ** -0.5
    )
    hard = jnp.all(jnp.isinf(C))
    ended = (status == int(Status.MAX_STEPS)) | (status == int(Status.CONVERGED))
    status = jnp.where(hard & blown & ended, int(Status.PRIMAL_INFEASIBLE), status)
    root = jnp.sqrt(jnp.maximum(square, 0))
    state = SVMState(
        multipliers, b0 == 0, free, bound, scores, 1 / jnp.where(root > 0, root, 1), primal,
        primal - value, found.violation,
    )  # fmt: skip
    nothing = jnp.zeros_like(value)
    return Solution(
        x=Linear(b, bias),
        value=value,
        aux=None,
        multipliers=Multipliers(),
        status=status.astype(jnp.int32),
        success=status == int(Status.CONVERGED),
        steps=found.steps,
        residuals=Residuals(jnp.maximum(found.violation, 0), nothing, nothing, nothing),
        history=None,
        state=still(state),
    )
