"""Nonlinear conjugate gradients: three formulas for one direction, on the line-search skeleton."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import solver, static
from ...linalg import choose
from .first_order import require_number
from .line_search import EASY, LineSearch, first_length, first_scale

METHODS = ("dai-yuan", "polak-ribiere", "hager-zhang")


class ConjugateMemory(NamedTuple):
    """The direction is scale (beta s - g)."""

    s: Array  # the last step
    beta: Array
    scale: Array
    steepness: Array  # -g'(beta s - g) / g'g


@solver()
class NonlinearCG(LineSearch):
    """Conjugate gradients for any smooth f: d = -g + beta s, s the last step, by a Wolfe search.

    On a quadratic with exact searches the three formulas agree, end in n steps, and lower the error
    by (sqrt(kappa) - 1)/(sqrt(kappa) + 1) a step on the way. One vector of memory, against the 2m
    of L-BFGS, which needs fewer evaluations: nearly 2 a step here, since the search has to come
    closer to the minimum along d than a quasi-Newton one. beta is 0 where d would not go down by
    -g'd >= 0.01 |g|^2. First-order: it stops at a saddle point if it starts on one.

    Args:
        method: beta, with y the last change of the gradient.
            "dai-yuan": the hybrid max(0, min(y'g, g'g))/s'y; g'g/s'y alone jams.
            "polak-ribiere": max(0, y'g/|previous g|^2)/t, t the last step length.
            "hager-zhang": (y'g - 2 s'g y'y/s'y)/s'y, bounded below; goes down whatever the search,
            but feels most that it is not exact.
            Medians for 1,000 quadratics with kappa up to 3,000: 106, 117 and 127 evaluations in 30
            variables, 8, 8 and 65 in 4.
        curvature: c2 of the strong Wolfe condition |g(x + t d)'d| <= c2 |g'd|, 0 < c2 < 1; near 0,
            searches are exact. Over 29 test problems and the three methods 0.1, 0.2 and 0.4 took
            23,000, 20,100 and 21,000 evaluations, 2.3, 2.1 and 1.8 a step.

    Sources: Dai & Yuan (2001); Gilbert & Nocedal (1992); Hager & Zhang (2005, 2013). The first
    trial is exact for a quadratic whose curvature along g is y'y/s'y.

    """

    method: str = static(default="dai-yuan")
    # A constant of the class in the skeleton, a field here, so that it can be chosen and swept.
    curvature: ArrayLike = 0.4  # type: ignore[assignment, misc]

    def __post_init__(self):
        """Refuse unknown formulas and impossible searches."""
        if self.method not in METHODS:
            raise ValueError(
                f"NonlinearCG(method=...) must be one of {', '.join(map(repr, METHODS))}, but "
                f"{self.method!r} came."
            )
        way_out = "0.1 to 0.4 is usual."
        require_number("NonlinearCG(curvature=...)", self.curvature, 0.0, 1.0, way_out=way_out)

    def start_memory(self, x):
        """No step yet."""
        one = jnp.ones((), x.dtype)
        return ConjugateMemory(jnp.zeros_like(x), 0 * one, first_length(x), one)

    def learn(self, problem, memory, pair, x, gradient, accept, args):
        """The next direction, from the last step and both its gradients."""
        s, y, sy = pair.s, pair.y, pair.sy
        gradient = lax.stop_gradient(gradient)
        gs, gy, gg, yy = gradient @ s, gradient @ y, gradient @ gradient, y @ y
        fall = sy - gs  # -s'g at the last point: by how much f was to fall at first order
        beta = self._beta(memory, s, sy, gs, gy, gg, yy, fall)
        beta = choose((sy > 0) & (beta * gs < 0.99 * gg), beta, jnp.zeros_like(beta))
        slope = gg - beta * gs
        bend = yy / _nonzero(sy) * gg - 2 * beta * gy + beta * beta * sy
        first_order = fall / _nonzero(slope)  # f is to fall by as much as by the last step
        scale = choose((sy > 0) & (bend > 0), slope / _nonzero(bend), first_order)
        scale = choose(pair.number < 0, first_scale(memory.scale, yy), scale)
        new = ConjugateMemory(s, beta, scale, slope / _nonzero(gg))
        return choose(accept, new, memory)

    def _beta(self, memory, s, sy, gs, gy, gg, yy, fall) -> Array:
        """What of s to add to -g."""
        if self.method == "hager-zhang":
            beta = (gy - 2 * yy * gs / _nonzero(sy)) / _nonzero(sy)
            return jnp.maximum(beta, -0.4 * fall / _nonzero(s @ s))
        if self.method == "polak-ribiere":
            return jnp.maximum(gy * memory.steepness / _nonzero(fall), 0)
        return jnp.clip(gy / _nonzero(sy), 0, gg / _nonzero(sy))

    def direct(self, memory, gradient):
        """The direction, scaled so that t = 1 is the first trial."""
        return memory.scale * (memory.beta * memory.s - gradient)

    def _judge(self, state, slope0, *trial):
        """Accept by the strong condition: that along d f neither falls nor rises steeply."""
        decrease, accept = super()._judge(state, slope0, *trial)
        _, slope, _ = trial[-3:]
        gentle = slope <= self.curvature * -slope0
        return decrease, accept & (gentle | (state.idle > EASY))


def _nonzero(number: Array) -> Array:
    """`number`, or 1 in place of 0."""
    return choose(number == 0, jnp.ones_like(number), number)
