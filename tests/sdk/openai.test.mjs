// SPDX-License-Identifier: Apache-2.0
// openai.test.mjs -- OpenAI's client for Node: answers, streams, errors, retries, abort, many at once.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { test } from "node:test";
import OpenAI from "openai";
import { zodFunction, zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";
import { CITY, HELLO, PIXEL, SENTENCE, WEATHER_ARGUMENTS, double, model, monotonicMs, ways } from "./kit.mjs";

const CROWD = 100;
const ABORTS = 5;
const City = z.object({ city: z.string(), rivers: z.array(z.string()), population: z.number() });
const Weather = z.object({ city: z.string(), unit: z.string() });
const weather = zodFunction({ name: "get_weather", parameters: Weather });

async function gather(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}
const textOf = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");

for (const [way, how] of Object.entries(ways)) {
  const client = new OpenAI(how);
  const ask = (target, more, options) => client.chat.completions.create({ model: target, messages: HELLO, ...more }, options);
  const it = (name, run) => test(`${way}: ${name}`, run);

  it("chat", async () => {
    const m = model("main/text");
    const answer = await ask(m, { temperature: 0.7 });
    assert.equal(answer.choices[0].message.content, SENTENCE);
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.equal(answer.usage.total_tokens, 18);
    assert.match(answer._request_id, /^req_/);
    const sent = await double.body(m);
    assert.deepEqual(sent.messages, HELLO);
    assert.equal(sent.temperature, 0.7);
  });

  it("image", async () => {
    const m = model("main/text");
    const content = [{ type: "text", text: "What is it?" }, { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } }];
    await ask(m, { messages: [{ role: "user", content }] });
    assert.deepEqual((await double.body(m)).messages[0].content, content);
  });

  it("stream without usage, and with", async () => {
    const without = await gather(await ask(model("main/text"), { stream: true }));
    assert.equal(textOf(without), SENTENCE);
    assert.ok(without.every((c) => !c.usage));
    const withUsage = await gather(await ask(model("main/text"), { stream: true, stream_options: { include_usage: true } }));
    assert.equal(textOf(withUsage), SENTENCE);
    assert.deepEqual(withUsage.at(-1).choices, []);
    assert.equal(withUsage.at(-1).usage.completion_tokens, 8);
  });

  for (const streamed of [false, true])
    it(`tools and a result, ${streamed ? "streamed" : "whole"}`, async () => {
      // Streamed, one call: the helper takes a call for complete as soon as another begins, and the double interleaves them.
      const calls = streamed ? 1 : 3;
      const request = { model: model(calls === 1 ? "main/tool" : "main/tools"), messages: HELLO, tools: [weather] };
      const answer = streamed
        ? await client.chat.completions.stream(request).finalChatCompletion()
        : await client.chat.completions.parse(request);
      const { message, finish_reason } = answer.choices[0];
      assert.equal(finish_reason, "tool_calls");
      assert.deepEqual(message.tool_calls.map((c) => c.function.parsed_arguments), Array(calls).fill(WEATHER_ARGUMENTS));
      const results = message.tool_calls.map((c) => ({ role: "tool", tool_call_id: c.id, content: "21" }));
      const then = model("main/text");
      assert.equal((await ask(then, { messages: [...HELLO, message, ...results] })).choices[0].message.content, SENTENCE);
      assert.deepEqual((await double.body(then)).messages.slice(2), results);
    });

  it("runTools carries a tool out and asks again", async () => {
    const m = model("main/text");
    await double.rule(`${m.slice(5)}: times=1,tool`);
    const seen = [];
    const runner = client.chat.completions.runTools({
      model: m,
      messages: HELLO,
      tools: [{ ...weather, function: { ...weather.function, parse: JSON.parse, function: (args) => (seen.push(args), "21 degrees") } }],
    });
    assert.equal(await runner.finalContent(), SENTENCE);
    assert.deepEqual(seen, [WEATHER_ARGUMENTS]);
    assert.equal((await double.log(m)).length, 2);
  });

  it("structured output, whole and streamed", async () => {
    const m = model("main/city");
    const request = { model: m, messages: HELLO, response_format: zodResponseFormat(City, "city") };
    assert.deepEqual((await client.chat.completions.parse(request)).choices[0].message.parsed, CITY);
    assert.equal((await double.body(m)).response_format.json_schema.strict, true);
    const streamed = await client.chat.completions.stream({ ...request, model: model("main/city") }).finalChatCompletion();
    assert.deepEqual(streamed.choices[0].message.parsed, CITY);
  });

  it("embeddings, completions, models", async () => {
    const base64 = await client.embeddings.create({ model: model("main/text"), input: ["one", "two"] }); // this client's own way
    const float = await client.embeddings.create({ model: model("main/text"), input: ["one", "two"], encoding_format: "float" });
    assert.deepEqual(base64.data.map((d) => [...d.embedding].map((x) => x.toFixed(3))), float.data.map((d) => d.embedding.map((x) => x.toFixed(3))));
    assert.equal((await client.completions.create({ model: model("main/text"), prompt: "Is" })).choices[0].text, SENTENCE);
    const ids = (await gather(await client.models.list())).map((m) => m.id);
    assert.ok(ids.includes("chat"));
    assert.equal((await client.models.retrieve("main/text.route")).owned_by, "main");
    await assert.rejects(client.models.retrieve("nobody/knows"), OpenAI.NotFoundError);
  });

  it("headers and cost", async () => {
    const { data, response } = await ask("openai/gpt-5.2", { usage: { include: true } }).withResponse();
    assert.equal(response.headers.get("x-signalbox-target"), "openai/gpt-5.2");
    assert.equal(response.headers.get("x-signalbox-attempts"), "1");
    assert.equal(response.headers.get("x-signalbox-cost"), "0.001792000");
    assert.equal(data.usage.cost, 0.001792);
  });

  it("errors have their types", async () => {
    const row = [
      ["main/invalid", OpenAI.BadRequestError],
      ["own/denied", OpenAI.AuthenticationError],
      ["main/forbidden", OpenAI.PermissionDeniedError],
      ["main/missing", OpenAI.NotFoundError],
      ["main/unprocessable", OpenAI.UnprocessableEntityError],
      ["own/limited", OpenAI.RateLimitError],
      ["own/failing", OpenAI.InternalServerError],
      ["own/gone", OpenAI.InternalServerError],
      ["nobody/knows", OpenAI.NotFoundError],
    ];
    for (const [name, type] of row)
      for (const stream of [false, true])
        await assert.rejects(ask(model(name), { stream }, { maxRetries: 0 }), (e) => {
          assert.ok(e instanceof type, `${name}: ${e.constructor.name}, expected ${type.name}`);
          assert.match(e.requestID, /^req_/);
          assert.equal(e.headers.get("x-should-retry"), "false");
          return true;
        });
    const stranger = new OpenAI({ ...how, apiKey: "sk-signalbox-wrong" });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
  });

  it("a stream that breaks raises", async () => {
    let pieces = 0;
    await assert.rejects(
      async () => {
        for await (const chunk of await ask(model("main/torn"), { stream: true })) pieces += chunk.choices[0].delta.content ? 1 : 0;
      },
      (e) => e instanceof OpenAI.APIError,
    );
    assert.equal(pieces, 5);
  });

  it("its retries do not multiply with the agent's", async () => {
    for (const name of ["own/failing", "own/gone", "own/limited"]) {
      const seen = [];
      for (const maxRetries of [0, 5]) {
        const m = model(name);
        await assert.rejects(ask(m, {}, { maxRetries }), OpenAI.APIError);
        seen.push((await double.log(m)).length);
      }
      assert.ok(seen[0] === seen[1] && seen[0] <= 2, `${name}: requests at the provider without retries, and with 5: ${seen}`);
    }
  });

  it("timeout", async () => {
    const m = model("main/silent");
    await assert.rejects(ask(m, {}, { timeout: 400, maxRetries: 0 }), OpenAI.APIConnectionTimeoutError);
    const gaveUp = monotonicMs();
    assert.ok((await double.closedMs(m)) - gaveUp < 500);
  });

  it("abort in mid-stream", async () => {
    const took = [];
    for (let i = 0; i < ABORTS; i++) {
      const m = model("main/long");
      const stream = await ask(m, { stream: true });
      let left;
      let n = 0;
      for await (const _ of stream)
        if (++n === 5) {
          left = monotonicMs();
          stream.controller.abort();
          break;
        }
      took.push((await double.closedMs(m)) - left);
    }
    took.sort((a, b) => a - b);
    assert.ok(took[ABORTS >> 1] < 50 && took.at(-1) < 500, `ms from the abort to the provider's end: ${took}`);
  });

  it("a hundred streams at once", async () => {
    const m = model("main/steady");
    const answers = await Promise.all(Array.from({ length: CROWD }, async () => textOf(await gather(await ask(m, { stream: true })))));
    assert.equal(new Set(answers).size, 1);
    assert.match(answers[0], / t39 t40$/);
    assert.equal((await double.log(m)).length, CROWD);
  });
}

test("nobody listens", async () => {
  const server = createServer();
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address();
  await new Promise((done) => server.close(done)); // a port that was just given back
  const client = new OpenAI({ baseURL: `http://127.0.0.1:${port}/v1`, maxRetries: 0 });
  await assert.rejects(client.models.list(), OpenAI.APIConnectionError);
});
