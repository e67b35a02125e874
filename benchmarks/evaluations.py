"""Evaluations of f for each accepted step, method by method: what a search costs."""

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import scipy.optimize as so

import jaxopt_lite as jol

from . import peers
from .harness import Judge, benchmark, table
from .peers import Info, Peer

TOL, MAX_STEPS = 1e-6, 5000
GROUPS = {
    "L-BFGS": (
        peers.LBFGS, peers.SCIPY_LBFGSB, peers.OPTAX_LBFGS, peers.JAXOPT_ZOOM,
        peers.JAXOPT_BACKTRACKING,
    ),
    "BFGS": (peers.ours("BFGS", jol.BFGS()), peers.SCIPY_BFGS, peers.JAXOPT_BFGS),
    "conjugate gradients": (
        peers.ours("NonlinearCG", jol.NonlinearCG()),
        peers.scipy_peer("CG"),
        peers.jaxopt_peer("NonlinearCG", jaxopt.NonlinearCG),
    ),
    "Newton in a trust region": (peers.DEFAULT, peers.SCIPY_TRUST_EXACT),
}  # fmt: skip


def _ours_least_squares(fun, tol, max_steps):
    def run(x0, *args):
        s = jol.least_squares(fun, x0, args, tol=tol, max_steps=max_steps)
        return s.x, Info(s.success, s.state.accepted, s.steps)

    return run


def _scipy_least_squares(fun, tol, max_steps):
    residual, jacobian = jax.jit(fun), jax.jit(jax.jacfwd(fun))

    def run(x0, *args):
        r = so.least_squares(
            lambda x, *a: np.asarray(residual(x, *a)), np.asarray(x0),
            lambda x, *a: np.asarray(jacobian(x, *a)), args=args,
            ftol=None, xtol=1e-15, gtol=tol, max_nfev=max_steps,
        )  # fmt: skip
        return r.x, Info(r.status == 1, r.njev - 1, r.nfev)  # a Jacobian at each accepted point

    return run


LEAST_SQUARES = (
    Peer("ours LevenbergMarquardt", _ours_least_squares),
    Peer("SciPy least_squares trf", _scipy_least_squares, traceable=False),
)


@benchmark("evaluations", "evaluations for each accepted step")
def evaluations(quick: bool) -> list[str]:
    from tests.nist import SETS
    from tests.problems import CASES

    cases = [(case.objective, case.objective, case.x0, case.args, case.minima) for case in CASES]
    fits = [
        (fit.residual, _half_square(fit.residual), start, (fit.x, fit.y), (fit.sum_of_squares / 2,))
        for fit in SETS
        for start in fit.starts
    ]
    rows = []
    for name, group in GROUPS.items():
        rows += _rows(name, group, cases[::12] if quick else cases)
    rows += _rows("least squares (NIST)", LEAST_SQUARES, fits[::20] if quick else fits)
    return [
        table(["method", "solver", "evaluations", "accepted", "a step", "solved by all"], rows),
        "Sums over the problems that every solver of the method solves; the start counts.",
    ]


def _half_square(residual):
    return lambda p, *args: 0.5 * jnp.sum(residual(p, *args) ** 2)


def _rows(method: str, group: tuple[Peer, ...], cases: list) -> list[list]:
    counts = []
    for posed, objective, x0, args, minima in cases:
        x0, args = jnp.asarray(x0), jax.tree.map(jnp.asarray, args)
        judge, row = Judge(objective, minima), []
        for peer in group:
            try:
                x, info = peer.compiled(posed, TOL, MAX_STEPS)(x0, *args)
            except ValueError:  # SciPy's trust-exact meets a NaN
                break
            if not judge(x, x0, *args).solved_scaled(TOL):
                break
            row.append((int(info.evaluations), int(info.iterations)))
        if len(row) == len(group):
            counts.append(row)
        jax.clear_caches()
    sums = np.sum(np.array(counts).reshape(-1, len(group), 2), axis=0)
    return [
        [method, peer.name, f"{count}", f"{accepted}", count / max(accepted, 1), f"{len(counts)}"]
        for peer, (count, accepted) in zip(group, sums, strict=True)
    ]
