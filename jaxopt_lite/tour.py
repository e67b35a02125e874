"""The main job: solve, certify, differentiate, batch and look, on real data.

breast-cancer data -> logistic regression by three solvers -> certificates
                   -> derivative of the optimum in its penalty, against finite differences
Himmelblau's function -> a thousand starts in one program -> its critical points, classified
"""

import pathlib
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from .certify import CriticalPoint, Kind, certify, find_critical_points
from .core import Problem, Solution, Solver, solve
from .solvers import LBFGS, GradientDescent, TrustRegion

SOLVERS: dict[str, Solver] = {
    "TrustRegion": TrustRegion(),
    "LBFGS": LBFGS(),
    "GradientDescent": GradientDescent(),
}
PENALTY = 1e-2


class Split(NamedTuple):
    """Standardised features (n, 30) and labels in {-1, 1} (n,), for training and for validation."""

    features: np.ndarray
    labels: np.ndarray
    held_out_features: np.ndarray
    held_out_labels: np.ndarray


def breast_cancer() -> Split:
    """scikit-learn's bundled breast-cancer data: 569 samples, 30 features, a quarter held out."""
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ImportError(
            "the tour reads scikit-learn's bundled data: `pip install jaxopt_lite[examples]`."
        ) from error
    features, target = load_breast_cancer(return_X_y=True)
    features = (features - features.mean(0)) / features.std(0)
    labels = np.where(target == 1, 1.0, -1.0)
    order = np.random.default_rng(0).permutation(len(labels))
    train, held_out = order[142:], order[:142]
    return Split(features[train], labels[train], features[held_out], labels[held_out])


def logistic_loss(w: dict[str, jax.Array], features: ArrayLike, labels: ArrayLike) -> jax.Array:
    """Mean of log(1 + exp(-y (x'w + b)))."""
    margin = labels * (jnp.asarray(features) @ w["weights"] + w["intercept"])
    return jnp.mean(jnp.logaddexp(0.0, -margin))


def penalised(w: dict[str, jax.Array], data: Any, penalty: jax.Array) -> jax.Array:
    """Logistic loss + penalty/2 |weights|^2; the intercept is free."""
    return logistic_loss(w, *data) + 0.5 * penalty * jnp.sum(w["weights"] ** 2)


def himmelblau(x: jax.Array) -> jax.Array:
    """(x1^2 + x2 - 11)^2 + (x1 + x2^2 - 7)^2: four minima, four saddles, one maximum."""
    return (x[0] ** 2 + x[1] - 11) ** 2 + (x[0] + x[1] ** 2 - 7) ** 2


MODEL = Problem(penalised)


def start(features: np.ndarray) -> dict[str, jax.Array]:
    """All weights zero."""
    return {"weights": jnp.zeros(features.shape[1]), "intercept": jnp.zeros(())}


def fit_with_each_solver(data: Split) -> dict[str, Solution]:
    """Solve the same problem three ways; print iterations, evaluations, time and certificates."""
    args = ((data.features, data.labels), PENALTY)
    x0 = start(data.features)
    print("Logistic regression on breast-cancer data, 427 samples, 31 variables\n")
    print(f"{'solver':<17}{'iterations':>11}{'evaluations':>12}{'compile s':>11}{'solve ms':>10}  ")
    solutions = {}
    for name, solver in SOLVERS.items():

        def run(solver=solver):
            options = {"solver": solver, "history": True, "max_steps": 500}
            return jax.block_until_ready(solve(MODEL, x0, args, **options))

        first = _seconds(run)
        again = min(_seconds(run) for _ in range(5))
        solutions[name] = solution = run()
        iterations, evaluations = int(solution.state.accepted), int(solution.steps)
        row = (
            f"{name:<17}{iterations:>11}{evaluations:>12}{first - again:>11.2f}{1e3 * again:>10.2f}"
        )
        certificate = certify(MODEL, solution, args)
        print(row + f"   {Kind(int(certificate.verdict)).verdict}")
    print(f"\n{certify(MODEL, solutions['TrustRegion'], args)}\n")
    return solutions


def _seconds(job: Any) -> float:
    """Wall time of one call."""
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def differentiate_the_optimum(data: Split) -> None:
    """How the held-out loss at the optimum moves with the penalty, against differences."""
    x0 = start(data.features)
    train = (data.features, data.labels)

    @jax.jit
    def held_out_loss(penalty):
        w = solve(MODEL, x0, (train, penalty), tol=1e-10).x
        return logistic_loss(w, data.held_out_features, data.held_out_labels)

    slope = jax.jit(jax.grad(held_out_loss))
    print("d (held-out loss at the optimum) / d (log penalty)\n")
    print(f"{'penalty':>9}{'held-out loss':>15}{'implicit':>14}{'differences':>14}{'apart by':>10}")
    for penalty in (1e-3, 1e-2, 1e-1):
        h = 1e-4
        differences = (held_out_loss(penalty * (1 + h)) - held_out_loss(penalty * (1 - h))) / (
            2 * h
        )
        implicit = penalty * slope(penalty)
        apart = abs(float(implicit - differences))
        print(
            f"{penalty:>9g}{float(held_out_loss(penalty)):>15.8f}{float(implicit):>14.9f}"
            f"{float(differences):>14.9f}{apart:>10.1e}"
        )
    print()


def explore_a_landscape() -> CriticalPoint:
    """Find and classify the critical points of Himmelblau's function from a thousand starts."""
    print("Himmelblau's function, 1,000 starts in one program")
    found = find_critical_points(himmelblau, np.array([-5.0, -5.0]), np.array([5.0, 5.0]))
    print(f"{found}\n")
    return found.points


def draw(
    data: Split, fits: dict[str, Solution], points: CriticalPoint, folder: pathlib.Path
) -> None:
    """Write the pictures: convergence, spectrum, landscape, and weights against the penalty."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    from . import plotting

    folder.mkdir(parents=True, exist_ok=True)
    train = (data.features, data.labels)
    certificate = certify(MODEL, fits["TrustRegion"], (train, PENALTY))
    assert certificate.second_order is not None  # there are no constraints
    penalties = jnp.logspace(-4, 1, 60)
    x0 = start(data.features)
    weights = jax.jit(jax.vmap(lambda p: solve(MODEL, x0, (train, p)).x["weights"]))(penalties)

    figure, axes = plt.subplots(2, 2, figsize=(11, 9), layout="constrained")
    plotting.convergence(fits, ax=axes[0, 0]).set_title("Three solvers, one problem")
    plotting.spectrum(certificate.second_order, ax=axes[0, 1]).set_title("Hessian at the optimum")
    plotting.landscape(
        himmelblau, np.array([-5, -5]), np.array([5, 5]), points, ax=axes[1, 0]
    ).set_title("Critical points of Himmelblau's function")
    plotting.path(penalties, weights, xlabel="penalty", ylabel="weight", ax=axes[1, 1]).set_title(
        "60 fits in one vmap"
    )
    figure.savefig(folder / "tour.png", dpi=120)
    plt.close(figure)
    print(f"Pictures: {folder / 'tour.png'}")


def tour(folder: pathlib.Path) -> None:
    """Everything, in double precision, in about a minute."""
    jax.config.update("jax_enable_x64", True)
    begin = time.perf_counter()
    data = breast_cancer()
    fits = fit_with_each_solver(data)
    differentiate_the_optimum(data)
    points = explore_a_landscape()
    draw(data, fits, points, folder)
    print(f"The whole tour took {time.perf_counter() - begin:.0f} s, compilation included.")
