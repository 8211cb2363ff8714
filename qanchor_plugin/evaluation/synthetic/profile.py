"""The synthetic world as a declared profile: what a feature repo or a job would declare."""

from datetime import timedelta

from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.evaluation.synthetic.vocabulary import MODALITIES
from qanchor_plugin.evaluation.synthetic.world import TEXT_COLUMN


def synthetic_profile(folder: str, *, suffix: str = "", file_format: str = "delta") -> Profile:
    """Six modalities over ``<folder>/<table><suffix>`` (``.parquet`` for files of ``write_world``)."""

    def source(name: str) -> SourceSpec:
        return SourceSpec(
            name=f"synthetic_{name}",
            path=f"{folder.rstrip('/')}/{name}{suffix}",
            format=file_format,
            event_at="event_timestamp",
        )

    events = [
        Modality(
            name,
            source(name),
            f"{{{TEXT_COLUMN[name]}}}",
            group_by=("thing",),
            amounts=("amount",) if name == "payments" else (),
        )
        for name in MODALITIES
    ]
    tabular = Modality(
        "tabular",
        source("tabular"),
        "age {age_band}, lives in a {city_tier}, {device}, customer for {tenure_months} months",
        kind="tabular",
    )
    user = EntityRef(name="user", join_key="user_id", value_type="INT64")
    return Profile("synthetic_user", user, [*events, tabular], window=timedelta(days=180))
