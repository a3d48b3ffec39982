/* SPDX-License-Identifier: Apache-2.0 */
/* control.h -- small helpers shared by the harness's files and by the conformance runner. */
#ifndef SBX_TESTS_E2E_CONTROL_H
#define SBX_TESTS_E2E_CONTROL_H

#include <stddef.h>

void pause_ms(int ms);                                  /* between two looks at a condition, never for luck */
char *read_whole(const char *path, size_t *ret_bytes);  /* malloc'd, NUL-terminated; NULL = no such file */
/* One HTTP/1.1 request on a connection of its own. malloc'd body; NULL when the connection failed. */
char *http_call(int port, const char *method, const char *path, const char *body, int *ret_status);

#endif
