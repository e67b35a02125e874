"""Classical models, fitted by the solver that their structure asks for."""

from . import estimators, kernels
from ._data import Linear, Scaling, standardize
from .glm import Data, GLMState, Likelihood, gamma, logistic, logistic_folds, poisson
from .groups import GroupState, group_lasso, multi_task_lasso
from .hyper import HyperGradient, hypergradient, tune
from .lasso import LassoState, lasso, lasso_folds, lasso_path
from .ridge import RidgeState, ridge, ridge_folds, ridge_path
from .svm import SVMState, linear_svc, one_class_svm, svc, svr

__all__ = [
    "Data",
    "GLMState",
    "GroupState",
    "HyperGradient",
    "LassoState",
    "Likelihood",
    "Linear",
    "RidgeState",
    "SVMState",
    "Scaling",
    "estimators",
    "gamma",
    "group_lasso",
    "hypergradient",
    "kernels",
    "lasso",
    "lasso_folds",
    "lasso_path",
    "linear_svc",
    "logistic",
    "logistic_folds",
    "multi_task_lasso",
    "one_class_svm",
    "poisson",
    "ridge",
    "ridge_folds",
    "ridge_path",
    "standardize",
    "svc",
    "svr",
    "tune",
]
