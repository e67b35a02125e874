"""Linear algebra that every layer above may use: vectors from pytrees, solves, Krylov methods."""

from .kkt import KKT, kkt_factor, kkt_solve
from .krylov import LinearSolution, conjugate_gradient, minres
from .lanczos import Krylov, band_lanczos, extend_basis
from .nnls import non_negative_least_squares
from .solve import (
    Spectrum,
    dense_solve,
    inertia_tolerance,
    least_norm,
    materialize,
    psd_factor,
    psd_solve,
    spectrum,
)
from .trees import Form, as_pytree, choose, norm_inf, once, rarely, safe_norm, static

__all__ = [
    "KKT",
    "Form",
    "Krylov",
    "LinearSolution",
    "Spectrum",
    "as_pytree",
    "band_lanczos",
    "choose",
    "conjugate_gradient",
    "dense_solve",
    "extend_basis",
    "inertia_tolerance",
    "kkt_factor",
    "kkt_solve",
    "least_norm",
    "materialize",
    "minres",
    "non_negative_least_squares",
    "norm_inf",
    "once",
    "psd_factor",
    "psd_solve",
    "rarely",
    "safe_norm",
    "spectrum",
    "static",
]
