/* The language of a text, by libexttextcat's n-gram fingerprints (Cavnar, Trenkle, "N-gram-based text
 * categorization", 1994). One owner: the library's handle keeps its work inside. */
#ifndef LK_LANGUAGE_H
#define LK_LANGUAGE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define LANGUAGE_CODE_MAX 16U   /* bytes, the end included: "pt", "zh" */
#define LANGUAGE_TEXT_MAX 1024U /* bytes of a text that are looked at: its end */

struct languages;

struct language_guess {
    char code[LANGUAGE_CODE_MAX]; /* ISO 639: one of those asked for; empty: none of them, or it can't be said
                                   */
    float confidence; /* 0 to 1: how far the next language is behind, 1 from 3 % of the distance on */
};

/* Tells `codes` (whose texts are borrowed) apart, and from the languages that are written most.
 * STATUS_NOT_FOUND: there is no fingerprint for a code, or no data. */
LK_MUST_USE enum status languages_open(const char *const *codes, size_t n_codes, struct languages **out,
                                       struct error *err);
void languages_close(struct languages *l); /* NULL is fine */
/* About a millisecond. `text` is UTF-8. A short text is taken for the most likely one of the codes, unless it
 * is clearly of another language; its confidence is smaller. */
struct language_guess language_of(struct languages *l, const char *text, size_t length);

#endif
