"""Classical models, fitted by the solver that their structure asks for."""

from ._data import Linear
from .glm import Data, GLMState, Likelihood, gamma, logistic, logistic_folds, poisson
from .lasso import LassoState, lasso, lasso_folds, lasso_path
from .ridge import RidgeState, ridge, ridge_folds, ridge_path

__all__ = [
    "Data",
    "GLMState",
    "LassoState",
    "Likelihood",
    "Linear",
    "RidgeState",
    "gamma",
    "lasso",
    "lasso_folds",
    "lasso_path",
    "logistic",
    "logistic_folds",
    "poisson",
    "ridge",
    "ridge_folds",
    "ridge_path",
]
