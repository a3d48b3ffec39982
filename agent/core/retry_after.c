/* SPDX-License-Identifier: Apache-2.0 */
/* retry_after.c -- see retry_after.h. Dates by own arithmetic: strptime() asks the locale, timegm() is nobody's standard. */
#include "agent/core/retry_after.h"

#include <string.h>
#include <strings.h>

#define MS 1000000ll
#define S  1000000000ll
#define MAX_NS SBX_RETRY_AFTER_MAX_NS

/* A number of seconds as large as this is a point in time, from 2017 on: nobody means a wait of 47 years. The same in milliseconds
 * where it has 13 digits. */
#define UNIX_MIN_S 1500000000ll
#define UNIX_MIN_MS (UNIX_MIN_S * 1000)
#define UNIX_END_S 253402300800ll       /* the year 10000 */

/* A value as it was read: one of the two is -1. */
struct when {
	int64_t ns;      /* from now */
	int64_t unix_ms; /* a point in time */
};

/* ---- reading ---- */

static bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

static struct sbx_span
trim(struct sbx_span s)
{
	while (s.n && (s.at[0] == ' ' || s.at[0] == '\t'))
		s = (struct sbx_span){ s.at + 1, s.n - 1 };
	while (s.n && (s.at[s.n - 1] == ' ' || s.at[s.n - 1] == '\t' || s.at[s.n - 1] == '\r' || s.at[s.n - 1] == '\n'))
		s.n--;
	return s;
}

/* Takes "12" or "12.5" off the front. whole is cut at a value far above any limit, so that nothing here can overflow. */
static bool
take_decimal(struct sbx_span *s, int64_t *ret_whole, int64_t *ret_nanos)
{
	int64_t whole = 0, nanos = 0, scale = 100000000;
	size_t i = 0, digits = 0;

	for (; i < s->n && is_digit(s->at[i]); i++, digits++)
		if (whole < UNIX_END_S * 1000)
			whole = whole * 10 + (s->at[i] - '0');
	if (i < s->n && s->at[i] == '.')
		for (i++; i < s->n && is_digit(s->at[i]); i++, digits++) {
			nanos += (s->at[i] - '0') * scale;
			scale /= 10;
		}
	if (digits == 0)
		return false;
	*s = (struct sbx_span){ s->at + i, s->n - i };
	*ret_whole = whole;
	*ret_nanos = nanos;
	return true;
}

/* whole.nanos of a unit in nanoseconds, at most MAX_NS. A unit is at most an hour: no product here reaches 2^62. */
static int64_t
in_ns(int64_t whole, int64_t nanos, int64_t unit_ns)
{
	if (whole > MAX_NS / unit_ns)
		return MAX_NS;
	int64_t ns = whole * unit_ns + (nanos / 1000) * (unit_ns / 1000) / 1000; /* a microsecond of the unit is exact enough */
	return ns < MAX_NS ? ns : MAX_NS;
}

/* Seconds since 1970 of a proleptic Gregorian date: days from 1 March of the year 0, so that the leap day is the last of its year. */
static int64_t
unix_s_of(int64_t year, int month, int day, int hour, int minute, int second)
{
	int64_t y = month > 2 ? year : year - 1;
	int64_t m = month > 2 ? month - 3 : month + 9;
	int64_t days = y * 365 + y / 4 - y / 100 + y / 400 + (m * 153 + 2) / 5 + day - 1 - 719468;
	return ((days * 24 + hour) * 60 + minute) * 60 + second;
}

static bool
is_time(int year, int month, int day, int hour, int minute, int second)
{
	static const int days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	return year >= 1970 && month >= 1 && month <= 12 && day >= 1 && day <= days[month - 1] && hour <= 23 && minute <= 59 && second <= 60;
}

/* Takes exactly n digits, or with a pad blank instead of the first digit (asctime's day). */
static bool
take_digits(struct sbx_span *s, size_t n, bool pad, int *ret)
{
	int v = 0;
	if (s->n < n)
		return false;
	for (size_t i = 0; i < n; i++) {
		if (i == 0 && pad && s->at[i] == ' ')
			continue;
		if (!is_digit(s->at[i]))
			return false;
		v = v * 10 + (s->at[i] - '0');
	}
	*s = (struct sbx_span){ s->at + n, s->n - n };
	*ret = v;
	return true;
}

static bool
take_char(struct sbx_span *s, const char *any)
{
	if (!s->n || !s->at[0] || !strchr(any, s->at[0]))
		return false;
	*s = (struct sbx_span){ s->at + 1, s->n - 1 };
	return true;
}

static bool
take_month(struct sbx_span *s, int *ret)
{
	static const char names[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
	for (int i = 0; i < 12 && s->n >= 3; i++)
		if (strncasecmp(s->at, names + 3 * i, 3) == 0) {
			*s = (struct sbx_span){ s->at + 3, s->n - 3 };
			*ret = i + 1;
			return true;
		}
	return false;
}

static bool
take_clock(struct sbx_span *s, int *h, int *m, int *sec)
{
	return take_digits(s, 2, false, h) && take_char(s, ":") && take_digits(s, 2, false, m) && take_char(s, ":") && take_digits(s, 2, false, sec);
}

/* "2026-11-23T18:30:00.123Z", "2026-11-23t18:30:00+01:00" */
static bool
read_rfc3339(struct sbx_span s, int64_t *ret_unix_ms)
{
	int year, month, day, h, m, sec, oh = 0, om = 0, sign = 1;
	int64_t whole, nanos = 0;

	if (!take_digits(&s, 4, false, &year) || !take_char(&s, "-") || !take_digits(&s, 2, false, &month) || !take_char(&s, "-") ||
	    !take_digits(&s, 2, false, &day) || !take_char(&s, "Tt ") || !take_clock(&s, &h, &m, &sec))
		return false;
	if (s.n && s.at[0] == '.' && (!take_decimal(&s, &whole, &nanos)))
		return false;
	if (s.n && (s.at[0] == '+' || s.at[0] == '-')) {
		sign = s.at[0] == '-' ? -1 : 1;
		s = (struct sbx_span){ s.at + 1, s.n - 1 };
		if (!take_digits(&s, 2, false, &oh) || !take_char(&s, ":") || !take_digits(&s, 2, false, &om) || oh > 23 || om > 59)
			return false;
	} else if (!take_char(&s, "Zz")) {
		return false;
	}
	if (s.n || !is_time(year, month, day, h, m, sec))
		return false;
	*ret_unix_ms = (unix_s_of(year, month, day, h, m, sec) - sign * (oh * 60 + om) * 60) * 1000 + nanos / MS;
	return true;
}

/* "Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994" */
static bool
read_http_date(struct sbx_span s, int64_t *ret_unix_ms)
{
	int year, month, day, h, m, sec;

	while (s.n && ((s.at[0] | 0x20) >= 'a' && (s.at[0] | 0x20) <= 'z')) /* the weekday adds nothing, and is often wrong */
		s = (struct sbx_span){ s.at + 1, s.n - 1 };
	if (take_char(&s, ",")) {
		if (!take_char(&s, " ") || !take_digits(&s, 2, false, &day) || !take_char(&s, " -") || !take_month(&s, &month) || !take_char(&s, " -"))
			return false;
		struct sbx_span two = s;
		if (!take_digits(&s, 4, false, &year)) {
			s = two;
			if (!take_digits(&s, 2, false, &year))
				return false;
			year += year < 70 ? 2000 : 1900;
		}
		if (!take_char(&s, " ") || !take_clock(&s, &h, &m, &sec) || !take_char(&s, " ") || !(sbx_span_is(s, "GMT") || sbx_span_is(s, "UTC")))
			return false;
	} else if (!take_char(&s, " ") || !take_month(&s, &month) || !take_char(&s, " ") || !take_digits(&s, 2, true, &day) || !take_char(&s, " ") ||
	           !take_clock(&s, &h, &m, &sec) || !take_char(&s, " ") || !take_digits(&s, 4, false, &year) || s.n) {
		return false;
	}
	if (!is_time(year, month, day, h, m, sec))
		return false;
	*ret_unix_ms = unix_s_of(year, month, day, h, m, sec) * 1000;
	return true;
}

/* "6m0s", "2m59.56s", "120ms", "1h": at least one number with a unit, and nothing else. */
static bool
read_go_duration(struct sbx_span s, int64_t *ret_ns)
{
	static const struct {
		struct sbx_span name;
		int64_t ns;
	} unit[] = { /* "ms" before "m" */
		{ { "ns", 2 }, 1 }, { { "us", 2 }, 1000 }, { { "\xc2\xb5s", 3 }, 1000 }, { { "\xce\xbcs", 3 }, 1000 },
		{ { "ms", 2 }, MS }, { { "s", 1 }, S },    { { "m", 1 }, 60 * S },       { { "h", 1 }, 3600 * S },
	};
	int64_t sum = 0, whole, nanos;

	if (!s.n)
		return false;
	while (s.n) {
		size_t u = 0;
		if (!take_decimal(&s, &whole, &nanos))
			return false;
		while (u < sizeof unit / sizeof unit[0] && (s.n < unit[u].name.n || memcmp(s.at, unit[u].name.at, unit[u].name.n) != 0))
			u++;
		if (u == sizeof unit / sizeof unit[0])
			return false;
		s = (struct sbx_span){ s.at + unit[u].name.n, s.n - unit[u].name.n };
		sum += in_ns(whole, nanos, unit[u].ns);
		if (sum > MAX_NS)
			sum = MAX_NS;
	}
	*ret_ns = sum;
	return true;
}

/* Any form. unit_ns: of a bare number. */
static bool
read_when(struct sbx_span s, int64_t unit_ns, struct when *ret)
{
	struct sbx_span rest = s;
	int64_t whole, nanos, v;

	if (take_decimal(&rest, &whole, &nanos) && rest.n == 0) {
		if (unit_ns == S && whole >= UNIX_MIN_S && whole < UNIX_END_S)
			*ret = (struct when){ -1, whole * 1000 + nanos / MS };
		else if (unit_ns == S && whole >= UNIX_MIN_MS && whole < UNIX_END_S * 1000)
			*ret = (struct when){ -1, whole };
		else
			*ret = (struct when){ in_ns(whole, nanos, unit_ns), -1 };
		return true;
	}
	if (read_go_duration(s, &v)) {
		*ret = (struct when){ v, -1 };
		return true;
	}
	if (read_rfc3339(s, &v) || read_http_date(s, &v)) {
		*ret = (struct when){ -1, v };
		return true;
	}
	return false;
}

/* ---- headers ---- */

static bool
take_prefix(struct sbx_span *s, const char *lower)
{
	size_t n = strlen(lower);
	if (s->n < n || strncasecmp(s->at, lower, n) != 0)
		return false;
	*s = (struct sbx_span){ s->at + n, s->n - n };
	return true;
}

static bool
take_suffix(struct sbx_span *s, const char *lower)
{
	size_t n = strlen(lower);
	if (s->n < n || strncasecmp(s->at + s->n - n, lower, n) != 0)
		return false;
	s->n -= n;
	return true;
}

static bool
is_word(struct sbx_span s, const char *lower)
{
	return s.n == strlen(lower) && strncasecmp(s.at, lower, s.n) == 0;
}

/* Splits "x-ratelimit-reset-tokens", "anthropic-ratelimit-tokens-reset", "ratelimit-reset" into what is limited and whether it is
 * the reset or the remaining. */
static bool
read_limit_name(struct sbx_span name, uint32_t *ret_what, bool *ret_reset)
{
	bool reset;
	uint32_t hash = 2166136261u; /* FNV-1a; two limits of one answer that share it would only be confused */

	if (take_prefix(&name, "anthropic-ratelimit-")) {
		if (!(reset = take_suffix(&name, "-reset")) && !take_suffix(&name, "-remaining"))
			return false;
		hash ^= 1;
	} else {
		(void)take_prefix(&name, "x-");
		if (!take_prefix(&name, "ratelimit-") || (!(reset = take_prefix(&name, "reset")) && !take_prefix(&name, "remaining")) ||
		    (name.n && name.at[0] != '-'))
			return false;
	}
	for (size_t i = 0; i < name.n; i++) {
		char c = name.at[i] >= 'A' && name.at[i] <= 'Z' ? (char)(name.at[i] | 0x20) : name.at[i];
		hash = (hash ^ (uint8_t)c) * 16777619u;
	}
	*ret_what = hash;
	*ret_reset = reset;
	return true;
}

static void
note_limit(struct sbx_retry_after *r, uint32_t what, bool reset, struct sbx_span value)
{
	struct when w;
	int64_t whole, nanos;
	uint8_t i = 0;

	if (reset ? !read_when(value, S, &w) : !(take_decimal(&value, &whole, &nanos) && value.n == 0))
		return;
	while (i < r->n_limits && r->limit[i].what != what)
		i++;
	if (i == SBX_RETRY_AFTER_LIMITS_MAX)
		return;
	if (i == r->n_limits) {
		r->n_limits++;
		r->limit[i].what = what;
		r->limit[i].left = false;
		r->limit[i].ns = r->limit[i].unix_ms = -1;
	}
	if (reset) {
		r->limit[i].ns = w.ns;
		r->limit[i].unix_ms = w.unix_ms;
	} else {
		r->limit[i].left = whole > 0 || nanos > 0;
	}
}

void
sbx_retry_after_init(struct sbx_retry_after *r)
{
	*r = (struct sbx_retry_after){ .explicit_ns = -1, .explicit_unix_ms = -1 };
}

void
sbx_retry_after_header(struct sbx_retry_after *r, struct sbx_span name, struct sbx_span value, int64_t wall_unix_s)
{
	struct when w;
	uint32_t what;
	bool reset;
	int64_t unix_ms;

	value = trim(value);
	if (is_word(name, "date")) {
		if (read_http_date(value, &unix_ms))
			r->skew_ms = unix_ms - wall_unix_s * 1000;
	} else if (is_word(name, "x-should-retry")) {
		if (is_word(value, "false"))
			r->told_no_retry = true;
	} else if (is_word(name, "retry-after") || is_word(name, "retry-after-ms") || is_word(name, "x-ms-retry-after-ms")) {
		if (!read_when(value, take_suffix(&name, "-ms") ? MS : S, &w))
			return;
		if (w.ns > r->explicit_ns)
			r->explicit_ns = w.ns;
		if (w.unix_ms > r->explicit_unix_ms)
			r->explicit_unix_ms = w.unix_ms;
	} else if (read_limit_name(name, &what, &reset)) {
		note_limit(r, what, reset, value);
	}
}

/* The longer of a relative time and the time until a point; -1 = neither is given. */
static int64_t
longest(int64_t ns, int64_t unix_ms, int64_t server_unix_ms)
{
	int64_t until_ns = -1;
	if (unix_ms >= 0) {
		int64_t ms = unix_ms - server_unix_ms;
		until_ns = ms <= 0 ? 0 : ms < MAX_NS / MS ? ms * MS : MAX_NS;
	}
	return ns > until_ns ? ns : until_ns;
}

int64_t
sbx_retry_after_ns(const struct sbx_retry_after *r, int64_t wall_unix_s)
{
	const int64_t server_unix_ms = wall_unix_s * 1000 + r->skew_ms;
	int64_t ns = longest(r->explicit_ns, r->explicit_unix_ms, server_unix_ms);

	if (ns >= 0)
		return ns;
	for (uint8_t i = 0; i < r->n_limits; i++) {
		int64_t reset_ns = r->limit[i].left ? -1 : longest(r->limit[i].ns, r->limit[i].unix_ms, server_unix_ms);
		if (reset_ns > ns)
			ns = reset_ns;
	}
	return ns;
}
