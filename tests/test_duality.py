"""`duality`: dual values in closed form, gaps where there are some, and what is not proven."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol

# The inner solves stop at a gradient of 1.5e-8, so values are right to its square over curvature.
CLOSE = 1e-12


def least_norm(x, a, b):
    return 0.5 * (x @ x)


LEAST_NORM = jol.Problem(least_norm, eq=lambda x, a, b: a @ x - b)


def test_least_norm_solution_and_its_dual():
    """min |x|^2/2, A x = b: d(y) = -|A'y|^2/2 - y'b, at every y, and no gap at the best one."""
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.standard_normal((3, 6))), jnp.asarray(rng.standard_normal(3))
    solution = jol.solve(LEAST_NORM, jnp.zeros(6), (a, b))
    found = jol.duality(LEAST_NORM, solution, (a, b), convex=True)
    assert bool(found.certified & found.saddle & found.convex & found.assumed)
    assert found.gap == pytest.approx(0, abs=1e-8)
    y = jnp.asarray(rng.standard_normal(3))
    other = jol.duality(LEAST_NORM, solution, (a, b), jol.Multipliers(eq=y))
    expected = float(-0.5 * jnp.sum((a.T @ y) ** 2) - y @ b)
    assert other.dual == pytest.approx(expected, abs=CLOSE)
    assert not bool(other.certified)
    assert other.gap > 0  # weak duality
    np.testing.assert_allclose(other.minimizer, -a.T @ y, atol=1e-7)


def test_a_bound_stays_in_the_inner_problem():
    """min x^2 + y^2, x + y >= 1, y <= 1/4: x = 3/4, z = 3/2; d(z) = z - z^2/4 + min y^2 - z y."""
    problem = jol.Problem(
        lambda x: x @ x, ineq=lambda x: 1 - jnp.sum(x), bounds=(None, jnp.array([jnp.inf, 0.25]))
    )
    solution = jol.solve(problem, jnp.zeros(2))
    found = jol.duality(problem, solution)
    assert found.primal == pytest.approx(0.625, abs=1e-7)
    assert bool(found.certified)
    for z in (0.2, 1.0, 2.0):
        dual = jol.duality(problem, solution, multipliers=jol.Multipliers(ineq=jnp.array(z))).dual
        second = min(z / 2, 0.25)
        # The interior point method ends within its last barrier, a tenth of the tolerance.
        assert dual == pytest.approx(z - z**2 / 4 + second**2 - z * second, abs=1e-7)


def test_linear_program_within_a_box_and_without():
    """min c'x, sum x = 1, 0 <= x: the dual value is min c; without bounds it is -inf."""
    c = jnp.array([3.0, 1.0, 2.0])
    eq = lambda x, c: jnp.sum(x) - 1
    problem = jol.Problem(lambda x, c: c @ x, eq=eq, bounds=(0.0, 1.0))
    solution = jol.solve(problem, jnp.full(3, 0.3), (c,))
    found = jol.duality(problem, solution, (c,))
    assert found.dual == pytest.approx(1, abs=1e-6)
    assert bool(found.certified)
    free = jol.Problem(lambda x, c: c @ x, eq=eq)
    lost = jol.duality(free, solution.x, (c,), jol.Multipliers(eq=jnp.array([-1.0])))
    assert lost.dual == -np.inf
    assert not bool(lost.certified)
    assert "NO BOUND" in str(lost)
    near = jol.duality(free, solution.x, (c,), jol.Multipliers(eq=jnp.array([-1.0])), radius=10.0)
    # L - 1 = 2 x_1 + x_3 over |x - (0, 1, 0)| <= 10
    assert near.dual == pytest.approx(1 - 20 - 10, abs=1e-5)


def test_a_duality_gap_of_a_nonconvex_problem():
    """min x^4 - 3x^2 + x: at the worse of two minima a lower one is seen, -3.5139 at -1.3008."""
    problem = jol.Problem(lambda x: x[0] ** 4 - 3 * x[0] ** 2 + x[0], bounds=(-2.0, 2.0))
    worse = jol.solve(problem, jnp.array([1.0]))
    found = jol.duality(problem, worse)
    assert not bool(found.convex)
    assert not bool(found.certified)
    assert found.gap == pytest.approx(float(worse.value) + 3.513905, abs=1e-5)
    assert "DUALITY GAP" in str(found)
    better = jol.solve(problem, jnp.array([-1.0]))
    best = jol.duality(problem, better, convex=True)  # a claim that curvature contradicts
    assert bool(best.saddle)
    assert not bool(best.certified)
    assert "no proof" in str(best)


def test_gap_of_a_reverse_convex_constraint():
    """min x, x^2 >= 1, in [-1/2, 2]: the minimum is 1, the best multiplier 1/2 gives d = -1/8."""
    problem = jol.Problem(lambda x: x[0], ineq=lambda x: 1 - x[0] ** 2, bounds=(-0.5, 2.0))
    solution = jol.solve(problem, jnp.array([1.5]))
    assert solution.x[0] == pytest.approx(1, abs=1e-7)
    found = jol.duality(problem, solution)
    # L = x + 1/2 - x^2/2 is concave: least at an end, 1/2 + -0.5 - 0.125 or 1/2 + 2 - 2.
    assert found.dual == pytest.approx(-0.125, abs=1e-6)
    assert not bool(found.certified)


def test_infeasible_points_get_no_verdict():
    a, b = jnp.ones((1, 2)), jnp.ones(1)
    found = jol.duality(LEAST_NORM, jnp.zeros(2), (a, b))
    assert not bool(found.feasible | found.certified)
    assert "NOT FEASIBLE" in str(found)


def test_no_constraints_at_all():
    """Then d = min f: a convex function's minimum is certified, a local one is not."""
    bowl = jol.Problem(lambda x: jnp.sum(jnp.cosh(x - 1)))
    assert bool(jol.duality(bowl, jol.solve(bowl, jnp.zeros(2))).certified)
    wells = jol.Problem(lambda x: x[0] ** 4 - 3 * x[0] ** 2 + x[0])
    found = jol.duality(wells, jol.solve(wells, jnp.array([1.0])))
    assert not bool(found.certified)
    assert found.gap > 1


def test_svm_on_real_data_in_a_batch_of_penalties():
    """The soft-margin SVM on two classes of iris: the gap closes at each penalty."""
    from sklearn.datasets import load_iris

    data = load_iris()
    keep = data.target > 0
    features = data.data[keep][::5, 2:]
    X = jnp.asarray((features - features.mean(0)) / features.std(0))
    y = jnp.asarray(np.where(data.target[keep][::5] == 1, -1.0, 1.0))
    n = len(y)

    def objective(v, penalty):
        return 0.5 * v[:2] @ v[:2] + penalty * jnp.sum(v[3:])

    def margins(v, penalty):
        return 1 - v[3:] - y * (X @ v[:2] + v[2])

    lower = jnp.concatenate([jnp.full(3, -jnp.inf), jnp.zeros(n)])
    problem = jol.Problem(objective, ineq=margins, bounds=(lower, None))

    @jax.jit
    @jax.vmap
    def run(penalty):
        solution = jol.solve(problem, jnp.ones(3 + n), (penalty,))
        found = jol.duality(problem, solution, (penalty,), convex=True, starts=1, radius=100.0)
        return solution, found

    solution, found = run(jnp.array([0.1, 1.0, 10.0]))
    assert np.all(solution.success)
    # Within radius 100 an error of 1e-8 in dual feasibility is worth 1e-6 a variable, of 23.
    np.testing.assert_allclose(found.gap, 0, atol=3e-5)
    closed = jnp.sum(solution.multipliers.ineq, axis=1) - 0.5 * jnp.sum(
        jnp.einsum("bi,i,ij->bj", solution.multipliers.ineq, y, X) ** 2, axis=1
    )
    np.testing.assert_allclose(closed, found.primal, atol=1e-5)
    np.testing.assert_allclose(found.dual, closed, atol=3e-5)


def test_bad_input():
    with pytest.raises(ValueError, match="`starts` must be"):
        jol.duality(LEAST_NORM, jnp.zeros(2), (jnp.ones((1, 2)), jnp.ones(1)), starts=0)
    with pytest.raises(ValueError, match="at most 1000"):
        jol.duality(jol.Problem(lambda x: jnp.sum(x**2)), jnp.zeros(1001))
