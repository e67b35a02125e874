"""Large sparse programs to 1e-4 and 1e-6 against HiGHS and MPAX; transport with a million unknowns.

Every solve has a process of its own, so that its peak of memory is its own, and one may be ended.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .harness import benchmark, table

LIMIT = {"transport": 180.0}  # seconds for a process
USUAL = 30.0

NOTES = """\
*Asked*: the tolerance given to the solver, relative, in the infinity norm; HiGHS has its own defaults, 1e-7. *Error*: the
largest of primal residual / (1 + |(b, h)|), dual residual / (1 + |q|) and duality gap / (1 + |p| + |d|), recomputed with
NumPy from x and the prices of the rows. *Seconds*: a solve without compilation; *compile*: that, by
itself. *MB*: peak of the process, which is about {base} before it has a program. No process
gets more than {limit:.0f} s. MPAX solves linear programs by r2HPDHG, quadratic ones by raPDHG."""  # noqa: E501  # lines of Markdown


class Sparse(NamedTuple):
    """The fields of `QuadraticProgram`, matrices as SciPy's CSR."""

    P: Any
    q: np.ndarray
    A: Any = None
    b: np.ndarray | None = None
    G: Any = None
    h: np.ndarray | None = None
    lower: np.ndarray | None = None


# -- problems --------------------------------------------------------------------------------------


def _rows(rng, m: int, n: int, each: int):
    """Random rows with `each` normal entries."""
    at = (np.repeat(np.arange(m), each), rng.integers(0, n, m * each))
    return sp.csr_matrix((rng.standard_normal(m * each), at), shape=(m, n))


def random_lp(rng, m: int, n: int, each: int) -> Sparse:
    """Equations and inequalities around a vertex: half of the unknowns 0, half of the rows bind."""
    A, G = _rows(rng, m // 2, n, each), _rows(rng, m // 2, n, each)
    x = rng.random(n) * (rng.random(n) < 0.5)
    active = rng.random(m // 2) < 0.5
    prices = A.T @ rng.standard_normal(m // 2) + G.T @ (rng.random(m // 2) * active)
    q = rng.random(n) * (x == 0) - prices
    return Sparse(None, q, A, A @ x, G, G @ x + rng.random(m // 2) * ~active, np.zeros(n))


def basis_pursuit(rng, m: int, n: int, each: int) -> Sparse:
    """The u - v of least 1-norm that fits, u and v >= 0."""
    A = _rows(rng, m, n, each)
    x = np.zeros(n)
    x[rng.choice(n, m // 10, replace=False)] = rng.standard_normal(m // 10)
    return Sparse(None, np.ones(2 * n), sp.hstack([A, -A]).tocsr(), A @ x, lower=np.zeros(2 * n))


def lasso(rng, m: int, n: int, each: int) -> Sparse:
    """1/2 |r|^2 + weight sum(u + v), A(u - v) - r = b."""
    A = _rows(rng, m, n, each)
    x = np.zeros(n)
    x[rng.choice(n, n // 50, replace=False)] = rng.standard_normal(n // 50)
    b = A @ x + 0.1 * rng.standard_normal(m)
    weight = 0.1 * np.max(np.abs(A.T @ b))
    P = sp.diags(np.concatenate([np.zeros(2 * n), np.ones(m)])).tocsr()
    q = np.concatenate([np.full(2 * n, weight), np.zeros(m)])
    lower = np.concatenate([np.zeros(2 * n), np.full(m, -np.inf)])
    return Sparse(P, q, sp.hstack([A, -A, -sp.identity(m)]).tocsr(), b, lower=lower)


def portfolio(rng, n: int, factors: int, each: int) -> Sparse:
    """Risk in factors and of each asset, less return; weights >= 0 that sum to 1."""
    F = _rows(rng, n, factors, each)
    P = sp.diags(np.concatenate([rng.random(n) * factors**0.5, np.ones(factors)])).tocsr()
    A = sp.bmat([[F.T, -sp.identity(factors)], [np.ones((1, n)), None]]).tocsr()
    q = np.concatenate([-rng.standard_normal(n), np.zeros(factors)])
    lower = np.concatenate([np.zeros(n), np.full(factors, -np.inf)])
    return Sparse(P, q, A, np.append(np.zeros(factors), 1.0), lower=lower)


def coupled(rng, n: int, m: int, each: int) -> Sparse:
    """A Hessian with entries beside the diagonal, and inequalities alone."""
    M = _rows(rng, n, n, each)
    P = (0.1 * (M @ M.T) + 0.01 * sp.identity(n)).tocsr()
    return Sparse(P, rng.standard_normal(n), None, None, _rows(rng, m, n, 2 * each), rng.random(m))


def transport(rng, k: int) -> Sparse:
    """From k points of a square to k others, the mean load 1."""
    cost = np.linalg.norm(rng.random((k, 1, 2)) - rng.random((1, k, 2)), axis=2).ravel()
    loads = rng.random((2, k)) + 0.1
    eye, ones = sp.identity(k, format="csr"), np.ones((1, k))
    A = sp.vstack([sp.kron(eye, ones), sp.kron(ones, eye)]).tocsr()
    loads *= k / loads.sum(axis=1, keepdims=True)
    return Sparse(None, cost, A, loads.ravel(), lower=np.zeros(k * k))


PROBLEMS: dict[str, tuple[Callable, tuple[int, ...], tuple[int, ...]]] = {  # maker, full, quick
    "random LP": (random_lp, (20_000, 30_000, 10), (400, 800, 5)),
    "basis pursuit": (basis_pursuit, (2_000, 10_000, 250), (100, 400, 10)),
    "lasso": (lasso, (20_000, 50_000, 20), (200, 400, 5)),
    "portfolio": (portfolio, (50_000, 500, 18), (500, 20, 5)),
    "coupled QP": (coupled, (20_000, 10_000, 5), (300, 100, 3)),
    "transport": (transport, (1_000,), (30,)),
}


def make(name: str, quick: bool) -> Sparse:
    """The problem, always the same."""
    maker, full, small = PROBLEMS[name]
    return maker(np.random.default_rng(0), *(small if quick else full))


# -- the judge -------------------------------------------------------------------------------------


def judge(program: Sparse, x: np.ndarray, eq: np.ndarray, ineq: np.ndarray) -> float:
    """The largest relative error, with prices in the sign convention of the package."""
    P, q, A, b, G, h, lower = program
    lower = np.full(len(q), -np.inf) if lower is None else lower
    curved = np.zeros(len(q)) if P is None else P @ x
    gradient, primal, size, dual_value = q + curved, 0.0, 0.0, -0.5 * x @ curved
    if A is not None:
        gradient = gradient + A.T @ eq
        primal, size = np.max(np.abs(A @ x - b)), np.max(np.abs(b))
        dual_value -= b @ eq
    if G is not None:
        gradient = gradient + G.T @ ineq
        primal = max(primal, np.max(G @ x - h), -np.min(ineq))
        size = max(size, np.max(np.abs(h)))
        dual_value -= h @ ineq
    primal = max(primal, np.max(lower - x))
    paid = np.where(np.isfinite(lower), np.maximum(gradient, 0), 0)
    dual = np.max(np.abs(gradient - paid))
    dual_value += np.where(paid > 0, lower, 0) @ paid
    value = q @ x + 0.5 * x @ curved
    gap = abs(value - dual_value) / (1 + abs(value) + abs(dual_value))
    return float(max(primal / (1 + size), dual / (1 + np.max(np.abs(q))), gap))


# -- solvers: program, tol -> (x, eq, ineq, seconds, compile seconds, steps) -----------------------


def ours(program: Sparse, tol: float, operator: bool = False):
    """PDHG on BCOO, or with sums of rows and columns in place of the matrix of transport."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.sparse import BCOO

    from jaxopt_lite.core import Multipliers, Point, QuadraticProgram, iterate
    from jaxopt_lite.solvers.conic.first_order import PDHG

    @jax.tree_util.register_static
    class Sums:
        """Sums of the rows and columns of x as a k x k matrix; transposed, y_i + z_j."""

        def __init__(self, k: int, turned: bool = False):
            self.k, self.turned = k, turned
            self.shape = (k * k, 2 * k) if turned else (2 * k, k * k)

        def __eq__(self, other):
            return type(other) is type(self) and vars(other) == vars(self)

        def __hash__(self):
            return hash((self.k, self.turned))

        @property
        def T(self):
            return Sums(self.k, not self.turned)

        def __matmul__(self, x):
            return self._apply(x, jnp.add, jnp.sum)

        row_total = __matmul__

        def row_largest(self, x):
            return self._apply(x, jnp.maximum, jnp.max)

        def _apply(self, x, join, reduce):
            if self.turned:
                return join(x[: self.k, None], x[None, self.k :]).ravel()
            x = x.reshape(self.k, self.k)
            return jnp.concatenate([reduce(x, axis=1), reduce(x, axis=0)])

    def matrix(value):
        if value is None:
            return None
        if operator:
            return Sums(value.shape[0] // 2)
        return BCOO.from_scipy_sparse(value)

    def solve(program):
        zeros = lambda side: None if side is None else jnp.zeros_like(side)
        prices = Multipliers(*map(zeros, (program.b, program.h, program.lower)))
        point = Point(jnp.zeros_like(program.q), prices)
        run, report = iterate(
            None, PDHG(tol=tol), point, program, tol=jnp.float64(tol), max_steps=100_000
        )
        return run.steps, report.point

    P, A, G = matrix(program.P), matrix(program.A), matrix(program.G)
    vectors = program.q, program.b, program.h, program.lower
    q, b, h, lower = (None if v is None else jnp.asarray(v) for v in vectors)
    data = QuadraticProgram(P, q, A, b, G, h, lower)
    start = time.perf_counter()
    compiled = jax.jit(solve).lower(data).compile()
    compile_seconds = time.perf_counter() - start
    start = time.perf_counter()
    steps, point = jax.block_until_ready(compiled(data))
    seconds = time.perf_counter() - start
    m = point.multipliers
    return point.x, m.eq, m.ineq, seconds, compile_seconds, f"{64 * int(steps)}"


def mpax(program: Sparse, tol: float):
    """Its rows are Gx >= h, its prices have the other sign on equations."""
    import jax
    import jax.numpy as jnp
    from jax.experimental.sparse import BCOO
    from mpax import create_lp, create_qp, r2HPDHG, raPDHG

    n = len(program.q)
    matrix = lambda M: jnp.zeros((0, n)) if M is None else BCOO.from_scipy_sparse(M)
    side = lambda v: np.zeros(0) if v is None else v
    lower = np.full(n, -np.inf) if program.lower is None else program.lower
    G = None if program.G is None else -program.G
    rows = (matrix(program.A), side(program.b), matrix(G), -side(program.h))
    rows = (*rows, lower, np.full(n, np.inf))
    if program.P is None:
        data, kind = create_lp(program.q, *rows), r2HPDHG
    else:
        data, kind = create_qp(matrix(program.P), program.q, *rows), raPDHG
    start = time.perf_counter()
    solver = kind(eps_abs=tol, eps_rel=tol)
    compiled = jax.jit(lambda data: solver.optimize(data)).lower(data).compile()
    compile_seconds = time.perf_counter() - start
    start = time.perf_counter()
    result = jax.block_until_ready(compiled(data))
    seconds = time.perf_counter() - start
    y, m = np.asarray(result.dual_solution), 0 if program.A is None else program.A.shape[0]
    steps = f"{int(result.iteration_count)}"
    return result.primal_solution, -y[:m], y[m:], seconds, compile_seconds, steps


def highs(program: Sparse, tol: float):
    """With its own choice of method and tolerances."""
    import highspy

    P, q, A, b, G, h, lower = program
    n, inf = len(q), highspy.kHighsInf
    model = highspy.HighsModel()
    lp = model.lp_
    rows = sp.vstack([M for M in (A, G) if M is not None]).tocsc()
    lp.num_col_, lp.num_row_ = n, rows.shape[0]
    lp.col_cost_, lp.col_upper_ = q, np.full(n, inf)
    lp.col_lower_ = np.full(n, -inf) if lower is None else lower
    b, h = (np.zeros(0) if v is None else v for v in (b, h))
    lp.row_lower_ = np.concatenate([b, np.full(len(h), -inf)])
    lp.row_upper_ = np.concatenate([b, h])
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = rows.indptr, rows.indices
    lp.a_matrix_.value_ = rows.data
    if P is not None:
        lower_half = sp.tril(P).tocsc()
        model.hessian_.dim_ = n
        model.hessian_.format_ = highspy.HessianFormat.kTriangular
        model.hessian_.start_, model.hessian_.index_ = lower_half.indptr, lower_half.indices
        model.hessian_.value_ = lower_half.data
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.passModel(model)
    start = time.perf_counter()
    solver.run()
    seconds = time.perf_counter() - start
    solution = solver.getSolution()
    y = -np.array(solution.row_dual)
    return np.array(solution.col_value), y[: len(b)], y[len(b) :], seconds, 0.0, "-"


SOLVERS = {
    "PDHG": ours,
    "PDHG, operator": lambda program, tol: ours(program, tol, operator=True),
    "MPAX": mpax,
    "HiGHS": highs,
}


# -- processes -------------------------------------------------------------------------------------


def work(solver: str, problem: str, tol: float, quick: bool) -> None:
    """Solve once and say what came of it, as JSON on the last line."""
    import jax

    jax.config.update("jax_enable_x64", True)
    jax.numpy.zeros(1).block_until_ready()
    program = make(problem, quick)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    x, eq, ineq, seconds, compiling, steps = SOLVERS[solver](program, tol)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    arrays = (np.zeros(0) if v is None else np.asarray(v) for v in (x, eq, ineq))
    error = judge(program, *arrays)
    told = {"seconds": seconds, "compile": compiling, "steps": steps, "error": error}
    print(json.dumps(told | {"peak": peak, "base": base}))


def _told(solver: str, problem: str, tol: float, quick: bool) -> dict | str:
    """What a process of its own says, or why it says nothing."""
    call = [sys.executable, "-m", __name__, solver, problem, str(tol)] + ["--quick"] * quick
    limit = LIMIT.get(problem, USUAL)
    try:
        done = subprocess.run(call, capture_output=True, text=True, timeout=limit, check=False)
    except subprocess.TimeoutExpired:
        return f"> {limit:.0f}"
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return "failed"
    return json.loads(done.stdout.splitlines()[-1])


def _row(solver: str, problem: str, tol: float | None, quick: bool) -> list[Any]:
    told = _told(solver, problem, tol or 1e-7, quick)
    head = [f"{solver}, {tol:g}" if tol else solver]
    if isinstance(told, str):
        row = [*head, told, None, None, None, None]
    else:
        row = [*head, *(told[key] for key in ("seconds", "compile", "steps", "error"))]
        row.append(int(told["peak"]))
    print(problem, row, flush=True)
    return row


HEADER = ("solver, asked", "seconds", "compile", "iterations", "error", "MB")


def _block(problem: str, asked: list[tuple[str, float | None]], quick: bool) -> str:
    program = make(problem, quick)
    size = sum(M.nnz for M in (program.P, program.A, program.G) if M is not None)
    rows = sum(M.shape[0] for M in (program.A, program.G) if M is not None)
    title = f"{problem}: {len(program.q):,} unknowns, {rows:,} rows, {size:,} non-zeros"
    lines = [_row(solver, problem, tol, quick) for solver, tol in asked]
    return table(HEADER, lines, title)


@benchmark("sparse", "Large sparse programs against HiGHS and MPAX")
def sparse(quick: bool) -> list[str]:
    asked = [(solver, tol) for solver in ("PDHG", "MPAX") for tol in (1e-4, 1e-6)]
    asked.append(("HiGHS", None))
    problems = [problem for problem in PROBLEMS if problem != "transport"]
    notes = NOTES.format(base=200, limit=USUAL)
    return [notes, *(_block(problem, asked, quick) for problem in problems)]


@benchmark("transport", "A transport problem with a million unknowns to 1e-4")
def million(quick: bool) -> list[str]:
    asked = [("PDHG, operator", 1e-4), ("MPAX", 1e-4), ("HiGHS", None)]
    notes = NOTES.format(base=200, limit=LIMIT["transport"])
    return [notes, _block("transport", asked, quick)]


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    parser = argparse.ArgumentParser()
    parser.add_argument("solver", choices=SOLVERS)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("tol", type=float)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    work(options.solver, options.problem, options.tol, options.quick)
