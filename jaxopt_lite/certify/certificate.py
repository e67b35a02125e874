"""The certificate: what an answer is worth, recomputed from the problem and the point alone."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Multipliers, Problem, Residuals, Solution, check
from .classify import CriticalPoint, Kind, describe, second_order_report

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Certificate:
    """The optimality conditions at a point, each measured, and the verdict they allow.

    `residuals` are the first-order conditions, `second_order` the `CriticalPoint`, `verdict` its
    `Kind` code. `certified` is True for a strict local minimum: the one verdict that a second-order
    test can prove of a minimiser.
    """

    residuals: Residuals
    second_order: CriticalPoint
    verdict: Array
    certified: Array

    def __str__(self) -> str:
        """A short report a person can read."""
        if isinstance(self.verdict, jax.core.Tracer):
            return "Certificate(being traced)"
        codes = np.asarray(self.verdict)
        if codes.ndim:
            good = int(np.sum(np.asarray(self.certified)))
            return f"Certificates {codes.shape}: {good} certified; {self.second_order}"
        head = "CERTIFIED" if bool(self.certified) else "NOT CERTIFIED as a minimum"
        return f"{head}: " + "\n".join(second_order_report(self.second_order))


def certify(
    problem: Problem,
    solution: Solution | PyTree,
    args: tuple = (),
    multipliers: Multipliers | None = None,
    *,
    tol: ArrayLike | None = None,
    evidence: bool = True,
) -> Certificate:
    """Certify a point of an unconstrained problem, whatever found it.

    The gradient and the exact Hessian are computed anew, and the second-order sufficient condition
    is tested with tolerances that follow the dtype, the scale and the accuracy of the point; see
    `classify`. Nothing is taken from a `Solution` but its x.

    Args:
        problem: the problem, without constraints in this version.
        solution: a `Solution`, or a point x of its own.
        args: tuple of pytrees, those of the solve.
        multipliers: None, as there are no constraints.
        tol: how small the gradient, scaled by curvature, must be; see `classify`.
        evidence: look at higher derivatives and samples where the Hessian is singular.

    Works under `jit` and `vmap`. Raises TypeError for a problem with constraints, ValueError above
    3,000 variables, and as `solve` does for bad input.

    """
    check.is_problem(problem)
    if problem.features or multipliers is not None:
        what = ", ".join(sorted(problem.features)) or "multipliers"
        raise TypeError(
            f"`certify` covers unconstrained problems in this version, but {what} came. "
            "`problem.residuals(Point(x, multipliers), args)` measures the KKT conditions."
        )
    x = solution.x if isinstance(solution, Solution) else solution
    point = describe(problem, x, args, tol=tol, evidence=evidence)
    return Certificate(
        residuals=Residuals(point.gradient_norm, *(3 * (point.gradient_norm * 0,))),
        second_order=point,
        verdict=point.kind,
        certified=point.kind == Kind.STRICT_MINIMUM,
    )
