"""Searches of boxes whose critical points are known: all are found, none is invented."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxopt_lite as jol
from jaxopt_lite import Kind

# -- functions, and their critical points from elsewhere -------------------------------------------


def himmelblau(x):
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


def camel(x):
    return (
        (4 - 2.1 * x[0] ** 2 + x[0] ** 4 / 3) * x[0] ** 2
        + x[0] * x[1]
        + 4 * (x[1] ** 4 - x[1] ** 2)
    )


def camel_points():
    """grad = 0 gives y as a polynomial of x, and that into the other equation degree 15 in x."""
    x = np.polynomial.Polynomial([0.0, 1.0])
    y = -(8 * x - 8.4 * x**3 + 2 * x**5)
    roots = (x - 8 * y + 16 * y**3).roots()
    real = roots.real[np.abs(roots.imag) < 1e-6]
    return np.stack([real, y(real)], axis=1)


def rastrigin(x):
    return jnp.sum(10 + x**2 - 10 * jnp.cos(2 * jnp.pi * x))


def rastrigin_points():
    """Products of the zeros of 2 x + 20 pi sin(2 pi x) in [-2.2, 2.2], by bisection."""
    slope = lambda x: 2 * x + 20 * np.pi * np.sin(2 * np.pi * x)
    grid = np.linspace(-2.2, 2.2, 10_000)
    at = np.flatnonzero(np.sign(slope(grid[:-1])) != np.sign(slope(grid[1:])))
    low, high = grid[at], grid[at + 1]
    for _ in range(60):
        middle = (low + high) / 2
        left = np.sign(slope(middle)) == np.sign(slope(low))
        low, high = np.where(left, middle, low), np.where(left, high, middle)
    return np.stack(np.meshgrid(low, low), axis=-1).reshape(-1, 2)


def three_holes(z):
    """Metzner, Schuette & Vanden-Eijnden (2006), section IV."""
    x, y = z
    far = lambda a, b: jnp.exp(-((x - a) ** 2) - (y - b) ** 2)
    holes = 3 * far(0, 1 / 3) - 3 * far(0, 5 / 3) - 5 * far(1, 0) - 5 * far(-1, 0)
    return holes + 0.2 * x**4 + 0.2 * (y - 1 / 3) ** 4


def mueller_brown(z):
    """Mueller & Brown (1979)."""
    x, y = z
    terms = [
        (-200, -1, 0, -10, 1, 0),
        (-100, -1, 0, -10, 0, 0.5),
        (-170, -6.5, 11, -6.5, -0.5, 1.5),
        (15, 0.7, 0.6, 0.7, -1, 1),
    ]
    return sum(
        size * jnp.exp(a * (x - u) ** 2 + b * (x - u) * (y - v) + c * (y - v) ** 2)
        for size, a, b, c, u, v in terms
    )


def rotation(n):
    return np.linalg.qr(np.random.default_rng(0).normal(size=(n, n)))[0]


def wells(x, tilt):
    """Double wells (w^2 - 1)^2 + t w along the first directions, bowls along the others, rotated.

    `tilt` (k,), different in each direction, so that all 3^k values are different.
    """
    y = jnp.asarray(rotation(x.shape[0]), x.dtype) @ x
    w, bowl = y[: tilt.shape[0]], y[tilt.shape[0] :]
    return jnp.sum((w**2 - 1) ** 2 + tilt * w) + jnp.sum(bowl**2)


def wells_points(n, tilt):
    """Products of the three roots of 4 w^3 - 4 w + t = 0, and zeros."""
    roots = [np.sort(np.roots([4.0, 0.0, -4.0, t]).real) for t in tilt]
    grid = np.stack(np.meshgrid(*roots), axis=-1).reshape(-1, len(tilt))
    flat = np.concatenate([grid, np.zeros((len(grid), n - len(tilt)))], axis=1)
    return flat @ rotation(n)


TILT = np.array([0.1, 0.15, 0.23])
CLOSE = 1e-4  # how far apart are two minima with a saddle between

# Functions of as many variables as the key says, by name. All of one key are one function with a
# number in `args`, so that one program is compiled for them and not thirty.
ZOO = {
    2: {
        "Himmelblau": himmelblau,
        "six-hump camel": camel,
        "Rastrigin": rastrigin,
        "three holes": three_holes,
        "Mueller-Brown": mueller_brown,
        # no critical point in the box
        "plane": lambda x: x[0] + 2 * x[1],
        "exponential": lambda x: jnp.exp(x[0]) + x[1] ** 2,
        "no root": lambda x: x[0] ** 3 + x[0] + x[1] ** 2,  # |grad f| has a minimum, 1, at 0
        "outside": lambda x: (x[0] - 3) ** 2 + x[1] ** 2,
        # a continuum
        "straight valley": lambda x: (x[0] + x[1] - 1) ** 2,
        "circle": lambda x: (x @ x - 1) ** 2,
        "constant": lambda x: 0 * x[0] + 1,
        "two valleys": lambda x: (x[0] ** 2 - 1) ** 2 + 0.3 * x[0] + 0 * x[1],
        # isolated and degenerate: the gradient is of order 3, 2, 7, and 3 but all cancellation
        "quartic": lambda x: jnp.sum(x**4),
        "monkey saddle": lambda x: x[0] ** 3 - 3 * x[0] * x[1] ** 2,
        "eighth power": lambda x: jnp.sum(x**8),
        "expanded quartic": lambda x: (
            x[0] ** 4 - 4 * x[0] ** 3 + 6 * x[0] ** 2 - 4 * x[0] + x[1] ** 2
        ),
        "two quartics": lambda x: (x[0] ** 2 - 1) ** 4 + x[1] ** 2,
        # hard to see
        "close": lambda x: (x[0] ** 2 - CLOSE**2) ** 2 / CLOSE**2 + x[1] ** 2,
        "plain": lambda x: -jnp.exp(-0.5 * x @ x),
        "root": lambda x: x[0] - jnp.sqrt(x[0]) + x[1] ** 2,
        "bent": lambda x: x[0] ** 4 / 4 - x[0] ** 2 / 2 + 0.5 * x[0] + x[1] ** 2,
        "bowl": lambda x: x @ x,
    },
    3: {
        "wells 3-D": lambda x: wells(x, jnp.asarray(TILT, x.dtype)),
        "sphere": lambda x: (x @ x - 1) ** 2,
        "quartic valley": lambda x: x[0] ** 4 + 0 * x[1] + x[2] ** 2,
        "ridge of saddles": lambda x: x[0] ** 2 - x[1] ** 2 + 0 * x[2],
    },
    6: {"wells 6-D": lambda x: wells(x, jnp.asarray(TILT, x.dtype))},
}
NUMBER = {name: (n, i) for n, row in ZOO.items() for i, name in enumerate(row)}


def zoo(x, number):
    return jax.lax.switch(number, list(ZOO[x.shape[0]].values()), x)


@functools.cache
def found(name, dtype=np.float64, lower=-2.0, upper=2.0):
    n, number = NUMBER[name]
    lower, upper = (np.broadcast_to(np.array(side, dtype), n) for side in (lower, upper))
    return jol.find_critical_points(zoo, lower, upper, (np.int32(number),))


def search(fun, width=2.0, n=2, **options):
    return jol.find_critical_points(fun, np.full(n, -width), np.full(n, width), **options)


def accounted(result):
    """Every start ended somewhere, and is counted once."""
    lost = result.outside + result.unresolved + result.nonfinite
    return int(jnp.sum(result.hits)) + lost == result.starts


def matched(ours, theirs, atol):
    """The two sets of points (k, n) are the same, one to one."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    apart = np.max(np.abs(ours[:, None] - theirs[None]), axis=2) <= atol
    return len(ours) == len(theirs) and np.all(apart.sum(0) == 1) and np.all(apart.sum(1) == 1)


# -- everything is found ---------------------------------------------------------------------------

# name: lower, upper, how many (minima, saddles, maxima), where
CASES = {
    "Himmelblau": ((-5, -5), (5, 5), (4, 4, 1), None),
    "six-hump camel": ((-3, -2), (3, 2), (6, 7, 2), camel_points),
    "Rastrigin": ((-2.2, -2.2), (2.2, 2.2), (25, 40, 16), rastrigin_points),
    "three holes": ((-2, -1.5), (2, 2.5), (3, 3, 1), None),
    "Mueller-Brown": ((-1.5, -0.5), (1.2, 2.0), (3, 2, 0), None),
    "wells 3-D": (-2, 2, (8, 18, 1), lambda: wells_points(3, TILT)),
    "wells 6-D": (-2, 2, (8, 19, 0), lambda: wells_points(6, TILT)),
}
# Newton's steps end at rounding. Where |g| is off by 1e-15 of its size over the box and the
# Hessian 1e2 softer than typical, that moves a point by 1e-13 boxes; in float32 by 1e-4.
ATOL = {np.float64: 1e-9, np.float32: 2e-3}
PRECISIONS = pytest.mark.parametrize("dtype", [np.float64, np.float32], ids=["float64", "float32"])


def case(name, dtype=np.float64):
    return found(name, dtype, *CASES[name][:2])


@PRECISIONS
@pytest.mark.parametrize("name", CASES)
def test_all_critical_points_are_found_and_no_others(name, dtype):
    _, _, counts, known = CASES[name]
    result = case(name, dtype)
    kinds = (Kind.STRICT_MINIMUM, Kind.SADDLE, Kind.STRICT_MAXIMUM)
    assert tuple(len(result.only(kind).kind) for kind in kinds) == counts
    assert len(result) == sum(counts) == len(result.points.kind)
    assert result.points.x.dtype == result.points.value.dtype == dtype
    assert not np.any(result.continuum)
    assert np.all(np.diff(result.points.value) >= 0)
    assert accounted(result)
    assert int(jnp.min(result.hits)) >= 5  # none was found by luck
    if known is not None:
        assert matched(result.points.x, known(), ATOL[dtype])


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_is_zero_and_the_hessian_is_as_said(name):
    # From the definition, and not by the tolerances of the search: |H^-1 g| is rounding.
    fun = ZOO[NUMBER[name][0]][name]
    points = case(name).points
    gradient = jax.vmap(jax.grad(fun))(points.x)
    hessian = jax.vmap(jax.hessian(fun))(points.x)
    off = jnp.linalg.solve(hessian, gradient[..., None])
    assert jnp.max(jnp.abs(off)) <= 1e-12 * np.max(np.subtract(*CASES[name][1::-1]))
    index = jnp.sum(jnp.linalg.eigvalsh(hessian) < 0, axis=1)
    np.testing.assert_array_equal(index, points.morse_index)


@pytest.mark.parametrize("name", CASES)
def test_indices_sum_to_the_euler_characteristic_of_space(name):
    # Morse: f -> infinity in all directions, all critical points nondegenerate and in the box. Of
    # Rastrigin's the box has 5 minima and 4 maxima an axis: (5 - 4)^2 = 1 as well.
    assert case(name).index_sum == 1


def test_indices_of_a_part_of_the_critical_points_do_not():
    half = found("Himmelblau", np.float64, (0, -5), (5, 5))
    # Minima (3, 2) and (3.58, -1.85), saddles (3.39, 0.07) and (0.09, 2.88).
    np.testing.assert_array_equal(half.points.morse_index, [0, 0, 1, 1])
    assert half.index_sum == 0
    assert half.outside > 0
    assert accounted(half)


def test_published_values_of_mueller_and_brown():
    points = case("Mueller-Brown").points
    # Mueller & Brown (1979) to three digits after the point; the energies as commonly quoted.
    table = [(-0.558, 1.442), (0.623, 0.028), (-0.050, 0.467), (0.212, 0.293), (-0.822, 0.624)]
    np.testing.assert_allclose(points.x, table, atol=6e-4)
    energies = [-146.700, -108.167, -80.768, -72.249, -40.665]
    np.testing.assert_allclose(points.value, energies, atol=6e-4)
    np.testing.assert_array_equal(points.morse_index, [0, 0, 0, 1, 1])


def test_published_places_of_the_three_hole_potential():
    points = case("three holes").points
    # "minima approximately at (+-1, 0) and (0, 1.5), saddles at (+-0.6, 1.1) and (0, -0.4), a
    # maximum at (0, 0.5)": one digit, so within 0.1.
    table = {0: [(-1, 0), (1, 0), (0, 1.5)], 1: [(-0.6, 1.1), (0.6, 1.1), (0, -0.4)], 2: [(0, 0.5)]}
    for index, places in table.items():
        at = np.asarray(points.x)[np.asarray(points.morse_index) == index]
        assert matched(at, np.array(places, float), 0.1)


def test_known_minima_of_himmelblau():
    minima = case("Himmelblau").only(Kind.STRICT_MINIMUM)
    table = [(3, 2), (-2.805118, 3.131313), (-3.779310, -3.283186), (3.584428, -1.848127)]
    assert matched(minima.x, np.array(table), 1e-6)
    np.testing.assert_allclose(minima.value, 0, atol=1e-20)


@pytest.mark.parametrize("name", ["six-hump camel", "three holes"])
def test_a_symmetric_function_has_symmetric_points(name):
    mirror = np.array([-1, -1]) if name == "six-hump camel" else np.array([-1, 1])
    points = np.asarray(case(name).points.x)
    assert matched(mirror * points, points, 1e-12)


# -- what is not there, and what is not isolated ---------------------------------------------------


@pytest.mark.parametrize("name", ["plane", "exponential", "no root", "outside"])
def test_no_critical_point_in_the_box(name):
    result = found(name)
    assert len(result) == 0
    assert result.points.x.shape == (0, 2)
    assert result.hits.shape == result.continuum.shape == (0,)
    assert result.outside + result.unresolved == result.starts == 1000
    assert str(result).startswith("0 critical points in the box")


def test_a_minimum_of_the_gradients_norm_is_not_a_critical_point():
    # grad = x^3 - x + 0.5 has one root; its square has a minimum at 1/sqrt(3) besides.
    result = found("bent")
    assert len(result) == 1
    x, y = result.points.x[0]
    np.testing.assert_allclose(x**3 - x, -0.5, atol=1e-14)
    np.testing.assert_allclose(y, 0, atol=1e-14)
    assert result.unresolved > 100


CONTINUA = {  # the value, zero eigenvalues there, isolated points besides
    "straight valley": (0.0, 1, 0),
    "circle": (0.0, 1, 1),
    "constant": (1.0, 2, 0),
    "sphere": (0.0, 2, 1),
    "quartic valley": (0.0, 2, 0),
    "ridge of saddles": (0.0, 1, 0),
}


@PRECISIONS
@pytest.mark.parametrize("name", CONTINUA)
def test_a_continuum_is_one_row_and_flagged(name, dtype):
    value, zeros, isolated = CONTINUA[name]
    result = found(name, dtype)
    assert len(result) == 1 + isolated
    assert result.continuum.tolist() == [True] + [False] * isolated
    assert int(result.points.zero[0]) == zeros
    np.testing.assert_allclose(result.points.value[0], value, atol=1e-10)
    assert int(result.hits[0]) > 800
    assert result.index_sum is None
    assert "one of a continuum" in str(result)
    assert accounted(result)


def test_two_valleys_of_different_depth_are_two():
    result = found("two valleys")
    assert result.continuum.tolist() == [True, True, True]  # and the ridge between
    np.testing.assert_array_equal(result.points.morse_index, [0, 0, 1])


ISOLATED = {
    "quartic": (0, 0),
    "monkey saddle": (0, 0),
    "eighth power": (0, 0),
    "expanded quartic": (1, 0),
}


@PRECISIONS
@pytest.mark.parametrize("name", ISOLATED)
def test_an_isolated_degenerate_point_is_one_and_no_continuum(name, dtype):
    result = found(name, dtype, -2.0, 3.0)
    assert len(result) == 1
    assert int(result.points.kind[0]) == Kind.DEGENERATE
    assert not bool(result.continuum[0])
    # The cube root of rounding is 3e-5 and 2e-2 of the box; some room for the seventh.
    atol = 0.1 if dtype == np.float32 else 5e-3
    np.testing.assert_allclose(result.points.x[0], ISOLATED[name], atol=atol)
    assert int(result.hits[0]) > 800
    assert accounted(result)


def test_two_degenerate_minima_of_one_value_stay_two():
    result = found("two quartics")
    assert len(result) == 3  # and the saddle at 0
    at = result.points.x[result.points.kind == Kind.DEGENERATE]
    assert matched(at, np.array([[-1.0, 0.0], [1.0, 0.0]]), 5e-3)
    assert not np.any(result.continuum)


def test_close_points_are_told_apart():
    # Two minima and a saddle within 2e-4 of a box of width 4.
    result = found("close")
    assert matched(result.points.x, np.array([[-CLOSE, 0.0], [0.0, 0.0], [CLOSE, 0.0]]), 1e-9)
    assert sorted(result.points.morse_index.tolist()) == [0, 0, 1]


def test_a_plain_around_a_well_gives_no_points():
    result = found("plain", np.float64, -10.0, 10.0)
    assert len(result) == 1
    np.testing.assert_allclose(result.points.x, [[0, 0]], atol=1e-12)
    assert result.unresolved > 900  # from most starts the gradient falls all the way out


def test_where_the_objective_is_not_defined_is_counted():
    # No value for x < 0: half of the starts; the others find (1/4, 0).
    result = found("root")
    assert len(result) == 1
    np.testing.assert_allclose(result.points.x[0], [0.25, 0.0], atol=1e-12)
    assert 490 <= result.nonfinite <= 510
    assert accounted(result)


def test_boundary_points_are_in_the_box():
    result = found("bowl", np.float64, 0.0, 1.0)
    assert len(result) == 1
    assert result.outside == 0


# -- units, structures, seeds ----------------------------------------------------------------------


def in_units(x, scale, unit):
    return scale * himmelblau(x / unit)


@pytest.mark.parametrize(
    ("scale", "unit"), [(1e-12, 1e5), (1e12, 1e5), (1e-12, 1e-5), (1e12, 1e-5), (1, (1e-3, 1e3))]
)
def test_units_do_not_matter(scale, unit):
    unit = np.broadcast_to(np.array(unit), 2)
    result = jol.find_critical_points(in_units, -5 * unit, 5 * unit, (float(scale), unit))
    known = case("Himmelblau")
    assert matched(result.points.x / unit, known.points.x, 1e-9)
    np.testing.assert_array_equal(result.points.kind, known.points.kind)


def test_pytrees_args_and_aux():
    def fun(x, shift):
        return himmelblau(jnp.stack([x["a"] - shift, x["b"][0]])), {"extra": x["a"]}

    lower = {"a": np.array(-4.0), "b": np.array([-5.0])}
    upper = {"a": np.array(6.0), "b": np.array([5.0])}
    result = jol.find_critical_points(fun, lower, upper, (1.0,), has_aux=True)
    x = result.points.x
    assert x["a"].shape == (9,)
    assert x["b"].shape == (9, 1)
    flat = np.stack([np.asarray(x["a"]) - 1, np.asarray(x["b"])[:, 0]], axis=1)
    assert matched(flat, case("Himmelblau").points.x, 1e-10)
    saddles = result.only(Kind.SADDLE)
    assert saddles.x["b"].shape == (4, 1)
    assert jax.tree.structure(saddles.descent) == jax.tree.structure(lower)
    assert str(result).startswith("9 critical points in the box: 4 minima, 4 saddles, 1 maximum")


def test_the_same_key_gives_the_same_answer_and_another_key_the_same_points():
    box = np.full(2, 5.0)
    args = (np.int32(NUMBER["Himmelblau"][1]),)
    first = case("Himmelblau")
    again = jol.find_critical_points(zoo, -box, box, args, key=jax.random.key(0))
    other = jol.find_critical_points(zoo, -box, box, args, key=jax.random.key(1))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert matched(first.points.x, other.points.x, 1e-12)
    assert first.hits.tolist() != other.hits.tolist()


def test_starts_cover_the_box_evenly():
    # Each of 10 x 10 cells gets its ten of a thousand starts: a random sample leaves some with 3.
    from jaxopt_lite.certify.critical_points import _spread
    from jaxopt_lite.linalg import Form

    u = np.asarray(_spread(1000, Form.of(np.zeros(2)), None))
    cells, _, _ = np.histogram2d(*u.T, bins=10, range=[[-1, 1], [-1, 1]])
    assert cells.sum() == 1000
    assert cells.min() >= 7
    assert cells.max() <= 13


def test_five_thousand_starts_are_one_program_compiled_once(compilations):
    traces = 0

    def fun(x, p):
        nonlocal traces
        traces += 1
        return himmelblau(x) + p * x[0]

    lower, upper = np.full(2, -5.0), np.full(2, 5.0)
    first = jol.find_critical_points(fun, lower, upper, (0.0,), starts=5000)
    assert len(first) == 9
    assert int(jnp.sum(first.hits)) == 5000
    with compilations() as count:
        second = jol.find_critical_points(fun, 0.9 * lower, 0.9 * upper, (1.0,), starts=5000)
    assert len(second) == 9
    assert count.programs == 0
    assert traces == 1


def test_the_table_is_readable():
    lines = str(case("Himmelblau")).splitlines()
    assert lines[0] == "9 critical points in the box: 4 minima, 4 saddles, 1 maximum"
    assert lines[1].split() == ["value", "index", "hits", "kind", "x"]
    assert len(lines) == 2 + 9 + 2
    assert lines[-3].split()[:2] == ["181.6165", "2"]
    assert lines[-2].startswith("1000 starts: 1000 ended at these")
    assert lines[-1].startswith("sum of (-1)^index: 1 ")
    long = str(case("Rastrigin"))
    assert "... and 41 more" in " ".join(long.split())


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: search(himmelblau, -2.0), ValueError, "`lower` must be below `upper`"),
        (lambda: search(himmelblau, 0.0), ValueError, "below .* To hold a variable fixed"),
        (lambda: search(himmelblau, np.inf), ValueError, "`lower` must be finite.*range"),
        (lambda: search(himmelblau, np.nan), ValueError, "`lower` must be finite"),
        (lambda: search(himmelblau, starts=0), ValueError, "`starts` must be an integer >= 1"),
        (lambda: search(himmelblau, starts=10.5), ValueError, "`starts` must be an integer"),
        (lambda: search(himmelblau, tol=0.0), ValueError, "`tol` must be a number > 0"),
        (lambda: search(himmelblau, key=3), TypeError, r"`key` must be a `jax.random.key"),
        (lambda: search(himmelblau, args=1.0), TypeError, "`args` must be a tuple"),
        (lambda: search(lambda x: x), TypeError, "real floating scalar"),
        (lambda: search(3), TypeError, "must be a function"),
        (lambda: search(himmelblau, n=3001), ValueError, "3001 variables"),
        (
            lambda: jol.find_critical_points(himmelblau, np.array([-5, -5]), np.array([5.0, 5.0])),
            TypeError,
            "`lower` must be floating",
        ),
        (
            lambda: jol.find_critical_points(himmelblau, np.zeros(2), np.ones(3)),
            ValueError,
            r"structure and shapes of x.*\(2,\).*\(3,\)",
        ),
        (
            lambda: jol.find_critical_points(himmelblau, {"a": 0.0}, {"a": np.inf}),
            ValueError,
            r"`upper\['a'\]` must be finite",
        ),
        (
            lambda: jax.jit(lambda p: search(himmelblau, args=(p,)).hits)(1.0),
            TypeError,
            "runs eagerly",
        ),
        (
            lambda: jax.jit(lambda p: search(lambda x: p * x @ x).hits)(1.0),
            TypeError,
            "runs eagerly",
        ),
        (
            lambda: jax.jit(lambda u: jol.find_critical_points(himmelblau, -u, u).hits)(np.ones(2)),
            TypeError,
            "runs eagerly",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=f"(?s){message}"):
        call()
