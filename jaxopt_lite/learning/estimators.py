"""Estimators in scikit-learn's habit and with its conventions: a thin shell around the functions.

    fit(X, y) -> self    predict, decision_function, predict_proba, score    get_params, set_params

Fitted attributes end in an underscore; `solution_` is the `Solution`, with status and certificate.
They work in `Pipeline` and `GridSearchCV`, and without scikit-learn. Numbers are computed in JAX's
precision: enable float64 for scikit-learn's.
"""

import inspect
import itertools
import warnings
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpy import ndarray

from ..core import Status
from . import kernels
from .glm import logistic
from .lasso import lasso
from .ridge import ridge
from .svm import svc

__all__ = ["SVC", "ElasticNet", "Lasso", "LogisticRegression", "Ridge"]


class Estimator:
    """Parameters, checked data, and what scikit-learn asks about a model."""

    kind: ClassVar[str] = "regressor"

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments of the constructor."""
        names = list(inspect.signature(type(self).__init__).parameters)[1:]
        return {name: getattr(self, name) for name in names}

    def set_params(self, **params: Any) -> "Estimator":
        """Change arguments of the constructor; ValueError for others."""
        known = self.get_params()
        for name, value in params.items():
            if name not in known:
                raise ValueError(
                    f"Invalid parameter {name!r} for estimator {self}. Valid parameters are: "
                    f"{sorted(known)}."
                )
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        """As it was called, less what is default."""
        defaults = inspect.signature(type(self).__init__).parameters
        parts = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if value is not defaults[name].default and value != defaults[name].default
        ]
        return f"{type(self).__name__}({', '.join(parts)})"

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn's meta-estimators ask; it calls this itself."""
        from sklearn import utils

        target = utils.TargetTags(required=True, multi_output=self.kind == "ridge")
        tags = utils.Tags(estimator_type="regressor", target_tags=target)
        if self.kind == "classifier":
            tags.estimator_type = "classifier"
            tags.classifier_tags = utils.ClassifierTags()
        else:
            tags.regressor_tags = utils.RegressorTags()
        return tags

    # -- data ---------------------------------------------------------------------------------

    def _rows(self, X: Any) -> ndarray:
        """X as floats: two axes, finite, as many columns as at the fit."""
        if hasattr(X, "tocsr"):
            raise TypeError(
                f"Sparse data was passed to {type(self).__name__}, which takes dense arrays. "
                "Call X.toarray()."
            )
        names = getattr(X, "columns", None)
        X = _floats(np.asarray(X))
        if X.ndim != 2:
            raise ValueError(
                f"Expected 2D array, got {X.ndim}D array instead. Reshape your data using "
                "X.reshape(-1, 1) if it has a single feature, X.reshape(1, -1) if a single sample."
            )
        for axis, what in ((0, "sample"), (1, "feature")):
            if X.shape[axis] == 0:
                raise ValueError(
                    f"Found array with 0 {what}(s) (shape={X.shape}) while a minimum of 1 is "
                    f"required by {type(self).__name__}."
                )
        _finite("X", X)
        if names is not None and all(isinstance(name, str) for name in names):
            self._names = np.asarray(names, dtype=object)
        return X

    def _new(self, X: Any) -> ndarray:
        if not hasattr(self, "n_features_in_"):
            raise _not_fitted(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with "
                "appropriate arguments before using this estimator."
            )
        X = self._rows(X)
        if X.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {X.shape[1]} features, but {type(self).__name__} is expecting "
                f"{self.n_features_in_} features as input."
            )
        return X

    def _pair(self, X: Any, y: Any, sample_weight: Any, columns: bool = False):
        """Rows, targets, weights or None, and sets `n_features_in_`."""
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        X, y = self._rows(X), np.asarray(y)
        if y.ndim == 2 and y.shape[1] == 1 and not columns:
            warnings.warn(
                "A column-vector y was passed when a 1d array was expected. Call y.ravel().",
                _conversion_warning(),
                stacklevel=3,
            )
            y = y[:, 0]
        if y.ndim != 1 and not (columns and y.ndim == 2):
            raise ValueError(f"y should be a 1d array, got an array of shape {y.shape} instead.")
        if len(y) != len(X):
            raise ValueError(
                f"Found input variables with inconsistent numbers of samples: {[len(X), len(y)]}."
            )
        self.n_features_in_ = X.shape[1]
        if hasattr(self, "_names"):
            self.feature_names_in_ = self.__dict__.pop("_names")
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, X.dtype)
            sample_weight = np.broadcast_to(sample_weight, (len(X),))
            if not np.any(sample_weight > 0):
                raise ValueError("A weight must be > 0 for some sample, but all are zero.")
        return X, y, sample_weight


class _Regressor(Estimator):
    def predict(self, X: Any) -> ndarray:
        """X @ coef_ + intercept_."""
        return self._new(X) @ self.coef_.T + self.intercept_

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """R^2, the coefficient of determination, of `predict`."""
        y = np.asarray(y, float)
        miss = np.average((y - self.predict(X)) ** 2, axis=0, weights=sample_weight)
        mean = np.average(y, axis=0, weights=sample_weight)
        spread = np.average((y - mean) ** 2, axis=0, weights=sample_weight)
        return float(np.mean(1 - miss / np.where(spread > 0, spread, 1)))

    def _keep(self, solution: Any, coef: Any, intercept: Any) -> None:
        self.solution_ = solution
        self.coef_ = np.asarray(coef)
        self.intercept_ = np.asarray(intercept) if np.ndim(intercept) else float(intercept)
        _warn(solution)


class Ridge(_Regressor):
    """min ||y - Xw - b||^2 + alpha ||w||^2; see `learning.ridge`, whose penalty is alpha / n."""

    kind = "ridge"

    def __init__(self, alpha: float = 1.0, *, fit_intercept: bool = True):
        """Keep the arguments."""
        self.alpha = alpha
        self.fit_intercept = fit_intercept

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "Ridge":
        """Fit one target, or the columns of y."""
        X, y, s = self._pair(X, y, sample_weight, columns=True)
        y = _targets(y, X.dtype)
        total = len(X) if s is None else s.sum()
        found = ridge(X, y, self.alpha / total, sample_weight=s, intercept=self.fit_intercept)
        self._keep(found, np.asarray(found.x.weights).T, found.x.intercept)
        return self


class ElasticNet(_Regressor):
    """min ||y - Xw - b||^2 / (2n) + alpha (l1_ratio ||w||_1 + (1 - l1_ratio) / 2 ||w||^2).

    See `learning.lasso`.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        *,
        l1_ratio: float = 0.5,
        fit_intercept: bool = True,
        tol: float | None = None,
    ):
        """Keep the arguments."""
        self.alpha = alpha
        self.l1_ratio = l1_ratio
        self.fit_intercept = fit_intercept
        self.tol = tol

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "ElasticNet":
        """Centre, and fit; weights are scaled to a mean of 1."""
        X, y, s = self._pair(X, y, sample_weight)
        y = _targets(y, X.dtype)
        share = np.full(len(X), 1 / len(X)) if s is None else s / s.sum()
        center, level = (share @ X, share @ y) if self.fit_intercept else (0.0, 0.0)
        A, b = X - center, y - level
        if s is not None:
            root = np.sqrt(share * len(X))
            A, b = A * root[:, None], b * root
        ratio = getattr(self, "l1_ratio", 1.0)
        A, b = jnp.asarray(A), jnp.asarray(b)
        found = lasso(A, b, self.alpha * ratio, ridge=self.alpha * (1 - ratio), tol=self.tol)
        w = np.asarray(found.x)
        self.n_iter_, self.dual_gap_ = int(found.steps), float(found.state.gap)
        self._keep(found, w, level - np.dot(center, w) if self.fit_intercept else 0.0)
        return self


class Lasso(ElasticNet):
    """min ||y - Xw - b||^2 / (2n) + alpha ||w||_1; see `learning.lasso`."""

    def __init__(self, alpha: float = 1.0, *, fit_intercept: bool = True, tol: float | None = None):
        """Keep the arguments."""
        self.alpha = alpha
        self.fit_intercept = fit_intercept
        self.tol = tol


class _Classifier(Estimator):
    kind = "classifier"
    class_weight: Any

    def predict(self, X: Any) -> ndarray:
        """The class with the largest score."""
        scores = self.decision_function(X)
        chosen = (scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(1)
        return self.classes_[chosen]

    def decision_function(self, X: Any) -> ndarray:
        """Scores: (n,), > 0 for the second class, or (n, k)."""
        raise NotImplementedError  # every classifier has its own

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The fraction of rows that `predict` gets right."""
        return float(np.average(self.predict(X) == np.asarray(y), weights=sample_weight))

    def _numbered(self, X: Any, y: Any, sample_weight: Any):
        """Rows, classes as numbers, weights times those of the classes."""
        X, y, s = self._pair(X, y, sample_weight)
        if y.dtype.kind == "f":
            _finite("y", y)
            if np.any(y != np.floor(y)):
                raise ValueError(
                    "Unknown label type: continuous. Maybe you are trying to fit a classifier, "
                    "which expects discrete classes on a regression target with continuous values."
                )
        elif y.dtype == object and not all(isinstance(v, (str, int)) for v in y):
            raise ValueError("Unknown label type: classes must be numbers, booleans or strings.")
        self.classes_, number = np.unique(y, return_inverse=True)
        seen = number if s is None else number[s > 0]
        if len(np.unique(seen)) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes, but the data has only "
                f"one class: {self.classes_[seen[0]]!r}."
            )
        if self.class_weight is None:
            return X, number, s
        if isinstance(self.class_weight, str):
            counts = np.bincount(number, weights=s)
            factors = counts.sum() / (len(counts) * counts)
        else:
            factors = np.array([dict(self.class_weight).get(c, 1.0) for c in self.classes_])
        return X, number, factors[number] * (1.0 if s is None else s)


class LogisticRegression(_Classifier):
    """min ||w||^2 / 2 + C sum_i loss_i; see `learning.logistic`, whose penalty is 1 / (C n)."""

    def __init__(
        self,
        C: float = 1.0,
        *,
        fit_intercept: bool = True,
        class_weight: Any = None,
        tol: float | None = None,
        max_iter: int = 10_000,
    ):
        """Keep the arguments."""
        self.C = C
        self.fit_intercept = fit_intercept
        self.class_weight = class_weight
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "LogisticRegression":
        """Fit two classes or more."""
        X, number, s = self._numbered(X, y, sample_weight)
        total = len(X) if s is None else s.sum()
        found = logistic(
            jnp.asarray(X), number, 1 / (self.C * total), sample_weight=s,
            classes=len(self.classes_), intercept=self.fit_intercept, tol=self.tol,
            max_steps=self.max_iter,
        )  # fmt: skip
        self.solution_, self.n_iter_ = found, int(found.steps)
        self.coef_ = np.atleast_2d(np.asarray(found.x.weights).T)
        self.intercept_ = np.atleast_1d(np.asarray(found.x.intercept))
        _warn(found)
        return self

    def decision_function(self, X: Any) -> ndarray:
        """X @ coef_.T + intercept_."""
        scores = self._new(X) @ self.coef_.T + self.intercept_
        return scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> ndarray:
        """(n, k), by the softmax of the scores."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], 1)
        raised = np.exp(scores - scores.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)

    def predict_log_proba(self, X: Any) -> ndarray:
        """Logarithms of `predict_proba`."""
        return np.log(self.predict_proba(X))


class SVC(_Classifier):
    """A support vector machine, one against one for k > 2 classes; see `learning.svc`.

    `kernel` is "rbf", "linear", "poly", "laplacian", "precomputed", one of `learning.kernels` or a
    function; `gamma` a number, "scale", 1 / (p var(X)), or "auto", 1 / p. `dual_coef_` is (pairs,
    support vectors), one row a pair of classes, unlike scikit-learn's for k > 2.
    """

    def __init__(
        self,
        C: float = 1.0,
        *,
        kernel: Any = "rbf",
        degree: int = 3,
        gamma: Any = "scale",
        coef0: float = 0.0,
        class_weight: Any = None,
        tol: float = 1e-3,
    ):
        """Keep the arguments."""
        self.C = C
        self.kernel = kernel
        self.degree = degree
        self.gamma = gamma
        self.coef0 = coef0
        self.class_weight = class_weight
        self.tol = tol

    def __sklearn_tags__(self) -> Any:
        """A precomputed kernel is sliced along both axes."""
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> "SVC":
        """Fit a machine for each pair of classes."""
        X, number, s = self._numbered(X, y, sample_weight)
        self._kernel = self._chosen(X)
        pairs = list(itertools.combinations(range(len(self.classes_)), 2))
        weights, levels, solutions = np.zeros((len(pairs), len(X)), X.dtype), [], []
        for row, (a, b) in enumerate(pairs):
            at = np.flatnonzero((number == a) | (number == b))
            at = at if s is None else at[s[at] > 0]
            price = self.C if s is None else self.C * s[at]
            part = X[np.ix_(at, at)] if self._kernel == "precomputed" else X[at]
            side = np.where(number[at] == b, 1, -1)
            if len(np.unique(side)) < 2:
                raise ValueError("Invalid input: a pair of classes has rows of only one class.")
            found = svc(jnp.asarray(part), side, price, kernel=self._kernel, tol=self.tol)
            _warn(found)
            weights[row, at] = np.asarray(found.x.weights)
            levels.append(float(found.x.intercept))
            solutions.append(found)
        self.solution_ = solutions[0] if len(solutions) == 1 else solutions
        # As in scikit-learn: scores > 0 are of the second class of two, but of the first of a pair.
        self._sign = 1 if len(pairs) == 1 else -1
        weights = self._sign * weights
        self.intercept_ = self._sign * np.array(levels)
        self.support_ = np.flatnonzero(np.any(weights != 0, 0))
        self.support_ = self.support_[np.argsort(number[self.support_], kind="stable")]
        self.n_support_ = np.bincount(number[self.support_], minlength=len(self.classes_))
        self.dual_coef_ = weights[:, self.support_]
        self.support_vectors_ = X[self.support_]
        if isinstance(self._kernel, kernels.Linear):
            self.coef_ = self.dual_coef_ @ self.support_vectors_
        return self

    def _chosen(self, X: ndarray) -> Any:
        gamma = self.gamma
        if gamma == "scale":
            spread = X.shape[1] * X.var()
            gamma = 1 / spread if spread > 0 else 1.0
        elif gamma == "auto":
            gamma = 1 / X.shape[1]
        if not isinstance(self.kernel, str) or self.kernel == "precomputed":
            return self.kernel
        named = {
            "linear": lambda: kernels.Linear(),
            "rbf": lambda: kernels.RBF(gamma),
            "poly": lambda: kernels.Polynomial(self.degree, gamma, self.coef0),
            "laplacian": lambda: kernels.Laplacian(gamma),
        }
        if self.kernel not in named:
            raise ValueError(
                f"`kernel` must be one of {', '.join(named)}, precomputed, a kernel or a function, "
                f"but {self.kernel!r} came."
            )
        return named[self.kernel]()

    def decision_function(self, X: Any) -> ndarray:
        """Scores of the pair (n,), or votes of the pairs, ties broken by their scores, (n, k)."""
        X = self._new(X).astype(self.support_vectors_.dtype)
        if self._kernel == "precomputed":
            K = X[:, self.support_]
        else:
            K = np.asarray(
                _values(self._kernel, jnp.asarray(X), jnp.asarray(self.support_vectors_))
            )
        scores = self._sign * (K @ self.dual_coef_.T + self.intercept_)
        k = len(self.classes_)
        if k == 2:
            return scores[:, 0]
        votes, sums = np.zeros((len(X), k)), np.zeros((len(X), k))
        for column, (a, b) in enumerate(itertools.combinations(range(k), 2)):
            won = scores[:, column] > 0
            votes[:, b] += won
            votes[:, a] += ~won
            sums[:, b] += scores[:, column]
            sums[:, a] -= scores[:, column]
        return votes + sums / (3 * (np.abs(sums) + 1))


def _values(kernel: Any, A: Any, B: Any) -> Any:
    return _compiled(kernel, A, B) if isinstance(kernel, kernels.BUILT_IN) else kernel(A, B)


@jax.jit
def _compiled(kernel: Any, A: Any, B: Any) -> Any:
    return kernel(A, B)


def _floats(X: ndarray) -> ndarray:
    """In JAX's precision: float32, unless the data and JAX have more."""
    if X.dtype.kind == "c":
        raise ValueError(f"Complex data not supported, but the dtype is {X.dtype}.")
    if X.dtype.kind in "OUS":
        try:
            X = X.astype(float)
        except TypeError as error:
            raise TypeError(
                f"{error}: an argument must be a string or a number, in an array of numbers."
            ) from error
    if X.dtype.kind != "f":
        X = X.astype(float)
    return np.ascontiguousarray(X, jnp.result_type(X.dtype))


def _targets(y: ndarray, dtype: Any) -> ndarray:
    y = _floats(y)
    _finite("y", y)
    return y.astype(dtype)


def _finite(name: str, values: ndarray) -> None:
    if not np.all(np.isfinite(values)):
        raise ValueError(f"Input {name} contains NaN or infinity. Drop such rows, or fill them in.")


def _warn(solution: Any) -> None:
    """A fit that did not converge is a warning, as in scikit-learn."""
    status = int(solution.status)
    if status != Status.CONVERGED:
        warnings.warn(
            f"{Status(status).name}: {Status(status).message}. See `solution_`.", stacklevel=3
        )


def _not_fitted(message: str) -> Exception:
    try:
        from sklearn.exceptions import NotFittedError
    except ImportError:
        return ValueError(message)
    return NotFittedError(message)


def _conversion_warning() -> type[Warning]:
    try:
        from sklearn.exceptions import DataConversionWarning
    except ImportError:
        return UserWarning
    return DataConversionWarning
