/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c -- signalbox: the command for people and scripts. Finds the subcommand; each has a file of its own.
 */
#include "tools/signalbox/cli.h"

#include <string.h>

static const char help[] =
	"signalbox -- ask AI models through the signalbox agent of this host, and look at the agent\n"
	"\n"
	"usage: signalbox COMMAND [options]\n"
	"  ask      ask a model, by way of the first provider that can answer\n"
	"  health   who is up, how fast, at what price: read from shared memory, also when the agent hangs or is dead\n"
	"  status   what the agent itself counts, by a question to it\n"
	"  stats    what was asked, used and paid in a span of time\n"
	"  key      virtual keys, for programs that come by the HTTP door: create, list, revoke, rotate\n"
	"  reload   have the agent read its configuration again\n"
	"  help     help [COMMAND]: this text, or that of a command\n"
	"  version  the version of this program and of its library\n"
	"\n"
	"exit codes: 0 well; 1 the request failed, or something is down or refused; 2 the agent is not reachable, or hangs;\n"
	"            64 wrong arguments; 130 interrupted\n"
	"\n"
	"example:\n"
	"  signalbox ask -m openai/gpt-5.2 'Name three rivers'\n"
	"\n"
	"man page: signalbox(1)\n";

static int
cmd_version(int argc, char **argv)
{
	if (argc > 1)
		return usage("", "version takes no argument, not %s", argv[1]);
	(void)printf("signalbox %s (library %s)\n", SBX_VERSION, sbx_version());
	return CLI_OK;
}

static int cmd_help(int argc, char **argv);

static const struct command {
	const char *name;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "ask", cmd_ask }, { "health", cmd_health }, { "status", cmd_status }, { "stats", cmd_stats },
	{ "key", cmd_key }, { "reload", cmd_reload }, { "help", cmd_help }, { "version", cmd_version },
};
#define N_COMMANDS (sizeof commands / sizeof commands[0])

static const struct command *
find_command(const char *name)
{
	for (size_t i = 0; i < N_COMMANDS; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int
unknown_command(const char *name)
{
	const char *words[N_COMMANDS + 1] = { NULL };
	for (size_t i = 0; i < N_COMMANDS; i++)
		words[i] = commands[i].name;
	const char *meant = nearest_word(name, words);
	if (meant)
		return usage("", "there is no command \"%s\"; the nearest is \"%s\"", name, meant);
	return usage("", "there is no command \"%s\"", name);
}

static int
cmd_help(int argc, char **argv)
{
	static char ask_for_help[] = "--help";
	const struct command *c = argc > 1 ? find_command(argv[1]) : NULL;
	if (argc > 1 && !c)
		return unknown_command(argv[1]);
	if (!c || c->run == cmd_help || c->run == cmd_version) {
		(void)fputs(help, stdout);
		return CLI_OK;
	}
	return c->run(2, (char *[]){ argv[0], ask_for_help, NULL });
}

int
main(int argc, char **argv)
{
	if (argc < 2) {
		(void)fputs(help, stderr);
		return CLI_USAGE;
	}
	const char *name = argv[1];
	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0)
		name = "help";
	else if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		name = "version";
	else if (name[0] == '-')
		return usage("", "%s stands before a command, or is not an option", name);
	const struct command *c = find_command(name);
	if (!c)
		return unknown_command(name);
	char full_name[64];
	(void)snprintf(full_name, sizeof full_name, "signalbox %s", c->name);
	argv[1] = full_name; /* getopt's complaints begin with it */
	int status = c->run(argc - 1, argv + 1);
	int written = close_output();
	return status == CLI_OK ? written : status;
}
