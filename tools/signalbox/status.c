/* SPDX-License-Identifier: Apache-2.0 */
/*
 * status.c -- `signalbox status`: the agent's STATS as a table for people or an object for programs.
 *
 * The library flattens the reply: "requests", "loop.turns", "target.openai/gpt-5.2.state". A target's name may hold dots, the
 * name of its figure never does, so the last dot parts them.
 */
#include "tools/signalbox/cli.h"

#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_TIMEOUT_MS 5000
#define INTERVAL_DEFAULT_MS 2000
#define INTERVAL_MAX_MS 86400000u

static const char help[] =
	"usage: signalbox status [--json] [--watch[=SECONDS]] [--socket PATH]\n"
	"Show the agent and what it knows about each target.\n"
	"\n"
	"      --json              one JSON object\n"
	"      --watch[=SECONDS]   again and again, until Ctrl-C (default: each 2 s); with --json one line each\n"
	"      --socket PATH       the agent's socket (default: $SIGNALBOX_SOCKET, $XDG_RUNTIME_DIR/signalbox/agent.sock,\n"
	"                          /run/signalbox/agent.sock)\n"
	"  -h, --help\n"
	"\n"
	"states: up; down (it failed too often, and is tried again in a while); probing (that trial is under way);\n"
	"        misconfigured (the provider does not know the model, or forbids it); no key (none of its keys was found)\n"
	"exit codes: 0 every target with a key is up, and the store is healthy or off; 1 it is not so; 2 the agent is not reachable; 64 wrong arguments; 130 interrupted\n"
	"\n"
	"example:\n"
	"  signalbox status --watch\n";

/* ---- the fields of a reply ---- */

/* Splits "target.NAME.figure". False = it is no target's. */
static bool
split_target(const char *field, const char **ret_name, size_t *ret_name_bytes, const char **ret_figure)
{
	static const char prefix[] = "target.";
	const char *dot = strrchr(field, '.');
	if (strncmp(field, prefix, sizeof prefix - 1) != 0 || dot < field + sizeof prefix)
		return false;
	*ret_name = field + sizeof prefix - 1;
	*ret_name_bytes = (size_t)(dot - *ret_name);
	*ret_figure = dot + 1;
	return true;
}

struct target {
	const char *name; /* borrowed from the reply; name_bytes long */
	size_t name_bytes;
	const char *state, *why;
	int64_t in_flight, attempts, successes, failures, p50_ms, p99_ms, retry_in_ms, throttled_ms;
};

static void
take_figure(struct target *t, const char *figure, const char *text, int64_t number)
{
	const struct {
		const char *name;
		int64_t *to;
	} numbers[] = {
		{ "in_flight", &t->in_flight }, { "attempts", &t->attempts },
		{ "successes", &t->successes }, { "failures", &t->failures },
		{ "first_content_p50_ms", &t->p50_ms }, { "first_content_p99_ms", &t->p99_ms },
		{ "retry_in_ms", &t->retry_in_ms }, { "throttled_ms", &t->throttled_ms },
	};
	if (text && strcmp(figure, "state") == 0)
		t->state = text;
	else if (text && strcmp(figure, "why") == 0)
		t->why = text;
	for (size_t i = 0; !text && i < sizeof numbers / sizeof numbers[0]; i++)
		if (strcmp(figure, numbers[i].name) == 0)
			*numbers[i].to = number;
}

/* Calls `on` for each target; the figures of one stand together. */
static void
each_target(const struct sbx_reply *reply, void (*on)(void *arg, const struct target *t), void *arg)
{
	struct target t = { .name = NULL };
	const char *field, *text, *name, *figure;
	size_t n;
	int64_t number;
	for (uint32_t i = 0; sbx_reply_field(reply, i, &field, &text, &number); i++) {
		if (!split_target(field, &name, &n, &figure))
			continue;
		if (!t.name || n != t.name_bytes || memcmp(name, t.name, n) != 0) {
			if (t.name)
				on(arg, &t);
			t = (struct target){ .name = name, .name_bytes = n, .state = "", .why = "" };
		}
		take_figure(&t, figure, text, number);
	}
	if (t.name)
		on(arg, &t);
}

static int64_t
number_of(const struct sbx_reply *reply, const char *name)
{
	int64_t n = 0;
	(void)sbx_reply_number(reply, name, &n); /* an agent of another version may not have it */
	return n;
}

static const char *
text_of(const struct sbx_reply *reply, const char *name)
{
	const char *text = "";
	(void)sbx_reply_string(reply, name, &text);
	return text;
}

/* ---- for people ---- */

/* What does not work, in words, with what it has cost so far; one line while all is well. */
static void
say_store(const struct term *out, const struct sbx_reply *reply)
{
	const char *state = text_of(reply, "store.state");
	const bool off = strcmp(state, "off") == 0, well = number_of(reply, "store.well") != 0;
	const int64_t lost = number_of(reply, "store.lost"), refused = number_of(reply, "store.poisoned"), aside = number_of(reply, "store.put_aside");
	if (!*state) /* an agent of another version */
		return;
	term_say(out, STYLE_PLAIN, "store: ");
	if (off) {
		term_say(out, STYLE_DIM, "off\n");
		return;
	}
	if (well)
		term_say(out, STYLE_PLAIN, "%s", strcmp(state, "ready") == 0 ? "healthy" : state);
	else
		term_say(out, STYLE_BAD, "degraded, %s", state);
	term_say(out, STYLE_PLAIN, ", %s, rows: %lld written, %lld waiting", text_of(reply, "store.file"), (long long)number_of(reply, "store.committed"),
	         (long long)number_of(reply, "store.queued"));
	if (lost)
		term_say(out, STYLE_BAD, ", %lld lost", (long long)lost);
	if (refused)
		term_say(out, STYLE_BAD, ", %lld refused (in %s.poison)", (long long)refused, text_of(reply, "store.file"));
	(void)putchar('\n');
	if (!well)
		term_say(out, STYLE_BAD, "  %s\n", text_of(reply, "store.says"));
	if (aside)
		term_say(out, STYLE_BAD, "  it was found damaged, and put aside as %s.damaged-DATE; a new one was begun\n", text_of(reply, "store.file"));
}

static void
say_agent(const struct term *out, const struct sbx_reply *reply)
{
	char uptime[32];
	const char *config = text_of(reply, "config");
	fmt_duration(uptime, sizeof uptime, number_of(reply, "uptime_ms"));
	term_say(out, STYLE_BOLD, "signalboxd %s", text_of(reply, "version"));
	term_say(out, STYLE_PLAIN, "  pid %lld, up %s, %s, %.1f MiB, configuration: %s\n", (long long)number_of(reply, "pid"), uptime,
	         text_of(reply, "loop.kind"), (double)number_of(reply, "rss_bytes") / 1048576, *config ? config : "none");
	if (number_of(reply, "predecessor"))
		term_say(out, STYLE_PLAIN, "took the place of pid %lld\n", (long long)number_of(reply, "predecessor"));
	term_say(out, STYLE_PLAIN, "requests: %lld in flight, %lld so far, %lld failed, %lld refused, %lld cancelled, %lld saved by failover\n",
	         (long long)number_of(reply, "in_flight"), (long long)number_of(reply, "requests"), (long long)number_of(reply, "requests_failed"),
	         (long long)number_of(reply, "requests_refused"), (long long)number_of(reply, "requests_cancelled"),
	         (long long)number_of(reply, "failovers"));
	say_store(out, reply);
	(void)putchar('\n');
}

static enum style
style_of(const struct target *t)
{
	if (strcmp(t->state, "up") == 0)
		return t->throttled_ms > 0 ? STYLE_WARN : STYLE_PLAIN;
	return strcmp(t->state, "no key") == 0 ? STYLE_DIM : strcmp(t->state, "probing") == 0 ? STYLE_WARN : STYLE_BAD;
}

static void
on_row(void *arg, const struct target *t)
{
	struct table *table = arg;
	int64_t ended = t->successes + t->failures;
	char p50[32], p99[32], wait[48] = "", duration[32];
	fmt_latency(p50, sizeof p50, t->p50_ms);
	fmt_latency(p99, sizeof p99, t->p99_ms);
	if (t->retry_in_ms > 0) {
		fmt_duration(duration, sizeof duration, t->retry_in_ms);
		(void)snprintf(wait, sizeof wait, "tried again in %s", duration);
	} else if (t->throttled_ms > 0) {
		fmt_duration(duration, sizeof duration, t->throttled_ms);
		(void)snprintf(wait, sizeof wait, "throttled for %s", duration);
	}
	table_row(table, style_of(t));
	table_cell(table, "%.*s", (int)t->name_bytes, t->name);
	table_cell(table, "%s", t->state);
	table_cell(table, "%lld", (long long)t->in_flight);
	table_cell(table, "%lld", (long long)t->attempts);
	if (ended > 0)
		table_cell(table, "%.1f", 100.0 * (double)t->successes / (double)ended);
	else
		table_cell(table, "-");
	table_cell(table, "%s", p50);
	table_cell(table, "%s", p99);
	table_cell(table, "%s%s%s", t->why, *t->why && *wait ? "; " : "", wait);
}

static void
show_table(const struct term *out, const struct sbx_reply *reply)
{
	/* p50 and p99 of the time to the first content */
	static const char *const head[] = { "target", "state", ">in flight", ">attempts", ">ok %", ">p50", ">p99", "why", NULL };
	struct table t;
	say_agent(out, reply);
	table_init(&t, head);
	each_target(reply, on_row, &t);
	if (t.n_cells)
		table_print(&t, out);
	else
		term_say(out, STYLE_DIM, "no target yet: routes name them, and each provider/model that is asked becomes one\n");
	table_fini(&t);
}

/* ---- for programs ---- */

static json_t *
inner_object(json_t *outer, const char *key)
{
	json_t *inner = json_object_get(outer, key);
	if (!inner) {
		inner = must(json_object());
		(void)json_object_set_new(outer, key, inner);
	}
	return inner;
}

/* As the agent said it: members of its maps are members of objects again. */
static void
show_json(const struct sbx_reply *reply)
{
	json_t *root = must(json_object());
	const char *field, *text, *target, *figure, *dot;
	size_t n;
	int64_t number;
	(void)inner_object(root, "target");
	for (uint32_t i = 0; sbx_reply_field(reply, i, &field, &text, &number); i++) {
		json_t *to = root;
		char *outer = NULL;
		if (split_target(field, &target, &n, &figure)) {
			outer = must(strndup(target, n));
			to = inner_object(inner_object(root, "target"), outer);
			field = figure;
		} else if ((dot = strchr(field, '.'))) {
			outer = must(strndup(field, (size_t)(dot - field)));
			to = inner_object(root, outer);
			field = dot + 1;
		}
		(void)json_object_set_new(to, field, text ? json_text(text, strlen(text)) : json_integer(number));
		free(outer);
	}
	json_print_line(root);
	json_decref(root);
}

/* ---- the command ---- */

struct status_options {
	const char *socket;
	bool json, watch;
	uint32_t interval_ms;
};

static void
on_health(void *arg, const struct target *t)
{
	int *status = arg;
	if (strcmp(t->state, "up") != 0 && strcmp(t->state, "no key") != 0)
		*status = CLI_FAILED;
}

/* One question and its answer. CLI_OK or CLI_FAILED by the targets' states, CLI_NO_AGENT, CLI_SIGNAL + n. */
static int
look(struct sbx_client *c, const struct status_options *o, const struct term *out)
{
	struct sbx_event ev;
	uint64_t id;
	int status = CLI_OK;
	int rc = sbx_stats(c, &id);
	if (rc == 0)
		rc = agent_next(c, ANSWER_TIMEOUT_MS, true, &ev);
	if (rc == AGENT_INTERRUPTED)
		return CLI_SIGNAL + interrupt_signal();
	if (rc || ev.note != SBX_NOTE_STATS) {
		(void)fprintf(stderr, "signalbox: %s\n", rc == -SBX_ETIME ? "the agent accepted, but does not answer: it hangs, or is stopped"
		                                         : rc             ? sbx_client_error(c)
		                                                          : sbx_reply_message(ev.reply));
		return CLI_NO_AGENT;
	}
	if (o->json) {
		show_json(ev.reply);
	} else {
		if (o->watch && out->tty)
			(void)fputs("\033[H\033[2J", stdout); /* home, clear */
		show_table(out, ev.reply);
		if (o->watch && !out->tty)
			(void)putchar('\n');
	}
	each_target(ev.reply, on_health, &status);
	if (*text_of(ev.reply, "store.file") && !number_of(ev.reply, "store.well"))
		status = CLI_FAILED;
	return status;
}

/* Sleeps; false = interrupted. */
static bool
pause_ms(uint32_t ms)
{
	struct pollfd p = { .fd = interrupt_fd(), .events = POLLIN };
	return poll(&p, 1, (int)ms) == 0 && interrupt_signal() == 0;
}

static int
run(const struct status_options *o)
{
	const struct term out = term_of(stdout);
	struct sbx_client *c = NULL;
	int status;
	interrupt_init();
	do {
		status = c ? CLI_OK : agent_open(o->socket, false, &c);
		if (status == CLI_OK)
			status = look(c, o, &out);
		if (status == CLI_NO_AGENT) { /* when watching: it may come back, and then it is another one */
			sbx_close(c);
			c = NULL;
		}
		if (fflush(stdout) != 0)
			break; /* nobody looks any more */
	} while (o->watch && status < CLI_USAGE && pause_ms(o->interval_ms));
	sbx_close(c);
	return interrupt_signal() ? CLI_SIGNAL + interrupt_signal() : status;
}

enum { OPT_JSON = 256, OPT_WATCH, OPT_SOCKET };

int
cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, OPT_JSON },           { "watch", optional_argument, NULL, OPT_WATCH },
		{ "socket", required_argument, NULL, OPT_SOCKET }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct status_options o = { .interval_ms = INTERVAL_DEFAULT_MS };
	int opt;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case OPT_JSON:
			o.json = true;
			break;
		case OPT_WATCH:
			o.watch = true;
			if (optarg && !parse_seconds(optarg, INTERVAL_MAX_MS, &o.interval_ms))
				return usage("status", "--watch= takes seconds, not %s", optarg);
			break;
		case OPT_SOCKET:
			o.socket = optarg;
			break;
		case 'h':
			(void)fputs(help, stdout);
			return CLI_OK;
		default: /* getopt said what is wrong */
			(void)fputs("see: signalbox status --help\n", stderr);
			return CLI_USAGE;
		}
	}
	if (optind < argc)
		return usage("status", "it takes no argument, not %s", argv[optind]);
	return run(&o);
}
