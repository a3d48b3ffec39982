/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loop.h -- the one event loop of the agent: io_uring, and the same interface on epoll.
 *
 * The loop owns three kinds of thing and reports on each by a callback:
 *
 *   listener  a listening socket. Hands out accepted descriptors (non-blocking, close-on-exec). Out of descriptors
 *             (EMFILE, ENFILE, ENOBUFS, ENOMEM) it pauses by itself, counts, and tries again after 100 ms or when a
 *             stream closes: never a busy loop.
 *   stream    a connected stream socket that the loop owns: received bytes come in, bytes to send go out through a
 *             bounded queue that is flushed once per turn. Used for clients of the agent. Descriptors that a peer passes
 *             along are never installed.
 *   watch     readiness of a descriptor that somebody else owns (libcurl's sockets, a signalfd). Level-triggered.
 *
 * and one deadline: the caller says in sbx_loop_turn() how long the turn may wait at most.
 *
 * A turn:  flush sends, arm and cancel what changed, submit it all and wait -> dispatch (callbacks run here) -> reap the dead.
 * So what callbacks queue, and what the caller queues between two turns, leaves together at the start of the next turn.
 * Callbacks may call any function of this header, also close the object they are called for: a closed object gets no
 * further callback, and its memory is freed in the reap phase, once the kernel has let go of it. Nothing here is
 * thread-safe; the loop belongs to one thread.
 *
 * Choice of backend: io_uring (multishot accept and receive with provided buffers, one submit per turn) where the
 * start-up probe finds every feature that is used, else epoll, which behaves identically; sbx_loop_new() says which and
 * why. Errors are negative errno values at this boundary.
 */
#ifndef SBX_AGENT_IO_LOOP_H
#define SBX_AGENT_IO_LOOP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct sbx_loop;
struct sbx_listener;
struct sbx_stream;
struct sbx_watch;

enum sbx_loop_kind { SBX_LOOP_AUTO, SBX_LOOP_URING, SBX_LOOP_EPOLL };

enum { SBX_WATCH_IN = 1, SBX_WATCH_OUT = 2, SBX_WATCH_ERR = 4 /* reported only: error or hang-up */ };

/* Unsent bytes a stream may hold at most: two frames of the greatest size. Whoever gets there ignored on_drain. */
#define SBX_STREAM_UNSENT_MAX_BYTES ((size_t)72 * 1024 * 1024)

/* Counters, for STATS and tests. All since the loop was made. */
struct sbx_loop_stats {
	uint64_t turns, events;          /* turns taken; completions or epoll events dispatched */
	uint64_t syscalls;               /* waits, sends, receives, epoll_ctl made by this file */
	uint64_t accepts, accept_pauses; /* connections taken; times accepting stopped for want of descriptors or memory */
	uint64_t enobufs;                /* receives that waited for a provided buffer */
	uint64_t stale;                  /* completions dropped because their object was gone */
};

/* sbx_loop_new() -- make a loop.
 *  kind      AUTO probes io_uring and falls back to epoll; URING fails with the probe's -errno when it cannot
 *  why       caller's text of at least 128 bytes: a sentence about the choice ("io_uring", or why it is epoll)
 *  ret_loop  set on success; free with sbx_loop_free() after every object of it was closed
 * Returns 0 or -errno. */
int sbx_loop_new(enum sbx_loop_kind kind, char *why, size_t why_bytes, struct sbx_loop **ret_loop);
/* NULL is fine. Closes what is still open, calls nobody back, and runs turns until streams that linger are done (each has
 * its deadline) and the kernel returned every operation. */
void sbx_loop_free(struct sbx_loop *loop);
enum sbx_loop_kind sbx_loop_kind(const struct sbx_loop *loop); /* URING or EPOLL */
const struct sbx_loop_stats *sbx_loop_stats(const struct sbx_loop *loop);

/* One turn. until_ns: CLOCK_MONOTONIC time at which to return at the latest; 0 = do not wait; UINT64_MAX = no limit.
 * Returns 0, or -errno of the wait itself (a bug or a dead kernel: give up). EINTR counts as a turn without events. */
int sbx_loop_turn(struct sbx_loop *loop, uint64_t until_ns);

/* CLOCK_MONOTONIC in ns, read once after the wait of the current turn; all callbacks of a turn see the same time. */
uint64_t sbx_loop_now_ns(const struct sbx_loop *loop);

/* ---- listeners ---- */
typedef void sbx_accept_fn(void *arg, int fd); /* fd is the callee's from here on */
int sbx_listener_new(struct sbx_loop *loop, int fd, sbx_accept_fn *on_accept, void *arg, struct sbx_listener **ret);
void sbx_listener_pause(struct sbx_listener *l, bool paused);
/* Stops accepting; fd stays the caller's, who may close it now or pass it on. Connections that the kernel had already taken
 * are handed out from inside this call, so that none is lost; all others stay in the backlog. NULL is fine. */
void sbx_listener_free(struct sbx_listener *l);

/* ---- streams ---- */
struct sbx_stream_ops {
	/* Bytes arrived; valid only during the call. Never called while reading is paused. */
	void (*on_data)(void *arg, const uint8_t *data, size_t bytes);
	/* The peer is gone or the socket failed: err 0 = orderly end of file, else -errno. Called once, last, and never after
	 * sbx_stream_close(). The callee still has to call sbx_stream_close(). Seen while reading is paused it is told at
	 * once, and bytes not read by then are dropped with it. */
	void (*on_end)(void *arg, int err);
	/* Unsent bytes fell to half of the high-water mark or below after having reached it. May be NULL. */
	void (*on_drain)(void *arg);
};
/* Takes ownership of fd. Reading starts at once. high_bytes: see on_drain. */
int sbx_stream_new(struct sbx_loop *loop, int fd, const struct sbx_stream_ops *ops, void *arg, size_t high_bytes,
                   struct sbx_stream **ret);
/* Queue bytes (copied); sent in this turn's flush. send_fd >= 0 is passed along by SCM_RIGHTS with the first of these
 * bytes; the descriptor is duplicated, the caller keeps his. Returns 0; -EPIPE the stream has ended; -ENOMEM, or -ENOBUFS
 * more than SBX_STREAM_UNSENT_MAX_BYTES: bytes that could not be taken end the stream, and on_end tells it (a descriptor of
 * which no duplicate is to be had does not); -EINVAL a descriptor without a byte. */
int sbx_stream_send(struct sbx_stream *s, const void *data, size_t bytes, int send_fd);
/* Direct access to the send queue for encoders: room for `bytes`, then say how many were written, before anything else is
 * done with the stream. NULL: ended, no memory, or over the maximum. */
uint8_t *sbx_stream_reserve(struct sbx_stream *s, size_t bytes);
void sbx_stream_commit(struct sbx_stream *s, size_t bytes);
size_t sbx_stream_unsent_bytes(const struct sbx_stream *s);
void sbx_stream_pause(struct sbx_stream *s, bool paused); /* stop or resume reading; the end of the peer is still noticed */
/* Close: flush = true sends what is queued first, but no longer than linger_ns, reading nothing more. */
void sbx_stream_close(struct sbx_stream *s, bool flush, uint64_t linger_ns);

/* ---- watches ---- */
/* events: what of the wanted is ready. SBX_WATCH_ERR comes together with all that is wanted: reading or writing tells the
 * cause. A descriptor that cannot be watched at all gets it once. */
typedef void sbx_watch_fn(void *arg, int fd, unsigned events);
int sbx_watch_new(struct sbx_loop *loop, int fd, unsigned events, sbx_watch_fn *fn, void *arg, struct sbx_watch **ret);
/* 0 = quiet, which is free of charge: to be preferred to freeing for a descriptor that stays open and will be wanted again. */
void sbx_watch_set(struct sbx_watch *w, unsigned events);
/* Frees the watch. Must be called before, or in the same turn as, the close of its descriptor; the kernel's hold on the
 * open file is released before the next wait, so that the peer sees the close at once. */
void sbx_watch_free(struct sbx_watch *w);

#endif
