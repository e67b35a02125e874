r"""How the optimum moves when the problem does: prices, slopes, and how far they hold.

    certificate -> what binds, strongly or weakly, and its multipliers
      -> one linear system (what binds stays met), with signs where something binds weakly
      -> slopes of x, of the multipliers and of the value, the bend of the value
      -> how far until a multiplier or a slack runs out

Legend: d the slope of x along a change, A the Jacobian of what binds, H the Hessian of the
Lagrangian L, Z the tangent space of what binds strongly, r the slopes of the constraints at fixed x
and b that of grad L.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Multipliers, Point, Problem, Solution, check
from ..core.tracing import FlatProblem, flatten
from ..linalg import Form, choose, least_norm, non_negative_least_squares
from .kkt import DENSE_LIMIT, ConstraintReport, examine
from .stacking import flattened, shaped, sizes_of, split, stack

PyTree = Any
NAMES = ("eq", "ineq", "lower", "upper")
MOST_LINES = 10  # of constraints, in a report


class Expansion(NamedTuple):
    """The optimum along `args + t change`, for t >= 0: to second order the value, else to first.

    It holds for `lowest` <= t <= `highest`, to first order: beyond, a constraint begins or ceases
    to bind. `lowest` is 0 where a constraint binds weakly: slopes are then one-sided.
    """

    x: PyTree
    value: Array
    multipliers: Multipliers
    x_slope: PyTree
    multipliers_slope: Multipliers
    value_slope: Array
    value_bend: Array
    lowest: Array
    highest: Array

    def at(self, t: ArrayLike) -> tuple[PyTree, Array, Multipliers]:
        """The predicted x, value and multipliers."""
        line = lambda a, b: a + t * b
        value = self.value + t * self.value_slope + 0.5 * t * t * self.value_bend
        x = jax.tree.map(line, self.x, self.x_slope)
        return x, value, jax.tree.map(line, self.multipliers, self.multipliers_slope)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Shadow prices and derivatives of an optimum, with what makes them valid.

    Args:
        value: f at the optimum.
        multipliers: the price of each constraint, in its shape: relaxed by t (eq(x) = t,
            ineq(x) <= t, x >= lower - t, x <= upper + t), the value falls by price * t.
        bend: the second derivative of the value in t, for each constraint.
        lowest: the t, at most 0, to which what binds stays the same, for each constraint alone and
            to first order.
        highest: the same for t at least 0.
        gradient: d value / d args by the envelope theorem, None for what is not floating.
        expansion: the `Expansion` along the `change` that was asked for, else None.
        strict: strict complementarity: nothing binds weakly. Where it fails, derivatives are
            one-sided, and so is each `bend` NaN and each range 0.
        unique: LICQ holds, so multipliers are unique. Where it fails, these are of those given, or
            of least norm, and the slope of the value may be another along each side of a change.
        valid: a KKT point whose Hessian of the Lagrangian is positive definite on the tangent
            space, so that the optimum moves continuously. All derivatives are NaN where it is not.

    """

    value: Array
    multipliers: Multipliers
    bend: Multipliers
    lowest: Multipliers
    highest: Multipliers
    gradient: PyTree
    expansion: Expansion | None
    strict: Array
    unique: Array
    valid: Array

    def __str__(self) -> str:
        """A short report a person can read."""
        if isinstance(self.valid, jax.core.Tracer):
            return "Sensitivity(being traced)"
        if np.ndim(self.valid):
            return f"Sensitivities {np.shape(self.valid)}: {int(np.sum(self.valid))} valid"
        return "\n".join(_report(self))


def sensitivity(
    problem: Problem,
    solution: Solution | PyTree,
    args: tuple = (),
    change: tuple | None = None,
    multipliers: Multipliers | None = None,
    *,
    tol: ArrayLike | None = None,
) -> Sensitivity:
    r"""What an optimum is worth and where it goes: shadow prices, slopes, ranges.

    With everything that binds strongly held, x and the multipliers u move along a change by

        minimise 1/2 d'Hd + b'd   subject to  A d + r = 0  (<= 0 for what binds weakly)

    whose multipliers are the slopes of u; without weakly active constraints that is one linear
    system. The value has the slope dL (envelope theorem) and the bend d2L along (d, change).

    Args:
        problem: the problem; no `nonsmooth` term.
        solution: a `Solution`, or a point x of its own.
        args: tuple of pytrees, those of the solve.
        change: how `args` change, of their structure; `sensitivity(...).expansion` follows
            `args + t change`.
        multipliers: as in `certify`; those of the solution if None, else by least squares.
        tol: as in `certify`.

    What the functions close over does not change; put it into `args`. Works under `jit` and `vmap`.
    Cost O((n + m)^3), m counting both sides of the bounds; above 1,000 variables ValueError. Raises
    TypeError for a `change` that is not like `args`, and as `certify` does.

    Sources: Fiacco (1976); Jittorntrum (1984) without strict complementarity; Bonnans & Shapiro
    (2000), section 5.2.

    """
    check.is_problem(problem)
    if problem.nonsmooth is not None:
        raise TypeError("`sensitivity` covers smooth problems, but a nonsmooth term came.")
    if multipliers is None and isinstance(solution, Solution):
        multipliers = solution.multipliers if problem.features else None
    check.args_tuple(args)
    x = check.start("x", solution.x if isinstance(solution, Solution) else solution)
    form = Form.of(x)
    if form.size > DENSE_LIMIT:
        raise ValueError(
            f"`x` has {form.size} variables; `sensitivity` is dense, for at most {DENSE_LIMIT}. "
            "`jax.jvp` through `solve` is matrix-free."
        )
    if change is not None:
        _check_change(args, change)
    flat, captured = flatten(problem, form, args)
    params = (args, captured)
    _, report, _ = examine(flat, form, x, params, multipliers, tol)
    return _expand(flat, form, x, params, report, change)


def _check_change(args: tuple, change: tuple) -> None:
    """Refuse a change that is not like `args`."""
    ours, theirs = str(jax.tree.structure(args)), str(jax.tree.structure(change))
    shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(tree)] for tree in (args, change)]
    if ours != theirs or shapes[0] != shapes[1]:
        raise TypeError(
            f"`change` must have the structure and shapes of `args`, {ours} with {shapes[0]}, but "
            f"{theirs} with {shapes[1]} came. Use zeros for what does not change."
        )


# -- the system ------------------------------------------------------------------------------------


class _Local(NamedTuple):
    """The problem to second order at the optimum."""

    hessian: Array  # H (n, n)
    rows: Array  # Jacobian of all constraints (k, n)
    values: Array  # (k,)
    price: Array  # (k,)
    strong: Array  # (k,)
    weak: Array  # (k,)
    signed: np.ndarray  # (k,), inequalities and bounds


@functools.partial(jax.jit, static_argnums=(0, 1))
def _expand(
    problem: FlatProblem, form: Form, x: PyTree, params: tuple, report: ConstraintReport, change
) -> Sensitivity:
    x = form.ravel(x)
    dtype = x.dtype
    slacks = problem.slacks(x, params)
    sizes = sizes_of(slacks)
    flags = lambda part: stack(flattened(part, form, sizes, dtype)) > 0
    price = stack(flattened(report.multipliers, form, sizes, dtype))
    strong, active = flags(report.strong), flags(report.active)
    point = Point(x, split(price, sizes))
    rows = lambda y: stack(problem.slacks(y, params))
    slope = jax.grad(lambda y: problem.lagrangian(point._replace(x=y), params))
    signed = np.arange(price.size) >= sizes[0]
    local = _Local(
        jax.jacfwd(slope)(x), jax.jacfwd(rows)(x), rows(x), price, strong, active & ~strong, signed
    )
    h, q = report.hessian, report.qualification
    valid = report.feasible & report.stationary & (h.positive == h.dimension)
    strict = ~jnp.any(local.weak)
    told = lambda a: jnp.where(valid, a, jnp.nan)
    frame = _frame(local)
    bend, lowest, highest = (
        shaped(problem, form, told(part), sizes) for part in _ranges(local, frame, strict)
    )
    expansion = None
    if change is not None:
        expansion = _along(problem, form, point, params, change, local, frame, sizes, strict)
        expansion = jax.tree.map(told, expansion)
    return Sensitivity(
        value=report.value,
        multipliers=report.multipliers,
        bend=bend,
        lowest=lowest,
        highest=highest,
        gradient=jax.tree.map(told, _envelope(problem, point, params)),
        expansion=expansion,
        strict=strict,
        unique=q.licq,
        valid=valid,
    )


def _envelope(problem: FlatProblem, point: Point, params: tuple) -> PyTree:
    """The gradient of the Lagrangian in the floating leaves of args."""
    args, captured = params
    leaves, treedef = jax.tree.flatten(args)
    moves = [jnp.issubdtype(jnp.result_type(leaf), jnp.floating) for leaf in leaves]

    def value(floating):
        parts = iter(floating)
        merged = [next(parts) if m else leaf for m, leaf in zip(moves, leaves, strict=True)]
        return problem.lagrangian(point, (jax.tree.unflatten(treedef, merged), captured))

    slopes = iter(
        jax.grad(value)([jnp.asarray(v) for v, m in zip(leaves, moves, strict=True) if m])
    )
    return jax.tree.unflatten(treedef, [next(slopes) if m else None for m in moves])


def _moved(params: tuple, change: tuple, t: Array) -> tuple:
    """Args + t change, and what is closed over."""

    def move(leaf, by):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            return leaf
        leaf = jnp.asarray(leaf)
        return leaf + t.astype(leaf.dtype) * jnp.asarray(by, leaf.dtype)

    return jax.tree.map(move, params[0], change), params[1]


def _along(problem, form, point, params, change, local, frame, sizes, strict) -> Expansion:
    """Slopes of x, multipliers and value along a change of args, and the bend of the value."""
    x, dtype = point.x, point.x.dtype
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    at = lambda t: _moved(params, change, t)
    lagrangian = lambda y, t: problem.lagrangian(point._replace(x=y), at(t))
    b = jax.jvp(lambda t: jax.grad(lagrangian)(x, t), (zero,), (one,))[1]
    r = jax.jvp(lambda t: stack(problem.slacks(x, at(t))), (zero,), (one,))[1]
    d, v = _slopes(local, frame, b, r)
    slope = jax.jvp(lambda t: lagrangian(x, t), (zero,), (one,))[1]
    line = lambda t: lagrangian(x + t * d, t)
    bend = jax.jvp(jax.grad(line), (zero,), (one,))[1]
    below, above = _until(local, local.rows @ d + r, v)
    return Expansion(
        x=form.unravel(x), value=problem.value(x, params),
        multipliers=shaped(problem, form, local.price, sizes), x_slope=form.unravel(d),
        multipliers_slope=shaped(problem, form, v, sizes), value_slope=slope, value_bend=bend,
        lowest=jnp.where(strict, below, 0), highest=above,
    )  # fmt: skip


class _Frame(NamedTuple):
    """What solves for the slopes, whatever changes."""

    back: Array  # P (n, k), the pseudo-inverse of the rows that bind strongly
    root: Array  # (n, n), root' root = Z (Z'HZ)^-1 Z'


def _frame(local: _Local) -> _Frame:
    k, n = local.rows.shape
    zt, back = jnp.eye(n, dtype=local.rows.dtype), jnp.zeros((n, k), local.rows.dtype)
    if k:
        held = jnp.where(local.strong[:, None], local.rows, 0)
        lengths = jnp.linalg.norm(held, axis=1)
        lengths = jnp.where(lengths > 0, lengths, 1)
        left, singular, zt = jnp.linalg.svd(held / lengths[:, None], full_matrices=True)
        large = singular > 10 * float(jnp.finfo(held.dtype).eps) ** 0.5
        inverse = jnp.where(large, 1 / jnp.where(large, singular, 1), 0)
        short = large.size
        back = (zt[:short].T * inverse) @ left[:, :short].T / lengths
        tangent = jnp.arange(n, dtype=jnp.int32) >= jnp.sum(large, dtype=jnp.int32)
        zt = jnp.where(tangent[:, None], zt, 0)
    outside = jnp.where(jnp.any(zt != 0, axis=1), 0, 1).astype(zt.dtype)
    values, vectors = jnp.linalg.eigh(zt @ local.hessian @ zt.T + jnp.diag(outside))
    safe = jnp.where(values > 0, values, 1)  # else the answer is not valid
    return _Frame(back, (vectors / jnp.sqrt(safe)).T @ zt)


def _linear(local: _Local, frame: _Frame, b: Array, r: Array) -> tuple[Array, Array]:
    """The slopes with what binds strongly held, the rest ignored; columns for several changes."""
    start = -frame.back @ r
    d = start - frame.root.T @ (frame.root @ (b + local.hessian @ start))
    return d, -frame.back.T @ (local.hessian @ d + b)


def _slopes(local: _Local, frame: _Frame, b: Array, r: Array) -> tuple[Array, Array]:
    """D and the slopes of the multipliers: the quadratic program of `sensitivity`."""
    d, v = _linear(local, frame, b, r)
    if not local.rows.shape[0]:
        return d, v
    # Its dual in what binds weakly: min |E w|^2 / 2 - w'(A d + r) over w >= 0.
    weak = jnp.where(local.weak[:, None], local.rows, 0)
    over = jnp.where(local.weak, local.rows @ d + r, 0)
    e = frame.root @ weak.T
    sizes = jnp.linalg.norm(e, axis=0)
    sizes = jnp.where(sizes > 0, sizes, 1)
    goal = least_norm((e / sizes).T, over / sizes)
    w = non_negative_least_squares(e / sizes, goal, jnp.ones_like(local.weak), local.weak) / sizes
    d = d - frame.root.T @ (e @ w)
    return d, w - frame.back.T @ (local.hessian @ d + b + w @ weak)


def _until(local: _Local, rates: Array, v: Array) -> tuple[Array, Array]:
    """The t <= 0 and t >= 0 at which the first slack, or multiplier of an inequality, runs out."""
    signed = jnp.asarray(local.signed)
    slack = jnp.where(local.strong | local.weak, 0, -local.values)
    idle = signed & ~local.strong & ~local.weak
    held = signed & local.strong
    room = jnp.where(idle, slack, jnp.where(held, jnp.maximum(local.price, 0), jnp.inf))
    use = jnp.where(idle, rates, jnp.where(held, -v, 0))
    noise = 100 * jnp.finfo(rates.dtype).eps * jnp.max(jnp.abs(use), initial=0)
    up = jnp.where(use > noise, room / jnp.where(use > noise, use, 1), jnp.inf)
    down = jnp.where(use < -noise, room / jnp.where(use < -noise, use, -1), -jnp.inf)
    return jnp.max(down, initial=-jnp.inf), jnp.min(up, initial=jnp.inf)


def _ranges(local: _Local, frame: _Frame, strict: Array) -> tuple[Array, Array, Array]:
    """For each constraint relaxed alone: the bend of the value, and how far what binds stays."""
    k = local.values.shape[0]
    if not k:
        return local.values, local.values, local.values
    relaxed = -jnp.eye(k, dtype=local.values.dtype)
    d, v = _linear(local, frame, jnp.zeros_like(local.rows).T, relaxed)
    lowest, highest = jax.vmap(functools.partial(_until, local))((local.rows @ d + relaxed).T, v.T)
    # One that does not bind changes nothing until it does.
    bend = jnp.where(local.strong, -jnp.diagonal(v), 0)
    lowest = jnp.where(local.strong, lowest, local.values)
    highest = jnp.where(local.strong, highest, jnp.inf)
    none = (jnp.full_like(bend, jnp.nan), jnp.zeros_like(bend), jnp.zeros_like(bend))
    return choose(strict, (bend, lowest, highest), none)


# -- the report ------------------------------------------------------------------------------------


def _report(s: Sensitivity) -> list[str]:
    """Validity, then a line for each constraint that binds, then the change."""
    if not bool(s.valid):
        return [
            "NOT VALID: no KKT point with a definite Hessian on the tangent space, so that the "
            "optimum need not move continuously; `certify` says more"
        ]
    flags = [
        (s.strict, "some constraints bind weakly: slopes are one-sided"),
        (s.unique, "LICQ fails: multipliers are not unique, prices may be one-sided"),
    ]
    lines = [f"value {float(s.value):.10g}; what one unit more of each constraint is worth:"]
    lines += [f"  note: {text}" for flag, text in flags if not bool(flag)]
    flat = lambda tree: np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
    shown = 0
    for name in NAMES:
        price = getattr(s.multipliers, name)
        if price is None:
            continue
        columns = [
            flat(getattr(part, name)) for part in (s.multipliers, s.bend, s.lowest, s.highest)
        ]
        for i, (p, bend, low, high) in enumerate(zip(*columns, strict=True)):
            if p == 0 or shown >= MOST_LINES:
                continue
            shown += 1
            lines.append(
                f"  {name}[{i}]: price {p:.6g}, bend {bend:.4g}, as it is for a relaxation from "
                f"{low:.4g} to {high:.4g}"
            )
    if not shown:
        lines.append("  nothing binds at a price")
    if s.expansion is not None:
        e = s.expansion
        lines.append(
            f"along the change: value {float(e.value):.6g} + {float(e.value_slope):.6g} t + "
            f"{0.5 * float(e.value_bend):.6g} t^2, while the same constraints bind: t from "
            f"{float(e.lowest):.4g} to {float(e.highest):.4g}"
        )
    return lines
