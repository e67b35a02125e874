"""Solvers for problems with constraints."""

from .interior_point import InteriorPoint

__all__ = ["InteriorPoint"]
