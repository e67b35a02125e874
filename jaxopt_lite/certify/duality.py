r"""The dual function at given multipliers, the gap, and what it proves.

    prices y, z >= 0  ->  d(y, z) = min_x { f + y . eq + z . ineq : bounds }, by inner solves
      ->  d <= f at every feasible point (weak duality, whatever y and z are)
      ->  gap = f(x) - d: where it is 0, x is a global minimum

The bounds stay in the inner problem. Its minimum must be a global one for d to be a bound; where L
is convex in x every minimum is.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Multipliers, Point, Problem, Solution, Solver, Status, check
from ..core.iterate import iterate
from ..core.solve import solver_for
from ..core.solver import with_dtype, with_tolerance
from ..core.tracing import FlatProblem, flatten
from ..linalg import Form, norm_inf
from .kkt import DENSE_LIMIT, examine
from .stacking import flattened, sizes_of

PyTree = Any
MAX_STEPS = 1000  # of an inner solve
TRIAL = np.pi / 3  # part of a step to a start at which the Hessian is looked at too


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Duality:
    """Primal and dual value, their gap, and how far it proves a global minimum.

    Args:
        primal: f(x).
        dual: the least value of the Lagrangian that was found over x within the bounds, -inf where
            it has none.
        gap: primal - dual.
        tolerance: what counts as no gap, for these values.
        minimizer: the x of `dual`.
        feasible: x satisfies all constraints.
        attained: the inner solve of `minimizer` converged.
        curvature: the least eigenvalue, over its size, of the Hessian of L in x at the points that
            were looked at.
        convex: no negative curvature was found there.
        assumed: convexity was vouched for by the caller.
        saddle: (x, multipliers) is a saddle point of the Lagrangian, as far as the inner solves
            tell: x is feasible and no lower value of L was found.
        certified: a global minimum within the tolerance, if L is convex in x: `saddle`, `attained`
            and `convex`. With `assumed` that is a proof; without, it is not contradicted.

    """

    primal: Array
    dual: Array
    gap: Array
    tolerance: Array
    minimizer: PyTree
    feasible: Array
    attained: Array
    curvature: Array
    convex: Array
    assumed: Array
    saddle: Array
    certified: Array

    def __str__(self) -> str:
        """A short report a person can read."""
        if isinstance(self.gap, jax.core.Tracer):
            return "Duality(being traced)"
        if np.ndim(self.gap):
            good = int(np.sum(np.asarray(self.certified)))
            return f"Duality {np.shape(self.gap)}: {good} global minima"
        return "\n".join(_report(self))


def duality(
    problem: Problem,
    solution: Solution | PyTree,
    args: tuple = (),
    multipliers: Multipliers | None = None,
    *,
    convex: bool = False,
    starts: int = 8,
    radius: ArrayLike | None = None,
    tol: ArrayLike | None = None,
) -> Duality:
    """Evaluate the dual function and compare: is the point a global minimum, and within what gap?

    Weak duality: for any y and z >= 0 the least value of L = f + y . eq + z . ineq over the bounds
    is below f at every feasible point. Where it equals f(x), x is a global minimum and (y, z) solve
    the dual problem. A gap is left where the problem is not convex, or (y, z) not optimal.

    Args:
        problem: the problem; no `nonsmooth` term.
        solution: a `Solution`, or a point x of its own.
        args: tuple of pytrees, those of the solve.
        multipliers: those of the solution if None, else by least squares as in `certify`.
            Negative ones of inequalities count as 0.
        convex: say that L is convex in x (a convex objective and inequalities, linear equalities):
            then one inner minimum is the global one, and the verdict a proof. Curvature found
            negative contradicts it all the same.
        starts: inner solves, the first from x, the others from points around it, or in the box.
        radius: look for x only so far from the point, in each variable: multipliers with an error
            make the dual value of a linear program -inf. The bound then holds so far.
        tol: what counts as no gap, relative to 1 + |f|; None is eps^(3/8), 1.3e-6 in float64.

    Works under `jit` and `vmap`. Cost: `starts` solves and Hessians (n, n). Raises as `certify`.

    Sources: Boyd & Vandenberghe (2004), sections 5.1 to 5.4; Bertsekas (2016), section 6.2.

    """
    check.is_problem(problem)
    if problem.nonsmooth is not None:
        raise TypeError("`duality` covers smooth problems, but a nonsmooth term came.")
    check.args_tuple(args)
    check.count("`starts`", starts, way_out="The default is 8.")
    x = check.start("x", solution.x if isinstance(solution, Solution) else solution)
    form = Form.of(x)
    if form.size > DENSE_LIMIT:
        raise ValueError(
            f"`x` has {form.size} variables; `duality` takes Hessians, of at most {DENSE_LIMIT}. "
            "Minimise the Lagrangian with `solve` and compare."
        )
    if multipliers is None and isinstance(solution, Solution):
        multipliers = solution.multipliers
    flat, captured = flatten(problem, form, args)
    params = (args, captured)
    if multipliers is None:
        multipliers = examine(flat, form, x, params, None, tol)[1].multipliers
    bounded = problem.bounds is not None or radius is not None
    inner = FlatProblem(
        objective=_Priced(flat), bounds=_Sides(flat) if bounded else None, form=form
    )
    solver = solver_for(inner, None, form.size)
    return _dual(
        flat, inner, form, solver, starts, x, params, multipliers, radius, tol, jnp.asarray(convex)
    )


# -- the inner problem -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Priced:
    """The Lagrangian, a function of (x, args, captured, prices, box)."""

    problem: FlatProblem

    def __call__(self, x: Array, *args: Any) -> Array:
        data, prices = args[:2], args[2]
        total = self.problem.value(x, data)
        for fun, price in ((self.problem.eq, prices.eq), (self.problem.ineq, prices.ineq)):
            if fun is not None:
                total = total + price @ fun(x, *data)
        return total


@dataclasses.dataclass(frozen=True)
class _Sides:
    """The box, which is the last of the arguments."""

    problem: FlatProblem

    def __call__(self, *args: Any) -> tuple[Array, Array]:
        return args[3]


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 4))
def _dual(
    problem: FlatProblem,
    inner: FlatProblem,
    form: Form,
    solver: Solver,
    starts: int,
    x: PyTree,
    params: tuple,
    multipliers: Multipliers,
    radius: Any,
    tol: Any,
    assumed: Array,
) -> Duality:
    x = form.ravel(x)
    dtype = x.dtype
    eps = float(jnp.finfo(dtype).eps)
    tol = jnp.asarray(eps**0.375 if tol is None else tol, dtype)
    slacks = problem.slacks(x, params)
    prices = flattened(multipliers, form, sizes_of(slacks), dtype)
    prices = Multipliers(prices.eq, jnp.maximum(prices.ineq, 0))
    lower, upper = problem.box(params)
    if radius is not None:
        lower, upper = jnp.maximum(lower, x - radius), jnp.minimum(upper, x + radius)
    data = (*params, prices, (lower, upper))
    stop = jnp.asarray(eps**0.5, dtype)
    solver = with_tolerance(with_dtype(solver, form), stop)

    def search(start):
        run, report = iterate(inner, solver, Point(start), data, tol=stop, max_steps=MAX_STEPS)
        return run.status, report.value, report.point.x

    around = _around(x, lower, upper, starts)
    status, values, ends = jax.vmap(search)(around)
    lost = (status == Status.DIVERGED) | (status == Status.DUAL_INFEASIBLE)
    values = jnp.where(lost, -jnp.inf, jnp.where(jnp.isfinite(values), values, jnp.inf))
    here = inner.value(x, data)
    best = jnp.argmin(values)
    dual = jnp.minimum(values[best], here)
    looked = jnp.concatenate([around, x + TRIAL * (around - x), ends])
    curvature = jnp.min(jax.vmap(lambda y: _curvature(inner.hessian(y, data)))(looked))

    primal = problem.value(x, params)
    worst = [norm_inf(slacks.eq).astype(dtype)]
    worst += [jnp.max(part, initial=0) for part in slacks[1:] if part is not None]
    feasible = jnp.max(jnp.stack(worst)) <= tol * (1 + norm_inf(x))
    tolerance = tol * (1 + jnp.abs(primal))
    gap = primal - dual
    attained = (status[best] == Status.CONVERGED) | (here <= values[best])
    convex = curvature >= -(eps**0.5)
    saddle = feasible & (jnp.abs(gap) <= tolerance)
    return Duality(
        primal=primal,
        dual=dual,
        gap=gap,
        tolerance=tolerance,
        minimizer=form.unravel(jnp.where(here <= values[best], x, ends[best])),
        feasible=feasible,
        attained=attained,
        curvature=curvature,
        convex=convex,
        assumed=assumed,
        saddle=saddle,
        certified=saddle & attained & convex,
    )


def _around(x: Array, lower: Array, upper: Array, starts: int) -> Array:
    """X, and points spread over the box, or over some distance where that is infinite."""
    noise = jax.random.normal(jax.random.key(0), (starts - 1, x.shape[0]), x.dtype)
    part = jax.random.uniform(jax.random.key(1), noise.shape, x.dtype)
    boxed = jnp.isfinite(lower) & jnp.isfinite(upper)
    low, high = jnp.where(boxed, lower, 0), jnp.where(boxed, upper, 0)
    spread = jnp.where(boxed, low + part * (high - low), x + (1 + norm_inf(x)) * noise)
    return jnp.clip(jnp.concatenate([x[None], spread]), lower, upper)


def _curvature(hessian: Array) -> Array:
    """The least eigenvalue over the largest; inf where the Hessian is not finite."""
    finite = jnp.all(jnp.isfinite(hessian))
    values = jnp.linalg.eigvalsh(jnp.where(finite, hessian, 0))
    size = jnp.max(jnp.abs(values))
    return jnp.where(finite, values[0] / jnp.where(size > 0, size, 1), jnp.inf)


# -- the report ------------------------------------------------------------------------------------


def _report(d: Duality) -> list[str]:
    """Verdict, values, and what the verdict rests on."""
    gap, tolerance = float(d.gap), float(d.tolerance)
    lines = [
        f"  primal       {float(d.primal):.10g}",
        f"  dual         {float(d.dual):.10g}: no feasible point is lower, if the inner minimum is "
        "global",
        f"  gap          {gap:.3g}; tolerance {tolerance:.2g}",
        f"  curvature    of the Lagrangian in x: from {float(d.curvature):.2g} of its size up, at "
        "the points looked at",
    ]
    if not bool(d.feasible):
        head = "NOT FEASIBLE: nothing is said of this point"
    elif bool(d.certified):
        why = "convexity assumed" if bool(d.assumed) else "convexity not contradicted"
        head = f"GLOBAL MINIMUM within {max(gap, 0.0):.2g} ({why})"
    elif gap < -tolerance:
        head = "NOT A BOUND: the inner solves missed the minimum of the Lagrangian"
    elif bool(d.saddle) and not bool(d.convex):
        head = "no gap found, but the Lagrangian is not convex: no proof of a global minimum"
    elif bool(d.saddle):
        head = "no gap found, but the inner solve did not converge"
    elif not np.isfinite(float(d.dual)):
        head = "NO BOUND: the Lagrangian falls without end; `radius` limits the search"
    else:
        head = f"DUALITY GAP {gap:.3g}: not proven a global minimum"
    return [head, *lines]
