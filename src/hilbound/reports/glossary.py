"""The words of a report that a reader may not know, each in a sentence or two."""

from collections.abc import Iterable

from hilbound.reports.page import Section, Table

_OF_SAMPLES = {
    "Bound": "A cost together with the limit that it cannot pass, whatever the model.",
    "Tightness": (
        "The share of its limit that a bound reaches on a batch. It is relative to the kernel: "
        "to a wide one even a blur is tight, and to a narrow one not even real data are."
    ),
    "Gap": "The distance from the cost to its limit, as a difference of logarithms, in nats.",
    "Kernel variance": (
        "The variance of the Gaussian between a data point and a centre: how far apart two "
        "points may lie and still count as alike. It is a variance, never a standard deviation."
    ),
    "Centre": "A point that the network makes from noise. Samples are centres.",
    "Real data": (
        "Training rows, measured in the place of the samples: the best that a model can be "
        "expected to reach without copying."
    ),
    "One point": "The mean of the training rows, in the place of all centres: what a blur reaches.",
    "±": "One standard error, from leaving out each tenth of the rows in turn.",
    "Precision": "Share of the samples that lie among real data. Stray samples lower it.",
    "Recall": "Share of the real data that lie among samples. What is never drawn lowers it.",
    "Density": "Like precision, but counts how many real neighbourhoods a sample lies in.",
    "Coverage": "Share of the real points that have a sample in their neighbourhood.",
    "Fréchet distance": (
        "Distance of two Gaussians, one fitted to real data and one to samples. Comparable only "
        "with runs on the same data."
    ),
    "Vendi score": "How many really different samples there are, in effect.",
    "Sliced Wasserstein": "How far samples must be moved to become the data, along lines.",
    "Squared MMD": "Squared maximum mean discrepancy: zero if both have one density.",
    "Squared cosine": "How alike the smoothed densities of data and samples are: 1 if equal.",
    "Fidelity": "The nuclear norm of the matrix of overlaps: 1 if both sets of points agree.",
    "Effective rank": "How many different points the kernel can tell apart in a set.",
    "Nat": "A unit of logarithms: one nat is a factor of 2.718.",
}
_OF_TARGETS = {
    "Log score": (
        "The mean logarithm of the density that was predicted for the value that came. Higher is "
        "better, and only scores of one target in one unit can be compared."
    ),
    "CRPS": (
        "Continuous ranked probability score: the error of a whole predicted distribution, in the "
        "target's unit. For a single number it is the absolute error."
    ),
    "RMSE": "Root of the mean squared error of the predicted means.",
    "Interval": "A 90 % interval is meant to hold the value that comes in 90 % of the rows.",
    "PIT": (
        "Probability integral transform: the predicted probability of a value below the one that "
        "came. Over many rows it is spread evenly if predictions can be trusted."
    ),
    "Quantile": "The 5 % quantile is the value below which 5 % of what may come is expected.",
    "Histogram": "Here: a prediction by the training targets alone, the same for every row.",
    "Nat": "A unit of logarithms: one nat is a factor of 2.718.",
}


def _section(words: dict[str, str], used: Iterable[str]) -> Section:
    rows = tuple((word, words[word]) for word in used)
    table = Table(("Word", "Meaning"), rows, "Words of this page")
    return Section("Glossary", "", (), (table,))


def samples_glossary(text: str) -> Section:
    """Return the glossary of a run that draws samples.

    Args:
        text: All words of the page. A word that does not come is not explained.
    """
    lowered = text.lower()
    return _section(_OF_SAMPLES, [word for word in _OF_SAMPLES if word.lower() in lowered])


def comparison_glossary(text: str) -> Section:
    """Return the glossary of a comparison, in which ± has another meaning.

    Args:
        text: All words of the page. A word that does not come is not explained.
    """
    words = _OF_SAMPLES | _OF_TARGETS | {"±": "One standard deviation over seeds."}
    lowered = text.lower()
    return _section(words, [word for word in words if word.lower() in lowered])


def targets_glossary() -> Section:
    """Return the glossary of a run on a table's target."""
    return _section(_OF_TARGETS, _OF_TARGETS)
