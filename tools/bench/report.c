/* SPDX-License-Identifier: Apache-2.0 */
/* report.c -- figures: gathered, shown to people as a table, given to programs as JSON; and the line of progress. */
#include "tools/bench/bench.h"

#include <assert.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <curl/curl.h>
#include <jansson.h>

#define LOAD_QUIET 0.5 /* a core busy for half of the time: from there on ratios move by a tenth and more */

static bool progress_shown;

/* ---- progress ---- */

void
progress(const char *fmt, ...)
{
	va_list ap;
	if (!isatty(STDERR_FILENO))
		return;
	(void)fputs("\r\033[K", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fflush(stderr);
	progress_shown = true;
}

void
progress_clear(void)
{
	if (progress_shown)
		(void)fputs("\r\033[K", stderr);
	progress_shown = false;
}

/* ---- figures ---- */

static int
by_size(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

struct spread
spread_of(double *v, size_t n)
{
	struct spread s = { 0, 0, 0 };
	if (!n)
		return s;
	qsort(v, n, sizeof *v, by_size);
	s.low = v[n / 4];
	s.high = v[n - 1 - n / 4];
	s.median = n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
	return s;
}

void
series_add(struct series *s, double value, double floor_)
{
	if (s->n == ROUNDS_MAX)
		return;
	s->value[s->n] = value;
	s->floor[s->n] = floor_;
	s->ratio[s->n++] = floor_ > 0 ? value / floor_ : 0;
}

void
series_take(struct series *s, struct figure *f)
{
	f->rounds = s->n;
	f->value = spread_of(s->value, s->n).median;
	f->floor = spread_of(s->floor, s->n).median;
	struct spread ratio = spread_of(s->ratio, s->n);
	f->ratio = ratio.median;
	f->ratio_low = ratio.low;
	f->ratio_high = ratio.high;
}

void
series_take_best(const struct series *s, struct figure *f)
{
	f->best = s->value[0];
	f->best_floor = s->floor[0];
}

struct figure *
report_add(struct report *r, const struct figure *f)
{
	assert(r->n < FIGURES_MAX);
	r->figure[r->n] = *f;
	return &r->figure[r->n++];
}

static bool
missed(const struct figure *f)
{
	switch (f->limit_of) {
	case LIMIT_NONE: return false;
	case LIMIT_RATIO: return f->ratio > f->limit;
	case LIMIT_VALUE: return f->value > f->limit;
	case LIMIT_AT_LEAST: return f->value < f->limit;
	}
	return false;
}

/* Three significant digits, as far as they stand behind the point; none for a whole number. */
static void
fmt_number(char *to, size_t bytes, double v)
{
	(void)snprintf(to, bytes, "%.*f", v == floor(v) ? 0 : v < 10 ? 2 : v < 100 ? 1 : 0, v);
}

static void
fmt_quantity(char *to, size_t bytes, double v, const char *unit)
{
	char number[32];
	fmt_number(number, sizeof number, v);
	(void)snprintf(to, bytes, "%s %s", number, unit);
}

static void
table_row(const struct figure *f, FILE *to, bool colour)
{
	char value[48], floor_[48] = "", ratio[48] = "", limit[48], target[56] = "";
	fmt_quantity(value, sizeof value, f->value, f->unit);
	if (f->floor_is)
		fmt_quantity(floor_, sizeof floor_, f->floor, f->unit);
	if (f->ratio > 0 && f->ratio_high > f->ratio_low)
		(void)snprintf(ratio, sizeof ratio, "%.2f (%.2f-%.2f)", f->ratio, f->ratio_low, f->ratio_high);
	else if (f->ratio > 0)
		(void)snprintf(ratio, sizeof ratio, "%.2f", f->ratio);
	fmt_quantity(limit, sizeof limit, f->limit, f->limit_of == LIMIT_RATIO ? "x" : f->unit);
	if (f->limit_of != LIMIT_NONE)
		(void)snprintf(target, sizeof target, "%s %s", f->limit_of == LIMIT_AT_LEAST ? ">=" : "<=", limit);
	const char *verdict = f->limit_of == LIMIT_NONE ? "" : missed(f) ? "MISSED" : "ok";
	(void)fprintf(to, "%-44s %-8s %11s %11s  %-18s %-11s %s%s%s\n", f->what, f->loop ? f->loop : "-", value, floor_, ratio, target,
	              colour && *verdict ? missed(f) ? "\033[31m" : "\033[32m" : "", verdict, colour && *verdict ? "\033[0m" : "");
	if (f->best > 0 && f->best_floor > 0)
		(void)fprintf(to, "    calmest rounds: %.1f and %.1f %s, %.2f x\n", f->best, f->best_floor, f->unit, f->best / f->best_floor);
	if (f->detail[0])
		(void)fprintf(to, "    %s\n", f->detail);
}

void
report_table(const struct report *r, FILE *to)
{
	const char *no_colour = getenv("NO_COLOR");
	bool colour = isatty(fileno(to)) && !(no_colour && *no_colour);
	struct utsname u;
	uint32_t n_missed = 0;
	if (uname(&u))
		memset(&u, 0, sizeof u);
	(void)fprintf(to, "%ld cores, kernel %s, libcurl %s, signalbox %s\n", sysconf(_SC_NPROCESSORS_ONLN), u.release,
	              curl_version_info(CURLVERSION_NOW)->version, SBX_VERSION);
	if (r->load > LOAD_QUIET)
		(void)fprintf(to, "Others were at work: load %.1f before the start. The ratios are soft; run it again on a quiet machine.\n", r->load);
	(void)fprintf(to, "%-44s %-8s %11s %11s  %-18s %s\n", "what", "loop", "measured", "floor", "ratio (quartiles)", "target");
	for (uint32_t i = 0; i < r->n; i++) {
		table_row(&r->figure[i], to, colour);
		n_missed += missed(&r->figure[i]);
	}
	(void)fputs("\nfloors:\n", to);
	for (uint32_t i = 0; i < r->n; i++) {
		bool told = !r->figure[i].floor_is;
		for (uint32_t k = 0; k < i && !told; k++)
			told = r->figure[k].floor_is && strcmp(r->figure[k].what, r->figure[i].what) == 0;
		if (!told)
			(void)fprintf(to, "  %-42s %s\n", r->figure[i].what, r->figure[i].floor_is);
	}
	(void)fprintf(to, "\n%u of %u figures miss their target; %.0f s%s\n", n_missed, r->n, r->took_s,
	              r->quick ? "; --quick: few rounds, so do not compare with full runs" : "");
}

static json_t *
figure_json(const struct figure *f)
{
	json_t *j = json_pack("{s:s, s:s, s:s?, s:s, s:f}", "name", f->name, "what", f->what, "loop", f->loop, "unit", f->unit, "value", f->value);
	if (!j)
		return NULL;
	int rc = 0;
	if (f->floor_is) {
		rc |= json_object_set_new(j, "floor", json_real(f->floor));
		rc |= json_object_set_new(j, "floor_is", json_string(f->floor_is));
	}
	if (f->ratio > 0) {
		rc |= json_object_set_new(j, "ratio", json_real(f->ratio));
		rc |= json_object_set_new(j, "ratio_quartiles", json_pack("[f, f]", f->ratio_low, f->ratio_high));
	}
	if (f->limit_of != LIMIT_NONE) {
		rc |= json_object_set_new(j, "target", json_pack("{s:s, s:f}", "of", f->limit_of == LIMIT_RATIO ? "ratio" : "value",
		                                                      f->limit_of == LIMIT_AT_LEAST ? "at_least" : "at_most", f->limit));
		rc |= json_object_set_new(j, "verdict", json_string(missed(f) ? "MISSED" : "ok"));
	}
	if (f->rounds)
		rc |= json_object_set_new(j, "rounds", json_integer(f->rounds));
	if (f->best > 0)
		rc |= json_object_set_new(j, "calmest", json_pack("{s:f, s:f}", "value", f->best, "floor", f->best_floor));
	if (f->detail[0])
		rc |= json_object_set_new(j, "detail", json_string(f->detail));
	if (rc) {
		json_decref(j);
		return NULL;
	}
	return j;
}

int
report_json(const struct report *r, FILE *to)
{
	struct utsname u;
	json_t *figures = json_array();
	int rc = 0;
	if (uname(&u))
		memset(&u, 0, sizeof u);
	for (uint32_t i = 0; i < r->n; i++)
		rc |= json_array_append_new(figures, figure_json(&r->figure[i]));
	json_t *j = json_pack("{s:s, s:i, s:s, s:s, s:b, s:f, s:f, s:o}", "signalbox", SBX_VERSION, "cores", (int)sysconf(_SC_NPROCESSORS_ONLN), "kernel",
	                      u.release, "libcurl", curl_version_info(CURLVERSION_NOW)->version, "quick", (int)r->quick, "load_before", r->load, "took_s", r->took_s,
	                      "figures", figures);
	if (!j || rc || json_dumpf(j, to, JSON_INDENT(1) | JSON_REAL_PRECISION(6)) || fputc('\n', to) == EOF || fflush(to))
		rc = -1;
	json_decref(j);
	return rc ? -1 : 0;
}
