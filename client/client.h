/* SPDX-License-Identifier: Apache-2.0 */
/*
 * client.h -- the inside of a handle: one connection, the requests that run on it, and the bytes on their way.
 *
 * BYTES IN. `in` holds what the agent sent, as it came. A frame is decoded where it lies when the application asks for the next
 * event, and what the event shows is borrowed from it: a NUL is put behind each string, which overwrites at most one byte of the
 * frame after it, and that byte is put back by the next call (`taken`). So an event costs no allocation and no copy.
 * `later` holds frames that were passed over: those of other requests during sbx_ask(), and the last ones of a lost
 * connection. They go first.
 *
 * BYTES OUT. `out` starts with the first frame that the kernel has not taken whole; out_sent counts how much of it is gone. So
 * when the connection breaks, `out` is exactly what the agent cannot have acted on.
 *
 * LINK. DOWN -> GREETING (connected, HELLO sent) -> UP (welcomed) -> DOWN. Only HELLO is written before UP.
 *   sbx_link_lost() is the only way down. It decides for every request in flight: submit again or end as AGENT_LOST. As long as
 *   something waits to be submitted again the link is `retrying`: connects by itself, until give_up_ns.
 *
 * AN AGENT THAT LEAVES (it stops, or another one took its place) says so: `leaving`. What it has not taken it will not act on,
 * and goes to its successor, whom the same path leads to; what it has taken runs on over this connection, which the agent closes
 * when the last of that has ended. Requests that come up meanwhile are postponed to the next connection.
 *
 * ORDER of events: `later`, then what the library itself has to say (`due`), then `in`.
 */
#ifndef SBX_CLIENT_CLIENT_H
#define SBX_CLIENT_CLIENT_H

#include <sys/types.h>
#include <sys/un.h>

#include <signalbox.h>

#include "client/board.h"
#include "client/buf.h"
#include "client/reply.h"
#include "client/wire.h"

#define SBX_CLIENT_NAME_MAX_BYTES 64
#define SBX_INFLIGHT_MAX 4096             /* requests on one handle; a power of two: the slot is in the id */
#define SBX_UNSENT_MAX_BYTES (64u << 20)  /* two of the largest bodies */
#define SBX_LATER_MAX_BYTES (256u << 20)  /* the full credit of a thousand requests, all passed over by one sbx_ask() */
#define SBX_CORKED_MAX_BYTES (64u << 10)  /* what sbx_cork() holds back: less than a socket takes */
#define SBX_READ_BYTES (64u << 10)        /* of one recv(): some hundred events */
#define SBX_IN_HIGH_BYTES (256u << 10)    /* sbx_process() reads no further than this ahead of sbx_next() */
#define SBX_GRANT_BYTES (SBX_CREDIT_BYTES / 4) /* consumed until a CREDIT is due; what is not granted yet can never stall a
                                                * request, since three quarters of the window stay with the agent */
#define SBX_DEADLINE_TAIL_BYTES 4         /* deadline_ms ends a SUBMIT, as a uint32, so that it can be shortened in place */
#define SBX_RESUBMIT_MAX 3                /* a request that takes the agent down each time must not do so for ever */

enum sbx_link { SBX_LINK_DOWN, SBX_LINK_GREETING, SBX_LINK_UP };

enum sbx_due { SBX_DUE_NOTHING, SBX_DUE_RESET, SBX_DUE_LOST };

struct sbx_inflight {
	uint64_t id;             /* serial * SBX_INFLIGHT_MAX + slot */
	uint64_t deadline_ns;    /* monotonic; 0 = the agent's default */
	uint64_t consumed_bytes; /* of payload, not yet granted anew */
	uint8_t *again;          /* owned copy of its SUBMIT: until the agent took it, and with an idempotency key for good; or NULL */
	size_t again_bytes;
	struct sbx_reply *gather; /* sbx_ask()'s, borrowed: pieces go there; NULL = they are events */
	int gather_rc;           /* why gathering failed */
	uint32_t resubmits;
	bool keyed;              /* has an idempotency key */
	bool restart;            /* RESET is welcome */
	bool taken;              /* ACCEPTED on this connection: the agent acts on it */
	bool postponed;          /* it is for the next connection: this one's agent leaves, and has not acted on it */
	bool accepted;           /* told */
	bool began;              /* pieces came: submitting it again takes a RESET */
	bool ended;              /* its last frame came, or the library ended it; perhaps not told yet */
	bool cancelled;
	bool held;               /* sbx_hold(): the application grants credit itself */
	bool unsent, kept;       /* only inside sbx_link_lost(): its frame was in `out`, and stays there */
	bool maybe_sent;         /* its frame left whole on some connection that broke: the agent may have acted on it */
	enum sbx_due due;
	struct sbx_inflight *due_next;
};

struct sbx_client {
	/* who */
	struct sockaddr_un address;
	char name[SBX_CLIENT_NAME_MAX_BYTES + 1];
	uint32_t timeout_ms;
	uint8_t *owner_page;     /* a page that fork() leaves empty in the child; NULL = the kernel cannot: owner_pid tells */
	pid_t owner_pid;
	/* link */
	enum sbx_link link;
	int fd;                  /* -1 when DOWN */
	bool drained;            /* the last recv() took all there was */
	bool leaving;            /* the agent said that it takes no request any more */
	uint64_t greet_by_ns;    /* GREETING */
	bool retrying;           /* DOWN, with requests waiting in `out` */
	uint64_t retry_ns, give_up_ns; /* give_up_ns 0 = not counting */
	uint32_t backoff_ms;
	int lost_rc;
	char lost_why[256];      /* of the last link */
	char farewell[256];      /* the agent's own reason, before it closes */
	/* bytes */
	struct sbx_buf in, later, out;
	bool corked;             /* sbx_cork() */
	size_t out_sent;         /* bytes of `out` that are gone: less than its first frame */
	size_t later_stale_bytes; /* bytes of `later` from a connection that is gone: no credit is granted for them */
	struct sbx_buf *taken_from; /* the buffer that the event out there borrows from; NULL = none */
	size_t taken_bytes;      /* its frame */
	uint8_t taken_byte;      /* the byte behind it */
	uint64_t taken_id;
	size_t taken_paid_bytes;
	/* board */
	struct sbx_board *board; /* the newest that came; one reference; NULL = none */
	int board_rc;            /* why there is none */
	char board_why[192];
	/* requests */
	struct sbx_inflight **slots;
	uint32_t n_slots, n_inflight, slot_hint;
	uint64_t serial;
	struct sbx_inflight *due_head, **due_tail;
	struct sbx_reply *reply; /* of the event out there */
	char error[512];
};

/* ---- client.c ---- */
int sbx_fail(struct sbx_client *c, int rc, const char *fmt, ...) __attribute__((format(printf, 3, 4))); /* rc */
uint64_t sbx_now_ns(void);
int sbx_enter(struct sbx_client *c); /* at the door of every call: 0 or -SBX_EFORK; ends the loan of the last event */
struct sbx_inflight *sbx_inflight_find(const struct sbx_client *c, uint64_t id);
void sbx_inflight_remove(struct sbx_client *c, struct sbx_inflight *req);
void sbx_due_add(struct sbx_client *c, struct sbx_inflight *req, enum sbx_due due);
int sbx_submit_for(struct sbx_client *c, const struct sbx_request_options *options, struct sbx_reply *gather,
                   struct sbx_inflight **ret_req);
/* Counts what was consumed of a request's credit, and queues a CREDIT when it is time. */
void sbx_consumed(struct sbx_client *c, struct sbx_inflight *req, size_t paid_bytes);

/* ---- ask.c ---- */
/* Takes every whole frame off `in`: gathers those of an sbx_ask(), puts the others to `later`. 0, -SBX_EBUSY when `later` is
 * full, -SBX_EPROTO with a sentence in why, -SBX_ENOMEM; the frame in question stays. */
int sbx_sort_frames(struct sbx_client *c, char *why, size_t why_bytes);

/* ---- link.c ---- */
int sbx_link_find(struct sbx_client *c, const char *socket); /* sets the address: 0, -SBX_EINVAL */
int sbx_link_connect(struct sbx_client *c);                  /* DOWN -> GREETING; 0, -SBX_EAGENT, _EACCESS, _EBUSY, _ENOMEM */
void sbx_link_lost(struct sbx_client *c, int rc, const char *why);
void sbx_link_close(struct sbx_client *c);                   /* only the descriptor */
void sbx_link_flush(struct sbx_client *c);                   /* as much of `out` as the socket takes */
int sbx_link_read(struct sbx_client *c);                     /* 1 bytes came or the link was lost; 0 nothing; -SBX_ENOMEM */
bool sbx_link_tick(struct sbx_client *c);                    /* does what the clock demands; true = something did change */
uint64_t sbx_link_due_ns(const struct sbx_client *c);        /* when that is; UINT64_MAX = never */
int sbx_link_wait(struct sbx_client *c, uint64_t until_ns);  /* 0 something may have changed; -SBX_ETIME; -SBX_ENOMEM */
bool sbx_link_can_read(const struct sbx_client *c);
bool sbx_frame_waits(const struct sbx_client *c);            /* a whole frame is in `in`, behind the one on loan */
/* A frame with id 0. */
void sbx_link_on_frame(struct sbx_client *c, const struct sbx_frame *frame);
void sbx_link_taken(struct sbx_inflight *req); /* ACCEPTED came */
/* Is this ERROR only the word of an agent that leaves, about a request that it did not take? Then it goes to the next one. */
bool sbx_link_turned_away(struct sbx_inflight *req, const struct sbx_frame *frame);

#endif
