"""Curvature of functions of any pytree: from Hessian-vector products to the spectrum of a network.

op = curvature.hessian(loss, params, data=(X, y), batch=256)     # a linear operator, no matrix
op @ v, op.T, op.trace(), op.to_dense()
curvature.eigenpairs(op, 10), curvature.spectral_density(op), curvature.trace(op)
"""

from .conditioning import Conditioning, conditioning
from .critical import Verdict, classify, escape_direction
from .density import Density, Estimate, diagonal, spectral_density, trace
from .lanczos import EigenPairs, Krylov, eigenpairs, lanczos
from .operators import LinearOperator, fisher, gauss_newton, hessian, jacobian, kernel
from .preconditioners import Layer, dense, kfac, kronecker_factors, scale_by_diagonal

__all__ = [
    "Conditioning",
    "Density",
    "EigenPairs",
    "Estimate",
    "Krylov",
    "Layer",
    "LinearOperator",
    "Verdict",
    "classify",
    "conditioning",
    "dense",
    "diagonal",
    "eigenpairs",
    "escape_direction",
    "fisher",
    "gauss_newton",
    "hessian",
    "jacobian",
    "kernel",
    "kfac",
    "kronecker_factors",
    "lanczos",
    "scale_by_diagonal",
    "spectral_density",
    "trace",
]
