"""Limited-memory BFGS in compact form, its triangular inverse kept up to date column by column."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...core import check, solver, static
from ...linalg import choose
from .line_search import LineSearch, first_length, first_scale


class LBFGSMemory(NamedTuple):
    """The last m pairs, in slots that are reused in turn; an empty slot holds zeros."""

    steps: Array  # S (m, n), rows s_i
    changes: Array  # Y (m, n), rows y_i
    inverse: Array  # R^-1 (m, m), where R_ij = s_i'y_j for pair i not younger than j, else 0
    diagonal: Array  # D (m,), s_i'y_i
    scale: Array  # gamma, the inverse curvature in unseen directions
    slot: Array  # where the next pair goes; unsigned, so that it needs no wrapping around


@solver()
class LBFGS(LineSearch):
    """Limited-memory BFGS with a Wolfe search, one evaluation of f and grad f a step.

    d = -H g with H = V' gamma V + S' R^-T D R^-1 S and V = I - Y' R^-1 S; rows of S, Y are pairs.
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
        square, slot = jnp.zeros((m, m), dtype), jnp.zeros((), jnp.uint32)
        return LBFGSMemory(pairs, pairs, square, jnp.zeros(m, dtype), first_length(x), slot)

    def remember(self, memory, pair, accept):
        """Put (s, y) into the next slot, in place of the oldest pair, unless s'y <= 0."""
        s, y, sy, slot = pair.s, pair.y, pair.sy, memory.slot
        bent, yy = accept & (sy > 0), y @ y
        here = jnp.arange(self.memory, dtype=jnp.uint32) == slot
        here = here.astype(y.dtype)
        kept = 1 - here  # the other slots
        column = (here - kept * (memory.inverse @ (kept * (memory.steps @ y)))) / sy
        inverse = memory.inverse * jnp.outer(kept, kept) + jnp.outer(column, here)
        unbent = choose(accept, memory.scale * jnp.maximum(2, pair.step), memory.scale)
        unbent = choose(pair.first, first_scale(memory.scale, yy), unbent)
        return LBFGSMemory(
            steps=_put(memory.steps, s, slot, bent),
            changes=_put(memory.changes, y, slot, bent),
            inverse=choose(bent, inverse, memory.inverse),
            diagonal=choose(bent, memory.diagonal * kept + sy * here, memory.diagonal),
            scale=choose(bent, sy / yy, unbent),
            slot=choose(bent, choose(slot == self.memory - 1, 0, slot + 1), slot),
        )

    def direct(self, memory, gradient):
        """-H g."""
        p = memory.inverse @ (memory.steps @ gradient)
        z = p @ memory.changes - gradient
        q = (memory.diagonal * p + memory.scale * (memory.changes @ z)) @ memory.inverse
        return memory.scale * z - q @ memory.steps


def _put(rows: Array, row: Array, slot: Array, keep: Array) -> Array:
    """`rows` with `row` in a slot if `keep`; in place inside a loop."""
    old = lax.dynamic_slice_in_dim(rows, slot, 1)
    return lax.dynamic_update_slice_in_dim(rows, choose(keep, row[None], old), slot, 0)
