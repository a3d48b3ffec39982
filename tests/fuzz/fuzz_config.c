/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_config.c -- any bytes as a configuration: never a crash or a leak, an error has a message, and what was accepted
 * refers to itself consistently.
 */
#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "agent/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

static void
check(const struct sbx_config *c)
{
	const struct sbx_tables *t = &c->tables;
	assert(t->n_providers <= SBX_PROVIDERS_MAX && t->n_targets <= SBX_TARGETS_MAX && t->n_routes <= SBX_ROUTES_MAX);
	for (uint32_t i = 0; i < t->n_providers; i++) {
		const struct sbx_provider *p = &t->provider[i];
		assert(p->name && p->base_url && p->dialect && !strchr(p->name, '/'));
		assert(p->n_credentials <= SBX_KEYS_MAX && p->first_credential + p->n_credentials <= t->n_credentials);
		for (uint32_t k = 0; k < p->n_credentials; k++) {
			const struct sbx_credential *cred = &t->credential[p->first_credential + k];
			assert(cred->provider == i && cred->source);
			assert((p->auth == SBX_AUTH_NONE) == !cred->secret);
		}
		assert(strncmp(p->base_url, "https://", 8) == 0 || strncmp(p->base_url, "http://", 7) == 0);
	}
	for (uint32_t i = 0; i < t->n_targets; i++)
		assert(t->target[i].provider < t->n_providers && strlen(t->target[i].model) <= SBX_MODEL_MAX_BYTES);
	for (uint32_t i = 0; i < t->n_routes; i++) {
		assert(t->route[i].n_targets >= 1 && t->route[i].n_targets <= SBX_ROUTE_TARGETS_MAX);
		for (uint32_t k = 0; k < t->route[i].n_targets; k++)
			assert(t->route[i].target[k] < t->n_targets);
	}
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
	static struct sbx_config_messages errors;
	struct sbx_vault vault;
	sbx_vault_init(&vault);
	struct sbx_config_opts opts = { .vault = &vault };
	struct sbx_config *c = NULL;
	int rc = sbx_config_parse("fuzz", (const char *)data, bytes, &opts, &c, &errors);
	assert((rc == 0) == (c != NULL));
	assert(rc == 0 ? errors.n == 0 : errors.n > 0);
	if (c)
		check(c);
	sbx_config_free(c);
	sbx_config_messages_fini(&errors);
	sbx_vault_fini(&vault);
	return 0;
}
