"""Each function draws on one matplotlib axes (the current one unless given) and returns it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from ..certify import CriticalPoint, Kind
from ..core import Problem, Solution
from ..learning.kernels import Linear
from ..prox import Proximable

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


def constraints(
    problem: Problem,
    lower: ArrayLike,
    upper: ArrayLike,
    solution: Solution | None = None,
    args: tuple = (),
    *,
    resolution: int = 300,
    levels: int = 20,
    arrow: float = 0.15,
    ax: Any = None,
) -> Any:
    """A problem of two variables over a box: contours of f, and what the constraints leave of it.

    What violates an inequality or a bound is shaded, each equality is a line. With a `solution`,
    its iterates (`history="x"`), the answer, and arrows there: -grad f, and multiplier * grad of
    each constraint that binds. At a KKT point the second kind add up to the first. The longest
    arrow is `arrow` times the width of the box.
    """
    ax = _axes(ax)
    (x0, y0), (x1, y1) = np.asarray(lower), np.asarray(upper)
    xs, ys = np.linspace(x0, x1, resolution), np.linspace(y0, y1, resolution)
    grid = jnp.stack(jnp.meshgrid(jnp.asarray(xs), jnp.asarray(ys)), axis=-1)
    everywhere = lambda fun: jax.device_get(jax.jit(jax.vmap(jax.vmap(fun)))(grid))
    values = everywhere(lambda x: problem.value(x, args))
    ax.contour(xs, ys, values, levels=levels, cmap="viridis", linewidths=0.7)
    slacks = everywhere(lambda x: problem.slacks(x, args))
    sides = [np.atleast_3d(part) for part in slacks[1:] if part is not None]
    if sides:
        outside = np.max(np.concatenate(sides, axis=-1), axis=-1)
        ax.contourf(xs, ys, outside, levels=[0, np.inf], colors=["tab:gray"], alpha=0.25)
        for side in sides:
            for g in np.moveaxis(side, -1, 0):
                ax.contour(xs, ys, g, levels=[0], colors=["tab:gray"], linewidths=1.2)
    for h in () if slacks.eq is None else np.moveaxis(np.atleast_3d(slacks.eq), -1, 0):
        ax.contour(xs, ys, h, levels=[0], colors=["black"], linewidths=1.5)
    if solution is not None:
        typical = np.ptp(values) / (x1 - x0)  # forces far below are 0 but for rounding
        _answer(problem, solution, args, arrow * (x1 - x0), 1e-4 * typical, ax)
    ax.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="$x_1$", ylabel="$x_2$")
    ax.set_aspect("equal")
    return ax


def _answer(
    problem: Problem, solution: Solution, args: tuple, length: float, least: float, ax: Any
) -> None:
    """The iterates, the answer, and the balance of forces there."""
    x = jnp.asarray(solution.x)
    if solution.history is not None and solution.history.x is not None:
        steps = np.asarray(solution.history.x)[: int(solution.steps)]
        ax.plot(*steps.T, ".-", color="tab:blue", lw=1, ms=5, label="iterates", zorder=3)
    rows, slopes = jax.jacfwd(lambda y: problem.slacks(y, args))(x), []
    for price, row in zip(solution.multipliers, rows, strict=True):
        if price is not None:
            slopes += list(np.reshape(price, (-1, 1)) * np.reshape(row, (-1, 2)))
    fall = -np.asarray(jax.grad(lambda y: problem.value(y, args))(x))
    size = max([np.linalg.norm(fall), *(np.linalg.norm(slope) for slope in slopes)])
    # The price's arrow is the thinner one: it covers the other where a single constraint binds.
    forces = [(fall, "tab:red", r"$-\nabla f$")]
    binding = [slope for slope in slopes if np.linalg.norm(slope) > 1e-3 * size]
    forces += [(slope, "tab:orange", r"price $\times \nabla$ constraint") for slope in binding]
    for force, color, label in forces if size > least else ():
        ax.quiver(
            *x, *(force * length / size), color=color, angles="xy", scale_units="xy", scale=1,
            width=0.012 if color == "tab:red" else 0.005, zorder=4, label=label,
        )  # fmt: skip
    ax.plot(*x, "*", color="tab:red", ms=14, mec="white", zorder=5)
    handles, labels = ax.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    ax.legend(unique.values(), unique.keys(), loc="upper right", framealpha=0.9)


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
    parameter: ArrayLike,
    curves: ArrayLike,
    *,
    xlabel: str,
    ylabel: str,
    labels: Sequence[str] | None = None,
    ax: Any = None,
) -> Any:
    """Curves (points, k) of an answer against a positive parameter (points,) on a log axis.

    `labels` name the curves; a legend stands to the right of the picture.
    """
    ax = _axes(ax)
    curves = np.asarray(curves)
    colors = [None] * curves.shape[1] if curves.shape[1] <= 10 else _colors(curves.shape[1])
    for k, color in enumerate(colors):
        label = None if labels is None else labels[k]
        ax.semilogx(np.asarray(parameter), curves[:, k], lw=1.3, color=color, label=label)
    ax.axhline(0, color="black", lw=0.6)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)
    ax.grid(alpha=0.3)
    if labels is not None:
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), fontsize="small", frameon=False)
    return ax


def _colors(count: int) -> list:
    """As many colours as are asked for, in order."""
    import matplotlib as mpl

    return list(mpl.colormaps["turbo"](np.linspace(0.05, 0.95, count)))


def margins(
    machine: Solution,
    X: ArrayLike,
    y: ArrayLike,
    kernel: Callable[[Any, Any], Any] = Linear(),
    *,
    resolution: int = 200,
    ax: Any = None,
) -> Any:
    """A machine of `learning.svc` with its `kernel`, on the rows X (n, 2) that it was fitted to.

    The side of f is shaded, its levels -1, 0, 1 are lines. Rows are marked by class, and coloured
    by their multiplier: outside, a = 0; free, 0 < a < C, on the margin; bound, a = C.
    """
    ax = _axes(ax)
    X, y = np.asarray(X), np.asarray(y)
    pad = 0.08 * np.ptp(X, axis=0)
    (x0, y0), (x1, y1) = X.min(axis=0) - pad, X.max(axis=0) + pad
    xs, ys = np.linspace(x0, x1, resolution), np.linspace(y0, y1, resolution)
    grid = jnp.stack(jnp.meshgrid(jnp.asarray(xs), jnp.asarray(ys)), axis=-1)
    # Row by row of the picture: memory resolution n.
    one = lambda rows: machine.x(kernel(rows, jnp.asarray(X)))
    f = np.asarray(jax.jit(lambda points: jax.lax.map(one, points))(grid))
    ax.contourf(xs, ys, f, [-np.inf, 0, np.inf], colors=["tab:blue", "tab:orange"], alpha=0.12)
    ax.contour(
        xs, ys, f, levels=[-1, 0, 1], colors="black", linewidths=[0.9, 1.6, 0.9],
        linestyles=["--", "-", "--"],
    )  # fmt: skip
    for name, color in (("outside", "tab:gray"), ("free", "tab:green"), ("bound", "tab:red")):
        case = np.asarray(getattr(machine.state, name))
        for side, marker in ((y > 0, "o"), (y <= 0, "^")):
            ax.scatter(
                *X[case & side].T, marker=marker, c=color, s=34, edgecolors="white",
                linewidths=0.6, zorder=3, label=f"{name} ({case.sum()})" if marker == "o" else None,
            )  # fmt: skip
    ax.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="$x_1$", ylabel="$x_2$")
    ax.legend(framealpha=0.9)
    return ax


def prox(
    function: Proximable,
    lower: float,
    upper: float,
    steps: Sequence[float] = (1.0,),
    *,
    resolution: int = 601,
    ax: Any = None,
) -> Any:
    """The prox of a function of one number over an interval, one line a step; dotted the identity.

    Flat where a whole interval goes to one point: a kink of the function, or the end of its domain.
    """
    ax = _axes(ax)
    x = np.linspace(lower, upper, resolution)
    ax.plot(x, x, color="gray", lw=1, ls=":", label="x")
    for step, p, color in zip(
        steps, _grid(function.prox, x, steps), _shades(len(steps)), strict=True
    ):
        ax.plot(x, p, color=color, lw=1.8, label=f"prox, step {step:g}")
    return _along(ax, lower, upper)


def envelope(
    function: Proximable,
    lower: float,
    upper: float,
    steps: Sequence[float] = (1.0,),
    *,
    resolution: int = 601,
    ax: Any = None,
) -> Any:
    """A function of one number and its Moreau envelopes, one line a step.

    Outside its domain the function is not drawn; the envelopes are finite everywhere.
    """
    ax = _axes(ax)
    x = np.linspace(lower, upper, resolution)
    for step, smooth, color in zip(
        steps, _grid(function.envelope, x, steps), _shades(len(steps)), strict=True
    ):
        ax.plot(x, smooth, color=color, lw=1.8, label=f"envelope, step {step:g}")
    value = np.asarray(jax.jit(jax.vmap(function.value))(x))
    ax.plot(x, np.where(np.isfinite(value), value, np.nan), color="black", lw=1.8, label="f")
    return _along(ax, lower, upper)


def _grid(fun: Callable, x: np.ndarray, steps: Sequence[float]) -> np.ndarray:
    """fun(x, step) for each of `steps`, a row each."""
    both = jax.vmap(jax.vmap(fun, (0, None)), (None, 0))
    return np.asarray(jax.jit(both)(x, np.asarray(steps, x.dtype)))


def _shades(count: int) -> list:
    """From dark to light."""
    import matplotlib as mpl

    return list(mpl.colormaps["viridis"](np.linspace(0.15, 0.75, count)))


def _along(ax: Any, lower: float, upper: float) -> Any:
    """What pictures over an interval share."""
    ax.set_xlim(lower, upper)
    ax.set_xlabel("x")
    ax.grid(alpha=0.3)
    ax.legend()
    return ax
