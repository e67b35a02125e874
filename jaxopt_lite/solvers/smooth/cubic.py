"""Adaptive cubic regularisation: the size of a step follows from a bound on third derivatives."""

import jax.numpy as jnp

from ...core import solver
from ...linalg import safe_norm
from .spectral import SpectralTrustRegion, finish
from .trust_region import spectral_step


@solver()
class CubicNewton(SpectralTrustRegion):
    """Newton's method with a cubic term, p = argmin g'p + p'Hp/2 + sigma |p|^3/3.

    (H + sigma |p|) p = -g with H + sigma |p| >= 0, exactly, by eigenvalues and a secular equation,
    hard case included; O(n^3) at an accepted point, O(n^2) at a rejected one. Quadratic near a
    minimiser with positive definite Hessian; leaves strict saddle points, and needs at most
    O(eps^-3/2) steps to |g| <= eps, the best order for a method with second derivatives. After each
    step sigma moves towards the value for which the model would have been exact there.

    Sources: Cartis, Gould & Toint (2011); for sigma Gould, Porcelli & Toint (2012).
    """

    def first_size(self, model, x, gradient):
        """The weight with which the cubic term alone would allow a step of max(1, |x|)."""
        length = jnp.maximum(1, jnp.linalg.norm(x))
        bent = jnp.maximum(0, -model.spectrum.values[0])
        weight = jnp.linalg.norm(gradient) / length**2 + bent / length
        return jnp.maximum(weight, jnp.finfo(x.dtype).tiny)

    def resize(self, size, ratio, finite, proposal):
        """Interpolate: f(x + p) = f + q(p) + sigma* |p|^3/3 where the ratio was taken."""
        length = safe_norm(proposal.step)
        cubic = size * length * length * (length / 3)  # in this order: |p|^3 may overflow
        error = (1 - ratio) * proposal.decrease / jnp.where(cubic > 0, cubic, 1)
        best = size * (1 + jnp.where(cubic > 0, error, 0))
        bad = jnp.maximum(4 * size, best)
        good = jnp.clip(best, 0.2 * size, size)
        new = jnp.where(ratio < 0.1, bad, jnp.where(ratio > 0.9, good, size))
        new = jnp.where(finite, new, 100 * size)
        return jnp.clip(new, jnp.finfo(size.dtype).tiny, jnp.finfo(size.dtype).max)

    def propose(self, problem, model, x, gradient, radius, args):
        """The global minimiser of the cubic model."""
        plain = spectral_step(model.spectrum, gradient, 0 * radius, 1 / radius)
        length = safe_norm(plain.step)
        cubic = plain._replace(decrease=plain.decrease - radius * length * length * (length / 3))
        shifted = model.spectrum.values + radius * length
        safe = jnp.where(shifted > 0, shifted, 1)
        return finish(model, cubic, gradient, safe)
