"""Slater's condition: is there a point that satisfies every curved inequality strictly?

    t* = max t  s.t.  g_i(x) + t <= 0 for curved g_i,  g_j(x) <= 0 for affine ones,  c(x) = 0,
                      x within the bounds,  t <= 1

One solve, from the point that is given. t* > 0 is a witness whatever the problem is; that there is
none is shown only where the problem is convex.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Point, Problem, Solution, Solver, Status, check
from ..core.iterate import iterate
from ..core.solve import solver_for
from ..core.solver import with_dtype, with_tolerance
from ..core.tracing import FlatProblem, flatten
from ..linalg import Form, norm_inf
from .kkt import DENSE_LIMIT

PyTree = Any
MAX_STEPS = 1000
LOOKS = 4  # points at which constraints are looked at for curvature


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Slater:
    """Whether the constraints of a convex program are regular: then multipliers exist, and no gap.

    Args:
        holds: `margin` is positive and `point` satisfies the other constraints.
        margin: t*, by which every curved inequality can be satisfied strictly, at most 1; 1 if all
            are affine and the point is feasible, -inf if the search ended without a feasible point.
        point: where.
        affine: (p,), inequalities that are affine, which need not be strict.
        convex: equalities are affine and no inequality was found to bend downwards: only then does
            `holds` imply strong duality, and `~holds` that there is no such point.

    """

    holds: Array
    margin: Array
    point: PyTree
    affine: Array
    convex: Array

    def __str__(self) -> str:
        """One sentence."""
        if isinstance(self.holds, jax.core.Tracer):
            return "Slater(being traced)"
        if np.ndim(self.holds):
            return f"Slater {np.shape(self.holds)}: holds for {int(np.sum(np.asarray(self.holds)))}"
        curved = self.affine.size - int(np.sum(np.asarray(self.affine)))
        how = f"margin {float(self.margin):.2g} over {curved} curved inequalities"
        if not bool(self.convex):
            how += "; the constraints are not convex, so that it proves nothing about a gap"
        return f"Slater's condition {'holds' if bool(self.holds) else 'fails'}: {how}"


def slater(
    problem: Problem,
    x: Solution | PyTree,
    args: tuple = (),
    *,
    tol: ArrayLike | None = None,
) -> Slater:
    """Search for a strictly feasible point of a convex program.

    Where there is one, the program has multipliers at every minimum and no duality gap; the set of
    multipliers is bounded if no equalities are redundant. It is a property of the constraints
    alone, so one test serves every objective.

    Args:
        problem: with `ineq`; its objective does not matter.
        x: where to start, or a `Solution`.
        args: tuple of pytrees, those of the solve.
        tol: margin that counts as positive, and violation as none; None is eps^(3/8), 1.3e-6 in
            float64.

    Works under `jit` and `vmap`. Cost: a solve in n + 1 variables, and four Hessians of the
    constraints, (p, n, n). Raises TypeError without inequalities, ValueError above 1,000 variables.

    Source: Boyd & Vandenberghe (2004), sections 5.2.3 and 11.4.

    """
    check.is_problem(problem)
    if problem.ineq is None:
        raise TypeError(
            "`slater` asks of inequalities, but the problem has no `ineq`. With equalities and "
            "bounds alone, feasibility is all that is needed if the equalities are affine."
        )
    check.args_tuple(args)
    x = check.start("x", x.x if isinstance(x, Solution) else x)
    form = Form.of(x)
    if form.size > DENSE_LIMIT:
        raise ValueError(
            f"`x` has {form.size} variables; `slater` takes Hessians, of at most {DENSE_LIMIT}. "
            "Maximise the margin with `solve`."
        )
    flat, captured = flatten(problem, form, args)
    wide = Form.of(jax.ShapeDtypeStruct((form.size + 1,), form.dtype))
    inner = FlatProblem(
        objective=_Margin(),
        eq=None if flat.eq is None else _Ahead(flat.eq),
        ineq=_Strict(flat.ineq),
        bounds=_Sides(flat),
        form=wide,
    )
    solver = solver_for(inner, None, wide.size)
    return _search(flat, inner, form, solver, x, (args, captured), tol)


# -- the inner problem: (x, t) -> -t ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Margin:
    """The objective, -t."""

    def __call__(self, x: Array, *args: Any) -> Array:
        return -x[-1]


@dataclasses.dataclass(frozen=True)
class _Ahead:
    """A function of x alone."""

    fun: Any

    def __call__(self, x: Array, *args: Any) -> Array:
        return self.fun(x[:-1], *args[:2])


@dataclasses.dataclass(frozen=True)
class _Strict:
    """The inequalities, curved ones with t; which are is the last of the arguments."""

    fun: Any

    def __call__(self, x: Array, *args: Any) -> Array:
        return self.fun(x[:-1], *args[:2]) + args[2] * x[-1]


@dataclasses.dataclass(frozen=True)
class _Sides:
    """The bounds, and t <= 1."""

    problem: FlatProblem

    def __call__(self, *args: Any) -> tuple[Array, Array]:
        lower, upper = self.problem.box(args[:2])
        return jnp.append(lower, -jnp.inf), jnp.append(upper, 1.0)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _search(
    problem: FlatProblem,
    inner: FlatProblem,
    form: Form,
    solver: Solver,
    x: PyTree,
    params: tuple,
    tol: Any,
) -> Slater:
    x = form.ravel(x)
    eps = float(jnp.finfo(x.dtype).eps)
    tol = jnp.asarray(eps**0.375 if tol is None else tol, x.dtype)
    lower, upper = problem.box(params)
    x = jnp.clip(x, lower, upper)
    affine, convex = _shape(problem, x, params)
    curved = 1 - affine.astype(x.dtype)
    worst = jnp.max(jnp.where(affine, -jnp.inf, problem.slacks(x, params).ineq), initial=-1)
    start = Point(jnp.append(x, -worst - tol))
    stop = jnp.asarray(eps**0.5, x.dtype)
    solver = with_tolerance(with_dtype(solver, inner.form), stop)
    data = (*params, curved)
    run, report = iterate(inner, solver, start, data, tol=stop, max_steps=MAX_STEPS)
    found = report.point.x[:-1]

    slacks = problem.slacks(found, params)
    values = slacks.ineq
    violations = [norm_inf(slacks.eq), jnp.max(jnp.where(affine, values, 0), initial=0)]
    violations += [jnp.max(side, initial=0) for side in slacks[2:] if side is not None]
    feasible = jnp.max(jnp.stack(violations)) <= tol * (1 + norm_inf(found))
    margin = jnp.minimum(1, -jnp.max(jnp.where(affine, -jnp.inf, values), initial=-1))
    broken = (run.status == Status.NONFINITE) | ~feasible | ~jnp.isfinite(margin)
    margin = jnp.where(broken, -jnp.inf, margin)
    return Slater(margin > tol, margin, form.unravel(found), affine, convex)


def _shape(problem: FlatProblem, x: Array, params: tuple) -> tuple[Array, Array]:
    """Which inequalities are affine, and whether the constraints are convex, at some points."""
    lower, upper = problem.box(params)
    noise = jax.random.normal(jax.random.key(0), (LOOKS - 1, x.shape[0]), x.dtype)
    points = jnp.concatenate([x[None], jnp.clip(x + (1 + norm_inf(x)) * noise, lower, upper)])
    eps = float(jnp.finfo(x.dtype).eps)

    def bends(fun, point):
        """The extreme eigenvalues of each row's Hessian, relative to its slope and size."""
        values = jnp.linalg.eigvalsh(jax.hessian(lambda x: fun(x, *params))(point))
        slope = jnp.max(jnp.abs(jax.jacobian(lambda x: fun(x, *params))(point)), axis=1)
        size = jnp.maximum(jnp.max(jnp.abs(values), axis=1), slope)
        size = jnp.where(size > 0, size, 1)
        # Where a constraint is not defined it says nothing.
        return jnp.nan_to_num(values[:, 0] / size), jnp.nan_to_num(values[:, -1] / size)

    least, largest = jax.vmap(lambda point: bends(problem.ineq, point))(points)
    small = eps**0.5
    affine = jnp.all((jnp.abs(least) <= small) & (jnp.abs(largest) <= small), axis=0)
    convex = jnp.all(least >= -small)
    if problem.eq is not None:
        low, high = jax.vmap(lambda point: bends(problem.eq, point))(points)
        convex = convex & jnp.all(jnp.abs(low) <= small) & jnp.all(jnp.abs(high) <= small)
    return affine, convex
