/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The list of rules, and the rules that model names carry.
 *
 * A name like "m@status=429,times=2" becomes a rule of its own, kept by the
 * whole name, so that times= and skip= count across requests; replacing the
 * rules forgets these too.  The faults in a name come before the list: the
 * request asked for them itself.  The list is matched against the name without
 * what it carries.
 */
#include "tools/mock/mock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CARRIED_MAX 512                       /* names with faults; a test uses tens */
#define CARRIED_BUCKETS 256                   /* hash buckets for them */
#define FILE_MAX_BYTES ((size_t)256 << 20)    /* what file= may name */

struct mock_rules {
	struct mock_rule *first;                        /* the list, in order */
	struct mock_rule *carried[CARRIED_BUCKETS];     /* by hash of the whole name */
	size_t n_carried;
};

static int load_file(struct mock_faults *faults, char *error, size_t error_bytes)
{
	FILE *file;
	char *at = NULL;
	size_t n = 0, cap = 0;
	int rc = -1;

	if (faults->file.at == NULL)
		return 0;
	file = fopen(faults->file.at, "re");
	if (file == NULL) {
		(void)snprintf(error, error_bytes, "%s: %s", faults->file.at, strerror(errno));
		return -1;
	}
	for (;;) {
		size_t got;

		if (n == cap) {
			char *bigger;

    cap = cap == 0 ? 65536 : cap * 2;
    bigger = cap > FILE_MAX_BYTES ? NULL : realloc(at, cap);
    if (bigger == NULL) {
    (void)snprintf(error, error_bytes, "%s: too large", faults->file.at);
    goto out;
    }
    at = bigger;
		}
		got = fread(at + n, 1, cap - n, file);
		if (got == 0)
			break;
		n += got;
	}
	if (ferror(file)) {
		(void)snprintf(error, error_bytes, "%s: cannot be read", faults->file.at);
		goto out;
	}
	faults->content = (struct mock_text){ .at = at, .n = n };
	at = NULL;
	rc = 0;
out:
	free(at);
	(void)fclose(file);
	return rc;
}

static struct mock_rule *read_rule(const char *line, size_t n, char *error, size_t error_bytes)
{
	struct mock_rule *rule = mock_rule_parse(line, n, error, error_bytes);

	if (rule != NULL && load_file(&rule->faults, error, error_bytes) < 0) {
		mock_rule_unref(rule);
		rule = NULL;
	}
	return rule;
}

static void forget_list(struct mock_rule **first)
{
	while (*first != NULL) {
		struct mock_rule *rule = *first;

		*first = rule->next;
		mock_rule_unref(rule);
	}
}

static void forget_carried(struct mock_rules *rules)
{
	for (size_t i = 0; i < CARRIED_BUCKETS; i++)
		forget_list(&rules->carried[i]);
	rules->n_carried = 0;
}

/* FNV-1a; spreads names, defends against nothing. */
static size_t bucket_of(const char *name)
{
	uint32_t hash = 2166136261u;

	for (; *name != '\0'; name++)
		hash = (hash ^ (unsigned char)*name) * 16777619u;
	return hash % CARRIED_BUCKETS;
}

static struct mock_rule *find_carried(struct mock_rules *rules, const char *model, const char *at_sign,
    char *error, size_t error_bytes)
{
	struct mock_rule **bucket = &rules->carried[bucket_of(model)];
	struct mock_rule *rule;

	for (rule = *bucket; rule != NULL; rule = rule->next)
		if (strcmp(rule->pattern, model) == 0)
			return rule;
	rule = mock_rule_new(model, strlen(model), at_sign + 1, strlen(at_sign + 1), error, error_bytes);
	if (rule == NULL)
		return NULL;
	if (rule->faults.accept_close || rule->faults.no_read) {
		(void)snprintf(error, error_bytes,
		    "accept-close and no-read need a rule: they act before a model is read");
		mock_rule_unref(rule);
		return NULL;
	}
	if (load_file(&rule->faults, error, error_bytes) < 0) {
		mock_rule_unref(rule);
		return NULL;
	}
	if (rules->n_carried == CARRIED_MAX) {
		forget_carried(rules);
		bucket = &rules->carried[bucket_of(model)];
	}
	rule->next = *bucket;
	*bucket = rule;
	rules->n_carried++;
	return rule;
}

/* The counting of a carried rule: it matches by being found. */
static bool try_carried(struct mock_rule *rule, bool conn_reused)
{
	const struct mock_faults *faults = &rule->faults;

	if (faults->conn != 0 && (faults->conn == MOCK_CONN_REUSED) != conn_reused)
		return false;
	rule->seen++;
	if (faults->skip >= 0 && rule->seen <= faults->skip)
		return false;
	if (faults->times >= 0 && rule->used >= faults->times)
		return false;
	rule->used++;
	return true;
}

struct mock_rules *mock_rules_new(void)
{
	return calloc(1, sizeof(struct mock_rules));
}

void mock_rules_free(struct mock_rules *rules)
{
	if (rules == NULL)
		return;
	forget_list(&rules->first);
	forget_carried(rules);
	free(rules);
}

int mock_rules_add(struct mock_rules *rules, const char *line, size_t n, bool in_front, char *error,
    size_t error_bytes)
{
	struct mock_rule *rule = read_rule(line, n, error, error_bytes);
	struct mock_rule **at = &rules->first;

	if (rule == NULL)
		return -1;
	while (!in_front && *at != NULL)
		at = &(*at)->next;
	rule->next = *at;
	*at = rule;
	return 0;
}

int mock_rules_replace(struct mock_rules *rules, const char *text, size_t n, char *error, size_t error_bytes)
{
	struct mock_rule *first = NULL;
	struct mock_rule **last = &first;

	for (size_t i = 0; i < n;) {
		const char *line = text + i;
		const char *newline = memchr(line, '\n', n - i);
		size_t length = newline == NULL ? n - i : (size_t)(newline - line);
		size_t blank = 0;

		i += length + 1;
		while (blank < length && strchr(" \t\r", line[blank]) != NULL && line[blank] != '\0')
			blank++;
		if (blank == length || line[blank] == '#')
			continue;
		*last = read_rule(line, length, error, error_bytes);
		if (*last == NULL) {
			forget_list(&first);
			return -1;
		}
		last = &(*last)->next;
	}
	forget_list(&rules->first);
	forget_carried(rules);
	rules->first = first;
	return 0;
}

void mock_rules_fmt(const struct mock_rules *rules, struct mock_bytes *out)
{
	for (const struct mock_rule *rule = rules->first; rule != NULL; rule = rule->next)
		mock_bytes_fmt(out, "# seen %lld, used %lld\n%s:%s%s\n", (long long)rule->seen, (long long)rule->used,
		    rule->pattern, rule->list[0] == ' ' ? "" : " ", rule->list);
}

const char *mock_rules_literal(const struct mock_rules *rules, size_t i)
{
	for (const struct mock_rule *rule = rules->first; rule != NULL; rule = rule->next)
		if (strpbrk(rule->pattern, "*?[/\\") == NULL && i-- == 0)
			return rule->pattern;
	return NULL;
}

int mock_rules_find(struct mock_rules *rules, const char *model, bool conn_reused, struct mock_rule **ret_rule,
    char *error, size_t error_bytes)
{
	const char *at_sign = model[0] == '\0' ? NULL : strchr(model + 1, '@');
	char name[MOCK_MODEL_MAX];

	if (at_sign != NULL) {
		struct mock_rule *rule = find_carried(rules, model, at_sign, error, error_bytes);
		size_t n = (size_t)(at_sign - model);

		if (rule == NULL)
			return -1;
		if (try_carried(rule, conn_reused)) {
			mock_rule_ref(rule);
			*ret_rule = rule;
			return 0;
		}
		memcpy(name, model, n);
		name[n] = '\0';
		model = name;
	}
	*ret_rule = NULL;
	for (struct mock_rule *rule = rules->first; rule != NULL; rule = rule->next) {
		if (!mock_rule_try(rule, model, conn_reused, /* at_accept= */ false))
			continue;
		mock_rule_ref(rule);
		*ret_rule = rule;
		break;
	}
	return 0;
}

struct mock_rule *mock_rules_find_accept(struct mock_rules *rules)
{
	for (struct mock_rule *rule = rules->first; rule != NULL; rule = rule->next)
		if (mock_rule_try(rule, "", false, /* at_accept= */ true)) {
			mock_rule_ref(rule);
			return rule;
		}
	return NULL;
}
