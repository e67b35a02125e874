"""Constrained and bounded problems: their functions in one form, and a judge of answers.

    minimise f(x)  subject to  eq(x) = 0,  ineq(x) <= 0,  lower <= x <= upper

The inequalities of sif2jax carry no sense. `senses.json` says for each problem how its rows are to
be read, ">=", "<=" or lower and upper limits, as an independent translation of the SIF files has
them (S2MPJ, Gratton & Toint, 2024); where it has none, rows are read as >= 0.
"""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize as so

HUGE = 1e19  # bounds of this size are none
SENSES = json.loads(pathlib.Path(__file__).with_name("senses.json").read_text())
UNKNOWN_SENSE = tuple(name for name, rows in SENSES.items() if "?" in rows)  # not taken


class Program(NamedTuple):
    """The functions of one flat vector; `eq` and `ineq` are None where there are no rows."""

    objective: Callable
    eq: Callable | None
    ineq: Callable | None
    lower: np.ndarray
    upper: np.ndarray

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Both bounds, None if all are infinite."""
        there = np.isfinite(self.lower).any() or np.isfinite(self.upper).any()
        return (self.lower, self.upper) if there else None


def program(problem: Any, name: str) -> tuple[Program, jax.Array]:
    """A problem of sif2jax in our form, and its start, moved into the bounds."""
    x0 = jnp.asarray(problem.y0, jnp.float64)
    lower, upper = np.full(x0.shape, -np.inf), np.full(x0.shape, np.inf)
    if (bounds := problem.bounds) is not None:
        lower, upper = (np.broadcast_to(np.asarray(b, float), x0.shape) for b in bounds)
    lower = np.where(lower <= -HUGE, -np.inf, lower)
    upper = np.where(upper >= HUGE, np.inf, upper)
    args = problem.args
    eq = ineq = None
    if hasattr(problem, "constraint"):
        first, second = jax.eval_shape(problem.constraint, x0)
        if jax.tree.leaves(first):
            eq = _rows(problem, 0)
        if jax.tree.leaves(second):
            ineq = _limited(_rows(problem, 1), SENSES.get(name, ">="), second)
    objective = lambda x: jnp.reshape(problem.objective(x, args), ())
    return Program(objective, eq, ineq, lower, upper), jnp.clip(x0, lower, upper)


def _rows(problem: Any, part: int) -> Callable:
    def rows(x):
        leaves = jax.tree.leaves(problem.constraint(x)[part])
        return jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])

    return rows


def _limited(rows: Callable, senses: Any, like: Any) -> Callable | None:
    """Ineq(x) <= 0 for limits <= rows <= limits."""
    m = sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(like))
    if isinstance(senses, str) or len(senses) != m:
        senses = [[None, 0.0] if senses == "<=" else [0.0, None]] * m
    low = [(i, s[0]) for i, s in enumerate(senses) if s[0] is not None and s[0] > -HUGE]
    high = [(i, s[1]) for i, s in enumerate(senses) if s[1] is not None and s[1] < HUGE]
    if not low and not high:
        return None
    index = np.array([i for i, _ in low + high])
    sign = np.array([-1.0] * len(low) + [1.0] * len(high))
    limit = np.array([s for _, s in low + high])
    return lambda x: sign * (rows(x)[index] - limit)


def judge(p: Program) -> Callable[[Any], tuple[float, float]]:
    """X -> (f, error), error <= 1e-6 for a KKT point, from the functions alone.

    error = max(violation / max(1, |bound|), (stationarity, complementarity) / max(1, ||grad f||)),
    all in the infinity norm, with the multipliers that make it small: nonnegative least squares on
    the constraints within 1e-9, ..., 1e-4 of binding, the best of these.
    """
    measure = jax.jit(functools.partial(_measure, p))

    def verdict(x):
        x = np.asarray(x, float)
        value, g, h, jh, c, jc = jax.device_get(measure(jnp.asarray(x)))
        below, above = np.isfinite(p.lower), np.isfinite(p.upper)
        eye = np.eye(len(x))
        gaps = np.concatenate([c, (p.lower - x)[below], (x - p.upper)[above]])
        rows = np.concatenate([jc, -eye[below], eye[above]])
        size = np.ones_like(gaps)
        limits = np.concatenate([p.lower[below], p.upper[above]])
        size[len(c) :] = np.maximum(1, np.abs(limits))
        violation = max(np.max(np.abs(h), initial=0), np.max(gaps / size, initial=0))
        if not np.isfinite(value + np.sum(g)) or not np.isfinite(violation):
            return float(value), np.inf
        scale = max(1.0, np.max(np.abs(g)))
        errors = [
            _kkt_error(g, jh, gaps, rows, np.flatnonzero(gaps >= -near * size)) / scale
            for near in (1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)
        ]
        return float(value), float(max(violation, min(errors)))

    return verdict


def _measure(p: Program, x: jax.Array) -> tuple:
    none, wide = jnp.zeros(0), jnp.zeros((0, x.shape[0]))
    value, g = jax.value_and_grad(p.objective)(x)
    h, jh = (none, wide) if p.eq is None else (p.eq(x), jax.jacfwd(p.eq)(x))
    c, jc = (none, wide) if p.ineq is None else (p.ineq(x), jax.jacfwd(p.ineq)(x))
    return value, g, h, jh, c, jc


def _kkt_error(g, jh, gaps, rows, active) -> float:
    """Stationarity and complementarity with the multipliers of least squares, signs kept."""
    a = np.concatenate([jh, rows[active]]).T
    if not a.shape[1]:
        return float(np.max(np.abs(g)))
    lower = np.concatenate([np.full(len(jh), -np.inf), np.zeros(len(active))])
    size = np.maximum(np.linalg.norm(a, axis=0), 1e-300)  # columns of one length
    prices = so.lsq_linear(a / size, -g, (lower, np.inf), tol=1e-14, max_iter=500).x / size
    wrong = np.max(np.abs(g + a @ prices))
    slack = np.max(np.abs(prices[len(jh) :] * gaps[active]), initial=0)
    return float(max(wrong, slack))
