/* SPDX-License-Identifier: Apache-2.0 */
/* test_tariff.c -- what is remembered of the prices is what the catalog says at that second, whichever way the clock goes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "agent/catalog.h"
#include "agent/core/tariff.h"

#define ROW "\"source\":\"s\",\"read_on\":\"2026-01-01\","
static const char list[] =
	"{\"models\":["
	"{\"model\":\"p/dated\",\"prices\":["
	"{\"from\":\"2026-02-01\",\"until\":\"2026-03-01T16:00Z\"," ROW "\"input_cost_per_token\":2e-6,\"output_cost_per_token\":2e-6},"
	"{\"from\":\"2026-03-01T16:00Z\",\"until\":\"2026-04-01\"," ROW "\"input_cost_per_token\":3e-6,\"output_cost_per_token\":5e-6},"
	"{\"from\":\"2026-05-01\"," ROW "\"input_cost_per_token\":4e-6}]},"
	"{\"model\":\"p/night\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"zone\":\"UTC+08:00\","
	"\"input_cost_per_token\":2e-6,\"output_cost_per_token\":2e-6,"
	"\"windows\":[{\"hours\":[\"22:30-06:00\"],\"weekdays\":\"fri-sun\",\"input_cost_per_token\":1e-6}]}]},"
	"{\"model\":\"p/eu\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"zone\":\"UTC+01:00/EU\",\"input_cost_per_token\":2e-6,\"output_cost_per_token\":0,"
	"\"windows\":[{\"hours\":[\"09:00-18:00\"],\"input_cost_per_token\":4e-6},{\"hours\":[\"02:15-02:45\"],\"input_cost_per_token\":3e-6}]}]},"
	"{\"model\":\"p/limits\",\"prices\":["
	"{\"from\":\"2026-01-01\",\"until\":\"2026-02-01\"," ROW "\"input_cost_per_token\":1e-6,\"output_cost_per_token\":2e-6,\"input_cost_per_request\":0.5,"
	"\"tiers\":[{\"above_input_tokens\":1000,\"input_cost_per_token\":2e-6}]},"
	"{\"from\":\"2026-02-01\",\"until\":\"2026-03-01\"," ROW "\"input_cost_per_token\":1e-6,\"output_cost_per_token\":2e-6,\"input_cost_per_request\":0.005,"
	"\"tiers\":[{\"above_input_tokens\":128000,\"input_cost_per_token\":2e-6},{\"above_input_tokens\":200000,\"input_cost_per_token\":3e-6}]},"
	"{\"from\":\"2026-03-01\"," ROW "\"input_cost_per_token\":1e-6,\"output_cost_per_token\":2e-6,\"input_cost_per_request\":0.004,"
	"\"windows\":[{\"hours\":[\"01:00-02:00\"],\"input_cost_per_token\":2e-6,\"input_cost_per_request\":0.006}]}]},"
	"{\"model\":\"p/unpriced\"}"
	"]}";

static struct sbx_catalog *catalog;

static int
setup(void **state)
{
	static struct sbx_config_messages refused;
	char why[200];
	(void)state;
	if (sbx_catalog_parse("list", list, sizeof list - 1, &refused, &catalog, why, sizeof why))
		return -1;
	const uint32_t n = refused.n;
	sbx_config_messages_fini(&refused);
	return n ? -1 : 0;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_catalog_free(catalog);
	return 0;
}

static const struct sbx_model *
model(const char *name)
{
	const struct sbx_model *m = sbx_facts_find(&catalog->facts, sbx_span_of(name));
	assert_non_null(m);
	return m;
}

static void
same_as_the_catalog(const struct sbx_tariff *t, const struct sbx_model *m, int64_t unix_s)
{
	struct sbx_price p;
	const bool is = sbx_price_at(&catalog->facts, m, unix_s, &p);
	const int64_t in = is ? sbx_price_of(&p, SBX_PRICE_INPUT, 0) : SBX_PRICE_NONE, out = is ? sbx_price_of(&p, SBX_PRICE_OUTPUT, 0) : SBX_PRICE_NONE;
	if (t->now.in != in || t->now.out != out)
		fail_msg("%s at %lld: %lld, not %lld", m ? m->name : "none", (long long)unix_s, (long long)t->now.in, (long long)in);
	assert_int_equal(t->change_unix_s, sbx_price_next_change(&catalog->facts, m, unix_s));
}

/* Half a year in steps of seven minutes, and jumps back. */
static void
follows_the_clock(void **state)
{
	static const char *const names[] = { "p/dated", "p/night", "p/eu", "p/limits", "p/unpriced", NULL };
	const int64_t begin = sbx_price_date(2026, 1, 15), end = sbx_price_date(2026, 6, 15);
	(void)state;
	for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
		const struct sbx_model *m = names[i] ? model(names[i]) : NULL;
		struct sbx_tariff t = { 0 };
		uint32_t looks = 0, steps = 0;
		for (int64_t now = begin; now < end; now += 420, steps++) {
			const struct sbx_tariff was = t;
			const bool anew = sbx_tariff_follow(&t, &catalog->facts, m, now);
			looks += anew;
			same_as_the_catalog(&t, m, now);
			if (anew && steps) { /* and what was said to come has come */
				assert_int_equal(was.after.in, t.now.in);
				assert_int_equal(was.after.out, t.now.out);
			}
			if (steps % 5000 == 4999) { /* somebody sets the clock back by up to five days, and forth again */
				(void)sbx_tariff_follow(&t, &catalog->facts, m, now - 86400 * (steps / 5000));
				same_as_the_catalog(&t, m, now - 86400 * (steps / 5000));
				(void)sbx_tariff_follow(&t, &catalog->facts, m, now);
				same_as_the_catalog(&t, m, now);
			}
		}
		assert_true(looks < steps / 50); /* not with every step */
	}
}

static void
back_before_it_was_looked_up(void **state)
{
	const struct sbx_model *m = model("p/dated");
	const int64_t change = sbx_price_date(2026, 3, 1) + 16 * 3600;
	struct sbx_tariff t = { 0 };
	(void)state;
	assert_true(sbx_tariff_follow(&t, &catalog->facts, m, change));
	assert_int_equal(t.now.in, 3000000000);
	assert_int_equal(t.after.in, SBX_PRICE_NONE); /* April has no prices */
	assert_false(sbx_tariff_follow(&t, &catalog->facts, m, change + 1));
	assert_true(sbx_tariff_follow(&t, &catalog->facts, m, change - 1));
	assert_int_equal(t.now.in, 2000000000);
	assert_int_equal(t.change_unix_s, change);
	assert_int_equal(t.after.out, 5000000000);
	assert_true(sbx_tariff_follow(&t, &catalog->facts, m, sbx_price_date(2026, 6, 1)));
	assert_int_equal(t.now.in, 4000000000);
	assert_int_equal(t.now.out, SBX_PRICE_NONE);
	assert_int_equal(t.change_unix_s, SBX_PRICE_FOREVER);
}

static void
how_far_the_figures_carry(void **state)
{
	const struct { const char *name; int month; uint64_t tokens, request; } cases[] = {
		{ "p/limits", 1, 1000, 500000000000000 }, /* what comes counts as well as what is */
		{ "p/limits", 2, 128000, 6000000000000 },
		{ "p/limits", 3, 0, 6000000000000 },
		{ "p/limits", 9, 0, 6000000000000 },
		{ "p/dated", 2, 0, 0 },
		{ "p/unpriced", 2, 0, 0 },
		{ NULL, 2, 0, 0 },
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		uint64_t tokens = 7, request = 7;
		sbx_tariff_bounds(&catalog->facts, cases[i].name ? model(cases[i].name) : NULL, sbx_price_date(2026, cases[i].month, 10), &tokens, &request);
		assert_int_equal(tokens, cases[i].tokens);
		assert_int_equal(request, cases[i].request);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(follows_the_clock),
		cmocka_unit_test(back_before_it_was_looked_up),
		cmocka_unit_test(how_far_the_figures_carry),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
