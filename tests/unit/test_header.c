/* SPDX-License-Identifier: Apache-2.0 */
/* test_header.c -- the public header stands alone: it is the first include, and all that this file needs for its API part. */
#include <signalbox.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include <signalbox/wire.h>

/* Values that go over the wire or into compiled programs never change. */
static void
test_values(void **state)
{
	(void)state;
	assert_int_equal(SBX_EINVAL, 1);
	assert_int_equal(SBX_EFORK, 10);
	assert_int_equal(SBX_ESYNTAX, 13);
	assert_int_equal(SBX_NOTE_ACCEPTED, 1);
	assert_int_equal(SBX_NOTE_STATS, 12);
	assert_int_equal(SBX_FRAME_SUBMIT, 2);
	assert_int_equal(SBX_FRAME_REPORT, 7);
	assert_int_equal(SBX_FRAME_RELOADED, 38);
	assert_int_equal(SBX_EVENT_TARGET, 7);
}

static void
test_init_macros(void **state)
{
	struct sbx_open_options open = SBX_OPEN_OPTIONS_INIT;
	struct sbx_request_options request = SBX_REQUEST_INIT;
	struct sbx_report_options report = SBX_REPORT_INIT;
	(void)state;
	assert_int_equal(open.size, sizeof open);
	assert_int_equal(request.size, sizeof request);
	assert_int_equal(report.size, sizeof report);
	assert_null(request.body);
	assert_null(request.idempotency_key);
	assert_int_equal(request.deadline_ms, 0);
	assert_false(request.stream || request.data || request.restart);
}

/* Every error has its value once, and words that a person can use. */
static void
test_errors(void **state)
{
	static const struct {
		int value;
		const char *text, *todo;
	} errors[] = {
#define X(name, value, text, todo) { value, text, todo },
		SBX_ERRNO(X)
#undef X
	};
	static const struct {
		const char *word;
		int status;
	} codes[] = {
#define X(name, word, status) { word, status },
		SBX_CODES(X)
#undef X
	};
	(void)state;
	for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
		assert_true(errors[i].value > 0 && *errors[i].text && *errors[i].todo);
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(errors[i].value, errors[k].value);
	}
	assert_int_equal(sizeof codes / sizeof codes[0], SBX_CODE__COUNT - 1);
	for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
		assert_in_range(codes[i].status, 400, 599);
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(codes[i].word, codes[k].word);
	}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_init_macros),
		cmocka_unit_test(test_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
