"""One batch over several workers: steps per second, and bytes on the wire against the least.

    python benchmarks/workers.py [--workers 1 2 3 4] [--steps 30]

Starts ``torchrun`` with gloo workers on this machine, each in one thread, which train the same run
as one process does. The bytes are those that the loopback interface has carried, so that nobody
else may use it meanwhile. The least that must travel in a step is what every worker lacks of the
batch's centres, and the gradients' sum by a ring. At the end the weights are compared with those of
one process. Written to ``benchmarks/results/workers.json``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from hilbound.training.machine import processor, versions

RESULT = Path(__file__).resolve().parent / "results" / "workers.json"
OPTIONS: dict[str, Any] = {
    "batch_size": 1024,
    "width": 256,
    "depth": 2,
    "noise_dim": 8,
    "objective": "nuclear",
}
PROGRAM = """
import json, sys, time
from pathlib import Path
import lightning as L
from hilbound.training import callbacks
from hilbound.cli import main

def carried():
    lines = Path("/proc/net/dev").read_text().splitlines()
    return int(next(l for l in lines if l.strip().startswith("lo:")).split()[1])

class Watched(callbacks.BoundsRecord):
    def on_train_batch_end(self, trainer, module, *_):
        if trainer.is_global_zero and trainer.global_step in (FIRST, LAST):
            self.seen = getattr(self, "seen", []) + [(time.perf_counter(), carried())]
            if len(self.seen) == 2:
                (t, b), (u, c) = self.seen
                numbers = sum(p.numel() for p in module.parameters())
                Path(OUT).write_text(json.dumps([u - t, c - b, numbers]))

callbacks.BoundsRecord = Watched
main()
"""


def least_bytes(workers: int, rows: int, dim: int, parameters: int) -> float:
    """Return the least bytes of a step that all workers together must receive, in float32."""
    centres = 4 * rows * dim * (workers - 1)
    return centres + 2 * 4 * parameters * (workers - 1)


def measure(workers: int, steps: int, data: str, folder: Path) -> dict[str, Any]:
    """Train with some workers, and return what was measured, with the place of the weights."""
    out = folder / f"{workers}.json"
    program = folder / f"program-{workers}.py"
    head = f"FIRST, LAST, OUT = 5, {steps - 1}, {str(out)!r}\n"
    program.write_text(head + PROGRAM, encoding="utf-8")
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in OPTIONS.items()]
    subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(workers)),
            *("--standalone", str(program), "fit", data, *flags, f"--steps={steps}"),
            *("--accelerator=cpu", "--no-tensorboard", "--no-report", "-q"),
            *("--validate-every", str(steps), "-o", str(folder / f"run-{workers}")),
        ],
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    seconds, carried, parameters = json.loads(out.read_text(encoding="utf-8"))
    count = steps - 1 - 5
    dim = 784 if data == "mnist" else 64 if data == "digits" else 2
    least = least_bytes(workers, OPTIONS["batch_size"], dim, parameters)
    return {
        "workers": workers,
        "data": data,
        "steps_per_second": round(count / seconds, 2),
        "bytes_per_step": round(carried / count),
        "least_bytes_per_step": round(least),
        "over_the_least": round(carried / count / least, 2) if least else None,
    }


def largest_difference(one: Path, other: Path) -> float:
    """Return the largest difference of two runs' weights, relative to the largest weight."""
    a, b = (load_file(path / "model.safetensors") for path in (one, other))
    scale = max(float(t.abs().max()) for t in a.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / scale


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--data", nargs="+", default=["moons", "digits"])
    asked = parser.parse_args()
    rows = []
    for data in asked.data:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for workers in asked.workers:
                began = time.perf_counter()
                row = measure(workers, asked.steps, data, folder)
                row["weights_differ_by"] = largest_difference(
                    folder / f"run-{asked.workers[0]}", folder / f"run-{workers}"
                )
                row["seconds"] = round(time.perf_counter() - began, 1)
                print(row, flush=True)
                rows.append(row)
    content = {
        "processor": processor(),
        "threads_of_a_worker": 1,
        "versions": versions(),
        "settings": OPTIONS | {"steps": asked.steps},
        "rows": rows,
    }
    RESULT.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
