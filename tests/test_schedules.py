"""Optax schedules drive `Optax`: the rates that are applied, and what theory says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

import jaxopt_lite as jol
from jaxopt_lite.core import Status

STEPS = 400


def robbins_monro(start, power):
    """eta_0 / t^p, t = 1, 2, ...; sums to infinity, its squares do not, for 1/2 < p <= 1."""
    return lambda count: start / (1.0 + count) ** power


SCHEDULES = {
    "warm-up and cosine": optax.warmup_cosine_decay_schedule(0.0, 0.5, STEPS // 10, STEPS),
    "one cycle": optax.cosine_onecycle_schedule(STEPS, 0.5),
    "step decay": optax.piecewise_constant_schedule(0.5, {STEPS // 2: 0.1, 3 * STEPS // 4: 0.1}),
    "Robbins-Monro": robbins_monro(0.6, 0.6),
}
EVERY = pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES.keys())


def rates_of(schedule, count):
    with jax.numpy_dtype_promotion("standard"):  # as optax is written
        return np.array(jax.vmap(schedule)(jnp.arange(count)), np.float64)


def sgd(schedule):
    return jol.Optax(optax.sgd(schedule))


@EVERY
def test_rates_are_those_of_the_schedule(schedule):
    slope = jnp.array([1.0, -2.0])  # of a linear f: each move is the rate times it
    problem = jol.Problem(lambda x: slope @ x)
    sol = jol.solve(
        problem, jnp.zeros(2), solver=sgd(schedule), max_steps=STEPS, history="x", tol=0.0
    )
    rates = rates_of(schedule, STEPS - 1)
    moves = np.diff(sol.history.x, axis=0)
    assert sol.status == Status.MAX_STEPS
    # optax counts in float32
    np.testing.assert_allclose(moves, -np.outer(rates, slope), rtol=1e-5, atol=1e-7)


@EVERY
def test_each_schedule_minimises_without_noise(schedule):
    problem = jol.Problem(lambda x: jnp.sum(jnp.array([1.0, 3.0]) * (x - 2.0) ** 2) / 2)
    sol = jol.solve(problem, jnp.zeros(2), solver=sgd(schedule), max_steps=STEPS, tol=1e-6)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 2.0, atol=1e-6)


def test_a_rate_that_ends_at_zero_does_not_claim_convergence():
    problem = jol.Problem(lambda x: jnp.sum(x**2))
    short = optax.cosine_decay_schedule(0.01, 20)  # worn out long before the minimum
    sol = jol.solve(problem, jnp.ones(2), solver=sgd(short), max_steps=500)
    assert sol.status in (Status.MAX_STEPS, Status.STALLED)
    assert sol.residuals.stationarity > 0.1


# -- noise: f(x) = x^2 / 2 with gradient x + z, z normal of variance 1, in 4,000 lanes -------------

LANES, DRAWS = 4000, 400
NOISY = jol.Problem(lambda x, z: 0.5 * x**2 + z * x)


def mean_squares(schedule):
    """E x_k^2 from x_0 = 0, for k = 1, ..., DRAWS, every lane with its own noise."""
    solver = sgd(schedule)

    def run(noise):
        def step(state, z):
            state = solver.step(NOISY, state, (z,))
            return state, state.point.x

        start = solver.init(NOISY, jnp.zeros(()), (noise[0],))
        return jax.lax.scan(step, start, noise)[1]

    noise = jax.random.normal(jax.random.key(0), (LANES, DRAWS))
    return np.mean(np.array(jax.jit(jax.vmap(run))(noise)) ** 2, axis=0)


def variances(rates):
    """The same by theory: v <- (1 - eta)^2 v + eta^2, from v = 0."""
    found, v = [], 0.0
    for rate in rates:
        v = (1 - rate) ** 2 * v + rate**2
        found.append(v)
    return np.array(found)


# A mean of 4,000 squares of normal numbers has a relative deviation of sqrt(2/4000) = 2.2%. Those
# of neighbouring k go together, so few of the 400 are independent: five deviations.
FIVE_SIGMA = 5 * np.sqrt(2 / LANES)


def test_constant_rate_stays_at_its_noise():
    got = mean_squares(optax.constant_schedule(0.1))
    np.testing.assert_allclose(got[-1], 0.1 / (2 - 0.1), rtol=FIVE_SIGMA)


def test_robbins_monro_with_p_one_is_the_mean_of_the_noise():
    got = mean_squares(robbins_monro(1.0, 1.0))
    np.testing.assert_allclose(got, 1 / np.arange(1, DRAWS + 1), rtol=FIVE_SIGMA)


@EVERY
def test_noise_is_as_theory_says_under_every_schedule(schedule):
    got, expected = mean_squares(schedule), variances(rates_of(schedule, DRAWS))
    there = expected > 0  # a rate of 0 at first leaves x at 0
    np.testing.assert_allclose(got[there], expected[there], rtol=FIVE_SIGMA)
    assert np.all(got[~there] == 0)


# -- in a training loop, on real data --------------------------------------------------------------


def test_minibatch_training_equals_the_loop_by_hand():
    images, digits = load_digits(return_X_y=True)
    images, digits = jnp.array(images / 16), jnp.array(digits)

    def loss(w, X, y):
        logits = X @ w["slope"] + w["offset"]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1))

    order = jax.random.permutation(jax.random.key(0), images.shape[0])[:1792].reshape(28, 64)
    batches = jnp.tile(order, (5, 1))  # five epochs
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.05, 20, len(batches))
    transformation = optax.adamw(schedule)
    start = {"slope": jnp.zeros((64, 10)), "offset": jnp.zeros(10)}
    problem, solver = jol.Problem(loss), jol.Optax(transformation)

    def ours(state, rows):
        state = solver.step(problem, state, (images[rows], digits[rows]))
        return state, None

    first = solver.init(problem, start, (images[batches[0]], digits[batches[0]]))
    trained = jax.jit(lambda s: jax.lax.scan(ours, s, batches)[0])(first).point.x

    def by_hand(carry, rows):
        w, memory = carry
        slopes = jax.grad(loss)(w, images[rows], digits[rows])
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = transformation.update(slopes, memory, w)
            w = optax.apply_updates(w, updates)
        return (w, memory), None

    expected = jax.jit(lambda c: jax.lax.scan(by_hand, c, batches)[0])(
        (start, transformation.init(start))
    )[0]
    for name in start:
        np.testing.assert_allclose(trained[name], expected[name], atol=1e-9)
    logits = images @ trained["slope"] + trained["offset"]
    assert jnp.mean(jnp.argmax(logits, 1) == digits) > 0.93
