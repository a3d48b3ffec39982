/* SPDX-License-Identifier: Apache-2.0 */
/* scrape.c -- see scrape.h. */
#include "tests/e2e/scrape.h"

#include <ctype.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define FAMILIES_MAX 128

struct family {
	const char *name, *type;
	bool helped;
};

struct parser {
	struct scrape *s;
	struct family family[FAMILIES_MAX];
	int room;
	const char *line;   /* for complaints */
};

#define NEED(p, truth)                                                                      \
	do {                                                                                \
		if (!(truth))                                                               \
			fail_msg("not in the format (%s): %.300s", #truth, (p)->line);      \
	} while (0)

static bool
is_name(const char *at, size_t n, bool metric)
{
	for (size_t i = 0; i < n; i++)
		if (!(isalpha((unsigned char)at[i]) || at[i] == '_' || (metric && at[i] == ':') || (i && isdigit((unsigned char)at[i]))))
			return false;
	return n > 0;
}

/* The value of a label, in place; returns what follows its closing quote. */
static char *
unescape(struct parser *p, char *at)
{
	char *to = at;
	while (*at != '"') {
		NEED(p, *at && *at != '\n');
		if (*at == '\\') {
			at++;
			NEED(p, *at == '\\' || *at == '"' || *at == 'n');
			*to++ = *at == 'n' ? '\n' : *at;
			at++;
		} else {
			*to++ = *at++;
		}
	}
	at++;
	*to = 0;
	return at;
}

static char *
parse_labels(struct parser *p, char *at, struct scrape_series *x)
{
	while (*at != '}') {
		char *name = at;
		at += strcspn(at, "=");
		NEED(p, is_name(name, (size_t)(at - name), false) && at[0] == '=' && at[1] == '"');
		*at = 0;
		NEED(p, x->n_labels < SCRAPE_LABELS_MAX);
		for (int i = 0; i < x->n_labels; i++)
			NEED(p, strcmp(x->label[i].name, name) != 0);
		x->label[x->n_labels].name = name;
		x->label[x->n_labels++].value = at + 2;
		at = unescape(p, at + 2);
		NEED(p, *at == ',' || *at == '}');
		at += *at == ',' && at[1] != '}'; /* no comma behind the last */
	}
	return at + 1;
}

static bool
has_suffix(const char *name, const char *family, const char *suffix)
{
	size_t n = strlen(family);
	return strncmp(name, family, n) == 0 && strcmp(name + n, suffix) == 0;
}

/* Its name is one that a sample of the family may have. */
static bool
belongs(const struct parser *p, const char *name, const struct family *f)
{
	if (strcmp(f->type, "histogram") == 0)
		return has_suffix(name, f->name, "_bucket") || has_suffix(name, f->name, "_sum") || has_suffix(name, f->name, "_count");
	return has_suffix(name, f->name, strcmp(f->type, "counter") == 0 && p->s->openmetrics ? "_total" : "");
}

static void
parse_sample(struct parser *p, char *line)
{
	struct scrape *s = p->s;
	if (s->n == p->room) {
		p->room = p->room ? 2 * p->room : 1024;
		s->series = realloc(s->series, (size_t)p->room * sizeof *s->series);
		assert_non_null(s->series);
	}
	struct scrape_series *x = &s->series[s->n++];
	*x = (struct scrape_series){ .name = line, .family = s->n_families - 1 };
	char *at = line + strcspn(line, "{ "), *end;
	NEED(p, is_name(line, (size_t)(at - line), true) && *at);
	bool labelled = *at == '{';
	*at++ = 0;
	if (labelled) {
		at = parse_labels(p, at, x);
		NEED(p, *at++ == ' ');
	}
	NEED(p, isdigit((unsigned char)*at));
	x->value = strtod(at, &end);
	NEED(p, *end == 0 && isfinite(x->value) && x->value >= 0);
	NEED(p, s->n_families > 0);
	NEED(p, belongs(p, x->name, &p->family[s->n_families - 1]));
}

static void
parse_comment(struct parser *p, char *line)
{
	bool help = strncmp(line, "# HELP ", 7) == 0;
	NEED(p, help || strncmp(line, "# TYPE ", 7) == 0);
	char *name = line + 7, *rest = name + strcspn(name, " ");
	NEED(p, *rest == ' ' && is_name(name, (size_t)(rest - name), true) && rest[1]);
	*rest++ = 0;
	if (help) {
		for (int i = 0; i < p->s->n_families; i++)
			NEED(p, strcmp(p->family[i].name, name) != 0); /* in one piece */
		NEED(p, p->s->n_families < FAMILIES_MAX && !strchr(rest, '\\') && !strchr(rest, '"'));
		p->family[p->s->n_families++] = (struct family){ name, NULL, true };
		return;
	}
	struct family *f = &p->family[p->s->n_families - 1];
	NEED(p, p->s->n_families && strcmp(f->name, name) == 0 && !f->type);
	NEED(p, strcmp(rest, "counter") == 0 || strcmp(rest, "gauge") == 0 || strcmp(rest, "histogram") == 0);
	size_t n = strlen(name);
	bool total = n > 6 && strcmp(name + n - 6, "_total") == 0;
	NEED(p, total == (strcmp(rest, "counter") == 0 && !p->s->openmetrics));
	f->type = rest;
}

/* ---- the whole ---- */

static int
by_name_and_labels(const void *a, const void *b)
{
	const struct scrape_series *x = a, *y = b;
	int rc = strcmp(x->name, y->name);
	for (int i = 0; !rc && i < x->n_labels && i < y->n_labels; i++) {
		rc = strcmp(x->label[i].name, y->label[i].name);
		rc = rc ? rc : strcmp(x->label[i].value, y->label[i].value);
	}
	return rc ? rc : x->n_labels - y->n_labels;
}

static void
check_unique(const struct scrape *s)
{
	struct scrape_series *sorted = malloc(((size_t)s->n + 1) * sizeof *sorted);
	assert_non_null(sorted);
	memcpy(sorted, s->series, (size_t)s->n * sizeof *sorted);
	qsort(sorted, (size_t)s->n, sizeof *sorted, by_name_and_labels);
	for (int i = 1; i < s->n; i++)
		if (by_name_and_labels(&sorted[i - 1], &sorted[i]) == 0)
			fail_msg("%s is there twice with the same labels (%s=\"%s\" ...)", sorted[i].name, sorted[i].n_labels ? sorted[i].label[0].name : "",
			         sorted[i].n_labels ? sorted[i].label[0].value : "");
	free(sorted);
}

static bool
same_but_le(const struct scrape_series *x, const struct scrape_series *y)
{
	int n = x->n_labels < y->n_labels ? x->n_labels : y->n_labels; /* le is the last */
	for (int i = 0; i < n; i++)
		if (strcmp(x->label[i].name, "le") != 0 && (strcmp(x->label[i].name, y->label[i].name) != 0 || strcmp(x->label[i].value, y->label[i].value) != 0))
			return false;
	return true;
}

/* Buckets in their order, cumulative, up to +Inf; then the sum and the count, which is that of +Inf. */
static void
check_histograms(const struct parser *p)
{
	const struct scrape *s = p->s;
	for (int i = 0; i < s->n;) {
		const struct family *f = &p->family[s->series[i].family];
		if (strcmp(f->type, "histogram") != 0) {
			i++;
			continue;
		}
		double bound = -INFINITY, n = 0;
		const struct scrape_series *first = &s->series[i], *x = first;
		for (; has_suffix(x->name, f->name, "_bucket"); x = &s->series[++i]) {
			const char *le = x->label[x->n_labels - 1].value;
			double next = strcmp(le, "+Inf") == 0 ? INFINITY : strtod(le, NULL);
			assert_string_equal(x->label[x->n_labels - 1].name, "le");
			if (!same_but_le(first, x) || next <= bound || x->value < n || (s->openmetrics && !strpbrk(le, ".I")))
				fail_msg("%s: bucket %s after %g, %g after %g", x->name, le, bound, x->value, n);
			bound = next;
			n = x->value;
			assert_true(i + 1 < s->n);
		}
		assert_true(isinf(bound) && same_but_le(first, x) && has_suffix(x->name, f->name, "_sum"));
		const struct scrape_series *count = &s->series[i + 1];
		assert_true(i + 1 < s->n && same_but_le(first, count) && has_suffix(count->name, f->name, "_count"));
		if (count->value != n || n <= 0 || (x->value > 0 && n <= 0))
			fail_msg("%s: %g observations, but %g in all buckets", count->name, count->value, n);
		i += 2;
	}
}

void
scrape_parse(const char *text, bool openmetrics, struct scrape *s)
{
	struct parser p = { .s = s };
	bool ended = false;
	*s = (struct scrape){ .text = strdup(text), .bytes = strlen(text), .openmetrics = openmetrics };
	p.line = s->text;
	NEED(&p, s->bytes && s->text[s->bytes - 1] == '\n');
	for (char *line = s->text, *next; *line; line = next) {
		next = strchr(line, '\n');
		*next++ = 0;
		p.line = line;
		NEED(&p, !ended && *line);
		if (openmetrics && strcmp(line, "# EOF") == 0)
			ended = true;
		else if (*line == '#')
			parse_comment(&p, line);
		else
			parse_sample(&p, line);
	}
	p.line = "its end";
	NEED(&p, ended == openmetrics);
	for (int i = 0; i < s->n_families; i++)
		assert_true(p.family[i].type && p.family[i].helped);
	check_unique(s);
	check_histograms(&p);
}

void
scrape_door(struct door *d, const char *accept, struct scrape *s)
{
	struct http_answer a;
	int fd = door_connect(d);
	door_say(fd, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAuthorization: Bearer %s\r\n%s%s%s\r\n", d->port, d->key, accept ? "Accept: " : "",
	         accept ? accept : "", accept ? "\r\n" : "");
	http_read(fd, 30000, &a);
	(void)close(fd);
	if (a.status != 200 || !a.whole)
		fail_msg("/metrics answered %d: %.300s", a.status, a.body);
	const char *type = http_header(&a, "Content-Type");
	assert_non_null(type);
	bool openmetrics = strcmp(type, "application/openmetrics-text; version=1.0.0; charset=utf-8") == 0;
	assert_true(openmetrics || strcmp(type, "text/plain; version=0.0.4; charset=utf-8") == 0);
	assert_int_equal(strlen(a.body), a.body_bytes);
	scrape_parse(a.body, openmetrics, s);
	http_free(&a);
}

void
scrape_free(struct scrape *s)
{
	free(s->text);
	free(s->series);
}

/* ---- looking ---- */

static const char *
label_of(const struct scrape_series *x, const char *name, size_t n)
{
	for (int i = 0; i < x->n_labels; i++)
		if (strlen(x->label[i].name) == n && memcmp(x->label[i].name, name, n) == 0)
			return x->label[i].value;
	return NULL;
}

static bool
matches(const struct scrape_series *x, const char *name, const char *labels)
{
	if (strcmp(x->name, name) != 0)
		return false;
	while (*labels) {
		size_t k = strcspn(labels, "="), v = strcspn(labels + k + 1, ",");
		const char *value = label_of(x, labels, k);
		if (!value || strlen(value) != v || memcmp(value, labels + k + 1, v) != 0)
			return false;
		labels += k + 1 + v;
		labels += *labels == ',';
	}
	return true;
}

double
scrape_sum(const struct scrape *s, const char *name, const char *labels)
{
	double sum = 0;
	for (int i = 0; i < s->n; i++)
		sum += matches(&s->series[i], name, labels) ? s->series[i].value : 0;
	return sum;
}

int
scrape_count(const struct scrape *s, const char *name, const char *labels)
{
	int n = 0;
	for (int i = 0; i < s->n; i++)
		n += matches(&s->series[i], name, labels);
	return n;
}
