"""Saddle-free Newton: negative curvature is taken for as much positive curvature."""

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import solver, static
from ...linalg import Spectrum, band_lanczos, norm_inf
from .spectral import SpectralModel, SpectralTrustRegion, finish
from .trust_region import spectral_step


@solver()
class SaddleFreeNewton(SpectralTrustRegion):
    """Newton on |H|, the Hessian with its eigenvalues' absolute values, in a trust region.

    p = argmin g'p + p'|H|p/2 over |p| <= radius, judged by what g'p + p'Hp/2 predicts. It goes
    down along negative curvature as far as the same positive curvature would lead, so that saddle
    points repel; where that is less than a tenth of the radius along the most negative curvature,
    as exactly on a saddle point, it goes so far. Quadratic near a minimiser with positive definite
    Hessian, where it is Newton's method. O(n^3) at an accepted point, O(n^2) at a rejected one.

    With `rank` = k the same in the Krylov space of g, for networks: k products at an accepted point
    and memory k n. Where the gradient is within `tol` the space is that of a random vector, so that
    negative curvature is found there too, and CONVERGED says none was, in that space.

    Source: Dauphin et al. (2014), algorithm 1.

    Args:
        rank: Lanczos steps k at an accepted point. None: the whole Hessian.
        tol: stopping tolerance, for when to look for negative curvature; `solve` fills it in.

    """

    rank: int | None = static(default=None)
    tol: ArrayLike | None = None

    def __post_init__(self):
        """Refuse a space without a direction to spare."""
        if self.rank is not None and (not isinstance(self.rank, int) or self.rank < 2):
            raise ValueError(
                f"SaddleFreeNewton(rank=...) must be an integer >= 2 or None, but {self.rank!r} "
                "came. 20 to 50 is common for networks."
            )

    def _whole(self, size: int) -> bool:
        return self.rank is None or self.rank >= size

    def unrolls(self, size: int) -> bool:
        """Reverse mode passes through the whole Hessian only: Lanczos is a loop of its own."""
        return self._whole(size)

    def start_model(self, x):
        """A zero Hessian, or one of rank k."""
        if self._whole(x.shape[0]):
            return super().start_model(x)
        k = self.rank
        spectrum = Spectrum(jnp.zeros(k, x.dtype), jnp.zeros((x.shape[0], k), x.dtype))
        return SpectralModel(jnp.zeros((), x.dtype), spectrum, jnp.array(True))

    def learn(self, problem, model, pair, x, gradient, accept, args):
        """The spectrum in the Krylov space of the gradient, at an accepted point."""
        if self._whole(x.shape[0]):
            return super().learn(problem, model, pair, x, gradient, accept, args)

        def anew() -> SpectralModel:
            return self._in_krylov_space(problem, x, gradient, args)

        return lax.cond(accept, anew, lambda: model)

    def _in_krylov_space(self, problem, x: Array, gradient: Array, args: tuple) -> SpectralModel:
        tol = jnp.finfo(x.dtype).eps ** 0.5 if self.tol is None else self.tol
        key = jax.random.key(0)
        random = jax.random.normal(key, x.shape, x.dtype)
        start = jnp.where(norm_inf(gradient) <= tol, random, gradient)
        product, rank = problem.hessian_product(x, args), self.rank or 2
        space = band_lanczos(product, start[None], rank, key)
        finite = jnp.all(jnp.isfinite(space.projected))
        values, inner = jnp.linalg.eigh(jnp.where(finite, space.projected, 0))
        vectors = jnp.where(finite, space.basis.T @ inner, 0)
        return SpectralModel(jnp.zeros((), x.dtype), Spectrum(values, vectors), finite)

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
        if not self._whole(x.shape[0]):
            return proposal._replace(settled=proposal.settled & model.finite)
        least = jnp.maximum(root * jnp.max(sizes), jnp.finfo(values.dtype).tiny)
        return finish(model, proposal, gradient, jnp.maximum(sizes, least))
