"""Evaluation: numbers about a model and its samples; it draws nothing."""
