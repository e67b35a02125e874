"""Models by eigenvalues: the Hessian is decomposed once at each accepted point, then reused."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from ...linalg import Spectrum, spectrum
from .trust_region import Proposal, TrustRegionSkeleton


class SpectralModel(NamedTuple):
    """The Hessian at the accepted point, which carries derivatives, and its spectrum."""

    hessian: Array  # (n, n); 0 where it is not finite
    spectrum: Spectrum
    finite: Array


class SpectralTrustRegion(TrustRegionSkeleton):
    """A trust region whose model is the spectrum of the Hessian: a rejected step costs O(n^2)."""

    def start_model(self, x):
        """A zero Hessian."""
        zeros = jnp.zeros((x.shape[0], x.shape[0]), x.dtype)
        return SpectralModel(zeros, Spectrum(jnp.zeros_like(x), zeros), jnp.array(True))

    def model(self, problem, x, args):
        """The Hessian and its spectrum."""
        hessian = problem.hessian(x, args)
        finite = jnp.all(jnp.isfinite(hessian))
        hessian = jnp.where(finite, hessian, 0)
        return SpectralModel(hessian, spectrum(lax.stop_gradient(hessian)), finite)


def finish(model: SpectralModel, proposal: Proposal, gradient: Array, shifted: Array) -> Proposal:
    """The proposal with the derivative of p = -(H + mu)^-1 g; `shifted` are eigenvalues plus mu.

    d p = -(H + mu)^-1 (dH p + dg), mu held fixed: added as a term that is zero. Unsettled where
    the Hessian was not finite.
    """
    p = lax.stop_gradient(proposal.step)
    moved = model.hessian @ p + gradient
    moved = model.spectrum.vectors.T @ (moved - lax.stop_gradient(moved))
    p = p - model.spectrum.vectors @ (moved / lax.stop_gradient(shifted))
    return Proposal(p, lax.stop_gradient(proposal.decrease), proposal.settled & model.finite)
