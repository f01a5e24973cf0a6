"""The engine: tensors in, numbers with gradients out. It uses no mixtures, data sets or options."""
