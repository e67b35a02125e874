"""Gradient descent that shakes off saddle points: a small random kick wherever it would stop."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Point, Residuals, check, solver, static
from ...linalg import choose, norm_inf
from .first_order import FirstOrder, require_number


class Attempt(NamedTuple):
    """The newest attempt to get away from a stationary point."""

    anchor: Array  # that point
    value: Array
    gradient: Array
    left: Array  # steps left to fall below `value`; 0: there is no attempt
    number: Array  # of attempts so far
    settled: Array  # whether the newest attempt has just failed


@solver()
class PerturbedGradientDescent(FirstOrder):
    """Gradient descent with a fixed step, and a random kick where the gradient is within `tol`.

    If f does not fall in the next `patience` steps, it goes back and says CONVERGED; until then
    that is not said, so a strict saddle point is left, even if started on. Falling means by more
    than rounding and than `patience` t |grad f|^2, which ordinary descent would gain. After P steps
    curvature below about -log(n P)/(P t) has shown with high probability: more negative than that
    is excluded, up to chance; weaker negative curvature, and degenerate points without any, are
    not told from minima. `TrustRegion` looks at the curvature itself. Memory 3n.

    Args:
        step_size: t, at best 1/L, in units of x per unit of the gradient.
        radius: of the ball from which kicks are drawn uniformly, in units of x. None: eps^(1/4)
            max(1, |x|), 1e-4 in float64 for small x.
        patience: steps to wait for the fall, P.
        seed: of the random numbers; part of the program.
        tol: stopping tolerance, at which kicks begin; `solve` fills it in.

    Source: Jin, Ge, Netrapalli, Kakade & Jordan (2017), algorithm 2 and theorem 3.

    """

    step_size: ArrayLike
    radius: ArrayLike | None = None
    patience: int = static(default=100)
    seed: int = static(default=0)
    tol: ArrayLike | None = None

    def __post_init__(self):
        """Refuse a step that goes up or nowhere, no kick and no wait."""
        name = "PerturbedGradientDescent"
        require_number(f"{name}(step_size=...)", self.step_size, 0.0)
        require_number(f"{name}(radius=...)", self.radius, 0.0, way_out="None chooses one.")
        object.__setattr__(self, "patience", check.count(f"{name}(patience=...)", self.patience))
        if not isinstance(self.seed, int) or isinstance(self.seed, bool):
            raise ValueError(f"{name}(seed=...) must be an integer, but {self.seed!r} came.")

    def start_memory(self, problem, x):
        """No attempt yet."""
        zero, none, no = jnp.zeros((), x.dtype), jnp.int32(0), jnp.array(False)
        return Attempt(x, zero, jnp.zeros_like(x), none, none, no)

    def move(self, problem, memory, x, value, gradient, args):
        """-t g, or a kick, or back to where the kick was given."""
        eps = float(jnp.finfo(x.dtype).eps)
        tol = eps**0.5 if self.tol is None else self.tol
        usual = self.patience * self.step_size * (memory.gradient @ memory.gradient)
        fallen = value < memory.value - usual - 10 * eps * jnp.abs(memory.value)
        waiting = (memory.left > 0) & ~fallen
        failed = waiting & (memory.left == 1)
        begin = ~waiting & (norm_inf(gradient) <= tol)

        kick = lax.cond(begin, lambda: self._kick(memory.number, x), lambda: jnp.zeros_like(x))
        move = choose(begin, kick, -(self.step_size * gradient))
        move = choose(failed, memory.anchor - x, move)
        left = choose(waiting, memory.left - 1, jnp.zeros_like(memory.left))
        here = Attempt(x, value, gradient, jnp.int32(self.patience), memory.number + 1, failed)
        return move, choose(begin, here, memory._replace(left=left, settled=failed))

    def _kick(self, number: Array, x: Array) -> Array:
        """Uniform in a ball: a direction, and a distance whose n-th power is uniform."""
        radius = self.radius
        if radius is None:
            radius = float(jnp.finfo(x.dtype).eps) ** 0.25 * jnp.maximum(1, jnp.linalg.norm(x))
        towards, far = jax.random.split(jax.random.fold_in(jax.random.key(self.seed), number))
        direction = jax.random.normal(towards, x.shape, x.dtype)
        distance = radius * jax.random.uniform(far, (), x.dtype) ** (1 / x.size)
        return lax.stop_gradient(distance / jnp.linalg.norm(direction) * direction)

    def report(self, problem, state, args):
        """Where the newest kick was given, until f has fallen below."""
        attempt, report = state.memory, super().report(problem, state, args)
        held = (attempt.left > 0) | attempt.settled
        residuals = Residuals.unconstrained(choose(held, attempt.gradient, state.gradient))
        return report._replace(
            point=Point(choose(held, attempt.anchor, report.point.x), report.point.multipliers),
            value=choose(held, attempt.value, report.value),
            residuals=residuals,
            settled=attempt.settled,
        )
