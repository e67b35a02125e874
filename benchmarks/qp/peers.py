"""Every solver behind one signature: `make(program, tol)` prepares, `run()` solves: an `Answer`.

Each is asked for absolute residuals of `tol`, without a relative part where it has one, and for a
gap of `tol`. What a user would do once, bringing the data into the form
of the solver and compiling, is in `make`; setting the solver up and solving is in `run`.
"""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp

from .programs import Answer, Program

Run = Callable[[], Answer]
STEPS = 1000  # of interior points; first-order methods get 100 times as many, JAXopt 4


@dataclasses.dataclass(frozen=True)
class Peer:
    """A named `make`, and the package it comes from; of ours none."""

    name: str
    make: Callable[[Program, float], Run]
    package: str = ""

    @property
    def version(self) -> str:
        return importlib.metadata.version(self.package) if self.package else "here"


def _sparse(matrix: Any) -> Any:
    return sp.csc_matrix(matrix)


def _dense(matrix: Any) -> np.ndarray:
    return np.ascontiguousarray(matrix.toarray() if sp.issparse(matrix) else matrix)


def _curvature(program: Program) -> Any:
    n = len(program.q)
    return sp.csc_matrix((n, n)) if program.P is None else program.P


def _equal_and_other(p: Program) -> tuple[Any, ...]:
    """A, b, G, low, high; and `join(y, z)` -> the prices of the rows."""
    equal = p.least == p.most

    def join(y, z):
        price = np.zeros(len(equal))
        price[equal], price[~equal] = y, z
        return price

    return p.rows[equal], p.most[equal], p.rows[~equal], p.least[~equal], p.most[~equal], join


# -- in JAX ---------------------------------------------------------------------------------------


@functools.cache
def _solve():
    """Compiled once for all programs of the same shapes."""
    import jax

    import jaxopt_lite as jol

    return jax.jit(lambda program, tol: jol.solve_qp(*program, tol=tol))


def _ours(program, tol):
    import jax

    import jaxopt_lite as jol

    P, q, rows, *sides = program
    P = None if P is None else _dense(P)
    data = jol.QuadraticProgram.from_rows(P, q, _dense(rows), *sides)
    jax.block_until_ready(_solve()(data, tol))
    equal = program.least == program.most
    above, below = ~equal & np.isfinite(program.most), ~equal & np.isfinite(program.least)

    def run():
        s = jax.block_until_ready(_solve()(data, tol))
        m = jax.device_get(s.multipliers)
        y, w = np.zeros(len(equal)), np.zeros(len(q))
        if m.eq is not None:
            y[equal] = m.eq
        if m.ineq is not None:
            y[above] += m.ineq[: above.sum()]
            y[below] -= m.ineq[above.sum() :]
        for price, sign in ((m.lower, -1), (m.upper, 1)):
            if price is not None:
                w += sign * np.asarray(price)
        return Answer(np.asarray(s.x), y, w, jol.Status(int(s.status)).name, int(s.steps))

    return run


def _qpax(backend):
    def make(program, tol):
        import jax
        import qpax

        A, b, G, h, join = program.one_sided()
        data = tuple(map(_dense, (_curvature(program), program.q, A, b, G, h)))
        options = {"backend": backend, "solver_tol": tol, "max_iter": 200}
        solve = jax.jit(lambda *data: qpax.solve_qp(*data, **options)).lower(*data).compile()

        def run():
            x, _, z, y, converged, steps = jax.block_until_ready(solve(*data))
            claims = "solved" if converged else "not converged"
            return Answer(np.asarray(x), *join(np.asarray(y), np.asarray(z)), claims, int(steps))

        return run

    return make


def _jaxopt(program, tol):
    import jax
    import jaxopt

    n, m = len(program.q), len(program.most)
    rows = np.vstack([_dense(program.rows), np.eye(n)])
    low = np.concatenate([program.least, program.lower])
    high = np.concatenate([program.most, program.upper])
    solver = jaxopt.BoxOSQP(tol=tol, maxiter=4 * STEPS, eq_qp_solve="lu")
    data = ((_dense(_curvature(program)), program.q), rows, (low, high))
    call = lambda objective, rows, sides: solver.run(None, objective, rows, sides)
    solve = jax.jit(call).lower(*data).compile()

    def run():
        answer, state = jax.block_until_ready(solve(*data))
        above, below = map(np.asarray, answer.dual_ineq)
        price = above - below
        x = np.asarray(answer.primal[0])
        claims = "solved" if int(state.status) == 1 else f"status {int(state.status)}"
        return Answer(x, price[:m], price[m:], claims, int(state.iter_num))

    return run


# -- interior points ------------------------------------------------------------------------------


def _piqp(solver, form):
    def make(program, tol):
        import piqp

        A, b, G, low, high, join = _equal_and_other(program)
        P, A, G = (form(matrix) for matrix in (_curvature(program), A, G))

        def run():
            s = getattr(piqp, solver)()
            s.settings.eps_abs, s.settings.eps_rel = tol, 0.0
            s.settings.eps_duality_gap_abs = s.settings.eps_duality_gap_rel = tol
            s.settings.max_iter, s.settings.check_duality_gap = STEPS, True
            s.setup(P, program.q, A, b, G, low, high, program.lower, program.upper)
            claims = s.solve().name
            r = s.result
            y = join(r.y, r.z_u - r.z_l)
            return Answer(r.x, y, r.z_bu - r.z_bl, claims, r.info.iter)

        return run

    return make


def _fortran(matrix):
    return np.asfortranarray(_dense(matrix))


def _clarabel(program, tol):
    import clarabel

    A, b, G, h, join = program.one_sided()
    cones = [clarabel.ZeroConeT(len(b)), clarabel.NonnegativeConeT(len(h))]
    P, rows = sp.triu(_sparse(_curvature(program)), format="csc"), _sparse(sp.vstack([A, G]))
    sides = np.concatenate([b, h])

    def run():
        settings = clarabel.DefaultSettings()
        settings.verbose, settings.max_iter = False, STEPS
        settings.tol_feas = settings.tol_gap_abs = tol
        settings.tol_gap_rel = 0.0  # its residuals are relative: without this it stops before
        s = clarabel.DefaultSolver(P, program.q, rows, sides, cones, settings).solve()
        z = np.asarray(s.z)
        prices = join(z[: len(b)], z[len(b) :])
        return Answer(np.asarray(s.x), *prices, str(s.status), s.iterations)

    return run


# -- first order and augmented Lagrangians --------------------------------------------------------


def _scs(program, tol):
    import scs

    A, b, G, h, join = program.one_sided()
    data = {
        "P": sp.triu(_sparse(_curvature(program)), format="csc"), "c": program.q,
        "A": _sparse(sp.vstack([A, G])), "b": np.concatenate([b, h]),
    }  # fmt: skip
    cone = {"z": len(b), "l": len(h)}
    options = {"eps_abs": tol, "eps_rel": 0.0, "max_iters": 100 * STEPS, "verbose": False}

    def run():
        s = scs.SCS(data, cone, **options).solve()
        prices = join(s["y"][: len(b)], s["y"][len(b) :])
        return Answer(s["x"], *prices, s["info"]["status"], s["info"]["iter"])

    return run


def _osqp(program, tol):
    import osqp

    n, m = len(program.q), len(program.most)
    P = sp.triu(_sparse(_curvature(program)), format="csc")
    rows = _sparse(sp.vstack([program.rows, sp.eye(n)]))
    low = np.concatenate([program.least, program.lower])
    high = np.concatenate([program.most, program.upper])
    options = {
        "eps_abs": tol, "eps_rel": 0.0, "max_iter": 100 * STEPS, "verbose": False,
        "polishing": True,
    }  # fmt: skip

    def run():
        s = osqp.OSQP()
        s.setup(P, program.q, rows, low, high, **options)
        r = s.solve()
        if r.x[0] is None:
            return Answer(np.full(n, np.nan), np.zeros(m), np.zeros(n), r.info.status, 0)
        return Answer(r.x, r.y[:m], r.y[m:], r.info.status, r.info.iter)

    return run


def _proxqp(program, tol):
    from proxsuite import proxqp

    A, b, G, low, high, join = _equal_and_other(program)
    A, G, P = _dense(A), _dense(G), _dense(_curvature(program))
    boxed = bool(np.isfinite(program.lower).any() or np.isfinite(program.upper).any())
    box = (np.maximum(program.lower, -1e30), np.minimum(program.upper, 1e30))
    low, high = np.maximum(low, -1e30), np.minimum(high, 1e30)
    n = len(program.q)

    def run():
        qp = proxqp.dense.QP(n, len(b), len(high), boxed)
        qp.settings.eps_abs, qp.settings.eps_rel, qp.settings.max_iter = tol, 0.0, 10 * STEPS
        qp.settings.check_duality_gap = True
        qp.settings.eps_duality_gap_abs, qp.settings.eps_duality_gap_rel = tol, 0.0
        qp.init(P, program.q, A, b, G, low, high, *(box if boxed else ()))
        qp.solve()
        r = qp.results
        y = join(r.y, r.z[: len(high)])
        w = r.z[len(high) :] if boxed else np.zeros(n)
        return Answer(r.x, y, w, r.info.status.name, r.info.iter)

    return run


# -- active sets ----------------------------------------------------------------------------------


def _daqp(program, tol):
    import daqp

    n = len(program.q)
    P, rows = _dense(_curvature(program)), _dense(program.rows)
    high = np.concatenate([program.upper, program.most])
    low = np.concatenate([program.lower, program.least])
    high, low = np.minimum(high, 1e30), np.maximum(low, -1e30)
    sense = np.where(low == high, 5, 0).astype(np.int32)
    options = {"primal_tol": tol, "dual_tol": tol, "iter_limit": 100 * STEPS}

    def run():
        x, _, flag, info = daqp.solve(P, program.q, rows, high, low, sense.copy(), **options)
        price = np.asarray(info["lam"])
        return Answer(np.asarray(x), price[n:], price[:n], f"exit {flag}", info["iterations"])

    return run


def _quadprog(program, tol):
    import quadprog

    A, b, G, h, join = program.one_sided()
    A, G, P = _dense(A), _dense(G), _dense(_curvature(program))
    columns = np.asfortranarray(-np.vstack([A, G]).T)
    sides = -np.concatenate([b, h])

    def run():
        x, _, _, steps, price, _ = quadprog.solve_qp(P, -program.q, columns, sides, len(b))
        prices = join(price[: len(b)], price[len(b) :])
        return Answer(x, *prices, "solved", int(steps[0]))

    return run


def _highs(program, tol):
    import highspy

    n, m = len(program.q), len(program.most)
    rows = sp.csc_matrix(program.rows)
    triangle = sp.tril(_sparse(_curvature(program)), format="csc")
    lp = highspy.HighsLp()
    lp.num_col_, lp.num_row_, lp.col_cost_ = n, m, program.q
    lp.col_lower_, lp.col_upper_ = program.lower, program.upper
    lp.row_lower_, lp.row_upper_ = program.least, program.most
    lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    lp.a_matrix_.start_, lp.a_matrix_.index_ = rows.indptr, rows.indices
    lp.a_matrix_.value_ = rows.data

    def run():
        h = highspy.Highs()
        h.setOptionValue("output_flag", False)
        h.setOptionValue("qp_regularization_value", 0.0)  # 1e-7 by default: too much for 1e-9
        for name in ("primal_feasibility_tolerance", "dual_feasibility_tolerance"):
            h.setOptionValue(name, max(tol, 1e-10))
        h.passModel(lp)
        if triangle.nnz:
            kind = highspy.HessianFormat.kTriangular
            parts = (triangle.indptr, triangle.indices, triangle.data)
            h.passHessian(n, triangle.nnz, int(kind), *parts)
        h.run()
        s, info = h.getSolution(), h.getInfo()
        status = h.modelStatusToString(h.getModelStatus())
        y, w = -np.asarray(s.row_dual), -np.asarray(s.col_dual)
        steps = max(info.simplex_iteration_count, info.qp_iteration_count)
        return Answer(np.asarray(s.col_value), y, w, status, steps)

    return run


OURS = Peer("ours", _ours)
PIQP = Peer("PIQP dense", _piqp("DenseSolver", _fortran), "piqp")
PROXQP = Peer("ProxQP dense", _proxqp, "proxsuite")
DAQP = Peer("DAQP", _daqp, "daqp")
QUADPROG = Peer("quadprog", _quadprog, "quadprog")
HIGHS = Peer("HiGHS", _highs, "highspy")
CLARABEL = Peer("Clarabel", _clarabel, "clarabel")
OSQP = Peer("OSQP", _osqp, "osqp")

EVERYONE = (
    OURS,
    Peer("qpax explicit", _qpax("e"), "qpax"),
    Peer("qpax implicit", _qpax("i"), "qpax"),
    Peer("JAXopt BoxOSQP lu", _jaxopt, "jaxopt"),
    Peer("PIQP sparse", _piqp("SparseSolver", _sparse), "piqp"),
    PIQP,
    CLARABEL,
    HIGHS,
    PROXQP,
    OSQP,
    Peer("SCS", _scs, "scs"),
    DAQP,
    QUADPROG,
)
