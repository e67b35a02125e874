"""Classical models, fitted by the solver that their structure asks for."""

from . import estimators, kernels
from ._data import Linear, Scaling, standardize
from .decomposition import (
    Collapse,
    Factors,
    PCAState,
    Unconstrained,
    neural_collapse,
    nmf,
    pca,
)
from .entropy import EntropyState, attention, maximum_entropy, simplex_argmax
from .glm import Data, GLMState, Likelihood, gamma, logistic, logistic_folds, poisson
from .groups import GroupState, group_lasso, multi_task_lasso
from .hyper import HyperGradient, hypergradient, tune
from .lasso import LassoState, lasso, lasso_folds, lasso_path
from .programs import IsotonicState, PricedState, diet, isotonic, markowitz, nnls
from .ridge import RidgeState, ridge, ridge_folds, ridge_path
from .svm import SVMState, linear_svc, one_class_svm, svc, svr
from .transport import TransportState, optimal_transport

__all__ = [
    "Collapse",
    "Data",
    "EntropyState",
    "Factors",
    "GLMState",
    "GroupState",
    "HyperGradient",
    "IsotonicState",
    "LassoState",
    "Likelihood",
    "Linear",
    "PCAState",
    "PricedState",
    "RidgeState",
    "SVMState",
    "Scaling",
    "TransportState",
    "Unconstrained",
    "attention",
    "diet",
    "estimators",
    "gamma",
    "group_lasso",
    "hypergradient",
    "isotonic",
    "kernels",
    "lasso",
    "lasso_folds",
    "lasso_path",
    "linear_svc",
    "logistic",
    "logistic_folds",
    "markowitz",
    "maximum_entropy",
    "multi_task_lasso",
    "neural_collapse",
    "nmf",
    "nnls",
    "one_class_svm",
    "optimal_transport",
    "pca",
    "poisson",
    "ridge",
    "ridge_folds",
    "ridge_path",
    "simplex_argmax",
    "standardize",
    "svc",
    "svr",
    "tune",
]
