/* SPDX-License-Identifier: Apache-2.0 */
/*
 * providers.h -- the providers that signalbox knows by name, and which models reason.
 *
 * A known provider needs nothing but a key in the configuration, or nothing at all when its usual variable is set. The
 * table holds only what differs between them; whatever it says, the configuration may say otherwise.
 */
#ifndef SBX_AGENT_PROVIDERS_H
#define SBX_AGENT_PROVIDERS_H

#include <stdbool.h>
#include <stddef.h>

#include "agent/core/tables.h"

#define SBX_KNOWN_KEY_VARS_MAX 3

struct sbx_known_provider {
	const char *name;
	const char *base_url;  /* NULL: differs for each customer, the configuration has to say it */
	const char *key_var[SBX_KNOWN_KEY_VARS_MAX]; /* usual variables, the first that is set counts; NULL = no more */
	const char *host_var;  /* a variable with the server's address, which also enables the provider; NULL = none */
	enum sbx_auth auth;
	const char *dialect;   /* NULL = "openai-chat" */
	bool key_optional;     /* usable without a key */
	struct sbx_quirks quirks;
	uint32_t lacks;        /* bit n: its dialect has operation n, but it has not */
};

extern const struct sbx_known_provider sbx_known_providers[];
extern const size_t sbx_known_providers_n;

const struct sbx_known_provider *sbx_known_provider_find(const char *name); /* NULL: not known */
const struct sbx_dialect *sbx_known_provider_dialect(const struct sbx_known_provider *p);

/* Does a model of that name think before it answers unless told not to? Known families only, by pattern; vendor prefixes
 * ("openai/o3-mini") do not matter. Decides how long the first content is waited for. */
bool sbx_model_reasons(const char *model);

#endif
