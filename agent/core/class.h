/* SPDX-License-Identifier: Apache-2.0 */
/*
 * class.h -- how an attempt ended: the retry matrix as one table.
 *
 * X(NAME, counts, breaker, ledger, code, rank, meaning)
 *   counts   does it use up one of the request's attempts (it cost, or may have cost, money or time)
 *   breaker  what it tells about the target: GOOD, FAIL (one more consecutive failure), THROTTLE, KEY (the credential),
 *            SPENT (the credential, for long), AWAY (the target is misconfigured), NONE
 *   ledger   what the provider may have billed: VOID, POST (what it said), ESTIMATE (what we saw), NONE
 *   code     what the client is told when a request ends by it (SBX_CODE_)
 *   rank     of a request's failed attempts, the one of the highest rank is told. The provider's word about the request itself
 *            comes first: it stays true wherever the request goes. Then what passes by waiting, then what failed by itself,
 *            then silence. What the operator must mend (keys, names) comes last: a misconfigured fallback must not hide why
 *            the primary failed
 * What follows for the request (same target again? another one?) depends on more than the class and is written in
 * request.c, function `after_failure`, beside the reasons.
 */
#ifndef SBX_AGENT_CORE_CLASS_H
#define SBX_AGENT_CORE_CLASS_H

#include <stdbool.h>
#include <stdint.h>

#include <signalbox/errors.h>

#include "agent/dialect/hub.h"

#define SBX_CLASSES(X)                                                                                                         \
	X(OK,             true,  GOOD,     POST,     NONE,           0, "answered") \
	X(NOT_SENT,       false, FAIL,     VOID,     UNREACHABLE,    2, "could not be reached; nothing was sent") \
	X(REFUSED,        false, THROTTLE, VOID,     RATE_LIMITED,   5, "refused before any work: rate limit or overload") \
	X(BAD_REQUEST,    true,  NONE,     VOID,     REJECTED,       6, "the provider rejects the request itself") \
	X(CONTEXT_LENGTH, true,  NONE,     VOID,     CONTEXT_LENGTH, 6, "the request is too long for this model") \
	X(CONTENT_FILTER, true,  NONE,     VOID,     CONTENT_FILTER, 6, "refused for its content") \
	X(AUTH,           false, KEY,      VOID,     CREDENTIALS,    1, "the key was refused") \
	X(QUOTA,          false, SPENT,    VOID,     QUOTA,          1, "the account has no money or allowance left") \
	X(FORBIDDEN,      false, AWAY,     VOID,     CREDENTIALS,    1, "this key may not use this model") \
	X(NOT_THERE,      false, AWAY,     VOID,     NOT_FOUND,      1, "the provider does not know this model") \
	X(FAILED,         true,  FAIL,     VOID,     UPSTREAM,       4, "the provider failed, or its answer was no answer") \
	X(UNCERTAIN,      true,  FAIL,     ESTIMATE, UNCERTAIN,      3, "silence or a broken connection after the request was sent") \
	X(MIDSTREAM,      true,  FAIL,     ESTIMATE, STREAM_BROKEN,  4, "broken after content had been delivered") \
	X(CANCELLED,      true,  NONE,     ESTIMATE, CANCELLED,      0, "stopped by us: the client left, or the deadline passed") \
	X(LOCAL,          false, NONE,     ESTIMATE, BUSY,           0, "this host's own failure: descriptors or memory") \
	X(PASSED_OVER,    false, NONE,     NONE,     NONE,           0, "not tried")

enum sbx_class {
	SBX_CLASS_NONE, /* not ended yet */
#define X(name, counts, breaker, ledger, code, rank, meaning) SBX_CLASS_##name,
	SBX_CLASSES(X)
#undef X
	SBX_CLASS__COUNT
};
enum sbx_breaker_note { SBX_NOTE_BREAKER_NONE, SBX_NOTE_BREAKER_GOOD, SBX_NOTE_BREAKER_FAIL, SBX_NOTE_BREAKER_THROTTLE, SBX_NOTE_BREAKER_KEY,
                        SBX_NOTE_BREAKER_SPENT, SBX_NOTE_BREAKER_AWAY };
enum sbx_ledger { SBX_LEDGER_NONE, SBX_LEDGER_VOID, SBX_LEDGER_POST, SBX_LEDGER_ESTIMATE };

/* How the transfer itself went, as io/ saw it. */
enum sbx_transport {
	SBX_TRANSPORT_OK,        /* an answer came and ended in an orderly way */
	SBX_TRANSPORT_CONNECT,   /* DNS, TCP or TLS failed: nothing was sent */
	SBX_TRANSPORT_UNSENT,    /* the server proved that it did not look at it: REFUSED_STREAM, GOAWAY below our stream */
	SBX_TRANSPORT_BROKEN,    /* reset, end of file in the middle, protocol error, wrong length */
	SBX_TRANSPORT_JUNK,      /* not HTTP, headers over the limit, a content encoding nobody asked for */
	SBX_TRANSPORT_LOCAL,     /* no descriptors, no memory */
	SBX_TRANSPORT_ABORTED,   /* by the request itself: a deadline or a cancel */
};

/* All that is known at the end of an attempt. */
struct sbx_end {
	enum sbx_transport transport;
	bool sent;               /* the last byte of the request had left (or may have) */
	bool got_bytes;          /* at least one byte of an answer came */
	bool got_content;
	bool complete;           /* the dialect saw COMPLETE or END */
	bool committed;          /* content reached the client */
	int status;              /* HTTP; 0 = none */
	int64_t retry_after_ns;  /* from the headers or the body, relative to now; -1 = not said */
	bool told_no_retry;      /* x-should-retry: false */
	const struct sbx_provider_error *error; /* NULL = the dialect found none */
};

/* The status that tells most: HTTP's, or inside a 2xx the one that the error carries; 0 = none. */
int sbx_end_status(const struct sbx_end *end);
/* Class first by the provider's own error kind, then by status, then by what the transport tells. Pure. */
enum sbx_class sbx_classify(const struct sbx_end *end);
const char *sbx_class_name(enum sbx_class c); /* "NOT_SENT" */
const char *sbx_class_meaning(enum sbx_class c);
bool sbx_class_counts(enum sbx_class c);
enum sbx_breaker_note sbx_class_breaker(enum sbx_class c);
enum sbx_code sbx_class_code(enum sbx_class c); /* SBX_CODE_NONE for OK, PASSED_OVER and NONE */
int sbx_class_rank(enum sbx_class c);
enum sbx_ledger sbx_class_ledger(enum sbx_class c); /* ESTIMATE for NONE: it runs, so it may be billed */

#endif
