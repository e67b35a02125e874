"""Curvature operators against dense matrices, Lanczos against eigh, densities against both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy.special import ndtr
from sklearn.datasets import load_digits

import jaxopt_lite as jol
from jaxopt_lite import curvature

DIGITS, CLASSES = load_digits(return_X_y=True)
X = jnp.asarray(DIGITS[:203] / 16)
Y = jnp.asarray(CLASSES[:203])


def network(params, x):
    hidden = jnp.tanh(x @ params["w"] + params["b"])
    return hidden @ params["out"]


def cross_entropy(logits, rows):
    picked = jnp.take_along_axis(logits, rows[1][:, None], axis=1)[:, 0]
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked)


def loss(params, rows):
    return cross_entropy(network(params, rows[0]), rows)


def losses(params, rows):
    logits = network(params, rows[0])
    picked = jnp.take_along_axis(logits, rows[1][:, None], axis=1)[:, 0]
    return jax.nn.logsumexp(logits, axis=1) - picked


def model(params, rows):
    return network(params, rows[0])


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    shapes = {"w": (64, 3), "b": (3,), "out": (3, 10)}
    return {name: jnp.asarray(0.3 * rng.normal(size=shape)) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def dense(params):
    """The Hessian (225, 225) by jax.hessian, in the order of Form: b, out, w."""
    flat, back = ravel_pytree(params)
    return np.asarray(jax.hessian(lambda p: loss(back(p), (X, Y)))(flat))


# -- products --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [None, 203, 50])
def test_hessian_equals_the_dense_one_whatever_the_batches(params, dense, batch):
    op = curvature.hessian(loss, params, data=(X, Y), batch=batch)
    assert op.shape == dense.shape
    assert op.symmetric
    matrix = op.to_dense(chunk=40)
    np.testing.assert_allclose(matrix, dense, atol=1e-13)
    np.testing.assert_array_equal(matrix, matrix.T)
    np.testing.assert_allclose(op.trace(), np.trace(dense), rtol=1e-12)
    np.testing.assert_allclose(op.diagonal(chunk=40), np.diagonal(dense), atol=1e-13)
    for block, (a, b) in zip(op.blocks(), [(0, 3), (3, 33), (33, 225)], strict=True):
        np.testing.assert_allclose(block, dense[a:b, a:b], atol=1e-13)


def test_products_answer_in_kind(params, dense):
    op = curvature.hessian(loss, params, data=(X, Y))
    rng = np.random.default_rng(1)
    v = jnp.asarray(rng.normal(size=225))
    tree = op.domain.unravel(v)
    np.testing.assert_allclose(op @ v, dense @ v, atol=1e-12)
    np.testing.assert_allclose(op.domain.ravel(op @ tree), dense @ v, atol=1e-12)
    columns = jnp.asarray(rng.normal(size=(225, 4)))
    np.testing.assert_allclose(op @ columns, dense @ columns, atol=1e-12)
    assert op.T is op
    with pytest.raises(ValueError, match=r"225 numbers.*\(3,\)"):
        op @ jnp.zeros(3)


def test_gauss_newton_fisher_jacobian_and_kernel(params):
    flat, back = ravel_pytree(params)
    j = np.asarray(jax.jacobian(lambda p: network(back(p), X))(flat))  # (203, 10, 225)
    p = np.asarray(jax.nn.softmax(network(params, X)))
    q = np.einsum("ij,jk->ijk", p, np.eye(10)) - p[:, :, None] * p[:, None, :]
    expected = np.einsum("iap,iab,ibq->pq", j, q, j) / 203
    ggn = curvature.gauss_newton(model, cross_entropy, params, data=(X, Y), batch=64)
    np.testing.assert_allclose(ggn.to_dense(), expected, atol=1e-13)
    g = np.asarray(jax.jacobian(lambda p: losses(back(p), (X, Y)))(flat))
    empirical = curvature.fisher(losses, params, data=(X, Y), batch=64)
    np.testing.assert_allclose(empirical.to_dense(), g.T @ g / 203, atol=1e-13)
    some = X[:7]
    jac = curvature.jacobian(network, params, (some,))
    rows = j[:7].reshape(70, 225)
    assert jac.shape == (70, 225)
    np.testing.assert_allclose(jac.to_dense(), rows, atol=1e-13)
    np.testing.assert_allclose(jac.T.to_dense(), rows.T, atol=1e-13)
    tangent = curvature.kernel(network, params, (some,))
    np.testing.assert_allclose(tangent.to_dense(), rows @ rows.T, atol=1e-12)


def test_the_hessian_of_linear_least_squares_is_gauss_newtons():
    rng = np.random.default_rng(2)
    a = jnp.asarray(rng.normal(size=(30, 6)))
    half = lambda z, *_: 0.5 * jnp.sum(z * z)
    linear = lambda x: a @ x
    one = curvature.gauss_newton(linear, half, jnp.zeros(6)).to_dense()
    two = curvature.hessian(lambda x: half(linear(x)), jnp.zeros(6)).to_dense()
    np.testing.assert_allclose(one, a.T @ a, atol=1e-12)
    np.testing.assert_allclose(two, a.T @ a, atol=1e-12)


def test_a_new_point_compiles_nothing_and_jit_works(params, compilations):
    v = jnp.ones(225)
    first = curvature.hessian(loss, params, data=(X, Y), batch=100) @ v
    moved = jax.tree.map(lambda leaf: leaf + 0.01, params)
    with compilations() as count:
        second = curvature.hessian(loss, moved, data=(X, Y), batch=100) @ v
    assert count.programs <= 3  # the sums of `moved`
    assert not np.allclose(first, second)
    inside = jax.jit(lambda p: curvature.hessian(loss, p, data=(X, Y), batch=100) @ v)(moved)
    np.testing.assert_allclose(inside, second, atol=1e-13)


# -- eigenvalues -----------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_eigenpairs_are_those_of_eigh_within_their_bounds(params, dense, which):
    exact = np.linalg.eigvalsh(dense)
    op = curvature.hessian(loss, params, data=(X, Y))
    pairs = curvature.eigenpairs(op, 6, which, tol=1e-9)
    assert np.all(pairs.converged)
    order = {"largest": -exact, "smallest": exact, "magnitude": -np.abs(exact)}[which]
    wanted = np.sort(exact[np.argsort(order)[:6]])
    np.testing.assert_allclose(pairs.values, wanted, atol=1e-9 * np.abs(exact).max())
    vectors = jax.vmap(op.domain.ravel)(pairs.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(6), atol=1e-12)
    missed = np.linalg.norm(dense @ vectors.T - vectors.T * pairs.values, axis=0)
    assert np.all(missed <= pairs.bounds)
    assert pairs.vectors["w"].shape == (6, 64, 3)


def diagonal_operator(values, dtype=jnp.float64):
    values = jnp.asarray(values, dtype)
    return curvature.hessian(lambda x: 0.5 * jnp.sum(values * x * x), jnp.zeros(values.size, dtype))


def test_lanczos_is_orthonormal_and_bounds_hold_before_convergence():
    values = np.concatenate([np.linspace(0, 1, 295), [2, 3, 5, 8, 13]])
    op = diagonal_operator(values)
    space = curvature.lanczos(op, 40)
    np.testing.assert_allclose(space.basis @ space.basis.T, np.eye(40), atol=1e-13)
    image = space.basis * values
    left = space.projected @ space.basis
    np.testing.assert_allclose(image, left + space.coupling.T @ space.residual, atol=1e-12)
    band = curvature.lanczos(op, 40, block=3)
    np.testing.assert_allclose(band.basis @ band.basis.T, np.eye(40), atol=1e-13)
    left = band.projected @ band.basis + band.coupling.T @ band.residual
    np.testing.assert_allclose(band.basis * values, left, atol=1e-12)
    np.testing.assert_allclose(np.tril(band.projected, -4), 0, atol=1e-12)
    rough = curvature.eigenpairs(op, 4, "smallest", room=10, max_restarts=1)
    assert not np.all(rough.converged)
    nearest = np.min(np.abs(np.asarray(rough.values)[:, None] - values), axis=1)
    assert np.all(nearest <= rough.bounds)
    whole = curvature.eigenpairs(diagonal_operator(values[-20:]), 20)
    np.testing.assert_allclose(whole.values, values[-20:], atol=1e-12)


def test_multiple_interior_and_deflated_eigenvalues():
    # 5-fold eigenvalues at both ends: one start finds one copy of each, a block of 5 all.
    values = np.concatenate([[-3.0] * 5, np.linspace(-1, 2, 190), [4.0] * 5])
    op = diagonal_operator(values)
    pairs = curvature.eigenpairs(op, 12, "both", block=6)
    assert np.all(pairs.converged)
    expected = np.concatenate([[-3.0] * 5, values[5:6], values[-6:]])
    np.testing.assert_allclose(pairs.values, expected, atol=1e-9)
    np.testing.assert_allclose(pairs.vectors @ pairs.vectors.T, np.eye(12), atol=1e-12)
    single = curvature.eigenpairs(op, 1)
    others = curvature.eigenpairs(op, 5, block=6, deflate=single)
    np.testing.assert_allclose(others.values, [values[-6]] + [4.0] * 4, atol=1e-9)
    np.testing.assert_allclose(others.vectors @ single.vectors[0], 0, atol=1e-10)
    assert np.all(np.abs(others.values - expected[[6, -4, -3, -2, -1]]) <= others.bounds)
    # Inside the spectrum, with one above and one below at the same distance from the shift.
    middle = float(0.5 * (values[90] + values[91]))
    inner = curvature.eigenpairs(op, 6, "nearest", shift=middle, room=80)
    assert np.all(inner.converged)
    np.testing.assert_allclose(inner.values, values[88:94], atol=1e-7)
    assert np.all(np.abs(inner.values - values[88:94]) <= inner.bounds)


def test_exhausted_spaces_and_float32():
    op = diagonal_operator(np.repeat([1.0, 4.0], 10))  # two steps exhaust the space of a start
    pairs = curvature.eigenpairs(op, 12)
    np.testing.assert_allclose(pairs.values, [1.0] * 2 + [4.0] * 10, atol=1e-10)
    small = diagonal_operator(np.linspace(-3, 7, 60), jnp.float32)
    pairs = curvature.eigenpairs(small, 3)
    assert pairs.values.dtype == jnp.float32
    np.testing.assert_allclose(pairs.values, np.linspace(-3, 7, 60)[-3:], atol=1e-4)
    starts = jax.random.split(jax.random.key(3), 5)
    many = jax.vmap(lambda key: curvature.eigenpairs(small, 2, key=key).values)(starts)
    np.testing.assert_allclose(many, np.tile(np.linspace(-3, 7, 60)[-2:], (5, 1)), atol=1e-4)


# -- spectra as a whole ----------------------------------------------------------------------------


def test_density_integrates_to_one_and_knows_moments_and_outliers(params, dense):
    exact = np.linalg.eigvalsh(dense)
    op = curvature.hessian(loss, params, data=(X, Y))
    density = curvature.spectral_density(op, probes=20, steps=60)
    np.testing.assert_allclose(density.weights.sum(axis=1), 1, atol=1e-12)
    # Moments up to 2 m - 1 are those of the probes exactly; over probes within 4 standard errors.
    for power in (1, 2):
        moment = density.trace_of(lambda t, k=power: t**k)
        assert abs(float(moment.value) - np.sum(exact**power)) <= 4 * float(moment.error)
    # The largest eigenvalue is a node of every rule, to rounding.
    np.testing.assert_allclose(density.nodes[:, -1], exact[-1], rtol=1e-8)
    grid = np.linspace(exact[0] - 1, exact[-1] + 1, 4001)
    drawn = density.at(grid, 0.02)
    np.testing.assert_allclose(np.trapezoid(drawn.value, grid), 1, rtol=1e-6)
    # Smoothed alike: at its scale the rule is exact for the probe, so only probes differ.
    points, width = np.linspace(exact[0], exact[-1], 9), 0.05 * (exact[-1] - exact[0])
    below = density.below(points, width)
    expected = np.mean(ndtr((points[:, None] - exact) / width), axis=1)
    assert np.all(np.abs(below.value - expected) <= 4 * below.error + 1e-9)


def test_the_error_of_a_quadrature_is_reported_where_probes_agree():
    """Of a diagonal matrix probes of signs all have the same rule: what is wrong is its length."""
    a = jnp.arange(1.0, 101) ** 2
    op = curvature.hessian(lambda x: 0.5 * x @ (a * x), jnp.zeros(100))
    logdet = curvature.spectral_density(op, probes=3, steps=24).trace_of(jnp.log)
    exact = float(np.sum(np.log(a)))
    assert 1e-3 < abs(float(logdet.value) - exact) <= float(logdet.error)
    full = curvature.spectral_density(op, probes=3, steps=100)
    assert float(full.trace_of(jnp.log).value) == pytest.approx(exact, rel=1e-9)


def test_log_determinant_trace_and_diagonal():
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.normal(size=(200, 200)))[0]
    values = 1 / (1 + np.arange(200.0)) + 0.01
    matrix = jnp.asarray(basis * values @ basis.T)
    op = curvature.hessian(lambda x: 0.5 * (x @ (matrix @ x)), jnp.zeros(200))
    density = curvature.spectral_density(op, probes=30, steps=50)
    logdet = density.trace_of(jnp.log)
    assert abs(float(logdet.value) - np.sum(np.log(values))) <= 4 * float(logdet.error)
    assert float(logdet.error) <= 0.02 * abs(np.sum(np.log(values)))
    for fun in (lambda t: 1 / t, jnp.sqrt, jnp.abs):
        found = density.trace_of(fun)
        assert abs(float(found.value) - np.sum(fun(values))) <= 4 * float(found.error)
    plain = curvature.trace(op, 60, "hutchinson")
    better = curvature.trace(op, 60)
    best = curvature.trace(op, 60, "xtrace")
    assert float(best.error) < float(better.error)
    for estimate in (plain, better, best):
        assert abs(float(estimate.value) - values.sum()) <= 4 * float(estimate.error)
    assert float(better.error) < 0.5 * float(plain.error)
    entries = curvature.diagonal(op, 400)
    wrong = np.abs(entries.value - np.diagonal(matrix)) / entries.error
    assert np.mean(wrong <= 2) >= 0.9  # 95% of Gaussian errors
    cheap = curvature.diagonal(op, 60)
    sharp = curvature.diagonal(op, 60, "xdiag")
    off = lambda found: np.linalg.norm(found.value - np.diagonal(matrix))
    assert off(sharp) < 0.5 * off(cheap)
    # The estimates are exchangeable, not independent: their error is known within a factor.
    assert 1 / 3 < off(sharp) / np.linalg.norm(sharp.error) < 3
    low = rng.normal(size=(200, 5))
    few = curvature.hessian(lambda x: 0.5 * jnp.sum((x @ low) ** 2), jnp.zeros(200))
    np.testing.assert_allclose(curvature.trace(few, 16, "xtrace").value, np.sum(low**2), rtol=1e-8)
    exact = np.sum(low**2, axis=1)
    np.testing.assert_allclose(curvature.diagonal(few, 16, "xdiag").value, exact, rtol=1e-6)


# -- what is refused -------------------------------------------------------------------------------


def test_bad_input(params):
    with pytest.raises(TypeError, match="one real number"):
        curvature.hessian(losses, params, data=(X, Y))
    with pytest.raises(TypeError, match=r"'b'.*int"):
        curvature.hessian(lambda x: jnp.sum(x["a"]), {"a": jnp.ones(2), "b": jnp.arange(2)})
    with pytest.raises(ValueError, match="as many rows"):
        curvature.hessian(loss, params, data=(X, Y[:5]))
    with pytest.raises(ValueError, match="between 1 and the 203 rows"):
        curvature.hessian(loss, params, data=(X, Y), batch=500)
    with pytest.raises(ValueError, match="without `data`"):
        curvature.hessian(lambda x: x @ x, jnp.ones(2), batch=2)
    with pytest.raises(ValueError, match="one number an example"):
        curvature.fisher(loss, params, data=(X, Y)) @ jnp.zeros(225)
    op = diagonal_operator(np.ones(5))
    with pytest.raises(ValueError, match="between 1 and the size of the operator, 5"):
        curvature.eigenpairs(op, 6)
    with pytest.raises(ValueError, match="which"):
        curvature.eigenpairs(op, 1, "top")
    with pytest.raises(ValueError, match="symmetric"):
        curvature.lanczos(curvature.jacobian(lambda x: x[:2], jnp.ones(3)), 1)
    with pytest.raises(TypeError, match=r"curvature\.hessian"):
        curvature.eigenpairs(jnp.eye(3), 1)
    with pytest.raises(ValueError, match="method"):
        curvature.trace(op, 10, "guess")
    with pytest.raises(ValueError, match="exact"):
        curvature.trace(op, 10, "xtrace")
    with pytest.raises(ValueError, match="exact"):
        curvature.diagonal(op, 10, "xdiag")
    with pytest.raises(ValueError, match="`block` must be between 1 and half"):
        curvature.lanczos(op, 4, block=3)
    broken = curvature.hessian(lambda x: jnp.sum(jnp.sqrt(x)), jnp.zeros(4))
    for call in (curvature.eigenpairs, curvature.spectral_density):
        with pytest.raises(ValueError, match="not finite"):
            call(broken, 1)
    inside = jax.jit(lambda: curvature.eigenpairs(broken, 1))()
    assert np.all(np.isnan(inside.values))
    assert not np.any(inside.converged)
    assert jol.curvature is curvature
