"""Workers in processes of their own, which compute the same batches as one process does.

``python workers.py RANK PORT FOLDER`` is one of three; two of them repeat every case as a pair.
"""

import datetime as dt
import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist

from hilbound.config import RunConfig
from hilbound.engine.gather import Team
from hilbound.engine.seeding import stream
from hilbound.models.build import DataShape, build_model
from hilbound.objectives import create_objective
from hilbound.training.together import compare_together

sys.path.insert(0, str(Path(__file__).parent.parent))

from support.models import randomised

DIM, VARIANCE = 3, 4.0
#: Rows of which the shares of workers have nothing in common.
ROWS = torch.randn(11, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
ROWS = ROWS + torch.linspace(-3, 3, 11, dtype=torch.float64).unsqueeze(-1)

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
    "vae": ({"model": "vae"}, 11),
    "vae without rows": ({"model": "vae"}, 2),
}


def compute(name: str, workers: Team) -> dict[str, torch.Tensor]:
    """Return loss, bound, gradients and running averages of a case after two steps."""
    options, rows = CASES[name]
    mixed = options.get("model", _NOISE) in {_NOISE, "encoder-mixture-decoder"}
    small = {"noise_dim": 2} if mixed else {}
    config = RunConfig.create(data="moons", width=8, depth=1, **small | options)
    # Heads begin at zero, where they could not be told apart.
    model = randomised(build_model(config, DataShape(DIM, None, len(ROWS)), VARIANCE), 0.4)
    model = model.double()
    objective = create_objective(config.objective, **config.objective_options)
    if config.model == _NOISE:
        centers = rows if objective.paired else config.centers or rows
    else:
        centers = getattr(model, "centers", 1)
    own = workers.share(rows) or range(1)
    found = {}
    for step in range(2):
        compared = compare_together(
            model,
            # Not contiguous, as a batch may be.
            ROWS[own.start : own.stop].T.contiguous().T,
            VARIANCE,
            centers,
            stream(0, "noise", step),
            workers=workers,
            rows=rows,
        )
        loss = objective(compared.p, compared.q).mean() + compared.penalty
        bound = objective.bound(compared.p, compared.q, stream(0, "bound"))
        model.zero_grad()
        (loss * workers.world).backward()
        found |= {f"loss {step}": loss, f"limit {step}": bound.log_limit.mean()}
        for key, parameter in model.named_parameters():
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            if not workers.alone:
                assert parameter.grad is not None or name.startswith("distance"), key
                dist.all_reduce(gradient)
                gradient = gradient / workers.world
            found[f"gradient {step} {key}"] = gradient
    model.remember(ROWS)
    found |= {f"state {k}": t for k, t in {**model.state_dict(), **objective.state_dict()}.items()}
    return {key: value.detach().clone() for key, value in found.items()}


def main() -> None:
    """Compute all cases with two workers and with three."""
    rank, port, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    for world in map(int, sys.argv[4:]):
        os.environ["MASTER_PORT"] = str(port + world)
        if rank < world:
            dist.init_process_group(
                "gloo", rank=rank, world_size=world, timeout=dt.timedelta(seconds=60)
            )
            found = {name: compute(name, Team(rank, world)) for name in CASES}
            torch.save(found, folder / f"{rank}-of-{world}.pt")
            dist.destroy_process_group()


if __name__ == "__main__":
    main()
