/* SPDX-License-Identifier: Apache-2.0 */
/* world.c -- see world.h. */
#include "agent/io/world.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/providers.h"

/* The same target in the sense of health: same provider at the same address, same model. */
static bool
same_target(const struct sbx_tables *a, const struct sbx_target *ta, const struct sbx_tables *b, const struct sbx_target *tb)
{
	return strcmp(ta->name, tb->name) == 0 && strcmp(a->provider[ta->provider].base_url, b->provider[tb->provider].base_url) == 0;
}

static bool
same_credential(const struct sbx_tables *a, const struct sbx_credential *ca, const struct sbx_tables *b, const struct sbx_credential *cb)
{
	return strcmp(a->provider[ca->provider].name, b->provider[cb->provider].name) == 0 &&
	       memcmp(ca->fingerprint, cb->fingerprint, sizeof ca->fingerprint) == 0;
}

/* Quadratic in the worst case, but rows mostly keep their place: the search starts where the last one was found. */
static void
carry_over(struct sbx_world *w, const struct sbx_world *old)
{
	const struct sbx_tables *now = &w->config->tables, *was = &old->config->tables;
	uint32_t from = 0;
	for (uint32_t i = 0; i < now->n_targets; i++)
		for (uint32_t tried = 0; tried < was->n_targets; tried++, from++) {
			from %= was->n_targets;
			if (same_target(now, &now->target[i], was, &was->target[from])) {
				sbx_health_carry_target(w->health, i, old->health, from++);
				break;
			}
		}
	for (uint32_t i = 0; i < now->n_credentials; i++)
		for (uint32_t k = 0; k < was->n_credentials; k++)
			if (same_credential(now, &now->credential[i], was, &was->credential[k]))
				sbx_health_carry_credential(w->health, i, old->health, k);
}

int
sbx_world_new(struct sbx_config *config, struct sbx_upstream *upstream, const struct sbx_world *old, uint64_t now_ns,
              struct sbx_world **ret_world)
{
	const struct sbx_tables *t = &config->tables;
	struct sbx_world *w = calloc(1, sizeof *w);
	if (!w) {
		sbx_config_free(config);
		return -SBX_ENOMEM;
	}
	w->refs = 1;
	w->config = config;
	w->health = sbx_health_new(t, now_ns);
	w->adhoc = sbx_adhoc_new(t, sbx_model_reasons);
	w->lane = calloc(t->n_credentials ? t->n_credentials : 1, sizeof *w->lane);
	if (!w->health || !w->adhoc || !w->lane)
		goto fail;
	for (uint32_t i = 0; i < t->n_credentials; i++) {
		const struct sbx_credential *c = &t->credential[i];
		w->lane[i] = sbx_lane_new(upstream, &t->provider[c->provider], c);
		if (!w->lane[i])
			goto fail;
	}
	w->router = (struct sbx_router){ .tables = t, .health = w->health, .adhoc = w->adhoc };
	w->judge = (struct sbx_judge){ t, w->health };
	if (old)
		carry_over(w, old);
	*ret_world = w;
	return 0;
fail:
	sbx_world_put(w);
	return -SBX_ENOMEM;
}

struct sbx_world *
sbx_world_get(struct sbx_world *w)
{
	w->refs++;
	return w;
}

void
sbx_world_put(struct sbx_world *w)
{
	if (!w)
		return;
	assert(w->refs > 0);
	if (--w->refs)
		return;
	for (uint32_t i = 0; w->lane && i < w->config->tables.n_credentials; i++)
		sbx_lane_close(w->lane[i]);
	free(w->lane);
	sbx_adhoc_free(w->adhoc);
	sbx_health_free(w->health);
	sbx_config_free(w->config);
	free(w);
}
