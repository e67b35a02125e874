"""New functions from old ones, and what becomes of their prox.

    conjugate            Conjugate(f)            x - t prox_f(x / t, 1 / t)           Moreau
    positive multiple    Scaled(c, f)            prox_f(x, c t)
    scaling, translation Rescaled(f, a, b)       (prox_f(a x + b, a^2 t) - b) / a
    linear term          Tilted(f, l)            prox_f(x - t l, t)
    blocks of a pytree   SeparableSum(fs)        each its own
    sum                  Sum(fs)                 for some; see there

`composed` adds linear maps.
Sources: Parikh & Boyd (2014), section 2; Beck (2017), chapter 6.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..linalg import Form
from .arguments import (
    PyTree,
    at_least_everywhere,
    is_number,
    known,
    parameter,
    parameters,
    total,
    tree,
)
from .norms import L2, GroupLasso
from .proximable import Proximable, Zero, proximable, rebuilt
from .separable import L1, Box, NonNegative, Separable, SquaredL2
from .total_variation import TotalVariation

SPLITTING = "ADMM or CondatVu"


def is_one_number(value: PyTree) -> bool:
    """One leaf, without axes."""
    return jax.tree_util.all_leaves([value]) and jnp.ndim(value) == 0


def _mapped(operation: Callable, step: PyTree, *trees: PyTree) -> PyTree:
    """`operation(step, *leaves)`: for a number it is one for all leaves, else leaf by leaf."""
    if is_one_number(step):
        return jax.tree.map(lambda *leaves: operation(_cast(step, leaves[0]), *leaves), *trees)
    first, *others = trees
    return jax.tree.map(operation, parameters("`step`", step, first), first, *others)


def _cast(value: ArrayLike, like: Array) -> Array:
    return jnp.asarray(value, like.dtype)


def _inner(one: PyTree, two: PyTree) -> Array:
    form = Form.of(one)
    return form.ravel(one) @ form.ravel(two)


def _is_function(leaf) -> bool:
    return isinstance(leaf, Proximable)


def need_functions(label: str, *functions) -> None:
    """Refuse what cannot be a `Proximable`."""
    for function in functions:
        # Placeholders of transformations come as they are.
        if is_number(function) or isinstance(function, str) or function is None:
            raise TypeError(
                f"{label} must be a function of `jol.prox`, but a {type(function).__name__} came. "
                "`jol.prox.Custom(value, prox)` makes one of two functions of your own."
            )


class _Of(Proximable):
    """What is made of one function, and separable if that is."""

    function: Proximable

    def __post_init__(self):
        need_functions(f"{type(self).__name__}(function=...)", self.function)

    @property
    def separable(self):  # type: ignore[override]
        """As the function is."""
        return self.function.separable


@proximable
class Conjugate(_Of):
    """f*(y) = sup_x <x, y> - f(x), the convex conjugate.

    prox(x, t) = x - t prox_f(x / t, 1 / t), Moreau's identity: as cheap, and as differentiable, as
    that of f. `f.conjugate()` makes it, and the conjugate of a conjugate is f again.
    Source: Parikh & Boyd (2014), section 2.5.

    Args:
        function: f, closed and convex.

    """

    function: Proximable

    def value(self, x):
        """f*(x)."""
        return self.function.conjugate_value(x)

    def prox(self, x, step=1.0):
        """By Moreau's identity."""
        x = tree("`x`", x)
        inverse = _mapped(lambda t, _: 1 / t, step, x)
        if is_one_number(step):
            inverse = 1 / jnp.asarray(step, Form.of(x).dtype)
        u = _mapped(lambda t, a: a / t, step, x)
        # In this order members of the set of an indicator give exactly 0.
        return _mapped(lambda t, a, b: t * (a - b), step, u, self.function.prox(u, inverse))

    def conjugate_value(self, y):
        """f(y): f is closed and convex."""
        return self.function.value(y)

    def conjugate(self):
        """The function f itself."""
        return self.function


@proximable
class Scaled(_Of):
    """c f(x), c > 0: prox(x, t) = prox_f(x, c t), (c f)*(y) = c f*(y / c). Also `c * f`.

    Args:
        factor: c > 0, a number.
        function: f.

    """

    factor: ArrayLike
    function: Proximable

    def __post_init__(self):
        """Refuse a factor that is no positive number."""
        super().__post_init__()
        at_least_everywhere("Scaled(factor=...)", self.factor, 0.0, strict=True)

    def value(self, x):
        """C f(x)."""
        x = tree("`x`", x)
        return self._factor(x) * self.function.value(x)

    def prox(self, x, step=1.0):
        """That of f with the step c t."""
        x = tree("`x`", x)
        factor = self._factor(x)
        if is_one_number(step):
            return self.function.prox(x, factor * jnp.asarray(step, factor.dtype))
        return self.function.prox(x, _mapped(lambda t, a: t * _cast(factor, a), step, x))

    def conjugate_value(self, y):
        """C f*(y / c)."""
        y = tree("`y`", y)
        factor = self._factor(y)
        return factor * self.function.conjugate_value(_mapped(lambda c, a: a / c, factor, y))

    def nearest_subgradient(self, x, v):
        """C times that of f for v / c."""
        x, v = tree("`x`", x), tree("`v`", v)
        factor = self._factor(x)
        inner = self.function.nearest_subgradient(x, _mapped(lambda c, a: a / c, factor, v))
        return _mapped(lambda c, a: c * a, factor, inner)

    def _factor(self, x):
        factor = parameter("`factor`", self.factor, Form.of(x).dtype, ())
        return factor if known(factor) else jnp.where(factor > 0, factor, jnp.nan)


@proximable
class Rescaled(_Of):
    """f(a x + b), a != 0: the argument scaled and translated.

    prox(x, t) = (prox_f(a x + b, a^2 t) - b) / a; the conjugate is f*(y / a) - <y / a, b>.
    Source: Beck (2017), theorem 6.11.

    Args:
        function: f.
        scale: a, a number; shaped like x, too, if f is separable.
        shift: b, a number or shaped like x.

    """

    function: Proximable
    scale: PyTree = 1.0
    shift: PyTree = 0.0

    def __post_init__(self):
        """Refuse a scale of 0."""
        super().__post_init__()
        for leaf in jax.tree.leaves(self.scale):
            if is_number(leaf) and known(leaf) and not np.all(np.asarray(leaf) != 0):
                raise ValueError(
                    "Rescaled(scale=...) must not be 0, or nothing of x is left; but it is."
                )

    def value(self, x):
        """f(a x + b)."""
        return self.function.value(self._moved(*self._matched(x)))

    def prox(self, x, step=1.0):
        """That of f at a x + b with the step a^2 t, moved back."""
        x, a, b = self._matched(x)
        if is_one_number(step) and is_one_number(self.scale):
            dtype = Form.of(x).dtype
            steps = jnp.asarray(self.scale, dtype) ** 2 * jnp.asarray(step, dtype)
        else:
            self._need_separable()
            steps = jax.tree.map(lambda t, a: t * a**2, parameters("`step`", step, x), a)
        p = self.function.prox(self._moved(x, a, b), steps)
        return jax.tree.map(lambda p, a, b: (p - b) / a, p, a, b)

    def conjugate_value(self, y):
        """f*(y / a) - <y / a, b>."""
        y, a, b = self._matched(y)
        y = jax.tree.map(lambda y, a: y / a, y, a)
        return self.function.conjugate_value(y) - _inner(y, b)

    def nearest_subgradient(self, x, v):
        """That of f at a x + b for v / a, times a."""
        if not is_one_number(self.scale):
            self._need_separable()
        x, a, b = self._matched(x)
        v = jax.tree.map(lambda v, a: v / a, tree("`v`", v), a)
        inner = self.function.nearest_subgradient(self._moved(x, a, b), v)
        return jax.tree.map(lambda g, a: a * g, inner, a)

    def _need_separable(self):
        if not self.function.separable:
            raise ValueError(
                f"`scale` and `step` must be numbers for {type(self.function).__name__}, which is "
                "not a sum over entries. For f(A x + b) with a diagonal A write "
                f"`Composed(f, jnp.diag(a), b)`, for {SPLITTING}."
            )

    def _matched(self, x):
        x = tree("`x`", x)
        return x, parameters("`scale`", self.scale, x), parameters("`shift`", self.shift, x)

    @staticmethod
    def _moved(x, a, b):
        return jax.tree.map(lambda x, a, b: a * x + b, x, a, b)


@proximable
class Tilted(_Of):
    """f(x) + <l, x>: prox(x, t) = prox_f(x - t l, t), conjugate f*(y - l).

    For a quadratic term add `SquaredL2`. Source: Parikh & Boyd (2014), section 2.2.

    Args:
        function: f.
        linear: l, a number or shaped like x.

    """

    function: Proximable
    linear: PyTree = 0.0

    def value(self, x):
        """f(x) + <l, x>."""
        x = tree("`x`", x)
        return self.function.value(x) + _inner(x, self._linear(x))

    def prox(self, x, step=1.0):
        """That of f at x - t l."""
        x = tree("`x`", x)
        moved = _mapped(lambda t, a, b: a - t * b, step, x, self._linear(x))
        return self.function.prox(moved, step)

    def conjugate_value(self, y):
        """f*(y - l)."""
        y = tree("`y`", y)
        return self.function.conjugate_value(jax.tree.map(jnp.subtract, y, self._linear(y)))

    def nearest_subgradient(self, x, v):
        """That of f for v - l, and l."""
        x, v = tree("`x`", x), tree("`v`", v)
        linear = self._linear(x)
        inner = self.function.nearest_subgradient(x, jax.tree.map(jnp.subtract, v, linear))
        return jax.tree.map(jnp.add, inner, linear)

    def _linear(self, x):
        return parameters("`linear`", self.linear, x)


@proximable
class SeparableSum(Proximable):
    """sum_k f_k(x_k): a function for each part of a pytree; `Zero()` for parts without one.

    prox, conjugate and subgradients are those of the parts.

        jol.prox.SeparableSum({"weights": jol.prox.L1(0.1), "offset": jol.prox.Zero()})

    Args:
        functions: a pytree of functions; x has at least its structure, and below it what they take.

    """

    functions: PyTree

    @property
    def separable(self):  # type: ignore[override]
        """If all of them are."""
        return all(f.separable for f in jax.tree.leaves(self.functions, is_leaf=_is_function))

    def value(self, x):
        """The sum of their values."""
        return self._summed(lambda f, part: f.value(part), x)

    def prox(self, x, step=1.0):
        """Each its own."""
        x = tree("`x`", x)
        if is_one_number(step):
            return self._each(lambda f, part: f.prox(part, step), x)
        steps = parameters("`step`", step, x)
        return self._each(lambda f, part, t: f.prox(part, t), x, steps)

    def conjugate_value(self, y):
        """The sum of their conjugates."""
        return self._summed(lambda f, part: f.conjugate_value(part), y)

    def nearest_subgradient(self, x, v):
        """Each its own."""
        return self._each(lambda f, a, b: f.nearest_subgradient(a, b), x, v)

    def _summed(self, function, x):
        x = tree("`x`", x)
        return total(Form.of(x), self._each(function, x))

    def _each(self, function, *trees):
        functions, treedef = jax.tree.flatten(self.functions, is_leaf=_is_function)
        structure: Any = treedef
        need_functions("SeparableSum(functions=...)", *functions)
        try:
            parts = [structure.flatten_up_to(t) for t in trees]
        except ValueError as error:
            raise ValueError(
                f"`x` must have a part for each of `functions`, {treedef}, but its structure is "
                f"{jax.tree.structure(trees[0])}. Give `Zero()` to parts without a term."
            ) from error
        return structure.unflatten(
            [function(f, *p) for f, *p in zip(functions, *parts, strict=True)]
        )


@proximable
class Sum(Proximable):
    """f_1(x) + f_2(x) + ...: also `f + g`. Its value always, its prox where it is known.

    With u = prox(x, t) of the others, the prox of the sum is known
    - for a `SquaredL2`(w, c): that of the others at (x + t w c) / (1 + t w), step t / (1 + t w); w
      a number unless they are separable;
    - for a separable function and a `Box` or `NonNegative`: u of the function, clipped;
    - for `TotalVariation` and a separable function of the same parameters for all entries, L1 for
      the fused lasso: that of the function at u;
    - for `GroupLasso` or `L2` and `L1` or `NonNegative`, the sparse group lasso: that of the norm
      at u.
    Else it raises, and names the methods that take the terms one by one.
    Source: Yu (2013); Friedman et al. (2007).

    Args:
        functions: a tuple of them.

    """

    functions: tuple[Proximable, ...]

    def __post_init__(self):
        """Refuse what is no tuple of functions."""
        if isinstance(self.functions, Proximable):
            raise TypeError("Sum(functions=...) must be a tuple, but one function came. `f + g`?")
        if isinstance(self.functions, list | tuple):
            need_functions("Sum(functions=...)", *self.functions)

    @property
    def separable(self):  # type: ignore[override]
        """If all of them are."""
        return all(f.separable for f in self.functions)

    @property
    def has_subgradient(self):
        """Where no more than one of them has a kink."""
        _, rest = self._parts()
        return len(rest) <= 1 and all(f.has_subgradient for f in rest)

    def value(self, x):
        """The sum of the values."""
        x = tree("`x`", x)
        return total(Form.of(x), [f.value(x) for f in self.functions])

    def prox(self, x, step=1.0):
        """Where it is known; see the class."""
        x = tree("`x`", x)
        bowls, rest = self._parts()
        order = _composition(rest)
        for bowl in bowls:
            if not (is_one_number(bowl.weight) or all(f.separable for f in rest)):
                raise self._unknown("a `SquaredL2` of many weights and one that is not separable")
            x, step = _absorbed(bowl, x, step)
        if order is None:
            raise self._unknown(" + ".join(type(f).__name__ for f in rest))
        for f in order:
            x = f.prox(x, step)
        return x

    def nearest_subgradient(self, x, v):
        """The gradients of the squares, and for the others by their prox."""
        x, v = tree("`x`", x), tree("`v`", v)
        bowls, rest = self._parts()
        add = lambda *trees: jax.tree.map(lambda *leaves: sum(leaves), *trees)
        slope = add(jax.tree.map(jnp.zeros_like, x), *(f.nearest_subgradient(x, v) for f in bowls))
        v = jax.tree.map(jnp.subtract, v, slope)
        if not rest:
            return slope
        if len(rest) == 1:
            return add(slope, rest[0].nearest_subgradient(x, v))
        return add(slope, super(Sum, Sum(tuple(rest))).nearest_subgradient(x, v))

    def _parts(self) -> tuple[list[SquaredL2], list[Proximable]]:
        """The squares, a multiple of one being one, and the others but for zero."""
        functions = [
            rebuilt(f.function, weight=_multiple(f.factor, f.function.weight))
            if isinstance(f, Scaled) and isinstance(f.function, SquaredL2)
            else f
            for f in self.functions
        ]
        bowls = [f for f in functions if isinstance(f, SquaredL2)]
        return bowls, [f for f in functions if not isinstance(f, (SquaredL2, Zero))]

    @staticmethod
    def _unknown(what: str) -> NotImplementedError:
        return NotImplementedError(
            f"The prox of a sum of {what} has no formula. Take the terms one by one with a "
            f"splitting method, {SPLITTING}; or leave a smooth term in the objective."
        )


def _multiple(factor: ArrayLike, weight: PyTree) -> PyTree:
    return jax.tree.map(lambda w: jnp.asarray(w) * jnp.asarray(factor, jnp.result_type(w)), weight)


def _kind(function: Proximable) -> Proximable:
    """What decides how it composes: a multiple does as the function."""
    return _kind(function.function) if isinstance(function, Scaled) else function


def _absorbed(bowl: SquaredL2, x: PyTree, step: PyTree) -> tuple[PyTree, PyTree]:
    """The point and the step of the others that make up for a weight and a centre."""
    weight, centre = parameters("`weight`", bowl.weight, x), parameters("`centre`", bowl.centre, x)
    moved = _mapped(lambda t, a, w, c: (a + t * w * c) / (1 + t * w), step, x, weight, centre)
    if is_one_number(step) and is_one_number(bowl.weight):
        dtype = Form.of(x).dtype
        t, w = jnp.asarray(step, dtype), jnp.asarray(bowl.weight, dtype)
        return moved, t / (1 + t * w)
    return moved, _mapped(lambda t, _, w: t / (1 + t * w), step, x, weight)


def _composition(functions: list[Proximable]) -> list[Proximable] | None:
    """The order in which the prox of a sum is that of one after the other; None if none is known.

    A monotone map, the same for all entries, keeps the signs of differences, so what is a
    subgradient of the total variation stays one. Shrinking a group keeps the subgradients of what
    is positively homogeneous. Clipping is what an interval does to a convex function of one entry.
    """
    if len(functions) <= 1:
        return functions
    boxes = [f for f in functions if isinstance(_kind(f), (Box, NonNegative))]
    entries = [f for f in functions if isinstance(_kind(f), Separable) and f not in boxes]
    chains = [f for f in functions if isinstance(_kind(f), TotalVariation)]
    groups = [f for f in functions if isinstance(_kind(f), (GroupLasso, L2))]
    kinds: list[list[Any]] = [chains, entries, boxes, groups]
    if sum(map(len, kinds)) < len(functions) or max(map(len, kinds)) > 1:
        return None
    same = all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves((entries, boxes)))
    conic = all(isinstance(_kind(f), (L1, NonNegative)) for f in (*entries, *boxes))
    if (chains and (groups or not same)) or (groups and not conic):
        return None
    return [f for kind in kinds for f in kind]
