"""What a non-smooth term is: a convex function known by its value and its proximal operator.

    prox(x, t) = argmin_p  f(p) + ||p - x||^2 / (2 t)

A subclass is a frozen dataclass whose numbers are leaves of a pytree: weights may be traced,
batched and differentiated. It writes `value` and `prox`, and where there is a closed form
`conjugate_value` and `nearest_subgradient`; everything else follows from these. Each method takes
one point, an array or a pytree of arrays: batches by `jax.vmap`.

    @proximable
    class L1(Proximable):
        weight: PyTree = 1.0
        separable = True

        def value(self, x): ...
        def prox(self, x, step=1.0): ...

Outside its domain `value` is infinite. Derivatives of `prox` at a kink follow the rule of the
projections: what is met with a multiplier of zero counts as inactive. Parameters that are wrong are
an error where they are numbers, and NaN where they are traced.

Sources: Parikh & Boyd (2014); Beck (2017), chapters 6 and 7; Bauschke & Combettes (2017).
"""

import dataclasses
import functools
import typing
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.dtypes import float0
from jax.typing import ArrayLike

from ..linalg import Form, as_pytree, static

PyTree = Any
F = typing.TypeVar("F", bound="Proximable")


class Proximable:
    """Base of all proximable functions; see the module docstring for what to write in a new one."""

    separable: ClassVar[bool] = False  # a sum over the entries of x, each parameter likewise

    def value(self, x: PyTree) -> Array:
        """f(x), infinite outside the domain."""
        raise NotImplementedError

    def prox(self, x: PyTree, step: ArrayLike = 1.0) -> PyTree:
        """argmin_p f(p) + ||p - x||^2 / (2 step), unique. `step` > 0 is a number.

        For a separable f it may also be an array shaped like x: one step for each entry.
        """
        raise NotImplementedError

    def conjugate_value(self, y: PyTree) -> Array:
        """f*(y) = sup_x <x, y> - f(x), infinite where there is no bound."""
        raise NotImplementedError(f"{type(self).__name__} has no closed form of its conjugate.")

    def nearest_subgradient(self, x: PyTree, v: PyTree) -> PyTree:
        """The element of the subdifferential of f at x that is nearest to v.

        x minimises h + f, h smooth, if and only if it equals v = -grad h(x). NaN where x is outside
        the domain. Without a closed form it is the limit for small t of (x + t v - p)/t with p =
        prox(x + t v, t), taken at one t: right to the root of the rounding. Source: Bauschke &
        Combettes (2017), corollary 23.46.
        """
        form = Form.of(x)
        x, v = form.ravel(x), form.ravel(v)
        eps = jnp.finfo(x.dtype).eps
        scale = jnp.maximum(jnp.max(jnp.abs(x)), 1) / jnp.maximum(jnp.max(jnp.abs(v)), 1)
        t = eps**0.5 * scale
        ahead = form.unravel(x + t * v)
        return form.unravel(v + (x - form.ravel(self.prox(ahead, t))) / t)

    @property
    def has_subgradient(self) -> bool:
        """Whether `nearest_subgradient` is a closed form, of this and of what it is made of."""
        parts = (getattr(self, f.name) for f in dataclasses.fields(self))  # type: ignore[arg-type]
        nodes = jax.tree.leaves(tuple(parts), is_leaf=lambda node: isinstance(node, Proximable))
        inner = all(node.has_subgradient for node in nodes if isinstance(node, Proximable))
        return inner and type(self).nearest_subgradient is not Proximable.nearest_subgradient

    # -- what follows from these -----------------------------------------------------------------

    def envelope(self, x: PyTree, step: ArrayLike = 1.0) -> Array:
        """The Moreau envelope min_p f(p) + ||p - x||^2 / (2 step): finite, smooth, same minimisers.

        Its gradient is (x - prox(x, step)) / step, of Lipschitz constant 1 / step, and that is what
        `jax.grad` gives, at kinks of f too. Source: Beck (2017), section 6.7.
        """
        form = Form.of(x)
        return _envelope(form, self, form.ravel(x), jnp.asarray(step, form.dtype))

    def on_vector(self, form: Form) -> "Proximable":
        """The same function of the vector `form.ravel(x)`."""
        return OnVector(self, form)

    def conjugate(self) -> "Proximable":
        """The function f*, whose prox follows from that of f by Moreau's identity."""
        from .calculus import Conjugate  # which stands on this module

        return Conjugate(self)

    def __add__(self, other: "Proximable") -> "Proximable":
        """The sum of both; see `Sum` for when it has a prox."""
        from .calculus import Sum

        if not isinstance(other, Proximable):
            return NotImplemented
        return Sum((*_terms(self), *_terms(other)))

    def __mul__(self, factor: ArrayLike) -> "Proximable":
        """A factor > 0 times the function."""
        from .calculus import Scaled

        return NotImplemented if isinstance(factor, Proximable) else Scaled(factor, self)

    __rmul__ = __mul__


def _terms(function: Proximable) -> tuple[Proximable, ...]:
    from .calculus import Sum

    return function.functions if isinstance(function, Sum) else (function,)


@typing.dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(static,))
def proximable(cls: type[F]) -> type[F]:
    """Make a class a frozen dataclass and a pytree of its numbers, equal only to itself."""
    return as_pytree(dataclasses.dataclass(frozen=True, eq=False)(cls))


def rebuilt(function: F, **changes: Any) -> F:
    """`function` with other parameters, unchecked: they may be tracers or shaped otherwise."""
    new = object.__new__(type(function))
    for field in dataclasses.fields(function):  # type: ignore[arg-type]
        value = changes.get(field.name, getattr(function, field.name))
        object.__setattr__(new, field.name, value)
    return new


@proximable
class OnVector(Proximable):
    """A function of a pytree as one of its flat vector."""

    function: Proximable
    form: Form = static()

    @property
    def separable(self):  # type: ignore[override]
        """As the function is."""
        return self.function.separable

    def value(self, x):
        """Its value at the pytree."""
        return self.function.value(self.form.unravel(x)).astype(self.form.dtype)

    def prox(self, x, step=1.0):
        """Its prox, raveled."""
        step = step if jnp.ndim(step) == 0 else self.form.unravel(step)
        return self.form.ravel(self.function.prox(self.form.unravel(x), step))

    def conjugate_value(self, y):
        """Its conjugate at the pytree."""
        return self.function.conjugate_value(self.form.unravel(y)).astype(self.form.dtype)

    def nearest_subgradient(self, x, v):
        """Its nearest subgradient, raveled."""
        unravel = self.form.unravel
        return self.form.ravel(self.function.nearest_subgradient(unravel(x), unravel(v)))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _envelope(form: Form, function: Proximable, x: Array, step: Array) -> Array:
    p = form.ravel(function.prox(form.unravel(x), step))
    value = function.value(form.unravel(p)).astype(form.dtype)
    return value + jnp.sum((x - p) ** 2) / (2 * step)


@functools.partial(_envelope.defjvp, symbolic_zeros=True)
def _envelope_jvp(form, primals, tangents):
    function, x, step = primals
    p = form.ravel(function.prox(form.unravel(x), step))
    gap = (x - p) / step
    still = lambda tangent: isinstance(tangent, SymbolicZero) or tangent.dtype == float0
    slope = jnp.zeros_like(x[0])
    if not still(tangents[1]):
        slope = slope + gap @ tangents[1]
    if not still(tangents[2]):
        slope = slope - 0.5 * (gap @ gap) * tangents[2]
    leaves, treedef = jax.tree.flatten(function)
    moves = jax.tree.leaves(tangents[0])
    moving = [i for i, move in enumerate(moves) if not still(move)]

    def at_x(*moved):
        """F(p) - <gap, p>: p moves too, and if f is infinite next to it that is all that shows."""
        new = list(leaves)
        for i, leaf in zip(moving, moved, strict=True):
            new[i] = leaf
        function = jax.tree.unflatten(treedef, new)
        p = form.ravel(function.prox(form.unravel(x), step))
        return function.value(form.unravel(p)).astype(form.dtype) - gap @ p

    if moving:
        at, along = [leaves[i] for i in moving], [moves[i] for i in moving]
        slope = slope + jax.jvp(at_x, tuple(at), tuple(along))[1]
    return _envelope(form, function, x, step), slope


@proximable
class Zero(Proximable):
    """0: its prox is the identity; f* is the indicator of 0."""

    separable = True

    def value(self, x):
        """Nothing."""
        return jnp.zeros((), Form.of(x).dtype)

    def prox(self, x, step=1.0):
        """The point itself."""
        return x

    def conjugate_value(self, y):
        """0 at 0, else infinite."""
        form = Form.of(y)
        return jnp.where(jnp.any(form.ravel(y) != 0), jnp.inf, 0).astype(form.dtype)

    def nearest_subgradient(self, x, v):
        """0 everywhere."""
        return jax.tree.map(jnp.zeros_like, x)
