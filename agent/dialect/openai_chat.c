/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat.c -- see openai_chat.h: the dialect's row, and the outside of its decoder.
 *
 * The form of an answer is decided by what arrives, not by its Content-Type, which lies in both directions: an answer with
 * an error status is an error body; else, where a stream was asked for, the first byte that is no white space tells (an
 * event stream cannot begin with '{', '[' or '<'); else it is a whole body.
 */
#include "agent/dialect/openai_chat.h"

#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/provider_error.h"
#include "agent/dialect/sse.h"

enum form {
	FORM_UNDECIDED,  /* a stream was asked for, and nothing but white space came yet */
	FORM_STREAM,
	FORM_BODY,
	FORM_ERROR_BODY, /* error status: only its beginning is kept */
	FORM_OVER,       /* END or ERROR was emitted */
};

struct sbx_decoder {
	struct sbx_decode_opts opts;
	struct sbx_json_scratch *scratch; /* the caller's */
	struct sbx_answer answer;
	struct sbx_sse sse;
	struct sbx_buf body;    /* of BODY and ERROR_BODY */
	enum form form;
	int status;             /* 200 for every success */
	uint32_t n_malformed;
	bool any_event;         /* of a stream: an event or a comment came */
};

static void
emit(struct sbx_decoder *d, const struct sbx_hub_event *ev)
{
	d->answer.emit(d->answer.arg, ev);
}

static void
emit_kind(struct sbx_decoder *d, enum sbx_hub_kind kind)
{
	emit(d, &(struct sbx_hub_event){.kind = kind});
}

static void
emit_wire(struct sbx_decoder *d, struct sbx_span payload, unsigned flags)
{
	emit(d, &(struct sbx_hub_event){.kind = SBX_HUB_WIRE, .text = payload, .flags = flags});
}

static void
fail(struct sbx_decoder *d, enum sbx_error_kind kind, const char *message)
{
	struct sbx_provider_error error;
	sbx_provider_error_set(&error, kind, d->status, message);
	d->form = FORM_OVER;
	sbx_answer_fail(&d->answer, &error);
}

static void
fail_memory(struct sbx_decoder *d, int rc, const char *what)
{
	fail(d, SBX_KIND_TOO_BIG, rc == -SBX_ENOMEM ? "out of memory" : what);
}

/* The answer is whole by its content, unless some of it was lost on the way. */
static void
on_complete(struct sbx_decoder *d)
{
	if (d->answer.lost) {
		fail(d, SBX_KIND_LOSSY, "an event that may have held content could not be read");
		return;
	}
	d->answer.complete = true;
	emit_kind(d, SBX_HUB_COMPLETE);
}

/* ==== streams ==== */

static void
on_done(struct sbx_decoder *d, struct sbx_span payload)
{
	const struct sbx_answer *a = &d->answer;
	bool finished = a->n_seen > 0 && a->n_finished == a->n_seen;
	if (!a->complete && (finished || (d->opts.quirks.no_finish && a->usage_seen)))
		on_complete(d);
	if (d->form == FORM_OVER)
		return;
	d->form = FORM_OVER;
	emit_wire(d, payload, SBX_WIRE_END);
	emit_kind(d, SBX_HUB_END);
}

/* An event that does not parse. Content needs a string, and a string a quote: without one nothing was lost. */
static void
on_malformed(struct sbx_decoder *d, struct sbx_span payload)
{
	d->n_malformed++;
	if (!d->answer.complete && memchr(payload.at, '"', payload.n))
		d->answer.lost = true;
	emit_wire(d, payload, SBX_WIRE_MALFORMED);
}

static struct sbx_span
trim(struct sbx_span s)
{
	while (s.n && (s.at[0] == ' ' || s.at[0] == '\t' || s.at[0] == '\r' || s.at[0] == '\n'))
		s = (struct sbx_span){s.at + 1, s.n - 1};
	while (s.n && (s.at[s.n - 1] == ' ' || s.at[s.n - 1] == '\t' || s.at[s.n - 1] == '\r' || s.at[s.n - 1] == '\n'))
		s.n--;
	return s;
}

/* cut: the stream ended without ending this event; it counts only if it is whole. */
static void
on_event(struct sbx_decoder *d, const struct sbx_sse_event *ev, bool cut)
{
	struct sbx_answer *a = &d->answer;
	struct sbx_span payload = trim(ev->data);
	struct sbx_answer_step step;

	d->any_event = true;
	if (ev->comment || payload.n == 0) {
		if (!cut)
			emit_kind(d, SBX_HUB_LIFECYCLE);
		return;
	}
	if (sbx_span_is(payload, "[DONE]")) {
		on_done(d, payload);
		return;
	}
	if (sbx_json_check(payload.at, payload.n, d->scratch, NULL)) {
		if (!cut)
			on_malformed(d, payload);
		return;
	}
	sbx_answer_read(a, sbx_json_root(payload.at, payload.n), SBX_ANSWER_CHUNK, sbx_span_is(ev->type, "error"), &step);
	if (a->failed) {
		d->form = FORM_OVER;
		return;
	}
	if (step.skip) {
		d->n_malformed++;
		return;
	}
	if (!step.meant)
		emit_kind(d, SBX_HUB_LIFECYCLE);
	if (!a->complete && a->n_finished > 0 && a->n_finished == a->n_seen && a->n_finished >= d->opts.choices)
		on_complete(d);
	if (d->form != FORM_OVER)
		emit_wire(d, payload,
			  (step.content ? SBX_WIRE_CONTENT : 0u) | (step.only_usage && d->opts.drop_usage ? SBX_WIRE_UNASKED : 0u));
}

static void
feed_stream(struct sbx_decoder *d, const char *bytes, size_t n)
{
	struct sbx_sse_event ev;
	int rc = 1;
	sbx_sse_feed(&d->sse, bytes, n);
	while (d->form == FORM_STREAM && (rc = sbx_sse_next(&d->sse, &ev)) > 0)
		on_event(d, &ev, false);
	if (rc < 0)
		fail_memory(d, rc, "a line or event of the stream is above its limit");
}

static void
end_stream(struct sbx_decoder *d)
{
	struct sbx_sse_event ev;
	int rc = sbx_sse_end(&d->sse, &ev);
	if (rc > 0)
		on_event(d, &ev, true);
	else if (rc < 0)
		fail_memory(d, rc, "a line or event of the stream is above its limit");
	if (d->form == FORM_STREAM && !d->any_event)
		fail(d, SBX_KIND_JUNK, "the answer holds no event");
}

/* ==== whole bodies ==== */

static void
read_error_body(struct sbx_decoder *d)
{
	struct sbx_provider_error error;
	sbx_provider_error_read(d->status, (struct sbx_span){(const char *)d->body.data, d->body.n}, d->scratch, &error);
	d->form = FORM_OVER;
	sbx_answer_fail(&d->answer, &error);
}

static void
read_body(struct sbx_decoder *d)
{
	struct sbx_span text = trim((struct sbx_span){(const char *)d->body.data, d->body.n});
	struct sbx_answer_step step;

	if (text.n >= 3 && memcmp(text.at, "\xef\xbb\xbf", 3) == 0)
		text = trim((struct sbx_span){text.at + 3, text.n - 3});
	if (text.n == 0 || sbx_json_check(text.at, text.n, d->scratch, NULL)) {
		read_error_body(d);
		return;
	}
	struct sbx_span root = sbx_json_root(text.at, text.n), choices;
	if (d->opts.stream_only && d->opts.stream && sbx_json_get(root, sbx_openai_ops[d->opts.op].holds, &choices)) {
		d->form = FORM_OVER;
		fail(d, SBX_KIND_JUNK, "a whole answer where a stream was asked for");
		return;
	}
	sbx_answer_read(&d->answer, root, SBX_ANSWER_BODY, false, &step);
	if (d->answer.failed) {
		d->form = FORM_OVER;
		return;
	}
	if (!step.has_choices) { /* an error in a shape of its own, or something else altogether */
		read_error_body(d);
		return;
	}
	on_complete(d);
	if (d->form == FORM_OVER)
		return;
	d->form = FORM_OVER;
	emit_wire(d, text, SBX_WIRE_WHOLE | (step.content ? SBX_WIRE_CONTENT : 0u));
	emit_kind(d, SBX_HUB_END);
}

static void
feed_body(struct sbx_decoder *d, const char *bytes, size_t n)
{
	if (d->form == FORM_ERROR_BODY && n > SBX_ERROR_BODY_MAX_BYTES - d->body.n)
		n = SBX_ERROR_BODY_MAX_BYTES - d->body.n;
	int rc = sbx_buf_append(&d->body, bytes, n);
	if (rc)
		fail_memory(d, rc, "the answer is above its limit");
}

/* ==== the row ==== */

void
sbx_openai_chat_decoder_free(struct sbx_decoder *d)
{
	if (!d)
		return;
	sbx_answer_fini(&d->answer);
	sbx_sse_fini(&d->sse);
	sbx_buf_fini(&d->body);
	free(d);
}

struct sbx_decoder *
sbx_openai_chat_decoder_new(const struct sbx_decode_opts *opts, struct sbx_json_scratch *scratch, sbx_hub_fn *emit_fn, void *arg)
{
	struct sbx_decoder *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	d->opts = *opts;
	d->scratch = scratch;
	d->status = 200;
	d->form = opts->stream ? FORM_UNDECIDED : FORM_BODY;
	sbx_answer_init(&d->answer, &d->opts, emit_fn, arg);
	sbx_sse_init(&d->sse);
	sbx_buf_init(&d->body, SBX_BODY_MAX_BYTES);
	return d;
}

void
sbx_openai_chat_decoder_head(struct sbx_decoder *d, int status, const char *content_type)
{
	(void)content_type; /* see the head of this file */
	if (status >= 200 && status < 300)
		return;
	d->status = status;
	d->form = FORM_ERROR_BODY;
}

void
sbx_openai_chat_decoder_feed(struct sbx_decoder *d, const char *bytes, size_t n)
{
	if (d->form == FORM_UNDECIDED) {
		while (n > 0 && memchr(" \t\r\n\xef\xbb\xbf", *bytes, 7)) { /* the last three: a byte order mark */
			bytes++;
			n--;
		}
		if (n == 0)
			return;
		d->form = memchr("{[<", *bytes, 3) ? FORM_BODY : FORM_STREAM;
	}
	if (d->form == FORM_STREAM)
		feed_stream(d, bytes, n);
	else if (d->form != FORM_OVER)
		feed_body(d, bytes, n);
}

void
sbx_openai_chat_decoder_end(struct sbx_decoder *d)
{
	switch (d->form) {
	case FORM_STREAM: end_stream(d); break;
	case FORM_UNDECIDED:
	case FORM_BODY: read_body(d); break;
	case FORM_ERROR_BODY: read_error_body(d); break;
	case FORM_OVER: break;
	}
	sbx_buf_fini(&d->body);
}

uint32_t
sbx_openai_chat_decoder_malformed(const struct sbx_decoder *d)
{
	return d->n_malformed;
}

const struct sbx_dialect sbx_dialect_openai_chat = {
	.name = "openai-chat",
	.path = {
		[SBX_OP_CHAT] = "/chat/completions",
		[SBX_OP_COMPLETIONS] = "/completions",
		[SBX_OP_EMBEDDINGS] = "/embeddings",
	},
	.models_path = "/models",
	.read_request = sbx_openai_chat_read_request,
	.write_request = sbx_openai_chat_write_request,
	.decoder_new = sbx_openai_chat_decoder_new,
	.decoder_free = sbx_openai_chat_decoder_free,
	.decoder_head = sbx_openai_chat_decoder_head,
	.decoder_feed = sbx_openai_chat_decoder_feed,
	.decoder_end = sbx_openai_chat_decoder_end,
	.decoder_malformed = sbx_openai_chat_decoder_malformed,
	.encoder_new = sbx_openai_chat_encoder_new,
	.encoder_event = sbx_openai_chat_encoder_event,
	.encoder_end = sbx_openai_chat_encoder_end,
	.encoder_free = sbx_openai_chat_encoder_free,
	.write_error = sbx_openai_chat_write_error,
	.add_cost = sbx_openai_chat_add_cost,
};
