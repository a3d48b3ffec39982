/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop_internal.h -- what the files of the event loop share: the objects, and what a backend must be able to do.
 *
 * Every object states what it wants (read, send, accept, poll); the backend's sync() makes the kernel's side match it.
 * An object that changed its mind is put on the dirty list, and all dirty objects are synced in one place, at the start of
 * a turn, just before the wait. So any number of changes costs one operation, descriptors are never handed to the kernel
 * in the middle of a callback, and io_uring submits a whole turn's work with the system call that waits.
 *
 * What an object has to tell besides kernel events (held bytes after a resume, a drained queue, the end) goes through the
 * ready list: callbacks come from the dispatch phase only, never from inside a call of the user's.
 *
 * Lifetime: a closed object is `dead`, gets no callback, and is freed at the end of a turn once the kernel holds no
 * operation of it (in_flight == 0). A slot number plus a generation names an object towards the kernel, so an event for a
 * former owner of the slot is recognised and dropped.
 */
#ifndef SBX_AGENT_IO_LOOP_INTERNAL_H
#define SBX_AGENT_IO_LOOP_INTERNAL_H

#include "agent/io/loop.h"

#include <sys/queue.h>
#include <sys/socket.h>
#include <sys/uio.h>

#define SBX_NEVER_NS UINT64_MAX

/* Out of descriptors or memory: how long to leave the kernel alone. Long enough to cost nothing, short enough that a
 * client in the backlog hardly notices. */
#define SBX_STARVED_NS (100 * 1000 * 1000ull)

enum sbx_loop_obj_kind { SBX_OBJ_LISTENER, SBX_OBJ_STREAM, SBX_OBJ_WATCH };

struct sbx_loop_obj { /* first member of every object */
	struct sbx_loop *loop;
	int fd;                           /* stream: owned; listener, watch: the caller's */
	uint32_t slot;                    /* index into loop->slots */
	uint32_t in_flight;               /* operations of the kernel that will still complete; epoll has none */
	uint8_t kind;                     /* enum sbx_loop_obj_kind */
	bool dead, dirty, ready, starved; /* dead: closed by the user; the others: on the list of that name */
	TAILQ_ENTRY(sbx_loop_obj) dirty_link, ready_link, starved_link, dead_link;
};
TAILQ_HEAD(sbx_loop_list, sbx_loop_obj);

struct sbx_listener {
	struct sbx_loop_obj obj;
	sbx_accept_fn *on_accept;
	void *arg;
	bool paused;     /* by the user; want to stop accepting */
	bool freeing;    /* inside sbx_listener_free() */
	bool armed;      /* uring: multishot accept in flight. epoll: in the set */
	bool cancelling; /* uring: a cancel of it was submitted */
};

struct sbx_watch {
	struct sbx_loop_obj obj;
	sbx_watch_fn *fn;
	void *arg;
	unsigned want;      /* SBX_WATCH_IN|OUT; 0 = quiet */
	unsigned installed; /* what the kernel was asked for, while armed */
	bool armed;         /* uring: one-shot poll in flight */
	bool failed;        /* its descriptor cannot be watched: told once as an error, then quiet until changed */
};

/* A descriptor to pass, and the message that passes it; stands still while the kernel sends it. */
struct sbx_rights {
	int fd; /* our duplicate */
	struct msghdr msg;
	struct iovec iov;
	_Alignas(struct cmsghdr) uint8_t control[CMSG_SPACE(sizeof(int))];
};

/* A piece of a send queue. Never moved or reallocated, since the kernel may be reading it; bytes may be appended. */
struct sbx_chunk {
	TAILQ_ENTRY(sbx_chunk) link;
	struct sbx_rights *rights; /* NULL: plain bytes */
	size_t room_bytes;         /* size of data */
	size_t head, tail;         /* unsent bytes are data[head..tail) */
	uint8_t data[];
};

struct sbx_stream {
	struct sbx_loop_obj obj;
	const struct sbx_stream_ops *ops;
	void *arg;
	TAILQ_HEAD(sbx_chunk_list, sbx_chunk) queue;
	size_t unsent_bytes;             /* in all chunks */
	size_t high_bytes;               /* on_drain comes at half of it, once it was reached */
	uint8_t *held;                   /* received while paused (uring only: what was under way), or NULL */
	size_t held_bytes;
	uint64_t linger_until_ns;        /* valid while closing */
	TAILQ_ENTRY(sbx_stream) linger_link;
	int end_err;                     /* why it ended: 0 = orderly */
	bool paused;                     /* by the user */
	bool above_high, tell_drain;     /* on_drain's state */
	bool ended, told_end;            /* nothing more will be received; on_end was called */
	bool closing;                    /* closed by the user with flush: sends on, tells nothing */
	bool send_blocked;               /* the socket takes nothing now: wait for room before the next try */
	bool recv_armed, recv_cancelling, recv_wait; /* uring: multishot receive; recv_wait: poll first, it said EAGAIN */
	bool send_armed, hup_armed;      /* uring: a send, or the poll for the peer's end, in flight */
	uint32_t ep_events;              /* epoll: what the set has; 0 = not in the set */
};

struct sbx_loop_slot {
	struct sbx_loop_obj *obj; /* NULL = free */
	uint32_t generation;
	uint32_t next_free;
};

struct sbx_loop_backend {
	enum sbx_loop_kind kind;
	int (*open)(struct sbx_loop *loop, char *why, size_t why_bytes);
	void (*close)(struct sbx_loop *loop); /* nothing is in flight any more */
	/* Wait for events at most that long. 0, or -errno of the wait itself. */
	int (*wait)(struct sbx_loop *loop, uint64_t timeout_ns);
	void (*dispatch)(struct sbx_loop *loop); /* the events of this wait; calls back */
	/* Make the kernel's side match what the object wants; of a dead one give up everything.
	 * False: no room for that now, to be called again. Calls nobody back. */
	bool (*sync)(struct sbx_loop_obj *o);
	/* The object has just died, its descriptor is still open: what cannot wait for sync(). */
	void (*detach)(struct sbx_loop_obj *o);
};
extern const struct sbx_loop_backend sbx_loop_uring, sbx_loop_epoll;

struct sbx_loop {
	const struct sbx_loop_backend *backend;
	void *impl; /* the backend's state */
	struct sbx_loop_slot *slots;
	uint32_t n_slots, free_slot; /* free_slot: head of the free list, SBX_SLOT_NONE = empty */
	uint32_t n_objects;          /* in slots, dead ones included */
	struct sbx_loop_list dirty, ready, starved, dead;
	TAILQ_HEAD(sbx_lingering, sbx_stream) lingering; /* by deadline, nearest first */
	uint64_t starved_until_ns;          /* valid while something is starved */
	uint64_t now_ns;
	struct sbx_chunk_list spare; /* empty chunks of the small size */
	unsigned n_spare;
	bool in_turn, freeing; /* inside sbx_loop_turn(), sbx_loop_free() */
	struct sbx_loop_stats stats;
};

#define SBX_SLOT_NONE UINT32_MAX
#define SBX_SLOT_MAX (1u << 24) /* 24 bits in user_data */

/* ---- loop.c, for the other files ---- */
uint64_t sbx_loop_clock_ns(void);
int sbx_loop_add(struct sbx_loop *loop, struct sbx_loop_obj *o, enum sbx_loop_obj_kind kind, int fd);
void sbx_loop_dirty(struct sbx_loop_obj *o);
void sbx_loop_ready(struct sbx_loop_obj *o);
/* Out of descriptors or memory: sync() is not called for it before SBX_STARVED_NS passed, or a stream was closed. */
void sbx_loop_starve(struct sbx_loop_obj *o);
void sbx_loop_kill(struct sbx_loop_obj *o);
/* slot << 32 | generation; the upper 8 bits are free for an operation. */
uint64_t sbx_loop_name(const struct sbx_loop_obj *o);
/* The object of that name, perhaps a dead one; NULL when it is gone. */
struct sbx_loop_obj *sbx_loop_lookup(const struct sbx_loop *loop, uint64_t name);

/* A connection was taken (fd >= 0) or could not be (-errno). Both backends say it here. */
void sbx_listener_on_result(struct sbx_listener *l, int fd_or_err);
/* The descriptor cannot be watched (closed, or no kind that has readiness). */
void sbx_watch_on_failure(struct sbx_watch *w);
/* Call back with what of these events is wanted; errors come with all that is wanted, since reading tells the cause. */
void sbx_watch_on_events(struct sbx_watch *w, unsigned events);

/* ---- loop_stream.c, for the other files ---- */
void sbx_stream_on_bytes(struct sbx_stream *s, const uint8_t *data, size_t bytes); /* calls on_data, or holds */
void sbx_stream_on_sent(struct sbx_stream *s, size_t bytes);
void sbx_stream_on_end(struct sbx_stream *s, int err); /* read or write failed, or end of file */
void sbx_stream_tell(struct sbx_stream *s);            /* from the ready list */
void sbx_stream_expire(struct sbx_stream *s);          /* linger deadline passed */
void sbx_stream_fini(struct sbx_stream *s);            /* frees what it owns, descriptor included */
void sbx_stream_fini_spare(struct sbx_loop *loop);
static inline bool sbx_stream_wants_bytes(const struct sbx_stream *s)
{
	return !s->obj.dead && !s->closing && !s->ended && !s->paused && s->held == NULL;
}

/* ---- fault injection: io_uring's operations are invisible to strace and LD_PRELOAD ---- */
enum sbx_uring_op { SBX_UOP_NONE, SBX_UOP_ACCEPT, SBX_UOP_RECV, SBX_UOP_SEND, SBX_UOP_HUP, SBX_UOP_POLL, SBX_UOP_CANCEL,
                    SBX_UOP__COUNT };
struct sbx_uring_test {
	int setup_err;                 /* -errno that setting up the ring shall answer, or 0 */
	unsigned sq_entries, cq_entries, n_buffers, buffer_bytes; /* 0 = as usual */
	/* Before an operation is issued. Return 0 to go on (a send or receive may be made shorter), or a negative errno:
	 * then it is not issued, and completes with that. */
	int (*fault)(void *arg, enum sbx_uring_op op, unsigned *bytes);
	void *arg;
};
extern const struct sbx_uring_test *sbx_uring_test; /* NULL but in tests */

#endif
