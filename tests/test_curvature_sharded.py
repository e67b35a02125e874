"""Rows spread over eight devices: the same eigenvalues, and one collective a product.

The number of devices is fixed when JAX starts, so the work is done in a process of its own, once.
"""

import pytest

from .eight_devices import told_by

PROGRAM = """
import json
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxopt_lite import curvature

rng = np.random.default_rng(0)
X, Y = rng.normal(size=(512, 12)), rng.integers(0, 4, 512)
params = {"w": jnp.asarray(rng.normal(size=(12, 9))), "v": jnp.asarray(rng.normal(size=(9, 4)))}
model = lambda p, rows: jnp.tanh(rows[0] @ p["w"]) @ p["v"]

def entropy(logits, rows):
    picked = jnp.take_along_axis(logits, rows[1][:, None], axis=1)
    return jnp.mean(jax.nn.logsumexp(logits, axis=1) - picked[:, 0])

loss = lambda p, rows: entropy(model(p, rows), rows)
mesh = Mesh(np.array(jax.devices()), ("rows",))
spread = NamedSharding(mesh, PartitionSpec("rows"))
here = tuple(jax.device_put(a, jax.devices()[0]) for a in (X, Y))
there = tuple(jax.device_put(a, spread) for a in (X, Y))

def count(text):
    starts = " all-reduce(", " all-reduce-start("
    return sum(any(start in line for start in starts) for line in text.splitlines())

told = {"devices": len(jax.devices())}
for name, make in {
    "hessian": lambda data, batch: curvature.hessian(loss, params, data=data, batch=batch),
    "gauss_newton": lambda data, batch: curvature.gauss_newton(
        model, entropy, params, data=data, batch=batch
    ),
}.items():
    one, many = make(here, None), make(there, None)
    for kind, op in {"whole": many, "batched": make(there, 128)}.items():
        text = jax.jit(lambda op, v: op.apply(v)).lower(op, jnp.ones(144)).compile().as_text()
        told[f"{name} {kind}"] = [count(text), text.count("all-gather"), text.count("all-to-all")]
    a, b = curvature.eigenpairs(one, 5, tol=1e-10), curvature.eigenpairs(many, 5, tol=1e-10)
    a, b = jax.device_get((a, b))
    told[f"{name} values"] = float(np.max(np.abs(a.values - b.values)) / a.values[-1])
    told[f"{name} converged"] = bool(jnp.all(b.converged))
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict:
    return told_by(PROGRAM)


@pytest.mark.parametrize("name", ["hessian", "gauss_newton"])
def test_one_all_reduce_a_product_and_the_same_eigenvalues(told, name):
    assert told["devices"] == 8
    for kind in ("whole", "batched"):  # 128 rows at a time are 16 on each device
        assert told[f"{name} {kind}"] == [1, 0, 0]
    assert told[f"{name} converged"]
    assert told[f"{name} values"] < 1e-10
