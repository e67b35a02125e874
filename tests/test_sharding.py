"""Ten thousand small problems in one program, on one device and over eight: the same answers.

The number of devices is fixed when JAX starts, so the work is done in a process of its own, once.
"""

import pytest

from .eight_devices import told_by

PROGRAM = """
import json
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_enable_x64", True)
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import jaxopt_lite as jol
from jaxopt_lite.core import Status

LANES = 10_000
rng = np.random.default_rng(0)
starts = rng.uniform(-2, 2, (LANES, 2))
starts[7] = np.nan                                      # one lane that cannot be solved
curvatures = 10 ** rng.uniform(-1, 2.5, LANES)
centres = rng.uniform(0.5, 1.5, LANES)
starts[11] = [centres[11], centres[11] ** 2]            # one that is solved before it starts

def valley(x, curvature, centre):
    return curvature * (x[1] - x[0] ** 2) ** 2 + (x[0] - centre) ** 2

PROBLEM = jol.Problem(valley)

def run(x0, curvature, centre):
    sol = jol.solve(PROBLEM, x0, (curvature, centre), jol.LBFGS(), tol=1e-8, max_steps=300)
    return sol.x, sol.status, sol.steps

batch = jax.jit(jax.vmap(run))
data = (starts, curvatures, centres)
x, status, steps = map(np.asarray, batch(*(jax.device_put(d, jax.devices()[0]) for d in data)))

mesh = Mesh(np.array(jax.devices()), ("lanes",))
spread = NamedSharding(mesh, PartitionSpec("lanes"))
compiled = batch.lower(*(jax.device_put(d, spread) for d in data)).compile()
out = compiled(*(jax.device_put(d, spread) for d in data))
sx, sstatus, ssteps = map(np.asarray, out)

# Cross-validation of 16 bootstraps, over the devices: 16 x 5 folds x 20 penalties in one call.
rows = rng.standard_normal((60, 4))
score = rows @ [1.0, -1.0, 0.5, 0.0] + rng.standard_normal(60)
counts = rng.multinomial(60, np.full(60, 1 / 60), 16).astype(float)
penalties = np.geomspace(1, 1e-3, 20)
folds = jax.jit(jax.vmap(lambda weight, X, y: jol.learning.ridge_folds(
    X, y, penalties, folds=5, sample_weight=weight, batching="vmap"
).state.errors, in_axes=(0, None, None)))
one, many = folds(counts, rows, score), folds(jax.device_put(counts, spread), rows, score)

gradients = np.asarray(jax.vmap(jax.grad(valley))(x, curvatures, centres))
good = np.arange(LANES) != 7
print(json.dumps({
    "devices": len(jax.devices()),
    "shards": len(out[0].sharding.device_set),
    "converged": int(np.sum(status == Status.CONVERGED)),
    "nan_lane": int(status[7]),
    "solved_lane_steps": int(steps[11]),
    "different_steps": len(set(steps.tolist())),
    "worst_gradient": float(np.max(np.abs(gradients[good]))),
    "worst_centre": float(np.max(np.abs(x[good, 0] - centres[good]))),
    "folds_shards": len(many.sharding.device_set),
    "folds_shape": list(many.shape),
    "folds_difference": float(np.max(np.abs(one - many))),
    "same_status": bool(np.array_equal(status, sstatus)),
    "same_steps": bool(np.array_equal(steps, ssteps)),
    "difference": float(np.nanmax(np.abs(x - sx))),
    "same_nan": bool(np.array_equal(np.isnan(x), np.isnan(sx))),
    "gathers": compiled.as_text().count("all-gather"),
}))
"""


@pytest.fixture(scope="module")
def told() -> dict:
    return told_by(PROGRAM)


def test_every_lane_has_its_own_status_and_steps(told):
    assert told["converged"] == 9_999
    assert told["nan_lane"] == 5  # NONFINITE
    assert told["solved_lane_steps"] == 1
    assert told["different_steps"] > 20
    assert told["worst_gradient"] <= 1e-7
    # The only stationary point is the minimiser, with curvature of at least about 0.1.
    assert told["worst_centre"] <= 1e-5


def test_sharded_over_eight_devices_is_the_same(told):
    assert told["devices"] == told["shards"] == 8
    assert told["same_status"]
    assert told["same_steps"]
    assert told["same_nan"]
    assert told["difference"] <= 1e-10


def test_cross_validation_of_bootstraps_is_sharded_too(told):
    assert told["folds_shards"] == 8
    assert told["folds_shape"] == [16, 5, 20]
    assert told["folds_difference"] <= 1e-12


def test_no_lane_moves_between_devices(told):
    assert told["gathers"] == 0
