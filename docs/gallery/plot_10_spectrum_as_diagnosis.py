"""
The spectrum as a diagnosis
===========================

Three models of the same data. The first covers them, the second puts every centre into one of two
moons, the third is a blur. The spectrum of the cross Gram matrix tells them apart without a
picture: what is missing, is missing in the tail.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture, datasets
from hilbound.engine.spectrum.svd import effective_rank, singular_values
from hilbound.reports.plots import plot_spectrum

torch.manual_seed(0)
x = datasets.load("moons").train
data, fresh = x[:200], x[200:400]
one_moon = x[x[:, 1] > x[:, 1].median()][:200]
# Every centre is the mean of many neighbours: a blur.
blur = x[400:][torch.cdist(fresh, x[400:]).topk(1500, largest=False).indices].mean(1)

models = {"covers the data": fresh, "one moon only": one_moon, "a blur": blur}
spectra, ranks = {}, {}
for name, centres in models.items():
    overlaps = GaussianMixture(data, 0.03).log_overlaps(GaussianMixture(centres, 0.03)).exp()
    spectra[name] = singular_values(overlaps)
    ranks[name] = float(effective_rank(spectra[name]))

figure = plt.figure(figsize=(10, 3.8), layout="constrained")
grid = figure.add_gridspec(3, 2, width_ratios=[1, 2.4])
for row, (name, centres) in enumerate(models.items()):
    ax = figure.add_subplot(grid[row, 0])
    ax.scatter(*data.T, s=3, color="0.78")
    ax.scatter(*centres.T, s=4, color="#d4480b")
    ax.set(xticks=[], yticks=[])
    ax.set_ylabel(f"rank {ranks[name]:.0f}", rotation=0, ha="right", va="center")
plot_spectrum(figure.add_subplot(grid[:, 1]), spectra)
