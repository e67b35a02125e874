"""First-order methods for f + nonsmooth: proximal gradient, plain and accelerated."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ...core import solver, static
from ...linalg import choose
from ..smooth.first_order import require_number
from .forward_backward import ForwardBackward


@solver(accepts={"nonsmooth"})
class ISTA(ForwardBackward):
    """Proximal gradient: x <- prox(x - t grad f(x), t), one evaluation a step.

    For convex f with an L-Lipschitz gradient and t = 1/L, F(x_k) - F* <= L |x_0 - x*|^2 / (2k);
    F = f + nonsmooth. Linear where f or F grows quadratically around the answer: by 1 - mu/L a
    step. Without `step_size` t is found by backtracking, in which F falls at every step; f need
    not be convex then and limit points are stationary. With a `step_size` above 2/L it ends
    DIVERGED or MAX_STEPS. The name is that of soft thresholding; any prox will do.

    Args:
        step_size: t, at best 1/L. None: found.

    Sources: Beck & Teboulle (2009), theorem 3.1; Beck (2017), chapter 10.

    """

    step_size: ArrayLike | None = None
    leaping = False

    def __post_init__(self):
        """Refuse a step that is not positive."""
        require_number("ISTA(step_size=...)", self.step_size, 0.0, way_out="None finds one.")


@solver(accepts={"nonsmooth"})
class FISTA(ForwardBackward):
    """Accelerated proximal gradient: y <- p + b (p - previous p), p <- prox(y - t grad f(y), t).

    For convex f, b grows towards 1 and F(p_k) - F* <= 2 L |x_0 - x*|^2 / (k + 1)^2, the order no
    first-order method can beat. With a given mu, b = (1 - sqrt(mu t))/(1 + sqrt(mu t)): F falls by
    1 - sqrt(mu/L) an iteration. Restarts, which drop the momentum where it leads uphill,
    (y - p)'(p - previous p) > 0, give about that rate without mu. Two evaluations an iteration:
    at y, and at p, which makes the residual there exact and finds t.

    Args:
        step_size: t, at best 1/L. None: found by backtracking.
        strong_convexity: mu, the least curvature of f. None: unknown, or 0.
        restart: whether momentum is dropped where it leads uphill.

    Sources: Beck & Teboulle (2009), theorem 4.4; Chambolle & Pock (2016), section 4 for mu;
    O'Donoghue & Candès (2015) for restarts; Scheinberg, Goldfarb & Bai (2014) for a t that grows.

    """

    step_size: ArrayLike | None = None
    strong_convexity: ArrayLike | None = None
    restart: bool = static(default=True)
    trusts = True

    def __post_init__(self):
        """Refuse a step or a curvature that is not positive."""
        require_number("FISTA(step_size=...)", self.step_size, 0.0, way_out="None finds one.")
        require_number(
            "FISTA(strong_convexity=...)", self.strong_convexity, 0.0, closed=True,
            way_out="None does without it.",
        )  # fmt: skip

    def start_memory(self, x: Array):
        """The weight t_k of Beck and Teboulle, and the length it goes with."""
        one = jnp.ones((), x.dtype)
        return one, one

    def leap(self, problem, memory, measured, term, args):
        """Along the last displacement."""
        p, t = measured.p.x, measured.length
        weight, length = memory
        ahead = p - measured.before
        first = measured.number == 0
        length = choose(first, t, length)
        heavier = 0.5 + jnp.sqrt(0.25 + jnp.minimum(length / t, 1) * weight * weight)
        pull = (weight - 1) / heavier
        if self.strong_convexity is not None:
            root = jnp.sqrt(jnp.minimum(self.strong_convexity * t, 1))
            pull = (1 - root) / (1 + root)
        uphill = (measured.came_from - p) @ ahead > 0
        drop = first | uphill if self.restart else first
        pull = choose(drop, jnp.zeros_like(pull), pull)
        heavier = choose(uphill, jnp.ones_like(heavier), heavier) if self.restart else heavier
        return p + pull * ahead, ~drop & (pull != 0), (heavier, t)
