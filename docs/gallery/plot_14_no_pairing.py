"""
No pairing is needed
====================

The trace pairs the first centre with the first point, the second with the second, and so on. The
fidelity finds the pairing itself. Here the centres are the data, and more and more of them change
places.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture
from hilbound import functional as F

torch.manual_seed(0)
x = 3 * torch.randn(100, 2)
p = GaussianMixture(x, 0.5)

shares = torch.linspace(0, 1, 21)
traces, fidelities = [], []
for share in shares:
    order = torch.arange(100)
    moved = torch.randperm(100)[: int(100 * share)]
    order[moved] = moved.roll(1)
    q = GaussianMixture(x[order], 0.5)
    traces.append(float(F.trace_overlap(p, q)))
    fidelities.append(float(F.fidelity(p, q)))

figure, ax = plt.subplots(figsize=(6.2, 3.6), layout="constrained")
ax.plot(shares, fidelities, color="#0b5f99", label="fidelity (nuclear norm)")
ax.plot(shares, traces, color="#d4480b", label="trace")
ax.set(xlabel="share of the centres that changed places", ylabel="value", ylim=(0, 1.05))
ax.legend(frameon=False)
