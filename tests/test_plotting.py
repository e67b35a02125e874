"""Pictures show the numbers that they are said to show."""

import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest

import jaxopt_lite as jol

mpl.use("Agg")
import matplotlib.pyplot as plt


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def lines(ax):
    return {line.get_label(): line.get_xydata().T for line in ax.lines}


def test_prox_of_a_number_is_soft_thresholding(ax):
    assert jol.plotting.prox(jol.prox.L1(2.0), -4, 4, steps=(0.5, 1.0), ax=ax) is ax
    drawn = lines(ax)
    np.testing.assert_array_equal(*drawn["x"])
    for step in (0.5, 1.0):
        x, y = drawn[f"prox, step {step:g}"]
        np.testing.assert_allclose(y, np.sign(x) * np.maximum(np.abs(x) - 2 * step, 0), atol=1e-12)


def test_envelope_is_finite_where_the_function_is_not(ax):
    jol.plotting.envelope(jol.prox.Box(-1.0, 1.0), -3, 3, steps=(0.5,), ax=ax)
    drawn = lines(ax)
    x, y = drawn["envelope, step 0.5"]
    np.testing.assert_allclose(y, np.maximum(np.abs(x) - 1, 0) ** 2, atol=1e-12)
    x, y = drawn["f"]
    np.testing.assert_array_equal(np.isnan(y), np.abs(x) > 1 + 1e-9)


@pytest.mark.parametrize("count", [2, 12])
def test_path_names_its_curves(ax, count):
    t = jnp.linspace(1.0, 2.0, 5)
    names = [f"feature {k}" for k in range(count)]
    curves = t[:, None] * jnp.arange(float(count))
    jol.plotting.path(t, curves, xlabel="t", ylabel="w", labels=names, ax=ax)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == names
    assert len({mpl.colors.to_hex(line.get_color()) for line in ax.lines[:count]}) == count
    np.testing.assert_allclose(lines(ax)["feature 1"], [t, t], rtol=1e-6)
    assert ax.get_xscale() == "log"


def test_margins_shows_the_surface_and_the_three_cases(ax):
    # By symmetry: f(x) = x_1, and only the first two rows are needed.
    X = jnp.array([[-1.0, 0.0], [1.0, 0.0], [-2.0, 1.0], [2.0, -1.0], [3.0, 1.0]])
    y = jnp.array([-1, 1, -1, 1, 1])
    machine = jol.learning.svc(X, y, 10.0)
    assert jol.plotting.margins(machine, X, y, ax=ax) is ax
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "outside (3)", "free (2)", "bound (0)"
    ]  # fmt: skip
    lines_ = [c for c in ax.collections if list(getattr(c, "levels", [])) == [-1, 0, 1]]
    assert len(lines_) == 1
    for level, line in zip((-1, 0, 1), lines_[0].get_paths(), strict=True):
        np.testing.assert_allclose(line.vertices[:, 0], level, atol=1e-5)
    drawn = [
        c.get_offsets() for c in ax.collections if isinstance(c, mpl.collections.PathCollection)
    ]
    free = np.concatenate(drawn[2:4])
    np.testing.assert_array_equal(free[np.argsort(free[:, 0])], X[:2])
