"""
Digits by class
===============

One small network for every class of digits, all trained with the debiased nuclear norm. Labels cut
the data into blocks. Each block is a smaller and easier problem, and the joint fidelity is the sum
of the blocks.
"""

import matplotlib.pyplot as plt
import torch
from torch import nn

from hilbound import GaussianMixture, datasets, median_variance
from hilbound.objectives import DebiasedNuclearNorm
from hilbound.reports.plots import plot_images

torch.manual_seed(0)
digits = datasets.load("digits")
objective = DebiasedNuclearNorm()
rows = []
for digit in range(10):
    x = digits.train[digits.train_labels == digit].flatten(1)
    variance = objective.component_variance(median_variance(x))
    network = nn.Sequential(nn.Linear(8, 96), nn.SiLU(), nn.Linear(96, 64), nn.Sigmoid())
    adam = torch.optim.Adam(network.parameters(), lr=7e-3)
    for _ in range(80):
        p = GaussianMixture(x[torch.randperm(len(x))[:72]], variance)
        loss = objective(p, GaussianMixture(network(torch.randn(72, 8)), variance))
        adam.zero_grad()
        loss.backward()
        adam.step()
    rows.append(network(torch.randn(14, 8)).detach())

figure, ax = plt.subplots(figsize=(7.6, 5.4), layout="constrained")
plot_images(ax, torch.cat(rows).reshape(-1, 1, 8, 8), columns=14)
