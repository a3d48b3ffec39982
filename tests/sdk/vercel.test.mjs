// SPDX-License-Identifier: Apache-2.0
// vercel.test.mjs -- Vercel's AI SDK with its chat model for OpenAI.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, RetryError, Output, embedMany, generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";
import { CITY, PIXEL, SENTENCE, WEATHER_ARGUMENTS, double, model, monotonicMs, ways } from "./kit.mjs";

const City = z.object({ city: z.string(), rivers: z.array(z.string()), population: z.number() });
const prompt = "Is the line clear?";

for (const [way, how] of Object.entries(ways)) {
  const openai = createOpenAI(how); // the key and, without one here, the base URL are the environment's
  const it = (name, run) => test(`${way}: ${name}`, run);
  const weatherTool = (seen) =>
    tool({
      description: "The weather of a city",
      inputSchema: z.object({ city: z.string(), unit: z.string() }),
      execute: async (args) => (seen.push(args), { celsius: 21 }),
    });

  it("generateText", async () => {
    const m = model("main/text");
    const { text, usage, finishReason, response } = await generateText({ model: openai.chat(m), system: "Short.", prompt });
    assert.equal(text, SENTENCE);
    assert.equal(finishReason, "stop");
    assert.equal(usage.outputTokens, 8);
    assert.equal(response.headers["x-signalbox-target"], m);
    assert.match(response.headers["x-request-id"], /^req_/);
    assert.deepEqual((await double.body(m)).messages.map((x) => x.role), ["system", "user"]);
  });

  it("streamText", async () => {
    const m = model("main/text");
    const result = streamText({ model: openai.chat(m), prompt });
    const pieces = [];
    for await (const piece of result.textStream) pieces.push(piece);
    assert.equal(pieces.join(""), SENTENCE);
    assert.equal(pieces.length, 8);
    assert.equal((await result.usage).outputTokens, 8); // it asks for the usage by itself
    assert.equal(await result.finishReason, "stop");
  });

  it("image", async () => {
    const m = model("main/text");
    const content = [{ type: "text", text: "What is it?" }, { type: "image", image: `data:image/png;base64,${PIXEL}` }];
    await generateText({ model: openai.chat(m), messages: [{ role: "user", content }] });
    assert.equal((await double.body(m)).messages[0].content[1].image_url.url, `data:image/png;base64,${PIXEL}`);
  });

  for (const streamed of [false, true])
    it(`tool, its result and the answer, ${streamed ? "streamed" : "whole"}`, async () => {
      const m = model("main/text");
      const seen = [];
      await double.rule(`${m.slice(5)}: times=1,tool=2`);
      const request = { model: openai.chat(m), prompt, tools: { get_weather: weatherTool(seen) }, stopWhen: stepCountIs(3) };
      const result = streamed ? streamText(request) : await generateText(request);
      assert.equal(await result.text, SENTENCE);
      assert.deepEqual(seen, [WEATHER_ARGUMENTS, WEATHER_ARGUMENTS]);
      const [, last] = await double.log(m);
      const results = JSON.parse(last.body).messages.filter((x) => x.role === "tool");
      assert.deepEqual(results.map((x) => x.content), ['{"celsius":21}', '{"celsius":21}']);
    });

  it("structured output, whole and streamed", async () => {
    const m = model("main/city");
    const { output } = await generateText({ model: openai.chat(m), prompt, output: Output.object({ schema: City }) });
    assert.deepEqual(output, CITY);
    assert.equal((await double.body(m)).response_format.type, "json_schema");
    const streamed = streamText({ model: openai.chat(model("main/city")), prompt, output: Output.object({ schema: City }) });
    assert.deepEqual(await streamed.output, CITY);
  });

  it("embeddings", async () => {
    const { embeddings } = await embedMany({ model: openai.embedding(model("main/text")), values: ["one", "two"] });
    assert.deepEqual(embeddings.map((e) => e.length), [8, 8]);
  });

  it("errors tell their status", async () => {
    const row = [["main/invalid", 400], ["own/denied", 401], ["nobody/knows", 404], ["own/limited", 429], ["own/failing", 500], ["own/gone", 502]];
    for (const [name, status] of row)
      await assert.rejects(generateText({ model: openai.chat(model(name)), prompt, maxRetries: 0 }), (e) => {
        assert.ok(APICallError.isInstance(e), e);
        assert.equal(e.statusCode, status);
        assert.equal(e.responseHeaders["x-should-retry"], "false");
        return true;
      });
  });

  it("its retries, which ask no header, end", async () => {
    const m = model("own/gone");
    await assert.rejects(generateText({ model: openai.chat(m), prompt, maxRetries: 1 }), (e) => RetryError.isInstance(e) && e.errors.length === 2);
    const { length } = await double.log(m);
    assert.ok(length <= 4, `${length} requests at the provider`);
  });

  it("a stream that breaks is an error part", async () => {
    const result = streamText({ model: openai.chat(model("main/torn")), prompt, onError: () => {} });
    const kinds = [];
    for await (const part of result.fullStream) kinds.push(part.type);
    assert.equal(kinds.filter((k) => k === "text-delta").length, 5);
    assert.ok(kinds.includes("error"), kinds.join(" "));
  });

  it("abort in mid-stream", async () => {
    const m = model("main/long");
    const controller = new AbortController();
    const result = streamText({ model: openai.chat(m), prompt, abortSignal: controller.signal, onError: () => {} });
    let left;
    let n = 0;
    for await (const _ of result.textStream)
      if (++n === 5) {
        left = monotonicMs();
        controller.abort();
      }
    assert.ok((await double.closedMs(m)) - left < 500);
  });
}
