"""
The bias of a mini-batch
========================

The fidelity of two samples of one density is below 1, and the smaller the samples, the lower it is.
So a fidelity is to be read beside what real data reach at the same batch size.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture, datasets
from hilbound import functional as F

torch.manual_seed(0)
sizes = [8, 16, 32, 64, 128, 256, 512]
figure, ax = plt.subplots(figsize=(6.4, 3.8), layout="constrained")
for name, variance, colour in (("moons", 0.1, "#0b5f99"), ("digits", 1.5, "#d4480b")):
    x = datasets.load(name).train.flatten(1)
    means, spreads = [], []
    for n in sizes:
        values = []
        for _ in range(12):
            order = torch.randperm(len(x))
            p = GaussianMixture(x[order[:n]], variance)
            q = GaussianMixture(x[order[n : 2 * n]], variance)
            values.append(float(F.fidelity(p, q)))
        means.append(torch.tensor(values).mean())
        spreads.append(torch.tensor(values).std())
    ax.errorbar(sizes, means, spreads, color=colour, marker="o", capsize=3, label=name)
ax.axhline(1, color="black", linestyle="--", linewidth=1)
ax.set(xscale="log", xlabel="rows of a batch", ylabel="fidelity of real data with real data")
ax.legend(frameon=False)
