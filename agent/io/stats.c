/* SPDX-License-Identifier: Apache-2.0 */
/* stats.c -- see stats.h. */
#include "agent/io/stats.h"

#include <stdio.h>
#include <unistd.h>

#include "agent/io/store.h"
#include "client/wire.h"

#define STATS_TARGETS_MAX 1024 /* rows told in one frame; with all routes they must stay below the limit of elements */
_Static_assert(STATS_TARGETS_MAX * (2 + 2 * 11) + SBX_ROUTES_MAX * (2 + SBX_ROUTE_TARGETS_MAX) + 1024 < SBX_FRAME_ELEMENTS_MAX, "a frame holds them");

const char *
sbx_stats_state(const struct sbx_world *w, uint32_t row, const struct sbx_target *t)
{
	return w->config->tables.provider[t->provider].n_credentials ? sbx_breaker_word(sbx_health_target(w->health, row)->state) : "no key";
}

uint64_t
sbx_stats_throttled_ms(const struct sbx_target_health *h, uint64_t now_ns)
{
	uint64_t until_ns = 0;
	for (uint32_t k = 0; k < SBX_KEYS_MAX; k++)
		if (h->throttle_until_ns[k] > now_ns && (!until_ns || h->throttle_until_ns[k] < until_ns))
			until_ns = h->throttle_until_ns[k];
	return until_ns ? (until_ns - now_ns) / 1000000u : 0;
}

static void
pack_target(struct sbx_packer *p, const struct sbx_world *w, uint32_t row, const struct sbx_target *t, uint64_t now_ns)
{
	const struct sbx_target_health *h = sbx_health_target(w->health, row);
	uint32_t n;
	sbx_pack_map(p, t->name, 11);
	sbx_pack_str(p, "state", sbx_span_of(sbx_stats_state(w, row, t)));
	sbx_pack_uint(p, "in_flight", h->in_flight);
	sbx_pack_uint(p, "attempts", h->attempts);
	sbx_pack_uint(p, "successes", h->successes);
	sbx_pack_uint(p, "failures", h->failures_total);
	sbx_pack_uint(p, "refusals", h->refusals);
	sbx_pack_str(p, "why", sbx_span_of(h->state == SBX_BREAKER_CLOSED ? "" : sbx_class_meaning(h->why)));
	sbx_pack_uint(p, "retry_in_ms", (h->state == SBX_BREAKER_OPEN || h->state == SBX_BREAKER_AWAY) && h->until_ns > now_ns ? (h->until_ns - now_ns) / 1000000u : 0);
	sbx_pack_uint(p, "throttled_ms", sbx_stats_throttled_ms(h, now_ns));
	sbx_pack_uint(p, "first_content_p50_ms", sbx_latency_quantile_ns(sbx_health_first_content(w->health, row), 500, now_ns, &n) / 1000000u);
	sbx_pack_uint(p, "first_content_p99_ms", sbx_latency_quantile_ns(sbx_health_first_content(w->health, row), 990, now_ns, &n) / 1000000u);
}

static void
pack_targets(struct sbx_packer *p, const struct sbx_world *w, uint64_t now_ns)
{
	const uint32_t rows = w->config->tables.n_targets + SBX_TARGETS_ADHOC_MAX;
	uint32_t n = 0;
	for (uint32_t i = 0; i < rows; i++)
		n += sbx_router_target(&w->router, i) != NULL;
	if (n > STATS_TARGETS_MAX)
		n = STATS_TARGETS_MAX;
	sbx_pack_map(p, "target", n);
	for (uint32_t i = 0; n && i < rows; i++) {
		const struct sbx_target *t = sbx_router_target(&w->router, i);
		if (!t)
			continue;
		pack_target(p, w, i, t, now_ns);
		n--;
	}
}

static void
pack_store(struct sbx_packer *p, const struct sbx_store *store)
{
	if (!store) {
		sbx_pack_map(p, "store", 1);
		sbx_pack_str(p, "state", SBX_SPAN("off"));
		return;
	}
	const struct sbx_store_view v = sbx_store_look(store);
	sbx_pack_map(p, "store", 12);
	sbx_pack_bool(p, "well", sbx_store_well(v.state));
	sbx_pack_str(p, "file", sbx_span_of(sbx_store_path(store)));
	sbx_pack_str(p, "state", sbx_span_of(sbx_store_word(v.state)));
	sbx_pack_str(p, "says", sbx_span_of(sbx_store_says(v.state)));
	sbx_pack_uint(p, "queued", v.queued);
	sbx_pack_uint(p, "committed", v.committed);
	sbx_pack_uint(p, "lost", v.lost);
	sbx_pack_uint(p, "poisoned", v.poisoned);
	sbx_pack_uint(p, "commits", v.commits);
	sbx_pack_uint(p, "opens", v.opens);
	sbx_pack_uint(p, "put_aside", v.put_aside);
	sbx_pack_uint(p, "last_commit_us", v.last_commit_ns / 1000u);
}

/* The names that a request may have, beside those of targets: for clients without a board. */
static void
pack_routes(struct sbx_packer *p, const struct sbx_tables *t)
{
	sbx_pack_map(p, "route", t->n_routes);
	for (uint32_t i = 0; i < t->n_routes; i++) {
		sbx_pack_array(p, t->route[i].name, t->route[i].n_targets);
		for (uint32_t k = 0; k < t->route[i].n_targets; k++)
			sbx_pack_str(p, NULL, sbx_span_of(t->target[t->route[i].target[k]].name));
	}
}

/* Resident memory in bytes; 0 when /proc does not tell. */
static uint64_t
rss_bytes(void)
{
	unsigned long long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");
	if (f) {
		if (fscanf(f, "%*u %llu", &pages) != 1)
			pages = 0;
		(void)fclose(f); /* it was only read */
	}
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void
sbx_stats_frame(struct sbx_agent *agent, uint64_t id)
{
	const struct sbx_loop_stats *loop = sbx_loop_stats(agent->loop);
	const struct sbx_upstream_stats *up = sbx_upstream_stats(agent->upstream);
	const struct sbx_config *config = agent->world->config;
	uint64_t now_ns = sbx_loop_now_ns(agent->loop);
	struct sbx_packer p;
	uint32_t n = 0;
#define X(name, what) n++;
	SBX_COUNTERS(X)
#undef X
	sbx_frame_begin(&p, &agent->frame, SBX_FRAME_STATS, id, n + 14 + (agent->predecessor ? 1u : 0u));
	sbx_pack_str(&p, "version", SBX_SPAN(SBX_VERSION));
	sbx_pack_uint(&p, "pid", (uint64_t)getpid());
	if (agent->predecessor)
		sbx_pack_uint(&p, "predecessor", (uint64_t)agent->predecessor);
	sbx_pack_str(&p, "config", sbx_span_of(config->source));
	sbx_pack_uint(&p, "uptime_ms", (now_ns - agent->started_ns) / 1000000u);
	sbx_pack_uint(&p, "rss_bytes", rss_bytes());
	sbx_pack_uint(&p, "sessions", agent->n_sessions);
	sbx_pack_uint(&p, "in_flight", agent->n_exchanges);
	sbx_pack_uint(&p, "max_in_flight", config->limits.max_in_flight);
	sbx_pack_uint(&p, "body_bytes", agent->body_bytes);
#define X(name, what) sbx_pack_uint(&p, #name, agent->count.name);
	SBX_COUNTERS(X)
#undef X
	sbx_pack_map(&p, "loop", 8);
	sbx_pack_str(&p, "kind", sbx_loop_kind(agent->loop) == SBX_LOOP_URING ? SBX_SPAN("io_uring") : SBX_SPAN("epoll"));
	sbx_pack_uint(&p, "turns", loop->turns);
	sbx_pack_uint(&p, "events", loop->events);
	sbx_pack_uint(&p, "syscalls", loop->syscalls);
	sbx_pack_uint(&p, "accepts", loop->accepts);
	sbx_pack_uint(&p, "accept_pauses", loop->accept_pauses);
	sbx_pack_uint(&p, "enobufs", loop->enobufs);
	sbx_pack_uint(&p, "stale", loop->stale);
	sbx_pack_map(&p, "upstream", 5);
	sbx_pack_uint(&p, "calls", up->calls);
	sbx_pack_uint(&p, "active", up->active);
	sbx_pack_uint(&p, "connections", up->connections);
	sbx_pack_uint(&p, "replays_refused", up->replays_refused);
	sbx_pack_uint(&p, "wakeups", up->wakeups);
	pack_store(&p, agent->store);
	pack_targets(&p, agent->world, now_ns);
	pack_routes(&p, &config->tables);
	if (sbx_frame_end(&p))
		sbx_buf_clear(&agent->frame);
}
