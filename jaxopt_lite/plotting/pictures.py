"""Each function draws on one matplotlib axes (the current one unless given) and returns it."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..certify import CriticalPoint, Kind
from ..core import Solution

STYLE = {
    Kind.STRICT_MINIMUM: ("o", "tab:blue", "minimum"),
    Kind.STRICT_MAXIMUM: ("^", "tab:red", "maximum"),
    Kind.SADDLE: ("X", "tab:orange", "saddle"),
    Kind.DEGENERATE: ("s", "tab:gray", "degenerate"),
}


def _axes(ax: Any) -> Any:
    """The axes to draw on; matplotlib is imported here, once it is needed."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "jaxopt_lite.plotting needs matplotlib: `pip install jaxopt_lite[plot]`."
        ) from error
    return plt.gca() if ax is None else ax


def convergence(solutions: Mapping[str, Solution], *, ax: Any = None) -> Any:
    """Stationarity ||grad L||_inf against steps, one line a solution solved with `history=True`.

    Raises ValueError for a solution without history.
    """
    ax = _axes(ax)
    for name, solution in solutions.items():
        if solution.history is None:
            raise ValueError(f"the solution {name!r} has no history: solve with `history=True`.")
        steps = int(solution.steps)
        residual = np.asarray(solution.history.residuals.stationarity)[:steps]
        ax.semilogy(np.arange(1, steps + 1), np.maximum(residual, 1e-17), label=name, lw=1.5)
    ax.set_xlabel("steps")
    ax.set_ylabel(r"$\|\nabla f\|_\infty$")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax


def landscape(
    fun: Callable[..., ArrayLike],
    lower: ArrayLike,
    upper: ArrayLike,
    points: CriticalPoint | None = None,
    *,
    resolution: int = 200,
    levels: int = 30,
    ax: Any = None,
) -> Any:
    """Contours of `fun` of two variables over a box, spaced evenly in log(1 + f - min f).

    `points`, a batched `CriticalPoint`, are marked by kind: minimum, maximum, saddle, degenerate.
    """
    ax = _axes(ax)
    (x0, y0), (x1, y1) = np.asarray(lower), np.asarray(upper)
    xs, ys = np.linspace(x0, x1, resolution), np.linspace(y0, y1, resolution)
    grid = jnp.stack(jnp.meshgrid(jnp.asarray(xs), jnp.asarray(ys)), axis=-1)
    values = np.asarray(jax.jit(jax.vmap(jax.vmap(fun)))(grid))
    ax.contour(
        xs, ys, np.log1p(values - values.min()), levels=levels, cmap="viridis", linewidths=0.7
    )
    if points is not None:
        where, kinds = np.asarray(points.x), np.asarray(points.kind)
        for kind, (marker, color, label) in STYLE.items():
            these = where[kinds == kind]
            if len(these):
                ax.scatter(
                    *these.T, marker=marker, c=color, s=60, label=f"{label} ({len(these)})",
                    zorder=3, edgecolors="white", linewidths=0.8,
                )  # fmt: skip
        ax.legend(loc="upper right", framealpha=0.9)
    ax.set_xlabel("$x_1$")
    ax.set_ylabel("$x_2$")
    ax.set_aspect("equal")
    return ax


def spectrum(point: CriticalPoint, *, ax: Any = None) -> Any:
    """The eigenvalues of the Hessian in order, on a symmetric logarithmic axis, zeros marked."""
    ax = _axes(ax)
    values, zero = np.asarray(point.eigenvalues), np.asarray(point.uncertainty)
    nonzero = np.abs(values)[np.abs(values) > zero]
    threshold = float(nonzero.min()) if nonzero.size else 1.0
    index = np.arange(1, values.size + 1)
    color = np.where(
        np.abs(values) <= zero, "tab:gray", np.where(values > 0, "tab:blue", "tab:red")
    )
    ax.vlines(index, 0, values, colors=color, lw=1)
    ax.scatter(index, values, c=color, s=18, zorder=3)
    ax.set_yscale("symlog", linthresh=threshold)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xlabel("index")
    ax.set_ylabel("eigenvalue of the Hessian")
    ax.grid(alpha=0.3)
    return ax


def path(
    parameter: ArrayLike, curves: ArrayLike, *, xlabel: str, ylabel: str, ax: Any = None
) -> Any:
    """Curves (points, k) of an answer against a positive parameter (points,) on a log axis."""
    ax = _axes(ax)
    ax.semilogx(np.asarray(parameter), np.asarray(curves), lw=1)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.3)
    return ax
