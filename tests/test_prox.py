"""Proximable functions: a table of them, and what must hold of every one.

p = prox(x, t) minimises f(p) + ||p - x||^2 / (2 t) if and only if y = (x - p) / t is a subgradient
of f at p: f(z) >= f(p) + <y, z - p> for all z, or, with the conjugate, f(p) + f*(y) = <p, y>. None
of these asks how p was computed.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax.flatten_util import ravel_pytree

from jaxopt_lite import projections
from jaxopt_lite import prox as of
from jaxopt_lite.linalg import Form
from jaxopt_lite.prox import total_variation

N = 6
GROUPS = np.array([0, 1, 0, 2, 2, 1])
BASIS = np.linalg.qr(np.random.default_rng(5).normal(size=(N, 3)))[0]
HALF = np.random.default_rng(6).normal(size=(N, 4))
SIZES = np.array([0.5, 1.0, 0.3, 2.0, 0.8, 0.1])


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """A function of parameters that may move, and points for it."""

    name: str
    make: Callable[..., of.Proximable]
    params: tuple = ()
    shape: Any = (N,)
    conjugate: bool = True  # there is a closed form
    tol: float = 1e-12  # of identities, for numbers of size 1
    nearest: float = 1e-12  # of the nearest subgradient; a limit is right to 1e-7

    def __str__(self):
        return self.name

    def draw(self, rng):
        return jax.tree.map(
            lambda shape: jnp.asarray(2 * rng.normal(size=shape)),
            self.shape,
            is_leaf=lambda s: isinstance(s, tuple) and all(isinstance(k, int) for k in s),
        )

    def vector(self, *params):
        return self.make(*params).on_vector(Form.of(self.draw(np.random.default_rng(0))))


LIMIT = {"nearest": 1e-6}
NO_CONJUGATE = {"conjugate": False} | LIMIT
TABLE = [
    Row("Zero", of.Zero),
    Row("L1", of.L1, (SIZES,)),
    Row("L1 of a pytree", lambda w: of.L1(w), (0.7,), {"a": (4,), "b": (2, 1)}),
    Row("SquaredL2", of.SquaredL2, (SIZES, 0.3)),
    Row("ElasticNet", of.ElasticNet, (0.4, SIZES)),
    Row("Box", of.Box, (-0.5, SIZES)),
    Row("NonNegative", of.NonNegative),
    Row("Huber", of.Huber, (0.6, SIZES)),
    Row("Hinge", of.Hinge, (0.8,)),
    Row("Logistic", of.Logistic, (SIZES,)),
    Row("LogBarrier", of.LogBarrier, (0.5,)),
    Row("Entropy", of.Entropy, (SIZES,)),
    Row("KullbackLeibler", of.KullbackLeibler, (SIZES, 0.7)),
    Row("L2", of.L2, (0.9,), {"a": (4,), "b": (2, 1)}),
    Row("Linf", of.Linf, (0.9,)),
    Row("L1Linf", of.L1Linf, (np.array([0.3, 0.9, 1.5]),), (3, 4)),
    Row("GroupLasso", lambda w: of.GroupLasso(GROUPS, w), (np.array([0.5, 1.0, 2.0]),)),
    Row("Nuclear", of.Nuclear, (0.8,), (3, 4)),
    Row("Nuclear of a tall matrix", of.Nuclear, (0.8,), (4, 2)),
    Row("Simplex", of.Simplex, (1.5,)),
    Row("Indicator", lambda r: of.Indicator(jax.tree_util.Partial(projections.l2_ball, radius=r)),
        (1.3,), **NO_CONJUGATE),
    Row("Quadratic", of.Quadratic, (HALF @ HALF.T, SIZES)),
    Row("TotalVariation", of.TotalVariation, (np.array([0.6, 1.0, 0.2, 0.5, 0.7]),)),
    Row("Conjugate", lambda w: of.Entropy(w).conjugate(), (0.7,), **LIMIT),
    Row("Scaled", lambda c: c * of.Huber(0.3), (2.0,)),
    Row("Rescaled", lambda a, b: of.Rescaled(of.Hinge(), a, b), (-2.0, SIZES)),
    Row("Rescaled entries", lambda a: of.Rescaled(of.L1(0.4), a, 0.2), (SIZES,)),
    Row("Tilted", lambda c: of.Tilted(of.Entropy(), c), (SIZES,)),
    Row("SeparableSum", lambda w: of.SeparableSum({"a": of.L1(w), "b": of.L2(w)}), (0.6,),
        {"a": (3,), "b": {"c": (2,), "d": (2, 1)}}),
    Row("L2 + SquaredL2", lambda w: of.L2(0.5) + of.SquaredL2(w, SIZES), (0.7,), conjugate=False),
    Row("L1 + NonNegative", lambda w: 0.7 * of.L1(w) + of.NonNegative(), (SIZES,), **NO_CONJUGATE),
    Row("fused lasso", lambda w: of.TotalVariation(w) + of.L1(0.3) + 0.4 * of.SquaredL2(0.5),
        (0.5,), **NO_CONJUGATE),
    Row("sparse group lasso", lambda w: of.L1(w) + of.GroupLasso(GROUPS, 0.5), (SIZES / 3,),
        **NO_CONJUGATE),
    Row("Composed", lambda b: of.Composed(of.L1(0.3), 2 * BASIS.T, b), (np.ones(3),), **LIMIT),
    Row("groups apart", lambda w: of.overlapping_groups([[0, 2], [1, 4, 5]], w), (0.6,), **LIMIT),
    Row("Custom", lambda w: of.Custom(
        jax.tree_util.Partial(lambda w, x: w * jnp.sum(jnp.abs(x)), w),
        jax.tree_util.Partial(lambda w, x, t: x - jnp.clip(x, -w * t, w * t), w)),
        (0.6,), **NO_CONJUGATE),
]  # fmt: skip
each = pytest.mark.parametrize("row", TABLE, ids=str)


@functools.cache
def compiled(row: Row) -> Callable:
    """All that the tests below look at, at one point, in one program; on vectors."""

    def everything(params, x, t, others, v):
        f = row.vector(*params)
        p = f.prox(x, t)
        y = (x - p) / t
        domain = jax.vmap(f.prox)(others)
        out = {
            "p": p,
            "y": y,
            "value": f.value(p),
            "z": domain,
            "values": jax.vmap(f.value)(domain),
        }
        out["at p"], out["at v"] = f.nearest_subgradient(p, y), f.nearest_subgradient(p, v)
        out["limit"] = of.Proximable.nearest_subgradient(f, p, v)
        out["envelope"], out["slope"] = jax.value_and_grad(f.envelope)(x, t)
        if row.conjugate:
            dual = f.conjugate()
            out["conjugate"] = dual.value(y)
            out["dual p"] = dual.prox(x / t, 1 / t)
            out["back"] = of.Conjugate(dual).prox(x, t)
        return out

    return jax.jit(everything)


@functools.cache
def cases(row: Row) -> list:
    """Answers at points inside and far outside, for small and large steps."""
    rng = np.random.default_rng(1)
    found = []
    for size, t in ((1e-3, 1.0), (1.0, 0.1), (1.0, 0.7), (1.0, 5.0), (30.0, 2.0)):
        x = size * ravel_pytree(row.draw(rng))[0]
        others = jnp.stack([ravel_pytree(row.draw(rng))[0] for _ in range(40)])
        v = jnp.asarray(rng.normal(size=x.shape))
        params = jax.tree.map(jnp.asarray, row.params)
        out = compiled(row)(params, x, jnp.asarray(t), others, v)
        scale = 1 + float(jnp.max(jnp.abs(x))) * (1 + 1 / t)
        found.append((x, t, v, jax.tree.map(np.asarray, out), scale))
    return found


@each
def test_residual_is_a_subgradient_and_the_point_is_least(row):
    for x, t, _, out, scale in cases(row):
        p, y, value = out["p"], out["y"], out["value"]
        assert np.isfinite(value)
        assert np.all(np.isfinite(out["values"]))  # a prox is in the domain
        above = out["values"] - value - (out["z"] - p) @ y
        assert np.min(above) >= -row.tol * scale**2, np.min(above)
        objective = out["values"] + np.sum((out["z"] - x) ** 2, axis=1) / (2 * t)
        least = value + np.sum((p - x) ** 2) / (2 * t)
        assert np.all(objective >= least - row.tol * scale**2)
        np.testing.assert_allclose(out["envelope"], least, rtol=1e-12, atol=1e-13)
        np.testing.assert_allclose(out["slope"], y, atol=1e-14 * scale)


@pytest.mark.parametrize("row", [row for row in TABLE if row.conjugate], ids=str)
def test_conjugate_by_moreau_and_fenchel_young(row):
    for x, t, _, out, scale in cases(row):
        p, y = out["p"], out["y"]
        np.testing.assert_allclose(p + t * out["dual p"], x, atol=row.tol * scale)
        np.testing.assert_allclose(out["dual p"], y, atol=row.tol * scale)
        np.testing.assert_allclose(out["back"], p, atol=row.tol * scale)
        gap = out["value"] + out["conjugate"] - p @ y
        assert abs(gap) <= 10 * row.tol * scale**2, gap


@each
def test_nearest_subgradient_is_one_and_the_nearest(row):
    for _, _, v, out, scale in cases(row):
        if not np.all(np.isfinite(out["at p"])):  # log-like functions have none at the boundary
            continue
        np.testing.assert_allclose(out["at p"], out["y"], atol=row.nearest * scale * 10)
        g = out["at v"]
        above = out["values"] - out["value"] - (out["z"] - out["p"]) @ g
        assert np.min(above) >= -10 * row.nearest * scale**2
        # No nearer one: g - v is orthogonal, or obtuse, to all ways to another, y for one.
        assert (g - v) @ (out["y"] - g) >= -10 * row.nearest * scale**2
        # The limit that holds for every f, taken at a step of 1e-8: right to that times curvature.
        if np.max(np.abs(g)) < 7:  # beyond, logarithms bend by more than 1e4
            np.testing.assert_allclose(g, out["limit"], atol=1e-4 * scale)


@functools.cache
def derivatives(row: Row) -> Callable:
    def move(params, x, t, dp, dx, dt, weights):
        prox = lambda params, x, t: row.vector(*params).prox(x, t)
        p, push = jax.jvp(prox, (params, x, t), (dp, dx, dt))
        _, pull = jax.vjp(prox, params, x, t)
        envelope = lambda params, x, t: row.vector(*params).envelope(x, t)
        value, slope = jax.jvp(envelope, (params, x, t), (dp, dx, dt))
        jacobian = jax.jacfwd(prox, 1)(params, x, t)
        return p, push, pull(weights), value, slope, jacobian

    return jax.jit(move)


@each
def test_derivatives_of_prox_and_envelope(row, rng):
    h = 1e-6
    for _ in range(3):
        x = ravel_pytree(row.draw(rng))[0]
        params, t = jax.tree.map(jnp.asarray, row.params), jnp.asarray(0.7)
        random = lambda leaf: jnp.asarray(rng.normal(size=jnp.shape(leaf)))
        along = jax.tree.map(random, (params, x, t))
        weights = random(x)

        def at(s, at=(params, x, t), along=along, weights=weights):
            moved = jax.tree.map(lambda a, b: a + s * b, at, along)
            return derivatives(row)(*moved, *along, weights)

        _, push, pull, _, slope, J = at(0.0)
        ahead, behind = at(h), at(-h)
        size = 1 + np.max(np.abs(push))
        # h^2 times third derivatives, and rounding over h
        np.testing.assert_allclose(push, (ahead[0] - behind[0]) / (2 * h), atol=2e-8 * size)
        np.testing.assert_allclose(slope, (ahead[3] - behind[3]) / (2 * h), atol=1e-7 * size)
        products = jax.tree.map(lambda a, b: jnp.sum(a * b), pull, along)
        np.testing.assert_allclose(
            sum(jax.tree.leaves(products)), weights @ push, atol=1e-11 * size
        )
        np.testing.assert_allclose(J, J.T, atol=1e-12)
        values = np.linalg.eigvalsh(J)  # a prox is firmly nonexpansive
        assert values[0] >= -1e-12
        assert values[-1] <= 1 + 1e-12
    for kink in (jnp.zeros_like(x), jnp.ones_like(x)):  # zeros and ties
        out = derivatives(row)(params, kink, t, *along, weights)
        assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(out))


@each
def test_a_batch_of_1000_equals_the_loop_and_nan_stays_in_its_lane(row, rng):
    lanes, broken = 1000, 123
    xs = np.stack([np.asarray(ravel_pytree(row.draw(rng))[0]) for _ in range(lanes)])
    xs *= np.geomspace(1e-2, 1e2, lanes)[:, None]
    xs[broken] = np.nan
    params = jax.tree.map(jnp.asarray, row.params)
    prox = lambda x: row.vector(*params).prox(x, 0.7)
    batch = np.asarray(jax.jit(jax.vmap(prox))(jnp.asarray(xs)))
    others, v = jnp.ones((40, xs.shape[1])), jnp.ones(xs.shape[1])
    for lane in range(0, lanes, 100):
        alone = compiled(row)(params, jnp.asarray(xs[lane]), jnp.asarray(0.7), others, v)["p"]
        rounding = 1e-13 * (1 + np.max(np.abs(xs[lane])))
        np.testing.assert_allclose(batch[lane], alone, atol=rounding)
    finite = np.isfinite(batch)
    assert np.array_equal(np.flatnonzero(~np.all(finite, axis=1)), [broken])
    # Firmly nonexpansive: |p - q|^2 <= <p - q, x - z>
    p, q, x, z = batch[:100], batch[200:300], xs[:100], xs[200:300]
    assert np.all(np.sum((p - q) * ((x - z) - (p - q)), axis=1) >= -1e-11)


@each
def test_float32_stays_float32_and_is_as_accurate_as_it_can_be(row, rng):
    params = jax.tree.map(jnp.asarray, row.params)
    x = row.draw(rng)
    x32 = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), x)

    @jax.jit
    def run(x):
        f = row.make(*params)
        p = f.prox(x, 0.7)
        return p, f.value(p), f.envelope(x, 0.7)

    got = run(x32)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {np.dtype(np.float32)}
    vector = ravel_pytree(x32)[0].astype(float)
    others, v = jnp.ones((40, vector.size)), jnp.ones(vector.size)
    out = compiled(row)(params, vector, jnp.asarray(0.7), others, v)
    for a, b in zip(got, (out["p"], out["value"], out["envelope"]), strict=True):
        np.testing.assert_allclose(ravel_pytree(a)[0], np.ravel(b), rtol=2e-5, atol=2e-5)


ENTRIES = [row for row in TABLE if row.vector(*row.params).separable and row.shape == (N,)]


@pytest.mark.parametrize("row", ENTRIES, ids=str)
def test_separable_prox_is_what_a_search_of_each_entry_finds(row, rng):
    x = np.asarray(row.draw(rng))
    steps = rng.uniform(0.3, 2, size=N)
    f = row.make(*row.params)
    p = np.asarray(f.prox(jnp.asarray(x), jnp.asarray(steps)))  # a step for each entry
    value = jax.jit(jax.vmap(f.value))
    for i in range(N):
        s = p[i] + np.concatenate([[0], np.geomspace(1e-5, 10, 300), -np.geomspace(1e-5, 10, 300)])
        points = np.tile(p, (len(s), 1))
        points[:, i] = s
        objective = value(jnp.asarray(points)) + (s - x[i]) ** 2 / (2 * steps[i])
        assert np.argmin(objective) == 0 or objective[0] <= np.min(objective) + 1e-12


def total_variation_by_box(x, weight):
    """x - D'u for the u of min ||D'u - x|| in a box: the dual, by SciPy."""
    D = np.diff(np.eye(len(x)), axis=0)
    dual = scipy.optimize.lsq_linear(D.T, x, (-weight - 1e-300, weight), "bvls", tol=1e-15)
    return x - D.T @ dual.x


def test_total_variation_equals_its_dual_by_scipy_and_sums_their_compositions(rng):
    for n in (2, 3, 8, 25):
        x, weight = 2 * rng.normal(size=n), rng.exponential(size=n - 1)
        p = of.TotalVariation(weight).prox(jnp.asarray(x), 0.5)
        expected = total_variation_by_box(x, 0.5 * weight)
        np.testing.assert_allclose(p, expected, atol=1e-12)
        fused = (of.TotalVariation(weight) + of.L1(0.3)).prox(jnp.asarray(x), 0.5)
        soft = np.sign(expected) * np.maximum(np.abs(expected) - 0.15, 0)
        np.testing.assert_allclose(fused, soft, atol=1e-12)


denoised = jax.jit(lambda x, w: of.TotalVariation(w).prox(x))
SIGNALS = {
    "steps": lambda rng, n: np.repeat(rng.normal(size=n // 50), 50) + 0.3 * rng.normal(size=n),
    "walk": lambda rng, n: np.cumsum(rng.normal(size=n)),
    "integers": lambda rng, n: rng.integers(0, 4, size=n).astype(float),
    "ramp": lambda rng, n: np.linspace(0, 10, n),
    "constant": lambda rng, n: np.full(n, 3.7),
}


@pytest.mark.parametrize("signal", SIGNALS)
def test_total_variation_of_10000_entries_is_certified_by_its_dual(signal, rng):
    n = 10_000
    x = SIGNALS[signal](rng, n)
    for weight in (0.01, 1.0, 30.0, np.inf):
        p = np.asarray(denoised(jnp.asarray(x), weight))
        u = np.cumsum(x - p)  # of D'u = x - p, u = -weight at rises, weight at falls
        rounding = 1e-13 * n**0.5 * (1 + np.max(np.abs(x))) ** 2
        assert np.max(np.abs(u[:-1])) <= weight + rounding
        assert abs(u[-1]) <= n * 1e-15 * (1 + np.max(np.abs(x)))
        rises = np.sign(np.diff(p))
        if np.isfinite(weight):
            assert np.max(np.abs(u[:-1] + weight * rises)[rises != 0], initial=0) <= rounding
        else:
            np.testing.assert_allclose(p, np.mean(x), rtol=1e-12)


def test_derivatives_of_the_nuclear_norm_where_singular_values_are_equal_or_zero(rng):
    f = of.Nuclear(0.5)
    U, V = np.linalg.qr(rng.normal(size=(4, 3)))[0], np.linalg.qr(rng.normal(size=(3, 3)))[0]
    along = jnp.asarray(rng.normal(size=(4, 3)))
    push = jax.jit(lambda x: jax.jvp(f.prox, (x,), (along,)))
    for values in ([2, 2, 1], [2, 2, 2], [2, 2, 0], [2, 0, 0], [0.2, 0.2, 0], [3, 0.1, 0.1]):
        x = jnp.asarray(U @ np.diag(np.array(values, float)) @ V.T)
        h = 1e-6
        difference = (push(x + h * along)[0] - push(x - h * along)[0]) / (2 * h)
        np.testing.assert_allclose(push(x)[1], difference, atol=1e-8)


def test_a_weight_of_zero_leaves_x_and_its_derivative_alone():
    zero = jnp.zeros(4)
    groups = np.array([0, 0, 1, 1])
    fs = (of.L1(0.0), of.L2(0.0), of.Linf(0.0), of.GroupLasso(groups, 0.0), of.TotalVariation(0.0))
    for J in jax.jit(lambda x: [jax.jacfwd(f.prox)(x) for f in fs])(zero):
        np.testing.assert_array_equal(J, np.eye(4))


WRONG = [
    (lambda: of.L1(-1.0), ValueError, r"L1\(weight=...\) must be >= 0 everywhere, but -1.0"),
    (lambda: of.Entropy(0.0), ValueError, "must be > 0"),
    (lambda: of.Box(1.0, -1.0), ValueError, "lower <= upper everywhere"),
    (lambda: of.Box(np.zeros(3), [1.0, -1.0]), ValueError, "lower <= upper everywhere"),
    (lambda: of.Box(np.zeros(3), np.ones(2)).prox(jnp.ones(3)), ValueError, "must have shape"),
    (lambda: of.L1(np.ones(3)).prox(jnp.ones(4)), ValueError, "`weight` must have shape"),
    (lambda: of.GroupLasso([0.5, 1.0]), TypeError, "must hold integers"),
    (lambda: of.GroupLasso(np.array([0, 1])).prox(jnp.ones(3)), ValueError, "a label for each"),
    (lambda: of.GroupLasso(np.array([0, 2]), np.ones(2)).prox(jnp.ones(2)), ValueError, "below 2"),
    (lambda: of.Nuclear().prox(jnp.ones(3)), ValueError, "2 axes"),
    (lambda: of.Quadratic(-np.eye(2)), ValueError, "positive semidefinite"),
    (lambda: of.Quadratic(np.ones((2, 3))), ValueError, "square"),
    (lambda: 0.0 * of.L1(), ValueError, "must be > 0"),
    (lambda: of.Rescaled(of.L1(), 0.0), ValueError, "must not be 0"),
    (lambda: of.Rescaled(of.L2(), np.ones(2)).prox(jnp.ones(2)), ValueError, "not a sum over"),
    (lambda: (of.L1() + of.Linf()).prox(jnp.ones(2)), NotImplementedError, "ADMM or CondatVu"),
    (lambda: of.Composed(of.L1(), np.ones((2, 3))).prox(jnp.ones(3)), NotImplementedError, "ADMM"),
    (lambda: of.Composed(of.L1(), np.ones(3)), ValueError, "Rescaled"),
    (lambda: of.Scaled(1.0, 2.0), TypeError, "a function of `jol.prox`"),
    (lambda: of.SeparableSum((of.L1(),)).prox((1.0, 2.0)), ValueError, "a part for each"),
    (lambda: of.Custom(3, 4), TypeError, "must be a function"),
    (lambda: of.Custom(jnp.sum, lambda x, t: x[:1]).prox(jnp.ones(3)), ValueError, "like x"),
    (lambda: of.Custom(lambda x: x, lambda x, t: x).value(jnp.ones(3)), ValueError, "one number"),
    (lambda: of.overlapping_groups([[0.5]]), ValueError, "indices"),
    (lambda: of.L1().prox(jnp.arange(3)), TypeError, "floating"),
]


@pytest.mark.parametrize(("make", "kind", "match"), WRONG)
def test_what_is_wrong_is_refused_with_a_way_out(make, kind, match):
    with pytest.raises(kind, match=match):
        make()


def test_what_is_wrong_and_traced_is_nan():
    scaled = lambda w: of.Scaled(w, of.L1())
    for make in (of.L1, of.L2, of.Linf, of.Huber, of.Hinge, of.TotalVariation, of.Simplex, scaled):
        f = lambda w, make=make: make(w).prox(jnp.ones(3))
        both = jax.jit(jax.vmap(f))(jnp.array([1.0, -1.0]))
        assert np.all(np.isfinite(both[0]))
        assert np.all(np.isnan(both[1]))


def test_maps_of_overlapping_groups_and_differences_are_there_for_splitting(rng):
    f = of.overlapping_groups([[0, 1, 2], [2, 3]], np.array([1.0, 2.0]))
    x = {"a": jnp.asarray(rng.normal(size=2)), "b": jnp.asarray(rng.normal(size=2))}
    v = np.concatenate([x["a"], x["b"]])
    expected = np.linalg.norm(v[:3]) + 2 * np.linalg.norm(v[2:])
    np.testing.assert_allclose(f.value(x), expected)
    g = f.on_vector(Form.of(x))
    y = jnp.asarray(rng.normal(size=5))
    np.testing.assert_allclose(g.apply(jnp.asarray(v)), v[[0, 1, 2, 2, 3]])
    np.testing.assert_allclose(g.transpose(y) @ v, y @ g.apply(jnp.asarray(v)))
    with pytest.raises(NotImplementedError, match="CondatVu"):
        f.prox(x)


def test_images_against_the_dual_by_scipy_and_to_the_stated_error(rng):
    x = rng.normal(size=(4, 5))
    D = np.asarray(jax.jacobian(lambda x: total_variation._slopes(x).ravel())(jnp.asarray(x)))
    D = D.reshape(40, 20)[np.any(D.reshape(40, 20) != 0, axis=1)]
    dual = scipy.optimize.lsq_linear(D.T, x.ravel(), (-0.3, 0.3), "bvls", tol=1e-15)
    expected = x.ravel() - D.T @ dual.x
    spread = np.linalg.norm(x - np.mean(x))
    for tol in (1e-2, 1e-5, 1e-8):
        f = of.TotalVariation2D(0.3, tol=tol, isotropic=False)
        p = np.asarray(f.prox(jnp.asarray(x)))
        assert np.linalg.norm(p.ravel() - expected) <= 1.01 * tol * spread
    f = of.TotalVariation2D(0.6, tol=1e-10)  # the step makes 0.3 of it
    p = f.prox(jnp.asarray(x), 0.5)
    y = (x - p) / 0.5
    np.testing.assert_allclose(f.value(p), jnp.sum(p * y), atol=1e-8)  # f is homogeneous
    others = jnp.asarray(rng.normal(size=(500, 4, 5)))
    assert np.all(jax.vmap(f.value)(others) >= jnp.sum(others * y, axis=(1, 2)) - 1e-8)
    np.testing.assert_allclose(f.nearest_subgradient(p, y), y, atol=1e-7)
    # A smaller variation than that along the axes, and a flat image from a large weight
    assert float(f.value(p)) <= float(of.TotalVariation2D(0.6, isotropic=False).value(p))
    flat = of.TotalVariation2D(100.0).prox(jnp.asarray(x))
    np.testing.assert_allclose(flat, np.mean(x), atol=1e-5 * spread)


@pytest.mark.parametrize("isotropic", [True, False])
def test_derivatives_of_images(isotropic, rng):
    x, dx = jnp.asarray(rng.normal(size=(4, 5))), jnp.asarray(rng.normal(size=(4, 5)))
    make = lambda w: of.TotalVariation2D(w, tol=1e-12, isotropic=isotropic, max_steps=20_000)
    prox = lambda x, w: make(w).prox(x)
    push = jax.jit(lambda x, w: jax.jvp(prox, (x, w), (dx, jnp.ones_like(w))))
    w, h = jnp.asarray(0.2), 1e-5
    _, along = push(x, w)
    difference = (push(x + h * dx, w + h)[0] - push(x - h * dx, w - h)[0]) / (2 * h)
    np.testing.assert_allclose(along, difference, atol=1e-6)
    bars = jax.jit(jax.grad(lambda x, w: jnp.sum(dx * prox(x, w)), (0, 1)))(x, w)
    np.testing.assert_allclose(jnp.sum(bars[0] * dx) + bars[1], jnp.sum(along * dx), rtol=1e-8)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: jnp.sum(prox(x, w))))(jnp.zeros((4, 5)))))


def test_an_image_is_denoised_in_a_batch_and_in_float32(rng):
    clean = np.zeros((24, 24))
    clean[6:16, 4:20] = 1
    x = jnp.asarray(clean + 0.15 * rng.normal(size=(3, 24, 24)), jnp.float32)
    p = jax.jit(jax.vmap(of.TotalVariation2D(0.15).prox))(x)
    assert p.dtype == jnp.float32
    p = np.asarray(p)
    # The noise falls to less than a half of what it was.
    assert np.sqrt(np.mean((p - clean) ** 2)) < 0.075
    alone = of.TotalVariation2D(0.15).prox(x[1])
    np.testing.assert_allclose(p[1], alone, atol=1e-5)


def test_public_names_are_documented_with_their_arguments():
    for name in of.__all__:
        thing = getattr(of, name)
        assert thing.__doc__, name
        if isinstance(thing, type) and thing not in (of.Proximable, of.Custom):
            for field in dataclasses.fields(thing):
                assert f"{field.name}:" in thing.__doc__, (name, field.name)
