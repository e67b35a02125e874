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

__all__ = [
    "Conditioning",
    "Density",
    "EigenPairs",
    "Estimate",
    "Krylov",
    "LinearOperator",
    "Verdict",
    "classify",
    "conditioning",
    "diagonal",
    "eigenpairs",
    "escape_direction",
    "fisher",
    "gauss_newton",
    "hessian",
    "jacobian",
    "kernel",
    "lanczos",
    "spectral_density",
    "trace",
]
