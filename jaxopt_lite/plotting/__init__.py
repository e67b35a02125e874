"""Pictures of solves, landscapes and spectra. Needs matplotlib: `pip install jaxopt_lite[plot]`."""

from .pictures import convergence, landscape, path, spectrum

__all__ = ["convergence", "landscape", "path", "spectrum"]
