// Frames and messages of the chatd protocol, without I/O: bytes in, events out. Written from protocol/SPEC.md alone.

import { decode, encode } from "@msgpack/msgpack";

export const PREFACE = Uint8Array.of(0x43, 0x48, 0x54, 0x44, 1, 0, 0, 0); // §2
const HEAD_BYTES = 16;
const BODY_BYTES_HARD_MAX = 1048576;
const FLAG = { RECEIPT: 0x01, READ_RECEIPT: 0x02, IGNORE: 0x80 };
const CODE = {
  BAD_PREFACE: 100, VERSION_UNSUPPORTED: 101, FRAME_MALFORMED: 102, BODY_MALFORMED: 103, FRAME_TOO_LARGE: 104,
  OUT_OF_TURN: 105, LOGIN_REQUIRED: 200,
};
const CLOSES = new Set([402, 403, 404, 405, 406, 500]); // §9, beside all of 1xx and 2xx

// --- the fields of §4, as checks ------------------------------------------------------------------------------------

export class Fault extends Error {
  constructor(code, detail) {
    super(detail);
    this.code = code;
  }
}

function need(condition, what) {
  if (!condition) throw new Fault(CODE.BODY_MALFORMED, what);
}

const uint = (value) => Number.isSafeInteger(value) && value >= 0;
const str = (value) => typeof value === "string";
const bool = (value) => typeof value === "boolean";
const bin = (value) => value instanceof Uint8Array;
const bin16 = (value) => bin(value) && value.length === 16;
const name = (value) => str(value) && /^[a-z0-9][a-z0-9._@+-]{0,63}$/.test(value);
const list = (item, least, most) => (value) =>
  Array.isArray(value) && value.length >= least && value.length <= most && value.every(item);
const ids = list(bin16, 1, 256);

// number: [type, said by, {field: check}, array elements at most]
const TYPES = new Map([
  [1, ["HELLO", "c"]],
  [2, ["WELCOME", "s", {
    minor: uint, features: list(str, 0, 32), node: str, session: str, time_ms: uint, device_tag: bin, cursor: uint,
    generation: bin, body_bytes_max: uint, keepalive_ms: uint, unaccepted_max: uint, credit: uint,
  }]],
  [3, ["SEND", "c"]],
  [4, ["ACCEPTED", "s", { cids: list(uint, 0, 1024) }, 1024]],
  [5, ["DELIVER", "s", { sender: name, id: bin16, time_ms: uint, payload: bin }]],
  [6, ["SENT", "s", { to: name, id: bin16, time_ms: uint, payload: bin }]],
  [7, ["RECEIPT", "s", { peer: name, status: uint, ids, time_ms: uint, reason: uint }, 1024]],
  [8, ["READ", "c"]],
  [9, ["READ_SYNC", "s", { peer: name, ids, time_ms: uint }, 1024]],
  [10, ["SIGNAL", "c"]],
  [11, ["SIGNALLED", "s", { sender: name, payload: bin }]],
  [12, ["ACK", "c"]],
  [13, ["CREDIT", "c"]],
  [14, ["DRAINED", "s", {}]],
  [15, ["GONE", "s", { last: uint, reason: uint }]],
  [16, ["PING", "cs", {}]],
  [17, ["PONG", "cs", { known: bool, time_ms: uint }]],
  [18, ["GOAWAY", "s", { reason: uint, after_ms_min: uint, after_ms_max: uint }]],
  [19, ["ERROR", "s", { code: uint, processed: uint, retry_after_ms: uint, detail: str, limit: uint }]],
  [20, ["BYE", "c"]],
]);
const NUMBERS = Object.fromEntries([...TYPES].map(([number, [type]]) => [type, number]));
const BEFORE_WELCOME = new Set(["WELCOME", "ERROR", "GOAWAY"]);

// --- out ------------------------------------------------------------------------------------------------------------

/** One whole frame. `fields` is the body's array, null for a message without fields. */
export function frame(type, ref, fields = null, flags = 0) {
  const body = fields === null ? new Uint8Array(0) : encode(fields);
  const out = new Uint8Array(HEAD_BYTES + body.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, body.length);
  view.setUint8(4, NUMBERS[type]);
  view.setUint8(5, flags);
  view.setBigUint64(8, BigInt(ref));
  out.set(body, HEAD_BYTES);
  return out;
}

/** The id of this device's message `cid` (§5). */
export function messageId(deviceTag, cid) {
  const out = new Uint8Array(16);
  out.set(deviceTag);
  for (let at = 15, rest = BigInt(cid); at >= 9; at -= 1, rest >>= 8n) out[at] = Number(rest & 0xffn);
  return out;
}

export { FLAG };

// --- in -------------------------------------------------------------------------------------------------------------

function bodyOf(type, body) {
  const [, , checks, itemsMax = 32] = TYPES.get(type);
  const names = Object.keys(checks);
  if (body.length === 0 && names.length === 0) return {};
  let value;
  try {
    value = decode(body, {
      maxStrLength: 3072, maxBinLength: body.length, maxArrayLength: itemsMax, maxMapLength: 0, maxExtLength: 0,
    });
  } catch (fault) {
    throw new Fault(CODE.BODY_MALFORMED, `not strict msgpack: ${fault.message}`);
  }
  need(Array.isArray(value) && value.length >= names.length, `an array of ${names.length} elements is asked for`);
  names.forEach((field, at) => need(checks[field](value[at]), `${field} is not what it must be`));
  return Object.fromEntries(names.map((field, at) => [field, value[at]]));
}

/** The client's end of a connection. `receive` gives events as §15 writes them; answers wait in `out`. */
export class ClientWire {
  constructor({ preface = true } = {}) {
    this.state = "login"; // HELLO is written at once
    this.out = [];
    this.position = 0;
    this.mayBePreface = preface;
    this.kept = new Uint8Array(0);
  }

  receive(chunk) {
    const events = [];
    if (this.state === "closed") return events;
    this.kept = this.kept.length === 0 ? chunk : Buffer.concat([this.kept, chunk]);
    try {
      if (this.mayBePreface && !this.#passPreface()) return events;
      while (this.state !== "closed") {
        const event = this.#cutOne();
        if (event === undefined) break;
        if (event !== null) events.push(event);
      }
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault;
      this.state = "closed";
      events.push({ closing: fault.code, detail: fault.message });
    }
    return events;
  }

  #passPreface() {
    const seen = this.kept.subarray(0, 4);
    if (!seen.every((byte, at) => byte === PREFACE[at])) {
      this.mayBePreface = false;
      return true;
    }
    if (this.kept.length < 8) return this.kept.length === 0;
    const code = this.kept[4] === PREFACE[4] ? CODE.BAD_PREFACE : CODE.VERSION_UNSUPPORTED;
    throw new Fault(code, `the server speaks ${this.kept[4]}.${this.kept[5]}`);
  }

  // undefined: more bytes are needed; null: a frame that says nothing to us
  #cutOne() {
    if (this.kept.length < HEAD_BYTES) return undefined;
    const view = new DataView(this.kept.buffer, this.kept.byteOffset, this.kept.length);
    const length = view.getUint32(0);
    const ref = view.getBigUint64(8);
    if (ref > BigInt(Number.MAX_SAFE_INTEGER)) throw new Fault(CODE.FRAME_MALFORMED, "ref is over 2^53-1");
    if (length > BODY_BYTES_HARD_MAX) throw new Fault(CODE.FRAME_TOO_LARGE, `a frame of ${length} bytes`);
    if (this.kept.length < HEAD_BYTES + length) return undefined;
    const body = this.kept.subarray(HEAD_BYTES, HEAD_BYTES + length);
    this.kept = this.kept.subarray(HEAD_BYTES + length);
    return this.#take(view.getUint8(4), view.getUint8(5), Number(ref), body);
  }

  #take(type, flags, ref, body) {
    const known = TYPES.get(type);
    if (this.state === "login" && !BEFORE_WELCOME.has(known?.[0])) {
      throw new Fault(CODE.LOGIN_REQUIRED, `type ${type} before WELCOME`);
    }
    if (known === undefined) return null;
    const [message, by] = known;
    if (!by.includes("s") || (message === "WELCOME" && this.state === "open")) {
      throw new Fault(CODE.OUT_OF_TURN, `${message} from the server`);
    }
    const fields = bodyOf(type, body);
    if (message === "WELCOME") this.state = "open";
    else if (message === "ERROR" && this.#ends(fields.code)) this.state = "closed";
    else if (message === "PING") this.out.push(frame("PONG", this.position, [false, 0]));
    return { message, flags, ref, fields };
  }

  #ends(code) {
    return this.state === "login" || code < 300 || CLOSES.has(code);
  }
}
