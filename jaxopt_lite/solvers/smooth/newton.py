"""Newton's method with a line search: on the exact Hessian, or truncated, on its products."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import solver
from ...linalg import choose, inertia_tolerance, norm_inf, safe_norm, spectrum
from .line_search import LineSearch, first_length
from .trust_region import newton_step, truncated_step

# Least first step along negative curvature, over max(1, |x|). The search makes it ten times as long
# as often as that helps; 0.01 and more led Osborne's first problem into a valley without a minimum.
PUSH = 1e-3


class Aim(NamedTuple):
    """What was found at the accepted point: d, d'Hd, and whether no curvature is negative there."""

    direction: Array
    bend: Array
    settled: Array


class NewtonSearch(LineSearch):
    """A line search along a direction from second derivatives, taken at accepted points only.

    A subclass has `aim(problem, x, gradient, args)`.
    """

    def aim(self, problem, x: Array, gradient: Array, args: tuple) -> Aim:
        """The direction from an accepted point."""
        raise NotImplementedError

    def start_memory(self, x):
        """No direction yet."""
        return Aim(jnp.zeros_like(x), jnp.zeros((), x.dtype), jnp.array(True))

    def learn(self, problem, memory, pair, x, gradient, accept, args):
        """Aim anew where a step was accepted."""
        return lax.cond(accept, lambda: self.aim(problem, x, gradient, args), lambda: memory)

    def direct(self, memory, gradient):
        """As aimed."""
        return memory.direction

    def bend(self, memory):
        """As aimed."""
        return lax.stop_gradient(memory.bend)

    def settled(self, memory):
        """Whether no curvature was negative."""
        return memory.settled


@solver()
class Newton(NewtonSearch):
    """Newton's method with a Wolfe search, d = -(H + tau)^-1 g.

    tau = 0 where H is positive definite (by Cholesky, scaled to a unit diagonal), and t = 1 is the
    first trial: quadratic near such a minimiser. Elsewhere tau = 2|lambda_1|, by `eigh`, and d has
    at least a small part along the most negative curvature, so that strict saddle points are left
    even where g = 0; CONVERGED means a small gradient and no curvature below
    -sqrt(eps) max|lambda|. One evaluation of f and grad f a step, one Hessian and O(n^3) an
    accepted step. Against `TrustRegion`: fewer steps where the model is good far out, more where
    it is not; along narrow curved valleys it can be led astray.

    Sources: Nocedal & Wright (2006), section 3.4; Moré & Sorensen (1979).
    """

    def aim(self, problem, x, gradient, args):
        """By the exact Hessian."""
        return modified_newton(problem.hessian(x, args), gradient, first_length(x))


@solver()
class NewtonCG(NewtonSearch):
    """Truncated Newton with a Wolfe search: conjugate gradients on Hd = -g, by products with H.

    They stop at a relative residual of min(0.01, sqrt|g|), or at a direction of negative curvature,
    which is then followed as far as the same positive curvature would lead. Where |g| <= tol the
    Krylov space of a random vector is searched for negative curvature, and what is found followed:
    strict saddle points are left, with probability 1. Superlinear near a minimiser with positive
    definite Hessian. Memory of a few vectors; at most min(n, 200) products an accepted step.

    Args:
        tol: stopping tolerance, to know when to look for negative curvature; `solve` fills it in.

    Source: Nocedal & Wright (2006), algorithm 7.1.

    """

    tol: ArrayLike | None = None

    def unrolls(self, size: int) -> bool:
        """Conjugate gradients are a loop of their own."""
        return False

    def aim(self, problem, x, gradient, args):
        """By products with the Hessian."""
        tol = jnp.finfo(x.dtype).eps ** 0.5 if self.tol is None else self.tol
        probe = norm_inf(gradient) <= tol
        furthest = first_length(x)
        radius = jnp.where(probe, 0.1 * PUSH * furthest, furthest)
        product = problem.hessian_product(x, args)
        found = truncated_step(product, gradient, radius, probe, reflect=True)
        finite = jnp.all(jnp.isfinite(found.step))
        p = jnp.where(finite, found.step, -gradient)
        bend = jnp.where(finite, -2 * (found.decrease + gradient @ p), 0)
        return Aim(p, bend, found.settled & finite)


def modified_newton(hessian: Array, gradient: Array, furthest: Array) -> Aim:
    """-(H + tau)^-1 g with tau = 0 where H is safely positive definite, else twice |lambda_1|.

    In the second case no part of it along an eigenvector is longer than `furthest`, and that along
    the first, if lambda_1 < 0, not shorter than a small fraction of it. -g if H is not finite.
    """
    finite = jnp.all(jnp.isfinite(hessian))
    hessian = jnp.where(finite, hessian, jnp.eye(gradient.shape[0], dtype=gradient.dtype))
    newton, definite = newton_step(hessian, gradient)
    usual = definite & (safe_norm(newton) <= 1e3 * furthest)
    # The identity where the spectrum is not needed orders the two LAPACK calls: see `exact_step`.
    other = choose(usual, jnp.eye(gradient.shape[0], dtype=gradient.dtype), hessian)
    other = lax.stop_gradient(other)

    def easy(_):
        return Aim(newton, -(gradient @ newton), finite)

    def hard(_):
        values, vectors = spectrum(other)
        b = vectors.T @ gradient
        shifted = values + 2 * jnp.maximum(0, -values[0])
        shifted = jnp.maximum(shifted, inertia_tolerance(values))
        shifted = jnp.maximum(shifted, jnp.abs(b) / furthest)
        p = -b / jnp.where(shifted > 0, shifted, 1)
        root = float(jnp.finfo(values.dtype).eps) ** 0.5
        indefinite = values[0] < -root * jnp.max(jnp.abs(values))
        least = jnp.where(b[0] > 0, -0.1, 0.1).astype(p.dtype) * PUSH * furthest
        p = p.at[0].set(jnp.where(indefinite & (jnp.abs(p[0]) < jnp.abs(least)), least, p[0]))
        return Aim(vectors @ p, (values * p) @ p, ~indefinite & finite)

    return lax.cond(usual, easy, hard, None)
