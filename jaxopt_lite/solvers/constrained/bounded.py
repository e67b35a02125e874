"""First-order methods within bounds: limited-memory BFGS and spectral projected gradients."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array

from ...core import check, solver, static
from ...linalg import choose
from ..smooth.line_search import first_length, first_scale
from .projected_search import ProjectedSearch


class BoundedMemory(NamedTuple):
    """The last m pairs, scaled to s_i'y_i = 1, oldest first; a row is zeros where there is none."""

    steps: Array  # S (m, n)
    changes: Array  # Y (m, n)
    scale: Array  # gamma, the inverse curvature in unseen directions


@solver(accepts={"bounds"})
class LBFGSB(ProjectedSearch):
    """Limited-memory BFGS within bounds, one evaluation of f and grad f a step, no matrix.

    Variables that the short step -gamma g takes onto a bound go there; for the others d = -H g, H
    from the last m pairs restricted to them, and x + d is projected. If that promises less than a
    hundredth of what the short step does, that is taken. As many bounds as need be change sides in
    a step, and near an answer whose multipliers are positive those that bind are the right ones
    from then on: there it is L-BFGS in the free variables. 2mn numbers of memory, (m^2 + 8m) n
    multiplications a step. First-order: it can stop at a saddle point if it starts on one.

    `restart(state)` goes on at the same point, with what was learned of curvature, when the
    objective has changed a little.

    Args:
        memory: number of pairs m.

    Sources: Bertsekas (1982) for two metrics; Byrd, Lu, Nocedal & Zhu (1995), whose Cauchy point a
    single projected step stands for here; Kim, Sra & Dhillon (2010).

    """

    memory: int = static(default=10)

    def __post_init__(self):
        """Refuse a memory that is no count."""
        object.__setattr__(self, "memory", check.count("LBFGSB(memory=...)", self.memory))

    def start_memory(self, x):
        """No pairs."""
        pairs = jnp.zeros((self.memory, x.shape[0]), x.dtype)
        return BoundedMemory(pairs, pairs, first_length(x))

    def remember(self, memory, pair, x, accept):
        """Append (s, y) and drop the oldest pair, if s'y > 0."""
        s, y, sy = pair.s, pair.y, pair.sy
        yy = y @ y
        bent = sy > jnp.finfo(s.dtype).eps * yy
        shrink = jnp.where(bent, 1 / jnp.sqrt(jnp.where(bent, sy, 1)), 0)
        push = lambda rows, row: jnp.concatenate([rows[1:], (shrink * row)[None]])
        new = push(memory.steps, s), push(memory.changes, y)
        steps, changes = choose(accept & bent, new, (memory.steps, memory.changes))
        unbent = memory.scale * jnp.maximum(2, pair.step)
        first = first_scale(memory.scale, yy)
        known = jnp.any(memory.steps[-1] != 0)
        unbent = jnp.where(pair.number < 0, jnp.where(known, memory.scale, first), unbent)
        scale = jnp.where(bent, sy / jnp.where(bent, yy, 1), unbent)
        return BoundedMemory(steps, changes, choose(accept, scale, memory.scale))

    def direct(self, memory, x, gradient, box):
        """Onto the bounds that a short step meets; -H g for the other variables, cut off."""
        held = box.held(x, gradient, memory.scale)
        free = jnp.where(held, 0, 1).astype(x.dtype)
        short = memory.scale * gradient
        d = jnp.where(held, short, _reduced(memory, free * gradient, free))
        d = box.nearest(x - d) - x
        plain = box.nearest(x - short) - x
        return choose(gradient @ d <= 0.01 * (gradient @ plain), d, plain)


def _reduced(memory: BoundedMemory, gradient: Array, free: Array) -> Array:
    """H g by the pairs as the free variables see them; those of bad curvature there are left out.

    In compact form: H = V' gamma V + S' R^-T D R^-1 S, V = I - Y' R^-1 S, R the upper triangle and
    D the diagonal of S Y'. Source: Byrd, Nocedal & Schnabel (1994), theorem 2.2.
    """
    steps, changes = memory.steps * free, memory.changes * free
    products = steps @ changes.T
    bent = jnp.diagonal(products)
    ss, yy = jnp.sum(steps * steps, 1), jnp.sum(changes * changes, 1)
    good = bent > jnp.finfo(free.dtype).eps ** 0.75 * jnp.sqrt(ss * yy)
    known = good.astype(free.dtype)
    d = jnp.where(good, bent, 1)
    r = jnp.triu(products * known[:, None] * known, 1) + jnp.diag(d)
    newest = jnp.argmax(jnp.where(good, jnp.arange(good.size), -1))
    scale = jnp.where(good[newest], bent[newest] / jnp.where(good, yy, 1)[newest], memory.scale)
    p = jsl.solve_triangular(r, known * (steps @ gradient))
    z = scale * (gradient - p @ changes)
    q = jsl.solve_triangular(r, d * p - known * (changes @ z), trans="T")
    return z + (known * q) @ steps


@solver(accepts={"bounds"})
class ProjectedGradient(ProjectedSearch):
    """Spectral projected gradients: x <- x + t (P(x - a g) - x), a = s's/s'y of the last step.

    t is 1, shortened until f is below the largest of its last ten values: f need not fall at every
    step. Converges for every smooth f bounded below within the bounds; linearly near an answer
    with positive multipliers, in a small multiple of sqrt(kappa) steps a digit as a rule, kappa the
    condition of the Hessian in the free variables. One evaluation of f and grad f a step, a few
    vectors of memory. First-order: it stops at a saddle point if it starts on one.

    Sources: Birgin, Martínez & Raydan (2000), SPG2; Barzilai & Borwein (1988) for a.
    """

    curvature = None
    window = 10

    def start_memory(self, x):
        """The length to try first."""
        return first_length(x)

    def remember(self, memory, pair, x, accept):
        """The next a; a longer one where s'y shows no curvature."""
        bent = pair.sy > 0
        longer = memory * jnp.maximum(4, pair.step)
        first = first_scale(memory, pair.y @ pair.y)
        unbent = jnp.where(pair.number < 0, first, longer)
        scale = jnp.where(bent, pair.s @ pair.s / jnp.where(bent, pair.sy, 1), unbent)
        return choose(accept, scale, memory)

    def direct(self, memory, x, gradient, box):
        """P(x - a g) - x."""
        return box.nearest(x - memory * gradient) - x
