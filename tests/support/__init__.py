"""Helpers of the tests: oracles, strategies, tiny runs."""
