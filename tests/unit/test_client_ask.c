/* SPDX-License-Identifier: Apache-2.0 */
/* test_client_ask.c -- the one call, and questions to the agent itself. */
#include "tests/unit/client_rig.h"

/* ---- sbx_ask() ---- */

static void *
script_answer(void *peer)
{
	struct peer *p = peer;
	struct sbx_frame *f;
	uint64_t other = 0, id;
	while ((f = peer_expect(p, SBX_FRAME_SUBMIT)), !text_member(f, "idempotency_key").n)
		other = f->id;
	id = f->id;
	SAY_ACCEPTED(p, id);
	if (other)
		SAY_TEXT(p, other, "first");
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TEXT), "u:choice", U(1), "s:text", "lost by a reset", END);
	say(p, SBX_FRAME_RESET, id, "u:attempt", U(2), END);
	SAY_TEXT(p, id, "Hel");
	if (other) {
		SAY_TEXT(p, other, "second");
		SAY_DONE(p, other);
	}
	SAY_TEXT(p, id, "lo");
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_REASONING), "s:text", "why not", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(0), "s:id", "c1", "s:name", "f", "s:arguments", "{", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(1), "s:id", "c2", "s:name", "g", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_TOOL_CALL), "u:index", U(0), "s:arguments", "}", END);
	say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_FINISH), "s:finish", "tool_calls", END);
	struct sbx_buf b;
	struct sbx_packer k;
	sbx_buf_init(&b, 4096);
	sbx_frame_begin(&k, &b, SBX_FRAME_DONE, id, 9);
	sbx_pack_str(&k, "target", SBX_SPAN("b/m"));
	sbx_pack_str(&k, "finish", SBX_SPAN("tool_calls"));
	sbx_pack_map(&k, "usage", 4);
	sbx_pack_uint(&k, "prompt_tokens", 11);
	sbx_pack_uint(&k, "completion_tokens", 22);
	sbx_pack_bool(&k, "estimated", true);
	sbx_pack_str(&k, "of a later version", SBX_SPAN("?"));
	sbx_pack_str(&k, "usage_raw", SBX_SPAN("{\"x\":1}"));
	sbx_pack_uint(&k, "cost_nanousd", 1234567);
	sbx_pack_uint(&k, "total_ms", 90);
	sbx_pack_uint(&k, "first_content_ms", 40);
	sbx_pack_nil(&k, "cost_status");
	sbx_pack_array(&k, "attempts", 2);
	sbx_pack_map(&k, NULL, 5);
	sbx_pack_str(&k, "target", SBX_SPAN("a/m"));
	sbx_pack_str(&k, "class", SBX_SPAN("FAILED"));
	sbx_pack_uint(&k, "status", 503);
	sbx_pack_nil(&k, "first_content_ms");
	sbx_pack_str(&k, "message", SBX_SPAN("overloaded"));
	sbx_pack_map(&k, NULL, 6);
	sbx_pack_str(&k, "target", SBX_SPAN("b/m"));
	sbx_pack_str(&k, "class", SBX_SPAN("OK"));
	sbx_pack_uint(&k, "status", 200);
	sbx_pack_uint(&k, "first_content_ms", 40);
	sbx_pack_str(&k, "connection", SBX_SPAN("reused"));
	sbx_pack_uint(&k, "started_ms", 3);
	MUST(sbx_frame_end(&k) == 0);
	peer_write(p, b.data, b.n);
	sbx_buf_fini(&b);
	return NULL;
}

static void
test_ask(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	struct sbx_reply *r = NULL;
	struct sbx_attempt_info a;
	struct sbx_tool_call call;
	size_t n;
	uint64_t other = submit(c);
	(void)state;
	agent = p;
	run_agent(script_answer);
	o.idempotency_key = "marks it";
	assert_int_equal(sbx_ask(c, &o, &r), 0);
	join_agent();
	/* The other request's events waited. */
	expect_text(c, other, "first");
	expect_text(c, other, "second");
	assert_int_equal(next_event(c).note, SBX_NOTE_DONE);
	sbx_close(c);
	peer_close(&agent);

	assert_true(sbx_reply_ok(r) && sbx_reply_code(r) == SBX_CODE_NONE);
	assert_string_equal(sbx_reply_code_word(r), "");
	assert_string_equal(sbx_reply_text(r, 0, &n), "Hello");
	assert_int_equal(n, 5);
	assert_string_equal(sbx_reply_reasoning(r, 0, NULL), "why not");
	assert_string_equal(sbx_reply_refusal(r, 0, NULL), "");
	assert_int_equal(sbx_reply_choices(r), 1);
	assert_string_equal(sbx_reply_text(r, 7, &n), "");
	assert_int_equal(n, 0);
	assert_string_equal(sbx_reply_finish(r, 0), "tool_calls");
	assert_string_equal(sbx_reply_finish(r, 1), "");
	assert_int_equal(sbx_reply_tool_calls(r), 2);
	assert_true(sbx_reply_tool_call(r, 0, &call));
	assert_string_equal(call.id, "c1");
	assert_string_equal(call.arguments, "{}");
	assert_true(sbx_reply_tool_call(r, 1, &call));
	assert_string_equal(call.name, "g");
	assert_string_equal(call.arguments, "");
	assert_false(sbx_reply_tool_call(r, 2, &call));
	assert_string_equal(sbx_reply_target(r), "b/m");
	assert_string_equal(sbx_reply_usage_raw(r), "{\"x\":1}");
	assert_true(sbx_reply_tokens(r).prompt == 11 && sbx_reply_tokens(r).completion == 22 && sbx_reply_tokens(r).total == -1);
	assert_true(sbx_reply_tokens(r).estimated && !sbx_reply_tokens(r).clamped);
	assert_true(sbx_reply_cost_nanousd(r) == 1234567 && sbx_reply_total_ms(r) == 90 && sbx_reply_first_content_ms(r) == 40);
	assert_int_equal(sbx_reply_attempts(r), 2);
	assert_true(sbx_reply_attempt(r, 0, &a));
	assert_string_equal(a.target, "a/m");
	assert_string_equal(a.outcome, "FAILED");
	assert_string_equal(a.message, "overloaded");
	assert_string_equal(a.connection, "");
	assert_true(a.status == 503 && a.first_content_ms == -1 && a.tokens.prompt == -1 && a.cost_nanousd == -1);
	assert_true(sbx_reply_attempt(r, 1, &a));
	assert_string_equal(a.connection, "reused");
	assert_true(a.first_content_ms == 40 && a.started_ms == 3);
	assert_false(sbx_reply_attempt(r, 2, &a));
	sbx_reply_free(r);
	sbx_reply_free(NULL);
}

static void *
script_fail(void *peer)
{
	struct peer *p = peer;
	uint64_t id = peer_expect(p, SBX_FRAME_SUBMIT)->id;
	struct sbx_buf b;
	struct sbx_packer k;
	SAY_TEXT(p, id, "what was given stands");
	sbx_buf_init(&b, 4096);
	sbx_frame_begin(&k, &b, SBX_FRAME_ERROR, id, 7);
	sbx_pack_str(&k, "code", SBX_SPAN("rate_limited"));
	sbx_pack_uint(&k, "status", 429);
	sbx_pack_str(&k, "message", SBX_SPAN("slow down"));
	sbx_pack_uint(&k, "retry_after_ms", 2500);
	sbx_pack_bool(&k, "retryable", true);
	sbx_pack_map(&k, "provider_error", 4);
	sbx_pack_str(&k, "provider", SBX_SPAN("openai"));
	sbx_pack_str(&k, "type", SBX_SPAN("tokens"));
	sbx_pack_uint(&k, "status", 429);
	sbx_pack_nil(&k, "param");
	sbx_pack_bin(&k, "data", SBX_SPAN("{\"error\":{}}"));
	MUST(sbx_frame_end(&k) == 0);
	peer_write(p, b.data, b.n);
	sbx_buf_fini(&b);
	return NULL;
}

static void *
script_data(void *peer)
{
	struct peer *p = peer;
	struct sbx_frame *f = peer_expect(p, SBX_FRAME_SUBMIT);
	uint64_t id = f->id, granted = 0;
	char part[32769];
	MUST(sbx_span_is(text_member(f, "reply"), "data"));
	memset(part, 'd', sizeof part - 1);
	part[sizeof part - 1] = 0;
	for (int i = 0; i < 40; i++) /* 1.25 MiB: only credit that is granted while it gathers makes it possible */
		say(p, SBX_FRAME_EVENT, id, "u:type", U(SBX_EVENT_DATA), "d:data", part, END);
	SAY_DONE(p, id);
	while (granted < 40u * 32768) {
		f = peer_expect(p, SBX_FRAME_CREDIT);
		MUST(f->id == id && uint_member(f, "bytes") >= SBX_GRANT_BYTES);
		granted += uint_member(f, "bytes");
	}
	return NULL;
}

static void *
script_lost_and_back(void *peer)
{
	struct peer *p = peer;
	uint64_t id = peer_expect(p, SBX_FRAME_SUBMIT)->id;
	SAY_TEXT(p, id, "half of ");
	peer_close(p);
	greet(p);
	MUST(peer_expect(p, SBX_FRAME_SUBMIT)->id == id);
	SAY_TEXT(p, id, "whole");
	SAY_DONE(p, id);
	return NULL;
}

static void *
script_lost(void *peer)
{
	struct peer *p = peer;
	SAY_TEXT(p, peer_expect(p, SBX_FRAME_SUBMIT)->id, "half");
	peer_close(p);
	return NULL;
}

static void *
script_never_answer(void *peer)
{
	struct peer *p = peer;
	uint64_t id = peer_expect(p, SBX_FRAME_SUBMIT)->id;
	MUST(peer_expect(p, SBX_FRAME_CANCEL)->id == id);
	SAY_TEXT(p, id, "too late");
	say(p, SBX_FRAME_ERROR, id, "s:code", "cancelled", END);
	return NULL;
}

static void *
script_bad_member(void *peer)
{
	struct peer *p = peer;
	say(p, SBX_FRAME_DONE, peer_expect(p, SBX_FRAME_SUBMIT)->id, "u:target", U(3), END);
	return NULL;
}

static struct sbx_reply *
ask(struct sbx_client *c, struct peer *p, void *(*script)(void *), const struct sbx_request_options *o, int want)
{
	struct sbx_reply *r = NULL;
	agent = *p;
	run_agent(script);
	int rc = sbx_ask(c, o, &r);
	join_agent();
	*p = agent;
	if (rc != want)
		fail_msg("ask: %d, %s", rc, sbx_client_error(c));
	assert_int_equal(r != NULL, want == 0 || want == -SBX_EFAILED);
	return r;
}

static void
test_ask_ends(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_request_options o = request();
	size_t n;
	(void)state;
	struct sbx_reply *r = ask(c, &p, script_fail, &o, -SBX_EFAILED);
	assert_string_equal(sbx_client_error(c), "rate_limited: slow down");
	assert_false(sbx_reply_ok(r));
	assert_int_equal(sbx_reply_code(r), SBX_CODE_RATE_LIMITED);
	assert_int_equal(sbx_reply_status(r), 429);
	assert_true(sbx_reply_retry_after_ms(r) == 2500 && sbx_reply_retryable(r));
	assert_string_equal(sbx_reply_provider_error(r, "provider"), "openai");
	assert_string_equal(sbx_reply_provider_error(r, "status"), "429");
	assert_string_equal(sbx_reply_provider_error(r, "param"), "");
	assert_string_equal(sbx_reply_provider_error(r, "colour"), "");
	assert_string_equal(sbx_reply_data(r, &n), "{\"error\":{}}");
	assert_int_equal(n, 12);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "what was given stands");
	sbx_reply_free(r);

	o.data = true;
	r = ask(c, &p, script_data, &o, 0);
	assert_non_null(sbx_reply_data(r, &n));
	assert_int_equal(n, 40 * 32768);
	sbx_reply_free(r);
	o.data = false;

	o.idempotency_key = "once";
	r = ask(c, &p, script_lost_and_back, &o, 0);
	assert_string_equal(sbx_reply_text(r, 0, NULL), "whole");
	sbx_reply_free(r);
	o.idempotency_key = NULL;

	r = ask(c, &p, script_lost, &o, -SBX_EFAILED);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_AGENT_LOST);
	assert_true(sbx_reply_sent(r));
	assert_string_equal(sbx_reply_text(r, 0, NULL), "half");
	sbx_reply_free(r);
	sbx_close(c);

	c = open_client(&p);
	r = ask(c, &p, script_bad_member, &o, -SBX_EFAILED);
	assert_int_equal(sbx_reply_code(r), SBX_CODE_AGENT_LOST);
	sbx_reply_free(r);
	sbx_close(c);
	peer_close(&p);

	c = open_client(&p);
	o.deadline_ms = 50;
	uint64_t before = sbx_now_ns();
	(void)ask(c, &p, script_never_answer, &o, -SBX_ETIME);
	uint64_t took_ms = (sbx_now_ns() - before) / 1000000;
	assert_true(took_ms >= 1050 && took_ms < 1050 + PATIENCE_MS);
	struct sbx_event ev;
	assert_int_equal(sbx_next(c, 0, &ev), -SBX_ENOENT);
	uint64_t id = submit(c); /* what came too late is dropped */
	SAY_TEXT(&p, id, "fresh");
	expect_text(c, id, "fresh");
	sbx_close(c);
	peer_close(&p);
}

/* ---- the agent itself ---- */

static void
test_stats(void **state)
{
	struct peer p;
	struct sbx_client *c = open_client(&p);
	struct sbx_buf b;
	struct sbx_packer k;
	uint64_t id;
	int64_t number;
	const char *text, *name;
	(void)state;
	assert_int_equal(sbx_stats(c, &id), 0);
	struct sbx_frame *f = peer_expect(&p, SBX_FRAME_STATS);
	assert_true(f->id == id && f->map.n_items == 0);
	sbx_buf_init(&b, 4096);
	sbx_frame_begin(&k, &b, SBX_FRAME_STATS, id, 5);
	sbx_pack_uint(&k, "requests", 12);
	sbx_pack_map(&k, "loop", 2);
	sbx_pack_uint(&k, "turns", UINT64_MAX);
	sbx_pack_int(&k, "drift", -4);
	sbx_pack_map(&k, "target", 1);
	sbx_pack_map(&k, "openai/gpt", 2);
	sbx_pack_str(&k, "state", SBX_SPAN("up"));
	sbx_pack_bool(&k, "throttled", true);
	sbx_pack_array(&k, "list", 2);
	sbx_pack_str(&k, NULL, SBX_SPAN("a"));
	sbx_pack_uint(&k, NULL, 8);
	sbx_pack_nil(&k, "nothing");
	MUST(sbx_frame_end(&k) == 0);
	peer_write(&p, b.data, b.n);
	struct sbx_event ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_STATS && ev.last && ev.id == id);
	assert_true(sbx_reply_ok(ev.reply));
	static const struct {
		const char *name, *text;
		int64_t number;
	} want[] = {
		{ "requests", NULL, 12 },
		{ "loop.turns", NULL, INT64_MAX },
		{ "loop.drift", NULL, -4 },
		{ "target.openai/gpt.state", "up", 0 },
		{ "target.openai/gpt.throttled", NULL, 1 },
		{ "list.0", "a", 0 },
		{ "list.1", NULL, 8 },
	};
	uint32_t n = sizeof want / sizeof want[0];
	for (uint32_t i = 0; i < n; i++) {
		assert_true(sbx_reply_field(ev.reply, i, &name, &text, &number));
		assert_string_equal(name, want[i].name);
		if (want[i].text) {
			assert_string_equal(text, want[i].text);
			assert_true(sbx_reply_string(ev.reply, name, &text));
			assert_false(sbx_reply_number(ev.reply, name, &number));
		} else {
			assert_null(text);
			assert_true(number == want[i].number);
			assert_true(sbx_reply_number(ev.reply, name, &number) && number == want[i].number);
		}
	}
	assert_false(sbx_reply_field(ev.reply, n, &name, &text, &number));
	assert_false(sbx_reply_number(ev.reply, "loop", &number));

	assert_int_equal(sbx_reload(c, &id), 0);
	assert_true(peer_expect(&p, SBX_FRAME_RELOAD)->id == id);
	say(&p, SBX_FRAME_RELOADED, id, "s:notes", "1 provider", END);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_STATS && ev.id == id && sbx_reply_string(ev.reply, "notes", &text));
	assert_string_equal(text, "1 provider");
	assert_int_equal(sbx_reload(c, &id), 0);
	say(&p, SBX_FRAME_ERROR, id, "s:code", "forbidden", "s:message", "the admin socket only", END);
	ev = next_event(c);
	assert_true(ev.note == SBX_NOTE_ERROR && ev.last && sbx_reply_code(ev.reply) == SBX_CODE_FORBIDDEN);
	assert_int_equal(sbx_reply_status(ev.reply), 403);
	sbx_buf_fini(&b);
	sbx_close(c);
	peer_close(&p);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_ask),
		TEST(test_ask_ends),
		TEST(test_stats),
	};
	return RUN(tests);
}
