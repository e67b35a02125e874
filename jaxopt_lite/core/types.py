"""What flows through the spine: points, multipliers, residuals, statuses, reports, solutions.

All are pytrees of arrays, so they pass through `jit` and `vmap`; in a batch, one entry a lane.
"""

import dataclasses
import enum
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..linalg import norm_inf

PyTree = Any


class Multipliers(NamedTuple):
    """Lagrange multipliers; a field is None where the problem has no such constraint.

    L = f + eq . eq(x) + ineq . ineq(x) + upper . (x - upper) + lower . (lower - x);
    the last three are >= 0 at a KKT point.
    """

    eq: PyTree = None
    ineq: PyTree = None
    lower: PyTree = None
    upper: PyTree = None


class Point(NamedTuple):
    """A primal-dual iterate: the variables and the multipliers that go with them."""

    x: PyTree
    multipliers: Multipliers = Multipliers()


def apart(price: Array, slack: Array) -> Array:
    """How far from complementary: the larger of max |price * slack| and max min(|price|, |slack|).

    A product of 1e-6 may hide two factors of 1e-3, neither of them 0; the lesser of two factors
    of 1e-6, that the other is 1e6. 0 if and only if one of every pair is.
    """
    price, slack = jnp.abs(price), jnp.abs(slack)
    return norm_inf(jnp.maximum(price * slack, jnp.minimum(price, slack)))


class Residuals(NamedTuple):
    """Infinity norms of the optimality conditions at a point, unscaled; all 0 at a KKT point.

    stationarity ||grad_x L||, primal max violation of the constraints, dual max violation of the
    signs of the multipliers, complementarity `apart(multiplier, slack)`.
    """

    stationarity: Array | float
    primal: Array | float
    dual: Array | float
    complementarity: Array | float

    @classmethod
    def unconstrained(cls, gradient: Array) -> "Residuals":
        """The residuals where there are no constraints: only the gradient counts."""
        return cls(norm_inf(gradient), 0.0, 0.0, 0.0)

    @classmethod
    def equations(cls, value: Array) -> "Residuals":
        """The residuals of eq(x) = 0 alone: how far from zero."""
        return cls(0.0, norm_inf(value), 0.0, 0.0)

    def worst(self) -> Array:
        """The largest of the four. NaN if any is."""
        measured = [r for r in self if not (isinstance(r, float) and r == 0)]
        return functools.reduce(jnp.maximum, [jnp.asarray(r) for r in measured or (0.0,)])


class Status(enum.IntEnum):
    """How a solve ended. Inside `jit` it is an int32 array, one entry a lane; compare with `==`."""

    message: str

    def __new__(cls, code: int, message: str = "") -> "Status":
        """An int that knows what it means."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.message = message
        return member

    RUNNING = 0, "still running"
    CONVERGED = 1, "converged: every residual is below the tolerance"
    MAX_STEPS = 2, "stopped at max_steps before the residuals were below the tolerance"
    STALLED = 3, "stalled: no further progress is possible in this precision"
    DIVERGED = 4, "diverged: the objective looks unbounded below, or the step is too long"
    NONFINITE = 5, "the objective or its gradient is NaN or infinite"
    PRIMAL_INFEASIBLE = 6, "no feasible point was found, and there is evidence that none exists"
    DUAL_INFEASIBLE = 7, "unbounded below over the feasible set"
    NONCONVEX = 8, "the quadratic form has negative curvature, which this solver does not take"


class Report(NamedTuple):
    """What a solver says of its state: the point it last measured, and what it measured there.

    `settled` is False while the solver has a reason of its own not to stop at `point` although
    its residuals are small (negative curvature, say). `failure` is RUNNING, or the status with
    which the solver gives up. `units`, where the solver has them, are what the verdict divides each
    residual by (1 + ||q||_inf, say), so that the tolerance is relative; None: it is absolute.
    `gap` is the value less the dual value, for solvers that have one.
    """

    point: Point
    value: Array
    residuals: Residuals
    settled: Array | bool = True
    failure: Array | int = Status.RUNNING
    units: Residuals | None = None
    gap: Array | None = None

    def worst(self) -> Array:
        """The largest residual, in its unit if there are any."""
        if self.units is None:
            return self.residuals.worst()
        pairs = zip(self.residuals, self.units, strict=True)
        return Residuals(*(residual / unit for residual, unit in pairs)).worst()


class History(NamedTuple):
    """One row a step, NaN after the last: value (max_steps,), residuals, and `x` on request.

    `gap` is the duality gap, for the solvers of `solve_qp`.
    """

    value: Array
    residuals: Residuals
    x: PyTree = None
    gap: Array | None = None


class SolveError(RuntimeError):
    """Raised by `Solution.raise_for_status` for a solve that did not converge."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Solution:
    """The answer and everything known about how it was reached.

    `x` has the structure of `x0`; `value` is the objective there and `aux` its second output.
    `multipliers` are those of the constraints. `status` is a `Status` code, `success` whether it
    is CONVERGED, `steps` how many steps (for most solvers: evaluations of the objective and its
    gradient) were taken, `residuals` what was measured at `x`. `history` is None unless asked
    for; `state` is the solver's own last state. `x`, `value` and `aux` carry derivatives.
    """

    x: PyTree
    value: Array
    aux: PyTree
    multipliers: Multipliers
    status: Array
    success: Array
    steps: Array
    residuals: Residuals
    history: History | None
    state: PyTree

    def raise_for_status(self) -> "Solution":
        """Return self if every lane converged, else raise `SolveError` saying which did not.

        Needs concrete values: call it outside `jit`, `vmap` and `grad`.
        """
        if isinstance(self.status, jax.core.Tracer):
            raise TypeError(
                "raise_for_status() needs a concrete status, but this one is being traced. Call it "
                "on what the jitted function returns, or test `solution.success` inside."
            )
        codes = np.asarray(self.status)
        if np.all(codes == Status.CONVERGED):
            return self
        if codes.ndim == 0:
            worst = float(self.residuals.worst())
            steps = int(self.steps)
            raise SolveError(
                f"{Status(int(codes)).name} after {steps} steps, worst residual {worst:.3g}: "
                f"{Status(int(codes)).message}."
            )
        first = np.argwhere(codes != Status.CONVERGED)[0].tolist()
        raise SolveError(f"{_tally(codes)}; the first that did not converge is lane {first}.")

    def __str__(self) -> str:
        """A short report a person can read."""
        if isinstance(self.status, jax.core.Tracer):
            return f"Solution(being traced, x={self.x})"
        codes = np.asarray(self.status)
        if codes.ndim:
            steps = np.asarray(self.steps)
            return (
                f"Solution of a batch {codes.shape}: {_tally(codes)}\n"
                f"  steps      median {np.median(steps):g}, most {steps.max()}\n"
                f"  residual   worst {np.max(np.asarray(self.residuals.worst())):.3g}"
            )
        status = Status(int(codes))
        lines = [
            f"{status.name} after {int(self.steps)} steps: {status.message}",
            f"  value          {float(self.value):.10g}",
            f"  stationarity   {float(self.residuals.stationarity):.3g}",
        ]
        for name in ("primal", "dual", "complementarity"):
            if any(m is not None for m in self.multipliers) or getattr(self.residuals, name) > 0:
                lines.append(f"  {name:<14} {float(getattr(self.residuals, name)):.3g}")
        lines.append(f"  x              {_short(self.x)}")
        return "\n".join(lines)


def _tally(codes: np.ndarray) -> str:
    """'998 CONVERGED, 2 MAX_STEPS'."""
    values, counts = np.unique(codes, return_counts=True)
    order = np.argsort(-counts)
    return ", ".join(f"{counts[i]} {Status(int(values[i])).name}" for i in order)


def _short(tree: PyTree) -> str:
    """A pytree of arrays on a few lines, long ones abbreviated."""
    with np.printoptions(precision=6, threshold=12, edgeitems=3, linewidth=88):
        return str(jax.tree.map(np.asarray, tree)).replace("\n", "\n" + " " * 17)
