"""Linear algebra below everything: defining identities, against NumPy, in both precisions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxopt_lite.linalg import (
    Form,
    choose,
    conjugate_gradient,
    dense_solve,
    inertia_tolerance,
    least_norm,
    materialize,
    minres,
    norm_inf,
    psd_factor,
    rarely,
    safe_norm,
    spectrum,
)

EPS = {np.float32: 1.2e-7, np.float64: 2.3e-16}
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def symmetric(eigenvalues, rng, dtype=np.float64):
    basis, _ = np.linalg.qr(rng.standard_normal((len(eigenvalues),) * 2))
    matrix = (basis * np.asarray(eigenvalues)) @ basis.T
    return jnp.array(0.5 * (matrix + matrix.T), dtype), basis


# -- trees -----------------------------------------------------------------------------------------


TREE = {"a": jnp.arange(6.0).reshape(2, 3), "b": (jnp.asarray(7.0), jnp.ones(2))}


def test_ravel_and_unravel_are_inverse_linear_and_differentiable():
    form = Form.of(TREE)
    vector = form.ravel(TREE)
    assert vector.shape == (form.size,) == (9,)
    back = form.unravel(vector)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    jax.tree.map(np.testing.assert_array_equal, back, TREE)
    np.testing.assert_array_equal(form.ravel(form.unravel(2 * vector)), 2 * vector)
    np.testing.assert_array_equal(jax.jacfwd(form.ravel)(TREE)["b"][0], np.eye(9)[6])
    batch = jax.vmap(form.unravel)(jnp.stack([vector, -vector]))
    np.testing.assert_array_equal(batch["a"][1], -TREE["a"])


def test_forms_are_equal_and_hashable_by_content():
    assert Form.of(TREE) == Form.of(jax.tree.map(lambda a: a + 1, TREE))
    assert hash(Form.of(TREE)) == hash(Form.of(TREE))
    assert Form.of(TREE) != Form.of({"a": TREE["a"], "b": TREE["b"][::-1]})


def test_form_of_mixed_precision_is_the_widest_and_gives_each_leaf_its_own_back():
    tree = [jnp.ones(2, jnp.float32), jnp.ones(3, jnp.float64)]
    form = Form.of(tree)
    assert form.dtype == np.float64
    assert [leaf.dtype for leaf in form.unravel(form.ravel(tree))] == [np.float32, np.float64]
    assert Form.of([jnp.ones(2, jnp.float16)]).dtype == np.float32


def test_norms():
    v = jnp.array([3.0, -4.0])
    assert norm_inf(v) == 4
    assert norm_inf(None) == norm_inf(jnp.zeros(0)) == 0
    assert np.isnan(norm_inf(v.at[0].set(jnp.nan)))
    assert safe_norm(v) == 5
    np.testing.assert_array_equal(jax.grad(safe_norm)(jnp.zeros(2)), np.zeros(2))
    np.testing.assert_allclose(jax.grad(safe_norm)(v), v / 5, rtol=1e-15)


def test_choose_is_where_on_trees_and_fills_numbers():
    other = jax.tree.map(lambda a: -a, TREE)
    for flag, expected in ((True, TREE), (False, other)):
        got = choose(jnp.array(flag), TREE, other)
        jax.tree.map(np.testing.assert_array_equal, got, expected)
    np.testing.assert_array_equal(choose(jnp.array(True), 7, jnp.ones(2)), np.full(2, 7.0))
    lanes = jax.vmap(lambda flag, a: choose(flag, a, -a))(
        jnp.array([True, False]), jnp.ones((2, 3))
    )
    np.testing.assert_array_equal(lanes, [[1, 1, 1], [-1, -1, -1]])


# -- dense -----------------------------------------------------------------------------------------


@DTYPES
@pytest.mark.parametrize("condition", [1e1, 1e3, 1e5])
@pytest.mark.parametrize("kind", ["definite", "indefinite", "general"])
def test_dense_solve(kind, condition, dtype, rng):
    values = np.logspace(0, np.log10(condition), 7)
    if kind == "indefinite":
        values = values * np.array([1, -1, 1, -1, 1, 1, -1])
    matrix, _ = symmetric(values, rng, dtype)
    if kind == "general":
        matrix = matrix @ jnp.array(np.linalg.qr(rng.standard_normal((7, 7)))[0], dtype)
    expected = np.ones(7)
    rhs = jnp.asarray(np.asarray(matrix, np.float64) @ expected, dtype)
    got = dense_solve(matrix, rhs, symmetric=kind != "general")
    # Backward stable: eps * condition, times a factor for norms and dimension.
    np.testing.assert_allclose(got, expected, atol=100 * EPS[dtype] * condition, rtol=0)
    assert got.dtype == dtype


@pytest.mark.parametrize("is_symmetric", [True, False])
def test_dense_solve_of_a_singular_matrix_has_minimum_norm(is_symmetric, rng):
    matrix, _ = symmetric([5.0, 2.0, 1.0, 0.0, 0.0], rng)
    if not is_symmetric:
        matrix = matrix @ jnp.array(np.linalg.qr(rng.standard_normal((5, 5)))[0])
    for rhs in (matrix @ jnp.ones(5), jnp.arange(5.0)):  # consistent, and not
        got = dense_solve(matrix, rhs, symmetric=is_symmetric)
        expected = np.linalg.pinv(matrix, rcond=1e-12) @ rhs
        np.testing.assert_allclose(got, expected, atol=1e-13)


def test_dense_solve_of_zero_and_of_nan():
    np.testing.assert_array_equal(dense_solve(jnp.zeros((2, 2)), jnp.ones(2), True), np.zeros(2))
    for is_symmetric in (True, False):
        bad = dense_solve(jnp.full((2, 2), jnp.nan), jnp.ones(2), is_symmetric)
        assert np.all(np.isnan(bad))
        assert np.all(np.isnan(dense_solve(jnp.eye(2), jnp.full(2, jnp.nan), is_symmetric)))


def test_dense_solve_in_a_batch_of_regular_singular_and_nan_matrices(rng):
    regular, _ = symmetric([3.0, 2.0, 1.0], rng)
    singular, _ = symmetric([3.0, 2.0, 0.0], rng)
    batch = jnp.stack([regular, singular, jnp.full((3, 3), jnp.nan)])
    got = jax.vmap(lambda a: dense_solve(a, a @ jnp.ones(3), True))(batch)
    np.testing.assert_allclose(got[0], np.ones(3), atol=1e-13)
    np.testing.assert_allclose(got[1], np.linalg.pinv(singular) @ singular @ np.ones(3), atol=1e-13)
    assert np.all(np.isnan(got[2]))


def test_psd_factor(rng):
    matrix, _ = symmetric([4.0, 2.0, 1e-3], rng)
    factor, good = psd_factor(matrix)
    assert bool(good)
    np.testing.assert_allclose(factor @ factor.T, matrix, atol=1e-14)
    for values in ([1.0, 1.0, -1e-3], [1.0, 1.0, 0.0], [1.0, 1.0, 1e-17], [0.0, 0.0, 0.0]):
        factor, good = psd_factor(symmetric(values, rng)[0])
        assert not bool(good)
        np.testing.assert_array_equal(factor, np.eye(3))
    factor, good = psd_factor(jnp.full((2, 2), jnp.nan))
    assert not bool(good)
    np.testing.assert_array_equal(factor, np.eye(2))


def test_spectrum(rng):
    matrix, _ = symmetric([-2.0, 1.0, 5.0], rng)
    values, vectors = spectrum(matrix)
    np.testing.assert_allclose(values, [-2, 1, 5], atol=1e-14)
    np.testing.assert_allclose(vectors @ jnp.diag(values) @ vectors.T, matrix, atol=1e-14)
    assert all(np.all(np.isnan(part)) for part in spectrum(matrix.at[0, 0].set(jnp.inf)))


def test_inertia_tolerance_separates_rounding_from_curvature(rng):
    for size in (3, 30):
        values = np.concatenate([[0.0], np.linspace(1, 1e3, size - 1)])
        matrix, _ = symmetric(values, rng)
        computed = spectrum(matrix).values
        tolerance = inertia_tolerance(computed)
        assert np.sum(np.abs(computed) <= tolerance) == 1
        assert tolerance <= 1e-9


def test_materialize(rng):
    matrix = jnp.array(rng.standard_normal((4, 4)))
    np.testing.assert_allclose(materialize(lambda v: matrix @ v, 4, jnp.float64), matrix)


# -- Krylov ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 12])
def test_conjugate_gradient(size, rng):
    matrix, _ = symmetric(np.linspace(1, 10, size), rng)
    rhs = jnp.array(rng.standard_normal(size))
    got = conjugate_gradient(lambda v: matrix @ v, rhs, 1e-13, 100)
    assert bool(got.converged)
    np.testing.assert_allclose(got.x, np.linalg.solve(matrix, rhs), atol=1e-12)
    # At most one product for each distinct eigenvalue and one or two for rounding and the check.
    assert got.products <= size + 3


@pytest.mark.parametrize("values", [[3, 2, 1, -1, -2], [5, 1, 1, 1, -1], [1, 2, 3, 4, 5], [-1] * 5])
def test_minres_on_indefinite_systems(values, rng):
    matrix, _ = symmetric(np.array(values, float), rng)
    rhs = jnp.array(rng.standard_normal(5))
    got = minres(lambda v: matrix @ v, rhs, 1e-13, 100)
    assert bool(got.converged)
    np.testing.assert_allclose(got.x, np.linalg.solve(matrix, rhs), atol=1e-11)
    assert got.products <= len(set(values)) + 3


@pytest.mark.parametrize("krylov", [conjugate_gradient, minres])
def test_krylov_on_a_singular_consistent_system_has_minimum_norm(krylov, rng):
    matrix, _ = symmetric([4.0, 2.0, 1.0, 0.0], rng)
    rhs = matrix @ jnp.ones(4)
    got = krylov(lambda v: matrix @ v, rhs, 1e-12, 50)
    assert bool(got.converged)
    np.testing.assert_allclose(got.x, np.linalg.pinv(matrix, rcond=1e-12) @ rhs, atol=1e-10)


@pytest.mark.parametrize("krylov", [conjugate_gradient, minres])
def test_krylov_says_when_it_did_not_converge(krylov, rng):
    matrix, _ = symmetric(np.logspace(0, 6, 20), rng)
    rhs = jnp.array(rng.standard_normal(20))
    assert not bool(krylov(lambda v: matrix @ v, rhs, 1e-12, 3).converged)
    assert not bool(krylov(lambda v: v * jnp.nan, rhs, 1e-12, 30).converged)
    assert not bool(krylov(lambda v: matrix @ v, rhs * jnp.nan, 1e-12, 30).converged)
    singular = matrix.at[0].set(0).at[:, 0].set(0)
    assert not bool(krylov(lambda v: singular @ v, jnp.ones(20), 1e-12, 100).converged)


@pytest.mark.parametrize("krylov", [conjugate_gradient, minres])
def test_krylov_with_a_zero_right_hand_side(krylov):
    got = krylov(lambda v: 2 * v, jnp.zeros(3), 1e-10, 10)
    assert bool(got.converged)
    np.testing.assert_array_equal(got.x, np.zeros(3))


def test_conjugate_gradient_stops_at_negative_curvature(rng):
    matrix, _ = symmetric([1.0, 1.0, -1.0], rng)
    got = conjugate_gradient(lambda v: matrix @ v, jnp.ones(3), 1e-12, 50)
    assert bool(jnp.all(jnp.isfinite(got.x)))
    residual = jnp.linalg.norm(matrix @ got.x - 1)
    assert bool(got.converged) == bool(residual <= 1e-11 * 3**0.5)


def test_krylov_lanes_of_a_batch_do_not_disturb_each_other(rng):
    matrices = jnp.stack([symmetric(values, rng)[0] for values in ([1, 1, 1], [1, 10, 100])])
    rhs = jnp.array(rng.standard_normal((2, 3)))
    batched = jax.vmap(lambda a, b: minres(lambda v: a @ v, b, 1e-12, 50))(matrices, rhs)
    for lane in range(2):
        alone = minres(lambda v, lane=lane: matrices[lane] @ v, rhs[lane], 1e-12, 50)
        assert alone.products == batched.products[lane]
        np.testing.assert_allclose(alone.x, batched.x[lane], rtol=1e-10)


def test_least_norm_solution(rng):
    matrix, rhs = rng.standard_normal((5, 3)), rng.standard_normal(5)
    matrix[:, 2] = matrix[:, 0]  # rank 2
    expected = np.linalg.lstsq(matrix, rhs, rcond=None)[0]
    np.testing.assert_allclose(least_norm(jnp.asarray(matrix), jnp.asarray(rhs)), expected)
    np.testing.assert_array_equal(least_norm(jnp.zeros((2, 3)), jnp.ones(2)), 0)
    assert np.all(np.isnan(least_norm(jnp.full((2, 2), jnp.nan), jnp.ones(2))))


# -- what few lanes need ---------------------------------------------------------------------------


def test_rarely_computes_for_the_lanes_that_need_it():
    def largest(matrix, needed):
        return rarely(needed, lambda m: jnp.linalg.eigvalsh(m)[-1], (matrix,), jnp.array(-1.0))

    matrices = jnp.arange(1.0, 5.0)[:, None, None] * jnp.eye(3)
    needed = jnp.array([True, False, True, False])
    np.testing.assert_allclose(jax.vmap(largest)(matrices, needed), [1, -1, 3, -1])


def test_rarely_keeps_its_work_inside_the_loop():
    # XLA moves what does not change out of a loop, and would then always factorise.
    def largest(matrix, needed):
        return rarely(needed, lambda m: jnp.linalg.eigvalsh(m)[-1], (matrix,), jnp.array(-1.0))

    shapes = jnp.ones((4, 6, 6)), jnp.zeros(4, bool)
    text = jax.jit(jax.vmap(largest)).lower(*shapes).compile().as_text()
    assert "syevd" in text
    assert "syevd" not in text[text.index("ENTRY") :]
