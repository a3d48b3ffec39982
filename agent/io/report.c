/* SPDX-License-Identifier: Apache-2.0 */
/* report.c -- see report.h. */
#include "agent/io/report.h"

#include <stdio.h>
#include <time.h>

#include "agent/io/ending.h"
#include "agent/io/store.h"

#define RETRY_MS 1000

static void
refuse(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, enum sbx_code code, const char *why, const char *more)
{
	struct sbx_refusal r = { .code = code, .retry_after_ms = code == SBX_CODE_BUSY ? RETRY_MS : -1 };
	(void)snprintf(r.why, sizeof r.why, "%s%s", why, more);
	sbx_ending_refusal(agent, id, false, &r);
	sbx_session_send(session);
}

static void
pack_mean(struct sbx_packer *p, const char *key, int64_t sum, int64_t n)
{
	if (n > 0 && sum >= 0)
		sbx_pack_uint(p, key, (uint64_t)(sum / n));
	else
		sbx_pack_nil(p, key);
}

static void
pack_figures(struct sbx_packer *p, const char *key, const struct sbx_store_figures *f)
{
	const bool priced = f->unpriced < f->attempts;
	sbx_pack_map(p, key, 13);
	sbx_pack_int(p, "attempts", f->attempts);
	sbx_pack_int(p, "ok", f->ok);
	sbx_pack_int(p, "wasted", f->wasted);
	sbx_pack_int(p, "unpriced", f->unpriced);
	if (priced) {
		sbx_pack_int(p, "cost_nanousd", f->cost_nanousd);
		sbx_pack_int(p, "wasted_cost_nanousd", f->wasted_cost_nanousd);
	} else { /* not known, which is not 0 */
		sbx_pack_nil(p, "cost_nanousd");
		sbx_pack_nil(p, "wasted_cost_nanousd");
	}
	sbx_pack_int(p, "prompt_tokens", f->prompt_tokens);
	sbx_pack_int(p, "completion_tokens", f->completion_tokens);
	sbx_pack_int(p, "cached_tokens", f->cached_tokens);
	sbx_pack_int(p, "cache_write_tokens", f->cache_write_tokens);
	sbx_pack_int(p, "reasoning_tokens", f->reasoning_tokens);
	pack_mean(p, "first_content_mean_ms", f->first_content_ms, f->first_contents);
	pack_mean(p, "total_mean_ms", f->total_ms, f->attempts);
}

static void
answer(struct sbx_agent *agent, struct sbx_session *session, uint64_t id, const struct sbx_store_report *r)
{
	struct sbx_packer p;
	sbx_frame_begin(&p, &agent->frame, SBX_FRAME_REPORT, id, 6);
	sbx_pack_int(&p, "since_unix_ms", r->query.since_unix_ms);
	sbx_pack_int(&p, "until_unix_ms", r->query.until_unix_ms);
	sbx_pack_str(&p, "by", sbx_span_of(sbx_store_grouping_word(r->query.by)));
	pack_figures(&p, "total", &r->total);
	sbx_pack_uint(&p, "left_out", r->n_left_out);
	sbx_pack_map(&p, "row", r->n_groups);
	for (uint32_t i = 0; i < r->n_groups; i++)
		pack_figures(&p, r->group[i].name, &r->group[i].figures);
	if (sbx_frame_end(&p))
		sbx_buf_clear(&agent->frame);
	sbx_session_send(session);
}

/* What the store calls when it has an answer: who asked, and for which agent. */
static void
on_report(void *arg, uint64_t id, const struct sbx_store_report *r)
{
	struct sbx_session *session = arg;
	struct sbx_agent *agent = sbx_session_agent(session);
	switch (r->rc) {
	case 0:
		answer(agent, session, id, r);
		break;
	case -SBX_ETIME:
		refuse(agent, session, id, SBX_CODE_BUSY, "the report took longer than 2 s; ask for a shorter span of time", "");
		break;
	case -SBX_ETOOBIG:
		refuse(agent, session, id, SBX_CODE_INTERNAL, "the sums do not fit into 64 bits; ask for a shorter span of time", "");
		break;
	case -SBX_ENOMEM:
		refuse(agent, session, id, SBX_CODE_BUSY, "out of memory for the report", "");
		break;
	default:
		refuse(agent, session, id, SBX_CODE_BUSY, "the store cannot be read now: ", sbx_store_says(sbx_store_look(agent->store).state));
		break;
	}
}

static bool
read_time(const struct sbx_frame *frame, const char *key, int64_t *at)
{
	struct sbx_value v;
	if (!sbx_map_get(&frame->map, key, &v))
		return true;
	*at = (int64_t)v.u;
	return v.type == SBX_UINT && v.u <= SBX_ID_MAX;
}

static bool
read_by(const struct sbx_frame *frame, enum sbx_store_grouping *by)
{
	struct sbx_value v;
	if (!sbx_map_get(&frame->map, "by", &v))
		return true;
	for (uint32_t i = 0; v.type == SBX_STR && i < SBX_STORE_BY__COUNT; i++)
		if (sbx_span_is(v.bytes, sbx_store_grouping_word((enum sbx_store_grouping)i))) {
			*by = (enum sbx_store_grouping)i;
			return true;
		}
	return false;
}

void
sbx_report_on_frame(struct sbx_agent *agent, struct sbx_session *session, const struct sbx_frame *frame)
{
	struct timespec now;
	(void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail with this clock */
	struct sbx_store_query q = { .until_unix_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 + 1, .by = SBX_STORE_BY_TARGET };
	if (!read_time(frame, "since_unix_ms", &q.since_unix_ms) || !read_time(frame, "until_unix_ms", &q.until_unix_ms))
		refuse(agent, session, frame->id, SBX_CODE_INVALID_REQUEST, "since_unix_ms and until_unix_ms are milliseconds since 1970", "");
	else if (!read_by(frame, &q.by))
		refuse(agent, session, frame->id, SBX_CODE_INVALID_REQUEST, "by is target, model, class, route or user", "");
	else if (q.since_unix_ms > q.until_unix_ms)
		refuse(agent, session, frame->id, SBX_CODE_INVALID_REQUEST, "since_unix_ms is after until_unix_ms", "");
	else if (!agent->store)
		refuse(agent, session, frame->id, SBX_CODE_UNSUPPORTED, "this agent keeps no store; \"store\": \"/path/to/file.db\" in its configuration makes one", "");
	else if (sbx_store_ask(agent->store, &q, on_report, session, frame->id))
		refuse(agent, session, frame->id, SBX_CODE_BUSY, "too many reports are asked for at once", "");
}

void
sbx_report_forget(struct sbx_agent *agent, struct sbx_session *session)
{
	if (agent->store)
		sbx_store_forget(agent->store, session);
}
