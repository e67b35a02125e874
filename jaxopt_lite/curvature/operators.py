"""Curvature as linear operators: products with Hessians and their relatives, never the matrix.

    hessian        H v      of a function of a pytree of parameters
    gauss_newton   J'Q J v  J the Jacobian of a model, Q the Hessian of a loss of its outputs
    fisher         J'J v/n  J the gradients of n losses, one a row: the empirical Fisher matrix
    kernel         J J'v    the neural tangent kernel of a model on its data
    jacobian       J v, J'u

Examples are the first axis of each leaf of `data`; `batch` rows are taken at a time, in a scan,
so that memory is that of one batch. What is differentiated is the mean over all rows. Rows that
lie on several devices stay there: each takes the mean over its own, and the products meet in one
all-reduce.

An operator is a pytree: parameters and data are operands of compiled programs, not constants in
them, so that a new point compiles nothing.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding, PartitionSpec

from ..linalg import Form, as_pytree, static

PyTree = Any


@as_pytree
@dataclasses.dataclass(frozen=True, eq=False)
class LinearOperator:
    """A linear map from the pytrees of one form to those of another, known by its products.

    `op @ v` takes a pytree of the domain, its flat vector, or an array (n, k) of k columns, and
    answers in kind. `op.T` is the transpose. One of your own: `LinearOperator(lambda A, v: A @ v,
    None, A, form, form)` with `form = linalg.Form.of(x)`.

    Args:
        forward: `forward(operands, v)`, vector (n,) -> vector (m,).
        backward: the same for the transpose; None: the operator is symmetric.
        operands: pytree of arrays.
        domain, image: the forms of what goes in and comes out.

    """

    forward: Callable[[PyTree, Array], Array] = static()
    backward: Callable[[PyTree, Array], Array] | None = static()
    operands: PyTree  # type: ignore[misc]  # `static()` is no default
    domain: Form = static()
    image: Form = static()

    def apply(self, v: Array) -> Array:
        """The product with one vector (n,)."""
        return self.forward(self.operands, v)

    def linear(self) -> Callable[[Array], Array]:
        """`apply` for many products in one program: what does not depend on v is computed once."""
        once = getattr(self.forward, "once", None)
        return self.apply if once is None else once(self.operands)

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
        return self.backward is None

    @property
    def T(self) -> "LinearOperator":  # as arrays have it
        """The transpose."""
        if self.backward is None:
            return self
        return LinearOperator(self.backward, self.forward, self.operands, self.image, self.domain)

    def __matmul__(self, v: PyTree) -> PyTree:
        """The product with a pytree, a vector (n,) or the columns of an array (n, k)."""
        n = self.domain.size
        if hasattr(v, "ndim") and v.ndim and v.shape[0] == n and v.ndim <= 2:
            v = jnp.asarray(v, self.domain.dtype)
            return self.apply(v) if v.ndim == 1 else _many(self, v.T).T
        given = Form.of(jax.tree.map(jnp.asarray, v))
        if (given.treedef, given.shapes) != (self.domain.treedef, self.domain.shapes):
            raise ValueError(
                f"The operator takes a vector of {n} numbers, {n} rows of them, or the pytree it "
                f"was made for, with shapes {self.domain.shapes}; but shapes {given.shapes} came."
            )
        return self.image.unravel(self.apply(self.domain.ravel(v)))

    def to_dense(self, chunk: int = 16) -> Array:
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
        return _dense(self, min(_positive("chunk", chunk), n))

    def diagonal(self, chunk: int = 64) -> Array:
        """The exact diagonal (n,) by n products; `curvature.diagonal` estimates it by a few."""
        return _entries(_square(self), min(_positive("chunk", chunk), self.domain.size))

    def blocks(self, chunk: int = 64) -> list[Array]:
        """The diagonal blocks of the matrix, one a leaf of the pytree in its order.

        n products; memory is that of the blocks and of `chunk` products.
        """
        n, ends = _square(self).domain.size, [0]
        for part in self.domain.shapes:
            ends.append(ends[-1] + math.prod(part))
        chunk = min(_positive("chunk", chunk), n)
        return [_block(self, a, b - a, min(chunk, b - a)) for a, b in itertools.pairwise(ends)]

    def trace(self) -> Array:
        """The exact trace, by n products; `curvature.trace` estimates it by a few."""
        return jnp.sum(self.diagonal())


def _square(operator: LinearOperator) -> LinearOperator:
    if operator.shape[0] != operator.shape[1]:
        raise ValueError(
            f"Only square operators have a diagonal and a trace, but the shape is {operator.shape}."
        )
    return operator


def _positive(name: str, value: int) -> int:
    if int(value) < 1:
        raise ValueError(f"`{name}` must be at least 1, but {value} came.")
    return int(value)


@jax.jit
def _many(operator: LinearOperator, rows: Array) -> Array:
    """The products with rows (k, n), one after the other: on a CPU faster than a batch of them."""
    return lax.map(operator.linear(), rows)


def _units(operator: LinearOperator, indices: Array, chunk: int, take: Callable) -> Array:
    """`take(i, A e_i)` for each index."""
    apply = operator.linear()
    unit = lambda i: jnp.zeros(operator.domain.size, operator.domain.dtype).at[i].set(1)
    return lax.map(lambda i: take(i, apply(unit(i))), indices, batch_size=chunk)


@functools.partial(jax.jit, static_argnums=1)
def _dense(operator: LinearOperator, chunk: int) -> Array:
    """The columns, `chunk` at a time, written in place; the last ones overlap those before."""
    m, n = operator.shape
    apply = operator.linear()

    def turn(i: Array, columns: Array) -> Array:
        first = jnp.minimum(i * chunk, n - chunk)
        units = (first + jnp.arange(chunk, dtype=jnp.int32))[:, None] == jnp.arange(
            n, dtype=jnp.int32
        )
        part = jax.vmap(apply)(units.astype(operator.domain.dtype))
        return lax.dynamic_update_slice(columns, part, (first, jnp.zeros_like(first)))

    columns = jnp.zeros((n, m), operator.dtype)
    columns = lax.fori_loop(jnp.int32(0), jnp.int32(-(-n // chunk)), turn, columns)
    return 0.5 * (columns + columns.T) if operator.symmetric else columns.T


@functools.partial(jax.jit, static_argnums=1)
def _entries(operator: LinearOperator, chunk: int) -> Array:
    indices = jnp.arange(operator.domain.size, dtype=jnp.int32)
    return _units(operator, indices, chunk, lambda i, column: column[i])


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _block(operator: LinearOperator, start: int, size: int, chunk: int) -> Array:
    indices = start + jnp.arange(size, dtype=jnp.int32)
    part = _units(operator, indices, chunk, lambda i, column: column[start : start + size])
    return 0.5 * (part + part.T) if operator.symmetric else part.T


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


def _hessian(functions: tuple, form: Form, flat: Array, rest: tuple) -> Callable[[Array], Array]:
    """The map to H v, forward over reverse, linearised."""
    value = lambda p: functions[0](form.unravel(p), *rest)
    return jax.linearize(jax.grad(value), flat)[1]


def _slope(functions: tuple, form: Form, flat: Array, rest: tuple) -> Callable[[Array], Array]:
    """The map of anything (n + 1,) to value and gradient: a mean over rows as the others are."""
    value, gradient = jax.value_and_grad(lambda p: functions[0](form.unravel(p), *rest))(flat)
    both = jnp.concatenate([value[None].astype(flat.dtype), gradient])
    return lambda v: both


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


def _gauss_newton(
    functions: tuple, form: Form, flat: Array, rest: tuple
) -> Callable[[Array], Array]:
    """The map to J'Q J v: forward through the model, through the loss's gradient, and back."""
    model, loss = functions
    outputs = lambda p: model(form.unravel(p), *rest)
    z, push = jax.linearize(outputs, flat)
    bend = jax.linearize(jax.grad(lambda z: loss(z, *rest)), z)[1]
    pull = jax.linear_transpose(push, flat)
    return lambda v: pull(bend(push(v)))[0]


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


def _fisher(functions: tuple, form: Form, flat: Array, rest: tuple) -> Callable[[Array], Array]:
    """The map to J'J v / n, J the gradients of the losses."""
    values, push = jax.linearize(lambda p: functions[0](form.unravel(p), *rest), flat)
    if values.ndim != 1:
        raise ValueError(
            f"`losses` must return one number an example, but its shape is {values.shape}. Do not "
            "take their mean."
        )
    pull = jax.linear_transpose(push, flat)
    return lambda v: pull(push(v) / values.shape[0])[0]


def jacobian(model: Callable[..., PyTree], x: PyTree, args: tuple = ()) -> LinearOperator:
    """The Jacobian of `model(x, *args)`: J v forward, `J.T @ u` in reverse."""
    form = _form(x)
    flat = form.ravel(x)
    image = Form.of(jax.eval_shape(lambda p: model(form.unravel(p), *args), flat))
    forms = form, image
    return LinearOperator(_Push(model, *forms), _Pull(model, *forms), (flat, args), *forms)


@dataclasses.dataclass(frozen=True)
class _Push:
    """J v."""

    model: Callable
    domain: Form
    image: Form

    def outputs(self, args: tuple) -> Callable[[Array], Array]:
        """The model between flat vectors."""
        return lambda p: self.image.ravel(self.model(self.domain.unravel(p), *args))

    def __call__(self, operands: tuple, v: Array) -> Array:
        return _push(self, operands, v)


class _Pull(_Push):
    """J'u."""

    def __call__(self, operands: tuple, v: Array) -> Array:
        return _pull(self, operands, v)


@functools.partial(jax.jit, static_argnums=0)
def _push(model: _Push, operands: tuple, v: Array) -> Array:
    return jax.jvp(model.outputs(operands[1]), operands[:1], (v,))[1]


@functools.partial(jax.jit, static_argnums=0)
def _pull(model: _Push, operands: tuple, v: Array) -> Array:
    return jax.vjp(model.outputs(operands[1]), operands[0])[1](v)[0]


@dataclasses.dataclass(frozen=True)
class _Kernel:
    """J J'u."""

    push: Callable[[PyTree, Array], Array]
    pull: Callable[[PyTree, Array], Array]

    def __call__(self, operands: tuple, v: Array) -> Array:
        return self.push(operands, self.pull(operands, v))


def kernel(model: Callable[..., PyTree], x: PyTree, args: tuple = ()) -> LinearOperator:
    """The neural tangent kernel J J' of `model(x, *args)`, over all its outputs.

    Source: Jacot, Gabriel & Hongler (2018).
    """
    j = jacobian(model, x, args)
    assert j.backward is not None
    product = _Kernel(j.forward, j.backward)
    return LinearOperator(product, None, j.operands, j.image, j.image)


# -- means over data -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Mean:
    """The product with a mean over rows, as a function of (parameters, args, data) and v.

    `product(functions, form, flat, rest)` returns the linear map of some rows, `rest` being
    `(rows, *args)`. `batch` rows at a time on each of the devices of `mesh`.
    """

    product: Callable
    functions: tuple
    form: Form
    batch: int | None
    mesh: Any
    axes: Any  # of the mesh, over which rows are spread

    def __call__(self, operands: tuple, v: Array) -> Array:
        return _product(self, operands, v)

    def once(self, operands: tuple) -> Callable[[Array], Array]:
        """The linear map, linearised here; with batches anew in each product, to save memory."""
        flat, args, data = operands
        if self.mesh is not None or self.batch is not None:
            return functools.partial(self, operands)
        return self._map(flat, args if data is None else (data, *args))

    def _map(self, flat: Array, rest: tuple) -> Callable[[Array], Array]:
        return self.product(self.functions, self.form, flat, rest)

    def _local(self, flat: Array, args: tuple, data: PyTree, v: Array) -> Array:
        """The mean over the rows of this device."""
        n = jax.tree.leaves(data)[0].shape[0]
        size = n if self.batch is None else self.batch
        whole = n // size
        if whole == 1 and n == size:
            return self._map(flat, (data, *args))(v)

        def add(total: Array, rows: PyTree) -> tuple[Array, None]:
            return total + (size / n) * self._map(flat, (rows, *args))(v), None

        head = lambda leaf: leaf[: whole * size].reshape(whole, size, *leaf.shape[1:])
        total = lax.scan(add, jnp.zeros_like(v), jax.tree.map(head, data))[0]
        if whole * size < n:
            left = jax.tree.map(lambda leaf: leaf[whole * size :], data)
            total += (1 - whole * size / n) * self._map(flat, (left, *args))(v)
        return total


@functools.partial(jax.jit, static_argnums=0)
def _product(mean: _Mean, operands: tuple, v: Array) -> Array:
    """The mean over all devices, in one all-reduce."""
    flat, args, data = operands
    if data is None:
        return mean._map(flat, args)(v)
    if mean.mesh is None:
        return mean._local(flat, args, data, v)

    def share(flat: Array, args: tuple, data: PyTree, v: Array) -> Array:
        return lax.pmean(mean._local(flat, args, data, v), mean.axes)

    everywhere, rows = PartitionSpec(), PartitionSpec(mean.axes)
    specs = (everywhere, everywhere, rows, everywhere)
    # Unchecked: a checked derivative inside would be summed over devices by itself, leaf by leaf.
    spread = jax.shard_map(
        share, mesh=mean.mesh, in_specs=specs, out_specs=everywhere, check_vma=False
    )
    return spread(flat, args, data, v)


def _symmetric(
    product: Callable, functions: tuple, x: PyTree, args: tuple, data: PyTree, batch: int | None
) -> LinearOperator:
    """The operator of a product, its data in batches and on their devices."""
    form = _form(x)
    n = _rows(data, batch)
    data = jax.tree.map(jnp.asarray, data)
    mesh, axes, shards = _spread(data)
    if batch is not None:
        batch = None if int(batch) * shards >= n else max(1, int(batch) // shards)
    forward = _Mean(product, functions, form, batch, mesh, axes)
    return LinearOperator(forward, None, (form.ravel(x), args, data), form, form)


def _rows(data: PyTree, batch: int | None) -> int:
    """How many rows there are."""
    if data is None:
        if batch is not None:
            raise ValueError("`batch` was given without `data`, whose rows it would count.")
        return 0
    counts = {jnp.shape(leaf)[0] if jnp.ndim(leaf) else -1 for leaf in jax.tree.leaves(data)}
    if len(counts) != 1 or -1 in counts:
        raise ValueError(
            "The leaves of `data` must have as many rows as one another, but they have "
            f"{sorted(counts)}."
        )
    (n,) = counts
    if batch is not None and not 1 <= int(batch) <= n:
        raise ValueError(f"`batch` must be between 1 and the {n} rows of `data`, but is {batch}.")
    return n


def _spread(data: PyTree) -> tuple[Any, Any, int]:
    """Mesh, axes and number of shards of rows that lie on several devices alike."""
    found = set()
    for leaf in jax.tree.leaves(data):
        if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf.sharding, NamedSharding):
            return None, None, 1
        spec = leaf.sharding.spec
        if not spec or spec[0] is None or any(part is not None for part in spec[1:]):
            return None, None, 1
        found.add((leaf.sharding.mesh, spec[0]))
    if len(found) != 1:
        return None, None, 1
    ((mesh, axes),) = found
    names = axes if isinstance(axes, tuple) else (axes,)
    return mesh, axes, math.prod(mesh.shape[name] for name in names)


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
