/* SPDX-License-Identifier: Apache-2.0 */
/* warm.c -- see warm.h. One timer for all; each of the few places holds one warm-up that is under way. */
#include "agent/io/warm.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <signalbox/errors.h>

#include "agent/core/warm.h"
#include "agent/log.h"

#define BEGIN_NS 100000000ull /* after the start: reading the CA bundle takes the loop 20 ms, which the first requests shall not wait for */

struct warm_call {
	struct sbx_agent *agent;
	struct sbx_call *call;   /* NULL = the place is free */
	uint32_t provider;
};

struct sbx_warmer {
	struct sbx_world *world; /* one reference; `plan` has a row for each of its providers */
	struct sbx_warm *plan;
	struct sbx_timer timer;
	struct warm_call place[SBX_WARM_AT_ONCE];
};

static uint32_t
room_of(const struct sbx_warmer *w)
{
	uint32_t n = 0;
	for (uint32_t i = 0; i < SBX_WARM_AT_ONCE; i++)
		n += w->place[i].call == NULL;
	return n;
}

static void
arm(struct sbx_agent *agent)
{
	struct sbx_warmer *w = agent->warmer;
	uint64_t next_ns = sbx_warm_next_ns(w->plan, room_of(w));
	if (next_ns == UINT64_MAX)
		sbx_timer_cancel(&agent->timers, &w->timer);
	else
		sbx_timer_arm(&agent->timers, &w->timer, next_ns);
}

/* Of the targets that were asked at all, one has to be well. */
static bool
is_well(const struct sbx_world *world, uint32_t provider, uint64_t now_ns)
{
	const struct sbx_tables *t = &world->config->tables;
	bool asked = false;
	for (uint32_t i = 0; i < t->n_targets + SBX_TARGETS_ADHOC_MAX; i++) {
		const struct sbx_target *target = sbx_router_target(&world->router, i);
		if (!target || target->provider != provider || !sbx_health_target(world->health, i)->attempts)
			continue;
		if (sbx_health_gate(world->health, t, i, target->provider, 0, now_ns).gate == SBX_GATE_YES)
			return true;
		asked = true;
	}
	return !asked;
}

/* ---- one warm-up ---- */

static void
on_head(void *arg, int status, const char *content_type)
{
	(void)arg;
	(void)status;
	(void)content_type;
}

static void
ended(struct sbx_agent *agent, uint32_t provider, bool good, const char *says)
{
	const char *name = agent->warmer->world->config->tables.provider[provider].name;
	if (good)
		agent->count.warm_ups++;
	else
		agent->count.warm_ups_failed++;
	switch (sbx_warm_on_end(agent->warmer->plan, provider, good, sbx_loop_now_ns(agent->loop))) {
	case SBX_WARM_AS_BEFORE:
		break;
	case SBX_WARM_BROKE:
		sbx_log(SBX_LOG_WARNING, "warm_up_failed", SBX_STR("provider", name), SBX_STR("says", says));
		break;
	case SBX_WARM_HEALED:
		sbx_log(SBX_LOG_NOTICE, "warm_up_well", SBX_STR("provider", name));
		break;
	}
}

/* Any answer shows a connection that stands, a refusal of the nameless included; but one that says "too much" or "not now" is
 * heard. */
static void
on_end(void *arg, const struct sbx_call_end *end)
{
	struct warm_call *place = arg;
	struct sbx_agent *agent = place->agent;
	char status[32];
	(void)snprintf(status, sizeof status, "status %d", end->status);
	place->call = NULL; /* gone after this */
	ended(agent, place->provider, end->transport == SBX_TRANSPORT_OK && end->status < 500 && end->status != 429,
	      end->transport == SBX_TRANSPORT_OK ? status : end->message);
	arm(agent);
}

static const struct sbx_call_ops ops = { .on_head = on_head, .on_end = on_end };

static void
start_one(struct sbx_agent *agent, uint32_t provider)
{
	struct sbx_warmer *w = agent->warmer;
	const struct sbx_provider *p = &w->world->config->tables.provider[provider];
	struct warm_call *place = w->place;
	while (place->call)
		place++; /* there is room: the round was taken for it */
	place->agent = agent;
	place->provider = provider;
	if (sbx_call_start_warm(w->world->lane[p->first_credential], &ops, place, &place->call))
		ended(agent, provider, false, "out of memory");
}

static void
on_timer(void *arg, uint64_t now_ns)
{
	struct sbx_agent *agent = arg;
	struct sbx_warmer *w = agent->warmer;
	uint32_t provider, n;
	while (sbx_warm_take(w->plan, room_of(w), now_ns, &provider, &n)) {
		if (!is_well(w->world, provider, now_ns)) {
			sbx_warm_pass(w->plan, provider, now_ns);
			continue;
		}
		while (n--)
			start_one(agent, provider);
	}
	arm(agent);
}

/* ---- life ---- */

static struct sbx_warm *
plan_new(struct sbx_agent *agent)
{
	const struct sbx_world *world = agent->world;
	const struct sbx_tables *t = &world->config->tables;
	uint64_t begin_ns = sbx_loop_now_ns(agent->loop) + BEGIN_NS;
	bool routed[SBX_PROVIDERS_MAX] = { false };
	struct sbx_warm *plan = sbx_warm_new(t->n_providers, agent->seed);
	if (!plan)
		return NULL;
	for (uint32_t i = 0; i < t->n_routes; i++)
		for (uint32_t k = 0; k < t->route[i].n_targets; k++)
			routed[t->target[t->route[i].target[k]].provider] = true;
	for (uint32_t i = 0; i < t->n_providers; i++) {
		const struct sbx_provider *p = &t->provider[i];
		uint32_t n = p->n_credentials ? p->policy.warm_connections : 0;
		if (n && sbx_lane_multiplexes(world->lane[p->first_credential]))
			n = 1;
		sbx_warm_set(plan, i, n, p->policy.warm_every_ns, p->policy.warm_after_use_ns, routed[i] ? begin_ns : UINT64_MAX);
	}
	return plan;
}

/* A provider that has been moved is another one. */
static void
carry_over(const struct sbx_warmer *old, struct sbx_warm *plan, const struct sbx_tables *now, uint64_t now_ns)
{
	const struct sbx_tables *was = &old->world->config->tables;
	for (uint32_t i = 0; i < now->n_providers; i++)
		for (uint32_t k = 0; k < was->n_providers; k++)
			if (strcmp(now->provider[i].name, was->provider[k].name) == 0 && strcmp(now->provider[i].base_url, was->provider[k].base_url) == 0)
				sbx_warm_carry(plan, i, old->plan, k, now_ns);
}

static void
drop_calls(struct sbx_warmer *w)
{
	for (uint32_t i = 0; i < SBX_WARM_AT_ONCE; i++) {
		if (w->place[i].call)
			sbx_call_abort(w->place[i].call);
		w->place[i].call = NULL;
	}
}

int
sbx_warmer_begin(struct sbx_agent *agent)
{
	struct sbx_warmer *w = agent->warmer;
	struct sbx_warm *plan = plan_new(agent);
	if (!w && plan)
		w = calloc(1, sizeof *w);
	if (!plan || !w) {
		sbx_warm_free(plan);
		sbx_warmer_end(agent); /* what it has is of a world that is gone */
		return -SBX_ENOMEM;
	}
	if (w->plan) {
		drop_calls(w);
		carry_over(w, plan, &agent->world->config->tables, sbx_loop_now_ns(agent->loop));
		sbx_warm_free(w->plan);
		sbx_world_put(w->world);
	}
	w->plan = plan;
	w->world = sbx_world_get(agent->world);
	w->timer.fire = on_timer;
	w->timer.arg = agent;
	agent->warmer = w;
	arm(agent);
	return 0;
}

void
sbx_warmer_on_use(struct sbx_agent *agent, const struct sbx_world *world, uint16_t provider)
{
	struct sbx_warmer *w = agent->warmer;
	if (w && w->world == world && sbx_warm_on_use(w->plan, provider, sbx_loop_now_ns(agent->loop)))
		arm(agent);
}

void
sbx_warmer_end(struct sbx_agent *agent)
{
	struct sbx_warmer *w = agent->warmer;
	if (!w)
		return;
	agent->warmer = NULL;
	drop_calls(w);
	sbx_timer_cancel(&agent->timers, &w->timer);
	sbx_warm_free(w->plan);
	sbx_world_put(w->world);
	free(w);
}
