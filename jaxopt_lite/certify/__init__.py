"""Certificates: verdicts on points, which know nothing of solvers."""

from .certificate import Certificate, certify
from .classify import CriticalPoint, Evidence, Kind, classify
from .covariance import Covariance, covariance
from .critical_points import CriticalPoints, find_critical_points
from .kkt import ConstraintReport, Qualification, ReducedHessian

__all__ = [
    "Certificate",
    "ConstraintReport",
    "Covariance",
    "CriticalPoint",
    "CriticalPoints",
    "Evidence",
    "Kind",
    "Qualification",
    "ReducedHessian",
    "certify",
    "classify",
    "covariance",
    "find_critical_points",
]
