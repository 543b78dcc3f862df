// A TCP socket, or a WebSocket over one (RFC 6455, as much as SPEC §12 needs): write(bytes), close(), onData, onEnd.

import { createHash, randomBytes } from "node:crypto";
import net from "node:net";

const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const BINARY = 2;
const CLOSE = 8;
const PING = 9;
const PONG = 10;

/** Connect over TCP. The transport's onData(bytes) and onEnd(reason) are set by its owner before the next turn. */
export function connectTcp(host, port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host, port, noDelay: true });
    socket.once("error", reject);
    socket.once("connect", () => {
      socket.off("error", reject);
      resolve(new TcpTransport(socket));
    });
  });
}

class TcpTransport {
  constructor(socket) {
    this.preface = true;
    this.onData = () => {};
    this.onEnd = () => {};
    this.socket = socket;
    socket.on("data", (bytes) => this.onData(bytes));
    socket.on("error", (fault) => this.onEnd(fault.message));
    socket.on("close", () => this.onEnd("closed"));
  }

  write(bytes) {
    this.socket.write(bytes);
  }

  close() {
    this.socket.end();
  }
}

/** Connect and shake hands: GET /ws with the subprotocol chatd.1. */
export async function connectWebSocket(host, port, path = "/ws") {
  const tcp = await connectTcp(host, port);
  const key = randomBytes(16).toString("base64");
  tcp.write(Buffer.from(
    `GET ${path} HTTP/1.1\r\nHost: ${host}:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
    `Sec-WebSocket-Key: ${key}\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: chatd.1\r\n\r\n`,
  ));
  const rest = await answered(tcp, createHash("sha1").update(key + WEBSOCKET_GUID).digest("base64"));
  return new WebSocketTransport(tcp, rest);
}

function answered(tcp, accept) {
  return new Promise((resolve, reject) => {
    let seen = Buffer.alloc(0);
    tcp.onEnd = (reason) => reject(new Error(`no WebSocket: ${reason}`));
    tcp.onData = (bytes) => {
      seen = Buffer.concat([seen, bytes]);
      const end = seen.indexOf("\r\n\r\n");
      if (end < 0) return;
      const head = seen.subarray(0, end).toString("latin1");
      const good = /^HTTP\/1\.1 101 /.test(head) && head.includes(accept) &&
        /\r\nsec-websocket-protocol: *chatd\.1(\r\n|$)/i.test(head);
      if (!good) reject(new Error(`no WebSocket: ${head.split("\r\n")[0]}`));
      tcp.onData = () => {};
      resolve(seen.subarray(end + 4));
    };
  });
}

class WebSocketTransport {
  constructor(tcp, rest) {
    this.preface = false;
    this.onData = () => {};
    this.onEnd = () => {};
    this.closeCode = null;
    this.tcp = tcp;
    this.kept = Buffer.alloc(0);
    this.parts = [];
    tcp.onData = (bytes) => this.#receive(bytes);
    tcp.onEnd = (reason) => this.onEnd(this.closeCode === null ? reason : `closed with ${this.closeCode}`);
    setImmediate(() => this.#receive(rest)); // once the owner has set onData
  }

  write(bytes) {
    this.#writeFrame(BINARY, bytes);
  }

  close() {
    this.#writeFrame(CLOSE, Buffer.from([0x03, 0xe8])); // 1000
    this.tcp.close();
  }

  #writeFrame(opcode, payload) {
    const extended = payload.length < 126 ? 0 : payload.length < 65536 ? 2 : 8;
    const head = Buffer.alloc(2 + extended);
    head[0] = 0x80 | opcode;
    head[1] = 0x80 | (extended === 0 ? payload.length : extended === 2 ? 126 : 127);
    if (extended === 2) head.writeUInt16BE(payload.length, 2);
    if (extended === 8) head.writeBigUInt64BE(BigInt(payload.length), 2);
    const mask = randomBytes(4);
    const masked = Buffer.from(payload);
    for (let at = 0; at < masked.length; at += 1) masked[at] ^= mask[at & 3];
    this.tcp.write(Buffer.concat([head, mask, masked]));
  }

  #receive(bytes) {
    this.kept = Buffer.concat([this.kept, bytes]);
    for (;;) {
      if (this.kept.length < 2) return;
      const short = this.kept[1] & 0x7f;
      const extended = short < 126 ? 0 : short === 126 ? 2 : 8;
      if (this.kept.length < 2 + extended) return;
      const length = extended === 0 ? short
        : extended === 2 ? this.kept.readUInt16BE(2) : Number(this.kept.readBigUInt64BE(2));
      const end = 2 + extended + length;
      if (this.kept.length < end) return;
      const first = this.kept[0];
      const payload = this.kept.subarray(2 + extended, end);
      this.kept = this.kept.subarray(end);
      this.#take(first & 0x0f, (first & 0x80) !== 0, payload);
    }
  }

  #take(opcode, isFinal, payload) {
    if (opcode === PING) this.#writeFrame(PONG, payload);
    else if (opcode === CLOSE) {
      this.closeCode = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
      this.close();
    } else if (opcode === BINARY || opcode === 0) {
      this.parts.push(payload);
      if (!isFinal) return;
      const whole = this.parts.length === 1 ? this.parts[0] : Buffer.concat(this.parts);
      this.parts = [];
      this.onData(whole);
    }
  }
}
