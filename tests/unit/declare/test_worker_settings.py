"""The ``worker`` section: read, made absolute, and refused with every fault named."""

from pathlib import Path

import pytest

from qanchor_plugin.declare import Settings
from qanchor_plugin.declare.worker_settings import WorkerSettings, split_address
from qanchor_plugin.errors import DeclarationError


def settings(worker: object, **others: object) -> Settings:
    return Settings.from_mapping({"lake": "lake", "worker": worker, **others}, repo_path=Path("/repo"))


def test_without_the_section_there_is_no_pool():
    assert Settings.from_mapping({"lake": "lake"}, repo_path=Path("/repo")).worker is None


def test_files_are_relative_to_the_repo_and_one_address_may_stand_alone():
    found = settings({"addresses": "w1:8815", "token_file": "secrets/token", "tls_ca": "/etc/ca.pem"}).worker
    assert found == WorkerSettings(
        addresses=("w1:8815",), token_file="/repo/secrets/token", tls_ca="/etc/ca.pem"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "give 'addresses'"),
        ({"addresses": ["a:1"], "dns": "w:1"}, "not both"),
        ({"addresses": ["nowhere"]}, "'nowhere' is not host:port"),
        ({"addresses": ["a:0"]}, "'a:0' is not host:port"),
        ({"dns": "w:1", "hedge_ms": -1}, "hedge_ms is -1"),
        ({"dns": "w:1", "dns_seconds": 0}, "dns_seconds is 0"),
        ({"dns": "w:1", "attempts": 0}, "attempts is 0"),
        ({"dns": "w:1", "tls_ca": "ca", "tls_cert": "c"}, "go together"),
        ({"dns": "w:1", "tls_cert": "c", "tls_key": "k"}, "needs tls_ca"),
        ({"dns": "w:1", "hedge": 3}, r"unknown keys \['hedge'\]"),
        (["a:1"], "write it as a section"),
    ],
)
def test_what_cannot_be_is_refused(given: object, message: str):
    with pytest.raises(DeclarationError, match=message):
        settings(given)


def test_embedding_on_workers_needs_workers():
    with pytest.raises(DeclarationError, match="no 'worker:' section"):
        settings(None, spark_embeds_on="workers")
    assert settings({"dns": "w:1"}, spark_embeds_on="workers").spark_embeds_on == "workers"
    with pytest.raises(DeclarationError, match="accepted are"):
        settings(None, spark_embeds_on="gpu")
    with pytest.raises(DeclarationError, match="spark_gpus is -1"):
        settings(None, spark_gpus=-1)


def test_addresses_are_split_at_the_port():
    assert split_address("worker-1.internal:8815") == ("worker-1.internal", 8815)
    assert split_address("[::1]:8815") == ("::1", 8815)
