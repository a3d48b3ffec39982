/* SPDX-License-Identifier: Apache-2.0 */
/* latency.c -- see latency.h. */
#include "agent/core/latency.h"

#include <string.h>

/* One unit is 1/16 ms: the first octave then is units 16 to 31, one bucket each, and every next octave has the same 16 buckets
 * of twice the width. So a bucket is the position of the highest bit and the four bits below it. */
#define UNIT_NS (1000000u / SBX_LATENCY_SUB)
#define SUB_BITS 4

_Static_assert(1 << SUB_BITS == SBX_LATENCY_SUB, "four bits below the highest");
_Static_assert(1000000u % SBX_LATENCY_SUB == 0, "units are whole nanoseconds");
_Static_assert((1ull << SBX_LATENCY_OCTAVES) > 3600ull * 1000, "an hour is inside");

static uint32_t
bucket_of(uint64_t value_ns)
{
	uint64_t units = value_ns / UNIT_NS;
	if (units < SBX_LATENCY_SUB)
		return 0;
	uint32_t octave = 63u - (uint32_t)__builtin_clzll(units) - SUB_BITS;
	if (octave >= SBX_LATENCY_OCTAVES)
		return SBX_LATENCY_BUCKETS - 1;
	return octave * SBX_LATENCY_SUB + (uint32_t)((units >> octave) & (SBX_LATENCY_SUB - 1));
}

static uint64_t
middle_of(uint32_t bucket)
{
	uint32_t octave = bucket / SBX_LATENCY_SUB;
	uint64_t lower = (uint64_t)(SBX_LATENCY_SUB + bucket % SBX_LATENCY_SUB) << octave;
	return lower * UNIT_NS + ((uint64_t)UNIT_NS << octave) / 2;
}

/* How many of the two halves still count: 0, 1 (the running one, by now the one before) or 2. */
static int
live_halves(const struct sbx_latency *l, uint64_t now_ns)
{
	uint64_t age = now_ns > l->half_started_ns ? now_ns - l->half_started_ns : 0;
	return age < SBX_LATENCY_HALF_NS ? 2 : age < 2 * SBX_LATENCY_HALF_NS ? 1 : 0;
}

static void
forget(struct sbx_latency *l, int half)
{
	if (l->n[half] == 0)
		return; /* its pages may never have been touched */
	memset(l->count[half], 0, sizeof l->count[half]);
	l->n[half] = 0;
}

static void
turn(struct sbx_latency *l, uint64_t now_ns)
{
	int live = live_halves(l, now_ns);
	if (live == 2)
		return;
	if (live == 0 || l->n[0] == 0) {
		forget(l, 1);
	} else {
		memcpy(l->count[1], l->count[0], sizeof l->count[1]);
		l->n[1] = l->n[0];
	}
	forget(l, 0);
	l->half_started_ns = live == 1 ? l->half_started_ns + SBX_LATENCY_HALF_NS : now_ns;
}

static void
halve(struct sbx_latency *l)
{
	l->n[0] = 0;
	for (uint32_t b = 0; b < SBX_LATENCY_BUCKETS; b++) {
		l->count[0][b] = (uint16_t)(l->count[0][b] / 2);
		l->n[0] += l->count[0][b];
	}
}

void
sbx_latency_add(struct sbx_latency *l, uint64_t value_ns, uint64_t now_ns)
{
	if (l->n[0] == 0 && l->n[1] == 0)
		l->half_started_ns = now_ns; /* the first since ever, or since all was forgotten */
	turn(l, now_ns);
	uint32_t b = bucket_of(value_ns);
	if (l->count[0][b] == UINT16_MAX)
		halve(l);
	l->count[0][b]++;
	l->n[0]++;
}

/* The first sample at or above a quantile's rank has its time, and so has every one down to the next lower quantile. */
void
sbx_latency_refill(struct sbx_latency *l, uint64_t n, uint64_t p50_ns, uint64_t p95_ns, uint64_t p99_ns, uint64_t then_ns)
{
	if (n == 0 || p50_ns == 0 || p50_ns > p95_ns || p95_ns > p99_ns || l->n[0] || l->n[1])
		return;
	if (n > SBX_LATENCY_REFILL_MAX)
		n = SBX_LATENCY_REFILL_MAX;
	const uint32_t to_p50 = (uint32_t)(n * 500 + 999) / 1000, to_p95 = (uint32_t)(n * 950 + 999) / 1000;
	l->half_started_ns = then_ns;
	l->count[0][bucket_of(p50_ns)] += (uint16_t)to_p50;
	l->count[0][bucket_of(p95_ns)] += (uint16_t)(to_p95 - to_p50);
	l->count[0][bucket_of(p99_ns)] += (uint16_t)((uint32_t)n - to_p95);
	l->n[0] = (uint32_t)n;
}

static uint32_t
in_octave(const uint16_t *count)
{
	uint32_t n = 0;
	for (int i = 0; i < SBX_LATENCY_SUB; i++)
		n += count[i];
	return n;
}

uint64_t
sbx_latency_quantile_ns(const struct sbx_latency *l, uint32_t q_permille, uint64_t now_ns, uint32_t *ret_n)
{
	int live = live_halves(l, now_ns);
	uint32_t n0 = live >= 1 ? l->n[0] : 0, n1 = live == 2 ? l->n[1] : 0;
	uint64_t n = (uint64_t)n0 + n1;
	if (ret_n)
		*ret_n = (uint32_t)n;
	if (n == 0)
		return 0;
	if (q_permille > 1000)
		q_permille = 1000;
	uint64_t rank = (n * q_permille + 999) / 1000; /* of the sample asked for, from 1 */
	if (rank == 0)
		rank = 1;
	uint64_t seen = 0;
	uint32_t b = 0;
	for (; b < SBX_LATENCY_BUCKETS; b += SBX_LATENCY_SUB) { /* whole octaves first: asked at every request, and seconds are far up */
		uint64_t more = (n0 ? in_octave(&l->count[0][b]) : 0u) + (n1 ? in_octave(&l->count[1][b]) : 0u);
		if (seen + more >= rank)
			break;
		seen += more;
	}
	for (; b < SBX_LATENCY_BUCKETS; b++) {
		seen += (n0 ? l->count[0][b] : 0u) + (n1 ? l->count[1][b] : 0u);
		if (seen >= rank)
			return middle_of(b);
	}
	return middle_of(SBX_LATENCY_BUCKETS - 1);
}
