// Packets, messages and payloads: what other clients of the family send and what servers do, byte for byte.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { describe, test } from "node:test";
import { deflateSync } from "node:zlib";

import {
  Code, Dictionary, Message, Packet, PacketReader, PitayaError, ProtocolError,
  decodeError, decodeMessage, encodeMessage, encodePacket, inflate,
} from "../pitaya.js";
import { bytes, concat, hex, json, utf8 } from "./lib/fake.mjs";

/** The vectors that all implementations of the protocol share. */
function vectors(name) {
  const all = JSON.parse(readFileSync(new URL(`../../testdata/vectors/${name}.json`, import.meta.url), "utf8")).vectors;
  assert.ok(all.length > 0);
  return all;
}

describe("packets", () => {
  const cases = [
    ["ack", Packet.ACK, "", "02000000"],
    ["heartbeat", Packet.HEARTBEAT, "", "03000000"],
    ["handshake of the pomelo client", Packet.HANDSHAKE,
      hex(utf8('{"sys":{"type":"js-websocket","version":"0.0.1","rsa":{}},"user":{}}')),
      "010000447b22737973223a7b2274797065223a226a732d776562736f636b6574222c2276657273696f6e223a22302e302e31222c22727361223a7b7d7d2c2275736572223a7b7d7d"],
    ["data", Packet.DATA, "04016869", "0400000404016869"],
    ["65,536 bytes", Packet.DATA, "00".repeat(65536), "04010000" + "00".repeat(65536)],
  ];
  for (const [name, type, body, want] of cases) {
    test(name, () => {
      assert.equal(hex(encodePacket(type, bytes(body))), want);
      assert.deepEqual(new PacketReader().push(bytes(want)), [{ type, body: bytes(body) }]);
    });
  }

  for (const v of vectors("packet_encode")) {
    if (v.error || v.repeat || v.payload_hex === undefined || !v.expect_hex) continue;
    test(`vector: encode ${v.name}`, () => assert.equal(hex(encodePacket(v.type, bytes(v.payload_hex))), v.expect_hex));
  }
  for (const v of vectors("packet_decode")) {
    test(`vector: decode ${v.name}`, () => {
      const decode = () => new PacketReader().push(bytes(v.input_hex));
      if (v.error) assert.throws(decode, ProtocolError);
      else assert.deepEqual(decode(), v.packets.map((p) => ({ type: p.type, body: bytes(p.payload_hex) })));
    });
  }

  test("a packet over the limit is refused by its header", () => {
    assert.equal(new PacketReader(3).push(bytes("04000003aabbcc")).length, 1);
    assert.throws(() => new PacketReader(3).push(bytes("04000004")), ProtocolError);
  });

  test("a large packet in many pieces is put together once", () => {
    const body = new Uint8Array(1 << 20).fill(7);
    const stream = encodePacket(Packet.DATA, body);
    const reader = new PacketReader();
    const got = [];
    for (let at = 0; at < stream.length; at += 16) got.push(...reader.push(stream.subarray(at, at + 16)));
    assert.equal(got.length, 1);
    assert.deepEqual(got[0].body, body);
  });

  test("largest body", () => {
    assert.equal(hex(encodePacket(Packet.DATA, new Uint8Array(0xffffff)).subarray(0, 4)), "04ffffff");
    assert.throws(() => encodePacket(Packet.DATA, new Uint8Array(0x1000000)), RangeError);
  });

  test("a stream cut anywhere", () => {
    const stream = bytes("03000000" + "0400000404016869" + "050000107b22726561736f6e223a22627965227d" + "03000000");
    for (let cut = 0; cut <= stream.length; cut++) {
      const reader = new PacketReader();
      const got = [...reader.push(stream.slice(0, cut)), ...reader.push(stream.slice(cut))];
      assert.deepEqual(got.map((p) => p.type), [3, 4, 5, 3], `cut at ${cut}`);
      assert.equal(Buffer.from(got[2].body).toString(), '{"reason":"bye"}', `cut at ${cut}`);
    }
  });

  test("unknown type", () => {
    for (const type of ["00", "06", "16", "47"]) {
      assert.throws(() => new PacketReader().push(bytes(type + "000000")), { code: Code.BAD_REQUEST });
    }
  });
});

describe("messages", () => {
  const dictionary = new Dictionary({ "conn.room.echo": 1, onPush: 2, "mid.code.route": 258, "zero.code.route": 0 });

  const hi = json({ msg: "hi" });
  const encoded = [
    ["request id 1", { type: Message.REQUEST, id: 1, route: "conn.room.typed", payload: hi }, "00010f636f6e6e2e726f6f6d2e7479706564"],
    ["request id 128", { type: Message.REQUEST, id: 128, route: "conn.room.typed", payload: hi }, "0080010f636f6e6e2e726f6f6d2e7479706564"],
    ["request id 2147483647", { type: Message.REQUEST, id: 2147483647, route: "conn.room.typed", payload: hi }, "00ffffffff070f636f6e6e2e726f6f6d2e7479706564"],
    ["request id 2^32", { type: Message.REQUEST, id: 2 ** 32, route: "a.b", payload: hi }, "00808080801003612e62"],
    ["notify", { type: Message.NOTIFY, route: "conn.room.note", payload: hi }, "020e636f6e6e2e726f6f6d2e6e6f7465"],
    ["request, dictionary code 258", { type: Message.REQUEST, id: 5, route: "mid.code.route", payload: hi }, "01050102"],
    ["notify, dictionary code 1", { type: Message.NOTIFY, route: "conn.room.echo", payload: hi }, "030001"],
    ["notify, dictionary code 0", { type: Message.NOTIFY, route: "zero.code.route", payload: hi }, "030000"],
    ["UTF-8 route", { type: Message.NOTIFY, route: "räum.ß", payload: hi }, "020872c3a4756d2ec39f"],
  ];
  for (const [name, message, head] of encoded) {
    test(`encode ${name}`, () => {
      const got = encodeMessage(message, dictionary);
      assert.equal(hex(got), head + hex(hi));
      const back = decodeMessage(got, dictionary);
      assert.deepEqual(back, { id: 0, error: false, compressed: false, ...message });
    });
  }

  const decoded = [
    ["response", "04017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d" }],
    ["error response", "24017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d", error: true }],
    ["response id 300", "04ac027b7d", { type: Message.RESPONSE, id: 300, payload: "7b7d" }],
    ["response, empty payload", "0403", { type: Message.RESPONSE, id: 3, payload: "" }],
    ["response id 2^53-1", "04ffffffffffffff0f7b7d", { type: Message.RESPONSE, id: Number.MAX_SAFE_INTEGER, payload: "7b7d" }],
    ["push", "06066f6e436861747b7d", { type: Message.PUSH, route: "onChat", payload: "7b7d" }],
    ["push, dictionary code", "0700027b7d", { type: Message.PUSH, route: "onPush", payload: "7b7d" }],
    ["push, empty route and payload", "0600", { type: Message.PUSH, payload: "" }],
    ["compressed response", "1401789c", { type: Message.RESPONSE, id: 1, payload: "789c", compressed: true }],
    ["route bit of a response means nothing", "05017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d" }],
    ["upper flag bits are ignored", "c4017b7d", { type: Message.RESPONSE, id: 1, payload: "7b7d" }],
  ];
  for (const [name, input, want] of decoded) {
    test(`decode ${name}`, () => {
      const full = { id: 0, route: "", error: false, compressed: false, ...want, payload: bytes(want.payload) };
      assert.deepEqual(decodeMessage(bytes(input), dictionary), full);
    });
  }

  const bad = [
    ["empty", ""],
    ["one byte", "06"],
    ["type 4", "0800"],
    ["unterminated id", "048080"],
    ["id of eleven bytes", "04" + "80".repeat(10) + "01"],
    ["no route after the id", "0001"],
    ["route longer than the message", "06056162"],
    ["half a route code", "0700"],
    ["unknown route code", "0700637b7d"],
    ["route that is not UTF-8", "0602ff00"],
  ];
  for (const [name, input] of bad) {
    test(`refuse ${name}`, () => {
      assert.throws(() => decodeMessage(bytes(input), dictionary), { code: Code.BAD_REQUEST });
    });
  }

  test("refuse to encode a route over 255 bytes", () => {
    const message = (route) => ({ type: Message.NOTIFY, route });
    assert.equal(encodeMessage(message("ä".repeat(127) + "a")).length, 2 + 255);
    assert.throws(() => encodeMessage(message("ä".repeat(128))), RangeError);
  });

  test("names of Object.prototype are no dictionary routes", () => {
    const got = encodeMessage({ type: Message.NOTIFY, route: "constructor" }, new Dictionary({}));
    assert.equal(hex(got), "020b" + hex(utf8("constructor")));
  });
});

describe("messages of others", () => {
  const dictionary = new Dictionary({
    "conn.room.echo": 1, onPush: 2, "mid.code.route": 258, "big.code.route": 65535, "zero.code.route": 0,
  });
  const types = ["request", "notify", "response", "push"];

  // What this client sends: requests and notifies, without compression.
  for (const v of vectors("message_encode")) {
    if (v.error || v.decode_only || v.compression_enabled || !["request", "notify"].includes(v.type)) continue;
    if (BigInt(v.id ?? 0) > BigInt(Number.MAX_SAFE_INTEGER)) continue;
    test(`vector: encode ${v.name}`, () => {
      const message = { type: types.indexOf(v.type), id: Number(v.id), route: v.route, payload: bytes(v.payload_hex) };
      assert.equal(hex(encodeMessage(message, dictionary)), v.expect_hex);
    });
  }

  // Where this client is stricter than the reference, as the library is.
  const strict = {
    "request, eleven-byte id": "dropping bits would answer another request",
    "response, unterminated id": "the reference reads 0 and leaves the bytes in the payload",
  };
  for (const v of vectors("message_decode")) {
    test(`vector: decode ${v.name}`, async () => {
      const decode = async () => {
        const m = decodeMessage(bytes(v.input_hex), dictionary);
        return m.compressed ? { ...m, payload: await inflate(m.payload, 1 << 20) } : m;
      };
      if (v.error || strict[v.name]) return assert.rejects(decode(), ProtocolError);
      const got = await decode();
      assert.equal(types[got.type], v.type);
      assert.equal(got.id, Number(v.id)); // beyond 2^53 both are rounded
      assert.deepEqual([got.route, got.error, hex(got.payload)], [v.route ?? "", v.error_flag, v.payload_hex]);
    });
  }

  for (const v of vectors("client_js")) {
    if (v.direction === "decode") {
      test(`vector: ${v.name}`, () => {
        const got = decodeMessage(bytes(v.hex), dictionary);
        const route = v.js_sees.compressRoute ? dictionary.routes.get(v.js_sees.route) : v.js_sees.route ?? "";
        assert.deepEqual(
          [got.id, got.type, got.route, got.compressed, hex(got.payload)],
          [v.js_sees.id, v.js_sees.type, route, v.js_sees.compressGzip === 1, v.js_sees.body],
        );
      });
    } else {
      test(`vector: ${v.name} of the pomelo client reads as it was meant`, () => {
        const [packet] = new PacketReader().push(bytes(v.hex));
        assert.equal(hex(encodePacket(packet.type, packet.body)), v.hex);
        if (packet.type !== Packet.DATA) return;
        const message = decodeMessage(packet.body, dictionary);
        assert.equal(hex(encodePacket(packet.type, encodeMessage(message, dictionary))), v.hex);
      });
    }
  }
});

describe("payloads", () => {
  for (const v of vectors("error_payload")) {
    if (!v.as_data_packet_id_7 || !["json", "protobuf"].includes(v.serializer)) continue;
    test(`vector: ${v.name}`, () => {
      const [{ body }] = new PacketReader().push(bytes(v.as_data_packet_id_7));
      const message = decodeMessage(body);
      assert.deepEqual([message.type, message.id, message.error], [Message.RESPONSE, 7, true]);
      const got = decodeError(message.payload, v.serializer);
      const code = v.coded_error?.code || "PIT-000";
      const text = v.coded_error ? v.coded_error.message : v.plain_error;
      assert.equal(got.code, code);
      if (text !== undefined) assert.equal(got.message, text || code);
      if (v.coded_error?.metadata) assert.deepEqual(got.metadata, v.coded_error.metadata);
    });
  }

  test("inflate", async () => {
    // Of the vector "echo, zlib request".
    assert.equal(Buffer.from(await inflate(bytes("789c4a240000010000ffffc8300c21"), 100)).toString(), "a".repeat(32));
  });
  test("inflate refuses what is too large", async () => {
    const bomb = deflateSync(Buffer.alloc(1 << 20));
    assert.equal((await inflate(bomb, 1 << 20)).length, 1 << 20);
    await assert.rejects(inflate(bomb, (1 << 20) - 1), { code: Code.BAD_REQUEST });
  });
  for (const [name, input] of [["empty", ""], ["cut", "789c4a24"], ["gzip", "1f8b0800000000000003"], ["text", "6869"]]) {
    test(`inflate refuses what is ${name}`, () => assert.rejects(inflate(bytes(input), 100), { code: Code.BAD_REQUEST }));
  }

  test("JSON error", () => {
    const got = decodeError(utf8('{"code":"PIT-404","msg":"no such route","metadata":{"route":"a.b"}}'), "json");
    assert.ok(got instanceof PitayaError);
    assert.deepEqual([got.code, got.message, got.metadata], ["PIT-404", "no such route", { route: "a.b" }]);
  });
  test("protobuf error", () => {
    // code "PIT-404", msg "gone", a varint field 9 of a later version, metadata {"k": "v"}.
    const got = decodeError(bytes("0a075049542d343034" + "1204676f6e65" + "4801" + "1a060a016b120176"), "protobuf");
    assert.deepEqual([got.code, got.message, got.metadata], ["PIT-404", "gone", { k: "v" }]);
  });
  test("malformed protobuf error", () => {
    for (const input of ["0a", "0a05", "0a0550", "ff".repeat(12), "0b"]) {
      assert.throws(() => decodeError(bytes(input), "protobuf"), { code: Code.BAD_REQUEST }, input);
    }
  });
  test("empty error", () => {
    const got = decodeError(utf8(""), "json");
    assert.deepEqual([got.code, got.message], ["PIT-000", "unknown error"]);
  });
});
