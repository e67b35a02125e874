"""Curvature as linear operators: products with Hessians and their relatives, never the matrix.

    hessian        H v      of a function of a pytree of parameters
    gauss_newton   J'Q J v  J the Jacobian of a model, Q the Hessian of a loss of its outputs
    fisher         J'J v/n  J the gradients of n losses, one a row: the empirical Fisher matrix
    kernel         J J'v    the neural tangent kernel of a model on its data
    jacobian       J v, J'u

Examples are the first axis of each leaf of `data`; `batch` rows are taken at a time, in a scan,
so that memory is that of one batch. What is differentiated is the mean over all rows.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ..linalg import Form

PyTree = Any


@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator:
    """A linear map from the pytrees of one form to those of another, known by its products.

    `op @ v` takes a pytree of the domain, its flat vector, or an array (n, k) of k columns, and
    answers in kind. `op.T` is the transpose.

    Args:
        apply: vector (n,) -> vector (m,).
        transposed: the same for the transpose; None: the operator is symmetric.
        domain, image: the forms of what goes in and comes out.

    """

    apply: Callable[[Array], Array]
    transposed: Callable[[Array], Array] | None
    domain: Form
    image: Form

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.image.size, self.domain.size

    @property
    def dtype(self) -> Any:
        """That of its products."""
        return self.image.dtype

    @property
    def symmetric(self) -> bool:
        """Whether it is its own transpose."""
        return self.transposed is None

    @property
    def T(self) -> "LinearOperator":  # as arrays have it
        """The transpose."""
        if self.transposed is None:
            return self
        return LinearOperator(self.transposed, self.apply, self.image, self.domain)

    def __matmul__(self, v: PyTree) -> PyTree:
        """The product with a pytree, a vector (n,) or the columns of an array (n, k)."""
        n = self.domain.size
        if hasattr(v, "ndim") and v.ndim and v.shape[0] == n and v.ndim <= 2:
            if v.ndim == 1:
                return self.apply(jnp.asarray(v, self.domain.dtype))
            # One after the other: on a CPU faster than a batch of them, and memory of one.
            return lax.map(self.apply, jnp.asarray(v, self.domain.dtype).T).T
        given = Form.of(jax.tree.map(jnp.asarray, v))
        if (given.treedef, given.shapes) != (self.domain.treedef, self.domain.shapes):
            raise ValueError(
                f"The operator takes a vector of {n} numbers, {n} rows of them, or the pytree it "
                f"was made for, with shapes {self.domain.shapes}; but shapes {given.shapes} came."
            )
        return self.image.unravel(self.apply(self.domain.ravel(v)))

    def to_dense(self, chunk: int = 64) -> Array:
        """The matrix (m, n), `chunk` products at a time: memory of so many beside the result.

        Symmetric to the last bit if the operator is. n products. ValueError above 30,000 columns,
        7 GB in float64.
        """
        n = self.domain.size
        if n > 30_000:
            raise ValueError(
                f"A dense matrix of {n} columns has {n * n:.2g} numbers. `lanczos` finds its "
                "largest and smallest eigenvalues, `spectral_density` all of them roughly."
            )
        columns = lax.map(
            lambda i: self.apply(jnp.zeros(n, self.domain.dtype).at[i].set(1)),
            jnp.arange(n, dtype=jnp.int32),
            batch_size=min(chunk, n),
        )
        return 0.5 * (columns + columns.T) if self.symmetric else columns.T

    def trace(self) -> Array:
        """The exact trace, by n products; `curvature.trace` estimates it by a few."""
        n = self.domain.size
        if self.shape[0] != n:
            raise ValueError(f"Only square operators have a trace, but the shape is {self.shape}.")
        entry = lambda i: self.apply(jnp.zeros(n, self.domain.dtype).at[i].set(1))[i]
        return jnp.sum(lax.map(entry, jnp.arange(n, dtype=jnp.int32)))


def hessian(
    fun: Callable[..., Array],
    x: PyTree,
    args: tuple = (),
    *,
    data: PyTree = None,
    batch: int | None = None,
) -> LinearOperator:
    """The Hessian of `fun(x, *args)`, or of the mean of `fun(x, rows, *args)` over `data`.

    A product is a derivative of the gradient along v, forward over reverse, linearised once: about
    twice the cost of a gradient. Where `fun` has kinks (ReLU) it is the Hessian of the piece that x
    is in: what the kinks do is not seen.

    Args:
        fun: real and scalar; with `data` the mean over the rows it is given.
        x: pytree of floating parameters.
        args: further arguments.
        data: pytree of arrays whose first axis is that of the examples.
        batch: rows at a time. None: all at once.

    """
    operator = _symmetric(_hessian, (fun,), x, args, data, batch)
    _require_scalar(fun, x, args, data)
    return operator


def _hessian(functions: tuple, form: Form, flat: Array, rest: tuple, v: Array) -> Array:
    """H v, forward over reverse."""
    value = lambda p: functions[0](form.unravel(p), *rest)
    return jax.jvp(jax.grad(value), (flat,), (v,))[1]


def gauss_newton(
    model: Callable[..., PyTree],
    loss: Callable[..., Array],
    x: PyTree,
    args: tuple = (),
    *,
    data: PyTree = None,
    batch: int | None = None,
) -> LinearOperator:
    """J'Q J of `loss(model(x, *args), *args)`; with data of `loss(model(x, rows), rows)`, a mean.

    J is the Jacobian of the model's outputs, Q the Hessian of the loss in them: positive
    semidefinite for a convex loss, and the Fisher matrix where the loss is the negative log
    likelihood of a natural parameter, as cross-entropy of logits is. Source: Martens (2020).
    """
    return _symmetric(_gauss_newton, (model, loss), x, args, data, batch)


def _gauss_newton(functions: tuple, form: Form, flat: Array, rest: tuple, v: Array) -> Array:
    """J'Q J v: forward through the model, through the loss's gradient, and back."""
    model, loss = functions
    outputs = lambda p: model(form.unravel(p), *rest)
    z, push = jax.jvp(outputs, (flat,), (v,))
    bent = jax.jvp(jax.grad(lambda z: loss(z, *rest)), (z,), (push,))[1]
    return jax.vjp(outputs, flat)[1](bent)[0]


def fisher(
    losses: Callable[..., Array],
    x: PyTree,
    args: tuple = (),
    *,
    data: PyTree = None,
    batch: int | None = None,
) -> LinearOperator:
    """The empirical Fisher matrix, mean of g_i g_i' over examples, g_i the gradient of a loss.

    `losses(x, *args)`, or `losses(x, rows, *args)`, returns one number an example. The gradients
    are never stored: a product is one derivative forward and one in reverse. For the true Fisher
    matrix take `gauss_newton`.
    """
    return _symmetric(_fisher, (losses,), x, args, data, batch)


def _fisher(functions: tuple, form: Form, flat: Array, rest: tuple, v: Array) -> Array:
    """J'J v / n, J the gradients of the losses."""
    each = lambda p: functions[0](form.unravel(p), *rest)
    values, push = jax.jvp(each, (flat,), (v,))
    if values.ndim != 1:
        raise ValueError(
            f"`losses` must return one number an example, but its shape is {values.shape}. Do not "
            "take their mean."
        )
    return jax.vjp(each, flat)[1](push / values.shape[0])[0]


def jacobian(model: Callable[..., PyTree], x: PyTree, args: tuple = ()) -> LinearOperator:
    """The Jacobian of `model(x, *args)`: J v forward, `J.T @ u` in reverse."""
    form = _form(x)
    flat = form.ravel(x)
    image = Form.of(jax.eval_shape(lambda p: model(form.unravel(p), *args), flat))
    forms = form, image
    return LinearOperator(
        lambda v: _push(model, forms, flat, args, v),
        lambda u: _pull(model, forms, flat, args, u),
        form,
        image,
    )


@functools.partial(jax.jit, static_argnums=(0, 1))
def _push(model: Callable, forms: tuple[Form, Form], flat: Array, args: tuple, v: Array) -> Array:
    outputs = lambda p: forms[1].ravel(model(forms[0].unravel(p), *args))
    return jax.jvp(outputs, (flat,), (v,))[1]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _pull(model: Callable, forms: tuple[Form, Form], flat: Array, args: tuple, u: Array) -> Array:
    outputs = lambda p: forms[1].ravel(model(forms[0].unravel(p), *args))
    return jax.vjp(outputs, flat)[1](u)[0]


def kernel(model: Callable[..., PyTree], x: PyTree, args: tuple = ()) -> LinearOperator:
    """The neural tangent kernel J J' of `model(x, *args)`, over all its outputs.

    Source: Jacot, Gabriel & Hongler (2018).
    """
    j = jacobian(model, x, args)
    return LinearOperator(lambda u: j.apply(j.T.apply(u)), None, j.image, j.image)


# -- means over data -------------------------------------------------------------------------------


def _symmetric(
    product: Callable, functions: tuple, x: PyTree, args: tuple, data: PyTree, batch: int | None
) -> LinearOperator:
    """The operator of a product, its data cut into batches.

    Parameters and data are operands of a program that is compiled once for each function and
    shape: a new point, or the next epoch, compiles nothing.
    """
    form = _form(x)
    flat = form.ravel(x)
    head, rest, share = _batches(data, batch)

    def apply(v: Array) -> Array:
        return _mean(product, functions, form, share, flat, args, head, rest, v)

    return LinearOperator(apply, None, form, form)


def _batches(data: PyTree, batch: int | None) -> tuple[PyTree, PyTree, float]:
    """Whole batches on a first axis, the rows that are left, and the share of one batch."""
    if data is None:
        if batch is not None:
            raise ValueError("`batch` was given without `data`, whose rows it would count.")
        return None, None, 1.0
    data = jax.tree.map(jnp.asarray, data)
    counts = {leaf.shape[0] if leaf.ndim else -1 for leaf in jax.tree.leaves(data)}
    if len(counts) != 1 or -1 in counts:
        raise ValueError(
            "The leaves of `data` must have as many rows as one another, but they have "
            f"{sorted(counts)}."
        )
    (n,) = counts
    size = n if batch is None else int(batch)
    if not 1 <= size <= n:
        raise ValueError(f"`batch` must be between 1 and the {n} rows of `data`, but is {batch}.")
    whole = n // size
    cut = lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:])
    left = jax.tree.map(lambda leaf: leaf[whole * size :], data)
    return jax.tree.map(cut, data), left if whole * size < n else None, size / n


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _mean(
    product: Callable,
    functions: tuple,
    form: Form,
    share: float,
    flat: Array,
    args: tuple,
    head: PyTree,
    rest: PyTree,
    v: Array,
) -> Array:
    """The product with the mean over all rows."""
    if head is None:
        return product(functions, form, flat, args, v)

    def add(total: Array, rows: PyTree) -> tuple[Array, None]:
        return total + share * product(functions, form, flat, (rows, *args), v), None

    total = lax.scan(add, jnp.zeros(form.size, form.dtype), head)[0]
    if rest is not None:
        whole = jax.tree.leaves(head)[0].shape[0]
        total += (1 - whole * share) * product(functions, form, flat, (rest, *args), v)
    return total


def _form(x: PyTree) -> Form:
    """The form of parameters; only floating ones have a derivative."""
    x = jax.tree.map(jnp.asarray, x)
    for path, leaf in jax.tree_util.tree_leaves_with_path(x):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"`x{jax.tree_util.keystr(path)}` must be real and floating, but it is "
                f"{leaf.dtype}. Bind what is no parameter into the function, or put it into `args`."
            )
    form = Form.of(x)
    if not form.size:
        raise ValueError("`x` must hold at least one parameter.")
    return form


def _require_scalar(fun: Callable, x: PyTree, args: tuple, data: PyTree) -> None:
    rows = () if data is None else (data,)
    out = jax.eval_shape(lambda x: fun(x, *rows, *args), x)
    shape = getattr(out, "shape", None)
    if shape != ():
        got = f"shape {shape}" if shape is not None else f"a {type(out).__name__}"
        raise TypeError(
            f"`fun` must return one real number, but {got} came. Reduce it with `jnp.mean`; for "
            "one loss an example there is `fisher`."
        )
