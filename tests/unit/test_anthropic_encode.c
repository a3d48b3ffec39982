/* SPDX-License-Identifier: Apache-2.0 */
/* Answers written for clients of Anthropic's dialect: the grammar of the stream, the whole body, errors; and a client's own requests,
 * read and edited. What is written is read back by the dialect's own decoder. */
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
static const struct sbx_dialect *const dialect = &sbx_dialect_anthropic;

/* ---- answers ---- */

#define TEXT(t)         { .kind = SBX_HUB_TEXT, .text = SBX_SPAN(t) }
#define THOUGHT(t)      { .kind = SBX_HUB_REASONING, .text = SBX_SPAN(t) }
#define REFUSAL(t)      { .kind = SBX_HUB_REFUSAL, .text = SBX_SPAN(t) }
#define DETAIL(t)       { .kind = SBX_HUB_DETAIL, .text = SBX_SPAN(t) }
#define CALL(i, c, n, a) { .kind = SBX_HUB_TOOL_CALL, .index = (i), .id = SBX_SPAN(c), .name = SBX_SPAN(n), .text = SBX_SPAN(a) }
#define ARGS(i, a)      { .kind = SBX_HUB_TOOL_CALL, .index = (i), .text = SBX_SPAN(a) }
#define FINISH(f, raw)  { .kind = SBX_HUB_FINISH, .finish = SBX_FINISH_##f, .finish_raw = SBX_SPAN(raw) }
#define USAGE(u)        { .kind = SBX_HUB_USAGE, .usage = &(u) }
#define LIFE            { .kind = SBX_HUB_LIFECYCLE }
#define NONE            { .kind = SBX_HUB_END }

static const struct sbx_usage plain = { 10, 7, 17, -1, -1, -1, false, false };
static const struct sbx_usage rich = { 10, 7, 17, 3, 2, 4, false, false };
static const struct sbx_usage odd = { 1, 7, 8, 3, 2, -1, true, false };

/* The stream without what is the same in all: `event:` and `type` are told by the first letters. */
struct encode_case {
	const char *name;
	struct sbx_hub_event events[12]; /* up to NONE */
	const char *stream;  /* S start, b{} block, d{} delta, e block's end, M{} message_delta, Z message_stop */
	const char *body;    /* its content list, and what follows it */
};

#define TB(i)       "b" i "{\"type\":\"text\",\"text\":\"\"} "
#define TD(i, t)    "d" i "{\"type\":\"text_delta\",\"text\":\"" t "\"} "
#define HB(i)       "b" i "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"} "
#define HD(i, t)    "d" i "{\"type\":\"thinking_delta\",\"thinking\":\"" t "\"} "
#define SD(i, t)    "d" i "{\"type\":\"signature_delta\",\"signature\":\"" t "\"} "
#define CB(i, c, n) "b" i "{\"type\":\"tool_use\",\"id\":\"" c "\",\"name\":\"" n "\",\"input\":{}} "
#define CD(i, t)    "d" i "{\"type\":\"input_json_delta\",\"partial_json\":\"" t "\"} "
#define RB(i, d)    "b" i "{\"type\":\"redacted_thinking\",\"data\":\"" d "\"} "
#define ZERO        "\"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":0}"
#define PLAIN       "\"usage\":{\"input_tokens\":10,\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,\"output_tokens\":7}"
#define RICH        "\"usage\":{\"input_tokens\":5,\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":3,\"output_tokens\":7,\"output_tokens_details\":{\"thinking_tokens\":4}}"
#define ODD         "\"usage\":{\"input_tokens\":0,\"cache_creation_input_tokens\":2,\"cache_read_input_tokens\":3,\"output_tokens\":7}"
#define REASON(r)   "\"stop_reason\":\"" r "\",\"stop_sequence\":null"
#define M(r, u)     "M{" REASON(r) "} " u " Z "
#define TAIL(r, u)  "]," REASON(r) "," u "}"

static const struct encode_case cases[] = {
	{ "text", { LIFE, TEXT("a\n"), TEXT("b"), FINISH(STOP, "stop"), USAGE(plain), NONE }, "S" ZERO " " TB("0") TD("0", "a\\n") TD("0", "b") "e0 " M("end_turn", PLAIN),
	  "{\"type\":\"text\",\"text\":\"a\\nb\"}" TAIL("end_turn", PLAIN) },
	{ "usage at the start", { USAGE(rich), TEXT("a"), FINISH(LENGTH, "length"), NONE }, "S" RICH " " TB("0") TD("0", "a") "e0 " M("max_tokens", RICH),
	  "{\"type\":\"text\",\"text\":\"a\"}" TAIL("max_tokens", RICH) },
	{ "figures that do not fit", { FINISH(STOP, ""), USAGE(odd), NONE }, "S" ODD " " M("end_turn", ODD), TAIL("end_turn", ODD) },
	{ "nothing", { FINISH(STOP, "stop"), NONE }, "S" ZERO " " M("end_turn", ZERO), TAIL("end_turn", ZERO) },
	{ "thinking", { THOUGHT("r"), THOUGHT("s"), DETAIL("{\"type\":\"reasoning.text\",\"text\":\"rs\",\"signature\":\"x\\/y\",\"format\":\"anthropic-claude-v1\",\"index\":0}"), TEXT("a"), FINISH(STOP, "end_turn"), NONE },
	  "S" ZERO " " HB("0") HD("0", "r") HD("0", "s") SD("0", "x\\/y") "e0 " TB("1") TD("1", "a") "e1 " M("end_turn", ZERO),
	  "{\"type\":\"thinking\",\"thinking\":\"rs\",\"signature\":\"x\\/y\"},{\"type\":\"text\",\"text\":\"a\"}" TAIL("end_turn", ZERO) },
	{ "twice", { THOUGHT("r"), DETAIL("{\"type\":\"reasoning.text\",\"signature\":\"1\",\"format\":\"anthropic-claude-v1\"}"), THOUGHT("s"), DETAIL("{\"type\":\"reasoning.text\",\"signature\":\"2\",\"format\":\"anthropic-claude-v1\"}"), FINISH(STOP, ""), NONE },
	  "S" ZERO " " HB("0") HD("0", "r") SD("0", "1") "e0 " HB("1") HD("1", "s") SD("1", "2") "e1 " M("end_turn", ZERO),
	  "{\"type\":\"thinking\",\"thinking\":\"r\",\"signature\":\"1\"},{\"type\":\"thinking\",\"thinking\":\"s\",\"signature\":\"2\"}" TAIL("end_turn", ZERO) },
	{ "redacted, and another's", { DETAIL("{\"type\":\"reasoning.encrypted\",\"data\":\"E\",\"format\":\"anthropic-claude-v1\"}"), DETAIL("{\"type\":\"reasoning.encrypted\",\"data\":\"G\"}"), TEXT("a"), FINISH(STOP, ""), NONE },
	  "S" ZERO " " RB("0", "E") "e0 " RB("1", "{\\\"type\\\":\\\"reasoning.encrypted\\\",\\\"data\\\":\\\"G\\\"}") "e1 " TB("2") TD("2", "a") "e2 " M("end_turn", ZERO),
	  "{\"type\":\"redacted_thinking\",\"data\":\"E\"},{\"type\":\"redacted_thinking\",\"data\":\"{\\\"type\\\":\\\"reasoning.encrypted\\\",\\\"data\\\":\\\"G\\\"}\"},{\"type\":\"text\",\"text\":\"a\"}" TAIL("end_turn", ZERO) },
	{ "calls one after the other", { TEXT("a"), CALL(0, "x", "f", ""), ARGS(0, "{\"a\":\"}\\\""), ARGS(0, "\"}"), CALL(1, "y", "g", "{}"), FINISH(TOOL_CALLS, "tool_calls"), NONE },
	  "S" ZERO " " TB("0") TD("0", "a") "e0 " CB("1", "x", "f") CD("1", "{\\\"a\\\":\\\"}\\\\\\\"") CD("1", "\\\"}") "e1 " CB("2", "y", "g") CD("2", "{}") "e2 " M("tool_use", ZERO),
	  "{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{\"a\":\"}\\\"\"}},{\"type\":\"tool_use\",\"id\":\"y\",\"name\":\"g\",\"input\":{}}" TAIL("tool_use", ZERO) },
	{ "calls in turns", { CALL(0, "x", "f", "{"), CALL(1, "y", "g", "{\"b\""), TEXT("t"), ARGS(0, "}"), ARGS(1, ":1}"), FINISH(STOP, "stop"), NONE },
	  "S" ZERO " " CB("0", "x", "f") CD("0", "{") CD("0", "}") "e0 " CB("1", "y", "g") CD("1", "{\\\"b\\\"") CD("1", ":1}") "e1 " TB("2") TD("2", "t") "e2 " M("tool_use", ZERO),
	  "{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"y\",\"name\":\"g\",\"input\":{\"b\":1}},{\"type\":\"text\",\"text\":\"t\"}" TAIL("tool_use", ZERO) },
	{ "a brace inside a string ends nothing", { CALL(0, "x", "f", "{\"a\":\"b}c\\\"}"), CALL(1, "y", "g", "{}"), ARGS(0, "\"}"), FINISH(STOP, "stop"), NONE },
	  "S" ZERO " " CB("0", "x", "f") CD("0", "{\\\"a\\\":\\\"b}c\\\\\\\"}") CD("0", "\\\"}") "e0 " CB("1", "y", "g") CD("1", "{}") "e1 " M("tool_use", ZERO),
	  "{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{\"a\":\"b}c\\\"}\"}},{\"type\":\"tool_use\",\"id\":\"y\",\"name\":\"g\",\"input\":{}}" TAIL("tool_use", ZERO) },
	{ "without arguments, without an id", { CALL(0, "", "f", ""), CALL(1, "", "g", "{}"), FINISH(TOOL_CALLS, ""), NONE },
	  "S" ZERO " " CB("0", "msg_1_0", "f") "e0 " CB("1", "msg_1_1", "g") CD("1", "{}") "e1 " M("tool_use", ZERO),
	  "{\"type\":\"tool_use\",\"id\":\"msg_1_0\",\"name\":\"f\",\"input\":{}},{\"type\":\"tool_use\",\"id\":\"msg_1_1\",\"name\":\"g\",\"input\":{}}" TAIL("tool_use", ZERO) },
	{ "an id behind the name", { CALL(0, "", "f", ""), CALL(0, "x", "", "{}"), FINISH(TOOL_CALLS, ""), NONE }, "S" ZERO " " CB("0", "x", "f") CD("0", "{}") "e0 " M("tool_use", ZERO),
	  "{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{}}" TAIL("tool_use", ZERO) },
	{ "arguments that are no object", { CALL(0, "x", "f", "{\"a\":"), FINISH(TOOL_CALLS, ""), NONE }, "S" ZERO " " CB("0", "x", "f") CD("0", "{\\\"a\\\":") "e0 " M("tool_use", ZERO),
	  "{\"type\":\"tool_use\",\"id\":\"x\",\"name\":\"f\",\"input\":{\"INVALID_JSON\":\"{\\\"a\\\":\"}}" TAIL("tool_use", ZERO) },
	{ "a refusal", { REFUSAL("no"), FINISH(STOP, "stop"), NONE }, "S" ZERO " " TB("0") TD("0", "no") "e0 " M("refusal", ZERO), "{\"type\":\"text\",\"text\":\"no\"}" TAIL("refusal", ZERO) },
	{ "a filter", { TEXT("a"), FINISH(CONTENT_FILTER, "SAFETY"), NONE }, "S" ZERO " " TB("0") TD("0", "a") "e0 " M("refusal", ZERO), "{\"type\":\"text\",\"text\":\"a\"}" TAIL("refusal", ZERO) },
	{ "its own word", { TEXT("a"), FINISH(STOP, "pause_turn"), NONE }, "S" ZERO " " TB("0") TD("0", "a") "e0 " M("pause_turn", ZERO), "{\"type\":\"text\",\"text\":\"a\"}" TAIL("pause_turn", ZERO) },
	{ "another choice", { TEXT("a"), { .kind = SBX_HUB_TEXT, .choice = 1, .text = SBX_SPAN("b") }, FINISH(STOP, ""), NONE }, "S" ZERO " " TB("0") TD("0", "a") "e0 " M("end_turn", ZERO),
	  "{\"type\":\"text\",\"text\":\"a\"}" TAIL("end_turn", ZERO) },
};

static int
encode(const struct encode_case *c, bool stream, struct sbx_buf *out)
{
	const struct sbx_encode_opts opts = { .op = SBX_OP_CHAT, .stream = stream, .model = "m\"x", .id = "msg_1" };
	struct sbx_encoder *e = dialect->encoder_new(&opts, out);
	assert_non_null(e);
	int rc = 0;
	for (const struct sbx_hub_event *ev = c->events; rc == 0 && ev->kind != SBX_HUB_END; ev++)
		rc = dialect->encoder_event(e, ev);
	if (rc == 0)
		rc = dialect->encoder_end(e);
	dialect->encoder_free(e);
	return rc;
}

/* Takes a piece of known text off the front. */
static bool
take(struct sbx_span *s, const char *text)
{
	size_t n = strlen(text);
	if (s->n < n || memcmp(s->at, text, n) != 0)
		return false;
	*s = (struct sbx_span){ s->at + n, s->n - n };
	return true;
}

/* The events as the cases have them; each must be framed and JSON. */
static void
shorten(const char *name, struct sbx_span s, struct sbx_buf *out)
{
	static const char *const types[][2] = { { "message_start", "S" }, { "content_block_start", "b" }, { "content_block_delta", "d" },
						{ "content_block_stop", "e" }, { "message_delta", "M" }, { "message_stop", "Z" } };
	while (s.n) {
		char head[128];
		size_t i = 0;
		for (; i < 6; i++) {
			(void)snprintf(head, sizeof head, "event: %s\ndata: {\"type\":\"%s\"", types[i][0], types[i][0]);
			if (take(&s, head))
				break;
		}
		const char *end = memmem(s.at, s.n, "}\n\n", 3);
		if (i == 6 || !end)
			fail_msg("%s: no event at %.*s", name, (int)s.n, s.at);
		struct sbx_span rest = { s.at, (size_t)(end - s.at) };
		const char *brace = memchr(head, '{', sizeof head);
		struct sbx_buf json;
		sbx_buf_init(&json, 1 << 20);
		assert_int_equal(sbx_buf_printf(&json, "%s%.*s}", brace, (int)rest.n, rest.at), 0);
		if (sbx_json_check((const char *)json.data, json.n, &scratch, NULL))
			fail_msg("%s: no JSON: %.*s", name, (int)json.n, (const char *)json.data);
		sbx_buf_fini(&json);
		assert_int_equal(sbx_buf_append(out, types[i][1], 1), 0);
		if (take(&rest, ",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\\\"x\",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null,"))
			rest.n--; /* the message's brace */
		bool indexed = take(&rest, ",\"index\":");
		if (indexed) {
			assert_int_equal(sbx_buf_append(out, rest.at, 1), 0);
			rest = (struct sbx_span){ rest.at + 1, rest.n - 1 };
		}
		if (take(&rest, ",\"delta\":") && !indexed) { /* a message's: what follows it is its usage */
			const char *usage = memmem(rest.at, rest.n, ",\"usage\"", 8);
			assert_non_null(usage);
			assert_int_equal(sbx_buf_printf(out, "%.*s ", (int)(usage - rest.at), rest.at), 0);
			rest = (struct sbx_span){ usage + 1, rest.n - (size_t)(usage + 1 - rest.at) };
		}
		(void)take(&rest, ",\"content_block\":");
		assert_int_equal(sbx_buf_printf(out, "%.*s ", (int)rest.n, rest.n ? rest.at : ""), 0);
		s.n -= (size_t)(end + 3 - s.at);
		s.at = end + 3;
	}
	assert_int_equal(sbx_buf_append(out, "", 1), 0);
}

static void
test_streams(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_buf out, is;
		sbx_buf_init(&out, 1 << 20);
		sbx_buf_init(&is, 1 << 20);
		assert_int_equal(encode(&cases[i], true, &out), 0);
		shorten(cases[i].name, (struct sbx_span){ (const char *)out.data, out.n }, &is);
		if (strcmp((const char *)is.data, cases[i].stream) != 0)
			fail_msg("%s:\n%s\nnot\n%s", cases[i].name, (const char *)is.data, cases[i].stream);
		sbx_buf_fini(&out);
		sbx_buf_fini(&is);
	}
}

static void
test_bodies(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_buf out;
		char want[2048];
		sbx_buf_init(&out, 1 << 20);
		assert_int_equal(encode(&cases[i], false, &out), 0);
		assert_int_equal(sbx_json_check((const char *)out.data, out.n, &scratch, NULL), 0);
		assert_int_equal(sbx_buf_append(&out, "", 1), 0);
		(void)snprintf(want, sizeof want, "{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\\\"x\",\"content\":[%s", cases[i].body);
		if (strcmp((const char *)out.data, want) != 0)
			fail_msg("%s:\n%s\nnot\n%s", cases[i].name, (const char *)out.data, want);
		sbx_buf_fini(&out);
	}
}

/* Every size of the buffer but the last is an answer, not a crash. */
static void
test_limit(void **state)
{
	(void)state;
	for (int stream = 0; stream < 2; stream++) {
		for (size_t max = 1;; max++) {
			struct sbx_buf out;
			sbx_buf_init(&out, max);
			int rc = encode(&cases[7], stream, &out);
			sbx_buf_fini(&out);
			if (rc == 0)
				break;
			assert_int_equal(rc, -SBX_ETOOBIG);
			assert_true(max < 8192);
		}
	}
}

/* ---- errors, cost ---- */

static void
test_errors(void **state)
{
	const struct sbx_provider_error theirs = { .type = "overloaded_error" }, other = { .type = "insufficient_quota", .code = "insufficient_quota" };
	const struct {
		enum sbx_code code;
		const struct sbx_provider_error *said;
		const char *type;
	} rows[] = {
		{ SBX_CODE_INVALID_REQUEST, NULL, "invalid_request_error" },
		{ SBX_CODE_UNKNOWN_MODEL, NULL, "not_found_error" },
		{ SBX_CODE_UPSTREAM, NULL, "api_error" },
		{ SBX_CODE_UPSTREAM, &theirs, "overloaded_error" },
		{ SBX_CODE_QUOTA, &other, "billing_error" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_buf out;
		char want[256];
		sbx_buf_init(&out, 1 << 16);
		assert_int_equal(dialect->write_error(rows[i].code, "a \"b\"", "p", rows[i].said, &out), 0);
		assert_int_equal(sbx_buf_append(&out, "", 1), 0);
		(void)snprintf(want, sizeof want, "{\"type\":\"error\",\"error\":{\"type\":\"%s\",\"message\":\"a \\\"b\\\"\"}}", rows[i].type);
		assert_string_equal((const char *)out.data, want);
		sbx_buf_fini(&out);
	}
}

static void
test_cost(void **state)
{
	static const char *const rows[][3] = {
		{ "{\"usage\":{\"a\":1} }", "0.5", "{\"usage\":{\"a\":1,\"cost\":0.5} }" },
		{ "{\"message\":{\"usage\":{}}}", "0.5", "{\"message\":{\"usage\":{\"cost\":0.5}}}" },
		{ "{\"usage\":{\"a\":1}}", NULL, "{\"usage\":{\"a\":1,\"cost\":null}}" },
		{ "{\"usage\":{\"cost\":9,\"a\":1}}", "0.5", "{\"usage\":{\"cost\":0.5,\"a\":1}}" },
		{ "{\"usage\":{\"cost\":9}}", NULL, "{\"usage\":{\"cost\":9}}" },
		{ "{\"type\":\"ping\"}", "0.5", "{\"type\":\"ping\"}" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_buf out;
		sbx_buf_init(&out, 1 << 16);
		assert_int_equal(dialect->add_cost(sbx_span_of(rows[i][0]), SBX_SPAN("{}"), rows[i][1], &out), 0);
		assert_int_equal(sbx_buf_append(&out, "", 1), 0);
		assert_string_equal((const char *)out.data, rows[i][2]);
		sbx_buf_fini(&out);
	}
}

/* ---- requests of clients ---- */

static void
test_read(void **state)
{
	static const struct {
		const char *body, *fault; /* param, or what it begins with; NULL = fine */
		int64_t max_tokens;
		const char *facts; /* s stream, t tools, j schema, i images, o reasoning off */
	} rows[] = {
		{ "{\"model\":\"m\",\"max_tokens\":5,\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", NULL, 5, "" },
		{ "{\"max_tokens\":5,\"stream\":true,\"tools\":[{}],\"thinking\":{\"type\":\"disabled\"},\"output_config\":{\"format\":{\"type\":\"json_schema\"}},\"messages\":[{\"content\":[{\"type\":\"tool_result\",\"content\":[{\"type\":\"image\"}]}]}]}", NULL, 5, "stjio" },
		{ "{\"max_tokens\":5,\"tools\":[],\"stream\":null,\"messages\":[{}]}", NULL, 5, "" },
		{ "{\"max_tokens\":5,\"messages\":[]}", "messages", 0, NULL },
		{ "{\"max_tokens\":5}", "messages", 0, NULL },
		{ "{\"messages\":[{}]}", "max_tokens", 0, NULL },
		{ "{\"max_tokens\":0,\"messages\":[{}]}", "max_tokens", 0, NULL },
		{ "{\"max_tokens\":\"5\",\"messages\":[{}]}", "max_tokens", 0, NULL },
		{ "{\"model\":\"\",\"max_tokens\":5,\"messages\":[{}]}", "model", 0, NULL },
		{ "{\"stream\":1,\"max_tokens\":5,\"messages\":[{}]}", "stream", 0, NULL },
		{ "[]", "", 0, NULL },
		{ "{\"a\":1,\"a\":1}", "", 0, NULL },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_ask ask;
		struct sbx_fault fault;
		char facts[8];
		int rc = dialect->read_request(SBX_OP_CHAT, sbx_span_of(rows[i].body), &scratch, NULL, &ask, &fault);
		if (rows[i].fault) {
			assert_int_equal(rc, -SBX_ESYNTAX);
			assert_string_equal(fault.param, rows[i].fault);
			assert_true(fault.why[0]);
			continue;
		}
		assert_int_equal(rc, 0);
		assert_int_equal(ask.max_tokens, rows[i].max_tokens);
		(void)snprintf(facts, sizeof facts, "%s%s%s%s%s", ask.body_stream ? "s" : "", ask.has_tools ? "t" : "", ask.has_json_schema ? "j" : "",
			       ask.has_images ? "i" : "", ask.reasoning_off ? "o" : "");
		assert_string_equal(facts, rows[i].facts);
	}
	struct sbx_ask ask;
	struct sbx_fault fault;
	assert_int_equal(dialect->read_request(SBX_OP_EMBEDDINGS, SBX_SPAN("{\"max_tokens\":5,\"messages\":[{}]}"), &scratch, NULL, &ask, &fault), -SBX_ESYNTAX);
	assert_true(fault.unsupported);
}

static void
test_write(void **state)
{
	static const struct {
		const char *body;
		bool stream;
		const char *want, *user;
	} rows[] = {
		{ "{ \"model\":\"m\",\"max_tokens\":5.0,\"messages\":[{}]}", false, "{ \"model\":\"t\",\"max_tokens\":5.0,\"messages\":[{}]}", "" },
		{ "{\"max_tokens\":5,\"messages\":[{}]}", true, "{\"model\":\"t\",\"stream\":true,\"max_tokens\":5,\"messages\":[{}]}", "" },
		{ "{\"stream\":true,\"model\":\"m\",\"max_tokens\":5,\"messages\":[{}]}", false, "{\"stream\":false,\"model\":\"t\",\"max_tokens\":5,\"messages\":[{}]}", "" },
		{ "{\"models\":[\"a\"],\"max_tokens\":5,\"messages\":[{}],\"metadata\":{\"user_id\":\"u\\n\"},\"timeout\":3}", false,
		  "{\"model\":\"t\",\"max_tokens\":5,\"messages\":[{}],\"metadata\":{\"user_id\":\"u\\n\"}}", "u?" },
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		struct sbx_ask ask;
		struct sbx_fault fault;
		struct sbx_routing routing;
		struct sbx_pieces pieces;
		struct sbx_buf out;
		assert_int_equal(dialect->read_request(SBX_OP_CHAT, sbx_span_of(rows[i].body), &scratch, &routing, &ask, &fault), 0);
		assert_string_equal(routing.user, rows[i].user);
		dialect->write_request(&ask, "t", rows[i].stream, &(struct sbx_quirks){ .no_finish = false }, &pieces);
		sbx_buf_init(&out, 1 << 16);
		for (uint32_t k = 0; k < pieces.n; k++)
			assert_int_equal(sbx_buf_append(&out, pieces.piece[k].at, pieces.piece[k].n), 0);
		assert_int_equal(out.n, pieces.bytes);
		assert_int_equal(sbx_buf_append(&out, "", 1), 0);
		assert_string_equal((const char *)out.data, rows[i].want);
		sbx_buf_fini(&out);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_streams), cmocka_unit_test(test_bodies), cmocka_unit_test(test_limit), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_cost),    cmocka_unit_test(test_read),   cmocka_unit_test(test_write),
	};
	sbx_json_scratch_init(&scratch);
	int failures = cmocka_run_group_tests(tests, NULL, NULL);
	sbx_json_scratch_fini(&scratch);
	return failures;
}
