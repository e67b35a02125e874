"""Functions that are a sum over the entries of x: their prox is a formula for each entry.

    leaves of x, steps, parameters -> shapes matched -> phi of one entry -> sum, or leaves again

A class writes phi on arrays: `_value`, `_prox`, `_conjugate`, `_subgradient`, of its parameters in
the order of its fields. A field `weight` is left out there, since w phi follows from phi:

    prox of t w phi,    (w phi)*(y) = w phi*(y / w),    d(w phi) = w dphi

Where phi* is infinite beyond a bound, it is so beyond 1 + eps^(3/5) times that.
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.scipy.special import xlogy

from ..linalg import Form
from . import polyhedra
from .arguments import (
    PyTree,
    above,
    at_least_everywhere,
    is_number,
    known,
    nan_unless,
    parameter,
    parameters,
    total,
    tree,
    within,
)
from .proximable import Proximable, proximable, rebuilt


class Separable(Proximable):
    """Base of sums over entries. Each parameter is a number or shaped like x, and so is a step."""

    separable = True
    non_negative: ClassVar[tuple[str, ...]] = ("weight",)  # parameters that must be
    positive: ClassVar[tuple[str, ...]] = ()  # parameters that must not be 0 either
    _value: ClassVar[Callable[..., Array]]  # of (x, *parameters)
    _prox: ClassVar[Callable[..., Array]]  # of (x, step, *parameters)
    _conjugate: ClassVar[Callable[..., Array]]  # of (y, *parameters)
    _subgradient: ClassVar[Callable[..., Array]]  # of (x, v, *parameters)

    def __post_init__(self):
        """Refuse parameters of the wrong sign."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            label = f"{type(self).__name__}({field.name}=...)"
            if field.name in (*self.non_negative, *self.positive):
                strict = field.name in self.positive
                at_least_everywhere(label, getattr(self, field.name), 0.0, strict)

    def value(self, x):
        """The sum over the entries; infinite outside the domain."""
        x = tree("`x`", x)
        weight, rest = self._matched(x)
        each = jax.tree.map(lambda a, w, *p: w * self._value(a, *p), x, weight, *rest)
        return total(Form.of(x), each)

    def prox(self, x, step=1.0):
        """The formula of the class for each entry; `step` may be shaped like x."""
        x = tree("`x`", x)
        weight, rest = self._matched(x)
        step = _entries("`step`", step, x)
        return jax.tree.map(lambda a, t, w, *p: self._prox(a, t * w, *p), x, step, weight, *rest)

    def conjugate_value(self, y):
        """The sum over the entries of their conjugates."""
        y = tree("`y`", y)
        weight, rest = self._matched(y)

        def each(a, w, *p):
            safe = jnp.where(w == 0, 1, w)
            inside = jnp.where(a == 0, 0, jnp.inf).astype(a.dtype)  # of 0
            return jnp.where(w == 0, inside, w * self._conjugate(a / safe, *p))

        return total(Form.of(y), jax.tree.map(each, y, weight, *rest))

    def nearest_subgradient(self, x, v):
        """In each entry the nearest of an interval; NaN outside the domain."""
        x, v = tree("`x`", x), tree("`v`", v)
        weight, rest = self._matched(x)

        def each(a, b, w, *p):
            safe = jnp.where(w == 0, 1, w)
            return w * self._subgradient(a, b / safe, *p)

        return jax.tree.map(each, x, v, weight, *rest)

    def on_vector(self, form):
        """The same function of the vector `form.ravel(x)`, its parameters raveled."""

        def flat(parameter: PyTree) -> PyTree:
            if jax.tree_util.all_leaves([parameter]) and jnp.ndim(parameter) == 0:
                return parameter
            return form.ravel(parameter)

        names = [field.name for field in dataclasses.fields(self)]  # type: ignore[arg-type]
        return rebuilt(self, **{name: flat(getattr(self, name)) for name in names})

    def _matched(self, x: PyTree) -> tuple[PyTree, list[PyTree]]:
        """The weight, and the other parameters, each like x; NaN where traced and wrong."""
        found = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            name = field.name
            like = _entries(f"`{name}`", getattr(self, name), x)
            if name in (*self.non_negative, *self.positive):
                like = nan_unless(above(0.0, strict=name in self.positive), like)
            found[name] = like
        weight = found.pop("weight") if "weight" in found else _entries("weight", 1.0, x)
        return weight, list(found.values())


def _entries(label: str, value: PyTree, x: PyTree) -> PyTree:
    """As `parameters`, but a number stays one: as a constant of n entries it would be folded."""
    if jax.tree_util.all_leaves([value]) and jnp.ndim(value) == 0:
        return jax.tree.map(lambda leaf: parameter(label, value, leaf.dtype, ()), x)
    return parameters(label, value, x)


def soft_threshold(x: Array, threshold: Array) -> Array:
    """sign(x) max(|x| - threshold, 0); its derivative is 1 where |x| > threshold, else 0.

    It is the identity for a threshold of 0, and NaN stays NaN.
    """
    return jnp.where((jnp.abs(x) <= threshold) & (threshold > 0), 0, x - jnp.sign(x) * threshold)


def _indicator(inside: Array, like: Array) -> Array:
    """0 inside, infinite outside, NaN where `like` is."""
    return jnp.where(inside, 0, jnp.where(jnp.isnan(like), jnp.nan, jnp.inf)).astype(like.dtype)


@proximable
class L1(Separable):
    """sum_i w_i |x_i|, w >= 0: what makes answers sparse.

    prox(x, t) = sign(x) max(|x| - t w, 0), soft thresholding; f* is the indicator of |y_i| <= w_i.
    x_i = 0 is optimal for h + f as long as |dh/dx_i| <= w_i. O(n).
    Source: Parikh & Boyd (2014), section 6.5.2.

    Args:
        weight: w, a number or shaped like x.

    """

    weight: PyTree = 1.0

    @staticmethod
    def _value(x):
        return jnp.abs(x)

    @staticmethod
    def _prox(x, t):
        return soft_threshold(x, t)

    @staticmethod
    def _conjugate(y):
        return _indicator(within(jnp.abs(y), 1), y)

    @staticmethod
    def _subgradient(x, v):
        return jnp.where(x == 0, jnp.clip(v, -1, 1), jnp.sign(x))


@proximable
class SquaredL2(Separable):
    """sum_i w_i (x_i - centre_i)^2 / 2, w >= 0: Tikhonov, ridge, weight decay.

    prox(x, t) = x + t w (centre - x) / (1 + t w); f*(y) = y^2 / (2 w) + centre y. O(n).
    Source: Parikh & Boyd (2014), section 6.1.1.

    Args:
        weight: w, a number or shaped like x.
        centre: where it is 0, a number or shaped like x.

    """

    weight: PyTree = 1.0
    centre: PyTree = 0.0

    @staticmethod
    def _value(x, centre):
        return 0.5 * (x - centre) ** 2

    @staticmethod
    def _prox(x, t, centre):
        return x + t / (1 + t) * (centre - x)

    @staticmethod
    def _conjugate(y, centre):
        return 0.5 * y**2 + centre * y

    @staticmethod
    def _subgradient(x, v, centre):
        return x - centre


@proximable
class ElasticNet(Separable):
    """sum_i l1_i |x_i| + l2_i x_i^2 / 2: sparse, and strongly convex.

    prox(x, t) = soft(x, t l1) / (1 + t l2), f*(y) = max(|y| - l1, 0)^2 / (2 l2). O(n).
    Source: Parikh & Boyd (2014), section 6.5.3; Zou & Hastie (2005).

    Args:
        l1: weight of |x|, >= 0, a number or shaped like x.
        l2: weight of x^2 / 2, >= 0, a number or shaped like x.

    """

    l1: PyTree = 1.0
    l2: PyTree = 1.0
    non_negative = ("l1", "l2")

    @staticmethod
    def _value(x, l1, l2):
        return l1 * jnp.abs(x) + 0.5 * l2 * x**2

    @staticmethod
    def _prox(x, t, l1, l2):
        return soft_threshold(x, t * l1) / (1 + t * l2)

    @staticmethod
    def _conjugate(y, l1, l2):
        beyond = jnp.maximum(jnp.abs(y) - l1, 0)
        bent = 0.5 * beyond**2 / jnp.where(l2 == 0, 1, l2)
        return jnp.where(l2 == 0, _indicator(beyond == 0, beyond), bent)

    @staticmethod
    def _subgradient(x, v, l1, l2):
        return l2 * x + jnp.where(x == 0, jnp.clip(v, -l1, l1), l1 * jnp.sign(x))


@proximable
class Box(Separable):
    """The indicator of lower <= x <= upper: 0 inside, infinite outside.

    prox = `projections.box`, whatever the step; f*(y) = max(lower y, upper y). O(n).
    Source: Parikh & Boyd (2014), section 6.2.4.

    Args:
        lower: a number or shaped like x; -inf for none.
        upper: likewise, not below `lower`.

    """

    lower: PyTree
    upper: PyTree

    def __post_init__(self):
        """Refuse crossed bounds where both are known."""
        lower, upper = jax.tree.leaves(self.lower), jax.tree.leaves(self.upper)
        if not (known((lower, upper)) and all(map(is_number, (*lower, *upper)))):
            return
        one = min(len(lower), len(upper)) == 1
        pairs = itertools.product(lower, upper) if one else zip(lower, upper, strict=False)
        for low, high in pairs:  # what does not match is refused with x
            alike = np.ndim(low) == 0 or np.ndim(high) == 0 or np.shape(low) == np.shape(high)
            if alike and not np.all(np.asarray(low) <= np.asarray(high)):
                raise ValueError(
                    "Box(lower=..., upper=...) must have lower <= upper everywhere, but in some "
                    "entries it has not. Swap them, or give both the same value to fix an entry."
                )

    def prox(self, x, step=1.0):
        """Each entry clipped."""
        return polyhedra.box(x, self.lower, self.upper)

    @staticmethod
    def _value(x, lower, upper):
        inside = _indicator((x >= lower) & (x <= upper), x)
        return jnp.where(lower <= upper, inside, jnp.nan)

    @staticmethod
    def _conjugate(y, lower, upper):
        return jnp.where(y > 0, y * upper, jnp.where(y < 0, y * lower, 0 * y))

    @staticmethod
    def _subgradient(x, v, lower, upper):
        down, up = jnp.minimum(v, 0), jnp.maximum(v, 0)
        normal = jnp.where(x == lower, down, 0) + jnp.where(x == upper, up, 0)
        return jnp.where((x >= lower) & (x <= upper), normal, jnp.nan)


@proximable
class NonNegative(Separable):
    """The indicator of x >= 0.

    prox = max(x, 0), `projections.non_negative`; f* is the indicator of y <= 0. O(n).
    """

    @staticmethod
    def _value(x):
        return _indicator(x >= 0, x)

    @staticmethod
    def _prox(x, t):
        return polyhedra.non_negative(x)

    @staticmethod
    def _conjugate(y):
        return _indicator(y <= 0, y)

    @staticmethod
    def _subgradient(x, v):
        return jnp.where(x == 0, jnp.minimum(v, 0), jnp.where(x > 0, 0, jnp.nan))


@proximable
class Huber(Separable):
    """sum_i w_i h(x_i), h(x) = x^2 / 2 for |x| <= delta, else delta |x| - delta^2 / 2.

    prox(x, t) = x / (1 + t w) for |x| <= delta (1 + t w), else x - t w delta sign(x); f*(y) =
    y^2 / (2 w) for |y| <= w delta, else infinite. O(n). Source: Beck (2017), example 6.66.

    Args:
        delta: where it turns linear, >= 0, a number or shaped like x.
        weight: w >= 0, a number or shaped like x.

    """

    delta: PyTree = 1.0
    weight: PyTree = 1.0
    non_negative = ("delta", "weight")

    @staticmethod
    def _value(x, delta):
        near = jnp.clip(x, -delta, delta)
        return near * (x - 0.5 * near)

    @staticmethod
    def _prox(x, t, delta):
        return jnp.where(jnp.abs(x) <= delta * (1 + t), x / (1 + t), x - t * delta * jnp.sign(x))

    @staticmethod
    def _conjugate(y, delta):
        return 0.5 * y**2 + _indicator(within(jnp.abs(y), delta), y + delta)

    @staticmethod
    def _subgradient(x, v, delta):
        return jnp.clip(x, -delta, delta)


@proximable
class Hinge(Separable):
    """sum_i w_i max(0, 1 - x_i), x the margins: the loss of support vector machines.

    prox(x, t) = x for x >= 1, x + t w for x <= 1 - t w, 1 between; f*(y) = y for -w <= y <= 0,
    else infinite. O(n).

    Args:
        weight: w >= 0, a number or shaped like x.

    """

    weight: PyTree = 1.0

    @staticmethod
    def _value(x):
        return jnp.maximum(1 - x, 0)

    @staticmethod
    def _prox(x, t):
        between = (x < 1) & (x >= 1 - t)
        return jnp.where(between, 1, x + jnp.where(x >= 1, 0 * t, t))  # NaN stays NaN

    @staticmethod
    def _conjugate(y):
        return y + _indicator(within(jnp.abs(2 * y + 1), 1), y)

    @staticmethod
    def _subgradient(x, v):
        return jnp.where(x == 1, jnp.clip(v, -1, 0), jnp.where(x > 1, 0, -1 + 0 * x))


@proximable
class Logistic(Separable):
    """sum_i w_i log(1 + exp(-x_i)), x the margins: the loss of logistic regression.

    prox(x, t) is the root p in [x, x + t w] of p = x + t w / (1 + e^p), by Newton steps kept in a
    bracket, to rounding; its derivative is implicit, of any order. With s = -y / w in [0, 1],
    f*(y) = w (s log s + (1 - s) log(1 - s)). O(n) a step, 4 to 10 steps.

    Args:
        weight: w >= 0, a number or shaped like x.

    """

    weight: PyTree = 1.0

    @staticmethod
    def _value(x):
        return jax.nn.softplus(-x)

    @staticmethod
    def _prox(x, t):
        return increasing_root(lambda p: p - x - t * jax.nn.sigmoid(-p), x, x + t)

    @staticmethod
    def _conjugate(y):
        inside = within(jnp.abs(2 * y + 1), 1)
        s = jnp.where(inside, jnp.clip(-y, 0, 1), 0)
        return xlogy(s, s) + xlogy(1 - s, 1 - s) + _indicator(inside, y)

    @staticmethod
    def _subgradient(x, v):
        return -jax.nn.sigmoid(-x)


@proximable
class LogBarrier(Separable):
    """-sum_i w_i log(x_i), w > 0: what keeps iterates of interior methods positive.

    prox(x, t) = (x + sqrt(x^2 + 4 t w)) / 2; f*(y) = -w (1 + log(-y / w)) for y < 0. O(n).
    Source: Parikh & Boyd (2014), section 6.1.3.

    Args:
        weight: w > 0, a number or shaped like x.

    """

    weight: PyTree = 1.0
    positive = ("weight",)

    @staticmethod
    def _value(x):
        inside = x > 0
        return _indicator(inside, x) - jnp.log(jnp.where(inside, x, 1))

    @staticmethod
    def _prox(x, t):
        root = jnp.sqrt(x**2 + 4 * t)
        ahead = x >= 0  # no cancellation on either side
        return jnp.where(ahead, 0.5 * (x + root), 2 * t / jnp.where(ahead, 1, root - x))

    @staticmethod
    def _conjugate(y):
        inside = y < 0
        return _indicator(inside, y) - 1 - jnp.log(jnp.where(inside, -y, 1))

    @staticmethod
    def _subgradient(x, v):
        inside = x > 0
        return jnp.where(inside, -1 / jnp.where(inside, x, 1), jnp.nan)


@proximable
class Entropy(Separable):
    """sum_i w_i x_i log(x_i), w > 0, with 0 log 0 = 0: minus the entropy of x.

    prox(x, t) = c u with c = t w and u + log u = x / c - 1 - log c: u is the Lambert function of
    the exponential, by two steps of order four to rounding. f*(y) = w exp(y / w - 1). O(n).
    Source: Parikh & Boyd (2014), section 6.1.3; Fritsch, Shafer & Crowley (1973).

    Args:
        weight: w > 0, a number or shaped like x.

    """

    weight: PyTree = 1.0
    positive = ("weight",)

    @staticmethod
    def _value(x):
        inside = x >= 0
        safe = jnp.where(inside, x, 1)
        return xlogy(safe, safe) + _indicator(inside, x)

    @staticmethod
    def _prox(x, t):
        return t * wright_omega(x / t - 1 - jnp.log(t))

    @staticmethod
    def _conjugate(y):
        return jnp.exp(y - 1)

    @staticmethod
    def _subgradient(x, v):
        inside = x > 0
        slope = 1 + jnp.log(jnp.where(inside, x, 1))
        return jnp.where(inside, slope, jnp.where(x == 0, -jnp.inf, jnp.nan))


@proximable
class KullbackLeibler(Separable):
    """sum_i w_i (x_i log(x_i / r_i) - x_i + r_i), w > 0: the divergence of x from a reference r.

    prox(x, t) = c u with c = t w and u + log u = x / c + log(r / c), as in `Entropy`; f*(y) =
    w r (exp(y / w) - 1). Where r_i = 0, x_i must be 0. O(n).

    Args:
        reference: r >= 0, a number or shaped like x.
        weight: w > 0, a number or shaped like x.

    """

    reference: PyTree
    weight: PyTree = 1.0
    non_negative = ("reference",)
    positive = ("weight",)

    @staticmethod
    def _value(x, reference):
        some = reference > 0
        inside = (x >= 0) & (some | (x == 0))
        r, a = jnp.where(some, reference, 1), jnp.where(inside, x, 1)
        value = xlogy(a, a) - a * jnp.log(r) - a + reference
        return jnp.where(some, value, reference) + _indicator(inside, x + reference)

    @staticmethod
    def _prox(x, t, reference):
        some = reference > 0
        r = jnp.where(some, reference, 1)
        u = wright_omega(x / t + jnp.log(r / t))
        return jnp.where(some, t * u, reference)

    @staticmethod
    def _conjugate(y, reference):
        return reference * jnp.expm1(y)

    @staticmethod
    def _subgradient(x, v, reference):
        inside = (x > 0) & (reference > 0)
        a, r = jnp.where(inside, x, 1), jnp.where(inside, reference, 1)
        edge = jnp.where(reference > 0, -jnp.inf, v)  # r = 0: all numbers are subgradients at 0
        return jnp.where(inside, jnp.log(a / r), jnp.where(x == 0, edge, jnp.nan))


def increasing_root(function: Callable[[Array], Array], lower: Array, upper: Array) -> Array:
    """The root in [lower, upper] of a function of each entry whose slope is at least 1.

    Newton's steps; one that leaves the bracket is replaced by its middle. Ends when no entry
    moves by more than rounding. The derivative is that of the implicit function, of any order.
    """
    one = jnp.ones_like(lower)
    ends = lax.stop_gradient(jnp.maximum(jnp.abs(lower), jnp.abs(upper)))
    rounding = 2 * jnp.finfo(lower.dtype).eps * ends

    def solve(function, start):
        def step(carry):
            low, high, p, _, steps = carry
            r, slope = jax.jvp(function, (p,), (one,))
            low, high = jnp.where(r <= 0, p, low), jnp.where(r >= 0, p, high)
            new = p - r / slope
            new = jnp.where((new >= low) & (new <= high), new, 0.5 * (low + high))
            moved = jnp.any(jnp.abs(new - p) > rounding)
            return low, high, new, moved, steps + 1

        carry = (lower, upper, start, True, 0)
        going = lambda carry: carry[3] & (carry[4] < 100)
        return lax.while_loop(going, step, jax.tree.map(lax.stop_gradient, carry))[2]

    start = lax.stop_gradient(0.5 * (lower + upper))
    lower, upper = lax.stop_gradient((lower, upper))
    return lax.custom_root(function, start, solve, lambda g, y: y / g(one))


@jax.custom_jvp
def wright_omega(z: Array) -> Array:
    """The u > 0 with u + log u = z, to rounding; 0 where exp(z) is."""
    # exp(z) (1 - exp(z)) below, z - log(z) above, a parabola between: all within a fifth.
    small, middle, large = jnp.exp(jnp.minimum(z, 0)), jnp.clip(z, -2, 2), jnp.maximum(z, 2)
    between = 0.567 + 0.36 * middle + 0.06 * middle**2
    u = jnp.where(z > 2, large - jnp.log(large), between)
    u = jnp.where(z < -2, small * (1 - small), u)
    tiny = jnp.finfo(z.dtype).tiny
    for _ in range(3):
        u = jnp.maximum(u, tiny)
        r = z - u - jnp.log(u)
        q = 2 * (1 + u) * (1 + u + 2 / 3 * r)
        u = u * (1 + r / (1 + u) * (q - r) / (q - 2 * r))
    return jnp.where(z < -36 if z.dtype == jnp.float64 else z < -17, jnp.exp(z), u)


@wright_omega.defjvp
def _wright_omega_jvp(primals, tangents):
    u = wright_omega(*primals)
    return u, u / (1 + u) * tangents[0]
