/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_encode.c -- an answer of another dialect for a client of this one: hub events -> events of a stream, or one body.
 *
 * A message is a list of blocks, and in a stream one of them is open at a time: it is started, grows and is stopped before the next one
 * starts. Others may send their tool calls in turns, so a block behind a call that is not yet whole waits, gathering, until that call's
 * arguments are a whole object, or the answer is over. No provider that sends one call after the other makes it wait.
 *
 * The message_delta with the usage is written at the end, since others send their usage behind everything else.
 */
#include "agent/dialect/anthropic.h"

#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_write.h"

#define BLOCKS_MAX 4096 /* of an answer; tool calls in use are a few dozen, and words and thoughts come between them */

enum kind { KIND_TEXT, KIND_THINKING, KIND_REDACTED, KIND_TOOL_USE };

/* How far an object has come, byte by byte. */
struct progress {
	uint32_t depth;
	bool in_string, escaped, whole;
};

struct block {
	enum kind kind;
	bool closed;          /* nothing can be added to it: it has its signature, or is written to its end */
	struct sbx_buf text;  /* TEXT, THINKING: words; TOOL_USE: arguments. Of a stream: those that wait */
	struct sbx_buf sealed; /* THINKING: the signature, REDACTED: the data, as JSON strings */
	struct sbx_buf id, name; /* TOOL_USE */
	uint32_t call;        /* TOOL_USE: its number */
	struct progress progress; /* TOOL_USE: of its arguments */
};

struct sbx_encoder {
	struct sbx_encode_opts opts;
	struct sbx_buf *out;
	struct block *block;  /* n_blocks of them, in order of appearance */
	uint32_t n_blocks;
	uint32_t open;        /* of a stream: the block that is being written; those before it are stopped. n_blocks = none */
	bool started;         /* message_start, and the open block's start */
	bool open_started;
	bool refused, called;
	enum sbx_finish finish;
	char finish_raw[64];  /* the provider's word */
	struct sbx_usage usage;
	int rc;
};

struct sbx_encoder *
sbx_anthropic_encoder_new(const struct sbx_encode_opts *opts, struct sbx_buf *out)
{
	struct sbx_encoder *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->opts = *opts;
	e->out = out;
	e->usage = SBX_USAGE_NONE;
	return e;
}

void
sbx_anthropic_encoder_free(struct sbx_encoder *e)
{
	if (!e)
		return;
	for (uint32_t i = 0; i < e->n_blocks; i++) {
		sbx_buf_fini(&e->block[i].text);
		sbx_buf_fini(&e->block[i].sealed);
		sbx_buf_fini(&e->block[i].id);
		sbx_buf_fini(&e->block[i].name);
	}
	free(e->block);
	free(e);
}

static struct sbx_span
content_of(const struct sbx_buf *b)
{
	return (struct sbx_span){ (const char *)b->data, b->n };
}

static void
append(struct sbx_encoder *e, struct sbx_buf *to, struct sbx_span bytes)
{
	if (e->rc == 0)
		e->rc = sbx_buf_append(to, bytes.at, bytes.n);
}

/* NULL after setting e->rc. */
static struct block *
add_block(struct sbx_encoder *e, enum kind kind)
{
	struct block *grown = e->n_blocks < BLOCKS_MAX ? realloc(e->block, (e->n_blocks + 1) * sizeof *grown) : NULL;
	if (!grown) {
		e->rc = e->n_blocks < BLOCKS_MAX ? -SBX_ENOMEM : -SBX_ETOOBIG;
		return NULL;
	}
	e->block = grown;
	struct block *b = &grown[e->n_blocks++];
	*b = (struct block){ .kind = kind };
	sbx_buf_init(&b->text, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&b->sealed, SBX_BODY_MAX_BYTES);
	sbx_buf_init(&b->id, SBX_CALL_NAMES_MAX_BYTES);
	sbx_buf_init(&b->name, SBX_CALL_NAMES_MAX_BYTES);
	return b;
}

/* ==== parts of both forms ==== */

static void
put_text(struct sbx_json_writer *w, const char *name, const char *text)
{
	sbx_jw_name(w, name);
	sbx_jw_text(w, sbx_span_of(text));
}

static void
put_figure(struct sbx_json_writer *w, const char *name, int64_t tokens)
{
	sbx_jw_name(w, name);
	sbx_jw_int(w, tokens);
}

/* The prompt's three parts are disjoint here. */
static void
put_usage(const struct sbx_encoder *e, struct sbx_json_writer *w)
{
	const struct sbx_usage *u = &e->usage;
	const int64_t cached = u->cached_tokens < 0 ? 0 : u->cached_tokens, written = u->cache_write_tokens < 0 ? 0 : u->cache_write_tokens;
	const int64_t prompt = u->prompt_tokens < 0 ? 0 : u->prompt_tokens;
	const int64_t beside = cached > prompt ? 0 : prompt - cached;
	sbx_jw_name(w, "usage");
	sbx_jw_open(w, '{');
	put_figure(w, "input_tokens", written > beside ? 0 : beside - written);
	put_figure(w, "cache_creation_input_tokens", written);
	put_figure(w, "cache_read_input_tokens", cached);
	put_figure(w, "output_tokens", u->completion_tokens < 0 ? 0 : u->completion_tokens);
	if (u->reasoning_tokens >= 0) {
		sbx_jw_name(w, "output_tokens_details");
		sbx_jw_open(w, '{');
		put_figure(w, "thinking_tokens", u->reasoning_tokens);
		sbx_jw_close(w, '}');
	}
	sbx_jw_close(w, '}');
}

/* The words that say more than the hub's; they come from a provider of this dialect's kind. */
static bool
is_own_word(const char *word)
{
	static const char *const words[] = { "end_turn", "max_tokens", "stop_sequence", "tool_use", "pause_turn", "refusal", "model_context_window_exceeded" };
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(word, words[i]) == 0)
			return true;
	return false;
}

/* Clients take calls for granted where they are the reason; some providers say stop behind them. */
static void
put_reason(const struct sbx_encoder *e, struct sbx_json_writer *w)
{
	const char *word = e->called ? "tool_use" : e->refused ? "refusal" : "end_turn";
	if (is_own_word(e->finish_raw))
		word = e->finish_raw;
	else if (e->finish == SBX_FINISH_LENGTH)
		word = "max_tokens";
	else if (e->finish == SBX_FINISH_CONTENT_FILTER)
		word = "refusal";
	put_text(w, "stop_reason", word);
	sbx_jw_name(w, "stop_sequence");
	sbx_jw_literal(w, "null");
}

static void
put_head(const struct sbx_encoder *e, struct sbx_json_writer *w)
{
	put_text(w, "id", e->opts.id);
	put_text(w, "type", "message");
	put_text(w, "role", "assistant");
	put_text(w, "model", e->opts.model);
	sbx_jw_name(w, "content");
	sbx_jw_open(w, '[');
}

static const char *const kind_words[] = { "text", "thinking", "redacted_thinking", "tool_use" };

/* What the model made of its arguments, when that is no object: so that it can be told of it. */
static void
put_broken_input(struct sbx_json_writer *w, struct sbx_span arguments)
{
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "INVALID_JSON");
	sbx_jw_text(w, arguments);
	sbx_jw_close(w, '}');
}

static void
put_input(struct sbx_json_writer *w, struct sbx_span arguments)
{
	struct sbx_json_scratch scratch;
	struct sbx_span object = { NULL, 0 };
	sbx_jw_name(w, "input");
	if (arguments.n == 0) {
		sbx_jw_literal(w, "{}");
		return;
	}
	sbx_json_scratch_init(&scratch);
	if (sbx_json_check(arguments.at, arguments.n, &scratch, NULL) == 0)
		object = sbx_json_root(arguments.at, arguments.n);
	sbx_json_scratch_fini(&scratch);
	if (sbx_json_type(object) == SBX_JSON_OBJECT)
		sbx_jw_value(w, object);
	else
		put_broken_input(w, arguments);
}

/* Clients give a result back by its call's id; some providers give none. */
static void
put_id(struct sbx_json_writer *w, const struct block *call, const char *message_id)
{
	sbx_jw_name(w, "id");
	if (call->id.n) {
		sbx_jw_text(w, content_of(&call->id));
		return;
	}
	sbx_jw_raw(w, "\"", 1);
	sbx_jw_raw(w, message_id, strlen(message_id));
	sbx_jw_raw(w, "_", 1);
	sbx_jw_int(w, call->call);
	sbx_jw_raw(w, "\"", 1);
}

/* A block with what there is of it, or as it starts: empty, but for what cannot come in pieces. */
static void
put_block(struct sbx_json_writer *w, const struct block *b, const char *message_id, bool start)
{
	const struct sbx_span none = { "", 0 };
	sbx_jw_open(w, '{');
	put_text(w, "type", kind_words[b->kind]);
	switch (b->kind) {
	case KIND_TEXT:
		sbx_jw_name(w, "text");
		sbx_jw_text(w, start ? none : content_of(&b->text));
		break;
	case KIND_THINKING:
		sbx_jw_name(w, "thinking");
		sbx_jw_text(w, start ? none : content_of(&b->text));
		sbx_jw_name(w, "signature");
		sbx_jw_value(w, start || !b->sealed.n ? SBX_SPAN("\"\"") : content_of(&b->sealed));
		break;
	case KIND_REDACTED:
		sbx_jw_name(w, "data");
		sbx_jw_value(w, content_of(&b->sealed));
		break;
	case KIND_TOOL_USE:
		put_id(w, b, message_id);
		sbx_jw_name(w, "name");
		sbx_jw_text(w, content_of(&b->name));
		put_input(w, start ? none : content_of(&b->text));
		break;
	}
	sbx_jw_close(w, '}');
}

/* ==== a stream ==== */

static struct sbx_json_writer
begin_event(struct sbx_encoder *e, const char *type)
{
	struct sbx_json_writer w = sbx_json_writer(e->out);
	w.rc = e->rc;
	sbx_jw_raw(&w, "event: ", 7);
	sbx_jw_raw(&w, type, strlen(type));
	sbx_jw_raw(&w, "\ndata: ", 7);
	sbx_jw_open(&w, '{');
	put_text(&w, "type", type);
	return w;
}

static void
end_event(struct sbx_encoder *e, struct sbx_json_writer *w)
{
	sbx_jw_raw(w, "}\n\n", 3);
	e->rc = w->rc;
}

static void
start_message(struct sbx_encoder *e)
{
	if (e->started)
		return;
	e->started = true;
	struct sbx_json_writer w = begin_event(e, "message_start");
	sbx_jw_name(&w, "message");
	sbx_jw_open(&w, '{');
	put_head(e, &w);
	sbx_jw_close(&w, ']');
	sbx_jw_name(&w, "stop_reason");
	sbx_jw_literal(&w, "null");
	sbx_jw_name(&w, "stop_sequence");
	sbx_jw_literal(&w, "null");
	put_usage(e, &w);
	sbx_jw_close(&w, '}');
	end_event(e, &w);
}

/* value: a JSON string as it is; else text. */
static void
write_delta(struct sbx_encoder *e, const char *type, const char *name, struct sbx_span text, struct sbx_span value)
{
	if (!text.n && !value.n)
		return;
	struct sbx_json_writer w = begin_event(e, "content_block_delta");
	put_figure(&w, "index", e->open);
	sbx_jw_name(&w, "delta");
	sbx_jw_open(&w, '{');
	put_text(&w, "type", type);
	sbx_jw_name(&w, name);
	if (value.n)
		sbx_jw_value(&w, value);
	else
		sbx_jw_text(&w, text);
	sbx_jw_close(&w, '}');
	end_event(e, &w);
}

/* What has gathered in the open block. */
static void
write_gathered(struct sbx_encoder *e, struct block *b)
{
	const struct sbx_span none = { NULL, 0 };
	if (!e->open_started) {
		e->open_started = true;
		struct sbx_json_writer w = begin_event(e, "content_block_start");
		put_figure(&w, "index", e->open);
		sbx_jw_name(&w, "content_block");
		put_block(&w, b, e->opts.id, true);
		end_event(e, &w);
	}
	switch (b->kind) {
	case KIND_TEXT:
		write_delta(e, "text_delta", "text", content_of(&b->text), none);
		break;
	case KIND_TOOL_USE:
		write_delta(e, "input_json_delta", "partial_json", content_of(&b->text), none);
		break;
	case KIND_THINKING:
		write_delta(e, "thinking_delta", "thinking", content_of(&b->text), none);
		write_delta(e, "signature_delta", "signature", none, content_of(&b->sealed));
		break;
	case KIND_REDACTED:
		break;
	}
	if (e->rc)
		return;
	sbx_buf_clear(&b->text);
	b->closed = b->kind == KIND_THINKING && b->sealed.n > 0;
	sbx_buf_clear(&b->sealed);
}

/* A call's start has its names; an id that is not there when the arguments begin will not come. */
static bool
can_start(const struct block *call)
{
	return call->name.n && (call->id.n || call->text.n);
}

/* Writes as much as may be written now: the open block, and those behind it once nothing can be added to it any more.
 *  over  the answer is: nothing can be added to any */
static void
advance(struct sbx_encoder *e, bool over)
{
	if (e->open < e->n_blocks)
		start_message(e);
	while (e->rc == 0 && e->open < e->n_blocks) {
		struct block *b = &e->block[e->open];
		if (b->kind == KIND_TOOL_USE && !over && !can_start(b))
			return;
		write_gathered(e, b);
		if (!over && (e->open + 1 == e->n_blocks || (b->kind == KIND_TOOL_USE && !b->progress.whole)))
			return;
		b->closed = true;
		struct sbx_json_writer w = begin_event(e, "content_block_stop");
		put_figure(&w, "index", e->open);
		end_event(e, &w);
		e->open++;
		e->open_started = false;
	}
}

/* ==== events ==== */

/* The last block, if it is of that kind and can grow; else a new one. */
static struct block *
block_for(struct sbx_encoder *e, enum kind kind)
{
	struct block *last = e->n_blocks ? &e->block[e->n_blocks - 1] : NULL;
	if (last && last->kind == kind && !last->closed && !last->sealed.n)
		return last;
	return add_block(e, kind);
}

static void
on_words(struct sbx_encoder *e, enum kind kind, struct sbx_span text)
{
	struct block *b = text.n ? block_for(e, kind) : NULL;
	if (b)
		append(e, &b->text, text);
}

static void
watch(struct progress *p, struct sbx_span piece)
{
	for (size_t i = 0; i < piece.n && !p->whole; i++) {
		char c = piece.at[i];
		if (p->escaped) {
			p->escaped = false;
		} else if (p->in_string) {
			p->escaped = c == '\\';
			p->in_string = c != '"';
		} else if (c == '"') {
			p->in_string = true;
		} else if (c == '{' || c == '[') {
			p->depth++;
		} else if ((c == '}' || c == ']') && p->depth > 0) {
			p->whole = --p->depth == 0;
		}
	}
}

static struct block *
call_of(struct sbx_encoder *e, uint32_t number)
{
	for (uint32_t i = e->n_blocks; i-- > 0;)
		if (e->block[i].kind == KIND_TOOL_USE && e->block[i].call == number)
			return &e->block[i];
	struct block *b = add_block(e, KIND_TOOL_USE);
	if (b)
		b->call = number;
	return b;
}

static void
on_call(struct sbx_encoder *e, const struct sbx_hub_event *ev)
{
	struct block *b = call_of(e, ev->index);
	if (!b || b->closed) /* behind a whole object there can only be blanks */
		return;
	e->called = true;
	if (!b->id.n)
		append(e, &b->id, ev->id);
	if (!b->name.n)
		append(e, &b->name, ev->name);
	append(e, &b->text, ev->text);
	watch(&b->progress, ev->text);
}

/* A DETAIL of this dialect's goes where it came from; another's travels as data that nobody reads (anthropic.h). */
static void
on_detail(struct sbx_encoder *e, struct sbx_span detail)
{
	struct sbx_span root = sbx_json_root(detail.at, detail.n), value = { NULL, 0 }, type = { NULL, 0 }, format = { NULL, 0 };
	(void)sbx_json_get(root, "type", &type);
	(void)sbx_json_get(root, "format", &format);
	bool ours = sbx_json_string_eq(format, SBX_ANTHROPIC_FORMAT);
	struct block *b;
	if (ours && sbx_json_string_eq(type, "reasoning.text") && sbx_json_get(root, "signature", &value)) {
		b = block_for(e, KIND_THINKING);
		if (b)
			append(e, &b->sealed, value);
		return;
	}
	b = add_block(e, KIND_REDACTED);
	if (!b)
		return;
	if (ours && sbx_json_get(root, "data", &value))
		append(e, &b->sealed, value);
	else
		e->rc = sbx_json_string_encode(detail.at, detail.n, &b->sealed);
}

static void
on_finish(struct sbx_encoder *e, const struct sbx_hub_event *ev)
{
	e->finish = ev->finish;
	if (ev->finish_raw.n < sizeof e->finish_raw) {
		if (ev->finish_raw.n)
			memcpy(e->finish_raw, ev->finish_raw.at, ev->finish_raw.n);
		e->finish_raw[ev->finish_raw.n] = '\0';
	}
}

int
sbx_anthropic_encoder_event(struct sbx_encoder *e, const struct sbx_hub_event *ev)
{
	if (e->rc || ev->choice > 0) /* a client of this dialect can ask for one only */
		return e->rc;
	switch (ev->kind) {
	case SBX_HUB_TEXT:
		on_words(e, KIND_TEXT, ev->text);
		break;
	case SBX_HUB_REFUSAL:
		e->refused = true;
		on_words(e, KIND_TEXT, ev->text);
		break;
	case SBX_HUB_REASONING:
		on_words(e, KIND_THINKING, ev->text);
		break;
	case SBX_HUB_DETAIL:
		on_detail(e, ev->text);
		break;
	case SBX_HUB_TOOL_CALL:
		on_call(e, ev);
		break;
	case SBX_HUB_FINISH:
		on_finish(e, ev);
		break;
	case SBX_HUB_USAGE:
		e->usage = *ev->usage;
		break;
	case SBX_HUB_VECTOR: /* no client of this dialect asks for one */
	case SBX_HUB_LIFECYCLE:
	case SBX_HUB_ERROR:
	case SBX_HUB_COMPLETE:
	case SBX_HUB_END:
	case SBX_HUB_WIRE:
		break;
	}
	if (e->rc == 0 && e->opts.stream)
		advance(e, false);
	return e->rc;
}

static void
end_stream(struct sbx_encoder *e)
{
	start_message(e);
	advance(e, true);
	struct sbx_json_writer w = begin_event(e, "message_delta");
	sbx_jw_name(&w, "delta");
	sbx_jw_open(&w, '{');
	put_reason(e, &w);
	sbx_jw_close(&w, '}');
	put_usage(e, &w);
	end_event(e, &w);
	w = begin_event(e, "message_stop");
	end_event(e, &w);
}

static void
write_body(struct sbx_encoder *e)
{
	struct sbx_json_writer w = sbx_json_writer(e->out);
	sbx_jw_open(&w, '{');
	put_head(e, &w);
	for (uint32_t i = 0; i < e->n_blocks; i++)
		put_block(&w, &e->block[i], e->opts.id, false);
	sbx_jw_close(&w, ']');
	put_reason(e, &w);
	put_usage(e, &w);
	sbx_jw_close(&w, '}');
	e->rc = w.rc;
}

int
sbx_anthropic_encoder_end(struct sbx_encoder *e)
{
	if (e->rc == 0 && e->opts.stream)
		end_stream(e);
	else if (e->rc == 0)
		write_body(e);
	return e->rc;
}

/* ==== errors ==== */

/* What this API would have said of the same thing; of any other, that it is its own failure. */
static const struct row {
	enum sbx_code code;
	const char *type;
} rows[] = {
	{ SBX_CODE_INVALID_REQUEST, "invalid_request_error" },
	{ SBX_CODE_UNSUPPORTED, "invalid_request_error" },
	{ SBX_CODE_UNKNOWN_MODEL, "not_found_error" },
	{ SBX_CODE_NOT_FOUND, "not_found_error" },
	{ SBX_CODE_TOO_LARGE, "request_too_large" },
	{ SBX_CODE_FORBIDDEN, "permission_error" },
	{ SBX_CODE_INVALID_KEY, "authentication_error" },
	{ SBX_CODE_REJECTED, "invalid_request_error" },
	{ SBX_CODE_CONTEXT_LENGTH, "invalid_request_error" },
	{ SBX_CODE_CONTENT_FILTER, "invalid_request_error" },
	{ SBX_CODE_QUOTA, "billing_error" },
	{ SBX_CODE_RATE_LIMITED, "rate_limit_error" },
	{ SBX_CODE_TIMEOUT, "timeout_error" },
	{ SBX_CODE_BUSY, "overloaded_error" },
	{ SBX_CODE_DRAINING, "overloaded_error" },
};

/* Its own words are passed on as they are; of other dialects' its clients know nothing. */
static const char *const own_types[] = {
	"invalid_request_error", "authentication_error", "billing_error", "permission_error", "not_found_error", "conflict_error",
	"request_too_large", "rate_limit_error", "api_error", "timeout_error", "overloaded_error",
};

int
sbx_anthropic_write_error(enum sbx_code code, const char *message, const char *param, const struct sbx_provider_error *said,
			  struct sbx_buf *out)
{
	const char *type = "api_error";
	struct sbx_json_writer w = sbx_json_writer(out);
	(void)param; /* there is no place for it: the message has it */
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].code == code)
			type = rows[i].type;
	for (size_t i = 0; said && i < sizeof own_types / sizeof own_types[0]; i++)
		if (strcmp(said->type, own_types[i]) == 0)
			type = own_types[i];
	sbx_jw_open(&w, '{');
	put_text(&w, "type", "error");
	sbx_jw_name(&w, "error");
	sbx_jw_open(&w, '{');
	put_text(&w, "type", type);
	put_text(&w, "message", message);
	sbx_jw_close(&w, '}');
	sbx_jw_close(&w, '}');
	return w.rc;
}
