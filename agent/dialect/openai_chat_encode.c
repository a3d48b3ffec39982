/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat_encode.c -- an answer of another dialect for a client of this one: hub events -> chunks, or one body.
 *
 * A stream is written as the events come: a chunk with the role before the first piece of each choice, one for each piece, one
 * with the finish reason, and one with the usage if the client asked for it. A whole answer is gathered and written at its
 * end. Reasoning goes into `reasoning`, what has to be given back with it into `reasoning_details`, as OpenRouter has them.
 * Embeddings are written as they come, and put into their list at the end.
 */
#include "agent/dialect/openai_chat.h"

#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_write.h"

/* A tool call of a whole answer. */
struct call {
	struct sbx_buf id, name, arguments;
	uint32_t choice;
	uint32_t index;   /* within its choice */
};

/* A choice; the texts are gathered for a whole answer only. */
struct choice {
	bool begun;       /* its role was written */
	enum sbx_finish finish;
	struct sbx_buf text, reasoning, refusal;
	struct sbx_buf details; /* the objects, with commas between them */
};

struct sbx_encoder {
	struct sbx_encode_opts opts;
	struct sbx_buf *out;
	struct choice *choice; /* n_choices of them; grows as they appear */
	uint32_t n_choices;
	struct call *call;
	uint32_t n_calls;
	struct sbx_buf vectors; /* the objects, with commas between them */
	struct sbx_usage usage;
	bool usage_given;
	int rc;
};

struct sbx_encoder *
sbx_openai_chat_encoder_new(const struct sbx_encode_opts *opts, struct sbx_buf *out)
{
	struct sbx_encoder *e = calloc(1, sizeof *e);
	if (!e)
		return NULL;
	e->opts = *opts;
	e->out = out;
	sbx_buf_init(&e->vectors, SBX_BODY_MAX_BYTES);
	return e;
}

void
sbx_openai_chat_encoder_free(struct sbx_encoder *e)
{
	if (!e)
		return;
	for (uint32_t i = 0; i < e->n_choices; i++) {
		sbx_buf_fini(&e->choice[i].text);
		sbx_buf_fini(&e->choice[i].reasoning);
		sbx_buf_fini(&e->choice[i].refusal);
		sbx_buf_fini(&e->choice[i].details);
	}
	for (uint32_t i = 0; i < e->n_calls; i++) {
		sbx_buf_fini(&e->call[i].id);
		sbx_buf_fini(&e->call[i].name);
		sbx_buf_fini(&e->call[i].arguments);
	}
	sbx_buf_fini(&e->vectors);
	free(e->choice);
	free(e->call);
	free(e);
}

/* NULL after setting e->rc. */
static struct choice *
choice_of(struct sbx_encoder *e, uint32_t number)
{
	if (number >= SBX_CHOICES_MAX) {
		e->rc = -SBX_ETOOBIG;
		return NULL;
	}
	if (number >= e->n_choices) {
		struct choice *grown = realloc(e->choice, (number + 1) * sizeof *grown);
		if (!grown) {
			e->rc = -SBX_ENOMEM;
			return NULL;
		}
		e->choice = grown;
		for (; e->n_choices <= number; e->n_choices++) {
			struct choice *c = &grown[e->n_choices];
			*c = (struct choice){ .finish = SBX_FINISH_NONE };
			sbx_buf_init(&c->text, SBX_BODY_MAX_BYTES);
			sbx_buf_init(&c->reasoning, SBX_BODY_MAX_BYTES);
			sbx_buf_init(&c->refusal, SBX_BODY_MAX_BYTES);
			sbx_buf_init(&c->details, SBX_BODY_MAX_BYTES);
		}
	}
	return &e->choice[number];
}

static struct call *
call_of(struct sbx_encoder *e, uint32_t choice, uint32_t index)
{
	for (uint32_t i = e->n_calls; i-- > 0;)
		if (e->call[i].choice == choice && e->call[i].index == index)
			return &e->call[i];
	struct call *grown = e->n_calls < SBX_TOOL_CALLS_MAX ? realloc(e->call, (e->n_calls + 1) * sizeof *grown) : NULL;
	if (!grown) {
		e->rc = e->n_calls < SBX_TOOL_CALLS_MAX ? -SBX_ENOMEM : -SBX_ETOOBIG;
		return NULL;
	}
	e->call = grown;
	struct call *c = &grown[e->n_calls++];
	c->choice = choice;
	c->index = index;
	sbx_buf_init(&c->id, SBX_CALL_NAMES_MAX_BYTES);
	sbx_buf_init(&c->name, SBX_CALL_NAMES_MAX_BYTES);
	sbx_buf_init(&c->arguments, SBX_BODY_MAX_BYTES);
	return c;
}

/* ---- parts of both forms ---- */

static void
write_head(const struct sbx_encoder *e, struct sbx_json_writer *w, const char *object)
{
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "id");
	sbx_jw_text(w, sbx_span_of(e->opts.id));
	sbx_jw_name(w, "object");
	sbx_jw_text(w, sbx_span_of(object));
	sbx_jw_name(w, "created");
	sbx_jw_int(w, (int64_t)e->opts.created_unix_s);
	sbx_jw_name(w, "model");
	sbx_jw_text(w, sbx_span_of(e->opts.model));
	sbx_jw_name(w, "choices");
	sbx_jw_open(w, '[');
}

static void
write_figure(struct sbx_json_writer *w, const char *name, int64_t tokens)
{
	sbx_jw_name(w, name);
	sbx_jw_int(w, tokens);
}

/* What the provider did not say is left out of the details; the three sums, which clients count on, are then reckoned. */
static void
write_usage(struct sbx_json_writer *w, const struct sbx_usage *u)
{
	const int64_t prompt = u->prompt_tokens < 0 ? 0 : u->prompt_tokens, completion = u->completion_tokens < 0 ? 0 : u->completion_tokens;
	sbx_jw_name(w, "usage");
	sbx_jw_open(w, '{');
	write_figure(w, "prompt_tokens", prompt);
	write_figure(w, "completion_tokens", completion);
	write_figure(w, "total_tokens", prompt + completion);
	if (u->cached_tokens >= 0 || u->cache_write_tokens >= 0) {
		sbx_jw_name(w, "prompt_tokens_details");
		sbx_jw_open(w, '{');
		if (u->cached_tokens >= 0)
			write_figure(w, "cached_tokens", u->cached_tokens);
		if (u->cache_write_tokens >= 0)
			write_figure(w, "cache_write_tokens", u->cache_write_tokens);
		sbx_jw_close(w, '}');
	}
	if (u->reasoning_tokens >= 0) {
		sbx_jw_name(w, "completion_tokens_details");
		sbx_jw_open(w, '{');
		write_figure(w, "reasoning_tokens", u->reasoning_tokens);
		sbx_jw_close(w, '}');
	}
	sbx_jw_close(w, '}');
}

static void
write_finish(struct sbx_json_writer *w, enum sbx_finish finish)
{
	const char *word = finish == SBX_FINISH_OTHER ? "stop" : sbx_finish_word(finish); /* clients have an enumeration of the others */
	sbx_jw_name(w, "finish_reason");
	if (word)
		sbx_jw_text(w, sbx_span_of(word));
	else
		sbx_jw_literal(w, "null");
}

/* ---- a stream ---- */

static struct sbx_json_writer
begin_chunk(struct sbx_encoder *e)
{
	struct sbx_json_writer w = sbx_json_writer(e->out);
	sbx_jw_raw(&w, "data: ", 6);
	write_head(e, &w, "chat.completion.chunk");
	return w;
}

static void
end_chunk(struct sbx_encoder *e, struct sbx_json_writer *w)
{
	sbx_jw_raw(w, "}\n\n", 3);
	e->rc = w->rc;
}

static void
begin_delta(struct sbx_json_writer *w, uint32_t choice)
{
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "index");
	sbx_jw_int(w, choice);
	sbx_jw_name(w, "delta");
	sbx_jw_open(w, '{');
}

static void
end_delta(struct sbx_json_writer *w, enum sbx_finish finish)
{
	sbx_jw_close(w, '}');
	write_finish(w, finish);
	sbx_jw_close(w, '}');
	sbx_jw_close(w, ']');
}

static void
write_call_fragment(struct sbx_json_writer *w, const struct sbx_hub_event *ev)
{
	sbx_jw_name(w, "tool_calls");
	sbx_jw_open(w, '[');
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "index");
	sbx_jw_int(w, ev->index);
	if (ev->id.n) {
		sbx_jw_name(w, "id");
		sbx_jw_text(w, ev->id);
		sbx_jw_name(w, "type");
		sbx_jw_literal(w, "\"function\"");
	}
	sbx_jw_name(w, "function");
	sbx_jw_open(w, '{');
	if (ev->name.n) {
		sbx_jw_name(w, "name");
		sbx_jw_text(w, ev->name);
	}
	sbx_jw_name(w, "arguments");
	sbx_jw_text(w, ev->text);
	sbx_jw_close(w, '}');
	sbx_jw_close(w, '}');
	sbx_jw_close(w, ']');
}

static void
stream_piece(struct sbx_encoder *e, struct choice *c, const struct sbx_hub_event *ev)
{
	struct sbx_json_writer w;
	if (!c->begun) {
		c->begun = true;
		w = begin_chunk(e);
		begin_delta(&w, ev->choice);
		sbx_jw_name(&w, "role");
		sbx_jw_literal(&w, "\"assistant\"");
		sbx_jw_name(&w, "content");
		sbx_jw_literal(&w, "\"\"");
		end_delta(&w, SBX_FINISH_NONE);
		end_chunk(e, &w);
	}
	if (e->rc)
		return;
	w = begin_chunk(e);
	begin_delta(&w, ev->choice);
	switch (ev->kind) {
	case SBX_HUB_TEXT:
		sbx_jw_name(&w, "content");
		sbx_jw_text(&w, ev->text);
		break;
	case SBX_HUB_REASONING:
		sbx_jw_name(&w, "reasoning");
		sbx_jw_text(&w, ev->text);
		break;
	case SBX_HUB_REFUSAL:
		sbx_jw_name(&w, "refusal");
		sbx_jw_text(&w, ev->text);
		break;
	case SBX_HUB_DETAIL:
		sbx_jw_name(&w, "reasoning_details");
		sbx_jw_open(&w, '[');
		sbx_jw_value(&w, ev->text);
		sbx_jw_close(&w, ']');
		break;
	case SBX_HUB_TOOL_CALL:
		write_call_fragment(&w, ev);
		break;
	default: /* a finish: an empty delta */
		break;
	}
	end_delta(&w, ev->kind == SBX_HUB_FINISH ? ev->finish : SBX_FINISH_NONE);
	end_chunk(e, &w);
}

static void
stream_usage(struct sbx_encoder *e)
{
	struct sbx_json_writer w = begin_chunk(e);
	sbx_jw_close(&w, ']');
	write_usage(&w, &e->usage);
	end_chunk(e, &w);
}

/* ---- a whole answer ---- */

static int
gather_detail(struct sbx_buf *details, struct sbx_span object)
{
	int rc = details->n ? sbx_buf_append(details, ",", 1) : 0;
	return rc ? rc : sbx_buf_append(details, object.at, object.n);
}

static int
gather_call(struct sbx_encoder *e, const struct sbx_hub_event *ev)
{
	struct call *c = call_of(e, ev->choice, ev->index);
	if (!c)
		return e->rc;
	int rc = ev->id.n && !c->id.n ? sbx_buf_append(&c->id, ev->id.at, ev->id.n) : 0;
	if (rc == 0 && ev->name.n && !c->name.n)
		rc = sbx_buf_append(&c->name, ev->name.at, ev->name.n);
	return rc ? rc : sbx_buf_append(&c->arguments, ev->text.at, ev->text.n);
}

static void
gather(struct sbx_encoder *e, struct choice *c, const struct sbx_hub_event *ev)
{
	switch (ev->kind) {
	case SBX_HUB_TEXT:
		e->rc = sbx_buf_append(&c->text, ev->text.at, ev->text.n);
		break;
	case SBX_HUB_REASONING:
		e->rc = sbx_buf_append(&c->reasoning, ev->text.at, ev->text.n);
		break;
	case SBX_HUB_REFUSAL:
		e->rc = sbx_buf_append(&c->refusal, ev->text.at, ev->text.n);
		break;
	case SBX_HUB_DETAIL:
		e->rc = gather_detail(&c->details, ev->text);
		break;
	case SBX_HUB_TOOL_CALL:
		e->rc = gather_call(e, ev);
		break;
	default:
		c->finish = ev->finish;
		break;
	}
}

static struct sbx_span
content_of(const struct sbx_buf *b)
{
	return (struct sbx_span){ (const char *)b->data, b->n };
}

static void
write_calls(const struct sbx_encoder *e, struct sbx_json_writer *w, uint32_t choice)
{
	bool any = false;
	for (uint32_t i = 0; i < e->n_calls; i++) {
		const struct call *c = &e->call[i];
		if (c->choice != choice)
			continue;
		if (!any) {
			sbx_jw_name(w, "tool_calls");
			sbx_jw_open(w, '[');
		}
		any = true;
		sbx_jw_open(w, '{');
		sbx_jw_name(w, "id");
		sbx_jw_text(w, content_of(&c->id));
		sbx_jw_name(w, "type");
		sbx_jw_literal(w, "\"function\"");
		sbx_jw_name(w, "function");
		sbx_jw_open(w, '{');
		sbx_jw_name(w, "name");
		sbx_jw_text(w, content_of(&c->name));
		sbx_jw_name(w, "arguments");
		sbx_jw_text(w, c->arguments.n ? content_of(&c->arguments) : SBX_SPAN("{}"));
		sbx_jw_close(w, '}');
		sbx_jw_close(w, '}');
	}
	if (any)
		sbx_jw_close(w, ']');
}

static void
write_choice(const struct sbx_encoder *e, struct sbx_json_writer *w, uint32_t number)
{
	const struct choice *c = &e->choice[number];
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "index");
	sbx_jw_int(w, number);
	sbx_jw_name(w, "message");
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "role");
	sbx_jw_literal(w, "\"assistant\"");
	sbx_jw_name(w, "content");
	if (c->text.n)
		sbx_jw_text(w, content_of(&c->text));
	else
		sbx_jw_literal(w, "null");
	sbx_jw_name(w, "refusal");
	if (c->refusal.n)
		sbx_jw_text(w, content_of(&c->refusal));
	else
		sbx_jw_literal(w, "null");
	if (c->reasoning.n) {
		sbx_jw_name(w, "reasoning");
		sbx_jw_text(w, content_of(&c->reasoning));
	}
	if (c->details.n) {
		sbx_jw_name(w, "reasoning_details");
		sbx_jw_open(w, '[');
		sbx_jw_value(w, content_of(&c->details));
		sbx_jw_close(w, ']');
	}
	write_calls(e, w, number);
	sbx_jw_close(w, '}');
	write_finish(w, c->finish);
	sbx_jw_close(w, '}');
}

static void
write_body(struct sbx_encoder *e)
{
	struct sbx_json_writer w = sbx_json_writer(e->out);
	write_head(e, &w, "chat.completion");
	for (uint32_t i = 0; i < e->n_choices; i++)
		write_choice(e, &w, i);
	sbx_jw_close(&w, ']');
	if (e->usage_given)
		write_usage(&w, &e->usage);
	sbx_jw_close(&w, '}');
	e->rc = w.rc;
}

/* ---- embeddings ---- */

static void
gather_vector(struct sbx_encoder *e, const struct sbx_hub_event *ev)
{
	struct sbx_json_writer w = sbx_json_writer(&e->vectors);
	w.follows = e->vectors.n > 0;
	sbx_jw_open(&w, '{');
	sbx_jw_name(&w, "object");
	sbx_jw_literal(&w, "\"embedding\"");
	sbx_jw_name(&w, "index");
	sbx_jw_int(&w, ev->index);
	sbx_jw_name(&w, "embedding");
	sbx_openai_chat_write_vector(&w, ev->text, e->opts.base64);
	sbx_jw_close(&w, '}');
	e->rc = w.rc;
}

static void
write_vectors(struct sbx_encoder *e)
{
	struct sbx_json_writer w = sbx_json_writer(e->out);
	sbx_jw_open(&w, '{');
	sbx_jw_name(&w, "object");
	sbx_jw_literal(&w, "\"list\"");
	sbx_jw_name(&w, "data");
	sbx_jw_open(&w, '[');
	if (e->vectors.n)
		sbx_jw_value(&w, content_of(&e->vectors));
	sbx_jw_close(&w, ']');
	sbx_jw_name(&w, "model");
	sbx_jw_text(&w, sbx_span_of(e->opts.model));
	if (e->usage_given) {
		const int64_t prompt = e->usage.prompt_tokens < 0 ? 0 : e->usage.prompt_tokens;
		sbx_jw_name(&w, "usage");
		sbx_jw_open(&w, '{');
		write_figure(&w, "prompt_tokens", prompt);
		write_figure(&w, "total_tokens", prompt);
		sbx_jw_close(&w, '}');
	}
	sbx_jw_close(&w, '}');
	e->rc = w.rc;
}

/* ---- events ---- */

int
sbx_openai_chat_encoder_event(struct sbx_encoder *e, const struct sbx_hub_event *ev)
{
	struct choice *c;
	if (e->rc)
		return e->rc;
	switch (ev->kind) {
	case SBX_HUB_TEXT:
	case SBX_HUB_REASONING:
	case SBX_HUB_DETAIL:
	case SBX_HUB_REFUSAL:
	case SBX_HUB_TOOL_CALL:
	case SBX_HUB_FINISH:
		c = choice_of(e, ev->choice);
		if (c && e->opts.stream)
			stream_piece(e, c, ev);
		else if (c)
			gather(e, c, ev);
		break;
	case SBX_HUB_VECTOR:
		gather_vector(e, ev);
		break;
	case SBX_HUB_USAGE:
		e->usage = *ev->usage;
		e->usage_given = true;
		break;
	case SBX_HUB_LIFECYCLE:
	case SBX_HUB_ERROR:
	case SBX_HUB_COMPLETE:
	case SBX_HUB_END:
	case SBX_HUB_WIRE:
		break;
	}
	return e->rc;
}

int
sbx_openai_chat_encoder_end(struct sbx_encoder *e)
{
	if (e->rc)
		return e->rc;
	if (e->opts.op == SBX_OP_EMBEDDINGS)
		write_vectors(e);
	else if (!e->opts.stream)
		write_body(e);
	else if (e->usage_given && e->opts.include_usage)
		stream_usage(e);
	if (e->rc == 0 && e->opts.stream)
		e->rc = sbx_buf_append(e->out, "data: [DONE]\n\n", 14);
	return e->rc;
}
