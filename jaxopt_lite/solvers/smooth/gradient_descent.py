"""Gradient descent: with a fixed step, or with Barzilai-Borwein steps and backtracking."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ...core import check, solver
from ...linalg import choose
from .first_order import FirstOrder
from .line_search import LineSearch, first_length, first_scale


@solver()
class FixedStep(FirstOrder):
    """x <- x - t grad f(x), t constant.

    For f with Hessian eigenvalues in [mu, L]: converges if 0 < t < 2/L; at t = 2/(L + mu) the error
    falls by (kappa - 1)/(kappa + 1) a step, kappa = L/mu. Source: Nesterov (2018), theorem 2.1.15.
    Ends DIVERGED, NONFINITE or MAX_STEPS when the step is too long.

    Args:
        step_size: t > 0, in units of x per unit of the gradient; a leaf, so `vmap` sweeps it.

    """

    step_size: ArrayLike
    constant = True

    def __post_init__(self):
        """Refuse a step that goes up or nowhere."""
        if isinstance(self.step_size, (int, float, np.ndarray, np.generic, jax.Array, str)):
            way_out = "2/(L + mu) is the best for curvatures between mu and L."
            check.number(
                "FixedStep(step_size=...)", self.step_size, 0.0, strict=True, way_out=way_out
            )

    def move(self, problem, memory, x, value, gradient, args):
        """-t g."""
        return -(self.step_size * gradient), memory


class Curvature(NamedTuple):
    """The Barzilai-Borwein step, 0 before the first pair."""

    scale: Array


@solver()
class GradientDescent(LineSearch):
    """x <- x - t grad f(x), t by Barzilai and Borwein with a nonmonotone backtracking search.

    t = s's / s'y from the last step s and gradient change y, halved or interpolated until f falls
    below an average of its past values. No parameter to set; converges for every smooth f bounded
    below, R-linearly when strongly convex, and much faster than a fixed step when ill-conditioned.
    Sources: Barzilai & Borwein (1988); Zhang & Hager (2004).
    """

    curvature = None
    averaging = 0.85

    def start_memory(self, x):
        """No pair yet."""
        return Curvature(first_length(x))

    def remember(self, memory, pair, accept):
        """S's / s'y; where that is not positive, a longer step than the last."""
        longer = memory.scale * jnp.maximum(4, pair.step)
        scale = choose(pair.sy > 0, pair.s @ pair.s / pair.sy, longer)
        scale = choose(accept, scale, memory.scale)
        return Curvature(choose(pair.number < 0, first_scale(memory.scale, pair.y @ pair.y), scale))

    def direct(self, memory, gradient):
        """-t g."""
        return -memory.scale * gradient
