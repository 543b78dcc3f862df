"""mosquitto, and RabbitMQ's own MQTT plugin: MQTT 3.1.1, QoS 1 both ways, persistent sessions. mosquitto's PUBACK says that it has
the message in memory, RabbitMQ's that it was fsynced."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.crowd import Target
from bench.peers.packages import Missing, program
from bench.peers.running import running
from bench.peers.shape import COUNTER, Receiving, Sending, pairs_of
from bench.ports import free_port
from bench.rabbit_server import PROGRAMS, RabbitServer
from bench.transports import Door
from bench.waiting import wait_port

IN_FLIGHT_MAX: Final = 1000
PACKET_IDS: Final = 65_535
_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_U16: Final = struct.Struct(">H")
_ACK: Final = struct.Struct(">BBH")  # PUBACK: type, length, packet id


@contextmanager
def mosquitto(home: Path) -> Iterator[Target]:
    """A private broker with persistence on, as Debian ships it, and room for the load's windows."""
    port, found = free_port(), program("mosquitto")
    conf = home / "mosquitto.conf"
    conf.write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location {home}/\n"
        f"max_inflight_messages {IN_FLIGHT_MAX}\nmax_queued_messages 100000\nlog_type error\nuser root\n"
    )
    words = [found.path, "-c", str(conf)]
    with running("mosquitto", words, found.env, home, port, pairs_of(MqttSender, MqttReceiver)) as target:
        yield target


@contextmanager
def rabbitmq_mqtt(home: Path) -> Iterator[Target]:
    """A private RabbitMQ with its MQTT plugin. A session that stays has a durable classic queue, of the version that fsyncs
    before it confirms: the PUBACK comes behind that."""
    if not (PROGRAMS / "rabbitmq-server").exists():
        raise Missing("RabbitMQ is not installed: apt-get install rabbitmq-server")
    port = free_port()
    conf = (
        f"mqtt.listeners.tcp.default = 127.0.0.1:{port}\nmqtt.prefetch = {IN_FLIGHT_MAX}\nmqtt.allow_anonymous = true\n"
    )
    with RabbitServer(home, conf=conf, plugins="rabbitmq_mqtt") as rabbit:
        wait_port(port)
        pairs = pairs_of(MqttSender, MqttReceiver)
        yield Target([Door(port)], {"rabbitmq-mqtt": rabbit.pid}, dict, lambda user: user, pairs=pairs)


def _text(text: str) -> bytes:
    data = text.encode()
    return _U16.pack(len(data)) + data


def _packet(head: int, body: bytes) -> bytes:
    left, out = len(body), bytearray((head,))
    while True:
        left, digit = left >> 7, left & 0x7F
        out.append(digit | (0x80 if left else 0))
        if not left:
            return bytes(out) + body


def _connect(user: str) -> bytes:
    return _packet(0x10, _text("MQTT") + b"\x04\x00" + _U16.pack(0) + _text(user))  # a session that stays


def _cut(data: bytes) -> Iterator[tuple[int, int, int]]:
    """First byte, begin and end of the body of each whole packet."""
    at, end = 0, len(data)
    while end - at >= 2:
        head, length, shift, body = data[at], 0, 0, at + 1
        while body < end:
            digit = data[body]
            length |= (digit & 0x7F) << shift
            body, shift = body + 1, shift + 7
            if digit < 0x80:
                break
        else:
            return
        if body + length > end:
            return
        yield head, body, body + length
        at = body + length


class MqttSender(Sending):
    """Publishes with QoS 1."""

    def greet(self) -> None:
        self._topic = _text(f"m/{self.to}")
        self.transport.write(_connect(self.user))

    def pack(self, number: int) -> bytes:
        return _packet(0x32, self._topic + _U16.pack(number % PACKET_IDS + 1) + COUNTER.pack(number) + self.pad)

    def take(self, data: bytes) -> int:
        used = 0
        for head, _, stop in _cut(data):
            if head >> 4 == _PUBACK:
                self.took(self.accepted)  # in the order in which they were published
            elif head >> 4 == _CONNACK:
                self.welcome()
            used = stop
        return used


class MqttReceiver(Receiving):
    """Subscribes with QoS 1 and acknowledges each message, all of a read in one write."""

    def __init__(self, user: str) -> None:
        super().__init__(user)
        self._acks: list[bytes] = []

    def greet(self) -> None:
        self.transport.write(_connect(self.user) + _packet(0x82, b"\x00\x01" + _text(f"m/{self.user}") + b"\x01"))

    def take(self, data: bytes) -> int:
        used = 0
        for head, at, stop in _cut(data):
            if head >> 4 == _PUBLISH:
                behind = at + 2 + _U16.unpack_from(data, at)[0]
                (id_,) = _U16.unpack_from(data, behind)
                self._acks.append(_ACK.pack(0x40, 2, id_))
                self.came(data, behind + 2)
            elif head >> 4 == _SUBACK:
                self.welcome()
            used = stop
        return used

    def turn(self) -> None:
        if self._acks:
            self.reads += 1
            acks, self._acks = self._acks, []
            self.transport.write(b"".join(acks))
