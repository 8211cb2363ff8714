"""Where a benchmark runs: on the CPU always, and on CUDA where it is there."""

import argparse
from dataclasses import replace

from benchmarks.results import Row, machine

CPU, CUDA = "cpu", "cuda"


def add_devices(parser: argparse.ArgumentParser) -> None:
    """``--devices``; the default is every device of this machine."""
    parser.add_argument(
        "--devices",
        nargs="+",
        choices=[CPU, CUDA],
        help="default: cpu, and cuda where it is there (tables with -cuda)",
    )


def chosen(asked: list[str] | None) -> list[str]:
    """The devices to measure on; what is left out is said.

    Raises:
        SystemExit: CUDA was asked for by name and is not there.
    """
    import torch

    is_there = torch.cuda.is_available()
    if asked:
        if CUDA in asked and not is_there:
            raise SystemExit("--devices cuda was asked for, but torch sees no CUDA device here.")
        return asked
    if not is_there:
        print("CUDA: left out, there is no such device here.", flush=True)
    return [CPU, CUDA] if is_there else [CPU]


def table_on(table: str, device: str) -> str:
    """The table's name for a device: plain for the CPU."""
    return table if device == CPU else f"{table}-{device}"


def dtypes_on(device: str, dtypes: list[str]) -> list[str]:
    """Those that engines compute in there: int8 is for CPUs."""
    return [one for one in dtypes if device == CPU or one != "int8"]


def rows_on(device: str, rows: list[Row]) -> list[Row]:
    """The rows in the tables of a device, with its name where it is no CPU."""
    if device == CPU:
        return rows
    import torch

    where = f"{torch.cuda.get_device_name()} in {machine()}"
    return [replace(one, table=table_on(one.table, device), machine=where) for one in rows]
