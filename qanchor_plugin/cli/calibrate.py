"""``qanchor calibrate``: what this machine's engine and storage cost, so that the KV policy is computed."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qanchor_plugin.cli.output import err, human_bytes, noise_to_stderr, out, print_json
from qanchor_plugin.cli.repo import JsonOption, RepoOption, find_repo, settings_of
from qanchor_plugin.errors import LakeError

if TYPE_CHECKING:
    from qanchor_plugin.prefix_store import Calibration

EXAMPLES = (
    "Examples:  qanchor calibrate  ·  qanchor calibrate --tokens 128 --tokens 700 --json  ·  "
    "qanchor calibrate --engine qwen2.5-0.5b --output calibration.json"
)


def calibrate(
    tokens: Annotated[
        list[int] | None,
        typer.Option("--tokens", help="A prefix length to measure at; repeat it (64, 256 and 700)."),
    ] = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="Preset or folder; by default the repo's.")
    ] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Each figure is their least.")] = 3,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where the constants go.")
    ] = None,
    repo: RepoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure prefill, queries, decoding and every tier here; say from which length a load pays.

    Workers and jobs of this machine read the file it writes (setting kv: auto).
    """
    with noise_to_stderr():
        path, costs = run(repo, engine, tokens, repeats, output)
    rows = break_even(costs)
    if as_json:
        import json

        print_json({"file": str(path), "constants": json.loads(costs.to_json()), "break_even": rows})
    else:
        _print(path, costs, rows)


def run(
    repo: Path | None, engine: str | None, tokens: list[int] | None, repeats: int, output: Path | None
) -> "tuple[Path, Calibration]":
    """The constants stand in a file; its path and they.

    Raises:
        QAnchorError: no repo, no such engine, or a lake that is no folder and no file given.
    """
    from qanchor_plugin.backend.calibrate import LENGTHS, calibrate
    from qanchor_plugin.backend.engines import shared_engine
    from qanchor_plugin.prefix_store import calibration_path

    settings = settings_of(find_repo(repo))
    path = output or calibration_path(settings.lake, settings.calibration)
    if path is None:
        raise LakeError(
            f"lake {settings.lake!r} is not a folder. Say where the constants go: set qanchor: calibration: "
            "in feature_store.yaml, or give --output FILE."
        )
    lake = path.parent if "://" in settings.lake else Path(settings.lake)
    disk = None if settings.prefix_folder is None else Path(settings.prefix_folder)
    with err().status("loading the engine") as shown:
        loaded = shared_engine(engine or settings.engine, settings.device)
        costs = calibrate(
            loaded,
            lake=lake,
            disk=disk,
            lengths=tokens or LENGTHS,
            repeats=repeats,
            progress=shown.update,
        )
    costs.write(path)
    return path, costs


def break_even(costs: "Calibration") -> list[dict[str, Any]]:
    """For every tier and scheme at the longest measured prefix: load against prefill, and the least length
    and bandwidth that pay (None where none does)."""
    length = int(costs.prefill[-1][0])
    prefill = costs.prefill_seconds(length)
    rows = []
    for tier, speed in costs.tiers.items():
        for scheme in costs.kv_bytes:
            size, load = costs.stored_bytes(scheme, length), costs.load_seconds(tier, scheme, length)
            left = prefill - (load - size / speed.bytes_per_second)
            rows.append(
                {
                    "tier": tier,
                    "scheme": scheme,
                    "tokens": length,
                    "bytes": round(size),
                    "load_seconds": load,
                    "prefill_seconds": prefill,
                    "pays": load < prefill,
                    "pays_from_tokens": _least_length(costs, tier, scheme),
                    "break_even_bytes_per_second": size / left if left > 0 else None,
                }
            )
    return rows


def _least_length(costs: "Calibration", tier: str, scheme: str) -> int | None:
    lengths = range(16, 4097, 16)
    return next((n for n in lengths if costs.load_seconds(tier, scheme, n) < costs.prefill_seconds(n)), None)


def _print(path: Path, costs: "Calibration", rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    console = out()
    console.print(f"[bold]{costs.engine}[/bold] ({costs.dtype}) on {costs.device}: {costs.machine}")
    told = ", ".join(f"{int(tokens)} tokens {1000 * spent:.1f} ms" for tokens, spent in costs.prefill)
    console.print(f"prefill a user: {told}", soft_wrap=True)
    asked = ", ".join(f"{int(count)}: {1000 * spent:.1f} ms" for count, spent in costs.suffix)
    console.print(f"queries over {costs.suffix_tokens} cached tokens: {asked}", soft_wrap=True)
    shown = Table(box=None, pad_edge=False)
    for heading in ("tier", "scheme", "a user", "load", "prefill", "pays", "from tokens"):
        shown.add_column(heading, justify="left" if heading in ("tier", "scheme", "pays") else "right")
    for row in rows:
        shown.add_row(
            row["tier"],
            row["scheme"],
            human_bytes(row["bytes"]),
            f"{1000 * row['load_seconds']:.1f} ms",
            f"{1000 * row['prefill_seconds']:.1f} ms",
            "[green]yes[/green]" if row["pays"] else "no",
            "never" if row["pays_from_tokens"] is None else str(row["pays_from_tokens"]),
        )
    console.print(shown)
    console.print(f"Written to {path}; 'kv: auto' uses it.", soft_wrap=True)
