"""Estimators by scikit-learn's own checks, and side by side with scikit-learn's."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

from jaxopt_lite.learning import kernels
from jaxopt_lite.learning.estimators import SVC, ElasticNet, Lasso, LogisticRegression, Ridge

checks = pytest.importorskip("sklearn.utils.estimator_checks")

# What cannot pass, and why: nothing. Skipped are checks of packages that are not needed.
SKIPPED = {
    "check_array_api_input",
    "check_sample_weights_pandas_series",
    "check_regressor_data_not_an_array",
    "check_classifier_data_not_an_array",
    "check_dataframe_column_names_consistency",
}


@pytest.mark.parametrize(
    "estimator",
    # Weights are to be equivalent to repetitions to seven digits, so fits are to nine; a gamma that
    # is not a function of the variance of the repeated rows.
    [Ridge(), Lasso(), ElasticNet(), LogisticRegression(tol=1e-12), SVC(gamma=0.1, tol=1e-9)],
    ids=lambda estimator: type(estimator).__name__,
)
def test_scikit_learns_own_checks(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Those called legacy pass for all, but each of their shapes is compiled: one regressor and
        # one classifier here; 30 seconds more for the others.
        legacy = isinstance(estimator, (Ridge, LogisticRegression))
        rows = checks.check_estimator(estimator, legacy=legacy, on_skip=None)
    status = {row["check_name"]: row["status"] for row in rows}
    assert {name for name, said in status.items() if said == "skipped"} <= SKIPPED
    assert set(status.values()) <= {"passed", "skipped"}
    assert sum(said == "passed" for said in status.values()) > (40 if legacy else 5)


def test_attributes_are_those_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    svm = pytest.importorskip("sklearn.svm")
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_iris(return_X_y=True)
    names = np.array(["a", "b", "c"])[y]
    s = np.linspace(0.5, 1.5, 150)
    for ours, theirs, target in (
        (Ridge(2.0), linear_model.Ridge(2.0), X @ np.ones(4) + y),
        (Ridge(2.0), linear_model.Ridge(2.0), np.stack([y, y**2], 1)),
        (Lasso(0.05), linear_model.Lasso(0.05, tol=1e-12), y),
        (ElasticNet(0.1, l1_ratio=0.3), linear_model.ElasticNet(0.1, l1_ratio=0.3, tol=1e-12), y),
        (
            LogisticRegression(0.5, class_weight="balanced"),
            linear_model.LogisticRegression(
                C=0.5, class_weight="balanced", tol=1e-12, solver="newton-cholesky"
            ),
            names,
        ),
    ):
        ours.fit(X, target, s)
        theirs.fit(X, target, s)
        np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-6)
        np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-5)
        assert ours.score(X, target, s) == pytest.approx(theirs.score(X, target, s), abs=1e-9)
        assert ours.coef_.shape == theirs.coef_.shape
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-6)
    assert ours.classes_.tolist() == ["a", "b", "c"]
    for kernel in ("rbf", "poly", "linear"):
        ours = SVC(kernel=kernel, tol=1e-8).fit(X, names)
        theirs = svm.SVC(kernel=kernel, tol=1e-8).fit(X, names)
        np.testing.assert_allclose(
            ours.decision_function(X), theirs.decision_function(X), atol=2e-5
        )
        assert (ours.predict(X) == theirs.predict(X)).all()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=3e-5)
    np.testing.assert_allclose(ours.intercept_, theirs.intercept_, atol=1e-4)
    K = kernels.RBF(0.2)
    same = SVC(kernel=K, tol=1e-8).fit(X[:100], y[:100])
    given = np.asarray(K(X, X[:100]))
    pre = SVC(kernel="precomputed", tol=1e-8).fit(given[:100], y[:100])
    np.testing.assert_allclose(pre.decision_function(given), same.decision_function(X), atol=1e-9)


def test_pipelines_grids_and_pickles():
    model_selection = pytest.importorskip("sklearn.model_selection")
    pipeline = pytest.importorskip("sklearn.pipeline")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    datasets = pytest.importorskip("sklearn.datasets")
    X, y = datasets.load_iris(return_X_y=True)
    model = pipeline.make_pipeline(preprocessing.StandardScaler(), LogisticRegression())
    grid = model_selection.GridSearchCV(model, {"logisticregression__C": [0.01, 1.0]}, cv=3)
    assert grid.fit(X, y).best_score_ > 0.9
    again = pickle.loads(pickle.dumps(grid.best_estimator_))
    np.testing.assert_array_equal(again.predict_proba(X), grid.predict_proba(X))
    assert repr(Ridge(2.0)) == "Ridge(alpha=2.0)"
    with pytest.warns(UserWarning, match="MAX_STEPS: stopped at max_steps"):
        LogisticRegression(max_iter=1).fit(X, y)


def test_nothing_of_scikit_learn_is_needed():
    program = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import numpy as np\n"
        "from jaxopt_lite.learning.estimators import Ridge\n"
        "X = np.arange(12.0).reshape(6, 2) ** 2\n"
        "try: Ridge().predict(X)\n"
        "except ValueError as error: assert 'not fitted' in str(error)\n"
        "print(Ridge(1e-3).fit(X, X[:, 0]).score(X, X[:, 0]) > 0.99)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "True", done.stderr
