/* SPDX-License-Identifier: Apache-2.0 */
/* outbox.c -- see outbox.h. */
#include "agent/io/outbox.h"

#include <assert.h>
#include <string.h>

struct record {
	uint32_t frame_bytes, payload_bytes;
};

void
sbx_outbox_init(struct sbx_outbox *o, struct sbx_agent *agent, struct sbx_stream *stream, uint64_t id)
{
	memset(o, 0, sizeof *o);
	o->agent = agent;
	o->stream = stream;
	o->id = id;
	o->credit_bytes = SBX_CREDIT_BYTES;
	sbx_buf_init(&o->queue, SBX_OUTBOX_MAX_BYTES);
}

void
sbx_outbox_fini(struct sbx_outbox *o)
{
	sbx_buf_fini(&o->queue);
}

bool
sbx_outbox_waiting(const struct sbx_outbox *o)
{
	return o->queue.n > 0;
}

static bool
may_send(const struct sbx_outbox *o, uint32_t payload_bytes)
{
	return payload_bytes == 0 || (payload_bytes <= o->credit_bytes && sbx_stream_unsent_bytes(o->stream) < SBX_SESSION_HIGH_BYTES);
}

static void
send_frame(struct sbx_outbox *o, const void *frame, size_t bytes, uint32_t payload_bytes)
{
	o->credit_bytes -= payload_bytes;
	(void)sbx_stream_send(o->stream, frame, bytes, -1); /* what it cannot take ends it, and with it the session */
}

void
sbx_outbox_flush(struct sbx_outbox *o)
{
	if (!o->open || !o->stream)
		return;
	while (o->queue.n) {
		struct record rec;
		memcpy(&rec, o->queue.data, sizeof rec);
		if (!may_send(o, rec.payload_bytes))
			return;
		send_frame(o, o->queue.data + sizeof rec, rec.frame_bytes, rec.payload_bytes);
		sbx_buf_consume(&o->queue, sizeof rec + rec.frame_bytes);
	}
	sbx_buf_trim(&o->queue, 0);
}

/* The frame that stands in agent->frame goes out, or waits. 0, or -SBX_ENOMEM: there is none, or no room for it to wait. */
static int
put_frame(struct sbx_outbox *o, uint32_t payload_bytes)
{
	struct sbx_buf *f = &o->agent->frame;
	int rc = f->n ? 0 : -SBX_ENOMEM;
	if (o->stream && o->open && !o->queue.n && may_send(o, payload_bytes)) {
		send_frame(o, f->data, f->n, payload_bytes);
	} else if (o->stream && f->n) {
		struct record rec = { (uint32_t)f->n, payload_bytes };
		uint8_t *room = sbx_buf_reserve(&o->queue, sizeof rec + f->n);
		if (room) {
			memcpy(room, &rec, sizeof rec);
			memcpy(room + sizeof rec, f->data, f->n);
			sbx_buf_commit(&o->queue, sizeof rec + f->n);
		} else {
			rc = -SBX_ENOMEM;
		}
	}
	sbx_buf_clear(f);
	return rc;
}

int
sbx_outbox_last(struct sbx_outbox *o)
{
	assert(!o->last_queued);
	int rc = put_frame(o, 0);
	if (rc)
		return rc;
	o->last_queued = true;
	sbx_outbox_open(o);
	return 0;
}

void
sbx_outbox_now(struct sbx_outbox *o)
{
	if (o->stream)
		send_frame(o, o->agent->frame.data, o->agent->frame.n, 0);
	sbx_buf_clear(&o->agent->frame);
}

void
sbx_outbox_open(struct sbx_outbox *o)
{
	o->open = true;
	sbx_outbox_flush(o);
}

void
sbx_outbox_drop(struct sbx_outbox *o)
{
	sbx_buf_fini(&o->queue);
	o->open = o->last_queued = false;
}

void
sbx_outbox_grant(struct sbx_outbox *o, uint64_t bytes)
{
	uint64_t room = SBX_CREDIT_MAX_BYTES - o->credit_bytes;
	o->credit_bytes += bytes < room ? bytes : room;
	sbx_outbox_flush(o);
}

/* ---- EVENT frames ---- */

static void
begin(struct sbx_outbox *o, struct sbx_packer *p, enum sbx_event_type type, uint32_t choice, uint32_t n_keys)
{
	assert(!o->last_queued);
	o->agent->count.events++;
	sbx_frame_begin(p, &o->agent->frame, SBX_FRAME_EVENT, o->id, 1 + (choice ? 1u : 0u) + n_keys);
	sbx_pack_uint(p, "type", type);
	if (choice)
		sbx_pack_uint(p, "choice", choice);
}

static void
end(struct sbx_outbox *o, struct sbx_packer *p, size_t payload_bytes)
{
	if (sbx_frame_end(p) || put_frame(o, (uint32_t)payload_bytes))
		o->failed = true;
}

/* The first piece of text: at most so many bytes, and not ending inside a character. */
static struct sbx_span
cut_text(struct sbx_span *text, size_t max_bytes)
{
	size_t n = text->n;
	if (n > max_bytes) {
		n = max_bytes;
		while (n > max_bytes - 4 && ((unsigned char)text->at[n] & 0xc0) == 0x80)
			n--;
	}
	struct sbx_span piece = { text->at, n };
	text->at += n;
	text->n -= n;
	return piece;
}

static void
put_text(struct sbx_outbox *o, enum sbx_event_type type, const struct sbx_hub_event *ev)
{
	struct sbx_span rest = ev->text;
	while (rest.n) {
		struct sbx_packer p;
		struct sbx_span piece = cut_text(&rest, SBX_EVENT_MAX_BYTES);
		begin(o, &p, type, ev->choice, 1);
		sbx_pack_str(&p, "text", piece);
		end(o, &p, piece.n);
	}
}

static void
put_tool_call(struct sbx_outbox *o, const struct sbx_hub_event *ev)
{
	struct sbx_span rest = ev->text, id = ev->id, name = ev->name;
	assert(id.n + name.n <= SBX_CALL_NAMES_MAX_BYTES);
	do {
		struct sbx_packer p;
		struct sbx_span piece = cut_text(&rest, SBX_EVENT_MAX_BYTES - id.n - name.n);
		begin(o, &p, SBX_EVENT_TOOL_CALL, ev->choice, 1 + (id.n ? 1u : 0u) + (name.n ? 1u : 0u) + (piece.n ? 1u : 0u));
		sbx_pack_uint(&p, "index", ev->index);
		if (id.n)
			sbx_pack_str(&p, "id", id);
		if (name.n)
			sbx_pack_str(&p, "name", name);
		if (piece.n)
			sbx_pack_str(&p, "arguments", piece);
		end(o, &p, id.n + name.n + piece.n);
		id.n = name.n = 0;
	} while (rest.n);
}

static void
put_finish(struct sbx_outbox *o, const struct sbx_hub_event *ev)
{
	struct sbx_packer p;
	const char *word = sbx_finish_word(ev->finish);
	bool raw = ev->finish_raw.n && ev->finish_raw.n <= 64 && !sbx_span_is(ev->finish_raw, word ? word : "");
	begin(o, &p, SBX_EVENT_FINISH, ev->choice, raw ? 2 : 1);
	sbx_pack_str(&p, "finish", sbx_span_of(word));
	if (raw)
		sbx_pack_str(&p, "finish_raw", ev->finish_raw);
	end(o, &p, 0);
}

void
sbx_outbox_event(struct sbx_outbox *o, const struct sbx_hub_event *ev)
{
	switch (ev->kind) {
	case SBX_HUB_TEXT:
		put_text(o, SBX_EVENT_TEXT, ev);
		break;
	case SBX_HUB_REASONING:
		put_text(o, SBX_EVENT_REASONING, ev);
		break;
	case SBX_HUB_REFUSAL:
		put_text(o, SBX_EVENT_REFUSAL, ev);
		break;
	case SBX_HUB_TOOL_CALL:
		put_tool_call(o, ev);
		break;
	case SBX_HUB_FINISH:
		put_finish(o, ev);
		break;
	case SBX_HUB_VECTOR: /* asked for as data alone */
	case SBX_HUB_DETAIL: /* for clients of a dialect that has it, as data */
	case SBX_HUB_LIFECYCLE:
	case SBX_HUB_USAGE:
	case SBX_HUB_ERROR:
	case SBX_HUB_COMPLETE:
	case SBX_HUB_END:
	case SBX_HUB_WIRE:
		break;
	}
}

void
sbx_outbox_target(struct sbx_outbox *o, const char *target, uint8_t attempt)
{
	struct sbx_packer p;
	begin(o, &p, SBX_EVENT_TARGET, 0, 2);
	sbx_pack_str(&p, "target", sbx_span_of(target));
	sbx_pack_uint(&p, "attempt", attempt);
	if (sbx_frame_end(&p))
		o->failed = true;
	else
		sbx_outbox_now(o);
}

void
sbx_outbox_data(struct sbx_outbox *o, struct sbx_span prefix, struct sbx_span payload, struct sbx_span suffix)
{
	struct sbx_span part[3] = { prefix, payload, suffix };
	size_t left = prefix.n + payload.n + suffix.n;
	uint32_t at = 0;
	while (left) {
		struct sbx_packer p;
		size_t piece = left < SBX_EVENT_MAX_BYTES ? left : SBX_EVENT_MAX_BYTES;
		begin(o, &p, SBX_EVENT_DATA, 0, 1);
		sbx_pack_key(&p, "data");
		msgpack_pack_bin(&p.pk, piece);
		for (size_t todo = piece; todo;) {
			size_t n = part[at].n < todo ? part[at].n : todo;
			if (n)
				msgpack_pack_bin_body(&p.pk, part[at].at, n);
			part[at].at += n;
			part[at].n -= n;
			todo -= n;
			if (!part[at].n && at < 2)
				at++;
		}
		end(o, &p, piece);
		left -= piece;
	}
}
