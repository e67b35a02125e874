"""A proximal primal-dual interior point method for dense quadratic and linear programs.

    minimise 1/2 x'Px + q'x   s.t.   Ax = b,   Cx + s = h,   s >= 0

    factorise  ->  predictor: s z = 0  ->  corrector: s z = sigma mu  ->  the longest step inside
    ->  residuals there: small, or a ray that proves that there is no answer?

The systems carry proximal terms rho in x and delta in the multipliers, centred at the iterate: they
shorten steps and leave no error, so that P may be singular or zero and rows dependent. Both systems
of a step share one Cholesky factor of the condensed matrix. Where that is too inexact the step is
not taken, and LU of the whole matrix serves from then on.

Legend: x variables, y and z multipliers, s slacks, mu = s'z / k, C all rows of inequalities and
bounds; all in the units of `Scaled`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import QuadraticProgram, Report, Residuals, Status, static
from ...linalg import choose, norm_inf, once, rarely, spectrum
from .base import ProgramSolver, Proof, program_solver, units_at, worst_at
from .system import Scaled, System, Vectors, factorise, scale, solve

BOUNDARY = 0.995  # part of the way to the boundary that a step may go
FASTEST = 0.1  # factor by which the proximal terms fall in a step
SMALL = 1e-3  # part of a residual, or of the tolerance, to which systems are refined,
RESCUE = 100  # times that: LU takes over
IDLE = 4  # or steps without progress before it does
PATIENCE = 20  # steps without progress before STALLED
DEPTH = (1e-3, 1.0)  # how far inside a warm start is moved, in units of `Scaled`
POLISHING = 4  # proximal steps on the active set


class Proximal(NamedTuple):
    """How small the proximal terms get: as little as rounding in the factors lets them."""

    rho: float  # of x
    delta: float  # of multipliers, in the condensed matrix, which magnifies rounding by 1 / delta
    whole: float  # of both, in the whole matrix
    ray: float  # how exact a ray must be

    @classmethod
    def of(cls, dtype) -> "Proximal":
        """1e-8, 1e-7, 1e-11 in float64."""
        eps = float(jnp.finfo(dtype).eps)
        return cls(eps**0.51, eps**0.45, eps**0.7, eps**0.5)


class Measured(NamedTuple):
    """A point and what was measured there, in the units of the program."""

    here: Vectors  # in those of `Scaled`
    value: Array
    gap: Array  # value less dual value
    residuals: Residuals

    def worst(self) -> Array:
        """The largest residual; those of complementarity relative to 1 + |value|."""
        return worst_at(self.value, self.gap, self.residuals)


class InteriorState(NamedTuple):
    """Between two steps."""

    scaled: Scaled
    here: Vectors
    slack: Array  # s (k,)
    left: Vectors  # residuals to remove: -grad L, b - Ax, h - Cx - s
    rho: Array
    delta: Array
    whole: Array  # whether LU is used
    begun: Array
    best: Measured  # what is reported
    idle: Array  # steps since the worst residual fell by a tenth
    proof: Proof
    failure: Array


@program_solver
class ProximalInteriorPoint(ProgramSolver):
    """Mehrotra's predictor and corrector on proximally regularised systems, condensed to (n, n).

    5 to 15 steps of O(n^2 (m + p) + n^3 / 3), some 30 for hard programs; where those condensed
    systems are too inexact, of O((n + m + p)^3). CONVERGED: stationarity and violations at most
    `tol`, products of prices and slacks and the duality gap at most tol (1 + |value|). NONCONVEX:
    P has negative curvature, `proof` the direction. Dense arrays only.

    Args:
        tol: stopping tolerance; `solve_qp` fills it in,
        warm: and whether there is a start: then the constraints that bind there are tried first.

    Source: Mehrotra (1992); Schwan, Jiang, Kuhn & Jones (2023).

    """

    tol: ArrayLike | None = None
    warm: bool = static(default=False)

    def init(self, problem, point, program):
        """Scaled, checked for convexity, and at `point` if that is a warm start."""
        scaled = scale(program)
        dtype = scaled.q.dtype
        zero = jax.tree.map(jnp.zeros_like, scaled.vectors(point))
        nothing = jnp.zeros((), dtype)
        blank = Measured(zero, nothing, nothing, Residuals(*[nothing + jnp.inf] * 4))
        convex, direction = _curvature(scaled)
        small = jnp.asarray(1e-6, dtype)
        least = Proximal.of(dtype)
        cold = InteriorState(
            scaled=scaled,
            here=zero,
            slack=jnp.ones_like(scaled.h),
            left=zero,
            rho=jnp.maximum(small, least.rho),
            delta=jnp.maximum(small, least.delta),
            whole=jnp.array(False),
            begun=jnp.array(False),
            best=blank,
            idle=jnp.int32(0),
            proof=Proof(jax.tree.map(jnp.zeros_like, point.multipliers), direction),
            failure=choose(convex, int(Status.RUNNING), jnp.int32(Status.NONCONVEX)),
        )
        return _warmed(cold, scaled.vectors(point)) if self.warm else cold

    def step(self, problem, state, program):
        """A step from an interior point to the next; the first finds one to start from."""
        scaled, first = state.scaled, ~state.begun
        ones = jnp.ones_like(state.slack)
        origin = Vectors(-scaled.cost * scaled.q, scaled.b, scaled.there * (scaled.h - 1))
        left = choose(first, origin, state.left)
        z, s = choose(first, (scaled.there, ones), (state.here.z, state.slack))

        goal = self._goal(scaled, left)
        step = newton(scaled, z, s, left, goal, state.rho, state.delta, first, state.whole)
        rest = zip(step.miss, goal, strict=True)
        exact = [jnp.all(jnp.abs(miss) <= RESCUE * fine) for miss, fine in rest]  # NaN is not
        exact_enough = exact[0] & exact[1] & exact[2]
        whole = once(state.whole | (state.idle > IDLE) | ~exact_enough)
        x, y = choose(first, (0.0, 0.0), (state.here.x, state.here.y))
        moved = Vectors(
            x + step.primal * step.move.x, y + step.dual * step.move.y, z + step.dual * step.move.z
        )
        slack = jnp.where(scaled.there > 0, s + step.primal * step.slack, 1)
        moved, slack = choose(first, _start(scaled, step.move), (moved, slack))
        fine = jnp.isfinite(moved.largest()) & jnp.all(jnp.isfinite(slack))
        fine = once(fine & (exact_enough | state.whole))
        here, slack = choose(fine, (moved, slack), (state.here, state.slack))
        state = state._replace(here=here, slack=slack, whole=whole, begun=state.begun | fine)
        return _judged(state, program)

    def _goal(self, scaled: Scaled, left: Vectors) -> Vectors:
        """What the solution of a Newton system may leave of the residuals it is to remove."""
        tol = Proximal.of(scaled.q.dtype).ray if self.tol is None else self.tol
        units = Vectors(scaled.cost * scaled.units.x, scaled.units.y, scaled.units.z)
        rows = zip(units, left, strict=True)
        return Vectors(*(SMALL * jnp.maximum(tol * unit, norm_inf(had)) for unit, had in rows))

    def report(self, problem, state, program):
        """The best point so far."""
        best = state.best
        units = units_at(best.value)
        tol = 0.0 if self.tol is None else self.tol
        return Report(
            state.scaled.point(program, best.here),
            best.value,
            best.residuals,
            settled=jnp.abs(best.gap) <= tol * units.complementarity,
            failure=state.failure,
            units=units,
            gap=best.gap,
        )

    def proof(self, problem, state, program):
        """The rays that were found."""
        return state.proof


# -- a step ----------------------------------------------------------------------------------------


class Step(NamedTuple):
    """Mehrotra's step, and how far it may go."""

    move: Vectors
    slack: Array  # and its change of s
    primal: Array  # lengths
    dual: Array
    miss: Vectors  # what rounding left of the corrector's system


def newton(
    scaled: Scaled,
    z: Array,
    s: Array,
    left: Vectors,
    goal: Vectors,
    rho: Array,
    delta: Array,
    first: Array,
    whole: Array,
) -> Step:
    """Predictor and corrector with one factorisation; the predictor alone where `first`."""
    there = scaled.there
    count = jnp.maximum(jnp.sum(there), 1)
    mu = jnp.vdot(there * s, z) / count
    safe = jnp.where(z > 0, z, 1)
    system = factorise(scaled, rho, delta, there / (s / safe + delta), whole)

    def turn(i, carry):
        """To s z = target, which is 0 first, and then what that step makes attainable."""
        target = carry[0]
        rhs = left._replace(z=there * (left.z + s - target / safe))
        rough = jax.tree.map(lambda fine: jnp.where(i == 0, jnp.inf, fine), goal)
        move, miss = solve(scaled, system, rhs, rough)
        ds = there * (left.z - scaled.rows(move.x) + delta * move.z)
        ahead_s = s + _longest(s, ds, there) * ds
        ahead = jnp.vdot(there * ahead_s, z + _longest(z, move.z, there) * move.z) / count
        sigma = jnp.clip(ahead / jnp.where(mu > 0, mu, 1), 0, 1) ** 3
        return jnp.where(first, 0, sigma * mu - ds * move.z), miss, move, ds

    still, nothing = jnp.zeros_like(s), jax.tree.map(jnp.zeros_like, left)
    _, miss, move, ds = lax.fori_loop(0, 2, turn, (still, nothing, nothing, still))
    primal = jnp.minimum(1, BOUNDARY * _longest(s, ds, there))
    dual = jnp.minimum(1, BOUNDARY * _longest(z, move.z, there))
    if scaled.P is not None:
        primal = dual = jnp.minimum(primal, dual)
    return Step(move, ds, primal, dual, miss)


def _longest(v: Array, dv: Array, there: Array) -> Array:
    """The longest step along dv that keeps v >= 0, at most 1 / BOUNDARY."""
    shrinks = (dv < 0) & (there > 0)
    room = jnp.where(shrinks, -v / jnp.where(shrinks, dv, -1), jnp.inf)
    return jnp.min(room, initial=1 / BOUNDARY)


def _start(scaled: Scaled, affine: Vectors) -> tuple[Vectors, Array]:
    """The least-squares point, shifted into the interior as Mehrotra (1992) does."""
    there = scaled.there

    def inside(v):
        return v + jnp.maximum(-1.5 * jnp.min(jnp.where(there > 0, v, jnp.inf), initial=0), 0)

    s, z = inside(there * (scaled.h - scaled.rows(affine.x))), inside(there * affine.z)
    product = jnp.vdot(there * s, z)
    total_s, total_z = jnp.vdot(there, s), jnp.vdot(there, z)
    more_s = 0.5 * product / jnp.where(total_z > 0, total_z, 1)
    more_z = 0.5 * product / jnp.where(total_s > 0, total_s, 1)
    small = product <= 1e-4
    s = jnp.where(small, jnp.maximum(s, 0.1), s + more_s)
    z = jnp.where(small, jnp.maximum(z, 0.1), z + more_z)
    return affine._replace(z=there * z), jnp.where(there > 0, s, 1)


def _warmed(state: InteriorState, given: Vectors) -> InteriorState:
    """At a given point, pushed inside by what is wrong with it; best is the one it polishes to."""
    scaled, there = state.scaled, state.scaled.there
    sharp, _, _ = polish(scaled, given, state.whole)
    best = measure(scaled, sharp._replace(z=jnp.maximum(sharp.z, 0)), state.slack)[0]
    room = there * (scaled.h - scaled.rows(given.x))
    wrong = measure(scaled, given, jnp.maximum(room, 0))[1].largest()
    depth = jnp.clip(wrong, *DEPTH)
    here = given._replace(z=there * jnp.maximum(given.z, depth))
    slack = jnp.where(there > 0, jnp.maximum(room, depth), 1)
    left = measure(scaled, here, slack)[1]
    usable = once(jnp.isfinite(given.largest()))
    warm = state._replace(
        here=here, slack=slack, left=left, best=best, begun=jnp.ones_like(state.begun)
    )
    return choose(usable, warm, state)


# -- what is known at a point ----------------------------------------------------------------------


def _judged(state: InteriorState, program: QuadraticProgram) -> InteriorState:
    """The state with residuals, the best point, proximal terms and signs of failure renewed."""
    scaled, here, slack, there = state.scaled, state.here, state.slack, state.scaled.there
    least = Proximal.of(slack.dtype)
    found, left, pull, bend = measure(scaled, here, slack)
    worst = found.worst()
    record = state.best.worst()
    idle = jnp.where(worst < 0.9 * record, 0, state.idle + 1).astype(jnp.int32)
    mu = jnp.vdot(there * slack, here.z) / jnp.maximum(jnp.sum(there), 1)
    floors = [jnp.where(state.whole, least.whole, floor) for floor in (least.rho, least.delta)]
    rho = jnp.maximum(floors[0], FASTEST * jnp.minimum(mu, state.rho))
    delta = jnp.maximum(floors[1], FASTEST * jnp.minimum(mu, state.delta))
    proof, infeasible, unbounded = _rays(state, program, pull, bend)
    failure = jnp.where(idle > PATIENCE, int(Status.STALLED), int(Status.RUNNING))
    failure = jnp.where(unbounded, int(Status.DUAL_INFEASIBLE), failure)
    failure = jnp.where(infeasible, int(Status.PRIMAL_INFEASIBLE), failure)
    known = state.failure != Status.RUNNING
    return state._replace(
        left=left,
        rho=rho,
        delta=delta,
        best=choose(once(worst < record), found, state.best),
        idle=idle,
        proof=choose(known, state.proof, proof),
        failure=choose(known, state.failure, failure.astype(jnp.int32)),
    )


def measure(scaled: Scaled, here: Vectors, slack: Array):
    """What is reported of a point, its residuals for Newton, and A'y + C'z and Px there."""
    units, cost, there = scaled.units, scaled.cost, scaled.there
    bend, linear = scaled.bend(here.x), cost * scaled.q
    pull = here.y @ scaled.A + scaled.pull(here.z)
    room = there * (scaled.h - scaled.rows(here.x))
    left = Vectors(-(bend + linear + pull), scaled.b - scaled.A @ here.x, room - there * slack)
    quadratic, along = jnp.vdot(here.x, bend), jnp.vdot(here.x, linear)
    support = jnp.vdot(scaled.b, here.y) + jnp.vdot(scaled.h, here.z)
    violation = jnp.maximum(norm_inf(left.y / units.y), jnp.max(-room / units.z, initial=0))
    found = Measured(
        here,
        (0.5 * quadratic + along) / cost,
        (quadratic + along + support) / cost,
        Residuals(
            norm_inf(left.x / units.x) / cost,
            violation,
            jnp.maximum(0, -jnp.min(here.z, initial=0)) / cost,
            norm_inf(here.z * room) / cost,
        ),
    )
    return found, left, pull, bend


def _rays(state, program, pull, bend) -> tuple[Proof, Array, Array]:
    """The iterate as a Farkas ray and as a direction of descent, and whether it is one."""
    scaled, here, units, cost = state.scaled, state.here, state.scaled.units, state.scaled.cost
    exact = Proximal.of(bend.dtype).ray
    support = jnp.vdot(scaled.b, here.y) + jnp.vdot(scaled.h, here.z)
    infeasible = (support < 0) & (norm_inf(pull / units.x) <= exact * -support)
    slope = jnp.vdot(scaled.q, here.x)
    rows = scaled.there * scaled.rows(here.x) / units.z
    stray = jnp.maximum(norm_inf(scaled.A @ here.x / units.y), jnp.max(rows, initial=0))
    stray = jnp.maximum(stray, norm_inf(bend / units.x) / cost)
    unbounded = (slope < 0) & (stray <= exact * -slope)
    safe = jnp.where(infeasible, -support / cost, 1)
    _, prices = scaled.point(program, here)
    farkas = jax.tree.map(lambda price: jnp.where(infeasible, price / safe, 0), prices)
    direction = jnp.where(unbounded, units.x * here.x / jnp.where(unbounded, -slope, 1), 0)
    return Proof(farkas, direction), once(infeasible), once(unbounded)


def _curvature(scaled: Scaled) -> tuple[Array, Array]:
    """Whether P is positive semidefinite, and if not a direction d, |d| <= 1, with d'Pd < 0.

    Curvature above -eps^(2/3) of the largest entry counts as 0: Cholesky of P with that much added
    decides. The eigenvalues are computed only if some lane of a batch needs them.
    """
    still = jnp.zeros_like(scaled.q)
    if scaled.P is None:
        return jnp.array(True), still
    matrix, n, info = scaled.P, still.shape[0], jnp.finfo(still.dtype)
    shift = n * info.eps ** (2 / 3) * jnp.max(jnp.abs(matrix)) + info.tiny
    shifted = matrix + shift * jnp.eye(n, dtype=still.dtype)
    factor = lax.linalg.cholesky(shifted, symmetrize_input=False)
    convex = once(jnp.all(jnp.isfinite(jnp.diagonal(factor))))

    def look(matrix):
        return scaled.units.x * spectrum(matrix).vectors[:, 0]

    return convex, rarely(~convex, look, (matrix,), still)


# -- the active set --------------------------------------------------------------------------------


def polish(scaled: Scaled, here: Vectors, whole: Array) -> tuple[Vectors, System, Array]:
    """The point where the rows that bind at `here` are equations, their factors, and which bind.

    A row binds if its price is larger than its slack. Multipliers of the others are 0. Proximal
    steps on the KKT system of those rows: where it is singular they go to the nearest solution.
    """
    binds = here.z > jnp.maximum(scaled.h - scaled.rows(here.x), 0)
    active = jnp.where(binds, scaled.there, 0)
    least = Proximal.of(here.x.dtype)
    rho, delta = (jnp.where(whole, least.whole, floor) for floor in (least.rho, least.delta))
    rho, delta = rho.astype(here.x.dtype), delta.astype(here.x.dtype)
    system = factorise(scaled, rho, delta, active / delta, whole)

    def nearer(_, here):
        left = measure(scaled, here, jnp.zeros_like(here.z))[1]
        step, _ = solve(scaled, system, left._replace(z=active * left.z))
        return here.plus(step._replace(z=active * step.z))

    return lax.fori_loop(0, POLISHING, nearer, here._replace(z=active * here.z)), system, active


CENTERING = 30  # Newton steps to a point of the central path, at most


def center(scaled: Scaled, here: Vectors, product: Array, whole: Array) -> tuple[Vectors, System]:
    """The point of the central path where price times slack is `product`, and its factors."""
    there = scaled.there
    least = Proximal.of(here.x.dtype)
    rho, delta = jnp.full_like(scaled.cost, least.rho), jnp.full_like(scaled.cost, least.delta)
    target = scaled.cost * product
    side = jnp.sqrt(target)
    room = scaled.h - scaled.rows(here.x)
    s = jnp.where(there > 0, jnp.maximum(room, side), 1)
    z = there * jnp.maximum(here.z, jnp.minimum(side, target / s))
    eps = jnp.finfo(z.dtype).eps

    def going(carry):
        count, _, _, error = carry
        return (count < CENTERING) & (error > eps**0.7)

    def nearer(carry):
        count, here, s, _ = carry
        z, left = here.z, measure(scaled, here, s)[1]
        safe = jnp.where(z > 0, z, 1)
        system = factorise(scaled, rho, delta, there / (s / safe + delta), whole)
        rhs = left._replace(z=there * (left.z + s - target / safe))
        move, _ = solve(scaled, system, rhs, jax.tree.map(jnp.zeros_like, rhs))
        ds = there * (left.z - scaled.rows(move.x) + delta * move.z)
        step = jnp.minimum(_longest(s, ds, there), _longest(z, move.z, there))
        step = jnp.minimum(1, BOUNDARY * step)
        here = here.plus(jax.tree.map(lambda d: step * d, move))
        s = jnp.where(there > 0, s + step * ds, 1)
        left = measure(scaled, here, s)[1]
        off = norm_inf(there * (s * here.z / target - 1))
        return count + 1, here, s, jnp.maximum(left.largest(), off)

    first = (jnp.int32(0), here._replace(z=z), s, jnp.full((), jnp.inf, z.dtype))
    _, here, s, _ = lax.while_loop(going, nearer, first)
    safe = jnp.where(here.z > 0, here.z, 1)
    return here, factorise(scaled, rho, delta, there / (s / safe + delta), whole)
