"""Spectra as a whole, from a few random probes: densities, traces, log-determinants.

For a probe z of independent signs, E z'f(A)z = tr f(A). Lanczos from z gives nodes theta and
weights w with sum_i w_i f(theta_i) = z'f(A)z/|z|^2 for polynomials up to degree 2m - 1: Gauss
quadrature for the spectral measure of z. Probes differ, and f is no polynomial: both are reported.

Sources: Golub & Meurant (1994); Ubaru, Chen & Saad (2017); Ghorbani, Krishnan & Xiao (2019);
Hutchinson (1989); Meyer, Musco, Musco & Woodruff (2021); Epperly, Tropp & Webber (2024).
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
from .operators import LinearOperator, _square


class Estimate(NamedTuple):
    """A mean over probes and its standard error (NaN for a single probe)."""

    value: Array
    error: Array


class Density(NamedTuple):
    """The distribution of the eigenvalues, one quadrature rule a probe.

    `nodes` and `weights` (probes, m), weights of a probe adding up to 1; `size` is n. Numbers come
    with standard errors over the probes. `coarse` are nodes and weights of half as many steps.
    """

    nodes: Array
    weights: Array
    size: int
    coarse: tuple[Array, Array] | None = None

    def mean_of(self, fun: Callable[[Array], Array]) -> Estimate:
        """Tr f(A) / n. To the standard error is added what m steps differ from m / 2 by."""
        found = _over_probes(jnp.sum(self.weights * fun(self.nodes), axis=1))
        if self.coarse is None:
            return found
        nodes, weights = self.coarse
        less = jnp.mean(jnp.sum(weights * fun(nodes), axis=1))
        return found._replace(error=jnp.hypot(found.error, found.value - less))

    def trace_of(self, fun: Callable[[Array], Array]) -> Estimate:
        """Tr f(A) with its error, of probes and of the quadrature.

        Of `jnp.log` the log-determinant, of `lambda t: 1 / t` the trace of the inverse, of
        `jnp.sqrt` that of the root, and of `jnp.abs` the sum of |eigenvalues|. Where f is steep
        inside the spectrum, as 1 / t is near zero, more steps are needed.
        """
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
    nodes, weights, *coarse = _rules(operator, steps, probes, key)
    return Density(checked(nodes, nodes), weights, n, tuple(coarse))


@functools.partial(jax.jit, static_argnums=(1, 2))
def _rules(operator: LinearOperator, steps: int, probes: int, key: Array) -> tuple[Array, ...]:
    """Nodes and weights (probes, steps), and those of the first half of the steps."""
    half = (steps + 1) // 2

    def rule(key: Array) -> tuple[Array, ...]:
        z = jax.random.rademacher(key, (operator.domain.size,), operator.dtype)
        space = _lanczos(operator, steps, 1, z, key)
        nodes, inner, _ = space.ritz()
        fewer, coarse = jnp.linalg.eigh(space.projected[:half, :half])
        return nodes, inner[0] ** 2, fewer, coarse[0] ** 2

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
    "xtrace": half of the products find a basis, and each vector in turn is left out of it and
    estimates the rest: what Hutch++ does, with every product used for both; the error is that of
    the mean of estimates that are exchangeable but not independent.

    Args:
        operator: square.
        probes: products altogether, for "hutch++" and "xtrace" at most about the size.
        method: "hutchinson", "hutch++" or "xtrace".
        key: for the probes.

    Sources: Hutchinson (1989); Meyer et al. (2021); Epperly, Tropp & Webber (2024), algorithm 2.

    """
    n = _square(operator).domain.size
    least = {"hutchinson": 2, "hutch++": 6, "xtrace": 4}
    if method not in least:
        raise ValueError(f"`method` must be one of {', '.join(least)}, but {method!r} came.")
    if probes < least[method]:
        raise ValueError(
            f"`probes` must be at least {least[method]} for {method!r}, but is {probes}."
        )
    if method == "xtrace" and probes // 2 >= n:
        raise ValueError(
            f"{method!r} needs fewer than 2 * {n} probes: take `operator.trace()`, which is exact."
        )
    key = jax.random.key(0) if key is None else key
    estimates, known = _traces(operator, probes, method, key)
    rest = _over_probes(estimates)
    return checked(Estimate(known + rest.value, rest.error), rest.value)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _traces(operator: LinearOperator, probes: int, method: str, key: Array) -> tuple[Array, Array]:
    """Estimates (k,) of a part of the trace, and the rest of it."""
    n, apply = operator.domain.size, operator.linear()
    signs = lambda key, k: jax.random.rademacher(key, (k, n), operator.dtype)
    many = lambda rows: lax.map(apply, rows)
    zero = jnp.zeros((), operator.dtype)
    if method == "hutchinson":
        z = signs(key, probes)
        return jnp.sum(z * many(z), axis=1), zero
    one, two = jax.random.split(key)
    if method == "hutch++":
        k = min(probes // 3, n)
        basis = jnp.linalg.qr(many(signs(one, k)).T)[0].T  # (k, n) rows
        g = signs(two, probes - 2 * k)
        g = g - (g @ basis.T) @ basis
        return jnp.sum(g * many(g), axis=1), jnp.sum(basis * many(basis))
    x = _leave_one_out(operator, probes // 2, one)
    return x.traces, zero


class _LeftOut(NamedTuple):
    """Signs, Q with A Q, and for each i a unit vector s_i: Q Q' - (Q s_i)(Q s_i)' leaves out i."""

    signs: Array  # (k, n)
    basis: Array  # Q' (k, n)
    images: Array  # (A Q)' (k, n)
    turned: Array  # S (k, k), columns s_i
    products: Array  # A z_i (k, n)

    @property
    def traces(self) -> Array:
        """Tr of A within the basis without i, and what z_i says of the rest: (k,)."""
        k, n = self.signs.shape
        h = self.basis @ self.images.T  # Q'AQ
        s = self.turned
        within = jnp.trace(h) - jnp.sum(s * (h @ s), axis=0)
        # z_i less its part in the basis without i, made as long as the space left asks for.
        outside = self.signs - self._inside(self.signs)
        length = jnp.sum(outside * outside, axis=1)
        scale = (n - k + 1) / length
        # u'A u = z'A u - (P z)'A u, A P z from the images of Q.
        left = self.products - self._inside_images(self.signs)
        return within + scale * jnp.sum(outside * left, axis=1)

    def _weights(self, z: Array) -> Array:
        """Coordinates in Q of z_i's part in the basis without i, rows (k, k)."""
        w = z @ self.basis.T
        along = jnp.sum(w * self.turned.T, axis=1)
        return w - along[:, None] * self.turned.T

    def _inside(self, z: Array) -> Array:
        return self._weights(z) @ self.basis

    def _inside_images(self, z: Array) -> Array:
        return self._weights(z) @ self.images


def _leave_one_out(operator: LinearOperator, k: int, key: Array) -> _LeftOut:
    """The sketch of XTrace and XDiag, by 2 k products.

    With A Z = Q R the columns of R^-T, of length 1, are the directions in which range(A Z) without
    its i-th column is smaller than range(Q).
    """
    n, apply = operator.domain.size, operator.linear()
    signs = jax.random.rademacher(key, (k, n), operator.dtype)
    products = lax.map(apply, signs)
    basis, r = jnp.linalg.qr(products.T)
    size = jnp.max(jnp.abs(jnp.diagonal(r)))
    # Where A has fewer than k eigenvalues that are not zero, R is singular but for this.
    tiny = jnp.finfo(operator.dtype).eps * size
    r = r + jnp.diag(jnp.where(jnp.abs(jnp.diagonal(r)) < tiny, tiny, 0))
    inverse = jax.scipy.linalg.solve_triangular(r, jnp.eye(k, dtype=r.dtype))
    turned = inverse.T / jnp.linalg.norm(inverse, axis=1)
    return _LeftOut(signs, basis.T, lax.map(apply, basis.T), turned, products)


def diagonal(
    operator: LinearOperator,
    probes: int = 32,
    method: str = "signs",
    key: Array | None = None,
) -> Estimate:
    """Diag A (n,) from `probes` products, with standard errors.

    "signs": the mean of z * Az over random signs z; the error of entry i is the length of the rest
    of row i over sqrt(probes). "xdiag": half of the products find a basis Q of where A is large,
    whose part of A is exact, and each vector in turn is left out of it and estimates the rest.

    Args:
        operator: square; symmetric for "xdiag".
        probes: products altogether.
        method: "signs" or "xdiag".
        key: for the probes.

    Sources: Bekas, Kokiopoulou & Saad (2007); Epperly, Tropp & Webber (2024), section 2.4.

    """
    n = _square(operator).domain.size
    if method not in ("signs", "xdiag"):
        raise ValueError(f"`method` must be 'signs' or 'xdiag', but {method!r} came.")
    if method == "xdiag" and not (operator.symmetric and 4 <= probes < 2 * n):
        raise ValueError(
            f"'xdiag' takes a symmetric operator and from 4 to {2 * n - 1} probes; beyond that "
            "`operator.diagonal()` is exact."
        )
    key = jax.random.key(0) if key is None else key
    samples = _diagonals(operator, probes, method, key)
    return checked(_over_probes(samples), samples)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _diagonals(operator: LinearOperator, probes: int, method: str, key: Array) -> Array:
    if method == "signs":
        z = jax.random.rademacher(key, (probes, operator.domain.size), operator.dtype)
        return z * lax.map(operator.linear(), z)
    x = _leave_one_out(operator, probes // 2, key)
    # P_i A, P_i the projection on the basis without i: its diagonal, and z_i * (A - P_i A) z_i.
    whole = jnp.sum(x.basis * x.images, axis=0)
    lost = (x.turned.T @ x.basis) * (x.turned.T @ x.images)
    rest = x.products - _project_out(x)
    return whole - lost + x.signs * rest


def _project_out(x: _LeftOut) -> Array:
    """P_i A z_i, rows (k, n)."""
    w = x.products @ x.basis.T
    along = jnp.sum(w * x.turned.T, axis=1)
    return (w - along[:, None] * x.turned.T) @ x.basis


def _over_probes(samples: Array) -> Estimate:
    """Mean and standard error over the first axis."""
    count = samples.shape[0]
    mean = jnp.mean(samples, axis=0)
    if count == 1:
        return Estimate(mean, jnp.full_like(mean, jnp.nan))
    return Estimate(mean, jnp.std(samples, axis=0, ddof=1) / count**0.5)
