/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exchange.h -- the hands of one request: carries out what core/request decides, and tells it what happened.
 *
 * An exchange binds the pieces together and decides nothing: the client's side (an outbox), the judgement (struct sbx_request),
 * and one leg per running attempt, which is a call to a provider and the decoder of its answer. It lives from SUBMIT until
 * its last frame has gone out, or until its session is gone and the provider's call with it.
 *
 * Callbacks may end an exchange or a leg at any depth of the stack, so nothing is freed where it ends: it is marked dead, and
 * sbx_exchange_reap() frees it at the end of the turn.
 */
#ifndef SBX_AGENT_IO_EXCHANGE_H
#define SBX_AGENT_IO_EXCHANGE_H

#include "agent/io/agent.h"
#include "agent/io/outbox.h"
#include "agent/io/submit.h"

struct sbx_note_of_attempt;

struct sbx_exchange {
	uint32_t magic;
	bool dead;                        /* waits to be reaped */
	bool data;                        /* the client wants the answer's own bytes */
	bool client_usage;                /* the client itself asked for the usage chunk */
	bool want_cost;                   /* and for the cost in it */
	struct sbx_agent *agent;
	struct sbx_world *world;          /* one reference */
	struct sbx_session *session;      /* NULL once the client is gone */
	struct sbx_peer *peer;
	struct sbx_whom *whom;            /* beside the peer; NULL = it says it all */
	struct sbx_exchange *next_by_id;  /* the session's table */
	struct sbx_exchange *next_dead;
	uint64_t id;                      /* the client's number for it */
	uint64_t number;                  /* ours: since the start of the agent */
	struct sbx_tally_ticket ticket;
	const struct sbx_route *route;    /* of the world; NULL = it asked for a model or for targets */
	char *body;                       /* the request's bytes, owned; ask points into them */
	struct sbx_ask ask;
	const struct sbx_dialect *dialect;
	char *idempotency_key;            /* NULL = none */
	struct sbx_request req;
	struct sbx_timer timer;           /* fires at or before sbx_request_wake_ns() */
	struct sbx_outbox out;
	struct sbx_leg *leg;              /* running attempts */
	struct sbx_note_of_attempt *note; /* what DONE tells of each attempt, by its number */
	uint32_t n_notes;
	uint32_t told;                    /* bit n: attempt n was counted and logged */
};

/* Begin: everything in the SUBMIT is checked here. 0, and the exchange belongs to itself; or -SBX_EINVAL: refused, with
 * ret_code, a sentence and perhaps a time to wait; nothing is left of it then. */
struct sbx_refusal {
	enum sbx_code code;
	int64_t retry_after_ms; /* -1 = none */
	char param[96];         /* the member of the body to blame; "" = none */
	char why[384];
};
int sbx_exchange_new(struct sbx_agent *agent, struct sbx_session *session, struct sbx_stream *stream, struct sbx_peer *peer, uint64_t id,
                     const struct sbx_submit *submit, struct sbx_exchange **ret_exchange, struct sbx_refusal *ret_refusal);
/* The first step: ACCEPTED was sent. May end the exchange. */
void sbx_exchange_start(struct sbx_exchange *ex);
void sbx_exchange_cancel(struct sbx_exchange *ex, enum sbx_code code); /* CANCELLED, DRAINING */
void sbx_exchange_credit(struct sbx_exchange *ex, uint64_t bytes);
void sbx_exchange_flush(struct sbx_exchange *ex);                      /* the client reads again */
void sbx_exchange_orphan(struct sbx_exchange *ex);                     /* the client is gone */
void sbx_exchange_reap(struct sbx_agent *agent);
int sbx_exchange_reserve_timers(struct sbx_agent *agent);              /* before one more session or exchange; 0 or -SBX_ENOMEM */
void sbx_exchange_drop_legs(struct sbx_agent *agent);                  /* at the end: connections that are still being drained */

/* The session's side: an exchange has sent its last frame and its id is free. */
void sbx_session_forget(struct sbx_session *session, struct sbx_exchange *ex);

#endif
