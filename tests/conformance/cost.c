/* SPDX-License-Identifier: Apache-2.0 */
/* cost.c -- see cost.h: the table of prices, the formula, the count. */
#include "tests/conformance/cost.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define ALL INT64_MAX
#define TIER_K 1000

/* In millionths of a USD for a million tokens: 2.50 USD is 2500000. Without a price of its own a token read from the cache or written
 * to it costs what any other does; none of these models has one for reasoning, which is output. Read in agent/catalog.json. */
static const struct price {
	const char *model;
	int64_t above, up_to;           /* prompts of this many tokens: above < prompt <= up_to */
	int64_t in, cached, written, out;
	int64_t request_nanousd;        /* a fee for each request */
} prices[] = {
	{ "openai/gpt-5.6-sol", -1, 272 * TIER_K, 4000000, 400000, 5000000, 20000000, 0 },
	{ "openai/gpt-5.6-sol", 272 * TIER_K, ALL, 8000000, 800000, 10000000, 30000000, 0 },
	{ "openai/gpt-5.2", -1, ALL, 1750000, 175000, 1750000, 14000000, 0 },
	{ "openai/gpt-5-mini", -1, ALL, 250000, 25000, 250000, 2000000, 0 },
	{ "openai/gpt-4.1", -1, ALL, 2000000, 500000, 2000000, 8000000, 0 },
	{ "openai/gpt-4.1-mini", -1, ALL, 400000, 100000, 400000, 1600000, 0 },
	{ "openai/gpt-4o", -1, ALL, 2500000, 1250000, 2500000, 10000000, 0 },
	{ "openai/gpt-4o-mini", -1, ALL, 150000, 75000, 150000, 600000, 0 },
	{ "anthropic/claude-opus-5", -1, ALL, 5000000, 500000, 6250000, 25000000, 0 },
	{ "anthropic/claude-sonnet-5-5", -1, ALL, 2000000, 100000, 2500000, 10000000, 0 },
	{ "anthropic/claude-sonnet-4-6", -1, ALL, 3000000, 300000, 3750000, 15000000, 0 },
	{ "anthropic/claude-haiku-4-5", -1, ALL, 1000000, 100000, 1250000, 5000000, 0 },
	{ "google/gemini-2.5-flash", -1, ALL, 300000, 30000, 300000, 2500000, 0 },
	{ "google/gemini-2.5-pro", -1, 200 * TIER_K, 1250000, 125000, 1250000, 10000000, 0 },
	{ "google/gemini-2.5-pro", 200 * TIER_K, ALL, 2500000, 250000, 2500000, 15000000, 0 },
	{ "google/gemini-3.5-flash", -1, ALL, 1500000, 150000, 1500000, 9000000, 0 },
	/* Twice as dear in the mornings of weekdays: either is right here, since the hour of the run decides. */
	{ "deepseek/deepseek-flash", -1, ALL, 150000, 3000, 150000, 600000, 0 },
	{ "deepseek/deepseek-flash", -1, ALL, 300000, 6000, 300000, 1200000, 0 },
	{ "deepseek/deepseek-v4-pro", -1, ALL, 660000, 22000, 660000, 1980000, 0 },
	{ "deepseek/deepseek-v4-pro", -1, ALL, 1320000, 44000, 1320000, 3960000, 0 },
	{ "xai/grok-4.7", -1, 200 * TIER_K, 2000000, 500000, 2000000, 6000000, 0 },
	{ "xai/grok-4.7", 200 * TIER_K, ALL, 4000000, 1000000, 4000000, 12000000, 0 },
	{ "xai/grok-4.3", -1, 200 * TIER_K, 1250000, 200000, 1250000, 2500000, 0 },
	{ "xai/grok-4.3", 200 * TIER_K, ALL, 2500000, 400000, 2500000, 5000000, 0 },
	{ "xai/grok-3-mini", -1, ALL, 300000, 75000, 300000, 500000, 0 },
	{ "mistral/mistral-medium-latest", -1, ALL, 1500000, 1500000, 1500000, 7500000, 0 },
	{ "mistral/mistral-large-2512", -1, ALL, 500000, 500000, 500000, 1500000, 0 },
	{ "groq/openai/gpt-oss-120b", -1, ALL, 150000, 75000, 150000, 600000, 0 },
	{ "groq/openai/gpt-oss-20b", -1, ALL, 75000, 37500, 75000, 300000, 0 },
	{ "groq/qwen/qwen3-32b", -1, ALL, 290000, 290000, 290000, 590000, 0 },
	{ "cerebras/gpt-oss-120b", -1, ALL, 350000, 350000, 350000, 750000, 0 },
	{ "perplexity/sonar", -1, ALL, 1000000, 1000000, 1000000, 1000000, 5000000 },
	{ "perplexity/sonar-pro", -1, ALL, 3000000, 3000000, 3000000, 15000000, 6000000 },
	{ "perplexity/sonar-reasoning-pro", -1, ALL, 2000000, 2000000, 2000000, 8000000, 6000000 },
	{ "moonshot/kimi-k2.6", -1, ALL, 950000, 160000, 950000, 4000000, 0 },
	{ "moonshot/kimi-k3", -1, ALL, 3000000, 300000, 3000000, 15000000, 0 },
	{ "zai/glm-4.7", -1, ALL, 600000, 110000, 600000, 2200000, 0 },
	{ "zai/glm-4.6v", -1, ALL, 300000, 300000, 300000, 900000, 0 },
	{ "qwen/qwen3-max", -1, 32 * TIER_K, 1200000, 240000, 1500000, 6000000, 0 },
	{ "qwen/qwen3-max", 32 * TIER_K, 128 * TIER_K, 2400000, 480000, 3000000, 12000000, 0 },
	{ "qwen/qwen3-max", 128 * TIER_K, ALL, 3000000, 600000, 3750000, 15000000, 0 },
	{ "openrouter/anthropic/claude-sonnet-4.6", -1, 200 * TIER_K, 3000000, 300000, 3750000, 15000000, 0 },
	{ "openrouter/anthropic/claude-sonnet-4.6", 200 * TIER_K, ALL, 6000000, 600000, 7500000, 22500000, 0 },
	{ "openrouter/anthropic/claude-haiku-4.5", -1, ALL, 1000000, 100000, 1250000, 5000000, 0 },
	{ "openrouter/google/gemini-2.5-flash", -1, ALL, 300000, 30000, 83333, 2500000, 0 },
};

static struct {
	int priced, unpriced, without_usage, unclear, said, same;
} count;

struct used {
	int64_t prompt, cached, written, completion;
};

/* Of a usage: all that was read, less what came from the cache or went there, at one price; those two at theirs; all that was
 * written. A millionth of a USD for a million tokens is a thousandth of a nano-USD for one: divided once, rounded up. */
static int64_t
sum_of(const struct price *p, const struct used *u)
{
	int64_t sum = (u->prompt - u->cached - u->written) * p->in + u->cached * p->cached + u->written * p->written + u->completion * p->out;
	return (sum + 999) / 1000 + p->request_nanousd;
}

static bool
is_ambiguous(const json_t *expected, const char *field)
{
	size_t i, n = strlen(field);
	json_t *v;
	json_array_foreach(json_object_get(expected, "ambiguous"), i, v) if (json_is_string(v) && strncmp(json_string_value(v), field, n) == 0) return true;
	return false;
}

/* Where the provider said itself what the answer cost, in USD or in ticks of 10^-10 USD. */
static void
note_what_was_said(const char *id, const json_t *expected, int64_t cost)
{
	const json_t *said = json_object_get(expected, "reported_cost");
	const char *field = json_string_value(json_object_get(said, "field"));
	if (!field)
		return;
	double nanousd = json_number_value(json_object_get(said, "value")) * (strstr(field, "ticks") ? 0.1 : 1e9);
	count.said++;
	if (fabs((double)cost - nanousd) < 1)
		count.same++;
	else
		printf("NOTE %s: it cost %lld nano-USD, the provider said %.0f\n", id, (long long)cost, nanousd);
}

void
cost_compare(const char *id, const char *provider, const char *model, const json_t *expected, const struct sbx_reply *r, struct sbx_buf *differs)
{
	const json_t *usage = json_object_get(expected, "usage");
	const struct used u = { json_integer_value(json_object_get(usage, "prompt_tokens")), json_integer_value(json_object_get(usage, "cached_tokens")),
		                json_integer_value(json_object_get(usage, "cache_creation_tokens")), json_integer_value(json_object_get(usage, "completion_tokens")) };
	const int64_t cost = sbx_reply_cost_nanousd(r);
	int64_t want = -1;
	bool right = false;
	char name[200];

	if (!sbx_reply_ok(r))
		return; /* what a failure cost is the end-to-end tests' */
	if (is_ambiguous(expected, "usage")) {
		count.unclear++;
		return;
	}
	(void)snprintf(name, sizeof name, "%s/%s", provider, model);
	for (size_t i = 0; i < sizeof prices / sizeof prices[0] && json_is_object(usage) && !right; i++) {
		const struct price *p = &prices[i];
		if (strcmp(p->model, name) != 0 || u.prompt <= p->above || u.prompt > p->up_to)
			continue;
		want = sum_of(p, &u);
		right = cost == want;
	}
	if (!json_is_object(usage))
		count.without_usage++;
	else if (want < 0)
		count.unpriced++;
	else
		count.priced++;
	if (cost != want && !right)
		(void)sbx_buf_printf(differs, "%scost of %s: got %lld nano-USD, expected %lld (-1 = not known)", differs->n ? "; " : "", name, (long long)cost,
		                     (long long)want);
	if (want >= 0)
		note_what_was_said(id, expected, cost);
}

void
cost_report(void)
{
	printf("costs: %d priced, %d without a price, %d without usage, %d with usage that the provider left unclear\n", count.priced, count.unpriced,
	       count.without_usage, count.unclear);
	printf("       of the priced, %d were also priced by the provider itself: %d the same\n", count.said, count.same);
}
