/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main.c -- signalboxd: read the arguments, build the world, run it, take it down in reverse. No policy.
 *
 * Order of the start, and why: the spawner of the HTTP door is forked before anything is read that it must not have; keys leave the environment before any thread can exist; the process is made undumpable before
 * keys are read; the sockets listen, or are taken from another agent, only once requests can be served.
 */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <curl/curl.h>

#include "agent/config.h"
#include "agent/confine.h"
#include "agent/io/agent.h"
#include "agent/io/exchange.h"
#include "agent/io/handover.h"
#include "agent/io/listen.h"
#include "agent/io/seed.h"
#include "agent/io/session.h"
#include "agent/io/stats.h"
#include "agent/io/store.h"
#include "agent/io/vkeys.h"
#include "agent/io/warm.h"
#include "agent/log.h"
#include "agent/paths.h"
#include "agent/sdnotify.h"
#include "agent/spawner.h"

#define EXIT_USAGE 64
#define EXIT_CONFIG 78
#define DRAIN_S 25           /* below the 30 s that service managers usually grant */
#define NOFILE_WANTED 1048576u
#define FRAME_BUF_BYTES (256u << 20)
#define LAST_FRAME_BYTES (256u << 10) /* room for any DONE or ERROR, kept from the start: these two must never fail */
#define MMAP_FROM_BYTES (256 << 10) /* far above what a usual request takes at once, far below a line with an image in it */

static const char help[] =
	"signalboxd -- the signalbox agent: owns the connections to AI providers for all programs of this host\n"
	"\n"
	"usage: signalboxd [options]\n"
	"  --config FILE    configuration (default: $SIGNALBOX_CONFIG, ~/.config/signalbox/config.json,\n"
	"                   /etc/signalbox/config.json; the first found wins; none is fine)\n"
	"  --replace        take the place of the agent that runs: it hands over its sockets, no client is refused, and it\n"
	"                   ends when its requests have; without one running, an ordinary start\n"
	"  --http ADDRESS   run the HTTP door too, at HOST:PORT or the path of a Unix socket; repeatable. At the first start a key\n"
	"                   for it is made and shown\n"
	"  --http-user USER who the door is, where the agent is root (default: signalbox-http, else nobody's number)\n"
	"  --check          validate the configuration, name the file, and exit\n"
	"  --loop KIND      auto, uring or epoll (default: $SIGNALBOX_LOOP, else auto)\n"
	"  --log LEVEL      error, warning, notice, info or debug (default: info)\n"
	"  --drain SECONDS  how long SIGTERM waits for running requests (default: 25)\n"
	"  --version, --help\n"
	"\n"
	"signals: SIGTERM, SIGINT drain and stop (a second one stops at once); SIGHUP reloads; SIGUSR1 logs a summary\n"
	"\n"
	"example, with nothing configured:\n"
	"  OPENAI_API_KEY=sk-... signalboxd --http 127.0.0.1:8088 &\n"
	"  signalbox ask -m openai/gpt-5.2 --stream 'Say hello'\n"
	"\n"
	"man pages: signalboxd(8), signalboxd.conf(5)\n";

struct daemon {
	struct sbx_agent agent;
	struct sbx_vault vault;
	const char *config_path;
	struct sbx_listen_socket client_socket, admin_socket;
	struct sbx_listener *client_listener, *admin_listener;
	struct sbx_watch *signals, *reports, *predecessor;
	int predecessor_fd;                  /* of the watch */
	int signal_fd;
	uint64_t drain_ns, drain_until_ns;
	uint64_t watchdog_ns;
	struct sbx_timer watchdog;
	bool stop_now;
	bool replace;                        /* --replace */
	bool replaced;                       /* another agent has our place: its board, its sockets */
	struct sbx_inheritance inheritance;  /* of the agent whose place this one takes, while it starts */
	struct sbx_spawner_opts door;        /* --http */
	struct sbx_spawner spawner;
	struct sbx_watch *spawner_end;
};

static struct daemon *
daemon_of(struct sbx_agent *agent)
{
	return (struct daemon *)((char *)agent - offsetof(struct daemon, agent));
}

/* ---- configuration ---- */

static const char *
severity_word(enum sbx_config_severity s)
{
	return s == SBX_CONFIG_ERROR ? "error" : s == SBX_CONFIG_WARNING ? "warning" : "note";
}

static void
say_messages(const struct sbx_config_messages *m, struct sbx_buf *say)
{
	for (uint32_t i = 0; i < m->n; i++)
		if (sbx_buf_printf(say, "%s: %s\n", severity_word(m->message[i].severity), m->message[i].text))
			return; /* full: what is there is enough to begin with */
	if (m->dropped)
		(void)sbx_buf_printf(say, "(%u more)\n", m->dropped);
}

static void
print_messages(const struct sbx_config_messages *m, FILE *to)
{
	struct sbx_buf say;
	sbx_buf_init(&say, 1u << 20);
	say_messages(m, &say);
	if (say.n)
		(void)fwrite(say.data, 1, say.n, to); /* a closed standard output is nobody's loss */
	sbx_buf_fini(&say);
}

static void
log_messages(const struct sbx_config_messages *m)
{
	for (uint32_t i = 0; i < m->n; i++)
		sbx_log(m->message[i].severity == SBX_CONFIG_NOTE ? SBX_LOG_INFO : m->message[i].severity == SBX_CONFIG_WARNING ? SBX_LOG_WARNING : SBX_LOG_ERROR,
		        "config", SBX_STR("says", m->message[i].text));
}

static int
reload(struct sbx_agent *agent, struct sbx_buf *say)
{
	struct daemon *d = daemon_of(agent);
	struct sbx_config_opts opts = { .path = d->config_path, .vault = &d->vault, .home_store = d->door.n_addresses > 0 };
	struct sbx_config_messages errors = { 0 };
	struct sbx_config *config;
	struct sbx_world *world;
	(void)sbx_sd_notify("RELOADING=1");
	int rc = sbx_config_load(&opts, &config, &errors);
	if (rc == 0)
		rc = sbx_world_new(config, agent->upstream, agent->world, sbx_loop_now_ns(agent->loop), &world);
	if (rc == 0) {
		if (strcmp(config->listen.socket, agent->world->config->listen.socket) != 0 ||
		    strcmp(config->listen.admin_socket, agent->world->config->listen.admin_socket) != 0)
			(void)sbx_buf_printf(say, "warning: a new socket path takes effect at the next start\n");
		if (strcmp(config->store ? config->store : "", agent->world->config->store ? agent->world->config->store : "") != 0)
			(void)sbx_buf_printf(say, "warning: another store takes effect at the next start\n");
		sbx_world_put(agent->world);
		agent->world = world;
		(void)sbx_publish_world(agent->publisher, world, sbx_loop_now_ns(agent->loop)); /* without a board all else works */
		sbx_session_board_all(agent);
		(void)sbx_warmer_begin(agent); /* without it connections are opened when they are needed */
		agent->count.reloads++;
		say_messages(&config->notes, say);
		sbx_log(SBX_LOG_NOTICE, "reloaded", SBX_STR("config", config->source), SBX_UINT("providers", config->tables.n_providers),
		        SBX_UINT("usable", config->n_usable), SBX_UINT("targets", config->tables.n_targets), SBX_UINT("routes", config->tables.n_routes));
	} else {
		if (rc == -SBX_ENOMEM && !errors.n)
			(void)sbx_buf_printf(say, "error: out of memory\n");
		agent->count.reloads_refused++;
		say_messages(&errors, say);
		log_messages(&errors);
		sbx_log(SBX_LOG_ERROR, "reload_refused", SBX_STR("config", agent->world->config->source), SBX_UINT("errors", errors.n + errors.dropped));
	}
	sbx_config_messages_fini(&errors);
	(void)sbx_sd_notify("READY=1");
	return rc ? -SBX_ESYNTAX : 0;
}

/* ---- signals ---- */

/* The service stops, or goes on under another process, which only the one that the manager knows may say. */
static void
tell_manager(pid_t heir)
{
	char text[32];
	(void)snprintf(text, sizeof text, "MAINPID=%ld", (long)heir);
	(void)sbx_sd_notify(heir ? text : "STOPPING=1");
}

static void
begin_drain(struct daemon *d)
{
	struct sbx_agent *a = &d->agent;
	uint64_t now_ns = sbx_loop_now_ns(a->loop);
	if (a->draining) {
		d->stop_now = true;
		return;
	}
	const pid_t heir = a->heir ? sbx_session_pid(a->heir) : 0; /* also one that has yet to say that it serves: it has our sockets */
	a->draining = true;
	sbx_warmer_end(a);
	sbx_spawner_stop(&d->spawner);
	d->replaced = heir != 0;
	d->drain_until_ns = now_ns + d->drain_ns;
	sbx_publish_state(a->publisher, a->world, d->replaced ? SBX_BOARD_REPLACED : SBX_BOARD_DRAINING, now_ns);
	tell_manager(heir);
	sbx_log(SBX_LOG_NOTICE, d->replaced ? "replaced" : "draining", SBX_INT("by", heir), SBX_UINT("requests", a->n_exchanges), SBX_UINT("sessions", a->n_sessions),
	        SBX_NS("at_most", d->drain_ns));
	sbx_listener_free(d->client_listener);
	sbx_listener_free(d->admin_listener);
	d->client_listener = d->admin_listener = NULL;
	if (d->replaced) {
		sbx_listen_disown(&d->client_socket);
		sbx_listen_disown(&d->admin_socket);
	}
	sbx_listen_close(&d->client_socket);
	sbx_listen_close(&d->admin_socket);
	sbx_session_leave_all(a);
}

static void
leave(struct sbx_agent *agent)
{
	begin_drain(daemon_of(agent));
}

static void
log_summary(const struct daemon *d)
{
	const struct sbx_agent *a = &d->agent;
	const struct sbx_loop_stats *loop = sbx_loop_stats(a->loop);
	sbx_log(SBX_LOG_NOTICE, "summary", SBX_UINT("sessions", a->n_sessions), SBX_UINT("in_flight", a->n_exchanges), SBX_UINT("requests", a->count.requests),
	        SBX_UINT("ok", a->count.requests_ok), SBX_UINT("failed", a->count.requests_failed), SBX_UINT("cancelled", a->count.requests_cancelled),
	        SBX_UINT("refused", a->count.requests_refused), SBX_UINT("attempts", a->count.attempts), SBX_UINT("turns", loop->turns),
	        SBX_UINT("syscalls", loop->syscalls), SBX_UINT("active_calls", sbx_upstream_stats(a->upstream)->active));
}

static void
on_signal(void *arg, int fd, unsigned events)
{
	struct daemon *d = arg;
	struct signalfd_siginfo info;
	(void)events;
	while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
		struct sbx_buf said;
		switch (info.ssi_signo) {
		case SIGTERM:
		case SIGINT:
			begin_drain(d);
			break;
		case SIGHUP:
			if (d->agent.draining)
				break; /* nothing new comes that could follow it */
			sbx_buf_init(&said, 1u << 20);
			(void)reload(&d->agent, &said); /* the log has it all */
			sbx_buf_fini(&said);
			break;
		case SIGUSR1:
			log_summary(d);
			break;
		default:
			break;
		}
	}
}

static int
watch_signals(struct daemon *d)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigaddset(&set, SIGHUP);
	(void)sigaddset(&set, SIGUSR1);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is a full disk, which store and snapshot know how to take */
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return d->signal_fd < 0 ? -1 : sbx_watch_new(d->agent.loop, d->signal_fd, SBX_WATCH_IN, on_signal, d, &d->signals);
}

/* ---- store ---- */

static void
on_reports(void *arg, int fd, unsigned events)
{
	(void)fd;
	(void)events;
	sbx_store_collect(arg);
}

/* The writer opens the file by itself: a disk that is slow or broken keeps no request waiting, here neither. */
static int
open_store(struct daemon *d)
{
	struct sbx_agent *a = &d->agent;
	if (!a->world->config->store)
		return 0;
	if (a->world->config->store_by_default)
		sbx_path_make_parents(a->world->config->store);
	if (sbx_store_new(a->world->config->store, &a->store))
		return -1;
	if (sbx_watch_new(a->loop, sbx_store_fd(a->store), SBX_WATCH_IN, on_reports, a->store, &d->reports))
		return -1;
	return sbx_vkeys_open(a);
}

/* ---- the door ---- */

static void
on_spawner_end(void *arg, int fd, unsigned events)
{
	struct daemon *d = arg;
	(void)fd;
	(void)events;
	if (!d->agent.draining)
		sbx_log(SBX_LOG_ERROR, "door_lost", SBX_STR("says", "its spawner was killed, and the door with it; all else works. A restart of the agent starts it again"));
	sbx_watch_free(d->spawner_end);
	d->spawner_end = NULL;
}

/* To standard error and not by the log, which may go anywhere: it is shown this once. */
static void
show_local_key(void *arg, const char *secret)
{
	const struct daemon *d = arg;
	const char *address = d->door.address[0];
	(void)fprintf(stderr, "# a key for the programs of this host was made; what an SDK needs, shown this once:\n");
	if (address[0] != '/')
		(void)fprintf(stderr, "export OPENAI_BASE_URL=%s://%s/v1\n", strncmp(address, "tls:", 4) == 0 ? "https" : "http",
		              address + (strncmp(address, "tls:", 4) == 0 ? 4 : 0));
	(void)fprintf(stderr, "export OPENAI_API_KEY=%s\n", secret);
}

static int
start_door(struct daemon *d)
{
	struct sbx_agent *a = &d->agent;
	if (d->spawner.fd < 0)
		return 0;
	if (sbx_watch_new(a->loop, d->spawner.fd, SBX_WATCH_IN, on_spawner_end, d, &d->spawner_end))
		return -1;
	if (sbx_spawner_go(&d->spawner, a->world->config->listen.socket))
		return 0; /* the watch will say so */
	if (!a->store)
		sbx_log(SBX_LOG_WARNING, "door", SBX_STR("says", "without a store there are no virtual keys, so nobody can come in by the door; see \"store\" in signalboxd.conf(5)"));
	else if (sbx_log_default().journal)
		sbx_log(SBX_LOG_INFO, "door", SBX_STR("says", "keys for its clients: signalbox key create --tenant T")); /* a journal is no place for one */
	else
		sbx_vkeys_want_local(a, show_local_key, d);
	return 0;
}

static void
on_watchdog(void *arg, uint64_t now_ns)
{
	struct daemon *d = arg;
	(void)sbx_sd_notify("WATCHDOG=1");
	sbx_timer_arm(&d->agent.timers, &d->watchdog, now_ns + d->watchdog_ns / 2);
}

/* ---- sockets ---- */

static void
on_client(void *arg, int fd)
{
	sbx_session_accept(arg, fd, false);
}

static void
on_admin(void *arg, int fd)
{
	sbx_session_accept(arg, fd, true);
}

/* From the running agent. 0; -SBX_ENOENT there is none; -SBX_EAGENT, logged. */
static int
inherit_sockets(struct daemon *d)
{
	const struct sbx_config *config = d->agent.world->config;
	struct sbx_inheritance *in = &d->inheritance;
	char why[640];
	int rc = sbx_handover_ask(config->listen.admin_socket, in, why, sizeof why);
	if (rc == 0 && ((*in->client_path && strcmp(in->client_path, config->listen.socket) != 0) ||
	                (*in->admin_path && strcmp(in->admin_path, config->listen.admin_socket) != 0))) {
		(void)snprintf(why, sizeof why, "the running agent (pid %ld) has %s; other sockets in \"listen\" take effect when it is stopped, and started without --replace",
		               (long)in->pid, *in->client_path ? in->client_path : in->admin_path);
		rc = -SBX_EAGENT;
	}
	if (rc == -SBX_ENOENT)
		sbx_log(SBX_LOG_NOTICE, "nobody_to_replace", SBX_STR("says", why));
	else if (rc)
		sbx_log(SBX_LOG_ERROR, "replace", SBX_STR("why", why));
	if (rc)
		return rc;
	d->client_socket = in->client;
	d->admin_socket = in->admin;
	in->client = in->admin = (struct sbx_listen_socket){ -1, -1, NULL };
	sbx_sd_inherit(in->notify_socket, in->watchdog_us);
	return 0;
}

static void
on_predecessor_end(void *arg, int fd, unsigned events)
{
	struct daemon *d = arg;
	(void)events;
	d->agent.alone_ns = sbx_loop_now_ns(d->agent.loop);
	sbx_log(SBX_LOG_INFO, "predecessor_ended", SBX_INT("pid", d->agent.predecessor));
	sbx_watch_free(d->predecessor);
	d->predecessor = NULL;
	(void)close(fd); /* it was only watched */
}

/* Where the kernel does not let us (a sandbox, another pid namespace) it counts as ended. */
static void
watch_predecessor(struct daemon *d)
{
	const int fd = (int)syscall(SYS_pidfd_open, d->agent.predecessor, 0); /* close-on-exec by itself */
	if (fd < 0)
		return;
	if (sbx_watch_new(d->agent.loop, fd, SBX_WATCH_IN, on_predecessor_end, d, &d->predecessor))
		(void)close(fd);
	else
		d->agent.alone_ns = UINT64_MAX;
	d->predecessor_fd = fd;
}

/* All is ready: from now on the sockets, and the agent's place, are ours. */
static int
take_place(struct daemon *d)
{
	char why[640];
	if (d->inheritance.fd < 0)
		return 0;
	if (sbx_handover_serve(&d->inheritance, &d->client_socket, &d->admin_socket, why, sizeof why)) {
		sbx_log(SBX_LOG_ERROR, "replace", SBX_STR("why", why));
		return -1;
	}
	d->agent.predecessor = d->inheritance.pid;
	watch_predecessor(d);
	sbx_log(SBX_LOG_NOTICE, "took_over", SBX_INT("from", d->inheritance.pid), SBX_STR("agent", d->inheritance.agent));
	return 0;
}

static int
open_sockets(struct daemon *d)
{
	const struct sbx_config *config = d->agent.world->config;
	const bool has_group = config->listen.has_group || d->spawner.has_user; /* a door that is another user has to reach it */
	const gid_t group = config->listen.has_group ? config->listen.group : d->spawner.gid;
	struct sbx_sd_fds fds = { .n = 0 };
	char why[640];
	int rc = d->replace ? inherit_sockets(d) : 0;
	if (rc == -SBX_EAGENT)
		return -1;
	rc = sbx_sd_listen_fds(&fds); /* what is inherited is the same, or better: others wait in it */
	if (rc)
		sbx_log(SBX_LOG_WARNING, "activation", SBX_STR("says", "the sockets of the service manager cannot be used"), SBX_ERRNO_F("error", rc));
	for (uint32_t i = 0; i < fds.n; i++) {
		bool admin = strcmp(fds.fd[i].name, "admin") == 0;
		struct sbx_listen_socket *l = admin ? &d->admin_socket : &d->client_socket;
		if (!sbx_sd_is_unix_listener(fds.fd[i].fd) || l->fd >= 0)
			(void)close(fds.fd[i].fd); /* not ours */
		else
			sbx_listen_adopt(l, fds.fd[i].fd);
	}
	if ((d->client_socket.fd < 0 &&
	     sbx_listen_open(&d->client_socket, config->listen.socket, 0660, has_group, group, why, sizeof why)) ||
	    (d->admin_socket.fd < 0 && sbx_listen_open(&d->admin_socket, config->listen.admin_socket, 0600, false, 0, why, sizeof why))) {
		sbx_log(SBX_LOG_ERROR, "listen", SBX_STR("why", why));
		return -1;
	}
	if (sbx_listener_new(d->agent.loop, d->client_socket.fd, on_client, &d->agent, &d->client_listener) ||
	    sbx_listener_new(d->agent.loop, d->admin_socket.fd, on_admin, &d->agent, &d->admin_listener)) {
		sbx_log(SBX_LOG_ERROR, "listen", SBX_STR("why", "out of memory"));
		return -1;
	}
	return 0;
}

/* ---- the turn ---- */

static void
reap(struct sbx_agent *a)
{
	sbx_exchange_reap(a);
	sbx_session_reap(a);
}

static int
run(struct daemon *d)
{
	struct sbx_agent *a = &d->agent;
	uint64_t ticked_ns = 0;
	for (;;) {
		uint64_t until = sbx_timers_next_ns(&a->timers), up = sbx_upstream_wake_ns(a->upstream);
		uint64_t board = sbx_publish_wake_ns(a->publisher, a->world);
		if (up < until)
			until = up;
		if (board < until)
			until = board;
		if (a->draining && d->drain_until_ns < until)
			until = d->drain_until_ns;
		int rc = sbx_loop_turn(a->loop, until);
		if (rc) {
			sbx_log(SBX_LOG_ERROR, "loop", SBX_ERRNO_F("error", rc));
			return EXIT_FAILURE;
		}
		uint64_t now_ns = sbx_loop_now_ns(a->loop);
		sbx_timers_run(&a->timers, now_ns);
		sbx_upstream_run(a->upstream, now_ns);
		reap(a);
		sbx_publish_turn(a->publisher, a->world, now_ns);
		if (now_ns - ticked_ns >= 1000000000ull) {
			ticked_ns = now_ns;
			sbx_log_tick(false);
		}
		if (!a->draining)
			continue;
		sbx_session_drain_all(a);
		if (d->stop_now || now_ns >= d->drain_until_ns) {
			sbx_log(SBX_LOG_WARNING, "drain_over", SBX_UINT("requests", a->n_exchanges));
			sbx_session_close_all(a, SBX_CODE_DRAINING);
		}
		if (!a->n_sessions) /* and so no request; what they were told last goes out while the loop is freed */
			return EXIT_SUCCESS;
	}
}

/* ---- start and end ---- */

static int
open_publisher(struct sbx_agent *a)
{
	const struct sbx_config *config = a->world->config;
	char path[4096];
	const struct sbx_publish_opts opts = {
		.generation = a->generation,
		.snapshot_path = sbx_path_snapshot(config->listen.socket, path, sizeof path) == 0 ? path : NULL,
		.has_group = config->listen.has_group,
		.group = config->listen.group,
	};
	if (sbx_publisher_new(&opts, &a->publisher)) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", "out of memory"));
		return -1;
	}
	return 0;
}

/* After the sockets, which make the directory of the snapshot, and whose first owner may write it until he has left. What he knew is
 * read before the first board of ours takes its place. */
static void
publish(struct daemon *d)
{
	struct sbx_agent *a = &d->agent;
	char path[4096];
	if (d->inheritance.board)
		sbx_seed_world(a->world, d->inheritance.board, "the board of the agent before");
	else if (sbx_path_snapshot(a->world->config->listen.socket, path, sizeof path) == 0)
		sbx_seed_from_file(a->world, path);
	(void)sbx_publish_world(a->publisher, a->world, a->started_ns); /* without a board all else works */
}

static void
harden(void)
{
	struct rlimit none = { 0, 0 }, files;
	(void)prctl(PR_SET_DUMPABLE, 0); /* libcurl and OpenSSL hold copies of keys: no core file, no ptrace by the same user */
	(void)setrlimit(RLIMIT_CORE, &none);
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max < NOFILE_WANTED ? files.rlim_max : NOFILE_WANTED;
		(void)setrlimit(RLIMIT_NOFILE, &files); /* two descriptors a request */
	}
	/* glibc moves this threshold up to the largest block it has seen freed, and keeps twice as much for itself: one line of
	 * 16 MiB would cost 32 MiB for ever. Setting it keeps it where it is. */
	(void)mallopt(M_MMAP_THRESHOLD, MMAP_FROM_BYTES);
}

static int
build(struct daemon *d, struct sbx_config *config, enum sbx_loop_kind kind)
{
	struct sbx_agent *a = &d->agent;
	char why[256];
	sbx_timers_init(&a->timers);
	sbx_json_scratch_init(&a->scratch);
	sbx_buf_init(&a->frame, FRAME_BUF_BYTES);
	if (!sbx_buf_reserve(&a->frame, LAST_FRAME_BYTES)) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", "out of memory"));
		sbx_config_free(config);
		return -1;
	}
	a->door_uid = d->spawner.has_user ? d->spawner.uid : (uid_t)-1;
	a->reload = reload;
	a->leave = leave;
	a->client_socket = &d->client_socket;
	a->admin_socket = &d->admin_socket;
	if (getrandom(&a->generation, sizeof a->generation, 0) != (ssize_t)sizeof a->generation)
		a->generation = (uint64_t)time(NULL);
	a->seed = a->generation;
	a->generation &= (1ull << 53) - 1; /* so that every language can hold it */
	if (sbx_loop_new(kind, why, sizeof why, &a->loop)) {
		sbx_log(SBX_LOG_ERROR, "loop", SBX_STR("why", why));
		sbx_config_free(config);
		return -1;
	}
	sbx_log(SBX_LOG_INFO, "loop", SBX_STR("kind", sbx_loop_kind(a->loop) == SBX_LOOP_URING ? "io_uring" : "epoll"), SBX_STR("why", why));
	a->started_ns = sbx_loop_now_ns(a->loop);
	a->started_unix_ms = (int64_t)time(NULL) * 1000;
	a->tally = sbx_tally_new();
	if (!a->tally) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", "out of memory"));
		sbx_config_free(config);
		return -1;
	}
	if (curl_global_init(CURL_GLOBAL_DEFAULT) || sbx_upstream_new(a->loop, &a->upstream)) {
		sbx_log(SBX_LOG_ERROR, "libcurl", SBX_STR("why", "cannot be initialised"));
		sbx_config_free(config);
		return -1;
	}
	if (sbx_world_new(config, a->upstream, NULL, a->started_ns, &a->world) || watch_signals(d)) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", "out of memory or descriptors"));
		return -1;
	}
	if (open_publisher(a) || open_sockets(d))
		return -1;
	if (open_store(d)) { /* not while we wait for the sockets: the file belongs to one agent after the other */
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", "out of memory or descriptors"));
		return -1;
	}
	d->watchdog_ns = sbx_sd_watchdog_ns();
	d->watchdog = (struct sbx_timer){ .fire = on_watchdog, .arg = d };
	if (sbx_timers_reserve(&a->timers, 64))
		return -1;
	if (d->watchdog_ns)
		sbx_timer_arm(&a->timers, &d->watchdog, a->started_ns + d->watchdog_ns / 2);
	if (take_place(d))
		return -1;
	publish(d);
	sbx_handover_end(&d->inheritance);
	return start_door(d);
}

/* In reverse, so that a leak checker finds nothing, and a half-built agent comes down as well. */
static void
tear_down(struct daemon *d)
{
	struct sbx_agent *a = &d->agent;
	if (a->loop) {
		sbx_session_close_all(a, SBX_CODE_DRAINING);
		reap(a);
		sbx_timer_cancel(&a->timers, &d->watchdog);
		sbx_listener_free(d->client_listener);
		sbx_listener_free(d->admin_listener);
		if (d->signals)
			sbx_watch_free(d->signals);
		if (d->reports)
			sbx_watch_free(d->reports);
		if (d->spawner_end)
			sbx_watch_free(d->spawner_end);
		if (d->predecessor) {
			sbx_watch_free(d->predecessor);
			(void)close(d->predecessor_fd);
		}
	}
	sbx_listen_close(&d->client_socket);
	sbx_listen_close(&d->admin_socket);
	sbx_handover_end(&d->inheritance);
	sbx_exchange_drop_legs(a);
	sbx_warmer_end(a);
	if (a->upstream)
		sbx_upstream_run(a->upstream, 0); /* lets go of what was aborted */
	reap(a);
	sbx_store_free(a->store); /* the last attempts have ended: what they left is written */
	sbx_vkeys_free(a);
	sbx_publisher_free(a->publisher);
	sbx_world_put(a->world);
	sbx_upstream_free(a->upstream);
	sbx_loop_free(a->loop);
	curl_global_cleanup();
	sbx_session_free_peers(a);
	sbx_tally_free(a->tally);
	sbx_buf_fini(&a->frame);
	sbx_json_scratch_fini(&a->scratch);
	sbx_timers_fini(&a->timers);
	sbx_vault_fini(&d->vault);
	if (d->signal_fd >= 0)
		(void)close(d->signal_fd);
	sbx_spawner_end(&d->spawner, d->stop_now);
}

static int
check_config(struct daemon *d)
{
	struct sbx_config_opts opts = { .path = d->config_path, .vault = &d->vault, .home_store = d->door.n_addresses > 0 };
	struct sbx_config_messages errors = { 0 };
	struct sbx_config *config;
	int rc = sbx_config_load(&opts, &config, &errors);
	if (rc) {
		print_messages(&errors, stderr);
		sbx_config_messages_fini(&errors);
		(void)fprintf(stderr, "signalboxd: the configuration is not valid\n");
		return EXIT_CONFIG;
	}
	print_messages(&config->notes, stdout);
	(void)printf("%s: valid; %u provider(s), %u with a key, %u target(s), %u route(s)\n", config->source ? config->source : "no configuration file",
	             config->tables.n_providers, config->n_usable, config->tables.n_targets, config->tables.n_routes);
	sbx_config_free(config);
	return EXIT_SUCCESS;
}

static int
parse_loop(const char *word, enum sbx_loop_kind *ret_kind)
{
	if (!word || !*word || strcmp(word, "auto") == 0)
		*ret_kind = SBX_LOOP_AUTO;
	else if (strcmp(word, "uring") == 0)
		*ret_kind = SBX_LOOP_URING;
	else if (strcmp(word, "epoll") == 0)
		*ret_kind = SBX_LOOP_EPOLL;
	else
		return -1;
	return 0;
}

static int
usage(const char *what, const char *word)
{
	(void)fprintf(stderr, "signalboxd: %s%s; see signalboxd --help\n", what, word ? word : "");
	return EXIT_USAGE;
}

int
main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' }, { "check", no_argument, NULL, 'k' },       { "replace", no_argument, NULL, 'r' },
		{ "loop", required_argument, NULL, 'l' },   { "log", required_argument, NULL, 'g' },   { "drain", required_argument, NULL, 'd' },
		{ "http", required_argument, NULL, 'p' },   { "http-user", required_argument, NULL, 'u' },
		{ "version", no_argument, NULL, 'v' },      { "help", no_argument, NULL, 'h' },        { NULL, 0, NULL, 0 },
	};
	static struct daemon d = { .client_socket = { -1, -1, NULL }, .admin_socket = { -1, -1, NULL }, .signal_fd = -1,
		.inheritance = { .fd = -1, .client = { -1, -1, NULL }, .admin = { -1, -1, NULL } }, .drain_ns = DRAIN_S * 1000000000ull, .spawner = { .fd = -1 } };
	const char *loop = getenv("SIGNALBOX_LOOP");
	enum sbx_log_level level = SBX_LOG_INFO;
	const char *level_word = "info";
	enum sbx_loop_kind kind;
	bool check = false;
	char *end;
	int c;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 'c':
			d.config_path = optarg;
			break;
		case 'r':
			d.replace = true;
			break;
		case 'k':
			check = true;
			break;
		case 'l':
			loop = optarg;
			break;
		case 'g':
			if (sbx_log_level_parse(optarg, &level))
				return usage("--log does not know ", optarg);
			level_word = optarg;
			break;
		case 'p':
			if (d.door.n_addresses == SBX_SPAWNER_ADDRESSES_MAX)
				return usage("--http is there too often", NULL);
			d.door.address[d.door.n_addresses++] = optarg;
			break;
		case 'u':
			d.door.user = optarg;
			break;
		case 'd':
			errno = 0;
			d.drain_ns = strtoul(optarg, &end, 10) * 1000000000ull;
			if (errno || *end || !*optarg || d.drain_ns > 86400000000000ull)
				return usage("--drain takes seconds, not ", optarg);
			break;
		case 'v':
			(void)printf("signalboxd %s (%s)\n", SBX_VERSION, curl_version());
			return EXIT_SUCCESS;
		case 'h':
			(void)fputs(help, stdout);
			return EXIT_SUCCESS;
		default:
			return usage("unknown option", NULL);
		}
	}
	if (optind < argc)
		return usage("unexpected argument ", argv[optind]);
	if (d.door.user && !d.door.n_addresses)
		return usage("--http-user belongs to --http", NULL);
	if (parse_loop(loop, &kind))
		return usage("the loop is auto, uring or epoll, not ", loop);

	struct sbx_log_opts log = sbx_log_default();
	log.level = level;
	sbx_log_init(&log);
	harden();
	if (check) {
		sbx_vault_init(&d.vault);
		int status = check_config(&d);
		sbx_vault_fini(&d.vault);
		return status;
	}
	d.door.log_level = level_word;
	d.door.drain_ns = d.drain_ns;
	char why[640];
	if (d.door.n_addresses && sbx_spawner_start(&d.door, &d.spawner, why, sizeof why)) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", why));
		return EXIT_FAILURE;
	}
	sbx_vault_init(&d.vault);
	struct sbx_config_opts opts = { .path = d.config_path, .vault = &d.vault, .home_store = d.door.n_addresses > 0 };
	struct sbx_config_messages errors = { 0 };
	struct sbx_config *config;
	if (sbx_config_load(&opts, &config, &errors)) {
		log_messages(&errors);
		sbx_config_messages_fini(&errors);
		sbx_vault_fini(&d.vault);
		sbx_spawner_end(&d.spawner, true);
		return EXIT_CONFIG;
	}
	log_messages(&config->notes);
	int status = EXIT_FAILURE;
	if (build(&d, config, kind) == 0) {
		config = d.agent.world->config;
		const int rc = sbx_confine();
		if (rc)
			sbx_log(SBX_LOG_NOTICE, "confine", SBX_STR("says", "this kernel or container lets no filter be set: starting programs is not denied"), SBX_ERRNO_F("error", rc));
		sbx_log(SBX_LOG_NOTICE, "ready", SBX_STR("version", SBX_VERSION), SBX_STR("socket", config->listen.socket), SBX_STR("config", config->source),
		        SBX_UINT("providers", config->tables.n_providers), SBX_UINT("usable", config->n_usable), SBX_UINT("targets", config->tables.n_targets),
		        SBX_UINT("routes", config->tables.n_routes), SBX_STR("http", sbx_upstream_about()));
		(void)sbx_warmer_begin(&d.agent); /* without it connections are opened when they are needed */
		(void)sbx_sd_notify("READY=1");
		status = run(&d);
		if (!d.replaced)
			sbx_publish_state(d.agent.publisher, d.agent.world, SBX_BOARD_STOPPED, sbx_loop_now_ns(d.agent.loop));
		log_summary(&d);
	}
	tear_down(&d);
	sbx_log(SBX_LOG_NOTICE, "stopped", SBX_INT("status", status));
	sbx_log_tick(true);
	return status;
}
