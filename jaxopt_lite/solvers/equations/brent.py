"""Brent's method: inverse quadratic interpolation in a bracket, bisection when that is too slow."""

import math

import jax.numpy as jnp
from jax.typing import ArrayLike

from ...core import solver
from .bracket import BracketSkeleton


@solver(accepts={"bounds"})
class Brent(BracketSkeleton):
    """Interpolate through the last three points, or bisect: order 1.6 to 1.8 at simple roots.

    An interpolated step is taken if it stays well inside the bracket and is less than half the step
    before last; so at worst the square of bisection's steps are needed, which is never seen.

    Args:
        width: as for `Bisection`.

    Source: Brent (1973), ch. 4, procedure zero.

    """

    width: ArrayLike = math.inf

    def start_memory(self, bracket):
        """(the last step d, the one before e)."""
        return bracket.width, bracket.width

    def propose(self, memory, bracket, newest, old, f_old):
        """Brent's legend: b is best, c opposite, a the best before; m half the way from b to c."""
        last, before = memory
        swapped = ~newest.improved
        b, fb = _pick(swapped, newest.other, newest.f_other, newest.x, newest.f)
        c, fc = _pick(swapped, newest.x, newest.f, newest.other, newest.f_other)
        a, fa = _pick(swapped, newest.x, newest.f, old, f_old)
        crossed = newest.other == old  # the newest step went over the root: a is c
        stride = newest.x - old
        d, e = jnp.where(crossed, stride, last), jnp.where(crossed, stride, before)

        eps = jnp.finfo(b.dtype).eps
        wanted = jnp.where(bracket.width > self.width, self.width, 0).astype(b.dtype)
        least = eps * jnp.abs(b) + 0.25 * wanted
        m = 0.5 * (c - b)
        s = fb / fa
        q, r = fa / fc, fb / fc
        linear = crossed | swapped
        p = jnp.where(linear, 2 * m * s, s * (2 * m * q * (q - r) - (b - a) * (r - 1)))
        q = jnp.where(linear, 1 - s, (q - 1) * (r - 1) * (s - 1))
        q = jnp.where(p > 0, -q, q)
        p = jnp.abs(p)
        short = (2 * p < 3 * m * q - jnp.abs(least * q)) & (p < jnp.abs(0.5 * e * q))
        useful = (jnp.abs(e) >= least) & (jnp.abs(fa) > jnp.abs(fb)) & short
        step = jnp.where(useful, p / jnp.where(useful, q, 1), m)
        before, last = jnp.where(useful, d, m), step
        far = jnp.abs(step) > least
        return b + jnp.where(far, step, jnp.where(m > 0, least, -least)), (last, before)


def _pick(condition, x, f, y, g):
    """(x, f) where `condition`, else (y, g)."""
    return jnp.where(condition, x, y), jnp.where(condition, f, g)
