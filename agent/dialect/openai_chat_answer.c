/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat_answer.c -- one JSON object of an answer into hub events.
 *
 * A chunk of a stream and a whole body differ little: what is `delta` in one is `message` in the other. Members that are
 * not known here are skipped; they reach the client in the WIRE event.
 *
 * Tool calls. A fragment belongs to the call with its index; without an index to the one with its id; never to "the
 * latest". Imitators give no index (Mistral, Gemini), no id (Gemini), an empty id on later fragments (Qwen), or the same
 * index to every call: so a fragment with another id *and* a name begins a new call whatever its index says. A fragment
 * that fits nowhere marks the answer as lossy rather than being guessed into a place.
 */
#include "agent/dialect/openai_chat.h"

#include <stdlib.h>

#include <signalbox/errors.h>

#include "agent/dialect/provider_error.h"

#define KEEP_TEXT_BYTES 4096 /* memory for unescaping kept between events: a stream at rest costs little */
#define CALLS_FIRST     4

enum { KEY_NO_INDEX = -1, KEY_FUNCTION = -2 /* the legacy function_call: there is one */ };

/* A choice being read. */
struct reading {
	struct sbx_answer *a;
	struct sbx_answer_step *step;
	uint32_t choice;
	bool whole; /* of a whole message: every element of tool_calls is a call of its own */
};

static void
fail_with(struct sbx_answer *a, enum sbx_error_kind kind, const char *message)
{
	struct sbx_provider_error error;
	sbx_provider_error_set(&error, kind, 200, message);
	sbx_answer_fail(a, &error);
}

static void
fail_json(struct sbx_answer *a, struct sbx_span root)
{
	struct sbx_provider_error error;
	sbx_provider_error_from_json(200, root, &error);
	sbx_answer_fail(a, &error);
}

static void
emit(struct sbx_answer *a, struct sbx_answer_step *step, const struct sbx_hub_event *ev)
{
	step->meant = true;
	a->emit(a->arg, ev);
}

static void
emit_content(struct reading *r, const struct sbx_hub_event *ev)
{
	r->step->content = true;
	r->a->choice[r->choice] |= SBX_CHOICE_CONTENT;
	emit(r->a, r->step, ev);
}

/* A string's text in place, or unescaped behind what a->text holds. False after failing the answer. */
static bool
text_of(struct sbx_answer *a, struct sbx_span value, struct sbx_span *ret_text)
{
	*ret_text = (struct sbx_span){NULL, 0};
	if (!a->opts->want_text || sbx_json_type(value) != SBX_JSON_STRING || sbx_json_string_peek(value, ret_text))
		return true;
	size_t before = a->text.n;
	int rc = sbx_json_string_append(value, &a->text);
	if (rc) {
		fail_with(a, SBX_KIND_TOO_BIG, rc == -SBX_ENOMEM ? "out of memory" : "a text above its limit");
		return false;
	}
	*ret_text = (struct sbx_span){(const char *)a->text.data + before, a->text.n - before};
	return true;
}

/* ==== text ==== */

static bool
is_text(struct sbx_span value)
{
	return sbx_json_type(value) == SBX_JSON_STRING && value.n > 2;
}

static void
emit_text(struct reading *r, enum sbx_hub_kind kind, struct sbx_span value)
{
	struct sbx_hub_event ev = {.kind = kind, .choice = r->choice};
	if (!is_text(value) || r->a->failed)
		return;
	sbx_buf_clear(&r->a->text);
	if (text_of(r->a, value, &ev.text))
		emit_content(r, &ev);
}

/* Text in a list of parts. Mistral's content: {type:text,text} and {type:thinking,thinking:[{type:text,text}]}; OpenRouter's
 * reasoning_details: {text} and {summary}. */
static void
emit_parts(struct reading *r, enum sbx_hub_kind kind, struct sbx_span parts)
{
	struct sbx_json_iter it = sbx_json_array_iter(parts);
	struct sbx_span part, text;
	while (sbx_json_array_next(&it, &part)) {
		if (sbx_json_get(part, "text", &text) ||
		    (kind == SBX_HUB_REASONING && sbx_json_get(part, "summary", &text))) {
			emit_text(r, kind, text);
		} else if (kind == SBX_HUB_TEXT && sbx_json_get(part, "thinking", &text)) {
			emit_text(r, SBX_HUB_REASONING, text);
			emit_parts(r, SBX_HUB_REASONING, text);
		}
	}
}

/* ==== tool calls ==== */

/* FNV-1a of an id as it is spelled; never 0. */
static uint64_t
hash_id(struct sbx_span id)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	for (size_t i = 0; i < id.n; i++)
		h = (h ^ (unsigned char)id.at[i]) * UINT64_C(0x100000001b3);
	return h ? h : 1;
}

static struct sbx_tool_call *
begin_call(struct reading *r, int64_t key, uint64_t id_hash)
{
	struct sbx_answer *a = r->a;
	if (a->n_calls == a->cap_calls) {
		uint32_t cap = a->cap_calls ? 2 * a->cap_calls : CALLS_FIRST;
		struct sbx_tool_call *calls = cap <= SBX_TOOL_CALLS_MAX ? realloc(a->calls, cap * sizeof *calls) : NULL;
		if (!calls) {
			fail_with(a, SBX_KIND_TOO_BIG, cap <= SBX_TOOL_CALLS_MAX ? "out of memory" : "too many tool calls");
			return NULL;
		}
		a->calls = calls;
		a->cap_calls = cap;
	}
	uint32_t number = 0;
	for (uint32_t i = 0; i < a->n_calls; i++)
		number += a->calls[i].choice == r->choice;
	a->last_call = a->n_calls;
	a->calls[a->n_calls] = (struct sbx_tool_call){.choice = r->choice, .number = number, .key = key, .id_hash = id_hash};
	return &a->calls[a->n_calls++];
}

/* Whether the fragment goes on with that call. */
static bool
continues(const struct reading *r, const struct sbx_tool_call *call, int64_t key, uint64_t id_hash, bool named)
{
	if (call->choice != r->choice)
		return false;
	bool other_id = id_hash && call->id_hash && id_hash != call->id_hash;
	if (key != KEY_NO_INDEX)
		return call->key == key && !(other_id && named);
	return id_hash && call->id_hash == id_hash;
}

/* The call that a fragment belongs to, perhaps a new one; NULL when it cannot be told, or after failing. */
static struct sbx_tool_call *
place_fragment(struct reading *r, int64_t key, uint64_t id_hash, bool named)
{
	struct sbx_answer *a = r->a;
	if (!r->whole) {
		if (a->last_call < a->n_calls && continues(r, &a->calls[a->last_call], key, id_hash, named))
			return &a->calls[a->last_call];
		for (uint32_t i = a->n_calls; i-- > 0;) { /* from the end: an index used twice means the later call */
			if (continues(r, &a->calls[i], key, id_hash, named)) {
				a->last_call = i;
				return &a->calls[i];
			}
		}
		if (key == KEY_NO_INDEX && !id_hash && !named) {
			/* Nothing to tell by: certain only while there is one call in the answer. */
			if (a->n_calls == 1 && a->calls[0].choice == r->choice)
				return &a->calls[0];
			a->lost = true;
			return NULL;
		}
	}
	return begin_call(r, key, id_hash);
}

static void
read_call(struct reading *r, struct sbx_span fragment, int64_t key)
{
	struct sbx_span function = fragment, id = {NULL, 0}, call_name = {NULL, 0}, arguments = {NULL, 0}, name, value;
	struct sbx_json_iter it = sbx_json_object_iter(fragment);
	int64_t index;

	if (key == KEY_NO_INDEX) {
		while (sbx_json_object_next(&it, &name, &value)) {
			if (sbx_json_string_eq(name, "index") && sbx_json_int64(value, &index) && index >= 0)
				key = index;
			else if (sbx_json_string_eq(name, "id") && is_text(value))
				id = value;
			else if (sbx_json_string_eq(name, "function"))
				function = value;
		}
		it = sbx_json_object_iter(function);
	}
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "name") && is_text(value))
			call_name = value;
		else if (sbx_json_string_eq(name, "arguments"))
			arguments = value;
	}
	if (!id.n && !call_name.n && !arguments.n)
		return;
	if (id.n + call_name.n > SBX_CALL_NAMES_MAX_BYTES) {
		fail_with(r->a, SBX_KIND_TOO_BIG, "a tool call's id or name above its limit");
		return;
	}
	struct sbx_tool_call *call = place_fragment(r, key, id.n ? hash_id(id) : 0, call_name.n > 0);
	if (!call)
		return;

	struct sbx_hub_event ev = {.kind = SBX_HUB_TOOL_CALL, .choice = r->choice, .index = call->number};
	bool first_id = id.n && (!call->named || !call->id_hash); /* the id may come behind the name, or the name behind the id */
	bool first_name = call_name.n && !call->named;
	call->named |= first_name;
	if (id.n && !call->id_hash)
		call->id_hash = hash_id(id);
	struct sbx_answer *a = r->a;
	sbx_buf_clear(&a->text);
	if (a->opts->want_text && !sbx_buf_reserve(&a->text, id.n + call_name.n + arguments.n)) { /* the three stay in place */
		fail_with(a, SBX_KIND_TOO_BIG, "out of memory");
		return;
	}
	if (first_id && !text_of(a, id, &ev.id))
		return;
	if (first_name && !text_of(a, call_name, &ev.name))
		return;
	if (sbx_json_type(arguments) == SBX_JSON_OBJECT) /* some local servers forget to make a string of it */
		ev.text = a->opts->want_text ? arguments : (struct sbx_span){NULL, 0};
	else if (!text_of(a, arguments, &ev.text))
		return;
	emit_content(r, &ev);
}

/* ==== a choice ==== */

static bool
holds_something(struct sbx_span value)
{
	return (sbx_json_type(value) == SBX_JSON_OBJECT || sbx_json_type(value) == SBX_JSON_ARRAY) && value.n > 2;
}

static void
read_message(struct reading *r, struct sbx_span message)
{
	struct sbx_span content = {NULL, 0}, reasoning = {NULL, 0}, refusal = {NULL, 0}, calls = {NULL, 0}, call = {NULL, 0};
	struct sbx_span details = {NULL, 0}, name, value;
	struct sbx_json_iter it = sbx_json_object_iter(message);
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "content"))
			content = value;
		else if (sbx_json_string_eq(name, "reasoning_content") && is_text(value))
			reasoning = value;
		else if (sbx_json_string_eq(name, "reasoning") && is_text(value) && !reasoning.n) /* some send both: the same text */
			reasoning = value;
		else if (sbx_json_string_eq(name, "reasoning_details"))
			details = value;
		else if (sbx_json_string_eq(name, "refusal"))
			refusal = value;
		else if (sbx_json_string_eq(name, "tool_calls"))
			calls = value;
		else if (sbx_json_string_eq(name, "function_call"))
			call = value;
		else if ((sbx_json_string_eq(name, "audio") || sbx_json_string_eq(name, "images")) && holds_something(value))
			r->step->content = true; /* content without an event of its own: WIRE carries it */
	}
	if (reasoning.n)
		emit_text(r, SBX_HUB_REASONING, reasoning);
	else
		emit_parts(r, SBX_HUB_REASONING, details);
	emit_text(r, SBX_HUB_TEXT, content);
	emit_parts(r, SBX_HUB_TEXT, content);
	emit_text(r, SBX_HUB_REFUSAL, refusal);
	it = sbx_json_array_iter(calls);
	while (!r->a->failed && sbx_json_array_next(&it, &value))
		read_call(r, value, KEY_NO_INDEX);
	if (!r->a->failed && sbx_json_type(call) == SBX_JSON_OBJECT)
		read_call(r, call, KEY_FUNCTION);
}

static const struct finish_word {
	const char *word;
	enum sbx_finish finish;
} finish_words[] = {
	{"stop", SBX_FINISH_STOP},
	{"eos", SBX_FINISH_STOP}, /* Together */
	{"end_turn", SBX_FINISH_STOP},
	{"stop_sequence", SBX_FINISH_STOP},
	{"length", SBX_FINISH_LENGTH},
	{"max_tokens", SBX_FINISH_LENGTH},
	{"model_length", SBX_FINISH_LENGTH}, /* Mistral */
	{"tool_calls", SBX_FINISH_TOOL_CALLS},
	{"tool_use", SBX_FINISH_TOOL_CALLS},
	{"content_filter", SBX_FINISH_CONTENT_FILTER},
	{"refusal", SBX_FINISH_CONTENT_FILTER},
	{"safety", SBX_FINISH_CONTENT_FILTER},
	{"function_call", SBX_FINISH_FUNCTION_CALL},
};

static void
read_finish(struct reading *r, struct sbx_span reason)
{
	struct sbx_hub_event ev = {.kind = SBX_HUB_FINISH, .choice = r->choice, .finish = SBX_FINISH_OTHER};
	uint8_t *flags = &r->a->choice[r->choice];
	if (!is_text(reason) || (*flags & SBX_CHOICE_FINISHED)) /* OpenRouter repeats it beside the usage */
		return;
	if (sbx_json_string_eq(reason, "error")) {
		fail_with(r->a, SBX_KIND_SERVER, "the provider ended the answer with finish_reason \"error\"");
		return;
	}
	for (size_t i = 0; i < sizeof finish_words / sizeof finish_words[0]; i++)
		if (sbx_json_string_eq(reason, finish_words[i].word))
			ev.finish = finish_words[i].finish;
	ev.finish_raw = (struct sbx_span){reason.at + 1, reason.n - 2};
	*flags |= SBX_CHOICE_FINISHED;
	r->a->n_finished++;
	emit(r->a, r->step, &ev);
}

static void
read_choice(struct sbx_answer *a, struct sbx_answer_step *step, struct sbx_span choice, int form, uint32_t position,
	    struct sbx_span *ret_usage)
{
	struct sbx_span delta = {NULL, 0}, message = {NULL, 0}, text = {NULL, 0}, reason = {NULL, 0}, error = {NULL, 0}, name, value;
	struct sbx_json_iter it = sbx_json_object_iter(choice);
	int64_t index = position;
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "index"))
			(void)sbx_json_int64(value, &index); /* missing or null: its position stands */
		else if (sbx_json_string_eq(name, "delta"))
			delta = value;
		else if (sbx_json_string_eq(name, "message"))
			message = value;
		else if (sbx_json_string_eq(name, "text"))
			text = value;
		else if (sbx_json_string_eq(name, "finish_reason"))
			reason = value;
		else if (sbx_json_string_eq(name, "usage") && sbx_json_type(value) == SBX_JSON_OBJECT)
			*ret_usage = value;
		else if (sbx_json_string_eq(name, "error"))
			error = value;
	}
	if (sbx_provider_error_given(error) && !a->complete) {
		fail_json(a, choice);
		return;
	}
	if (index < 0 || index >= SBX_CHOICES_MAX) {
		a->lost = true;
		return;
	}
	struct reading r = {.a = a, .step = step, .choice = (uint32_t)index, .whole = form == SBX_ANSWER_BODY};
	uint8_t *flags = &a->choice[index];
	step->has_choices = true;
	a->n_seen += !(*flags & SBX_CHOICE_SEEN);
	*flags |= SBX_CHOICE_SEEN;
	if (a->opts->op == SBX_OP_COMPLETIONS) {
		emit_text(&r, SBX_HUB_TEXT, text);
	} else if (form == SBX_ANSWER_BODY) {
		read_message(&r, message);
	} else if (sbx_json_type(delta) == SBX_JSON_OBJECT) {
		read_message(&r, delta); /* a message beside it (Perplexity's last chunk) repeats the whole */
	} else if (!(*flags & SBX_CHOICE_CONTENT)) {
		r.whole = true; /* a whole answer in one event */
		read_message(&r, message);
	}
	if (!a->failed)
		read_finish(&r, reason);
}

/* A vector, as numbers or as base64. */
static void
read_embedding(struct sbx_answer *a, struct sbx_answer_step *step, struct sbx_span embedding, int form, uint32_t position,
	       struct sbx_span *ret_usage)
{
	struct sbx_hub_event ev = {.kind = SBX_HUB_VECTOR, .index = position};
	struct sbx_span vector, value;
	int64_t index;
	(void)form;
	(void)ret_usage;
	if (!sbx_json_get(embedding, "embedding", &vector) || (!holds_something(vector) && !is_text(vector))) {
		a->lost = true;
		return;
	}
	step->has_choices = step->content = true;
	if (sbx_json_get(embedding, "index", &value) && sbx_json_int64(value, &index) && index >= 0 && index <= UINT32_MAX)
		ev.index = (uint32_t)index;
	if (a->opts->want_text)
		ev.text = vector;
	emit(a, step, &ev);
}

const struct sbx_openai_op sbx_openai_ops[SBX_OP__COUNT] = {
	[SBX_OP_CHAT] = {"messages", false, true, "choices", read_choice},
	[SBX_OP_COMPLETIONS] = {"prompt", true, true, "choices", read_choice},
	[SBX_OP_EMBEDDINGS] = {"input", true, false, "data", read_embedding},
};

static void
read_usage(struct sbx_answer *a, struct sbx_answer_step *step, struct sbx_span usage)
{
	struct sbx_usage u;
	struct sbx_hub_event ev = {.kind = SBX_HUB_USAGE, .usage = &u, .usage_raw = usage};
	if (!sbx_openai_chat_read_usage(usage, &a->opts->quirks, &u))
		return;
	a->usage_seen = true;
	step->only_usage = !step->has_choices;
	emit(a, step, &ev);
}

void
sbx_answer_init(struct sbx_answer *a, const struct sbx_decode_opts *opts, sbx_hub_fn *emit_fn, void *arg)
{
	memset(a, 0, sizeof *a);
	a->opts = opts;
	a->emit = emit_fn;
	a->arg = arg;
	sbx_buf_init(&a->text, SBX_BODY_MAX_BYTES);
}

void
sbx_answer_fini(struct sbx_answer *a)
{
	free(a->calls);
	sbx_buf_fini(&a->text);
}

void
sbx_answer_fail(struct sbx_answer *a, const struct sbx_provider_error *error)
{
	struct sbx_hub_event ev = {.kind = SBX_HUB_ERROR, .error = error};
	a->failed = true;
	a->emit(a->arg, &ev);
}

void
sbx_answer_read(struct sbx_answer *a, struct sbx_span root, int form, bool error_type, struct sbx_answer_step *ret_step)
{
	const struct sbx_openai_op *op = &sbx_openai_ops[a->opts->op];
	struct sbx_span elements = {NULL, 0}, error = {NULL, 0}, usage = {NULL, 0}, x_groq = {NULL, 0}, inner_usage = {NULL, 0};
	struct sbx_span object = root, name, value;
	struct sbx_json_iter it = sbx_json_array_iter(root);
	bool is_error = error_type;

	*ret_step = (struct sbx_answer_step){.content = false};
	(void)sbx_json_array_next(&it, &object); /* [{"error":...}]: Gemini */
	it = sbx_json_object_iter(object);
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, op->holds))
			elements = value;
		else if (sbx_json_string_eq(name, "error"))
			error = value;
		else if (sbx_json_string_eq(name, "usage"))
			usage = value;
		else if (sbx_json_string_eq(name, "x_groq"))
			x_groq = value;
		else if (sbx_json_string_eq(name, "object"))
			is_error |= sbx_json_string_eq(value, "error");
	}
	if (is_error || sbx_provider_error_given(error)) {
		if (a->complete)
			ret_step->skip = true;
		else
			fail_json(a, object);
		return;
	}
	it = sbx_json_array_iter(elements);
	for (uint32_t i = 0; !a->failed && sbx_json_array_next(&it, &value); i++)
		op->read_element(a, ret_step, value, form, i, &inner_usage);
	if (!a->failed && sbx_json_type(usage) != SBX_JSON_OBJECT && !sbx_json_get(x_groq, "usage", &usage))
		usage = inner_usage;
	if (!a->failed)
		read_usage(a, ret_step, usage);
	sbx_buf_clear(&a->text);
	sbx_buf_trim(&a->text, KEEP_TEXT_BYTES);
}
