"""Certificates: verdicts on points, which know nothing of solvers."""

from .certificate import Certificate, certify
from .classify import CriticalPoint, Evidence, Kind, classify
from .covariance import Covariance, covariance
from .critical_points import CriticalPoints, find_critical_points

__all__ = [
    "Certificate",
    "Covariance",
    "CriticalPoint",
    "CriticalPoints",
    "Evidence",
    "Kind",
    "certify",
    "classify",
    "covariance",
    "find_critical_points",
]
