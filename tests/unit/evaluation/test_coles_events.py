"""What CoLES is given: everything before the cut, nothing after it, in time order."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.coles.run import NUM_CATEGORIES, journey_events
from qanchor_plugin.evaluation.journey import read_journey

DATA = Path(__file__).parents[3] / "feast_repo" / "data"


@pytest.mark.parametrize(("cut", "last_day"), [("2017-06-01", 150), ("2017-09-01", 242)])
def test_events_stop_at_the_cut(cut, last_day):
    journey = read_journey(DATA)
    events = journey_events(journey, pd.Timestamp(cut))
    num_events = (
        (journey.purchases["bought_at"] < cut).sum()
        + (journey.campaigns["started_at"] < cut).sum()
        + (journey.redemptions["redeemed_at"] < cut).sum()
    )
    assert {len(values) for values in events.values()} == {num_events}
    assert events["event_time"].max() == last_day  # 2017-05-31 and 2017-08-31 from 2017-01-01
    order = np.lexsort((events["event_time"], events["household_id"]))
    assert (order == np.arange(num_events)).all()
    assert events["category"].min() >= 1
    assert events["category"].max() <= NUM_CATEGORIES + 1
    assert np.isfinite(events["amount"]).all()
