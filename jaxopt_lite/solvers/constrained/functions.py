"""Objective and constraints as one vector, with its Jacobian and Hessians, dense."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def sizes(problem, x: Array, args: tuple) -> tuple[int, int]:
    """How many equalities and inequalities there are."""
    count = lambda fun: 0 if fun is None else jax.eval_shape(fun, x, *args).shape[0]
    return count(problem.eq), count(problem.ineq)


def stacked(problem, x: Array, args: tuple) -> Array:
    """(f, c, g) in one vector."""
    parts = [problem.value(x, args)[None]]
    parts += [fun(x, *args) for fun in (problem.eq, problem.ineq) if fun is not None]
    return jnp.concatenate(parts)


def evaluate(problem, x: Array, args: tuple) -> tuple[Array, Array]:
    """(f, c, g) and their Jacobian, by columns or by rows, whichever are fewer."""
    fun = lambda x: stacked(problem, x, args)
    rows = jax.eval_shape(fun, x).shape[0]
    if x.shape[0] <= rows:
        values, push = jax.linearize(fun, x)
        return values, jax.vmap(push, out_axes=1)(jnp.eye(x.shape[0], dtype=x.dtype))
    values, pull = jax.vjp(fun, x)
    return values, jax.vmap(pull)(jnp.eye(rows, dtype=x.dtype))[0]


def hessian(problem, x: Array, weights: Array, args: tuple) -> Array:
    """The Hessian of weights . (f, c, g), symmetric to the last bit."""
    gradient = jax.grad(lambda x: weights @ stacked(problem, x, args))
    push = jax.linearize(gradient, x)[1]
    matrix = jax.vmap(push)(jnp.eye(x.shape[0], dtype=x.dtype))
    return 0.5 * (matrix + matrix.T)


def complaint(values: np.ndarray, equal: int, where: str) -> str | None:
    """Which constraint is not finite in (f, c, g), if one is."""
    for name, part in (("eq", values[1 : 1 + equal]), ("ineq", values[1 + equal :])):
        if not np.all(np.isfinite(part)):
            i = int(np.flatnonzero(~np.isfinite(part))[0])
            return (
                f"`{name}` is not finite at {where}: entry {i} is {float(part[i])} there. Start "
                "where the constraints are defined, or guard their domain (a `log` of 0 and a "
                "`sqrt` at 0 are the usual causes)."
            )
    return None
