"""Proofs that a program has no answer, checked against its arrays alone.

    Farkas     A'y + G'z - l + u = r,  b'y + h'z - lower'l + upper'u = -s < 0,  z, l, u >= 0
               ->  every feasible x has r'x <= -s, so ||x||_inf >= s / ||r||_1
    direction  Pd = 0, Ad = 0, Gd <= 0, d inside infinite sides, q'd < 0
               ->  from every feasible point the value falls for ever along d

Rounding in r and s is bounded and charged, so that the radius is one that holds.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from ..core import Multipliers, QuadraticProgram
from ..linalg import norm_inf


class RayReport(NamedTuple):
    """What the rays of a program are worth.

    `radius`: no x with ||x||_inf below it is feasible; 0 where the prices prove nothing.
    `infeasible`: it is at least 1 / tol. `stray`: by how much a step along the direction that
    lowers the linear cost by 1 may leave the constraints or bend the cost; inf where it does not
    lower it. `unbounded`: that is at most tol. It makes the program unbounded if it has a feasible
    point at all.
    """

    radius: Array
    infeasible: Array
    stray: Array
    unbounded: Array


def examine_rays(
    program: QuadraticProgram, farkas: Multipliers, direction: Array, tol: Array
) -> RayReport:
    """Measure both rays; zeros prove nothing. O(n (n + m))."""
    radius = _radius(program, farkas)
    stray = _stray(program, direction)
    return RayReport(radius, radius >= 1 / tol, stray, stray <= tol)


def _radius(program: QuadraticProgram, farkas: Multipliers) -> Array:
    """S / ||r||_1, both with what rounding may have hidden."""
    q = program.q
    terms = 1  # of the longest sum
    pull, size = jnp.zeros_like(q), jnp.zeros_like(q)
    support = total = jnp.zeros((), q.dtype)
    signed = None if farkas.ineq is None else jnp.maximum(farkas.ineq, 0)
    rows: Any = ((program.A, program.b, farkas.eq), (program.G, program.h, signed))
    for matrix, side, price in rows:
        if matrix is None:
            continue
        pull, size = pull + matrix.T @ price, size + jnp.abs(matrix.T) @ jnp.abs(price)
        part = _product(side, price)
        support, total = support + jnp.sum(part), total + jnp.sum(jnp.abs(part))
        terms += matrix.shape[0]
    for side, price, sign in (
        (program.lower, farkas.lower, -1), (program.upper, farkas.upper, 1)
    ):  # fmt: skip
        if side is None:
            continue
        price = jnp.maximum(price, 0)
        pull, size = pull + sign * price, size + price
        part = _product(sign * side, price)
        support, total = support + jnp.sum(part), total + jnp.sum(jnp.abs(part))
        terms += q.shape[0]
    eps = terms * float(jnp.finfo(q.dtype).eps)
    worth = -(support + eps * total)
    length = jnp.sum(jnp.abs(pull) + eps * size)
    return jnp.where(worth > 0, worth / jnp.where(length > 0, length, 1), 0)


def _product(side: Any, price: Any) -> Array:
    """Side times price; 0 where there is no price, though the side be infinite."""
    priced = price != 0
    return jnp.where(priced, jnp.where(priced, side, 0) * price, 0)


def _stray(program: QuadraticProgram, d: Array) -> Array:
    """The largest violation of what a direction of descent must satisfy, per unit of descent."""
    fall = -jnp.vdot(program.q, d)
    worst = [jnp.zeros_like(fall)]
    if program.P is not None:
        worst.append(norm_inf(program.P @ d))
    if program.A is not None:
        worst.append(norm_inf(program.A @ d))
    if program.G is not None and program.h is not None:
        finite = program.h < jnp.inf
        worst.append(jnp.max(jnp.where(finite, program.G @ d, 0), initial=0))
    if program.lower is not None:
        worst.append(jnp.max(jnp.where(program.lower > -jnp.inf, -d, 0), initial=0))
    if program.upper is not None:
        worst.append(jnp.max(jnp.where(program.upper < jnp.inf, d, 0), initial=0))
    most = jnp.max(jnp.stack(worst))
    return jnp.where(fall > 0, most / jnp.where(fall > 0, fall, 1), jnp.inf)
