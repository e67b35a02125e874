"""Verdicts on points whose story is known in advance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Kind

# name: objective, point, verdict, inertia (negative, zero, positive)
POINTS = {
    "bowl": (lambda x: x @ x, [0.0, 0.0], Kind.STRICT_MINIMUM, (0, 0, 2)),
    "dome": (lambda x: -x @ x, [0.0, 0.0], Kind.STRICT_MAXIMUM, (2, 0, 0)),
    "saddle": (lambda x: x[0] ** 2 - x[1] ** 2, [0.0, 0.0], Kind.SADDLE, (1, 0, 1)),
    "slope": (lambda x: x @ x, [1.0, 0.0], Kind.NOT_STATIONARY, (0, 0, 2)),
    "x^4": (lambda x: x[0] ** 4, [0.0], Kind.DEGENERATE, (0, 1, 0)),
    "x^3": (lambda x: x[0] ** 3, [0.0], Kind.DEGENERATE, (0, 1, 0)),
    "x^2 - y^4": (lambda x: x[0] ** 2 - x[1] ** 4, [0.0, 0.0], Kind.DEGENERATE, (0, 1, 1)),
    "monkey saddle": (
        lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
        [0.0, 0.0],
        Kind.DEGENERATE,
        (0, 2, 0),
    ),
    "flat valley": (lambda x: x[0] ** 2 + 0 * x[1], [0.0, 0.0], Kind.DEGENERATE, (0, 1, 1)),
    "turned valley": (lambda x: (x[0] + x[1] - 1) ** 2, [0.3, 0.7], Kind.DEGENERATE, (0, 1, 1)),
    "flat saddle": (
        lambda x: x[0] ** 2 - x[1] ** 2 + 0 * x[2],
        [0.0, 0.0, 0.0],
        Kind.SADDLE,
        (1, 1, 1),
    ),
    "faint bowl": (lambda x: 1e-12 * (x @ x), [0.0, 0.0], Kind.STRICT_MINIMUM, (0, 0, 2)),
    "steep bowl": (lambda x: 1e12 * (x @ x), [0.0, 0.0], Kind.STRICT_MINIMUM, (0, 0, 2)),
    "constant": (lambda x: 0 * x[0] + 1.0, [0.0], Kind.DEGENERATE, (0, 1, 0)),
    "log of nothing": (lambda x: jnp.log(x[0]), [0.0], Kind.NONFINITE, None),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", POINTS)
def test_verdict_and_inertia(name, dtype):
    fun, x, kind, inertia = POINTS[name]
    point = jol.classify(fun, np.asarray(x, dtype))
    assert Kind(int(point.kind)) == kind
    assert point.eigenvalues.dtype == dtype
    if inertia is not None:
        assert (int(point.negative), int(point.zero), int(point.positive)) == inertia
        assert int(point.morse_index) == inertia[0]
    assert kind.verdict in str(point)


@pytest.mark.parametrize(
    ("name", "not_minimum", "not_maximum"),
    [
        ("x^4", False, True),
        ("x^3", True, True),
        ("x^2 - y^4", True, True),
        ("monkey saddle", True, True),
        ("flat valley", False, True),
        ("constant", False, False),
    ],
)
def test_evidence_beyond_second_derivatives(name, not_minimum, not_maximum):
    fun, x, _, _ = POINTS[name]
    evidence = jol.classify(fun, np.asarray(x)).evidence
    assert bool(evidence.not_minimum) == not_minimum
    assert bool(evidence.not_maximum) == not_maximum


@pytest.mark.parametrize("offset", [1e-2, 1e-3, 1e-4])
def test_near_a_degenerate_point_stays_degenerate(offset):
    # The Hessian 12 x^2 is positive there, but not over the Newton step back to the critical point.
    point = jol.classify(lambda x: x[0] ** 4, np.array([offset]), tol=1e-2)
    assert Kind(int(point.kind)) == Kind.DEGENERATE
    assert not bool(point.evidence.not_minimum)


def test_solver_output_at_a_degenerate_minimum_is_not_certified():
    problem = jol.Problem(lambda x: jnp.sum(x**4))
    solution = jol.solve(problem, np.ones(2))
    certificate = jol.certify(problem, solution)
    assert bool(solution.success)
    assert not bool(certificate.certified)
    assert Kind(int(certificate.verdict)) == Kind.DEGENERATE


def test_descent_direction_at_a_saddle_goes_down():
    def fun(x):
        return x["a"] ** 2 - 3 * jnp.sum(x["b"] ** 2) + x["a"] * x["b"][0]

    x = {"a": np.zeros(()), "b": np.zeros(2)}
    point = jol.classify(fun, x)
    moved = jax.tree.map(lambda leaf, v: leaf + 1e-3 * v, x, point.descent)
    assert jax.tree.structure(point.descent) == jax.tree.structure(x)
    assert fun(moved) < fun(x)
    assert int(point.morse_index) == 2


def test_certificate_of_himmelblau_under_jit_and_vmap():
    def fun(x):
        return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2

    # Published to 6 digits; one Newton step makes them exact enough.
    known = jnp.array(
        [[3.0, 2.0], [3.584428, -1.848126], [-0.270845, -0.923039], [0.086678, 2.884255]]
    )
    x = known - jax.vmap(lambda p: jnp.linalg.solve(jax.hessian(fun)(p), jax.grad(fun)(p)))(known)
    problem = jol.Problem(fun)
    certificates = jax.jit(jax.vmap(lambda p: jol.certify(problem, p)))(x)
    kinds = [Kind(int(k)) for k in certificates.verdict]
    expected = [Kind.STRICT_MINIMUM, Kind.STRICT_MINIMUM, Kind.STRICT_MAXIMUM, Kind.SADDLE]
    assert kinds == expected
    assert certificates.certified.tolist() == [True, True, False, False]
    for lane in range(4):
        alone = jol.certify(problem, x[lane])
        assert int(alone.verdict) == int(certificates.verdict[lane])
        np.testing.assert_allclose(
            alone.second_order.eigenvalues, certificates.second_order.eigenvalues[lane], rtol=1e-12
        )
    assert "2 certified" in str(certificates)


def test_report_is_readable():
    problem = jol.Problem(lambda x: (x[0] - 1) ** 2 + 10 * x[1] ** 2)
    report = str(jol.certify(problem, jnp.array([1.0, 0.0])))
    for words in (
        "CERTIFIED",
        "strict local minimum",
        "2 positive",
        "condition number 10",
        "because",
    ):
        assert words in report
    saddle = str(jol.certify(jol.Problem(lambda x: x[0] * x[1]), jnp.zeros(2)))
    assert saddle.startswith("NOT CERTIFIED")


def test_a_certificate_asks_no_solver():
    problem = jol.Problem(lambda x: x @ x)
    solution = jol.solve(problem, jnp.ones(2), max_steps=1)  # MAX_STEPS, at x0
    assert Kind(int(jol.certify(problem, solution).verdict)) == Kind.NOT_STATIONARY
    assert bool(jol.certify(problem, jnp.zeros(2)).certified)


def test_second_point_of_the_same_shape_does_not_trace_again():
    traces = 0

    def fun(x, p):
        nonlocal traces
        traces += 1
        return p * (x @ x)

    for p in (1.0, 2.0, 3.0):
        assert bool(jol.certify(jol.Problem(fun), jnp.zeros(3), args=(p,)).certified)
    assert traces == 1


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: jol.certify(lambda x: x @ x, jnp.zeros(2)),
            TypeError,
            "`problem` must be a Problem",
        ),
        (lambda: jol.classify(lambda x: x @ x, jnp.zeros(3001)), ValueError, "3001 variables"),
        (lambda: jol.classify(lambda x: x, jnp.zeros(2)), TypeError, "real floating scalar"),
        (
            lambda: jol.classify(lambda x: x @ x, np.zeros(2, int)),
            TypeError,
            "`x` must be floating",
        ),
        (lambda: jol.classify(lambda x, a: x @ x, jnp.zeros(2), 1.0), TypeError, "must be a tuple"),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
