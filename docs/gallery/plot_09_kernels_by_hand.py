r"""
Mixture kernels by hand
=======================

The fidelity is the nuclear norm of a matrix that you can write down in one line. For equal
variances :math:`v/2` on both sides, the overlap of two normalised Gaussians is
:math:`k_{ij} = \exp(-|x_i - y_j|^2 / 2v)`.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture
from hilbound import functional as F

torch.manual_seed(0)
x = torch.randn(30, 2, dtype=torch.float64)
y = torch.randn(40, 2, dtype=torch.float64)
v = 0.5

k = (-torch.cdist(x, y).square() / (2 * v)).exp() / (30 * 40) ** 0.5
singular_values = torch.linalg.svdvals(k)
by_hand = float(singular_values.sum())
by_library = float(F.fidelity(GaussianMixture(x, v / 2), GaussianMixture(y, v / 2)))
print(f"by hand {by_hand:.12f}, by the library {by_library:.12f}")

# %%
# The singular values are its parts. One large value says that all points look alike, many values
# say that the kernel tells points apart.

figure, (left, right) = plt.subplots(1, 2, figsize=(8.5, 3.4), layout="constrained")
shown = left.imshow(k, cmap="Blues")
left.set(title="cross Gram matrix", xlabel="centres", ylabel="data")
figure.colorbar(shown)
right.bar(range(len(singular_values)), singular_values, color="#0b5f99")
right.set(title=f"singular values, sum {by_hand:.3f}", xlabel="rank")
