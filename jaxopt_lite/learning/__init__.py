"""Classical models, fitted by the solver that their structure asks for."""

from .lasso import LassoState, lasso, lasso_folds, lasso_path

__all__ = ["LassoState", "lasso", "lasso_folds", "lasso_path"]
