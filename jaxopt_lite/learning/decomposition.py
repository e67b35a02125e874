"""Decompositions: principal components, non-negative factors, and collapsed features."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Multipliers, Problem, Residuals, Solution, Status, check, solve
from ..linalg import spectrum
from ..solvers import LBFGS, LBFGSB
from ._data import known, rows, shares, still


class PCAState(NamedTuple):
    """Why directions are principal, and what they explain.

    `variances` (k,), the eigenvalues of the covariance; `explained` their parts of the whole
    variance; `center` (p,) the mean; `gap` the k-th less the next eigenvalue: > 0 if the subspace
    is unique; `asymmetry` of the multipliers V'SV, 0 at a stationary point of the trace on
    orthonormal V.
    """

    variances: Array
    explained: Array
    center: Array
    gap: Array
    asymmetry: Array


def pca(
    X: ArrayLike,
    components: int,
    *,
    sample_weight: ArrayLike | None = None,
    center: bool = True,
) -> Solution:
    r"""Minimise -tr(V'SV) / 2 subject to V'V = I: the k directions of largest variance.

    S = X'X / n of centred rows. The Lagrange conditions S V = V L, with a symmetric L, say that V
    spans eigenvectors; in their basis L is diagonal: multipliers are eigenvalues. By `eigh` of X'X
    or X X', whichever is smaller.

    Args:
        X: (n, p).
        components: k, at most the rank.
        sample_weight: (n,), >= 0. None: 1.
        center: whether to subtract the mean.

    Returns a `Solution`: x is V (p, k), largest variance first, the largest entry of each column
    > 0; `multipliers.eq` L = V'SV (k, k) of (V'V - I) / 2 = 0; `residuals.stationarity` the largest
    entry of S V - V L, that of the Riemannian gradient; `state` a `PCAState`. Scores are
    (X - center) @ V. x and value have the derivatives of `eigh`: NaN where eigenvalues are equal.

    Raises ValueError if there are more components than the rank of X, where X is known.
    Source: Absil, Mahony & Sepulchre (2008), section 4.8.

    """
    X = rows(X)
    n, p = X.shape
    k = check.count("`components`", components)
    if k > min(n, p):
        raise ValueError(
            f"`components` must be at most {min(n, p)}, the smaller side of `X` {X.shape}, but {k} "
            "came."
        )
    found = _pca(X, shares(sample_weight, n, X.dtype), k=k, center=bool(center))
    if known(found.state.variances):
        values = np.asarray(found.state.variances)
        rank = int(np.sum(values > 10 * max(n, p) * np.finfo(values.dtype).eps * values[0]))
        if rank < k:
            raise ValueError(f"`components` must be at most the rank of `X`, {rank}, but {k} came.")
    return found


@functools.partial(jax.jit, static_argnames=("k", "center"))
def _pca(X: Array, share: Array, *, k: int, center: bool) -> Solution:
    mean = share @ X if center else jnp.zeros(X.shape[1], X.dtype)
    A = jnp.sqrt(share)[:, None] * (X - mean)
    wide = A.shape[0] < A.shape[1]
    values, vectors = spectrum(A @ A.T if wide else A.T @ A)
    values, V = values[::-1], vectors[:, ::-1][:, :k]
    if wide:
        V = A.T @ V
        V = V / jnp.sqrt(jnp.sum(V * V, 0))
    largest = jnp.take_along_axis(V, jnp.argmax(jnp.abs(V), 0)[None], 0)
    V = V * jnp.where(largest < 0, -1, 1)
    B = A @ V
    SV, L = A.T @ B, B.T @ B
    value = -jnp.trace(L) / 2
    V0, SV0, L0, values0, A0 = still((V, SV, L, values, A))
    fine = jnp.all(jnp.isfinite(V0))
    off = jnp.max(jnp.abs(SV0 - V0 @ L0))
    primal = jnp.max(jnp.abs(V0.T @ V0 - jnp.eye(k, dtype=X.dtype)))
    scale = float(jnp.finfo(X.dtype).eps) ** 0.5
    met = (off <= scale * values0[0]) & (primal <= scale)
    status = jnp.where(met, int(Status.CONVERGED), int(Status.STALLED))
    status = jnp.where(fine, status, int(Status.NONFINITE)).astype(jnp.int32)
    whole = jnp.sum(A0 * A0)
    after = values0[k] if k < values0.shape[0] else jnp.zeros((), X.dtype)
    push = V0.T @ SV0
    state = PCAState(
        values0[:k], values0[:k] / jnp.where(whole > 0, whole, 1), still(mean),
        values0[k - 1] - after, jnp.max(jnp.abs(push - push.T)),
    )  # fmt: skip
    nothing = jnp.zeros_like(off)
    return Solution(
        x=jnp.where(fine, V, 0),
        value=value,
        aux=None,
        multipliers=Multipliers(eq=L),
        status=status,
        success=status == int(Status.CONVERGED),
        steps=jnp.int32(1),
        residuals=Residuals(off, primal, nothing, nothing),
        history=None,
        state=state,
    )


class Factors(NamedTuple):
    """X is about weights @ parts, both >= 0: (n, k) and (k, p)."""

    weights: Array
    parts: Array


@dataclasses.dataclass(frozen=True)
class _Misfit:
    """||X - W H||^2 / (2 n p) + penalty/2 (||W||^2 / n + ||H||^2 / p)."""

    def __call__(self, x: Factors, X: Array, penalty: Array) -> Array:
        W, H = x
        return jnp.mean((X - W @ H) ** 2) / 2 + penalty / 2 * (
            jnp.sum(W * W) / W.shape[0] + jnp.sum(H * H) / H.shape[1]
        )


def nmf(
    X: ArrayLike,
    components: int,
    *,
    penalty: ArrayLike = 0.0,
    x0: Factors | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise ||X - WH||^2 / (2np) + penalty/2 (||W||^2/n + ||H||^2/p), W, H >= 0.

    By `LBFGSB`, from the parts of the singular vectors that are positive. Not convex: what is
    found is a KKT point, `multipliers.lower` the prices of entries that are held at 0; not unique
    without penalty, since W D, D^-1 H is as good for a diagonal D > 0. With one, derivatives are
    those of the KKT point where it is isolated.

    Args:
        X: (n, p), >= 0.
        components: k.
        penalty: >= 0.
        x0: `Factors(weights (n, k), parts (k, p))` to start from.
        tol: of the projected gradient. None: 1e-6.
        max_steps: None: 10,000.

    Returns a `Solution`: x is `Factors`. Raises ValueError for negative entries and more components
    than the smaller side of X. Source: Lee & Seung (1999); Boutsidis & Gallopoulos (2008).

    """
    X = rows(X)
    k = check.count("`components`", components)
    if k > min(X.shape):
        raise ValueError(f"`components` must be at most {min(X.shape)}, but {k} came.")
    if known(X) and float(jnp.min(X)) < 0:
        raise ValueError(f"`X` must be >= 0 everywhere, but {float(jnp.min(X))!r} came.")
    start = _positive_parts(X, k) if x0 is None else x0
    args = (X, jnp.asarray(penalty, X.dtype))
    tol = 1e-6 if tol is None else tol
    return solve(_FACTORING, start, args, LBFGSB(), tol=tol, max_steps=max_steps)


def _not_negative(X: Array, penalty: Array) -> tuple[float, None]:
    return 0.0, None


_FACTORING = Problem(_Misfit(), bounds=_not_negative)  # one object: its traces are kept with it


@functools.partial(jax.jit, static_argnums=(1,))
def _positive_parts(X: Array, k: int) -> Factors:
    """Of each pair of singular vectors the larger of the positive and the negative part."""
    U, s, Vt = jnp.linalg.svd(jax.lax.stop_gradient(X), full_matrices=False)

    def one(u, size, v):
        above = jnp.maximum(u, 0), jnp.maximum(v, 0)
        below = jnp.maximum(-u, 0), jnp.maximum(-v, 0)
        sizes = [jnp.sqrt(jnp.sum(a * a) * jnp.sum(b * b)) for a, b in (above, below)]
        a, b = (jnp.where(sizes[0] >= sizes[1], p, q) for p, q in zip(above, below, strict=True))
        root = jnp.sqrt(size * jnp.maximum(sizes[0], sizes[1]))
        norms = [jnp.sqrt(jnp.sum(part * part)) for part in (a, b)]
        return root * a / norms[0], root * b / norms[1]

    W, H = jax.vmap(one)(U.T[:k], s[:k], Vt[:k])
    small = 1e-2 * jnp.sqrt(jnp.mean(X) / k)  # an exact 0 would be a start on the bound
    return Factors(jnp.maximum(W.T, small), jnp.maximum(H, small))


# -- neural collapse ------------------------------------------------------------------------------


class Collapse(NamedTuple):
    """What collapses, each 0 at a simplex equiangular tight frame.

    `within`, spread of features about their class's mean, relative to that of the means; `frame`,
    ||G / ||G|| - F / ||F|||| of the Gram matrix G of the centred means, F = I - 1 1'/K; `duality`,
    distance of W / ||W|| from the means M / ||M||.
    """

    within: Array
    frame: Array
    duality: Array


class Unconstrained(NamedTuple):
    """A last layer `weights` (K, d), `bias` (K,), and free features (K, per_class, d)."""

    weights: Array
    bias: Array
    features: Array


@dataclasses.dataclass(frozen=True)
class _CrossEntropy:
    """Cross-entropy of W h + b, and penalties on W, h and b."""

    def __call__(self, x: Unconstrained, penalties: Array) -> Array:
        K, m, _ = x.features.shape
        z = jnp.einsum("kmd,cd->kmc", x.features, x.weights) + x.bias
        own = jnp.einsum("kmk->km", z)
        loss = jnp.mean(jax.nn.logsumexp(z, axis=-1) - own)
        squares = jnp.stack(
            [jnp.sum(x.weights**2), jnp.sum(x.features**2) / (K * m), jnp.sum(x.bias**2)]
        )
        return loss + penalties @ squares / 2


_FEATURES = Problem(_CrossEntropy())


def neural_collapse(
    classes: int,
    dimension: int,
    *,
    per_class: int = 4,
    penalties: tuple[float, float, float] = (5e-3, 5e-3, 5e-3),
    key: Array | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    """Minimise the cross-entropy of a last layer and its features, both free, and penalised.

    mean over rows of CE(W h + b) + penalties . (||W||^2, mean ||h||^2, ||b||^2) / 2: the model of
    unconstrained features. Not convex, but every local minimum is global: features of a class are
    equal, class means form a simplex equiangular tight frame, W is aligned with them; all else is
    a strict saddle. By `LBFGS` from a random start.

    Args:
        classes: K >= 2.
        dimension: d >= K - 1, of the features.
        per_class: rows of a class.
        penalties: of weights, features and bias, > 0.
        key: of the random start. None: `jax.random.key(0)`.
        tol: of the gradient. None: 1e-7, in float32 sqrt(eps).
        max_steps: None: 10,000.

    Returns a `Solution`: x is `Unconstrained`, `aux` a `Collapse`. Raises ValueError for d < K - 1,
    where there is no such frame, and penalties that are not positive.
    Source: Zhu et al. (2021), theorems 3.1 and 3.2.

    """
    K = check.count("`classes`", classes)
    d, m = check.count("`dimension`", dimension), check.count("`per_class`", per_class)
    if K < 2 or d < K - 1:
        raise ValueError(
            f"`dimension` must be at least `classes` - 1 and `classes` at least 2, but {d} and {K} "
            "came: a simplex of K points needs K - 1 dimensions."
        )
    if known(penalties) and not np.all(np.asarray(penalties) > 0):
        raise ValueError(
            f"`penalties` must be > 0, but {penalties!r} came: else nothing is finite."
        )
    keys = jax.random.split(jax.random.key(0) if key is None else key, 2)
    start = Unconstrained(
        jax.random.normal(keys[0], (K, d)) / np.sqrt(d),
        jnp.zeros(K),
        jax.random.normal(keys[1], (K, m, d)) / np.sqrt(d),
    )
    dtype = start.weights.dtype
    if tol is None:
        tol = 1e-7 if dtype.itemsize > 4 else float(jnp.finfo(dtype).eps) ** 0.5
    args = (jnp.asarray(penalties, dtype),)
    found = solve(_FEATURES, start, args, LBFGS(), tol=tol, max_steps=max_steps)
    return dataclasses.replace(found, aux=_collapse(still(found.x)))


@jax.jit
def _collapse(x: Unconstrained) -> Collapse:
    means = jnp.mean(x.features, 1)
    K, dtype = means.shape[0], means.dtype
    M = means - jnp.mean(means, 0)

    def unit(A):
        return A / jnp.sqrt(jnp.sum(A * A))

    spread = jnp.sum((x.features - means[:, None]) ** 2) / x.features.shape[1]
    frame = jnp.eye(K, dtype=dtype) - jnp.ones((K, K), dtype) / K
    W = x.weights - jnp.mean(x.weights, 0)
    distance = [unit(M @ M.T) - unit(frame), unit(W) - unit(M)]
    off = [jnp.sqrt(jnp.sum(A * A)) for A in distance]
    return Collapse(spread / jnp.sum(M * M), *off)
