/* SPDX-License-Identifier: Apache-2.0 */
/*
 * facts.h -- what is known about models before anybody asks them: limits, capabilities, prices.
 *
 * Built by agent/catalog.c, never changed afterwards. A model has any number of price rows; each is valid from one instant to
 * another, and no two of a model overlap: at any time at most one says what it costs. A row's prices may depend on the size of
 * the prompt (tiers) and on the hour and weekday in the provider's zone (windows); each window has tiers of its own.
 *
 *   model --> row (dates, zone, where it was read) --> tiers                   at all times that no window names
 *                                                 `--> window (hours) --> tiers
 *
 * Prices are int64 nano-USD per million tokens (USD per token times 10^15, so that every published price is exact), of a
 * request per million requests. SBX_PRICE_NONE is "no price is known", which is never the same as 0.
 *
 * A zone is a fixed distance from UTC and, where the place has it, the daylight rule of the EU or of the USA, computed from the
 * date: no time zone database is needed. Other daylight rules are not known here; such a provider's windows are to be written
 * in UTC with dated rows.
 */
#ifndef SBX_AGENT_CORE_FACTS_H
#define SBX_AGENT_CORE_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "client/span.h"

#define SBX_MODELS_MAX 4096        /* as many as targets; a whole public price list has about 3,000 */
#define SBX_MODEL_ROWS_MAX 64      /* dated price rows of one model: five years of monthly changes */
#define SBX_PRICE_WINDOWS_MAX 16   /* of one row */
#define SBX_PRICE_TIERS_MAX 8      /* of one row or window, the first included */
#define SBX_PRICE_NONE (-1)
#define SBX_PRICE_FOREVER INT64_MAX

/* X(NAME, "key", what is charged where this kind has no price of its own). The keys are those of LiteLLM's price list. What a
 * provider does not list apart it bills with the rest: cached and written tokens as input, reasoning as output. Only a fee for a
 * request may be missing without being unknown (FREE). NONE: without a price of its own such an amount has no known cost. */
#define SBX_PRICE_KINDS(X)                                                                                                     \
	X(INPUT, "input_cost_per_token", NONE)                           /* read for the first time */                         \
	X(CACHE_READ, "cache_read_input_token_cost", INPUT)              /* read from the provider's cache */                  \
	X(CACHE_WRITE, "cache_creation_input_token_cost", INPUT)         /* written to it, for 5 minutes or unspecified */     \
	X(CACHE_WRITE_1H, "cache_creation_input_token_cost_above_1hr", NONE)                                                   \
	X(OUTPUT, "output_cost_per_token", NONE)                                                                               \
	X(REASONING, "output_cost_per_reasoning_token", OUTPUT)                                                                \
	X(AUDIO_INPUT, "input_cost_per_audio_token", NONE)                                                                     \
	X(AUDIO_OUTPUT, "output_cost_per_audio_token", NONE)                                                                   \
	X(IMAGE_INPUT, "input_cost_per_image_token", NONE)                                                                     \
	X(BATCH_INPUT, "input_cost_per_token_batches", NONE)             /* of a batch job, whole */                           \
	X(BATCH_OUTPUT, "output_cost_per_token_batches", NONE)                                                                 \
	X(REQUEST, "input_cost_per_request", FREE)                       /* a fee for each request */
enum sbx_price_kind {
#define X(name, key, otherwise) SBX_PRICE_##name,
	SBX_PRICE_KINDS(X)
#undef X
	SBX_PRICE__COUNT
};

enum sbx_dst { SBX_DST_NONE, SBX_DST_EU, SBX_DST_US };
struct sbx_price_zone {
	int32_t offset_s;          /* standard time is UTC plus this */
	enum sbx_dst dst;
};

struct sbx_price_tier {
	int64_t above_tokens;      /* valid for prompts of more tokens than this; the first tier has -1 */
	int64_t nanousd[SBX_PRICE__COUNT];
};

struct sbx_price_window {
	uint16_t from_min, to_min; /* minutes of the local day, 0 to 1440, to exclusive; to <= from: it ends on the next day */
	uint8_t weekdays;          /* bit 0 Monday: the days on which it begins */
	uint8_t n_tiers;
	uint32_t first_tier;
};

struct sbx_price_row {
	char *id;                  /* "provider/model@2026-08-21": what is stored with an attempt */
	int64_t from_unix_s, until_unix_s; /* until is exclusive; SBX_PRICE_FOREVER = no end is known */
	struct sbx_price_zone zone;
	uint32_t first_tier, first_window;
	uint8_t n_tiers, n_windows;
	char *source;              /* where the prices were read */
	char *read_on;             /* and when, "2026-11-15" */
};

enum { /* sbx_model.caps */
	SBX_MODEL_REASONING = 1,     /* can think before it answers */
	SBX_MODEL_REASONS = 2,       /* and does, unless told not to */
	SBX_MODEL_PREFILL = 4,       /* goes on from an assistant's message that was begun */
	SBX_MODEL_TOOLS = 8,
	SBX_MODEL_VISION = 16,
	SBX_MODEL_JSON_SCHEMA = 32,
};

struct sbx_model {
	char *name;                /* "provider/model" */
	char *model;               /* its second half; into name */
	uint32_t provider_bytes;   /* of the first half */
	char *same_as;             /* the name that all of the same model share; NULL = its own */
	int64_t context_tokens, max_output_tokens; /* 0 = not known */
	uint32_t caps;
	bool says_caps;            /* the list says what it can do: what is not in caps it cannot, but for PREFILL, which few sources tell */
	uint32_t first_row, n_rows; /* in the order of their dates */
};

struct sbx_facts {
	struct sbx_model *model;   /* sorted by name */
	struct sbx_price_row *row;
	struct sbx_price_window *window;
	struct sbx_price_tier *tier;
	uint32_t n_models, n_rows, n_windows, n_tiers;
};

/* The model of "provider/model"; NULL when nothing is known of it, also where facts is NULL. */
const struct sbx_model *sbx_facts_find(const struct sbx_facts *facts, struct sbx_span name);
const char *sbx_model_group(const struct sbx_model *m); /* the name under which all offers of the same model are found */

#endif
