// What the declarations promise, and that they are those of the implementation: `npm run types`.
// out/pitaya.d.ts is what the compiler makes of pitaya.js and its comments.

import * as declared from "../../pitaya.js";
import { Client, DisconnectedError, PitayaError, type Options, type StateDetail } from "../../pitaya.js";
import * as made from "./out/pitaya.js";

// Whatever is exported is declared, and the other way round, with types that fit in both directions.
type Names = keyof typeof declared;
const same: [Names] extends [keyof typeof made] ? ([keyof typeof made] extends [Names] ? true : false) : false = true;
const functions: Omit<typeof declared, "Client" | "PacketReader"> = made;
const back: Omit<typeof made, "Client" | "PacketReader"> = declared;
// Private fields make classes nominal: it is their public members that are compared.
type Public<T> = { [K in keyof T]: T[K] };
const client: Omit<Public<declared.Client>, keyof EventTarget> = {} as Omit<Public<made.Client>, keyof EventTarget>;
const clientBack: Omit<Public<made.Client>, keyof EventTarget> = {} as Omit<Public<declared.Client>, keyof EventTarget>;
const reader: Public<declared.PacketReader> = {} as Public<made.PacketReader>;
const readerBack: Public<made.PacketReader> = {} as Public<declared.PacketReader>;
const readerArguments: ConstructorParameters<typeof declared.PacketReader> = {} as ConstructorParameters<typeof made.PacketReader>;

async function use(socket: typeof WebSocket): Promise<void> {
  const options: Options = {
    user: { name: "Ada" }, reconnect: { minDelay: 100 }, resume: { storage: sessionStorage }, whileAway: "wait", WebSocket: socket,
  };
  const c = new Client();
  await c.connect(new URL("wss://game.example/ws"), options);
  c.addEventListener("connected", ({ detail }) => {
    const d: StateDetail = detail;
    const resumed: boolean | undefined = d.resumed;
    void resumed;
  });
  c.addEventListener("state", ({ detail: { state } }) => {
    // @ts-expect-error there is no such state
    if (state === "open") return;
  });
  const off: () => void = c.on<{ text: string }>("onMessage", ({ text }, route) => text + route);
  off();
  c.once("onMessage", (anything) => anything.text);
  const answer = await c.request<{ at: number }>("chat.say", { text: "hi" }, { timeout: 1, signal: AbortSignal.timeout(1) });
  const at: number = answer.at;
  void at;
  c.notify("chat.typing");
  try {
    await c.request("chat.say");
  } catch (err) {
    if (err instanceof DisconnectedError && err.unsent) throw err;
    if (err instanceof PitayaError) console.log(err.code.toUpperCase(), err.metadata["name"]);
  }
  c.close({ keepSession: true });
  // @ts-expect-error the state is the client's
  c.state = "closed";
  // @ts-expect-error a misspelt option
  await c.connect("", { reconect: false });
  // @ts-expect-error nobody waits for "later"
  await c.request("a.b", null, { whileAway: "later" });
}

export { same, functions, back, client, clientBack, reader, readerBack, readerArguments, use };
