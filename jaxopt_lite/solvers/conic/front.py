"""`solve_qp` and `solve_lp`: check -> iterate -> the active set -> attach the derivative.

The answer is measured anew from the arrays before anything is said of it.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from ...core import (
    Multipliers,
    Point,
    QuadraticProgram,
    Report,
    Residuals,
    Solution,
    Status,
    check,
    default_tolerance,
    iterate,
)
from ...core.implicit import attach_value
from ...core.iterate import Run
from ...core.program import checked, is_dense
from ...core.solver import with_tolerance
from ...core.stopping import verdict
from ...linalg import choose, once
from .base import PROGRAM_SOLVERS, ProgramSolver, Proof, units_at, worst_at
from .derivative import attach, joined, parted, slack_rows
from .first_order import PDHG
from .interior import InteriorState, ProximalInteriorPoint, center, polish
from .system import Vectors

DENSE_UP_TO = 2000  # variables, for the solver that factorises
MAX_STEPS = {True: 200, False: 20_000}  # by whether the solver factorises


class ProgramState(NamedTuple):
    """What `Solution.state` says of a program: which rows bind, what proves that none is optimal.

    `active` has the structure of the multipliers, without that of the equations.
    """

    active: Multipliers
    proof: Proof
    solver: Any


def solve_qp(
    P: Any,
    q: ArrayLike,
    A: Any = None,
    b: ArrayLike | None = None,
    G: Any = None,
    h: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    *,
    solver: ProgramSolver | None = None,
    warm: Solution | Point | None = None,
    tol: ArrayLike | None = None,
    max_steps: int | None = None,
    history: bool | str = False,
    progress: bool = False,
    relax: ArrayLike | None = None,
) -> Solution:
    """Minimise 1/2 x'Px + q'x subject to Ax = b, Gx <= h, lower <= x <= upper.

    Args:
        P: (n, n) positive semidefinite; its symmetric part is used. None: a linear program.
        q: (n,).
        A: (m, n), of any rank.
        b: (m,).
        G: (p, n).
        h: (p,), inf where a row is not there.
        lower: (n,) or a scalar, -inf where there is no bound.
        upper: likewise, inf where there is none.
        solver: `ProximalInteriorPoint` for arrays of up to 2,000 variables, else `PDHG`, which
            takes arrays, `BCOO` and anything with `shape`, `@` and `T`.
        warm: where to start, a `Solution` or a `Point`. If the same constraints bind in the new
            program, one factorisation solves it.
        tol: CONVERGED means stationarity and violations at most `tol`, products of multipliers and
            slacks and the duality gap at most tol (1 + |value|). `PDHG` takes the first two
            relative to the data. None: sqrt(eps), 1.5e-8 in float64, 3.5e-4 in float32; for `PDHG`
            1e-4.
        max_steps: None: 200, and 20,000 for `PDHG`, each of 64 iterations.
        history: True keeps value, residuals and duality gap of every step.
        progress: show a bar.
        relax: mu > 0: derivatives are those of the point on the central path where products of
            multipliers and slacks are mu, in place of those of the answer. They are smooth where
            the active set changes, and do not vanish at the vertices of a linear program.

    Returns a `Solution`; `multipliers` as in `Problem`; `state.active` says which rows bind;
    `state.proof` holds a Farkas ray if PRIMAL_INFEASIBLE, a direction along which the value falls
    for ever if DUAL_INFEASIBLE, one of negative curvature if NONCONVEX. x, value and multipliers
    have derivatives of any order in every array, at less than half the cost of a solve. Where
    they are not unique: a row that binds weakly counts as binding or not as its price or its slack
    was the larger on the way, one element of the generalised Jacobian; a singular system is solved
    in the least-squares sense.

    Raises TypeError or ValueError for what is no program; see `core/program.py`.

    """
    given: Any = (P, q, A, b, G, h, lower, upper)
    program = checked(QuadraticProgram(*given))
    check.options(tol, max_steps, history, "implicit")
    dense = is_dense(program)
    small = dense and program.q.shape[0] <= DENSE_UP_TO
    solver = _solver(solver, dense, small)
    if relax is not None:
        check.number("`relax`", relax, 0.0, strict=True, way_out="None differentiates the answer.")
        if not isinstance(solver, ProximalInteriorPoint):
            raise ValueError("`relax` needs `ProximalInteriorPoint`, but `PDHG` came.")
    dtype = program.q.dtype
    exact = isinstance(solver, ProximalInteriorPoint)
    if tol is None:
        tol = default_tolerance(dtype) if exact else max(1e-4, default_tolerance(dtype))
    steps = MAX_STEPS[exact] if max_steps is None else int(max_steps)
    warm = warm if warm is None else _point(warm, program)
    if warm is not None and isinstance(solver, ProximalInteriorPoint):
        solver = dataclasses.replace(solver, warm=True)
    relax = None if relax is None else jnp.asarray(relax, dtype)
    operands = (program, solver, warm, jnp.asarray(tol, dtype), relax, steps)
    run = _with_rows if history else _compiled
    return run(*operands, history=history, progress=progress)


def solve_lp(
    c: ArrayLike,
    A: Any = None,
    b: ArrayLike | None = None,
    G: Any = None,
    h: ArrayLike | None = None,
    lower: ArrayLike | None = None,
    upper: ArrayLike | None = None,
    **options: Any,
) -> Solution:
    """Minimise c'x subject to Ax = b, Gx <= h, lower <= x <= upper: `solve_qp` without P.

    x is free where it has no bounds; write `lower=0.0` for the standard form. `options` are those
    of `solve_qp`. At a vertex x does not move with c: `relax` gives a derivative to learn from.
    """
    if c is None:
        raise TypeError("`c` must be an array (n,), but None came.")
    return solve_qp(None, c, A, b, G, h, lower, upper, **options)


def _solver(solver: Any, dense: bool, small: bool) -> ProgramSolver:
    if solver is None:
        return ProximalInteriorPoint() if small else PDHG()
    if not isinstance(solver, ProgramSolver):
        given = solver.__name__ if isinstance(solver, type) else repr(solver)
        hint = f" Write `{given}()`." if isinstance(solver, type) else ""
        raise TypeError(
            f"`solver` must be None or one of {', '.join(PROGRAM_SOLVERS)}, but {given} came.{hint}"
        )
    if isinstance(solver, ProximalInteriorPoint) and not dense:
        raise TypeError(
            "ProximalInteriorPoint factorises arrays, but a sparse matrix or an operator came. "
            "Take `PDHG()`, or make it an array with `.todense()`."
        )
    return solver


def _point(warm: Solution | Point, program: QuadraticProgram) -> Point:
    """The start as a point with every multiplier that the program has."""
    if not isinstance(warm, (Solution, Point)):
        raise TypeError(
            f"`warm` must be a Solution or a Point(x, multipliers), but a {type(warm).__name__} "
            "came."
        )
    blank = _nothing(program, 0.0)
    given = [warm.x, *warm.multipliers]
    like = [blank.x, *blank.multipliers]
    for name, have, want in zip(("x", *Multipliers._fields), given, like, strict=True):
        shapes = [None if part is None else jnp.shape(part) for part in (have, want)]
        if shapes[0] != shapes[1] and have is not None:
            raise ValueError(
                f"`warm` has {name} of shape {shapes[0]}, but the program has {shapes[1]}."
            )
    filled = [want if have is None else have for have, want in zip(given, like, strict=True)]
    filled = [None if p is None else jnp.asarray(p, blank.x.dtype) for p in filled]
    return Point(filled[0], Multipliers(*filled[1:]))


def _nothing(program: QuadraticProgram, fill: float) -> Point:
    """A point of the program's shapes."""
    x = jnp.full_like(program.q, fill)
    sides = (program.b, program.h, program.lower, program.upper)
    return Point(x, Multipliers(*(None if s is None else jnp.zeros_like(s) for s in sides)))


def finish(
    program: QuadraticProgram,
    solver: ProgramSolver,
    warm: Point | None,
    tol: Array,
    max_steps: int | Array,
    *,
    history: bool | str = False,
    progress: bool = False,
) -> tuple[Run, Report, tuple]:
    """Iterate, and sharpen what comes out: no checks and no derivatives.

    The third is what derivatives need: the rows that bind, and the factors of an exact solver.
    """
    exact = isinstance(solver, ProximalInteriorPoint)
    start = _nothing(program, jnp.nan if exact else 0.0) if warm is None else warm
    run, report = iterate(
        None, solver, start, program, tol=tol, max_steps=max_steps, history=history,
        progress=progress,
    )  # fmt: skip
    if not exact:
        return run, report, (_binding(joined(report.point), program), None, None)
    seen, inner = _sharpened(run.state, program, report.point, tol)
    report = seen.report(tol, run.status)
    return run._replace(status=verdict(report, tol, jnp.array(False))), report, inner


def _body(
    program: QuadraticProgram,
    solver: ProgramSolver,
    warm: Point | None,
    tol: Array,
    relax: Array | None,
    max_steps: int | Array,
    *,
    history: bool | str,
    progress: bool,
) -> Solution:
    still = jax.tree.map(lax.stop_gradient, program)
    solver = with_tolerance(solver, tol)
    warm = jax.tree.map(lax.stop_gradient, warm)
    run, report, inner = finish(
        still, solver, warm, tol, max_steps, history=history, progress=progress
    )
    point, status = report.point, run.status
    found, finished = joined(point), status == Status.CONVERGED

    answer = attach(False, found, program, inner, finished)
    if relax is not None:
        scaled = run.state.scaled
        path, system = center(scaled, scaled.vectors(point), relax, run.state.whole)
        central = joined(scaled.point(still, path))
        rows = (scaled.there, scaled, system)
        moving = attach(True, central, program, rows, finished)
        answer = found.plus(moving.minus(jax.tree.map(lax.stop_gradient, moving)))
    point = parted(answer, program)
    value = attach_value(_lagrangian, report.value, point, program, finished)
    if relax is not None:
        value = program.value(point.x)
    return Solution(
        x=point.x,
        value=value,
        aux=None,
        multipliers=point.multipliers,
        status=status,
        success=finished,
        steps=run.steps,
        residuals=report.residuals,
        history=run.history,
        state=ProgramState(
            parted(Vectors(found.x, found.y, inner[0]), program).multipliers._replace(eq=None),
            solver.proof(None, run.state, still),
            run.state,
        ),
    )


_compiled = jax.jit(_body, static_argnames=("history", "progress"))
_with_rows = jax.jit(_body, static_argnums=(5,), static_argnames=("history", "progress"))


def _lagrangian(point: Point, program: QuadraticProgram) -> Array:
    pairs = zip(point.multipliers, program.slacks(point.x), strict=True)
    priced = (jnp.vdot(m, s) for m, s in pairs if m is not None)
    return sum(priced, start=program.value(point.x))


def _binding(found: Vectors, program: QuadraticProgram) -> Array:
    """1 for rows whose price is larger than their slack."""
    return (found.z > jnp.maximum(-slack_rows(found.x, program), 0)).astype(found.x.dtype)


class Seen(NamedTuple):
    """A point and what the arrays themselves say of it."""

    point: Point
    value: Array
    gap: Array
    residuals: Residuals

    @classmethod
    def at(cls, point: Point, program: QuadraticProgram) -> "Seen":
        """Measured."""
        return cls(point, program.value(point.x), program.gap(point), program.residuals(point))

    def worst(self) -> Array:
        """The largest residual, complementarity and gap relative to 1 + |value|."""
        return worst_at(self.value, self.gap, self.residuals)

    def report(self, tol: Array, status: Array) -> Report:
        """What is reported of it, where the solver ended with `status`."""
        ended = (status == Status.CONVERGED) | (status == Status.STALLED)
        failure = jnp.where(ended, int(Status.STALLED), status).astype(jnp.int32)
        units = units_at(self.value)
        settled = jnp.abs(self.gap) <= tol * units.complementarity
        return Report(self.point, self.value, self.residuals, settled, failure, units)


def _sharpened(
    state: InteriorState, program: QuadraticProgram, point: Point, tol: Array
) -> tuple[Seen, tuple]:
    """The solution of the equations that bind, if it is one of the program; and their factors."""
    scaled = state.scaled
    here, system, active = polish(scaled, state.best.here, state.whole)
    sharp = scaled.point(program, here._replace(z=jnp.maximum(here.z, 0)))
    x, (_, low, high) = sharp.x, scaled.split(active)
    for binds, side in ((low, program.lower), (high, program.upper)):
        if binds is not None and side is not None:
            x = jnp.where(binds > 0, side, x)
    both = jax.tree.map(lambda *pair: jnp.stack(pair), sharp._replace(x=x), point)
    seen = jax.vmap(Seen.at, in_axes=(0, None))(both, program)
    new, old = jax.vmap(Seen.worst)(seen)
    better = once((new <= tol) | (new <= old))
    first, second = (jax.tree.map(lambda pair, i=i: pair[i], seen) for i in (0, 1))
    return choose(better, first, second), (active, scaled, system)
