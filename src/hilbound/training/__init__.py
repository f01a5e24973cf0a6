"""Training: from options to a trained model, with or without a run folder."""
