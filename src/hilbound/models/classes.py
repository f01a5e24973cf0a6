r"""Class-conditional models: models with an encoder whose decoder also gets the class.

The class c is added to the features y as a one-hot code :math:`e_c` with C coordinates. So the
features need not encode the class. New data of one class are made from the features of that class,

.. math:: q(x \mid y, c) = \frac1K \sum_{k=1}^K N(x - D(y, e_c, c_k); v_q), \qquad
    y \sim p(y \mid c) = \frac{1}{N_c} \sum_{n:\, l_n = c} N(y - f(x_n); v_y).

The code gets no noise. So nothing else changes when mixtures are compared for every row: the
features of a row include its class. All models of :mod:`hilbound.models.autoencoders` can be made
class-conditional in this way. :meth:`ClassConditional.compare` returns the two mixtures that an
objective compares.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from hilbound.arguments import require_whole
from hilbound.bounds import Bound, conditional_bound, real_bound
from hilbound.engine.seeding import Source
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.autoencoders import (
    EncoderMixtureDecoder,
    FeatureModel,
    MixtureDecoder,
    require_some,
)
from hilbound.models.base import (
    Comparison,
    DensityModel,
    MixtureNetwork,
    PairComparison,
    require_label,
)
from hilbound.models.latent import LatentMixture

# Codes of two classes are this far apart, as a squared distance over 2 v_y: exp(-800) is zero.
_APART = 800.0


class ClassDecoder(MixtureDecoder):
    """Map features, the code of a class and noise to the centres of a mixture for every input.

    Args:
        network: Maps features, code and noise together, with shape
            ``(*, feature_dim + classes + noise_dim)``, to centres with shape ``(*, d)``.
        feature_dim: Number of features, without the code.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components. If it is learned, this is the initial value.
        classes: Number C of classes.
        **options: Options of :class:`~hilbound.models.base.MixtureNetwork`.

    Raises:
        InputError: If ``classes`` is not a whole number above zero, or an option is refused.

    >>> decoder = ClassDecoder(nn.Linear(6, 4), 1, 2, variance=0.5, classes=3)
    >>> with decoder.told(torch.tensor([0, 2])):
    ...     decoder(torch.zeros(2, 1), decoder.noise(2, 5))
    GaussianMixture(components=5, dim=4, batch_shape=(2,), variance=0.5)
    """

    def __init__(
        self,
        network: nn.Module,
        feature_dim: int,
        noise_dim: int,
        variance: float,
        *,
        classes: int,
        **options: Any,
    ) -> None:
        classes = require_whole("classes", classes)
        if classes < 1:
            raise InputError(f"classes must be at least 1, got {classes}")
        super().__init__(network, feature_dim + classes, noise_dim, variance, **options)
        # Models draw and encode only the features, so their number excludes the code.
        self.feature_dim = feature_dim
        self.classes = classes
        self._labels: Tensor | None = None

    @contextmanager
    def told(self, labels: Tensor) -> Iterator[None]:
        """Decode with these classes inside a ``with`` block.

        Blocks can be nested. After an inner block, the classes of the outer one hold again.

        Args:
            labels: One class for all rows, with shape ``()``, or one for each, with shape ``(B,)``.

        Raises:
            InputError: If the labels are not whole numbers of such a shape, or there is no such
                class.
        """
        before, self._labels = self._labels, self.as_labels(labels)
        try:
            yield
        finally:
            self._labels = before

    def as_labels(self, labels: Tensor) -> Tensor:
        """Return classes with shape ``()`` or ``(B,)``, of any integer dtype, in int64.

        Raises:
            InputError: If they are not whole numbers of such a shape, or there is no such class.
        """
        _require_whole_numbers(labels)
        if labels.ndim > 1:
            raise InputError(
                f"labels must have shape () or (B,), got {tuple(labels.shape)}: give one class for "
                "all rows or one for each"
            )
        if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
            raise InputError(
                f"labels must lie between 0 and {self.classes - 1}, got {int(labels.min())} to "
                f"{int(labels.max())}"
            )
        return labels.long()

    def forward(self, features: Tensor, noise: Tensor) -> GaussianMixture:
        """Return q(x|y, c) with batch shape ``(*batch)``. See :class:`MixtureDecoder`.

        Raises:
            InputError: If it is called outside :meth:`told`, or shapes do not fit.
        """
        if self._labels is None:
            raise InputError("the decoder was not told a class: call it within `told(labels)`")
        if (features.shape[-1], noise.shape[-1]) != (self.feature_dim, self.noise_dim):
            raise InputError(
                f"features and noise must have {self.feature_dim} and {self.noise_dim} "
                f"coordinates, got {features.shape[-1]} and {noise.shape[-1]}"
            )
        if self._labels.ndim and (features.ndim < 2 or len(features) != len(self._labels)):
            raise InputError(
                f"labels must be one class for all rows, or one for each of the rows of features "
                f"{tuple(features.shape)}; got {len(self._labels)}"
            )
        code = nn.functional.one_hot(self._labels, self.classes).to(features)
        # Labels belong to the first axis. All draws for one row have its class.
        while 1 < code.ndim < features.ndim:
            code = code.unsqueeze(-2)
        code = code.expand(*features.shape[:-1], self.classes)
        batch, k = features.shape[:-1], noise.shape[-2]
        told = torch.cat([features, code], -1).unsqueeze(-2).expand(*batch, k, -1)
        return self.mixture(torch.cat([told, noise.expand(*batch, k, -1).to(features)], -1))


class ClassConditional(DensityModel):
    """A class-conditional model: training rows come with labels, and samples belong to a class.

    The remembered features are part of its state. So after ``load_state_dict`` the model can be
    sampled from without the data.

    Args:
        model: A model whose decoder is a :class:`ClassDecoder`.
        rows: Number of training rows whose features will be remembered.

    Raises:
        InputError: If the model has no encoder, or its decoder is not a :class:`ClassDecoder`.

    >>> from hilbound.models.autoencoders import EncoderMixtureDecoder
    >>> decoder = ClassDecoder(nn.Linear(6, 4), 1, 2, variance=0.5, classes=3)
    >>> model = ClassConditional(EncoderMixtureDecoder(nn.Linear(4, 1), decoder, variance_y=0.1))
    >>> x, labels = torch.zeros(5, 4), torch.tensor([0, 1, 2, 1, 0])
    >>> model.compare(x, 0.5, centers=7, labels=labels).q
    GaussianMixture(components=7, dim=4, batch_shape=(5,), variance=0.5)
    >>> model.remember(x, labels)
    >>> model.sample(6, label=1).shape
    torch.Size([6, 4])
    """

    remembered_features: Tensor
    remembered_rows: Tensor

    def __init__(self, model: FeatureModel, rows: int = 0) -> None:
        super().__init__()
        if not isinstance(model, FeatureModel):
            raise InputError(
                f"model must have an encoder and a decoder, got a {type(model).__name__}: give it "
                "one of hilbound.models.autoencoders, with a ClassDecoder"
            )
        if not isinstance(model.decoder, ClassDecoder):
            raise InputError(
                f"model has a {type(model.decoder).__name__}, which takes no classes: give it a "
                "ClassDecoder"
            )
        self.model = model
        self.objectives, self.stages = model.objectives, model.stages
        # Features of the training rows, sorted by class, and the number of rows of each class.
        empty = torch.full((rows, model.decoder.feature_dim), math.nan)
        self.register_buffer("remembered_features", empty.to(model.decoder.variance))
        counts = torch.zeros(model.decoder.classes, dtype=torch.int64)
        self.register_buffer("remembered_rows", counts.to(model.decoder.variance.device))
        self.register_load_state_dict_pre_hook(_make_room)  # type: ignore[no-untyped-call]  # torch's

    @property
    def decoder(self) -> ClassDecoder:
        """The model's decoder."""
        return cast("ClassDecoder", self.model.decoder)  # checked at the start

    @property
    def head(self) -> MixtureNetwork:
        """The decoder."""
        return self.decoder

    @property
    def blocks(self) -> int:
        """The number C of classes."""
        return self.decoder.classes

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return the two mixtures of :meth:`DensityModel.compare`, for rows with labels.

        Args:
            x: Rows with shape ``(B, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres for every row.
            generator: Draws the noise.
            labels: The classes of the rows with shape ``(B,)``.

        Raises:
            InputError: If labels are missing, there is no such class, or not one label for each
                row.
        """
        with self.decoder.told(_require_labels(labels)):
            return self.model.compare(x, variance, centers, generator)

    def compare_pairs(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        feature_variance: float,
        *,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> PairComparison:
        """Return mixtures over a row, its features and the code of its class.

        Rows and centres of different classes do not overlap. See
        :meth:`FeatureModel.compare_pairs
        <hilbound.models.autoencoders.FeatureModel.compare_pairs>`.

        Args:
            x: Rows with shape ``(B, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres for every row.
            feature_variance: Variance of a component, of both sides, in the features.
            generator: Draws the noise.
            labels: The classes of the rows with shape ``(B,)``.

        Raises:
            InputError: If labels are missing, there is no such class, or not one label for each
                row.
        """
        with self.decoder.told(_require_labels(labels)):
            compared = self.model.compare_pairs(
                x, variance, centers, feature_variance, generator=generator
            )
        # Variances of both sides add up in an overlap.
        code = self._code(labels, compared.p.means, 2 * feature_variance)
        return compared._replace(
            p=compared.p.join(code, feature_variance),
            q=compared.q.join(code.repeat_interleave(centers, 0), feature_variance),
        )

    @torch.no_grad()
    def bound(
        self,
        x: Tensor,
        variance: float,
        centers: int | None = None,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Bound:
        """Return the conditional cost and its limit, given the features and the class.

        Only rows of the same class share a feature. So this is
        :meth:`~hilbound.EncoderMixtureDecoder.bound` with the class as a further feature whose
        noise is zero.

        Args:
            x: Rows with shape ``(N, d)``.
            variance: Variance of a component of the data's mixture.
            centers: Number of centres, by default those of evaluation.
            generator: Draws the noise of the features and of the centres.
            labels: The classes of the rows with shape ``(N,)``.

        Raises:
            InputError: If labels are missing, or the model has no conditional bound.
        """
        model = self._bounded(labels)
        features = model.features_of(x)
        code = self._code(labels, features, model.variance_y)
        points = model.perturb(features, generator)
        noise = self.decoder.noise(
            model.eval_centers if centers is None else centers, generator=generator
        )
        f = self.decoder.feature_dim

        def decode(y: Tensor) -> GaussianMixture:
            with self.decoder.told(y[:, f:].argmax(-1)):
                q: GaussianMixture = self.decoder(y[:, :f], noise)
            return q

        with self.evaluating():
            return conditional_bound(
                x.to(features),
                torch.cat([features, code], -1),
                torch.cat([points, code], -1),
                decode,
                variance_p=variance,
                variance_y=model.variance_y,
            )

    @torch.no_grad()
    def real_bound(
        self,
        x: Tensor,
        rows: Tensor,
        variance: float,
        centers: int | None = None,
        generator: torch.Generator | None = None,
        *,
        labels: tuple[Tensor, Tensor] | None = None,
    ) -> Bound:
        """Return the bound that other real rows of the same class reach in the decoder's place.

        See :meth:`hilbound.EncoderMixtureDecoder.real_bound`.

        Args:
            x: Rows with shape ``(N, d)``, the whole data set.
            rows: Other real rows with shape ``(L, d)``, many more of every class than centres.
            variance: Variance of a component.
            centers: Number K of rows at each feature point, by default that of evaluation.
            generator: Draws the noise of the features, and the rows.
            labels: The classes of both, with shapes ``(N,)`` and ``(L,)``.

        Raises:
            InputError: If labels are missing, or the model has no conditional bound.
        """
        model = self._bounded(labels)
        own, others = labels or (x, rows)
        features, row_features = model.features_of(x), model.features_of(rows)
        code = self._code(own, features, model.variance_y)
        return real_bound(
            x.to(features),
            torch.cat([features, code], -1),
            torch.cat([model.perturb(features, generator), code], -1),
            rows.to(features),
            torch.cat([row_features, self._code(others, features, model.variance_y)], -1),
            centers=model.eval_centers if centers is None else centers,
            variance_p=variance,
            variance_y=model.variance_y,
            generator=generator,
        )

    def _bounded(self, labels: object) -> EncoderMixtureDecoder:
        """Return the model, which must have a conditional bound, if there are labels."""
        model = self.model
        if not isinstance(model, EncoderMixtureDecoder) or labels is None:
            raise InputError(
                "a conditional bound needs an EncoderMixtureDecoder and the label of every row"
            )
        return model

    def _code(self, labels: Tensor | None, like: Tensor, variance: float) -> Tensor:
        """Return classes as further features, so far apart that no two of them share a feature.

        Args:
            labels: The classes with shape ``(B,)``.
            like: A tensor of the wanted dtype, on the wanted device.
            variance: Variance of the kernel between two codes.
        """
        known = self.decoder.as_labels(_require_labels(labels))
        return nn.functional.one_hot(known, self.blocks).to(like) * math.sqrt(_APART * variance)

    def reconstruct(
        self, x: Tensor, labels: Tensor, n: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return ``n`` reconstructions of every input, shape ``(B, n, d)``, for ``(B, d)``.

        Raises:
            InputError: If ``n`` is below 1, there is no such class, or not one label for each row.
        """
        with self.decoder.told(labels):
            return self.model.reconstruct(x, n, generator)

    def remember(self, x: Tensor, labels: Tensor | None = None) -> None:
        """Keep the features of training rows ``(N, d)`` by their classes ``(N,)``.

        Raises:
            InputError: If there are no rows, labels are missing, there is no such class, or not
                one label for each row.
        """
        if labels is None:
            raise InputError("labels are missing: give the class of every row")
        labels = self.decoder.as_labels(labels)
        if x.ndim != 2 or labels.shape != x.shape[:1] or len(x) == 0:
            raise InputError(
                f"x and labels must have shapes (N, d) and (N,), N above 0; got {tuple(x.shape)} "
                f"and {tuple(labels.shape)}"
            )
        counts = labels.bincount(minlength=self.decoder.classes)
        self.remembered_rows = counts.to(self.remembered_rows.device)
        if isinstance(self.model, LatentMixture):
            self.model.remember(x, labels)
            return
        features = []
        with self._training_features_kept():
            for label in counts.nonzero().flatten().tolist():
                self.model.remember(x[labels == label])
                features.append(self.model.training_features)
        self.remembered_features = torch.cat(features)

    def conclude(
        self,
        x: Tensor,
        held_out: Tensor,
        seed: int,
        labels: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Let the model do what is left: a latent mixture fits p(y|c) for every class."""
        self.model.conclude(x, held_out, seed, labels)

    def draw(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> GaussianMixture:
        """Return a mixture of ``n`` components of a class, or of classes drawn by their rows.

        Features are drawn around those of the training rows of the class, or from the prior if the
        model has one.

        Raises:
            InputError: If ``n`` is below 1, there is no such class, or no rows of it were
                remembered.
        """
        require_some(n)
        if label is not None:
            return self._draw_of_class(n, require_label(label, self.blocks), generator)
        counts = self.remembered_rows
        if int(counts.sum()) == 0:
            raise InputError("no rows were remembered: call remember first")
        classes = torch.multinomial(counts.double(), n, replacement=True, generator=generator)
        order, parts = classes.argsort(stable=True), []
        for one, number in zip(*classes.unique(return_counts=True), strict=True):
            parts.append(self._draw_of_class(int(number), int(one), generator))
        back = order.argsort()
        means = torch.cat([part.means for part in parts])[back]
        shapes = (part.component_variance.expand(part.components, -1) for part in parts)
        return GaussianMixture(means, torch.cat(list(shapes))[back])

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``. See :meth:`draw`."""
        with self.evaluating():
            return self.draw(n, generator, label).means

    def _draw_of_class(
        self, n: int, label: int, generator: torch.Generator | None
    ) -> GaussianMixture:
        told = torch.tensor(label, device=self.decoder.variance.device)
        if isinstance(self.model, LatentMixture):
            with self.decoder.told(told):
                return self.model.draw(n, generator, label)
        with self.decoder.told(told), self._training_features_kept():
            self.model.training_features = self._features_of_class(label)
            return self.model.draw(n, generator)

    def _features_of_class(self, label: int) -> Tensor:
        """Return the features ``(n, F)`` of a class. A model with a prior has none."""
        counts = self.remembered_rows.tolist()
        if counts[label] == 0:
            raise InputError(f"no rows of class {label} were remembered: call remember first")
        start = sum(counts[:label])
        return self.remembered_features[start : start + counts[label]]

    @contextmanager
    def _training_features_kept(self) -> Iterator[None]:
        """Restore the model's training features at the end of a ``with`` block."""
        before = self.model.training_features
        try:
            yield
        finally:
            self.model.training_features = before


def with_encoder(model: DensityModel) -> FeatureModel | None:
    """Return the model with the encoder, within a class-conditional one, or ``None``."""
    inner = model.model if isinstance(model, ClassConditional) else model
    return inner if isinstance(inner, FeatureModel) else None


def _require_labels(labels: Tensor | None) -> Tensor:
    """Return the labels, or raise an InputError if there are none."""
    if labels is None:
        raise InputError("labels are missing: give the class of every row")
    return labels


@contextmanager
def telling(model: DensityModel, labels: Tensor | None) -> Iterator[None]:
    """Tell a class-conditional model these classes inside a ``with`` block, and others nothing."""
    if not isinstance(model, ClassConditional):
        yield
        return
    with model.decoder.told(_require_labels(labels)):
        yield


def bound_of(
    model: DensityModel,
    x: Tensor,
    variance: float,
    generator: torch.Generator | None = None,
    labels: Tensor | None = None,
) -> Bound:
    """Return the conditional bound of a model on rows, given their classes if it is told them.

    Args:
        model: An :class:`~hilbound.EncoderMixtureDecoder`, which may be class-conditional.
        x: Rows with shape ``(N, d)``.
        variance: Variance of a component of the data's mixture.
        generator: Draws the noise of the features and of the centres.
        labels: The classes of the rows with shape ``(N,)``.
    """
    if isinstance(model, ClassConditional):
        return model.bound(x, variance, generator=generator, labels=labels)
    if not isinstance(model, EncoderMixtureDecoder):
        raise TypeError(f"{type(model).__name__} has no conditional bound")
    return model.bound(x, variance, generator=generator)


def real_bound_of(
    model: DensityModel,
    x: Tensor,
    rows: Tensor,
    variance: float,
    generator: torch.Generator | None = None,
    *,
    labels: tuple[Tensor | None, Tensor | None] = (None, None),
) -> Bound | None:
    """Return what other real rows reach in the place of a model's centres (:func:`bound_of`).

    Args:
        model: An :class:`~hilbound.EncoderMixtureDecoder`, which may be class-conditional.
        x: Rows with shape ``(N, d)``.
        rows: Other rows with shape ``(L, d)``.
        variance: Variance of a component.
        generator: Draws the noise of the features, and the rows.
        labels: The classes of both, for a model that is told them.

    Returns:
        The bound, or ``None`` if there are fewer rows than centres, of some class if those matter.
    """
    own, others = labels
    if isinstance(model, ClassConditional) and own is not None and others is not None:
        counts = torch.bincount(others, minlength=int(own.max()) + 1)[own.unique()]
        if int(counts.min()) < model.model.eval_centers:
            return None
        return model.real_bound(x, rows, variance, generator=generator, labels=(own, others))
    if not isinstance(model, EncoderMixtureDecoder) or len(rows) < model.eval_centers:
        return None
    return model.real_bound(x, rows, variance, generator=generator)


def _make_room(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Before a state is loaded, make room for as many features as it holds."""
    features = state.get(f"{prefix}remembered_features")
    if isinstance(module, ClassConditional) and features is not None:
        module.remembered_features = module.remembered_features.new_empty(features.shape)


def _require_whole_numbers(labels: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise InputError(
            f"labels must be a tensor of whole numbers, got a {type(labels).__name__}: give "
            "torch.tensor(labels)"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InputError(
            f"labels must be whole numbers, got {labels.dtype}: give the numbers of the classes, "
            "labels.long()"
        )
