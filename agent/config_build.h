/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_build.h -- what config.c and config_provider.c share while one configuration is being built. Private to them.
 *
 * Order: top-level times and counts, then the providers of the file, then those that the environment enables, then
 * routes, which refer to both.
 */
#ifndef SBX_AGENT_CONFIG_BUILD_H
#define SBX_AGENT_CONFIG_BUILD_H

#include "agent/config.h"
#include "agent/config_read.h"
#include "agent/providers.h"

struct sbx_build {
	struct sbx_reader r;
	struct sbx_vault *vault;
	bool home_store;              /* as in sbx_config_opts */
	struct sbx_config *c; /* what is being built */
	uint32_t target_cap;  /* rows allocated of c->tables.target; it doubles */
	/* Known providers that the file mentions, also to keep them out; by index of sbx_known_providers. */
	bool mentioned[SBX_PROVIDERS_MAX];
};

/* "timeouts", "attempts" and "replay_uncertain" into a policy that already holds the defaults. top: of the whole file,
 * where the count of all attempts of a request is set too. Absent spans change nothing. */
void sbx_build_policy(struct sbx_build *b, struct sbx_span timeouts, struct sbx_span attempts, bool top, struct sbx_policy *policy);

/* "warm": false, true, or an object, into such a policy. An absent span changes nothing. */
void sbx_build_warm(struct sbx_build *b, struct sbx_span warm, struct sbx_policy *policy);

void sbx_build_providers(struct sbx_build *b, struct sbx_span providers); /* of the file; an absent span is fine */
void sbx_build_environment(struct sbx_build *b);                          /* the others whose variable is set */

/* The row of a known provider that the file does not mention, with everything usual; not usable when its key is not set.
 * UINT32_MAX when out of memory or rows; it said so. */
uint32_t sbx_build_known(struct sbx_build *b, struct sbx_span at, const struct sbx_known_provider *known);

/* The row of "provider/model", made if there is none. UINT32_MAX when out of memory or rows; it said so. */
uint32_t sbx_build_target(struct sbx_build *b, struct sbx_span at, uint32_t provider, const char *model);

#endif
