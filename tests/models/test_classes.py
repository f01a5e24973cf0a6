"""Models that are told the class: the code reaches the network, samples are of their class."""

import copy

import pytest
import torch
from torch import nn

from hilbound.errors import InputError
from hilbound.models.autoencoders import VAE, Autoencoder, EncoderMixtureDecoder, MixtureDecoder
from hilbound.models.classes import ClassConditional, ClassDecoder
from hilbound.objectives import ConditionalScalarCost

CLASSES, FEATURES, DIM = 3, 2, 4
MODELS = ("mixture", "autoencoder", "vae")


@pytest.fixture(autouse=True)
def _weights():
    """The same initial weights every time, and the global generator as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def build(kind, network=None, encoder=None, noise=None):
    """A model of linear maps, whose decoder has the weights of `network` if that is given."""
    noise_dim = noise if noise is not None else (5 if kind == "mixture" else 0)
    network = network or nn.Linear(FEATURES + CLASSES + noise_dim, DIM)
    decoder = ClassDecoder(network, FEATURES, noise_dim, 0.5, classes=CLASSES)
    encoder = encoder or nn.Linear(DIM, (2 if kind == "vae" else 1) * FEATURES)
    if kind == "mixture":
        return ClassConditional(EncoderMixtureDecoder(encoder, decoder, variance_y=0.1, centers=6))
    if kind == "vae":
        return ClassConditional(VAE(encoder, decoder))
    return ClassConditional(Autoencoder(encoder, decoder))


def test_the_network_gets_features_code_and_noise_in_this_order():
    network = nn.Linear(FEATURES + CLASSES + 5, DIM).double()
    decoder = ClassDecoder(network, FEATURES, 5, 0.5, classes=CLASSES).double()
    y = torch.randn(7, FEATURES, generator=generator(), dtype=torch.float64)
    noise = torch.randn(7, 6, 5, generator=generator(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 1])
    with decoder.told(labels):
        means = decoder(y, noise).means
    w, b = network.weight, network.bias
    for i in range(7):
        for k in range(6):
            expected = (
                w[:, :FEATURES] @ y[i]
                + w[:, FEATURES + labels[i]]
                + w[:, FEATURES + CLASSES :] @ noise[i, k]
                + b
            )
            assert torch.allclose(means[i, k], expected, atol=1e-12)


@pytest.mark.parametrize("kind", MODELS)
def test_another_class_shifts_centres_by_its_column_alone(kind):
    model = build(kind)
    x = torch.randn(5, DIM, generator=generator())
    columns = model.decoder.network.weight[:, FEATURES : FEATURES + CLASSES]
    zero, two = (
        model.compare(x, 0.5, 6, generator(3), torch.full((5,), c)).q.means for c in (0, 2)
    )
    assert torch.allclose(two - zero, (columns[:, 2] - columns[:, 0]).expand_as(zero), atol=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_the_rows_of_a_comparison_stay_what_they_were(kind):
    x = torch.randn(5, DIM, generator=generator())
    p = build(kind).compare(x, 0.7, 6, labels=torch.zeros(5, dtype=torch.int64)).p
    assert torch.equal(p.means.squeeze(-2), x)
    assert float(p.component_variance.unique()) == pytest.approx(0.7)


@pytest.mark.parametrize("kind", MODELS)
def test_reconstructions_are_of_the_class_of_their_row(kind):
    # A network that shows the code: the centre's first coordinates are the class.
    show = nn.Linear(FEATURES + CLASSES + 5 * (kind == "mixture"), DIM, bias=False)
    with torch.no_grad():
        show.weight.zero_()
        show.weight[:CLASSES, FEATURES : FEATURES + CLASSES] = torch.eye(CLASSES)
    labels = torch.tensor([2, 0, 1, 1, 0, 2])
    x = torch.randn(6, DIM, generator=generator())
    shown = build(kind, network=show).reconstruct(x, labels, 3, generator())
    assert shown.shape == (6, 3, DIM)
    assert torch.equal(shown.argmax(-1), labels[:, None].expand(6, 3))


def test_samples_come_from_the_features_of_their_class():
    # The encoder takes the first coordinates, the network shows the features it is given.
    encoder, show = nn.Linear(DIM, FEATURES, bias=False), nn.Linear(FEATURES + CLASSES, DIM)
    with torch.no_grad():
        encoder.weight.copy_(torch.eye(FEATURES, DIM))
        show.weight.zero_()
        show.bias.zero_()
        show.weight[:FEATURES, :FEATURES] = torch.eye(FEATURES)
    model = build("mixture", network=show, encoder=encoder, noise=0)
    labels = torch.arange(CLASSES).repeat(50)
    x = 100.0 * labels[:, None] + torch.randn(150, DIM, generator=generator())
    model.remember(x, labels)
    for label in (2, 0, 1):
        drawn = model.sample(400, generator(label), label)[:, :FEATURES]
        rows = x[labels == label, :FEATURES]
        assert (drawn - 100 * label).abs().max() < 10
        # Features get noise of variance 0.1; its own deviation over 400 draws is 0.007.
        assert float(torch.cdist(drawn, rows).min(1).values.square().mean()) < 2 * 0.1 * 1.2


def test_the_vae_draws_features_from_its_prior():
    show = nn.Linear(FEATURES + CLASSES, DIM, bias=False)
    with torch.no_grad():
        show.weight.zero_()
        show.weight[:FEATURES, :FEATURES] = torch.eye(FEATURES)
    model = build("vae", network=show)
    model.remember(50 + torch.randn(30, DIM), torch.zeros(30, dtype=torch.int64))
    drawn = model.sample(4000, generator(), 0)[:, :FEATURES]
    assert drawn.mean(0).abs().max() < 0.08
    assert (drawn.var(0) - 1).abs().max() < 0.12


def test_one_function_trains_it_in_a_loop_of_ones_own():
    model = build("mixture")
    x = torch.randn(200, DIM, generator=generator())
    labels = (x[:, 0] > 0).long()
    x[:, 1] = 4.0 * labels
    cost, adam = ConditionalScalarCost(), torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for step in range(60):
        p, q, _ = model.compare(x, 0.5, 6, generator(step), labels)
        loss = cost(p, q)
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    columns = model.decoder.network.weight[:, FEATURES : FEATURES + CLASSES]
    assert columns[1, 1] > columns[1, 0], "what differs between classes is learned from the code"


@pytest.mark.parametrize("labels", [torch.tensor([0, 3]), torch.tensor([-1, 0]), torch.tensor(7)])
def test_there_is_no_such_class(labels):
    with pytest.raises(InputError, match="labels must lie between 0 and 2"):
        build("mixture").compare(torch.zeros(2, DIM), 0.5, 3, labels=labels)


def test_a_class_that_was_told_is_forgotten():
    model = build("mixture")
    with pytest.raises(InputError, match="features and noise must have 2 and 5 coordinates"):
        tell_wrong_shape(model.decoder)
    with pytest.raises(InputError, match="not told a class"):
        model.decoder(torch.zeros(2, FEATURES), torch.zeros(3, 5))


def tell_wrong_shape(decoder):
    with decoder.told(torch.tensor(0)):
        decoder(torch.zeros(2, FEATURES + 1), torch.zeros(3, 5))


def test_other_decoders_and_unknown_classes_are_refused():
    plain = MixtureDecoder(nn.Linear(FEATURES, DIM), FEATURES, 0, 0.5)
    with pytest.raises(InputError, match="has a MixtureDecoder, which takes no classes"):
        ClassConditional(Autoencoder(nn.Linear(DIM, FEATURES), plain))
    model = build("autoencoder")
    with pytest.raises(InputError, match="no rows of class 1 were remembered"):
        model.sample(3, label=1)
    model.remember(torch.zeros(4, DIM), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(InputError, match="no rows of class 1 were remembered"):
        model.sample(3, label=1)
    with pytest.raises(InputError, match="label must lie between 0 and 2, got 3"):
        model.sample(3, label=3)
    with pytest.raises(InputError, match="label must be a whole number, got 'cat'"):
        model.sample(3, label="cat")
    with pytest.raises(InputError, match="n must be at least 1, got 0"):
        model.sample(0, label=0)
    with pytest.raises(InputError, match="model must have an encoder and a decoder, got a Linear"):
        ClassConditional(nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("classes", "message"),
    [(0, "at least 1, got 0"), (-1, "at least 1, got -1"), (2.5, "a whole number, got 2.5")],
)
def test_classes_are_counted(classes, message):
    with pytest.raises(InputError, match=f"classes must be {message}"):
        ClassDecoder(nn.Linear(6, 4), 1, 2, 0.5, classes=classes)


BAD_LABELS = [
    ([0, 1, 2, 0, 1], r"got a list: give torch.tensor\(labels\)"),
    (torch.zeros(5), r"labels must be whole numbers, got torch.float32.*labels.long\(\)"),
    (torch.ones(5, dtype=torch.bool), "labels must be whole numbers, got torch.bool"),
    (torch.zeros(5, 1, dtype=torch.int64), r"shape \(\) or \(B,\), got \(5, 1\)"),
    (torch.tensor([0, 1, 2, 3, 0]), "between 0 and 2, got 0 to 3"),
]
WRONG_NUMBER = [torch.zeros(n, dtype=torch.int64) for n in (1, 3, 6)]


@pytest.mark.parametrize("use", ["compare", "reconstruct", "remember"])
@pytest.mark.parametrize("kind", MODELS)
def test_labels_that_are_none_are_refused(kind, use):
    model, x = build(kind), torch.zeros(5, DIM)
    call = {
        "compare": lambda labels: model.compare(x, 0.5, 3, labels=labels),
        "reconstruct": lambda labels: model.reconstruct(x, labels, 2),
        "remember": lambda labels: model.remember(x, labels),
    }[use]
    for labels, message in BAD_LABELS:
        with pytest.raises(InputError, match=message):
            call(labels)
    for labels in WRONG_NUMBER:
        with pytest.raises(InputError, match=f"labels .*(got|and) .?{len(labels)}"):
            call(labels)


def test_every_row_to_remember_has_a_label():
    model = build("mixture")
    with pytest.raises(InputError, match=r"\(N, d\) and \(N,\), N above 0; got \(5, 4\) and \(\)"):
        model.remember(torch.zeros(5, DIM), torch.tensor(1))
    with pytest.raises(InputError, match=r"N above 0; got \(0, 4\) and \(0,\)"):
        model.remember(torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_are_of_any_integer_dtype(dtype):
    model, x = build("mixture"), torch.randn(5, DIM, generator=generator())
    labels = torch.tensor([2, 0, 1, 1, 0])
    expected, found = (
        model.compare(x, 0.5, 3, generator(1), given).q.means
        for given in (labels, labels.to(dtype))
    )
    assert torch.equal(expected, found)
    model.remember(x, labels.to(dtype))
    assert torch.equal(
        model.sample(3, generator(), torch.tensor(2, dtype=dtype)), model.sample(3, generator(), 2)
    )


def test_classes_told_within_others_end_before_them():
    decoder = build("mixture").decoder
    y, noise = torch.zeros(2, FEATURES), torch.zeros(3, 5)
    with decoder.told(torch.tensor([0, 1])):
        before = decoder(y, noise).means
        with decoder.told(torch.tensor(2)):
            within = decoder(y, noise).means
        after = decoder(y, noise).means
    assert torch.equal(before, after)
    assert not torch.equal(before, within)


LABELS = torch.tensor([0, 2, 2, 0, 2, 0, 0])


@pytest.mark.parametrize("kind", MODELS)
def test_what_was_remembered_is_part_of_the_state(kind):
    model, other = build(kind), build(kind)
    model.remember(torch.randn(7, DIM, generator=generator()), LABELS)
    drawn = {label: model.sample(4, generator(9), label) for label in (0, 2)}
    state = model.state_dict()
    assert not [name for name in state if name.startswith("decoder.")], "nothing stands twice"
    # Whatever the other has seen: more rows, other classes.
    other.remember(torch.randn(20, DIM, generator=generator(1)), torch.arange(20) % CLASSES)
    for target in (other, build(kind), copy.deepcopy(build(kind)), nn.Sequential(build(kind))[0]):
        target.load_state_dict(state)
        for label, expected in drawn.items():
            assert torch.equal(target.sample(4, generator(9), label), expected)
        with pytest.raises(InputError, match="no rows of class 1 were remembered"):
            target.sample(4, label=1)


def test_a_state_loads_within_a_larger_model():
    model, larger = build("mixture"), nn.ModuleDict({"inner": build("mixture")})
    model.remember(torch.randn(7, DIM, generator=generator()), LABELS)
    larger.load_state_dict({f"inner.{name}": value for name, value in model.state_dict().items()})
    assert torch.equal(larger["inner"].sample(4, generator(), 2), model.sample(4, generator(), 2))


@pytest.mark.parametrize("kind", MODELS)
def test_the_model_keeps_the_features_it_had(kind):
    model = build(kind)
    model.model.remember(torch.randn(3, DIM, generator=generator()))
    before = model.model.training_features
    model.remember(torch.randn(7, DIM, generator=generator(1)), LABELS)
    assert model.model.training_features is before
    model.sample(4, label=2)
    assert model.model.training_features is before
    with pytest.raises(InputError):
        model.sample(4, label=1)
    assert model.model.training_features is before


def test_what_was_remembered_has_the_dtype_of_the_model():
    model = build("mixture")
    model.remember(torch.randn(7, DIM, generator=generator()), LABELS)
    assert model.double().sample(4, label=2).dtype == torch.float64
