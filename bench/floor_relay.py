"""The floor: a relay that promises nothing. It reads a frame, finds the receiver, packs a delivery, writes it.

No durability, no login that deserves the name, no dedupe, no order but TCP's. It speaks enough of the wire for the same
swarm to load it, on the same libraries (uvloop, msgpack), with one write for each receiver and read. What a server of
ours costs above this is what its promises cost.
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import msgpack
import uvloop

from protocol.codec import encode
from protocol.messages import Welcome
from protocol.wire import HEAD, HEAD_BYTES, PREFACE_BYTES, Type

_HELLO, _SEND, _ACCEPTED, _DELIVER = int(Type.HELLO), int(Type.SEND), int(Type.ACCEPTED), int(Type.DELIVER)
_pack, _unpack = msgpack.Packer().pack, msgpack.unpackb


class Relay(asyncio.Protocol):
    """One connection."""

    users: dict[str, Relay] = {}  # noqa: RUF012 - of the whole process

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = cast(asyncio.Transport, transport).write
        self.kept, self.begin, self.seq, self.user = b"", PREFACE_BYTES, 0, ""

    def data_received(self, data: bytes) -> None:
        data = self.kept + data
        at, end, cids, out = self.begin, len(data), [], {}  # type: int, int, list[int], dict[str, list[bytes]]
        while end - at >= HEAD_BYTES:
            length, type_, _, _, ref = HEAD.unpack_from(data, at)
            stop = at + HEAD_BYTES + length
            if stop > end:
                break
            if type_ == _SEND:
                to, payload = _unpack(data[at + HEAD_BYTES : stop])
                body = _pack((self.user, b"", 0, payload))
                there = self.users[to]
                there.seq += 1
                out.setdefault(to, []).append(HEAD.pack(len(body), _DELIVER, 0, 0, there.seq) + body)
                cids.append(ref)
            elif type_ == _HELLO:
                self.user = _unpack(data[at + HEAD_BYTES : stop])[2]
                self.users[self.user] = self
                self.write(
                    encode(Welcome(0, 0, 0, (), "relay", "1", 0, b"\0" * 9, 0, b"\0" * 8, 65536, 30000, 1024, 1024))
                )
            at, self.begin = stop, 0
        self.kept = data[at:] if not self.begin else data
        for to, frames in out.items():
            self.users[to].write(b"".join(frames))
        if cids:
            body = _pack((cids,))
            self.write(HEAD.pack(len(body), _ACCEPTED, 0, 0, cids[-1]) + body)


async def main(port: int) -> None:
    """Serve on loopback until ended."""
    server = await asyncio.get_running_loop().create_server(Relay, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
