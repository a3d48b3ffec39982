/* SPDX-License-Identifier: Apache-2.0 */
/* key.h -- virtual keys of an agent under test, made and changed by `signalbox key`. */
#ifndef SBX_TESTS_E2E_KEY_H
#define SBX_TESTS_E2E_KEY_H

#include <jansson.h>

#include "tests/e2e/harness.h"

struct key_made {
	char id[32], secret[64];
};

/* `signalbox key ARGS... --json` over the admin socket. Its exit status, 0 or 1; *ret_json NULL where it said none. */
int key_run(struct world *w, json_t **ret_json, const char *const *args);
#define KEY_RUN(w, json, ...) key_run(w, json, (const char *const[]){ __VA_ARGS__, NULL })
void key_take(json_t *json, struct key_made *ret); /* of what create or rotate said; takes the reference */
void key_make(struct world *w, const char *tenant, const char *models, const char *expires, struct key_made *ret);
void key_revoke(struct world *w, const char *id);

#endif
