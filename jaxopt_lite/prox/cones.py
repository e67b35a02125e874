"""Projections on the Euclidean ball, the second-order cone and the positive semidefinite matrices.

Their boundaries are curved, so the derivative is one of formulas, not of a binding set. Each is the
identity on the closed set; no formula divides by a norm or a difference of eigenvalues that is 0.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import Form, Spectrum, inertia_tolerance, spectrum
from .arguments import PyTree, array, at_least, flat, parameter, parameters, tree, valid


def _norm(v: Array) -> Array:
    """||v||_2 without overflow or underflow; the derivative at 0 is 0."""
    longest = lax.stop_gradient(jnp.max(jnp.abs(v)))
    scale = jnp.where((longest > 0) & (longest < jnp.inf), longest, 1)
    square = jnp.sum((v / scale) ** 2)
    return jnp.where(square > 0, scale * jnp.sqrt(jnp.where(square > 0, square, 1)), 0)


def l2_ball(x: PyTree, radius: ArrayLike = 1.0, centre: PyTree = 0.0) -> PyTree:
    r"""Nearest point with ||p - centre||_2 <= radius, over all entries of a pytree. O(n).

    Outside, with d = x - c and r the radius: p = c + r d / ||d||, dp/dx = r (I - dd'/||d||^2) /
    ||d||. In the closed ball of radius > 0, its centre and its sphere included, the derivative is
    the identity; for radius = 0 it is 0. Smooth elsewhere, to any order.

    Raises ValueError if radius < 0; NaN if it is traced. Source: Parikh and Boyd (2014), 6.2.
    """
    x = tree("`x`", x)
    form, vector = flat(x)
    middle = form.ravel(parameters("`centre`", centre, x))
    size = parameter("`radius`", radius, vector.dtype, ())
    condition = at_least("`radius`", size, 0.0)
    p = form.unravel(_ball(vector, size, middle))
    return valid(p, (vector, size, middle), condition)


@jax.jit
def _ball(x: Array, radius: Array, centre: Array) -> Array:
    offset = x - centre
    length = _norm(offset)
    within = (length <= radius) & (radius > 0)
    # `length` may be 0 outside (radius 0), `radius` infinite within.
    divisor = jnp.where(within | (length == 0), 1, length)
    return jnp.where(within, x, centre + jnp.where(within, 1, radius) * (offset / divisor))


def second_order_cone(x: tuple[ArrayLike, PyTree]) -> tuple[Array, PyTree]:
    r"""Nearest point of {(t, v): ||v||_2 <= t}; `x` is a pair of a number t and a pytree v. O(n).

    x itself if ||v|| <= t, 0 if ||v|| < -t, else s (1, v / ||v||) with s = (t + ||v||) / 2.
    The derivative is the identity on the closed cone, its apex included. Where ||v|| = -t > 0 it is
    that of the third formula, of rank one. Source: Parikh and Boyd (2014), section 6.3.2.
    """
    if not (isinstance(x, tuple | list) and len(x) == 2):
        raise TypeError(
            f"`x` must be a pair (t, v) of a number and an array, but a {type(x).__name__} came. "
            "For one vector with t in front write `(x[0], x[1:])`."
        )
    t, v = tree("`x`", tuple(x))
    if t.shape:
        raise ValueError(
            f"`t` in (t, v) must be a number, but its shape is {t.shape}. Use `jax.vmap`."
        )
    form = Form.of(v)
    t, vector = t.astype(form.dtype), form.ravel(v)
    p, q = _cone(t, vector)
    return p, form.unravel(q)


@jax.jit
def _cone(t: Array, v: Array) -> tuple[Array, Array]:
    length = _norm(v)
    within, polar = length <= t, length < -t
    size = 0.5 * (t + length)
    direction = v / jnp.where(within | polar, 1, length)  # 0 < length where it is used
    p = jnp.where(within, t, jnp.where(polar, 0, size))
    q = jnp.where(within, v, jnp.where(polar, 0, size * direction))
    bad = jnp.where(jnp.isnan(t + length), jnp.nan, 0).astype(q.dtype)
    return p + bad, q + bad


def psd_cone(x: Array) -> Array:
    r"""Nearest symmetric positive semidefinite matrix, in the Frobenius norm: V max(L, 0) V'.

    V L V' is the symmetric part of `x`, (n, n): the rest of it is orthogonal to the cone, and
    dropped. One `eigh`, O(n^3), for value and derivatives.

    Derivative: V (G * (V' dx V)) V' with G_ij = (max(L_i, 0) - max(L_j, 0)) / (L_i - L_j), and for
    L_i = L_j the 1 or 0 it tends to: no eigenvalues need be distinct. Eigenvalues within 10 n eps
    max|L| of 0 count as 0, and for L_i = L_j = 0 the G is 1: the derivative is the identity on the
    closed cone. Higher derivatives are exact too, where X has no eigenvalue 0.

    Source: Higham (1988), theorem 2.1; Malick and Sendov (2006) for the derivative.
    """
    x = array("`x`", x, 2, "For a batch of matrices use `jax.vmap`.")
    if x.shape[0] != x.shape[1]:
        raise ValueError(f"`x` must be a square matrix, but its shape is {x.shape}.")
    return _psd(x)


@jax.jit
def _psd(x: Array) -> Array:
    return _positive_part(0.5 * (x + x.T), spectrum(lax.stop_gradient(x)))


@jax.custom_jvp
def _positive_part(x: Array, spectrum: Spectrum) -> Array:
    """The projection by the eigenvalues of x, which carry no derivative of their own."""
    root = spectrum.vectors * jnp.sqrt(jnp.maximum(spectrum.values, 0))
    return root @ root.T


@_positive_part.defjvp
def _positive_part_jvp(primals, tangents):
    x, spectrum = primals
    p = _positive_part(x, spectrum)
    return p, 0.5 * (tangents[0] + _push_absolute(x, 2 * p - x, spectrum, tangents[0]))


def _push_absolute(x: Array, absolute: Array, spectrum: Spectrum, direction: Array) -> Array:
    """The derivative Y of |X| = V |L| V' along E: |X| Y + Y |X| = X E + E X, from |X|^2 = X^2.

    A linear system, so that derivatives of it come from differentiating X and |X| in it. E is an
    unknown too: then divisions by small |L_i| + |L_j| are of exact numerators.
    """
    values, V = spectrum
    # Eigenvalues that cannot be told from 0 are 0.
    values = jnp.where(jnp.abs(values) <= inertia_tolerance(values), 0, values)
    sums = jnp.abs(values)[:, None] + jnp.abs(values)
    some = sums > 0
    inverse = jnp.where(some, 1 / jnp.where(some, sums, 1), 0)
    sign = jnp.where(some, (values[:, None] + values) * inverse, 1)

    def product(unknown):
        e, y = unknown
        return jnp.stack([e, absolute @ y + y @ absolute - x @ e - e @ x])

    def rotated(weights, matrix):
        return V @ (weights * (V.T @ matrix @ V)) @ V.T

    def solve(_, b):
        return jnp.stack([b[0], rotated(sign, b[0]) + rotated(inverse, b[1])])

    def transpose_solve(_, b):
        return jnp.stack([b[0] + rotated(sign, b[1]), rotated(inverse, b[1])])

    right = jnp.stack([direction, jnp.zeros_like(direction)])
    return lax.custom_linear_solve(product, right, solve, transpose_solve)[1]
