/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_messages.c -- the conversation, out of the hub's form: `system` and `messages`.
 *
 * What differs. Instructions stand apart, all of them, wherever they stood in the conversation. There are two roles: results of tools are
 * blocks of the user's, and neighbours of the same role become one message, as the provider itself would do. Thoughts are given back
 * as blocks, with their signatures, before what was said; those without a signature, or of another provider, are left out, since
 * they would be refused. Texts that are empty are left out for the same reason.
 */
#include "agent/dialect/anthropic_write.h"

#include <strings.h>

#include <signalbox/errors.h>

enum role { ROLE_NONE, ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL, ROLE_NATIVE };

static const struct role_word {
	const char *word;
	enum role role;
} role_words[] = {
	{ "system", ROLE_SYSTEM },       { "developer", ROLE_SYSTEM }, { "user", ROLE_USER },
	{ "assistant", ROLE_ASSISTANT }, { "tool", ROLE_TOOL },        { "x_native", ROLE_NATIVE },
};

/* The message being written: one or several of the hub's. */
struct run {
	const char *role;   /* NULL = none */
	bool open;          /* its beginning was written: it has a block */
	bool thought;       /* ASSISTANT: begins with a thought */
	bool calls;         /* ASSISTANT: has a tool call */
	bool results;       /* USER: has a result */
};

#define NO_SPAN ((struct sbx_span){ NULL, 0 })

static enum role
role_of(struct sbx_span message)
{
	struct sbx_span role = sbx_anthropic_member(message, "role");
	for (size_t i = 0; i < sizeof role_words / sizeof role_words[0]; i++)
		if (sbx_json_string_eq(role, role_words[i].word))
			return role_words[i].role;
	return ROLE_NONE;
}

static const char *
run_role(enum role role)
{
	return role == ROLE_ASSISTANT ? "assistant" : role == ROLE_USER || role == ROLE_TOOL ? "user" : NULL;
}

/* ==== blocks ==== */

/* Opens a block, in the message that is written or in a list of its own (run NULL). */
static void
open_block(struct sbx_anthropic_writing *aw, struct run *run, const char *type)
{
	struct sbx_json_writer *w = &aw->w;
	if (run && !run->open) {
		run->open = true;
		sbx_jw_open(w, '{');
		sbx_jw_name(w, "role");
		sbx_jw_text(w, sbx_span_of(run->role));
		sbx_jw_name(w, "content");
		sbx_jw_open(w, '[');
	}
	sbx_jw_open(w, '{');
	if (type) {
		sbx_jw_name(w, "type");
		sbx_jw_text(w, sbx_span_of(type));
	}
}

/* source: the part or call that it was made of. mark: of the prompt cache, if not its own. */
static void
close_block(struct sbx_anthropic_writing *aw, struct sbx_span source, struct sbx_span mark)
{
	struct sbx_span own = sbx_anthropic_member(source, "cache_control");
	sbx_jw_member(&aw->w, "cache_control", own.n ? own : mark);
	sbx_anthropic_write_members(aw, sbx_anthropic_native(aw, source));
	sbx_jw_close(&aw->w, '}');
}

static void
write_text(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span text, struct sbx_span source, struct sbx_span mark)
{
	if (!sbx_anthropic_is_text(text))
		return;
	open_block(aw, run, "text");
	sbx_jw_member(&aw->w, "text", text);
	close_block(aw, source, mark);
}

/* data:<type>;base64,<data>. False for any other text. */
static bool
split_data_url(struct sbx_span url, struct sbx_span *ret_type, struct sbx_span *ret_data)
{
	static const char middle[] = ";base64,";
	if (url.n < 5 || strncasecmp(url.at, "data:", 5) != 0)
		return false;
	const char *at = memmem(url.at, url.n, middle, sizeof middle - 1);
	if (!at)
		return false;
	*ret_type = (struct sbx_span){ url.at + 5, (size_t)(at - url.at) - 5 };
	*ret_data = (struct sbx_span){ at + sizeof middle - 1, url.n - (size_t)(at - url.at) - (sizeof middle - 1) };
	return true;
}

static void
write_base64_source(struct sbx_anthropic_writing *aw, struct sbx_span type, struct sbx_span data)
{
	struct sbx_json_writer *w = &aw->w;
	sbx_jw_name(w, "source");
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "type");
	sbx_jw_literal(w, "\"base64\"");
	sbx_jw_name(w, "media_type");
	sbx_jw_text(w, type);
	sbx_jw_name(w, "data");
	sbx_jw_text(w, data);
	sbx_jw_close(w, '}');
}

static void
write_source(struct sbx_anthropic_writing *aw, const char *type, const char *name, struct sbx_span value)
{
	struct sbx_json_writer *w = &aw->w;
	sbx_jw_name(w, "source");
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "type");
	sbx_jw_text(w, sbx_span_of(type));
	sbx_jw_member(w, name, value);
	sbx_jw_close(w, '}');
}

/* (`detail` is about a resolution that this provider chooses itself: there is nothing to be said.) */
static void
write_image(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span part, struct sbx_span mark)
{
	struct sbx_span image = sbx_anthropic_member(part, "image_url"), url = sbx_anthropic_member(image, "url"), type, data;
	if (sbx_json_type(image) == SBX_JSON_STRING) /* some write it so */
		url = image;
	if (!sbx_anthropic_is_text(url)) {
		sbx_anthropic_wrong(aw, "image_url.url", "must be a string that is not empty");
		return;
	}
	struct sbx_span text = sbx_anthropic_text(aw, url);
	bool inside = text.n >= 5 && strncasecmp(text.at, "data:", 5) == 0;
	if (inside && !split_data_url(text, &type, &data)) {
		sbx_anthropic_wrong(aw, "image_url.url", "must be a URL, or data in base64 with its type");
		return;
	}
	open_block(aw, run, "image");
	if (inside)
		write_base64_source(aw, type, data);
	else
		write_source(aw, "url", "url", url);
	close_block(aw, part, mark);
}

static void
write_file(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span part, struct sbx_span mark)
{
	struct sbx_span file = sbx_anthropic_member(part, "file"), id = sbx_anthropic_member(file, "file_id"), type, data;
	struct sbx_span bytes = sbx_anthropic_member(file, "file_data");
	if (!sbx_anthropic_is_text(id)) {
		if (!sbx_anthropic_is_text(bytes) || !split_data_url(sbx_anthropic_text(aw, bytes), &type, &data)) {
			sbx_anthropic_wrong(aw, "file.file_data", "must be data in base64 with its type");
			return;
		}
		if (!sbx_span_is(type, "application/pdf")) {
			sbx_anthropic_cannot_say(aw, "file.file_data");
			return;
		}
	}
	open_block(aw, run, "document");
	if (sbx_anthropic_is_text(id))
		write_source(aw, "file", "file_id", id);
	else
		write_base64_source(aw, type, data);
	sbx_jw_member(&aw->w, "title", sbx_anthropic_member(file, "filename"));
	close_block(aw, part, mark);
}

static void
write_native_block(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span part)
{
	struct sbx_span native = sbx_anthropic_native(aw, part);
	if (!native.n)
		return;
	open_block(aw, run, NULL);
	sbx_anthropic_write_members(aw, native);
	sbx_jw_close(&aw->w, '}');
}

static void
write_part(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span part, struct sbx_span mark)
{
	struct sbx_span type = sbx_anthropic_member(part, "type");
	if (sbx_json_type(part) == SBX_JSON_STRING)
		write_text(aw, run, part, NO_SPAN, mark);
	else if (sbx_json_string_eq(type, "text"))
		write_text(aw, run, sbx_anthropic_member(part, "text"), part, mark);
	else if (sbx_json_string_eq(type, "refusal"))
		write_text(aw, run, sbx_anthropic_member(part, "refusal"), part, mark);
	else if (sbx_json_string_eq(type, "image_url"))
		write_image(aw, run, part, mark);
	else if (sbx_json_string_eq(type, "file"))
		write_file(aw, run, part, mark);
	else if (sbx_json_string_eq(type, "x_native"))
		write_native_block(aw, run, part);
	else
		sbx_anthropic_cannot_say(aw, "type");
}

/* Content of any form, as blocks. mark: for the last of them. */
static void
write_content(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span content, struct sbx_span mark)
{
	struct sbx_json_iter it = sbx_json_array_iter(content), ahead;
	struct sbx_span part, next;
	if (sbx_json_type(content) == SBX_JSON_STRING) {
		write_text(aw, run, content, NO_SPAN, mark);
		return;
	}
	for (aw->part = 0; !sbx_anthropic_stopped(aw) && sbx_json_array_next(&it, &part); aw->part++) {
		ahead = it;
		write_part(aw, run, part, sbx_json_array_next(&ahead, &next) ? NO_SPAN : mark);
	}
	if (!aw->faulty)
		aw->part = -1;
}

/* ==== thoughts ==== */

static bool
is_ours(struct sbx_span detail)
{
	struct sbx_span format = sbx_anthropic_member(detail, "format");
	return !format.n || sbx_json_string_eq(format, SBX_ANTHROPIC_FORMAT);
}

static void
write_thoughts(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span details)
{
	struct sbx_json_iter it = sbx_json_array_iter(details);
	struct sbx_json_writer *w = &aw->w;
	struct sbx_span detail;
	while (sbx_json_array_next(&it, &detail)) {
		struct sbx_span type = sbx_anthropic_member(detail, "type"), text = sbx_anthropic_member(detail, "text");
		struct sbx_span signature = sbx_anthropic_member(detail, "signature"), data = sbx_anthropic_member(detail, "data");
		if (!is_ours(detail))
			continue;
		if (sbx_json_string_eq(type, "reasoning.text") && sbx_anthropic_is_text(signature)) {
			run->thought |= !run->open;
			open_block(aw, run, "thinking");
			sbx_jw_name(w, "thinking");
			sbx_jw_value(w, sbx_json_type(text) == SBX_JSON_STRING ? text : SBX_SPAN("\"\""));
			sbx_jw_member(w, "signature", signature);
			sbx_jw_close(w, '}');
		} else if (sbx_json_string_eq(type, "reasoning.encrypted") && sbx_anthropic_is_text(data)) {
			run->thought |= !run->open;
			open_block(aw, run, "redacted_thinking");
			sbx_jw_member(w, "data", data);
			sbx_jw_close(w, '}');
		}
	}
}

/* Of a client that gave the calls back, but not the thoughts. */
static void
recall_thoughts(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span calls)
{
	struct sbx_json_iter it = sbx_json_array_iter(calls);
	struct sbx_span call, id, details;
	while (aw->t->recall && !run->thought && sbx_json_array_next(&it, &call)) {
		id = sbx_anthropic_member(call, "id");
		if (!sbx_anthropic_is_text(id))
			continue;
		details = aw->t->recall(aw->t->arg, sbx_anthropic_text(aw, id));
		if (details.n)
			write_thoughts(aw, run, sbx_json_root(details.at, details.n));
	}
}

/* ==== tools ==== */

/* The provider takes letters, digits, _ and -; other providers' ids have more. What becomes of an id is the same wherever it stands. */
static void
write_id(struct sbx_anthropic_writing *aw, const char *name, struct sbx_span id)
{
	struct sbx_span text = sbx_anthropic_text(aw, id);
	struct sbx_json_writer *w = &aw->w;
	sbx_jw_name(w, name);
	sbx_jw_raw(w, "\"", 1);
	for (size_t i = 0; i < text.n; i++) {
		char c = text.at[i];
		bool fine = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
		sbx_jw_raw(w, fine ? &c : "_", 1);
	}
	sbx_jw_raw(w, "\"", 1);
	w->follows = true;
}

/* A call's arguments as an object: JSON inside a string; some clients forget the string. */
static void
write_input(struct sbx_anthropic_writing *aw, struct sbx_span arguments)
{
	struct sbx_span object = arguments;
	if (!sbx_anthropic_is_text(arguments) && sbx_json_type(arguments) != SBX_JSON_OBJECT) {
		object = SBX_SPAN("{}"); /* absent, or "" for a tool that takes none */
	} else if (sbx_json_type(arguments) == SBX_JSON_STRING) {
		object = sbx_anthropic_text(aw, arguments);
		if (sbx_json_check(object.at, object.n, &aw->scratch, NULL) == 0)
			object = sbx_json_root(object.at, object.n);
		else
			object = NO_SPAN;
		if (sbx_json_type(object) != SBX_JSON_OBJECT) {
			sbx_anthropic_wrong(aw, "function.arguments", "must be a JSON object");
			return;
		}
	}
	sbx_jw_member(&aw->w, "input", object);
}

static void
write_call(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span call, struct sbx_span mark)
{
	struct sbx_span type = sbx_anthropic_member(call, "type"), function = sbx_anthropic_member(call, "function");
	struct sbx_span id = sbx_anthropic_member(call, "id"), name = sbx_anthropic_member(function, "name");
	if (type.n && !sbx_json_string_eq(type, "function")) {
		sbx_anthropic_cannot_say(aw, "type");
		return;
	}
	if (!sbx_anthropic_is_text(id) || !sbx_anthropic_is_text(name)) {
		sbx_anthropic_wrong(aw, sbx_anthropic_is_text(id) ? "function.name" : "id", "must be a string that is not empty");
		return;
	}
	run->calls = true;
	open_block(aw, run, "tool_use");
	write_id(aw, "id", id);
	sbx_jw_member(&aw->w, "name", name);
	write_input(aw, sbx_anthropic_member(function, "arguments"));
	close_block(aw, call, mark);
}

static void
write_calls(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span calls, struct sbx_span mark)
{
	struct sbx_json_iter it = sbx_json_array_iter(calls), ahead;
	struct sbx_span call, next;
	for (aw->call = 0; !sbx_anthropic_stopped(aw) && sbx_json_array_next(&it, &call); aw->call++) {
		ahead = it;
		write_call(aw, run, call, sbx_json_array_next(&ahead, &next) ? NO_SPAN : mark);
	}
	if (!aw->faulty)
		aw->call = -1;
}

static void
write_result(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span message)
{
	struct sbx_span id = sbx_anthropic_member(message, "tool_call_id"), content = sbx_anthropic_member(message, "content"), failed;
	struct sbx_json_writer *w = &aw->w;
	if (!sbx_anthropic_is_text(id)) {
		sbx_anthropic_wrong(aw, "tool_call_id", "must be a string that is not empty");
		return;
	}
	run->results = true;
	open_block(aw, run, "tool_result");
	write_id(aw, "tool_use_id", id);
	if (sbx_json_type(content) == SBX_JSON_STRING) {
		sbx_jw_member(w, "content", content);
	} else if (content.n) {
		sbx_jw_name(w, "content");
		sbx_jw_open(w, '[');
		write_content(aw, NULL, content, NO_SPAN);
		sbx_jw_close(w, ']');
	}
	failed = sbx_anthropic_member(message, "is_error");
	sbx_jw_member(w, "is_error", failed);
	close_block(aw, message, NO_SPAN); /* its cache_control is the message's */
}

/* ==== messages ==== */

static void
end_run(struct sbx_anthropic_writing *aw, struct run *run)
{
	if (run->open) {
		sbx_jw_close(&aw->w, ']');
		sbx_jw_close(&aw->w, '}');
	}
	if (run->calls)
		aw->open_tool_turn = !run->thought;
	else if (run->open && !run->results)
		aw->open_tool_turn = false;
	*run = (struct run){ .role = NULL };
}

static void
write_assistant(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span message)
{
	struct sbx_span content = sbx_anthropic_member(message, "content"), calls = sbx_anthropic_member(message, "tool_calls"), call;
	struct sbx_span refusal = sbx_anthropic_member(message, "refusal"), mark = sbx_anthropic_member(message, "cache_control");
	struct sbx_json_iter it = sbx_json_array_iter(calls);
	bool any_call = sbx_json_array_next(&it, &call);

	if (sbx_anthropic_member(message, "function_call").n)
		sbx_anthropic_cannot_say(aw, "function_call");
	if (sbx_anthropic_member(message, "audio").n)
		sbx_anthropic_cannot_say(aw, "audio");
	write_thoughts(aw, run, sbx_anthropic_member(message, "reasoning_details"));
	recall_thoughts(aw, run, calls);
	write_content(aw, run, content, any_call ? NO_SPAN : mark);
	write_text(aw, run, refusal, NO_SPAN, NO_SPAN);
	write_calls(aw, run, calls, mark);
}

/* The next message that is not an instruction. */
static enum role
role_ahead(struct sbx_json_iter it)
{
	struct sbx_span message;
	while (sbx_json_array_next(&it, &message))
		if (role_of(message) != ROLE_SYSTEM)
			return role_of(message);
	return ROLE_NONE;
}

/* Whether the message is nothing but a text, to be written as one. */
static bool
is_plain(struct sbx_span message)
{
	return sbx_anthropic_is_text(sbx_anthropic_member(message, "content")) && !sbx_anthropic_member(message, "cache_control").n &&
	       !sbx_anthropic_member(message, "tool_calls").n && !sbx_anthropic_member(message, "reasoning_details").n &&
	       !sbx_anthropic_member(message, "refusal").n && !sbx_anthropic_member(message, "x_native").n;
}

static void
write_plain(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span message)
{
	struct sbx_json_writer *w = &aw->w;
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "role");
	sbx_jw_text(w, sbx_span_of(run->role));
	sbx_jw_copy(w, message, "content", "content");
	sbx_jw_close(w, '}');
	aw->open_tool_turn = false;
}

static void
write_message(struct sbx_anthropic_writing *aw, struct run *run, struct sbx_span message, enum role role, bool alone)
{
	if (role == ROLE_NATIVE) {
		struct sbx_span native = sbx_anthropic_native(aw, message);
		if (native.n)
			sbx_jw_value(&aw->w, native);
		return;
	}
	if (sbx_anthropic_member(message, "name").n && role != ROLE_TOOL)
		sbx_anthropic_cannot_say(aw, "name");
	if (alone && role != ROLE_TOOL && is_plain(message))
		write_plain(aw, run, message);
	else if (role == ROLE_ASSISTANT)
		write_assistant(aw, run, message);
	else if (role == ROLE_TOOL)
		write_result(aw, run, message);
	else
		write_content(aw, run, sbx_anthropic_member(message, "content"), sbx_anthropic_member(message, "cache_control"));
}

static void
write_conversation(struct sbx_anthropic_writing *aw, struct sbx_span messages)
{
	struct sbx_json_iter it = sbx_json_array_iter(messages);
	struct run run = { .role = NULL };
	struct sbx_span message;
	bool any = false;
	sbx_jw_name(&aw->w, "messages");
	sbx_jw_open(&aw->w, '[');
	for (aw->message = 0; !sbx_anthropic_stopped(aw) && sbx_json_array_next(&it, &message); aw->message++) {
		enum role role = role_of(message);
		if (role == ROLE_SYSTEM)
			continue;
		if (role == ROLE_NONE) {
			sbx_anthropic_cannot_say(aw, "role");
			continue;
		}
		const char *word = run_role(role);
		bool first = !run.role || !word || strcmp(run.role, word) != 0;
		if (first) {
			end_run(aw, &run);
			run.role = word;
		}
		const char *next = run_role(role_ahead(it));
		any = true;
		write_message(aw, &run, message, role, first && !(next && word && strcmp(next, word) == 0));
	}
	end_run(aw, &run);
	if (!aw->faulty)
		aw->message = -1;
	sbx_jw_close(&aw->w, ']');
	if (!any && !sbx_anthropic_stopped(aw))
		sbx_anthropic_wrong(aw, "messages", "must hold a message of the user's for this model");
}

/* One text stays one; anything more is a list of blocks. */
static void
write_system(struct sbx_anthropic_writing *aw, struct sbx_span messages)
{
	struct sbx_json_iter it = sbx_json_array_iter(messages);
	struct sbx_span message, only = NO_SPAN;
	uint32_t n = 0;
	while (sbx_json_array_next(&it, &message)) {
		if (role_of(message) == ROLE_SYSTEM && sbx_anthropic_member(message, "content").n > 2) {
			only = message;
			n++;
		}
	}
	if (n == 0)
		return;
	sbx_jw_name(&aw->w, "system");
	if (n == 1 && is_plain(only)) {
		sbx_jw_value(&aw->w, sbx_anthropic_member(only, "content"));
		return;
	}
	sbx_jw_open(&aw->w, '[');
	it = sbx_json_array_iter(messages);
	for (aw->message = 0; !sbx_anthropic_stopped(aw) && sbx_json_array_next(&it, &message); aw->message++)
		if (role_of(message) == ROLE_SYSTEM)
			write_content(aw, NULL, sbx_anthropic_member(message, "content"), sbx_anthropic_member(message, "cache_control"));
	if (!aw->faulty)
		aw->message = -1;
	sbx_jw_close(&aw->w, ']');
}

void
sbx_anthropic_write_messages(struct sbx_anthropic_writing *aw, struct sbx_span messages)
{
	write_system(aw, messages);
	write_conversation(aw, messages);
}
