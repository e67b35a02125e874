"""The spine: history, progress, reports to a person, steps by hand, pytrees, the loop itself."""

import builtins
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxopt_lite as jol
from jaxopt_lite.core import Status, iterate
from jaxopt_lite.core import progress as progress_module


def bowl(x, centre):
    return jnp.sum(jnp.cosh(x - centre)) + 0.1 * x[0] * x[1]


BOWL = jol.Problem(bowl)
CENTRE = jnp.array([1.0, -2.0])
X0 = jnp.array([3.0, 2.0])
SOLVERS = [jol.LBFGS(), jol.GradientDescent(), jol.TrustRegion("exact"), jol.TrustRegion("cg")]


def run(solver=None, **options):
    return jol.solve(BOWL, X0, (CENTRE,), solver or jol.LBFGS(), **{"tol": 1e-8} | options)


# -- history ---------------------------------------------------------------------------------------


def test_no_history_unless_asked_for():
    assert run().history is None


@pytest.mark.parametrize("solver", [*SOLVERS, jol.FixedStep(0.2)], ids=str)
def test_history_has_a_row_a_step_and_nan_after(solver):
    rows = 150
    sol = run(solver, history="x", max_steps=rows)
    steps, log = int(sol.steps), sol.history
    assert sol.status == Status.CONVERGED
    assert log.value.shape == log.residuals.stationarity.shape == (rows,)
    assert log.x.shape == (rows, 2)
    for column in jax.tree.leaves(log):
        assert np.all(np.isfinite(column[:steps]))
        assert np.all(np.isnan(column[steps:]))
    # Row by row what was measured, where it was measured.
    values, gradients = jax.vmap(jax.value_and_grad(bowl), (0, None))(log.x[:steps], CENTRE)
    np.testing.assert_allclose(log.value[:steps], values, rtol=1e-12)
    norms = jnp.max(jnp.abs(gradients), axis=1)
    np.testing.assert_allclose(log.residuals.stationarity[:steps], norms, rtol=1e-6, atol=1e-13)
    np.testing.assert_array_equal(log.x[0], X0)
    np.testing.assert_array_equal(log.x[steps - 1], sol.x)
    assert log.value[steps - 1] == sol.value
    assert log.residuals.stationarity[steps - 1] == sol.residuals.stationarity


def test_history_true_keeps_no_iterates_and_changes_nothing():
    plain, logged = run(max_steps=60), run(max_steps=60, history=True)
    assert logged.history.x is None
    assert logged.history.value.shape == (60,)
    assert plain.steps == logged.steps
    np.testing.assert_allclose(plain.x, logged.x, rtol=1e-12)


def test_history_keeps_the_structure_of_x_and_passes_through_vmap():
    def objective(x, shift):
        return jnp.sum((x["a"] - shift) ** 2) + (x["b"] - 1.0) ** 4

    x0 = {"a": jnp.zeros((2, 3)), "b": jnp.asarray(0.0)}

    def one(shift):
        return jol.minimize(objective, x0, (shift,), history="x", max_steps=30)

    log = jax.vmap(one)(jnp.array([1.0, 2.0])).history
    assert log.x["a"].shape == (2, 30, 2, 3)
    assert log.x["b"].shape == (2, 30)


def test_unrolled_and_while_loop_take_the_same_steps():
    loop, scan = run(max_steps=40), run(max_steps=40, differentiate="unrolled")
    assert loop.steps == scan.steps
    assert loop.status == scan.status
    np.testing.assert_allclose(loop.x, scan.x, rtol=1e-12)
    history = run(max_steps=40, differentiate="unrolled", history="x").history
    assert int(np.sum(np.isfinite(history.value))) == loop.steps


# -- progress --------------------------------------------------------------------------------------


def slow(**options):
    return run(jol.FixedStep(0.02), max_steps=120, tol=0.0, **options)


def test_progress_shows_a_bar(capfd):
    jax.block_until_ready(slow(progress=True))
    jax.effects_barrier()
    told = capfd.readouterr()
    assert told.out == ""
    assert "120 steps" in told.err
    assert "value" in told.err
    assert "MAX_STEPS" in told.err


def test_progress_without_tqdm_is_plain_lines(capfd, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("tqdm"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    jax.block_until_ready(slow(progress=True))
    jax.effects_barrier()
    lines = capfd.readouterr().err.strip().splitlines()
    assert [line.split(":")[0] for line in lines] == ["step 50", "step 100", "step 120"]
    assert "MAX_STEPS" in lines[-1]
    assert "MAX_STEPS" not in lines[0]


def test_progress_changes_no_number_and_works_for_a_batch(capfd):
    np.testing.assert_array_equal(slow().x, slow(progress=True).x)

    def one(centre):
        return jol.solve(BOWL, X0, (centre,), jol.LBFGS(), progress=True).status

    codes = jax.vmap(one)(jnp.stack([CENTRE, -CENTRE]))
    jax.effects_barrier()
    assert codes.tolist() == [Status.CONVERGED] * 2
    assert "CONVERGED" in capfd.readouterr().err
    assert progress_module._bar is None  # closed


def test_no_progress_means_no_callback_in_the_program():
    def program(progress):
        solve = jax.jit(lambda x0: jol.solve(BOWL, x0, (CENTRE,), jol.LBFGS(), progress=progress))
        return solve.lower(X0).as_text()

    assert "callback" not in program(False)
    assert "callback" in program(True)


# -- what a person reads ---------------------------------------------------------------------------


def test_print_of_a_solution():
    sol = run()
    text = str(sol)
    assert text.startswith(f"CONVERGED after {int(sol.steps)} steps: converged")
    assert f"{float(sol.value):.10g}" in text
    assert "stationarity" in text
    assert "primal" not in text  # there are no constraints to report
    assert len(text.splitlines()) <= 6


def test_print_of_a_large_solution_is_short():
    sol = jol.minimize(lambda x: jnp.sum((x["w"] - 1) ** 2), {"w": jnp.zeros(5000)})
    assert len(str(sol)) < 500
    assert "w" in str(sol)


def test_print_of_a_batch_and_inside_jit():
    batch = jax.vmap(lambda c: jol.solve(BOWL, X0, (c,), max_steps=12, tol=1e-6))(
        jnp.stack([CENTRE, jnp.full(2, 80.0)])
    )
    text = str(batch)
    assert text.startswith("Solution of a batch (2,): 1 CONVERGED, 1 MAX_STEPS")
    assert f"most {int(jnp.max(batch.steps))}" in text
    seen = []
    jax.jit(lambda x0: seen.append(str(jol.solve(BOWL, x0, (CENTRE,)))))(X0)
    assert "being traced" in seen[0]


def test_print_of_a_solution_with_multipliers_shows_all_residuals():
    sol = dataclasses.replace(run(), multipliers=jol.Multipliers(eq=jnp.ones(1)))
    assert all(name in str(sol) for name in ("primal", "dual", "complementarity"))


def test_raise_for_status():
    sol = run()
    assert sol.raise_for_status() is sol
    with pytest.raises(jol.SolveError, match=r"MAX_STEPS after 2 steps, worst residual \d"):
        run(max_steps=2).raise_for_status()


def test_raise_for_status_of_a_batch_counts_and_names_the_first_lane():
    centres = jnp.stack([CENTRE, jnp.full(2, jnp.nan), CENTRE, jnp.full(2, jnp.nan), CENTRE])
    batch = jax.vmap(lambda c: jol.solve(BOWL, X0, (c,)))(centres)
    with pytest.raises(jol.SolveError, match=r"3 CONVERGED, 2 NONFINITE; the first .* lane \[1\]"):
        batch.raise_for_status()
    good = jax.vmap(lambda c: jol.solve(BOWL, X0, (c,)))(jnp.stack([CENTRE, CENTRE]))
    assert good.raise_for_status() is good


def test_status_codes_carry_messages_and_are_stable():
    codes = {s.name: int(s) for s in Status}
    assert codes == {
        "RUNNING": 0, "CONVERGED": 1, "MAX_STEPS": 2, "STALLED": 3, "DIVERGED": 4,
        "NONFINITE": 5, "PRIMAL_INFEASIBLE": 6, "DUAL_INFEASIBLE": 7,
        "NONCONVEX": 8,
    }  # fmt: skip
    assert all(s.message for s in Status)


# -- the loop --------------------------------------------------------------------------------------


def test_steps_and_tolerance():
    loose, tight = run(tol=1e-2), run(tol=1e-10)
    assert loose.steps < tight.steps
    assert loose.residuals.worst() <= 1e-2
    assert tight.residuals.worst() <= 1e-10
    assert run(max_steps=int(tight.steps), tol=1e-10).status == Status.CONVERGED
    assert run(max_steps=int(tight.steps) - 1, tol=1e-10).status == Status.MAX_STEPS


def test_default_tolerance_follows_the_dtype():
    assert jol.solve(BOWL, X0, (CENTRE,)).residuals.worst() <= np.finfo(np.float64).eps ** 0.5
    single = jol.solve(BOWL, X0.astype(jnp.float32), (CENTRE.astype(jnp.float32),))
    assert single.residuals.worst() <= np.finfo(np.float32).eps ** 0.5
    assert single.status == Status.CONVERGED


def test_tolerance_may_be_traced_and_batched():
    tols = jnp.array([1e-2, 1e-9])
    batch = jax.jit(jax.vmap(lambda tol: run(tol=tol)))(tols)
    assert np.all(batch.residuals.worst() <= tols)
    assert batch.steps[0] < batch.steps[1]


def test_default_solver_by_size():
    small = jol.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(3))
    assert type(small.state).__name__ == "TrustRegionState"
    large = jol.minimize(lambda x: jnp.sum((x - 1) ** 2), jnp.zeros(300))
    assert jax.tree.leaves(large.state.model) == []  # no matrix above 200 variables
    assert large.status == Status.CONVERGED


def test_one_variable_and_scalars():
    sol = jol.minimize(lambda x: (x - 2.0) ** 2 + jnp.exp(x), 0.0)
    assert sol.x.shape == ()
    np.testing.assert_allclose(2 * (sol.x - 2) + jnp.exp(sol.x), 0, atol=1e-7)
    assert jol.minimize(lambda x: jnp.sum(x * x), jnp.ones(1)).status == Status.CONVERGED


def test_solve_inside_scan_and_cond():
    def advance(x, centre):
        sol = jol.solve(BOWL, x, (centre,), jol.LBFGS())
        return sol.x, sol.steps

    centres = CENTRE + 0.01 * jnp.arange(5.0)[:, None]
    _, steps = jax.jit(lambda: jax.lax.scan(advance, X0, centres))()
    assert np.all(steps[1:] < steps[0])  # warm starts
    sol = jax.jit(lambda flag: jax.lax.cond(flag, lambda: run().x, lambda: X0))(True)
    np.testing.assert_allclose(sol, run().x, rtol=1e-12)


def test_solve_inside_the_objective_of_another_solve():
    def inner(y):
        return jol.minimize(lambda x, y: jnp.sum((x - y) ** 2) + x[0] ** 2, jnp.zeros(2), (y,))

    def outer(y):
        x = inner(y).x  # (y_0 / 2, y_1)
        return jnp.sum((x - jnp.array([1.0, 3.0])) ** 2)

    sol = jol.minimize(outer, jnp.zeros(2), solver=jol.LBFGS())
    assert sol.status == Status.CONVERGED
    np.testing.assert_allclose(sol.x, [2, 3], atol=1e-6)


def test_iterate_runs_a_solver_without_the_front_door():
    problem = jol.Problem(lambda x: jnp.sum((x - 1) ** 2))

    @dataclasses.dataclass(frozen=True)
    class Halve(jol.Solver):
        """x <- (x + 1) / 2, judged by the default report."""

        def init(self, problem, point, args):
            return _HalveState(point)

        def step(self, problem, state, args):
            return _HalveState(state.point._replace(x=0.5 * (state.point.x + 1)))

    run, report = iterate(
        problem, Halve(), jol.Point(jnp.zeros(2)), (), tol=jnp.asarray(1e-3), max_steps=50
    )
    # The gradient is 2 * 2^-k: at most 1e-3 first for k = 11.
    assert run.status == Status.CONVERGED
    assert run.steps == 11
    np.testing.assert_allclose(report.value, 2 * 4.0**-11)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _HalveState:
    point: jol.Point


# -- pytrees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", SOLVERS, ids=str)
def test_pytree_and_vector_take_the_same_steps(solver):
    def on_tree(x):
        return bowl(jnp.stack([x["a"], x["b"][0]]), CENTRE)

    tree = {"a": X0[0], "b": [X0[1]]}
    sol, flat = jol.minimize(on_tree, tree, solver=solver, tol=1e-8), run(solver)
    assert jax.tree.structure(sol.x) == jax.tree.structure(tree)
    assert sol.steps == flat.steps
    np.testing.assert_allclose([sol.x["a"], sol.x["b"][0]], flat.x, rtol=1e-10)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Parameters:
    weights: jax.Array
    bias: jax.Array


def test_dataclasses_and_mixed_precision():
    def objective(x):
        wide = x.bias.astype(jnp.float64)
        return jnp.sum((x.weights - 2) ** 2) + (wide - 0.5) ** 2

    x0 = _Parameters(jnp.zeros((2, 2)), jnp.asarray(0.0, jnp.float32))
    sol = jol.minimize(objective, x0)
    assert isinstance(sol.x, _Parameters)
    assert (sol.x.weights.dtype, sol.x.bias.dtype) == (jnp.float64, jnp.float32)
    np.testing.assert_allclose(sol.x.weights, np.full((2, 2), 2.0), atol=1e-7)
    assert sol.value.dtype == jnp.float64


# -- by hand ---------------------------------------------------------------------------------------


def network(params, inputs, targets):
    hidden = jnp.tanh(inputs @ params["w"] + params["b"])
    return jnp.mean((hidden @ params["v"] - targets) ** 2)


NETWORK = jol.Problem(network)


@pytest.fixture
def training(rng):
    params = {
        "w": jnp.array(rng.standard_normal((3, 4))),
        "b": jnp.zeros(4),
        "v": jnp.array(rng.standard_normal(4)),
    }
    inputs = jnp.array(rng.standard_normal((12, 20, 3)))  # twelve batches of twenty
    return params, inputs, jnp.sin(inputs[..., 0])


def by_optax(transformation, params, inputs, targets):
    state = transformation.init(params)
    for batch in zip(inputs, targets, strict=True):
        slopes = jax.grad(network)(params, *batch)
        with jax.numpy_dtype_promotion("standard"):  # optax mixes dtypes
            updates, state = transformation.update(slopes, state, params)
            params = optax.apply_updates(params, updates)
    return params


@pytest.mark.parametrize(
    "transformation",
    [
        optax.adam(1e-2),
        optax.chain(optax.clip_by_global_norm(0.5), optax.adamw(1e-2, weight_decay=1e-3)),
        optax.masked(optax.sgd(0.1), {"w": True, "b": False, "v": True}),
    ],
    ids=["adam", "chain", "masked"],
)
def test_training_loop_equals_optax(transformation, training):
    params, inputs, targets = training
    solver = jol.Optax(transformation)
    state = solver.init(NETWORK, params, (inputs[0], targets[0]))
    step = jax.jit(lambda state, *batch: solver.step(NETWORK, state, batch))
    for batch in zip(inputs, targets, strict=True):
        state = step(state, *batch)
    expected = by_optax(transformation, params, inputs, targets)
    assert jax.tree.structure(state.point.x) == jax.tree.structure(params)
    # To rounding: one compiled step fuses what optax's eager loop rounds apart.
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12),
        state.point.x,
        expected,
    )
    assert step._cache_size() == 1


def test_training_loop_inside_scan_equals_the_python_loop(training):
    params, inputs, targets = training
    solver = jol.Optax(optax.adam(1e-2))
    start = solver.init(NETWORK, params, (inputs[0], targets[0]))

    @jax.jit
    def train(state):
        def advance(state, batch):
            state = solver.step(NETWORK, state, batch)
            return state, state.point.x["b"]

        return jax.lax.scan(advance, state, (inputs, targets))

    end, trail = train(start)
    expected = by_optax(optax.adam(1e-2), params, inputs, targets)
    np.testing.assert_allclose(end.point.x["w"], expected["w"], rtol=1e-10)
    np.testing.assert_array_equal(trail[-1], end.point.x["b"])
    assert trail.shape == (12, 4)


@pytest.mark.parametrize("solver", [*SOLVERS, jol.FixedStep(0.2)], ids=str)
def test_steps_by_hand_reach_the_answer_of_solve(solver):
    sol = run(solver)
    state = solver.init(BOWL, X0, (CENTRE,))
    step = jax.jit(lambda state: solver.step(BOWL, state, (CENTRE,)))
    for _ in range(int(sol.steps)):
        state = step(state)
    # First-order rules move on after measuring: one contraction past the answer of solve.
    np.testing.assert_allclose(state.point.x, sol.x, atol=1e-7)


def test_start_by_hand_may_be_a_point():
    solver = jol.LBFGS()
    one = solver.init(BOWL, X0, (CENTRE,))
    other = solver.init(BOWL, jol.Point(X0), (CENTRE,))
    assert jax.tree.structure(one) == jax.tree.structure(other)
    np.testing.assert_array_equal(one.point.x, other.point.x)


def test_state_of_a_solution_goes_through_jit_and_vmap():
    sol = jax.jit(lambda c: jol.solve(BOWL, X0, (c,), jol.LBFGS()))(CENTRE)
    again = jax.jit(lambda s: s)(sol)
    assert jax.tree.structure(again) == jax.tree.structure(sol)
    assert isinstance(again, jol.Solution)
