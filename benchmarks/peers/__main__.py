"""The engine and its peers, side by side: one model of Qwen2.5-0.5B's shape with random weights.

    python -m benchmarks.peers [--quick] [--peers transformers,vllm] [--dtypes bfloat16] [--prefixes 256]

Every round visits every peer, each in a process and, where it needs one, an environment of its own
(made below build/peers; a peer that cannot be had is named and left out). A figure is the fastest
repetition over all rounds; its spread is how much slower the median was. A repetition of twenty seconds is
not repeated within a round.
"""

import argparse
import json
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.devices import add_devices, chosen, dtypes_on, rows_on, table_on
from benchmarks.peers.environments import FOLDER, PEERS, PeerError, command
from benchmarks.peers.picture import CASES, draw, unit_of
from benchmarks.qwen_shape import write_engine
from benchmarks.results import ROOT, Row, as_run, keep, machine

COMMAND = "python -m benchmarks.peers"
PICTURE = ROOT / "docs" / "pictures" / "peers.svg"
SHOWN_DTYPE, SHOWN_PREFIX = "float32", 256
"""Their tables have the plain names; others end with the dtype and the prefix, so a run replaces its own."""
RUN_SECONDS = 7200
Key = tuple[str, int, str, int, str]
"""dtype, prefix, case, number of queries, peer."""


@dataclass
class Measured:
    """What was measured on one device.

    Attributes:
        seconds, users: of each repetition, and how many users it read.
        states: by dtype and peer, for comparing the peers' answers.
        left_out: by dtype and peer, what could not be had, and why.
    """

    seconds: dict[Key, list[float]] = field(default_factory=lambda: defaultdict(list))
    users: dict[Key, int] = field(default_factory=dict)
    states: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    left_out: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, dtype: str, name: str, answer: dict[str, Any]) -> None:
        """What a peer printed."""
        self.states[dtype, name] = np.array(answer["state"])
        for record in answer["records"]:
            key = (dtype, record["prefix"], record["case"], record["queries"], name)
            self.seconds[key] += record["seconds"]
            self.users[key] = record["users"]

    def rows(self) -> list[Row]:
        """As kept: every figure beside the engine's, ratios side by side, and the peers that are absent."""
        rows = [_row(key, took, self.users[key], self.seconds) for key, took in self.seconds.items()]
        rows += [_times(key, self.seconds) for key in self.seconds if (*key[:4], "qanchor") in self.seconds]
        absent = [
            _absent(key, name, why)
            for (dtype, name), why in self.left_out.items()
            for key in self.seconds
            if key[0] == dtype and key[4] == "qanchor"
        ]
        return rows + absent


def main() -> None:
    """Ratios stand in results/performance.json, the plots in docs/pictures."""
    given = _arguments()
    folder = write_engine(FOLDER / "engine")
    for device in chosen(given.devices):
        found = _measured(given, folder, device)
        _print_agreement(found.states)
        rows = rows_on(device, found.rows())
        for row in (one for one in rows if one.column is None):
            print(f"{row.row} | {row.value} {row.unit} | {row.ratio} | {row.note or ''}")
        if given.quick:
            continue
        keep("performance", rows)
        figures = {key: _figure(key, took, found.users[key]) for key, took in found.seconds.items()}
        for dtype, prefix in dict.fromkeys(key[:2] for key in figures):
            path = PICTURE.with_stem(table_on(f"peers{_ending(dtype, prefix)}", device))
            draw({key: value for key, value in figures.items() if key[:2] == (dtype, prefix)}, path)


def _measured(given: argparse.Namespace, folder: Path, device: str) -> Measured:
    """Every round visits every peer of the device."""
    found = Measured()
    order = [
        (dtype, name)
        for dtype in dtypes_on(device, given.dtypes)
        for name in given.peers
        if dtype in PEERS[name].dtypes and device in PEERS[name].devices
    ]
    for number in range(given.rounds):
        for dtype, name in order:
            if (dtype, name) in found.left_out:
                continue
            asked = {**_workload(given), "folder": str(folder), "dtype": dtype, "device": device}
            try:
                found.add(dtype, name, _run(name, {**asked, "seed": number}))
            except PeerError as error:
                found.left_out[dtype, name] = str(error)
                print(f"{name}, {dtype}: left out: {error}", flush=True)
                continue
            print(f"round {number + 1}, {dtype} on {device}: {name} measured", flush=True)
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one short prefix, few users; nothing is kept")
    parser.add_argument("--peers", default=",".join(PEERS), help="names, by commas; qanchor is always there")
    parser.add_argument("--dtypes", default="bfloat16,float32,int8")
    parser.add_argument("--prefixes", type=int, nargs="+", default=[256, 700, 1050])
    parser.add_argument("--rounds", type=int, default=1)
    add_devices(parser)
    given = parser.parse_args()
    asked = [one.strip() for one in given.peers.split(",")] if given.peers != ",".join(PEERS) else list(PEERS)
    unknown = sorted(set(asked) - set(PEERS))
    if unknown:
        parser.error(f"peers {unknown} are unknown; accepted are {sorted(PEERS)}")
    given.peers = list(dict.fromkeys(["qanchor", *asked]))
    given.dtypes = given.dtypes.split(",")
    given.rounds = 1 if given.quick else given.rounds
    return given


def _workload(given: argparse.Namespace) -> dict[str, Any]:
    if given.quick:
        return {"prefixes": [64], "users": 2, "queries": [1, 4], "alike": [4], "repeats": 1}
    return {"prefixes": given.prefixes, "users": 4, "queries": [1, 10, 50], "alike": [10], "repeats": 3}


def _run(name: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What the peer printed.

    Raises:
        PeerError: it could not be installed, or failed.
    """
    log = FOLDER / f"{name}.log"
    try:
        done = subprocess.run(
            [*command(name), json.dumps(asked), *PEERS[name].arguments],
            cwd=ROOT, capture_output=True, text=True, check=False, timeout=RUN_SECONDS,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise PeerError(f"did not end within {RUN_SECONDS} s") from error
    log.write_text(done.stdout + done.stderr)
    lines = [one for one in done.stdout.splitlines() if one.startswith("RESULT ")]
    if done.returncode or not lines:
        raise PeerError(f"failed with {done.returncode}; see {log}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def _figure(key: Key, took: list[float], num_users: int) -> float:
    """In the unit of the case."""
    return 1000 * min(took) if unit_of(key[2]) == "ms" else num_users * key[3] / min(took)


def _row(key: Key, took: list[float], num_users: int, seconds: dict[Key, list[float]]) -> Row:
    """The peer's figure, and how many times faster the engine was in the same dtype."""
    dtype, prefix, case, queries, name = key
    own = seconds.get((dtype, prefix, case, queries, "qanchor"), took)
    spread = 100 * (median(took) / min(took) - 1)
    return Row(
        table=f"peers-{case}-{queries}{_ending(dtype, prefix)}",
        title=CASES[case].format(queries=queries),
        row=f"{name}, {dtype}, prefix {prefix}, {CASES[case].format(queries=queries)}",
        value=_figure(key, took, num_users),
        unit=unit_of(case),
        baseline=_figure(key, own, num_users),
        baseline_name="qanchor",
        ratio=min(took) / min(own),
        n=len(took),
        note=f"median {spread:.0f}% slower than the fastest",
        command=as_run(COMMAND),
        machine=machine(),
    )


def _times(key: Key, seconds: dict[Key, list[float]]) -> Row:
    """A peer's time over the engine's, in a grid of cases and peers."""
    dtype, prefix, case, queries, name = key
    return Row(
        table=f"peers-times{_ending(dtype, prefix)}",
        title=f"A peer's time over the engine's, {dtype}, prefix {prefix}",
        row=CASES[case].format(queries=queries),
        column=name,
        value=min(seconds[key]) / min(seconds[dtype, prefix, case, queries, "qanchor"]),
        unit="",
        command=as_run(COMMAND),
        machine=machine(),
    )


def _absent(key: Key, name: str, why: str) -> Row:
    """Says in the table of a case that a peer is not in it."""
    dtype, prefix, case, queries, _ = key
    return Row(
        table=f"peers-{case}-{queries}{_ending(dtype, prefix)}",
        row=f"{name}, {dtype}, prefix {prefix}, {CASES[case].format(queries=queries)}",
        unit="",
        note="left out: " + why.replace(f"{Path.cwd()}/", ""),
        command=as_run(COMMAND),
        machine=machine(),
    )


def _ending(dtype: str, prefix: int) -> str:
    """Of a table's name and a picture's."""
    return ("" if dtype == SHOWN_DTYPE else f"-{dtype}") + ("" if prefix == SHOWN_PREFIX else f"-{prefix}")


def _print_agreement(states: dict[tuple[str, str], np.ndarray]) -> None:
    """Do the peers answer the same? Cosines to transformers' state (the engine's own is projected)."""
    for (dtype, name), state in states.items():
        other = states.get((dtype, "transformers"))
        if other is not None and len(other) == len(state):
            print(f"{dtype}: {name} agrees with transformers to cosine {float(other @ state):.5f}")


if __name__ == "__main__":
    main()
