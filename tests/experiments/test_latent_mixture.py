"""The latent-mixture experiment: which trainings it asks for, and how it judges rows."""

from hilbound.experiments.latent_mixture.experiment import EXPERIMENT
from hilbound.experiments.latent_mixture.settings import OWN, LatentSettings

SETTINGS = LatentSettings()
GOOD = {
    "coverage": 0.945,
    "recall": 0.93,
    "precision": 0.96,
    "frechet_distance": 5.0,
    "vendi_score": 4.0,
    "novelty": 0.96,
    "parzen": 345.0,
}
REAL = GOOD | {"coverage": 0.95, "recall": 0.96, "parzen": 243.0, "novelty": 0.0}
OF_DENSITY = {
    "components": 500,
    "trace_tightness": 0.97,
    "feature_tightness": 0.99,
    "real_feature_tightness": 0.98,
    "feature_log_value": -90.0,
    "feature_log_limit": -89.0,
    "feature_variance": 9.0,
    "log_likelihood": 800.0,
    "log_likelihood_error": 12.0,
    "error_of_draws": 0.1,
    "fewest_effective_draws": 3.0,
    "output_variance": 0.004,
}


def row(method, seed=0, **values):
    found = {"cell": f"{method}-{seed}", "method": method, "seed": seed, "steps": 4000}
    found |= {"training_seconds": 250.0, **GOOD}
    if method == OWN:
        found |= OF_DENSITY | {f"reconstructed_{name}": value for name, value in GOOD.items()}
    return found | values


def rows(peer=None, **own):
    worse = {"coverage": 0.9, "recall": 0.9, "precision": 0.9, "novelty": 0.5}
    worse |= {"frechet_distance": 9.0} | (peer or {})
    return [
        {"cell": "real-0", "method": "real", "seed": 0, **REAL},
        *(row(OWN, seed, **own) for seed in (0, 1)),
        *(row(peer, seed, **worse) for peer in SETTINGS.peers for seed in (0, 1)),
    ]


def verdicts(some):
    """Four goals, Fréchet, time, two peers, tightness in the features, Parzen."""
    return [claim.holds for claim in EXPERIMENT.claims(SETTINGS, some)]


def test_the_floor_comes_first_and_peers_get_the_time_of_the_latent_mixture():
    first = list(EXPERIMENT.cells(SETTINGS, [0, 1], []))
    assert [cell.name for cell in first] == ["real-0", "latent-mixture-0", "latent-mixture-1"]
    then = list(EXPERIMENT.cells(SETTINGS, [0, 1], [row(OWN, 1, training_seconds=123.4)]))
    assert {cell.name: cell.options["seconds"] for cell in then[3:]} == {
        "autoencoder-1": 123,
        "vae-1": 123,
    }


def test_every_goal_holds_or_fails_by_its_own_figure():
    assert verdicts(rows()) == [True] * 10
    for at, change in enumerate(
        (
            {"coverage": 0.93},
            {"precision": 0.94},
            {"recall": 0.91},
            {"novelty": 0.94},
            {"frechet_distance": 7.1},
            {"training_seconds": 1201.0},
        )
    ):
        assert [i for i, holds in enumerate(verdicts(rows(**change))) if not holds] == [at]
    assert [i for i, holds in enumerate(verdicts(rows(feature_tightness=0.97))) if not holds] == [8]
    assert [i for i, holds in enumerate(verdicts(rows(parzen=339.0))) if not holds] == [9]


def test_a_peer_that_is_ahead_in_one_thing_is_named():
    claims = EXPERIMENT.claims(SETTINGS, rows({"recall": 0.95}))
    (of_vae,) = [claim for claim in claims if "ahead of the vae" in claim.claim]
    assert of_vae.holds is False
    assert of_vae.reason == "It is not ahead in Recall."


def test_what_is_missed_is_split_between_decoder_and_density():
    claims = EXPERIMENT.claims(SETTINGS, rows(recall=0.91))
    (of_recall,) = [claim for claim in claims if claim.claim.startswith("Recall")]
    assert "the decoder loses 0.030, the density of features 0.020" in of_recall.reason


def test_the_tables_have_a_line_for_every_method():
    quality, bounds = EXPERIMENT.tables(SETTINGS, rows())
    assert [line[0] for line in quality.rows] == [
        "training rows",
        "their reconstructions",
        OWN,
        *SETTINGS.peers,
    ]
    assert len(bounds.rows) == 2
