/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c -- signalbox-http: arguments, start, end.
 *
 * The door needs neither a configuration file nor a reload: routes, keys of providers and limits of spending are the agent's.
 */
#include "tools/door/door.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <pwd.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/confine.h"
#include "agent/log.h"
#include "agent/sdnotify.h"

#define EXIT_USAGE 64
#define LISTEN_DEFAULT "127.0.0.1:8088"
#define COMMIT_AFTER_S 15 /* proxies give up on silence after 30 to 60 s, people earlier */
#define DRAIN_S 25        /* below the 30 s that service managers usually grant */
#define NOFILE_WANTED 1048576u

static const char help[] =
	"signalbox-http -- OpenAI's API in front of the signalbox agent of this host\n"
	"\n"
	"usage: signalbox-http [options]\n"
	"  --listen ADDRESS        HOST:PORT, tls:HOST:PORT or the path of a Unix socket; repeatable (default: " LISTEN_DEFAULT ")\n"
	"  --tls-cert FILE, --tls-key FILE\n"
	"                          in PEM; without them nothing but loopback is listened on\n"
	"  --key-file FILE         one key more than the agent's (signalbox key), for an agent without a store; made, and shown once,\n"
	"                          if it is not there\n"
	"  --trust-uid UID         this user needs no key on a Unix socket; repeatable\n"
	"  --host NAME             one more name that clients may call us by; repeatable\n"
	"  --origin URL            pages of this origin may ask; repeatable\n"
	"  --socket PATH           of the agent (default: $SIGNALBOX_SOCKET, else the usual places)\n"
	"  --commit-after SECONDS  a stream that waits so long is begun with a comment; 0 = never (default: 15)\n"
	"  --max-connections N     in all (default: 16384)\n"
	"  --max-per-address N     of one address beyond loopback (default: 256)\n"
	"  --compat litellm        LiteLLM's header names as well\n"
	"  --metrics-open          /metrics needs no key from this host\n"
	"  --log LEVEL             error, warning, notice, info or debug (default: info)\n"
	"  --drain SECONDS         how long SIGTERM waits for running requests (default: 25)\n"
	"  --version, --help\n"
	"\n"
	"example:\n"
	"  KEY=$(signalbox key create --tenant me)\n"
	"  signalbox-http &\n"
	"  curl http://" LISTEN_DEFAULT "/v1/chat/completions -H \"Authorization: Bearer $KEY\" \\\n"
	"       -H 'Content-Type: application/json' -d '{\"model\": \"openai/gpt-5.2\", \"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}]}'\n"
	"\n"
	"man page: signalbox-http(1)\n";

enum {
	OPT_LISTEN = 256, OPT_CERT, OPT_KEY, OPT_KEY_FILE, OPT_TRUST_UID, OPT_HOST, OPT_ORIGIN, OPT_SOCKET, OPT_COMMIT_AFTER, OPT_MAX_CONNECTIONS,
	OPT_MAX_PER_ADDRESS, OPT_COMPAT, OPT_METRICS_OPEN, OPT_LOG, OPT_DRAIN, OPT_VERSION, OPT_HELP,
};

static const struct option options[] = {
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "tls-cert", required_argument, NULL, OPT_CERT },
	{ "tls-key", required_argument, NULL, OPT_KEY },
	{ "key-file", required_argument, NULL, OPT_KEY_FILE },
	{ "trust-uid", required_argument, NULL, OPT_TRUST_UID },
	{ "host", required_argument, NULL, OPT_HOST },
	{ "origin", required_argument, NULL, OPT_ORIGIN },
	{ "socket", required_argument, NULL, OPT_SOCKET },
	{ "commit-after", required_argument, NULL, OPT_COMMIT_AFTER },
	{ "max-connections", required_argument, NULL, OPT_MAX_CONNECTIONS },
	{ "max-per-address", required_argument, NULL, OPT_MAX_PER_ADDRESS },
	{ "compat", required_argument, NULL, OPT_COMPAT },
	{ "metrics-open", no_argument, NULL, OPT_METRICS_OPEN },
	{ "log", required_argument, NULL, OPT_LOG },
	{ "drain", required_argument, NULL, OPT_DRAIN },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

/* ---- values ---- */

static bool
parse_seconds(const char *text, uint64_t *ret_ns)
{
	char *end;
	errno = 0;
	double seconds = strtod(text, &end);
	if (errno || end == text || *end || !isfinite(seconds) || seconds < 0 || seconds > 86400)
		return false;
	*ret_ns = (uint64_t)(seconds * 1e9);
	return true;
}

static bool
parse_number(const char *text, uint32_t least, uint32_t most, uint32_t *ret_number)
{
	char *end;
	errno = 0;
	unsigned long long n = strtoull(text, &end, 10);
	if (errno || *text < '0' || *text > '9' || *end || n < least || n > most)
		return false;
	*ret_number = (uint32_t)n;
	return true;
}

static bool
parse_uid(const char *text, uid_t *ret_uid)
{
	const struct passwd *user = getpwnam(text);
	uint32_t uid;
	if (user)
		*ret_uid = user->pw_uid;
	else if (parse_number(text, 0, UINT32_MAX - 1, &uid))
		*ret_uid = uid;
	return user || parse_number(text, 0, UINT32_MAX - 1, &uid);
}

static bool
add_text(const char **list, uint32_t *n, uint32_t max, const char *text)
{
	if (*n == max || !*text)
		return false;
	list[(*n)++] = text;
	return true;
}

/* 0, or -1: the value is none for this option. */
static int
take_option(struct door_options *o, int option, const char *value)
{
	enum sbx_log_level level;
	bool ok = true;
	switch (option) {
	case OPT_LISTEN:
		ok = add_text(o->listen, &o->n_listen, LISTENERS_MAX, value);
		break;
	case OPT_CERT:
		o->tls_cert = value;
		break;
	case OPT_KEY:
		o->tls_key = value;
		break;
	case OPT_KEY_FILE:
		o->key_file = value;
		break;
	case OPT_TRUST_UID:
		ok = o->n_trust_uid < NAMES_MAX && parse_uid(value, &o->trust_uid[o->n_trust_uid]);
		o->n_trust_uid += ok;
		break;
	case OPT_HOST:
		ok = add_text(o->host, &o->n_host, NAMES_MAX, value);
		break;
	case OPT_ORIGIN:
		ok = add_text(o->origin, &o->n_origin, NAMES_MAX, value);
		break;
	case OPT_SOCKET:
		o->agent_socket = value;
		break;
	case OPT_COMMIT_AFTER:
		ok = parse_seconds(value, &o->commit_after_ns);
		break;
	case OPT_MAX_CONNECTIONS:
		ok = parse_number(value, 1, 1000000, &o->max_connections);
		break;
	case OPT_MAX_PER_ADDRESS:
		ok = parse_number(value, 1, 1000000, &o->max_per_address);
		break;
	case OPT_COMPAT:
		ok = o->litellm = strcmp(value, "litellm") == 0;
		break;
	case OPT_METRICS_OPEN:
		o->metrics_open = true;
		break;
	case OPT_LOG:
		ok = sbx_log_level_parse(value, &level) == 0;
		if (ok)
			sbx_log_set_level(level);
		break;
	case OPT_DRAIN:
		ok = parse_seconds(value, &o->drain_ns);
		break;
	default:
		break;
	}
	return ok ? 0 : -1;
}

/* -1 to go on, else the exit status. */
static int
take_arguments(struct door_options *o, int argc, char **argv)
{
	int option, index = 0;
	while ((option = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (option == OPT_HELP) {
			(void)fputs(help, stdout);
			return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		}
		if (option == OPT_VERSION) {
			(void)printf("signalbox-http %s\n", SBX_VERSION);
			return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
		}
		if (option == '?') {
			(void)fputs("see: signalbox-http --help\n", stderr);
			return EXIT_USAGE;
		}
		if (take_option(o, option, optarg) < 0) {
			(void)fprintf(stderr, "signalbox-http: --%s: not a value for it, or one too many: %s\nsee: signalbox-http --help\n", options[index].name, optarg);
			return EXIT_USAGE;
		}
	}
	if (optind < argc) {
		(void)fprintf(stderr, "signalbox-http: no argument is expected: %s\nsee: signalbox-http --help\n", argv[optind]);
		return EXIT_USAGE;
	}
	if (!o->tls_cert != !o->tls_key) {
		(void)fputs("signalbox-http: --tls-cert and --tls-key belong together\n", stderr);
		return EXIT_USAGE;
	}
	if (o->n_listen == 0)
		o->listen[o->n_listen++] = LISTEN_DEFAULT;
	return -1;
}

/* ---- start and end ---- */

static void
harden(void)
{
	struct rlimit none = { 0, 0 }, files;
	(void)prctl(PR_SET_NAME, "signalbox-http"); /* started from a descriptor it has a number for a name */
	(void)prctl(PR_SET_DUMPABLE, 0); /* prompts and clients' keys pass through: no core file, no ptrace by the same user */
	(void)setrlimit(RLIMIT_CORE, &none);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max < NOFILE_WANTED ? files.rlim_max : NOFILE_WANTED;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

int
main(int argc, char **argv)
{
	static struct door door = {
		.options = {
			.commit_after_ns = COMMIT_AFTER_S * 1000000000ull,
			.drain_ns = DRAIN_S * 1000000000ull,
			.max_connections = CONNECTIONS_DEFAULT,
			.max_per_address = PER_ADDRESS_DEFAULT,
		},
		.epoll_fd = -1,
		.signal_fd = -1,
	};
	const struct sbx_log_opts log = sbx_log_default();
	sbx_log_init(&log);
	int rc = take_arguments(&door.options, argc, argv);
	if (rc >= 0)
		return rc;
	harden();
	rc = EXIT_FAILURE;
	if (server_open(&door) && links_open(&door) && listen_open(&door) && keys_open(&door)) {
		const int confined = sbx_confine();
		if (confined)
			sbx_log(SBX_LOG_NOTICE, "confine", SBX_STR("says", "this kernel or container lets no filter be set: starting programs is not denied"), SBX_ERRNO_F("error", confined));
		(void)sbx_sd_notify("READY=1");
		rc = server_run(&door);
	}
	server_close(&door);
	metrics_close(&door);
	links_close(&door);
	keys_close();
	sbx_log_tick(true);
	return rc;
}
