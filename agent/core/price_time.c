/* SPDX-License-Identifier: Apache-2.0 */
/*
 * price_time.c -- see price.h: which prices are in force at an instant, and when the next others are.
 *
 * A window is asked of the local time of an instant, never the other way round: an hour that does not exist in spring is in no
 * window, one that exists twice in autumn is twice in it. The next change is found among the instants at which anything can
 * change (bounds of windows on the days around, changes of the clock, the row's end) by asking each of them in turn.
 */
#include "agent/core/price.h"

#define MINUTE_S 60
#define HOUR_S 3600
#define DAY_S 86400
#define WEEK_DAYS 7

/* ---- days and daylight ---- */

static int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

/* Days since 1970-01-01 of a day of the Gregorian calendar: years begin in March, so that the leap day ends one. */
static int64_t
day_of_date(int64_t year, int month, int day)
{
	year -= month <= 2;
	int64_t era = floor_div(year, 400), y = year - era * 400;
	int64_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
	return era * 146097 + y * 365 + y / 4 - y / 100 + of_year - 719468;
}

int64_t
sbx_price_date(int64_t year, int month, int day)
{
	return day_of_date(year, month, day) * DAY_S;
}

static int64_t
year_of_day(int64_t day)
{
	int64_t z = day + 719468, era = floor_div(z, 146097), d = z - era * 146097;
	int64_t y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
	int64_t of_year = d - (365 * y + y / 4 - y / 100);
	return y + era * 400 + (of_year >= 306); /* January and February belong to the next */
}

static int
weekday_of_day(int64_t day) /* Monday is 0; 1970-01-01 was a Thursday */
{
	return (int)(day + 3 - WEEK_DAYS * floor_div(day + 3, WEEK_DAYS));
}

/* The n-th Sunday of a month, or with n = 0 the last one before `month` begins. */
static int64_t
sunday(int64_t year, int month, int n)
{
	int64_t first = day_of_date(year, month, 1);
	return first + (6 - weekday_of_day(first)) + WEEK_DAYS * (n - 1);
}

/* The year's two changes of the clock, as instants. */
static void
dst_of_year(const struct sbx_price_zone *z, int64_t year, int64_t *ret_begin, int64_t *ret_end)
{
	if (z->dst == SBX_DST_EU) { /* last Sundays of March and October, everywhere at 01:00 UTC */
		*ret_begin = sunday(year, 4, 0) * DAY_S + HOUR_S;
		*ret_end = sunday(year, 11, 0) * DAY_S + HOUR_S;
	} else { /* second Sunday of March at 2 standard time, first of November at 2 daylight time */
		*ret_begin = sunday(year, 3, 2) * DAY_S + 2 * HOUR_S - z->offset_s;
		*ret_end = sunday(year, 11, 1) * DAY_S + HOUR_S - z->offset_s;
	}
}

/* What a clock on the wall there shows, as if it were UTC. */
static int64_t
local_of(const struct sbx_price_zone *z, int64_t unix_s)
{
	int64_t begin, end;
	if (z->dst == SBX_DST_NONE)
		return unix_s + z->offset_s;
	dst_of_year(z, year_of_day(floor_div(unix_s, DAY_S)), &begin, &end);
	return unix_s + z->offset_s + (unix_s >= begin && unix_s < end ? HOUR_S : 0);
}

/* ---- windows ---- */

static bool
window_holds(const struct sbx_price_window *w, int weekday, int minute)
{
	int before = (weekday + WEEK_DAYS - 1) % WEEK_DAYS;
	bool today = (w->weekdays >> weekday) & 1, yesterday = (w->weekdays >> before) & 1;
	if (w->from_min < w->to_min)
		return today && minute >= w->from_min && minute < w->to_min;
	return (today && minute >= w->from_min) || (yesterday && minute < w->to_min);
}

/* The tiers in force within a row: its own, or those of the window that holds. */
static void
tiers_at(const struct sbx_facts *facts, const struct sbx_price_row *row, int64_t unix_s, uint32_t *ret_first, uint32_t *ret_n)
{
	*ret_first = row->first_tier;
	*ret_n = row->n_tiers;
	if (row->n_windows == 0)
		return;
	int64_t local = local_of(&row->zone, unix_s), day = floor_div(local, DAY_S);
	int minute = (int)((local - day * DAY_S) / MINUTE_S);
	for (uint32_t i = 0; i < row->n_windows; i++) {
		const struct sbx_price_window *w = &facts->window[row->first_window + i];
		if (window_holds(w, weekday_of_day(day), minute)) {
			*ret_first = w->first_tier;
			*ret_n = w->n_tiers;
			return;
		}
	}
}

static const struct sbx_price_row *
row_at(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s)
{
	for (uint32_t i = 0; m && i < m->n_rows; i++) {
		const struct sbx_price_row *row = &facts->row[m->first_row + i];
		if (unix_s >= row->from_unix_s && unix_s < row->until_unix_s)
			return row;
	}
	return NULL;
}

bool
sbx_price_at(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s, struct sbx_price *ret_price)
{
	const struct sbx_price_row *row = row_at(facts, m, unix_s);
	uint32_t first, n;
	if (!row)
		return false;
	tiers_at(facts, row, unix_s, &first, &n);
	*ret_price = (struct sbx_price){ row, &facts->tier[first], n };
	return true;
}

/* ---- the next change ---- */

static void
take_earlier(int64_t candidate, int64_t after, int64_t *earliest)
{
	if (candidate > after && candidate < *earliest)
		*earliest = candidate;
}

/* The next instant after `after` at which the windows of a row may change; SBX_PRICE_FOREVER within the next week: never. */
static int64_t
next_bound(const struct sbx_facts *facts, const struct sbx_price_row *row, int64_t after)
{
	int64_t next = SBX_PRICE_FOREVER, today = floor_div(after + row->zone.offset_s, DAY_S);
	int64_t summer = row->zone.dst == SBX_DST_NONE ? 0 : HOUR_S;
	for (uint32_t i = 0; i < row->n_windows; i++) {
		const struct sbx_price_window *w = &facts->window[row->first_window + i];
		for (int64_t day = today - 1; day <= today + WEEK_DAYS + 1; day++) {
			int64_t midnight = day * DAY_S - row->zone.offset_s;
			take_earlier(midnight + w->from_min * MINUTE_S, after, &next);
			take_earlier(midnight + w->to_min * MINUTE_S, after, &next);
			take_earlier(midnight + w->from_min * MINUTE_S - summer, after, &next);
			take_earlier(midnight + w->to_min * MINUTE_S - summer, after, &next);
		}
	}
	if (summer && row->n_windows) {
		int64_t year = year_of_day(floor_div(after, DAY_S)), begin, end;
		for (int64_t y = year; y <= year + 1; y++) {
			dst_of_year(&row->zone, y, &begin, &end);
			take_earlier(begin, after, &next);
			take_earlier(end, after, &next);
		}
	}
	return next;
}

int64_t
sbx_price_next_change(const struct sbx_facts *facts, const struct sbx_model *m, int64_t unix_s)
{
	const struct sbx_price_row *row = row_at(facts, m, unix_s);
	int64_t next = SBX_PRICE_FOREVER;
	if (!row) {
		for (uint32_t i = 0; m && i < m->n_rows; i++)
			take_earlier(facts->row[m->first_row + i].from_unix_s, unix_s, &next);
		return next;
	}
	uint32_t now, then, n;
	tiers_at(facts, row, unix_s, &now, &n);
	/* Two weeks show everything that repeats, also what the change of the clock skips once. */
	for (next = next_bound(facts, row, unix_s); next < row->until_unix_s && next <= unix_s + (2 * WEEK_DAYS + 1) * DAY_S;
	     next = next_bound(facts, row, next)) {
		tiers_at(facts, row, next, &then, &n);
		if (then != now)
			return next;
	}
	return row->until_unix_s;
}
