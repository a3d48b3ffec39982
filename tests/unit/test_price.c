/* SPDX-License-Identifier: Apache-2.0 */
/* test_price.c -- what something costs: sums checked by hand, hours, dates, daylight, tiers, estimates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "agent/catalog.h"
#include "agent/core/bill.h"
#include "agent/core/price.h"
#include "agent/dialect/hub.h"

#define N(table) (sizeof(table) / sizeof(table)[0])
#define HOUR 3600
#define DAY 86400
#define HUGE_TOKENS (INT64_C(1) << 53)

static struct sbx_catalog *builtin, *c; /* c: of the list below */

#define ROW "\"source\":\"s\",\"read_on\":\"2026-01-01\","
static const char list[] =
	"{\"models\":["
	/* a price of 1 nano-USD per million: everything but zero rounds up to 1 */
	"{\"model\":\"p/tiny\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"input_cost_per_token\":1e-15,\"output_cost_per_token\":1e-15}]},"
	"{\"model\":\"p/free\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"input_cost_per_token\":0,\"output_cost_per_token\":0}]},"
	"{\"model\":\"p/input-only\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"input_cost_per_token\":2e-8}]},"
	"{\"model\":\"p/dear\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"input_cost_per_token\":0.01,\"output_cost_per_token\":0.01}]},"
	"{\"model\":\"p/nothing\",\"context\":1000},"
	/* every kind a price of its own */
	"{\"model\":\"p/kinds\",\"context\":100000,\"max_output\":1000,\"prices\":[{\"from\":\"2026-01-01\"," ROW
	"\"input_cost_per_token\":1e-6,\"cache_read_input_token_cost\":1e-7,\"cache_creation_input_token_cost\":1.25e-6,"
	"\"cache_creation_input_token_cost_above_1hr\":2e-6,\"output_cost_per_token\":5e-6,\"output_cost_per_reasoning_token\":3e-6,"
	"\"input_cost_per_audio_token\":4e-6,\"output_cost_per_audio_token\":8e-6,\"input_cost_per_image_token\":6e-6,"
	"\"input_cost_per_token_batches\":5e-7,\"output_cost_per_token_batches\":2.5e-6,\"input_cost_per_request\":0.005}]},"
	/* dated: a change at a month's end, one at an hour, a gap, an end */
	"{\"model\":\"p/dated\",\"prices\":["
	"{\"from\":\"2026-03-01T16:00Z\",\"until\":\"2026-04-01\"," ROW "\"input_cost_per_token\":3e-6,\"output_cost_per_token\":3e-6},"
	"{\"from\":\"2026-02-01\",\"until\":\"2026-03-01T16:00Z\"," ROW "\"input_cost_per_token\":2e-6,\"output_cost_per_token\":2e-6},"
	"{\"from\":\"2026-05-01\",\"until\":\"2026-06-01\"," ROW "\"input_cost_per_token\":4e-6,\"output_cost_per_token\":4e-6}]},"
	"{\"model\":\"p/tiers\",\"context\":300000,\"max_output\":1000,\"prices\":[{\"from\":\"2026-01-01\"," ROW
	"\"input_cost_per_token\":1e-6,\"output_cost_per_token\":2e-6,\"tiers\":["
	"{\"above_input_tokens\":32000,\"input_cost_per_token\":2e-6},{\"above_input_tokens\":128000,\"input_cost_per_token\":3e-6,\"output_cost_per_token\":9e-6}]}]},"
	/* cheap at night from Friday to Sunday, in Beijing: over midnight, over the week's end */
	"{\"model\":\"p/night\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"zone\":\"UTC+08:00\","
	"\"input_cost_per_token\":2e-6,\"output_cost_per_token\":2e-6,"
	"\"windows\":[{\"hours\":[\"22:30-06:00\"],\"weekdays\":\"fri-sun\",\"input_cost_per_token\":1e-6}]}]},"
	"{\"model\":\"p/eu\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"zone\":\"UTC+01:00/EU\",\"input_cost_per_token\":2e-6,"
	"\"windows\":[{\"hours\":[\"09:00-18:00\"],\"input_cost_per_token\":4e-6},{\"hours\":[\"02:15-02:45\"],\"input_cost_per_token\":3e-6}]}]},"
	"{\"model\":\"p/us\",\"prices\":[{\"from\":\"2026-01-01\"," ROW "\"zone\":\"UTC-08:00/US\",\"input_cost_per_token\":2e-6,"
	"\"windows\":[{\"hours\":[\"09:00-18:00\"],\"input_cost_per_token\":4e-6},{\"hours\":[\"01:30-03:30\"],\"input_cost_per_token\":3e-6}]}]}"
	"]}";

static int
setup(void **state)
{
	static struct sbx_config_messages refused;
	char why[256] = "";
	(void)state;
	int rc = sbx_catalog_load(NULL, &refused, &builtin, why, sizeof why);
	if (rc == 0)
		rc = sbx_catalog_parse("list", list, sizeof list - 1, &refused, &c, why, sizeof why);
	for (uint32_t i = 0; i < refused.n; i++)
		print_error("%s\n", refused.message[i].text);
	rc |= (int)refused.n;
	sbx_config_messages_fini(&refused);
	return rc;
}

static int
teardown(void **state)
{
	(void)state;
	sbx_catalog_free(builtin);
	sbx_catalog_free(c);
	return 0;
}

static const struct sbx_model *
model(const struct sbx_catalog *of, const char *name)
{
	return sbx_facts_find(&of->facts, sbx_span_of(name));
}

/* "2026-03-01 16:00" */
static int64_t
at(const char *text)
{
	int y, mo, d, h, mi;
	if (sscanf(text, "%d-%d-%d %d:%d", &y, &mo, &d, &h, &mi) != 5)
		fail_msg("%s", text);
	return sbx_price_date(y, mo, d) + h * HOUR + mi * 60;
}

/* ---- sums ---- */

#define NEVER "2026-11-15 12:00" /* a Sunday, which is in no window of the built-in list */
#define PEAK "2026-11-16 01:00"  /* and a Monday's peak hour at DeepSeek */

/* In nano-USD, token by token as the price lists have it: 0.15 USD a million are 150 nano-USD a token. What stands behind a sum
 * with "said" is what the provider itself put into that very answer. */
static const struct {
	const char *model, *when;
	int64_t prompt, cached, written, completion, reasoning, want;
} sums[] = {
	{ "openai/gpt-4o-mini", NEVER, 12, 0, 0, 12, 0, 12 * 150 + 12 * 600 },
	{ "openai/gpt-4o", NEVER, 364, 0, 0, 40, 0, 364 * 2500 + 40 * 10000 },
	{ "openai/gpt-4.1-mini", NEVER, 207, 0, 0, 43, 0, 207 * 400 + 43 * 1600 },
	{ "openai/gpt-5.6-sol", NEVER, 4020, 0, 4012, 4, 0, 8 * 4000 + 4012 * 5000 + 4 * 20000 },
	{ "openai/gpt-5.6-sol", "2026-08-20 23:59", 4020, 0, 4012, 4, 0, 8 * 5000 + 4012 * 6250 + 4 * 30000 },
	{ "openai/gpt-5.6-sol", NEVER, 272000, 0, 0, 1, 0, 272000LL * 4000 + 20000 },
	{ "openai/gpt-5.6-sol", NEVER, 272001, 0, 0, 1, 0, 272001LL * 8000 + 30000 },
	{ "cerebras/gpt-oss-120b", NEVER, 80, -1, -1, 45, 34, 80 * 350 + 45 * 750 },
	{ "groq/openai/gpt-oss-120b", NEVER, 339, -1, -1, 58, 38, 339 * 150 + 58 * 600 },
	{ "groq/qwen/qwen3-32b", NEVER, 25, -1, -1, 2, -1, 25 * 290 + 2 * 590 },
	{ "moonshot/kimi-k2.6", NEVER, 20, 10, -1, 30, 22, 10 * 950 + 10 * 160 + 30 * 4000 },
	{ "moonshot/kimi-k3", NEVER, 9, -1, -1, 12, 7, 9 * 3000 + 12 * 15000 },
	{ "zai/glm-4.7", NEVER, 198, 0, -1, 134, 122, 198 * 600 + 134 * 2200 },
	{ "zai/glm-4.6v", NEVER, 435, 4, -1, 73, 56, 435 * 300 + 73 * 900 }, /* no price for cached: as input */
	{ "qwen/qwen3-max", NEVER, 24, 0, -1, 1355, 1084, 24 * 1200 + 1355 * 6000 },
	{ "xai/grok-3-mini", NEVER, 12, 2, -1, 229, 228, 117650 /* said */ },
	{ "xai/grok-3-mini", NEVER, 307, 244, -1, 281, 255, 177700 /* said */ },
	{ "xai/grok-3-mini", NEVER, 307, 306, -1, 253, 227, 149750 /* said */ },
	{ "perplexity/sonar", NEVER, 10, -1, -1, 336, -1, 10 * 1000 + 336 * 1000 + 5000000 },
	{ "perplexity/sonar-pro", NEVER, 17, -1, -1, 6, -1, 17 * 3000 + 6 * 15000 + 6000000 },
	{ "openrouter/google/gemini-2.5-flash", NEVER, 519, 0, -1, 68, -1, 325700 /* said */ },
	{ "openrouter/google/gemini-2.5-flash", NEVER, 2167, 2161, -1, 99, -1, 314130 /* said */ },
	{ "openrouter/anthropic/claude-sonnet-4.6", NEVER, 2572, 0, 2569, 63, -1, 10587750 /* said */ },
	{ "openrouter/anthropic/claude-sonnet-4.6", NEVER, 3329, 3211, 115, 53, -1, 2198550 /* said */ },
	{ "openrouter/anthropic/claude-sonnet-4.6", NEVER, 254, 0, 0, 5, -1, 837000 /* said */ },
	{ "openrouter/anthropic/claude-haiku-4.5", NEVER, 174, 0, 0, 12, -1, 234000 /* said */ },
	{ "openrouter/anthropic/claude-haiku-4.5", NEVER, 80, 0, 0, 1128, 701, 5720000 /* said */ },
	{ "openrouter/anthropic/claude-haiku-4.5", NEVER, 845, 0, 0, 68, -1, 1185000 /* said */ },
	{ "deepseek/deepseek-flash", NEVER, 976, 896, -1, 61, 25, 80 * 150 + 896 * 3 + 61 * 600 },
	{ "deepseek/deepseek-flash", PEAK, 976, 896, -1, 61, 25, 80 * 300 + 896 * 6 + 61 * 1200 },
	{ "anthropic/claude-haiku-4-5", NEVER, 1000, 0, 1000, 0, -1, 1000 * 1250 },
};

static void
sums_are_exact(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(sums); i++) {
		struct sbx_usage u = { sums[i].prompt, sums[i].completion, -1, sums[i].cached, sums[i].written, sums[i].reasoning, false, false };
		struct sbx_bill b = sbx_bill_attempt(&builtin->facts, model(builtin, sums[i].model), SBX_CLASS_OK, true, &u, at(sums[i].when));
		if (b.status != SBX_COST_KNOWN || b.nanousd != sums[i].want || !b.row)
			fail_msg("%zu %s: status %d, %lld, not %lld", i, sums[i].model, b.status, (long long)b.nanousd, (long long)sums[i].want);
	}
}

/* Usage to cost in the little list: unknown is -1, and what is wrong there is said. */
static const struct {
	const char *model;
	struct sbx_usage usage;
	enum sbx_cost_status status;
	int64_t want;
} odd[] = {
	/* one sum is divided once and rounded up once: three kinds of a millionth each are still one */
	{ "p/tiny", { 2, 1, -1, 1, 0, 0, false, false }, SBX_COST_KNOWN, 1 },
	{ "p/tiny", { 999999, 1, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 1 },
	{ "p/tiny", { 1000000, 1, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 2 },
	{ "p/tiny", { 0, 0, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 0 },
	{ "p/free", { 1000, 1000, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 0 }, /* free is known to be 0 ... */
	{ "p/nothing", { 0, 0, -1, -1, -1, -1, false, false }, SBX_COST_UNPRICED, 0 }, /* ... no price is not */
	{ "p/input-only", { 50, 0, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 1000 },
	{ "p/input-only", { 50, -1, 50, -1, -1, -1, false, false }, SBX_COST_KNOWN, 1000 }, /* embeddings: there is no completion */
	{ "p/input-only", { 50, 1, -1, -1, -1, -1, false, false }, SBX_COST_UNPRICED, 0 },
	{ "p/kinds", { -1, -1, 100, -1, -1, -1, false, false }, SBX_COST_NO_USAGE, 0 },
	{ "p/kinds", { 10, -1, -1, -1, -1, -1, false, false }, SBX_COST_NO_USAGE, 0 },
	{ "p/kinds", { -1, 10, -1, -1, -1, -1, false, false }, SBX_COST_NO_USAGE, 0 },
	{ "p/kinds", { 100, 50, 150, 20, 30, 10, false, false }, SBX_COST_KNOWN, 50 * 1000 + 20 * 100 + 30 * 1250 + 40 * 5000 + 10 * 3000 + 5000000 },
	/* figures that contradict each other are not counted twice */
	{ "p/kinds", { 10, 5, -1, 99, 99, 99, false, false }, SBX_COST_KNOWN, 10 * 100 + 5 * 3000 + 5000000 },
	{ "p/tiers", { 32000, 1, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 32000 * 1000 + 2000 },
	{ "p/tiers", { 32001, 1, -1, 32001, -1, -1, false, false }, SBX_COST_KNOWN, 32001 * 2000 + 2000 }, /* the cached count for the size too */
	{ "p/tiers", { 128001, 1, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, 128001 * 3000 + 9000 },
	/* the largest figures that a provider's JSON can carry */
	{ "p/tiny", { HUGE_TOKENS, HUGE_TOKENS, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, INT64_C(18014398510) },
	{ "p/dear", { HUGE_TOKENS, HUGE_TOKENS, -1, -1, -1, -1, false, false }, SBX_COST_TOO_LARGE, 0 },
	{ "p/dear", { INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX, false, false }, SBX_COST_TOO_LARGE, 0 },
	{ "p/tiny", { INT64_MAX, INT64_MAX, -1, -1, -1, -1, false, false }, SBX_COST_KNOWN, INT64_C(18446744073710) },
	{ "p/unheard-of", { 1, 1, -1, -1, -1, -1, false, false }, SBX_COST_UNPRICED, 0 },
};

static void
odd_figures(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(odd); i++) {
		struct sbx_bill b = sbx_bill_attempt(&c->facts, model(c, odd[i].model), SBX_CLASS_OK, true, &odd[i].usage, at("2026-07-01 00:00"));
		if (b.status != odd[i].status || (b.status == SBX_COST_KNOWN && b.nanousd != odd[i].want))
			fail_msg("%zu %s: status %d, %lld", i, odd[i].model, b.status, (long long)b.nanousd);
	}
	assert_null(sbx_cost_status_word(SBX_COST_KNOWN));
	assert_string_equal(sbx_cost_status_word(SBX_COST_UNPRICED), "unpriced");
	assert_string_equal(sbx_cost_status_word(SBX_COST_TOO_LARGE), "too_large");
}

static void
every_kind_has_its_price(void **state)
{
	static const int64_t want[SBX_PRICE__COUNT] = { [SBX_PRICE_INPUT] = 1000, [SBX_PRICE_CACHE_READ] = 100, [SBX_PRICE_CACHE_WRITE] = 1250,
		[SBX_PRICE_CACHE_WRITE_1H] = 2000, [SBX_PRICE_OUTPUT] = 5000, [SBX_PRICE_REASONING] = 3000, [SBX_PRICE_AUDIO_INPUT] = 4000,
		[SBX_PRICE_AUDIO_OUTPUT] = 8000, [SBX_PRICE_IMAGE_INPUT] = 6000, [SBX_PRICE_BATCH_INPUT] = 500, [SBX_PRICE_BATCH_OUTPUT] = 2500,
		[SBX_PRICE_REQUEST] = 5000000 };
	struct sbx_price p, plain;
	(void)state;
	assert_true(sbx_price_at(&c->facts, model(c, "p/kinds"), at("2026-07-01 00:00"), &p));
	assert_true(sbx_price_at(&c->facts, model(c, "p/free"), at("2026-07-01 00:00"), &plain));
	for (int kind = 0; kind < SBX_PRICE__COUNT; kind++) {
		struct sbx_amounts a = { .prompt_tokens = 1 };
		int64_t cost = -7;
		a.n[kind] = 3;
		assert_int_equal(sbx_price_cost(&p, &a, &cost), SBX_COST_KNOWN);
		assert_int_equal(cost, 3 * want[kind]);
		/* without a price of its own: input, output or no fee stand in; nothing else does */
		bool known = kind == SBX_PRICE_INPUT || kind == SBX_PRICE_CACHE_READ || kind == SBX_PRICE_CACHE_WRITE || kind == SBX_PRICE_OUTPUT ||
		             kind == SBX_PRICE_REASONING || kind == SBX_PRICE_REQUEST;
		cost = -7;
		assert_int_equal(sbx_price_cost(&plain, &a, &cost), known ? SBX_COST_KNOWN : SBX_COST_UNPRICED);
		assert_int_equal(cost, known ? 0 : -7);
	}
}

/* ---- attempts and requests ---- */

static void
what_an_attempt_costs(void **state)
{
	static const struct {
		enum sbx_class class;
		bool content;
		enum sbx_cost_status status;
	} cases[] = {
		{ SBX_CLASS_NOT_SENT, false, SBX_COST_KNOWN },     { SBX_CLASS_REFUSED, false, SBX_COST_KNOWN },
		{ SBX_CLASS_BAD_REQUEST, false, SBX_COST_KNOWN },  { SBX_CLASS_AUTH, false, SBX_COST_KNOWN },
		{ SBX_CLASS_FAILED, false, SBX_COST_KNOWN },       { SBX_CLASS_FAILED, true, SBX_COST_NO_USAGE },
		{ SBX_CLASS_UNCERTAIN, false, SBX_COST_NO_USAGE }, { SBX_CLASS_MIDSTREAM, true, SBX_COST_NO_USAGE },
		{ SBX_CLASS_CANCELLED, false, SBX_COST_NO_USAGE }, { SBX_CLASS_OK, true, SBX_COST_NO_USAGE },
		{ SBX_CLASS_NONE, false, SBX_COST_NO_USAGE },      { SBX_CLASS_PASSED_OVER, false, SBX_COST_KNOWN },
	};
	const struct sbx_model *m = model(c, "p/kinds");
	const struct sbx_usage some = { 10, 0, 10, -1, -1, -1, false, false };
	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sbx_bill b = sbx_bill_attempt(&c->facts, m, cases[i].class, cases[i].content, &SBX_USAGE_NONE, at("2026-07-01 00:00"));
		assert_int_equal(b.status, cases[i].status);
		assert_true(b.status != SBX_COST_KNOWN || (b.nanousd == 0 && !b.row));
		/* without a price what may have been billed is unpriced, what cannot have been is 0 all the same */
		b = sbx_bill_attempt(&c->facts, NULL, cases[i].class, cases[i].content, &SBX_USAGE_NONE, 0);
		assert_int_equal(b.status, cases[i].status == SBX_COST_KNOWN ? SBX_COST_KNOWN : SBX_COST_UNPRICED);
		/* and what a provider says was used is billed, whatever became of the attempt */
		b = sbx_bill_attempt(&c->facts, m, cases[i].class, cases[i].content, &some, at("2026-07-01 00:00"));
		assert_true(b.status == SBX_COST_KNOWN && b.nanousd == 10 * 1000 + 5000000);
		assert_string_equal(b.row->id, "p/kinds@2026-01-01");
	}
	struct sbx_bill sum = { .status = SBX_COST_KNOWN }, five = { .nanousd = 5 }, most = { .nanousd = INT64_MAX }, no = { .status = SBX_COST_NO_USAGE };
	sbx_bill_add(&sum, &five);
	sbx_bill_add(&sum, &five);
	assert_true(sum.status == SBX_COST_KNOWN && sum.nanousd == 10);
	sbx_bill_add(&sum, &most);
	assert_int_equal(sum.status, SBX_COST_TOO_LARGE);
	sum = (struct sbx_bill){ .status = SBX_COST_KNOWN };
	sbx_bill_add(&sum, &no);
	sbx_bill_add(&sum, &five);
	assert_int_equal(sum.status, SBX_COST_NO_USAGE);
}

struct heard {
	struct sbx_usage usage;
};

static void
hear(void *arg, const struct sbx_hub_event *ev)
{
	if (ev->kind == SBX_HUB_USAGE)
		((struct heard *)arg)->usage = *ev->usage;
}

/* One answer, as a body and as a stream, costs the same. */
static void
stream_and_body_cost_the_same(void **state)
{
#define SAID "\"usage\":{\"prompt_tokens\":2167,\"completion_tokens\":99,\"total_tokens\":2266,\"prompt_tokens_details\":{\"cached_tokens\":2161}," \
	     "\"completion_tokens_details\":{\"reasoning_tokens\":40}}"
	static const char body[] = "{\"id\":\"x\",\"object\":\"chat.completion\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"hi\"},"
	                           "\"finish_reason\":\"stop\"}]," SAID "}";
	static const char stream[] = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"hi\"}}],\"usage\":null}\n\n"
	                             "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}],\"usage\":null}\n\n"
	                             "data: {\"choices\":[]," SAID "}\n\ndata: [DONE]\n\n";
	const struct sbx_dialect *d = sbx_dialect_find("openai-chat");
	int64_t cost[2] = { -1, -1 };
	(void)state;
	for (int streamed = 0; streamed < 2; streamed++) {
		struct heard heard = { SBX_USAGE_NONE };
		struct sbx_decode_opts opts = { .choices = 1, .stream = streamed, .want_text = true };
		struct sbx_json_scratch scratch;
		sbx_json_scratch_init(&scratch);
		struct sbx_decoder *dec = d->decoder_new(&opts, &scratch, hear, &heard);
		assert_non_null(dec);
		d->decoder_head(dec, 200, streamed ? "text/event-stream" : "application/json");
		d->decoder_feed(dec, streamed ? stream : body, strlen(streamed ? stream : body));
		d->decoder_end(dec);
		d->decoder_free(dec);
		sbx_json_scratch_fini(&scratch);
		struct sbx_bill b = sbx_bill_attempt(&builtin->facts, model(builtin, "google/gemini-2.5-flash"), SBX_CLASS_OK, true, &heard.usage, at(NEVER));
		assert_int_equal(b.status, SBX_COST_KNOWN);
		cost[streamed] = b.nanousd;
	}
	assert_int_equal(cost[0], 6 * 300 + 2161 * 30 + 99 * 2500);
	assert_int_equal(cost[0], cost[1]);
}

/* ---- time ---- */

/* What a million input tokens cost then, in micro-USD (-1: no price), and when that changes. */
static const struct {
	const char *model, *when;
	int64_t want;
	const char *next; /* NULL = never */
} times[] = {
	{ "p/dated", "2026-01-31 23:59", -1, "2026-02-01 00:00" },
	{ "p/dated", "2026-02-01 00:00", 2000000, "2026-03-01 16:00" },
	{ "p/dated", "2026-02-28 23:59", 2000000, "2026-03-01 16:00" },
	{ "p/dated", "2026-03-01 15:59", 2000000, "2026-03-01 16:00" },
	{ "p/dated", "2026-03-01 16:00", 3000000, "2026-04-01 00:00" },
	{ "p/dated", "2026-04-01 00:00", -1, "2026-05-01 00:00" },
	{ "p/dated", "2026-05-31 23:59", 4000000, "2026-06-01 00:00" },
	{ "p/dated", "2026-06-01 00:00", -1, NULL },
	{ "p/tiny", "2027-01-01 00:00", 0, NULL },
	{ "p/nothing", "2026-07-01 00:00", -1, NULL },
	/* Friday 2026-07-03, 22:30 in Beijing is 14:30 UTC; Saturday's 06:00 is Friday's 22:00 UTC */
	{ "p/night", "2026-07-03 14:29", 2000000, "2026-07-03 14:30" },
	{ "p/night", "2026-07-03 14:30", 1000000, "2026-07-03 22:00" },
	{ "p/night", "2026-07-03 16:00", 1000000, "2026-07-03 22:00" }, /* midnight there */
	{ "p/night", "2026-07-03 21:59", 1000000, "2026-07-03 22:00" },
	{ "p/night", "2026-07-03 22:00", 2000000, "2026-07-04 14:30" },
	{ "p/night", "2026-07-05 21:59", 1000000, "2026-07-05 22:00" }, /* began on Sunday, holds on Monday morning */
	{ "p/night", "2026-07-05 22:00", 2000000, "2026-07-10 14:30" },
	{ "p/night", "2026-07-06 15:00", 2000000, "2026-07-10 14:30" }, /* a Monday night */
	{ "p/night", "2026-07-31 17:00", 1000000, "2026-07-31 22:00" }, /* already August there */
	/* the EU's clocks: +1 in winter, +2 from 2026-03-29 01:00 UTC to 2026-10-25 01:00 UTC */
	{ "p/eu", "2026-03-28 08:00", 4000000, "2026-03-28 17:00" },
	{ "p/eu", "2026-03-28 07:59", 2000000, "2026-03-28 08:00" },
	{ "p/eu", "2026-03-28 17:00", 2000000, "2026-03-29 07:00" }, /* 02:15 does not exist that night */
	{ "p/eu", "2026-03-29 07:00", 4000000, "2026-03-29 16:00" },
	{ "p/eu", "2026-10-25 00:15", 3000000, "2026-10-25 00:45" }, /* 02:15 exists twice */
	{ "p/eu", "2026-10-25 00:45", 2000000, "2026-10-25 01:15" },
	{ "p/eu", "2026-10-25 01:15", 3000000, "2026-10-25 01:45" },
	{ "p/eu", "2026-10-25 01:45", 2000000, "2026-10-25 08:00" },
	/* the USA's: -8 in winter, -7 from 2026-03-08 10:00 UTC to 2026-11-01 09:00 UTC */
	{ "p/us", "2026-03-07 17:00", 4000000, "2026-03-08 02:00" },
	{ "p/us", "2026-03-08 01:59", 4000000, "2026-03-08 02:00" },
	{ "p/us", "2026-03-08 02:00", 2000000, "2026-03-08 09:30" },
	{ "p/us", "2026-03-08 09:30", 3000000, "2026-03-08 10:30" }, /* from 01:30 to 03:30, without the hour between */
	{ "p/us", "2026-03-08 10:30", 2000000, "2026-03-08 16:00" },
	{ "p/us", "2026-11-01 08:30", 3000000, "2026-11-01 09:00" }, /* the clock goes back to 01:00 ... */
	{ "p/us", "2026-11-01 09:00", 2000000, "2026-11-01 09:30" },
	{ "p/us", "2026-11-01 09:30", 3000000, "2026-11-01 11:30" }, /* ... and 01:30 comes again */
	{ "p/us", "2026-11-01 16:59", 2000000, "2026-11-01 17:00" },
	{ "p/us", "2026-10-31 16:00", 4000000, "2026-11-01 01:00" },
	/* DeepSeek: Monday to Friday, 01:00-04:00 and 06:00-10:00 UTC */
	{ "deepseek/deepseek-flash", "2026-11-20 09:59", 300000, "2026-11-20 10:00" },
	{ "deepseek/deepseek-flash", "2026-11-20 10:00", 150000, "2026-11-23 01:00" }, /* over the weekend */
	{ "deepseek/deepseek-flash", "2026-11-23 03:59", 300000, "2026-11-23 04:00" },
	{ "deepseek/deepseek-flash", "2026-11-23 04:00", 150000, "2026-11-23 06:00" },
	{ "deepseek/deepseek-v4-pro", "2026-08-16 15:59", -1, "2026-08-16 16:00" },
};

static void
prices_by_the_hour(void **state)
{
	(void)state;
	for (size_t i = 0; i < N(times); i++) {
		const struct sbx_catalog *of = model(c, times[i].model) ? c : builtin;
		const struct sbx_model *m = model(of, times[i].model);
		struct sbx_price p;
		int64_t when = at(times[i].when), next = sbx_price_next_change(&of->facts, m, when), got = -1;
		if (sbx_price_at(&of->facts, m, when, &p))
			got = sbx_price_of(&p, SBX_PRICE_INPUT, 0) / 1000;
		int64_t want_next = times[i].next ? at(times[i].next) : SBX_PRICE_FOREVER;
		if (got != times[i].want || next != want_next)
			fail_msg("%s at %s: %lld, next in %lld s instead of %lld", times[i].model, times[i].when, (long long)got, (long long)(next - when),
			         (long long)(want_next - when));
	}
}

/* For every quarter of an hour of two years: the next change is the next instant whose price differs. */
static void
the_next_change_is_the_next(void **state)
{
	static const char *const names[] = { "p/night", "p/eu", "p/us" };
	(void)state;
	for (size_t i = 0; i < N(names); i++) {
		const struct sbx_model *m = model(c, names[i]);
		int64_t t = at("2026-01-02 00:00"), end = at("2028-01-01 00:00"), next = t;
		struct sbx_price before = { 0 }, p;
		for (; t < end; t += 900) {
			assert_true(sbx_price_at(&c->facts, m, t, &p));
			if (before.tier && p.tier != before.tier && next != t)
				fail_msg("%s changes at %lld, said %lld", names[i], (long long)t, (long long)next);
			if (t == next && before.tier && p.tier == before.tier)
				fail_msg("%s does not change at %lld", names[i], (long long)t);
			if (t >= next || !before.tier)
				next = sbx_price_next_change(&c->facts, m, t);
			before = p;
		}
	}
}

/* ---- before a request is sent ---- */

static void
estimates_are_upper_bounds(void **state)
{
	static const struct {
		const char *model;
		struct sbx_estimate e;
		enum sbx_cost_status status;
		int64_t want;
	} cases[] = {
		/* dearest way to read is a cache write, to write plain output; and the fee */
		{ "p/kinds", { 1000, 100, 1, false }, SBX_COST_KNOWN, 1000 * 1250 + 100 * 5000 + 5000000 },
		{ "p/kinds", { 1000, 100, 3, false }, SBX_COST_KNOWN, 1000 * 1250 + 300 * 5000 + 5000000 },
		{ "p/kinds", { 1000, -1, 1, false }, SBX_COST_KNOWN, 1000 * 1250 + 1000 * 5000 + 5000000 },   /* the model's most */
		{ "p/kinds", { 1000, 99999, 1, false }, SBX_COST_KNOWN, 1000 * 1250 + 1000 * 5000 + 5000000 },
		{ "p/kinds", { 1u << 30, 0, 1, false }, SBX_COST_KNOWN, 100000 * 1250 + 5000000 },            /* no more than its context */
		{ "p/kinds", { 10, 0, 1, true }, SBX_COST_KNOWN, 100000 * 1250 + 5000000 },                   /* an image is not its bytes */
		{ "p/tiers", { 200000, 10, 1, false }, SBX_COST_KNOWN, 200000 * 3000 + 10 * 9000 },
		{ "p/tiers", { 100000, 10, 1, false }, SBX_COST_KNOWN, 100000 * 2000 + 10 * 2000 },
		{ "p/tiny", { 1000, -1, 1, false }, SBX_COST_UNBOUNDED, 0 },
		{ "p/tiny", { 1000, 10, 1, true }, SBX_COST_UNBOUNDED, 0 },
		{ "p/input-only", { 1000, 10, 1, false }, SBX_COST_UNPRICED, 0 },
		{ "p/dear", { HUGE_TOKENS, HUGE_TOKENS, 128, false }, SBX_COST_TOO_LARGE, 0 },
	};
	(void)state;
	for (size_t i = 0; i < N(cases); i++) {
		struct sbx_price p;
		struct sbx_amounts a;
		int64_t got = -7, again;
		const struct sbx_model *m = model(c, cases[i].model);
		assert_true(sbx_price_at(&c->facts, m, at("2026-07-01 00:00"), &p));
		enum sbx_cost_status s = sbx_price_estimate(&p, m, &cases[i].e, &a, &got);
		if (s != cases[i].status || got != (s == SBX_COST_KNOWN ? cases[i].want : -7))
			fail_msg("%zu %s: %d %lld", i, cases[i].model, s, (long long)got);
		if (s == SBX_COST_KNOWN) { /* the bill's own function agrees */
			assert_int_equal(sbx_price_cost(&p, &a, &again), SBX_COST_KNOWN);
			assert_true(again <= got);
		}
	}
}

static void
rank_orders_offers(void **state)
{
	(void)state;
	int64_t now = at("2026-07-01 00:00");
	assert_int_equal(sbx_price_rank(&c->facts, model(c, "p/kinds"), now), INT64_C(3) * 1000000000 + INT64_C(5000000000));
	assert_int_equal(sbx_price_rank(&c->facts, model(c, "p/nothing"), now), INT64_MAX);
	assert_int_equal(sbx_price_rank(&c->facts, model(c, "p/input-only"), now), INT64_MAX);
	assert_int_equal(sbx_price_rank(NULL, NULL, now), INT64_MAX);
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sums_are_exact),
		cmocka_unit_test(odd_figures),
		cmocka_unit_test(every_kind_has_its_price),
		cmocka_unit_test(what_an_attempt_costs),
		cmocka_unit_test(stream_and_body_cost_the_same),
		cmocka_unit_test(prices_by_the_hour),
		cmocka_unit_test(the_next_change_is_the_next),
		cmocka_unit_test(estimates_are_upper_bounds),
		cmocka_unit_test(rank_orders_offers),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
