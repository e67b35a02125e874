"""Limited-memory BFGS in compact form, its triangular inverse kept up to date column by column."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...core import check, solver, static
from ...linalg import choose
from .line_search import LineSearch, first_length, first_scale


class LBFGSMemory(NamedTuple):
    """The last m pairs, scaled to s_i'y_i = 1, in slots reused in turn; an empty slot is zeros."""

    steps: Array  # S (m, n), rows s_i / sqrt(s_i'y_i)
    changes: Array  # Y (m, n), rows y_i / sqrt(s_i'y_i)
    inverse: Array  # R^-1 (m, m), where R_ij = s_i'y_j for pair i not younger than j, else 0
    scale: Array  # gamma, the inverse curvature in unseen directions


@solver()
class LBFGS(LineSearch):
    """Limited-memory BFGS with a Wolfe search, one evaluation of f and grad f a step.

    d = -H g with H = V' gamma V + S' R^-T R^-1 S and V = I - Y' R^-1 S; rows of S, Y are pairs.
    A new pair appends a column to R^-1, the oldest takes its row and column along: no triangular
    solve, no loop over pairs, 5mn multiplications a step. Pairs with s'y <= 0 are skipped, so H
    stays positive definite. Superlinear in practice; first-order: it can stop at a saddle point if
    it starts on one. Memory 2mn.

    Args:
        memory: number of pairs m.

    Sources: Byrd, Nocedal & Schnabel (1994), theorem 2.2; Nocedal & Wright (2006), ch. 7.

    """

    memory: int = static(default=10)

    def __post_init__(self):
        """Refuse a memory that is no count."""
        object.__setattr__(self, "memory", check.count("LBFGS(memory=...)", self.memory))

    def start_memory(self, x):
        """No pairs."""
        m, dtype = self.memory, x.dtype
        pairs = jnp.zeros((m, x.shape[0]), dtype)
        return LBFGSMemory(pairs, pairs, jnp.zeros((m, m), dtype), first_length(x))

    def remember(self, memory, pair, accept):
        """Put (s, y) into the next slot, in place of the oldest pair; zeros unless s'y > 0."""
        y, sy = pair.y, pair.sy
        bent, yy = sy > 0, y @ y
        slot = lax.rem(pair.number.astype(jnp.uint32), jnp.uint32(self.memory))
        hit = jnp.arange(self.memory, dtype=jnp.uint32) == slot
        here, others = hit.astype(y.dtype), (~hit).astype(y.dtype)
        shrink = choose(bent, lax.rsqrt(sy), jnp.zeros_like(sy))
        steps = _put(memory.steps, shrink * pair.s, slot, accept)
        changes = _put(memory.changes, shrink * y, slot, accept)
        kept = memory.inverse * _down(others) * _across(others)
        # By S after the change, whose new row meets zeros, so that the old S needs no copy.
        column = here - shrink * jnp.sum(kept * _across(steps @ y), 1)
        inverse = kept + _down(column) * _across(here)
        unbent = memory.scale * jnp.maximum(2, pair.step)
        unbent = choose(pair.number < 0, first_scale(memory.scale, yy), unbent)
        scale = choose(accept, choose(bent, sy / yy, unbent), memory.scale)
        return LBFGSMemory(steps, changes, choose(accept, inverse, memory.inverse), scale)

    def direct(self, memory, gradient):
        """-H g."""
        p = jnp.sum(memory.inverse * _across(memory.steps @ gradient), 1)
        z = p @ memory.changes - gradient
        q = p + memory.scale * (memory.changes @ z)
        return memory.scale * z - jnp.sum(memory.inverse * _down(q), 0) @ memory.steps


# R^-1 is so small that a product fused with what is around it beats a call of BLAS.


def _down(v: Array) -> Array:
    """The square matrix whose columns all are v."""
    return lax.broadcast_in_dim(v, (v.size, v.size), (0,))


def _across(v: Array) -> Array:
    """The square matrix whose rows all are v."""
    return lax.broadcast_in_dim(v, (v.size, v.size), (1,))


def _put(rows: Array, row: Array, slot: Array, keep: Array) -> Array:
    """`rows` with `row` in a slot if `keep`; in place inside a loop."""
    old = lax.dynamic_slice_in_dim(rows, slot, 1)
    return lax.dynamic_update_slice_in_dim(rows, choose(keep, row[None], old), slot, 0)
