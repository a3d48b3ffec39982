/* SPDX-License-Identifier: Apache-2.0 */
/*
 * door.h -- signalbox-http from the inside: connections, calls, and what its files have of each other.
 *
 * THE WAY OF A REQUEST. listen.c accepts a connection and hands it to libmicrohttpd, which reads the request. guard.c decides from the
 * head alone whether it may come in. endpoints.c finds its row; relay.c submits the body, unread, to the agent; links.c brings the
 * agent's events back to relay.c; answer.c makes status and headers of them; libmicrohttpd writes the answer.
 *
 * ONE LOOP, one thread (server.c): an epoll set holds the listeners, libmicrohttpd's own epoll descriptor, the connections to the agent
 * and, for hang-ups alone, every client's socket. While the agent works a connection is suspended: libmicrohttpd then neither looks
 * at it nor spins.
 *
 * WHO FREES WHAT. A connection (struct conn) is made at accept and freed by libmicrohttpd's notice that it is closed; a call (struct
 * call) is made at the first look at a request's head and freed by the notice that it is completed. Both notices come only
 * inside MHD_run(), which is why nothing in an epoll batch can point to freed memory: MHD_run() comes after the batch. To end a
 * connection anywhere else, its socket is shut down and libmicrohttpd finds out.
 *
 * This program holds no provider key and knows nothing of any dialect; it does not read the bodies it carries.
 */
#ifndef SBX_DOOR_DOOR_H
#define SBX_DOOR_DOOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <microhttpd.h>
#include <signalbox.h>
#include <signalbox/wire.h>

#include "agent/io/listen.h"
#include "tools/door/bytes.h"
#include "tools/door/exposition.h"

/* ---- limits, and why ---- */
#define HEAD_NS 10000000000ull          /* from the first byte of a head to its end */
#define IDLE_NS 75000000000ull          /* between two requests of a connection; SDKs keep theirs for 5 to 60 s */
#define LEAVE_NS 100000000ull           /* for what a client that closed its side has sent before */
#define BODY_NS 30000000000ull          /* for each MiB of a body: 35 kB/s is slower than any client of a host */
#define STALL_S 120                     /* in which a client takes nothing of an answer that waits for it */
#define BODY_MAX_BYTES SBX_BODY_IN_MAX_BYTES
#define DISCARD_MAX_BYTES (64u << 20)   /* of a refused body, read so that the client gets to see why; beyond it the connection ends */
#define BODIES_MAX_BYTES (256u << 20)   /* of all requests that are coming in: eight of the largest */
#define WHOLE_MAX_BYTES (64u << 20)     /* an answer in one piece, as the agent has it */
#define STREAM_MAX_BYTES (SBX_CREDIT_BYTES + SBX_EVENT_MAX_BYTES) /* what may wait for one reader; the credit keeps it below */
#define HEADER_POOL_BYTES 16384         /* of libmicrohttpd for one connection: heads, and what is being written; it is zeroed
                                         * for each request */
#define CONNECTIONS_DEFAULT 16384       /* as many as the agent takes requests */
#define PER_ADDRESS_DEFAULT 256         /* beyond loopback: one host is one user there */
#define COMMENT_NS 15000000000ull       /* between two comments of a stream that waits */
#define CHECK_NS 5000000000ull          /* for the agent to say whether a key is good; it takes microseconds */
#define LINKS_MAX 4                     /* connections to the agent; 4,096 requests run on each */
#define LISTENERS_MAX 8
#define NAMES_MAX 16                    /* --host, --origin, --trust-uid */
#define TARGET_MAX_BYTES 256
#define METRICS_NS 2000000000ull      /* for the agent to tell its numbers; monitoring systems give up after 10 s */
#define METRICS_FRESH_NS 1000000000ull /* so old they may be: whoever asks more often costs the agent nothing */

struct door;
struct call;

/* ---- what the epoll set points to ---- */
enum watch_kind { WATCH_LISTENER, WATCH_SERVER, WATCH_LINK, WATCH_CONN, WATCH_SIGNAL };
struct watch {
	enum watch_kind kind;
};

struct listener {
	struct watch watch;
	int fd;
	bool tls, local;         /* local: a Unix socket */
	struct sbx_listen_socket unix_socket;
	char name[112];          /* for people: "127.0.0.1:8088" */
};

struct server {              /* libmicrohttpd, plain or with TLS */
	struct watch watch;
	struct MHD_Daemon *mhd;  /* NULL = not used */
	bool run;                /* MHD_run() has something to do */
};

struct link {                /* one connection to the agent */
	struct watch watch;
	struct sbx_client *client;
	int watched_fd;          /* in the epoll set; -1 = none */
};

/* ---- clocks: each of one length, so that a list of each is in order ---- */
enum clock { CLOCK_NONE, CLOCK_HEAD, CLOCK_CHECK, CLOCK_IDLE, CLOCK_LEAVE, CLOCK_BODY, CLOCK_COMMIT, CLOCK_COMMENT, CLOCK_METRICS, CLOCK__COUNT };

struct peer {                /* who connects: an address beyond loopback, or a user on a Unix socket */
	uint8_t key[17];
	uint32_t connections;
	struct peer *next;
};

struct conn {
	struct watch watch;
	struct door *door;
	struct server *server;
	struct MHD_Connection *mhd; /* NULL until libmicrohttpd says that it started */
	int fd;                  /* libmicrohttpd closes it */
	enum clock clock;
	uint64_t due_ns;
	struct conn *prev, *next; /* in the list of its clock */
	struct peer *peer;       /* NULL = not counted */
	struct call *call;       /* the request that is being served; NULL = none */
	bool local, trusted;     /* trusted: its user needs no key */
	uid_t uid;               /* of who is behind a Unix socket */
	bool hung_up;            /* the client closed its side: nothing is begun for it any more */
	bool killed;             /* conn_kill(): its socket is shut down */
	bool bad_target;         /* of the request: refused by its raw spelling */
};

/* ---- one request ---- */
enum call_state {
	CALL_CHECKING,           /* the agent is asked about its key; its head is all that was read */
	CALL_BODY,               /* its body comes in */
	CALL_DISCARD,            /* refused; the rest of its body is read and dropped */
	CALL_WAITING,            /* the agent works on it; nothing was said to the client */
	CALL_READY,              /* `response` is there */
	CALL_STREAMING,          /* head and first bytes were handed over; more comes */
	CALL_ANSWERED,           /* all that is left is libmicrohttpd's */
};

struct principal {           /* on whose behalf */
	char tenant[SBX_PRINCIPAL_MAX_BYTES + 1], key_id[64];
};

enum verdict {               /* on the key that was shown */
	VERDICT_NONE,        /* nobody has said anything yet */
	VERDICT_GOOD, VERDICT_BAD,
	VERDICT_ASKED,       /* the agent was; its answer comes to keys_on_answer() */
	VERDICT_UNKNOWN,     /* it could not be asked, or does not answer */
};
#define KEY_HASH_BYTES 32

struct endpoint {
	const char *path;        /* one that ends in a slash takes what follows as a name */
	const char *method;
	const char *operation;   /* of the agent; NULL = answered here */
	void (*begin)(struct call *); /* sets an answer, or leaves it to come */
	void (*on_reply)(struct call *, const struct sbx_reply *); /* what the agent says to a question of begin(); reply NULL: it was
	                          * lost. NULL = it asks none, or submits */
	bool open;               /* needs no key */
};

struct call {
	struct conn *conn;
	const struct endpoint *endpoint;
	const char *name;        /* behind the endpoint's path; libmicrohttpd's, as long as the request */
	enum call_state state;
	bool suspended;
	char id[40];             /* x-request-id */
	uint64_t began_ns;
	enum verdict verdict;
	unsigned char key_hash[KEY_HASH_BYTES]; /* SHA-256 of what was shown */
	struct principal principal;
	const char *idempotency_key; /* libmicrohttpd's; NULL = none */
	uint32_t deadline_ms;    /* 0 = the agent's default */
	struct bytes body;
	uint64_t body_seen_bytes; /* taken or dropped */
	/* the agent's side */
	struct link *link;
	uint64_t request;        /* its number there; 0 = none runs */
	struct call *next_running;
	bool streamed, ended;
	char target[TARGET_MAX_BYTES]; /* the last that was asked */
	uint32_t n_targets, n_switches; /* that were asked so far; of them other ones than the one before */
	/* the answer */
	struct bytes out;
	int status;
	struct MHD_Response *response; /* owned until it is queued */
	struct call *next_scrape;      /* waits for the numbers of the agent, as this one does */
};

struct door_options {
	const char *agent_socket;      /* NULL = the usual places */
	const char *listen[LISTENERS_MAX];
	uint32_t n_listen;
	const char *tls_cert, *tls_key;
	const char *key_file;          /* NULL = all keys are the agent's */
	uid_t trust_uid[NAMES_MAX];
	uint32_t n_trust_uid;
	const char *host[NAMES_MAX], *origin[NAMES_MAX];
	uint32_t n_host, n_origin;
	uint64_t commit_after_ns;      /* 0 = never */
	uint64_t drain_ns;
	uint32_t max_connections, max_per_address;
	bool litellm;                  /* its header names too */
	bool metrics_open;             /* /metrics needs no key on this host */
};

#define RUNNING_BUCKETS 1024
#define PEER_BUCKETS 256
#define ENDPOINTS_MAX 16
#define STATUS_MAX 600
#define BOUNDS_MAX 32
#define ALLOWED_HOSTS_MAX (4 * LISTENERS_MAX + NAMES_MAX)

struct door {
	struct door_options options;
	int epoll_fd;
	struct watch signals;
	int signal_fd;
	struct listener listener[LISTENERS_MAX];
	uint32_t n_listeners;
	uint64_t accept_again_ns;      /* out of descriptors until then; 0 = not */
	struct server plain, tls;
	struct link link[LINKS_MAX];
	uint64_t now_ns;               /* monotonic, once a turn */
	struct { struct conn *first, *last; } clock[CLOCK__COUNT];
	uint32_t n_conns, n_calls;
	struct conn **by_fd;
	uint32_t n_by_fd;
	struct peer *peers[PEER_BUCKETS];
	struct call *running[RUNNING_BUCKETS];
	uint64_t bodies_bytes;         /* of all calls that are in CALL_BODY */
	char *allowed_host[ALLOWED_HOSTS_MAX];
	uint32_t n_allowed_hosts;
	uint64_t id_seed;
	struct count {
		uint64_t accepted, received_bytes, sent_bytes; /* connections; bodies */
		uint64_t answers[ENDPOINTS_MAX][STATUS_MAX];   /* by endpoint_number(); status 0 = the client left before */
	} count;
	int64_t started_unix_ms;
	struct scrapes {
		struct call *first;            /* of those that wait; it is the one that asks the agent */
		struct exposition agent;       /* what the agent told; under way while one waits */
		uint64_t generation;           /* of the agent that tells */
		uint64_t told_ns;              /* when it had told all of it; 0 = never, or not to be used again */
		bool paging;                   /* METRICS is being asked for; before that STATS */
		uint64_t time_bound_ns[BOUNDS_MAX], token_bound[BOUNDS_MAX]; /* of its histograms */
		uint32_t n_time_bounds, n_token_bounds;
	} scrapes;
	bool draining, stop_now;
	uint64_t drain_until_ns;
};

/* ---- listen.c ---- */
bool listen_open(struct door *d);        /* all of options.listen; false: said why */
void listen_close(struct door *d);
void listen_accept(struct door *d, struct listener *l);
void listen_pause(struct door *d, uint64_t until_ns); /* 0 = go on */
void conn_free(struct conn *c);

/* ---- server.c ---- */
bool server_open(struct door *d);
int server_run(struct door *d);          /* until drained: the exit status */
void server_close(struct door *d);
void clock_set(struct conn *c, enum clock clock);
void conn_kill(struct conn *c);          /* its socket is shut down; libmicrohttpd will notice */
void call_wake(struct call *call);       /* libmicrohttpd looks at it again */

/* ---- guard.c ---- */
struct problem {
	int status;
	const char *type, *code;         /* static; in OpenAI's words */
	char message[400];
	int retry_after_s;               /* -1 = not said */
	const char *allow;               /* of a 405 */
	bool close;                      /* the connection as well, at once */
};
/* May this request come in, by its head alone? True, with endpoint, name, principal and keys set; else why not, or the call's verdict is
 * VERDICT_ASKED and this is to be asked again. */
bool guard_check(struct call *call, const char *url, const char *method, struct problem *ret_problem);
/* Is its raw spelling one that no client of ours would use? */
bool guard_target_is_bad(const char *raw);
bool guard_expects_continue(struct call *call);
uint64_t guard_length(struct call *call); /* UINT64_MAX = not said: chunked; 0 = no body */
bool guard_allow_host(struct door *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- keys.c ---- */
bool keys_open(struct door *d);          /* false: said why */
void keys_close(void);
/* Is it good, and whose? GOOD: call->principal is set. ASKED: the call waits, in CALL_CHECKING, and is looked at again when the agent
 * has answered: then this has the answer. */
enum verdict keys_check(struct call *call, const char *key);
void keys_on_answer(struct call *call, const struct sbx_event *ev); /* the agent's; wakes the call */
void keys_on_clock(struct call *call);   /* CLOCK_CHECK: it does not come */

/* ---- endpoints.c ---- */
const struct endpoint *endpoint_find(const char *url, const char *method, const char **ret_name, const char **ret_allow);
uint32_t endpoint_number(const struct endpoint *e); /* 0 = NULL: a request that has none */
const char *endpoint_path(uint32_t number);         /* "" for 0; NULL = there is no such number */

/* ---- relay.c ---- */
void relay_begin(struct call *call);
void relay_on_event(struct call *call, const struct sbx_event *ev);
void relay_on_clock(struct call *call);  /* CLOCK_COMMIT, CLOCK_COMMENT */
void relay_abandon(struct call *call);   /* nobody waits for it any more */

/* ---- links.c ---- */
bool links_open(struct door *d);
void links_close(struct door *d);
/* Submit the call's body, or ask for STATS: 0, or why not, with the library's sentence. */
int links_submit(struct call *call, const struct sbx_request_options *options, const char **ret_why);
int links_ask_stats(struct call *call, const char **ret_why);
int links_ask_key(struct call *call, const char *sha256_hex, const char **ret_why); /* likewise: is there such a key? */
int links_ask_metrics(struct call *call, uint64_t from, const char **ret_why);
void links_forget(struct call *call);    /* its events go nowhere from now on */
void links_process(struct door *d, struct link *l, short revents);
void links_watch(struct door *d);        /* before the loop waits */
int links_timeout_ms(const struct door *d); /* -1 = none */
struct sbx_board *links_board(struct door *d); /* of an agent that is there; NULL = none. sbx_board_close() */

/* ---- answer.c ---- */
/* Each sets call->response and wakes the call. */
void answer_problem(struct call *call, const struct problem *problem);
void answer_json(struct call *call, int status, char *json); /* takes a malloc'd text; NULL = no memory */
void answer_text(struct call *call, const char *type, char *text, size_t n); /* 200; takes a malloc'd text */
void answer_whole(struct call *call, const struct sbx_reply *reply);
void answer_failure(struct call *call, const struct sbx_reply *reply);
void answer_stream(struct call *call);   /* head now, bytes as they come in call->out */
/* The failure as an event of a stream that has begun. False: no memory. */
bool answer_failure_in_stream(struct call *call, const struct sbx_reply *reply);
struct problem problem_of(int status, const char *type, const char *code, const char *fmt, ...) __attribute__((format(printf, 4, 5)));

/* ---- metrics.c ---- */
void metrics_begin(struct call *call);
void metrics_on_reply(struct call *call, const struct sbx_reply *reply);
void metrics_on_clock(struct call *call); /* CLOCK_METRICS: the agent does not answer */
void metrics_abandon(struct call *call);  /* nobody waits for it any more */
void metrics_close(struct door *d);
bool metrics_are_open(const struct call *call); /* to this client, without a key */

/* ---- models.c ---- */
void models_begin(struct call *call);
void model_begin(struct call *call);
void health_begin(struct call *call);
void ready_begin(struct call *call);
void models_on_stats(struct call *call, const struct sbx_reply *reply); /* NULL: the agent was lost */

#endif
