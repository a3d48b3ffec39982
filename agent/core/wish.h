/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wish.h -- what a body says to a gateway (struct sbx_routing), turned into candidates: names to be tried after the first, and which
 * providers in which order.
 *
 * Each name (the request's own, then `models`, then `fallbacks`) has its candidates as route.h finds them; the wishes about
 * providers hold for each name by itself, as with OpenRouter: those not wanted are left out, those of `order` come first, and
 * without other providers allowed nobody but those of `order` (or else the first) is left. A target that two names have is the
 * earlier name's. Every name keeps at least one place among the candidates.
 */
#ifndef SBX_AGENT_CORE_WISH_H
#define SBX_AGENT_CORE_WISH_H

#include "agent/core/route.h"

/* sbx_wish_apply() -- to a request whose own name is resolved, or was found to have no target for the operation, or that has none.
 * Returns 0, or with *ret_fault set -SBX_ENOENT (a name that there is not; nobody is left), -SBX_EBUSY, -SBX_ESYNTAX,
 * -SBX_EINVAL (no target does what is asked for), as sbx_router_resolve(). */
int sbx_wish_apply(struct sbx_router *r, const struct sbx_routing *routing, bool reasoning_off, struct sbx_request *req, uint64_t now_ns,
                   struct sbx_fault *ret_fault);

#endif
