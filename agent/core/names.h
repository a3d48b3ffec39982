/* SPDX-License-Identifier: Apache-2.0 */
/*
 * names.h -- the names of one configuration: found by hash, and if there is none of that name, the nearest.
 *
 * Finding is on every request's way and costs one probe. Naming the nearest is for answers to mistakes; since a client can make
 * as many as it likes, that work is bounded: names over SBX_NEAREST_MAX_BYTES are not compared, and of two names only so much as
 * is needed to see that they are further apart than SBX_NEAREST_DISTANCE letters or half of the name.
 */
#ifndef SBX_AGENT_CORE_NAMES_H
#define SBX_AGENT_CORE_NAMES_H

#include <stddef.h>
#include <stdint.h>

#include "agent/core/tables.h"
#include "client/span.h"

#define SBX_NEAREST_MAX_BYTES 96
#define SBX_NEAREST_DISTANCE 8
#define SBX_NAMES_NONE UINT32_MAX

struct sbx_names;
struct sbx_names *sbx_names_new(const struct sbx_tables *tables); /* the tables must outlive it; NULL on no memory */
void sbx_names_free(struct sbx_names *n);                         /* NULL is fine */

/* Index into the tables, or SBX_NAMES_NONE. */
uint32_t sbx_names_route(const struct sbx_names *n, struct sbx_span name);
uint32_t sbx_names_provider(const struct sbx_names *n, struct sbx_span name);
uint32_t sbx_names_target(const struct sbx_names *n, struct sbx_span name); /* "provider/model" */
/* First target of a bare model name, and the next one of the same model, in the order of the configuration. */
uint32_t sbx_names_model(const struct sbx_names *n, struct sbx_span model);
uint32_t sbx_names_next_of_model(const struct sbx_names *n, uint32_t target);
/* Likewise among the known models (facts.h) of configured providers: the first of all offers of the model that is called so, by
 * the name they share or by one that some provider has for it; and the next offer of the same model. */
uint32_t sbx_names_known(const struct sbx_names *n, struct sbx_span model);
uint32_t sbx_names_next_known(const struct sbx_names *n, uint32_t known);

/* The nearest name to one that cannot be found: a route; a usable target or known model, by its whole name or its model; or for "provider/..." the
 * same with the right name of a usable provider. Returns buf, "" if nothing is near. */
const char *sbx_names_nearest(const struct sbx_names *n, struct sbx_span name, bool routes, bool models, char *buf, size_t buf_bytes);

/* FNV-1a. Only names of the configuration are ever stored by it, so nobody outside can choose collisions. */
uint32_t sbx_names_hash(uint32_t seed, struct sbx_span s);

#endif
