/* SPDX-License-Identifier: Apache-2.0 */
/* test_buf.c -- the bounded buffer: limits, reclaiming of the front, and content against a plain model. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "client/buf.h"

static void
test_append_consume(void **state)
{
	struct sbx_buf b;
	(void)state;
	sbx_buf_init(&b, 1000);
	assert_int_equal(sbx_buf_append(&b, "", 0), 0);
	assert_int_equal(sbx_buf_append(&b, "hello ", 6), 0);
	assert_int_equal(sbx_buf_append(&b, "world", 5), 0);
	assert_int_equal(b.n, 11);
	assert_memory_equal(b.data, "hello world", 11);
	sbx_buf_consume(&b, 6);
	assert_memory_equal(b.data, "world", 5);
	sbx_buf_consume(&b, 5);
	assert_int_equal(b.n, 0);
	assert_ptr_equal(b.data, b.base);
	sbx_buf_fini(&b);
	assert_int_equal(sbx_buf_append(&b, "again", 5), 0); /* as after init */
	sbx_buf_fini(&b);
}

static void
test_limit(void **state)
{
	char bytes[600] = { 0 };
	struct sbx_buf b;
	(void)state;
	sbx_buf_init(&b, 1000);
	assert_int_equal(sbx_buf_append(&b, bytes, 600), 0);
	assert_int_equal(sbx_buf_append(&b, bytes, 401), -SBX_ETOOBIG);
	assert_null(sbx_buf_reserve(&b, 401));
	assert_null(sbx_buf_reserve(&b, SIZE_MAX));
	assert_int_equal(b.n, 600);
	assert_int_equal(sbx_buf_append(&b, bytes, 400), 0);
	assert_int_equal(sbx_buf_append(&b, bytes, 1), -SBX_ETOOBIG);
	sbx_buf_consume(&b, 1);
	assert_int_equal(sbx_buf_append(&b, bytes, 1), 0);
	sbx_buf_fini(&b);
}

static void
test_reserve_commit(void **state)
{
	struct sbx_buf b;
	(void)state;
	sbx_buf_init(&b, 1 << 20);
	for (int i = 0; i < 1000; i++) {
		uint8_t *room = sbx_buf_reserve(&b, 100);
		assert_non_null(room);
		memset(room, i & 0xff, 100);
		sbx_buf_commit(&b, 7);
	}
	assert_int_equal(b.n, 7000);
	for (int i = 0; i < 7000; i++)
		assert_int_equal(b.data[i], (i / 7) & 0xff);
	sbx_buf_fini(&b);
}

static void
test_take_trim_clear(void **state)
{
	struct sbx_buf b;
	size_t n = 99;
	(void)state;
	sbx_buf_init(&b, 1 << 20);
	assert_null(sbx_buf_take(&b, &n));
	assert_int_equal(n, 0);
	assert_int_equal(sbx_buf_append(&b, "abcdef", 6), 0);
	sbx_buf_consume(&b, 2);
	uint8_t *taken = sbx_buf_take(&b, &n);
	assert_int_equal(n, 4);
	assert_memory_equal(taken, "cdef", 4);
	free(taken);
	assert_int_equal(b.n, 0);
	assert_null(b.base);

	assert_non_null(sbx_buf_reserve(&b, 5000));
	sbx_buf_trim(&b, 10000);
	assert_non_null(b.base);
	sbx_buf_trim(&b, 100);
	assert_null(b.base);
	assert_int_equal(sbx_buf_append(&b, "x", 1), 0);
	sbx_buf_trim(&b, 0); /* not empty: stays */
	assert_int_equal(b.n, 1);
	sbx_buf_clear(&b);
	assert_int_equal(b.n, 0);
	assert_non_null(b.base);
	sbx_buf_fini(&b);
}

static void
test_printf(void **state)
{
	struct sbx_buf b;
	(void)state;
	sbx_buf_init(&b, 20);
	assert_int_equal(sbx_buf_printf(&b, "%s-%d", "ab", 12), 0);
	assert_int_equal(b.n, 5);
	assert_string_equal((char *)b.data, "ab-12");
	assert_int_equal(sbx_buf_printf(&b, "%s", "12345678901234567890"), -SBX_ETOOBIG);
	assert_int_equal(b.n, 5);
	sbx_buf_fini(&b);
}

/* Pieces of all sizes in and out, against a model that never moves. */
static void
test_model(void **state)
{
	static uint8_t model[200000];
	size_t head = 0, tail = 0;
	uint32_t seed = 1;
	struct sbx_buf b;
	(void)state;
	sbx_buf_init(&b, 3000);
	while (tail < sizeof model - 2000) {
		seed = seed * 1103515245u + 12345u;
		size_t n = (seed >> 16) % 700;
		if (seed & 0x8000) {
			for (size_t i = 0; i < n; i++)
				model[tail + i] = (uint8_t)(seed >> (i % 24));
			int rc = sbx_buf_append(&b, model + tail, n);
			assert_int_equal(rc, tail - head + n > 3000 ? -SBX_ETOOBIG : 0);
			tail += rc == 0 ? n : 0;
		} else {
			n = n < b.n ? n : b.n;
			sbx_buf_consume(&b, n);
			head += n;
		}
		assert_int_equal(b.n, tail - head);
		if (b.n)
			assert_memory_equal(b.data, model + head, b.n);
		assert_true(b.cap_bytes <= 16384);
	}
	sbx_buf_fini(&b);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_append_consume),  cmocka_unit_test(test_limit),  cmocka_unit_test(test_reserve_commit),
		cmocka_unit_test(test_take_trim_clear), cmocka_unit_test(test_printf), cmocka_unit_test(test_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
