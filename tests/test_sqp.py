"""Sequential quadratic programming: its rate, its elastic programs, and warm starts in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import SQP, InteriorPoint, Status

from .hock_schittkowski import FAMILIES

INF = np.inf


def solved(family):
    """Every member of a family at once."""
    data = [family.data(i) for i in range(len(family.members))]
    starts, args = jax.tree.map(lambda *leaves: jnp.stack(leaves), *data)
    solve = lambda x0, args: jol.solve(family.problem, x0, args, solver=SQP(), max_steps=200)
    return jax.jit(jax.vmap(solve))(starts, args)


# Which members end elsewhere, and where: other KKT points, checked by hand.
ELSEWHERE = {33: -4.0}


@pytest.mark.parametrize(
    "family", [FAMILIES[0], FAMILIES[1], FAMILIES[-1]], ids=lambda f: str(f.members[0])
)
def test_hock_schittkowski(family):
    sols = solved(family)
    for i, member in enumerate(family.members):
        sol = jax.tree.map(lambda leaf, i=i: leaf[i], sols)
        assert sol.status == Status.CONVERGED, member
        minimum = ELSEWHERE.get(member.number, member.minimum)
        np.testing.assert_allclose(sol.value, minimum, rtol=2e-8, atol=1e-6, err_msg=str(member))
        assert sol.residuals.worst() <= 1.5e-8
        for name, expected in member.prices.items():
            if member.number in ELSEWHERE:
                continue
            got = np.asarray(getattr(sol.multipliers, name))[: len(expected)]
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6, err_msg=name)
    # What test_interior_point.py asks of InteriorPoint over all of them.
    assert np.median(sols.steps) <= 12


# HS71 in its two constants: the square sum of the equation, the product of the inequality.
HS71 = jol.Problem(
    lambda x, c, p: x[0] * x[3] * (x[0] + x[1] + x[2]) + x[2],
    eq=lambda x, c, p: jnp.sum(x**2) - c,
    ineq=lambda x, c, p: p - jnp.prod(x),
    bounds=(1.0, 5.0),
)
START = jnp.array([1.0, 5.0, 5.0, 1.0])


def test_the_rate_is_quadratic():
    sol = jol.solve(HS71, START, (40.0, 25.0), solver=SQP(), max_steps=50, history=True)
    steps = int(sol.steps)
    worst = np.asarray(sol.history.residuals.stationarity)[steps - 3 : steps]
    assert sol.status == Status.CONVERGED
    # log e_{k+1} / log e_k tends to 2; 1.7 leaves room for the constant.
    assert np.log(worst[1]) < 1.7 * np.log(worst[0])
    assert np.log(worst[2]) < 1.7 * np.log(worst[1])


@pytest.mark.parametrize(("angle", "most"), [(0.1, 6), (0.3, 8), (2.5, 40)])
def test_full_steps_are_taken_where_they_raise_the_merit(angle, most):
    """Maratos (1978): along the circle every Newton step raises objective and violation."""
    x0 = jnp.array([np.cos(angle), np.sin(angle)])
    sol = jol.minimize(
        lambda x: 2 * (x @ x - 1) - x[0], x0, eq=lambda x: x @ x - 1, solver=SQP(), max_steps=50
    )
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, [1, 0], atol=1e-7)
    np.testing.assert_allclose(sol.multipliers.eq, -1.5, atol=1e-7)
    assert sol.steps <= most  # from the other side of the circle it has to walk round


def test_linearised_constraints_without_a_point():
    """At 0 the linearisation of 1 - x^2 <= 0 is 1 <= 0; near it, it asks for steps of 50."""
    problem = jol.Problem(lambda x: (x[0] - 0.5) ** 2, ineq=lambda x: 1 - x**2)
    sol = jol.solve(problem, jnp.array([0.01]), solver=SQP(), max_steps=100)
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, 1, rtol=1e-8)
    np.testing.assert_allclose(sol.multipliers.ineq, 0.5, rtol=1e-6)  # 2 (x - 1/2) = 2 z x
    both = jol.minimize(
        lambda x: x @ x,
        jnp.array([0.0, 3.0]),
        eq=lambda x: jnp.stack([x[0] + x[1] - 1, x[0] ** 2 + x[1] ** 2 - 1]),
        solver=SQP(),
    )
    assert both.status == Status.CONVERGED
    np.testing.assert_allclose(jnp.sort(both.x), [0, 1], atol=1e-7)


def test_an_infeasible_problem_ends_where_the_violation_is_least():
    sol = jol.minimize(
        lambda x: x[0] + x[1] ** 2,
        jnp.array([3.0, 2.0]),
        ineq=lambda x: jnp.stack([x @ x + 1, x[0] - 1]),
        solver=SQP(),
        max_steps=200,
    )
    assert sol.status == Status.PRIMAL_INFEASIBLE
    np.testing.assert_allclose(sol.residuals.primal, 1, rtol=1e-6)  # x = 0, violated by 1


def test_unbounded():
    sol = jol.minimize(
        lambda x: x[0], jnp.array([1.0, 1.0]), eq=lambda x: x[1] - 1, solver=SQP(), max_steps=300
    )
    assert sol.status == Status.DUAL_INFEASIBLE


def test_an_indefinite_objective_within_bounds():
    """A saddle inside; minima are corners. The Hessian bends downwards where nothing binds."""
    sol = jol.minimize(
        lambda x: x[0] * x[1], jnp.array([0.3, -0.2]), bounds=(-1.0, 2.0), solver=SQP()
    )
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.value, -2, rtol=1e-12)


def test_two_thousand_lanes_restart_from_the_last_solution():
    """As in model predictive control: the data move a little, the old answer is the start."""
    rng = np.random.default_rng(0)
    c, p = 40 + 8 * rng.random(2000), 25 + 3 * rng.random(2000)
    moved = c + 0.5 * rng.standard_normal(2000), p + 0.2 * rng.standard_normal(2000)
    run = lambda solver: jax.jit(
        jax.vmap(lambda x0, c, p: jol.solve(HS71, x0, (c, p), solver=solver, max_steps=100))
    )
    sqp, interior = run(SQP()), run(InteriorPoint())
    starts = jnp.broadcast_to(START, (2000, 4))
    first = sqp(starts, c, p)
    assert np.all(first.status == Status.CONVERGED)
    warm, cold = sqp(first, *moved), interior(first.x, *moved)
    assert np.all(warm.status == Status.CONVERGED)
    assert np.all(cold.status == Status.CONVERGED)
    np.testing.assert_allclose(warm.value, cold.value, rtol=1e-7)
    # Quadratic convergence from a distance of about 0.1: 1e-1, 1e-2, 1e-4, 1e-8 and the start.
    assert np.max(warm.steps) <= 6
    assert np.median(warm.steps) <= 4
    assert np.median(cold.steps) >= 2 * np.median(warm.steps)
    # Multipliers as well as x: without them the Hessian of the Lagrangian is wrong at first.
    without = sqp(first.x, *moved)
    assert np.median(without.steps) >= np.median(warm.steps) + 1
    again = sqp(first, c, p)
    assert np.all(again.steps == 1)


def test_float32():
    x0 = START.astype(jnp.float32)
    sol = jol.solve(HS71, x0, (jnp.float32(40), jnp.float32(25)), solver=SQP())
    assert sol.status == Status.CONVERGED
    assert sol.x.dtype == jnp.float32
    np.testing.assert_allclose(sol.value, 17.0140173, rtol=1e-4)


def test_derivatives_are_those_of_the_solution_map():
    value = lambda c: jol.solve(HS71, START, (c, 25.0), solver=SQP(), tol=1e-11)
    slope = jax.grad(lambda c: value(c).value)(40.0)
    np.testing.assert_allclose(slope, -value(40.0).multipliers.eq, rtol=1e-8)
    h = 1e-4
    ahead, behind = value(40.0 + h).x, value(40.0 - h).x
    dx = jax.jacobian(lambda c: value(c).x)(40.0)
    # Central differences: h^2 times third derivatives of order 1e-2.
    np.testing.assert_allclose(dx, (ahead - behind) / (2 * h), atol=1e-6)


def test_bad_input():
    with pytest.raises(ValueError, match=r"SQP\(penalty=...\).*default is 10"):
        SQP(penalty=-1.0)
    sol = jol.solve(HS71, START, (40.0, 25.0), solver=SQP())
    two = jol.Problem(
        lambda x: x @ x, eq=lambda x: jnp.stack([x[0] - 1, x[1] - 1]), bounds=(0.0, 5.0)
    )
    with pytest.raises(ValueError, match=r"`x0.multipliers.eq` must have.*2 entries.*has 1"):
        jol.solve(two, sol, solver=SQP())
    with pytest.raises(ValueError, match=r"`ineq` is not finite at `x0`"):
        jol.minimize(lambda x: x @ x, jnp.array([-1.0]), ineq=lambda x: -jnp.log(x), solver=SQP())
