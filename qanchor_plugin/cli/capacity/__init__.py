"""``qanchor plan``: devices, storage and cores that a demand needs, and what one more scenario costs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import human_bytes, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, find_repo, settings_of
from qanchor_plugin.errors import DeclarationError, QAnchorError

EXAMPLES = (
    "Examples:  qanchor plan --users 1000000 --events-per-day 2000000 --scenarios 20  ·  "
    "qanchor plan --users 3e8 --events-per-day 1e9 --scenarios 50 --device L20  ·  "
    "qanchor plan --users 1e6 --events-per-day 2e6 --scenarios 20 --calibration gpu.json --json"
)
HERE = "here"


def plan(
    users: Annotated[float, typer.Option("--users", help="Known users.")],
    events_per_day: Annotated[float, typer.Option("--events-per-day", help="Of all users together.")],
    scenarios: Annotated[int, typer.Option("--scenarios", help="Registered anchor queries.")],
    window_hours: Annotated[
        float, typer.Option("--window-hours", help="A refresh must fit into this.")
    ] = 6.0,
    online_qps: Annotated[
        float, typer.Option("--online-qps", help="Requests a second that miss the online store.")
    ] = 0.0,
    tokens: Annotated[int, typer.Option("--tokens", help="Prefix tokens of a user.")] = 700,
    dirty_share: Annotated[
        float | None, typer.Option("--dirty-share", help="Users refreshed a day; else from events.")
    ] = None,
    device: Annotated[
        str, typer.Option("--device", help="here (measured), or H200, A100, L20 (datasheet).")
    ] = HERE,
    calibration: Annotated[
        Path | None, typer.Option("--calibration", metavar="FILE", help="Constants measured elsewhere.")
    ] = None,
    spark_core_seconds: Annotated[
        float, typer.Option("--spark-core-seconds", help="Of a dirty user, outside the engine.")
    ] = 0.165,
    kv: Annotated[str, typer.Option("--kv", help="Stored beside soft tokens: none, bf16 or int8.")] = "none",
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Devices, storage by table, Spark cores, and the marginal cost of one more scenario.

    From constants that qanchor calibrate measured, or from datasheets, which is said.
    """
    from qanchor_plugin.cli.capacity.demand import Demand

    with noise_to_stderr():
        demand = Demand(
            users=int(users),
            events_per_day=int(events_per_day),
            scenarios=scenarios,
            window_hours=window_hours,
            online_qps=online_qps,
            tokens=tokens,
            dirty_share=dirty_share,
            spark_core_seconds=spark_core_seconds,
        )
        told = answer(demand, device=device, calibration=calibration, kv=kv, repo=repo)
    if as_json:
        print_json(told)
    else:
        _print(told)


def answer(
    demand: Any, *, device: str, calibration: Path | None, kv: str, repo: Path | None
) -> dict[str, Any]:
    """The plan, as JSON-like values.

    Raises:
        QAnchorError: an unknown device or scheme, or no constants of this machine.
    """
    from qanchor_plugin.cli.capacity.arithmetic import planned
    from qanchor_plugin.cli.capacity.costs import datasheet_costs, measured_costs
    from qanchor_plugin.cli.capacity.devices import DATASHEETS, QWEN_05B
    from qanchor_plugin.prefix_store import Calibration

    if kv not in ("none", "bf16", "int8"):
        raise DeclarationError(f"--kv is {kv!r}; accepted are none, bf16 and int8.")
    if device != HERE and calibration is None:
        known = {name.lower(): one for name, one in DATASHEETS.items()}
        if device.lower() not in known:
            raise DeclarationError(
                f"device {device!r} has no datasheet here; accepted are {HERE} and {', '.join(DATASHEETS)}. "
                "For another, run qanchor calibrate on it and give --calibration FILE."
            )
        costs = datasheet_costs(known[device.lower()], QWEN_05B, demand)
    else:
        costs = measured_costs(Calibration.read(calibration or _own_file(repo)), demand)
    return planned(demand, costs, kv_scheme=None if kv == "none" else kv)


def _own_file(repo: Path | None) -> Path:
    from qanchor_plugin.prefix_store import calibration_path

    settings = settings_of(find_repo(repo))
    path = calibration_path(settings.lake, settings.calibration)
    if path is None or not path.exists():
        raise QAnchorError(
            f"there are no constants of this machine ({path}). Run qanchor calibrate, give --calibration "
            "FILE, or plan from a datasheet: --device L20."
        )
    return path


def _print(told: dict[str, Any]) -> None:
    from rich.table import Table

    console, devices, scenario = out(), told["devices"], told["scenario"]
    measured = told["basis"] == "measured"
    label = "measured" if measured else "[yellow]datasheet arithmetic, not measured[/yellow]"
    kind = "CPU hosts" if told["device"] == "cpu" else "devices"
    console.print(f"[bold]{devices['to_have']:,} {kind}[/bold] of {told['device']} ({label})", soft_wrap=True)
    share, stored = scenario["share_of_refresh_one_more"], human_bytes(scenario["storage_one_more_bytes"])
    shown = Table(box=None, pad_edge=False, show_header=False)
    for name, figure in (
        ("dirty users a day", f"{told['dirty_users_per_day']:,}"),
        ("refresh", f"{devices['refresh']:.2f} {kind}, {devices['refresh_hours_on_one']:,.1f} h on one"),
        ("online misses", f"{devices['online']:.2f} {kind}"),
        ("Spark cores", f"{told['spark_cores']:,}"),
        ("each scenario", f"{scenario['devices_each']:.3f} {kind}"),
        (
            "one more scenario",
            f"{scenario['devices_one_more']:.4f} {kind} ({share:.2%} of the refresh), {stored}",
        ),
        *((table, human_bytes(size)) for table, size in told["storage_bytes"].items()),
    ):
        shown.add_row(name, figure)
    console.print(shown)
    for sentence in told["assumptions"]:
        console.print(f"[dim]assumed[/dim] {sentence}", soft_wrap=True)
