"""``qanchor evaluate``: what a linear probe reads from scenarios' embeddings, on labels of your own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.output import err, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, Repo, RepoOption, opened, unknown
from qanchor_plugin.declare import Profile, Scenario
from qanchor_plugin.errors import DeclarationError, InputDataError

if TYPE_CHECKING:
    import pandas as pd

    from qanchor_plugin.evaluation.comparison import Comparison
    from qanchor_plugin.evaluation.labelled import Labelled

EXAMPLES = (
    "Examples:  qanchor evaluate pet_owner --labels labels.csv --label-column bought_pet_food  ·  "
    "qanchor evaluate churn_risk coupon_redeemer --labels labels.parquet --label-column left --against "
    "untrained --report churn.html"
)
ACTIVITY = "activity alone"
"""The baseline: how many events a user has, and how long ago the newest is."""
AGAINST = ("untrained",)
SCENARIO_FIELDS = ("embedding", "num_events", "as_of")


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was found.

    Attributes:
        found: the models: one a scenario, ``activity alone``, and ``NAME, untrained``.
        scenarios: names.
        label: the label's column.
        num_labels, num_positive: rows that were judged, and those of the positive class.
        num_skipped: rows that were left out because nothing stood before their instant.
    """

    found: "Comparison"
    scenarios: tuple[str, ...]
    label: str
    num_labels: int
    num_positive: int
    num_skipped: int

    def rows(self) -> list[dict[str, Any]]:
        """A row a model: AUC, KS and the AUC's paired difference to activity alone, with standard errors."""
        return [self._row(name) for name in self.found.models]

    def _row(self, name: str) -> dict[str, Any]:
        auc, ks = (self.found.estimate(name, metric=metric) for metric in ("auc", "ks"))
        gain = self.found.difference(name, ACTIVITY)
        row = {"model": name, "auc": auc.value, "auc_standard_error": auc.standard_error}
        row |= {"ks": ks.value, "ks_standard_error": ks.standard_error}
        row |= {"gain": gain.value, "gain_standard_error": gain.standard_error}
        counts = {
            "num_users": auc.num_users,
            "num_labels": self.num_labels,
            "num_positive": self.num_positive,
        }
        return row | counts


def evaluate(
    scenario: Annotated[list[str], typer.Argument(help="Registered scenarios.")],
    labels: Annotated[
        Path, typer.Option("--labels", metavar="FILE", help="A row a user and instant: .csv or .parquet.")
    ],
    label_column: Annotated[str, typer.Option("--label-column", help="Column of 0 and 1.")],
    at_column: Annotated[
        str, typer.Option("--at-column", help="Column of the instant that the embedding may look up to.")
    ] = "event_timestamp",
    folds: Annotated[int, typer.Option("--folds", min=2, max=20, help="Of each of three repeats.")] = 5,
    against: Annotated[
        str | None, typer.Option("--against", help="'untrained': the same engine with fresh weights, too.")
    ] = None,
    skip_empty: Annotated[
        bool, typer.Option("--skip-empty", help="Leave out labels before any behaviour.")
    ] = False,
    report: Annotated[
        Path | None, typer.Option("--report", metavar="FILE.html", help="Write a page.")
    ] = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure scenarios on your labels: AUC and KS of a linear probe, with standard errors."""
    if against is not None and against not in AGAINST:
        raise InputDataError(f"--against {against!r}: accepted is {AGAINST[0]!r}.")
    if report is not None and report.suffix != ".html":
        raise InputDataError(f"--report {str(report)!r}: the name must end in .html.")
    page = None if report is None else report.resolve()
    file = labels.resolve()
    with noise_to_stderr():
        done = measured(
            list(dict.fromkeys(scenario)),
            file,
            label_column,
            at_column=at_column,
            num_folds=folds,
            untrained=against is not None,
            skip_empty=skip_empty,
            repo=repo,
        )
        if page is not None:
            _write(done, page, labels)
    if as_json:
        print_json({"label": done.label, "num_skipped": done.num_skipped, "models": done.rows()})
    else:
        _print(done, page)


def measured(
    scenarios: Sequence[str],
    file: Path,
    label: str,
    *,
    at_column: str,
    num_folds: int,
    untrained: bool,
    skip_empty: bool,
    repo: Path | None,
) -> Evaluated:
    """The scenarios' embeddings as of each label's instant, probed.

    Raises:
        QAnchorError: no repo or registry, an unknown scenario, labels that cannot be used, or a lake that
            does not hold their users' behaviour.
    """
    from qanchor_plugin.evaluation.comparison import Comparison
    from qanchor_plugin.evaluation.labelled import checked_labels, read_labels

    with opened(repo) as here:
        declared = here.declarations()
        chosen = [_known(declared.scenarios, name) for name in scenarios]
        profile = _one_profile([declared.profile_of(one) for one in chosen])
        keys = [(one.join_key, one.value_type) for one in profile.entities]
        given = checked_labels(read_labels(file), keys=keys, label=label, at=at_column, num_folds=num_folds)
        answered, kept = _read(here, scenarios, given, skip_empty=skip_empty, num_folds=num_folds)
        comparison = Comparison({label: kept.labels}, users=kept.users, num_folds=num_folds)
        _add(comparison, answered, kept, scenarios)
        if untrained:
            _add_untrained(here, comparison, kept, chosen, profile)
    return Evaluated(
        found=comparison,
        scenarios=tuple(scenarios),
        label=label,
        num_labels=len(kept.labels),
        num_positive=int(kept.labels.sum()),
        num_skipped=len(given.labels) - len(kept.labels),
    )


def _known(scenarios: Mapping[str, Scenario], name: str) -> Scenario:
    if name not in scenarios:
        raise DeclarationError(unknown("scenario", name, list(scenarios)))
    return scenarios[name]


def _one_profile(profiles: Sequence[Profile]) -> Profile:
    names = sorted({one.name for one in profiles})
    if len(names) > 1:
        raise InputDataError(
            f"the scenarios are of the profiles {names}; labels belong to users of one. Evaluate one "
            "profile's scenarios at a time."
        )
    return profiles[0]


def _read(
    here: Repo, scenarios: Sequence[str], given: "Labelled", *, skip_empty: bool, num_folds: int
) -> "tuple[pd.DataFrame, Labelled]":
    """The answer's rows and the labels, without those before any behaviour when they are to be skipped."""
    from feast import FeatureStore

    from qanchor_plugin.evaluation.labelled import Labelled, check_behaviour, check_classes

    store = FeatureStore(config=here.config)
    fields = [f"{name}:{field}" for name in scenarios for field in SCENARIO_FIELDS]
    job = store.get_historical_features(entity_df=given.rows, features=fields, full_feature_names=True)
    found = job.to_df()
    events = found[f"{scenarios[0]}__num_events"]
    if not skip_empty:
        check_behaviour(given.rows, events, scenarios[0])
        return found, given
    seen = (events.fillna(0) > 0).to_numpy()
    kept = Labelled(rows=given.rows[seen].reset_index(drop=True), labels=given.labels[seen])
    check_classes(kept, num_folds)
    return found[seen].reset_index(drop=True), kept


def _add(
    comparison: "Comparison", answered: "pd.DataFrame", given: "Labelled", scenarios: Sequence[str]
) -> None:
    import numpy as np

    from qanchor_plugin.feast_ext.evaluation_store import embeddings_of

    at = given.rows["event_timestamp"]
    newest = answered[f"{scenarios[0]}__as_of"]
    days = (at - newest.astype("datetime64[us, UTC]")).dt.total_seconds().to_numpy() / 86_400
    events = answered[f"{scenarios[0]}__num_events"].to_numpy(np.float64)
    comparison.add(ACTIVITY, np.column_stack([np.log1p(events), np.log1p(np.maximum(days, 0.0))]))
    vectors = embeddings_of(answered, given.rows, scenarios)
    for place, name in enumerate(scenarios):
        comparison.add(name, vectors[:, place])


def _add_untrained(
    here: Repo,
    comparison: "Comparison",
    given: "Labelled",
    scenarios: Sequence[Scenario],
    profile: Profile,
) -> None:
    """The same questions to the first scenario's engine with its weights drawn anew, in a store beside."""
    import tempfile

    from qanchor_plugin.engine import QueryAnchorEngine
    from qanchor_plugin.feast_ext.evaluation_store import evaluation_store, read_embeddings

    engine = QueryAnchorEngine.load(scenarios[0].engine or here.settings.engine, device="cpu")
    if engine.config.backbone != "meaning":
        raise InputDataError(
            f"--against untrained: engine {engine.config.name!r} is a language model, which has no "
            "untrained form here. Leave --against out."
        )
    questions = {one.name: one.query for one in scenarios}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "engine"
        QueryAnchorEngine.untrained(engine.config, device="cpu").save_pretrained(folder)
        store = evaluation_store(
            Path(scratch) / "store", here.settings, profile, questions, engine=str(folder)
        )
        vectors = read_embeddings(store, given.rows, list(questions))
    for place, name in enumerate(questions):
        comparison.add(f"{name}, untrained", vectors[:, place])


def _print(done: Evaluated, page: Path | None) -> None:
    from rich.table import Table

    console, rows = out(), done.rows()
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "AUC", "KS", f"AUC over {ACTIVITY}"):
        table.add_column(heading, justify="left" if heading == "model" else "right", no_wrap=True)
    for row in rows:
        cells = [f"{row[one]:.3f} ± {row[f'{one}_standard_error']:.3f}" for one in ("auc", "ks")]
        gain = f"{row['gain']:+.3f} ± {row['gain_standard_error']:.3f}"
        table.add_row(row["model"], *cells, "" if row["model"] == ACTIVITY else gain)
    console.print(table)
    console.print(
        f"label {done.label!r}: n = {_told(done)}, {done.num_positive:,} positive; ± is one "
        "standard error over bootstrapped users, differences are paired",
        soft_wrap=True,
    )
    if done.num_skipped:
        err().print(f"left out {done.num_skipped:,} labels before any behaviour of their user")
    if page is not None:
        console.print(f"wrote {page}", soft_wrap=True)


def _told(done: Evaluated) -> str:
    """How many were judged: users, and their labels where one has several."""
    users = done.found.num_users
    return f"{users:,}" if users == done.num_labels else f"{done.num_labels:,} labels of {users:,} users"


def _write(done: Evaluated, page: Path, labels: Path) -> None:
    from qanchor_plugin.evaluation.report.page import write_report
    from qanchor_plugin.evaluation.report.tables import Model, differences, scores

    names = " ".join(done.scenarios)
    command = f"qanchor evaluate {names} --labels {labels} --label-column {done.label}"
    models = [Model.one(name) for name in done.found.models]
    tables = [
        scores(done.found, models, name=metric, title=metric.upper(), command=command, metric=metric)
        for metric in ("auc", "ks")
    ]
    pairs = {f"{one.name} - {ACTIVITY}": (one, models[0]) for one in models[1:]}
    tables.append(differences(done.found, pairs, name="gain", title="AUC gained, paired", command=command))
    notes = [f"Label {done.label!r}: {done.num_positive:,} positive; {done.num_skipped:,} labels left out."]
    write_report(page, f"Evaluation of {names}", notes=notes, tables=tables)
