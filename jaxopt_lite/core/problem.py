"""The problem: functions only. Every convention of the package is stated here, once.

    minimise    objective(x, *args) + nonsmooth.value(x)
    subject to  eq(x, *args) = 0,   ineq(x, *args) <= 0,   lower <= x <= upper

`x` is any pytree of floating arrays, `args` a tuple of pytrees. The Lagrangian is

    L = f + eq_mult . eq + ineq_mult . ineq + upper_mult . (x - upper) + lower_mult . (lower - x)

with the last three multipliers >= 0. So relaxing a constraint by one unit lowers the optimal value
by its multiplier, and for `eq(x) = c`, d value / d c = -eq_mult.

A `Problem` owns the mathematics that every solver and certificate needs: value, gradient, Hessian,
Lagrangian, residuals, and the optimality map whose root is the answer and whose derivative is the
derivative of the answer. Methods take one array `x` where they return gradients or Hessians;
`solve` hands the solvers a problem over a flat vector, whatever the user's structure is.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ..linalg import norm_inf
from ..prox import Proximable
from .types import Multipliers, Point, Residuals, apart

PyTree = Any
FEATURES = ("eq", "ineq", "bounds", "nonsmooth")
# What there is to minimise: a plain objective; outer(inner(x)); a sum over residuals; or nothing,
# only equations to be met.
KINDS = ("objective", "composite", "least squares", "equations")


@dataclasses.dataclass(frozen=True)
class Composite:
    """An objective `outer(inner(x, *args), *args)`, its two parts kept for Gauss-Newton methods.

    With J the Jacobian of `inner` and H the Hessian of `outer`, the Hessian is J'HJ plus terms with
    the curvature of `inner`. J'HJ is the generalised Gauss-Newton matrix: positive semidefinite for
    a convex `outer`, and the Fisher matrix if `outer` is the negative log likelihood of a natural
    parameter, as cross-entropy of logits is. Source: Martens (2020), section 8.

    Args:
        inner: `inner(x, *args)` -> pytree z, the outputs of a model for instance.
        outer: `outer(z, *args)` -> real scalar, convex in z.
        separable: outer(z) is a sum over the entries of z, each convex where it matters: a sum of
            squares or of robust losses. Then there are residuals for Levenberg and Marquardt.

    """

    inner: Callable[..., PyTree]
    outer: Callable[..., Array]
    separable: bool = False

    def __post_init__(self):
        """Refuse what is not callable."""
        for name in ("inner", "outer"):
            if not callable(getattr(self, name)):
                raise TypeError(
                    f"Composite({name}=...) must be a function, but a "
                    f"{type(getattr(self, name)).__name__} came."
                )

    def __call__(self, x: PyTree, *args: PyTree) -> Array:
        """The objective's value."""
        return self.outer(self.inner(x, *args), *args)


def half_square(z: PyTree, *args: PyTree) -> Array:
    """1/2 ||z||^2 over all entries of a pytree."""
    squares = [0.5 * jnp.sum(leaf * leaf) for leaf in jax.tree.leaves(z)]
    return functools.reduce(jnp.add, squares)


class Fixed:
    """Bounds given as values, made a function of `args` that ignores them; equal only to itself."""

    def __init__(self, bounds: tuple[PyTree, PyTree]):
        self.bounds = bounds

    def __call__(self, *args: PyTree) -> tuple[PyTree, PyTree]:
        """The bounds."""
        return self.bounds


@dataclasses.dataclass(frozen=True)
class Problem:
    """An optimisation problem; see the module docstring for the mathematics and the signs.

    Args:
        objective: `objective(x, *args)` -> real scalar, or `(scalar, aux)` with `has_aux=True`. A
            `Composite` lets Gauss-Newton methods in. None: solve the equations `eq(x, *args) = 0`,
            as many as unknowns; the value is then 1/2 ||eq||^2.
        eq: `eq(x, *args)` -> array (m,) that is to be 0.
        ineq: `ineq(x, *args)` -> array (p,) that is to be <= 0.
        bounds: `(lower, upper)`, each None, a scalar, or shaped like `x`; or a function of
            `*args` that returns them.
        nonsmooth: a convex term added to the objective, from `jol.prox`: `L1(0.1)` for instance; or
            a function of `*args` that returns one, `lambda X, y, weight: L1(weight)`.
        has_aux: whether the objective returns a second output.

    Functions are pure, as under `jax.jit`: they are traced once for each structure of `x` and
    `args`, and compiled code is reused while the function object is the same. What varies goes
    through `args`. Hashable and free of data, so it can be a static argument of a jitted function.

    Raises TypeError when `objective` or a constraint is not callable.

    """

    objective: Callable[..., Any] | None
    eq: Callable[..., Array] | None = None
    ineq: Callable[..., Array] | None = None
    bounds: Any = None
    nonsmooth: Any = None
    has_aux: bool = False

    def __post_init__(self):
        """Check what can be checked without data."""
        for name in ("objective", "eq", "ineq"):
            given = getattr(self, name)
            optional = name != "objective" or self.eq is not None
            if not (callable(given) or (given is None and optional)):
                raise TypeError(
                    f"Problem({name}=...) must be a function `{name}(x, *args)`, but a "
                    f"{type(given).__name__} came."
                )
        if self.bounds is not None and not callable(self.bounds):
            if not (isinstance(self.bounds, tuple) and len(self.bounds) == 2):
                raise TypeError(
                    "Problem(bounds=...) must be a pair `(lower, upper)` or a function of `*args` "
                    f"that returns one, but a {type(self.bounds).__name__} came."
                )
            object.__setattr__(self, "bounds", Fixed(self.bounds))
        term = self.nonsmooth
        if term is not None and not isinstance(term, Proximable) and not _makes_terms(term):
            raise TypeError(
                "Problem(nonsmooth=...) must be a function of `jol.prox`, `jol.prox.L1(0.1)` for "
                f"instance, or a function of `*args` that returns one, but a {type(term).__name__} "
                "came. `jol.prox.Custom(value, prox)` makes one of two functions of your own."
            )

    @property
    def features(self) -> frozenset[str]:
        """Which of eq, ineq, bounds, nonsmooth this problem has besides what `kind` says."""
        names = FEATURES if self.kind != "equations" else FEATURES[1:]
        return frozenset(name for name in names if getattr(self, name) is not None)

    @property
    def kind(self) -> str:
        """One of `KINDS`."""
        if self.objective is None:
            return "equations"
        if isinstance(self.objective, Composite):
            return "least squares" if self.objective.separable else "composite"
        return "objective"

    # -- the objective ------------------------------------------------------------------------

    def value_and_aux(self, x: PyTree, args: tuple) -> tuple[Array, PyTree]:
        """f(x) and the objective's second output, None if it has none."""
        if self.objective is None:
            return half_square(self.eq(x, *args)), None  # type: ignore[misc]
        out = self.objective(x, *args)
        return out if self.has_aux else (out, None)

    def value(self, x: PyTree, args: tuple) -> Array:
        """f(x)."""
        return self.value_and_aux(x, args)[0]

    def value_and_gradient(self, x: Array, args: tuple) -> tuple[Array, Array]:
        """f(x) and grad f(x), by one reverse pass."""
        return jax.value_and_grad(self.value)(x, args)

    def gradient(self, x: Array, args: tuple) -> Array:
        """Grad f(x)."""
        return jax.grad(self.value)(x, args)

    def hessian(self, x: Array, args: tuple) -> Array:
        """The exact Hessian (n, n) of f: n Hessian-vector products in one batch."""
        return jax.jacfwd(self.gradient)(x, args)

    def hessian_product(self, x: Array, args: tuple) -> Callable[[Array], Array]:
        """V -> Hessian of f at x times v, the gradient linearised once (forward over reverse)."""
        return jax.linearize(lambda y: self.gradient(y, args), x)[1]

    # -- with constraints ---------------------------------------------------------------------

    def slacks(self, x: Array, args: tuple) -> Multipliers:
        """The constraints as they meet their multipliers: eq, ineq, lower - x, x - upper.

        An absent or infinite bound gives -1, a constraint that never binds.
        """
        eq = None if self.eq is None else self.eq(x, *args)
        ineq = None if self.ineq is None else self.ineq(x, *args)
        if self.bounds is None:
            return Multipliers(eq, ineq)
        lower, upper = self.bounds(*args)
        below = None if lower is None else _finite_or(lower - x, -1.0)
        above = None if upper is None else _finite_or(x - upper, -1.0)
        return Multipliers(eq, ineq, below, above)

    def lagrangian(self, point: Point, args: tuple) -> Array:
        """L at a point whose multipliers are given for every constraint the problem has."""
        slacks = self.slacks(point.x, args)
        pairs = zip(point.multipliers, slacks, strict=True)
        priced = (jnp.vdot(m, s) for m, s in pairs if m is not None and s is not None)
        return sum(priced, start=self.value(point.x, args))

    def optimality(self, point: Point, args: tuple) -> Point:
        """F(point, args): zero at a KKT point, and its implicit function is the solution map.

        (grad_x L, eq, ineq_mult * ineq, lower_mult * (lower - x), upper_mult * (x - upper)), in
        the structure of `point`. Its Jacobian in `point` is nonsingular under LICQ, strict
        complementarity and the second-order condition. Source: Fiacco (1976).
        """
        stationarity = jax.grad(lambda x: self.lagrangian(point._replace(x=x), args))(point.x)
        m, s = point.multipliers, self.slacks(point.x, args)
        product = [None if a is None else a * b for a, b in zip(m[1:], s[1:], strict=True)]
        return Point(stationarity, Multipliers(s.eq, *product))

    def residuals(self, point: Point, args: tuple) -> Residuals:
        """The optimality conditions, measured from the problem and the point alone."""
        gradient = jax.grad(lambda x: self.lagrangian(point._replace(x=x), args))(point.x)
        m, s = point.multipliers, self.slacks(point.x, args)
        zero = jnp.zeros((), gradient.dtype)
        primal, dual, complementarity = norm_inf(s.eq).astype(gradient.dtype), zero, zero
        for price, slack in zip(m[1:], s[1:], strict=True):
            if slack is None:
                continue
            primal = jnp.maximum(primal, norm_inf(jnp.maximum(slack, 0)))
            dual = jnp.maximum(dual, norm_inf(jnp.minimum(price, 0)))
            complementarity = jnp.maximum(complementarity, apart(price, slack))
        return Residuals(norm_inf(gradient), primal, dual, complementarity)


def _makes_terms(given: Any) -> bool:
    """A function of `args`; an object with a prox of its own is no such thing."""
    return callable(given) and not isinstance(given, type) and not hasattr(given, "prox")


def _finite_or(value: Array, other: float) -> Array:
    """`value` where it is finite, `other` elsewhere; the derivative is 0 there."""
    return jnp.where(jnp.isfinite(value), value, other)
