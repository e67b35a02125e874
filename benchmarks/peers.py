"""Every solver behind one signature: `make(fun, tol, max_steps)`, `run(x0, *args)`, `(x, Info)`.

Each is asked for what lets it reach a gradient of `tol`, in its own terms:

    jaxopt_lite    tol on ||grad f||_inf                      the judge's own test
    JAXopt         tol on ||grad f||_2                        a little stricter, up to sqrt(n)
    Optimistix     rtol = atol = tol / 10,000 on changes of x and f, its only test
    optax          tol on ||grad f||_inf                      the loop of optax's docs, written here
    jax.scipy      gtol on ||grad f||_inf
    SciPy          gtol (inf-norm; 2-norm in trust-exact), ftol = 0; derivatives are jitted JAX
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.optimize as jso
import jaxopt
import numpy as np
import optax
import optimistix as optx
import scipy.optimize as so

import jaxopt_lite as jol


class Info(NamedTuple):
    """What a solver says: has it converged, its iterations and evaluations of f (-1: unknown)."""

    claims: Any
    iterations: Any
    evaluations: Any = -1


@dataclasses.dataclass(frozen=True)
class Peer:
    """A named `make`; `traceable` says whether `run` may be jitted and vmapped."""

    name: str
    make: Callable[[Callable, float, int], Callable]
    traceable: bool = True

    def compiled(self, fun: Callable, tol: float = 1e-6, max_steps: int = 5000) -> Callable:
        """`run`, jitted where possible."""
        run = self.make(fun, tol, max_steps)
        return jax.jit(run) if self.traceable else run


# -- ours -----------------------------------------------------------------------------------------


def ours(name: str, solver: jol.Solver | None, **options: Any) -> Peer:
    """One of our solvers; None is the default."""

    def make(fun, tol, max_steps):
        problem = jol.Problem(fun)

        def run(x0, *args):
            s = jol.solve(problem, x0, args, solver=solver, tol=tol, max_steps=max_steps, **options)
            return s.x, Info(s.success, s.state.accepted, s.steps)

        return run

    return Peer(f"ours {name}", make)


# -- peers ----------------------------------------------------------------------------------------


def jaxopt_peer(name: str, cls: type, **options: Any) -> Peer:
    """A solver of JAXopt."""

    def make(fun, tol, max_steps):
        solver = cls(fun, tol=tol, maxiter=max_steps, **options)

        def run(x0, *args):
            x, state = solver.run(x0, *args)
            return x, Info(state.error <= tol, state.iter_num, state.num_fun_eval)

        return run

    return Peer(f"JAXopt {name}", make)


def optimistix_peer(name: str, cls: type) -> Peer:
    """A minimiser of Optimistix."""

    def make(fun, tol, max_steps):
        def objective(y, args):
            return fun(y, *args)

        def run(x0, *args):
            solver = cls(rtol=tol / 1e4, atol=tol / 1e4)
            s = optx.minimise(objective, solver, x0, args, max_steps=max_steps, throw=False)
            steps = s.stats["num_steps"]
            return s.value, Info(s.result == optx.RESULTS.successful, steps, steps)

        return run

    return Peer(f"Optimistix {name}", make)


def _optax_lbfgs(fun, tol, max_steps):
    def run(x0, *args):
        optimiser = optax.lbfgs()

        def value(x):
            return fun(x, *args)

        value_and_grad = optax.value_and_grad_from_state(value)

        def size(state):
            return jnp.max(jnp.abs(optax.tree.get(state, "grad")))

        def going(carry):
            _, state, _ = carry
            count = optax.tree.get(state, "count")
            return (count == 0) | ((count < max_steps) & (size(state) > tol))

        def advance(carry):
            x, state, evaluations = carry
            v, g = value_and_grad(x, state=state)
            updates, state = optimiser.update(g, state, x, value=v, grad=g, value_fn=value)
            searched = optax.tree.get(state, "num_linesearch_steps")
            return optax.apply_updates(x, updates), state, evaluations + searched

        start = (x0, optimiser.init(x0), jnp.asarray(1))
        x, state, evaluations = jax.lax.while_loop(going, advance, start)
        return x, Info(size(state) <= tol, optax.tree.get(state, "count"), evaluations)

    return run


def _jax_scipy_bfgs(fun, tol, max_steps):
    def run(x0, *args):
        r = jso.minimize(fun, x0, args, method="BFGS", tol=tol, options={"maxiter": max_steps})
        return r.x, Info(r.success, r.nit, r.nfev)

    return run


def scipy_peer(method: str, **options: Any) -> Peer:
    """A method of `scipy.optimize.minimize` with jitted derivatives."""

    def make(fun, tol, max_steps):
        value_and_grad = jax.jit(jax.value_and_grad(fun))
        hessian = jax.jit(jax.hessian(fun)) if method == "trust-exact" else None

        def both(x, *args):
            value, gradient = value_and_grad(x, *args)
            return float(value), np.asarray(gradient)

        def second(x, *args):
            return np.asarray(hessian(x, *args))

        def run(x0, *args):
            r = so.minimize(
                both,
                np.asarray(x0),
                args,
                method,
                jac=True,
                hess=second if hessian else None,
                options={"gtol": tol, "maxiter": max_steps, **options},
            )
            accepted = r.nhev - 1 if hessian else r.nit  # a Hessian at each accepted point
            return r.x, Info(r.success, accepted, r.nfev)

        return run

    return Peer(f"SciPy {method}", make, traceable=False)


LBFGS = ours("LBFGS", jol.LBFGS())
DEFAULT = ours("default", None)
GRADIENT_DESCENT = ours("GradientDescent", jol.GradientDescent())
TRUST_REGION_CG = ours("TrustRegion cg", jol.TrustRegion("cg"))

JAXOPT_ZOOM = jaxopt_peer("LBFGS zoom", jaxopt.LBFGS, linesearch="zoom")
JAXOPT_BACKTRACKING = jaxopt_peer("LBFGS backtracking", jaxopt.LBFGS, linesearch="backtracking")
JAXOPT_HAGER_ZHANG = jaxopt_peer("LBFGS hager-zhang", jaxopt.LBFGS, linesearch="hager-zhang")
JAXOPT_BFGS = jaxopt_peer("BFGS", jaxopt.BFGS)
OPTIMISTIX_BFGS = optimistix_peer("BFGS", optx.BFGS)
OPTIMISTIX_LBFGS = optimistix_peer("LBFGS", optx.LBFGS)
OPTAX_LBFGS = Peer("optax lbfgs", _optax_lbfgs)
JAX_SCIPY_BFGS = Peer("jax.scipy BFGS", _jax_scipy_bfgs)
SCIPY_LBFGSB = scipy_peer("L-BFGS-B", ftol=0, maxfun=100_000)
SCIPY_BFGS = scipy_peer("BFGS")
SCIPY_TRUST_EXACT = scipy_peer("trust-exact")
