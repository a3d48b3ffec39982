/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.c -- `signalbox ask`: its arguments, and the course of the request.
 *
 * Every mode submits and takes events, the whole answer too: sbx_ask() would not hear Ctrl-C. The first Ctrl-C cancels at the agent
 * and waits a little for the end, so that what the cancelled attempts did is still shown; the second ends the process, and with
 * it the connection, which cancels as well.
 */
#include "tools/signalbox/ask.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DEADLINE_MAX_MS 86400000u /* a day: as the protocol has it */
#define CANCEL_WAIT_MS 2000       /* the agent answers a cancel within 50 ms unless it is in trouble */

static const char help[] =
	"usage: signalbox ask [options] [TEXT...]\n"
	"Ask a model and print its answer. The text is that of the arguments; \"-\" stands for standard input, which is also\n"
	"read when there is no text and it is not a terminal.\n"
	"\n"
	"whom to ask, one of:\n"
	"  -r, --route ROUTE         a route of the configuration\n"
	"  -m, --model MODEL         PROVIDER/MODEL, or a model's name: every provider that has it\n"
	"  -t, --target PROVIDER/MODEL  these, in this order (repeat it)\n"
	"what to ask:\n"
	"  -f, --file FILE           append a text file (repeat it)\n"
	"      --system TEXT         the system message\n"
	"      --max-tokens N        the answer's limit, as \"max_tokens\"\n"
	"      --body FILE           the request itself as JSON (OpenAI's chat completions), instead of all these; - is standard input.\n"
	"                            Its \"model\" is asked unless one is named above\n"
	"      --deadline SECONDS    for everything, failovers included (default 600)\n"
	"how to show it:\n"
	"      --stream, --no-stream print as it comes, or at the end (default: stream to a terminal)\n"
	"      --json                one JSON object; with --stream one line an event\n"
	"      --reasoning           the reasoning too (default: to a terminal only)\n"
	"  -v, --verbose             target, attempts and figures on standard error (default: to a terminal only)\n"
	"  -q, --quiet               never those\n"
	"when the agent hangs or is gone:\n"
	"      --direct              call the provider past the agent, with the key from where the agent has it, if you may read it\n"
	"                            there. Whom to call says the agent's board, or the snapshot that it left; one attempt a target,\n"
	"                            and nobody accounts for it\n"
	"      --snapshot FILE       that snapshot (default: board.snapshot beside the socket)\n"
	"where it is:\n"
	"      --socket PATH         the agent's socket (default: $SIGNALBOX_SOCKET, $XDG_RUNTIME_DIR/signalbox/agent.sock,\n"
	"                            /run/signalbox/agent.sock)\n"
	"  -h, --help\n"
	"\n"
	"exit codes: 0 answered; 1 the request failed; 2 the agent is not reachable and nothing was sent; 64 wrong arguments;\n"
	"            130 interrupted (Ctrl-C cancels the request at the provider)\n"
	"\n"
	"examples:\n"
	"  signalbox ask -m openai/gpt-5.2 'Name three rivers'\n"
	"  git diff | signalbox ask -r chat 'Review this change:' -\n"
	"  signalbox ask -m groq/llama-3.3-70b-versatile -f main.c --json 'What does it do?' | jq -r .text\n";

/* ---- the request ---- */

static int
end_status(const struct sbx_reply *reply)
{
	if (sbx_reply_ok(reply))
		return CLI_OK;
	return sbx_reply_code(reply) == SBX_CODE_AGENT_LOST && !sbx_reply_sent(reply) ? CLI_NO_AGENT : CLI_FAILED;
}

static int
follow(struct sbx_client *c, uint64_t id, struct ask_show *show)
{
	bool stopping = false, too_large = false;
	struct sbx_event ev;
	for (;;) {
		int rc = agent_next(c, stopping ? CANCEL_WAIT_MS : -1, !stopping, &ev);
		if (rc == AGENT_INTERRUPTED) {
			(void)sbx_cancel(c, id); /* ended already: its end is the next event */
			stopping = true;
			continue;
		}
		if (rc == 0 && ev.id == id && ask_show_event(show, &ev) && !too_large) {
			(void)fprintf(stderr, "signalbox: the answer is too large to be kept; use --stream\n");
			(void)sbx_cancel(c, id);
			stopping = too_large = true;
		}
		if (rc == 0 && !ev.last)
			continue;
		if (interrupt_signal())
			return CLI_SIGNAL + interrupt_signal();
		if (too_large)
			return CLI_FAILED;
		if (rc == 0)
			return end_status(ev.reply);
		(void)fprintf(stderr, "signalbox: %s\n", sbx_client_error(c));
		return CLI_FAILED;
	}
}

static int
ask(const struct ask_options *o)
{
	struct sbx_client *c;
	struct ask_show show;
	char *body;
	size_t body_bytes;
	int status = ask_body(o, &body, &body_bytes);
	if (status)
		return status;
	interrupt_init(); /* not before: while input is typed, Ctrl-C just ends */
	if (o->direct) {
		status = ask_direct(o, body, body_bytes);
		free(body);
		return status;
	}
	status = agent_open(o->socket, false, &c);
	if (status) {
		free(body);
		return status;
	}
	ask_show_init(&show, o);
	struct sbx_request_options request = SBX_REQUEST_INIT;
	uint64_t id;
	request.route = o->route;
	request.model = o->model;
	request.targets = o->targets;
	request.n_targets = o->n_targets;
	request.body = body;
	request.body_bytes = body_bytes;
	request.stream = o->stream;
	request.deadline_ms = o->deadline_ms;
	/* Text that went into a pipe cannot be taken back; on a terminal, and as an event, it can be marked as void. */
	request.restart = !o->stream || o->json || show.out.tty;
	int rc = sbx_submit(c, &request, &id);
	free(body);
	if (rc == 0) {
		status = follow(c, id, &show);
	} else {
		(void)fprintf(stderr, "signalbox: %s\n", sbx_client_error(c));
		status = rc == -SBX_EAGENT ? CLI_NO_AGENT : CLI_FAILED;
	}
	ask_show_fini(&show);
	sbx_close(c);
	return status;
}

/* ---- arguments ---- */

enum { OPT_SYSTEM = 256, OPT_MAX_TOKENS, OPT_BODY, OPT_DEADLINE, OPT_STREAM, OPT_NO_STREAM, OPT_JSON, OPT_REASONING, OPT_DIRECT, OPT_SNAPSHOT, OPT_SOCKET };

static bool
parse_count(const char *text, int *ret_n)
{
	char *end;
	errno = 0;
	long n = strtol(text, &end, 10);
	if (errno || end == text || *end || n < 1 || n > INT_MAX)
		return false;
	*ret_n = (int)n;
	return true;
}

/* The arguments are right in themselves; do they go together? */
static int
check(const struct ask_options *o)
{
	int whom = (o->route != NULL) + (o->model != NULL) + (o->n_targets > 0);
	if (whom > 1)
		return usage("ask", "give one of --route, --model and --target");
	if (whom == 0 && !o->body)
		return usage("ask", "say whom to ask: --route, --model or --target; `signalbox status` lists the targets");
	if (o->body && (o->n_words || o->n_files || o->system || o->max_tokens))
		return usage("ask", "--body is the whole request: no text, --file, --system or --max-tokens beside it");
	if (!o->body && o->n_words == 0 && o->n_files == 0 && isatty(STDIN_FILENO))
		return usage("ask", "there is nothing to ask: give a text, a --file, or standard input");
	if (o->snapshot && !o->direct)
		return usage("ask", "--snapshot is for --direct");
	if (o->quiet && o->verbose)
		return usage("ask", "give one of --quiet and --verbose");
	return CLI_OK;
}

static int
parse(int argc, char **argv, struct ask_options *o, bool *ret_help)
{
	static const struct option options[] = {
		{ "route", required_argument, NULL, 'r' },         { "model", required_argument, NULL, 'm' },
		{ "target", required_argument, NULL, 't' },        { "file", required_argument, NULL, 'f' },
		{ "system", required_argument, NULL, OPT_SYSTEM }, { "max-tokens", required_argument, NULL, OPT_MAX_TOKENS },
		{ "body", required_argument, NULL, OPT_BODY },     { "deadline", required_argument, NULL, OPT_DEADLINE },
		{ "stream", no_argument, NULL, OPT_STREAM },       { "no-stream", no_argument, NULL, OPT_NO_STREAM },
		{ "json", no_argument, NULL, OPT_JSON },           { "reasoning", no_argument, NULL, OPT_REASONING },
		{ "verbose", no_argument, NULL, 'v' },             { "quiet", no_argument, NULL, 'q' },
		{ "direct", no_argument, NULL, OPT_DIRECT },       { "snapshot", required_argument, NULL, OPT_SNAPSHOT },
		{ "socket", required_argument, NULL, OPT_SOCKET }, { "help", no_argument, NULL, 'h' },
		{ NULL, 0, NULL, 0 },
	};
	bool stream_said = false;
	int opt;
	while ((opt = getopt_long(argc, argv, "r:m:t:f:vqh", options, NULL)) != -1) {
		switch (opt) {
		case 'r':
			o->route = optarg;
			break;
		case 'm':
			o->model = optarg;
			break;
		case 't':
			o->targets[o->n_targets++] = optarg;
			break;
		case 'f':
			o->files[o->n_files++] = optarg;
			break;
		case OPT_SYSTEM:
			o->system = optarg;
			break;
		case OPT_MAX_TOKENS:
			if (!parse_count(optarg, &o->max_tokens))
				return usage("ask", "--max-tokens takes a number from 1, not %s", optarg);
			break;
		case OPT_BODY:
			o->body = optarg;
			break;
		case OPT_DEADLINE:
			if (!parse_seconds(optarg, DEADLINE_MAX_MS, &o->deadline_ms))
				return usage("ask", "--deadline takes seconds from 0.001 to 86400, not %s", optarg);
			break;
		case OPT_STREAM:
		case OPT_NO_STREAM:
			o->stream = opt == OPT_STREAM;
			stream_said = true;
			break;
		case OPT_JSON:
			o->json = true;
			break;
		case OPT_REASONING:
			o->reasoning = true;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'q':
			o->quiet = true;
			break;
		case OPT_DIRECT:
			o->direct = true;
			break;
		case OPT_SNAPSHOT:
			o->snapshot = optarg;
			break;
		case OPT_SOCKET:
			o->socket = optarg;
			break;
		case 'h':
			*ret_help = true;
			return CLI_OK;
		default: /* getopt said what is wrong */
			(void)fputs("see: signalbox ask --help\n", stderr);
			return CLI_USAGE;
		}
	}
	o->words = argv + optind;
	o->n_words = (size_t)(argc - optind);
	if (!stream_said)
		o->stream = !o->json && isatty(STDOUT_FILENO);
	return check(o);
}

int
cmd_ask(int argc, char **argv)
{
	bool show_help = false;
	struct ask_options o = {
		.targets = must(calloc((size_t)argc, sizeof(char *))), /* no more than arguments */
		.files = must(calloc((size_t)argc, sizeof(char *))),
	};
	int status = parse(argc, argv, &o, &show_help);
	if (show_help)
		(void)fputs(help, stdout);
	else if (status == CLI_OK)
		status = ask(&o);
	free(o.targets);
	free(o.files);
	return status;
}
