"""Errors that peers make in silence, as found in their code or their issues: each is a test here.

Where each was seen is written in shared/facts/README.md; no peer is run.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Implicit, Status

SADDLE = jol.Problem(lambda x: x[0] ** 2 - x[1] ** 2 + x[1] ** 4)
UNBOUNDED_SADDLE = jol.Problem(lambda x: x[0] ** 2 - x[1] ** 2)
SECOND_ORDER = [None, jol.TrustRegion("exact"), jol.TrustRegion("cg")]
QUADRATIC = jol.Problem(lambda x, matrix, p: 0.5 * x @ matrix @ x - p @ x)


# -- derivatives -----------------------------------------------------------------------------------


def _quadratics(conditions, rng, size=6):
    basis, _ = np.linalg.qr(rng.standard_normal((size, size)))
    spectra = [np.logspace(0, np.log10(condition), size) for condition in conditions]
    return basis, jnp.array([(basis * spectrum) @ basis.T for spectrum in spectra]), spectra


@pytest.mark.parametrize("solver", [None, jol.LBFGS(), jol.TrustRegion("cg")])
def test_ill_conditioned_implicit_gradient_is_right_to_rounding(solver, rng):
    conditions = np.logspace(2, 8, 4)
    basis, matrices, spectra = _quadratics(conditions, rng)
    p, v = np.ones(6), np.arange(1.0, 7.0)
    # Started at the answer: what is tested is the derivative.
    starts = jnp.array([basis @ ((basis.T @ p) / spectrum) for spectrum in spectra])

    def reach(p, matrix, x0):
        # A gradient of 1e-6 is above rounding, 1e-16 * 1e8, at the worst conditioned of them.
        sol = jol.solve(QUADRATIC, x0, (matrix, p), solver, tol=1e-6)
        return v @ sol.x

    batched = jax.vmap(jax.grad(reach, argnums=(0, 1)), in_axes=(None, 0, 0))
    by_p, by_matrix = jax.jit(batched)(jnp.array(p), matrices, starts)
    for i, (condition, spectrum) in enumerate(zip(conditions, spectra, strict=True)):
        right = basis @ ((basis.T @ v) / spectrum)
        error = np.linalg.norm(by_p[i] - right) / np.linalg.norm(right)
        # Backward stable solves: eps * condition, times a factor for dimension and norms.
        assert error <= 1e-16 * condition * 100
        expected = -0.5 * (np.outer(right, starts[i]) + np.outer(starts[i], right))
        error = np.linalg.norm(by_matrix[i] - expected) / np.linalg.norm(expected)
        # The answer itself is off by up to tol / smallest eigenvalue = 1e-6.
        assert error <= 1e-5


def test_ill_conditioned_implicit_gradient_in_float32(rng):
    basis, matrices, spectra = _quadratics([1e4], rng)
    matrix, v = matrices[0].astype(jnp.float32), jnp.arange(1.0, 7.0, dtype=jnp.float32)

    def reach(p):
        return v @ jol.solve(QUADRATIC, jnp.zeros_like(p), (matrix, p), tol=1e-2).x

    got = jax.grad(reach)(jnp.ones(6, jnp.float32))
    right = basis @ ((basis.T @ np.asarray(v, np.float64)) / spectra[0])
    # eps * condition = 6e-8 * 1e4, as above; a peer is off by 0.28 here.
    error = np.linalg.norm(np.asarray(got, np.float64) - right)
    assert error / np.linalg.norm(right) <= 6e-8 * 1e4 * 100


def test_forward_mode_and_hessian_pass_through_a_solver():
    def reach(p):
        problem = jol.Problem(lambda x, p: jnp.sum(jnp.exp(x) - p * x))
        return jnp.sum(jol.solve(problem, jnp.zeros(2), (p,), jol.LBFGS(), tol=1e-10).x)

    p = jnp.array([2.0, 3.0])
    _, slope = jax.jvp(reach, (p,), (jnp.ones(2),))
    np.testing.assert_allclose(slope, np.sum(1 / p), rtol=1e-8)
    np.testing.assert_allclose(jax.hessian(reach)(p), np.diag(-1 / p**2), rtol=1e-7, atol=1e-12)


def test_closed_over_value_has_a_derivative_neither_an_error_nor_zero():
    def reach(p):
        return jol.minimize(lambda x: jnp.sum((x - p) ** 2), jnp.zeros(2), solver=jol.LBFGS()).x[0]

    p = jnp.array([2.0, 3.0])
    np.testing.assert_allclose(jax.grad(reach)(p), [1.0, 0.0], atol=1e-12)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(reach))(p), [1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize("solver", [jol.LBFGS(), jol.GradientDescent(), jol.TrustRegion("exact")])
def test_unrolled_gradient_is_not_nan_after_convergence(solver):
    def rosenbrock(x, a):
        return 100 * (x[1] - x[0] ** 2) ** 2 + (a - x[0]) ** 2

    def reach(a):
        options = {"max_steps": 120, "differentiate": "unrolled", "tol": 1e-9}
        return jol.minimize(rosenbrock, jnp.array([-1.2, 1.0]), (a,), solver=solver, **options).x

    # x = (a, a^2). Converged after 30 to 113 steps; the rest of the 120 do nothing. Step lengths
    # are held fixed, so first-order methods still carry an error of the size of their last steps.
    got = jax.jit(jax.jacrev(reach))(1.0)
    np.testing.assert_allclose(got, [1.0, 2.0], atol=1e-3)


def test_unrolled_gradient_from_the_optimum_and_from_a_zero_gradient():
    def reach(p, solver):
        start = jnp.zeros(2)  # the answer for p = 0
        options = {"max_steps": 5, "differentiate": "unrolled", "solver": solver}
        return jol.minimize(lambda x, p: jnp.sum((x - p) ** 2), start, (p,), **options).value

    for solver in (jol.LBFGS(), jol.GradientDescent(), jol.TrustRegion("exact")):
        slope = jax.grad(reach)(jnp.zeros(2), solver)
        np.testing.assert_allclose(slope, np.zeros(2), atol=1e-12)


@pytest.mark.parametrize("linear_solver", ["auto", "dense", "cg", "minres", "gmres"])
@pytest.mark.parametrize("jacobian", [jax.jacrev, jax.jacfwd])
def test_unfinished_solve_is_flagged_in_the_derivative(linear_solver, jacobian):
    how = Implicit(linear_solver=linear_solver)
    problem = jol.Problem(lambda x, p: jnp.sum(jnp.exp(x) - p * x))

    def reach(p):
        return jol.solve(problem, jnp.zeros(2), (p,), max_steps=2, differentiate=how).x[0]

    slope = jax.jit(jacobian(reach))(jnp.array([2.0, 3.0]))
    assert np.all(np.isnan(slope))


def test_nan_lane_gets_a_nan_gradient_not_zero():
    def reach(p):
        return jnp.sum(jol.minimize(lambda x, p: jnp.sum((x - p) ** 2), jnp.zeros(2), (p,)).x)

    slopes = jax.jit(jax.vmap(jax.grad(reach)))(jnp.array([[1.0, 2.0], [jnp.nan, 1.0], [3.0, 4.0]]))
    np.testing.assert_allclose(slopes[jnp.array([0, 2])], np.ones((2, 2)), rtol=1e-12)
    assert np.all(np.isnan(slopes[1]))


# -- verdicts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("x0", [[0.0, 0.0], [1e-3, 0.0], [1.0, 0.0]])
@pytest.mark.parametrize("solver", SECOND_ORDER)
def test_start_at_a_saddle_is_left(solver, x0):
    """From (t, 0) the gradient alone leads to the saddle, and there it vanishes."""
    sol = jol.solve(SADDLE, jnp.array(x0), solver=solver)
    assert sol.status == Status.CONVERGED
    # The minima: x = (0, +-1/sqrt 2), value -1/4; curvature 4 turns tol 1.5e-8 into less than 1e-8.
    np.testing.assert_allclose(sol.value, -0.25, rtol=1e-12)
    np.testing.assert_allclose(jnp.abs(sol.x), [0, 0.5**0.5], atol=1e-7)


@pytest.mark.parametrize("x0", [[0.0, 0.0], [1.0, 0.0]])
@pytest.mark.parametrize("solver", SECOND_ORDER)
def test_start_at_the_saddle_of_an_unbounded_problem_is_diverged(solver, x0):
    sol = jol.solve(UNBOUNDED_SADDLE, jnp.array(x0), solver=solver)
    assert sol.status == Status.DIVERGED


@pytest.mark.parametrize("solver", SECOND_ORDER)
def test_saddle_in_a_large_space_is_left(solver):
    n = 40

    def objective(x):
        return jnp.sum(x[1:] ** 2) - x[0] ** 2 + x[0] ** 4

    sol = jol.minimize(objective, jnp.zeros(n), solver=solver)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.value, -0.25, rtol=1e-10)


def test_cut_off_solve_is_not_a_success():
    sol = jol.minimize(
        lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
        jnp.full(10, -1.2),
        solver=jol.LBFGS(),
        max_steps=20,
    )
    assert sol.status == Status.MAX_STEPS
    assert not sol.success
    with pytest.raises(jol.SolveError, match="MAX_STEPS after 20 steps"):
        sol.raise_for_status()


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [None, jol.LBFGS(), jol.TrustRegion("cg"), jol.FixedStep(0.1)])
def test_bounds_are_not_ignored(solver):
    """Either they are obeyed, or refused: the unconstrained answer, 2, is wrong."""

    def objective(x):
        return jnp.sum((x - 2.0) ** 2)

    problem = jol.Problem(objective, bounds=(None, 1.0))
    if solver is None or "bounds" in solver.accepts:
        try:
            sol = jol.solve(problem, jnp.zeros(2), solver=solver)
        except TypeError as error:
            refusal = str(error)
        else:
            refusal = None
            np.testing.assert_allclose(sol.x, np.ones(2), atol=1e-6)
        assert refusal is None or "takes no bounds" in refusal
    else:
        with pytest.raises(TypeError, match=f"{type(solver).__name__} takes no bounds"):
            jol.solve(problem, jnp.zeros(2), solver=solver)


@pytest.mark.parametrize("option", ["maxiter", "lower", "method", "step_size", "jac"])
def test_unknown_option_raises(option):
    with pytest.raises(TypeError, match=f"unknown options {option}"):
        jol.minimize(lambda x: jnp.sum(x * x), jnp.ones(2), **{option: 1})
    with pytest.raises(TypeError, match=option):
        jol.LBFGS(**{option: 1})


def test_tolerance_that_cannot_be_reached_is_not_claimed():
    # The minimum 1e4 rounds to 1e-12; curvature 2 hides gradients below about 1e-6.
    problem = jol.Problem(lambda x: 1e4 + jnp.sum(jnp.cosh(x - 0.1)) ** 2)
    for solver in (jol.LBFGS(), jol.TrustRegion("exact"), jol.GradientDescent()):
        sol = jol.solve(problem, jnp.ones(3), solver=solver, tol=0.0, max_steps=500)
        gradient = jax.grad(problem.objective)(sol.x)
        assert sol.status != Status.CONVERGED or not np.any(gradient)
        assert np.max(np.abs(gradient)) <= 1e-5


# -- transformations and programs ------------------------------------------------------------------


@pytest.mark.parametrize("solver", [None, jol.LBFGS(), jol.TrustRegion("cg")])
def test_vmap_over_a_whole_solution(solver):
    def run(p):
        problem = jol.Problem(lambda x, p: (jnp.sum((x - p) ** 4 + x * x), x), has_aux=True)
        return jol.solve(problem, jnp.zeros(2), (p,), solver, history="x", max_steps=40)

    batch = jax.vmap(run)(jnp.arange(6.0).reshape(3, 2))
    assert isinstance(batch, jol.Solution)
    assert all(leaf.shape[0] == 3 for leaf in jax.tree.leaves(batch))
    assert batch.history.x.shape == (3, 40, 2)
    one = jax.tree.map(lambda leaf: leaf[1], batch)
    assert one.status == Status.CONVERGED
    np.testing.assert_allclose(one.x, run(jnp.array([2.0, 3.0])).x, rtol=1e-9)


@jax.custom_vjp
def _square_vjp(x):
    return jnp.sum(x * x)


_square_vjp.defvjp(lambda x: (jnp.sum(x * x), x), lambda x, g: (2 * x * g,))


@jax.custom_jvp
def _square_jvp(x):
    return jnp.sum(x * x)


@_square_jvp.defjvp
def _square_jvp_rule(primals, tangents):
    (x,), (t,) = primals, tangents
    return _square_jvp(x), jnp.vdot(2 * x, t)


@pytest.mark.parametrize("solver", [None, jol.LBFGS(), jol.TrustRegion("cg")])
@pytest.mark.parametrize("square", [_square_jvp, _square_vjp])
def test_objective_with_a_custom_derivative(square, solver):
    sol = jol.minimize(lambda x: square(x - 3.0), jnp.zeros(2), solver=solver)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, np.full(2, 3.0), atol=1e-7)


def test_objective_with_custom_jvp_is_differentiated_and_batched():
    def reach(p):
        return jol.minimize(lambda x, p: _square_jvp(x - p), jnp.zeros(2), (p,)).x

    batch = jnp.arange(4.0).reshape(2, 2)
    slopes = jax.jit(jax.vmap(jax.jacrev(reach)))(batch)
    np.testing.assert_allclose(slopes, np.stack([np.eye(2)] * 2), atol=1e-12)


def test_rebuilt_solver_and_problem_neither_retrace_nor_compile(compilations):
    traces = []

    def objective(x):
        traces.append(None)
        return jnp.sum((x - 1) ** 4 + x * x)

    def run(memory, scale):
        x0 = scale * np.ones(2)
        return jol.solve(jol.Problem(objective), x0, solver=jol.LBFGS(memory=memory))

    jax.block_until_ready(run(5, 1.0).x)
    with compilations() as count:
        for scale in (2.0, 3.0):
            jax.block_until_ready(run(5, scale).x)
    assert (count.programs, len(traces)) == (0, 1)
    run(6, 1.0)
    assert len(traces) == 1  # another program, but the objective is not run again


def test_new_step_size_is_data_not_a_program(compilations):
    problem = jol.Problem(lambda x: jnp.sum(x * x))
    x0 = jnp.ones(2)
    jol.solve(problem, x0, solver=jol.FixedStep(0.1))
    with compilations() as count:
        slow = jax.block_until_ready(jol.solve(problem, x0, solver=jol.FixedStep(0.2)))
    assert count.programs == 0
    assert slow.status == Status.CONVERGED
    sweep = jax.vmap(lambda t: jol.solve(problem, x0, solver=jol.FixedStep(t)).steps)
    steps = sweep(jnp.array([0.1, 0.2, 0.4]))
    assert steps[0] > steps[1] > steps[2]
    assert steps[1] == slow.steps


@dataclasses.dataclass
class _Model:
    scale: float

    def loss(self, x):
        return self.scale * jnp.sum((x - 1) ** 2)


def test_bound_method_as_the_objective_does_not_recompile(compilations):
    model, x0 = _Model(2.0), jnp.zeros(2)
    problem = jol.Problem(model.loss)
    jol.solve(problem, x0)
    with compilations() as count:
        jax.block_until_ready(jol.solve(problem, x0))
    assert count.programs == 0


def test_bound_method_sees_what_its_object_holds_now():
    # `model.loss` is a new object each time it is named: it is traced anew, never answered stale.
    model, x0 = _Model(2.0), jnp.zeros(2)
    before = jol.minimize(model.loss, x0, solver=jol.LBFGS(), max_steps=1).value
    model.scale = 4.0
    after = jol.minimize(model.loss, x0, solver=jol.LBFGS(), max_steps=1).value
    assert float(before) == 4.0
    assert float(after) == 8.0
