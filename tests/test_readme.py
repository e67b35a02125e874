"""Every Python block of the README runs as it stands, and says what it promises."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture(autouse=True)
def users_settings(monkeypatch):
    """A user's JAX: float32, standard promotion, no window for pictures."""
    import jax
    import matplotlib as mpl

    mpl.use("Agg")
    with (
        jax.experimental.enable_x64(False)
        if not hasattr(jax, "enable_x64")
        else jax.enable_x64(False),
        jax.numpy_dtype_promotion("standard"),
    ):
        yield


def run(block: str) -> dict:
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    return names


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_block_runs(block):
    assert run(block)["jol"].__version__


def test_first_block_shows_solution_certificate_gradient_and_batch(capsys):
    names = run(BLOCKS[0])
    out = capsys.readouterr().out
    assert "CONVERGED" in out
    assert "strict local minimum" in out
    assert "(1000, 2)" in out
    jacobian = names["jax"].jacobian(names["optimum"])(1.0)
    # float32 and a Hessian of condition 2,500: three digits
    np.testing.assert_allclose(jacobian, [0.0, 1.0], atol=5e-3)


def test_derivative_block_agrees_with_itself_and_with_the_closed_form():
    names = run(next(block for block in BLOCKS if "cardano" in block))
    jax, fitted = names["jax"], names["fitted"]
    np.testing.assert_allclose(jax.jacfwd(fitted)(0.1), jax.jacrev(fitted)(0.1), rtol=1e-5)
    # 2 (x - d) + p sinh x = 0  =>  dx/dp = -sinh x / (2 + p cosh x)
    x = fitted(0.1)
    exact = -jnp.sinh(x) / (2 + 0.1 * jnp.cosh(x))
    np.testing.assert_allclose(jax.jacrev(fitted)(0.1), exact, rtol=1e-3)
    slope = jax.grad(names["cardano"], argnums=1)(jnp.array(1.0), 2.0)
    np.testing.assert_allclose(slope, 0.25, rtol=1e-5)
