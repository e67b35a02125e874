"""Krylov methods for symmetric systems given by products, each with the residual it reached."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike


class LinearSolution(NamedTuple):
    """x, whether ||b - A x||_2 <= tol ||b||_2 holds (recomputed), and the number of products."""

    x: Array
    converged: Array
    products: Array


def conjugate_gradient(
    matvec: Callable[[Array], Array], rhs: Array, tol: ArrayLike, max_steps: int
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


class _Minres(NamedTuple):
    """The recurrences of MINRES: Lanczos vectors, the rotated tridiagonal, search directions."""

    x: Array
    y: Array  # the next Lanczos vector, not normalised
    r1: Array
    r2: Array
    w1: Array
    w2: Array
    beta: Array
    old_beta: Array
    dbar: Array
    epsilon: Array
    phi: Array  # residual norm
    cs: Array
    sn: Array
    products: Array


def minres(
    matvec: Callable[[Array], Array], rhs: Array, tol: ArrayLike, max_steps: int
) -> LinearSolution:
    """MINRES for a symmetric, possibly indefinite A: ||b - A x|| minimal over the Krylov space.

    One product a step, seven vectors of memory. Source: Paige and Saunders (1975).
    """
    dtype = rhs.dtype
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    beta1 = jnp.linalg.norm(rhs)
    target = tol * beta1

    def going(c: _Minres):
        return (c.phi > target) & (c.products < max_steps) & (c.beta > 0)

    def advance(c: _Minres):
        v = c.y / c.beta
        y = matvec(v) - c.beta / c.old_beta * c.r1
        alpha = v @ y
        y = y - alpha / c.beta * c.r2
        beta = jnp.linalg.norm(y)
        # Apply the previous rotation, then the one that annihilates beta.
        delta = c.cs * c.dbar + c.sn * alpha
        gbar = c.sn * c.dbar - c.cs * alpha
        gamma = jnp.maximum(jnp.hypot(gbar, beta), jnp.finfo(dtype).tiny)
        cs, sn = gbar / gamma, beta / gamma
        w = (v - c.epsilon * c.w1 - delta * c.w2) / gamma
        return _Minres(
            x=c.x + cs * c.phi * w,
            y=y,
            r1=c.r2,
            r2=y,
            w1=c.w2,
            w2=w,
            beta=beta,
            old_beta=c.beta,
            dbar=-c.cs * beta,
            epsilon=c.sn * beta,
            phi=sn * c.phi,
            cs=cs,
            sn=sn,
            products=c.products + 1,
        )

    z, count = jnp.zeros_like(rhs), jnp.zeros((), jnp.int32)
    start = _Minres(z, rhs, z, rhs, z, z, beta1, one, zero, zero, beta1, -one, zero, count)
    end = lax.while_loop(going, advance, start)
    return _checked(matvec, rhs, end.x, target, end.products)


def _checked(matvec, rhs, x, target, steps) -> LinearSolution:
    """Judge the answer by its true residual, with room for the drift of the recurrence."""
    residual = jnp.linalg.norm(rhs - matvec(x))
    return LinearSolution(x, residual <= 10 * target, steps + 1)
