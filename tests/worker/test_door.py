"""Who may ask, and what may arrive: all else ends in an error with a code, and the worker goes on."""

import socket
import time

import pyarrow as pa
import pyarrow.flight as flight
import pytest

from qanchor_plugin.backend import wire
from qanchor_plugin.errors import (
    BackendError,
    InputDataError,
    OverloadedError,
    UnauthenticatedError,
)
from tests.shop import user
from tests.worker.asking import ask, header, until

TOKEN = "s3cret-of-the-house"


@pytest.mark.parametrize("given", [None, "wrong", TOKEN + "x", TOKEN[:-1], ""])
def test_a_wrong_or_absent_token_is_refused_before_the_rows_are_read(start, call, given):
    worker = start(tokens=(TOKEN,))
    with pytest.raises(UnauthenticatedError, match="token"):
        call(worker, token=given).embed([1])
    with pytest.raises(UnauthenticatedError):
        call(worker, token=given).act("status")
    assert worker.value("unauthenticated_total") >= 2


def test_the_tokens_of_a_file_may_change_while_it_serves(start, call, tmp_path):
    file = tmp_path / "tokens"
    file.write_text(f"# ours\n{TOKEN}\n")
    worker = start(token_file=str(file))
    assert call(worker, token=TOKEN).embed([1])[0][0][0] is not None
    file.write_text("new-one\n")
    worker.state.tokens.reload()
    with pytest.raises(UnauthenticatedError):
        call(worker, token=TOKEN).embed([1])
    assert call(worker, token="new-one").embed([1])[0][0][0] is not None


def test_tls_and_client_certificates(start, call, tmp_path, certificates):
    names = {"cert": certificates.issue_cert("127.0.0.1", "localhost"), "ca": certificates.cert_pem}
    cert, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    names["cert"].cert_chain_pems[0].write_to_path(cert)
    names["cert"].private_key_pem.write_to_path(key)
    names["ca"].write_to_path(ca)
    worker = start(tls_cert=str(cert), tls_key=str(key), tls_client_ca=str(ca))
    assert worker.server.address.startswith("grpc+tls://")
    own = certificates.issue_cert("caller")
    mine = {"cert_chain": own.cert_chain_pems[0].bytes(), "private_key": own.private_key_pem.bytes()}
    trusted = {"tls_root_certs": ca.read_bytes()}
    assert call(worker, **trusted, **mine).embed([1])[0][0][0] is not None
    with pytest.raises(BackendError):
        call(worker, **trusted).embed([1])  # no certificate of its own
    with pytest.raises(BackendError):
        call(f"grpc://127.0.0.1:{worker.server.port}").embed([1])  # no TLS at all
    other = type(certificates)()
    stranger = other.issue_cert("caller")
    theirs = {
        "cert_chain": stranger.cert_chain_pems[0].bytes(),
        "private_key": stranger.private_key_pem.bytes(),
    }
    with pytest.raises(BackendError):
        call(worker, **trusted, **theirs).embed([1])  # of another authority
    with pytest.raises(BackendError):
        call(worker, tls_root_certs=other.cert_pem.bytes(), **mine).embed([1])  # we do not trust the worker
    assert call(worker, **trusted, **mine).embed([1])[0][0][0] is not None


def test_a_worker_with_an_expired_certificate_is_not_talked_to(start, call, tmp_path, certificates):
    from datetime import UTC, datetime, timedelta

    expired = certificates.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1))
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    expired.cert_chain_pems[0].write_to_path(cert)
    expired.private_key_pem.write_to_path(key)
    worker = start(tls_cert=str(cert), tls_key=str(key))
    with pytest.raises(BackendError):
        call(worker, tls_root_certs=certificates.cert_pem.bytes()).embed([1])


def test_garbage_and_half_open_connections_leave_it_serving(start, call):
    worker = start()
    half_open = []
    for sent in (
        b"",
        b"\x00" * 64,
        b"GET / HTTP/1.1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 999,
    ):
        one = socket.create_connection(("127.0.0.1", worker.server.port), timeout=5)
        one.sendall(sent)
        half_open.append(one)
    begun, _ = call(worker).client.do_exchange(flight.FlightDescriptor.for_command(header().to_bytes()))
    begun.begin(wire.USERS)  # says what it will send, and never does
    assert call(worker).embed([1])[0][0][0] is not None
    with pytest.raises(flight.FlightError, match="bad_request"):
        begun.close()  # ends without a row
    for one in half_open:
        one.close()


def test_streams_that_never_end_take_no_room_for_ever(start, call):
    worker = start(limits={"reading_requests": 1, "reading_seconds": 0.5})
    begun, _ = call(worker).client.do_exchange(flight.FlightDescriptor.for_command(header().to_bytes()))
    begun.begin(wire.USERS)
    until(lambda: bool(worker.server._arrivals._since))
    with pytest.raises(OverloadedError, match="still being sent"):
        call(worker).embed([1])
    time.sleep(0.6)
    assert call(worker).embed([1])[0][0][0] is not None
    with pytest.raises(flight.FlightError, match="bad_request"):
        begun.close()  # ends without a row


@pytest.mark.parametrize("command", [b"", b"\x80\x04garbage", b"{}", b"[]", b'{"version": 99}'])
def test_a_command_that_is_no_header_is_a_bad_request(start, call, command):
    with pytest.raises(InputDataError):
        call(start()).exchange(command, wire.users_batch([user(1)]), [ask()], [0])


def test_rows_of_another_schema_are_a_bad_request(start, call):
    worker = start()
    sent = header()
    with pytest.raises(InputDataError, match="columns"):
        call(worker).exchange(sent.to_bytes(), pa.record_batch({"x": [1]}), sent.asks, [0])
    assert worker.value("requests_total", kind="users", priority="online", code="bad_request") == 1


@pytest.mark.parametrize(
    ("limits", "asked", "said"),
    [
        ({"request_rows": 2}, {}, "more than 2 rows"),
        ({"request_bytes": 8}, {}, "8 bytes"),
        ({"request_asks": 1}, {"asks": [ask(), ask("Wine?")]}, "asks 2 queries"),
        ({"query_chars": 10}, {"asks": [ask("x" * 11)]}, "11 characters"),
    ],
)
def test_a_request_beyond_a_limit_is_refused(start, call, limits, asked, said):
    with pytest.raises(InputDataError, match=said):
        call(start(limits=limits)).embed([1, 2, 3], **asked)
