"""The other front doors: each poses a `Problem` and hands it to `solve`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from . import check
from .problem import Composite, Problem
from .solve import solve
from .types import Solution

PyTree = Any
OPTIONS = ("solver", "tol", "max_steps", "history", "progress", "differentiate")


def minimize(
    fun: Callable[..., Any],
    x0: PyTree,
    args: tuple = (),
    *,
    eq: Callable[..., Array] | None = None,
    ineq: Callable[..., Array] | None = None,
    bounds: Any = None,
    nonsmooth: Any = None,
    has_aux: bool = False,
    **options: Any,
) -> Solution:
    """`solve(Problem(fun, eq, ineq, bounds, nonsmooth, has_aux), x0, args, **options)`.

    `options` are those of `solve`: solver, tol, max_steps, history, progress, differentiate.
    Raises TypeError for any other.
    """
    _known("minimize", options)
    problem = Problem(fun, eq=eq, ineq=ineq, bounds=bounds, nonsmooth=nonsmooth, has_aux=has_aux)
    return solve(problem, x0, args, **options)


def least_squares(
    residual: Callable[..., PyTree],
    x0: PyTree,
    args: tuple = (),
    *,
    loss: str = "linear",
    scale: float = 1.0,
    bounds: Any = None,
    **options: Any,
) -> Solution:
    """Minimise 1/2 sum_i s^2 rho((r_i(x, *args) / s)^2), r pytree of residuals, within bounds.

    Args:
        residual: `residual(x, *args)` -> pytree of arrays, each entry one r_i; usually more than
            there are unknowns.
        x0: start, as in `solve`.
        args: tuple of pytrees passed on to `residual`.
        loss: rho(z): "linear" z, so 1/2 sum r^2; "huber" z for z <= 1, else 2 sqrt(z) - 1;
            "soft_l1" 2 (sqrt(1 + z) - 1); "cauchy" log(1 + z), not convex. All but the first limit
            the pull of outliers.
        scale: s, in units of the residuals: beyond it a residual is an outlier.
        bounds: `(lower, upper)` as in `Problem`.
        options: those of `solve`. `solver=None` takes `LevenbergMarquardt`.

    `Solution.value` is the objective above; see `covariance` for what the data say about x.
    Raises TypeError for a residual that is a scalar, and as `solve` does.
    Sources: Huber (1964); Triggs et al. (2000), section 4.3.

    """
    _known("least_squares", options)
    problem = Problem(Composite(residual, RobustLoss(loss, scale), separable=True), bounds=bounds)
    return solve(problem, x0, args, **options)


def root(
    fun: Callable[..., PyTree],
    x0: PyTree,
    args: tuple = (),
    *,
    bounds: Any = None,
    **options: Any,
) -> Solution:
    """Solve fun(x, *args) = 0, as many equations as unknowns.

    CONVERGED means that ||fun(x)||_inf <= tol (`Solution.residuals.primal`); a minimum of ||fun||
    that is no root is STALLED. `Solution.value` is 1/2 ||fun||^2.

    Args:
        fun: `fun(x, *args)` -> pytree with as many entries as `x`.
        x0: start, as in `solve`.
        args: tuple of pytrees passed on to `fun`.
        bounds: a bracket `(lower, upper)` for `Bisection`, `Brent` and `ITP`.
        options: those of `solve`. `solver=None` takes `LevenbergMarquardt`, here Newton's method in
            a trust region.

    """
    _known("root", options)
    return solve(Problem(None, eq=Raveled(fun), bounds=bounds), x0, args, **options)


def fixed_point(
    fun: Callable[..., PyTree], x0: PyTree, args: tuple = (), **options: Any
) -> Solution:
    """Solve x = fun(x, *args), where fun returns what x is: the root of fun(x) - x.

    `options` are those of `solve`; `solver=None` takes `Anderson`.
    """
    _known("fixed_point", options)
    return solve(Problem(None, eq=Displacement(fun)), x0, args, **options)


# -- the functions that problems are made of, equal when made of equal parts -----------------------


@dataclasses.dataclass(frozen=True)
class Raveled:
    """`fun` with all entries of what it returns in one vector."""

    anchor: Callable[..., PyTree]

    def __post_init__(self):
        """Refuse what is no function."""
        if not callable(self.anchor):
            raise TypeError(
                f"`fun` must be a function `fun(x, *args)`, but a {type(self.anchor).__name__} "
                "came."
            )

    def __call__(self, x: PyTree, *args: PyTree) -> Array:
        """fun(x) as a vector."""
        leaves = [jnp.ravel(jnp.asarray(leaf)) for leaf in jax.tree.leaves(self.anchor(x, *args))]
        return jnp.concatenate(leaves) if leaves else jnp.zeros(0)


class Displacement(Raveled):
    """fun(x) - x as one vector."""

    def __call__(self, x: PyTree, *args: PyTree) -> Array:
        """fun(x) - x."""
        image = self.anchor(x, *args)
        ours, theirs = str(jax.tree.structure(x)), str(jax.tree.structure(image))
        if ours != theirs:
            raise TypeError(
                f"`fun` of a fixed point must return the structure of x, {ours}, but it returned "
                f"{theirs}."
            )
        moves = jax.tree.map(jnp.subtract, image, x)
        return jnp.concatenate([jnp.ravel(leaf) for leaf in jax.tree.leaves(moves)])


@dataclasses.dataclass(frozen=True)
class RobustLoss:
    """1/2 sum_i s^2 rho((r_i / s)^2); see `least_squares`."""

    loss: str
    scale: float

    def __post_init__(self):
        """Refuse unknown losses and scales that are not positive numbers."""
        if self.loss not in LOSSES:
            raise ValueError(f"`loss` must be one of {', '.join(LOSSES)}, but {self.loss!r} came.")
        way_out = "To differentiate in it, scale the residuals yourself."
        check.number("scale", self.scale, 0.0, strict=True, way_out=way_out)
        object.__setattr__(self, "scale", float(self.scale))

    def __call__(self, residuals: PyTree, *args: PyTree) -> Array:
        """The sum over all entries of a pytree of residuals."""
        leaves = jax.tree.leaves(residuals)
        terms = [LOSSES[self.loss](jnp.asarray(leaf) / self.scale) for leaf in leaves]
        return self.scale**2 * functools.reduce(jnp.add, [jnp.sum(term) for term in terms])


def _huber(u: Array) -> Array:
    inside = jnp.clip(u, -1, 1)
    return inside * (u - 0.5 * inside)


# 1/2 rho(u^2), without the square roots of 0 that would spoil derivatives.
LOSSES: dict[str, Callable[[Array], Array]] = {
    "linear": lambda u: 0.5 * u * u,
    "huber": _huber,
    "soft_l1": lambda u: jnp.sqrt(1 + u * u) - 1,
    "cauchy": lambda u: 0.5 * jnp.log1p(u * u),
}


def _known(name: str, options: dict[str, Any]) -> None:
    unknown = sorted(set(options) - set(OPTIONS))
    if unknown:
        raise TypeError(
            f"`{name}` got unknown options {', '.join(unknown)}. It takes {', '.join(OPTIONS)}; "
            "what belongs to one algorithm is an argument of its solver, `solver=LBFGS(memory=20)`."
        )
