"""Broyden's method in compact form, on equations that the first Jacobian has made near identity."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array, lax

from ...core import check, solver, static
from ...linalg import choose
from .newton import Factors, guarded_lu
from .residual_search import Direction, ResidualSearch

JACOBIANS = ("restarts", "start", "never")


class BroydenMemory(NamedTuple):
    """The last m steps, each divided by its length: oldest first, unused rows zero."""

    steps: Array  # S (m, n)
    changes: Array  # Y (m, n), of G = P F
    factors: Any  # of P^-1, a Jacobian; () where P is the identity


@solver()
class Broyden(ResidualSearch):
    """Good Broyden: B s = y for the last step, B as before across it; superlinear at the end.

    In compact form, d = -H G with H = I - (Y - S)(M + S'Y)^-1 S', M strictly lower in -S'S, for
    G = P F and P the inverse of a Jacobian, by its factors. A step is one evaluation of F, O(n^2)
    for P and 6 m n. Rejected trials are learnt from too. |F| may rise, by a summable amount, since
    no derivative says which way is down.

    Args:
        memory: number of steps m that are kept; the oldest is dropped.
        jacobian: when F' is evaluated. "restarts": at the start, and where a search fails; in a
            batch that is computed at every step. "start": there only. "never": P is the identity,
            for any n and an F without derivatives; good where F' is near a multiple of it.

    STALLED where a search fails twice. Sources: Byrd, Nocedal & Schnabel (1994), theorem 6.2; Li &
    Fukushima (2000); Nocedal & Wright (2006), section 11.1.

    """

    memory: int = static(default=20)
    jacobian: str = static(default="restarts")
    trials = 6
    bends = True

    def __post_init__(self):
        """Refuse a memory that is no count, and unknown names."""
        object.__setattr__(self, "memory", check.count("Broyden(memory=...)", self.memory))
        if self.jacobian not in JACOBIANS:
            raise ValueError(
                f"Broyden(jacobian=...) must be one of {', '.join(JACOBIANS)}, but "
                f"{self.jacobian!r} came."
            )

    def slack(self, accepted):
        """Summable: 0.1, 0.025, 0.011, ..."""
        return 0.1 / (1 + jnp.maximum(accepted, 0)) ** 2

    def start_memory(self, problem, x, args):
        """No steps; the factors too with "start", before the loop: see `Chord`."""
        n, dtype = x.shape[0], x.dtype
        empty = jnp.zeros((self.memory, n), dtype)
        if self.jacobian == "never":
            return BroydenMemory(empty, empty, ())
        if self.jacobian == "start":
            return BroydenMemory(empty, empty, Factors.at(problem, x, args))
        return BroydenMemory(
            empty, empty, Factors(jnp.eye(n, dtype=dtype), jnp.arange(n, dtype=jnp.int32))
        )

    def turn(self, problem, memory, turn, args):
        """Learn from the last trial, or after a failure forget all; then -H G."""
        factors, fresh = memory.factors, turn.start | turn.failed
        if self.jacobian == "restarts":
            at_x = lambda: Factors.at(problem, turn.x, args)
            factors = lax.cond(fresh, at_x, lambda: factors)
        both = jnp.stack([turn.residual, turn.change], axis=1)
        both = both if self.jacobian == "never" else factors.solve(both)
        g, change = both[:, 0], both[:, 1]
        length = jnp.linalg.norm(turn.step)
        known = jnp.all(jnp.isfinite(change)) & (length > 0) & ~fresh
        scale = 1 / jnp.where(known, length, 1)
        steps = choose(known, _append(memory.steps, scale * turn.step), memory.steps)
        changes = choose(known, _append(memory.changes, scale * change), memory.changes)
        steps, changes = choose(fresh, (0 * steps, 0 * changes), (steps, changes))
        d = -inverse_product(steps, changes, g)
        d = jnp.where(jnp.all(jnp.isfinite(d)), d, 0)
        slope = -(turn.residual @ turn.residual)
        return Direction(d, slope), BroydenMemory(steps, changes, factors)


def inverse_product(steps: Array, changes: Array, v: Array) -> Array:
    """H v, where H is the identity after good Broyden updates with the rows, the first first.

    Rows of zeros change nothing.
    """
    unused = jnp.all(steps == 0, axis=1)
    gram = steps @ steps.T
    small = jnp.diag(unused.astype(v.dtype)) + steps @ changes.T - jnp.tril(gram, -1)
    lu, pivots, _ = guarded_lu(small)
    z = jsl.lu_solve((lu, pivots), steps @ v)
    return v - (changes - steps).T @ z


def _append(rows: Array, row: Array) -> Array:
    """`rows` without the first, and `row` at the end."""
    return jnp.concatenate([rows[1:], row[None]])
