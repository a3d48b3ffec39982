/* SPDX-License-Identifier: Apache-2.0 */
/*
 * upstream.c -- calls on the loop; see upstream.h.
 *
 * The order within sbx_upstream_run() matters: aborted calls leave libcurl first (their connections must not be counted
 * as busy), then pauses are carried out, then new calls enter, then libcurl's timer runs, then finished calls are reported;
 * and all of it again while a report caused new work, so that a failover starts in the turn in which its cause was seen.
 */
#include "agent/io/upstream_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <signalbox/errors.h>

#define MAX_IDLE_CONNECTIONS 1024 /* of all providers; libcurl's default would keep 4 of 14 origins warm */
#define RUN_ROUNDS_MAX 64         /* reports that cause new work within one turn; more waits for the next */
/* Bodies up to this leave in one packet, or a few, with the headers; see begin_body(). */
#define FLAT_MAX_BYTES 16384u
#define RETIRE_READS_MAX 16       /* more than a goodbye on a connection at rest is nonsense, and not waited for */
#define SLOTS_FIRST 256u          /* doubled as descriptors need it */

struct socket_slot {              /* libcurl's wish for one descriptor */
	struct sbx_watch *watch;  /* NULL = none */
	bool ours;                /* opened by us, so we shall be asked to close it */
	bool resting;             /* a kept connection without a call: all that can come is its end */
	const struct sbx_call *user; /* whose call it carries, to be compared only; NULL = none, or HTTP/2, which carries many */
};

struct sbx_upstream {
	struct sbx_loop *loop;
	CURLM *multi;
	uint64_t timer_ns;               /* when libcurl wants its timer; UINT64_MAX = never */
	bool inside;                     /* libcurl is on the stack */
	struct socket_slot *slot;        /* by descriptor */
	uint32_t n_slots;
	struct call_list queued, doomed, pausing; /* what waits for the end of the turn */
	struct sbx_upstream_stats stats;
};

/* ---- lists: a call is in at most one of queued, doomed and pausing; first come, first served ---- */

static void
list_add(struct call_list *list, struct sbx_call *call)
{
	assert(!call->list);
	TAILQ_INSERT_TAIL(list, call, entry);
	call->list = list;
}

static void
list_remove(struct sbx_call *call)
{
	if (!call->list)
		return;
	TAILQ_REMOVE(call->list, call, entry);
	call->list = NULL;
}

/* ---- libcurl's callbacks of one call ---- */

size_t
sbx_call_on_read(char *to, size_t size, size_t n, void *arg)
{
	struct sbx_call *call = arg;
	size_t room = size * n, given = 0;
	assert(call->magic == SBX_CALL_MAGIC);
	if (call->state != SBX_CALL_ACTIVE) /* the body may be gone already */
		return CURL_READFUNC_ABORT;
	if (!call->connected) {
		call->connected = true;
		call->ops->on_connected(call->arg);
	}
	while (given < room && call->piece < call->body->n) {
		struct sbx_span p = call->body->piece[call->piece];
		size_t take = p.n - call->piece_at;
		if (take > room - given)
			take = room - given;
		if (take)
			memcpy(to + given, p.at + call->piece_at, take);
		given += take;
		call->piece_at += take;
		if (call->piece_at == p.n) {
			call->piece++;
			call->piece_at = 0;
		}
	}
	if (call->piece == call->body->n && !call->sent) {
		call->sent = true;
		call->ops->on_sent(call->arg);
	}
	return given;
}

/* libcurl asks for this before it would send a request again on another connection: see the header. */
int
sbx_call_on_seek(void *arg, curl_off_t offset, int origin)
{
	struct sbx_call *call = arg;
	if (offset == 0 && origin == SEEK_SET && call->piece == 0 && call->piece_at == 0)
		return CURL_SEEKFUNC_OK; /* nothing was read yet, so nothing was sent */
	call->replay_refused = true;
	call->lane->u->stats.replays_refused++;
	return CURL_SEEKFUNC_FAIL;
}

/* The slot of a descriptor; NULL on no memory. */
static struct socket_slot *
slot_of(struct sbx_upstream *u, int fd)
{
	if ((uint32_t)fd >= u->n_slots) {
		uint32_t n = u->n_slots ? u->n_slots : SLOTS_FIRST;
		while (n <= (uint32_t)fd)
			n *= 2;
		struct socket_slot *slot = realloc(u->slot, n * sizeof *slot);
		if (!slot)
			return NULL;
		memset(slot + u->n_slots, 0, (n - u->n_slots) * sizeof *slot);
		u->slot = slot;
		u->n_slots = n;
	}
	return &u->slot[fd];
}

/* Has libcurl given bytes of a flat request to the kernel? */
static bool
flat_left(const struct sbx_call *call)
{
	long bytes = 0;
	(void)curl_easy_getinfo(call->easy, CURLINFO_REQUEST_SIZE, &bytes);
	return bytes > 0;
}

static bool
is_replay(struct sbx_call *call)
{
	if (!call->flat || !call->sent || !flat_left(call))
		return false;
	call->replay_refused = true;
	call->lane->u->stats.replays_refused++;
	return true;
}

/* Before each time that libcurl sends the request: the gate of a flat one. What was begun counts as sent, since all of it
 * goes to the kernel in the call that follows. */
int
sbx_call_on_request(void *arg, char *to_ip, char *from_ip, int to_port, int from_port)
{
	struct sbx_call *call = arg;
	(void)to_ip;
	(void)from_ip;
	(void)to_port;
	(void)from_port;
	assert(call->magic == SBX_CALL_MAGIC);
	if (call->state != SBX_CALL_ACTIVE || is_replay(call))
		return CURL_PREREQFUNC_ABORT;
	if (call->flat && !call->sent) {
		call->connected = call->sent = true;
		call->ops->on_connected(call->arg);
		if (call->state == SBX_CALL_ACTIVE)
			call->ops->on_sent(call->arg);
	}
	return call->state == SBX_CALL_ACTIVE ? CURL_PREREQFUNC_OK : CURL_PREREQFUNC_ABORT;
}

/* The same gate, earlier: no new connection is made only to refuse to send on it. */
curl_socket_t
sbx_call_on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *to)
{
	(void)purpose; /* only one is ever asked for here */
	if (is_replay(arg))
		return CURL_SOCKET_BAD;
	int fd = socket(to->family, to->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, to->protocol);
	if (fd < 0)
		return CURL_SOCKET_BAD;
	struct socket_slot *slot = slot_of(((struct sbx_call *)arg)->lane->u, fd);
	if (!slot) {
		(void)close(fd);
		return CURL_SOCKET_BAD;
	}
	slot->ours = true;
	return fd;
}

int
sbx_call_on_close(void *arg, curl_socket_t fd)
{
	struct socket_slot *slot = slot_of(arg, fd); /* is there: it was opened above */
	sbx_watch_free(slot->watch); /* before the close, while the number still means this file */
	*slot = (struct socket_slot){ .watch = NULL };
	return close(fd);
}

static struct sbx_span
trimmed(const char *at, size_t n)
{
	while (n && (at[n - 1] == '\r' || at[n - 1] == '\n' || at[n - 1] == ' ' || at[n - 1] == '\t'))
		n--;
	while (n && (*at == ' ' || *at == '\t')) {
		at++;
		n--;
	}
	return (struct sbx_span){ at, n };
}

static bool
name_is(struct sbx_span name, const char *lower)
{
	return name.n == strlen(lower) && strncasecmp(name.at, lower, name.n) == 0;
}

static void
read_header(struct sbx_call *call, struct sbx_span name, struct sbx_span value)
{
	if (name_is(name, "content-type")) {
		size_t n = value.n < sizeof call->content_type ? value.n : sizeof call->content_type - 1;
		memcpy(call->content_type, value.at, n);
		call->content_type[n] = 0;
	} else if (name_is(name, "content-encoding")) {
		call->coded = value.n && !(value.n == 8 && strncasecmp(value.at, "identity", 8) == 0);
	} else if (name_is(name, "content-length")) {
		uint64_t length = 0;
		for (size_t i = 0; i < value.n && i < 18; i++)
			length = length * 10 + (uint64_t)(value.at[i] & 15);
		call->two_lengths |= call->has_coding || (call->has_length && call->length != length);
		call->has_length = true;
		call->length = length;
	} else if (name_is(name, "transfer-encoding")) {
		call->two_lengths |= call->has_length;
		call->has_coding = true;
	} else {
		sbx_retry_after_header(&call->retry, name, value, call->head_unix_s);
	}
}

static void
begin_head(struct sbx_call *call, const char *line, size_t bytes)
{
	const char *space = memchr(line, ' ', bytes);
	int status = 0;
	for (const char *p = space ? space + 1 : line + bytes; p < line + bytes && *p >= '0' && *p <= '9' && status < 1000; p++)
		status = status * 10 + (*p - '0');
	call->status = status;
	call->head_unix_s = (int64_t)time(NULL);
	call->content_type[0] = 0;
	call->coded = call->has_length = call->has_coding = call->two_lengths = false;
	sbx_retry_after_init(&call->retry);
}

size_t
sbx_call_on_header(char *line, size_t size, size_t n, void *arg)
{
	struct sbx_call *call = arg;
	size_t bytes = size * n;
	assert(call->magic == SBX_CALL_MAGIC);
	if (call->state != SBX_CALL_ACTIVE)
		return 0;
	call->got_bytes = true;
	call->head_bytes += (uint32_t)bytes;
	if (call->head_bytes > SBX_HEAD_MAX_BYTES) {
		call->too_large_head = true;
		return 0;
	}
	if (call->head_done) /* trailers of a chunked body mean nothing to us */
		return bytes;
	if (bytes > 5 && memcmp(line, "HTTP/", 5) == 0) {
		begin_head(call, line, bytes);
		return bytes;
	}
	struct sbx_span text = trimmed(line, bytes);
	if (text.n) {
		const char *colon = memchr(text.at, ':', text.n);
		if (colon) {
			size_t name_bytes = (size_t)(colon - text.at);
			read_header(call, (struct sbx_span){ text.at, name_bytes }, trimmed(colon + 1, text.n - name_bytes - 1));
		}
		return bytes;
	}
	if (call->status < 200) { /* an interim answer: the real one follows */
		if (++call->interim > SBX_INTERIM_MAX) {
			call->too_large_head = true;
			return 0;
		}
		return bytes;
	}
	call->head_done = true;
	if (call->coded || call->two_lengths)
		return 0;
	if (!call->sent) /* an answer before the end of the request: what was sent, was sent */
		call->sent = true;
	call->ops->on_head(call->arg, call->status, call->content_type);
	return call->state == SBX_CALL_ACTIVE ? bytes : 0;
}

size_t
sbx_call_on_write(char *bytes, size_t size, size_t n, void *arg)
{
	struct sbx_call *call = arg;
	assert(call->magic == SBX_CALL_MAGIC);
	if (call->state != SBX_CALL_ACTIVE)
		return 0;
	if (call->want_pause) {
		call->is_paused = true;
		return CURL_WRITEFUNC_PAUSE; /* libcurl keeps these bytes and gives them again */
	}
	call->ops->on_body(call->arg, bytes, size * n);
	return call->state == SBX_CALL_ACTIVE ? size * n : 0;
}

/* HTTP/2 only: libcurl 7.88 tells in no other way whether a stream that failed was looked at by the server.
 *
 * It asks to send again in two cases: after REFUSED_STREAM, and after a receive error on a reused connection. The former is named
 * on a new connection only; but the latter, unlike the former, always leaves a text in the error buffer first. */
int
sbx_call_on_debug(CURL *easy, curl_infotype type, char *text, size_t n, void *arg)
{
	struct sbx_call *call = arg;
	static const char using[] = "Using Stream ID: ", goaway[] = "GOAWAY, error=", last[] = "last_stream=";
	static const char again[] = "Connection died, retrying";
	if (!call || type != CURLINFO_TEXT)
		return 0;
	char line[160];
	size_t keep = n < sizeof line ? n : sizeof line - 1;
	memcpy(line, text, keep);
	line[keep] = 0;
	const char *at;
	if (strncmp(line, using, sizeof using - 1) == 0) {
		call->h2_stream = (uint32_t)strtoul(line + sizeof using - 1, NULL, 10);
		long port = 0;
		(void)curl_easy_getinfo(easy, CURLINFO_LOCAL_PORT, &port);
		if (call->h2_stream == 1 && port == call->lane->goaway_port)
			call->lane->goaway_port = 0; /* another connection, from the port of one that is gone */
	} else if (strstr(line, "REFUSED_STREAM")) {
		call->safe_unsent = true;
	} else if (strncmp(line, again, sizeof again - 1) == 0) {
		call->safe_unsent |= call->h2_stream && !call->error[0];
	} else if (strstr(line, goaway) && (at = strstr(line, last))) {
		call->lane->goaway_last_stream = (uint32_t)strtoul(at + sizeof last - 1, NULL, 10);
		(void)curl_easy_getinfo(easy, CURLINFO_LOCAL_PORT, &call->lane->goaway_port);
	}
	return 0;
}

/* ---- libcurl's callbacks of the multi handle: record, nothing else ---- */

static void on_watch(void *arg, int fd, unsigned events);

/* A call is on this connection from now on. */
static void
use(struct socket_slot *slot, int fd, CURL *easy)
{
	struct sbx_call *call = NULL;
	(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
	slot->resting = false;
	if (!call || call->lane->h2)
		return;
	slot->user = call;
	call->fd = fd;
}

/* The call is out of libcurl, its connection is still open: so it was kept for another. */
static void
rest(struct sbx_upstream *u, const struct sbx_call *call)
{
	struct socket_slot *slot = call->fd >= 0 ? &u->slot[call->fd] : NULL;
	if (!slot || slot->user != call)
		return;
	slot->user = NULL;
	slot->resting = true;
	sbx_watch_set(slot->watch, SBX_WATCH_IN);
}

/* Something came on a connection at rest. Over TLS that is a goodbye, with the end of the connection behind it. libcurl 7.88 sees
 * that it can be read, takes it for alive and sends the next request into it, to be lost; from 8.0 on it takes input for the end,
 * as is done here: the socket is emptied and ended, which every version understands. It is closed when libcurl next looks. */
static void
retire(struct socket_slot *slot, int fd)
{
	char bytes[4096];
	if (recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) < 0 && (errno == EAGAIN || errno == EINTR))
		return; /* nothing has come after all */
	slot->resting = false;
	sbx_watch_set(slot->watch, 0);
	(void)shutdown(fd, SHUT_RDWR); /* fails where the other side was faster */
	for (int i = 0; i < RETIRE_READS_MAX && recv(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0; i++)
		;
}

static int
on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct sbx_upstream *u = arg;
	struct socket_slot *slot = slot_of(u, fd);
	(void)socket_arg;
	if (!slot)
		return -1; /* libcurl fails the transfer */
	unsigned want = (what & CURL_POLL_IN ? SBX_WATCH_IN : 0u) | (what & CURL_POLL_OUT ? SBX_WATCH_OUT : 0u);
	if (what == CURL_POLL_REMOVE && !slot->ours) { /* a resolver's: libcurl closes it without a word */
		sbx_watch_free(slot->watch);
		slot->watch = NULL;
	} else if (what == CURL_POLL_REMOVE) { /* the transfer is over, the connection is kept: it stays, quiet, till the close */
		if (slot->watch)
			sbx_watch_set(slot->watch, 0);
	} else {
		if (slot->ours)
			use(slot, fd, easy);
		if (slot->watch)
			sbx_watch_set(slot->watch, want);
		else if (sbx_watch_new(u->loop, fd, want, on_watch, u, &slot->watch))
			return -1;
	}
	return 0;
}

static int
on_timer(CURLM *multi, long timeout_ms, void *arg)
{
	struct sbx_upstream *u = arg;
	(void)multi;
	u->timer_ns = timeout_ms < 0 ? UINT64_MAX : timeout_ms == 0 ? 0 : sbx_loop_now_ns(u->loop) + (uint64_t)timeout_ms * 1000000u;
	return 0;
}

static void
socket_action(struct sbx_upstream *u, curl_socket_t fd, int bits)
{
	int running;
	u->inside = true;
	u->stats.wakeups++;
	CURLMcode rc = curl_multi_socket_action(u->multi, fd, bits, &running);
	u->inside = false;
	assert(rc == CURLM_OK || rc == CURLM_OUT_OF_MEMORY || rc == CURLM_BAD_SOCKET || rc == CURLM_ABORTED_BY_CALLBACK);
	(void)rc;
}

static void
on_watch(void *arg, int fd, unsigned events)
{
	struct socket_slot *slot = slot_of(arg, fd); /* is there: its watch speaks */
	if (slot->resting) {
		retire(slot, fd);
		return;
	}
	int bits = (events & SBX_WATCH_IN ? CURL_CSELECT_IN : 0) | (events & SBX_WATCH_OUT ? CURL_CSELECT_OUT : 0) |
	           (events & SBX_WATCH_ERR ? CURL_CSELECT_ERR : 0);
	socket_action(arg, fd, bits);
}

/* ---- calls ---- */

static void
call_free(struct sbx_call *call)
{
	struct sbx_lane *lane = call->lane;
	list_remove(call);
	if (call->warm)
		curl_easy_cleanup(call->easy);
	else if (call->easy)
		sbx_lane_give_back(lane, call->easy);
	sbx_headers_free(call->own_headers);
	lane->u->stats.active--;
	call->magic = 0;
	free(call);
	sbx_lane_release(lane);
}

/* A body that libcurl reads by callback leaves apart from the headers: two packets, two wake-ups of the provider, two TLS
 * records, and a buffer of 16 kB that the transfer keeps to its end. One that lies in one piece leaves with them. It has no
 * seek gate, though: sbx_call_on_request() is its gate. HTTP/2 frames both alike, and its gate knows more. */
static void
flatten(struct sbx_call *call)
{
	size_t at = 0;
	call->flat = (char *)(call + 1);
	for (uint32_t i = 0; i < call->body->n; i++) {
		if (call->body->piece[i].n)
			memcpy(call->flat + at, call->body->piece[i].at, call->body->piece[i].n);
		at += call->body->piece[i].n;
	}
	assert(at == call->body->bytes);
}

static void
enqueue(struct sbx_call *call)
{
	struct sbx_lane *lane = call->lane;
	CURL *e = call->easy;
	/* None of these can fail on a handle that exists: they store a number or a pointer. */
	(void)curl_easy_setopt(e, CURLOPT_PRIVATE, call);
	(void)curl_easy_setopt(e, CURLOPT_READDATA, call);
	(void)curl_easy_setopt(e, CURLOPT_SEEKDATA, call);
	(void)curl_easy_setopt(e, CURLOPT_HEADERDATA, call);
	(void)curl_easy_setopt(e, CURLOPT_WRITEDATA, call);
	(void)curl_easy_setopt(e, CURLOPT_DEBUGDATA, call);
	(void)curl_easy_setopt(e, CURLOPT_ERRORBUFFER, call->error);
	(void)curl_easy_setopt(e, CURLOPT_PREREQDATA, call);
	(void)curl_easy_setopt(e, CURLOPT_OPENSOCKETDATA, call);
	lane->n_calls++;
	lane->u->stats.active++;
	list_add(&lane->u->queued, call);
}

int
sbx_call_start(struct sbx_lane *lane, const struct sbx_call_ask *ask, const struct sbx_call_ops *ops, void *arg, struct sbx_call **ret_call)
{
	const struct sbx_pieces *body = ask->body;
	assert(!lane->closed);
	bool flat = !lane->h2 && body->bytes <= FLAT_MAX_BYTES;
	struct sbx_call *call = calloc(1, sizeof *call + (flat ? body->bytes : 0));
	if (!call)
		return -SBX_ENOMEM;
	call->magic = SBX_CALL_MAGIC;
	call->fd = -1;
	call->lane = lane;
	call->ops = ops;
	call->arg = arg;
	call->body = body;
	sbx_retry_after_init(&call->retry);
	call->easy = sbx_lane_take(lane);
	if (ask->idempotency_key)
		call->own_headers = sbx_lane_headers_with(lane, ask->idempotency_key);
	/* The URL is the one option of a call that is copied; a handle keeps it until the next call. */
	if (!call->easy || (ask->idempotency_key && !call->own_headers) || sbx_lane_set_url(lane, call->easy, ask)) {
		if (call->easy)
			sbx_lane_give_back(lane, call->easy);
		sbx_headers_free(call->own_headers);
		free(call);
		return -SBX_ENOMEM;
	}
	CURL *e = call->easy;
	if (flat)
		flatten(call);
	(void)curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body->bytes);
	(void)curl_easy_setopt(e, CURLOPT_POSTFIELDS, call->flat); /* NULL: libcurl reads by callback */
	(void)curl_easy_setopt(e, CURLOPT_HTTPHEADER, call->own_headers ? call->own_headers : lane->headers);
	/* Events of a stream are small and buffers are held for its whole life; a whole answer is read in fewer pieces. */
	(void)curl_easy_setopt(e, CURLOPT_BUFFERSIZE, ask->stream ? 4096L : 16384L);
	lane->u->stats.calls++;
	enqueue(call);
	*ret_call = call;
	return 0;
}

int
sbx_call_start_warm(struct sbx_lane *lane, const struct sbx_call_ops *ops, void *arg, struct sbx_call **ret_call)
{
	assert(!lane->closed);
	struct sbx_call *call = calloc(1, sizeof *call);
	if (!call)
		return -SBX_ENOMEM;
	call->easy = sbx_lane_warm_handle(lane);
	if (!call->easy) {
		free(call);
		return -SBX_ENOMEM;
	}
	call->magic = SBX_CALL_MAGIC;
	call->fd = -1;
	call->lane = lane;
	call->ops = ops;
	call->arg = arg;
	call->warm = true;
	sbx_retry_after_init(&call->retry);
	enqueue(call);
	*ret_call = call;
	return 0;
}

void
sbx_call_abort(struct sbx_call *call)
{
	assert(call->magic == SBX_CALL_MAGIC && call->state != SBX_CALL_DOOMED);
	struct sbx_upstream *u = call->lane->u;
	list_remove(call);
	if (call->state == SBX_CALL_QUEUED) {
		call_free(call);
		return;
	}
	call->state = SBX_CALL_DOOMED;
	list_add(&u->doomed, call);
}

void
sbx_call_pause(struct sbx_call *call, bool paused)
{
	assert(call->magic == SBX_CALL_MAGIC);
	if (call->want_pause == paused || call->state == SBX_CALL_DOOMED)
		return;
	/* Pausing needs no call: the next bytes meet want_pause and are refused. */
	call->want_pause = paused;
	if (!paused && call->is_paused && call->state == SBX_CALL_ACTIVE && !call->list)
		list_add(&call->lane->u->pausing, call);
}

int64_t
sbx_call_connection(const struct sbx_call *call)
{
	long connects = 0, port = 0;
	(void)curl_easy_getinfo(call->easy, CURLINFO_NUM_CONNECTS, &connects);
	(void)curl_easy_getinfo(call->easy, CURLINFO_LOCAL_PORT, &port);
	return port == 0 ? -1 : connects;
}

/* libcurl tells the lack of a descriptor as "couldn't connect" or "couldn't resolve". It is no fault of the provider's. */
static bool
is_out_of_descriptors(void)
{
	int fd = eventfd(0, EFD_CLOEXEC);
	if (fd >= 0)
		(void)close(fd);
	return fd < 0;
}

static void
report(struct sbx_call *call, CURLcode code)
{
	struct sbx_lane *lane = call->lane;
	int64_t connection = sbx_call_connection(call);
	long port = 0;
	(void)curl_easy_getinfo(call->easy, CURLINFO_LOCAL_PORT, &port);
	if (connection > 0)
		lane->u->stats.connections += (uint64_t)connection;
	struct sbx_call_end end = {
		.sent = call->sent, .got_bytes = call->got_bytes, .status = call->status, .retry = &call->retry, .head_unix_s = call->head_unix_s,
		.message = "", .connection = connection,
	};
	if (code == CURLE_HTTP2 && call->h2_stream && lane->goaway_port == port && call->h2_stream > lane->goaway_last_stream && !call->got_bytes)
		call->safe_unsent = true;
	bool no_descriptor = false;
	if (code == CURLE_OUT_OF_MEMORY && call->sent && !call->head_done)
		call->too_large_head = true; /* so libcurl 7.88 calls a single line above its own limit, of 100 kB */
	switch (code) {
	case CURLE_OK:
		end.transport = SBX_TRANSPORT_OK;
		break;
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
	case CURLE_COULDNT_CONNECT:
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_PROXY:
	case CURLE_OPERATION_TIMEDOUT: /* ours are in core/; libcurl's only bounds the connect */
		no_descriptor = !call->sent && !call->got_bytes && is_out_of_descriptors();
		end.transport = no_descriptor ? SBX_TRANSPORT_LOCAL : call->sent || call->got_bytes ? SBX_TRANSPORT_BROKEN : SBX_TRANSPORT_CONNECT;
		break;
	case CURLE_OUT_OF_MEMORY:
	case CURLE_FAILED_INIT:
		end.transport = SBX_TRANSPORT_LOCAL;
		break;
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_UNSUPPORTED_PROTOCOL:
	case CURLE_BAD_CONTENT_ENCODING:
		end.transport = SBX_TRANSPORT_JUNK;
		break;
	default:
		end.transport = SBX_TRANSPORT_BROKEN;
		/* Not one byte of the request had been taken: a pooled connection was dead already. */
		if (call->safe_unsent || (!call->got_bytes && (call->flat ? !flat_left(call) : !call->sent && call->piece == 0 && call->piece_at == 0)))
			end.transport = SBX_TRANSPORT_UNSENT;
	}
	if (call->too_large_head || call->coded || call->two_lengths)
		end.transport = SBX_TRANSPORT_JUNK;
	char text[CURL_ERROR_SIZE + 96];
	if (end.transport != SBX_TRANSPORT_OK) {
		const char *what = no_descriptor          ? "no file descriptor is left for a connection; raise the agent's limit"
		                   : call->coded            ? "the answer has a Content-Encoding that was not asked for"
		                   : call->too_large_head ? "the answer's headers are over the limit"
		                   : call->two_lengths    ? "the answer tells its length twice, and not the same"
		                   : call->replay_refused ? "the connection broke after the request had been sent on it"
		                   : call->error[0]       ? call->error
		                                          : curl_easy_strerror(code);
		(void)snprintf(text, sizeof text, "%s: %s", lane->name, what); /* a cut message is still one */
		end.message = text;
	}
	call->ops->on_end(call->arg, &end);
}

/* ---- the turn ---- */

static void
take_out_doomed(struct sbx_upstream *u)
{
	struct sbx_call *call;
	while ((call = TAILQ_FIRST(&u->doomed))) {
		u->inside = true;
		(void)curl_multi_remove_handle(u->multi, call->easy); /* closes its connection: the answer was not read to its end */
		u->inside = false;
		call_free(call);
	}
}

static void
go_on_paused(struct sbx_upstream *u)
{
	struct sbx_call *call;
	while ((call = TAILQ_FIRST(&u->pausing))) {
		list_remove(call);
		if (call->want_pause || !call->is_paused)
			continue;
		call->is_paused = false;
		u->inside = true;
		(void)curl_easy_pause(call->easy, CURLPAUSE_CONT); /* may deliver at once; a failure ends the transfer by itself */
		u->inside = false;
	}
}

static void
take_in_queued(struct sbx_upstream *u)
{
	struct sbx_call *call;
	while ((call = TAILQ_FIRST(&u->queued))) {
		list_remove(call);
		call->state = SBX_CALL_ACTIVE;
		u->inside = true;
		CURLMcode rc = curl_multi_add_handle(u->multi, call->easy);
		u->inside = false;
		if (rc != CURLM_OK) {
			struct sbx_call_end end = { .transport = SBX_TRANSPORT_LOCAL, .retry = &call->retry, .message = curl_multi_strerror(rc), .connection = -1 };
			call->ops->on_end(call->arg, &end);
			call_free(call);
		}
	}
}

static bool
report_finished(struct sbx_upstream *u)
{
	CURLMsg *msg;
	int left;
	bool any = false;
	while ((msg = curl_multi_info_read(u->multi, &left))) {
		if (msg->msg != CURLMSG_DONE)
			continue;
		struct sbx_call *call = NULL;
		CURLcode code = msg->data.result;
		CURL *easy = msg->easy_handle;
		(void)curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&call);
		assert(call && call->magic == SBX_CALL_MAGIC && call->easy == easy);
		bool doomed = call->state == SBX_CALL_DOOMED;
		list_remove(call);
		if (!doomed)
			report(call, code);
		u->inside = true;
		(void)curl_multi_remove_handle(u->multi, easy);
		u->inside = false;
		rest(u, call);
		call_free(call);
		any = true;
	}
	return any;
}

static bool
waiting(const struct sbx_upstream *u)
{
	return !TAILQ_EMPTY(&u->doomed) || !TAILQ_EMPTY(&u->pausing) || !TAILQ_EMPTY(&u->queued);
}

void
sbx_upstream_run(struct sbx_upstream *u, uint64_t now_ns)
{
	assert(!u->inside);
	for (int round = 0; round < RUN_ROUNDS_MAX; round++) {
		take_out_doomed(u);
		go_on_paused(u);
		take_in_queued(u);
		if (u->timer_ns <= now_ns) {
			u->timer_ns = UINT64_MAX; /* libcurl sets it again if it wants it */
			socket_action(u, CURL_SOCKET_TIMEOUT, 0);
		}
		bool any = report_finished(u);
		if (!any && !waiting(u) && u->timer_ns > now_ns)
			return;
	}
}

uint64_t
sbx_upstream_wake_ns(const struct sbx_upstream *u)
{
	return waiting(u) ? 0 : u->timer_ns;
}

const struct sbx_upstream_stats *
sbx_upstream_stats(const struct sbx_upstream *u)
{
	return &u->stats;
}

CURLM *
sbx_upstream_multi(struct sbx_upstream *u)
{
	return u->multi;
}

int
sbx_upstream_new(struct sbx_loop *loop, struct sbx_upstream **ret)
{
	struct sbx_upstream *u = calloc(1, sizeof *u);
	if (!u)
		return -SBX_ENOMEM;
	u->loop = loop;
	u->timer_ns = UINT64_MAX;
	TAILQ_INIT(&u->queued);
	TAILQ_INIT(&u->doomed);
	TAILQ_INIT(&u->pausing);
	u->multi = curl_multi_init();
	if (!u->multi) {
		free(u);
		return -SBX_ENOMEM;
	}
	(void)curl_multi_setopt(u->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
	(void)curl_multi_setopt(u->multi, CURLMOPT_SOCKETDATA, u);
	(void)curl_multi_setopt(u->multi, CURLMOPT_TIMERFUNCTION, on_timer);
	(void)curl_multi_setopt(u->multi, CURLMOPT_TIMERDATA, u);
	(void)curl_multi_setopt(u->multi, CURLMOPT_MAXCONNECTS, (long)MAX_IDLE_CONNECTIONS);
	(void)curl_multi_setopt(u->multi, CURLMOPT_PIPELINING, CURLPIPE_MULTIPLEX);
	*ret = u;
	return 0;
}

void
sbx_upstream_free(struct sbx_upstream *u)
{
	if (!u)
		return;
	take_out_doomed(u);
	assert(u->stats.active == 0);
	u->inside = true;
	(void)curl_multi_cleanup(u->multi); /* closes the pool; its sockets leave through sbx_call_on_close() */
	free(u->slot);
	free(u);
}
