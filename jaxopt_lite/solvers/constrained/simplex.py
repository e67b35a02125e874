"""Methods for the simplex {x >= 0, sum x = s}, by multiplication or towards vertices.

A problem poses it as any others do, `eq=lambda x: jnp.sum(x) - s` and `bounds=(0, None)`, so that
multipliers, certificate and derivative are those of its constraints. That they are a simplex is
measured at each step.
"""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ...core import Multipliers, Point, Report, Residuals, Status, apart, solver, static
from ...linalg import choose, norm_inf
from ...prox import projections
from .projected_search import Box, ProjectedSearch


class Simplex(NamedTuple):
    """{x >= 0, sum x = total}, and whether it is what the constraints of the problem say."""

    total: Array
    factor: Array  # a in eq(x) = a (sum x - total)
    valid: Array

    def nearest(self, x: Array) -> Array:
        """The Euclidean projection; NaN where x is."""
        finite = jnp.all(jnp.isfinite(x))
        total = jnp.where(self.valid, self.total, 1)
        return jnp.where(finite, projections.simplex(jnp.where(finite, x, 0), total), x)

    def along(self, x: Array, t: Array, d: Array) -> Array:
        """X + t d, >= 0."""
        return self._orthant(x).along(x, t, d)

    def room(self, x: Array, d: Array) -> Array:
        """The largest t with x + t d in the set."""
        return self._orthant(x).room(x, d)

    def slope(self, gradient: Array, d: Array) -> Array:
        """The slope along a d with sum d = 0, clear of the rounding of that sum."""
        return (gradient - jnp.min(gradient)) @ d

    def _orthant(self, x: Array) -> Box:
        return Box(jnp.zeros_like(x), jnp.full_like(x, jnp.inf))


class Scale(NamedTuple):
    """A length, or a curvature, to begin the next search with; and `Simplex.valid`."""

    size: Array
    valid: Array


class SimplexSearch(ProjectedSearch):
    """The search, on a simplex. What it reports is measured by the constraints as they are."""

    def region(self, problem, args):
        """The simplex that the constraints say at 0."""
        n, dtype = problem.form.size, problem.form.dtype
        name = type(self).__name__
        zero = jnp.zeros(n, dtype)
        if problem.eq is None or problem.bounds is None:
            raise ValueError(
                f"{name} takes the simplex only: eq=lambda x: jnp.sum(x) - s and "
                f"bounds=(0.0, None), but the problem has "
                f"{' and '.join(sorted(problem.features)) or 'no constraints'}. "
                "LBFGSB and TRON take bounds, InteriorPoint any constraints."
            )
        value, row = _equation(problem, zero, args)
        if value.shape != (1,):
            raise ValueError(
                f"{name} takes one equation, jnp.sum(x) - s, but `eq` has {value.size} entries. "
                "InteriorPoint takes any."
            )
        slope = row[0]
        total = -value[0] / jnp.where(slope == 0, 1, slope)
        lower, upper = problem.box(args)
        valid = (
            _is_constant(row, slope)
            & (slope != 0)
            & (total > 0)
            & jnp.all((lower == 0) & (upper >= total))
        )
        return Simplex(total, slope, valid)

    def start_memory(self, x):
        """The first size."""
        return Scale(jnp.ones((), x.dtype), jnp.array(True))

    def step(self, problem, state, args):
        """As in every search; and whether the set is a simplex."""
        state = super().step(problem, state, args)
        region = self.region(problem, args)
        _, row = _equation(problem, state.point.x, args)
        valid = region.valid & _is_constant(row, region.factor)
        return state._replace(memory=state.memory._replace(valid=valid))

    def report(self, problem, state, args):
        """The last accepted point; what g lacks of its least entry is the price of x >= 0."""
        x, gradient = state.point.x, state.gradient
        region = self.region(problem, args)
        eq, row = _equation(problem, x, args)
        slope = jnp.where(region.factor == 0, 1, region.factor)
        low = gradient - jnp.min(gradient)
        price = -jnp.min(gradient) / slope
        above = problem.bounds(*args)[1] is not None
        prices = Multipliers(eq=price[None], lower=low, upper=jnp.zeros_like(x) if above else None)
        residuals = Residuals(
            stationarity=norm_inf(gradient + price * row - low),
            primal=jnp.maximum(norm_inf(eq), norm_inf(jnp.minimum(x, 0))),
            dual=jnp.zeros_like(price),
            complementarity=apart(low, x),
        )
        old = super().report(problem, state, args)
        valid = state.memory.valid
        failure = choose(~valid, int(Status.STALLED), old.failure)
        return Report(Point(x, prices), state.value, residuals, valid, failure)

    def complaint(self, state):
        """Constraints that are no simplex."""
        if bool(np.all(np.asarray(state.memory.valid))):
            return None
        return (
            f"{type(self).__name__} takes the simplex only, sum(x) = s > 0 and x >= 0, but `eq` is "
            "not a multiple of jnp.sum(x) - s, or lower bounds are not 0, or upper ones below s. "
            "InteriorPoint takes any constraints."
        )


def _equation(problem, x: Array, args: tuple) -> tuple[Array, Array]:
    """What the equation is at x, and its gradient."""
    value, pull = jax.vjp(lambda x: problem.eq(x, *args), x)
    return value, pull(jnp.ones_like(value))[0]


def _is_constant(row: Array, slope: Array) -> Array:
    """Whether all entries are the same, but for the rounding of a scaled sum."""
    return norm_inf(row - slope) <= 8 * jnp.finfo(row.dtype).eps * jnp.abs(slope)


@solver(accepts={"eq", "bounds"})
class MirrorDescent(SimplexSearch):
    """Exponentiated gradients on the simplex: x_i <- x_i exp(-t g_i), scaled to sum x = s.

    The step of least t g'y + sum y log(y/x): distances are relative, so a hundred thousand entries
    cost little more than a few (the logarithm of n). t is that of Barzilai and Borwein in this
    metric, s'(log x+ - log x) / s'y; between x and where it leads a search until f is below the
    largest of its last ten values. Converges for convex f; entries whose price is positive fall by
    a factor a step. Ends at stationary points otherwise. One evaluation of f and grad f a step.

    CONVERGED is a KKT point, each unscaled residual at most `tol`; entries that should be 0 may be
    left at x_i > 0 with x_i times its price at most `tol`.

    Sources: Beck & Teboulle (2003); Birgin, Martínez & Raydan (2000) for the search.
    """

    curvature: ClassVar = None
    window = 10

    def init(self, problem, point, args):
        """At the start, on the simplex; a thousandth of it spread, for a 0 would remain one."""
        state = super().init(problem, point, args)
        x = state.point.x
        spread = jnp.sum(x) / x.shape[0]
        return state._replace(point=Point(x + 1e-3 * (spread - x)))

    def remember(self, memory, pair, x, accept):
        """The next t; a longer one where s'y shows no curvature."""
        s, least = pair.s, jnp.finfo(x.dtype).tiny
        ratio = jnp.log(jnp.maximum(x, least)) - jnp.log(jnp.maximum(x - s, least))
        bent = pair.sy > 0
        longer = memory.size * jnp.maximum(4, pair.step)
        spread = jnp.max(pair.y) - jnp.min(pair.y)
        first = 1 / jnp.where(spread > 0, spread, 1)
        unbent = jnp.where(pair.number < 0, first, longer)
        size = jnp.where(bent, s @ ratio / jnp.where(bent, pair.sy, 1), unbent)
        return choose(accept, memory._replace(size=size), memory)

    def direct(self, memory, x, gradient, box):
        """Where the multiplication leads, minus x."""
        least = jnp.finfo(x.dtype).tiny ** 0.5
        weight = jnp.log(jnp.maximum(x, least * box.total))
        fall = memory.size * (gradient - jnp.min(gradient))
        return box.total * jax.nn.softmax(weight - fall) - x


@solver(accepts={"eq", "bounds"})
class FrankWolfe(SimplexSearch):
    """Conditional gradients on the simplex, sparse answers: pairwise steps, or away steps.

    "pairwise": weight goes from the worst entry to the best, d = e_i - e_j with the least g_i, and
    the largest g_j among x_j > 0; two entries change. "away": toward the best, d = s e_i - x, or
    away from the worst, d = x - s e_j, whichever is steeper. t by the curvature of the last step,
    up to where x_j is 0, and a Wolfe search. Zeros are exact. Linear for strongly convex f, in many
    cheap steps: the number grows with that of the entries that are not 0. The duality gap
    g'(x - s e_i), which bounds f - f* for convex f, is at most s times the largest price of an
    entry not 0.

    CONVERGED is a KKT point, each unscaled residual at most `tol`.

    Args:
        moves: "pairwise" or "away".

    Sources: Lacoste-Julien & Jaggi (2015), pairwise and away steps; Frank & Wolfe (1956).

    """

    moves: str = static(default="pairwise")

    def __post_init__(self):
        """Refuse unknown moves."""
        if self.moves not in ("pairwise", "away"):
            raise ValueError(
                f"FrankWolfe(moves=...) must be 'pairwise' or 'away', but {self.moves!r} came."
            )

    def remember(self, memory, pair, x, accept):
        """The curvature s'y/s's, for the next step."""
        ss = pair.s @ pair.s
        bent = (pair.sy > 0) & (ss > 0)
        first = pair.number < 0
        seen = jnp.where(bent, pair.sy / jnp.where(bent, ss, 1), 0.25 * memory.size)
        seen = jnp.where(first, norm_inf(pair.y), seen)
        return choose(accept, memory._replace(size=lax.stop_gradient(seen)), memory)

    def direct(self, memory, x, gradient, box):
        """From the worst entry to the best, or toward or away from one, by the curvature."""
        i = jnp.argmin(gradient)
        j = jnp.argmax(jnp.where(x > 0, gradient, -jnp.inf))
        if self.moves == "pairwise":
            d, longest = jnp.zeros_like(x).at[i].add(1).at[j].add(-1), x[j]
        else:
            toward, away = (-x).at[i].add(box.total), x.at[j].add(-box.total)
            ahead = gradient @ toward <= gradient @ away
            rest = box.total - x[j]
            room = jnp.where(rest > 0, x[j] / jnp.where(rest > 0, rest, 1), 0)
            d, longest = choose(ahead, (toward, jnp.ones_like(room)), (away, room))
        fall = -(gradient @ d)
        bend = memory.size * (d @ d)
        t = fall / jnp.maximum(bend, jnp.finfo(x.dtype).tiny)
        return jnp.where(fall > 0, jnp.clip(t, 0, longest), 0) * d
