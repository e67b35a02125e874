"""Pictures of solves, landscapes and spectra. Needs matplotlib: `pip install jaxopt_lite[plot]`."""

from .pictures import constraints, convergence, landscape, path, spectrum

__all__ = ["constraints", "convergence", "landscape", "path", "spectrum"]
