"""Choose hyper-parameters by the derivative of the validation loss: of one, or of thousands."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..core import Solution, Solver, solve
from ..core.problem import Problem
from ..solvers import LBFGSB

PyTree = Any
Model = Callable[..., Solution]
Loss = Callable[..., Array]


class HyperGradient(NamedTuple):
    """The validation loss, its gradient, shaped like the hyper-parameters, and the fit."""

    value: Array
    gradient: PyTree
    fit: Solution


def hypergradient(
    model: Model, validation_loss: Loss
) -> Callable[[PyTree, Any, Any], HyperGradient]:
    """The function (hyper, train, held) -> `HyperGradient` of a model's validation loss.

    C(h) = validation_loss(x(h), held), x(h) = model(h, train).x: by the implicit function theorem
    dC/dh = -C_x F_x^-1 F_h with F = 0 the conditions of the fit, so that one linear system, often
    with the factor that the fit has anyway, serves all hyper-parameters: the cost of about two
    fits, whether there is one or a thousand.

    Args:
        model: `model(hyper, train)` -> `Solution`, of a function of `jol.learning` or `jol.solve`,
            differentiable in `hyper`, any pytree: penalties, one a feature, widths of kernels.
        validation_loss: `validation_loss(x, held)` -> scalar, of `Solution.x` and data held out.

    Pass data as `train` and `held`, any pytrees, not closed over: then it can be put under
    `jax.jit` without folding them into the program. The gradient is NaN where the fit is not
    CONVERGED. At breakpoints, where a weight or a multiplier is about to leave 0, it is that of one
    side. Source: Bertrand et al. (2022).

    """
    _functions(model, validation_loss)

    def both(hyper: PyTree, train: Any, held: Any) -> tuple[Array, Solution]:
        fit = model(hyper, train)
        return validation_loss(fit.x, held), fit

    def measured(hyper: PyTree, train: Any, held: Any) -> HyperGradient:
        (value, fit), gradient = jax.value_and_grad(both, has_aux=True)(hyper, train, held)
        return HyperGradient(value, gradient, fit)

    return measured


def tune(
    model: Model,
    validation_loss: Loss,
    hyper: PyTree,
    train: Any,
    held: Any,
    *,
    span: float = 1e3,
    solver: Solver | None = None,
    tol: Any = None,
    max_steps: int = 50,
) -> Solution:
    """Minimise the validation loss over the logarithms of positive hyper-parameters.

    By `LBFGSB`, one fit and one hyper-gradient a step. Keep `model` and `validation_loss`, and call
    again with other data of the same shapes: nothing is compiled then.

    Args:
        model: as in `hypergradient`.
        validation_loss: as in `hypergradient`.
        hyper: where to start, a pytree of positive numbers.
        train: data of the fits.
        held: data of the loss.
        span: how far to go: from hyper / span to hyper * span.
        solver: any for bounds. None: `LBFGSB()`.
        tol: of the gradient in the logarithms. None: 1e-4 max(1, |loss at the start|).
        max_steps: fits.

    Returns a `Solution`: x are the hyper-parameters, `value` the validation loss, `aux` the fit's
    x. The loss has kinks where weights leave 0, at which it can end STALLED: as good as it gets.

    """
    _functions(model, validation_loss)
    for leaf in jax.tree.leaves(hyper):
        if not np.all(np.asarray(leaf) > 0):
            raise ValueError(
                f"`hyper` must be > 0 everywhere, since logarithms are searched, but {leaf!r} came."
            )
    if not span > 1:
        raise ValueError(f"`span` must be a number > 1, but {span!r} came.")
    logs = jax.tree.map(lambda leaf: jnp.log(jnp.asarray(leaf)), hyper)
    problem = _problem(model, validation_loss)
    args = ((train, held), jnp.asarray(np.log(span), jax.tree.leaves(logs)[0].dtype), logs)
    if tol is None:
        # Not under `jit`, which for some models is most of what there is to compile.
        tol = 1e-4 * jnp.maximum(1, jnp.abs(_Search(model, validation_loss)(logs, *args)[0]))
    found = solve(problem, logs, args, solver or LBFGSB(), tol=tol, max_steps=max_steps)
    return dataclasses.replace(found, x=jax.tree.map(jnp.exp, found.x))


@dataclasses.dataclass(frozen=True)
class _Search:
    """The validation loss of the logarithms, and the fit's x."""

    model: Model
    loss: Loss

    def __call__(self, logs: PyTree, data: tuple, *_: Any) -> tuple[Array, PyTree]:
        train, held = data
        x = self.model(jax.tree.map(jnp.exp, logs), train).x
        return self.loss(x, held), x


@functools.lru_cache(maxsize=32)
def _problem(model: Model, loss: Loss) -> Problem:
    """One object for each: what is traced of an objective is kept with it."""
    return Problem(_Search(model, loss), bounds=_within, has_aux=True)


def _within(_: tuple, reach: Array, logs: PyTree) -> tuple[PyTree, PyTree]:
    return (
        jax.tree.map(lambda leaf: leaf - reach, logs),
        jax.tree.map(lambda leaf: leaf + reach, logs),
    )


def _functions(model: Any, loss: Any) -> None:
    for name, given, shape in (
        ("model", model, "(hyper, train) -> Solution"),
        ("validation_loss", loss, "(x, held) -> scalar"),
    ):
        if not callable(given):
            raise TypeError(
                f"`{name}` must be a function {shape}, but a {type(given).__name__} came."
            )
