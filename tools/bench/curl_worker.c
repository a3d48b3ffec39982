/* SPDX-License-Identifier: Apache-2.0 */
/*
 * curl_worker.c -- the floor: a libcurl multi loop on epoll that calls the provider itself and does nothing with the answer.
 *
 * Written as one who needs speed and no gateway would write it: handles are set up once and reused, connections are kept, the
 * body is handed over without a copy, one epoll_ctl per change that libcurl asks for, no timer descriptor. It checks the
 * status, counts bytes and line ends, and that is all: no deadline, no failover, no parsing, no second process.
 */
#include "tools/bench/bench.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>

#include <curl/curl.h>

#define EVENTS_MAX 256
#define NEW_AT_ONCE 200 /* streams on their way to the first event: below the listener's queue, so that no SYN is lost */

struct call {
	CURL *easy;
	bool running, has_event;
	uint64_t begun_ns;
	uint64_t bytes, lines;
};

static struct {
	CURLM *multi;
	int epoll_fd;
	uint64_t timer_ns; /* UINT64_MAX = none */
	struct curl_slist *headers;
	struct call **call; /* pointers: libcurl holds the calls' addresses */
	uint32_t n_calls;
	uint64_t events;    /* of all streams */
	uint32_t waiting;   /* streams without an event so far */
	bool streams;       /* the calls that run are streams */
	/* of the order that is carried out */
	struct order order;
	struct outcome outcome;
	uint32_t begun, ended;
	uint64_t *ns;
} w;

/* ---- libcurl's callbacks ---- */

static size_t
on_whole(char *bytes, size_t size, size_t n, void *arg)
{
	struct call *c = arg;
	(void)bytes;
	c->bytes += size * n;
	return size * n;
}

/* An event is two line ends. */
static size_t
on_stream(char *bytes, size_t size, size_t n, void *arg)
{
	struct call *c = arg;
	const char *p = bytes, *end = bytes + size * n;
	uint64_t lines = c->lines;
	while (p < end && (p = memchr(p, '\n', (size_t)(end - p)))) {
		lines++;
		p++;
	}
	w.events += lines / 2 - c->lines / 2;
	c->lines = lines;
	if (!c->has_event && lines >= 4) { /* the role chunk, and the first content */
		c->has_event = true;
		w.waiting--;
	}
	return size * n;
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event ev = { .events = (what & CURL_POLL_IN ? EPOLLIN : 0u) | (what & CURL_POLL_OUT ? EPOLLOUT : 0u), .data.fd = fd };
	(void)easy;
	(void)arg;
	if (what == CURL_POLL_REMOVE)
		return epoll_ctl(w.epoll_fd, EPOLL_CTL_DEL, fd, NULL) && errno != EBADF && errno != ENOENT ? -1 : 0;
	if (!known)
		(void)curl_multi_assign(w.multi, fd, &w); /* any address: it says that the set has it */
	return epoll_ctl(w.epoll_fd, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &ev);
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	(void)multi;
	(void)arg;
	w.timer_ns = timeout_ms < 0 ? UINT64_MAX : timeout_ms == 0 ? 0 : now_ns() + (uint64_t)timeout_ms * 1000000u;
	return 0;
}

/* ---- calls ---- */

static struct call *
call_new(void)
{
	struct call *c = calloc(1, sizeof *c);
	char url[256];
	if (!c || !(c->easy = curl_easy_init())) {
		free(c);
		return NULL;
	}
	(void)snprintf(url, sizeof url, "%s/chat/completions", w.order.to);
	(void)curl_easy_setopt(c->easy, CURLOPT_URL, url);
	(void)curl_easy_setopt(c->easy, CURLOPT_PRIVATE, c);
	(void)curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, w.headers);
	(void)curl_easy_setopt(c->easy, CURLOPT_WRITEDATA, c);
	(void)curl_easy_setopt(c->easy, CURLOPT_WRITEFUNCTION, w.streams ? on_stream : on_whole);
	(void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDS, request_body(w.order.model, w.streams, w.order.body_bytes));
	(void)curl_easy_setopt(c->easy, CURLOPT_POSTFIELDSIZE, (long)w.order.body_bytes);
	(void)curl_easy_setopt(c->easy, CURLOPT_NOSIGNAL, 1L);
	(void)curl_easy_setopt(c->easy, CURLOPT_PROXY, "");
	(void)curl_easy_setopt(c->easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	(void)curl_easy_setopt(c->easy, CURLOPT_BUFFERSIZE, w.streams ? 4096L : 16384L);
	if (w.order.ca_file[0]) {
		(void)curl_easy_setopt(c->easy, CURLOPT_CAPATH, NULL); /* it would turn the cache of the parsed bundle off */
		(void)curl_easy_setopt(c->easy, CURLOPT_CAINFO, w.order.ca_file);
	}
	return c;
}

static void
call_free(struct call *c)
{
	if (c->running)
		(void)curl_multi_remove_handle(w.multi, c->easy);
	curl_easy_cleanup(c->easy);
	free(c);
}

static void
drop_calls(void)
{
	while (w.n_calls)
		call_free(w.call[--w.n_calls]);
	free(w.call);
	w.call = NULL;
	w.waiting = 0;
}

/* Room for n calls; those that are there stay. */
static bool
have_calls(uint32_t n)
{
	struct call **more = realloc(w.call, (n ? n : 1) * sizeof *more);
	if (!more)
		return false;
	w.call = more;
	while (w.n_calls < n) {
		struct call *c = call_new();
		if (!c)
			return false;
		w.call[w.n_calls++] = c;
	}
	return true;
}

static void
begin(struct call *c)
{
	c->begun_ns = now_ns();
	c->running = true;
	c->bytes = 0;
	w.begun++;
	(void)curl_multi_add_handle(w.multi, c->easy);
}

static void
on_end(struct call *c, CURLcode code)
{
	long status = 0;
	(void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	if (code != CURLE_OK || status != 200)
		fail_outcome(&w.outcome, "a call ended with %s, status %ld", curl_easy_strerror(code), status);
	else if (w.streams)
		fail_outcome(&w.outcome, "a stream ended by itself");
	else
		w.ns[w.ended] = now_ns() - c->begun_ns;
	w.ended++;
	c->running = false;
	(void)curl_multi_remove_handle(w.multi, c->easy);
	if (!w.streams && w.begun < w.order.n && !w.outcome.failed)
		begin(c);
}

/* ---- the loop ---- */

static void
act(curl_socket_t fd, int bits)
{
	int running;
	(void)curl_multi_socket_action(w.multi, fd, bits, &running); /* what fails is told by info_read */
}

static void
collect(void)
{
	CURLMsg *msg;
	int left;
	while ((msg = curl_multi_info_read(w.multi, &left))) {
		struct call *c = NULL;
		CURLcode code = msg->data.result;
		(void)curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, (char **)&c);
		on_end(c, code);
	}
}

/* libcurl's timer, as often as it is due: calls that were just added begin here, and some end here. */
static void
run_timer(void)
{
	while (w.timer_ns == 0 || (w.timer_ns != UINT64_MAX && w.timer_ns <= now_ns())) {
		w.timer_ns = UINT64_MAX;
		act(CURL_SOCKET_TIMEOUT, 0);
		collect();
	}
}

/* Wait for events and act on them. True when an order lies in the socket. */
static bool
wait_events(void)
{
	struct epoll_event ev[EVENTS_MAX];
	bool ordered = false;
	int timeout_ms = -1;
	if (w.timer_ns != UINT64_MAX) {
		uint64_t at = now_ns();
		timeout_ms = w.timer_ns > at ? (int)((w.timer_ns - at) / 1000000u + 1) : 0;
	}
	int n = epoll_wait(w.epoll_fd, ev, EVENTS_MAX, timeout_ms);
	for (int i = 0; i < n; i++) {
		if (ev[i].data.fd == WORKER_FD)
			ordered = true;
		else
			act(ev[i].data.fd, (ev[i].events & EPOLLIN ? CURL_CSELECT_IN : 0) | (ev[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
			                           (ev[i].events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0));
	}
	collect();
	return ordered;
}

static void
make_calls(void)
{
	uint32_t at_once = w.order.concurrency < w.order.n ? w.order.concurrency : w.order.n;
	if (w.streams || w.n_calls != at_once)
		drop_calls();
	w.streams = false;
	w.ns = calloc(w.order.n ? w.order.n : 1, sizeof *w.ns);
	if (!w.ns || !have_calls(at_once)) {
		fail_outcome(&w.outcome, "out of memory");
		goto out;
	}
	uint64_t from_ns = now_ns(), from_cpu_ns = cpu_ns();
	for (uint32_t i = 0; i < at_once; i++)
		begin(w.call[i]);
	for (run_timer(); w.ended < w.begun; run_timer())
		(void)wait_events();
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
	if (!w.streams)
		drop_calls();
	w.streams = true;
	uint32_t have = w.n_calls, next = have;
	if (!have_calls(w.order.n)) {
		fail_outcome(&w.outcome, "out of memory");
		return;
	}
	w.waiting = w.n_calls - have;
	while (w.waiting && !w.outcome.failed) {
		while (next < w.n_calls && w.waiting - (w.n_calls - next) < NEW_AT_ONCE)
			begin(w.call[next++]);
		run_timer();
		if (w.waiting)
			(void)wait_events();
	}
}

static bool
set_up(void)
{
	struct epoll_event ev = { .events = EPOLLIN, .data.fd = WORKER_FD };
	if (curl_global_init(CURL_GLOBAL_DEFAULT) || !(w.multi = curl_multi_init()))
		return false;
	static const char *const lines[] = { "Content-Type: application/json", "Expect:", "User-Agent: bare" };
	for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++) {
		struct curl_slist *more = curl_slist_append(w.headers, lines[i]);
		if (!more)
			return false;
		w.headers = more;
	}
	w.timer_ns = UINT64_MAX;
	w.epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	(void)curl_multi_setopt(w.multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	(void)curl_multi_setopt(w.multi, CURLMOPT_TIMERFUNCTION, on_timer);
	(void)curl_multi_setopt(w.multi, CURLMOPT_MAXCONNECTS, 1024L);
	return w.epoll_fd >= 0 && epoll_ctl(w.epoll_fd, EPOLL_CTL_ADD, WORKER_FD, &ev) == 0;
}

/* The handles read it for as long as they live, and request_body() has one buffer: so all calls of a kind of order share it. */
int
curl_worker(void)
{
	if (!set_up())
		return 1;
	for (;;) {
		run_timer();
		if (!wait_events())
			continue;
		struct order last = w.order;
		if (!next_order(&w.order))
			return 0;
		if (w.order.kind != ORDER_COUNT) {
			w.begun = w.ended = 0;
			if (strcmp(last.to, w.order.to) != 0 || strcmp(last.model, w.order.model) != 0 || last.body_bytes != w.order.body_bytes)
				drop_calls();
		}
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
			drop_calls();
		}
		answer(&w.outcome);
		w.outcome = (struct outcome){ 0 };
	}
}
