"""The client's side of TLS, mTLS and tokens, against real servers with throw-away certificates."""

import datetime
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.flight as fl
import pytest
import trustme

from qanchor_plugin.backend.flight import FlightBackend
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import BackendError, UnauthenticatedError
from tests.plugin.worker_path.workers import asks
from tests.stub_worker import StubWorker, known_vector

TOKEN = "correct horse"


class _Token(fl.ServerMiddlewareFactory):
    """Lets in who shows the token."""

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
        if headers.get("authorization") != [f"Bearer {TOKEN}"]:
            raise fl.FlightUnauthenticatedError("no such token")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def serve(authority: trustme.CA) -> Iterator[Callable[..., str]]:
    """Starts stub workers in threads: ``serve(certificate, **options)`` is the address of one."""
    started: list[tuple[StubWorker, threading.Thread]] = []

    def start(certificate: trustme.LeafCert | None, **options: Any) -> str:
        scheme = "grpc+tcp"
        if certificate is not None:
            scheme = "grpc+tls"
            chain = certificate.cert_chain_pems[0].bytes()
            options["tls_certificates"] = [(chain, certificate.private_key_pem.bytes())]
        server = StubWorker(f"{scheme}://127.0.0.1:0", mode="ok", seconds=0, slots=10, **options)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        started.append((server, thread))
        return f"127.0.0.1:{server.port}"

    yield start
    for server, thread in started:
        server.shutdown()
        thread.join()


@pytest.fixture
def pem(tmp_path: Path, authority: trustme.CA) -> Callable[[bytes, str], str]:
    """Writes a PEM file; its path."""

    def write(body: bytes, name: str) -> str:
        (tmp_path / name).write_bytes(body)
        return str(tmp_path / name)

    return write


def ask(address: str, **settings: Any) -> None:
    """One right answer comes from there."""
    with closing(FlightBackend(WorkerSettings(addresses=(address,), **settings))) as backend:
        found = backend.embed([b"user"], 7, asks("wine"), seconds=5)
    np.testing.assert_array_equal(found[0][0].embedding, known_vector(b"user", "wine"))


def test_a_trusted_certificate_is_accepted_and_any_other_is_not(authority, serve, pem):
    address = serve(authority.issue_cert("127.0.0.1"))
    ask(address, tls_ca=pem(authority.cert_pem.bytes(), "ca.pem"))
    with pytest.raises(BackendError, match=address):
        ask(address, tls_ca=pem(trustme.CA().cert_pem.bytes(), "other.pem"))
    with pytest.raises(BackendError, match=address):
        ask(address)


def test_a_certificate_of_another_name_is_refused_unless_that_name_is_said(authority, serve, pem):
    address = serve(authority.issue_cert("workers.internal"))
    ca = pem(authority.cert_pem.bytes(), "ca.pem")
    with pytest.raises(BackendError, match=address):
        ask(address, tls_ca=ca)
    ask(address, tls_ca=ca, tls_name="workers.internal")


def test_an_expired_certificate_is_refused(authority, serve, pem):
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    address = serve(authority.issue_cert("127.0.0.1", not_before=past, not_after=past.replace(year=2021)))
    with pytest.raises(BackendError, match=address):
        ask(address, tls_ca=pem(authority.cert_pem.bytes(), "ca.pem"))


def test_our_own_certificate_is_shown_where_it_is_asked_for(authority, serve, pem):
    certificate = authority.issue_cert("127.0.0.1")
    address = serve(certificate, verify_client=True, root_certificates=authority.cert_pem.bytes())
    ca = pem(authority.cert_pem.bytes(), "ca.pem")
    with pytest.raises(BackendError, match=address):
        ask(address, tls_ca=ca)
    ours = authority.issue_cert("caller")
    ask(
        address,
        tls_ca=ca,
        tls_cert=pem(ours.cert_chain_pems[0].bytes(), "cert.pem"),
        tls_key=pem(ours.private_key_pem.bytes(), "key.pem"),
    )


def test_the_token_is_read_from_the_file_and_again_when_it_changes(serve, pem):
    address = serve(None, middleware={"token": _Token()})
    file = pem(b"wrong\n", "token")
    settings = WorkerSettings(addresses=(address,), token_file=file)
    with closing(FlightBackend(settings)) as backend:
        with pytest.raises(UnauthenticatedError, match="Check the token"):
            backend.embed([b"user"], 7, asks("wine"), seconds=5)
        Path(file).write_text(TOKEN + "\n")
        os.utime(file, (1, 1))
        assert backend.embed([b"user"], 7, asks("wine"), seconds=5)[0][0] is not None


@pytest.mark.parametrize("body", [None, b"", b"  \n"])
def test_a_token_file_that_says_nothing_is_named(serve, pem, body):
    address = serve(None)
    file = pem(body, "token") if body is not None else "/nowhere/token"
    with pytest.raises(BackendError, match="token"):
        ask(address, token_file=file)


def test_a_certificate_file_that_is_gone_is_named(serve):
    with pytest.raises(BackendError, match=r"/nowhere/ca\.pem cannot be read"):
        ask(serve(None), tls_ca="/nowhere/ca.pem")
