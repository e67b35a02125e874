"""Newton's method for F(x) = 0, and the chord method, which keeps its first Jacobian."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import jax.scipy.linalg as jsl
import jax.scipy.sparse.linalg as jssl
from jax import Array, lax

from ...core import solver, static
from ...linalg import choose, materialize, psd_factor
from .residual_search import Direction, ResidualSearch

LINEAR_SOLVERS = ("auto", "dense", "gmres")
DENSE_UP_TO = 512  # as for implicit derivatives, core/implicit.py
RESTART = 30  # products that GMRES keeps; at most ten times as many a step


class NewtonMemory(NamedTuple):
    """What the next turn may need: the step of steepest descent from here, and |F|^2 / 2."""

    descent: Direction
    value: Array


@solver()
class NewtonRoot(ResidualSearch):
    """F'(x) d = -F(x), then backtracking on |F|; quadratic where F' is nonsingular at the root.

    Where F' is singular to working precision d is -(F'^T F' + tau)^-1 F'^T F, nearly the least
    step that makes the model small. A direction along which |F| will not fall is replaced by
    steepest descent of |F|^2; so the end is a root, or a stationary point of |F|^2, which is
    STALLED. One evaluation of F and F' a step, n forward products and O(n^3) with "dense".

    Args:
        linear_solver: "dense" (LU), "gmres" (matrix-free, n numbers of memory times 30; inexact
            Newton steps, by the forcing terms of Eisenstat and Walker), or "auto": "dense" up to
            512 unknowns. Lanes of a batch wait for each other's GMRES.

    Sources: Nocedal & Wright (2006), algorithm 11.4; Eisenstat & Walker (1996), choice 2.

    """

    linear_solver: str = static(default="auto")
    # Near a singular F' its direction is useless: soon steepest descent. Over 13 systems, from 3
    # starts each, 4 trials cost 737 evaluations, 6 cost 952 and 40 cost 1,230.
    trials = 4

    def __post_init__(self):
        """Refuse unknown names."""
        if self.linear_solver not in LINEAR_SOLVERS:
            raise ValueError(
                f"NewtonRoot(linear_solver=...) must be one of {', '.join(LINEAR_SOLVERS)}, but "
                f"{self.linear_solver!r} came."
            )

    def _dense(self, size: int) -> bool:
        return self.linear_solver == "dense" or (
            self.linear_solver == "auto" and size <= DENSE_UP_TO
        )

    def unrolls(self, size):
        """Not through the loop of GMRES."""
        return self._dense(size)

    def start_memory(self, problem, x, args):
        """Nothing to fall back on yet."""
        zero = jnp.zeros((), x.dtype)
        return NewtonMemory(Direction(jnp.zeros_like(x), zero), zero)

    def measure(self, problem, x, args):
        """F and the products with F', by one linearisation."""
        return jax.linearize(lambda y: problem.equations(y, args), x)

    def turn(self, problem, memory, turn, args):
        """Newton's direction where we have just come, else steepest descent."""
        push, f, n = turn.around, turn.residual, turn.x.shape[0]
        value = 0.5 * (f @ f)
        if self._dense(n):
            jacobian = materialize(push, n, f.dtype)
            jacobian = jnp.where(jnp.all(jnp.isfinite(jacobian)), jacobian, 0)
            product = lambda v: jacobian @ v
            gradient = f @ jacobian
            d = newton_step(jacobian, f, gradient)
        else:
            product, pull = push, jax.linear_transpose(push, f)
            (gradient,) = pull(f)
            forcing = jnp.clip(0.9 * value / memory.value, 1e-4, 0.1)
            forcing = jnp.where(turn.start, 0.1, forcing)
            d, _ = jssl.gmres(
                push, -f, tol=forcing, restart=RESTART, maxiter=10, solve_method="batched"
            )
        d = jnp.where(jnp.all(jnp.isfinite(d)), d, 0)
        newton = Direction(d, f @ product(d))
        steepest = _steepest(product, gradient)
        newton = choose(newton.slope < 0, newton, steepest)
        direction = choose(turn.accept, newton, memory.descent)
        return direction, NewtonMemory(steepest, value)


def newton_step(jacobian: Array, f: Array, gradient: Array) -> Array:
    """-J^-1 f by LU; where J is singular to working precision, -(J'J + tau I)^-1 J'f."""
    lu, pivots, good = guarded_lu(lax.stop_gradient(jacobian))
    # In a batch both branches run. The second gets the identity where it is not needed: that is
    # cheap, and it orders the two LAPACK calls, which can deadlock jaxlib's CPU threads otherwise.
    other = choose(good, jnp.eye(f.shape[0], dtype=f.dtype), jacobian)

    def direct(_):
        return lax.custom_linear_solve(
            lambda v: jacobian @ v,
            -f,
            lambda _, b: jsl.lu_solve((lu, pivots), b),  # derivatives go by the product instead
            lambda _, b: jsl.lu_solve((lu, pivots), b, trans=1),
        )

    def regularised(_):
        # Rounding leaves eps / tau of a step in directions that F' does not see.
        tau = float(jnp.finfo(f.dtype).eps) ** 0.75 * jnp.sum(other * other)
        gram = other.T @ other + tau * jnp.eye(f.shape[0], dtype=f.dtype)
        return -jsl.cho_solve((psd_factor(gram)[0], True), gradient)

    return lax.cond(good, direct, regularised, None)


def guarded_lu(matrix: Array) -> tuple[Array, Array, Array]:
    """LU factors with no pivot below sqrt(eps) of the largest, and whether none had to be lifted.

    A pivot below n eps of the largest counts as zero. A matrix that is not finite gives those of
    the identity: solutions are finite whatever comes.
    """
    n, eps = matrix.shape[0], float(jnp.finfo(matrix.dtype).eps)
    eye = jnp.eye(n, dtype=matrix.dtype)
    finite = jnp.all(jnp.isfinite(matrix)) & jnp.any(matrix != 0)
    lu, pivots = jsl.lu_factor(jnp.where(finite, matrix, eye))
    diagonal = jnp.diagonal(lu)
    largest = jnp.max(jnp.abs(diagonal))
    zero = ~(jnp.abs(diagonal) > n * eps * largest)
    lifted = jnp.where(diagonal < 0, -1, 1).astype(lu.dtype) * eps**0.5 * largest
    lu = lu + jnp.diag(jnp.where(zero, lifted - diagonal, 0))
    return lu, pivots, finite & ~jnp.any(zero)


def _steepest(product, gradient: Array) -> Direction:
    """-g as far as the model of |F|^2 falls, where g = F'^T F."""
    gg = gradient @ gradient
    image = product(gradient)
    length = gg / jnp.where(gg > 0, image @ image, 1)
    length = jnp.where(jnp.isfinite(length), length, 0)
    return Direction(-length * gradient, -length * gg)


class Factors(NamedTuple):
    """LU factors of a Jacobian, made safe."""

    lu: Array
    pivots: Array

    def solve(self, f: Array) -> Array:
        """J^-1 f."""
        return jsl.lu_solve((self.lu, self.pivots), f)

    @classmethod
    def at(cls, problem, x: Array, args: tuple) -> "Factors":
        """Those of F'(x): n forward products, O(n^3)."""
        push = jax.linearize(lambda y: problem.equations(y, args), x)[1]
        lu, pivots, _ = guarded_lu(materialize(push, x.shape[0], x.dtype))
        return cls(lu, pivots)


@solver()
class Chord(ResidualSearch):
    """F'(x_0) d = -F(x): Newton's method with the Jacobian of the start, factorised once.

    Linear convergence with factor |1 - F'(x_0)^-1 F'(x*)|: for roots close to the start, and many
    solves of nearly the same equations. A step is one evaluation of F and O(n^2). STALLED where
    backtracking along d does not lower |F|; then NewtonRoot or Broyden get on.

    Source: Kelley (1995), section 5.4.1.
    """

    trials = 20

    def start_memory(self, problem, x, args):
        """The factors of F'(x_0), before the loop: in it a batch would make them at each step."""
        return Factors.at(problem, x, args)

    def turn(self, problem, memory, turn, args):
        """The chord's direction; none if that failed."""
        f = turn.residual
        d = choose(turn.accept, -memory.solve(f), jnp.zeros_like(f))
        return Direction(d, choose(turn.accept, -(f @ f), jnp.zeros((), f.dtype))), memory
