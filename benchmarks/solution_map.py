"""The Jacobian of a constrained solution with respect to 1,000 parameters."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from .harness import benchmark, compile_cpu_seconds, interleaved, table

N, EQUAL, UNEQUAL, PARAMETERS = 50, 10, 20, 1000
STEP = 1e-4  # of central differences


def problem():
    """Minimise x'Qx/2 + sum cosh x - (M p)'x, A x = B p, G x <= 1 + K p: strictly convex."""
    rng = np.random.default_rng(0)
    root = rng.standard_normal((N, N)) / 10
    q = jnp.asarray(root @ root.T + np.eye(N))
    m, b, k = (
        jnp.asarray(rng.standard_normal((rows, PARAMETERS)) / np.sqrt(PARAMETERS))
        for rows in (N, EQUAL, UNEQUAL)
    )
    a, g = (jnp.asarray(rng.standard_normal((rows, N))) for rows in (EQUAL, UNEQUAL))
    return jol.Problem(
        lambda x, p: 0.5 * x @ q @ x + jnp.sum(jnp.cosh(x)) - 3 * (m @ p) @ x,
        eq=lambda x, p: a @ x - b @ p,
        ineq=lambda x, p: g @ x - 1 - k @ p,
    ), jnp.asarray(rng.standard_normal(PARAMETERS))


@benchmark("solution_map", "the Jacobian of a solution in 1,000 parameters")
def solution_map(quick: bool) -> list[str]:
    program, p = problem()
    solve = lambda p: jol.solve(program, jnp.zeros(N), (p,), tol=1e-10).x
    calls = {
        "one solve": solve,
        "gradient of a scalar of it": jax.grad(lambda p: jnp.sum(jnp.sin(solve(p)))),
        "Jacobian (50, 1000), reverse": jax.jacrev(solve),
        "Jacobian (50, 1000), forward": jax.jacfwd(solve),
    }
    compiled = {name: jax.jit(call) for name, call in calls.items()}
    times = interleaved(
        {name: lambda run=run: run(p) for name, run in compiled.items()},
        samples=3 if quick else 11,
    )
    once = np.median(times["one solve"])
    rows = []
    for name, call in calls.items():
        seconds = compile_cpu_seconds(lambda call=call: lambda p: call(p), p, samples=1)
        beyond = (np.median(times[name]) - once) / once
        rows.append([name, 1e3 * np.median(times[name]), beyond if call is not solve else None,
                     seconds])  # fmt: skip
    columns = 20 if quick else PARAMETERS
    sides = lambda e: (solve(p + STEP * e), solve(p - STEP * e))
    ahead, behind = jax.lax.map(sides, jnp.eye(PARAMETERS)[:columns], batch_size=100)
    differences = ((ahead - behind) / (2 * STEP)).T
    jacobian = compiled["Jacobian (50, 1000), reverse"](p)
    size = float(jnp.max(jnp.abs(jacobian)))
    worst = float(jnp.max(jnp.abs(jacobian[:, :columns] - differences)))
    solution = jol.solve(program, jnp.zeros(N), (p,), tol=1e-10)
    binding = int(jnp.sum(solution.multipliers.ineq > 1e-6))
    note = (
        f"{N} variables, {EQUAL} equalities, {UNEQUAL} inequalities of which {binding} bind, "
        f"{PARAMETERS} parameters in all of them. Implicit derivatives differ from central "
        f"differences of {2 * columns} further solves by {worst:.1e} at most, of entries up to "
        f"{size:.2g}. *Beyond*: its time less that of the solve it contains, in solves."
    )
    return [note, table(["", "ms", "beyond the solve", "compile CPU-s"], rows)]
