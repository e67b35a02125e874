"""Which solver `solver=None` takes, and why."""

from ..core import Displacement, Fixed, Problem, Solver, default_solver
from .constrained import TRON, AugmentedLagrangian, InteriorPoint
from .equations import Anderson, Brent
from .proximal import ProximalLBFGS, ProximalNewton
from .smooth import LevenbergMarquardt, TrustRegion

EXACT_UP_TO = 200  # 35 ms a solve there, 4 to 10 by products; benchmarks/README.md
CONDENSED_UP_TO = 1000  # variables of a dense KKT system


@default_solver
def choose(problem: Problem, size: int) -> Solver:
    """The default for a problem with `size` variables.

    `TrustRegion`: the one method here that converges from far, needs no step size, is quadratic at
    the end and does not stop at saddle points. With the exact Hessian while a factorisation is
    cheap: it sees every direction of negative curvature and does not mind ill-conditioning. Above,
    by truncated conjugate gradients, faster from 50 variables on where the problem is benign.
    `LevenbergMarquardt` for sums over residuals and for equations: it needs no second derivatives
    and takes bounds. For fixed points x = T(x) `Anderson`, which needs no derivatives at all; for
    one equation in one unknown between two ends `Brent`, which does not leave them.
    `TRON` for an objective within bounds: of 77 such CUTEst problems it ended stationary on all,
    `InteriorPoint` on 66, with three quarters of the evaluations. With constraints `InteriorPoint`,
    and `AugmentedLagrangian`, which forms no matrix, above 1,000 variables. With a non-smooth term
    `ProximalNewton`, quadratic once the active set is right, and `ProximalLBFGS` above 200
    variables, of the first-order methods here the one of fewest evaluations.
    """
    if "nonsmooth" in problem.features:
        return ProximalNewton() if size <= EXACT_UP_TO else ProximalLBFGS()
    if isinstance(problem.eq, Displacement) and problem.kind == "equations":
        return Anderson()
    if problem.kind == "equations" and size == 1 and _is_bracket(problem.bounds):
        return Brent()
    if problem.features & {"eq", "ineq"}:
        return InteriorPoint() if size <= CONDENSED_UP_TO else AugmentedLagrangian()
    if problem.kind in ("least squares", "equations"):
        return LevenbergMarquardt()
    if "bounds" in problem.features:
        return TRON()
    return TrustRegion(subproblem="exact" if size <= EXACT_UP_TO else "cg")


def _is_bracket(bounds: object) -> bool:
    """Both ends are given as values."""
    return isinstance(bounds, Fixed) and all(side is not None for side in bounds.bounds)
