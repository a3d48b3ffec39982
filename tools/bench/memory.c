/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memory.c -- resident memory: of an agent that has done nothing yet, and of streams that are held open between two tokens.
 *
 * Each agent is a fresh one, since memory that earlier work left behind would hide what a stream needs. The floor holds the
 * same streams in a bare libcurl loop with the same buffer sizes: what libcurl and, over TLS, OpenSSL take anyway.
 */
#include "tools/bench/bench.h"

#include <stdlib.h>
#include <string.h>

#define SETTLE_NS 300000000ull /* the last events are through, the last buffers given back */
#define SMALL 1000u
#define LARGE 10000u
#define CONNECTIONS 8u

struct held {
	uint64_t idle, small, large; /* bytes resident with none, SMALL and LARGE streams; 0 = not measured */
};

/* Open the streams on `worker` and look at `who`. */
static bool
hold(struct process *worker, const struct process *who, struct order *o, bool large, struct held *ret)
{
	struct outcome got;
	struct order shut = { .kind = ORDER_CLOSE };
	pause_ns(SETTLE_NS);
	ret->idle = process_rss_bytes(who);
	for (int step = 0; step < (large ? 2 : 1); step++) {
		o->n = step ? LARGE : SMALL;
		if (!tell(worker, o, &got))
			return false;
		pause_ns(SETTLE_NS);
		*(step ? &ret->large : &ret->small) = process_rss_bytes(who);
	}
	return tell(worker, &shut, &got);
}

static bool
hold_bare(const struct double_ *d, bool tls, bool large, struct held *ret)
{
	struct process curl = { .fd = -1 };
	struct order o = { .kind = ORDER_OPEN, .body_bytes = BODY_STREAM_BYTES, .model = "hold" };
	(void)snprintf(o.to, sizeof o.to, "%s", tls ? d->https : d->http);
	if (tls)
		(void)snprintf(o.ca_file, sizeof o.ca_file, "%s", d->ca_file);
	bool ok = worker_start(&curl, "curl") && hold(&curl, &curl, &o, large, ret);
	process_stop(&curl);
	return ok;
}

static bool
hold_agent(const struct double_ *d, enum loop_kind loop, bool tls, bool large, struct held *ret)
{
	struct process client = { .fd = -1 };
	struct agent a = { .process.pid = 0 };
	struct order o = { .kind = ORDER_OPEN, .body_bytes = BODY_STREAM_BYTES, .model = "hold", .connections = CONNECTIONS };
	const struct agent_as as = { .tls = tls };
	bool ok = agent_start(&a, loop, d, &as);
	(void)snprintf(o.to, sizeof o.to, "%s", a.socket);
	ok = ok && worker_start(&client, "client") && hold(&client, &a.process, &o, large, ret);
	process_stop(&client);
	process_stop(&a.process);
	return ok;
}

static double
per_stream_kb(uint64_t with, uint64_t without, uint32_t n)
{
	return with > without ? (double)(with - without) / n / 1000.0 : 0;
}

static void
add_per_stream(struct bench *b, const char *name, const char *what, int k, double value, double floor_, double limit)
{
	struct figure f = { .name = name, .what = what, .loop = loop_names[k], .unit = "kB", .floor_is = "a bare libcurl loop holding the same streams",
	                    .value = value, .floor = floor_, .ratio = floor_ > 0 ? value / floor_ : 0, .limit_of = LIMIT_VALUE, .limit = limit, .rounds = 1 };
	f.ratio_low = f.ratio_high = f.ratio;
	(void)report_add(&b->report, &f);
}

bool
measure_memory(struct bench *b)
{
	const bool large = !b->quick;
	struct held bare[2] = { { .idle = 0 } }, held[2][LOOP__COUNT] = { { { .idle = 0 } } };
	struct double_ d = { .process.pid = 0 };
	bool ok = true;
	/* A fresh double for each: ten thousand connections that were just closed keep their ports from its address for a minute. */
	for (int tls = 0; ok && tls < 2; tls++) {
		bool all = large && !tls;
		for (int k = -1; ok && k < LOOP__COUNT; k++) {
			if (k >= 0 && !b->loop[k])
				continue;
			progress("memory%s: %s", tls ? " over TLS" : "", k < 0 ? "bare loop" : loop_names[k]);
			ok = double_start(&d, true) && (k < 0 ? hold_bare(&d, tls, all, &bare[tls]) : hold_agent(&d, (enum loop_kind)k, tls, all, &held[tls][k]));
			process_stop(&d.process);
		}
	}
	if (!ok)
		return false;
	for (int k = 0; k < LOOP__COUNT; k++) {
		if (!b->loop[k])
			continue;
		struct figure f = { .name = "rss_idle", .what = "memory resident, idle", .loop = loop_names[k], .unit = "MiB", .floor_is = "a bare libcurl loop, idle",
		                    .value = (double)held[0][k].idle / (1 << 20), .floor = (double)bare[0].idle / (1 << 20), .limit_of = LIMIT_VALUE, .limit = 16, .rounds = 1 };
		(void)report_add(&b->report, &f);
	}
	for (int k = 0; k < LOOP__COUNT; k++)
		if (b->loop[k])
			add_per_stream(b, "rss_per_stream_1000", "memory a stream, of 1,000", k, per_stream_kb(held[0][k].small, held[0][k].idle, SMALL),
			               per_stream_kb(bare[0].small, bare[0].idle, SMALL), 40);
	for (int k = 0; large && k < LOOP__COUNT; k++)
		if (b->loop[k])
			add_per_stream(b, "rss_per_stream_10000", "memory a stream, of 10,000", k, per_stream_kb(held[0][k].large, held[0][k].idle, LARGE),
			               per_stream_kb(bare[0].large, bare[0].idle, LARGE), 40);
	for (int k = 0; k < LOOP__COUNT; k++)
		if (b->loop[k])
			add_per_stream(b, "rss_per_stream_tls_1000", "memory a stream over TLS, of 1,000", k, per_stream_kb(held[1][k].small, held[1][k].idle, SMALL),
			               per_stream_kb(bare[1].small, bare[1].idle, SMALL), 90);
	return true;
}
