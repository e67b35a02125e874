"""Implicit derivatives: what one costs, how much memory it takes, and how accurate it is."""

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np

import jaxopt_lite as jol

from . import peers
from .data import log_loss, logistic, logistic_data
from .harness import Judge, benchmark, interleaved, table

TOL, MAX_STEPS = 1e-6, 2000
CONTESTANTS = (
    peers.LBFGS,
    peers.ours("LBFGS, cg to 1e-6", jol.LBFGS(), differentiate=jol.implicit.Implicit("cg", 1e-6)),
    peers.ours("LBFGS, dense", jol.LBFGS(), differentiate=jol.implicit.Implicit("dense")),
    peers.DEFAULT,
    peers.JAXOPT_ZOOM,
    peers.OPTIMISTIX_LBFGS,
    peers.OPTIMISTIX_BFGS,
)


def validation_loss(run, penalty, x0, train, held_out):
    """Loss on held-out data of the weights fitted with `penalty`."""
    return log_loss(run(x0, *train, penalty)[0], *held_out)


@benchmark("implicit", "derivatives of answers")
def implicit(quick: bool) -> list[str]:
    return [cost(quick), memory(quick), accuracy(quick)]


# -- cost -----------------------------------------------------------------------------------------


def cost(quick: bool) -> str:
    """One solve and one gradient of a validation loss, in one penalty and in one a feature."""
    n, rows = (50, 500) if quick else (1000, 10_000)
    train, held_out = logistic_data(rows, n, 3.0), logistic_data(rows // 5, n, 3.0, seed=1)
    x0 = jnp.zeros(n)
    contestants = CONTESTANTS[:1] if quick else CONTESTANTS
    lines = []
    penalties = (("1", jnp.asarray(1e-2)), (f"{n}", jnp.full(n, 1e-2)))
    for kind, penalty in penalties[: 1 if quick else 2]:
        calls, programs = {}, {}
        for peer in contestants:
            run = peer.make(logistic, TOL, MAX_STEPS)
            fit = jax.jit(run)
            value = jax.jit(lambda *a, run=run: validation_loss(run, *a))
            both = jax.jit(jax.value_and_grad(lambda *a, run=run: validation_loss(run, *a)))
            operands = (penalty, x0, train, held_out)
            calls[peer.name, "solve"] = lambda value=value, operands=operands: value(*operands)
            calls[peer.name, "both"] = lambda both=both, operands=operands: both(*operands)
            programs[peer.name] = fit, both, operands
        times = interleaved(calls, samples=3 if quick else 7, repeat=1, cap=20.0)
        truth = _reference(x0, penalty, train, held_out)
        judge = Judge(logistic)
        for peer in contestants:
            fit, both, operands = programs[peer.name]
            x, info = fit(x0, *train, penalty)
            gradient = both(*operands)[1]
            wrong = jnp.linalg.norm(gradient - truth) / jnp.linalg.norm(truth)
            solve, total = times[peer.name, "solve"], times[peer.name, "both"]
            extra, once = np.median(total - solve), np.median(solve)
            verdict = judge(x, x0, *train, penalty)
            lines.append(
                [peer.name, kind, bool(verdict.solved(TOL)), float(verdict.gradient),
                 int(info.evaluations), once * 1e3, extra * 1e3,
                 float(np.median((total - solve) / solve)), float(wrong)]
            )  # fmt: skip
    header = [
        "solver", "penalties", "solved", "gradient reached", "evaluations", "solve ms",
        "gradient ms", "gradient / solve", "relative error of the gradient",
    ]  # fmt: skip
    return table(header, lines, f"Logistic regression, {rows} x {n}, in float64")


def _reference(x0, penalty, train, held_out):
    """The gradient of the validation loss by Newton to rounding and a dense solve."""
    gradient = jax.jit(jax.grad(logistic))
    hessian = jax.jit(jax.hessian(logistic))
    x = x0
    for _ in range(12):
        x = x - jnp.linalg.solve(hessian(x, *train, penalty), gradient(x, *train, penalty))
    weights = jnp.linalg.solve(hessian(x, *train, penalty), jax.grad(log_loss)(x, *held_out))
    mixed = jax.vjp(lambda p: jax.grad(logistic)(x, *train, p), penalty)[1]
    return -mixed(weights)[0]


# -- memory ---------------------------------------------------------------------------------------


def memory(quick: bool) -> str:
    """Temporary memory of the compiled gradient against the number of steps allowed."""
    n, rows = (50, 500) if quick else (1000, 10_000)
    train, held_out = logistic_data(rows, n, 3.0), logistic_data(rows // 5, n, 3.0, seed=1)
    x0, penalty = jnp.zeros(n), jnp.asarray(1e-2)
    budgets = (10, 20) if quick else (10, 40, 160)

    def temp(make):
        found = []
        for steps in budgets:
            run = make(steps)
            gradient = jax.jit(jax.grad(lambda *a, run=run: validation_loss(run, *a)))
            compiled = gradient.lower(penalty, x0, train, held_out).compile()
            found.append(compiled.memory_analysis().temp_size_in_bytes / 1e6)
        return found

    unrolled = peers.ours("LBFGS, unrolled", jol.LBFGS(), differentiate="unrolled")
    contestants = [peers.LBFGS, unrolled][: 1 if quick else 2]
    if not quick:
        contestants += [
            peers.DEFAULT,
            peers.JAXOPT_ZOOM,
            peers.jaxopt_peer(
                "LBFGS backtracking, unrolled",
                jaxopt.LBFGS,
                linesearch="backtracking",
                implicit_diff=False,
                unroll=True,
            ),
            peers.OPTIMISTIX_LBFGS,
            peers.OPTIMISTIX_BFGS,
        ]
    lines = []
    for peer in contestants:
        found = temp(lambda steps, peer=peer: peer.make(logistic, TOL, steps))
        lines.append([peer.name, *found, (found[-1] - found[0]) / (budgets[-1] - budgets[0])])
    data = sum(leaf.nbytes for leaf in jax.tree.leaves((train, held_out))) / 1e6
    title = f"Temporary memory of the gradient in MB (the data are {data:.0f} MB)"
    header = ["solver", *[f"max_steps {steps}" for steps in budgets], "a step"]
    return table(header, lines, title)


# -- accuracy -------------------------------------------------------------------------------------


def quadratic(x, matrix, vector):
    """x'Ax/2 - b'x, whose minimiser A^-1 b has the derivative A^-1 in b."""
    return 0.5 * x @ (matrix @ x) - vector @ x


def accuracy(quick: bool) -> str:
    """Error of d(c'x*)/db = A^-1 c against the known answer, at growing condition numbers.

    Started at the solution, so that only the derivative is measured.
    """
    n, exponents = 50, (8,) if quick else (2, 4, 6, 8)
    gentle = jol.implicit.Implicit("cg")
    lines = []
    for dtype, tol in ((jnp.float64, 1e-6), (jnp.float32, 1e-3))[: 1 if quick else 2]:
        contestants = (
            peers.LBFGS,
            peers.ours("LBFGS, cg", jol.LBFGS(), differentiate=gentle),
            peers.DEFAULT,
            peers.JAXOPT_ZOOM,
            peers.jaxopt_peer(
                "LBFGS zoom, solve_lu",
                jaxopt.LBFGS,
                implicit_diff_solve=jaxopt.linear_solve.solve_lu,
            ),
            peers.OPTIMISTIX_LBFGS,
            peers.OPTIMISTIX_BFGS,
        )
        contestants = contestants[:2] if quick else contestants
        runs = {peer.name: peer.make(quadratic, tol, 2000) for peer in contestants}
        errors = {name: [] for name in runs}
        for exponent in exponents:
            matrix, answer, weights = _conditioned(n, 10.0**exponent)
            b, c = matrix @ answer, matrix @ weights
            matrix, answer, b, c = (jnp.asarray(a, dtype) for a in (matrix, answer, b, c))
            for name, run in runs.items():
                errors[name].append(_error(run, answer, matrix, b, c, weights))
        name = jnp.dtype(dtype).name
        lines += [[key, name, *column] for key, column in errors.items()]
    header = ["solver", "dtype", *[f"cond 1e{exponent}" for exponent in exponents]]
    return table(header, lines, "Relative error of the implicit gradient of a quadratic, n = 50")


def _error(run, answer, matrix, b, c, weights) -> str:
    """Relative error of the gradient of c'x*(b), or what was raised instead."""

    @jax.jit
    @jax.grad
    def gradient(b, answer, matrix, c):
        return c @ run(answer, matrix, b)[0]

    try:
        found = np.asarray(gradient(b, answer, matrix, c), np.float64)
    except TypeError:  # Optimistix's LBFGS in float32 while float64 is enabled
        return "TypeError"
    return f"{np.linalg.norm(found - weights) / np.linalg.norm(weights):.0e}"


def _conditioned(n: int, condition: float):
    """A symmetric matrix with eigenvalues from 1/condition to 1, an answer and weights."""
    rng = np.random.default_rng(0)
    rotation, _ = np.linalg.qr(rng.standard_normal((n, n)))
    matrix = (rotation * np.geomspace(1 / condition, 1, n)) @ rotation.T
    return 0.5 * (matrix + matrix.T), rng.standard_normal(n), rng.standard_normal(n)
