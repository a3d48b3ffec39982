// SPDX-License-Identifier: Apache-2.0
// kit.mjs -- what the tests in Node share: names of models, what the double saw of them, and fetch over either socket. See kit.py.
import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Agent, fetch as undiciFetch } from "undici";

export const HELLO = [{ role: "user", content: "Is the line clear?" }];
export const SENTENCE = "The points are set, the line is clear.";
export const CITY = { city: "Paris", rivers: ["Seine", "Bièvre"], population: 2100000 };
export const WEATHER_ARGUMENTS = { city: "Paris", unit: "celsius" }; // what the double calls get_weather with
export const PIXEL = Buffer.from("89504e470d0a1a0a0000000d49484452", "hex").toString("base64");
const PATIENCE_MS = 10_000;

let models = 0;
let own = 1;

// A target that no other test has; with "own/..." a provider that no other test has.
export function model(name) {
  return `${name.replace(/^own\//, () => `own-${++own}/`)}.js${++models}`;
}

export const double = {
  async rule(line) {
    const answer = await fetch(`${process.env.DOUBLE_URL}/mock/rules`, { method: "POST", body: line });
    assert.equal(answer.status, 200, await answer.text());
  },
  // The requests for this target, in their order.
  async log(target) {
    const name = target.slice(target.indexOf("/") + 1);
    const answer = await fetch(`${process.env.DOUBLE_URL}/mock/log?bodies=1`);
    return (await answer.json()).filter((entry) => entry.model === name);
  },
  // What the one request for this target said.
  async body(target) {
    const log = await this.log(target);
    assert.equal(log.length, 1);
    return JSON.parse(log[0].body);
  },
  // The log, as soon as what(log) holds.
  async wait(target, what) {
    for (const until = Date.now() + PATIENCE_MS; ; await sleep(5)) {
      const log = await this.log(target);
      if (what(log)) return log;
      assert.ok(Date.now() < until, `the double saw only: ${JSON.stringify(log)}`);
    }
  },
  // When the connection of the one request for this target was closed from our side, in ms of CLOCK_MONOTONIC.
  async closedMs(target) {
    const log = await this.wait(target, (l) => l.length > 0 && l.every((e) => e.closed_after_ns !== null));
    assert.deepEqual(log.map((e) => e.state), ["client-closed"]);
    return (log[0].time_ns + log[0].closed_after_ns) / 1e6;
  },
};

export const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;

// How the clients get there: what they need beside the environment.
const dispatcher = new Agent({ connect: { socketPath: process.env.DOOR_SOCKET } });
export const ways = {
  tcp: {},
  unix: { baseURL: "http://signalbox/v1", fetch: (url, options) => undiciFetch(url, { ...options, dispatcher }) },
};
