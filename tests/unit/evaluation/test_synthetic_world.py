"""The synthetic world: the same bytes for a seed, labels after the cutoff, a truth worth learning."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.metrics import auc
from qanchor_plugin.evaluation.probe import _path
from qanchor_plugin.evaluation.synthetic import SYNTHETIC_TASKS, TABLES, World, chunks, write_world
from qanchor_plugin.evaluation.synthetic.counts import (
    world_counts,
    world_labels,
    world_thing_counts,
    world_truth,
)
from qanchor_plugin.evaluation.synthetic.profile import synthetic_profile
from qanchor_plugin.evaluation.synthetic.tasks import GROUPS
from qanchor_plugin.evaluation.synthetic.vocabulary import INTERESTS, MODALITIES, items, texts
from qanchor_plugin.sequence.render import render_texts

WORLD = World(num_users=6_000, seed=7)


def whole(world: World) -> dict[str, pa.Table]:
    parts = list(chunks(world))
    return {name: pa.concat_tables([part[name] for part in parts]) for name in TABLES}


@pytest.fixture(scope="module")
def tables() -> dict[str, pa.Table]:
    return whole(WORLD)


def digests(folder: Path) -> dict[str, str]:
    return {one.name: hashlib.blake2b(one.read_bytes()).hexdigest() for one in folder.iterdir()}


def test_a_seed_is_a_world_byte_for_byte(tmp_path):
    counts = write_world(World(num_users=1_200, seed=3), tmp_path / "a")
    write_world(World(num_users=1_200, seed=3), tmp_path / "b")
    write_world(World(num_users=1_200, seed=4), tmp_path / "c")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert sorted(digests(tmp_path / "a")) == sorted(f"{name}.parquet" for name in TABLES)
    assert digests(tmp_path / "a")["payments.parquet"] != digests(tmp_path / "c")["payments.parquet"]
    assert counts["tabular"] == 1_200
    assert counts["labels"] == 1_200 * len(SYNTHETIC_TASKS)


def test_a_smaller_world_is_the_start_of_a_larger_one(tables):
    small = whole(World(num_users=1_500, seed=7))
    for name, table in small.items():
        assert table.schema.equals(TABLES[name])
        assert table.equals(tables[name].filter(pc.less(tables[name]["user_id"], 1_500)))


def test_events_are_before_the_cutoff_and_labels_after(tables):
    for name in (*MODALITIES, "tabular"):
        at = tables[name]["event_timestamp"]
        assert pc.min(at).as_py() >= WORLD.start
        assert pc.max(at).as_py() < WORLD.cutoff
    labels = tables["labels"]
    assert pc.all(
        pc.equal(labels["event_timestamp"], pa.scalar(WORLD.cutoff, TABLES["labels"][1].type))
    ).as_py()
    assert pc.all(pc.equal(pc.is_valid(labels["label_at"]), labels["positive"])).as_py()
    assert pc.min(labels["label_at"]).as_py() > WORLD.cutoff
    assert (pc.max(labels["label_at"]).as_py() - WORLD.cutoff).days <= WORLD.label_days


def test_rates_are_the_stated_ones(tables):
    labels, truth = world_labels(tables["labels"]), world_truth(tables["truth"])
    assert list(labels) == [task.name for task in SYNTHETIC_TASKS]
    assert [task.group for task in SYNTHETIC_TASKS] == sorted(
        (task.group for task in SYNTHETIC_TASKS), key=GROUPS.index
    )
    for task in SYNTHETIC_TASKS:
        # a binomial of 6,000 and a reference population of 20,000: four standard errors
        bound = 4 * np.sqrt(task.rate * (1 - task.rate) * (1 / 6_000 + 1 / 20_000))
        assert abs(labels[task.name].mean() - task.rate) < bound
        chance = truth[task.name]  # calibrated: the share of positives among the likely is their chance
        likely = chance > np.quantile(chance, 0.8)
        spread = np.sqrt((chance[likely] * (1 - chance[likely])).sum()) / likely.sum()
        assert abs(labels[task.name][likely].mean() - chance[likely].mean()) < 4 * spread


def test_the_truth_beats_things_and_things_beat_counts(tables):
    labels, truth = world_labels(tables["labels"]), world_truth(tables["truth"])
    counts = world_counts(tables, WORLD.cutoff, WORLD.num_users)
    things = np.hstack([counts, world_thing_counts(tables, WORLD.num_users)])
    assert counts.shape == (6_000, 27)
    assert things.shape == (6_000, 27 + 250)
    half, reached = 3_000, []
    for name, positive in labels.items():
        by_features = [
            auc(positive[half:], _path(one[:half], positive[:half], one[half:], (0.003,))[0])
            for one in (counts, things)
        ]
        reached.append([*by_features, auc(positive, truth[name])])
    by_counts, by_things, by_truth = np.mean(reached, axis=0)
    assert by_truth > by_things + 0.05
    assert by_things > by_counts + 0.1
    assert 0.8 < by_truth < 0.9


def test_twins_are_near_duplicates_of_their_siblings(tables):
    twin_of = tables["latents"]["twin_of"]
    twins = np.flatnonzero(twin_of.is_valid().to_numpy())
    siblings = twin_of.drop_null().to_numpy()
    assert twins.tolist() == list(range(19, 6_000, 20))
    assert (siblings == twins - 1).all()
    things = world_thing_counts(tables, WORLD.num_users)
    things /= np.linalg.norm(things, axis=1, keepdims=True) + 1e-9
    similar = (things[twins] * things[siblings]).sum(1)
    strangers = (things[twins] * things[(siblings + 500) % 6_000]).sum(1)
    assert np.median(similar) > 0.95
    assert np.median(strangers) < 0.6
    truth = world_truth(tables["truth"])["promo"]
    assert (truth[twins] == truth[siblings]).all()


def test_texts_have_a_vocabulary_and_hide_the_interest():
    every = [text for modality in MODALITIES for text in texts(modality).tolist()]
    assert len(set(every)) == len(every) == 7_000
    assert len(set(items().tolist())) == 250
    hidden = {"takeaway", "ecology", "bargains", "investing", "borrowing", "gambling", "parenting"}
    assert hidden <= set(INTERESTS)
    assert not any(word in text for word in hidden for text in every)


def test_opaque_names_change_words_and_nothing_else():
    plain, named = World(num_users=300, seed=7), World(num_users=300, seed=7, num_opaque=4)
    before, after = whole(plain), whole(named)
    for name in ("labels", "truth", "latents", "tabular"):
        assert before[name].equals(after[name])
    assert (world_thing_counts(before, 300) == world_thing_counts(after, 300)).all()
    assert items(4)[:10].tolist() == [
        "concert ticket", items(10)[1], "guitar strings", items(10)[3], "live session", items(10)[5],
        "headphones", items(10)[7], "band merchandise", "karaoke room",
    ]  # fmt: skip
    assert items(10)[-10:].tolist() == items()[-10:].tolist()
    assert len({*items().tolist(), *items(10).tolist()}) == 250 + 240
    assert len(set(texts("searches", 4).tolist())) == 2_000
    with pytest.raises(InputDataError, match="0 to 10"):
        World(num_users=1, num_opaque=11)


def test_the_declared_profile_renders_its_tables(tables):
    profile = synthetic_profile("data/synthetic")
    assert [modality.name for modality in profile.modalities] == [*MODALITIES, "tabular"]
    for modality in profile.modalities:
        assert set(modality.columns) <= set(tables[modality.name].column_names)
    rendered = render_texts(profile.modalities[5].text, tables["tabular"].slice(0, 2))
    assert rendered[0].startswith("age ")
    assert rendered[0].endswith(" months")


def test_a_world_of_nobody_is_refused():
    with pytest.raises(InputDataError, match="above 0"):
        World(num_users=0)
