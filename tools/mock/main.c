/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalbox-mock: a provider double that breaks on purpose.
 *
 * It speaks OpenAI's chat completions, completions, embeddings and model list over HTTP/1.1
 * (plain and TLS) and HTTP/2 (TLS), and misbehaves as rules tell it; see
 * faults.h for the language and signalbox-mock(1) for everything.
 *
 * This file: argv, listeners, signals, the ports file; build the world, run
 * it, take it down.
 */
#include "tools/mock/mock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

#define EXIT_USAGE 2

struct options {
	struct {
		const char *address; /* of argv */
		bool tls, control;
	} listen[MOCK_LISTENERS_MAX];
	size_t n_listen;
	struct mock_tls_options tls;
	const char *ports_path;
	const char *log_path;
	bool quiet;
};

static const char usage[] =
	"usage: signalbox-mock --listen ADDR [option ...]\n"
	"A provider double that breaks on purpose: OpenAI's chat completions, completions, embeddings and model list.\n"
	"\n"
	"  --listen HOST:PORT       plain HTTP/1.1; port 0 = any free one; repeatable\n"
	"  --tls-listen HOST:PORT   the same over TLS; repeatable\n"
	"  --control HOST:PORT      /mock/ only, deaf to stop-accept and accept faults; repeatable\n"
	"  --make-cert DIR          make ca.pem, cert.pem and key.pem in DIR and use them\n"
	"  --cert FILE              certificate chain, PEM\n"
	"  --cert-key FILE          its private key, PEM\n"
	"  --http2                  offer h2 by ALPN on TLS\n"
	"  --name NAME              shows in answers: \"hello from NAME\"; default \"mock\"\n"
	"  --key KEY                demand this bearer key\n"
	"  --rule 'MODEL: FAULTS'   first that matches wins; repeatable\n"
	"  --ports-file FILE        write {\"http\":[..],\"tls\":[..],\"control\":[..]} once listening\n"
	"  --log FILE               append a JSON line per ended request\n"
	"  --quiet                  do not say where it listens\n"
	"  --help                   this\n"
	"\n"
	"example:\n"
	"  signalbox-mock --listen 127.0.0.1:8080 --rule 'flaky: times=2,status=503' --rule 'slow*: first=2s' &\n"
	"  curl -sN http://127.0.0.1:8080/v1/chat/completions -d \\\n"
	"    '{\"model\":\"any@cut-tokens=2\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}'\n"
	"\n"
	"faults (comma-separated; TIME is N[us|ms|s], ms by default; in TEXT, \\, is a comma and \\n a line end):\n";

static struct mock mock; /* large (a 64 KiB read buffer), one per process */

const char *mock_date(struct mock *m)
{
	time_t now_s = time(NULL);

	if (now_s != m->date_s) {
		struct tm tm;

		m->date_s = now_s;
		(void)gmtime_r(&now_s, &tm);
		(void)strftime(m->date, sizeof(m->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
	}
	return m->date;
}

static int complain(const char *what)
{
	fprintf(stderr, "signalbox-mock: %s\n", what);
	return EXIT_USAGE;
}

static void put_ports(struct mock_bytes *out, const char *kind, bool tls, bool control)
{
	bool first = true;

	mock_bytes_fmt(out, "\"%s\":[", kind);
	for (size_t i = 0; i < mock.n_listeners; i++) {
		if (mock.listeners[i].tls != tls || mock.listeners[i].control != control)
			continue;
		mock_bytes_fmt(out, "%s%u", first ? "" : ",", ntohs(mock.listeners[i].address.sin_port));
		first = false;
	}
	mock_bytes_putc(out, ']');
}

/* By way of a temporary name: whoever sees the file sees all of it. */
static int write_ports(const char *path)
{
	struct mock_bytes text = { 0 };
	char *temp = NULL;
	FILE *file = NULL;
	int rc = -1;

	mock_bytes_putc(&text, '{');
	put_ports(&text, "http", false, false);
	mock_bytes_putc(&text, ',');
	put_ports(&text, "tls", true, false);
	mock_bytes_putc(&text, ',');
	put_ports(&text, "control", false, true);
	mock_bytes_lit(&text, "}\n");
	if (asprintf(&temp, "%s.tmp.%d", path, (int)getpid()) < 0) {
		temp = NULL;
		goto out;
	}
	file = fopen(temp, "we");
	if (file == NULL || fwrite(mock_bytes_at(&text), 1, text.n, file) != text.n)
		goto out;
	rc = fclose(file);
	file = NULL;
	if (rc == 0)
		rc = rename(temp, path);
out:
	if (rc != 0)
		fprintf(stderr, "signalbox-mock: %s: %s\n", path, strerror(errno));
	if (file != NULL)
		(void)fclose(file);
	free(temp);
	mock_bytes_fini(&text);
	return rc;
}

static void say_listening(void)
{
	for (size_t i = 0; i < mock.n_listeners; i++) {
		const struct mock_listener *listener = &mock.listeners[i];
		char host[INET_ADDRSTRLEN] = "";

		(void)inet_ntop(AF_INET, &listener->address.sin_addr, host, sizeof(host));
		fprintf(stderr, "signalbox-mock: %s listens on %s://%s:%u%s\n", mock.name,
		    listener->tls ? "https" : "http",
		    host, ntohs(listener->address.sin_port), listener->control ? "/mock/" : "");
	}
}

/* As many connections as the system lets us have. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void on_signal(struct mock_source *source, uint32_t events)
{
	struct signalfd_siginfo info;

	(void)events;
	if (read(source->fd, &info, sizeof(info)) == (ssize_t)sizeof(info))
		mock.loop.stop = true;
}

/* SIGTERM and SIGINT become events; -1 on failure. */
static int watch_signals(struct mock_source *source)
{
	sigset_t set;

	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
	*source = (struct mock_source){ .fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC), .on_event = on_signal };
	return source->fd < 0 ? -1 : mock_loop_watch(&mock.loop, source, EPOLLIN);
}

static void print_help(void)
{
	struct mock_bytes text = { 0 };

	mock_bytes_puts(&text, usage);
	mock_faults_help(&text);
	(void)fwrite(mock_bytes_at(&text), 1, text.n, stdout);
	mock_bytes_fini(&text);
}

enum { OPT_LISTEN = 256, OPT_TLS_LISTEN, OPT_CONTROL, OPT_MAKE_CERT, OPT_CERT, OPT_CERT_KEY, OPT_HTTP2, OPT_NAME,
	   OPT_KEY, OPT_RULE, OPT_PORTS_FILE, OPT_LOG, OPT_QUIET, OPT_HELP };

static const struct option long_options[] = {
	{ "listen", required_argument, NULL, OPT_LISTEN },
	{ "tls-listen", required_argument, NULL, OPT_TLS_LISTEN },
	{ "control", required_argument, NULL, OPT_CONTROL },
	{ "make-cert", required_argument, NULL, OPT_MAKE_CERT },
	{ "cert", required_argument, NULL, OPT_CERT },
	{ "cert-key", required_argument, NULL, OPT_CERT_KEY },
	{ "http2", no_argument, NULL, OPT_HTTP2 },
	{ "name", required_argument, NULL, OPT_NAME },
	{ "key", required_argument, NULL, OPT_KEY },
	{ "rule", required_argument, NULL, OPT_RULE },
	{ "ports-file", required_argument, NULL, OPT_PORTS_FILE },
	{ "log", required_argument, NULL, OPT_LOG },
	{ "quiet", no_argument, NULL, OPT_QUIET },
	{ "help", no_argument, NULL, OPT_HELP },
	{ 0 },
};

/* 0 = run; else the exit status plus one. */
static int parse_argv(int argc, char **argv, struct options *o)
{
	char error[512];
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case OPT_LISTEN:
		case OPT_TLS_LISTEN:
		case OPT_CONTROL:
			if (o->n_listen == MOCK_LISTENERS_MAX)
				return complain("too many listeners") + 1;
			o->listen[o->n_listen].address = optarg;
			o->listen[o->n_listen].tls = c == OPT_TLS_LISTEN;
			o->listen[o->n_listen++].control = c == OPT_CONTROL;
			break;
		case OPT_MAKE_CERT: o->tls.make_dir = optarg; break;
		case OPT_CERT: o->tls.cert_path = optarg; break;
		case OPT_CERT_KEY: o->tls.key_path = optarg; break;
		case OPT_HTTP2: o->tls.http2 = true; break;
		case OPT_NAME: mock.name = optarg; break;
		case OPT_KEY: mock.key = optarg; break;
		case OPT_RULE:
			if (mock_rules_add(mock.rules, optarg, strlen(optarg), false, error, sizeof(error)) < 0)
				return complain(error) + 1;
			break;
		case OPT_PORTS_FILE: o->ports_path = optarg; break;
		case OPT_LOG: o->log_path = optarg; break;
		case OPT_QUIET: o->quiet = true; break;
		case OPT_HELP: print_help(); return 1;
		default: return complain("see signalbox-mock --help") + 1;
		}
	}
	if (optind < argc)
		return complain("an argument without an option; see signalbox-mock --help") + 1;
	if (o->n_listen == 0)
		return complain("nothing to listen on; try --listen 127.0.0.1:0, or --help") + 1;
	return 0;
}

static int open_world(const struct options *o, struct mock_source *signals)
{
	char error[512];
	bool tls = false;

	for (size_t i = 0; i < o->n_listen; i++)
		tls = tls || o->listen[i].tls;
	if (tls && o->tls.make_dir == NULL && (o->tls.cert_path == NULL || o->tls.key_path == NULL))
		return complain("--tls-listen wants --make-cert, or --cert and --cert-key");
	if ((tls || o->tls.make_dir != NULL) && mock_tls_init(&mock, &o->tls, error, sizeof(error)) < 0)
		return complain(error);
	if (o->log_path != NULL && mock_log_open_file(mock.log, o->log_path) < 0)
		return complain("the --log file cannot be opened");
	if (watch_signals(signals) < 0)
		return complain("signalfd failed");
	for (size_t i = 0; i < o->n_listen; i++)
		if (mock_listener_open(&mock, o->listen[i].address, o->listen[i].tls, o->listen[i].control, error,
		    sizeof(error)) < 0)
			return complain(error);
	mock_bytes_fmt(&mock.greeting, "hello from %s", mock.name);
	if (o->ports_path != NULL && write_ports(o->ports_path) != 0)
		return 1;
	if (!o->quiet)
		say_listening();
	return 0;
}

int main(int argc, char **argv)
{
	struct mock_source signals = { .fd = -1 };
	struct options options = { 0 };
	int rc;

	mock.name = "mock";
	mock.log = mock_log_new(&mock);
	mock.rules = mock_rules_new();
	if (mock.log == NULL || mock.rules == NULL || mock_loop_init(&mock.loop) < 0) {
		rc = complain("no memory, or no epoll") + 1;
		goto out;
	}
	raise_descriptor_limit();
	rc = parse_argv(argc, argv, &options);
	if (rc != 0)
		goto out;
	rc = open_world(&options, &signals) + 1;
	if (rc == 1)
		mock_loop_run(&mock.loop);
out:
	mock_conn_free_all(&mock);
	for (size_t i = 0; i < mock.n_listeners; i++)
		mock_listener_close(&mock.listeners[i]);
	if (signals.fd >= 0)
		(void)close(signals.fd);
	mock_tls_fini(&mock);
	mock_rules_free(mock.rules);
	mock_log_free(mock.log);
	mock_bytes_fini(&mock.greeting);
	mock_loop_fini(&mock.loop);
	return rc - 1;
}
