/* SPDX-License-Identifier: Apache-2.0 */
/*
 * mistral_to_hub.c -- a request in Mistral's dialect -> the hub's form, for a target of another one.
 *
 * What is not told apart here has the same name and meaning in both, or is kept as it is in x_native. Members that are null say
 * nothing.
 */
#include "agent/dialect/mistral.h"

#include "agent/dialect/translate.h"

/* ==== parts ==== */

/* The one text of a thinking part; empty when it is more than that. */
static struct sbx_span
only_thought(struct sbx_span part)
{
	static const char *const part_said[] = { "type", "thinking", NULL }, *const text_said[] = { "type", "text", NULL };
	struct sbx_json_iter it = sbx_json_array_iter(sbx_tr_member(part, "thinking"));
	struct sbx_span first, second;
	if (!sbx_tr_is(part, "type", "thinking") || sbx_tr_has_rest(part, part_said) || !sbx_json_array_next(&it, &first) ||
	    sbx_json_array_next(&it, &second) || !sbx_tr_is(first, "type", "text") || sbx_tr_has_rest(first, text_said))
		return SBX_NO_SPAN;
	struct sbx_span text = sbx_tr_member(first, "text");
	return sbx_tr_is_text(text) ? text : SBX_NO_SPAN;
}

static void
put_document(struct sbx_translating *x, struct sbx_span part)
{
	static const char *const url_said[] = { "type", "document_url", "document_name", NULL }, *const id_said[] = { "type", "file_id", NULL };
	struct sbx_json_writer *w = &x->w;
	struct sbx_span url = sbx_tr_member(part, "document_url"), type, data;
	bool inside = sbx_tr_is_text(url) && sbx_tr_data_url((struct sbx_span){ url.at + 1, url.n - 2 }, &type, &data);
	if (sbx_tr_has_rest(part, url.n ? url_said : id_said) || (url.n && !inside)) { /* an address: chat takes none for a file */
		sbx_tr_put_whole(x, "type", part);
		return;
	}
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "type", "file");
	sbx_jw_name(w, "file");
	sbx_jw_open(w, '{');
	sbx_jw_member(w, "filename", sbx_tr_member(part, "document_name"));
	sbx_jw_member(w, "file_data", url);
	sbx_jw_member(w, "file_id", sbx_tr_member(part, "file_id"));
	sbx_jw_close(w, '}');
	sbx_jw_close(w, '}');
}

static void
put_part(struct sbx_translating *x, struct sbx_span part)
{
	static const char *const same[] = { "text", "image_url", "input_audio" };
	struct sbx_span type = sbx_tr_member(part, "type"), audio = sbx_tr_member(part, "input_audio");
	bool bare = audio.n && sbx_json_type(audio) != SBX_JSON_OBJECT; /* its data alone: chat wants the format beside it */
	for (size_t i = 0; !bare && i < sizeof same / sizeof same[0]; i++) {
		if (!sbx_json_string_eq(type, same[i]))
			continue;
		sbx_jw_open(&x->w, '{');
		sbx_jw_member(&x->w, "type", type);
		sbx_jw_member(&x->w, same[i], sbx_tr_member(part, same[i]));
		sbx_tr_put_native(x, part, (const char *const[]){ "type", same[i], NULL });
		sbx_jw_close(&x->w, '}');
		return;
	}
	if (sbx_json_string_eq(type, "document_url") || sbx_json_string_eq(type, "file"))
		put_document(x, part);
	else
		sbx_tr_put_whole(x, "type", part);
}

/* Thoughts in front of the words have a member of their own. */
static void
put_content(struct sbx_translating *x, struct sbx_span content)
{
	struct sbx_json_writer *w = &x->w;
	struct sbx_json_iter it = sbx_json_array_iter(content), rest = it;
	struct sbx_span part, thought;
	int64_t n_thoughts = 0;
	if (sbx_json_type(content) != SBX_JSON_ARRAY) {
		sbx_jw_member(w, "content", content);
		return;
	}
	while (sbx_json_array_next(&it, &part) && (thought = only_thought(part)).n) {
		if (n_thoughts == 0) {
			sbx_jw_name(w, "reasoning_details");
			sbx_jw_open(w, '[');
		}
		sbx_jw_open(w, '{');
		sbx_tr_put_word(w, "type", "reasoning.text");
		sbx_jw_member(w, "text", thought);
		sbx_tr_put_word(w, "format", SBX_MISTRAL_FORMAT);
		sbx_jw_name(w, "index");
		sbx_jw_int(w, n_thoughts++);
		sbx_jw_close(w, '}');
		rest = it;
	}
	if (n_thoughts)
		sbx_jw_close(w, ']');
	sbx_jw_name(w, "content");
	sbx_jw_open(w, '[');
	while (sbx_json_array_next(&rest, &part))
		put_part(x, part);
	sbx_jw_close(w, ']');
}

/* ==== messages and tools ==== */

static void
put_calls(struct sbx_translating *x, struct sbx_span calls)
{
	static const char *const said[] = { "id", "type", "function", NULL };
	struct sbx_json_iter it = sbx_json_array_iter(calls);
	struct sbx_span call;
	if (!sbx_tr_holds(calls))
		return;
	sbx_jw_name(&x->w, "tool_calls");
	sbx_jw_open(&x->w, '[');
	while (sbx_json_array_next(&it, &call)) {
		sbx_jw_open(&x->w, '{');
		sbx_jw_copy(&x->w, call, "id", "id");
		sbx_tr_put_word(&x->w, "type", "function");
		sbx_jw_copy(&x->w, call, "function", "function");
		sbx_tr_put_native(x, call, said);
		sbx_jw_close(&x->w, '}');
	}
	sbx_jw_close(&x->w, ']');
}

static void
put_message(struct sbx_translating *x, struct sbx_span message)
{
	static const char *const said[] = { "role", "content", "tool_calls", "tool_call_id", "name", NULL };
	static const char *const known[] = { "system", "user", "assistant", "tool", NULL };
	struct sbx_json_writer *w = &x->w;
	struct sbx_span role = sbx_tr_member(message, "role");
	if (sbx_json_type(role) != SBX_JSON_STRING) {
		sbx_tr_wrong(x, "role", "must be a string");
		return;
	}
	if (!sbx_tr_listed(role, known)) {
		sbx_tr_put_whole(x, "role", message);
		return;
	}
	sbx_jw_open(w, '{');
	sbx_jw_member(w, "role", role);
	put_content(x, sbx_tr_member(message, "content"));
	put_calls(x, sbx_tr_member(message, "tool_calls"));
	sbx_jw_member(w, "tool_call_id", sbx_tr_member(message, "tool_call_id"));
	sbx_jw_member(w, "name", sbx_tr_member(message, "name"));
	sbx_tr_put_native(x, message, said);
	sbx_jw_close(w, '}');
}

static void
put_messages(struct sbx_translating *x, struct sbx_span messages)
{
	struct sbx_json_iter it = sbx_json_array_iter(messages);
	struct sbx_span message;
	sbx_jw_name(&x->w, "messages");
	sbx_jw_open(&x->w, '[');
	for (x->message = 0; !sbx_tr_stopped(x) && sbx_json_array_next(&it, &message); x->message++)
		put_message(x, message);
	if (!x->faulty)
		x->message = -1;
	sbx_jw_close(&x->w, ']');
}

static void
put_tools(struct sbx_translating *x, struct sbx_span tools)
{
	static const char *const said[] = { "type", "function", NULL };
	struct sbx_json_iter it = sbx_json_array_iter(tools);
	struct sbx_span tool;
	if (!sbx_tr_holds(tools))
		return;
	sbx_jw_name(&x->w, "tools");
	sbx_jw_open(&x->w, '[');
	while (sbx_json_array_next(&it, &tool)) {
		struct sbx_span function = sbx_tr_member(tool, "function");
		if (!function.n) { /* the provider runs it */
			sbx_tr_put_whole(x, "type", tool);
			continue;
		}
		sbx_jw_open(&x->w, '{');
		sbx_tr_put_word(&x->w, "type", "function");
		sbx_jw_member(&x->w, "function", function);
		sbx_tr_put_native(x, tool, said);
		sbx_jw_close(&x->w, '}');
	}
	sbx_jw_close(&x->w, ']');
}

/* ==== bodies ==== */

/* Members of another name, or of none, in chat. */
static const struct renamed {
	const char *own, *hub;
} renamed[] = { { "random_seed", "seed" }, { "output_dimension", "dimensions" } };

static void
put_renamed(struct sbx_json_writer *w, struct sbx_span name, struct sbx_span value)
{
	for (size_t i = 0; i < sizeof renamed / sizeof renamed[0]; i++) {
		if (sbx_json_string_eq(name, renamed[i].own)) {
			sbx_jw_member(w, renamed[i].hub, value);
			return;
		}
	}
	sbx_jw_name_span(w, name);
	sbx_jw_value(w, value);
}

static void
put_body(struct sbx_translating *x, struct sbx_span root)
{
	static const char *const said[] = {
		"model", "max_tokens", "stream", "stop", "temperature", "top_p", "n", "presence_penalty", "frequency_penalty", "response_format",
		"parallel_tool_calls", "reasoning_effort", "prediction", "prompt_cache_key", "metadata", "input", "random_seed", "output_dimension",
		"messages", "tools", "tool_choice", NULL,
	};
	static const char *const apart[] = { "messages", "tools", "tool_choice", NULL };
	struct sbx_json_writer *w = &x->w;
	struct sbx_json_iter it = sbx_json_object_iter(root);
	struct sbx_span name, value, messages = sbx_tr_member(root, "messages"), choice = sbx_tr_member(root, "tool_choice");
	sbx_jw_open(w, '{');
	while (sbx_json_object_next(&it, &name, &value))
		if (sbx_json_type(value) != SBX_JSON_NULL && sbx_tr_listed(name, said) && !sbx_tr_listed(name, apart))
			put_renamed(w, name, value);
	if (messages.n)
		put_messages(x, messages);
	put_tools(x, sbx_tr_member(root, "tools"));
	if (sbx_json_string_eq(choice, "any"))
		sbx_tr_put_word(w, "tool_choice", "required");
	else
		sbx_jw_member(w, "tool_choice", choice);
	sbx_tr_put_native(x, root, said);
	sbx_jw_close(w, '}');
}

int
sbx_mistral_to_hub(enum sbx_op op, struct sbx_span body, struct sbx_buf *out, struct sbx_fault *ret_fault)
{
	struct sbx_translating x;
	(void)op; /* no name has two meanings in two operations */
	sbx_tr_begin(&x, SBX_MISTRAL_NAME, SBX_MISTRAL_WHOSE, NULL, out, ret_fault);
	put_body(&x, sbx_json_root(body.at, body.n));
	return sbx_tr_end(&x);
}
