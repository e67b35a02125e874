"""What a solver is: `init`, `step`, `report`, a list of what it accepts, and a row in the table.

    @solver(accepts=())
    class Name(Solver):
        step_size: ArrayLike = 0.1                    # numbers are leaves: sweep them by vmap
        update: Callable = static(default=...)        # everything else is static

        def init(self, problem, point, args): ...     # -> state
        def step(self, problem, state, args): ...     # -> state, its trees and dtypes unchanged

Authors write for one flat vector x. Called by a user on a pytree, `init` and `step` ravel it and
hand back a `Stepping` whose `point` has the user's structure; that is what `_public` below does.
"""

import dataclasses
import functools
import typing
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from ..linalg import Form, as_pytree, static
from . import check
from .problem import FEATURES, Problem
from .tracing import FlatProblem, flatten
from .types import Multipliers, Point, Report

PyTree = Any
S = typing.TypeVar("S", bound="Solver")
TABLE: dict[str, type["Solver"]] = {}  # every public solver by its name, in order of definition


class Solver:
    """Base of all solvers; see the module docstring for what to write in a new one."""

    accepts: ClassVar[frozenset[str]] = frozenset()  # of eq, ineq, bounds, nonsmooth
    kinds: ClassVar[tuple[str, ...]] = ("objective", "composite", "least squares")  # of `KINDS`

    def init(self, problem: Any, point: Point, args: Any) -> Any:
        """The state before the first step; it evaluates nothing."""
        raise NotImplementedError

    def step(self, problem: Any, state: Any, args: Any) -> Any:
        """The next state; the structure and dtypes are those of `state`."""
        raise NotImplementedError

    def unrolls(self, size: int) -> bool:
        """Whether reverse mode passes through `step` with `size` variables: no loops of its own."""
        return True

    def report(self, problem: Any, state: Any, args: Any) -> Report:
        """What was measured and where. This default measures anew: solvers that know, say."""
        value = problem.value(state.point.x, args)
        return Report(state.point, value, problem.residuals(state.point, args))

    def complaint(self, state: Any) -> str | None:
        """What is wrong with the input, if `state` shows it; asked outside of transformations."""
        return None


@typing.dataclass_transform(frozen_default=True, field_specifiers=(static,))
def solver(accepts: Iterable[str] = ()) -> Callable[[type[S]], type[S]]:
    """Make a class a solver: frozen dataclass, pytree of its numbers, row in `TABLE`."""
    unknown = set(accepts) - set(FEATURES)
    if unknown:
        raise ValueError(f"accepts={sorted(unknown)} is unknown; expected some of {FEATURES}.")

    def make(cls: type[S]) -> type[S]:
        cls.accepts = frozenset(accepts)
        cls.init = _public(cls.init, _init)  # type: ignore[method-assign]
        cls.step = _public(cls.step, _step)  # type: ignore[method-assign]
        cls = dataclasses.dataclass(frozen=True, eq=True)(cls)
        TABLE[cls.__name__] = as_pytree(cls)
        return cls

    return make


def require_accepts(solver: Solver, problem: Problem) -> None:
    """Refuse a problem that `solver` could solve only in part, naming solvers that do."""
    _require_kind(solver, problem)
    missing = problem.features - solver.accepts
    if not missing:
        return
    name, what = type(solver).__name__, " and ".join(sorted(missing))
    able = [n for n, row in TABLE.items() if _suits(row, problem)]
    way_out = (
        f"Solvers that do: {', '.join(able)}."
        if able
        else "No solver of this version does; `jol.implicit.custom_root` takes one of your own."
    )
    raise TypeError(f"{name} takes no {what}, but this problem has {what}. {way_out}")


def _suits(row: type[Solver], problem: Problem) -> bool:
    return problem.features <= row.accepts and problem.kind in row.kinds


_POSE = {
    "objective": "`Problem(objective)`",
    "composite": "`Problem(Composite(inner, outer))`",
    "least squares": "`least_squares(residual, x0)`",
    "equations": "`root(fun, x0)` or `Problem(None, eq=fun)`",
}


def _require_kind(solver: Solver, problem: Problem) -> None:
    if problem.kind in solver.kinds:
        return
    name, theirs = type(solver).__name__, " or ".join(solver.kinds)
    able = ", ".join(n for n, row in TABLE.items() if _suits(row, problem)) or "none yet"
    poses = " or ".join(_POSE[kind] for kind in solver.kinds)
    raise TypeError(
        f"{name} solves problems of the kind {theirs}, but this one is of the kind {problem.kind}. "
        f"Pose it as {poses}, or take a solver for {problem.kind}: {able}."
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Stepping:
    """A solver's state between steps taken by hand; `point` has the structure of the user's x."""

    state: Any
    form: Form = static()

    @property
    def point(self) -> Point:
        """The current iterate."""
        point = self.state.point
        return point._replace(x=self.form.unravel(point.x))


def _public(method: Callable, outside: Callable) -> Callable:
    """`method` for flat problems, `outside` for those of a user; wrapped only once."""
    if getattr(method, "_is_public", False):
        return method

    @functools.wraps(method)
    def wrapper(self, problem, state, args=()):
        if isinstance(problem, FlatProblem):
            return method(self, problem, state, args)
        return outside(method, self, problem, state, args)

    wrapper._is_public = True  # type: ignore[attr-defined]
    return wrapper


def _init(method, solver, problem, point, args):
    check.is_problem(problem)
    check.args_tuple(args)
    require_accepts(solver, problem)
    point = point if isinstance(point, Point) else Point(point)
    x = check.start("point.x", point.x)
    form = Form.of(x)
    flat, captured = flatten(problem, form, args)
    start = flat_start(flat, form, point._replace(x=x))
    state = method(with_dtype(solver, form), flat, start, (args, captured))
    return Stepping(state, form)


def _step(method, solver, problem, stepping, args):
    if not isinstance(stepping, Stepping):
        raise TypeError(
            f"{type(solver).__name__}.step takes the state that its `init` or `step` returned, but "
            f"a {type(stepping).__name__} came."
        )
    check.args_tuple(args)
    form = stepping.form
    flat, captured = flatten(problem, form, args)
    state = method(with_dtype(solver, form), flat, stepping.state, (args, captured))
    return Stepping(state, form)


def flat_start(problem: FlatProblem, form: Form, start: Point) -> Point:
    """The start of a flat problem; multipliers of what the problem does not have are left out."""
    eq, ineq, lower, upper = start.multipliers

    def rows(name: str, fun: Any, price: PyTree) -> Array | None:
        if fun is None or price is None:
            return None
        price = jnp.ravel(jnp.asarray(price, form.dtype))
        if price.shape != (count := (fun.jaxpr.outvars[0].aval.size,)):
            raise ValueError(
                f"`x0.multipliers.{name}` must have an entry for each of the {count[0]} entries of "
                f"`{name}`, but has {price.size}. Pass the solution of a problem of this shape, or "
                "only its `x`."
            )
        return price

    sides = (None if side is None else form.ravel(side) for side in (lower, upper))
    prices = Multipliers(rows("eq", problem.eq, eq), rows("ineq", problem.ineq, ineq), *sides)
    return Point(form.ravel(start.x), prices)


def with_dtype(solver: Solver, form: Form) -> Solver:
    """The solver with its numbers in the dtype of x, so that states keep theirs."""

    def cast(leaf):
        leaf = jnp.asarray(leaf)
        return leaf.astype(form.dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(cast, solver)


def with_tolerance(solver: S, tol: Array) -> S:
    """The solver with its own `tol`, if it has one that was left open."""
    if not hasattr(solver, "tol") or solver.tol is not None:
        return solver
    return dataclasses.replace(solver, tol=tol)  # type: ignore[type-var]  # all solvers are dataclasses
