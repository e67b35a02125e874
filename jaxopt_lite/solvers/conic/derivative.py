"""Derivatives of the answer in every array of the program.

    Px + q + A'y + C'z = 0,   Ax = b,   Cx = h in the rows that bind,   z = 0 in the others

Differentiated, this is a symmetric system in (dx, dy, dz); its factors are those of the last,
polishing step of the solve, which decided which rows bind: one that binds weakly may count as
either, which gives one element of the generalised Jacobian. Where it is singular,
proximal steps go to the solution of a least-squares problem near the origin. With `relax` = mu the
equations are z (h - Cx) = mu in every row, those of a point on the central path, which moves
smoothly even where the answer jumps. Source: Amos & Kolter (2017); Tracy & Manchester (2024).
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from ...core import Implicit, Multipliers, Point, QuadraticProgram
from ...core.implicit import linear_solve, perturbed
from ...linalg import minres
from .system import Vectors, solve

PASSES = 4  # proximal steps of a linear solve


def joined(point: Point) -> Vectors:
    """(x, y, z) of a point."""
    m = point.multipliers
    sides = [part for part in m[1:] if part is not None]
    none = jnp.zeros(0, point.x.dtype)
    return Vectors(point.x, none if m.eq is None else m.eq, jnp.concatenate([*sides, none]))


def parted(v: Vectors, program: QuadraticProgram) -> Point:
    """The point of (x, y, z)."""
    n, p = v.x.shape[0], 0 if program.h is None else program.h.shape[0]
    low = None if program.lower is None else v.z[p : p + n]
    high = None if program.upper is None else v.z[v.z.shape[0] - n :]
    eq, ineq = (None if program.b is None else v.y), (None if program.h is None else v.z[:p])
    return Point(v.x, Multipliers(eq, ineq, low, high))


def slack_rows(x: Array, program: QuadraticProgram) -> Array:
    """Cx - h."""
    return joined(Point(x, program.slacks(x))).z


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach(relaxed: bool, v: Vectors, program: QuadraticProgram, inner: Any, finished: Array):
    """`v`, the answer of `program`, with its derivative; NaN where not `finished`.

    `inner` is (on, scaled, system): the rows that count and the factors, or None for the last two.
    """
    return v


@functools.partial(attach.defjvp, symbolic_zeros=True)
def _attach_jvp(relaxed, primals, tangents):
    v, program, inner, finished = primals
    v = attach(relaxed, v, program, inner, finished)
    moved, rebuild = perturbed(program, tangents[1])
    if not moved:
        return v, jax.tree.map(jnp.zeros_like, v)
    on, scaled, _ = inner

    def conditions(new):
        changed = rebuild(new)
        gradient = changed.gradient(parted(v, changed))
        eq = jnp.zeros(0, v.x.dtype) if changed.A is None else changed.slacks(v.x).eq
        return Vectors(gradient, eq, on * slack_rows(v.x, changed))

    primal, tangent = zip(*moved, strict=True)
    _, push = jax.jvp(conditions, (primal,), (tangent,))

    sizes = [v.x.shape[0], v.x.shape[0] + v.y.shape[0]]
    ratio = -slack_rows(v.x, program) / jnp.where(v.z > 0, v.z, 1) if relaxed else 0.0

    def matvec(flat: Array) -> Array:
        """The derivative of the conditions in (x, y, z)."""
        d = Vectors(*jnp.split(flat, sizes))
        top = program.pull(parted(d._replace(z=on * d.z), program).multipliers)
        top = top if program.P is None else top + program.P @ d.x
        eq = d.y if program.A is None else program.A @ d.x
        rows = jax.jvp(lambda x: slack_rows(x, program), (v.x,), (d.x,))[1]
        bottom = on * (rows - ratio * d.z) - (1 - on) * d.z
        return jnp.concatenate([top + jnp.zeros_like(d.x), eq, bottom])

    solver = _matrix_free if scaled is None else functools.partial(_by_factors, sizes, inner)
    how = Implicit(linear_solver=solver)
    answer = linear_solve(matvec, -jnp.concatenate(push), True, how, finished)
    return v, Vectors(*jnp.split(answer, sizes))


def _by_factors(sizes: list[int], inner: Any, matvec: Callable, rhs: Array) -> Array:
    """Proximal steps with the factors, which are nearly those of `matvec`."""
    on, scaled, system = jax.tree.map(lax.stop_gradient, inner)
    units, cost = scaled.units, scaled.cost

    def nearer(_, d):
        left = Vectors(*jnp.split(rhs - matvec(d), sizes))
        right = Vectors(cost * units.x * left.x, units.y * left.y, on * units.z * left.z)
        step, _ = solve(scaled, system, right)
        z = jnp.where(on > 0, units.z * step.z / cost, -left.z)
        return d + jnp.concatenate([units.x * step.x, units.y * step.y / cost, z])

    return lax.fori_loop(0, PASSES, nearer, jnp.zeros_like(rhs))


def _matrix_free(matvec: Callable, rhs: Array) -> Array:
    """MINRES on the whole system; NaN where it does not reach its tolerance."""
    tol = float(jnp.finfo(rhs.dtype).eps) ** (2 / 3)
    answer = minres(matvec, rhs, tol, min(10 * rhs.shape[0], 10_000))
    return jnp.where(answer.converged, answer.x, jnp.nan)
