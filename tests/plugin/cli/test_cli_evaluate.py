"""``qanchor evaluate``: what is refused before anything is read; the shop's lake is too small for more."""

from pathlib import Path

import pandas as pd
import pytest

from tests.qanchor_command import Qanchor


def _labels(folder: Path, **changes) -> str:
    frame = pd.DataFrame(
        {
            "household_id": range(1, 31),
            "event_timestamp": "2018-01-01T00:00:00Z",
            "bought": [1] * 12 + [0] * 18,
        }
    )
    path = folder / "labels.csv"
    frame.assign(**changes).to_csv(path, index=False)
    return str(path)


@pytest.mark.parametrize(
    ("arguments", "changes", "told"),
    [
        (("dairy_buyers",), {}, "there is no scenario 'dairy_buyers'. Did you mean 'dairy_buyer'?"),
        (("dairy_buyer",), {"bought": 1}, "there is one class only"),
        (
            ("dairy_buyer",),
            {"bought": [1] * 4 + [0] * 26},
            "4 of 30 labels are positive, of 4 users; the others are of 26. Each class needs 10",
        ),
        (
            ("dairy_buyer",),
            {"household_id": 7},
            "30 rows name a user that stands more than once at one instant",
        ),
        (("dairy_buyer",), {"event_timestamp": "soon"}, "holds what is no instant"),
        (("dairy_buyer", "--label-column", "churned"), {}, "no column ['churned']"),
        (("dairy_buyer", "--against", "everything"), {}, "accepted is 'untrained'"),
        (("dairy_buyer", "--report", "page.txt"), {}, "must end in .html"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_in_one_message(
    qanchor: Qanchor, in_shop: Path, tmp_path: Path, arguments: tuple[str, ...], changes: dict, told: str
) -> None:
    column = () if "--label-column" in arguments else ("--label-column", "bought")
    said = qanchor("evaluate", *arguments, "--labels", _labels(tmp_path, **changes), *column)
    assert (said.code, said.out) == (1, "")
    assert told in " ".join(said.err.split())
    assert "Traceback" not in said.err


def test_an_absent_file_is_named(qanchor: Qanchor, in_shop: Path) -> None:
    said = qanchor("evaluate", "dairy_buyer", "--labels", "absent.csv", "--label-column", "bought")
    assert said.code == 1
    assert "cannot be read" in said.err
