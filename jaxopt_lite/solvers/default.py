"""Which solver `solver=None` takes, and why."""

from ..core import Problem, Solver, default_solver
from .smooth import TrustRegion

EXACT_UP_TO = 200  # variables; see benchmarks/README.md for where the two cross


@default_solver
def choose(problem: Problem, size: int) -> Solver:
    """The default for a problem with `size` variables.

    `TrustRegion`: the one method here that converges from far, needs no step size, is quadratic at
    the end and does not stop at saddle points. With the exact Hessian while a factorisation is
    cheap, by truncated conjugate gradients above.
    """
    return TrustRegion(subproblem="exact" if size <= EXACT_UP_TO else "cg")
