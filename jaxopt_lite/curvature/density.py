"""Spectra as a whole, from a few random probes: densities, traces, log-determinants.

For a probe z of independent signs, E z'f(A)z = tr f(A). Lanczos from z gives nodes theta and
weights w with sum_i w_i f(theta_i) = z'f(A)z/|z|^2 for polynomials up to degree 2m - 1: Gauss
quadrature for the spectral measure of z. Probes differ: that is the error, and it is reported.

Sources: Golub & Meurant (1994); Ubaru, Chen & Saad (2017); Ghorbani, Krishnan & Xiao (2019);
Hutchinson (1989); Meyer, Musco, Musco & Woodruff (2021).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import ndtr
from jax.typing import ArrayLike

from .lanczos import _count, _lanczos, _symmetric_size, checked
from .operators import LinearOperator


class Estimate(NamedTuple):
    """A mean over probes and its standard error (NaN for a single probe)."""

    value: Array
    error: Array


class Density(NamedTuple):
    """The distribution of the eigenvalues, one quadrature rule a probe.

    `nodes` and `weights` (probes, m), weights of a probe adding up to 1; `size` is n. Numbers come
    with standard errors over the probes.
    """

    nodes: Array
    weights: Array
    size: int

    def mean_of(self, fun: Callable[[Array], Array]) -> Estimate:
        """Tr f(A) / n."""
        return _over_probes(jnp.sum(self.weights * fun(self.nodes), axis=1))

    def trace_of(self, fun: Callable[[Array], Array]) -> Estimate:
        """Tr f(A): of `jnp.log` the log-determinant, of `lambda t: 1 / t` that of the inverse."""
        mean = self.mean_of(fun)
        return Estimate(self.size * mean.value, self.size * mean.error)

    def at(self, grid: ArrayLike, width: ArrayLike) -> Estimate:
        """The density on `grid` (k,), each node a Gaussian of standard deviation `width`."""
        gap = (jnp.asarray(grid)[:, None, None] - self.nodes) / width
        bumps = jnp.exp(-0.5 * gap * gap) / (width * (2 * jnp.pi) ** 0.5)
        return _over_probes(jnp.sum(self.weights * bumps, axis=-1).T)

    def below(self, grid: ArrayLike, width: ArrayLike = 0.0) -> Estimate:
        """The share of eigenvalues below each point of `grid`; smoothed where `width` > 0."""
        gap = jnp.asarray(grid)[:, None, None] - self.nodes
        steps = jnp.where(gap >= 0, 1.0, 0.0).astype(gap.dtype)
        smooth = ndtr(gap / jnp.where(jnp.asarray(width) > 0, width, 1))
        share = jnp.where(jnp.asarray(width) > 0, smooth, steps)
        return _over_probes(jnp.sum(self.weights * share, axis=-1).T)


def spectral_density(
    operator: LinearOperator, probes: int = 8, steps: int = 64, key: Array | None = None
) -> Density:
    """The density of eigenvalues by stochastic Lanczos quadrature: probes * steps products.

    Near isolated eigenvalues it is exact to rounding; a dense part is resolved to about its width
    over `steps`. Memory steps * n: probes go one after the other.

    Args:
        operator: symmetric.
        probes: random signs; the standard error falls with their root.
        steps: Lanczos steps a probe, at most the size.
        key: for the probes.

    """
    n = _symmetric_size(operator)
    steps = min(_count("steps", min(steps, n), n), n)
    key = jax.random.key(0) if key is None else key
    nodes, weights = _rules(operator, steps, probes, key)
    return Density(checked(nodes, nodes), weights, n)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _rules(operator: LinearOperator, steps: int, probes: int, key: Array) -> tuple[Array, Array]:
    """Nodes and weights (probes, steps)."""

    def rule(key: Array) -> tuple[Array, Array]:
        z = jax.random.rademacher(key, (operator.domain.size,), operator.dtype)
        nodes, inner, _ = _lanczos(operator, steps, 1, z, key).ritz()
        return nodes, inner[0] ** 2

    return lax.map(rule, jax.random.split(key, probes))


def trace(
    operator: LinearOperator,
    probes: int = 32,
    method: str = "hutch++",
    key: Array | None = None,
) -> Estimate:
    """Tr A from `probes` products, with its standard error.

    "hutchinson": the mean of z'Az over random signs z; the error is |A - diag A|_F sqrt(2/probes).
    "hutch++": a third of the products find a basis Q of where A is large, whose part Q'AQ is
    exact, and a third the rest by Hutchinson: error falls like 1/probes where eigenvalues decay.

    Args:
        operator: square.
        probes: products altogether.
        method: "hutchinson" or "hutch++".
        key: for the probes.

    """
    n = operator.domain.size
    if operator.shape[0] != n:
        raise ValueError(f"Only square operators have a trace, but the shape is {operator.shape}.")
    if method not in ("hutchinson", "hutch++"):
        raise ValueError(f"`method` must be 'hutchinson' or 'hutch++', but {method!r} came.")
    least = 2 if method == "hutchinson" else 6
    if probes < least:
        raise ValueError(f"`probes` must be at least {least} for {method!r}, but is {probes}.")
    key = jax.random.key(0) if key is None else key
    signs = lambda key, k: jax.random.rademacher(key, (k, n), operator.dtype)
    many = lambda rows: lax.map(operator.apply, rows)
    if method == "hutchinson":
        z = signs(key, probes)
        return _over_probes(jnp.sum(z * many(z), axis=1))
    k = min(probes // 3, n)
    one, two = jax.random.split(key)
    basis = jnp.linalg.qr(many(signs(one, k)).T)[0].T  # (k, n) rows
    known = jnp.sum(basis * many(basis))
    g = signs(two, probes - 2 * k)
    g = g - (g @ basis.T) @ basis
    rest = _over_probes(jnp.sum(g * many(g), axis=1))
    return Estimate(known + rest.value, rest.error)


def diagonal(operator: LinearOperator, probes: int = 32, key: Array | None = None) -> Estimate:
    """Diag A (n,) as the mean of z * Az over random signs, with standard errors.

    The error of entry i is the length of the rest of row i over sqrt(probes). Source: Bekas,
    Kokiopoulou & Saad (2007).
    """
    n = operator.domain.size
    key = jax.random.key(0) if key is None else key
    z = jax.random.rademacher(key, (probes, n), operator.dtype)
    return _over_probes(z * lax.map(operator.apply, z))


def _over_probes(samples: Array) -> Estimate:
    """Mean and standard error over the first axis."""
    count = samples.shape[0]
    mean = jnp.mean(samples, axis=0)
    if count == 1:
        return Estimate(mean, jnp.full_like(mean, jnp.nan))
    return Estimate(mean, jnp.std(samples, axis=0, ddof=1) / count**0.5)
