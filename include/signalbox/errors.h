/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalbox/errors.h -- every error that signalbox can give, in two tables.
 *
 * SBX_ERRNO: what a C function returns, negated: 0 or -SBX_Exxx. The values are part of the ABI and never change.
 * SBX_CODES: how a request ended when it did not end well. The word goes over the wire (ERROR, key "code") and is stable;
 *   the status is the HTTP-like number that belongs to it where no provider gave one.
 */
#ifndef SIGNALBOX_ERRORS_H
#define SIGNALBOX_ERRORS_H

/* X(NAME, value, text, what to do about it) */
#define SBX_ERRNO(X)                                                                                                           \
	X(SBX_EINVAL, 1, "invalid argument", "a bug in the calling program")                                                   \
	X(SBX_ENOMEM, 2, "out of memory", "free some, or call later")                                                          \
	X(SBX_ETOOBIG, 3, "larger than the limit", "send less; the limits are in signalbox/wire.h")                            \
	X(SBX_EBUSY, 4, "at a limit right now", "call again later")                                                            \
	X(SBX_ETIME, 5, "nothing happened before the deadline", "wait again, or cancel")                                       \
	X(SBX_EAGENT, 6, "the agent is not there", "start signalboxd, or check the socket's path")                             \
	X(SBX_EACCESS, 7, "the agent's socket refuses this user", "join the socket's group")                                   \
	X(SBX_EPROTO, 8, "bytes that break the protocol", "versions differ, or the peer is not signalbox")                     \
	X(SBX_EVERSION, 9, "the agent speaks another protocol version", "update the older side")                               \
	X(SBX_EFORK, 10, "the handle was opened by another process", "open one of your own after fork")                        \
	X(SBX_ENOENT, 11, "no such request", "it has ended already")                                                           \
	X(SBX_EFAILED, 12, "the request failed", "see the reply's code and message")                                           \
	X(SBX_ESYNTAX, 13, "text that does not parse", "see the message")                                                      \
	X(SBX_ENOBOARD, 14, "no board", "the agent has none, or its descriptor did not arrive; everything else works")

/* X(NAME, "word", status) */
#define SBX_CODES(X)                                                                                                           \
	/* the request as it was submitted */                                                                                  \
	X(SBX_CODE_INVALID_REQUEST, "invalid_request", 400)  /* a frame key or the body is malformed */                        \
	X(SBX_CODE_UNSUPPORTED, "unsupported", 400)          /* understood, but this agent does not do it */                   \
	X(SBX_CODE_UNKNOWN_MODEL, "unknown_model", 404)      /* no route or model of that name; the message names the nearest */ \
	X(SBX_CODE_TOO_LARGE, "too_large", 413)              /* body above the limit */                                        \
	X(SBX_CODE_FORBIDDEN, "forbidden", 403)              /* this peer, or this key, may not do that */                     \
	X(SBX_CODE_INVALID_KEY, "invalid_key", 401)          /* there is no such virtual key, or it has expired or was revoked */ \
	/* what the providers said of it */                                                                                    \
	X(SBX_CODE_REJECTED, "rejected", 400)                /* the provider refuses this request; another would too */        \
	X(SBX_CODE_CONTEXT_LENGTH, "context_length", 400)    /* too long for every target */                                   \
	X(SBX_CODE_CONTENT_FILTER, "content_filter", 400)    /* refused for its content */                                     \
	X(SBX_CODE_CREDENTIALS, "credentials", 401)          /* the provider refuses the agent's key */                        \
	X(SBX_CODE_QUOTA, "quota", 402)                      /* the account at the provider has no money left */               \
	X(SBX_CODE_NOT_FOUND, "not_found", 404)              /* the provider does not know the model */                        \
	X(SBX_CODE_RATE_LIMITED, "rate_limited", 429)        /* every target is throttled; retry_after_ms says until when */   \
	X(SBX_CODE_UPSTREAM, "upstream_failed", 502)         /* every attempt failed before its first content */               \
	X(SBX_CODE_UNREACHABLE, "unreachable", 502)          /* no target could be reached; nothing was sent */                \
	X(SBX_CODE_UNCERTAIN, "uncertain", 502)              /* the last attempt may have been carried out and billed */       \
	X(SBX_CODE_STREAM_BROKEN, "stream_broken", 502)      /* cut after content was delivered; what was given stands */      \
	X(SBX_CODE_TIMEOUT, "timeout", 504)                  /* the request's deadline passed */                               \
	/* the agent itself */                                                                                                 \
	X(SBX_CODE_BUSY, "busy", 503)                        /* at max_in_flight or out of body memory; retry_after_ms */      \
	X(SBX_CODE_DRAINING, "draining", 503)                /* the agent is stopping */                                       \
	X(SBX_CODE_CANCELLED, "cancelled", 499)              /* by CANCEL */                                                   \
	X(SBX_CODE_AGENT_LOST, "agent_lost", 503)            /* said by the library: the connection broke; see `sent` */       \
	X(SBX_CODE_INTERNAL, "internal", 500)                /* a bug, or no memory */

enum sbx_errno {
#define X(name, value, text, todo) name = value,
	SBX_ERRNO(X)
#undef X
};

enum sbx_code {
	SBX_CODE_NONE,
#define X(name, word, status) name,
	SBX_CODES(X)
#undef X
	SBX_CODE__COUNT
};

#endif
