"""Who takes part: every solver as a `peers.Peer`, asked for a gradient of `tol`."""

import dataclasses

import jax
import jaxopt
import numpy as np
import optimistix as optx
import scipy.optimize as so

import jaxopt_lite as jol

from .. import peers
from ..peers import Info, Peer
from .constrained import for_bounds, for_constraints
from .said import said

CHANGES = 1e-6  # / 10,000 is what Optimistix is asked for, whatever the tolerance of the others
OURS_FOR_RESIDUALS = ("LevenbergMarquardt", "GaussNewton", "Dogleg")
OURS = ("BFGS", "SR1", "Newton", "NewtonCG", "CubicNewton", "SaddleFreeNewton", "NonlinearCG")


def contestants(family: str, words: str = "") -> list[Peer]:
    """Those whose name contains one of the comma-separated `words`; all if there are none."""
    everyone = {
        "unconstrained": _for_objectives,
        "equations": _for_residuals,
        "bounded": for_bounds,
        "constrained": for_constraints,
    }[family]()
    asked = [word.strip().lower() for word in words.split(",") if word.strip()]
    return [p for p in everyone if not asked or any(word in p.name.lower() for word in asked)]


# -- an objective ---------------------------------------------------------------------------------


def _for_objectives() -> list[Peer]:
    """Of ours, those that need no step size."""
    return [
        _ours("default", None),
        _ours("TrustRegion exact", jol.TrustRegion("exact")),
        _ours("TrustRegion cg", jol.TrustRegion("cg")),
        _ours("LBFGS", jol.LBFGS()),
        *(_ours(name, getattr(jol, name)()) for name in OURS if hasattr(jol, name)),
        _changes(peers.OPTIMISTIX_BFGS),
        _changes(peers.OPTIMISTIX_LBFGS),
        peers.JAXOPT_ZOOM,
        peers.JAXOPT_BACKTRACKING,
        peers.JAXOPT_BFGS,
        peers.OPTAX_LBFGS,
        peers.SCIPY_BFGS,
        peers.SCIPY_LBFGSB,
        peers.SCIPY_TRUST_EXACT,
    ]


def _ours(name: str, solver: jol.Solver | None) -> Peer:
    def make(fun, tol, max_steps):
        problem = jol.Problem(fun)

        def run(x0):
            return said(jol.solve(problem, x0, solver=solver, tol=tol, max_steps=max_steps))

        return run

    return Peer(f"ours {name}", make)


def _changes(peer: Peer) -> Peer:
    """A peer with no test on the gradient: asked for the same changes whatever `tol` is."""
    return dataclasses.replace(peer, make=lambda fun, tol, steps: peer.make(fun, CHANGES, steps))


# -- residuals ------------------------------------------------------------------------------------


def _for_residuals() -> list[Peer]:
    """Of ours, `least_squares` with each solver made for it."""
    ours = []
    if hasattr(jol, "least_squares"):
        ours = [_our_residuals("least_squares default", None)]
        there = [name for name in OURS_FOR_RESIDUALS if hasattr(jol, name)]
        ours += [_our_residuals(name, getattr(jol, name)()) for name in there]
    return [
        *ours,
        _optimistix_residuals(optx.LevenbergMarquardt),
        _optimistix_residuals(optx.Dogleg),
        _jaxopt_residuals(),
        _scipy_residuals("trf"),
        _scipy_residuals("lm"),
    ]


def _our_residuals(name: str, solver: jol.Solver | None) -> Peer:
    def make(fun, tol, max_steps):
        def run(x0):
            return said(jol.least_squares(fun, x0, solver=solver, tol=tol, max_steps=max_steps))

        return run

    return Peer(f"ours {name}", make)


def _optimistix_residuals(cls: type) -> Peer:
    def make(fun, tol, max_steps):
        def residuals(y, args):
            return fun(y)

        def run(x0):
            solver = cls(rtol=CHANGES / 1e4, atol=CHANGES / 1e4)
            s = optx.least_squares(residuals, solver, x0, max_steps=max_steps, throw=False)
            steps = s.stats["num_steps"]
            return s.value, Info(s.result == optx.RESULTS.successful, steps, steps)

        return run

    return Peer(f"Optimistix {cls.__name__}", make)


def _jaxopt_residuals() -> Peer:
    def make(fun, tol, max_steps):
        solver = jaxopt.LevenbergMarquardt(
            fun, tol=tol, maxiter=max_steps, solver="qr", materialize_jac=True,
            stop_criterion="grad-l2-norm",
        )  # fmt: skip

        def run(x0):
            x, state = solver.run(x0)
            return x, Info(state.error <= tol, state.iter_num, state.iter_num)

        return run

    return Peer("JAXopt LevenbergMarquardt", make)


def _scipy_residuals(method: str) -> Peer:
    tiny = float(np.finfo(float).eps)

    def make(fun, tol, max_steps):
        residuals, jacobian = jax.jit(fun), jax.jit(jax.jacfwd(fun))
        # the `gtol` of "lm" is a cosine, that of "trf" ours
        stop = {"ftol": tiny, "xtol": tiny, "gtol": tol if method == "trf" else tiny}

        def run(x0):
            r = so.least_squares(
                lambda x: np.asarray(residuals(x)),
                np.asarray(x0),
                lambda x: np.asarray(jacobian(x)),
                method=method,
                max_nfev=max_steps,
                **stop,
            )
            return r.x, Info(r.success, r.njev or -1, r.nfev)

        return run

    return Peer(f"SciPy least_squares {method}", make, traceable=False)
