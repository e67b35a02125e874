"""First-order methods against the theory they come from: rates, bounds and counts of steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

from .problems import by_name

# -- problems whose every constant is known --------------------------------------------------------


def diagonal(x, curvatures):
    return 0.5 * jnp.sum(curvatures * x * x)


def dense(x, matrix, vector):
    return 0.5 * x @ matrix @ x - vector @ x


DIAGONAL, DENSE = jol.Problem(diagonal), jol.Problem(dense)


def spread(kappa, n=12):
    """Curvatures from 1 to kappa."""
    return jnp.geomspace(1.0, kappa, n)


def worst_in_the_world(n):
    """Nesterov (2018), section 2.1.2: the quadratic no method of steps along gradients likes.

    f(x) = L/4 (x'Ax/2 - x_1) with A tridiagonal (2, -1); gradient Lipschitz with L = 1, the start
    is 0, and x* and f* are known.
    """
    a = 0.25 * (2 * np.eye(n) - np.eye(n, k=1) - np.eye(n, k=-1))
    b = 0.25 * np.eye(n)[0]
    x_star = 1 - np.arange(1, n + 1) / (n + 1)
    f_star = -0.125 * (1 - 1 / (n + 1))
    np.testing.assert_allclose(a @ x_star, b, atol=1e-15)
    np.testing.assert_allclose(0.5 * x_star @ a @ x_star - b @ x_star, f_star, rtol=1e-12)
    return jnp.array(a), jnp.array(b), x_star, f_star


def run(problem, x0, args, solver, steps, tol=0.0):
    """`steps` steps with everything kept."""
    return jol.solve(problem, x0, args, solver, tol=tol, max_steps=steps, history="x")


# -- gradient descent ------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.05, 0.11, 0.19])
def test_fixed_step_multiplies_each_error_by_one_minus_t_lambda(t):
    curvatures = spread(10.0)
    sol = run(DIAGONAL, jnp.ones(12), (curvatures,), jol.FixedStep(t), 40)
    k = np.arange(40)[:, None]
    # x_k = (1 - t lambda)^k; forty products round by forty eps.
    expected = (1 - t * np.asarray(curvatures)) ** k
    np.testing.assert_allclose(sol.history.x, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kappa", [10.0, 100.0, 1000.0])
def test_steps_to_a_digit_are_those_of_theory(kappa):
    curvatures = jnp.array([1.0, kappa])
    digits = 1e-6
    options = {"tol": digits, "max_steps": 20_000}
    root = kappa**0.5
    gradient = jol.solve(
        DIAGONAL, jnp.ones(2) / curvatures, (curvatures,), jol.FixedStep(2 / (1 + kappa)), **options
    )
    # Both gradients start at 1 and fall by the rate: the count is a logarithm, rounded up.
    rate = (kappa - 1) / (kappa + 1)
    count = int(gradient.steps)
    assert count == np.ceil(np.log(digits) / np.log(rate) - 1e-9) + 1

    slow = (root - 1) / (root + 1)
    ball = jol.HeavyBall(4 / (root + 1) ** 2, slow**2)
    heavy = jol.solve(DIAGONAL, jnp.ones(2) / curvatures, (curvatures,), ball, **options)
    # Double root: the error is (1 + c k) slow^k, c = |1 + slow| at most, from one step without
    # momentum. So no sooner than slow^k, no later than where (1 + 2 k) slow^k is small enough.
    k = np.arange(20_000)
    late = np.argmax((1 + 2 * k) * slow**k <= digits)
    assert np.log(digits) / np.log(slow) <= int(heavy.steps) <= late + 1
    assert int(heavy.steps) < count / (0.3 * root)


@pytest.mark.parametrize("t", [1.98, 2.02])
def test_fixed_step_diverges_above_two_over_l_and_only_there(t):
    curvatures = jnp.array([1.0, 50.0])
    solver = jol.FixedStep(t / 50)
    sol = jol.solve(DIAGONAL, jnp.ones(2), (curvatures,), solver, max_steps=20_000, tol=1e-8)
    assert sol.status == (Status.CONVERGED if t < 2 else Status.DIVERGED)
    assert bool(jnp.all(jnp.isfinite(sol.x)))
    if t > 2:  # by 1.02 a step in x, from 25 to the square root of the largest number
        factor = (t - 1) ** 2
        np.testing.assert_allclose(sol.steps, np.log(1e154 / 25) / np.log(factor), rtol=0.01)


def test_step_sizes_are_swept_by_vmap():
    curvatures = jnp.array([1.0, 4.0])

    def status(t):
        return jol.solve(
            DIAGONAL, jnp.ones(2), (curvatures,), jol.FixedStep(t), max_steps=20_000
        ).status

    steps = jnp.array([0.1, 0.4, 0.49, 0.51, 0.6, 2.0])
    good, bad = int(Status.CONVERGED), int(Status.DIVERGED)
    assert jax.vmap(status)(steps).tolist() == [good] * 3 + [bad] * 3


@pytest.mark.parametrize("rule", ["barzilai-borwein", "armijo", "wolfe", "lipschitz"])
def test_every_accepted_step_keeps_the_promise_of_its_rule(rule):
    case = by_name("rosenbrock")
    problem = jol.Problem(case.objective)
    sol = run(problem, jnp.asarray(case.x0), (), jol.GradientDescent(rule), 200)
    x, f = np.asarray(sol.history.x), np.asarray(sol.history.value)
    gradients = np.asarray(jax.vmap(jax.grad(case.objective))(sol.history.x))
    new = np.flatnonzero(np.any(x[1:] != x[:-1], axis=1))  # the rest were rejected trials
    assert len(new) > 50
    s, g = x[new + 1] - x[new], gradients[new]
    slope = np.sum(s * g, axis=1)
    fall = f[new + 1] - f[new]
    slack = 1e-12 * (1 + np.abs(f[new]))
    t = np.linalg.norm(s, axis=1) / np.linalg.norm(g, axis=1)
    np.testing.assert_allclose(s, -t[:, None] * g, rtol=1e-6, atol=1e-9)  # along -g
    if rule == "barzilai-borwein":
        assert np.any(fall > 0)  # not monotone, but below an average of the past
        assert f[-1] < 1e-3 * f[0]
    if rule in ("armijo", "wolfe"):
        assert np.all(fall <= 1e-4 * slope + slack)
    if rule == "wolfe":
        ahead = np.sum(s * gradients[new + 1], axis=1)
        assert np.mean(ahead >= 0.9 * slope - slack) > 0.98  # all but where the search gave in
    if rule == "lipschitz":
        downhill = np.sum(s * gradients[new + 1], axis=1) <= 0
        assert np.all((fall <= 0.499 * slope + slack) | (downhill & (fall <= slack)))
        longest = np.argmax(t)
        assert np.all(np.diff(t[longest:]) <= 1e-9)  # L is never taken back


def test_lipschitz_rule_finds_l_on_quadratics_of_every_scale():
    scales = jnp.array(10.0 ** np.arange(-4, 5))

    def measured(scale):
        curvatures = scale * spread(20.0)
        sol = jol.solve(
            DIAGONAL, jnp.ones(12), (curvatures,), jol.GradientDescent("lipschitz"),
            tol=1e-6 * scale, max_steps=2000,
        )  # fmt: skip
        return sol.status, sol.state.memory.scale * curvatures[-1]

    status, t_times_l = jax.vmap(measured)(scales)
    assert np.all(status == Status.CONVERGED)
    # A trial is rejected only if t > 1/L, and shortened to no less than the curvature along it.
    assert np.all(t_times_l >= 0.999)
    assert np.all(t_times_l < 2.0)  # else it would have diverged


# -- Polyak's step ---------------------------------------------------------------------------------


def test_polyak_step_keeps_its_two_bounds():
    matrix, vector, x_star, f_star = worst_in_the_world(40)
    sol = run(DENSE, jnp.zeros(40), (matrix, vector), jol.PolyakStep(f_star), 300)
    x, gap = np.asarray(sol.history.x), np.asarray(sol.history.value) - f_star
    squares = np.sum((x - x_star) ** 2, axis=1)
    gradients = x @ np.asarray(matrix) - np.asarray(vector)
    promised = gap**2 / np.sum(gradients**2, axis=1)
    # |x+ - x*|^2 <= |x - x*|^2 - (f - f*)^2 / |g|^2, for every convex f.
    assert np.all(squares[1:] <= squares[:-1] - promised[:-1] + 1e-12)
    k = np.arange(1, 301)
    best = np.minimum.accumulate(gap)
    assert np.all(best <= 2 * 1.0 * squares[0] / k)
    assert np.any(np.diff(gap) > 0)  # f itself goes up at times: it is the distance that falls


def test_polyak_step_knows_no_curvature_and_converges_on_every_scale():
    def solve(scale):
        curvatures = scale * spread(30.0)
        return jol.solve(DIAGONAL, jnp.ones(12), (curvatures,), jol.PolyakStep(), tol=1e-8 * scale)

    sol = jax.vmap(solve)(jnp.array(2.0 ** np.arange(-20, 21)))
    assert np.all(sol.status == Status.CONVERGED)
    # The step is invariant to the units of f, to the last bit where they are powers of two.
    assert len(set(sol.steps.tolist())) == 1


def test_polyak_step_with_a_wrong_minimum_does_not_claim_convergence():
    problem = jol.Problem(lambda x: jnp.sum(jnp.cosh(x)))  # minimum 2
    x0 = jnp.array([1.0, -0.5])
    too_high = jol.solve(problem, x0, solver=jol.PolyakStep(2.5))  # stops at that level
    assert too_high.status == Status.STALLED
    np.testing.assert_allclose(too_high.value, 2.5)
    below = jol.solve(problem, x0, solver=jol.PolyakStep(3.0))  # starts below it
    assert below.status == Status.DIVERGED
    # Too low a level makes steps without end near the minimiser, where the gradient vanishes; of
    # slopes bounded by 1 they come back, with cosh they may overflow.
    bounded = jol.Problem(lambda x: jnp.sum(jnp.sqrt(1 + x * x)))  # minimum 2
    too_low = jol.solve(bounded, x0, solver=jol.PolyakStep(1.0), max_steps=1000)
    assert too_low.status == Status.MAX_STEPS
    right = jol.solve(problem, x0, solver=jol.PolyakStep(2.0), tol=1e-6)
    assert right.status == Status.CONVERGED


# -- Nesterov --------------------------------------------------------------------------------------


def gradient_steps(sol, args, t):
    """x_{k+1} = y_k - t grad f(y_k), from the y_k that were measured; x_0 in front."""
    y = np.asarray(sol.history.x)
    matrix, vector = map(np.asarray, args)
    x = y - t * (y @ matrix - vector)
    return np.concatenate([y[:1], x])


def values(x, args):
    matrix, vector = map(np.asarray, args)
    return 0.5 * np.einsum("ki,ij,kj->k", x, matrix, x) - x @ vector


@pytest.mark.parametrize("restart", [False, True])
def test_nesterov_keeps_the_bound_of_order_k_squared(restart):
    n = 100
    matrix, vector, x_star, f_star = worst_in_the_world(n)
    sol = run(DENSE, jnp.zeros(n), (matrix, vector), jol.Nesterov(1.0, restart=restart), 400)
    gap = values(gradient_steps(sol, (matrix, vector), 1.0), (matrix, vector))[1:] - f_star
    k = np.arange(1, 401)
    bound = 2 * 1.0 * np.sum(x_star**2) / (k + 1) ** 2
    assert np.all(gap <= bound)


SPAN = {
    "FixedStep": jol.FixedStep(1.0),
    "HeavyBall": jol.HeavyBall(1.0, 0.8),
    "Nesterov": jol.Nesterov(1.0, restart=False),
    "Nesterov-estimated": jol.Nesterov(),
    "GradientDescent": jol.GradientDescent(),
    "NonlinearCG": jol.NonlinearCG(curvature=0.01),
    "LBFGS": jol.LBFGS(),
}


@pytest.mark.parametrize("name", SPAN)
def test_no_method_beats_the_lower_bound_of_nesterov(name):
    n = 101
    matrix, vector, x_star, f_star = worst_in_the_world(n)
    steps = (n - 1) // 2
    sol = run(DENSE, jnp.zeros(n), (matrix, vector), SPAN[name], steps)
    gap = np.asarray(sol.history.value) - f_star
    # Theorem 2.1.7 is for the problem on the first 2 k + 1 variables, which only k = steps gives:
    # after k evaluations all steps lie in k dimensions, where f is at least this much above f*.
    assert gap[-1] >= 3 * 1.0 * np.sum(x_star**2) / (32 * (steps + 1) ** 2)
    # And x_k in the span of k gradients is zero behind entry k, exactly.
    x = np.asarray(sol.history.x)
    assert all(np.all(x[k, k:] == 0) for k in range(steps))


@pytest.mark.parametrize("kappa", [10.0, 100.0, 1000.0])
def test_nesterov_with_mu_has_the_rate_of_theory(kappa, rng):
    n = 15
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    matrix = jnp.array((basis * np.geomspace(1, kappa, n)) @ basis.T)
    vector = jnp.array(rng.standard_normal(n))
    x_star = np.linalg.solve(matrix, vector)
    f_star = 0.5 * x_star @ matrix @ x_star - vector @ x_star
    solver = jol.Nesterov(1 / kappa, 1.0, restart=False)
    steps = int(25 * kappa**0.5)
    sol = run(DENSE, jnp.zeros(n), (matrix, vector), solver, steps)
    gap = values(gradient_steps(sol, (matrix, vector), 1 / kappa), (matrix, vector)) - f_star
    k = np.arange(steps + 1)
    # Nesterov (2018), theorem 2.2.1 with gamma_0 = mu: for every k, down to rounding of f.
    bound = (1 - kappa**-0.5) ** k * (gap[0] + 0.5 * np.sum(x_star**2))
    assert np.all(gap <= bound + 1e-13 * (1 + abs(f_star)))
    assert bound[-1] < 1e-9 * bound[0]


@pytest.mark.parametrize("kappa", [1e2, 1e3, 1e4])
def test_restarts_find_the_rate_without_mu(kappa):
    curvatures = spread(kappa, 30)
    options = {"tol": 1e-6, "max_steps": 50_000}

    def steps(solver):
        sol = jol.solve(DIAGONAL, jnp.ones(30), (curvatures,), solver, **options)
        assert sol.status == Status.CONVERGED
        return int(sol.steps)

    informed = steps(jol.Nesterov(1 / kappa, 1.0))
    # O'Donoghue & Candes (2015), section 3.3: a restart every pi/2 sqrt(kappa) steps or so, each of
    # which shrinks f by e^2: pi sqrt(kappa)/4 a power of e of the gradient. Twice that is room for
    # the spectrum; what must not happen is kappa, or sqrt(kappa) lost to premature restarts.
    powers = np.log(kappa * 30**0.5 / 1e-6)
    assert steps(jol.Nesterov(1 / kappa)) <= 2 * np.pi / 4 * kappa**0.5 * powers
    assert steps(jol.Nesterov()) <= 2 * np.pi / 4 * kappa**0.5 * powers
    assert informed <= 2 * kappa**0.5 * powers
    if kappa > 1e3:
        assert 10 * informed < kappa / 2 * powers  # of gradient descent with 2/(L + mu)


def test_estimated_step_is_neither_too_long_nor_too_short():
    scales = jnp.array(10.0 ** np.arange(-4, 5))

    def measured(scale):
        curvatures = scale * spread(100.0)
        sol = jol.solve(
            DIAGONAL, jnp.ones(12), (curvatures,), jol.Nesterov(), tol=1e-7 * scale, max_steps=2000
        )
        return sol.status, sol.state.length * curvatures[-1]

    status, t_times_l = jax.vmap(measured)(scales)
    assert np.all(status == Status.CONVERGED)
    # Rejected above 1/L only, then set to 0.7 of it, or to a secant, which is never below 1/L.
    assert np.all(t_times_l >= 0.699)
    # Above 1/L it can be for a while where the gradient has no part in the stiffest direction.
    assert np.median(t_times_l) <= 2.0


def test_rejected_trials_are_not_reported():
    """A step into NaN is taken back: what is reported was measured, and is finite."""

    def barrier(x):
        return jnp.sum(x - jnp.log(x))  # NaN for x < 0; minimum n at 1

    x0 = jnp.array([1e-3, 20.0])
    sol = jol.minimize(barrier, x0, solver=jol.Nesterov(), history="x", max_steps=2000)
    assert sol.status == Status.CONVERGED
    taken = int(sol.steps)
    x = np.asarray(sol.history.x)[:taken]
    assert np.all(np.isfinite(x))
    np.testing.assert_allclose(sol.history.value[:taken], jax.vmap(barrier)(x), rtol=1e-12)
    gradient = jax.grad(barrier)(sol.x)
    np.testing.assert_allclose(sol.residuals.stationarity, jnp.max(jnp.abs(gradient)), rtol=1e-6)


# -- conjugate gradients ---------------------------------------------------------------------------

METHODS = ["dai-yuan", "polak-ribiere", "hager-zhang"]


@pytest.mark.parametrize("method", METHODS)
def test_conjugate_gradients_end_in_n_steps_with_exact_searches(method, rng):
    n = 8
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    matrix = jnp.array((basis * np.linspace(1, 10, n)) @ basis.T)
    vector = jnp.array(rng.standard_normal(n))
    solver = jol.NonlinearCG(method, curvature=1e-10)
    sol = jol.solve(DENSE, jnp.zeros(n), (matrix, vector), solver, tol=1e-8)
    assert sol.status == Status.CONVERGED
    assert sol.state.accepted <= n
    # A trial; the cubic through it, which is exact, or cut off at 0.9 or 2 times the trial; then
    # exact. And the start.
    assert sol.steps <= 3 * n + 1


@pytest.mark.parametrize("method", METHODS)
def test_conjugate_gradients_take_as_many_steps_as_there_are_eigenvalues(method):
    curvatures = jnp.repeat(jnp.array([1.0, 7.0, 30.0]), 10)
    solver = jol.NonlinearCG(method, curvature=1e-10)
    start = jnp.linspace(1.0, 2.0, 30)
    sol = jol.solve(DIAGONAL, start, (curvatures,), solver, tol=1e-7)
    assert sol.status == Status.CONVERGED
    assert sol.state.accepted == 3


@pytest.mark.parametrize("method", METHODS)
def test_conjugate_gradients_keep_the_rate_of_theory(method):
    kappa = 1e4
    curvatures = spread(kappa, 200)
    options = {"tol": 1e-4, "max_steps": 20_000}
    solver = jol.NonlinearCG(method, curvature=1e-3)
    sol = jol.solve(DIAGONAL, jnp.ones(200), (curvatures,), solver, **options)
    assert sol.status == Status.CONVERGED
    # |e|_A falls by 2 ((sqrt kappa - 1)/(sqrt kappa + 1))^k, to where |grad| is tol.
    root = kappa**0.5
    start = float(jnp.sum(curvatures)) ** 0.5
    exact = np.log(2 * start * root / 1e-4) / np.log((root + 1) / (root - 1))
    assert int(sol.state.accepted) <= exact
    assert int(sol.steps) <= 3 * int(sol.state.accepted) + 1
    usual = jol.solve(DIAGONAL, jnp.ones(200), (curvatures,), jol.NonlinearCG(method), **options)
    assert usual.status == Status.CONVERGED
    assert int(usual.steps) <= 2 * int(usual.state.accepted)


def test_conjugate_gradients_need_no_more_evaluations_than_scipy():
    """Over problems of the table, within 1.3 times SciPy's CG: per accepted step and in all."""
    from scipy.optimize import minimize as peer

    ours = np.zeros(2)
    theirs = np.zeros(2)
    for name in ("rosenbrock20", "wood", "mlp", "helical_valley", "osborne_two", "logistic"):
        case = by_name(name)
        args = jax.tree.map(jnp.asarray, case.args)
        x0 = jnp.asarray(case.x0)
        both = jax.jit(jax.value_and_grad(case.objective))
        result = peer(
            lambda x, both=both, args=args: jax.tree.map(np.asarray, both(x, *args)),
            case.x0, jac=True, method="CG", options={"gtol": 1e-6, "maxiter": 5000},
        )  # fmt: skip
        sol = jol.solve(
            jol.Problem(case.objective), x0, args, jol.NonlinearCG(), tol=1e-6, max_steps=5000
        )
        assert sol.status == Status.CONVERGED
        ours += int(sol.steps), int(sol.state.accepted)
        theirs += result.nfev, result.nit
    assert ours[0] <= 1.3 * theirs[0]
    assert ours[0] / ours[1] <= 1.3 * theirs[0] / theirs[1]


# -- saddle points ---------------------------------------------------------------------------------


def pass_between_wells(x):
    return x[0] ** 2 - x[1] ** 2 + x[1] ** 4


def product(x):
    return (x[0] * x[1] - 1) ** 2


def wide_saddle(x):
    """One of twenty directions leads down, to two minima of value -1/4."""
    return jnp.sum(x[1:] ** 2) - x[0] ** 2 + x[0] ** 4


SADDLES = {
    "pass": (pass_between_wells, 2, -0.25),
    "product": (product, 2, 0.0),
    "wide": (wide_saddle, 20, -0.25),
}


@pytest.mark.parametrize("name", SADDLES)
@pytest.mark.parametrize("seed", range(3))
def test_perturbed_descent_leaves_the_saddle_it_starts_on(name, seed):
    objective, n, minimum = SADDLES[name]
    solver = jol.PerturbedGradientDescent(0.1, seed=seed)
    assert jol.classify(objective, jnp.zeros(n)).kind == jol.Kind.SADDLE
    sol = jol.minimize(objective, jnp.zeros(n), solver=solver, tol=1e-7)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.value, minimum, atol=1e-12)
    assert jol.classify(objective, sol.x).kind != jol.Kind.SADDLE
    # What stays with plain descent: it stops where it starts.
    plain = jol.minimize(objective, jnp.zeros(n), solver=jol.FixedStep(0.1), tol=1e-7)
    assert plain.steps == 1
    np.testing.assert_array_equal(plain.x, 0)


def test_perturbed_descent_says_converged_only_after_a_vain_kick():
    solver = jol.PerturbedGradientDescent(0.1, patience=30)

    def status(steps, x0):
        return jol.minimize(pass_between_wells, x0, solver=solver, max_steps=steps).status

    minimum = jnp.array([0.0, 0.5**0.5])
    for steps in (1, 2, 10, 30):
        assert status(steps, jnp.zeros(2)) == Status.MAX_STEPS
        assert status(steps, minimum) == Status.MAX_STEPS
    assert status(31, minimum) == Status.CONVERGED


def test_perturbed_descent_takes_time_logarithmic_in_the_kick():
    """From a kick r the escape grows by 1 + t gamma a step: log(1/r)/log(1 + t gamma) steps."""

    def steps(radius):
        solver = jol.PerturbedGradientDescent(0.05, radius=radius, patience=400)
        sol = jol.minimize(pass_between_wells, jnp.zeros(2), solver=solver, history=True)
        assert sol.status == Status.CONVERGED
        return int(np.argmax(np.asarray(sol.history.value) < -0.1))

    counts = [steps(10.0**-d) for d in (2, 4, 6)]
    # Curvature -2 and t = 0.05: each hundredth of the radius costs log 100 / log 1.1 = 48 steps.
    np.testing.assert_allclose(np.diff(counts), np.log(100) / np.log(1.1), atol=2)


def test_seed_is_part_of_the_program_and_batches_have_lanes_of_their_own():
    assert jol.PerturbedGradientDescent(0.1) == jol.PerturbedGradientDescent(0.1, seed=0)
    assert len(jax.tree.leaves(jol.PerturbedGradientDescent(0.1, radius=0.01, seed=5))) == 2
    tilts = jnp.linspace(0.5, 2.0, 50)

    def solve(tilt):
        return jol.minimize(
            lambda x, a: x[0] ** 2 - a * x[1] ** 2 + x[1] ** 4, jnp.zeros(2), (tilt,),
            solver=jol.PerturbedGradientDescent(0.05, patience=300), tol=1e-7,
        )  # fmt: skip

    batch = jax.vmap(solve)(tilts)
    assert np.all(batch.status == Status.CONVERGED)
    np.testing.assert_allclose(batch.value, -(tilts**2) / 4, atol=1e-12)
    assert len(set(batch.steps.tolist())) > 10


# -- batches, precision, cost, bad input -----------------------------------------------------------

SWEEP = {
    "GradientDescent": jol.GradientDescent(),
    "lipschitz": jol.GradientDescent("lipschitz"),
    "Polyak": jol.PolyakStep(),
    "HeavyBall": jol.HeavyBall(0.5, 0.9),
    "Nesterov": jol.Nesterov(),
    "NonlinearCG": jol.NonlinearCG(),
}


@pytest.mark.parametrize("name", SWEEP)
def test_thousands_of_lanes_of_different_conditioning(name, rng):
    lanes = 4000
    kappas = 10 ** rng.uniform(0.5, 2.5, lanes)
    curvatures = jnp.array(np.stack([np.geomspace(1 / k, 1.0, 4) for k in kappas]))
    starts = jnp.array(rng.uniform(0.5, 2.0, (lanes, 4)))

    def solve(x0, row):
        return jol.solve(DIAGONAL, x0, (row,), SWEEP[name], tol=1e-6, max_steps=20_000)

    batch = jax.jit(jax.vmap(solve))(starts, curvatures)
    assert np.all(batch.status == Status.CONVERGED)
    assert np.max(np.abs(curvatures * batch.x)) <= 1.001e-6
    steps = np.asarray(batch.steps)
    assert len(set(steps.tolist())) > 10  # each lane ends when it is done
    one = jax.jit(solve)
    for lane in (0, steps.argmin(), steps.argmax()):
        alone = one(starts[lane], curvatures[lane])
        assert alone.status == batch.status[lane]
        assert jnp.max(jnp.abs(curvatures[lane] * alone.x)) <= 1.001e-6
        if name == "HeavyBall":  # the others feel how a fusion rounds, over a long run
            assert alone.steps == steps[lane]


@pytest.mark.parametrize(
    "solver",
    [
        jol.FixedStep(0.1), jol.PolyakStep(), jol.HeavyBall(0.1, 0.5), jol.Nesterov(),
        jol.Nesterov(0.1), jol.NonlinearCG(), jol.GradientDescent("armijo"),
        jol.GradientDescent("wolfe"), jol.GradientDescent("lipschitz"),
    ],
    ids=str,
)  # fmt: skip
def test_unreachable_tolerance_in_float32_stalls_at_the_best_there_is(solver):
    def objective(x):
        return jnp.sum(jnp.cosh(x - 1.3)) + 0.1 * jnp.sum(x) ** 2

    if isinstance(solver, jol.PolyakStep):  # which needs the minimum: one that cannot be zero
        objective = lambda x: jnp.sum((x * x - 1.3) ** 2)
    x0 = jnp.array([0.5, -0.2, 2.0], jnp.float32)
    sol = jol.minimize(objective, x0, solver=solver, tol=1e-30, max_steps=20_000)
    assert sol.status in (Status.STALLED, Status.MAX_STEPS)
    if not isinstance(solver, jol.PolyakStep):
        assert sol.status == Status.STALLED
    assert sol.x.dtype == jnp.float32
    # Rounding of the gradient, eps times terms of size 2 and 3 of them; f's would allow sqrt(eps).
    assert sol.residuals.stationarity <= 1e-5


COUNTED = {
    "PolyakStep": jol.PolyakStep(),
    "HeavyBall": jol.HeavyBall(1e-3, 0.5),
    "Nesterov": jol.Nesterov(),
    "NonlinearCG": jol.NonlinearCG(),
    "armijo": jol.GradientDescent("armijo"),
    "PerturbedGradientDescent": jol.PerturbedGradientDescent(1e-3),
}


@pytest.mark.parametrize("name", COUNTED)
def test_steps_are_evaluations(name):
    calls = []

    def objective(x):
        jax.debug.callback(lambda x: calls.append(1), jax.lax.stop_gradient(x))
        return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2

    sol = jol.minimize(
        objective, jnp.array([-1.2, 1.0]), solver=COUNTED[name], max_steps=60, tol=1e-6
    )
    jax.effects_barrier()
    assert len(calls) == sol.steps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: jol.GradientDescent("bb"), r"rule=.*'barzilai-borwein'.*'bb' came"),
        (lambda: jol.FixedStep(0.0), r"FixedStep\(step_size=.*> 0"),
        (lambda: jol.FixedStep("0.1"), r"FixedStep\(step_size=.*'0.1' came"),
        (lambda: jol.FixedStep(True), r"FixedStep\(step_size=.*True came"),
        (lambda: jol.PolyakStep(float("nan")), r"PolyakStep\(minimum=.*nan came"),
        (lambda: jol.PolyakStep(float("-inf")), r"PolyakStep\(minimum=.*-inf came"),
        (lambda: jol.HeavyBall(-1.0), r"HeavyBall\(step_size=.*> 0"),
        (lambda: jol.HeavyBall(0.1, 1.0), r"momentum=.*>= 0 and < 1.*1.0 came"),
        (lambda: jol.HeavyBall(0.1, np.array([0.5, 1.5])), r"momentum=.*>= 0 and < 1"),
        (lambda: jol.Nesterov(-0.1), r"Nesterov\(step_size=.*> 0"),
        (lambda: jol.Nesterov(strong_convexity=-1.0), r"strong_convexity=.*>= 0"),
        (lambda: jol.NonlinearCG("fletcher"), r"method=.*'dai-yuan'.*'fletcher' came"),
        (lambda: jol.NonlinearCG(curvature=1.0), r"curvature=.*> 0 and < 1"),
        (lambda: jol.PerturbedGradientDescent(0.1, patience=0), r"patience=.*>= 1"),
        (lambda: jol.PerturbedGradientDescent(0.1, radius=0.0), r"radius=.*> 0"),
        (lambda: jol.PerturbedGradientDescent(0.1, seed=1.5), r"seed=.*integer.*1.5 came"),
    ],
)
def test_bad_fields_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
