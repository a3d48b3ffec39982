/* SPDX-License-Identifier: Apache-2.0 */
/* spawner.c -- see spawner.h. */
#include "agent/spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <signalbox/errors.h>

#include "agent/log.h"

#define PROGRAM "signalbox-http"
#define DOOR_USER "signalbox-http"   /* as its unit has it */
#define NOBODY_ELSE 65533            /* below 65534, which is every stranger of a user namespace and so no client of the agent; Debian gives
                                      * it to nobody */
#define PAUSE_FIRST_NS 100000000ull
#define PAUSE_MAX_NS 10000000000ull
#define LONG_LIFE_NS 10000000000ull  /* after which the next end is the first one again */
#define ENDING_NS 2000000000ull      /* of a door whose agent is gone: it has nobody to ask */
#define EXIT_USAGE 64
#define SOCKET_FD 3                  /* of the agent's socket in the door */
#define ARGS_MAX (2 * SBX_SPAWNER_ADDRESSES_MAX + 8)

/* ==== the spawner's own process ==== */

struct nursery {
	const struct sbx_spawner_opts *opts;
	const struct sbx_spawner *who;
	int channel;                 /* -1 = the agent has closed it */
	int program;                 /* of the file, O_PATH */
	int signals;
	char socket[sizeof ((struct sockaddr_un *)0)->sun_path]; /* "" = not told to start yet */
	pid_t door;                  /* 0 = it does not run */
	bool ending;
	uint64_t kill_at_ns;         /* UINT64_MAX = not to be killed */
	uint64_t start_at_ns, started_ns, pause_ns;
	char *env[2];                /* of the door */
};

static uint64_t
clock_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* What the environment held is not to be found in this process: the strings lie where the kernel put them, and /proc shows them. Only
 * where standard error is the journal's stream does the door have to know. */
static void
wipe_environment(struct nursery *n)
{
	static char journal[64];
	const char *stream = getenv("JOURNAL_STREAM");
	if (stream && snprintf(journal, sizeof journal, "JOURNAL_STREAM=%s", stream) < (int)sizeof journal)
		n->env[0] = journal;
	for (char **e = environ; e && *e; e++)
		explicit_bzero(*e, strlen(*e));
	(void)clearenv();
}

/* Everything but 0 to 2, the channel and the program: sockets that a service manager handed over are the agent's alone. */
static void
close_the_rest(struct nursery *n)
{
	const int none = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (none >= 0)
		(void)dup2(none, STDIN_FILENO);
	n->channel = fcntl(n->channel, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
	n->program = fcntl(n->program, F_DUPFD_CLOEXEC, SOCKET_FD + 1);
	const int low = n->channel < n->program ? n->channel : n->program, high = n->channel < n->program ? n->program : n->channel;
	struct rlimit files = { 1024, 1024 };
	if (syscall(SYS_close_range, 3u, (unsigned)low - 1, 0u) == 0 && syscall(SYS_close_range, (unsigned)low + 1, (unsigned)high - 1, 0u) == 0 &&
	    syscall(SYS_close_range, (unsigned)high + 1, ~0u, 0u) == 0)
		return;
	(void)getrlimit(RLIMIT_NOFILE, &files); /* a sandbox may not know that call */
	for (int fd = 3; fd < (int)(files.rlim_cur < 65536 ? files.rlim_cur : 65536); fd++)
		if (fd != low && fd != high)
			(void)close(fd); /* most are none */
}

/* In the child: other user, no way back, and the agent's socket. 0 or -1. */
static int
confine_door(const struct nursery *n, pid_t spawner)
{
	const struct sbx_spawner *who = n->who;
	const struct rlimit none = { 0, 0 };
	sigset_t nothing;
	(void)sigemptyset(&nothing);
	(void)sigprocmask(SIG_SETMASK, &nothing, NULL);
	if (who->has_user) {
		struct stat st;
		/* The socket itself: its directories may be closed to that user. Its group is what lets him connect. */
		const int fd = open(n->socket, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		if (fd < 0 || fstat(fd, &st) || dup2(fd, SOCKET_FD) < 0 || setgroups(st.st_gid ? 1 : 0, &st.st_gid) || setresgid(who->gid, who->gid, who->gid) ||
		    setresuid(who->uid, who->uid, who->uid))
			return -1;
	}
	(void)umask(077);
	(void)setrlimit(RLIMIT_CORE, &none);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_PDEATHSIG, SIGKILL)) /* after the change of user, which undoes it */
		return -1;
	return getppid() == spawner ? 0 : -1; /* it may have ended before the call */
}

static void
start_door(struct nursery *n, uint64_t now_ns)
{
	static char socket_path[32], drain[32];
	const struct sbx_spawner_opts *o = n->opts;
	const char *argv[ARGS_MAX + 1] = { PROGRAM };
	int argc = 1;
	const pid_t spawner = getpid();
	(void)snprintf(socket_path, sizeof socket_path, "/proc/self/fd/%d", SOCKET_FD);
	(void)snprintf(drain, sizeof drain, "%llu", (unsigned long long)(o->drain_ns / 1000000000u));
	const char *const fixed[] = { "--socket", n->who->has_user ? socket_path : n->socket, "--log", o->log_level, "--drain", drain };
	for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
		argv[argc++] = fixed[i];
	for (uint32_t i = 0; i < o->n_addresses; i++) {
		argv[argc++] = "--listen";
		argv[argc++] = o->address[i];
	}
	n->started_ns = now_ns;
	n->door = fork();
	if (n->door == 0) {
		if (confine_door(n, spawner) == 0)
			(void)syscall(SYS_execveat, n->program, "", argv, n->env, AT_EMPTY_PATH); /* which file was found cannot change any more */
		sbx_log(SBX_LOG_ERROR, "door", SBX_STR("why", "it cannot be started"), SBX_ERRNO_F("error", errno));
		_exit(127);
	}
	if (n->door < 0) {
		n->door = 0;
		sbx_log(SBX_LOG_ERROR, "door", SBX_STR("why", "there is no process for it"), SBX_ERRNO_F("error", errno));
		n->start_at_ns = now_ns + PAUSE_MAX_NS;
	} else {
		sbx_log(SBX_LOG_INFO, "door_started", SBX_INT("pid", n->door), SBX_UINT("uid", n->who->has_user ? n->who->uid : geteuid()));
	}
}

static void
on_door_end(struct nursery *n, int status, uint64_t now_ns)
{
	const bool usage = WIFEXITED(status) && WEXITSTATUS(status) == EXIT_USAGE;
	n->door = 0;
	if (n->ending)
		return;
	n->pause_ns = n->pause_ns == 0 || now_ns - n->started_ns >= LONG_LIFE_NS ? PAUSE_FIRST_NS : n->pause_ns * 2 < PAUSE_MAX_NS ? n->pause_ns * 2 : PAUSE_MAX_NS;
	n->start_at_ns = usage ? UINT64_MAX : now_ns + n->pause_ns;
	sbx_log(usage ? SBX_LOG_ERROR : SBX_LOG_WARNING, "door_ended", SBX_INT("exit", WIFEXITED(status) ? WEXITSTATUS(status) : -1),
	        SBX_INT("signal", WIFSIGNALED(status) ? WTERMSIG(status) : 0),
	        SBX_STR("next", usage ? "it is not started again: its arguments are wrong" : "it is started again"), SBX_NS("in", usage ? 0 : n->pause_ns));
}

/* The door is to end within that time. The sooner of two wishes counts. */
static void
end_door(struct nursery *n, uint64_t kill_at_ns)
{
	if (!n->ending && n->door)
		(void)kill(n->door, SIGTERM); /* it may have ended, which is as good */
	n->ending = true;
	if (kill_at_ns < n->kill_at_ns)
		n->kill_at_ns = kill_at_ns;
}

static void
on_channel(struct nursery *n, uint64_t now_ns)
{
	char path[sizeof n->socket];
	const ssize_t got = recv(n->channel, path, sizeof path - 1, MSG_DONTWAIT);
	if (got > 0) {
		path[got] = '\0';
		(void)snprintf(n->socket, sizeof n->socket, "%s", path);
		n->start_at_ns = now_ns;
	} else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
		(void)close(n->channel);
		n->channel = -1;
		end_door(n, now_ns + n->opts->drain_ns + ENDING_NS); /* it drains by itself: this is for one that hangs */
	}
}

static void
on_signals(struct nursery *n, uint64_t now_ns)
{
	struct signalfd_siginfo info;
	int status;
	while (read(n->signals, &info, sizeof info) == (ssize_t)sizeof info)
		if (info.ssi_signo == SIGTERM)
			end_door(n, now_ns + ENDING_NS);
	while (waitpid(-1, &status, WNOHANG) > 0)
		on_door_end(n, status, now_ns);
}

static void __attribute__((noreturn))
nurse(struct nursery *n, pid_t agent)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGCHLD);
	(void)sigaddset(&set, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)setsid(); /* Ctrl-C is the agent's, who passes it on in his way */
	(void)prctl(PR_SET_NAME, "signalbox-spawn");
	(void)prctl(PR_SET_PDEATHSIG, SIGTERM);
	n->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (n->signals < 0 || n->channel < 0 || n->program < 0 || getppid() != agent)
		_exit(EXIT_FAILURE);
	n->kill_at_ns = n->start_at_ns = UINT64_MAX;
	for (;;) {
		uint64_t now_ns = clock_ns();
		if (n->ending && !n->door)
			_exit(EXIT_SUCCESS);
		if (n->door && now_ns >= n->kill_at_ns)
			(void)kill(n->door, SIGKILL);
		if (!n->door && now_ns >= n->start_at_ns) {
			n->start_at_ns = UINT64_MAX;
			start_door(n, now_ns);
		}
		const uint64_t until_ns = n->door ? n->kill_at_ns : n->start_at_ns;
		struct pollfd p[] = { { .fd = n->channel, .events = POLLIN }, { .fd = n->signals, .events = POLLIN } };
		const uint64_t wait_ns = until_ns > now_ns ? until_ns - now_ns : 0;
		(void)poll(p, 2, until_ns == UINT64_MAX ? -1 : (int)(wait_ns < 60000000000u ? wait_ns / 1000000 + 1 : 60000)); /* a look too many is fine */
		now_ns = clock_ns();
		if (p[1].revents)
			on_signals(n, now_ns);
		if (n->channel >= 0 && p[0].revents)
			on_channel(n, now_ns);
	}
}

/* ==== in the agent ==== */

static int __attribute__((format(printf, 3, 4)))
say(char *why, size_t why_bytes, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(why, why_bytes, fmt, ap);
	va_end(ap);
	return -SBX_EINVAL;
}

/* Beside the agent's own file, else in the libexec of its prefix. */
static int
find_program(int *ret_fd, char *why, size_t why_bytes)
{
	static const char *const places[] = { PROGRAM, "../libexec/signalbox/" PROGRAM };
	char own[4096], path[4200];
	const ssize_t n = readlink("/proc/self/exe", own, sizeof own - 1);
	own[n > 0 ? n : 0] = '\0';
	char *slash = strrchr(own, '/');
	if (!slash)
		return say(why, why_bytes, "--http: /proc does not tell where this program is, beside which " PROGRAM " should be");
	slash[1] = '\0';
	for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
		(void)snprintf(path, sizeof path, "%s%s", own, places[i]);
		if (access(path, X_OK) == 0 && (*ret_fd = open(path, O_PATH | O_CLOEXEC)) >= 0)
			return 0;
	}
	return say(why, why_bytes, "--http: there is no " PROGRAM " in %s, nor in ../libexec/signalbox beside it", own);
}

static int
find_user(const char *name, struct sbx_spawner *s, char *why, size_t why_bytes)
{
	const struct passwd *user = getpwnam(name ? name : DOOR_USER);
	if (name && !user)
		return say(why, why_bytes, "--http-user: there is no user %s on this host", name);
	if (!name && geteuid() != 0)
		return 0;
	s->uid = user ? user->pw_uid : NOBODY_ELSE;
	s->gid = user ? user->pw_gid : NOBODY_ELSE;
	s->has_user = s->uid != geteuid();
	return s->has_user && geteuid() != 0 ? say(why, why_bytes, "--http-user: only root can start the door as another user") : 0;
}

int
sbx_spawner_start(const struct sbx_spawner_opts *opts, struct sbx_spawner *ret, char *why, size_t why_bytes)
{
	static struct nursery n; /* the child's */
	struct sbx_spawner s = { .fd = -1 };
	int pair[2] = { -1, -1 };
	const pid_t agent = getpid();
	n = (struct nursery){ .opts = opts, .who = ret, .program = -1 };
	int rc = find_user(opts->user, &s, why, why_bytes);
	if (rc == 0)
		rc = find_program(&n.program, why, why_bytes);
	if (rc)
		return rc;
	(void)fflush(NULL); /* what is buffered is to be written once */
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0 && (s.pid = fork()) >= 0) {
		if (s.pid == 0) {
			*ret = s;
			n.channel = pair[1];
			wipe_environment(&n);
			close_the_rest(&n);
			nurse(&n, agent);
		}
		(void)close(pair[1]);
		(void)close(n.program);
		s.fd = pair[0];
		*ret = s;
		return 0;
	}
	(void)say(why, why_bytes, "--http: no process for the spawner: %s", strerror(errno));
	if (pair[0] >= 0) {
		(void)close(pair[0]);
		(void)close(pair[1]);
	}
	(void)close(n.program);
	return -SBX_ENOMEM;
}

int
sbx_spawner_go(const struct sbx_spawner *s, const char *socket)
{
	const size_t bytes = strlen(socket);
	return send(s->fd, socket, bytes, MSG_NOSIGNAL) == (ssize_t)bytes ? 0 : -SBX_EAGENT;
}

void
sbx_spawner_stop(const struct sbx_spawner *s)
{
	if (s->fd >= 0)
		(void)shutdown(s->fd, SHUT_WR); /* it may be gone, which is as good */
}

void
sbx_spawner_end(struct sbx_spawner *s, bool at_once)
{
	if (s->fd < 0)
		return;
	(void)close(s->fd);
	s->fd = -1;
	if (at_once)
		(void)kill(s->pid, SIGTERM); /* ours until it is waited for */
	while (waitpid(s->pid, NULL, 0) < 0 && errno == EINTR)
		;
}
