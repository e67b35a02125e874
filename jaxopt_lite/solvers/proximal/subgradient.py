"""The subgradient method: for terms of which nothing but values and subgradients is known."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ...core import Point, Report, Residuals, Solver, solver
from ...linalg import choose, norm_inf
from ..smooth.first_order import require_number


class SubgradientState(NamedTuple):
    """Between two evaluations; `best` is what is reported."""

    point: Point  # where F is evaluated next
    best: Point
    value: Array
    residual: Array
    number: Array


@solver(accepts={"nonsmooth"})
class Subgradient(Solver):
    """Subgradient method: x <- x - t_k s, s a subgradient of f + nonsmooth; the best x is kept.

    With `minimum` F* known, t = (F - F*)/|s|^2 (Polyak): F falls to F* like 1/sqrt(k), linearly
    where F is sharp. Without, t_k = step_size/(sqrt(k) |s|): the best value is within
    O(R^2 log(k) / sqrt(k)) for |x_0 - x*| <= R. No order of convergence to boast of; it is here for
    comparison, and hardly ever CONVERGED: that asks for a subgradient below `tol`, which at a kink
    no nearby point has. One evaluation of f and its gradient a step.

    Args:
        step_size: the length of the first step, in units of x.
        minimum: F*. None: unknown.

    Sources: Polyak (1969); Nesterov (2018), section 3.2.3.

    """

    step_size: ArrayLike = 1.0
    minimum: ArrayLike | None = None

    def __post_init__(self):
        """Refuse a step that is not positive."""
        require_number("Subgradient(step_size=...)", self.step_size, 0.0)

    def init(self, problem, point, args):
        """Nothing evaluated."""
        infinite = jnp.full((), jnp.inf, point.x.dtype)
        return SubgradientState(point, point, infinite, infinite, jnp.int32(0))

    def step(self, problem, state, args):
        """Evaluate, keep the best, go on."""
        x, term = state.point.x, problem.term(args)
        value, gradient = problem.value_and_gradient(x, args)
        value = value + term.value(x)
        s = gradient + term.nearest_subgradient(x, -gradient)
        square = s @ s
        number = state.number + 1
        if self.minimum is None:
            t = self.step_size / jnp.sqrt(number.astype(x.dtype) * jnp.where(square > 0, square, 1))
        else:
            t = (value - self.minimum) / jnp.where(square > 0, square, 1)
        better = ~(value >= state.value)  # NaN too, which is then said
        old = state.best.x, state.value, state.residual
        best, lowest, residual = choose(better, (x, value, norm_inf(s)), old)
        return SubgradientState(Point(x - t * s), Point(best), lowest, residual, number)

    def report(self, problem, state, args):
        """The best point so far."""
        return Report(state.best, state.value, Residuals(state.residual, 0.0, 0.0, 0.0))
