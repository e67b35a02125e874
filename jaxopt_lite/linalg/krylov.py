"""Krylov methods for symmetric systems given by products, each with the residual it reached."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax


class LinearSolution(NamedTuple):
    """x, whether ||b - A x||_2 <= tol ||b||_2 holds for the recomputed residual, and the products."""

    x: Array
    converged: Array
    products: Array


def conjugate_gradient(
    matvec: Callable[[Array], Array], rhs: Array, tol: float, max_steps: int
) -> LinearSolution:
    """Conjugate gradients for a symmetric positive semidefinite A and b in its range.

    Started at zero, so a singular consistent system gets its minimum-norm solution. Stops early,
    not converged, at a direction of curvature <= 0. One product a step, three vectors of memory.
    Source: Hestenes and Stiefel (1952).
    """
    target = tol * jnp.linalg.norm(rhs)

    def going(carry):
        _, _, _, rho, k, positive = carry
        return (jnp.sqrt(rho) > target) & (k < max_steps) & positive

    def advance(carry):
        x, r, p, rho, k, _ = carry
        product = matvec(p)
        curvature = p @ product
        positive = curvature > 0
        alpha = jnp.where(positive, rho / jnp.where(positive, curvature, 1), 0)
        x, r = x + alpha * p, r - alpha * product
        rho_next = r @ r
        p = r + rho_next / rho * p
        return x, r, p, rho_next, k + 1, positive

    start = (jnp.zeros_like(rhs), rhs, rhs, rhs @ rhs, jnp.zeros((), jnp.int32), jnp.array(True))
    x, _, _, _, k, _ = lax.while_loop(going, advance, start)
    return _checked(matvec, rhs, x, target, k)


def minres(
    matvec: Callable[[Array], Array], rhs: Array, tol: float, max_steps: int
) -> LinearSolution:
    """MINRES for a symmetric, possibly indefinite A: ||b - A x|| minimal over the Krylov space.

    One product a step, seven vectors of memory. Source: Paige and Saunders (1975).
    """
    dtype = rhs.dtype
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    beta1 = jnp.linalg.norm(rhs)
    target = tol * beta1

    def going(c):
        return (c["phi"] > target) & (c["k"] < max_steps) & (c["beta"] > 0)

    def advance(c):
        v = c["y"] / c["beta"]
        y = matvec(v) - c["beta"] / c["old_beta"] * c["r1"]
        alpha = v @ y
        y = y - alpha / c["beta"] * c["r2"]
        beta = jnp.linalg.norm(y)
        # Apply the previous rotation, then the one that annihilates beta.
        delta = c["cs"] * c["dbar"] + c["sn"] * alpha
        gbar = c["sn"] * c["dbar"] - c["cs"] * alpha
        epsilon, dbar = c["sn"] * beta, -c["cs"] * beta
        gamma = jnp.maximum(jnp.hypot(gbar, beta), jnp.finfo(dtype).tiny)
        cs, sn = gbar / gamma, beta / gamma
        w = (v - c["epsilon"] * c["w1"] - delta * c["w2"]) / gamma
        x = c["x"] + cs * c["phi"] * w
        return dict(
            x=x, y=y, r1=c["r2"], r2=y, w1=c["w2"], w2=w, beta=beta, old_beta=c["beta"],
            dbar=dbar, epsilon=epsilon, phi=sn * c["phi"], cs=cs, sn=sn, k=c["k"] + 1,
        )  # fmt: skip

    z = jnp.zeros_like(rhs)
    start = dict(
        x=z, y=rhs, r1=z, r2=rhs, w1=z, w2=z, beta=beta1, old_beta=one,
        dbar=zero, epsilon=zero, phi=beta1, cs=-one, sn=zero, k=jnp.zeros((), jnp.int32),
    )  # fmt: skip
    end = lax.while_loop(going, advance, start)
    return _checked(matvec, rhs, end["x"], target, end["k"])


def _checked(matvec, rhs, x, target, steps) -> LinearSolution:
    """Judge the answer by its true residual, with room for the drift of the recurrence."""
    residual = jnp.linalg.norm(rhs - matvec(x))
    return LinearSolution(x, residual <= 10 * target, steps + 1)
