"""What a Spark failure was about, as one of this package's errors."""

import contextlib
import re
from collections.abc import Iterator

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from qanchor_plugin import errors
from qanchor_plugin.errors import LakeError, MissingVectorsError, QAnchorError

_OURS = re.compile(r"qanchor_plugin\.errors\.(\w+): (.+?)(?:\n\s*\n|\n\s*at |\n\tat |$)", re.DOTALL)
_MISSING = re.compile(r"(\d+) event texts have no vector of encoder (\S+)\.")
_DISK = {
    "No space left on device": "the disk is full",
    "Disk quota exceeded": "the disk quota is used up",
    "Permission denied": "the folder may not be written",
    "Read-only file system": "the file system is read-only",
}


@contextlib.contextmanager
def named_failures(where: str) -> Iterator[None]:
    """A failure of Spark within the block is raised as the error it was about.

    Args:
        where: the table or job, for the message.

    Raises:
        LakeError: full disk, permission. QAnchorError or the subclass that a Python worker raised.
        Anything else passes as it is.
    """
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        known = _known(str(error), where)
        if known is None:
            raise
        raise known from error


def _known(message: str, where: str) -> QAnchorError | None:
    missing = _MISSING.search(message)
    if missing is not None:
        return MissingVectorsError(int(missing.group(1)), encoder_id=missing.group(2))
    ours = _OURS.search(message)
    if ours is not None:
        kind = getattr(errors, ours.group(1), QAnchorError)
        return kind(ours.group(2).strip())
    for sign, meaning in _DISK.items():
        if sign in message:
            return LakeError(
                f"{where}: {meaning}. Nothing of this commit was kept and the lake is readable as it was. "
                "Make room or mend the permission, then run the refresh again: it goes on from here."
            )
    return None
