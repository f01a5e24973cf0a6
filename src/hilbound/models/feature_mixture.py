r"""The density of features as a Gaussian mixture with full covariances.

It is fitted to the features of all training rows by expectation-maximisation,

.. math:: p(y) = \sum_{k=1}^K b_k N(y - m_k; S_k), \qquad
    S_k = \frac{\sum_i r_{ik} (y_i - m_k)(y_i - m_k)^T + c\, S_0}{\sum_i r_{ik} + c}
    + \varepsilon 1,

where :math:`r_{ik}` are posterior weights and :math:`S_0` is the mean scatter within a component.
With classes there is one mixture for each, :math:`p(y) = \sum_c \pi_c\, p(y \mid c)`, and
:math:`\pi_c` is the share of the rows that belong to class c.
"""

import logging
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hilbound.engine.expectation.algorithm import (
    Regularisation,
    fit_components,
    start_components,
)
from hilbound.engine.expectation.components import Components, log_density
from hilbound.errors import InputError
from hilbound.mixture import FullGaussianMixture

log = logging.getLogger(__name__)

#: The numbers of components that are tried, one after the other, if none is given.
COUNTS = (1, 8, 32, 125, 500)
# A component is tried only where it has so many rows on average.
_ROWS_PER_COMPONENT = 20
# Rows' worth of the common scatter, and variance that is added in every direction. Features have
# variance 1. Both were chosen on validation rows of MNIST.
_REGULARISATION = Regularisation(shrinkage=15.0, ridge=0.005)
# More steps do not raise the density at held-out features.
_STEPS, _TRIAL_STEPS, _TOLERANCE = 6, 3, 1e-3
# A mixture that is fitted in passing: so many components, steps and rows.
_ROUGH_COUNT, _ROUGH_STEPS, _ROUGH_ROWS = 20, 3, 10_000

# The tensors whose first axis is that of the components.
_SIZED = ("means", "covariance", "log_weights")


class FeatureMixture(nn.Module):
    """A Gaussian mixture with full covariances that is fitted to features.

    The mixture is part of the state. After ``load_state_dict`` it can be drawn from without data.

    Args:
        feature_dim: Number F of features.
        components: Number of components. By default it is chosen on held-out features.
        classes: Number of classes that have a mixture each, or 1 for a single mixture.

    Raises:
        InputError: If a number is below 1.

    >>> y = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
    >>> density = FeatureMixture(2, components=3)
    >>> density.fit(y, generator=torch.Generator().manual_seed(0))
    >>> density.mixture()
    FullGaussianMixture(components=3, dim=2, batch_shape=())
    """

    means: Tensor
    covariance: Tensor
    log_weights: Tensor
    counts: Tensor

    def __init__(
        self, feature_dim: int, *, components: int | None = None, classes: int = 1
    ) -> None:
        super().__init__()
        if components is not None and components < 1:
            raise InputError(f"components must be at least 1, got {components}")
        if classes < 1:
            raise InputError(f"classes must be at least 1, got {classes}")
        self.components = components
        self.register_buffer("means", torch.zeros(0, feature_dim))
        self.register_buffer("covariance", torch.zeros(0, feature_dim, feature_dim))
        self.register_buffer("log_weights", torch.zeros(0))
        # Components of each class, which lie one after the other. Floats, as all of a run's state.
        self.register_buffer("counts", torch.zeros(classes))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]  # torch's

    @property
    def classes(self) -> int:
        """Number of classes that have a mixture each."""
        return len(self.counts)

    @property
    def fitted(self) -> bool:
        """Whether there is a mixture to draw from."""
        return len(self.means) > 0

    def fit(
        self,
        y: Tensor,
        held_out: Tensor | None = None,
        labels: Tensor | None = None,
        held_out_labels: Tensor | None = None,
        *,
        generator: torch.Generator,
    ) -> None:
        """Fit the mixture to features.

        Args:
            y: Features with shape ``(n, F)``.
            held_out: Other features with shape ``(m, F)``, on which the number of components is
                chosen. Without them the first tenth of ``y`` is set aside for the choice.
            labels: The classes of ``y`` with shape ``(n,)``, if there is a mixture for each.
            held_out_labels: The classes of ``held_out``.
            generator: Draws the first centres.

        Raises:
            InputError: If features are not finite, labels are missing, or there are more components
                than rows.
        """
        _require_finite(y)
        parts: list[Components | None] = []
        for name, own, others in self._by_class(y, held_out, labels, held_out_labels):
            if len(own) == 0:
                parts.append(None)
                continue
            wanted = self._share(len(own), len(y))
            if wanted is not None and wanted > len(own):
                raise InputError(
                    f"components must be at most the {len(own)} rows{name} that they are fitted "
                    f"to, got {wanted}: give fewer components, or more rows"
                )
            if wanted is None:
                start = choose_mixture(own, others, generator)
            else:
                start = fit_mixture(own, wanted, generator, steps=_TRIAL_STEPS)
            part = go_on(own, start, _STEPS - _TRIAL_STEPS)
            parts.append(part.weighted(math.log(len(own) / len(y))))
        self._keep(parts)

    def fit_roughly(
        self, y: Tensor, labels: Tensor | None = None, *, generator: torch.Generator
    ) -> None:
        """Fit a few components to some of the features: a fraction of a second, for a first look.

        The arguments are those of :meth:`fit`.
        """
        _require_finite(y)
        parts: list[Components | None] = []
        for _, own, _ in self._by_class(y, None, labels, None):
            if len(own) == 0:
                parts.append(None)
                continue
            count = max(1, min(_ROUGH_COUNT, self.components or _ROUGH_COUNT, len(own) // 2))
            part = fit_mixture(own[:_ROUGH_ROWS], count, generator, steps=_ROUGH_STEPS)
            parts.append(part.weighted(math.log(len(own) / len(y))))
        self._keep(parts)

    def _share(self, rows: int, of: int) -> int | None:
        """Return the components of a class, by its share of the rows."""
        return None if self.components is None else max(1, round(self.components * rows / of))

    def _by_class(
        self,
        y: Tensor,
        held_out: Tensor | None,
        labels: Tensor | None,
        held_out_labels: Tensor | None,
    ) -> list[tuple[str, Tensor, Tensor | None]]:
        """Return the words for a class, its rows, and its held-out rows."""
        if self.classes == 1:
            return [("", y, held_out)]
        if labels is None or labels.shape != y.shape[:1]:
            came = "none" if labels is None else f"shape {tuple(labels.shape)}"
            raise InputError(f"labels must have shape ({len(y)},), one for each row, got {came}")
        found = []
        for label in range(self.classes):
            own = y[labels == label]
            others = None
            if held_out is not None and held_out_labels is not None:
                others = held_out[held_out_labels == label]
            found.append((f" of class {label}", own, others))
        return found

    def _keep(self, classes: Sequence[Components | None]) -> None:
        """Keep the components of every class, none where it has no rows."""
        to, parts = self.means, [c for c in classes if c is not None]
        self.means = torch.cat([c.means for c in parts]).to(to)
        spread = torch.cat([c.spread for c in parts]).to(to)
        self.covariance = (spread + spread.mT) / 2
        self.log_weights = torch.cat([c.log_weights for c in parts]).to(to)
        counts = [0.0 if c is None else float(len(c.means)) for c in classes]
        self.counts = torch.tensor(counts).to(to)

    def mixture(self, label: int | None = None) -> FullGaussianMixture:
        """Return p(y), or p(y|c) of one class.

        Raises:
            InputError: If nothing was fitted yet, or there is no such class, or no row of it.
        """
        if not self.fitted:
            raise InputError(
                "the density of features is not fitted yet: train the model, or call "
                "fit_features(x) with training rows"
            )
        rows = self._rows_of(label)
        return FullGaussianMixture(
            self.means[rows], self.covariance[rows], log_weights=self.log_weights[rows]
        )

    def _rows_of(self, label: int | None) -> slice:
        if label is None:
            return slice(None)
        if not 0 <= label < self.classes:
            raise InputError(f"label must lie between 0 and {self.classes - 1}, got {label}")
        counts = [int(count) for count in self.counts]
        if counts[label] == 0:
            raise InputError(f"class {label} has no density: no training row was of this class")
        start = sum(counts[:label])
        return slice(start, start + counts[label])

    def draw(
        self, n: int, label: int | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Draw ``n`` features with shape ``(n, F)`` from p(y), or from p(y|c).

        Each draw has the distribution of the mixture. Together they are spread evenly: a component
        of weight b is drawn ``n b`` times, rounded up or down.
        """
        q = self.mixture(label)
        u = torch.rand(1, generator=generator, device=q.means.device, dtype=torch.float64)
        steps = torch.arange(n, device=q.means.device, dtype=torch.float64)
        ends = q.weights.double().cumsum(0)
        ends[-1] = 1.0
        chosen = torch.searchsorted(ends, (steps + u) / n, right=True).clamp_max(q.components - 1)
        order = torch.randperm(n, generator=generator, device=q.means.device)
        chosen = chosen[order]
        noise = torch.randn(
            n, q.dim, 1, generator=generator, dtype=q.means.dtype, device=q.means.device
        )
        factor = torch.linalg.cholesky(q.component_covariance)
        rows: Tensor = q.means[chosen] + (factor[chosen] @ noise).squeeze(-1)
        return rows


def fit_mixture(y: Tensor, count: int, generator: torch.Generator, *, steps: int) -> Components:
    """Return components that are fitted to features ``(n, F)`` by a number of steps."""
    y = y.cpu()
    start = start_components(y, count, _REGULARISATION, full=True, generator=generator, starts=1)
    return go_on(y, start, steps)


def go_on(y: Tensor, start: Components, steps: int) -> Components:
    """Return components after further steps on features ``(n, F)``."""
    return fit_components(y.cpu(), start, _REGULARISATION, max_steps=steps, tolerance=_TOLERANCE)


def choose_mixture(y: Tensor, held_out: Tensor | None, generator: torch.Generator) -> Components:
    """Return the components, after a few steps, that are the most probable at held-out features.

    The numbers of :data:`COUNTS` are tried in their order, until one is no better than the last.

    Args:
        y: Features with shape ``(n, F)``.
        held_out: Other features with shape ``(m, F)``. Without them the first tenth of ``y`` is
            set aside.
        generator: Draws the first centres.
    """
    if held_out is None or len(held_out) == 0:
        cut = max(1, len(y) // 10)
        y, held_out = y[cut:], y[:cut]
    best: Components | None = None
    reached = -math.inf
    for count in COUNTS:
        if best is not None and count * _ROWS_PER_COMPONENT > len(y):
            break
        fitted = fit_mixture(y, count, generator, steps=_TRIAL_STEPS)
        mean = float(log_density(fitted, held_out.cpu()).mean())
        log.debug("%d components: %.3f nats at held-out features", count, mean)
        if best is not None and mean <= reached:
            break
        best, reached = fitted, mean
    if best is None:
        raise RuntimeError("no number of components was tried")
    return best


def _require_finite(y: Tensor) -> None:
    if y.ndim != 2 or len(y) < 2:
        raise InputError(
            f"features must have shape (n, F) with at least 2 rows, got {tuple(y.shape)}: give "
            "more training rows"
        )
    bad = int((~y.isfinite()).any(-1).sum())
    if bad:
        raise InputError(
            f"the features of {bad} of {len(y)} rows are not finite: the encoder's training "
            "failed; train with a lower learning rate"
        )


def with_components_of(
    wanted: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a model's tensors, with as many components as a file has.

    Only the number of components may differ, and all tensors of a density must agree on it.

    Args:
        wanted: The shapes of the model, by name.
        found: The shapes in the file, by name.

    >>> with_components_of({"density.means": (0, 2)}, {"density.means": (5, 2)})
    {'density.means': (5, 2)}
    """
    names = [name for name in wanted if name.rpartition(".")[0].endswith("density")]
    sized = [name for name in names if name.rpartition(".")[2] in _SIZED]
    counts = {found[name][0] for name in sized if found.get(name)}
    if len(counts) != 1:
        return dict(wanted)
    (count,) = counts
    return dict(wanted) | {name: (count, *wanted[name][1:]) for name in sized}


def _make_room(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before a state is loaded, make room for as many components as it holds."""
    if not isinstance(module, FeatureMixture):
        return
    for name in _SIZED:
        held, own = state.get(prefix + name), getattr(module, name)
        if held is not None and held.ndim == own.ndim and held.shape[1:] == own.shape[1:]:
            setattr(module, name, own.new_empty(held.shape))
