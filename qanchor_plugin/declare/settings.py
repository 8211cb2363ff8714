"""The ``qanchor:`` section of feature_store.yaml."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qanchor_plugin.declare.checks import raise_faults, reject_unknown_keys
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import DeclarationError

ON_MISS = ("compute", "null", "error")
SPARK_EMBEDS_ON = ("executors", "workers")
KV_MODES = ("auto", "never", "always")
KV_SCHEMES = ("auto", "bf16", "int8")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the lake stands, what time it is, and how misses are answered.

    Attributes:
        lake: folder of our Delta tables, one that every machine of a job sees under this path.
        clock: the "now" of ttl, cutoff and misses; None is the wall clock. For data that ended.
        engine: default engine of scenarios that name none: a preset or a folder.
        device: ``auto`` (cuda when it is there), ``cpu`` or ``cuda``.
        on_miss: ``compute`` the embedding, answer ``null``, or raise an ``error``.
        max_compute_ms: most milliseconds one online request may spend on its misses.
        spark_master: where the jobs run; None is what ``spark-submit`` says, else ``local[*]``.
        spark_conf: further Spark settings, over our defaults.
        log_folder: where Spark's own output goes.
        user_buckets: partitions of users in the lake (default 1: few large files).
        max_bad_row_share: a job stops above this share of unusable source rows (0 to 1).
        users_per_batch: users whose prefixes are built in one engine call.
        pushed_days: how long a pushed event is waited for that the batch does not bring.
        worker: the pool that computes for this store; None computes in this process.
        spark_embeds_on: whether jobs embed on their ``executors`` or through the ``workers``.
        spark_gpus: GPUs of each task that runs the engine, by a stage-level resource profile; 0 is none.
        spark_task_cpus: cores of each such task; 0 is Spark's own ``spark.task.cpus``.
        look_back_days: of sources that are not Delta, events this long before the newest one known are read
            again at every refresh; what changed before that is seen by a full one.
        max_misses_per_second: users a second whose misses are computed online; 0 is without limit.
        kv: keys and values beside the soft tokens: ``auto`` (where ``qanchor calibrate`` found that loading
            them is quicker than a prefill), ``never`` or ``always``.
        kv_scheme: ``bf16``, ``int8``, or ``auto``: the first of them that pays.
        calibration: file of this machine's constants; None is ``<lake>/_calibration/<machine>.json``.
        prefix_memory_bytes: bound of the memory tier of prefixes, a process.
        prefix_folder: folder of the disk tier, on a local disk; None has none.
        prefix_folder_bytes: bound of the disk tier, all processes together.
    """

    lake: str
    clock: datetime | None = None
    engine: str = "demo"
    device: str = "auto"
    on_miss: str = "compute"
    max_compute_ms: int = 2000
    spark_master: str | None = None
    spark_conf: Mapping[str, str] = field(default_factory=dict)
    log_folder: str = "logs"
    user_buckets: int = 1
    max_bad_row_share: float = 0.01
    users_per_batch: int = 64
    pushed_days: int = 7
    worker: WorkerSettings | None = None
    spark_embeds_on: str = "executors"
    spark_gpus: int = 0
    spark_task_cpus: int = 0
    look_back_days: float = 7.0
    max_misses_per_second: float = 0.0
    kv: str = "auto"
    kv_scheme: str = "auto"
    calibration: str | None = None
    prefix_memory_bytes: int = 256 * 1024 * 1024
    prefix_folder: str | None = None
    prefix_folder_bytes: int = 10 * 1024 * 1024 * 1024

    def __post_init__(self) -> None:
        faults = []
        if self.on_miss not in ON_MISS:
            faults.append(f"on_miss is {self.on_miss!r}; accepted are {list(ON_MISS)}.")
        if not 0 <= self.max_bad_row_share <= 1:
            faults.append(f"max_bad_row_share is {self.max_bad_row_share}; it is a share, 0 to 1.")
        for name in ("look_back_days", "max_misses_per_second"):
            if not getattr(self, name) >= 0:
                faults.append(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if self.device not in ("auto", "cpu", "cuda"):
            faults.append(f"device is {self.device!r}; accepted are auto, cpu and cuda.")
        if self.kv not in KV_MODES:
            faults.append(f"kv is {self.kv!r}; accepted are {list(KV_MODES)}.")
        if self.kv_scheme not in KV_SCHEMES:
            faults.append(f"kv_scheme is {self.kv_scheme!r}; accepted are {list(KV_SCHEMES)}.")
        for name in ("prefix_memory_bytes", "prefix_folder_bytes"):
            if getattr(self, name) < 0:
                faults.append(f"{name} is {getattr(self, name)}; it is a number of bytes, 0 or more.")
        for name in ("max_compute_ms", "user_buckets", "users_per_batch", "pushed_days"):
            if getattr(self, name) < 1:
                faults.append(f"{name} is {getattr(self, name)}; it must be 1 or more.")
        faults += self._spark_faults()
        raise_faults([f"feature_store.yaml, qanchor: {fault}" for fault in faults])

    def _spark_faults(self) -> list[str]:
        faults = [
            f"{name} is {getattr(self, name)}; it must be 0 or more."
            for name in ("spark_gpus", "spark_task_cpus")
            if getattr(self, name) < 0
        ]
        if self.spark_embeds_on not in SPARK_EMBEDS_ON:
            faults.append(
                f"spark_embeds_on is {self.spark_embeds_on!r}; accepted are {list(SPARK_EMBEDS_ON)}."
            )
        elif self.spark_embeds_on == "workers" and self.worker is None:
            faults.append("spark_embeds_on is 'workers', and there is no 'worker:' section that says where.")
        return faults

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any] | None, *, repo_path: Path) -> "Settings":
        """The settings of a feature repo, relative paths made absolute.

        Args:
            given: the parsed ``qanchor:`` section.
            repo_path: folder of feature_store.yaml.

        Raises:
            DeclarationError: no section, no lake, or an unknown or unusable key.
        """
        if not given or not given.get("lake"):
            raise DeclarationError(
                f"{repo_path / 'feature_store.yaml'} has no 'qanchor: lake:'; "
                "add it: the folder where our Delta tables stand."
            )
        reject_unknown_keys("feature_store.yaml, qanchor", given, {one.name for one in fields(cls)})
        values = dict(given)
        values["lake"] = _absolute(str(values["lake"]), repo_path)
        values["log_folder"] = _absolute(str(values.get("log_folder", "logs")), repo_path)
        for name in ("calibration", "prefix_folder"):
            if values.get(name) is not None:
                values[name] = _absolute(str(values[name]), repo_path)
        if "engine" in values and (repo_path / str(values["engine"])).is_dir():
            values["engine"] = str((repo_path / str(values["engine"])).resolve())
        if "on_miss" in values and values["on_miss"] is None:
            values["on_miss"] = "null"  # YAML reads a bare null as None
        if values.get("clock") is not None:
            values["clock"] = _instant(values["clock"])
        if values.get("worker") is not None:
            values["worker"] = WorkerSettings.from_mapping(values["worker"], repo_path=repo_path)
        values["spark_conf"] = {k: str(v) for k, v in (values.get("spark_conf") or {}).items()}
        return cls(**values)

    def now(self) -> datetime:
        """The instant that counts as now (UTC): the clock's, else the wall's."""
        return self.clock if self.clock is not None else datetime.now(UTC)


def _absolute(path: str, base: Path) -> str:
    if "://" in path:
        return path.rstrip("/")
    return str((base / path).resolve())


def _instant(value: Any) -> datetime:
    try:
        instant = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DeclarationError(
            f"feature_store.yaml, qanchor: clock is {value!r}; write it as 2018-01-01T00:00:00Z."
        ) from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
