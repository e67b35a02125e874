"""Newton systems with constraints, made positive definite by elimination.

    [[H + shift, A'], [A, -C]] [d, v] = [a, b]   ->   (H + shift + A' C^-1 A) d = a + A' C^-1 b

With C > 0 the matrix on the left has the inertia of a minimum, (n, m, 0), exactly when the one on
the right is positive definite (Haynsworth, 1968), which Cholesky tells.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from .solve import psd_factor, psd_solve

SHIFTS = 40  # attempts; the last are far above any Hessian
REFINEMENTS = 3  # solves with the same factor, each of what the last left over


class KKT(NamedTuple):
    """A factorised system."""

    hessian: Array  # H (n, n), the shift included
    rows: Array  # A (m, n)
    relax: Array  # C (m,) > 0
    units: Array  # (n,), which scale the eliminated matrix to a unit diagonal
    factor: Array  # L (n, n) of that
    shift: Array  # what was added to the diagonal of H; 0 where H bends upwards
    last_shift: Array  # the last that was not 0

    @classmethod
    def blank(cls, n: int, m: int, dtype) -> "KKT":
        """The identity: a place to keep a system in."""
        eye, one, zero = jnp.eye(n, dtype=dtype), jnp.ones(n, dtype), jnp.zeros((), dtype)
        return cls(eye, jnp.zeros((m, n), dtype), jnp.ones(m, dtype), one, eye, zero, zero)


def kkt_factor(hessian: Array, rows: Array, relax: Array, last_shift: Array) -> KKT:
    """Factorise with the least shift, of a growing sequence, that makes the inertia right.

    The sequence is that of Waechter & Biegler (2006), algorithm IC: 0, a third of the last that was
    needed, or 1e-4, then growing. O(m n^2 + n^3) an attempt.
    """
    n = hessian.shape[0]
    eliminated = hessian + (rows.T / relax) @ rows

    def attempt(shift):
        diagonal = jnp.diagonal(eliminated) + shift
        units = jnp.where(diagonal > 0, lax.rsqrt(jnp.where(diagonal > 0, diagonal, 1)), 1)
        shifted = eliminated + shift * jnp.eye(n, dtype=hessian.dtype)
        factor, good = psd_factor(units[:, None] * shifted * units)
        return units, factor, good

    first = jnp.where(last_shift > 0, jnp.maximum(last_shift / 3, 1e-20), 1e-4)
    growth = jnp.where(last_shift > 0, 8, 100).astype(hessian.dtype)

    def going(carry):
        tries, _, (_, _, good) = carry
        return ~good & (tries < SHIFTS)

    def advance(carry):
        tries, shift, _ = carry
        shift = jnp.where(tries < 0, 0, jnp.where(shift > 0, growth * shift, first))
        return tries + 1, shift, attempt(shift)

    zero, one = jnp.zeros_like(last_shift), jnp.ones(n, hessian.dtype)
    nothing = one, jnp.eye(n, dtype=hessian.dtype), jnp.array(False)
    _, shift, (units, factor, _) = lax.while_loop(going, advance, (jnp.int32(-1), zero, nothing))
    shifted = hessian + shift * jnp.eye(n, dtype=hessian.dtype)
    last = jnp.where(shift > 0, shift, last_shift)
    return KKT(shifted, rows, relax, units, factor, shift, last)


def kkt_solve(system: KKT, a: Array, b: Array) -> tuple[Array, Array]:
    """(d, v), refined on the system before elimination, whose rounding C^-1 magnifies."""
    hessian, rows, relax, units, factor, *_ = system

    def improve(_, carry):
        d, v = carry
        top = a - hessian @ d - v @ rows
        bottom = b - rows @ d + relax * v
        step = units * psd_solve(factor, units * (top + (bottom / relax) @ rows))
        return d + step, v + (rows @ step - bottom) / relax

    return lax.fori_loop(0, REFINEMENTS, improve, (jnp.zeros_like(a), jnp.zeros_like(b)))
