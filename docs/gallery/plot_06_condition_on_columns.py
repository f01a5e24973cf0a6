"""
Condition a fitted mixture on two columns
=========================================

A mixture of all columns of a table answers any question about them. Fix two columns, and the
density of the others is again a mixture, in closed form.
"""

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_iris

from hilbound.estimators import MixtureDensityEstimator

table = load_iris(as_frame=True).data
model = MixtureDensityEstimator(3, random_state=0).fit(table)

# %%
# What do petals look like if the sepal is 5.0 by 3.4 cm, and if it is 6.5 by 3.0 cm?

given = [[5.0, 3.4], [6.5, 3.0]]
conditional = model.condition(list(table.columns[:2]), given)

length, width = np.meshgrid(np.linspace(0.5, 7, 160), np.linspace(-0.2, 3, 160))
plane = torch.from_numpy(np.stack([length, width], -1)).unsqueeze(2)
density = conditional.log_prob(plane).exp().numpy()

figure, ax = plt.subplots(figsize=(6.2, 4.2), layout="constrained")
ax.scatter(table.iloc[:, 2], table.iloc[:, 3], s=10, color="0.75", label="all flowers")
for k, colour in enumerate(("#0b5f99", "#d4480b")):
    ax.contour(length, width, density[..., k], levels=5, colors=colour, linewidths=1)
    ax.plot([], [], color=colour, label=f"sepal {given[k][0]} × {given[k][1]} cm")
ax.set(xlabel="petal length in cm", ylabel="petal width in cm")
ax.legend(frameon=False)
