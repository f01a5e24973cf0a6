"""
Undo the bias
=============

On small batches the nuclear norm prefers centres between the points: one compromise overlaps with
many. So the ring becomes too thin. The debiased norm subtracts what two batches of the model have
in common, and the ring keeps its width. (Here it is even a little too wide.)
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture
from hilbound.objectives import DebiasedNuclearNorm, NuclearNorm

torch.manual_seed(0)
angle = 2 * torch.pi * torch.rand(600)
ring = torch.stack([angle.cos(), angle.sin()], 1) * (1 + 0.3 * torch.randn(600, 1))


def width(points: torch.Tensor) -> float:
    """Return the range that holds the middle half of the radii."""
    low, high = points.norm(dim=1).quantile(torch.tensor([0.25, 0.75]))
    return float(high - low)


figure, axes = plt.subplots(1, 2, figsize=(8.4, 4.1), layout="constrained")
objectives = {"nuclear": NuclearNorm(), "debiased": DebiasedNuclearNorm()}
for ax, (name, objective) in zip(axes, objectives.items(), strict=True):
    centres = (ring[torch.randperm(600)[:256]] + 0.3 * torch.randn(256, 2)).requires_grad_()
    adam = torch.optim.Adam([centres], lr=0.01)
    rows = 32 if name == "debiased" else 16  # the debiased norm compares halves
    for _ in range(700):
        p = GaussianMixture(ring[torch.randperm(600)[:rows]], 0.05)
        q = GaussianMixture(centres[torch.randperm(256)[:rows]], 0.05)
        loss = objective(p, q)
        adam.zero_grad()
        loss.backward()
        adam.step()
    ax.scatter(*ring.T, s=6, color="0.78")
    ax.scatter(*centres.detach().T, s=12, color="#0b5f99")
    ax.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", xticks=[], yticks=[])
    ax.set_title(f"{name}: half of the radii within {width(centres.detach()):.2f}")

print(f"half of the data's radii lie within {width(ring):.2f}")
