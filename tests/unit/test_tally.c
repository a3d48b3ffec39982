/* SPDX-License-Identifier: Apache-2.0 */
/* test_tally.c -- what is counted and where, and that names from outside cannot make it grow. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "agent/core/tally.h"

#define MS 1000000ull
#define S 1000000000ull

static const struct sbx_usage no_usage = { -1, -1, -1, -1, -1, -1, false, false };
static const struct sbx_bill free_of_charge = { .status = SBX_COST_KNOWN };

static struct sbx_span
span(const char *text)
{
	return sbx_span_of(text);
}

static void
attempt(struct sbx_tally *t, const struct sbx_tally_ticket *k, const char *target, enum sbx_class class, uint64_t ns)
{
	const struct sbx_tally_end end = { .target = span(target), .op = SBX_OP_CHAT, .outcome = (uint8_t)class, .duration_ns = ns, .usage = &no_usage, .bill = &free_of_charge };
	sbx_tally_attempt(t, k, &end);
}

static void
request(struct sbx_tally *t, const struct sbx_tally_ticket *k, const char *target, enum sbx_code code, uint64_t ns)
{
	const struct sbx_tally_end end = { .target = span(target), .op = SBX_OP_CHAT, .outcome = (uint8_t)code, .duration_ns = ns };
	sbx_tally_request(t, k, &end);
}

static const struct sbx_tally_row *
find(const struct sbx_tally *t, enum sbx_tally_what what, const char *target, const char *route, const char *tenant, uint8_t outcome)
{
	const struct sbx_tally_row *r;
	for (uint32_t i = 0; (r = sbx_tally_row(t, i)); i++)
		if (r->key.what == what && r->key.outcome == outcome && sbx_span_is(span(sbx_tally_name(t, SBX_TALLY_TARGET, r->key.target)), target) &&
		    sbx_span_is(span(sbx_tally_name(t, SBX_TALLY_ROUTE, r->key.route)), route) &&
		    sbx_span_is(span(sbx_tally_name(t, SBX_TALLY_TENANT, r->key.tenant)), tenant))
			return r;
	return NULL;
}

/* Every value falls into the first bucket whose bound is not below it, and what is beyond them all into the last. */
static void
test_bounds(void **state)
{
	(void)state;
	static const struct {
		uint64_t value;
		uint32_t bucket;
	} times[] = {
		{ 0, 0 }, { 1, 0 }, { 10 * MS - 1, 0 }, { 10 * MS, 0 }, { 10 * MS + 1, 1 }, { 20 * MS, 1 }, { 20 * MS + 1, 2 }, { 40 * MS, 2 },
		{ 40960 * MS, 12 }, { 40960 * MS + 1, 13 }, { 81920 * MS, 13 }, { 81920 * MS + 1, 14 }, { 86400 * S, 14 }, { UINT64_MAX / 2, 14 },
	}, tokens[] = {
		{ 0, 0 }, { 1, 0 }, { 2, 1 }, { 4, 1 }, { 5, 2 }, { 16, 2 }, { 17, 3 }, { 64, 3 }, { 65, 4 }, { 67108864, 13 }, { 67108865, 14 }, { INT64_MAX, 14 },
	};
	assert_int_equal(sbx_tally_time_bound_ms(0), 10);
	assert_int_equal(sbx_tally_time_bound_ms(SBX_TALLY_BOUNDS - 1), 81920);
	assert_int_equal(sbx_tally_token_bound(0), 1);
	assert_int_equal(sbx_tally_token_bound(SBX_TALLY_BOUNDS - 1), 67108864);
	for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
		struct sbx_tally *t = sbx_tally_new();
		struct sbx_tally_ticket k = sbx_tally_begin(t, span("r"), span("t"));
		attempt(t, &k, "a/m", SBX_CLASS_OK, times[i].value);
		const struct sbx_tally_row *r = find(t, SBX_TALLY_ATTEMPT, "a/m", "r", "t", SBX_CLASS_OK);
		for (uint32_t b = 0; b <= SBX_TALLY_BOUNDS; b++)
			assert_int_equal(r->duration.bucket[b], b == times[i].bucket);
		assert_int_equal(r->duration.sum, times[i].value);
		assert_true(times[i].bucket == SBX_TALLY_BOUNDS || times[i].value <= sbx_tally_time_bound_ms(times[i].bucket) * MS);
		sbx_tally_free(t);
	}
	for (size_t i = 0; i < sizeof tokens / sizeof tokens[0]; i++) {
		struct sbx_tally *t = sbx_tally_new();
		struct sbx_tally_ticket k = sbx_tally_begin(t, span("r"), span("t"));
		struct sbx_usage u = no_usage;
		u.completion_tokens = (int64_t)tokens[i].value;
		const struct sbx_tally_end end = { .target = span("a/m"), .outcome = SBX_CLASS_OK, .usage = &u, .bill = &free_of_charge };
		sbx_tally_attempt(t, &k, &end);
		const struct sbx_tally_row *r = find(t, SBX_TALLY_ATTEMPT, "a/m", "r", "t", SBX_CLASS_OK);
		for (uint32_t b = 0; b <= SBX_TALLY_BOUNDS; b++) {
			assert_int_equal(r->output.bucket[b], b == tokens[i].bucket);
			assert_int_equal(r->input.bucket[b], 0); /* not told is not 0 */
		}
		sbx_tally_free(t);
	}
}

static void
test_life_of_a_request(void **state)
{
	(void)state;
	struct sbx_tally *t = sbx_tally_new();
	struct sbx_tally_ticket k = sbx_tally_begin(t, span("r"), span("acme")), other = sbx_tally_begin(t, span("r"), span("acme"));
	assert_int_equal(find(t, SBX_TALLY_RUNNING, "", "r", "acme", 0)->n, 2);
	attempt(t, &k, "a/m", SBX_CLASS_FAILED, 30 * MS);
	const struct sbx_usage u = { 100, 20, 120, 64, 3, 7, false, false };
	const struct sbx_bill bill = { .status = SBX_COST_KNOWN, .nanousd = 12345 }, unknown = { .status = SBX_COST_UNPRICED };
	struct sbx_tally_end end = { .target = span("b/m"), .op = SBX_OP_CHAT, .outcome = SBX_CLASS_OK, .duration_ns = 2 * S, .streamed = true, .first_content_ns = 500 * MS, .usage = &u, .bill = &bill };
	sbx_tally_attempt(t, &k, &end);
	end.bill = &unknown;
	sbx_tally_attempt(t, &k, &end);
	request(t, &k, "b/m", SBX_CODE_NONE, 3 * S);
	assert_int_equal(find(t, SBX_TALLY_RUNNING, "", "r", "acme", 0)->n, 1);
	request(t, &other, "", SBX_CODE_TIMEOUT, 4 * S);
	assert_int_equal(find(t, SBX_TALLY_RUNNING, "", "r", "acme", 0)->n, 0);
	sbx_tally_refusal(t, span("acme"), SBX_OP__COUNT, SBX_CODE_INVALID_REQUEST);

	const struct sbx_tally_row *r = find(t, SBX_TALLY_ATTEMPT, "b/m", "r", "acme", SBX_CLASS_OK);
	assert_int_equal(r->n, 2);
	assert_int_equal(r->input.sum, 200);
	assert_int_equal(r->output.sum, 40);
	assert_true(r->cached == 128 && r->cache_write == 6 && r->reasoning == 14);
	assert_int_equal(r->cost_nanousd, 12345);
	assert_int_equal(r->cost_unknown, 1);
	assert_int_equal(r->first_content.sum, S);
	end.first_content_ns = 0; /* at once is a time as well */
	sbx_tally_attempt(t, &other, &end);
	assert_int_equal(r->first_content.bucket[0], 1);
	assert_int_equal(find(t, SBX_TALLY_ATTEMPT, "a/m", "r", "acme", SBX_CLASS_FAILED)->n, 1);
	assert_int_equal(find(t, SBX_TALLY_ATTEMPT, "a/m", "r", "acme", SBX_CLASS_FAILED)->input.sum, 0);
	assert_int_equal(find(t, SBX_TALLY_REQUEST, "b/m", "r", "acme", SBX_CODE_NONE)->duration.sum, 3 * S);
	assert_int_equal(find(t, SBX_TALLY_REQUEST, "", "r", "acme", SBX_CODE_TIMEOUT)->n, 1);
	r = find(t, SBX_TALLY_REQUEST, "", "", "acme", SBX_CODE_INVALID_REQUEST);
	assert_true(r->n == 1 && r->key.op == SBX_OP__COUNT && r->duration.sum == 0);
	for (uint32_t b = 0; b <= SBX_TALLY_BOUNDS; b++)
		assert_int_equal(r->duration.bucket[b], 0); /* it took no time: its 0 would make all others look slow */
	sbx_tally_free(t);
}

/* ---- bounds of its own ---- */

static uint64_t
total(const struct sbx_tally *t, enum sbx_tally_what what)
{
	uint64_t n = 0;
	const struct sbx_tally_row *r;
	for (uint32_t i = 0; (r = sbx_tally_row(t, i)); i++)
		n += r->key.what == what ? r->n : 0;
	return n;
}

static void
test_too_many_tenants(void **state)
{
	(void)state;
	struct sbx_tally *t = sbx_tally_new();
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 10000; i++) {
			char name[32];
			(void)snprintf(name, sizeof name, "tenant-%d", i);
			struct sbx_tally_ticket k = sbx_tally_begin(t, span("r"), span(name));
			attempt(t, &k, "a/m", SBX_CLASS_OK, MS);
			request(t, &k, "a/m", SBX_CODE_NONE, MS);
		}
	assert_int_equal(sbx_tally_rows(t), 3 * (SBX_TALLY_TENANTS_MAX + 1));
	assert_int_equal(sbx_tally_folded(t, SBX_TALLY_TENANT), 2 * (10000 - SBX_TALLY_TENANTS_MAX));
	assert_int_equal(find(t, SBX_TALLY_REQUEST, "a/m", "r", "tenant-0", SBX_CODE_NONE)->n, 2);
	assert_int_equal(find(t, SBX_TALLY_REQUEST, "a/m", "r", "other", SBX_CODE_NONE)->n, 2 * (10000 - SBX_TALLY_TENANTS_MAX));
	assert_int_equal(total(t, SBX_TALLY_REQUEST), 20000);
	assert_int_equal(total(t, SBX_TALLY_ATTEMPT), 20000);
	assert_int_equal(total(t, SBX_TALLY_RUNNING), 0);
	assert_int_equal(sbx_tally_crowded(t), 0);
	sbx_tally_free(t);
}

/* Models that nobody configured do not take the places of those that are. */
static void
test_too_many_models(void **state)
{
	(void)state;
	struct sbx_tally *t = sbx_tally_new();
	struct sbx_tally_ticket k = sbx_tally_begin(t, span(""), span("t"));
	char name[32];
	for (int i = 0; i < 10000; i++) {
		(void)snprintf(name, sizeof name, "a/made-up-%d", i);
		const struct sbx_tally_end end = { .target = span(name), .unknown = true, .outcome = SBX_CLASS_NOT_THERE, .usage = &no_usage, .bill = &free_of_charge };
		sbx_tally_attempt(t, &k, &end);
	}
	assert_true(sbx_tally_knows_target(t, span("a/made-up-0")));
	assert_false(sbx_tally_knows_target(t, span("a/made-up-9999")));
	for (int i = 0; i < SBX_TALLY_TARGETS_MAX - SBX_TALLY_TARGETS_UNKNOWN_MAX; i++) {
		(void)snprintf(name, sizeof name, "a/real-%d", i);
		attempt(t, &k, name, SBX_CLASS_OK, MS);
		assert_int_equal(find(t, SBX_TALLY_ATTEMPT, name, "", "t", SBX_CLASS_OK)->n, 1);
	}
	attempt(t, &k, "a/one-more", SBX_CLASS_OK, MS);
	assert_int_equal(find(t, SBX_TALLY_ATTEMPT, "other", "", "t", SBX_CLASS_OK)->n, 1);
	assert_int_equal(find(t, SBX_TALLY_ATTEMPT, "other", "", "t", SBX_CLASS_NOT_THERE)->n, 10000 - SBX_TALLY_TARGETS_UNKNOWN_MAX);
	assert_int_equal(total(t, SBX_TALLY_ATTEMPT), 10000 + SBX_TALLY_TARGETS_MAX - SBX_TALLY_TARGETS_UNKNOWN_MAX + 1);
	sbx_tally_free(t);
}

/* All combinations of what there may be: the rows run out, and still everything is counted, once. Numbers never go down. */
static void
test_too_many_rows(void **state)
{
	(void)state;
	struct sbx_tally *t = sbx_tally_new();
	uint64_t n = 0, before[SBX_TALLY_ROWS_MAX] = { 0 };
	for (int tenant = 0; tenant < 40; tenant++)
		for (int route = 0; route < 10; route++) {
			char a[32], b[32], c[32];
			(void)snprintf(a, sizeof a, "tenant-%d", tenant);
			(void)snprintf(b, sizeof b, "route-%d", route);
			struct sbx_tally_ticket k = sbx_tally_begin(t, span(b), span(a));
			for (int target = 0; target < 10; target++)
				for (int class = 1; class < SBX_CLASS__COUNT; class++) {
					(void)snprintf(c, sizeof c, "p/m-%d", target);
					const struct sbx_tally_end end = { .target = span(c), .op = (uint8_t)(class % SBX_OP__COUNT), .outcome = (uint8_t)class, .usage = &no_usage, .bill = &free_of_charge };
					sbx_tally_attempt(t, &k, &end);
					n++;
				}
			request(t, &k, "p/m-0", (enum sbx_code)(1 + tenant % (SBX_CODE__COUNT - 1)), MS);
			for (uint32_t i = 0; i < sbx_tally_rows(t); i++) {
				const struct sbx_tally_row *r = sbx_tally_row(t, i);
				assert_true(r->key.what == SBX_TALLY_RUNNING || r->n >= before[i]);
				before[i] = r->n;
			}
		}
	assert_in_range(sbx_tally_rows(t), SBX_TALLY_ROWS_MAX / 2, SBX_TALLY_ROWS_MAX);
	assert_int_equal(total(t, SBX_TALLY_ATTEMPT), n);
	assert_int_equal(total(t, SBX_TALLY_REQUEST), 400);
	assert_int_equal(total(t, SBX_TALLY_RUNNING), 0);
	assert_true(sbx_tally_crowded(t) > 0);
	assert_int_equal(find(t, SBX_TALLY_ATTEMPT, "p/m-0", "route-0", "tenant-0", SBX_CLASS_OK)->n, 1); /* who came first keeps his place */
	sbx_tally_free(t);
}

/* A row never moves or goes, so that one may read some now and the rest later. Whoever is called "other" is among the others. */
static void
test_names(void **state)
{
	(void)state;
	struct sbx_tally *t = sbx_tally_new();
	struct sbx_tally_ticket k = sbx_tally_begin(t, span("other"), span("other"));
	const struct sbx_tally_row *first = sbx_tally_row(t, 0);
	attempt(t, &k, "a/m", SBX_CLASS_OK, MS);
	attempt(t, &k, "a/m2", SBX_CLASS_OK, MS);
	attempt(t, &k, "a/m", SBX_CLASS_OK, MS);
	assert_ptr_equal(sbx_tally_row(t, 0), first);
	assert_int_equal(sbx_tally_rows(t), 3);
	assert_int_equal(find(t, SBX_TALLY_ATTEMPT, "a/m", "other", "other", SBX_CLASS_OK)->n, 2);
	assert_int_equal(sbx_tally_folded(t, SBX_TALLY_ROUTE), 1);
	assert_null(sbx_tally_row(t, 3));
	sbx_tally_free(t);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),          cmocka_unit_test(test_life_of_a_request), cmocka_unit_test(test_too_many_tenants),
		cmocka_unit_test(test_too_many_models), cmocka_unit_test(test_too_many_rows),     cmocka_unit_test(test_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
