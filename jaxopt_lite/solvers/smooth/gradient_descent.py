"""Gradient descent, by the rules for its step: fixed, Polyak's, and those found by a search."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import Status, solver, static
from ...linalg import choose
from .first_order import FirstOrder, require_number
from .line_search import LineSearch, first_length, first_scale


@solver()
class FixedStep(FirstOrder):
    """x <- x - t grad f(x), t constant.

    For f with Hessian eigenvalues in [mu, L]: converges if 0 < t < 2/L; at t = 2/(L + mu) the error
    falls by (kappa - 1)/(kappa + 1) a step, kappa = L/mu. Source: Nesterov (2018), theorem 2.1.15.
    Ends DIVERGED, NONFINITE or MAX_STEPS when the step is too long.

    Args:
        step_size: t > 0, in units of x per unit of the gradient; a leaf, so `vmap` sweeps it.

    """

    step_size: ArrayLike
    rests = 1

    def __post_init__(self):
        """Refuse a step that goes up or nowhere."""
        way_out = "2/(L + mu) is the best for curvatures between mu and L."
        require_number("FixedStep(step_size=...)", self.step_size, 0.0, way_out=way_out)

    def move(self, problem, memory, x, value, gradient, args):
        """-t g."""
        return -(self.step_size * gradient), memory


@solver()
class PolyakStep(FirstOrder):
    """x <- x - t grad f(x) with t = (f(x) - f*)/|grad f(x)|^2, where the minimum f* is known.

    For convex f the distance to every minimiser falls at each step, by (f - f*)^2/|grad f|^2 at
    least in its square; with gradient Lipschitz of constant L, some f(x_i) - f* with i < k is at
    most 2 L |x_0 - x*|^2 / k, and no L is needed. f itself need not fall. f(x) - f* loses its
    digits where |grad f| < sqrt(eps L |f*|), and no smaller gradient is reached; with f* = 0 there
    is no such limit. With an f* that is too low the steps are too long near the minimum: MAX_STEPS.
    With one that is too high it ends where f is f*, STALLED, or below, DIVERGED. Unrolled
    derivatives hold t fixed.
    Sources: Polyak (1969); Hazan & Kakade (2019).

    Args:
        minimum: f*, 0 for a fit that can be exact.

    """

    minimum: ArrayLike = 0.0
    rests = 1

    def __post_init__(self):
        """Refuse a minimum that is no number."""
        way_out = "If it is not known, GradientDescent() does not need it."
        require_number("PolyakStep(minimum=...)", self.minimum, -jnp.inf, way_out=way_out)

    def move(self, problem, memory, x, value, gradient, args):
        """-(f - f*) g / g'g."""
        excess = jnp.maximum(value - self.minimum, 0)
        # Scaled by its largest entry, since g'g of a small gradient underflows.
        largest = jnp.max(jnp.abs(gradient))
        largest = choose(largest > 0, largest, jnp.ones_like(largest))
        unit = gradient / largest
        t = excess / jnp.maximum(unit @ unit, 1) / largest / largest
        return -(lax.stop_gradient(t) * gradient), memory

    def report(self, problem, state, args):
        """What was measured; below the minimum it is DIVERGED, for the minimum is none."""
        report = super().report(problem, state, args)
        noise = 10 * jnp.finfo(state.value.dtype).eps * jnp.abs(state.value)
        below = state.value < self.minimum - noise
        return report._replace(failure=choose(below, int(Status.DIVERGED), report.failure))


class Length(NamedTuple):
    """What gradient descent remembers."""

    scale: Array  # the step to try next
    growing: Array | None  # for 1/L only: whether no trial has been too long yet


# c1 and c2 of the Wolfe conditions, and the weight of the past in what f must fall below
RULES: dict[str, tuple[float, float | None, float]] = {
    "barzilai-borwein": (1e-4, None, 0.85),
    "armijo": (1e-4, None, 0.0),
    "wolfe": (1e-4, 0.9, 0.0),
    # Not 1/2, which an exact search on a quadratic meets with equality: rounding would decide.
    "lipschitz": (0.499, None, 0.0),
}


@solver()
class GradientDescent(LineSearch):
    """x <- x - t grad f(x), t by a rule and a search: one evaluation a trial, nothing to set.

    Converges for every smooth f bounded below; for f with Hessian eigenvalues in [mu, L] linearly,
    in about kappa = L/mu steps a digit by all rules but the first, which often needs a small
    multiple of sqrt(kappa). First-order: it stops at a saddle point if it starts on one.

    Args:
        rule: "barzilai-borwein": t = s's/s'y of the last step s and gradient change y, shortened
            until f is below an average of its past values: f need not fall at every step.
            "armijo": t is twice the last if that was accepted at once, else the last, shortened
            until f(x - t g) <= f - 1e-4 t |g|^2.
            "wolfe": t is the last, shortened or stretched until the weak Wolfe conditions hold.
            "lipschitz": t = 1/L, L estimated from below: t doubles until a trial is too long, and
            from then on only falls, whenever f(x - t g) > f - t |g|^2 / 2 and f rises there. L is
            the largest on the path so far: one steep passage slows down the rest.

    Sources: Barzilai & Borwein (1988) with Zhang & Hager (2004); Nocedal & Wright (2006), section
    3.1; Beck & Teboulle (2009), section 3, for L.

    """

    rule: str = static(default="barzilai-borwein")

    def __post_init__(self):
        """Refuse unknown rules."""
        if self.rule not in RULES:
            raise ValueError(
                f"GradientDescent(rule=...) must be one of {', '.join(map(repr, RULES))}, but "
                f"{self.rule!r} came. FixedStep and PolyakStep are solvers of their own."
            )

    # Constants of the class in the skeleton; here they follow the rule of the instance, which mypy
    # does not allow for class variables.
    @property
    def sufficient_decrease(self):  # type: ignore[override]
        """c1."""
        return RULES[self.rule][0]

    @property
    def curvature(self):  # type: ignore[override]
        """c2."""
        return RULES[self.rule][1]

    @property
    def averaging(self):  # type: ignore[override]
        """The weight of the past."""
        return RULES[self.rule][2]

    def start_memory(self, x):
        """No step yet."""
        return Length(first_length(x), jnp.array(True) if self.rule == "lipschitz" else None)

    def remember(self, memory, pair, accept):
        """The step to try next, after one of `pair.step` times the last."""
        taken, growing = memory.scale * pair.step, None
        if self.rule == "barzilai-borwein":  # where s'y is not positive, a longer step
            longer = memory.scale * jnp.maximum(4, pair.step)
            scale = choose(pair.sy > 0, pair.s @ pair.s / pair.sy, longer)
        elif self.rule == "wolfe":
            scale = taken
        else:
            at_once = pair.step >= 1
            if self.rule == "lipschitz":
                growing = at_once = memory.growing & (at_once | (pair.number < 0))
            scale = choose(at_once, 2 * taken, taken)
        scale = choose(pair.number < 0, first_scale(memory.scale, pair.y @ pair.y), scale)
        return choose(accept, Length(scale, growing), memory)

    def direct(self, memory, gradient):
        """-t g."""
        return -memory.scale * gradient
