/* SPDX-License-Identifier: Apache-2.0 */
/*
 * stats.c -- `signalbox stats`: what was asked, used and paid in a span of time, from the agent's store.
 *
 * The library flattens the reply: "total.attempts", "row.openai/gpt-5.2.attempts". A row's name may hold dots, the name of a
 * figure never does, so the last dot parts them; the figures of a row stand together.
 */
#include "tools/signalbox/cli.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_TIMEOUT_MS 10000 /* the agent gives a report up after 2 s; others may stand before it */
#define SINCE_DEFAULT "24h"

static const char help[] =
	"usage: signalbox stats [--since TIME] [--until TIME] [--by WHAT] [--json] [--socket PATH]\n"
	"Show what the agent's store has of attempts that ended in a span of time: counts, tokens, cost, mean times.\n"
	"\n"
	"      --since TIME    from then on (default: " SINCE_DEFAULT "); all = from the first\n"
	"      --until TIME    up to then (default: now)\n"
	"      --by WHAT       a line for each target, model, class, route or user (default: target)\n"
	"      --json          one JSON object; costs in nano-USD, absent where no price is known\n"
	"      --socket PATH   the agent's socket (default: $SIGNALBOX_SOCKET, $XDG_RUNTIME_DIR/signalbox/agent.sock,\n"
	"                      /run/signalbox/agent.sock)\n"
	"  -h, --help\n"
	"\n"
	"TIME: 90s, 30m, 24h, 7d, 4w ago; or a day or minute of UTC: 2026-03-01, 2026-03-01T14:30\n"
	"an attempt is one call to a provider; a request has several where it failed over. wasted: no client got an answer by it.\n"
	"exit codes: 0 shown; 1 there is no store, or it cannot be read; 2 the agent is not reachable; 64 wrong arguments; 130 interrupted\n"
	"\n"
	"example:\n"
	"  signalbox stats --since 7d --by model\n";

/* ---- arguments ---- */

static bool
parse_time(const char *text, uint64_t now_ms, uint64_t *ret_ms)
{
	uint64_t ago_ms;
	if (strcmp(text, "all") == 0) {
		*ret_ms = 0;
		return true;
	}
	if (!parse_span(text, &ago_ms))
		return parse_date(text, ret_ms);
	*ret_ms = ago_ms < now_ms ? now_ms - ago_ms : 0;
	return true;
}

/* ---- the fields of a reply ---- */

#define FIGURES(X)                                                                                                             \
	X(attempts) X(ok) X(wasted) X(unpriced) X(cost_nanousd) X(prompt_tokens) X(completion_tokens) X(cached_tokens)         \
	X(first_content_mean_ms) X(total_mean_ms)

struct row {
	const char *name; /* borrowed from the reply; name_bytes long */
	size_t name_bytes;
	int64_t attempts, ok, wasted, unpriced, cost_nanousd, prompt_tokens, completion_tokens, cached_tokens;
	int64_t first_content_mean_ms, total_mean_ms; /* -1 = none; cost_nanousd as well */
};

static void
take_figure(struct row *r, const char *figure, int64_t number)
{
	const struct {
		const char *name;
		int64_t *to;
	} numbers[] = {
#define X(member) { #member, &r->member },
		FIGURES(X)
#undef X
	};
	for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
		if (strcmp(figure, numbers[i].name) == 0)
			*numbers[i].to = number;
}

/* Calls `on` for each row, the total last. */
static void
each_row(const struct sbx_reply *reply, void (*on)(void *arg, const struct row *r), void *arg)
{
	const struct row none = { .cost_nanousd = -1, .first_content_mean_ms = -1, .total_mean_ms = -1 };
	struct row r = none, total = none;
	const char *field, *text;
	int64_t number;
	for (uint32_t i = 0; sbx_reply_field(reply, i, &field, &text, &number); i++) {
		const char *dot = strrchr(field, '.');
		if (!dot || text)
			continue;
		if (strncmp(field, "total.", 6) == 0) {
			take_figure(&total, dot + 1, number);
		} else if (strncmp(field, "row.", 4) == 0 && dot >= field + 4) {
			const char *name = field + 4;
			size_t n = (size_t)(dot - name);
			if (!r.name || n != r.name_bytes || memcmp(name, r.name, n) != 0) {
				if (r.name)
					on(arg, &r);
				r = none;
				r.name = name;
				r.name_bytes = n;
			}
			take_figure(&r, dot + 1, number);
		}
	}
	if (r.name)
		on(arg, &r);
	total.name = NULL;
	on(arg, &total);
}

/* ---- for people ---- */

static void
cell_ms(struct table *t, int64_t ms)
{
	if (ms < 0)
		table_cell(t, "-");
	else if (ms < 10000)
		table_cell(t, "%lld ms", (long long)ms);
	else
		table_cell(t, "%lld.%lld s", (long long)(ms / 1000), (long long)(ms % 1000 / 100));
}

/* In USD with six decimals, rounded up as bills are; what is not known is not 0. */
static void
cell_cost(struct table *t, const struct row *r)
{
	if (r->cost_nanousd < 0) {
		table_cell(t, "unpriced");
		return;
	}
	int64_t micro = r->cost_nanousd / 1000 + (r->cost_nanousd % 1000 != 0);
	table_cell(t, "%s%lld.%06lld", r->unpriced ? ">= " : "", (long long)(micro / 1000000), (long long)(micro % 1000000));
}

static void
on_row(void *arg, const struct row *r)
{
	struct table *t = arg;
	table_row(t, !r->name ? STYLE_BOLD : r->ok == 0 ? STYLE_WARN : STYLE_PLAIN);
	if (!r->name)
		table_cell(t, "total");
	else if (!r->name_bytes)
		table_cell(t, "(none)");
	else
		table_cell(t, "%.*s", (int)r->name_bytes, r->name);
	table_cell(t, "%lld", (long long)r->attempts);
	if (r->attempts > 0)
		table_cell(t, "%.1f", 100.0 * (double)r->ok / (double)r->attempts);
	else
		table_cell(t, "-");
	table_cell(t, "%lld", (long long)r->wasted);
	table_cell(t, "%lld", (long long)r->prompt_tokens);
	table_cell(t, "%lld", (long long)r->cached_tokens);
	table_cell(t, "%lld", (long long)r->completion_tokens);
	cell_ms(t, r->first_content_mean_ms);
	cell_ms(t, r->total_mean_ms);
	cell_cost(t, r);
}

static void
show_table(const struct term *out, const struct sbx_reply *reply, const char *by)
{
	const char *const head[] = { by, ">attempts", ">ok %", ">wasted", ">tokens in", ">cached", ">tokens out", ">first content", ">total", ">USD", NULL };
	struct table t;
	int64_t left_out = 0;
	table_init(&t, head);
	each_row(reply, on_row, &t);
	table_print(&t, out);
	table_fini(&t);
	if (sbx_reply_number(reply, "left_out", &left_out) && left_out > 0)
		term_say(out, STYLE_DIM, "%lld more, with fewer attempts, are only in the total\n", (long long)left_out);
}

/* ---- for programs ---- */

static void
show_json(const struct sbx_reply *reply)
{
	json_t *root = must(json_object());
	(void)json_object_set_new(root, "row", must(json_object()));
	json_add_fields(root, reply);
	json_print_line(root);
	json_decref(root);
}

/* ---- the command ---- */

static int
run(const char *socket, const struct sbx_report_options *o, bool json)
{
	const struct term out = term_of(stdout);
	struct sbx_client *c = NULL;
	struct sbx_event ev;
	uint64_t id;
	interrupt_init();
	int status = agent_open(socket, false, &c);
	if (status != CLI_OK)
		return status;
	int rc = sbx_report(c, o, &id);
	if (rc == 0)
		rc = agent_next(c, ANSWER_TIMEOUT_MS, true, &ev);
	if (rc == AGENT_INTERRUPTED) {
		status = CLI_SIGNAL + interrupt_signal();
	} else if (rc) {
		(void)fprintf(stderr, "signalbox: %s\n",
		              rc == -SBX_ETIME ? "the agent accepted, but does not answer: it hangs, or is stopped" : sbx_client_error(c));
		status = CLI_NO_AGENT;
	} else if (ev.note != SBX_NOTE_STATS) {
		(void)fprintf(stderr, "signalbox: %s\n", sbx_reply_message(ev.reply));
		status = sbx_reply_code(ev.reply) == SBX_CODE_AGENT_LOST ? CLI_NO_AGENT : CLI_FAILED;
	} else if (json) {
		show_json(ev.reply);
	} else {
		show_table(&out, ev.reply, o->by);
	}
	sbx_close(c);
	return status;
}

enum { OPT_SINCE = 256, OPT_UNTIL, OPT_BY, OPT_JSON, OPT_SOCKET };

int
cmd_stats(int argc, char **argv)
{
	static const struct option options[] = {
		{ "since", required_argument, NULL, OPT_SINCE }, { "until", required_argument, NULL, OPT_UNTIL },
		{ "by", required_argument, NULL, OPT_BY },       { "json", no_argument, NULL, OPT_JSON },
		{ "socket", required_argument, NULL, OPT_SOCKET }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	static const char *const kinds[] = { "target", "model", "class", "route", "user", "tenant", "key", NULL };
	struct sbx_report_options o = SBX_REPORT_INIT;
	const char *socket = NULL, *since = SINCE_DEFAULT, *until = NULL;
	bool json = false;
	int opt;
	size_t kind = 0;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case OPT_SINCE:
			since = optarg;
			break;
		case OPT_UNTIL:
			until = optarg;
			break;
		case OPT_BY:
			for (kind = 0; kinds[kind] && strcmp(kinds[kind], optarg) != 0;)
				kind++;
			if (!kinds[kind])
				return usage("stats", "--by takes target, model, class, route or user, not %s", optarg);
			break;
		case OPT_JSON:
			json = true;
			break;
		case OPT_SOCKET:
			socket = optarg;
			break;
		case 'h':
			(void)fputs(help, stdout);
			return CLI_OK;
		default: /* getopt said what is wrong */
			(void)fputs("see: signalbox stats --help\n", stderr);
			return CLI_USAGE;
		}
	}
	if (optind < argc)
		return usage("stats", "it takes no argument, not %s", argv[optind]);
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
	uint64_t now_ms = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	if (!parse_time(since, now_ms, &o.since_unix_ms))
		return usage("stats", "--since takes a time such as 24h or 2026-03-01, not %s", since);
	if (until && (!parse_time(until, now_ms, &o.until_unix_ms) || !o.until_unix_ms))
		return usage("stats", "--until takes a time such as 24h or 2026-03-01, not %s", until);
	if (o.until_unix_ms && o.until_unix_ms < o.since_unix_ms)
		return usage("stats", "--until is before --since");
	o.by = kinds[kind];
	return run(socket, &o, json);
}
