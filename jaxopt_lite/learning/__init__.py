"""Classical models, fitted by the solver that their structure asks for."""

from ._data import Linear
from .lasso import LassoState, lasso, lasso_folds, lasso_path
from .ridge import RidgeState, ridge, ridge_folds, ridge_path

__all__ = [
    "LassoState",
    "Linear",
    "RidgeState",
    "lasso",
    "lasso_folds",
    "lasso_path",
    "ridge",
    "ridge_folds",
    "ridge_path",
]
