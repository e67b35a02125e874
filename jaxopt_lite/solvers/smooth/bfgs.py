"""BFGS with a dense inverse Hessian, kept as a product so that rounding cannot spoil it."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...core import solver
from ...linalg import choose
from .line_search import LineSearch, first_length, first_scale


class BFGSMemory(NamedTuple):
    """J (n, n) with H = J J'; before the first pair H is a guess, a multiple of the identity."""

    factor: Array
    guess: Array


@solver()
class BFGS(LineSearch):
    """BFGS with a Wolfe search, d = -H g, one evaluation of f and grad f a step.

    H is the inverse Hessian as far as steps s and gradient changes y tell, H y = s. It is kept as
    J J', J <- J - s (J'y - r z)'/s'y with z = J^-1 s and r = sqrt(s'y)/|z|, so it is positive
    semidefinite whatever the rounding; a pair with s'y <= 0 is left out. At the first pair H is
    (s's/s'y) I. Superlinear near a minimiser with positive definite Hessian. First-order: it can
    stop at a saddle point if it starts on one. Memory n^2, 5n^2 multiplications a step: for up to a
    few hundred variables; `LBFGS` for more.

    Sources: Nocedal & Wright (2006), section 6.1; Brodlie, Gourlay & Greenstadt (1973).
    """

    def start_memory(self, x):
        """No pair yet."""
        return BFGSMemory(jnp.eye(x.shape[0], dtype=x.dtype), jnp.array(True))

    def learn(self, problem, memory, pair, x, gradient, accept, args):
        """The update, where s'y > 0 tells of curvature."""
        s, y, sy = pair.s, pair.y, pair.sy
        here = lax.stop_gradient(gradient)
        eye = jnp.eye(s.shape[0], dtype=s.dtype)
        # 0.6 max(1, |x|) at first: 10, as L-BFGS goes, costs a sixth more evaluations here, and 1
        # leads from x to the origin, where symmetric functions are stationary.
        first = first_scale(0.06 * first_length(lax.stop_gradient(x)), y @ y)

        bent = (sy > 0) & jnp.isfinite(y @ y)
        safe = jnp.where(bent, sy, 1)
        # z = J^-1 s = -t J'g, unless the search had turned to -g, J being of no use: start over.
        z = -pair.step * ((here - y) @ memory.factor)
        ours = jnp.abs(z @ z + s @ (here - y) * pair.step) <= 0.1 * (z @ z)
        ours = ours & ~memory.guess & (z @ z > 0)
        scale = jnp.sqrt(s @ s / safe)
        old = jnp.where(ours, memory.factor, scale * eye)
        z = jnp.where(ours, z, s / jnp.where(bent, scale, 1))
        length = jnp.sqrt(z @ z)
        change = y @ old - jnp.sqrt(safe) / jnp.where(length > 0, length, 1) * z
        updated = old - s[:, None] * (change / safe)
        # Without curvature up to a step t > 1, steps were too short: H grows.
        grown = jnp.sqrt(jnp.maximum(1, pair.step)) * memory.factor
        factor = jnp.where(bent, updated, grown)
        start = pair.number < 0
        factor = jnp.where(start, jnp.sqrt(first) * eye, factor)
        known = BFGSMemory(factor, start | (memory.guess & ~bent))
        return choose(accept, known, memory)

    def direct(self, memory, gradient):
        """-J J'g."""
        return -(memory.factor @ (gradient @ memory.factor))
