/* SPDX-License-Identifier: Apache-2.0 */
/*
 * latency.h -- quantiles of a time, from 1 ms to an hour, in constant memory.
 *
 * A log-linear histogram (error at most 5 %), kept twice: the running half of five minutes and the one before it; a
 * question is answered from both, so that old times fade out within ten minutes and a fresh half does not start blind.
 */
#ifndef SBX_AGENT_CORE_LATENCY_H
#define SBX_AGENT_CORE_LATENCY_H

#include <stdint.h>

#define SBX_LATENCY_HALF_NS (300ull * 1000000000ull)
/* 22 octaves from 1 ms (2^22 ms = 70 minutes, the first power of two above an hour), each cut into 16 equal buckets: the middle
 * of a bucket is at most 1/32 of its lower edge away from any time in it, so the error is below 3.2 %. 1,424 bytes in all. */
#define SBX_LATENCY_OCTAVES 22
#define SBX_LATENCY_SUB 16
#define SBX_LATENCY_BUCKETS (SBX_LATENCY_OCTAVES * SBX_LATENCY_SUB)

/* All zero is a valid, empty one: thousands may be calloc'd, and cost no memory before their first sample. */
struct sbx_latency {
	uint64_t half_started_ns;
	uint32_t n[2];                           /* samples counted in [0] the running half, [1] the one before it */
	uint16_t count[2][SBX_LATENCY_BUCKETS];  /* saturating: at the top the whole half is halved, which keeps its shape */
};

void sbx_latency_add(struct sbx_latency *l, uint64_t value_ns, uint64_t now_ns);
/* The same quantiles once more: what an earlier histogram, as of then_ns, told of its n samples is put into an empty one as so many
 * samples at these three times. Fades as they would have. Numbers that no histogram tells are not taken. */
#define SBX_LATENCY_REFILL_MAX 1000 /* a p99 of ten samples; and what comes after a restart soon outweighs what was before it */
void sbx_latency_refill(struct sbx_latency *l, uint64_t n, uint64_t p50_ns, uint64_t p95_ns, uint64_t p99_ns, uint64_t then_ns);
/* The q-quantile (q in per mille: 500, 950, 990) as the middle of its bucket; 0 when nothing was seen within the two halves.
 * ret_n: samples behind it, may be NULL. Times below 1 ms and above the last octave answer with the first and last bucket. */
uint64_t sbx_latency_quantile_ns(const struct sbx_latency *l, uint32_t q_permille, uint64_t now_ns, uint32_t *ret_n);

#endif
