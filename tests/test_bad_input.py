"""Bad input is refused before tracing goes deep: the argument, what came, what to do instead."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status


def square(x, *args):
    return jnp.sum(x * x)


PROBLEM = jol.Problem(square)
X0 = jnp.ones(2)


def refused(kind, *words):
    """`pytest.raises` for a message that has all the words, in this order."""
    return pytest.raises(kind, match=r"(?s)" + ".*".join(words))


# -- the start -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x0", "kind", "words"),
    [
        (jnp.array([1, 2]), TypeError, ("`x0`", "floating", "int64", r"1\.0 for 1")),
        (3, TypeError, ("`x0`", "floating", "int", r"1\.0 for 1")),
        (jnp.array([True]), TypeError, ("`x0`", "floating", "bool")),
        (jnp.array([1j, 2]), TypeError, ("`x0`", "real", "complex128", "imaginary part")),
        ({"a": jnp.ones(2), "b": [jnp.arange(2)]}, TypeError, (r"`x0\['b'\]\[0\]`", "floating")),
        ("here", TypeError, ("`x0`", "floating array", "str")),
        ({"a": "here"}, TypeError, (r"`x0\['a'\]`", "str")),
        (jnp.array([1.0, jnp.nan]), ValueError, ("`x0`", "finite", "NaN")),
        ({"a": jnp.array([jnp.inf])}, ValueError, (r"`x0\['a'\]`", "finite", "infinite")),
        (jnp.zeros(0), ValueError, ("`x0`", "at least one number", r"\(0,\)")),
        ({"a": jnp.zeros(2), "b": jnp.zeros((3, 0))}, ValueError, (r"`x0\['b'\]`", r"\(3, 0\)")),
        ({}, ValueError, ("`x0`", "at least one number", "empty pytree")),
        ((), ValueError, ("`x0`", "empty pytree")),
        (None, ValueError, ("`x0`", "empty pytree", "None")),
    ],
    ids=str,
)
def test_start(x0, kind, words):
    with refused(kind, *words):
        jol.solve(PROBLEM, x0)
    with refused(kind, *words):
        jol.minimize(square, x0)
    with refused(kind, *(word.replace("`x0", "`point.x") for word in words)):
        jol.LBFGS().init(PROBLEM, x0, ())


def test_list_of_numbers_is_a_pytree_and_passes():
    sol = jol.minimize(lambda x: (x[0] - 1) ** 2 + (x[1] + 2) ** 2, [0.0, 0.0])
    assert isinstance(sol.x, list)
    np.testing.assert_allclose(sol.x, [1, -2], atol=1e-7)


# -- the objective ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("objective", "words"),
    [
        (lambda x: x, ("real floating scalar", r"float64\[2\]", r"jnp\.sum")),
        (lambda x: x[:1], ("real floating scalar", r"float64\[1\]", r"jnp\.sum")),
        (
            lambda x: jax.lax.complex(x[0], x[1]),
            ("real floating scalar", "complex128", "real number"),
        ),
        (lambda x: (jnp.sum(x), x), ("real floating scalar", "has_aux=True")),
        (lambda x: None, ("real floating scalar", "None")),
        (lambda x: jnp.int32(3), ("real floating scalar", "int32", "floating number")),
        (lambda x: {"loss": jnp.sum(x)}, ("real floating scalar", "loss", "float64")),
    ],
)
def test_objective_output(objective, words):
    with refused(TypeError, "`objective`", *words):
        jol.minimize(objective, X0)


def test_objective_that_returns_no_array_or_a_constant():
    with refused(TypeError, "str", "could not evaluate `objective"):
        jol.minimize(lambda x: "low", X0)
    # A constant is an objective of which every point is a minimum.
    assert jol.minimize(lambda x: jnp.asarray(2.0), X0).status == Status.CONVERGED


def test_has_aux_without_a_pair():
    with refused(TypeError, "`objective`", r"\(value, aux\)", "has_aux=True", r"float64\[\]"):
        jol.minimize(square, X0, has_aux=True)


def test_objective_that_is_not_callable():
    with refused(TypeError, r"Problem\(objective=...\)", "function", "Array"):
        jol.Problem(X0)
    with refused(TypeError, r"Problem\(ineq=...\)", "function", "float"):
        jol.Problem(square, ineq=1.0)
    with refused(TypeError, r"Problem\(bounds=...\)", r"\(lower, upper\)", "list"):
        jol.Problem(square, bounds=[0, 1])


def test_function_in_place_of_a_problem():
    with refused(TypeError, "`problem`", "function came", r"Problem\(objective\)", "minimize"):
        jol.solve(square, X0)


@pytest.mark.parametrize(
    "objective",
    [lambda x: jnp.sum(jnp.log(x)), lambda x: jnp.sum(jnp.sqrt(x)), lambda x: 1 / jnp.sum(x)],
)
def test_objective_not_finite_at_the_start_is_an_error_and_under_jit_a_status(objective):
    with refused(ValueError, "`objective`", "not finite at `x0`", "value there is", "defined"):
        jol.minimize(objective, jnp.zeros(2))
    sol = jax.jit(lambda x0: jol.minimize(objective, x0))(jnp.zeros(2))
    assert sol.status == Status.NONFINITE
    assert not sol.success


# -- args ------------------------------------------------------------------------------------------


def test_args_that_are_no_tuple():
    with refused(TypeError, "`args`", "tuple", "came", r"args=\(value,\)"):
        jol.solve(PROBLEM, X0, jnp.ones(2))
    with refused(TypeError, "`args`", "tuple", "list came"):
        jol.solve(PROBLEM, X0, [1.0])
    with refused(TypeError, "`args`", "tuple", "float came"):
        jol.LBFGS().init(PROBLEM, X0, 1.0)


def test_strings_and_functions_in_args():
    with refused(TypeError, r"`args\[0\]`", "array or a number", "str came", "close over"):
        jol.solve(PROBLEM, X0, ("fast",))
    with refused(TypeError, r"`args\[1\]\['f'\]`", "array or a number", "function came"):
        jol.solve(PROBLEM, X0, (1.0, {"f": square}))


def matched(x, a, b):
    return jnp.sum((a @ x - b) ** 2)


def test_args_of_the_wrong_shape_show_all_shapes():
    with refused(
        TypeError,
        "could not evaluate `objective",
        r"x: +float64\[2\]",
        r"args\[0\]: float64\[4,3\]",
        r"args\[1\]: float64\[4\]",
    ):
        jol.minimize(matched, X0, (jnp.ones((4, 3)), jnp.ones(4)))


def test_missing_and_surplus_arguments():
    with refused(
        TypeError, "missing 1 required positional", r"args\[0\]: float64\[4,2\]", "as many"
    ):
        jol.minimize(matched, X0, (jnp.ones((4, 2)),))
    with refused(TypeError, "positional argument", r"args\[2\]: float64\[\]", "as many"):
        jol.minimize(matched, X0, (jnp.ones((4, 2)), jnp.ones(4), jnp.asarray(1.0)))


def test_error_inside_the_objective_keeps_its_type_and_gets_a_note():
    def broken(x):
        raise KeyError("weights")

    with pytest.raises(KeyError, match="weights") as error:
        jol.minimize(broken, X0)
    assert any("float64[2]" in note for note in error.value.__notes__)


# -- the solver ------------------------------------------------------------------------------------


def test_solver_class_or_name_in_place_of_an_instance():
    with refused(TypeError, "`solver`", "instance", "LBFGS came", r"`LBFGS\(\)`", "TrustRegion"):
        jol.solve(PROBLEM, X0, solver=jol.LBFGS)
    with refused(TypeError, "`solver`", "instance", "'LBFGS' came", "There are: ", "TrustRegion"):
        jol.solve(PROBLEM, X0, solver="LBFGS")
    with refused(TypeError, "`solver`", "instance"):
        jol.solve(PROBLEM, X0, solver=optax.adam(1e-2))


def test_solver_that_does_not_accept_the_problem():
    with refused(TypeError, "LBFGS takes no bounds and ineq", "has bounds and ineq"):
        jol.minimize(square, X0, bounds=(0, 1), ineq=lambda x: x, solver=jol.LBFGS())


@pytest.mark.parametrize("memory", [0, -1, 2.5, None, "10", True])
def test_memory(memory):
    with refused(ValueError, r"LBFGS\(memory=...\)", "integer >= 1", "came"):
        jol.LBFGS(memory=memory)


def test_memory_may_be_a_numpy_integer():
    assert jol.LBFGS(memory=np.int64(5)) == jol.LBFGS(memory=5)


@pytest.mark.parametrize(
    "step", [0, -1, -0.1, float("nan"), np.float64(-1), np.float32(-1), np.asarray(-1.0)]
)
def test_step_size(step):
    with refused(ValueError, r"FixedStep\(step_size=...\)", "> 0", "came", "best"):
        jol.FixedStep(step)


def test_subproblem():
    with refused(ValueError, r"TrustRegion\(subproblem=...\)", "'exact', 'cg' or None", "'gltr'"):
        jol.TrustRegion("gltr")


@pytest.mark.parametrize("given", [optax.adam, 0.1, None, "adam"])
def test_optax_without_a_transformation(given):
    with refused(TypeError, r"Optax\(transformation=...\)", "GradientTransformation", "Write"):
        jol.Optax(given)


# -- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_steps", [0, -5, 1.5, 10.0, True, "10", jnp.asarray(5)])
def test_max_steps(max_steps):
    with refused(ValueError, "`max_steps`", "integer >= 1", "came", "default"):
        jol.solve(PROBLEM, X0, max_steps=max_steps)


def test_max_steps_may_be_a_numpy_integer():
    assert jol.solve(PROBLEM, X0, max_steps=np.int64(50)).status == Status.CONVERGED


@pytest.mark.parametrize("tol", [-1e-3, float("nan"), np.float32(-1), jnp.asarray(-1.0)])
def test_tol(tol):
    with refused(ValueError, "`tol`", ">= 0", "came", "default"):
        jol.solve(PROBLEM, X0, tol=tol)


@pytest.mark.parametrize("tol", ["tight", jnp.ones(2), [1e-3], 1e-3 + 1j])
def test_tol_that_is_no_number(tol):
    with refused((TypeError, ValueError), "`tol`", "number >= 0", "came"):
        jol.solve(PROBLEM, X0, tol=tol)


@pytest.mark.parametrize("history", ["all", "X", 2, None, ["x"]])
def test_history(history):
    with refused(ValueError, "`history`", "False, True, or 'x'", "came"):
        jol.solve(PROBLEM, X0, history=history)


@pytest.mark.parametrize("differentiate", ["yes", None, True, "Implicit", 3])
def test_differentiate(differentiate):
    with refused(ValueError, "`differentiate`", "implicit, unrolled", "came"):
        jol.solve(PROBLEM, X0, differentiate=differentiate)


def test_unrolled_without_max_steps():
    with refused(ValueError, "differentiate='unrolled'", "max_steps", "implicit"):
        jol.solve(PROBLEM, X0, differentiate="unrolled")


def test_unrolled_through_a_solver_with_a_loop_of_its_own():
    with refused(ValueError, "differentiate='unrolled'", "TrustRegion", "2 variables", "LBFGS"):
        options = {"differentiate": "unrolled", "max_steps": 5}
        jol.solve(PROBLEM, X0, solver=jol.TrustRegion("cg"), **options)


def test_mesh_with_explicit_axes():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    x0 = jax.device_put(X0, sharding)
    with refused(ValueError, "`x0`", "Explicit", "expect Auto", "axis_types="):
        jol.solve(PROBLEM, x0)
    with refused(ValueError, "`args", "Explicit", "expect Auto"):
        jol.solve(jol.Problem(lambda x, a: jnp.sum((x - a) ** 2)), X0, args=(x0,))


def test_unknown_options_of_minimize_are_named_with_those_that_exist():
    with refused(
        TypeError, "unknown options gtol, maxiter", "solver, tol, max_steps", "argument of"
    ):
        jol.minimize(square, X0, maxiter=5, gtol=1e-3)


def test_step_by_hand_with_a_state_that_is_none():
    with refused(TypeError, r"LBFGS\.step", "`init` or `step` returned", "tuple came"):
        jol.LBFGS().step(PROBLEM, (X0, X0), ())


# -- the solution ----------------------------------------------------------------------------------


def test_raise_for_status_on_a_tracer():
    with refused(TypeError, "raise_for_status", "concrete", "outside|returns", "success"):
        jax.jit(lambda x0: jol.solve(PROBLEM, x0).raise_for_status().x)(X0)


# -- bounds and constraints ------------------------------------------------------------------------


def test_bounds_of_another_shape():
    problem = jol.Problem(square, bounds=(jnp.zeros(3), None))
    with refused((TypeError, ValueError), "bound"):
        jol.solve(problem, X0)
