/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog_read.c -- see catalog.h: one model's block, its price rows, their tiers and windows.
 *
 * Rows are appended while they are read and cut off again when something in them was wrong: how many messages there are
 * before and after tells. Numbers of money are read from their digits, never through floating point.
 */
#include "agent/catalog_read.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "agent/core/price.h"
#include "agent/core/tables.h"
#include "agent/dialect/json_scan.h"

#define CONTEXT_MAX 1000000000
#define URL_MAX_BYTES 1024
#define NOTE_MAX_BYTES 1024
#define NANO_PER_MILLION_DIGITS 15 /* a price in USD per token is so many places left of one in nano-USD per million */
#define TOKEN_MAX_NANOUSD (INT64_C(10) * 1000 * 1000000000)          /* SBX_PRICE_MAX_USD_PER_TOKEN */
#define REQUEST_MAX_NANOUSD (INT64_C(100) * 1000000 * 1000000000)    /* SBX_PRICE_MAX_USD_PER_REQUEST */

#define N(table) (sizeof(table) / sizeof(table)[0])

/* ==== money ==== */

/* USD per token, exactly, as nano-USD per million. */
static void
read_price(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	int64_t digits = 0, exponent = NANO_PER_MILLION_DIGITS, written = 0;
	int64_t zeros = 0; /* digits that were read and do not count unless another one than 0 follows */
	bool after_point = false, negative = false, too_long = false;
	size_t i = 0;
	if (sbx_json_type(value) != SBX_JSON_NUMBER) {
		sbx_read_error(r, value, "must be a number: USD per %s", f->max == REQUEST_MAX_NANOUSD ? "request" : "token");
		return;
	}
	if (value.at[0] == '-') {
		negative = true;
		i++;
	}
	for (; i < value.n && value.at[i] != 'e' && value.at[i] != 'E'; i++) {
		if (value.at[i] == '.') {
			after_point = true;
			continue;
		}
		exponent -= after_point;
		zeros++;
		if (value.at[i] == '0' || too_long)
			continue;
		for (; zeros > 0 && !too_long; zeros--) {
			too_long = digits > INT64_MAX / 10 - 1;
			digits *= too_long ? 1 : 10;
		}
		digits += value.at[i] - '0';
	}
	exponent += zeros;
	if (i < value.n) {
		bool down = value.at[++i] == '-';
		for (i += value.at[i] == '-' || value.at[i] == '+'; i < value.n; i++)
			written = written < 1000 ? written * 10 + (value.at[i] - '0') : written; /* beyond a thousand it is too small or too large */
		exponent += down ? -written : written;
	}
	if (digits == 0)
		exponent = 0;
	for (; exponent > 0 && digits <= f->max; exponent--)
		digits *= 10; /* at most 10^18 */
	if (negative && digits)
		sbx_read_error(r, value, "must not be negative");
	else if (too_long || (exponent < 0 && digits))
		sbx_read_error(r, value, "is finer than a billionth of a dollar per million");
	else if (digits > f->max)
		sbx_read_error(r, value, f->max == REQUEST_MAX_NANOUSD ? "is more than " SBX_PRICE_MAX_USD_PER_REQUEST " USD a request" :
		               "is more than " SBX_PRICE_MAX_USD_PER_TOKEN " USD a token; prices are per token, not per million");
	else
		*(int64_t *)at = digits;
}

/* ==== dates, zones, hours ==== */

/* "dd" at p as a number up to max, and the character after it. */
static bool
two_digits(const char *p, int max, int *ret_number)
{
	if (p[0] < '0' || p[0] > '9' || p[1] < '0' || p[1] > '9')
		return false;
	*ret_number = (p[0] - '0') * 10 + (p[1] - '0');
	return *ret_number <= max;
}

static bool
parse_date(const char *s, int64_t *ret_unix_s)
{
	static const int days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	int century, year, month, day, hour = 0, minute = 0;
	size_t n = strlen(s);
	if ((n != 10 && n != 17) || s[4] != '-' || s[7] != '-' || !two_digits(s, 99, &century) || !two_digits(s + 2, 99, &year) ||
	    !two_digits(s + 5, 12, &month) || !two_digits(s + 8, 31, &day))
		return false;
	if (n == 17 && (s[10] != 'T' || s[13] != ':' || s[16] != 'Z' || !two_digits(s + 11, 23, &hour) || !two_digits(s + 14, 59, &minute)))
		return false;
	year += century * 100;
	bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
	if (year < 2000 || month == 0 || day == 0 || day > days[month - 1] + (month == 2 && leap))
		return false;
	*ret_unix_s = sbx_price_date(year, month, day) + hour * 3600 + minute * 60;
	return true;
}

static void
read_date(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	char text[32];
	(void)f;
	sbx_read_fmt(value, text, sizeof text);
	if (!parse_date(text, at))
		sbx_read_error(r, value, "must be a day like \"2026-10-17\", or a minute like \"2026-10-17T16:00Z\"");
}

/* A day as text, to be shown. */
static void
read_day(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	char text[32];
	int64_t unix_s;
	sbx_read_fmt(value, text, sizeof text);
	if (strlen(text) == 10 && parse_date(text, &unix_s))
		sbx_read_text(r, f, value, at);
	else
		sbx_read_error(r, value, "must be a day like \"2026-10-17\"");
}

static bool
parse_zone(const char *s, struct sbx_price_zone *ret_zone)
{
	struct sbx_price_zone z = { 0, SBX_DST_NONE };
	int hour, minute;
	if (strncmp(s, "UTC", 3) != 0)
		return false;
	s += 3;
	if (*s == '+' || *s == '-') {
		if (strlen(s) < 6 || s[3] != ':' || !two_digits(s + 1, 14, &hour) || !two_digits(s + 4, 59, &minute))
			return false;
		z.offset_s = (*s == '-' ? -1 : 1) * (hour * 3600 + minute * 60);
		s += 6;
	}
	if (strcmp(s, "/EU") == 0)
		z.dst = SBX_DST_EU;
	else if (strcmp(s, "/US") == 0)
		z.dst = SBX_DST_US;
	else if (*s)
		return false;
	*ret_zone = z;
	return true;
}

static void
read_zone(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	char text[32];
	(void)f;
	sbx_read_fmt(value, text, sizeof text);
	if (!parse_zone(text, at))
		sbx_read_error(r, value, "must be \"UTC\", a distance like \"UTC+08:00\", or that with a daylight rule: \"UTC+01:00/EU\", \"UTC-05:00/US\"");
}

static bool
parse_hours(const char *s, struct sbx_price_window *w)
{
	int h[2], m[2];
	if (strlen(s) != 11 || s[2] != ':' || s[5] != '-' || s[8] != ':')
		return false;
	for (int i = 0; i < 2; i++)
		if (!two_digits(s + 6 * i, 24, &h[i]) || !two_digits(s + 6 * i + 3, 59, &m[i]) || h[i] * 60 + m[i] > 1440)
			return false;
	w->from_min = (uint16_t)(h[0] * 60 + m[0]);
	w->to_min = (uint16_t)(h[1] * 60 + m[1]);
	return w->from_min != w->to_min && w->from_min < 1440 && w->to_min > 0;
}

/* "mon-fri,sun" */
static void
read_weekdays(struct sbx_reader *r, const struct sbx_read_field *f, struct sbx_span value, void *at)
{
	static const char names[] = "montuewedthufrisatsun";
	char text[64];
	uint8_t mask = 0;
	bool ok = true;
	(void)f;
	sbx_read_fmt(value, text, sizeof text);
	for (const char *s = text; ok; s++) {
		int day[2] = { -1, -1 };
		for (int side = 0; side < 2; side++) {
			for (int i = 0; i < 7; i++)
				if (strncmp(s, names + 3 * i, 3) == 0)
					day[side] = i;
			s += day[side] < 0 ? 0 : 3;
			if (side == 0 && *s != '-') {
				day[1] = day[0];
				break;
			}
			s += side == 0;
		}
		ok = day[0] >= 0 && day[1] >= 0 && (*s == ',' || *s == '\0');
		for (int i = day[0]; ok; i = (i + 1) % 7) {
			mask = (uint8_t)(mask | 1u << i);
			if (i == day[1])
				break;
		}
		if (!ok || *s == '\0')
			break;
	}
	if (ok)
		*(uint8_t *)at = mask;
	else
		sbx_read_error(r, value, "must be days like \"mon-fri\" or \"sat,sun\"");
}

/* ==== what stands in the list ==== */

struct price_draft {
	int64_t nanousd[SBX_PRICE__COUNT];
	int64_t from_unix_s, until_unix_s, above_tokens;
	struct sbx_price_zone zone;
	struct sbx_span tiers, windows, hours;
	char *source, *read_on, *note;
	uint8_t weekdays;
};
#define X(name, key, otherwise)                                                                                                \
	{ key, read_price, offsetof(struct price_draft, nanousd) + SBX_PRICE_##name * sizeof(int64_t), 0,                      \
	  SBX_PRICE_##name == SBX_PRICE_REQUEST ? REQUEST_MAX_NANOUSD : TOKEN_MAX_NANOUSD, NULL },
#define AT(member) offsetof(struct price_draft, member)
static const struct sbx_read_field row_fields[] = {
	SBX_PRICE_KINDS(X)
	{ "from", read_date, AT(from_unix_s), 0, 0, NULL },
	{ "until", read_date, AT(until_unix_s), 0, 0, NULL },
	{ "zone", read_zone, AT(zone), 0, 0, NULL },
	{ "tiers", sbx_read_span, AT(tiers), 0, 0, NULL },
	{ "windows", sbx_read_span, AT(windows), 0, 0, NULL },
	{ "source", sbx_read_text, AT(source), 0, URL_MAX_BYTES, NULL },
	{ "read_on", read_day, AT(read_on), 0, 10, NULL },
	{ "note", sbx_read_text, AT(note), 0, NOTE_MAX_BYTES, NULL },
};
static const struct sbx_read_field tier_fields[] = {
	SBX_PRICE_KINDS(X)
	{ "above_input_tokens", sbx_read_i64, AT(above_tokens), 1, CONTEXT_MAX, NULL },
};
static const struct sbx_read_field window_fields[] = {
	SBX_PRICE_KINDS(X)
	{ "tiers", sbx_read_span, AT(tiers), 0, 0, NULL },
	{ "hours", sbx_read_span, AT(hours), 0, 0, NULL },
	{ "weekdays", read_weekdays, AT(weekdays), 0, 0, NULL },
};
#undef X
#undef AT

struct model_draft {
	char *model, *same_as;
	int64_t context, max_output;
	struct sbx_span supports, prices;
};
#define AT(member) offsetof(struct model_draft, member)
static const struct sbx_read_field model_fields[] = {
	{ "model", sbx_read_text, AT(model), 0, SBX_NAME_MAX_BYTES + SBX_MODEL_MAX_BYTES, NULL },
	{ "same_as", sbx_read_text, AT(same_as), 0, SBX_MODEL_MAX_BYTES, NULL },
	{ "context", sbx_read_i64, AT(context), 1, CONTEXT_MAX, NULL },
	{ "max_output", sbx_read_i64, AT(max_output), 1, CONTEXT_MAX, NULL },
	{ "supports", sbx_read_span, AT(supports), 0, 0, NULL },
	{ "prices", sbx_read_span, AT(prices), 0, 0, NULL },
};
#undef AT
static const char *const support_words[] = { "reasoning", "reasoning_by_default", "assistant_prefill", "function_calling", "vision",
                                             "response_schema", NULL }; /* in the order of the bits */
_Static_assert(SBX_MODEL_JSON_SCHEMA == 1 << 5, "the last word is the last bit");

/* ==== appending ==== */

static uint32_t
n_said(const struct sbx_catalog_build *b)
{
	return b->r.errors->n + b->r.errors->dropped;
}

/* Room for one more in an array that doubles. false: no memory, and it said so. */
static bool
grow(struct sbx_catalog_build *b, void **array, uint32_t n, uint32_t *cap, size_t size)
{
	if (n < *cap)
		return true;
	uint32_t more = *cap ? 2 * *cap : 64;
	void *grown = realloc(*array, more * size);
	if (!grown) {
		b->r.no_memory = true;
		return false;
	}
	*array = grown;
	*cap = more;
	return true;
}
#define GROW(b, array, count) grow((b), (void **)&(b)->c->facts.array, (b)->c->facts.count, &(b)->array##_cap, sizeof *(b)->c->facts.array)

static struct sbx_catalog_mark
mark_of(const struct sbx_catalog *c)
{
	return (struct sbx_catalog_mark){ c->facts.n_models, c->facts.n_rows, c->facts.n_windows, c->facts.n_tiers };
}

static bool
add_tier(struct sbx_catalog_build *b, int64_t above_tokens, const int64_t *nanousd)
{
	struct sbx_facts *f = &b->c->facts;
	if (!GROW(b, tier, n_tiers))
		return false;
	struct sbx_price_tier *t = &f->tier[f->n_tiers++];
	t->above_tokens = above_tokens;
	memcpy(t->nanousd, nanousd, sizeof t->nanousd);
	return true;
}

/* The first tier, whose prices are `nanousd`, and those of the list, which take from it what they do not name. */
static uint8_t
add_tiers(struct sbx_catalog_build *b, struct sbx_span tiers, const int64_t *nanousd)
{
	uint8_t n = add_tier(b, -1, nanousd) ? 1 : 0;
	int64_t last = 0;
	if (!tiers.n)
		return n;
	size_t outer = sbx_read_enter(&b->r, "tiers");
	if (sbx_json_type(tiers) != SBX_JSON_ARRAY)
		sbx_read_error(&b->r, tiers, "must be an array");
	struct sbx_json_iter it = sbx_json_array_iter(tiers);
	struct sbx_span value;
	while (n && sbx_json_array_next(&it, &value)) {
		struct price_draft d = { .above_tokens = 0 };
		memcpy(d.nanousd, nanousd, sizeof d.nanousd);
		sbx_read_object(&b->r, value, tier_fields, N(tier_fields), &d);
		if (d.above_tokens == 0)
			sbx_read_error(&b->r, value, "needs \"above_input_tokens\"");
		else if (d.above_tokens <= last)
			sbx_read_error(&b->r, value, "tiers overlap: above %" PRId64 " comes after above %" PRId64, d.above_tokens, last);
		else if (n == SBX_PRICE_TIERS_MAX)
			sbx_read_error(&b->r, value, "more than %d tiers", SBX_PRICE_TIERS_MAX);
		else if (add_tier(b, d.above_tokens, d.nanousd))
			n++;
		last = d.above_tokens;
		if (n == SBX_PRICE_TIERS_MAX && d.above_tokens == 0)
			break;
	}
	sbx_read_leave(&b->r, outer);
	return n;
}

/* ==== windows ==== */

#define WEEK_MIN (7 * 1440)

/* Do two windows of a week have a minute in common? */
static bool
windows_overlap(const struct sbx_price_window *a, const struct sbx_price_window *b)
{
	int long_a = (a->to_min - a->from_min + 1440 - 1) % 1440 + 1, long_b = (b->to_min - b->from_min + 1440 - 1) % 1440 + 1;
	for (int i = 0; i < 7; i++)
		for (int k = 0; k < 7; k++) {
			int from_a = i * 1440 + a->from_min, from_b = k * 1440 + b->from_min;
			if (!(a->weekdays >> i & 1) || !(b->weekdays >> k & 1))
				continue;
			/* Each begins within the other, seen round the week. */
			if ((from_b - from_a + WEEK_MIN) % WEEK_MIN < long_a || (from_a - from_b + WEEK_MIN) % WEEK_MIN < long_b)
				return true;
		}
	return false;
}

/* Each of its hours is a window of the row, all with the same tiers. */
static void
add_windows(struct sbx_catalog_build *b, struct sbx_price_row *row, const struct price_draft *of_row, struct sbx_span value)
{
	struct sbx_facts *f = &b->c->facts;
	struct price_draft d = { .weekdays = 0x7f };
	memcpy(d.nanousd, of_row->nanousd, sizeof d.nanousd);
	sbx_read_object(&b->r, value, window_fields, N(window_fields), &d);
	if (of_row->tiers.n && !d.tiers.n)
		sbx_read_error(&b->r, value, "needs \"tiers\": its row has some");
	struct sbx_price_window w = { .weekdays = d.weekdays, .first_tier = f->n_tiers };
	w.n_tiers = add_tiers(b, d.tiers, d.nanousd);
	if (sbx_json_type(d.hours) != SBX_JSON_ARRAY)
		sbx_read_error(&b->r, value, "needs \"hours\": [\"22:30-06:00\"]");
	struct sbx_json_iter it = sbx_json_array_iter(d.hours);
	struct sbx_span hours;
	while (sbx_json_array_next(&it, &hours)) {
		char text[32];
		sbx_read_fmt(hours, text, sizeof text);
		if (!parse_hours(text, &w)) {
			sbx_read_error(&b->r, hours, "must be hours like \"09:00-18:00\"; the end may be on the next day, and the last one is 24:00");
			continue;
		}
		for (uint32_t i = 0; i < row->n_windows; i++)
			if (windows_overlap(&w, &f->window[row->first_window + i]))
				sbx_read_error(&b->r, hours, "overlaps another window of this row");
		if (row->n_windows == SBX_PRICE_WINDOWS_MAX) {
			sbx_read_error(&b->r, hours, "more than %d windows", SBX_PRICE_WINDOWS_MAX);
			return;
		}
		if (!GROW(b, window, n_windows))
			return;
		f->window[f->n_windows++] = w;
		row->n_windows++;
	}
}

/* ==== rows ==== */

static void
read_row(struct sbx_catalog_build *b, struct sbx_model *m, struct sbx_span value)
{
	struct sbx_facts *f = &b->c->facts;
	struct sbx_catalog_mark mark = mark_of(b->c);
	uint32_t said = n_said(b);
	struct price_draft d = { .from_unix_s = INT64_MIN, .until_unix_s = SBX_PRICE_FOREVER };
	bool priced = false;
	for (int kind = 0; kind < SBX_PRICE__COUNT; kind++)
		d.nanousd[kind] = SBX_PRICE_NONE;
	sbx_read_object(&b->r, value, row_fields, N(row_fields), &d);
	for (int kind = 0; kind < SBX_PRICE__COUNT; kind++)
		priced |= d.nanousd[kind] != SBX_PRICE_NONE;
	free(d.note); /* for those who read the file */
	if (n_said(b) == said) {
		if (!priced)
			sbx_read_error(&b->r, value, "has no price in it");
		if (d.from_unix_s == INT64_MIN)
			sbx_read_error(&b->r, value, "needs \"from\", the day since which these prices are known to be valid");
		else if (d.from_unix_s >= d.until_unix_s)
			sbx_read_error(&b->r, value, "ends before it begins");
		if (!d.source || !d.read_on)
			sbx_read_error(&b->r, value, "needs \"source\" and \"read_on\": where and when the prices were read");
	}
	for (uint32_t i = m->first_row; i < f->n_rows && n_said(b) == said; i++)
		if (d.from_unix_s < f->row[i].until_unix_s && f->row[i].from_unix_s < d.until_unix_s)
			sbx_read_error(&b->r, value, "overlaps the prices %s", f->row[i].id);
	if (f->n_rows - m->first_row == SBX_MODEL_ROWS_MAX)
		sbx_read_error(&b->r, value, "more than %d price rows", SBX_MODEL_ROWS_MAX);

	struct sbx_price_row row = { .from_unix_s = d.from_unix_s, .until_unix_s = d.until_unix_s, .zone = d.zone, .source = d.source,
		                     .read_on = d.read_on, .first_tier = f->n_tiers };
	row.n_tiers = add_tiers(b, d.tiers, d.nanousd);
	row.first_window = f->n_windows;
	if (d.windows.n) {
		size_t outer = sbx_read_enter(&b->r, "windows");
		struct sbx_json_iter it = sbx_json_array_iter(d.windows);
		struct sbx_span window;
		if (sbx_json_type(d.windows) != SBX_JSON_ARRAY)
			sbx_read_error(&b->r, d.windows, "must be an array");
		while (sbx_json_array_next(&it, &window))
			add_windows(b, &row, &d, window);
		sbx_read_leave(&b->r, outer);
	}
	struct sbx_span from;
	char day[32] = "";
	if (sbx_json_get(value, "from", &from))
		sbx_read_fmt(from, day, sizeof day);
	if (asprintf(&row.id, "%s@%s", m->name, day) < 0) {
		row.id = NULL;
		b->r.no_memory = true;
	}
	if (n_said(b) == said && row.id && GROW(b, row, n_rows)) {
		f->row[f->n_rows++] = row;
		return;
	}
	free(row.id);
	free(row.source);
	free(row.read_on);
	sbx_catalog_cut(b->c, mark);
	b->c->n_refused++;
}

static int
by_date(const void *a, const void *b)
{
	int64_t da = ((const struct sbx_price_row *)a)->from_unix_s, db = ((const struct sbx_price_row *)b)->from_unix_s;
	return (da > db) - (da < db);
}

static void
read_rows(struct sbx_catalog_build *b, struct sbx_model *m, struct sbx_span prices)
{
	struct sbx_facts *f = &b->c->facts;
	struct sbx_json_iter it = sbx_json_array_iter(prices);
	struct sbx_span value;
	char place[32];
	m->first_row = f->n_rows;
	for (uint32_t i = 0; !b->r.no_memory && sbx_json_array_next(&it, &value); i++) {
		(void)snprintf(place, sizeof place, "prices[%u]", i);
		size_t mark = sbx_read_enter(&b->r, place);
		read_row(b, m, value);
		sbx_read_leave(&b->r, mark);
	}
	m->n_rows = f->n_rows - m->first_row;
	if (m->n_rows)
		qsort(&f->row[m->first_row], m->n_rows, sizeof *f->row, by_date);
}

/* ==== the model ==== */

static uint32_t
read_supports(struct sbx_catalog_build *b, struct sbx_span supports)
{
	uint32_t caps = 0;
	if (!supports.n)
		return 0;
	size_t mark = sbx_read_enter(&b->r, "supports");
	if (sbx_json_type(supports) != SBX_JSON_ARRAY)
		sbx_read_error(&b->r, supports, "must be an array");
	struct sbx_json_iter it = sbx_json_array_iter(supports);
	struct sbx_span value;
	const struct sbx_read_field words = { .words = support_words };
	while (sbx_json_array_next(&it, &value)) {
		int i = -1;
		sbx_read_choice(&b->r, &words, value, &i);
		if (i >= 0)
			caps |= 1u << i;
	}
	sbx_read_leave(&b->r, mark);
	return caps & SBX_MODEL_REASONS ? caps | SBX_MODEL_REASONING : caps;
}

static bool
name_ok(const char *name, const char *slash)
{
	size_t provider = slash ? (size_t)(slash - name) : 0;
	return provider > 0 && provider < SBX_NAME_MAX_BYTES && slash[1] && strlen(slash + 1) <= SBX_MODEL_MAX_BYTES;
}

/* Index of the model of that name; n_models when there is none. */
static uint32_t
find_name(const struct sbx_facts *f, const char *name)
{
	uint32_t i = 0;
	while (i < f->n_models && strcmp(f->model[i].name, name) != 0)
		i++;
	return i;
}

void
sbx_catalog_read_model(struct sbx_catalog_build *b, struct sbx_span block)
{
	struct sbx_facts *f = &b->c->facts;
	struct model_draft d = { .model = NULL };
	uint32_t said = n_said(b);
	if (b->r.no_memory)
		return;
	sbx_read_object(&b->r, block, model_fields, N(model_fields), &d);
	const char *slash = d.model ? strchr(d.model, '/') : NULL;
	uint32_t before = d.model ? find_name(f, d.model) : f->n_models;
	if (before < b->n_before) /* said by an earlier list */
		goto out;
	struct sbx_model m = { .caps = read_supports(b, d.supports), .says_caps = d.supports.n > 0, .context_tokens = d.context, .max_output_tokens = d.max_output };
	if (n_said(b) == said) {
		if (!d.model || !name_ok(d.model, slash))
			sbx_read_error(&b->r, block, "needs \"model\": \"provider/model\"");
		else if (before < f->n_models)
			sbx_read_error(&b->r, block, "the model \"%s\" is in this list already", d.model);
		else if (d.prices.n && sbx_json_type(d.prices) != SBX_JSON_ARRAY)
			sbx_read_error(&b->r, d.prices, "\"prices\" must be an array");
		else if (f->n_models == SBX_MODELS_MAX)
			sbx_read_error(&b->r, block, "more than %d models", SBX_MODELS_MAX);
	}
	if (n_said(b) != said) {
		b->c->n_refused++;
		goto out;
	}
	if (!GROW(b, model, n_models))
		goto out;
	m.name = d.model;
	m.model = d.model + (slash - d.model) + 1;
	m.provider_bytes = (uint32_t)(slash - d.model);
	m.same_as = d.same_as;
	d.model = d.same_as = NULL;
	read_rows(b, &m, d.prices);
	f->model[f->n_models++] = m;
out:
	free(d.model);
	free(d.same_as);
}
