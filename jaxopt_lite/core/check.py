"""Bad input, refused before tracing goes deep: what came, what was expected, what to do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .problem import Problem

PyTree = Any


def is_problem(problem: Any) -> None:
    """`problem` must be a `Problem`."""
    if not isinstance(problem, Problem):
        hint = " Wrap it: `Problem(objective)`, or call `minimize(fun, x0)`."
        raise TypeError(
            f"`problem` must be a Problem, but a {type(problem).__name__} came."
            + (hint if callable(problem) else "")
        )


def args_tuple(args: Any) -> None:
    """`args` must be a tuple of pytrees of arrays and numbers."""
    if not isinstance(args, tuple):
        raise TypeError(
            f"`args` must be a tuple of pytrees, but a {type(args).__name__} came. "
            "For a single argument write `args=(value,)`."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(
                f"`args{jax.tree_util.keystr(path)}` must be an array or a number, but a "
                f"{type(leaf).__name__} came. Let the objective close over what is not data."
            )


def start(name: str, x: PyTree) -> PyTree:
    """`x` as arrays, after refusing what is not a nonempty pytree of finite real floats."""
    leaves = jax.tree_util.tree_leaves_with_path(x)
    if not leaves:
        raise ValueError(
            f"`{name}` must hold at least one number, but it is an empty pytree ({x!r}). "
            "There is nothing to optimise."
        )
    for path, leaf in leaves:
        label = f"`{name}{jax.tree_util.keystr(path)}`"
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(
                f"{label} must be a floating array, but a {type(leaf).__name__} came. "
                "Pass arrays, or pytrees of them."
            )
        dtype = jnp.result_type(leaf)
        if jnp.issubdtype(dtype, jnp.complexfloating):
            raise TypeError(
                f"{label} must be real, but it is {dtype}. Optimise over the pair "
                "(real part, imaginary part), and build the complex number in the objective."
            )
        if not jnp.issubdtype(dtype, jnp.floating):
            raise TypeError(
                f"{label} must be floating, but it is {dtype}. Write 1.0 for 1, or "
                "`x0.astype(float)`."
            )
        if np.size(leaf) == 0:
            raise ValueError(
                f"{label} must hold at least one number, but its shape is {np.shape(leaf)}. "
                "There is nothing to optimise."
            )
        if not isinstance(leaf, jax.core.Tracer) and not np.all(np.isfinite(np.asarray(leaf))):
            raise ValueError(
                f"{label} must be finite, but it has NaN or infinite entries. Start from a finite "
                "point at which the objective is defined."
            )
    return jax.tree.map(jnp.asarray, x)


def options(tol: Any, max_steps: Any, history: Any, differentiate: Any) -> None:
    """The options of `solve`."""
    if (
        not isinstance(tol, jax.core.Tracer)
        and tol is not None
        and not np.all(np.asarray(tol) >= 0)
    ):
        raise ValueError(f"`tol` must be a number >= 0, but {tol!r} came. None takes the default.")
    if max_steps is not None and (
        isinstance(max_steps, bool)
        or not isinstance(max_steps, (int, np.integer))
        or int(max_steps) < 1
    ):
        raise ValueError(
            f"`max_steps` must be an integer >= 1, but {max_steps!r} came. None takes the default."
        )
    if history not in (False, True, "x"):
        raise ValueError(
            f"`history` must be False, True, or 'x' to keep the iterates too, but {history!r} came."
        )
    if differentiate == "unrolled" and max_steps is None:
        raise ValueError(
            "differentiate='unrolled' needs `max_steps`: memory and time grow with it, whatever "
            "the number of steps that are needed. Pass max_steps=..., or differentiate='implicit'."
        )
