"""What one of our solvers says, in the terms of the benchmark."""

from typing import Any, NamedTuple

import jax

import jaxopt_lite as jol


class Said(NamedTuple):
    """`peers.Info`, with the status of ours."""

    claims: Any
    iterations: Any
    evaluations: Any
    status: Any


def said(s: jol.Solution) -> tuple[jax.Array, Said]:
    """The answer and `Said`."""
    return s.x, Said(s.success, getattr(s.state, "accepted", s.steps), s.steps, s.status)
