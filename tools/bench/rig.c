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
#include <sys/stat.h>
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
#define KEY_A "SBX_BENCH_KEY_A" /* in the environment: keys of models that nobody calls */
#define KEY_B "SBX_BENCH_KEY_B"

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
	(void)setenv(KEY_A, "key-a", 1);
	(void)setenv(KEY_B, "key-b", 1);
	(void)unsetenv("STATE_DIRECTORY"); /* an agent's state is in the directory of its socket, or there is none */
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
become(const char *const *argv, const char *log, int fd, bool no_files, pid_t parent)
{
	const struct rlimit nothing = { 0, 0 };
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
	if (no_files) { /* what is written to one fails, and so does giving a memfd its size: an agent then has no board */
		(void)signal(SIGXFSZ, SIG_IGN);
		(void)setrlimit(RLIMIT_FSIZE, &nothing);
	}
	(void)execv(argv[0], (char *const *)(uintptr_t)argv);
	_exit(127);
}

static bool
spawn(struct process *p, const char *name, const char *const *argv, const char *log, int fd, bool no_files)
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
		become(argv, log, fd, no_files, parent);
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

/* True when it ended with 0. */
static bool
run_to_end(const char *name, const char *const *argv, const char *log)
{
	struct process p;
	int status = -1;
	if (!spawn(&p, name, argv, log, -1, false))
		return false;
	while (!has_ended(&p, 0, &status) && errno == EINTR)
		;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool
program_run(const char *const *argv, const char *output)
{
	bool ok = run_to_end(argv[0], argv, output);
	if (!ok && !interrupted)
		say("%s fails", argv[0]);
	return ok;
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
		(void)run_to_end("rm", argv, NULL); /* what it leaves lies in /tmp */
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

void
rig_built(char *to, size_t bytes, const char *name)
{
	(void)snprintf(to, bytes, "%s/%s", rig.build, name);
}

void
rig_file(char *to, size_t bytes, const char *name)
{
	(void)snprintf(to, bytes, "%s/%s", rig.dir, name);
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
	rig_built(path, sizeof path, "signalbox-mock");
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
	if (!spawn(&d->process, "signalbox-mock", argv, NULL, -1, false))
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

/* The members of the provider that say with what keys and for what models it is used; and a route of the first ones. */
static void
write_models(FILE *f, uint32_t n)
{
	if (!n) {
		(void)fputs("\"key\": \"none\" } },\n", f);
		return;
	}
	(void)fputs("\"keys\": [\"env:" KEY_A "\", \"env:" KEY_B "\"], \"models\": {", f);
	for (uint32_t i = 0; i < n; i++)
		(void)fprintf(f, "%s\"m%u\": {}", i ? ", " : " ", i);
	(void)fputs(" } } },\n  \"routes\": { \"few\": { \"targets\": [", f);
	for (uint32_t i = 0; i < n && i < FEW_TARGETS; i++)
		(void)fprintf(f, "%s\"double/m%u\"", i ? ", " : " ", i);
	(void)fputs(" ] } },\n", f);
}

static bool
write_config(const char *path, const struct agent *a, const struct agent_as *as, const struct double_ *d)
{
	FILE *f = fopen(path, "we");
	if (!f) {
		say("%s: %s", path, strerror(errno));
		return false;
	}
	/* One user may have half of max_in_flight. Streams that are held still must not be taken for dead ones. */
	(void)fprintf(f,
	              "{ \"listen\": { \"socket\": \"%s\", \"admin_socket\": \"%s.admin\" },\n"
	              "  \"limits\": { \"max_in_flight\": 65536 },\n"
	              "  \"timeouts\": { \"idle_bytes_ms\": 3600000, \"idle_content_ms\": 3600000 },\n",
	              a->socket, a->socket);
	if (!as->alone)
		(void)fprintf(f, "  \"store\": \"%s/signalbox.db\",\n", a->dir);
	(void)fprintf(f, "  \"providers\": { \"double\": { \"dialect\": \"openai-chat\", \"base_url\": \"%s\", ", as->tls ? d->https : d->http);
	if (as->tls)
		(void)fprintf(f, "\"ca_file\": \"%s\", ", d->ca_file);
	write_models(f, as->n_models);
	(void)fputs("  \"attempts\": {} }\n", f);
	if (fclose(f)) {
		say("%s: %s", path, strerror(errno));
		return false;
	}
	return true;
}

bool
agent_spawn(struct agent *a, enum loop_kind loop, const struct double_ *d, const struct agent_as *as)
{
	char path[340], config[128], log[128];
	(void)snprintf(a->dir, sizeof a->dir, "%s/agent.%u", rig.dir, rig.n_started++);
	if (mkdir(a->dir, 0700)) {
		say("%s: %s", a->dir, strerror(errno));
		return false;
	}
	(void)snprintf(a->socket, sizeof a->socket, "%s/agent.sock", a->dir);
	(void)snprintf(config, sizeof config, "%s/config.json", a->dir);
	(void)snprintf(log, sizeof log, "%s/log", a->dir);
	if (!write_config(config, a, as, d))
		return false;
	rig_built(path, sizeof path, "signalboxd");
	const char *const argv[] = { path, "--config", config, "--loop", loop_words[loop], "--drain", "0", NULL };
	return spawn(&a->process, "signalboxd", argv, as->alone ? NULL : log, -1, as->alone);
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
agent_start(struct agent *a, enum loop_kind loop, const struct double_ *d, const struct agent_as *as)
{
	if (!agent_spawn(a, loop, d, as))
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
	const struct agent_as as = { 0 };
	struct agent a = { 0 };
	bool can = agent_spawn(&a, loop, &nobody, &as) && wait_until_serves(&a);
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
	bool ok = spawn(p, name, argv, NULL, fd[1], false);
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
	const char *const argv[] = { "/proc/self/exe", "--worker", "once", url, NULL };
	if (run_to_end("worker once", argv, NULL))
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
