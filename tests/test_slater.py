"""Slater's condition where the answer is known, and what it implies for multipliers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol

# Curved and affine constraints by number, padded with -1 <= 0: one program for all of them.
BALL = lambda x, centre, radius: jnp.sum((x - jnp.array(centre, float)) ** 2) - radius**2
CASES = {
    "a disc": ([lambda x: BALL(x, [0, 0], 1)], True, 1.0),
    "a small disc": ([lambda x: BALL(x, [2, 1], 0.5)], True, 0.25),
    "discs that overlap": (
        # on the line through the centres, halfway: (1/2)^2 - 1
        [lambda x: BALL(x, [-0.5, 0], 1), lambda x: BALL(x, [0.5, 0], 1)], True, 0.75,
    ),
    "discs that touch": ([lambda x: BALL(x, [-1, 0], 1), lambda x: BALL(x, [1, 0], 1)], False, 0.0),
    "discs apart": ([lambda x: BALL(x, [-2, 0], 1), lambda x: BALL(x, [2, 0], 1)], False, -3.0),
    "a square that is zero": ([lambda x: (x[0] - x[1]) ** 2], False, 0.0),
    # affine inequalities need not be strict: these two are an equation
    "a disc and a line": (
        [lambda x: BALL(x, [0, 0], 1), lambda x: x[0] - x[1], lambda x: x[1] - x[0]], True, 1.0,
    ),
    "a disc and a line that touches": (
        [lambda x: BALL(x, [0, 0], 1), lambda x: x[0] - 1, lambda x: 1 - x[0]], False, 0.0,
    ),
}  # fmt: skip
BRANCHES = [
    lambda x, parts=parts: jnp.stack(
        [*(g(x) for g in parts), *[-1.0 + 0 * x[0]] * (3 - len(parts))]
    )
    for parts, _, _ in CASES.values()
]
PROBLEM = jol.Problem(
    lambda x, number: x[0], ineq=lambda x, number: jax.lax.switch(number, BRANCHES, x)
)


def test_margins_of_all_cases_in_one_batch():
    numbers = jnp.arange(len(CASES))
    start = jnp.array([0.3, 0.2])
    found = jax.vmap(lambda number: jol.slater(PROBLEM, start, (number,)))(numbers)
    holds, margins = (list(column) for column in list(zip(*CASES.values(), strict=True))[1:])
    np.testing.assert_array_equal(found.holds, holds)
    # Where t* is 0 or less at a point where gradients cancel, t is off by the root of the
    # solver's tolerance, 1.2e-4, at most.
    np.testing.assert_allclose(found.margin, margins, atol=2e-4)
    assert np.all(found.convex)

    np.testing.assert_array_equal(
        found.affine[-2], [False, True, True], "affine inequalities are seen as such"
    )
    assert str(found) == "Slater (8,): holds for 4"


def test_bounds_equalities_and_data():
    """x'x <= r with x >= 1 in two variables: the nearest point of the box has x'x = 2."""
    problem = jol.Problem(
        lambda x, r: x[0], ineq=lambda x, r: x @ x - r, eq=lambda x, r: x[0] - x[1],
        bounds=(1.0, None),
    )  # fmt: skip
    found = jol.slater(problem, jnp.array([5.0, 4.0]), (2.5,))
    assert bool(found.holds & found.convex)
    np.testing.assert_allclose(found.margin, 0.5, atol=1e-6)
    np.testing.assert_allclose(found.point, 1, atol=1e-6)
    assert "holds: margin 0.5 over 1 curved" in str(found)
    # It is what makes the multiplier exist: at r = 2 the minimum has none that is bounded.
    assert not bool(jol.slater(problem, jnp.array([5.0, 4.0]), (2.0,)).holds)
    assert not bool(jol.certify(problem, jnp.ones(2), (2.0,)).constraints.qualification.mfcq)


def test_what_is_not_convex_is_said_to_be():
    outside = jol.Problem(lambda x: x[0], ineq=lambda x: 1 - x @ x)
    found = jol.slater(outside, jnp.ones(2))
    assert bool(found.holds)
    assert not bool(found.convex)
    assert "not convex" in str(found)
    circle = jol.Problem(lambda x: x[0], eq=lambda x: x @ x - 1, ineq=lambda x: x[0] ** 2 - 2)
    assert not bool(jol.slater(circle, jnp.ones(2)).convex)


def test_bad_input():
    with pytest.raises(TypeError, match="no `ineq`"):
        jol.slater(jol.Problem(lambda x: x @ x), jnp.ones(2))
    many = jol.Problem(lambda x: x @ x, ineq=lambda x: x - 1)
    with pytest.raises(ValueError, match="at most 1000"):
        jol.slater(many, jnp.ones(1001))
