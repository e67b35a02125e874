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
import math
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..linalg import Form
from ..prox import Proximable, Zero
from ..prox.splitting import Split, split
from .problem import Composite, Fixed, Problem, half_square
from .types import Multipliers, Point

PyTree = Any


@dataclasses.dataclass(frozen=True)
class FlatProblem(Problem):
    """A problem over a vector whose functions are called as `objective(x, args, captured)`.

    `form` is the structure of the user's x: `form.unravel(x)` for what must see it. Where the user
    gave a `Composite` or equations, `objective` is a `Composite` of vectors, and so is solved by
    whatever takes an objective; `source` is the kind of problem the user posed.
    """

    form: Form = None  # type: ignore[assignment]
    source: str = "objective"

    @property
    def kind(self) -> str:
        """What the user posed."""
        return self.source

    def inner(self, x: Array, args: tuple) -> Array:
        """The residuals, or whatever the inner function of the composite returns, as (m,)."""
        return self.objective.inner(x, *args)  # type: ignore[union-attr]

    def outer(self, z: Array, args: tuple) -> Array:
        """The objective as a function of `inner`."""
        return self.objective.outer(z, *args)  # type: ignore[union-attr]

    def equations(self, x: Array, args: tuple) -> Array:
        """eq(x)."""
        return self.eq(x, *args)  # type: ignore[misc]

    def kkt(self, vector: Array, args: tuple) -> Array:
        """Zero at a KKT point (x, eq_mult, ineq_mult), given as one vector.

        A constraint binds where its multiplier is above the distance to it: g = 0 or x = bound
        there; elsewhere its multiplier is 0, and so is the gradient of the Lagrangian in x. One
        that binds weakly, both being 0, counts as not binding. The Jacobian is nonsingular under
        LICQ and a definite Hessian of the Lagrangian on the tangent space of what binds.
        """
        x, prices = point = self.split(vector, args)
        force = self.force(point, args)
        lower, upper = self.box(args)
        below, above = force > x - lower, -force > upper - x
        edge = jnp.where(below | (lower == upper), x - lower, jnp.where(above, x - upper, force))
        parts = [edge]
        if self.eq is not None:
            parts.append(self.eq(x, *args))
        if self.ineq is not None:
            g = self.ineq(x, *args)
            parts.append(jnp.where(prices.ineq > -g, g, prices.ineq))
        return jnp.concatenate(parts)

    def term(self, args: tuple) -> Proximable:
        """The non-smooth term as a function of the vector x; zero if there is none."""
        return Zero() if self.nonsmooth is None else self.nonsmooth(*args)

    def total(self, x: Array, args: tuple) -> Array:
        """f(x) and the non-smooth term together."""
        value = self.value(x, args)
        return value if self.nonsmooth is None else value + self.term(args).value(x)

    def fixed_point(self, x: Array, args: tuple) -> Array:
        """X - prox(x - grad f(x), 1), zero where x is optimal for f + nonsmooth.

        Its Jacobian is I - J (I - H), J that of the prox there and H the Hessian: for the l1 norm
        the rows of H on the support, those of the identity elsewhere.
        """
        return x - self.term(args).prox(x - self.gradient(x, args), 1.0)

    def backward(self, u: Array, args: tuple) -> Array:
        """The backward step prox(u, 1)."""
        return self.term(args).prox(u, 1.0)

    def normal_map(self, u: Array, args: tuple) -> Array:
        """J N, N(u) = grad f(prox(u)) + u - prox(u), zero where prox(u) is optimal.

        J, the Jacobian of the prox, makes the Jacobian symmetric there: J (I - J) + J H J.
        Source: Robinson (1992) for N.
        """
        x, push = jax.linearize(lambda u: self.backward(u, args), u)
        return push(self.gradient(x, args) + u - x)

    def term_parts(self, args: tuple) -> Split:
        """The non-smooth term as g(x) + h(K x + b)."""
        return split(self.term(args), self.form.size, self.form.dtype)

    def primal_dual(self, vector: Array, args: tuple) -> Array:
        """Zero at (x, y), y in dh(K x + b) and 0 in grad f(x) + dg(x) + K'y."""
        x, y = vector[: self.form.size], vector[self.form.size :]
        parts = self.term_parts(args)
        z = parts.apply(x)
        below = x - parts.simple.prox(x - self.gradient(x, args) - parts.transpose(y), 1.0)
        return jnp.concatenate([below, parts.outer.prox(y + z, 1.0) - z])

    def split_lagrangian(self, vector: Array, args: tuple) -> Array:
        """F + g + h(z) + y'(K x + b - z), z the point that y is a subgradient of h at."""
        x, y = vector[: self.form.size], vector[self.form.size :]
        parts = self.term_parts(args)
        image = parts.apply(x)
        z = jax.lax.stop_gradient(parts.outer.prox(y + image, 1.0))
        smooth = self.value(x, args) + parts.simple.value(x)
        return smooth + parts.outer.value(z) + y @ (image - z)

    def force(self, point: Point, args: tuple) -> Array:
        """The gradient of f + eq_mult . eq + ineq_mult . ineq: what the bounds hold against."""
        prices = Multipliers(point.multipliers.eq, point.multipliers.ineq)
        return jax.grad(lambda x: self.lagrangian(Point(x, prices), args))(point.x)

    def bound_prices(self, vector: Array, args: tuple) -> tuple[Array, Array]:
        """The multipliers of the bounds (n,), which x and the other multipliers determine."""
        point = self.split(vector, args)
        force = self.force(point, args)
        lower, upper = self.box(args)
        below, above = force > point.x - lower, -force > upper - point.x
        fixed = lower == upper
        below, above = below | (fixed & (force >= 0)), above | (fixed & (force < 0))
        return jnp.where(below, force, 0), jnp.where(above, -force, 0)

    def split(self, vector: Array, args: tuple) -> Point:
        """The point, without multipliers of bounds, whose parts are in one vector."""
        n = self.form.size
        x, rest = vector[:n], vector[n:]
        equal = 0 if self.eq is None else jax.eval_shape(self.eq, x, *args).shape[0]
        eq = None if self.eq is None else rest[:equal]
        return Point(x, Multipliers(eq, None if self.ineq is None else rest[equal:]))

    def box(self, args: tuple) -> tuple[Array, Array]:
        """Lower and upper bounds (n,), infinite where there are none."""
        n, dtype = self.form.size, self.form.dtype
        lower, upper = (None, None) if self.bounds is None else self.bounds(*args)
        lower = jnp.full(n, -jnp.inf, dtype) if lower is None else lower.astype(dtype)
        upper = jnp.full(n, jnp.inf, dtype) if upper is None else upper.astype(dtype)
        return lower, upper


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
        from jax.extend.core import ClosedJaxpr, jaxpr_as_fun  # its import takes 13 ms, of Pallas

        closed = ClosedJaxpr(self.jaxpr, captured[self.position])
        flat = jaxpr_as_fun(closed)(x, *jax.tree.leaves(args))
        return self.cast(jax.tree.unflatten(self.out_tree, flat))


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Both bounds as vectors, or None, from their jaxpr or from their values in `captured`."""

    traced: Traced | None
    position: int
    given: tuple[bool, ...]

    def __call__(self, args: tuple, captured: tuple[list[Array], ...]) -> tuple:
        """(lower, upper)."""
        if self.traced is not None:
            return self.traced(jnp.zeros(0), args, captured)
        values = iter(captured[self.position])
        return tuple(next(values) if there else None for there in self.given)


@dataclasses.dataclass(frozen=True)
class Term:
    """The non-smooth term on vectors, from its jaxpr or from its parameters in `captured`."""

    traced: Traced | None
    position: int
    treedef: Any = None

    def __call__(self, args: tuple, captured: tuple[list[Array], ...]) -> Proximable:
        """The function of the vector x."""
        if self.traced is not None:
            return self.traced(jnp.zeros(0), args, captured)
        return jax.tree.unflatten(self.treedef, captured[self.position])


_NAMES = ("objective", "eq", "ineq", "bounds", "outer", "nonsmooth")
_POSITIONS = {name: i for i, name in enumerate(_NAMES)}
_cache: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def flatten(problem: Problem, form: Form, args: tuple) -> Tracing:
    """Trace the functions of `problem` at the shapes of `x` (given by `form`) and `args`.

    Remembered for as long as the user's first function lives, unless something being traced is
    closed over. Bounds given as values are put in anew each time.
    """
    fixed = isinstance(problem.bounds, Fixed)
    sides = problem.bounds.bounds if fixed else ()
    bounds = tuple(side is not None for side in sides) if fixed else problem.bounds
    anchor = _anchor(problem)
    named = [_named(fun, anchor) for fun in (problem.objective, problem.eq)]
    term, weights = _parameters(problem.nonsmooth, form)
    functions = (*named, problem.ineq, bounds, term, problem.has_aux)
    signature = _signature(args), jax.config.read("jax_enable_x64")
    try:
        known = _cache.setdefault(anchor, {})
        key = (functions, form, *signature)
        tracing = known.get(key)
    except TypeError:  # not weakly referable, or not hashable: traced anew each time
        known, key, tracing = {}, None, None
    if tracing is None:
        tracing = _trace_all(problem, form, args)
        if not any(isinstance(c, jax.core.Tracer) for c in jax.tree.leaves(tracing.captured)):
            known[key] = tracing
    captured = list(tracing.captured)
    if weights is not None:
        captured[_POSITIONS["nonsmooth"]] = weights
    if fixed:
        values = [_like(form, side) for side in sides if side is not None]
        check_bounds(*values)
        captured[_POSITIONS["bounds"]] = values
    return tracing._replace(captured=tuple(captured))


def _parameters(nonsmooth: Any, form: Form) -> tuple[Any, list[Array] | None]:
    """What tells a non-smooth term given as such from others, and its parameters; on vectors."""
    if not isinstance(nonsmooth, Proximable):
        return nonsmooth, None
    leaves, treedef = jax.tree.flatten(nonsmooth.on_vector(form))
    leaves = [jnp.asarray(leaf) for leaf in leaves]
    return (treedef, *((leaf.shape, leaf.dtype) for leaf in leaves)), leaves


def check_bounds(*sides: Array) -> None:
    """Refuse bounds that leave no room, where their values are known."""
    if len(sides) < 2 or any(isinstance(side, jax.core.Tracer) for side in sides):
        return
    lower, upper = sides
    bad = np.flatnonzero(~(np.asarray(lower) <= np.asarray(upper)))
    if bad.size:
        i = int(bad[0])
        raise ValueError(
            f"`bounds` must have lower <= upper, but entry {i} has lower {float(lower[i])} and "
            f"upper {float(upper[i])}. The order is `(lower, upper)`; None stands for no bound."
        )


def _anchor(problem: Problem) -> Callable:
    """The user's own function, which outlives the objects that are made of it at each call."""
    function: Any = problem.eq if problem.objective is None else problem.objective
    while isinstance(function, Composite):
        function = function.inner
    return getattr(function, "anchor", function)


def _named(function: Any, anchor: Callable) -> Any:
    """What tells `function` from others of the same anchor, without keeping the anchor alive."""
    if isinstance(function, Composite):
        return _named(function.inner, anchor), function.outer, function.separable
    if function is anchor or getattr(function, "anchor", None) is anchor:
        return type(function)
    return function


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
    captured: list[list[Array]] = [[] for _ in _POSITIONS]
    x = jax.ShapeDtypeStruct((form.size,), form.dtype)

    def trace(name: str, fun: Callable, x: Any, position: str) -> tuple[Traced, Any]:
        closed, out = _trace(name, fun, form, x, args)
        cast = _check_output(name, out, form, problem.has_aux)
        captured[_POSITIONS[position]] = [jnp.asarray(c) for c in closed.consts]
        return Traced(closed.jaxpr, jax.tree.structure(out), _POSITIONS[position], cast), out

    def compose(inner: Traced, out: Any, outer: Callable) -> Composite:
        z = Form.of(out)
        at = jax.ShapeDtypeStruct((z.size,), form.dtype)
        on_vector = lambda vector, *args: outer(z.unravel(vector), *args)
        outside, _ = trace("outer", on_vector, at, "outer")
        return Composite(inner, outside, problem.kind != "composite")

    for name in ("eq", "ineq"):
        fun = getattr(problem, name)
        if fun is not None:
            functions[name], out = trace(name, lambda x, *a, f=fun: f(form.unravel(x), *a), x, name)
            if name == "eq" and problem.kind == "equations":
                _require_square(out, form)
                functions["objective"] = compose(functions[name], _vector_like(out), half_square)
    if isinstance(problem.objective, Composite):
        name = "residual" if problem.objective.separable else "inner"
        fun = problem.objective.inner
        inner, out = trace(name, lambda x, *a: fun(form.unravel(x), *a), x, "objective")
        functions["objective"] = compose(inner, out, problem.objective.outer)
    elif problem.objective is not None:
        objective = problem.objective
        functions["objective"], _ = trace(
            "objective", lambda x, *a: objective(form.unravel(x), *a), x, "objective"
        )
    if problem.bounds is not None:
        functions["bounds"] = _bounds(problem.bounds, form, args, captured)
    if problem.nonsmooth is not None:
        functions["nonsmooth"] = _term(problem.nonsmooth, form, args, captured)
    flat = FlatProblem(
        **functions,
        has_aux=problem.has_aux,
        form=form,
        source=problem.kind,
    )
    return Tracing(flat, tuple(captured))


def _require_square(out: Any, form: Form) -> None:
    """As many equations as unknowns."""
    if (got := math.prod(out.shape)) != form.size:
        raise ValueError(
            f"`fun` must return as many equations as x has entries, {form.size}, but it returned "
            f"{got}. For more equations than unknowns, or fewer, use `least_squares`."
        )


def _vector_like(out: Any) -> jax.ShapeDtypeStruct:
    """What the cast of `_check_output` makes of the output of `eq`."""
    return jax.ShapeDtypeStruct(out.shape or (1,), out.dtype)


def _bounds(bounds: Callable, form: Form, args: tuple, captured: list) -> Bounds:
    """Values stay values; a function of `args` is traced."""
    position = _POSITIONS["bounds"]
    if isinstance(bounds, Fixed):
        return Bounds(None, position, tuple(side is not None for side in bounds.bounds))

    def on_vector(_, *args):
        return tuple(None if side is None else _like(form, side) for side in bounds(*args))

    closed, out = _trace("bounds", on_vector, form, jax.ShapeDtypeStruct((0,), form.dtype), args)
    captured[position] = [jnp.asarray(c) for c in closed.consts]
    traced = Traced(closed.jaxpr, jax.tree.structure(out), position, lambda sides: sides)
    return Bounds(traced, position, (True, True))


def _term(nonsmooth: Any, form: Form, args: tuple, captured: list) -> Term:
    """Parameters stay parameters; a function of `args` is traced."""
    position = _POSITIONS["nonsmooth"]
    if isinstance(nonsmooth, Proximable):
        vector = nonsmooth.on_vector(form)
        captured[position] = [jnp.asarray(leaf) for leaf in jax.tree.leaves(vector)]
        term = Term(None, position, jax.tree.structure(vector))
    else:

        def on_vector(_, *args):
            made = nonsmooth(*args)
            if not isinstance(made, Proximable):
                raise TypeError(
                    "`nonsmooth(*args)` must return a function of `jol.prox`, `jol.prox.L1(weight)`"
                    f" for instance, but it returned a {type(made).__name__}."
                )
            return jax.tree.map(jnp.asarray, made.on_vector(form))

        empty = jax.ShapeDtypeStruct((0,), form.dtype)
        closed, out = _trace("nonsmooth", on_vector, form, empty, args)
        captured[position] = [jnp.asarray(c) for c in closed.consts]
        traced = Traced(closed.jaxpr, jax.tree.structure(out), position, lambda term: term)
        term = Term(traced, position)
    _check_term(term, form, args, captured)
    return term


def _check_term(term: Term, form: Form, args: tuple, captured: list) -> None:
    """Refuse a term whose value is no number or whose prox does not return a point like x."""
    x = jax.ShapeDtypeStruct((form.size,), form.dtype)

    def both(x, args, captured):
        function = term(args, captured)
        try:
            return function.value(x), function.prox(x, 1.0)
        except NotImplementedError:  # a sum, or a linear map inside: for splitting methods
            return function.value(x), x

    value, p = jax.eval_shape(both, x, args, tuple(captured))
    if value.shape != () or p.shape != x.shape:
        raise ValueError(
            f"`nonsmooth` must have a scalar value and a prox shaped like x, which has {form.size} "
            f"entries, but they are {_describe(value)} and {_describe(p)}."
        )


def _trace(name: str, fun: Callable, form: Form, x: Any, args: tuple):
    """The jaxpr of `fun(x, *args)`, and its output's shapes; errors say what it was given."""
    try:
        return jax.make_jaxpr(lambda x, args: fun(x, *args), return_shape=True)(x, args)
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
    if not isinstance(side, (dict, list, tuple)) and jnp.ndim(side) == 0:
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
    if name in ("residual", "inner"):
        return _residual_cast(name, out, form)
    if name in ("objective", "outer"):
        has_aux = has_aux and name == "objective"
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
                f"`{name}` must return a real floating scalar of shape (), but it returned "
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


def _residual_cast(name: str, out: PyTree, form: Form) -> Callable:
    """Refuse what is no vector of real numbers; return the cast to one vector."""
    leaves = jax.tree.leaves(out)
    real = all(hasattr(leaf, "shape") and leaf.dtype.kind == "f" for leaf in leaves)
    size = sum(leaf.size for leaf in leaves) if real else 0
    scalar = name == "residual" and len(leaves) == 1 and real and leaves[0].shape == ()
    if not size or scalar:
        way_out = "Return floating arrays, one entry a residual."
        if scalar:
            way_out = (
                "Return the residuals r_i, not their sum of squares; an objective goes to "
                "`minimize`, and a single residual is `jnp.atleast_1d(r)`."
            )
        raise TypeError(
            f"`{name}` must return a pytree of real arrays with at least one entry, but it "
            f"returned {_describe(out)}. {way_out}"
        )
    return Form.of(out).astype(form.dtype).ravel


def _describe(tree: PyTree) -> str:
    """'float32[3]' for an array, the structure with such leaves for a pytree."""

    def leaf(value):
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return f"{value.dtype}[{','.join(map(str, value.shape))}]"
        return f"{type(value).__name__} {value!r}"

    described = jax.tree.map(leaf, tree)
    return described if isinstance(described, str) else str(described).replace("'", "")
