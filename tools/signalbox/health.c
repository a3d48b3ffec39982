/* SPDX-License-Identifier: Apache-2.0 */
/*
 * health.c -- `signalbox health`: which targets are well, from the board: arguments, choice of targets, exit status, watching.
 *
 * The agent is asked nothing: its memory is read, and where it hangs or is gone, the snapshot that it left. See health.h.
 */
#include "tools/signalbox/health.h"

#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 2000         /* a living agent welcomes within a few ms */
#define CONNECT_WATCHING_MS 500 /* so that Ctrl-C is heard soon; the next look tries again */
#define INTERVAL_DEFAULT_MS 2000
#define INTERVAL_MAX_MS 86400000u

static const char help[] =
	"usage: signalbox health [options] [PATTERN...]\n"
	"Show which targets are well, how fast they are and what they cost, from the memory that the agent shares: it is not asked.\n"
	"If it hangs or is dead, the facts are those of the snapshot that it left, and their age is told.\n"
	"\n"
	"which targets (all, unless one of these is given):\n"
	"      PATTERN...          those whose PROVIDER/MODEL, provider or model matches a pattern as of the shell: 'groq', 'openai/*'\n"
	"  -r, --route ROUTE       those of a route, in its order\n"
	"      --state STATE,...   those in a state: up, trial, probing, throttled, down, misconfigured, keys-shut, no-key, unknown\n"
	"how to show them:\n"
	"      --wide              every column, however wide (default: as many as fit into the terminal, or into 80 columns)\n"
	"      --json              one JSON object\n"
	"      --watch[=SECONDS]   again and again, until Ctrl-C (default: each 2 s); with --json one line each\n"
	"where to look:\n"
	"      --socket PATH       the agent's socket (default: $SIGNALBOX_SOCKET, $XDG_RUNTIME_DIR/signalbox/agent.sock,\n"
	"                          /run/signalbox/agent.sock)\n"
	"      --snapshot FILE     its snapshot (default: board.snapshot beside the socket)\n"
	"  -h, --help\n"
	"\n"
	"times to the first content and in total are of the last 5 to 10 minutes' successes, the error rate of the last 30 s;\n"
	"prices are USD per million tokens, at this hour\n"
	"exit codes: 0 all that is shown is well; 1 something is not; 2 the agent hangs, is gone or cannot be reached;\n"
	"            64 wrong arguments, or nothing matches them; 130 interrupted\n"
	"\n"
	"examples:\n"
	"  signalbox health --watch\n"
	"  signalbox health -r chat --json | jq -r '.targets[] | select(.state != \"up\") | .name'\n";

struct health_options {
	const char *route;        /* NULL = not given */
	const char *socket, *snapshot;
	char *const *pattern;     /* borrowed */
	size_t n_patterns;
	uint32_t states;          /* bit for each; 0 = all */
	bool json, watch, wide;
	uint32_t interval_ms;
};

/* ---- states ---- */

static const struct {
	const char *word;
	enum style style;
	bool counts;
} states[] = {
#define X(name, word, style, counts) { word, style, counts },
	HEALTH_STATES(X)
#undef X
};

const char *
health_word(enum health_state state)
{
	return states[state].word;
}

enum style
health_style(enum health_state state)
{
	return states[state].style;
}

int64_t
ms_up(uint64_t ns)
{
	return (int64_t)(ns / 1000000 + (ns % 1000000 != 0));
}

int64_t
health_permille_bad(const struct sbx_target_view *v)
{
	const uint64_t ended = v->recent_good + v->recent_bad; /* each a count of 30 s: small */
	return ended ? (int64_t)(v->recent_bad * 1000 / ended) : -1;
}

/* Does the agent have any key of that provider, shut or not? */
static bool
has_keys(const struct facts *f, const char *provider)
{
	struct sbx_credential_view key;
	for (uint32_t i = 0;; i++) {
		int rc = sbx_board_credential(f->board, i, &key);
		if (rc == -SBX_ENOENT)
			return false;
		if (rc == 0 && strcmp(key.provider, provider) == 0)
			return true;
	}
}

static enum health_state
judge(const struct facts *f, const struct sbx_target_view *v)
{
	switch (v->standing) {
	case SBX_STANDING_UP:
		return HEALTH_UP;
	case SBX_STANDING_THROTTLED:
		return HEALTH_THROTTLED;
	case SBX_STANDING_NO_KEY:
		return has_keys(f, v->provider) ? HEALTH_SHUT : HEALTH_NO_KEY;
	case SBX_STANDING_TRIAL: /* what the provider does not know stays so until a request shows otherwise */
		return strcmp(v->state, "misconfigured") == 0 ? HEALTH_MISCONFIGURED : HEALTH_TRIAL;
	case SBX_STANDING_DOWN:
		return strcmp(v->state, "misconfigured") == 0 ? HEALTH_MISCONFIGURED : strcmp(v->state, "probing") == 0 ? HEALTH_PROBING : HEALTH_DOWN;
	case SBX_STANDING_UNKNOWN:
		break;
	}
	return HEALTH_UNKNOWN;
}

/* ---- choosing ---- */

static bool
matches(const struct health_options *o, const struct sbx_target_view *v)
{
	bool any = o->n_patterns == 0;
	for (size_t i = 0; i < o->n_patterns && !any; i++)
		any = fnmatch(o->pattern[i], v->name, 0) == 0 || fnmatch(o->pattern[i], v->provider, 0) == 0 || fnmatch(o->pattern[i], v->model, 0) == 0;
	return any;
}

/* The targets that the arguments mean, in any state. */
static void
take_targets(struct health *h, const struct health_options *o)
{
	const struct facts *f = h->facts;
	struct sbx_route_view route = { .n_targets = f->info.n_targets };
	uint32_t number = SBX_ROUTE_ALL;
	if (o->route && (sbx_board_find_route(f->board, o->route, &number) || sbx_board_route(f->board, number, &route)))
		return;
	h->row = must(calloc(route.n_targets + 1, sizeof *h->row));
	for (uint32_t i = 0; i < route.n_targets; i++) {
		struct health_row *row = &h->row[h->n_rows];
		if (sbx_board_target(f->board, o->route ? route.target[i] : i, f->now_boot_ns, &row->view) == -SBX_ENOENT || !matches(o, &row->view))
			continue;
		row->state = judge(f, &row->view);
		row->has_since = row->view.since_boot_ns && row->state != HEALTH_THROTTLED && row->state != HEALTH_SHUT && row->state != HEALTH_NO_KEY;
		h->n_rows++;
	}
}

/* The keys of these targets that are shut. */
static void
take_keys(struct health *h)
{
	const struct facts *f = h->facts;
	h->key = must(calloc(f->info.n_credentials + 1, sizeof *h->key));
	for (uint32_t i = 0; i < f->info.n_credentials; i++) {
		struct sbx_credential_view *key = &h->key[h->n_keys];
		bool concerned = false;
		if (sbx_board_credential(f->board, i, key) || key->shut_until_boot_ns == 0)
			continue;
		for (size_t k = 0; k < h->n_rows && !concerned; k++)
			concerned = strcmp(h->row[k].view.provider, key->provider) == 0;
		h->n_keys += concerned;
	}
}

/* False: the arguments mean no target at all. */
static bool
examine(struct health *h, const struct facts *f, const struct health_options *o)
{
	*h = (struct health){ .facts = f, .status = CLI_OK };
	bool any = true, well = f->board && (f->agent == AGENT_SERVING);
	if (f->board) {
		take_targets(h, o);
		any = h->n_rows > 0 || !(o->route || o->n_patterns);
		if (!o->states)
			take_keys(h);
		size_t kept = 0;
		for (size_t i = 0; i < h->n_rows; i++)
			if (!o->states || (o->states >> h->row[i].state & 1))
				h->row[kept++] = h->row[i];
		h->n_rows = kept;
	}
	for (size_t i = 0; i < h->n_rows; i++) {
		h->n_in[h->row[i].state]++;
		well = well && !states[h->row[i].state].counts;
	}
	well = well && h->n_keys == 0;
	h->status = !agent_takes_requests(f->agent) ? CLI_NO_AGENT : well ? CLI_OK : CLI_FAILED;
	return any;
}

static void
health_fini(struct health *h)
{
	free(h->row);
	free(h->key);
}

static int
nothing_meant(const struct facts *f, const struct health_options *o)
{
	uint32_t number;
	if (!o->route || sbx_board_find_route(f->board, o->route, &number) == 0)
		return usage("health", "no target%s%s matches %s", o->route ? " of the route " : "", o->route ? o->route : "",
		             o->n_patterns == 1 ? o->pattern[0] : o->n_patterns ? "any of these patterns" : "");
	const char **names = must(calloc(f->info.n_routes + 1, sizeof *names));
	for (uint32_t i = 0; i < f->info.n_routes; i++) {
		struct sbx_route_view route;
		names[i] = sbx_board_route(f->board, i, &route) ? "" : route.name;
	}
	const char *meant = nearest_word(o->route, names);
	free(names);
	return meant ? usage("health", "there is no route \"%s\"; the nearest is \"%s\"", o->route, meant) : usage("health", "there is no route \"%s\"", o->route);
}

/* ---- showing ---- */

/* Over what stands there: each line is cleared behind its end, none is wrapped, and what has no room below is counted. */
static void
repaint(const char *text, size_t lines)
{
	size_t all = 0, room = SIZE_MAX;
	for (const char *at = text; (at = strchr(at, '\n')); at++)
		all++;
	if (lines > 2 && all >= lines) /* the cursor has the last one */
		room = lines - 2;
	(void)fputs("\033[?7l\033[H", stdout);
	for (const char *end; room > 0 && (end = strchr(text, '\n')); text = end + 1, room--)
		(void)printf("%.*s\033[K\n", (int)(end - text), text);
	if (*text)
		(void)printf("\033[0m... %zu lines more\033[K\n", all - (lines - 2));
	(void)fputs("\033[J\033[?7h", stdout);
}

static void
show(const struct health *h, const struct health_options *o, const struct term *out)
{
	struct term memory = *out;
	char *text = NULL;
	size_t bytes = 0, columns, lines;
	if (o->json) {
		json_t *json = health_json(h);
		json_print_line(json);
		json_decref(json);
		return;
	}
	memory.file = must(open_memstream(&text, &bytes));
	health_show(h, &memory, o->wide);
	if (fclose(memory.file) != 0)
		must(NULL);
	term_size(out, &columns, &lines);
	if (o->watch && out->tty)
		repaint(text, lines);
	else
		(void)printf("%s%s", text, o->watch ? "\n" : "");
	free(text);
}

/* Sleeps; false = interrupted. */
static bool
pause_ms(uint32_t ms)
{
	struct pollfd p = { .fd = interrupt_fd(), .events = POLLIN };
	return poll(&p, 1, (int)ms) == 0 && interrupt_signal() == 0;
}

static int
run(const struct health_options *o)
{
	const struct term out = term_of(stdout);
	struct facts facts;
	struct health h;
	int status;
	facts_init(&facts, o->socket, o->snapshot);
	interrupt_init();
	if (o->watch && out.tty && !o->json)
		(void)fputs("\033[2J", stdout);
	do {
		facts_look(&facts, o->watch ? CONNECT_WATCHING_MS : CONNECT_MS);
		const bool any = examine(&h, &facts, o);
		status = h.status;
		if (any || o->watch || status == CLI_NO_AGENT)
			show(&h, o, &out);
		else
			status = nothing_meant(&facts, o);
		health_fini(&h);
		if (fflush(stdout) != 0)
			break; /* nobody looks any more */
	} while (o->watch && pause_ms(o->interval_ms));
	facts_fini(&facts);
	return interrupt_signal() ? CLI_SIGNAL + interrupt_signal() : status;
}

/* ---- arguments ---- */

/* "down,no-key" as bits; a blank may be a dash. 0 = it said what is wrong. */
static uint32_t
parse_states(const char *text)
{
	char words[HEALTH__COUNT][16];
	const char *list[HEALTH__COUNT + 1] = { NULL };
	uint32_t bits = 0;
	for (size_t i = 0; i < HEALTH__COUNT; i++) {
		(void)snprintf(words[i], sizeof words[i], "%s", states[i].word);
		for (char *blank; (blank = strchr(words[i], ' '));)
			*blank = '-';
		list[i] = words[i];
	}
	for (;;) {
		const size_t n = strcspn(text, ",");
		char word[32];
		size_t k = 0;
		(void)snprintf(word, sizeof word, "%.*s", (int)n, text);
		while (k < HEALTH__COUNT && strcmp(word, words[k]) != 0 && strcmp(word, states[k].word) != 0)
			k++;
		if (k == HEALTH__COUNT) {
			const char *meant = nearest_word(word, list);
			(void)usage("health", "there is no state \"%s\"%s%s", word, meant ? "; the nearest is " : "", meant ? meant : "");
			return 0;
		}
		bits |= 1u << k;
		if (!text[n])
			return bits;
		text += n + 1;
	}
}

enum { OPT_JSON = 256, OPT_WATCH, OPT_WIDE, OPT_STATE, OPT_SOCKET, OPT_SNAPSHOT };

int
cmd_health(int argc, char **argv)
{
	static const struct option options[] = {
		{ "route", required_argument, NULL, 'r' },         { "state", required_argument, NULL, OPT_STATE },
		{ "json", no_argument, NULL, OPT_JSON },           { "watch", optional_argument, NULL, OPT_WATCH },
		{ "wide", no_argument, NULL, OPT_WIDE },           { "socket", required_argument, NULL, OPT_SOCKET },
		{ "snapshot", required_argument, NULL, OPT_SNAPSHOT }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	struct health_options o = { .interval_ms = INTERVAL_DEFAULT_MS };
	uint32_t more;
	int opt;
	while ((opt = getopt_long(argc, argv, "r:h", options, NULL)) != -1) {
		switch (opt) {
		case 'r':
			o.route = optarg;
			break;
		case OPT_STATE:
			more = parse_states(optarg);
			if (!more)
				return CLI_USAGE;
			o.states |= more;
			break;
		case OPT_JSON:
			o.json = true;
			break;
		case OPT_WATCH:
			o.watch = true;
			if (!optarg && optind < argc && parse_seconds(argv[optind], INTERVAL_MAX_MS, &o.interval_ms))
				optind++; /* "--watch 5": no target is called 5 */
			else if (optarg && !parse_seconds(optarg, INTERVAL_MAX_MS, &o.interval_ms))
				return usage("health", "--watch= takes seconds, not %s", optarg);
			break;
		case OPT_WIDE:
			o.wide = true;
			break;
		case OPT_SOCKET:
			o.socket = optarg;
			break;
		case OPT_SNAPSHOT:
			o.snapshot = optarg;
			break;
		case 'h':
			(void)fputs(help, stdout);
			return CLI_OK;
		default: /* getopt said what is wrong */
			(void)fputs("see: signalbox health --help\n", stderr);
			return CLI_USAGE;
		}
	}
	o.pattern = argv + optind;
	o.n_patterns = (size_t)(argc - optind);
	return run(&o);
}
