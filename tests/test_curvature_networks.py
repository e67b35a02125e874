"""Verdicts, conditioning and preconditioners for functions of many parameters, and experiments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Kind, curvature

# -- verdicts --------------------------------------------------------------------------------------


def bowl(x, a):
    return 0.5 * jnp.sum(a * x["one"] ** 2) + jnp.sum(x["one"] ** 4)


@pytest.fixture(scope="module")
def judged():
    """Functions of 900 parameters with known eigenvalues, judged by Lanczos in one program."""
    rest = np.linspace(0.2, 1.0, 897)
    zero, moved = np.zeros(900), np.full(900, 0.1)
    cases = {
        "minimum": (np.concatenate([[0.1, 0.1, 0.2], rest]), zero),
        "maximum": (-np.concatenate([[0.1, 0.1, 0.2], rest]), zero),
        "saddle": (np.concatenate([[-0.3, -0.2, -0.1], rest]), zero),
        "singular": (np.concatenate([[0.0, 0.1, 0.1], rest]), zero),
        "slope": (np.concatenate([[-0.3, -0.2, -0.1], rest]), moved),
        "broken": (np.concatenate([[np.nan, 0.1, 0.1], rest]), zero),
    }
    of = lambda a, x: curvature.classify(bowl, {"one": jnp.asarray(x)}, (jnp.asarray(a),), dense=9)
    return {name: (case[0], of(*case)) for name, case in cases.items()}


def test_verdicts_where_the_bounds_allow_them(judged):
    kinds = {name: Kind(int(verdict.kind)) for name, (_, verdict) in judged.items()}
    assert kinds == {
        "minimum": Kind.STRICT_MINIMUM,
        "maximum": Kind.STRICT_MAXIMUM,
        "saddle": Kind.SADDLE,
        "singular": Kind.UNDECIDED,
        "slope": Kind.NOT_STATIONARY,
        "broken": Kind.NONFINITE,
    }
    for name in ("minimum", "maximum", "saddle", "singular"):
        a, verdict = judged[name]
        slack = 1e-12
        assert verdict.smallest[0] - slack <= a.min() <= verdict.smallest[1] + slack
        assert verdict.largest[0] - slack <= a.max() <= verdict.largest[1] + slack
        assert int(verdict.morse_index[0]) <= np.sum(a < 0) <= int(verdict.morse_index[1])
        error = max(float(verdict.counted.error), 1e-9)
        assert abs(float(verdict.counted.value) - np.sum(a < 0)) <= 4 * error + 1
    saddle = judged["saddle"][1]
    assert saddle.morse_index[0] == 3
    assert abs(saddle.descent["one"][0]) > 0.99
    np.testing.assert_allclose(saddle.smallest[1], -0.3, atol=1e-8)
    assert not np.any(judged["minimum"][1].descent["one"])
    assert "saddle point" in str(saddle)
    assert "between" in str(saddle)


def test_small_functions_are_judged_as_by_the_dense_test():
    functions = {
        "cup": lambda x: x[0] ** 2 + 2 * x[1] ** 2,
        "saddle": lambda x: x[0] ** 2 - 2 * x[1] ** 2,
        "flat": lambda x: x[0] ** 2 + x[1] ** 4,
    }
    for fun in functions.values():
        x = jnp.zeros(2)
        ours, known = curvature.classify(fun, x), jol.classify(fun, x)
        assert int(ours.kind) == int(known.kind)
        assert ours.morse_index[0] == known.morse_index
        np.testing.assert_allclose(ours.smallest, known.eigenvalues[0], atol=1e-14)
    with pytest.raises(ValueError, match="at least 8"):
        curvature.classify(functions["cup"], jnp.zeros(2), steps=3)


def test_escape_direction_descends_from_a_saddle():
    fun = lambda x: 5 * x["a"] ** 2 - x["b"] ** 2 + x["b"] ** 4 + 1e-3 * x["b"]
    x = {"a": jnp.zeros(()), "b": jnp.zeros(())}
    op = curvature.hessian(fun, x)
    direction, curved = curvature.escape_direction(op, jax.grad(fun)(x))
    np.testing.assert_allclose([direction["a"], direction["b"]], [0, -1], atol=1e-12)
    np.testing.assert_allclose(curved.value, -2, atol=1e-12)
    up = curvature.hessian(lambda x: x["a"] ** 2 + x["b"] ** 2, x)
    assert curvature.escape_direction(up)[0] == {"a": 0, "b": 0}
    with pytest.raises(ValueError, match="shapes"):
        curvature.escape_direction(op, jnp.zeros(3))


# -- experiments -----------------------------------------------------------------------------------


def rectifier(p, rows):
    """A layer of ReLUs; classes that are not there get no probability."""
    return jax.nn.relu(rows[0] @ p["w"] + p["b"]) @ p["v"] + p["c"] + rows[2]


def entropy(logits, rows):
    picked = jnp.take_along_axis(logits, rows[1][:, None], axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked[:, 0])


@jax.jit
def trained(p, rows):
    slope = jax.grad(lambda p: entropy(rectifier(p, rows), rows))
    step = lambda _, p: jax.tree.map(lambda leaf, g: leaf - 0.1 * g, p, slope(p))
    return jax.lax.fori_loop(0, 100, step, p)


@pytest.fixture(scope="module")
def blobs():
    """(rows of C blobs, parameters before, after) by C: orthogonal centres, 8 deviations long."""
    rng = np.random.default_rng(0)
    centres = 8 * np.linalg.qr(rng.normal(size=(32, 10)))[0].T
    sizes = {"w": (32, 64), "b": (64,), "v": (64, 10), "c": (10,)}
    scale = {"w": 0.2 * (2 / 32) ** 0.5, "b": 0.0, "v": 0.2 * (2 / 64) ** 0.5, "c": 0.0}
    p = {k: jnp.asarray(scale[k] * rng.normal(size=shape)) for k, shape in sizes.items()}
    found = {}
    for classes in (2, 5, 8, 10):
        y = np.arange(200) % classes
        missing = np.tile(np.where(np.arange(10) < classes, 0.0, -1e9), (200, 1))
        rows = tuple(map(jnp.asarray, (centres[y] + rng.normal(size=(200, 32)), y, missing)))
        found[classes] = rows, p, trained(p, rows)
    return found


def test_as_many_outliers_as_classes_after_training_and_none_before(blobs):
    loss = lambda p, rows: entropy(rectifier(p, rows), rows)
    for classes, (rows, before, after) in blobs.items():
        ratios = []
        for operator in (
            curvature.hessian(loss, before, data=rows),
            curvature.hessian(loss, after, data=rows),
            curvature.gauss_newton(rectifier, entropy, after, data=rows),
        ):
            pairs = curvature.eigenpairs(operator, 14, room=60)
            assert np.all(pairs.converged)
            values = np.asarray(pairs.values)[::-1]
            ratios.append(values[:12] / values[1:13])
        # Before training neighbours differ by less than half, wherever one looks; afterwards the
        # eigenvalue number C is more than twice the next, and that is the widest gap there is.
        assert np.max(ratios[0]) < 1.5
        for ratio in ratios[1:]:
            assert np.argmax(ratio) + 1 == classes
            assert ratio[classes - 1] > 2


# -- conditioning ----------------------------------------------------------------------------------


def test_predicted_iterations_are_those_measured():
    kappa, accuracy = 100.0, 1e-6
    a = jnp.asarray(np.geomspace(1.0, kappa, 20))
    fun = lambda x: 0.5 * jnp.sum(a * x * x)
    here = curvature.conditioning(fun, jnp.zeros(20))
    np.testing.assert_allclose([here.smallest, here.largest], [1.0, kappa], rtol=1e-9)
    np.testing.assert_allclose(here.condition, kappa, rtol=1e-9)
    start = 1 / a  # gradients of equal size along all eigenvectors
    predicted, measured = here.iterations(accuracy), here.measured(fun, start, accuracy)
    assert measured.pop("Newton") <= 2 + 1
    for name, steps in measured.items():
        # The slowest component alone decides: off by the constant before rate^k, a few steps of
        # 1/log(1/rate) out of log(1/accuracy) = 14 of them.
        assert 0.8 <= steps / float(predicted[name]) <= 1.2, name
    short = here.measured(fun, start, accuracy, max_steps=50)
    assert short["gradient descent, 1/L"] == np.inf
    assert float(predicted["Newton"]) == pytest.approx(np.log2(np.log2(1e6)))
    # Beyond 2 / L it diverges, below it does not.
    for factor, status in ((0.99, jol.Status.CONVERGED), (1.01, jol.Status.DIVERGED)):
        solver = jol.FixedStep(factor * here.longest_step)
        found = jol.minimize(fun, start, solver=solver, tol=accuracy, max_steps=20_000)
        assert found.status == status


def test_conditioning_along_a_path():
    fun = lambda x: jnp.sum(jnp.cosh(x["a"] * jnp.arange(1.0, 5.0)))
    path = {"a": jnp.linspace(0.0, 1.0, 3)[:, None] * jnp.ones(4)}
    along = curvature.conditioning(fun, path, path=True)
    n = np.arange(1.0, 5.0)
    for i, t in enumerate((0.0, 0.5, 1.0)):
        np.testing.assert_allclose(along.largest[i], 16 * np.cosh(4 * t), rtol=1e-9)
        np.testing.assert_allclose(along.smallest[i], np.min(n**2 * np.cosh(n * t)), rtol=1e-9)
    flipped = curvature.conditioning(lambda x: -fun(x), {"a": jnp.zeros(4)})
    assert flipped.condition == np.inf
    assert flipped.iterations(1e-3)["heavy ball"] == np.inf
    with pytest.raises(ValueError, match="one first axis"):
        curvature.conditioning(fun, {"a": jnp.zeros(())}, path=True)


# -- preconditioners -------------------------------------------------------------------------------


def test_kronecker_factors_are_exact_for_one_linear_layer():
    rng = np.random.default_rng(0)
    X, Y = jnp.asarray(rng.normal(size=(30, 4))), jnp.asarray(rng.normal(size=(30, 3)))
    params = {"only": (jnp.asarray(rng.normal(size=(4, 3))), jnp.zeros(3))}
    line = lambda p, rows, dense=curvature.dense: dense(p["only"], rows[0])
    half = lambda z, rows: 0.5 * jnp.mean(jnp.sum((z - rows[1]) ** 2, axis=1))
    block = curvature.gauss_newton(line, half, params, data=(X, Y)).to_dense()
    (layer,) = curvature.kronecker_factors(line, half, params, (X, Y))
    np.testing.assert_allclose(jnp.kron(layer.inputs, layer.outputs), block, atol=1e-13)
    slope = jax.grad(lambda p: half(line(p, (X, Y)), (X, Y)))(params)
    rule = curvature.kfac(line, half, (X, Y), damping=1e-20)
    step, _ = rule.update(slope, rule.init(params), params)
    flat = jax.flatten_util.ravel_pytree
    newton = jnp.linalg.solve(block, flat(slope)[0])
    np.testing.assert_allclose(flat(step)[0], newton, rtol=1e-8)
    wrong = lambda p, rows, dense: dense(2 * p["only"][0], rows[0])
    with pytest.raises(ValueError, match="as they are"):
        curvature.kronecker_factors(wrong, half, params, (X, Y))
    none = lambda p, rows, dense: rows[0] @ p["only"][0]
    with pytest.raises(ValueError, match="no dense layer"):
        curvature.kronecker_factors(none, half, params, (X, Y))
    with pytest.raises(ValueError, match="damping"):
        curvature.kfac(line, half, (X, Y), damping=0.0)


def test_preconditioned_descent_needs_fewer_steps():
    import optax

    # Two layers, inputs whose scales span a factor of 100: plain descent crawls.
    rng = np.random.default_rng(1)
    X = jnp.asarray(rng.normal(size=(60, 5)) * np.geomspace(0.03, 3.0, 5))
    y = jnp.tanh(X @ jnp.asarray(1 / np.geomspace(0.03, 3.0, 5)))[:, None]
    sizes = {"one": ((5, 4), (4,)), "two": ((4, 1), (1,))}
    params = {k: tuple(jnp.asarray(0.5 * rng.normal(size=s)) for s in v) for k, v in sizes.items()}

    def net(p, rows, dense=curvature.dense):
        return dense(p["two"], jnp.tanh(dense(p["one"], rows[0])))

    half = lambda z, rows: 0.5 * jnp.mean((z - rows[1]) ** 2)
    fun = lambda p: half(net(p, (X, y)), (X, y))
    sharpness = float(curvature.conditioning(fun, params).largest)
    kfac = curvature.kfac(net, half, (X, y), damping=1e-3, every=2, decay=0.5)
    diagonal = curvature.scale_by_diagonal(fun, probes=4, damping=1e-3, clip=1.0)

    def after(rule, steps):
        solver = jol.Optax(rule)
        found = jol.minimize(fun, params, solver=solver, tol=0.0, max_steps=steps)
        return float(found.value)

    plain = after(optax.sgd(1 / sharpness), 1000)
    assert after(optax.chain(kfac, optax.scale(-0.5)), 50) < plain  # a twentieth of the steps
    assert after(optax.chain(diagonal, optax.scale(-0.1)), 200) < plain  # a fifth
    quadratic = lambda x: 0.5 * jnp.sum(jnp.asarray([1.0, 1e4]) * x * x)
    rule = curvature.scale_by_diagonal(quadratic, decay=0.5)
    step, state = rule.update(jnp.asarray([2.0, 3e4]), rule.init(jnp.ones(2)), jnp.ones(2))
    np.testing.assert_allclose(step, [2.0, 3.0], rtol=1e-12)  # the diagonal is all there is
    assert state.updates == 1


def test_saddle_free_newton_in_a_krylov_space_leaves_a_saddle_of_many_variables():
    # A saddle at 0 with 3 ways down among 300 variables, minima at x_i^2 = 1/2 along them.
    curvatures = jnp.asarray(np.concatenate([[-2.0] * 3, np.geomspace(1.0, 50.0, 297)]))
    fun = lambda x: 0.5 * jnp.sum(curvatures * x * x) + jnp.sum(x**4)
    solver = jol.SaddleFreeNewton(rank=20)
    for start in (jnp.zeros(300), jnp.full(300, 1e-6), jnp.full(300, 1.0)):
        found = jol.minimize(fun, start, solver=solver, tol=1e-8, max_steps=200)
        assert found.status == jol.Status.CONVERGED
        np.testing.assert_allclose(jnp.abs(found.x[:3]), 0.5**0.5, atol=1e-7)
        np.testing.assert_allclose(found.x[3:], 0, atol=1e-7)
        assert int(found.steps) <= 40
    with pytest.raises(ValueError, match="rank"):
        jol.SaddleFreeNewton(rank=1)
