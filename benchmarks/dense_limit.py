"""Where factorising stops paying: implicit derivatives and trust regions, dense or by products."""

import jax
import jax.numpy as jnp
import numpy as np

import jaxopt_lite as jol

from . import peers
from .data import logistic, logistic_data
from .harness import benchmark, interleaved, table
from .lbfgs import rosenbrock

SIZES = (50, 100, 200, 350, 500, 700, 1000, 1400, 2000)
PENALTY = 1e-3


@benchmark("dense_limit", "dense linear algebra against products")
def dense_limit(quick: bool) -> list[str]:
    sizes = SIZES[:1] if quick else SIZES
    spreads = (1.0, 30.0)
    return [
        *derivative(sizes, spreads[:1] if quick else spreads),
        *trust_region(sizes, () if quick else spreads),
    ]


def scales(spread: float) -> str:
    """The conditioning of the data, in words."""
    return f"feature scales 1 to 1/{spread:g}" if spread > 1 else "all features of scale 1"


def crossing(sizes, first, second) -> str:
    """Where `second` becomes faster than `first`, between which sizes."""
    pairs = [(n, a, b) for n, a, b in zip(sizes, first, second, strict=True) if a and b]
    later = [n for n, a, b in pairs if b < a]
    sooner = [n for n, a, b in pairs if b >= a]
    if not later:
        return f"not up to {pairs[-1][0]}"
    if not sooner or max(sooner) < min(later):
        return f"at {min(later)}" if sooner else f"at or below {min(later)}"
    return f"not cleanly: at {', '.join(map(str, later))}"


# -- the derivative -------------------------------------------------------------------------------


def derivative(sizes, spreads) -> list[str]:
    """Time of the reverse-mode derivative alone: the solve starts at the answer."""
    blocks = []
    for spread in spreads:
        lines = []
        for n in sizes:
            features, labels = logistic_data(10 * n, n, spread)
            fit = jol.solve(
                jol.Problem(logistic), jnp.zeros(n), (features, labels, PENALTY),
                solver=jol.LBFGS(), tol=1e-7,
            )  # fmt: skip
            times = interleaved(
                {
                    how: _derivative_call(how, fit.x, features, labels)
                    for how in ("none", "dense", "cg")
                },
                samples=5, cap=0.7,
            )  # fmt: skip
            none, dense, cg = (np.median(times[how]) * 1e3 for how in ("none", "dense", "cg"))
            products = _cg_products(fit.x, features, labels)
            lines.append([n, none, dense - none, cg - none, (dense - none) / (cg - none), products])
        header = ["n", "one evaluation ms", "dense ms", "cg ms", "dense / cg", "cg products"]
        title = f"Implicit derivative, logistic regression 10n x n, {scales(spread)}"
        where = crossing(sizes, [row[2] for row in lines], [row[3] for row in lines])
        blocks += [table(header, lines, title), f"CG overtakes dense {where}."]
    return blocks


def _derivative_call(how, x, features, labels):
    """A call of d sum(x*) / d penalty with that linear solver, started at x; "none": only x*."""
    options = {} if how == "none" else {"differentiate": jol.implicit.Implicit(how)}
    run = peers.ours(how, jol.LBFGS(), **options).make(logistic, 1e-6, 100)

    def answer(penalty, x, features, labels):
        return jnp.sum(run(x, features, labels, penalty)[0])

    function = jax.jit(answer if how == "none" else jax.grad(answer))
    return lambda: function(PENALTY, x, features, labels)


def _cg_products(x, features, labels) -> int:
    """How many products our CG takes there."""
    from jaxopt_lite.linalg import conjugate_gradient

    @jax.jit
    def count(x, features, labels):
        gradient = jax.grad(lambda w: logistic(w, features, labels, PENALTY))
        matvec = jax.linearize(gradient, x)[1]
        tol = float(jnp.finfo(x.dtype).eps) ** (2 / 3)  # the default of Implicit
        return conjugate_gradient(matvec, x, tol, 10 * x.shape[0]).products

    return int(count(x, features, labels))


# -- the trust region -----------------------------------------------------------------------------

METHODS = {
    "exact": jol.TrustRegion("exact"),
    "cg": jol.TrustRegion("cg"),
    "LBFGS": jol.LBFGS(),
}
TOO_LONG = 1.5  # seconds; a method slower than that is not tried on larger problems


def trust_region(sizes, spreads) -> list[str]:
    """Time to a gradient of 1e-6 with the exact Hessian, with products, and by LBFGS."""

    def valley(n):
        return rosenbrock, jnp.tile(jnp.array([-1.2, 1.0]), n // 2), ()

    def regression(spread):
        def problem(n):
            return logistic, jnp.zeros(n), (*logistic_data(10 * n, n, spread), PENALTY)

        return problem

    problems = {
        f"logistic regression 10n x n, {scales(spread)}": regression(spread) for spread in spreads
    }
    problems["chained Rosenbrock from (-1.2, 1, ...)"] = valley
    blocks = []
    for title, problem in problems.items():
        lines, out = [], set()
        for n in sizes:
            fun, x0, args = problem(n)
            runs, infos = {}, {}
            for name in METHODS.keys() - out:
                run = peers.ours(name, METHODS[name]).compiled(fun, 1e-6, 20_000)

                def call(name=name, run=run, operands=(x0, *args), infos=infos):
                    x, infos[name] = run(*operands)
                    return x

                runs[name] = call
            times = interleaved(runs, samples=5, cap=0.7)
            out |= {name for name, column in times.items() if np.median(column) > TOO_LONG}
            row = [n]
            for name in METHODS:
                if name not in times:
                    row += [None, None]
                    continue
                info = infos[name]
                mark = "" if bool(info.claims) else " (failed)"
                row += [float(np.median(times[name]) * 1e3), f"{int(info.evaluations)}{mark}"]
            lines.append(row)
        header = ["n"] + [f"{name} {what}" for name in METHODS for what in ("ms", "evaluations")]
        exact, cg, limited = ([row[i] for row in lines] for i in (1, 3, 5))
        blocks += [
            table(header, lines, f"To a gradient of 1e-6: {title}"),
            f'TrustRegion("cg") overtakes "exact" {crossing(sizes, exact, cg)}; '
            f'LBFGS overtakes "exact" {crossing(sizes, exact, limited)}, '
            f'"cg" {crossing(sizes, cg, limited)}.',
        ]
    return blocks
