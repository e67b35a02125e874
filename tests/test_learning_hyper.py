"""Hyper-gradients against finite differences, their cost against that of a fit, and a grid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite.learning import hypergradient, kernels, lasso, logistic, ridge, svc, tune

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal((60, 12)))
W = jnp.asarray(np.where(np.arange(12) < 4, 1.0, 0.0))
Y = X @ W + jnp.asarray(RNG.standard_normal(60))
TRAIN, HELD = (X[:30], Y[:30]), (X[30:], Y[30:])
SIDES = (X[:30], jnp.sign(Y[:30])), (X[30:], jnp.sign(Y[30:]))


def square(x, held):
    predicted = x(held[0]) if callable(x) else held[0] @ x
    return jnp.mean((held[1] - predicted) ** 2)


def log_loss(x, held):
    return jnp.mean(jax.nn.softplus(-held[1] * x(held[0])))


def elastic(h, train):
    return lasso(*train, h["l1"], ridge=h["l2"], tol=1e-12)


def weighted(h, train):
    return ridge(*train, h)


def regression(h, train):
    return logistic(train[0], train[1], h, tol=1e-12)


def machine(h, train):
    return svc(*train, h["C"], kernel=kernels.RBF(h["width"]), tol=1e-12)


def machine_loss(x, held):
    K = kernels.RBF(0.1)(held[0], SIDES[0][0])  # the width of the scores is held fixed
    return jnp.mean(jnp.maximum(1 - held[1] * x(K), 0) ** 2)


@pytest.mark.parametrize(
    ("model", "loss", "hyper", "data"),
    [
        (elastic, square, {"l1": jnp.asarray(0.1), "l2": jnp.asarray(0.2)}, (TRAIN, HELD)),
        (weighted, square, jnp.linspace(0.1, 1.0, 12), (TRAIN, HELD)),
        (regression, log_loss, jnp.linspace(0.05, 0.2, 12), SIDES),
        (machine, machine_loss, {"C": jnp.asarray(1.0), "width": jnp.asarray(0.1)}, SIDES),
    ],
    ids=["elastic net", "ridge", "logistic", "svc"],
)
def test_hypergradients_are_finite_differences(model, loss, hyper, data):
    found = jax.jit(hypergradient(model, loss))(hyper, *data)
    assert found.fit.success
    assert found.value == pytest.approx(float(loss(model(hyper, data[0]).x, data[1])), rel=1e-9)
    leaves, tree = jax.tree.flatten(hyper)
    value, rng = jax.jit(lambda h: loss(model(h, data[0]).x, data[1])), np.random.default_rng(1)
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(found.gradient), strict=True)):
        # At most 1e-5 of each: the machine has a kink 2e-5 of C away.
        step = jnp.asarray(rng.uniform(0.5, 1.0, leaf.shape)) * leaf
        ends = []
        for h in (1e-5, -1e-5):
            moved = [*leaves[:i], leaf + h * step, *leaves[i + 1 :]]
            ends.append(float(value(jax.tree.unflatten(tree, moved))))
        numeric = (ends[0] - ends[1]) / 2e-5
        assert jnp.sum(slope * step) == pytest.approx(numeric, rel=1e-5, abs=1e-7)


def test_a_thousand_penalties_cost_one_factorisation():
    """The program of value and gradient factorises as often as that of the fit: once."""
    A = jax.ShapeDtypeStruct((1200, 1000), jnp.float64)
    b = jax.ShapeDtypeStruct((1200,), jnp.float64)
    h = jax.ShapeDtypeStruct((1000,), jnp.float64)

    def count(function, *shapes):
        text = jax.jit(function).lower(*shapes).compile().as_text()
        return text.count('custom_call_target="lapack_dpotrf')

    fit = count(lambda h, A, b: weighted(h, (A, b)).x, h, A, b)
    both = count(lambda h, A, b: hypergradient(weighted, square)(h, (A, b), (A, b))[:2], h, A, b)
    assert (fit, both) == (1, 1)


def test_tuning_beats_a_grid(compilations):
    rng = np.random.default_rng(3)
    A = jnp.asarray(rng.standard_normal((80, 30)))
    b = A[:, :6] @ jnp.full(6, 0.5) + 1.5 * jnp.asarray(rng.standard_normal(80))
    train, held = (A[:40], b[:40]), (A[40:], b[40:])
    hyper = {"l1": jnp.asarray(0.05), "l2": jnp.asarray(0.05)}
    found = tune(elastic, square, hyper, train, held)
    with compilations() as count:
        tune(elastic, square, {"l1": jnp.asarray(0.1), "l2": jnp.asarray(0.1)}, train, held)
    assert count.programs == 0
    value = jax.jit(lambda a, b: square(elastic({"l1": a, "l2": b}, train).x, held))
    grid = [
        float(value(a, b)) for a in np.geomspace(1e-3, 1, 10) for b in np.geomspace(1e-3, 1, 10)
    ]
    assert found.value <= min(grid)
    assert found.value == pytest.approx(float(square(elastic(found.x, train).x, held)), rel=1e-9)
    np.testing.assert_allclose(found.aux, elastic(found.x, train).x, atol=1e-9)


def test_bad_input_says_what_came_and_what_to_do():
    with pytest.raises(TypeError, match=r"`model` must be a function \(hyper, train\)"):
        hypergradient(3, square)
    with pytest.raises(ValueError, match="`hyper` must be > 0 everywhere"):
        tune(weighted, square, jnp.zeros(12), TRAIN, HELD)
    with pytest.raises(ValueError, match="`span` must be a number > 1"):
        tune(weighted, square, jnp.ones(12), TRAIN, HELD, span=1.0)
