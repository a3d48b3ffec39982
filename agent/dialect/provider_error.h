/* SPDX-License-Identifier: Apache-2.0 */
/*
 * provider_error.h -- what a provider says went wrong, out of any of the shapes that are in use.
 *
 * Each provider has its own: {"error":{...}}, {"error":"text"}, {"detail":...}, {"message":...}, an array of those, a page
 * of HTML from the proxy before it. They are told apart by what they contain, not by who sent them, so that one reader
 * serves every dialect that answers errors in JSON. The kind comes from the provider's own words where they are specific
 * (code first, then type), from well-known sentences next, and stays UNKNOWN otherwise: the status then decides, and that
 * is not this file's business.
 */
#ifndef SBX_DIALECT_PROVIDER_ERROR_H
#define SBX_DIALECT_PROVIDER_ERROR_H

#include "agent/dialect/hub.h"

/* sbx_provider_error_read() -- the body of an error answer: bytes as they came, of any kind, possibly cut or empty.
 *  status  of the answer; 200 when an answer that should have been a success is not one: the kind is then JUNK unless the
 *          body is an error in JSON */
void sbx_provider_error_read(int status, struct sbx_span body, struct sbx_json_scratch *scratch,
			     struct sbx_provider_error *ret_error);

/* sbx_provider_error_from_json() -- the same for checked JSON.
 *  root  the whole value: the object that holds `error`, or that is the error itself */
void sbx_provider_error_from_json(int status, struct sbx_span root, struct sbx_provider_error *ret_error);

/* An error in our words. */
void sbx_provider_error_set(struct sbx_provider_error *e, enum sbx_error_kind kind, int status, const char *message);

/* Whether the `error` member of an answer says anything: null, false, "" and {} do not. */
bool sbx_provider_error_given(struct sbx_span error);

#endif
