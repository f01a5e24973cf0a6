"""What a mixture takes, what it refuses and with which words."""

import math

import numpy as np
import pytest
import torch

from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.variance import median_variance
from support.strategies import normal

DTYPES = [torch.float32, torch.float64]


@pytest.mark.parametrize(
    ("means", "message"),
    [
        (torch.zeros(3), r"means must be a floating-point tensor.*got torch.float32.*\(3,\)"),
        (torch.zeros(3, 2, dtype=torch.int64), "got torch.int64 with shape"),
        (torch.zeros(0, 2), r"K and d > 0, got torch.float32 with shape \(0, 2\)"),
        (torch.zeros(4, 0), r"K and d > 0, got torch.float32 with shape \(4, 0\)"),
        (torch.tensor([[0.0, math.nan], [math.inf, 0.0]]), "means must be finite, got 2 NaN"),
    ],
)
def test_means_that_are_refused(means, message):
    with pytest.raises(InputError, match=message):
        GaussianMixture(means, 1.0)


@pytest.mark.parametrize(
    ("variance", "message"),
    [
        (0.0, "variance must be positive and finite, got values from 0 to 0; it is a variance"),
        (-1.0, "variance must be positive and finite"),
        (math.inf, "variance must be positive and finite"),
        (math.nan, "variance must be positive and finite"),
        (torch.tensor([[1.0], [1.0], [0.0]]), "got values from 0 to 1"),
        (torch.ones(4, 1), r"shape \(4, 1\) does not broadcast to the means' shape \(3, 2\)"),
        (torch.ones(3), r"one value per component with shape \(3, 1\)"),
        (torch.ones(5, 3, 2), r"shape \(5, 3, 2\) does not broadcast"),
    ],
)
def test_variances_that_are_refused(variance, message):
    with pytest.raises(InputError, match=message):
        GaussianMixture(torch.zeros(3, 2), variance)


def test_a_variance_may_not_add_components():
    with pytest.raises(InputError, match="does not broadcast to the means' shape"):
        GaussianMixture(torch.zeros(1, 2), torch.ones(3, 1))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (torch.ones(4), r"weights must have shape \(3,\), one per component, got \(4,\)"),
        (torch.tensor(1.0), r"weights must have shape \(3,\).*got \(\)"),
        (torch.ones(2, 3), r"weights must have shape \(3,\).*got \(2, 3\)"),
        (torch.tensor([1.0, -0.1, 1.0]), "weights must be finite and not negative"),
        (torch.tensor([1.0, math.nan, 1.0]), "weights must be finite and not negative"),
        (torch.tensor([1.0, math.inf, 1.0]), "weights must be finite and not negative"),
        (torch.zeros(3), "weights must not all be zero"),
    ],
)
def test_weights_that_are_refused(weights, message):
    with pytest.raises(InputError, match=message):
        GaussianMixture(torch.zeros(3, 2), 1.0, weights)


def test_weights_of_another_batch_are_refused():
    with pytest.raises(InputError, match=r"weights must have shape \(5, 3\).*got \(2, 3\)"):
        GaussianMixture(torch.zeros(5, 3, 2), 1.0, torch.ones(2, 3))


def test_values_are_checked_when_torch_would_check_them():
    bad = torch.full((2, 1), math.nan)
    GaussianMixture(bad, 1.0, validate_args=False)
    with pytest.raises(InputError, match="means must be finite"):
        GaussianMixture(bad, 1.0, validate_args=True)
    before = torch.distributions.Distribution._validate_args
    try:
        torch.distributions.Distribution.set_default_validate_args(False)
        GaussianMixture(bad, 1.0)
        with pytest.raises(InputError, match="means must be finite"):
            GaussianMixture(bad, 1.0, validate_args=True)
    finally:
        torch.distributions.Distribution.set_default_validate_args(before)


def test_shapes_are_checked_even_when_values_are_not():
    with pytest.raises(InputError, match="one per component"):
        GaussianMixture(torch.zeros(3, 2), 1.0, torch.ones(4), validate_args=False)


def test_mixtures_of_different_spaces_are_refused():
    q = GaussianMixture(torch.zeros(3, 2), 1.0)
    other = GaussianMixture(torch.zeros(3, 5), 1.0)
    for method in (q.log_inner, q.log_overlaps):
        with pytest.raises(InputError, match="other has 5 coordinates, but this mixture has 2"):
            method(other)
    with pytest.raises(InputError, match="value has 1 coordinates, but this mixture has 2"):
        q.log_prob(torch.zeros(4, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtype_follows_the_means(dtype):
    q = GaussianMixture(torch.zeros(3, 2, dtype=dtype), 0.5, torch.tensor([1, 2, 1]))
    results = [q.component_variance, q.weights, q.mean, q.variance, q.sample((2,))]
    results += [q.log_norm(), q.log_prob(torch.zeros(2, dtype=dtype)), q.log_overlaps(q)]
    assert {result.dtype for result in results} == {dtype}
    assert q.weights.tolist() == pytest.approx([0.25, 0.5, 0.25])


def test_it_is_a_torch_distribution():
    q = GaussianMixture(torch.zeros(4, 3, 2), 1.0)
    assert isinstance(q, torch.distributions.Distribution)
    assert (q.batch_shape, q.event_shape) == ((4,), (2,))
    assert (q.components, q.dim) == (3, 2)
    assert not q.has_rsample


@pytest.mark.parametrize(
    ("variance", "text"), [(0.5, "0.5"), (torch.tensor([[0.25], [4.0]]), "0.25..4")]
)
def test_repr(variance, text):
    q = GaussianMixture(torch.zeros(7, 2, 3), variance)
    expected = f"GaussianMixture(components=2, dim=3, batch_shape=(7,), variance={text})"
    assert repr(q) == expected


def test_learned_variances_are_shown_and_refused_without_warnings():
    v = torch.tensor([[1.0], [-1.0]], requires_grad=True)
    q = GaussianMixture(torch.zeros(2, 3), v.square())
    assert repr(q).endswith("variance=1)")
    with pytest.raises(InputError, match="got values from -1 to 1"):
        GaussianMixture(torch.zeros(2, 3), v)


# ------------------------------------------------------------------ weights as logarithms


def test_log_weights_are_the_weights():
    means = normal(0, 2, 3, 1)
    weights = torch.tensor([1.0, 0.0, 3.0], dtype=torch.float64)
    one = GaussianMixture(means, 0.5, weights)
    other = GaussianMixture(means, 0.5, log_weights=weights.log() + 700)
    assert torch.allclose(other.weights, one.weights, rtol=1e-13, atol=0)
    assert other.weights.shape == (2, 3)


def test_log_weights_outside_the_numbers_are_kept():
    q = GaussianMixture(normal(0, 2, 1), 0.5, log_weights=torch.tensor([-2000.0, -2001.0]).double())
    assert q.log_weights.tolist() == pytest.approx([-math.log1p(math.exp(-1)), -1.3132616875182228])


def test_weights_that_are_passed_on_keep_their_bits():
    q = GaussianMixture(normal(0, 40, 2).float(), 0.5, torch.rand(40))
    assert torch.equal(GaussianMixture(q.means, 0.5, log_weights=q.log_weights).weights, q.weights)


def test_weights_come_once():
    with pytest.raises(InputError, match="weights and log_weights were both given: give one"):
        GaussianMixture(normal(0, 2, 1), 0.5, torch.ones(2), log_weights=torch.zeros(2))
    with pytest.raises(InputError, match=r"log_weights must have shape \(2,\).*got \(3,\)"):
        GaussianMixture(normal(0, 2, 1), 0.5, log_weights=torch.zeros(3))


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [-math.inf, -math.inf], [math.inf, 0.0]])
def test_log_weights_that_are_none(bad):
    with pytest.raises(InputError, match="log_weights must be finite or -inf"):
        GaussianMixture(normal(0, 2, 1), 0.5, log_weights=torch.tensor(bad), validate_args=True)


def test_what_has_no_weight_cannot_be_selected():
    q = GaussianMixture(normal(0, 3, 1), 0.5, torch.tensor([0.0, 0.0, 1.0]))
    with pytest.raises(InputError, match="must not all have weight zero"):
        q.select(slice(0, 2))
    assert q.select(torch.tensor([1, 2])).weights.tolist() == [0, 1]


def test_means_whose_distances_overflow_are_named():
    with pytest.raises(InputError, match=r"smaller than .*e\+\d+, got 1.0e\+20: .*overflow"):
        GaussianMixture(torch.full((4, 2), 1e20), 1.0)
    assert GaussianMixture(torch.full((4, 2), 1e20, dtype=torch.float64), 1.0).components == 4


@pytest.mark.parametrize("means", [[[0.0, 1.0]], np.zeros((3, 2))])
def test_arrays_and_lists_are_told_how_to_become_tensors(means):
    with pytest.raises(
        InputError, match=r"means must be a torch\.Tensor, got \w+: give torch\.as_t"
    ):
        GaussianMixture(means, 1.0)
    with pytest.raises(
        InputError, match=r"x must be a torch\.Tensor, got \w+: give torch\.as_tensor"
    ):
        median_variance(means)
