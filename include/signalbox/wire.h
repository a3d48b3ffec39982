/* SPDX-License-Identifier: Apache-2.0 */
/*
 * signalbox/wire.h -- the protocol between the agent and its clients; this comment is its specification, version 1.
 *
 * TRANSPORT. A stream Unix socket. A program that uses libsignalbox never sees any of this; it is for those who write a
 * client in another language.
 *
 * FRAME. Four bytes of length, big-endian, then so many bytes holding exactly one MessagePack array [kind, id, map]:
 *   kind  small unsigned integer, SBX_FRAME_* below
 *   id    unsigned, at most 2^53: the client's number for a request, not in use by another one of the connection;
 *         0 where the frame belongs to the connection
 *   map   keys are strings, each at most once. A key that the agent does not know is an error, because ignoring it would
 *         change the meaning of a request; a client ignores keys that it does not know. nil means the key is absent.
 * Limits: SBX_FRAME_MAX_BYTES, depth SBX_FRAME_DEPTH_MAX, SBX_FRAME_ELEMENTS_MAX elements (array items, map keys and
 * values), and no length that is larger than the bytes that are left. A frame that breaks one of these, or is no such
 * array, ends the connection with ERROR id 0 code "invalid_request". A SUBMIT that is well formed but wrong in its content
 * ends only its request (unless its id is 0 or in use); any other frame that is wrong in its content ends the connection.
 *
 * ORDER. The client's first frame is HELLO, within 10 s. The agent answers WELCOME, or ERROR id 0 and closes. Many
 * requests run at once on one connection and their frames interleave. For each SUBMIT there is exactly one DONE or ERROR,
 * and no frame with its id afterwards. CANCEL ends the request with ERROR "cancelled", unless its end is on the way
 * already; a CANCEL or CREDIT for an id that is not running is ignored.
 *
 * CREDIT. Each request starts with SBX_CREDIT_BYTES of payload (the bytes in `text`, `arguments`, `id`, `name` and `data`
 * of its EVENTs). The agent never sends beyond it: at zero it stops reading from the provider. The client grants more as
 * its application consumes. No EVENT holds more than SBX_EVENT_MAX_BYTES of payload. A client that never reads stalls
 * only itself; what the agent holds for it is bounded, and its deadlines run on.
 *
 * AN AGENT THAT LEAVES, because it stops or because another one takes its place, says ERROR id 0 code "draining" on every
 * connection. It then acts on no SUBMIT that it has not ACCEPTED before; each is answered by ERROR "draining", if it is read at all. What
 * it has accepted runs to its end within its time for that, and the connection is closed when nothing of it runs any more: at
 * once, if nothing does. So a SUBMIT of this connection that was not ACCEPTED before that word, or is answered by it, can be
 * submitted again to the successor at the same path without being carried out twice; that the connection ended without the
 * word does not say so.
 *
 * CLIENT TO AGENT
 *   HELLO   id 0   version uint = 1; client str (a name for logs, at most 64 bytes)
 *   SUBMIT         what to ask:
 *     route str | model str | targets [str]   at most one of them; they win over the body's own "model". A route name;
 *                        "provider/model", cut at the first slash; a bare model name: every provider that has it. With
 *                        none of them the body's "model" is looked up the same way.
 *     body bin           the request as JSON, in the dialect; at most SBX_BODY_IN_MAX_BYTES
 *     dialect str        of body and data: "openai-chat", the default
 *     operation str      "chat" (default), "completions", "embeddings" (with reply "data"): what the body is a request for
 *     as_http bool       the body speaks for itself, as it would over HTTP: its own "stream" decides, the reply is "data", and its
 *                        members for a gateway (AS HTTP, below) are obeyed. `stream`, and reply "events", are errors beside it;
 *                        default false: every member of the body is the provider's
 *     stream bool        answer in pieces as they come (default: what the body says)
 *     reply str          "events" (default): typed EVENTs; "data": the answer's own bytes, ready to be passed on
 *     restart bool       if a stream breaks after content, it may be started over (RESET), unless a piece of a tool call
 *                        was delivered; default false
 *     deadline_ms uint   for the whole request, all attempts included; default 600000
 *     idempotency_key str  at most 255 printable characters; passed on to providers that are configured to take it
 *     principal map      for whom: tenant, key, user, each str of 1 to 255 printable ASCII characters, or absent. Taken from the
 *                        user ids of the configuration's listen.trusted_uids, the agent's own and root's; from others "forbidden".
 *                        The share of what may be in flight is then the tenant's, else the peer's; the store keeps all three. A
 *                        key that begins with "key-" is a virtual one: "invalid_key" where it is not active, "forbidden" where it is
 *                        another tenant's, or may not ask for a name of the request's
 *     tags map, max_cost_nanousd uint, and any other key: "unsupported", never accepted and ignored
 *   CANCEL         {}
 *   CREDIT         bytes uint, added to what is left
 *   STATS   id n   {} : answered by a STATS frame of the same id
 *   REPORT  id n   what the store has of attempts that ended in a span of time; answered by REPORT, or by ERROR:
 *     since_unix_ms, until_unix_ms uint   from and, exclusive, to; default 0 and now
 *     by str             "target" (default), "model", "class", "route", "user" (of the host), "tenant", "key": what a row of the answer is
 *   METRICS id n   what was counted since the agent started, for a monitoring system; from those whose principal would be taken,
 *                  else ERROR "forbidden". Answered by METRICS:
 *     from uint          the first row wanted, default 0. Rows are only ever added at the end
 *   RELOAD  id n   {} : the admin socket only; answered by RELOADED or by ERROR
 *   KEY     id n   virtual keys, which programs show to a door in the place of a provider's; answered by KEY or by ERROR:
 *     do str             "create", "rotate", "revoke", "list": the admin socket only; "check": from whoever's principal would be taken
 *     tenant str         of create: whom its requests are for, 1 to 255 printable ASCII characters
 *     name str           of create: for people, at most 64 printable ASCII characters
 *     models str         of create: the names that requests may ask for, as they write them, with commas between; default: all
 *     expires_unix_s uint  of create; default: never
 *     key str            of rotate and revoke: the key's id
 *     grace_s uint       of rotate: how long the old secret holds beside the new one; default 86400, at most 2592000
 *     from uint          of list; default 0
 *     sha256 str         of check: of the secret that was shown, in 64 hex digits. The secret itself is never asked for
 *   TAKEOVER id n  {} : the admin socket only; see TAKING OVER
 *   SERVING id n   {} : the same
 *
 * AS HTTP. Members of the body that mean something to the agent, and are not sent on (but `user` and `metadata`, which are OpenAI's
 * own). One whose feature this agent has not, and any other member of `provider` and `usage`, ends the request as "unsupported"; the
 * error in `data` has its name as "param". null, or false where a feature is switched, asks for nothing. As OpenRouter has them:
 *   models [str]       names to be tried in this order, after `model` if there is one; at most 15 with `fallbacks`
 *   provider map       for the targets of each name by itself: order [str] these providers first; only [str]; ignore [str];
 *                      allow_fallbacks bool: false = nobody but those of order, or without it the first
 *   route str          "fallback"
 *   usage map          include true: `cost` in USD in the usage object of the answer, or in the last chunk of a stream that has
 *                      one, which is then sent in any case: exactly cost_nanousd of DONE; null = not known. A provider's own
 *                      `cost` gives way to a known one
 * as LiteLLM, and for the first also Bifrost, have them:
 *   fallbacks [str]    names to be tried after `model` and `models`; no objects
 *   num_retries uint   for each name at most so many attempts after its first
 *   timeout number     seconds for everything, as deadline_ms; of both the shorter holds
 *   metadata.tags, tags [str]   kept by the store; "unsupported" where there is none
 *   priority, context_window_fallbacks, content_policy_fallbacks, stream_timeout, cache, guardrails, mock_response,
 *   mock_testing_..., api_base, base_url, api_key   "unsupported"
 * and OpenAI's user str: the end user, unless the principal names one. All other members are sent on as they are.
 *
 * AGENT TO CLIENT
 *   WELCOME id 0   version uint; agent str; pid uint; generation uint (random, new with each start). The board's descriptor
 *                  (signalbox/board.h) comes with it by SCM_RIGHTS, if there is one; plain recv() makes the kernel drop it
 *   INHERIT id n   see TAKING OVER; with a descriptor
 *   BOARD   id 0   generation uint; edition uint : another board took over; its descriptor comes with the frame's first byte
 *   ACCEPTED       stream bool: the answer comes in pieces. The request is the agent's now; sent before anything was sent to a
 *                  provider
 *   EVENT          type uint, SBX_EVENT_*; choice uint (absent = 0), and
 *                    TEXT, REASONING, REFUSAL: text str
 *                    TOOL_CALL: index uint (number of the call in its choice); on its first fragment id str and name str;
 *                      arguments str: the next piece of its JSON. Pieces of one call may mix with those of others.
 *                    FINISH: finish str, finish_raw str if the provider's word differs
 *                    DATA: data bin. Whole: the pieces of one JSON body. Stream: SSE, framing included
 *                    TARGET: target str, attempt uint: who is asked now; at the start of each attempt, so that a failover can be seen
 *                      as it happens
 *   RESET          attempt uint: forget every EVENT of the request so far; attempt n starts over
 *   DONE           see below
 *   ERROR          see below
 *   STATS, RELOADED   a map of counters, with target a map by "provider/model" and route a map of each route's targets; the notes
 *                  of the new configuration
 *   REPORT         since_unix_ms, until_unix_ms uint; by str; total FIGURES; row map of name -> FIGURES, most attempts first;
 *                  left_out uint: rows beyond the limit, counted in total
 *   METRICS        generation uint; started_unix_ms uint: since then; next uint, if there are more rows: the `from` to ask for them;
 *                  row [ROW]; and with from 0 also target map of "provider/model" -> {state str, in_flight uint, throttled_ms uint};
 *                  time_bounds_ms, token_bounds [uint]; folded map of target, route, tenant, row -> uint: how often a name, or a
 *                  combination of names, was one too many and counted as "other"
 *
 *   KEY            of create and rotate: key str, secret str (shown this once; the agent keeps its SHA-256), and ABOUT
 *                  of revoke: key str
 *                  of list: key map of id -> ABOUT; next uint: there is more, from there on
 *                  of check: key str, tenant str, models str, expires_unix_s uint|nil; ERROR "invalid_key" where no active key has it
 *     ABOUT: tenant, name, models str; state str: "active", "expired", "revoked" (and not yet durable); created_unix_s uint;
 *     expires_unix_s uint|nil; old_until_unix_s uint|nil: until then the secret before the last rotation holds too
 *
 * DONE: provider str, model str (as the provider calls it), target str "provider/model", finish str|nil, usage USAGE|nil,
 *   usage_raw str|nil (the provider's own object), cost_nanousd int|nil, cost_status str if nil, total_ms uint,
 *   first_content_ms uint|nil, attempts [ATTEMPT]
 * ERROR: code str (signalbox/errors.h), status uint, message str (for people: what happened and what to do),
 *   retry_after_ms uint if known, retryable bool (whether asking again may help),
 *   provider_error map if a provider said something: {provider, status, type, code, param, message}, each str or uint,
 *   absent where the provider gave none, usage, cost_nanousd, cost_status, total_ms, attempts; `data` bin if reply was
 *   "data": the error in the dialect, as a JSON body with status as its HTTP status, also of a request that was refused
 * USAGE: prompt_tokens, completion_tokens, total_tokens, cached_tokens, cache_write_tokens, reasoning_tokens: each uint, or
 *   absent if the provider did not say; estimated bool, clamped bool if so
 * ATTEMPT: target str, class str (agent/core/class.h), status uint|nil, started_ms and ended_ms uint (since SUBMIT),
 *   first_content_ms uint|nil, usage USAGE|nil, cost_nanousd int|nil, cost_status str if nil, price str|nil (the catalog's price row
 *   by which it was reckoned), connection str "reused" | "new" | nil, message str|nil
 * COST: int64 nano-USD, exact, of all attempts together in DONE and ERROR. Not known is nil, never 0, and cost_status says why:
 *   "unpriced" (the catalog has no price for it), "no_usage" (an attempt may have been billed, but its provider did not say for
 *   what), "too_large"
 * FIGURES: attempts, ok, wasted (no client got an answer by it), unpriced uint; cost_nanousd and of it wasted_cost_nanousd uint,
 *   of the priced ones, nil where none is; prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,
 *   reasoning_tokens uint; first_content_mean_ms, total_mean_ms uint|nil
 * ROW: what str: "request", "attempt", or "running" (n is how many requests run now, and has route and tenant alone); operation str;
 *   outcome str: of a request "ok" or ERROR's code, of an attempt its class; target str: whose answer, or failure, the client was told, "" =
 *   none; route str, "" = the request named a model; tenant str: the principal's, else "uid:N" of the peer; n uint;
 *   duration_ns, first_content_ns (streams alone), input, output (tokens of attempts) HISTOGRAM, absent where nothing was observed;
 *   and of attempts cached, cache_write, reasoning uint: tokens; cost_nanousd uint; cost_unknown uint: attempts without a known cost
 * HISTOGRAM: [uint]: the sum of all values; then how many values are at most the first bound, how many more at most the second ...;
 *   last, how many are beyond all bounds
 *
 * TAKING OVER (signalboxd --replace). A new agent, ready but for its sockets, connects to the admin socket of the running one:
 *   HELLO -> WELCOME, which brings the board: what is known of health
 *   TAKEOVER -> one INHERIT of its id for each descriptor, which comes by SCM_RIGHTS with the frame's first byte:
 *     what str           "client", "admin": the listening sockets; "client.lock", "admin.lock": the locked files that keep other
 *                        agents from their paths, if the agent made the paths itself
 *     path str|nil       of a socket whose file the agent made; it removes it no more, its heir does in the end
 *     left uint          how many INHERITs follow this one; with 0 come also
 *     notify_socket str|nil, watchdog_us uint|nil   what the service manager told the agent
 *     or ERROR: "forbidden" on the clients' socket; "busy" while another one takes over; "internal"
 *   SERVING -> the running agent leaves, as above: ERROR id 0 "draining" is the answer. From then on the new one accepts.
 * Until SERVING nothing has changed: the running agent goes on, and if the connection ends it forgets about it. Both hold the
 * same sockets, so connections that come in between wait in the kernel for whoever accepts them, and none is refused.
 */
#ifndef SIGNALBOX_WIRE_H
#define SIGNALBOX_WIRE_H

#define SBX_WIRE_VERSION 1

#define SBX_BODY_IN_MAX_BYTES (32u << 20)                        /* a request's body: images travel in it */
#define SBX_FRAME_MAX_BYTES (SBX_BODY_IN_MAX_BYTES + (1u << 20)) /* room for the keys around it */
#define SBX_FRAME_DEPTH_MAX 32
#define SBX_FRAME_ELEMENTS_MAX 65536
#define SBX_FRAME_HEAD_BYTES 4
#define SBX_CREDIT_BYTES (256u << 10)   /* a few hundred events: enough to never wait, little enough to hold for thousands */
#define SBX_CREDIT_MAX_BYTES (64u << 20) /* a grant beyond this is cut to it */
#define SBX_EVENT_MAX_BYTES (64u << 10) /* a quarter of the credit: a request never stalls for the size of one event */
#define SBX_HELLO_TIMEOUT_MS 10000
#define SBX_DEADLINE_DEFAULT_MS 600000
#define SBX_DEADLINE_MAX_MS 86400000
#define SBX_ID_MAX (1ull << 53)
#define SBX_IDEMPOTENCY_KEY_MAX_BYTES 255
#define SBX_PRINCIPAL_MAX_BYTES 255 /* each of tenant, key and user */

enum sbx_frame_kind {
	/* client to agent */
	SBX_FRAME_HELLO = 1,
	SBX_FRAME_SUBMIT = 2,
	SBX_FRAME_CANCEL = 3,
	SBX_FRAME_CREDIT = 4,
	SBX_FRAME_STATS = 5, /* both ways */
	SBX_FRAME_RELOAD = 6,
	SBX_FRAME_REPORT = 7, /* both ways */
	SBX_FRAME_TAKEOVER = 8,
	SBX_FRAME_SERVING = 9,
	SBX_FRAME_KEY = 10, /* both ways */
	SBX_FRAME_METRICS = 11, /* both ways */
	/* agent to client */
	SBX_FRAME_WELCOME = 32,
	SBX_FRAME_ACCEPTED = 33,
	SBX_FRAME_EVENT = 34,
	SBX_FRAME_RESET = 35,
	SBX_FRAME_DONE = 36,
	SBX_FRAME_ERROR = 37,
	SBX_FRAME_RELOADED = 38,
	SBX_FRAME_BOARD = 39,
	SBX_FRAME_INHERIT = 40,
};

enum sbx_event_type {
	SBX_EVENT_TEXT = 1,
	SBX_EVENT_REASONING = 2,
	SBX_EVENT_REFUSAL = 3,
	SBX_EVENT_TOOL_CALL = 4,
	SBX_EVENT_FINISH = 5,
	SBX_EVENT_DATA = 6,
	SBX_EVENT_TARGET = 7,
};

#endif
