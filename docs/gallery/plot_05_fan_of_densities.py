"""
A fan of predicted densities
============================

For every row of a table, :class:`~hilbound.estimators.ConditionalDensityEstimator` predicts a whole
density of the target, not a single number. The red marks are the values that came.
"""

import matplotlib.pyplot as plt
import numpy as np
from sklearn.model_selection import train_test_split

from hilbound.estimators import ConditionalDensityEstimator
from hilbound.reports.density_plots import plot_fan

rng = np.random.default_rng(0)
X = rng.uniform(-2, 2, (300, 1))
# Two branches on the right, one on the left, and noise that grows.
branch = np.where((rng.random(300) < 0.5) & (X[:, 0] > 0), -1, 1)
y = branch * np.abs(X[:, 0]) + 0.1 * rng.normal(size=300) * (1 + np.abs(X[:, 0]))
X_train, X_test, y_train, y_test = train_test_split(X, y, test_size=0.2, random_state=0)

model = ConditionalDensityEstimator(n_folds=3, max_epochs=150, random_state=0)
model.fit(X_train, y_train)

# %%
# One mixture for every row. Its density is that of any torch distribution.

order = np.argsort(X_test[:, 0])[::6]
grid = np.linspace(-3, 3, 300)
densities = np.stack(
    [np.exp(model.score_samples(np.repeat(X_test[order], len(grid), 0), np.tile(grid, len(order))))]
)
figure, ax = plt.subplots(figsize=(6.5, 4.4), layout="constrained")
plot_fan(ax, grid, densities.reshape(len(order), -1), y_test[order])
