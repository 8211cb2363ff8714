"""The evaluation's steps in order: models in, tables and pictures out."""

import argparse
from collections.abc import Callable
from pathlib import Path

from feast_repo.evaluation import full, pictures
from feast_repo.evaluation.results import keep_tables
from feast_repo.evaluation.study import Study
from feast_repo.evaluation.tables import SHIPPED, UNTRAINED, Engines, readme_tables
from feast_repo.evaluation.training import Trainings
from feast_repo.evaluation.tuned import Tuning
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.evaluation.report.page import Picture, write_report
from qanchor_plugin.evaluation.report.tables import Table
from qanchor_plugin.evaluation.tasks import FINAL_CUT, SELECTION_CUT
from qanchor_plugin.training.tuning import TunePlan

PRESET = "demo"


def evaluate(root: Path, options: argparse.Namespace, say: Callable[[str], None]) -> list[Table]:
    """Tables and pictures stand in results/, docs/pictures/ and build/evaluation/report.html.

    Raises:
        QAnchorError: a step could not be done.
    """
    cut = FINAL_CUT if options.cut == "final" else SELECTION_CUT
    work = root / "build" / "evaluation"
    study = Study(root=root, work=work, cut=cut, num_households=options.households, say=say)
    trainings = Trainings(root=root, cut=cut, say=say)
    command = f"make evaluate CUT={options.cut}"
    baselines = study.add_baselines(texts=not options.no_texts)
    folders, vectors = _add_engines(study, trainings, options.seeds)
    seeds = tuple(f"trained, seed {seed}" for seed in options.seeds)
    tables = readme_tables(study, baselines, Engines(seeds=seeds, shipped=SHIPPED in vectors), command)
    shown = seeds[0] if seeds else UNTRAINED
    tuning = None
    if options.tuned:
        tuning = Tuning(study=study, name=shown, engine=folders[shown], plan=TunePlan())
        tables += full.tuned_tables(
            study,
            [
                full.add_tuned(study, one, folders[one], full.right_of(vectors[one]), TunePlan())
                for one in ([shown] if not options.full else seeds or [shown])
            ],
            f"{command} {'FULL' if options.full else 'TUNED'}=1",
        )
    if options.full:
        tables += _full(root, options, say)
    folder = root / "docs" / "pictures" if options.households is None else work / "pictures"
    drawn = _pictures(study, tables, vectors, shown, tuning, folder)
    if options.households is None:
        keep_tables(tables)
    notes = [
        f"Complete Journey sample, {len(study.tasks.households):,} households, behaviour before "
        f"{study.date}, labels after it. Vectors were read through get_historical_features.",
        *[f"{name}: {why}" for name, why in study.skipped.items()],
    ]
    page = write_report(
        work / "report.html", "Evaluation of qanchor", notes=notes, tables=tables, pictures=drawn
    )
    say(f"report: {page.relative_to(root)}")
    return tables


def _add_engines(
    study: Study, trainings: Trainings, seeds: list[int]
) -> tuple[dict[str, str], dict[str, pictures.Vectors]]:
    """Folder and vectors of every engine by name; the shipped preset only where it is another one."""
    folders = {UNTRAINED: str(trainings.untrained())}
    loaded = {
        name: QueryAnchorEngine.load(name, device="cpu").digest for name in (PRESET, folders[UNTRAINED])
    }
    if loaded[PRESET] == loaded[folders[UNTRAINED]]:
        study.say("the shipped preset 'demo' is the untrained engine: it has no rows of its own")
    else:
        folders[SHIPPED] = PRESET
    for seed in seeds:
        folders[f"trained, seed {seed}"] = str(trainings.train_engine(seed))
    return folders, {name: study.add_engine(name, folder) for name, folder in folders.items()}


def _full(
    root: Path,
    options: argparse.Namespace,
    say: Callable[[str], None],
) -> list[Table]:
    """The expensive tables, always at the selection cut."""
    command = "make evaluate FULL=1"
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
    tables = full.ablation_tables(study, trainings, seeds, command)
    tables += full.scaling_tables(study, trainings, seeds, command)
    engine = str(trainings.train_engine(seeds[0]))
    name = f"trained, seed {seeds[0]}"
    own = full.right_of(study.add_engine(name, engine, right_only=True))
    folder = str(trainings.untrained())
    untrained = full.right_of(study.add_engine(UNTRAINED, folder, right_only=True))
    return [*tables, *full.prompt_tables(swept, name, engine, own, (folder, untrained), command)]


def _pictures(
    study: Study,
    tables: list[Table],
    vectors: dict[str, pictures.Vectors],
    shown: str,
    tuning: Tuning | None,
    folder: Path,
) -> list[Picture]:
    """Bars and scaling curves; maps and attention only with a tuning, which is half of what they show."""
    study.say("drawing")
    drawn = [pictures.bars_picture(tables[0], folder)]
    if tuning is not None:
        panels = {"untrained": vectors[UNTRAINED]} if shown != UNTRAINED else {}
        panels |= {"before tuning": vectors[shown], "after tuning": pictures.tuned_vectors(tuning)}
        drawn += pictures.attention_pictures(tuning, folder)
        drawn += pictures.map_pictures(study, panels, folder)
    return drawn + pictures.scaling_pictures({table.name: table for table in tables}, folder)
