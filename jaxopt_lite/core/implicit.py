"""Derivatives of an answer by the implicit function theorem, whatever computed it.

If F(x*(p), p) = 0 and F_x is nonsingular, then  dx*/dp = -F_x^-1 F_p.

`attach` is the identity on the answer; its JVP solves that linear system. Forward mode, reverse
mode (the system is transposed by `lax.custom_linear_solve`) and higher orders (the rule calls
`attach` again, so it can itself be differentiated) all come from this one rule, as do `jit` and
`vmap`.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.sparse.linalg as jssl
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from ..linalg import Form, conjugate_gradient, dense_solve, materialize, minres
from .check import args_tuple
from .tracing import Traced, hoist

PyTree = Any
LinearSolver = str | Callable[[Callable[[Array], Array], Array], Array]
LINEAR_SOLVERS = ("auto", "dense", "cg", "minres", "gmres")
# Where CG on products overtakes one factorisation: at 100 variables when well-conditioned (28
# products), at 1,400 with features of scales 1 to 1/30 (150 products); benchmarks/README.md.
DENSE_LIMIT = 512


@dataclasses.dataclass(frozen=True)
class Implicit:
    """How to differentiate an answer: pass it as `solve(..., differentiate=Implicit(...))`.

    Args:
        linear_solver: "dense" (Cholesky or LU; minimum norm when singular; O(n^3) and n^2 memory),
            "cg", "minres", "gmres" (matrix-free), or a function `(matvec, rhs) -> x`. "auto" is
            "dense" up to n = 512; above, "cg" for symmetric systems and "gmres" for others.
        tol: relative residual the matrix-free methods must reach; None is eps^(2/3), 4e-11 in
            float64, 2e-5 in float32. The relative error is at most the condition number times it.
        max_steps: products they may use; None is 10 n, at most 10,000.
        unfinished: what the derivative of an answer that is not CONVERGED is: "nan", or "allow"
            for the formula's value at the point reached, which is only as good as that point.

    A matrix-free solve that misses its tolerance gives NaN. One that meets it is as accurate as the
    bound above says: in float32 that is little from condition 1e5 on, where "dense" does better.

    """

    linear_solver: LinearSolver = "auto"
    tol: float | None = None
    max_steps: int | None = None
    unfinished: str = "nan"

    def __post_init__(self):
        """Refuse unknown names."""
        if not callable(self.linear_solver) and self.linear_solver not in LINEAR_SOLVERS:
            raise ValueError(
                f"`linear_solver` must be one of {', '.join(LINEAR_SOLVERS)} or a function "
                f"`(matvec, rhs) -> x`, but {self.linear_solver!r} came."
            )
        if self.unfinished not in ("nan", "allow"):
            raise ValueError(
                f"`unfinished` must be 'nan' or 'allow', but {self.unfinished!r} came."
            )

    def is_symmetric(self, size: int) -> bool:
        """Whether a system of `size` equations, were it symmetric, is solved so by products."""
        matrix_free = self.linear_solver == "auto" and size > DENSE_LIMIT
        return matrix_free or self.linear_solver in ("cg", "minres")

    def solve(self, matvec: Callable[[Array], Array], rhs: Array, symmetric: bool) -> Array:
        """X with matvec(x) = rhs, by the chosen method."""
        method = self.linear_solver
        if method == "auto":
            matrix_free = "cg" if symmetric else "gmres"
            method = "dense" if rhs.shape[0] <= DENSE_LIMIT else matrix_free
        if callable(method):
            return method(matvec, rhs)
        if method == "dense":
            matrix = materialize(matvec, rhs.shape[0], rhs.dtype)
            return dense_solve(matrix, rhs, symmetric)
        tol = self.tol if self.tol is not None else float(jnp.finfo(rhs.dtype).eps) ** (2 / 3)
        most = self.max_steps or min(10 * rhs.shape[0], 10_000)
        if method == "gmres":
            x, _ = jssl.gmres(matvec, rhs, tol=tol, maxiter=most, solve_method="batched")
            met = jnp.linalg.norm(matvec(x) - rhs) <= 10 * tol * jnp.linalg.norm(rhs)
            return jnp.where(met, x, jnp.nan)  # NaN in gives NaN out
        krylov = conjugate_gradient if method == "cg" else minres
        answer = krylov(matvec, rhs, tol, most)
        return jnp.where(answer.converged, answer.x, jnp.nan)


def linear_solve(
    matvec: Callable[[Array], Array], rhs: Array, symmetric: bool, how: Implicit, finished: Array
) -> Array:
    """A^-1 b as a differentiable, transposable operation on what `matvec` and `rhs` depend on.

    Where not `finished` it is NaN, and so is its transpose, but for a cotangent of zero: who masks
    a failed lane out of a sum gets the derivative of the others.
    """

    def solve(product, b):
        return jnp.where(finished, how.solve(product, b, symmetric), jnp.nan)

    def transpose_solve(product, ct):
        unfinished = jnp.where(jnp.all(ct == 0), 0, jnp.nan)
        return jnp.where(finished, how.solve(product, ct, symmetric), unfinished)

    return lax.custom_linear_solve(matvec, rhs, solve, transpose_solve, symmetric)


_IDENTITY = Implicit(linear_solver=lambda matvec, rhs: rhs)


# -- the rule -------------------------------------------------------------------------------------


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def attach(
    optimality: Callable[[Array, PyTree], Array],
    symmetric: bool,
    how: Implicit,
    x: Array,
    params: PyTree,
    finished: Array,
) -> Array:
    """`x`, a root of `optimality(., params)`, with the derivative of the root in `params`.

    `x` is a vector (n,) and `optimality` returns one; it must not close over traced values. Where
    `finished` is False the derivative is NaN: there is no root to differentiate.
    """
    return x


@functools.partial(attach.defjvp, symbolic_zeros=True)
def _attach_jvp(optimality, symmetric, how, primals, tangents):
    x, params, finished = primals
    x = attach(optimality, symmetric, how, x, params, finished)
    moved, rebuild = perturbed(params, tangents[1])
    if not moved:
        return x, jnp.zeros_like(x)
    primal, tangent = zip(*moved, strict=True)
    here = _defined(lambda y: optimality(y, params), x, finished)
    _, push = jax.jvp(lambda *leaves: optimality(here, rebuild(leaves)), primal, tangent)
    matvec = jax.linearize(lambda y: optimality(y, params), here)[1]
    return x, linear_solve(matvec, -push, symmetric, how, finished)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def attach_value(
    lagrangian: Callable[[PyTree, PyTree], Array],
    value: Array,
    point: PyTree,
    params: PyTree,
    finished: Array,
) -> Array:
    """The optimal value, with the derivative of the envelope theorem: d value = L_p(x*, p) dp.

    No linear system is needed for the first derivative; the second goes through `point`, which
    `attach` made a function of `params`.
    """
    return value


@functools.partial(attach_value.defjvp, symbolic_zeros=True)
def _attach_value_jvp(lagrangian, primals, tangents):
    value, point, params, finished = primals
    value = attach_value(lagrangian, value, point, params, finished)
    moved, rebuild = perturbed(params, tangents[2])
    if not moved:
        return value, jnp.zeros_like(value)
    primal, tangent = zip(*moved, strict=True)
    here = _defined(lambda y: lagrangian(y, params), point, finished)
    _, push = jax.jvp(lambda *leaves: lagrangian(here, rebuild(leaves)), primal, tangent)
    return value, linear_solve(lambda v: v, push, True, _IDENTITY, finished)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def follow(function: Callable[..., PyTree], value: PyTree, *inputs: PyTree) -> PyTree:
    """`value`, equal to `function(*inputs)`, with its derivative; computed only if asked for."""
    return value


@follow.defjvp
def _follow_jvp(function, primals, tangents):
    value, *inputs = primals
    _, push = jax.jvp(function, tuple(inputs), tuple(tangents[1:]))
    return follow(function, value, *inputs), push


def _defined(function: Callable[[PyTree], Array], x: PyTree, finished: Array) -> PyTree:
    """`x`; where not `finished`, held fixed, and 1 if `function` is not finite: 0 * NaN is NaN.

    What is computed there meets a derivative that is NaN, or zero because it was masked out.
    """
    fine = jnp.all(jnp.isfinite(function(x)))
    held = jax.tree.map(lambda leaf: lax.stop_gradient(jnp.where(fine, leaf, 1)), x)
    return jax.tree.map(lambda leaf, still: jnp.where(finished, leaf, still), x, held)


def perturbed(params: PyTree, tangents: PyTree):
    """The (primal, tangent) pairs of leaves that do move, and how to put such leaves back."""
    leaves, treedef = jax.tree.flatten(params)
    directions = jax.tree.leaves(tangents, is_leaf=lambda t: isinstance(t, SymbolicZero))
    still = [isinstance(t, SymbolicZero) or t.dtype == jax.dtypes.float0 for t in directions]
    moved = [(p, t) for p, t, s in zip(leaves, directions, still, strict=True) if not s]

    def rebuild(new):
        fresh = iter(new)
        return jax.tree.unflatten(
            treedef, [leaf if s else next(fresh) for leaf, s in zip(leaves, still, strict=True)]
        )

    return moved, rebuild


# -- for solvers of the user's own -----------------------------------------------------------------


def custom_root(
    optimality: Callable[..., PyTree],
    *,
    has_aux: bool = False,
    symmetric: bool = False,
    differentiate: Implicit = Implicit(),
) -> Callable[[Callable], Callable]:
    """Decorator: give `solver(x0, *args)` the derivatives of the root of `optimality(x, *args)`.

    Args:
        optimality: F(x, *args), a pytree shaped like x, zero at the answer: the gradient of an
            objective, a KKT map, a residual of as many equations as unknowns.
        has_aux: the solver returns `(x, aux)`; `aux` gets no derivative.
        symmetric: dF/dx is symmetric, as for a gradient: cheaper linear solves.
        differentiate: which linear solver, and its tolerances.

    The solver is anything: a loop, another library, SciPy under `jax.pure_callback`. It is run on
    values without derivatives; those in `args`, and in values that `optimality` closes over, come
    from F. Derivatives in `x0` are zero, since the root does not depend on where one started.

        @custom_root(jax.grad(objective))
        def my_solver(x0, *args): ...

    """

    def decorate(solver: Callable) -> Callable:
        @functools.wraps(solver)
        def wrapped(x0: PyTree, *args: PyTree):
            args_tuple(args)
            out = solver(_still(x0), *_still(args))
            x, aux = out if has_aux else (out, None)
            x = jax.tree.map(jnp.asarray, x)
            form = Form.of(x)
            residual, captured = _closed(optimality, form, args)
            finished = jnp.all(jnp.isfinite(form.ravel(x)))
            params = (args, captured)
            answer = attach(
                residual, symmetric, differentiate, form.ravel(_still(x)), params, finished
            )
            answer = form.unravel(answer)
            return (answer, _still(aux)) if has_aux else answer

        return wrapped

    return decorate


def custom_fixed_point(
    fixed_point: Callable[..., PyTree],
    *,
    has_aux: bool = False,
    differentiate: Implicit = Implicit(),
) -> Callable[[Callable], Callable]:
    """Decorator: as `custom_root`, for x = T(x, *args); dx = (I - T_x)^-1 T_p dp."""

    def optimality(x: PyTree, *args: PyTree) -> PyTree:
        return jax.tree.map(jnp.subtract, fixed_point(x, *args), x)

    return custom_root(optimality, has_aux=has_aux, differentiate=differentiate)


@dataclasses.dataclass(frozen=True)
class _Root:
    """F as `attach` calls it: of x and one pytree of parameters."""

    traced: Traced

    def __call__(self, x: Array, params: tuple) -> Array:
        return self.traced(x, *params)


def _still(tree: PyTree) -> PyTree:
    """The values without their derivatives."""
    return jax.tree.map(lax.stop_gradient, tree)


def _closed(optimality: Callable, form: Form, args: tuple):
    """F over a vector as a function of (x, (args, captured)) that closes over nothing traced."""

    def on_vector(x, args):
        out = optimality(form.unravel(x), *args)
        got = Form.of(jax.tree.map(jnp.asarray, out))
        if got.size != form.size:
            raise ValueError(
                f"`optimality` must return as many numbers as x has, {form.size}, but it returned "
                f"{got.size}. For least squares, differentiate the gradient J'r = 0."
            )
        return got.ravel(out)

    traced, captured = hoist(on_vector, jax.ShapeDtypeStruct((form.size,), form.dtype), args)
    return _Root(traced), captured
