/* SPDX-License-Identifier: Apache-2.0 */
/* exposition.c -- see exposition.h. */
#include "tools/door/exposition.h"

#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#define NANO 1000000000u
#define OPENMETRICS "application/openmetrics-text"
#define PROMETHEUS "text/plain"

enum type { COUNTER, GAUGE, HISTOGRAM };
static const char *const type_word[] = { [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram" };

static const struct {
	enum type type;
	const char *name, *help; /* without a backslash, a quote or a line end: nothing to escape */
} about[] = {
#define X(id, type, name, help) { type, name, help },
	FAMILIES(X)
#undef X
};

void
exposition_clear(struct exposition *e)
{
	e->failed = false;
	for (int i = 0; i < FAMILY__COUNT; i++) {
		e->family[i].from = e->family[i].n = 0;
		e->family[i].max = EXPOSITION_MAX_BYTES;
	}
}

void
exposition_free(struct exposition *e)
{
	for (int i = 0; i < FAMILY__COUNT; i++)
		bytes_fini(&e->family[i]);
}

/* ---- samples ---- */

static void
put(struct labels *l, const char *bytes, size_t n)
{
	if (n > sizeof l->text - l->n) {
		l->failed = true;
		return;
	}
	memcpy(l->text + l->n, bytes, n);
	l->n += n;
}

void
labels_add(struct labels *l, const char *name, const char *value, size_t value_bytes)
{
	if (l->n)
		put(l, ",", 1);
	put(l, name, strlen(name));
	put(l, "=\"", 2);
	for (size_t i = 0; i < value_bytes; i++) {
		const char c = value[i];
		if (c == '\n')
			put(l, "\\n", 2);
		else if (c == '\\' || c == '"')
			put(l, (const char[]){ '\\', c }, 2);
		else
			put(l, &c, 1);
	}
	put(l, "\"", 1);
}

/* name + suffix { labels , le="bound" } value; le NULL = none. */
static void
sample(struct exposition *e, enum family family, const char *suffix, const struct labels *l, const char *le, const char *value)
{
	struct bytes *to = &e->family[family];
	char head[128], tail[96];
	const bool labelled = l && l->n;
	if (l && l->failed)
		return;
	const int head_bytes = snprintf(head, sizeof head, "%s%s%s", about[family].name, suffix, labelled || le ? "{" : "");
	const int tail_bytes = le ? snprintf(tail, sizeof tail, "%sle=\"%s\"} %s\n", labelled ? "," : "", le, value) :
	                            snprintf(tail, sizeof tail, "%s %s\n", labelled ? "}" : "", value);
	/* All of it or nothing: half a line would spoil the next one. */
	const size_t before = to->n;
	if (bytes_append(to, head, (size_t)head_bytes) && (!labelled || bytes_append(to, l->text, l->n)) && bytes_append(to, tail, (size_t)tail_bytes))
		return;
	to->n = before;
	e->failed = true;
}

static const char *
suffix_of(enum family family)
{
	return about[family].type == COUNTER ? "_total" : "";
}

#define NUMBER_BYTES 40
static const char *
fmt_uint(uint64_t value, char to[static NUMBER_BYTES])
{
	(void)snprintf(to, NUMBER_BYTES, "%llu", (unsigned long long)value);
	return to;
}

/* As short as it is exact, and with a point in any case, as OpenMetrics wants it in `le`. */
static const char *
fmt_nano(uint64_t value, char to[static NUMBER_BYTES])
{
	int n = snprintf(to, NUMBER_BYTES, "%llu.%09llu", (unsigned long long)(value / NANO), (unsigned long long)(value % NANO));
	while (to[n - 1] == '0' && to[n - 2] != '.')
		to[--n] = '\0';
	return to;
}

void
exposition_uint(struct exposition *e, enum family family, const struct labels *l, uint64_t value)
{
	char number[NUMBER_BYTES];
	sample(e, family, suffix_of(family), l, NULL, fmt_uint(value, number));
}

void
exposition_nano(struct exposition *e, enum family family, const struct labels *l, uint64_t value)
{
	char number[NUMBER_BYTES];
	sample(e, family, suffix_of(family), l, NULL, fmt_nano(value, number));
}

void
exposition_histogram(struct exposition *e, enum family family, const struct labels *l, const uint64_t *bound, uint32_t n_bounds,
                     const uint64_t *bucket, uint64_t sum, bool nano)
{
	char le[NUMBER_BYTES], number[NUMBER_BYTES];
	uint64_t n = 0;
	for (uint32_t i = 0; i <= n_bounds; i++)
		n += bucket[i];
	if (!n)
		return;
	n = 0;
	for (uint32_t i = 0; i < n_bounds; i++) {
		n += bucket[i];
		if (nano)
			(void)fmt_nano(bound[i], le);
		else
			(void)snprintf(le, sizeof le, "%llu.0", (unsigned long long)bound[i]);
		sample(e, family, "_bucket", l, le, fmt_uint(n, number));
	}
	n += bucket[n_bounds];
	sample(e, family, "_bucket", l, "+Inf", fmt_uint(n, number));
	sample(e, family, "_sum", l, NULL, nano ? fmt_nano(sum, number) : fmt_uint(sum, number));
	sample(e, family, "_count", l, NULL, fmt_uint(n, number));
}

/* ---- the whole ---- */

/* One range of an Accept header: how much it is wanted, 0 to 1000; -1 = it is about something else, or about a version that we do
 * not have. */
static int
wanted(const char *range, size_t n, const char *type, const char *version)
{
	const size_t type_bytes = strlen(type);
	int q = 1000;
	if (n < type_bytes || strncasecmp(range, type, type_bytes) != 0 || (n > type_bytes && !strchr("; \t", range[type_bytes])))
		return -1;
	for (const char *at = range + type_bytes, *end = range + n; at < end;) {
		at += strspn(at, "; \t");
		const size_t left = at < end ? (size_t)(end - at) : 0, bytes = strcspn(at, ";,");
		if (left > 2 && strncasecmp(at, "q=", 2) == 0) {
			char number[8] = "";
			memcpy(number, at + 2, bytes - 2 < sizeof number - 1 ? bytes - 2 : sizeof number - 1);
			q = (int)(strtod(number, NULL) * 1000);
		} else if (left > 8 && strncasecmp(at, "version=", 8) == 0 && strncmp(at + 8, version, strlen(version)) != 0) {
			return -1;
		}
		at += bytes;
	}
	return q;
}

enum exposition_format
exposition_format_of(const char *accept)
{
	int openmetrics = 0, prometheus = 0;
	while (accept && *accept) {
		accept += strspn(accept, ", \t");
		const size_t n = strcspn(accept, ",");
		const int q = wanted(accept, n, OPENMETRICS, "1.0.0"), r = wanted(accept, n, PROMETHEUS, "0.0.4");
		openmetrics = q > openmetrics ? q : openmetrics;
		prometheus = r > prometheus ? r : prometheus;
		accept += n;
	}
	return openmetrics && openmetrics >= prometheus ? EXPOSITION_OPENMETRICS : EXPOSITION_PROMETHEUS;
}

const char *
exposition_content_type(enum exposition_format format)
{
	return format == EXPOSITION_OPENMETRICS ? OPENMETRICS "; version=1.0.0; charset=utf-8" : PROMETHEUS "; version=0.0.4; charset=utf-8";
}

char *
exposition_text(const struct exposition *e, enum exposition_format format, size_t *ret_bytes)
{
	struct bytes all = { .max = SIZE_MAX };
	bool ok = true;
	for (int i = 0; i < FAMILY__COUNT && ok; i++) {
		const struct bytes *family = &e->family[i];
		const char *suffix = format == EXPOSITION_PROMETHEUS ? suffix_of((enum family)i) : "";
		char head[512];
		if (!family->n)
			continue;
		const int n = snprintf(head, sizeof head, "# HELP %s%s %s\n# TYPE %s%s %s\n", about[i].name, suffix, about[i].help, about[i].name, suffix,
		                       type_word[about[i].type]);
		ok = bytes_append(&all, head, (size_t)n) && bytes_append(&all, family->at, family->n);
	}
	if (ok && format == EXPOSITION_OPENMETRICS)
		ok = bytes_append(&all, "# EOF\n", 6);
	if (!ok)
		bytes_fini(&all);
	*ret_bytes = all.n;
	return all.at;
}
