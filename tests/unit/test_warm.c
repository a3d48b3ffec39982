/* SPDX-License-Identifier: Apache-2.0 */
/* test_warm.c -- when connections are opened ahead of need, by a virtual clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/core/warm.h"

#define S 1000000000ull
#define EVERY (20 * S)
#define AFTER (600 * S)
#define START (100 * S)

/* Runs rounds of a plan from `from` to `to`, each good or not and over at once. Returns how many of the row there were. */
static uint32_t
rounds(struct sbx_warm *w, uint32_t row, uint64_t from, uint64_t to, bool good)
{
	uint32_t n = 0;
	for (uint64_t at = from; at < to;) {
		uint32_t got, connections;
		while (sbx_warm_take(w, SBX_WARM_AT_ONCE, at, &got, &connections)) {
			n += got == row;
			while (connections--)
				(void)sbx_warm_on_end(w, got, good, at);
		}
		at = sbx_warm_next_ns(w, SBX_WARM_AT_ONCE);
	}
	return n;
}

static struct sbx_warm *
one_row(uint32_t connections, uint64_t owed_ns)
{
	struct sbx_warm *w = sbx_warm_new(1, 7);
	assert_non_null(w);
	sbx_warm_set(w, 0, connections, EVERY, AFTER, owed_ns);
	return w;
}

static void
once_after_the_start_and_then_only_with_traffic(void **state)
{
	(void)state;
	struct sbx_warm *w = one_row(2, START);
	assert_int_equal(sbx_warm_next_ns(w, SBX_WARM_AT_ONCE), START);
	assert_int_equal(rounds(w, 0, START, START + 3600 * S, true), 1);
	assert_int_equal(sbx_warm_next_ns(w, SBX_WARM_AT_ONCE), UINT64_MAX);

	uint64_t use = START + 4000 * S;
	assert_true(sbx_warm_on_use(w, 0, use));
	assert_false(sbx_warm_on_use(w, 0, use)); /* planned already */
	assert_int_equal(sbx_warm_next_ns(w, SBX_WARM_AT_ONCE), use + SBX_WARM_FIRST_NS);
	/* Every 15 to 20 s for ten minutes, and no more. */
	assert_in_range(rounds(w, 0, use, use + 7200 * S, true), 600 / 20, 600 / 15 + 1);
	sbx_warm_free(w);
}

static void
rounds_are_never_further_apart_than_every(void **state)
{
	(void)state;
	struct sbx_warm *w = one_row(1, UINT64_MAX);
	uint64_t at = START, last = 0, least = UINT64_MAX, most = 0;
	for (int i = 0; i < 2000; i++) {
		uint32_t row, n;
		(void)sbx_warm_on_use(w, 0, at);
		at = sbx_warm_next_ns(w, 1);
		assert_true(sbx_warm_take(w, 1, at, &row, &n));
		(void)sbx_warm_on_end(w, 0, true, at);
		if (last) {
			least = at - last < least ? at - last : least;
			most = at - last > most ? at - last : most;
		}
		last = at;
	}
	assert_in_range(least, EVERY * 3 / 4, EVERY * 76 / 100); /* the jitter is there */
	assert_in_range(most, EVERY * 99 / 100, EVERY);
	sbx_warm_free(w);
}

static void
what_is_broken_is_asked_ever_less_often(void **state)
{
	(void)state;
	struct sbx_warm *w = one_row(2, START);
	uint32_t n = 0;
	for (uint64_t at = START; at < START + 3600 * S; at += S) { /* however much it is used */
		(void)sbx_warm_on_use(w, 0, at);
		n += rounds(w, 0, at, at + 1, false);
	}
	assert_in_range(n, 58, 84); /* after 20, 40, then 60 s, each up to a quarter less */
	assert_in_range(rounds(w, 0, START + 3600 * S, START + 3700 * S, true), 3, 8);
	sbx_warm_free(w);

	/* Without any use the first round is still owed, for as long as a use would count. */
	w = one_row(2, START);
	assert_in_range(rounds(w, 0, START, START + 7200 * S, false), 10, 16);
	sbx_warm_free(w);
}

static void
changes_are_told_once(void **state)
{
	static const struct { bool a, b; enum sbx_warm_change want; } ends[] = {
		{ true, true, SBX_WARM_AS_BEFORE }, { false, true, SBX_WARM_AS_BEFORE }, { false, false, SBX_WARM_BROKE },
		{ false, false, SBX_WARM_AS_BEFORE }, { false, false, SBX_WARM_AS_BEFORE }, { true, false, SBX_WARM_HEALED },
		{ true, true, SBX_WARM_AS_BEFORE },
	};
	(void)state;
	struct sbx_warm *w = one_row(2, START);
	uint32_t row, n;
	for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
		(void)sbx_warm_on_use(w, 0, START + i);
		uint64_t at = sbx_warm_next_ns(w, 2);
		assert_true(sbx_warm_take(w, 2, at, &row, &n));
		assert_int_equal(n, 2);
		assert_false(sbx_warm_take(w, 2, at + 3600 * S, &row, &n)); /* one round at a time */
		assert_int_equal(sbx_warm_next_ns(w, 2), UINT64_MAX);
		assert_int_equal(sbx_warm_on_end(w, 0, ends[i].a, at), SBX_WARM_AS_BEFORE);
		assert_int_equal(sbx_warm_on_end(w, 0, ends[i].b, at), ends[i].want);
	}
	sbx_warm_free(w);
}

static void
a_round_passed_is_neither_good_nor_bad(void **state)
{
	(void)state;
	struct sbx_warm *w = one_row(2, START);
	uint32_t row, n, passed = 0;
	for (uint64_t at = START; at != UINT64_MAX; at = sbx_warm_next_ns(w, 2)) {
		assert_true(sbx_warm_take(w, 2, at, &row, &n));
		sbx_warm_pass(w, 0, at);
		passed++;
	}
	assert_in_range(passed, 30, 41); /* looked at again every 15 to 20 s, as long as it is owed */
	sbx_warm_free(w);
}

static void
few_at_once_and_the_longest_due_first(void **state)
{
	(void)state;
	struct sbx_warm *w = sbx_warm_new(4, 7);
	uint32_t row, n;
	sbx_warm_set(w, 0, 2, EVERY, AFTER, START + 2);
	sbx_warm_set(w, 1, 0, EVERY, AFTER, START); /* switched off */
	sbx_warm_set(w, 2, 2, EVERY, AFTER, START + 1);
	sbx_warm_set(w, 3, 3, EVERY, AFTER, START);
	assert_false(sbx_warm_take(w, 4, START - 1, &row, &n));
	assert_true(sbx_warm_take(w, 4, START + 9, &row, &n));
	assert_int_equal(row, 3);
	assert_false(sbx_warm_take(w, 1, START + 9, &row, &n)); /* a round is taken whole or not at all */
	assert_int_equal(sbx_warm_next_ns(w, 1), UINT64_MAX);
	assert_int_equal(sbx_warm_next_ns(w, 2), START + 1);
	assert_true(sbx_warm_take(w, 2, START + 9, &row, &n));
	assert_int_equal(row, 2);
	assert_true(sbx_warm_take(w, 4, START + 9, &row, &n));
	assert_int_equal(row, 0);
	assert_false(sbx_warm_on_use(w, 1, START + 9));
	assert_false(sbx_warm_take(w, 4, START + 3600 * S, &row, &n));
	sbx_warm_free(w);
}

static void
a_reload_keeps_what_is_known_of_use(void **state)
{
	(void)state;
	struct sbx_warm *old = one_row(2, UINT64_MAX), *w = sbx_warm_new(2, 7);
	(void)sbx_warm_on_use(old, 0, START);
	sbx_warm_set(w, 0, 2, EVERY, AFTER, UINT64_MAX);
	sbx_warm_set(w, 1, 2, EVERY, AFTER, UINT64_MAX);
	sbx_warm_carry(w, 1, old, 0, START + 10 * S);
	assert_int_equal(sbx_warm_next_ns(w, 2), START + 10 * S + SBX_WARM_FIRST_NS);
	assert_in_range(rounds(w, 1, START + 10 * S, START + 7200 * S, true), 29, 41);
	sbx_warm_set(w, 1, 2, EVERY, AFTER, UINT64_MAX);
	sbx_warm_carry(w, 1, old, 0, START + AFTER); /* long ago */
	assert_int_equal(sbx_warm_next_ns(w, 2), UINT64_MAX);
	sbx_warm_free(old);
	sbx_warm_free(w);
}

static void
without_a_time_after_use_there_is_only_the_start(void **state)
{
	(void)state;
	struct sbx_warm *w = sbx_warm_new(1, 7);
	sbx_warm_set(w, 0, 2, EVERY, 0, START);
	assert_int_equal(rounds(w, 0, START, START + 60 * S, true), 1);
	assert_false(sbx_warm_on_use(w, 0, START + 60 * S));
	assert_int_equal(sbx_warm_next_ns(w, 2), UINT64_MAX);
	sbx_warm_free(w);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(once_after_the_start_and_then_only_with_traffic),
		cmocka_unit_test(rounds_are_never_further_apart_than_every),
		cmocka_unit_test(what_is_broken_is_asked_ever_less_often),
		cmocka_unit_test(changes_are_told_once),
		cmocka_unit_test(a_round_passed_is_neither_good_nor_bad),
		cmocka_unit_test(few_at_once_and_the_longest_due_first),
		cmocka_unit_test(a_reload_keeps_what_is_known_of_use),
		cmocka_unit_test(without_a_time_after_use_there_is_only_the_start),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
