r"""The mixture density network given a block: a mixture from noise for every class or cluster.

A block holds the rows of one class, or of one cluster. The network gets noise and the one-hot code
:math:`e_c` of a block c. It makes the mixture of that block, and a block is drawn by the share of
the training rows in it,

.. math:: q(x) = \sum_{c=1}^C \pi_c\, q_c(x), \qquad
    q_c(x) = \sum_{k=1}^K b_k N(x - g(c_k, e_c); v_k), \qquad \pi_c = N_c / N.

Training compares every block of the data with its own mixture (:class:`~hilbound.BlockObjective`).
Labels give a class-conditional model. Where there are no labels, :class:`Clusters` cuts the data
into narrow pieces, and the model of all rows is better for it.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from hilbound.arguments import require_rows
from hilbound.engine.gather import team
from hilbound.engine.gram import squared_distances
from hilbound.engine.seeding import Source, choose
from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.base import Comparison, DensityModel, MixtureNetwork, require_label

#: Clusters are found in at most this many principal components.
CLUSTER_COMPONENTS = 50

# Rows that are assigned to clusters at a time.
_ASSIGNED_ROWS = 8192

# For a centre drawn by learned weights, this many centres are made first.
_POOL = 8


class Clusters(nn.Module):
    """k-means clusters in principal components. What was found is part of the model's weights.

    Args:
        clusters: Number C of clusters.
        dim: Number d of coordinates of a row.
        rows: Number of rows that clusters are found in. With few rows there are few components.

    Raises:
        InputError: If there are more clusters than rows.

    References:
        Least Squares Quantization in PCM (Lloyd, 1982); k-means++: The Advantages of Careful
        Seeding (Arthur and Vassilvitskii, 2007).

    >>> x = torch.tensor([[0.0, 0.0], [0.1, 0.0], [9.0, 0.0], [9.1, 0.1]])
    >>> clusters = Clusters(2, dim=2, rows=4)
    >>> clusters.fit(x)
    >>> clusters(x).bincount()
    tensor([2, 2])
    """

    offset: Tensor
    directions: Tensor
    centers: Tensor

    def __init__(self, clusters: int, dim: int, rows: int) -> None:
        super().__init__()
        if clusters > rows:
            raise InputError(
                f"condition 'clusters={clusters}' asks for more clusters than the {rows} training "
                "rows: take fewer clusters"
            )
        components = min(CLUSTER_COMPONENTS, dim, rows)
        self.register_buffer("offset", torch.zeros(dim))
        self.register_buffer("directions", torch.zeros(dim, components))
        self.register_buffer("centers", torch.zeros(clusters, components))

    def fit(self, x: Tensor, seed: int = 0) -> None:
        """Find the clusters of training rows with shape ``(N, d)``.

        Args:
            x: The rows.
            seed: Seed of k-means, below 2**32.

        Raises:
            InputError: If the rows are not finite, or fewer different rows than clusters.
        """
        # Imported here because scikit-learn takes a second, and only the fit needs it.
        from sklearn.cluster import KMeans
        from sklearn.decomposition import PCA
        from sklearn.exceptions import ConvergenceWarning

        require_rows("x", x)
        clusters = len(self.centers)
        rows = x.detach().cpu().double().numpy()
        pca = PCA(self.directions.shape[1], random_state=seed).fit(rows)
        with warnings.catch_warnings():
            # It warns of fewer different rows than clusters. They are refused below.
            warnings.simplefilter("ignore", ConvergenceWarning)
            means = KMeans(clusters, n_init=1, random_state=seed).fit(pca.transform(rows))
        found = len(set(means.labels_.tolist()))
        if found < clusters:
            raise InputError(
                f"condition 'clusters={clusters}' asks for more clusters than the training rows "
                f"have different rows: take at most {found}"
            )
        self.offset.copy_(torch.from_numpy(pca.mean_))
        self.directions.copy_(torch.from_numpy(pca.components_.T))
        self.centers.copy_(torch.from_numpy(means.cluster_centers_))

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return the number of the nearest cluster for rows with shape ``(n, d)``, in int64."""
        parts = x.to(self.offset).split(_ASSIGNED_ROWS)
        codes = ((part - self.offset) @ self.directions for part in parts)
        return torch.cat([squared_distances(code, self.centers).argmin(1) for code in codes])


class BlockDensityNetwork(MixtureNetwork, DensityModel):
    """Map noise and the code of a block to the Gaussian mixture of that block.

    Args:
        network: Maps noise and code together, with shape ``(*, noise_dim + blocks)``, to centres
            with shape ``(*, d)``.
        noise_dim: Number of noise coordinates.
        variance: Variance of the components. If it is learned, this is the initial value.
        blocks: Number C of blocks.
        clusters: How rows are assigned to blocks, or ``None`` if their labels say it.
        **options: Options of :class:`~hilbound.models.base.MixtureNetwork`.

    Raises:
        InputError: If there is no block, or an option is refused.

    >>> model = BlockDensityNetwork(nn.Linear(5, 4), noise_dim=2, variance=0.5, blocks=3)
    >>> model(torch.zeros(3, 7, 2))
    GaussianMixture(components=7, dim=4, batch_shape=(3,), variance=0.5)
    >>> model.sample(6, label=2).shape
    torch.Size([6, 4])
    """

    objectives = (
        "debiased",
        "nuclear",
        "scalar",
        "vector",
        "schur",
        "trace",
        "schatten",
        "likelihood",
    )
    share: Tensor

    def __init__(
        self,
        network: nn.Module,
        noise_dim: int,
        variance: float,
        *,
        blocks: int,
        clusters: Clusters | None = None,
        **options: Any,
    ) -> None:
        if blocks < 1:
            raise InputError(f"blocks must be at least 1, got {blocks}")
        super().__init__(network, noise_dim + blocks, variance, **options)
        self.noise_dim = noise_dim
        self.clusters = clusters
        self.register_buffer("share", torch.full((blocks,), 1 / blocks))

    @property
    def head(self) -> MixtureNetwork:
        """The network itself."""
        return self

    @property
    def blocks(self) -> int:
        """The number C of blocks."""
        return len(self.share)

    def learn_blocks(self, x: Tensor, labels: Tensor | None = None, seed: int = 0) -> None:
        """Find the clusters, if the blocks are clusters, and the shares of the blocks.

        Args:
            x: Training rows with shape ``(N, d)``.
            labels: Their classes with shape ``(N,)``, if the blocks are classes.
            seed: Seed of k-means, below 2**32.

        Raises:
            InputError: If labels are missing or not those of the rows, or a block has no rows.
        """
        if self.clusters is not None:
            self.clusters.fit(x, seed)
        counts = self.blocks_of(x, labels).bincount(minlength=self.blocks)
        empty = (counts == 0).nonzero().flatten().tolist()
        if empty:
            raise InputError(
                f"no training rows are in block {', '.join(map(str, empty))} of {self.blocks}: "
                "every class or cluster needs rows"
            )
        self.share.copy_(counts.double() / len(x))

    def blocks_of(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return the block of every row, with shape ``(n,)`` in int64.

        Args:
            x: Rows with shape ``(n, d)``.
            labels: Their classes with shape ``(n,)``. They are not used if the blocks are clusters.

        Raises:
            InputError: If labels are missing, of another shape, or there is no such class.
        """
        if self.clusters is not None:
            found: Tensor = self.clusters(x)
            return found
        if labels is None or labels.shape != x.shape[:1]:
            given = None if labels is None else tuple(labels.shape)
            raise InputError(f"labels must hold the class of each of {len(x)} rows, got {given}")
        for label in (int(labels.min()), int(labels.max())) if len(labels) else ():
            require_label(label, self.blocks)
        return labels.long()

    def own_blocks(self) -> range:
        """Return which blocks this worker compares: all, or its share of a team's."""
        workers = team()
        own = range(self.blocks) if workers.alone else workers.share(self.blocks)
        # A worker without a block computes one that does not count.
        return own or range(1)

    def forward(self, noise: Tensor) -> GaussianMixture:
        """Return the mixtures of all blocks, for noise with shape ``(C, K, noise_dim)``.

        In a team it is the mixtures of this worker's blocks.
        """
        own = self.own_blocks()
        numbers = torch.arange(own.start, own.stop, device=noise.device)
        return self.mixture(self._told(noise, numbers.unsqueeze(-1).expand(noise.shape[:-1])))

    def _told(self, noise: Tensor, blocks: Tensor) -> Tensor:
        """Return noise ``(*, noise_dim)`` and the codes of blocks ``(*)`` together."""
        return torch.cat([noise, nn.functional.one_hot(blocks, self.blocks).to(noise)], -1)

    def compare(
        self,
        x: Tensor,
        variance: float,
        centers: int,
        generator: Source = None,
        labels: Tensor | None = None,
    ) -> Comparison:
        """Return the mixtures of all blocks, of the data and of the model.

        Args:
            x: As many rows of every block, with shape ``(C, n, d)``.
            variance: Variance of a component of the data's mixtures.
            centers: Number of centres for each block.
            generator: Draws the noise.
            labels: Not used. The first axis says which block a row belongs to.

        Raises:
            InputError: If the first axis does not have an entry for each block.
        """
        del labels
        if x.ndim != 3 or len(x) != self.blocks:
            raise InputError(
                f"x must have shape (C, n, d) with C = {self.blocks} blocks, got {tuple(x.shape)}"
            )
        own = self.own_blocks()
        q: GaussianMixture = self(
            self.normal(len(own), centers, self.noise_dim, generator=generator)
        )
        p = GaussianMixture(x[own.start : own.stop].to(q.means), variance)
        return Comparison(p, q, q.means.new_zeros(()))

    def draw(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> GaussianMixture:
        """Return a mixture of ``n`` components, each of a block drawn by its share.

        Args:
            n: How many.
            generator: Draws the blocks and the noise.
            label: The one block to draw from.

        Raises:
            InputError: If there is no such block.
        """
        inputs = self._draw_inputs(n, generator, label)
        v = self.variances(inputs)
        return GaussianMixture(self.centers(inputs).to(self.variance.dtype), v)

    @torch.no_grad()
    def sample(
        self, n: int, generator: torch.Generator | None = None, label: int | None = None
    ) -> Tensor:
        """Draw ``n`` centres with shape ``(n, d)``. See :meth:`draw`."""
        return self.centers(self._draw_inputs(n, generator, label))

    def _draw_inputs(self, n: int, generator: torch.Generator | None, label: int | None) -> Tensor:
        """Draw the inputs ``(n, noise_dim + C)`` of n centres, by their weights."""
        if label is None:
            blocks = torch.multinomial(self.share, n, replacement=True, generator=generator)
        else:
            known = require_label(label, self.blocks)
            blocks = torch.full((n,), known, device=self.share.device)
        pool = 1 if self.weight_head is None else _POOL
        noise = self.normal(n, pool, self.noise_dim, generator=generator)
        inputs = self._told(noise, blocks.unsqueeze(-1).expand(n, pool))
        weights = self.weights(inputs)
        if weights is None:
            return inputs.squeeze(1)
        return inputs[choose(weights, torch.Size(), generator)]

    def density(self, centers: int, generator: torch.Generator | None = None) -> GaussianMixture:
        r"""Return :math:`q = \sum_c \pi_c q_c` with ``centers`` components for each block."""
        q: GaussianMixture = self(
            self.normal(self.blocks, centers, self.noise_dim, generator=generator)
        )
        v = q.component_variance
        # A variance that all components share stays one number, which is faster.
        shared = v.shape[:-1].numel() == 1
        own = v if shared else v.expand(*q.means.shape[:-1], v.shape[-1])
        return GaussianMixture(
            q.means.flatten(0, 1),
            own.reshape(-1, v.shape[-1]),
            (self.share.to(q.weights).unsqueeze(-1) * q.weights).flatten(),
        )

    @torch.no_grad()
    def log_prob(
        self, x: Tensor, centers: int = 256, generator: torch.Generator | None = None
    ) -> Tensor:
        r"""Return :math:`\log \sum_c \pi_c q_c(x)` with shape ``(n,)``, for rows ``(n, d)``.

        Args:
            x: The rows.
            centers: Number of centres drawn for each block.
            generator: Draws the noise.
        """
        return self.density(centers, generator).log_prob(x.to(self.variance))
