"""Evaluation: numbers about a model and its samples. Nothing here draws a picture."""
