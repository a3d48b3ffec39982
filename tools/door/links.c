/* SPDX-License-Identifier: Apache-2.0 */
/*
 * links.c -- the connections to the agent, and which call an event of theirs belongs to.
 *
 * A link is a libsignalbox handle that was opened to connect later: it connects at its first request, and again after each loss, so
 * that the door starts before the agent, outlives it, and never waits for it. One link carries all the calls until it is full, or
 * its agent leaves: what it has it ends, and new calls go by another link, to the successor.
 */
#include "tools/door/door.h"

#include <poll.h>
#include <sys/epoll.h>

#include "agent/log.h"

bool
links_open(struct door *d)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	o.socket = d->options.agent_socket;
	o.name = "signalbox-http";
	o.timeout_ms = SBX_OPEN_LATER;
	for (struct link *l = d->link; l < d->link + LINKS_MAX; l++) {
		*l = (struct link){ .watch = { WATCH_LINK }, .watched_fd = -1 };
		if (sbx_open(&o, &l->client)) {
			sbx_log(SBX_LOG_ERROR, "start", SBX_STR("why", sbx_client_error(l->client)));
			return false;
		}
		sbx_cork(l->client, true); /* what a turn has for the agent leaves in links_watch() */
	}
	return true;
}

void
links_close(struct door *d)
{
	for (struct link *l = d->link; l < d->link + LINKS_MAX; l++) {
		sbx_close(l->client);
		l->client = NULL;
	}
}

/* ---- whose event is it? ---- */

static struct call **
bucket_of(struct door *d, const struct link *l, uint64_t request)
{
	uint64_t mixed = (request * LINKS_MAX + (uint64_t)(l - d->link)) * 0x9e3779b97f4a7c15ull;
	return &d->running[mixed >> 54];
}
_Static_assert(RUNNING_BUCKETS == 1 << 10, "the shift in bucket_of()");

static struct call *
find(struct door *d, const struct link *l, uint64_t request)
{
	struct call *call = *bucket_of(d, l, request);
	while (call && (call->request != request || call->link != l))
		call = call->next_running;
	return call;
}

static void
add(struct door *d, struct call *call, struct link *l, uint64_t request)
{
	struct call **at = bucket_of(d, l, request);
	call->link = l;
	call->request = request;
	call->next_running = *at;
	*at = call;
}

void
links_forget(struct call *call)
{
	if (!call->request)
		return;
	struct call **at = bucket_of(call->conn->door, call->link, call->request);
	while (*at != call)
		at = &(*at)->next_running;
	*at = call->next_running;
	call->request = 0;
}

/* ---- to the agent ---- */

static bool
all_leave(const struct door *d)
{
	const struct link *l = d->link;
	while (l < d->link + LINKS_MAX && sbx_leaving(l->client))
		l++;
	return l == d->link + LINKS_MAX;
}

int
links_submit(struct call *call, const struct sbx_request_options *options, const char **ret_why)
{
	struct door *d = call->conn->door;
	const bool choice = !all_leave(d); /* else it waits on the first one */
	int rc = -SBX_EBUSY;
	for (struct link *l = d->link; l < d->link + LINKS_MAX && rc == -SBX_EBUSY; l++) {
		uint64_t request;
		if (choice && sbx_leaving(l->client))
			continue; /* its agent is being replaced; over another link its successor is reached */
		rc = sbx_submit(l->client, options, &request);
		if (rc == 0)
			rc = sbx_hold(l->client, request);
		if (rc == 0)
			add(d, call, l, request);
		else
			*ret_why = sbx_client_error(l->client);
	}
	return rc;
}

/* Where a question about the present is asked. */
static struct link *
staying(struct door *d)
{
	struct link *l = d->link;
	while (l < d->link + LINKS_MAX - 1 && sbx_leaving(l->client))
		l++;
	return l;
}

/* `rc` is what the library said to the question. */
static int
asked(struct call *call, struct link *l, int rc, uint64_t request, const char **ret_why)
{
	if (rc == 0)
		add(call->conn->door, call, l, request);
	else
		*ret_why = sbx_client_error(l->client);
	return rc;
}

int
links_ask_stats(struct call *call, const char **ret_why)
{
	struct link *l = staying(call->conn->door);
	uint64_t request = 0;
	int rc = sbx_stats(l->client, &request);
	return asked(call, l, rc, request, ret_why);
}

int
links_ask_key(struct call *call, const char *sha256_hex, const char **ret_why)
{
	const struct sbx_field field[] = { { "do", "check", 0 }, { "sha256", sha256_hex, 0 } };
	struct link *l = staying(call->conn->door);
	uint64_t request = 0;
	int rc = sbx_keys(l->client, field, 2, &request);
	return asked(call, l, rc, request, ret_why);
}

int
links_ask_metrics(struct call *call, uint64_t from, const char **ret_why)
{
	struct link *l = staying(call->conn->door);
	uint64_t request = 0;
	int rc = sbx_metrics(l->client, from, &request);
	return asked(call, l, rc, request, ret_why);
}

/* ---- from the agent ---- */

static void
take_events(struct door *d, struct link *l)
{
	struct sbx_event ev;
	int rc = 0;
	/* Asked first whether there is one, it makes no system call to find out. */
	while (sbx_timeout_ms(l->client) == 0 && (rc = sbx_next(l->client, 0, &ev)) == 0) {
		struct call *call = find(d, l, ev.id);
		if (!call)
			continue; /* its client is gone */
		if (ev.last)
			links_forget(call);
		relay_on_event(call, &ev);
	}
	if (rc == -SBX_ENOMEM)
		sbx_log(SBX_LOG_ERROR, "no_memory", SBX_STR("for", "an event of the agent")); /* it is not lost: the next turn tries again */
}

void
links_process(struct door *d, struct link *l, short revents)
{
	(void)sbx_process(l->client, revents); /* a loss is told as the end of each request */
	take_events(d, l);
}

int
links_timeout_ms(const struct door *d)
{
	int least = -1;
	for (const struct link *l = d->link; l < d->link + LINKS_MAX; l++) {
		int ms = sbx_timeout_ms(l->client);
		if (ms >= 0 && (least < 0 || ms < least))
			least = ms;
	}
	return least;
}

/* The library may have closed its socket and got the same number for a new one since we looked last: the kernel alone knows
 * whether what it watches is what we mean, so it is told each time. */
void
links_watch(struct door *d)
{
	for (struct link *l = d->link; l < d->link + LINKS_MAX; l++) {
		if (sbx_events(l->client) & POLLOUT)
			(void)sbx_process(l->client, 0); /* a loss is told as the end of each request, in the next turn */
		int fd = sbx_fd(l->client);
		short want = sbx_events(l->client);
		struct epoll_event ev = {
			.events = (want & POLLIN ? (uint32_t)EPOLLIN : 0) | (want & POLLOUT ? (uint32_t)EPOLLOUT : 0),
			.data.ptr = &l->watch,
		};
		if (fd >= 0 && (l->watched_fd != fd || epoll_ctl(d->epoll_fd, EPOLL_CTL_MOD, fd, &ev) < 0))
			(void)epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &ev);
		l->watched_fd = fd; /* a closed one left the set by itself */
	}
}

struct sbx_board *
links_board(struct door *d)
{
	struct sbx_client *client = staying(d)->client;
	struct sbx_board *board;
	if (sbx_fd(client) < 0 || sbx_board(client, &board))
		return NULL;
	enum sbx_life life = sbx_board_life(board, sbx_boot_ns());
	if (life == SBX_LIFE_SERVING || life == SBX_LIFE_DRAINING || life == SBX_LIFE_STARTING)
		return board;
	sbx_board_close(board);
	return NULL;
}
