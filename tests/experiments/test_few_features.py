"""Few features: which trainings there are, and when a lead counts."""

from hilbound.experiments.few_features import (
    EXPERIMENT,
    MIXTURE,
    MODELS,
    PLAIN,
    SLICES,
    FewSettings,
    leads,
)

SETTINGS = FewSettings(numbers=(1, 2, 8, 16))


def rows_with(lead, leading=MIXTURE):
    """Rows in which a mixture decoder leads by some coverage at each number of features."""
    return [
        {
            "model": model,
            "features": number,
            "seed": seed,
            "coverage": 0.3 + 0.001 * seed + (lead[number] if model == leading else 0),
            "recall": 0.4,
        }
        for number in SETTINGS.numbers
        for model in MODELS
        for seed in range(2)
    ]


def verdicts(lead):
    """The verdicts of either decoder; those of the other one, without a lead, all fail."""
    by_slices = [c.holds for c in EXPERIMENT.claims(SETTINGS, rows_with(lead, SLICES))]
    together = [c.holds for c in EXPERIMENT.claims(SETTINGS, rows_with(lead))]
    assert by_slices[4:] == together[:4] == [False] * 4
    assert by_slices[:4] == together[4:]
    return together[4:]


def test_a_lead_that_shrinks_holds():
    assert verdicts({1: 0.3, 2: 0.2, 8: 0.05, 16: -0.1}) == [True] * 4


def test_a_lead_at_all_numbers_is_no_lead_of_few_features():
    assert verdicts({1: 0.3, 2: 0.3, 8: 0.3, 16: 0.3}) == [True, True, False, True]


def test_less_of_a_lag_is_no_lead():
    assert verdicts({1: -0.1, 2: -0.1, 8: -0.3, 16: -0.3}) == [False, False, False, False]


def test_leads_are_taken_within_a_seed():
    rows = rows_with({1: 0.25, 2: 0, 8: 0, 16: 0})
    assert [round(value, 6) for value in leads(rows, MIXTURE, 1)] == [0.25, 0.25]


def test_all_models_share_the_training():
    first = list(EXPERIMENT.cells(FewSettings(), [0, 1, 2], []))
    assert len(first) == 5 * (len(MODELS) - 1) * 3
    plain = [{"model": PLAIN, "features": n, "seed": s} for n in (1, 2) for s in (0, 1, 2)]
    # By slices there are as many as there are encoders.
    assert len(list(EXPERIMENT.cells(FewSettings(), [0, 1, 2], plain))) == len(first) + 6
    own = [set(MODELS[name]) for name in (MIXTURE, PLAIN)]
    assert not {"width", "steps", "batch_size", "learning_rate"} & set.union(*own)
