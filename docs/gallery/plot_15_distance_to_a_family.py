r"""
Where the scalar cost is highest
================================

By Cauchy-Schwarz :math:`\langle p, q \rangle^2 / \langle q, q \rangle \le \langle p, p \rangle`,
with equality only at q = p. Here q has two components whose places can be chosen. The map shows the
tightness. It has two peaks of the same height, because components have no names.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture
from hilbound import functional as F

p = GaussianMixture(torch.tensor([[-1.0], [1.5]]), 0.25)
axis = torch.linspace(-3, 3, 121)
places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), -1)
q = GaussianMixture(places.unsqueeze(-1), 0.25)  # batch shape (121, 121)
tightness = (-2 * F.cauchy_schwarz_divergence(p.expand(q.batch_shape), q)).exp()

figure, ax = plt.subplots(figsize=(5.4, 4.4), layout="constrained")
levels = ax.contourf(axis, axis, tightness, levels=20, cmap="Blues", vmin=0, vmax=1)
ax.plot([-1, 1.5], [1.5, -1], "o", color="#d4480b", label="q = p")
ax.plot(axis, axis, color="0.5", linewidth=0.8, linestyle="--", label="both at one place")
ax.set(xlabel="first centre", ylabel="second centre", aspect="equal")
ax.legend(loc="lower left", frameon=False)
figure.colorbar(levels, label="tightness")
