// A scripted conversation for the tests: log in, say things, wait for what is expected, leave. Prints one JSON line an
// event. Exit status 0 when all that was expected came, 1 when not.
//
//   node talk.mjs --host H --port P --transport tcp|ws --user U --device D --scheme token|password --secret S
//        [--to NAME --say TEXT …] [--expect MESSAGES] [--receipts IDS] [--position N --generation HEX] [--within-s S]

import { parseArgs } from "node:util";

import { Client } from "./client.mjs";
import { connectTcp, connectWebSocket } from "./transports.mjs";

const text = { type: "string" };
const { values: asked } = parseArgs({
  options: {
    host: { ...text, default: "127.0.0.1" }, port: text, transport: { ...text, default: "tcp" }, user: text, device: text,
    scheme: { ...text, default: "password" }, secret: text, to: text, say: { ...text, multiple: true, default: [] },
    expect: { ...text, default: "0" }, receipts: { ...text, default: "0" }, position: { ...text, default: "0" },
    generation: { ...text, default: "" }, "within-s": { ...text, default: "20" },
  },
});

const print = (event, more = {}) => process.stdout.write(`${JSON.stringify({ event, ...more }, shown)}\n`);

function shown(_, value) {
  if (value?.type === "Buffer") return Buffer.from(value.data).toString("hex");
  return value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value;
}

async function main() {
  const connect = asked.transport === "ws" ? connectWebSocket : connectTcp;
  const transport = await connect(asked.host, Number(asked.port));
  const client = new Client(transport, {
    position: Number(asked.position), generation: Buffer.from(asked.generation, "hex"),
  });
  const left = { messages: Number(asked.expect), receipts: Number(asked.receipts), answers: asked.say.length };
  let finish;
  const finished = new Promise((resolve) => { finish = resolve; });
  const isDone = () => Object.values(left).every((count) => count <= 0);
  const settle = () => isDone() && setImmediate(() => finish(0)); // the ACK of this turn goes out first

  client.on("refusal", (refusal) => print("error", refusal));
  client.on("fault", (fault) => print("fault", fault));
  client.on("drained", ({ ref }) => print("drained", { ref }));
  client.on("end", (why) => { print("end", { why, code: client.code, close: transport.closeCode ?? null }); finish(1); });
  client.on("message", ({ message, flags, ref, fields }) => {
    const said = fields.payload === undefined ? {} : { text: Buffer.from(fields.payload).toString("utf8") };
    print(message.toLowerCase(), { ref, flags, ...fields, ...said });
    if (message === "DELIVER") left.messages -= 1;
    if (message === "RECEIPT") left.receipts -= fields.ids.length;
    settle();
  });

  const { user, device, scheme, secret } = asked;
  try {
    print("welcome", await client.login({ user, device, scheme, secret }));
  } catch {
    return finished;
  }
  for (const line of asked.say) {
    client.send(asked.to, Buffer.from(line, "utf8"), { receipt: true }).then(
      (id) => { print("accepted", { id, text: line }); left.answers -= 1; settle(); },
      (fault) => { print("refused", { text: line, why: fault.message }); finish(1); },
    );
  }
  settle();
  const status = await finished;
  client.removeAllListeners("end");
  client.on("end", () => {});
  client.bye();
  return status;
}

const watchdog = setTimeout(() => { print("timeout"); process.exit(1); }, Number(asked["within-s"]) * 1000);
main().then(
  (status) => { clearTimeout(watchdog); process.exitCode = status; },
  (fault) => { print("failed", { why: fault.message }); process.exit(1); },
);
