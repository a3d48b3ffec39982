/* SPDX-License-Identifier: Apache-2.0 */
/*
 * key.c -- `signalbox key`: virtual keys, which programs show to the HTTP door in the place of a provider's. Over the admin socket.
 *
 * A secret is written to standard output and nowhere else, alone on its line: KEY=$(signalbox key create --tenant t).
 */
#include "tools/signalbox/cli.h"

#include <getopt.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ANSWER_TIMEOUT_MS 10000 /* the store writes within milliseconds, or says that it cannot */
#define PATIENCE_MS 2000
#define PAUSE_MS 20
#define FIELDS_MAX 6 /* create with all of its options */

static const char help[] =
	"usage: signalbox key create --tenant T [--models A,B] [--expires TIME] [--name TEXT] [--json] [--socket ADMIN]\n"
	"       signalbox key list [--json] [--socket ADMIN]\n"
	"       signalbox key rotate ID [--grace SPAN] [--json] [--socket ADMIN]\n"
	"       signalbox key revoke ID [--json] [--socket ADMIN]\n"
	"Virtual keys are what programs show to the HTTP door in the place of a provider's key. A key's secret is shown once, on\n"
	"standard output; the agent keeps only its SHA-256.\n"
	"\n"
	"  create  a new key. Its requests are counted and billed for its tenant\n"
	"  list    all keys that are not revoked\n"
	"  rotate  another secret for the key; the old one holds for a while longer\n"
	"  revoke  the key is refused from now on, by the door within 10 s\n"
	"\n"
	"      --tenant T      for whom; any printable text\n"
	"      --models A,B    the only names that requests may ask for, as they write them: models, provider/model, routes\n"
	"      --expires TIME  30d, 12h ... from now, or a day or minute of UTC: 2027-01-01, 2027-01-01T14:30 (default: never)\n"
	"      --name TEXT     a note for people\n"
	"      --grace SPAN    how long the old secret holds: 0s to 30d (default: 1d)\n"
	"      --json          one JSON object\n"
	"      --socket ADMIN  the agent's admin socket (default: admin.sock beside the agent's socket, which is looked for as by\n"
	"                      the other commands); it belongs to the agent's user\n"
	"  -h, --help\n"
	"\n"
	"exit codes: 0 done; 1 refused, or the agent has no store; 2 the agent is not reachable; 64 wrong arguments; 130 interrupted\n"
	"\n"
	"example:\n"
	"  signalbox key create --tenant alice --models openai/gpt-5.2,chat --expires 90d\n";

struct question {
	const char *verb;
	struct sbx_field field[FIELDS_MAX];
	size_t n;
	bool json, twice; /* twice: an option was given again */
};

static void
add(struct question *q, const char *name, const char *text, uint64_t number)
{
	for (size_t i = 0; i < q->n; i++)
		q->twice |= strcmp(q->field[i].name, name) == 0;
	if (!q->twice)
		q->field[q->n++] = (struct sbx_field){ name, text, number };
}

/* ---- showing ---- */

static const char *
text_of(const struct sbx_reply *reply, const char *field)
{
	const char *text = "";
	(void)sbx_reply_string(reply, field, &text);
	return text;
}

static void
fmt_day(char *to, size_t room, int64_t unix_s)
{
	const time_t t = (time_t)unix_s;
	struct tm tm;
	if (!gmtime_r(&t, &tm) || strftime(to, room, "%Y-%m-%d %H:%M", &tm) == 0)
		(void)snprintf(to, room, "%lld", (long long)unix_s);
}

/* The secret alone goes to standard output. */
static void
show_secret(const struct sbx_reply *reply, const char *verb)
{
	const struct term err = term_of(stderr);
	int64_t until;
	char day[32];
	term_say(&err, STYLE_PLAIN, "%s %s, of tenant \"%s\"", text_of(reply, "key"), verb, text_of(reply, "tenant"));
	if (sbx_reply_number(reply, "expires_unix_s", &until)) {
		fmt_day(day, sizeof day, until);
		term_say(&err, STYLE_PLAIN, ", expires %s UTC", day);
	}
	if (sbx_reply_number(reply, "old_until_unix_s", &until)) {
		fmt_day(day, sizeof day, until);
		term_say(&err, STYLE_PLAIN, "; the secret before holds until %s UTC", day);
	}
	term_say(&err, STYLE_PLAIN, ". Its secret, which cannot be shown again:\n");
	(void)puts(text_of(reply, "secret"));
}

struct row {
	char id[64];
	const char *tenant, *name, *models, *state;
	int64_t created_s, expires_s;
};

static void
show_row(struct table *t, const struct row *r)
{
	char day[32];
	if (!r->id[0])
		return;
	table_row(t, strcmp(r->state, "active") == 0 ? STYLE_PLAIN : STYLE_DIM);
	table_cell(t, "%s", r->id);
	table_cell(t, "%s", r->tenant);
	table_cell(t, "%s", r->state);
	fmt_day(day, sizeof day, r->created_s);
	table_cell(t, "%s", day);
	if (r->expires_s)
		fmt_day(day, sizeof day, r->expires_s);
	table_cell(t, "%s", r->expires_s ? day : "never");
	table_cell(t, "%s", *r->models ? r->models : "all");
	table_cell(t, "%s", r->name);
}

/* Fields of one key stand together, as "key.ID.member". */
static void
add_rows(struct table *t, const struct sbx_reply *reply)
{
	const struct row none = { .tenant = "", .name = "", .models = "", .state = "" };
	struct row r = none;
	const char *field, *text;
	int64_t number;
	for (uint32_t i = 0; sbx_reply_field(reply, i, &field, &text, &number); i++) {
		const char *id = strchr(field, '.'), *dot = strrchr(field, '.');
		if (!id || id == dot)
			continue;
		id++;
		if (strncmp(id, r.id, (size_t)(dot - id)) != 0 || r.id[dot - id]) {
			show_row(t, &r);
			r = none;
			(void)snprintf(r.id, sizeof r.id, "%.*s", (int)(dot - id), id);
		}
		const char **to = strcmp(dot, ".tenant") == 0 ? &r.tenant : strcmp(dot, ".name") == 0 ? &r.name : strcmp(dot, ".models") == 0 ? &r.models :
		                  strcmp(dot, ".state") == 0  ? &r.state : NULL;
		if (to && text)
			*to = text;
		else if (strcmp(dot, ".created_unix_s") == 0)
			r.created_s = number;
		else if (strcmp(dot, ".expires_unix_s") == 0)
			r.expires_s = number;
	}
	show_row(t, &r);
}

/* ---- asking ---- */

/* False: a signal came. */
static bool
pause_a_little(void)
{
	struct pollfd p = { .fd = interrupt_fd(), .events = POLLIN };
	(void)poll(&p, 1, PAUSE_MS); /* a signal ends it as well */
	return !interrupt_signal();
}

/* One question, put again for a moment to an agent that has just started: it reads its keys. CLI_OK with the event, which is borrowed from the handle. */
static int
ask(struct sbx_client *c, const struct question *q, struct sbx_event *ev)
{
	const uint64_t until_ms = monotonic_ms() + PATIENCE_MS;
	uint64_t id;
	int rc;
	do {
		rc = sbx_keys(c, q->field, q->n, &id);
		if (rc == 0)
			rc = agent_next(c, ANSWER_TIMEOUT_MS, true, ev);
	} while (rc == 0 && ev->note == SBX_NOTE_ERROR && sbx_reply_code(ev->reply) == SBX_CODE_BUSY && monotonic_ms() < until_ms && pause_a_little());
	if (rc == AGENT_INTERRUPTED || interrupt_signal())
		return CLI_SIGNAL + interrupt_signal();
	if (rc) {
		(void)fprintf(stderr, "signalbox: %s\n", rc == -SBX_ETIME ? "the agent accepted, but does not answer: it hangs, or is stopped" : sbx_client_error(c));
		return CLI_NO_AGENT;
	}
	if (ev->note == SBX_NOTE_STATS)
		return CLI_OK;
	(void)fprintf(stderr, "signalbox: %s\n", sbx_reply_message(ev->reply));
	return sbx_reply_code(ev->reply) == SBX_CODE_AGENT_LOST ? CLI_NO_AGENT : CLI_FAILED;
}

/* A list may come in several parts. */
static int
list(struct sbx_client *c, struct question *q)
{
	static const char *const head[] = { "id", "tenant", "state", "created (UTC)", "expires (UTC)", "models", "name", NULL };
	const struct term out = term_of(stdout);
	json_t *root = must(json_object());
	struct table t;
	struct sbx_event ev;
	int64_t next;
	int status;
	table_init(&t, head);
	(void)json_object_set_new(root, "key", must(json_object()));
	do {
		status = ask(c, q, &ev);
		if (status != CLI_OK)
			break;
		if (!q->json)
			add_rows(&t, ev.reply);
		json_add_fields(root, ev.reply);
		q->n = 1;
		if (sbx_reply_number(ev.reply, "next", &next))
			add(q, "from", NULL, (uint64_t)next);
	} while (q->n > 1);
	(void)json_object_del(root, "next"); /* of the last part but one */
	if (status == CLI_OK && q->json)
		json_print_line(root);
	else if (status == CLI_OK && t.n_cells)
		table_print(&t, &out);
	else if (status == CLI_OK)
		term_say(&out, STYLE_DIM, "no keys; signalbox key create --tenant T makes one\n");
	table_fini(&t);
	json_decref(root);
	return status;
}

static int
run(const char *path, struct question *q)
{
	struct sbx_client *c;
	struct sbx_event ev;
	interrupt_init();
	int status = agent_open(path, false, &c);
	if (status)
		return status;
	if (strcmp(q->verb, "list") == 0) {
		status = list(c, q);
	} else if ((status = ask(c, q, &ev)) == CLI_OK) {
		if (q->json) {
			json_t *root = must(json_object());
			json_add_fields(root, ev.reply);
			json_print_line(root);
			json_decref(root);
		} else if (strcmp(q->verb, "revoke") == 0) {
			(void)printf("%s is revoked; the door forgets it within 10 s\n", text_of(ev.reply, "key"));
		} else {
			show_secret(ev.reply, strcmp(q->verb, "create") == 0 ? "created" : "rotated");
		}
	}
	sbx_close(c);
	return status;
}

/* ---- arguments ---- */

static bool
parse_expiry(const char *text, uint64_t *ret_unix_s)
{
	uint64_t ms;
	if (parse_span(text, &ms))
		*ret_unix_s = (uint64_t)time(NULL) + ms / 1000;
	else if (parse_date(text, &ms))
		*ret_unix_s = ms / 1000;
	else
		return false;
	return true;
}

enum { OPT_TENANT = 256, OPT_MODELS, OPT_EXPIRES, OPT_NAME, OPT_GRACE, OPT_JSON, OPT_SOCKET };

/* The verb that alone takes the option; NULL = all do. */
static const char *
verb_of(int opt)
{
	return opt == OPT_GRACE ? "rotate" : opt == OPT_JSON || opt == OPT_SOCKET ? NULL : "create";
}

int
cmd_key(int argc, char **argv)
{
	static const struct option options[] = {
		{ "tenant", required_argument, NULL, OPT_TENANT },   { "models", required_argument, NULL, OPT_MODELS },
		{ "expires", required_argument, NULL, OPT_EXPIRES }, { "name", required_argument, NULL, OPT_NAME },
		{ "grace", required_argument, NULL, OPT_GRACE },     { "json", no_argument, NULL, OPT_JSON },
		{ "socket", required_argument, NULL, OPT_SOCKET },   { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	static const char *const verbs[] = { "create", "list", "rotate", "revoke", NULL };
	struct question q = { .verb = argc > 1 ? argv[1] : "" };
	char path[4096];
	const char *socket = NULL;
	bool tenant = false;
	uint64_t number;
	int opt, known = 0;
	if (strcmp(q.verb, "--help") == 0 || strcmp(q.verb, "-h") == 0) {
		(void)fputs(help, stdout);
		return CLI_OK;
	}
	while (verbs[known] && strcmp(verbs[known], q.verb) != 0)
		known++;
	if (!verbs[known])
		return usage("key", *q.verb ? "it takes create, list, rotate or revoke, not %s" : "create, list, rotate or revoke?%s", q.verb);
	add(&q, "do", q.verb, 0);
	argv[1] = argv[0]; /* getopt's complaints begin with it */
	argv++;
	argc--;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		const char *of = opt < OPT_TENANT ? NULL : verb_of(opt);
		if (of && strcmp(of, q.verb) != 0)
			return usage("key", "%s takes no such option as key %s", q.verb, of);
		switch (opt) {
		case OPT_TENANT:
			tenant = true;
			add(&q, "tenant", optarg, 0);
			break;
		case OPT_MODELS:
			add(&q, "models", optarg, 0);
			break;
		case OPT_NAME:
			add(&q, "name", optarg, 0);
			break;
		case OPT_EXPIRES:
			if (!parse_expiry(optarg, &number))
				return usage("key", "--expires takes a time such as 30d or 2027-01-01, not %s", optarg);
			add(&q, "expires_unix_s", NULL, number);
			break;
		case OPT_GRACE:
			if (!parse_span(optarg, &number))
				return usage("key", "--grace takes a span such as 24h, not %s", optarg);
			add(&q, "grace_s", NULL, number / 1000);
			break;
		case OPT_JSON:
			q.json = true;
			break;
		case OPT_SOCKET:
			socket = optarg;
			break;
		case 'h':
			(void)fputs(help, stdout);
			return CLI_OK;
		default: /* getopt said what is wrong */
			(void)fputs("see: signalbox key --help\n", stderr);
			return CLI_USAGE;
		}
	}
	const bool needs_id = strcmp(q.verb, "rotate") == 0 || strcmp(q.verb, "revoke") == 0;
	if (needs_id && optind < argc)
		add(&q, "key", argv[optind++], 0);
	else if (needs_id)
		return usage("key", "%s needs the id of a key; signalbox key list shows them", q.verb);
	if (q.twice)
		return usage("key", "an option is there twice");
	if (optind < argc)
		return usage("key", "%s does not take %s", q.verb, argv[optind]);
	if (strcmp(q.verb, "create") == 0 && !tenant)
		return usage("key", "create needs --tenant: for whom is the key?");
	if (!socket && !agent_path_beside(NULL, "admin.sock", path, sizeof path))
		return usage("key", "the path of the agent's socket is too long");
	return run(socket ? socket : path, &q);
}
