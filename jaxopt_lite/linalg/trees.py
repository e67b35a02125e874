"""One flat vector from a pytree, and back: solvers think in R^n, users in their own structures."""

import dataclasses
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

PyTree = Any
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Form:
    """The structure, shapes and dtypes of a pytree of real arrays: all that `ravel` forgets.

    Hashable, so it can be static under `jit`. `ravel` and `unravel` are linear and inverse to
    each other; both are traced, so derivatives and batches pass through them.
    """

    treedef: Any
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[np.dtype, ...]

    @classmethod
    def of(cls, tree: PyTree) -> "Form":
        """The form of `tree`, whose leaves have `shape` and `dtype`."""
        leaves, treedef = jax.tree.flatten(tree)
        shapes = tuple(tuple(leaf.shape) for leaf in leaves)
        return cls(treedef, shapes, tuple(np.dtype(leaf.dtype) for leaf in leaves))

    @property
    def size(self) -> int:
        """Number of entries of the flat vector."""
        return sum(math.prod(shape) for shape in self.shapes)

    @property
    def dtype(self) -> np.dtype:
        """float64 if any leaf is, float32 otherwise."""
        return np.dtype("float64" if np.dtype("float64") in self.dtypes else "float32")

    def astype(self, dtype: np.dtype) -> "Form":
        """The same structure with all leaves in `dtype`."""
        return dataclasses.replace(self, dtypes=(np.dtype(dtype),) * len(self.dtypes))

    def ravel(self, tree: PyTree) -> Array:
        """The leaves of `tree`, one after the other, as a vector (size,)."""
        leaves = [jnp.ravel(jnp.asarray(leaf, self.dtype)) for leaf in jax.tree.leaves(tree)]
        return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves)

    def unravel(self, vector: Array) -> PyTree:
        """The pytree whose `ravel` is `vector`."""
        if len(self.shapes) == 1:
            parts = [vector]
        else:
            sizes = [math.prod(shape) for shape in self.shapes]
            parts = jnp.split(vector, np.cumsum(sizes[:-1]).tolist())
        kinds = zip(parts, self.shapes, self.dtypes, strict=True)
        leaves = [_shaped(part, shape, dtype) for part, shape, dtype in kinds]
        return jax.tree.unflatten(self.treedef, leaves)


def _shaped(part: Array, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """A leaf in its shape and dtype; half precision is computed in float32."""
    dtype = dtype if dtype.itemsize >= 4 else np.dtype("float32")
    part = part if part.shape == shape else part.reshape(shape)
    return part if part.dtype == dtype else part.astype(dtype)


def static(**kwargs) -> Any:
    """A dataclass field that is part of the object's type, not a number: hashable, no tracing."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


def as_pytree(cls: type[T]) -> type[T]:
    """Make a frozen dataclass a pytree of its fields that are not static, unlike other classes'.

    `jax.tree_util.register_dataclass` is not enough: in jax 0.10 such structures are equal whatever
    their classes, and where hashes collide too a call is answered by another solver's program.
    """
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]  # all callers made it one
    meta = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if not f.metadata.get("static")]

    def keyed(self: T):
        children = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in data]
        return children, tuple(getattr(self, name) for name in meta)

    def flat(self: T):
        return [getattr(self, name) for name in data], tuple(getattr(self, name) for name in meta)

    def build(aux: tuple, children: Iterable[Any]) -> T:
        self = object.__new__(cls)  # unchecked: leaves may be tracers or placeholders
        for name, value in (*zip(data, children, strict=True), *zip(meta, aux, strict=True)):
            object.__setattr__(self, name, value)
        return self

    jax.tree_util.register_pytree_with_keys(cls, keyed, build, flat)
    return cls


def choose(condition: Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where the scalar `condition` holds, else `no`, leaf by leaf; a number in `yes` fills.

    One instruction a leaf, where `jnp.where` makes a function of its own for every combination of
    shapes: programs stay small and compile fast.
    """

    def leaf(other, one):
        one = lax.full_like(other, one) if isinstance(one, (int, float)) else one
        return lax.select(condition, one, other)

    return jax.tree.map(leaf, no, yes)


def once(condition: Array) -> Array:
    """`condition`, computed once for all that read it.

    XLA computes a comparison anew in every fused loop that reads it, and may round its operands
    differently there: at a tie, half of a step is then accepted. It never repeats a square root.
    (`lax.optimization_barrier` is gone before XLA fuses.)
    """
    return lax.sqrt(condition.astype(jnp.float32)) > 0.5


def rarely(needed: Array, compute: Callable, operands: PyTree, otherwise: PyTree) -> PyTree:
    """`compute(*operands)` where `needed`, else `otherwise`; in a batch, run if any lane needs it.

    Under `vmap` both branches of `lax.cond` are computed always. This is a loop of no or one turn,
    whose body changes its operands: XLA would take out of it what does not depend on the turn, and
    compute that always.
    """

    def turn(carry: tuple) -> tuple:
        given = carry[1]
        return jnp.zeros_like(needed), jax.tree.map(jnp.zeros_like, given), compute(*given)

    start = (needed, operands, otherwise)
    return lax.while_loop(lambda carry: carry[0], turn, start)[2]


def norm_inf(vector: Array | None) -> Array:
    """max_i |v_i|; 0 for an empty or absent vector. NaN if any entry is."""
    if vector is None or vector.size == 0:
        return jnp.zeros((), jnp.result_type(float) if vector is None else vector.dtype)
    return jnp.max(jnp.abs(vector))


def safe_norm(vector: Array) -> Array:
    """Euclidean norm whose derivative at 0 is 0, not NaN."""
    squared = jnp.sum(vector * vector)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)
