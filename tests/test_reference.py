"""The library against a table of numbers that were computed independently, densely in float64.

``data/reference.json`` holds mixtures with weights in dimensions 1 to 3072, a conditional case, and
the value of every cost. Its points are rounded to four digits, so that the file says exactly what
was computed.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from hilbound import functional as F
from hilbound.mixture import GaussianMixture

TABLE = json.loads((Path(__file__).parent / "data" / "reference.json").read_text())
CASES, CONDITIONAL = TABLE["mixtures"], TABLE["conditional"]
PRECISIONS = [(torch.float64, 1e-10), (torch.float32, 1e-4)]


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
    "log_vector_cost": F.log_vector_cost,
    "schur_cost": F.schur_cost,
    "cauchy_schwarz_divergence": F.cauchy_schwarz_divergence,
    "fidelity": F.fidelity,
    "negative_log_likelihood_of_means_p": lambda p, q: F.negative_log_likelihood(p.means, q),
}
# They solve a system, and give what they solved it in.
IN_FLOAT64 = {"log_vector_cost", "schur_cost"}


def test_the_table_covers_several_dimensions():
    assert [case["d"] for case in CASES] == [1, 2, 3, 50, 784, 3072]
    assert all(VALUES.keys() == case["expected"].keys() for case in CASES)


@pytest.mark.parametrize(("dtype", "rel"), PRECISIONS)
@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"d={case['d']}")
def test_values(case, name, dtype, rel):
    value = VALUES[name](*mixtures(case, dtype))
    assert value.dtype == (torch.float64 if name in IN_FLOAT64 else dtype)
    assert value.shape == ()
    assert float(value) == pytest.approx(case["expected"][name], rel=rel, abs=0)


def conditional_mixtures(dtype):
    """The data's mixtures given every feature point, and the model's."""
    case = CONDITIONAL
    x, features, points, centers = (
        torch.tensor(case[name], dtype=dtype)
        for name in ("x", "features", "feature_points", "centers")
    )
    distances = (points.unsqueeze(1) - features).square().sum(-1)
    weights = torch.softmax(-distances / (2 * case["variance_y"]), -1)
    means = x.expand(len(points), *x.shape)
    return (
        GaussianMixture(means, case["variance_p"], weights),
        GaussianMixture(centers, case["variance_q"]),
    )


@pytest.mark.parametrize(("dtype", "rel"), PRECISIONS)
def test_conditional_values(dtype, rel):
    p, q = conditional_mixtures(dtype)
    cost = F.conditional_log_scalar_cost(p, q)
    limit = torch.logsumexp(p.log_norm(), 0) - math.log(len(p.means))
    assert cost.dtype == dtype
    assert cost.shape == ()
    expected = CONDITIONAL["expected"]
    assert expected.keys() == {"log_cost", "log_limit"}
    assert float(cost) == pytest.approx(expected["log_cost"], rel=rel, abs=0)
    assert float(limit) == pytest.approx(expected["log_limit"], rel=rel, abs=0)
