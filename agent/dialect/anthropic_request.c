/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_request.c -- a Messages request of a client: what judgement needs of it, and the same bytes edited for a target that speaks
 * the dialect as well (body_edit.h).
 *
 * Only members that are used here have their types checked; the rest is between the client and the provider.
 */
#include "agent/dialect/anthropic.h"

#include <stdio.h>

#include <signalbox/errors.h>

#include "agent/dialect/body_edit.h"
#include "agent/dialect/routing_members.h"

static int
refuse(struct sbx_fault *fault, const char *member, const char *rule)
{
	(void)snprintf(fault->param, sizeof fault->param, "%s", member);
	(void)snprintf(fault->why, sizeof fault->why, "%s %s", member, rule);
	return -SBX_ESYNTAX;
}

static bool
get_is(struct sbx_span object, const char *name, const char *want)
{
	struct sbx_span value;
	return sbx_json_get(object, name, &value) && sbx_json_string_eq(value, want);
}

static bool
is_empty_list(struct sbx_span value)
{
	struct sbx_json_iter it = sbx_json_array_iter(value);
	struct sbx_span element;
	return !sbx_json_array_next(&it, &element);
}

/* In what the user says, or in what a tool has to show. */
static bool
has_image(struct sbx_span blocks, int depth)
{
	struct sbx_json_iter it = sbx_json_array_iter(blocks);
	struct sbx_span block, content;
	while (sbx_json_array_next(&it, &block))
		if (get_is(block, "type", "image") || (depth > 0 && sbx_json_get(block, "content", &content) && has_image(content, depth - 1)))
			return true;
	return false;
}

static int
read_member(struct sbx_span name, struct sbx_span value, struct sbx_ask *ask, struct sbx_routing *routing, struct sbx_fault *fault)
{
	struct sbx_span inner;
	if (sbx_json_string_eq(name, "messages")) {
		ask->needed = value;
	} else if (sbx_json_string_eq(name, "model")) {
		if (sbx_json_type(value) != SBX_JSON_STRING || value.n == 2)
			return refuse(fault, "model", "must be a string that is not empty");
		ask->model = value;
	} else if (sbx_json_string_eq(name, "stream")) {
		ask->stream = value;
		if (!sbx_json_bool(value, &ask->body_stream) && sbx_json_type(value) != SBX_JSON_NULL)
			return refuse(fault, "stream", "must be true or false");
	} else if (sbx_json_string_eq(name, "max_tokens")) {
		if (!sbx_json_int64(value, &ask->max_tokens) || ask->max_tokens < 1)
			return refuse(fault, "max_tokens", "must be a whole number above 0");
	} else if (sbx_json_string_eq(name, "tools")) {
		ask->has_tools = !is_empty_list(value);
	} else if (sbx_json_string_eq(name, "output_config")) {
		ask->has_json_schema |= sbx_json_get(value, "format", &inner) && get_is(inner, "type", "json_schema");
	} else if (sbx_json_string_eq(name, "output_format")) { /* where it was at first */
		ask->has_json_schema |= get_is(value, "type", "json_schema");
	} else if (sbx_json_string_eq(name, "thinking")) {
		ask->reasoning_off = get_is(value, "type", "disabled");
	} else if (sbx_json_string_eq(name, "metadata") && routing && sbx_json_get(value, "user_id", &inner)) {
		(void)sbx_json_string_fmt(inner, routing->user, sizeof routing->user);
		for (char *at = routing->user; *at; at++)
			if ((unsigned char)*at < 0x20 || *at == 0x7f)
				*at = '?';
	}
	return 0;
}

int
sbx_anthropic_read_request(enum sbx_op op, struct sbx_span body, struct sbx_json_scratch *scratch, struct sbx_routing *routing,
			   struct sbx_ask *ret_ask, struct sbx_fault *ret_fault)
{
	struct sbx_ask ask = { .op = op, .body = body, .choices = 1, .max_tokens = -1, .can_stream = op == SBX_OP_CHAT };
	struct sbx_json_error error;
	struct sbx_span name, value;
	int rc = 0;

	if (routing)
		sbx_routing_init(routing);
	*ret_fault = (struct sbx_fault){ .unsupported = false };
	if (op != SBX_OP_CHAT && op != SBX_OP_COUNT_TOKENS) {
		ret_fault->unsupported = true;
		(void)snprintf(ret_fault->why, sizeof ret_fault->why, "operation %s: Anthropic's dialect has none such", sbx_op_word(op));
		return -SBX_ESYNTAX;
	}
	if (sbx_json_check(body.at, body.n, scratch, &error)) {
		(void)snprintf(ret_fault->why, sizeof ret_fault->why, "body: %s, line %u, byte %zu", error.what, (unsigned)error.line, error.offset);
		return -SBX_ESYNTAX;
	}
	struct sbx_span root = sbx_json_root(body.at, body.n);
	if (sbx_json_type(root) != SBX_JSON_OBJECT) {
		(void)snprintf(ret_fault->why, sizeof ret_fault->why, "body must be a JSON object");
		return -SBX_ESYNTAX;
	}
	struct sbx_json_iter it = sbx_json_object_iter(root);
	while (rc == 0 && sbx_json_object_next(&it, &name, &value)) {
		if (routing)
			rc = sbx_routing_read(routing, name, value, &ask, ret_fault);
		if (rc == 0)
			rc = read_member(name, value, &ask, routing, ret_fault);
		else if (rc > 0)
			rc = 0; /* it was ours alone */
	}
	if (rc)
		return rc;
	if (!ask.needed.n)
		return refuse(ret_fault, "messages", "is missing");
	if (is_empty_list(ask.needed))
		return refuse(ret_fault, "messages", "must be a list that is not empty");
	if (ask.max_tokens < 0 && op == SBX_OP_CHAT)
		return refuse(ret_fault, "max_tokens", "is missing");
	if (ask.body_stream && !ask.can_stream)
		return refuse(ret_fault, "stream", "must not be true: this operation answers in one piece");
	it = sbx_json_array_iter(ask.needed);
	while (!ask.has_images && sbx_json_array_next(&it, &value))
		ask.has_images = sbx_json_get(value, "content", &name) && has_image(name, 1);
	*ret_ask = ask;
	return 0;
}

void
sbx_anthropic_write_request(const struct sbx_ask *ask, const char *model, bool stream, const struct sbx_quirks *quirks,
			    struct sbx_pieces *ret)
{
	struct sbx_body_edits e;
	(void)quirks; /* usage is always sent */
	sbx_body_edit_begin(&e, ask, ret);
	sbx_body_edit_model(&e, model);
	sbx_body_edit_stream(&e, stream);
	sbx_body_edit_taken(&e);
	sbx_body_edit_end(&e);
}
