"""The tables of README and docs, out of a study whose models are in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from feast_repo.evaluation.questions import NUM_PARAPHRASES
from feast_repo.evaluation.study import (
    FIXED,
    REWORDED,
    RIGHT,
    WITH_ALL_COUNTS,
    WITH_COUNTS,
    WRONG,
    Study,
)
from qanchor_plugin.evaluation.report.tables import Cell, Model, Table, differences, scores

UNTRAINED, SHIPPED = "untrained", "shipped demo"


@dataclass(frozen=True, kw_only=True)
class Engines:
    """Which engines are in the study.

    Attributes:
        seeds: names of the trained engine's seeds; none when nothing was trained.
        shipped: whether the shipped weights are in as a model of their own.
    """

    seeds: tuple[str, ...]
    shipped: bool = False

    def model(self, kind: str) -> Model:
        """The trained engine asked in one way: the mean of its seeds; untrained where there is none."""
        if not self.seeds:
            return replace(self.untrained(kind), name=f"untrained engine, {kind}")
        members = tuple(f"{seed}, {kind}" for seed in self.seeds)
        return Model(name=f"trained engine, {kind}", members=members, trained=True)

    def untrained(self, kind: str) -> Model:
        """The untrained engine asked in one way."""
        return Model(name=f"untrained engine, {kind}", members=(f"{UNTRAINED}, {kind}",))

    def as_shipped(self, kind: str) -> Model:
        """The shipped weights asked in one way."""
        return Model(name=f"shipped weights, {kind}", members=(f"{SHIPPED}, {kind}",))

    def all(self, kind: str) -> list[Model]:
        """Every engine asked in one way."""
        trained = [self.model(kind)] if self.seeds else []
        return [self.untrained(kind), *([self.as_shipped(kind)] if self.shipped else []), *trained]


def readme_tables(study: Study, baselines: Sequence[str], engines: Engines, command: str) -> list[Table]:
    """AUC, KS, differences, queries and seeds, in the order they are shown."""
    rows = [*[Model.one(name) for name in baselines if name not in study.skipped], *engines.all(RIGHT)]
    rows += engines.all(WITH_COUNTS)
    titles = {
        metric: f"{metric.upper()} of a linear probe, behaviour before {study.date}, labels after it"
        for metric in ("auc", "ks")
    }
    made = [
        with_skipped(
            study,
            scores(study.found, rows, name=f"quality-{metric}", title=title, command=command, metric=metric),
        )
        for metric, title in titles.items()
    ]
    return [
        *made,
        _gains(study, baselines, engines, command),
        _queries(study, engines, command),
        _query_gains(study, engines, command),
        *_seeds(study, engines, command),
    ]


def named_for(cut: str, tables: Sequence[Table]) -> list[Table]:
    """Tables of the cut ``final`` keep the names that README and docs show; others say their cut."""
    if cut == "final":
        return list(tables)
    return [replace(table, name=f"{table.name}-{cut}") for table in tables]


def with_skipped(study: Study, table: Table) -> Table:
    """The table with a row for each baseline that was not run, and how to run it."""
    none: tuple[tuple[str, tuple[Cell, ...]], ...] = tuple(
        (name, (why, *[""] * (len(table.columns) - 1))) for name, why in study.skipped.items()
    )
    return replace(table, rows=(*none, *table.rows))


def _gains(study: Study, baselines: Sequence[str], engines: Engines, command: str) -> Table:
    ours, both = engines.model(RIGHT), engines.model(WITH_COUNTS)
    pairs = {
        f"{ours.name} - {name}": (ours, Model.one(name)) for name in baselines if name not in study.skipped
    }
    own = "counts and own category, LR"
    if engines.seeds:
        pairs[f"{ours.name} - untrained"] = (ours, engines.untrained(RIGHT))
    if own in baselines:
        pairs[f"{both.name} - {own}"] = (both, Model.one(own))
    everything = engines.model(WITH_ALL_COUNTS)
    pairs[f"{everything.name} - {ours.name}"] = (everything, ours)
    title = f"AUC gained, paired over the same households, {study.date}"
    return differences(study.found, pairs, name="quality-gains", title=title, command=command)


def _queries(study: Study, engines: Engines, command: str) -> Table:
    kinds = (RIGHT, REWORDED, WRONG, FIXED)
    rows = [model for kind in kinds for model in engines.all(kind)]
    title = (
        f"AUC by what is asked, {study.date}: the scenario's query, {NUM_PARAPHRASES} rewordings (mean), the "
        "next task's query, one query for all"
    )
    return scores(study.found, rows, name="quality-queries", title=title, command=command)


def _query_gains(study: Study, engines: Engines, command: str) -> Table:
    pairs = {
        f"{right.name} - {other.name.rsplit(', ', 1)[1]}": (right, other)
        for kind in (WRONG, FIXED, REWORDED)
        for right, other in zip(engines.all(RIGHT), engines.all(kind), strict=True)
    }
    title = f"AUC gained by the right query, paired, {study.date}"
    return differences(study.found, pairs, name="quality-query-gains", title=title, command=command)


def _seeds(study: Study, engines: Engines, command: str) -> list[Table]:
    if not engines.seeds:
        return []
    rows = [Model(name=name, members=(f"{name}, {RIGHT}",), trained=True) for name in engines.seeds]
    title = f"AUC of each training, {study.date}"
    return [scores(study.found, rows, name="quality-seeds", title=title, command=command)]
