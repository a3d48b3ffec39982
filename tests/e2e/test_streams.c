/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_streams.c -- answers that are cut, sliced, malformed, huge, or no answers at all.
 *
 * T6   a stream cut at each of its bytes: a success only once its end was said
 * T7   every slicing of the bytes gives the same text
 * T8   bytes that are no text, line ends of every kind, lines at and above the limit, a million events
 * T9   events that do not parse or are not known; tool calls that lack what tells them apart
 * T10  errors that come with status 200
 */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/buf.h"
#include "tests/e2e/fault.h"

#define MIB (1024 * 1024)
#define EVENT_MAX_BYTES (32 * MIB) /* the documented limit of one event */

/* ---- one stream, in parts whose ends matter ---- */

#define CHUNK(delta, finish) "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{" delta "},\"finish_reason\":" finish "}]}\n\n"
#define TEXT_1 "你好,"
#define TEXT_2 "世界 🚂🛤️ "
#define TEXT_3 "ĳ\"\\\n\U0001f6a6" /* sent with escapes, the last as a pair of surrogates */
#define HEAD ": a comment\n\n" CHUNK("\"role\":\"assistant\",\"content\":\"\"", "null")
#define BODY_1 CHUNK("\"content\":\"" TEXT_1 "\"", "null") CHUNK("\"content\":\"" TEXT_2 "\"", "null")
#define BODY_2 CHUNK("\"content\":\"\\u0133\\\"\\\\\\n\\ud83d\\udea6\"", "null")
#define FINISH CHUNK("", "\"stop\"")
#define USAGE                                                                                                                  \
	"data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n"
#define DONE "data: [DONE]\n\n"
#define WHOLE_TEXT TEXT_1 TEXT_2 TEXT_3

static const char stream_text[] = HEAD BODY_1 BODY_2 FINISH USAGE DONE;
enum {
	STREAM_BYTES = sizeof stream_text - 1,
	CONTENT_FROM = sizeof HEAD - 1 + sizeof CHUNK("\"content\":\"" TEXT_1 "\"", "null") - 1, /* from here the client has content */
	FINISH_AT = sizeof(HEAD BODY_1 BODY_2 FINISH) - 1,                                      /* from here the answer is whole */
	USAGE_AT = sizeof(HEAD BODY_1 BODY_2 FINISH USAGE) - 1,
};

static const char body_text[] =
    "{\"id\":\"c1\",\"object\":\"chat.completion\",\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"" TEXT_1 TEXT_2
    "\\u0133\\\"\\\\\\n\\ud83d\\udea6\"},\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}";

/* ---- T6 ---- */

/* One rule for each place of the cut, used up one after the other. */
static void
set_cuts(struct world *w, const char *path, const char *faults, size_t bytes)
{
	struct sbx_buf rules;
	sbx_buf_init(&rules, 16u << 20);
	for (size_t n = 0; n <= bytes; n++)
		(void)sbx_buf_printf(&rules, "m: times=1,file=%s,%s,cut=%zu\n", path, faults, n);
	(void)sbx_buf_append(&rules, "", 1);
	double_rules(w, 0, (const char *)rules.data);
	sbx_buf_fini(&rules);
}

static void
t06_stream_cut_at_every_byte_succeeds_only_once_it_is_whole(void **state)
{
	(void)state;
	static const char *const how[] = { "replay", "replay,how=rst" };
	for (size_t h = 0; h < 2; h++) {
		struct world w;
		char path[300];
		world_simple(&w, 1, NULL, NULL);
		write_file(&w, "cut.sse", stream_text, STREAM_BYTES, path, sizeof path);
		set_cuts(&w, path, how[h], STREAM_BYTES);
		struct sbx_client *c = client_up(&w);
		const struct question q = { .route = "r", .stream = true };
		for (size_t n = 0; n <= STREAM_BYTES; n++) {
			struct answer a = answer_of(c, &q);
			const char *line = n >= FINISH_AT ? "a/m OK" : n >= CONTENT_FROM ? "a/m MIDSTREAM" : "a/m UNCERTAIN";
			enum sbx_code code = n >= FINISH_AT ? SBX_CODE_NONE : n >= CONTENT_FROM ? SBX_CODE_STREAM_BROKEN : SBX_CODE_UNCERTAIN;
			/* A reset may overtake what was sent before it; then less has come, and never more. */
			bool overtaken = h == 1 && n > 0 && strcmp(a.attempts, line) != 0 && !a.ok;
			if (!overtaken && (strcmp(a.attempts, line) != 0 || a.code != code))
				fail_msg("cut after %zu of %d: %s (%s), not %s", n, STREAM_BYTES, a.attempts, a.message, line);
			assert_true(a.text_bytes <= sizeof WHOLE_TEXT - 1 && memcmp(a.text, WHOLE_TEXT, a.text_bytes) == 0);
			if (a.ok) {
				assert_true(n >= FINISH_AT);
				assert_string_equal(a.text, WHOLE_TEXT);
			}
			if (n >= USAGE_AT && !overtaken) {
				assert_int_equal(a.tokens.prompt, 11);
				assert_int_equal(a.tokens.completion, 7);
			}
			answer_free(&a);
		}
		assert_int_equal(double_requests(&w, 0), STREAM_BYTES + 1); /* no cut was tried again in silence */
		agent_wait_at_rest(&w, 5000);
		sbx_close(c);
		world_down(&w);
	}
}

static void
t06_whole_body_cut_at_every_byte_never_succeeds(void **state)
{
	(void)state;
	struct world w;
	char path[300];
	const size_t bytes = sizeof body_text - 1;
	world_simple(&w, 1, NULL, NULL);
	write_file(&w, "cut.json", body_text, bytes, path, sizeof path);
	set_cuts(&w, path, "status=200", bytes - 1);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r" };
	for (size_t n = 0; n < bytes; n++) {
		struct answer a = answer_of(c, &q);
		assert_string_equal(a.attempts, "a/m UNCERTAIN");
		assert_int_equal(a.code, SBX_CODE_UNCERTAIN);
		assert_int_equal(a.text_bytes, 0); /* a whole answer is given whole or not at all */
		answer_free(&a);
	}
	double_rules(&w, 0, "");
	struct answer a = answer_of(c, &q);
	assert_true(a.ok);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

/* ---- T7 ---- */

static void
t07_every_slicing_gives_the_same_text(void **state)
{
	(void)state;
	struct world w;
	struct sbx_buf rules;
	char stream[300], body[300];
	world_simple(&w, 1, NULL, NULL);
	write_file(&w, "s.sse", stream_text, STREAM_BYTES, stream, sizeof stream);
	write_file(&w, "b.json", body_text, sizeof body_text - 1, body, sizeof body);
	sbx_buf_init(&rules, 65536);
	for (int n = 1; n <= 7; n++)
		(void)sbx_buf_printf(&rules, "s%d: replay,file=%s,split=%d\nb%d: file=%s,split=%d\n", n, stream, n, n, body, n);
	(void)sbx_buf_append(&rules, "", 1);
	double_rules(&w, 0, (const char *)rules.data);
	sbx_buf_fini(&rules);
	struct sbx_client *c = client_up(&w);
	for (int n = 1; n <= 7; n++)
		for (int form = 0; form < 4; form++) {
			char name[16];
			(void)snprintf(name, sizeof name, "a/%c%d", form & 1 ? 's' : 'b', n);
			const struct question q = { .targets = { name }, .stream = form & 1, .data = form & 2 };
			struct answer a = answer_of(c, &q);
			if (!a.ok)
				fail_msg("%s in pieces of %d: %s", form & 1 ? "stream" : "body", n, a.message);
			if (!(form & 2))
				assert_string_equal(a.text, WHOLE_TEXT);
			else if (form & 1) /* without the comment, and without the usage that the client did not ask for */
				assert_string_equal(a.data, CHUNK("\"role\":\"assistant\",\"content\":\"\"", "null") BODY_1 BODY_2 FINISH DONE);
			else
				assert_string_equal(a.data, body_text);
			assert_int_equal(a.tokens.total, 18);
			answer_free(&a);
		}
	sbx_close(c);
	world_down(&w);
}

/* ---- T8 ---- */

static void
t08_line_ends_and_byte_order_mark_make_no_difference(void **state)
{
	(void)state;
	static const char *const faults[] = { "crlf", "lone-cr", "bom", "bom,crlf", "crlf,split=1", "lone-cr,split=1", "bom,split=1" };
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
		char name[64];
		(void)snprintf(name, sizeof name, "a/m@%s", faults[i]);
		const struct question q = { .targets = { name }, .stream = true };
		struct answer a = answer_of(c, &q);
		if (!a.ok || strcmp(a.text, "hello from a") != 0)
			fail_msg("%s: \"%s\" %s", faults[i], a.text, a.message);
		assert_true(a.tokens.completion > 0);
		answer_free(&a);
	}
	sbx_close(c);
	world_down(&w);
}

/* The text was lost, so the answer cannot be a success; and nothing of it may reach the client. */
static void
t08_bytes_that_are_no_text_fail_the_attempt(void **state)
{
	(void)state;
	static const char *const faults[] = { "invalid-utf8,tokens=1", "nul,tokens=1", "invalid-utf8,tokens=1,split=1" };
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < 2 * sizeof faults / sizeof faults[0]; i++) {
		char name[64], line[128];
		(void)snprintf(name, sizeof name, "a/m@%s", faults[i / 2]);
		(void)snprintf(line, sizeof line, "%s FAILED, b/m OK", name);
		const struct question q = { .targets = { name, "b/m" }, .stream = true, .data = i % 2 };
		struct answer a = answer_of(c, &q);
		if (!a.ok || !strstr(a.attempts, "FAILED, b/m OK"))
			fail_msg("%s: %s; %s", faults[i / 2], a.attempts, a.message);
		if (!q.data)
			assert_string_equal(a.text, "hello from b");
		assert_null(strstr(q.data ? a.data : a.text, "\xff"));
		answer_free(&a);
	}
	assert_true(agent_number(&w, "events_malformed") >= 3);
	sbx_close(c);
	world_down(&w);
}

static void
t08_line_of_15_mib_passes_and_of_17_mib_is_a_typed_failure(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, NULL, "\"attempts\": { \"per_target\": 1 }");
	struct sbx_client *c = client_up(&w);
	int64_t before = agent_rss_bytes(&w);
	for (int data = 0; data < 2; data++) {
		const struct question large = { .targets = { "a/m@line=15360k,tokens=1" }, .stream = true, .data = data };
		const struct question above = { .targets = { "a/m@line=17408k", "b/m" }, .stream = true, .data = data };
		struct answer a = answer_of(c, &large);
		if (!a.ok)
			fail_msg("15 MiB: %s, %s", a.attempts, a.message);
		assert_true((data ? a.data_bytes : a.text_bytes) > 15u * MIB - 512);
		answer_free(&a);
		a = answer_of(c, &above);
		assert_string_equal(a.attempts, "a/m@line=17408k FAILED, b/m OK");
		answer_free(&a);
		const struct question alone = { .targets = { "a/m@line=17408k" }, .stream = true, .data = data };
		a = answer_of(c, &alone);
		assert_int_equal(a.code, SBX_CODE_UPSTREAM);
		assert_non_null(strstr(a.message, "limit"));
		answer_free(&a);
	}
	agent_wait_at_rest(&w, 5000);
	int64_t grown = agent_rss_bytes(&w) - before, peak = agent_peak_bytes(&w) - before;
	if (!SANITIZED && (grown > 8 * MIB || peak > 2 * EVENT_MAX_BYTES)) /* a sanitizer keeps freed memory, and that counts */
		fail_msg("for lines of at most 16 MiB the agent grew by %lld kB, at its peak by %lld kB", (long long)grown / 1024, (long long)peak / 1024);
	sbx_close(c);
	world_down(&w);
}

static void
t08_a_million_tiny_events_neither_stop_nor_fatten_the_agent(void **state)
{
	(void)state;
	const uint32_t n = SANITIZED ? 100000 : 1000000;
	struct world w;
	char rule[64];
	(void)snprintf(rule, sizeof rule, "m: tiny=%u", n);
	world_simple(&w, 2, (const char *[]){ rule, NULL }, NULL);
	struct sbx_client *c = client_up(&w), *other = client_up(&w);
	const struct question many = { .route = "r", .stream = true, .deadline_ms = 60000 }, quick = { .targets = { "b/m" } };
	struct sbx_request_options o;
	struct sbx_event ev;
	uint64_t id;
	uint32_t got = 0, others = 0, slowest_ms = 0;
	int64_t before = agent_rss_bytes(&w);
	question_fill(&many, &o);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	do {
		assert_int_equal(sbx_next(c, 20000, &ev), 0);
		if (ev.note == SBX_NOTE_TEXT)
			got += (uint32_t)ev.text_bytes;
		if (ev.note == SBX_NOTE_TEXT && got % (n / 10) == 0) { /* meanwhile others are served */
			uint64_t from_ms = now_ms();
			struct answer a = answer_of(other, &quick);
			assert_true(a.ok);
			answer_free(&a);
			others++;
			if (now_ms() - from_ms > slowest_ms)
				slowest_ms = (uint32_t)(now_ms() - from_ms);
		}
	} while (!ev.last);
	assert_true(sbx_reply_ok(ev.reply));
	assert_int_equal(got, n);
	assert_true(others >= 1);
	assert_true(slowest_ms < (SANITIZED ? 2000u : 500u));
	int64_t grown = agent_rss_bytes(&w) - before;
	if (grown > (SANITIZED ? 64ll : 4ll) * MIB)
		fail_msg("the agent grew by %lld kB", (long long)(grown / 1024));
	sbx_close(other);
	sbx_close(c);
	world_down(&w);
}

/* ---- T9 ---- */

#define OK_CHUNKS CHUNK("\"content\":\"hi\"", "null") FINISH DONE
#define CALL(fields) CHUNK("\"tool_calls\":[{" fields "}]", "null")

static const struct odd {
	const char *what, *text;
	const char *want;  /* the text of a success; NULL = FAILED before, or MIDSTREAM after content */
	bool midstream;
} odds[] = {
	{ "junk without a string", "data: {oops\n\n" OK_CHUNKS, "hi", false },
	{ "junk with one, before content", "data: {\"choices\":[{\"delta\":{\"content\":\"x\n\n" OK_CHUNKS, NULL, true },
	{ "junk with one, after content", CHUNK("\"content\":\"hi\"", "null") "data: {\"choices\":[{\"delta\":{\"cont\n\n" FINISH DONE, NULL, true },
	{ "only junk", "data: {\"choices\":[{\"delta\":{\"cont\n\n" FINISH DONE, NULL, false },
	{ "unknown event types", "event: novelty\ndata: {\"type\":\"novelty\",\"n\":[1,2,{}]}\n\n" OK_CHUNKS, "hi", false },
	{ "unknown fields of SSE", "id: 7\nretry: 10\nfoo: bar\nbar\n\n" OK_CHUNKS, "hi", false },
	{ "unknown members", CHUNK("\"novelty\":{\"a\":[null]},\"content\":\"hi\"", "null") FINISH DONE, "hi", false },
	{ "no index of the choice", "data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" DONE, "hi", false },
	{ "data over several lines", "data: {\"choices\":[{\"index\":0,\ndata: \"delta\":{\"content\":\"hi\"},\ndata: \"finish_reason\":\"stop\"}]}\n\n" DONE, "hi", false },
	{ "null where an object should be", "data: {\"choices\":[{\"index\":0,\"delta\":null}]}\n\ndata: null\n\n" OK_CHUNKS, "hi", false },
	{ "the end mark without a finish", CHUNK("\"content\":\"hi\"", "null") DONE, NULL, true },
	{ "nothing but the end mark", DONE, NULL, false },
	{ "a finish said to be an error", CHUNK("\"content\":\"hi\"", "null") CHUNK("", "\"error\"") DONE, NULL, true },
	{ "no blank line at the very end", CHUNK("\"content\":\"hi\"", "null") FINISH "data: [DONE]", "hi", false },
};

/* a: the rules are by model, "odd0" ... */
static void
set_files(struct world *w, const char *const *text, size_t n)
{
	struct sbx_buf rules;
	sbx_buf_init(&rules, 65536);
	for (size_t i = 0; i < n; i++) {
		char name[32], path[300];
		(void)snprintf(name, sizeof name, "odd%zu.sse", i);
		write_file(w, name, text[i], strlen(text[i]), path, sizeof path);
		(void)sbx_buf_printf(&rules, "odd%zu: replay,file=%s\n", i, path);
	}
	(void)sbx_buf_append(&rules, "", 1);
	double_rules(w, 0, (const char *)rules.data);
	sbx_buf_fini(&rules);
}

static void
t09_events_that_do_not_parse_or_are_not_known(void **state)
{
	(void)state;
	enum { N = sizeof odds / sizeof odds[0] };
	struct world w;
	const char *text[N];
	world_simple(&w, 2, NULL, "\"attempts\": { \"per_target\": 1 }");
	for (size_t i = 0; i < N; i++)
		text[i] = odds[i].text;
	set_files(&w, text, N);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < N; i++) {
		char name[16], line[64];
		(void)snprintf(name, sizeof name, "a/odd%zu", i);
		(void)snprintf(line, sizeof line, "%s %s", name, odds[i].want ? "OK" : odds[i].midstream ? "MIDSTREAM" : "FAILED, b/m OK");
		const struct question q = { .targets = { name, "b/m" }, .stream = true };
		struct answer a = answer_of(c, &q);
		if (strcmp(a.attempts, line) != 0)
			fail_msg("%s: %s, not %s; %s", odds[i].what, a.attempts, line, a.message);
		if (odds[i].midstream)
			assert_int_equal(a.code, SBX_CODE_STREAM_BROKEN);
		else
			assert_string_equal(a.text, odds[i].want ? odds[i].want : "hello from b");
		answer_free(&a);
	}
	assert_true(agent_number(&w, "events_malformed") >= 4);
	sbx_close(c);
	world_down(&w);
}

/* Each: the calls as "name(arguments);" in order. NULL: no success, since a fragment could belong to either. */
static const struct {
	const char *what, *text, *want;
} tools[] = {
	{ "by index, interleaved",
	  CALL("\"index\":0,\"id\":\"c0\",\"function\":{\"name\":\"f\",\"arguments\":\"\"}") CALL("\"index\":1,\"id\":\"c1\",\"function\":{\"name\":\"g\",\"arguments\":\"\"}")
	  CALL("\"index\":0,\"function\":{\"arguments\":\"{\\\"a\\\":\"}") CALL("\"index\":1,\"function\":{\"arguments\":\"{\\\"b\\\":\\\"\\u00e9\"}")
	  CALL("\"index\":1,\"function\":{\"arguments\":\"x\\\"}\"}") CALL("\"index\":0,\"function\":{\"arguments\":\"1}\"}"),
	  "f({\"a\":1});g({\"b\":\"éx\"});" },
	{ "no index: by id",
	  CALL("\"id\":\"c0\",\"function\":{\"name\":\"f\",\"arguments\":\"[1\"}") CALL("\"id\":\"c1\",\"function\":{\"name\":\"g\",\"arguments\":\"[2\"}")
	  CALL("\"id\":\"c0\",\"function\":{\"arguments\":\",3]\"}") CALL("\"id\":\"c1\",\"function\":{\"arguments\":\",4]\"}"),
	  "f([1,3]);g([2,4]);" },
	{ "no index, no id, one call", CALL("\"function\":{\"name\":\"f\",\"arguments\":\"[1\"}") CALL("\"function\":{\"arguments\":\"]\"}"), "f([1]);" },
	{ "the same index for two calls",
	  CALL("\"index\":0,\"id\":\"c0\",\"function\":{\"name\":\"f\",\"arguments\":\"[]\"}") CALL("\"index\":0,\"id\":\"c1\",\"function\":{\"name\":\"g\",\"arguments\":\"{}\"}"),
	  "f([]);g({});" },
	{ "no index, no id, two calls: nobody can tell",
	  CALL("\"function\":{\"name\":\"f\",\"arguments\":\"[1\"}") CALL("\"function\":{\"name\":\"g\",\"arguments\":\"[2\"}") CALL("\"function\":{\"arguments\":\"]\"}"), NULL },
};

static void
t09_tool_arguments_are_exact_or_there_is_no_success(void **state)
{
	(void)state;
	enum { N = sizeof tools / sizeof tools[0] };
	struct world w;
	char text[N][4096];
	const char *texts[N];
	world_simple(&w, 1, NULL, NULL);
	for (size_t i = 0; i < N; i++) {
		(void)snprintf(text[i], sizeof text[i], "%s%s", tools[i].text, CHUNK("", "\"tool_calls\"") DONE);
		texts[i] = text[i];
	}
	set_files(&w, texts, N);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < N; i++) {
		struct sbx_request_options o = SBX_REQUEST_INIT;
		struct sbx_reply *r = NULL;
		char name[16], calls[512] = "";
		(void)snprintf(name, sizeof name, "a/odd%zu", i);
		o.model = name;
		o.body = BODY;
		o.body_bytes = strlen(BODY);
		o.stream = true;
		(void)sbx_ask(c, &o, &r);
		assert_non_null(r);
		for (uint32_t k = 0; k < sbx_reply_tool_calls(r); k++) {
			struct sbx_tool_call call;
			size_t at = strlen(calls);
			assert_true(sbx_reply_tool_call(r, k, &call));
			(void)snprintf(calls + at, sizeof calls - at, "%s(%s);", call.name, call.arguments);
		}
		if (tools[i].want) {
			if (!sbx_reply_ok(r) || strcmp(calls, tools[i].want) != 0)
				fail_msg("%s: %s, not %s; %s", tools[i].what, calls, tools[i].want, sbx_reply_message(r));
		} else {
			assert_false(sbx_reply_ok(r));
		}
		sbx_reply_free(r);
	}
	sbx_close(c);
	world_down(&w);
}

/* ---- T10 ---- */

static const struct disguise {
	const char *faults;
	bool whole, stream;     /* asked in which forms */
	const char *class;
	int status;             /* told by the attempt */
	enum sbx_code code;     /* of the request, when nobody else can answer */
} disguises[] = {
	{ "html", true, true, "FAILED", 200, SBX_CODE_UPSTREAM },
	{ "empty", true, true, "FAILED", 200, SBX_CODE_UPSTREAM },
	/* errors in words: the kind decides, and HTTP's status stands */
	{ "json-error", true, true, "REFUSED", 200, SBX_CODE_RATE_LIMITED },
	{ "json-error,error-status=500", true, true, "FAILED", 200, SBX_CODE_UPSTREAM },
	{ "json-error,error-status=401", true, true, "AUTH", 200, SBX_CODE_CREDENTIALS },
	{ "json-error,error-status=404", true, true, "NOT_THERE", 200, SBX_CODE_NOT_FOUND },
	{ "json-error,error-status=400", true, true, "BAD_REQUEST", 200, SBX_CODE_REJECTED },
	{ "error-first,error-status=500", false, true, "FAILED", 200, SBX_CODE_UPSTREAM },
	{ "error-first,error-status=429", false, true, "REFUSED", 200, SBX_CODE_RATE_LIMITED },
	/* errors that carry a status */
	{ "body={\"error\":{\"message\":\"no\"\\,\"code\":502}}", true, true, "FAILED", 502, SBX_CODE_UPSTREAM },
	{ "body={\"error\":{\"message\":\"no\"\\,\"code\":429}}", true, true, "REFUSED", 429, SBX_CODE_RATE_LIMITED },
	{ "body={\"error\":{\"message\":\"no\"\\,\"code\":402}}", true, true, "QUOTA", 402, SBX_CODE_QUOTA },
	{ "error-first,body={\"error\":{\"message\":\"no\"\\,\"status\":529}}", false, true, "REFUSED", 529, SBX_CODE_RATE_LIMITED },
	{ "error-first,body={\"error\":{\"message\":\"no\"\\,\"code\":403}}", false, true, "FORBIDDEN", 403, SBX_CODE_CREDENTIALS },
	/* no errors, and no answers */
	{ "body=\\,\\,\\,", true, true, "FAILED", 200, SBX_CODE_UPSTREAM },
	{ "body={\"ok\":true}", true, true, "FAILED", 200, SBX_CODE_UPSTREAM },
	{ "body={\"choices\":[]}", true, true, "FAILED", 200, SBX_CODE_UPSTREAM },
};

/* A provider of its own for each row, so that a refused key concerns no other. */
static void
world_of_disguises(struct world *w, size_t n)
{
	struct sbx_buf b;
	world_up(w);
	(void)world_double(w, "a", NULL);
	(void)world_double(w, "b", NULL);
	sbx_buf_init(&b, 65536);
	(void)sbx_buf_printf(&b, "{ \"attempts\": { \"per_target\": 1 }, \"timeouts\": { \"wait_short_ms\": 1, \"wait_max_ms\": 1 }, \"providers\": { "
	                         "\"b\": { \"dialect\": \"openai-chat\", \"base_url\": \"$1\", \"key\": \"$KEY\" }");
	for (size_t i = 0; i < n; i++)
		(void)sbx_buf_printf(&b, ", \"p%zu\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" }", i);
	(void)sbx_buf_printf(&b, "} }");
	(void)sbx_buf_append(&b, "", 1);
	world_agent(w, (const char *)b.data, NULL);
	sbx_buf_fini(&b);
}

static void
t10_errors_inside_a_200_are_failures_with_the_status_they_carry(void **state)
{
	(void)state;
	enum { N = sizeof disguises / sizeof disguises[0] };
	struct world w;
	world_of_disguises(&w, 4 * N);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < 4 * N; i++) {
		const struct disguise *d = &disguises[i / 4];
		bool stream = i & 1, alone = i & 2;
		char name[128], line[256];
		if (stream ? !d->stream : !d->whole)
			continue;
		(void)snprintf(name, sizeof name, "p%zu/m@%s", i, d->faults);
		const struct question q = { .targets = { name, alone ? NULL : "b/m" }, .stream = stream };
		struct answer a = answer_of(c, &q);
		bool final = alone || d->code == SBX_CODE_REJECTED;
		(void)snprintf(line, sizeof line, "%s %s%s", name, d->class, final ? "" : ", b/m OK");
		if (strcmp(a.attempts, line) != 0)
			fail_msg("%s%s: %s, not %s; %s", d->faults, stream ? ", stream" : "", a.attempts, line, a.message);
		assert_int_equal(a.attempt[0].status, d->status);
		if (final) {
			if (a.code != d->code)
				fail_msg("%s%s: code %d, not %d; %s", d->faults, stream ? ", stream" : "", a.code, d->code, a.message);
			if (d->status >= 400)
				assert_int_equal(a.status, d->status);
		} else {
			assert_string_equal(a.text, "hello from b");
		}
		answer_free(&a);
	}
	sbx_close(c);
	world_down(&w);
}

static void
t10_error_after_forty_tokens_is_told_and_the_text_stands(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: tokens=60,error-after=40,body={\"error\":{\"message\":\"overloaded\"\\,\"code\":529}}", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = true }, again = { .route = "r", .stream = true, .restart = true };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m MIDSTREAM");
	assert_int_equal(a.code, SBX_CODE_STREAM_BROKEN);
	assert_int_equal(a.status, 529);
	assert_int_equal(a.provider_status, 529);
	assert_int_equal(a.text_events, 40);
	assert_non_null(strstr(a.text, " t40"));
	answer_free(&a);
	a = answer_of(c, &again);
	assert_string_equal(a.attempts, "a/m MIDSTREAM, b/m OK");
	assert_int_equal(a.resets, 1);
	assert_string_equal(a.text, "hello from b"); /* and not two answers, one after the other */
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t06_stream_cut_at_every_byte_succeeds_only_once_it_is_whole),
		cmocka_unit_test(t06_whole_body_cut_at_every_byte_never_succeeds),
		cmocka_unit_test(t07_every_slicing_gives_the_same_text),
		cmocka_unit_test(t08_line_ends_and_byte_order_mark_make_no_difference),
		cmocka_unit_test(t08_bytes_that_are_no_text_fail_the_attempt),
		cmocka_unit_test(t08_line_of_15_mib_passes_and_of_17_mib_is_a_typed_failure),
		cmocka_unit_test(t08_a_million_tiny_events_neither_stop_nor_fatten_the_agent),
		cmocka_unit_test(t09_events_that_do_not_parse_or_are_not_known),
		cmocka_unit_test(t09_tool_arguments_are_exact_or_there_is_no_success),
		cmocka_unit_test(t10_errors_inside_a_200_are_failures_with_the_status_they_carry),
		cmocka_unit_test(t10_error_after_forty_tokens_is_told_and_the_text_stands),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
