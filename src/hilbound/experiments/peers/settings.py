"""The settings of the comparison with peers: budgets, networks, and what each method may choose."""

from hilbound.experiments.base import Settings

#: Methods of this library, then their peers.
OURS = ("nuclear", "debiased", "clusters")
PEERS = ("sinkhorn", "energy", "mmd", "sliced", "likelihood", "vae")
METHODS = (*OURS, *PEERS)


class Budget(Settings):
    """How every method is trained on one data set.

    Args:
        seconds: Seconds of one core, objective, network and optimiser together.
        width: Units of a hidden layer of the network.
        depth: Its hidden layers.
        noise_dim: Coordinates of its noise.
        batch_size: Rows of a step, and samples.
        learning_rate: That of Adam at the start. It falls along a cosine of the time.
        samples: Samples that are measured, and validation rows or test rows at most.
    """

    seconds: float
    width: int
    depth: int
    noise_dim: int
    batch_size: int
    learning_rate: float
    samples: int


#: Rows of every cluster in a step. Blocks are cheap, so there are more rows than in a batch.
CLUSTER_ROWS = 64
#: What each method may choose on validation rows, three values each: of the kernel's variance the
#: multiple of the median heuristic; the number of clusters; of Sinkhorn's blur the multiple of the
#: median's root; of the likelihood that of median/dim; of a VAE the features; of the energy
#: distance, which has no scale, the multiple of the learning rate; of the sliced distance the
#: directions in a step.
TOYS: dict[str, tuple[float, ...]] = {
    "nuclear": (0.03, 0.1, 0.3),
    "debiased": (0.03, 0.1, 0.3),
    "clusters": (4, 8, 16),
    "sinkhorn": (0.03, 0.1, 0.3),
    "energy": (0.5, 1.0, 2.0),
    "mmd": (0.1, 0.3, 1.0),
    "sliced": (16, 64, 256),
    "likelihood": (0.003, 0.01, 0.03),
    "vae": (1, 2, 4),
}
IMAGES: dict[str, tuple[float, ...]] = TOYS | {
    "nuclear": (0.5, 1.0, 3.0),
    "debiased": (0.5, 1.0, 3.0),
    "clusters": (8, 16, 32),
    "sliced": (64, 256, 1024),
    "likelihood": (0.3, 1.0, 3.0),
    "vae": (8, 16, 32),
}


BUDGETS = {
    "moons": Budget(
        seconds=3,
        width=128,
        depth=3,
        noise_dim=4,
        batch_size=256,
        learning_rate=5e-3,
        samples=2000,
    ),
    "digits": Budget(
        seconds=6,
        width=256,
        depth=2,
        noise_dim=16,
        batch_size=256,
        learning_rate=5e-3,
        samples=2000,
    ),
    "mnist": Budget(
        seconds=20,
        width=512,
        depth=2,
        noise_dim=16,
        batch_size=512,
        learning_rate=5e-3,
        samples=10_000,
    ),
}
OPTIONS = {"moons": TOYS, "digits": IMAGES, "mnist": IMAGES}


class PeersSettings(Settings):
    """What every data set is trained with, and what is chosen."""

    budgets: dict[str, Budget] = BUDGETS
    methods: tuple[str, ...] = METHODS
    options: dict[str, dict[str, tuple[float, ...]]] = OPTIONS
    #: The share of the seconds that a training for the choice gets.
    choosing: float = 1 / 3
