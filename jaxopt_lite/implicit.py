"""Derivatives of answers by the implicit function theorem, for any solver."""

from .core import Implicit, custom_fixed_point, custom_root

__all__ = ["Implicit", "custom_fixed_point", "custom_root"]
