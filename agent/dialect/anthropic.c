/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic.c -- see anthropic.h: the dialect's row, and its decoder.
 *
 * A block of a stream begins with a start event, grows by deltas that name it by its index, and ends with a stop event. What the decoder
 * has to know of the open ones is what they are. Kinds of events, blocks and deltas that are not known here are skipped; a delta that
 * fits no block marks the answer as lossy rather than being guessed into a place.
 */
#include "agent/dialect/anthropic.h"

#include <stdlib.h>

#include "agent/dialect/intake.h"
#include "agent/dialect/json_write.h"

#define BLOCKS_OPEN_MAX 64 /* at once: the provider has one, imitators perhaps one for each parallel call */

enum block_kind {
	BLOCK_TEXT,
	BLOCK_THINKING,
	BLOCK_TOOL_USE,
	BLOCK_OTHER,    /* of the provider's own tools, or unknown */
};

struct block {
	int64_t index;          /* the provider's */
	enum block_kind kind;
	uint32_t call;          /* TOOL_USE: number of the call */
	bool filled;            /* TOOL_USE: arguments came */
	bool given;             /* TOOL_USE: they came whole, with its start */
};

struct sbx_decoder {
	struct sbx_intake in;   /* first: readers find the rest from it */
	struct block open[BLOCKS_OPEN_MAX];
	uint32_t n_open;
	uint32_t n_calls;
	uint32_t n_details;
	bool finish_seen;
	struct sbx_buf thinking;  /* of the open thinking block: its text as it is spelled in JSON, escapes kept */
	struct sbx_buf signature; /* likewise */
	struct sbx_buf detail;    /* the DETAIL being emitted */
	struct sbx_buf usage;     /* the usage object so far */
};

/* An event being read. */
struct reading {
	struct sbx_decoder *d;
	struct sbx_intake *in;
	struct sbx_intake_step *step;
};

static struct sbx_span
content_of(const struct sbx_buf *b)
{
	return (struct sbx_span){ (const char *)b->data, b->n };
}

static struct sbx_span
member(struct sbx_span object, const char *name)
{
	struct sbx_span value = { NULL, 0 };
	(void)sbx_json_get(object, name, &value);
	return value;
}

static bool
is_text(struct sbx_span value) /* that is not empty */
{
	return sbx_json_type(value) == SBX_JSON_STRING && value.n > 2;
}

static void
emit_text(struct reading *r, enum sbx_hub_kind kind, struct sbx_span value)
{
	struct sbx_hub_event ev = { .kind = kind };
	if (is_text(value) && sbx_intake_text(r->in, value, &ev.text))
		sbx_intake_emit_content(r->in, r->step, &ev);
}

/* ==== thinking ==== */

/* Appends what stands between the quotes. Pieces of JSON strings put together are one: no escape is cut in two. */
static bool
gather(struct reading *r, struct sbx_buf *into, struct sbx_span string)
{
	int rc = r->in->opts.want_text && is_text(string) ? sbx_buf_append(into, string.at + 1, string.n - 2) : 0;
	if (rc)
		sbx_intake_fail_rc(r->in, rc, "thinking above its limit");
	return rc == 0;
}

static void
write_quoted(struct sbx_json_writer *w, const char *name, struct sbx_span content)
{
	sbx_jw_name(w, name);
	sbx_jw_raw(w, "\"", 1);
	sbx_jw_raw(w, content.at, content.n);
	sbx_jw_raw(w, "\"", 1);
	w->follows = true;
}

/* One object of reasoning_details: that of thinking with its signature, or of data that is not to be read. */
static void
emit_detail(struct reading *r, struct sbx_span text, struct sbx_span signature, struct sbx_span data)
{
	struct sbx_decoder *d = r->d;
	struct sbx_json_writer w = sbx_json_writer(&d->detail);
	if (!r->in->opts.want_text)
		return;
	sbx_buf_clear(&d->detail);
	sbx_jw_open(&w, '{');
	sbx_jw_name(&w, "type");
	sbx_jw_literal(&w, data.n ? "\"reasoning.encrypted\"" : "\"reasoning.text\"");
	if (data.n) {
		sbx_jw_member(&w, "data", data);
	} else {
		write_quoted(&w, "text", text);
		write_quoted(&w, "signature", signature);
	}
	sbx_jw_name(&w, "format");
	sbx_jw_literal(&w, "\"" SBX_ANTHROPIC_FORMAT "\"");
	sbx_jw_name(&w, "index");
	sbx_jw_int(&w, d->n_details++);
	sbx_jw_close(&w, '}');
	if (w.rc)
		sbx_intake_fail_rc(r->in, w.rc, "thinking above its limit");
	else
		sbx_intake_emit(r->in, r->step, &(struct sbx_hub_event){ .kind = SBX_HUB_DETAIL, .text = content_of(&d->detail) });
}

/* Thinking without a signature is not to be given back. */
static void
end_thinking(struct reading *r)
{
	if (r->d->signature.n)
		emit_detail(r, content_of(&r->d->thinking), content_of(&r->d->signature), (struct sbx_span){ NULL, 0 });
	sbx_buf_clear(&r->d->thinking);
	sbx_buf_clear(&r->d->signature);
}

/* Some thinking is sent without its words: then the signature alone is what there is of it. */
static void
read_thinking(struct reading *r, struct sbx_span block)
{
	if (!gather(r, &r->d->thinking, member(block, "thinking")))
		return;
	emit_text(r, SBX_HUB_REASONING, member(block, "thinking"));
	if (!sbx_intake_over(r->in))
		(void)gather(r, &r->d->signature, member(block, "signature"));
}

static void
read_redacted(struct reading *r, struct sbx_span block)
{
	r->step->content = true;
	if (is_text(member(block, "data")))
		emit_detail(r, (struct sbx_span){ NULL, 0 }, (struct sbx_span){ NULL, 0 }, member(block, "data"));
}

/* ==== tool calls ==== */

static bool
holds_members(struct sbx_span object)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	return sbx_json_object_next(&it, &name, &value);
}

/* The call's beginning, with its arguments if `arguments` is not empty. */
static void
begin_call(struct reading *r, struct sbx_span block, struct sbx_span arguments)
{
	struct sbx_span id = member(block, "id"), name = member(block, "name");
	struct sbx_hub_event ev = { .kind = SBX_HUB_TOOL_CALL, .index = r->d->n_calls };
	if (!is_text(name)) { /* a call of nobody */
		r->in->lost = true;
		return;
	}
	if (id.n + name.n > SBX_CALL_NAMES_MAX_BYTES) {
		sbx_intake_fail(r->in, SBX_KIND_TOO_BIG, "a tool call's id or name above its limit");
		return;
	}
	r->d->n_calls++;
	if (r->in->opts.want_text) {
		if (!sbx_buf_reserve(&r->in->text, id.n + name.n)) { /* both stay in place */
			sbx_intake_fail(r->in, SBX_KIND_TOO_BIG, "out of memory");
			return;
		}
		ev.text = arguments;
	}
	if (sbx_intake_text(r->in, id, &ev.id) && sbx_intake_text(r->in, name, &ev.name))
		sbx_intake_emit_content(r->in, r->step, &ev);
}

static void
emit_arguments(struct reading *r, uint32_t call, struct sbx_span text)
{
	if (!r->in->opts.want_text)
		text = (struct sbx_span){ NULL, 0 };
	sbx_intake_emit_content(r->in, r->step, &(struct sbx_hub_event){ .kind = SBX_HUB_TOOL_CALL, .index = call, .text = text });
}

/* ==== blocks ==== */

static enum block_kind
kind_of(struct sbx_span block)
{
	struct sbx_span type = member(block, "type");
	if (sbx_json_string_eq(type, "text"))
		return BLOCK_TEXT;
	if (sbx_json_string_eq(type, "thinking"))
		return BLOCK_THINKING;
	if (sbx_json_string_eq(type, "tool_use"))
		return BLOCK_TOOL_USE;
	return BLOCK_OTHER;
}

static struct block *
find_block(struct sbx_decoder *d, struct sbx_span event)
{
	int64_t index;
	if (!sbx_json_int64(member(event, "index"), &index))
		return NULL;
	for (uint32_t i = d->n_open; i-- > 0;)
		if (d->open[i].index == index)
			return &d->open[i];
	return NULL;
}

static void
stop_block(struct reading *r, struct block *b)
{
	if (b->kind == BLOCK_THINKING)
		end_thinking(r);
	else if (b->kind == BLOCK_TOOL_USE && !b->filled)
		emit_arguments(r, b->call, SBX_SPAN("{}")); /* a tool without arguments */
	*b = r->d->open[--r->d->n_open];
}

static void
start_block(struct reading *r, struct sbx_span event)
{
	struct sbx_span block = member(event, "content_block"), input = member(block, "input");
	struct block b = { .kind = kind_of(block), .call = r->d->n_calls };
	struct block *before = find_block(r->d, event);
	if (sbx_json_type(block) != SBX_JSON_OBJECT || !sbx_json_int64(member(event, "index"), &b.index)) {
		r->in->lost = true;
		return;
	}
	if (before) /* it was never ended */
		stop_block(r, before);
	if (sbx_intake_over(r->in))
		return;
	if (r->d->n_open == BLOCKS_OPEN_MAX) {
		sbx_intake_fail(r->in, SBX_KIND_TOO_BIG, "too many blocks open at once");
		return;
	}
	switch (b.kind) {
	case BLOCK_TEXT:
		emit_text(r, SBX_HUB_TEXT, member(block, "text"));
		break;
	case BLOCK_THINKING:
		read_thinking(r, block);
		break;
	case BLOCK_TOOL_USE:
		b.filled = b.given = holds_members(input);
		begin_call(r, block, b.given ? input : (struct sbx_span){ NULL, 0 });
		break;
	case BLOCK_OTHER:
		if (sbx_json_string_eq(member(block, "type"), "redacted_thinking"))
			read_redacted(r, block);
		else
			r->step->content = true; /* without an event of its own: WIRE carries it */
		break;
	}
	r->d->open[r->d->n_open++] = b;
}

static void
read_arguments(struct reading *r, struct block *b, struct sbx_span piece)
{
	struct sbx_span text;
	if (!is_text(piece) || b->given)
		return;
	b->filled = true;
	if (sbx_intake_text(r->in, piece, &text))
		emit_arguments(r, b->call, text);
}

static void
read_delta(struct reading *r, struct sbx_span event)
{
	struct sbx_span delta = member(event, "delta"), type = member(delta, "type");
	struct block *b = find_block(r->d, event);
	if (sbx_json_type(delta) != SBX_JSON_OBJECT || !b) {
		r->in->lost = true;
	} else if (sbx_json_string_eq(type, "text_delta") && b->kind == BLOCK_TEXT) {
		emit_text(r, SBX_HUB_TEXT, member(delta, "text"));
	} else if (b->kind == BLOCK_THINKING) { /* thinking_delta, signature_delta */
		read_thinking(r, delta);
	} else if (sbx_json_string_eq(type, "input_json_delta") && b->kind == BLOCK_TOOL_USE) {
		read_arguments(r, b, member(delta, "partial_json"));
	} else if (b->kind == BLOCK_OTHER) {
		r->step->content = true;
	} /* citations_delta: where a text comes from is for who reads the wire */
}

/* ==== the message ==== */

static const struct finish_word {
	const char *word;
	enum sbx_finish finish;
} finish_words[] = {
	{ "end_turn", SBX_FINISH_STOP },
	{ "stop_sequence", SBX_FINISH_STOP },
	{ "max_tokens", SBX_FINISH_LENGTH },
	{ "model_context_window_exceeded", SBX_FINISH_LENGTH },
	{ "tool_use", SBX_FINISH_TOOL_CALLS },
	{ "refusal", SBX_FINISH_CONTENT_FILTER },
	{ "pause_turn", SBX_FINISH_STOP }, /* the client may send the answer back to have it go on */
	{ "compaction", SBX_FINISH_STOP },
};

static void
read_finish(struct reading *r, struct sbx_span reason)
{
	struct sbx_hub_event ev = { .kind = SBX_HUB_FINISH, .finish = SBX_FINISH_OTHER };
	if (!is_text(reason) || r->d->finish_seen)
		return;
	for (size_t i = 0; i < sizeof finish_words / sizeof finish_words[0]; i++)
		if (sbx_json_string_eq(reason, finish_words[i].word))
			ev.finish = finish_words[i].finish;
	ev.finish_raw = (struct sbx_span){ reason.at + 1, reason.n - 2 };
	r->d->finish_seen = true;
	sbx_intake_emit(r->in, r->step, &ev);
}

static void
read_usage(struct reading *r, struct sbx_span usage)
{
	struct sbx_decoder *d = r->d;
	struct sbx_usage u;
	struct sbx_buf merged;
	if (sbx_json_type(usage) != SBX_JSON_OBJECT)
		return;
	sbx_buf_init(&merged, SBX_BODY_MAX_BYTES);
	int rc = sbx_anthropic_merge_usage(content_of(&d->usage), usage, &merged);
	if (rc) {
		sbx_buf_fini(&merged);
		sbx_intake_fail_rc(r->in, rc, "a usage above its limit");
		return;
	}
	sbx_buf_fini(&d->usage);
	d->usage = merged;
	if (sbx_anthropic_read_usage(content_of(&d->usage), &u))
		sbx_intake_emit(r->in, r->step, &(struct sbx_hub_event){ .kind = SBX_HUB_USAGE, .usage = &u, .usage_raw = content_of(&d->usage) });
}

/* Blocks come whole in a body; and an imitator may send all it has to say with message_start. */
static void
read_content(struct reading *r, struct sbx_span content)
{
	struct sbx_json_iter it = sbx_json_array_iter(content);
	struct sbx_span block;
	while (!sbx_intake_over(r->in) && sbx_json_array_next(&it, &block)) {
		sbx_buf_clear(&r->in->text);
		switch (kind_of(block)) {
		case BLOCK_TEXT:
			emit_text(r, SBX_HUB_TEXT, member(block, "text"));
			break;
		case BLOCK_THINKING:
			read_thinking(r, block);
			if (!sbx_intake_over(r->in))
				end_thinking(r);
			break;
		case BLOCK_TOOL_USE:
			begin_call(r, block, sbx_json_type(member(block, "input")) == SBX_JSON_OBJECT ? member(block, "input") : SBX_SPAN("{}"));
			break;
		case BLOCK_OTHER:
			if (sbx_json_string_eq(member(block, "type"), "redacted_thinking"))
				read_redacted(r, block);
			else
				r->step->content = true;
			break;
		}
	}
}

static void
read_start(struct reading *r, struct sbx_span message)
{
	r->in->emit(r->in->arg, &(struct sbx_hub_event){ .kind = SBX_HUB_LIFECYCLE }); /* that usage is known is no news for who waits */
	read_content(r, member(message, "content"));
	if (!sbx_intake_over(r->in))
		read_usage(r, member(message, "usage"));
}

static void
read_event(struct sbx_intake *in, struct sbx_span name, struct sbx_span root, struct sbx_intake_step *step)
{
	struct reading r = { .d = (struct sbx_decoder *)in, .in = in, .step = step };
	struct sbx_span type = member(root, "type");
	struct block *b;
	if (sbx_json_string_eq(type, "content_block_delta")) {
		read_delta(&r, root);
	} else if (sbx_json_string_eq(type, "content_block_start")) {
		start_block(&r, root);
	} else if (sbx_json_string_eq(type, "content_block_stop")) {
		b = find_block(r.d, root);
		if (b)
			stop_block(&r, b);
	} else if (sbx_json_string_eq(type, "message_start")) {
		read_start(&r, member(root, "message"));
	} else if (sbx_json_string_eq(type, "message_delta")) {
		read_finish(&r, member(member(root, "delta"), "stop_reason"));
		read_usage(&r, member(root, "usage"));
		step->finished = r.d->finish_seen;
	} else if (sbx_json_string_eq(type, "message_stop")) {
		step->finished = step->ended = true;
	} else if (sbx_json_string_eq(type, "error") || sbx_span_is(name, "error") || (!type.n && member(root, "error").n)) {
		sbx_intake_fail_json(in, root, step);
	} else if (!type.n) { /* no event of this dialect: of another, perhaps */
		in->lost = true;
	}
}

static void
read_body(struct sbx_intake *in, struct sbx_span root, struct sbx_intake_step *step)
{
	struct reading r = { .d = (struct sbx_decoder *)in, .in = in, .step = step };
	read_content(&r, member(root, "content"));
	if (!sbx_intake_over(in))
		read_finish(&r, member(root, "stop_reason"));
	if (!sbx_intake_over(in))
		read_usage(&r, member(root, "usage"));
}

/* ==== the row ==== */

static const struct sbx_intake_reader reader = { .holds = "content", .event = read_event, .body = read_body };

/* How many tokens a request would have: a number, and nothing that was generated. */
static void
read_count(struct sbx_intake *in, struct sbx_span root, struct sbx_intake_step *step)
{
	int64_t tokens;
	step->content = true;
	if (!sbx_json_int64(member(root, "input_tokens"), &tokens) || tokens < 0)
		sbx_intake_fail(in, SBX_KIND_JUNK, "input_tokens is no number of tokens");
}

static const struct sbx_intake_reader count_reader = { .holds = "input_tokens", .event = read_event, .body = read_count };

static const char *const headers[] = { "anthropic-version: 2023-06-01", NULL };

static struct sbx_decoder *
decoder_new(const struct sbx_decode_opts *opts, struct sbx_json_scratch *scratch, sbx_hub_fn *emit, void *arg)
{
	struct sbx_decoder *d = calloc(1, sizeof *d);
	if (!d)
		return NULL;
	sbx_intake_init(&d->in, opts->op == SBX_OP_COUNT_TOKENS ? &count_reader : &reader, opts, scratch, emit, arg);
	sbx_buf_init(&d->thinking, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&d->signature, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&d->detail, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&d->usage, SBX_BODY_MAX_BYTES);
	return d;
}

static void
decoder_free(struct sbx_decoder *d)
{
	if (!d)
		return;
	sbx_intake_fini(&d->in);
	sbx_buf_fini(&d->thinking);
	sbx_buf_fini(&d->signature);
	sbx_buf_fini(&d->detail);
	sbx_buf_fini(&d->usage);
	free(d);
}

static void
decoder_head(struct sbx_decoder *d, int status, const char *content_type)
{
	(void)content_type; /* see intake.h */
	sbx_intake_head(&d->in, status);
}

static void
decoder_feed(struct sbx_decoder *d, const char *bytes, size_t n)
{
	sbx_intake_feed(&d->in, bytes, n);
}

static void
decoder_end(struct sbx_decoder *d)
{
	sbx_intake_end(&d->in);
}

static uint32_t
decoder_malformed(const struct sbx_decoder *d)
{
	return d->in.n_malformed;
}

const struct sbx_dialect sbx_dialect_anthropic = {
	.name = "anthropic",
	.path = { [SBX_OP_CHAT] = "/messages", [SBX_OP_COUNT_TOKENS] = "/messages/count_tokens" },
	.headers = headers,
	.models_path = "/models",
	.read_request = sbx_anthropic_read_request,
	.write_request = sbx_anthropic_write_request,
	.write_error = sbx_anthropic_write_error,
	.add_cost = sbx_anthropic_add_cost,
	.decoder_new = decoder_new,
	.decoder_free = decoder_free,
	.decoder_head = decoder_head,
	.decoder_feed = decoder_feed,
	.decoder_end = decoder_end,
	.decoder_malformed = decoder_malformed,
	.to_hub = sbx_anthropic_to_hub,
	.from_hub = sbx_anthropic_from_hub,
	.encoder_new = sbx_anthropic_encoder_new,
	.encoder_event = sbx_anthropic_encoder_event,
	.encoder_end = sbx_anthropic_encoder_end,
	.encoder_free = sbx_anthropic_encoder_free,
};
