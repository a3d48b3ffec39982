/* SPDX-License-Identifier: Apache-2.0 */
/*
 * reply_read.c -- what a frame of the agent says: an EVENT becomes a piece, a DONE, ERROR, STATS or RELOADED a reply.
 *
 * What an agent of a later version adds is ignored; a known member of the wrong type is not (-SBX_EPROTO), since an answer
 * with a silent hole is worse than none.
 */
#include "client/reply.h"

#include <stdio.h>
#include <string.h>

const char *const sbx_provider_words[SBX_PROVIDER_WORDS] = { "type", "code", "param", "message", "provider", "status" };
const struct sbx_tokens sbx_tokens_unknown = { -1, -1, -1, -1, -1, -1, false, false };

/* Each takes one value: 0, or -SBX_EPROTO for a wrong type. nil leaves *ret as it is. */
static int
take_text(const struct sbx_value *v, struct sbx_span *ret)
{
	if (v->type == SBX_NIL)
		return 0;
	if (v->type != SBX_STR)
		return -SBX_EPROTO;
	*ret = v->bytes;
	return 0;
}

static int
take_kept(struct sbx_reply *r, const struct sbx_value *v, sbx_ref *ret)
{
	struct sbx_span text = { NULL, 0 };
	int rc = take_text(v, &text);
	return rc ? rc : sbx_reply_keep(r, text, ret);
}

static int
take_int(const struct sbx_value *v, int64_t *ret)
{
	if (v->type == SBX_NIL)
		return 0;
	if (v->type != SBX_UINT && v->type != SBX_INT)
		return -SBX_EPROTO;
	*ret = v->type == SBX_UINT && v->u > INT64_MAX ? INT64_MAX : (int64_t)v->u;
	return 0;
}

static int
take_u32(const struct sbx_value *v, uint32_t *ret)
{
	int64_t n = *ret;
	int rc = take_int(v, &n);
	if (rc || n < 0)
		return -SBX_EPROTO;
	*ret = n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
	return 0;
}

static int
take_status(const struct sbx_value *v, int *ret)
{
	uint32_t n = (uint32_t)*ret;
	int rc = take_u32(v, &n);
	if (rc == 0)
		*ret = n > 999 ? 999 : (int)n;
	return rc;
}

static int
take_bool(const struct sbx_value *v, bool *ret)
{
	if (v->type == SBX_NIL)
		return 0;
	if (v->type != SBX_BOOL)
		return -SBX_EPROTO;
	*ret = v->truth;
	return 0;
}

static int
take_tokens(const struct sbx_value *v, struct sbx_tokens *ret)
{
	if (v->type == SBX_NIL)
		return 0;
	if (v->type != SBX_MAP)
		return -SBX_EPROTO;
	struct sbx_tokens t = sbx_tokens_unknown;
	const struct {
		const char *key;
		int64_t *to;
	} counts[] = {
		{ "prompt_tokens", &t.prompt },   { "completion_tokens", &t.completion },   { "total_tokens", &t.total },
		{ "cached_tokens", &t.cached },   { "cache_write_tokens", &t.cache_write }, { "reasoning_tokens", &t.reasoning },
	};
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_span key;
	struct sbx_value value;
	int rc = 0;
	while (rc == 0 && sbx_next_pair(&c, &key, &value)) {
		for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
			if (sbx_span_is(key, counts[i].key))
				rc = take_int(&value, counts[i].to);
		}
		if (sbx_span_is(key, "estimated"))
			rc = take_bool(&value, &t.estimated);
		else if (sbx_span_is(key, "clamped"))
			rc = take_bool(&value, &t.clamped);
	}
	if (rc == 0)
		*ret = t;
	return rc;
}

static int
take_attempt(struct sbx_reply *r, const struct sbx_value *v)
{
	struct sbx_attempt_row a = { .first_content_ms = -1, .cost_nanousd = -1, .tokens = sbx_tokens_unknown };
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_span key;
	struct sbx_value value;
	int rc = v->type == SBX_MAP ? 0 : -SBX_EPROTO;
	while (rc == 0 && sbx_next_pair(&c, &key, &value)) {
		if (sbx_span_is(key, "target"))
			rc = take_kept(r, &value, &a.target);
		else if (sbx_span_is(key, "class"))
			rc = take_kept(r, &value, &a.outcome);
		else if (sbx_span_is(key, "status"))
			rc = take_status(&value, &a.status);
		else if (sbx_span_is(key, "started_ms"))
			rc = take_u32(&value, &a.started_ms);
		else if (sbx_span_is(key, "ended_ms"))
			rc = take_u32(&value, &a.ended_ms);
		else if (sbx_span_is(key, "first_content_ms"))
			rc = take_int(&value, &a.first_content_ms);
		else if (sbx_span_is(key, "usage"))
			rc = take_tokens(&value, &a.tokens);
		else if (sbx_span_is(key, "cost_nanousd"))
			rc = take_int(&value, &a.cost_nanousd);
		else if (sbx_span_is(key, "connection"))
			rc = take_kept(r, &value, &a.connection);
		else if (sbx_span_is(key, "message"))
			rc = take_kept(r, &value, &a.message);
	}
	return rc ? rc : sbx_buf_append(&r->attempts, &a, sizeof a);
}

static int
take_attempts(struct sbx_reply *r, const struct sbx_value *v)
{
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_value value;
	int rc = v->type == SBX_ARRAY || v->type == SBX_NIL ? 0 : -SBX_EPROTO;
	while (rc == 0 && sbx_next_item(&c, &value))
		rc = take_attempt(r, &value);
	return rc;
}

static int
take_provider_error(struct sbx_reply *r, const struct sbx_value *v)
{
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_span key;
	struct sbx_value value;
	int rc = v->type == SBX_MAP || v->type == SBX_NIL ? 0 : -SBX_EPROTO;
	while (rc == 0 && sbx_next_pair(&c, &key, &value)) {
		for (size_t i = 0; i < SBX_PROVIDER_WORDS; i++) {
			if (!sbx_span_is(key, sbx_provider_words[i]))
				continue;
			char digits[24];
			struct sbx_span text = value.bytes;
			if (value.type == SBX_UINT || value.type == SBX_INT) { /* some providers have numbers for codes */
				(void)snprintf(digits, sizeof digits, "%lld", (long long)value.u);
				text = sbx_span_of(digits);
			} else if (value.type == SBX_NIL) {
				text = (struct sbx_span){ NULL, 0 };
			} else if (value.type != SBX_STR) {
				rc = -SBX_EPROTO;
				break;
			}
			rc = sbx_reply_keep(r, text, &r->provider_said[i]);
		}
	}
	return rc;
}

static int
take_error_data(struct sbx_reply *r, const struct sbx_value *v)
{
	static const char end[1];
	if (v->type == SBX_NIL)
		return 0;
	if (v->type != SBX_BIN && v->type != SBX_STR)
		return -SBX_EPROTO;
	sbx_buf_clear(&r->error_data);
	int rc = sbx_buf_append(&r->error_data, v->bytes.at, v->bytes.n);
	if (rc == 0)
		rc = sbx_buf_append(&r->error_data, end, sizeof end);
	r->has_error_data = rc == 0;
	return rc;
}

/* DONE and ERROR share most of their members. */
static int
read_end(struct sbx_reply *r, const struct sbx_value *map)
{
	struct sbx_cursor c = sbx_cursor_of(map);
	struct sbx_span key, word = { NULL, 0 };
	struct sbx_value v;
	int rc = 0;
	while (rc == 0 && sbx_next_pair(&c, &key, &v)) {
		if (sbx_span_is(key, "target"))
			rc = take_kept(r, &v, &r->target);
		else if (sbx_span_is(key, "finish"))
			rc = take_kept(r, &v, &r->finish);
		else if (sbx_span_is(key, "usage"))
			rc = take_tokens(&v, &r->tokens);
		else if (sbx_span_is(key, "usage_raw"))
			rc = take_kept(r, &v, &r->usage_raw);
		else if (sbx_span_is(key, "cost_nanousd"))
			rc = take_int(&v, &r->cost_nanousd);
		else if (sbx_span_is(key, "total_ms"))
			rc = take_u32(&v, &r->total_ms);
		else if (sbx_span_is(key, "first_content_ms"))
			rc = take_int(&v, &r->first_content_ms);
		else if (sbx_span_is(key, "attempts"))
			rc = take_attempts(r, &v);
		else if (sbx_span_is(key, "code"))
			rc = take_text(&v, &word);
		else if (sbx_span_is(key, "status"))
			rc = take_status(&v, &r->status);
		else if (sbx_span_is(key, "message"))
			rc = take_kept(r, &v, &r->message);
		else if (sbx_span_is(key, "retry_after_ms"))
			rc = take_int(&v, &r->retry_after_ms);
		else if (sbx_span_is(key, "retryable"))
			rc = take_bool(&v, &r->retryable);
		else if (sbx_span_is(key, "provider_error"))
			rc = take_provider_error(r, &v);
		else if (sbx_span_is(key, "data"))
			rc = take_error_data(r, &v);
	}
	if (rc)
		return rc;
	rc = sbx_reply_keep(r, word, &r->code_word);
	r->code = sbx_code_find(word);
	return rc;
}

/* Puts the members of a STATS map down as "outer.inner" = number or text. `name` holds the outer part. */
static int
flatten(struct sbx_reply *r, struct sbx_buf *name, const struct sbx_value *v)
{
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_value value;
	size_t outer_bytes = name->n;
	int rc = 0;
	for (uint32_t i = 0; rc == 0 && i < v->n_items; i++, name->n = outer_bytes) {
		struct sbx_span key;
		char digits[12];
		if (v->type == SBX_MAP) {
			(void)sbx_next_pair(&c, &key, &value); /* i says that there is one */
		} else {
			(void)sbx_next_item(&c, &value);
			(void)snprintf(digits, sizeof digits, "%u", i);
			key = sbx_span_of(digits);
		}
		if (outer_bytes)
			rc = sbx_buf_append(name, ".", 1);
		if (rc == 0)
			rc = sbx_buf_append(name, key.at, key.n);
		if (rc)
			break;
		struct sbx_field_row f = { 0 };
		switch (value.type) {
		case SBX_MAP:
		case SBX_ARRAY:
			rc = flatten(r, name, &value); /* as deep as the frame: checked */
			continue;
		case SBX_BOOL:
			f.number = value.truth;
			break;
		case SBX_UINT:
		case SBX_INT:
			rc = take_int(&value, &f.number);
			break;
		case SBX_STR:
			f.is_text = true;
			rc = sbx_reply_keep(r, value.bytes, &f.text);
			break;
		case SBX_NIL:
		case SBX_FLOAT: /* the agent counts in integers */
		case SBX_BIN:
		case SBX_EXT:
			continue;
		}
		if (rc == 0)
			rc = sbx_reply_keep(r, (struct sbx_span){ (const char *)name->data, name->n }, &f.name);
		if (rc == 0)
			rc = sbx_buf_append(&r->fields, &f, sizeof f);
	}
	return rc;
}

int
sbx_reply_read(struct sbx_reply *r, const struct sbx_frame *frame)
{
	struct sbx_buf name;
	int rc;
	sbx_reply_clear_end(r);
	switch (frame->kind) {
	case SBX_FRAME_DONE:
		rc = read_end(r, &frame->map);
		r->ok = true;
		r->code = SBX_CODE_NONE;
		r->code_word = 0;
		r->status = 200;
		break;
	case SBX_FRAME_ERROR:
		rc = read_end(r, &frame->map);
		r->sent = true; /* the agent had it, and says so */
		if (r->code == SBX_CODE_NONE)
			r->code = SBX_CODE_INTERNAL; /* a word of a later version: code_word has it */
		if (r->status == 0)
			r->status = sbx_code_status(r->code);
		break;
	default: /* STATS, RELOADED, REPORT, KEY */
		sbx_buf_init(&name, SBX_FRAME_MAX_BYTES);
		rc = flatten(r, &name, &frame->map);
		sbx_buf_fini(&name);
		r->ok = true;
		r->status = 200;
		break;
	}
	return rc == -SBX_ETOOBIG ? -SBX_EPROTO : rc; /* nothing that honest numbers can come to */
}

/* ---- pieces ---- */

int
sbx_piece_read(const struct sbx_frame *frame, struct sbx_piece *ret_piece)
{
	static const struct {
		enum sbx_note note;
		enum sbx_value_type type;
		struct sbx_span key; /* of what becomes the piece's text */
		bool paid;
		bool needed;
	} shapes[] = {
		[SBX_EVENT_TEXT] = { SBX_NOTE_TEXT, SBX_STR, { "text", 4 }, true, true },
		[SBX_EVENT_REASONING] = { SBX_NOTE_REASONING, SBX_STR, { "text", 4 }, true, true },
		[SBX_EVENT_REFUSAL] = { SBX_NOTE_REFUSAL, SBX_STR, { "text", 4 }, true, true },
		[SBX_EVENT_TOOL_CALL] = { SBX_NOTE_TOOL_CALL, SBX_STR, { "arguments", 9 }, true, false },
		[SBX_EVENT_FINISH] = { SBX_NOTE_FINISH, SBX_STR, { "finish", 6 }, false, false },
		[SBX_EVENT_DATA] = { SBX_NOTE_DATA, SBX_BIN, { "data", 4 }, true, true },
		[SBX_EVENT_TARGET] = { SBX_NOTE_TARGET, SBX_STR, { "target", 6 }, false, true },
	};
	struct sbx_piece piece = { 0 };
	struct sbx_value v;
	struct sbx_span key;
	if (!sbx_map_get(&frame->map, "type", &v) || v.type != SBX_UINT)
		return -SBX_EPROTO;
	if (v.u == 0 || v.u >= sizeof shapes / sizeof shapes[0])
		return 0;
	uint64_t type = v.u;
	int rc = 0;
	for (struct sbx_cursor c = sbx_cursor_of(&frame->map); rc == 0 && sbx_next_pair(&c, &key, &v);) {
		if (sbx_span_eq(key, shapes[type].key)) {
			if (v.type == shapes[type].type)
				piece.text = v.bytes;
			else if (v.type != SBX_NIL)
				rc = -SBX_EPROTO;
		} else if (sbx_span_eq(key, SBX_SPAN("choice"))) {
			rc = take_u32(&v, &piece.choice);
		} else if (type == SBX_EVENT_TOOL_CALL) {
			if (sbx_span_eq(key, SBX_SPAN("index")))
				rc = take_u32(&v, &piece.index);
			else if (sbx_span_eq(key, SBX_SPAN("id")))
				rc = take_text(&v, &piece.call_id);
			else if (sbx_span_eq(key, SBX_SPAN("name")))
				rc = take_text(&v, &piece.call_name);
		}
	}
	if (rc || (shapes[type].needed && !piece.text.at))
		return -SBX_EPROTO;
	piece.note = shapes[type].note;
	if (shapes[type].paid)
		piece.paid_bytes = piece.text.n + piece.call_id.n + piece.call_name.n;
	*ret_piece = piece;
	return 1;
}
