"""The five parts of the world's figures; each makes its own rows, and says how long it took."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.results import Row
from benchmarks.world import margin, plots
from benchmarks.world.data import Judged, judged, siblings
from benchmarks.world.declarations import ASKED, FIXED, QUERIES, Place
from benchmarks.world.embed import embed_directly, embed_through_feast, largest_difference
from benchmarks.world.figures import WorldFigures, seconds_row
from benchmarks.world.training import trained, untrained
from benchmarks.world.tuned import PLAIN, TUNED, Tuner, named
from benchmarks.world.variants import ABLATIONS, BASE, SHARES, STEP_SHARES, UNTRAINED, Variant, scaling, steps
from qanchor_plugin.training.own_space import KEPT

COUNTS, THINGS = "counts, LR", "counts and things, LR"
TOLD = "counts and true interests, LR"
FITTED = "untrained, space of behaviour"
WRONG, SAME, BESIDE = "trained, wrong query", "trained, one query for all", "trained and counts"
TRUTH = "true propensities"
FEAST_CHECKED_USERS = 200
TOLERANCE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a run was asked for.

    Attributes:
        place: the world.
        num_steps: of every training but the step curve's.
        seeds: of the base's training; ablations and curves use the first.
        num_subset: users that ablations, curves and the margin are judged on.
        pictures: folder of the PNG files.
        say: told what is being done.
    """

    place: Place
    num_steps: int
    seeds: Sequence[int]
    num_subset: int
    pictures: Path
    say: Callable[[str], None] = print

    def subset(self) -> Judged:
        """The first ``num_subset`` users; users are drawn alike, so the first are as good as any."""
        people = judged(self.place)
        return people.take(np.arange(min(self.num_subset, len(people.users))))

    def trained(self, variant: Variant, seed: int) -> str:
        """The variant's engine."""
        self.say(f"train: {variant.name}, seed {seed}")
        return str(trained(self.place, variant, num_steps=self.num_steps, seed=seed))


def base(run: Run) -> list[Row]:
    """Everybody: counts, things, the untrained and the trained engine through Feast, and the truth."""
    people, base_variant = judged(run.place), Variant(name=BASE)
    figures = WorldFigures(people)
    run.say(f"probe: counts of {len(people.users)} users")
    figures.add(COUNTS, [people.counts])
    figures.add(THINGS, [np.hstack([people.counts, people.things])])
    figures.add(TOLD, [np.hstack([people.counts, people.interests])])
    figures.add_truth(TRUTH)
    read = {
        name: [_read(run, str(untrained(run.place, base_variant, space=space)), people)]
        for name, space in ((UNTRAINED, KEPT), (FITTED, base_variant.space))
    }
    read[BASE] = [_read(run, run.trained(base_variant, seed), people) for seed in run.seeds]
    for model, seeds in read.items():
        run.say(f"probe: {model}")
        figures.add(model, seeds)
    names = list(QUERIES)
    shifted = dict(zip(names, names[3:] + names[:3], strict=True))
    figures.add(WRONG, [{task: one[shifted[task]] for task in names} for one in read[BASE]])
    figures.add(SAME, [one[FIXED] for one in read[BASE]])
    figures.add(BESIDE, [_beside(one, people) for one in read[BASE]])
    models = (COUNTS, THINGS, TOLD, UNTRAINED, FITTED, BASE, WRONG, SAME, BESIDE, TRUTH)
    rows = [figures.row("world-base", one) for one in models]
    rows += [
        figures.difference("world-differences", BASE, UNTRAINED, wanted=0.05),
        figures.difference("world-differences", FITTED, UNTRAINED),
        figures.difference("world-differences", BASE, FITTED),
        figures.difference("world-differences", BASE, COUNTS, wanted=0.03),
        figures.difference("world-differences", BASE, THINGS),
        figures.difference("world-differences", BASE, WRONG, wanted=0.05),
        figures.difference("world-differences", TOLD, UNTRAINED),
        figures.difference("world-differences", TRUTH, BASE),
    ]
    return rows + figures.by_task("world-tasks", [COUNTS, THINGS, UNTRAINED, BASE, TRUTH])


def ablations(run: Run) -> list[Row]:
    """The paper's table: each ablation's paired difference to the base; the paper's stands beside it."""
    figures = _judged_directly(run, [Variant(name=BASE), *ABLATIONS])
    rows = []
    for one in ABLATIONS:
        wanted = None if one.paper_loss is None else -one.paper_loss
        row = figures.difference("world-ablations", one.name, BASE, wanted=wanted)
        named = None if wanted is None else "paper"
        rows.append(replace(row, row=one.name, baseline_name=named))
    plots.ablation_picture(run.pictures / "world_ablations.png", rows)
    return [figures.row("world-ablations", BASE), *rows]


def curves(run: Run) -> list[Row]:
    """The base on growing shares of the users, and for growing numbers of steps."""
    by_share, by_steps = scaling(), steps(run.num_steps)
    distinct = {one.name: one for one in (*by_share, *by_steps)}
    figures = _judged_directly(run, list(distinct.values()))
    engine = str(untrained(run.place, Variant(name=BASE)))
    figures.add(UNTRAINED, [embed_directly(run.place, engine, QUERIES, figures.people.users.tolist())])
    level = figures.row("world-scaling", UNTRAINED)
    shares = [
        figures.row("world-scaling", one.name, name=f"{share:.0%} of the users")
        for one, share in zip(by_share, SHARES, strict=True)
    ]
    counts = [max(1, round(run.num_steps * share)) for share in STEP_SHARES]
    stepped = [
        figures.row("world-steps", one.name, name=f"{count} steps")
        for one, count in zip(by_steps, counts, strict=True)
    ]
    rises = [
        figures.difference("world-scaling", BASE, by_share[0].name),
        figures.difference("world-scaling", BASE, UNTRAINED, wanted=0.05),
        figures.difference("world-steps", BASE, by_steps[0].name),
    ]
    users = [share * run.place.world.num_users for share in SHARES]
    plots.scaling_picture(
        run.pictures / "world_scaling.png",
        [("users trained on", users, shares), ("steps", counts, stepped)],
        level,
    )
    return [level, *shares, *stepped, *rises]


def margins(run: Run) -> list[Row]:
    """Precision and recall of the margin filter on planted twins, untrained and trained."""
    variant, sibling = Variant(name=BASE), siblings(run.place)[: run.num_subset]
    engines = {
        UNTRAINED: str(untrained(run.place, variant)),
        BASE: run.trained(variant, run.seeds[0]),
    }
    rows: list[Row] = []
    for name, engine in engines.items():
        run.say(f"margin filter: {name}")
        rows += margin.margin_rows("world-margin", name, margin.filter_quality(run.place, engine, sibling))
    return rows


def soft_prompts(run: Run) -> list[Row]:
    """Prompts tuned on few and on many labelled users, judged on others; see :mod:`..tuned`."""
    people = run.subset()
    tuner = Tuner(run.place, run.trained(Variant(name=BASE), run.seeds[0]), people.users.tolist())
    figures = WorldFigures(people.take(np.arange(len(people.users))[-tuner.num_judged :]))
    ranks: dict[str, dict[str, np.ndarray]] = {}
    for task, labels in people.labels.items():
        run.say(f"tune: {task} on {tuner.sizes} users")
        for name, found in tuner.ranks(task, labels).items():
            ranks.setdefault(name, {})[task] = found
    for name, of_tasks in ranks.items():
        figures.add_ranks(name, of_tasks)
    rows = [figures.row("world-tuned", name) for name in ranks]
    rows += [
        figures.difference("world-tuned", named(TUNED, size), named(PLAIN, size), wanted=0.005)
        for size in tuner.sizes
    ]
    return rows + figures.by_task("world-tuned-tasks", list(ranks))


PARTS: dict[str, Callable[[Run], list[Row]]] = {
    "base": base,
    "ablations": ablations,
    "scaling": curves,
    "margin": margins,
    "tuned": soft_prompts,
}


def timed(run: Run, name: str) -> list[Row]:
    """A part's rows and its seconds."""
    started = time.perf_counter()
    rows = PARTS[name](run)
    return [*rows, seconds_row(f"world-seconds-{name}", name, time.perf_counter() - started)]


def _judged_directly(run: Run, variants: Sequence[Variant]) -> WorldFigures:
    """Every variant trained with the first seed, on the same subset of users and the same folds."""
    figures = WorldFigures(run.subset())
    users = figures.people.users.tolist()
    for one in variants:
        engine = run.trained(one, run.seeds[0])
        figures.add(one.name, [embed_directly(run.place, engine, QUERIES, users)])
        run.say(f"{one.name}: {figures.comparison.estimate(one.name)}")
    return figures


def _read(run: Run, engine: str, people: Judged) -> dict[str, np.ndarray]:
    """Everybody's embeddings through ``get_historical_features``, some checked against the engine itself."""
    run.say(f"get_historical_features: {len(people.users)} users x {len(ASKED)} queries of {engine}")
    users = people.users.tolist()
    made = embed_through_feast(
        run.place,
        engine,
        ASKED,
        users,
        run.place.folder / "stores" / Path(engine).parent.name / Path(engine).name,
    )
    some = users[:FEAST_CHECKED_USERS]
    direct = embed_directly(run.place, engine, ASKED, some)
    apart = largest_difference({task: one[: len(some)] for task, one in made.items()}, direct)
    if apart > TOLERANCE:
        raise SystemExit(
            f"Feast and the engine differ by {apart:.2g} on {len(some)} users; allowed is {TOLERANCE}."
        )
    return made


def _beside(embedded: dict[str, np.ndarray], people: Judged) -> dict[str, np.ndarray]:
    return {task: np.hstack([embedded[task], people.counts]) for task in QUERIES}
