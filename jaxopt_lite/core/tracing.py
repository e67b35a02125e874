"""From the user's functions to a problem over one flat vector, each function traced once.

    Problem(x pytree, *args)  ->  trace, hoist  ->  Problem(x vector, args, captured)

Each function becomes a jaxpr: values, gradients, Hessians and the implicit derivative are all taken
of that, so the user's Python runs once. What a function closes over comes out of the trace as a
list of constants and goes back in as an argument. That gives three things: values being
differentiated or batched outside get right derivatives although they are not in `args`; large
arrays are operands of the compiled program, where XLA would spend minutes folding them as
constants; and compiled code can be reused, since nothing of the trace remains in the function.
"""

import dataclasses
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from ..linalg import Form
from .problem import Problem

PyTree = Any


@dataclasses.dataclass(frozen=True)
class FlatProblem(Problem):
    """A problem over a vector whose functions are called as `objective(x, args, captured)`.

    `form` is the structure of the user's x: `form.unravel(x)` for what must see it.
    """

    form: Form = None  # type: ignore[assignment]


class Tracing(NamedTuple):
    """What comes out of a trace: use it as `problem.value(x, (args, captured))`."""

    problem: FlatProblem
    captured: tuple[list[Array], ...]  # for each function, what it closes over


@dataclasses.dataclass(frozen=True, eq=False)
class Traced:
    """A function of (x vector, args, captured) that evaluates a jaxpr. Equal only to itself."""

    jaxpr: Any
    out_tree: Any
    position: int  # where in `captured` this function's constants are
    cast: Callable[[PyTree], PyTree]

    def __call__(self, x: Array, args: tuple, captured: tuple[list[Array], ...]) -> PyTree:
        """The function's output, its structure restored."""
        closed = ClosedJaxpr(self.jaxpr, captured[self.position])
        flat = jaxpr_as_fun(closed)(x, *jax.tree.leaves(args))
        return self.cast(jax.tree.unflatten(self.out_tree, flat))


_FUNCTIONS = ("objective", "eq", "ineq", "bounds")
_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def flatten(problem: Problem, form: Form, args: tuple) -> Tracing:
    """Trace the functions of `problem` at the shapes of `x` (given by `form`) and `args`.

    Remembered for as long as the objective lives, unless something being traced is closed over.
    """
    functions = (problem.eq, problem.ineq, problem.bounds, problem.nonsmooth, problem.has_aux)
    key = (functions, form, _signature(args), jax.config.read("jax_enable_x64"))
    try:
        known = _cache.setdefault(problem.objective, {})
    except TypeError:  # not weakly referable, or not hashable: traced anew each time
        known = {}
    if key not in known:
        tracing = _trace_all(problem, form, args)
        if any(isinstance(c, jax.core.Tracer) for c in jax.tree.leaves(tracing.captured)):
            return tracing
        known[key] = tracing
    return known[key]


def _signature(args: tuple) -> tuple:
    """What of `args` a trace depends on: structure, shapes, dtypes and weak types."""

    def kind(leaf: Any) -> tuple:
        weak = isinstance(leaf, (int, float)) or getattr(
            getattr(leaf, "aval", None), "weak_type", False
        )
        return jnp.shape(leaf), jnp.result_type(leaf), weak

    leaves, treedef = jax.tree.flatten(args)
    return treedef, tuple(kind(leaf) for leaf in leaves)


def hoist(fun: Callable[[Array, tuple], PyTree], x: Any, args: tuple) -> tuple["Traced", tuple]:
    """`fun(x, args)` as a function of (x, args, captured) that closes over nothing, and `captured`.

    `x` gives shape and dtype only; `fun` is traced once.
    """
    closed, out = jax.make_jaxpr(fun, return_shape=True)(x, args)
    traced = Traced(closed.jaxpr, jax.tree.structure(out), 0, lambda same: same)
    captured = ([jnp.asarray(c) for c in closed.consts],)
    return traced, captured


def _trace_all(problem: Problem, form: Form, args: tuple) -> Tracing:
    functions: dict[str, Any] = {}
    captured: list[list[Array]] = []
    for position, name in enumerate(_FUNCTIONS):
        fun = getattr(problem, name)
        if fun is None:
            captured.append([])
            continue
        closed, out = _trace(name, fun, form, args)
        cast = _check_output(name, out, form, problem.has_aux)
        functions[name] = Traced(closed.jaxpr, jax.tree.structure(out), position, cast)
        captured.append([jnp.asarray(c) for c in closed.consts])
    flat = FlatProblem(**functions, nonsmooth=problem.nonsmooth, has_aux=problem.has_aux, form=form)
    return Tracing(flat, tuple(captured))


def _trace(name: str, fun: Callable, form: Form, args: tuple):
    """The jaxpr of `fun` on a flat x, and its output's shapes; errors say what it was given."""
    x = jax.ShapeDtypeStruct((form.size,), form.dtype)
    if name == "bounds":

        def on_vector(x, args):
            sides = fun(*args)
            return tuple(None if side is None else _like(form, side) for side in sides)

    else:

        def on_vector(x, args):
            return fun(form.unravel(x), *args)

    try:
        return jax.make_jaxpr(on_vector, return_shape=True)(x, args)
    except Exception as error:
        given = form.unravel(jnp.zeros(form.size, form.dtype))
        note = (
            f"jaxopt_lite could not evaluate `{name}(x, *args)`. It was given\n"
            f"  x:    {_describe(given)}\n"
            + "".join(f"  args[{i}]: {_describe(arg)}\n" for i, arg in enumerate(args))
            + "Expected: a function of x and of as many `args` as are passed, with shapes that fit."
        )
        error.add_note(note)
        if isinstance(error, (TypeError, ValueError)) and not isinstance(
            error, jax.errors.JAXTypeError
        ):
            raise type(error)(f"{error}\n\n{note}") from error
        raise


def _like(form: Form, side: PyTree) -> Array:
    """A bound as a vector: a scalar for all, or one value for each entry of x."""
    if jnp.ndim(side) == 0 and not isinstance(side, (dict, list, tuple)):
        return jnp.full((form.size,), side, form.dtype)
    got, expected = Form.of(jax.tree.map(jnp.asarray, side)), form
    if (got.treedef, got.shapes) != (expected.treedef, expected.shapes):
        raise ValueError(
            f"`bounds` must be scalars or have the structure and shapes of x, but a bound has "
            f"shapes {got.shapes} and x has {expected.shapes}."
        )
    return form.ravel(side)


def _check_output(name: str, out: PyTree, form: Form, has_aux: bool) -> Callable:
    """Refuse outputs that are not what the problem says; return the cast to the dtype of x."""
    dtype = form.dtype
    if name == "objective":
        pair = isinstance(out, tuple) and len(out) == 2
        if has_aux and not pair:
            raise TypeError(
                "`objective` must return `(value, aux)` because has_aux=True, but it returned "
                f"{_describe(out)}. Return a pair, or drop has_aux=True."
            )
        value = out[0] if has_aux else out
        if not hasattr(value, "shape") or value.shape != () or value.dtype.kind not in "f":
            if getattr(value, "dtype", dtype).kind == "c":
                way_out = "Return a real number, `jnp.abs(z) ** 2` for instance."
            elif pair and not has_aux:
                way_out = "If the second output is auxiliary, pass has_aux=True."
            elif hasattr(value, "shape") and value.shape:
                way_out = "Reduce it, with `jnp.sum` or `jnp.mean` for instance."
            else:
                way_out = "Return one real floating number."
            raise TypeError(
                "`objective` must return a real floating scalar of shape (), but it returned "
                f"{_describe(value)}. {way_out}"
            )
        if has_aux:
            return lambda pair: (jnp.asarray(pair[0], dtype), pair[1])
        return lambda value: jnp.asarray(value, dtype)
    if name in ("eq", "ineq"):
        ok = hasattr(out, "shape") and len(out.shape) <= 1 and out.dtype.kind == "f"
        if not ok:
            raise TypeError(
                f"`{name}` must return a real array of shape (m,) or (), one entry a constraint, "
                f"but it returned {_describe(out)}. Use `jnp.concatenate` or `.ravel()`."
            )
        return lambda value: jnp.atleast_1d(jnp.asarray(value, dtype))
    return lambda sides: sides


def _describe(tree: PyTree) -> str:
    """'float32[3]' for an array, the structure with such leaves for a pytree."""

    def leaf(value):
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return f"{value.dtype}[{','.join(map(str, value.shape))}]"
        return f"{type(value).__name__} {value!r}"

    described = jax.tree.map(leaf, tree)
    return described if isinstance(described, str) else str(described).replace("'", "")
