"""The engine: tensors in, numbers with gradients out; it knows no mixture, data or option."""
