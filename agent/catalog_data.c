/* SPDX-License-Identifier: Apache-2.0 */
/* catalog_data.c -- the list of known models as it stands in agent/catalog.json, byte for byte in the program's read-only data. */
#include "agent/catalog.h"
#include "agent/dialect/json_scan.h"

__asm__(".pushsection .rodata\n"
        ".globl sbx_catalog_builtin, sbx_catalog_builtin_end\n"
        "sbx_catalog_builtin:\n"
        ".incbin \"agent/catalog.json\"\n"
        "sbx_catalog_builtin_end:\n"
        ".byte 0\n"
        ".popsection\n");

/* A translation unit of asm alone is none for ISO C; and the list is never longer than a file may be. */
_Static_assert(SBX_CATALOG_MAX_BYTES <= SBX_JSON_TEXT_MAX, "a whole list can be checked");
