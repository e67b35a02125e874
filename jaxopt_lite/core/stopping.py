"""The verdict on a report: the last line that applies decides."""

import jax.numpy as jnp
from jax import Array

from ..linalg import choose
from .types import Report, Status


def default_tolerance(dtype) -> float:
    """sqrt(eps): 1.5e-8 in float64, 3.5e-4 in float32."""
    return float(jnp.finfo(dtype).eps) ** 0.5


def verdict(report: Report, tol: Array, out_of_steps: Array) -> Array:
    """The status after a step.

    CONVERGED when the worst residual, in the units of the report if it has any, is <= `tol` and the
    solver is settled. DIVERGED when |f| passes the square root of the largest number (1e154 in
    float64, 2e19 in float32).
    """
    worst = report.worst()
    huge = float(jnp.finfo(worst.dtype).max) ** 0.5
    status = choose(out_of_steps, int(Status.MAX_STEPS), report.failure)
    status = choose(jnp.abs(report.value) > huge, int(Status.DIVERGED), status)
    small = worst <= tol
    converged = small if report.settled is True else small & report.settled
    status = choose(converged, int(Status.CONVERGED), status)
    broken = jnp.full_like(status, int(Status.NONFINITE))
    return choose(jnp.isfinite(worst + report.value), status, broken)
