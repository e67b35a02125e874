"""Maximum entropy, softmax and attention: one story, told by Lagrange multipliers.

maximise entropy subject to moments    p = exp(features theta - log Z), theta the multipliers
without moments: uniform; with scores as a reward: softmax; with squares for entropy: sparsemax
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.core import Tracer
from jax.typing import ArrayLike

from ..core import Multipliers, Problem, Residuals, Solution, Status, check, solve
from ..prox.arguments import array
from ..prox.polyhedra import simplex
from ..solvers import Newton
from ._data import finite, known, matching, rows, still

MAX_STEPS = 200
REGULARIZERS = ("entropy", "squares")


class EntropyState(NamedTuple):
    """What is known of a distribution of largest entropy.

    `natural` theta (d,), the Gibbs form p_i = prior_i exp(phi_i'theta - log_partition); `entropy`
    -sum p log p, at most log m, that of the uniform distribution; `gap`, the value less that of the
    dual; `direction` d (d,) and `separation` m'd - max_i phi_i'd, d = theta / ||theta||: > 0 proves
    that no distribution has the moments m.
    """

    natural: Array
    log_partition: Array
    entropy: Array
    gap: Array
    direction: Array
    separation: Array


@dataclasses.dataclass(frozen=True)
class _LogPartition:
    """log sum_i prior_i exp(phi_i'theta) - theta'm: the dual, whose Hessian is cov(phi)."""

    def __call__(self, theta: Array, features: Array, moments: Array, base: Array) -> Array:
        return jax.nn.logsumexp(features @ theta + base) - theta @ moments


_DUAL = Problem(_LogPartition())  # one object: what is traced of it is kept with it


def maximum_entropy(
    features: ArrayLike,
    moments: ArrayLike,
    *,
    prior: ArrayLike | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
) -> Solution:
    r"""Minimise sum_i p_i log(p_i / prior_i) subject to sum_i p_i phi_i = m, sum p = 1, p >= 0.

    With a uniform prior: maximise the entropy. The answer is p_i = prior_i exp(phi_i'theta) / Z,
    where theta minimises the dual log Z(theta) - theta'm, by Newton's method: its gradient is
    E phi - m, its Hessian the covariance of phi. n d^2 a step.

    Args:
        features: phi, (n, d), one row a state.
        moments: m, (d,).
        prior: (n,), > 0. None: uniform.
        tol: CONVERGED means that moments are met to `tol`. None: sqrt(eps).
        max_steps: None: 200.

    Returns a `Solution`: x is p (n,), `multipliers.eq` = (-theta, log Z - 1) of moments and sum, so
    that d value / d m = theta; `state` an `EntropyState`. x and value have derivatives of any order
    in features, moments and prior. Moments that no distribution has
    are PRIMAL_INFEASIBLE, with a direction that proves it; on the border of what is possible
    theta grows for ever, and the status is that of Newton's method.

    Raises TypeError or ValueError for shapes that do not fit and priors that are not positive.
    Source: Jaynes (1957); Wainwright & Jordan (2008), section 3.

    """
    phi = rows(features, "features")
    n, d = phi.shape
    m = array("`moments`", moments, 1, "One number a column of `features`.").astype(phi.dtype)
    finite("`moments`", m)
    if m.shape != (d,):
        raise ValueError(
            f"`moments` must have one entry for each of the {d} features, but its shape is "
            f"{m.shape}."
        )
    if prior is None:
        base = jnp.full(n, -jnp.log(jnp.asarray(n, phi.dtype)))
    else:
        weight = array("`prior`", prior, 1, "One number a state.").astype(phi.dtype)
        matching("prior", weight, phi)
        if known(weight) and not np.all(np.asarray(weight) > 0):
            raise ValueError(
                f"`prior` must be > 0 everywhere, but {float(jnp.min(weight))!r} came. Leave such "
                "states out."
            )
        base = jnp.log(weight / jnp.sum(weight))
    check.options(tol, max_steps, False, "implicit")
    steps = MAX_STEPS if max_steps is None else int(max_steps)
    found = solve(
        _DUAL, jnp.zeros(d, phi.dtype), (phi, m, base), Newton(), tol=tol,
        max_steps=steps,
    )  # fmt: skip
    return _distribution(found, phi, m, base)


@jax.jit
def _distribution(found: Solution, phi: Array, m: Array, base: Array) -> Solution:
    theta = found.x
    scores = phi @ theta + base
    log_partition = jax.nn.logsumexp(scores)
    p = jnp.exp(scores - log_partition)
    value = theta @ m - log_partition  # the dual's, which by the envelope has the right derivative
    theta0, scores0, log0, p0, phi0, m0, base0 = still(
        (theta, scores, log_partition, p, phi, m, base)
    )
    logs = scores0 - log0
    primal = jnp.sum(p0 * (logs - base0))
    length = jnp.sqrt(theta0 @ theta0)
    aim = theta0 / jnp.where(length > 0, length, 1)
    separation = m0 @ aim - jnp.max(phi0 @ aim)
    size = jnp.max(jnp.abs(phi0)) + jnp.max(jnp.abs(m0))
    none = separation > float(jnp.finfo(p.dtype).eps) ** 0.5 * size
    status = jnp.where(none, int(Status.PRIMAL_INFEASIBLE), found.status).astype(jnp.int32)
    off = jnp.max(jnp.abs(p0 @ phi0 - m0))
    nothing = jnp.zeros_like(off)
    state = EntropyState(theta0, log0, -jnp.sum(p0 * logs), primal - still(value), aim, separation)
    return dataclasses.replace(
        found,
        x=p,
        value=value,
        multipliers=Multipliers(eq=(-theta, log_partition - 1)),
        status=status,
        success=status == int(Status.CONVERGED),
        residuals=Residuals(nothing, off, nothing, nothing),
        state=state,
    )


def simplex_argmax(
    scores: ArrayLike, temperature: ArrayLike = 1.0, *, regularizer: str = "entropy"
) -> Solution:
    r"""Maximise s'p + T H(p) over the simplex: softmax(s / T); or with squares for H: sparsemax.

    As a minimisation: -s'p + T sum p log p ("entropy"), or -s'p + T/2 ||p||^2 ("squares"), subject
    to sum p = 1, p >= 0. Closed forms: p = exp(s / T) / Z, and the projection of s / T.

    Args:
        scores: s, (..., m): one problem for each of the leading axes.
        temperature: T > 0.
        regularizer: "entropy" or "squares".

    Returns a `Solution`: x (..., m); `multipliers.eq` (...) of the sum, T (log Z - 1) for softmax,
    and `multipliers.lower` (..., m) of p >= 0: 0 for softmax, for sparsemax what a score lacks to
    get weight. `residuals` are those of the KKT conditions, measured. Derivatives of any order in
    scores and temperature: of softmax dp/dT = -p (s - p's) / T^2.

    Raises ValueError for T <= 0 and other regularizers. Source: Martins & Astudillo (2016).

    """
    if not isinstance(scores, (jax.Array, np.ndarray)) or np.ndim(scores) == 0:
        raise TypeError(f"`scores` must be an array (..., m), but {scores!r} came.")
    s = jnp.asarray(scores)
    if not jnp.issubdtype(s.dtype, jnp.floating):
        raise TypeError(f"`scores` must be floating, but it is {s.dtype}.")
    finite("`scores`", s)
    if not isinstance(temperature, Tracer) and not np.all(np.asarray(temperature) > 0):
        raise ValueError(f"`temperature` must be a number > 0, but {temperature!r} came.")
    if regularizer not in REGULARIZERS:
        raise ValueError(
            f"`regularizer` must be one of {', '.join(REGULARIZERS)}, but {regularizer!r} came."
        )
    T = jnp.asarray(temperature, s.dtype)
    if regularizer == "entropy":
        p = jax.nn.softmax(s / T, axis=-1)
        level = T * (jax.nn.logsumexp(s / T, axis=-1) - 1)
        logs = jax.nn.log_softmax(s / T, axis=-1)
        value = -jnp.sum(s * p, -1) + T * jnp.sum(p * logs, -1)
        price = jnp.zeros_like(p)
        slope = -s + T * (logs + 1) + level[..., None]
    else:
        flat = (s / T).reshape(-1, s.shape[-1])
        p = jax.vmap(simplex)(flat).reshape(s.shape)
        on = p > 0
        count = jnp.sum(on, -1).astype(s.dtype)
        level = jnp.sum(jnp.where(on, s - T * p, 0), -1) / count
        value = -jnp.sum(s * p, -1) + T / 2 * jnp.sum(p * p, -1)
        price = jnp.where(on, 0, jnp.maximum(level[..., None] - s, 0))
        slope = -s + T * p + level[..., None] - price
    return _closed_form(p, value, level, price, slope)


def _closed_form(p: Array, value: Array, level: Array, price: Array, slope: Array) -> Solution:
    """A `Solution` whose residuals were measured."""
    fine = jnp.all(jnp.isfinite(p), -1)
    status = jnp.where(fine, int(Status.CONVERGED), int(Status.NONFINITE)).astype(jnp.int32)
    p0, slope0, price0 = still((p, slope, price))
    residuals = Residuals(
        jnp.max(jnp.abs(slope0), -1),
        jnp.maximum(jnp.abs(jnp.sum(p0, -1) - 1), jnp.max(-p0, -1)),
        jnp.max(-price0, -1),
        jnp.max(jnp.abs(price0 * p0), -1),
    )
    return Solution(
        x=p,
        value=value,
        aux=None,
        multipliers=Multipliers(eq=level, lower=price),
        status=status,
        success=fine,
        steps=jnp.ones_like(status),
        residuals=residuals,
        history=None,
        state=None,
    )


def attention(
    queries: ArrayLike,
    keys: ArrayLike,
    values: ArrayLike,
    *,
    temperature: ArrayLike | None = None,
    regularizer: str = "entropy",
) -> Solution:
    """Attention as `simplex_argmax` of the scores q'k for each query: weights x, outputs `aux`.

    Args:
        queries: (n, d).
        keys: (m, d).
        values: (m, v).
        temperature: T > 0. None: sqrt(d), as in transformers.
        regularizer: "entropy", softmax attention; "squares", sparsemax attention.

    Returns a `Solution` of n lanes: x (n, m) the weights, each row the answer of its problem with
    its certificate, `aux` (n, v) = x @ values. Source: Vaswani et al. (2017), section 3.2.

    """
    Q, K, V = rows(queries, "queries"), rows(keys, "keys"), rows(values, "values")
    if Q.shape[1] != K.shape[1] or K.shape[0] != V.shape[0]:
        raise ValueError(
            "`queries` (n, d), `keys` (m, d) and `values` (m, v) must match, but their shapes are "
            f"{Q.shape}, {K.shape} and {V.shape}."
        )
    T: Any = float(np.sqrt(Q.shape[1])) if temperature is None else temperature
    found = simplex_argmax(Q @ K.T, T, regularizer=regularizer)
    return dataclasses.replace(found, aux=found.x @ V)
