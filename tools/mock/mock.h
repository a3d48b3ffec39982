/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of signalbox-mock share: the process, a connection, an
 * exchange (one request and its answer), and the seams between them.
 *
 *   listener -> conn -> transport (http1.c or h2.c) -> exchange -> answer
 *
 *   conn       bytes in and out, plain or TLS; how a connection ends
 *   transport  requests out of bytes, answers into bytes; nothing about content
 *   exchange   pacing: delays, cuts, stalls, drips; the one writer of the log entry
 *   answer     what to say: statuses, bodies, events; nothing about time or sockets
 *
 * Lifetime: a connection is closed and freed only from its deferred work at the
 * end of a turn, so any callback may ask for its end.  An exchange frees itself
 * when it ends, which is the last thing that happens in the call that ended it;
 * its transport learns of it through ops->detach().
 */
#ifndef SIGNALBOX_TOOLS_MOCK_MOCK_H
#define SIGNALBOX_TOOLS_MOCK_MOCK_H

#include "tools/mock/bytes.h"
#include "tools/mock/faults.h"
#include "tools/mock/loop.h"
#include "tools/mock/scan.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define MOCK_HEAD_MAX ((size_t)64 << 10)         /* request head; what real servers allow or more */
#define MOCK_REQUEST_BODY_MAX ((size_t)64 << 20) /* twice the agent's own limit */
#define MOCK_BACKLOG_HIGH ((size_t)64 << 10)     /* unsent answer bytes at which an exchange waits */
#define MOCK_LISTENERS_MAX 16
#define MOCK_REQUEST_HEADERS_MAX 32 /* kept of a request: clients send about ten */
#define MOCK_HEADERS_MAX 128 /* of an answer: 64 of big-headers, 16 of header=, and our own */

struct mock;
struct mock_conn;
struct mock_exchange;
struct mock_dialect; /* dialect.h */
struct ssl_st;     /* SSL */
struct ssl_ctx_st; /* SSL_CTX */

/* ---- log.c ---------------------------------------------------------------- */

enum mock_state { MOCK_OPEN, MOCK_ANSWERED, MOCK_CLIENT_CLOSED, MOCK_CUT, MOCK_STATE__COUNT };

struct mock_header {
	struct mock_span name, value;
};

/* A request as a transport saw it; everything borrowed until mock_exchange_begin() returns. */
struct mock_request {
	struct mock_span method, path, authorization, idempotency_key, body;
	struct mock_header header[MOCK_REQUEST_HEADERS_MAX]; /* as they came; more are dropped */
	size_t n_headers;
};

/* One line of the log; owned by the log, or by its exchange once the log forgot it. */
struct mock_entry {
	uint64_t n;          /* number of the request since start, from 1; 0 = a warm-up */
	uint64_t time_ns;    /* CLOCK_MONOTONIC when the whole request was there */
	uint64_t end_ns;     /* when it ended; 0 while open */
	uint64_t conn_id;
	uint64_t conn_index; /* requests on this connection so far, this one included */
	uint64_t body_bytes; /* of the answer's body, handed to the connection */
	uint64_t tokens_sent;
	int status;          /* sent; 0 = none was */
	enum mock_state state;
	bool stream;
	bool kept;           /* still in the log */
	char key_hash[9];    /* 8 hex digits of the SHA-256 of the bearer key; empty = none given */
	struct mock_span method, path, model, idempotency_key, body; /* into text[] */
	size_t bytes;        /* of this allocation */
	char text[];
};

struct mock_log;
struct mock_log *mock_log_new(struct mock *mock);
void mock_log_free(struct mock_log *log);
int mock_log_open_file(struct mock_log *log, const char *path); /* a JSON line per ended request */
struct mock_entry *mock_log_add(struct mock_log *log, const struct mock_conn *conn, uint64_t conn_index,
    const struct mock_request *request, struct mock_span model, bool stream);
/* A warm-up (HEAD of a model list) is counted and told apart: it is in the file and in the stats, but not among the requests. */
struct mock_entry *mock_log_add_warm(struct mock_log *log, const struct mock_conn *conn, const struct mock_request *request);
void mock_log_end(struct mock_log *log, struct mock_entry *entry, enum mock_state state);
void mock_log_clear(struct mock_log *log);
/* Entries in this state since the last clear; MOCK_STATE__COUNT = in any. */
uint64_t mock_log_count(const struct mock_log *log, enum mock_state state);
void mock_log_fmt(const struct mock_log *log, bool bodies, struct mock_bytes *out);
void mock_log_fmt_stats(const struct mock_log *log, struct mock_bytes *out);
const char *mock_state_name(enum mock_state state);
/* The opposite; MOCK_STATE__COUNT for a name that is none. */
enum mock_state mock_state_of(const char *name, size_t n);

/* ---- rules.c -------------------------------------------------------------- */

struct mock_rules;
struct mock_rules *mock_rules_new(void);
void mock_rules_free(struct mock_rules *rules);
/* Adds one line at the end, or at the front.  0, or -1 with a sentence in `error`. */
int mock_rules_add(struct mock_rules *rules, const char *line, size_t n, bool in_front, char *error,
    size_t error_bytes);
/* All or nothing: a text with a bad line changes nothing. */
int mock_rules_replace(struct mock_rules *rules, const char *text, size_t n, char *error, size_t error_bytes);
void mock_rules_fmt(const struct mock_rules *rules, struct mock_bytes *out);
/* The i-th pattern without a wildcard, which is a model's name; NULL past the end. */
const char *mock_rules_literal(const struct mock_rules *rules, size_t i);
/* The rule for a request, with a reference for the caller; *ret_rule NULL = healthy.
 * -1 with a sentence when the model carries faults that cannot be read. */
int mock_rules_find(struct mock_rules *rules, const char *model, bool conn_reused, struct mock_rule **ret_rule,
    char *error, size_t error_bytes);
/* The accept-close or no-read rule for a new connection; a reference, or NULL. */
struct mock_rule *mock_rules_find_accept(struct mock_rules *rules);

/* ---- answer.c ------------------------------------------------------------- */

/* A response head, as data for either transport; spans live as long as the call that gets it. */
struct mock_head {
	int status;
	int64_t interim;     /* so many 1xx responses first */
	int64_t length;      /* Content-Length to announce; -1 = none */
	bool chunked;        /* HTTP/1.1: Transfer-Encoding: chunked */
	size_t n_headers;
	struct mock_header headers[MOCK_HEADERS_MAX];
};

enum mock_stage {
	MOCK_STAGE_ROLE, MOCK_STAGE_EVENT, MOCK_STAGE_REASONING, MOCK_STAGE_CONTENT, MOCK_STAGE_FINISH,
	MOCK_STAGE_USAGE, MOCK_STAGE_DONE, MOCK_STAGE_END
};

/* What is asked for. */
enum mock_op { MOCK_OP_CHAT, MOCK_OP_COMPLETION, MOCK_OP_EMBEDDINGS, MOCK_OP_COUNT_TOKENS, MOCK_OP_MODELS };

/* The answer's own part of an exchange. */
struct mock_answer {
	enum mock_stage stage;
	int status;
	const char *content_type;   /* borrowed; NULL = none */
	struct mock_bytes prefix;   /* what all events of a stream begin with, where there is such a thing */
	struct mock_span text;      /* borrowed from the rule or the process */
	size_t text_at;             /* bytes of text already said */
	int64_t n_tokens;           /* content tokens to say */
	int64_t n_choices;
	int64_t i;                  /* place within the stage */
	int64_t event_n;            /* SSE events made so far */
	uint64_t n_said;            /* content and reasoning tokens made so far, for the usage */
	uint64_t wait_ns;           /* out: how long to wait before the next step */
	uint64_t tokens_in_hand;    /* out: content tokens in the bytes just made */
	bool last_chunk;            /* out: the bytes just made are the ones bad-chunk breaks */
	enum mock_op op;
	int64_t block;              /* of an answer made of blocks: the number of the next */
	char block_open;            /* which kind is; 0 = none */
	bool base64;                /* embeddings */
	int64_t dimensions;         /* embeddings; 0 = as many as usual */
	bool sse;                   /* a stream of events; else one fixed body */
	bool usage_asked;
};

/* Decides status and kind; finds the rule; makes nothing yet.  Sets x->rule, x->faults, x->entry. */
void mock_answer_decide(struct mock_exchange *x, const struct mock_request *request);
/* Fills in the head, and the body where it is a fixed one. */
void mock_answer_head(struct mock_exchange *x, struct mock_head *ret_head);
/* Appends the next bytes to x->body; false = there are none left. */
bool mock_answer_next(struct mock_exchange *x);
/* How long a fixed answer takes before its head. */
uint64_t mock_answer_work_ns(const struct mock_exchange *x);
/* An error body in OpenAI's shape: of what is no request to a dialect. */
void mock_answer_fmt_error(struct mock_bytes *out, int status, const char *message);

/* ---- exchange.c ----------------------------------------------------------- */

enum mock_abort {
	MOCK_ABORT_FIN,    /* close the connection */
	MOCK_ABORT_RST,    /* reset it */
	MOCK_ABORT_STREAM, /* h2: RST_STREAM with faults->rst_stream, or REFUSED_STREAM */
	MOCK_ABORT_GOAWAY  /* h2: GOAWAY as faults->goaway says, then close */
};

struct mock_transport_ops {
	bool is_h2;
	void (*head)(struct mock_exchange *x, const struct mock_head *head);
	/* broken: announce all n bytes, send half of them; an abort follows */
	void (*body)(struct mock_exchange *x, const char *at, size_t n, bool broken);
	void (*finish)(struct mock_exchange *x);                 /* the body is complete */
	void (*abort)(struct mock_exchange *x, enum mock_abort); /* end it in the way told */
	void (*flush)(struct mock_exchange *x);                  /* towards the kernel, now */
	size_t (*backlog)(struct mock_exchange *x);              /* body bytes not yet with the kernel */
	void (*detach)(struct mock_exchange *x);                 /* x is about to be freed */
};

enum mock_phase { MOCK_PHASE_HEAD, MOCK_PHASE_DRIP_HEAD, MOCK_PHASE_BODY, MOCK_PHASE_SILENT };

struct mock_exchange {
	struct mock *mock;
	struct mock_conn *conn;
	const struct mock_transport_ops *ops;
	void *stream;                    /* the transport's own */
	const struct mock_dialect *dialect; /* set by mock_answer_decide() */
	struct mock_rule *rule;          /* referenced; NULL = healthy or refused */
	const struct mock_faults *faults;
	struct mock_entry *entry;
	struct mock_timer timer;
	enum mock_phase phase;
	bool blocked;                    /* waits for mock_exchange_resume() */
	bool close_after;                /* the connection ends with this answer */
	uint64_t due_ns;                 /* when the running step was due: keeps gaps from drifting */
	uint64_t sent;                   /* body bytes handed to the transport */
	struct mock_bytes body;          /* made, not yet handed over */
	struct mock_bytes head_drip;     /* rest of the head under drip-headers */
	struct mock_answer answer;
};

struct mock_exchange *mock_exchange_new(struct mock_conn *conn, const struct mock_transport_ops *ops,
    void *stream);
/* Starts the answer; x may be gone afterwards. */
void mock_exchange_begin(struct mock_exchange *x, const struct mock_request *request);
/* The transport's backlog went down; x may be gone afterwards. */
void mock_exchange_resume(struct mock_exchange *x);
/* The connection or stream is over; logs, detaches and frees. */
void mock_exchange_end(struct mock_exchange *x, enum mock_state state);

/* ---- conn.c --------------------------------------------------------------- */

struct mock_protocol {
	void (*on_input)(struct mock_conn *conn);   /* there may be bytes to read */
	void (*on_drained)(struct mock_conn *conn); /* conn->out went out completely */
	void (*on_idle)(struct mock_conn *conn);    /* end of a turn in which mock_conn_wake() was called */
	void (*on_close)(struct mock_conn *conn);   /* end every exchange, free protocol state */
	bool (*is_idle)(const struct mock_conn *conn);
};

enum mock_close { MOCK_CLOSE_NO, MOCK_CLOSE_FIN, MOCK_CLOSE_RST, MOCK_CLOSE_GONE /* the peer did */ };

struct mock_http1; /* http1.c */
struct mock_h2;    /* h2.c */

struct mock_conn {
	struct mock_source source;
	struct mock *mock;
	struct mock_conn *prev, *next;          /* list of all open connections */
	const struct mock_protocol *protocol;   /* NULL during the TLS handshake and under no-read */
	struct ssl_st *ssl;                     /* owned; NULL = plain */
	union {
		struct mock_http1 *http1;
		struct mock_h2 *h2;
	};                                      /* owned by the protocol */
	struct mock_bytes out;                  /* bytes for the wire */
	struct mock_defer defer;                /* end of turn: close, wake */
	struct mock_timer linger;               /* waits for the send queue before a reset */
	uint64_t id;                            /* from 1 */
	uint64_t n_requests;
	enum mock_close closing;
	bool woken;                             /* on_idle() is wanted */
	bool write_blocked;                     /* the kernel takes no more for now */
	bool control_only;                      /* came in by a --control listener */
	bool reading;                           /* false under no-read */
};

struct mock_listener {
	struct mock_source source;
	struct mock *mock;
	struct mock_timer pause;     /* out of descriptors: accepts again when due */
	bool tls, control;
	bool watched;                /* in the epoll set */
	struct sockaddr_in address;  /* bound */
};

/* Opens a listener on "HOST:PORT"; 0 or -1 with a sentence in `error`. */
int mock_listener_open(struct mock *mock, const char *address, bool tls, bool control, char *error,
    size_t error_bytes);
void mock_listeners_watch(struct mock *mock, bool on); /* --control listeners are left alone */
void mock_listener_close(struct mock_listener *listener);

/* Reads into `into`: >0 bytes, 0 nothing for now (or the peer ended: conn->closing is set). */
size_t mock_conn_read(struct mock_conn *conn, char *into, size_t n);
void mock_conn_flush(struct mock_conn *conn);
void mock_conn_wake(struct mock_conn *conn);
/* Ends the connection after this turn: FIN and RST once conn->out has left. */
void mock_conn_close(struct mock_conn *conn, enum mock_close how);
/* Every connection without an exchange under way, `except` left out (may be NULL); returns how many. */
size_t mock_conn_close_idle(struct mock *mock, enum mock_close how, const struct mock_conn *except);
void mock_conn_free_all(struct mock *mock);

/* ---- http1.c, h2.c, tls.c, control.c --------------------------------------- */

extern const struct mock_protocol mock_http1_protocol;
void mock_http1_open(struct mock_conn *conn);
/* The control interface will answer later, by mock_http1_reply(). */
void mock_http1_hold(struct mock_conn *conn);
/* A whole answer of the control interface on a connection that waits for one. */
void mock_http1_reply(struct mock_conn *conn, int status, const char *content_type, const char *at, size_t n);

extern const struct mock_protocol mock_h2_protocol;
void mock_h2_open(struct mock_conn *conn);

struct mock_tls_options {
	const char *cert_path, *key_path; /* PEM; or NULL with make_dir */
	const char *make_dir;             /* write ca.pem, cert.pem, key.pem here first */
	bool http2;                       /* offer h2 by ALPN */
};
int mock_tls_init(struct mock *mock, const struct mock_tls_options *options, char *error, size_t error_bytes);
void mock_tls_fini(struct mock *mock);
int mock_tls_open(struct mock_conn *conn); /* 0 or -1: no memory */
/* 1 done (protocol chosen and opened), 0 not yet, -1 failed. */
int mock_tls_handshake(struct mock_conn *conn);
/* As recv and send: -1 with errno, EAGAIN included. */
ssize_t mock_tls_read(struct mock_conn *conn, char *into, size_t n);
ssize_t mock_tls_write(struct mock_conn *conn, const char *at, size_t n);
void mock_tls_close(struct mock_conn *conn, bool orderly); /* orderly sends close_notify */
/* 8 hex digits of the SHA-256 of a key. */
void mock_tls_hash(struct mock_span key, char ret_hash[9]);

struct mock_waiter; /* control.c: a long poll */
/* Whether the path is the control interface's; if so it was or will be answered. */
bool mock_control(struct mock_conn *conn, const struct mock_request *request);
void mock_control_on_change(struct mock *mock);            /* the log changed: answers long polls */
void mock_control_forget(struct mock_conn *conn);          /* the connection of a long poll is gone */

/* ---- the process ---------------------------------------------------------- */

struct mock {
	struct mock_loop loop;
	const char *name;           /* --name */
	const char *key;            /* --key; NULL = none demanded */
	struct mock_bytes greeting; /* the healthy text */
	struct mock_log *log;
	struct mock_rules *rules;
	struct ssl_ctx_st *tls;
	struct mock_waiter *waiters;
	struct mock_conn *conns;
	struct mock_listener listeners[MOCK_LISTENERS_MAX];
	size_t n_listeners;
	uint64_t n_conns_open, n_conns_total, n_conns_refused, n_tls_handshakes;
	bool http2;
	time_t date_s;              /* second that date[] tells */
	char date[40];
	char scratch[64 << 10];     /* one read; nothing survives a callback in here */
};

/* The Date header's value now; also refreshes mock->date_s, the wall clock of the answers. */
const char *mock_date(struct mock *mock);

#endif
