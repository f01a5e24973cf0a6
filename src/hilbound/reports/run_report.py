"""The report of a run: its options, its bound, its samples and its metrics.

Everything is read from the run folder and its data. :mod:`hilbound.reports.page` makes the page,
and :mod:`hilbound.reports.plots` makes the pictures.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hilbound.datasets import Dataset
from hilbound.engine.seeding import stream
from hilbound.engine.spectrum.svd import effective_rank, singular_values
from hilbound.errors import InputError
from hilbound.evaluation.conditions import conditioned
from hilbound.evaluation.evaluate import FEWEST_ROWS, can_measure, evaluate
from hilbound.evaluation.quality import (
    METRICS,
    RECONSTRUCTION,
    MetricInfo,
    format_entry,
    reference_rows,
)
from hilbound.evaluation.telling import Tell, silent
from hilbound.mixture import GaussianMixture
from hilbound.models.base import DensityModel
from hilbound.models.classes import with_encoder
from hilbound.models.latent import LatentMixture
from hilbound.objectives import OBJECTIVES, Objective
from hilbound.reports import plots
from hilbound.reports.condition_report import condition_section
from hilbound.reports.drawing import canvas
from hilbound.reports.feature_report import (
    bound_fact,
    error_fact,
    features_section,
    likelihood_section,
    reconstructions_section,
    tracked_section,
)
from hilbound.reports.glossary import samples_glossary
from hilbound.reports.hover import curve_figure
from hilbound.reports.latent_report import density_section
from hilbound.reports.page import Fact, Figure, Page, Section, Table, render, words_of
from hilbound.reports.sample_sections import samples_section
from hilbound.training.files import write_whole
from hilbound.training.runs import Run
from hilbound.variance import of_component

_SPECTRUM_ROWS = 512
_SHOWN_POINTS = 1000


def write_report(run: Run, output: Path | None = None, *, tell: Tell = silent) -> Path:
    """Write ``report.html`` into the run folder, or to ``output``, and return its path.

    If the run has not been evaluated yet, it is evaluated first.

    Args:
        run: The run.
        output: Another place for the page, such as one that can be written to.
        tell: Called with a few words before each part of the work.
    """
    dataset, model = run.dataset, run.model
    measured = _measured(run, model, tell)
    tell("drawing")
    generator = stream(run.config.seed, "report")
    fake = model.sample(_SHOWN_POINTS, generator).to(dataset.test)
    sections = [
        findings_section(run),
        training_section(run),
        *_feature_sections(run, dataset, model, measured),
        samples_section(run, dataset, model, fake),
        *_condition_sections(run, dataset, model, measured),
        spectrum_section(run, dataset, fake),
        metrics_section(measured) if measured else _too_few_section(dataset),
        configuration_section(run),
    ]
    shown = [section for section in sections if section is not None]
    facts = _facts(run, measured)
    versions = run.read_json("run.json")["versions"]
    page = Page(
        title=_title(run),
        lead=_lead(run, dataset),
        facts=facts,
        sections=(*shown, samples_glossary(words_of(shown, facts))),
        footer="Made by "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + ".",
    )
    target = output or run.path / "report.html"
    try:
        return write_whole(target, render(page))
    except OSError as error:
        raise InputError(
            f"{str(target)!r} cannot be written: {error.strerror}. Name another place (--output)"
        ) from None


def _measured(run: Run, model: DensityModel, tell: Tell) -> dict[str, Any]:
    """Return what was measured, nothing of too few rows.

    What an older version left out is measured now.
    """
    if not can_measure(run.dataset):
        return {}
    if (run.path / "metrics.json").exists():
        measured = run.read_json("metrics.json")
        if "reconstruction" in measured or with_encoder(model) is None:
            return measured
    return evaluate(run, tell=tell)


def _feature_sections(
    run: Run, dataset: Dataset, model: DensityModel, measured: dict[str, Any]
) -> tuple[Section, ...]:
    inner = with_encoder(model)
    if inner is None:
        return ()
    features = [features_section(run, dataset, inner)]
    if isinstance(model, LatentMixture):
        features.append(density_section(run, dataset, model, measured))
    if not measured:
        return tuple(features)
    return (reconstructions_section(run, dataset, inner, measured), *features)


def _condition_sections(
    run: Run, dataset: Dataset, model: DensityModel, measured: dict[str, Any]
) -> tuple[Section, ...]:
    told = conditioned(model)
    return () if told is None else (condition_section(run, dataset, told, measured),)


_NAMES = {
    "encoder-mixture-decoder": "An encoder with a mixture decoder",
    "autoencoder": "An autoencoder",
    "latent-mixture": "A latent mixture",
    "vae": "A variational autoencoder",
}


def _title(run: Run) -> str:
    config = run.config
    model = config.model.replace("-", " ") + ", " if config.model in _NAMES else ""
    return f"{Path(config.data).stem}, {model}{config.objective}"


def _lead(run: Run, dataset: Dataset) -> str:
    status, config = run.read_json("run.json"), run.config
    features = ""
    if config.model in _NAMES:
        inner = with_encoder(run.model)
        count = 0 if inner is None else inner.decoder.feature_dim
        features = f"{count} feature{'s' if count > 1 else ''} and "
    objective = OBJECTIVES.describe(config.objective)
    if config.model == "vae":
        objective = "for this model the evidence lower bound"
    slices = ""
    if config.slices is not None:
        slices = f", by slices of {config.rows_per_slice} rows that share a feature"
    told = {None: "", "classes": " given the class,"}.get(config.condition, " given a cluster,")
    what = (
        f"{_NAMES.get(config.model, 'A ' + config.model.replace('-', ' '))}{told} trained on "
        f"{len(dataset.train):,} rows of {status['data']['name']} with {features}the objective "
        f"“{config.objective}”: {objective}{slices}."
    )
    if status["status"] == "finished":
        return what
    return f"{what} The training was {status['status']} at step {status['step']}."


def _facts(run: Run, measured: dict[str, Any]) -> tuple[Fact, ...]:
    rows = run.read_bounds()
    status = run.read_json("run.json")
    values = measured.get("metrics", {})
    held_out = [row for row in rows if row["split"] == "validation"]
    facts: list[Fact | None] = []
    # Samples that are far from all data reach all of them: their recall is 1, and says nothing.
    far = "far_from_data" in measured
    if far:
        facts.append(Fact("Samples", "far from all data", "the weights are of no use"))
    of_features = "reconstruction" in measured
    facts.append(bound_fact(run, held_out, measured))
    if of_features:
        facts.append(error_fact(measured))
    # Of models with an encoder, the recall of samples stands in the table alone.
    without_recall = of_features and "latent" not in measured
    facts += [
        Fact(
            METRICS[name].title,
            format_entry(name, values[name], "model"),
            f"real data: {format_entry(name, values[name], 'real')}",
        )
        for name in ("coverage", "recall", "precision", "frechet_distance")
        if name in values and not (name == "recall" and (without_recall or far))
    ]
    facts.append(Fact("Kernel variance", variance_text(run), str(run.config.variance)))
    facts.append(Fact("Steps", f"{status['step']:,}", f"of {run.config.batch_size:,} rows"))
    if rows:
        facts.append(Fact("Training time", f"{rows[-1]['seconds']:.0f} s"))
    return tuple(fact for fact in facts if fact is not None)


def variance_text(run: Run) -> str:
    """Return the variance of the kernel as text: a number, or the ends of a schedule."""
    variance = run.read_json("run.json")["variance"]
    ends = (variance["start"], variance["end"])
    return f"{ends[0]:.4g}" if ends[0] == ends[1] else f"{ends[0]:.4g} to {ends[1]:.4g}"


def training_section(run: Run) -> Section | None:
    """Curves of the cost against its limit and of the tightness."""
    rows = run.read_bounds()
    by_split = {
        split: [row for row in rows if row["split"] == split] for split in ("train", "validation")
    }
    if len(by_split["train"]) < 2:
        return None
    objective = OBJECTIVES[run.config.objective]
    if objective.tracked:
        return tracked_section(run, by_split, run.read_json("run.json")["data"]["dim"])
    if run.config.objective == "likelihood" and run.config.model in _NAMES:
        return likelihood_section(run, by_split)
    return Section("Training", "", (_cost_figure(objective, by_split), _tightness_figure(by_split)))


def _cost_figure(
    objective: type[Objective], by_split: Mapping[str, list[dict[str, Any]]]
) -> Figure:
    """Draw the cost and its limit."""
    train, held_out = by_split["train"], by_split["validation"]
    points = ([r["step"] for r in held_out], [objective.readable(r["log_value"]) for r in held_out])
    figure, ax = canvas()
    plots.plot_curve(
        ax,
        [row["step"] for row in train],
        [objective.readable(row["log_value"]) for row in train],
        limit=[objective.readable(row["log_limit"]) for row in train],
        label=objective.cost_name,
        validation=points if held_out else None,
    )
    return curve_figure(
        figure,
        f"{objective.cost_name} against training steps, below its limit",
        f"The cost ({objective.cost_name}) and the limit it cannot pass. The gap is shaded.",
    )


def _tightness_figure(by_split: Mapping[str, list[dict[str, Any]]]) -> Figure:
    """Draw the tightness, and that of real rows if it was measured."""
    held_out = by_split["validation"]
    curves = {
        k: ([r["step"] for r in v], [r["tightness"] for r in v]) for k, v in by_split.items() if v
    }
    caption = "Tightness: the share of its limit that the cost reaches on a batch."
    real = [r["real_tightness"] for r in held_out]
    if held_out and None not in real:
        curves["validation, real rows"] = ([r["step"] for r in held_out], real)
        caption += (
            " Real rows: the share that as many training rows with the same features reach in the "
            "place of the centres."
        )
    figure, ax = canvas()
    plots.plot_tightness(ax, curves)
    return curve_figure(figure, "tightness of the bound against training steps", caption)


def findings_section(run: Run) -> Section | None:
    """The findings of the diagnosis during training, if there are any."""
    findings = run.read_json("run.json").get("findings", [])
    if not findings:
        return None
    said = (f"At step {one['step']:,}: {one['message']}." for one in findings)
    return Section("Diagnosis", "\n\n".join(said))


def spectrum_section(run: Run, dataset: Dataset, fake: Tensor) -> Section:
    """The singular values of the cross Gram matrix, model against real."""
    variance = run.read_json("run.json")["variance"]["end"]
    n = min(_SPECTRUM_ROWS, len(fake), len(dataset.test), len(dataset.train))
    test, real = reference_rows(dataset.test, dataset.train, n, run.config.seed)
    v = of_component(variance)
    p = GaussianMixture(test, v)
    spectra = {
        "model": singular_values(p.log_overlaps(GaussianMixture(fake[:n], v)).exp()),
        "real data": singular_values(p.log_overlaps(GaussianMixture(real, v)).exp()),
    }
    figure, ax = canvas()
    plots.plot_spectrum(ax, spectra)
    ranks = {name: float(effective_rank(values)) for name, values in spectra.items()}
    text = (
        f"Singular values of the cross Gram matrix of {n} held-out points and {n} centres at "
        f"kernel variance {variance:.4g}. Their sum is the fidelity. Diversity shows in the tail. "
        "Effective rank: " + ", ".join(f"{rank:.1f} ({name})" for name, rank in ranks.items()) + "."
    )
    picture = curve_figure(
        figure,
        "singular values in descending order",
        "The spectrum of the model, and that of real data in place of the model's centres.",
    )
    return Section("Spectrum", text, (picture,))


def metrics_section(measured: dict[str, Any]) -> Section:
    """The table of metrics, for the model and for real data."""
    text = (
        f"{measured['samples']:,} samples against as many rows of the "
        f"{measured['split']} split, in the features of {measured['features']}. “Real data” are "
        "training rows, measured in place of the samples."
    )
    if any("model_error" in entry for entry in measured["metrics"].values()):
        text += (
            " So few rows leave much to chance: behind ± stands one standard error, and a "
            "difference within the errors says nothing."
        )
    tables = [_metrics_table(METRICS, measured["metrics"], "Samples against held-out data")]
    if "reconstruction" in measured:
        block = measured["reconstruction"]
        caption = (
            f"{block['reconstructions']} reconstructions of {block['inputs']:,} held-out inputs. "
            "If the features have noise, “real data” are training rows that share the features of "
            "an input. For the validity they are the inputs themselves."
        )
        tables.append(_metrics_table(RECONSTRUCTION, block["metrics"], caption))
    return Section("Metrics", text, (), tuple(tables))


def _too_few_section(dataset: Dataset) -> Section:
    text = (
        f"There are {len(dataset.test)} held-out rows, and {FEWEST_ROWS} are needed to measure "
        "samples: give more data, or a larger --test-fraction."
    )
    return Section("Metrics", text)


def _metrics_table(infos: Mapping[str, MetricInfo], entries: dict[str, Any], caption: str) -> Table:
    rows = tuple(
        (
            infos[name].title,
            format_entry(name, entry, "model"),
            format_entry(name, entry, "real"),
            infos[name].better,
            infos[name].meaning,
        )
        for name, entry in entries.items()
    )
    return Table(("Metric", "Model", "Real data", "Better", "Meaning"), rows, caption)


def configuration_section(run: Run) -> Section:
    """Every option of the run."""
    rows = [
        (name.replace("_", "-"), "–" if value is None else str(value))
        for name, value in run.config.model_dump(mode="json").items()
    ]
    variance = run.read_json("run.json")["variance"]
    text = (
        f"The kernel variance {variance_text(run)} starts with component variance "
        f"{variance['component_start']:.4g}. {_repetition(run)}"
    )
    return Section("Configuration", text, (), (Table(("Option", "Value"), tuple(rows), "Options"),))


def _repetition(run: Run) -> str:
    """Return how to repeat the run: of one that was lengthened, every leg."""
    legs = run.read_json("run.json").get("lengthened", [])
    if not legs:
        return "To repeat the run: hilbound fit --config config.yaml."
    words = [f"fit --config config.yaml --steps {legs[0]['from']}, stopped at {legs[0]['at']}"]
    for leg, after in zip(legs, [*legs[1:], None], strict=True):
        end = "" if after is None else f", stopped at {after['at']}"
        words.append(f"fit --resume RUN --steps {leg['to']}{end}")
    return (
        "The number of steps was changed on the way, so that config.yaml alone does not repeat the "
        "run. It was trained by hilbound " + "; then ".join(words) + "."
    )
