"""What models of samples share: linear predictors, checked data, sample weights, folds."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from ..core import Multipliers, Residuals, Solution, Status, check
from ..prox.arguments import array


class Linear(NamedTuple):
    """A linear predictor: `fit.x(X)` is X @ weights + intercept.

    `weights` is (p,), or (p, k) for k targets or classes; `intercept` a number or (k,), 0 without
    one.
    """

    weights: Array
    intercept: Array

    def __call__(self, X: Array) -> Array:
        """Predictions (n,) or (n, k) for rows X (n, p)."""
        return X @ self.weights + self.intercept


class Scaling(NamedTuple):
    """Z = (X - center) / scale, column by column, and what weights for Z are for X."""

    center: Array  # (p,)
    scale: Array  # (p,), 1 for a column that is constant

    def __call__(self, X: Array) -> Array:
        """Rows X, standardised as those before."""
        return (X - self.center) / self.scale

    def restore(self, fit: Linear) -> Linear:
        """The predictor for X that `fit` is for Z."""
        scale = self.scale if fit.weights.ndim == 1 else self.scale[:, None]
        weights = fit.weights / scale
        return Linear(weights, fit.intercept - self.center @ weights)


def standardize(X: Any, *, sample_weight: Any = None) -> tuple[Array, Scaling]:
    """X (n, p) with columns of mean 0 and variance 1, weighted by samples, and the `Scaling`.

    `scaling.restore(fit.x)` makes a fit on these rows one for rows as they came. A constant column
    becomes 0. Raises TypeError or ValueError as fits do.
    """
    X = rows(X)
    share = shares(sample_weight, X.shape[0], X.dtype)
    center = share @ X
    spread = share @ (X - center) ** 2
    # Rounding of the mean is all that a constant column has left.
    floor = (10 * jnp.finfo(X.dtype).eps * center) ** 2
    scaling = Scaling(center, jnp.sqrt(jnp.where(spread > floor, spread, 1)))
    return scaling(X), scaling


class Samples(NamedTuple):
    """Rows, targets and weights, in one dtype; the weights sum to 1."""

    X: Array  # (n, p)
    y: Array  # (n,) or (n, k)
    share: Array  # (n,)


def samples(X: Any, y: Any, sample_weight: Any, *, targets: int = 1) -> Samples:
    """X, y with up to `targets` axes, and weights, checked; weights divided by their sum."""
    X = rows(X)
    y = array("`y`", y, 2 if np.ndim(y) == 2 and targets == 2 else 1, "One entry a row of X.")
    matching("y", y, X)
    dtype = jnp.promote_types(X.dtype, y.dtype)
    finite("`y`", y)
    return Samples(_cast(X, dtype), _cast(y, dtype), shares(sample_weight, X.shape[0], dtype))


def rows(X: Any, name: str = "X") -> Array:
    """A finite matrix of features."""
    X = array(f"`{name}`", X, 2, "Rows are samples, columns features.")
    finite(f"`{name}`", X)
    return X


def matching(name: str, y: Any, X: Any) -> None:
    """Refuse a `y` that has not one entry for each row of X."""
    if np.shape(y)[0] != X.shape[0]:
        raise ValueError(
            f"`{name}` must have one entry for each row of `X`, but {name} has shape {np.shape(y)} "
            f"and X {X.shape}."
        )


def shares(sample_weight: Any, n: int, dtype) -> Array:
    """Sample weights over their sum, so that means become weighted means."""
    if sample_weight is None:
        return jnp.full(n, 1 / n, dtype)
    at_least_zero("`sample_weight`", sample_weight)
    if np.shape(sample_weight) != (n,):
        raise ValueError(
            f"`sample_weight` must have one entry for each of the {n} rows of `X`, but its shape "
            f"is {np.shape(sample_weight)}."
        )
    if known(sample_weight) and not np.any(np.asarray(sample_weight) > 0):
        raise ValueError("`sample_weight` must be > 0 for some row, but all of them are 0.")
    weight = jnp.asarray(sample_weight, dtype)
    return weight / jnp.sum(weight)


def penalty_of(value: Any, p: int, dtype, name: str = "penalty") -> Array:
    """A number or one entry a feature, >= 0."""
    at_least_zero(f"`{name}`", value)
    if np.shape(value) not in ((), (p,)):
        raise ValueError(
            f"`{name}` must be a number or have one entry for each of the {p} features, but its "
            f"shape is {np.shape(value)}. For many values call the function of a path."
        )
    return jnp.asarray(value, dtype)


def grid_of(values: Any, dtype, name: str = "penalties") -> Array:
    """Penalties (L,), >= 0."""
    at_least_zero(f"`{name}`", values)
    array(f"`{name}`", values, 1, "They are a grid of numbers.")
    return jnp.asarray(values, dtype)


def fold_count(folds: Any, n: int) -> int:
    """How many folds, from 2 to the number of rows."""
    folds = check.count("`folds`", folds, way_out="5 or 10 are usual.")
    if not 2 <= folds <= n:
        raise ValueError(f"`folds` must be from 2 to the number of rows, {n}, but {folds} came.")
    return folds


def batching_of(batching: str) -> str:
    """'map' or 'vmap': 'auto' takes one after the other on a CPU."""
    if batching not in ("auto", "map", "vmap"):
        raise ValueError(f"`batching` must be 'auto', 'map' or 'vmap', but {batching!r} came.")
    if batching == "auto":
        return "map" if jax.default_backend() == "cpu" else "vmap"
    return batching


def held_out(n: int, folds: int) -> np.ndarray:
    """(folds, n): which rows a fold leaves out, blocks of neighbours."""
    sizes = np.full(folds, n // folds) + (np.arange(folds) < n % folds)
    return np.repeat(np.arange(folds), sizes) == np.arange(folds)[:, None]


def at_least_zero(label: str, value: Any) -> None:
    """Refuse what is known to be negative, NaN or infinite."""
    if not known(value):
        return
    if not isinstance(value, (jax.Array, np.ndarray, np.generic, int, float)):
        raise TypeError(f"{label} must be an array or a number, but a {type(value).__name__} came.")
    concrete = np.asarray(value)
    if not np.all((concrete >= 0) & np.isfinite(concrete)):
        worst = concrete.min() if np.all(np.isfinite(concrete)) else "NaN or an infinity"
        raise ValueError(f"{label} must be finite and >= 0, but {worst} came.")


def finite(label: str, value: Any) -> None:
    """Refuse data that are known to hold NaN or infinities."""
    if not known(value):
        return
    concrete = np.asarray(value)
    if np.isfinite(np.sum(concrete)):
        return
    bad = np.argwhere(~np.isfinite(concrete))
    if len(bad):
        raise ValueError(
            f"{label} must be finite, but {len(bad)} of its entries are NaN or infinite, the first "
            f"at {tuple(bad[0].tolist())}. Drop those rows, or fill them in."
        )


def known(value: Any) -> bool:
    """Not traced."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value))


def still(tree: Any) -> Any:
    """The values without their derivatives."""
    return jax.tree.map(lax.stop_gradient, tree)


def reported(x: Any, value: Array, status: Array, steps: Any, residual: Array, state: Any):
    """A `Solution` of an unconstrained fit."""
    nothing = jnp.zeros_like(value)
    return Solution(
        x=x,
        value=value,
        aux=None,
        multipliers=Multipliers(),
        status=status,
        success=status == int(Status.CONVERGED),
        steps=jnp.broadcast_to(jnp.asarray(steps, jnp.int32), status.shape),
        residuals=Residuals(residual, nothing, nothing, nothing),
        history=None,
        state=state,
    )


def _cast(x: Array, dtype) -> Array:
    return x if x.dtype == dtype else x.astype(dtype)
