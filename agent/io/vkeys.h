/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vkeys.h -- the agent's virtual keys: the KEY frame of signalbox/wire.h, the ring in memory, and its copy in the store.
 *
 * The ring is read from the store at the start, and is what every question is answered from. A change goes to the store first and is
 * made in memory, and answered, when it is on the disk; but a revoked key is refused from the moment of its revocation. Until the ring
 * is there, requests in the name of a virtual key are told to come again: what it may ask for is not known.
 *
 * A secret is here while the answer that shows it is on its way, and nowhere afterwards. What a door asks about is a hash.
 */
#ifndef SBX_AGENT_IO_VKEYS_H
#define SBX_AGENT_IO_VKEYS_H

#include "agent/io/exchange.h"
#include "agent/io/submit.h"

#define SBX_KEY_CHECKS_PER_S 5000    /* of all doors together: 1 % of the loop */
#define SBX_KEY_CHECKS_BURST 5000    /* after a rest */
#define SBX_KEYS_PER_FRAME 3000      /* of a list: below the limit of elements */
#define SBX_KEY_GRACE_DEFAULT_S 86400
#define SBX_KEY_GRACE_MAX_S (30 * 86400)

/* With the agent's store: begins to load. 0 or -SBX_ENOMEM. */
int sbx_vkeys_open(struct sbx_agent *agent);
void sbx_vkeys_free(struct sbx_agent *agent); /* after the store, which calls back until then */
/* Answers at once, or in a later turn. trusted: the peer's principals are taken. */
void sbx_vkeys_on_frame(struct sbx_agent *agent, struct sbx_session *session, bool admin, bool trusted, const struct sbx_frame *frame);
void sbx_vkeys_forget(struct sbx_agent *agent, const struct sbx_session *session); /* the session is gone: nobody is answered */
/* May the key of the submit's principal, if it is a virtual one, ask for every name that the request has? 0, or -SBX_EINVAL with the
 * refusal. */
int sbx_vkeys_admit(struct sbx_agent *agent, const struct sbx_submit *submit, const struct sbx_ask *ask, const struct sbx_routing *routing,
                    struct sbx_refusal *ret_refusal);

/* A key of the tenant "local", once the ring is there and has no active one: `fn` is given its secret, to be shown and forgotten. */
typedef void sbx_vkeys_show_fn(void *arg, const char *secret);
void sbx_vkeys_want_local(struct sbx_agent *agent, sbx_vkeys_show_fn *fn, void *arg);

#endif
