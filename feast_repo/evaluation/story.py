"""The evaluation's steps in order: models in, tables and pictures out."""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.results import as_run
from feast_repo.evaluation import full, pictures
from feast_repo.evaluation.results import keep_tables
from feast_repo.evaluation.study import Study
from feast_repo.evaluation.tables import SHIPPED, UNTRAINED, Engines, named_for, readme_tables
from feast_repo.evaluation.training import Trainings
from feast_repo.evaluation.tuned import Tuning
from qanchor_plugin.evaluation.report.page import Picture, write_report
from qanchor_plugin.evaluation.report.tables import Table
from qanchor_plugin.evaluation.tasks import FINAL_CUT, SELECTION_CUT
from qanchor_plugin.training.tuning import TunePlan

PRESET = "demo"


def evaluate(root: Path, options: argparse.Namespace, say: Callable[[str], None]) -> list[Table]:
    """Tables and pictures stand in results/, docs/pictures/ and build/evaluation/report.html.

    Of the selection cut the tables have names of their own, and the pictures, but for the curves of scaling,
    stand in build/evaluation/pictures: README and docs show the final cut. Nothing of fewer households is
    kept.

    Raises:
        QAnchorError: a step could not be done.
    """
    cut = FINAL_CUT if options.cut == "final" else SELECTION_CUT
    work = root / "build" / "evaluation"
    study = Study(root=root, work=work, cut=cut, num_households=options.households, say=say)
    trainings = Trainings(root=root, cut=cut, say=say)
    command = as_run("python -m feast_repo.evaluation")
    baselines = study.add_baselines(texts=not options.no_texts, coles=not options.no_coles)
    folders, vectors = _add_engines(study, trainings, options.seeds)
    seeds = tuple(f"trained, seed {seed}" for seed in options.seeds)
    tables = readme_tables(study, baselines, Engines(seeds=seeds, shipped=SHIPPED in vectors), command)
    shown = seeds[0] if seeds else UNTRAINED
    tuning = None
    if options.tuned:
        tuning = Tuning(study=study, name=shown, engine=folders[shown], plan=TunePlan())
        judged = (seeds if options.full else ()) or (shown,)
        pairs = [
            full.add_tuned(study, one, folders[one], full.right_of(vectors[one]), TunePlan())
            for one in judged
        ]
        tables += full.tuned_tables(study, pairs, command)
    is_shown = options.households is None
    own, docs = work / "pictures", root / "docs" / "pictures"
    folder = docs if is_shown and options.cut == "final" else own
    drawn = _pictures(study, tables, vectors, shown, tuning, folder)
    tables = named_for(options.cut, tables)
    if is_shown:
        keep_tables(tables)
    for more in _full(root, options, command, say) if options.full else ():
        tables += more
        drawn += pictures.scaling_pictures({one.name: one for one in more}, docs if is_shown else own)
        if is_shown:
            keep_tables(more)
    page = write_report(
        work / "report.html", "Evaluation of qanchor", notes=_notes(study), tables=tables, pictures=drawn
    )
    say(f"report: {page.relative_to(root)}")
    return tables


def _notes(study: Study) -> list[str]:
    """What a reader of the report must know first."""
    return [
        f"Complete Journey sample, {len(study.tasks.households):,} households, behaviour before "
        f"{study.date}, labels after it. Vectors were read through get_historical_features.",
        *[f"{name}: {why}" for name, why in study.skipped.items()],
    ]


def _add_engines(
    study: Study, trainings: Trainings, seeds: list[int]
) -> tuple[dict[str, str], dict[str, pictures.Vectors]]:
    """Folder and vectors of every engine by name.

    The shipped weights learnt from behaviour up to the final cut: of an earlier one they would know what
    comes after.
    """
    folders = {UNTRAINED: str(trainings.untrained())}
    if study.cut == FINAL_CUT:
        folders[SHIPPED] = PRESET
    trained = {f"trained, seed {seed}": str(trainings.train_engine(seed)) for seed in seeds}
    folders |= trained
    shown = trained or (UNTRAINED,)
    vectors = {
        name: study.add_engine(name, folder, all_counts=name in shown) for name, folder in folders.items()
    }
    return folders, vectors


def _full(
    root: Path,
    options: argparse.Namespace,
    command: str,
    say: Callable[[str], None],
) -> Iterator[list[Table]]:
    """The expensive tables, always at the selection cut, as they are ready."""
    study, swept = (
        Study(
            root=root,
            work=root / "build" / "evaluation",
            cut=SELECTION_CUT,
            num_households=options.households,
            only=only,
            say=say,
        )
        for only in (None, full.SWEPT)
    )
    trainings = Trainings(root=root, cut=SELECTION_CUT, say=say)
    seeds = options.seeds or [0]
    yield full.ablation_tables(study, trainings, seeds, command)
    yield full.scaling_tables(study, trainings, seeds, command)
    engine = str(trainings.train_engine(seeds[0]))
    name = f"trained, seed {seeds[0]}"
    own = full.right_of(study.add_engine(name, engine, right_only=True))
    folder = str(trainings.untrained())
    untrained = full.right_of(study.add_engine(UNTRAINED, folder, right_only=True))
    yield full.prompt_tables(swept, name, engine, own, (folder, untrained), command)


def _pictures(
    study: Study,
    tables: list[Table],
    vectors: dict[str, pictures.Vectors],
    shown: str,
    tuning: Tuning | None,
    folder: Path,
) -> list[Picture]:
    """Bars; maps and attention only with a tuning, which is half of what they show."""
    study.say("drawing")
    drawn = [pictures.bars_picture(tables[0], folder)]
    if tuning is not None:
        panels = {"untrained": vectors[UNTRAINED]} if shown != UNTRAINED else {}
        panels |= {"before tuning": vectors[shown], "after tuning": pictures.tuned_vectors(tuning)}
        drawn += pictures.attention_pictures(tuning, folder)
        drawn += pictures.map_pictures(study, panels, folder)
    return drawn
