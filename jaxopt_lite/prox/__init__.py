"""Proximal operators and projections, with derivatives. Imports nothing but JAX and `linalg`."""

from . import projections
from .calculus import Conjugate, Rescaled, Scaled, SeparableSum, Sum, Tilted
from .composed import Composed, Custom, overlapping_groups
from .indicators import Indicator, Quadratic, Simplex
from .norms import L2, GroupLasso, L1Linf, Linf, Nuclear
from .proximable import Proximable, Zero
from .separable import (
    L1,
    Box,
    ElasticNet,
    Entropy,
    Hinge,
    Huber,
    KullbackLeibler,
    LogBarrier,
    Logistic,
    NonNegative,
    SquaredL2,
)
from .total_variation import TotalVariation, TotalVariation2D

__all__ = [
    "L1",
    "L2",
    "Box",
    "Composed",
    "Conjugate",
    "Custom",
    "ElasticNet",
    "Entropy",
    "GroupLasso",
    "Hinge",
    "Huber",
    "Indicator",
    "KullbackLeibler",
    "L1Linf",
    "Linf",
    "LogBarrier",
    "Logistic",
    "NonNegative",
    "Nuclear",
    "Proximable",
    "Quadratic",
    "Rescaled",
    "Scaled",
    "SeparableSum",
    "Simplex",
    "SquaredL2",
    "Sum",
    "Tilted",
    "TotalVariation",
    "TotalVariation2D",
    "Zero",
    "overlapping_groups",
    "projections",
]
