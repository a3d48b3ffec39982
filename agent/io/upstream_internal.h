/* SPDX-License-Identifier: Apache-2.0 */
/* upstream_internal.h -- shared by upstream.c (calls on the loop) and lane.c (options of handles). */
#ifndef SBX_AGENT_IO_UPSTREAM_INTERNAL_H
#define SBX_AGENT_IO_UPSTREAM_INTERNAL_H

#include <curl/curl.h>
#include <sys/queue.h>

#include "agent/io/upstream.h"

#define SBX_CALL_MAGIC 0xca11u
#define SBX_LANE_IDLE_MAX 64 /* ready handles kept: enough for ordinary traffic, 5 kB each */

enum sbx_call_state {
	SBX_CALL_QUEUED,   /* to be given to libcurl at the end of the turn */
	SBX_CALL_ACTIVE,   /* libcurl has it */
	SBX_CALL_DOOMED,   /* aborted: to be taken from libcurl, no callback any more */
};

TAILQ_HEAD(call_list, sbx_call);

struct sbx_call {
	uint32_t magic;
	enum sbx_call_state state;
	struct sbx_lane *lane;           /* counted in lane->n_calls */
	CURL *easy;                      /* of the lane, or its own (warm) */
	const struct sbx_call_ops *ops;
	void *arg;
	TAILQ_ENTRY(sbx_call) entry;     /* in one of the lists of the upstream */
	struct call_list *list;          /* which; NULL = in none */
	const struct sbx_pieces *body;
	struct curl_slist *own_headers;  /* NULL = the lane's; else they hold an idempotency key too */
	bool warm;                       /* a warm-up: no body, and a handle of its own */
	char *flat;                      /* the body in one piece, behind the struct; NULL = it is read from the pieces */
	uint32_t piece;                  /* next byte of the body to hand over */
	size_t piece_at;
	bool connected, sent, got_bytes, head_done;
	bool want_pause, is_paused;
	bool replay_refused, safe_unsent; /* a gate spoke; the server proved that it did not look */
	bool too_large_head, coded;       /* headers over the limit; a Content-Encoding nobody asked for */
	bool has_length, has_coding;      /* headers Content-Length, Transfer-Encoding */
	bool two_lengths;                 /* both, or two that differ: libcurl would believe one and keep the connection (RFC 9112, 6.3) */
	int fd;                           /* HTTP/1.1: the socket that libcurl last waited for on its behalf; -1 = none */
	uint32_t h2_stream;               /* 0 = HTTP/1.1 or not known */
	uint64_t length;                  /* the Content-Length, its first 18 digits */
	uint32_t head_bytes;
	int64_t head_unix_s;              /* wall clock when the answer began: for dates in its headers */
	uint16_t interim;
	int status;
	char content_type[64];
	struct sbx_retry_after retry;
	char error[CURL_ERROR_SIZE];
};

struct sbx_lane {
	struct sbx_upstream *u;
	char *url[SBX_OP__COUNT];        /* of each operation; NULL = the provider has it not, or the dialect's path_of says it */
	int (*path_of)(enum sbx_op op, const char *model, bool stream, struct sbx_buf *out); /* the dialect's; NULL = url[] */
	char *base_url, *query;          /* for path_of; query NULL = none */
	char *warm_url;                  /* of a warm-up */
	char *name;                      /* of the provider, for messages */
	struct curl_slist *headers;      /* with the key; wiped before it is freed */
	char *ca_file, *proxy;
	bool https, h2;
	uint64_t connect_ns;
	CURL *idle[SBX_LANE_IDLE_MAX];
	uint32_t n_idle, n_calls;
	bool closed;
	long goaway_port;                /* local port of the connection whose GOAWAY was last seen; 0 = none */
	uint32_t goaway_last_stream;
};

/* lane.c: a handle with all options of the lane set; the per-call ones are set by upstream.c. NULL on no memory. */
CURL *sbx_lane_take(struct sbx_lane *lane);
CURL *sbx_lane_warm_handle(struct sbx_lane *lane); /* of a warm-up; the caller cleans it up */
void sbx_lane_give_back(struct sbx_lane *lane, CURL *easy);
void sbx_lane_release(struct sbx_lane *lane); /* one call less; frees a closed lane after its last */
/* Sets the URL that the request goes to. 0, -SBX_ENOMEM. */
int sbx_lane_set_url(const struct sbx_lane *lane, CURL *easy, const struct sbx_call_ask *ask);
struct curl_slist *sbx_lane_headers_with(struct sbx_lane *lane, const char *idempotency_key);
void sbx_headers_free(struct curl_slist *headers); /* wipes */

/* upstream.c: the callbacks that lane.c installs. */
size_t sbx_call_on_read(char *to, size_t size, size_t n, void *arg);
int sbx_call_on_seek(void *arg, curl_off_t offset, int origin);
int sbx_call_on_request(void *arg, char *to_ip, char *from_ip, int to_port, int from_port);
curl_socket_t sbx_call_on_open(void *arg, curlsocktype purpose, struct curl_sockaddr *to);
int sbx_call_on_close(void *arg, curl_socket_t fd);
size_t sbx_call_on_header(char *line, size_t size, size_t n, void *arg);
size_t sbx_call_on_write(char *bytes, size_t size, size_t n, void *arg);
int sbx_call_on_debug(CURL *easy, curl_infotype type, char *text, size_t n, void *arg);
CURLM *sbx_upstream_multi(struct sbx_upstream *u);

#endif
