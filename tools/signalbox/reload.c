/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reload.c -- `signalbox reload`: the agent reads its configuration again, over the admin socket, and says what it thinks of it.
 */
#include "tools/signalbox/cli.h"

#include <getopt.h>
#include <string.h>

#define ANSWER_TIMEOUT_MS 30000 /* reading key files from a slow disk; it is no request, and has no deadline of its own */

static const char help[] =
	"usage: signalbox reload [--socket ADMIN]\n"
	"Have the agent read its configuration again. It is validated whole before it is taken over: a bad one is refused with every\n"
	"mistake and its line, and the old one stays. Requests in flight end under the configuration they began with.\n"
	"\n"
	"      --socket ADMIN  the agent's admin socket (default: admin.sock beside the agent's socket, which is looked for as by\n"
	"                      the other commands); it belongs to the agent's user\n"
	"  -h, --help\n"
	"\n"
	"exit codes: 0 taken over, with notes if any; 1 refused; 2 the agent is not reachable; 64 wrong arguments; 130 interrupted\n"
	"\n"
	"example:\n"
	"  signalboxd --check && signalbox reload\n";

static int
reload(const char *path)
{
	const struct term out = term_of(stdout), err = term_of(stderr);
	struct sbx_client *c;
	struct sbx_event ev;
	const char *notes = "";
	uint64_t id;
	interrupt_init();
	int status = agent_open(path, false, &c);
	if (status)
		return status;
	int rc = sbx_reload(c, &id);
	if (rc == 0)
		rc = agent_next(c, ANSWER_TIMEOUT_MS, true, &ev);
	if (rc == AGENT_INTERRUPTED) {
		status = CLI_SIGNAL + interrupt_signal();
	} else if (rc) {
		(void)fprintf(stderr, "signalbox: %s\n", sbx_client_error(c));
		status = CLI_NO_AGENT;
	} else if (ev.note == SBX_NOTE_ERROR && sbx_reply_code(ev.reply) == SBX_CODE_INVALID_REQUEST) {
		const char *said = sbx_reply_message(ev.reply);
		size_t n = strlen(said);
		term_put(&err, said, n);
		term_say(&err, STYLE_BAD, "%ssignalbox: the new configuration is refused; the agent goes on with the old one\n",
		         n && said[n - 1] != '\n' ? "\n" : "");
		status = CLI_FAILED;
	} else if (ev.note == SBX_NOTE_ERROR) {
		bool lost = sbx_reply_code(ev.reply) == SBX_CODE_AGENT_LOST;
		term_say(&err, STYLE_BAD, "signalbox: %s: %s\n", sbx_reply_code_word(ev.reply), sbx_reply_message(ev.reply));
		status = lost ? CLI_NO_AGENT : CLI_FAILED;
	} else {
		(void)sbx_reply_string(ev.reply, "notes", &notes);
		term_put(&out, notes, strlen(notes));
		(void)puts("the new configuration is in use");
	}
	sbx_close(c);
	return status;
}

int
cmd_reload(int argc, char **argv)
{
	static const struct option options[] = {
		{ "socket", required_argument, NULL, 's' }, { "help", no_argument, NULL, 'h' }, { NULL, 0, NULL, 0 },
	};
	char path[4096];
	const char *socket = NULL;
	int opt;
	while ((opt = getopt_long(argc, argv, "h", options, NULL)) != -1) {
		switch (opt) {
		case 's':
			socket = optarg;
			break;
		case 'h':
			(void)fputs(help, stdout);
			return CLI_OK;
		default: /* getopt said what is wrong */
			(void)fputs("see: signalbox reload --help\n", stderr);
			return CLI_USAGE;
		}
	}
	if (optind < argc)
		return usage("reload", "it takes no argument, not %s", argv[optind]);
	if (!socket && !agent_path_beside(NULL, "admin.sock", path, sizeof path))
		return usage("reload", "the path of the agent's socket is too long");
	return reload(socket ? socket : path);
}
