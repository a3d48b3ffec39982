/* SPDX-License-Identifier: Apache-2.0 */
/*
 * world.c -- scripted providers and their weather; see world.h.
 */
#include "tests/sim/world.h"

#include <stddef.h>
#include <string.h>

#define MS ((uint64_t)1000000)
#define S ((uint64_t)1000000000)

const struct sim_plan_row sim_plans[SIM_PLAN__COUNT] = {
#define X(name, weight, reach, tail, transport, status, error, costs)                                                          \
	[SIM_PLAN_##name] = { #name, weight, reach, tail, SBX_TRANSPORT_##transport, status, error, costs },
	SIM_PLANS(X)
#undef X
};

uint64_t
sim_random(struct sim_world *w, uint64_t n)
{
	uint64_t z = w->random += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % n;
}

bool
sim_chance(struct sim_world *w, unsigned percent)
{
	return sim_random(w, 100) < percent;
}

static enum sim_plan
draw_plan(struct sim_world *w)
{
	unsigned sum = 0;

	for (int i = 0; i < SIM_PLAN__COUNT; i++)
		sum += sim_plans[i].weight;
	uint64_t at = sim_random(w, sum);
	for (int i = 0; i < SIM_PLAN__COUNT; i++) {
		if (at < sim_plans[i].weight)
			return (enum sim_plan)i;
		at -= sim_plans[i].weight;
	}
	return SIM_PLAN_HEALTHY;
}

/* Most worlds run on the defaults; some on limits that a configuration could set, to reach the borders more often. */
static struct sbx_policy
draw_policy(struct sim_world *w)
{
	struct sbx_policy p = sbx_policy_default();

	if (sim_chance(w, 70))
		return p;
	p.attempts_max = (uint8_t)(1 + sim_random(w, 5));
	p.attempts_per_target = (uint8_t)(1 + sim_random(w, 3));
	p.replay_uncertain = sim_chance(w, 70);
	if (sim_chance(w, 30))
		p.wait_max_ns = sim_random(w, 10) * S;
	if (sim_chance(w, 30))
		p.wait_short_ns = 0;
	if (sim_chance(w, 30))
		p.idle_content_ns = p.idle_bytes_ns / 2;
	return p;
}

void
sim_world_init(struct sim_world *w, uint64_t seed)
{
	memset(w, 0, sizeof(*w));
	w->random = seed * 0x2545f4914f6cdd1dull + 1;
	w->tables.provider = w->provider;
	w->tables.credential = w->credential;
	w->tables.target = w->target;
	w->tables.n_providers = (uint32_t)(1 + sim_random(w, SIM_PROVIDERS_MAX));
	for (uint32_t i = 0; i < w->tables.n_providers; i++) {
		struct sbx_provider *p = &w->provider[i];

		p->name = "provider";
		p->policy = draw_policy(w);
		p->first_credential = w->tables.n_credentials;
		p->n_credentials = (uint32_t)sim_random(w, SIM_KEYS_MAX + 1);
		p->auth = p->n_credentials > 0 ? SBX_AUTH_BEARER : SBX_AUTH_NONE;
		for (uint32_t k = 0; k < p->n_credentials; k++)
			w->credential[w->tables.n_credentials++].provider = (uint16_t)i;
	}
	w->tables.n_targets = (uint32_t)(1 + sim_random(w, SIM_TARGETS_MAX));
	for (uint32_t i = 0; i < w->tables.n_targets; i++) {
		struct sbx_target *t = &w->target[i];

		t->name = "provider/model";
		t->model = "model";
		t->provider = (uint16_t)sim_random(w, w->tables.n_providers);
		t->reasoning = sim_chance(w, 20);
		t->context_tokens = (int64_t)sim_random(w, 4) * 32768; /* 0 = unknown */
	}
}

void
sim_world_clear_up(struct sim_world *w)
{
	for (int i = 0; i < SIM_TARGETS_MAX; i++) {
		w->weather[i].kind = SIM_FAIR;
		w->weather[i].until_ns = UINT64_MAX;
	}
}

static int64_t
draw_retry_after(struct sim_world *w)
{
	if (sim_chance(w, 1))
		return (int64_t)(277403 * S); /* 77 hours: seen in the wild */
	switch (sim_random(w, 5)) {
	case 0: return 0;
	case 1: return (int64_t)(sim_random(w, 2000) * MS);
	case 2: return (int64_t)(sim_random(w, 130) * S);
	default: return -1;
	}
}

void
sim_script_draw(struct sim_world *w, struct sim_script *script, uint32_t target, bool stream, uint64_t now_ns)
{
	if (now_ns >= w->weather[target].until_ns) {
		const uint64_t dice = sim_random(w, 100);

		w->weather[target].kind = dice < 35 ? SIM_FAIR : dice < 65 ? SIM_STORM : SIM_MIXED;
		do /* a storm that takes the keys away for long would only make a dull world; single such answers come anyway */
			w->weather[target].plan = draw_plan(w);
		while (w->weather[target].plan == SIM_PLAN_WRONG_KEY || w->weather[target].plan == SIM_PLAN_NO_MONEY);
		w->weather[target].until_ns = now_ns + (1 + sim_random(w, 90)) * S;
	}
	memset(script, 0, sizeof(*script));
	script->live = true;
	script->retry_after_ns = -1;
	if (w->weather[target].kind == SIM_STORM)
		script->plan = w->weather[target].plan;
	else if (w->weather[target].kind == SIM_MIXED)
		script->plan = draw_plan(w);

	const struct sim_plan_row *p = &sim_plans[script->plan];
	if (p->reach >= SIM_CONTENT)
		script->tokens = (uint8_t)(1 + sim_random(w, 6));
	if (p->reach == SIM_COMPLETE && sim_chance(w, 5))
		script->tokens = 0; /* an empty answer is an answer */
	script->pace_ms = (uint32_t)(1 + sim_random(w, stream ? 400 : 200));
	if (script->plan == SIM_PLAN_SLOW)
		script->pace_ms *= 40;
	if (p->status == 429 || p->status == 529)
		script->retry_after_ns = draw_retry_after(w);
}

struct sim_act
sim_script_act(struct sim_world *w, struct sim_script *script)
{
	const struct sim_plan_row *p = &sim_plans[script->plan];
	struct sim_act act = { false, SBX_REQ_EV_BYTES, script->pace_ms * MS };

	if (p->reach >= SIM_CONNECTED && !script->connected) {
		script->connected = true;
		act.kind = SBX_REQ_EV_CONNECTED;
	} else if (p->reach >= SIM_SENT && !script->sent) {
		script->sent = true;
		act.kind = SBX_REQ_EV_SENT;
	} else if (p->reach >= SIM_CONTENT && !script->pinged) {
		script->pinged = true; /* a role delta or a ping comes first */
	} else if (script->told < script->tokens) {
		script->told++;
		act.kind = SBX_REQ_EV_CONTENT;
	} else if (p->reach == SIM_COMPLETE && !script->completed) {
		script->completed = true;
		act.kind = SBX_REQ_EV_COMPLETE;
		act.pause_ns = sim_random(w, 500) * MS; /* below after_finish: what a script ends with is heard */
	} else if (p->tail == SIM_ENDS) {
		script->live = false;
		act = (struct sim_act){ false, SBX_REQ_EV_ENDED, UINT64_MAX };
	} else if (p->tail == SIM_COMMENTS) {
		act.pause_ns = (1 + sim_random(w, 15)) * S;
	} else if (p->tail == SIM_TRICKLES) {
		act.kind = SBX_REQ_EV_CONTENT;
		script->tokens++;
		script->told++;
		act.pause_ns = (1 + sim_random(w, 15)) * S;
		if (script->told == UINT8_MAX) { /* it has run for half an hour: no deadline of ours is as long */
			script->live = false;
			act = (struct sim_act){ false, SBX_REQ_EV_ENDED, UINT64_MAX };
		}
	} else {
		act = (struct sim_act){ true, SBX_REQ_EV_BYTES, UINT64_MAX };
	}
	return act;
}

void
sim_script_end(const struct sim_script *script, struct sbx_end *end, struct sbx_provider_error *error)
{
	const struct sim_plan_row *p = &sim_plans[script->plan];

	memset(end, 0, sizeof(*end));
	memset(error, 0, sizeof(*error));
	end->transport = p->transport;
	end->sent = script->sent;
	end->got_bytes = script->pinged || p->status != 0;
	end->got_content = script->told > 0;
	end->complete = script->completed;
	end->status = p->status;
	end->retry_after_ns = script->retry_after_ns;
	if (p->error >= 0) {
		error->kind = (enum sbx_error_kind)p->error;
		error->status = p->status;
		error->retry_after_ns = -1;
		end->error = error;
	}
}
