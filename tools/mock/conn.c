/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listeners and connections: accept, bytes in and out, and the ways to end.
 *
 * A connection is in the epoll set once, edge-triggered, for everything: no
 * epoll_ctl after that.  EPOLLRDHUP tells at once of a client that closed,
 * also while its answer is pending and nobody reads.  A client that only shuts
 * down its writing half counts as gone: no HTTP client of ours does that.
 *
 * A reset must not overtake the bytes before it (they would be thrown away in
 * our send queue), so it waits until the kernel has sent them.
 */
#include "tools/mock/mock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPTS_PER_TURN 256
#define ACCEPT_PAUSE_NS (100ull * 1000000) /* out of descriptors: one may be free by then */
#define LINGER_STEP_NS 1000000ull          /* look again for a drained send queue */
#define DRAIN_MAX 64                       /* reads before a close, so that FIN does not become RST */

static bool handshaking(const struct mock_conn *conn)
{
	return conn->ssl != NULL && conn->protocol == NULL && conn->reading;
}

/* ---- end of a connection --------------------------------------------------- */

static void really_close(struct mock_conn *conn)
{
	struct mock *mock = conn->mock;

	if (conn->protocol != NULL)
		conn->protocol->on_close(conn);
	mock_control_forget(conn);
	mock_timer_stop(&mock->loop, &conn->linger);
	mock_loop_undefer(&mock->loop, &conn->defer);
	if (conn->ssl != NULL)
		mock_tls_close(conn, conn->closing == MOCK_CLOSE_FIN);
	if (conn->closing == MOCK_CLOSE_RST) {
		struct linger now = { .l_onoff = 1, .l_linger = 0 };

		(void)setsockopt(conn->source.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	} else if (conn->closing == MOCK_CLOSE_FIN) {
		/* unread input would turn the FIN into a reset */
		(void)shutdown(conn->source.fd, SHUT_WR);
		for (int i = 0; i < DRAIN_MAX; i++)
			if (recv(conn->source.fd, mock->scratch, sizeof(mock->scratch), MSG_DONTWAIT) <= 0)
				break;
	}
	(void)close(conn->source.fd);
	mock_bytes_fini(&conn->out);
	if (conn->prev != NULL)
		conn->prev->next = conn->next;
	else
		mock->conns = conn->next;
	if (conn->next != NULL)
		conn->next->prev = conn->prev;
	mock->n_conns_open--;
	free(conn);
}

static void close_step(struct mock_conn *conn)
{
	int unsent = 0;

	if (conn->closing != MOCK_CLOSE_GONE) {
		mock_conn_flush(conn);
		if (conn->closing != MOCK_CLOSE_GONE && conn->out.n > 0)
			return; /* EPOLLOUT or the peer's end brings us back */
		if (conn->closing == MOCK_CLOSE_RST && ioctl(conn->source.fd, SIOCOUTQNSD, &unsent) == 0 &&
		    unsent > 0) {
			mock_timer_arm(&conn->mock->loop, &conn->linger, conn->mock->loop.now_ns + LINGER_STEP_NS);
			return;
		}
	}
	really_close(conn);
}

static void on_linger(struct mock_timer *timer)
{
	struct mock_conn *conn = mock_owner_of(timer, struct mock_conn, linger);

	mock_loop_defer(&conn->mock->loop, &conn->defer);
}

static void on_defer(struct mock_defer *defer)
{
	struct mock_conn *conn = mock_owner_of(defer, struct mock_conn, defer);

	if (conn->woken && conn->closing == MOCK_CLOSE_NO) {
		conn->woken = false;
		conn->protocol->on_idle(conn);
	}
	if (conn->closing != MOCK_CLOSE_NO)
		close_step(conn);
}

/* ---- events ----------------------------------------------------------------- */

static void on_event(struct mock_source *source, uint32_t events)
{
	struct mock_conn *conn = mock_owner_of(source, struct mock_conn, source);

	if (events & (EPOLLERR | EPOLLHUP)) {
		mock_conn_close(conn, MOCK_CLOSE_GONE);
		return;
	}
	if (conn->closing == MOCK_CLOSE_NO) {
		if (handshaking(conn) && mock_tls_handshake(conn) < 0) {
			mock_conn_close(conn, MOCK_CLOSE_GONE);
			return;
		}
		if ((events & (EPOLLIN | EPOLLRDHUP)) && conn->protocol != NULL)
			conn->protocol->on_input(conn);
	}
	if (events & EPOLLRDHUP) {
		mock_conn_close(conn, MOCK_CLOSE_GONE);
		return;
	}
	if ((events & EPOLLOUT) && conn->write_blocked) {
		mock_conn_flush(conn);
		if (conn->closing != MOCK_CLOSE_NO)
			mock_loop_defer(&conn->mock->loop, &conn->defer);
		else if (conn->out.n == 0 && conn->protocol != NULL)
			conn->protocol->on_drained(conn);
	}
}

static void open_conn(struct mock_listener *listener, int fd)
{
	struct mock *mock = listener->mock;
	struct mock_rule *rule = listener->control ? NULL : mock_rules_find_accept(mock->rules);
	struct mock_conn *conn;
	int one = 1;

	mock->n_conns_total++;
	if (rule != NULL && rule->faults.accept_close) {
		struct linger now = { .l_onoff = rule->faults.how == MOCK_HOW_RST, .l_linger = 0 };

		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
		(void)close(fd);
		mock->n_conns_refused++;
		mock_rule_unref(rule);
		return;
	}
	conn = calloc(1, sizeof(*conn));
	if (conn == NULL) {
		mock_rule_unref(rule);
		(void)close(fd);
		return;
	}
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	conn->mock = mock;
	conn->id = mock->n_conns_total;
	conn->source = (struct mock_source){ .fd = fd, .on_event = on_event };
	conn->defer.run = on_defer;
	conn->linger.on_due = on_linger;
	conn->control_only = listener->control;
	conn->reading = rule == NULL;
	mock_rule_unref(rule);
	conn->next = mock->conns;
	if (conn->next != NULL)
		conn->next->prev = conn;
	mock->conns = conn;
	mock->n_conns_open++;
	if (conn->reading && listener->tls && mock_tls_open(conn) < 0)
		mock_conn_close(conn, MOCK_CLOSE_GONE);
	if (conn->reading && !listener->tls)
		mock_http1_open(conn);
	if (mock_loop_watch(&mock->loop, &conn->source, EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET) < 0)
		mock_conn_close(conn, MOCK_CLOSE_GONE);
}

static void on_acceptable(struct mock_source *source, uint32_t events)
{
	struct mock_listener *listener = mock_owner_of(source, struct mock_listener, source);
	struct mock *mock = listener->mock;

	(void)events;
	for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
		int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd >= 0) {
			open_conn(listener, fd);
			continue;
		}
		if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
			mock_loop_unwatch(&mock->loop, source);
			mock_timer_arm(&mock->loop, &listener->pause, mock->loop.now_ns + ACCEPT_PAUSE_NS);
		}
		if (errno != ECONNABORTED && errno != EINTR)
			return;
	}
}

static void on_pause_over(struct mock_timer *timer)
{
	struct mock_listener *listener = mock_owner_of(timer, struct mock_listener, pause);

	if (listener->watched)
		(void)mock_loop_watch(&listener->mock->loop, &listener->source, EPOLLIN);
}

/* ---- public ------------------------------------------------------------------ */

int mock_listener_open(struct mock *mock, const char *address, bool tls, bool control, char *error,
    size_t error_bytes)
{
	struct mock_listener *listener = &mock->listeners[mock->n_listeners];
	const char *colon = strrchr(address, ':');
	socklen_t length = sizeof(listener->address);
	char host[64] = "127.0.0.1";
	unsigned long port;
	char *end;
	int one = 1;

	if (mock->n_listeners == MOCK_LISTENERS_MAX) {
		(void)snprintf(error, error_bytes, "at most %d listeners", MOCK_LISTENERS_MAX);
		return -1;
	}
	if (colon == NULL || (size_t)(colon - address) >= sizeof(host))
		goto malformed;
	memcpy(host, address, (size_t)(colon - address));
	host[colon - address] = '\0';
	if (host[0] == '\0' || strcmp(host, "localhost") == 0)
		(void)snprintf(host, sizeof(host), "127.0.0.1");
	errno = 0;
	port = strtoul(colon + 1, &end, 10);
	if (errno != 0 || end == colon + 1 || *end != '\0' || port > 65535)
		goto malformed;
	*listener = (struct mock_listener){ .mock = mock, .tls = tls, .control = control, .watched = true };
	listener->address.sin_family = AF_INET;
	listener->address.sin_port = htons((uint16_t)port);
	if (inet_pton(AF_INET, host, &listener->address.sin_addr) != 1)
		goto malformed;
	listener->pause.on_due = on_pause_over;
	listener->source.on_event = on_acceptable;
	listener->source.fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (listener->source.fd < 0 ||
	    setsockopt(listener->source.fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(listener->source.fd, (struct sockaddr *)&listener->address, sizeof(listener->address)) < 0 ||
	    listen(listener->source.fd, SOMAXCONN) < 0 ||
	    getsockname(listener->source.fd, (struct sockaddr *)&listener->address, &length) < 0 ||
	    mock_loop_watch(&mock->loop, &listener->source, EPOLLIN) < 0) {
		(void)snprintf(error, error_bytes, "cannot listen on %s: %s", address, strerror(errno));
		if (listener->source.fd >= 0)
			(void)close(listener->source.fd);
		return -1;
	}
	mock->n_listeners++;
	return 0;
malformed:
	(void)snprintf(error, error_bytes, "an address reads HOST:PORT with an IPv4 address, not '%s'", address);
	return -1;
}

void mock_listeners_watch(struct mock *mock, bool on)
{
	for (size_t i = 0; i < mock->n_listeners; i++) {
		struct mock_listener *listener = &mock->listeners[i];

		if (listener->control || listener->watched == on)
			continue;
		listener->watched = on;
		if (on)
			(void)mock_loop_watch(&mock->loop, &listener->source, EPOLLIN);
		else
			mock_loop_unwatch(&mock->loop, &listener->source);
	}
}

void mock_listener_close(struct mock_listener *listener)
{
	mock_timer_stop(&listener->mock->loop, &listener->pause);
	(void)close(listener->source.fd);
}

size_t mock_conn_read(struct mock_conn *conn, char *into, size_t n)
{
	ssize_t got;

	if (conn->closing != MOCK_CLOSE_NO)
		return 0;
	do
		got = conn->ssl != NULL ? mock_tls_read(conn, into, n) : recv(conn->source.fd, into, n, 0);
	while (got < 0 && errno == EINTR);
	if (got > 0)
		return (size_t)got;
	if (got == 0 || errno != EAGAIN)
		mock_conn_close(conn, MOCK_CLOSE_GONE);
	return 0;
}

void mock_conn_flush(struct mock_conn *conn)
{
	if (conn->closing == MOCK_CLOSE_GONE || handshaking(conn))
		return;
	while (conn->out.n > 0) {
		ssize_t sent = conn->ssl != NULL
		    ? mock_tls_write(conn, mock_bytes_at(&conn->out), conn->out.n)
		    : send(conn->source.fd, mock_bytes_at(&conn->out), conn->out.n, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent < 0 && errno == EAGAIN) {
			conn->write_blocked = true;
			return;
		}
		if (sent <= 0) {
			mock_conn_close(conn, MOCK_CLOSE_GONE);
			return;
		}
		mock_bytes_eat(&conn->out, (size_t)sent);
	}
	conn->write_blocked = false;
}

void mock_conn_wake(struct mock_conn *conn)
{
	conn->woken = true;
	mock_loop_defer(&conn->mock->loop, &conn->defer);
}

void mock_conn_close(struct mock_conn *conn, enum mock_close how)
{
	if (conn->closing == MOCK_CLOSE_NO || how == MOCK_CLOSE_GONE)
		conn->closing = how;
	mock_loop_defer(&conn->mock->loop, &conn->defer);
}

size_t mock_conn_close_idle(struct mock *mock, enum mock_close how, const struct mock_conn *except)
{
	size_t n = 0;

	for (struct mock_conn *conn = mock->conns; conn != NULL; conn = conn->next) {
		if (conn == except || conn->control_only || conn->closing != MOCK_CLOSE_NO || conn->protocol == NULL ||
		    !conn->protocol->is_idle(conn))
			continue;
		mock_conn_close(conn, how);
		n++;
	}
	return n;
}

void mock_conn_free_all(struct mock *mock)
{
	while (mock->conns != NULL) {
		struct mock_conn *conn = mock->conns;

		conn->closing = MOCK_CLOSE_FIN;
		really_close(conn);
	}
}
