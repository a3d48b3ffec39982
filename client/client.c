/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.c -- handles, requests, events and credit; the library's public face but for sbx_ask() and replies. See client.h.
 */
#include "client/client.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define TIMEOUT_DEFAULT_MS 5000
#define BACKLOG_WAIT_MS 5 /* sbx_open(): the agent's backlog is full; it empties within a turn of its loop */
#define SLOTS_FIRST 16
#define REPORT_BY_MAX_BYTES 64 /* the words of all versions to come are shorter */
#define OWNER_PAGE_BYTES 4096
#define TEXT_OF(number) #number
#define VERSION_TEXT(major, minor, patch) TEXT_OF(major) "." TEXT_OF(minor) "." TEXT_OF(patch)
#define LIBRARY_VERSION VERSION_TEXT(SBX_VERSION_MAJOR, SBX_VERSION_MINOR, SBX_VERSION_PATCH)

const char *
sbx_version(void)
{
	return LIBRARY_VERSION;
}

uint64_t
sbx_now_ns(void)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_MONOTONIC, &now); /* cannot fail with this clock */
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

int
sbx_fail(struct sbx_client *c, int rc, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	(void)vsnprintf(c->error, sizeof c->error, fmt, ap);
	va_end(ap);
	return rc;
}

const char *
sbx_client_error(const struct sbx_client *c)
{
	return c ? c->error : "out of memory"; /* the only way for sbx_open() to give no handle */
}

static bool
is_owner(const struct sbx_client *c)
{
	return c->owner_page ? c->owner_page[0] != 0 : c->owner_pid == getpid();
}

/* Sends what there is, or leaves it to sbx_process(): not so much, though, that it waits for the socket there. */
static void
send_soon(struct sbx_client *c)
{
	size_t unsent = c->out.n - c->out_sent;
	if (unsent > (c->corked ? SBX_CORKED_MAX_BYTES : 0))
		sbx_link_flush(c);
}

/* The event on loan is given back: the byte behind its frame as it was, its frame consumed, its payload paid for. */
static void
give_back(struct sbx_client *c)
{
	struct sbx_buf *from = c->taken_from;
	bool stale = from == &c->later && c->later_stale_bytes > 0;
	from->data[c->taken_bytes] = c->taken_byte;
	sbx_buf_consume(from, c->taken_bytes);
	if (stale)
		c->later_stale_bytes -= c->taken_bytes;
	if (from->n == 0)
		sbx_buf_trim(from, SBX_IN_HIGH_BYTES);
	c->taken_from = NULL;
	if (c->taken_paid_bytes == 0 || stale)
		return;
	struct sbx_inflight *req = sbx_inflight_find(c, c->taken_id);
	if (req && !req->held)
		sbx_consumed(c, req, c->taken_paid_bytes);
	send_soon(c);
}

int
sbx_enter(struct sbx_client *c)
{
	if (!is_owner(c))
		return sbx_fail(c, -SBX_EFORK, "this handle was opened by another process; open one of your own after fork()");
	if (c->taken_from)
		give_back(c);
	return 0;
}

/* ---- requests ---- */

struct sbx_inflight *
sbx_inflight_find(const struct sbx_client *c, uint64_t id)
{
	uint64_t slot = id % SBX_INFLIGHT_MAX;
	struct sbx_inflight *req = slot < c->n_slots ? c->slots[slot] : NULL;
	return req && req->id == id ? req : NULL;
}

static struct sbx_inflight *
add_inflight(struct sbx_client *c)
{
	if (c->n_inflight >= c->n_slots / 2 && c->n_slots < SBX_INFLIGHT_MAX) { /* half empty, so that a free one is near */
		uint32_t n = c->n_slots ? c->n_slots * 2 : SLOTS_FIRST;
		struct sbx_inflight **slots = realloc(c->slots, n * sizeof(struct sbx_inflight *));
		if (!slots)
			return NULL;
		memset(slots + c->n_slots, 0, (n - c->n_slots) * sizeof(struct sbx_inflight *));
		c->slots = slots;
		c->n_slots = n;
	}
	struct sbx_inflight *req = calloc(1, sizeof *req);
	if (!req)
		return NULL;
	while (c->slots[c->slot_hint % c->n_slots])
		c->slot_hint++;
	uint32_t slot = c->slot_hint % c->n_slots;
	req->id = ++c->serial * SBX_INFLIGHT_MAX + slot;
	c->slots[slot] = req;
	c->n_inflight++;
	return req;
}

void
sbx_inflight_remove(struct sbx_client *c, struct sbx_inflight *req)
{
	if (req->due != SBX_DUE_NOTHING) { /* rare: the handle's owner gave up on a request with something to tell */
		struct sbx_inflight **at = &c->due_head;
		while (*at != req)
			at = &(*at)->due_next;
		*at = req->due_next;
		if (!*at)
			c->due_tail = at;
	}
	c->slots[req->id % SBX_INFLIGHT_MAX] = NULL;
	c->n_inflight--;
	free(req->again);
	free(req);
}

void
sbx_due_add(struct sbx_client *c, struct sbx_inflight *req, enum sbx_due due)
{
	if (req->due == SBX_DUE_NOTHING) {
		req->due_next = NULL;
		*c->due_tail = req;
		c->due_tail = &req->due_next;
	}
	req->due = due; /* LOST after RESET: the end is all that matters */
}

void
sbx_consumed(struct sbx_client *c, struct sbx_inflight *req, size_t paid_bytes)
{
	struct sbx_packer p;
	req->consumed_bytes += paid_bytes;
	if (req->consumed_bytes < SBX_GRANT_BYTES || req->ended || c->link != SBX_LINK_UP)
		return;
	sbx_frame_begin(&p, &c->out, SBX_FRAME_CREDIT, req->id, 1);
	sbx_pack_uint(&p, "bytes", req->consumed_bytes);
	if (sbx_frame_end(&p) == 0) /* else it is tried again with the next piece */
		req->consumed_bytes = 0;
}

/* Options of an older program are shorter and mean what they meant; those of a newer one may be longer, but must not ask for
 * what this library does not know. */
static int
copy_options(struct sbx_client *c, void *to, size_t to_bytes, const void *from, size_t from_bytes, size_t first_version_bytes)
{
	if (from_bytes < first_version_bytes)
		return sbx_fail(c, -SBX_EINVAL, "options of %zu bytes: start from the _INIT macro, which sets their size", from_bytes);
	for (size_t i = to_bytes; i < from_bytes; i++) {
		if (((const char *)from)[i])
			return sbx_fail(c, -SBX_EINVAL, "an option that version %s of the library does not have", LIBRARY_VERSION);
	}
	memset(to, 0, to_bytes);
	memcpy(to, from, from_bytes < to_bytes ? from_bytes : to_bytes);
	return 0;
}

static int
check_options(struct sbx_client *c, const struct sbx_request_options *o)
{
	const char *const word[] = { o->operation, o->tenant, o->key_id, o->user };
	size_t key_bytes = o->idempotency_key ? strlen(o->idempotency_key) : 0;
	if ((o->route != NULL) + (o->model != NULL) + (o->n_targets > 0) > 1)
		return sbx_fail(c, -SBX_EINVAL, "give one of route, model and targets, not several");
	if (o->n_targets > 0 && !o->targets)
		return sbx_fail(c, -SBX_EINVAL, "n_targets is %zu, but targets is NULL", o->n_targets);
	if (o->n_targets > SBX_FRAME_ELEMENTS_MAX / 2)
		return sbx_fail(c, -SBX_EINVAL, "%zu targets are too many", o->n_targets);
	if (!o->body || o->body_bytes == 0)
		return sbx_fail(c, -SBX_EINVAL, "a request needs a body");
	if (o->body_bytes > SBX_BODY_IN_MAX_BYTES)
		return sbx_fail(c, -SBX_ETOOBIG, "a body of %zu bytes; at most %u", o->body_bytes, SBX_BODY_IN_MAX_BYTES);
	if (o->deadline_ms > SBX_DEADLINE_MAX_MS)
		return sbx_fail(c, -SBX_EINVAL, "a deadline of %u ms; at most %u", o->deadline_ms, SBX_DEADLINE_MAX_MS);
	if (o->as_http && o->stream)
		return sbx_fail(c, -SBX_EINVAL, "with as_http the body's own \"stream\" decides: leave the option false");
	for (size_t i = 0; i < sizeof word / sizeof word[0]; i++)
		if (word[i] && (!*word[i] || strlen(word[i]) > SBX_PRINCIPAL_MAX_BYTES))
			return sbx_fail(c, -SBX_EINVAL, "operation, tenant, key_id and user have 1 to %d bytes", SBX_PRINCIPAL_MAX_BYTES);
	if (o->idempotency_key && (key_bytes == 0 || key_bytes > SBX_IDEMPOTENCY_KEY_MAX_BYTES))
		return sbx_fail(c, -SBX_EINVAL, "an idempotency key has 1 to %d bytes", SBX_IDEMPOTENCY_KEY_MAX_BYTES);
	return 0;
}

static int
pack_submit(struct sbx_client *c, const struct sbx_inflight *req, const struct sbx_request_options *o)
{
	bool restart = o->restart || (req->gather && (o->stream || o->as_http)); /* a whole answer can always start over */
	uint32_t n_principal = (uint32_t)(o->tenant != NULL) + (o->key_id != NULL) + (o->user != NULL);
	uint32_t n_keys = 2u + (o->route || o->model || o->n_targets) + (o->data && !o->as_http) + restart + (o->idempotency_key != NULL) +
	                  (o->operation != NULL) + (n_principal != 0) + (o->deadline_ms != 0);
	struct sbx_packer p;
	(void)sbx_buf_reserve(&c->out, o->body_bytes + 1024); /* at once, not by doubling; a failure shows below */
	sbx_frame_begin(&p, &c->out, SBX_FRAME_SUBMIT, req->id, n_keys);
	if (o->route) {
		sbx_pack_str(&p, "route", sbx_span_of(o->route));
	} else if (o->model) {
		sbx_pack_str(&p, "model", sbx_span_of(o->model));
	} else if (o->n_targets) {
		sbx_pack_array(&p, "targets", (uint32_t)o->n_targets);
		for (size_t i = 0; i < o->n_targets; i++)
			sbx_pack_str(&p, NULL, sbx_span_of(o->targets[i]));
	}
	sbx_pack_bin(&p, "body", (struct sbx_span){ o->body, o->body_bytes });
	if (o->operation)
		sbx_pack_str(&p, "operation", sbx_span_of(o->operation));
	if (o->as_http)
		sbx_pack_bool(&p, "as_http", true);
	else
		sbx_pack_bool(&p, "stream", o->stream);
	if (o->data && !o->as_http)
		sbx_pack_str(&p, "reply", SBX_SPAN("data"));
	if (n_principal) {
		sbx_pack_map(&p, "principal", n_principal);
		if (o->tenant)
			sbx_pack_str(&p, "tenant", sbx_span_of(o->tenant));
		if (o->key_id)
			sbx_pack_str(&p, "key", sbx_span_of(o->key_id));
		if (o->user)
			sbx_pack_str(&p, "user", sbx_span_of(o->user));
	}
	if (restart)
		sbx_pack_bool(&p, "restart", true);
	if (o->idempotency_key)
		sbx_pack_str(&p, "idempotency_key", sbx_span_of(o->idempotency_key));
	if (o->deadline_ms) {
		sbx_pack_key(&p, "deadline_ms");
		msgpack_pack_fix_uint32(&p.pk, o->deadline_ms); /* last, and of fixed width: SBX_DEADLINE_TAIL_BYTES */
	}
	return sbx_frame_end(&p);
}

/* Any frame but SUBMIT. */
static int
pack_fields(struct sbx_client *c, enum sbx_frame_kind kind, uint64_t id, const struct sbx_field *field, size_t n)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &c->out, kind, id, (uint32_t)n);
	for (; n; n--, field++) {
		if (field->text)
			sbx_pack_str(&p, field->name, sbx_span_of(field->text));
		else
			sbx_pack_uint(&p, field->name, field->number);
	}
	return sbx_frame_end(&p);
}

/* Queues the frame that starts a request, SUBMIT (options) or another (fields), and sends what the socket takes. */
static int
start(struct sbx_client *c, enum sbx_frame_kind kind, const struct sbx_request_options *o, const struct sbx_field *field, size_t n_fields,
      struct sbx_reply *gather, struct sbx_inflight **ret_req)
{
	if (c->n_inflight >= SBX_INFLIGHT_MAX)
		return sbx_fail(c, -SBX_EBUSY, "%d requests are in flight on this handle", SBX_INFLIGHT_MAX);
	if (c->out.n - c->out_sent + (o ? o->body_bytes : 0) > SBX_UNSENT_MAX_BYTES)
		return sbx_fail(c, -SBX_EBUSY, "%zu bytes wait to be sent already", c->out.n - c->out_sent);
	if (c->link == SBX_LINK_DOWN) {
		int rc = sbx_link_connect(c);
		if (rc)
			return rc;
	}
	struct sbx_inflight *req = add_inflight(c);
	if (!req)
		return sbx_fail(c, -SBX_ENOMEM, "out of memory for a request");
	size_t frame_at = c->out.n;
	req->gather = gather;
	int rc = o ? pack_submit(c, req, o) : pack_fields(c, kind, req->id, field, n_fields);
	if (rc == 0 && o) {
		req->restart = o->restart || gather;
		req->deadline_ns = o->deadline_ms ? sbx_now_ns() + o->deadline_ms * 1000000ull : 0;
	}
	req->keyed = o && o->idempotency_key;
	if (rc == 0 && kind != SBX_FRAME_RELOAD) { /* that is never done twice */
		req->again_bytes = c->out.n - frame_at;
		req->again = malloc(req->again_bytes);
		if (req->again)
			memcpy(req->again, c->out.data + frame_at, req->again_bytes);
		else
			rc = -SBX_ENOMEM;
	}
	if (rc) {
		c->out.n = frame_at;
		sbx_inflight_remove(c, req);
		return sbx_fail(c, rc, rc == -SBX_ETOOBIG ? "the request is larger than a frame" : "out of memory for a request");
	}
	if (req->again && c->leaving) { /* not for this agent any more */
		c->out.n = frame_at;
		req->postponed = true;
	}
	send_soon(c);
	*ret_req = req;
	return 0;
}

int
sbx_submit_for(struct sbx_client *c, const struct sbx_request_options *options, struct sbx_reply *gather,
               struct sbx_inflight **ret_req)
{
	struct sbx_request_options o;
	int rc = sbx_enter(c);
	if (rc == 0)
		rc = copy_options(c, &o, sizeof o, options, options->size, offsetof(struct sbx_request_options, operation));
	if (rc == 0)
		rc = check_options(c, &o);
	return rc ? rc : start(c, SBX_FRAME_SUBMIT, &o, NULL, 0, gather, ret_req);
}

int
sbx_submit(struct sbx_client *c, const struct sbx_request_options *options, uint64_t *ret_id)
{
	struct sbx_inflight *req;
	int rc = sbx_submit_for(c, options, NULL, &req);
	if (rc == 0)
		*ret_id = req->id;
	return rc;
}

static int
ask_agent(struct sbx_client *c, enum sbx_frame_kind kind, const struct sbx_field *field, size_t n, uint64_t *ret_id)
{
	struct sbx_inflight *req;
	int rc = sbx_enter(c);
	if (rc == 0)
		rc = start(c, kind, NULL, field, n, NULL, &req);
	if (rc == 0)
		*ret_id = req->id;
	return rc;
}

int
sbx_stats(struct sbx_client *c, uint64_t *ret_id)
{
	return ask_agent(c, SBX_FRAME_STATS, NULL, 0, ret_id);
}

int
sbx_metrics(struct sbx_client *c, uint64_t from, uint64_t *ret_id)
{
	return ask_agent(c, SBX_FRAME_METRICS, &(const struct sbx_field){ "from", NULL, from }, 1, ret_id);
}

int
sbx_reload(struct sbx_client *c, uint64_t *ret_id)
{
	return ask_agent(c, SBX_FRAME_RELOAD, NULL, 0, ret_id);
}

int
sbx_report(struct sbx_client *c, const struct sbx_report_options *options, uint64_t *ret_id)
{
	struct sbx_report_options o = SBX_REPORT_INIT;
	int rc = options ? copy_options(c, &o, sizeof o, options, options->size, sizeof o) : 0;
	if (rc == 0 && o.by && (!*o.by || strlen(o.by) > REPORT_BY_MAX_BYTES))
		rc = sbx_fail(c, -SBX_EINVAL, "`by` is the name of a kind of row");
	const struct sbx_field field[] = {
		{ "by", o.by ? o.by : "target", 0 },
		{ "since_unix_ms", NULL, o.since_unix_ms },
		{ "until_unix_ms", NULL, o.until_unix_ms },
	};
	return rc ? rc : ask_agent(c, SBX_FRAME_REPORT, field, o.until_unix_ms ? 3 : 2, ret_id);
}

int
sbx_keys(struct sbx_client *c, const struct sbx_field *field, size_t n, uint64_t *ret_id)
{
	return ask_agent(c, SBX_FRAME_KEY, field, n, ret_id);
}

int
sbx_cancel(struct sbx_client *c, uint64_t id)
{
	int rc = sbx_enter(c);
	if (rc)
		return rc;
	struct sbx_inflight *req = sbx_inflight_find(c, id);
	if (!req || req->ended)
		return sbx_fail(c, -SBX_ENOENT, "request %llu has ended already", (unsigned long long)id);
	if (req->cancelled)
		return 0;
	if (req->postponed) { /* nobody has it */
		req->cancelled = req->ended = true;
		(void)snprintf(c->lost_why, sizeof c->lost_why, "cancelled before any agent had it");
		sbx_due_add(c, req, SBX_DUE_LOST);
		return 0;
	}
	struct sbx_packer p;
	sbx_frame_begin(&p, &c->out, SBX_FRAME_CANCEL, id, 0);
	rc = sbx_frame_end(&p);
	if (rc)
		return sbx_fail(c, rc, "out of memory for a cancel");
	req->cancelled = true;
	send_soon(c);
	return 0;
}

bool
sbx_leaving(const struct sbx_client *c)
{
	return c->leaving && c->fd >= 0;
}

int
sbx_hold(struct sbx_client *c, uint64_t id)
{
	int rc = sbx_enter(c);
	struct sbx_inflight *req = rc ? NULL : sbx_inflight_find(c, id);
	if (rc)
		return rc;
	if (!req)
		return sbx_fail(c, -SBX_ENOENT, "request %llu has ended already", (unsigned long long)id);
	req->held = true;
	return 0;
}

int
sbx_grant(struct sbx_client *c, uint64_t id, size_t bytes)
{
	int rc = sbx_enter(c);
	struct sbx_inflight *req = rc ? NULL : sbx_inflight_find(c, id);
	if (rc)
		return rc;
	if (!req)
		return sbx_fail(c, -SBX_ENOENT, "request %llu has ended already", (unsigned long long)id);
	sbx_consumed(c, req, bytes);
	send_soon(c);
	return 0;
}

/* ---- events ---- */

static int
end_event(struct sbx_client *c, const struct sbx_frame *frame, struct sbx_inflight *req, struct sbx_event *ev)
{
	sbx_reply_clear(c->reply);
	int rc = sbx_reply_read(c->reply, frame);
	if (rc)
		return rc;
	ev->note = frame->kind == SBX_FRAME_DONE ? SBX_NOTE_DONE : frame->kind == SBX_FRAME_ERROR ? SBX_NOTE_ERROR : SBX_NOTE_STATS;
	ev->last = true;
	ev->reply = c->reply;
	sbx_inflight_remove(c, req);
	return 1;
}

/* Puts a NUL behind a string in the receive buffer and lends it out. */
static const char *
lend(struct sbx_span text)
{
	char *at = (char *)(uintptr_t)text.at; /* the buffer is ours to write; spans are const for their readers */
	if (at)
		at[text.n] = 0;
	return at;
}

static int
piece_event(struct sbx_client *c, const struct sbx_frame *frame, struct sbx_inflight *req, struct sbx_event *ev)
{
	struct sbx_piece piece;
	int rc = sbx_piece_read(frame, &piece);
	if (rc != 1)
		return rc;
	ev->note = piece.note;
	ev->choice = piece.choice;
	ev->index = piece.index;
	ev->text_bytes = piece.text.n;
	if (piece.text.at)
		ev->text = lend(piece.text);
	ev->call_id = lend(piece.call_id);
	ev->call_name = lend(piece.call_name);
	req->began |= piece.note != SBX_NOTE_TARGET;
	c->taken_paid_bytes = piece.paid_bytes;
	return 1;
}

/* 1 it made an event; 0 it has nothing for the application; -SBX_EPROTO; -SBX_ENOMEM. */
static int
frame_event(struct sbx_client *c, const struct sbx_frame *frame, struct sbx_event *ev)
{
	struct sbx_inflight *req = sbx_inflight_find(c, frame->id);
	struct sbx_value v;
	if (frame->id == 0)
		sbx_link_on_frame(c, frame);
	if (!req)
		return 0; /* of an sbx_ask() that gave up waiting */
	*ev = (struct sbx_event){ .id = frame->id, .text = "" };
	c->taken_id = frame->id;
	c->taken_paid_bytes = 0;
	switch (frame->kind) {
	case SBX_FRAME_ACCEPTED:
		if (c->later.n == 0) /* else it counted when it was set aside */
			sbx_link_taken(req);
		if (req->accepted)
			return 0; /* submitted again by the library: told before */
		req->accepted = true;
		ev->note = SBX_NOTE_ACCEPTED;
		ev->streamed = sbx_map_get(&frame->map, "stream", &v) && v.type == SBX_BOOL && v.truth;
		return 1;
	case SBX_FRAME_EVENT:
		return piece_event(c, frame, req, ev);
	case SBX_FRAME_RESET:
		req->began = false;
		ev->note = SBX_NOTE_RESET;
		return 1;
	case SBX_FRAME_ERROR:
		if (sbx_link_turned_away(req, frame))
			return 0;
		return end_event(c, frame, req, ev);
	case SBX_FRAME_DONE:
	case SBX_FRAME_STATS:
	case SBX_FRAME_RELOADED:
	case SBX_FRAME_REPORT:
	case SBX_FRAME_KEY:
	case SBX_FRAME_METRICS:
		return end_event(c, frame, req, ev);
	default:
		return 0; /* of a later version */
	}
}

/* What the library itself has to say about the first request in the queue. */
static int
due_event(struct sbx_client *c, struct sbx_event *ev)
{
	struct sbx_inflight *req = c->due_head;
	bool lost = req->due == SBX_DUE_LOST;
	if (lost) {
		sbx_reply_clear(c->reply);
		if (sbx_reply_set_lost(c->reply, req->maybe_sent, c->lost_why) < 0)
			return sbx_fail(c, -SBX_ENOMEM, "out of memory for the end of a request");
	}
	*ev = (struct sbx_event){
		.note = lost ? SBX_NOTE_ERROR : SBX_NOTE_RESET,
		.last = lost,
		.id = req->id,
		.text = "",
		.reply = lost ? c->reply : NULL,
	};
	c->due_head = req->due_next;
	if (!c->due_head)
		c->due_tail = &c->due_head;
	req->due = SBX_DUE_NOTHING;
	if (lost)
		sbx_inflight_remove(c, req);
	return 1;
}

/* The next event without waiting: 1, 0 there is none, -SBX_ENOMEM. */
static int
try_next(struct sbx_client *c, struct sbx_event *ev)
{
	for (;;) {
		char why[160];
		struct sbx_frame frame;
		struct sbx_buf *from = c->later.n ? &c->later : &c->in;
		if (from == &c->in && c->due_head)
			return due_event(c, ev);
		int64_t size = sbx_frame_size(from->data, from->n, SBX_FRAME_MAX_BYTES);
		if (size == 0)
			return 0;
		if (size < 0) {
			sbx_link_lost(c, -SBX_EPROTO, "the agent sent a frame of an impossible length");
			continue;
		}
		int rc = sbx_frame_check(from->data + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES, &frame, why, sizeof why);
		size_t behind = (size_t)size;
		uint8_t byte_behind = from->data[behind]; /* before an event's NUL may fall on it */
		if (rc == 0) {
			rc = frame_event(c, &frame, ev);
			if (rc == -SBX_EPROTO)
				(void)snprintf(why, sizeof why, "the agent sent a frame of kind %u with a member of a wrong type", frame.kind);
		}
		if (rc == -SBX_ENOMEM)
			return sbx_fail(c, rc, "out of memory for an event");
		c->taken_from = from;
		c->taken_bytes = behind;
		c->taken_byte = byte_behind;
		if (rc == 1)
			return 1;
		c->taken_paid_bytes = 0;
		give_back(c); /* nothing to lend */
		if (rc < 0)
			sbx_link_lost(c, -SBX_EPROTO, why);
	}
}

int
sbx_next(struct sbx_client *c, int timeout_ms, struct sbx_event *ret_event)
{
	struct sbx_event ev;
	uint64_t until_ns = timeout_ms < 0 ? UINT64_MAX : 0;
	int rc = sbx_enter(c);
	if (rc)
		return rc;
	for (bool waited = false;; waited = true) {
		rc = try_next(c, &ev);
		if (rc == 1) {
			*ret_event = ev;
			return 0;
		}
		if (rc < 0)
			return rc;
		if (c->n_inflight == 0 && c->fd < 0)
			return sbx_fail(c, -SBX_EAGENT, "no request is in flight, and the connection is gone: %s", c->lost_why);
		if (c->n_inflight == 0)
			return sbx_fail(c, -SBX_ENOENT, "no request is in flight");
		if (timeout_ms == 0 && waited)
			break;
		if (timeout_ms > 0 && until_ns == 0)
			until_ns = sbx_now_ns() + (uint64_t)timeout_ms * 1000000;
		rc = sbx_link_wait(c, until_ns);
		if (rc == -SBX_ETIME)
			break;
		if (rc < 0)
			return rc;
	}
	return sbx_fail(c, -SBX_ETIME, "no event within %d ms", timeout_ms);
}

/* ---- for an event loop of the application ---- */

int
sbx_fd(const struct sbx_client *c)
{
	return is_owner(c) ? c->fd : -1;
}

short
sbx_events(const struct sbx_client *c)
{
	if (!is_owner(c) || c->fd < 0)
		return 0;
	bool write = c->link == SBX_LINK_UP && c->out_sent < c->out.n;
	return (short)((sbx_link_can_read(c) ? POLLIN : 0) | (write ? POLLOUT : 0));
}

int
sbx_timeout_ms(const struct sbx_client *c)
{
	if (!is_owner(c))
		return -1;
	size_t later_loan = c->taken_from == &c->later ? c->taken_bytes : 0;
	if (c->later.n > later_loan || c->due_head || sbx_frame_waits(c))
		return 0;
	uint64_t due_ns = sbx_link_due_ns(c);
	if (due_ns == UINT64_MAX)
		return -1;
	uint64_t now_ns = sbx_now_ns();
	return due_ns <= now_ns ? 0 : (int)((due_ns - now_ns + 999999) / 1000000);
}

void
sbx_cork(struct sbx_client *c, bool on)
{
	c->corked = on;
}

int
sbx_process(struct sbx_client *c, short revents)
{
	int rc = sbx_enter(c);
	if (rc)
		return rc;
	sbx_link_tick(c);
	sbx_link_flush(c);
	while (rc >= 0 && (revents & ~POLLOUT) && sbx_link_can_read(c)) {
		rc = sbx_link_read(c);
		if (rc == 0 || c->drained)
			break;
	}
	if (rc < 0)
		return rc;
	if (c->n_inflight == 0 && c->fd < 0)
		return sbx_fail(c, -SBX_EAGENT, "no request is in flight, and the connection is gone: %s", c->lost_why);
	return 0;
}

/* ---- the board ---- */

int
sbx_board(struct sbx_client *c, struct sbx_board **ret_board)
{
	int rc = sbx_enter(c);
	if (rc)
		return rc;
	/* A newer one may lie in the socket. */
	while (c->fd >= 0 && (!c->board || sbx_board_life(c->board, 0) == SBX_LIFE_REPLACED) && sbx_link_can_read(c)) {
		rc = sbx_link_read(c);
		if (rc < 0)
			return rc;
		if (rc == 0)
			break;
	}
	if (!c->board)
		return sbx_fail(c, c->board_rc ? c->board_rc : -SBX_ENOBOARD, "no board: %s",
		                c->board_why[0] ? c->board_why : "the agent sent none; sbx_stats() asks for the same facts");
	*ret_board = sbx_board_get(c->board);
	return 0;
}

/* ---- open and close ---- */

static int
set_up(struct sbx_client *c, const struct sbx_open_options *options, bool *ret_later)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	int rc = options ? copy_options(c, &o, sizeof o, options, options->size, sizeof o) : 0;
	if (rc)
		return rc;
	*ret_later = o.timeout_ms == SBX_OPEN_LATER;
	c->timeout_ms = o.timeout_ms && !*ret_later ? o.timeout_ms : TIMEOUT_DEFAULT_MS;
	const char *name = o.name ? o.name : program_invocation_short_name;
	size_t n = strnlen(name, SBX_CLIENT_NAME_MAX_BYTES);
	while (n > 0 && ((uint8_t)name[n] & 0xc0) == 0x80)
		n--; /* cut between characters */
	memcpy(c->name, name, n);
	return sbx_link_find(c, o.socket);
}

static void
note_owner(struct sbx_client *c)
{
	c->owner_pid = getpid();
	void *page = mmap(NULL, OWNER_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return;
	if (madvise(page, OWNER_PAGE_BYTES, MADV_WIPEONFORK) < 0) { /* before Linux 4.14, and in some sandboxes */
		(void)munmap(page, OWNER_PAGE_BYTES);
		return;
	}
	c->owner_page = page;
	c->owner_page[0] = 1;
}

static int
connect_and_greet(struct sbx_client *c)
{
	uint64_t until_ns = sbx_now_ns() + c->timeout_ms * 1000000ull;
	int rc;
	do {
		while ((rc = sbx_link_connect(c)) == -SBX_EBUSY && sbx_now_ns() < until_ns)
			(void)poll(NULL, 0, BACKLOG_WAIT_MS);
		if (rc)
			return rc;
		while (c->link == SBX_LINK_GREETING) {
			rc = sbx_link_wait(c, UINT64_MAX); /* ends by greet_by_ns */
			if (rc < 0)
				return rc;
		}
		/* An agent on its way out: the same path leads to its successor. */
	} while (c->link == SBX_LINK_DOWN && c->leaving && sbx_now_ns() < until_ns && poll(NULL, 0, BACKLOG_WAIT_MS) <= 0);
	return c->link == SBX_LINK_UP ? 0 : sbx_fail(c, c->lost_rc, "%s: %s", c->address.sun_path, c->lost_why);
}

int
sbx_open(const struct sbx_open_options *options, struct sbx_client **ret_client)
{
	struct sbx_client *c = calloc(1, sizeof *c);
	*ret_client = NULL;
	if (!c)
		return -SBX_ENOMEM;
	c->fd = -1;
	c->due_tail = &c->due_head;
	sbx_buf_init(&c->in, SBX_FRAME_HEAD_BYTES + SBX_FRAME_MAX_BYTES + 2 * SBX_READ_BYTES);
	sbx_buf_init(&c->later, SBX_LATER_MAX_BYTES);
	sbx_buf_init(&c->out, SBX_UNSENT_MAX_BYTES + 2 * SBX_FRAME_MAX_BYTES); /* start() has the limit; a frame half sent, grants */
	c->reply = sbx_reply_new(/* gathers */ false);
	if (!c->reply) {
		free(c);
		return -SBX_ENOMEM;
	}
	note_owner(c);
	bool later = false;
	int rc = set_up(c, options, &later);
	if (rc == 0 && !later)
		rc = connect_and_greet(c);
	*ret_client = c;
	return rc;
}

void
sbx_close(struct sbx_client *c)
{
	if (!c)
		return;
	if (c->fd >= 0 && is_owner(c))
		(void)shutdown(c->fd, SHUT_RDWR); /* a forked child may hold a copy of the descriptor */
	sbx_link_close(c);
	for (uint32_t i = 0; i < c->n_slots; i++) {
		if (c->slots[i]) {
			free(c->slots[i]->again);
			free(c->slots[i]);
		}
	}
	free(c->slots);
	sbx_buf_fini(&c->in);
	sbx_buf_fini(&c->later);
	sbx_buf_fini(&c->out);
	sbx_reply_free(c->reply);
	sbx_board_close(c->board);
	if (c->owner_page)
		(void)munmap(c->owner_page, OWNER_PAGE_BYTES);
	free(c);
}
