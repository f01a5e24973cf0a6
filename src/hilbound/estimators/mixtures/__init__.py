"""From rows to one Gaussian mixture: fits, kernels, and their average by held-out rows."""
