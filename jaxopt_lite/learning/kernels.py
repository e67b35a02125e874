"""Kernels: functions of rows A (n, p) and B (m, p) that return their inner products (n, m).

Each is a pytree of its numbers, so that fits have derivatives in them. Any function `(A, B) -> K`
of yours is a kernel too, as long as K(A, A) is symmetric positive semidefinite.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import check
from ..linalg import as_pytree, static

__all__ = ["RBF", "Laplacian", "Linear", "Polynomial"]


@as_pytree
@dataclasses.dataclass(frozen=True)
class Linear:
    """a'b."""

    def __call__(self, A: Array, B: Array) -> Array:
        """(n, m)."""
        return A @ B.T


@as_pytree
@dataclasses.dataclass(frozen=True)
class RBF:
    """exp(-gamma ||a - b||^2), gamma > 0 or (p,), one a feature."""

    gamma: ArrayLike

    def __post_init__(self):
        """Refuse gamma <= 0."""
        check.leaf("RBF(gamma=...)", self.gamma, 0.0, way_out="1 / (p var(X)) is usual.")

    def __call__(self, A: Array, B: Array) -> Array:
        """(n, m)."""
        gamma = jnp.asarray(self.gamma, A.dtype)
        A, B = A * jnp.sqrt(gamma), B * jnp.sqrt(gamma)
        squares = jnp.sum(A * A, 1)[:, None] + jnp.sum(B * B, 1) - 2 * A @ B.T
        return jnp.exp(-jnp.maximum(squares, 0))


@as_pytree
@dataclasses.dataclass(frozen=True)
class Polynomial:
    """(gamma a'b + shift)^degree, gamma > 0, shift >= 0."""

    degree: int = static(default=3)
    gamma: ArrayLike = 1.0
    shift: ArrayLike = 1.0

    def __post_init__(self):
        """Refuse what makes the kernel indefinite."""
        check.count("Polynomial(degree=...)", self.degree)
        check.leaf("Polynomial(gamma=...)", self.gamma, 0.0)
        way_out = "With a negative shift the kernel is indefinite."
        check.leaf("Polynomial(shift=...)", self.shift, 0.0, strict=False, way_out=way_out)

    def __call__(self, A: Array, B: Array) -> Array:
        """(n, m)."""
        gamma, shift = (jnp.asarray(v, A.dtype) for v in (self.gamma, self.shift))
        return (gamma * (A @ B.T) + shift) ** self.degree


@as_pytree
@dataclasses.dataclass(frozen=True)
class Laplacian:
    """exp(-gamma ||a - b||_1), gamma > 0. Row by row: memory n m, not n m p."""

    gamma: ArrayLike

    def __post_init__(self):
        """Refuse gamma <= 0."""
        check.leaf("Laplacian(gamma=...)", self.gamma, 0.0)

    def __call__(self, A: Array, B: Array) -> Array:
        """(n, m)."""
        distances = lax.map(lambda a: jnp.sum(jnp.abs(B - a), 1), A)
        return jnp.exp(-jnp.asarray(self.gamma, A.dtype) * distances)


BUILT_IN = (Linear, RBF, Polynomial, Laplacian)


def gram(kernel: Any, X: Array) -> tuple[Array, bool]:
    """K(X, X), symmetric, and whether it is known to be positive semidefinite."""
    if isinstance(kernel, BUILT_IN):
        return _built_in(kernel, X), True
    if not callable(kernel):
        raise TypeError(
            "`kernel` must be 'precomputed', one of `learning.kernels` or a function (A, B) -> K, "
            f"but {kernel!r} came."
        )
    K = jnp.asarray(kernel(X, X))
    if K.shape != (X.shape[0], X.shape[0]):
        raise ValueError(
            f"`kernel` must return ({X.shape[0]}, {X.shape[0]}) for {X.shape[0]} rows, but its "
            f"shape is {K.shape}."
        )
    return K, False


@jax.jit
def _built_in(kernel: Any, X: Array) -> Array:
    return kernel(X, X)
