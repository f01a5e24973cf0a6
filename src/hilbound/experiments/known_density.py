r"""Known density: exact tightness of conditional models where p(x|y) is known.

For y uniform in [-1, 1], x lies around one of two opposite points of a circle that y turns,

.. math:: p(x|y) = \tfrac12 N(x - m(y); s^2) + \tfrac12 N(x + m(y); s^2), \qquad
    m(y) = 0.8 \big(\cos \tfrac{\pi y}2, \sin \tfrac{\pi y}2\big).

Smoothed by the kernel it is a Gaussian mixture again, so cost and limit are exact, and so is what K
draws of p itself reach: with :math:`A = \|p_v(\cdot|y)\|^2`, the same for all y, and the squared
norm C of one component, :math:`A / (C / K + (1 - 1/K) A)`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from hilbound import functional as F
from hilbound.bounds import log_component_norm
from hilbound.engine.seeding import seeded_globally, stream
from hilbound.experiments.base import (
    Cell,
    Claim,
    Experiment,
    Picture,
    Row,
    Settings,
    beyond,
    select,
    spread,
    together,
    values_of,
)
from hilbound.experiments.shared.descent import descend
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import MixtureDecoder
from hilbound.models.networks import MLP
from hilbound.reports.drawing import canvas, draw_line, look, tidy
from hilbound.reports.page import Table
from hilbound.variance import VarianceSchedule

#: What a decoder is trained with: the cost, the cost without its diagonal, the baseline.
COSTS = {
    "cost": "the conditional cost",
    "between": "the cost without its diagonal",
    "likelihood": "the likelihood",
}
#: The seed of the trainings that choose the likelihood's variance.
CHOOSING_SEED = 1000
ROUNDING = 1e-9
#: What is tight enough with the most centres.
TIGHT = 0.9
#: As good in nats.
NATS = 0.05


class KnownSettings(Settings):
    """The density, the decoders and what they are measured with."""

    spread: float = 0.05
    variance: float = 0.05
    centers: tuple[int, ...] = (1, 2, 5, 10, 30)
    likelihood_variances: tuple[float, ...] = (0.0125, 0.025, 0.05, 0.1)
    width: int = 64
    depth: int = 2
    noise_dim: int = 4
    batch_size: int = 256
    steps: int = 2000
    #: The kernel starts so many times as wide and narrows over the first half of the steps. A
    #: narrow one does not feel the other side of the circle, and K < 10 centres stay on one.
    wide: float = 10.0
    learning_rate: float = 5e-3
    points: int = 1000
    many: int = 200


class KnownDensity(Experiment[KnownSettings]):
    """Tightness against K for three costs, beside that of draws of the density itself."""

    name = "known-density"
    title = "Known density: exact tightness, and a fair likelihood, where p(x|y) is known"
    question = """
Where p(x|y) is known, the tightness of a conditional model is exact, and so is that of a perfect
sampler with K draws. How near do decoders with K centres come? They are trained on three costs: the
conditional cost, the cost without its diagonal (the form that is unbiased for draws), and the
likelihood. Given y, x lies around one of two opposite points of a circle, and one centre cannot be
at both. All share one small network. They see fresh draws of p in every step, so nothing can be
learned by heart.

The likelihood smooths the model alone, so it has a variance of its own, chosen by the likelihood of
validation draws. Its density has the noise of that variance, so it is measured twice: by its
centres, and by its centres with noise; the better one counts. The other way round, the models of
the cost are measured in the likelihood's terms: the mean log-likelihood of test draws under 200
centres, with the variance that is best for validation draws.
"""

    def settings(self, *, quick: bool) -> KnownSettings:
        """Return the settings, or a tiny training."""
        if quick:
            return KnownSettings(
                centers=(1, 3),
                likelihood_variances=(0.05, 0.1),
                width=8,
                batch_size=32,
                steps=10,
                points=50,
                many=20,
            )
        return KnownSettings()

    def cells(
        self, settings: KnownSettings, seeds: Sequence[int], rows: Sequence[Row]
    ) -> Iterable[Cell]:
        """Return the trainings that choose the likelihood's variance, then all others."""
        most = settings.centers[-1]
        for v in settings.likelihood_variances:
            yield _cell("likelihood", most, v, CHOOSING_SEED)
        tried = select(rows, seed=CHOOSING_SEED)
        if len(tried) < len(settings.likelihood_variances):
            return
        for seed in seeds:
            for k in settings.centers:
                yield _cell("cost", k, settings.variance, seed)
                if k > 1:
                    yield _cell("between", k, settings.variance, seed)
                yield _cell("likelihood", k, chosen_variance(rows), seed)

    def measure(self, settings: KnownSettings, options: Mapping[str, Any], folder: Path) -> Row:
        """Train a decoder and measure it against the density itself."""
        del folder
        cost, k, v, seed = (options[n] for n in ("cost", "centers", "variance", "seed"))
        decoder = trained(settings, cost, k, v, seed)
        return measured(settings, decoder, k, v if cost == "likelihood" else None)

    def claims(self, settings: KnownSettings, rows: Sequence[Row]) -> list[Claim]:
        """Return claims about draws, K, the diagonal and the likelihood, then what is proved."""
        rows = [row for row in rows if row["seed"] != CHOOSING_SEED]
        return [
            _reaches_draws(settings, rows),
            _rises(settings, rows),
            _without_diagonal(settings, rows),
            _ahead_of_likelihood(settings, rows),
            _in_nats(settings, rows),
            _never_above(rows),
        ]

    def tables(self, settings: KnownSettings, rows: Sequence[Row]) -> list[Table]:
        """Return the tightness for every K and cost, and the likelihoods."""
        rows = [row for row in rows if row["seed"] != CHOOSING_SEED]
        tightness = tuple(
            (
                str(k),
                f"{of_draws(settings, k):.3f}",
                *(spread(best_tightness(rows, cost, k)) for cost in COSTS),
                spread(values_of(rows, "noisy_tightness", cost="likelihood", centers=k)),
            )
            for k in settings.centers
        )
        density = tuple(
            (
                str(k),
                *(spread(values_of(rows, "density", cost=c, centers=k)) for c in COSTS),
                *(spread(values_of(rows, "nats", cost=c, centers=k)) for c in COSTS),
            )
            for k in settings.centers
        )
        titles = tuple(COSTS.values())
        return [
            Table(
                ("K", "K draws of p", *titles, "the likelihood, with noise"),
                tightness,
                "Exact tightness with K centres (of the likelihood, the better of its two)",
            ),
            Table(
                ("K", *(f"{t}: tightness" for t in titles), *(f"{t}: nats" for t in titles)),
                density,
                f"The density behind them, {settings.many} centres: exact tightness, and mean "
                f"log-likelihood of test draws; that of p itself is {-entropy(settings):.3f}",
            ),
        ]

    def pictures(
        self, settings: KnownSettings, rows: Sequence[Row], work: Path
    ) -> Iterator[Picture]:
        """Draw the tightness against K."""
        del work
        figure, ax = canvas(6.4, 3.8)
        for i, (cost, title) in enumerate(COSTS.items()):
            ks = [k for k in settings.centers if best_tightness(rows, cost, k)]
            values = [mean(best_tightness(rows, cost, k)) for k in ks]
            draw_line(ax, torch.tensor(ks).numpy(), torch.tensor(values).numpy(), title, look(i))
        draws = torch.tensor([of_draws(settings, k) for k in settings.centers])
        style = ("#555555", ":")
        draw_line(ax, torch.tensor(settings.centers).numpy(), draws.numpy(), "K draws of p", style)
        ax.axhline(1, color="black", linewidth=1)
        ax.set(xscale="log", ylim=(0, 1.05), xlabel="centres K", ylabel="exact tightness")
        ax.set_xticks(settings.centers, [str(k) for k in settings.centers])
        ax.minorticks_off()
        tidy(ax)
        ax.legend(frameon=False, fontsize=9, loc="lower right")
        yield Picture(
            "tightness",
            figure,
            "Exact tightness against K, a line for each cost and one for draws of the density",
            "Mean over the seeds; the line at 1 is the limit, the dotted one what K draws of the "
            "density itself reach.",
        )

    def notes(self, settings: KnownSettings, rows: Sequence[Row]) -> str:
        """Say what was chosen, and how small this is."""
        return (
            f"The likelihood's variance, chosen on validation draws: {chosen_variance(rows):g}, of "
            f"{', '.join(f'{v:g}' for v in settings.likelihood_variances)}. One density in two "
            "dimensions and a small network: this is a check of the reasoning, not of images."
        )


def _cell(cost: str, k: int, variance: float, seed: int) -> Cell:
    return Cell.of(cost=cost, centers=k, variance=variance, seed=seed)


def chosen_variance(rows: Sequence[Row]) -> float:
    """Return the variance of the likelihood with the highest likelihood of validation draws."""
    tried = select(rows, seed=CHOOSING_SEED)
    return float(max(tried, key=lambda row: float(row["own_nats"]))["variance"])


# ------------------------------------------------------------------ the density


def points_of(y: Tensor) -> Tensor:
    """Return the two means of p(x|y), shape ``(*, 2, 2)``, for y with shape ``(*, 1)``."""
    turn = 0.5 * math.pi * y
    m = 0.8 * torch.cat([turn.cos(), turn.sin()], -1)
    return torch.stack([m, -m], -2)


def draw(settings: KnownSettings, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw x and y of the density, shapes ``(n, 2)`` and ``(n, 1)``."""
    y = 2 * torch.rand(n, 1, generator=generator) - 1
    side = torch.randint(2, (n,), generator=generator)
    noise = torch.randn(n, 2, generator=generator)
    return points_of(y)[torch.arange(n), side] + settings.spread**0.5 * noise, y


def of_draws(settings: KnownSettings, k: int) -> float:
    """Return the tightness that K draws of p(x|y) reach, averages before the quotient.

    >>> round(of_draws(KnownSettings(), 1), 3), of_draws(KnownSettings(), 10**9)
    (0.25, 1.0)
    """
    p = GaussianMixture(points_of(torch.zeros(1, 1).double()), settings.spread + settings.variance)
    a, c = float(p.log_norm().exp()), math.exp(log_component_norm(settings.variance, 2))
    return round(a / (c / k + (1 - 1 / k) * a), 6)


def entropy(settings: KnownSettings) -> float:
    """Return the entropy of p(x|y) in nats; the two halves are too far apart to overlap."""
    return math.log(2) + math.log(2 * math.pi * math.e * settings.spread)


# ------------------------------------------------------------------ training and measures


def trained(
    settings: KnownSettings, cost: str, k: int, variance: float, seed: int
) -> MixtureDecoder:
    """Train a decoder with K centres on fresh draws."""
    with seeded_globally(stream(seed, "weights").initial_seed()):
        network = MLP(1 + settings.noise_dim, 2, settings.width, settings.depth)
    decoder = MixtureDecoder(network, 1, settings.noise_dim, variance)
    adam = torch.optim.Adam(decoder.parameters(), settings.learning_rate, betas=(0.5, 0.9))
    kernel = VarianceSchedule(settings.wide * variance, variance)

    def losses() -> Iterator[Tensor]:
        for step in range(settings.steps):
            v = kernel.at(2 * step / settings.steps)
            generator = stream(seed, "known", step)
            x, y = draw(settings, settings.batch_size, generator)
            noise = decoder.noise(len(x), k, generator=generator)
            q = GaussianMixture(decoder(y, noise).means, v)
            p = GaussianMixture(x.unsqueeze(1), v)
            yield (
                -q.log_prob(x).mean()
                if cost == "likelihood"
                else -F.conditional_log_scalar_cost(p, q, diagonal=cost == "cost")
            )

    descend(adam, losses(), settings.steps)
    return decoder


@torch.no_grad()
def measured(
    settings: KnownSettings, decoder: MixtureDecoder, k: int, own_variance: float | None
) -> Row:
    """Return the exact tightness with K centres and with many, and likelihoods of draws.

    Args:
        settings: The density.
        decoder: The decoder.
        k: Its number of centres.
        own_variance: That of a model of the likelihood, whose density has noise of it.
    """
    generator = stream(0, "known-measured")
    (x, y), (other, at) = (draw(settings, settings.points, generator) for _ in range(2))
    few = _centers(decoder, y, k, generator)
    many = _centers(decoder, y, settings.many, generator)
    row: Row = {"tightness": exact_tightness(settings, y, few)}
    row["density"] = exact_tightness(settings, y, many)
    if own_variance is not None:
        noisy = [c + own_variance**0.5 * torch.randn(c.shape, generator=generator).to(c)
                 for c in (few, many)]  # fmt: skip
        row["noisy_tightness"] = exact_tightness(settings, y, noisy[0])
        row["density"] = max(row["density"], exact_tightness(settings, y, noisy[1]))
    grid = settings.spread * 2.0 ** torch.arange(-5, 2.5, 0.5).double()
    here = _centers(decoder, at, settings.many, generator)
    validation = [float(GaussianMixture(here, float(v)).log_prob(other.double()).mean())
                  for v in grid]  # fmt: skip
    best = float(grid[int(torch.tensor(validation).argmax())])
    row["nats"] = float(GaussianMixture(many, best).log_prob(x.double()).mean())
    if own_variance is not None:
        row["own_nats"] = float(GaussianMixture(here, own_variance).log_prob(other.double()).mean())
    return row


def _centers(decoder: MixtureDecoder, y: Tensor, k: int, generator: torch.Generator) -> Tensor:
    means: Tensor = decoder(y, decoder.noise(len(y), k, generator=generator)).means
    return means.double()


def exact_tightness(settings: KnownSettings, y: Tensor, centers: Tensor) -> float:
    """Return the tightness of centres ``(M, K, 2)`` at ``(M, 1)`` against the density itself."""
    v = settings.variance
    p = GaussianMixture(points_of(y.double()), settings.spread + v)
    q = GaussianMixture(centers, v)
    limit = torch.logsumexp(p.log_norm(), 0) - math.log(len(y))
    return float((F.conditional_log_scalar_cost(p, q) - limit).exp())


def best_tightness(rows: Sequence[Row], cost: str, k: int) -> list[float]:
    """Return the tightness of every seed; of the likelihood, the better of its two."""
    own = [row for row in select(rows, cost=cost, centers=k) if row["seed"] != CHOOSING_SEED]
    return [max(row["tightness"], row.get("noisy_tightness") or 0.0) for row in own]


# ------------------------------------------------------------------ claims


def _reaches_draws(settings: KnownSettings, rows: Sequence[Row]) -> Claim:
    found = {k: best_tightness(rows, "cost", k) for k in settings.centers}
    return Claim(
        "Trained on the cost, K centres reach at least what K draws of the density itself reach, "
        "for every K and seed",
        "; ".join(
            f"K = {k}: {spread(values)}, draws {of_draws(settings, k):.3f}"
            for k, values in found.items()
        ),
        all(min(values) >= of_draws(settings, k) for k, values in found.items()),
    )


def _rises(settings: KnownSettings, rows: Sequence[Row]) -> Claim:
    means = {k: mean(best_tightness(rows, "cost", k)) for k in settings.centers}
    values = list(means.values())
    return Claim(
        f"Their tightness rises with every step of K, to {TIGHT:g} or more with the most",
        ", ".join(f"{v:.3f} with K = {k}" for k, v in means.items()),
        values == sorted(values) and values[-1] >= TIGHT,
    )


def _without_diagonal(settings: KnownSettings, rows: Sequence[Row]) -> Claim:
    found = {
        k: [values_of(rows, "density", cost=cost, centers=k) for cost in ("between", "cost")]
        for k in settings.centers
        if k > 1
    }
    return Claim(
        f"Trained without the diagonal, the density behind the centres ({settings.many} of them) "
        "is nearer to p than with it, for every K and seed",
        "; ".join(f"K = {k}: {spread(a)} against {spread(b)}" for k, (a, b) in found.items()),
        together([beyond(a, b) for a, b in found.values()]),
    )


def _ahead_of_likelihood(settings: KnownSettings, rows: Sequence[Row]) -> Claim:
    pairs = {
        k: [best_tightness(rows, cost, k) for cost in ("cost", "likelihood")]
        for k in settings.centers
    }
    return Claim(
        "The cost is tighter than the likelihood at its own variance, for every K and seed",
        "; ".join(f"K = {k}: {spread(a)} against {spread(b)}" for k, (a, b) in pairs.items()),
        together([beyond(a, b) for a, b in pairs.values()]),
    )


def _in_nats(settings: KnownSettings, rows: Sequence[Row]) -> Claim:
    most = settings.centers[-1]
    found = {c: values_of(rows, "nats", cost=c, centers=most) for c in COSTS}
    return Claim(
        f"In the likelihood's own terms the cost loses at most {NATS:g} nats to it, with the most "
        "centres and in the mean",
        f"test draws have {', '.join(f'{spread(v)} under {COSTS[c]}' for c, v in found.items())}; "
        f"{-entropy(settings):.3f} under p itself",
        mean(found["cost"]) >= mean(found["likelihood"]) - NATS,
    )


def _never_above(rows: Sequence[Row]) -> Claim:
    names = ("tightness", "noisy_tightness", "density")
    largest = max(v for name in names for v in values_of(rows, name))
    return Claim(
        "No tightness is above 1 (Cauchy-Schwarz)",
        f"the largest of {len(rows)} trainings is {largest:.4f}",
        largest <= 1 + ROUNDING,
        theorem=True,
    )


EXPERIMENT = KnownDensity()
