/* SPDX-License-Identifier: Apache-2.0 */
/*
 * rig.c -- the processes of the bench: starting them, giving orders, reading their clocks, ending them. See bench.h.
 *
 * Whatever is started dies with the bench (PR_SET_PDEATHSIG) and is in one table, so that every way out, Ctrl-C too, ends
 * them all and removes the directory with their files.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <jansson.h>

#include <signalbox.h>

#define RUNNING_MAX 16u
#define START_NS 10000000000ull  /* for a program to be ready: a busy machine gets ten seconds */
#define STOP_NS 5000000000ull    /* then SIGKILL: nothing of it is needed any more */
#define ORDER_NS 120000000000ull /* ten thousand TLS connections on a slow machine */
#define TRY_EVERY_NS 1000000u

const char *const loop_words[LOOP__COUNT] = { "uring", "epoll" };
const char *const loop_names[LOOP__COUNT] = { "io_uring", "epoll" };

static struct {
	char dir[64];
	char build[300];           /* where the programs are */
	pid_t running[RUNNING_MAX];
	unsigned n_started;        /* names files */
} rig;
static volatile sig_atomic_t interrupted;

void
say(const char *fmt, ...)
{
	va_list ap;
	progress_clear();
	(void)fputs("bench: ", stderr);
	va_start(ap, fmt);
	(void)vfprintf(stderr, fmt, ap);
	va_end(ap);
	(void)fputc('\n', stderr);
}

static void
on_interrupt(int signal_number)
{
	interrupted = signal_number;
}

bool
rig_interrupted(void)
{
	return interrupted != 0;
}

bool
rig_open(void)
{
	struct rlimit files;
	const char *build = getenv("SBX_BUILD");
	struct sigaction on = { .sa_handler = on_interrupt }; /* no SA_RESTART: waits shall end */
	(void)sigaction(SIGINT, &on, NULL);
	(void)sigaction(SIGTERM, &on, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) { /* inherited by the workers, who need one for each stream */
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (build) {
		(void)snprintf(rig.build, sizeof rig.build, "%s", build);
	} else {
		ssize_t n = readlink("/proc/self/exe", rig.build, sizeof rig.build - 1);
		rig.build[n > 0 ? n : 0] = 0;
		char *slash = strrchr(rig.build, '/');
		if (slash)
			*slash = 0;
	}
	(void)snprintf(rig.dir, sizeof rig.dir, "/tmp/sbx-bench-XXXXXX");
	if (!mkdtemp(rig.dir)) {
		say("%s: %s", rig.dir, strerror(errno));
		rig.dir[0] = 0;
		return false;
	}
	return true;
}

void
pause_ns(uint64_t ns)
{
	struct timespec ts = { (time_t)(ns / 1000000000u), (long)(ns % 1000000000u) };
	(void)nanosleep(&ts, NULL); /* cut short by an interruption, which the caller sees */
}

/* ---- processes ---- */

/* In the child. fd: the worker's end of its socket, or -1. */
_Noreturn static void
become(const char *const *argv, const char *log, int fd, pid_t parent)
{
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(127); /* it was gone before */
	int none = open("/dev/null", O_RDWR), out = log ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0600) : none;
	(void)dup2(none, 0);
	(void)dup2(out, 1);
	(void)dup2(out, 2);
	if (fd >= 0 && fd != WORKER_FD)
		(void)dup2(fd, WORKER_FD);
	else if (fd >= 0)
		(void)fcntl(fd, F_SETFD, 0);
	for (int i = fd >= 0 ? WORKER_FD + 1 : WORKER_FD; i < 64; i++)
		(void)close(i);
	(void)execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static bool
spawn(struct process *p, const char *name, const char *const *argv, const char *log, int fd)
{
	uint32_t place = 0;
	while (place < RUNNING_MAX && rig.running[place])
		place++;
	pid_t parent = getpid(), pid = place < RUNNING_MAX ? fork() : -1;
	if (pid < 0) {
		say("%s cannot be started: %s", name, strerror(errno));
		return false;
	}
	if (pid == 0)
		become(argv, log, fd, parent);
	rig.running[place] = pid;
	p->pid = pid;
	p->fd = -1;
	(void)snprintf(p->name, sizeof p->name, "%s", name);
	return true;
}

/* True once it has ended. */
static bool
has_ended(struct process *p, int wait_options, int *ret_status)
{
	int status = 0;
	if (waitpid(p->pid, &status, wait_options) != p->pid)
		return false;
	for (uint32_t i = 0; i < RUNNING_MAX; i++)
		if (rig.running[i] == p->pid)
			rig.running[i] = 0;
	p->pid = 0;
	if (ret_status)
		*ret_status = status;
	return true;
}

void
process_stop(struct process *p)
{
	if (p->pid) {
		uint64_t until = now_ns() + STOP_NS;
		if (p->fd >= 0) {
			(void)close(p->fd); /* a worker ends when its bench is gone */
			p->fd = -1;
		}
		(void)kill(p->pid, SIGTERM);
		while (!has_ended(p, WNOHANG, NULL)) {
			if (now_ns() > until)
				(void)kill(p->pid, SIGKILL);
			pause_ns(TRY_EVERY_NS);
		}
	}
}

void
rig_close(void)
{
	for (uint32_t i = 0; i < RUNNING_MAX; i++) {
		if (!rig.running[i])
			continue;
		(void)kill(rig.running[i], SIGKILL);
		while (waitpid(rig.running[i], NULL, 0) < 0 && errno == EINTR)
			;
		rig.running[i] = 0;
	}
	if (rig.dir[0]) {
		const char *const argv[] = { "/bin/rm", "-rf", rig.dir, NULL };
		struct process rm;
		if (spawn(&rm, "rm", argv, NULL, -1))
			while (!has_ended(&rm, 0, NULL) && errno == EINTR)
				;
	}
	progress_clear();
}

uint64_t
process_cpu_ns(const struct process *p)
{
	clockid_t clock;
	struct timespec ts;
	if (clock_getcpuclockid(p->pid, &clock) || clock_gettime(clock, &ts))
		return 0;
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t
process_rss_bytes(const struct process *p)
{
	char path[48];
	unsigned long long pages = 0;
	(void)snprintf(path, sizeof path, "/proc/%d/statm", (int)p->pid);
	FILE *f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%*u %llu", &pages) != 1)
			pages = 0;
		(void)fclose(f); /* it was only read */
	}
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void
program(char *to, size_t bytes, const char *name)
{
	(void)snprintf(to, bytes, "%s/%s", rig.build, name);
}

/* ---- the double ---- */

static const char *
base_url(char *to, size_t bytes, const json_t *ports, const char *kind, const char *scheme)
{
	json_int_t port = json_integer_value(json_array_get(json_object_get(ports, kind), 0));
	(void)snprintf(to, bytes, "%s://127.0.0.1:%d/v1", scheme, (int)port);
	return to;
}

bool
double_start(struct double_ *d, bool tls)
{
	char path[340], ports[128], certs[128], text[BODY_DOWN_BYTES], rule[sizeof text + 32];
	const char *argv[24];
	int n = 0;
	/* With its own frame of 373 bytes, an answer of BODY_DOWN_BYTES. */
	const size_t text_bytes = BODY_DOWN_BYTES - 373;
	memset(text, 'w', text_bytes);
	text[text_bytes] = 0;
	(void)snprintf(rule, sizeof rule, "call: text=%s", text);
	program(path, sizeof path, "signalbox-mock");
	(void)snprintf(ports, sizeof ports, "%s/ports.%u", rig.dir, rig.n_started);
	(void)snprintf(certs, sizeof certs, "%s/cert.%u", rig.dir, rig.n_started++);
	const char *const usual[] = { path, "--listen", "127.0.0.1:0", "--ports-file", ports, "--quiet", "--rule", rule,
	                              "--rule", "tick: gap=10ms,tokens=1000000", "--rule", "hold: gap=3600s,first=0ms,tokens=3" };
	for (size_t i = 0; i < sizeof usual / sizeof usual[0]; i++)
		argv[n++] = usual[i];
	if (tls) {
		argv[n++] = "--tls-listen";
		argv[n++] = "127.0.0.1:0";
		argv[n++] = "--make-cert";
		argv[n++] = certs;
	}
	argv[n] = NULL;
	if (!spawn(&d->process, "signalbox-mock", argv, NULL, -1))
		return false;
	for (uint64_t until = now_ns() + START_NS; now_ns() < until && !interrupted; pause_ns(TRY_EVERY_NS)) {
		json_t *j = json_load_file(ports, 0, NULL);
		if (j) {
			(void)base_url(d->http, sizeof d->http, j, "http", "http");
			(void)base_url(d->https, sizeof d->https, j, "tls", "https");
			json_decref(j);
			d->ca_file[0] = 0;
			if (tls)
				(void)snprintf(d->ca_file, sizeof d->ca_file, "%s/ca.pem", certs);
			return true;
		}
		if (has_ended(&d->process, WNOHANG, NULL))
			break;
	}
	say("%s does not start", path);
	return false;
}

/* ---- agents ---- */

bool
agent_spawn(struct agent *a, enum loop_kind loop, const struct double_ *d, bool tls)
{
	char path[340], config[128], log[128], ca[200] = "";
	(void)snprintf(a->socket, sizeof a->socket, "%s/agent.%u.sock", rig.dir, rig.n_started);
	(void)snprintf(config, sizeof config, "%s/agent.%u.json", rig.dir, rig.n_started);
	(void)snprintf(log, sizeof log, "%s/agent.%u.log", rig.dir, rig.n_started++);
	FILE *f = fopen(config, "we");
	if (!f) {
		say("%s: %s", config, strerror(errno));
		return false;
	}
	if (tls)
		(void)snprintf(ca, sizeof ca, ", \"ca_file\": \"%s\"", d->ca_file);
	/* One user may have half of max_in_flight. Streams that are held still must not be taken for dead ones. */
	(void)fprintf(f,
	              "{ \"listen\": { \"socket\": \"%s\", \"admin_socket\": \"%s.admin\" },\n"
	              "  \"providers\": { \"double\": { \"dialect\": \"openai-chat\", \"base_url\": \"%s\", \"key\": \"none\"%s } },\n"
	              "  \"limits\": { \"max_in_flight\": 65536 },\n"
	              "  \"timeouts\": { \"idle_bytes_ms\": 3600000, \"idle_content_ms\": 3600000 } }\n",
	              a->socket, a->socket, tls ? d->https : d->http, ca);
	if (fclose(f)) {
		say("%s: %s", config, strerror(errno));
		return false;
	}
	program(path, sizeof path, "signalboxd");
	const char *const argv[] = { path, "--config", config, "--loop", loop_words[loop], "--drain", "0", NULL };
	return spawn(&a->process, "signalboxd", argv, log, -1);
}

static bool
serves(const struct agent *a)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	o.socket = a->socket;
	int rc = sbx_open(&o, &c);
	sbx_close(c);
	return rc == 0;
}

static bool
wait_until_serves(struct agent *a)
{
	for (uint64_t until = now_ns() + START_NS; now_ns() < until && !interrupted; pause_ns(TRY_EVERY_NS)) {
		if (serves(a))
			return true;
		if (has_ended(&a->process, WNOHANG, NULL))
			break;
	}
	return false;
}

bool
agent_start(struct agent *a, enum loop_kind loop, const struct double_ *d, bool tls)
{
	if (!agent_spawn(a, loop, d, tls))
		return false;
	if (wait_until_serves(a))
		return true;
	if (!interrupted)
		say("signalboxd --loop %s does not start", loop_words[loop]);
	return false;
}

bool
agent_can_run(enum loop_kind loop)
{
	const struct double_ nobody = { .http = "http://127.0.0.1:9/v1" };
	struct agent a = { 0 };
	bool can = agent_spawn(&a, loop, &nobody, false) && wait_until_serves(&a);
	process_stop(&a.process);
	return can;
}

/* ---- workers ---- */

bool
worker_start(struct process *p, const char *kind)
{
	int fd[2];
	char name[24];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fd)) {
		say("socketpair: %s", strerror(errno));
		return false;
	}
	(void)snprintf(name, sizeof name, "worker %s", kind);
	const char *const argv[] = { "/proc/self/exe", "--worker", kind, NULL };
	bool ok = spawn(p, name, argv, NULL, fd[1]);
	(void)close(fd[1]);
	if (!ok) {
		(void)close(fd[0]);
		return false;
	}
	p->fd = fd[0];
	return true;
}

bool
once_run(const char *url)
{
	struct process p;
	int status = -1;
	const char *const argv[] = { "/proc/self/exe", "--worker", "once", url, NULL };
	if (!spawn(&p, "worker once", argv, NULL, -1))
		return false;
	while (!has_ended(&p, 0, &status) && errno == EINTR && !interrupted)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return true;
	if (!interrupted)
		say("the bare program cannot reach the double");
	return false;
}

bool
tell(struct process *worker, const struct order *o, struct outcome *ret)
{
	struct pollfd wait = { .fd = worker->fd, .events = POLLIN };
	struct outcome got;
	if (send(worker->fd, o, sizeof *o, MSG_NOSIGNAL) != (ssize_t)sizeof *o) {
		say("%s is gone", worker->name);
		return false;
	}
	for (uint64_t until = now_ns() + ORDER_NS; now_ns() < until && !interrupted;) {
		if (poll(&wait, 1, 200) <= 0)
			continue;
		if (recv(worker->fd, &got, sizeof got, 0) != (ssize_t)sizeof got)
			break;
		if (got.failed) {
			say("%s: %u failed; %s", worker->name, got.failed, got.why);
			return false;
		}
		*ret = got;
		return true;
	}
	if (!interrupted)
		say("%s does not answer", worker->name);
	return false;
}
