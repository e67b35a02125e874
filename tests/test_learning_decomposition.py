"""Principal components, non-negative factors, neural collapse, by their optimality conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite.learning import Factors, neural_collapse, nmf, pca

RNG = np.random.default_rng(0)
X = RNG.standard_normal((40, 6)) * [3.0, 2.0, 1.5, 1.0, 0.5, 0.2] + 5.0
WIDE = RNG.standard_normal((8, 20)) * np.linspace(2, 0.5, 20)


@pytest.mark.parametrize("A", [X, WIDE], ids=["tall", "wide"])
def test_principal_components_are_a_kkt_point(A):
    decomposition = pytest.importorskip("sklearn.decomposition")
    found = pca(A, 3).raise_for_status()
    theirs = decomposition.PCA(3, svd_solver="full").fit(A)
    V, n = np.asarray(found.x), len(A)
    np.testing.assert_allclose(np.abs(V.T @ theirs.components_.T), np.eye(3), atol=1e-9)
    np.testing.assert_allclose(
        found.state.variances * n / (n - 1), theirs.explained_variance_, rtol=1e-10
    )
    np.testing.assert_allclose(found.state.explained, theirs.explained_variance_ratio_, rtol=1e-10)
    # S V = V L with a symmetric L: the eigenvalues are the multipliers.
    C = A - A.mean(0)
    S, L = C.T @ C / n, np.asarray(found.multipliers.eq)
    np.testing.assert_allclose(S @ V, V @ L, atol=1e-10)
    np.testing.assert_allclose(L, np.diag(found.state.variances), atol=1e-10)
    assert found.state.asymmetry < 1e-12
    assert found.state.gap > 0
    assert found.value == pytest.approx(float(-found.state.variances.sum()) / 2, rel=1e-12)
    # Riemannian gradient, (I - V V') S V: 0 here, and at no random frame.
    Q = np.linalg.qr(RNG.standard_normal(V.shape))[0]
    gradient = lambda U: np.abs(S @ U - U @ (U.T @ S @ U)).max()
    assert gradient(V) < 1e-10 < 1e-3 < gradient(Q)


def test_the_first_component_by_a_constrained_solver_and_its_derivative():
    C = X - X.mean(0)
    S = jnp.asarray(C.T @ C / 40)
    first = pca(X, 1)
    solved = jol.minimize(
        lambda v, S: -v @ S @ v / 2, jnp.asarray(first.x[:, 0]) + 0.1, (S,),
        eq=lambda v, S: (v @ v - 1) / 2,
    ).raise_for_status()  # fmt: skip
    np.testing.assert_allclose(np.abs(solved.x @ first.x[:, 0]), 1, atol=1e-7)
    assert solved.multipliers.eq == pytest.approx(float(first.multipliers.eq[0, 0]), rel=1e-6)
    weight = jnp.asarray(RNG.standard_normal((6, 2)))
    fit = lambda A: jnp.sum(weight * pca(A, 2).x)
    step = jnp.asarray(RNG.standard_normal(X.shape))
    slope = jnp.sum(jax.grad(fit)(jnp.asarray(X)) * step)
    numeric = float(fit(X + 1e-6 * step) - fit(X - 1e-6 * step)) / 2e-6
    assert slope == pytest.approx(numeric, rel=1e-6)


def test_non_negative_factors_are_a_kkt_point(compilations):
    truth = RNG.uniform(size=(20, 3)) * (RNG.uniform(size=(20, 3)) > 0.4)
    A = truth @ RNG.uniform(size=(3, 12))
    found = nmf(A, 3, tol=1e-9).raise_for_status()
    W, H = map(np.asarray, found.x)
    assert min(W.min(), H.min()) >= 0
    assert np.linalg.norm(A - W @ H) < 1e-3 * np.linalg.norm(A)  # of rank 3
    noisy = nmf(A + 0.1, 2, penalty=1e-3, tol=1e-9).raise_for_status()
    W, H = map(np.asarray, noisy.x)
    slope = -(A + 0.1 - W @ H) @ H.T / A.size + 1e-3 * W / 20
    assert np.all(np.abs(slope[W > 0]) < 1e-8)
    assert np.all(slope[W == 0] > -1e-8)
    np.testing.assert_allclose(np.maximum(slope, 0), noisy.multipliers.lower.weights, atol=1e-8)
    with compilations() as count:
        nmf(A + 0.2, 2, penalty=2e-3, tol=1e-9)
    assert count.programs == 0
    again = nmf(A + 0.1, 2, penalty=1e-3, x0=Factors(*noisy.x), tol=1e-8)
    assert again.steps <= 2


def test_features_collapse_to_a_simplex(compilations):
    found = neural_collapse(4, 6, per_class=3, tol=1e-8).raise_for_status()
    assert max(map(float, found.aux)) < 1e-4
    x = found.x
    means = np.asarray(x.features).mean(1)
    M = means - means.mean(0)
    cosines = (M @ M.T) / np.sum(M * M, 1)
    np.testing.assert_allclose(cosines[~np.eye(4, dtype=bool)], -1 / 3, atol=1e-4)
    assert np.abs(x.bias - x.bias.mean()).max() < 1e-5
    with compilations() as count:
        other = neural_collapse(4, 6, per_class=3, key=jax.random.key(5), tol=1e-8)
    assert count.programs == 0
    assert other.value == pytest.approx(float(found.value), rel=1e-9)  # all minima are global


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pca(X, 7), r"at most 6, the smaller side of `X` \(40, 6\), but 7 came"),
        (lambda: pca(X[:, [0, 1, 1]], 3), "at most the rank of `X`, 2, but 3 came"),
        (lambda: pca(np.where(X > 8, np.nan, X), 2), "`X` must be finite"),
        (lambda: nmf(-np.abs(X), 2), "`X` must be >= 0 everywhere"),
        (lambda: nmf(np.abs(X), 7), "`components` must be at most 6"),
        (lambda: neural_collapse(4, 2), "a simplex of K points needs K - 1 dimensions"),
        (lambda: neural_collapse(3, 2, penalties=(0.0, 1.0, 1.0)), "`penalties` must be > 0"),
    ],
)
def test_bad_input_says_what_came_and_what_to_do(call, message):
    with pytest.raises(ValueError, match=message):
        call()
