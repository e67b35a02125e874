"""Saddle-free Newton: negative curvature is taken for as much positive curvature."""

import jax.numpy as jnp

from ...core import solver
from ...linalg import Spectrum
from .spectral import SpectralTrustRegion, finish
from .trust_region import spectral_step


@solver()
class SaddleFreeNewton(SpectralTrustRegion):
    """Newton on |H|, the Hessian with its eigenvalues' absolute values, in a trust region.

    p = argmin g'p + p'|H|p/2 over |p| <= radius, judged by what g'p + p'Hp/2 predicts. It goes
    down along negative curvature as far as the same positive curvature would lead, so that saddle
    points repel; where that is less than a tenth of the radius along the most negative curvature,
    as exactly on a saddle point, it goes so far. Quadratic near a minimiser with positive definite
    Hessian, where it is Newton's method. O(n^3) at an accepted point, O(n^2) at a rejected one.

    Source: Dauphin et al. (2014), algorithm 1.
    """

    def propose(self, problem, model, x, gradient, radius, args):
        """The minimiser of the model with |H| in the radius, and a push off a saddle."""
        values, vectors = model.spectrum
        root = float(jnp.finfo(values.dtype).eps) ** 0.5
        sizes = jnp.abs(values)
        order = jnp.argsort(sizes)
        plain = spectral_step(Spectrum(sizes[order], vectors[:, order]), gradient, radius)
        indefinite = values[0] < -root * jnp.max(sizes)
        along = vectors[:, 0]
        part = along @ plain.step
        side = jnp.where(along @ gradient > 0, -1, 1).astype(part.dtype)
        push = indefinite & (jnp.abs(part) < 0.1 * radius)
        p = plain.step + jnp.where(push, side * 0.1 * radius - part, 0) * along
        p = p * jnp.minimum(1, radius / jnp.maximum(jnp.linalg.norm(p), jnp.finfo(p.dtype).tiny))
        q = vectors.T @ p
        decrease = -(gradient @ p + 0.5 * (values * q) @ q)
        proposal = plain._replace(step=p, decrease=decrease, settled=~indefinite)
        least = jnp.maximum(root * jnp.max(sizes), jnp.finfo(values.dtype).tiny)
        return finish(model, proposal, gradient, jnp.maximum(sizes, least))
