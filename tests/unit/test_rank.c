/* SPDX-License-Identifier: Apache-2.0 */
/* test_rank.c -- the gate and the ranking, as tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/rank.h"

#define NOW 1000u
#define NEVER UINT64_MAX

static void
the_gate(void **state)
{
	static const struct {
		const char *name;
		uint64_t shut;
		uint32_t n_keys, not_keys;
		struct sbx_gate_key key[3];
		enum sbx_gate gate;
		uint32_t want_key;
		uint64_t until;
	} cases[] = {
		{ "up", 0, 1, 0, { { 0, 0 } }, SBX_GATE_YES, 0, 0 },
		{ "no key at all", 0, 0, 0, { { 0, 0 } }, SBX_GATE_NO_KEY, UINT32_MAX, NEVER },
		{ "every key was tried", 0, 1, 1, { { 0, 0 } }, SBX_GATE_NO_KEY, UINT32_MAX, NEVER },
		{ "the second key", 0, 2, 1, { { 0, 0 }, { 0, 0 } }, SBX_GATE_YES, 1, 0 },
		{ "throttled", 0, 1, 0, { { 0, 1500 } }, SBX_GATE_THROTTLED, UINT32_MAX, 1500 },
		{ "throttled until now", 0, 1, 0, { { 0, NOW } }, SBX_GATE_YES, 0, 0 },
		{ "one key throttled, another free", 0, 2, 0, { { 0, 1500 }, { 0, 0 } }, SBX_GATE_YES, 1, 0 },
		{ "both throttled: the sooner", 0, 2, 0, { { 0, 1500 }, { 0, 1200 } }, SBX_GATE_THROTTLED, UINT32_MAX, 1200 },
		{ "one shut, one throttled", 0, 2, 0, { { 1100, 0 }, { 0, 1500 } }, SBX_GATE_THROTTLED, UINT32_MAX, 1100 },
		{ "key shut", 0, 1, 0, { { 1100, 0 } }, SBX_GATE_NO_KEY, UINT32_MAX, 1100 },
		{ "key due for its trial", 0, 1, 0, { { NOW, 0 } }, SBX_GATE_PROBE, 0, 0 },
		{ "key's trial under way", 0, 1, 0, { { NEVER, 0 } }, SBX_GATE_NO_KEY, UINT32_MAX, NEVER },
		{ "down", 2000, 1, 0, { { 0, 0 } }, SBX_GATE_BROKEN, 0, 2000 },
		{ "down, due", NOW, 1, 0, { { 0, 0 } }, SBX_GATE_PROBE, 0, 0 },
		{ "down, trial under way", NEVER, 1, 0, { { 0, 0 } }, SBX_GATE_BROKEN, 0, NEVER },
		{ "down, due, but throttled", 900, 1, 0, { { 0, 1500 } }, SBX_GATE_THROTTLED, UINT32_MAX, 1500 },
		{ "down and throttled: the later", 2000, 1, 0, { { 0, 1500 } }, SBX_GATE_THROTTLED, UINT32_MAX, 2000 },
		{ "down and key shut for longer", 2000, 1, 0, { { 3000, 0 } }, SBX_GATE_NO_KEY, UINT32_MAX, 3000 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_gate_facts f = { .shut_until_ns = cases[i].shut, .n_keys = cases[i].n_keys };
		memcpy(f.key, cases[i].key, sizeof cases[i].key);
		const struct sbx_gate_verdict v = sbx_gate_ask(&f, cases[i].not_keys, NOW);
		if (v.gate != cases[i].gate || v.key != cases[i].want_key || v.until_ns != cases[i].until)
			fail_msg("%s: gate %d, key %u, until %llu", cases[i].name, (int)v.gate, v.key, (unsigned long long)v.until_ns);
	}
}

/* Each letter is a candidate: u usable, p due for a trial, t500 throttled for 500, d900 down for 900, n no key; patience is 200. */
static void
the_order(void **state)
{
	static const struct {
		const char *candidates, *want;
		uint32_t max;
	} cases[] = {
		{ "u u u", "0 1 2 ", 8 },
		{ "u p u", "0 1 2 ", 8 },
		{ "t500 u", "1 0 ", 8 },
		{ "d900 t500 t100 u n", "3 2 0 1 4 ", 8 },
		{ "t100 t50 t100", "1 0 2 ", 8 },
		{ "t200 t201 d1", "0 2 1 ", 8 },
		{ "d900 d100 d500", "1 2 0 ", 8 },
		{ "d900 d900", "0 1 ", 8 },
		{ "n n", "0 1 ", 8 },
		{ "d1 d2 d3 u u", "3 4 ", 2 },
		{ "d3 d2 d1", "2 ", 1 },
		{ "u u", "", 0 },
		{ "", "", 8 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_candidate best[8];
		uint32_t n = 0, position = 0;
		char got[64] = "", *rest, text[64];
		(void)snprintf(text, sizeof text, "%s", cases[i].candidates);
		for (char *word = strtok_r(text, " ", &rest); word; word = strtok_r(NULL, " ", &rest), position++) {
			const uint64_t in = strtoull(word + 1, NULL, 10);
			const struct sbx_candidate c = {
				.target = position,
				.position = position,
				.gate = *word == 'u' ? SBX_GATE_YES : *word == 'p' ? SBX_GATE_PROBE : *word == 't' ? SBX_GATE_THROTTLED : *word == 'd' ? SBX_GATE_BROKEN : SBX_GATE_NO_KEY,
				.until_ns = in ? NOW + in : 0,
				.patience_ns = 200,
			};
			n = sbx_rank_insert(SBX_RANK_PRIORITY, NOW, &c, best, n, cases[i].max);
		}
		for (uint32_t k = 0; k < n; k++)
			(void)snprintf(got + strlen(got), sizeof got - strlen(got), "%u ", best[k].target);
		if (strcmp(got, cases[i].want) != 0)
			fail_msg("%s: %s, not %s", cases[i].candidates, got, cases[i].want);
	}
}

/* Settled means: no later candidate changes it. */
static void
settled_is_final(void **state)
{
	struct sbx_candidate best[2] = { { 0 } }, c = { .patience_ns = 1 };
	uint32_t n = 0;
	(void)state;
	assert_false(sbx_rank_settled(SBX_RANK_PRIORITY, best, 0, 1));
	assert_false(sbx_rank_settled(SBX_RANK_PRIORITY, best, 0, 0));
	c.gate = SBX_GATE_BROKEN;
	n = sbx_rank_insert(SBX_RANK_PRIORITY, NOW, &c, best, n, 2);
	assert_false(sbx_rank_settled(SBX_RANK_PRIORITY, best, n, 1));
	c.gate = SBX_GATE_YES;
	c.position = 1;
	n = sbx_rank_insert(SBX_RANK_PRIORITY, NOW, &c, best, n, 2);
	assert_true(sbx_rank_settled(SBX_RANK_PRIORITY, best, n, 1));
	assert_false(sbx_rank_settled(SBX_RANK_PRIORITY, best, n, 2));
	c.position = 2;
	n = sbx_rank_insert(SBX_RANK_PRIORITY, NOW, &c, best, n, 2);
	assert_true(sbx_rank_settled(SBX_RANK_PRIORITY, best, n, 2));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_gate),
		cmocka_unit_test(the_order),
		cmocka_unit_test(settled_is_final),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
