"""The library against a table of numbers that were computed independently, densely in float64.

``data/reference.json`` holds mixtures with weights in dimensions 1 to 50 and the value of every
cost. Its points are rounded to four digits, so that the file says exactly what was computed.
"""

import json
from pathlib import Path

import pytest
import torch

from hilbound import functional as F
from hilbound.mixture import GaussianMixture

CASES = json.loads((Path(__file__).parent / "data" / "reference.json").read_text())["mixtures"]


def mixtures(case, dtype):
    def tensor(name):
        return torch.tensor(case[name], dtype=dtype)

    return (
        GaussianMixture(tensor("means_p"), case["variance_p"], tensor("weights_p")),
        GaussianMixture(tensor("means_q"), case["variance_q"], tensor("weights_q")),
    )


VALUES = {
    "log_inner_pq": lambda p, q: p.log_inner(q),
    "log_norm_p": lambda p, _: p.log_norm(),
    "log_norm_q": lambda _, q: q.log_norm(),
    "log_scalar_cost": F.log_scalar_cost,
    "cauchy_schwarz_divergence": F.cauchy_schwarz_divergence,
    "fidelity": F.fidelity,
    "negative_log_likelihood_of_means_p": lambda p, q: F.negative_log_likelihood(p.means, q),
}


def test_the_table_covers_several_dimensions():
    assert [case["d"] for case in CASES] == [1, 2, 3, 50]
    assert all(VALUES.keys() <= case["expected"].keys() for case in CASES)


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float64, 1e-10), (torch.float32, 1e-4)])
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"d={case['d']}")
def test_values(case, name, dtype, rel):
    value = VALUES[name](*mixtures(case, dtype))
    assert value.dtype == dtype
    assert value.shape == ()
    assert float(value) == pytest.approx(case["expected"][name], rel=rel, abs=0)
