"""Sketches of kernels of low rank against float64, and matrices for which a sketch does not pay."""

import pytest
import torch

from hilbound.engine.spectrum import norms, sketch
from hilbound.engine.spectrum.norms import schatten_power
from hilbound.engine.spectrum.sketch import sketched_slope

EPS = torch.finfo(torch.float32).eps


def plane(n, m, variance=2.0, seed=0):
    """A kernel between points in the plane, in float64."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    y = 0.8 * torch.randn(m, 2, generator=generator, dtype=torch.float64) + 0.2
    distances = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
    return (-distances.square() / (2 * variance)).exp()


def with_values(values, seed=0):
    """A square matrix with these singular values."""
    generator = torch.Generator().manual_seed(seed)
    n = len(values)
    u, v = (
        torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64)).Q
        for _ in range(2)
    )
    return (u * values) @ v.mT


def along(exact, slope, least):
    """How far the slope is from 1 along the singular directions above ``least``."""
    u, s, vh = torch.linalg.svd(exact, full_matrices=False)
    kept = s > least * s[0]
    found = u[:, kept].mT @ slope.double() @ vh[kept].mT
    return float((found - torch.eye(len(found), dtype=torch.float64)).abs().max())


@pytest.mark.parametrize("shape", [(256, 256), (400, 220), (220, 400), (512, 512)])
def test_kernels_in_the_plane_are_as_exact_as_in_float64(shape):
    exact = plane(*shape)
    value, slope = sketched_slope(exact.float(), 1.0, EPS)
    assert value.dtype == slope.dtype == torch.float32
    assert float(value) == pytest.approx(float(torch.linalg.svdvals(exact).sum()), rel=2e-6)
    assert along(exact, slope, 1e-5) < 1e-3
    # No direction is longer than 1. At the line itself, squares in float64 leave a percent.
    assert float(torch.linalg.matrix_norm(slope.double(), 2)) < 1.01


def test_directions_that_another_method_finds_are_there():
    """Down to four rounding units of the largest value, no direction is lost."""
    values = torch.cat([0.6 ** torch.arange(31.0), torch.zeros(225)]).double()
    assert values[30] > 1.5 * EPS
    exact = with_values(values)
    _, slope = sketched_slope(exact.float(), 1.0, EPS)
    u, s, vh = torch.linalg.svd(exact)
    lengths = (u.mT @ slope.double() @ vh.mT).diagonal()[s > 16 * EPS]
    assert float((lengths - 1).abs().max()) < 0.05


def test_a_drop_is_a_sharp_line():
    values = torch.cat([0.5 ** torch.arange(20.0), torch.zeros(236)]).double()
    _, slope = sketched_slope(with_values(values).float(), 1.0, 6 * 0.5**11)
    assert int(torch.linalg.matrix_rank(slope.double(), rtol=0.5)) == 9


@pytest.mark.parametrize(
    "a",
    [
        torch.eye(256),
        torch.randn(256, 300, generator=torch.Generator().manual_seed(0)),
        with_values(torch.linspace(1, 1e-3, 256).double()).float(),
        with_values(torch.arange(1.0, 257).double() ** -2).float(),
        with_values(
            torch.cat([torch.logspace(0, -4, 24), torch.full((232,), 1e-5)]).double()
        ).float(),
    ],
    ids=["identity", "noise", "linear", "power law", "a long tail after a steep start"],
)
def test_matrices_without_low_rank_are_left_to_others(a):
    assert sketched_slope(a, 1.0, EPS) is None


def test_a_wrong_forecast_is_noticed(monkeypatch):
    """A basis that misses a direction is not accepted, whatever was foreseen."""
    a = plane(300, 300).float()
    assert sketched_slope(a, 1.0, EPS) is not None
    monkeypatch.setattr(sketch, "_columns", lambda _: 24)
    assert sketched_slope(a, 1.0, EPS) is None


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_sizes_of_entries_do_not_matter(scale):
    a = scale * torch.ones(256, 256)
    value, slope = sketched_slope(a, 1.0, EPS)
    assert float(value) == pytest.approx(256 * scale, rel=1e-6)
    assert torch.allclose(slope, torch.full((256, 256), 1 / 256 if scale else 0.0), atol=1e-6)


def test_batches_are_matrices_one_by_one(monkeypatch):
    a = torch.stack([plane(200, 200, seed=0), plane(200, 200, seed=1), torch.eye(200).double()])
    ran = []
    monkeypatch.setitem(
        norms._METHODS, "sketch", lambda *args: (ran.append(1), sketched_slope(*args))[1]
    )
    leaf = a.float().requires_grad_()
    values = schatten_power(leaf, 1.0)
    (slopes,) = torch.autograd.grad(values.sum(), leaf)
    assert ran == [1]
    for exact, value, slope in zip(a, values.detach(), slopes, strict=True):
        assert float(value) == pytest.approx(float(torch.linalg.svdvals(exact).sum()), rel=2e-6)
        assert along(exact, slope, 1e-5) < 1e-3


def test_other_powers_keep_every_value():
    assert sketched_slope(plane(256, 256).float(), 0.7, EPS) is None


def test_results_repeat_and_leave_the_global_generator_alone():
    a, state = plane(256, 256).float(), torch.get_rng_state()
    first, second = (sketched_slope(a, 1.0, EPS) for _ in range(2))
    assert torch.equal(first[1], second[1])
    assert torch.equal(state, torch.get_rng_state())
