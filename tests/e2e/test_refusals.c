/* SPDX-License-Identifier: Apache-2.0 */
/*
 * test_refusals.c -- providers that say no, or say it in an envelope that explodes.
 *
 * T12  an answer that is compressed, or larger than any answer: cut, and the memory does not show it
 * T13  429 with a Retry-After in each of its spellings: what is waited for, where, and what is not
 * T14  each refusing status: how many attempts, which target next, and what the breaker makes of it
 * T15  nobody left: one trial, or 429 with the shortest wait; and back as soon as one is back
 */
#include "tests/e2e/harness.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include <cmocka.h>

#include "client/buf.h"
#include "tests/e2e/fault.h"

#define MIB (1024 * 1024)

/* ---- T12 ---- */

static void
t12_compressed_answers_are_failures_and_are_never_unpacked(void **state)
{
	(void)state;
	static const char *const faults[] = { "gzip", "encoding=gzip", "encoding=br", "encoding=deflate\\, gzip", "encoding=zstd" };
	struct world w;
	world_simple(&w, 2, NULL, "\"attempts\": { \"per_target\": 1 }");
	struct sbx_client *c = client_up(&w);
	int64_t before = agent_rss_bytes(&w);
	for (size_t i = 0; i < 2 * sizeof faults / sizeof faults[0]; i++) {
		char name[64];
		(void)snprintf(name, sizeof name, "a/m@%s", faults[i / 2]);
		const struct question q = { .targets = { name, "b/m" }, .stream = i % 2 }, alone = { .targets = { name }, .stream = i % 2 };
		struct answer a = answer_of(c, &q);
		if (!a.ok || !strstr(a.attempts, " FAILED, b/m OK"))
			fail_msg("%s: %s; %s", faults[i / 2], a.attempts, a.message);
		answer_free(&a);
		a = answer_of(c, &alone);
		assert_int_equal(a.code, SBX_CODE_UPSTREAM);
		assert_non_null(strstr(a.message, "Content-Encoding"));
		answer_free(&a);
	}
	const struct question plain = { .targets = { "a/m@encoding=identity" } }; /* which is none */
	struct answer a = answer_of(c, &plain);
	assert_true(a.ok);
	answer_free(&a);
	if (!SANITIZED)
		assert_true(agent_peak_bytes(&w) - before < 4 * MIB); /* the bomb holds 64 */
	sbx_close(c);
	world_down(&w);
}

static void
t12_answer_above_64_mib_is_cut_at_the_limit(void **state)
{
	(void)state;
	struct world w;
	char path[300], rule[400];
	size_t bytes = 80 * MIB;
	char *text = malloc(bytes);
	world_simple(&w, 2, NULL, "\"attempts\": { \"per_target\": 1 }");
	memset(text, ' ', bytes);
	text[0] = '{';
	write_file(&w, "large.json", text, bytes, path, sizeof path);
	free(text);
	(void)snprintf(rule, sizeof rule, "m: file=%s", path);
	double_rules(&w, 0, rule);
	struct sbx_client *c = client_up(&w);
	int64_t before = agent_rss_bytes(&w);
	for (int stream = 0; stream < 2; stream++) { /* it is a whole body also where a stream was asked for */
		const struct question q = { .route = "r", .stream = stream };
		struct answer a = answer_of(c, &q);
		assert_string_equal(a.attempts, "a/m FAILED, b/m OK");
		answer_free(&a);
	}
	agent_wait_at_rest(&w, 5000);
	if (!SANITIZED) {
		assert_true(agent_peak_bytes(&w) - before < 2 * 64 * MIB);
		assert_true(agent_rss_bytes(&w) - before < 8 * MIB);
	}
	sbx_close(c);
	world_down(&w);
}

/* ---- T13 ---- */

enum wait {
	HERE,    /* waited out, and the same target asked again */
	MOVED,   /* passed on to the next target at once */
};

/* An HTTP-date so many seconds from now; Date says the same clock, off by `skew_s`. */
static const char *
fmt_date(char *to, size_t bytes, const char *what, int at_s, int skew_s)
{
	char at[64], date[64];
	time_t now = time(NULL);
	struct tm tm;
	(void)gmtime_r(&(time_t){ now + at_s + skew_s }, &tm);
	(void)strftime(at, sizeof at, "%a\\, %d %b %Y %H:%M:%S GMT", &tm);
	(void)gmtime_r(&(time_t){ now + skew_s }, &tm);
	(void)strftime(date, sizeof date, "%a\\, %d %b %Y %H:%M:%S GMT", &tm);
	(void)snprintf(to, bytes, "%s%s,date=%s", what, at, date);
	return to;
}

static const struct spelling {
	const char *faults;     /* beside status=429; NULL: made by fmt_date() */
	int at_s, skew_s;
	enum wait wait;
	uint32_t at_least_ms, at_most_ms; /* HERE: of the wait, jitter and the second's rounding of dates included */
} spellings[] = {
	{ "retry-after=1", 0, 0, HERE, 1000, 1600 },
	{ "retry-after=0.3", 0, 0, HERE, 300, 900 },
	{ "retry-after-ms=400", 0, 0, HERE, 400, 1000 },
	{ "header=x-ms-retry-after-ms:500", 0, 0, HERE, 500, 1100 },
	{ "header=x-ratelimit-reset-requests:120ms,header=x-ratelimit-remaining-requests:0", 0, 0, HERE, 120, 700 },
	{ "header=x-ratelimit-reset-tokens:1.2s", 0, 0, HERE, 1200, 1800 },
	{ "retry-after=0", 0, 0, HERE, 900, 1700 },           /* 0 is what brought the refusal: a back-off of 1 s */
	{ NULL, 1, 0, HERE, 0, 1700 },
	{ NULL, 1, -86400, HERE, 0, 1700 },                   /* a clock that is a day behind: the dates' distance counts */
	{ NULL, 1, 86400, HERE, 0, 1700 },
	{ NULL, -60, 0, HERE, 900, 1700 },                    /* past: as 0 */
	{ "retry-after=3", 0, 0, MOVED, 0, 0 },               /* longer than a caller gladly waits */
	{ "retry-after=60", 0, 0, MOVED, 0, 0 },
	{ "retry-after=277403", 0, 0, MOVED, 0, 0 },
	{ "header=x-ratelimit-reset-requests:6m0s", 0, 0, MOVED, 0, 0 },
	{ "header=anthropic-ratelimit-requests-reset:2096-01-01T00:00:00Z", 0, 0, MOVED, 0, 0 },
	{ "header=x-ratelimit-reset:3976000000", 0, 0, MOVED, 0, 0 },
	{ NULL, 60, 86400, MOVED, 0, 0 },
	{ "retry-after=-1", 0, 0, MOVED, 0, 0 },              /* nonsense is not said */
	{ "retry-after=nan", 0, 0, MOVED, 0, 0 },
	{ "retry-after=1e9", 0, 0, MOVED, 0, 0 },
	{ "retry-after=99999999999999999999", 0, 0, MOVED, 0, 0 },
	{ "retry-after=soon", 0, 0, MOVED, 0, 0 },
	{ "retry-after=", 0, 0, MOVED, 0, 0 },
	{ "status=429", 0, 0, MOVED, 0, 0 },                  /* not said at all */
	{ "retry-after=1,header=x-should-retry:false", 0, 0, MOVED, 0, 0 },
};

static void
t13_each_spelling_of_retry_after_is_waited_out_or_passed_on(void **state)
{
	(void)state;
	enum { N = sizeof spellings / sizeof spellings[0] };
	static char name[N][256];
	struct question q[N];
	struct answer a[N];
	struct world w;
	world_simple(&w, 2, NULL, NULL);
	for (size_t i = 0; i < N; i++) {
		char date[200];
		const struct spelling *s = &spellings[i];
		(void)snprintf(name[i], sizeof name[i], "a/m%zu@status=429,%s", i, s->faults ? s->faults : fmt_date(date, sizeof date, "retry-after=", s->at_s, s->skew_s));
		q[i] = (struct question){ .targets = { name[i], "b/m" } };
	}
	struct sbx_client *c = client_up(&w);
	answers_of(c, q, a, N);
	for (size_t i = 0; i < N; i++) {
		const struct spelling *s = &spellings[i];
		assert_true(a[i].ok);
		if (a[i].n_attempts != (s->wait == HERE ? 3 : 2))
			fail_msg("%s: %s", name[i], a[i].attempts);
		assert_int_equal(a[i].attempt[0].status, 429);
		uint32_t waited_ms = a[i].attempt[1].started_ms - a[i].attempt[0].ended_ms;
		if (s->wait == HERE ? waited_ms < s->at_least_ms || waited_ms > s->at_most_ms : waited_ms > 250)
			fail_msg("%s: waited %u ms", name[i], waited_ms);
		answer_free(&a[i]);
	}
	sbx_close(c);
	world_down(&w);
}

static void
t13_target_is_asked_again_after_a_short_wait_and_answers(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: times=1,status=429,retry-after-ms=300", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r" };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m REFUSED, a/m OK"); /* the caller ranked it first, and its prompt cache is warm */
	assert_int_equal(double_requests(&w, 1), 0);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

static void
t13_nothing_is_held_longer_than_the_limit_and_429_tells_until_when(void **state)
{
	(void)state;
	static const struct {
		const char *name;
		int64_t at_least_ms, at_most_ms; /* of retry_after_ms */
	} row[] = {
		{ "a/m@status=429,retry-after=200", 199000, 200000 },      /* beyond wait_max: 120 s */
		{ "a/m@status=429,retry-after=277403", 3500000, 3600000 }, /* health asks once an hour */
		{ "a/m@status=429,retry-after=50", 49000, 50000 },         /* beyond the deadline */
	};
	struct world w;
	world_simple(&w, 1, NULL, NULL);
	struct sbx_client *c = client_up(&w);
	for (size_t i = 0; i < sizeof row / sizeof row[0]; i++) {
		const struct question q = { .targets = { row[i].name }, .deadline_ms = i == 2 ? 30000 : 600000 };
		for (int again = 0; again < 2; again++) {
			struct answer a = answer_of(c, &q);
			assert_int_equal(a.code, SBX_CODE_RATE_LIMITED);
			assert_int_equal(a.status, 429);
			assert_true(a.total_ms < 1000);
			if (a.retry_after_ms < row[i].at_least_ms || a.retry_after_ms > row[i].at_most_ms)
				fail_msg("%s: retry_after_ms %lld", row[i].name, (long long)a.retry_after_ms);
			assert_non_null(strstr(a.attempts, again ? " PASSED_OVER" : " REFUSED")); /* known by then: nobody is asked */
			answer_free(&a);
		}
	}
	assert_int_equal(double_requests(&w, 0), 3);
	sbx_close(c);
	world_down(&w);
}

/* Two are refused at once, and told different times: the longer one holds, whichever came last. */
static void
t13_longest_of_several_deadlines_is_kept(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: times=1,status=429,retry-after=60,headers-delay=100ms\nm: times=1,status=429,retry-after=5,headers-delay=300ms", NULL }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q[2] = { { .route = "r" }, { .route = "r" } };
	struct answer a[2];
	answers_of(c, q, a, 2);
	for (int i = 0; i < 2; i++) {
		assert_string_equal(a[i].attempts, "a/m REFUSED, b/m OK");
		answer_free(&a[i]);
	}
	assert_true(agent_number(&w, "target.a/m.throttled_ms") > 50000);
	sbx_close(c);
	world_down(&w);
}

/* ---- T14 ---- */

static const struct refusal {
	const char *faults;
	const char *class;
	bool next;              /* does the next target get the request */
	enum sbx_code code;     /* without a next one */
	const char *state;      /* of the target afterwards */
	bool throttled, passed_over; /* afterwards; is the target left out by the next request (its key, its absence, its throttle) */
} refusals[] = {
	{ "status=400", "BAD_REQUEST", false, SBX_CODE_REJECTED, "up", false, false },
	{ "status=413", "BAD_REQUEST", false, SBX_CODE_REJECTED, "up", false, false },
	{ "status=422", "BAD_REQUEST", false, SBX_CODE_REJECTED, "up", false, false },
	{ "status=451", "CONTENT_FILTER", false, SBX_CODE_CONTENT_FILTER, "up", false, false },
	{ "status=400,body={\"error\":{\"message\":\"x\"\\,\"code\":\"content_policy_violation\"}}", "CONTENT_FILTER", false, SBX_CODE_CONTENT_FILTER, "up", false, false },
	{ "status=400,body={\"error\":{\"message\":\"x\"\\,\"code\":\"context_length_exceeded\"}}", "CONTEXT_LENGTH", true, SBX_CODE_CONTEXT_LENGTH, "up", false, false },
	{ "status=401", "AUTH", true, SBX_CODE_CREDENTIALS, "up", false, true },
	{ "status=400,body={\"error\":{\"message\":\"API key not valid.\"\\,\"status\":\"INVALID_ARGUMENT\"}}", "AUTH", true, SBX_CODE_CREDENTIALS, "up", false, true },
	{ "status=402", "QUOTA", true, SBX_CODE_QUOTA, "up", false, true },
	{ "status=429,body={\"error\":{\"message\":\"x\"\\,\"code\":\"insufficient_quota\"}}", "QUOTA", true, SBX_CODE_QUOTA, "up", false, true },
	{ "status=403", "FORBIDDEN", true, SBX_CODE_CREDENTIALS, "misconfigured", false, true },
	{ "status=404", "NOT_THERE", true, SBX_CODE_NOT_FOUND, "misconfigured", false, true },
	{ "status=301", "NOT_THERE", true, SBX_CODE_NOT_FOUND, "misconfigured", false, true },
	{ "status=429", "REFUSED", true, SBX_CODE_RATE_LIMITED, "up", true, true },
	{ "status=529", "REFUSED", true, SBX_CODE_RATE_LIMITED, "up", true, true },
	{ "status=503", "REFUSED", true, SBX_CODE_RATE_LIMITED, "up", true, true },
	{ "status=503,body=<html>down</html>", "FAILED", true, SBX_CODE_UPSTREAM, "up", false, false },
	{ "status=500", "FAILED", true, SBX_CODE_UPSTREAM, "up", false, false },
	{ "status=502", "FAILED", true, SBX_CODE_UPSTREAM, "up", false, false },
	{ "status=504", "FAILED", true, SBX_CODE_UPSTREAM, "up", false, false },
	{ "status=408", "FAILED", true, SBX_CODE_UPSTREAM, "up", false, false },
};
enum { N_REFUSALS = sizeof refusals / sizeof refusals[0] };

/* Two providers for each row ("p3" with somebody behind it, "q3" alone), so that what is remembered of a key concerns one row. */
static void
world_of_refusals(struct world *w)
{
	struct sbx_buf b;
	world_up(w);
	(void)world_double(w, "a", NULL);
	(void)world_double(w, "b", NULL);
	sbx_buf_init(&b, 65536);
	(void)sbx_buf_printf(&b, "{ \"timeouts\": { \"wait_max_ms\": 1, \"wait_short_ms\": 1 }, \"attempts\": { \"backoff_base_ms\": 10 }, \"providers\": {"
	                         " \"b\": { \"dialect\": \"openai-chat\", \"base_url\": \"$1\", \"key\": \"$KEY\" }");
	for (int i = 0; i < N_REFUSALS; i++)
		(void)sbx_buf_printf(&b, ", \"p%d\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" }"
		                         ", \"q%d\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"key\": \"$KEY\" }", i, i);
	(void)sbx_buf_printf(&b, "} }");
	(void)sbx_buf_append(&b, "", 1);
	world_agent(w, (const char *)b.data, NULL);
	sbx_buf_fini(&b);
}

static void
t14_each_status_has_its_exact_attempts_and_its_own_effect_on_the_breaker(void **state)
{
	(void)state;
	struct world w;
	world_of_refusals(&w);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < N_REFUSALS; i++) {
		const struct refusal *r = &refusals[i];
		char name[256], field[400], line[1024];
		(void)snprintf(name, sizeof name, "p%d/m%d@%s", i, i, r->faults);
		const struct question q = { .targets = { name, "b/m" } };
		bool twice = strcmp(r->class, "FAILED") == 0; /* a hiccup of what was good so far: once more, before any other */
		int before = double_requests(&w, 0);

		struct answer a = answer_of(c, &q);
		(void)snprintf(line, sizeof line, "%s %s%s%s%s%s%s", name, r->class, twice ? ", " : "", twice ? name : "", twice ? " " : "", twice ? r->class : "",
		               r->next ? ", b/m OK" : "");
		if (strcmp(a.attempts, line) != 0)
			fail_msg("%s: %s, not %s; %s", r->faults, a.attempts, line, a.message);
		assert_int_equal(a.ok, r->next);
		assert_int_equal(double_requests(&w, 0) - before, 1 + twice);
		answer_free(&a);

		(void)snprintf(field, sizeof field, "target.%s.state", name);
		char *word = agent_text(&w, field);
		if (strcmp(word, r->state) != 0)
			fail_msg("%s: the target is %s, not %s", r->faults, word, r->state);
		free(word);
		(void)snprintf(field, sizeof field, "target.%s.throttled_ms", name);
		assert_int_equal(agent_number(&w, field) > 0, r->throttled);

		a = answer_of(c, &q); /* what the next request makes of it: the failed target is not repeated any more */
		before = double_requests(&w, 0) - before - 1 - twice;
		if (before != !r->passed_over)
			fail_msg("%s: asked %d time(s) by the next request; %s", r->faults, before, a.attempts);
		answer_free(&a);

		(void)snprintf(name, sizeof name, "q%d/m%d@%s", i, i, r->faults);
		const struct question alone = { .targets = { name } };
		a = answer_of(c, &alone);
		if (a.code != r->code)
			fail_msg("%s, alone: code %d, not %d; %s", r->faults, a.code, r->code, a.message);
		answer_free(&a);
	}
	sbx_close(c);
	world_down(&w);
}

/* A key that is refused does not take its provider along: the next key answers, and the refused one rests. */
static void
t14_refused_key_gives_way_to_the_next_key(void **state)
{
	(void)state;
	struct world w;
	char path[300];
	world_up(&w);
	(void)world_double(&w, "a", NULL);
	write_file(&w, "wrong", "sk-wrong", 8, path, sizeof path);
	char config[600];
	(void)snprintf(config, sizeof config, "{ \"providers\": { \"a\": { \"dialect\": \"openai-chat\", \"base_url\": \"$0\", \"keys\": [\"file:%s\", \"$KEY\"] } } }", path);
	assert_int_equal(chmod(path, 0400), 0);
	world_agent(&w, config, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .targets = { "a/m" } };
	struct answer a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m AUTH, a/m OK");
	answer_free(&a);
	a = answer_of(c, &q);
	assert_string_equal(a.attempts, "a/m OK"); /* for 300 s nobody pays for it again */
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

/* ---- T15 ---- */

static void
t15_all_targets_down_one_is_tried_and_answers_as_soon_as_it_can(void **state)
{
	(void)state;
	struct world w;
	char *word;
	world_simple(&w, 2, (const char *[]){ "m: status=500", "m: status=500" }, "\"attempts\": { \"backoff_base_ms\": 10 }");
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r" };
	for (int i = 0; i < 8; i++) {
		struct answer a = answer_of(c, &q);
		assert_int_equal(a.code, SBX_CODE_UPSTREAM);
		answer_free(&a);
	}
	for (int i = 0; i < 2; i++) {
		word = agent_text(&w, i ? "target.b/m.state" : "target.a/m.state");
		assert_string_equal(word, "down");
		free(word);
	}
	/* Both are down now: a request costs one attempt, and not one for each target. */
	int before = double_requests(&w, 0) + double_requests(&w, 1);
	for (int i = 0; i < 5; i++) {
		struct answer a = answer_of(c, &q);
		assert_false(a.ok);
		answer_free(&a);
	}
	assert_int_equal(double_requests(&w, 0) + double_requests(&w, 1) - before, 5);
	/* The first request after they are back is answered: nobody waits for the breaker's time. */
	double_rules(&w, 0, "");
	double_rules(&w, 1, "");
	struct answer a = answer_of(c, &q);
	assert_true(a.ok);
	assert_true(a.total_ms < 2000);
	answer_free(&a);
	sbx_close(c);
	world_down(&w);
}

static void
t15_all_targets_throttled_is_429_with_the_shortest_wait(void **state)
{
	(void)state;
	struct world w;
	world_simple(&w, 2, (const char *[]){ "m: status=429,retry-after=40", "m: status=429,retry-after=25" }, NULL);
	struct sbx_client *c = client_up(&w);
	const struct question q = { .route = "r", .deadline_ms = 5000 };
	for (int i = 0; i < 4; i++) {
		struct answer a = answer_of(c, &q);
		assert_string_equal(a.attempts, i ? "a/m PASSED_OVER, b/m PASSED_OVER" : "a/m REFUSED, b/m REFUSED");
		assert_int_equal(a.code, SBX_CODE_RATE_LIMITED);
		assert_int_equal(a.status, 429);
		assert_in_range(a.retry_after_ms, 20000, 25000);
		assert_true(a.total_ms < 1000);
		answer_free(&a);
	}
	assert_int_equal(double_requests(&w, 0) + double_requests(&w, 1), 2); /* nobody was bothered again */
	sbx_close(c);
	world_down(&w);
}

/* With time enough a request waits for the one that comes back first, and so do many, without hammering it. */
static void
t15_all_targets_throttled_is_waited_out_within_the_deadline(void **state)
{
	(void)state;
	enum { N = 10 };
	struct world w;
	struct question q[N];
	struct answer a[N];
	world_simple(&w, 2, (const char *[]){ "m: times=1,status=429,retry-after=60", "m: times=1,status=429,retry-after-ms=2200" }, NULL);
	struct sbx_client *c = client_up(&w);
	for (int i = 0; i < N; i++)
		q[i] = (struct question){ .route = "r", .deadline_ms = 15000 };
	struct answer first = answer_of(c, &q[0]);
	assert_string_equal(first.attempts, "a/m REFUSED, b/m REFUSED, b/m OK");
	assert_in_range(first.total_ms, 2200, 3500);
	answer_free(&first);
	double_rules(&w, 1, "m: times=1,status=429,retry-after-ms=2200");
	first = answer_of(c, &q[0]); /* throttles b again, and waits for it */
	assert_true(first.ok);
	answer_free(&first);
	answers_of(c, q, a, N);
	for (int i = 0; i < N; i++) {
		assert_string_equal(a[i].attempts, "b/m OK, a/m PASSED_OVER");
		answer_free(&a[i]);
	}
	sbx_close(c);
	world_down(&w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(t12_compressed_answers_are_failures_and_are_never_unpacked),
		cmocka_unit_test(t12_answer_above_64_mib_is_cut_at_the_limit),
		cmocka_unit_test(t13_each_spelling_of_retry_after_is_waited_out_or_passed_on),
		cmocka_unit_test(t13_target_is_asked_again_after_a_short_wait_and_answers),
		cmocka_unit_test(t13_nothing_is_held_longer_than_the_limit_and_429_tells_until_when),
		cmocka_unit_test(t13_longest_of_several_deadlines_is_kept),
		cmocka_unit_test(t14_each_status_has_its_exact_attempts_and_its_own_effect_on_the_breaker),
		cmocka_unit_test(t14_refused_key_gives_way_to_the_next_key),
		cmocka_unit_test(t15_all_targets_down_one_is_tried_and_answers_as_soon_as_it_can),
		cmocka_unit_test(t15_all_targets_throttled_is_429_with_the_shortest_wait),
		cmocka_unit_test(t15_all_targets_throttled_is_waited_out_within_the_deadline),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
