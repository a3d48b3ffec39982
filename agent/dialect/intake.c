/* SPDX-License-Identifier: Apache-2.0 */
/* intake.c -- see intake.h. */
#include "agent/dialect/intake.h"

#include <signalbox/errors.h>

#include "agent/dialect/provider_error.h"

#define KEEP_TEXT_BYTES 4096 /* memory for unescaping kept between events: a stream at rest costs little */
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

/* ==== emitting ==== */

static void
emit_kind(struct sbx_intake *in, enum sbx_hub_kind kind)
{
	in->emit(in->arg, &(struct sbx_hub_event){ .kind = kind });
}

static void
emit_wire(struct sbx_intake *in, struct sbx_span name, struct sbx_span payload, unsigned flags)
{
	in->emit(in->arg, &(struct sbx_hub_event){ .kind = SBX_HUB_WIRE, .name = name, .text = payload, .flags = flags });
}

void
sbx_intake_emit(struct sbx_intake *in, struct sbx_intake_step *step, const struct sbx_hub_event *ev)
{
	step->meant = true;
	in->emit(in->arg, ev);
}

void
sbx_intake_emit_content(struct sbx_intake *in, struct sbx_intake_step *step, const struct sbx_hub_event *ev)
{
	step->content = true;
	sbx_intake_emit(in, step, ev);
}

bool
sbx_intake_text(struct sbx_intake *in, struct sbx_span value, struct sbx_span *ret_text)
{
	*ret_text = (struct sbx_span){ NULL, 0 };
	if (!in->opts.want_text || sbx_json_type(value) != SBX_JSON_STRING || sbx_json_string_peek(value, ret_text))
		return true;
	size_t before = in->text.n;
	int rc = sbx_json_string_append(value, &in->text);
	if (rc) {
		sbx_intake_fail_rc(in, rc, "a text above its limit");
		return false;
	}
	*ret_text = (struct sbx_span){ (const char *)in->text.data + before, in->text.n - before };
	return true;
}

static void
fail_with(struct sbx_intake *in, const struct sbx_provider_error *error)
{
	in->form = SBX_INTAKE_OVER;
	in->emit(in->arg, &(struct sbx_hub_event){ .kind = SBX_HUB_ERROR, .error = error });
}

void
sbx_intake_fail(struct sbx_intake *in, enum sbx_error_kind kind, const char *message)
{
	struct sbx_provider_error error;
	sbx_provider_error_set(&error, kind, in->status, message);
	fail_with(in, &error);
}

void
sbx_intake_fail_rc(struct sbx_intake *in, int rc, const char *what)
{
	sbx_intake_fail(in, SBX_KIND_TOO_BIG, rc == -SBX_ENOMEM ? "out of memory" : what);
}

void
sbx_intake_fail_json(struct sbx_intake *in, struct sbx_span root, struct sbx_intake_step *step)
{
	struct sbx_provider_error error;
	if (in->complete) {
		step->skip = true;
		return;
	}
	sbx_provider_error_from_json(in->status, root, &error);
	fail_with(in, &error);
}

/* What follows the meaning of a value. The answer is whole by its content, unless some of it was lost on the way. */
static void
conclude(struct sbx_intake *in, const struct sbx_intake_step *step, struct sbx_span name, struct sbx_span payload, unsigned flags)
{
	if (!step->meant && !step->content && !step->ended && !(flags & SBX_WIRE_WHOLE))
		emit_kind(in, SBX_HUB_LIFECYCLE);
	if (step->finished && !in->complete) {
		if (in->lost) {
			sbx_intake_fail(in, SBX_KIND_LOSSY, "an event that may have held content could not be read");
			return;
		}
		in->complete = true;
		emit_kind(in, SBX_HUB_COMPLETE);
	}
	if (step->ended)
		in->form = SBX_INTAKE_OVER;
	emit_wire(in, name, payload, flags | (step->content ? SBX_WIRE_CONTENT : 0u));
	if (step->ended)
		emit_kind(in, SBX_HUB_END);
}

static void
forget_text(struct sbx_intake *in)
{
	sbx_buf_clear(&in->text);
	sbx_buf_trim(&in->text, KEEP_TEXT_BYTES);
}

/* ==== streams ==== */

/* An event that does not parse. Content needs a string, and a string a quote: without one nothing was lost. */
static void
on_malformed(struct sbx_intake *in, struct sbx_span name, struct sbx_span payload)
{
	in->n_malformed++;
	if (!in->complete && memchr(payload.at, '"', payload.n))
		in->lost = true;
	emit_wire(in, name, payload, SBX_WIRE_MALFORMED);
}

static bool
is_space(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static struct sbx_span
trim(struct sbx_span s)
{
	while (s.n && is_space(s.at[0]))
		s = (struct sbx_span){ s.at + 1, s.n - 1 };
	while (s.n && is_space(s.at[s.n - 1]))
		s.n--;
	return s;
}

/* cut: the stream ended without ending this event; it counts only if it is whole. */
static void
on_event(struct sbx_intake *in, const struct sbx_sse_event *ev, bool cut)
{
	struct sbx_span payload = trim(ev->data);
	struct sbx_intake_step step = { .content = false };

	in->any_event = true;
	if (ev->comment || payload.n == 0) {
		if (!cut)
			emit_kind(in, SBX_HUB_LIFECYCLE);
		return;
	}
	if (sbx_span_is(payload, "[DONE]")) { /* the end of a stream elsewhere; who knows it here only imitates, and it says nothing new */
		emit_kind(in, SBX_HUB_LIFECYCLE);
		return;
	}
	if (sbx_json_check(payload.at, payload.n, in->scratch, NULL)) {
		if (!cut)
			on_malformed(in, ev->type, payload);
		return;
	}
	in->reader->event(in, ev->type, sbx_json_root(payload.at, payload.n), &step);
	forget_text(in);
	if (step.skip)
		in->n_malformed++;
	else if (!sbx_intake_over(in))
		conclude(in, &step, ev->type, payload, step.ended ? SBX_WIRE_END : 0u);
}

static const char too_big_event[] = "a line or event of the stream is above its limit";

static void
feed_stream(struct sbx_intake *in, const char *bytes, size_t n)
{
	struct sbx_sse_event ev;
	int rc = 1;
	sbx_sse_feed(&in->sse, bytes, n);
	while (in->form == SBX_INTAKE_STREAM && (rc = sbx_sse_next(&in->sse, &ev)) > 0)
		on_event(in, &ev, false);
	if (rc < 0)
		sbx_intake_fail_rc(in, rc, too_big_event);
}

static void
end_stream(struct sbx_intake *in)
{
	struct sbx_sse_event ev;
	int rc = sbx_sse_end(&in->sse, &ev);
	if (rc > 0)
		on_event(in, &ev, true);
	else if (rc < 0)
		sbx_intake_fail_rc(in, rc, too_big_event);
	if (in->form == SBX_INTAKE_STREAM && !in->any_event)
		sbx_intake_fail(in, SBX_KIND_JUNK, "the answer holds no event");
}

/* ==== whole bodies ==== */

static void
read_error_body(struct sbx_intake *in)
{
	struct sbx_provider_error error;
	sbx_provider_error_read(in->status, (struct sbx_span){ (const char *)in->body.data, in->body.n }, in->scratch, &error);
	fail_with(in, &error);
}

static void
read_body(struct sbx_intake *in)
{
	struct sbx_span text = trim((struct sbx_span){ (const char *)in->body.data, in->body.n }), value;
	struct sbx_intake_step step = { .finished = true, .ended = true };

	if (text.n >= 3 && memcmp(text.at, BYTE_ORDER_MARK, 3) == 0)
		text = trim((struct sbx_span){ text.at + 3, text.n - 3 });
	if (text.n == 0 || sbx_json_check(text.at, text.n, in->scratch, NULL) ||
	    !sbx_json_get(sbx_json_root(text.at, text.n), in->reader->holds, &value)) {
		read_error_body(in); /* an error in a shape of its own, or something else altogether */
		return;
	}
	if (in->opts.stream_only && in->opts.stream) {
		sbx_intake_fail(in, SBX_KIND_JUNK, "a whole answer where a stream was asked for");
		return;
	}
	in->reader->body(in, sbx_json_root(text.at, text.n), &step);
	forget_text(in);
	if (!sbx_intake_over(in))
		conclude(in, &step, (struct sbx_span){ NULL, 0 }, text, SBX_WIRE_WHOLE);
}

static void
feed_body(struct sbx_intake *in, const char *bytes, size_t n)
{
	if (in->form == SBX_INTAKE_ERROR_BODY && n > SBX_ERROR_BODY_MAX_BYTES - in->body.n)
		n = SBX_ERROR_BODY_MAX_BYTES - in->body.n;
	int rc = sbx_buf_append(&in->body, bytes, n);
	if (rc)
		sbx_intake_fail_rc(in, rc, "the answer is above its limit");
}

/* ==== the decoder's outside ==== */

void
sbx_intake_init(struct sbx_intake *in, const struct sbx_intake_reader *reader, const struct sbx_decode_opts *opts,
		struct sbx_json_scratch *scratch, sbx_hub_fn *emit, void *arg)
{
	memset(in, 0, sizeof *in);
	in->reader = reader;
	in->opts = *opts;
	in->scratch = scratch;
	in->emit = emit;
	in->arg = arg;
	in->status = 200;
	in->form = opts->stream ? SBX_INTAKE_UNDECIDED : SBX_INTAKE_BODY;
	sbx_sse_init(&in->sse);
	sbx_buf_init(&in->body, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&in->text, SBX_BODY_MAX_BYTES);
}

void
sbx_intake_fini(struct sbx_intake *in)
{
	sbx_sse_fini(&in->sse);
	sbx_buf_fini(&in->body);
	sbx_buf_fini(&in->text);
}

void
sbx_intake_head(struct sbx_intake *in, int status)
{
	if (status >= 200 && status < 300)
		return;
	in->status = status;
	in->form = SBX_INTAKE_ERROR_BODY;
}

void
sbx_intake_feed(struct sbx_intake *in, const char *bytes, size_t n)
{
	if (in->form == SBX_INTAKE_UNDECIDED) {
		while (n > 0 && memchr(" \t\r\n" BYTE_ORDER_MARK, *bytes, 7)) {
			bytes++;
			n--;
		}
		if (n == 0)
			return;
		in->form = memchr("{[<", *bytes, 3) ? SBX_INTAKE_BODY : SBX_INTAKE_STREAM;
	}
	if (in->form == SBX_INTAKE_STREAM)
		feed_stream(in, bytes, n);
	else if (in->form != SBX_INTAKE_OVER)
		feed_body(in, bytes, n);
}

void
sbx_intake_end(struct sbx_intake *in)
{
	switch (in->form) {
	case SBX_INTAKE_STREAM: end_stream(in); break;
	case SBX_INTAKE_UNDECIDED:
	case SBX_INTAKE_BODY: read_body(in); break;
	case SBX_INTAKE_ERROR_BODY: read_error_body(in); break;
	case SBX_INTAKE_OVER: break;
	}
	sbx_buf_fini(&in->body);
}
