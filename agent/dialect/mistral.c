/* SPDX-License-Identifier: Apache-2.0 */
/* mistral.c -- see mistral.h: the dialect's row, and requests for it. */
#include "agent/dialect/mistral.h"

#include <signalbox/errors.h>

#include "agent/dialect/openai_chat.h"
#include "agent/dialect/translate.h"

#define TEMPERATURE_MAX 1.5
#define CALL_ID_BYTES   9 /* letters and digits, exactly so many: anything else is refused */

/* ==== parts of content ==== */

static void
put_text(struct sbx_json_writer *w, struct sbx_span text)
{
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "type", "text");
	sbx_jw_member(w, "text", text);
	sbx_jw_close(w, '}');
}

/* A document goes as an address, which may be its data. */
static void
put_file(struct sbx_translating *x, struct sbx_span file)
{
	struct sbx_json_writer *w = &x->w;
	struct sbx_span id = sbx_tr_member(file, "file_id"), data = sbx_tr_member(file, "file_data");
	if (!sbx_tr_is_text(id) && !sbx_tr_is_text(data)) {
		sbx_tr_wrong(x, "file.file_data", "must be a string that is not empty");
		return;
	}
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "type", sbx_tr_is_text(id) ? "file" : "document_url");
	sbx_jw_member(w, "file_id", id);
	if (!sbx_tr_is_text(id)) {
		sbx_jw_member(w, "document_url", data);
		sbx_jw_member(w, "document_name", sbx_tr_member(file, "filename"));
	}
	sbx_jw_close(w, '}');
}

/* Parts that both have, under one name and in one form. */
static void
put_same(struct sbx_translating *x, struct sbx_span part, const char *name)
{
	struct sbx_json_writer *w = &x->w;
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "type", name);
	sbx_jw_member(w, name, sbx_tr_member(part, name));
	sbx_tr_put_members(x, sbx_tr_native(x, part));
	sbx_jw_close(w, '}');
}

static void
put_native_part(struct sbx_translating *x, struct sbx_span part)
{
	struct sbx_span native = sbx_tr_native(x, part);
	if (native.n)
		sbx_jw_value(&x->w, native);
}

static void
put_part(struct sbx_translating *x, struct sbx_span part)
{
	static const char *const same[] = { "text", "image_url", "input_audio" };
	struct sbx_span type = sbx_tr_member(part, "type");
	sbx_tr_no_cache_mark(x, part);
	for (size_t i = 0; i < sizeof same / sizeof same[0]; i++) {
		if (sbx_json_string_eq(type, same[i])) {
			put_same(x, part, same[i]);
			return;
		}
	}
	if (sbx_json_type(part) == SBX_JSON_STRING)
		put_text(&x->w, part);
	else if (sbx_json_string_eq(type, "refusal"))
		put_text(&x->w, sbx_tr_member(part, "refusal"));
	else if (sbx_json_string_eq(type, "file"))
		put_file(x, sbx_tr_member(part, "file"));
	else if (sbx_json_string_eq(type, "x_native"))
		put_native_part(x, part);
	else
		sbx_tr_cannot_say(x, "type");
}

static void
put_parts(struct sbx_translating *x, struct sbx_span content)
{
	struct sbx_json_iter it = sbx_json_array_iter(content);
	struct sbx_span part;
	if (sbx_tr_is_text(content))
		put_text(&x->w, content);
	for (x->part = 0; !sbx_tr_stopped(x) && sbx_json_array_next(&it, &part); x->part++)
		put_part(x, part);
	if (!x->faulty)
		x->part = -1;
}

static bool
is_thought(struct sbx_span detail)
{
	return sbx_tr_is(detail, "type", "reasoning.text") && sbx_tr_is(detail, "format", SBX_MISTRAL_FORMAT) &&
	       sbx_tr_is_text(sbx_tr_member(detail, "text"));
}

static bool
has_thoughts(struct sbx_span details)
{
	struct sbx_json_iter it = sbx_json_array_iter(details);
	struct sbx_span detail;
	while (sbx_json_array_next(&it, &detail))
		if (is_thought(detail))
			return true;
	return false;
}

static void
put_thoughts(struct sbx_json_writer *w, struct sbx_span details)
{
	struct sbx_json_iter it = sbx_json_array_iter(details);
	struct sbx_span detail;
	while (sbx_json_array_next(&it, &detail)) {
		if (!is_thought(detail))
			continue;
		sbx_jw_open(w, '{');
		sbx_tr_put_word(w, "type", "thinking");
		sbx_jw_name(w, "thinking");
		sbx_jw_open(w, '[');
		put_text(w, sbx_tr_member(detail, "text"));
		sbx_jw_close(w, ']');
		sbx_jw_close(w, '}');
	}
}

/* A text stays one, where there is nothing beside it. */
static void
put_content(struct sbx_translating *x, struct sbx_span message)
{
	struct sbx_span content = sbx_tr_member(message, "content"), details = sbx_tr_member(message, "reasoning_details");
	struct sbx_span refusal = sbx_tr_member(message, "refusal");
	bool thoughts = has_thoughts(details);
	if (!content.n && !refusal.n && !thoughts)
		return;
	sbx_jw_name(&x->w, "content");
	if (sbx_json_type(content) == SBX_JSON_STRING && !refusal.n && !thoughts) {
		sbx_jw_value(&x->w, content);
		return;
	}
	sbx_jw_open(&x->w, '[');
	put_thoughts(&x->w, details);
	put_parts(x, content);
	if (sbx_tr_is_text(refusal))
		put_text(&x->w, refusal);
	sbx_jw_close(&x->w, ']');
}

/* ==== tool calls ==== */

static bool
is_own_id(struct sbx_span text)
{
	for (size_t i = 0; i < text.n; i++) {
		char c = text.at[i];
		if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9')))
			return false;
	}
	return text.n == CALL_ID_BYTES;
}

/* Other providers' ids become one of the form demanded, by their hash: the same wherever it stands in the conversation. */
static void
put_id(struct sbx_translating *x, const char *name, struct sbx_span id)
{
	static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	uint64_t hash = UINT64_C(0xcbf29ce484222325); /* FNV-1a */
	char made[CALL_ID_BYTES];
	if (!sbx_tr_is_text(id)) {
		sbx_tr_wrong(x, name, "must be a string that is not empty");
		return;
	}
	struct sbx_span text = sbx_tr_text(x, id);
	if (!is_own_id(text)) {
		for (size_t i = 0; i < text.n; i++)
			hash = (hash ^ (unsigned char)text.at[i]) * UINT64_C(0x100000001b3);
		for (size_t i = 0; i < sizeof made; i++, hash /= 62)
			made[i] = digits[hash % 62];
		text = (struct sbx_span){ made, sizeof made };
	}
	sbx_jw_name(&x->w, name);
	sbx_jw_text(&x->w, text);
}

static void
put_call(struct sbx_translating *x, struct sbx_span call)
{
	struct sbx_span type = sbx_tr_member(call, "type"), function = sbx_tr_member(call, "function"), arguments;
	struct sbx_json_writer *w = &x->w;
	sbx_tr_no_cache_mark(x, call);
	if (type.n && !sbx_json_string_eq(type, "function")) {
		sbx_tr_cannot_say(x, "type");
		return;
	}
	arguments = sbx_tr_member(function, "arguments");
	sbx_jw_open(w, '{');
	put_id(x, "id", sbx_tr_member(call, "id"));
	sbx_tr_put_word(w, "type", "function");
	sbx_jw_name(w, "function");
	sbx_jw_open(w, '{');
	sbx_jw_member(w, "name", sbx_tr_member(function, "name"));
	sbx_jw_name(w, "arguments");
	sbx_jw_value(w, sbx_tr_is_text(arguments) || sbx_json_type(arguments) == SBX_JSON_OBJECT ? arguments : SBX_SPAN("\"{}\""));
	sbx_jw_close(w, '}');
	sbx_tr_put_members(x, sbx_tr_native(x, call));
	sbx_jw_close(w, '}');
}

static void
put_calls(struct sbx_translating *x, struct sbx_span calls)
{
	struct sbx_json_iter it = sbx_json_array_iter(calls);
	struct sbx_span call;
	if (!sbx_tr_holds(calls))
		return;
	sbx_jw_name(&x->w, "tool_calls");
	sbx_jw_open(&x->w, '[');
	for (x->call = 0; !sbx_tr_stopped(x) && sbx_json_array_next(&it, &call); x->call++)
		put_call(x, call);
	if (!x->faulty)
		x->call = -1;
	sbx_jw_close(&x->w, ']');
}

/* ==== messages ==== */

static const struct role_word {
	const char *word, *own;
} roles[] = {
	{ "system", "system" }, { "developer", "system" }, { "user", "user" }, { "assistant", "assistant" }, { "tool", "tool" },
};

static const char *
own_role(struct sbx_span role)
{
	for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
		if (sbx_json_string_eq(role, roles[i].word))
			return roles[i].own;
	return NULL;
}

static void
put_message(struct sbx_translating *x, struct sbx_span message)
{
	static const char *const unsaid[] = { "function_call", "audio" };
	struct sbx_json_writer *w = &x->w;
	struct sbx_span role = sbx_tr_member(message, "role");
	const char *own = own_role(role);
	bool is_tool = own && strcmp(own, "tool") == 0, failed = false;

	if (sbx_json_string_eq(role, "x_native")) {
		put_native_part(x, message);
		return;
	}
	if (!own) {
		sbx_tr_cannot_say(x, "role");
		return;
	}
	for (size_t i = 0; i < sizeof unsaid / sizeof unsaid[0]; i++)
		if (sbx_tr_member(message, unsaid[i]).n)
			sbx_tr_cannot_say(x, unsaid[i]);
	if (sbx_tr_member(message, "name").n && !is_tool)
		sbx_tr_cannot_say(x, "name");
	if (sbx_json_bool(sbx_tr_member(message, "is_error"), &failed) && failed)
		sbx_tr_cannot_say(x, "is_error");
	sbx_tr_no_cache_mark(x, message);

	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "role", own);
	put_content(x, message);
	put_calls(x, sbx_tr_member(message, "tool_calls"));
	if (is_tool) {
		put_id(x, "tool_call_id", sbx_tr_member(message, "tool_call_id"));
		sbx_jw_member(w, "name", sbx_tr_member(message, "name"));
	}
	sbx_tr_put_members(x, sbx_tr_native(x, message));
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

/* ==== tools ==== */

static void
put_tool(struct sbx_translating *x, struct sbx_span tool)
{
	struct sbx_span type = sbx_tr_member(tool, "type"), function = sbx_tr_member(tool, "function"), schema;
	struct sbx_json_writer *w = &x->w;
	sbx_tr_no_cache_mark(x, tool);
	if (sbx_json_string_eq(type, "x_native")) {
		put_native_part(x, tool);
		return;
	}
	if (!sbx_json_string_eq(type, "function")) {
		sbx_tr_cannot_say(x, "type");
		return;
	}
	schema = sbx_tr_member(function, "parameters");
	sbx_tr_open_function(w);
	sbx_jw_member(w, "name", sbx_tr_member(function, "name"));
	sbx_jw_member(w, "description", sbx_tr_member(function, "description"));
	sbx_jw_member(w, "strict", sbx_tr_member(function, "strict"));
	sbx_jw_member(w, "parameters", schema.n ? schema : SBX_SPAN("{\"type\":\"object\",\"properties\":{}}")); /* it is demanded */
	sbx_jw_close(w, '}');
	sbx_tr_put_members(x, sbx_tr_native(x, tool));
	sbx_jw_close(w, '}');
}

static void
put_tools(struct sbx_translating *x, struct sbx_span tools)
{
	struct sbx_json_iter it = sbx_json_array_iter(tools);
	struct sbx_span tool;
	if (!sbx_tr_holds(tools))
		return;
	sbx_jw_name(&x->w, "tools");
	sbx_jw_open(&x->w, '[');
	for (x->tool = 0; !sbx_tr_stopped(x) && sbx_json_array_next(&it, &tool); x->tool++)
		put_tool(x, tool);
	if (!x->faulty)
		x->tool = -1;
	sbx_jw_close(&x->w, ']');
}

static void
put_tool_choice(struct sbx_translating *x, struct sbx_span choice)
{
	if (sbx_json_string_eq(choice, "required"))
		sbx_tr_put_word(&x->w, "tool_choice", "any");
	else if (sbx_json_string_eq(choice, "auto") || sbx_json_string_eq(choice, "none") || sbx_tr_is(choice, "type", "function"))
		sbx_jw_member(&x->w, "tool_choice", choice);
	else if (choice.n)
		sbx_tr_cannot_say(x, "tool_choice");
}

/* ==== bodies ==== */

struct asked {
	struct sbx_span messages, max_tokens, max_completion_tokens, stop, seed, temperature, top_p, n, presence_penalty, frequency_penalty;
	struct sbx_span response_format, tools, tool_choice, parallel_tool_calls, reasoning_effort, prediction, prompt_cache_key, metadata;
};
static const struct sbx_tr_member_at chat_members[] = {
#define MEMBER(name) SBX_TR_MEMBER(struct asked, name)
	MEMBER(messages), MEMBER(max_tokens), MEMBER(max_completion_tokens), MEMBER(stop), MEMBER(seed), MEMBER(temperature), MEMBER(top_p),
	MEMBER(n), MEMBER(presence_penalty), MEMBER(frequency_penalty), MEMBER(response_format), MEMBER(tools), MEMBER(tool_choice),
	MEMBER(parallel_tool_calls), MEMBER(reasoning_effort), MEMBER(prediction), MEMBER(prompt_cache_key), MEMBER(metadata),
#undef MEMBER
};

static void
put_temperature(struct sbx_translating *x, struct sbx_span temperature)
{
	if (sbx_tr_number(temperature) > TEMPERATURE_MAX) /* 0 to 2 there */
		sbx_jw_member(&x->w, "temperature", SBX_SPAN("1.5"));
	else
		sbx_jw_member(&x->w, "temperature", temperature);
}

/* Two words are known: all of it or nothing. */
static void
put_effort(struct sbx_translating *x, struct sbx_span effort)
{
	if (effort.n)
		sbx_tr_put_word(&x->w, "reasoning_effort", sbx_json_string_eq(effort, "none") ? "none" : "high");
}

static void
put_format(struct sbx_translating *x, struct sbx_span format)
{
	if (!format.n || sbx_tr_is(format, "type", "text") || sbx_tr_is(format, "type", "json_object") || sbx_tr_schema(format).n)
		sbx_jw_member(&x->w, "response_format", format);
	else
		sbx_tr_cannot_say(x, "response_format.type");
}

static void
put_chat(struct sbx_translating *x, struct sbx_span root)
{
	struct asked asked;
	struct sbx_json_writer *w = &x->w;
	sbx_tr_take(x, root, chat_members, sizeof chat_members / sizeof chat_members[0], &asked);
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "model", x->t->model);
	put_messages(x, asked.messages);
	sbx_jw_member(w, "max_tokens", asked.max_completion_tokens.n ? asked.max_completion_tokens : asked.max_tokens);
	if (x->t->stream)
		sbx_jw_member(w, "stream", SBX_SPAN("true"));
	sbx_jw_member(w, "stop", asked.stop);
	sbx_jw_member(w, "random_seed", asked.seed);
	put_temperature(x, asked.temperature);
	sbx_jw_member(w, "top_p", asked.top_p);
	sbx_jw_member(w, "n", asked.n);
	sbx_jw_member(w, "presence_penalty", asked.presence_penalty);
	sbx_jw_member(w, "frequency_penalty", asked.frequency_penalty);
	put_format(x, asked.response_format);
	put_tools(x, asked.tools);
	put_tool_choice(x, asked.tool_choice);
	sbx_jw_member(w, "parallel_tool_calls", asked.parallel_tool_calls);
	put_effort(x, asked.reasoning_effort);
	sbx_jw_member(w, "prediction", asked.prediction);
	sbx_jw_member(w, "prompt_cache_key", asked.prompt_cache_key);
	sbx_jw_member(w, "metadata", asked.metadata);
	sbx_tr_put_members(x, sbx_tr_native(x, root));
	sbx_jw_close(w, '}');
}

struct to_embed {
	struct sbx_span input, dimensions;
};
static const struct sbx_tr_member_at embed_members[] = {
	SBX_TR_MEMBER(struct to_embed, input),
	SBX_TR_MEMBER(struct to_embed, dimensions),
};

static void
put_embeddings(struct sbx_translating *x, struct sbx_span root)
{
	struct to_embed asked;
	struct sbx_json_writer *w = &x->w;
	sbx_tr_take(x, root, embed_members, sizeof embed_members / sizeof embed_members[0], &asked);
	sbx_jw_open(w, '{');
	sbx_tr_put_word(w, "model", x->t->model);
	sbx_jw_member(w, "input", asked.input);
	sbx_jw_member(w, "output_dimension", asked.dimensions);
	sbx_tr_put_members(x, sbx_tr_native(x, root));
	sbx_jw_close(w, '}');
}

static int
from_hub(enum sbx_op op, struct sbx_span body, const struct sbx_translation *t, struct sbx_buf *out, struct sbx_fault *ret_fault)
{
	struct sbx_translating x;
	if (!sbx_dialect_mistral.path[op])
		return sbx_tr_no_operation(SBX_MISTRAL_WHOSE, op, ret_fault);
	sbx_tr_begin(&x, SBX_MISTRAL_NAME, SBX_MISTRAL_WHOSE, t, out, ret_fault);
	if (op == SBX_OP_CHAT)
		put_chat(&x, sbx_json_root(body.at, body.n));
	else
		put_embeddings(&x, sbx_json_root(body.at, body.n));
	return sbx_tr_end(&x);
}

const struct sbx_dialect sbx_dialect_mistral = {
	.name = SBX_MISTRAL_NAME,
	.path = {
		[SBX_OP_CHAT] = "/chat/completions",
		[SBX_OP_EMBEDDINGS] = "/embeddings",
	},
	.models_path = "/models",
	.decoder_new = sbx_openai_chat_decoder_new,
	.decoder_free = sbx_openai_chat_decoder_free,
	.decoder_head = sbx_openai_chat_decoder_head,
	.decoder_feed = sbx_openai_chat_decoder_feed,
	.decoder_end = sbx_openai_chat_decoder_end,
	.decoder_malformed = sbx_openai_chat_decoder_malformed,
	.to_hub = sbx_mistral_to_hub,
	.from_hub = from_hub,
};
