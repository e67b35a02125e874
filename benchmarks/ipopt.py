"""IPOPT, and POUNCE, which has its interface, with jitted JAX callbacks.

Derivatives are exact, second ones included; matrices are dense; the functions are compiled once and
take the data of an instance as further arguments, as in a batch of ours.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .peers import Info

INFINITE = 2e19  # for IPOPT


class Callbacks:
    """What IPOPT calls, for the problem with the `data` set last."""

    def __init__(self, p: Any, n: int, data: tuple):
        self.data = data
        parts = [part for part in (p.eq, p.ineq) if part is not None]
        nothing = lambda x: jnp.zeros(0, x.dtype)
        rows = lambda x, *d: jnp.concatenate(
            [jnp.atleast_1d(g(x, *d)) for g in parts] or [nothing(x)]
        )
        count = lambda f: jax.eval_shape(lambda x: jnp.atleast_1d(f(x, *data)), jnp.zeros(n)).shape[
            0
        ]
        self.m, self.equations = count(rows), count(p.eq) if p.eq else 0
        self.lower_triangle = np.tril_indices(n)
        self.shape = n, self.m
        self.evaluations = self.iterations = 0

        def lagrangian(x, prices, weight, *d):
            return weight * p.objective(x, *d) + prices @ rows(x, *d)

        self._value, self._gradient = jax.jit(p.objective), jax.jit(jax.grad(p.objective))
        self._rows, self._jacobian = jax.jit(rows), jax.jit(jax.jacfwd(rows))
        self._hessian = jax.jit(jax.hessian(lagrangian))

    def objective(self, x):
        self.evaluations += 1
        return float(self._value(x, *self.data))

    def gradient(self, x):
        return np.asarray(self._gradient(x, *self.data))

    def constraints(self, x):
        return np.asarray(self._rows(x, *self.data))

    def jacobian(self, x):
        return np.asarray(self._jacobian(x, *self.data)).ravel()

    def jacobianstructure(self):
        n, m = self.shape
        return np.repeat(np.arange(m), n), np.tile(np.arange(n), m)

    def hessian(self, x, prices, weight):
        full = self._hessian(x, np.asarray(prices, float), weight, *self.data)
        return np.asarray(full)[self.lower_triangle]

    def hessianstructure(self):
        return self.lower_triangle

    def intermediate(self, *told):
        self.iterations = int(told[1])
        return True


def runner(cls: type, p: Any, max_steps: int, data: tuple = ()) -> Callable:
    """`run(x0, *data) -> (x, Info)`; p has objective, eq, ineq (or None), lower and upper."""
    n = len(p.lower)
    calls = Callbacks(p, n, data)
    sides = [np.where(np.isfinite(b), b, s * INFINITE) for b, s in ((p.lower, -1), (p.upper, 1))]
    low = np.where(np.arange(calls.m) < calls.equations, 0.0, -INFINITE)
    problem = cls(
        n=n, m=calls.m, problem_obj=calls, lb=sides[0], ub=sides[1], cl=low, cu=np.zeros(calls.m)
    )
    options = {"print_level": 0, "sb": "yes", "max_iter": min(max_steps, 3000)}
    options["bound_relax_factor"] = 0.0  # else limits are missed by 1e-8 times their size
    for option, value in options.items():
        problem.add_option(option, value)

    def run(x0, *data):
        calls.data, calls.evaluations, calls.iterations = data, 0, 0
        x, info = problem.solve(np.asarray(x0))
        return x, Info(info["status"] == 0, calls.iterations, calls.evaluations)

    return run
