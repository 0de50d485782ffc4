/* The library reads a list of fingerprints from a file; ours is made in memory, so that it holds the
 * languages that matter here. */
#include "language.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <textcat.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/mem.h"
#include "text.h"

#define DATA "/usr/share/libexttextcat/" /* of the package libexttextcat-data */
#define LETTERS_MIN 4U                   /* fewer say nothing */
#define LETTERS_SHORT 40U                /* of fewer, fingerprints of many languages look alike */
#define LETTERS_SURE 20U                 /* of fewer, the confidence is smaller */
#define CLEAR 0.9F
#define NEAR 0.03 /* the library shows who is at most so much farther than the best */

struct languages {
    void *wide, *narrow; /* codes and what is written often; codes alone */
    const char **codes;
    size_t n_codes;
};

/* Written most. */
static const char *const often[] = {"en", "de", "fr",      "es",      "it", "pt", "nl", "pl",
                                    "cs", "sv", "da",      "hu",      "ro", "tr", "el", "ru",
                                    "uk", "ar", "zh-Hans", "zh-Hant", "ja", "ko", "vi", "hi"};

static bool has_file(const char *name)
{
    char path[sizeof DATA + LANGUAGE_CODE_MAX + 8];
    snprintf(path, sizeof path, "%s%s.lm", DATA, name);
    return access(path, R_OK) == 0;
}

/* NULL: no data. */
static void *open_list(const struct buf *list)
{
    char path[40];
    void *handle = NULL;
    int fd = memfd_create("languages", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd >= 0 && !list->failed && write(fd, list->data, list->length) == (ssize_t)list->length)
        handle = special_textcat_Init(path, DATA);
    if (fd >= 0)
        close(fd);
    return handle;
}

/* "zh" has two files, "pt" one; false: none. */
static bool add_code(struct buf *list, const char *code)
{
    static const char *const ends[] = {"", "-Hans", "-Hant"};
    bool any = false;
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char name[LANGUAGE_CODE_MAX + 8];
        snprintf(name, sizeof name, "%.15s%s", code, ends[i]);
        if (!has_file(name))
            continue;
        buf_printf(list, "%s.lm %s\n", name, code);
        any = true;
    }
    return any;
}

static bool is_code(const struct languages *l, const char *code)
{
    for (size_t i = 0; i < l->n_codes; i++)
        if (strcmp(l->codes[i], code) == 0)
            return true;
    return false;
}

static enum status open_lists(struct languages *l, struct error *err)
{
    struct buf list;
    enum status s = STATUS_OK;
    buf_init(&list, 0);
    for (size_t i = 0; i < l->n_codes && s == STATUS_OK; i++)
        if (!add_code(&list, l->codes[i]))
            s = fail(err, STATUS_NOT_FOUND,
                     "no fingerprint of the language \"%.20s\": there is no " DATA "%.20s.lm", l->codes[i],
                     l->codes[i]);
    if (s == STATUS_OK)
        l->narrow = open_list(&list);
    for (size_t i = 0; i < sizeof often / sizeof often[0]; i++)
        if (!is_code(l, often[i]))
            (void)add_code(&list, often[i]);
    if (s == STATUS_OK)
        l->wide = open_list(&list);
    buf_fini(&list);
    if (s == STATUS_OK && (!l->narrow || !l->wide))
        s = fail(err, STATUS_NOT_FOUND, "the fingerprints of languages in " DATA " can't be read");
    return s;
}

enum status languages_open(const char *const *codes, size_t n_codes, struct languages **out,
                           struct error *err)
{
    struct languages *l = mem_zalloc(sizeof *l);
    if (!l)
        return fail(err, STATUS_NO_MEMORY, "no memory to tell languages");
    l->codes = mem_array(n_codes, sizeof *l->codes);
    l->n_codes = n_codes;
    for (size_t i = 0; l->codes && i < n_codes; i++)
        l->codes[i] = codes[i];
    enum status s =
        l->codes ? open_lists(l, err) : fail(err, STATUS_NO_MEMORY, "no memory to tell languages");
    if (s == STATUS_OK)
        *out = l;
    else
        languages_close(l);
    return s;
}

void languages_close(struct languages *l)
{
    if (!l)
        return;
    if (l->wide)
        textcat_Done(l->wide);
    if (l->narrow)
        textcat_Done(l->narrow);
    mem_free(l->codes);
    mem_free(l);
}

/* Letters: bytes of ASCII letters, and characters beyond. */
static size_t n_letters(const char *text, size_t length)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char c = (unsigned char)text[i];
        n += (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0xc0;
    }
    return n;
}

static struct language_guess classify(void *handle, const char *text, size_t length)
{
    struct language_guess g = {{0}, 0};
    candidate_t *found = textcat_GetClassifyFullOutput(handle);
    int n = found ? textcat_ClassifyFull(handle, text, length, found) : 0;
    if (n > 0) {
        int other = 1; /* two scripts of a language are no two languages */
        while (other < n && strcmp(found[other].name, found[0].name) == 0)
            other++;
        snprintf(g.code, sizeof g.code, "%s", found[0].name);
        g.confidence = other < n && found[0].score > 0
                           ? (float)((found[other].score - found[0].score) / (NEAR * found[0].score))
                           : 1;
        g.confidence = g.confidence < 1 ? g.confidence : 1;
    }
    if (found)
        textcat_ReleaseClassifyFullOutput(handle, found);
    return g;
}

struct language_guess language_of(struct languages *l, const char *text, size_t length)
{
    static const struct language_guess none;
    if (length > LANGUAGE_TEXT_MAX) {
        text += length - LANGUAGE_TEXT_MAX;
        length = LANGUAGE_TEXT_MAX;
        while (length && ((unsigned char)*text & 0xc0) == 0x80) { /* begins with a whole character */
            text++;
            length--;
        }
    }
    size_t n = n_letters(text, length);
    if (n < LETTERS_MIN)
        return none;
    struct language_guess g = classify(l->wide, text, length);
    if (n < LETTERS_SHORT && (is_code(l, g.code) || g.confidence < CLEAR)) {
        g = classify(l->narrow, text, length);
        g.confidence *= n < LETTERS_SURE ? (float)n / (float)LETTERS_SURE : 1;
    }
    return is_code(l, g.code) ? g : none;
}
