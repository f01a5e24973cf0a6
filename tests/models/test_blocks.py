"""The network of blocks and the clusters: what is drawn, what is stored, what is refused."""

import pytest
import torch
from torch import nn

from hilbound.errors import InputError
from hilbound.mixture import GaussianMixture
from hilbound.models.blocks import BlockDensityNetwork, Clusters
from hilbound.models.density import MixtureDensityNetwork

BLOCKS, NOISE, DIM = 3, 2, 4


@pytest.fixture(autouse=True)
def _weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(clusters=None, **options):
    network = nn.Linear(NOISE + BLOCKS, DIM)
    return BlockDensityNetwork(network, NOISE, 0.5, blocks=BLOCKS, clusters=clusters, **options)


def far_groups(n=40):
    """Three groups of points far apart, of n, 2n and 3n rows."""
    sizes = torch.tensor([n, 2 * n, 3 * n])
    labels = torch.arange(3).repeat_interleave(sizes)
    return 50.0 * labels[:, None] + torch.randn(len(labels), DIM, generator=generator()), labels


def test_the_network_gets_noise_and_code_in_this_order():
    model = build().double()
    noise = torch.randn(BLOCKS, 5, NOISE, generator=generator(), dtype=torch.float64)
    means, w, b = model(noise).means, model.network.weight, model.network.bias
    for c in range(BLOCKS):
        for k in range(5):
            expected = w[:, :NOISE] @ noise[c, k] + w[:, NOISE + c] + b
            assert torch.allclose(means[c, k], expected, atol=1e-12)


def test_shares_are_those_of_the_rows():
    x, labels = far_groups()
    model = build()
    model.learn_blocks(x, labels)
    assert torch.allclose(model.share, torch.tensor([1 / 6, 2 / 6, 3 / 6]))
    assert float(model.share.sum()) == pytest.approx(1, abs=1e-6)


def test_clusters_find_groups_that_lie_apart_and_assign_new_rows():
    x, labels = far_groups()
    model = build(Clusters(BLOCKS, DIM, len(x)))
    model.learn_blocks(x)
    found = model.blocks_of(x)
    # The numbers of clusters are in any order, but every group is one cluster.
    pairs = set(zip(labels.tolist(), found.tolist(), strict=True))
    assert len(pairs) == BLOCKS
    assert torch.equal(model.blocks_of(x + 1), found)
    assert sorted(model.share.tolist()) == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_clusters_are_those_of_scikit_learn_in_principal_components():
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    x = torch.rand(300, 60, generator=generator())
    clusters = Clusters(5, 60, 300)
    clusters.fit(x, seed=3)
    codes = PCA(50, random_state=3).fit_transform(x.double().numpy())
    expected = KMeans(5, n_init=1, random_state=3).fit_predict(codes)
    assert clusters(x).tolist() == expected.tolist()


def test_clusters_are_part_of_the_state():
    x, _ = far_groups()
    model, other = (build(Clusters(BLOCKS, DIM, len(x))) for _ in range(2))
    model.learn_blocks(x)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other.blocks_of(x), model.blocks_of(x))
    assert torch.equal(other.share, model.share)
    assert torch.equal(other.sample(5, generator()), model.sample(5, generator()))


def show_the_code(**options):
    """A network whose centres are the code of their block."""
    model = build(**options)
    with torch.no_grad():
        model.network.weight.zero_()
        model.network.bias.zero_()
        model.network.weight[:BLOCKS, NOISE:] = torch.eye(BLOCKS)
    return model


@pytest.mark.parametrize("weighted", [False, True])
def test_blocks_are_drawn_by_their_shares(weighted):
    model = show_the_code(learn_weights=weighted, learn_variance=weighted)
    x, labels = far_groups()
    model.learn_blocks(x, labels)
    n = 6000
    for drawn in (model.sample(n, generator()), model.draw(n, generator()).means):
        shares = drawn.argmax(-1).bincount(minlength=BLOCKS) / n
        assert torch.allclose(shares, model.share, atol=0.03)  # five standard deviations
    for label in range(BLOCKS):
        assert model.sample(7, generator(), label).argmax(-1).tolist() == [label] * 7
        assert model.draw(7, generator(), label).means.argmax(-1).tolist() == [label] * 7


@pytest.mark.parametrize("heads", [False, True])
def test_log_prob_is_that_of_the_mixture_over_all_blocks(heads):
    model = build(learn_weights=heads, learn_variance=heads).double()
    if heads:
        for head in (model.weight_head, model.variance_head):
            nn.init.normal_(head[-1].weight)
    x, labels = far_groups()
    model.learn_blocks(x, labels)
    noise = model.normal(BLOCKS, 9, NOISE, generator=generator(4))
    q = model(noise)
    points = torch.randn(11, DIM, generator=generator(5), dtype=torch.float64)
    v = q.component_variance.expand(BLOCKS, 9, -1)
    each = torch.stack(
        [
            model.share[c].log() + GaussianMixture(q.means[c], v[c], q.weights[c]).log_prob(points)
            for c in range(BLOCKS)
        ]
    )
    found = model.log_prob(points, centers=9, generator=generator(4))
    assert torch.allclose(found, torch.logsumexp(each, 0), atol=1e-12)
    density = model.density(9, generator(4))
    assert density.components == 9 * BLOCKS
    assert float(density.weights.detach().sum()) == pytest.approx(1, abs=1e-6)


def test_a_comparison_has_a_mixture_for_each_block():
    x = torch.randn(BLOCKS, 6, DIM, generator=generator())
    p, q, penalty = build().compare(x, 0.7, 5, generator())
    assert torch.equal(p.means, x)
    assert (tuple(p.batch_shape), tuple(q.batch_shape)) == ((BLOCKS,), (BLOCKS,))
    assert (p.components, q.components, float(penalty)) == (6, 5, 0.0)
    for wrong in (x[:2], x[0]):
        with pytest.raises(InputError, match=r"shape \(C, n, d\) with C = 3 blocks"):
            build().compare(wrong, 0.7, 5)


def test_wrong_labels_and_blocks_are_refused():
    x, labels = far_groups()
    model = build()
    with pytest.raises(InputError, match="label must lie between 0 and 2, got 3"):
        model.sample(1, label=3)
    with pytest.raises(InputError, match="label must lie between 0 and 2, got -1"):
        model.draw(1, label=-1)
    with pytest.raises(InputError, match="label must be a whole number, got 'cat'"):
        model.sample(1, label="cat")
    with pytest.raises(InputError, match="labels must hold the class of each of 240 rows, got N"):
        model.learn_blocks(x)
    with pytest.raises(InputError, match=r"each of 240 rows, got \(3,\)"):
        model.learn_blocks(x, labels[:3])
    with pytest.raises(InputError, match="label must lie between 0 and 2, got 3"):
        model.learn_blocks(x, labels + 3)
    with pytest.raises(InputError, match="no training rows are in block 1 of 3"):
        model.learn_blocks(x, 2 * (labels // 2))
    with pytest.raises(InputError, match="blocks must be at least 1, got 0"):
        BlockDensityNetwork(nn.Linear(2, 4), 2, 0.5, blocks=0)
    plain = MixtureDensityNetwork(nn.Linear(2, 4), 2, 0.5)
    for draw in (plain.sample, plain.draw):
        with pytest.raises(InputError, match="label 1 is for a model with a condition"):
            draw(3, label=1)


def test_more_clusters_than_rows_are_refused():
    with pytest.raises(InputError, match="'clusters=9' asks for more clusters than the 8 training"):
        Clusters(9, DIM, 8)
    # Copies are no different rows.
    x = torch.eye(DIM).repeat(10, 1)
    with pytest.raises(InputError, match="take at most 4"):
        Clusters(6, DIM, len(x)).fit(x)
