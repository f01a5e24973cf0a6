"""
Nuclear norm, scalar cost, likelihood
=====================================

Three objectives move 64 centres, which start in one small cloud. There is no network: the centres
themselves are the parameters. Each objective has the variance that suits it: the likelihood needs a
narrower one, because it does not smooth the data. A ring is drawn around every group that no centre
has found.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture
from hilbound.objectives import create_objective

torch.manual_seed(0)
groups = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)) - 1.5
x = groups.repeat_interleave(20, 0) + 0.1 * torch.randn(320, 2)
start = 0.5 * torch.randn(64, 2)

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
variances = {"nuclear": 0.3, "scalar": 0.3, "likelihood": 0.03}
for ax, (name, kernel) in zip(axes, variances.items(), strict=True):
    objective = create_objective(name)
    variance = objective.component_variance(kernel)
    centres = start.clone().requires_grad_()
    adam = torch.optim.Adam([centres], lr=0.03)
    for _ in range(300):
        loss = objective(GaussianMixture(x, variance), GaussianMixture(centres, variance))
        adam.zero_grad()
        loss.backward()
        adam.step()
    ax.scatter(*x.T, s=6, color="0.75")
    ax.scatter(*centres.detach().T, s=22, color="#d4480b", edgecolor="white", linewidth=0.6)
    far = torch.cdist(groups, centres.detach()).amin(1) > 0.25
    ax.scatter(*groups[far].T, s=500, facecolor="none", edgecolor="0.4")
    ax.set(
        title=f"{name}: {16 - int(far.sum())} of 16 groups", xticks=[], yticks=[], aspect="equal"
    )
