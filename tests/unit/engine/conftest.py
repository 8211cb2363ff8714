"""Tiny real engines, and users with literal or random histories.

``demo`` is the shipped preset with the real MiniLM; ``paper`` is the paper's preset around a Qwen2 and a
BERT of random weights, saved in folders and loaded by the ordinary loading code.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.engine import EngineConfig, QueryAnchorEngine
from qanchor_plugin.engine.config import QWEN
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import Events, UserHistory, UserSlice, slice_at

DAY = 86_400_000_000
TODAY = 17_500 * DAY
TEXTS = [f"text {number}" for number in range(40)]
GROUPS = [f"GROUP {number}" for number in range(8)]
TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
}


class RandomVectors:
    """A unit vector for every text id, drawn from the id itself."""

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def lookup(self, ids: np.ndarray) -> np.ndarray:
        rows = [np.random.default_rng(list(one.tobytes())).normal(size=self.dim) for one in ids]
        found = np.array(rows).reshape(len(ids), self.dim)
        return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def profile() -> Profile:
    """Two event modalities (20 and 6 events kept) and a static row."""
    source = SourceSpec(name="s", path="raw/s", event_at="t")
    entity = EntityRef(name="user", join_key="user_id", value_type="INT64")
    return Profile(
        "journey",
        entity,
        [
            Modality("purchases", source, "{a}", group_by=("g",), amounts=("price",), max_events=20),
            Modality("visits", source, "{b}", group_by=("g",), max_events=6),
            Modality("household", source, "{c}", kind="tabular", static=True),
        ],
        window=None,
    )


def some_events(count: int, seed: int, *, last_day: int = 17_490) -> Events:
    """``count`` random events on the 200 days before ``last_day``."""
    random = np.random.default_rng(seed)
    text = [text_id(TEXTS[one]) for one in random.integers(0, len(TEXTS), count)]
    group = [text_id(GROUPS[one]) for one in random.integers(0, len(GROUPS), count)]
    at = random.integers((last_day - 200) * DAY, last_day * DAY, count)
    return Events(
        event_at=at,
        known_at=at,
        text_id=np.frombuffer(b"".join(text), np.uint8).reshape(count, 16),
        groups=np.frombuffer(b"".join(group), np.uint8).reshape(count, 1, 16),
        amounts=random.random((count, 1)),
    ).sorted()


def household_row(text: str = "three adults") -> Events:
    """One static row."""
    return Events(
        event_at=np.zeros(1, np.int64),
        known_at=np.zeros(1, np.int64),
        text_id=np.frombuffer(text_id(text), np.uint8).reshape(1, 16),
        groups=np.zeros((1, 0, 16), np.uint8),
        amounts=np.zeros((1, 0)),
    )


@pytest.fixture(scope="session")
def make_user(profile: Profile) -> Callable[..., UserSlice]:
    """A user's slice at TODAY from counts of purchases and visits."""

    def make(
        purchases: int, visits: int, *, row: bool = True, seed: int = 0, cutoff: int = TODAY
    ) -> UserSlice:
        events = {"purchases": some_events(purchases, seed), "visits": some_events(visits, seed + 1000)}
        if row:
            events["household"] = household_row()
        history = UserHistory(user=b"%d" % seed, user_key=str(seed), events=events)
        return slice_at(history, profile, cutoff)

    return make


@pytest.fixture(scope="session")
def users(make_user: Callable[..., UserSlice]) -> list[UserSlice]:
    """Empty; nothing but a static row; one event; exactly the cap; above it; a modality missing; mixed."""
    shapes = [(0, 0, False), (0, 0, True), (1, 0, False), (20, 6, True), (33, 9, True), (0, 4, True)]
    shapes += [(7, 0, True), (12, 3, False), (2, 1, True)]
    return [make_user(p, v, row=row, seed=seed) for seed, (p, v, row) in enumerate(shapes)]


@pytest.fixture(scope="session")
def demo() -> QueryAnchorEngine:
    return QueryAnchorEngine.load("demo", device="cpu")


@pytest.fixture(scope="session")
def language_model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen2 of random weights and a byte tokenizer, as transformers saves them."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    from qanchor_plugin.engine.random_shape import byte_tokenizer

    folder = tmp_path_factory.mktemp("lm")
    torch.manual_seed(3)
    Qwen2ForCausalLM(Qwen2Config(**TINY_SHAPE)).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sentence_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of random weights with CLS pooling and a word-piece tokenizer trained here."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    base = tmp_path_factory.mktemp("bert")
    tokenizer = BertWordPieceTokenizer()
    tokenizer.train_from_iterator([*TEXTS, *GROUPS, "three adults"], vocab_size=200, show_progress=False)
    torch.manual_seed(4)
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=tokenizer.get_vocab_size(), **shape)).save_pretrained(base / "bert")
    BertTokenizerFast(tokenizer_object=tokenizer._tokenizer).save_pretrained(base / "bert")
    transformer = Transformer(str(base / "bert"), max_seq_length=64)
    SentenceTransformer(modules=[transformer, Pooling(32, pooling_mode="cls")]).save(str(base / "saved"))
    return base / "saved"


@pytest.fixture(scope="session")
def paper_config(language_model_folder: Path, sentence_encoder_folder: Path) -> EngineConfig:
    return QWEN.with_(
        backbone_source=str(language_model_folder),
        encoder_source=str(sentence_encoder_folder),
        encoder_dim=32,
        hidden=64,
        dtype="float32",
        modalities=("purchases",),
        max_query_tokens=160,
    )


@pytest.fixture(scope="session")
def paper(paper_config: EngineConfig) -> QueryAnchorEngine:
    return QueryAnchorEngine.untrained(paper_config, device="cpu")


@pytest.fixture(scope="session")
def engine_named(demo: QueryAnchorEngine, paper: QueryAnchorEngine) -> Callable[[str], QueryAnchorEngine]:
    return {"demo": demo, "paper": paper}.__getitem__


@pytest.fixture(scope="session")
def prefixes_of(users: list[UserSlice]) -> Callable[..., list]:
    def build(engine: QueryAnchorEngine, chosen: Sequence[UserSlice] | None = None) -> list:
        return engine.build_prefixes(users if chosen is None else chosen, RandomVectors(engine.encoder_dim))

    return build
