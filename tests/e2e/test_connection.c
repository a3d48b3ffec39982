/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_connection.c -- connections to providers that break: what the provider saw is compared with what the agent booked.
 *
 * T2   a kept connection dies under a POST: never sent again in silence
 * T3   HTTP/2's own ways: GOAWAY below our stream and REFUSED_STREAM are safe, and repeated once; GOAWAY at it is not
 * T11  framing that lies: the attempt fails, and the connection is used no more
 */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/e2e/fault.h"

/* The agent's own count of calls against the doubles' of POSTs: nothing left without being booked. */
static void
assert_all_posts_booked(struct world *w)
{
	int posts = 0;
	for (int i = 0; i < w->n_doubles; i++)
		posts += double_requests(w, i);
	assert_int_equal(agent_number(w, "attempts"), posts);
}

static char *
connection_of(struct sbx_client *c, bool stream)
{
	struct sbx_attempt_info info;
	struct sbx_reply *r = ask(c, stream, 10000);
	assert_true(sbx_reply_ok(r));
	assert_true(sbx_reply_attempt(r, sbx_reply_attempts(r) - 1, &info));
	char *word = strdup(info.connection);
	sbx_reply_free(r);
	return word;
}

/* ---- T2 ---- */

static void
t02_reused_connection_dies_after_post_and_the_next_target_answers(void **state)
{
	(void)state;
	/* A small body and a large one leave in different ways, so the gate against sending twice is not the same. */
	static char large[65536];
	int n = snprintf(large, sizeof large, "{\"messages\":[{\"role\":\"user\",\"content\":\"");
	memset(large + n, 'x', sizeof large - 100);
	(void)snprintf(large + sizeof large - 100 + n, 100 - (size_t)n, "\"}]}");
	static const char *const rule[] = { "m: conn=reused,close-before", "m: conn=reused,close-before,how=rst" };
	for (size_t i = 0; i < 8; i++) {
		struct world w;
		world_simple(&w, 2, (const char *[]){ rule[i & 1], NULL }, NULL);
		struct sbx_client *c = client_up(&w);
		const struct question q = { .route = "r", .stream = i & 2, .body = i & 4 ? large : NULL };
		struct answer first = answer_of(c, &q), second = answer_of(c, &q);
		assert_string_equal(first.attempts, "a/m OK");
		assert_string_equal(second.attempts, "a/m UNCERTAIN, b/m OK");
		assert_int_equal(double_requests(&w, 0), 2); /* the warm-up, and the lost one: once */
		assert_int_equal(double_requests(&w, 1), 1);
		assert_true(agent_number(&w, "upstream.replays_refused") >= 1); /* libcurl wanted to, so the test shows something */
		assert_all_posts_booked(&w);
		answer_free(&first);
		answer_free(&second);
		sbx_close(c);
		world_down(&w);
	}
}

static void
t02_what_may_have_been_billed_is_not_repeated_where_that_is_forbidden(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: conn=reused,close-before", NULL }, "\"replay_uncertain\": false");
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r" };
	struct answer first = answer_of(c, &q), second = answer_of(c, &q);
	assert_true(first.ok);
	assert_string_equal(second.attempts, "a/m UNCERTAIN");
	assert_int_equal(second.code, SBX_CODE_UNCERTAIN);
	assert_int_equal(double_requests(&w, 0), 2);
	assert_int_equal(double_requests(&w, 1), 0);
	answer_free(&first);
	answer_free(&second);
	sbx_close(c);
	world_down(&w);
}

/* Closed while nothing was under way: found out before anything is sent, so it costs nothing and nobody sees it. */
static void
t02_connection_closed_while_idle_is_replaced_unseen(void **state)
{
	(void)state;
	for (int rst = 0; rst < 2; rst++) {
		struct world w;
		world_simple(&w, 2, NULL, NULL);
		struct sbx_client *c = client_up(&w);
		const struct question q = { .route = "r", .stream = true };
		struct answer first = answer_of(c, &q);
		agent_wait_at_rest(&w, 5000);
		free(double_get(&w, 0, "POST", rst ? "/mock/close-idle?how=rst" : "/mock/close-idle", NULL, NULL));
		struct answer second = answer_of(c, &q);
		assert_string_equal(second.attempts, "a/m OK");
		assert_int_equal(double_requests(&w, 0), 2);
		assert_int_equal(double_log_number(&w, 0, 1, "index"), double_log_number(&w, 0, 0, "index")); /* first of its connection */
		answer_free(&first);
		answer_free(&second);
		sbx_close(c);
		world_down(&w);
	}
}

/* ---- T3 ---- */

/* Double a speaks HTTP/2 over TLS, b plain HTTP. */
static void
world_h2(struct world *w, const char *rule, const char *extra)
{
	static const char *const h2[] = { "--tls-listen", "127.0.0.1:0", "--http2", NULL };
	char config[1024];
	world_up(w);
	(void)world_double(w, "a", h2);
	(void)world_double(w, "b", NULL);
	if (rule)
		double_rules(w, 0, rule);
	(void)snprintf(config, sizeof config,
	               "{ %s \"warm\": false, \"providers\": {" /* which stream is a connection's first matters here */
	               " \"a\": { \"base_url\": \"$T0\", \"ca_file\": \"$CA0\", \"http\": \"2\", \"key\": \"$KEY\" },"
	               " \"b\": { \"base_url\": \"$1\", \"key\": \"$KEY\" } },"
	               " \"routes\": { \"r\": { \"targets\": [\"a/m\", \"b/m\"] } } }",
	               extra ? extra : "");
	world_agent(w, config, NULL);
}

static void
assert_h2(struct world *w, int posts)
{
	assert_int_equal(double_requests(w, 0), posts);
	assert_int_equal(agent_number(w, "attempts"), posts + double_requests(w, 1));
}

static void
t03_h2_answers_on_one_connection(void **state)
{
	(void)state;
	struct world w;
	world_h2(&w, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	struct question q[6];
	struct answer a[6];
	for (size_t i = 0; i < 6; i++)
		q[i] = (struct question){ .route = "r", .stream = i % 2 };
	answers_of(c, q, a, 6);
	for (size_t i = 0; i < 6; i++) {
		assert_string_equal(a[i].attempts, "a/m OK");
		assert_string_equal(a[i].text, "hello from a");
		assert_int_equal(double_log_number(&w, 0, (int)i, "connection"), double_log_number(&w, 0, 0, "connection"));
		answer_free(&a[i]);
	}
	sbx_close(c);
	world_down(&w);
}

/* rule: what happens to the request; line: what must have been booked; posts: what double a must have seen of it. first: a good
 * request goes before, so that the stream is not the connection's first. */
static void
h2_case(const char *rule, bool warm, bool stream, const char *line, int posts)
{
	struct world w;
	world_h2(&w, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .stream = stream };
	if (warm) {
		struct answer a = answer_of(c, &q);
		assert_string_equal(a.attempts, "a/m OK");
		answer_free(&a);
		double_forget(&w, 0);
	}
	double_rules(&w, 0, rule);
	struct answer a = answer_of(c, &q);
	if (strcmp(a.attempts, line) != 0)
		fail_msg("%s%s%s: %s, not %s; %s", rule, warm ? ", reused" : "", stream ? ", stream" : "", a.attempts, line, a.message);
	assert_true(a.ok);
	assert_int_equal(double_requests(&w, 0), posts);
	assert_int_equal(agent_number(&w, "attempts"), posts + double_requests(&w, 1) + warm);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

static void
h2_cases(const char *rule, const char *line, int posts)
{
	for (int i = 0; i < 4; i++)
		h2_case(rule, i & 1, i & 2, line, posts);
}

static void
t03_goaway_below_our_stream_is_repeated_once_for_free(void **state)
{
	(void)state;
	h2_cases("m: times=1,goaway=below", "a/m NOT_SENT, a/m OK", 2);
	h2_case("m: goaway=below", true, false, "a/m NOT_SENT, a/m NOT_SENT, b/m OK", 2);
}

static void
t03_refused_stream_is_repeated_once_for_free(void **state)
{
	(void)state;
	h2_cases("m: times=1,refused-stream", "a/m NOT_SENT, a/m OK", 2);
	h2_case("m: refused-stream", true, false, "a/m NOT_SENT, a/m NOT_SENT, b/m OK", 2);
}

static void
t03_goaway_at_our_stream_is_uncertain_and_never_repeated_there(void **state)
{
	(void)state;
	h2_cases("m: goaway=above", "a/m UNCERTAIN, b/m OK", 1);
}

/* INTERNAL_ERROR: it was looked at. */
static void
t03_reset_stream_is_uncertain_and_never_repeated_there(void **state)
{
	(void)state;
	h2_cases("m: rst-stream=2", "a/m UNCERTAIN, b/m OK", 1);
	h2_cases("m: close-before", "a/m UNCERTAIN, b/m OK", 1);
	h2_cases("m: close-before,how=rst", "a/m UNCERTAIN, b/m OK", 1);
}

/* One GOAWAY, two meanings: the older stream was looked at, the younger was not. */
static void
t03_goaway_between_two_streams_is_read_for_each_of_them(void **state)
{
	(void)state;
	struct world w;
	world_h2(&w, "younger: times=1,goaway=below\nolder: hang", NULL);
	struct sbx_client *c = client_up(&w), *other = client_up(&w);
	const struct question older = { .targets = { "a/older", "b/m" } }, younger = { .targets = { "a/younger", "b/m" } };
	struct sbx_request_options o;
	struct sbx_attempt_info info;
	struct sbx_event ev;
	uint64_t id;
	question_fill(&older, &o);
	assert_int_equal(sbx_submit(c, &o, &id), 0);
	double_wait(&w, 0, 1, NULL, 5000);
	struct answer a = answer_of(other, &younger);
	assert_int_equal(double_log_number(&w, 0, 0, "connection"), double_log_number(&w, 0, 1, "connection")); /* else it shows nothing */
	assert_string_equal(a.attempts, "a/younger NOT_SENT, a/younger OK");
	answer_free(&a);
	do
		assert_int_equal(sbx_next(c, 10000, &ev), 0);
	while (!ev.last);
	assert_true(sbx_reply_ok(ev.reply) && sbx_reply_attempts(ev.reply) == 2 && sbx_reply_attempt(ev.reply, 0, &info));
	assert_string_equal(info.outcome, "UNCERTAIN");
	sbx_close(other);
	assert_h2(&w, 3);
	sbx_close(c);
	world_down(&w);
}

static void
t03_one_streams_goaway_leaves_no_trace_for_the_next(void **state)
{
	(void)state;
	struct world w;
	world_h2(&w, "m: times=1,goaway=below", NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r" };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m NOT_SENT, a/m OK");
	answer_free(&a);
	double_rules(&w, 0, "m: close-before"); /* on the new connection, whose streams the old GOAWAY says nothing about */
	a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m UNCERTAIN, b/m OK");
	answer_free(&a);
	assert_h2(&w, 3);
	sbx_close(c);
	world_down(&w);
}

/* ---- T11 ---- */

static const struct framing {
	const char *faults;
	const char *whole, *stream; /* class of a/m's attempt */
} framings[] = {
	{ "bad-chunk", "UNCERTAIN", "MIDSTREAM" },
	{ "wrong-length=+50", "UNCERTAIN", "OK" }, /* the stream's own end mark came: it is whole */
	{ "wrong-length=-5", "FAILED", "OK" },
	{ "te-cl", "FAILED", "FAILED" },
	{ "1xx=100", "FAILED", "FAILED" },
	{ "big-headers=100k", "FAILED", "FAILED" },
	{ "header=Content-Length: 7", "FAILED", "FAILED" },
};

/* After each lie a good request follows: it must go by another connection, and get its own answer. */
static void
t11_framing_that_lies_fails_and_its_connection_is_not_reused(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * (sizeof framings / sizeof framings[0]); i++) {
		const struct framing *f = &framings[i / 2];
		bool stream = i % 2;
		const char *class = stream ? f->stream : f->whole;
		char rule[128], line[128];
		struct world w;
		if (!class)
			continue;
		(void)snprintf(rule, sizeof rule, "m: times=1,%s", f->faults);
		world_simple(&w, 2, (const char *[]){ rule, NULL }, "\"attempts\": { \"per_target\": 1 }");
		struct sbx_client *c = client_up(&w);
		const struct question q = { .route = "r", .stream = stream };
		struct answer a = answer_of(c, &q);
		bool follows = strcmp(class, "OK") != 0 && strcmp(class, "MIDSTREAM") != 0;
		(void)snprintf(line, sizeof line, "a/m %s%s", class, follows ? ", b/m OK" : "");
		if (strcmp(a.attempts, line) != 0)
			fail_msg("%s%s: %s, not %s; %s", f->faults, stream ? ", stream" : "", a.attempts, line, a.message);
		assert_int_equal(a.ok, strcmp(class, "MIDSTREAM") != 0);
		if (!a.ok)
			assert_int_equal(a.code, SBX_CODE_STREAM_BROKEN);
		if (follows)
			assert_string_equal(a.text, "hello from b");
		answer_free(&a);
		agent_wait_at_rest(&w, 5000);
		a = answer_of(c, &q);
		assert_string_equal(a.attempts, "a/m OK");
		assert_string_equal(a.text, "hello from a");
		if (double_log_number(&w, 0, 0, "connection") == double_log_number(&w, 0, 1, "connection"))
			fail_msg("%s%s: the connection was used again", f->faults, stream ? ", stream" : "");
		answer_free(&a);
		assert_all_posts_booked(&w);
		sbx_close(c);
		world_down(&w);
	}
}

/* The other side of it: a connection that did nothing wrong is kept. */
static void
t11_orderly_connection_is_kept_also_after_an_error_answer(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 1, (const char *[]){ "m: times=1,1xx=3\nm: times=1,status=422" }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r" };
	struct answer a = answer_of(c, &q), b = answer_of(c, &q);
	char *connection = connection_of(c, true);
	assert_true(a.ok);
	assert_int_equal(b.code, SBX_CODE_REJECTED);
	assert_string_equal(connection, "reused");
	assert_int_equal(double_log_number(&w, 0, 2, "connection"), double_log_number(&w, 0, 0, "connection"));
	free(connection);
	answer_free(&a);
	answer_free(&b);
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t02_reused_connection_dies_after_post_and_the_next_target_answers),
		cmocka_unit_test(t02_what_may_have_been_billed_is_not_repeated_where_that_is_forbidden),
		cmocka_unit_test(t02_connection_closed_while_idle_is_replaced_unseen),
		cmocka_unit_test(t03_h2_answers_on_one_connection),
		cmocka_unit_test(t03_goaway_below_our_stream_is_repeated_once_for_free),
		cmocka_unit_test(t03_refused_stream_is_repeated_once_for_free),
		cmocka_unit_test(t03_goaway_at_our_stream_is_uncertain_and_never_repeated_there),
		cmocka_unit_test(t03_reset_stream_is_uncertain_and_never_repeated_there),
		cmocka_unit_test(t03_goaway_between_two_streams_is_read_for_each_of_them),
		cmocka_unit_test(t03_one_streams_goaway_leaves_no_trace_for_the_next),
		cmocka_unit_test(t11_framing_that_lies_fails_and_its_connection_is_not_reused),
		cmocka_unit_test(t11_orderly_connection_is_kept_also_after_an_error_answer),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
