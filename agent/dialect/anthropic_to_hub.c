/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_to_hub.c -- a Messages request -> the hub's form, for a target of another dialect.
 *
 * What chat has a word for is said in it; the rest is kept, as it is, in x_native. Results of tools become messages of their own. An
 * answer given back is one message as long as it goes thoughts, words, calls; where it begins again from the front, so does a new
 * message. from_hub puts both together again.
 *
 * Members that are null say nothing here. Nor does `caller` of a tool call when it was the model itself.
 */
#include "agent/dialect/anthropic.h"

#include <stdio.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_write.h"

/* Tokens of thinking up to which they are called low, and medium. */
#define BUDGET_LOW    4096
#define BUDGET_MEDIUM 16384

struct reading {
	struct sbx_json_writer w;
	struct sbx_fault *fault;
	bool faulty;
	int message;             /* in the body's list, for faults */
	struct sbx_json_scratch scratch;
	struct sbx_buf text;     /* a string unescaped, for as long as it is looked at */
};

#define NO_SPAN ((struct sbx_span){ NULL, 0 })

static struct sbx_span
member(struct sbx_span object, const char *name) /* empty = absent or null */
{
	struct sbx_span value;
	if (sbx_json_get(object, name, &value) && sbx_json_type(value) != SBX_JSON_NULL)
		return value;
	return NO_SPAN;
}

static bool
is(struct sbx_span object, const char *name, const char *want)
{
	return sbx_json_string_eq(member(object, name), want);
}

static void
wrong(struct reading *r, const char *name, const char *rule)
{
	if (r->faulty)
		return;
	*r->fault = (struct sbx_fault){ .unsupported = false };
	if (r->message >= 0)
		(void)snprintf(r->fault->param, sizeof r->fault->param, "messages[%d].%s", r->message, name);
	else
		(void)snprintf(r->fault->param, sizeof r->fault->param, "%s", name);
	(void)snprintf(r->fault->why, sizeof r->fault->why, "%s %s", r->fault->param, rule);
	r->faulty = true;
}

static void
put_word(struct sbx_json_writer *w, const char *name, const char *word)
{
	sbx_jw_name(w, name);
	sbx_jw_text(w, sbx_span_of(word));
}

/* ==== what chat has no word for ==== */

static void
open_native(struct sbx_json_writer *w, bool *open)
{
	if (*open)
		return;
	*open = true;
	sbx_jw_name(w, "x_native");
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "anthropic");
	sbx_jw_open(w, '{');
}

static void
close_native(struct sbx_json_writer *w, bool open)
{
	if (!open)
		return;
	sbx_jw_close(w, '}');
	sbx_jw_close(w, '}');
}

static bool
listed(struct sbx_span name, const char *const *names)
{
	for (; *names; names++)
		if (sbx_json_string_eq(name, *names))
			return true;
	return false;
}

/* The members that are not listed, into the object that is open or behind the beginning of x_native. */
static void
put_rest(struct sbx_json_writer *w, struct sbx_span object, const char *const *said, bool *open)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_type(value) == SBX_JSON_NULL || listed(name, said))
			continue;
		open_native(w, open);
		sbx_jw_name_span(w, name);
		sbx_jw_value(w, value);
	}
}

static void
put_native(struct sbx_json_writer *w, struct sbx_span object, const char *const *said)
{
	bool open = false;
	put_rest(w, object, said, &open);
	close_native(w, open);
}

static bool
has_rest(struct sbx_span object, const char *const *said)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value))
		if (sbx_json_type(value) != SBX_JSON_NULL && !listed(name, said))
			return true;
	return false;
}

/* A part, tool or message that chat knows nothing of. */
static void
put_whole(struct sbx_json_writer *w, const char *name, struct sbx_span object)
{
	bool open = false;
	sbx_jw_open(w, '{');
	put_word(w, name, "x_native");
	open_native(w, &open);
	put_rest(w, object, (const char *const[]){ NULL }, &open);
	close_native(w, open);
	sbx_jw_close(w, '}');
}

/* ==== parts ==== */

/* What stands between the quotes. */
static void
put_inside(struct sbx_json_writer *w, struct sbx_span string)
{
	if (string.n > 2)
		sbx_jw_raw(w, string.at + 1, string.n - 2);
}

/* data:<type>;base64,<data>, put together from the spelling of both. */
static void
put_data_url(struct sbx_json_writer *w, const char *name, struct sbx_span source)
{
	sbx_jw_name(w, name);
	sbx_jw_raw(w, "\"data:", 6);
	put_inside(w, member(source, "media_type"));
	sbx_jw_raw(w, ";base64,", 8);
	put_inside(w, member(source, "data"));
	sbx_jw_raw(w, "\"", 1);
	w->follows = true;
}

static void
put_image(struct sbx_json_writer *w, struct sbx_span block)
{
	static const char *const said[] = { "type", "source", "cache_control", NULL };
	struct sbx_span source = member(block, "source");
	bool inside = is(source, "type", "base64");
	if (!inside && !is(source, "type", "url")) {
		put_whole(w, "type", block);
		return;
	}
	sbx_jw_open(w, '{');
	put_word(w, "type", "image_url");
	sbx_jw_name(w, "image_url");
	sbx_jw_open(w, '{');
	if (inside)
		put_data_url(w, "url", source);
	else
		sbx_jw_copy(w, source, "url", "url");
	sbx_jw_close(w, '}');
	sbx_jw_member(w, "cache_control", member(block, "cache_control"));
	put_native(w, block, said);
	sbx_jw_close(w, '}');
}

static void
put_document(struct sbx_json_writer *w, struct sbx_span block)
{
	static const char *const said[] = { "type", "source", "title", "cache_control", NULL };
	struct sbx_span source = member(block, "source");
	bool inside = is(source, "type", "base64") && is(source, "media_type", "application/pdf");
	if (!inside && !is(source, "type", "file")) {
		put_whole(w, "type", block);
		return;
	}
	sbx_jw_open(w, '{');
	put_word(w, "type", "file");
	sbx_jw_name(w, "file");
	sbx_jw_open(w, '{');
	sbx_jw_member(w, "filename", member(block, "title"));
	if (inside)
		put_data_url(w, "file_data", source);
	else
		sbx_jw_copy(w, source, "file_id", "file_id");
	sbx_jw_close(w, '}');
	sbx_jw_member(w, "cache_control", member(block, "cache_control"));
	put_native(w, block, said);
	sbx_jw_close(w, '}');
}

static void
put_part(struct sbx_json_writer *w, struct sbx_span block)
{
	static const char *const said[] = { "type", "text", "cache_control", NULL };
	if (is(block, "type", "image")) {
		put_image(w, block);
	} else if (is(block, "type", "document")) {
		put_document(w, block);
	} else if (is(block, "type", "text")) {
		sbx_jw_open(w, '{');
		put_word(w, "type", "text");
		sbx_jw_copy(w, block, "text", "text");
		sbx_jw_member(w, "cache_control", member(block, "cache_control"));
		put_native(w, block, said);
		sbx_jw_close(w, '}');
	} else {
		put_whole(w, "type", block);
	}
}

static void
put_parts(struct sbx_json_writer *w, struct sbx_span blocks)
{
	struct sbx_json_iter it = sbx_json_array_iter(blocks);
	struct sbx_span block;
	sbx_jw_open(w, '[');
	while (sbx_json_array_next(&it, &block))
		put_part(w, block);
	sbx_jw_close(w, ']');
}

/* ==== messages ==== */

/* Of the message that is being written, which member is open. An answer's come in this order. */
enum stage { STAGE_NONE, STAGE_THOUGHTS, STAGE_CONTENT, STAGE_CALLS };

struct open_message {
	const char *role;
	enum stage stage;
	int64_t n_thoughts;
};

static void
end_stage(struct reading *r, struct open_message *m)
{
	if (m->stage != STAGE_NONE)
		sbx_jw_close(&r->w, ']');
}

static void
end_message(struct reading *r, struct open_message *m)
{
	end_stage(r, m);
	if (m->stage != STAGE_NONE)
		sbx_jw_close(&r->w, '}');
	m->stage = STAGE_NONE;
	m->n_thoughts = 0;
}

/* Opens the member for what comes next, in this message or a new one. */
static void
enter(struct reading *r, struct open_message *m, enum stage stage)
{
	static const char *const names[] = { "", "reasoning_details", "content", "tool_calls" };
	if (m->stage == stage)
		return;
	if (m->stage > stage)
		end_message(r, m);
	end_stage(r, m);
	if (m->stage == STAGE_NONE) {
		sbx_jw_open(&r->w, '{');
		put_word(&r->w, "role", m->role);
	}
	sbx_jw_name(&r->w, names[stage]);
	sbx_jw_open(&r->w, '[');
	m->stage = stage;
}

/* Reasoning of another dialect, that went through a client of this one as data (anthropic.h). */
static bool
put_stowaway(struct reading *r, struct sbx_span data)
{
	static const char mark[] = "{\"type\":\"reasoning.";
	sbx_buf_clear(&r->text);
	if (data.n < sizeof mark || data.at[1] != '{' || sbx_json_string_append(data, &r->text))
		return false;
	const char *text = (const char *)r->text.data;
	if (r->text.n < sizeof mark || memcmp(text, mark, sizeof mark - 1) != 0 || sbx_json_check(text, r->text.n, &r->scratch, NULL))
		return false;
	sbx_jw_value(&r->w, sbx_json_root(text, r->text.n));
	return true;
}

static void
put_thought(struct reading *r, struct open_message *m, struct sbx_span block)
{
	struct sbx_json_writer *w = &r->w;
	struct sbx_span data = member(block, "data"), signature = member(block, "signature");
	if (data.n && put_stowaway(r, data))
		return;
	sbx_jw_open(w, '{');
	put_word(w, "type", data.n ? "reasoning.encrypted" : "reasoning.text");
	sbx_jw_member(w, "data", data);
	sbx_jw_member(w, "text", member(block, "thinking"));
	if (signature.n > 2)
		sbx_jw_member(w, "signature", signature);
	if (data.n || signature.n > 2)
		put_word(w, "format", SBX_ANTHROPIC_FORMAT);
	sbx_jw_name(w, "index");
	sbx_jw_int(w, m->n_thoughts++);
	sbx_jw_close(w, '}');
}

static void
put_call(struct reading *r, struct sbx_span block)
{
	static const char *const said[] = { "type", "id", "name", "input", "cache_control", NULL };
	static const char *const said_direct[] = { "type", "id", "name", "input", "cache_control", "caller", NULL };
	struct sbx_json_writer *w = &r->w;
	struct sbx_span input = member(block, "input");
	sbx_jw_open(w, '{');
	sbx_jw_copy(w, block, "id", "id");
	put_word(w, "type", "function");
	sbx_jw_name(w, "function");
	sbx_jw_open(w, '{');
	sbx_jw_copy(w, block, "name", "name");
	sbx_jw_name(w, "arguments");
	sbx_jw_text(w, input.n ? input : SBX_SPAN("{}"));
	sbx_jw_close(w, '}');
	sbx_jw_member(w, "cache_control", member(block, "cache_control"));
	put_native(w, block, is(member(block, "caller"), "type", "direct") ? said_direct : said);
	sbx_jw_close(w, '}');
}

static void
put_result(struct reading *r, struct sbx_span block)
{
	static const char *const said[] = { "type", "tool_use_id", "content", "is_error", "cache_control", NULL };
	struct sbx_json_writer *w = &r->w;
	struct sbx_span content = member(block, "content");
	sbx_jw_open(w, '{');
	put_word(w, "role", "tool");
	sbx_jw_copy(w, block, "tool_use_id", "tool_call_id");
	sbx_jw_name(w, "content");
	if (sbx_json_type(content) == SBX_JSON_ARRAY)
		put_parts(w, content);
	else
		sbx_jw_value(w, content.n ? content : SBX_SPAN("\"\""));
	sbx_jw_member(w, "is_error", member(block, "is_error"));
	sbx_jw_member(w, "cache_control", member(block, "cache_control"));
	put_native(w, block, said);
	sbx_jw_close(w, '}');
}

static void
put_blocks(struct reading *r, const char *role, struct sbx_span content)
{
	struct sbx_json_iter it = sbx_json_array_iter(content);
	struct open_message m = { .role = role };
	struct sbx_span block;
	while (r->w.rc == 0 && sbx_json_array_next(&it, &block)) {
		if (is(block, "type", "thinking") || is(block, "type", "redacted_thinking")) {
			enter(r, &m, STAGE_THOUGHTS);
			put_thought(r, &m, block);
		} else if (is(block, "type", "tool_use")) {
			enter(r, &m, STAGE_CALLS);
			put_call(r, block);
		} else if (is(block, "type", "tool_result")) {
			end_message(r, &m);
			put_result(r, block);
		} else {
			enter(r, &m, STAGE_CONTENT);
			put_part(&r->w, block);
		}
	}
	end_message(r, &m);
}

static void
put_message(struct reading *r, struct sbx_span message)
{
	struct sbx_span content = member(message, "content");
	const char *role = is(message, "role", "user") ? "user" : is(message, "role", "assistant") ? "assistant" : NULL;
	if (sbx_json_type(member(message, "role")) != SBX_JSON_STRING) {
		wrong(r, "role", "must be a string");
	} else if (!role) { /* instructions in their place, say, which chat has too, but not of this form */
		put_whole(&r->w, "role", message);
	} else if (sbx_json_type(content) == SBX_JSON_STRING) {
		sbx_jw_open(&r->w, '{');
		put_word(&r->w, "role", role);
		sbx_jw_member(&r->w, "content", content);
		sbx_jw_close(&r->w, '}');
	} else if (sbx_json_type(content) == SBX_JSON_ARRAY) {
		put_blocks(r, role, content);
	} else {
		wrong(r, "content", "must be a text or a list of blocks");
	}
}

static void
put_messages(struct reading *r, struct sbx_span system, struct sbx_span messages)
{
	struct sbx_json_iter it = sbx_json_array_iter(messages);
	struct sbx_span message;
	sbx_jw_name(&r->w, "messages");
	sbx_jw_open(&r->w, '[');
	if (system.n) {
		sbx_jw_open(&r->w, '{');
		put_word(&r->w, "role", "system");
		sbx_jw_name(&r->w, "content");
		if (sbx_json_type(system) == SBX_JSON_ARRAY)
			put_parts(&r->w, system);
		else
			sbx_jw_value(&r->w, system);
		sbx_jw_close(&r->w, '}');
	}
	for (r->message = 0; !r->faulty && sbx_json_array_next(&it, &message); r->message++)
		put_message(r, message);
	r->message = -1;
	sbx_jw_close(&r->w, ']');
}

/* ==== tools ==== */

static void
put_tools(struct sbx_json_writer *w, struct sbx_span tools)
{
	static const char *const said[] = { "type", "name", "description", "input_schema", "strict", "cache_control", NULL };
	struct sbx_json_iter it = sbx_json_array_iter(tools);
	struct sbx_span tool;
	if (!tools.n)
		return;
	sbx_jw_name(w, "tools");
	sbx_jw_open(w, '[');
	while (sbx_json_array_next(&it, &tool)) {
		struct sbx_span type = member(tool, "type");
		if (type.n && !sbx_json_string_eq(type, "custom")) { /* the provider runs it */
			put_whole(w, "type", tool);
			continue;
		}
		sbx_jw_open(w, '{');
		put_word(w, "type", "function");
		sbx_jw_name(w, "function");
		sbx_jw_open(w, '{');
		sbx_jw_member(w, "name", member(tool, "name"));
		sbx_jw_member(w, "description", member(tool, "description"));
		sbx_jw_member(w, "parameters", member(tool, "input_schema"));
		sbx_jw_member(w, "strict", member(tool, "strict"));
		sbx_jw_close(w, '}');
		sbx_jw_member(w, "cache_control", member(tool, "cache_control"));
		put_native(w, tool, said);
		sbx_jw_close(w, '}');
	}
	sbx_jw_close(w, ']');
}

static void
put_tool_choice(struct sbx_json_writer *w, struct sbx_span choice)
{
	bool alone;
	if (is(choice, "type", "auto") || is(choice, "type", "none")) {
		sbx_jw_copy(w, choice, "type", "tool_choice");
	} else if (is(choice, "type", "any")) {
		put_word(w, "tool_choice", "required");
	} else if (is(choice, "type", "tool")) {
		sbx_jw_name(w, "tool_choice");
		sbx_jw_open(w, '{');
		put_word(w, "type", "function");
		sbx_jw_name(w, "function");
		sbx_jw_open(w, '{');
		sbx_jw_copy(w, choice, "name", "name");
		sbx_jw_close(w, '}');
		sbx_jw_close(w, '}');
	}
	if (sbx_json_bool(member(choice, "disable_parallel_tool_use"), &alone))
		sbx_jw_member(w, "parallel_tool_calls", alone ? SBX_SPAN("false") : SBX_SPAN("true"));
}

/* ==== reasoning, and the form of the answer ==== */

static const char *const thinking_said[] = { "type", "budget_tokens", NULL };

/* Puts reasoning_effort. False: the thinking is of a kind that has no word. ret_effort: that of output_config was part of it. */
static bool
put_reasoning(struct sbx_json_writer *w, struct sbx_span thinking, struct sbx_span effort, bool *ret_effort)
{
	int64_t budget;
	*ret_effort = false;
	if (!thinking.n)
		return true;
	if (has_rest(thinking, thinking_said))
		return false;
	if (is(thinking, "type", "disabled")) {
		put_word(w, "reasoning_effort", "none");
	} else if (is(thinking, "type", "adaptive")) {
		*ret_effort = effort.n > 0;
		sbx_jw_member(w, "reasoning_effort", effort.n ? effort : SBX_SPAN("\"high\"")); /* which is what it is where nothing is said */
	} else if (is(thinking, "type", "enabled") && sbx_json_int64(member(thinking, "budget_tokens"), &budget)) {
		put_word(w, "reasoning_effort", budget <= BUDGET_LOW ? "low" : budget <= BUDGET_MEDIUM ? "medium" : "high");
	} else {
		return false;
	}
	return true;
}

/* Puts response_format. False: there is none, or it is of a kind that has no word. */
static bool
put_format(struct sbx_json_writer *w, struct sbx_span format)
{
	static const char *const said[] = { "type", "schema", NULL };
	if (!is(format, "type", "json_schema") || has_rest(format, said))
		return false;
	sbx_jw_name(w, "response_format");
	sbx_jw_open(w, '{');
	put_word(w, "type", "json_schema");
	sbx_jw_name(w, "json_schema");
	sbx_jw_open(w, '{');
	put_word(w, "name", "output"); /* chat demands one */
	sbx_jw_member(w, "schema", member(format, "schema"));
	sbx_jw_close(w, '}');
	sbx_jw_close(w, '}');
	return true;
}

/* ==== the body ==== */

/* An object of which some members have been said. */
static void
put_remains(struct sbx_json_writer *w, const char *name, struct sbx_span object, const char *const *said, bool *open)
{
	bool inside = true;
	if (!has_rest(object, said))
		return;
	open_native(w, open);
	sbx_jw_name(w, name);
	sbx_jw_open(w, '{');
	put_rest(w, object, said, &inside);
	sbx_jw_close(w, '}');
}

static void
put_body(struct reading *r, struct sbx_span root)
{
	static const char *const said[] = {
		"model", "max_tokens", "stream", "system", "messages", "tools", "tool_choice", "temperature", "top_p", "stop_sequences",
		"metadata", "service_tier", "output_config", "thinking", NULL,
	};
	struct sbx_json_writer *w = &r->w;
	struct sbx_span output = member(root, "output_config"), thinking = member(root, "thinking"), metadata = member(root, "metadata");
	struct sbx_span user = member(metadata, "user_id");
	bool effort_said, open = false;

	sbx_jw_open(w, '{');
	sbx_jw_member(w, "model", member(root, "model"));
	sbx_jw_member(w, "max_completion_tokens", member(root, "max_tokens"));
	sbx_jw_member(w, "stream", member(root, "stream"));
	put_messages(r, member(root, "system"), member(root, "messages"));
	put_tools(w, member(root, "tools"));
	put_tool_choice(w, member(root, "tool_choice"));
	sbx_jw_member(w, "temperature", member(root, "temperature"));
	sbx_jw_member(w, "top_p", member(root, "top_p"));
	sbx_jw_member(w, "stop", member(root, "stop_sequences"));
	sbx_jw_member(w, "user", user);
	if (member(root, "service_tier").n)
		put_word(w, "service_tier", is(root, "service_tier", "standard_only") ? "default" : "auto");
	bool thinking_said_all = put_reasoning(w, thinking, member(output, "effort"), &effort_said);
	bool format_said = put_format(w, member(output, "format"));

	const char *output_said[3] = { NULL };
	size_t n = 0;
	if (effort_said)
		output_said[n++] = "effort";
	if (format_said)
		output_said[n++] = "format";
	put_rest(w, root, said, &open);
	if (!thinking_said_all) {
		open_native(w, &open);
		sbx_jw_member(w, "thinking", thinking);
	}
	put_remains(w, "output_config", output, output_said, &open);
	put_remains(w, "metadata", metadata, (const char *const[]){ "user_id", NULL }, &open);
	close_native(w, open);
	sbx_jw_close(w, '}');
}

int
sbx_anthropic_to_hub(enum sbx_op op, struct sbx_span body, struct sbx_buf *out, struct sbx_fault *ret_fault)
{
	struct reading r = { .w = sbx_json_writer(out), .fault = ret_fault, .message = -1 };
	if (op != SBX_OP_CHAT) { /* to be counted is for who counts as its model does */
		*ret_fault = (struct sbx_fault){ .unsupported = true };
		(void)snprintf(ret_fault->why, sizeof ret_fault->why, "operation %s can only be asked of a target of Anthropic's dialect", sbx_op_word(op));
		return -SBX_ESYNTAX;
	}
	sbx_json_scratch_init(&r.scratch);
	sbx_buf_init(&r.text, SBX_BODY_MAX_BYTES);
	put_body(&r, sbx_json_root(body.at, body.n));
	sbx_buf_fini(&r.text);
	sbx_json_scratch_fini(&r.scratch);
	return r.faulty ? -SBX_ESYNTAX : r.w.rc;
}
