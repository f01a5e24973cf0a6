"""Sums over all pairs of components, computed tile by tile together with their gradients."""
