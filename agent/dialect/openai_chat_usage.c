/* SPDX-License-Identifier: Apache-2.0 */
/*
 * openai_chat_usage.c -- the usage object: OpenAI's members, and what others put beside or in place of them.
 *
 * Missing is missing (-1), an explicit 0 is 0. Two corrections are made, both because the figures are money:
 *
 *   reasoning apart  xAI counts reasoning beside completion_tokens, everybody else inside. The sum tells: where
 *                    prompt + completion + reasoning = total, it is beside. Without a total the provider's row decides. A
 *                    provider of that row that reports no reasoning (Gemini) has hidden it in the total: it is what is left.
 *   too many cached  some report more cached tokens than prompt tokens: cut to the prompt, and flagged.
 */
#include "agent/dialect/openai_chat.h"

static void
take_count(struct sbx_span value, int64_t *ret_count)
{
	int64_t count;
	if (sbx_json_int64(value, &count) && count >= 0)
		*ret_count = count;
}

static void
take_if_missing(struct sbx_span value, int64_t *ret_count)
{
	if (*ret_count < 0)
		take_count(value, ret_count);
}

static void
read_prompt_details(struct sbx_span details, struct sbx_usage *u)
{
	struct sbx_json_iter it = sbx_json_object_iter(details);
	struct sbx_span name, value;
	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "cached_tokens"))
			take_count(value, &u->cached_tokens);
		else if (sbx_json_string_eq(name, "cache_write_tokens"))
			take_count(value, &u->cache_write_tokens);
	}
}

static void
add_reasoning(struct sbx_usage *u, bool apart)
{
	int64_t sum;
	if (u->completion_tokens < 0)
		return;
	bool total_known = u->prompt_tokens >= 0 && u->total_tokens >= 0 &&
			   !__builtin_add_overflow(u->prompt_tokens, u->completion_tokens, &sum);
	int64_t beside = total_known ? u->total_tokens - sum : 0; /* cannot overflow: both are counts */
	if (u->reasoning_tokens < 0 && apart && beside > 0)
		u->reasoning_tokens = beside;
	if (u->reasoning_tokens > 0 && (total_known ? beside == u->reasoning_tokens : apart))
		if (__builtin_add_overflow(u->completion_tokens, u->reasoning_tokens, &u->completion_tokens))
			u->completion_tokens = INT64_MAX;
}

static void
clamp_cached(struct sbx_usage *u)
{
	if (u->prompt_tokens < 0)
		return;
	if (u->cached_tokens > u->prompt_tokens) {
		u->cached_tokens = u->prompt_tokens;
		u->clamped = true;
	}
	int64_t rest = u->prompt_tokens - (u->cached_tokens > 0 ? u->cached_tokens : 0);
	if (u->cache_write_tokens > rest) {
		u->cache_write_tokens = rest;
		u->clamped = true;
	}
}

bool
sbx_openai_chat_read_usage(struct sbx_span usage, const struct sbx_quirks *quirks, struct sbx_usage *ret_usage)
{
	struct sbx_usage u = SBX_USAGE_NONE;
	int64_t hits = -1;      /* the same figure as cached_tokens, under one of its other names */
	int64_t reasoning = -1; /* likewise */
	struct sbx_json_iter it = sbx_json_object_iter(usage);
	struct sbx_span name, value;

	while (sbx_json_object_next(&it, &name, &value)) {
		if (sbx_json_string_eq(name, "prompt_tokens"))
			take_count(value, &u.prompt_tokens);
		else if (sbx_json_string_eq(name, "completion_tokens"))
			take_count(value, &u.completion_tokens);
		else if (sbx_json_string_eq(name, "total_tokens"))
			take_count(value, &u.total_tokens);
		else if (sbx_json_string_eq(name, "prompt_tokens_details"))
			read_prompt_details(value, &u);
		else if (sbx_json_string_eq(name, "completion_tokens_details") && sbx_json_get(value, "reasoning_tokens", &value))
			take_count(value, &u.reasoning_tokens);
		else if (sbx_json_string_eq(name, "prompt_cache_hit_tokens") /* DeepSeek */ ||
			 sbx_json_string_eq(name, "cached_tokens") /* Moonshot */ ||
			 sbx_json_string_eq(name, "num_cached_tokens") /* Mistral */)
			take_if_missing(value, &hits);
		else if (sbx_json_string_eq(name, "reasoning_tokens"))
			take_if_missing(value, &reasoning);
	}
	if (u.cached_tokens < 0)
		u.cached_tokens = hits;
	if (u.reasoning_tokens < 0)
		u.reasoning_tokens = reasoning;
	if (u.prompt_tokens < 0 && u.completion_tokens < 0 && u.total_tokens < 0)
		return false;
	add_reasoning(&u, quirks->reasoning_apart);
	clamp_cached(&u);
	*ret_usage = u;
	return true;
}

int
sbx_openai_chat_add_cost(struct sbx_span payload, struct sbx_span usage, const char *usd, struct sbx_buf *out)
{
	struct sbx_span cost, instead = {usage.at + usage.n - 1, 0}; /* before the closing brace */
	const char *name = ",\"cost\":"; /* an object that told a usage is not empty: the comma is right */
	if (sbx_json_get(usage, "cost", &cost)) {
		if (!usd)
			return sbx_buf_append(out, payload.at, payload.n);
		instead = cost;
		name = "";
	}
	const char *behind = instead.at + instead.n;
	int rc = sbx_buf_append(out, payload.at, (size_t)(instead.at - payload.at));
	if (!rc)
		rc = sbx_buf_printf(out, "%s%s", name, usd ? usd : "null");
	return rc ? rc : sbx_buf_append(out, behind, (size_t)(payload.at + payload.n - behind));
}
