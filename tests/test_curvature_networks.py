"""Verdicts, conditioning and preconditioners for functions of many parameters, and experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Kind, curvature

# -- verdicts --------------------------------------------------------------------------------------


def bowl(x, a):
    return 0.5 * jnp.sum(a * x["one"] ** 2) + jnp.sum(x["one"] ** 4)


@pytest.fixture(scope="module")
def judged():
    """Functions of 900 parameters with known eigenvalues, judged by Lanczos in one program."""
    rest = np.linspace(0.2, 1.0, 897)
    zero, moved = np.zeros(900), np.full(900, 0.1)
    cases = {
        "minimum": (np.concatenate([[0.1, 0.1, 0.2], rest]), zero),
        "maximum": (-np.concatenate([[0.1, 0.1, 0.2], rest]), zero),
        "saddle": (np.concatenate([[-0.3, -0.2, -0.1], rest]), zero),
        "singular": (np.concatenate([[0.0, 0.1, 0.1], rest]), zero),
        "slope": (np.concatenate([[-0.3, -0.2, -0.1], rest]), moved),
        "broken": (np.concatenate([[np.nan, 0.1, 0.1], rest]), zero),
    }
    of = lambda a, x: curvature.classify(bowl, {"one": jnp.asarray(x)}, (jnp.asarray(a),), dense=9)
    return {name: (case[0], of(*case)) for name, case in cases.items()}


def test_verdicts_where_the_bounds_allow_them(judged):
    kinds = {name: Kind(int(verdict.kind)) for name, (_, verdict) in judged.items()}
    assert kinds == {
        "minimum": Kind.STRICT_MINIMUM,
        "maximum": Kind.STRICT_MAXIMUM,
        "saddle": Kind.SADDLE,
        "singular": Kind.UNDECIDED,
        "slope": Kind.NOT_STATIONARY,
        "broken": Kind.NONFINITE,
    }
    for name in ("minimum", "maximum", "saddle", "singular"):
        a, verdict = judged[name]
        slack = 1e-12
        assert verdict.smallest[0] - slack <= a.min() <= verdict.smallest[1] + slack
        assert verdict.largest[0] - slack <= a.max() <= verdict.largest[1] + slack
        assert verdict.index[0] <= np.sum(a < 0) <= verdict.index[1]
        error = max(float(verdict.counted.error), 1e-9)
        assert abs(float(verdict.counted.value) - np.sum(a < 0)) <= 4 * error + 1
    saddle = judged["saddle"][1]
    assert saddle.index[0] == 3
    assert abs(saddle.descent["one"][0]) > 0.99
    np.testing.assert_allclose(saddle.smallest[1], -0.3, atol=1e-8)
    assert not np.any(judged["minimum"][1].descent["one"])
    assert "saddle point" in str(saddle)
    assert "between" in str(saddle)


def test_small_functions_are_judged_as_by_the_dense_test():
    functions = {
        "cup": lambda x: x[0] ** 2 + 2 * x[1] ** 2,
        "saddle": lambda x: x[0] ** 2 - 2 * x[1] ** 2,
        "flat": lambda x: x[0] ** 2 + x[1] ** 4,
    }
    for fun in functions.values():
        x = jnp.zeros(2)
        ours, known = curvature.classify(fun, x), jol.classify(fun, x)
        assert int(ours.kind) == int(known.kind)
        assert ours.index[0] == known.morse_index
        np.testing.assert_allclose(ours.smallest, known.eigenvalues[0], atol=1e-14)
    with pytest.raises(ValueError, match="at least 8"):
        curvature.classify(functions["cup"], jnp.zeros(2), steps=3)


def test_escape_direction_descends_from_a_saddle():
    fun = lambda x: 5 * x["a"] ** 2 - x["b"] ** 2 + x["b"] ** 4 + 1e-3 * x["b"]
    x = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    op = curvature.hessian(fun, x)
    direction, curved = curvature.escape_direction(op, jax.grad(fun)(x))
    np.testing.assert_allclose([direction["a"], direction["b"]], [0, -1], atol=1e-12)
    np.testing.assert_allclose(curved.value, -2, atol=1e-12)
    up = curvature.hessian(lambda x: x["a"] ** 2 + x["b"] ** 2, x)
    assert curvature.escape_direction(up)[0] == {"a": 0, "b": 0}
    with pytest.raises(ValueError, match="shapes"):
        curvature.escape_direction(op, jnp.zeros(3))
