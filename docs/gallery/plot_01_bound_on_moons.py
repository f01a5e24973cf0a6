"""
A bound that rises to its limit
===============================

A network turns noise into centres. The fidelity compares them with the data, and it cannot pass 1.
So the curve says at every step how much is still missing.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture, datasets
from hilbound import functional as F
from hilbound.reports.plots import plot_curve, plot_points

torch.manual_seed(0)
x = datasets.load("moons").train
network = torch.nn.Sequential(
    torch.nn.Linear(4, 128),
    torch.nn.SiLU(),
    torch.nn.Linear(128, 128),
    torch.nn.SiLU(),
    torch.nn.Linear(128, 2),
)
adam = torch.optim.Adam(network.parameters(), lr=2e-3, betas=(0.5, 0.9))

steps, fidelities = range(500), []
for _ in steps:
    p = GaussianMixture(x[torch.randint(len(x), (256,))], variance=0.1)
    q = GaussianMixture(network(torch.randn(256, 4)), variance=0.1)
    fidelity = F.fidelity(p, q)
    adam.zero_grad()
    (-fidelity).backward()
    adam.step()
    fidelities.append(float(fidelity.detach()))

# %%
# The batches hold 256 rows. Even real data do not reach 1 against other real data at that size: the
# dotted line is what they reach.

real = F.fidelity(GaussianMixture(x[:256], 0.1), GaussianMixture(x[256:512], 0.1))

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
plot_curve(left, list(steps), fidelities, limit=1.0, label="fidelity")
left.axhline(float(real), color="0.4", linestyle=":")
with torch.no_grad():
    plot_points(right, x[:1000], network(torch.randn(400, 4)))
