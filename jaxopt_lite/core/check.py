"""Bad input, refused before tracing goes deep: what came, what was expected, what to do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

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
            f"`args` must be a tuple of pytrees, but {_article(args)} came. "
            "For a single argument write `args=(value,)`."
        )
    for path, leaf in jax.tree_util.tree_leaves_with_path(args):
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
            raise TypeError(
                f"`args{jax.tree_util.keystr(path)}` must be an array or a number, but "
                f"{_article(leaf)} came. Let the objective close over what is not data."
            )
        _implicit_axes(f"`args{jax.tree_util.keystr(path)}`", leaf)


def _implicit_axes(label: str, leaf: Any) -> None:
    """An array over a mesh must leave the sharding of what is computed from it to the compiler."""
    mesh = getattr(jax.typeof(leaf).sharding, "mesh", None)
    if mesh is not None and AxisType.Explicit in mesh.axis_types:
        raise ValueError(
            f"{label} is sharded over a mesh with Explicit axes ({mesh.axis_names}), where every "
            "operation must state its sharding; solvers expect Auto axes. Make the mesh by "
            "`jax.make_mesh(shape, names, axis_types=(jax.sharding.AxisType.Auto,) * len(names))`."
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
        _implicit_axes(label, leaf)
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


def number(
    label: str, value: Any, least: float, *, strict: bool = False, way_out: str = ""
) -> None:
    """A real number >= `least`; or, if `strict`, > `least` or an array of such, for a sweep."""
    if isinstance(value, jax.core.Tracer):
        return
    real = isinstance(value, (int, float, np.ndarray, np.generic, jax.Array))
    real = real and not isinstance(value, bool) and np.asarray(value).dtype.kind in "iuf"
    if real and strict and np.all(np.asarray(value) > least):
        return
    if real and not strict and np.ndim(value) == 0 and value >= least:
        return
    sign = ">" if strict else ">="
    raise ValueError(f"{label} must be a number {sign} {least:g}, but {value!r} came. {way_out}")


def leaf(label: str, value: Any, least: float, *, strict: bool = True, way_out: str = "") -> None:
    """A solver's number: > `least`, or >= if not `strict`, or an array of such for a sweep.

    Anything that is neither a number nor a string passes: `tree_map` puts such things there.
    """
    if isinstance(value, jax.core.Tracer) or not isinstance(
        value, (int, float, np.ndarray, np.generic, jax.Array, str)
    ):
        return
    real = not isinstance(value, (bool, str)) and np.asarray(value).dtype.kind in "iuf"
    array = np.asarray(value)
    if real and np.all(array > least if strict else array >= least):
        return
    sign = ">" if strict else ">="
    raise ValueError(f"{label} must be a number {sign} {least:g}, but {value!r} came. {way_out}")


def count(label: str, value: Any, *, way_out: str = "") -> int:
    """An integer >= 1, as a Python int."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (whole and int(value) >= 1):
        raise ValueError(f"{label} must be an integer >= 1, but {value!r} came. {way_out}")
    return int(value)


def options(tol: Any, max_steps: Any, history: Any, differentiate: Any) -> None:
    """The options of `solve`."""
    if tol is not None:
        number("`tol`", tol, least=0.0, way_out="None takes the default.")
    if max_steps is not None:
        count("`max_steps`", max_steps, way_out="None takes the default.")
    if history not in (False, True, "x"):
        raise ValueError(
            f"`history` must be False, True, or 'x' to keep the iterates too, but {history!r} came."
        )
    if differentiate == "unrolled" and max_steps is None:
        raise ValueError(
            "differentiate='unrolled' needs `max_steps`: memory and time grow with it, whatever "
            "the number of steps that are needed. Pass max_steps=..., or differentiate='implicit'."
        )


def _article(value: Any) -> str:
    """'an Array', 'a list': the type of what came."""
    name = "Array" if isinstance(value, jax.Array) else type(value).__name__
    return f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
