"""The bracket skeleton, for one equation in one unknown: ends of different sign keep a root inside.

    evaluate F(lower), F(upper)  ->  [ propose x inside  ->  evaluate F(x)  ->  replace an end ]

One evaluation a step, the two ends included. A method is a rule for the next x; that it stays
inside, that the signs differ and when there is no more room is decided here, once.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ...core import Point, Report, Residuals, Solver, Status, check, solver
from ...linalg import choose


class Bracket(NamedTuple):
    """Both ends and what F is there; infinite values count as the largest number of their sign."""

    lower: Array
    upper: Array
    f_lower: Array
    f_upper: Array

    @property
    def width(self) -> Array:
        """Upper - lower."""
        return self.upper - self.lower

    @property
    def middle(self) -> Array:
        """Halfway, without overflow."""
        return 0.5 * self.lower + 0.5 * self.upper


class BracketState(NamedTuple):
    """After an evaluation."""

    point: Point  # the end where |F| is less
    value: Array  # F there
    bracket: Bracket
    evaluations: Array
    failure: Array
    # the next evaluation
    trial: Array
    memory: Any  # of the method


class Newest(NamedTuple):
    """The last evaluation, as a method sees it: the new end and the one opposite."""

    x: Array
    f: Array
    other: Array
    f_other: Array
    improved: Array  # |F| here is at most that at the other end


class BracketSkeleton(Solver):
    """A subclass says `start_memory`, and `propose` -> (next x, memory).

    The bracket comes as `bounds`; `x0` gives shape and dtype only. CONVERGED is |F(x)| <= tol at
    the better end, and a bracket no wider than `width`. A bracket that is down to two neighbouring
    numbers while |F| > tol is STALLED: a pole, a jump, or an F too steep for this precision. So is
    one without a change of sign, which outside of transformations is an error.
    """

    accepts = frozenset({"bounds"})
    kinds = ("equations",)
    width: ArrayLike

    def __post_init__(self):
        """Refuse widths that are not positive."""
        label = f"{type(self).__name__}(width=...)"
        way_out = "The default, infinity, stops by the size of F alone."
        check.leaf(label, self.width, 0.0, way_out=way_out)

    def start_memory(self, bracket: Bracket) -> Any:
        """The method's memory when the ends are known."""
        return ()

    def propose(self, memory: Any, bracket: Bracket, newest: Newest, old: Array, f_old: Array):
        """The next x and the new memory; `old` is the better end before the newest evaluation."""
        raise NotImplementedError

    def unrolls(self, size):
        """Never: the ends of a bracket do not move with F, only which of them are kept does."""
        return False

    def init(self, problem, point, args):
        """At the lower end, nothing evaluated."""
        lower, upper = _ends(type(self).__name__, problem, args)
        zero = jnp.zeros_like(lower)
        bracket, count = Bracket(lower, upper, zero, zero), jnp.int32(0)
        memory = self.start_memory(bracket)
        return BracketState(point, zero, bracket, count, count, lower, memory)

    def step(self, problem, state, args):
        """Evaluate the trial, put it in place of the end with its sign, propose the next."""
        x, old = state.trial, state.bracket
        largest = jnp.finfo(x.dtype).max
        value = problem.equations(jnp.reshape(x, state.point.x.shape), args)
        f = jnp.clip(value[0], -largest, largest)  # NaN stays NaN
        first, second = state.evaluations == 0, state.evaluations == 1
        at_lower = first | (~second & (jnp.sign(f) == jnp.sign(old.f_lower)))
        lower = old._replace(lower=x, f_lower=f)
        upper = old._replace(upper=x, f_upper=f)
        bracket = choose(first | ~jnp.isnan(f), choose(at_lower, lower, upper), old)

        other = choose(at_lower, bracket.upper, bracket.lower)
        f_other = choose(at_lower, bracket.f_upper, bracket.f_lower)
        improved = first | (jnp.abs(f) <= jnp.abs(f_other))
        newest = Newest(x, f, other, f_other, improved)
        best, f_best = choose(improved, (x, f), (other, f_other))

        memory = choose(second, self.start_memory(bracket), state.memory)
        proposal, memory = self.propose(memory, bracket, newest, state.point.x[0], state.value)
        trial = choose(first, bracket.upper, _inside(proposal, bracket))
        return BracketState(
            point=state.point._replace(x=jnp.reshape(best, state.point.x.shape)),
            value=f_best,
            bracket=bracket,
            evaluations=state.evaluations + 1,
            failure=_failure(bracket, f, first),
            trial=trial,
            memory=memory,
        )

    def report(self, problem, state, args):
        """The better end."""
        # Next to a pole 1/2 F^2 overflows or passes for divergence; it is cut off below that.
        cut = float(jnp.finfo(state.value.dtype).max) ** 0.25
        value = 0.5 * jnp.clip(state.value, -cut, cut) ** 2
        narrow = (state.bracket.width <= self.width) | (state.value == 0)
        return Report(
            state.point, value, Residuals.equations(state.value[None]), narrow, state.failure
        )

    def complaint(self, state):
        """Says what is wrong with a bracket that holds no root."""
        lower, upper, f_lower, f_upper = map(float, state.bracket)
        name, count = type(self).__name__, int(state.evaluations)
        if not (lower < upper and math.isfinite(lower) and math.isfinite(upper)):
            return (
                f"{name} needs a bracket `bounds=(lower, upper)` of finite numbers with lower < "
                f"upper, but ({lower}, {upper}) came."
            )
        if count <= 2 and int(state.failure) == Status.NONFINITE:
            end = lower if count == 1 else upper
            return (
                f"{name} needs `fun` at both ends of `bounds`, but fun({end}) is not a number. "
                "Move that end to where `fun` is defined."
            )
        if count == 2 and int(state.failure) == Status.STALLED:
            return (
                f"{name} needs a change of sign between the ends of `bounds`, but fun({lower}) = "
                f"{f_lower} and fun({upper}) = {f_upper}. Move an end across the root, or start "
                "without a bracket: `solver=NewtonRoot()`."
            )
        return None


def _ends(name: str, problem, args: tuple) -> tuple[Array, Array]:
    """The bracket, after refusing what is none whatever its values."""
    if problem.form.size != 1:
        raise ValueError(
            f"{name} solves one equation in one unknown, but x has {problem.form.size} entries. "
            "For systems take NewtonRoot(); for independent equations, `jax.vmap` the solve."
        )
    sides = (None, None) if problem.bounds is None else problem.bounds(*args)
    if any(side is None for side in sides):
        raise ValueError(
            f"{name} needs a bracket of which both ends are given, but bounds="
            f"{'None' if problem.bounds is None else 'one end'} came. Pass bounds=(lower, upper) "
            "with a change of sign between them, or take NewtonRoot(), which needs only a start."
        )
    lower, upper = problem.box(args)
    return lower[0], upper[0]


def _inside(x: Array, bracket: Bracket) -> Array:
    """`x`, at least a rounding error away from either end; the middle if it is NaN."""
    middle = bracket.middle
    size = jnp.maximum(jnp.abs(bracket.lower), jnp.abs(bracket.upper))
    least = jnp.finfo(x.dtype).eps * size
    low, high = bracket.lower + least, bracket.upper - least
    x = jnp.clip(x, jnp.minimum(low, middle), jnp.maximum(high, middle))
    return jnp.where(jnp.isnan(x), middle, x)


def _failure(bracket: Bracket, f: Array, first: Array) -> Array:
    """NONFINITE where F is no number, STALLED without a change of sign or without room."""
    lower, upper, f_lower, f_upper = bracket
    middle = bracket.middle
    wrong = ~((lower < upper) & jnp.isfinite(middle))
    same = jnp.sign(f_lower) * jnp.sign(f_upper) > 0
    full = (middle <= lower) | (middle >= upper)
    stalled = ~first & (wrong | same | full)
    code = jnp.where(stalled, int(Status.STALLED), int(Status.RUNNING))
    code = jnp.where(jnp.isnan(f), int(Status.NONFINITE), code)
    return code.astype(jnp.int32)


@solver(accepts={"bounds"})
class Bisection(BracketSkeleton):
    """Halve a bracket `bounds=(lower, upper)`: linear convergence, whatever F does.

    ceil(log2((upper - lower) / width)) evaluations after those of the two ends. Nothing but the
    sign of F is used, so that it may jump; where it does, or has a pole, the solve ends STALLED.

    Args:
        width: go on until the bracket is no wider, in units of x; infinity: until |F| <= tol.

    """

    width: ArrayLike = math.inf

    def propose(self, memory, bracket, newest, old, f_old):
        """The middle."""
        return bracket.middle, memory


@solver(accepts={"bounds"})
class ITP(BracketSkeleton):
    """Interpolate, truncate, project: superlinear, and never slower than bisection by much.

    The secant point of the bracket, moved towards the middle by 0.2 w^2 / w_0 (w the width, w_0
    the first), then to within the distance of the middle at which `extra` steps more than
    bisection's ceil(log2(w_0 / width)) are enough. On average over continuous F fewer steps than
    any bisection; order 1.6 at simple roots, unless the steps to spare were spent before, when it
    is bisection. Over ten equations 2 to spare cost 207 evaluations, 1 cost 274, none 334.

    Args:
        width: as for `Bisection`; infinity counts as rounding of the ends in the bound on steps.
        extra: n_0, steps more than bisection that it may take; the paper takes 1.

    Source: Oliveira & Takahashi (2020), algorithm 1, with kappa_1 = 0.2 / w_0 and kappa_2 = 2.

    """

    width: ArrayLike = math.inf
    extra: ArrayLike = 2.0

    def __post_init__(self):
        """Refuse negative numbers."""
        super().__post_init__()
        way_out = "The default is 2."
        check.leaf("ITP(extra=...)", self.extra, 0.0, strict=False, way_out=way_out)

    def start_memory(self, bracket):
        """(w_0, eps 2^(n_max - j)): the second is halved at each step."""
        size = jnp.maximum(jnp.abs(bracket.lower), jnp.abs(bracket.upper))
        limits = jnp.finfo(size.dtype)
        target = jnp.where(jnp.isfinite(self.width), self.width, 0).astype(size.dtype)
        target = jnp.maximum(target, jnp.maximum(16 * limits.eps * size, limits.tiny))
        # Room for the rounding of x, so that the last step does not miss the target by that.
        roomy = jnp.maximum(target - 4 * limits.eps * size, 0.5 * target)
        mantissa, exponent = jnp.frexp(bracket.width / target)
        halvings = jnp.where(mantissa > 0.5, exponent, exponent - 1).astype(size.dtype)
        return bracket.width, 0.5 * roomy * jnp.exp2(jnp.maximum(halvings, 0) + self.extra)

    def propose(self, memory, bracket, newest, old, f_old):
        """The secant point, truncated and projected."""
        first, reach = memory
        width, middle = bracket.width, bracket.middle
        weight = bracket.f_lower / (bracket.f_lower - bracket.f_upper)
        secant = bracket.lower + weight * width
        towards = jnp.sign(middle - secant)
        truncation = 0.2 * width * (width / first)
        truncated = secant + towards * truncation
        truncated = jnp.where(truncation <= jnp.abs(middle - secant), truncated, middle)
        radius = jnp.maximum(reach - 0.5 * width, 0)
        near = jnp.abs(truncated - middle) <= radius
        return jnp.where(near, truncated, middle - towards * radius), (first, 0.5 * reach)
