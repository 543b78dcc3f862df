// Runs the golden vectors of the client's side: whole, byte by byte, and cut in two at every place (SPEC §15).
//
//   node vectors.mjs valid.json invalid.json

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

import { ClientWire, frame } from "./wire.mjs";

const CUTS_MAX = 300;

function asJson(value) {
  if (value instanceof Uint8Array) return { bin: Buffer.from(value).toString("hex") };
  if (Array.isArray(value)) return value.map(asJson);
  if (value !== null && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, asJson(item)]));
  }
  return value;
}

function wireIn(state) {
  const wire = new ClientWire();
  if (state === "open") {
    const bytes = new Uint8Array(8);
    wire.receive(frame("WELCOME", 0, [0, [], "n", "s", 0, new Uint8Array(9), 0, bytes, 65536, 30000, 1024, 64]));
  }
  assert.equal(wire.state, state);
  return wire;
}

function read(vector, pieces) {
  const wire = wireIn(vector.state);
  const events = pieces.flatMap((piece) => wire.receive(piece)).map((event) =>
    event.closing === undefined ? asJson(event) : { closing: event.closing });
  const answers = wire.out.flatMap((bytes) => {
    const peer = new ClientWire();
    peer.state = "open";
    return peer.receive(bytes).map(asJson);
  });
  return { events, answers, state: wire.state };
}

let count = 0;
for (const file of process.argv.slice(2)) {
  for (const vector of JSON.parse(readFileSync(file, "utf8")).filter(({ side }) => side === "client")) {
    const bytes = Buffer.from(vector.hex, "hex");
    const step = 1 + Math.floor(bytes.length / CUTS_MAX);
    assert.deepEqual(read(vector, [bytes]), vector.expect, vector.name);
    assert.deepEqual(read(vector, [...bytes].map((byte) => Buffer.from([byte]))), vector.expect, vector.name);
    for (let cut = 0; cut <= bytes.length; cut += step) {
      assert.deepEqual(read(vector, [bytes.subarray(0, cut), bytes.subarray(cut)]), vector.expect, vector.name);
    }
    count += 1;
  }
}
process.stdout.write(`${JSON.stringify({ vectors: count })}\n`);
