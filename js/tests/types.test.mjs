// The declarations are those of the module, as far as that can be told without a compiler; `npm run types` asks one.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import * as pitaya from "../pitaya.js";

const read = (name) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");
const types = read("pitaya.d.ts");
const code = read("pitaya.js");
const readme = read("README.md");

/** The text between the braces behind a heading. */
function body(heading) {
  const at = types.indexOf(heading);
  assert.ok(at >= 0, heading);
  return types.slice(types.indexOf("{", at) + 1, types.indexOf("\n}", at));
}

test("exports", () => {
  const declared = [...types.matchAll(/^export (?:const|class|function) (\w+)/gm)].map((m) => m[1]);
  assert.deepEqual(declared.sort(), Object.keys(pitaya).sort());
});

for (const name of ["Client", "PacketReader"]) {
  test(`members of ${name}`, () => {
    const declared = [...body(`export class ${name}`).matchAll(/^  (?:get )?(\w+)(?:<.*?>)?\(/gm)].map((m) => m[1]);
    const own = Object.getOwnPropertyNames(pitaya[name].prototype);
    if (name === "Client") own.push("addEventListener", "removeEventListener"); // with their events
    const without = (list) => [...new Set(list)].filter((n) => n !== "constructor").sort();
    assert.deepEqual(without(declared), without(own));
  });
}

test("values of constants", () => {
  for (const name of ["Code", "Packet", "Message"]) {
    const declared = Object.fromEntries([...types.slice(types.indexOf(`export const ${name}`)).split("}>")[0].matchAll(/(\w+): ("[^"]*"|\d+)/g)]
      .map(([, key, value]) => [key, JSON.parse(value)]));
    assert.deepEqual(declared, { ...pitaya[name] });
  }
});

test("options, their defaults and the README", () => {
  const listed = (heading) => [...body(heading).matchAll(/^  (\w+)\?:/gm)].map((m) => m[1]);
  for (const [heading, prefix] of [
    ["export interface Options", ""],
    ["export interface ReconnectOptions", "reconnect."],
    ["export interface ResumeOptions", "resume."],
  ]) {
    for (const name of listed(heading)) {
      assert.match(code, new RegExp(`\\b${name}\\b`), `${name} is in the code`);
      assert.ok(readme.includes(`| \`${prefix}${name}\` |`), `the README has a row for ${prefix}${name}`);
    }
  }
  for (const name of listed("export interface RequestOptions")) assert.match(readme, new RegExp(`\\b${name}\\b`));
});
