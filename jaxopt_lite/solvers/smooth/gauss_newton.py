"""Gauss-Newton: the curvature of the outer function only, by a line search or in a trust region."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...core import Report, Residuals, solver
from ...linalg import materialize
from .least_squares import gauss_newton_product, terms
from .line_search import LineSearch
from .trust_region import TrustRegion, exact_step, truncated_step


class Linearised(NamedTuple):
    """The residuals where we stand, and the Gauss-Newton direction from there."""

    residuals: Array
    direction: Array


@solver()
class GaussNewton(LineSearch):
    """x <- x - t J^+ r, the step that solves the linearised problem, t by backtracking.

    Quadratic where the residuals vanish at the answer, else linear at a rate of residual times
    curvature. J^+ is the pseudo-inverse by singular values, O(mn^2), so that a rank-deficient J
    gives the least-norm step; far from the answer such steps can be poor, and Levenberg-Marquardt
    is the safer choice. At least as many residuals as unknowns.

    Source: Nocedal & Wright (2006), section 10.3.
    """

    kinds: ClassVar = ("least squares", "equations")
    curvature = None

    def unrolls(self, size: int) -> bool:
        """No: derivatives do not pass through the pseudo-inverse of a rank-deficient Jacobian."""
        return False

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        n, m = point.x.shape[0], jax.eval_shape(problem.inner, point.x, args).shape[0]
        if m < n:
            raise ValueError(
                f"GaussNewton needs at least as many residuals as unknowns, but `residual` returns "
                f"{m} and x has {n} entries. LevenbergMarquardt() takes fewer."
            )
        state = super().init(problem, point, args)
        blank = Linearised(jnp.zeros(m, point.x.dtype), jnp.zeros_like(point.x))
        return state._replace(memory=blank)

    def start_memory(self, x):
        """Made in `init`, which knows the number of residuals."""
        return ()

    def learn(self, problem, memory, pair, x, gradient, accept, args):
        """Linearise at an accepted point."""

        def look():
            residuals = problem.inner(x, args)
            slope, weight = terms(problem, residuals, args)
            root = jnp.sqrt(weight)
            a = root[:, None] * jax.jacfwd(lambda x: problem.inner(x, args))(x)
            return Linearised(residuals, -jnp.linalg.lstsq(a, slope / root)[0])

        return lax.cond(accept, look, lambda: memory)

    def direct(self, memory, gradient):
        """-A^+ b."""
        return memory.direction

    def report(self, problem, state, args):
        """The last accepted point; for equations, their residual."""
        report: Report = super().report(problem, state, args)
        if problem.kind == "equations":
            return report._replace(residuals=Residuals.equations(state.memory.residuals))
        return report


@solver()
class NaturalGradient(TrustRegion):
    """The generalised Gauss-Newton method: a trust region on J'HJ in place of the Hessian.

    For f(x) = outer(inner(x)), J the Jacobian of inner and H the Hessian of outer, convex. J'HJ is
    positive semidefinite, so there is no negative curvature to follow. Where outer is the negative
    log likelihood of an exponential family in its natural parameter, cross-entropy of logits for
    instance, J'HJ is the Fisher matrix, and the step the natural gradient. Quadratic where the
    model fits perfectly. Needs a `Composite` objective.

    Args:
        subproblem: "exact": J'HJ (n, n) at each accepted point. "cg": Steihaug's conjugate
            gradients on its products, each one with J and one with J'. None: "exact" up to 1,000
            variables.

    Sources: Amari (1998); Schraudolph (2002); Martens (2020).

    """

    kinds: ClassVar = ("composite", "least squares")

    def model(self, problem, x, args):
        """J'HJ, or nothing."""
        if not self._exact(x.shape[0]):
            return ()
        return materialize(gauss_newton_product(problem, x, args), x.shape[0], x.dtype)

    def propose(self, problem, model, x, gradient, radius, args):
        """The minimiser of the model within the radius, exact or truncated."""
        if self._exact(x.shape[0]):
            proposal = exact_step(model, gradient, radius)
        else:
            product = gauss_newton_product(problem, x, args)
            proposal = truncated_step(product, gradient, radius, jnp.array(False))
        return proposal._replace(settled=jnp.array(True))
