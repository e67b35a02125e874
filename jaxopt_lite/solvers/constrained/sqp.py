"""Sequential quadratic programming: each step is the answer of a quadratic program.

    minimise  grad f'd + 1/2 d'B d + rho (sum t)   s.t.  c + A d = t+ - t-,  g + G d <= t,
              lower <= x + d <= upper,  t >= 0

    evaluate f, c, g and their Jacobian at a trial  ->  does the merit f + nu ||violation||_1 fall?
      yes: multipliers of the program, Hessian of the Lagrangian, made convex, a new program
      no:  once with the curvature of the constraints corrected for, then half as far
      ->  the next trial

The program is elastic: t lets it have an answer where the linearised constraints have none.

Legend: x variables, d step, c equalities, g inequalities, A and G their Jacobians, rho and nu
penalties.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import (
    Multipliers,
    Point,
    QuadraticProgram,
    Report,
    Residuals,
    Solver,
    Status,
    apart,
    check,
    solver,
)
from ...linalg import choose, kkt_factor, norm_inf, once, psd_factor
from ..conic import ProximalInteriorPoint
from ..conic.front import finish
from .functions import complaint, evaluate, hessian, sizes

MEMORY = 5  # merits of which the largest must be improved: full steps near the answer may raise it
ENOUGH = 1e-4  # part of the predicted decrease
LEFT = 0.1  # part of the violation that a program may leave before the penalty rises,
SLOW = 0.9  # if the step leaves as much of it,
RISE = 10.0  # by this factor,
HIGHEST = 1e8  # to at most this in units of the first
INSIDE = 100  # steps of the program's solver
CONVEX = 8  # weights of the constraints tried, from 1 on, each ten times the last
HALVINGS = 40
PATIENCE = 100  # steps in which the worst residual does not fall by a tenth, before STALLED


class Seen(NamedTuple):
    """What is measured at x."""

    values: Array  # f, c, g (1 + m,)
    jacobian: Array  # (1 + m, n)


class Model(NamedTuple):
    """A convex Hessian of the Lagrangian, and how it became so."""

    matrix: Array  # B (n, n)
    weights: Array  # (m,) of rows, (n,) of bounds: B has weight * row' row more than the Hessian
    held: Array
    shift: Array  # and this on the diagonal


class Plan(NamedTuple):
    """A step and the multipliers that come with it."""

    step: Array  # d (n,)
    price: Array  # (m,), equalities then inequalities
    lower: Array  # (n,)
    upper: Array
    left: Array  # ||t||_1, what is left of the linearised violation
    fine: Array  # whether the program was solved


class SQPState(NamedTuple):
    """Between two evaluations."""

    # where we stand, changed when a step is accepted
    point: Point
    value: Array
    residuals: Residuals
    seen: Seen
    model: Model
    accepted: Array  # number of accepted steps; -1 before the start is evaluated
    # the next trial
    plan: Plan  # of the program
    trial: Plan  # what is tried: that, or a corrected one
    length: Array
    rejected: Array
    worth: Array  # nu of a violation in the merit, and the decrease of that by the model
    decrease: Array
    # judging it
    penalty: Array
    unit: Array  # of the penalty: the first
    record: Array  # (MEMORY, 2) the last values and violations
    # giving up
    least: Array
    idle: Array
    failure: Array


@solver(accepts={"eq", "ineq", "bounds"})
class SQP(Solver):
    """Sequential quadratic programming with exact Hessians, elastic programs and an l1 merit.

    Quadratically convergent, and from a start near the answer in two or three steps: pass the last
    solution as `x0`, its multipliers are used too. A step solves a program of n + 2 m_eq + m_ineq
    variables by `ProximalInteriorPoint`, O(n^3) some five to fifteen times, started from the
    constraints that bound last; from far `InteriorPoint` is cheaper, and compiles in half the time.

    CONVERGED is a KKT point, every unscaled residual at most `tol`. PRIMAL_INFEASIBLE is a
    stationary point of the l1 violation, a local proof: seven of 201 CUTEst problems that have
    feasible points end so from their start. STALLED: no step improves the merit, as happens where
    constraint qualifications fail.

    Args:
        penalty: rho at first, in units of max(1, ||grad f||_inf) at the start; it rises as needed.
        tol: stopping tolerance, on which that of the programs depends; `solve` fills it in.

    Sources: Fletcher (1987), section 12.4 (elastic programs, second-order corrections); Byrd,
    Nocedal & Waltz (2008) on the penalty; Nocedal & Wright (2006), chapter 18.

    """

    penalty: ArrayLike = 10.0
    tol: ArrayLike | None = None

    def __post_init__(self):
        """Refuse a penalty that is not positive."""
        check.leaf("SQP(penalty=...)", self.penalty, 0.0, way_out="The default is 10.")

    def unrolls(self, size: int) -> bool:
        """No: programs are solved by a loop."""
        return False

    def init(self, problem, point, args):
        """At the start, within the bounds, nothing evaluated."""
        lower, upper = problem.box(args)
        x = jnp.clip(point.x, lower, upper)
        n, dtype = x.shape[0], x.dtype
        m = sum(sizes(problem, x, args))
        price, low, high = _given(problem, point, args)
        zero, count = jnp.zeros((), dtype), jnp.int32(0)
        none = jnp.zeros(n, dtype)
        plan = Plan(none, price, low, high, zero, jnp.array(True))
        return SQPState(
            point=Point(x, _multipliers(problem, plan, args)),
            value=zero,
            residuals=Residuals(zero, zero, zero, zero),
            seen=Seen(jnp.zeros(1 + m, dtype), jnp.zeros((1 + m, n), dtype)),
            model=Model(jnp.eye(n, dtype=dtype), jnp.zeros(m, dtype), none, zero),
            accepted=count - 1,
            plan=plan,
            trial=plan,
            length=zero + 1,
            rejected=count,
            worth=zero,
            decrease=zero,
            penalty=jnp.asarray(self.penalty, dtype),
            unit=jnp.asarray(self.penalty, dtype),
            record=jnp.zeros((MEMORY, 2), dtype).at[:, 0].set(-jnp.inf),
            least=zero + jnp.inf,
            idle=count,
            failure=count + Status.RUNNING,
        )

    def step(self, problem, state, args):
        """Evaluate the trial, judge it, prepare the next."""
        lower, upper = problem.box(args)
        here, trial, length = state.point.x, state.trial, state.length
        equal, _ = sizes(problem, here, args)
        eps = jnp.finfo(here.dtype).eps
        start = state.accepted < 0

        # Measure.
        x = jnp.clip(here + length * trial.step, lower, upper)
        seen = Seen(*evaluate(problem, x, args))
        finite = jnp.all(jnp.isfinite(seen.values)) & jnp.all(jnp.isfinite(seen.jacobian))
        violation, before = _violation(seen.values, equal), _violation(state.seen.values, equal)

        # Judge.
        rise = jnp.maximum(1, norm_inf(seen.jacobian[0]))
        unit = jnp.where(start, rise * state.unit, state.unit)
        rho = jnp.where(start, unit, state.penalty)
        highest = jnp.max(state.record[:, 0] + state.worth * state.record[:, 1])
        noise = 10 * eps * jnp.abs(highest)
        merit = seen.values[0] + state.worth * violation
        better = merit <= highest - ENOUGH * length * state.decrease + noise
        tiny = norm_inf(length * trial.step / (1 + jnp.abs(here))) <= 10 * eps
        accept = once(start | (finite & (better | tiny)))
        correct = ~accept & finite & (state.rejected == 0) & (violation > before)
        correct = once(correct & (seen.values.shape[0] > 1))

        # Move.
        row = jnp.stack([seen.values[0], violation])
        record = jnp.roll(state.record, 1, axis=0).at[0].set(row)
        point = choose(accept, Point(x, _multipliers(problem, trial, args)), state.point)
        residuals = _residuals(trial, seen, x, lower, upper, equal)
        residuals = choose(accept, residuals, state.residuals)
        worst = residuals.worst()
        curved = seen.values[1:] - state.seen.jacobian[1:] @ trial.step
        seen = choose(accept, seen, state.seen)

        # The next program.
        tol = self._tol(here)
        raised = (state.plan.left > LEFT * before) & (violation > SLOW * before)
        raised = raised & (before > tol) & ~start
        rho = jnp.where(accept & raised, jnp.minimum(RISE * rho, HIGHEST * unit), rho)
        sides = jnp.where(correct, curved, seen.values[1:])

        def planned():
            model = _model(problem, point.x, trial, seen, equal, state.model.shift, args)
            model = choose(accept, model, state.model)
            guess = choose(accept, trial, state.plan)
            box = lower - point.x, upper - point.x
            return model, _plan(model, seen, sides, rho, box, equal, guess, 0.1 * tol)

        renew = once(accept | correct)
        model, plan = lax.cond(renew, planned, lambda: (state.model, state.plan))
        fresh = choose(accept, plan, state.plan)
        worth, decrease = _worth(model, fresh, seen, _violation(seen.values, equal))

        # Giving up.
        idle = jnp.where(worst < 0.9 * state.least, 0, state.idle + 1).astype(jnp.int32)
        stuck = (state.rejected >= HALVINGS) | (idle > PATIENCE) | ~fresh.fine
        still = norm_inf(fresh.step / (1 + jnp.abs(point.x))) <= tol
        lost = accept & still & (residuals.primal > tol) & (fresh.left > (1 - LEFT) * violation)
        lost = lost & (rho > 1e3 * unit)
        lost = lost | jnp.any(lower > upper)
        gone = (norm_inf(point.x) > 1e8) & (seen.values[0] < -1e8)
        gone = gone & (residuals.primal <= 1e-6 * jnp.maximum(1, norm_inf(point.x)))
        failure = jnp.where(stuck, Status.STALLED, Status.RUNNING)
        failure = jnp.where(gone, Status.DUAL_INFEASIBLE, failure)
        failure = jnp.where(lost, Status.PRIMAL_INFEASIBLE, failure)
        failure = jnp.where(start & ~finite, Status.NONFINITE, failure)
        return SQPState(
            point=point,
            value=seen.values[0],
            residuals=residuals,
            seen=seen,
            model=model,
            accepted=state.accepted + accept.astype(jnp.int32),
            plan=fresh,
            trial=choose(renew, plan, state.plan),
            length=jnp.where(renew, 1, 0.5 * length),
            rejected=jnp.where(accept, 0, state.rejected + 1).astype(jnp.int32),
            worth=jnp.where(accept, worth, state.worth),
            decrease=jnp.where(accept, decrease, state.decrease),
            penalty=rho,
            unit=unit,
            record=jnp.where(accept, record, state.record),
            least=jnp.where(idle == 0, worst, state.least),
            idle=idle,
            failure=failure.astype(jnp.int32),
        )

    def report(self, problem, state, args):
        """The last accepted point."""
        return Report(state.point, state.value, state.residuals, failure=state.failure)

    def complaint(self, state):
        """Constraints that are not finite at the start."""
        if int(state.accepted) > 0:
            return None
        equal = 0 if state.point.multipliers.eq is None else state.point.multipliers.eq.size
        return complaint(np.asarray(state.seen.values), equal, "`x0`, moved inside the bounds")

    def _tol(self, like: Array) -> Array:
        tol = jnp.finfo(like.dtype).eps ** 0.5 if self.tol is None else self.tol
        return jnp.asarray(tol, like.dtype)


# -- what is measured ------------------------------------------------------------------------------


def _given(problem, point: Point, args: tuple) -> tuple[Array, Array, Array]:
    """The multipliers that came with the start, 0 where none did: of rows and of bounds."""
    counts = (*sizes(problem, point.x, args), point.x.shape[0], point.x.shape[0])
    eq, ineq, low, high = (
        jnp.zeros(count, point.x.dtype) if price is None else jnp.nan_to_num(price)
        for price, count in zip(point.multipliers, counts, strict=True)
    )
    return jnp.concatenate([eq, ineq]), low, high


def _multipliers(problem, plan: Plan, args: tuple) -> Multipliers:
    """In their places."""
    equal, _ = sizes(problem, plan.step, args)
    sides = (None, None) if problem.bounds is None else problem.bounds(*args)
    return Multipliers(
        None if problem.eq is None else plan.price[:equal],
        None if problem.ineq is None else plan.price[equal:],
        None if sides[0] is None else plan.lower,
        None if sides[1] is None else plan.upper,
    )


def _violation(values: Array, equal: int) -> Array:
    """||c||_1 + ||max(g, 0)||_1."""
    c, g = values[1 : 1 + equal], values[1 + equal :]
    return jnp.sum(jnp.abs(c)) + jnp.sum(jnp.maximum(g, 0))


def _residuals(plan: Plan, seen: Seen, x: Array, lower, upper, equal: int) -> Residuals:
    """The optimality conditions at x, with the multipliers of the program that led there."""
    net = seen.jacobian[0] + plan.price @ seen.jacobian[1:] - plan.lower + plan.upper
    c, g = seen.values[1 : 1 + equal], seen.values[1 + equal :]
    low, high = (jnp.where(jnp.isfinite(room), room, 1) for room in (x - lower, upper - x))
    prices = jnp.concatenate([plan.price[equal:], plan.lower, plan.upper])
    primal = jnp.maximum(norm_inf(c), jnp.max(g, initial=0))
    pairs = apart(prices, jnp.concatenate([g, low, high]))
    return Residuals(norm_inf(net), primal, jnp.zeros_like(primal), pairs)


def _worth(model: Model, plan: Plan, seen: Seen, violation: Array) -> tuple[Array, Array]:
    """The weight nu of violations, and by how much f + nu ||violation||_1 falls along the step.

    Above every multiplier, and large enough that part of the predicted fall is of the violation:
    no larger, as steps along curved constraints violate them.
    """
    d, gain = plan.step, violation - plan.left
    ascent = seen.jacobian[0] @ d + 0.5 * d @ model.matrix @ d
    needed = jnp.where(gain > 0, ascent / ((1 - LEFT) * jnp.where(gain > 0, gain, 1)), 0)
    worth = jnp.maximum(1.1 * norm_inf(plan.price), needed)
    return worth, jnp.maximum(worth * gain - seen.jacobian[0] @ d, 0)


# -- the program -----------------------------------------------------------------------------------


def _model(problem, x: Array, plan: Plan, seen: Seen, equal: int, last: Array, args) -> Model:
    """The Hessian of the Lagrangian, convex, and unchanged where the constraints that bind hold.

    It is shifted only if it bends downwards along those constraints. What bends downwards across
    them is undone by weight * row' row, of which the step and, corrected, the multipliers are free.
    """
    bend = hessian(problem, x, jnp.concatenate([jnp.ones(1, x.dtype), plan.price]), args)
    eye = jnp.eye(x.shape[0], dtype=x.dtype)
    hold = float(jnp.finfo(x.dtype).eps) ** -0.5
    size = jnp.clip(jnp.max(jnp.abs(bend)), 1e-2, None)
    tight = jnp.concatenate([jnp.ones(equal, bool), plan.price[equal:] > 0])
    held = ((plan.lower > 0) | (plan.upper > 0)).astype(x.dtype)
    rows = seen.jacobian[1:] * tight[:, None].astype(x.dtype)
    squares = jnp.sum(rows * rows, axis=1)
    relax = jnp.where(squares > 0, squares, 1) / (size * hold)
    shift = kkt_factor(bend + size * hold * jnp.diag(held), rows, relax, last).shift
    bend = bend + shift * eye
    weights = jnp.where(squares > 0, size / jnp.where(squares > 0, squares, 1), 0)
    across = (rows.T * weights) @ rows + size * jnp.diag(held)

    def bent(carry):
        tries, _, good = carry
        return ~good & (tries < CONVEX)

    def more(carry):
        tries, weight, _ = carry
        weight = jnp.where(tries < 0, 0, jnp.where(weight > 0, 10 * weight, 1))
        return tries + 1, weight, psd_factor(bend + weight * across)[1]

    first = (jnp.int32(-1), jnp.zeros_like(size), jnp.array(False))
    _, weight, _ = lax.while_loop(bent, more, first)
    return Model(bend + weight * across, weight * weights, weight * size * held, shift)


def _plan(
    model: Model, seen: Seen, sides: Array, rho: Array, box, equal: int, guess: Plan, tol: Array
) -> Plan:
    """The answer of the elastic program, started from the multipliers of the last."""
    n, rows = model.matrix.shape[0], seen.jacobian[1:]
    program = _elastic(model, seen, sides, rho, box, equal)
    start = _start(guess, sides, rho, equal)
    inner = ProximalInteriorPoint(tol=tol, warm=True)
    run, report, _ = finish(program, inner, start, tol, INSIDE)
    v, multipliers = report.point
    d = v[:n]
    parts = [price for price in multipliers[:2] if price is not None]
    price = jnp.concatenate(parts) if parts else jnp.zeros(0, d.dtype)
    price = price + model.weights * (rows @ d)
    price = jnp.concatenate([price[:equal], jnp.maximum(price[equal:], 0)])
    low, high, pulled = multipliers.lower[:n], multipliers.upper[:n], model.held * d
    low = jnp.where(low > 0, jnp.maximum(low - pulled, 0), 0)
    high = jnp.where(high > 0, jnp.maximum(high + pulled, 0), 0)
    fine = jnp.all(jnp.isfinite(v)) & (run.status != Status.NONFINITE)
    left = jnp.sum(jnp.maximum(v[n:], 0))
    none = guess._replace(step=jnp.zeros_like(d), fine=fine)
    return choose(fine, Plan(d, price, low, high, left, fine), none)


def _elastic(
    model: Model, seen: Seen, sides: Array, rho: Array, box, equal: int
) -> QuadraticProgram:
    """The program in (d, t+, t-, t); `sides` are c and g, corrected or not."""
    gradient, rows = seen.jacobian[0], seen.jacobian[1:]
    m, n = rows.shape
    unequal, spare, dtype = m - equal, m + equal, gradient.dtype
    eye, none = jnp.eye(equal, dtype=dtype), jnp.zeros((equal, unequal), dtype)
    A = jnp.concatenate([rows[:equal], -eye, eye, none], axis=1)
    blank = jnp.zeros((unequal, 2 * equal), dtype)
    G = jnp.concatenate([rows[equal:], blank, -jnp.eye(unequal, dtype=dtype)], axis=1)
    return QuadraticProgram(
        P=jnp.zeros((n + spare, n + spare), dtype).at[:n, :n].set(model.matrix),
        q=jnp.concatenate([gradient, jnp.full(spare, rho, dtype)]),
        A=A if equal else None,
        b=-sides[:equal] if equal else None,
        G=G if unequal else None,
        h=-sides[equal:] if unequal else None,
        lower=jnp.concatenate([box[0], jnp.zeros(spare, dtype)]),
        upper=jnp.concatenate([box[1], jnp.full(spare, jnp.inf, dtype)]),
    )


def _start(guess: Plan, sides: Array, rho: Array, equal: int) -> Point:
    """Of the program: d = 0, t what is violated, and the multipliers that go with a guess."""
    y, z, c, g = guess.price[:equal], guess.price[equal:], sides[:equal], sides[equal:]
    t = jnp.maximum(jnp.concatenate([c, -c, g]), 0)
    elastic = jnp.maximum(jnp.concatenate([rho - y, rho + y, rho - z]), 0)
    multipliers = Multipliers(
        y if equal else None,
        z if g.shape[0] else None,
        jnp.concatenate([guess.lower, elastic]),
        jnp.concatenate([guess.upper, jnp.zeros_like(elastic)]),
    )
    return Point(jnp.concatenate([jnp.zeros_like(guess.step), t]), multipliers)
