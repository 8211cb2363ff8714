"""``qanchor scenarios``: the registered questions, and everything about one of them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.instants import human_duration
from qanchor_plugin.cli.output import noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, Repo, RepoOption, opened, unknown
from qanchor_plugin.errors import DeclarationError

if TYPE_CHECKING:
    from qanchor_plugin.declare import Profile, Scenario

EXAMPLES = "Examples:  qanchor scenarios  ·  qanchor scenarios coupon_redeemer  ·  qanchor scenarios --json"


def scenarios(
    name: Annotated[str | None, typer.Argument(help="One scenario, explained.")] = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the registered scenarios, or explain one: identity, engine, versions, coverage, how to read it."""
    with noise_to_stderr(), opened(repo) as here:
        found: Any = listed(here) if name is None else explained(here, name)
    if as_json:
        print_json(found)
    elif name is None:
        _print_list(found)
    else:
        _print_one(found)


def listed(here: Repo) -> list[dict[str, Any]]:
    """Every registered scenario, in short."""
    return [_short(one) for _, one in sorted(here.declarations().scenarios.items())]


def explained(here: Repo, name: str) -> dict[str, Any]:
    """Everything about one scenario.

    Raises:
        DeclarationError: no such scenario; lists those there are.
    """
    from qanchor_plugin.backend.lake_reader import LakeReader
    from qanchor_plugin.cli.lake_report import scenario_report
    from qanchor_plugin.prefix_store import LakeTables

    declared = here.declarations()
    if name not in declared.scenarios:
        raise DeclarationError(unknown("scenario", name, list(declared.scenarios)))
    scenario = declared.scenarios[name]
    profile = declared.profile_of(scenario)
    reader = LakeReader(LakeTables(here.settings.lake))
    return {
        **_short(scenario),
        "scenario_id": declared.scenario_id(scenario),
        "engine_digest": scenario.engine_digest,
        "soft_prompt": scenario.soft_prompt,
        "soft_prompt_digest": scenario.soft_prompt_digest,
        "profile_digest": profile.digest,
        "modalities": [modality.name for modality in profile.modalities],
        "window_days": None if profile.window is None else profile.window.days,
        "tags": dict(scenario.tags),
        "online": scenario.online,
        "mode": scenario.mode or "the store's default",
        "versions": _versions(here, name),
        "query_tokens": _query_tokens(scenario),
        "lake": scenario_report(reader, declared, scenario, here.settings.now()),
        "read": how_to_read(scenario, profile),
    }


def how_to_read(scenario: "Scenario", profile: "Profile") -> dict[str, str]:
    """Lines to copy: the online read, the historical read, the curl."""
    values = {one.join_key: 7 if one.value_type.startswith("INT") else "a" for one in profile.entities}
    keys = ", ".join(f'"{key}": {value!r}'.replace("'", '"') for key, value in values.items())
    feature = f"{scenario.name}:embedding"
    columns = ", ".join(f'"{one.join_key}"' for one in profile.entities)
    body = f'{{"features": ["{feature}"], "entities": {{{_listed(values)}}}, "full_feature_names": true}}'
    return {
        "online": f'store.get_online_features(["{feature}"], [{{{keys}}}], full_feature_names=True)'
        ".to_dict()",
        "offline": f'store.get_historical_features(entity_df, ["{feature}"], full_feature_names=True).to_df()'
        f'  # entity_df has {columns}, "event_timestamp"',
        "http": f"curl -s localhost:6566/get-online-features -d '{body}'  # after: feast serve",
    }


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f'"{key}": [{value!r}]'.replace("'", '"') for key, value in values.items())


def _short(scenario: "Scenario") -> dict[str, Any]:
    return {
        "scenario": scenario.name,
        "query": scenario.query,
        "profile": scenario.profile,
        "engine": scenario.engine,
        "ttl_seconds": scenario.ttl.total_seconds(),
        "owner": scenario.owner,
    }


def _versions(here: Repo, name: str) -> list[dict[str, Any]]:
    try:
        found = here.registry.list_feature_view_versions(name, here.config.project)
    except NotImplementedError:  # feast's remote registries keep versions to themselves
        return []
    return [
        {"version": f"v{one['version_number']}", "created_at": str(one.get("created_timestamp") or "")}
        for one in found
    ]


def _query_tokens(scenario: "Scenario") -> int | None:
    """Tokens of the query in the scenario's engine; None where no engine can be loaded here."""
    from importlib.util import find_spec

    from qanchor_plugin.extras import EXTRA_OF_MODULE

    if any(find_spec(module) is None for module, extra in EXTRA_OF_MODULE.items() if extra == "engine"):
        return None
    from qanchor_plugin.feast_ext.engine_facts import engine_facts

    return engine_facts(str(scenario.engine), "cpu").count_query_tokens(scenario.query)


def _print_list(found: list[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("scenario", "profile", "engine", "ttl", "query"):
        table.add_column(heading, overflow="fold")
    for one in found:
        table.add_row(one["scenario"], one["profile"], str(one["engine"]), _ttl(one), one["query"])
    out().print(table)


def _print_one(found: dict[str, Any]) -> None:
    from rich.markup import escape

    lake = found["lake"]
    window = "all history" if found["window_days"] is None else f"{found['window_days']} days"
    share = "" if lake["coverage"] is None else f" ({lake['coverage']:.1%})"
    tokens = (
        "unknown: the engine is not installed here"
        if found["query_tokens"] is None
        else found["query_tokens"]
    )
    lines = {
        "scenario": f"{found['scenario']} ({', '.join(one['version'] for one in found['versions']) or 'v0'})",
        "query": found["query"],
        "cost": f"{tokens} query tokens a user, after one shared prefix",
        "profile": f"{found['profile']}: {', '.join(found['modalities'])}; window {window}",
        "engine": f"{found['engine']} ({found['engine_digest']})",
        "soft prompt": found["soft_prompt"] or "none",
        "identity": found["scenario_id"],
        "ttl": _ttl(found),
        "owner": found["owner"] or "nobody named",
        "mode": found["mode"],
        "complete to": lake["complete_to"] or "never materialised",
        "covered": f"{lake['covered']:,} of {lake['known']:,} users{share}",
        **found["read"],
    }
    for name, text in lines.items():
        out().print(f"[bold]{name:12}[/bold] {escape(str(text))}", soft_wrap=True)


def _ttl(one: dict[str, Any]) -> str:
    return "for ever" if not one["ttl_seconds"] else human_duration(one["ttl_seconds"])
