"""Every error this package raises on purpose.

A message says what was wrong, the value seen, what is accepted, and the next step.
"""

from collections.abc import Sequence


class QAnchorError(Exception):
    """Root of the package's errors: catch this one to catch them all."""


class DeclarationError(QAnchorError):
    """A declaration (modality, profile, scenario, settings) cannot be accepted.

    Attributes:
        faults: one sentence for each fault found, all of them in one go.
    """

    def __init__(self, faults: str | Sequence[str], *, heading: str = "") -> None:
        self.faults = (faults,) if isinstance(faults, str) else tuple(faults)
        if len(self.faults) == 1 and not heading:
            super().__init__(self.faults[0])
            return
        heading = heading or f"{len(self.faults)} faults in the declarations"
        super().__init__(heading + ":\n" + "\n".join(f"  - {fault}" for fault in self.faults))


class MissingExtraError(QAnchorError, ImportError):
    """An optional dependency is not installed; the message names the pip command."""

    def __init__(self, *, extra: str, module: str, purpose: str) -> None:
        self.extra = extra
        super().__init__(
            f"{purpose} needs the package '{module}', which is not installed. "
            f"Run: pip install 'feast-qanchor[{extra}]'"
        )


class InputDataError(QAnchorError):
    """Source rows or request values cannot be used as they are."""


class LakeError(QAnchorError):
    """The lake cannot be read or written (path, permission, space, layout)."""


class EngineError(QAnchorError):
    """An engine folder cannot be loaded, or does not fit what is asked of it."""


class MissingVectorsError(QAnchorError):
    """Event texts have no vector yet: the event-encoding job has not run over them.

    Attributes:
        num_missing: how many distinct texts have none.
    """

    def __init__(self, num_missing: int, *, encoder_id: str) -> None:
        self.num_missing = num_missing
        super().__init__(
            f"{num_missing} event texts have no vector of encoder {encoder_id}. "
            "Run the refresh (feast materialize, or python -m spark_jobs.refresh) to encode them."
        )


class BackendError(QAnchorError):
    """The engine backend could not answer (dead, too slow, over budget)."""


class JobBusyError(QAnchorError):
    """Another run of the same job holds the lake; this one did nothing."""


class OnlineStoreError(QAnchorError):
    """The online store cannot be reached, read or written."""


class OnlineMissError(QAnchorError):
    """Answers are not in the online store, and ``on_miss: error`` forbids to go on without them.

    Attributes:
        num_missing: how many (user, scenario) pairs have none.
    """

    def __init__(self, num_missing: int, *, scenarios: Sequence[str]) -> None:
        self.num_missing = num_missing
        super().__init__(
            f"{num_missing} answers of {list(scenarios)} are not in the online store, not fresh, or of "
            "another version, and feature_store.yaml says 'on_miss: error'. Run feast materialize, or set "
            "on_miss to 'compute' or 'null'."
        )


class OverloadedError(BackendError):
    """A worker refused the request for want of room; nothing was computed.

    Attributes:
        retry_after_ms: when it is worth asking the same worker again; another may answer at once.
    """

    def __init__(self, message: str, *, retry_after_ms: int = 0) -> None:
        self.retry_after_ms = retry_after_ms
        super().__init__(message)


class DrainingError(OverloadedError):
    """A worker is about to end and takes no new requests: ask another."""


class DeadlineError(BackendError):
    """The time that the caller gave was over before the answer was there."""


class UnauthenticatedError(BackendError):
    """A worker does not know the caller: no token, or a wrong one."""


class WrongEngineError(BackendError):
    """The engine asked for is not the one that stands there."""


class BrokenAnswerError(BackendError):
    """A worker's answer is torn, incomplete or not a vector: nothing of it may be used."""
