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
 *   An agent that is stopped or replaced says so before it goes: what it had not taken is submitted to its successor, and what
 *   it had taken it answers first. Neither is seen from outside, but that new requests on the handle wait for the latter (sbx_leaving()).
 */
#ifndef SIGNALBOX_H
#define SIGNALBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <signalbox/board.h>
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
	uint32_t timeout_ms;    /* to connect and be welcomed; 0 = 5000; or SBX_OPEN_LATER */
};
#define SBX_OPEN_OPTIONS_INIT { sizeof(struct sbx_open_options), NULL, NULL, 0 }
#define SBX_OPEN_LATER UINT32_MAX /* do not connect yet, the first submit does: never blocks, and works while there is no agent */

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
	const char *body;             /* JSON, the request as OpenAI has it for the operation; copied */
	size_t body_bytes;
	bool stream;                  /* events as the model speaks, else at the end */
	bool data;                    /* SBX_EVENT_DATA with the answer's own bytes instead of typed events */
	bool restart;                 /* a stream that breaks may start over: see SBX_NOTE_RESET */
	uint32_t deadline_ms;         /* for everything, at most a day; 0 = the agent's default (600 s) */
	const char *idempotency_key;  /* 1 to 255 printable characters; NULL = none. Costs a copy of the body until the end */
	const char *operation;        /* "chat" (= NULL), "completions", "embeddings" (with `data`) */
	bool as_http;                 /* the body speaks for itself, as it would over HTTP: its own "stream" decides (sbx_event.streamed
	                               * tells; `stream` stays false), `data` goes without saying, and its members for a gateway
	                               * (signalbox/wire.h, AS HTTP) are obeyed */
	/* For whom: taken from a client whose user id the agent trusts, else SBX_CODE_FORBIDDEN. Each 1 to 255 printable ASCII
	 * characters; NULL = not said */
	const char *tenant, *key_id, *user;
};
#define SBX_REQUEST_INIT { sizeof(struct sbx_request_options), NULL, NULL, NULL, 0, NULL, 0, false, false, false, 0, NULL, \
                           NULL, false, NULL, NULL, NULL }

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
	SBX_NOTE_STATS,        /* last: the answer to sbx_stats() and its like, down to sbx_keys(): reply */
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
	bool streamed;                   /* ACCEPTED: the answer comes in pieces; with `data` it is a stream of server-sent events, else
	                                  * one body */
};

/* sbx_next() -- the next event of any request.
 *  timeout_ms  0 = only what is there; -1 = no limit
 *  ret_event   set on 0; what it points to is valid until the next call on the handle (but sbx_client_error(), sbx_fd(),
 *              sbx_events() and sbx_timeout_ms() leave it alone)
 * Goes on after a signal. Consuming an event is what lets the agent send more (credit), but see sbx_hold(). 0; -SBX_ETIME nothing within the
 * timeout; -SBX_EAGENT no request is in flight and the connection is gone; -SBX_ENOENT no request is in flight; -SBX_EFORK;
 * -SBX_ENOMEM, and the event is not lost: call again. A lost connection is reported as the end of each request, not as an
 * error here. Since 0.1. */
SBX_API int sbx_next(struct sbx_client *c, int timeout_ms, struct sbx_event *ret_event);

/* ---- credit, for a program that passes answers on ----
 * Its reader may be slower than the model, and taking an event is then not consuming it. After sbx_hold() the events of request
 * `id` grant nothing by themselves; sbx_grant() says how many bytes of them have left the program. What is not granted stays
 * with the agent, which stops reading from the provider when 256 KiB are out: a slow reader holds back only itself.
 * Both return 0, -SBX_ENOENT when the request has ended, -SBX_EFORK; they never block. Since 0.1. */
SBX_API int sbx_hold(struct sbx_client *c, uint64_t id);
SBX_API int sbx_grant(struct sbx_client *c, uint64_t id, size_t bytes); /* of `text` of its events */

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

/* ---- the board: who is healthy, without asking ----
 * Memory that the agent writes and every process of the host reads: the state, times and prices of each target. Looking at it
 * makes no system call and takes nobody's time. A board is its holder's own: it outlives sbx_close(), and stays good in a
 * forked child. Any number of threads may look at one at once. Its rows are each consistent in itself, but no snapshot of one
 * instant. Layout and numbers: <signalbox/board.h>. Times are CLOCK_BOOTTIME in ns: sbx_boot_ns(). Since 0.1. */

struct sbx_board;

/* Does the agent that this handle is connected to leave, stopped or replaced? What it has taken it still answers, and new requests on
 * this handle wait until it has; on another handle they go to its successor at once. For who keeps several requests on one
 * handle, and has more than one. As of the events taken so far; false again when the handle is connected anew. Since 0.1. */
SBX_API bool sbx_leaving(const struct sbx_client *c);

/* sbx_board() -- the agent's current board.
 *  ret_board  a reference of the caller's own: sbx_board_close()
 * Looks whether the agent has sent a newer one, never blocks; a lost connection is not opened again by it. 0; -SBX_ENOBOARD none
 * came (an old agent, a sandbox): everything else works, and sbx_stats() tells the same by a question; -SBX_EVERSION the board
 * is of another major version; -SBX_EFORK; -SBX_ENOMEM. */
SBX_API int sbx_board(struct sbx_client *c, struct sbx_board **ret_board);
/* The same from a descriptor that came some other way; it stays the caller's. why: room for a sentence, at least 160 bytes, or NULL.
 * 0; -SBX_EBUSY it is still being built: try again; -SBX_EVERSION; -SBX_EPROTO not a board, cut short, or not sealed;
 * -SBX_ENOBOARD it cannot be mapped; -SBX_ENOMEM. */
SBX_API int sbx_board_attach(int fd, struct sbx_board **ret_board, char *why, size_t why_bytes);
/* sbx_board_load() -- the snapshot that the agent leaves in a file every 10 s and at its end, for when it is hung or dead.
 *  path  NULL = where agents of this host leave it: board.snapshot beside the socket, which is looked for as by sbx_open()
 * 0; -SBX_ENOENT there is none; -SBX_EACCESS; else as sbx_board_attach(). */
SBX_API int sbx_board_load(const char *path, struct sbx_board **ret_board, char *why, size_t why_bytes);
SBX_API void sbx_board_close(struct sbx_board *b); /* NULL is fine. Not while another thread looks at it */

SBX_API uint64_t sbx_boot_ns(void); /* CLOCK_BOOTTIME now */
/* The same on the clock of this board's times: another one only where a snapshot is older than the host's last start. */
SBX_API uint64_t sbx_board_now(const struct sbx_board *b);

enum sbx_life {
	SBX_LIFE_STARTING, SBX_LIFE_SERVING, SBX_LIFE_DRAINING,
	SBX_LIFE_STOPPED,   /* in an orderly way */
	SBX_LIFE_REPLACED,  /* by another board: sbx_board() has it */
	SBX_LIFE_STALE,     /* no heartbeat for three intervals: sbx_board_probe() knows more */
	SBX_LIFE_HUNG,      /* probe only: stale, but its process is there */
	SBX_LIFE_DEAD,      /* probe only: its process is gone, and it had not stopped */
};
/* What the board itself tells of its agent: no system call. Never HUNG or DEAD. */
SBX_API enum sbx_life sbx_board_life(const struct sbx_board *b, uint64_t now_boot_ns);
/* The same, and a look for the process: a dead one is told at once, whatever its heartbeat. Where it cannot be seen (another pid
 * namespace, a container) STALE remains: nothing is guessed. */
SBX_API enum sbx_life sbx_board_probe(const struct sbx_board *b, uint64_t now_boot_ns);
struct sbx_agent_view {
	enum sbx_life life;              /* as sbx_board_probe(): stopped, hung and dead are three answers */
	int64_t pid;                     /* in the agent's own pid namespace */
	bool pid_visible;                /* it can be told from here whether that process is there */
	uint64_t facts_age_ns;           /* since the last heartbeat: what the board says is as of then */
	uint64_t facts_unix_ns;          /* when that was, by the wall clock */
};
/* How is the agent, and how old is what the board says? For a map and a snapshot alike, without asking the agent. */
SBX_API void sbx_board_agent(const struct sbx_board *b, struct sbx_agent_view *ret_view);
SBX_API const char *sbx_life_word(enum sbx_life life);

struct sbx_board_info {
	uint64_t generation, edition;    /* of the agent's start; of its configuration since then */
	int64_t agent_pid;
	uint64_t agent_start_boot_ns, heartbeat_boot_ns, heartbeat_unix_ns;
	uint32_t n_targets, n_routes, n_providers, n_credentials;
	bool snapshot;                   /* from a file: as old as its heartbeat */
};
SBX_API void sbx_board_describe(const struct sbx_board *b, struct sbx_board_info *ret_info);

enum sbx_standing {
	SBX_STANDING_UP,
	SBX_STANDING_TRIAL,     /* was down, and is due for one trial request */
	SBX_STANDING_THROTTLED, /* until */
	SBX_STANDING_DOWN,      /* until; the last resort */
	SBX_STANDING_NO_KEY,    /* cannot be asked; until, if time can mend it */
	SBX_STANDING_UNKNOWN,   /* its row could not be read: busy, or its writer died in it */
};
SBX_API const char *sbx_standing_word(enum sbx_standing standing);

#define SBX_UNPRICED INT64_MIN /* a price or cost that is not known; it is not 0 */

struct sbx_times { uint64_t p50_ns, p95_ns, p99_ns, n; }; /* of the last 5 to 10 minutes' successes; n = 0: none */
struct sbx_target_view {
	const char *name, *provider, *model, *dialect; /* as long as the board */
	uint32_t caps, caps_known;       /* SBX_CAP_* */
	uint64_t context_tokens, output_tokens; /* 0 = not known */
	enum sbx_standing standing;      /* with its keys, now */
	uint64_t until_boot_ns;          /* THROTTLED, DOWN, NO_KEY: when that may change; UINT64_MAX = not by time alone */
	/* of the target alone; all zero (prices UNPRICED) where standing is UNKNOWN, but for the last two */
	const char *state, *why;         /* "up", "down", "probing", "misconfigured"; "" = no reason */
	uint64_t since_boot_ns, throttled_until_boot_ns; /* 0 = not throttled */
	uint64_t in_flight, attempts, recent_good, recent_bad; /* recent: ends of the last 30 s */
	struct sbx_times first_content, total;
	int64_t price_in, price_out;     /* nano-USD per million tokens, at this hour */
	uint64_t price_change_unix_s;    /* 0 = none is known */
	int64_t price_in_after, price_out_after;
	uint64_t price_tokens;           /* of prompts up to this; what a longer one costs is not told. 0 = of any */
	int64_t price_request;           /* a fee for each request, nano-USD per million of them */
};
/* i from 0. 0; -SBX_ENOENT past the end; -SBX_EBUSY its row could not be read, and only the facts are filled in. */
SBX_API int sbx_board_target(const struct sbx_board *b, uint32_t i, uint64_t now_boot_ns, struct sbx_target_view *ret_view);
struct sbx_credential_view {
	const char *provider, *source;   /* as long as the board; where its key is: "env:OPENAI_API_KEY". Never the key */
	const char *why;                 /* it is shut; "" = no reason */
	uint64_t shut_until_boot_ns;     /* 0 = it is not; UINT64_MAX = its one trial runs; past = the next request tries it */
	uint64_t since_boot_ns;          /* shut or not */
};
/* A key that the agent has, i below n_credentials. 0; -SBX_ENOENT past the end; -SBX_EBUSY its row could not be read. */
SBX_API int sbx_board_credential(const struct sbx_board *b, uint32_t i, struct sbx_credential_view *ret_view);
struct sbx_route_view {
	const char *name, *policy;
	uint32_t n_targets, target[16];
};
SBX_API int sbx_board_route(const struct sbx_board *b, uint32_t i, struct sbx_route_view *ret_view); /* 0; -SBX_ENOENT */
/* By name: 0; -SBX_ENOENT. The number is good for this board alone. Compares every name: look once, and keep it. */
SBX_API int sbx_board_find_route(const struct sbx_board *b, const char *name, uint32_t *ret_route);
SBX_API int sbx_board_find_target(const struct sbx_board *b, const char *name, uint32_t *ret_target);

#define SBX_ROUTE_ALL UINT32_MAX
#define SBX_PICK_MAX 16 /* as many as `targets` of a request takes */
struct sbx_need {
	size_t size;                     /* set by SBX_NEED_INIT */
	uint32_t route;                  /* of sbx_board_find_route(); SBX_ROUTE_ALL = any target */
	uint32_t caps;                   /* SBX_CAP_*: a target that is known to lack one is left out */
	uint64_t input_tokens, output_tokens; /* estimate, for limits and cost; 0 = do not look */
	int64_t max_cost_nanousd;        /* leaves out what costs more, and what has no price for such a prompt; -1 = no limit */
};
#define SBX_NEED_INIT { sizeof(struct sbx_need), SBX_ROUTE_ALL, 0, 0, 0, -1 }
struct sbx_pick {
	uint32_t target;
	enum sbx_standing standing;
	uint64_t until_boot_ns;
	int64_t cost_nanousd;            /* of this need there; SBX_UNPRICED */
};
/* sbx_board_pick() -- which targets, in what order, would serve this need now? By the agent's own ranking: what is usable in the
 * policy's order, then what is throttled for a moment, what is down, what is throttled for long; never one without a key. So
 * the first whose standing is UP or TRIAL is the one that the agent would ask.
 *  ret_pick, n  room; n at most SBX_PICK_MAX
 * No system call, no copy of the board, no lock. How many were written, 0 = none; -SBX_EINVAL; -SBX_ENOENT no such route. */
SBX_API int sbx_board_pick(const struct sbx_board *b, const struct sbx_need *need, uint64_t now_boot_ns, struct sbx_pick *ret_pick, uint32_t n);

struct sbx_direct {                      /* strings: as long as the board */
	const char *target, *model, *dialect;
	const char *url;                 /* to POST the request, in that dialect, to; "" = it depends on more than the model */
	const char *auth;                /* "bearer", "api-key" or "x-api-key" (the header's name), "none" */
	const char *key_name;            /* where the agent has its key from, "env:OPENAI_API_KEY"; "" = none. Never the key */
	enum sbx_standing standing;
};
/* sbx_bypass() -- when the agent is gone: whom to call oneself, in order. As sbx_board_pick(), but keys are left out of it: the
 * caller brings his own. Returns as sbx_board_pick(). */
SBX_API int sbx_bypass(const struct sbx_board *b, const struct sbx_need *need, uint64_t now_boot_ns, struct sbx_direct *ret_direct, uint32_t n);
/* The same for one target by its name, "provider/model", whatever its standing; also a model of a provider of the board that is not on
 * it. Strings: as long as the board and the name. 0; -SBX_ENOENT no such provider. */
SBX_API int sbx_bypass_target(const struct sbx_board *b, const char *name, uint64_t now_boot_ns, struct sbx_direct *ret_direct);

/* ---- the agent itself ---- */
SBX_API int sbx_stats(struct sbx_client *c, uint64_t *ret_id);  /* answered by SBX_NOTE_STATS */
/* What was counted since the agent started, as METRICS in signalbox/wire.h: fields "row.0.n" ...; with "next" among them there is
 * more, from there on. Answered by SBX_NOTE_STATS, or by SBX_NOTE_ERROR: SBX_CODE_FORBIDDEN. Returns as sbx_submit(). Since 0.1. */
SBX_API int sbx_metrics(struct sbx_client *c, uint64_t from, uint64_t *ret_id);
SBX_API int sbx_reload(struct sbx_client *c, uint64_t *ret_id); /* on the admin socket: SBX_NOTE_STATS, or SBX_NOTE_ERROR with every
                                                                 * error of the new configuration in its message */

/* What the agent's store knows of attempts that ended in a span of time: counts, tokens and cost by target, or by another kind
 * of row. */
struct sbx_report_options {
	size_t size;             /* set by SBX_REPORT_INIT */
	uint64_t since_unix_ms;  /* 0 = from the first */
	uint64_t until_unix_ms;  /* exclusive; 0 = until now */
	const char *by;          /* "target" (= NULL), "model", "class", "route", "user" (of the host), "tenant", "key" */
};
#define SBX_REPORT_INIT { sizeof(struct sbx_report_options), 0, 0, NULL }
/* Answered by SBX_NOTE_STATS with fields "total.attempts", "row.NAME.attempts" ... (FIGURES in signalbox/wire.h), or by
 * SBX_NOTE_ERROR, SBX_CODE_UNSUPPORTED: no store is configured; SBX_CODE_BUSY: it cannot be read now, and the message says why.
 * options NULL = all by target. Returns as sbx_submit(). Since 0.1. */
SBX_API int sbx_report(struct sbx_client *c, const struct sbx_report_options *options, uint64_t *ret_id);

/* What is asked about virtual keys, as KEY in signalbox/wire.h has it: { "do", "list", 0 }, ... */
struct sbx_field {
	const char *name, *text; /* text NULL = the number */
	uint64_t number;
};
/* Answered by SBX_NOTE_STATS with the fields of the answer, those of a list as "key.ID.tenant" ..., or by SBX_NOTE_ERROR. All but
 * "check" on the admin socket. Returns as sbx_submit(). Since 0.1. */
SBX_API int sbx_keys(struct sbx_client *c, const struct sbx_field *fields, size_t n, uint64_t *ret_id);

/* ---- for an event loop of your own ---- */
SBX_API int sbx_fd(const struct sbx_client *c);             /* -1 while not connected; may change at a submit */
SBX_API short sbx_events(const struct sbx_client *c);       /* POLLIN, POLLOUT: what to wait for, level-triggered */
SBX_API int sbx_timeout_ms(const struct sbx_client *c);     /* call sbx_process() and sbx_next() after so long at the latest, whatever
                                                             * the descriptor says; 0 = events are there; -1 = no need */
/* With `on`, what submits, cancels and grants have to send waits for the next sbx_process(): of a loop that starts many requests in
 * one turn they leave together, at the price of one. sbx_next() and sbx_ask(), which wait, send it as well. Since 0.1. */
SBX_API void sbx_cork(struct sbx_client *c, bool on);
SBX_API int sbx_process(struct sbx_client *c, short revents); /* moves bytes, never blocks; then sbx_next(c, 0, ...) until
                                                             * -SBX_ETIME or -SBX_ENOENT. 0 or an error as of sbx_next() */

#ifdef __cplusplus
}
#endif
#endif
