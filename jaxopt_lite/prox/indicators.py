"""Indicators of sets, known by their projections, and quadratic functions."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import inertia_tolerance, psd_factor, psd_solve, spectrum
from . import polyhedra
from .arguments import (
    PyTree,
    above,
    at_least_everywhere,
    flat,
    is_number,
    known,
    nan_unless,
    parameter,
    parameters,
    slack,
    tree,
)
from .norms import infinite_unless
from .proximable import Proximable, proximable


def as_partial(label: str, function: Callable) -> jax.tree_util.Partial:
    """A function as a pytree: what `jax.tree_util.Partial` binds are leaves."""
    if not callable(function):
        raise TypeError(f"{label} must be a function, but a {type(function).__name__} came.")
    if isinstance(function, jax.tree_util.Partial):
        return function
    return jax.tree_util.Partial(function)


@proximable
class Indicator(Proximable):
    """0 on a closed convex set, infinite outside, the set being known by its projection.

    prox = the projection, whatever the step. `value` takes points within eps^(3/5) (1 + max|x|) of
    their projection as members: projections are rounded. The cost is that of the projection.

        jol.prox.Indicator(jol.projections.psd_cone)
        jol.prox.Indicator(jax.tree_util.Partial(jol.projections.l1_ball, radius=2.0))

    Args:
        projection: the function x -> nearest point; numbers bound by `jax.tree_util.Partial` are
            leaves, which may be traced, batched and differentiated.

    """

    projection: Callable

    def __post_init__(self):
        """Make the projection a pytree."""
        projection = as_partial("Indicator(projection=...)", self.projection)
        object.__setattr__(self, "projection", projection)

    def value(self, x):
        """0 inside, infinite outside."""
        form, vector = flat(tree("`x`", x))
        away = jnp.max(jnp.abs(vector - form.ravel(self.projection(x))))
        rounding = slack(form.dtype) * (1 + jnp.max(jnp.abs(vector)))
        return infinite_unless(lax.stop_gradient(away <= rounding), lax.stop_gradient(away))

    def prox(self, x, step=1.0):
        """The projection."""
        return self.projection(x)

    @property
    def has_subgradient(self):
        """No: only the limit."""
        return False

    def nearest_subgradient(self, x, v):
        """`v` less its projection on the tangent cone, by a short step; NaN outside."""
        normal = super().nearest_subgradient(x, v)
        outside = self.value(x) != 0
        return jax.tree.map(lambda leaf: jnp.where(outside, jnp.nan, leaf), normal)


@proximable
class Simplex(Proximable):
    """The indicator of x >= 0, sum(x) = total, for vectors (n,).

    prox = `projections.simplex`, O(n log n); f*(y) = total max(y). The sum is met if it is within
    rounding, 4 n eps total.

    Args:
        total: >= 0, a number; 1 for probabilities.

    """

    total: ArrayLike = 1.0

    def __post_init__(self):
        """Refuse a negative total."""
        at_least_everywhere("Simplex(total=...)", self.total, 0.0)

    def value(self, x):
        """0 inside, infinite outside."""
        x, total = self._matched(x)
        rounding = 4 * x.size * jnp.finfo(x.dtype).eps * total
        missed = jnp.abs(jnp.sum(x) - total)
        return lax.stop_gradient(
            infinite_unless(jnp.all(x >= 0) & (missed <= rounding), missed + jnp.sum(x))
        )

    def prox(self, x, step=1.0):
        """The projection."""
        return polyhedra.simplex(x, self.total)

    def conjugate_value(self, y):
        """Total max(y)."""
        y, total = self._matched(y)
        return total * jnp.max(y)

    def nearest_subgradient(self, x, v):
        """One level on the support; v elsewhere, but not above it. NaN outside the set."""
        x, _ = self._matched(x)
        v = jnp.asarray(v, x.dtype)
        inside = self.value(x) == 0
        # The tangent direction nearest to v: that of a simplex, seen from far along the support.
        shifted = v - jnp.max(v)
        far = 2 + 4 * x.size * jnp.max(jnp.abs(shifted))
        support = jnp.where(x > 0, 1, 0).astype(x.dtype)
        count = jnp.sum(support)
        tangent = polyhedra.simplex(shifted + far * support, far * count) - far * support
        normal = jnp.where(count > 0, v - tangent, v)  # total = 0: all directions are normal
        return jnp.where(inside, normal, jnp.nan)

    def _matched(self, x):
        x = polyhedra.array("`x`", x, 1, polyhedra.ROWS)
        return x, nan_unless(above(0.0), parameter("`total`", self.total, x.dtype, ()))


@proximable
class Quadratic(Proximable):
    """x'Px / 2 + q'x, P symmetric positive semidefinite; of any pytree, as one vector (n,).

    prox(x, t) solves (I + t P) p = x - t q by Cholesky and one refinement, O(n^3); f*(y) = r'P^+ r
    / 2, r = y - q, infinite where r is not in the range of P. Smooth: for `Sum`s without a prox
    leave it in the objective. Source: Parikh & Boyd (2014), section 6.1.1.

    Args:
        P: (n, n); its symmetric part counts.
        q: a number or like x.

    """

    P: ArrayLike
    q: PyTree = 0.0

    def __post_init__(self):
        """Refuse what is not square, or not semidefinite."""
        if not is_number(self.P):
            return
        shape = jnp.shape(self.P)
        if len(shape) < 2 or shape[-1] != shape[-2]:
            raise ValueError(f"Quadratic(P=...) must be a square matrix, but its shape is {shape}.")
        if not known(self.P) or len(shape) > 2:
            return
        P = np.asarray(self.P, float)
        values = np.linalg.eigvalsh(P + P.T) / 2
        eps = float(np.finfo(np.result_type(jnp.result_type(self.P), np.float32)).eps)
        if not values[0] >= -10 * len(P) * eps * np.max(np.abs(values)):
            raise ValueError(
                "Quadratic(P=...) must be positive semidefinite, but its least eigenvalue is "
                f"{values[0]:.3g}. A smooth non-convex term belongs into the objective."
            )

    def value(self, x):
        """X'Px / 2 + q'x."""
        _, x, P, q = self._matched("`x`", x)
        return 0.5 * (x @ (P @ x)) + q @ x

    def prox(self, x, step=1.0):
        """(I + step P)^-1 (x - step q)."""
        form, x, P, q = self._matched("`x`", x)
        t = jnp.asarray(step, x.dtype)
        factor, good = psd_factor(jnp.eye(x.size, dtype=x.dtype) + lax.stop_gradient(t * P))
        still = lax.stop_gradient((t, P))

        def solve(_, b):
            first = psd_solve(factor, b)
            rest = b - first - still[0] * (still[1] @ first)
            return jnp.where(good, first + psd_solve(factor, rest), jnp.nan)

        matvec = lambda p: p + t * (P @ p)
        return form.unravel(lax.custom_linear_solve(matvec, x - t * q, solve, symmetric=True))

    def conjugate_value(self, y):
        """r'P^+ r / 2, r = y - q, infinite where r has a part outside the range of P."""
        _, y, P, q = self._matched("`y`", y)
        values, vectors = spectrum(P)
        r = vectors.T @ (y - q)
        zero = values <= inertia_tolerance(values)
        missed = jnp.max(jnp.where(zero, jnp.abs(r), 0))
        half = 0.5 * jnp.sum(jnp.where(zero, 0, r**2 / jnp.where(zero, 1, values)))
        return half + infinite_unless(missed <= slack(y.dtype) * jnp.max(jnp.abs(r)), missed)

    def nearest_subgradient(self, x, v):
        """P x + q."""
        form, x, P, q = self._matched("`x`", x)
        return form.unravel(P @ x + q)

    def _matched(self, name: str, x: PyTree) -> tuple:
        x = tree(name, x)
        form, vector = flat(x)
        P: Array = parameter("`P`", self.P, form.dtype, (form.size, form.size))
        return form, vector, 0.5 * (P + P.T), form.ravel(parameters("`q`", self.q, x))
