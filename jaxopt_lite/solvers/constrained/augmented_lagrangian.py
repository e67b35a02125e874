"""The augmented Lagrangian method: constraints become prices and penalties of an inner problem.

    one step of the inner solver on f + prices . constraints + penalty |violation|^2 / 2
      ->  first-order prices, and the residuals of the problem itself with them
      ->  is the inner problem solved as far as it should be?
            yes: new prices; a larger penalty if the violation has not fallen; the inner goes on
            no:  the next step

The inner solver's state is carried in ours and stepped once a step: no loop in a loop, so lanes of
a batch never wait for each other's inner problems. Nothing is factorised here: memory is that of
the inner solver, and a few vectors as long as x and the constraints.

Legend: c equalities, g inequalities, y and z their prices, rho the penalty, V the violation.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import (
    Multipliers,
    Point,
    Report,
    Residuals,
    Solver,
    Status,
    apart,
    check,
    solver,
    static,
)
from ...core.solver import with_tolerance
from ...core.tracing import FlatProblem
from ...linalg import choose, norm_inf, once
from ..smooth import BFGS, LBFGS
from ..smooth.first_order import FirstOrder
from ..smooth.line_search import LineSearchState
from .bounded import LBFGSB
from .projected_search import ProjectedSearch

# Those with a star are those of Birgin & Martinez (2014), chapter 12, or nearly so.
FALL = 0.5  # *of V, that an inner problem must bring; else the penalty is raised,
RAISE = 10.0  # *by this factor
LARGEST_PRICE = 1e20  # *
LARGEST_PENALTY = 1e16
FIRST = 0.1  # tolerance of the first inner problem, relative to the gradient at the start
SHRINK = 0.1  # *of that tolerance from one inner problem to the next
PATIENCE = 40  # inner steps without progress, before prices change all the same
LONGEST = 2000  # inner steps on one inner problem
FAR = 100.0  # an inner problem that leads so much further away, and out of the constraints, fails
HOPELESS = 5  # raises of the penalty in a row, before feasibility alone is sought
COARSE = 4.0  # ratio of neighbouring units
SIGNS = 16  # directions in which slopes of constraints are measured
SMALLEST = 1e-8  # below, a slope at the start is taken for none
FEW = 5  # batches, whose average feeds the penalty
STALE = 15  # inner problems in which the worst residual does not fall by a tenth, before STALLED


class Seen(NamedTuple):
    """F, c and g at a point."""

    value: Array
    eq: Any  # (m,), or None
    ineq: Any  # (p,), or None

    @classmethod
    def at(cls, problem: FlatProblem, x: Array, args: tuple) -> "Seen":
        """One evaluation of each."""
        eq, ineq = (None if fun is None else fun(x, *args) for fun in (problem.eq, problem.ineq))
        return cls(problem.value(x, args), eq, ineq)

    def times(self, scale: "Seen") -> "Seen":
        """In other units."""
        return jax.tree.map(jnp.multiply, self, scale)

    def over(self, scale: "Seen") -> "Seen":
        """Back from them."""
        return jax.tree.map(jnp.divide, self, scale)

    def violated(self) -> Array:
        """The largest violation, max |c|, g; below 0 inside."""
        worst = norm_inf(self.eq).astype(self.value.dtype)
        return worst if self.ineq is None else jnp.maximum(worst, jnp.max(self.ineq))

    def half_square(self) -> Array:
        """|c|^2 / 2 + |max(g, 0)|^2 / 2."""
        total = jnp.zeros_like(self.value)
        if self.eq is not None:
            total = total + 0.5 * (self.eq @ self.eq)
        if self.ineq is not None:
            above = jnp.maximum(self.ineq, 0)
            total = total + 0.5 * (above @ above)
        return total


class Prices(NamedTuple):
    """What the inner problem depends on besides the data; it is in units of its own."""

    weight: Array  # of f: 1, or 0 while only feasibility is sought
    eq: Any  # y, or None
    ineq: Any  # z >= 0, or None
    penalty: Array  # rho >= 0
    scale: Seen  # its units: f, c and g are multiplied by this

    def force(self, seen: Seen) -> Multipliers:
        """Y + rho c and max(0, z + rho g): first-order estimates of the multipliers."""
        eq = None if seen.eq is None else self.eq + self.penalty * seen.eq
        ineq = None if seen.ineq is None else jnp.maximum(self.ineq + self.penalty * seen.ineq, 0)
        return Multipliers(eq, ineq)

    def merit(self, seen: Seen) -> Array:
        """The augmented Lagrangian of Powell, Hestenes and Rockafellar."""
        rho, total = self.penalty, self.weight * seen.value
        if seen.eq is not None:
            total = total + self.eq @ seen.eq + 0.5 * rho * (seen.eq @ seen.eq)
        if seen.ineq is not None:
            z, g = self.ineq, seen.ineq
            slack = jnp.where(rho > 0, -0.5 * z * z / jnp.where(rho > 0, rho, 1), 0)
            total = total + jnp.sum(jnp.where(z + rho * g > 0, z * g + 0.5 * rho * g * g, slack))
        return total

    def updated(self, seen: Seen) -> "Prices":
        """The prices that `force` says, kept finite."""
        limit = lambda y: None if y is None else jnp.clip(y, -LARGEST_PRICE, LARGEST_PRICE)
        force = self.force(seen)
        return self._replace(eq=limit(force.eq), ineq=limit(force.ineq))

    def violation(self, seen: Seen, in_units: bool = True) -> Array:
        """V = max |c|, |max(g, -z / rho)|: also how far prices are from complementarity."""
        ineq = seen.ineq
        if ineq is not None:
            ineq = jnp.maximum(ineq, -self.ineq / jnp.where(self.penalty > 0, self.penalty, 1))
        away = seen._replace(ineq=ineq)
        away = away if in_units else away.over(self.scale)
        parts = [norm_inf(part) for part in (away.eq, away.ineq) if part is not None]
        return functools.reduce(jnp.maximum, parts, jnp.zeros_like(seen.value))


# -- the inner problem -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Merit:
    """The inner objective, a function of (x, args, captured, prices)."""

    problem: FlatProblem

    def __call__(self, x: Array, *args: Any) -> Array:
        return args[-1].merit(Seen.at(self.problem, x, args[:-1]).times(args[-1].scale))


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """The bounds of the problem, as functions of (args, captured, prices)."""

    problem: FlatProblem

    def __call__(self, *args: Any) -> tuple:
        return self.problem.bounds(*args[:-1])


@dataclasses.dataclass(frozen=True)
class InnerProblem(FlatProblem):
    """The augmented Lagrangian within the bounds of `problem`, with prices as one more argument.

    What f, c and g were where the inner solver asked for value and gradient is left in `trials`, so
    that they are not evaluated a second time. An object of this class lives for one step.
    """

    # Always given, by `of`: a dataclass wants a default after those of its base.
    problem: FlatProblem = None  # type: ignore[assignment]
    trials: list = dataclasses.field(default_factory=list, compare=False)

    @classmethod
    def of(cls, problem: FlatProblem) -> "InnerProblem":
        """That of `problem`."""
        bounds = None if problem.bounds is None else _Bounds(problem)
        return cls(_Merit(problem), bounds=bounds, form=problem.form, problem=problem)

    def see(self, x: Array, args: tuple) -> Seen:
        """F, c and g in the units of the inner problem."""
        return Seen.at(self.problem, x, args[:-1]).times(args[-1].scale)

    def value_and_gradient(self, x: Array, args: tuple) -> tuple[Array, Array]:
        """One evaluation of f, c and g, and one reverse pass with the forces as weights."""
        prices = args[-1]
        seen, pull = jax.vjp(lambda x: self.see(x, args), x)
        force = prices.force(seen)
        (gradient,) = pull(Seen(prices.weight, force.eq, force.ineq))
        self.trials.append((x, seen))
        return prices.merit(seen), gradient

    def seen_at(self, x: Array, before: Array, then: Seen, args: tuple) -> tuple[Seen, Array]:
        """F, c and g at x, which is the trial or where the solver was before, and if it is.

        By distance, not equality: a compiled program may round what is computed twice differently.
        """
        if len(self.trials) != 1:  # a solver that evaluates in its own ways
            return self.see(x, args), jnp.array(True)
        trial, seen = self.trials[0]
        near, far = jnp.sum(jnp.abs(x - trial)), jnp.sum(jnp.abs(x - before))
        rounding = 8 * jnp.finfo(x.dtype).eps * jnp.sum(jnp.abs(x))
        # Negated, so that a point that is no number counts as the trial.
        return choose(~(far < near), seen, then), ~(jnp.minimum(near, far) > rounding)


class Round(NamedTuple):
    """One inner problem, and how far its solution has got."""

    tolerance: Array  # for its stationarity
    steps: Array
    lowest: Array  # merit, and
    least: Array  # stationarity, of which there was progress last
    idle: Array  # steps since
    anchor: Array  # x where it began
    violated: Array  # and the largest violation there


class AugmentedState(NamedTuple):
    """Between two evaluations."""

    point: Point  # the newest x, with the multipliers of the point that was measured last
    said: Report  # of that point
    seen: Seen  # f, c and g there, in the units of the inner problem
    # the inner problem
    inner: Any
    prices: Prices
    round: Round
    # over inner problems
    number: Array  # of those solved; -1 before the start is evaluated
    violation: Array  # V at the end of the last
    raises: Array  # of the penalty, in a row
    best: Array  # the smallest worst residual at the end of one
    stale: Array  # inner problems since
    # put aside
    slow: Prices  # while feasibility is sought; with `inner_steps`, those without the penalty
    tolerance: Array  # while feasibility is sought
    averages: tuple[Seen, Seen] | None  # with `inner_steps`: of a few batches, of a period so far


@solver(accepts={"eq", "ineq", "bounds"})
class AugmentedLagrangian(Solver):
    """Multipliers by the augmented Lagrangian, matrix-free, with any smooth solver inside.

    x ~ argmin f + y.c + rho |c|^2 / 2 + (|max(0, z + rho g)|^2 - |z|^2) / (2 rho) in the bounds,
    then y <- y + rho c, z <- max(0, z + rho g); rho rises where V = |(c, max(g, -z / rho))| has not
    halved. Linear in inner problems, the faster the larger rho, and these are solved to falling
    tolerances. One evaluation of f, c, g and one reverse pass a step, whatever the number of
    constraints; at the start one of f and sixteen directional derivatives of c and g, from which
    units are chosen in which slopes are about 1. Tolerances and answers are in the problem's own.

    CONVERGED is a KKT point, every unscaled residual at most `tol`. Where the penalty rises in vain
    the violation alone is minimised: a stationary point of it is PRIMAL_INFEASIBLE, and its
    multipliers are then the constraints that are left, c and max(g, 0). DUAL_INFEASIBLE and
    DIVERGED mean that f fell without bound. Where constraint qualifications fail multipliers may
    grow without bound, and it ends STALLED.

    Step by step with batches of data pass `inner_steps` and an inner solver that compares no values
    of f, `Optax(...)` for instance. It then descends on f + p.c + q.g with p = y + rho C and
    q = max(0, z + rho G), where C and G follow the last five batches, and after every `inner_steps`
    steps y and z rise by rho times the mean of c and g over these. A square of a batch's own c
    would add its variance to f; so the prices settle at those of the problem on all data, up to
    noise that falls with rho / inner_steps. Too large a rho makes them swing.

    Args:
        inner: the solver of inner problems, any for smooth objectives; one of fixed step only with
            `inner_steps`, since penalties that rise make it too long. None: `LBFGS`, and `LBFGSB`
            within bounds; these two and `BFGS` keep what they know of curvature when prices change.
            `TrustRegion`, or `TRON` within bounds, takes fewer steps, of second derivatives.
        penalty: the first rho, in units in which slopes at the start are about 1. None: from 1 to
            10. With `inner_steps` units are the problem's own, and rho stays; None is 0.1 there.
        inner_steps: change prices after so many steps. None: when the inner problem is solved.
        tol: stopping tolerance, on which those of inner problems depend; `solve` fills it in.

    Sources: Andreani, Birgin, Martinez & Schuverdt (2008); Birgin & Martinez (2014), algorithm 4.1.

    """

    inner: Solver | None = None
    penalty: ArrayLike | None = None
    inner_steps: int | None = static(default=None)
    tol: ArrayLike | None = None

    def __post_init__(self):
        """Refuse what solves no inner problem, and numbers that are none."""
        name, inner = "AugmentedLagrangian", self.inner
        able = isinstance(inner, Solver) and "objective" in inner.kinds
        if inner is not None and not (able and not {"eq", "ineq"} & inner.accepts):
            given = inner.__name__ if isinstance(inner, type) else repr(inner)
            hint = f" Write `{given}()`." if isinstance(inner, type) else ""
            raise TypeError(
                f"{name}(inner=...) must be a solver of smooth objectives, LBFGS() for instance, "
                f"but {given} came.{hint}"
            )
        check.leaf(f"{name}(penalty=...)", self.penalty, 0.0, way_out="None chooses it.")
        if self.inner_steps is not None:
            count = check.count(f"{name}(inner_steps=...)", self.inner_steps)
            object.__setattr__(self, "inner_steps", count)
            if not isinstance(inner, FirstOrder):
                got = "None" if inner is None else type(inner).__name__
                raise TypeError(
                    f"{name}(inner_steps=...) changes the inner problem at every step, but "
                    f"inner={got} compares values from step to step. Pass inner=Optax(...), or "
                    "FixedStep(...); or leave `inner_steps` out."
                )

    def unrolls(self, size: int) -> bool:
        """As the inner solver."""
        return self.inner is None or self.inner.unrolls(size)

    def init(self, problem, point, args):
        """At the start, where slopes are measured for units, if there is nothing stochastic."""
        x, dtype = point.x, point.x.dtype
        zero, inf, count = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype), jnp.int32(0)
        shapes = jax.eval_shape(lambda x: Seen.at(problem, x, args), x)
        seen = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        default = 1.0 if self.inner_steps is None else 0.1
        rho = jnp.asarray(default if self.penalty is None else self.penalty, dtype)
        scale = jax.tree.map(jnp.ones_like, seen)
        if self.inner_steps is None and jax.tree.leaves(seen[1:]):
            scale = lax.stop_gradient(_scaling(problem, x, args))
        prices = Prices(zero + 1, *_given(point, seen, scale), rho, scale)
        inside, inner = InnerProblem.of(problem), self._inner(problem, zero)
        start = inner.init(inside, Point(x), (*args, prices))
        bounds = inner.report(inside, start, (*args, prices)).point.multipliers
        here = Point(start.point.x, Multipliers(seen.eq, seen.ineq, bounds.lower, bounds.upper))
        nothing = Residuals(zero, zero, zero, zero)
        said = Report(here, zero, nothing, jnp.array(False), count + Status.RUNNING)
        return AugmentedState(
            point=here,
            said=said,
            seen=seen,
            inner=start,
            prices=prices if self.inner_steps is None else prices._replace(penalty=zero),
            round=Round(zero, count, inf, inf, count, here.x, zero),
            number=count - 1,
            violation=inf,
            raises=count,
            best=inf,
            stale=count,
            slow=prices,
            tolerance=zero,
            averages=None if self.inner_steps is None else (seen, seen),
        )

    def step(self, problem, state, args):
        """One step of the inner solver; where its problem is solved, the next."""
        inner, inside = self._inner(problem, state.round.tolerance), InnerProblem.of(problem)
        params, old = (*args, state.prices), state.said.point.x
        running = inner.step(inside, state.inner, params)
        report = inner.report(inside, running, params)
        x = report.point.x
        seen, known = inside.seen_at(x, old, state.seen, params)
        said = _in_problem_units(state.prices, seen, report)
        # Where x is no number, the last that was one.
        x = jnp.where(jnp.all(jnp.isfinite(x)) | (state.number < 0), x, old)
        point = Point(x, said.point.multipliers)
        settled = known & report.settled & (state.prices.weight > 0)
        said = said._replace(point=point, settled=settled)
        newest = point._replace(x=running.point.x)
        state = state._replace(point=newest, said=said, seen=seen, inner=running)
        if self.inner_steps is not None:
            return self._keep_pace(state)
        failure = self._failure(state, report, norm_inf(x - old))
        following, done = self._next_round(state, report)
        goal = Point(following.round.anchor)
        anew = _restart(inner, inside, running, goal, (*args, following.prices))
        state = choose(done, following._replace(inner=anew), self._same_round(state, report))
        stalled = (failure == Status.RUNNING) & (state.stale > STALE)
        failure = choose(stalled, int(Status.STALLED), failure)
        return state._replace(said=said._replace(failure=failure))

    def report(self, problem, state, args):
        """What was measured last."""
        return state.said

    def complaint(self, state):
        """Constraints that are not finite at the start."""
        if int(state.number) > 0:
            return None
        for name, part in (("eq", state.seen.eq), ("ineq", state.seen.ineq)):
            values = np.zeros(0) if part is None else np.asarray(part)
            if not np.all(np.isfinite(values)):
                i = int(np.flatnonzero(~np.isfinite(values))[0])
                return (
                    f"`{name}` is not finite at `x0`: entry {i} is {float(values[i])} there. Start "
                    "where the constraints are defined, or guard their domain (a `log` of 0 and a "
                    "`sqrt` at 0 are the usual causes)."
                )
        return None

    # -- from one inner problem to the next -------------------------------------------------------

    def _next_round(self, state: AugmentedState, report: Report) -> tuple[AugmentedState, Array]:
        """The next inner problem, and whether it is time for it."""
        tol, prices, seen, now = self._tol(report.value), state.prices, state.seen, state.round
        x, worst = state.said.point.x, state.said.residuals.worst()
        stationarity, violated = report.residuals.worst(), state.said.residuals.primal
        start, seeking = state.number < 0, prices.weight == 0
        outside = violated > tol
        first = start & (self.penalty is None) & (seen.eq is not None or seen.ineq is not None)

        # Solved, or as far as it can be?
        solved = (stationarity <= now.tolerance) & report.settled
        stuck = (now.idle > PATIENCE) | (now.steps > LONGEST) | (report.failure != Status.RUNNING)
        gone = norm_inf(x - now.anchor) > FAR * jnp.maximum(1, norm_inf(now.anchor))
        gone = gone & (violated > FAR * jnp.maximum(1, now.violated)) & ~seeking & ~start
        found = seeking & ((violated <= 0.1 * now.violated) | ~outside)
        done = once(first | (~start & (solved | stuck | gone | found)))

        # Prices and penalty.
        v = prices.violation(seen)
        fine = prices.violation(seen, in_units=False) <= 0.1 * tol
        enough = (v <= FALL * state.violation) | fine
        raised = (~enough | gone) & ~start & ~seeking
        rho = jnp.where(raised, RAISE * prices.penalty, prices.penalty)
        rho = jnp.where(first, _first_penalty(seen), rho)
        new = choose(start | gone, prices, prices.updated(seen))
        new = new._replace(penalty=jnp.minimum(rho, LARGEST_PENALTY))
        new = choose(seeking, state.slow, new)
        raises = jnp.where(raised, state.raises + 1, 0)
        seek = (raises >= HOPELESS) & outside
        apart = jax.tree.map(jnp.zeros_like, new)
        own = jax.tree.map(jnp.ones_like, prices.scale)
        apart = apart._replace(penalty=jnp.ones_like(rho), scale=own)

        last = 0.5 * tol * prices.scale.value
        tolerance = jnp.maximum(last, jnp.minimum(SHRINK * now.tolerance, v))
        tolerance = jnp.where(start, jnp.maximum(_first_tolerance(stationarity), last), tolerance)
        tolerance = jnp.where(seeking, state.tolerance, tolerance)
        inf, none = jnp.full_like(v, jnp.inf), jnp.int32(0)
        improved = worst < 0.9 * state.best
        begun = choose(gone, (now.anchor, now.violated), (x, violated))
        following = state._replace(
            prices=choose(seek, apart, new),
            round=Round(jnp.where(seek, 0, tolerance), none, inf, inf, none, *begun),
            number=state.number + 1,
            violation=jnp.where(start | seeking, inf, jnp.where(gone, state.violation, v)),
            raises=jnp.where(seek, none, raises),
            best=jnp.where(improved, worst, state.best),
            stale=jnp.where(improved, none, state.stale + 1),
            slow=choose(seek, new, state.slow),
            tolerance=jnp.where(seek, tolerance, state.tolerance),
        )
        return following, done

    def _same_round(self, state: AugmentedState, report: Report) -> AugmentedState:
        """One step more on the same inner problem."""
        now, start, merit = state.round, state.number < 0, report.value
        stationarity = report.residuals.worst()
        noise = 10 * jnp.finfo(merit.dtype).eps * jnp.abs(merit)
        better = (merit < now.lowest - noise) | (stationarity < 0.9 * now.least)
        begun = state.said.point.x, state.said.residuals.primal
        begun = choose(start, begun, (now.anchor, now.violated))
        tolerance = jnp.where(start, _first_tolerance(stationarity), now.tolerance)
        lowest = jnp.where(better, jnp.minimum(merit, now.lowest), now.lowest)
        least = jnp.where(better, jnp.minimum(stationarity, now.least), now.least)
        idle = jnp.where(better, 0, now.idle + 1)
        return state._replace(
            round=Round(tolerance, now.steps + 1, lowest, least, idle, *begun),
            number=jnp.maximum(state.number, 0),
        )

    def _failure(self, state: AugmentedState, report: Report, moved: Array) -> Array:
        """Whether to give up, and why."""
        tol, said, merit = self._tol(report.value), state.said, report.value
        eps = float(jnp.finfo(merit.dtype).eps)
        size, violated = norm_inf(said.point.x), said.residuals.primal
        seeking, left = state.prices.weight == 0, state.seen.violated()
        lost = seeking & (report.residuals.worst() <= eps**0.375 * left) & (violated > tol)
        lost = lost | (report.failure == Status.PRIMAL_INFEASIBLE)
        fell = (said.value < -1e6 * eps**-0.5) & (violated <= 1e-6 * jnp.maximum(1, size))
        fell = fell & (size > 1e8) & (moved > 1e-5 * size) & ~seeking
        limited = any(price is not None for price in said.point.multipliers)
        unbounded = Status.DUAL_INFEASIBLE if limited else Status.DIVERGED
        failure = jnp.where(fell, unbounded, Status.RUNNING)
        return jnp.where(lost, Status.PRIMAL_INFEASIBLE, failure).astype(jnp.int32)

    def _keep_pace(self, state: AugmentedState) -> AugmentedState:
        """Forces by what the last few batches say, prices by the mean over a period of them."""
        pace, steps, seen = self.inner_steps or 1, state.round.steps + 1, state.seen
        start, turn = state.number < 0, steps >= pace
        recent, mean = state.averages or (seen, seen)
        few = min(FEW, pace)
        follow = lambda old, new: jnp.where(start, new, old + (new - old) / few)
        recent = jax.tree.map(follow, recent, seen)
        mean = jax.tree.map(lambda old, new: old + new / pace, mean, seen)
        slow = choose(turn, state.slow.updated(mean), state.slow)
        force = slow.force(recent)
        return state._replace(
            prices=state.prices._replace(eq=force.eq, ineq=force.ineq),
            round=state.round._replace(steps=jnp.where(turn, 0, steps)),
            number=jnp.maximum(state.number, 0) + turn.astype(jnp.int32),
            slow=slow,
            averages=(recent, choose(turn, jax.tree.map(jnp.zeros_like, mean), mean)),
        )

    # -- parts ------------------------------------------------------------------------------------

    def _inner(self, problem: FlatProblem, tolerance: Array) -> Solver:
        """The inner solver; one that wants to know its tolerance is told."""
        inner = self.inner
        if inner is None:
            inner = LBFGS() if problem.bounds is None else LBFGSB()
        if problem.bounds is not None and "bounds" not in inner.accepts:
            name = type(inner).__name__
            raise TypeError(
                f"AugmentedLagrangian(inner={name}(...)) leaves bounds to its inner solver, but "
                f"{name} takes no bounds and this problem has some. Pass inner=LBFGSB() or None, "
                "or write the bounds as `ineq`."
            )
        return with_tolerance(inner, tolerance)

    def _tol(self, like: Array) -> Array:
        tol = jnp.finfo(like.dtype).eps ** 0.5 if self.tol is None else self.tol
        return jnp.asarray(tol, like.dtype)


def _first_tolerance(stationarity: Array) -> Array:
    return FIRST * jnp.maximum(1, stationarity)


def _first_penalty(seen: Seen) -> Array:
    """At which objective and penalty are of one size, within limits: raising it costs little.

    Where f is a sum over 1e5 entries, 10 takes tens of steps and 1e5 takes thousands. Sources:
    Birgin & Martinez (2014), chapter 12; Andreani et al. (2008) for the upper limit.
    """
    size = jnp.maximum(1, jnp.abs(seen.value))
    return jnp.clip(10 * size / jnp.maximum(1, seen.half_square()), 1.0, 10.0)


def _in_problem_units(prices: Prices, seen: Seen, inner: Report) -> Report:
    """What the inner solver said, of the problem itself with the forces as multipliers.

    The gradient of the merit is that of the Lagrangian there; without f, that of the violation.
    """
    scale, force = prices.scale, prices.force(seen)
    unit = jnp.where(prices.weight > 0, scale.value, 1)
    own = seen.over(scale)
    back = lambda price, rows: None if price is None else price * rows / unit
    eq, ineq = back(force.eq, scale.eq), back(force.ineq, scale.ineq)
    bounds = inner.point.multipliers
    lower, upper = (None if side is None else side / unit for side in (bounds.lower, bounds.upper))
    pairs = jnp.zeros_like(unit) if ineq is None else apart(ineq, own.ineq)
    residuals = Residuals(
        inner.residuals.stationarity / unit,
        jnp.maximum(own.violated(), inner.residuals.primal),
        inner.residuals.dual / unit,
        jnp.maximum(pairs, inner.residuals.complementarity / unit),
    )
    value = jnp.where(jnp.isfinite(inner.value), own.value, inner.value)
    point = Point(inner.point.x, Multipliers(eq, ineq, lower, upper))
    return Report(point, value, residuals, inner.settled, jnp.int32(Status.RUNNING))


def _scaling(problem: FlatProblem, x: Array, args: tuple) -> Seen:
    """Units in which no slope of f is above 1 and gradients of constraints are about 1 long.

    Their lengths without the Jacobian: (J u)^2 for random signs u is |row|^2 in the mean, and over
    sixteen u within a factor of 2. So lengths are taken in powers of 4 around their mean: with
    1,000 equal rows that leaves them equal, which takes a sixth of the steps.
    """
    size = jnp.max(jnp.abs(problem.gradient(x, args)))
    value = 1 / jnp.maximum(jnp.where(jnp.isfinite(size), size, 1), 1)
    rows = lambda x: Seen.at(problem, x, args)[1:]
    signs = jax.random.rademacher(jax.random.key(0), (SIGNS, x.shape[0]), x.dtype)
    slopes = jax.vmap(jax.linearize(rows, x)[1])(signs)

    lengths = jax.tree.map(lambda slope: jnp.sqrt(jnp.mean(slope * slope, axis=0)), slopes)
    known = jax.tree.map(lambda row: jnp.isfinite(row) & (row > SMALLEST), lengths)
    logs = jax.tree.map(lambda row, there: jnp.log(jnp.where(there, row, 1)), lengths, known)
    count = sum(jnp.sum(there) for there in jax.tree.leaves(known))
    mean = sum(jnp.sum(row) for row in jax.tree.leaves(logs)) / jnp.maximum(count, 1).astype(
        x.dtype
    )
    step = float(np.log(COARSE))

    def unit(row: Array, there: Array) -> Array:
        return jnp.exp(-mean - step * jnp.where(there, jnp.round((row - mean) / step), 0))

    return Seen(value, *jax.tree.map(unit, logs, known))


def _given(point: Point, seen: Seen, scale: Seen) -> tuple[Array | None, Array | None]:
    """The multipliers that came with the start, in the units of the inner problem; 0 where none."""
    eq, ineq, _, _ = point.multipliers
    y = seen.eq if seen.eq is None or eq is None else jnp.nan_to_num(eq) * scale.value / scale.eq
    if seen.ineq is None or ineq is None:
        return y, seen.ineq
    return y, jnp.maximum(jnp.nan_to_num(ineq) * scale.value / scale.ineq, 0)


def _restart(inner: Solver, inside: InnerProblem, state: Any, point: Point, params: tuple) -> Any:
    """The inner solver at `point` for new prices, with its old curvature where that is of use.

    Over the problems of Hock and Schittkowski this takes half the steps of starting afresh (median
    49 against 100), even where the penalty rose.
    """
    anew = inner.init(inside, point, params)
    if isinstance(inner, ProjectedSearch):
        return inner.restart(state)._replace(point=anew.point)
    if isinstance(inner, (LBFGS, BFGS)):
        return _same_memory(state, anew)
    return anew


def _same_memory(state: LineSearchState, anew: LineSearchState) -> LineSearchState:
    """Accepted at once, without a pair: s = 0. The count goes on, or the first step would be."""
    return anew._replace(memory=state.memory, accepted=state.accepted)
