/* SPDX-License-Identifier: Apache-2.0 */
/* test_health.c -- breaker, throttle, credentials, retry budget and learned limits, each by a script of attempts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/core/health.h"

#define MS 1000000ull
#define S 1000000000ull
#define NEVER UINT64_MAX
#define START (1000 * S)

/* Provider 0 has three keys and targets 0 and 1; provider 1 needs no key; provider 2 has none but needs one. */
static struct sbx_provider providers[] = {
	{ .name = "three", .auth = SBX_AUTH_BEARER, .first_credential = 0, .n_credentials = 3 },
	{ .name = "open", .auth = SBX_AUTH_NONE, .first_credential = 3, .n_credentials = 0 },
	{ .name = "locked", .auth = SBX_AUTH_BEARER, .first_credential = 3, .n_credentials = 0 },
};
static struct sbx_credential credentials[3];
static struct sbx_target targets[] = {
	{ .name = "three/a", .provider = 0, .model = "a" },
	{ .name = "three/b", .provider = 0, .model = "b" },
	{ .name = "open/a", .provider = 1, .model = "a" },
	{ .name = "locked/a", .provider = 2, .model = "a" },
};
static const struct sbx_tables tables = {
	.provider = providers, .n_providers = 3, .credential = credentials, .n_credentials = 3, .target = targets, .n_targets = 4,
};

static struct sbx_health *h;

static int
setup(void **state)
{
	(void)state;
	h = sbx_health_new(&tables, START);
	return h ? 0 : -1;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_health_free(h);
	return 0;
}

static struct sbx_gate_answer
gate(uint32_t target, uint64_t now_ns)
{
	return sbx_health_gate(h, &tables, target, targets[target].provider, 0, now_ns);
}

static void
begin(uint32_t target, uint32_t key, uint64_t now_ns)
{
	sbx_health_on_start(h, &tables, target, targets[target].provider, key, now_ns);
}

static void
end(uint32_t target, uint32_t key, enum sbx_class class, int64_t retry_after_ns, uint64_t took_ns, uint64_t now_ns)
{
	sbx_health_on_end(h, &tables, target, targets[target].provider, key, class, retry_after_ns, class == SBX_CLASS_OK ? took_ns / 2 : 0, took_ns, now_ns);
	assert_null(sbx_health_validate(h));
}

/* An attempt of no duration. */
static void
attempt(uint32_t target, uint32_t key, enum sbx_class class, int64_t retry_after_ns, uint64_t now_ns)
{
	begin(target, key, now_ns);
	end(target, key, class, retry_after_ns, 0, now_ns);
}

static void
break_target(uint32_t target, uint64_t now_ns)
{
	for (int i = 0; i < 3; i++)
		attempt(target, target < 2 ? 0 : UINT32_MAX, SBX_CLASS_FAILED, -1, now_ns);
	assert_int_equal(sbx_health_target(h, target)->state, SBX_BREAKER_OPEN);
}

static void
gate_says(uint32_t target, uint64_t now_ns, enum sbx_gate want, uint32_t want_key, uint64_t want_until_ns)
{
	struct sbx_gate_answer a = gate(target, now_ns);
	if (a.gate != want || a.credential != want_key || (want != SBX_GATE_YES && want != SBX_GATE_PROBE && a.until_ns != want_until_ns))
		fail_msg("at %llu ms: gate %d key %u until %llu ms; want %d %u %llu", (unsigned long long)((now_ns - START) / MS), a.gate, a.credential,
		         (unsigned long long)((a.until_ns - START) / MS), want, want_key, (unsigned long long)((want_until_ns - START) / MS));
}

/* ---- breaker ---- */

static void
what_trips(void **state)
{
	static const struct {
		enum sbx_class class;
		int times; /* in a row, until the target is not CLOSED; 0 = never */
		enum sbx_breaker_state then;
		bool still_good;
	} cases[] = {
		{ SBX_CLASS_OK, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_NOT_SENT, 3, SBX_BREAKER_OPEN, false },
		{ SBX_CLASS_FAILED, 3, SBX_BREAKER_OPEN, false },
		{ SBX_CLASS_UNCERTAIN, 3, SBX_BREAKER_OPEN, false },
		{ SBX_CLASS_MIDSTREAM, 3, SBX_BREAKER_OPEN, false },
		{ SBX_CLASS_REFUSED, 0, SBX_BREAKER_CLOSED, false },
		{ SBX_CLASS_BAD_REQUEST, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_CONTEXT_LENGTH, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_CONTENT_FILTER, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_AUTH, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_QUOTA, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_CANCELLED, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_LOCAL, 0, SBX_BREAKER_CLOSED, true },
		{ SBX_CLASS_NOT_THERE, 1, SBX_BREAKER_AWAY, false },
		{ SBX_CLASS_FORBIDDEN, 1, SBX_BREAKER_AWAY, false },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int times = 0;
		sbx_health_clear_target(h, 0, START);
		while (times < 50 && sbx_health_target(h, 0)->state == SBX_BREAKER_CLOSED) {
			attempt(0, 0, cases[i].class, 5, START + (uint64_t)times * S);
			times++;
		}
		if (times != (cases[i].times ? cases[i].times : 50) || sbx_health_target(h, 0)->state != cases[i].then ||
		    sbx_health_target(h, 0)->last_good != cases[i].still_good)
			fail_msg("%s: %d times, then %s", sbx_class_name(cases[i].class), times, sbx_breaker_word(sbx_health_target(h, 0)->state));
	}
}

static void
a_success_between_starts_the_count_again(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 4; i++) { /* 8 failures, 4 successes, but never 10 within 30 s */
		attempt(0, 0, SBX_CLASS_FAILED, -1, START + i * 20 * S);
		attempt(0, 0, SBX_CLASS_FAILED, -1, START + i * 20 * S);
		attempt(0, 0, SBX_CLASS_OK, -1, START + i * 20 * S);
		assert_true(sbx_health_target(h, 0)->last_good);
	}
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_CLOSED);
}

static void
half_of_ten_within_30_s_trip(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 9; i++) /* bad, good, bad ... */
		attempt(0, 0, i % 2 ? SBX_CLASS_OK : SBX_CLASS_UNCERTAIN, -1, START + i * S);
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_CLOSED);
	attempt(0, 0, SBX_CLASS_OK, -1, START + 9 * S);
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_CLOSED); /* a success never trips */
	attempt(0, 0, SBX_CLASS_UNCERTAIN, -1, START + 10 * S);
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_OPEN);
	attempt(0, 0, SBX_CLASS_OK, -1, START + 25 * S);
	attempt(0, 0, SBX_CLASS_UNCERTAIN, -1, START + 26 * S); /* the outage's rate is forgotten */
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_CLOSED);
}

static void
a_third_failing_does_not_trip(void **state)
{
	(void)state;
	for (uint64_t i = 0; i < 300; i++)
		attempt(0, 0, i % 3 == 2 ? SBX_CLASS_FAILED : SBX_CLASS_OK, -1, START + i * 100 * MS);
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_CLOSED);
}

static void
open_then_exactly_one_trial(void **state)
{
	(void)state;
	break_target(0, START);
	gate_says(0, START + 9999 * MS, SBX_GATE_BROKEN, 0, START + 10 * S);
	gate_says(0, START + 10 * S, SBX_GATE_PROBE, 0, 0);
	begin(0, 0, START + 10 * S);
	gate_says(0, START + 10 * S, SBX_GATE_BROKEN, 0, NEVER); /* the trial is under way */
	gate_says(0, START + 500 * S, SBX_GATE_BROKEN, 0, NEVER);
	assert_null(sbx_health_validate(h));
	end(0, 0, SBX_CLASS_UNCERTAIN, -1, 7 * S, START + 17 * S);
	gate_says(0, START + 17 * S, SBX_GATE_BROKEN, 0, START + 29 * S); /* 12 s */
	begin(0, 0, START + 30 * S);
	end(0, 0, SBX_CLASS_OK, -1, 1 * S, START + 31 * S);
	gate_says(0, START + 31 * S, SBX_GATE_YES, 0, 0);
	assert_int_equal(sbx_health_target(h, 0)->trips, 0);
	break_target(0, START + 40 * S); /* a new outage begins with 10 s again */
	gate_says(0, START + 40 * S, SBX_GATE_BROKEN, 0, START + 50 * S);
}

static void
open_times_of_a_long_outage(void **state)
{
	uint64_t now_ns = START;
	uint32_t trials = 0;
	(void)state;
	break_target(0, now_ns);
	while (now_ns < START + 3600 * S) {
		uint64_t open_ns = gate(0, now_ns).until_ns - now_ns, outage_ns = now_ns - START;
		uint64_t want_ns = trials == 0 ? 10 * S : outage_ns < 300 * S ? 12 * S : outage_ns < 320 * S ? 24 * S : outage_ns < 360 * S ? 48 * S
		                   : outage_ns < 420 * S ? 96 * S : 120 * S;
		if (open_ns != want_ns)
			fail_msg("after %llu s: open for %llu s, want %llu", (unsigned long long)(outage_ns / S), (unsigned long long)(open_ns / S), (unsigned long long)(want_ns / S));
		now_ns += open_ns;
		attempt(0, 0, trials++ % 2 ? SBX_CLASS_UNCERTAIN : SBX_CLASS_NOT_SENT, -1, now_ns); /* any class of trip is tried again */
	}
	attempt(0, 0, SBX_CLASS_OK, -1, now_ns + 120 * S);
	gate_says(0, now_ns + 120 * S, SBX_GATE_YES, 0, 0);
}

static void
an_attempt_tells_of_its_own_time(void **state)
{
	(void)state;
	/* A success from before the trip closes. */
	begin(0, 0, START);
	break_target(0, START + 1 * S);
	end(0, 0, SBX_CLASS_OK, -1, 2 * S, START + 2 * S);
	gate_says(0, START + 2 * S, SBX_GATE_YES, 0, 0);
	/* Failures from before that do not open it again. */
	for (int i = 0; i < 5; i++)
		begin(0, 0, START + 1 * S);
	for (int i = 0; i < 5; i++)
		end(0, 0, SBX_CLASS_UNCERTAIN, -1, 10 * S - 500 * MS, START + 11 * S - 500 * MS);
	gate_says(0, START + 11 * S, SBX_GATE_YES, 0, 0);
	/* A failure from before the trip neither ends a trial nor makes the pause longer. */
	begin(0, 0, START + 19 * S);
	begin(0, 0, START + 19 * S);
	break_target(0, START + 20 * S);
	end(0, 0, SBX_CLASS_UNCERTAIN, -1, 6 * S, START + 25 * S);
	gate_says(0, START + 25 * S, SBX_GATE_BROKEN, 0, START + 30 * S);
	begin(0, 0, START + 30 * S);
	end(0, 0, SBX_CLASS_UNCERTAIN, -1, 12 * S, START + 31 * S);
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_HALF_OPEN);
	end(0, 0, SBX_CLASS_FAILED, -1, 2 * S, START + 32 * S);
	gate_says(0, START + 32 * S, SBX_GATE_BROKEN, 0, START + 44 * S);
}

static void
a_trial_that_tells_nothing_leaves_the_target_due(void **state)
{
	static const enum sbx_class classes[] = { SBX_CLASS_BAD_REQUEST, SBX_CLASS_CANCELLED, SBX_CLASS_LOCAL, SBX_CLASS_CONTENT_FILTER, SBX_CLASS_REFUSED, SBX_CLASS_AUTH };
	(void)state;
	for (size_t i = 0; i < sizeof classes / sizeof classes[0]; i++) {
		sbx_health_clear_target(h, 0, START);
		break_target(0, START);
		attempt(0, 0, classes[i], (int64_t)(3 * S), START + 10 * S);
		assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_OPEN);
		assert_false(sbx_health_target(h, 0)->probing);
		/* A throttle or a wrong key concerns that key only; the next one may make the trial. */
		gate_says(0, START + 10 * S, SBX_GATE_PROBE, classes[i] == SBX_CLASS_REFUSED || classes[i] == SBX_CLASS_AUTH ? 1 : 0, 0);
	}
}

static void
last_resort_changes_nothing_unless_it_succeeds(void **state)
{
	(void)state;
	break_target(0, START);
	attempt(0, gate(0, START + 2 * S).credential, SBX_CLASS_FAILED, -1, START + 2 * S);
	gate_says(0, START + 2 * S, SBX_GATE_BROKEN, 0, START + 10 * S);
	attempt(0, 0, SBX_CLASS_OK, -1, START + 3 * S);
	gate_says(0, START + 3 * S, SBX_GATE_YES, 0, 0);
}

static void
away_for_a_minute(void **state)
{
	(void)state;
	attempt(0, 0, SBX_CLASS_NOT_THERE, -1, START);
	gate_says(0, START + 1 * S, SBX_GATE_BROKEN, 0, START + 60 * S);
	gate_says(1, START + 1 * S, SBX_GATE_YES, 0, 0); /* the provider's other model is fine */
	gate_says(0, START + 60 * S, SBX_GATE_PROBE, 0, 0);
	attempt(0, 0, SBX_CLASS_FORBIDDEN, -1, START + 61 * S);
	gate_says(0, START + 61 * S, SBX_GATE_BROKEN, 0, START + 121 * S);
	attempt(0, 0, SBX_CLASS_OK, -1, START + 121 * S);
	gate_says(0, START + 121 * S, SBX_GATE_YES, 0, 0);
}

/* An outage of 60 s, a request every 4 s, no free probe: at most 7 attempts on the primary, and back within 16 s. */
static void
flap_costs_few_attempts_and_ends_soon(void **state)
{
	static const enum sbx_class classes[] = { SBX_CLASS_NOT_SENT, SBX_CLASS_FAILED, SBX_CLASS_UNCERTAIN, SBX_CLASS_REFUSED };
	(void)state;
	for (size_t c = 0; c < sizeof classes / sizeof classes[0]; c++)
		for (uint64_t offset_ms = 0; offset_ms < 4000; offset_ms += 250) {
			uint64_t down_ns = START + 40 * S + offset_ms * MS, up_ns = down_ns + 60 * S, back_ns = 0;
			uint32_t during = 0;
			sbx_health_clear_target(h, 2, START);
			for (uint64_t now_ns = START; now_ns < START + 200 * S && !back_ns; now_ns += 4 * S) {
				for (int tries = 0; tries < 2; tries++) {
					struct sbx_gate_answer a = gate(2, now_ns);
					bool was_good = sbx_health_target(h, 2)->last_good, down = now_ns >= down_ns && now_ns < up_ns;
					if (a.gate != SBX_GATE_YES && a.gate != SBX_GATE_PROBE)
						break;
					during += down;
					attempt(2, UINT32_MAX, down ? classes[c] : SBX_CLASS_OK, -1, now_ns);
					if (!down && now_ns >= up_ns && !back_ns)
						back_ns = now_ns;
					if (!down || classes[c] == SBX_CLASS_REFUSED || classes[c] == SBX_CLASS_UNCERTAIN || !was_good)
						break; /* the same target once more only after a good outcome */
				}
			}
			if (during > 7 || !back_ns || back_ns - up_ns > 16 * S)
				fail_msg("%s, offset %llu ms: %u attempts, back after %llu ms", sbx_class_name(classes[c]), (unsigned long long)offset_ms, during,
				         (unsigned long long)((back_ns - up_ns) / MS));
		}
}

/* ---- throttle ---- */

static void
throttle_keeps_the_longest(void **state)
{
	(void)state;
	attempt(2, UINT32_MAX, SBX_CLASS_REFUSED, (int64_t)(20 * S), START);
	gate_says(2, START + 1 * S, SBX_GATE_THROTTLED, UINT32_MAX, START + 20 * S);
	attempt(2, UINT32_MAX, SBX_CLASS_REFUSED, (int64_t)(5 * S), START + 1 * S); /* shorter */
	attempt(2, UINT32_MAX, SBX_CLASS_REFUSED, -1, START + 1 * S);               /* unsaid */
	gate_says(2, START + 2 * S, SBX_GATE_THROTTLED, UINT32_MAX, START + 20 * S);
	attempt(2, UINT32_MAX, SBX_CLASS_REFUSED, (int64_t)(40 * S), START + 2 * S);
	gate_says(2, START + 3 * S, SBX_GATE_THROTTLED, UINT32_MAX, START + 42 * S);
	attempt(2, UINT32_MAX, SBX_CLASS_OK, -1, START + 4 * S); /* one that was under way: the provider's word stands */
	gate_says(2, START + 5 * S, SBX_GATE_THROTTLED, UINT32_MAX, START + 42 * S);
	gate_says(2, START + 42 * S, SBX_GATE_YES, UINT32_MAX, 0);
	assert_int_equal(sbx_health_target(h, 2)->failures, 0);
	attempt(2, UINT32_MAX, SBX_CLASS_REFUSED, INT64_MAX, START + 50 * S); /* a slip of years: an hour */
	gate_says(2, START + 50 * S, SBX_GATE_THROTTLED, UINT32_MAX, START + 3650 * S);
}

static void
refusals_that_say_nothing_double(void **state)
{
	static const uint64_t want_s[] = { 1, 2, 4, 8, 16, 30, 30, 30 };
	uint64_t now_ns = START;
	(void)state;
	for (size_t i = 0; i < sizeof want_s / sizeof want_s[0]; i++) {
		for (int together = 0; together < 20; together++) /* twenty at once are one refusal */
			begin(2, UINT32_MAX, now_ns);
		for (int together = 0; together < 20; together++)
			end(2, UINT32_MAX, SBX_CLASS_REFUSED, i % 2 ? 0 : -1, 0, now_ns);
		gate_says(2, now_ns, SBX_GATE_THROTTLED, UINT32_MAX, now_ns + want_s[i] * S);
		now_ns += want_s[i] * S;
		gate_says(2, now_ns, SBX_GATE_YES, UINT32_MAX, 0);
	}
	attempt(2, UINT32_MAX, SBX_CLASS_OK, -1, now_ns);
	attempt(2, UINT32_MAX, SBX_CLASS_REFUSED, -1, now_ns);
	gate_says(2, now_ns, SBX_GATE_THROTTLED, UINT32_MAX, now_ns + 1 * S);
}

static void
throttle_is_per_target_and_key(void **state)
{
	(void)state;
	attempt(0, 0, SBX_CLASS_REFUSED, (int64_t)(20 * S), START);
	gate_says(0, START, SBX_GATE_YES, 1, 0);
	gate_says(1, START, SBX_GATE_YES, 0, 0);
	attempt(0, 1, SBX_CLASS_REFUSED, (int64_t)(10 * S), START);
	attempt(0, 2, SBX_CLASS_REFUSED, (int64_t)(30 * S), START);
	gate_says(0, START, SBX_GATE_THROTTLED, UINT32_MAX, START + 10 * S);
	gate_says(0, START + 10 * S, SBX_GATE_YES, 1, 0);
	gate_says(0, START + 20 * S, SBX_GATE_YES, 0, 0);
	/* Broken and throttled: both have to allow it, and no credential is there for a last resort. */
	break_target(0, START);
	struct sbx_gate_answer a = sbx_health_gate(h, &tables, 0, 0, 6, START + 1 * S);
	assert_int_equal(a.gate, SBX_GATE_THROTTLED);
	assert_true(a.until_ns == START + 20 * S);
	a = sbx_health_gate(h, &tables, 0, 0, 5, START + 1 * S);
	assert_int_equal(a.gate, SBX_GATE_THROTTLED);
	assert_true(a.until_ns == START + 10 * S);
}

/* ---- credentials ---- */

static void
wrong_keys_and_empty_accounts(void **state)
{
	(void)state;
	attempt(0, 0, SBX_CLASS_AUTH, -1, START);
	gate_says(0, START, SBX_GATE_YES, 1, 0);
	gate_says(1, START, SBX_GATE_YES, 1, 0); /* the key, not the target */
	attempt(0, 1, SBX_CLASS_QUOTA, -1, START);
	attempt(0, 2, SBX_CLASS_QUOTA, -1, START + 1 * S);
	gate_says(0, START + 1 * S, SBX_GATE_NO_KEY, UINT32_MAX, START + 300 * S);
	assert_int_equal(sbx_health_target(h, 0)->state, SBX_BREAKER_CLOSED);
	/* Half-open after that: one request. */
	gate_says(0, START + 300 * S, SBX_GATE_PROBE, 0, 0);
	begin(1, 0, START + 300 * S);
	gate_says(0, START + 300 * S, SBX_GATE_NO_KEY, UINT32_MAX, START + 3600 * S);
	end(1, 0, SBX_CLASS_AUTH, -1, 1 * S, START + 301 * S);
	gate_says(0, START + 301 * S, SBX_GATE_NO_KEY, UINT32_MAX, START + 601 * S);
	/* A trial that failed for another reason leaves the key due. */
	attempt(0, 0, SBX_CLASS_FAILED, -1, START + 601 * S);
	gate_says(0, START + 601 * S, SBX_GATE_PROBE, 0, 0);
	attempt(0, 0, SBX_CLASS_OK, -1, START + 602 * S);
	gate_says(0, START + 602 * S, SBX_GATE_YES, 0, 0);
	assert_int_equal(sbx_health_credential(h, 0)->why, SBX_CLASS_NONE);
	gate_says(0, START + 3600 * S, SBX_GATE_YES, 0, 0);
	struct sbx_gate_answer a = sbx_health_gate(h, &tables, 0, 0, 1, START + 3600 * S); /* tried: the next, which is due */
	assert_int_equal(a.gate, SBX_GATE_PROBE);
	assert_int_equal(a.credential, 1);
	a = sbx_health_gate(h, &tables, 0, 0, 7, START + 3600 * S);
	assert_int_equal(a.gate, SBX_GATE_NO_KEY);
	assert_true(a.until_ns == NEVER);
}

static void
a_stream_from_before_does_not_prove_a_key(void **state)
{
	(void)state;
	begin(0, 0, START);
	attempt(0, 0, SBX_CLASS_AUTH, -1, START + 10 * S);
	end(0, 0, SBX_CLASS_OK, -1, 20 * S, START + 20 * S);
	gate_says(0, START + 20 * S, SBX_GATE_YES, 1, 0);
}

static void
with_and_without_keys(void **state)
{
	(void)state;
	gate_says(2, START, SBX_GATE_YES, UINT32_MAX, 0);
	gate_says(3, START, SBX_GATE_NO_KEY, UINT32_MAX, NEVER);
	struct sbx_gate_answer a = sbx_health_gate(h, &tables, 2, 1, 1, START);
	assert_int_equal(a.gate, SBX_GATE_NO_KEY);
	gate_says(0, START, SBX_GATE_YES, 0, 0);
}

/* ---- retry budget ---- */

static void
retry_budget(void **state)
{
	uint32_t taken = 0;
	(void)state;
	while (sbx_health_try_retry(h, 0, START))
		taken++;
	assert_int_equal(taken, 10); /* the burst */
	assert_false(sbx_health_try_retry(h, 0, START + 9 * S));
	assert_true(sbx_health_try_retry(h, 1, START)); /* another provider has its own */
	for (taken = 0; sbx_health_try_retry(h, 0, START + 11 * S);)
		taken++;
	assert_int_equal(taken, 10);
	/* 100 requests earn 20 more; the retries themselves earn nothing. */
	for (int i = 0; i < 100; i++)
		attempt(0, 0, SBX_CLASS_OK, -1, START + 30 * S);
	for (taken = 0; sbx_health_try_retry(h, 0, START + 31 * S); taken++)
		attempt(0, 0, SBX_CLASS_OK, -1, START + 31 * S);
	assert_int_equal(taken, 30);
	assert_false(sbx_health_try_retry(h, 0, START + 39 * S));
}

/* ---- limits ---- */

static void
learn(uint32_t n, uint64_t first_ns, uint64_t total_ns)
{
	for (uint32_t i = 0; i < n; i++) {
		begin(0, 0, START);
		sbx_health_on_end(h, &tables, 0, 0, 0, SBX_CLASS_OK, -1, first_ns, total_ns, START + total_ns);
	}
}

static void
limits_follow_what_was_seen(void **state)
{
	const struct sbx_policy p = sbx_policy_default();
	const uint64_t now_ns = START + 100 * S;
	static const struct {
		uint32_t n;
		uint64_t first_ms, total_ms, first_limit_ms, reasoning_limit_ms, whole_limit_ms, reasoning_whole_ms; /* times +- 4 % where learned */
	} cases[] = {
		{ 0, 0, 0, 10000, 300000, 30000, 300000 },
		{ 1, 500, 2000, 10000, 300000, 30000, 300000 },
		{ 1, 5000, 20000, 15000, 300000, 60000, 300000 },
		{ 1, 40000, 50000, 60000, 300000, 150000, 300000 },
		{ 200, 5000, 20000, 15000, 15000, 60000, 300000 },
		{ 200, 500, 2000, 10000, 10000, 30000, 300000 },
		{ 200, 99000, 100000, 60000, 297000, 300000, 300000 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		sbx_health_clear_target(h, 0, START);
		learn(cases[i].n, cases[i].first_ms * MS, cases[i].total_ms * MS);
		const uint64_t got[] = {
			sbx_health_first_content_limit_ns(h, &p, 0, false, now_ns) / MS, sbx_health_first_content_limit_ns(h, &p, 0, true, now_ns) / MS,
			sbx_health_whole_limit_ns(h, &p, 0, false, now_ns) / MS, sbx_health_whole_limit_ns(h, &p, 0, true, now_ns) / MS,
		};
		const uint64_t want[] = { cases[i].first_limit_ms, cases[i].reasoning_limit_ms, cases[i].whole_limit_ms, cases[i].reasoning_whole_ms };
		for (size_t k = 0; k < 4; k++)
			if (got[k] < want[k] * 96 / 100 || got[k] > want[k] * 104 / 100)
				fail_msg("case %zu, limit %zu: %llu ms, want %llu", i, k, (unsigned long long)got[k], (unsigned long long)want[k]);
	}
}

static void
configured_limits_hold(void **state)
{
	struct sbx_policy p = sbx_policy_default();
	(void)state;
	p.first_content_ns = 90 * S; /* above the default maximum */
	p.reasoning_first_content_ns = 5 * S;
	learn(200, 1 * S, 2 * S);
	assert_true(sbx_health_first_content_limit_ns(h, &p, 0, false, START) == 90 * S);
	assert_true(sbx_health_first_content_limit_ns(h, &p, 0, true, START) == 5 * S);
}

/* ---- rows ---- */

static void
what_is_known_survives_a_reload(void **state)
{
	(void)state;
	learn(5, 1 * S, 2 * S);
	attempt(1, 1, SBX_CLASS_REFUSED, (int64_t)(50 * S), START + 3 * S);
	attempt(1, 2, SBX_CLASS_AUTH, -1, START + 3 * S);
	break_target(2, START + 3 * S);
	begin(2, UINT32_MAX, START + 14 * S); /* a trial is under way */
	struct sbx_health *old = h;
	h = sbx_health_new(&tables, START + 15 * S);
	assert_non_null(h);
	for (uint32_t i = 0; i < 4; i++)
		sbx_health_carry_target(h, i, old, i);
	for (uint32_t i = 0; i < 3; i++)
		sbx_health_carry_credential(h, i, old, i);
	sbx_health_free(old);
	assert_null(sbx_health_validate(h));
	assert_int_equal(sbx_health_target(h, 2)->in_flight, 0);
	gate_says(2, START + 15 * S, SBX_GATE_PROBE, UINT32_MAX, 0);
	attempt(0, 0, SBX_CLASS_AUTH, -1, START + 15 * S);
	gate_says(1, START + 15 * S, SBX_GATE_THROTTLED, UINT32_MAX, START + 53 * S);
	uint32_t n;
	(void)sbx_latency_quantile_ns(sbx_health_total(h, 0), 500, START + 15 * S, &n);
	assert_int_equal(n, 5);
}

static void
thousands_of_rows_take_little_memory(void **state)
{
	struct sbx_target *many = calloc(SBX_TARGETS_MAX, sizeof *many);
	const struct sbx_tables big = { .provider = providers, .n_providers = 3, .credential = credentials, .n_credentials = 3,
		                        .target = many, .n_targets = SBX_TARGETS_MAX };
	unsigned long before = 0, after = 0;
	(void)state;
	FILE *f = fopen("/proc/self/statm", "r");
	assert_non_null(f);
	assert_int_equal(fscanf(f, "%*u %lu", &before), 1);
	struct sbx_health *b = sbx_health_new(&big, START);
	assert_non_null(b);
	rewind(f);
	assert_int_equal(fscanf(f, "%*u %lu", &after), 1);
	(void)fclose(f);
	assert_int_equal(sbx_health_n_targets(b), SBX_TARGETS_MAX + SBX_TARGETS_ADHOC_MAX);
	print_message("%u rows: %lu kB resident\n", sbx_health_n_targets(b), (after - before) * 4);
	const char *preload = getenv("LD_PRELOAD");
	if (!preload || !strstr(preload, "vgpreload")) /* valgrind touches what is only reserved */
		assert_true(after - before < 2048 / 4);
	sbx_health_free(b);
	free(many);
	sbx_health_free(NULL);
}

int
main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(what_trips), T(a_success_between_starts_the_count_again), T(half_of_ten_within_30_s_trip), T(a_third_failing_does_not_trip),
		T(open_then_exactly_one_trial), T(open_times_of_a_long_outage), T(an_attempt_tells_of_its_own_time),
		T(a_trial_that_tells_nothing_leaves_the_target_due), T(last_resort_changes_nothing_unless_it_succeeds), T(away_for_a_minute),
		T(flap_costs_few_attempts_and_ends_soon),
		T(throttle_keeps_the_longest), T(refusals_that_say_nothing_double), T(throttle_is_per_target_and_key),
		T(wrong_keys_and_empty_accounts), T(a_stream_from_before_does_not_prove_a_key), T(with_and_without_keys),
		T(retry_budget), T(limits_follow_what_was_seen), T(configured_limits_hold),
		T(what_is_known_survives_a_reload), T(thousands_of_rows_take_little_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
