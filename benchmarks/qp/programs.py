"""Programs as files have them, least <= rows @ x <= most, and the judge: NumPy and SciPy only."""

import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.io
import scipy.sparse as sp

FOLDER = "MAROS_MESZAROS"
INFINITY = 1e19  # the files have 1e20, some a little less


class Program(NamedTuple):
    """Minimise x'Px / 2 + q'x subject to least <= rows @ x <= most, lower <= x <= upper.

    P (n, n), symmetric, and rows (m, n) are arrays or SciPy's sparse matrices; sides may be
    infinite; P is None in a linear program.
    """

    P: Any
    q: np.ndarray
    rows: Any
    least: np.ndarray
    most: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def value(self, x: np.ndarray) -> float:
        return float(self.q @ x + (0 if self.P is None else 0.5 * (x @ (self.P @ x))))

    def one_sided(self) -> tuple[Any, np.ndarray, Any, np.ndarray, Callable]:
        """(A, b, G, h, join): Ax = b and Gx <= h say all that rows and bounds say.

        `join(y, z)` turns their multipliers into those of the rows and of the bounds.
        """
        sparse = sp.issparse(self.rows)
        stack = sp.vstack if sparse else np.vstack
        eye = sp.eye_array(len(self.q), format="csr") if sparse else np.eye(len(self.q))
        rows = stack([self.rows, eye])
        rows = rows.tocsr() if sparse else rows
        least = np.concatenate([self.least, self.lower])
        most = np.concatenate([self.most, self.upper])
        equal = least == most
        above, below = ~equal & np.isfinite(most), ~equal & np.isfinite(least)
        G, h = stack([rows[above], -rows[below]]), np.concatenate([most[above], -least[below]])

        def join(y, z):
            price = np.zeros(len(most))
            price[equal] = y
            price[above] += z[: above.sum()]
            price[below] -= z[above.sum() :]
            return price[: len(self.most)], price[len(self.most) :]

        return rows[equal], most[equal], G, h, join


class Answer(NamedTuple):
    """x, prices y (m,) of the rows and w (n,) of the bounds, and what the solver says.

    Px + q + rows'y + w = 0; a price is positive where the upper side holds x back, negative where
    the lower one does.
    """

    x: np.ndarray
    y: np.ndarray
    w: np.ndarray
    status: str
    steps: int


class Verdict(NamedTuple):
    """Residuals of the original data: primal and dual absolute, gap over 1 + |value|."""

    primal: float
    dual: float
    gap: float
    value: float

    @property
    def worst(self) -> float:
        return max(self.primal, self.dual, self.gap)


def judge(program: Program, answer: Answer) -> Verdict:
    """What is true of an answer, in extended precision.

    A price that leans on an infinite side is worth nothing: it is set to 0, and what that leaves in
    the dual residual counts. The gap is between the values of x and of the prices.
    """
    exact = lambda array: None if array is None else array.astype(np.longdouble)
    P, q, rows, least, most, lower, upper = map(exact, program)
    x, y, w = (exact(np.asarray(part, float)) for part in answer[:3])
    if not all(np.all(np.isfinite(part)) for part in (x, y, w)):
        return Verdict(np.inf, np.inf, np.inf, np.nan)
    sides = ((y, least, most, rows @ x), (w, lower, upper, x))
    primal = dual_of_sides = np.longdouble(0)
    prices = []
    for price, low, high, at in sides:
        price = np.where((price > 0) & np.isinf(high) | (price < 0) & np.isinf(low), 0, price)
        prices.append(price)
        if at.size:
            primal = max(primal, np.max(np.maximum(low - at, at - high)))
        leaned = np.where(price > 0, high, np.where(price < 0, low, 0))
        dual_of_sides = dual_of_sides + price @ leaned
    Px = np.zeros_like(x) if P is None else P @ x
    gradient = Px + q + rows.T @ prices[0] + prices[1]
    value = q @ x + x @ Px / 2
    gap = abs(value + x @ Px / 2 + dual_of_sides) / (1 + abs(value))
    found = (max(primal, 0), np.max(np.abs(gradient)), gap, value)
    return Verdict(*(float(number) for number in found))


# -- files ----------------------------------------------------------------------------------------


def folder() -> pathlib.Path:
    """Where the Maros-Meszaros files are: the environment says, or a small subset with the tests.

    All 138 are in https://github.com/qpsolvers/maros_meszaros_qpbenchmark, folder `data`.
    """
    if FOLDER in os.environ:
        path = pathlib.Path(os.environ[FOLDER])
        if not any(path.glob("*.mat")):
            raise FileNotFoundError(f"{FOLDER}={path} holds no .mat file; see `programs.folder`")
        return path
    return pathlib.Path(__file__).parents[2] / "tests" / "data" / "maros_meszaros"


def load(path: pathlib.Path) -> Program:
    """A .mat file with P, q, A, l, u and l <= Ax <= u, where 1e20 is infinite; no bounds."""
    data = scipy.io.loadmat(path)
    P, rows = sp.csr_array(data["P"]), sp.csr_array(data["A"])
    rows.eliminate_zeros()
    q, least, most = (np.asarray(data[name], float).ravel() for name in ("q", "l", "u"))
    least = np.where(least <= -INFINITY, -np.inf, least)
    most = np.where(most >= INFINITY, np.inf, most)
    nothing = np.full(len(q), np.inf)
    return Program(0.5 * (P + P.T), q, rows, least, most, -nothing, nothing)


def with_bounds(raw: Program) -> tuple[Program, Callable[[Answer], Answer]]:
    """The program with its rows of a single entry as bounds, and the way back for answers.

    Where several rows bound a variable the price of the bound is that of the tightest.
    """
    rows = raw.rows
    single = np.diff(rows.indptr) == 1
    lower, upper = raw.lower.copy(), raw.upper.copy()
    holder = np.full((2, len(raw.q)), -1)  # the row behind each bound
    for i in np.flatnonzero(single):
        j, factor = rows.indices[rows.indptr[i]], rows.data[rows.indptr[i]]
        low, high = sorted((raw.least[i] / factor, raw.most[i] / factor))
        if low > lower[j]:
            lower[j], holder[0, j] = low, i
        if high < upper[j]:
            upper[j], holder[1, j] = high, i

    def back(answer: Answer) -> Answer:
        y, w = np.zeros(len(raw.most)), np.asarray(answer.w, float).copy()
        y[~single] = answer.y
        for j in np.flatnonzero(w):
            i = holder[int(w[j] > 0), j]
            if i >= 0:
                y[i] += w[j] / rows[i, j]
                w[j] = 0.0
        return answer._replace(y=y, w=w)

    rest = raw._replace(
        rows=rows[~single], least=raw.least[~single], most=raw.most[~single], lower=lower,
        upper=upper,
    )  # fmt: skip
    return rest, back
