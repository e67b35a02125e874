"""The symmetric rank-one method: a Hessian from gradient changes, indefinite where f is."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from ...core import solver
from .trust_region import TrustRegionSkeleton, exact_step

SKIP = 1e-8  # least cosine between s and y - B s
# A rejected trial teaches too, but not one whose gradient is so many times that where we stand:
# with one such pair, from the wrong side of an exponential, B lost every smaller curvature.
FAR = 100.0
SHARE = 0.1  # of |s'y|/s's, the first B: too small is made up for by the radius, too large is not


class SR1Model(NamedTuple):
    """B (n, n), 0 before the first pair."""

    hessian: Array
    empty: Array


@solver()
class SR1(TrustRegionSkeleton):
    """Symmetric rank-one quasi-Newton in a trust region, one evaluation of f and grad f a step.

    B <- B + r r'/r's with r = y - B s, unless |r's| < 1e-8 |r||s|; rejected steps count too. B
    need not be positive definite, and tends to the Hessian itself: on a quadratic it is exact after
    n independent steps. p is the exact minimiser of the model in the radius, O(n^3) a step, so
    meant for up to a hundred variables. Superlinear near a minimiser with positive definite
    Hessian. First-order: it can stop at a saddle point if it starts on one.

    Source: Nocedal & Wright (2006), algorithm 6.2; Conn, Gould & Toint (1991).
    """

    def start_model(self, x):
        """No pair yet."""
        return SR1Model(jnp.zeros((x.shape[0], x.shape[0]), x.dtype), jnp.array(True))

    def learn(self, problem, model, pair, x, gradient, accept, args):
        """The update, unless it would divide by next to nothing."""
        s, y = pair.s, pair.y
        ss, yy = s @ s, y @ y
        near = accept | (yy <= FAR**2 * (gradient @ gradient))
        usable = (pair.number >= 0) & jnp.isfinite(yy) & (ss > 0) & near
        y = jnp.where(usable, y, 0)
        first = SHARE * jnp.abs(y @ s) / jnp.where(ss > 0, ss, 1)
        eye = jnp.eye(s.shape[0], dtype=s.dtype)
        old = jnp.where(model.empty, first * eye, model.hessian)
        r = y - old @ s
        rs = r @ s
        good = usable & (jnp.abs(rs) >= SKIP * jnp.sqrt(ss * (r @ r))) & (rs != 0)
        update = r[:, None] * (r / jnp.where(good, rs, 1))
        return SR1Model(old + jnp.where(good, update, 0), model.empty & ~usable)

    def propose(self, problem, model, x, gradient, radius, args):
        """The minimiser in the radius. Whether B is definite says nothing sure of the Hessian."""
        return exact_step(model.hessian, gradient, radius)._replace(settled=jnp.array(True))
