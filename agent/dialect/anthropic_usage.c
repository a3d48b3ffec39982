/* SPDX-License-Identifier: Apache-2.0 */
/*
 * anthropic_usage.c -- the usage object. Its input figures are disjoint: what was read from the cache, what was written to it, and the
 * rest. In the hub's meaning the prompt is their sum. Thinking is part of output_tokens.
 *
 * In a stream message_start has what is known then, and message_delta what it has come to: its figures are cumulative, so they
 * replace those before them and are never added.
 */
#include "agent/dialect/anthropic.h"

#include "agent/dialect/json_write.h"

static void
take_count(struct sbx_span value, int64_t *ret_count)
{
	int64_t count;
	if (sbx_json_int64(value, &count) && count >= 0)
		*ret_count = count;
}

/* What is not known adds nothing; beyond the largest number is the largest. */
static int64_t
sum(int64_t a, int64_t b)
{
	int64_t total;
	if (a < 0 || b < 0)
		return a < 0 ? b : a;
	return __builtin_add_overflow(a, b, &total) ? INT64_MAX : total;
}

/* The writes apart by how long they are to last. */
static int64_t
sum_writes(struct sbx_span cache_creation)
{
	struct sbx_json_iter it = sbx_json_object_iter(cache_creation);
	struct sbx_span name, value;
	int64_t total = -1;
	while (sbx_json_object_next(&it, &name, &value)) {
		int64_t tokens = -1;
		take_count(value, &tokens);
		total = sum(total, tokens);
	}
	return total;
}

bool
sbx_anthropic_read_usage(struct sbx_span usage, struct sbx_usage *ret_usage)
{
	struct sbx_usage u = SBX_USAGE_NONE;
	struct sbx_json_iter it = sbx_json_object_iter(usage);
	struct sbx_span name, value, thinking;
	int64_t input = -1, writes = -1;

	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "input_tokens"))
			take_count(value, &input);
		else if (sbx_json_string_eq(name, "output_tokens"))
			take_count(value, &u.completion_tokens);
		else if (sbx_json_string_eq(name, "cache_read_input_tokens"))
			take_count(value, &u.cached_tokens);
		else if (sbx_json_string_eq(name, "cache_creation_input_tokens"))
			take_count(value, &u.cache_write_tokens);
		else if (sbx_json_string_eq(name, "cache_creation"))
			writes = sum_writes(value);
		else if (sbx_json_string_eq(name, "output_tokens_details") && sbx_json_get(value, "thinking_tokens", &thinking))
			take_count(thinking, &u.reasoning_tokens);
	}
	if (u.cache_write_tokens < 0)
		u.cache_write_tokens = writes;
	u.prompt_tokens = sum(sum(input, u.cached_tokens), u.cache_write_tokens);
	if (u.prompt_tokens < 0 && u.completion_tokens < 0)
		return false;
	if (u.completion_tokens >= 0 && u.reasoning_tokens > u.completion_tokens) {
		u.reasoning_tokens = u.completion_tokens;
		u.clamped = true;
	}
	*ret_usage = u;
	return true;
}

/* The member whose name is spelled so. */
static bool
find(struct sbx_span object, struct sbx_span name, struct sbx_span *ret_value)
{
	struct sbx_json_iter it = sbx_json_object_iter(object);
	struct sbx_span other, value;
	while (sbx_json_object_next(&it, &other, &value)) {
		if (sbx_span_eq(other, name)) {
			*ret_value = value;
			return true;
		}
	}
	return false;
}

int
sbx_anthropic_merge_usage(struct sbx_span before, struct sbx_span later, struct sbx_buf *out)
{
	struct sbx_json_writer w = sbx_json_writer(out);
	struct sbx_json_iter it = sbx_json_object_iter(before);
	struct sbx_span name, value, other;
	sbx_jw_open(&w, '{');
	while (sbx_json_object_next(&it, &name, &value)) {
		sbx_jw_name_span(&w, name);
		sbx_jw_value(&w, find(later, name, &other) && sbx_json_type(other) != SBX_JSON_NULL ? other : value);
	}
	it = sbx_json_object_iter(later);
	while (sbx_json_object_next(&it, &name, &value)) {
		if (find(before, name, &other))
			continue;
		sbx_jw_name_span(&w, name);
		sbx_jw_value(&w, value);
	}
	sbx_jw_close(&w, '}');
	return w.rc;
}

int
sbx_anthropic_add_cost(struct sbx_span payload, struct sbx_span usage, const char *usd, struct sbx_buf *out)
{
	struct sbx_span root = sbx_json_root(payload.at, payload.n), message, own = { NULL, 0 }, name, value;
	(void)usage; /* in a stream it is the merged one, which is nowhere in the payload */
	if (!sbx_json_get(root, "usage", &own) && sbx_json_get(root, "message", &message))
		(void)sbx_json_get(message, "usage", &own);
	struct sbx_json_iter it = sbx_json_object_iter(own);
	bool given = sbx_json_get(own, "cost", &value);
	if (sbx_json_type(own) != SBX_JSON_OBJECT || (given && !usd))
		return sbx_buf_append(out, payload.at, payload.n);
	struct sbx_span instead = given ? value : (struct sbx_span){ own.at + own.n - 1, 0 }; /* before the closing brace */
	const char *label = given ? "" : sbx_json_object_next(&it, &name, &value) ? ",\"cost\":" : "\"cost\":";
	const char *behind = instead.at + instead.n;
	int rc = sbx_buf_append(out, payload.at, (size_t)(instead.at - payload.at));
	if (rc == 0)
		rc = sbx_buf_printf(out, "%s%s", label, usd ? usd : "null");
	return rc ? rc : sbx_buf_append(out, behind, (size_t)(payload.at + payload.n - behind));
}
