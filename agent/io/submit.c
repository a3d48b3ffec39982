/* SPDX-License-Identifier: Apache-2.0 */
/* submit.c -- see submit.h. One row per key; a new key is a function and a row. */
#include "agent/io/submit.h"

#include <stdio.h>
#include <string.h>

typedef const char *read_fn(struct sbx_submit *s, const struct sbx_value *v); /* NULL, or what it must be */

static const char *
read_name(struct sbx_span *to, const struct sbx_value *v)
{
	if (v->type != SBX_STR || v->bytes.n == 0 || v->bytes.n > SBX_NAME_MAX_BYTES + 1 + SBX_MODEL_MAX_BYTES)
		return "must be a name of 1 to 384 bytes";
	*to = v->bytes;
	return NULL;
}

static const char *
read_route(struct sbx_submit *s, const struct sbx_value *v)
{
	return read_name(&s->route, v);
}

static const char *
read_model(struct sbx_submit *s, const struct sbx_value *v)
{
	return read_name(&s->model, v);
}

static const char *
read_targets(struct sbx_submit *s, const struct sbx_value *v)
{
	if (v->type != SBX_ARRAY || v->n_items == 0 || v->n_items > SBX_ROUTE_TARGETS_MAX)
		return "must be a list of 1 to 16 names";
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_value item;
	while (sbx_next_item(&c, &item)) {
		const char *bad = read_name(&s->target[s->n_targets], &item);
		if (bad)
			return bad;
		s->n_targets++;
	}
	return NULL;
}

static const char *
read_body(struct sbx_submit *s, const struct sbx_value *v)
{
	if ((v->type != SBX_BIN && v->type != SBX_STR) || v->bytes.n == 0)
		return "must be the request's JSON as bin or str";
	s->body = v->bytes;
	return NULL;
}

static const char *
read_dialect(struct sbx_submit *s, const struct sbx_value *v)
{
	char name[64];
	if (v->type != SBX_STR || v->bytes.n >= sizeof name)
		return "must be the name of a dialect";
	memcpy(name, v->bytes.at, v->bytes.n);
	name[v->bytes.n] = 0;
	s->dialect = sbx_dialect_find(name);
	return s->dialect ? NULL : "is not a dialect that this agent speaks; it speaks openai-chat";
}

static const char *
read_operation(struct sbx_submit *s, const struct sbx_value *v)
{
	for (int op = 0; op < SBX_OP__COUNT; op++)
		if (v->type == SBX_STR && sbx_span_is(v->bytes, sbx_op_word((enum sbx_op)op))) {
			s->op = (enum sbx_op)op;
			return NULL;
		}
	return "can only be \"chat\", \"completions\", \"embeddings\" or \"count_tokens\" in this version";
}

static const char *
read_bool(bool *to, const struct sbx_value *v)
{
	if (v->type != SBX_BOOL)
		return "must be true or false";
	*to = v->truth;
	return NULL;
}

static const char *
read_stream(struct sbx_submit *s, const struct sbx_value *v)
{
	s->has_stream = true;
	return read_bool(&s->stream, v);
}

static const char *
read_restart(struct sbx_submit *s, const struct sbx_value *v)
{
	return read_bool(&s->restart, v);
}

static const char *
read_as_http(struct sbx_submit *s, const struct sbx_value *v)
{
	return read_bool(&s->as_http, v);
}

static const char *
read_reply(struct sbx_submit *s, const struct sbx_value *v)
{
	s->has_reply = true;
	if (v->type == SBX_STR && sbx_span_is(v->bytes, "data"))
		s->data = true;
	else if (v->type != SBX_STR || !sbx_span_is(v->bytes, "events"))
		return "must be \"events\" or \"data\"";
	return NULL;
}

static const char *
read_deadline(struct sbx_submit *s, const struct sbx_value *v)
{
	if (v->type != SBX_UINT || v->u == 0 || v->u > SBX_DEADLINE_MAX_MS)
		return "must be a number of milliseconds from 1 to 86400000";
	s->deadline_ms = (uint32_t)v->u;
	return NULL;
}

static bool
is_printable(struct sbx_span s, char first)
{
	for (size_t i = 0; i < s.n; i++)
		if (s.at[i] < first || s.at[i] > 0x7e)
			return false;
	return true;
}

static const char *
read_idempotency_key(struct sbx_submit *s, const struct sbx_value *v)
{
	static const char must[] = "must be 1 to 255 printable ASCII characters";
	if (v->type != SBX_STR || v->bytes.n == 0 || v->bytes.n > SBX_IDEMPOTENCY_KEY_MAX_BYTES)
		return must;
	if (!is_printable(v->bytes, 0x21))
		return must;
	s->idempotency_key = v->bytes;
	return NULL;
}

static const char *
read_principal(struct sbx_submit *s, const struct sbx_value *v)
{
	struct sbx_cursor c = sbx_cursor_of(v);
	struct sbx_span key;
	struct sbx_value word;
	s->has_principal = true;
	if (v->type != SBX_MAP)
		return "must be a map";
	while (sbx_next_pair(&c, &key, &word)) {
		struct sbx_span *to = sbx_span_is(key, "tenant") ? &s->tenant : sbx_span_is(key, "key") ? &s->key : sbx_span_is(key, "user") ? &s->user : NULL;
		if (word.type == SBX_NIL)
			continue;
		if (!to)
			return "has tenant, key and user, and nothing else";
		if (word.type != SBX_STR || word.bytes.n == 0 || word.bytes.n > SBX_PRINCIPAL_MAX_BYTES || !is_printable(word.bytes, 0x20))
			return "must have 1 to 255 printable ASCII characters in each member";
		*to = word.bytes;
	}
	return NULL;
}

static const char *
refuse(struct sbx_submit *s, const struct sbx_value *v)
{
	(void)s;
	(void)v;
	return "is not supported by this version of the agent";
}

static const struct row {
	const char *key;
	read_fn *read;
	enum sbx_code code; /* when its value is refused */
} rows[] = {
	{ "route", read_route, SBX_CODE_INVALID_REQUEST },
	{ "model", read_model, SBX_CODE_INVALID_REQUEST },
	{ "targets", read_targets, SBX_CODE_INVALID_REQUEST },
	{ "body", read_body, SBX_CODE_INVALID_REQUEST },
	{ "dialect", read_dialect, SBX_CODE_UNSUPPORTED },
	{ "operation", read_operation, SBX_CODE_UNSUPPORTED },
	{ "stream", read_stream, SBX_CODE_INVALID_REQUEST },
	{ "reply", read_reply, SBX_CODE_INVALID_REQUEST },
	{ "as_http", read_as_http, SBX_CODE_INVALID_REQUEST },
	{ "restart", read_restart, SBX_CODE_INVALID_REQUEST },
	{ "deadline_ms", read_deadline, SBX_CODE_INVALID_REQUEST },
	{ "idempotency_key", read_idempotency_key, SBX_CODE_INVALID_REQUEST },
	{ "principal", read_principal, SBX_CODE_INVALID_REQUEST },
	{ "tags", refuse, SBX_CODE_UNSUPPORTED },
	{ "max_cost_nanousd", refuse, SBX_CODE_UNSUPPORTED },
};

static const struct row *
find_row(struct sbx_span key)
{
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (sbx_span_is(key, rows[i].key))
			return &rows[i];
	return NULL;
}

int
sbx_submit_read(const struct sbx_frame *frame, struct sbx_submit *ret_submit, enum sbx_code *ret_code, char *why, size_t why_bytes)
{
	struct sbx_submit s = { .dialect = sbx_dialect_find("openai-chat") };
	struct sbx_cursor c = sbx_cursor_of(&frame->map);
	struct sbx_span key;
	struct sbx_value v;
	while (sbx_next_pair(&c, &key, &v)) {
		if (v.type == SBX_NIL)
			continue;
		const struct row *row = find_row(key);
		if (!row) {
			*ret_code = SBX_CODE_INVALID_REQUEST;
			(void)snprintf(why, why_bytes, "SUBMIT has no key \"%.*s\"", (int)(key.n > 64 ? 64 : key.n), key.at);
			return -SBX_EINVAL;
		}
		const char *bad = row->read(&s, &v);
		if (bad) {
			*ret_code = row->code;
			(void)snprintf(why, why_bytes, "%s %s", row->key, bad);
			return -SBX_EINVAL;
		}
	}
	*ret_code = SBX_CODE_INVALID_REQUEST;
	if ((s.route.n > 0) + (s.model.n > 0) + (s.n_targets > 0) > 1) {
		(void)snprintf(why, why_bytes, "only one of route, model and targets may be given");
		return -SBX_EINVAL;
	}
	if (s.as_http && (s.has_stream || (s.has_reply && !s.data))) {
		(void)snprintf(why, why_bytes, "with as_http the body's own \"stream\" decides, and the reply is \"data\"");
		return -SBX_EINVAL;
	}
	s.data |= s.as_http;
	if ((s.op == SBX_OP_EMBEDDINGS || s.op == SBX_OP_COUNT_TOKENS) && (!s.data || s.stream)) {
		(void)snprintf(why, why_bytes, "%s come in one piece, as reply \"data\"", s.op == SBX_OP_EMBEDDINGS ? "embeddings" : "counts of tokens");
		return -SBX_EINVAL;
	}
	if (!s.body.n) {
		(void)snprintf(why, why_bytes, "SUBMIT needs a body");
		return -SBX_EINVAL;
	}
	if (s.body.n > SBX_BODY_IN_MAX_BYTES) {
		*ret_code = SBX_CODE_TOO_LARGE;
		(void)snprintf(why, why_bytes, "the body has %zu bytes; at most %u are taken", s.body.n, SBX_BODY_IN_MAX_BYTES);
		return -SBX_EINVAL;
	}
	*ret_submit = s;
	return 0;
}
