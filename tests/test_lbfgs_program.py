"""L-BFGS as a program: traced once, compiled small, few evaluations, to beat the peers' best.

Rosenbrock-20 from -1.2 in float64 to a gradient of 1e-6; shared/facts/README.md has the baselines.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status

from .problems import rosenbrock

X0 = jnp.full(20, -1.2)


def solve(objective, x0=X0, **options):
    return jol.minimize(objective, x0, solver=jol.LBFGS(), tol=1e-6, **options)


@pytest.fixture
def counted():
    """The objective, and the list that grows each time its Python runs."""
    traces = []

    def objective(x):
        traces.append(None)
        return rosenbrock(x)

    return objective, traces


def test_objective_is_traced_once(counted):
    objective, traces = counted
    solve(objective)
    assert len(traces) == 1
    solve(objective, 0.5 * X0)
    assert len(traces) == 1


def test_objective_is_traced_once_under_jit_grad_and_vmap(counted):
    objective, traces = counted
    jax.jit(lambda x0: solve(objective, x0).x).lower(X0)
    assert len(traces) == 1
    jax.vmap(lambda x0: solve(objective, x0).x)(jnp.stack([X0, 0.9 * X0]))
    assert len(traces) == 1
    jax.grad(lambda x0: solve(objective, x0).value)(X0)
    assert len(traces) == 1


def test_program_is_small():
    program = jax.jit(lambda x0: solve(rosenbrock, x0)).lower(X0).as_text()
    lines = program.count("\n")
    assert lines < 300, lines
    batched = jax.jit(jax.vmap(lambda x0: solve(rosenbrock, x0))).lower(jnp.stack([X0, X0]))
    assert batched.as_text().count("\n") < 900  # a peer needs 2810 for one


def test_program_does_not_grow_with_the_memory_or_the_dimension():
    def lines(memory, n):
        run = jax.jit(lambda x0: jol.minimize(rosenbrock, x0, solver=jol.LBFGS(memory=memory)))
        return run.lower(jnp.full(n, -1.2)).as_text().count("\n")

    assert lines(5, 20) == lines(30, 20) == lines(5, 1000)


def test_evaluations():
    sol = solve(rosenbrock)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, np.ones(20), atol=1e-5)
    assert sol.steps <= 75, int(sol.steps)


def test_state_is_as_large_as_documented():
    n, m = 1000, 7
    sol = jol.minimize(rosenbrock, jnp.full(n, -1.2), solver=jol.LBFGS(memory=m), max_steps=1)
    numbers = sum(leaf.size for leaf in jax.tree.leaves(sol.state))
    # 2mn for the pairs; x, gradient and direction; m x m and scalars.
    assert numbers <= 2 * m * n + 3 * n + m * m + 20


@pytest.mark.parametrize("memory", [1, 2, 30])
def test_every_memory_converges_and_more_costs_no_more_steps(memory):
    sol = jol.minimize(rosenbrock, X0, solver=jol.LBFGS(memory=memory), tol=1e-6, max_steps=600)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, np.ones(20), atol=1e-5)


def test_direction_is_that_of_the_two_loop_recursion(rng):
    """The compact form with its inverse kept up to date, against Nocedal & Wright (7.4)."""
    from jaxopt_lite.solvers.smooth.line_search import Pair

    n, m = 8, 4
    solver = jol.LBFGS(memory=m)
    memory = solver.start_memory(jnp.zeros(n))
    hessian = np.diag(np.linspace(1, 9, n))
    pairs = []
    for count in range(11):  # slots are reused
        s = rng.standard_normal(n)
        y = hessian @ s + 0.1 * np.abs(s) * np.sign(s)
        pairs = [*pairs, (s, y)][-m:]
        index = jnp.int32(count)
        pair = Pair(jnp.array(s), jnp.array(y), jnp.asarray(s @ y), jnp.asarray(1.0), index)
        memory = solver.remember(memory, pair, jnp.array(True))
        gradient = rng.standard_normal(n)
        direction = solver.direct(memory, jnp.array(gradient))

        q, alphas = gradient.copy(), []
        for s, y in reversed(pairs):
            alphas.append((s @ q) / (s @ y))
            q = q - alphas[-1] * y
        s, y = pairs[-1]
        q = q * (s @ y) / (y @ y)
        for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
            q = q + s * (alpha - (y @ q) / (s @ y))
        # R is triangular with well-conditioned random pairs: rounding only.
        np.testing.assert_allclose(direction, -q, rtol=1e-8, atol=1e-10, err_msg=str(count))


def test_pair_without_curvature_is_not_remembered():
    """It takes the place of the oldest pair with zeros, which change no direction."""
    from jaxopt_lite.solvers.smooth.line_search import Pair

    solver = jol.LBFGS(memory=2)
    memory = solver.start_memory(jnp.zeros(2))
    s, gradient = jnp.array([1.0, 0.0]), jnp.array([3.0, 5.0])
    yes, no, one = jnp.array(True), jnp.array(False), jnp.asarray(1.0)
    good = Pair(s, 2 * s, 2 * one, one, jnp.int32(0))
    rejected = solver.remember(memory, good, no)
    assert not np.any(rejected.steps)
    memory = solver.remember(memory, good, yes)
    bad = Pair(s, -s, -one, one, jnp.int32(1))
    after = solver.remember(memory, bad, yes)
    assert np.count_nonzero(after.steps) == np.count_nonzero(after.changes) == 1
    same = after._replace(scale=memory.scale)
    np.testing.assert_array_equal(solver.direct(same, gradient), solver.direct(memory, gradient))
    emptied = solver.remember(after, bad._replace(number=jnp.int32(2)), yes)
    assert not np.any(emptied.steps)
