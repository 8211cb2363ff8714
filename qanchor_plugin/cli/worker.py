"""``qanchor worker``: the process that owns a device and answers for everyone, over Arrow Flight."""

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from qanchor_plugin.cli.output import err
from qanchor_plugin.cli.repo import RepoOption, find_repo, settings_of
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.worker.config import Limits, WorkerConfig
from qanchor_plugin.worker.logs import count_alone, log_as_json

EXAMPLES = (
    "Examples:  qanchor worker --repo .  ·  "
    "qanchor worker --listen 0.0.0.0:8815 --http-port 8816 --token-file token.txt "
    "--tls-cert cert.pem --tls-key key.pem  ·  "
    "qanchor worker --processes 4 --prefix-mb 1024  ·  "
    "qanchor worker --lake /mnt/lake --engine engines/demo --no-lake --json"
)
TOKEN_VARIABLE = "QANCHOR_WORKER_TOKEN"
MEGABYTE = 1024 * 1024


Lake = Annotated[str | None, typer.Option("--lake", help="The lake, where there is no feature repo.")]
Listen = Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Flight; port 0: any free one.")]
HttpPort = Annotated[int, typer.Option("--http-port", help="/live, /ready and /metrics; 0: any free one.")]
Engines = Annotated[
    list[str] | None,
    typer.Option("--engine", help="Preset or folder to answer with; repeatable. Default: the repo's."),
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
Processes = Annotated[
    int, typer.Option("--processes", help="On ports that follow each other; 0: one a CUDA device.")
]
Threads = Annotated[int, typer.Option("--threads", help="CPU threads of a process; 0: the cores shared out.")]
TokenFile = Annotated[
    str, typer.Option("--token-file", help=f"Accepted bearer tokens, one a line (or {TOKEN_VARIABLE}).")
]
TlsCert = Annotated[str, typer.Option("--tls-cert", help="Our certificate, PEM.")]
TlsKey = Annotated[str, typer.Option("--tls-key", help="Its key, PEM.")]
TlsClientCa = Annotated[
    str, typer.Option("--tls-client-ca", help="Callers need a certificate of this authority (mTLS), PEM.")
]
WarmQueries = Annotated[
    list[str] | None, typer.Option("--warm-query", help="Prepared before it is ready; repeatable.")
]
BatchTokens = Annotated[int, typer.Option("--batch-tokens", help="Tokens of one engine call, about.")]
MaxWait = Annotated[float, typer.Option("--max-wait-ms", help="How long a request waits for company.")]
PrefixMb = Annotated[
    int | None, typer.Option("--prefix-mb", help="Memory tier of each process; else the repo's.")
]
MaxQueue = Annotated[int, typer.Option("--max-queue", help="Waiting requests; one more is refused.")]
MaxRows = Annotated[int, typer.Option("--max-rows", help="Rows of one request.")]
Grace = Annotated[float, typer.Option("--grace", metavar="SECONDS", help="To finish what was accepted.")]
NoLake = Annotated[
    bool, typer.Option("--no-lake", help="Ready without a lake: for pools that Spark sends prefixes to.")
]
Events = Annotated[
    bool, typer.Option("--json", help="Events (listening, ready, ...) as JSON lines on stdout.")
]


def worker(
    repo: RepoOption = None,
    lake: Lake = None,
    listen: Listen = "127.0.0.1:8815",
    http_port: HttpPort = 0,
    engine: Engines = None,
    device: Device = None,
    processes: Processes = 0,
    threads: Threads = 0,
    token_file: TokenFile = "",
    tls_cert: TlsCert = "",
    tls_key: TlsKey = "",
    tls_client_ca: TlsClientCa = "",
    warm_query: WarmQueries = None,
    batch_tokens: BatchTokens = WorkerConfig.batch_tokens,
    max_wait_ms: MaxWait = WorkerConfig.max_wait_ms,
    prefix_mb: PrefixMb = None,
    max_queue: MaxQueue = Limits.queue_requests,
    max_rows: MaxRows = Limits.request_rows,
    grace: Grace = WorkerConfig.grace_seconds,
    no_lake: NoLake = False,
    as_json: Events = False,
) -> None:
    """Answer anchor queries for callers on other machines; ends with SIGTERM, reloads with SIGHUP.

    Logs are JSON lines on stderr. See docs/worker.md for sizing, TLS, metrics and alarms.
    """
    settings, where = _settings(repo, lake, device)
    host, port = _address(listen)
    config = WorkerConfig(
        settings=settings,
        repo=where,
        engines=tuple(engine or [settings.engine]),
        warm_queries=tuple(warm_query or ()),
        needs_lake=not no_lake,
        host=host,
        port=port,
        http_port=http_port,
        tls_cert=_absolute(tls_cert),
        tls_key=_absolute(tls_key),
        tls_client_ca=_absolute(tls_client_ca),
        token_file=_absolute(token_file),
        tokens=tuple(filter(None, [os.environ.get(TOKEN_VARIABLE, "")])),
        batch_tokens=batch_tokens,
        max_wait_ms=max_wait_ms,
        prefix_bytes=None if prefix_mb is None else prefix_mb * MEGABYTE,
        grace_seconds=grace,
        limits=Limits(queue_requests=max_queue, request_rows=max_rows),
    )
    _warn_of_open_door(config)
    raise typer.Exit(run(config, processes, threads, as_json))


def run(config: WorkerConfig, processes: int, threads: int, as_json: bool) -> int:
    """Serves until a signal; the exit code."""
    count_alone()
    from qanchor_plugin.worker.process import WorkerProcess, announce_json
    from qanchor_plugin.worker.supervisor import Supervisor, cuda_devices

    log_as_json()
    devices = [] if config.settings.device == "cpu" else cuda_devices()
    number = processes or max(1, len(devices))
    shared_out = max(1, (os.cpu_count() or 1) // number) if number > 1 else 0
    config = replace(config, torch_threads=threads or shared_out)
    announce = announce_json if as_json else _say
    if number > 1:
        return Supervisor(config, number, devices=devices, announce=announce).run()
    code = WorkerProcess(config, announce).run()
    sys.stdout.flush()
    os._exit(code)  # a stream that nobody ends must not hold the exit


def _settings(repo: Path | None, lake: str | None, device: str | None) -> tuple[Settings, str]:
    """The settings, and the folder they are read from again at a reload ("" without one)."""
    where = None if lake else find_repo(repo)
    settings = Settings(lake=str(Path(lake or ".").resolve())) if where is None else settings_of(where)
    settings = settings if device is None else replace(settings, device=device)
    return settings, "" if where is None else str(where)


def _address(listen: str) -> tuple[str, int]:
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InputDataError(f"--listen is {listen!r}; write it as HOST:PORT, such as 0.0.0.0:8815.")
    return host, int(port)


def _absolute(file: str) -> str:
    if not file:
        return ""
    if not Path(file).is_file():
        raise DeclarationError(f"there is no file {file}. Give the path of an existing one.")
    return str(Path(file).resolve())


def _warn_of_open_door(config: WorkerConfig) -> None:
    if config.host in ("127.0.0.1", "localhost", "::1"):
        return
    if not config.token_file and not config.tokens:
        err().print(f"[yellow]anyone who reaches {config.host} may ask[/yellow]: give --token-file")
    if not config.tls_cert:
        err().print("[yellow]tokens and embeddings go unencrypted[/yellow]: give --tls-cert and --tls-key")


def _say(event: dict[str, Any]) -> None:
    name = f"process {event['process']}: " if "process" in event else ""
    typer.echo(name + _words(event))


def _words(event: dict[str, Any]) -> str:
    kind = event["event"]
    engines = ", ".join(f"{name} ({digest[:8]})" for name, digest in event.get("engines", {}).items())
    if kind == "listening":
        return f"listening at {event['address']}, health at {event['health']}/ready (pid {event['pid']})"
    if kind == "ready":
        if event["lake"] is None:
            return f"ready: {engines}; only for prefixes that are sent"
        tiers = ", then ".join(event["tiers"])
        return f"ready: {engines} over the lake {event['lake']}; prefixes from {tiers}, else built"
    if kind == "reloaded":
        return f"reloaded: {engines}"
    if kind in ("failed", "reload_failed"):
        return f"{kind.replace('_', ' ')}: {event['error']}"
    if kind == "died":
        return f"died with {event['code']}; starting it again in {event['restart_seconds']:.1f} s"
    return "ended; every accepted request was answered" if event.get("clean") else "ended; some were cut off"
