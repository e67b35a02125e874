"""What a set is described by: refused where it is concrete and wrong, NaN where it is traced.

A projection needs a set that is not empty. A radius, a bound or a total that is a number is checked
before anything is computed. One that is traced cannot be: then `valid` makes the point and its
derivative NaN, lane by lane.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import Form

PyTree = Any
Condition = Array | None  # None: known to hold


def tree(label: str, x: PyTree) -> PyTree:
    """`x` with leaves that are real floating arrays; half precision becomes float32."""
    if not jax.tree.leaves(x):
        raise ValueError(f"{label} must hold at least one array, but {x!r} came.")
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: _floating(f"{label}{jax.tree_util.keystr(path)}", leaf), x
    )


def _floating(label: str, leaf: Any) -> Array:
    if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, int, float, complex)):
        raise TypeError(
            f"{label} must be a floating array, but a {type(leaf).__name__} came. Pass arrays, or "
            "pytrees of them."
        )
    dtype = jnp.result_type(leaf)
    if not jnp.issubdtype(dtype, jnp.floating):
        way_out = (
            "Project the pair (real part, imaginary part)."
            if jnp.issubdtype(dtype, jnp.complexfloating)
            else "Write 1.0 for 1, or `x.astype(float)`."
        )
        raise TypeError(f"{label} must be real and floating, but it is {dtype}. {way_out}")
    return jnp.asarray(leaf, jnp.float32 if dtype.itemsize < 4 else dtype)


def array(label: str, x: Any, ndim: int, way_out: str) -> Array:
    """A real floating array with `ndim` axes and at least one entry."""
    if not isinstance(x, (jax.Array, np.ndarray, np.generic, float, int, complex)):
        raise TypeError(f"{label} must be one array, but a {type(x).__name__} came. {way_out}")
    x = _floating(label, x)
    if x.ndim != ndim or x.size == 0:
        raise ValueError(
            f"{label} must have {ndim} {'axis' if ndim == 1 else 'axes'} and at least one entry, "
            f"but its shape is {x.shape}. {way_out}"
        )
    return x


def parameter(label: str, value: ArrayLike, dtype, shape: tuple[int, ...]) -> Array:
    """Numbers of a set in the dtype of x, where a scalar stands for an array of `shape`."""
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float)):
        raise TypeError(f"{label} must be an array or a number, but a {type(value).__name__} came.")
    if jnp.issubdtype(jnp.result_type(value), jnp.complexfloating):
        raise TypeError(f"{label} must be real, but it is {jnp.result_type(value)}.")
    if np.shape(value) not in ((), shape):
        raise ValueError(
            f"{label} must have shape {shape}{' or be a number' if shape else ''}, but its shape "
            f"is {np.shape(value)}. {'Use `jax.vmap` for many of them.' if not shape else ''}"
        )
    if known(value):
        with jax.ensure_compile_time_eval():  # under `jit`, too, a number stays one
            return jnp.broadcast_to(jnp.asarray(value, dtype), shape)
    return jnp.broadcast_to(jnp.asarray(value, dtype), shape)


def parameters(label: str, value: PyTree, like: PyTree) -> PyTree:
    """As `parameter`, for each leaf of `like`; a single number stands for all entries."""
    if jax.tree_util.all_leaves([value]) and np.ndim(value) == 0:
        value = jax.tree.map(lambda _: value, like)
    got: Any = jax.tree.structure(value)
    expected: Any = jax.tree.structure(like)
    if got != expected:
        raise ValueError(
            f"{label} must be a number or a pytree like x, {expected}, but {got} came. A bare list "
            "is a pytree: make it an array."
        )
    return jax.tree.map(lambda v, x: parameter(label, v, x.dtype, x.shape), value, like)


def known(*values: Any) -> bool:
    """No value is traced, so that its numbers can be looked at."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def require(test: Callable[..., Array], values: tuple, message: Callable[[], str]) -> Condition:
    """`test(*values)`, or an error if it can be decided now, and does not hold."""
    if not known(values):
        return test(*values)
    with jax.ensure_compile_time_eval():
        if not bool(test(*values)):
            raise ValueError(message())
    return None


def at_least(label: str, value: Array, least: float, way_out: str = "") -> Condition:
    """`value` >= `least` for a number."""

    def message():
        return f"{label} must be a number >= {least:g}, but {value.item()!r} came. {way_out}"

    return require(lambda v: v >= least, (value,), message)


def is_number(leaf: Any) -> bool:
    """An array or a number, traced or not; no placeholder, as transformations put into pytrees."""
    return isinstance(leaf, (np.ndarray, np.generic, int, float, jax.Array))


def above(least: float, strict: bool = False) -> Callable[[Any], Any]:
    """The test v >= least, or v > least."""
    return lambda v: v > least if strict else v >= least


def at_least_everywhere(label: str, value: PyTree, least: float, strict: bool = False) -> None:
    """Refuse numbers below `least`, or NaN, where they are known; leaves may be placeholders."""
    test, relation = above(least, strict), ">" if strict else ">="
    for leaf in jax.tree.leaves(value):
        if not is_number(leaf) or not known(leaf):
            continue
        if not np.all(test(np.asarray(leaf))):
            worst = float(np.min(np.asarray(leaf)))
            raise ValueError(
                f"{label} must be {relation} {least:g} everywhere, but {worst!r} came."
            )


def nan_unless(test: Callable[[Array], Array], values: PyTree) -> PyTree:
    """`values`, NaN where `test` fails: what is traced cannot be refused."""
    return jax.tree.map(lambda v: v if known(v) else jnp.where(test(v), v, jnp.nan), values)


def total(form: Form, *terms: PyTree) -> Array:
    """The sum of all entries of pytrees, in the dtype of `form`."""
    return sum(
        (jnp.sum(leaf.astype(form.dtype)) for leaf in jax.tree.leaves(terms)),
        start=jnp.zeros((), form.dtype),
    )


def slack(dtype) -> float:
    """eps^(3/5): who is so near to a set, for numbers of size 1, is a member.

    Members are computed, as projections and by Moreau's identity, with errors of eps times what
    they were computed from.
    """
    return float(jnp.finfo(dtype).eps) ** 0.6


def within(size: Array, bound: ArrayLike) -> Array:
    """`size` <= `bound`, with some slack."""
    return size <= bound * (1 + slack(size.dtype))


def valid(point: PyTree, inputs: PyTree, *conditions: Condition) -> PyTree:
    """`point`, a function of `inputs`; where a condition fails NaN, in value and derivative.

    But for a cotangent of zero: who masks a lane out of a sum gets the derivative of the others.
    """
    traced = [condition for condition in conditions if condition is not None]
    if not traced:
        return point
    holds = jnp.all(jnp.stack(traced))
    # One vector: of a pytree, some leaves may have no tangent, which custom_linear_solve forbids.
    form, vector = flat(point)
    # Without a set nothing has to depend on anything: make it all of the inputs.
    anything = sum(jnp.sum(leaf.astype(form.dtype)) for leaf in jax.tree.leaves(inputs))
    vector = jnp.where(holds, vector, anything)

    def solve(_, b):
        return jnp.where(holds, b, jnp.nan)

    def transpose_solve(_, ct):
        return jnp.where(holds | jnp.all(ct == 0), ct, jnp.nan)

    return form.unravel(lax.custom_linear_solve(lambda v: v, vector, solve, transpose_solve))


def flat(x: PyTree) -> tuple[Form, Array]:
    """The pytree x as one vector, and how to get back."""
    form = Form.of(x)
    return form, form.ravel(x)


def snap(value: Array, lower: ArrayLike, upper: ArrayLike) -> Array:
    """`value` rounded into [lower, upper], with the derivative of `value`."""
    return value + lax.stop_gradient(jnp.clip(value, lower, upper) - value)
