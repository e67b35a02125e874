"""Who takes part with bounds and constraints, each asked for a KKT point in its own terms.

jaxopt_lite      tol on every unscaled residual
IPOPT, POUNCE    tol 1e-8 on the scaled KKT error, their default; exact Hessians
trust-constr     gtol and barrier_tol; exact Hessians
SLSQP            ftol = tol^2 on changes of f
slsqp-jax        its defaults, rtol = atol = tol
JAXopt LBFGSB    tol on the projected gradient
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optimistix as optx
import scipy.optimize as so

import jaxopt_lite as jol

from .. import ipopt
from ..peers import Info, Peer
from .programs import Program
from .said import said


def for_bounds() -> list[Peer]:
    """Contestants for f within bounds."""
    ours = ("InteriorPoint", "TRON", "LBFGSB", "ProjectedGradient")
    return [
        _ours("default", None),
        *(_ours(name, getattr(jol, name)()) for name in ours if hasattr(jol, name)),
        *_interior_points(),
        Peer("JAXopt LBFGSB", _jaxopt_lbfgsb),
        Peer("SciPy L-BFGS-B", _scipy_lbfgsb, traceable=False),
        *_scipy(),
        Peer("slsqp-jax", _slsqp_jax),
    ]


def for_constraints() -> list[Peer]:
    """Contestants for programs."""
    ours = ("AugmentedLagrangian", "SQP")
    return [
        _ours("default", None),
        *(_ours(name, getattr(jol, name)()) for name in ours if hasattr(jol, name)),
        *_interior_points(),
        *_scipy(),
        Peer("slsqp-jax", _slsqp_jax),
    ]


def _ours(name: str, solver: jol.Solver | None) -> Peer:
    def make(p: Program, tol, max_steps):
        problem = jol.Problem(p.objective, eq=p.eq, ineq=p.ineq, bounds=p.bounds)

        def run(x0):
            return said(jol.solve(problem, x0, solver=solver, tol=tol, max_steps=max_steps))

        return run

    return Peer(f"ours {name}", make)


def _interior_points() -> list[Peer]:
    import cyipopt
    import pounce

    def peer(name: str, cls: type) -> Peer:
        return Peer(name, lambda p, tol, steps: ipopt.runner(cls, p, steps), traceable=False)

    return [peer("IPOPT", cyipopt.Problem), peer("POUNCE", pounce.Problem)]


# -- SciPy -----------------------------------------------------------------------------------------


def _scipy() -> list[Peer]:
    return [
        Peer("SciPy trust-constr", _trust_constr, traceable=False),
        Peer("SciPy SLSQP", _slsqp, traceable=False),
    ]


def _host(fun: Callable) -> Callable:
    """A jitted function of NumPy arrays."""
    jitted = jax.jit(fun)
    return lambda *operands: np.asarray(jitted(*operands))


def _scipy_bounds(p: Program) -> so.Bounds | None:
    return None if p.bounds is None else so.Bounds(p.lower, p.upper)


def _trust_constr(p: Program, tol, max_steps):
    steps = min(max_steps, 3000)
    constraints = []
    for rows, low in ((p.eq, 0.0), (p.ineq, -np.inf)):
        if rows is not None:
            weighted = jax.hessian(lambda x, v, rows=rows: v @ rows(x))
            constraints.append(
                so.NonlinearConstraint(
                    _host(rows), low, 0.0, _host(jax.jacfwd(rows)), _host(weighted)
                )
            )
    value, slope, bend = (
        _host(f) for f in (p.objective, jax.grad(p.objective), jax.hessian(p.objective))
    )

    def run(x0):
        r = so.minimize(
            lambda x: float(value(x)), np.asarray(x0), method="trust-constr", jac=slope, hess=bend,
            bounds=_scipy_bounds(p), constraints=constraints,
            options={"gtol": tol, "xtol": 1e-12, "barrier_tol": tol, "maxiter": steps},
        )  # fmt: skip
        return r.x, Info(r.status in (1, 2) and r.constr_violation <= tol, r.nit, r.nfev)

    return run


def _slsqp(p: Program, tol, max_steps):
    constraints = []
    for kind, rows, sign in (("eq", p.eq, 1.0), ("ineq", p.ineq, -1.0)):
        if rows is not None:
            signed = lambda x, rows=rows, sign=sign: sign * rows(x)
            constraints.append(
                {"type": kind, "fun": _host(signed), "jac": _host(jax.jacfwd(signed))}
            )
    value, slope = _host(p.objective), _host(jax.grad(p.objective))

    def run(x0):
        r = so.minimize(
            lambda x: float(value(x)), np.asarray(x0), method="SLSQP", jac=slope,
            bounds=_scipy_bounds(p), constraints=constraints,
            options={"ftol": tol**2, "maxiter": min(max_steps, 3000)},
        )  # fmt: skip
        return r.x, Info(r.success, r.nit, r.nfev)

    return run


def _scipy_lbfgsb(p: Program, tol, max_steps):
    both = jax.jit(jax.value_and_grad(p.objective))

    def pair(x):
        value, gradient = both(x)
        return float(value), np.asarray(gradient)

    def run(x0):
        r = so.minimize(
            pair, np.asarray(x0), method="L-BFGS-B", jac=True, bounds=_scipy_bounds(p),
            options={"gtol": tol, "ftol": 0, "maxiter": max_steps, "maxfun": 100_000},
        )  # fmt: skip
        return r.x, Info(r.success, r.nit, r.nfev)

    return run


# -- JAX -------------------------------------------------------------------------------------------


def _jaxopt_lbfgsb(p: Program, tol, max_steps):
    solver = jaxopt.LBFGSB(p.objective, tol=tol, maxiter=max_steps)

    def run(x0):
        x, state = solver.run(x0, bounds=(jnp.asarray(p.lower), jnp.asarray(p.upper)))
        return x, Info(state.error <= tol, state.iter_num, state.num_fun_eval)

    return run


def _slsqp_jax(p: Program, tol, max_steps):
    import slsqp_jax

    count = lambda rows: jax.eval_shape(rows, jnp.zeros(len(p.lower))).shape[0] if rows else 0
    options: dict[str, Any] = {}
    if p.eq is not None:
        options |= {"eq_constraint_fn": lambda x, args: p.eq(x), "n_eq_constraints": count(p.eq)}
    if p.ineq is not None:
        options |= {
            "ineq_constraint_fn": lambda x, args: -p.ineq(x),
            "n_ineq_constraints": count(p.ineq),
        }
    if p.bounds is not None:
        options["bounds"] = jnp.stack([jnp.asarray(p.lower), jnp.asarray(p.upper)], axis=1)
    solver = slsqp_jax.SLSQP(**options)

    def run(x0):
        s = optx.minimise(
            lambda x, args: (p.objective(x), None), solver, x0, has_aux=True,
            max_steps=min(max_steps, 1000), throw=False,
        )  # fmt: skip
        steps = s.stats["num_steps"]
        return s.value, Info(s.result == optx.RESULTS.successful, steps, steps)

    return run
