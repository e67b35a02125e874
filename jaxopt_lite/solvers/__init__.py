"""Every solver, by family."""

from .default import choose
from .smooth import LBFGS, FixedStep, GradientDescent, Optax, TrustRegion

__all__ = ["LBFGS", "FixedStep", "GradientDescent", "Optax", "TrustRegion", "choose"]
