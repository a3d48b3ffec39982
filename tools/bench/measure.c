/* SPDX-License-Identifier: Apache-2.0 */
/*
 * measure.c -- requests, latency, streams, start: what is done in turns, and what is made of it. See bench.h.
 *
 * One round is the floor's share and then each agent's; a ratio is between an agent and the floor of the same round, seconds
 * apart, since the machine's speed drifts by more than what is to be seen. The first round warms up and is not counted.
 */
#include "tools/bench/bench.h"

#include <stdlib.h>
#include <string.h>

#include <signalbox.h>

#define US(ns) ((double)(ns) / 1e3)

/* The double, an agent for each loop, and the workers. */
struct stage {
	struct double_ provider;
	struct agent agent[LOOP__COUNT];
	struct agent alone[LOOP__COUNT]; /* without store and board; only where the two are compared */
	struct process curl, client, echo, spin;
};

static void
stage_down(struct stage *s)
{
	process_stop(&s->curl);
	process_stop(&s->client);
	process_stop(&s->echo);
	process_stop(&s->spin);
	for (int k = 0; k < LOOP__COUNT; k++)
		process_stop(&s->agent[k].process), process_stop(&s->alone[k].process);
	process_stop(&s->provider.process);
}

static bool
stage_up(struct stage *s, const struct bench *b)
{
	memset(s, 0, sizeof *s);
	s->curl.fd = s->client.fd = s->echo.fd = s->spin.fd = -1;
	bool ok = double_start(&s->provider, false) && worker_start(&s->curl, "curl") && worker_start(&s->client, "client");
	for (int k = 0; ok && k < LOOP__COUNT; k++)
		ok = !b->loop[k] || agent_start(&s->agent[k], (enum loop_kind)k, &s->provider, &(const struct agent_as){ 0 });
	if (!ok)
		stage_down(s);
	return ok;
}

static struct order
order_of(enum order_kind kind, const char *to, const char *model, uint32_t n, uint32_t body_bytes)
{
	struct order o = { .kind = kind, .n = n, .body_bytes = body_bytes };
	(void)snprintf(o.to, sizeof o.to, "%s", to);
	(void)snprintf(o.model, sizeof o.model, "%s", model);
	return o;
}

/* ---- requests ---- */

struct calls {
	double cpu_us; /* a call: of the worker itself, or of the agent */
	double p50_us;
};

static bool
floor_calls(struct stage *s, uint32_t n, uint32_t at_once, struct calls *ret)
{
	struct order o = order_of(ORDER_CALLS, s->provider.http, "call", n, BODY_UP_BYTES);
	struct outcome got;
	o.concurrency = at_once;
	if (!tell(&s->curl, &o, &got))
		return false;
	*ret = (struct calls){ US(got.cpu_ns) / n, US(got.p50_ns) };
	return true;
}

static bool
agent_calls(struct stage *s, const struct agent *a, uint32_t n, uint32_t at_once, struct calls *ret)
{
	struct order o = order_of(ORDER_CALLS, a->socket, "call", n, BODY_UP_BYTES);
	struct outcome got;
	o.concurrency = at_once;
	o.connections = at_once > 8 ? at_once / 8 : 1; /* eight in flight on each */
	uint64_t before_ns = process_cpu_ns(&a->process);
	if (!tell(&s->client, &o, &got))
		return false;
	*ret = (struct calls){ US(process_cpu_ns(&a->process) - before_ns) / n, US(got.p50_ns) };
	return true;
}

/* Are store and board there, or neither, as the comparison says? What is on by mistake would make it a comparison of nothing. */
static bool
has_store_and_board(const struct agent *a, bool wanted)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_client *c = NULL;
	struct sbx_board *board = NULL;
	struct sbx_event ev = { .last = false };
	const char *state = NULL;
	uint64_t id;
	o.socket = a->socket;
	bool asked = sbx_open(&o, &c) == 0 && sbx_stats(c, &id) == 0 && sbx_next(c, -1, &ev) == 0 && ev.reply;
	bool stored = asked && sbx_reply_string(ev.reply, "store.state", &state) && strcmp(state, "off") != 0;
	bool shown = asked && sbx_board(c, &board) == 0;
	sbx_board_close(board);
	sbx_close(c);
	if (asked && stored == wanted && shown == wanted)
		return true;
	say("an agent that should have %s says: store %s, board %s", wanted ? "store and board" : "neither store nor board", stored ? state : "none",
	    shown ? "there" : "none");
	return false;
}

static bool
stage_up_alone(struct stage *s, const struct bench *b)
{
	bool ok = true;
	for (int k = 0; ok && k < LOOP__COUNT; k++)
		ok = !b->loop[k] || (agent_start(&s->alone[k], (enum loop_kind)k, &s->provider, &(const struct agent_as){ .alone = true }) &&
		                     has_store_and_board(&s->agent[k], true) && has_store_and_board(&s->alone[k], false));
	return ok;
}

static void
add_calls_at_32(struct bench *b, struct series cpu[LOOP__COUNT], struct series beside[LOOP__COUNT])
{
	for (int k = 0; k < LOOP__COUNT; k++) {
		struct figure f = { .name = "cpu_per_request_c32", .what = "CPU a request, 32 at a time", .loop = loop_names[k], .unit = "us",
		                    .floor_is = "a bare libcurl multi loop on epoll making the same calls", .limit_of = LIMIT_RATIO, .limit = 1.4,
		                    .detail = "with store and board" };
		if (!b->loop[k])
			continue;
		series_take(&cpu[k], &f);
		series_take_best(&cpu[k], &f);
		(void)report_add(&b->report, &f);
	}
	for (int k = 0; k < LOOP__COUNT; k++) {
		struct figure f = { .name = "cpu_of_store_and_board_c32", .what = "the same, beside neither store nor board", .loop = loop_names[k], .unit = "us",
		                    .floor_is = "the same agent without a store and without a board, in the same run" };
		if (!b->loop[k])
			continue;
		series_take(&beside[k], &f);
		series_take_best(&beside[k], &f);
		(void)report_add(&b->report, &f);
	}
}

static bool
rounds_at_32(struct bench *b, struct stage *s)
{
	const uint32_t rounds = b->quick ? 3 : 11, n = b->quick ? 8000 : 20000;
	struct series cpu[LOOP__COUNT] = { { .n = 0 } }, beside[LOOP__COUNT] = { { .n = 0 } };
	for (uint32_t i = 0; i <= rounds; i++) {
		struct calls bare, through, alone;
		const uint32_t n_now = i ? n : n / 4;
		progress("requests, 32 at a time: round %u of %u", i, rounds);
		if (!floor_calls(s, n_now, 32, &bare))
			return false;
		for (int k = 0; k < LOOP__COUNT; k++) {
			if (!b->loop[k])
				continue;
			if (!agent_calls(s, &s->agent[k], n_now, 32, &through) || !agent_calls(s, &s->alone[k], n_now, 32, &alone))
				return false;
			if (!i)
				continue;
			series_add(&cpu[k], through.cpu_us, bare.cpu_us);
			series_add(&beside[k], through.cpu_us, alone.cpu_us);
		}
	}
	add_calls_at_32(b, cpu, beside);
	return true;
}

static bool
rounds_at_1(struct bench *b, struct stage *s)
{
	const uint32_t rounds = b->quick ? 3 : 11, n = b->quick ? 2000 : 4000;
	struct series cpu[LOOP__COUNT] = { { .n = 0 } }, latency[LOOP__COUNT] = { { .n = 0 } };
	struct series direct = { .n = 0 }; /* latencies only */
	for (uint32_t i = 0; i <= rounds; i++) {
		struct calls bare, through;
		struct outcome echo;
		struct order ping = order_of(ORDER_CALLS, "", "", n, BODY_UP_BYTES);
		progress("requests, one at a time: round %u of %u", i, rounds);
		if (!tell(&s->echo, &ping, &echo) || !floor_calls(s, n, 1, &bare))
			return false;
		if (i)
			series_add(&direct, bare.p50_us, 0);
		for (int k = 0; k < LOOP__COUNT; k++) {
			if (!b->loop[k])
				continue;
			if (!agent_calls(s, &s->agent[k], n, 1, &through))
				return false;
			if (!i)
				continue;
			series_add(&cpu[k], through.cpu_us, bare.cpu_us);
			series_add(&latency[k], through.p50_us - bare.p50_us, US(echo.p50_ns));
		}
	}
	for (int k = 0; k < LOOP__COUNT; k++) {
		struct figure f = { .name = "cpu_per_request_c1", .what = "CPU a request, one at a time", .loop = loop_names[k], .unit = "us",
		                    .floor_is = "a bare libcurl multi loop on epoll making the same calls" };
		if (!b->loop[k])
			continue;
		series_take(&cpu[k], &f);
		series_take_best(&cpu[k], &f);
		(void)report_add(&b->report, &f);
	}
	for (int k = 0; k < LOOP__COUNT; k++) {
		struct figure f = { .name = "added_latency_p50_c1", .what = "added latency, p50, one at a time", .loop = loop_names[k], .unit = "us",
		                    .floor_is = "a round trip of the same bytes over a Unix socket between two processes", .limit_of = LIMIT_RATIO, .limit = 3 };
		if (!b->loop[k])
			continue;
		series_take(&latency[k], &f);
		(void)snprintf(f.detail, sizeof f.detail, "the direct call takes %.0f us", spread_of(direct.value, direct.n).median);
		(void)report_add(&b->report, &f);
	}
	return true;
}

bool
measure_requests(struct bench *b)
{
	struct stage s;
	progress("requests: starting");
	if (!stage_up(&s, b))
		return false;
	bool ok = stage_up_alone(&s, b) && rounds_at_32(b, &s);
	stage_down(&s);
	return ok;
}

bool
measure_latency(struct bench *b)
{
	struct stage s;
	progress("latency: starting");
	if (!stage_up(&s, b))
		return false;
	bool ok = worker_start(&s.echo, "echo") && worker_start(&s.spin, "spin") && rounds_at_1(b, &s);
	stage_down(&s);
	return ok;
}

/* ---- streams ---- */

#define N_STREAMS 500u
#define SETTLE_NS 500000000ull /* after the last stream began: backlogs of the beginning are gone */

/* CPU an event of `who` while its worker receives, over a window; and how many events came a second. */
static bool
stream_window(struct process *worker, const struct process *who, struct order *o, uint64_t window_ns, double *ret_us, double *ret_per_s)
{
	struct outcome from, to;
	struct order count = { .kind = ORDER_COUNT }, shut = { .kind = ORDER_CLOSE };
	if (!tell(worker, o, &to))
		return false;
	pause_ns(SETTLE_NS);
	if (!tell(worker, &count, &from))
		return false;
	uint64_t from_cpu = process_cpu_ns(who), from_ns = now_ns();
	pause_ns(window_ns);
	if (rig_interrupted() || !tell(worker, &count, &to))
		return false;
	uint64_t cpu = process_cpu_ns(who) - from_cpu, took_ns = now_ns() - from_ns, events = to.events - from.events;
	if (!tell(worker, &shut, &to))
		return false;
	if (!events) {
		say("%s received no event of its streams", worker->name);
		return false;
	}
	*ret_us = US(cpu) / (double)events;
	*ret_per_s = (double)events / ((double)took_ns / 1e9);
	return true;
}

static void
add_stream_figures(struct bench *b, struct series cpu[LOOP__COUNT][2], struct series rate[LOOP__COUNT][2])
{
	static const struct {
		const char *name, *what;
		double limit;
	} row[2] = { { "cpu_per_event_8_connections", "CPU a stream event, 500 streams, 8 clients", 1.25 },
		     { "cpu_per_event_500_connections", "CPU a stream event, 500 streams, 500 clients", 1.6 } };
	for (int wide = 0; wide < 2; wide++)
		for (int k = 0; k < LOOP__COUNT; k++) {
			struct figure f = { .name = row[wide].name, .what = row[wide].what, .loop = loop_names[k], .unit = "us",
			                    .floor_is = "a bare libcurl multi loop receiving the same streams", .limit_of = LIMIT_RATIO, .limit = row[wide].limit };
			if (!b->loop[k])
				continue;
			series_take(&cpu[k][wide], &f);
			(void)snprintf(f.detail, sizeof f.detail, "%.0f events a second came through, %.0f direct", spread_of(rate[k][wide].value, rate[k][wide].n).median,
			               spread_of(rate[k][wide].floor, rate[k][wide].n).median);
			(void)report_add(&b->report, &f);
		}
}

bool
measure_streams(struct bench *b)
{
	const uint32_t rounds = b->quick ? 1 : 5;
	const uint64_t window_ns = b->quick ? 1000000000u : 2000000000u;
	struct series cpu[LOOP__COUNT][2], rate[LOOP__COUNT][2];
	struct stage s;
	bool ok = true;
	memset(cpu, 0, sizeof cpu);
	memset(rate, 0, sizeof rate);
	progress("streams: starting");
	if (!stage_up(&s, b))
		return false;
	for (uint32_t i = 1; ok && i <= rounds; i++) {
		struct order o = order_of(ORDER_OPEN, s.provider.http, "tick", N_STREAMS, BODY_UP_BYTES);
		double bare_us = 0, bare_per_s = 0, us, per_s;
		progress("streams, 500 of 100 events a second: round %u of %u", i, rounds);
		ok = stream_window(&s.curl, &s.curl, &o, window_ns, &bare_us, &bare_per_s);
		for (int k = 0; ok && k < LOOP__COUNT; k++)
			for (int wide = 0; ok && wide < 2 && b->loop[k]; wide++) {
				o = order_of(ORDER_OPEN, s.agent[k].socket, "tick", N_STREAMS, BODY_UP_BYTES);
				o.connections = wide ? N_STREAMS : 8;
				ok = stream_window(&s.client, &s.agent[k].process, &o, window_ns, &us, &per_s);
				if (ok) {
					series_add(&cpu[k][wide], us, bare_us);
					series_add(&rate[k][wide], per_s, bare_per_s);
				}
			}
	}
	stage_down(&s);
	if (ok)
		add_stream_figures(b, cpu, rate);
	return ok;
}

/* ---- start ---- */

#define FIRST_ANSWER_NS 10000000000ull
#define CONNECT_EVERY_NS 200000u

/* From before the exec to the first answer. */
static bool
first_answer(enum loop_kind loop, const struct double_ *d, double *ret_ms)
{
	struct sbx_open_options o = SBX_OPEN_OPTIONS_INIT;
	struct sbx_request_options r = SBX_REQUEST_INIT;
	struct sbx_reply *reply = NULL;
	struct sbx_client *c = NULL;
	struct agent a = { 0 };
	int rc = -SBX_EAGENT;
	uint64_t from_ns = now_ns();
	if (!agent_spawn(&a, loop, d, &(const struct agent_as){ 0 }))
		return false;
	o.socket = a.socket;
	while (rc && now_ns() - from_ns < FIRST_ANSWER_NS && !rig_interrupted()) {
		sbx_close(c);
		rc = sbx_open(&o, &c);
		if (rc)
			pause_ns(CONNECT_EVERY_NS);
	}
	r.model = "double/call";
	r.body = request_body("call", false, BODY_UP_BYTES);
	r.body_bytes = BODY_UP_BYTES;
	if (rc == 0)
		rc = sbx_ask(c, &r, &reply);
	*ret_ms = (double)(now_ns() - from_ns) / 1e6;
	if (rc && !rig_interrupted())
		say("the first request of a new agent failed: %s", reply ? sbx_reply_message(reply) : sbx_client_error(c));
	sbx_reply_free(reply);
	sbx_close(c);
	process_stop(&a.process);
	return rc == 0;
}

bool
measure_start(struct bench *b)
{
	const uint32_t rounds = b->quick ? 3 : 10;
	struct series start[LOOP__COUNT] = { { .n = 0 } };
	struct double_ d = { .process.pid = 0 };
	bool ok = double_start(&d, false);
	for (uint32_t i = 1; ok && i <= rounds; i++) {
		progress("start to first answer: round %u of %u", i, rounds);
		uint64_t from_ns = now_ns();
		ok = once_run(d.http);
		double bare_ms = (double)(now_ns() - from_ns) / 1e6, ms;
		for (int k = 0; ok && k < LOOP__COUNT; k++)
			if (b->loop[k] && (ok = first_answer((enum loop_kind)k, &d, &ms)))
				series_add(&start[k], ms, bare_ms);
	}
	process_stop(&d.process);
	for (int k = 0; ok && k < LOOP__COUNT; k++) {
		struct figure f = { .name = "start_to_first_answer", .what = "start to first answer", .loop = loop_names[k], .unit = "ms",
		                    .floor_is = "exec of the least libcurl program, one call, end", .limit_of = LIMIT_VALUE, .limit = 50 };
		if (!b->loop[k])
			continue;
		series_take(&start[k], &f);
		(void)report_add(&b->report, &f);
	}
	return ok;
}
