/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_from_hub.c -- a chat request in the hub's form -> a Messages request: its members, but for the conversation.
 *
 * Every member of the body is in one of three tables or refused by its name: those that are translated, those that say nothing as
 * long as they have the value that everybody has, and those that only tell the provider how to do its work. What cannot be said is
 * left out where the request or the configuration allows it.
 *
 * Reasoning. Chat has a word for how much. Models up to 4.5, and imitators, are given a number of tokens for it, a share of what the
 * answer may have; later ones think as much as they see fit, and are told the word.
 */
#include "agent/dialect/anthropic_write.h"

#include <stdio.h>
#include <stdlib.h>

#include <signalbox/errors.h>

#define MAX_TOKENS_DEFAULT 4096 /* a limit is demanded: the least that any model of the provider's has */
#define BUDGET_MIN         1024 /* of thinking; fewer are refused */
#define TEXT_MAX_BYTES     SBX_BODY_MAX_BYTES

/* ==== faults ==== */

/* "messages[2].content[1].type" */
static void
locate(const struct sbx_anthropic_writing *aw, const char *member, char *buf, size_t cap)
{
	char where[64] = "";
	if (aw->message >= 0 && strcmp(member, "messages") != 0) {
		if (aw->part >= 0)
			(void)snprintf(where, sizeof where, "messages[%d].content[%d].", aw->message, aw->part);
		else if (aw->call >= 0)
			(void)snprintf(where, sizeof where, "messages[%d].tool_calls[%d].", aw->message, aw->call);
		else
			(void)snprintf(where, sizeof where, "messages[%d].", aw->message);
	} else if (aw->tool >= 0) {
		(void)snprintf(where, sizeof where, "tools[%d].", aw->tool);
	}
	(void)snprintf(buf, cap, "%s%s", where, member);
}

static void
set_fault(struct sbx_anthropic_writing *aw, const char *member, const char *rule, bool unsupported)
{
	struct sbx_fault *f = aw->fault;
	if (sbx_anthropic_stopped(aw))
		return;
	*f = (struct sbx_fault){ .unsupported = unsupported };
	locate(aw, member, f->param, sizeof f->param);
	(void)snprintf(f->why, sizeof f->why, "%s %s", f->param, rule);
	aw->faulty = true;
}

void
sbx_anthropic_wrong(struct sbx_anthropic_writing *aw, const char *member, const char *rule)
{
	set_fault(aw, member, rule, false);
}

void
sbx_anthropic_cannot_say(struct sbx_anthropic_writing *aw, const char *member)
{
	if (!aw->t->drop_params)
		set_fault(aw, member, "cannot be said in Anthropic's dialect", true);
}

/* ==== small things ==== */

struct sbx_span
sbx_anthropic_text(struct sbx_anthropic_writing *aw, struct sbx_span string)
{
	struct sbx_span text = { NULL, 0 };
	if (sbx_json_string_peek(string, &text))
		return text;
	sbx_buf_clear(&aw->text);
	int rc = sbx_json_string_append(string, &aw->text);
	if (rc && aw->w.rc == 0)
		aw->w.rc = rc;
	return (struct sbx_span){ (const char *)aw->text.data, aw->text.n };
}

struct sbx_span
sbx_anthropic_native(struct sbx_anthropic_writing *aw, struct sbx_span object)
{
	struct sbx_json_iter it = sbx_json_object_iter(sbx_anthropic_member(object, "x_native"));
	struct sbx_span name, value, ours = { NULL, 0 };
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "anthropic") && sbx_json_type(value) == SBX_JSON_OBJECT)
			ours = value;
		else
			sbx_anthropic_cannot_say(aw, "x_native");
	}
	aw->native |= ours.n > 0;
	return ours;
}

void
sbx_anthropic_write_members(struct sbx_anthropic_writing *aw, struct sbx_span object)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		sbx_jw_name_span(&aw->w, name);
		sbx_jw_value(&aw->w, value);
	}
}

/* ==== the members ==== */

/* What was asked for; an empty span = absent or null. */
struct asked {
	struct sbx_span messages, max_tokens, max_completion_tokens, tools, tool_choice, parallel_tool_calls, stop, temperature, top_p, top_k;
	struct sbx_span reasoning_effort, response_format, user, service_tier;
	struct sbx_span native; /* x_native.anthropic */
};

static const struct known_member {
	const char *name;
	size_t offset;
} known_members[] = {
#define MEMBER(name) { #name, offsetof(struct asked, name) }
	MEMBER(messages), MEMBER(max_tokens), MEMBER(max_completion_tokens), MEMBER(tools), MEMBER(tool_choice), MEMBER(parallel_tool_calls),
	MEMBER(stop), MEMBER(temperature), MEMBER(top_p), MEMBER(top_k), MEMBER(reasoning_effort), MEMBER(response_format), MEMBER(user),
	MEMBER(service_tier),
#undef MEMBER
};

/* How the work is to be done, or what is said elsewhere: usage is always sent, and the cache is asked for by marks. */
static const char *const quiet_members[] = {
	"model", "stream", "stream_options", "x_native", "prompt_cache_key", "prompt_cache_retention", "safety_identifier",
};

/* With this value they say what is so anyway. */
static const struct usual_value {
	const char *name, *json;
} usual_values[] = {
	{ "n", "1" },
	{ "logprobs", "false" },
	{ "top_logprobs", "0" },
	{ "presence_penalty", "0" },
	{ "frequency_penalty", "0" },
	{ "store", "false" },
	{ "verbosity", "\"medium\"" },
	{ "modalities", "[\"text\"]" },
	{ "logit_bias", "{}" },
	{ "metadata", "{}" },
};

static bool
is_usual(struct sbx_span value, const char *json)
{
	struct sbx_span usual = sbx_span_of(json), element, name;
	struct sbx_json_iter it;
	int64_t number, usual_number;
	switch (sbx_json_type(value)) {
	case SBX_JSON_NUMBER:
		return sbx_json_int64(usual, &usual_number) && sbx_json_int64(value, &number) && number == usual_number;
	case SBX_JSON_OBJECT:
		it = sbx_json_object_iter(value);
		return !sbx_json_object_next(&it, &name, &element) && sbx_span_is(usual, "{}");
	case SBX_JSON_ARRAY:
		it = sbx_json_array_iter(value);
		return sbx_json_array_next(&it, &element) && sbx_json_string_eq(element, "text") && !sbx_json_array_next(&it, &element) &&
		       sbx_json_type(usual) == SBX_JSON_ARRAY;
	default:
		return sbx_span_eq(value, usual);
	}
}

static void
sort_member(struct sbx_anthropic_writing *aw, struct asked *asked, struct sbx_span name, struct sbx_span value)
{
	char word[64];
	if (sbx_json_type(value) == SBX_JSON_NULL)
		return;
	for (size_t i = 0; i < sizeof known_members / sizeof known_members[0]; i++) {
		if (sbx_json_string_eq(name, known_members[i].name)) {
			memcpy((char *)asked + known_members[i].offset, &value, sizeof value);
			return;
		}
	}
	for (size_t i = 0; i < sizeof quiet_members / sizeof quiet_members[0]; i++)
		if (sbx_json_string_eq(name, quiet_members[i]))
			return;
	for (size_t i = 0; i < sizeof usual_values / sizeof usual_values[0]; i++)
		if (sbx_json_string_eq(name, usual_values[i].name) && is_usual(value, usual_values[i].json))
			return;
	(void)sbx_json_string_fmt(name, word, sizeof word);
	sbx_anthropic_cannot_say(aw, word);
}

/* ==== limits ==== */

static int64_t
write_max_tokens(struct sbx_anthropic_writing *aw, const struct asked *asked)
{
	struct sbx_span value = asked->max_completion_tokens.n ? asked->max_completion_tokens : asked->max_tokens;
	int64_t limit = aw->t->max_output_tokens > 0 ? aw->t->max_output_tokens : MAX_TOKENS_DEFAULT;
	if (value.n && (!sbx_json_int64(value, &limit) || limit < 1))
		sbx_anthropic_wrong(aw, asked->max_completion_tokens.n ? "max_completion_tokens" : "max_tokens", "must be a whole number above 0");
	sbx_jw_name(&aw->w, "max_tokens");
	if (value.n)
		sbx_jw_value(&aw->w, value);
	else
		sbx_jw_int(&aw->w, limit);
	return limit;
}

static void
write_stop(struct sbx_anthropic_writing *aw, struct sbx_span stop)
{
	if (sbx_json_type(stop) == SBX_JSON_STRING) {
		sbx_jw_name(&aw->w, "stop_sequences");
		sbx_jw_open(&aw->w, '[');
		sbx_jw_value(&aw->w, stop);
		sbx_jw_close(&aw->w, ']');
	} else {
		sbx_jw_member(&aw->w, "stop_sequences", stop);
	}
}

/* From 0 to 1 here, to 2 there. While it thinks, a model takes no other than 1. */
static void
write_temperature(struct sbx_anthropic_writing *aw, struct sbx_span temperature, bool thinking)
{
	char digits[64];
	if (!temperature.n)
		return;
	if (sbx_json_type(temperature) != SBX_JSON_NUMBER || temperature.n >= sizeof digits) {
		sbx_anthropic_wrong(aw, "temperature", "must be a number");
		return;
	}
	memcpy(digits, temperature.at, temperature.n);
	digits[temperature.n] = '\0';
	double value = strtod(digits, NULL);
	if (thinking && value < 1)
		sbx_anthropic_cannot_say(aw, "temperature");
	else if (value > 1)
		sbx_jw_member(&aw->w, "temperature", SBX_SPAN("1"));
	else
		sbx_jw_member(&aw->w, "temperature", temperature);
}

/* ==== tools ==== */

static void
write_tool(struct sbx_anthropic_writing *aw, struct sbx_span tool)
{
	struct sbx_span type = sbx_anthropic_member(tool, "type"), function = sbx_anthropic_member(tool, "function"), schema;
	struct sbx_json_writer *w = &aw->w;
	if (sbx_json_string_eq(type, "x_native")) {
		struct sbx_span native = sbx_anthropic_native(aw, tool);
		if (native.n)
			sbx_jw_value(w, native);
		return;
	}
	if (!sbx_json_string_eq(type, "function")) {
		sbx_anthropic_cannot_say(aw, "type");
		return;
	}
	if (!sbx_anthropic_is_text(sbx_anthropic_member(function, "name"))) {
		sbx_anthropic_wrong(aw, "function.name", "must be a string that is not empty");
		return;
	}
	schema = sbx_anthropic_member(function, "parameters");
	sbx_jw_open(w, '{');
	sbx_jw_member(w, "name", sbx_anthropic_member(function, "name"));
	sbx_jw_member(w, "description", sbx_anthropic_member(function, "description"));
	sbx_jw_member(w, "input_schema", schema.n ? schema : SBX_SPAN("{\"type\":\"object\",\"properties\":{}}"));
	sbx_jw_member(w, "strict", sbx_anthropic_member(function, "strict"));
	sbx_jw_member(w, "cache_control", sbx_anthropic_member(tool, "cache_control"));
	sbx_anthropic_write_members(aw, sbx_anthropic_native(aw, tool));
	sbx_jw_close(w, '}');
}

static bool
write_tools(struct sbx_anthropic_writing *aw, struct sbx_span tools)
{
	struct sbx_json_iter it = sbx_json_array_iter(tools);
	struct sbx_span tool;
	if (!sbx_json_array_next(&it, &tool))
		return false;
	sbx_jw_name(&aw->w, "tools");
	sbx_jw_open(&aw->w, '[');
	it = sbx_json_array_iter(tools);
	for (aw->tool = 0; !sbx_anthropic_stopped(aw) && sbx_json_array_next(&it, &tool); aw->tool++)
		write_tool(aw, tool);
	if (!aw->faulty)
		aw->tool = -1;
	sbx_jw_close(&aw->w, ']');
	return true;
}

/* True when the model is not free to answer in words. */
static bool
write_tool_choice(struct sbx_anthropic_writing *aw, const struct asked *asked)
{
	struct sbx_json_writer *w = &aw->w;
	struct sbx_span choice = asked->tool_choice, name = sbx_anthropic_member(sbx_anthropic_member(choice, "function"), "name");
	const char *type = "auto";
	bool parallel = true, said = sbx_json_bool(asked->parallel_tool_calls, &parallel), none = false, forced = false;
	if (!choice.n && parallel)
		return false;
	if (sbx_json_string_eq(choice, "none")) {
		type = "none";
		none = true;
	} else if (sbx_json_string_eq(choice, "required")) {
		type = "any";
		forced = true;
	} else if (sbx_json_type(choice) == SBX_JSON_OBJECT && name.n) {
		type = "tool";
		forced = true;
	} else if (choice.n && !sbx_json_string_eq(choice, "auto")) {
		sbx_anthropic_cannot_say(aw, "tool_choice");
		return false;
	}
	sbx_jw_name(w, "tool_choice");
	sbx_jw_open(w, '{');
	sbx_jw_name(w, "type");
	sbx_jw_text(w, sbx_span_of(type));
	if (sbx_json_type(choice) == SBX_JSON_OBJECT)
		sbx_jw_member(w, "name", name);
	if (said && !none)
		sbx_jw_member(w, "disable_parallel_tool_use", parallel ? SBX_SPAN("false") : SBX_SPAN("true"));
	sbx_jw_close(w, '}');
	return forced;
}

/* ==== reasoning, and the form of the answer ==== */

static const struct effort {
	const char *word;
	const char *native;  /* what later models call it; NULL = no thinking at all */
	int percent;         /* of the answer's tokens, for those that want a number */
} efforts[] = {
	{ "none", NULL, 0 },    { "minimal", "low", 10 }, { "low", "low", 20 }, { "medium", "medium", 50 },
	{ "high", "high", 80 }, { "xhigh", "xhigh", 90 }, { "max", "max", 95 },
};

/* The models that have to be told how many tokens: a list that is closed. Imitators know that way too, and only that. */
static bool
thinks_by_budget(const char *model)
{
	static const char *const earlier[] = { "claude-3", "-4-0", "-4-1", "-4-5", "-4-2025", "-4@2025" };
	for (size_t i = 0; i < sizeof earlier / sizeof earlier[0]; i++)
		if (strstr(model, earlier[i]))
			return true;
	return strstr(model, "claude") == NULL;
}

static const struct effort *
find_effort(struct sbx_span word)
{
	for (size_t i = 0; i < sizeof efforts / sizeof efforts[0]; i++)
		if (sbx_json_string_eq(word, efforts[i].word))
			return &efforts[i];
	return NULL;
}

static void
write_thinking(struct sbx_anthropic_writing *aw, const char *type, int64_t budget)
{
	sbx_jw_name(&aw->w, "thinking");
	sbx_jw_open(&aw->w, '{');
	sbx_jw_name(&aw->w, "type");
	sbx_jw_text(&aw->w, sbx_span_of(type));
	if (budget > 0) {
		sbx_jw_name(&aw->w, "budget_tokens");
		sbx_jw_int(&aw->w, budget);
	}
	sbx_jw_close(&aw->w, '}');
}

/* True when the model will think. ret_effort: the word to be told, or NULL.
 *  forced  a tool has to be called: then it may not think */
static bool
write_reasoning(struct sbx_anthropic_writing *aw, const struct asked *asked, int64_t max_tokens, bool forced, const char **ret_effort)
{
	struct sbx_span native = sbx_anthropic_member(asked->native, "thinking"), type = sbx_anthropic_member(native, "type");
	const struct effort *effort = find_effort(asked->reasoning_effort);
	*ret_effort = NULL;
	if (native.n) { /* it is written with the other members that only this dialect has */
		return !sbx_json_string_eq(type, "disabled");
	}
	if (!asked->reasoning_effort.n)
		return false;
	if (!effort) {
		sbx_anthropic_cannot_say(aw, "reasoning_effort");
		return false;
	}
	if (!effort->native) {
		write_thinking(aw, "disabled", 0);
		return false;
	}
	if (forced) {
		sbx_anthropic_cannot_say(aw, "reasoning_effort");
		return false;
	}
	if (!thinks_by_budget(aw->t->model)) {
		*ret_effort = effort->native;
		write_thinking(aw, "adaptive", 0);
		return true;
	}
	if (max_tokens <= BUDGET_MIN) { /* no room for an answer behind the least of thoughts */
		sbx_anthropic_cannot_say(aw, "reasoning_effort");
		return false;
	}
	/* In the midst of calls that were made without a thought, perhaps by another model, the provider refuses to have it think. */
	if (aw->open_tool_turn)
		return false;
	int64_t budget = max_tokens / 100 * effort->percent + max_tokens % 100 * effort->percent / 100;
	write_thinking(aw, "enabled", budget < BUDGET_MIN ? BUDGET_MIN : budget);
	return true;
}

static void
write_output_config(struct sbx_anthropic_writing *aw, const struct asked *asked, const char *effort)
{
	struct sbx_json_writer *w = &aw->w;
	struct sbx_span native = sbx_anthropic_member(asked->native, "output_config"), type = sbx_anthropic_member(asked->response_format, "type");
	struct sbx_span schema = sbx_anthropic_member(sbx_anthropic_member(asked->response_format, "json_schema"), "schema");
	if (type.n && !sbx_json_string_eq(type, "text") && !(sbx_json_string_eq(type, "json_schema") && schema.n)) {
		sbx_anthropic_cannot_say(aw, "response_format.type");
		schema = (struct sbx_span){ NULL, 0 };
	}
	if (!effort && !schema.n && !native.n)
		return;
	sbx_jw_name(w, "output_config");
	sbx_jw_open(w, '{');
	if (effort) {
		sbx_jw_name(w, "effort");
		sbx_jw_text(w, sbx_span_of(effort));
	}
	if (schema.n) {
		sbx_jw_name(w, "format");
		sbx_jw_open(w, '{');
		sbx_jw_name(w, "type");
		sbx_jw_literal(w, "\"json_schema\"");
		sbx_jw_member(w, "schema", schema);
		sbx_jw_close(w, '}');
	}
	sbx_anthropic_write_members(aw, native);
	sbx_jw_close(w, '}');
}

/* ==== the rest ==== */

static void
write_metadata(struct sbx_anthropic_writing *aw, const struct asked *asked)
{
	struct sbx_span native = sbx_anthropic_member(asked->native, "metadata");
	if (!asked->user.n && !native.n)
		return;
	sbx_jw_name(&aw->w, "metadata");
	sbx_jw_open(&aw->w, '{');
	sbx_jw_member(&aw->w, "user_id", asked->user);
	sbx_anthropic_write_members(aw, native);
	sbx_jw_close(&aw->w, '}');
}

static void
write_service_tier(struct sbx_anthropic_writing *aw, struct sbx_span tier)
{
	if (sbx_json_string_eq(tier, "auto"))
		sbx_jw_member(&aw->w, "service_tier", tier);
	else if (sbx_json_string_eq(tier, "default"))
		sbx_jw_member(&aw->w, "service_tier", SBX_SPAN("\"standard_only\""));
	else if (tier.n)
		sbx_anthropic_cannot_say(aw, "service_tier");
}

/* What only this dialect knows, but for the members that were merged with others. */
static void
write_native(struct sbx_anthropic_writing *aw, struct sbx_span native)
{
	struct sbx_json_iter it = sbx_json_object_iter(native);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "output_config") || sbx_json_string_eq(name, "metadata"))
			continue;
		sbx_jw_name_span(&aw->w, name);
		sbx_jw_value(&aw->w, value);
	}
}

static void
write_body(struct sbx_anthropic_writing *aw, const struct asked *asked)
{
	struct sbx_json_writer *w = &aw->w;
	const char *effort;
	bool forced = false;

	sbx_jw_open(w, '{');
	sbx_jw_name(w, "model");
	sbx_jw_text(w, sbx_span_of(aw->t->model));
	int64_t max_tokens = write_max_tokens(aw, asked);
	if (aw->t->stream)
		sbx_jw_member(w, "stream", SBX_SPAN("true"));
	sbx_anthropic_write_messages(aw, asked->messages);
	if (write_tools(aw, asked->tools))
		forced = write_tool_choice(aw, asked);
	bool thinking = write_reasoning(aw, asked, max_tokens, forced, &effort);
	write_output_config(aw, asked, effort);
	write_temperature(aw, asked->temperature, thinking);
	sbx_jw_member(w, "top_p", asked->top_p);
	sbx_jw_member(w, "top_k", asked->top_k);
	write_stop(aw, asked->stop);
	write_metadata(aw, asked);
	write_service_tier(aw, asked->service_tier);
	write_native(aw, asked->native);
	sbx_jw_close(w, '}');
}

int
sbx_anthropic_from_hub(enum sbx_op op, struct sbx_span body, const struct sbx_translation *t, struct sbx_buf *out,
		       struct sbx_fault *ret_fault)
{
	struct sbx_anthropic_writing aw = {
		.t = t, .w = sbx_json_writer(out), .fault = ret_fault, .message = -1, .part = -1, .call = -1, .tool = -1
	};
	struct asked asked = { .messages = { NULL, 0 } };
	struct sbx_span root = sbx_json_root(body.at, body.n), name, value;
	struct sbx_json_iter it = sbx_json_object_iter(root);

	if (op != SBX_OP_CHAT) {
		*ret_fault = (struct sbx_fault){ .unsupported = true };
		(void)snprintf(ret_fault->why, sizeof ret_fault->why, "operation %s: Anthropic's dialect has none such", sbx_op_word(op));
		return -SBX_ESYNTAX;
	}
	sbx_json_scratch_init(&aw.scratch);
	sbx_buf_init(&aw.text, TEXT_MAX_BYTES);
	while (!aw.faulty && sbx_json_object_next(&it, &name, &value))
		sort_member(&aw, &asked, name, value);
	asked.native = sbx_anthropic_native(&aw, root);
	const size_t before = out->n;
	if (!aw.faulty)
		write_body(&aw, &asked);
	/* What was copied unseen may name again what is said elsewhere: the model, or the limit. No reader may see two values. */
	if (aw.native && !sbx_anthropic_stopped(&aw) && sbx_json_check((const char *)out->data + before, out->n - before, &aw.scratch, NULL))
		sbx_anthropic_wrong(&aw, "x_native", "must not repeat what the request says elsewhere");
	sbx_buf_fini(&aw.text);
	sbx_json_scratch_fini(&aw.scratch);
	return aw.faulty ? -SBX_ESYNTAX : aw.w.rc;
}
