"""Tables whose conditional density is known."""

from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Simulator:
    """Draws rows, and knows the density of their target."""

    frozen: object  # x -> a list of (weight, scipy distribution)

    def draw(self, n, seed=0):
        rng = np.random.default_rng(seed)
        x = rng.uniform(-1, 1, n)
        parts = self.frozen(x)
        which = rng.choice(len(parts), n, p=[w for w, _ in parts])
        draws = np.stack([d.rvs(n, random_state=rng) for _, d in parts])
        return x[:, None], draws[which, np.arange(n)]

    def density(self, x, y):
        """Density with shape ``(n, m)`` on a grid of targets."""
        return sum(w * d.pdf(y[None, :]) for w, d in self.frozen(x[:, None]))


HETEROSCEDASTIC = Simulator(lambda x: [(1, stats.norm(np.sin(3 * x), 0.1 + 0.4 * np.abs(x)))])
BIMODAL = Simulator(lambda x: [(0.3, stats.norm(x + 2, 0.2)), (0.7, stats.norm(-x - 2, 0.3))])
SKEWED = Simulator(lambda x: [(1, stats.gamma(2, loc=x, scale=0.3 + 0.2 * x))])
HEAVY = Simulator(lambda x: [(1, stats.t(3, loc=x, scale=0.3))])
JUMP = Simulator(lambda x: [(1, stats.norm(2.0 * (x > 0), 0.15))])
ALL = {
    "heteroscedastic": HETEROSCEDASTIC,
    "bimodal": BIMODAL,
    "skewed": SKEWED,
    "heavy-tailed": HEAVY,
    "jump": JUMP,
}
