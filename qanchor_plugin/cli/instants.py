"""Instants as people write and read them."""

from datetime import UTC, datetime, timedelta

from qanchor_plugin.errors import InputDataError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ONE_MICROSECOND = timedelta(microseconds=1)


def parse_instant(option: str, text: str) -> datetime:
    """An ISO instant in UTC; one without a zone is taken as UTC.

    Raises:
        InputDataError: it is not one.
    """
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputDataError(f"{option} {text!r} is no instant; write it as 2018-01-01T00:00:00Z.") from error
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


def to_micros(instant: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (instant - EPOCH) // ONE_MICROSECOND


def from_micros(micros: int | None) -> datetime | None:
    """The instant of microseconds since 1970 UTC; None stays None."""
    return None if micros is None else EPOCH + micros * ONE_MICROSECOND


def iso(instant: datetime | None) -> str | None:
    """``2018-01-01T00:00:00Z``; None stays None."""
    return None if instant is None else instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def human_duration(seconds: float) -> str:
    """A span as people say it: 40 s, 12 min, 5 h, 3 days."""
    for size, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2f} s"
