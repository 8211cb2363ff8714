"""The engines and users of the engine's own tests, and labels that the users' behaviour decides."""

from tests.unit.engine.conftest import (  # noqa: F401  (fixtures)
    _one_thread,
    demo,
    engine_named,
    language_model_folder,
    make_user,
    paper,
    paper_config,
    prefixes_of,
    profile,
    sentence_encoder_folder,
    users,
)
