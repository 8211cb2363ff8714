"""``anchor_view``: one anchor query, declared as a plain Feast feature view."""

from collections.abc import Mapping
from datetime import timedelta

from feast import Entity, FeatureView, Field, ValueType
from feast.types import from_value_type

from qanchor_plugin.declare import Profile, Scenario
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.anchor_source import FIELD_TYPES, AnchorSource
from qanchor_plugin.feast_ext.tags import MODE, PREFIX, field_tags, view_tags
from qanchor_plugin.schemas import EMBEDDING, EMBEDDING_DIM


def anchor_view(
    name: str,
    query: str,
    profile: Profile,
    ttl: timedelta | None = None,
    *,
    engine: str | None = None,
    soft_prompt: str | None = None,
    owner: str = "",
    tags: Mapping[str, str] | None = None,
    online: bool = True,
    on_push: str | None = None,
) -> FeatureView:
    """A feature view whose ``embedding`` answers ``query`` for every user of ``profile``.

    Args:
        name: slug; the view's name.
        query: the question about a user, in plain language.
        profile: which behaviour is read.
        ttl: how long an answer may be served; None or zero is for ever.
        engine: preset or folder; None is the store's ``qanchor: engine:``, frozen at apply.
        soft_prompt: folder of a tuned soft prompt of that engine; a relative one is of the folder where feast
            apply runs, and is registered as an absolute path.
        owner: who answers for it, often an email address.
        tags: your own; ``qanchor.mode`` (``exact`` or ``as_served``) overrides the store's mode.
        online: whether answers are written to the online store.
        on_push: what a read does whose stored answer lacks a pushed event: ``recompute_first`` (None) or
            ``stale_and_recompute_behind``; see docs/fresh-events.md.

    Raises:
        DeclarationError: what can be seen to be wrong without reading anything.
    """
    if not isinstance(profile, Profile):
        raise DeclarationError(
            f"anchor_view {name!r}: profile is a {type(profile).__name__}; give the Profile object itself, "
            "declared once and imported."
        )
    own_tags = _checked_tags(name, tags or {})
    scenario = Scenario(
        name=name,
        query=query,
        profile=profile.name,
        ttl=ttl or timedelta(0),
        engine=engine,
        soft_prompt=soft_prompt,
        owner=owner,
        tags={key: value for key, value in own_tags.items() if key != MODE},
        online=online,
        mode=own_tags.get(MODE),
        on_push=on_push,
    )
    source = AnchorSource(scenario, profile, owner=owner)
    view = FeatureView(
        name=name,
        source=source,
        entities=_entities(profile),
        schema=_fields(scenario, profile),
        ttl=scenario.ttl,
        online=online,
        description=query,
        tags=view_tags(scenario, profile),
        owner=owner,
    )
    source.bind(view)
    return view


def _checked_tags(name: str, tags: Mapping[str, str]) -> dict[str, str]:
    reserved = sorted(key for key in tags if key.startswith(PREFIX) and key != MODE)
    if reserved:
        raise DeclarationError(
            f"anchor_view {name!r}: tags {reserved} are written by qanchor; of these only {MODE!r} is yours."
        )
    return dict(tags)


def _entities(profile: Profile) -> list[Entity]:
    return [
        Entity(name=entity.name, join_keys=[entity.join_key], value_type=ValueType[entity.value_type])
        for entity in profile.entities
    ]


def _fields(scenario: Scenario, profile: Profile) -> list[Field]:
    plain = [Field(name=name, dtype=dtype) for name, dtype in FIELD_TYPES.items() if name != EMBEDDING]
    embedding = Field(
        name=EMBEDDING,
        dtype=FIELD_TYPES[EMBEDDING],
        description=scenario.query,
        tags=field_tags(scenario, profile),
        vector_index=True,
        vector_length=EMBEDDING_DIM,
        vector_search_metric="cosine",
    )
    keys = [
        Field(name=entity.join_key, dtype=from_value_type(ValueType[entity.value_type]))
        for entity in profile.entities
    ]
    return [*keys, embedding, *plain]
