"""Gaussian components as tensors, and expectation-maximisation that fits them to rows."""
