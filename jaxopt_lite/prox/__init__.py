"""Proximal operators and projections, with derivatives. Imports nothing but JAX and `linalg`."""

from . import projections
from .proximable import Proximable, Zero
from .separable import L1

__all__ = ["L1", "Proximable", "Zero", "projections"]
