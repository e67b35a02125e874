"""Models of machine learning against scikit-learn: single fits, folds x penalties, selection.

Every solver gets the loosest of its own tolerances at which what it returns is good enough, judged
by NumPy from the weights alone. Times are CPU-seconds, the best of several taken in turns.
"""

import os
import time
from importlib.metadata import version

os.environ.setdefault("OMP_NUM_THREADS", "1")

import jax
import jax.numpy as jnp
import numpy as np
from sklearn import datasets, linear_model, svm

from jaxopt_lite import learning

from .data import correlated
from .harness import benchmark, table

TOLERANCES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9)


def design(n, p, seed=0):
    """Columns correlated as 0.5^|i - j|."""
    rng = np.random.default_rng(seed)
    return correlated(rng, n, p), rng


class _Row:
    """A solver at the loosest tolerance whose error is at most the target."""

    def __init__(self, name, make, judge, target, tolerances=TOLERANCES):
        self.name, self.times, self.first = name, [], None
        for tol in tolerances:
            self.call, start = make(tol), time.process_time()
            answer = self.call()
            if self.first is None:  # where it is compiled
                self.first = time.process_time() - start
            self.error = judge(answer)
            if self.error <= target:
                break
        self.met = "" if self.error <= target else " (not met)"
        self.tol = tol

    def sample(self):
        wall, start = time.perf_counter(), time.process_time()
        self.call()
        self.times.append((time.process_time() - start, time.perf_counter() - wall))

    def cells(self, base):
        cpu, wall = np.min(self.times, 0)
        tol = "-" if self.tol is None else f"{self.tol:.0e}"
        times = [f"{1e3 * cpu:.1f}", f"{1e3 * wall:.1f}", f"{cpu / base:.2f}"]
        first = f"{max(self.first - cpu, 0):.1f}"
        return [self.name, tol, f"{self.error:.1e}{self.met}", *times, first]


def _compared(title, error, rows, samples):
    for turn in range(samples):
        for row in rows[:: 1 if turn % 2 == 0 else -1]:
            if not row.times or row.times[0][0] < 2:
                row.sample()
    base = np.min(rows[0].times, 0)[0]
    header = ("solver", "its tol", error, "CPU ms", "wall ms", "CPU / ours", "first call s")
    return table(header, [row.cells(base) for row in rows], title)


# -- single fits ----------------------------------------------------------------------------------


def _log_loss(X, sign, penalty, w, b):
    return np.mean(np.logaddexp(0, -sign * (X @ w + b))) + penalty / 2 * w @ w


def _logistic(samples, n=10_000, p=100, penalty=1e-3):
    X, rng = design(n, p)
    w = np.where(rng.random(p) < 0.2, rng.standard_normal(p), 0)
    y = (X @ w + rng.logistic(size=n) > 0).astype(int)
    Xj, yj, sign = jnp.asarray(X), jnp.asarray(y), 2 * y - 1
    exact = learning.logistic(Xj, yj, penalty, tol=1e-13)
    best = _log_loss(X, sign, penalty, *map(np.asarray, exact.x))

    def judge(answer):
        return max((_log_loss(X, sign, penalty, *answer) - best) / best, 0)

    def ours(method):
        def make(tol):
            def run():
                fit = learning.logistic(Xj, yj, penalty, method=method, tol=tol)
                return np.asarray(fit.x.weights), float(fit.x.intercept)

            return run

        return make

    def theirs(solver):
        def make(tol):
            model = linear_model.LogisticRegression(
                C=1 / (n * penalty), solver=solver, tol=tol, max_iter=1000
            )

            def run():
                model.fit(X, y)
                return model.coef_[0], model.intercept_[0]

            return run

        return make

    rows = [_Row(f"ours, {m}", ours(m), judge, 1e-8) for m in ("lbfgs", "newton")]
    rows += [
        _Row(f"scikit-learn {s}", theirs(s), judge, 1e-8)
        for s in ("lbfgs", "newton-cholesky", "newton-cg")
    ]
    return _compared(f"logistic regression, n = {n}, p = {p}", "(f - f*) / f*", rows, samples)


def _machine(samples, n, target):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, 10))
    signal = X[:, 0] * X[:, 1] + 0.5 * X[:, 2] + 0.5 * rng.standard_normal(n)
    y = np.where(signal > 0, 1.0, -1.0)
    Xj, yj, kernel = jnp.asarray(X), jnp.asarray(y), learning.kernels.RBF(0.1)
    K = np.asarray(kernel(Xj, Xj))

    def judge(answer):
        b, bias = answer
        product = K @ b
        square = b @ product
        primal = square / 2 + np.maximum(0, 1 - y * (product + bias)).sum()
        return (primal - (np.abs(b).sum() - square / 2)) / primal

    def ours(tol):
        def run():
            fit = learning.svc(Xj, yj, 1.0, kernel=kernel, tol=tol)
            return np.asarray(fit.x.weights), float(fit.x.intercept)

        return run

    def theirs(tol):
        model = svm.SVC(C=1.0, gamma=0.1, tol=tol, cache_size=1000)

        def run():
            model.fit(X, y)
            full = np.zeros(n)
            full[model.support_] = model.dual_coef_[0]
            return full, model.intercept_[0]

        return run

    rows = [_Row("ours, SMO", ours, judge, target), _Row("libsvm", theirs, judge, target)]
    return _compared(
        f"support vector machine, RBF, n = {n}, gap {target:.0e}", "gap / primal", rows, samples
    )


# -- folds x penalties ----------------------------------------------------------------------------


def _ridge_folds(samples, n=2000, p=500, folds=10):
    X, rng = design(n, p)
    y = X[:, :20].sum(1) + rng.standard_normal(n)
    penalties = np.geomspace(10, 1e-3, 200)
    Xj, yj = jnp.asarray(X), jnp.asarray(y)
    rests = [np.setdiff1d(np.arange(n), block) for block in np.array_split(np.arange(n), folds)]

    def judge(weights):
        """The residual of the normal equations, relative to their right-hand side."""
        worst = 0.0
        for rest, fits in zip(rests, weights, strict=True):
            A = X[rest] - X[rest].mean(0)
            push = A.T @ (y[rest] - y[rest].mean()) / len(rest)
            off = push - (A.T @ (A @ fits.T)).T / len(rest) - penalties[:, None] * fits
            worst = max(worst, np.abs(off).max() / np.abs(push).max())
        return worst

    def ours(_):
        return lambda: np.asarray(learning.ridge_folds(Xj, yj, penalties, folds=folds).x.weights)

    def theirs(_):
        def run():
            return np.array(
                [
                    [
                        linear_model.Ridge(alpha=t * len(rest), solver="cholesky")
                        .fit(X[rest], y[rest])
                        .coef_
                        for t in penalties
                    ]
                    for rest in rests
                ]
            )

        return run

    rows = [_Row("ours", ours, judge, 1e-8, (None,))]
    rows += [_Row("scikit-learn, a loop of Cholesky fits", theirs, judge, 1e-8, (None,))]
    title = f"ridge regression, {folds} folds of 200 penalties, n = {n}, p = {p}"
    return _compared(title, "normal equations", rows, samples)


def _logistic_folds(samples, n=10_000, p=100, folds=5):
    X, rng = design(n, p)
    w = np.where(rng.random(p) < 0.2, rng.standard_normal(p), 0)
    y = (X @ w + rng.logistic(size=n) > 0).astype(int)
    penalties = np.geomspace(1, 1e-4, 20)
    Xj, yj = jnp.asarray(X), jnp.asarray(y)
    rests = [np.setdiff1d(np.arange(n), block) for block in np.array_split(np.arange(n), folds)]
    exact = learning.logistic_folds(Xj, yj, penalties, folds=folds, tol=1e-12, method="newton")

    def losses(answer):
        weights, levels = answer
        return np.array(
            [
                [
                    _log_loss(X[rest], 2 * y[rest] - 1, t, w, b)
                    for t, w, b in zip(penalties, ws, bs, strict=True)
                ]
                for rest, ws, bs in zip(rests, weights, levels, strict=True)
            ]
        )

    best = losses(tuple(map(np.asarray, exact.x)))

    def judge(answer):
        return max(float(np.max((losses(answer) - best) / best)), 0)

    def ours(method):
        def make(tol):
            def run():
                fit = learning.logistic_folds(
                    Xj, yj, penalties, folds=folds, tol=tol, method=method
                )
                return tuple(map(np.asarray, fit.x))

            return run

        return make

    def theirs(warm):
        def make(tol):
            def run():
                weights, levels = np.empty((folds, 20, p)), np.empty((folds, 20))
                for k, rest in enumerate(rests):
                    A, b = X[rest], y[rest]
                    model = linear_model.LogisticRegression(warm_start=warm, tol=tol, max_iter=1000)
                    for i, t in enumerate(penalties):
                        model.C = 1 / (len(rest) * t)
                        model.fit(A, b)
                        weights[k, i], levels[k, i] = model.coef_[0], model.intercept_[0]
                return weights, levels

            return run

        return make

    rows = [_Row(f"ours, {m}", ours(m), judge, 1e-8) for m in ("lbfgs", "newton")]
    rows += [
        _Row("scikit-learn lbfgs, warm starts", theirs(True), judge, 1e-8),
        _Row("scikit-learn lbfgs", theirs(False), judge, 1e-8),
    ]
    title = f"logistic regression, {folds} folds of 20 penalties, n = {n}, p = {p}"
    return _compared(title, "(f - f*) / f*", rows, samples)


# -- selection ------------------------------------------------------------------------------------


def _elastic(hyper, train):
    return learning.lasso(*train, hyper[0], ridge=hyper[1], working_set=256)


def _square(x, held):
    predicted = x(held[0]) if callable(x) else held[0] @ x
    return jnp.mean((held[1] - predicted) ** 2)


def _selection(samples, n=1000, p=500):
    X, rng = design(2 * n, p)
    signal = X @ np.where(rng.random(p) < 0.1, rng.standard_normal(p), 0)
    y = signal + rng.standard_normal(2 * n) * np.linalg.norm(signal) / np.sqrt(2 * n) / 2
    A, b, H, c = X[:n], y[:n], X[n:], y[n:]
    train, held = (jnp.asarray(A), jnp.asarray(b)), (jnp.asarray(H), jnp.asarray(c))
    top = np.abs(A.T @ b).max() / n
    start = jnp.array([top / 10, top / 100])

    def ours(_):
        def run():
            found = learning.tune(_elastic, _square, start, train, held)
            return np.asarray(found.aux)

        return run

    ratios = np.linspace(0.1, 1, 10)

    def fits(_):
        gram = A.T @ A

        def run():
            best = (np.inf, None)
            for ratio in ratios:
                for alpha in np.geomspace(1, 1e-3, 30) * top / ratio:
                    model = linear_model.ElasticNet(
                        alpha=alpha, l1_ratio=ratio, fit_intercept=False, precompute=gram, tol=1e-6
                    ).fit(A, b)
                    best = min(
                        best, (np.mean((c - H @ model.coef_) ** 2), alpha), key=lambda t: t[0]
                    )
                    if best[1] == alpha:
                        chosen = model.coef_
            return chosen

        return run

    def paths(_):
        def run():
            best, chosen = np.inf, None
            for ratio in ratios:
                alphas = np.geomspace(1, 1e-3, 30) * top / ratio
                weights = linear_model.enet_path(
                    A, b, l1_ratio=ratio, alphas=alphas, precompute=True, tol=1e-6
                )[1]
                losses = np.mean((c[:, None] - H @ weights) ** 2, 0)
                if losses.min() < best:
                    best, chosen = losses.min(), weights[:, losses.argmin()]
            return chosen

        return run

    rows = [
        _Row(name, make, lambda w: np.mean((c - H @ w) ** 2), np.inf, (None,))
        for name, make in (
            ("ours, tune", ours),
            ("scikit-learn, 30 x 10 fits, Gram", fits),
            ("scikit-learn, 10 paths of 30, Gram", paths),
        )
    ]
    exact = ", ".join(f"{row.name} {row.error:.4f}" for row in rows)
    title = f"two penalties of an elastic net by a hold-out loss, n = {n}, p = {p}"
    found = _compared(title, "validation loss", rows, samples)
    return f"{found}\n\nValidation losses: {exact}."


def _thousand(samples, n=2000, p=1000):
    """A fit, and the gradient of a validation loss in a penalty for each feature."""
    X, rng = design(2 * n, p)
    w = np.where(rng.random(p) < 0.1, rng.standard_normal(p), 0)
    y = X @ w + rng.standard_normal(2 * n)
    train, held = [(jnp.asarray(X[s]), jnp.asarray(y[s])) for s in (slice(n), slice(n, None))]

    def ridge(h, data):
        return learning.ridge(*data, h)

    def lasso(h, data):
        return learning.lasso(*data, 0.1, weights=h, working_set=256)

    def logistic(h, data):
        return learning.logistic(data[0], data[1], h, method="lbfgs")

    def log_loss(x, data):
        return jnp.mean(jax.nn.softplus(-jnp.sign(data[1]) * x(data[0])))

    rows = []
    for name, model, loss, scale in (
        ("ridge", ridge, _square, 0.01),
        ("lasso", lasso, _square, 1.0),
        ("logistic, L-BFGS", logistic, log_loss, 0.01),
    ):
        hyper = jnp.full(p, scale)
        fit = jax.jit(lambda h, t, v, model=model, loss=loss: loss(model(h, t).x, v))
        both = jax.jit(learning.hypergradient(model, loss))
        times = []
        for turn in range(samples + 1):
            pair = []
            for call in (fit, both):
                start = time.process_time()
                jax.block_until_ready(call(hyper, train, held))
                pair.append(time.process_time() - start)
            if turn:
                times.append(pair)
        alone, together = np.min(times, 0)
        rows.append(
            [name, f"{1e3 * alone:.1f}", f"{1e3 * together:.1f}", f"{together / alone:.2f}"]
        )
    header = ("model", "fit CPU ms", "fit and gradient CPU ms", "ratio")
    title = f"gradient of a hold-out loss in {p} penalties, one a feature, n = {n}, p = {p}"
    return table(header, rows, title)


# -- the same answers -----------------------------------------------------------------------------


def _parity():
    """Coefficients and objectives on scikit-learn's bundled data."""
    rows = []

    def row(name, ours, theirs, objective):
        ours, theirs = [
            np.concatenate([np.ravel(part) for part in parts]) for parts in (ours, theirs)
        ]
        values = [objective(parts) for parts in (ours, theirs)]
        apart = np.abs(ours - theirs).max() / np.abs(theirs).max()
        rows.append([name, f"{apart:.1e}", f"{(values[0] - values[1]) / abs(values[1]):+.1e}"])

    X, y = datasets.load_diabetes(return_X_y=True)
    X = (X - X.mean(0)) / X.std(0)
    n, p = X.shape

    def squares(parts, s):
        w, b = parts[:p], parts[p]
        return np.mean((y - X @ w - b) ** 2) / 2 + s[0] * np.abs(w).sum() + s[1] / 2 * w @ w

    fit, peer = learning.ridge(X, y, 0.1), linear_model.Ridge(0.1 * n).fit(X, y)
    row("ridge, diabetes", fit.x, (peer.coef_, peer.intercept_), lambda v: squares(v, (0, 0.1)))
    for name, model in (
        ("lasso", linear_model.Lasso(1.0, tol=1e-13, max_iter=10**6)),
        ("elastic net", linear_model.ElasticNet(1.0, tol=1e-13, max_iter=10**6)),
    ):
        l1 = 1.0 if name == "lasso" else 0.5
        fit, peer = learning.lasso(X, y - y.mean(), l1, ridge=1 - l1), model.fit(X, y)
        theirs = (peer.coef_, peer.intercept_)
        row(f"{name}, diabetes", (fit.x, y.mean()), theirs, lambda v, r=l1: squares(v, (r, 1 - r)))
    for load in (datasets.load_breast_cancer, datasets.load_iris, datasets.load_digits):
        A, labels = load(return_X_y=True)
        A = (A - A.mean(0)) / np.where(A.std(0) > 0, A.std(0), 1)
        k = labels.max() + 1

        def loss(v, A=A, labels=labels, k=k):
            m = 1 if k == 2 else k
            W, b = v[: A.shape[1] * m].reshape(-1, m), v[A.shape[1] * m :]
            z = A @ W + b
            z = np.concatenate([0 * z, z], 1) if k == 2 else z
            top = z.max(1, keepdims=True)
            whole = top[:, 0] + np.log(np.exp(z - top).sum(1))
            return np.mean(whole - z[np.arange(len(A)), labels]) + 0.005 * np.sum(W * W)

        fit = learning.logistic(A, labels, 0.01, tol=1e-10, method="lbfgs" if k > 3 else None)
        peer = linear_model.LogisticRegression(
            C=100 / len(A), tol=1e-11, solver="newton-cholesky", max_iter=1000
        ).fit(A, labels)
        theirs = (peer.coef_.T, peer.intercept_ - (peer.intercept_.mean() if k > 2 else 0))
        row(f"logistic, {load.__name__[5:]}", fit.x, theirs, loss)
    counts = np.round(y / 10)

    def deviance(v):
        z = X @ v[:p] + v[p]
        return np.mean(np.exp(z) - counts * z) + 0.05 * v[:p] @ v[:p]

    fit = learning.poisson(X, counts, 0.1, tol=1e-11)
    peer = linear_model.PoissonRegressor(alpha=0.1, tol=1e-13, solver="newton-cholesky")
    peer.fit(X, counts)
    row("Poisson, diabetes", fit.x, (peer.coef_, peer.intercept_), deviance)
    A, labels = datasets.load_breast_cancer(return_X_y=True)
    A, sign = (A - A.mean(0)) / A.std(0), 2 * labels - 1
    kernel = learning.kernels.RBF(1 / 30)
    K = np.asarray(kernel(jnp.asarray(A), jnp.asarray(A)))

    def primal(v):
        b, bias = v[:-1], v[-1]
        return b @ K @ b / 2 + np.maximum(0, 1 - sign * (K @ b + bias)).sum()

    fit = learning.svc(A, sign, 1.0, kernel=kernel, tol=1e-10)
    peer = svm.SVC(C=1.0, gamma=1 / 30, tol=1e-10).fit(A, sign)
    full = np.zeros(len(A))
    full[peer.support_] = peer.dual_coef_[0]
    row("support vector machine, breast cancer", fit.x, (full, peer.intercept_), primal)
    header = ("model", "coefficients apart", "objective, ours less theirs")
    return table(header, rows, "the same answers, relative to the largest coefficient")


@benchmark("learning", "models of machine learning: fits, folds, selection")
def learning_models(quick: bool) -> list[str]:
    few = 2 if quick else 7
    blocks = [_parity(), _logistic(few), _machine(few, 1000, 1e-5), _machine(few, 1000, 1e-7)]
    if not quick:
        blocks += [_machine(few, 5000, 1e-5), _machine(few, 5000, 1e-7)]
        blocks += [_ridge_folds(3), _logistic_folds(3)]
    blocks += [_selection(few), _thousand(few)]
    note = (
        "Judged by NumPy from the weights alone; best of turns taken together, one process on one "
        "core. First call: tracing and compiling. libsvm keeps its kernel matrix in float32. "
        f"scikit-learn {version('scikit-learn')}."
    )
    return [*blocks, note]
