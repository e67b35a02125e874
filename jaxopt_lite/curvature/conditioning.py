"""Condition numbers, and what they foretell: step sizes and the number of iterations."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ..core import TABLE, minimize
from .lanczos import EigenPairs, checked, eigenpairs
from .operators import LinearOperator, hessian

PyTree = Any


class Conditioning(NamedTuple):
    """The outermost curvatures of f at a point, or at points, and what follows for descent.

    `largest` is L and `smallest` mu, each with an eigenvalue within its bound, `bounds` (..., 2).
    Along a path all have its length as their first axis.
    """

    smallest: Array
    largest: Array
    bounds: Array

    @property
    def condition(self) -> Array:
        """Kappa = L / mu; infinite where mu is not positive."""
        positive = self.smallest > 0
        return jnp.where(positive, self.largest / jnp.where(positive, self.smallest, 1), jnp.inf)

    @property
    def safe_step(self) -> Array:
        """1 / L: every step of gradient descent goes down."""
        return 1 / self.largest

    @property
    def best_step(self) -> Array:
        """2 / (L + mu): the fastest that is constant, where mu > 0."""
        return 2 / (self.largest + self.smallest)

    @property
    def longest_step(self) -> Array:
        """2 / L: with a longer one gradient descent diverges on the quadratic model."""
        return 2 / self.largest

    @property
    def heavy_ball(self) -> tuple[Array, Array]:
        """Polyak's step 4 / (sqrt L + sqrt mu)^2 and momentum, the square of his rate."""
        top, low = jnp.sqrt(self.largest), jnp.sqrt(self.smallest)
        return 4 / (top + low) ** 2, ((top - low) / (top + low)) ** 2

    def rates(self) -> dict[str, Array]:
        """By what the error falls each iteration on a quadratic, at worst and in the limit.

        gradient descent at 1/L: 1 - 1/kappa, at 2/(L + mu): (kappa - 1)/(kappa + 1); heavy ball:
        (sqrt kappa - 1)/(sqrt kappa + 1); Nesterov's with mu known: 1 - 1/sqrt kappa.
        Sources: Polyak (1964); Nesterov (2018), sections 2.1.5 and 2.2; Lessard, Recht & Packard
        (2016), proposition 1.
        """
        kappa, root = self.condition, jnp.sqrt(self.condition)
        none = ~jnp.isfinite(kappa)
        rate = lambda value: jnp.where(none, 1.0, value).astype(kappa.dtype)
        return {
            "gradient descent, 1/L": rate(1 - 1 / kappa),
            "gradient descent, 2/(L + mu)": rate(1 - 2 / (kappa + 1)),
            "heavy ball": rate(1 - 2 / (root + 1)),
            "Nesterov": rate(1 - 1 / root),
        }

    def iterations(self, accuracy: ArrayLike) -> dict[str, Array]:
        """How many iterations bring the error to `accuracy` times that of the start.

        log(accuracy) / log(rate) by the rates above, infinite where mu is not positive. Methods
        with momentum have a double root at their rate: the error is k rate^k, for which k is
        solved. Newton: log2 log2(1 / accuracy) in the region of quadratic convergence, where it
        doubles its digits; on a quadratic it is 1.
        """
        goal = jnp.log(jnp.asarray(accuracy, self.largest.dtype))
        found = {}
        for name, rate in self.rates().items():
            slope = jnp.log(rate)
            plain = goal / jnp.where(slope < 0, slope, jnp.nan)
            count = plain
            if name in ("heavy ball", "Nesterov"):
                for _ in range(20):  # k log(rate) + log(k + 1) = log(accuracy), a contraction
                    count = (goal - jnp.log1p(count)) / slope
            found[name] = jnp.where(slope < 0, jnp.maximum(count, 1), jnp.inf)
        doubling = jnp.maximum(jnp.log2(jnp.maximum(-goal / jnp.log(2.0).astype(goal.dtype), 1)), 1)
        found["Newton"] = jnp.broadcast_to(doubling, jnp.shape(self.largest))
        return found

    def measured(
        self,
        fun: Callable[..., Array],
        x0: PyTree,
        accuracy: ArrayLike,
        args: tuple = (),
        max_steps: int = 100_000,
    ) -> dict[str, int | float]:
        """How many each method took: `iterations`, run with the settings that follow from L and mu.

        Until the largest entry of the gradient is `accuracy` times that at x0; infinite where it
        did not get there. The report of one point, with concrete values. A solve for each method.
        """
        if jnp.ndim(self.largest):
            raise ValueError(
                "`measured` starts from one point, but these are the curvatures of a path of "
                f"{self.largest.shape[0]}. Take those of one of its points."
            )
        known: dict[str, Any] = dict(TABLE)
        step, momentum = self.heavy_ball
        solvers = {
            "gradient descent, 1/L": known["FixedStep"](self.safe_step),
            "gradient descent, 2/(L + mu)": known["FixedStep"](self.best_step),
            "heavy ball": known["HeavyBall"](step, momentum),
            "Nesterov": known["Nesterov"](self.safe_step, self.smallest, restart=False),
            "Newton": known["Newton"](),
        }
        slopes = jax.tree.leaves(jax.grad(fun)(x0, *args))
        tol = accuracy * jnp.max(jnp.stack([jnp.max(jnp.abs(slope)) for slope in slopes]))
        found: dict[str, int | float] = {}
        for name, solver in solvers.items():
            sol = minimize(fun, x0, args, solver=solver, tol=tol, max_steps=max_steps)
            found[name] = int(sol.steps) if bool(sol.success) else float("inf")
        return found


def conditioning(
    fun: Callable[..., Array],
    x: PyTree,
    args: tuple = (),
    *,
    data: PyTree = None,
    batch: int | None = None,
    path: bool = False,
    **options: Any,
) -> Conditioning:
    """L, mu and kappa of `fun` at x, or at every point of a path, by Lanczos at both ends.

    Args:
        fun: `fun(x, *args)`, or with `data` `fun(x, rows, *args)`, a mean over rows.
        x: pytree of floating parameters; with `path` each leaf has a first axis, of points.
        args: further arguments.
        data: rows, as for `hessian`.
        batch: rows at a time.
        path: whether x is a path. Points are taken one after the other, in one program.
        options: of `eigenpairs`: `tol`, `room`, `max_restarts`, `key`.

    On an indefinite Hessian mu is negative and kappa infinite. Raises as `hessian` does.

    """
    if not path:
        return checked(*_ends(hessian(fun, x, args, data=data, batch=batch), options))
    x = jax.tree.map(jnp.asarray, x)
    lengths = {leaf.shape[0] if leaf.ndim else -1 for leaf in jax.tree.leaves(x)}
    if len(lengths) != 1 or -1 in lengths or 0 in lengths:
        raise ValueError(
            "With `path=True` the leaves of `x` must have one first axis, of points, but theirs "
            f"have lengths {sorted(lengths)} (-1: none)."
        )
    first = hessian(fun, jax.tree.map(lambda leaf: leaf[0], x), args, data=data, batch=batch)
    points = jax.vmap(first.domain.ravel)(x)
    found = _along(first, points, tuple(sorted(options.items())))
    return checked(found, found.largest)


@functools.partial(jax.jit, static_argnums=2)
def _along(operator: LinearOperator, points: Array, options: tuple) -> Conditioning:
    _, *rest = operator.operands
    form = operator.domain
    at = lambda flat: LinearOperator(operator.forward, None, (flat, *rest), form, form)
    return lax.map(lambda flat: _ends(at(flat), dict(options))[0], points)


def _ends(operator: LinearOperator, options: dict) -> tuple[Conditioning, Array]:
    """At one point, and what of it must be finite."""
    if operator.domain.size == 1:
        value = operator.apply(jnp.ones(1, operator.dtype))[0]
        return Conditioning(value, value, jnp.zeros(2, operator.dtype)), value
    pairs: EigenPairs = eigenpairs(operator, 2, "both", **options)
    return Conditioning(pairs.values[0], pairs.values[1], pairs.bounds), pairs.values
