"""A primal-dual interior point method for smooth nonlinear programs.

    minimise f(x) - mu sum log(distances)  s.t.  c(x) = 0, g(x) + s = 0,  and mu -> 0

    evaluate f, c, g and their Jacobian at a trial  ->  accepted by the filter?
      yes: multipliers, barrier mu, Hessian of the Lagrangian, factor, a new direction
      no:  a second-order correction, a shorter step, or restoration of feasibility
      ->  the next trial

One evaluation of the functions and their first derivatives a step, the Hessian only at accepted
points, so that the lanes of a batch never wait for each other's searches.

Legend: x variables, s slacks, c equalities, g inequalities, A their Jacobian, mu the barrier.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Multipliers, Point, Report, Residuals, Solver, Status, apart, check, solver
from ...linalg import KKT, choose, kkt_factor, kkt_solve, norm_inf, once
from .functions import complaint, evaluate, hessian, sizes

# What a step does.
START, ESTIMATE, NORMAL, RESTORE, POLISH = range(5)
# Constants without a source are those of Waechter & Biegler (2006).
PUSH = 1e-2  # how far inside its bounds the start is moved
LARGEST_GRADIENT = 100.0  # at the start, after scaling
LARGEST_ESTIMATE = 1e3  # of multipliers by least squares; beyond, they start at 0
FILTER = 20  # entries; the oldest is overwritten
CORRECTIONS = 3  # second-order, in a row
CLOSEST = 0.999  # part of a distance that a step may use up; beyond, bounds are met by rounding
HALVINGS = 12  # of a step, before restoration
PATIENCE = 300  # steps in which the worst residual does not fall by a tenth, before STALLED,
PATIENCE_AT_END = 30  # and at the last barrier
CLOSE = 1e-3  # error of the barrier problem, from which on it may replace the filter
POLISHED = 1e-4  # barrier from which on the active set is tried
LEAVE = 0.9  # part of the violation where restoration began at which it ends
NEAR = 1e-8  # weight of staying near where restoration began
STATIONARY = 1e-6  # gradient of the violation over the violation: locally infeasible


class Iterate(NamedTuple):
    """A primal-dual point of the scaled problem, or a step between two."""

    x: Array  # (n,)
    slack: Array  # s (p,) > 0
    price: Array  # (m,), multipliers of the equalities, then of the inequalities
    lower: Array  # (n,), multipliers of the bounds, 0 where there is none
    upper: Array


class Seen(NamedTuple):
    """What is measured at x: f, c and g in one vector, and their Jacobian, scaled."""

    values: Array  # (1 + m,)
    jacobian: Array  # (1 + m, n)


class Search(NamedTuple):
    """The trial that is next, and how its direction came about."""

    direction: Iterate  # Newton's
    trial: Iterate  # what is tried: that, or a corrected one
    length: Array  # of Newton's step, for which the tests are
    trial_length: Array
    target: Array  # (m,), the violations that the trial was to remove
    rejected: Array  # lengths of this direction
    corrections: Array
    violation: Array  # after the last correction


class Restoration(NamedTuple):
    """What is remembered while feasibility is restored."""

    anchor: Array  # x where it began
    goal: Array  # violation there
    barrier: Array  # mu there


class InteriorState(NamedTuple):
    """Between two evaluations."""

    # where we stand, changed when a step is accepted
    point: Point  # unscaled, with the multipliers of the problem
    value: Array
    residuals: Residuals
    here: Iterate
    seen: Seen
    system: KKT
    accepted: Array  # number of accepted steps; -1 before the start is evaluated
    # changed less often
    scale: Array  # (1 + m,), of f, c and g
    barrier: Array
    filter: Array  # (FILTER, 2) pairs (violation, merit): no trial may be above both
    entries: Array
    extent: Array  # violation at the start, at least 1
    mode: Array
    # the next trial
    search: Search
    restoration: Restoration
    # giving up
    least: Array  # smallest residual so far
    idle: Array
    failure: Array


class Box(NamedTuple):
    """The bounds, and which of them hold which variables."""

    lower: Array  # (n,)
    upper: Array
    below: Array  # 1 where a free variable has a lower bound, else 0
    above: Array
    free: Array  # 0 where both bounds are equal
    crossed: Array  # whether any lower bound is above its upper one
    given: tuple[bool, bool]  # whether the problem has a lower and an upper side

    def distances(self, x: Array) -> tuple[Array, Array]:
        """X - lower and upper - x, positive; 1 where there is no bound."""
        eps = jnp.finfo(x.dtype).eps
        tiny = eps * jnp.maximum(1, jnp.abs(x))
        low = jnp.where(self.below > 0, jnp.maximum(x - self.lower, tiny), 1)
        high = jnp.where(self.above > 0, jnp.maximum(self.upper - x, tiny), 1)
        return low, high

    def inside(self, x: Array) -> Array:
        """The nearest point with some distance from the bounds."""
        room = jnp.where(self.below * self.above > 0, self.upper - self.lower, jnp.inf)
        low = self.lower + jnp.minimum(PUSH * jnp.maximum(1, jnp.abs(self.lower)), PUSH * room)
        high = self.upper - jnp.minimum(PUSH * jnp.maximum(1, jnp.abs(self.upper)), PUSH * room)
        x = jnp.where(self.below > 0, jnp.maximum(x, low), x)
        x = jnp.where(self.above > 0, jnp.minimum(x, high), x)
        return jnp.where(self.free > 0, x, self.lower)


@solver(accepts={"eq", "ineq", "bounds"})
class InteriorPoint(Solver):
    """Primal-dual interior point with exact Hessians, a filter and restoration of feasibility.

    Newton on  grad L = 0, c = 0, g + s = 0, s z = mu  and the same for bounds, with steps that stay
    inside, mu -> 0 as each is solved. Systems are condensed to (n, n), shifted until Cholesky shows
    the right inertia, and refined: O(n^3 + m n^2) a step.

    CONVERGED is a KKT point, every unscaled residual at most `tol`; where constraint qualifications
    fail there may be none, and it ends STALLED. PRIMAL_INFEASIBLE is a stationary point of the
    violation; DUAL_INFEASIBLE means that f fell without bound at feasible points.

    Args:
        barrier: the first mu, in units of the scaled objective.
        tol: stopping tolerance, on which the last mu depends; `solve` fills it in.

    Source: Waechter & Biegler (2006); restoration by least squares instead of their l1 problem.

    """

    barrier: ArrayLike = 0.1
    tol: ArrayLike | None = None

    def __post_init__(self):
        """Refuse a barrier that is not positive."""
        check.leaf("InteriorPoint(barrier=...)", self.barrier, 0.0, way_out="The default is 0.1.")

    def unrolls(self, size: int) -> bool:
        """No: shifts are found by a loop."""
        return False

    def init(self, problem, point, args):
        """At the start, within the bounds, nothing evaluated."""
        box = _box(problem, args)
        x = jnp.where(jnp.isfinite(point.x), box.inside(point.x), point.x)
        n, dtype = x.shape[0], x.dtype
        equal, unequal = sizes(problem, x, args)
        m = equal + unequal
        zero, inf = jnp.zeros((), dtype), jnp.full((), jnp.inf, dtype)
        count = jnp.int32(0)
        price = jnp.concatenate([jnp.zeros(equal, dtype), jnp.ones(unequal, dtype)])
        here = Iterate(x, jnp.ones(unequal, dtype), price, box.below, box.above)
        still = jax.tree.map(jnp.zeros_like, here)
        seen = Seen(jnp.zeros(1 + m, dtype), jnp.zeros((1 + m, n), dtype))
        return InteriorState(
            point=Point(x, _multipliers(problem, here, x, jnp.ones(1 + m, dtype), equal, box)),
            value=zero,
            residuals=Residuals(zero, zero, zero, zero),
            here=here,
            seen=seen,
            system=KKT.blank(n, m, dtype),
            accepted=count - 1,
            scale=jnp.ones(1 + m, dtype),
            barrier=jnp.asarray(self.barrier, dtype),
            filter=jnp.full((FILTER, 2), jnp.inf, dtype),
            entries=count,
            extent=zero + 1,
            mode=count + START,
            search=Search(still, still, zero, zero, jnp.zeros(m, dtype), count, count, zero),
            restoration=Restoration(x, zero, zero),
            least=inf,
            idle=count,
            failure=count + Status.RUNNING,
        )

    def step(self, problem, state, args):
        """Evaluate the trial, judge it, prepare the next."""
        box = _box(problem, args)
        equal, _ = sizes(problem, state.point.x, args)
        mode, search, old, mu = state.mode, state.search, state.here, state.barrier
        eps = jnp.finfo(mu.dtype).eps
        start, normal, restore = mode == START, mode == NORMAL, mode == RESTORE
        polish = mode == POLISH

        # Measure.
        x = jnp.clip(old.x + search.trial_length * search.trial.x, box.lower, box.upper)
        _, below, above = _active(old, box, equal)
        x = jnp.where(polish & below, box.lower, jnp.where(polish & above, box.upper, x))
        x = jnp.where(start | (box.free == 0), old.x, x)
        values, jacobian = evaluate(problem, x, args)
        finite = jnp.all(jnp.isfinite(values)) & jnp.all(jnp.isfinite(jacobian))
        scale = jnp.where(start, _scaling(jacobian), state.scale)
        seen = Seen(scale * values, scale[:, None] * jacobian)
        g = seen.values[1 + equal :]
        slack = jnp.maximum(old.slack + search.trial_length * search.trial.slack, -g)
        slack = jnp.where(start, jnp.maximum(-g, PUSH), slack)
        slack = jnp.where(restore, _best_slack(g, mu), slack)

        # Judge by violation and merit, or in restoration by the violation alone.
        left, before = _violations(seen, slack, equal), _violations(state.seen, old.slack, equal)
        theta, theta0 = jnp.sum(jnp.abs(left)), jnp.sum(jnp.abs(before))
        merit, merit0 = (
            _merit(seen, x, slack, mu, box),
            _merit(state.seen, old.x, old.slack, mu, box),
        )
        noise = 10 * eps * jnp.maximum(jnp.abs(merit0), jnp.abs(state.seen.values[0]))
        slope = _slope(state.seen, old, search.direction, mu, box)
        alpha = search.length
        extent = jnp.where(start, jnp.maximum(theta, 1), state.extent)
        for_merit = (slope < 0) & (alpha * jnp.maximum(-slope, 0) ** 2.3 > theta0**1.1)
        for_merit = for_merit & (theta0 <= 1e-4 * extent)
        armijo = merit - noise <= merit0 + 1e-8 * alpha * slope
        better = (theta <= (1 - 1e-5) * theta0) | (merit - noise <= merit0 - 1e-8 * theta0)
        allowed = _allowed(state.filter, theta, merit - noise) & (theta <= 1e4 * extent)
        size = jnp.max(jnp.abs(search.direction.x) / (1 + jnp.abs(old.x)))
        feasible = jnp.all(jnp.abs(before) <= self._tol(mu) * state.scale[1:])
        tiny = (size < 10 * eps) & (search.rejected == 0)
        by_filter = (allowed & jnp.where(for_merit, armijo, better) & ~tiny) | (tiny & feasible)
        # Close to the answer values are rounding; there a step is good that halves the error.
        moved = _move(old, search, mode, x, slack, equal, mu)
        error0 = _error(old, state.seen, before, mode, mu, box, equal)
        halved = _error(moved, seen, left, mode, mu, box, equal) <= 0.5 * error0
        halved = halved & (error0 <= CLOSE) & (state.system.shift == 0)
        by_filter = by_filter | (halved & ~tiny)
        by_violation = self._restores(state, seen, x, slack, before, left, box, equal)
        accept = jnp.where(normal, by_filter, jnp.where(restore, by_violation, True))
        accept = once(start | (accept & finite & ~polish))

        # Into restoration and out of it.
        hopeless = ~accept & ((search.rejected >= HALVINGS) | (normal & tiny))
        enter = once(normal & hopeless & ~feasible)
        kept = state.restoration
        out_slack = jnp.maximum(-g, jnp.minimum(slack, kept.barrier))
        out_left = _violations(seen, out_slack, equal)
        out = jnp.sum(jnp.abs(out_left))
        out_merit = _merit(seen, x, out_slack, kept.barrier, box)
        leave = (out <= LEAVE * kept.goal) & _allowed(state.filter, out, out_merit)
        leave = leave | jnp.all(jnp.abs(out_left) <= 0.01 * self._tol(mu) * scale[1:])
        leave = once(restore & accept & leave)
        augment = (normal & accept & ~(for_merit & armijo) & ~halved) | enter
        row = jnp.stack([(1 - 1e-5) * theta0, merit0 - 1e-8 * theta0])
        slot = jnp.arange(FILTER, dtype=jnp.int32) == state.entries % FILTER
        entries = jnp.where((augment & slot)[:, None], row, state.filter)

        # Move.
        here = choose(accept, moved, old)
        here = here._replace(slack=jnp.where(leave, out_slack, here.slack))
        trial_seen, seen = seen, choose(accept, seen, state.seen)
        after = ESTIMATE if equal else NORMAL
        mode = jnp.where(enter, RESTORE, jnp.where(polish | (mode == ESTIMATE), NORMAL, mode))
        mode = jnp.where(start | leave, after, mode).astype(jnp.int32)

        # The barrier, and what hangs on it.
        worst_left = jnp.max(jnp.abs(before), initial=0)
        barrier = jnp.where(enter, jnp.maximum(mu, worst_left), jnp.where(leave, kept.barrier, mu))
        kept = choose(enter, Restoration(old.x, theta0, mu), kept)
        force = (hopeless & ~enter) & normal
        barrier, here = self._lower_barrier(
            barrier,
            here,
            seen,
            mode,
            accept & (mode >= NORMAL),
            force,
            box,
            equal,
            scale,
            enter,
            leave,
        )
        changed = barrier != mu
        entries = jnp.where(changed & (mode == NORMAL) & ~leave, jnp.inf, entries)

        # What to say of it. A polished point is only reported: the method goes on from `here`.
        force_of = here.price @ seen.jacobian[1:] + seen.jacobian[0]
        multipliers = _multipliers(problem, here, force_of, scale, equal, box)
        residuals = _residuals(here, seen, force_of, scale, box, equal)
        point, value = Point(here.x, multipliers), seen.values[0] / scale[0]
        worst = residuals.worst()
        small = worst <= self._tol(mu)
        if problem.ineq is not None or any(box.given):
            shown = _polished(old, search.trial, x, trial_seen, box, equal)
            force_of = shown.price @ trial_seen.jacobian[1:] + trial_seen.jacobian[0]
            shown_residuals = _residuals(shown, trial_seen, force_of, scale, box, equal)
            done = polish & finite & (shown_residuals.worst() <= self._tol(mu))
            done = once(done & (small | (state.system.shift == 0)))
            multipliers = _multipliers(problem, shown, force_of, scale, equal, box)
            polished = Point(x, multipliers), trial_seen.values[0] / scale[0], shown_residuals
            point, value, residuals = choose(done, polished, (point, value, residuals))
            ready = small | ((barrier < mu) & (barrier <= POLISHED))
            mode = jnp.where(accept & (mode == NORMAL) & ready, POLISH, mode).astype(jnp.int32)

        renew = once(accept | enter | changed | polish)
        system, hold = lax.cond(
            renew,
            lambda: _system(problem, here, seen, mode, scale, box, equal, state.system, args),
            lambda: (state.system, jnp.ones_like(mu)),
        )
        floor = barrier <= self._last_barrier(scale)
        idle = jnp.where(worst < 0.9 * state.least, 0, state.idle + 1)
        stuck = (hopeless & normal & feasible & floor) | (hopeless & restore)
        stuck = stuck | (idle > PATIENCE) | (floor & (idle > PATIENCE_AT_END))
        lost = (mode == RESTORE) & (residuals.primal > self._tol(mu))
        lost = lost & accept & _infeasible(here, seen, box, stuck)
        lost = lost | box.crossed
        # Steps are at most |grad f| over the least shift: a slow fall shows by its lasting.
        deep = -1e8 * jnp.where(idle > PATIENCE, 1, eps**-0.5) * jnp.maximum(1, extent)
        gone = (norm_inf(here.x) > 1e8) & (norm_inf(here.x - old.x) > 1e-5 * norm_inf(here.x))
        fell = (value < deep) & gone & (residuals.primal <= 1e-6 * jnp.maximum(1, norm_inf(x)))
        failure = jnp.where(stuck, Status.STALLED, Status.RUNNING)
        failure = jnp.where(fell, Status.DUAL_INFEASIBLE, failure)
        failure = jnp.where(lost, Status.PRIMAL_INFEASIBLE, failure)

        fresh = state._replace(
            point=point,
            value=value,
            residuals=residuals,
            here=here,
            seen=seen,
            system=system,
            accepted=state.accepted + accept.astype(jnp.int32),
            scale=scale,
            barrier=barrier,
            filter=entries,
            entries=state.entries + augment.astype(jnp.int32),
            extent=extent,
            mode=mode,
            restoration=kept,
            least=jnp.where(idle == 0, worst, state.least),
            idle=idle,
            failure=failure.astype(jnp.int32),
        )
        correct = normal & ~renew & finite & (search.rejected == 0) & (theta >= theta0)
        correct = correct & (scale.shape[0] > 1)
        correct = correct & (search.corrections < CORRECTIONS)
        correct = correct & ((search.corrections == 0) | (theta <= 0.99 * search.violation))
        return fresh._replace(
            search=_aim(fresh, search, renew, correct, hold, left, theta, box, equal)
        )

    def report(self, problem, state, args):
        """The last accepted point."""
        settled = state.mode != POLISH  # else there is a better point to be tried
        return Report(state.point, state.value, state.residuals, settled, state.failure)

    def complaint(self, state):
        """Constraints that are not finite at the start."""
        if int(state.mode) != START and int(state.accepted) > 0:
            return None
        equal = state.search.target.size - state.here.slack.size
        return complaint(np.asarray(state.seen.values), equal, "`x0`, moved inside the bounds")

    # -- barrier and tolerances -------------------------------------------------------------------

    def _tol(self, like: Array) -> Array:
        tol = jnp.finfo(like.dtype).eps ** 0.5 if self.tol is None else self.tol
        return jnp.asarray(tol, like.dtype)

    def _last_barrier(self, scale: Array) -> Array:
        """Small enough that the lesser of multiplier and slack, unscaled, passes if it can.

        Both are about sqrt(mu) where neither is 0 in the limit.
        """
        eps = jnp.finfo(scale.dtype).eps
        tol = self._tol(scale)
        return jnp.maximum(0.1 * jnp.minimum(tol, tol**2), eps) * scale[0]

    def _lower_barrier(self, mu, here, seen, mode, accept, force, box, equal, scale, enter, leave):
        """Mu as small as the error in its own problem allows, and what is tied to it."""
        restore = mode == RESTORE
        left = _violations(seen, here.slack, equal)
        last = jnp.where(restore, 1e-12, self._last_barrier(scale)).astype(mu.dtype)

        def reduce(i, mu):
            error = _error(here, seen, left, mode, mu, box, equal)
            ready = (accept & (error <= 10 * mu)) | (force & (i == 0))
            return jnp.where(ready, jnp.maximum(last, jnp.minimum(0.2 * mu, mu**1.5)), mu)

        mu = lax.fori_loop(0, 3, reduce, jnp.maximum(mu, last))
        g = seen.values[1 + equal :]
        slack = jnp.where(restore, _best_slack(g, mu), here.slack)
        left = _violations(seen, slack, equal)
        price = jnp.where(restore, left, here.price)
        again = mu / slack
        fresh = jnp.where(leave, jnp.minimum(again, LARGEST_ESTIMATE), price[equal:])
        price = jnp.concatenate([jnp.where(leave, 0, price[:equal]), fresh])
        low, high = box.distances(here.x)
        lower = jnp.where(
            enter | leave, box.below * jnp.minimum(mu / low, LARGEST_ESTIMATE), here.lower
        )
        upper = jnp.where(
            enter | leave, box.above * jnp.minimum(mu / high, LARGEST_ESTIMATE), here.upper
        )
        # Multipliers never far from mu / distance: Waechter & Biegler (2006), eq. 16.
        near = lambda z, d: jnp.clip(z, mu / d * 1e-10, mu / d * 1e10)
        price = jnp.concatenate([price[:equal], near(price[equal:], slack)])
        lower, upper = box.below * near(lower, low), box.above * near(upper, high)
        return mu, Iterate(here.x, slack, price, lower, upper)

    def _restores(self, state, seen, x, slack, before, left, box, equal):
        """Whether the violation, and its barrier, fell enough."""
        old, mu, d = state.here, state.barrier, state.search.direction
        near = state.search.length * 1e-4

        def merit(x, slack, left):
            low, high = box.distances(x)
            logs = jnp.sum(jnp.log(slack)) + jnp.sum(jnp.log(low)) + jnp.sum(jnp.log(high))
            away = x - state.restoration.anchor
            return 0.5 * left @ left + 0.5 * NEAR * away @ away - mu * logs

        low, high = box.distances(old.x)
        gradient = before @ state.seen.jacobian[1:] + NEAR * (old.x - state.restoration.anchor)
        gradient = gradient - mu * box.below / low + mu * box.above / high
        # The slacks are at their best: only x counts.
        slope = jnp.minimum(gradient @ d.x, 0)
        merit0 = merit(old.x, old.slack, before)
        noise = 10 * jnp.finfo(mu.dtype).eps * jnp.abs(merit0)
        return merit(x, slack, left) - noise <= merit0 + near * slope


# -- the problem as it is measured -----------------------------------------------------------------


def _box(problem, args: tuple) -> Box:
    lower, upper = problem.box(args)
    sides = (None, None) if problem.bounds is None else problem.bounds(*args)
    given = sides[0] is not None, sides[1] is not None
    fixed = lower >= upper
    below = (jnp.isfinite(lower) & ~fixed).astype(lower.dtype)
    above = (jnp.isfinite(upper) & ~fixed).astype(lower.dtype)
    return Box(
        lower, upper, below, above, 1 - fixed.astype(lower.dtype), jnp.any(lower > upper), given
    )


def _scaling(jacobian: Array) -> Array:
    """At most 1, and no gradient above 100."""
    largest = jnp.max(jnp.abs(jacobian), axis=1)
    scale = LARGEST_GRADIENT / jnp.maximum(largest, LARGEST_GRADIENT)
    return jnp.maximum(jnp.where(jnp.isfinite(largest), scale, 1), 1e-8)


def _violations(seen: Seen, slack: Array, equal: int) -> Array:
    """(c, g + s)."""
    return seen.values[1:] + jnp.concatenate([jnp.zeros(equal, slack.dtype), slack])


def _best_slack(g: Array, mu: Array) -> Array:
    """argmin_s (g + s)^2 / 2 - mu log s, where s (g + s) = mu."""
    root = jnp.sqrt(g * g + 4 * mu)
    return jnp.where(g > 0, 2 * mu / (g + root), 0.5 * (root - g))


def _merit(seen: Seen, x: Array, slack: Array, mu: Array, box: Box) -> Array:
    low, high = box.distances(x)
    logs = jnp.sum(jnp.log(slack)) + jnp.sum(jnp.log(low)) + jnp.sum(jnp.log(high))
    return seen.values[0] - mu * logs


def _slope(seen: Seen, here: Iterate, d: Iterate, mu: Array, box: Box) -> Array:
    """Of the merit along d."""
    low, high = box.distances(here.x)
    pull = box.below / low - box.above / high
    return (seen.jacobian[0] - mu * pull) @ d.x - mu * jnp.sum(d.slack / here.slack)


def _allowed(entries: Array, violation: Array, merit: Array) -> Array:
    return jnp.all((violation <= entries[:, 0]) | (merit <= entries[:, 1]))


def _error(here, seen, left, mode, mu, box, equal) -> Array:
    """The largest residual of the problem with barrier mu, multipliers of any size scaled down."""
    restore = mode == RESTORE
    low, high = box.distances(here.x)
    objective = jnp.where(restore, 0, 1) * seen.jacobian[0]
    price = jnp.where(restore, left, here.price)
    net = box.free * (objective + price @ seen.jacobian[1:]) - here.lower + here.upper
    products = jnp.concatenate([
        jnp.where(restore, 0, here.price[equal:] * here.slack - mu),
        box.below * (here.lower * low - mu), box.above * (here.upper * high - mu),
    ])  # fmt: skip
    violation = jnp.where(restore, 0, left)
    total = jnp.sum(jnp.abs(price)) + jnp.sum(here.lower) + jnp.sum(here.upper)
    count = price.shape[0] + jnp.sum(box.below) + jnp.sum(box.above)
    shrink = jnp.maximum(1, total / jnp.maximum(count, 1) / 100)
    worst = jnp.maximum(norm_inf(net), jnp.max(jnp.abs(products), initial=0)) / shrink
    return jnp.maximum(worst, jnp.max(jnp.abs(violation), initial=0))


def _infeasible(here: Iterate, seen: Seen, box: Box, stuck: Array) -> Array:
    """Is the violation, not small, stationary?"""
    low, high = box.distances(here.x)
    size = jnp.max(jnp.abs(here.price), initial=0)
    net = box.free * (here.price @ seen.jacobian[1:]) - here.lower + here.upper
    products = jnp.maximum(jnp.abs(here.lower * low), jnp.abs(here.upper * high))
    worst = jnp.maximum(norm_inf(net), norm_inf(products))
    return worst <= jnp.where(stuck, 100, 1) * STATIONARY * size


def _multipliers(problem, here: Iterate, force: Array, scale, equal: int, box: Box) -> Multipliers:
    """Those of the problem, unscaled. `force` is the gradient of f + price . (c, g), scaled."""
    price = here.price * scale[1:] / scale[0]
    lower = jnp.where(box.free > 0, here.lower, jnp.maximum(force, 0)) / scale[0]
    upper = jnp.where(box.free > 0, here.upper, jnp.maximum(-force, 0)) / scale[0]
    return Multipliers(
        None if problem.eq is None else price[:equal],
        None if problem.ineq is None else price[equal:],
        lower if box.given[0] else None,
        upper if box.given[1] else None,
    )


def _residuals(here: Iterate, seen: Seen, force: Array, scale, box: Box, equal: int) -> Residuals:
    """The optimality conditions of the unscaled problem."""
    net = box.free * force - here.lower + here.upper
    values = seen.values[1:] / scale[1:]
    price = here.price[equal:] * scale[1 + equal :] / scale[0]
    outside = jnp.maximum(box.lower - here.x, here.x - box.upper)
    primal = jnp.concatenate([jnp.abs(values[:equal]), values[equal:], outside])
    low, high = box.distances(here.x)
    prices = jnp.concatenate([price, here.lower / scale[0], here.upper / scale[0]])
    slacks = jnp.concatenate([values[equal:], low, high])
    zero = jnp.zeros_like(scale[0])
    return Residuals(
        norm_inf(net) / scale[0], jnp.maximum(jnp.max(primal), 0), zero, apart(prices, slacks)
    )


# -- steps -----------------------------------------------------------------------------------------


def _furthest(value: Array, step: Array, tau: Array) -> Array:
    """The largest t <= 1 with value + t step >= (1 - tau) value, for value > 0."""
    shrinks = step < 0
    ratio = jnp.where(shrinks, -tau * value / jnp.where(shrinks, step, 1), 1)
    return jnp.min(ratio, initial=1)


def _primal_length(here: Iterate, d: Iterate, tau: Array, box: Box) -> Array:
    low, high = box.distances(here.x)
    lengths = [
        _furthest(here.slack, d.slack, tau),
        _furthest(low, box.below * d.x, tau),
        _furthest(high, -box.above * d.x, tau),
    ]
    return jnp.min(jnp.stack(lengths))


def _move(old: Iterate, search: Search, mode, x, slack, equal: int, mu) -> Iterate:
    """The accepted trial with its multipliers."""
    d = search.trial
    tau = jnp.clip(1 - mu, 0.99, CLOSEST)
    z, dz = old.price[equal:], d.price[equal:]
    lengths = [
        _furthest(z, dz, tau),
        _furthest(old.lower, d.lower, tau),
        _furthest(old.upper, d.upper, tau),
    ]
    dual = jnp.min(jnp.stack(lengths))
    y = old.price[:equal] + search.trial_length * d.price[:equal]
    estimate = jnp.where(
        jnp.max(jnp.abs(d.price[:equal]), initial=0) <= LARGEST_ESTIMATE, d.price[:equal], 0
    )
    y = jnp.where(mode == ESTIMATE, estimate, y)
    keep = (mode == ESTIMATE) | (mode == START)
    go = lambda value, step: jnp.where(keep, value, value + dual * step)
    price = jnp.concatenate([y, go(z, dz)])
    return Iterate(x, slack, price, go(old.lower, d.lower), go(old.upper, d.upper))


def _hold(size: Array) -> Array:
    """How stiffly constraints are held in eliminated systems: 1 / sqrt(eps), relative to H."""
    return size / float(jnp.finfo(size.dtype).eps) ** 0.5


def _active(here: Iterate, box: Box, equal: int) -> tuple[Array, Array, Array]:
    """What binds, by multipliers above slacks: inequalities (m,), lower and upper bounds (n,)."""
    low, high = box.distances(here.x)
    below = (here.lower > low) & (box.below > 0)
    above = (here.upper > high) & (box.above > 0) & ~below
    tight = here.price[equal:] > here.slack
    return jnp.concatenate([jnp.ones(equal, bool), tight]), below, above


def _polished(old: Iterate, d: Iterate, x, seen: Seen, box: Box, equal: int) -> Iterate:
    """The point where what was active binds exactly, with the multipliers that fit."""
    _, below, above = _active(old, box, equal)
    price = old.price + d.price
    price = jnp.concatenate([price[:equal], jnp.maximum(price[equal:], 0)])
    force = price @ seen.jacobian[1:] + seen.jacobian[0]
    lower = jnp.where(below, jnp.maximum(force, 0), 0)
    upper = jnp.where(above, jnp.maximum(-force, 0), 0)
    return Iterate(x, old.slack, price, lower, upper)


def _system(
    problem, here: Iterate, seen: Seen, mode, scale, box: Box, equal: int, old: KKT, args
) -> tuple[KKT, Array]:
    """The Newton system at an accepted point, and the weight on bounds that are to be met."""
    estimate, restore = mode == ESTIMATE, mode == RESTORE
    dtype = here.x.dtype
    weights = scale * jnp.concatenate([jnp.where(restore, 0, 1).astype(dtype)[None], here.price])
    bend = jnp.where(estimate, 0, hessian(problem, here.x, weights, args))
    low, high = box.distances(here.x)
    extra = here.lower / low + here.upper / high
    extra = jnp.where(estimate, 1, jnp.where(restore, extra + NEAR, extra))
    polish = mode == POLISH
    tight, below, above = _active(here, box, equal)
    bend = bend * box.free * box.free[:, None]
    size = jnp.clip(jnp.max(jnp.abs(bend)), 1e-2, None)
    extra = jnp.where(polish, jnp.where(below | above, _hold(size), 0), extra)
    bend = bend + jnp.diag(jnp.where(box.free > 0, extra, 1))
    rows = seen.jacobian[1:] * box.free * jnp.where(polish & ~tight, 0, 1).astype(dtype)[:, None]
    # A proximal term in the multipliers: it makes C > 0, does not move the solution, and costs a
    # factor of convergence of its size over A H^-1 A', the barrier's part of H included. As large
    # as rounding in the elimination asks for.
    stiffness = jnp.maximum(jnp.abs(jnp.diagonal(bend)), size)
    relax = jnp.maximum(rows * rows @ (1 / stiffness), 1e-8 / size) / _hold(jnp.ones_like(size))
    ratio = jnp.where(estimate, 1, jnp.where(polish, 0, here.slack / here.price[equal:]))
    relax = jnp.where(restore, 1, relax) + jnp.concatenate([jnp.zeros(equal, dtype), ratio])
    relax = jnp.where(polish & ~tight, 1, relax)
    return kkt_factor(bend, rows, relax, old.last_shift), _hold(size)


def _aim(
    state: InteriorState, old: Search, renew, correct, hold, left, theta, box: Box, equal: int
) -> Search:
    """The next trial: along a new direction, a corrected one, or half as far."""
    here, seen, mu, mode = state.here, state.seen, state.barrier, state.mode
    estimate, restore, polish = mode == ESTIMATE, mode == RESTORE, mode == POLISH
    low, high = box.distances(here.x)
    tight, below, above = _active(here, box, equal)
    away = NEAR * (here.x - state.restoration.anchor)
    gradient = jnp.where(restore, away, seen.jacobian[0])
    pushed = mu * (box.below / low - box.above / high)
    pushed = jnp.where(estimate, here.lower - here.upper, pushed)
    price = jnp.where(estimate | (polish & ~tight), 0, here.price)
    pushed = jnp.where(
        polish, jnp.where(below, here.lower, 0) - jnp.where(above, here.upper, 0), pushed
    )
    a = -box.free * (gradient + price @ seen.jacobian[1:] - pushed)
    a = a + jnp.where(polish, hold * jnp.where(above, high, jnp.where(below, -low, 0)), 0)
    target = jnp.where(
        correct, old.trial_length * old.target + left, _violations(seen, here.slack, equal)
    )
    s, z = here.slack, here.price[equal:]
    b = -target - jnp.concatenate([jnp.zeros(equal, s.dtype), mu / z - s])
    still = jnp.concatenate([jnp.zeros(equal, s.dtype), -z])
    b = jnp.where(estimate, still, jnp.where(restore, 0, b))
    b = jnp.where(polish, jnp.where(tight, -seen.values[1:], here.price), b)
    dx, dprice = kkt_solve(state.system, a, b)
    ds = -target[equal:] - seen.jacobian[1 + equal :] @ dx
    step = Iterate(
        dx, jnp.where(restore, 0, ds), dprice,
        box.below * (mu - here.lower * dx) / low - here.lower,
        box.above * (mu + here.upper * dx) / high - here.upper,
    )  # fmt: skip
    fine = jnp.all(jnp.isfinite(dx)) & jnp.all(jnp.isfinite(dprice))
    still_there = estimate | ~fine
    step = step._replace(
        x=jnp.where(still_there, 0, box.free * dx), slack=jnp.where(still_there, 0, step.slack),
        price=jnp.where(fine, dprice, 0),
        lower=jnp.where(still_there, 0, step.lower), upper=jnp.where(still_there, 0, step.upper),
    )  # fmt: skip
    tau = jnp.clip(1 - mu, 0.99, CLOSEST)
    longest = jnp.where(polish, 1, _primal_length(here, step, tau, box))
    half = 0.5 * old.length
    zero = jnp.int32(0)
    direction = choose(renew, step, old.direction)
    fresh = renew | correct
    return Search(
        direction=direction,
        trial=choose(fresh, step, old.direction),
        length=jnp.where(renew, longest, jnp.where(correct, old.length, half)),
        trial_length=jnp.where(fresh, longest, half),
        target=jnp.where(fresh, target, old.target),
        rejected=jnp.where(
            renew, jnp.where(fine, 0, HALVINGS), jnp.where(correct, 0, old.rejected + 1)
        ).astype(jnp.int32),
        corrections=jnp.where(renew, zero, jnp.where(correct, old.corrections + 1, CORRECTIONS)),
        violation=theta,
    )
