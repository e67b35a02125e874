"""A non-smooth term taken apart, g(x) + h(K x + b), for methods that take the two one by one."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from ..linalg import Form
from .calculus import SeparableSum, Sum
from .composed import Composed
from .proximable import OnVector, Proximable, Zero


@dataclasses.dataclass(frozen=True)
class Split:
    """g(x) + h(K x + b) over flat vectors: `simple` is g, `outer` is h."""

    simple: Proximable
    outer: Proximable
    apply: Callable[[Array], Array]  # x -> K x + b
    transpose: Callable[[Array], Array]  # y -> K'y
    dtype: Any
    plain: bool = False  # K x + b = x


def split(term: Proximable, size: int, dtype: Any) -> Split:
    """The parts of a term on vectors (size,).

    What is `Composed` goes to h; of the rest, what has one prox together is g, or its first
    function where it has none, the others then being part of h with K = I. A single function
    without a linear map is h.
    """
    x = jax.ShapeDtypeStruct((size,), dtype)
    functions = _summands(term)
    maps = [f for f in functions if isinstance(f, Composed)]
    rest = [f for f in functions if not isinstance(f, (Composed, Zero))]
    if not maps and (len(rest) == 1 or _has_prox(Sum(tuple(rest)), x)):
        simple: list[Proximable] = []
        plain = [rest[0] if len(rest) == 1 else Sum(tuple(rest))] if rest else [Zero()]
    elif _has_prox(Sum(tuple(rest)), x):
        simple, plain = rest, []
    else:
        simple, plain = rest[:1], rest[1:]
    g = simple[0] if len(simple) == 1 else (Sum(tuple(simple)) if simple else Zero())
    pieces = (*(f.function for f in maps), *plain)

    def both(x: Array) -> tuple:
        return (*(f.apply(x) for f in maps), *(x for _ in plain))

    images = jax.eval_shape(both, x)
    z = Form.of(images)
    one = len(pieces) == 1
    outer = pieces[0].on_vector(Form.of(images[0])) if one else OnVector(SeparableSum(pieces), z)

    def transpose(y: Array) -> Array:
        linear = lambda x: z.ravel((*(f._linear(x) for f in maps), *(x for _ in plain)))
        return jax.linear_transpose(linear, x)(y)[0]

    return Split(
        g, outer, lambda x: z.ravel(both(x)), transpose, dtype, not maps and len(plain) == 1
    )


def _summands(term: Proximable) -> list[Proximable]:
    """The functions of a sum, each on vectors."""
    if isinstance(term, OnVector) and isinstance(term.function, Sum):
        return [g for f in term.function.functions for g in _summands(f.on_vector(term.form))]
    if isinstance(term, Sum):
        return [g for f in term.functions for g in _summands(f)]
    return [term]


def _has_prox(term: Proximable, x: Any) -> bool:
    """Whether its prox is known; asked of shapes alone."""
    try:
        jax.eval_shape(lambda x: term.prox(x, 1.0), x)
    except NotImplementedError:
        return False
    return True
