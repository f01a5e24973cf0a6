"""Inverse quadratic forms against projections, pseudo-inverses and the eigen-decomposition."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hilbound.engine import inverse as module
from hilbound.engine.inverse import inverse_form
from hilbound.errors import InputError


def normal(seed, *shape, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def gram_of_unit_vectors(seed, m, rank, dtype=torch.float64):
    """Overlaps of m unit vectors in a space of ``rank`` dimensions, and the vectors."""
    vectors = normal(seed, rank, m)
    vectors = vectors / vectors.norm(dim=0)
    return (vectors.mT @ vectors).to(dtype), vectors


@given(seed=st.integers(0, 10_000), m=st.integers(1, 6), extra=st.integers(0, 5))
def test_inverse_forms_are_squared_projections(seed, m, extra):
    gram, vectors = gram_of_unit_vectors(seed, m, m + extra)
    others = normal(seed + 1, m + extra, 3)
    basis = np.linalg.qr(vectors.numpy())[0]
    expected = np.square(basis.T @ others.numpy()).sum(0)
    least = float(torch.linalg.eigvalsh(gram)[0])
    form = inverse_form(gram, vectors.mT @ others)
    np.testing.assert_allclose(form, expected, rtol=1e-12 / max(least, 1e-10), atol=1e-12)


@given(seed=st.integers(0, 10_000), m=st.integers(3, 8), rank=st.integers(1, 3))
def test_inverse_forms_of_dependent_vectors_are_squared_projections_too(seed, m, rank):
    gram, vectors = gram_of_unit_vectors(seed, m, rank)
    values = torch.linalg.eigvalsh(gram)[-min(m, rank) :]
    others = normal(seed + 1, rank, 4)
    form = inverse_form(gram, vectors.mT @ others, drop=1e-12)
    expected = others.square().sum(0)
    # In a space of so few dimensions the vectors span all of it, unless they nearly miss one.
    if float(values[0]) > 1e-6:
        np.testing.assert_allclose(form, expected, rtol=1e-8)
    assert (form <= expected * (1 + 1e-6)).all()


def test_inverse_forms_against_the_pseudo_inverse_on_either_side_of_the_line():
    basis = torch.linalg.qr(normal(3, 4, 4))[0]
    gram = basis @ torch.diag(torch.tensor([1e-13, 1e-8, 1e-3, 2.0]).double()) @ basis.mT
    gram = (gram + gram.mT) / 2
    k = basis @ torch.tensor([[1e-8], [1e-4], [1e-2], [1.0]]).double()
    shares = {1e-10: 0.5 + 0.1 + 1.0, 1e-5: 0.5 + 0.1, 1e-2: 0.5}
    for drop, expected in shares.items():
        assert float(inverse_form(gram, k, drop)) == pytest.approx(expected, rel=1e-5)
        pseudo = k.mT @ torch.linalg.pinv(gram, rtol=drop, hermitian=True) @ k
        assert float(inverse_form(gram, k, drop)) == pytest.approx(float(pseudo), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_default_line_of_inverse_forms_is_that_of_the_dtype(dtype):
    """A pair of vectors 1e-4 apart: their difference is noise in float32, and not in float64."""
    angle = torch.tensor(1e-4).double()
    gram = torch.tensor([[1.0, angle.cos()], [angle.cos(), 1.0]]).double().to(dtype)
    # Across the first vector: it lies in the plane of both, and along neither.
    k = torch.stack([torch.zeros(()).double(), angle.sin()]).unsqueeze(-1).to(dtype)
    form = float(inverse_form(gram, k))
    assert form == pytest.approx(1, abs=1e-6) if dtype == torch.float64 else form < 1e-6


def test_inverse_forms_of_batches():
    gram = torch.stack([gram_of_unit_vectors(i, 4, 6)[0] for i in range(3)])
    gram = torch.stack([gram, torch.ones_like(gram)])  # of the second half every one is singular
    k = normal(9, 2, 3, 4, 5)
    together = inverse_form(gram, k)
    assert together.shape == (2, 3, 5)
    for i in range(2):
        for j in range(3):
            assert torch.allclose(together[i, j], inverse_form(gram[i, j], k[i, j]), rtol=1e-9)


@pytest.mark.parametrize("m", [1, 3, 5])
def test_derivatives_of_inverse_forms(m):
    gram, vectors = gram_of_unit_vectors(0, m, m + 2)
    k = vectors.mT @ normal(1, m + 2, 2)

    def form(a, b):
        return inverse_form((a + a.mT) / 2, b)

    leaves = (gram.requires_grad_(), k.requires_grad_())
    assert torch.autograd.gradcheck(form, leaves)
    assert torch.autograd.gradgradcheck(form, leaves)


@pytest.mark.parametrize("drop", [-1e-9, 1.0, math.nan, math.inf])
def test_a_drop_that_is_no_share_is_refused(drop):
    with pytest.raises(InputError, match=r"drop must lie in \[0, 1\).*a share of the largest"):
        inverse_form(torch.eye(2), torch.eye(2), drop)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_inverse_forms_of_what_is_not_finite_are_refused(bad):
    gram = torch.eye(3)
    gram[0, 1] = gram[1, 0] = bad
    with pytest.raises(InputError, match="Gram matrix holds NaN or infinite values"):
        inverse_form(gram, torch.ones(3, 1))


# ------------------------------------------------------------------ the choice of the factorisation


def with_spectrum(seed, values):
    basis = torch.linalg.qr(normal(seed, len(values), len(values)))[0]
    gram = basis @ torch.diag(torch.tensor(values).double()) @ basis.mT
    return (gram + gram.mT) / 2


def by_eigenvectors(gram, k, drop):
    """The form and its gradients with the eigenvectors above the line alone."""
    values, basis = np.linalg.eigh(gram.numpy())
    kept = values > drop * values[-1]
    w = basis[:, kept] / values[kept] @ (basis[:, kept].T @ k.numpy())
    return (k.numpy() * w).sum(0), 2 * w, -w @ w.T


@pytest.mark.parametrize("least", [1e-9, 3e-7, 0.9e-6, 1.1e-6, 3e-6, 1e-4, 1.0])
def test_no_direction_below_the_line_is_ever_kept(least):
    """Two factorisations may send a matrix to the eigenvectors in vain, never the other way."""
    gram, drop = with_spectrum(0, [1.0, 0.5, 0.1, least]), 1e-6
    k = gram @ normal(1, 4, 3)
    leaves = (gram.clone().requires_grad_(), k.clone().requires_grad_())
    form = inverse_form(*leaves, drop)
    by_gram, by_k = torch.autograd.grad(form.sum(), leaves)
    value, slope_k, slope_gram = by_eigenvectors(gram, k, drop)
    np.testing.assert_allclose(form.detach(), value, rtol=1e-8)
    np.testing.assert_allclose(by_k, slope_k, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(by_gram, slope_gram, rtol=1e-6, atol=1e-6)


def test_eigenvectors_are_sought_only_where_a_direction_may_be_noise(monkeypatch):
    sought = []
    real = torch.linalg.eigh
    monkeypatch.setattr(module.torch.linalg, "eigh", lambda a: sought.append(1) or real(a))
    for m in (5, 300):
        inverse_form(torch.eye(m) + 0.5, torch.ones(m, 1))
        # In float64 even points that are close together tell their differences.
        x = torch.linspace(0, 30, m).double().unsqueeze(-1) * (m / 5)
        inverse_form((-(x - x.mT).square()).exp(), torch.ones(m, 1).double())
        assert not sought
    inverse_form(torch.ones(5, 5), torch.ones(5, 1))
    assert len(sought) == 1


def test_the_backward_pass_is_one_product(monkeypatch):
    gram, vectors = gram_of_unit_vectors(0, 5, 9)
    leaves = (gram.requires_grad_(), (vectors.mT @ normal(1, 9, 4)).requires_grad_())
    form = inverse_form(*leaves).sum()
    for name in ("cholesky_solve", "linalg"):
        monkeypatch.delattr(module.torch, name)
    by_gram, by_k = torch.autograd.grad(form, leaves)
    w = np.linalg.solve(gram.detach().numpy(), leaves[1].detach().numpy())
    np.testing.assert_allclose(by_k, 2 * w, rtol=1e-9)
    np.testing.assert_allclose(by_gram, -w @ w.T, rtol=1e-9)
