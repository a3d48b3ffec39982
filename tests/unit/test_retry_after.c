/* SPDX-License-Identifier: Apache-2.0 */
/* test_retry_after.c -- every form in which providers say when to come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/core/retry_after.h"

#define MS 1000000ll
#define S 1000000000ll
#define NOW 1795458600ll /* Mon, 23 Nov 2026 18:30:00 GMT */

/* Headers as they come, "name: value" separated by newlines; UNSAID = -1. */
#define UNSAID (-1ll)
static const struct {
	const char *name, *headers;
	int64_t want_ns;
} cases[] = {
	{ "nothing", "content-type: text/plain", UNSAID },
	/* Retry-After */
	{ "seconds", "retry-after: 20", 20 * S },
	{ "any case, blanks", "Retry-After:  7 \r", 7 * S },
	{ "fraction", "retry-after: 0.25", 250 * MS },
	{ "fraction without a zero", "retry-after: .5", 500 * MS },
	{ "zero", "retry-after: 0", 0 },
	{ "negative", "retry-after: -1", UNSAID },
	{ "nan", "retry-after: nan", UNSAID },
	{ "inf", "retry-after: inf", UNSAID },
	{ "exponent", "retry-after: 1e9", UNSAID },
	{ "hexadecimal", "retry-after: 0x10", UNSAID },
	{ "plus", "retry-after: +5", UNSAID },
	{ "a dot", "retry-after: .", UNSAID },
	{ "empty", "retry-after:", UNSAID },
	{ "two numbers", "retry-after: 1, 2", UNSAID },
	{ "a word after", "retry-after: 5 minutes", UNSAID },
	{ "a billion seconds", "retry-after: 1000000000", SBX_RETRY_AFTER_MAX_NS },
	{ "more than 64 bits", "retry-after: 99999999999999999999999999", SBX_RETRY_AFTER_MAX_NS },
	{ "many digits behind the dot", "retry-after: 1.00000000000000000000000001", 1 * S },
	{ "days", "retry-after: 277403", 277403 * S },
	{ "unix seconds", "retry-after: 1795458660", 60 * S },
	{ "a duration where seconds belong", "retry-after: 34.4s", 34400 * MS },
	{ "milliseconds", "retry-after-ms: 1500", 1500 * MS },
	{ "milliseconds, fraction", "retry-after-ms: 1.5", 1500000 },
	{ "Azure's milliseconds", "x-ms-retry-after-ms: 250", 250 * MS },
	{ "the longest of the family", "retry-after: 1\nretry-after-ms: 30", 1 * S },
	{ "the longest of the family, other order", "retry-after-ms: 2500\nretry-after: 1", 2500 * MS },
	{ "Azure says both", "retry-after: 1\nretry-after-ms: 0", 1 * S },
	{ "the same header twice", "retry-after: 3\nretry-after: 9\nretry-after: 1", 9 * S },
	{ "garbage beside sense", "retry-after: soon\nretry-after-ms: 40", 40 * MS },
	/* dates */
	{ "HTTP-date by our clock", "retry-after: Mon, 23 Nov 2026 18:30:30 GMT", 30 * S },
	{ "HTTP-date, Date before it", "date: Mon, 23 Nov 2026 18:30:00 GMT\nretry-after: Mon, 23 Nov 2026 18:31:00 GMT", 60 * S },
	{ "their clock is an hour ahead", "date: Mon, 23 Nov 2026 19:30:00 GMT\nretry-after: Mon, 23 Nov 2026 19:30:05 GMT", 5 * S },
	{ "the same, Date after it", "retry-after: Mon, 23 Nov 2026 19:30:05 GMT\ndate: Mon, 23 Nov 2026 19:30:00 GMT", 5 * S },
	{ "their clock is ten years behind", "retry-after: Wed, 23 Nov 2016 18:30:09 GMT\ndate: Wed, 23 Nov 2016 18:30:00 GMT", 9 * S },
	{ "a past date", "retry-after: Sun, 06 Nov 1994 08:49:37 GMT", 0 },
	{ "a far date", "retry-after: Fri, 31 Dec 9999 23:59:59 GMT", SBX_RETRY_AFTER_MAX_NS },
	{ "RFC 850 date", "retry-after: Monday, 23-Nov-26 18:30:10 GMT", 10 * S },
	{ "RFC 850 date of the last century", "retry-after: Sunday, 06-Nov-94 08:49:37 GMT", 0 },
	{ "asctime date", "retry-after: Mon Nov 23 18:30:11 2026", 11 * S },
	{ "asctime date, day padded", "retry-after: Tue Dec  1 18:30:00 2026", 8 * 86400 * S },
	{ "leap day", "date: Mon, 28 Feb 2028 23:59:50 GMT\nretry-after: Tue, 29 Feb 2028 00:00:00 GMT", 10 * S },
	{ "behind the leap day", "date: Tue, 29 Feb 2028 23:59:50 GMT\nretry-after: Wed, 01 Mar 2028 00:00:00 GMT", 10 * S },
	{ "2100 has none", "date: Sun, 28 Feb 2100 23:59:50 GMT\nretry-after: Mon, 01 Mar 2100 00:00:00 GMT", 10 * S },
	{ "year's end", "date: Thu, 31 Dec 2026 23:59:59 GMT\nretry-after: Fri, 01 Jan 2027 00:00:01 GMT", 2 * S },
	{ "no such day", "retry-after: Mon, 32 Nov 2026 18:30:10 GMT", UNSAID },
	{ "no such month", "retry-after: Mon, 23 Nxx 2026 18:30:10 GMT", UNSAID },
	{ "no such hour", "retry-after: Mon, 23 Nov 2026 24:30:10 GMT", UNSAID },
	{ "another zone", "retry-after: Mon, 23 Nov 2026 18:30:10 CET", UNSAID },
	{ "cut off", "retry-after: Mon, 23 Nov 2026 18:30", UNSAID },
	{ "a bad Date is no Date", "date: yesterday\nretry-after: Mon, 23 Nov 2026 18:30:30 GMT", 30 * S },
	/* resets: OpenAI, Groq */
	{ "Go duration", "x-ratelimit-reset-requests: 6m0s", 360 * S },
	{ "Go duration, fraction", "x-ratelimit-reset-tokens: 2m59.56s", 179560 * MS },
	{ "Go duration, ms", "x-ratelimit-reset-tokens: 120ms", 120 * MS },
	{ "Go duration, all units", "x-ratelimit-reset-tokens: 1h1m1s1ms1us1ns", 3661 * S + 1 * MS + 1001 },
	{ "Go duration, micro sign", "x-ratelimit-reset-tokens: 5\xc2\xb5s", 5000 },
	{ "Go duration, hours without end", "x-ratelimit-reset-tokens: 999999999h999999999h", SBX_RETRY_AFTER_MAX_NS },
	{ "Go duration without a unit at the end", "x-ratelimit-reset-tokens: 1m5", UNSAID },
	{ "Go duration, negative", "x-ratelimit-reset-tokens: -5s", UNSAID },
	{ "longest of several", "x-ratelimit-reset-requests: 6ms\nx-ratelimit-reset-tokens: 8s", 8 * S },
	{ "only the one that is used up", "x-ratelimit-remaining-requests: 0\nx-ratelimit-reset-requests: 2s\n"
	  "x-ratelimit-remaining-tokens: 900\nx-ratelimit-reset-tokens: 8s", 2 * S },
	{ "remaining after reset", "x-ratelimit-reset-tokens: 8s\nx-ratelimit-remaining-tokens: 900\n"
	  "x-ratelimit-reset-requests: 2s\nx-ratelimit-remaining-requests: 0", 2 * S },
	{ "none is used up", "x-ratelimit-remaining-tokens: 900\nx-ratelimit-reset-tokens: 8s", UNSAID },
	{ "only behind an explicit one", "x-ratelimit-reset-tokens: 8s\nretry-after: 1", 1 * S },
	{ "also behind an explicit zero", "x-ratelimit-reset-tokens: 8s\nretry-after: 0", 0 },
	{ "not behind garbage", "x-ratelimit-reset-tokens: 8s\nretry-after: x", 8 * S },
	/* Azure, Together, OpenRouter */
	{ "Azure: bare seconds", "x-ratelimit-reset-tokens: 42\nx-ratelimit-renewalperiod-tokens: 60\nx-ratelimit-remaining-tokens: 0", 42 * S },
	{ "Together: no suffix", "x-ratelimit-limit: 1\nx-ratelimit-remaining: 0\nx-ratelimit-reset: 3", 3 * S },
	{ "Together: something left", "x-ratelimit-remaining: 1\nx-ratelimit-reset: 3", UNSAID },
	{ "without x-", "ratelimit-remaining: 0\nratelimit-reset: 4", 4 * S },
	{ "unix seconds in a reset", "x-ratelimit-reset: 1795458645", 45 * S },
	{ "unix milliseconds in a reset", "x-ratelimit-reset: 1795458600250", 250 * MS },
	{ "past unix seconds", "x-ratelimit-reset: 1795450000", 0 },
	{ "unix seconds, their clock behind", "x-ratelimit-reset: 1795455045\ndate: Mon, 23 Nov 2026 17:30:00 GMT", 45 * S },
	{ "no reset at all", "x-ratelimit-resettled: 5\nx-ratelimit-limit-tokens: 9", UNSAID },
	/* Anthropic */
	{ "RFC 3339", "anthropic-ratelimit-tokens-remaining: 0\nanthropic-ratelimit-tokens-reset: 2026-11-23T18:30:12Z", 12 * S },
	{ "RFC 3339, fraction", "anthropic-ratelimit-tokens-reset: 2026-11-23T18:30:12.5Z", 12500 * MS },
	{ "RFC 3339, offset", "anthropic-ratelimit-tokens-reset: 2026-11-23T19:30:12+01:00", 12 * S },
	{ "RFC 3339, negative offset", "anthropic-ratelimit-tokens-reset: 2026-11-23T13:00:12-05:30", 12 * S },
	{ "RFC 3339 relative to Date", "anthropic-ratelimit-tokens-reset: 2026-11-23T19:30:12Z\ndate: Mon, 23 Nov 2026 19:30:00 GMT", 12 * S },
	{ "RFC 3339 past", "anthropic-ratelimit-tokens-reset: 2026-11-23T18:29:00Z", 0 },
	{ "RFC 3339 without zone", "anthropic-ratelimit-tokens-reset: 2026-11-23T18:30:12", UNSAID },
	{ "RFC 3339 without its end", "anthropic-ratelimit-tokens-reset: 2026-11-23T18:3", UNSAID },
	{ "Anthropic: the used-up one of four", "anthropic-ratelimit-requests-remaining: 3999\nanthropic-ratelimit-requests-reset: 2026-11-23T18:39:00Z\n"
	  "anthropic-ratelimit-input-tokens-remaining: 0\nanthropic-ratelimit-input-tokens-reset: 2026-11-23T18:30:20Z\n"
	  "anthropic-ratelimit-output-tokens-remaining: 8000\nanthropic-ratelimit-output-tokens-reset: 2026-11-23T18:38:00Z\n"
	  "anthropic-ratelimit-tokens-remaining: 0\nanthropic-ratelimit-tokens-reset: 2026-11-23T18:30:05Z", 20 * S },
	{ "more limits than are kept", "x-ratelimit-reset-a: 1s\nx-ratelimit-reset-b: 2s\nx-ratelimit-reset-c: 3s\nx-ratelimit-reset-d: 4s\n"
	  "x-ratelimit-reset-e: 5s\nx-ratelimit-reset-f: 6s\nx-ratelimit-reset-g: 7s\nx-ratelimit-reset-h: 8s\nx-ratelimit-reset-i: 9s", 8 * S },
};

static struct sbx_retry_after
read_headers(const char *text, int64_t wall_unix_s)
{
	struct sbx_retry_after r;
	sbx_retry_after_init(&r);
	while (*text) {
		size_t line = strcspn(text, "\n"), name = strcspn(text, ":");
		sbx_retry_after_header(&r, (struct sbx_span){ text, name }, (struct sbx_span){ text + name + 1, line - name - 1 }, wall_unix_s);
		text += line + (text[line] != '\0');
	}
	return r;
}

static void
every_form(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct sbx_retry_after r = read_headers(cases[i].headers, NOW);
		int64_t got = sbx_retry_after_ns(&r, NOW);
		if (got != cases[i].want_ns)
			fail_msg("%s: got %lld, want %lld", cases[i].name, (long long)got, (long long)cases[i].want_ns);
	}
}

static void
a_wrong_clock_of_ours_does_not_matter(void **state)
{
	static const int64_t clocks[] = { 0, 1, NOW - 3600, NOW + 86400, 4102444800ll };
	(void)state;
	for (size_t i = 0; i < sizeof clocks / sizeof clocks[0]; i++) {
		struct sbx_retry_after r = read_headers("retry-after: Mon, 23 Nov 2026 18:31:00 GMT\ndate: Mon, 23 Nov 2026 18:30:00 GMT", clocks[i]);
		assert_int_equal(sbx_retry_after_ns(&r, clocks[i]), 60 * S);
		/* the body took ten seconds to arrive: so much less is left */
		assert_int_equal(sbx_retry_after_ns(&r, clocks[i] + 10), 50 * S);
		r = read_headers("x-ratelimit-reset: 1795458645\ndate: Mon, 23 Nov 2026 18:30:00 GMT", clocks[i]);
		assert_int_equal(sbx_retry_after_ns(&r, clocks[i]), 45 * S);
	}
}

static void
should_retry(void **state)
{
	(void)state;
	assert_true(read_headers("X-Should-Retry: false", NOW).told_no_retry);
	assert_true(read_headers("x-should-retry: FALSE", NOW).told_no_retry);
	assert_false(read_headers("x-should-retry: true", NOW).told_no_retry);
	assert_false(read_headers("x-should-retry: falsehood", NOW).told_no_retry);
}

/* Cut at every byte, each piece in memory of its own length: never a read beyond the end, never a negative time. */
static void
cut_at_every_byte(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
		for (size_t n = 0; n <= strlen(cases[i].headers); n++) {
			const char *colon = strchr(cases[i].headers, ':');
			size_t name = (size_t)(colon - cases[i].headers);
			if (n <= name)
				continue;
			char *value = malloc(n - name);
			memcpy(value, colon + 1, n - name - 1);
			struct sbx_retry_after r;
			sbx_retry_after_init(&r);
			sbx_retry_after_header(&r, (struct sbx_span){ cases[i].headers, name }, (struct sbx_span){ value, n - name - 1 }, NOW);
			assert_true(sbx_retry_after_ns(&r, NOW) >= -1);
			assert_true(sbx_retry_after_ns(&r, NOW) <= SBX_RETRY_AFTER_MAX_NS);
			free(value);
		}
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_form),
		cmocka_unit_test(a_wrong_clock_of_ours_does_not_matter),
		cmocka_unit_test(should_retry),
		cmocka_unit_test(cut_at_every_byte),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
