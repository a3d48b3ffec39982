/* SPDX-License-Identifier: Apache-2.0 */
/*
 * exposition.h -- what a monitoring system reads: metric families as text, in Prometheus' format 0.0.4 or as OpenMetrics 1.0.0.
 *
 * Both formats have the same samples; they differ in the names of counters in HELP and TYPE, and in the last line. So samples are written
 * once, into a buffer for each family, and put together in the format that is asked for. OpenMetrics' _created is left out: Prometheus
 * would store each as a series of its own, and the time of the start, which is the same for all, is a metric already.
 */
#ifndef SBX_DOOR_EXPOSITION_H
#define SBX_DOOR_EXPOSITION_H

#include <stdint.h>

#include "tools/door/bytes.h"

/* X(ID, type, "name", "help"): in the order in which they are told. The name of a counter without its _total. */
#define FAMILIES(X)                                                                                                                            \
	X(REQUESTS, COUNTER, "signalbox_requests", "Requests that ended, by their outcome: ok, or the code of the error.")                         \
	X(REQUESTS_IN_FLIGHT, GAUGE, "signalbox_requests_in_flight", "Requests that run now.")                                                     \
	X(REQUEST_DURATION, HISTOGRAM, "signalbox_request_duration_seconds", "Time of requests from their arrival at the agent to their end, all attempts included.") \
	X(REQUEST_FIRST_CONTENT, HISTOGRAM, "signalbox_request_first_content_seconds", "Time of streamed requests to their first content, all attempts included.") \
	X(ATTEMPTS, COUNTER, "signalbox_attempts", "Calls to providers that ended, by class: OK, or how they failed.")                             \
	X(TOKENS, COUNTER, "signalbox_tokens", "Tokens that providers told; prompt includes cached and cache_write, completion includes reasoning.") \
	X(COST, COUNTER, "signalbox_cost_usd", "What attempts cost whose cost is known, in US dollars.")                                           \
	X(COST_UNKNOWN, COUNTER, "signalbox_cost_unknown_attempts", "Attempts that may have cost something, but nobody knows what.")               \
	X(GEN_AI_DURATION, HISTOGRAM, "gen_ai_client_operation_duration_seconds", "Time of calls to providers.")                                   \
	X(GEN_AI_FIRST_CHUNK, HISTOGRAM, "gen_ai_client_operation_time_to_first_chunk_seconds", "Time of streamed calls to providers to their first content.") \
	X(GEN_AI_TOKENS, HISTOGRAM, "gen_ai_client_token_usage", "Tokens of calls to providers.")                                                  \
	X(TARGET_STATE, GAUGE, "signalbox_target_state", "1 for the state that the target is in.")                                                 \
	X(TARGET_IN_FLIGHT, GAUGE, "signalbox_target_in_flight", "Attempts that run on the target now.")                                           \
	X(TARGET_THROTTLED, GAUGE, "signalbox_target_throttled_seconds", "For how long the target still asked to be left alone.")                  \
	X(FAILOVERS, COUNTER, "signalbox_failovers", "Requests that were answered by another target than their first.")                            \
	X(RESETS, COUNTER, "signalbox_stream_resets", "Streams that were started over after content.")                                             \
	X(CREDIT_STALLS, COUNTER, "signalbox_credit_stalls", "Times that a provider's stream waited for its client.")                              \
	X(MALFORMED, COUNTER, "signalbox_events_malformed", "Events of providers that did not parse and were skipped.")                            \
	X(WARM_UPS, COUNTER, "signalbox_warm_ups", "Connections to providers that were opened ahead of need, or kept so.")                         \
	X(WARM_UPS_FAILED, COUNTER, "signalbox_warm_ups_failed", "Tries at that which found no provider.")                                         \
	X(RELOADS, COUNTER, "signalbox_reloads", "Configurations that the agent took over.")                                                       \
	X(RELOADS_REFUSED, COUNTER, "signalbox_reloads_refused", "Configurations that the agent refused.")                                         \
	X(FOLDED, COUNTER, "signalbox_metrics_folded", "Times that a name, or a combination of names (row), was one too many and counted as other.") \
	X(STORE_UP, GAUGE, "signalbox_store_up", "1 while the agent's store takes rows.")                                                          \
	X(STORE_QUEUED, GAUGE, "signalbox_store_queued_rows", "Rows that wait to be written.")                                                     \
	X(STORE_LOST, COUNTER, "signalbox_store_lost_rows", "Rows that could not be kept.")                                                        \
	X(AGENT_UP, GAUGE, "signalbox_agent_up", "1 if the agent told its numbers; 0, and they are not there.")                                    \
	X(AGENT_START, GAUGE, "signalbox_agent_start_time_seconds", "When the agent started, and its counters with it.")                           \
	X(BUILD_INFO, GAUGE, "signalbox_agent_build_info", "1, with the agent's version.")                                                         \
	X(AGENT_MEMORY, GAUGE, "signalbox_agent_resident_memory_bytes", "Resident memory of the agent.")                                           \
	X(AGENT_BODIES, GAUGE, "signalbox_agent_body_bytes", "Bodies of the requests that run.")                                                   \
	X(AGENT_MAX, GAUGE, "signalbox_agent_requests_max", "How many requests may run: limits.max_in_flight.")                                    \
	X(AGENT_SESSIONS, GAUGE, "signalbox_agent_client_connections", "Clients that are connected to the agent.")                                 \
	X(AGENT_CONNECTIONS, COUNTER, "signalbox_agent_client_connections_accepted", "Clients that connected.")                                    \
	X(AGENT_REFUSED, COUNTER, "signalbox_agent_client_connections_refused", "Clients that were turned away.")                                  \
	X(AGENT_FRAMES_BAD, COUNTER, "signalbox_agent_frames_bad", "Frames that broke the protocol and ended their connection.")                   \
	X(HTTP_REQUESTS, COUNTER, "signalbox_http_requests", "Requests to this door; status none: the client left before an answer.")              \
	X(HTTP_IN_FLIGHT, GAUGE, "signalbox_http_requests_in_flight", "Requests to this door that run now.")                                       \
	X(HTTP_CONNECTIONS, GAUGE, "signalbox_http_connections", "Connections to this door.")                                                      \
	X(HTTP_ACCEPTED, COUNTER, "signalbox_http_connections_accepted", "Connections that this door took.")                                       \
	X(HTTP_RECEIVED, COUNTER, "signalbox_http_received_bytes", "Bodies of requests to this door.")                                             \
	X(HTTP_SENT, COUNTER, "signalbox_http_sent_bytes", "Bodies of its answers.")                                                               \
	X(PROCESS_START, GAUGE, "process_start_time_seconds", "When this door started.")                                                           \
	X(PROCESS_CPU, COUNTER, "process_cpu_seconds", "CPU time of this door.")                                                                   \
	X(PROCESS_MEMORY, GAUGE, "process_resident_memory_bytes", "Resident memory of this door.")
enum family {
#define X(id, type, name, help) FAMILY_##id,
	FAMILIES(X)
#undef X
	FAMILY__COUNT
};

#define EXPOSITION_MAX_BYTES (64u << 20) /* of one family; the agent's limits keep it far below */

struct exposition {
	struct bytes family[FAMILY__COUNT]; /* samples */
	bool failed;                        /* no memory for some of them */
};

enum exposition_format { EXPOSITION_PROMETHEUS, EXPOSITION_OPENMETRICS };

void exposition_clear(struct exposition *e); /* also the first time, on zeroed memory */
void exposition_free(struct exposition *e);

/* Labels of a sample, name="value" with commas between; added one by one, and taken off again by setting n back. */
struct labels {
	size_t n;
	bool failed;      /* no room: such a sample is not told */
	char text[3072];  /* two names of targets, a route and a tenant, every byte escaped */
};
void labels_add(struct labels *l, const char *name, const char *value, size_t value_bytes);

/* One sample each; labels NULL = none. */
void exposition_uint(struct exposition *e, enum family family, const struct labels *l, uint64_t value);
/* value / 10^9, exactly. */
void exposition_nano(struct exposition *e, enum family family, const struct labels *l, uint64_t value);
/* bucket: n_bounds + 1 counts, not cumulative; the bounds and the sum are in nano where `nano`. Nothing is told of an empty one. */
void exposition_histogram(struct exposition *e, enum family family, const struct labels *l, const uint64_t *bound, uint32_t n_bounds,
                          const uint64_t *bucket, uint64_t sum, bool nano);

/* What the Accept header asks for; NULL = nothing. */
enum exposition_format exposition_format_of(const char *accept);
const char *exposition_content_type(enum exposition_format format);
/* All that was told: malloc'd; NULL = no memory. */
char *exposition_text(const struct exposition *e, enum exposition_format format, size_t *ret_bytes);

#endif
