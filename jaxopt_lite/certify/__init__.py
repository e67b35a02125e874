"""Certificates: verdicts on points, which know nothing of solvers."""

from .certificate import Certificate, certify
from .classify import CriticalPoint, Evidence, Kind, classify

__all__ = ["Certificate", "CriticalPoint", "Evidence", "Kind", "certify", "classify"]
