/* SPDX-License-Identifier: Apache-2.0 */
/* tables.c -- the default policy: each number with its reason. Configuration changes any of them, for all or for one provider. */
#include "agent/core/tables.h"

#define MS 1000000ull
#define S  1000000000ull

struct sbx_policy
sbx_policy_default(void)
{
	return (struct sbx_policy){
		/* A round trip around the world is 0.3 s; DNS, TCP and TLS take four or five. Nothing was sent: moving on is free. */
		.connect_ns = 5 * S,

		/* A first token that does not come must not cost the caller more than 15 s together with the fallback's own; where
		 * a provider is known to be slow, 3 x p99 of what was seen replaces the seed, up to a minute. */
		.first_content_ns = 10 * S,
		.first_content_max_ns = 60 * S,
		/* Hidden reasoning may send nothing for minutes, and is billed when it is cut off. */
		.reasoning_first_content_ns = 300 * S,

		/* The whole answer in one piece: some thousand tokens at 100 a second. What takes longer is learned. */
		.whole_ns = 30 * S,
		.reasoning_whole_ns = 300 * S,

		/* Providers send a ping or a comment every 10 to 15 s while a stream lives; a silent connection is a dead one. */
		.idle_bytes_ns = 20 * S,
		/* Comments alone are no answer: some proxies send them for ever before a provider that is gone. */
		.idle_content_ns = 60 * S,
		/* The answer is whole; only its usage and end mark are missing, and they normally come with it. */
		.after_finish_ns = 2 * S,

		/* Full jitter, doubling: a blip of a second is bridged by two tries; 8 s is more than a caller waits gladly. */
		.backoff_base_ns = 250 * MS,
		.backoff_cap_ns = 8 * S,

		/* The caller ranked this target first and its prompt cache is warm: worth a short wait ... */
		.wait_short_ns = 2 * S,
		/* ... and where nothing else is left, a long one; beyond it an honest 429 helps more than a request that hangs. */
		.wait_max_ns = 120 * S,

		/* More tries than three multiply the load on a provider in trouble, layer by layer. */
		.attempts_max = 3,
		.attempts_per_target = 2,
		/* A chat completion has no effect but its bill; who minds paying twice says no. */
		.replay_uncertain = true,

		/* One for the next request, one for whoever comes beside it. */
		.warm_connections = 2,
		/* Below the 30 s after which we use an idle connection no more, which are below the 60 s of AWS' load balancers and
		 * the 75 s of nginx. A server that closes sooner (uvicorn, Node.js: 5 s) is not worth a request every 4 s. */
		.warm_every_ns = 20 * S,
		/* Who has not asked for so long can wait for a handshake. */
		.warm_after_use_ns = 600 * S,
	};
}
