"""Projections on convex sets, with derivatives. Imports nothing but JAX and `linalg`."""
