"""Euclidean projections P(x) = argmin_p ||p - x||_2 s.t. p in C, each with its derivative.

`x` comes first and is a pytree, or an array where that is said; parameters follow, and are cast to
the dtype of x. A single vector, matrix or pytree: batches by `jax.vmap`. All of them run under
`jit`, `vmap` and `grad`; all derivatives, in x and in the parameters, go forward and in reverse.

At a kink one element of the generalised Jacobian comes out, always by the same rule: a constraint
that is met with multiplier zero counts as inactive. So on the closed set, boundary included, the
derivative is the identity (or the projection on the directions of its affine hull), where rounding
can tell.

An empty set is an error if its parameters are numbers, and NaN if they are traced, in the
derivative too. NaN in x gives NaN.
"""

from .cones import l2_ball, psd_cone, second_order_cone
from .dykstra import intersection
from .polyhedra import (
    affine,
    box,
    capped_simplex,
    half_space,
    hyperplane,
    l1_ball,
    linf_ball,
    non_negative,
    simplex,
)
from .transport import transport

__all__ = [
    "affine",
    "box",
    "capped_simplex",
    "half_space",
    "hyperplane",
    "intersection",
    "l1_ball",
    "l2_ball",
    "linf_ball",
    "non_negative",
    "psd_cone",
    "second_order_cone",
    "simplex",
    "transport",
]
