"""Training's towers are the served engine: same tokens, same embeddings, with gradients."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.build_prefix import PrefixBuilder
from qanchor_plugin.training.batches import PairBatch
from qanchor_plugin.training.objective import Objective, ObjectivePlan, one_pair_a_reading
from qanchor_plugin.training.prefix_rows import collate, prefix_rows
from qanchor_plugin.training.reading import reading_of
from qanchor_plugin.training.slots import in_slots, slot_mask
from qanchor_plugin.training.towers import Towers
from tests.unit.engine.conftest import *  # noqa: F403  (its engines and users are fixtures here, too)
from tests.unit.engine.conftest import RandomVectors

QUERIES = ("Will this user buy beer?", "Does this user keep a dog or a cat at home?", "Redeems coupons?")


class TextTable:
    """Vectors of the texts of some slices, and their rows."""

    def __init__(self, slices, dim):
        ids = [one.text_id for user in slices for one in user.modalities]
        ids += [group.text_id[None] for user in slices for group in user.groups]
        distinct = np.unique(np.concatenate(ids).view("V16").ravel())
        self.row = {one.tobytes(): row for row, one in enumerate(distinct)}
        flat = np.frombuffer(distinct.tobytes(), np.uint8).reshape(-1, 16)
        self.vectors = torch.from_numpy(RandomVectors(dim).lookup(flat).astype(np.float32))

    def rows(self, ids):
        return np.array([self.row[one.tobytes()] for one in ids], np.intp)


def readings_of(engine: QueryAnchorEngine, slices):
    table = TextTable(slices, engine.encoder_dim)
    names = tuple(one.name for one in slices[0].modalities)
    num_template = len(engine.template_rows(names))
    return [reading_of(s, engine.config, table.rows, num_template=num_template) for s in slices], table


@pytest.fixture(params=["demo", "paper"])
def engine(request, engine_named) -> QueryAnchorEngine:
    return engine_named(request.param)


@pytest.mark.parametrize(
    "changes", [{}, {"user_token": False}, {"modality_tokens": False}, {"space": "behaviour"}]
)
def test_soft_tokens_are_the_builder_s(engine, users, changes):
    config = engine.config.with_(**changes, token_dtype="float32")
    parts = {} if config.backbone == "meaning" else {"model": engine.modules.backbone.model}
    engine = QueryAnchorEngine.from_parts(
        config, **parts, tokenizer=engine.tokenizer, encoder=engine.encoder, device="cpu"
    )
    readings, table = readings_of(engine, users)
    template = engine.template_rows(readings[0].modality_names)
    rows = prefix_rows(engine.modules, collate(readings), table.vectors, template)
    builder = PrefixBuilder(engine.modules, users, RandomVectors(engine.encoder_dim))
    made = builder.build([template.numpy()] * len(users))
    for number, prefix in enumerate(made):
        count = len(prefix.tokens)
        assert readings[number].positions_L.tolist() == prefix.positions.tolist()
        assert np.allclose(rows[number, :count].numpy(), prefix.tokens, atol=2e-5)
        assert not rows[number, count:].any()


def test_users_are_the_served_embeddings(engine, users):
    readings, table = readings_of(engine, users)
    prefixes = engine.build_prefixes(users, RandomVectors(engine.encoder_dim))
    served = engine.embed(prefixes, [engine.prepare_query(one) for one in QUERIES], [u.cutoff for u in users])
    towers = Towers(engine)
    pairs = [(user, query) for user in range(len(users)) for query in range(user % 3 + 1)]
    with torch.no_grad():
        read = towers.read(readings, table.vectors)
        made = towers.users(read, [user for user, _ in pairs], [QUERIES[query] for _, query in pairs])
    expected = np.stack([served[user, query] for user, query in pairs])
    # stored tokens are rounded to half precision, training's are not
    assert np.abs(made.numpy() - expected).max() < 5e-3


def test_an_answer_s_embedding_does_not_depend_on_the_others(engine):
    towers = Towers(engine)
    with torch.no_grad():
        together = towers.answers(["no beer", "many dog foods of all kinds", "one coupon"])
        alone = torch.cat([towers.answers([one]) for one in ["no beer", "many dog foods of all kinds"]])
    assert torch.allclose(together[:2], alone, atol=1e-5)


def test_slots_see_the_prefix_and_themselves_alone():
    rows = torch.arange(12.0).view(6, 2)
    slots = in_slots([[(rows[:2], None), (rows[2:3], rows[3:5])], [(rows[5:], None)]])
    # slots of 2 places before and with <USER_EMB>, and 2 for answers
    assert slots.emb_Q.tolist() == [1, 5]
    assert slots.real_BS.tolist() == [
        [True, True, False, False, False, True, True, True],
        [False, True] + [False] * 6,
    ]
    mask = slot_mask(slots, torch.tensor([[True, False], [True, True]]))
    assert mask[0, 7].nonzero().flatten().tolist() == [0, 7, 8, 9]
    assert mask[0, 1].nonzero().flatten().tolist() == [0, 2, 3]
    assert mask[1, 6].nonzero().flatten().tolist() == [8]


def batch_of(engine, users) -> PairBatch:
    full = [user for user in users if user.num_events][:4]
    readings, table = readings_of(engine, full)
    scale = ("no beer", "one beer", "a few beers", "many beers")
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (3, 2)]
    return PairBatch(
        readings=tuple(readings),
        vectors_VE=table.vectors,
        reading_of_pair=tuple(user for user, _ in pairs),
        queries=tuple(QUERIES[query] for _, query in pairs),
        answers=("no beer", "one beer", "many beers", "no beer", "a few beers", "a coupon on each visit"),
        alternatives=tuple([scale] * 5 + [()]),
    )


def test_every_term_reaches_the_weights(engine, users):
    engine.modules.requires_grad_(True)
    objective = Objective(engine, ObjectivePlan())
    step = objective(batch_of(engine, users))
    step.loss.backward()
    assert set(step.parts) == {"contrastive", "next_token", "outcome", "outlook", "accuracy", "num_tokens"}
    named = dict(engine.modules.named_parameters())
    without = {name for name, one in named.items() if one.grad is None or not one.grad.any()}
    engine.modules.zero_grad(set_to_none=True)
    engine.modules.requires_grad_(False)
    # adapters of modalities that this profile does not have get none
    assert {name for name in without if "of_" not in name and "embed" not in name} <= {"hierarchy.types"}


def test_outcome_and_outlook_are_the_mean_cross_entropies_of_a_loop(demo, users):
    """The slow obvious way: each pair among its own scale, and for all outcomes of its reading."""
    scale, other = (
        ("no beer", "one beer", "a few beers", "many beers"),
        ("no tea", "a tea", "two teas", "teas"),
    )
    asked = batch_of(demo, users)
    batch = replace(
        asked, told_reading=(0, 2), told_answers=("teas", "a tea"), told_alternatives=(other, other)
    )
    objective = Objective(demo, ObjectivePlan(contrastive_weight=0, next_token_weight=0))
    objective.outlook.weight.data = torch.roll(torch.eye(128), 1, 0)
    with torch.no_grad():
        parts = objective(batch).parts
        towers, tau = objective.towers, objective.plan.temperature
        embedded = towers.users(
            towers.read(batch.readings, batch.vectors_VE), batch.reading_of_pair, batch.queries
        )
        texts = dict(zip((*scale, *other), towers.answers([*scale, *other]), strict=True))

        def loss(vector, choices, answer):
            scores = torch.stack([vector @ texts[one] / tau for one in choices])
            return float(torch.logsumexp(scores, 0) - scores[choices.index(answer)])

        outcome = [loss(embedded[pair], scale, batch.answers[pair]) for pair in range(5)]
        known = [(batch.reading_of_pair[pair], scale, batch.answers[pair]) for pair in range(5)]
        known += [(0, other, "teas"), (2, other, "a tea")]
        outlook = [
            loss(torch.roll(embedded[pair], 1), choices, answer)
            for pair in range(5)
            for reading, choices, answer in known
            if reading == batch.reading_of_pair[pair]
        ]
    assert parts["outcome"] == pytest.approx(np.mean(outcome), rel=1e-4)
    assert parts["outlook"] == pytest.approx(np.mean(outlook), rel=1e-4)
    assert len(outlook) == 2 * 3 + 2 * 2 + 1 * 2


def test_a_weight_of_zero_leaves_the_term_out(engine, users):
    plan = ObjectivePlan(contrastive_weight=0, next_token_weight=0, outlook_weight=0)
    step = Objective(engine, plan)(batch_of(engine, users))
    assert set(step.parts) == {"outcome", "accuracy", "num_tokens"}
    assert float(step.loss) == pytest.approx(step.parts["outcome"])


def test_the_open_pair_speaks_for_its_reading(demo, users):
    batch = batch_of(demo, users)
    assert one_pair_a_reading(batch) == [0, 2, 4, 5]
