"""
What the variance does
======================

The variance of the kernel is the only scale of an objective. If it is too small, points do not
overlap and centres feel nothing. If it is too large, a blur is nearly perfect. The rule ``rank``
looks for a kernel that can tell about eight points of the data apart.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture, datasets
from hilbound import functional as F
from hilbound.variance import rank_variance

torch.manual_seed(0)
x = datasets.load("pinwheel").train[:300]
rule = rank_variance(x)

figure, axes = plt.subplots(1, 4, figsize=(11, 3.1), layout="constrained")
for ax, factor in zip(axes, (0.003, 0.1, 1, 30), strict=True):
    component = factor * rule / 2  # half of the kernel's variance on each side
    centres = (0.8 * torch.randn(80, 2)).requires_grad_()
    adam = torch.optim.Adam([centres], lr=0.04)
    for _ in range(150):
        fidelity = F.fidelity(GaussianMixture(x, component), GaussianMixture(centres, component))
        adam.zero_grad()
        (-fidelity).backward()
        adam.step()
    ax.scatter(*x.T, s=5, color="0.75")
    ax.scatter(*centres.detach().T, s=14, color="#0b5f99")
    ax.set(xticks=[], yticks=[], aspect="equal", xlim=(-4.5, 4.5), ylim=(-4.5, 4.5))
    ax.set_title(
        f"variance {factor * rule:.3g}\nfidelity {float(fidelity.detach()):.2f}", fontsize=10
    )

# %%
# The highest fidelity is not the best picture. A fidelity is relative to its kernel: under the
# widest one, centres in the middle of the data already look right.
