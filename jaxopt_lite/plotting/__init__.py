"""Pictures of solves, landscapes and spectra. Needs matplotlib: `pip install jaxopt_lite[plot]`."""

from .pictures import constraints, convergence, envelope, landscape, margins, path, prox, spectrum

__all__ = [
    "constraints",
    "convergence",
    "envelope",
    "landscape",
    "margins",
    "path",
    "prox",
    "spectrum",
]
