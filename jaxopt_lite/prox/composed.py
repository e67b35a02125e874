"""Functions of a linear map of x, groups that overlap, and functions of the user's own."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..linalg import Form, as_pytree, static
from .arguments import PyTree, flat, is_number, known, parameter, parameters, slack, tree
from .calculus import SPLITTING, need_functions
from .indicators import as_partial
from .norms import GroupLasso, infinite_unless
from .proximable import Proximable, proximable


@as_pytree
@dataclasses.dataclass(frozen=True, eq=False)
class _OnVector:
    """A linear function of a pytree as one of its flat vector."""

    function: Callable
    form: Form = static()

    def __call__(self, vector: Array) -> PyTree:
        return self.function(self.form.unravel(vector))


@proximable
class Composed(Proximable):
    """f(A x + b), A linear: total variations, generalised lasso, losses of linear models.

    `function`, `apply(x)` = A x + b and `transpose(y)` = A'y are what splitting methods take. The
    prox has a formula where A A' = c I, with p = prox_f(A x + b, c t):

        prox(x, t) = x + A'(p - (A x + b)) / c

    Elsewhere it raises, and names ADMM and CondatVu. Source: Parikh & Boyd (2014), section 2.2;
    Beck (2017), theorem 6.15.

    Args:
        function: f.
        matrix: A, an array (m, n) for x (n,) (or a pytree of n entries, as a vector); or a linear
            function of x, any pytrees, with its data bound by `jax.tree_util.Partial`.
        offset: b, a number or like A x.
        gram: c, if A A' = c I is known to hold. None: looked at where A is an array and not
            traced, O(m^2 n); taken for not to hold where it cannot be seen.

    """

    function: Proximable
    matrix: ArrayLike | Callable
    offset: PyTree = 0.0
    gram: ArrayLike | None = None

    def __post_init__(self):
        """Make a function a pytree; look whether A A' = c I."""
        need_functions("Composed(function=...)", self.function)
        if callable(self.matrix):
            object.__setattr__(self, "matrix", as_partial("Composed(matrix=...)", self.matrix))
        elif is_number(self.matrix) and jnp.ndim(self.matrix) < 2:
            raise ValueError(
                "Composed(matrix=...) must be an array (m, n) or a linear function, but its shape "
                f"is {jnp.shape(self.matrix)}. For a diagonal, or c x, use `Rescaled`."
            )
        elif self.gram is None and known(self.matrix) and jnp.ndim(self.matrix) == 2:
            object.__setattr__(self, "gram", _gram(np.asarray(self.matrix)))

    def apply(self, x: PyTree) -> PyTree:
        """A x + b."""
        z = self._linear(x)
        return jax.tree.map(jnp.add, z, parameters("`offset`", self.offset, z))

    def transpose(self, y: PyTree, like: PyTree = None) -> PyTree:
        """A'y. `like` is any x, or its shapes, which a linear function does not tell of itself."""
        if not callable(self.matrix):
            if like is None:
                return jnp.asarray(self.matrix, y.dtype).T @ y
            form = Form.of(like)
            return form.unravel(jnp.asarray(self.matrix, form.dtype).T @ form.ravel(y))
        if isinstance(self.matrix, _OnVector):
            form = self.matrix.form
            like = jax.ShapeDtypeStruct((form.size,), form.dtype)
        if like is None:
            raise ValueError("`like` must be given, x or its shapes, where A is a function.")
        shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), like)
        return jax.linear_transpose(self.matrix, shapes)(y)[0]

    def value(self, x):
        """f(A x + b)."""
        return self.function.value(self.apply(x))

    def prox(self, x, step=1.0):
        """Where A A' = c I; else it raises."""
        x = tree("`x`", x)
        if self.gram is None:
            raise NotImplementedError(
                f"The prox of {type(self.function).__name__}(A x + b) has a formula only where "
                f"A A' = c I, which does not hold or cannot be seen. Use {SPLITTING}, which take A "
                "as it is, or pass `gram=c` if you know that it holds."
            )
        form, vector = flat(x)
        gram = jnp.asarray(self.gram, form.dtype)
        z = self.apply(x)
        p = self.function.prox(z, gram * jnp.asarray(step, form.dtype))
        back = self.transpose(jax.tree.map(jnp.subtract, p, z), x)
        return form.unravel(vector + form.ravel(back) / gram)

    def conjugate_value(self, y):
        """f*(A y / c) - <A y / c, b> where y is in the range of A', else infinite; A A' = c I."""
        if self.gram is None:
            return super().conjugate_value(y)
        y = tree("`y`", y)
        form, vector = flat(y)
        gram = jnp.asarray(self.gram, form.dtype)
        u = jax.tree.map(lambda leaf: leaf / gram.astype(leaf.dtype), self._linear(y))
        missed = jnp.max(jnp.abs(form.ravel(self.transpose(u, y)) - vector))
        rounding = slack(form.dtype) * jnp.max(jnp.abs(vector))
        at = Form.of(u)
        offset = at.ravel(parameters("`offset`", self.offset, u))
        value = self.function.conjugate_value(u) - at.ravel(u) @ offset
        return value + infinite_unless(missed <= rounding, missed)

    def on_vector(self, form):
        """The same function of the vector `form.ravel(x)`, with a transpose that needs no x."""
        matrix = _OnVector(self.matrix, form) if callable(self.matrix) else self.matrix
        new = object.__new__(Composed)
        fields = {"function": self.function, "matrix": matrix}
        for name, value in (fields | {"offset": self.offset, "gram": self.gram}).items():
            object.__setattr__(new, name, value)
        return new

    def _linear(self, x):
        x = tree("`x`", x)
        if callable(self.matrix):
            return self.matrix(x)
        form, vector = flat(x)
        rows = jnp.shape(self.matrix)[:1]
        return parameter("`matrix`", self.matrix, form.dtype, (*rows, form.size)) @ vector


def _gram(matrix: np.ndarray) -> float | None:
    """The c of A A' = c I to rounding, if there is one."""
    product = matrix @ matrix.T
    c = np.trace(product) / len(product)
    dtype = matrix.dtype if np.issubdtype(matrix.dtype, np.floating) else np.dtype(float)
    rounding = 10 * max(matrix.shape) * float(jnp.finfo(dtype).eps) * c
    same = np.all(np.abs(product - c * np.eye(len(product))) <= rounding)
    return float(c) if c > 0 and same else None


def overlapping_groups(groups: Sequence[ArrayLike], weight: ArrayLike = 1.0) -> Composed:
    """sum_g w_g ||x_g||_2 over groups of entries of a vector that may share some.

    `Composed(GroupLasso(labels, w), A)` where A x repeats the entries of x, group by group. Its
    prox has a formula if no two groups share an entry; else use ADMM or CondatVu. An x at a
    minimum has zeros on a union of groups. Source: Jenatton, Audibert & Bach (2011).

    Args:
        groups: the indices of the entries of each group.
        weight: w >= 0, a number or one for each group.

    """
    members = [np.atleast_1d(np.asarray(group)) for group in groups]
    whole = all(np.issubdtype(m.dtype, np.integer) and m.ndim == 1 and m.size for m in members)
    if not members or not whole or min(m.min() for m in members) < 0:
        raise ValueError(
            "`groups` must be a sequence of groups, each one or more indices >= 0 of entries of x, "
            "such as `[[0, 1, 2], [2, 3]]`."
        )
    indices = np.concatenate(members)
    labels = np.repeat(np.arange(len(members)), [m.size for m in members])
    apart = len(np.unique(indices)) == len(indices)
    return Composed(
        GroupLasso(jnp.asarray(labels), weight),
        jax.tree_util.Partial(_gather, jnp.asarray(indices)),
        gram=1.0 if apart else None,
    )


def _gather(indices: Array, x: PyTree) -> Array:
    _, vector = flat(x)
    return vector.at[indices].get(mode="fill", fill_value=jnp.nan)


@proximable
class Custom(Proximable):
    """A function of your own, by its value and its prox.

        jol.prox.Custom(
            value=lambda x: jnp.sum(jnp.abs(x)),
            prox=lambda x, step: jnp.sign(x) * jnp.maximum(jnp.abs(x) - step, 0),
        )

    Derivatives of answers are taken through your `prox`; subgradients are its limit for small
    steps. Numbers that are traced or differentiated are bound by `jax.tree_util.Partial`, which
    makes them leaves; plain functions must not close over such. To check both: `value(p) + ||p -
    x||^2 / (2 step)` is least at p = prox(x, step).

    Args:
        value: x -> a number, infinite outside the domain.
        prox: (x, step) -> argmin_p value(p) + ||p - x||^2 / (2 step), like x.

    """

    value_function: Callable
    prox_function: Callable

    def __init__(self, value: Callable, prox: Callable):
        """Make both pytrees: what `jax.tree_util.Partial` binds are leaves."""
        object.__setattr__(self, "value_function", as_partial("Custom(value=...)", value))
        object.__setattr__(self, "prox_function", as_partial("Custom(prox=...)", prox))

    def value(self, x):
        """That of your function."""
        x = tree("`x`", x)
        value = jnp.asarray(self.value_function(x))
        if value.shape:
            raise ValueError(
                "Custom(value=...) must return one number, but it returned an array of shape "
                f"{value.shape}. Sum over it."
            )
        return value.astype(Form.of(x).dtype)

    def prox(self, x, step=1.0):
        """That of your function, checked to be like x."""
        x = tree("`x`", x)
        p = self.prox_function(x, step)
        got, expected = jax.tree.map(jnp.shape, p), jax.tree.map(jnp.shape, x)
        if got != expected:
            raise ValueError(
                f"Custom(prox=...) must return what is like x, of shapes {expected}, but it "
                f"returned shapes {got}. It takes (x, step) and returns the minimiser p."
            )
        return jax.tree.map(lambda leaf, like: jnp.asarray(leaf).astype(like.dtype), p, x)
