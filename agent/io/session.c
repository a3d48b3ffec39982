/* SPDX-License-Identifier: Apache-2.0 */
/* session.c -- see session.h. */
#include "agent/io/session.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "agent/io/ending.h"
#include "agent/io/exchange.h"
#include "agent/io/handover.h"
#include "agent/io/metrics.h"
#include "agent/io/record.h"
#include "agent/io/report.h"
#include "agent/io/stats.h"
#include "agent/io/vkeys.h"
#include "agent/io/whom.h"
#include "agent/log.h"
#include "client/wire.h"

#define SESSION_MAGIC 0x5e5510a1u
#define BUCKETS_FIRST 16
#define UNMAPPED_UID 65534u         /* a user namespace's stranger: he could be anybody */
#define LINGER_NS 2000000000ull     /* to send the last frames of a session that ends */
#define KEEP_IN_BYTES 65536         /* receive memory that an idle session may keep */
#define RECEIVED_AT_ONCE_BYTES (4u << 20) /* what one callback of the stream may bring: all of the loop's buffers, at most */
#define STOP_BYTES (4 * SBX_SESSION_HIGH_BYTES) /* unsent bytes at which a client is not listened to any more. Streams stop at a
                                                 * quarter of it: only one that asks and never reads comes here */

struct sbx_session {
	uint32_t magic;
	bool welcomed, admin, dead;
	struct sbx_agent *agent;
	struct sbx_stream *stream;
	struct sbx_peer *peer;
	pid_t pid;                      /* for the log only: pids are reused */
	char name[65];                  /* of the program, as it says; printable */
	struct sbx_buf in;              /* a frame that has not come in whole */
	size_t counted_bytes;           /* of it, in agent->part_bytes */
	struct sbx_timer timer;         /* HELLO, and part frames */
	uint32_t drain_bucket;          /* where the next walk over the requests begins */
	struct sbx_exchange **bucket;   /* requests by id */
	uint32_t n_buckets, n_requests;
	struct sbx_session *prev, *next, *next_dead;
};

/* ---- requests by id ---- */

static uint32_t
bucket_of(const struct sbx_session *s, uint64_t id)
{
	return (uint32_t)((id * 0x9e3779b97f4a7c15ull) >> 32) & (s->n_buckets - 1);
}

static struct sbx_exchange *
find_request(const struct sbx_session *s, uint64_t id)
{
	struct sbx_exchange *ex = s->n_buckets ? s->bucket[bucket_of(s, id)] : NULL;
	while (ex && ex->id != id)
		ex = ex->next_by_id;
	return ex;
}

static int
grow_buckets(struct sbx_session *s)
{
	uint32_t n = s->n_buckets ? s->n_buckets * 2 : BUCKETS_FIRST;
	struct sbx_exchange **bucket = calloc(n, sizeof(struct sbx_exchange *)), **old = s->bucket;
	uint32_t n_old = s->n_buckets;
	if (!bucket)
		return -SBX_ENOMEM;
	s->bucket = bucket;
	s->n_buckets = n;
	for (uint32_t i = 0; i < n_old; i++)
		for (struct sbx_exchange *ex = old[i], *next; ex; ex = next) {
			next = ex->next_by_id;
			ex->next_by_id = bucket[bucket_of(s, ex->id)];
			bucket[bucket_of(s, ex->id)] = ex;
		}
	free(old);
	return 0;
}

static void
add_request(struct sbx_session *s, struct sbx_exchange *ex)
{
	struct sbx_exchange **at = &s->bucket[bucket_of(s, ex->id)];
	ex->next_by_id = *at;
	*at = ex;
	s->n_requests++;
}

void
sbx_session_forget(struct sbx_session *s, struct sbx_exchange *ex)
{
	for (struct sbx_exchange **at = &s->bucket[bucket_of(s, ex->id)]; *at; at = &(*at)->next_by_id)
		if (*at == ex) {
			*at = ex->next_by_id;
			s->n_requests--;
			break;
		}
}

/* Any request, NULL when there is none: for loops that end them all. */
static struct sbx_exchange *
any_request(const struct sbx_session *s)
{
	for (uint32_t i = 0; i < s->n_buckets; i++)
		if (s->bucket[i])
			return s->bucket[i];
	return NULL;
}

/* ---- the end of a session ---- */

static void
session_die(struct sbx_session *s, bool flush)
{
	struct sbx_agent *agent = s->agent;
	struct sbx_exchange *ex;
	if (s->dead)
		return;
	s->dead = true;
	while ((ex = any_request(s))) {
		sbx_session_forget(s, ex);
		sbx_exchange_orphan(ex);
	}
	sbx_report_forget(agent, s);
	sbx_vkeys_forget(agent, s);
	sbx_handover_forget(agent, s);
	sbx_timer_cancel(&agent->timers, &s->timer);
	sbx_stream_close(s->stream, flush, LINGER_NS);
	if (s->prev)
		s->prev->next = s->next;
	else
		agent->sessions = s->next;
	if (s->next)
		s->next->prev = s->prev;
	agent->n_sessions--;
	s->peer->connections--;
	s->next_dead = agent->dead_sessions;
	agent->dead_sessions = s;
}

void
sbx_session_reap(struct sbx_agent *agent)
{
	struct sbx_session *s;
	while ((s = agent->dead_sessions)) {
		agent->dead_sessions = s->next_dead;
		agent->part_bytes -= s->counted_bytes;
		sbx_buf_fini(&s->in);
		free(s->bucket);
		s->magic = 0;
		free(s);
	}
}

static void
send_built(struct sbx_session *s)
{
	struct sbx_buf *f = &s->agent->frame;
	if (f->n)
		(void)sbx_stream_send(s->stream, f->data, f->n, -1); /* fails only on a session that is ending */
	sbx_buf_clear(f);
}

void
sbx_session_send(struct sbx_session *s)
{
	send_built(s);
}

int
sbx_session_send_fd(struct sbx_session *s, int fd)
{
	struct sbx_buf *f = &s->agent->frame;
	const int rc = f->n ? sbx_stream_send(s->stream, f->data, f->n, fd) : -1;
	sbx_buf_clear(f);
	return rc ? -SBX_ENOMEM : 0;
}

pid_t
sbx_session_pid(const struct sbx_session *s)
{
	return s->pid;
}

struct sbx_agent *
sbx_session_agent(const struct sbx_session *s)
{
	return s->agent;
}

/* With the board's descriptor, if there is a board, and a descriptor to be had for it: the frame matters more. */
static void
send_built_with_board(struct sbx_session *s)
{
	struct sbx_buf *f = &s->agent->frame;
	const int fd = sbx_publisher_fd(s->agent->publisher);
	if (fd < 0 || f->n == 0 || sbx_stream_send(s->stream, f->data, f->n, fd) != 0)
		send_built(s);
	sbx_buf_clear(f);
}

/* The peer broke the protocol: say what is wrong, and close. */
static void
fail_session(struct sbx_session *s, enum sbx_code code, const char *why)
{
	struct sbx_refusal r = { .code = code, .retry_after_ms = -1 };
	(void)snprintf(r.why, sizeof r.why, "%s", why);
	sbx_ending_refusal(s->agent, 0, false, &r);
	send_built(s);
	sbx_log(SBX_LOG_WARNING, "client_bad", SBX_STR("client", s->name), SBX_UINT("uid", s->peer->uid), SBX_INT("pid", s->pid), SBX_STR("why", why));
	session_die(s, true);
}

static void
fail_frame(struct sbx_session *s, const char *why)
{
	s->agent->count.frames_bad++;
	fail_session(s, SBX_CODE_INVALID_REQUEST, why);
}

static void
on_timeout(void *arg, uint64_t now_ns)
{
	struct sbx_session *s = arg;
	(void)now_ns;
	s->agent->count.hello_timeouts++;
	fail_session(s, SBX_CODE_TIMEOUT, s->welcomed ? "a frame was begun and not finished within 30 s" : "no HELLO within 10 s");
}

/* ---- frames ---- */

/* The keys of every frame but SUBMIT, which has a table of its own. */
static const struct {
	enum sbx_frame_kind kind;
	const char *name, *key[9];
} small_frames[] = {
	{ SBX_FRAME_HELLO, "HELLO", { "version", "client" } },
	{ SBX_FRAME_CANCEL, "CANCEL", { NULL } },
	{ SBX_FRAME_CREDIT, "CREDIT", { "bytes" } },
	{ SBX_FRAME_STATS, "STATS", { NULL } },
	{ SBX_FRAME_METRICS, "METRICS", { "from" } },
	{ SBX_FRAME_RELOAD, "RELOAD", { NULL } },
	{ SBX_FRAME_TAKEOVER, "TAKEOVER", { NULL } },
	{ SBX_FRAME_SERVING, "SERVING", { NULL } },
	{ SBX_FRAME_KEY, "KEY", { "do", "tenant", "name", "models", "expires_unix_s", "key", "grace_s", "from", "sha256" } },
	{ SBX_FRAME_REPORT, "REPORT", { "since_unix_ms", "until_unix_ms", "by" } },
};

static bool
is_one_of(struct sbx_span key, const char *const *words, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (words[i] && sbx_span_is(key, words[i]))
			return true;
	return false;
}

/* A key that is not known is an error: to ignore it could change what the frame means. */
static bool
has_strange_key(const struct sbx_frame *frame, char *why, size_t why_bytes)
{
	struct sbx_cursor c = sbx_cursor_of(&frame->map);
	struct sbx_span key;
	struct sbx_value v;
	for (size_t i = 0; i < sizeof small_frames / sizeof small_frames[0]; i++) {
		if (small_frames[i].kind != frame->kind)
			continue;
		while (sbx_next_pair(&c, &key, &v))
			if (v.type != SBX_NIL && !is_one_of(key, small_frames[i].key, sizeof small_frames[i].key / sizeof small_frames[i].key[0])) {
				(void)snprintf(why, why_bytes, "%s has no key \"%.*s\"", small_frames[i].name, (int)(key.n > 64 ? 64 : key.n), key.at);
				return true;
			}
	}
	return false;
}

static void
on_hello(struct sbx_session *s, const struct sbx_frame *frame)
{
	struct sbx_value v;
	if (s->welcomed) {
		fail_frame(s, "a second HELLO");
		return;
	}
	if (frame->id) {
		fail_frame(s, "HELLO has the id 0");
		return;
	}
	if (!sbx_map_get(&frame->map, "version", &v) || v.type != SBX_UINT || v.u != SBX_WIRE_VERSION) {
		char why[96];
		(void)snprintf(why, sizeof why, "this agent speaks version %d of the protocol; HELLO must say so", SBX_WIRE_VERSION);
		s->agent->count.frames_bad++;
		fail_session(s, SBX_CODE_UNSUPPORTED, why);
		return;
	}
	if (sbx_map_get(&frame->map, "client", &v)) {
		if (v.type != SBX_STR) {
			fail_frame(s, "client must be a text");
			return;
		}
		size_t n = v.bytes.n < sizeof s->name ? v.bytes.n : sizeof s->name - 1;
		for (size_t i = 0; i < n; i++)
			s->name[i] = v.bytes.at[i] > 0x20 && v.bytes.at[i] < 0x7f ? v.bytes.at[i] : '?';
		s->name[n] = 0;
	}
	s->welcomed = true;
	sbx_timer_cancel(&s->agent->timers, &s->timer);
	struct sbx_packer p;
	sbx_frame_begin(&p, &s->agent->frame, SBX_FRAME_WELCOME, 0, 4);
	sbx_pack_uint(&p, "version", SBX_WIRE_VERSION);
	sbx_pack_str(&p, "agent", SBX_SPAN("signalboxd/" SBX_VERSION));
	sbx_pack_uint(&p, "pid", (uint64_t)getpid());
	sbx_pack_uint(&p, "generation", s->agent->generation);
	if (sbx_frame_end(&p) == 0)
		send_built_with_board(s);
}

static void
refuse_request(struct sbx_session *s, uint64_t id, bool data, const struct sbx_refusal *r)
{
	s->agent->count.requests_refused++;
	sbx_ending_refusal(s->agent, id, data, r);
	send_built(s);
}

static void
on_submit(struct sbx_session *s, const struct sbx_frame *frame)
{
	struct sbx_submit submit;
	struct sbx_refusal r = { .retry_after_ms = -1 };
	struct sbx_exchange *ex;
	s->agent->count.requests++;
	if (frame->id == 0 || find_request(s, frame->id)) {
		fail_frame(s, frame->id ? "SUBMIT with the id of a request that is running" : "SUBMIT with id 0");
		return;
	}
	if (sbx_submit_read(frame, &submit, &r.code, r.why, sizeof r.why)) {
		sbx_record_refusal(s->agent, s->peer, NULL, r.code);
		struct sbx_value reply;
		bool data = (sbx_map_get(&frame->map, "reply", &reply) && reply.type == SBX_STR && sbx_span_is(reply.bytes, "data")) ||
		            (sbx_map_get(&frame->map, "as_http", &reply) && reply.type == SBX_BOOL && reply.truth);
		refuse_request(s, frame->id, data, &r);
		return;
	}
	if (s->n_requests >= s->n_buckets && grow_buckets(s)) {
		r.code = SBX_CODE_INTERNAL;
		(void)snprintf(r.why, sizeof r.why, "out of memory");
		sbx_record_refusal(s->agent, s->peer, &submit, r.code);
		refuse_request(s, frame->id, submit.data, &r);
		return;
	}
	if (sbx_exchange_new(s->agent, s, s->stream, s->peer, frame->id, &submit, &ex, &r)) {
		sbx_record_refusal(s->agent, s->peer, &submit, r.code);
		refuse_request(s, frame->id, submit.data, &r);
		return;
	}
	add_request(s, ex);
	struct sbx_packer p;
	sbx_frame_begin(&p, &s->agent->frame, SBX_FRAME_ACCEPTED, frame->id, 1);
	sbx_pack_bool(&p, "stream", ex->req.stream);
	if (sbx_frame_end(&p) == 0)
		send_built(s);
	sbx_exchange_start(ex);
}

static void
on_credit(struct sbx_session *s, const struct sbx_frame *frame)
{
	struct sbx_value v;
	struct sbx_exchange *ex = find_request(s, frame->id);
	if (!sbx_map_get(&frame->map, "bytes", &v) || v.type != SBX_UINT)
		fail_frame(s, "CREDIT without its bytes");
	else if (ex)
		sbx_exchange_credit(ex, v.u);
}

/* False, and refused: this is not the admin socket. */
static bool
may_administer(struct sbx_session *s, const struct sbx_frame *frame)
{
	struct sbx_refusal r = { .code = SBX_CODE_FORBIDDEN, .retry_after_ms = -1, .why = "this is taken on the admin socket only" };
	if (!s->admin)
		refuse_request(s, frame->id, false, &r);
	return s->admin;
}

/* Tenants are not told of each other: only who may speak for all of them gets to see them all. */
static void
on_metrics(struct sbx_session *s, const struct sbx_frame *frame)
{
	struct sbx_refusal r = { .code = SBX_CODE_FORBIDDEN, .retry_after_ms = -1, .why = "METRICS is for the users in listen.trusted_uids only" };
	struct sbx_value from = { .u = 0 };
	if (sbx_map_get(&frame->map, "from", &from) && from.type != SBX_UINT) {
		fail_frame(s, "METRICS with a `from` that is no number");
		return;
	}
	if (sbx_whom_trusts(s->agent, s->peer))
		sbx_metrics_frame(s->agent, frame->id, from.u);
	else
		sbx_ending_refusal(s->agent, frame->id, false, &r);
	send_built(s);
}

static void
on_reload(struct sbx_session *s, const struct sbx_frame *frame)
{
	struct sbx_buf say;
	sbx_buf_init(&say, 1u << 20);
	int rc = s->agent->reload(s->agent, &say);
	struct sbx_span text = { (const char *)say.data, say.n };
	struct sbx_packer p;
	if (rc) {
		sbx_frame_begin(&p, &s->agent->frame, SBX_FRAME_ERROR, frame->id, 3);
		sbx_pack_str(&p, "code", sbx_span_of(sbx_code_word(SBX_CODE_INVALID_REQUEST)));
		sbx_pack_uint(&p, "status", (uint64_t)sbx_code_status(SBX_CODE_INVALID_REQUEST));
		sbx_pack_str(&p, "message", text);
	} else {
		sbx_frame_begin(&p, &s->agent->frame, SBX_FRAME_RELOADED, frame->id, 1);
		sbx_pack_str(&p, "notes", text);
	}
	if (sbx_frame_end(&p) == 0)
		send_built(s);
	sbx_buf_fini(&say);
}

static void
on_frame(struct sbx_session *s, const uint8_t *data, size_t n)
{
	struct sbx_frame frame;
	struct sbx_exchange *ex;
	char why[192];
	if (sbx_frame_check(data, n, &frame, why, sizeof why)) {
		fail_frame(s, why);
		return;
	}
	if (!s->welcomed && frame.kind != SBX_FRAME_HELLO) {
		fail_frame(s, "the first frame must be HELLO");
		return;
	}
	if (has_strange_key(&frame, why, sizeof why)) {
		fail_frame(s, why);
		return;
	}
	switch (frame.kind) {
	case SBX_FRAME_HELLO:
		on_hello(s, &frame);
		break;
	case SBX_FRAME_SUBMIT:
		on_submit(s, &frame);
		break;
	case SBX_FRAME_CANCEL:
		if ((ex = find_request(s, frame.id)))
			sbx_exchange_cancel(ex, SBX_CODE_CANCELLED);
		break;
	case SBX_FRAME_CREDIT:
		on_credit(s, &frame);
		break;
	case SBX_FRAME_STATS:
		sbx_stats_frame(s->agent, frame.id);
		send_built(s);
		break;
	case SBX_FRAME_METRICS:
		on_metrics(s, &frame);
		break;
	case SBX_FRAME_RELOAD:
		if (may_administer(s, &frame))
			on_reload(s, &frame);
		break;
	case SBX_FRAME_TAKEOVER:
		if (may_administer(s, &frame))
			sbx_handover_on_takeover(s, frame.id);
		break;
	case SBX_FRAME_SERVING:
		if (may_administer(s, &frame))
			sbx_handover_on_serving(s, frame.id);
		break;
	case SBX_FRAME_REPORT:
		sbx_report_on_frame(s->agent, s, &frame);
		break;
	case SBX_FRAME_KEY:
		sbx_vkeys_on_frame(s->agent, s, s->admin, sbx_whom_trusts(s->agent, s->peer), &frame);
		break;
	default:
		(void)snprintf(why, sizeof why, "kind %u is no frame that a client sends", frame.kind);
		fail_frame(s, why);
	}
}

/* It asks faster than it reads the answers: what it says next has time until it has read some. */
static bool
is_behind(const struct sbx_session *s)
{
	return sbx_stream_unsent_bytes(s->stream) > STOP_BYTES;
}

/* Whole frames of data[0..n), in place. Returns the bytes used, or -1 when the session has died of them. */
static int64_t
take_frames(struct sbx_session *s, const uint8_t *data, size_t n)
{
	size_t used = 0;
	while (!s->dead && !is_behind(s)) {
		int64_t size = sbx_frame_size(data + used, n - used, SBX_FRAME_MAX_BYTES);
		if (size == 0)
			break;
		if (size < 0) {
			fail_frame(s, size == -SBX_ETOOBIG ? "a frame of more than 33 MiB" : "a frame shorter than any frame");
			break;
		}
		on_frame(s, data + used + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES);
		used += (size_t)size;
	}
	return s->dead ? -1 : (int64_t)used;
}

/* Half-sent bodies of thousands of sessions together must not be what ends the agent. False: this one is too much. */
static bool
count_part(struct sbx_session *s)
{
	struct sbx_agent *agent = s->agent;
	agent->part_bytes += s->in.n - s->counted_bytes;
	s->counted_bytes = s->in.n;
	return s->in.n <= KEEP_IN_BYTES || agent->part_bytes + agent->body_bytes <= agent->world->config->limits.memory_max_bytes / 2;
}

static void
on_data(void *arg, const uint8_t *data, size_t n)
{
	struct sbx_session *s = arg;
	assert(s->magic == SESSION_MAGIC);
	bool partial = s->in.n > 0;
	int64_t used = 0;
	if (!partial) { /* the common case: frames come whole and are read where they lie */
		used = take_frames(s, data, n);
		if (used < 0)
			return;
		data += used;
		n -= (size_t)used;
	}
	if (n && sbx_buf_append(&s->in, data, n)) {
		fail_session(s, SBX_CODE_INTERNAL, "out of memory");
		return;
	}
	if (partial) {
		used = take_frames(s, s->in.data, s->in.n);
		if (used < 0)
			return;
		sbx_buf_consume(&s->in, (size_t)used);
		sbx_buf_trim(&s->in, KEEP_IN_BYTES);
	}
	if (!count_part(s)) {
		fail_session(s, SBX_CODE_BUSY, "bodies that are being sent or served fill half of limits.memory_max; connect again soon");
		return;
	}
	sbx_stream_pause(s->stream, is_behind(s));
	if (!s->welcomed)
		return; /* its own deadline runs since the start */
	if (!s->in.n || used > 0 || is_behind(s))
		sbx_timer_cancel(&s->agent->timers, &s->timer);
	if (s->in.n && !s->timer.place && !is_behind(s)) /* the part that waits is the beginning of one frame */
		sbx_timer_arm(&s->agent->timers, &s->timer, sbx_loop_now_ns(s->agent->loop) + SBX_PART_FRAME_TIMEOUT_MS * 1000000ull);
}

static void
on_end(void *arg, int err)
{
	struct sbx_session *s = arg;
	sbx_log(SBX_LOG_DEBUG, "client_gone", SBX_STR("client", s->name), SBX_INT("pid", s->pid), SBX_UINT("requests", s->n_requests), SBX_INT("error", err));
	session_die(s, false);
}

/* There is room for more. The walk goes on where the last one came to the end of the room, so that each request has its turn. */
static void
on_drain(void *arg)
{
	struct sbx_session *s = arg;
	for (uint32_t n = s->n_buckets; n && sbx_stream_unsent_bytes(s->stream) < SBX_SESSION_HIGH_BYTES; n--) {
		for (struct sbx_exchange *ex = s->bucket[s->drain_bucket++ % s->n_buckets], *next; ex; ex = next) {
			next = ex->next_by_id; /* a flush may end it */
			sbx_exchange_flush(ex);
		}
	}
	if (s->in.n)
		on_data(s, NULL, 0); /* what was left of it while it was behind */
	else
		sbx_stream_pause(s->stream, false);
}

static const struct sbx_stream_ops stream_ops = { on_data, on_end, on_drain };

/* ---- the beginning ---- */

static struct sbx_peer *
peer_of(struct sbx_agent *agent, uid_t uid)
{
	struct sbx_peer *p = agent->peers;
	while (p && p->uid != uid)
		p = p->next;
	if (!p && (p = calloc(1, sizeof *p))) {
		p->uid = uid;
		p->next = agent->peers;
		agent->peers = p;
	}
	return p;
}

/* It is told why, and closed: one small frame always fits into a new socket. */
static void
turn_away(struct sbx_agent *agent, int fd, enum sbx_code code, const char *why)
{
	struct sbx_refusal r = { .code = code, .retry_after_ms = code == SBX_CODE_FORBIDDEN ? -1 : 1000 };
	(void)snprintf(r.why, sizeof r.why, "%s", why);
	sbx_ending_refusal(agent, 0, false, &r);
	(void)send(fd, agent->frame.data, agent->frame.n, MSG_NOSIGNAL | MSG_DONTWAIT);
	sbx_buf_clear(&agent->frame);
	(void)close(fd); /* nothing is lost that could not be said again */
	agent->count.connections_refused++;
}

void
sbx_session_accept(struct sbx_agent *agent, int fd, bool admin)
{
	struct ucred cred;
	socklen_t len = sizeof cred;
	struct sbx_session *s = NULL;
	if (agent->draining) {
		turn_away(agent, fd, SBX_CODE_DRAINING, "the agent is stopping; connect to its successor");
		return;
	}
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) || cred.uid == UNMAPPED_UID || (admin && cred.uid != 0 && cred.uid != geteuid())) {
		turn_away(agent, fd, SBX_CODE_FORBIDDEN, "this user may not use this socket");
		return;
	}
	struct sbx_peer *peer = peer_of(agent, cred.uid);
	if (peer && peer->connections >= SBX_SESSIONS_PER_USER_MAX) {
		turn_away(agent, fd, SBX_CODE_BUSY, "this user has as many connections as one may have; several requests can share one");
		return;
	}
	s = calloc(1, sizeof *s);
	if (!peer || !s || sbx_exchange_reserve_timers(agent))
		goto no_memory;
	s->magic = SESSION_MAGIC;
	s->agent = agent;
	s->admin = admin;
	s->peer = peer;
	s->pid = cred.pid;
	(void)snprintf(s->name, sizeof s->name, "?");
	s->timer = (struct sbx_timer){ .fire = on_timeout, .arg = s };
	sbx_buf_init(&s->in, SBX_FRAME_MAX_BYTES + SBX_FRAME_HEAD_BYTES + RECEIVED_AT_ONCE_BYTES);
	if (sbx_stream_new(agent->loop, fd, &stream_ops, s, SBX_SESSION_HIGH_BYTES, &s->stream))
		goto no_memory;
	sbx_timer_arm(&agent->timers, &s->timer, sbx_loop_now_ns(agent->loop) + SBX_HELLO_TIMEOUT_MS * 1000000ull);
	s->next = agent->sessions;
	if (s->next)
		s->next->prev = s;
	agent->sessions = s;
	agent->n_sessions++;
	peer->connections++;
	agent->count.connections++;
	return;
no_memory:
	free(s);
	turn_away(agent, fd, SBX_CODE_INTERNAL, "out of memory");
}

void
sbx_session_board_all(struct sbx_agent *agent)
{
	if (sbx_publisher_fd(agent->publisher) < 0)
		return;
	for (struct sbx_session *s = agent->sessions; s; s = s->next) {
		struct sbx_packer p;
		if (!s->welcomed)
			continue; /* WELCOME will bring it */
		sbx_frame_begin(&p, &agent->frame, SBX_FRAME_BOARD, 0, 2);
		sbx_pack_uint(&p, "generation", agent->generation);
		sbx_pack_uint(&p, "edition", sbx_publisher_edition(agent->publisher));
		if (sbx_frame_end(&p) == 0)
			send_built_with_board(s);
	}
}

void
sbx_session_leave_all(struct sbx_agent *agent)
{
	const struct sbx_refusal r = { .code = SBX_CODE_DRAINING, .retry_after_ms = 1000,
		.why = "the agent is leaving; what it has not accepted may be submitted to its successor" };
	for (struct sbx_session *s = agent->sessions; s; s = s->next) {
		sbx_ending_refusal(agent, 0, false, &r);
		send_built(s);
	}
}

void
sbx_session_drain_all(struct sbx_agent *agent)
{
	for (struct sbx_session *s = agent->sessions, *next; s; s = next) {
		next = s->next;
		if (!s->n_requests)
			session_die(s, true);
	}
}

void
sbx_session_close_all(struct sbx_agent *agent, enum sbx_code code)
{
	struct sbx_session *s;
	while ((s = agent->sessions)) {
		struct sbx_exchange *ex;
		while ((ex = any_request(s))) {
			sbx_exchange_cancel(ex, code);
			if (any_request(s) == ex) { /* its error could not be sent at once */
				sbx_session_forget(s, ex);
				sbx_exchange_orphan(ex);
			}
		}
		session_die(s, true);
	}
}

void
sbx_session_free_peers(struct sbx_agent *agent)
{
	while (agent->peers) {
		struct sbx_peer *p = agent->peers;
		agent->peers = p->next;
		free(p);
	}
}
