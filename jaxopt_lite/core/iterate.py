"""The one loop: step a solver until its residuals are small.

    init -> [ step -> report -> status -> history row, progress ] -> state, report, status, steps

The last report is made again after the loop, so that it is not carried. Every solver runs here,
inner solves included. Nothing in this file knows an algorithm.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from .problem import Problem
from .progress import announce
from .solver import Solver
from .stopping import verdict
from .types import History, Point, Report, Status


class Run(NamedTuple):
    """The carry of the loop."""

    state: Any  # the solver's own
    status: Array
    steps: Array
    history: History | None


def iterate(
    problem: Problem | None,
    solver: Solver,
    point: Point,
    args: tuple,
    *,
    tol: Array,
    max_steps: int | Array,
    history: bool | str = False,
    progress: bool = False,
    unrolled: bool = False,
) -> tuple[Run, Report]:
    """Run `solver` from `point` until a status other than RUNNING, at most `max_steps` steps.

    A `while_loop`: reverse-mode derivatives do not pass, memory is one state. With `unrolled`, a
    scan of `max_steps` (then a Python int) whose finished steps do nothing: they do pass.
    `history` needs `max_steps` to be a Python int too, the rows of its buffer.
    """

    def advance(run: Run) -> Run:
        state = solver.step(problem, run.state, args)
        report = _report(solver, problem, state, args)
        steps = run.steps + 1
        status = verdict(report, tol, steps >= max_steps)
        log = _write(run.history, run.steps, report)
        if progress:
            announce(steps, report.value, report.residuals.worst(), status)
        return Run(state, status, steps, log)

    start = _start(problem, solver, point, args, history, max_steps)

    def masked(run: Run, _: None) -> tuple[Run, None]:
        return lax.cond(run.status == Status.RUNNING, advance, lambda same: same, run), None

    if unrolled:  # the backward pass evaluates a step again: memory is one state a step
        end = lax.scan(jax.checkpoint(masked), start, length=int(max_steps))[0]
    else:
        end = lax.while_loop(lambda run: run.status == Status.RUNNING, advance, start)
    return end, _report(solver, problem, end.state, args)


def _start(problem, solver, point, args, history, max_steps) -> Run:
    """The carry before the first step: nothing measured yet."""
    state = solver.init(problem, point, args)
    shapes = jax.eval_shape(lambda s: _report(solver, problem, s, args), state)
    unmeasured = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    report = unmeasured._replace(point=point)
    log = None
    if history:
        rows = {"value": report.value, "residuals": report.residuals}
        if history == "x":
            rows["x"] = point.x
        if report.gap is not None:
            rows["gap"] = report.gap
        dtype = point.x.dtype
        rows = jax.tree.map(lambda leaf: jnp.full((max_steps, *leaf.shape), jnp.nan, dtype), rows)
        log = History(**rows)
    return Run(state, jnp.int32(Status.RUNNING), jnp.int32(0), log)


def _report(solver: Solver, problem: Any, state: Any, args: tuple) -> Report:
    """The solver's report, its failure an array."""
    report = solver.report(problem, state, args)
    code = int(report.failure) if isinstance(report.failure, int) else report.failure
    return report._replace(failure=jnp.asarray(code, jnp.int32))


def _write(history: History | None, row: Array, report: Report) -> History | None:
    """The history with what was measured in `row`."""
    if history is None:
        return None
    x = None if history.x is None else report.point.x
    new = History(report.value, report.residuals, x, report.gap)
    return jax.tree.map(
        lambda buffer, leaf: buffer.at[row].set(jnp.asarray(leaf, buffer.dtype)), history, new
    )
