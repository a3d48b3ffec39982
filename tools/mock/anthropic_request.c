/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Anthropic refuses in a request, in its words as far as they are known:
 * the two headers, unknown members, a missing max_tokens, roles that it has not,
 * a tool's result without its call and the other way round, thinking that was
 * changed or left out.
 */
#include "tools/mock/anthropic.h"

#include <stdarg.h>
#include <string.h>

#include <jansson.h>

struct reading {
	char *why;
	size_t why_bytes;
	bool thinking;      /* it is switched on */
	bool count;         /* count_tokens: fewer members */
	size_t message;     /* number of the one being read */
	json_t *calls;      /* an object with the ids of the last assistant message's calls, that have no result yet; borrowed */
};

static int refuse(struct reading *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int refuse(struct reading *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(r->why, r->why_bytes, fmt, ap);
	va_end(ap);
	return 400;
}

static bool among(const char *word, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strcmp(*words, word) == 0)
			return true;
	return false;
}

static bool is(const json_t *object, const char *member, const char *word)
{
	const char *text = json_string_value(json_object_get(object, member));

	return text != NULL && strcmp(text, word) == 0;
}

/* Every member is one of those that are known there. */
static int check_members(struct reading *r, json_t *object, const char *where, const char *const *known)
{
	const char *name;
	json_t *value;

	json_object_foreach(object, name, value)
		if (!among(name, known))
			return refuse(r, "%s%s%s: Extra inputs are not permitted", where, *where ? "." : "", name);
	return 0;
}

/* ---- blocks --------------------------------------------------------------- */

static int check_thinking(struct reading *r, const json_t *block, const char *where)
{
	const json_t *thinking = json_object_get(block, "thinking"), *given = json_object_get(block, "signature");
	char signature[MOCK_SIGNATURE_BYTES];

	if (!json_is_string(thinking) || !json_is_string(given))
		return refuse(r, "%s.thinking.%s: Field required", where, json_is_string(thinking) ? "signature" : "thinking");
	mock_anthropic_sign(json_string_value(thinking), json_string_length(thinking), signature);
	if (strcmp(signature, json_string_value(given)) != 0)
		return refuse(r, "%s: Invalid `signature` in `thinking` block", where);
	return 0;
}

static int check_source(struct reading *r, const json_t *block, const char *where)
{
	static const char *const types[] = { "image/jpeg", "image/png", "image/gif", "image/webp", "application/pdf", "text/plain", NULL };
	const json_t *source = json_object_get(block, "source");
	const char *media = json_string_value(json_object_get(source, "media_type"));

	if (is(source, "type", "url"))
		return json_is_string(json_object_get(source, "url")) ? 0 : refuse(r, "%s.source.url.url: Field required", where);
	if (!is(source, "type", "base64") && !is(source, "type", "text") && !is(source, "type", "file") && !is(source, "type", "content"))
		return refuse(r, "%s.source: Input tag does not match any of the expected tags: 'base64', 'url'", where);
	if (is(source, "type", "base64") && (media == NULL || !among(media, types) || !json_is_string(json_object_get(source, "data"))))
		return refuse(r, "%s.source.base64.media_type: Input should be 'image/jpeg', 'image/png', 'image/gif' or 'image/webp'", where);
	return 0;
}

static int check_blocks(struct reading *r, const json_t *blocks, const char *where, bool user, bool inside_result);

static int check_result(struct reading *r, const json_t *block, const char *where)
{
	const char *id = json_string_value(json_object_get(block, "tool_use_id"));
	const json_t *content = json_object_get(block, "content");

	if (id == NULL)
		return refuse(r, "%s.tool_result.tool_use_id: Field required", where);
	if (json_object_del(r->calls, id) != 0)
		return refuse(r, "%s: unexpected `tool_use_id` found in `tool_result` blocks: %s. Each `tool_result` block must have a "
		    "corresponding `tool_use` block in the previous message.", where, id);
	return json_is_array(content) ? check_blocks(r, content, where, /* user= */ true, /* inside_result= */ true) : 0;
}

static int check_call(struct reading *r, const json_t *block, const char *where)
{
	const char *id = json_string_value(json_object_get(block, "id"));

	if (id == NULL || !*id || strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != strlen(id))
		return refuse(r, "%s.tool_use.id: String should match pattern '^[a-zA-Z0-9_-]+$'", where);
	if (!json_is_string(json_object_get(block, "name")))
		return refuse(r, "%s.tool_use.name: Field required", where);
	if (!json_is_object(json_object_get(block, "input")))
		return refuse(r, "%s.tool_use.input: Input should be a valid dictionary", where);
	return json_object_set_new(r->calls, id, json_true()) ? refuse(r, "out of memory") : 0;
}

static int check_block(struct reading *r, json_t *block, const char *where, bool user, bool inside_result)
{
	static const struct {
		const char *type;
		bool user, assistant, result; /* where it may stand */
		const char *known[8];
	} rows[] = {
		{ "text", true, true, true, { "type", "text", "cache_control", "citations", NULL } },
		{ "image", true, false, true, { "type", "source", "cache_control", NULL } },
		{ "document", true, false, true, { "type", "source", "title", "context", "citations", "cache_control", NULL } },
		{ "search_result", true, false, true, { "type", "source", "title", "content", "citations", "cache_control", NULL } },
		{ "tool_result", true, false, false, { "type", "tool_use_id", "content", "is_error", "cache_control", NULL } },
		{ "tool_use", false, true, false, { "type", "id", "name", "input", "caller", "cache_control", NULL } },
		{ "thinking", false, true, false, { "type", "thinking", "signature", NULL } },
		{ "redacted_thinking", false, true, false, { "type", "data", NULL } },
		{ "server_tool_use", false, true, false, { "type", "id", "name", "input", "caller", "cache_control", NULL } },
		{ "web_search_tool_result", false, true, false, { "type", "tool_use_id", "content", "caller", "cache_control", NULL } },
	};
	const char *type = json_string_value(json_object_get(block, "type"));
	size_t i = 0;
	int rc;

	while (i < sizeof(rows) / sizeof(rows[0]) && (type == NULL || strcmp(rows[i].type, type) != 0))
		i++;
	if (i == sizeof(rows) / sizeof(rows[0]) || !(inside_result ? rows[i].result : user ? rows[i].user : rows[i].assistant))
		return refuse(r, "%s: Input tag '%s' found using 'type' does not match any of the expected tags", where, type ? type : "");
	rc = check_members(r, block, where, rows[i].known);
	if (rc != 0)
		return rc;
	if (strcmp(type, "text") == 0) {
		if (!json_is_string(json_object_get(block, "text")))
			return refuse(r, "%s.text.text: Field required", where);
		return json_string_length(json_object_get(block, "text")) ? 0 : refuse(r, "messages: text content blocks must be non-empty");
	}
	if (strcmp(type, "image") == 0 || strcmp(type, "document") == 0)
		return check_source(r, block, where);
	if (strcmp(type, "tool_result") == 0)
		return check_result(r, block, where);
	if (strcmp(type, "tool_use") == 0)
		return check_call(r, block, where);
	if (strcmp(type, "thinking") == 0)
		return check_thinking(r, block, where);
	return 0;
}

static int check_blocks(struct reading *r, const json_t *blocks, const char *where, bool user, bool inside_result)
{
	size_t i;
	json_t *block;

	json_array_foreach(blocks, i, block) {
		char here[128];
		int rc;

		(void)snprintf(here, sizeof(here), "%.90s.content.%zu", where, i);
		rc = check_block(r, block, here, user, inside_result);
		if (rc != 0)
			return rc;
	}
	return 0;
}

/* ---- the conversation ----------------------------------------------------- */

/* A turn with calls is given back as it was: with its thinking before them. */
static int check_thought(struct reading *r, const json_t *content)
{
	const json_t *first = json_array_get(content, 0);

	if (!r->thinking || json_object_size(r->calls) == 0 || is(first, "type", "thinking") || is(first, "type", "redacted_thinking"))
		return 0;
	return refuse(r, "messages.%zu.content.0.type: Expected `thinking` or `redacted_thinking`, but found `%s`. When `thinking` is enabled, a "
	    "final `assistant` message must start with a thinking block", r->message, json_string_value(json_object_get(first, "type")));
}

static int check_message(struct reading *r, json_t *message)
{
	static const char *const known[] = { "role", "content", NULL };
	const char *role = json_string_value(json_object_get(message, "role"));
	const json_t *content = json_object_get(message, "content");
	bool user = role != NULL && strcmp(role, "user") == 0, open;
	char where[48];
	int rc;

	(void)snprintf(where, sizeof(where), "messages.%zu", r->message);
	if (!user && (role == NULL || strcmp(role, "assistant") != 0))
		return refuse(r, "messages: Unexpected role \"%s\". The Messages API accepts a top-level `system` parameter, not \"system\" as an "
		    "input message role.", role ? role : "");
	rc = check_members(r, message, where, known);
	if (rc != 0)
		return rc;
	if (json_is_string(content) ? json_string_length(content) == 0 : json_array_size(content) == 0)
		return refuse(r, "messages.%zu: all messages must have non-empty content", r->message);
	open = json_object_size(r->calls) > 0;
	if (!user)
		json_object_clear(r->calls);
	if (!user && open)
		return refuse(r, "messages.%zu: `tool_use` ids were found without `tool_result` blocks immediately after", r->message - 1);
	rc = check_blocks(r, content, where, user, /* inside_result= */ false);
	if (rc == 0 && user && json_object_size(r->calls) > 0)
		rc = refuse(r, "messages.%zu: `tool_use` ids were found without `tool_result` blocks immediately after", r->message - 1);
	return rc == 0 && !user ? check_thought(r, content) : rc;
}

static int check_messages(struct reading *r, const json_t *messages)
{
	json_t *message;
	int rc = 0;

	if (json_array_size(messages) == 0)
		return refuse(r, json_is_array(messages) ? "messages: at least one message is required" : "messages: Field required");
	r->calls = json_object();
	if (r->calls == NULL)
		return refuse(r, "out of memory");
	json_array_foreach(messages, r->message, message) {
		rc = check_message(r, message);
		if (rc != 0)
			break;
	}
	json_decref(r->calls);
	return rc;
}

/* ---- the rest ------------------------------------------------------------- */

static int check_tools(struct reading *r, const json_t *tools)
{
	static const char *const known[] = { "type", "name", "description", "input_schema", "cache_control", "strict", "input_examples",
		"defer_loading", "allowed_callers", "eager_input_streaming", NULL };
	size_t i;
	json_t *tool;

	json_array_foreach(tools, i, tool) {
		char where[48];
		const json_t *type = json_object_get(tool, "type");

		(void)snprintf(where, sizeof(where), "tools.%zu", i);
		if (type != NULL && !is(tool, "type", "custom"))
			continue; /* one of the provider's own */
		if (!json_is_string(json_object_get(tool, "name")))
			return refuse(r, "%s.custom.name: Field required", where);
		if (!is(json_object_get(tool, "input_schema"), "type", "object"))
			return refuse(r, "%s.custom.input_schema.type: Field required", where);
		if (check_members(r, tool, where, known) != 0)
			return 400;
	}
	return 0;
}

static int check_numbers(struct reading *r, const json_t *root)
{
	const json_t *max = json_object_get(root, "max_tokens"), *temperature = json_object_get(root, "temperature");
	const json_t *thinking = json_object_get(root, "thinking"), *budget = json_object_get(thinking, "budget_tokens");

	if (max == NULL && !r->count)
		return refuse(r, "max_tokens: Field required");
	if (max != NULL && (!json_is_integer(max) || json_integer_value(max) < 1))
		return refuse(r, "max_tokens: Input should be greater than or equal to 1");
	if (temperature != NULL && (!json_is_number(temperature) || json_number_value(temperature) < 0 || json_number_value(temperature) > 1))
		return refuse(r, "temperature: range: 0..1");
	if (thinking == NULL || is(thinking, "type", "disabled"))
		return 0;
	r->thinking = true;
	if (temperature != NULL && json_number_value(temperature) < 1)
		return refuse(r, "`temperature` may only be set to 1 when thinking is enabled.");
	if (!is(thinking, "type", "enabled"))
		return is(thinking, "type", "adaptive") ? 0 : refuse(r, "thinking: Input tag does not match any of the expected tags");
	if (!json_is_integer(budget) || json_integer_value(budget) < 1024)
		return refuse(r, "thinking.enabled.budget_tokens: Input should be greater than or equal to 1024");
	return max != NULL && json_integer_value(budget) >= json_integer_value(max) ?
		refuse(r, "`max_tokens` must be greater than `thinking.budget_tokens`.") : 0;
}

static int check_choice(struct reading *r, const json_t *choice)
{
	static const char *const types[] = { "auto", "any", "tool", "none", NULL };
	const char *type = json_string_value(json_object_get(choice, "type"));

	if (choice == NULL || (type != NULL && among(type, types)))
		return 0;
	return refuse(r, "tool_choice: Input tag does not match any of the expected tags: 'auto', 'any', 'tool', 'none'");
}

static int check(struct reading *r, json_t *root)
{
	static const char *const known[] = { "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config", "output_format",
		"cache_control", "max_tokens", "stream", "temperature", "top_p", "top_k", "stop_sequences", "metadata", "service_tier",
		"container", "context_management", "mcp_servers", "inference_geo", "speed", NULL };
	static const char *const counted[] = { "model", "messages", "system", "tools", "tool_choice", "thinking", "output_config",
		"output_format", "cache_control", "context_management", "mcp_servers", "speed", NULL };
	int rc = check_members(r, root, "", r->count ? counted : known);

	if (rc == 0 && !json_is_string(json_object_get(root, "model")))
		rc = refuse(r, "model: Field required");
	if (rc == 0)
		rc = check_numbers(r, root);
	if (rc == 0)
		rc = check_messages(r, json_object_get(root, "messages"));
	if (rc == 0)
		rc = check_tools(r, json_object_get(root, "tools"));
	if (rc == 0)
		rc = check_choice(r, json_object_get(root, "tool_choice"));
	return rc;
}

int mock_anthropic_read(struct mock_exchange *x, const struct mock_request *request, struct mock_ask *ask, char *why, size_t why_bytes)
{
	struct reading r = { .why = why, .why_bytes = why_bytes, .count = x->answer.op == MOCK_OP_COUNT_TOKENS };
	json_error_t error;
	json_t *root = json_loadb(request->body.at, request->body.n, 0, &error);
	const json_t *model = json_object_get(root, "model");
	int rc;

	if (json_is_string(model) && json_string_length(model) < sizeof(ask->model)) {
		ask->n_model = json_string_length(model);
		memcpy(ask->model, json_string_value(model), ask->n_model + 1);
	}
	ask->stream = json_is_true(json_object_get(root, "stream"));
	if (mock_request_header(request, "anthropic-version").n == 0)
		rc = refuse(&r, "anthropic-version: header is required");
	else if (!json_is_object(root))
		rc = refuse(&r, "The request body is not valid JSON: %s", root ? "it is no object" : error.text);
	else
		rc = check(&r, root);
	json_decref(root);
	return rc;
}
