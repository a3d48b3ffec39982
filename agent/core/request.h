/* SPDX-License-Identifier: Apache-2.0 */
/*
 * request.h -- THE state machine: one request, its attempts, and what has to happen next.
 *
 * sbx_request_step(req, judge, event, now_ns, effects) is the only writer of any state. Events say what happened; effects say
 * what io/ has to do about it, in order. Nothing here knows a socket, a clock or a byte of content: content of a committed
 * stream passes by, and only sbx_request_on_content() hears of it.
 *
 *   NEW --> ROUTING --> WAITING (for a back-off or a Retry-After) --> ROUTING
 *              |------> TRYING  (an attempt runs, nothing of it was delivered yet)
 *              |           |--- its failure, and another may follow ------> ROUTING
 *              |           |--- first content of a stream ---> COMMITTED --> DONE
 *              |           |                                       `--- broken, the client takes a RESET --> ROUTING
 *              |           |--- whole answer complete -------------------> DONE
 *              `-----------`--- no target left, deadline, cancel --------> FAILED | CANCELLED
 *
 * Invariants, asserted and checked by the simulation: exactly one END effect per request and nothing after it; after content
 * was delivered no other attempt starts unless a RESET says so first; every state that is not final has a deadline
 * (sbx_request_wake_ns); attempts and time are bounded; every attempt that was started is ended exactly once in health.
 *
 * What the caller owes: an attempt's events come in the order in which they happened; COMPLETE (or end.complete) is told only
 * of an answer that lost nothing on its way; after a step whose effects hold ABORT n or END, nothing of attempt n is delivered.
 */
#ifndef SBX_AGENT_CORE_REQUEST_H
#define SBX_AGENT_CORE_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include <signalbox/errors.h>

#include "agent/core/class.h"
#include "agent/core/health.h"
#include "agent/core/tables.h"

/* All attempts of a request. Those that count are at most policy.attempts_max; those that do not (not sent, refused, wrong key)
 * are bounded by this. It equals the longest route: a repeat on the same target is only granted while a place is left for
 * every target not tried yet, so that no target goes unasked because another one was asked twice. Reaching it ends the request. */
#define SBX_ATTEMPTS_MAX SBX_ROUTE_TARGETS_MAX
#define SBX_EFFECTS_MAX 8

#define SBX_REQ_STATES(X) X(NEW) X(ROUTING) X(WAITING) X(TRYING) X(COMMITTED) X(DONE) X(FAILED) X(CANCELLED)
enum sbx_req_state {
#define X(name) SBX_REQ_##name,
	SBX_REQ_STATES(X)
#undef X
	SBX_REQ__COUNT
};
#define SBX_ATT_STATES(X) X(QUEUED) X(CONNECTING) X(SENDING) X(WAITING_FIRST) X(STREAMING) X(FINISHING) X(ENDED)
enum sbx_att_state {
#define X(name) SBX_ATT_##name,
	SBX_ATT_STATES(X)
#undef X
	SBX_ATT__COUNT
};
const char *sbx_req_state_name(enum sbx_req_state s);
const char *sbx_att_state_name(enum sbx_att_state s);

/* Every legal move, X(from, to): the only ones that the setters in request.c let pass. */
#define SBX_REQ_MOVES(X)                                                                                                       \
	X(NEW, ROUTING)                                                       X(NEW, CANCELLED)                                \
	X(ROUTING, WAITING) X(ROUTING, TRYING)                                X(ROUTING, FAILED)                               \
	X(WAITING, ROUTING)                                                   X(WAITING, FAILED)   X(WAITING, CANCELLED)       \
	X(TRYING, ROUTING) X(TRYING, COMMITTED) X(TRYING, DONE)               X(TRYING, FAILED)    X(TRYING, CANCELLED)        \
	X(COMMITTED, ROUTING) /* only where the client takes a RESET */                                                        \
	X(COMMITTED, DONE)                                                    X(COMMITTED, FAILED) X(COMMITTED, CANCELLED)
#define SBX_ATT_MOVES(X)                                                                                                       \
	X(QUEUED, CONNECTING)                                                                                                  \
	X(CONNECTING, SENDING) X(CONNECTING, WAITING_FIRST)                   X(CONNECTING, ENDED)                             \
	X(SENDING, WAITING_FIRST)                                             X(SENDING, ENDED)                                \
	X(WAITING_FIRST, STREAMING) X(WAITING_FIRST, FINISHING)               X(WAITING_FIRST, ENDED)                          \
	X(STREAMING, FINISHING)                                               X(STREAMING, ENDED)                              \
	X(FINISHING, ENDED)

/* The order of the fields keeps a request below 2 KiB: 10,000 of them live at once. */
struct sbx_attempt {
	uint64_t started_ns, sent_ns, first_content_ns, last_bytes_ns, last_content_ns, ended_ns; /* 0 = not yet */
	uint64_t limit_ns;           /* absolute: when the present state has lasted too long. Set on entering it and never moved by
	                              * bytes; UINT64_MAX in STREAMING, whose idle limits follow last_bytes_ns and last_content_ns */
	uint32_t target;             /* row */
	uint32_t credential;         /* UINT32_MAX = none */
	uint16_t provider;
	int16_t status;              /* HTTP, or the one that an error inside a 200 carries; 0 = none */
	uint8_t candidate;           /* index into the request's candidates */
	enum sbx_att_state state : 8;
	enum sbx_class class : 8;    /* NONE while it runs */
	bool probe : 1;              /* the one trial of a target that was thought to be down */
	bool complete : 1;           /* COMPLETE was seen: by its content the answer is whole */
	bool timed_out : 1;          /* ended by one of our limits */
	bool told_no_retry : 1;      /* its provider said x-should-retry: false */
};

/* A target that may answer this request, in the order of preference. */
struct sbx_candidate_row {
	const struct sbx_policy *policy; /* of its provider */
	int64_t context_tokens;      /* 0 = unknown */
	uint32_t target;             /* row in health */
	uint16_t provider;
	uint8_t name;                /* number of the name that it was found by */
	bool reasoning;              /* the model reasons, and the request did not turn it off */
	/* what this request has done with it; written by step only */
	uint8_t counted, uncounted;  /* attempts that ended */
	uint8_t keys_tried;          /* bit n: the provider's credential n was refused as a key; not used again */
	uint8_t keys_throttled;      /* bit n: it was answered 429; not used again before a wait */
	bool closed : 1;             /* not to be tried again in this request */
	bool refused : 1;            /* it said "not now" */
	bool waited : 1;             /* and that was waited out once already */
	bool resent : 1;             /* its one free repeat after NOT_SENT was used */
	bool too_small : 1;          /* closed because its context is not larger than one that was too small */
	enum sbx_gate passed_over : 8; /* why it was not used when it was its turn: THROTTLED, BROKEN, NO_KEY; YES = it was not passed over */
};

#define SBX_REQUEST_MAGIC 0x52455131u /* "REQ1" */

struct sbx_request {
	uint32_t magic;
	enum sbx_req_state state : 8;
	enum sbx_op op : 8;          /* what is asked for; set before candidates are looked for */
	bool stream;                 /* content is delivered as it comes */
	bool restart;                /* the client takes a RESET */
	bool replay_uncertain;       /* this request allows it (the provider's policy must too); init sets it */
	uint8_t tries_per_name;      /* attempts on all candidates of one name; 0 = as the policy has it */
	uint8_t n_candidates, n_attempts, counted;
	uint8_t running;             /* attempts that have not ended */
	uint8_t shown;               /* attempt whose failure the client would be told; SBX_ATTEMPTS_MAX = none */
	bool forced;                 /* the last-resort trial of an open target was used */
	bool content_reached;        /* some content was delivered since the last RESET */
	uint64_t started_ns, deadline_ns;
	uint64_t wait_from_ns, wait_until_ns; /* WAITING */
	uint64_t held_ns;            /* waited so far because of refusals, in all; at most policy.wait_max_ns */
	uint64_t ended_ns;           /* 0 = not yet */
	int64_t context_too_small;   /* largest context that was refused as too small; 0 = none */
	uint64_t jitter;             /* state of the request's own random numbers */
	struct sbx_candidate_row candidate[SBX_ROUTE_TARGETS_MAX];
	struct sbx_attempt attempt[SBX_ATTEMPTS_MAX];
};
_Static_assert(SBX_KEYS_MAX <= 8, "keys_tried has one bit a credential");
_Static_assert(sizeof(struct sbx_request) <= 2048, "10,000 concurrent requests in 20 MiB");

/* What judgement may ask and tell while it decides. */
struct sbx_judge {
	const struct sbx_tables *tables;
	struct sbx_health *health;
};

enum sbx_req_event_kind {
	SBX_REQ_EV_START,      /* candidates are filled in: begin */
	SBX_REQ_EV_CONNECTED,  /* attempt: the connection stands, the request begins to leave. May be left out: a SENT implies it */
	SBX_REQ_EV_SENT,       /* attempt: connected, and its last request byte has left */
	SBX_REQ_EV_BYTES,      /* attempt: bytes of the answer arrived, no content */
	SBX_REQ_EV_CONTENT,    /* attempt: content arrived */
	SBX_REQ_EV_COMPLETE,   /* attempt: by its content the answer is whole */
	SBX_REQ_EV_ENDED,      /* attempt: over; `end` says how */
	SBX_REQ_EV_TIMER,      /* sbx_request_wake_ns() has passed (or not: harmless) */
	SBX_REQ_EV_CANCEL,     /* the client asked, or left, or the agent stops; code = CANCELLED, DRAINING or INTERNAL */
};
struct sbx_req_event {
	enum sbx_req_event_kind kind;
	uint8_t attempt;
	enum sbx_code code;          /* CANCEL */
	const struct sbx_end *end;   /* ENDED */
};

enum sbx_effect_kind {
	SBX_FX_START,   /* attempt: send the request to its target with its credential */
	SBX_FX_ABORT,   /* attempt: stop the transfer; no event of it is wanted any more */
	SBX_FX_COMMIT,  /* attempt: deliver what was held back, and from now on everything as it comes. Stands once before END_OK,
	                 * also for a whole answer and for one without any content */
	SBX_FX_DROP,    /* attempt: forget what was held back of it; it failed, or its request did */
	SBX_FX_RESET,   /* attempt: the client must forget what it got; this attempt, whose START follows, starts over */
	SBX_FX_END_OK,  /* attempt: the answer is complete; the last effect of a request */
	SBX_FX_END_ERROR, /* code, status, attempt whose error to show (SBX_ATTEMPTS_MAX = none), retry_after_ns; the last effect */
};
struct sbx_effect {
	enum sbx_effect_kind kind;
	uint8_t attempt;
	enum sbx_code code;
	int status;                  /* END_ERROR: the provider's where it has one, else that of the code */
	int64_t retry_after_ns;      /* END_ERROR: -1 = not known */
	bool retryable;              /* END_ERROR: asking again may help, and cannot be billed twice in silence */
};
struct sbx_effects {
	uint32_t n;
	struct sbx_effect fx[SBX_EFFECTS_MAX];
};

/* Prepare. Then fill candidate[] and n_candidates (at least one) and step with START. seed: any number, for jitter. */
void sbx_request_init(struct sbx_request *req, bool stream, bool restart, uint64_t deadline_ns, uint64_t now_ns, uint64_t seed);
void sbx_request_step(struct sbx_request *req, struct sbx_judge *judge, const struct sbx_req_event *ev, uint64_t now_ns,
                      struct sbx_effects *ret_effects);
/* When to step with TIMER at the latest; UINT64_MAX once ended. Content only ever moves it later: a caller may keep an armed
 * earlier timer and ask again when it fires. */
uint64_t sbx_request_wake_ns(const struct sbx_request *req);
bool sbx_request_ended(const struct sbx_request *req);

/* The short path: content of a committed stream passed by. Same as a step with CONTENT that has no effects. */
static inline void
sbx_request_on_content(struct sbx_request *req, uint8_t attempt, uint64_t now_ns)
{
	req->attempt[attempt].last_bytes_ns = now_ns;
	req->attempt[attempt].last_content_ns = now_ns;
}
/* Bytes without content (comments, pings). */
static inline void
sbx_request_on_bytes(struct sbx_request *req, uint8_t attempt, uint64_t now_ns)
{
	req->attempt[attempt].last_bytes_ns = now_ns;
}

/* ---- for tests, logs and the simulation ---- */
/* NULL, or the invariant that does not hold (between steps; request_check.c). */
const char *sbx_request_validate(const struct sbx_request *req);

#endif
