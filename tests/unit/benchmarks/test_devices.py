"""CPU figures everywhere; CUDA's beside them, in tables of their own, where there is such a device."""

import pytest
import torch

from benchmarks import results
from benchmarks.devices import chosen, dtypes_on, rows_on
from benchmarks.peers.environments import PEERS

ROW = results.Row(table="marginal", row="r", value=1.0, unit="ms", command="c", machine="x86_64, 2 cores")


def test_without_cuda_its_rows_are_left_out_and_that_is_said(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen(None) == ["cpu"]
    assert "CUDA: left out" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="torch sees no CUDA device here"):
        chosen(["cuda"])


def test_with_cuda_both_are_measured_unless_one_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert chosen(None) == ["cpu", "cuda"]
    assert chosen(["cuda"]) == ["cuda"]


def test_rows_of_cuda_name_it_and_have_tables_of_their_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    assert rows_on("cpu", [ROW]) == [ROW]
    (row,) = rows_on("cuda", [ROW])
    assert row.table == "marginal-cuda"
    assert row.machine.startswith("NVIDIA H200 in ")
    assert row.value == 1.0
    assert dtypes_on("cuda", ["bfloat16", "int8"]) == ["bfloat16"]
    assert dtypes_on("cpu", ["bfloat16", "int8"]) == ["bfloat16", "int8"]


def test_every_device_has_the_peers_that_run_on_it():
    on = {
        device: [name for name, one in PEERS.items() if device in one.devices] for device in ("cpu", "cuda")
    }
    assert set(on["cpu"]) - set(on["cuda"]) == {"vllm", "llama.cpp"}
    assert set(on["cuda"]) - set(on["cpu"]) == {"vllm on cuda"}
