r"""The space of features in which generated points are compared with real ones.

Distances between pixels mean little. A :class:`MetricSpace` maps points to features for the
metrics of :mod:`hilbound.evaluation.metrics`. With labels it also predicts the class of a point.
:func:`fit_space` chooses:

* images, and vectors of more than eight coordinates, *with* labels: the penultimate layer of a
  small classifier, trained here on the training labels, so nothing is downloaded;
* everything else: whitened principal components. With the covariance of the training rows
  decomposed as :math:`S = V \Lambda V^\top`,

  .. math:: z = \Lambda^{-1/2} V^\top (x - \mu), \qquad \operatorname{cov}(z) = I.

A trained classifier is cached as safetensors. The file's name is a digest of everything the
classifier depends on. A problem with the cache is logged, and the classifier is trained anew; it
is never an error.
"""

import hashlib
import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from hilbound.arguments import require_rows
from hilbound.datasets.base import Dataset
from hilbound.engine.seeding import seeded_globally
from hilbound.errors import InputError
from hilbound.training.files import write_whole
from hilbound.training.quiet import one_thread, quiet_lightning

if TYPE_CHECKING:
    from lightning import LightningModule

logger = logging.getLogger(__name__)

_VERSION = 1  # of networks and training; raise it whenever either changes
_LEARNING_RATE = 1e-3
_STEPS = 900  # enough for MNIST to pass 98 %
_PROBED_STEPS = 5
_EPOCHS = (4, 30)  # the least and the most epochs, whatever _STEPS asks for
_FEATURE_ROWS = 4096
_DIRECT_DIM = 8  # labelled vectors up to this dimension need no classifier for their features


@dataclass(frozen=True)
class MetricSpace:
    """Features in which points are compared, and optionally a classifier.

    Args:
        transform: Maps points with shape ``(n, d)`` to features with shape ``(n, f)``.
        description: What the features are, for a report.
        predict: Maps points with shape ``(n, d)`` to class numbers ``(n,)``, if there are labels.
        accuracy: Share of validation rows that ``predict`` gets right, if that is known.
    """

    transform: Callable[[Tensor], Tensor]
    description: str
    predict: Callable[[Tensor], Tensor] | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class WhitenedPCA:
    """Principal components scaled to unit variance on the training rows.

    Args:
        mean: Training mean with shape ``(d,)``.
        projection: Directions divided by their standard deviations, with shape ``(d, f)``.
    """

    mean: Tensor
    projection: Tensor

    @classmethod
    def fit(cls, train: Tensor, components: int = 64) -> Self:
        """Fit the directions of largest variance.

        Args:
            train: Rows with shape ``(n, d)``, at least two of them different.
            components: The most directions to keep. Directions whose variance is only rounding
                are dropped.

        Raises:
            InputError: If ``train`` is not a finite matrix, or all its rows are equal.

        >>> x = torch.tensor([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0]])
        >>> WhitenedPCA.fit(x).transform(x).abs()  # the rows lie on a line
        tensor([[1.],
                [0.],
                [1.]])
        """
        from sklearn.decomposition import PCA

        require_rows("train", train, least=2)
        # Wide rows use a randomised solver. Float32 is precise enough for it, at half the memory.
        rows = train.double() if train.shape[1] <= 1000 else train
        mean = rows.mean(dim=0)
        centred = (rows - mean).cpu()
        scale = float(centred.abs().max())
        tiny = torch.finfo(centred.dtype).eps * max(train.shape)
        if scale <= tiny * float(rows.abs().max()):
            raise InputError("all rows of train are equal: there is no direction to measure along")
        pca = PCA(n_components=min(components, *centred.shape), random_state=0)
        pca.fit((centred / scale).numpy())
        variance = torch.from_numpy(pca.explained_variance_)
        kept = variance > tiny * variance[0]
        directions = torch.from_numpy(pca.components_)[kept].T
        return cls(mean.cpu(), directions / (scale * variance[kept].sqrt()))

    @property
    def description(self) -> str:
        """What the features are."""
        return f"{self.projection.shape[1]} whitened principal components"

    def transform(self, x: Tensor) -> Tensor:
        """Map rows with shape ``(n, d)`` to whitened components with shape ``(n, f)``."""
        return (x - self.mean.to(x)) @ self.projection.to(x)


class _Standardize(nn.Module):
    """Shift and scale by constants that are saved with the weights."""

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.register_buffer("offset", offset)
        self.register_buffer("scale", torch.where(scale > 0, scale, 1))  # constant columns stay 0

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.offset) / self.scale


def _lenet(shape: tuple[int, int, int]) -> nn.Sequential:
    """Return LeNet-5 up to its 84 features, padded so that any image size fits."""
    channels, height, width = shape
    flat = 16 * math.ceil(height / 4) * math.ceil(width / 4)
    pool = nn.MaxPool2d(2, ceil_mode=True)
    convolutions = (
        *(nn.Conv2d(channels, 6, 5, padding=2), nn.ReLU(), pool),
        *(nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), pool),
    )
    linear = (nn.Linear(flat, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU())
    return nn.Sequential(nn.Unflatten(1, shape), *convolutions, nn.Flatten(), *linear)


def _mlp(dim: int) -> nn.Sequential:
    """Return a perceptron for vectors, up to its 84 features."""
    return nn.Sequential(nn.Linear(dim, 128), nn.ReLU(), nn.Linear(128, 84), nn.ReLU())


class ClassifierSpace(nn.Module):
    """The penultimate layer of a small classifier: 84 features that tell the classes apart.

    Images get a LeNet-5 with ReLU and max pooling, vectors a perceptron. Points may have any dtype
    and device; the features have the same.

    Args:
        dataset: Its rows and classes set the sizes and the standardisation of the input.

    References:
        Gradient-Based Learning Applied to Document Recognition, LeCun, Bottou, Bengio and Haffner,
        1998.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        train, shape = dataset.train.float(), dataset.image_shape
        axes = 0 if shape is None else (0, 1)  # all pixels share one scale; columns do not
        spread = _Standardize(train.mean(dim=axes), train.std(dim=axes, correction=0))
        network = _mlp(dataset.dim) if shape is None else _lenet(shape)
        self.features = nn.Sequential(spread, network).float()
        self.logits = nn.Linear(84, dataset.classes or 1).float()
        self.accuracy: float | None = None
        self.description = f"84 features of {'an MLP' if shape is None else 'a LeNet'} classifier"

    @classmethod
    def fit(cls, dataset: Dataset, seed: int = 0) -> Self:
        """Train on the training labels, and measure the accuracy on the validation labels.

        The same data set and ``seed`` give the same initial weights and order of batches, hence
        the same classifier. PyTorch's global random state is not changed.

        Raises:
            InputError: If the training rows have no labels or only one class.
        """
        if not _has_classes(dataset) or dataset.train_labels is None:
            raise InputError(f"data set {dataset.name!r} has no labels of two or more classes")
        with seeded_globally(seed):
            classifier = cls(dataset)
            _train(classifier, dataset.train.float(), dataset.train_labels)
        if dataset.validation_labels is not None and len(dataset.validation) > 0:
            right = classifier.predict(dataset.validation) == dataset.validation_labels
            classifier.accuracy = float(right.double().mean())
        return classifier

    def forward(self, x: Tensor) -> Tensor:
        """Return the class logits with shape ``(n, classes)`` of float32 rows ``(n, d)``."""
        logits: Tensor = self.logits(self.features(x))
        return logits

    def _in_blocks(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        weight = self.logits.weight
        blocks = range(0, max(1, len(x)), _FEATURE_ROWS)
        with torch.no_grad():
            return torch.cat([function(x[i : i + _FEATURE_ROWS].to(weight)) for i in blocks])

    def transform(self, x: Tensor) -> Tensor:
        """Map points with shape ``(n, d)`` to features with shape ``(n, 84)``, detached."""
        return self._in_blocks(self.features, x).to(x)

    def predict(self, x: Tensor) -> Tensor:
        """Return the most probable class numbers with shape ``(n,)`` of points ``(n, d)``."""
        return self._in_blocks(lambda block: self(block).argmax(dim=1), x).to(x.device)


def _has_classes(dataset: Dataset) -> bool:
    """Whether the training rows carry labels of at least two classes."""
    labels = dataset.train_labels
    return labels is not None and len(labels) > 0 and bool((labels != labels[0]).any())


def _lightning_module(network: nn.Module) -> "LightningModule":
    """Return the training step of a classifier."""
    import lightning

    class Classification(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def training_step(self, batch: Sequence[Tensor]) -> Tensor:
            rows, labels = batch
            return nn.functional.cross_entropy(self.network(rows), labels)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)

    return Classification()


def _train(classifier: nn.Module, rows: Tensor, labels: Tensor) -> None:
    """Minimise the cross entropy for about ``_STEPS`` steps, on the CPU for reproducibility."""
    import lightning

    size, epochs = _schedule(len(rows))
    sampler = BatchSampler(RandomSampler(range(len(rows))), size, drop_last=False)
    loader = DataLoader(TensorDataset(rows, labels), sampler=sampler, batch_size=None)
    with quiet_lightning(), one_thread():
        trainer = lightning.Trainer(
            accelerator="cpu",
            devices=1,
            max_epochs=epochs,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(_lightning_module(classifier), loader)
    classifier.eval()


def _schedule(rows: int) -> tuple[int, int]:
    """Return the size of a batch, and the number of epochs."""
    size = 256 if rows >= 10_000 else 64
    return size, min(max(round(_STEPS / math.ceil(rows / size)), _EPOCHS[0]), _EPOCHS[1])


def probe_classifier(dataset: Dataset, seed: int = 0) -> float:
    """Return about how many seconds the classifier of a data set takes, none if it is cached.

    Args:
        dataset: The data set.
        seed: See :func:`fit_space`.
    """
    if not _has_classes(dataset) or dataset.train_labels is None:
        return 0.0
    if _cache_path(dataset, seed, None).exists():
        return 0.0
    size, epochs = _schedule(len(dataset.train))
    rows, labels = dataset.train[:size].float(), dataset.train_labels[:size]
    with seeded_globally(0), one_thread():
        classifier = ClassifierSpace(dataset)
        began = time.perf_counter()
        for _ in range(_PROBED_STEPS):
            nn.functional.cross_entropy(classifier(rows), labels).backward()
        taken = time.perf_counter() - began
    return taken / _PROBED_STEPS * epochs * math.ceil(len(dataset.train) / size)


def _digest(*parts: Tensor | str | None) -> str:
    """Return a hexadecimal digest of tensors, with their shapes and dtypes, and of strings."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{tuple(part.shape)} {part.dtype};".encode())
            flat = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(flat.numpy().data)
        else:
            digest.update(f"{part!r};".encode())
    return digest.hexdigest()


def _cache_path(dataset: Dataset, seed: int, cache: Path | None) -> Path:
    """Return where a classifier of this data set is kept."""
    import platformdirs

    default = os.environ.get("HILBOUND_CACHE") or platformdirs.user_cache_dir("hilbound")
    folder = Path(default) if cache is None else cache
    settings = f"{_VERSION} {torch.__version__} {seed} {dataset.image_shape}"
    training = (dataset.train, dataset.train_labels)
    key = _digest(settings, *training, dataset.validation, dataset.validation_labels)
    return folder / f"classifier-{key[:32]}.safetensors"


def _read(path: Path, dataset: Dataset) -> ClassifierSpace | None:
    """Return the classifier in a cache file, or ``None`` if there is none or it is damaged."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except FileNotFoundError:
        return None
    except (OSError, SafetensorError) as error:
        logger.warning("cannot read the classifier %s (%s): training it anew", path, error)
        return None
    if metadata.get("digest") != _digest(*tensors.values(), metadata.get("accuracy")):
        logger.warning("the classifier %s is damaged: training it anew", path)
        return None
    with seeded_globally(0):  # initial weights, overwritten at once
        classifier = ClassifierSpace(dataset)
    try:
        classifier.load_state_dict(tensors)
        classifier.accuracy = float(metadata["accuracy"]) if "accuracy" in metadata else None
    except (RuntimeError, ValueError) as error:  # whole, and of something else
        logger.warning("cannot use the classifier %s (%s): training it anew", path, error)
        return None
    return classifier.eval()


def _write(classifier: ClassifierSpace, path: Path) -> None:
    """Write a classifier to a cache file, whole or not at all."""
    from safetensors.torch import save

    tensors = dict(sorted(classifier.state_dict().items()))
    metadata = {} if classifier.accuracy is None else {"accuracy": repr(classifier.accuracy)}
    metadata["digest"] = _digest(*tensors.values(), metadata.get("accuracy"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, save(tensors, metadata))
    except OSError as error:
        logger.warning("cannot cache the classifier in %s (%s): going on without", path, error)


def fit_classifier(dataset: Dataset, seed: int = 0, cache: Path | None = None) -> ClassifierSpace:
    """Return the classifier of a data set, trained or cached. Arguments as in `fit_space`.

    Raises:
        InputError: If the training rows have no labels or only one class.
    """
    path = _cache_path(dataset, seed, cache)
    classifier = _read(path, dataset) if _has_classes(dataset) else None
    if classifier is None:
        classifier = ClassifierSpace.fit(dataset, seed)
        _write(classifier, path)
    return classifier


def fit_space(dataset: Dataset, seed: int = 0, cache: Path | None = None) -> MetricSpace:
    """Choose and fit the space in which a data set and its models are compared.

    The module's docstring says how the space is chosen.

    Args:
        dataset: The space is fitted to its training rows, and to its labels if there are any.
        seed: Sets the initial weights and the order of the batches of a classifier.
        cache: Folder of trained classifiers. By default it is the folder in ``HILBOUND_CACHE``, or
            else the user's cache folder.

    Raises:
        InputError: If the training rows are all equal or not finite.

    >>> x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    >>> space = fit_space(Dataset("cloud", train=x, validation=x[:0], test=x[:0]))
    >>> space.description, space.transform(x).shape, space.predict
    ('2 whitened principal components', torch.Size([50, 2]), None)
    """
    kept = _FITTED.setdefault(dataset, {})
    if (seed, cache) not in kept:
        kept[seed, cache] = _fit(dataset, seed, cache)
    return kept[seed, cache]


# Evaluation and report share the space of a data set, so it is fitted once.
_FITTED: WeakKeyDictionary[Dataset, dict[tuple[int, Path | None], MetricSpace]] = (
    WeakKeyDictionary()
)


def _fit(dataset: Dataset, seed: int, cache: Path | None) -> MetricSpace:
    classifier = fit_classifier(dataset, seed, cache) if _has_classes(dataset) else None
    if classifier and (dataset.image_shape is not None or dataset.dim > _DIRECT_DIM):
        return MetricSpace(
            classifier.transform, classifier.description, classifier.predict, classifier.accuracy
        )
    pca = WhitenedPCA.fit(dataset.train)
    if classifier is None:
        return MetricSpace(pca.transform, pca.description)
    return MetricSpace(pca.transform, pca.description, classifier.predict, classifier.accuracy)
