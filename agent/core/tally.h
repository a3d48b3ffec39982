/* SPDX-License-Identifier: Apache-2.0 */
/*
 * tally.h -- what was asked and what became of it, counted since the agent started, for a monitoring system.
 *
 * A row is the count of all requests, or of all attempts, that have the same target, route, tenant, operation and outcome: how many,
 * two histograms of time, and for attempts tokens and cost. A row is written once at the end of each, so that nothing is done per
 * token, and without a system call; memory is taken only when a name is seen for the first time.
 *
 * EVERYTHING IS BOUNDED, because names come from outside: tenants from a door's keys, targets ("provider/model") from any client. Of
 * each kind of name so many are remembered, and one more is counted as "other"; models that no configuration knows can take half of
 * the targets' places, so that they never use up those of the configured ones. When the rows run out, tenants are put
 * together first, then everything but operation and outcome. How often that happened is counted as well. Nothing is ever
 * forgotten, so that no number ever goes down.
 *
 * Rows are only ever added behind the last one: a reader may come back for the rest of them later.
 */
#ifndef SBX_AGENT_CORE_TALLY_H
#define SBX_AGENT_CORE_TALLY_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/core/bill.h"
#include "client/span.h"

#define SBX_TALLY_ROWS_MAX 2048   /* 0.7 KiB each, once used */
#define SBX_TALLY_TARGETS_MAX 256
#define SBX_TALLY_TARGETS_UNKNOWN_MAX 128
#define SBX_TALLY_ROUTES_MAX 128
#define SBX_TALLY_TENANTS_MAX 128
#define SBX_TALLY_OTHER "other"

/* Bounds of OpenTelemetry's conventions for generative AI: 10 ms * 2^n, and 4^n tokens. A value on a bound is below it. */
#define SBX_TALLY_BOUNDS 14
uint64_t sbx_tally_time_bound_ms(uint32_t i);
uint64_t sbx_tally_token_bound(uint32_t i);

struct sbx_tally_histogram {
	uint64_t bucket[SBX_TALLY_BOUNDS + 1]; /* not cumulative; the last one is beyond all bounds */
	uint64_t sum;                          /* ns, or tokens */
};

enum sbx_tally_what { SBX_TALLY_REQUEST, SBX_TALLY_ATTEMPT, SBX_TALLY_RUNNING /* only n, and that goes down again */ };

struct sbx_tally_key {
	enum sbx_tally_what what : 8;
	uint8_t op;                            /* enum sbx_op; SBX_OP__COUNT = it could not be read */
	uint8_t outcome;                       /* REQUEST: enum sbx_code, NONE = answered; ATTEMPT: enum sbx_class */
	uint16_t target, route, tenant;        /* see sbx_tally_name() */
};

struct sbx_tally_row {
	struct sbx_tally_key key;
	uint64_t n;
	struct sbx_tally_histogram duration, first_content; /* the second of streams alone */
	struct sbx_tally_histogram input, output;           /* tokens of attempts whose provider told them */
	uint64_t cached, cache_write, reasoning;            /* parts of them */
	uint64_t cost_nanousd;
	uint64_t cost_unknown;                 /* attempts of which no cost is known */
};

enum sbx_tally_label { SBX_TALLY_TARGET, SBX_TALLY_ROUTE, SBX_TALLY_TENANT, SBX_TALLY__LABELS };

struct sbx_tally;
struct sbx_tally *sbx_tally_new(void); /* NULL on no memory */
void sbx_tally_free(struct sbx_tally *t); /* NULL is fine */

/* One request from its beginning to its end. */
struct sbx_tally_ticket {
	uint16_t route, tenant, running;
};
struct sbx_tally_ticket sbx_tally_begin(struct sbx_tally *t, struct sbx_span route, struct sbx_span tenant); /* "" = none */

struct sbx_tally_end {
	struct sbx_span target;  /* "" = none was asked */
	bool unknown;            /* a target of no configuration */
	uint8_t op, outcome;     /* as in the row */
	uint64_t duration_ns;
	bool streamed;           /* a stream of which content came */
	uint64_t first_content_ns; /* of a stream: since the same beginning; 0 where both are seen in one turn of the loop */
	const struct sbx_usage *usage; /* attempts only; else NULL */
	const struct sbx_bill *bill;
};
void sbx_tally_attempt(struct sbx_tally *t, const struct sbx_tally_ticket *ticket, const struct sbx_tally_end *end);
void sbx_tally_request(struct sbx_tally *t, const struct sbx_tally_ticket *ticket, const struct sbx_tally_end *end); /* the ticket is used up */
/* A request that never began: it is counted and has no time. */
void sbx_tally_refusal(struct sbx_tally *t, struct sbx_span tenant, uint8_t op, enum sbx_code code);

/* ---- reading ---- */
uint32_t sbx_tally_rows(const struct sbx_tally *t);
const struct sbx_tally_row *sbx_tally_row(const struct sbx_tally *t, uint32_t i);
/* Of a number in a row: "" for none, SBX_TALLY_OTHER. */
const char *sbx_tally_name(const struct sbx_tally *t, enum sbx_tally_label label, uint16_t number);
bool sbx_tally_knows_target(const struct sbx_tally *t, struct sbx_span target);
uint64_t sbx_tally_folded(const struct sbx_tally *t, enum sbx_tally_label label); /* times that a name was counted as "other" */
uint64_t sbx_tally_crowded(const struct sbx_tally *t);                           /* times that there was no row left */

#endif
