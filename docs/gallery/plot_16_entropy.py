r"""
Two entropies of a mixture
==========================

Rényi's quadratic entropy :math:`-\log \langle p, p \rangle` has a closed form for mixtures.
Shannon's entropy has none, and is estimated by draws. Rényi's is never larger. Both grow with the
variance.
"""

import matplotlib.pyplot as plt
import torch

from hilbound import GaussianMixture, datasets

x = datasets.load("moons").train[:500]
variances = torch.logspace(-3, 1, 17)
renyi, shannon, errors = [], [], []
for variance in variances:
    p = GaussianMixture(x, float(variance))
    renyi.append(float(p.renyi_entropy()))
    estimate = p.estimate_entropy(samples=2000, generator=torch.Generator().manual_seed(0))
    shannon.append(float(estimate.value))
    errors.append(2 * float(estimate.error))

figure, ax = plt.subplots(figsize=(6.2, 3.8), layout="constrained")
ax.errorbar(variances, shannon, errors, color="#d4480b", marker="o", markersize=4, label="Shannon")
ax.plot(variances, renyi, color="#0b5f99", marker="s", markersize=4, label="Rényi, quadratic")
ax.set(xscale="log", xlabel="variance of a component", ylabel="entropy in nats")
ax.legend(frameon=False)
