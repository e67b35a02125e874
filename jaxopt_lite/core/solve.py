"""The front door: check, ravel, iterate, attach the derivative, unravel.

Problem + x0 + args -> check -> ravel -> iterate(solver) -> attach derivative -> unravel -> Solution
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from ..linalg import Form, choose
from . import check
from .implicit import Implicit, attach, attach_value, follow
from .iterate import iterate
from .problem import Problem
from .solver import TABLE, Solver, flat_start, require_accepts, with_dtype, with_tolerance
from .stopping import default_tolerance
from .tracing import FlatProblem, flatten
from .types import Multipliers, Point, Residuals, Solution, Status

PyTree = Any
MAX_STEPS = 10_000
MODES = ("implicit", "unrolled")

_choose: Callable[[Problem, int], Solver] | None = None


def default_solver(choose: Callable[[Problem, int], Solver]) -> Callable[[Problem, int], Solver]:
    """Register the function (problem, number of variables) -> solver behind `solver=None`."""
    global _choose
    _choose = choose
    return choose


def solve(
    problem: Problem,
    x0: PyTree,
    args: tuple = (),
    solver: Solver | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
    history: bool | str = False,
    progress: bool = False,
    differentiate: str | Implicit = "implicit",
) -> Solution:
    """Minimise a `Problem` from `x0`: a `Solution` with its status, residuals and derivatives.

    Args:
        problem: what to minimise. Its functions are traced once for each structure of `x0`, `args`.
        x0: start, a pytree of floating arrays; computed in float64 if a leaf is, else in float32.
            Or a `Solution` or `Point`, whose multipliers `SQP` and `AugmentedLagrangian` start
            from as well.
        args: tuple of pytrees passed on to the problem's functions.
        solver: an instance from the solver table. None: `TrustRegion`, which converges from far,
            quadratically at the end, and leaves saddle points; with the exact Hessian up to 200
            variables, and Hessian-vector products above. An objective within bounds: `TRON`, the
            same there. With constraints: `InteriorPoint`, above 1,000 variables
            `AugmentedLagrangian`. With a non-smooth term: `ProximalNewton`, above 200 variables
            `ProximalLBFGS`. Reasons are in `jaxopt_lite/solvers/default.py`.
        tol: CONVERGED means that every unscaled residual (infinity norm) is at most `tol`: that of
            stationarity, ||grad L||_inf, or of a subgradient of the objective with its non-smooth
            term, and those of the constraints. None: sqrt(eps), 1.5e-8 in
            float64 and 3.5e-4 in float32.
        max_steps: steps before giving up with MAX_STEPS. None: 10,000.
        history: True keeps value and residuals of every step; "x" the iterates as well.
        progress: show a bar (with `tqdm`) or lines (without). Costs nothing when False.
        differentiate: "implicit": derivatives by the implicit function theorem, in `args` and in
            values the functions close over, in forward and reverse mode and to any order, at the
            cost of one linear solve and memory that does not depend on the number of steps. An
            `Implicit(...)` chooses the linear solver. "unrolled": through the steps; needs
            `max_steps`. Derivatives of an answer that is not CONVERGED are NaN with "implicit".

    Works inside `jit`, `vmap`, `grad` and `scan`. `x0` gets a zero derivative with "implicit": the
    answer does not move with the start.

    Raises TypeError or ValueError for bad input, naming argument, got, expected and way out; what
    shows only at run time inside `jit` ends in `Solution.status`.

    """
    check.is_problem(problem)
    check.args_tuple(args)
    check.options(tol, max_steps, history, differentiate)
    warm = isinstance(x0, (Point, Solution))
    start = Point(x0.x, x0.multipliers) if warm else Point(x0)
    start = start._replace(x=check.start("x0", start.x))
    form = Form.of(start.x)
    solver = solver_for(problem, solver, form.size)
    how = _differentiation(differentiate)
    if how is None and not solver.unrolls(form.size):
        raise ValueError(
            f"differentiate='unrolled' does not pass through {type(solver).__name__} with "
            f"{form.size} variables: its step has a loop of its own, or nothing in it moves with "
            "the data. Pass differentiate='implicit', or another solver, LBFGS() for instance."
        )
    flat, captured = flatten(problem, form, args)
    tol = default_tolerance(form.dtype) if tol is None else tol
    solution = _solve(
        flat,
        form,
        solver,
        start,
        (args, captured),
        tol,
        MAX_STEPS if max_steps is None else int(max_steps),
        history=history,
        progress=progress,
        how=how,
    )
    _refuse_bad_start(problem, solver, solution)
    return solution


# -- the spine, compiled once for each problem and shape -------------------------------------------


def _body(
    problem: FlatProblem,
    form: Form,
    solver: Solver,
    start: Point,
    params: tuple,
    tol: Array,
    max_steps: int | Array,
    *,
    history: bool | str,
    progress: bool,
    how: Implicit | None,
) -> Solution:
    tol = jnp.asarray(tol, form.dtype)
    solver = with_tolerance(with_dtype(solver, form), tol)
    start = flat_start(problem, form, start)
    unrolled = how is None
    fixed = params if unrolled else jax.tree.map(lax.stop_gradient, params)
    start = start if unrolled else jax.tree.map(lax.stop_gradient, start)
    run, report = iterate(
        problem, solver, start, fixed,
        tol=tol if unrolled else lax.stop_gradient(tol), max_steps=max_steps,
        history=history, progress=progress, unrolled=unrolled,
    )  # fmt: skip
    point, value = report.point, report.value
    success = run.status == Status.CONVERGED
    if how is not None:
        finished = success if how.unfinished == "nan" else jnp.ones_like(success)
        point, value = _attach(problem, how, point, value, params, finished)
    aux = None
    if problem.has_aux:
        value_again, aux = problem.value_and_aux(point.x, params)
        if how is None:
            value = value_again + problem.term(params).value(point.x)
    log = run.history
    if log is not None and log.x is not None:
        log = log._replace(x=jax.vmap(form.unravel)(log.x))
    return Solution(
        x=form.unravel(point.x),
        value=value,
        aux=aux,
        multipliers=_shaped(problem, form, point.multipliers),
        status=run.status,
        success=success,
        steps=run.steps,
        residuals=_as_arrays(report.residuals),
        history=log,
        state=run.state,
    )


def _attach(
    problem: FlatProblem, how: Implicit, point: Point, value: Array, params: tuple, finished: Array
) -> tuple[Point, Array]:
    """The answer with its derivatives: of x, of the multipliers and of the value."""
    if problem.kind == "equations":
        x = attach(problem.equations, False, how, point.x, params, finished)
        return Point(x, point.multipliers), attach_value(problem.value, value, x, params, finished)
    if not problem.features:
        x = attach(problem.gradient, True, how, point.x, params, finished)
        return Point(x, point.multipliers), attach_value(problem.value, value, x, params, finished)
    if problem.features == {"nonsmooth"} and point.multipliers.eq is not None:
        n, both = point.x.shape[0], jnp.concatenate([point.x, point.multipliers.eq])
        both = attach(problem.primal_dual, False, how, both, params, finished)
        point = Point(both[:n], Multipliers(both[n:]))
        return point, attach_value(problem.split_lagrangian, value, both, params, finished)
    if problem.features == {"nonsmooth"}:
        x = _attach_fixed_point(problem, how, point.x, params, finished)
        return Point(x), attach_value(problem.total, value, x, params, finished)
    eq, ineq, lower, upper = point.multipliers
    parts = [part for part in (point.x, eq, ineq) if part is not None]
    vector = parts[0] if len(parts) == 1 else jnp.concatenate(parts)
    vector = attach(problem.kkt, False, how, vector, params, finished)
    x, (eq, ineq, _, _) = problem.split(vector, params)
    if problem.bounds is not None:
        zero = jnp.zeros_like(x)
        sides = tuple(zero if side is None else side for side in (lower, upper))
        sides = follow(problem.bound_prices, sides, vector, params)
        lower = None if lower is None else sides[0]
        upper = None if upper is None else sides[1]
    point = Point(x, Multipliers(eq, ineq, lower, upper))
    return point, attach_value(problem.lagrangian, value, point, params, finished)


def _attach_fixed_point(
    problem: FlatProblem, how: Implicit, x: Array, params: tuple, finished: Array
) -> Array:
    """X with the derivative of the proximal fixed point x = prox(u), u = x - grad f(x).

    By a factorisation from the equation in x; matrix-free from the one in u, whose system
    J (I - J) + J H J is symmetric, and for the l1 norm the Hessian on the support: conjugate
    gradients take at most about as many products as that has entries.
    """
    if not how.is_symmetric(x.shape[0]):
        return attach(problem.fixed_point, False, how, x, params, finished)
    u = lax.stop_gradient(x - problem.gradient(x, params))
    u = attach(problem.normal_map, True, how, u, params, finished)
    return follow(problem.backward, x, u, params)


def _shaped(problem: FlatProblem, form: Form, multipliers: Multipliers) -> Multipliers:
    """Multipliers in the shapes of what they belong to."""
    eq, ineq, lower, upper = multipliers

    def like(fun: Any, price: Array | None) -> Array | None:
        if price is None or fun is None:  # the dual variable of a non-smooth term has no function
            return price
        return price.reshape(fun.jaxpr.outvars[0].aval.shape)

    sides = (None if side is None else form.unravel(side) for side in (lower, upper))
    return Multipliers(like(problem.eq, eq), like(problem.ineq, ineq), *sides)


def _as_arrays(residuals: Residuals) -> Residuals:
    """The residuals of what a problem does not have, 0.0 so far, as arrays too.

    Computed from the stationarity: an output that is a constant makes the CPU runtime start a
    second thread, 40 us a call.
    """
    worst = next(r for r in residuals if not isinstance(r, float))
    zero = choose(worst < 0, worst, jnp.zeros_like(worst))
    return jax.tree.map(lambda r: zero if isinstance(r, float) else r, residuals)


_compiled = jax.jit(_body, static_argnums=(0, 1), static_argnames=("history", "progress", "how"))
_compiled_fixed_length = jax.jit(
    _body, static_argnums=(0, 1, 6), static_argnames=("history", "progress", "how")
)


def _solve(*operands: Any, history: bool | str, progress: bool, how: Implicit | None) -> Solution:
    """`max_steps` is a number in the program, unless the length of a buffer depends on it."""
    fixed_length = bool(history) or how is None
    run = _compiled_fixed_length if fixed_length else _compiled
    return run(*operands, history=history, progress=progress, how=how)


def solver_for(problem: Problem, solver: Solver | None, size: int) -> Solver:
    """The solver given, or the default for the problem; TypeError if it does not fit."""
    if solver is None:
        assert _choose is not None, "importing jaxopt_lite registers a default"
        solver = _choose(problem, size)
    if not isinstance(solver, Solver):
        given = solver.__name__ if isinstance(solver, type) else repr(solver)
        hint = f" Write `{given}()`." if isinstance(solver, type) else ""
        raise TypeError(
            f"`solver` must be a solver instance or None, but {given} came.{hint} "
            f"There are: {', '.join(TABLE)}."
        )
    require_accepts(solver, problem)
    return solver


def _differentiation(differentiate: str | Implicit) -> Implicit | None:
    """The `Implicit` to use, None for unrolled."""
    if isinstance(differentiate, Implicit):
        return differentiate
    if differentiate not in MODES:
        raise ValueError(
            f"`differentiate` must be one of {', '.join(MODES)} or an `Implicit(...)`, but "
            f"{differentiate!r} came."
        )
    return Implicit() if differentiate == "implicit" else None


def _refuse_bad_start(problem: Problem, solver: Solver, solution: Solution) -> None:
    """Outside of transformations, an objective that is not finite at `x0` is an error.

    So is whatever else the solver finds wrong with what it was given.
    """
    if isinstance(solution.status, jax.core.Tracer):
        return
    status = np.asarray(solution.status)
    if status.ndim or status == Status.CONVERGED:
        return
    if (complaint := solver.complaint(solution.state)) is not None:
        raise ValueError(complaint)
    if status == Status.NONFINITE and int(solution.steps) == 1:
        if problem.kind == "equations":
            raise ValueError(
                "`fun` or its Jacobian is not finite at the start: the largest |fun| there is "
                f"{float(solution.residuals.primal)}. Start where `fun` is defined, or guard its "
                "domain (a `log` of 0 and a `sqrt` at 0 are the usual causes)."
            )
        raise ValueError(
            f"`objective` or its gradient is not finite at `x0`: the value there is "
            f"{float(solution.value)} and the largest |gradient| "
            f"{float(solution.residuals.stationarity)}. Start where the objective is defined, or "
            "guard its domain (a `log` of 0 and a `sqrt` at 0 are the usual causes)."
        )
