"""Measured rates of methods for f + nonsmooth beside those of theory."""

import functools

import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
from jax import lax

import jaxopt_lite as jol

from .harness import benchmark, table


@benchmark("rates", "convergence rates against theory")
def rates(quick: bool) -> list[str]:
    return [*_sublinear(quick), *_linear(quick), *_simplex(quick), *_dimension(quick)]


# -- histories: the total after each iteration ----------------------------------------------------


def ours(fun, make_term, args, x0, solver, steps):
    """The total of what is reported after each evaluation."""
    problem = jol.Problem(fun, nonsmooth=make_term)
    run = jax.jit(
        lambda x0, *args: jol.solve(
            problem, x0, args, solver=solver, max_steps=steps, tol=0.0, history=True
        )
    )
    s = run(x0, *args)
    return np.asarray(s.history.value)[: int(s.steps)]


def jaxopts(solver, x0, *args, total, steps, hyper=None):
    """The total after each update of a JAXopt solver, its loop a scan."""

    def update(carry, _):
        x, state = solver.update(*carry, hyper, *args)
        return (x, state), total(x)

    start = solver.init_state(x0, hyper, *args)
    first = jax.eval_shape(lambda c: update(c, None)[0], (x0, start))
    cast = jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), (x0, start), first)
    return np.asarray(jax.jit(lambda c: lax.scan(update, c, length=steps)[1])(cast))


def slope(gaps, start, end):
    """Of log gap over log k."""
    k = np.arange(1, len(gaps) + 1)[start:end]
    return np.polyfit(np.log(k), np.log(np.maximum(gaps[start:end], 1e-300)), 1)[0]


def factor(gaps):
    """A step, from 1e-3 to 1e-11 of the first gap; of the largest gap from here on."""
    envelope = np.maximum.accumulate(gaps[::-1])[::-1] / gaps[0]
    inside = np.flatnonzero((envelope < 1e-3) & (envelope > 1e-11))
    if inside.size < 10:
        return None
    return float(np.exp(np.polyfit(inside, np.log(envelope[inside]), 1)[0]))


def until(gaps, accuracy):
    """Evaluations until the gap is below; None if it never is."""
    below = np.flatnonzero(gaps <= accuracy)
    return int(below[0]) + 1 if below.size else None


# -- 1/k and 1/k^2 --------------------------------------------------------------------------------


def spectral(curvatures, decay):
    """A lasso whose answer is known: 1/2 sum a_i (x_i - c_i)^2 + sum w_i |x_i|, L = 1.

    Half of the x* are 0; the others a_i^(decay / 2).
    """
    some = np.arange(curvatures.size) % 2 == 0
    best = np.where(some, curvatures ** (decay / 2), 0.0)
    weights = 0.3 * curvatures * np.where(some, best, 1.0)
    # On the support a (x* - c) + w = 0; off it |a c| = w / 2.
    centre = np.where(some, best + weights / curvatures, 0.15)
    fun = lambda x, a, c, w: 0.5 * jnp.sum(a * (x - c) ** 2)
    args = tuple(map(jnp.asarray, (curvatures, centre, weights)))
    total = lambda x: fun(x, *args) + jnp.sum(args[2] * jnp.abs(x))
    return fun, args, total, best


def _term(a, c, w):
    return jol.prox.L1(w)


def _proximal_gradient(fun, args, x0, total, steps, step_size, acceleration):
    solver = jaxopt.ProximalGradient(
        fun, jaxopt.prox.prox_lasso, stepsize=step_size, acceleration=acceleration, maxiter=steps
    )
    return jaxopts(solver, x0, *args, total=total, steps=steps, hyper=args[2])


def _sublinear(quick: bool) -> list[str]:
    steps = 200 if quick else 2000
    rows = []
    for decay in (0.0, 0.25, 1.0):
        fun, args, total, best = spectral(np.logspace(-9, 0, 2000), decay)
        lowest, far = float(total(jnp.asarray(best))), float(best @ best)
        x0 = jnp.zeros(best.size)
        solve = functools.partial(ours, fun, _term, args, x0)
        peer = functools.partial(_proximal_gradient, fun, args, x0, total, steps, 1.0)
        # ISTA's first value is that of x0; FISTA evaluates at y and at p, in turns.
        runs = [
            ("ISTA(1/L)", 1, solve(jol.ISTA(1.0), steps + 1)[1:]),
            ("JAXopt ProximalGradient", 1, peer(False)),
            ("FISTA(1/L, restart=False)", 2, solve(jol.FISTA(1.0, restart=False), 2 * steps)[1::2]),
            ("JAXopt ProximalGradient, accelerated", 1, peer(True)),
        ]
        for name, each, values in runs:
            fast = each == 2 or "accelerated" in name
            gaps = values - lowest
            k = np.arange(1, gaps.size + 1)
            bound = 2 * far / (k + 1) ** 2 if fast else far / (2 * k)
            order = min(2 + 2 * decay, 2.5 + decay) if fast else 1 + decay
            reached = until(gaps, 1e-3 * float(total(x0) - lowest))
            rows.append([
                f"{decay:g}", name, -order, float(slope(gaps, steps // 20, steps)),
                float(np.max(gaps / bound)), each * reached if reached else None,
            ])  # fmt: skip
    header = ["s", "method", "exponent of theory", "slope measured", "of the bound, at most",
              "evaluations to 1e-3 of the start"]  # fmt: skip
    note = (
        f"Totals F(x_k) - F*, k to {steps}, of a lasso with 2,000 curvatures a from 1e-9 to 1, "
        "evenly spaced in log a, and a known answer in which every other entry is 0 and the "
        "others are a^(s/2). Then a (x0 - x*)^2 has the density a^s da, and theory gives the "
        "exponents. ISTA: the integral of a^s exp(-2 k a), k^-(1+s). FISTA, whose error at a "
        "falls as 2 J_1(k sqrt a)/(k sqrt a) and (1 - a)^(k/2): k^-(2+2s), and from s = 1/2 "
        "on, where large a count, k^-(2.5+s). s = 0 is the edge of what the theorems know, "
        "k^-1 and k^-2. *Of the bound*: the largest F - F* over L |x0 - x*|^2/(2k) or 2 L |x0 "
        "- x*|^2/(k+1)^2; 1 or less by theorem."
    )
    return [note, table(header, rows)]


# -- linear ---------------------------------------------------------------------------------------


def _linear(quick: bool) -> list[str]:
    rows = []
    for condition in (1e2,) if quick else (1e2, 1e4):
        mu = 1 / condition
        fun, args, total, best = spectral(np.logspace(-np.log10(condition), 0, 400), 0.0)
        lowest, x0 = float(total(jnp.asarray(best))), jnp.zeros(best.size)
        steps = int(40 * condition) if condition < 1e3 else 20_000
        plain, fast = (1 - mu) ** 2, (1 - np.sqrt(mu)) ** 2
        solve = functools.partial(ours, fun, _term, args, x0)
        cases = [
            ("ISTA(1/L)", 1, plain, jol.ISTA(1.0)),
            ("FISTA(1/L, mu)", 2, fast, jol.FISTA(1.0, mu)),
            ("FISTA(1/L), restarts", 2, None, jol.FISTA(1.0)),
            ("FISTA(1/L, restart=False)", 2, None, jol.FISTA(1.0, restart=False)),
            ("FISTA(), restarts, L found", 2, None, jol.FISTA()),
            ("ProximalLBFGS()", None, None, jol.ProximalLBFGS()),
            ("ProximalNewton()", None, None, jol.ProximalNewton("cg")),
        ]
        runs = [(name, each, theory, solve(solver, steps)) for name, each, theory, solver in cases]
        for name, accelerated in (
            ("ProximalGradient", False),
            ("ProximalGradient, accelerated", True),
        ):
            values = _proximal_gradient(fun, args, x0, total, steps, 1.0, accelerated)
            runs.append((f"JAXopt {name}", 1, None if accelerated else plain, values))
        first = float(total(x0)) - lowest
        for name, each, theory, values in runs:
            gaps = np.maximum(values - lowest, 1e-300)
            by_iteration = gaps[1::2] if each == 2 else gaps
            rows.append([
                f"{condition:.0e}", name, _digits(theory),
                _digits(factor(by_iteration)) if each else "-",
                until(gaps, 1e-3 * first), until(gaps, 1e-10 * first),
            ])  # fmt: skip
    header = ["L/mu", "method", "factor of theory", "factor measured", "evaluations to 1e-3",
              "evaluations to 1e-10"]  # fmt: skip
    note = (
        "The same with curvatures from mu to 1. Factors of F(x_k) - F* an iteration, by "
        "theory (1 - mu/L)^2 for plain steps and (1 - sqrt(mu/L))^2 for momentum with a known "
        "mu, on a quadratic; the theorems for all convex f have 1 - mu/L and 1 - sqrt(mu/L). "
        "Restarts are hoped to give 1 - c sqrt(mu/L), with no theorem for c. Our FISTA makes "
        "two evaluations an iteration, at y and at p; JAXopt's one. Accuracies are relative "
        "to F(x0) - F*."
    )
    return [note, table(header, rows)]


def _digits(value):
    return None if value is None else f"{value:.5f}"


# -- the simplex ----------------------------------------------------------------------------------


def _simplex(quick: bool) -> list[str]:
    n, m = (1000, 60) if quick else (10_000, 100)
    rng = np.random.default_rng(0)
    a = jnp.asarray(rng.standard_normal((m, n)))
    mixed = np.zeros(n)
    mixed[rng.choice(n, 20, replace=False)] = rng.dirichlet(np.ones(20))
    b = a @ mixed + 0.3 * rng.standard_normal(m)
    fun = lambda x, a, b: 0.5 * jnp.sum((a @ x - b) ** 2) / b.size
    gram = np.asarray(a @ a.T) / m
    steepest = float(np.linalg.eigvalsh(gram)[-1])  # L in the 2-norm
    relative = float(jnp.max(jnp.sum(a * a, 0))) / m  # L from the 1-norm to its dual
    x0 = jnp.full(n, 1 / n)
    on_simplex = lambda a, b: jol.prox.Simplex()
    steps = 300 if quick else 1000
    problem = jol.Problem(fun, nonsmooth=on_simplex)
    best = jol.solve(problem, x0, (a, b), solver=jol.ProximalLBFGS(), tol=1e-10, max_steps=20_000)
    gradient = jax.grad(fun)(best.x, a, b)
    proof = float(gradient @ best.x - jnp.min(gradient))  # F - F* <= g'x - min g
    lowest, first = float(best.value), float(fun(x0, a, b))
    mirror = jol.Problem(fun, eq=lambda x, a, b: jnp.sum(x) - 1, bounds=(0.0, None))

    def ours_mirror(solver):
        s = jol.solve(mirror, x0, (a, b), solver=solver, tol=0.0, max_steps=steps, history=True)
        return np.asarray(s.history.value)[: int(s.steps)]

    total = lambda x: fun(x, a, b)
    projection = lambda x, hyper: jol.projections.simplex(x)
    log_step = jaxopt.MirrorDescent.make_projection_grad(
        lambda y, hyper: jax.nn.softmax(y), lambda x: jnp.log(jnp.maximum(x, 1e-300))
    )
    plain = functools.partial(ours, fun, on_simplex, (a, b), x0)
    peer = lambda solver: jaxopts(solver, x0, a, b, total=total, steps=steps)
    runs = {
        "MirrorDescent()": lambda: ours_mirror(jol.MirrorDescent()),
        "ISTA(1/L), projected gradient": lambda: plain(jol.ISTA(1 / steepest), steps),
        "ISTA(), L found": lambda: plain(jol.ISTA(), steps),
        "FISTA(1/L)": lambda: plain(jol.FISTA(1 / steepest), steps),
        "FISTA(), L found": lambda: plain(jol.FISTA(), steps),
        "ProximalLBFGS()": lambda: plain(jol.ProximalLBFGS(), steps),
        "JAXopt MirrorDescent, 1/L of the 1-norm": lambda: peer(
            jaxopt.MirrorDescent(fun, log_step, stepsize=1 / relative, maxiter=steps)
        ),
        "JAXopt ProjectedGradient, 1/L, accelerated": lambda: peer(
            jaxopt.ProjectedGradient(fun, projection, stepsize=1 / steepest, maxiter=steps)
        ),
    }
    rows = []
    for name, run in runs.items():
        gaps = run() - lowest
        rows.append([name, *(until(gaps, c * (first - lowest)) for c in (1e-1, 1e-2, 1e-4, 1e-6))])
    note = (
        f"Least squares on the simplex, {n:,} entries, {m} equations with noise, "
        f"{int(jnp.sum(best.x > 0))} entries of the answer not 0; L is {steepest:.0f} in the "
        f"2-norm, {relative:.2f} from the 1-norm to its dual. F* is known to {proof:.0e}. "
        "Evaluations of f and its gradient until F - F* is below an accuracy times F(x0) - "
        f"F*; dash: not in {steps}."
    )
    return [note, table(["method", "1e-1", "1e-2", "1e-4", "1e-6"], rows)]


# -- the dimension --------------------------------------------------------------------------------


def _dimension(quick: bool) -> list[str]:
    """Subgradients with the constant step of the theorem, eps / G^2, until the best gap is eps."""
    eps, m = 0.5, 50
    rows = []
    for n in (100, 1000) if quick else (100, 1000, 10_000):
        rng = np.random.default_rng(n)
        signs = rng.choice([-1.0, 1.0], size=(m, n), p=[0.25, 0.75])
        signs[:, 0] = -1.0  # the vertex e_1 is the answer, F* = -1
        a = jnp.asarray(signs)
        x0 = jnp.full(n, 1 / n)
        mirror = lambda x, g: jax.nn.softmax(jnp.log(x) - eps * g)
        project = lambda x, g, n=n: jol.projections.simplex(x - eps / n * g)
        made = [_until_eps(a, x0, step, -1.0 + eps) for step in (mirror, project)]
        theory = [2 * np.log(n) / eps**2, (1 - 1 / n) * n / eps**2]
        rows.append([f"{n:,}", made[0], theory[0], made[1], theory[1], made[1] / made[0]])
    sizes = np.array([float(r[0].replace(",", "")) for r in rows])
    power = lambda column, scale: float(
        np.polyfit(np.log(scale(sizes)), np.log([r[column] for r in rows]), 1)[0]
    )
    rows.append(["exponent", f"{power(1, np.log):.2f} of log n", "1 of log n",
                 f"{power(3, lambda n: n):.2f} of n", "1 of n", None])  # fmt: skip
    note = (
        f"Fixed steps and the dimension: min over the simplex of max_i (Ax)_i, {m} rows of "
        "signs of which a quarter is -1, F* = -1 at the vertex where all are, from the "
        "centre. Subgradients have G = 1 in the max-norm and G = sqrt(n) in the 2-norm; with "
        "the constant step eps/G^2 the theorems allow 2 D G^2/eps^2 steps until the best gap "
        f"is eps = {eps}, D the distance of start and answer: 2 log n/eps^2 for exponentiated "
        "subgradients (sqrt(log n/k) after k), n/eps^2 for projected ones (sqrt(n/k))."
    )
    header = [
        "n",
        "mirror descent: steps",
        "bound",
        "projected subgradients: steps",
        "bound",
        "ratio",
    ]
    return [note, table(header, rows)]


def _until_eps(a, x0, step, target):
    """How many steps until max(A x) is at most `target`."""

    def advance(carry):
        x, count, _ = carry
        x = step(x, a[jnp.argmax(a @ x)])
        return x, count + 1, jnp.max(a @ x)

    going = lambda carry: (carry[2] > target) & (carry[1] < 200_000)
    run = jax.jit(lambda x: lax.while_loop(going, advance, (x, 0, jnp.max(a @ x)))[1])
    return int(run(x0))
