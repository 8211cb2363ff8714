"""The tuner: what it may change, what it may not, and that a step's short cut equals the whole path."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import SoftPrompt
from qanchor_plugin.errors import EngineError, InputDataError
from qanchor_plugin.training.tuning import TunePlan, tune, tune_each
from qanchor_plugin.training.tuning.read_users import ReadUsers
from qanchor_plugin.training.tuning.tune import fitted_prototypes
from tests.unit.engine.conftest import DAY, TODAY

QUERY = "Will this user visit again?"
PLAN = TunePlan(num_tokens=3, steps=30, batch_size=8, held_out=0.2, evaluate_every=10, warmup_steps=2)
NUM = 32


@pytest.fixture(scope="module")
def many(make_user):
    """Half of the users visited, half did not."""
    return [make_user(3 + n % 5, 4 * (n % 2), seed=n) for n in range(NUM)]


@pytest.fixture(scope="module")
def labels():
    return np.arange(NUM) % 2


CUTOFFS = [TODAY + (n % 3) * DAY for n in range(NUM)]


@pytest.fixture(scope="module")
def prefixes(demo, prefixes_of, many):
    return prefixes_of(demo, many)


@pytest.fixture(scope="module")
def tuned(demo, prefixes, labels):
    return tune(demo, QUERY, prefixes, CUTOFFS, labels, PLAN)


def _prompt(engine, num):
    tokens = np.random.default_rng(1).normal(size=(num, engine.config.token_width)).astype(np.float32)
    return SoftPrompt(tokens=tokens * 0.5, engine_digest=engine.digest)


@pytest.mark.parametrize("max_bytes", [1 << 40, 0])
@pytest.mark.parametrize("num", [1, 4])
@pytest.mark.parametrize("name", ["demo", "paper"])
def test_a_step_s_forward_equals_the_whole_path(engine_named, prefixes_of, many, name, num, max_bytes):
    engine = engine_named(name)
    users, cutoffs = prefixes_of(engine, many[:6]), CUTOFFS[:6]
    rows = engine.prepare_query(QUERY).rows
    read = ReadUsers(engine.modules, users, cutoffs, rows, num_tokens=num, max_bytes=max_bytes)
    assert read.keeps == (max_bytes > 0)
    prompt = _prompt(engine, num)
    places = [4, 0, 2, 5]
    with torch.no_grad():
        fast = read.embed(places, torch.from_numpy(prompt.tokens)).numpy()
    slow = engine.embed_reference(users, [engine.prepare_query(QUERY, prompt)], cutoffs)[places, 0]
    assert np.abs(fast - slow).max() <= 1e-5


def test_gradients_reach_the_prompt_and_nothing_else(demo, prefixes):
    rows = demo.prepare_query(QUERY).rows
    read = ReadUsers(demo.modules, prefixes[:4], CUTOFFS[:4], rows, num_tokens=2, max_bytes=1 << 40)
    prompt = torch.from_numpy(_prompt(demo, 2).tokens).requires_grad_()
    read.embed([0, 1, 2, 3], prompt)[:, 0].sum().backward()
    width = demo.config.hidden
    assert prompt.grad is not None
    assert (prompt.grad.abs().sum(1) > 0).all()  # the token and what is added to <USER_EMB>
    assert prompt.grad[:, width:].abs().sum() > 0  # also what they ask
    assert all(one.grad is None for one in demo.modules.parameters())


def test_tuning_learns_what_the_labels_say(demo, prefixes, labels, tuned):
    assert tuned.soft_prompt.tokens.shape == (3, demo.config.token_width)
    assert tuned.prototypes.shape == (2, 128)
    assert (tuned.num_rows, tuned.num_held_out) == (26, 6)
    assert [step for step, _ in tuned.held_out_losses] == [0, 10, 20, 30]
    assert tuned.best_step == min(tuned.held_out_losses, key=lambda one: one[1])[0]
    assert np.mean(tuned.losses[-5:]) < np.mean(tuned.losses[:5])
    query = demo.prepare_query(QUERY, tuned.soft_prompt)
    scores = demo.embed(prefixes, [query], CUTOFFS)[:, 0] @ (tuned.prototypes[1] - tuned.prototypes[0])
    pairs = scores[labels == 1][:, None] > scores[labels == 0][None]
    assert pairs.mean() > 0.8  # AUC


def test_the_backbone_and_the_prefix_cache_stay_byte_for_byte(demo, prefixes_of, many, prefixes, labels):
    state = {name: one.clone() for name, one in demo.modules.state_dict().items()}
    digests = demo.digest, demo.prefix_digest
    plain = demo.embed(prefixes, [demo.prepare_query(QUERY)], CUTOFFS)
    found = tune(demo, QUERY, prefixes, CUTOFFS, labels, replace(PLAN, steps=5))
    assert np.abs(found.soft_prompt.tokens).max() > 0
    assert all(torch.equal(one, state[name]) for name, one in demo.modules.state_dict().items())
    demo.__dict__.pop("digest", None), demo.__dict__.pop("prefix_digest", None)
    assert (demo.digest, demo.prefix_digest) == digests
    again = prefixes_of(demo, many)
    assert [one.tokens.tobytes() for one in again] == [one.tokens.tobytes() for one in prefixes]
    assert demo.embed(again, [demo.prepare_query(QUERY)], CUTOFFS).tobytes() == plain.tobytes()


def test_the_saved_prompt_gives_the_same_embeddings(demo, prefixes, tuned, tmp_path):
    tuned.soft_prompt.save(tmp_path)
    queries = [demo.prepare_query(QUERY, one) for one in (tuned.soft_prompt, SoftPrompt.load(tmp_path))]
    made = [demo.embed(prefixes[:4], [one], CUTOFFS[:4]).tobytes() for one in queries]
    assert made[0] == made[1]


def test_the_same_seed_tunes_the_same_and_memory_changes_nothing(demo, prefixes, labels):
    plan = replace(PLAN, steps=4, held_out=0.0)
    kept = tune(demo, QUERY, prefixes, CUTOFFS, labels, plan)
    again = tune(demo, QUERY, prefixes, CUTOFFS, labels, plan)
    anew = tune(demo, QUERY, prefixes, CUTOFFS, labels, replace(plan, max_cache_bytes=0))
    assert kept.soft_prompt.digest == again.soft_prompt.digest
    assert kept.best_step == 4
    assert kept.held_out_losses == ()
    np.testing.assert_allclose(anew.soft_prompt.tokens, kept.soft_prompt.tokens, atol=1e-3)


def test_a_prompt_that_is_not_learnt_hardly_changes_the_answer(demo, prefixes, labels):
    plan = replace(PLAN, steps=1, learning_rate=1e-9, averaging=0.0)
    found = tune(demo, QUERY, prefixes, CUTOFFS, labels, plan)
    queries = [demo.prepare_query(QUERY), demo.prepare_query(QUERY, found.soft_prompt)]
    made = demo.embed(prefixes, queries, CUTOFFS)
    assert (made[:, 0] * made[:, 1]).sum(1).min() > 0.9


def test_patience_stops_a_tuning_that_gets_no_better(demo, prefixes, labels):
    shuffled = np.random.default_rng(0).permutation(labels)
    plan = replace(PLAN, steps=400, evaluate_every=5, patience=2, learning_rate=0.05)
    found = tune(demo, QUERY, prefixes, CUTOFFS, shuffled, plan)
    least = min(found.held_out_losses, key=lambda one: one[1])[0]
    assert least == len(found.losses) - 10
    assert len(found.losses) < 400


def test_the_start_is_kept_where_labels_say_nothing(demo, prefixes, labels):
    shuffled = np.random.default_rng(0).permutation(labels)
    plan = replace(PLAN, learning_rate=0.02)
    found = tune(demo, QUERY, prefixes, CUTOFFS, shuffled, plan)
    still = tune(demo, QUERY, prefixes, CUTOFFS, shuffled, replace(plan, learning_rate=1e-30))
    assert min(found.held_out_losses, key=lambda one: one[1])[0] > 0  # but by less than its error
    assert found.best_step == 0
    assert found.soft_prompt.tokens.tobytes() == still.soft_prompt.tokens.tobytes()


def test_prototypes_start_where_the_embeddings_are_told_apart():
    """Two users on each axis: by symmetry p0 - p1 = d (1, -1), and the objective is log(1 + exp(-d / tau)) +
    decay d^2. At tau 1 and decay 0.1 it is least where 1 / (1 + exp(d)) = 0.2 d: d = 1.1775."""
    users, classes = torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1])
    plan = TunePlan(temperature=1.0, prototype_decay=0.1)
    found = fitted_prototypes(users, classes, torch.eye(2), plan)
    np.testing.assert_allclose((found[0] - found[1]).numpy(), [1.1775, -1.1775], atol=1e-3)


def test_a_tuning_of_some_rows_sees_no_other_row(demo, prefixes, labels):
    """Folds share the users that were read; a prompt is that of its rows alone, whatever others say."""
    plan, some = replace(PLAN, steps=4, held_out=0.2), np.arange(20)
    lies = labels.copy()
    lies[20:] = 1 - lies[20:]
    first, whole = tune_each(demo, QUERY, prefixes, CUTOFFS, lies, [some, np.arange(NUM)], plan)
    alone = tune(demo, QUERY, prefixes[:20], CUTOFFS[:20], labels[:20], plan)
    np.testing.assert_allclose(first.soft_prompt.tokens, alone.soft_prompt.tokens, atol=1e-3)
    assert (first.num_rows, first.num_held_out) == (16, 4)
    assert whole.num_rows == 26


def test_three_classes_have_three_prototypes(demo, prefixes):
    classes = np.arange(NUM) % 3
    found = tune(demo, QUERY, prefixes, CUTOFFS, classes, replace(PLAN, steps=2))
    assert found.prototypes.shape == (3, 128)


class TestBadInput:
    def test_one_class_only(self, demo, prefixes):
        with pytest.raises(InputDataError, match=r"users of each class are \{1: 32\}"):
            tune(demo, QUERY, prefixes, CUTOFFS, np.ones(NUM, int), PLAN)

    def test_fewer_users_than_folds(self, demo, prefixes):
        classes = (np.arange(NUM) < 4).astype(int)
        with pytest.raises(InputDataError, match=r"\{0: 28, 1: 4\}.*with 5 users each"):
            tune(demo, QUERY, prefixes, CUTOFFS, classes, PLAN)

    def test_many_instants_of_few_users(self, demo, prefixes):
        rows = [n % 4 for n in range(NUM)]
        with pytest.raises(InputDataError, match=r"\{0: 2, 1: 2\}.*Label more users"):
            tune(demo, QUERY, [prefixes[n] for n in rows], CUTOFFS, np.array(rows) % 2, PLAN)

    def test_lengths_that_differ(self, demo, prefixes):
        with pytest.raises(InputDataError, match="32 prefixes, 31 cutoffs and 2 labels"):
            tune(demo, QUERY, prefixes, CUTOFFS[1:], [0, 1], PLAN)

    def test_an_empty_query(self, demo, prefixes, labels):
        with pytest.raises(EngineError, match="the query is empty"):
            tune(demo, " ", prefixes, CUTOFFS, labels, PLAN)

    def test_a_plan_that_cannot_be_followed(self):
        with pytest.raises(InputDataError, match=r"steps is 0.*held_out is 0\.7.*learning_rate is -1"):
            TunePlan(steps=0, held_out=0.7, learning_rate=-1)

    def test_a_learning_rate_that_breaks_the_loss(self, demo, prefixes, labels):
        plan = replace(PLAN, learning_rate=1e30, warmup_steps=0)
        with pytest.raises(InputDataError, match="lower the learning rate"):
            tune(demo, QUERY, prefixes, CUTOFFS, labels, plan)
