/* SPDX-License-Identifier: Apache-2.0 */
/*
 * routing_members.h -- members of a request's body that are meant for a gateway, and not for the model.
 *
 * Clients of other gateways put their wishes into the body: OpenRouter's `models`, `provider`, `route` and `usage`; LiteLLM's
 * `fallbacks` (Bifrost has them too), `timeout`, `num_retries`, `tags` and `metadata.tags`. They mean here what they mean there, and
 * are not sent on. One whose feature this agent has not is refused by its name: accepted and ignored, it would make a client
 * believe in something that nobody does. null, and false where a feature is switched, ask for nothing and are taken out.
 *
 * `user` and the rest of `metadata` are OpenAI's own, and sent on; so is every member that is not known here.
 */
#ifndef SBX_DIALECT_ROUTING_MEMBERS_H
#define SBX_DIALECT_ROUTING_MEMBERS_H

#include "agent/dialect/hub.h"

#define SBX_RETRIES_MAX 100             /* more is a mistake, and no request makes as many attempts anyway */
#define SBX_TIMEOUT_MAX_S 86400         /* as deadline_ms */

void sbx_routing_init(struct sbx_routing *r);
/* One member of a checked body. 1: it is for us, and noted in ask->taken; 0: it is the model's as well, or alone;
 * -SBX_ESYNTAX with *ret_fault set. */
int sbx_routing_read(struct sbx_routing *r, struct sbx_span name, struct sbx_span value, struct sbx_ask *ask, struct sbx_fault *ret_fault);

#endif
