"""NATS JetStream: one work-queue stream on file storage, a durable consumer for each receiver, every message acknowledged
both ways. Its acknowledgement says that the message was written, not that it was fsynced."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.crowd import Target
from bench.peers.packages import program
from bench.peers.running import running
from bench.peers.shape import COUNTER, Party, Receiving, Sending, pairs_of
from bench.ports import free_port
from bench.servers import ServerFailed

IN_FLIGHT_MAX: Final = 4000
STREAM: Final = "BENCH"
ANSWER_S_MAX: Final = 10.0
_DELIVERIES: Final = b"2"
_CONNECT: Final = b'CONNECT {"verbose":false,"pedantic":false,"headers":false}\r\n'
_STREAM_REQUEST: Final = {"name": STREAM, "subjects": ["m.>"], "retention": "workqueue", "storage": "file"}
_MSG: Final = re.compile(rb"MSG (\S+) (\S+) +(?:(\S+) )?(\d+)\r\n|([^\r\n]*)\r\n")


@contextmanager
def nats(home: Path) -> Iterator[Target]:
    """A private server."""
    port, found = free_port(), program("nats-server")
    words = [found.path, "--addr", "127.0.0.1", "--port", str(port), "--jetstream", "--store_dir", str(home)]
    with running("nats", words, found.env, home, port, pairs_of(NatsSender, NatsReceiver)) as target:
        _make_stream(port)
        yield target


def _make_stream(port: int) -> None:
    """Once, before anybody comes: requests for it at the same time refuse each other."""
    with socket.create_connection(("127.0.0.1", port), ANSWER_S_MAX) as link:
        link.sendall(_CONNECT + b"SUB made 1\r\n" + _request(f"STREAM.CREATE.{STREAM}", "made", _STREAM_REQUEST))
        said = b""
        while b"MSG made " not in said or not said.endswith(b"}\r\n"):
            part = link.recv(65_536)
            said += part
            if not part or b'"error"' in said:
                raise ServerFailed(f"NATS made no stream: {said.decode()}")


def _publish(subject: str, reply: str, payload: bytes) -> bytes:
    return b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(payload), payload)


def _request(subject: str, reply: str, asked: dict[str, Any]) -> bytes:
    return _publish(f"$JS.API.{subject}", reply, json.dumps(asked).encode())


class _Line(Party):
    """Cuts the protocol's lines and payloads."""

    def take(self, data: bytes) -> int:
        at = 0
        while (found := _MSG.match(data, at)) is not None:
            if found[1] is None:
                self.line(found[5])
                at = found.end()
                continue
            stop = found.end() + int(found[4])
            if stop + 2 > len(data):
                break
            self.message(found[1], found[2], found[3] or b"", data, found.end(), stop)
            at = stop + 2
        return at

    def line(self, text: bytes) -> None:
        """INFO, PING and the like."""
        if text == b"PING":
            self.transport.write(b"PONG\r\n")
        elif text.startswith(b"-ERR"):
            self.errors.append(text.decode())

    def message(self, subject: bytes, sid: bytes, reply: bytes, data: bytes, at: int, stop: int) -> None:
        """One message of subscription `sid`; its payload is data[at:stop]."""
        raise NotImplementedError

    def answer(self, data: bytes) -> None:
        """What the server said to a request."""
        said = json.loads(data)
        if "error" in said:
            self.errors.append(str(said["error"]))


class NatsSender(_Line, Sending):
    """Publishes with a reply subject for each message, on which the stream's acknowledgement comes."""

    def greet(self) -> None:
        self._inbox = f"_I.{self.user}"
        self._subject = f"m.{self.to}"
        self.transport.write(_CONNECT + f"SUB {self._inbox}.* 1\r\nPING\r\n".encode())

    def line(self, text: bytes) -> None:
        if text == b"PONG":
            self.welcome()
        super().line(text)

    def pack(self, number: int) -> bytes:
        return _publish(self._subject, f"{self._inbox}.{number}", COUNTER.pack(number) + self.pad)

    def message(self, subject: bytes, sid: bytes, reply: bytes, data: bytes, at: int, stop: int) -> None:
        if b'"error"' in data[at:stop]:
            self.errors.append(data[at:stop].decode())
        else:
            self.took(int(subject.rpartition(b".")[2]))


class NatsReceiver(_Line, Receiving):
    """Makes its own durable consumer; acknowledges every message."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self._acks: list[bytes] = []

    def greet(self) -> None:
        user, inbox = self.user, f"_R.{self.user}"
        consumer = {
            "durable_name": user, "deliver_subject": f"_D.{user}", "filter_subject": f"m.{user}",
            "ack_policy": "explicit", "max_ack_pending": IN_FLIGHT_MAX,
        }  # fmt: skip
        create = {"stream_name": STREAM, "config": consumer}
        self.transport.write(
            _CONNECT + f"SUB {inbox}.* 1\r\nSUB _D.{user} 2\r\n".encode()
            + _request(f"CONSUMER.DURABLE.CREATE.{STREAM}.{user}", f"{inbox}.consumer", create)
        )  # fmt: skip

    def message(self, subject: bytes, sid: bytes, reply: bytes, data: bytes, at: int, stop: int) -> None:
        if sid == _DELIVERIES:  # the subject is the one that it was published on
            self._acks.append(b"PUB %b 4\r\n+ACK\r\n" % reply)
            self.came(data, at)
            return
        self.answer(data[at:stop])
        self.welcome()

    def turn(self) -> None:
        if self._acks:
            self.reads += 1
            acks, self._acks = self._acks, []
            self.transport.write(b"".join(acks))
