/* SPDX-License-Identifier: Apache-2.0 */
/* harness.c -- see harness.h: processes, files, waiting. Talking to doubles is in control.c. */
#include "tests/e2e/harness.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <setjmp.h>
#include <cmocka.h>
#include <jansson.h>

#include "client/buf.h"
#include "tests/e2e/control.h"

#define START_MS 20000 /* a sanitized program on a busy machine */

uint64_t
now_ns(void)
{
	struct timespec ts;
	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t
now_ms(void)
{
	return now_ns() / 1000000u;
}

void
pause_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}

/* ---- files ---- */

char *
read_whole(const char *path, size_t *ret_bytes)
{
	FILE *f = fopen(path, "re");
	if (!f)
		return NULL;
	struct sbx_buf b;
	sbx_buf_init(&b, 1u << 30);
	for (;;) {
		uint8_t *room = sbx_buf_reserve(&b, 65537);
		size_t n = room ? fread(room, 1, 65536, f) : 0;
		if (!n)
			break;
		sbx_buf_commit(&b, n);
	}
	(void)fclose(f);
	(void)sbx_buf_append(&b, "", 1);
	size_t n;
	char *text = (char *)sbx_buf_take(&b, &n);
	if (ret_bytes)
		*ret_bytes = n - 1;
	return text;
}

static void
write_whole(const char *path, const char *text)
{
	FILE *f = fopen(path, "we");
	if (!f || fputs(text, f) == EOF || fclose(f))
		fail_msg("cannot write %s: %s", path, strerror(errno));
}

bool
log_has(struct world *w, const char *text)
{
	char *log = read_whole(w->log_path, NULL);
	bool has = log && strstr(log, text);
	free(log);
	return has;
}

/* ---- processes ---- */

const char *
program(const char *name)
{
	static char path[512];
	const char *build = getenv("SBX_BUILD");
	char self[400];
	if (!build) {
		ssize_t n = readlink("/proc/self/exe", self, sizeof self - 8);
		self[n > 0 ? n : 0] = 0;
		char *slash = strrchr(self, '/');
		if (slash)
			(void)snprintf(slash, 8, "/..");
		build = self;
	}
	(void)snprintf(path, sizeof path, "%s/%s", build, name);
	return path;
}

/* As a container's profile does it: the call fails, everything else goes on. */
static void
deny(int call, int error)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)call, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program_ = { sizeof code / sizeof code[0], code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program_))
		_exit(126);
}

/* In the child, before exec. */
static void
apply(const struct start *how)
{
	for (int i = 0; how->env && how->env[i]; i++)
		if (strchr(how->env[i], '='))
			(void)putenv((char *)(uintptr_t)how->env[i]);
		else
			(void)unsetenv(how->env[i]);
	if (how->n_listen_fds) {
		char text[16];
		(void)snprintf(text, sizeof text, "%d", (int)getpid());
		(void)setenv("LISTEN_PID", text, 1);
		(void)snprintf(text, sizeof text, "%d", how->n_listen_fds);
		(void)setenv("LISTEN_FDS", text, 1);
		if (how->listen_names)
			(void)setenv("LISTEN_FDNAMES", how->listen_names, 1);
	}
	if (how->nofile) {
		struct rlimit limit = { how->nofile, how->nofile };
		(void)setrlimit(RLIMIT_NOFILE, &limit);
	}
	if (how->denied_call)
		deny(how->denied_call, how->denied_errno);
}

static pid_t
spawn_as(const char *const *argv, const char *log_path, const struct start *how)
{
	pid_t pid = fork();
	if (pid < 0)
		fail_msg("fork: %s", strerror(errno));
	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a test that fails does not come to its world_down() */
		int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND, 0600), none = open("/dev/null", O_RDONLY);
		(void)dup2(none, 0);
		(void)dup2(log, 1);
		(void)dup2(log, 2);
		int keep[2] = { -1, -1 };
		for (int i = 0; i < how->n_listen_fds; i++)
			keep[i] = fcntl(how->listen_fd[i], F_DUPFD, 256);
		for (int fd = 3; fd < 256; fd++)
			(void)close(fd);
		for (int i = 0; i < how->n_listen_fds; i++) {
			(void)dup2(keep[i], 3 + i);
			(void)close(keep[i]);
		}
		apply(how);
		(void)execv(argv[0], (char *const *)argv);
		_exit(127);
	}
	return pid;
}

static pid_t
spawn(const char *const *argv, const char *log_path)
{
	return spawn_as(argv, log_path, &(struct start){ 0 });
}

/* Exit status, or 128 + signal; -1 = still running after timeout_ms. */
static int
wait_exit(pid_t pid, int timeout_ms)
{
	uint64_t until = now_ms() + (uint64_t)timeout_ms;
	for (;;) {
		int status;
		pid_t got = waitpid(pid, &status, WNOHANG);
		if (got == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
		if (now_ms() >= until)
			return -1;
		pause_ms(2);
	}
}

/* ---- a world ---- */

void
world_up(struct world *w)
{
	memset(w, 0, sizeof *w);
	(void)snprintf(w->dir, sizeof w->dir, "/tmp/sbx-e2e-XXXXXX");
	if (!mkdtemp(w->dir))
		fail_msg("mkdtemp: %s", strerror(errno));
	(void)snprintf(w->socket, sizeof w->socket, "%s/agent.sock", w->dir);
	(void)snprintf(w->admin_socket, sizeof w->admin_socket, "%s/admin.sock", w->dir);
	(void)snprintf(w->config_path, sizeof w->config_path, "%s/config.json", w->dir);
	(void)snprintf(w->log_path, sizeof w->log_path, "%s/agent.log", w->dir);
	char key[200];
	(void)snprintf(key, sizeof key, "%s/key", w->dir);
	write_whole(key, WORLD_KEY "\n");
	(void)chmod(key, 0400);
	(void)setenv("STATE_DIRECTORY", w->dir, 1); /* as a service manager says where to keep the store: every test runs with one */
}

int
world_double(struct world *w, const char *name, const char *const *args)
{
	struct double_ *d = &w->dbl[w->n_doubles];
	char ports[200], log[200], ca[200];
	const char *argv[64];
	int n = 0;
	assert_true(w->n_doubles < WORLD_DOUBLES_MAX);
	(void)snprintf(d->name, sizeof d->name, "%s", name);
	(void)snprintf(ports, sizeof ports, "%s/%s.ports", w->dir, name);
	(void)snprintf(log, sizeof log, "%s/%s.log", w->dir, name);
	(void)snprintf(ca, sizeof ca, "%s/%s-cert", w->dir, name);
	argv[n++] = strdup(program("signalbox-mock"));
	argv[n++] = "--listen";
	argv[n++] = "127.0.0.1:0";
	argv[n++] = "--control";
	argv[n++] = "127.0.0.1:0";
	argv[n++] = "--name";
	argv[n++] = name;
	argv[n++] = "--ports-file";
	argv[n++] = ports;
	argv[n++] = "--quiet";
	bool tls = false, any_key = false;
	for (int i = 0; args && args[i]; i++) {
		tls = tls || strcmp(args[i], "--tls-listen") == 0;
		any_key = any_key || strcmp(args[i], DOUBLE_ANY_KEY) == 0;
	}
	if (!any_key) { /* before what the test says, which may name another */
		argv[n++] = "--key";
		argv[n++] = WORLD_KEY;
	}
	for (int i = 0; args && args[i]; i++)
		if (strcmp(args[i], DOUBLE_ANY_KEY) != 0)
			argv[n++] = args[i];
	if (tls) {
		argv[n++] = "--make-cert";
		argv[n++] = ca;
	}
	argv[n] = NULL;
	d->pid = spawn(argv, log);
	free((char *)(uintptr_t)argv[0]);
	uint64_t until = now_ms() + START_MS;
	for (;;) {
		json_t *j = json_load_file(ports, 0, NULL);
		if (j) {
			d->http_port = (int)json_integer_value(json_array_get(json_object_get(j, "http"), 0));
			d->tls_port = (int)json_integer_value(json_array_get(json_object_get(j, "tls"), 0));
			d->control_port = (int)json_integer_value(json_array_get(json_object_get(j, "control"), 0));
			json_decref(j);
			return w->n_doubles++;
		}
		if (now_ms() >= until || waitpid(d->pid, NULL, WNOHANG) == d->pid) {
			char *text = read_whole(log, NULL);
			fail_msg("double %s did not start: %s", name, text ? text : "");
		}
		pause_ms(2);
	}
}

/* $N, $TN, $DIR, $CA<N>, $KEY: see harness.h. */
static void
expand(struct world *w, const char *text, struct sbx_buf *to)
{
	for (const char *p = text; *p; p++) {
		if (*p != '$') {
			(void)sbx_buf_append(to, p, 1);
		} else if (p[1] >= '0' && p[1] <= '9') {
			(void)sbx_buf_printf(to, "http://127.0.0.1:%d/v1", w->dbl[p[1] - '0'].http_port);
			p += 1;
		} else if (p[1] == 'T') {
			(void)sbx_buf_printf(to, "https://127.0.0.1:%d/v1", w->dbl[p[2] - '0'].tls_port);
			p += 2;
		} else if (strncmp(p, "$DIR", 4) == 0) {
			(void)sbx_buf_printf(to, "%s", w->dir);
			p += 3;
		} else if (strncmp(p, "$CA", 3) == 0) {
			(void)sbx_buf_printf(to, "%s/%s-cert/ca.pem", w->dir, w->dbl[p[3] - '0'].name);
			p += 3;
		} else if (strncmp(p, "$KEY", 4) == 0) {
			(void)sbx_buf_printf(to, "file:%s/key", w->dir);
			p += 3;
		} else {
			fail_msg("unknown $ in configuration: %.16s", p);
		}
	}
}

void
world_reconfigure(struct world *w, const char *config)
{
	struct sbx_buf b;
	sbx_buf_init(&b, 1u << 20);
	const char *brace = strchr(config, '{');
	(void)sbx_buf_printf(&b, "%.*s\"listen\": { \"socket\": \"%s\", \"admin_socket\": \"%s\"%s },\n", (int)(brace + 1 - config), config, w->socket, w->admin_socket,
	                     w->listen_more ? w->listen_more : "");
	expand(w, brace + 1, &b);
	(void)sbx_buf_append(&b, "", 1);
	write_whole(w->config_path, (char *)b.data);
	sbx_buf_fini(&b);
}

void
world_agent(struct world *w, const char *config, const char *const *args)
{
	world_agent_start(w, config, &(struct start){ .args = args });
}

void
world_agent_start(struct world *w, const char *config, const struct start *how)
{
	const char *argv[32];
	int n = 0;
	if (config)
		world_reconfigure(w, config);
	argv[n++] = strdup(program("signalboxd"));
	if (!how->bare) {
		argv[n++] = "--config";
		argv[n++] = w->config_path;
		argv[n++] = "--log";
		argv[n++] = "debug";
	}
	for (int i = 0; how->args && how->args[i]; i++)
		argv[n++] = how->args[i];
	argv[n] = NULL;
	w->agent = spawn_as(argv, w->log_path, how);
	free((char *)(uintptr_t)argv[0]);
	uint64_t until = now_ms() + START_MS;
	for (;;) {
		struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
		struct sbx_client *c = NULL;
		o.socket = w->socket;
		int rc = sbx_open(&o, &c);
		sbx_close(c);
		if (rc == 0)
			return;
		int status = wait_exit(w->agent, 0);
		if (status >= 0 || now_ms() >= until) {
			char *log = read_whole(w->log_path, NULL);
			w->agent = status >= 0 ? 0 : w->agent;
			fail_msg("the agent did not start (%d): %s", status, log ? log : "");
		}
		pause_ms(2);
	}
}

void
world_simple(struct world *w, int n, const char *const *rules, const char *extra)
{
	static const char *const names[WORLD_DOUBLES_MAX] = { "a", "b", "c", "d", "e", "f", "g", "h" };
	struct sbx_buf b;
	world_up(w);
	sbx_buf_init(&b, 65536);
	(void)sbx_buf_printf(&b, "{ %s%s \"providers\": {", extra ? extra : "", extra ? "," : "");
	for (int i = 0; i < n; i++) {
		(void)world_double(w, names[i], NULL);
		if (rules && rules[i])
			double_rules(w, i, rules[i]);
		(void)sbx_buf_printf(&b, "%s \"%s\": { \"dialect\": \"openai-chat\", \"base_url\": \"$%d\", \"key\": \"$KEY\" }", i ? "," : "", names[i], i);
	}
	(void)sbx_buf_printf(&b, "}, \"routes\": { \"r\": { \"targets\": [");
	for (int i = 0; i < n; i++)
		(void)sbx_buf_printf(&b, "%s\"%s/m\"", i ? ", " : "", names[i]);
	(void)sbx_buf_printf(&b, "] } } }");
	world_agent(w, (char *)b.data, NULL);
	sbx_buf_fini(&b);
}

pid_t
world_spawn(struct world *w, const char *name, const char *log_path, const struct start *how)
{
	const char *argv[40];
	int n = 0;
	(void)w;
	argv[n++] = strdup(program(name));
	for (int i = 0; how->args && how->args[i]; i++)
		argv[n++] = how->args[i];
	argv[n] = NULL;
	pid_t pid = spawn_as(argv, log_path, how);
	free((char *)(uintptr_t)argv[0]);
	return pid;
}

int
world_wait(pid_t pid, int timeout_ms)
{
	return wait_exit(pid, timeout_ms);
}

int
world_run(struct world *w, const char *name, const struct start *how, char **ret_said)
{
	char said[160];
	(void)snprintf(said, sizeof said, "%s/said", w->dir);
	(void)unlink(said);
	pid_t pid = world_spawn(w, name, said, how);
	int status = wait_exit(pid, START_MS);
	if (status < 0) {
		(void)kill(pid, SIGKILL);
		(void)wait_exit(pid, 5000);
	}
	*ret_said = read_whole(said, NULL);
	assert_non_null(*ret_said);
	return status;
}

void
world_agent_signal(struct world *w, int sig)
{
	assert_int_equal(kill(w->agent, sig), 0);
}

int
world_agent_wait(struct world *w, int timeout_ms)
{
	int status = wait_exit(w->agent, timeout_ms);
	if (status >= 0)
		w->agent = 0;
	return status;
}

static void
remove_tree(const char *dir)
{
	const char *const argv[] = { "/bin/rm", "-rf", dir, NULL };
	(void)wait_exit(spawn(argv, "/dev/null"), 10000);
}

/* Of what was written anywhere below the directory (logs, store, snapshot ...), the first file that holds the key. A file that
 * begins with it is where the agent has it from. */
static char *holds_a_key;

static int
look_for_key(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	size_t n;
	(void)st;
	(void)ftw;
	char *all = type == FTW_F ? read_whole(path, &n) : NULL;
	if (all && !holds_a_key && strncmp(all, WORLD_KEY, strlen(WORLD_KEY)) != 0 && memmem(all, n, WORLD_KEY, strlen(WORLD_KEY)))
		holds_a_key = strdup(path);
	free(all);
	return 0;
}

void
world_down(struct world *w)
{
	int status = 0;
	if (w->agent) {
		(void)kill(w->agent, SIGTERM);
		status = wait_exit(w->agent, START_MS);
		if (status < 0) {
			(void)kill(w->agent, SIGKILL);
			(void)wait_exit(w->agent, 5000);
		}
	}
	for (int i = 0; i < w->n_doubles; i++) {
		(void)kill(w->dbl[i].pid, SIGTERM);
		if (wait_exit(w->dbl[i].pid, 5000) < 0) {
			(void)kill(w->dbl[i].pid, SIGKILL);
			(void)wait_exit(w->dbl[i].pid, 5000);
		}
	}
	char *log = read_whole(w->log_path, NULL);
	bool report = log && (strstr(log, "Sanitizer") || strstr(log, "runtime error"));
	(void)nftw(w->dir, look_for_key, 8, FTW_PHYS);
	if (status != 0 || holds_a_key || report) {
		fprintf(stderr, "%s\nthe agent ended with %d%s%s; its files are in %s\n", log ? log : "", status, holds_a_key ? ", and a key stands in " : "",
		        holds_a_key ? holds_a_key : "", w->dir);
		free(holds_a_key);
		holds_a_key = NULL;
		free(log);
		fail();
	}
	free(log);
	if (!w->keep)
		remove_tree(w->dir);
}
