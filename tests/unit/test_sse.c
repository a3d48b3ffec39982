/* SPDX-License-Identifier: Apache-2.0 */
/* test_sse.c -- the event stream parser: what the lines mean, and that no division of the bytes changes it. */
#include "agent/dialect/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include <signalbox/errors.h>

/* Events as text, one a line: "type|data", comments as "#text"; a failure as "!"; an event of sbx_sse_end() as "$type|data".
 * Newlines in data are written as "\n". */
static const struct {
	const char *name, *input, *want;
} cases[] = {
	{"plain", "data: a\n\ndata: b\n\n", "|a\n|b\n"},
	{"crlf", "data: a\r\n\r\ndata: b\r\n\r\n", "|a\n|b\n"},
	{"cr", "data: a\r\rdata: b\r\r", "|a\n|b\n"},
	{"mixed ends", "data: a\r\n\ndata: b\n\r\ndata: c\r\n\r\r\n", "|a\n|b\n|c\n"},
	{"no space", "data:a\n\n", "|a\n"},
	{"one space only", "data:  a\n\n", "| a\n"},
	{"types", "event: x\ndata: 1\n\ndata: 2\n\n", "x|1\n|2\n"},
	{"type behind data", "data: 1\nevent: x\n\n", "x|1\n"},
	{"type without data is dropped", "event: x\n\ndata: 1\n\n", "|1\n"},
	{"several data lines", "data: a\ndata: b\ndata\ndata:\ndata: c\n\n", "|a\\nb\\n\\n\\nc\n"},
	{"empty data", "data:\n\ndata\n\n", "|\n|\n"},
	{"comments", ": OPENROUTER PROCESSING\n\n:\n: \n", "# OPENROUTER PROCESSING\n#\n# \n"},
	{"comment inside an event", "data: a\n: c\ndata: b\n\n", "# c\n|a\\nb\n"},
	{"comment inside, one line", "event: e\ndata: a\n:c\n\n", "#c\ne|a\n"},
	{"unknown fields", "id: 7\nretry: 10\nfoo: bar\nnonsense\nDATA: x\ndatas: y\ndata: a\n\n", "|a\n"},
	{"byte order mark", "\xef\xbb\xbf" "data: a\n\n", "|a\n"},
	{"byte order mark later is no mark", "data: a\n\n\xef\xbb\xbf" "data: b\n\n", "|a\n"},
	{"blank lines", "\n\n\r\n\rdata: a\n\n\n\n", "|a\n"},
	{"cut before the blank line", "data: a\n\ndata: b\n", "|a\n$|b\n"},
	{"cut in the line", "data: a\n\nevent: e\ndata: b", "|a\n$e|b\n"},
	{"cut in the type", "data: a\nevent: e", "$e|a\n"},
	{"cut in a comment", "data: a\n\n: c", "|a\n"},
	{"colons", "data: {\"a\":\"b:c\"}\n\n", "|{\"a\":\"b:c\"}\n"},
	{"json", "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\ndata: [DONE]\n\n",
	 "|{\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n|[DONE]\n"},
};

static void
note(struct sbx_buf *out, const char *mark, const struct sbx_sse_event *ev)
{
	assert_int_equal(sbx_buf_printf(out, "%s", mark), 0);
	if (!ev->comment)
		assert_int_equal(sbx_buf_printf(out, "%.*s|", (int)ev->type.n, ev->type.at), 0);
	else
		assert_int_equal(sbx_buf_append(out, "#", 1), 0);
	for (size_t i = 0; i < ev->data.n; i++) {
		char c = ev->data.at[i];
		assert_int_equal(c == '\n' ? sbx_buf_append(out, "\\n", 2) : sbx_buf_append(out, &c, 1), 0);
	}
	assert_int_equal(sbx_buf_append(out, "\n", 1), 0);
}

/* One piece, on the heap at its exact size and gone before the next. */
static void
feed(struct sbx_sse *s, const char *at, size_t n, struct sbx_buf *out)
{
	struct sbx_sse_event ev;
	char *copy = malloc(n ? n : 1);
	int rc;
	assert_non_null(copy);
	memcpy(copy, at, n);
	sbx_sse_feed(s, copy, n);
	while ((rc = sbx_sse_next(s, &ev)) > 0)
		note(out, "", &ev);
	assert_int_equal(rc, 0);
	memset(copy, '?', n); /* nothing may still point there */
	free(copy);
}

/* Pieces of `size` bytes, the first one of `first`. */
static void
run(const char *input, size_t n, size_t first, size_t size, const char *want, const char *name)
{
	struct sbx_sse s;
	struct sbx_sse_event ev;
	struct sbx_buf out;
	sbx_sse_init(&s);
	sbx_buf_init(&out, 1u << 20);
	feed(&s, input, first, &out);
	for (size_t at = first; at < n; at += size)
		feed(&s, input + at, n - at < size ? n - at : size, &out);
	if (sbx_sse_end(&s, &ev) > 0)
		note(&out, "$", &ev);
	assert_int_equal(sbx_sse_end(&s, &ev), 0);
	if (out.n != strlen(want) || (out.n && memcmp(out.data, want, out.n) != 0))
		fail_msg("%s, first %zu, then %zu: got\n%.*s", name, first, size, (int)out.n, (const char *)out.data);
	sbx_buf_fini(&out);
	sbx_sse_fini(&s);
}

static void
test_cases(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		size_t n = strlen(cases[i].input);
		for (size_t cut = 0; cut <= n; cut++) /* two pieces, at every place */
			run(cases[i].input, n, cut, n, cases[i].want, cases[i].name);
		for (size_t size = 1; size <= 7; size++)
			run(cases[i].input, n, 0, size, cases[i].want, cases[i].name);
	}
}

static void
test_in_place(void **state)
{
	(void)state;
	static const char input[] = "data: abc\n\ndata: d\ndata: e\n\n";
	struct sbx_sse s;
	struct sbx_sse_event ev;
	sbx_sse_init(&s);
	sbx_sse_feed(&s, input, sizeof input - 1);
	assert_int_equal(sbx_sse_next(&s, &ev), 1);
	assert_ptr_equal(ev.data.at, input + 6); /* not copied */
	assert_null(s.data.base);
	assert_int_equal(sbx_sse_next(&s, &ev), 1);
	assert_true(sbx_span_is(ev.data, "d\ne"));
	assert_int_equal(sbx_sse_next(&s, &ev), 0);
	sbx_sse_fini(&s);
}

static void
test_nul_and_long_type(void **state)
{
	(void)state;
	static const char input[] = "event: 0123456789012345678901234567890123456789012345678901234567890123456789\ndata: a\0b\n\n";
	struct sbx_sse s;
	struct sbx_sse_event ev;
	sbx_sse_init(&s);
	sbx_sse_feed(&s, input, sizeof input - 1);
	assert_int_equal(sbx_sse_next(&s, &ev), 1);
	assert_int_equal(ev.type.n, SBX_SSE_TYPE_MAX_BYTES);
	assert_int_equal(ev.data.n, 3);
	assert_memory_equal(ev.data.at, "a\0b", 3);
	assert_int_equal(sbx_sse_next(&s, &ev), 0);
	sbx_sse_fini(&s);
}

/* A line of so many bytes, in pieces of `size`; what sbx_sse_next() says of it. */
static int
long_line(size_t bytes, size_t size, bool ended)
{
	struct sbx_sse s;
	struct sbx_sse_event ev;
	char *text = malloc(bytes + 2);
	int rc = 0;
	assert_non_null(text);
	memset(text, 'x', bytes);
	memcpy(text, "data:", 5);
	memcpy(text + bytes, "\n\n", 2);
	size_t n = bytes + (ended ? 2 : 0);
	sbx_sse_init(&s);
	for (size_t at = 0; at < n && rc == 0; at += size) {
		sbx_sse_feed(&s, text + at, n - at < size ? n - at : size);
		rc = sbx_sse_next(&s, &ev);
	}
	if (rc > 0) {
		assert_int_equal(ev.data.n, bytes - 5);
		assert_int_equal(sbx_sse_next(&s, &ev), 0);
		assert_null(s.line.base); /* and the memory is given back */
		assert_null(s.data.base);
	}
	if (rc < 0) { /* final */
		sbx_sse_feed(&s, "data: a\n\n", 9);
		assert_int_equal(sbx_sse_next(&s, &ev), rc);
		assert_int_equal(sbx_sse_end(&s, &ev), rc);
	}
	sbx_sse_fini(&s);
	free(text);
	return rc;
}

static void
test_limits(void **state)
{
	(void)state;
	static const size_t sizes[] = {4096, 65536, 64u << 20};
	for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
		assert_int_equal(long_line(SBX_SSE_LINE_MAX_BYTES, sizes[i], true), 1);
		assert_int_equal(long_line(SBX_SSE_LINE_MAX_BYTES + 1, sizes[i], true), -SBX_ETOOBIG);
		assert_int_equal(long_line(SBX_SSE_LINE_MAX_BYTES + 1, sizes[i], false), -SBX_ETOOBIG);
	}
	/* an event of many lines, each within its limit */
	struct sbx_sse s;
	struct sbx_sse_event ev;
	size_t n = 6u << 20;
	char *line = malloc(n);
	int rc = 0;
	assert_non_null(line);
	memset(line, 'x', n);
	memcpy(line, "data:", 5);
	line[n - 1] = '\n';
	sbx_sse_init(&s);
	for (int i = 0; i < 5; i++) {
		sbx_sse_feed(&s, line, n);
		assert_int_equal(sbx_sse_next(&s, &ev), 0);
	}
	sbx_sse_feed(&s, line, n);
	rc = sbx_sse_next(&s, &ev);
	assert_int_equal(rc, -SBX_ETOOBIG);
	sbx_sse_fini(&s);
	free(line);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cases),
		cmocka_unit_test(test_in_place),
		cmocka_unit_test(test_nul_and_long_type),
		cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
