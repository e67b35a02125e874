"""Certificates: verdicts on points, which know nothing of solvers."""

from .certificate import Certificate, certify
from .classify import CriticalPoint, Evidence, Kind, classify
from .covariance import Covariance, covariance
from .critical_points import CriticalPoints, find_critical_points
from .duality import Duality, duality
from .kkt import ConstraintReport, Qualification, ReducedHessian
from .nonsmooth import NonsmoothReport
from .rays import RayReport
from .sensitivity import Expansion, Sensitivity, sensitivity
from .slater import Slater, slater

__all__ = [
    "Certificate",
    "ConstraintReport",
    "Covariance",
    "CriticalPoint",
    "CriticalPoints",
    "Duality",
    "Evidence",
    "Expansion",
    "Kind",
    "NonsmoothReport",
    "Qualification",
    "RayReport",
    "ReducedHessian",
    "Sensitivity",
    "Slater",
    "certify",
    "classify",
    "covariance",
    "duality",
    "find_critical_points",
    "sensitivity",
    "slater",
]
