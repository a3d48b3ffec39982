/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The request scanner of signalbox-mock: what it accepts, what it takes out,
 * and that no prefix of a request passes for the whole.
 */
#include "tools/mock/scan.c"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static const struct {
	const char *text;
	int rc;
	const char *model;
	size_t n_messages, n_inputs;
	bool stream, include_usage;
	int64_t n_choices;
} cases[] = {
	{ "{}", 0, "", 0, 0, false, false, 1 },
	{ "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"[]{}\\\"\"}]}", 0, "m", 1, 0, false, false, 1 },
	{ " { \"messages\" : [ 1 , 2 ] , \"stream\" : true , \"model\" : \"a/b\" } \n", 0, "a/b", 2, 0, true, false, 1 },
	{ "{\"model\":\"m\\u0041\\n\\\"\",\"n\":3}", 0, "mA\n\"", 0, 0, false, false, 3 },
	{ "{\"stream_options\":{\"include_usage\":true},\"stream\":false}", 0, "", 0, 0, false, true, 1 },
	{ "{\"x\":{\"model\":\"inner\",\"stream\":true},\"model\":\"outer\"}", 0, "outer", 0, 0, false, false, 1 },
	{ "{\"model\":\"a\",\"model\":\"b\"}", 0, "b", 0, 0, false, false, 1 },
	{ "{\"input\":\"x\"}", 0, "", 0, 1, false, false, 1 },
	{ "{\"input\":[\"x\",[1],{}]}", 0, "", 0, 3, false, false, 1 },
	{ "{\"messages\":{},\"model\":5,\"n\":\"3\"}", 0, "", 0, 0, false, false, 1 },
	{ "{\"n\":-1,\"a\":[-0.5e+10,0,1E5,null,false]}", 0, "", 0, 0, false, false, 1 },
	{ "", -1, "", 0, 0, false, false, 1 },
	{ "[]", -1, "", 0, 0, false, false, 1 },
	{ "{} x", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":01}", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":1.}", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":\"\\x\"}", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":\"\\u12g4\"}", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":\"\n\"}", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":tru}", -1, "", 0, 0, false, false, 1 },
	{ "{\"a\":1,}", -1, "", 0, 0, false, false, 1 },
	{ "{a:1}", -1, "", 0, 0, false, false, 1 },
};

static void test_cases(void **state)
{
	static struct mock_ask ask;

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *error = NULL;
		int rc = mock_scan(cases[i].text, strlen(cases[i].text), &ask, &error);

		if (rc != cases[i].rc)
			fail_msg("'%s': %d, %s", cases[i].text, rc, error == NULL ? "" : error);
		if (rc < 0) {
			assert_non_null(error);
			continue;
		}
		assert_string_equal(ask.model, cases[i].model);
		assert_int_equal(ask.n_messages, cases[i].n_messages);
		assert_int_equal(ask.n_inputs, cases[i].n_inputs);
		assert_int_equal(ask.stream, cases[i].stream);
		assert_int_equal(ask.include_usage, cases[i].include_usage);
		assert_int_equal(ask.n_choices, cases[i].n_choices);
	}
}

static void test_every_prefix_is_refused(void **state)
{
	static struct mock_ask ask;
	static const char text[] = "{\"model\":\"m\\u0041\",\"messages\":[{\"a\":-1.5e3}],\"stream\":true,\"x\":[[],{},null]}";

	(void)state;
	for (size_t n = 0; n < sizeof(text) - 1; n++) {
		char *copy = malloc(n + 1); /* exact size: the sanitizer sees a read past the end */
		const char *error = NULL;

		assert_non_null(copy);
		memcpy(copy, text, n);
		assert_int_equal(mock_scan(copy, n, &ask, &error), -1);
		assert_non_null(error);
		free(copy);
	}
}

static void test_depth(void **state)
{
	static struct mock_ask ask;
	static char text[4096];
	const char *error = NULL;

	(void)state;
	for (int depth = 120; depth < 140; depth++) {
		size_t n = (size_t)snprintf(text, sizeof(text), "{\"a\":");

		memset(text + n, '[', (size_t)depth);
		memset(text + n + depth, ']', (size_t)depth);
		text[n + 2 * (size_t)depth] = '}';
		assert_int_equal(mock_scan(text, n + 2 * (size_t)depth + 1, &ask, &error), depth + 1 > DEPTH_MAX ? -1 : 0);
	}
}

static void test_long_model(void **state)
{
	static struct mock_ask ask;
	static char text[3 * MOCK_MODEL_MAX];
	const char *error = NULL;
	size_t n = (size_t)snprintf(text, sizeof(text), "{\"model\":\"");

	(void)state;
	memset(text + n, 'm', 2 * MOCK_MODEL_MAX);
	n += 2 * MOCK_MODEL_MAX;
	text[n++] = '"';
	text[n++] = '}';
	assert_int_equal(mock_scan(text, n, &ask, &error), 0);
	assert_int_equal(ask.n_model, MOCK_MODEL_MAX - 1);
	assert_int_equal(strlen(ask.model), MOCK_MODEL_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_every_prefix_is_refused),
		cmocka_unit_test(test_depth),
		cmocka_unit_test(test_long_model),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
