/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat_request.c -- a request of any operation: what judgement needs of it, and the same bytes edited for a target.
 *
 * The body is never rebuilt. Reading notes where the few members lie that a target changes; writing cuts the body at those
 * places and puts other text there (body_edit.h).
 *
 * Only members that are used here have their types checked; the rest is between the client and the provider.
 */
#include "agent/dialect/openai_chat.h"

#include <stdio.h>

#include <signalbox/errors.h>

#include "agent/dialect/body_edit.h"
#include "agent/dialect/routing_members.h"

/* ==== reading ==== */

static int
refuse(struct sbx_fault *fault, const char *member, const char *rule)
{
	(void)snprintf(fault->param, sizeof fault->param, "%s", member);
	(void)snprintf(fault->why, sizeof fault->why, "%s %s", member, rule);
	return -SBX_ESYNTAX;
}

static bool
is_null(struct sbx_span value)
{
	return sbx_json_type(value) == SBX_JSON_NULL;
}

static bool
get_bool(struct sbx_span object, const char *name, bool *ret_bool)
{
	struct sbx_span value;
	return sbx_json_get(object, name, &value) && sbx_json_bool(value, ret_bool);
}

static bool
get_is(struct sbx_span object, const char *name, const char *want)
{
	struct sbx_span value;
	return sbx_json_get(object, name, &value) && sbx_json_string_eq(value, want);
}

static bool
has_image(struct sbx_span messages)
{
	struct sbx_json_iter it = sbx_json_array_iter(messages), parts;
	struct sbx_span message, content, part;
	while (sbx_json_array_next(&it, &message)) {
		if (!sbx_json_get(message, "content", &content))
			continue;
		parts = sbx_json_array_iter(content);
		while (sbx_json_array_next(&parts, &part))
			if (get_is(part, "type", "image_url"))
				return true;
	}
	return false;
}

/* The ways in which a request says that it wants no reasoning; each provider knows one of them. */
static bool
turns_reasoning_off(struct sbx_span name, struct sbx_span value)
{
	bool on = true;
	if (sbx_json_string_eq(name, "reasoning_effort"))
		return sbx_json_string_eq(value, "none");
	if (sbx_json_string_eq(name, "thinking"))
		return get_is(value, "type", "disabled");
	if (sbx_json_string_eq(name, "reasoning"))
		return get_is(value, "effort", "none") || (get_bool(value, "enabled", &on) && !on);
	if (sbx_json_string_eq(name, "enable_thinking"))
		return sbx_json_bool(value, &on) && !on;
	if (sbx_json_string_eq(name, "chat_template_kwargs"))
		return (get_bool(value, "enable_thinking", &on) || get_bool(value, "thinking", &on)) && !on;
	return false;
}

static int
read_stream_options(struct sbx_span value, struct sbx_ask *ask, struct sbx_fault *fault)
{
	ask->stream_options = value;
	if (is_null(value))
		return 0;
	if (sbx_json_type(value) != SBX_JSON_OBJECT)
		return refuse(fault, "stream_options", "must be an object");
	struct sbx_span include;
	if (!sbx_json_get(value, "include_usage", &include))
		return 0;
	ask->include_usage = include;
	if (!sbx_json_bool(include, &ask->body_include_usage) && !is_null(include))
		return refuse(fault, "stream_options.include_usage", "must be true or false");
	return 0;
}

static int
read_limit(struct sbx_span name, struct sbx_span value, struct sbx_ask *ask, struct sbx_fault *fault)
{
	int64_t limit;
	if (is_null(value))
		return 0;
	if (!sbx_json_int64(value, &limit) || limit < 0) {
		char member[32];
		(void)sbx_json_string_fmt(name, member, sizeof member);
		return refuse(fault, member, "must be a whole number");
	}
	if (limit > ask->max_tokens) /* both given: the larger is what it may cost */
		ask->max_tokens = limit;
	return 0;
}

static int
read_member(struct sbx_span name, struct sbx_span value, struct sbx_ask *ask, struct sbx_fault *fault)
{
	if (sbx_json_string_eq(name, sbx_openai_ops[ask->op].needs)) {
		ask->needed = value;
	} else if (sbx_json_string_eq(name, "model")) {
		if (sbx_json_type(value) != SBX_JSON_STRING || value.n == 2)
			return refuse(fault, "model", "must be a string that is not empty");
		ask->model = value;
	} else if (sbx_json_string_eq(name, "stream")) {
		ask->stream = value;
		if (!sbx_json_bool(value, &ask->body_stream) && !is_null(value))
			return refuse(fault, "stream", "must be true or false");
	} else if (sbx_json_string_eq(name, "stream_options")) {
		return read_stream_options(value, ask, fault);
	} else if (sbx_json_string_eq(name, "n")) {
		int64_t n = 1;
		if (!is_null(value) && (!sbx_json_int64(value, &n) || n < 1 || n > SBX_CHOICES_MAX))
			return refuse(fault, "n", "must be a whole number from 1 to 128");
		ask->choices = (uint32_t)n;
	} else if (sbx_json_string_eq(name, "max_tokens") || sbx_json_string_eq(name, "max_completion_tokens")) {
		return read_limit(name, value, ask, fault);
	} else if (sbx_json_string_eq(name, "tools") || sbx_json_string_eq(name, "functions")) {
		struct sbx_json_iter it = sbx_json_array_iter(value);
		struct sbx_span tool;
		ask->has_tools |= sbx_json_array_next(&it, &tool);
	} else if (sbx_json_string_eq(name, "encoding_format")) {
		ask->base64 = sbx_json_string_eq(value, "base64");
	} else if (sbx_json_string_eq(name, "response_format")) {
		ask->has_json_schema = get_is(value, "type", "json_schema");
	} else {
		ask->reasoning_off |= turns_reasoning_off(name, value);
	}
	return 0;
}

/* The elements of a list, each of which is a prompt or an input of its own; 1 for what is one itself: a text, or its tokens. */
static uint32_t
count_prompts(struct sbx_span needed)
{
	struct sbx_json_iter it = sbx_json_array_iter(needed);
	struct sbx_span value;
	uint32_t n = 0;
	while (sbx_json_array_next(&it, &value)) {
		if (sbx_json_type(value) == SBX_JSON_NUMBER)
			return 1;
		n++;
	}
	return n ? n : 1;
}

/* The member that every request of the operation has. */
static int
check_needed(struct sbx_ask *ask, struct sbx_fault *fault)
{
	const struct sbx_openai_op *op = &sbx_openai_ops[ask->op];
	struct sbx_json_iter it = sbx_json_array_iter(ask->needed);
	struct sbx_span value;
	if (!ask->needed.n)
		return refuse(fault, op->needs, "is missing");
	if (!sbx_json_array_next(&it, &value) && !(op->takes_text && sbx_json_type(ask->needed) == SBX_JSON_STRING))
		return refuse(fault, op->needs, op->takes_text ? "must be a text, or a list that is not empty" : "must be a list that is not empty");
	return 0;
}

int
sbx_openai_chat_read_request(enum sbx_op op, struct sbx_span body, struct sbx_json_scratch *scratch, struct sbx_routing *routing,
			     struct sbx_ask *ret_ask, struct sbx_fault *ret_fault)
{
	struct sbx_ask ask = {.op = op, .body = body, .choices = 1, .max_tokens = -1, .can_stream = sbx_openai_ops[op].streams};
	struct sbx_fault *fault = ret_fault;
	struct sbx_span root, name, value;
	struct sbx_json_error error;

	if (routing)
		sbx_routing_init(routing);
	*fault = (struct sbx_fault){.unsupported = false};
	if (!sbx_openai_ops[op].needs) {
		fault->unsupported = true;
		(void)snprintf(fault->why, sizeof fault->why, "operation %s: OpenAI's dialect has none such", sbx_op_word(op));
		return -SBX_ESYNTAX;
	}
	if (sbx_json_check(body.at, body.n, scratch, &error)) {
		(void)snprintf(fault->why, sizeof fault->why, "body: %s, line %u, byte %zu", error.what, (unsigned)error.line, error.offset);
		return -SBX_ESYNTAX;
	}
	root = sbx_json_root(body.at, body.n);
	if (sbx_json_type(root) != SBX_JSON_OBJECT) {
		(void)snprintf(fault->why, sizeof fault->why, "body must be a JSON object");
		return -SBX_ESYNTAX;
	}
	struct sbx_json_iter it = sbx_json_object_iter(root);
	int rc = 0;
	while (rc == 0 && sbx_json_object_next(&it, &name, &value)) {
		if (routing)
			rc = sbx_routing_read(routing, name, value, &ask, fault);
		if (rc == 0)
			rc = read_member(name, value, &ask, fault);
		else if (rc > 0)
			rc = 0; /* it was ours alone */
	}
	if (rc == 0)
		rc = check_needed(&ask, fault);
	if (rc)
		return rc;
	if (op == SBX_OP_CHAT)
		ask.has_images = has_image(ask.needed);
	if (op == SBX_OP_COMPLETIONS) {
		uint32_t prompts = count_prompts(ask.needed);
		if (prompts > SBX_CHOICES_MAX / ask.choices)
			return refuse(fault, "prompt", "makes more than 128 choices, n for each of its elements");
		ask.choices *= prompts;
	}
	if (!ask.can_stream && ask.body_stream)
		return refuse(fault, "stream", "must not be true: this operation answers in one piece");
	*ret_ask = ask;
	return 0;
}

/* ==== writing ==== */

#define INCLUDE_USAGE "\"include_usage\":true"

/* stream_options for a stream: usage is always wanted. */
static void
ask_for_usage(const struct sbx_ask *ask, struct sbx_body_edits *e)
{
	if (ask->include_usage.n) {
		if (!ask->body_include_usage)
			sbx_body_edit_add(e, ask->include_usage.at, ask->include_usage.n, SBX_SPAN("true"));
	} else if (sbx_json_type(ask->stream_options) == SBX_JSON_NULL) {
		sbx_body_edit_add(e, ask->stream_options.at, ask->stream_options.n, SBX_SPAN("{" INCLUDE_USAGE "}"));
	} else if (ask->stream_options.n) {
		struct sbx_json_iter it = sbx_json_object_iter(ask->stream_options);
		struct sbx_span name, value;
		bool empty = !sbx_json_object_next(&it, &name, &value);
		sbx_body_edit_add(e, ask->stream_options.at + 1, 0, empty ? SBX_SPAN(INCLUDE_USAGE) : SBX_SPAN(INCLUDE_USAGE ","));
	} else {
		sbx_body_edit_put_front(e, SBX_SPAN("\"stream_options\":{" INCLUDE_USAGE "},"));
	}
}

void
sbx_openai_chat_write_request(const struct sbx_ask *ask, const char *model, bool stream, const struct sbx_quirks *quirks,
			      struct sbx_pieces *ret)
{
	struct sbx_body_edits e;
	sbx_body_edit_begin(&e, ask, ret);
	sbx_body_edit_model(&e, model);
	sbx_body_edit_stream(&e, stream);
	if (stream && !quirks->no_stream_options)
		ask_for_usage(ask, &e);
	else if (ask->stream_options.n) /* without a stream everybody refuses them */
		sbx_body_edit_drop(&e, ask->stream_options);
	sbx_body_edit_taken(&e);
	sbx_body_edit_end(&e);
}
