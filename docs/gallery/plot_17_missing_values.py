"""
Rows with gaps
==============

A mixture does not need complete rows. Missing values are integrated out, not filled in. Here half
of one column is lost, and the fitted density hardly changes.
"""

import matplotlib.pyplot as plt
import numpy as np

from hilbound.estimators import MixtureDensityEstimator

rng = np.random.default_rng(0)
angle = rng.uniform(0, np.pi, 500)
x = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.1 * rng.normal(size=(500, 2))
gaps = x.copy()
gaps[rng.random(500) < 0.5, 1] = np.nan

a, b = np.meshgrid(np.linspace(-1.5, 1.5, 120), np.linspace(-0.5, 1.5, 100))
plane = np.stack([a.ravel(), b.ravel()], 1)

figure, axes = plt.subplots(1, 2, figsize=(8.6, 3.3), layout="constrained", sharey=True)
for ax, table, title in zip(axes, (x, gaps), ("complete", "half of y lost"), strict=True):
    model = MixtureDensityEstimator(6, random_state=0).fit(table)
    ax.contourf(a, b, np.exp(model.score_samples(plane)).reshape(a.shape), levels=12, cmap="Blues")
    whole = ~np.isnan(table).any(1)
    ax.scatter(*table[whole].T, s=4, color="#d4480b")
    ax.set(title=f"{title}: {model.score(x):.2f} nats a row", xticks=[], yticks=[])
