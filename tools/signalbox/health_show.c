/* SPDX-License-Identifier: Apache-2.0 */
/* health_show.c -- the facts as a table for people: the agent, the targets, the keys that are shut. See health.h. */
#include "tools/signalbox/health.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* ---- the agent ---- */

static void
show_agent(const struct health *h, const struct term *to)
{
	const struct facts *f = h->facts;
	const bool takes = agent_takes_requests(f->agent);
	char text[32];
	term_say(to, STYLE_BOLD, "signalboxd ");
	term_say(to, f->agent == AGENT_SERVING ? STYLE_GOOD : takes ? STYLE_WARN : STYLE_BAD, "%s", agent_word(f->agent));
	if (f->board) {
		fmt_duration(text, sizeof text, ms_between(f->info.agent_start_boot_ns, f->now_boot_ns));
		term_say(to, STYLE_PLAIN, "  pid %lld, %s %s%s; ", (long long)f->info.agent_pid, takes ? "up" : "started", text, takes ? "" : " ago");
		fmt_duration(text, sizeof text, f->age_ms);
		term_say(to, takes ? STYLE_PLAIN : STYLE_BOLD, "facts of %s ago", text);
	}
	(void)putc('\n', to->file);
	if (f->snapshot_path[0])
		term_say(to, STYLE_PLAIN, "from its snapshot %s\n", f->snapshot_path);
	if (f->says[0])
		term_say(to, STYLE_DIM, "%s\n", f->says);
	if (!f->board && takes)
		term_say(to, STYLE_PLAIN, "it shares no memory with this process; `signalbox status` asks it\n");
}

/* "9 targets: 7 up, 1 throttled, 1 down" */
static void
show_sum(const struct health *h, const struct term *to)
{
	const char *before = ": ";
	term_say(to, STYLE_PLAIN, "%zu target%s", h->n_rows, h->n_rows == 1 ? "" : "s");
	for (int k = 0; k < HEALTH__COUNT; k++) {
		if (!h->n_in[k])
			continue;
		term_say(to, STYLE_PLAIN, "%s", before);
		term_say(to, health_style(k), "%zu %s", h->n_in[k], health_word(k));
		before = ", ";
	}
	(void)fputs("\n\n", to->file);
}

/* ---- the targets ---- */

/* In what order columns go where there is no room: the highest number first. */
static const struct {
	const char *head;
	uint8_t rank;
} columns[] = {
	{ "target", 0 },        { "state", 0 },      { ">for", 4 },
	{ ">in|flight", 5 },    { ">error|rate", 1 },
	{ ">first|p50", 1 },    { ">first|p95", 8 }, { ">first|p99", 6 },
	{ ">total|p50", 2 },    { ">total|p95", 8 }, { ">total|p99", 7 },
	{ ">USD/M|in", 3 },     { ">USD/M|out", 3 },
	{ "why, and what next", 9 },
};
#define N_COLUMNS (sizeof columns / sizeof columns[0])
_Static_assert(N_COLUMNS < TABLE_COLUMNS_MAX, "and a NULL");

static void
cell_times(struct table *t, const struct sbx_times *times)
{
	const uint64_t ns[] = { times->p50_ns, times->p95_ns, times->p99_ns };
	char text[32];
	for (size_t i = 0; i < 3; i++) {
		fmt_latency(text, sizeof text, times->n ? ms_up(ns[i]) : 0);
		table_cell(t, "%s", text);
	}
}

static void
cell_price(struct table *t, int64_t nanousd_per_million)
{
	char text[48];
	fmt_price(text, sizeof text, nanousd_per_million);
	table_cell(t, "%s", text);
}

/* "tried again in 12 s"; "" where time alone mends nothing. */
static void
fmt_until(char *to, size_t room, const char *what, uint64_t until_boot_ns, uint64_t now_boot_ns)
{
	char text[32];
	to[0] = 0;
	if (until_boot_ns == UINT64_MAX || until_boot_ns == 0)
		return;
	fmt_duration(text, sizeof text, ms_between(now_boot_ns, until_boot_ns));
	(void)snprintf(to, room, "%s %s", what, text);
}

/* Why it is not up, and when that may end. */
static void
fmt_reason(char *to, size_t room, const struct health_row *row, uint64_t now_boot_ns)
{
	const struct sbx_target_view *v = &row->view;
	const char *why = "";
	char until[64] = "";
	switch (row->state) {
	case HEALTH_UP:
		break;
	case HEALTH_TRIAL:
		why = v->why;
		(void)snprintf(until, sizeof until, "the next request tries it");
		break;
	case HEALTH_PROBING:
		why = v->why;
		(void)snprintf(until, sizeof until, "its trial runs");
		break;
	case HEALTH_THROTTLED:
		fmt_until(until, sizeof until, "rate limit, for", v->until_boot_ns, now_boot_ns);
		break;
	case HEALTH_DOWN:
	case HEALTH_MISCONFIGURED:
		why = v->why;
		if (v->until_boot_ns <= now_boot_ns)
			(void)snprintf(until, sizeof until, "the next request tries it");
		else
			fmt_until(until, sizeof until, "tried again in", v->until_boot_ns, now_boot_ns);
		break;
	case HEALTH_SHUT:
		why = "the keys of its provider are refused";
		fmt_until(until, sizeof until, "tried again in", v->until_boot_ns, now_boot_ns);
		break;
	case HEALTH_NO_KEY:
		why = "none of its provider's keys was found";
		break;
	case HEALTH_UNKNOWN:
	case HEALTH__COUNT:
		why = "its row is half written";
		break;
	}
	(void)snprintf(to, room, "%s%s%s", why, *why && until[0] ? "; " : "", until);
}

/* "in 5 h 0.135 in, 0.55 out" */
static void
fmt_next_price(char *to, size_t room, const struct sbx_target_view *v)
{
	const int64_t now_s = (int64_t)time(NULL), at_s = (int64_t)v->price_change_unix_s;
	char when[32], in[48], out[48];
	to[0] = 0;
	if (at_s <= 0)
		return;
	fmt_duration(when, sizeof when, at_s > now_s ? (at_s - now_s) * 1000 : 0);
	fmt_price(in, sizeof in, v->price_in_after);
	fmt_price(out, sizeof out, v->price_out_after);
	(void)snprintf(to, room, "price in %s: %s in, %s out", when, in, out);
}

static void
show_targets(const struct health *h, const struct term *to, size_t width)
{
	const uint64_t now_boot_ns = h->facts->now_boot_ns;
	const char *head[N_COLUMNS + 1] = { NULL };
	uint8_t rank[N_COLUMNS];
	struct table t;
	for (size_t k = 0; k < N_COLUMNS; k++) {
		head[k] = columns[k].head;
		rank[k] = columns[k].rank;
	}
	table_init(&t, head);
	for (size_t i = 0; i < h->n_rows; i++) {
		const struct health_row *row = &h->row[i];
		const int64_t bad = health_permille_bad(&row->view);
		char since[32] = "-", reason[160], next[160];
		if (row->has_since)
			fmt_duration(since, sizeof since, ms_between(row->view.since_boot_ns, now_boot_ns));
		fmt_reason(reason, sizeof reason, row, now_boot_ns);
		fmt_next_price(next, sizeof next, &row->view);
		table_row(&t, health_style(row->state));
		table_cell(&t, "%s", row->view.name);
		table_cell(&t, "%s", health_word(row->state));
		table_cell(&t, "%s", since);
		table_cell(&t, "%llu", (unsigned long long)row->view.in_flight);
		table_cell(&t, bad < 0 ? "-" : bad > 0 && bad < 100 ? "%lld.%lld %%" : "%lld %%", (long long)(bad / 10), (long long)(bad % 10));
		cell_times(&t, &row->view.first_content);
		cell_times(&t, &row->view.total);
		cell_price(&t, row->view.price_in);
		cell_price(&t, row->view.price_out);
		table_cell(&t, "%s%s%s", reason, reason[0] && next[0] ? "; " : "", next);
	}
	table_fit(&t, rank, width);
	table_print(&t, to);
	table_fini(&t);
}

/* ---- the keys ---- */

static void
show_keys(const struct health *h, const struct term *to, size_t width)
{
	static const char *const head[] = { "provider", "key", "shut for", "why, and what next", NULL };
	static const uint8_t rank[] = { 0, 0, 1, 2 };
	const uint64_t now_boot_ns = h->facts->now_boot_ns;
	struct table t;
	table_init(&t, head);
	for (size_t i = 0; i < h->n_keys; i++) {
		const struct sbx_credential_view *key = &h->key[i];
		char since[32] = "-", until[64];
		if (key->since_boot_ns)
			fmt_duration(since, sizeof since, ms_between(key->since_boot_ns, now_boot_ns));
		if (key->shut_until_boot_ns == UINT64_MAX)
			(void)snprintf(until, sizeof until, "its trial runs");
		else if (key->shut_until_boot_ns <= now_boot_ns)
			(void)snprintf(until, sizeof until, "the next request tries it");
		else
			fmt_until(until, sizeof until, "tried again in", key->shut_until_boot_ns, now_boot_ns);
		table_row(&t, STYLE_BAD);
		table_cell(&t, "%s", key->provider);
		table_cell(&t, "%s", key->source);
		table_cell(&t, "%s", since);
		table_cell(&t, "%s%s%s", key->why, *key->why && until[0] ? "; " : "", until);
	}
	table_fit(&t, rank, width);
	table_print(&t, to);
	table_fini(&t);
}

void
health_show(const struct health *h, const struct term *to, bool wide)
{
	size_t width = SIZE_MAX, lines;
	if (!wide)
		term_size(to, &width, &lines);
	show_agent(h, to);
	if (!h->facts->board)
		return;
	show_sum(h, to);
	if (h->n_rows)
		show_targets(h, to, width);
	if (h->n_keys) {
		(void)putc('\n', to->file);
		show_keys(h, to, width);
	}
}
