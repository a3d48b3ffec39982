/* SPDX-License-Identifier: Apache-2.0 */
/*
 * outbox.h -- what one request sends to its client: frames, in order, within its credit.
 *
 * An outbox is a gate and a queue. EVENT frames go straight to the session's stream while the gate is open (the attempt is
 * committed), nothing waits before them, the credit suffices and the client reads; else they wait in the queue. The last frame,
 * DONE or ERROR, waits behind them. Payload over SBX_EVENT_MAX_BYTES is cut into several frames, text on a character's border.
 */
#ifndef SBX_AGENT_IO_OUTBOX_H
#define SBX_AGENT_IO_OUTBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "agent/dialect/hub.h"
#include "agent/io/agent.h"
#include "client/wire.h"

#define SBX_OUTBOX_MAX_BYTES (192u << 20)    /* a whole answer of 64 MiB in frames, with room for the worst of its keys */
#define SBX_SESSION_HIGH_BYTES (1u << 20)   /* unsent bytes of a client: beyond this its streams wait */

struct sbx_outbox {
	struct sbx_agent *agent;
	struct sbx_stream *stream;   /* of the session; NULL once it is gone: everything is dropped */
	uint64_t id;
	uint64_t credit_bytes;
	bool open;                   /* the gate */
	bool last_queued;            /* DONE or ERROR is in the queue, or was sent: nothing follows */
	bool failed;                 /* an EVENT was lost for want of memory, or over the maximum: the request must not end well */
	struct sbx_buf queue;        /* records: frame bytes u32, payload bytes u32, frame */
};

void sbx_outbox_init(struct sbx_outbox *o, struct sbx_agent *agent, struct sbx_stream *stream, uint64_t id);
void sbx_outbox_fini(struct sbx_outbox *o);

/* One hub event as typed EVENT frames; kinds that have none are skipped. */
void sbx_outbox_event(struct sbx_outbox *o, const struct sbx_hub_event *ev);
/* Bytes for EVENT DATA: prefix, payload, suffix as one run. */
void sbx_outbox_data(struct sbx_outbox *o, struct sbx_span prefix, struct sbx_span payload, struct sbx_span suffix);
/* Who is asked now; sent at once. */
void sbx_outbox_target(struct sbx_outbox *o, const char *target, uint8_t attempt);

/* A frame built by the caller in agent->frame: queued as the last one, or sent at once (RESET). 0, or -SBX_ENOMEM: it has no
 * room behind what waits; after sbx_outbox_drop() it needs none. */
int sbx_outbox_last(struct sbx_outbox *o);
void sbx_outbox_now(struct sbx_outbox *o);

void sbx_outbox_open(struct sbx_outbox *o);                     /* what waited goes out as far as it may */
void sbx_outbox_drop(struct sbx_outbox *o);                     /* forget what waits; the gate closes */
void sbx_outbox_grant(struct sbx_outbox *o, uint64_t bytes);    /* CREDIT */
void sbx_outbox_flush(struct sbx_outbox *o);
bool sbx_outbox_waiting(const struct sbx_outbox *o);            /* something is in the queue */

#endif
