/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalbox.h -- ask AI models through the signalbox agent of this host.
 *
 * WHY. The agent (signalboxd) holds the provider keys, the warm connections and the knowledge of who is healthy. A program
 * submits a request over a Unix socket and gets one answer, from the first provider that can give it. This library is the
 * thin client of that: it needs libc and msgpack-c, starts no thread, prints nothing, installs no signal handler.
 *
 * SHAPE. One handle (struct sbx_client) is one connection on which any number of requests run at once. Three ways to use it:
 *   one call      sbx_ask(): submit and return the whole answer.
 *   events        sbx_submit(), then sbx_next() until an event with `last` set.
 *   your own loop sbx_fd(), sbx_events(), sbx_timeout_ms(), sbx_process(), then sbx_next() with a timeout of 0.
 *
 * TEXT is UTF-8. STRINGS in events are NUL-terminated and may hold further NULs; their length stands beside them.
 * THREADS. A handle belongs to one thread at a time; several threads use several handles. No global state.
 * FORK. A handle is of the process that opened it: in a child every call answers -SBX_EFORK, but sbx_close(), which frees
 *   its memory and leaves the parent's connection alone.
 * ERRORS are negative SBX_E* of <signalbox/errors.h>; sbx_client_error() has the sentence for the last one.
 * CONNECTION LOSS. The library connects again at the next submit. What was in flight ends with code SBX_CODE_AGENT_LOST and
 *   says in `sent` whether the agent can have acted on it. What was not sent, or has an idempotency key, is submitted
 *   again by the library itself: at most three times, within what is left of its deadline, and for as long as sbx_open() would
 *   have waited. If pieces of its answer came before, that takes the option `restart`, and an SBX_NOTE_RESET tells it.
 */
#ifndef SIGNALBOX_H
#define SIGNALBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <signalbox/errors.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SBX_API __attribute__((visibility("default")))

#define SBX_VERSION_MAJOR 0
#define SBX_VERSION_MINOR 1
#define SBX_VERSION_PATCH 0
SBX_API const char *sbx_version(void); /* "0.1.0", of the library that is linked */

struct sbx_client;
struct sbx_reply;

/* ---- connection ---- */

struct sbx_open_options {
	size_t size;            /* sizeof(struct sbx_open_options): set by SBX_OPEN_OPTIONS_INIT */
	const char *socket;     /* path; NULL = $SIGNALBOX_SOCKET, $XDG_RUNTIME_DIR/signalbox/agent.sock, /run/signalbox/agent.sock:
	                         * the first of them that is set or exists */
	const char *name;       /* of the program, for the agent's log; NULL = the process's own */
	uint32_t timeout_ms;    /* to connect and be welcomed; 0 = 5000 */
};
#define SBX_OPEN_OPTIONS_INIT { sizeof(struct sbx_open_options), NULL, NULL, 0 }

/* sbx_open() -- connect to the agent.
 *  options     NULL = all defaults
 *  ret_client  set also on failure, so that sbx_client_error() can tell why; free it with sbx_close() in either case. NULL
 *              only when there is no memory for it; both functions take that
 * Blocks until welcomed or the timeout. 0; -SBX_EAGENT nobody listens there; -SBX_EACCESS; -SBX_ETIME it accepts, but does not
 * answer; -SBX_EVERSION; -SBX_EPROTO; -SBX_EBUSY the agent, or this process's descriptors, are at their limit; -SBX_EINVAL;
 * -SBX_ENOMEM. Since 0.1. */
SBX_API int sbx_open(const struct sbx_open_options *options, struct sbx_client **ret_client);

/* Close and free; requests in flight are cancelled by it, unless this is a child of the process that opened the handle. NULL is
 * fine. What sbx_ask() returned stays. Since 0.1. */
SBX_API void sbx_close(struct sbx_client *c);

/* The sentence for the last call on this handle that failed: what happened, where, what to do. Valid until the next call on it;
 * never NULL; "" when nothing failed yet. Since 0.1. */
SBX_API const char *sbx_client_error(const struct sbx_client *c);

/* ---- requests ---- */

struct sbx_request_options {
	size_t size;                  /* set by SBX_REQUEST_INIT */
	/* Whom to ask: at most one of the three; none = what the body's "model" says. */
	const char *route;
	const char *model;            /* "provider/model", or a model name */
	const char *const *targets;   /* "provider/model" each, in the order to try */
	size_t n_targets;
	const char *body;             /* JSON, OpenAI's chat completions request; copied */
	size_t body_bytes;
	bool stream;                  /* events as the model speaks, else at the end */
	bool data;                    /* SBX_EVENT_DATA with the answer's own bytes instead of typed events */
	bool restart;                 /* a stream that breaks may start over: see SBX_NOTE_RESET */
	uint32_t deadline_ms;         /* for everything, at most a day; 0 = the agent's default (600 s) */
	const char *idempotency_key;  /* 1 to 255 printable characters; NULL = none. Costs a copy of the body until the end */
};
#define SBX_REQUEST_INIT { sizeof(struct sbx_request_options), NULL, NULL, NULL, 0, NULL, 0, false, false, false, 0, NULL }

/* sbx_submit() -- start a request.
 *  ret_id  the request's number on this handle, in every event of it; never 0
 * Never blocks. All that the options point to is copied. Connects again if the connection was lost; the bytes leave at once as far
 * as the socket takes them, the rest by sbx_next() or sbx_process(). 0; -SBX_EINVAL; -SBX_ETOOBIG body above 32 MiB; -SBX_EBUSY
 * more than 4096 requests in flight, 64 MiB not yet sent, or the agent's backlog is full; -SBX_EAGENT; -SBX_EACCESS;
 * -SBX_EFORK; -SBX_ENOMEM. Since 0.1. */
SBX_API int sbx_submit(struct sbx_client *c, const struct sbx_request_options *options, uint64_t *ret_id);

/* Ask the agent to stop request `id`. Its end still comes as an event (SBX_CODE_CANCELLED, unless it ended by itself). 0 or
 * -SBX_ENOENT when it has ended already. Since 0.1. */
SBX_API int sbx_cancel(struct sbx_client *c, uint64_t id);

/* ---- events ---- */

enum sbx_note {
	SBX_NOTE_ACCEPTED = 1, /* the agent has it */
	SBX_NOTE_TARGET,       /* text = "provider/model" that is asked now: one more for each failover */
	SBX_NOTE_TEXT,         /* text */
	SBX_NOTE_REASONING,    /* text */
	SBX_NOTE_REFUSAL,      /* text */
	SBX_NOTE_TOOL_CALL,    /* index; id and name on its first fragment; text = next piece of the arguments */
	SBX_NOTE_FINISH,       /* text = why the choice ended: stop, length, tool_calls, content_filter ... */
	SBX_NOTE_DATA,         /* text = bytes of the answer itself (option `data`) */
	SBX_NOTE_RESET,        /* forget all that came for this request; it starts over */
	SBX_NOTE_DONE,         /* last: reply */
	SBX_NOTE_ERROR,        /* last: reply */
	SBX_NOTE_STATS,        /* last: the answer to sbx_stats(): reply */
};

struct sbx_event {
	enum sbx_note note;
	bool last;               /* DONE, ERROR or STATS: nothing more comes for this id */
	uint64_t id;
	uint32_t choice, index;
	const char *text;        /* never NULL */
	size_t text_bytes;
	const char *call_id, *call_name; /* TOOL_CALL, first fragment; else NULL */
	const struct sbx_reply *reply;   /* DONE, ERROR, STATS; else NULL */
};

/* sbx_next() -- the next event of any request.
 *  timeout_ms  0 = only what is there; -1 = no limit
 *  ret_event   set on 0; what it points to is valid until the next call on the handle (but sbx_client_error(), sbx_fd(),
 *              sbx_events() and sbx_timeout_ms() leave it alone)
 * Goes on after a signal. Consuming an event is what lets the agent send more (credit). 0; -SBX_ETIME nothing within the
 * timeout; -SBX_EAGENT no request is in flight and the connection is gone; -SBX_ENOENT no request is in flight; -SBX_EFORK;
 * -SBX_ENOMEM, and the event is not lost: call again. A lost connection is reported as the end of each request, not as an
 * error here. Since 0.1. */
SBX_API int sbx_next(struct sbx_client *c, int timeout_ms, struct sbx_event *ret_event);

/* ---- one call ---- */

/* sbx_ask() -- submit, wait, and return the whole answer. Other requests on the handle go on; their events wait for
 * sbx_next(). The deadline in the options bounds the call, plus one second for the agent's own answer.
 *  ret_reply  set on 0 and on -SBX_EFAILED; free it with sbx_reply_free(); lives on its own, also after sbx_close()
 * With `stream` a broken stream may start over, as if `restart` were set: nobody has seen the pieces.
 * 0; -SBX_EFAILED the reply says why, and has what came before; -SBX_ETIME no end within the deadline (it is cancelled);
 * -SBX_ETOOBIG also an answer above 64 MiB (it is cancelled); -SBX_EBUSY also more than 256 MiB of events of other requests
 * waiting for sbx_next(); else as sbx_submit(). Since 0.1. */
SBX_API int sbx_ask(struct sbx_client *c, const struct sbx_request_options *options, struct sbx_reply **ret_reply);
SBX_API void sbx_reply_free(struct sbx_reply *reply); /* NULL is fine; only for what sbx_ask() gave */

/* ---- replies ----
 * All that an accessor returns lives as long as the reply: that of an event until the next call on the handle. Strings are
 * never NULL but where it says so. Since 0.1. */

struct sbx_tokens { /* each -1 where the provider did not say */
	int64_t prompt, completion, total, cached, cache_write, reasoning;
	bool estimated, clamped;
};

struct sbx_attempt_info {
	const char *target;      /* "provider/model" */
	const char *outcome;     /* "OK", "REFUSED", "FAILED", "UNCERTAIN" ... */
	int status;              /* HTTP; 0 = none */
	uint32_t started_ms, ended_ms;
	int64_t first_content_ms; /* -1 = none came */
	const char *connection;  /* "new", "reused", "" */
	const char *message;     /* "" = none */
	struct sbx_tokens tokens;
	int64_t cost_nanousd;    /* -1 = not known */
};

struct sbx_tool_call {
	uint32_t choice;
	const char *id, *name, *arguments;
};

SBX_API bool sbx_reply_ok(const struct sbx_reply *r);
SBX_API enum sbx_code sbx_reply_code(const struct sbx_reply *r);      /* SBX_CODE_NONE when ok; INTERNAL for an unknown word */
SBX_API const char *sbx_reply_code_word(const struct sbx_reply *r);   /* as the agent said it; "" when ok */
SBX_API int sbx_reply_status(const struct sbx_reply *r);              /* HTTP-like; 200 when ok */
SBX_API const char *sbx_reply_message(const struct sbx_reply *r);     /* "" when ok */
SBX_API int64_t sbx_reply_retry_after_ms(const struct sbx_reply *r);  /* -1 = not said */
SBX_API bool sbx_reply_retryable(const struct sbx_reply *r);          /* asking again may help */
SBX_API bool sbx_reply_sent(const struct sbx_reply *r);               /* AGENT_LOST: false = the agent certainly did not act on it */
SBX_API const char *sbx_reply_provider_error(const struct sbx_reply *r, const char *field); /* "type", "code", "param", "message",
                                                                       * "provider", "status"; "" = not said */
/* The answer, gathered by sbx_ask(), never NULL ("" = nothing of that kind came). NULL and 0 in the reply of an event, whose
 * pieces came one by one. `choice` from 0. */
SBX_API const char *sbx_reply_text(const struct sbx_reply *r, uint32_t choice, size_t *ret_bytes);      /* ret_bytes may be NULL */
SBX_API const char *sbx_reply_reasoning(const struct sbx_reply *r, uint32_t choice, size_t *ret_bytes);
SBX_API const char *sbx_reply_refusal(const struct sbx_reply *r, uint32_t choice, size_t *ret_bytes);
SBX_API const char *sbx_reply_finish(const struct sbx_reply *r, uint32_t choice); /* "" = the provider did not say */
/* Option `data`: the whole body; of a failure, also in an event, the error as a JSON body. */
SBX_API const char *sbx_reply_data(const struct sbx_reply *r, size_t *ret_bytes);
SBX_API uint32_t sbx_reply_choices(const struct sbx_reply *r);
SBX_API uint32_t sbx_reply_tool_calls(const struct sbx_reply *r);
SBX_API bool sbx_reply_tool_call(const struct sbx_reply *r, uint32_t i, struct sbx_tool_call *ret_call);

SBX_API const char *sbx_reply_target(const struct sbx_reply *r);      /* "provider/model" that answered; "" = none */
SBX_API struct sbx_tokens sbx_reply_tokens(const struct sbx_reply *r);
SBX_API const char *sbx_reply_usage_raw(const struct sbx_reply *r);   /* the provider's own usage object; "" = none */
SBX_API int64_t sbx_reply_cost_nanousd(const struct sbx_reply *r);    /* all attempts together; -1 = not known */
SBX_API uint32_t sbx_reply_total_ms(const struct sbx_reply *r);
SBX_API int64_t sbx_reply_first_content_ms(const struct sbx_reply *r); /* -1 = none */
SBX_API uint32_t sbx_reply_attempts(const struct sbx_reply *r);
SBX_API bool sbx_reply_attempt(const struct sbx_reply *r, uint32_t i, struct sbx_attempt_info *ret_attempt);
/* A number of a STATS or RELOADED reply by its name ("requests", "loop.turns" ...); false = not there. */
SBX_API bool sbx_reply_number(const struct sbx_reply *r, const char *name, int64_t *ret_number);
SBX_API bool sbx_reply_string(const struct sbx_reply *r, const char *name, const char **ret_text);
/* Walk a STATS or RELOADED reply: i from 0; false past the end. Nested maps are flattened: "target.openai/gpt-5.2.state". Exactly one of
 * *ret_text (else NULL) and *ret_number is meaningful. */
SBX_API bool sbx_reply_field(const struct sbx_reply *r, uint32_t i, const char **ret_name, const char **ret_text, int64_t *ret_number);

/* ---- the agent itself ---- */
SBX_API int sbx_stats(struct sbx_client *c, uint64_t *ret_id);  /* answered by SBX_NOTE_STATS */
SBX_API int sbx_reload(struct sbx_client *c, uint64_t *ret_id); /* on the admin socket: SBX_NOTE_STATS, or SBX_NOTE_ERROR with every
                                                                 * error of the new configuration in its message */

/* ---- for an event loop of your own ---- */
SBX_API int sbx_fd(const struct sbx_client *c);             /* -1 while not connected; may change at a submit */
SBX_API short sbx_events(const struct sbx_client *c);       /* POLLIN, POLLOUT: what to wait for, level-triggered */
SBX_API int sbx_timeout_ms(const struct sbx_client *c);     /* call sbx_process() and sbx_next() after so long at the latest, whatever
                                                             * the descriptor says; 0 = events are there; -1 = no need */
SBX_API int sbx_process(struct sbx_client *c, short revents); /* moves bytes, never blocks; then sbx_next(c, 0, ...) until
                                                             * -SBX_ETIME or -SBX_ENOENT. 0 or an error as of sbx_next() */

#ifdef __cplusplus
}
#endif
#endif
