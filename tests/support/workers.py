"""Workers in processes of their own, which compute the same batches as one process does.

``python workers.py PORT FOLDER 2 3 4`` computes every case alone, and then with two, three and four
workers. They are forked from one process, because imports take longer than the cases.
"""

import datetime as dt
import os
import sys
import traceback
from pathlib import Path

import torch
import torch.distributed as dist

from hilbound.config import RunConfig
from hilbound.engine.gather import Team
from hilbound.engine.seeding import stream
from hilbound.engine.spectrum import norms
from hilbound.models.autoencoders import marginal
from hilbound.models.blocks import BlockDensityNetwork
from hilbound.models.build import DataShape, build_model
from hilbound.models.classes import with_encoder
from hilbound.objectives import BlockObjective, create_objective
from hilbound.training.batches import Batch
from hilbound.training.together import (
    OwnBlocks,
    Shared,
    compare_pairs_together,
    compare_together,
    loss_together,
)

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.models import randomised

DIM, VARIANCE = 3, 4.0
#: Rows of which the shares of workers have nothing in common.
ROWS = torch.randn(12, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROWS = ROWS + torch.linspace(-3, 3, 12, dtype=torch.float64).unsqueeze(-1)
LABELS = torch.tensor([0, 1, 2, 1, 0, 1, 2, 1, 1, 0, 1, 1])

_NOISE = "mixture-density-network"
_HEADS = {"learn_weights": True, "learn_variance": True}
#: (options, rows of the batch): eleven rows for three workers, or two of which one has none.
CASES = {
    f"{objective} of {rows}": ({"objective": objective}, rows)
    for objective in (
        *("nuclear", "scalar", "vector", "schur", "trace"),
        *("schatten", "debiased", "distance", "likelihood"),
    )
    for rows in (11, 2)
} | {
    "few centres": ({"objective": "nuclear", "centers": 2}, 11),
    "many centres": ({"objective": "scalar", "centers": 13}, 11),
    "heads": ({"objective": "nuclear", **_HEADS}, 11),
    "heads, likelihood": ({"objective": "likelihood", **_HEADS}, 11),
    "heads without rows": ({"objective": "scalar", **_HEADS}, 2),
    "running averages": ({"objective": "scalar", "objective_options": {"momentum": 0.9}}, 11),
    "calibrated": ({"objective": "debiased", "objective_options": {"calibrate": True}}, 11),
    "encoder": ({"model": "encoder-mixture-decoder"}, 11),
    "encoder without rows": ({"model": "encoder-mixture-decoder"}, 2),
    "encoder, heads": ({"model": "encoder-mixture-decoder", **_HEADS}, 11),
    "encoder, likelihood": ({"model": "encoder-mixture-decoder", "objective": "likelihood"}, 11),
    "autoencoder": ({"model": "autoencoder"}, 11),
    "autoencoder with noise": ({"model": "autoencoder", "variance_y": 0.1}, 11),
    "autoencoder, variances": ({"model": "autoencoder", "learn_variance": True}, 2),
    "autoencoder, mse": ({"model": "autoencoder", "objective": "mse"}, 11),
    "classes": ({"model": "encoder-mixture-decoder", "condition": "classes"}, 11),
    "classes, autoencoder": ({"model": "autoencoder", "condition": "classes"}, 2),
    "classes, vae": ({"model": "vae", "condition": "classes"}, 11),
    "latent": ({"model": "latent-mixture"}, 11),
    "latent, variances": ({"model": "latent-mixture", "learn_variance": True}, 11),
    **{
        f"blocks, {objective}": ({"objective": objective, "condition": "classes"}, 12)
        for objective in (
            *("nuclear", "scalar", "vector", "schur", "trace", "schatten"),
            *("debiased", "likelihood"),
        )
    },
    "blocks, heads": ({"objective": "nuclear", "condition": "classes", **_HEADS}, 12),
    "blocks, heads, scalar": ({"objective": "scalar", "condition": "classes", **_HEADS}, 12),
    "blocks, calibrated": (
        {
            "objective": "debiased",
            "objective_options": {"calibrate": True},
            "condition": "classes",
        },
        12,
    ),
    "blocks, clusters without workers": ({"objective": "nuclear", "condition": "clusters=2"}, 12),
    "pairs": ({"model": "encoder-mixture-decoder", "objective": "joint-nuclear"}, 11),
    "pairs without rows": ({"model": "encoder-mixture-decoder", "objective": "joint-nuclear"}, 2),
    "pairs, weights": (
        {
            "model": "encoder-mixture-decoder",
            "objective": "joint-nuclear",
            "centers": 3,
            "learn_weights": True,
        },
        11,
    ),
    "pairs of classes": (
        {
            "model": "encoder-mixture-decoder",
            "objective": "joint-nuclear",
            "condition": "classes",
        },
        11,
    ),
    **{
        f"slices, {name}": (
            {"model": "encoder-mixture-decoder", "slices": 4, "batch_size": 12, **options},
            12,
        )
        for name, options in {
            "debiased": {"centers": 2},
            "nuclear": {"objective": "nuclear"},
            "scalar": {"objective": "scalar"},
            "likelihood": {"objective": "likelihood"},
            "heads": {"objective": "schatten", **_HEADS},
            "of one": {"objective": "nuclear", "slices": 1},
            "classes": {"objective": "nuclear", "condition": "classes"},
        }.items()
    },
    "marginal": ({"model": "autoencoder", "objective": "nuclear"}, 11),
    "marginal, heads": (
        {"model": "encoder-mixture-decoder", "objective": "scalar", **_HEADS},
        11,
    ),
    **{
        f"{model}, {objective}": ({"model": model, "objective": objective}, 11)
        for model, objective in (
            ("encoder-mixture-decoder", "nuclear"),
            ("autoencoder", "joint-nuclear"),
            ("autoencoder", "scalar"),
            ("latent-mixture", "mse"),
            ("latent-mixture", "conditional"),
            ("latent-mixture", "joint-nuclear"),
        )
    },
    "vae": ({"model": "vae"}, 11),
    "vae without rows": ({"model": "vae"}, 2),
}


def compare(model, objective, shared: Shared) -> tuple:
    """Return both mixtures of a batch, and the loss, as training computes them."""
    if objective.pairs:
        compared = compare_pairs_together(model, shared, 0.5)
        loss = loss_together(objective, compared, shared.workers)
        return compared, loss + objective.encoder_loss(*compared.each)
    compared = compare_together(model, shared)
    if objective.marginal and with_encoder(model) is not None:
        compared = marginal(compared)
    return compared, loss_together(objective, compared, shared.workers)


#: Cases that are trained on, at least one of every model, and the steps.
TRAINED = (
    *("nuclear of 11", "calibrated", "heads", "encoder", "blocks, debiased", "pairs"),
    *("autoencoder", "latent", "vae", "slices, heads"),
)
STEPS = 50
#: Numbers of workers that train. More of them than processors mostly wait for each other.
TRAINED_WITH = (1, 2, 3)


class Case:
    """A model, its objective and a batch, as one worker sees them."""

    def __init__(self, name: str, workers: Team) -> None:
        options, rows = CASES[name]
        self.name, self.workers = name, workers
        mixed = options.get("model", _NOISE) in {_NOISE, "encoder-mixture-decoder"}
        small = {"noise_dim": 2} if mixed else {}
        # Slices ask for the run of an encoder, which is not opened here.
        sliced = {"encoder": "none"} if "slices" in options else {}
        given = small | sliced | options
        self.config = config = RunConfig.create(data="moons", width=8, depth=1, **given)
        shape = DataShape(DIM, None, len(ROWS), classes=int(LABELS.max()) + 1)
        # Heads begin at zero, where they could not be told apart.
        model = randomised(build_model(config, shape, VARIANCE), 0.4).double()
        objective = create_objective(config.objective, **config.objective_options)
        # Not contiguous, as a batch may be.
        batch = Batch(ROWS[:rows].T.contiguous().T, LABELS[:rows])
        if isinstance(model, BlockDensityNetwork):
            model.learn_blocks(ROWS, LABELS)
            objective = BlockObjective(objective, model.share)
            batch, rows = Batch(ROWS.reshape(model.blocks, -1, DIM)), rows // model.blocks
        inner = with_encoder(model)
        if config.slices and inner is not None:
            inner.freeze_encoder()
            sliced_rows = ROWS.reshape(config.slices, -1, DIM)
            told = LABELS[: config.slices] if config.condition == "classes" else None
            batch = Batch(sliced_rows, told, inner.features_of(sliced_rows[:, 0]).detach())
            share = torch.full((config.slices,), 1 / config.slices).double()
            objective = BlockObjective(objective, share)
        if inner is not None:
            self.centers = inner.centers
        else:
            self.centers = rows if objective.paired else config.centers or rows
        self.model, self.objective, self.batch = model, objective, batch

    def step(self, number: int) -> tuple:
        """Return the comparison and the loss of a step, and put gradients into the parameters."""
        shared = Shared(
            self.batch, VARIANCE, self.centers, stream(0, "noise", number), self.workers
        )
        compared, loss = compare(self.model, self.objective, shared)
        self.model.zero_grad()
        (loss * self.workers.world).backward()
        return compared, loss

    def average_gradients(self) -> None:
        """Take the mean over workers, as DistributedDataParallel does: all of them in one message.

        A parameter without a gradient has a gradient of zero afterwards.
        """
        for key, parameter in self.model.named_parameters():
            if parameter.grad is None:
                frozen = not parameter.requires_grad
                assert frozen or self.workers.alone or self.name.startswith("distance"), key
                parameter.grad = torch.zeros_like(parameter)
        if not self.workers.alone:
            gradients = [parameter.grad for parameter in self.model.parameters()]
            whole = torch.cat([gradient.flatten() for gradient in gradients])
            dist.all_reduce(whole)
            parts = (whole / self.workers.world).split([g.numel() for g in gradients])
            for gradient, part in zip(gradients, parts, strict=True):
                gradient.copy_(part.view_as(gradient))


def compute(name: str, workers: Team) -> dict[str, torch.Tensor]:
    """Return loss, bound, gradients and running averages of a case after two steps."""
    case, found = Case(name, workers), {}
    for step in range(2):
        compared, loss = case.step(step)
        whole = compared.whole() if isinstance(compared, OwnBlocks) else compared
        with torch.no_grad():
            bound = case.objective.bound(whole.p, whole.q, stream(0, "bound"))
        found |= {f"loss {step}": loss, f"limit {step}": bound.log_limit.mean()}
        case.average_gradients()
        for key, parameter in case.model.named_parameters():
            found[f"gradient {step} {key}"] = parameter.grad
    case.model.remember(ROWS, LABELS)
    states = {**case.model.state_dict(), **case.objective.state_dict()}
    found |= {f"state {key}": value for key, value in states.items()}
    return {key: value.detach().clone() for key, value in found.items()}


def train(name: str, workers: Team) -> dict[str, torch.Tensor]:
    """Return the weights of a case after :data:`STEPS` steps."""
    case = Case(name, workers)
    adam = torch.optim.Adam(case.model.parameters(), 0.01)
    for step in range(STEPS):
        case.step(step)
        case.average_gradients()
        adam.step()
    return {key: value.detach().clone() for key, value in case.model.state_dict().items()}


class Decompositions:
    """Counts the matrices that this process decomposes."""

    def __init__(self) -> None:
        self.count = 0
        self._inner = norms._compute_here

    def __call__(self, matrix: torch.Tensor, power: float, drop: float) -> tuple:
        """Decompose and count."""
        self.count += max(1, matrix.shape[:-2].numel())
        return self._inner(matrix, power, drop)


def everything(workers: Team, decomposed: Decompositions) -> dict:
    """Return what a worker finds: of every case, the matrices it decomposed, what it trained."""
    found = {}
    for name in CASES:
        before = decomposed.count
        found[name] = compute(name, workers)
        found[f"decompositions, {name}"] = decomposed.count - before
    if workers.world in TRAINED_WITH:
        found["trained"] = {name: train(name, workers) for name in TRAINED}
    return found


def work(rank: int, port: int, folder: Path, worlds: list[int]) -> None:
    """Be one of the workers, in every world that has so many."""
    norms._compute_here = decomposed = Decompositions()
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    for world in worlds:
        os.environ["MASTER_PORT"] = str(port + world)
        if rank < world:
            dist.init_process_group(
                "gloo", rank=rank, world_size=world, timeout=dt.timedelta(minutes=5)
            )
            found = everything(Team(rank, world), decomposed)
            torch.save(found, folder / f"{rank}-of-{world}.pt")
            dist.destroy_process_group()


def main() -> None:
    """Compute all cases alone and with as many workers as asked."""
    port, folder, worlds = int(sys.argv[1]), Path(sys.argv[2]), [int(w) for w in sys.argv[3:]]
    torch.set_num_threads(1)
    # The matrices here are small, and would be decomposed by every worker.
    norms._LEAST_SHARED = 0
    norms._compute_here = alone = Decompositions()
    torch.save(everything(Team(), alone), folder / "0-of-1.pt")
    children = []
    for rank in range(max(worlds)):
        child = os.fork()
        if child == 0:
            try:
                work(rank, port, folder, worlds)
            except BaseException:  # noqa: BLE001 - a fork ends here, whatever it met
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))


if __name__ == "__main__":
    main()
