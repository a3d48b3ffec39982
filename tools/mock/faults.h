/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The language of faults: "status=429,retry-after=2,times=3".
 *
 * One table (MOCK_FAULTS) holds every fault word: the struct, the parser, the
 * --help text and the test of the manual page derive from it, so a new word is
 * one line here, its effect where it happens, and its paragraph in the manual.
 *
 * A list is words separated by commas; a word may have "=VALUE".  In a value a
 * backslash hides the next character (\, is a comma), and \n \r \t \0 \xHH are
 * what they are in C.
 *
 * A rule is "MODEL: FAULTS": a fnmatch(3) pattern and a list.  A model name may
 * carry its own list after its first '@'.  Pure code: no socket, no clock, no
 * file; whoever keeps the rule loads what file= names.
 */
#ifndef SIGNALBOX_TOOLS_MOCK_FAULTS_H
#define SIGNALBOX_TOOLS_MOCK_FAULTS_H

#include "tools/mock/bytes.h"

#include <stdbool.h>
#include <stdint.h>

#define MOCK_FAULT_HEADERS_MAX 16 /* header= may be given this often in one list */
#define MOCK_FAULT_LIST_MAX 65536 /* bytes of one list */

/*
 * X(member, word, kind, argument, help)
 *  FLAG    bool      no value
 *  COUNT   int64_t   a number from 0 (k, m: times 1024, 1024^2); -1 = not given
 *  OPTIONAL int64_t  the same, and 1 when the value is left out
 *  SIGNED  int64_t   +N or -N; 0 = not given
 *  TIME    uint64_t  ns; a bare number is ms; suffixes us, ms, s; 0 = not given
 *  TEXT    mock_text any text; .at NULL = not given
 *  CHOICE  int       one of the words in `argument`; 0 = not given, else 1, 2, ... in order
 *  HEADER  --        repeatable "Name:Value", kept in headers[]
 */
#define MOCK_FAULTS(X) \
	X(times, "times", COUNT, "N", "the rule holds for N requests, then falls through") \
	X(skip, "skip", COUNT, "N", "the first N requests pass to the rules below") \
	X(conn, "conn", CHOICE, "reused|new", "only on a connection that had a request before, or had none") \
	X(accept_close, "accept-close", FLAG, "", "close the connection at accept") \
	X(no_read, "no-read", FLAG, "", "never read from the connection") \
	X(close_before, "close-before", FLAG, "", "close after the whole request, no byte answered") \
	X(hang, "hang", FLAG, "", "read the request and never answer") \
	X(how, "how", CHOICE, "fin|rst", "how a connection is cut") \
	X(status, "status", COUNT, "N", "the HTTP status; from 400 up with an error body") \
	X(body, "body", TEXT, "TEXT", "this body, or with error-after this event") \
	X(file, "file", TEXT, "PATH", "the body is the content of a file") \
	X(replay, "replay", FLAG, "", "send file= chunked, byte for byte, as a recorded answer") \
	X(content_type, "content-type", TEXT, "TYPE", "the Content-Type; none leaves it out") \
	X(header, "header", HEADER, "NAME:VALUE", "one more header, raw; repeatable") \
	X(retry_after, "retry-after", TEXT, "VALUE", "a Retry-After header") \
	X(retry_after_ms, "retry-after-ms", TEXT, "VALUE", "a retry-after-ms header") \
	X(date, "date", TEXT, "HTTP-DATE|none", "the Date header") \
	X(headers_delay, "headers-delay", TIME, "TIME", "wait before the response head") \
	X(drip_headers, "drip-headers", TIME, "TIME", "one byte of the head each TIME") \
	X(interim, "1xx", COUNT, "N", "N interim responses (100, 103) first") \
	X(big_headers, "big-headers", COUNT, "BYTES", "that many bytes of extra headers") \
	X(first, "first", TIME, "TIME", "wait before the first content token") \
	X(gap, "gap", TIME, "TIME", "wait between tokens") \
	X(tokens, "tokens", COUNT, "N", "answer with N content tokens") \
	X(text, "text", TEXT, "TEXT", "answer with this text, a token a word") \
	X(reasoning, "reasoning", COUNT, "N", "N reasoning_content deltas first") \
	X(tool, "tool", OPTIONAL, "[N]", "answer with N tool calls in fragments, interleaved") \
	X(choices, "choices", COUNT, "N", "N choices, whatever n the request has") \
	X(finish, "finish", TEXT, "REASON|none", "the finish_reason; none never says it") \
	X(usage, "usage", CHOICE, "none|zero|double|always|cumulative", "what happens to the usage") \
	X(prompt_tokens, "prompt-tokens", COUNT, "N", "prompt_tokens in the usage") \
	X(cached_tokens, "cached-tokens", COUNT, "N", "cached_tokens in the usage") \
	X(done, "done", CHOICE, "no|yes", "no leaves out [DONE]") \
	X(cut, "cut", COUNT, "N", "close after exactly N body bytes") \
	X(cut_tokens, "cut-tokens", COUNT, "N", "close after N content tokens") \
	X(stall, "stall", COUNT, "N", "go silent for ever after N body bytes") \
	X(stall_tokens, "stall-tokens", COUNT, "N", "go silent for ever after N content tokens") \
	X(drip, "drip", TIME, "TIME", "one byte of the body each TIME") \
	X(split, "split", COUNT, "N", "write the body in pieces of N bytes, one write each") \
	X(comments, "comments", TIME, "TIME", "an SSE comment each TIME instead of tokens, for ever") \
	X(error_first, "error-first", FLAG, "", "an error event inside a 200 as the first event") \
	X(error_after, "error-after", COUNT, "N", "an error event after N tokens, then the end") \
	X(error_status, "error-status", COUNT, "N", "which error that event (or json-error) tells; 503") \
	X(html, "html", FLAG, "", "200 and an HTML page") \
	X(json_error, "json-error", FLAG, "", "200 and a JSON error body") \
	X(empty, "empty", FLAG, "", "200 and no body") \
	X(malformed, "malformed", COUNT, "N", "the N-th event is broken JSON") \
	X(event, "event", TEXT, "RAWTEXT", "raw text put before token 1") \
	X(line, "line", COUNT, "BYTES", "one SSE data line of that size as token 1") \
	X(tiny, "tiny", COUNT, "N", "N tiny events instead of tokens") \
	X(crlf, "crlf", FLAG, "", "SSE lines end with CR LF") \
	X(lone_cr, "lone-cr", FLAG, "", "SSE lines end with CR") \
	X(bom, "bom", FLAG, "", "the body begins with a byte order mark") \
	X(invalid_utf8, "invalid-utf8", FLAG, "", "token 1 holds bytes that are not UTF-8") \
	X(nul, "nul", FLAG, "", "token 1 holds a NUL byte") \
	X(wrong_length, "wrong-length", SIGNED, "+N|-N", "Content-Length lies by N") \
	X(bad_chunk, "bad-chunk", FLAG, "", "the last chunk is cut in half") \
	X(te_cl, "te-cl", FLAG, "", "Transfer-Encoding and Content-Length together") \
	X(gzip, "gzip", FLAG, "", "a gzip bomb of 1000:1, 64 MiB when unpacked") \
	X(encoding, "encoding", TEXT, "NAME", "a Content-Encoding header only") \
	X(goaway, "goaway", CHOICE, "below|above", "h2: GOAWAY below or at our stream, then close") \
	X(refused_stream, "refused-stream", FLAG, "", "h2: RST_STREAM with REFUSED_STREAM") \
	X(rst_stream, "rst-stream", COUNT, "CODE", "h2: RST_STREAM with CODE, at the cut if one is set")

/* Values of the CHOICE words, in the order of the table. */
enum { MOCK_CONN_REUSED = 1, MOCK_CONN_NEW };
enum { MOCK_HOW_FIN = 1, MOCK_HOW_RST };
enum { MOCK_USAGE_NONE = 1, MOCK_USAGE_ZERO, MOCK_USAGE_DOUBLE, MOCK_USAGE_ALWAYS, MOCK_USAGE_CUMULATIVE };
enum { MOCK_DONE_NO = 1, MOCK_DONE_YES };
enum { MOCK_GOAWAY_BELOW = 1, MOCK_GOAWAY_ABOVE };

/* Owned text; may hold NULs, and is followed by one. */
struct mock_text {
	char *at;
	size_t n;
};

struct mock_fault_header {
	struct mock_text name;
	struct mock_text value;
};

#define MOCK_MEMBER_FLAG bool
#define MOCK_MEMBER_COUNT int64_t
#define MOCK_MEMBER_OPTIONAL int64_t
#define MOCK_MEMBER_SIGNED int64_t
#define MOCK_MEMBER_TIME uint64_t
#define MOCK_MEMBER_TEXT struct mock_text
#define MOCK_MEMBER_CHOICE int
#define MOCK_MEMBER_HEADER bool
struct mock_faults {
#define X(member, word, kind, arg, help) MOCK_MEMBER_##kind member;
	MOCK_FAULTS(X)
#undef X
	struct mock_fault_header headers[MOCK_FAULT_HEADERS_MAX];
	size_t n_headers;
	struct mock_text content; /* what file= names; loaded by the owner of the rule */
};

/* Everything absent: a healthy answer. */
void mock_faults_init(struct mock_faults *faults);
void mock_faults_fini(struct mock_faults *faults);

/* Parses a list into an initialised struct.  Returns 0, or -1 with a sentence in `error`
 * (caller's, error_bytes long); the struct must be given to fini() either way. */
int mock_faults_parse(struct mock_faults *faults, const char *list, size_t n, char *error,
    size_t error_bytes);

/* Appends one line of help per word. */
void mock_faults_help(struct mock_bytes *out);

/* The words of the table in order; NULL past the end. */
const char *mock_faults_word(size_t i);

struct mock_rule {
	struct mock_rule *next; /* in its list */
	char *pattern;          /* owned; fnmatch pattern, or the whole name of a model that carries faults */
	char *list;             /* owned; the text of the faults, for GET /mock/rules */
	struct mock_faults faults;
	int64_t seen;  /* requests that matched the pattern and conn= */
	int64_t used;  /* of these, the ones it was applied to */
	unsigned refs; /* list and answers under way */
};

/* One "MODEL: FAULTS" line.  Returns a rule with one reference, or NULL with the reason in `error`. */
struct mock_rule *mock_rule_parse(const char *line, size_t n, char *error, size_t error_bytes);
/* A rule out of its two halves; `pattern` and `list` are copied. */
struct mock_rule *mock_rule_new(const char *pattern, size_t n_pattern, const char *list, size_t n_list,
    char *error, size_t error_bytes);
void mock_rule_ref(struct mock_rule *rule);
void mock_rule_unref(struct mock_rule *rule); /* NULL is fine */

/* The model of a warm-up: only a rule of that very name takes it, so that "*" means requests. */
#define MOCK_WARM "/warm"
/* Whether `rule` takes this request; counts it (skip=, times=) if the pattern matches.
 * With at_accept only accept-close and no-read rules are asked and the model is not looked at;
 * without it these rules are passed over. */
bool mock_rule_try(struct mock_rule *rule, const char *model, bool conn_reused, bool at_accept);

#endif
