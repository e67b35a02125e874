"""What the data say about a fit: the covariance of a least-squares estimate."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ..core import Solution, check
from ..linalg import Form

PyTree = Any


class Covariance(NamedTuple):
    """The covariance of an estimate, to first order in the noise."""

    matrix: Array  # (n, n), in the order of the raveled x; inf for what the data leave open
    deviations: PyTree  # standard deviations, in the structure of x; inf where unidentifiable
    variance: Array  # of a single residual
    rank: Array  # of the Jacobian: how many combinations of unknowns the data determine


def covariance(
    residual: Callable[..., PyTree],
    solution: Solution | PyTree,
    args: tuple = (),
    *,
    variance: ArrayLike | None = None,
) -> Covariance:
    """s^2 (J'J)^-1 with J the Jacobian of the residuals at the estimate.

    Right to first order for independent residuals of equal variance s^2 and a model that is nearly
    linear over the spread of the estimate; bounds and robust losses are not taken into account.
    By singular values, O(mn^2): an unknown that takes part in a direction the data say nothing
    about, a singular value below m eps times the largest, has an infinite deviation.

    Args:
        residual: `residual(x, *args)`, as for `least_squares`.
        solution: a `Solution`, or a point x of its own.
        args: tuple of pytrees, those of the fit.
        variance: s^2 if it is known, 1 for residuals divided by their deviations. None: estimated
            as sum r^2 / (m - n), which needs more residuals than unknowns.

    Works under `jit` and `vmap`. Raises ValueError where the variance cannot be estimated.
    Source: Seber & Wild (2003), section 2.1.

    """
    check.args_tuple(args)
    x = check.start("x", solution.x if isinstance(solution, Solution) else solution)
    form = Form.of(x)

    def on_vector(v: Array) -> Array:
        leaves = jax.tree.leaves(residual(form.unravel(v), *args))
        return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, form.dtype)) for leaf in leaves])

    vector = form.ravel(x)
    residuals = on_vector(vector)
    m, n = residuals.shape[0], form.size
    if variance is None and m <= n:
        raise ValueError(
            f"`variance` cannot be estimated from {m} residuals of {n} unknowns: pass "
            "`variance=`, 1.0 if the residuals are divided by their standard deviations."
        )
    jacobian = jax.jacfwd(on_vector)(vector)
    # Columns of equal length: otherwise units of the unknowns would decide what counts as zero.
    norms = jnp.linalg.norm(jacobian, axis=0)
    scale = jnp.where(norms > 0, norms, 1)
    _, values, right = jnp.linalg.svd(jacobian / scale, full_matrices=False)
    open_ended = values <= max(m, n) * jnp.finfo(form.dtype).eps * jnp.max(values)
    spread = right / jnp.where(open_ended, 1, values)[:, None]
    known = jnp.where(open_ended[:, None], 0, spread)
    # A variable is open if it takes part in an open direction, or in none at all.
    part = jnp.sum(jnp.where(open_ended[:, None], 0, right) ** 2, axis=0)
    undetermined = part < 1 - jnp.finfo(form.dtype).eps ** 0.5
    noise = jnp.sum(residuals**2) / (m - n) if variance is None else jnp.asarray(variance)
    noise = noise.astype(form.dtype)
    matrix = noise * (known.T @ known) / jnp.outer(scale, scale)
    either = undetermined[:, None] | undetermined[None, :]
    matrix = jnp.where(either, jnp.inf, matrix)
    deviations = jnp.sqrt(jnp.diagonal(matrix))
    return Covariance(matrix, form.unravel(deviations), noise, jnp.sum(~open_ended))
