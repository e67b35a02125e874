"""Entropy, softmax and attention against their KKT conditions and this package's solvers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Status
from jaxopt_lite.learning import attention, maximum_entropy, simplex_argmax

RNG = np.random.default_rng(0)
DICE = np.arange(1.0, 7.0)[:, None]
PHI = RNG.standard_normal((20, 3))
SCORES = RNG.standard_normal(6)


def test_loaded_die_and_no_moments(compilations):
    fair = maximum_entropy(DICE, np.array([3.5])).raise_for_status()
    np.testing.assert_allclose(fair.x, 1 / 6, atol=1e-12)
    assert fair.state.entropy == pytest.approx(np.log(6), rel=1e-12)
    loaded = maximum_entropy(DICE, np.array([4.5]), tol=1e-12).raise_for_status()
    with compilations() as count:
        maximum_entropy(DICE, np.array([4.4]), tol=1e-12)
    assert count.programs == 0
    p = np.asarray(loaded.x)  # Jaynes's die
    expected = [0.05435, 0.07877, 0.11416, 0.16545, 0.23977, 0.34749]
    np.testing.assert_allclose(p, expected, atol=1e-5)
    assert loaded.state.entropy < np.log(6)
    assert abs(loaded.state.gap) < 1e-12
    # The Gibbs form, and the multiplier as a price: d value / d m = theta.
    theta = loaded.state.natural
    np.testing.assert_allclose(np.diff(np.log(p)), theta[0], atol=1e-10)
    slope = jax.grad(lambda m: maximum_entropy(DICE, m).value)(jnp.array([4.5]))
    np.testing.assert_allclose(slope, theta, rtol=1e-7)
    np.testing.assert_allclose(loaded.multipliers.eq[0], -theta)
    prior = np.array([1.0, 1, 1, 1, 1, 4]) / 9
    free = maximum_entropy(DICE, np.array([prior @ DICE[:, 0]]), prior=prior)
    np.testing.assert_allclose(free.x, prior, atol=1e-10)


def test_the_dual_agrees_with_the_primal_solver_and_says_what_is_impossible():
    target = PHI.T @ RNG.dirichlet(np.ones(20))
    found = maximum_entropy(PHI, target, tol=1e-12).raise_for_status()
    np.testing.assert_allclose(PHI.T @ np.asarray(found.x), target, atol=1e-11)
    primal = jol.minimize(
        lambda p, phi, m: jnp.sum(p * jnp.log(p)),
        jnp.full(20, 0.05),
        (jnp.asarray(PHI), jnp.asarray(target)),
        eq=lambda p, phi, m: jnp.append(phi.T @ p - m, jnp.sum(p) - 1),
    ).raise_for_status()
    np.testing.assert_allclose(found.x, primal.x, atol=1e-7)
    np.testing.assert_allclose(found.multipliers.eq[0], primal.multipliers.eq[:3], atol=1e-6)
    assert found.value == pytest.approx(float(primal.value) + np.log(20), abs=1e-8)
    outside = 3 * PHI[np.argmax(PHI[:, 0])]
    none = maximum_entropy(PHI, outside)
    assert none.status == Status.PRIMAL_INFEASIBLE
    d = np.asarray(none.state.direction)
    assert outside @ d - (PHI @ d).max() == pytest.approx(float(none.state.separation))
    assert none.state.separation > 0
    assert maximum_entropy(DICE, np.array([7.0])).status == Status.PRIMAL_INFEASIBLE


@pytest.mark.parametrize("regularizer", ["entropy", "squares"])
def test_softmax_and_sparsemax_are_kkt_points(regularizer):
    T = 0.7
    found = simplex_argmax(SCORES, T, regularizer=regularizer).raise_for_status()
    assert max(map(float, found.residuals)) < 1e-12

    def negative(p, s, T):
        if regularizer == "entropy":
            return -s @ p + T * jnp.sum(jax.scipy.special.xlogy(p, p))
        return -s @ p + T / 2 * p @ p

    args = (jnp.asarray(SCORES), T)
    solved = jol.minimize(
        negative, jnp.full(6, 1 / 6), args, eq=lambda p, s, T: jnp.sum(p) - 1, bounds=(0.0, None)
    ).raise_for_status()
    np.testing.assert_allclose(found.x, solved.x, atol=1e-6)
    assert found.multipliers.eq == pytest.approx(float(solved.multipliers.eq), abs=1e-6)
    assert found.value == pytest.approx(float(solved.value), abs=1e-7)
    if regularizer == "squares":
        assert 0 < np.sum(found.x == 0) < 6
        np.testing.assert_allclose(found.multipliers.lower, solved.multipliers.lower, atol=1e-6)
    slope = jax.jacobian(
        lambda T: simplex_argmax(jnp.asarray(SCORES), T, regularizer=regularizer).x
    )
    got = slope(jnp.asarray(T))
    ends = [simplex_argmax(SCORES, T + h, regularizer=regularizer).x for h in (1e-6, -1e-6)]
    np.testing.assert_allclose(got, (ends[0] - ends[1]) / 2e-6, atol=1e-8)
    if regularizer == "entropy":
        p = np.asarray(found.x)
        np.testing.assert_allclose(got, -p * (SCORES - p @ SCORES) / T**2, atol=1e-12)


def test_attention_is_that_of_transformers():
    Q, K, V = (jnp.asarray(RNG.standard_normal(shape)) for shape in ((4, 8), (6, 8), (6, 8)))
    found = attention(Q, K, V).raise_for_status()
    with jax.numpy_dtype_promotion("standard"):
        theirs = jax.nn.dot_product_attention(*(part[:, None] for part in (Q, K, V)))
    np.testing.assert_allclose(found.aux, theirs[:, 0], atol=1e-6)  # theirs is float32 inside
    sparse = attention(Q, K, V, regularizer="squares").raise_for_status()
    assert np.sum(sparse.x == 0) > 0
    assert sparse.x.shape == (4, 6)


def test_derivatives_are_finite_differences():
    args = (jnp.asarray(PHI), jnp.asarray(PHI.T @ np.full(20, 0.05)), jnp.full(20, 0.05))

    def fit(phi, m, prior):
        found = maximum_entropy(phi, m, prior=prior, tol=1e-13)
        return jnp.sum(jnp.sin(5 * found.x)) + found.value

    gradient, value = jax.jit(jax.grad(fit, (0, 1, 2)))(*args), jax.jit(fit)
    for i, arg in enumerate(args):
        step = jnp.asarray(RNG.standard_normal(arg.shape)) * (0.01 if i == 2 else 1.0)
        ends = [value(*args[:i], arg + h * step, *args[i + 1 :]) for h in (1e-6, -1e-6)]
        numeric = float(ends[0] - ends[1]) / 2e-6
        assert jnp.sum(gradient[i] * step) == pytest.approx(numeric, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maximum_entropy(PHI, np.ones(2)), "each of the 3 features"),
        (lambda: maximum_entropy(PHI, np.ones(3), prior=np.zeros(20)), "`prior` must be > 0"),
        (lambda: maximum_entropy(PHI, np.array([0, np.nan, 0])), "`moments` must be finite"),
        (lambda: simplex_argmax(SCORES, 0.0), "`temperature` must be a number > 0"),
        (lambda: simplex_argmax(SCORES, regularizer="l1"), "one of entropy, squares"),
        (lambda: attention(PHI, PHI[:, :2], PHI), "must match, but their shapes"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
