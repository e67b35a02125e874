"""Fixed points x = T(x), by the displacement F(x) = T(x) - x: Picard's iteration and Anderson's."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg as jsl
from jax import Array
from jax.typing import ArrayLike

from ...core import Point, Report, Residuals, Solver, Status, check, solver, static
from ...linalg import choose, norm_inf, psd_factor

GROWTH = 2.0  # of |F| over the best so far, that an extrapolated point may have
PATIENCE = 100  # evaluations without an |F| below all before, to STALLED


class PicardState(NamedTuple):
    """`point` is where the map led, `measured` where it was evaluated."""

    point: Point
    measured: Point
    displacement: Array  # F at `measured`


@solver()
class Picard(Solver):
    """x <- x + b (T(x) - x): iterate the map. |F| falls by the contraction factor of T a step.

    b < 1 averages: converges for nonexpansive T too, where b = 1 may go round in circles. Ends
    DIVERGED where T is expansive, MAX_STEPS on a cycle. For a root F(x) = 0 it is x <- x + b F(x).

    Args:
        damping: b > 0, the share of the displacement that is gone.

    Sources: Picard (1890); Krasnoselskii (1955); Mann (1953).

    """

    damping: ArrayLike = 1.0
    kinds = ("equations",)

    def __post_init__(self):
        """Refuse a step that goes back or nowhere."""
        way_out = "1 is the plain iteration."
        check.leaf("Picard(damping=...)", self.damping, 0.0, way_out=way_out)

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        return PicardState(point, point, jnp.zeros_like(point.x))

    def step(self, problem, state, args):
        """Evaluate where we stand, then go there."""
        x = state.point.x
        displacement = problem.equations(x, args)
        moved = state.point._replace(x=x + self.damping * displacement)
        return PicardState(moved, state.point, displacement)

    def report(self, problem, state, args):
        """The point that was measured; STALLED if the map's displacement is lost in rounding."""
        still = jnp.all(state.point.x == state.measured.x)
        failure = jnp.where(still, int(Status.STALLED), int(Status.RUNNING)).astype(jnp.int32)
        f = state.displacement
        return Report(state.measured, 0.5 * (f @ f), Residuals.equations(f), True, failure)


class AndersonState(NamedTuple):
    """Between two evaluations."""

    # the best so far, or the last Picard step from it
    point: Point
    displacement: Array  # F there
    norm: Array  # |F|_2 there; infinite before the start is evaluated
    # the last evaluation, and the differences between those before it
    last: Array
    f_last: Array
    steps: Array  # dX (m, n), in slots reused in turn; an unused slot is zeros
    changes: Array  # dF (m, n)
    # the next evaluation
    trial: Array
    plain: Array  # it is a Picard step, accepted whatever F is there
    evaluations: Array
    since: Array  # evaluations since |F| had halved, or a Picard step was taken
    halved: Array  # the |F| that counts as halved
    least: Array  # of |F| so far
    idle: Array  # evaluations since
    failure: Array


@solver()
class Anderson(Solver):
    """Anderson acceleration: the m last changes of F tell where F would be zero if it were linear.

    x <- x + b F - (dX + b dF) c,  c = argmin |F - dF c|^2 + r |c|^2, columns of dF scaled to 1.
    For linear T as fast as GMRES; one evaluation a step, 4 m n and a Cholesky factor of size m.

    Safe: a point at which |F| is more than twice the best is not gone on from; then, and if |F| has
    not halved within m evaluations, a Picard step is taken from the best. So for T with contraction
    factor q it needs at most m + 2 times as many evaluations as Picard if q >= 1/2, and at most
    m + 2 a halving else. STALLED where no |F| has come below all before it for 100 evaluations.

    Args:
        memory: number of changes m.
        mixing: b > 0, the share of F that is added.
        regularization: r >= 0, relative; None: 10 m eps, rounding of the normal equations.

    Sources: Anderson (1965); Walker & Ni (2011); safeguard after Zhang, O'Donoghue & Boyd (2020).

    """

    memory: int = static(default=5)
    mixing: ArrayLike = 1.0
    regularization: ArrayLike | None = None
    kinds = ("equations",)

    def __post_init__(self):
        """Refuse counts and numbers out of range."""
        object.__setattr__(self, "memory", check.count("Anderson(memory=...)", self.memory))
        label, way_out = "Anderson(mixing=...)", "1 is the plain iteration."
        check.leaf(label, self.mixing, 0.0, way_out=way_out)
        label, way_out = "Anderson(regularization=...)", "None takes what rounding needs."
        check.leaf(label, self.regularization, 0.0, strict=False, way_out=way_out)

    def init(self, problem, point, args):
        """At the start, nothing evaluated."""
        x = point.x
        zeros, inf = jnp.zeros_like(x), jnp.full((), jnp.inf, x.dtype)
        empty, count = jnp.zeros((self.memory, *x.shape), x.dtype), jnp.int32(0)
        return AndersonState(
            point=point, displacement=zeros, norm=inf,
            last=x, f_last=zeros, steps=empty, changes=empty,
            trial=x, plain=jnp.array(True), evaluations=count,
            since=count, halved=inf, least=inf, idle=count, failure=count,
        )  # fmt: skip

    def step(self, problem, state, args):
        """Evaluate; learn; extrapolate, or take a Picard step from the best."""
        x = state.trial
        f = problem.equations(x, args)
        norm = jnp.linalg.norm(f)
        start = state.evaluations == 0
        steps, changes = self._learn(state, x, f, start)

        better = start | (norm < state.norm)
        finite = jnp.isfinite(norm)
        keep = start | (finite & (better | state.plain))
        best, f_best, norm_best = choose(
            keep, (x, f, norm), (state.point.x, state.displacement, state.norm)
        )
        halved = start | (norm <= state.halved)
        since = choose(halved, 0, state.since + 1)
        wild = ~(norm <= GROWTH * norm_best)
        plain = wild | (since > self.memory) | start
        picard = best + self.mixing * f_best
        jump = self._extrapolate(x, f, steps, changes)
        plain = plain | ~jnp.all(jnp.isfinite(jump))
        trial = choose(plain, picard, jump)

        idle = choose(start | (norm < state.least), 0, state.idle + 1)
        stuck = jnp.all(picard == best) | (idle > PATIENCE)
        failure = choose(stuck, int(Status.STALLED), jnp.int32(Status.RUNNING))
        failure = choose(state.plain & ~finite, int(Status.NONFINITE), failure)
        return AndersonState(
            point=state.point._replace(x=best), displacement=f_best, norm=norm_best,
            last=choose(finite, x, state.last), f_last=choose(finite, f, state.f_last),
            steps=steps, changes=changes,
            trial=trial, plain=plain, evaluations=state.evaluations + 1,
            since=choose(plain, 0, since),
            halved=choose(halved | plain, 0.5 * norm_best, state.halved),
            least=jnp.fmin(norm, state.least), idle=idle, failure=failure,
        )  # fmt: skip

    def report(self, problem, state, args):
        """The best point."""
        f = state.displacement
        return Report(state.point, 0.5 * (f @ f), Residuals.equations(f), True, state.failure)

    def _learn(self, state: AndersonState, x: Array, f: Array, start: Array):
        """The differences with those to the last evaluation, in place of the oldest."""
        change = f - state.f_last
        # What is lost in the rounding of T(x) - x teaches nothing, and would lead far away.
        noise = 10 * jnp.finfo(x.dtype).eps * jnp.maximum(norm_inf(x), norm_inf(state.last))
        known = ~start & jnp.all(jnp.isfinite(change)) & (norm_inf(change) > noise)
        slot = jnp.mod(state.evaluations, self.memory)
        steps = state.steps.at[slot].set(choose(known, x - state.last, state.steps[slot]))
        changes = state.changes.at[slot].set(choose(known, change, state.changes[slot]))
        return steps, changes

    def _extrapolate(self, x: Array, f: Array, steps: Array, changes: Array) -> Array:
        """Anderson's point from x; x + b F without differences."""
        eps = jnp.finfo(x.dtype).eps
        ridge = 10 * self.memory * eps if self.regularization is None else self.regularization
        lengths = jnp.linalg.norm(changes, axis=1)
        unit = changes / jnp.where(lengths > 0, lengths, 1)[:, None]
        gram = unit @ unit.T + jnp.diag(jnp.where(lengths > 0, ridge, 1).astype(x.dtype))
        factor, good = psd_factor(gram)
        weights = jsl.cho_solve((factor, True), unit @ f) / jnp.where(lengths > 0, lengths, 1)
        weights = jnp.where(good, weights, 0)
        return x + self.mixing * f - weights @ (steps + self.mixing * changes)
