"""The constraints of a problem, or what belongs to them, in one vector: eq, ineq, lower, upper."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..core import Multipliers
from ..core.tracing import FlatProblem
from ..linalg import Form

PyTree = Any


def stack(parts: Multipliers) -> Array:
    """All that is there in one vector: eq, ineq, lower, upper."""
    there = [jnp.ravel(part) for part in parts if part is not None]
    return jnp.concatenate(there) if there else jnp.zeros(0)


def sizes_of(slacks: Multipliers) -> tuple[int, ...]:
    """How many entries each field has."""
    return tuple(0 if part is None else part.size for part in slacks)


def split(vector: Array, sizes: tuple[int, ...]) -> Multipliers:
    """The fields of a vector as vectors; None where there is nothing."""
    ends = np.cumsum((0, *sizes))
    parts = [vector[i:j] if j > i else None for i, j in itertools.pairwise(ends)]
    return Multipliers(*parts)


def flattened(given: Multipliers, form: Form, sizes: tuple[int, ...], dtype) -> Multipliers:
    """Multipliers as a solution has them, as vectors; 0 where none are given."""
    eq, ineq, lower, upper = given
    flat = lambda side: None if side is None else form.ravel(side)
    ravel = lambda part: None if part is None else jnp.ravel(part).astype(dtype)
    vectors = (ravel(eq), ravel(ineq), flat(lower), flat(upper))
    pairs = zip(vectors, sizes, strict=True)
    return Multipliers(*(jnp.zeros(size, dtype) if v is None else v for v, size in pairs))


def shaped(problem: FlatProblem, form: Form, vector: Array, sizes: tuple) -> Multipliers:
    """The fields in the shapes of what they belong to."""
    eq, ineq, lower, upper = split(vector, sizes)

    def like(fun: Any, part: Array | None) -> Array | None:
        return None if part is None else part.reshape(fun.jaxpr.outvars[0].aval.shape)

    def side(part: Array | None) -> PyTree:
        if part is None or part.dtype != bool:
            return None if part is None else form.unravel(part)
        return jax.tree.map(lambda leaf: leaf > 0, form.unravel(part.astype(form.dtype)))

    return Multipliers(like(problem.eq, eq), like(problem.ineq, ineq), side(lower), side(upper))
