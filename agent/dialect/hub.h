/* SPDX-License-Identifier: Apache-2.0 */
/*
 * hub.h -- what every dialect speaks to: the request as judgement sees it, the events of an answer, and the table row
 * that a dialect is.
 *
 * A dialect is one pure module and one row (struct sbx_dialect). It reads a request body of its own format into a
 * struct sbx_ask, writes that ask as the body for a target of the same format (by edited pieces of the very bytes that
 * were checked), and decodes the bytes of an answer, whole or streamed, into hub events. Bytes are handed over as they
 * come from the connection: framing (SSE, event stream, JSON array) is the dialect's own business.
 *
 * For each wire event (one SSE event; the whole body where nothing is streamed) a decoder emits first what it means
 * (TEXT, TOOL_CALL, USAGE ...), in order, and then one WIRE event with the payload itself. A consumer that hands typed
 * events on uses the former; one that passes through uses WIRE and only looks at the kinds of the others.
 *
 * Spans in events are valid during the callback only. Nothing here allocates per event.
 */
#ifndef SBX_AGENT_DIALECT_HUB_H
#define SBX_AGENT_DIALECT_HUB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <signalbox/errors.h>

#include "agent/dialect/json_scan.h"
#include "client/buf.h"
#include "client/span.h"

/* ---- limits (each crossing is a typed error) ---- */
#define SBX_BODY_MAX_BYTES (64u << 20)      /* a whole answer */
#define SBX_ERROR_BODY_MAX_BYTES (64u << 10) /* of an error answer this much is read; the rest is dropped */
#define SBX_CHOICES_MAX 128                 /* OpenAI's own limit of n */
#define SBX_CALL_NAMES_MAX_BYTES (16u << 10) /* id and name of a tool call: both travel in one EVENT; real ones have 100 bytes */

/* ---- what can be asked for: X(NAME, "word"), the word as in SUBMIT ---- */
#define SBX_OPS(X)                                                                                                             \
	X(SBX_OP_CHAT, "chat")                                                                                                 \
	X(SBX_OP_COMPLETIONS, "completions") /* a prompt, and the text that goes on from it */                                 \
	X(SBX_OP_EMBEDDINGS, "embeddings")                                                                                     \
	X(SBX_OP_COUNT_TOKENS, "count_tokens") /* of a chat that is not carried out */
enum sbx_op {
#define X(name, word) name,
	SBX_OPS(X)
#undef X
	SBX_OP__COUNT
};
const char *sbx_op_word(enum sbx_op op);

/* ---- finish reasons, in OpenAI's words (FINISH_OTHER: the provider said something that nobody knows) ---- */
#define SBX_FINISHES(X)                                                                                                        \
	X(SBX_FINISH_NONE, NULL)                                                                                               \
	X(SBX_FINISH_STOP, "stop")                                                                                             \
	X(SBX_FINISH_LENGTH, "length")                                                                                         \
	X(SBX_FINISH_TOOL_CALLS, "tool_calls")                                                                                 \
	X(SBX_FINISH_CONTENT_FILTER, "content_filter")                                                                         \
	X(SBX_FINISH_FUNCTION_CALL, "function_call")                                                                           \
	X(SBX_FINISH_OTHER, "other")
enum sbx_finish {
#define X(name, word) name,
	SBX_FINISHES(X)
#undef X
	SBX_FINISH__COUNT
};
const char *sbx_finish_word(enum sbx_finish finish); /* NULL for NONE */

/* ---- usage, in OpenAI's meaning: prompt includes cached and cache writes, completion includes reasoning ---- */
struct sbx_usage {
	int64_t prompt_tokens;      /* each: -1 = the provider did not say; an explicit 0 is 0 */
	int64_t completion_tokens;
	int64_t total_tokens;       /* as the provider has it */
	int64_t cached_tokens;      /* read from its cache, part of prompt */
	int64_t cache_write_tokens; /* written to its cache, part of prompt */
	int64_t reasoning_tokens;   /* part of completion */
	bool clamped;               /* cached was above prompt and was cut to it */
	bool estimated;             /* not the provider's: counted by us */
};
#define SBX_USAGE_NONE ((struct sbx_usage){ -1, -1, -1, -1, -1, -1, false, false })

/* ---- what a provider says went wrong ---- */
#define SBX_ERROR_KINDS(X)                                                                                                     \
	X(SBX_KIND_UNKNOWN)        /* nothing recognised: the status decides */                                                \
	X(SBX_KIND_INVALID)        /* this request is wrong: unsupported value, bad schema ... */                              \
	X(SBX_KIND_CONTEXT_LENGTH)                                                                                             \
	X(SBX_KIND_CONTENT_FILTER)                                                                                             \
	X(SBX_KIND_AUTH)           /* the key is wrong, also where it arrives as a 400 */                                      \
	X(SBX_KIND_PERMISSION)     /* this key may not use this model */                                                       \
	X(SBX_KIND_QUOTA)          /* no money, a spend limit, a daily or monthly allowance: waiting does not help */          \
	X(SBX_KIND_RATE_LIMIT)                                                                                                 \
	X(SBX_KIND_OVERLOADED)                                                                                                 \
	X(SBX_KIND_NOT_FOUND)      /* no such model or deployment */                                                           \
	X(SBX_KIND_SERVER)         /* its own failure */                                                                       \
	X(SBX_KIND_JUNK)           /* not an answer of this dialect at all: HTML, broken JSON, an empty body */                \
	X(SBX_KIND_LOSSY)          /* the answer ended well, but an event that may have held content was unreadable */         \
	X(SBX_KIND_TOO_BIG)        /* a line, event or body above its limit */
enum sbx_error_kind {
#define X(name) name,
	SBX_ERROR_KINDS(X)
#undef X
	SBX_KIND__COUNT
};

struct sbx_provider_error {
	enum sbx_error_kind kind;
	int status;          /* HTTP status, or the status that an error inside a 200 carries; 200 if it carries none */
	char type[64];       /* the provider's own words, cut to fit on a character's border; "" = absent */
	char code[64];       /* (a numeric code as its digits) */
	char param[96];
	char message[1024];
	int64_t retry_after_ns; /* from the body (Gemini's RetryInfo and the like); -1 = not said */
};

/* ---- the request ---- */

/* What is wrong with a body. */
struct sbx_fault {
	bool unsupported;    /* it is understood, but asks for what this agent does not do */
	char param[96];      /* the member to blame, "provider.order"; "" = the body as a whole */
	char why[384];       /* a sentence, with the member's name in it */
};

/* Names that a request gives; texts, in the body or in the routing's own memory. */
#define SBX_SAID_MAX 16 /* as many as a request has places for targets */
#define SBX_TAG_MAX_BYTES 128
struct sbx_said {
	struct sbx_span name[SBX_SAID_MAX];
	uint32_t n;
};

/* What a body says to a gateway, beside what it says to the model (dialect/routing_members.h). */
struct sbx_routing {
	struct sbx_said models, fallbacks;   /* to be tried in this order after the body's `model` */
	struct sbx_said order, only, ignore; /* of providers */
	bool no_other;       /* provider.allow_fallbacks is false: only those of `order`, or else the first */
	bool want_cost;      /* usage.include */
	int32_t retries;     /* of each name, before the next one; -1 = not said */
	uint32_t timeout_ms; /* for everything; 0 = not said */
	struct sbx_said tags; /* each at most SBX_TAG_MAX_BYTES */
	const char *tags_param; /* the member that they stood in */
	char user[256];      /* the end user, cut to fit; "" = not said */
	size_t text_n;
	char text[4096];     /* of names that had escapes in them */
};

#define SBX_ASK_TAKEN_MAX 12 /* members that are for us alone */

struct sbx_ask {
	enum sbx_op op;
	struct sbx_span body;           /* the checked bytes; all spans below lie in it */
	struct sbx_span model;          /* the JSON value, quotes included; empty = absent */
	struct sbx_span stream;         /* the JSON value; empty = absent */
	struct sbx_span stream_options; /* likewise */
	struct sbx_span include_usage;  /* likewise, inside stream_options */
	struct sbx_span needed;         /* the value of the member that every request of this operation has */
	struct sbx_span taken[SBX_ASK_TAKEN_MAX]; /* values of members that are not sent on */
	uint32_t n_taken;
	struct sbx_span cut;            /* bytes inside another member that are not sent on either; empty = none */
	bool can_stream;                /* an answer to this operation can come in pieces */
	bool body_stream;               /* what `stream` says; false when absent */
	bool body_include_usage;
	uint32_t choices;               /* in the answer: n (1 when absent), of each prompt */
	int64_t max_tokens;             /* max_completion_tokens or max_tokens; -1 = absent */
	bool has_tools, has_json_schema, has_images;
	bool base64;                    /* embeddings are wanted in base64 */
	bool reasoning_off;             /* the request turns reasoning off by name (reasoning_effort none, thinking disabled ...) */
};

/* What a target's provider does differently; a row of agent/providers.c, changed by configuration. */
struct sbx_quirks {
	bool no_stream_options;   /* refuses stream_options: sends its usage unasked */
	bool no_finish;           /* may end a stream without any finish_reason: [DONE] after a usage counts as complete */
	bool reasoning_apart;     /* completion_tokens does not include reasoning_tokens: add them */
};

/* The body for one attempt, as pieces to be sent in order. */
#define SBX_PIECES_MAX 36
struct sbx_pieces {
	struct sbx_span piece[SBX_PIECES_MAX]; /* into ask->body, static text, or `text` */
	uint32_t n;
	size_t bytes;             /* their sum */
	char text[640];           /* the model name as JSON and other small inserts */
};
#define SBX_MODEL_MAX_BYTES 255 /* a model's name; with every byte escaped it still fits `text` after the rest */

/* ---- the answer ---- */
enum sbx_hub_kind {
	SBX_HUB_LIFECYCLE,  /* the stream lives, but nothing the client asked for: role delta, ping, comment, empty block */
	SBX_HUB_TEXT,       /* text */
	SBX_HUB_REASONING,  /* text */
	SBX_HUB_DETAIL,     /* text = one object of reasoning_details, as JSON; id = the tool call that the provider ties it to, or empty */
	SBX_HUB_REFUSAL,    /* text */
	SBX_HUB_TOOL_CALL,  /* index; id and name on the first fragment; text = piece of the arguments */
	SBX_HUB_VECTOR,     /* an embedding: index; text = the JSON list of its numbers, or a JSON string, base64 of little-endian float32 */
	SBX_HUB_USAGE,      /* usage: replaces what came before */
	SBX_HUB_FINISH,     /* choice, finish, finish_raw */
	SBX_HUB_ERROR,      /* error: the answer is void or broken; nothing follows */
	SBX_HUB_COMPLETE,   /* by its content the answer is whole; usage or the end mark may still come */
	SBX_HUB_END,        /* the end mark ([DONE]), or the end of a whole body: nothing follows */
	SBX_HUB_WIRE,       /* text = the payload of this wire event; name = its SSE event field, or empty; flags */
};
enum { /* flags of WIRE */
	SBX_WIRE_CONTENT = 1,   /* it held TEXT, REASONING, REFUSAL, TOOL_CALL or VECTOR */
	SBX_WIRE_UNASKED = 2,   /* it exists only because we asked for usage: do not pass it on */
	SBX_WIRE_END = 4,       /* it is the end mark */
	SBX_WIRE_MALFORMED = 8, /* it did not parse and was skipped */
	SBX_WIRE_WHOLE = 16,    /* the payload is a whole body, not an event of a stream */
};
struct sbx_hub_event {
	enum sbx_hub_kind kind;
	uint32_t choice;
	uint32_t index;               /* TOOL_CALL: number of the call within its choice; VECTOR: of the input */
	unsigned flags;               /* WIRE */
	struct sbx_span text;         /* UTF-8, unescaped (WIRE: as received) */
	struct sbx_span id, name;     /* TOOL_CALL; empty on later fragments */
	enum sbx_finish finish;
	struct sbx_span finish_raw;   /* the provider's own word */
	const struct sbx_usage *usage;
	struct sbx_span usage_raw;    /* the provider's usage object */
	const struct sbx_provider_error *error;
};
typedef void sbx_hub_fn(void *arg, const struct sbx_hub_event *ev);

/* How an answer is to be read. */
struct sbx_decode_opts {
	enum sbx_op op;        /* that was asked for */
	struct sbx_quirks quirks;
	uint32_t choices;      /* asked for: so many finish reasons make it complete */
	bool stream;           /* the request asked for a stream; an answer that is none is then read as a whole body */
	bool stream_only;      /* a whole answer to a stream is an error (JUNK): it would be passed through to who waits for events */
	bool want_text;        /* false: content events carry no text (passthrough), only their kind */
	bool drop_usage;       /* the usage chunk was asked for by us alone: mark it UNASKED */
};

/* ---- between dialects ----
 * Where client and provider speak different dialects, the hub's form of a request is the body of OpenAI's chat completions, as checked
 * text, with these members more:
 *   cache_control                on content parts, messages and tools: marks of a prompt cache, as Anthropic has them
 *   messages[].reasoning_details what a model thought, to be given back to it unchanged, as OpenRouter has it: a list of
 *                                {"type":"reasoning.text","text","signature"} | {"type":"reasoning.encrypted","data","id"} |
 *                                {"type":"reasoning.summary","summary"}, each with "format" (anthropic-claude-v1, google-gemini-v1,
 *                                openai-responses-v1: whose it is; others leave it out) and "index"
 *   messages[].is_error          on the result of a tool: true when the tool failed
 *   x_native                     {"<dialect>": {...}} on the body, messages, parts and tools: members that only that dialect knows, as
 *                                they are; another one refuses them (or drops them, where that is allowed). A part, tool or message
 *                                that it knows alone has nothing else but "type" (a message "role") "x_native"
 * The hub's form of an answer is the events below. */

/* What a translation for a target needs to know. */
struct sbx_translation {
	const char *model;
	bool stream;
	bool drop_params;             /* leave out what the dialect cannot say, in place of refusing the request */
	int64_t max_output_tokens;    /* of the target; 0 = not known. Some dialects demand a limit */
	/* What the model thought before it made this tool call (its id, unescaped): a JSON list of reasoning_details; empty = not
	 * known. For clients that give the calls back, but not the reasoning. NULL = nobody remembers. */
	struct sbx_span (*recall)(void *arg, struct sbx_span call_id);
	void *arg;
};

/* How an answer is to be written. */
struct sbx_encode_opts {
	enum sbx_op op;
	bool stream;
	bool include_usage;           /* the client wants the usage of a stream, where the dialect lets it choose */
	bool base64;                  /* and embeddings in base64 */
	const char *model;            /* as the client is to see it */
	const char *id;               /* of this answer: printable, without quotes */
	uint64_t created_unix_s;
};
struct sbx_encoder; /* one per attempt; each dialect has its own inside */

struct sbx_decoder; /* one per attempt; each dialect has its own inside */

struct sbx_dialect {
	const char *name;              /* "openai-chat" */
	const char *path[SBX_OP__COUNT]; /* of each operation, appended to the provider's base URL; NULL = the dialect has it not */
	/* NULL; or writes the path where it depends on the model or on whether a stream is asked for, appended to `out`, percent-encoded.
	 * path[op] is then for people: "/models/MODEL:generateContent". 0, -SBX_ETOOBIG, -SBX_ENOMEM. */
	int (*path_of)(enum sbx_op op, const char *model, bool stream, struct sbx_buf *out);
	const char *const *headers;    /* of every request, "name: value", ended by NULL; NULL = none */
	const char *models_path;       /* likewise: the list of models, which is free to ask for and generates nothing */
	/* Read and check a request body (JSON, UTF-8, depth, duplicate keys, types of the members used here).
	 *  routing  NULL; or where what is for a gateway goes, and is not sent on (routing_members.h). Names lie in the body
	 * 0, or -SBX_ESYNTAX with *ret_fault set. */
	int (*read_request)(enum sbx_op op, struct sbx_span body, struct sbx_json_scratch *scratch, struct sbx_routing *routing,
	                    struct sbx_ask *ret_ask, struct sbx_fault *ret_fault);
	/* The body for a target: model replaced, stream set, usage asked for. Spans point into ask->body and *ret. */
	void (*write_request)(const struct sbx_ask *ask, const char *model, bool stream, const struct sbx_quirks *quirks,
	                      struct sbx_pieces *ret);
	/* Decoder of one answer. NULL on no memory. emit is called from feed and end only. */
	struct sbx_decoder *(*decoder_new)(const struct sbx_decode_opts *opts, struct sbx_json_scratch *scratch, sbx_hub_fn *emit, void *arg);
	void (*decoder_free)(struct sbx_decoder *d); /* NULL is fine */
	/* The answer's status and Content-Type ("" = none), before its first byte. */
	void (*decoder_head)(struct sbx_decoder *d, int status, const char *content_type);
	/* Bytes of the body. After ERROR or END was emitted, the rest is ignored. */
	void (*decoder_feed)(struct sbx_decoder *d, const char *bytes, size_t n);
	/* End of the body (orderly EOF). A whole body and an error answer are decoded here. A stream that was not complete emits
	 * nothing: the caller knows by the absence of COMPLETE. */
	void (*decoder_end)(struct sbx_decoder *d);
	uint32_t (*decoder_malformed)(const struct sbx_decoder *d); /* wire events skipped so far */

	/* ---- towards other dialects; NULL where the hub's form is its own ---- */
	/* A checked body of this dialect in the hub's form, and the other way round. Appended to `out`. 0; -SBX_ESYNTAX: *ret_fault names the
	 * member (`unsupported`: it cannot be said in that dialect); -SBX_ETOOBIG; -SBX_ENOMEM. */
	int (*to_hub)(enum sbx_op op, struct sbx_span body, struct sbx_buf *out, struct sbx_fault *ret_fault);
	int (*from_hub)(enum sbx_op op, struct sbx_span body, const struct sbx_translation *t, struct sbx_buf *out, struct sbx_fault *ret_fault);

	/* ---- towards clients; NULL where no client speaks it ---- */
	/* Events of any decoder (all but WIRE and END) as an answer of this dialect, appended to `out`: server-sent events with their framing, or
	 * one body at the end. Only of an answer that is whole comes an end. 0, -SBX_ETOOBIG, -SBX_ENOMEM; -SBX_ESYNTAX: the events' text
	 * is not what it should be. */
	struct sbx_encoder *(*encoder_new)(const struct sbx_encode_opts *opts, struct sbx_buf *out); /* NULL on no memory; both outlive it */
	int (*encoder_event)(struct sbx_encoder *e, const struct sbx_hub_event *ev);
	int (*encoder_end)(struct sbx_encoder *e);
	void (*encoder_free)(struct sbx_encoder *e);
	/* An error as its clients expect it, one JSON body, appended to `out`.
	 *  param  the member of the body to blame; NULL or "" = none
	 *  said   by a provider, if it is his; NULL = ours
	 * 0, -SBX_ETOOBIG, -SBX_ENOMEM. */
	int (*write_error)(enum sbx_code code, const char *message, const char *param, const struct sbx_provider_error *said, struct sbx_buf *out);
	/* A wire event's payload with the cost in its usage object, appended to `out`: as a member `cost` in USD, or in the place of a
	 * provider's own.
	 *  usage  of the USAGE event that it came with; lies in the payload
	 *  usd    a decimal number; NULL = not known, which is null; but then a provider's own word stands
	 * 0, -SBX_ETOOBIG, -SBX_ENOMEM. */
	int (*add_cost)(struct sbx_span payload, struct sbx_span usage, const char *usd, struct sbx_buf *out);
};

/* By name; NULL when there is none. The table is agent/dialect/hub.c: one row per dialect. */
const struct sbx_dialect *sbx_dialect_find(const char *name);

#endif
