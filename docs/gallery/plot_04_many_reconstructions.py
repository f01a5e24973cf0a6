"""
One feature, many reconstructions
=================================

An autoencoder returns one picture for an input. With one feature, that picture is a blur. A mixture
decoder returns a density: many pictures that could have had the same feature. Here it is trained on
pairs of a picture and its feature.
"""

import tempfile

import matplotlib.pyplot as plt
import torch

import hilbound
from hilbound.reports.plots import plot_images

with tempfile.TemporaryDirectory() as folder:
    run = hilbound.fit(
        f"{folder}/run",
        data="digits",
        model="encoder-mixture-decoder",
        objective="joint-nuclear",
        features=1,
        steps=300,
        batch_size=256,
        width=128,
        tensorboard=False,
        quiet=True,
    )
    model, x = run.model, run.dataset.test[[3, 14, 25, 36, 47]]

generator = torch.Generator().manual_seed(0)
drawn = model.reconstruct(x, 9, generator=generator)  # nine for each input
rows = torch.cat([x.flatten(1).unsqueeze(1), drawn.flatten(2)], 1)

figure, ax = plt.subplots(figsize=(7, 3.8), layout="constrained")
plot_images(ax, rows.reshape(-1, 1, 8, 8).clamp(0, 1), columns=10)
ax.set_title("input, then nine reconstructions from its one feature", fontsize=10)
