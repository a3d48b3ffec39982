/* SPDX-License-Identifier: Apache-2.0 */
/* Requests between the hub's form and Anthropic's: each rule of the translation, both ways, and what is refused by its name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/anthropic.h"

static struct sbx_json_scratch scratch;

/* ---- from the hub ---- */

#define NEW "claude-opus-4-6"
#define OLD "claude-haiku-4-5"
#define HI  "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"

enum { STREAM = 1, DROP = 2, RECALL = 4, LIMIT = 8 };

static struct sbx_span
recall(void *arg, struct sbx_span call_id)
{
	(void)arg;
	return sbx_span_is(call_id, "x\"1") ? SBX_SPAN("[{\"type\":\"reasoning.text\",\"text\":\"r\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\",\"index\":0}]")
					    : (struct sbx_span){ NULL, 0 };
}

struct from_case {
	const char *name;
	int how;
	const char *model, *hub, *want; /* want: the body behind {"model":..., or the fault's param with ! before it, ? where it cannot be said */
};

#define BODY(rest) "\"max_tokens\":4096," rest "}"
#define MSGS(list) "{\"messages\":[" list "]}"
#define USER_HI    "{\"role\":\"user\",\"content\":\"hi\"}"
#define ONLY_HI    "\"messages\":[" USER_HI "]"
#define FN(name)   "{\"type\":\"function\",\"function\":{\"name\":\"" name "\"}}"
#define TOOL(name) "{\"name\":\"" name "\",\"input_schema\":{\"type\":\"object\",\"properties\":{}}}"
#define CALLS(list) "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[" list "]}"
#define CALL(id, arguments) "{\"id\":\"" id "\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"" arguments "\"}}"
#define USE(id, input) "{\"type\":\"tool_use\",\"id\":\"" id "\",\"name\":\"f\",\"input\":" input "}"
#define RESULT(id, text) "{\"role\":\"tool\",\"tool_call_id\":\"" id "\",\"content\":\"" text "\"}"
#define TOOL_RESULT(id, text) "{\"type\":\"tool_result\",\"tool_use_id\":\"" id "\",\"content\":\"" text "\"}"

static const struct from_case froms[] = {
	/* ---- the conversation ---- */
	{ "least", 0, NEW, "{" HI "}", BODY(ONLY_HI) },
	{ "stream", STREAM, NEW, "{\"model\":\"x\",\"stream\":true,\"stream_options\":{\"include_usage\":true}," HI "}", "\"max_tokens\":4096,\"stream\":true," ONLY_HI "}" },
	{ "one instruction", 0, NEW, MSGS("{\"role\":\"system\",\"content\":\"be \\u0062rief\"}," USER_HI), BODY("\"system\":\"be \\u0062rief\"," ONLY_HI) },
	{ "instructions from everywhere", 0, NEW, MSGS("{\"role\":\"developer\",\"content\":\"a\"}," USER_HI ",{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"b\",\"cache_control\":{\"type\":\"ephemeral\"}}]}"),
	  BODY("\"system\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\",\"cache_control\":{\"type\":\"ephemeral\"}}]," ONLY_HI) },
	{ "neighbours become one", 0, NEW, MSGS(USER_HI ",{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"b\"}]}"),
	  BODY("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"},{\"type\":\"text\",\"text\":\"b\"}]}]") },
	{ "an empty answer is left out", 0, NEW, MSGS(USER_HI ",{\"role\":\"assistant\",\"content\":\"\"}"), BODY(ONLY_HI) },
	{ "a mark on a message is its last block's", 0, NEW, MSGS("{\"role\":\"user\",\"cache_control\":{\"type\":\"ephemeral\"},\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}"),
	  BODY("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\",\"cache_control\":{\"type\":\"ephemeral\"}}]}]") },
	{ "a refusal given back", 0, NEW, MSGS(USER_HI ",{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"}"),
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"no\"}]}]") },
	{ "images", 0, NEW, MSGS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"https://x/y.png\",\"detail\":\"high\"}},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image\\/png;base64,AAAA\"},\"cache_control\":{\"type\":\"ephemeral\"}}]}"),
	  BODY("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"https://x/y.png\"}},{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"AAAA\"},\"cache_control\":{\"type\":\"ephemeral\"}}]}]") },
	{ "documents", 0, NEW, MSGS("{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_data\":\"data:application/pdf;base64,AAAA\",\"filename\":\"a.pdf\"}},{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}}]}"),
	  BODY("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"media_type\":\"application/pdf\",\"data\":\"AAAA\"},\"title\":\"a.pdf\"},{\"type\":\"document\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}}]}]") },
	{ "an image that is no base64", 0, NEW, MSGS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png,AA\"}}]}"), "!messages[0].content[1].image_url.url" },
	{ "a file that is no PDF", 0, NEW, MSGS("{\"role\":\"user\",\"content\":[{\"type\":\"file\",\"file\":{\"file_data\":\"data:text/x;base64,AAAA\"}}]}"), "?messages[0].content[0].file.file_data" },
	{ "sound", 0, NEW, MSGS(USER_HI ",{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{}}]}"), "?messages[1].content[0].type" },
	{ "sound left out", DROP, NEW, MSGS(USER_HI ",{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\",\"input_audio\":{}}]}"), BODY("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"hi\"}]}]") },
	{ "a name", 0, NEW, MSGS("{\"role\":\"user\",\"name\":\"bob\",\"content\":\"hi\"}"), "?messages[0].name" },
	{ "a name left out", DROP, NEW, MSGS("{\"role\":\"user\",\"name\":\"bob\",\"content\":\"hi\"}"), BODY(ONLY_HI) },
	{ "a role of nobody", 0, NEW, MSGS(USER_HI ",{\"role\":\"function\",\"content\":\"x\"}"), "?messages[1].role" },
	{ "nothing but instructions", 0, NEW, MSGS("{\"role\":\"system\",\"content\":\"a\"}"), "!messages" },
	/* ---- tools ---- */
	{ "tools", 0, NEW, "{" HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\",\"x\":1.50},\"strict\":true},\"cache_control\":{\"type\":\"ephemeral\"}}," FN("g") "]}",
	  BODY(ONLY_HI ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\",\"x\":1.50},\"strict\":true,\"cache_control\":{\"type\":\"ephemeral\"}}," TOOL("g") "]") },
	{ "none chosen", 0, NEW, "{" HI ",\"tools\":[" FN("g") "],\"tool_choice\":\"none\",\"parallel_tool_calls\":false}", BODY(ONLY_HI ",\"tools\":[" TOOL("g") "],\"tool_choice\":{\"type\":\"none\"}") },
	{ "any", 0, NEW, "{" HI ",\"tools\":[" FN("g") "],\"tool_choice\":\"required\"}", BODY(ONLY_HI ",\"tools\":[" TOOL("g") "],\"tool_choice\":{\"type\":\"any\"}") },
	{ "this one", 0, NEW, "{" HI ",\"tools\":[" FN("g") "],\"tool_choice\":" FN("g") ",\"parallel_tool_calls\":true}",
	  BODY(ONLY_HI ",\"tools\":[" TOOL("g") "],\"tool_choice\":{\"type\":\"tool\",\"name\":\"g\",\"disable_parallel_tool_use\":false}") },
	{ "one at a time", 0, NEW, "{" HI ",\"tools\":[" FN("g") "],\"parallel_tool_calls\":false}", BODY(ONLY_HI ",\"tools\":[" TOOL("g") "],\"tool_choice\":{\"type\":\"auto\",\"disable_parallel_tool_use\":true}") },
	{ "several at a time is usual", 0, NEW, "{" HI ",\"tools\":[" FN("g") "],\"parallel_tool_calls\":true}", BODY(ONLY_HI ",\"tools\":[" TOOL("g") "]") },
	{ "a choice of none", 0, NEW, "{" HI ",\"tools\":[],\"tool_choice\":\"auto\"}", BODY(ONLY_HI) },
	{ "a custom tool", 0, NEW, "{" HI ",\"tools\":[" FN("g") ",{\"type\":\"custom\",\"custom\":{\"name\":\"c\"}}]}", "?tools[1].type" },
	{ "a choice that is not known", 0, NEW, "{" HI ",\"tools\":[" FN("g") "],\"tool_choice\":{\"type\":\"allowed_tools\"}}", "?tool_choice" },
	{ "calls and results", 0, NEW, MSGS(USER_HI "," CALLS(CALL("x", "{\\\"a\\\": 1}") "," CALL("y", "")) "," RESULT("x", "1") ",{\"role\":\"tool\",\"tool_call_id\":\"y\",\"is_error\":true,\"cache_control\":{\"type\":\"ephemeral\"},\"content\":[{\"type\":\"text\",\"text\":\"2\"}]}," USER_HI),
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[" USE("x", "{\"a\": 1}") "," USE("y", "{}") "]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("x", "1")
	       ",{\"type\":\"tool_result\",\"tool_use_id\":\"y\",\"content\":[{\"type\":\"text\",\"text\":\"2\"}],\"is_error\":true,\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"text\",\"text\":\"hi\"}]}]") },
	{ "words before calls", 0, NEW, MSGS(USER_HI ",{\"role\":\"assistant\",\"content\":\"a\",\"tool_calls\":[" CALL("x", "{}") "],\"cache_control\":{\"type\":\"ephemeral\"}}," RESULT("x", "1")),
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{},\"cache_control\":{\"type\":\"ephemeral\"}}]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("x", "1") "]}]") },
	{ "ids of others", 0, NEW, MSGS(USER_HI "," CALLS(CALL("f.g:0\\u00e9", "{}")) "," RESULT("f.g:0\\u00e9", "1")),
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[" USE("f_g_0__", "{}") "]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("f_g_0__", "1") "]}]") },
	{ "arguments that are no JSON", 0, NEW, MSGS(USER_HI "," CALLS(CALL("x", "{}") "," CALL("y", "{\\\"a\\\":"))), "!messages[1].tool_calls[1].function.arguments" },
	{ "arguments that are no object", 0, NEW, MSGS(USER_HI "," CALLS(CALL("x", "[1]"))), "!messages[1].tool_calls[0].function.arguments" },
	{ "a custom call", 0, NEW, MSGS(USER_HI "," CALLS("{\"id\":\"x\",\"type\":\"custom\"}")), "?messages[1].tool_calls[0].type" },
	{ "a result of nothing", 0, NEW, MSGS(USER_HI ",{\"role\":\"tool\",\"content\":\"x\"}"), "!messages[1].tool_call_id" },
	/* ---- thoughts given back ---- */
	{ "with their signatures", 0, NEW, MSGS(USER_HI ",{\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":\"r\",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":\"r\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\"},{\"type\":\"reasoning.encrypted\",\"data\":\"E\",\"format\":\"anthropic-claude-v1\"},"
	  "{\"type\":\"reasoning.text\",\"text\":\"no signature\"},{\"type\":\"reasoning.encrypted\",\"data\":\"G\",\"format\":\"google-gemini-v1\"}]}," USER_HI),
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"E\"},{\"type\":\"text\",\"text\":\"a\"}]}," USER_HI "]") },
	{ "remembered for the client", RECALL, NEW, MSGS(USER_HI "," CALLS(CALL("w", "{}") "," CALL("x\\\"1", "{}")) "," RESULT("w", "1")),
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"s\"}," USE("w", "{}") "," USE("x_1", "{}") "]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("w", "1") "]}]") },
	/* ---- how much to think ---- */
	{ "not at all", 0, NEW, "{" HI ",\"reasoning_effort\":\"none\"}", BODY(ONLY_HI ",\"thinking\":{\"type\":\"disabled\"}") },
	{ "as it sees fit", 0, NEW, "{" HI ",\"reasoning_effort\":\"minimal\"}", BODY(ONLY_HI ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"low\"}") },
	{ "a share of the tokens", 0, OLD, "{" HI ",\"reasoning_effort\":\"medium\",\"max_tokens\":1,\"max_completion_tokens\":10001}", "\"max_tokens\":10001," ONLY_HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":5000}}" },
	{ "the least share", 0, "kimi", "{" HI ",\"reasoning_effort\":\"low\"}", BODY(ONLY_HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":1024}") },
	{ "no room", 0, OLD, "{" HI ",\"reasoning_effort\":\"low\",\"max_tokens\":1024}", "?reasoning_effort" },
	{ "no room, left out", DROP, OLD, "{" HI ",\"reasoning_effort\":\"low\",\"max_tokens\":1024}", "\"max_tokens\":1024," ONLY_HI "}" },
	{ "a word of nobody", 0, NEW, "{" HI ",\"reasoning_effort\":\"immense\"}", "?reasoning_effort" },
	{ "it may not when a tool is forced", 0, NEW, "{" HI ",\"reasoning_effort\":\"low\",\"tools\":[" FN("g") "],\"tool_choice\":\"required\"}", "?reasoning_effort" },
	{ "nor after a call without a thought", 0, OLD, "{\"reasoning_effort\":\"high\",\"messages\":[" USER_HI "," CALLS(CALL("x", "{}")) "," RESULT("x", "1") "]}",
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[" USE("x", "{}") "]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("x", "1") "]}]") },
	{ "after one with a thought it may", RECALL, OLD, "{\"reasoning_effort\":\"high\",\"messages\":[" USER_HI "," CALLS(CALL("x\\\"1", "{}")) "," RESULT("x\\\"1", "1") "]}",
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"s\"}," USE("x_1", "{}") "]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("x_1", "1") "]}],\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":3276}") },
	{ "after that turn it may", 0, OLD, "{\"reasoning_effort\":\"high\",\"messages\":[" USER_HI "," CALLS(CALL("x", "{}")) "," RESULT("x", "1") ",{\"role\":\"assistant\",\"content\":\"a\"}," USER_HI "]}",
	  BODY("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[" USE("x", "{}") "]},{\"role\":\"user\",\"content\":[" TOOL_RESULT("x", "1") "]},{\"role\":\"assistant\",\"content\":\"a\"}," USER_HI "],\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":3276}") },
	/* ---- the rest ---- */
	{ "the target's limit", LIMIT, NEW, "{" HI "}", "\"max_tokens\":64000," ONLY_HI "}" },
	{ "a limit of nothing", 0, NEW, "{" HI ",\"max_tokens\":0}", "!max_tokens" },
	{ "sampling", 0, NEW, "{" HI ",\"temperature\":0.70,\"top_p\":0.9,\"top_k\":5,\"stop\":[\"a\",\"b\"]}", BODY(ONLY_HI ",\"temperature\":0.70,\"top_p\":0.9,\"top_k\":5,\"stop_sequences\":[\"a\",\"b\"]") },
	{ "temperature above 1", 0, NEW, "{" HI ",\"temperature\":1.7,\"stop\":\"a\"}", BODY(ONLY_HI ",\"temperature\":1,\"stop_sequences\":[\"a\"]") },
	{ "temperature of one that thinks", 0, NEW, "{" HI ",\"temperature\":0.2,\"reasoning_effort\":\"low\"}", "?temperature" },
	{ "of which 1 is right", 0, NEW, "{" HI ",\"temperature\":1.0,\"reasoning_effort\":\"low\"}", BODY(ONLY_HI ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"low\"},\"temperature\":1.0") },
	{ "a schema", 0, NEW, "{" HI ",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"n\",\"strict\":true,\"schema\":{\"type\":\"object\"}}}}",
	  BODY(ONLY_HI ",\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":{\"type\":\"object\"}}}") },
	{ "text", 0, NEW, "{" HI ",\"response_format\":{\"type\":\"text\"}}", BODY(ONLY_HI) },
	{ "any object", 0, NEW, "{" HI ",\"response_format\":{\"type\":\"json_object\"}}", "?response_format.type" },
	{ "the end user", 0, NEW, "{" HI ",\"user\":\"u\",\"service_tier\":\"default\"}", BODY(ONLY_HI ",\"metadata\":{\"user_id\":\"u\"},\"service_tier\":\"standard_only\"") },
	{ "usual values say nothing", 0, NEW, "{" HI ",\"n\":1,\"logprobs\":false,\"presence_penalty\":0.0,\"frequency_penalty\":0,\"logit_bias\":{},\"store\":false,\"modalities\":[\"text\"],\"seed\":null,\"verbosity\":\"medium\",\"prompt_cache_key\":\"k\"}", BODY(ONLY_HI) },
	{ "n", 0, NEW, "{" HI ",\"n\":2}", "?n" },
	{ "logit_bias", 0, NEW, "{" HI ",\"logit_bias\":{\"1\":2}}", "?logit_bias" },
	{ "logprobs", 0, NEW, "{" HI ",\"logprobs\":true}", "?logprobs" },
	{ "seed", 0, NEW, "{" HI ",\"seed\":18446744073709551615}", "?seed" },
	{ "modalities", 0, NEW, "{" HI ",\"modalities\":[\"text\",\"audio\"]}", "?modalities" },
	{ "penalty", 0, NEW, "{" HI ",\"frequency_penalty\":0.5}", "?frequency_penalty" },
	{ "functions", 0, NEW, "{" HI ",\"functions\":[]}", "?functions" },
	{ "unknown", 0, NEW, "{" HI ",\"new_thing\":1}", "?new_thing" },
	{ "all of it left out", DROP, NEW, "{" HI ",\"n\":2,\"logit_bias\":{\"1\":2},\"seed\":1,\"new_thing\":1,\"response_format\":{\"type\":\"json_object\"}}", BODY(ONLY_HI) },
	/* ---- what only this dialect knows ---- */
	{ "its own members", 0, NEW, "{" HI ",\"user\":\"u\",\"x_native\":{\"anthropic\":{\"top_k\":3,\"output_config\":{\"task_budget\":{}},\"metadata\":{\"a\":1}}}}",
	  BODY(ONLY_HI ",\"output_config\":{\"task_budget\":{}},\"metadata\":{\"user_id\":\"u\",\"a\":1},\"top_k\":3") },
	{ "its own blocks, tools, messages", 0, NEW, "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"x_native\",\"x_native\":{\"anthropic\":{\"type\":\"container_upload\"}}},{\"type\":\"text\",\"text\":\"a\",\"x_native\":{\"anthropic\":{\"citations\":[]}}}]},"
	  "{\"role\":\"x_native\",\"x_native\":{\"anthropic\":{\"role\":\"system\",\"content\":\"s\"}}}," USER_HI "],\"tools\":[{\"type\":\"x_native\",\"x_native\":{\"anthropic\":{\"type\":\"web_search\"}}}]}",
	  BODY("\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"container_upload\"},{\"type\":\"text\",\"text\":\"a\",\"citations\":[]}]},{\"role\":\"system\",\"content\":\"s\"}," USER_HI "],\"tools\":[{\"type\":\"web_search\"}]") },
	{ "said twice", 0, NEW, "{" HI ",\"x_native\":{\"anthropic\":{\"mod\\u0065l\":\"dear\"}}}", "!x_native" },
	{ "said twice, inside", DROP, NEW, MSGS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"x_native\":{\"anthropic\":{\"text\":\"b\"}}}]}"), "!x_native" },
	{ "another's", 0, NEW, "{" HI ",\"x_native\":{\"gemini\":{}}}", "?x_native" },
	{ "another's, inside", 0, NEW, MSGS("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\",\"x_native\":{\"gemini\":{}}}]}"), "?messages[0].content[0].x_native" },
};

static void
test_from_hub(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof froms / sizeof froms[0]; i++) {
		const struct from_case *c = &froms[i];
		const struct sbx_translation t = { .model = c->model, .stream = c->how & STREAM, .drop_params = c->how & DROP,
						   .recall = c->how & RECALL ? recall : NULL, .max_output_tokens = c->how & LIMIT ? 64000 : 0 };
		struct sbx_buf out;
		struct sbx_fault fault;
		char want[4096], param[128];
		sbx_buf_init(&out, 1 << 20);
		if (sbx_json_check(c->hub, strlen(c->hub), &scratch, NULL))
			fail_msg("%s: the case itself is no JSON", c->name);
		int rc = sbx_anthropic_from_hub(SBX_OP_CHAT, sbx_span_of(c->hub), &t, &out, &fault);
		if (c->want[0] == '!' || c->want[0] == '?') {
			if (rc != -SBX_ESYNTAX)
				fail_msg("%s: %d, %.*s", c->name, rc, (int)out.n, (const char *)out.data);
			(void)snprintf(param, sizeof param, "%c%s", fault.unsupported ? '?' : '!', fault.param);
			if (strcmp(param, c->want) != 0)
				fail_msg("%s: %s, not %s (%s)", c->name, param, c->want, fault.why);
			assert_non_null(strstr(fault.why, fault.param));
		} else {
			if (rc)
				fail_msg("%s: %d, %s", c->name, rc, fault.why);
			assert_int_equal(sbx_buf_append(&out, "", 1), 0);
			(void)snprintf(want, sizeof want, "{\"model\":\"%s\",%s", c->model, c->want);
			if (strcmp((const char *)out.data, want) != 0)
				fail_msg("%s:\n%s\nnot\n%s", c->name, (const char *)out.data, want);
		}
		sbx_buf_fini(&out);
	}
}

/* ---- to the hub ---- */

struct to_case {
	const char *name, *body, *want;
	bool one_way; /* it does not come back spelled the same: the case says why */
};

#define ASK(rest)      "{\"model\":\"" NEW "\",\"max_tokens\":9," rest "}"
#define HUB(rest)      "{\"model\":\"" NEW "\",\"max_completion_tokens\":9," rest "}"
#define BLOCKS(list)   ASK("\"messages\":[{\"role\":\"user\",\"content\":[" list "]}]")
#define PARTS(list)    HUB("\"messages\":[{\"role\":\"user\",\"content\":[" list "]}]")
#define ANSWER(list)   ASK("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[" list "]}]")

static const struct to_case tos[] = {
	{ "least", ASK(ONLY_HI), HUB(ONLY_HI), false },
	{ "instructions", ASK("\"system\":\"s\"," ONLY_HI), HUB("\"messages\":[{\"role\":\"system\",\"content\":\"s\"}," USER_HI "]"), false },
	{ "in blocks", ASK("\"system\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":\"ephemeral\"}}]," ONLY_HI),
	  HUB("\"messages\":[{\"role\":\"system\",\"content\":[{\"type\":\"text\",\"text\":\"s\",\"cache_control\":{\"type\":\"ephemeral\"}}]}," USER_HI "]"), false },
	{ "in their place", ASK("\"messages\":[" USER_HI ",{\"role\":\"system\",\"content\":\"s\"}]"),
	  HUB("\"messages\":[" USER_HI ",{\"role\":\"x_native\",\"x_native\":{\"anthropic\":{\"role\":\"system\",\"content\":\"s\"}}}]"), false },
	{ "images", BLOCKS("{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":\"image/png\",\"data\":\"AA+/\"}},{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"u\"}},{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}}"),
	  PARTS("{\"type\":\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,AA+/\"}},{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\"}},{\"type\":\"x_native\",\"x_native\":{\"anthropic\":{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}}}}"), false },
	{ "documents", BLOCKS("{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"media_type\":\"application/pdf\",\"data\":\"AA\"},\"title\":\"t\",\"citations\":{\"enabled\":true}},{\"type\":\"document\",\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"x\"}}"),
	  PARTS("{\"type\":\"file\",\"file\":{\"filename\":\"t\",\"file_data\":\"data:application/pdf;base64,AA\"},\"x_native\":{\"anthropic\":{\"citations\":{\"enabled\":true}}}},{\"type\":\"x_native\",\"x_native\":{\"anthropic\":{\"type\":\"document\",\"source\":{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"x\"}}}}"), false },
	{ "thoughts, words, calls", ANSWER("{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"s\"},{\"type\":\"redacted_thinking\",\"data\":\"E\"},{\"type\":\"text\",\"text\":\"a\"}," USE("x", "{\"b\": \"\\u00e9\"}")),
	  HUB("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":\"r\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\",\"index\":0},{\"type\":\"reasoning.encrypted\",\"data\":\"E\",\"format\":\"anthropic-claude-v1\",\"index\":1}],"
	      "\"content\":[{\"type\":\"text\",\"text\":\"a\"}],\"tool_calls\":[{\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"b\\\": \\\"\\\\u00e9\\\"}\"}}]}]"), false },
	{ "from the front again", ANSWER("{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"s\"}," USE("x", "{}")),
	  HUB("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"assistant\",\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":\"r\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\",\"index\":0}],"
	      "\"tool_calls\":[{\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]"), false },
	{ "thoughts of another", ANSWER("{\"type\":\"redacted_thinking\",\"data\":\"{\\\"type\\\":\\\"reasoning.encrypted\\\",\\\"data\\\":\\\"G\\\",\\\"format\\\":\\\"google-gemini-v1\\\"}\"},{\"type\":\"text\",\"text\":\"a\"}"),
	  HUB("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"reasoning_details\":[{\"type\":\"reasoning.encrypted\",\"data\":\"G\",\"format\":\"google-gemini-v1\"}],\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}]"), true },
	{ "results", BLOCKS("{\"type\":\"tool_result\",\"tool_use_id\":\"x\",\"content\":\"1\",\"is_error\":true},{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_result\",\"tool_use_id\":\"y\",\"content\":[{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":\"u\"}}]}"),
	  HUB("\"messages\":[{\"role\":\"tool\",\"tool_call_id\":\"x\",\"content\":\"1\",\"is_error\":true},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]},{\"role\":\"tool\",\"tool_call_id\":\"y\",\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"u\"}}]}]"), false },
	{ "blocks of its own", ANSWER("{\"type\":\"server_tool_use\",\"id\":\"i\",\"name\":\"n\",\"input\":{}},{\"type\":\"text\",\"text\":\"a\",\"citations\":[1]}"),
	  HUB("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"x_native\",\"x_native\":{\"anthropic\":{\"type\":\"server_tool_use\",\"id\":\"i\",\"name\":\"n\",\"input\":{}}}},{\"type\":\"text\",\"text\":\"a\",\"x_native\":{\"anthropic\":{\"citations\":[1]}}}]}]"), false },
	{ "what the provider adds", ANSWER("{\"type\":\"text\",\"text\":\"a\",\"citations\":null},{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{},\"caller\":{\"type\":\"direct\"}}"),
	  HUB("\"messages\":[" USER_HI ",{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}],\"tool_calls\":[{\"id\":\"x\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]}]"), true },
	{ "tools", ASK(ONLY_HI ",\"tools\":[{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"},\"strict\":true,\"cache_control\":{\"type\":\"ephemeral\"},\"defer_loading\":true},{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}],\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true}"),
	  HUB(ONLY_HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"},\"strict\":true},\"cache_control\":{\"type\":\"ephemeral\"},\"x_native\":{\"anthropic\":{\"defer_loading\":true}}},"
	      "{\"type\":\"x_native\",\"x_native\":{\"anthropic\":{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}}}],\"tool_choice\":\"required\",\"parallel_tool_calls\":false"), false },
	{ "this tool", ASK(ONLY_HI ",\"tools\":[{\"name\":\"f\",\"input_schema\":{}}],\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}"),
	  HUB(ONLY_HI ",\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{}}}],\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}"), false },
	{ "sampling", ASK(ONLY_HI ",\"temperature\":0.50,\"top_p\":0.9,\"stop_sequences\":[\"a\"],\"metadata\":{\"user_id\":\"u\"},\"service_tier\":\"standard_only\""),
	  HUB(ONLY_HI ",\"temperature\":0.50,\"top_p\":0.9,\"stop\":[\"a\"],\"user\":\"u\",\"service_tier\":\"default\""), false },
	{ "its own members", ASK(ONLY_HI ",\"metadata\":{\"user_id\":\"u\",\"x\":1},\"top_k\":5,\"container\":\"c\""), HUB(ONLY_HI ",\"user\":\"u\",\"x_native\":{\"anthropic\":{\"top_k\":5,\"container\":\"c\",\"metadata\":{\"x\":1}}}"), false },
	{ "no thinking", ASK(ONLY_HI ",\"thinking\":{\"type\":\"disabled\"}"), HUB(ONLY_HI ",\"reasoning_effort\":\"none\""), false },
	{ "as it sees fit", ASK(ONLY_HI ",\"thinking\":{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"low\",\"format\":{\"type\":\"json_schema\",\"schema\":{}}}"),
	  HUB(ONLY_HI ",\"reasoning_effort\":\"low\",\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"name\":\"output\",\"schema\":{}}}"), false },
	{ "a number of tokens", ASK(ONLY_HI ",\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":9000}"), HUB(ONLY_HI ",\"reasoning_effort\":\"medium\""), true },
	{ "of a kind of its own", ASK(ONLY_HI ",\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"},\"output_config\":{\"effort\":\"max\"}"),
	  HUB(ONLY_HI ",\"x_native\":{\"anthropic\":{\"thinking\":{\"type\":\"adaptive\",\"display\":\"omitted\"},\"output_config\":{\"effort\":\"max\"}}}"), true },
};

static void
test_to_hub(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof tos / sizeof tos[0]; i++) {
		const struct to_case *c = &tos[i];
		const struct sbx_translation t = { .model = NEW };
		struct sbx_buf hub, back;
		struct sbx_fault fault = { .why = "" };
		sbx_buf_init(&hub, 1 << 20);
		sbx_buf_init(&back, 1 << 20);
		if (sbx_json_check(c->body, strlen(c->body), &scratch, NULL))
			fail_msg("%s: the case itself is no JSON", c->name);
		if (sbx_anthropic_to_hub(SBX_OP_CHAT, sbx_span_of(c->body), &hub, &fault))
			fail_msg("%s: %s", c->name, fault.why);
		if (sbx_anthropic_from_hub(SBX_OP_CHAT, (struct sbx_span){ (const char *)hub.data, hub.n }, &t, &back, &fault))
			fail_msg("%s: back: %s", c->name, fault.why);
		assert_int_equal(sbx_buf_append(&hub, "", 1), 0);
		assert_int_equal(sbx_buf_append(&back, "", 1), 0);
		if (strcmp((const char *)hub.data, c->want) != 0)
			fail_msg("%s:\n%s\nnot\n%s", c->name, (const char *)hub.data, c->want);
		if (!c->one_way && strcmp((const char *)back.data, c->body) != 0)
			fail_msg("%s, and back:\n%s\nnot\n%s", c->name, (const char *)back.data, c->body);
		sbx_buf_fini(&hub);
		sbx_buf_fini(&back);
	}
}

static void
test_to_hub_refuses(void **state)
{
	static const char *const cases[][2] = {
		{ ASK("\"messages\":[{\"content\":\"a\"}]"), "messages[0].role" },
		{ ASK("\"messages\":[" USER_HI ",{\"role\":\"user\",\"content\":1}]"), "messages[1].content" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_buf hub;
		struct sbx_fault fault;
		sbx_buf_init(&hub, 1 << 20);
		assert_int_equal(sbx_anthropic_to_hub(SBX_OP_CHAT, sbx_span_of(cases[i][0]), &hub, &fault), -SBX_ESYNTAX);
		assert_string_equal(fault.param, cases[i][1]);
		sbx_buf_fini(&hub);
	}
}

/* The buffer's limit is an answer too, wherever it is met. */
static void
test_limit(void **state)
{
	const struct from_case *c = &froms[sizeof froms / sizeof froms[0] - 5];
	const struct sbx_translation t = { .model = c->model };
	(void)state;
	for (size_t max = 1;; max++) {
		struct sbx_buf out;
		struct sbx_fault fault;
		sbx_buf_init(&out, max);
		int rc = sbx_anthropic_from_hub(SBX_OP_CHAT, sbx_span_of(c->hub), &t, &out, &fault);
		sbx_buf_fini(&out);
		if (rc == 0)
			break;
		assert_int_equal(rc, -SBX_ETOOBIG);
		assert_true(max < 4096);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_from_hub),
		cmocka_unit_test(test_to_hub),
		cmocka_unit_test(test_to_hub_refuses),
		cmocka_unit_test(test_limit),
	};
	sbx_json_scratch_init(&scratch);
	int failures = cmocka_run_group_tests(tests, NULL, NULL);
	sbx_json_scratch_fini(&scratch);
	return failures;
}
