/* SPDX-License-Identifier: Apache-2.0 */
/* key.c -- see key.h. */
#include "tests/e2e/key.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/e2e/tool.h"

int
key_run(struct world *w, json_t **ret_json, const char *const *args)
{
	const char *all[16] = { "key" };
	char *said;
	int n = 1;
	for (; *args; args++)
		all[n++] = *args;
	all[n++] = "--json";
	all[n++] = "--socket";
	all[n++] = w->admin_socket;
	int status = tool_run("signalbox", all, NULL, &said);
	*ret_json = json_loads(said, 0, NULL);
	if (status != 0 && status != 1)
		fail_msg("%d: %s", status, said);
	free(said);
	return status;
}

void
key_take(json_t *json, struct key_made *ret)
{
	assert_non_null(json);
	(void)snprintf(ret->id, sizeof ret->id, "%s", json_string_value(json_object_get(json, "key")));
	(void)snprintf(ret->secret, sizeof ret->secret, "%s", json_string_value(json_object_get(json, "secret")));
	assert_int_equal(strlen(ret->secret), 7 + 43);
	json_decref(json);
}

void
key_make(struct world *w, const char *tenant, const char *models, const char *expires, struct key_made *ret)
{
	json_t *json;
	assert_int_equal(KEY_RUN(w, &json, "create", "--tenant", tenant, "--models", models, "--expires", expires), 0);
	key_take(json, ret);
}

void
key_revoke(struct world *w, const char *id)
{
	json_t *json;
	assert_int_equal(KEY_RUN(w, &json, "revoke", id), 0);
	json_decref(json);
}
