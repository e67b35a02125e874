"""Least squares on certified data, and ten thousand small fits at once.

NIST: 27 regressions from both published starts. A run counts where the estimate agrees with the
certified one in at least six digits, whatever the solver says of it.
"""

import time

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optimistix as optx
import scipy.optimize as so

import jaxopt_lite as jol

from .harness import benchmark, interleaved, table

MAX_STEPS = 5000


def _ours(solver):
    def make(residual):
        def run(b, *data):
            s = jol.least_squares(residual, b, data, solver=solver, tol=1e-10, max_steps=MAX_STEPS)
            return s.x, s.success, s.steps

        return jax.jit(run)

    return make


def _optimistix(cls):
    def make(residual):
        def run(b, *data):
            s = optx.least_squares(
                lambda y, args: residual(y, *args), cls(rtol=1e-12, atol=1e-12), b, data,
                max_steps=MAX_STEPS, throw=False,
            )  # fmt: skip
            return s.value, s.result == optx.RESULTS.successful, s.stats["num_steps"]

        return jax.jit(run)

    return make


def _jaxopt(residual):
    solver = jaxopt.LevenbergMarquardt(
        residual, tol=1e-10, xtol=1e-14, gtol=1e-14, maxiter=MAX_STEPS, solver="lu"
    )

    def run(b, *data):
        x, state = solver.run(b, *data)
        return x, state.error <= 1e-10, state.iter_num

    return jax.jit(run)


def _scipy(method):
    def make(residual):
        value, jacobian = jax.jit(residual), jax.jit(jax.jacfwd(residual))

        def run(b, *data):
            r = so.least_squares(
                lambda b: np.asarray(value(b, *data)), np.asarray(b),
                lambda b: np.asarray(jacobian(b, *data)), method=method, x_scale="jac",
                xtol=1e-15, ftol=1e-15, gtol=1e-15, max_nfev=MAX_STEPS,
            )  # fmt: skip
            return r.x, r.success, r.nfev

        return run

    return make


CONTESTANTS = {
    "ours LevenbergMarquardt": _ours(None),
    "ours LevenbergMarquardt weight": _ours(jol.LevenbergMarquardt("weight", "qr")),
    "ours Dogleg": _ours(jol.Dogleg()),
    "ours GaussNewton": _ours(jol.GaussNewton()),
    "JAXopt LevenbergMarquardt": _jaxopt,
    "Optimistix LevenbergMarquardt": _optimistix(optx.LevenbergMarquardt),
    "Optimistix Dogleg": _optimistix(optx.Dogleg),
    "SciPy least_squares lm": _scipy("lm"),
    "SciPy least_squares trf": _scipy("trf"),
}


@benchmark("fits", "least squares on certified data, and ten thousand fits at once")
def fits(quick: bool) -> list[str]:
    return [_certified(quick), _batch(200 if quick else 10_000)]


def _certified(quick: bool) -> str:
    from tests import nist

    sets = nist.SETS[::9] if quick else nist.SETS
    found = {name: [] for name in CONTESTANTS}
    for case in sets:
        data = jnp.asarray(case.x), jnp.asarray(case.y)
        for name, make in CONTESTANTS.items():
            run = make(case.residual)
            for start in case.starts:
                try:
                    x, claims, steps = run(jnp.asarray(start), *data)
                    digits = nist.digits(np.asarray(x), case.estimate)
                    found[name].append((case.name, digits, bool(claims), int(steps)))
                except ValueError:  # SciPy meets a residual that is not finite
                    found[name].append((case.name, -np.inf, False, 0))
        jax.clear_caches()
    any_peer = np.max([[r[1] for r in found[n]] for n in found if not n.startswith("ours")], 0)
    solved_by_all = np.min([[r[1] for r in rows] for rows in found.values()], 0) >= 6
    body = []
    for name, rows in found.items():
        digits = np.array([r[1] for r in rows])
        claims, steps = np.array([r[2] for r in rows]), np.array([r[3] for r in rows])
        missed = sorted({r[0] for r, peer in zip(rows, any_peer, strict=True)
                         if r[1] < 6 <= peer})  # fmt: skip
        body.append(
            [name, f"{np.sum(digits >= 6)} of {len(rows)}", np.min(digits),
             int(np.sum(claims & (digits < 6))), float(np.median(steps[solved_by_all])),
             ", ".join(missed) or "none"]
        )  # fmt: skip
    header = [
        "solver", "six digits", "fewest digits", "false claims", "median steps",
        "missed, where a peer has six",
    ]  # fmt: skip
    return table(header, body, f"NIST StRD, {len(sets)} sets from two starts each")


def _batch(lanes: int) -> str:
    """Decays of three unknowns, 25 points each, noise of 1%."""
    rng = np.random.default_rng(0)
    t = np.linspace(0, 3, 25)
    a, b, c = rng.uniform(1, 4, lanes), rng.uniform(0.3, 2.5, lanes), rng.uniform(-0.5, 0.5, lanes)
    y = a[:, None] * np.exp(-b[:, None] * t) + c[:, None]
    y = y + 0.01 * rng.standard_normal(y.shape)
    start, grid, batch = jnp.array([1.0, 1.0, 0.0]), jnp.asarray(t), jnp.asarray(y)

    def residual(p, t, y):
        return p[0] * jnp.exp(-p[1] * t) + p[2] - y

    def one(solver):
        return lambda y: jol.least_squares(residual, start, (grid, y), solver=solver)

    weight, radius = jol.LevenbergMarquardt("weight"), jol.LevenbergMarquardt()
    squares = jol.LevenbergMarquardt("radius", "cholesky")
    programs = {
        "ours weight, vmap": jax.jit(jax.vmap(one(weight))),
        "ours weight, lax.map by 100": jax.jit(
            lambda y: jax.lax.map(one(weight), y, batch_size=min(100, lanes))
        ),
        "ours radius, qr, vmap": jax.jit(jax.vmap(one(radius))),
        "ours radius, cholesky, vmap": jax.jit(jax.vmap(one(squares))),
    }
    exact = np.asarray(programs["ours weight, vmap"](batch).x)
    times = interleaved({k: lambda f=f: f(batch) for k, f in programs.items()}, samples=7)

    plain = lambda t, a, b, c: a * np.exp(-b * t) + c
    some = min(lanes, 300)  # of SciPy's loop, whose time is proportional

    def loop(fit):
        best = np.inf
        for _ in range(3):
            begin = time.perf_counter()
            answers = np.array([fit(row) for row in y[:some]])
            best = min(best, time.perf_counter() - begin)
        off = np.max(np.abs(answers - exact[:some]))
        return best * lanes / some, off

    fun = lambda y: lambda p: plain(t, *p) - y
    p0 = np.array([1.0, 1.0, 0.0])
    scipy = {
        "SciPy curve_fit": loop(lambda y: so.curve_fit(plain, t, y, p0=p0)[0]),
        "SciPy least_squares lm": loop(lambda y: so.least_squares(fun(y), p0, method="lm").x),
        "SciPy least_squares trf": loop(lambda y: so.least_squares(fun(y), p0).x),
    }
    base = float(np.median(times["ours weight, lax.map by 100"]))
    body = []
    for name, program in programs.items():
        s = program(batch)
        seconds = float(np.median(times[name]))
        off = float(np.max(np.abs(np.asarray(s.x) - exact)))
        body.append([name, float(np.mean(s.success)), seconds, seconds / base, off])
    for name, (seconds, off) in scipy.items():
        body.append([name, None, seconds, seconds / base, off])
    header = ["solver", "converged", f"s for {lanes:,} fits", "ratio", "difference of estimates"]
    return table(header, body, f"{lanes:,} fits of three unknowns to 25 points")
