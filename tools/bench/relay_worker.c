/* SPDX-License-Identifier: Apache-2.0 */
/*
 * relay_worker.c -- a long line: what goes in at one end comes out at the other DELAY_NS later, unchanged, in both directions.
 *
 * It has no bandwidth: however many bytes come, each leaves its delay after it came (QUEUE_MAX_BYTES are a stop for memory, far
 * above what a delay's time can bring). An end of sending is a thing that travels too.
 *
 * THE HANDSHAKE. A connection to this end is made by the kernel, at once, while over a real line of this length it takes a round
 * trip until the caller may send. So what the caller sends is taken as sent one round trip after the connection came at
 * the earliest. All later bytes follow as they come.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define LINES_MAX 64u
#define READ_BYTES 65536u
#define QUEUE_MAX_BYTES (64u << 20) /* 3 GB a second */

/* Bytes on their way; none = the end of them. */
struct parcel {
	struct parcel *next;
	uint64_t due_ns;
	size_t n, sent;
	char bytes[];
};

/* One direction of a line. */
struct way {
	int from, to;
	uint64_t not_before_ns;      /* nothing is taken as sent before */
	struct parcel *first, **last;
	size_t queued;
	bool ended, over;            /* the end came; the end was handed on */
};

struct line {
	int fd[2];                   /* the caller's, the double's */
	struct way way[2];
};

static struct {
	int listener, port_to;
	struct line line[LINES_MAX];
	uint32_t n;
} w;

static int
loopback(int port, bool listening, int *ret_port)
{
	struct sockaddr_in at = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t bytes = sizeof at;
	const int on = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -1;
	if (listening ? bind(fd, (struct sockaddr *)&at, bytes) || listen(fd, LINES_MAX) || getsockname(fd, (struct sockaddr *)&at, &bytes)
	              : connect(fd, (struct sockaddr *)&at, bytes) || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) ||
	                        fcntl(fd, F_SETFL, O_NONBLOCK)) {
		(void)close(fd);
		return -1;
	}
	*ret_port = ntohs(at.sin_port);
	return fd;
}

static void
lay(struct line *l, int caller)
{
	const int on = 1;
	int port, there = loopback(w.port_to, false, &port);
	if (there < 0) {
		(void)close(caller);
		return;
	}
	(void)setsockopt(caller, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	*l = (struct line){ .fd = { caller, there },
		            .way = { { .from = caller, .to = there, .not_before_ns = now_ns() + 2 * RELAY_DELAY_NS }, { .from = there, .to = caller } } };
	for (int i = 0; i < 2; i++)
		l->way[i].last = &l->way[i].first;
	w.n++;
}

static void
drop(struct line *l)
{
	for (int i = 0; i < 2; i++) {
		while (l->way[i].first) {
			struct parcel *p = l->way[i].first;
			l->way[i].first = p->next;
			free(p);
		}
		(void)close(l->fd[i]);
	}
	*l = w.line[--w.n];
	for (int i = 0; i < 2; i++) /* it may have moved, and an empty queue points into itself */
		if (!l->way[i].first)
			l->way[i].last = &l->way[i].first;
}

/* Everything that has come. False: no memory. */
static bool
take(struct way *way)
{
	while (!way->ended && way->queued < QUEUE_MAX_BYTES) {
		struct parcel *p = malloc(sizeof *p + READ_BYTES);
		if (!p)
			return false;
		ssize_t n = recv(way->from, p->bytes, READ_BYTES, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
			free(p);
			return true;
		}
		const uint64_t at = now_ns();
		way->ended = n <= 0; /* an error ends it as well */
		p->next = NULL;
		p->n = n > 0 ? (size_t)n : 0;
		p->sent = 0;
		p->due_ns = (at > way->not_before_ns ? at : way->not_before_ns) + RELAY_DELAY_NS;
		*way->last = p;
		way->last = &p->next;
		way->queued += p->n;
	}
	return true;
}

/* Everything that is due. False: the other side takes no more. */
static bool
give(struct way *way)
{
	while (way->first && way->first->due_ns <= now_ns()) {
		struct parcel *p = way->first;
		if (p->n) {
			ssize_t n = send(way->to, p->bytes + p->sent, p->n - p->sent, MSG_NOSIGNAL);
			if (n < 0)
				return errno == EAGAIN || errno == EINTR;
			p->sent += (size_t)n;
			if (p->sent < p->n)
				return true;
		} else {
			way->over = true;
			(void)shutdown(way->to, SHUT_WR);
		}
		way->first = p->next;
		if (!way->first)
			way->last = &way->first;
		way->queued -= p->n;
		free(p);
	}
	return true;
}

/* Until something comes or is due. False: the bench is gone. */
static bool
turn(void)
{
	struct pollfd fd[2 + 2 * LINES_MAX];
	uint64_t due_ns = UINT64_MAX, at = now_ns();
	nfds_t n = 0;
	fd[n++] = (struct pollfd){ .fd = WORKER_FD, .events = POLLIN };
	fd[n++] = (struct pollfd){ .fd = w.n < LINES_MAX ? w.listener : -1, .events = POLLIN };
	for (uint32_t i = 0; i < w.n; i++)
		for (int k = 0; k < 2; k++) { /* of each descriptor: what it brings, and what waits for it */
			const struct way *in = &w.line[i].way[k], *out = &w.line[i].way[!k];
			const bool stuck = out->first && out->first->due_ns <= at;
			const short events = (short)((in->ended || in->queued >= QUEUE_MAX_BYTES ? 0 : POLLIN) | (stuck ? POLLOUT : 0));
			fd[n++] = (struct pollfd){ .fd = events ? w.line[i].fd[k] : -1, .events = events };
			if (out->first && !stuck && out->first->due_ns < due_ns)
				due_ns = out->first->due_ns;
		}
	const uint64_t wait_ns = due_ns > at ? due_ns - at : 0;
	const struct timespec wait = { (time_t)(wait_ns / 1000000000u), (long)(wait_ns % 1000000000u) };
	if (ppoll(fd, n, due_ns == UINT64_MAX ? NULL : &wait, NULL) < 0)
		return errno == EINTR;
	if (fd[0].revents)
		return false; /* there is only one order */
	if (fd[1].revents & POLLIN) {
		int caller = accept4(w.listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (caller >= 0)
			lay(&w.line[w.n], caller);
	}
	for (uint32_t i = w.n; i-- > 0;) {
		struct line *l = &w.line[i];
		const bool ok = take(&l->way[0]) && take(&l->way[1]) && give(&l->way[0]) && give(&l->way[1]);
		if (!ok || (l->way[0].over && l->way[1].over))
			drop(l);
	}
	return true;
}

int
relay_worker(void)
{
	struct order order;
	struct outcome o = { .failed = 0 };
	int port = 0;
	(void)prctl(PR_SET_TIMERSLACK, 1ul); /* the usual 50 us late would be part of each delay */
	if (!next_order(&order))
		return 0;
	w.port_to = (int)strtol(order.to, NULL, 10);
	w.listener = loopback(0, true, &port);
	o.port = (uint32_t)port;
	if (w.listener < 0)
		fail_outcome(&o, "no line can be laid: %s", strerror(errno));
	answer(&o);
	while (turn())
		;
	return 0;
}
