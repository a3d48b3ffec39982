/* SPDX-License-Identifier: Apache-2.0 */
/* test_json_scan.c -- json_scan: what is JSON and what is not, walking, reading, writing. */
#include "agent/dialect/json_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <signalbox/errors.h>

#include "client/buf.h"

static struct sbx_json_scratch scratch;

/* A copy of exactly n bytes on the heap, so that the sanitizer sees a read beyond them. */
static char *
tight(const char *text, size_t n)
{
	char *copy = malloc(n ? n : 1);
	assert_non_null(copy);
	memcpy(copy, text, n);
	return copy;
}

static int
check(const char *text, size_t n)
{
	char *copy = tight(text, n);
	int rc = sbx_json_check(copy, n, &scratch, NULL);
	free(copy);
	return rc;
}

static const struct {
	const char *text;
	int rc;
} check_cases[] = {
	{"{}", 0},
	{" [ ] ", 0},
	{"\r\n\t{\"a\" : [1, 2.5e-3, -0, true, false, null, \"x\"] }\n", 0},
	{"0", 0},
	{"-0.0E+0", 0},
	{"\"\\u00e9\\ud83d\\ude00\\n\\/\"", 0},
	{"\"\\ud800\"", 0}, /* half a pair is legal syntax */
	{"\"\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\"", 0},
	{"18446744073709551615", 0},
	{"{\"a\":{\"a\":1},\"b\":[{\"a\":1},{\"a\":1}]}", 0}, /* the same name in different objects */
	{"{\"a\":1,\"A\":1}", 0},
	{"{\"\":1,\"\\u0000\":2}", 0},
	{"", -SBX_ESYNTAX},
	{"  ", -SBX_ESYNTAX},
	{"{", -SBX_ESYNTAX},
	{"{\"a\"", -SBX_ESYNTAX},
	{"{\"a\":", -SBX_ESYNTAX},
	{"{\"a\":1", -SBX_ESYNTAX},
	{"{\"a\":1,", -SBX_ESYNTAX},
	{"{\"a\":1,}", -SBX_ESYNTAX},
	{"{\"a\" 1}", -SBX_ESYNTAX},
	{"{a:1}", -SBX_ESYNTAX},
	{"{1:1}", -SBX_ESYNTAX},
	{"{,}", -SBX_ESYNTAX},
	{"[,]", -SBX_ESYNTAX},
	{"[1,]", -SBX_ESYNTAX},
	{"[1 2]", -SBX_ESYNTAX},
	{"[1}", -SBX_ESYNTAX},
	{"{\"a\":1]", -SBX_ESYNTAX},
	{"]", -SBX_ESYNTAX},
	{"{}{}", -SBX_ESYNTAX},
	{"{} x", -SBX_ESYNTAX},
	{"01", -SBX_ESYNTAX},
	{"-", -SBX_ESYNTAX},
	{"+1", -SBX_ESYNTAX},
	{"1.", -SBX_ESYNTAX},
	{".5", -SBX_ESYNTAX},
	{"1e", -SBX_ESYNTAX},
	{"1e+", -SBX_ESYNTAX},
	{"NaN", -SBX_ESYNTAX},
	{"nul", -SBX_ESYNTAX},
	{"nulll", -SBX_ESYNTAX},
	{"True", -SBX_ESYNTAX},
	{"'a'", -SBX_ESYNTAX},
	{"\"a", -SBX_ESYNTAX},
	{"\"a\\\"", -SBX_ESYNTAX},
	{"\"\\x41\"", -SBX_ESYNTAX},
	{"\"\\u12g4\"", -SBX_ESYNTAX},
	{"\"\\u12", -SBX_ESYNTAX},
	{"\"a\nb\"", -SBX_ESYNTAX},
	{"\"\x1f\"", -SBX_ESYNTAX},
	{"\"\x80\"", -SBX_ESYNTAX},             /* a lone continuation */
	{"\"\xc0\xaf\"", -SBX_ESYNTAX},         /* overlong, 2 bytes */
	{"\"\xe0\x80\xaf\"", -SBX_ESYNTAX},     /* overlong, 3 */
	{"\"\xf0\x80\x80\xaf\"", -SBX_ESYNTAX}, /* overlong, 4 */
	{"\"\xed\xa0\x80\"", -SBX_ESYNTAX},     /* an encoded surrogate */
	{"\"\xf4\x90\x80\x80\"", -SBX_ESYNTAX}, /* above U+10FFFF */
	{"\"\xf5\x80\x80\x80\"", -SBX_ESYNTAX},
	{"\"\xe2\x82\"", -SBX_ESYNTAX},
	{"\xef\xbb\xbf{}", -SBX_ESYNTAX},
	{"/* */ 1", -SBX_ESYNTAX},
	{"{\"a\":1,\"a\":1}", -SBX_ESYNTAX},
	{"{\"a\":1,\"b\":{},\"\\u0061\":1}", -SBX_ESYNTAX},
	{"{\"\\u00e9\":1,\"\xc3\xa9\":1}", -SBX_ESYNTAX},
	{"{\"x\":{\"b\":1,\"b\":2}}", -SBX_ESYNTAX},
	{"{\"a/b\":1,\"a\\/b\":2}", -SBX_ESYNTAX},
	{"{\"\\ud800\":1,\"\\udfff\":2}", -SBX_ESYNTAX}, /* both decode to U+FFFD */
	{"{\"long name that is the same\":1,\"long name that is the same\":2}", -SBX_ESYNTAX},
};

static void
test_check(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof check_cases / sizeof check_cases[0]; i++) {
		int rc = check(check_cases[i].text, strlen(check_cases[i].text));
		if (rc != check_cases[i].rc)
			fail_msg("%s: %d, wanted %d", check_cases[i].text, rc, check_cases[i].rc);
	}
	assert_int_equal(check("\"a\0b\"", 5), -SBX_ESYNTAX);
	assert_int_equal(check("{}\0", 3), -SBX_ESYNTAX);
}

/* A valid object or array that is cut anywhere is no value. */
static void
test_check_cut(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":[1,-2.5e+3,\"\\u00e9\\\\\\\"\xf0\x9f\x98\x80\",true,null],\"bb\":{\"c\":{}},\"long enough for a word\":false}";
	assert_int_equal(check(text, sizeof text - 1), 0);
	for (size_t n = 0; n < sizeof text - 1; n++)
		assert_int_equal(check(text, n), -SBX_ESYNTAX);
}

static void
test_check_depth(void **state)
{
	(void)state;
	char text[2 * SBX_JSON_DEPTH_MAX + 2];
	for (size_t depth = 1; depth <= SBX_JSON_DEPTH_MAX + 1; depth++) {
		memset(text, '[', depth);
		memset(text + depth, ']', depth);
		assert_int_equal(check(text, 2 * depth), depth <= SBX_JSON_DEPTH_MAX ? 0 : -SBX_ETOOBIG);
	}
}

/* An object of n members, all different or with the last equal to the first; names as the format says. */
static int
check_members(size_t n, bool twice, const char *fmt)
{
	struct sbx_buf b;
	sbx_buf_init(&b, 8u << 20);
	assert_int_equal(sbx_buf_append(&b, "{", 1), 0);
	for (size_t i = 0; i < n; i++) {
		char name[64];
		(void)snprintf(name, sizeof name, fmt, (unsigned)(twice && i == n - 1 ? 0 : i));
		assert_int_equal(sbx_buf_printf(&b, "%s\"%s\":0", i ? "," : "", name), 0);
	}
	assert_int_equal(sbx_buf_append(&b, "}", 1), 0);
	int rc = check((char *)b.data, b.n);
	sbx_buf_fini(&b);
	return rc;
}

static void
test_check_members(void **state)
{
	(void)state;
	/* "%u" spreads the hashes; the second makes all of them equal (ends and length agree); the third has escapes */
	static const char *const fmts[] = {"%u", "same-beg%08u-same-end", "\\u0061%u"};
	static const size_t counts[] = {2, 3, 15, 16, 17, 18, 63, 64, 65, 66, 1000, SBX_JSON_NAMES_MAX};
	for (size_t f = 0; f < sizeof fmts / sizeof fmts[0]; f++) {
		for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
			assert_int_equal(check_members(counts[i], false, fmts[f]), 0);
			assert_int_equal(check_members(counts[i], true, fmts[f]), -SBX_ESYNTAX);
		}
	}
	assert_int_equal(check_members(SBX_JSON_NAMES_MAX + 1, false, "%u"), -SBX_ETOOBIG);
	assert_ptr_equal(scratch.names, scratch.first); /* what a large text took is given back */
}

static void
test_check_error(void **state)
{
	(void)state;
	static const char text[] = "{\n \"a\": 1,\n \"b\": tru }";
	struct sbx_json_error error = {NULL, 0, 0};
	assert_int_equal(sbx_json_check(text, sizeof text - 1, &scratch, &error), -SBX_ESYNTAX);
	assert_int_equal(error.line, 3);
	assert_int_equal(error.offset, strstr(text, "tru") - text);
	assert_string_equal(error.what, "no value here");
	static const char twice[] = "{\"a\":1,\n\"a\":2}";
	assert_int_equal(sbx_json_check(twice, sizeof twice - 1, &scratch, &error), -SBX_ESYNTAX);
	assert_int_equal(error.line, 2); /* the later of the two */
}

static struct sbx_span
root_of(const char *text)
{
	assert_int_equal(sbx_json_check(text, strlen(text), &scratch, NULL), 0);
	return sbx_json_root(text, strlen(text));
}

static void
test_walk(void **state)
{
	(void)state;
	struct sbx_span root = root_of(" { \"a\" : [ 1 , {\"x\":\"]}\\\"\"} , [] ] ,\"b\":null, \"\\u0063\" : \"d\" , \"n\":-1.5e3} ");
	static const struct {
		const char *name, *value;
		enum sbx_json_type type;
	} want[] = {
		{"a", "[ 1 , {\"x\":\"]}\\\"\"} , [] ]", SBX_JSON_ARRAY},
		{"b", "null", SBX_JSON_NULL},
		{"c", "\"d\"", SBX_JSON_STRING},
		{"n", "-1.5e3", SBX_JSON_NUMBER},
	};
	struct sbx_json_iter it = sbx_json_object_iter(root);
	struct sbx_span name, value;
	size_t i = 0;
	while (sbx_json_object_next(&it, &name, &value)) {
		assert_true(i < sizeof want / sizeof want[0]);
		assert_true(sbx_json_string_eq(name, want[i].name));
		assert_true(sbx_span_is(value, want[i].value));
		assert_int_equal(sbx_json_type(value), want[i].type);
		i++;
	}
	assert_int_equal(i, 4);
	assert_true(sbx_json_get(root, "c", &value));
	assert_true(sbx_json_string_eq(value, "d"));
	assert_false(sbx_json_get(root, "x", &value));
	assert_false(sbx_json_get(value, "x", &value)); /* of a string */

	assert_true(sbx_json_get(root, "a", &value));
	it = sbx_json_array_iter(value);
	static const enum sbx_json_type types[] = {SBX_JSON_NUMBER, SBX_JSON_OBJECT, SBX_JSON_ARRAY};
	for (i = 0; sbx_json_array_next(&it, &value); i++)
		assert_int_equal(sbx_json_type(value), types[i]);
	assert_int_equal(i, 3);
	it = sbx_json_array_iter(root_of("[ ]"));
	assert_false(sbx_json_array_next(&it, &value));
	it = sbx_json_array_iter((struct sbx_span){NULL, 0});
	assert_false(sbx_json_array_next(&it, &value));
	assert_int_equal(sbx_json_type((struct sbx_span){NULL, 0}), SBX_JSON_NONE);
}

static void
test_int64(void **state)
{
	(void)state;
	static const struct {
		const char *text;
		bool ok;
		int64_t number;
	} cases[] = {
		{"0", true, 0}, {"-0", true, 0}, {"12", true, 12}, {"-12", true, -12}, {"12.0", true, 12}, {"12.000", true, 12},
		{"1.2e1", true, 12}, {"1200e-2", true, 12}, {"0.0", true, 0}, {"0e999999999", true, 0}, {"1E+3", true, 1000},
		{"9223372036854775807", true, INT64_MAX}, {"-9223372036854775808", true, INT64_MIN},
		{"9223372036854775808", false, 0}, {"-9223372036854775809", false, 0}, {"1e19", false, 0}, {"1e99999999999", false, 0},
		{"1e-1", false, 0}, {"0.5", false, 0}, {"1e-99999999999", false, 0}, {"\"1\"", false, 0}, {"null", false, 0},
		{"true", false, 0}, {"[]", false, 0}, {"1000000000000000000000", false, 0}, {"10.01e2", true, 1001},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		int64_t number = 77;
		bool ok = sbx_json_int64(root_of(cases[i].text), &number);
		if (ok != cases[i].ok || number != (ok ? cases[i].number : 77))
			fail_msg("%s: %d %lld", cases[i].text, ok, (long long)number);
	}
}

static const struct {
	const char *json, *text;
	size_t n;
} string_cases[] = {
	{"\"\"", "", 0},
	{"\"plain\"", "plain", 5},
	{"\"a\\n\\t\\\"\\\\\\/\\b\\f\\r\"", "a\n\t\"\\/\b\f\r", 9},
	{"\"\\u0041\\u00e9\\u20ac\\ud83d\\ude00\"", "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", 10},
	{"\"x\\u0000y\"", "x\0y", 3},
	{"\"\\ud800x\"", "\xef\xbf\xbdx", 4},
	{"\"\\udc00\"", "\xef\xbf\xbd", 3},
	{"\"\\ud800\\ud800\"", "\xef\xbf\xbd\xef\xbf\xbd", 6},
	{"\"\\ud800\\u0041\"", "\xef\xbf\xbd" "A", 4},
	{"\"\\ud800\\n\"", "\xef\xbf\xbd\n", 4},
};

static void
test_strings(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof string_cases / sizeof string_cases[0]; i++) {
		struct sbx_span value = root_of(string_cases[i].json), plain;
		char buf[64];
		size_t n = 0;
		assert_int_equal(sbx_json_string_decode(value, buf, sizeof buf, &n), 0);
		assert_int_equal(n, string_cases[i].n);
		assert_memory_equal(buf, string_cases[i].text, n);
		assert_true(sbx_json_string_eq_n(value, string_cases[i].text, n));
		assert_false(sbx_json_string_eq(value, "something else"));
		assert_int_equal(sbx_json_string_peek(value, &plain), strchr(string_cases[i].json, '\\') == NULL);
		for (size_t cap = 0; cap < n; cap++)
			assert_int_equal(sbx_json_string_decode(value, buf, cap, &n), -SBX_ETOOBIG);
		struct sbx_buf b;
		sbx_buf_init(&b, 64);
		assert_int_equal(sbx_json_string_append(value, &b), 0);
		assert_int_equal(b.n, string_cases[i].n);
		/* and back: encoding gives JSON that decodes to the same */
		struct sbx_buf again;
		sbx_buf_init(&again, 256);
		assert_int_equal(sbx_json_string_encode(b.n ? (char *)b.data : "", b.n, &again), 0);
		assert_int_equal(check((char *)again.data, again.n), 0);
		assert_int_equal(sbx_json_string_decode((struct sbx_span){(char *)again.data, again.n}, buf, sizeof buf, &n), 0);
		assert_int_equal(n, string_cases[i].n);
		assert_memory_equal(buf, string_cases[i].text, n);
		sbx_buf_fini(&b);
		sbx_buf_fini(&again);
	}
	struct sbx_buf b;
	size_t n;
	sbx_buf_init(&b, 64);
	assert_int_equal(sbx_json_string_append(root_of("1"), &b), -SBX_EINVAL);
	assert_int_equal(sbx_json_string_decode(root_of("null"), NULL, 0, &n), -SBX_EINVAL);
	assert_int_equal(sbx_json_string_encode("\x01\x80\xffz\x7f", 5, &b), 0);
	assert_int_equal(b.n, 6 + 3 + 3 + 2 + 2);
	assert_memory_equal(b.data, "\"\\u0001\xef\xbf\xbd\xef\xbf\xbdz\x7f\"", b.n);
	sbx_buf_fini(&b);
}

static void
test_fmt(void **state)
{
	(void)state;
	static const struct {
		const char *json;
		size_t cap;
		const char *want;
	} cases[] = {
		{"\"hello\"", 6, "hello"}, {"\"hello\"", 5, "hell"}, {"\"hello\"", 1, ""},
		{"\"a\\u20ac\"", 5, "a\xe2\x82\xac"}, {"\"a\\u20ac\"", 4, "a"}, {"\"a\\u20ac\"", 3, "a"}, {"\"a\xe2\x82\xac" "b\"", 5, "a\xe2\x82\xac"},
		{"\"a\\u0000b\"", 8, "ab"}, {"17", 8, ""},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		char buf[16];
		memset(buf, 'X', sizeof buf);
		size_t n = sbx_json_string_fmt(root_of(cases[i].json), buf, cases[i].cap);
		assert_string_equal(buf, cases[i].want);
		assert_int_equal(n, strlen(cases[i].want));
		assert_int_equal(buf[cases[i].cap], 'X');
	}
}

static int
setup(void **state)
{
	(void)state;
	sbx_json_scratch_init(&scratch);
	return 0;
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_check),       cmocka_unit_test(test_check_cut),   cmocka_unit_test(test_check_depth),
		cmocka_unit_test(test_check_members), cmocka_unit_test(test_check_error), cmocka_unit_test(test_walk),
		cmocka_unit_test(test_int64),       cmocka_unit_test(test_strings),     cmocka_unit_test(test_fmt),
	};
	return cmocka_run_group_tests(tests, setup, NULL);
}
