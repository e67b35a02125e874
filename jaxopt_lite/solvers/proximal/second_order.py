"""Newton and quasi-Newton methods for f + nonsmooth: on p = prox(p - t grad f(p), t)."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...core import check, solver, static
from ...linalg import choose, conjugate_gradient, materialize
from ..smooth.lbfgs import LBFGS, LBFGSMemory
from ..smooth.line_search import Pair
from .forward_backward import ForwardBackward


class PairsMemory(NamedTuple):
    """Pairs of the gradient map r/t, r = p - prox(p - t grad f(p), t), and its last value."""

    pairs: LBFGSMemory
    map: Array
    length: Array  # t of that value
    number: Array


@solver(accepts={"nonsmooth"})
class ProximalLBFGS(ForwardBackward):
    """Proximal gradient with limited-memory quasi-Newton leaps.

    The leap from p is -H r/t, r = p - prox(p - t grad f(p), t), H by L-BFGS from differences of
    r/t; it is taken if the forward-backward envelope there is not above F(p). So every limit point
    is stationary, whatever H is, and near an answer where the active set settles the convergence is
    that of L-BFGS. Any prox, convex f or not; about two evaluations an iteration. Memory 2mn.

    Args:
        memory: number of pairs m.

    Sources: Stella, Themelis, Sopasakis & Patrinos (2017), PANOC, whose plain step is made first
    here; Themelis, Stella & Patrinos (2018), theorem 5.3.

    """

    memory: int = static(default=10)
    step_size = None
    growth = 1.0

    def __post_init__(self):
        """Refuse a memory that is no count."""
        object.__setattr__(self, "memory", check.count("ProximalLBFGS(memory=...)", self.memory))

    def start_memory(self, x):
        """No pairs."""
        one = jnp.ones((), x.dtype)
        pairs = LBFGS(self.memory).start_memory(x)
        return PairsMemory(pairs, jnp.zeros_like(x), one, jnp.int32(0))

    def leap(self, problem, memory, measured, term, args):
        """Along -H r/t from the pairs; r/t depends little on t, but two of a pair share one."""
        p, t = measured.p.x, measured.length
        mapped = (p - measured.after) / t
        s, y = p - measured.before, mapped - memory.map
        sy = s @ y
        usable = (memory.length == t) & (sy > jnp.finfo(p.dtype).eps * (y @ y))
        usable &= measured.number > 0
        pair = lax.stop_gradient(Pair(s, y, sy, jnp.ones_like(sy), memory.number))
        method = LBFGS(self.memory)
        pairs = method.remember(memory.pairs, pair, usable)
        number = choose(usable, memory.number + 1, memory.number)
        d = method.direct(pairs, mapped)
        return p + d, number > 0, PairsMemory(pairs, mapped, t, number)


@solver(accepts={"nonsmooth"})
class ProximalNewton(ForwardBackward):
    """Proximal gradient with semismooth Newton leaps: exact Hessian, quadratic at the end.

    With r(p) = p - prox(p - t grad f(p), t), J the Jacobian of the prox there and H the Hessian
    of f, the leap d solves (I - J + t J H) d = -r: on the active manifold it is Newton's step, and
    across it what the prox does. It is found from that system by LU, or from the symmetric one

        (J (I - J) + t J H J) e = J (t H r - r),   d = -r + J e

    where no matrix is formed, for the l1 norm the Hessian on the support alone. A leap is taken if
    the forward-backward envelope there is not above F(p), else the plain step. For piecewise
    linear-quadratic F it ends in finitely many steps once the active set is right.

    Args:
        subproblem: "exact": LU of the n x n system, n Hessian-vector products. "cg": conjugate
            gradients, at most about as many products as the support has entries.

    Sources: Milzarek & Ulbrich (2014); Themelis, Stella & Patrinos (2018), section 5; Khanh,
    Mordukhovich & Phat (2023).

    """

    subproblem: str = static(default="exact")
    step_size = None
    growth = 1.0

    def __post_init__(self):
        """Refuse unknown subproblems."""
        if self.subproblem not in ("exact", "cg"):
            raise ValueError(
                "ProximalNewton(subproblem=...) must be 'exact' or 'cg', but "
                f"{self.subproblem!r} came. 'cg' forms no matrix."
            )

    def unrolls(self, size):
        """Not through the conjugate gradients."""
        return self.subproblem == "exact"

    def leap(self, problem, memory, measured, term, args):
        """Along Newton's step from p."""
        p, t = measured.p, measured.length
        r = p.x - measured.after
        push = jax.linearize(lambda u: term.prox(u, t), p.x - t * p.gradient)[1]
        product = problem.hessian_product(p.x, args)
        # Where F is flat along the manifold any step will do: a shift that goes with the residual.
        shift = 1e-3 * jnp.minimum(measured.residual, 1)
        bend = lambda v: t * (product(v) + shift * v)
        if self.subproblem == "cg":
            d = _by_products(push, bend, r, measured.residual)
        else:
            n, dtype = r.shape[0], r.dtype
            matrix = materialize(lambda v: v - push(v - bend(v)), n, dtype)
            d = -jnp.linalg.solve(matrix, r)
        return p.x + d, jnp.array(True), memory


def _by_products(push: Callable, bend: Callable, r: Array, residual: Array) -> Array:
    """The leap by conjugate gradients on the symmetric system."""
    eps = jnp.finfo(r.dtype).eps

    def system(v):
        inside = push(v)
        return inside - push(inside - bend(inside))

    tol = jnp.clip(jnp.sqrt(residual), eps**0.75, 0.1)
    e = conjugate_gradient(system, push(bend(r) - r), tol, 2 * r.shape[0]).x
    return push(e) - r
