/* SPDX-License-Identifier: Apache-2.0 */
/*
 * listen.c -- where clients connect, and who they are.
 *
 * An address is "HOST:PORT" with a numeric HOST (or "localhost"), "tls:HOST:PORT", or the path of a Unix socket. Beyond loopback it is
 * TLS or nothing.
 *
 * LIMITS. When all places are taken, the connection that has waited longest without a request makes room: holding many idle ones open
 * keeps nobody out. One address beyond loopback, and one user of a Unix socket, has a share of the places only.
 */
#include "tools/door/door.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/log.h"

#define BACKLOG 4096            /* a burst of clients; the kernel cuts it to somaxconn */
#define ACCEPTS_AT_ONCE 64      /* in one turn, so that those who are in are served as well */
#define PAUSE_NS 100000000ull   /* without descriptors to accept with; the kernel queues them as long */
#define UNMAPPED_UID 65534u     /* a user namespace's stranger: it could be anybody */

union address {
	struct sockaddr any;
	struct sockaddr_in v4;
	struct sockaddr_in6 v6;
	struct sockaddr_un local;
};

static bool
complain(const char *where, const char *why)
{
	sbx_log(SBX_LOG_ERROR, "listen", SBX_STR("address", where), SBX_STR("why", why));
	return false;
}

/* ---- addresses ---- */

static bool
parse_port(const char *text, uint16_t *ret_port)
{
	char *end;
	unsigned long port = strtoul(text, &end, 10);
	if (*text < '0' || *text > '9' || *end || port > 65535)
		return false;
	*ret_port = (uint16_t)port;
	return true;
}

/* "127.0.0.1:80", "[::1]:80", "localhost:80" */
static bool
parse_address(const char *text, union address *ret_address, socklen_t *ret_bytes)
{
	char host[64];
	uint16_t port;
	const char *colon = strrchr(text, ':');
	size_t n = colon ? (size_t)(colon - text) : 0;
	memset(ret_address, 0, sizeof *ret_address);
	if (!colon || n == 0 || n >= sizeof host || !parse_port(colon + 1, &port))
		return false;
	memcpy(host, text, n);
	host[n] = 0;
	if (host[0] == '[' && host[n - 1] == ']') {
		host[n - 1] = 0;
		ret_address->v6.sin6_family = AF_INET6;
		ret_address->v6.sin6_port = htons(port);
		*ret_bytes = sizeof ret_address->v6;
		return inet_pton(AF_INET6, host + 1, &ret_address->v6.sin6_addr) == 1;
	}
	ret_address->v4.sin_family = AF_INET;
	ret_address->v4.sin_port = htons(port);
	*ret_bytes = sizeof ret_address->v4;
	return inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &ret_address->v4.sin_addr) == 1;
}

static bool
is_loopback(const union address *a)
{
	if (a->any.sa_family == AF_INET)
		return ntohl(a->v4.sin_addr.s_addr) >> 24 == 127;
	return IN6_IS_ADDR_LOOPBACK(&a->v6.sin6_addr) || (IN6_IS_ADDR_V4MAPPED(&a->v6.sin6_addr) && a->v6.sin6_addr.s6_addr[12] == 127);
}

/* The names by which clients may call us here. */
static bool
allow_names(struct door *d, const struct listener *l, uint16_t port)
{
	bool standard = port == (l->tls ? 443 : 80);
	bool ok = guard_allow_host(d, "%s", l->name) && guard_allow_host(d, "localhost:%u", port) && guard_allow_host(d, "127.0.0.1:%u", port);
	if (ok && standard)
		ok = guard_allow_host(d, "localhost");
	for (uint32_t i = 0; ok && i < d->options.n_host; i++) {
		ok = guard_allow_host(d, "%s:%u", d->options.host[i], port);
		if (ok && standard)
			ok = guard_allow_host(d, "%s", d->options.host[i]);
	}
	return ok;
}

/* ---- opening ---- */

static bool
open_tcp(struct door *d, struct listener *l, const char *where)
{
	const int on = 1;
	union address a;
	socklen_t bytes;
	char host[INET6_ADDRSTRLEN], why[160];
	l->tls = strncmp(where, "tls:", 4) == 0;
	const char *text = l->tls ? where + 4 : where;
	if (!parse_address(text, &a, &bytes))
		return complain(where, "it should be HOST:PORT with a numeric HOST, tls:HOST:PORT, or the path of a Unix socket");
	bool loopback = is_loopback(&a);
	if (!d->tls.mhd && (l->tls || !loopback))
		return complain(where, loopback ? "TLS needs --tls-cert and --tls-key"
		                                : "beyond loopback keys and prompts would be readable on the way: give --tls-cert and --tls-key");
	l->tls = l->tls || !loopback;
	l->fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (l->fd < 0 || setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
	    (a.any.sa_family == AF_INET6 && setsockopt(l->fd, IPPROTO_IPV6, IPV6_V6ONLY, &on, sizeof on) < 0) || bind(l->fd, &a.any, bytes) < 0 ||
	    listen(l->fd, BACKLOG) < 0 || getsockname(l->fd, &a.any, &bytes) < 0) {
		(void)snprintf(why, sizeof why, "%m");
		if (l->fd >= 0)
			(void)close(l->fd);
		return complain(where, why);
	}
	bool v6 = a.any.sa_family == AF_INET6;
	uint16_t port = ntohs(v6 ? a.v6.sin6_port : a.v4.sin_port);
	(void)inet_ntop(a.any.sa_family, v6 ? (const void *)&a.v6.sin6_addr : (const void *)&a.v4.sin_addr, host, sizeof host);
	(void)snprintf(l->name, sizeof l->name, v6 ? "[%s]:%u" : "%s:%u", host, port);
	return allow_names(d, l, port) || complain(where, "too many names");
}

static bool
open_unix(struct listener *l, const char *path)
{
	char why[640];
	l->local = true;
	if (sbx_listen_open(&l->unix_socket, path, 0660, false, 0, why, sizeof why))
		return complain(path, why);
	l->fd = l->unix_socket.fd;
	(void)snprintf(l->name, sizeof l->name, "%s", path);
	return true;
}

bool
listen_open(struct door *d)
{
	for (uint32_t i = 0; i < d->options.n_listen; i++) {
		struct listener *l = &d->listener[d->n_listeners];
		const char *where = d->options.listen[i];
		*l = (struct listener){ .watch = { WATCH_LISTENER }, .fd = -1, .unix_socket = { -1, -1, NULL } };
		if (where[0] == '/' || where[0] == '.' ? !open_unix(l, where) : !open_tcp(d, l, where))
			return false;
		d->n_listeners++;
		struct epoll_event ev = { .events = EPOLLIN, .data.ptr = &l->watch };
		if (epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, l->fd, &ev) < 0)
			return complain(where, "epoll refuses it");
		sbx_log(SBX_LOG_NOTICE, "listening", SBX_STR("address", l->name), SBX_BOOL("tls", l->tls));
	}
	return true;
}

void
listen_close(struct door *d)
{
	for (uint32_t i = 0; i < d->n_listeners; i++) {
		struct listener *l = &d->listener[i];
		if (l->local)
			sbx_listen_close(&l->unix_socket);
		else
			(void)close(l->fd);
	}
	d->n_listeners = 0;
}

/* ---- who it is ---- */

static struct peer *
peer_get(struct door *d, const uint8_t key[17])
{
	uint32_t hash = 2166136261u;
	for (int i = 0; i < 17; i++)
		hash = (hash ^ key[i]) * 16777619u;
	struct peer **at = &d->peers[hash % PEER_BUCKETS], *p = *at;
	while (p && memcmp(p->key, key, sizeof p->key) != 0)
		p = p->next;
	if (!p && (p = calloc(1, sizeof *p))) {
		memcpy(p->key, key, sizeof p->key);
		p->next = *at;
		*at = p;
	}
	if (p)
		p->connections++;
	return p;
}

static void
peer_put(struct door *d, struct peer *peer)
{
	if (!peer || --peer->connections)
		return;
	for (uint32_t i = 0; i < PEER_BUCKETS; i++)
		for (struct peer **at = &d->peers[i]; *at; at = &(*at)->next)
			if (*at == peer) {
				*at = peer->next;
				free(peer);
				return;
			}
}

/* False: not welcome. */
static bool
identify(struct door *d, struct conn *c, const union address *a)
{
	uint8_t key[17] = { 0 };
	uint32_t limit = d->options.max_per_address;
	if (c->local) {
		struct ucred who;
		socklen_t n = sizeof who;
		if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &who, &n) < 0 || who.uid == UNMAPPED_UID)
			return false;
		c->uid = who.uid;
		for (uint32_t i = 0; i < d->options.n_trust_uid; i++)
			c->trusted |= who.uid == d->options.trust_uid[i];
		key[0] = 1;
		memcpy(key + 1, &who.uid, sizeof who.uid);
		limit = d->options.max_connections / 2;
	} else if (is_loopback(a)) {
		return true; /* all of this host; only the total counts */
	} else if (a->any.sa_family == AF_INET) {
		key[0] = 4;
		memcpy(key + 1, &a->v4.sin_addr, 4);
	} else {
		key[0] = 6;
		memcpy(key + 1, &a->v6.sin6_addr, 8); /* a /64 is one customer */
	}
	c->peer = peer_get(d, key);
	return c->peer && c->peer->connections <= limit;
}

/* ---- accepting ---- */

void
conn_free(struct conn *c)
{
	struct door *d = c->door;
	clock_set(c, CLOCK_NONE);
	peer_put(d, c->peer);
	d->by_fd[c->fd] = NULL;
	d->n_conns--;
	free(c);
}

static bool
remember(struct door *d, struct conn *c)
{
	uint32_t fd = (uint32_t)c->fd;
	if (fd >= d->n_by_fd) {
		uint32_t n = d->n_by_fd ? d->n_by_fd : 64;
		while (n <= fd)
			n *= 2;
		struct conn **by_fd = realloc(d->by_fd, n * sizeof(struct conn *));
		if (!by_fd)
			return false;
		memset(by_fd + d->n_by_fd, 0, (n - d->n_by_fd) * sizeof(struct conn *));
		d->by_fd = by_fd;
		d->n_by_fd = n;
	}
	if (d->by_fd[fd])
		conn_free(d->by_fd[fd]); /* libmicrohttpd had no memory for it, closed it and said nothing */
	d->by_fd[fd] = c;
	d->n_conns++;
	d->count.accepted++;
	return true;
}

static void
add(struct door *d, const struct listener *l, int fd, const union address *a, socklen_t bytes)
{
	struct conn *c = calloc(1, sizeof *c);
	if (c)
		*c = (struct conn){ .watch = { WATCH_CONN }, .door = d, .server = l->tls ? &d->tls : &d->plain, .fd = fd, .local = l->local };
	if (!c || !remember(d, c)) {
		free(c);
		(void)close(fd);
		return;
	}
	/* Edge-triggered and never touched again: it tells that bytes come after a rest, and that the client hangs up. */
	struct epoll_event ev = { .events = EPOLLIN | EPOLLRDHUP | EPOLLET, .data.ptr = &c->watch };
	if (!identify(d, c, a) || epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		conn_free(c);
		(void)close(fd);
		return;
	}
	clock_set(c, CLOCK_HEAD);
	c->server->run = true;
	if (MHD_add_connection(c->server->mhd, fd, &a->any, bytes) != MHD_YES)
		conn_free(c); /* it has closed the socket */
}

void
listen_pause(struct door *d, uint64_t until_ns)
{
	d->accept_again_ns = until_ns;
	for (uint32_t i = 0; i < d->n_listeners; i++) {
		struct epoll_event ev = { .events = until_ns ? 0 : (uint32_t)EPOLLIN, .data.ptr = &d->listener[i].watch };
		(void)epoll_ctl(d->epoll_fd, EPOLL_CTL_MOD, d->listener[i].fd, &ev); /* it is in the set */
	}
}

/* The one that has waited longest without a request makes room for a new one. */
static void
make_room(struct door *d)
{
	struct conn *c = d->clock[CLOCK_IDLE].first ? d->clock[CLOCK_IDLE].first : d->clock[CLOCK_HEAD].first;
	if (c)
		conn_kill(c);
}

void
listen_accept(struct door *d, struct listener *l)
{
	for (int i = 0; i < ACCEPTS_AT_ONCE; i++) {
		union address a = { 0 };
		socklen_t bytes = sizeof a;
		int fd = accept4(l->fd, &a.any, &bytes, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM)) {
			make_room(d);
			listen_pause(d, d->now_ns + PAUSE_NS);
			return;
		}
		if (fd < 0)
			return; /* EAGAIN, or a client that is gone again */
		if (d->n_conns >= d->options.max_connections)
			make_room(d);
		add(d, l, fd, &a, bytes);
	}
}
