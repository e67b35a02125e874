"""Functions that are a sum over the entries of x: their prox is a formula for each entry."""

import jax
import jax.numpy as jnp
from jax import Array

from ..linalg import Form
from .arguments import PyTree, at_least_everywhere, nan_unless, parameters, tree
from .proximable import Proximable, proximable


def _total(form: Form, *terms: PyTree) -> Array:
    """The sum of all entries of pytrees, in the dtype of x."""
    return sum(
        (jnp.sum(leaf.astype(form.dtype)) for leaf in jax.tree.leaves(terms)),
        start=jnp.zeros((), form.dtype),
    )


def soft_threshold(x: Array, threshold: Array) -> Array:
    """sign(x) max(|x| - threshold, 0); its derivative is 1 where |x| > threshold, else 0."""
    return jnp.where(jnp.abs(x) <= threshold, 0, x - jnp.sign(x) * threshold)  # NaN stays NaN


@proximable
class L1(Proximable):
    """sum_i w_i |x_i|, w >= 0: what makes answers sparse.

    prox(x, t) = sign(x) max(|x| - t w, 0), soft thresholding; f* is the indicator of |y_i| <= w_i.
    x_i = 0 is optimal for h + f as long as |dh/dx_i| <= w_i. O(n).
    Source: Parikh & Boyd (2014), section 6.5.2.

    Args:
        weight: w, a number or shaped like x.

    """

    weight: PyTree = 1.0
    separable = True

    def __post_init__(self):
        """Refuse negative weights."""
        at_least_everywhere("L1(weight=...)", self.weight, 0.0)

    def value(self, x):
        """sum_i w_i |x_i|."""
        x = tree("`x`", x)
        weight = self._weights(x)
        return _total(Form.of(x), jax.tree.map(lambda w, a: w * jnp.abs(a), weight, x))

    def prox(self, x, step=1.0):
        """Soft thresholding by step * weight."""
        x = tree("`x`", x)
        steps = parameters("`step`", step, x)
        return jax.tree.map(lambda a, w, t: soft_threshold(a, t * w), x, self._weights(x), steps)

    def conjugate_value(self, y):
        """0 where every |y_i| <= w_i, else infinite."""
        y = tree("`y`", y)
        outside = jax.tree.map(lambda a, w: jnp.any(jnp.abs(a) > w), y, self._weights(y))
        beyond = jnp.any(jnp.stack(jax.tree.leaves(outside)))
        return jnp.where(beyond, jnp.inf, 0).astype(Form.of(y).dtype)

    def nearest_subgradient(self, x, v):
        """W sign(x) where x_i is not 0, elsewhere v clipped to [-w, w]."""
        x, v = tree("`x`", x), tree("`v`", v)
        return jax.tree.map(
            lambda a, b, w: jnp.where(a == 0, jnp.clip(b, -w, w), jnp.sign(a) * w),
            x, v, self._weights(x),
        )  # fmt: skip

    def _weights(self, x):
        return nan_unless(lambda w: w >= 0, parameters("`weight`", self.weight, x))
