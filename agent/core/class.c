/* SPDX-License-Identifier: Apache-2.0 */
/*
 * class.c -- from what is known at the end of an attempt to its class.
 *
 * Three witnesses, heard in this order, because each is more precise than the next:
 *   1. the provider's own error kind, as the dialect read it. A wrong key may come as a 400, an overload inside a 200;
 *   2. the HTTP status, or the one that an error inside a 200 carries;
 *   3. the transport: what had left, what had come.
 * Before them: an answer that is whole is OK whatever the connection did afterwards, and once content was delivered every
 * failure is MIDSTREAM, since from then on only one question matters: what to do about the content that stands.
 */
#include "agent/core/class.h"

#include <stddef.h>

struct class_row {
	const char *name, *meaning;
	bool counts;
	enum sbx_breaker_note breaker;
	enum sbx_ledger ledger;
	enum sbx_code code;
	int rank;
};

static const struct class_row rows[SBX_CLASS__COUNT] = {
	[SBX_CLASS_NONE] = { "NONE", "not ended", false, SBX_NOTE_BREAKER_NONE, SBX_LEDGER_ESTIMATE, SBX_CODE_NONE, 0 },
#define X(name, counts, breaker, ledger, code, rank, meaning)                                                                  \
	[SBX_CLASS_##name] = { #name, meaning, counts, SBX_NOTE_BREAKER_##breaker, SBX_LEDGER_##ledger, SBX_CODE_##code, rank },
	SBX_CLASSES(X)
#undef X
};

/* NONE: the kind says nothing that the status would not say better. */
static enum sbx_class
class_of_kind(enum sbx_error_kind kind)
{
	switch (kind) {
	case SBX_KIND_INVALID:        return SBX_CLASS_BAD_REQUEST;
	case SBX_KIND_CONTEXT_LENGTH: return SBX_CLASS_CONTEXT_LENGTH;
	case SBX_KIND_CONTENT_FILTER: return SBX_CLASS_CONTENT_FILTER;
	case SBX_KIND_AUTH:           return SBX_CLASS_AUTH;
	case SBX_KIND_PERMISSION:     return SBX_CLASS_FORBIDDEN;
	case SBX_KIND_QUOTA:          return SBX_CLASS_QUOTA;
	case SBX_KIND_RATE_LIMIT:
	case SBX_KIND_OVERLOADED:     return SBX_CLASS_REFUSED;
	case SBX_KIND_NOT_FOUND:      return SBX_CLASS_NOT_THERE;
	case SBX_KIND_SERVER:
	case SBX_KIND_LOSSY:          /* whole by its end, but perhaps not by its content: a cut answer */
	case SBX_KIND_TOO_BIG:        return SBX_CLASS_FAILED;
	case SBX_KIND_JUNK:           /* a load balancer's HTML: its status still speaks */
	case SBX_KIND_UNKNOWN:
	case SBX_KIND__COUNT:         break;
	}
	return SBX_CLASS_NONE;
}

/* status >= 300. spoke: the body was an error of the dialect, or a Retry-After stood beside it. */
static enum sbx_class
class_of_status(int status, bool spoke)
{
	switch (status) {
	case 401: return SBX_CLASS_AUTH;
	case 402: return SBX_CLASS_QUOTA;
	case 403: return SBX_CLASS_FORBIDDEN;
	case 404: case 405: case 410: /* no such model, no such path (a wrong base URL), a model taken away */
		return SBX_CLASS_NOT_THERE;
	case 408: case 409: case 424: case 425: case 407:
		return SBX_CLASS_FAILED;
	case 429: case 498: case 529: /* 498: capacity of Groq's flex tier; 529: overloaded, Anthropic's word */
		return SBX_CLASS_REFUSED;
	case 451: /* legal reasons lie in the content; were it the model, every client would meet it and nobody should retry */
		return SBX_CLASS_CONTENT_FILTER;
	case 503: /* said by the provider it is a refusal before work; said by a proxy in HTML it is an outage */
		return spoke ? SBX_CLASS_REFUSED : SBX_CLASS_FAILED;
	default:
		break;
	}
	if (status >= 500)
		return SBX_CLASS_FAILED;
	if (status >= 400)
		return SBX_CLASS_BAD_REQUEST;
	return SBX_CLASS_NOT_THERE; /* 3xx: redirects are never followed, so the base URL is wrong */
}

int
sbx_end_status(const struct sbx_end *end)
{
	if (end->status < 400 && end->error && end->error->status >= 400)
		return end->error->status;
	return end->status;
}

enum sbx_class
sbx_classify(const struct sbx_end *end)
{
	const int status = sbx_end_status(end);

	if (end->transport == SBX_TRANSPORT_ABORTED)
		return SBX_CLASS_CANCELLED;
	/* The connection may break after the last content: the answer is whole all the same, only its usage may be missing. */
	if (end->complete && !end->error && status >= 200 && status < 300 &&
	    (end->transport == SBX_TRANSPORT_OK || end->transport == SBX_TRANSPORT_BROKEN))
		return SBX_CLASS_OK;
	if (end->transport == SBX_TRANSPORT_LOCAL)
		return SBX_CLASS_LOCAL; /* also after content: the target is not to blame, request.c knows what was delivered */
	if (end->committed)
		return SBX_CLASS_MIDSTREAM;
	if (end->transport == SBX_TRANSPORT_CONNECT || end->transport == SBX_TRANSPORT_UNSENT)
		return SBX_CLASS_NOT_SENT;

	enum sbx_class said = end->error ? class_of_kind(end->error->kind) : SBX_CLASS_NONE;

	if (said == SBX_CLASS_NONE && status >= 300)
		said = class_of_status(status, end->retry_after_ns >= 0 || (end->error && end->error->kind != SBX_KIND_JUNK));
	/* "Overloaded" in the middle of an answer that was not delivered yet is no refusal before work: it counts, and it costs. */
	if (end->got_content && said != SBX_CLASS_NONE && !sbx_class_counts(said))
		return SBX_CLASS_FAILED;
	if (said != SBX_CLASS_NONE)
		return said;
	if (end->transport == SBX_TRANSPORT_BROKEN) {
		if (end->sent)
			return SBX_CLASS_UNCERTAIN; /* half an answer was worked for, too */
		return end->got_bytes ? SBX_CLASS_FAILED : SBX_CLASS_NOT_SENT; /* half a request cannot be carried out */
	}
	/* A 2xx that is no answer: empty, HTML, or ended without its end. */
	return SBX_CLASS_FAILED;
}

const char *
sbx_class_name(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT ? rows[c].name : "?";
}

const char *
sbx_class_meaning(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT ? rows[c].meaning : "?";
}

bool
sbx_class_counts(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT && rows[c].counts;
}

enum sbx_breaker_note
sbx_class_breaker(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT ? rows[c].breaker : SBX_NOTE_BREAKER_NONE;
}

enum sbx_code
sbx_class_code(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT ? rows[c].code : SBX_CODE_NONE;
}

int
sbx_class_rank(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT ? rows[c].rank : 0;
}

enum sbx_ledger
sbx_class_ledger(enum sbx_class c)
{
	return (unsigned)c < SBX_CLASS__COUNT ? rows[c].ledger : SBX_LEDGER_ESTIMATE;
}
