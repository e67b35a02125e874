"""Derivatives of programs in every array, against finite differences and an independent Newton.

All programs have the shape (n, m, p) = (5, 2, 3) with both bounds: P = 0 makes them linear, an
infinite side removes a row. So one compiled program of each kind serves all.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import QuadraticProgram, Status

n, m, p = 5, 2, 3
INF = np.inf
STEP = 1e-6


def answer(program):
    """x, every multiplier, and the value."""
    solution = jol.solve_qp(*program)
    return solution.x, tuple(solution.multipliers), solution.value


def loss(program):
    """A scalar, not linear in x and the multipliers."""
    x, prices, value = answer(program)
    total = jnp.sum(jnp.sin(x)) + value * x[0]
    return total + sum(jnp.sum(jnp.cos(price)) for price in prices)


answers = jax.jit(jax.vmap(answer))
forward = jax.jit(jax.jacfwd(answer))
reverse = jax.jit(jax.jacrev(answer))
gradients = jax.jit(jax.vmap(jax.grad(loss)))
curvature = jax.jit(lambda program, along: jax.jvp(jax.grad(loss), (program,), (along,))[1])
value_gradient = jax.jit(jax.grad(lambda program: jol.solve_qp(*program).value))


def program_of(seed=0, linear=False):
    """Built from its answer: two rows of G, one lower, one upper bound bind with prices >= 0.5."""
    rng = np.random.default_rng(seed)
    F, A, G = rng.standard_normal((n, n)), rng.standard_normal((m, n)), rng.standard_normal((p, n))
    P = np.zeros((n, n)) if linear else F.T @ F + 0.5 * np.eye(n)
    x, y, z = rng.standard_normal(n), rng.standard_normal(m), np.array([0.8, 0, 0])
    low, up = np.zeros(n), np.zeros(n)
    low[1], up[3] = 1.1, 0.6
    h, lower, upper = G @ x + (z == 0), x - (low == 0), x + (up == 0)
    q = -(P @ x + A.T @ y + G.T @ z - low + up)
    return QuadraticProgram(*map(jnp.asarray, (P, q, A, A @ x, G, h, lower, upper)))


def flat(tree):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


def entries(program):
    """Unit directions of all entries with a finite number, and where they are in the flat order."""
    sizes = [np.size(leaf) for leaf in program]
    unravel = lambda v: QuadraticProgram(
        *(
            part.reshape(np.shape(leaf))
            for part, leaf in zip(np.split(v, np.cumsum(sizes)[:-1]), program, strict=True)
        )
    )
    return np.eye(sum(sizes)), unravel


def both_ways(program, step=STEP):
    """The program with every entry moved up, then down, as a batch."""
    eye, unravel = entries(program)
    base = flat(program)
    rows = np.concatenate([base + step * eye, base - step * eye])
    moved = [unravel(row) for row in rows]
    return QuadraticProgram(*(jnp.asarray(np.stack(part)) for part in zip(*moved, strict=True)))


def differences(function, program, step=STEP):
    """Central differences of a batched function: (entries of its value, entries of the program)."""
    out = function(both_ways(program, step))
    table = np.concatenate(
        [np.reshape(leaf, (leaf.shape[0], -1)) for leaf in jax.tree.leaves(out)], 1
    )
    up, down = np.split(table, 2)
    return ((up - down) / (2 * step)).T


def as_matrix(jacobian):
    """The nested Jacobian of `answer` as (entries of the answer, entries of the program)."""
    rows = jax.tree.leaves(jacobian, is_leaf=lambda t: isinstance(t, QuadraticProgram))
    sizes = [n, m, p, n, n, 1]
    return np.concatenate(
        [
            np.concatenate([np.reshape(leaf, (size, -1)) for leaf in row], axis=1)
            for row, size in zip(rows, sizes, strict=True)
        ]
    )


# Rounding in the answers, 1e-14 times the conditioning of 1e2, over a step of 1e-6; the error of
# the difference itself is the step squared times a third derivative of up to 1e4.
FINITE = {"rtol": 1e-5, "atol": 2e-6}


@pytest.mark.parametrize("seed", range(3))
def test_forward_is_reverse_is_a_difference_in_every_array(seed):
    program = program_of(seed)
    by_forward, by_reverse = as_matrix(forward(program)), as_matrix(reverse(program))
    np.testing.assert_allclose(by_forward, by_reverse, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(by_forward, differences(answers, program), **FINITE)
    assert np.linalg.norm(by_forward) > 1


def test_an_entry_of_p_moves_the_symmetric_part():
    by_p = forward(program_of())[0].P
    np.testing.assert_allclose(by_p, np.swapaxes(by_p, 1, 2), rtol=0, atol=1e-12)
    by_p = value_gradient(program_of()).P
    np.testing.assert_allclose(by_p, np.transpose(by_p), rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 3])
def test_gradient_of_the_value_is_the_envelope(seed):
    program = program_of(seed)
    x, (y, z, low, up), _ = answer(program)
    got = value_gradient(program)
    want = QuadraticProgram(np.outer(x, x) / 2, x, np.outer(y, x), -y, np.outer(z, x), -z, low, -up)
    for name, have in got._asdict().items():
        np.testing.assert_allclose(have, getattr(want, name), rtol=0, atol=1e-9, err_msg=name)


def test_second_order_is_a_difference_of_gradients():
    program = program_of(1)
    by_difference = differences(gradients, program)
    rng = np.random.default_rng(0)
    eye, unravel = entries(program)
    for _ in range(4):
        along = rng.standard_normal(len(eye))
        got = flat(curvature(program, jax.tree.map(jnp.asarray, unravel(along))))
        want = by_difference @ along
        assert np.max(np.abs(got - want)) <= 1e-5 * np.max(np.abs(want))
    # second derivatives are symmetric, whatever computed them
    u, v = rng.standard_normal((2, len(eye)))
    of_u, of_v = (flat(curvature(program, jax.tree.map(jnp.asarray, unravel(d)))) for d in (u, v))
    np.testing.assert_allclose(v @ of_u, u @ of_v, rtol=1e-8)


def test_hessian_of_the_value_in_q_is_the_derivative_of_x():
    program = program_of(2)
    of_value = jax.hessian(lambda q: jol.solve_qp(*program._replace(q=q)).value)(program.q)
    np.testing.assert_allclose(of_value, forward(program)[0].q, rtol=0, atol=1e-9)
    assert np.max(np.linalg.eigvalsh(of_value)) <= 1e-9  # the value is concave in q


def test_a_batch_of_gradients_is_the_gradients_and_nan_where_there_is_no_answer():
    programs = [program_of(seed) for seed in range(4)]
    programs[1] = programs[1]._replace(G=programs[1].G.at[0].set(0), h=programs[1].h.at[0].set(-1))
    # the batch has the size of the one in the tests of second order: nothing new is compiled
    size = 2 * len(entries(programs[0])[0])
    lanes = [programs[i % 4] for i in range(size)]
    batch = QuadraticProgram(*(jnp.stack(part) for part in zip(*lanes, strict=True)))
    got = gradients(batch)
    for i in (0, 2, 3):
        single = jax.tree.map(lambda leaf, i=i: leaf[i], got)
        # the derivative of `loss`, put together from the Jacobian of `answer`
        x, prices, value = answer(programs[i])
        first = np.eye(n)[0]
        weights = [np.cos(x) + value * first, *(-np.sin(v) for v in prices), x[:1]]
        want = np.concatenate(weights) @ as_matrix(reverse(programs[i]))
        np.testing.assert_allclose(flat(single), want, rtol=1e-8, atol=1e-8)
    assert np.all(np.isnan(flat(jax.tree.map(lambda leaf: leaf[1], got).q)))


# -- degenerate programs ---------------------------------------------------------------------------


def vertex(seed=0):
    """A linear program in n variables whose n active rows determine x."""
    program = program_of(seed, linear=True)
    assert m + 3 == n  # two equations, a row of G, two bounds
    return program


def test_vertex_of_a_linear_program_moves_with_its_sides_and_not_with_its_cost():
    program = vertex(4)
    by_forward = as_matrix(forward(program))
    np.testing.assert_allclose(by_forward, as_matrix(reverse(program)), rtol=1e-8, atol=1e-8)
    jacobian = forward(program)
    np.testing.assert_allclose(jacobian[0].q, np.zeros((n, n)), rtol=0, atol=1e-9)
    # x = K^-1 (b, h_0, lower_1, upper_3)
    eye = np.eye(n)
    rows = np.concatenate([program.A, program.G[:1], eye[1:2], eye[3:4]])
    inverse = np.linalg.inv(rows)
    np.testing.assert_allclose(jacobian[0].b, inverse[:, :2], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(jacobian[0].h[:, 0], inverse[:, 2], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(jacobian[0].h[:, 1:], 0, rtol=0, atol=1e-9)
    np.testing.assert_allclose(jacobian[0].lower[:, 1], inverse[:, 3], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(jacobian[0].upper[:, 3], inverse[:, 4], rtol=1e-8, atol=1e-8)
    # prices: q + K' prices = 0, the one of the lower bound with the sign changed
    prices = -np.linalg.inv(rows.T)
    np.testing.assert_allclose(jacobian[1][0].q, prices[:2], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(jacobian[1][2].q[1], -prices[3], rtol=1e-8, atol=1e-8)
    # entries of P apart: with one below 0 there is no convex program
    sides = slice(n * n, None)
    np.testing.assert_allclose(
        by_forward[:, sides], differences(answers, program)[:, sides], **FINITE
    )


def test_solve_lp_has_the_same_derivative():
    program = vertex(4)
    by_lp = jax.jit(jax.jacrev(lambda b, h: jol.solve_lp(program.q, program.A, b, program.G, h,
                                                         program.lower, program.upper).x,
                               argnums=(0, 1)))(program.b, program.h)  # fmt: skip
    want = forward(program)[0]
    np.testing.assert_allclose(by_lp[0], want.b, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(by_lp[1], want.h, rtol=1e-8, atol=1e-8)


def test_an_active_row_twice_shares_the_derivative_of_one():
    single = program_of(5)
    double = single._replace(G=single.G.at[1].set(single.G[0]), h=single.h.at[1].set(single.h[0]))
    single = single._replace(h=single.h.at[1].set(INF))
    one, two = forward(single)[0], forward(double)[0]
    assert np.all(np.isfinite(as_matrix(forward(double))))
    for name in ("P", "q", "A", "b", "lower", "upper"):
        np.testing.assert_allclose(
            getattr(two, name), getattr(one, name), rtol=1e-6, atol=1e-6, err_msg=name
        )
    # both sides moved together are the one moved
    np.testing.assert_allclose(two.h[:, 0] + two.h[:, 1], one.h[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(two.h[:, 0], two.h[:, 1], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(two.G[:, 0] + two.G[:, 1], one.G[:, 0], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(as_matrix(reverse(double)), as_matrix(forward(double)),
                               rtol=1e-6, atol=1e-6)  # fmt: skip


def test_a_bound_that_binds_weakly_counts_as_either():
    # minimise 1/2 |x - c|^2 over x >= 0: at c_0 = 0 the derivative in c_0 jumps from 0 to 1
    blank = program_of()
    centre = np.array([0.0, 1, -1, 2, -3])
    program = QuadraticProgram(
        jnp.eye(n), -jnp.asarray(centre), jnp.zeros((m, n)), jnp.zeros(m), jnp.zeros_like(blank.G),
        jnp.ones(p), jnp.zeros(n), jnp.full(n, INF),
    )  # fmt: skip
    got = -forward(program)[0].q
    either = round(float(got[0, 0]))
    assert either in (0, 1)
    np.testing.assert_allclose(got, np.diag([either, 1.0, 0, 1, 0]), rtol=0, atol=1e-6)


def weak_row(seed):
    """A program whose row G_0 binds with price 0, and the same with it off, and with price 1e-6."""
    program = program_of(seed)
    at = lambda price: program._replace(q=program.q + (0.8 - price) * program.G[0])
    return at(0.0), at(0.0)._replace(h=program.h.at[0].set(INF)), at(1e-6)


def relative(have, want):
    return np.max(np.abs(have - want)) / np.max(np.abs(want))


def test_derivative_at_a_weak_row_is_one_of_the_two():
    for seed in range(11, 20):
        weak, off, on = (as_matrix(forward(program)) for program in weak_row(seed))
        assert min(relative(weak, off), relative(weak, on)) <= 1e-5, seed
        np.testing.assert_allclose(
            as_matrix(reverse(weak_row(seed)[0])), weak, rtol=1e-7, atol=1e-7
        )


def test_no_derivative_where_the_solve_did_not_converge():
    program = program_of()
    short = lambda program: jol.solve_qp(*program, max_steps=2).x.sum()
    assert jol.solve_qp(*program, max_steps=2).status == Status.MAX_STEPS
    assert np.all(np.isnan(jax.grad(short)(program).q))


# -- relaxed complementarity -----------------------------------------------------------------------


def central(program, mu):
    """(x, y, z, l, u) with price times slack = mu, by Newton's method in NumPy."""
    P, q, A, b, G, h, lower, upper = (np.asarray(part) for part in program)
    C = np.concatenate([G, -np.eye(n), np.eye(n)])
    side = np.concatenate([h, -lower, upper])
    C, side, there = C[np.isfinite(side)], side[np.isfinite(side)], np.isfinite(side)
    k = len(side)
    x, y, z, s = np.zeros(n), np.zeros(m), np.ones(k), np.ones(k)
    for _ in range(200):
        r = np.concatenate([P @ x + q + A.T @ y + C.T @ z, A @ x - b, C @ x + s - side, s * z - mu])
        if np.max(np.abs(r)) < 1e-13:
            break
        zero = np.zeros
        J = np.block([
            [P, A.T, C.T, zero((n, k))],
            [A, zero((m, m)), zero((m, k)), zero((m, k))],
            [C, zero((k, m)), zero((k, k)), np.eye(k)],
            [zero((k, n)), zero((k, m)), np.diag(s), np.diag(z)],
        ])  # fmt: skip
        dx, dy, dz, ds = np.split(np.linalg.solve(J, -r), [n, n + m, n + m + k])
        falls = np.concatenate([-s[ds < 0] / ds[ds < 0], -z[dz < 0] / dz[dz < 0]])
        t = min(1, 0.99 * np.min(falls, initial=np.inf))
        x, y, z, s = x + t * dx, y + t * dy, z + t * dz, s + t * ds
    assert np.max(np.abs(r)) < 1e-11
    prices = np.zeros(len(there))
    prices[there] = z
    return np.concatenate([x, y, prices])


@jax.jit
def relaxed(program, mu):
    return jax.jacfwd(lambda program: answer_with(program, mu))(program)


def answer_with(program, mu):
    solution = jol.solve_qp(*program, relax=mu)
    return solution.x, tuple(solution.multipliers), solution.value


@pytest.mark.parametrize("linear", [False, True])
@pytest.mark.parametrize("mu", [1e-1, 1e-3])
def test_relaxed_derivatives_are_those_of_the_central_path(linear, mu):
    program = program_of(6, linear)
    got = as_matrix(relaxed(program, mu))[:-1]
    eye, unravel = entries(program)
    base = flat(program)

    def at(v):
        moved = unravel(v)
        return central(moved._replace(P=(moved.P + moved.P.T) / 2), mu)

    # the path bends over lengths of mu: a step of 1e-3 mu errs by 1e-6, rounding by 1e-13 / 1e-6
    step = 1e-3 * mu
    want = np.stack([(at(base + step * e) - at(base - step * e)) / (2 * step) for e in eye], 1)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.max(np.abs(want)))


def test_relaxed_x_is_the_answer_and_moves_with_the_cost_of_a_linear_program():
    program = vertex(6)
    x, prices, _ = jax.jit(answer_with)(program, 1e-2)
    exact = answer(program)
    np.testing.assert_allclose(x, exact[0], rtol=0, atol=1e-12)
    for have, want in zip(prices, exact[1], strict=True):
        np.testing.assert_allclose(have, want, rtol=0, atol=1e-12)
    by_q = np.asarray(relaxed(program, 1e-2)[0].q)
    assert np.max(np.abs(by_q)) > 1e-3
    np.testing.assert_allclose(by_q, by_q.T, rtol=0, atol=1e-8)  # -(a projected Hessian)^-1
    assert np.max(np.linalg.eigvalsh(by_q)) <= 1e-8
