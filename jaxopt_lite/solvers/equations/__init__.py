"""Solvers for F(x) = 0, as many equations as unknowns."""

from .bracket import ITP, Bisection
from .brent import Brent
from .broyden import Broyden
from .fixed_point import Anderson, Picard
from .newton import Chord, NewtonRoot

__all__ = ["ITP", "Anderson", "Bisection", "Brent", "Broyden", "Chord", "NewtonRoot", "Picard"]
