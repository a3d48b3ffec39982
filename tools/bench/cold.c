/* SPDX-License-Identifier: Apache-2.0 */
/*
 * cold.c -- how much earlier a new process has its first byte through the agent than direct, over TLS and a long line.
 *
 * Direct it waits for the connection, for TLS and for the answer: three round trips. The agent's connection is there already, and one
 * remains. Each process is a new one; the clock runs from before it is started, so that loading its libraries and setting
 * up TLS count on either way. Names are not looked up: the double is reached by its address.
 */
#include "tools/bench/bench.h"

#include <stdlib.h>
#include <string.h>

#define ROUND_TRIP_NS (2 * RELAY_DELAY_NS)

/* From before the exec to the first byte. */
static bool
first_byte(const char *to, const struct double_ *d, double *ret_ms)
{
	struct process p = { .fd = -1 };
	struct order o = { .kind = ORDER_FIRST, .body_bytes = BODY_UP_BYTES, .model = "call" };
	struct outcome got;
	(void)snprintf(o.to, sizeof o.to, "%s", to);
	(void)snprintf(o.ca_file, sizeof o.ca_file, "%s", d->ca_file);
	const uint64_t from_ns = now_ns();
	bool ok = worker_start(&p, "cold") && tell(&p, &o, &got);
	process_stop(&p);
	if (ok)
		*ret_ms = (double)(got.first_ns - from_ns) / 1e6;
	return ok;
}

/* The relay before the double; the double's address becomes the relay's. */
static bool
lay_line(struct process *relay, struct double_ *d)
{
	struct order o = { .kind = ORDER_LAY };
	struct outcome got;
	const char *colon = strrchr(d->https, ':');
	(void)snprintf(o.to, sizeof o.to, "%s", colon ? colon + 1 : "");
	if (!worker_start(relay, "relay") || !tell(relay, &o, &got))
		return false;
	(void)snprintf(d->https, sizeof d->https, "https://127.0.0.1:%u/v1", got.port);
	return true;
}

static void
add_figures(struct bench *b, int k, struct series *cold, struct series *earlier)
{
	struct figure time = { .name = "cold_first_byte", .what = "a new process's first byte, 20 ms away", .loop = loop_names[k], .unit = "ms",
		               .floor_is = "the same process by libcurl, direct: no floor, but what the agent saves" };
	struct figure saved = { .name = "cold_first_byte_earlier", .what = "so much before direct, in round trips", .loop = loop_names[k], .unit = "rtt",
		                .limit_of = LIMIT_AT_LEAST, .limit = 1.9, .detail = "over TLS; a round trip is 40 ms" };
	series_take(cold, &time);
	(void)report_add(&b->report, &time);
	series_take(earlier, &saved);
	saved.floor = saved.ratio = 0;
	(void)report_add(&b->report, &saved);
}

bool
measure_cold(struct bench *b)
{
	const uint32_t rounds = b->quick ? 3 : 11;
	struct series cold[LOOP__COUNT] = { { .n = 0 } }, earlier[LOOP__COUNT] = { { .n = 0 } };
	struct agent agent[LOOP__COUNT] = { { .process.pid = 0 } };
	struct process relay = { .fd = -1 };
	struct double_ d = { .process.pid = 0 };
	progress("a new process's first byte: starting");
	bool ok = double_start(&d, true) && lay_line(&relay, &d);
	for (int k = 0; ok && k < LOOP__COUNT; k++)
		ok = !b->loop[k] || agent_start(&agent[k], (enum loop_kind)k, &d, &(const struct agent_as){ .tls = true });
	for (uint32_t i = 0; ok && i <= rounds; i++) { /* the first: the agents' connections are made */
		double direct_ms = 0, ms;
		progress("a new process's first byte: round %u of %u", i, rounds);
		ok = first_byte(d.https, &d, &direct_ms);
		for (int k = 0; ok && k < LOOP__COUNT; k++) {
			if (!b->loop[k])
				continue;
			ok = first_byte(agent[k].socket, &d, &ms);
			if (!ok || !i)
				continue;
			series_add(&cold[k], ms, direct_ms);
			series_add(&earlier[k], (direct_ms - ms) * 1e6 / ROUND_TRIP_NS, 0);
		}
	}
	for (int k = 0; k < LOOP__COUNT; k++)
		process_stop(&agent[k].process);
	process_stop(&relay);
	process_stop(&d.process);
	for (int k = 0; ok && k < LOOP__COUNT; k++)
		if (b->loop[k])
			add_figures(b, k, &cold[k], &earlier[k]);
	return ok;
}
