/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ask.c -- the one call: sbx_ask() submits, gathers, and returns the whole answer.
 *
 * While it waits it is the only reader of the connection. Frames of its own request go into the reply and are consumed at once
 * (credit included); those of other requests are set aside for sbx_next(), which is why that takes `later` first.
 */
#include "client/client.h"

#include <stdio.h>
#include <string.h>

#define AGENT_GRACE_NS 1000000000ull /* beyond the request's own deadline, for the agent's answer that it passed */

/* One frame of a request that is being gathered: 0 or -SBX_EPROTO. Other failures are its sbx_ask()'s alone: gather_rc. */
static int
gather(struct sbx_client *c, struct sbx_inflight *req, const struct sbx_frame *frame)
{
	struct sbx_piece piece;
	int rc = 0;
	switch (frame->kind) {
	case SBX_FRAME_EVENT:
		rc = sbx_piece_read(frame, &piece);
		if (rc != 1)
			break;
		req->began |= piece.note != SBX_NOTE_TARGET;
		rc = sbx_reply_gather(req->gather, &piece);
		sbx_consumed(c, req, piece.paid_bytes);
		break;
	case SBX_FRAME_RESET:
		req->began = false;
		sbx_reply_drop(req->gather);
		break;
	case SBX_FRAME_ACCEPTED:
		sbx_link_taken(req);
		break;
	case SBX_FRAME_DONE:
	case SBX_FRAME_ERROR:
		if (sbx_link_turned_away(req, frame))
			break;
		rc = sbx_reply_read(req->gather, frame);
		req->ended = rc == 0;
		break;
	default:
		break;
	}
	if (rc < 0 && rc != -SBX_EPROTO)
		req->gather_rc = rc;
	return rc == -SBX_EPROTO ? rc : 0;
}

static int
set_aside(struct sbx_client *c, struct sbx_inflight *req, const struct sbx_frame *frame, size_t frame_bytes)
{
	if (sbx_link_turned_away(req, frame))
		return 0;
	if (frame_bytes + 1 > c->later.max_bytes - c->later.n)
		return -SBX_EBUSY;
	uint8_t *room = sbx_buf_reserve(&c->later, frame_bytes + 1); /* one more, for the NUL behind a string */
	if (!room)
		return -SBX_ENOMEM;
	memcpy(room, c->in.data, frame_bytes);
	sbx_buf_commit(&c->later, frame_bytes);
	struct sbx_piece piece;
	switch (frame->kind) {
	case SBX_FRAME_EVENT:
		req->began |= sbx_piece_read(frame, &piece) == 1 && piece.note != SBX_NOTE_TARGET;
		break;
	case SBX_FRAME_ACCEPTED:
		sbx_link_taken(req);
		break;
	case SBX_FRAME_RESET:
		req->began = false;
		break;
	case SBX_FRAME_DONE:
	case SBX_FRAME_ERROR:
	case SBX_FRAME_STATS:
	case SBX_FRAME_RELOADED:
	case SBX_FRAME_REPORT:
	case SBX_FRAME_KEY:
	case SBX_FRAME_METRICS:
		req->ended = true;
		break;
	default:
		break;
	}
	return 0;
}

int
sbx_sort_frames(struct sbx_client *c, char *why, size_t why_bytes)
{
	for (;;) {
		struct sbx_frame frame;
		int64_t size = sbx_frame_size(c->in.data, c->in.n, SBX_FRAME_MAX_BYTES);
		if (size == 0)
			return 0;
		if (size < 0) {
			(void)snprintf(why, why_bytes, "the agent sent a frame of an impossible length");
			return -SBX_EPROTO;
		}
		int rc = sbx_frame_check(c->in.data + SBX_FRAME_HEAD_BYTES, (size_t)size - SBX_FRAME_HEAD_BYTES, &frame, why, why_bytes);
		if (rc)
			return rc;
		struct sbx_inflight *req = sbx_inflight_find(c, frame.id);
		if (frame.id == 0)
			sbx_link_on_frame(c, &frame);
		else if (req && req->gather)
			rc = gather(c, req, &frame);
		else if (req)
			rc = set_aside(c, req, &frame, (size_t)size);
		if (rc == -SBX_EPROTO)
			(void)snprintf(why, why_bytes, "the agent sent a frame of kind %u with a member of a wrong type", frame.kind);
		if (rc)
			return rc;
		sbx_buf_consume(&c->in, (size_t)size);
	}
}

/* Waits until the request has ended: 0, or why it cannot. */
static int
wait_for(struct sbx_client *c, struct sbx_inflight *req, uint64_t until_ns)
{
	for (;;) {
		char why[160];
		int rc = sbx_sort_frames(c, why, sizeof why);
		if (rc == -SBX_EPROTO)
			sbx_link_lost(c, rc, why);
		else if (rc == -SBX_EBUSY)
			return sbx_fail(c, rc, "more than %u MiB of other requests' events wait; take them by sbx_next() first",
			                SBX_LATER_MAX_BYTES >> 20);
		else if (rc)
			return sbx_fail(c, rc, "out of memory for an answer");
		sbx_link_flush(c); /* grants */
		if (req->gather_rc == -SBX_ETOOBIG)
			return sbx_fail(c, req->gather_rc, "the answer is larger than %u MiB", SBX_REPLY_TEXT_MAX_BYTES >> 20);
		if (req->gather_rc)
			return sbx_fail(c, req->gather_rc, "out of memory for an answer");
		if (req->ended)
			return 0;
		rc = sbx_link_wait(c, until_ns);
		if (rc == -SBX_ETIME)
			return sbx_fail(c, rc, "no answer within the request's deadline");
		if (rc)
			return rc;
	}
}

static void
abandon(struct sbx_client *c, struct sbx_inflight *req)
{
	struct sbx_packer p;
	if (!req->ended) {
		sbx_frame_begin(&p, &c->out, SBX_FRAME_CANCEL, req->id, 0);
		(void)sbx_frame_end(&p); /* no memory for it: the request's own deadline stops it */
		req->cancelled = true;
		sbx_link_flush(c);
	}
	sbx_inflight_remove(c, req); /* what still comes for it is of an unknown id, and dropped */
}

int
sbx_ask(struct sbx_client *c, const struct sbx_request_options *options, struct sbx_reply **ret_reply)
{
	struct sbx_inflight *req;
	struct sbx_reply *reply = sbx_reply_new(/* gathers */ true);
	if (!reply)
		return sbx_fail(c, -SBX_ENOMEM, "out of memory for an answer");
	int rc = sbx_submit_for(c, options, reply, &req);
	if (rc == 0) {
		uint64_t limit_ms = options->deadline_ms ? options->deadline_ms : SBX_DEADLINE_DEFAULT_MS;
		rc = wait_for(c, req, sbx_now_ns() + limit_ms * 1000000 + AGENT_GRACE_NS);
		abandon(c, req);
	}
	if (rc) {
		sbx_reply_free(reply);
		return rc;
	}
	*ret_reply = reply;
	if (sbx_reply_ok(reply))
		return 0;
	return sbx_fail(c, -SBX_EFAILED, "%s: %s", sbx_reply_code_word(reply), sbx_reply_message(reply));
}
