/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client_worker.c -- programs of the host: requests through the agent by libsignalbox, several at a time on each connection.
 *
 * One process and one loop stand for all of them, with as many handles as the order asks for. Its own CPU time is part of no
 * figure. Handles stay connected from order to order, as those of a program would.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <signalbox.h>

#define EVENTS_MAX 256
#define NEW_AT_ONCE 200 /* as the other worker's */
#define IDS_MAX 65536u  /* requests of one handle that can be timed at once, a power of two */
#define DEADLINE_MS 3600000u

struct handle {
	struct sbx_client *client;
	uint32_t at;        /* own index */
	uint32_t running;
	short events;       /* what epoll waits for */
	uint64_t *begun_ns; /* by id modulo IDS_MAX; short calls only */
	uint8_t *heard;     /* by id modulo IDS_MAX: a stream brought an event */
};

static struct {
	int epoll_fd;
	struct handle *handle;
	uint32_t n_handles;
	char socket[160];
	bool streams;       /* the requests that run are streams */
	uint32_t n_streams;
	uint64_t events;    /* of all streams */
	uint32_t waiting;   /* streams without an event so far */
	/* of the order that is carried out */
	struct order order;
	struct outcome outcome;
	uint32_t begun, ended;
	uint64_t *ns;
} w;

/* ---- handles ---- */

static void
drop_handles(void)
{
	while (w.n_handles) {
		struct handle *h = &w.handle[--w.n_handles];
		sbx_close(h->client); /* leaves the epoll set with its descriptor */
		free(h->begun_ns);
		free(h->heard);
	}
	free(w.handle);
	w.handle = NULL;
	w.n_streams = 0;
}

static void
wait_for(struct handle *h, int op)
{
	struct epoll_event ev = { .data.u32 = h->at };
	h->events = sbx_events(h->client);
	ev.events = (h->events & POLLIN ? EPOLLIN : 0u) | (h->events & POLLOUT ? EPOLLOUT : 0u);
	if (epoll_ctl(w.epoll_fd, op, sbx_fd(h->client), &ev))
		fail_outcome(&w.outcome, "the connection to the agent cannot be watched: %s", strerror(errno));
}

static bool
have_handles(void)
{
	uint32_t n = w.order.connections ? w.order.connections : 1;
	if (w.n_handles == n && strcmp(w.socket, w.order.to) == 0)
		return true;
	drop_handles();
	(void)snprintf(w.socket, sizeof w.socket, "%s", w.order.to);
	w.handle = calloc(n, sizeof *w.handle);
	for (uint32_t i = 0; w.handle && i < n; i++) {
		struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
		struct handle *h = &w.handle[i];
		o.socket = w.socket;
		o.name = "bench";
		h->at = i;
		h->begun_ns = calloc(IDS_MAX, sizeof *h->begun_ns); /* touched only as far as it is used */
		h->heard = calloc(IDS_MAX, sizeof *h->heard);
		w.n_handles++;
		if (!h->begun_ns || !h->heard || sbx_open(&o, &h->client)) {
			fail_outcome(&w.outcome, "%s", h->client ? sbx_client_error(h->client) : "out of memory");
			drop_handles();
			return false;
		}
		wait_for(h, EPOLL_CTL_ADD);
	}
	return w.handle != NULL;
}

static void
begin(struct handle *h)
{
	struct sbx_request_options r = SBX_REQUEST_INIT;
	char model[80];
	uint64_t id, at = now_ns();
	(void)snprintf(model, sizeof model, "double/%s", w.order.model);
	r.model = model;
	r.body = request_body(w.order.model, w.streams, w.order.body_bytes);
	r.body_bytes = w.order.body_bytes;
	r.stream = w.streams;
	r.deadline_ms = DEADLINE_MS;
	if (sbx_submit(h->client, &r, &id)) {
		fail_outcome(&w.outcome, "%s", sbx_client_error(h->client));
		return;
	}
	h->begun_ns[id % IDS_MAX] = at;
	h->heard[id % IDS_MAX] = 0;
	h->running++;
	w.begun++;
	if (sbx_events(h->client) != h->events)
		wait_for(h, EPOLL_CTL_MOD);
}

static void
on_end(struct handle *h, const struct sbx_event *ev)
{
	h->running--;
	if (ev->note != SBX_NOTE_DONE)
		fail_outcome(&w.outcome, "a request ended with %s: %s", sbx_reply_code_word(ev->reply), sbx_reply_message(ev->reply));
	else if (w.streams)
		fail_outcome(&w.outcome, "a stream ended by itself");
	else
		w.ns[w.ended] = now_ns() - h->begun_ns[ev->id % IDS_MAX];
	w.ended++;
	if (!w.streams && w.begun < w.order.n && !w.outcome.failed)
		begin(h);
}

static void
on_event(struct handle *h, const struct sbx_event *ev)
{
	if (ev->last) {
		on_end(h, ev);
	} else if (ev->note == SBX_NOTE_TEXT && w.streams) {
		w.events++;
		if (!h->heard[ev->id % IDS_MAX]) {
			h->heard[ev->id % IDS_MAX] = 1;
			w.waiting--;
		}
	}
}

/* ---- the loop ---- */

/* One turn. True when an order lies in the socket. sbx_timeout_ms() is not asked: it matters where a connection is lost, and
 * then there is nothing to measure. */
static bool
turn(void)
{
	struct epoll_event got[EVENTS_MAX];
	bool ordered = false;
	int n = epoll_wait(w.epoll_fd, got, EVENTS_MAX, -1);
	for (int i = 0; i < n; i++) {
		struct sbx_event ev;
		if (got[i].data.u32 == UINT32_MAX) {
			ordered = true;
			continue;
		}
		struct handle *h = &w.handle[got[i].data.u32];
		(void)sbx_process(h->client, (short)((got[i].events & EPOLLIN ? POLLIN : 0) | (got[i].events & EPOLLOUT ? POLLOUT : 0) |
		                                     (got[i].events & (EPOLLHUP | EPOLLERR) ? POLLHUP : 0)));
		while (sbx_next(h->client, 0, &ev) == 0)
			on_event(h, &ev);
		if (sbx_fd(h->client) < 0)
			fail_outcome(&w.outcome, "the agent closed the connection");
		else if (sbx_events(h->client) != h->events)
			wait_for(h, EPOLL_CTL_MOD);
	}
	return ordered;
}

static void
make_calls(void)
{
	w.streams = false;
	w.ns = calloc(w.order.n ? w.order.n : 1, sizeof *w.ns);
	if (!w.ns || !have_handles()) {
		fail_outcome(&w.outcome, "out of memory");
		goto out;
	}
	uint64_t from_ns = now_ns(), from_cpu_ns = cpu_ns();
	for (uint32_t i = 0; i < w.order.concurrency && w.begun < w.order.n; i++)
		begin(&w.handle[i % w.n_handles]);
	while (w.ended < w.begun && !w.outcome.failed)
		(void)turn();
	w.outcome.cpu_ns = cpu_ns() - from_cpu_ns;
	w.outcome.wall_ns = now_ns() - from_ns;
	if (!w.outcome.failed)
		take_quantiles(w.ns, w.ended, &w.outcome);
out:
	free(w.ns);
	w.ns = NULL;
}

static void
open_streams(void)
{
	w.streams = true;
	if (!have_handles())
		return;
	uint32_t more = w.order.n > w.n_streams ? w.order.n - w.n_streams : 0;
	w.waiting = more;
	while (w.waiting && !w.outcome.failed) {
		while (w.begun < more && w.begun - (more - w.waiting) < NEW_AT_ONCE && !w.outcome.failed)
			begin(&w.handle[(w.n_streams + w.begun) % w.n_handles]);
		(void)turn();
	}
	w.n_streams += more;
}

int
client_worker(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.u32 = UINT32_MAX };
	w.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (w.epoll_fd < 0 || epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, WORKER_FD, &ev))
		return 1;
	for (;;) {
		if (!turn())
			continue;
		struct order last = w.order;
		if (!next_order(&w.order))
			return 0;
		if (w.order.kind != ORDER_COUNT)
			w.begun = w.ended = 0;
		switch (w.order.kind) {
		case ORDER_CALLS:
			make_calls();
			break;
		case ORDER_OPEN:
			open_streams();
			break;
		case ORDER_COUNT:
			w.outcome.cpu_ns = cpu_ns();
			w.outcome.events = w.events;
			w.order = last;
			break;
		default:
			drop_handles();
		}
		answer(&w.outcome);
		w.outcome = (struct outcome){ 0 };
	}
}
