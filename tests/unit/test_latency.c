/* SPDX-License-Identifier: Apache-2.0 */
/* test_latency.c -- error of the quantiles, fading of old times, saturation. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "agent/core/latency.h"

#define MS 1000000ull
#define S 1000000000ull

static void
error_is_below_5_percent_from_1_ms_to_1_h(void **state)
{
	double worst = 0;
	(void)state;
	for (uint64_t v = MS; v <= 3600 * S; v += v / 997 + 1) {
		struct sbx_latency l = { 0 };
		sbx_latency_add(&l, v, 0);
		double got = (double)sbx_latency_quantile_ns(&l, 500, 0, NULL), error = (got > (double)v ? got - (double)v : (double)v - got) / (double)v;
		worst = error > worst ? error : worst;
	}
	assert_true(worst < 0.0325);
	print_message("worst error %.2f %%, %zu bytes\n", worst * 100, sizeof(struct sbx_latency));
}

static void
extremes_stay_inside(void **state)
{
	struct sbx_latency l = { 0 };
	(void)state;
	sbx_latency_add(&l, 0, 0);
	assert_in_range(sbx_latency_quantile_ns(&l, 990, 0, NULL), 1, 2 * MS);
	sbx_latency_add(&l, UINT64_MAX, 0);
	assert_in_range(sbx_latency_quantile_ns(&l, 990, 0, NULL), 3600 * S, 4300 * S);
	assert_in_range(sbx_latency_quantile_ns(&l, 0, 0, NULL), 1, 2 * MS);
	assert_in_range(sbx_latency_quantile_ns(&l, 5000, 0, NULL), 3600 * S, 4300 * S);
}

static int
compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

static void
quantiles_follow_the_sorted_samples(void **state)
{
	static const uint32_t quantiles[] = { 1, 500, 950, 990, 1000 };
	static uint64_t v[5000];
	struct sbx_latency l = { 0 };
	uint64_t x = 1234567;
	(void)state;
	for (size_t i = 0; i < 5000; i++) {
		x = x * 6364136223846793005ull + 1442695040888963407ull;
		v[i] = MS << ((x >> 33) % 12);
		v[i] += (x >> 20) % v[i];
		sbx_latency_add(&l, v[i], i * 1000);
	}
	qsort(v, 5000, sizeof v[0], compare);
	for (size_t q = 0; q < sizeof quantiles / sizeof quantiles[0]; q++) {
		uint32_t n;
		double want = (double)v[(5000ull * quantiles[q] + 999) / 1000 - 1], got = (double)sbx_latency_quantile_ns(&l, quantiles[q], 5 * MS, &n);
		assert_int_equal(n, 5000);
		assert_true(got > want * 0.965 && got < want * 1.035);
	}
}

static void
old_times_fade_within_ten_minutes(void **state)
{
	struct sbx_latency l = { 0 };
	uint32_t n;
	uint64_t start = 7 * S;
	(void)state;
	assert_int_equal(sbx_latency_quantile_ns(&l, 990, start, &n), 0);
	assert_int_equal(n, 0);
	for (int i = 0; i < 10; i++)
		sbx_latency_add(&l, 20 * S, start);
	/* nobody adds: a question alone must see them fade */
	(void)sbx_latency_quantile_ns(&l, 990, start + 599 * S, &n);
	assert_int_equal(n, 10);
	assert_int_equal(sbx_latency_quantile_ns(&l, 990, start + 600 * S, &n), 0);
	assert_int_equal(n, 0);
	/* the next half begins, the one before still counts */
	sbx_latency_add(&l, 1 * S, start + 301 * S);
	(void)sbx_latency_quantile_ns(&l, 990, start + 302 * S, &n);
	assert_int_equal(n, 11);
	/* and the one after that has only the newer */
	sbx_latency_add(&l, 1 * S, start + 601 * S);
	(void)sbx_latency_quantile_ns(&l, 990, start + 601 * S, &n);
	assert_int_equal(n, 2);
	assert_in_range(sbx_latency_quantile_ns(&l, 990, start + 601 * S, NULL), 960 * MS, 1040 * MS);
	/* after a long silence everything is new */
	sbx_latency_add(&l, 2 * S, start + 90000 * S);
	(void)sbx_latency_quantile_ns(&l, 990, start + 90000 * S, &n);
	assert_int_equal(n, 1);
	/* a clock that stands still or is behind does no harm */
	sbx_latency_add(&l, 2 * S, start);
	(void)sbx_latency_quantile_ns(&l, 990, 0, &n);
	assert_int_equal(n, 2);
}

static void
saturation_keeps_the_shape(void **state)
{
	struct sbx_latency l = { 0 };
	uint32_t n;
	(void)state;
	for (uint32_t i = 0; i < 1000000; i++)
		sbx_latency_add(&l, i % 10 == 0 ? 10 * S : 100 * MS, 1);
	assert_in_range(sbx_latency_quantile_ns(&l, 500, 1, &n), 96 * MS, 104 * MS);
	assert_in_range(sbx_latency_quantile_ns(&l, 880, 1, NULL), 96 * MS, 104 * MS);
	assert_in_range(sbx_latency_quantile_ns(&l, 950, 1, NULL), 9600 * MS, 10400 * MS);
	assert_in_range(n, 32768, 80000);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_is_below_5_percent_from_1_ms_to_1_h),
		cmocka_unit_test(extremes_stay_inside),
		cmocka_unit_test(quantiles_follow_the_sorted_samples),
		cmocka_unit_test(old_times_fade_within_ten_minutes),
		cmocka_unit_test(saturation_keeps_the_shape),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
