"""The rows of the contract: every solver, the cases it is run on, and what can be asked of it.

A new solver needs a row here; `test_contract.py` fails for an entry of `TABLE` without one. Which
cases a row leaves out, and why, is written beside the row: nothing is skipped at run time.
"""

import dataclasses
import functools
import unittest.mock
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jaxopt_lite as jol
from jaxopt_lite.core import Solution, Solver

from . import problems
from .problems import CASES, Case, by_name

# Kept as objects: a new transformation is a new program.
ADAM = optax.adam(0.05)
OPTAX_LBFGS = optax.lbfgs()

# The step 2/(L + mu), or 1/L, for cases whose curvature is known on the way.
FIXED_STEPS = {
    "booth": 0.1,  # Hessian eigenvalues 2 and 18
    "logistic": 0.29,  # L <= lambda_max(A'A/m)/4 + 0.01 = 3.4 with A the standardised features
    "linear_full_rank": 0.3,  # Hessian 2 I
    "discrete_integral_equation": 0.2,  # Hessian near 2 I
    "penalised_cosh": 0.5,  # the family below: L <= 3
}
# Step and momentum of the heavy ball for the same curvatures, as theory has them for quadratics.
HEAVY_BALLS = {
    "booth": (0.125, 0.25),
    "logistic": (1.0, 0.8),  # curvatures from 0.01
    "linear_full_rank": (0.3, 0.25),
    "discrete_integral_equation": (0.2, 0.25),
    "penalised_cosh": (0.5, 0.4),
}


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Row:
    """One solver with its settings. `make(case name)` builds it; a rebuilt one is equal."""

    name: str
    make: Callable[[str], Solver]
    tol: float
    max_steps: int
    cases: tuple[str, ...]
    stubborn: frozenset[str] = frozenset()  # right value, but tol is out of reach or not reached
    float32: tuple[str, ...] = ()
    searches: bool = True  # globally convergent: leaves an unbounded problem as DIVERGED
    unrolls: bool = True
    foreign_state: bool = False  # another library's, with dtypes and loops of its own
    residuals: bool = False  # takes the residuals of a case, not its objective
    variant: bool = False  # of a row above: its answers are checked, the rest is that row's
    minimum_is_zero: bool = False  # is told that the minimum is 0, and takes a family where it is
    extra_steps: int = 0  # with which it makes sure that a stationary point is a minimum

    def __str__(self) -> str:
        return self.name


def _split(names: str) -> tuple[str, ...]:
    return tuple(names.split())


def _names(without: str = "", tagged: str | None = None) -> tuple[str, ...]:
    left_out = set(without.split())
    return tuple(
        c.name for c in CASES if c.name not in left_out and (tagged is None or tagged in c.tags)
    )


def _minimum(case: str) -> float:
    """Of the case, or of the family as a row with `minimum_is_zero` takes it."""
    return 0.0 if case == "penalised_cosh" else by_name(case).minimum


RESIDUAL_CASES = """
    booth rosenbrock rosenbrock20 jennrich_sampson bard gaussian meyer gulf box kowalik_osborne
    brown_dennis osborne_one biggs_exp6 osborne_two trigonometric discrete_boundary_value
    discrete_integral_equation broyden_tridiagonal broyden_banded chebyquad7 chebyquad8
"""
SOME_RESIDUALS = "booth rosenbrock bard meyer gulf box kowalik_osborne osborne_one broyden_banded"

HARDER_HALF = """
    rosenbrock rosenbrock20 rosenbrock100 beale himmelblau bard meyer gulf powell_singular
    powell_badly_scaled brown_badly_scaled osborne_one mlp quadratic logistic chebyquad8
"""
# Of what is tagged "float32", those that differ in kind: curved, convex with data, singular, a fit,
# and many variables. LBFGS runs them all.
SMOOTH_IN_FLOAT32 = "rosenbrock20 logistic powell_singular kowalik_osborne chebyquad8"

# Rounding of f keeps the gradient of Meyer above 1e-8 times its scale, 1e9: STALLED is right.
ROWS = (
    Row(
        name="TrustRegion-exact",
        make=lambda case: jol.TrustRegion(subproblem="exact"),
        tol=1e-8,
        max_steps=2000,
        cases=_names("rosenbrock100"),  # by the hundred columns of its Hessian it takes seconds
        stubborn=frozenset({"meyer"}),
        # The rest is the next row's but one: what float32 does to f it does to both.
        float32=_split(SMOOTH_IN_FLOAT32 + " mlp gulf biggs_exp6 penalty_one_10"),
    ),
    Row(
        name="TrustRegion-cg",
        make=lambda case: jol.TrustRegion(subproblem="cg"),
        tol=1e-6,
        max_steps=2000,
        # The harder half of the table: the skeleton and most of the rest are the row above's.
        cases=_split(
            """
            rosenbrock rosenbrock20 rosenbrock100 beale booth himmelblau wood bard box meyer
            gulf powell_singular powell_badly_scaled brown_badly_scaled osborne_one mlp
            quadratic logistic helical_valley chebyquad8
            """
        ),
        stubborn=frozenset({"meyer"}),
        float32=("rosenbrock20", "beale", "wood", "logistic", "powell_singular", "bard"),
        unrolls=False,
    ),
    Row(
        name="LBFGS",
        make=lambda case: jol.LBFGS(),
        tol=1e-7,
        max_steps=3000,
        cases=_names(),
        # Condition 1e6 and 20 variables with 10 pairs: the last digits of the gradient take long.
        stubborn=frozenset({"meyer", "quadratic"}),
        float32=_names(tagged="float32"),
    ),
    Row(
        name="LBFGSB",
        make=lambda case: jol.LBFGSB(),
        tol=1e-7,
        max_steps=3000,
        cases=_split(HARDER_HALF),  # without bounds it is the row above, but for the search
        stubborn=frozenset({"meyer", "quadratic"}),
        float32=_split(SMOOTH_IN_FLOAT32),
    ),
    Row(
        name="TRON",
        make=lambda case: jol.TRON("exact"),
        tol=1e-8,
        max_steps=2000,
        cases=_split(HARDER_HALF.replace("rosenbrock100", "")),
        stubborn=frozenset({"meyer"}),
        float32=_split(SMOOTH_IN_FLOAT32),
        unrolls=False,
    ),
    Row(
        name="TRON-cg",
        make=lambda case: jol.TRON("cg"),
        tol=1e-6,
        max_steps=2000,
        cases=_split("rosenbrock20 rosenbrock100 wood mlp logistic chebyquad8"),
        float32=("rosenbrock20", "beale"),
        unrolls=False,
        variant=True,
    ),
    Row(
        name="AugmentedLagrangian",  # with constraints: test_augmented_lagrangian.py
        make=lambda case: jol.AugmentedLagrangian(),
        tol=1e-7,
        max_steps=3000,
        cases=_split("booth rosenbrock rosenbrock20 wood bard box mlp logistic helical_valley"),
        float32=_split(SMOOTH_IN_FLOAT32),
    ),
    Row(
        name="Newton",
        make=lambda case: jol.Newton(),
        tol=1e-8,
        max_steps=2000,
        cases=_split(HARDER_HALF.replace("rosenbrock100", "")),
        stubborn=frozenset({"meyer"}),
        float32=_split(SMOOTH_IN_FLOAT32),
    ),
    Row(
        name="NewtonCG",
        make=lambda case: jol.NewtonCG(),
        tol=1e-6,
        max_steps=2000,
        cases=_split(HARDER_HALF),
        stubborn=frozenset({"meyer"}),
        float32=("rosenbrock20", "beale", "wood", "logistic", "powell_singular", "bard"),
        unrolls=False,
    ),
    *(
        Row(
            name=name,
            make=lambda case, solver=solver: solver,
            tol=1e-8,
            max_steps=2000,
            cases=_split(HARDER_HALF.replace("rosenbrock100", "osborne_two")),
            stubborn=frozenset({"meyer"}),
            float32=_split(SMOOTH_IN_FLOAT32),
        )
        for name, solver in (
            ("CubicNewton", jol.CubicNewton()),
            ("SaddleFreeNewton", jol.SaddleFreeNewton()),
        )
    ),
    Row(
        name="BFGS",
        make=lambda case: jol.BFGS(),
        tol=1e-7,
        max_steps=3000,
        cases=_split(HARDER_HALF.replace("rosenbrock100", "")),
        stubborn=frozenset({"meyer"}),
        # Not gulf and the two penalties: at 1e-3 it stops on plateaus far from their minima.
        float32=_split(SMOOTH_IN_FLOAT32),
    ),
    Row(
        name="SR1",
        make=lambda case: jol.SR1(),
        tol=1e-7,
        max_steps=3000,
        cases=_split(HARDER_HALF.replace("rosenbrock100", "")),
        stubborn=frozenset({"meyer"}),
        float32=_split(SMOOTH_IN_FLOAT32),
    ),
    Row(
        name="GradientDescent",
        make=lambda case: jol.GradientDescent(),
        tol=1e-6,
        max_steps=5000,
        cases=(*_names(tagged="first_order"), "rosenbrock", "wood", "bard", "brown_dennis"),
        float32=("beale", "booth", "himmelblau", "logistic", "rosenbrock", "chebyquad8"),
    ),
    Row(
        name="ProjectedGradient",
        make=lambda case: jol.ProjectedGradient(),
        tol=1e-6,
        max_steps=5000,
        cases=(*_names(tagged="first_order"), "rosenbrock", "wood"),
        float32=("beale", "booth", "himmelblau", "logistic", "rosenbrock", "chebyquad8"),
    ),
    Row(
        name="FixedStep",
        make=lambda case: jol.FixedStep(FIXED_STEPS[case]),
        tol=1e-6,
        max_steps=20_000,
        cases=("booth", "logistic", "linear_full_rank", "discrete_integral_equation"),
        float32=("booth", "logistic"),
        searches=False,
    ),
    *(
        Row(
            name=f"GradientDescent-{rule}",
            make=lambda case, rule=rule: jol.GradientDescent(rule),
            tol=1e-6,
            max_steps=5000,
            cases=_split("booth himmelblau logistic helical_valley discrete_integral_equation"),
            # Steep near its start, where "lipschitz" learns an L that it keeps.
            stubborn=frozenset({"helical_valley"} if rule == "lipschitz" else ()),
            float32=("booth", "logistic"),
            variant=True,
        )
        for rule in ("armijo", "wolfe", "lipschitz")
    ),
    Row(
        name="PolyakStep",
        make=lambda case: jol.PolyakStep(_minimum(case)),
        tol=1e-6,
        max_steps=20_000,
        cases=("booth", "linear_full_rank", "discrete_integral_equation", "broyden_banded"),
        float32=("booth",),
        searches=False,
        minimum_is_zero=True,
    ),
    Row(
        name="HeavyBall",
        make=lambda case: jol.HeavyBall(*HEAVY_BALLS[case]),
        tol=1e-6,
        max_steps=20_000,
        cases=("booth", "logistic", "linear_full_rank", "discrete_integral_equation"),
        float32=("booth", "logistic"),
        searches=False,
    ),
    # Methods for a non-smooth term, which is zero here; test_nonsmooth.py has those with one.
    Row(
        name="ISTA",
        make=lambda case: jol.ISTA(),
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic", "linear_full_rank", "beale"),
        float32=("booth", "logistic"),
    ),
    Row(
        name="FISTA",
        make=lambda case: jol.FISTA(),
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic", "linear_full_rank"),
        float32=("booth", "logistic"),
    ),
    Row(
        name="ProximalLBFGS",
        make=lambda case: jol.ProximalLBFGS(),
        tol=1e-7,
        max_steps=3000,
        cases=("booth", "logistic", "rosenbrock", "beale", "box", "quadratic"),
        stubborn=frozenset({"quadratic"}),  # as for LBFGS
        float32=("booth", "logistic", "beale"),
    ),
    Row(
        name="ProximalNewton",
        make=lambda case: jol.ProximalNewton(),
        tol=1e-8,
        max_steps=3000,
        # On Beale, Wood it takes no account of negative curvature: to infinity, or no end in sight.
        cases=("booth", "logistic", "rosenbrock", "box", "bard"),
        float32=("booth", "logistic", "rosenbrock"),
    ),
    Row(
        name="ProximalNewton-cg",
        make=lambda case: jol.ProximalNewton("cg"),
        variant=True,
        tol=1e-6,
        max_steps=3000,
        cases=("booth", "logistic", "rosenbrock"),
        unrolls=False,
    ),
    Row(
        name="CondatVu",
        make=lambda case: jol.CondatVu(),
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic"),
        float32=("booth",),
        unrolls=False,
        searches=False,
        extra_steps=1,  # a pair is measured a step after the one it comes from
    ),
    Row(
        name="ADMM",
        make=lambda case: jol.ADMM(),
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic"),
        float32=("booth",),
        unrolls=False,
        searches=False,
        extra_steps=1,  # a pair is measured a step after the one it comes from
    ),
    Row(
        name="DouglasRachford",
        make=lambda case: jol.DouglasRachford(),
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic"),
        float32=("booth",),
        unrolls=False,
        searches=False,
        extra_steps=1,  # a pair is measured a step after the one it comes from
    ),
    Row(
        name="CoordinateDescent",
        make=lambda case: jol.CoordinateDescent(),
        tol=1e-7,
        max_steps=3000,
        cases=("booth", "logistic", "linear_full_rank"),
        float32=("booth", "logistic"),
        searches=False,
    ),
    Row(
        name="BlockCoordinateDescent",
        make=lambda case: jol.BlockCoordinateDescent((0, 1)),
        tol=1e-7,
        max_steps=3000,
        cases=("booth",),  # of two variables, as many as there are labels
        float32=("booth",),
        searches=False,
    ),
    Row(
        name="Subgradient",  # of a smooth function: Polyak's gradient method
        make=lambda case: jol.Subgradient(minimum=_minimum(case)),
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "linear_full_rank"),
        float32=("booth",),
        searches=False,
        minimum_is_zero=True,
    ),
    Row(
        name="Nesterov",
        make=lambda case: jol.Nesterov(),
        tol=1e-6,
        max_steps=5000,
        cases=(*_names(tagged="first_order"), "rosenbrock", "mlp", "wood", "bard"),
        float32=("beale", "booth", "himmelblau", "logistic", "rosenbrock", "chebyquad8"),
    ),
    Row(
        name="Nesterov-mu",
        make=lambda case: jol.Nesterov(strong_convexity=0.01),
        variant=True,
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic", "linear_full_rank", "discrete_integral_equation"),
        float32=("booth", "logistic"),
    ),
    Row(
        name="Nesterov-fixed",
        make=lambda case: jol.Nesterov(0.5 * FIXED_STEPS[case], 0.01),
        variant=True,
        tol=1e-6,
        max_steps=5000,
        cases=("booth", "logistic", "linear_full_rank", "discrete_integral_equation"),
        float32=("booth", "logistic"),
        searches=False,
    ),
    Row(
        name="NonlinearCG",
        make=lambda case: jol.NonlinearCG(),
        tol=1e-6,
        max_steps=5000,
        # Without Meyer (condition 1e18), Powell's and Brown's badly scaled (1e15, 1e12): in valleys
        # as narrow, conjugate directions are rounding, and XLA's flags decide whether it arrives.
        cases=tuple(
            name
            for name in _split(HARDER_HALF)
            if name not in ("meyer", "powell_badly_scaled", "brown_badly_scaled")
        ),
        stubborn=frozenset({"quadratic"}),  # condition 1e6: as for L-BFGS, and longer
        float32=_split(SMOOTH_IN_FLOAT32),
    ),
    *(
        Row(
            name=f"NonlinearCG-{method}",
            make=lambda case, method=method: jol.NonlinearCG(method),
            tol=1e-6,
            max_steps=5000,
            cases=_split("booth rosenbrock rosenbrock20 wood mlp logistic beale chebyquad8"),
            float32=("booth", "rosenbrock", "beale"),
            variant=True,
        )
        for method in ("polak-ribiere", "hager-zhang")
    ),
    Row(
        name="PerturbedGradientDescent",
        make=lambda case: jol.PerturbedGradientDescent(FIXED_STEPS[case], patience=50),
        tol=1e-6,
        max_steps=20_000,
        cases=("booth", "logistic", "linear_full_rank", "discrete_integral_equation"),
        float32=("booth", "logistic"),
        searches=False,
        extra_steps=50,
    ),
    *(
        Row(
            name=name,
            make=lambda case, solver=solver: solver,
            tol=1e-7,
            max_steps=1000,
            cases=_split(cases),
            stubborn=frozenset({"meyer", "jennrich_sampson", "brown_dennis"}),
            float32=_split("booth bard box rosenbrock broyden_banded"),
            unrolls=name == "NaturalGradient",
            variant=name.endswith(("-qr", "-chol", "-cg")),
            residuals=True,
        )
        for name, solver, cases in (
            ("LevenbergMarquardt", jol.LevenbergMarquardt(), RESIDUAL_CASES),
            ("LevenbergMarquardt-weight", jol.LevenbergMarquardt("weight"), SOME_RESIDUALS),
            ("LevenbergMarquardt-qr", jol.LevenbergMarquardt("weight", "qr"), "booth bard gulf"),
            ("LevenbergMarquardt-chol", jol.LevenbergMarquardt("radius", "cholesky"), "booth bard"),
            ("Dogleg", jol.Dogleg(), SOME_RESIDUALS),
            ("GaussNewton", jol.GaussNewton(), "booth bard gaussian rosenbrock broyden_banded"),
            ("NaturalGradient", jol.NaturalGradient("exact"), SOME_RESIDUALS),
            ("NaturalGradient-cg", jol.NaturalGradient("cg"), "booth bard gulf broyden_banded"),
        )
    ),
    Row(
        name="Optax-adam",
        make=lambda case: jol.Optax(ADAM),
        tol=1e-5,
        max_steps=5000,
        cases=("booth", "beale", "himmelblau", "logistic", "rosenbrock"),
        float32=("booth", "beale"),
        searches=False,
        foreign_state=True,
    ),
    Row(
        name="Optax-lbfgs",
        make=lambda case: jol.Optax(OPTAX_LBFGS),
        tol=1e-6,
        max_steps=1000,
        cases=("booth", "rosenbrock", "beale", "logistic", "helical_valley"),
        float32=("booth", "beale"),
        searches=False,  # optax's line search is its own
        unrolls=False,  # and so is the loop inside it
        foreign_state=True,
    ),
)

_BY_NAME = {row.name: row for row in ROWS}


def row_by_name(name: str) -> Row:
    return _BY_NAME[name]


def pairs(*, float32: bool = False) -> list[tuple[Row, Case]]:
    """Every (row, case) that is to be run."""
    return [
        (row, by_name(name)) for row in ROWS for name in (row.float32 if float32 else row.cases)
    ]


def case_data(case: Case, dtype=np.float64):
    """Start and arguments of a case in a dtype."""
    cast = functools.partial(jnp.asarray, dtype=dtype)
    return cast(case.x0), jax.tree.map(cast, case.args)


@functools.cache
def problem_of(case: Case, residuals: bool = False) -> jol.Problem:
    """The case as a plain objective, or as the sum of its squared residuals, equal in value."""
    if not residuals:
        return jol.Problem(case.objective)
    return jol.Problem(jol.Composite(residuals_of(case), _sum_of_squares, separable=True))


def _sum_of_squares(residuals, *args):
    return jnp.sum(residuals * residuals)


# Cases written as one expression, in parts.
_PARTS = {
    "booth": lambda x: jnp.stack([x[0] + 2 * x[1] - 7, 2 * x[0] + x[1] - 5]),
    "rosenbrock": lambda x: jnp.stack([10 * (x[1] - x[0] ** 2), 1 - x[0]]),
    "rosenbrock20": lambda x: jnp.concatenate([10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]]),
}


def residuals_of(case: Case) -> Callable[..., jax.Array]:
    """What the objective of a case squares and sums, caught where it does so."""
    if case.name in _PARTS:
        return _PARTS[case.name]

    def residual(x, *args):
        caught = []

        def catch(r):
            caught.append(jnp.ravel(r))
            return jnp.sum(r * r)

        with unittest.mock.patch.object(problems, "_sum_of_squares", catch):
            case.objective(x, *args)
        return jnp.concatenate(caught)

    return residual


@functools.cache
def gradient_of(case: Case) -> Callable[..., jax.Array]:
    """The gradient of the plain objective: what checks an answer without asking any solver."""
    return jax.jit(jax.grad(case.objective))


@functools.cache
def answer(row: Row, case: Case) -> Solution:
    """The row's answer to the case in float64."""
    x0, args = case_data(case)
    solver = row.make(case.name)
    return jol.solve(
        problem_of(case, row.residuals),
        x0,
        args,
        solver=solver,
        tol=row.tol,
        max_steps=row.max_steps,
    )


# -- a small family of problems that every row solves ----------------------------------------------


def penalised_cosh(x, weight, centre):
    """sum log cosh(x - c) + w |x|^2 / 2: convex, gradient Lipschitz with 1 + w, Hessian >= w."""
    distance = x - centre
    # log cosh t = |t| + log(1 + exp(-2|t|)) - log 2, which does not overflow; even and smooth.
    return jnp.sum(jnp.logaddexp(distance, -distance)) + 0.5 * weight * jnp.sum(x * x)


def _shifts(x, weight, centre):
    return x - centre, x


def _cosh_and_square(z, weight, centre):
    return jnp.sum(jnp.logaddexp(z[0], -z[0])) + 0.5 * weight * jnp.sum(z[1] * z[1])


PENALISED_COSH = jol.Composite(_shifts, _cosh_and_square, separable=True)  # the same in two parts


def squared_slope(x, weight, centre):
    """Half the square of the family's gradient, weighted: the same minimiser, where it is 0."""
    slope = jnp.tanh(x - centre) + weight * x
    return 0.5 * jnp.sum(jnp.arange(1, x.size + 1, dtype=x.dtype) * slope * slope)


FAMILY = jol.Problem(penalised_cosh)
ZERO_FAMILY = jol.Problem(squared_slope)
RESIDUAL_FAMILY = jol.Problem(PENALISED_COSH)


def family(row: Row, **features) -> jol.Problem:
    """The family as the row takes it."""
    if features:
        return jol.Problem(PENALISED_COSH if row.residuals else penalised_cosh, **features)
    if row.minimum_is_zero:
        return ZERO_FAMILY
    return RESIDUAL_FAMILY if row.residuals else FAMILY


def family_solver(row: Row) -> Solver:
    return row.make("penalised_cosh")
