/* SPDX-License-Identifier: Apache-2.0 */
/* metrics.c -- see metrics.h; the keys are specified in signalbox/wire.h. */
#include "agent/io/metrics.h"

#include "agent/io/stats.h"
#include "client/wire.h"

#define ROWS_AT_ONCE 128   /* 0.2 ms of the loop's time; all rows are 16 frames */
#define TARGETS_MAX 1024   /* configured ones, and as many others as the tally has names for */
#define ROW_ELEMENTS (2 * (8 + 5) + 4 * (2 + 1 + SBX_TALLY_BOUNDS + 1)) /* its keys and values, and its histograms */
_Static_assert(ROWS_AT_ONCE * ROW_ELEMENTS + (TARGETS_MAX + SBX_TALLY_TARGETS_MAX) * (2 + 2 * 3) + 256 < SBX_FRAME_ELEMENTS_MAX, "a frame holds them");

/* ---- rows ---- */

static bool
is_empty(const struct sbx_tally_histogram *h)
{
	uint64_t any = 0;
	for (uint32_t i = 0; i <= SBX_TALLY_BOUNDS; i++)
		any |= h->bucket[i];
	return !any;
}

static void
pack_histogram(struct sbx_packer *p, const char *key, const struct sbx_tally_histogram *h)
{
	if (is_empty(h))
		return;
	sbx_pack_array(p, key, 1 + SBX_TALLY_BOUNDS + 1);
	sbx_pack_uint(p, NULL, h->sum);
	for (uint32_t i = 0; i <= SBX_TALLY_BOUNDS; i++)
		sbx_pack_uint(p, NULL, h->bucket[i]);
}

static const char *
outcome_of(const struct sbx_tally_row *r)
{
	if (r->key.what == SBX_TALLY_ATTEMPT)
		return sbx_class_name(r->key.outcome);
	return r->key.what == SBX_TALLY_RUNNING ? "" : r->key.outcome == SBX_CODE_NONE ? "ok" : sbx_code_word(r->key.outcome);
}

static void
pack_row(struct sbx_packer *p, const struct sbx_tally *t, const struct sbx_tally_row *r)
{
	static const char *const what[] = { [SBX_TALLY_REQUEST] = "request", [SBX_TALLY_ATTEMPT] = "attempt", [SBX_TALLY_RUNNING] = "running" };
	const bool attempt = r->key.what == SBX_TALLY_ATTEMPT;
	const uint32_t n_histograms = !is_empty(&r->duration) + !is_empty(&r->first_content) + !is_empty(&r->input) + !is_empty(&r->output);
	sbx_pack_map(p, NULL, 7 + n_histograms + (attempt ? 5 : 0));
	sbx_pack_str(p, "what", sbx_span_of(what[r->key.what]));
	sbx_pack_str(p, "operation", sbx_span_of(r->key.op < SBX_OP__COUNT ? sbx_op_word(r->key.op) : ""));
	sbx_pack_str(p, "outcome", sbx_span_of(outcome_of(r)));
	sbx_pack_str(p, "target", sbx_span_of(sbx_tally_name(t, SBX_TALLY_TARGET, r->key.target)));
	sbx_pack_str(p, "route", sbx_span_of(sbx_tally_name(t, SBX_TALLY_ROUTE, r->key.route)));
	sbx_pack_str(p, "tenant", sbx_span_of(sbx_tally_name(t, SBX_TALLY_TENANT, r->key.tenant)));
	sbx_pack_uint(p, "n", r->n);
	pack_histogram(p, "duration_ns", &r->duration);
	pack_histogram(p, "first_content_ns", &r->first_content);
	pack_histogram(p, "input", &r->input);
	pack_histogram(p, "output", &r->output);
	if (!attempt)
		return;
	sbx_pack_uint(p, "cached", r->cached);
	sbx_pack_uint(p, "cache_write", r->cache_write);
	sbx_pack_uint(p, "reasoning", r->reasoning);
	sbx_pack_uint(p, "cost_nanousd", r->cost_nanousd);
	sbx_pack_uint(p, "cost_unknown", r->cost_unknown);
}

/* ---- targets ---- */

/* Of those that no configuration has, only the ones that the tally has a name for: others come and go without end. */
static const struct sbx_target *
told_target(const struct sbx_agent *agent, uint32_t row)
{
	const uint32_t configured = agent->world->config->tables.n_targets;
	const struct sbx_target *t = row < configured && row >= TARGETS_MAX ? NULL : sbx_router_target(&agent->world->router, row);
	return t && (row < configured || sbx_tally_knows_target(agent->tally, sbx_span_of(t->name))) ? t : NULL;
}

static void
pack_targets(struct sbx_packer *p, const struct sbx_agent *agent, uint64_t now_ns)
{
	const struct sbx_world *w = agent->world;
	const uint32_t rows = w->config->tables.n_targets + SBX_TARGETS_ADHOC_MAX;
	uint32_t n = 0;
	for (uint32_t i = 0; i < rows; i++)
		n += told_target(agent, i) != NULL;
	sbx_pack_map(p, "target", n);
	for (uint32_t i = 0; i < rows; i++) {
		const struct sbx_target *t = told_target(agent, i);
		if (!t)
			continue;
		const struct sbx_target_health *h = sbx_health_target(w->health, i);
		sbx_pack_map(p, t->name, 3);
		sbx_pack_str(p, "state", sbx_span_of(sbx_stats_state(w, i, t)));
		sbx_pack_uint(p, "in_flight", h->in_flight);
		sbx_pack_uint(p, "throttled_ms", sbx_stats_throttled_ms(h, now_ns));
	}
}

/* ---- the frame ---- */

static void
pack_bounds(struct sbx_packer *p, const char *key, uint64_t (*bound)(uint32_t))
{
	sbx_pack_array(p, key, SBX_TALLY_BOUNDS);
	for (uint32_t i = 0; i < SBX_TALLY_BOUNDS; i++)
		sbx_pack_uint(p, NULL, bound(i));
}

static void
pack_folded(struct sbx_packer *p, const struct sbx_tally *t)
{
	sbx_pack_map(p, "folded", 4);
	sbx_pack_uint(p, "target", sbx_tally_folded(t, SBX_TALLY_TARGET));
	sbx_pack_uint(p, "route", sbx_tally_folded(t, SBX_TALLY_ROUTE));
	sbx_pack_uint(p, "tenant", sbx_tally_folded(t, SBX_TALLY_TENANT));
	sbx_pack_uint(p, "row", sbx_tally_crowded(t));
}

void
sbx_metrics_frame(struct sbx_agent *agent, uint64_t id, uint64_t from)
{
	const struct sbx_tally *t = agent->tally;
	const uint32_t rows = sbx_tally_rows(t), first = from < rows ? (uint32_t)from : rows;
	const uint32_t n = rows - first < ROWS_AT_ONCE ? rows - first : ROWS_AT_ONCE;
	const bool more = first + n < rows;
	struct sbx_packer p;
	sbx_frame_begin(&p, &agent->frame, SBX_FRAME_METRICS, id, 3u + more + (from ? 0u : 4u));
	sbx_pack_uint(&p, "generation", agent->generation);
	sbx_pack_uint(&p, "started_unix_ms", (uint64_t)agent->started_unix_ms);
	if (more)
		sbx_pack_uint(&p, "next", first + n);
	if (!from) {
		pack_bounds(&p, "time_bounds_ms", sbx_tally_time_bound_ms);
		pack_bounds(&p, "token_bounds", sbx_tally_token_bound);
		pack_folded(&p, t);
		pack_targets(&p, agent, sbx_loop_now_ns(agent->loop));
	}
	sbx_pack_array(&p, "row", n);
	for (uint32_t i = 0; i < n; i++)
		pack_row(&p, t, sbx_tally_row(t, first + i));
	if (sbx_frame_end(&p))
		sbx_buf_clear(&agent->frame);
}
