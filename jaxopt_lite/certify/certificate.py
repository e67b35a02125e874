"""The certificate: what an answer is worth, recomputed from the problem and the point alone."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from ..core import Multipliers, Problem, QuadraticProgram, Residuals, Solution, check
from ..core.program import checked
from ..core.tracing import flatten
from ..linalg import Form
from .classify import CriticalPoint, Kind, describe, second_order_report
from .kkt import DENSE_LIMIT, ConstraintReport, examine
from .nonsmooth import NonsmoothReport, examine_nonsmooth, nonsmooth_lines
from .rays import RayReport, examine_rays

PyTree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Certificate:
    """The optimality conditions at a point, each measured, and the verdict they allow.

    `residuals` are the first-order conditions, unscaled; `verdict` a `Kind` code. `second_order` is
    the `CriticalPoint` of a problem without constraints, else None; `constraints` the
    `ConstraintReport` of one with constraints, `nonsmooth` the `NonsmoothReport` of one with a
    non-smooth term, else None; `rays` the `RayReport` of a program. `certified` is True for a
    strict local minimum: the one verdict that a second-order test can prove of a minimiser.
    """

    residuals: Residuals
    second_order: CriticalPoint | None
    constraints: ConstraintReport | None
    verdict: Array
    certified: Array
    nonsmooth: NonsmoothReport | None = None
    rays: RayReport | None = None

    def __str__(self) -> str:
        """A short report a person can read."""
        if isinstance(self.verdict, jax.core.Tracer):
            return "Certificate(being traced)"
        codes = np.asarray(self.verdict)
        if codes.ndim:
            good = int(np.sum(np.asarray(self.certified)))
            names, counts = np.unique(codes, return_counts=True)
            kinds = (f"{c} {Kind(int(k)).name}" for k, c in zip(names, counts, strict=True))
            return f"Certificates {codes.shape}: {good} certified; {', '.join(kinds)}"
        head = "CERTIFIED" if bool(self.certified) else "NOT CERTIFIED as a minimum"
        if self.nonsmooth is not None:
            return f"{head}: " + "\n".join(nonsmooth_lines(self, _count))
        if (kind := Kind(int(codes))) in (Kind.NO_FEASIBLE_POINT, Kind.UNBOUNDED):
            return "\n".join(_ray_report(self, kind))
        if self.constraints is None:
            assert self.second_order is not None
            return f"{head}: " + "\n".join(second_order_report(self.second_order))
        return f"{head}: " + "\n".join(_constrained_report(self))


def certify(
    problem: Problem | QuadraticProgram,
    solution: Solution | PyTree,
    args: tuple = (),
    multipliers: Multipliers | None = None,
    *,
    tol: ArrayLike | None = None,
    evidence: bool = True,
    floor: ArrayLike | None = None,
) -> Certificate:
    """Certify a point, whatever found it: nothing of a solver but its point is used.

    Without constraints, the gradient and the exact Hessian are computed anew, and the second-order
    sufficient condition is tested with tolerances that follow the dtype, the scale and the accuracy
    of the point; see `classify`.

    With equalities, inequalities and bounds: the multipliers are those of the solution, or given,
    or the least-squares multipliers of the active constraints with their signs; then the KKT
    residuals, which constraints are active and which strongly, LICQ and MFCQ, and the Hessian of
    the Lagrangian reduced to the tangent space Z of the strongly active constraints:

        Z'HZ positive definite   strict local minimum (second-order sufficient condition)
        Z'HZ negative definite   strict constrained maximum, if f rises nowhere inward
        a negative eigenvalue    saddle: no minimum, if its direction is feasible and LICQ holds;
                                 where constraints bind weakly the critical cone decides, by faces
        no multipliers           not a critical point; or, where MFCQ fails too, not decided

    With a non-smooth term g: the distance of -grad f(x) to the subdifferential of g at x, where x
    is at a kink of g and with how much slack, the Hessian of f + g along the active manifold, and a
    duality gap; see `NonsmoothReport`.

    With a program and the `Solution` of `solve_qp`: the rays it comes with are checked against the
    arrays. Where one proves that there is no answer that is the verdict; see `RayReport`.

    Args:
        problem: the problem; not constraints and a `nonsmooth` term at once. Or a
            `QuadraticProgram`, without `args`.
        solution: a `Solution`, or a point x of its own.
        args: tuple of pytrees, those of the solve.
        multipliers: those to be certified with x, for every constraint; signs as in `Multipliers`.
        tol: how small the gradient, scaled by curvature, must be, see `classify`; with constraints
            what counts as feasible (a distance over 1 + ||x||), active and stationary (relative to
            the terms of grad L). None is eps^(3/8) there: 1.3e-6 in float64, 2.5e-3 in float32.
        evidence: without constraints, look at higher derivatives and samples where the Hessian is
            singular.

        floor: a number that the smooth objective is never below, 0 for most losses: with it the
            gap of a problem with a non-smooth term is finite. None: 0 for a sum of squares.

    Works under `jit` and `vmap`. Cost O((n + m)^3), m counting both sides of the bounds. Raises
    TypeError for constraints beside a nonsmooth term, ValueError above 3,000 variables, or 1,000
    with constraints or a nonsmooth term, and as `solve` does for bad input.

    Sources: Nocedal & Wright (2006), chapter 12; Bertsekas (2016), section 4.3; Mangasarian &
    Fromovitz (1967); Facchinei, Fischer & Kanzow (1998) for what counts as active.

    """
    program = None
    if isinstance(problem, QuadraticProgram):
        program = checked(problem)
        problem, args = program.problem(), (program,)
    check.is_problem(problem)
    if problem.nonsmooth is not None and len(problem.features) > 1:
        raise TypeError(
            "`certify` takes constraints or a nonsmooth term, but this problem has both. Make the "
            "bounds part of the term, with `jol.prox.Box`, or the term constraints, |x| as t with "
            "-t <= x <= t for instance."
        )
    x = solution.x if isinstance(solution, Solution) else solution
    if not problem.features:
        if multipliers is not None:
            raise TypeError(
                "`multipliers` were given, but this problem has no constraints. Leave them out."
            )
        point = describe(problem, x, args, tol=tol, evidence=evidence)
        zero = point.gradient_norm * 0
        return Certificate(
            residuals=Residuals(point.gradient_norm, zero, zero, zero),
            second_order=point,
            constraints=None,
            verdict=point.kind,
            certified=point.kind == Kind.STRICT_MINIMUM,
        )
    if multipliers is None and isinstance(solution, Solution):
        multipliers = solution.multipliers
    check.args_tuple(args)
    x = check.start("x", x)
    form = Form.of(x)
    if form.size > DENSE_LIMIT:
        raise ValueError(
            f"`x` has {form.size} variables; with constraints or a nonsmooth term the certificate "
            f"is dense, for at most {DENSE_LIMIT}. `problem.residuals(Point(x, multipliers), args)`"
            " measures the KKT conditions at any size."
        )
    flat, captured = flatten(problem, form, args)
    if problem.nonsmooth is not None:
        params = (args, captured)
        residuals, seen, kind = examine_nonsmooth(flat, form, x, params, tol, floor)
        certified = kind == Kind.STRICT_MINIMUM
        return Certificate(residuals, None, None, kind, certified, seen)
    residuals, report, kind = examine(flat, form, x, (args, captured), multipliers, tol)
    rays, proof = None, getattr(getattr(solution, "state", None), "proof", None)
    if program is not None and proof is not None:
        small = float(jnp.finfo(form.dtype).eps) ** 0.375 if tol is None else tol
        rays = examine_rays(program, proof.farkas, proof.direction, jnp.asarray(small, form.dtype))
        kind = jnp.where(rays.unbounded, int(Kind.UNBOUNDED), kind)
        kind = jnp.where(rays.infeasible, int(Kind.NO_FEASIBLE_POINT), kind)
    return Certificate(
        rays=rays,
        residuals=residuals,
        second_order=None,
        constraints=report,
        verdict=kind,
        certified=kind == Kind.STRICT_MINIMUM,
    )


def _ray_report(certificate: Certificate, kind: Kind) -> list[str]:
    """Verdict, what was measured, theorem."""
    rays = certificate.rays
    assert rays is not None
    head = "CERTIFIED" if kind == Kind.NO_FEASIBLE_POINT else "CERTIFIED if feasible"
    shown = (
        f"  radius       no x with ||x||_inf < {float(rays.radius):.2g} is feasible"
        if kind == Kind.NO_FEASIBLE_POINT
        else f"  direction    leaves the constraints by {float(rays.stray):.2g} per unit of fall"
    )
    return [f"{head}: {kind.verdict}", shown, f"  because      {kind.theorem}"]


def _count(flags: PyTree) -> int:
    """How many are true."""
    return sum(int(np.sum(np.asarray(leaf))) for leaf in jax.tree.leaves(flags))


# -- the report of a problem with constraints ------------------------------------------------------

NAMES = ("equalities", "inequalities", "lower bounds", "upper bounds")
VERDICTS = {
    Kind.STRICT_MINIMUM: "strict local minimum of the constrained problem",
    Kind.STRICT_MAXIMUM: "strict local maximum of the constrained problem",
    Kind.SADDLE: "KKT point that is no minimum: saddle of the constrained problem",
    Kind.DEGENERATE: "KKT point, not decided by second derivatives",
    Kind.NOT_STATIONARY: "feasible, but no KKT point",
}
THEOREMS = {
    Kind.STRICT_MINIMUM: "KKT, and the Hessian of the Lagrangian is positive definite on the "
    "tangent space\n               (second-order sufficient condition)",
    Kind.STRICT_MAXIMUM: "KKT without strongly active inequalities, and the Hessian of the "
    "Lagrangian is\n               negative definite on the tangent space",
    Kind.SADDLE: "KKT, and f falls along a feasible direction of negative curvature, `descent`",
    Kind.DEGENERATE: "KKT, but second derivatives do not decide: they vanish along a direction, "
    "or only\n               some of the directions of negative curvature are feasible",
    Kind.NOT_STATIONARY: "no multipliers of the right signs make the gradient of the Lagrangian "
    "vanish",
}


BY_CONE = (
    "KKT, and the Hessian of the Lagrangian is positive on the critical cone, which\n"
    "               weakly active constraints make smaller than the tangent space (second-order\n"
    "               sufficient condition)"
)


def _constrained_report(certificate: Certificate) -> list[str]:
    """Verdict, residuals, active constraints with prices, qualifications, curvature, theorem."""
    kind, report = Kind(int(certificate.verdict)), certificate.constraints
    assert report is not None
    r, q, h = certificate.residuals, report.qualification, report.hessian
    lines = [
        VERDICTS.get(kind, kind.verdict),
        f"  value        {float(report.value):.10g}",
        f"  KKT          stationarity {float(r.stationarity):.2g} ({float(report.scaled):.2g} of "
        f"its terms), primal {float(r.primal):.2g},",
        f"               dual {float(r.dual):.2g}, complementarity "
        f"{float(r.complementarity):.2g}; tolerance {float(report.tolerance):.2g}",
    ]
    for name, price, active, strong in zip(
        NAMES, report.multipliers, report.active, report.strong, strict=True
    ):
        if active is None:
            continue
        flat = [np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
                for tree in (price, active, strong)]  # fmt: skip
        prices, on = flat[0][flat[1]], int(flat[1].sum())
        weak = on - int(flat[2].sum())
        shown = ", ".join(f"{p:.4g}" for p in prices[:5]) + ", ..." * (on > 5)
        weakly = f", {weak} of them weakly" * bool(weak)
        with_prices = f": prices {shown}" * bool(on)
        lines.append(f"  {name:<12} {on} of {flat[1].size} active{weakly}{with_prices}")
    holds = lambda flag: "holds" if bool(flag) else "fails"
    lines.append(
        f"  LICQ         {holds(q.licq)} (smallest singular value {float(q.smallest):.2g}); MFCQ "
        f"{holds(q.mfcq)}"
    )
    if not bool(q.licq) and kind not in (Kind.UNQUALIFIED, Kind.INFEASIBLE):
        lines.append("               multipliers, if there are any, are not unique")
    k = int(h.dimension)
    values = np.asarray(h.eigenvalues)[:k]
    if k:
        lines.append(
            f"  curvature    on a tangent space of dimension {k}: {int(h.positive)} positive, "
            f"{int(h.zero)} zero, {int(h.negative)} negative,"
        )
        lines.append(f"               from {values[0]:.4g} to {values[-1]:.4g}")
    else:
        lines.append("  curvature    none: the strongly active constraints leave no direction")
    theorem = BY_CONE if bool(report.by_cone) else THEOREMS.get(kind, kind.theorem)
    lines.append(f"  because      {theorem}")
    lines.append("  assumed      f and the constraints are twice continuously differentiable")
    return lines
