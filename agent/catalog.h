/* SPDX-License-Identifier: Apache-2.0 */
/*
 * catalog.h -- the list of known models: from JSON to struct sbx_facts (agent/core/facts.h).
 *
 * One list is built in (agent/catalog.json, part of the program). A file may say more, or say it differently: a model that it
 * names replaces the built-in one of that name, whole. The file is JSON with // comments:
 *
 *   { "models": [
 *       { "model": "deepseek/deepseek-flash",         provider (as in the configuration) and model, as the provider calls it
 *         "same_as": "deepseek-flash",                 the name that all offers of the same model share; absent = its own
 *         "context": 1000000, "max_output": 393216,    tokens; absent = not known
 *         "supports": ["function_calling", ...],       reasoning, reasoning_by_default, assistant_prefill, function_calling,
 *                                                      vision, response_schema. What is not named it cannot do (but for prefill);
 *                                                      absent = not known
 *         "prices": [
 *           { "from": "2026-10-17", "until": "...",    in UTC, "2026-10-17" or "2026-10-17T16:00Z"; until is exclusive
 *             "source": "https://...", "read_on": "2026-11-15",
 *             "input_cost_per_token": 1.5e-07, ...     USD per token, the keys of LiteLLM's price list; exact, never rounded
 *             "tiers": [ { "above_input_tokens": 200000, "input_cost_per_token": ... } ],
 *             "zone": "UTC",                           "UTC+08:00"; "UTC+01:00/EU" and "UTC-05:00/US" with daylight time
 *             "windows": [ { "hours": ["22:30-06:00"], "weekdays": "mon-fri,sun", "input_cost_per_token": ... } ],
 *             "note": "..." } ] } ] }
 *
 * A tier or window takes from its row what it does not name; a window of a row that has tiers names its own.
 *
 * What is wrong in a list is refused by itself, with its line and the reason: a price row with a mistake in it, or a model
 * whose other members have one. The rest is used. Only a file that is no such list at all (unreadable, no JSON) is an error.
 */
#ifndef SBX_AGENT_CATALOG_H
#define SBX_AGENT_CATALOG_H

#include <stddef.h>

#include "agent/config.h"
#include "agent/core/facts.h"

#define SBX_CATALOG_MAX_BYTES (16u << 20) /* 4,096 models with a few prices each are 4 MiB */
#define SBX_PRICE_MAX_USD_PER_TOKEN "0.01"   /* 10,000 USD a million: somebody wrote USD per million */
#define SBX_PRICE_MAX_USD_PER_REQUEST "100"

struct sbx_catalog {
	struct sbx_facts facts;
	uint32_t n_refused;         /* rows and models */
};

/* The list that is built in, as text. */
extern const char sbx_catalog_builtin[], sbx_catalog_builtin_end[];

/* path: a file beside the built-in list; NULL = none. ret_refused gets a message for each thing refused (severity ERROR).
 * Returns 0, -SBX_ENOMEM, or -SBX_ESYNTAX: the file is no list; `why` is a sentence without its name. */
int sbx_catalog_load(const char *path, struct sbx_config_messages *ret_refused, struct sbx_catalog **ret_catalog, char *why, size_t why_bytes);
/* One list in memory, without the built-in one. The text is copied. */
int sbx_catalog_parse(const char *name, const char *text, size_t n, struct sbx_config_messages *ret_refused,
                      struct sbx_catalog **ret_catalog, char *why, size_t why_bytes);
void sbx_catalog_free(struct sbx_catalog *c); /* NULL is fine */

#endif
