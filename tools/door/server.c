/* SPDX-License-Identifier: Apache-2.0 */
/*
 * server.c -- the loop, and libmicrohttpd in it.
 *
 *   epoll_wait -> accept, note hang-ups, take what the agent says -> clocks -> MHD_run() -> (again)
 *
 * libmicrohttpd runs without a thread: its epoll descriptor is one of ours, and connections are given to it by hand, because it
 * can neither listen on two sockets nor tell who is behind a Unix one. Its own timeout starts anew with each byte and it is blind
 * for a connection that is suspended; so heads and bodies have clocks here that do not, and every client's socket is watched
 * here as well, edge-triggered, for the one thing that matters while the agent works: that the client has gone.
 */
#include "tools/door/door.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "agent/log.h"
#include "agent/sdnotify.h"

#define EVENTS_AT_ONCE 256
#define PEM_MAX_BYTES (1u << 20)
#define MIB (1u << 20)
#define TOO_SLOW "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\nContent-Length: 134\r\nConnection: close\r\n\r\n" \
	"{\"error\":{\"message\":\"the request did not come in whole within its time\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"timeout\"}}"

/* ---- clocks ---- */

static uint64_t
clock_ns(const struct door *d, enum clock clock)
{
	switch (clock) {
	case CLOCK_HEAD:
		return HEAD_NS;
	case CLOCK_CHECK:
		return CHECK_NS;
	case CLOCK_IDLE:
		return IDLE_NS;
	case CLOCK_LEAVE:
		return LEAVE_NS;
	case CLOCK_BODY:
		return BODY_NS;
	case CLOCK_COMMIT:
		return d->options.commit_after_ns;
	case CLOCK_COMMENT:
		return COMMENT_NS;
	case CLOCK_METRICS:
		return METRICS_NS;
	case CLOCK_NONE:
	case CLOCK__COUNT:
		break;
	}
	return 0;
}

void
clock_set(struct conn *c, enum clock clock)
{
	struct door *d = c->door;
	if (c->clock != CLOCK_NONE) {
		if (c->prev)
			c->prev->next = c->next;
		else
			d->clock[c->clock].first = c->next;
		if (c->next)
			c->next->prev = c->prev;
		else
			d->clock[c->clock].last = c->prev;
	}
	c->clock = clock;
	if (clock == CLOCK_NONE)
		return;
	c->due_ns = d->now_ns + clock_ns(d, clock);
	c->next = NULL;
	c->prev = d->clock[clock].last;
	if (c->prev)
		c->prev->next = c;
	else
		d->clock[clock].first = c;
	d->clock[clock].last = c;
}

void
conn_kill(struct conn *c)
{
	clock_set(c, CLOCK_NONE);
	(void)shutdown(c->fd, SHUT_RDWR); /* gone already is as good */
	c->killed = true;
	if (c->call) {
		relay_abandon(c->call);
		call_wake(c->call);
	}
	c->server->run = true;
}

/* Too slow: it is told so where that can be done without libmicrohttpd, which is waiting for bytes. */
static void
time_out(struct conn *c)
{
	if (c->server == &c->door->plain && (c->clock == CLOCK_HEAD || c->clock == CLOCK_BODY))
		(void)send(c->fd, TOO_SLOW, sizeof TOO_SLOW - 1, MSG_DONTWAIT | MSG_NOSIGNAL); /* a courtesy */
	conn_kill(c);
}

static void
run_clocks(struct door *d)
{
	for (int i = CLOCK_NONE + 1; i < CLOCK__COUNT; i++) {
		struct conn *c;
		while ((c = d->clock[i].first) && c->due_ns <= d->now_ns) {
			if (i == CLOCK_COMMIT || i == CLOCK_COMMENT)
				relay_on_clock(c->call);
			else if (i == CLOCK_CHECK)
				keys_on_clock(c->call);
			else if (i == CLOCK_METRICS)
				metrics_on_clock(c->call);
			else
				time_out(c);
		}
	}
}

/* Between two requests. libmicrohttpd can miss that the client closed its side, when it did so together with its last bytes. */
static void
rest(struct conn *c)
{
	clock_set(c, c->killed ? CLOCK_NONE : c->hung_up ? CLOCK_LEAVE : CLOCK_IDLE);
}

/* ---- calls ---- */

void
call_wake(struct call *call)
{
	if (!call->suspended)
		return; /* libmicrohttpd comes by itself */
	call->suspended = false;
	MHD_resume_connection(call->conn->mhd);
	call->conn->server->run = true;
}

static uint64_t
mixed(uint64_t x) /* splitmix64 */
{
	x += 0x9e3779b97f4a7c15ull;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
	x = (x ^ x >> 27) * 0x94d049bb133111ebull;
	return x ^ x >> 31;
}

static struct call *
call_new(struct conn *c)
{
	struct door *d = c->door;
	struct call *call = calloc(1, sizeof *call);
	if (!call)
		return NULL;
	call->conn = c;
	call->state = CALL_BODY;
	call->began_ns = d->now_ns;
	call->body.max = BODY_MAX_BYTES;
	call->out.max = STREAM_MAX_BYTES;
	d->id_seed++;
	(void)snprintf(call->id, sizeof call->id, "req_%016llx%016llx", (unsigned long long)mixed(d->id_seed),
	               (unsigned long long)mixed(~d->id_seed));
	c->call = call;
	d->n_calls++;
	return call;
}

static void
body_over(struct call *call)
{
	call->conn->door->bodies_bytes -= call->body.n;
	clock_set(call->conn, CLOCK_NONE);
}

static void
call_free(struct call *call)
{
	struct conn *c = call->conn;
	if (call->state == CALL_BODY)
		body_over(call);
	relay_abandon(call);
	metrics_abandon(call);
	bytes_fini(&call->body);
	bytes_fini(&call->out);
	if (call->response)
		MHD_destroy_response(call->response);
	c->call = NULL;
	c->door->n_calls--;
	free(call);
	c->server->run |= c->killed; /* libmicrohttpd closes some of its sockets by the next run only, and asks for none */
	rest(c);
}

static enum MHD_Result
queue(struct call *call)
{
	enum MHD_Result rc = MHD_queue_response(call->conn->mhd, (unsigned)call->status, call->response);
	MHD_destroy_response(call->response); /* it has a reference of its own */
	call->response = NULL;
	if (call->state == CALL_READY)
		call->state = CALL_ANSWERED;
	return rc;
}

/* ---- libmicrohttpd's callbacks ---- */

/* By the head: the first look, and another one when the agent has said whether the key is good. Nothing of a body is read before. */
static enum MHD_Result
on_head(struct call *call, const char *url, const char *method)
{
	struct conn *c = call->conn;
	struct problem problem;
	bool welcome = guard_check(call, url, method, &problem);
	if (call->verdict == VERDICT_ASKED) {
		call->state = CALL_CHECKING;
		clock_set(c, CLOCK_CHECK);
		call->suspended = true;
		MHD_suspend_connection(c->mhd);
		return MHD_YES;
	}
	call->state = CALL_BODY;
	c->bad_target = false;
	uint64_t length = guard_length(call);
	clock_set(c, length ? CLOCK_BODY : CLOCK_NONE);
	if (welcome)
		return MHD_YES;
	answer_problem(call, &problem);
	if (!call->response)
		return MHD_NO;
	if (problem.close || guard_expects_continue(call) || (length != UINT64_MAX && length > DISCARD_MAX_BYTES))
		return queue(call);
	call->state = CALL_DISCARD; /* a client that is still sending would see a reset instead of the answer */
	return MHD_YES;
}

static void
refuse_body(struct call *call, int status, const char *type, const char *code, const char *message, int retry_after_s)
{
	struct problem p = problem_of(status, type, code, "%s", message);
	p.retry_after_s = retry_after_s;
	call->conn->door->bodies_bytes -= call->body.n;
	bytes_fini(&call->body);
	answer_problem(call, &p);
	call->state = CALL_DISCARD;
}

static enum MHD_Result
on_body(struct call *call, const char *bytes, size_t n)
{
	struct door *d = call->conn->door;
	uint64_t seen = call->body_seen_bytes;
	call->body_seen_bytes += n;
	d->count.received_bytes += n;
	if (call->body_seen_bytes > DISCARD_MAX_BYTES)
		return MHD_NO;
	if (call->body_seen_bytes / MIB != seen / MIB)
		clock_set(call->conn, CLOCK_BODY); /* the next MiB has its own time */
	if (call->state != CALL_BODY || !call->endpoint->operation)
		return MHD_YES;
	if (call->body_seen_bytes > BODY_MAX_BYTES) {
		refuse_body(call, 413, "invalid_request_error", "too_large", "the body is larger than 32 MiB", -1);
	} else if (d->bodies_bytes + n > BODIES_MAX_BYTES || !bytes_append(&call->body, bytes, n)) {
		refuse_body(call, 503, "server_error", "busy", "too many large requests are coming in at this moment", 1);
	} else {
		d->bodies_bytes += n;
	}
	return call->state == CALL_BODY || call->response ? MHD_YES : MHD_NO;
}

/* All of it is there. */
static void
on_whole(struct call *call)
{
	bool welcome = call->state == CALL_BODY;
	body_over(call);
	call->state = welcome ? CALL_WAITING : CALL_READY;
	if (welcome)
		call->endpoint->begin(call);
}

static enum MHD_Result
on_request(void *arg, struct MHD_Connection *mhd, const char *url, const char *method, const char *version, const char *upload,
           size_t *upload_bytes, void **con_cls)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct conn *c = info->socket_context;
	struct call *call = *con_cls;
	(void)arg;
	(void)version;
	if (c->killed)
		return MHD_NO;
	if (!call) {
		*con_cls = call = call_new(c);
		return call ? on_head(call, url, method) : MHD_NO;
	}
	if (call->state == CALL_CHECKING)
		return on_head(call, url, method);
	if (*upload_bytes) {
		size_t n = *upload_bytes;
		*upload_bytes = 0;
		return on_body(call, upload, n);
	}
	if (call->state == CALL_BODY || call->state == CALL_DISCARD)
		on_whole(call);
	if (call->response)
		return queue(call);
	if (c->killed)
		return MHD_NO;
	call->suspended = true;
	MHD_suspend_connection(mhd);
	return MHD_YES;
}

static void
on_completed(void *arg, struct MHD_Connection *mhd, void **con_cls, enum MHD_RequestTerminationCode how)
{
	struct call *call = *con_cls;
	(void)arg;
	(void)mhd;
	if (!call)
		return;
	sbx_log(SBX_LOG_DEBUG, "request", SBX_STR("request", call->id), SBX_STR("endpoint", call->endpoint ? call->endpoint->path : NULL),
	        SBX_INT("status", call->status), SBX_STR("target", call->target[0] ? call->target : NULL),
	        SBX_NS("took", call->conn->door->now_ns - call->began_ns), SBX_BOOL("whole", how == MHD_REQUEST_TERMINATED_COMPLETED_OK));
	call->conn->door->count.answers[endpoint_number(call->endpoint)][call->status > 0 && call->status < STATUS_MAX ? call->status : 0]++;
	call_free(call);
	*con_cls = NULL;
}

static void
on_connection(void *arg, struct MHD_Connection *mhd, void **socket_context, enum MHD_ConnectionNotificationCode what)
{
	struct door *d = arg;
	if (what == MHD_CONNECTION_NOTIFY_STARTED) {
		struct conn *c = d->by_fd[MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd];
		c->mhd = mhd;
		*socket_context = c;
	} else {
		conn_free(*socket_context);
		if (d->accept_again_ns)
			listen_pause(d, 0);
	}
}

static void *
on_target(void *arg, const char *raw, struct MHD_Connection *mhd)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(mhd, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	struct conn *c = info->socket_context;
	(void)arg;
	c->bad_target = guard_target_is_bad(raw);
	return NULL;
}

/* ---- opening ---- */

static char *
read_pem(const char *path)
{
	char *text = malloc(PEM_MAX_BYTES);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	ssize_t n = fd >= 0 && text ? read(fd, text, PEM_MAX_BYTES - 1) : -1;
	if (n < 0)
		sbx_log(SBX_LOG_ERROR, "tls", SBX_STR("path", path), SBX_ERRNO_F("error", errno));
	if (fd >= 0)
		(void)close(fd); /* it was only read */
	if (n < 0) {
		free(text);
		return NULL;
	}
	text[n] = 0;
	return text;
}

static bool
start(struct door *d, struct server *s, const char *cert, const char *key)
{
	const unsigned flags = MHD_USE_EPOLL | MHD_USE_NO_LISTEN_SOCKET | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_TURBO | (cert ? MHD_USE_TLS : 0);
	struct MHD_OptionItem tls[] = {
		{ MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)cert },
		{ MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)key },
		{ MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t) "NORMAL:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2" },
		{ MHD_OPTION_END, 0, NULL },
	};
	s->mhd = MHD_start_daemon(flags, 0, NULL, NULL, on_request, NULL,
	                          MHD_OPTION_CONNECTION_LIMIT, d->options.max_connections + 64u, /* room for those that are on their way out */
	                          MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HEADER_POOL_BYTES,
	                          MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)STALL_S,
	                          MHD_OPTION_NOTIFY_COMPLETED, on_completed, NULL,
	                          MHD_OPTION_NOTIFY_CONNECTION, on_connection, d,
	                          MHD_OPTION_URI_LOG_CALLBACK, on_target, NULL,
	                          MHD_OPTION_STRICT_FOR_CLIENT, 1,
	                          MHD_OPTION_SIGPIPE_HANDLED_BY_APP, 1,
	                          MHD_OPTION_ARRAY, cert ? tls : &tls[3],
	                          MHD_OPTION_END);
	s->watch.kind = WATCH_SERVER;
	if (!s->mhd) {
		sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", cert ? "the certificate and its key are not accepted" : "libmicrohttpd does not start"));
		return false;
	}
	const union MHD_DaemonInfo *info = MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_EPOLL_FD);
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &s->watch };
	return info && epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, info->epoll_fd, &ev) == 0;
}

static bool
watch_signals(struct door *d)
{
	sigset_t set;
	(void)sigemptyset(&set);
	(void)sigaddset(&set, SIGTERM);
	(void)sigaddset(&set, SIGINT);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	(void)signal(SIGPIPE, SIG_IGN);
	d->signals.kind = WATCH_SIGNAL;
	d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &d->signals };
	return d->signal_fd >= 0 && epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, d->signal_fd, &ev) == 0;
}

static void
read_clock(struct door *d)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
	d->now_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static int64_t
unix_ms(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

bool
server_open(struct door *d)
{
	read_clock(d);
	if (getrandom(&d->id_seed, sizeof d->id_seed, 0) != (ssize_t)sizeof d->id_seed)
		d->id_seed = d->now_ns;
	d->started_unix_ms = unix_ms();
	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (d->epoll_fd < 0 || !watch_signals(d) || !start(d, &d->plain, NULL, NULL))
		return false;
	if (!d->options.tls_cert)
		return true;
	char *cert = read_pem(d->options.tls_cert), *key = read_pem(d->options.tls_key);
	bool ok = cert && key && start(d, &d->tls, cert, key);
	if (key)
		explicit_bzero(key, strlen(key));
	free(cert);
	free(key);
	return ok;
}

/* ---- running ---- */

static void
begin_drain(struct door *d)
{
	if (d->draining) {
		d->stop_now = true;
		return;
	}
	d->draining = true;
	d->drain_until_ns = d->now_ns + d->options.drain_ns;
	(void)sbx_sd_notify("STOPPING=1");
	sbx_log(SBX_LOG_NOTICE, "draining", SBX_UINT("requests", d->n_calls), SBX_UINT("connections", d->n_conns), SBX_NS("at_most", d->options.drain_ns));
	listen_close(d);
}

static void
on_signal(struct door *d)
{
	struct signalfd_siginfo info;
	while (read(d->signal_fd, &info, sizeof info) == (ssize_t)sizeof info)
		begin_drain(d);
}

static void
on_conn(struct conn *c, uint32_t events)
{
	if (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
		c->hung_up = true;
		if (c->call && c->call->request)
			conn_kill(c); /* whoever waits for it has gone: the provider need not go on */
		else if (!c->call && !c->killed)
			rest(c);
	} else if (c->clock == CLOCK_IDLE) {
		clock_set(c, CLOCK_HEAD);
	}
}

static void
dispatch(struct door *d, const struct epoll_event *ev)
{
	struct watch *w = ev->data.ptr;
	switch (w->kind) {
	case WATCH_LISTENER:
		if (!d->draining)
			listen_accept(d, (struct listener *)w);
		break;
	case WATCH_SERVER:
		((struct server *)w)->run = true;
		break;
	case WATCH_LINK:
		links_process(d, (struct link *)w, (short)ev->events); /* EPOLLIN and its like are POLLIN and its like */
		break;
	case WATCH_CONN:
		on_conn((struct conn *)w, ev->events);
		break;
	case WATCH_SIGNAL:
		on_signal(d);
		break;
	}
}

static void
until(int *least_ms, uint64_t ms)
{
	int wait_ms = ms > 60000 ? 60000 : (int)ms;
	if (*least_ms < 0 || wait_ms < *least_ms)
		*least_ms = wait_ms;
}

static int
wait_ms(struct door *d, uint64_t watchdog_ns)
{
	int least_ms = links_timeout_ms(d);
	struct server *const servers[] = { &d->plain, &d->tls };
	for (int i = 0; i < 2; i++) {
		MHD_UNSIGNED_LONG_LONG ms;
		if (servers[i]->mhd && MHD_get_timeout(servers[i]->mhd, &ms) == MHD_YES) {
			until(&least_ms, ms);
			servers[i]->run |= ms == 0;
		}
		if (servers[i]->run)
			least_ms = 0;
	}
	for (int i = CLOCK_NONE + 1; i < CLOCK__COUNT; i++) {
		const struct conn *c = d->clock[i].first;
		if (c)
			until(&least_ms, c->due_ns > d->now_ns ? (c->due_ns - d->now_ns + 999999) / 1000000 : 0);
	}
	if (d->accept_again_ns)
		until(&least_ms, d->accept_again_ns > d->now_ns ? (d->accept_again_ns - d->now_ns + 999999) / 1000000 : 0);
	if (d->draining)
		until(&least_ms, d->drain_until_ns > d->now_ns ? (d->drain_until_ns - d->now_ns + 999999) / 1000000 : 0);
	if (watchdog_ns)
		until(&least_ms, watchdog_ns / 2000000);
	return least_ms;
}

static void
run_servers(struct door *d)
{
	struct server *const servers[] = { &d->plain, &d->tls };
	for (int i = 0; i < 2; i++)
		if (servers[i]->mhd && servers[i]->run) {
			servers[i]->run = false;
			(void)MHD_run(servers[i]->mhd); /* it says no only when it is stopped */
		}
}

/* While draining: those without a request go at once. */
static void
drop_idle(struct door *d)
{
	while (d->clock[CLOCK_IDLE].first)
		conn_kill(d->clock[CLOCK_IDLE].first);
	while (d->clock[CLOCK_HEAD].first)
		conn_kill(d->clock[CLOCK_HEAD].first);
}

int
server_run(struct door *d)
{
	const uint64_t watchdog_ns = sbx_sd_watchdog_ns();
	uint64_t notified_ns = 0, ticked_ns = 0;
	struct epoll_event ev[EVENTS_AT_ONCE];
	for (;;) {
		links_watch(d);
		int n = epoll_wait(d->epoll_fd, ev, EVENTS_AT_ONCE, wait_ms(d, watchdog_ns));
		if (n < 0 && errno != EINTR) {
			sbx_log(SBX_LOG_ERROR, "loop", SBX_ERRNO_F("error", errno));
			return EXIT_FAILURE;
		}
		read_clock(d);
		for (int i = 0; i < n; i++)
			dispatch(d, &ev[i]);
		for (struct link *l = d->link; l < d->link + LINKS_MAX; l++)
			if (sbx_timeout_ms(l->client) == 0)
				links_process(d, l, 0);
		run_clocks(d);
		if (d->accept_again_ns && d->now_ns >= d->accept_again_ns)
			listen_pause(d, 0);
		if (d->draining)
			drop_idle(d);
		run_servers(d);
		if (watchdog_ns && d->now_ns - notified_ns >= watchdog_ns / 2) {
			notified_ns = d->now_ns;
			(void)sbx_sd_notify("WATCHDOG=1");
		}
		if (d->now_ns - ticked_ns >= 1000000000) {
			ticked_ns = d->now_ns;
			sbx_log_tick(false);
		}
		if (d->draining && (d->n_conns == 0 || d->stop_now || d->now_ns >= d->drain_until_ns))
			return EXIT_SUCCESS;
	}
}

void
server_close(struct door *d)
{
	listen_close(d);
	for (uint32_t fd = 0; fd < d->n_by_fd; fd++)
		if (d->by_fd[fd])
			conn_kill(d->by_fd[fd]); /* also because libmicrohttpd cannot stop while one is suspended */
	run_servers(d);
	if (d->plain.mhd)
		MHD_stop_daemon(d->plain.mhd);
	if (d->tls.mhd)
		MHD_stop_daemon(d->tls.mhd);
	for (uint32_t fd = 0; fd < d->n_by_fd; fd++)
		if (d->by_fd[fd])
			conn_free(d->by_fd[fd]);
	free(d->by_fd);
	for (uint32_t i = 0; i < d->n_allowed_hosts; i++)
		free(d->allowed_host[i]);
	if (d->signal_fd >= 0)
		(void)close(d->signal_fd);
	if (d->epoll_fd >= 0)
		(void)close(d->epoll_fd);
}
