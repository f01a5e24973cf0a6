"""
Your own network
================

An objective needs two mixtures. Where the centres come from is up to you. Here a network bends a
line into a curve, and learns a variance for every centre as well.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from hilbound import GaussianMixture, datasets
from hilbound import functional as F


class Curve(nn.Module):
    """Maps numbers between -1 and 1 to points of the plane, each with a variance."""

    def __init__(self) -> None:
        super().__init__()
        self.frequencies = nn.Parameter(torch.linspace(0.5, 3, 16))
        self.body = nn.Sequential(nn.Linear(32, 128), nn.SiLU(), nn.Linear(128, 3))

    def forward(self, t: torch.Tensor) -> GaussianMixture:
        """Return a mixture with one component for every number of ``t``, with shape (K, 1)."""
        angles = 3 * t * self.frequencies
        out = self.body(torch.cat([angles.sin(), angles.cos()], -1))
        return GaussianMixture(2 * out[:, :2], 0.02 + 0.2 * out[:, 2:].sigmoid())


torch.manual_seed(0)
x = datasets.load("swiss-roll").train
curve = Curve()
adam = torch.optim.Adam(curve.parameters(), lr=5e-3)
for _ in range(350):
    p = GaussianMixture(x[torch.randint(len(x), (256,))], 0.1)
    loss = -F.log_scalar_cost(p, curve(2 * torch.rand(256, 1) - 1))
    adam.zero_grad()
    loss.backward()
    adam.step()

# %%
# The cost is the scalar one. Its limit is the norm of the data, so a tightness can be printed.

with torch.no_grad():
    line = torch.linspace(-1, 1, 1200).unsqueeze(1)
    q, p = curve(line), GaussianMixture(x[:2000], 0.1)
    tightness = float((F.log_scalar_cost(p, q) - p.log_norm()).exp())

figure, ax = plt.subplots(figsize=(5, 4.6), layout="constrained")
ax.scatter(*x[:1500].T, s=4, color="0.78")
drawn = ax.scatter(*q.means.T, s=5, c=line.squeeze(), cmap="viridis")
ax.set(title=f"{100 * tightness:.0f} % of what is possible", aspect="equal", xticks=[], yticks=[])
figure.colorbar(drawn, label="place on the line")
