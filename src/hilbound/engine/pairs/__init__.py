"""Sums over all pairs of components, streamed in tiles, with gradients formed on the way."""
