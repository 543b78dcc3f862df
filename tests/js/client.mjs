// A chatd client for one session: log in, send, receive, acknowledge. Written from protocol/SPEC.md alone.
//
// What the owner keeps over sessions is `client.kept`: {position, generation, cid, unanswered} (§11).

import { EventEmitter } from "node:events";

import { ClientWire, FLAG, PREFACE, frame, messageId } from "./wire.mjs";

const DELIVERIES = new Set(["DELIVER", "SENT", "RECEIPT", "READ_SYNC", "GONE"]);
export const SCHEME = { token: 1, password: 2 };

/** Events: "welcome", "message" (each delivery, once), "signalled", "drained", "error", "goaway", "end" (why). */
export class Client extends EventEmitter {
  constructor(transport, kept = {}) {
    super();
    this.kept = { position: 0, generation: new Uint8Array(0), cid: Date.now() * 1000, unanswered: new Map(), ...kept };
    this.transport = transport;
    this.wire = new ClientWire({ preface: transport.preface });
    this.waiting = new Map(); // cid → {resolve, reject}
    this.keepalive = null;
    this.code = null; // of the ERROR that ended the connection
    this.hasEnded = false;
    transport.onData = (bytes) => this.#receive(bytes);
    transport.onEnd = (reason) => this.#end(reason);
  }

  /** Log in; the promise gives WELCOME's fields. */
  login({ user, device, scheme, secret, credit = 256, info = {} }) {
    const features = ["receipts", "read", "signals", "copies"];
    const { position, generation } = this.kept;
    const hello = [0, features, user, device, SCHEME[scheme], secret, generation, credit, { name: "node", ...info }];
    const flight = frame("HELLO", position, hello);
    this.transport.write(this.transport.preface ? Buffer.concat([PREFACE, flight]) : flight);
    return new Promise((resolve, reject) => {
      this.once("welcome", resolve);
      this.once("end", (why) => reject(new Error(why)));
    });
  }

  /** Send a message; the promise gives its id once it is durable. */
  send(to, payload, { receipt = false, readReceipt = false, ttlS = null } = {}) {
    const flags = (receipt ? FLAG.RECEIPT : 0) | (readReceipt ? FLAG.READ_RECEIPT : 0);
    return this.#ask("SEND", [to, payload, ttlS], flags);
  }

  /** Say that messages of `to` were read. */
  read(to, ids) {
    return this.#ask("READ", [to, ids], 0);
  }

  signal(to, payload) {
    this.#write(frame("SIGNAL", 0, [to, payload]));
  }

  bye() {
    this.#write(frame("BYE", 0));
    this.transport.close();
  }

  #ask(type, fields, flags) {
    this.kept.cid += 1;
    const cid = this.kept.cid;
    const bytes = frame(type, cid, fields, flags);
    this.kept.unanswered.set(cid, bytes);
    this.#write(bytes);
    return new Promise((resolve, reject) => this.waiting.set(cid, { resolve, reject }));
  }

  #write(bytes) {
    this.transport.write(bytes);
    this.spokeMs = Date.now();
  }

  #receive(bytes) {
    this.heardMs = Date.now();
    const before = this.kept.position;
    for (const event of this.wire.receive(bytes)) this.#take(event);
    for (const answer of this.wire.out.splice(0)) this.#write(answer);
    if (this.kept.position > before && this.wire.state === "open") this.#write(frame("ACK", this.kept.position));
    if (this.wire.state === "closed") this.transport.close();
  }

  #take(event) {
    if (event.closing !== undefined) {
      this.code = event.closing;
      return this.emit("fault", event);
    }
    const { message, ref, fields } = event;
    if (DELIVERIES.has(message)) return this.#takeDelivery(event);
    if (message === "WELCOME") return this.#takeWelcome(event);
    if (message === "ACCEPTED") return fields.cids.forEach((cid) => this.#answered(cid)?.resolve(this.idOf(cid)));
    if (message === "ERROR") return this.#takeError(ref, fields);
    if (message === "PONG") return undefined;
    return this.emit(message.toLowerCase(), { ...event, ...fields });
  }

  #takeWelcome({ ref, fields }) {
    this.deviceTag = fields.device_tag;
    this.kept.generation = fields.generation;
    this.#moveTo(fields.cursor); // §10: always
    const resend = [...this.kept.unanswered.keys()].sort((a, b) => a - b);
    for (const cid of resend) this.#write(this.kept.unanswered.get(cid));
    this.spokeMs = Date.now();
    this.keepalive = setInterval(() => this.#tick(fields.keepalive_ms), fields.keepalive_ms / 8);
    this.emit("welcome", { head: ref, ...fields });
  }

  #tick(keepaliveMs) {
    const now = Date.now();
    if (now - this.heardMs >= 2 * keepaliveMs) this.transport.close();
    else if (now - Math.min(this.spokeMs, this.heardMs) >= keepaliveMs / 2) this.#write(frame("PING", this.kept.position));
  }

  #takeDelivery(event) {
    const { message, ref, fields } = event;
    const last = message === "GONE" ? fields.last : ref;
    if (last <= this.kept.position) return; // a repeat
    if (ref > this.kept.position + 1) {
      this.emit("fault", { closing: null, detail: `seq ${ref} behind ${this.kept.position}` });
      this.transport.close();
      return;
    }
    this.#moveTo(last);
    this.emit("message", event);
  }

  #moveTo(position) {
    this.kept.position = position;
    this.wire.position = position;
  }

  #takeError(ref, fields) {
    this.emit("refusal", { ref, ...fields });
    if (this.wire.state === "closed") this.code = fields.code;
    else if (ref !== 0 && fields.code !== 306 && fields.processed !== 2) this.#answered(ref)?.reject(new Error(fields.code));
  }

  #answered(cid) {
    const waiting = this.waiting.get(cid);
    this.waiting.delete(cid);
    this.kept.unanswered.delete(cid);
    return waiting;
  }

  idOf(cid) {
    return messageId(this.deviceTag, cid);
  }

  #end(reason) {
    if (this.hasEnded) return;
    this.hasEnded = true;
    clearInterval(this.keepalive);
    const why = this.code === null ? reason : `code ${this.code}`;
    for (const { reject } of this.waiting.values()) reject(new Error(`unanswered: ${why}`));
    this.waiting.clear();
    this.emit("end", why);
  }
}

