"""Derivatives of answers: every mode, every way a parameter can come in, every linear solver.

The running example is  min_x sum exp(x_i) - p_i x_i,  whose answer is x = log p with derivatives of
every order in closed form and whose optimal value is sum p - p log p.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.test_util import check_grads

import jaxopt_lite as jol
from jaxopt_lite.core import Implicit, Status
from jaxopt_lite.implicit import custom_fixed_point, custom_root

P = jnp.array([0.5, 2.0, 3.0])
START = jnp.zeros(3)
# A gradient of 1e-10 leaves an error of 1e-10 in x, about as much in its derivatives.
TIGHT = 1e-10
QUICK = {"tol": TIGHT, "solver": jol.LBFGS()}  # the program that compiles fastest
CLOSE = {"rtol": 1e-8, "atol": 1e-8}


def exponential(x, p):
    return jnp.sum(jnp.exp(x) - p * x)


LOG = jol.Problem(exponential)


def log_by_args(p, **options):
    """x = log p, with p in `args`."""
    return jol.solve(LOG, jnp.zeros_like(p), (p,), **QUICK | options)


def log_by_closure(p, **options):
    """x = log p, with p closed over by the objective."""
    problem = jol.Problem(lambda x: exponential(x, p))
    return jol.solve(problem, jnp.zeros_like(p), **QUICK | options)


WAYS_IN = pytest.mark.parametrize("log", [log_by_args, log_by_closure])


# -- modes and orders ------------------------------------------------------------------------------


@WAYS_IN
@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_first_order(log, jacobian):
    by_hand = np.diag(1 / P)
    np.testing.assert_allclose(jacobian(lambda p: log(p).x)(P), by_hand, **CLOSE)
    np.testing.assert_allclose(jacobian(jax.jit(lambda p: log(p).x))(P), by_hand, **CLOSE)


@WAYS_IN
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
@pytest.mark.parametrize("inner", [jax.jacfwd, jax.jacrev])
def test_second_order(log, outer, inner):
    second = jax.jit(outer(inner(lambda p: log(p).x)))(P)
    by_hand = np.zeros((3, 3, 3))
    by_hand[np.arange(3), np.arange(3), np.arange(3)] = -1 / P**2
    np.testing.assert_allclose(second, by_hand, **CLOSE)


@WAYS_IN
def test_third_order(log):
    third = jax.jit(jax.grad(jax.grad(jax.grad(lambda p: log(p[None]).x[0]))))(P[1])
    np.testing.assert_allclose(third, 2 / P[1] ** 3, rtol=1e-7)


@WAYS_IN
def test_through_vmap_and_jit_in_every_order_of_nesting(log):
    batch = jnp.stack([P, 2 * P, 3 * P])
    slope = jax.grad(lambda p: jnp.sum(log(p).x))
    for run in (jax.jit(jax.vmap(slope)), jax.vmap(jax.jit(slope))):
        np.testing.assert_allclose(run(batch), 1 / batch, **CLOSE)
    total = jax.jit(jax.grad(lambda ps: jnp.sum(jax.vmap(lambda p: log(p).x)(ps))))
    np.testing.assert_allclose(total(batch), 1 / batch, **CLOSE)


@WAYS_IN
def test_inside_scan(log):
    def follow(p):
        def advance(total, factor):
            return total + jnp.sum(log(factor * p).x), None

        return jax.lax.scan(advance, jnp.zeros(()), jnp.array([1.0, 2.0]))[0]

    np.testing.assert_allclose(jax.grad(follow)(P), 2 / P, **CLOSE)


def test_first_and_second_order_against_finite_differences():
    def reach(p, q):
        def objective(x, p):  # p by args, q closed over
            return jnp.sum(jnp.cosh(x - p)) + 0.1 * jnp.sum((x * q) ** 4) + x[0] * x[1] * q[0]

        sol = jol.solve(jol.Problem(objective), jnp.zeros(2), (p,), tol=1e-12)
        return jnp.concatenate([sol.x, sol.value[None]])

    reach = jax.jit(reach)
    p, q = jnp.array([0.3, -0.8]), jnp.array([0.6, 0.9])
    check_grads(reach, (p, q), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6)
    slope = jax.jit(jax.jacfwd(reach, argnums=(0, 1)))
    second = jax.jit(jax.jacrev(jax.jacfwd(reach, argnums=(0, 1))))(p, q)
    # Central differences of derivatives right to 1e-12: error h^2 = 1e-8 and 1e-12 / h = 1e-8.
    h = 1e-4
    for i, unit in enumerate(np.eye(2)):
        ahead, behind = slope(p + h * unit, q), slope(p - h * unit, q)
        for block in range(2):
            difference = (ahead[block] - behind[block]) / (2 * h)
            np.testing.assert_allclose(second[block][..., i], difference, rtol=1e-6, atol=1e-6)


def test_value_and_x_do_not_change_under_differentiation():
    sol = log_by_args(P)
    value, _ = jax.value_and_grad(lambda p: log_by_args(p).value)(P)
    primal, _ = jax.jvp(lambda p: log_by_args(p).x, (P,), (P,))
    assert value == sol.value
    np.testing.assert_array_equal(primal, sol.x)


# -- the value, the start, the solver --------------------------------------------------------------


@WAYS_IN
def test_value_by_the_envelope_theorem_to_second_order(log):
    def value(p):
        return log(p).value

    np.testing.assert_allclose(jax.jit(jax.grad(value))(P), -jnp.log(P), **CLOSE)
    np.testing.assert_allclose(jax.jacfwd(value)(P), -jnp.log(P), **CLOSE)
    np.testing.assert_allclose(jax.jit(jax.hessian(value))(P), np.diag(-1 / P), **CLOSE)
    np.testing.assert_allclose(jax.jit(jax.jacrev(jax.grad(value)))(P), np.diag(-1 / P), **CLOSE)


def test_first_derivative_of_the_value_solves_no_linear_system():
    def program(reach):
        large = jnp.linspace(0.5, 3.0, 10)  # factors of small matrices are unrolled
        return jax.jit(jax.grad(reach)).lower(large).compile().as_text().lower()

    assert "potrf" not in program(lambda p: log_by_args(p).value)  # LAPACK's Cholesky
    assert "potrf" in program(lambda p: jnp.sum(log_by_args(p).x))


def test_derivative_in_the_start_is_zero():
    def reach(x0):
        sol = jol.solve(LOG, x0, (P,), **QUICK)
        return jnp.sum(sol.x) + sol.value

    np.testing.assert_array_equal(jax.grad(reach)(START + 0.1), jnp.zeros(3))
    np.testing.assert_array_equal(jax.jacfwd(reach)(START + 0.1), jnp.zeros(3))


def test_start_that_depends_on_the_parameter_adds_nothing():
    slope = jax.grad(lambda p: jnp.sum(jol.solve(LOG, 2 * p, (p,), **QUICK).x))(P)
    np.testing.assert_allclose(slope, 1 / P, **CLOSE)


def test_unrolled_derivative_in_the_start_is_seen():
    def reach(x0):  # one step of 0.1: x = x0 - 0.1 (exp x0 - p) after two, the first measures
        sol = jol.solve(LOG, x0, (P,), jol.FixedStep(0.1), max_steps=2, differentiate="unrolled")
        return jnp.sum(sol.x)

    np.testing.assert_allclose(jax.grad(reach)(START), np.full(3, 0.9), rtol=1e-12)


@pytest.mark.parametrize("solver", [None, jol.GradientDescent(), jol.TrustRegion("cg")])
def test_derivative_belongs_to_the_problem_not_to_the_solver(solver):
    jacobian = jax.jit(jax.jacrev(lambda p: log_by_args(p, solver=solver, tol=1e-9).x))(P)
    np.testing.assert_allclose(jacobian, np.diag(1 / P), rtol=1e-7, atol=1e-7)


# -- how a parameter can come in -------------------------------------------------------------------


def least_squares(x, features, targets):
    return 0.5 * jnp.mean((features @ x - targets) ** 2)


def test_large_closed_over_array(rng):
    features = jnp.array(rng.standard_normal((400, 5)))
    targets = jnp.array(rng.standard_normal(400))

    def closed(features):
        problem = jol.Problem(lambda x: least_squares(x, features, targets))
        return jnp.sum(jol.solve(problem, jnp.zeros(5), tol=1e-12).x)

    def by_formula(features):
        return jnp.sum(jnp.linalg.solve(features.T @ features, features.T @ targets))

    expected = jax.grad(by_formula)(features)
    # Gradients of size 1e-3; condition of the normal equations is about 2.
    np.testing.assert_allclose(jax.grad(closed)(features), expected, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(jax.jit(jax.grad(closed))(features), expected, rtol=1e-8, atol=1e-11)


def test_closed_over_pytree_inside_jit_of_vmap_of_grad():
    def reach(params):
        def objective(x):
            return exponential(x, params["p"]) + jnp.sum(params["shift"][0] * x)

        return jnp.sum(jol.solve(jol.Problem(objective), START, **QUICK).x)

    scales = jnp.array([1.0, 2.0, 5.0])
    params = {"p": scales[:, None] * P, "shift": (-scales,)}
    slopes = jax.jit(jax.vmap(jax.grad(reach)))(params)
    # x = log(p - shift): dx/dp = 1 / (p - shift), dx/dshift = -sum of the same.
    expected = 1 / (params["p"] + scales[:, None])
    np.testing.assert_allclose(slopes["p"], expected, **CLOSE)
    np.testing.assert_allclose(slopes["shift"][0], -expected.sum(1), **CLOSE)


def test_some_parameters_closed_over_and_some_in_args():
    def reach(p, q):
        problem = jol.Problem(lambda x, p: exponential(x, p + q))
        return jnp.sum(jol.solve(problem, START, (p,), **QUICK).x)

    by_p, by_q = jax.grad(reach, argnums=(0, 1))(P, 0.5 * P)
    np.testing.assert_allclose(by_p, 1 / (1.5 * P), **CLOSE)
    np.testing.assert_allclose(by_q, 1 / (1.5 * P), **CLOSE)


def test_closed_over_value_batched_outside():
    def reach(p):
        return jol.solve(jol.Problem(lambda x: exponential(x, p)), START, **QUICK).x

    batch = jnp.stack([P, 4 * P])
    np.testing.assert_allclose(jax.vmap(reach)(batch), jnp.log(batch), **CLOSE)


def test_one_problem_object_used_with_and_without_derivatives():
    """The trace that is remembered from a plain call must not hide a derivative later."""
    scale = {"now": jnp.asarray(1.0)}
    problem = jol.Problem(lambda x, p: exponential(x, p) + 0 * jnp.sum(x) * scale["now"])
    plain = jol.solve(problem, START, (P,), **QUICK)
    slope = jax.grad(lambda p: jnp.sum(jol.solve(problem, START, (p,), **QUICK).x))(P)
    again = jol.solve(problem, START, (P,), **QUICK)
    np.testing.assert_allclose(slope, 1 / P, **CLOSE)
    np.testing.assert_array_equal(plain.x, again.x)


def test_pytrees_of_x_and_args():
    def objective(x, args):
        first = exponential(x["a"], args["p"])
        return first + jnp.sum((x["b"][0] - args["q"]) ** 2) + (x["b"][1] - args["r"]) ** 2

    x0 = {"a": START, "b": (jnp.ones((2, 2)), jnp.asarray(0.0))}
    args = {"p": P, "q": jnp.arange(4.0).reshape(2, 2), "r": jnp.asarray(7.0)}

    def answer(args):
        return jol.solve(jol.Problem(objective), x0, (args,), **QUICK).x

    x = answer(args)
    assert jax.tree.structure(x) == jax.tree.structure(x0)
    np.testing.assert_allclose(x["b"][0], args["q"], **CLOSE)
    jacobian = jax.jit(jax.jacrev(answer))(args)
    forward = jax.jit(jax.jacfwd(answer))(args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **CLOSE), jacobian, forward)
    np.testing.assert_allclose(jacobian["a"]["p"], np.diag(1 / P), **CLOSE)
    np.testing.assert_allclose(jacobian["b"][1]["r"], 1.0, **CLOSE)
    np.testing.assert_allclose(jacobian["b"][0]["q"].reshape(4, 4), np.eye(4), **CLOSE)
    assert not np.any(jacobian["a"]["q"])


def test_integer_and_boolean_args():
    def objective(x, p, index, flag):
        return jnp.sum(jnp.exp(x)) - p @ x[index] + jnp.where(flag, 0.0, 1.0)

    def reach(p, index, flag):
        sol = jol.solve(jol.Problem(objective), START, (p, index, flag), **QUICK)
        return jnp.sum(sol.x * jnp.arange(3.0)) + sol.value

    index, flag = jnp.array([2, 0, 1]), jnp.array(False)
    # x[index] = log p; the value has slope -log p.
    expected = jnp.array([2.0, 0.0, 1.0]) / P - jnp.log(P)
    np.testing.assert_allclose(jax.grad(reach)(P, index, flag), expected, **CLOSE)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(reach))(P, index, flag), expected, **CLOSE)


def test_random_key_in_args():
    def objective(x, p, key):
        return exponential(x, p) + jnp.sum(x * jax.random.normal(key, (3,))) * 0.1

    def reach(p, key):
        return jnp.sum(jol.solve(jol.Problem(objective), START, (p, key), **QUICK).x)

    key = jax.random.key(1)
    expected = 1 / (P - 0.1 * jax.random.normal(key, (3,)))
    np.testing.assert_allclose(jax.grad(reach)(P, key), expected, **CLOSE)


def test_numpy_and_python_numbers_in_args():
    problem = jol.Problem(lambda x, p, shift: exponential(x - shift, p))
    sol = jol.solve(problem, np.zeros(3), (np.asarray(P), 0.5), **QUICK)
    np.testing.assert_allclose(sol.x, jnp.log(P) + 0.5, **CLOSE)
    slope = jax.grad(lambda s: jnp.sum(jol.solve(problem, START, (P, s), **QUICK).x))(0.5)
    np.testing.assert_allclose(slope, 3.0, **CLOSE)


def test_auxiliary_output_carries_derivatives():
    problem = jol.Problem(
        lambda x, p: (exponential(x, p), {"square": x * x, "count": jnp.int32(3)}), has_aux=True
    )

    def reach(p):
        sol = jol.solve(problem, START, (p,), **QUICK)
        return jnp.sum(sol.aux["square"]), sol

    slope, sol = jax.grad(reach, has_aux=True)(P)
    np.testing.assert_allclose(slope, 2 * jnp.log(P) / P, **CLOSE)
    np.testing.assert_allclose(sol.aux["square"], jnp.log(P) ** 2, **CLOSE)
    assert sol.aux["count"] == 3
    np.testing.assert_allclose(sol.value, jnp.sum(P - P * jnp.log(P)), **CLOSE)
    value_slope = jax.grad(lambda p: jol.solve(problem, START, (p,), **QUICK).value)(P)
    np.testing.assert_allclose(value_slope, -jnp.log(P), **CLOSE)


def test_float32_derivatives_stay_float32():
    p = P.astype(jnp.float32)
    slope = jax.grad(lambda p: jnp.sum(log_by_args(p, tol=1e-4).x))(p)
    assert slope.dtype == jnp.float32
    np.testing.assert_allclose(slope, 1 / p, rtol=1e-3)  # tol / smallest curvature


# -- linear solvers --------------------------------------------------------------------------------


def _lu(matvec, rhs):
    return jnp.linalg.solve(jax.jacfwd(matvec)(jnp.zeros_like(rhs)), rhs)


@pytest.mark.parametrize("linear_solver", ["dense", "cg", "minres", "gmres", _lu])
def test_matrix_free_equals_dense(linear_solver, rng):
    basis, _ = np.linalg.qr(rng.standard_normal((8, 8)))
    matrix = jnp.array((basis * np.linspace(1, 20, 8)) @ basis.T)
    v = jnp.arange(1.0, 9.0)

    def objective(x, p):
        return 0.5 * x @ matrix @ x - p @ x

    def reach(p):
        how = Implicit(linear_solver=linear_solver, tol=1e-13)
        sol = jol.solve(jol.Problem(objective), jnp.zeros(8), (p,), tol=1e-9, differentiate=how)
        return v @ sol.x

    expected = np.linalg.solve(matrix, v)
    p = jnp.ones(8)
    # Condition 20, relative residual at most 10 tol: 1e-10 has a factor to spare.
    np.testing.assert_allclose(jax.jit(jax.grad(reach))(p), expected, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(jax.jit(jax.jacfwd(reach))(p), expected, rtol=1e-9, atol=1e-10)
    # The answer is linear in p.
    np.testing.assert_allclose(jax.jit(jax.hessian(reach))(p), np.zeros((8, 8)), atol=1e-9)


@pytest.mark.parametrize("linear_solver", ["cg", "minres", "gmres"])
def test_matrix_free_solve_cut_short_gives_nan_not_a_wrong_number(linear_solver, rng):
    basis, _ = np.linalg.qr(rng.standard_normal((30, 30)))
    matrix = jnp.array((basis * np.logspace(0, 4, 30)) @ basis.T)

    def reach(p):
        how = Implicit(linear_solver=linear_solver, max_steps=1, tol=1e-12)
        problem = jol.Problem(lambda x: 0.5 * x @ matrix @ x - p @ x)
        return jnp.sum(jol.solve(problem, p, differentiate=how, tol=1e-6).x)

    slope = jax.grad(reach)(jnp.ones(30))
    right = np.linalg.solve(matrix, np.ones(30))
    # gmres counts restarts of 20 products: one of them may already do. Wrong it may not be.
    assert np.all(np.isnan(slope)) or np.allclose(slope, right, rtol=1e-6, atol=1e-8)
    if linear_solver != "gmres":
        assert np.all(np.isnan(slope))


@pytest.mark.parametrize("linear_solver", ["auto", "cg", "minres"])
@pytest.mark.parametrize("solver", [None, jol.LBFGS()])
def test_singular_hessian_gives_the_minimum_norm_derivative(linear_solver, solver):
    problem = jol.Problem(lambda x, p: (x[0] + x[1] - p) ** 2)
    how = Implicit(linear_solver=linear_solver)

    def reach(p):
        return jol.solve(problem, jnp.array([0.3, 0.1]), (p,), solver, differentiate=how).x

    half = jnp.array([0.5, 0.5])
    np.testing.assert_allclose(jax.jacfwd(reach)(1.0), half, rtol=1e-12)
    backward = jax.jacrev(reach)(1.0)
    if linear_solver != "auto" and np.all(np.isnan(backward)):
        return  # the transposed system is inconsistent: Krylov methods may say so, not guess
    np.testing.assert_allclose(backward, half, rtol=1e-12)


def test_implicit_refuses_unknown_names():
    with pytest.raises(ValueError, match=r"`linear_solver` must be one of auto, dense.*'lu'"):
        Implicit(linear_solver="lu")
    with pytest.raises(ValueError, match=r"`unfinished` must be 'nan' or 'allow'.*'zero'"):
        Implicit(unfinished="zero")


def test_large_problems_are_differentiated_without_a_matrix():
    n = 2000  # above the limit of "auto": a matrix (n, n) would be 32 MB of the program

    def reach(p):
        problem = jol.Problem(lambda x, p: jnp.sum(jnp.exp(x)) - jnp.sum(p * x))
        return jnp.sum(jol.solve(problem, jnp.zeros(n), (p,), jol.LBFGS(), tol=1e-9).x)

    p = jnp.linspace(0.5, 2, n)
    run = jax.jit(jax.grad(reach))
    assert f"tensor<{n}x{n}x" not in run.lower(p).as_text()
    np.testing.assert_allclose(run(p), 1 / p, rtol=1e-7)


def test_unrolled_derivative_keeps_no_copy_of_the_data():
    data = jnp.ones((1000, 50))
    problem = jol.Problem(lambda w, p, data: jnp.mean(jnp.logaddexp(0, -data @ w)) + p * w @ w)

    def scratch(steps):
        options = {"max_steps": steps, "differentiate": "unrolled"}
        end = lambda p, data: jnp.sum(
            jol.solve(problem, jnp.zeros(50), (p, data), jol.LBFGS(), **options).x
        )
        compiled = jax.jit(jax.grad(end)).lower(0.1, data).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    a_step = (scratch(20) - scratch(10)) / 10
    assert a_step < data.nbytes / 10  # the state, 25 vectors of 50, is 1/40 of the data


# -- answers that are none -------------------------------------------------------------------------


def _cut_short(p, **options):
    return log_by_args(p, max_steps=2, **options)


def test_unfinished_solve_has_nan_derivatives():
    sol = _cut_short(P)
    assert sol.status == Status.MAX_STEPS
    assert bool(jnp.all(jnp.isfinite(sol.x)))
    assert np.all(np.isnan(jax.jit(jax.jacfwd(lambda p: _cut_short(p).x))(P).diagonal()))
    assert np.all(np.isnan(jax.jit(jax.grad(lambda p: _cut_short(p).value))(P)))
    assert np.all(np.isnan(jax.jit(jax.hessian(lambda p: _cut_short(p).value))(P).diagonal()))


STARTS = jnp.array([[1.0], [2.0], [-1.0]])  # the objective below is NaN at the last


def _sum_of_the_successful(p, **options):
    problem = jol.Problem(lambda x, p: jnp.sum(p[0] * jnp.log(x) + 3 * (x - p[1]) ** 2))
    sol = jax.vmap(lambda x0: jol.solve(problem, x0, (p,), tol=1e-10, **options))(STARTS)
    return jnp.sum(jnp.where(sol.success, sol.x[:, 0] + sol.value, 0))


@pytest.mark.parametrize("steps", [4, 1000])
def test_failed_lane_that_is_masked_out_spoils_no_gradient(steps):
    """With 4 steps a lane ends at a point that is finite; the other at a NaN in any case."""
    at, options = jnp.array([0.3, 1.0]), {"max_steps": steps, "solver": jol.TrustRegion("exact")}
    total = lambda p: _sum_of_the_successful(p, **options)
    reverse, forward = jax.jit(jax.grad(total))(at), jax.jit(jax.jacfwd(total))(at)
    np.testing.assert_allclose(reverse, forward, rtol=1e-9)
    curvature = jax.jit(jax.hessian(total))(at)
    np.testing.assert_allclose(curvature, curvature.T, rtol=1e-7, atol=1e-9)
    # x solves 6 x (x - p1) + p0 = 0, and the value moves by the envelope theorem.
    x, lanes = float((1 + np.sqrt(0.8)) / 2), 1 if steps == 4 else 2
    dx = np.array([-1, 6 * x]) / (12 * x - 6)
    expected = lanes * (dx + np.array([np.log(x), -6 * (x - 1)]))
    np.testing.assert_allclose(reverse, expected, rtol=1e-7)


@pytest.mark.parametrize("linear_solver", ["dense", "cg", "minres", "gmres"])
def test_unfinished_solve_has_nan_gradient_whatever_solves_the_system(linear_solver):
    how = Implicit(linear_solver=linear_solver)
    slope = jax.jit(jax.grad(lambda p: jnp.sum(_cut_short(p, differentiate=how).x)))(P)
    assert np.all(np.isnan(slope))


def test_unfinished_solve_is_differentiated_on_request():
    allow = Implicit(unfinished="allow")
    slope = jax.grad(lambda p: jnp.sum(_cut_short(p, differentiate=allow).x))(P)
    # The formula at the point reached: dx/dp = exp(-x) there.
    np.testing.assert_allclose(slope, jnp.exp(-_cut_short(P).x), rtol=1e-12)


@pytest.mark.parametrize("jacobian", [jax.grad, jax.jacfwd])
def test_nan_lane_has_a_nan_gradient_and_only_it(jacobian):
    starts = jnp.stack([START, START.at[1].set(jnp.nan), START + 1])

    def reach(p, x0):
        return jnp.sum(jol.solve(LOG, x0, (p,), **QUICK).x)

    slopes = jax.jit(jax.vmap(jacobian(reach)))(jnp.stack([P, P, 2 * P]), starts)
    assert np.all(np.isnan(slopes[1]))
    np.testing.assert_allclose(slopes[0], 1 / P, **CLOSE)
    np.testing.assert_allclose(slopes[2], 1 / (2 * P), **CLOSE)


@pytest.mark.parametrize("linear_solver", ["cg", "minres", "gmres"])
def test_nan_lane_with_matrix_free_solvers(linear_solver):
    starts = jnp.stack([START, START.at[1].set(jnp.nan)])
    how = Implicit(linear_solver=linear_solver)

    def reach(p, x0):
        return jnp.sum(jol.solve(LOG, x0, (p,), **QUICK, differentiate=how).x)

    slopes = jax.jit(jax.vmap(jax.grad(reach)))(jnp.stack([P, P]), starts)
    np.testing.assert_allclose(slopes[0], 1 / P, **CLOSE)
    assert np.all(np.isnan(slopes[1]))


# -- solvers of the user's own ---------------------------------------------------------------------


def skewed(x, a, b):
    """Two equations in two unknowns whose Jacobian is not symmetric."""
    return jnp.stack([x[0] + a * x[1] ** 3 - 1, x[1] - b * jnp.tanh(x[0])])


def by_scipy(fun, *, has_aux=False):
    """SciPy's hybrid method behind a callback: opaque to JAX."""

    def host(x0, *args):
        found = scipy.optimize.root(
            lambda x: np.asarray(fun(jnp.asarray(x), *args)), np.asarray(x0), tol=1e-13
        )
        return np.asarray(found.x, dtype=np.asarray(x0).dtype)

    def solver(x0, *args):
        shape = jax.ShapeDtypeStruct(x0.shape, x0.dtype)
        x = jax.pure_callback(host, shape, x0, *args, vmap_method="sequential")
        return (x, {"norm": jnp.linalg.norm(x)}) if has_aux else x

    return solver


A, B = jnp.asarray(0.4), jnp.asarray(0.9)


def _skewed_jacobian(x, a, b):
    """(dx/da, dx/db) by hand: -F_x^-1 F_p."""
    jac = np.asarray(jax.jacfwd(skewed)(x, a, b))
    by_a, by_b = jax.jacfwd(skewed, argnums=(1, 2))(x, a, b)
    return -np.linalg.solve(jac, by_a), -np.linalg.solve(jac, by_b)


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_custom_root_around_scipy(jacobian):
    find = custom_root(skewed)(by_scipy(skewed))
    x = find(jnp.ones(2), A, B)
    np.testing.assert_allclose(skewed(x, A, B), np.zeros(2), atol=1e-12)
    expected = _skewed_jacobian(x, A, B)
    for run in (jacobian(find, argnums=(1, 2)), jax.jit(jacobian(find, argnums=(1, 2)))):
        got = run(jnp.ones(2), A, B)
        np.testing.assert_allclose(got[0], expected[0], rtol=1e-9)
        np.testing.assert_allclose(got[1], expected[1], rtol=1e-9)
    through_jit = jacobian(jax.jit(find), argnums=1)(jnp.ones(2), A, B)
    np.testing.assert_allclose(through_jit, expected[0], rtol=1e-9)
    np.testing.assert_array_equal(jacobian(find)(jnp.ones(2), A, B), np.zeros((2, 2)))


def test_custom_root_around_scipy_under_vmap():
    find = custom_root(skewed)(by_scipy(skewed))
    batch = jnp.array([0.1, 0.4, 0.7])
    slope = jax.vmap(jax.jacrev(find, argnums=1), in_axes=(None, 0, None))
    slopes = slope(jnp.ones(2), batch, B)
    for a, got in zip(batch, slopes, strict=True):
        expected = _skewed_jacobian(find(jnp.ones(2), a, B), a, B)[0]
        np.testing.assert_allclose(got, expected, rtol=1e-9)


def test_custom_root_second_order():
    def newton(x0, a, b):
        def refine(_, x):
            return x - jnp.linalg.solve(jax.jacfwd(skewed)(x, a, b), skewed(x, a, b))

        return jax.lax.fori_loop(0, 20, refine, x0)

    find = custom_root(skewed)(newton)
    second = jax.jit(jax.jacfwd(jax.jacrev(find, argnums=1), argnums=1))(jnp.ones(2), A, B)
    # The same twenty steps, differentiated through: a scan, being of fixed length.
    direct = jax.jit(jax.jacfwd(jax.jacfwd(newton, argnums=1), argnums=1))(jnp.ones(2), A, B)
    np.testing.assert_allclose(second, direct, rtol=1e-9)


def test_custom_root_with_aux_pytrees_and_closed_over_values():
    def reach(p, shift):
        def optimality(x, p):
            return {"a": jnp.exp(x["a"]) - p, "b": x["b"] * 2 - shift * x["a"][0]}

        @custom_root(optimality, has_aux=True)
        def find(x0, p):
            a = jnp.log(p)
            return {"a": a, "b": 0.5 * shift * a[0]}, {"tries": jnp.int32(1), "p": p}

        x, aux = find({"a": START, "b": jnp.asarray(0.0)}, p)
        assert set(aux) == {"tries", "p"}
        return jnp.sum(x["a"]) + x["b"], aux

    by_p, by_shift = jax.grad(lambda p, s: reach(p, s)[0], argnums=(0, 1))(P, jnp.asarray(3.0))
    np.testing.assert_allclose(by_p, 1 / P + jnp.array([1.5 / P[0], 0, 0]), rtol=1e-12)
    np.testing.assert_allclose(by_shift, 0.5 * jnp.log(P[0]), rtol=1e-12)
    by_aux = jax.grad(lambda p: jnp.sum(reach(p, jnp.asarray(3.0))[1]["p"]))(P)
    np.testing.assert_array_equal(by_aux, jnp.zeros(3))  # documented: aux gets none


@pytest.mark.parametrize("jacobian", [jax.jacfwd, jax.jacrev])
def test_custom_root_whose_solver_loops_over_a_closed_over_value(jacobian):
    def reach(a):
        def optimality(x):
            return x**2 - a

        @custom_root(optimality)
        def heron(x0):
            def going(x):
                return jnp.abs(x * x - a) > 1e-14 * a

            return jax.lax.while_loop(going, lambda x: 0.5 * (x + a / x), x0)

        return heron(jnp.asarray(1.0))

    np.testing.assert_allclose(jacobian(reach)(jnp.asarray(2.0)), 0.5 / 2**0.5, rtol=1e-12)
    np.testing.assert_allclose(jax.jit(jacobian(reach))(jnp.asarray(2.0)), 0.5 / 2**0.5, rtol=1e-12)


def test_custom_fixed_point():
    def average(x, a):
        return 0.5 * (x + a / x)

    @custom_fixed_point(average, has_aux=True)
    def heron(x0, a):
        return jax.lax.fori_loop(0, 30, lambda _, x: average(x, a), x0), jnp.int32(30)

    a = jnp.array([2.0, 9.0])
    root, _ = heron(jnp.ones(2), a)
    np.testing.assert_allclose(root, jnp.sqrt(a), rtol=1e-14)
    for jacobian in (jax.jacfwd, jax.jacrev):
        slope = jacobian(lambda a: heron(jnp.ones(2), a)[0])(a)
        np.testing.assert_allclose(slope, np.diag(0.5 / jnp.sqrt(a)), rtol=1e-12, atol=1e-15)


def test_custom_root_that_failed_has_a_nan_derivative():
    find = custom_root(lambda x, a: x - a)(lambda x0, a: a * jnp.nan)
    assert np.isnan(jax.grad(find, argnums=1)(jnp.asarray(0.0), jnp.asarray(1.0)))


def test_custom_root_refuses_a_residual_of_another_size():
    find = custom_root(lambda x, a: jnp.concatenate([x, x]) - a)(lambda x0, a: x0)
    with pytest.raises(ValueError, match=r"as many numbers as x has, 2, but it returned 4"):
        jax.grad(lambda a: jnp.sum(find(jnp.ones(2), a)))(jnp.ones(4))


# -- KKT systems -----------------------------------------------------------------------------------


BUDGET = jol.Problem(lambda x, b: jnp.sum((x - 1.0) ** 2), ineq=lambda x, b: jnp.sum(x) - b)


def _budget_point(b):
    """Of min sum (x - 1)^2 s.t. sum x <= b in three variables, for b < 3."""
    return jol.Point(jnp.full(3, b / 3), jol.Multipliers(ineq=2 * (1 - b / 3)))


def test_kkt_system_with_known_multipliers_is_differentiated():
    @custom_root(lambda point, b: BUDGET.optimality(point, (b,)))
    def find(start, b):
        return _budget_point(b)

    b = jnp.asarray(1.0)
    start = _budget_point(jnp.asarray(0.5))
    for jacobian in (jax.jacfwd, jax.jacrev):
        slopes = jax.jit(jacobian(find, argnums=1))(start, b)
        np.testing.assert_allclose(slopes.x, np.full(3, 1 / 3), rtol=1e-12)
        np.testing.assert_allclose(slopes.multipliers.ineq, -2 / 3, rtol=1e-12)


def test_residuals_lagrangian_and_slacks_at_a_kkt_point():
    b = jnp.asarray(1.0)
    point = _budget_point(b)
    residuals = BUDGET.residuals(point, (b,))
    assert residuals.worst() <= 1e-15
    slacks = BUDGET.slacks(point.x, (b,))
    np.testing.assert_allclose(slacks.ineq, 0, atol=1e-15)
    assert slacks.eq is slacks.lower is slacks.upper is None
    # Complementarity: the Lagrangian is the objective, 3 (1/3 - 1)^2, and its slope in b is -mult.
    np.testing.assert_allclose(BUDGET.lagrangian(point, (b,)), 4 / 3, rtol=1e-14)
    slope = jax.grad(lambda b: BUDGET.lagrangian(point, (b,)))(b)
    np.testing.assert_allclose(slope, -4 / 3, rtol=1e-14)


def test_each_residual_sees_its_own_violation():
    b = jnp.asarray(1.0)
    point = _budget_point(b)
    price = point.multipliers.ineq
    infeasible = BUDGET.residuals(point._replace(x=point.x + 0.1), (b,))
    np.testing.assert_allclose(infeasible.primal, 0.3, rtol=1e-12)
    np.testing.assert_allclose(infeasible.stationarity, 0.2, rtol=1e-12)
    np.testing.assert_allclose(infeasible.complementarity, 0.3 * price, rtol=1e-12)
    negative = BUDGET.residuals(point._replace(multipliers=jol.Multipliers(ineq=-price)), (b,))
    np.testing.assert_allclose(negative.dual, price, rtol=1e-12)
    slack = BUDGET.residuals(point._replace(x=point.x - 0.1), (b,))
    np.testing.assert_allclose(slack.primal, 0, atol=1e-15)
    np.testing.assert_allclose(slack.complementarity, 0.3 * price, rtol=1e-12)
    # A product of 1e-6 of which neither factor is zero is not complementary to 1e-6.
    near = jol.Point(point.x - 1e-3, jol.Multipliers(ineq=jnp.full(1, 1e-3)))
    np.testing.assert_allclose(BUDGET.residuals(near, (b,)).complementarity, 1e-3, rtol=1e-9)


C = jnp.array([2.0, -1.0, 0.5])
BOX = jol.Problem(lambda x, c: jnp.sum((x - c) ** 2), bounds=(0.0, jnp.array([1.0, 1.0, jnp.inf])))
BOX_POINT = jol.Point(
    jnp.array([1.0, 0.0, 0.5]),
    jol.Multipliers(lower=jnp.array([0.0, 2.0, 0.0]), upper=jnp.array([2.0, 0.0, 0.0])),
)


def test_bounds_at_a_kkt_point():
    assert BOX.residuals(BOX_POINT, (C,)).worst() == 0
    slacks = BOX.slacks(BOX_POINT.x, (C,))
    np.testing.assert_array_equal(slacks.lower, [-1, 0, -0.5])
    np.testing.assert_array_equal(slacks.upper, [0, -1, -1])  # the infinite bound never binds
    np.testing.assert_allclose(BOX.lagrangian(BOX_POINT, (C,)), 2.0, rtol=1e-14)
    outside = BOX.residuals(BOX_POINT._replace(x=jnp.array([1.5, -0.2, 0.5])), (C,))
    np.testing.assert_allclose(outside.primal, 0.5, rtol=1e-14)


def test_bounds_kkt_system_is_differentiated():
    @custom_root(lambda point, c: BOX.optimality(point, (c,)))
    def find(start, c):
        x = jnp.clip(c, 0, jnp.array([1.0, 1.0, jnp.inf]))
        force = 2 * (x - c)
        return jol.Point(
            x, jol.Multipliers(lower=jnp.maximum(force, 0), upper=jnp.maximum(-force, 0))
        )

    jacobian = jax.jacrev(find, argnums=1)(BOX_POINT, C)
    np.testing.assert_allclose(jacobian.x, np.diag([0, 0, 1]), atol=1e-14)
    np.testing.assert_allclose(jacobian.multipliers.upper, np.diag([2, 0, 0]), atol=1e-14)
    np.testing.assert_allclose(jacobian.multipliers.lower, np.diag([0, -2, 0]), atol=1e-14)


def test_equality_multiplier_has_the_stated_sign():
    problem = jol.Problem(lambda x, c: jnp.sum(x * x), eq=lambda x, c: x[0] + x[1] - c)
    c = jnp.asarray(2.0)
    point = jol.Point(jnp.ones(2), jol.Multipliers(eq=jnp.asarray(-2.0)))
    assert problem.residuals(point, (c,)).worst() == 0
    # value(c) = c^2 / 2: d value / d c = c = -eq_mult.
    np.testing.assert_allclose(jax.grad(lambda c: problem.lagrangian(point, (c,)))(c), 2.0)
    optimality = problem.optimality(point, (c,))
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(optimality))


@functools.cache
def _bound_function_problem():
    return jol.Problem(lambda x, c: jnp.sum((x - c) ** 2), bounds=lambda c: (None, c - 1))


def test_bounds_may_be_a_function_of_args():
    problem = _bound_function_problem()
    point = jol.Point(C - 1, jol.Multipliers(upper=jnp.full(3, 2.0)))
    assert problem.residuals(point, (C,)).worst() <= 1e-15
    assert problem.slacks(point.x, (C,)).lower is None
