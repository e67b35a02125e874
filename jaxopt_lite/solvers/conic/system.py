"""The linear algebra of a program: equilibration, and one factorisation for each KKT system.

    [[P + rho, A', C'], [A, -delta, 0], [C, 0, -1/w]] [x, y, z] = [a, b, c]

C = [G; -I; I] holds the rows of all inequalities, of those the bounds as they are. With weights
w in place of 1/w a row may be switched off (w = 0) or nearly an equation (w = 1/delta). What is
factorised is the condensed matrix

    H = P + rho + A'A / delta + C' diag(w) C,

positive definite whatever P, A and C are; its rounding, which large w magnify, is refined away on
the system above. Sources: Schwan, Jiang, Kuhn & Jones (2023); Ruiz (2001) for the equilibration.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import lu_factor, lu_solve, solve_triangular

from ...core import Multipliers, Point, QuadraticProgram, static
from ...linalg import rarely

RUIZ_PASSES = 10  # at most
REFINEMENTS = 3  # of a solve, at most
EVEN = 0.5  # largest entries of rows and columns above which, with their inverse below, it ends


class Vectors(NamedTuple):
    """A point, a residual or a step of the system: one entry for each of its rows."""

    x: Array  # (n,)
    y: Array  # (m,)
    z: Array  # (k,), of G, then of the lower, then of the upper bounds

    def plus(self, other: "Vectors") -> "Vectors":
        """The sum."""
        return Vectors(*(a + b for a, b in zip(self, other, strict=True)))

    def minus(self, other: "Vectors") -> "Vectors":
        """The difference."""
        return Vectors(*(a - b for a, b in zip(self, other, strict=True)))

    def largest(self) -> Array:
        """The largest absolute entry."""
        parts = [jnp.max(jnp.abs(part)) for part in self if part.size]
        return jnp.max(jnp.stack(parts))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Scaled:
    """The program in units in which rows and columns of its KKT matrix have entries of about 1.

    x = units.x * x_scaled, y = units.y * y_scaled / cost, z = units.z * z_scaled / cost; G x <= h
    becomes units.z * G D x_scaled <= units.z * h. Absent parts have size 0, so that the code that
    follows has no special cases.
    """

    P: Array | None  # (n, n), without the factor `cost`
    q: Array
    A: Array  # (m, n)
    b: Array
    G: Array  # (p, n)
    h: Array  # (k,), right sides of all rows of C; 0 where infinite
    squares: Array  # A'A (n, n), which no step changes
    there: Array  # (k,) 1 where the row has a finite side, else 0
    units: Vectors
    cost: Array  # factor of the objective
    sides: tuple[bool, bool] = static()  # whether there are lower, upper bounds

    def rows(self, x: Array) -> Array:
        """C x."""
        parts = [self.G @ x] if self.G.shape[0] else []
        parts += [-x] * self.sides[0] + [x] * self.sides[1]
        return _joined(parts, x)

    def pull(self, z: Array) -> Array:
        """C' z."""
        g, low, high = self.split(z)
        total = g @ self.G if self.G.shape[0] else jnp.zeros_like(self.q)
        total = total if low is None else total - low
        return total if high is None else total + high

    def split(self, z: Array) -> tuple[Array, Array | None, Array | None]:
        """What belongs to G, to lower and to upper bounds."""
        p, n = self.G.shape
        low = z[p : p + n] if self.sides[0] else None
        return z[:p], low, z[z.shape[0] - n :] if self.sides[1] else None

    def bend(self, x: Array) -> Array:
        """P x, times the cost."""
        return jnp.zeros_like(x) if self.P is None else self.cost * (self.P @ x)

    def point(self, program: QuadraticProgram, v: Vectors) -> Point:
        """In the units of the program."""
        g, low, high = self.split(self.units.z * v.z / self.cost)
        eq = None if program.A is None else self.units.y * v.y / self.cost
        return Point(
            self.units.x * v.x, Multipliers(eq, None if program.G is None else g, low, high)
        )

    def vectors(self, point: Point) -> Vectors:
        """In the units of this."""
        m = point.multipliers
        y = jnp.zeros_like(self.b) if m.eq is None else m.eq * self.cost / self.units.y
        z = _joined([part for part in m[1:] if part is not None], self.q)
        return Vectors(point.x / self.units.x, y, z * self.cost / self.units.z)


def scale(program: QuadraticProgram) -> Scaled:
    """Ruiz: divide rows and columns by the root of their largest entry, some times over."""
    P, q, A, b, G, h, lower, upper = program
    n, dtype = q.shape[0], q.dtype
    A = jnp.zeros((0, n), dtype) if A is None else A
    b = jnp.zeros(0, dtype) if b is None else b
    G = jnp.zeros((0, n), dtype) if G is None else G
    h = jnp.zeros(0, dtype) if h is None else h

    def largest(units):
        """The largest entries of columns and rows in these units."""
        column, row, low = units
        inner_A, inner_G = jnp.abs(A) * row[:, None] * column, jnp.abs(G) * low[:, None] * column
        of_column = jnp.maximum(
            jnp.max(inner_A, axis=0, initial=0), jnp.max(inner_G, axis=0, initial=0)
        )
        if P is not None:
            of_column = jnp.maximum(of_column, jnp.max(jnp.abs(P) * column, axis=1) * column)
        return of_column, jnp.max(inner_A, axis=1, initial=0), jnp.max(inner_G, axis=1, initial=0)

    def uneven(carry):
        count, _, sizes = carry
        off = [jnp.any((size > 0) & ((size < EVEN) | (size > 1 / EVEN))) for size in sizes]
        return (count < RUIZ_PASSES) & (off[0] | off[1] | off[2])

    def divide(carry):
        count, units, sizes = carry
        units = tuple(unit * _root(size) for unit, size in zip(units, sizes, strict=True))
        return count + 1, units, largest(units)

    one = (jnp.ones(n, dtype), jnp.ones(b.shape[0], dtype), jnp.ones(h.shape[0], dtype))
    _, (x, y, g), _ = lax.while_loop(uneven, divide, (jnp.int32(0), one, largest(one)))
    curvature = None if P is None else x[:, None] * P * x
    linear = x * q
    size = jnp.max(jnp.abs(linear))
    if curvature is not None:
        size = jnp.maximum(size, jnp.mean(jnp.max(jnp.abs(curvature), axis=0)))
    cost = jnp.where(size > 0, 1 / jnp.where(size > 0, size, 1), 1)
    sides = [h] + [-s for s in (lower,) if s is not None] + [s for s in (upper,) if s is not None]
    bounds = [1 / x] * (len(sides) - 1)
    every, z = _joined(sides, q), _joined([g, *bounds], q)
    there = every != jnp.inf  # NaN is, and shows
    rows = y[:, None] * A * x
    return Scaled(
        P=curvature,
        q=linear,
        A=rows,
        squares=rows.T @ rows,
        b=y * b,
        G=g[:, None] * G * x,
        h=jnp.where(there, z * jnp.where(there, every, 0), 0),
        there=there.astype(dtype),
        units=Vectors(x, y, z),
        cost=cost,
        sides=(lower is not None, upper is not None),
    )


def _root(size: Array) -> Array:
    """1 / sqrt(size), within limits; 1 for a row of zeros."""
    return jnp.where(size > 0, lax.rsqrt(jnp.clip(jnp.where(size > 0, size, 1), 1e-8, 1e8)), 1)


def _joined(parts: list[Array], like: Array) -> Array:
    if not parts:
        return jnp.zeros(0, like.dtype)
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts)


# -- the factorisation -----------------------------------------------------------------------------


class System(NamedTuple):
    """A KKT matrix and the factor of H; where `whole`, that is not trusted."""

    rho: Array
    delta: Array
    weight: Array  # w (k,)
    whole: Array
    factor: Array  # L' (n, n), upper, of H: by rows what LAPACK has by columns, so never copied

    def product(self, scaled: Scaled, v: Vectors) -> Vectors:
        """The matrix times v; a row that is off gives C x."""
        top = scaled.bend(v.x) + self.rho * v.x + v.y @ scaled.A + scaled.pull(v.z)
        rows = scaled.rows(v.x) - _inverse(self.weight) * v.z
        return Vectors(top, scaled.A @ v.x - self.delta * v.y, rows)


def factorise(scaled: Scaled, rho: Array, delta: Array, weight: Array, whole: Array) -> System:
    """Cholesky of H: O(n^2 p + n^3 / 3)."""
    matrix = _top(scaled, rho, weight)
    if scaled.A.shape[0]:
        matrix = matrix + scaled.squares / delta
    if scaled.G.shape[0]:
        g, _, _ = scaled.split(weight)
        matrix = matrix + (scaled.G.T * g) @ scaled.G
    factor = lax.linalg.cholesky(matrix, symmetrize_input=False)
    return System(rho, delta, weight, whole, factor.T)


def _top(scaled: Scaled, rho: Array, weight: Array) -> Array:
    """P + rho and the bounds."""
    _, low, high = scaled.split(weight)
    diagonal = jnp.full(scaled.q.shape[0], rho)
    diagonal = diagonal if low is None else diagonal + low
    diagonal = diagonal if high is None else diagonal + high
    top = jnp.diag(diagonal)
    return top if scaled.P is None else top + scaled.cost * scaled.P


def solve(
    scaled: Scaled, system: System, rhs: Vectors, goal: Vectors | None = None
) -> tuple[Vectors, Vectors]:
    """The system's solution, refined until what is left of `rhs` is below `goal`; and that.

    Without a goal there is no refinement. Where `system.whole`, by LU of the matrix without bounds,
    O((n + m + p)^3), which magnifies no rounding; a batch of which no lane asks does not pay.
    """

    def by_lu(rhs, cost, rho, delta, weight):
        # all that scales a matrix is an operand: its product with P would be computed always
        again = System(rho, delta, weight, system.whole, system.factor)
        own = dataclasses.replace(scaled, cost=cost)
        factors = lu_factor(_augmented_matrix(own, again).T)  # symmetric; LAPACK goes by columns
        return _refined(own, again, lambda r: _augmented(own, again, factors, r), rhs, goal)

    quick = _refined(scaled, system, lambda r: _condensed(scaled, system, r), rhs, goal)
    operands = (rhs, scaled.cost, system.rho, system.delta, system.weight)
    return rarely(system.whole, by_lu, operands, quick)


def _refined(
    scaled: Scaled,
    system: System,
    once: Callable[[Vectors], Vectors],
    rhs: Vectors,
    goal: Vectors | None,
) -> tuple[Vectors, Vectors]:
    """Solved by `once`, and what is left by it again."""
    on = (system.weight > 0).astype(scaled.q.dtype)

    def left(answer):
        rest = rhs.minus(system.product(scaled, answer))
        return rest._replace(z=on * rest.z)

    if goal is None:
        answer = once(rhs)
        return answer, left(answer)

    def going(carry):
        count, _, rest = carry
        large = [jnp.any(jnp.abs(r) > g) for r, g in zip(rest, goal, strict=True)]
        return (count < 0) | ((count < REFINEMENTS) & (large[0] | large[1] | large[2]))

    def refine(carry):
        count, answer, rest = carry
        answer = answer.plus(once(rest))
        return count + 1, answer, left(answer)

    _, answer, rest = lax.while_loop(
        going, refine, (jnp.int32(-1), jax.tree.map(jnp.zeros_like, rhs), rhs)
    )
    return answer, rest


def _augmented_matrix(scaled: Scaled, system: System) -> Array:
    """[[P + rho + bounds, A', G'], [A, -delta, 0], [G, 0, -1/w]], rows that are off made -1."""
    g, _, _ = scaled.split(system.weight)
    on = g > 0
    rows = jnp.concatenate([scaled.A, jnp.where(on[:, None], scaled.G, 0)])
    proximal = jnp.full(scaled.b.shape[0], system.delta)
    relax = jnp.concatenate([proximal, jnp.where(on, _inverse(g), 1)])
    top = _top(scaled, system.rho, system.weight)
    return jnp.block([[top, rows.T], [rows, -jnp.diag(relax)]])


def _augmented(scaled: Scaled, system: System, factors: Any, rhs: Vectors) -> Vectors:
    """By LU; the bounds are eliminated."""
    n, m, p = scaled.q.shape[0], scaled.b.shape[0], scaled.G.shape[0]
    g, _, _ = scaled.split(system.weight)
    of_bounds = system.weight.at[:p].set(0)
    top = rhs.x + scaled.pull(of_bounds * rhs.z)
    right = jnp.concatenate([top, rhs.y, jnp.where(g > 0, rhs.z[:p], 0)])
    x, y, z = jnp.split(lu_solve(factors, right), [n, n + m])
    bounds = of_bounds * (scaled.rows(x) - rhs.z)
    return Vectors(x, y, bounds.at[:p].set(z))


def _condensed(scaled: Scaled, system: System, rhs: Vectors) -> Vectors:
    """By elimination of y and z: as exact as the conditioning of H lets it be."""
    top = rhs.x + (rhs.y / system.delta) @ scaled.A + scaled.pull(system.weight * rhs.z)
    half = solve_triangular(system.factor.T, top, lower=True)
    x = solve_triangular(system.factor.T, half, lower=True, trans=1)
    y = (scaled.A @ x - rhs.y) / system.delta
    return Vectors(x, y, system.weight * (scaled.rows(x) - rhs.z))


def _inverse(weight: Array) -> Array:
    return jnp.where(weight > 0, 1 / jnp.where(weight > 0, weight, 1), 0)
