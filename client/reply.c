/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply.c -- see reply.h: the memory of a reply, the gathering of an answer, and the accessors of signalbox.h.
 */
#include "client/reply.h"

#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static size_t
count(const struct sbx_buf *array, size_t item_bytes)
{
	return array->n / item_bytes;
}

static void *
item(const struct sbx_buf *array, size_t i, size_t item_bytes)
{
	return (void *)(array->data + i * item_bytes); /* arrays are never consumed at the front: aligned as malloc gave it */
}

#define COUNT(array, type) count(&(array), sizeof(type))
#define ITEM(array, i, type) ((type *)item(&(array), (i), sizeof(type)))

static const char *
string_at(const struct sbx_reply *r, sbx_ref at)
{
	return at ? (const char *)r->strings.data + at : "";
}

/* Keeps a copy of the text. The first byte of the buffer is never a string's, so that 0 can mean "". */
int
sbx_reply_keep(struct sbx_reply *r, struct sbx_span text, sbx_ref *ret_at)
{
	if (text.n == 0) {
		*ret_at = 0;
		return 0;
	}
	size_t lead = r->strings.n == 0;
	uint8_t *room = sbx_buf_reserve(&r->strings, lead + text.n + 1);
	if (!room)
		return text.n + 2 > r->strings.max_bytes - r->strings.n ? -SBX_ETOOBIG : -SBX_ENOMEM;
	room[0] = 0;
	memcpy(room + lead, text.at, text.n);
	room[lead + text.n] = 0;
	*ret_at = (sbx_ref)(r->strings.n + lead);
	sbx_buf_commit(&r->strings, lead + text.n + 1);
	return 0;
}

/* Appends to a text of the answer and puts a NUL behind it. */
static int
append_text(struct sbx_reply *r, struct sbx_buf *to, struct sbx_span text)
{
	if (text.n > SBX_REPLY_TEXT_MAX_BYTES - r->gathered_bytes)
		return -SBX_ETOOBIG;
	uint8_t *room = sbx_buf_reserve(to, text.n + 1);
	if (!room)
		return -SBX_ENOMEM;
	if (text.n)
		memcpy(room, text.at, text.n);
	room[text.n] = 0;
	sbx_buf_commit(to, text.n);
	r->gathered_bytes += text.n;
	return 0;
}

/* A gathered text; b NULL = there is none. */
static const char *
text_of(const struct sbx_reply *r, const struct sbx_buf *b, size_t *ret_bytes)
{
	if (ret_bytes)
		*ret_bytes = b ? b->n : 0;
	if (b && b->data)
		return (const char *)b->data;
	return r->gathers ? "" : NULL;
}

struct sbx_reply *
sbx_reply_new(bool gathers)
{
	struct sbx_reply *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	r->gathers = gathers;
	sbx_buf_init(&r->strings, SBX_REPLY_TEXT_MAX_BYTES);
	sbx_buf_init(&r->attempts, sizeof(struct sbx_attempt_row) * SBX_FRAME_ELEMENTS_MAX);
	sbx_buf_init(&r->fields, sizeof(struct sbx_field_row) * SBX_FRAME_ELEMENTS_MAX);
	sbx_buf_init(&r->error_data, SBX_FRAME_MAX_BYTES);
	sbx_buf_init(&r->choices, sizeof(struct sbx_choice_row) * SBX_REPLY_CHOICES_MAX);
	sbx_buf_init(&r->calls, sizeof(struct sbx_call_row) * SBX_REPLY_CALLS_MAX);
	sbx_buf_init(&r->data, SBX_REPLY_TEXT_MAX_BYTES + 1);
	sbx_reply_clear(r);
	return r;
}

void
sbx_reply_clear_end(struct sbx_reply *r)
{
	r->ok = r->sent = r->retryable = r->has_error_data = false;
	r->code = SBX_CODE_NONE;
	r->code_word = r->message = r->target = r->finish = r->usage_raw = 0;
	memset(r->provider_said, 0, sizeof r->provider_said);
	r->status = 0;
	r->retry_after_ms = r->cost_nanousd = r->first_content_ms = -1;
	r->total_ms = 0;
	r->tokens = sbx_tokens_unknown;
	sbx_buf_clear(&r->attempts);
	sbx_buf_clear(&r->fields);
	sbx_buf_clear(&r->error_data);
}

void
sbx_reply_drop(struct sbx_reply *r)
{
	for (size_t i = 0; i < COUNT(r->choices, struct sbx_choice_row); i++) {
		struct sbx_choice_row *c = ITEM(r->choices, i, struct sbx_choice_row);
		sbx_buf_fini(&c->text);
		sbx_buf_fini(&c->reasoning);
		sbx_buf_fini(&c->refusal);
	}
	for (size_t i = 0; i < COUNT(r->calls, struct sbx_call_row); i++)
		sbx_buf_fini(&ITEM(r->calls, i, struct sbx_call_row)->arguments);
	sbx_buf_clear(&r->choices);
	sbx_buf_clear(&r->calls);
	sbx_buf_clear(&r->strings); /* before the end nothing but pieces has strings in it */
	sbx_buf_fini(&r->data);
	r->gathered_bytes = 0;
}

void
sbx_reply_clear(struct sbx_reply *r)
{
	sbx_reply_drop(r);
	sbx_reply_clear_end(r);
}

void
sbx_reply_free(struct sbx_reply *reply)
{
	if (!reply)
		return;
	sbx_reply_drop(reply);
	sbx_buf_fini(&reply->strings);
	sbx_buf_fini(&reply->attempts);
	sbx_buf_fini(&reply->fields);
	sbx_buf_fini(&reply->error_data);
	sbx_buf_fini(&reply->choices);
	sbx_buf_fini(&reply->calls);
	free(reply);
}

int
sbx_reply_set_lost(struct sbx_reply *r, bool sent, const char *message)
{
	sbx_reply_clear_end(r);
	r->code = SBX_CODE_AGENT_LOST;
	r->status = sbx_code_status(r->code);
	r->sent = sent;
	r->retryable = !sent;
	int rc = sbx_reply_keep(r, sbx_span_of(sbx_code_word(r->code)), &r->code_word);
	return rc ? rc : sbx_reply_keep(r, sbx_span_of(message), &r->message);
}

/* ---- pieces ---- */

static int
find_choice(struct sbx_reply *r, uint32_t number, struct sbx_choice_row **ret_choice)
{
	if (number >= SBX_REPLY_CHOICES_MAX)
		return -SBX_ETOOBIG;
	while (COUNT(r->choices, struct sbx_choice_row) <= number) {
		struct sbx_choice_row new = { .finish = 0 };
		sbx_buf_init(&new.text, SBX_REPLY_TEXT_MAX_BYTES + 1);
		sbx_buf_init(&new.reasoning, SBX_REPLY_TEXT_MAX_BYTES + 1);
		sbx_buf_init(&new.refusal, SBX_REPLY_TEXT_MAX_BYTES + 1);
		int rc = sbx_buf_append(&r->choices, &new, sizeof new);
		if (rc)
			return rc;
	}
	*ret_choice = ITEM(r->choices, number, struct sbx_choice_row);
	return 0;
}

static int
gather_call(struct sbx_reply *r, const struct sbx_piece *piece)
{
	struct sbx_call_row *call = NULL;
	/* From the last: fragments of one call mostly come in a row. */
	for (size_t i = COUNT(r->calls, struct sbx_call_row); !call && i-- > 0;) {
		struct sbx_call_row *other = ITEM(r->calls, i, struct sbx_call_row);
		if (other->choice == piece->choice && other->index == piece->index)
			call = other;
	}
	if (!call) {
		struct sbx_call_row new = { .choice = piece->choice, .index = piece->index };
		sbx_buf_init(&new.arguments, SBX_REPLY_TEXT_MAX_BYTES + 1);
		int rc = sbx_buf_append(&r->calls, &new, sizeof new);
		if (rc)
			return rc;
		call = ITEM(r->calls, COUNT(r->calls, struct sbx_call_row) - 1, struct sbx_call_row);
	}
	int rc = 0;
	if (piece->call_id.n && !call->id)
		rc = sbx_reply_keep(r, piece->call_id, &call->id);
	if (rc == 0 && piece->call_name.n && !call->name)
		rc = sbx_reply_keep(r, piece->call_name, &call->name);
	return rc ? rc : append_text(r, &call->arguments, piece->text);
}

int
sbx_reply_gather(struct sbx_reply *r, const struct sbx_piece *piece)
{
	if (piece->note == SBX_NOTE_TARGET)
		return 0; /* DONE says who answered in the end */
	if (piece->note == SBX_NOTE_DATA)
		return append_text(r, &r->data, piece->text);
	struct sbx_choice_row *choice;
	int rc = find_choice(r, piece->choice, &choice);
	if (rc)
		return rc;
	switch (piece->note) {
	case SBX_NOTE_TEXT:
		return append_text(r, &choice->text, piece->text);
	case SBX_NOTE_REASONING:
		return append_text(r, &choice->reasoning, piece->text);
	case SBX_NOTE_REFUSAL:
		return append_text(r, &choice->refusal, piece->text);
	case SBX_NOTE_TOOL_CALL:
		return gather_call(r, piece);
	case SBX_NOTE_FINISH:
		return sbx_reply_keep(r, piece->text, &choice->finish);
	default:
		return 0;
	}
}

/* ---- accessors ---- */

bool
sbx_reply_ok(const struct sbx_reply *r)
{
	return r->ok;
}

enum sbx_code
sbx_reply_code(const struct sbx_reply *r)
{
	return r->code;
}

const char *
sbx_reply_code_word(const struct sbx_reply *r)
{
	return string_at(r, r->code_word);
}

int
sbx_reply_status(const struct sbx_reply *r)
{
	return r->status;
}

const char *
sbx_reply_message(const struct sbx_reply *r)
{
	return string_at(r, r->message);
}

int64_t
sbx_reply_retry_after_ms(const struct sbx_reply *r)
{
	return r->retry_after_ms;
}

bool
sbx_reply_retryable(const struct sbx_reply *r)
{
	return r->retryable;
}

bool
sbx_reply_sent(const struct sbx_reply *r)
{
	return r->sent;
}

const char *
sbx_reply_provider_error(const struct sbx_reply *r, const char *field)
{
	for (size_t i = 0; i < SBX_PROVIDER_WORDS; i++) {
		if (strcmp(field, sbx_provider_words[i]) == 0)
			return string_at(r, r->provider_said[i]);
	}
	return "";
}

static const struct sbx_choice_row *
choice_of(const struct sbx_reply *r, uint32_t number)
{
	return number < COUNT(r->choices, struct sbx_choice_row) ? ITEM(r->choices, number, struct sbx_choice_row) : NULL;
}

const char *
sbx_reply_text(const struct sbx_reply *r, uint32_t choice, size_t *ret_bytes)
{
	const struct sbx_choice_row *c = choice_of(r, choice);
	return text_of(r, c ? &c->text : NULL, ret_bytes);
}

const char *
sbx_reply_reasoning(const struct sbx_reply *r, uint32_t choice, size_t *ret_bytes)
{
	const struct sbx_choice_row *c = choice_of(r, choice);
	return text_of(r, c ? &c->reasoning : NULL, ret_bytes);
}

const char *
sbx_reply_refusal(const struct sbx_reply *r, uint32_t choice, size_t *ret_bytes)
{
	const struct sbx_choice_row *c = choice_of(r, choice);
	return text_of(r, c ? &c->refusal : NULL, ret_bytes);
}

const char *
sbx_reply_finish(const struct sbx_reply *r, uint32_t choice)
{
	const struct sbx_choice_row *c = choice_of(r, choice);
	if (c && c->finish)
		return string_at(r, c->finish);
	return choice == 0 ? string_at(r, r->finish) : ""; /* DONE has that of the first choice */
}

const char *
sbx_reply_data(const struct sbx_reply *r, size_t *ret_bytes)
{
	if (!r->has_error_data)
		return text_of(r, &r->data, ret_bytes);
	if (ret_bytes)
		*ret_bytes = r->error_data.n - 1; /* a NUL ends it */
	return (const char *)r->error_data.data;
}

uint32_t
sbx_reply_choices(const struct sbx_reply *r)
{
	return (uint32_t)COUNT(r->choices, struct sbx_choice_row);
}

uint32_t
sbx_reply_tool_calls(const struct sbx_reply *r)
{
	return (uint32_t)COUNT(r->calls, struct sbx_call_row);
}

bool
sbx_reply_tool_call(const struct sbx_reply *r, uint32_t i, struct sbx_tool_call *ret_call)
{
	if (i >= COUNT(r->calls, struct sbx_call_row))
		return false;
	const struct sbx_call_row *call = ITEM(r->calls, i, struct sbx_call_row);
	*ret_call = (struct sbx_tool_call){
		.choice = call->choice,
		.id = string_at(r, call->id),
		.name = string_at(r, call->name),
		.arguments = text_of(r, &call->arguments, NULL),
	};
	return true;
}

const char *
sbx_reply_target(const struct sbx_reply *r)
{
	return string_at(r, r->target);
}

struct sbx_tokens
sbx_reply_tokens(const struct sbx_reply *r)
{
	return r->tokens;
}

const char *
sbx_reply_usage_raw(const struct sbx_reply *r)
{
	return string_at(r, r->usage_raw);
}

int64_t
sbx_reply_cost_nanousd(const struct sbx_reply *r)
{
	return r->cost_nanousd;
}

uint32_t
sbx_reply_total_ms(const struct sbx_reply *r)
{
	return r->total_ms;
}

int64_t
sbx_reply_first_content_ms(const struct sbx_reply *r)
{
	return r->first_content_ms;
}

uint32_t
sbx_reply_attempts(const struct sbx_reply *r)
{
	return (uint32_t)COUNT(r->attempts, struct sbx_attempt_row);
}

bool
sbx_reply_attempt(const struct sbx_reply *r, uint32_t i, struct sbx_attempt_info *ret_attempt)
{
	if (i >= COUNT(r->attempts, struct sbx_attempt_row))
		return false;
	const struct sbx_attempt_row *a = ITEM(r->attempts, i, struct sbx_attempt_row);
	*ret_attempt = (struct sbx_attempt_info){
		.target = string_at(r, a->target),
		.outcome = string_at(r, a->outcome),
		.status = a->status,
		.started_ms = a->started_ms,
		.ended_ms = a->ended_ms,
		.first_content_ms = a->first_content_ms,
		.connection = string_at(r, a->connection),
		.message = string_at(r, a->message),
		.tokens = a->tokens,
		.cost_nanousd = a->cost_nanousd,
	};
	return true;
}

bool
sbx_reply_field(const struct sbx_reply *r, uint32_t i, const char **ret_name, const char **ret_text, int64_t *ret_number)
{
	if (i >= COUNT(r->fields, struct sbx_field_row))
		return false;
	const struct sbx_field_row *f = ITEM(r->fields, i, struct sbx_field_row);
	*ret_name = string_at(r, f->name);
	*ret_text = f->is_text ? string_at(r, f->text) : NULL;
	*ret_number = f->number;
	return true;
}

static const struct sbx_field_row *
find_field(const struct sbx_reply *r, const char *name, bool is_text)
{
	for (size_t i = 0; i < COUNT(r->fields, struct sbx_field_row); i++) {
		const struct sbx_field_row *f = ITEM(r->fields, i, struct sbx_field_row);
		if (f->is_text == is_text && strcmp(string_at(r, f->name), name) == 0)
			return f;
	}
	return NULL;
}

bool
sbx_reply_number(const struct sbx_reply *r, const char *name, int64_t *ret_number)
{
	const struct sbx_field_row *f = find_field(r, name, false);
	if (f)
		*ret_number = f->number;
	return f != NULL;
}

bool
sbx_reply_string(const struct sbx_reply *r, const char *name, const char **ret_text)
{
	const struct sbx_field_row *f = find_field(r, name, true);
	if (f)
		*ret_text = string_at(r, f->text);
	return f != NULL;
}
