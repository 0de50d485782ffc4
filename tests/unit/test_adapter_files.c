/* adapters: the way from files to a version when files are not what they seem, or change meanwhile: what is
 * loaded is always one whole content, or a refusal says why. */
#include "tests/test.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>

#include "adapters.h"
#include "base/mem.h"
#include "content_hash.h"
#include "format.h"
#include "model.h"
#include "tests/unit/made_adapters.h"
#include "tests/unit/plain_model.h"

#define LLAMA "tests/golden/data/models/llama/f32"
#define OWN_ADAPTER "tests/golden/data/adapters/llama/qv_r4"
#define Q PRE "model.layers.0.self_attn.q_proj"
#define CONFIG "{\"peft_type\":\"LORA\",\"r\":2,\"lora_alpha\":%d}"

/* An adapter whose configuration and weights both say `content`. */
static void put_adapter(const char *dir, int content)
{
    char config[100];
    snprintf(config, sizeof config, CONFIG, content);
    put_text(dir, "adapter_config.json", config);
    put_made(dir, "adapter_model.safetensors",
             (struct made[]){{Q ".lora_A.weight", {2, 32}, (float)content},
                             {Q ".lora_B.weight", {32, 2}, 1},
                             {NULL, {0}, 0}});
}

static enum status load_from(const struct model *m, const char *path, int root,
                             struct adapter_findings *found, struct error *err)
{
    struct adapter_version *v = NULL;
    struct adapter_source s = {.name = "x", .path = path, .root_fd = root, .scale = 1, .findings = found};
    *err = (struct error){0};
    enum status st = adapter_load(&s, m, &v, err);
    assert_true((st == STATUS_OK) == (v != NULL));
    adapter_release(v);
    return st;
}

static void expect(const struct model *m, const char *path, enum status status, const char *words)
{
    struct adapter_findings found;
    struct error err;
    enum status s = load_from(m, path, -1, &found, &err);
    if (s != status || !strstr(err.text, words))
        fail_msg("%s: found %s '%s', expected %s '%s'", path, status_name(s), err.text, status_name(status),
                 words);
    assert_int_equal(found.fault, ADAPTER_FAULT_NONE);
}

static void odd_files_are_refused_by_name(void **state)
{
    (void)state;
    struct model *m = open_model(LLAMA);
    struct folder f = folder_make();
    char path[200], weights[200];
    put_adapter(f.path, 1);
    snprintf(path, sizeof path, "%s/adapter_config.json", f.path);
    snprintf(weights, sizeof weights, "%s/adapter_model.safetensors", f.path);
    expect(m, f.path, STATUS_OK, "");

    assert_int_equal(truncate(path, 0), 0);
    expect(m, f.path, STATUS_FORMAT, "adapter_config.json");
    put_adapter(f.path, 1);
    assert_int_equal(truncate(weights, 0), 0);
    expect(m, f.path, STATUS_FORMAT, "adapter_model.safetensors");
    put_adapter(f.path, 1);
    assert_int_equal(truncate(weights, 100), 0); /* half-written */
    expect(m, f.path, STATUS_FORMAT, "adapter_model.safetensors");

    /* A FIFO would wait for a writer for ever. */
    assert_int_equal(unlink(weights), 0);
    assert_int_equal(mkfifo(weights, 0600), 0);
    expect(m, f.path, STATUS_INVALID, "not a regular file");
    assert_int_equal(unlink(weights), 0);
    assert_int_equal(mkdir(weights, 0700), 0);
    expect(m, f.path, STATUS_INVALID, "not a regular file");
    assert_int_equal(rmdir(weights), 0);
    expect(m, f.path, STATUS_NOT_FOUND, "adapter_model.safetensors");
    assert_int_equal(symlink("adapter_model.safetensors", weights), 0); /* to itself */
    expect(m, f.path, STATUS_IO, "adapter_model.safetensors");
    assert_int_equal(unlink(weights), 0);
    put_adapter(f.path, 1);
    if (geteuid() != 0) { /* root reads everything */
        assert_int_equal(chmod(weights, 0), 0);
        expect(m, f.path, STATUS_IO, "Permission denied");
        assert_int_equal(chmod(weights, 0600), 0);
    }
    snprintf(path, sizeof path, "%s/pipe.gguf", f.path);
    assert_int_equal(mkfifo(path, 0600), 0);
    expect(m, path, STATUS_NOT_FOUND, "pipe.gguf");
    put_text(f.path, "empty.gguf", "");
    snprintf(path, sizeof path, "%s/empty.gguf", f.path);
    expect(m, path, STATUS_FORMAT, "empty.gguf");
    folder_remove(&f);
    model_close(m);
}

static void links_stay_below_their_root(void **state)
{
    (void)state;
    struct adapter_findings found;
    struct adapter_stat stat_in, stat_out;
    struct error err;
    struct model *m = open_model(LLAMA);
    struct folder root = folder_make(), outside = folder_make();
    char dir[100], weights[200], target[200];
    snprintf(dir, sizeof dir, "%s/pt", root.path);
    snprintf(weights, sizeof weights, "%s/adapter_model.safetensors", dir);
    snprintf(target, sizeof target, "%s/adapter_model.safetensors", outside.path);
    assert_int_equal(mkdir(dir, 0700), 0);
    put_adapter(dir, 1);
    put_adapter(outside.path, 2);
    assert_int_equal(load_from(m, "pt", root.fd, &found, &err), STATUS_OK);
    assert_int_equal(adapter_stat("pt", root.fd, &stat_in, &err), STATUS_OK);
    assert_int_equal(unlink(weights), 0);
    assert_int_equal(symlink(target, weights), 0);
    assert_int_equal(load_from(m, "pt", root.fd, &found, &err), STATUS_INVALID);
    assert_non_null(strstr(err.text, "outside the allowed folder"));
    assert_int_equal(adapter_stat("pt", root.fd, &stat_out, &err), STATUS_OK);
    assert_true(stat_out.file_bytes < stat_in.file_bytes); /* tells nothing of what is outside */
    /* The operator's own path has no fence. */
    assert_int_equal(load_from(m, dir, -1, &found, &err), STATUS_OK);
    char link[200];
    snprintf(link, sizeof link, "%s/away", root.path);
    assert_int_equal(symlink(outside.path, link), 0);
    assert_int_equal(load_from(m, "away", root.fd, &found, &err), STATUS_INVALID);
    assert_int_equal(adapter_stat("away", root.fd, &stat_out, &err), STATUS_INVALID);
    folder_remove(&root);
    folder_remove(&outside);
    model_close(m);
}

/* ---- changes while reading */

/* What happens between two files, told by the first one's copying. */
struct game {
    const char *dir;
    void (*play)(const char *dir);
};

static void play_once(void *data, const char *name, const void *bytes, size_t n)
{
    struct game *g = data;
    (void)name, (void)bytes, (void)n;
    if (g->play)
        g->play(g->dir);
    g->play = NULL;
}

static void rewrite(const char *dir)
{
    put_text(dir, "one", "1!");
}

static void replace_by_same_bytes(const char *dir)
{
    char from[200], to[200];
    put_text(dir, "new", "1");
    snprintf(from, sizeof from, "%s/new", dir);
    snprintf(to, sizeof to, "%s/one", dir);
    assert_int_equal(rename(from, to), 0);
}

static void take_away(const char *dir)
{
    char path[200];
    snprintf(path, sizeof path, "%s/one", dir);
    assert_int_equal(unlink(path), 0);
}

/* Another folder takes the place, with files of the same names. */
static void swap_folders(const char *dir)
{
    char old[200];
    snprintf(old, sizeof old, "%s-old", dir);
    assert_int_equal(rename(dir, old), 0);
    assert_int_equal(mkdir(dir, 0700), 0);
    put_text(dir, "one", "1");
    put_text(dir, "two", "3");
}

static enum status play(void (*what)(const char *dir), bool below_root, struct error *err)
{
    struct folder root = folder_make();
    struct copied_files files = {0};
    char dir[100], *bytes[2] = {NULL, NULL};
    size_t n;
    int fd;
    snprintf(dir, sizeof dir, "%s/set", root.path);
    assert_int_equal(mkdir(dir, 0700), 0);
    put_text(dir, "one", "1");
    put_text(dir, "two", "2");
    struct game g = {dir, what};
    struct private_copy copy = {.limit_bytes = 10,
                                .root_fd = below_root ? root.fd : -1,
                                .folder = "set",
                                .files = &files,
                                .seen = play_once,
                                .data = &g};
    assert_int_equal(folder_open(below_root ? root.fd : -1, below_root ? "set" : dir, &fd, err), STATUS_OK);
    assert_int_equal(private_copy_read(&copy, fd, "set", "one", &bytes[0], &n, err), STATUS_OK);
    assert_int_equal(private_copy_read(&copy, fd, "set", "two", &bytes[1], &n, err), STATUS_OK);
    assert_string_equal(bytes[0], "1");
    enum status s = private_copy_check(&copy, fd, "set", err);
    mem_free(bytes[0]);
    mem_free(bytes[1]);
    copied_files_fini(&files);
    close(fd);
    folder_remove(&root);
    return s;
}

static void a_set_that_changes_meanwhile_is_refused(void **state)
{
    (void)state;
    static void (*const games[])(const char *) = {rewrite, replace_by_same_bytes, take_away};
    struct error err;
    for (int below = 0; below < 2; below++) {
        assert_int_equal(play(NULL, below, &err), STATUS_OK);
        for (size_t i = 0; i < sizeof games / sizeof *games; i++) {
            assert_int_equal(play(games[i], below, &err), STATUS_UNAVAILABLE);
            assert_non_null(strstr(err.text, "set/one: changed while it was read"));
        }
    }
    /* The descriptor holds the old folder: below a root a link would have led into the new one. */
    assert_int_equal(play(swap_folders, true, &err), STATUS_UNAVAILABLE);
    assert_int_equal(play(swap_folders, false, &err), STATUS_OK);
}

/* Writes two contents over each other, in place, until told to stop. */
struct writer {
    const char *dir;
    atomic_bool stop;
};

static void *write_in_place(void *data)
{
    struct writer *w = data;
    for (int i = 0; !atomic_load(&w->stop); i++)
        put_adapter(w->dir, 1 + i % 2);
    return NULL;
}

/* In-place writers leave a folder whose two files are of different versions for moments, and half a file; but
 * no file may be taken from two moments. */
static void no_file_is_read_from_two_moments(void **state)
{
    (void)state;
    struct model *m = open_model(LLAMA);
    struct folder f = folder_make();
    struct adapter_findings found;
    struct error err;
    char digests[4][65], config[100];
    for (int i = 0; i < 4; i++) {
        put_adapter(f.path, 1 + i % 2);
        snprintf(config, sizeof config, CONFIG, 1 + i / 2);
        put_text(f.path, "adapter_config.json", config);
        assert_int_equal(load_from(m, f.path, -1, &found, &err), STATUS_OK);
        memcpy(digests[i], found.report.digest_hex, sizeof digests[i]);
    }
    assert_string_not_equal(digests[0], digests[1]);
    struct writer w = {.dir = f.path};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, write_in_place, &w), 0);
    unsigned n[STATUS_COUNT] = {0};
    for (int i = 0; i < 400; i++) {
        enum status s = load_from(m, f.path, -1, &found, &err);
        bool known = false;
        for (int k = 0; k < 4; k++)
            known = known || strcmp(found.report.digest_hex, digests[k]) == 0;
        n[s]++;
        if (s == STATUS_UNAVAILABLE ? found.fault != ADAPTER_FAULT_CHANGED
                                    : s != STATUS_FORMAT && !(s == STATUS_OK && known))
            fail_msg("load %d: %s '%s'", i, status_name(s), s == STATUS_OK ? "a mixture" : err.text);
    }
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    print_message("%u loaded, %u changed, %u cut short\n", n[STATUS_OK], n[STATUS_UNAVAILABLE],
                  n[STATUS_FORMAT]);
    put_adapter(f.path, 1);
    assert_int_equal(load_from(m, f.path, -1, &found, &err), STATUS_OK);
    assert_string_equal(found.report.digest_hex, digests[0]);
    folder_remove(&f);
    model_close(m);
}

/* ---- digests */

static void shell(const char *command, char *out, size_t n)
{
    FILE *p = popen(command, "r");
    assert_non_null(p);
    assert_non_null(fgets(out, (int)n, p));
    assert_int_equal(pclose(p), 0);
    out[strcspn(out, " \n")] = '\0';
}

static void digests_are_those_of_sha256sum(void **state)
{
    (void)state;
    struct model *m = open_model(LLAMA);
    struct adapter_version *v;
    struct adapter_findings found;
    struct error err;
    char sum[200], upper[65];
    shell("cd " OWN_ADAPTER
          " && LC_ALL=C sha256sum adapter_config.json adapter_model.safetensors | sha256sum",
          sum, sizeof sum);
    struct adapter_source s = {.name = "x",
                               .path = OWN_ADAPTER,
                               .root_fd = -1,
                               .scale = 1,
                               .expected_sha256 = sum,
                               .findings = &found};
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_OK);
    assert_string_equal(v->digest_hex, sum);
    adapter_release(v);
    for (int i = 0; i < 65; i++)
        upper[i] = (char)(sum[i] >= 'a' ? sum[i] - 32 : sum[i]);
    s.expected_sha256 = upper;
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_OK);
    adapter_release(v);
    upper[63] = upper[63] == '0' ? '1' : '0';
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_MISMATCH);
    assert_true(strstr(err.text, sum) && strstr(err.text, upper));
    assert_int_equal(found.fault, ADAPTER_FAULT_SHA256);
    assert_string_equal(found.report.digest_hex, sum);
    s.expected_sha256 = "abc";
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_INVALID);
    s.expected_sha256 = NULL;
    s.limit_bytes = 1000;
    assert_int_equal(adapter_load(&s, m, &v, &err), STATUS_TOO_LARGE);
    assert_non_null(strstr(err.text, "in all, at most 1000"));

    struct content_hash h = {0};
    uint8_t digest[32];
    char hex[65];
    content_hash_file(&h, "x.gguf", "abc", 3);
    assert_int_equal(content_hash_end(&h, digest, &err), STATUS_OK);
    hex_of(digest, 32, hex); /* FIPS 180-4's example */
    assert_string_equal(hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    content_hash_fini(&h);
    model_close(m);
}

/* ---- metadata */

static uint64_t signature_of(const char *path)
{
    struct adapter_stat st;
    struct error err;
    if (adapter_stat(path, -1, &st, &err) != STATUS_OK)
        fail_msg("%s", err.text);
    return st.signature;
}

static void metadata_tells_changes(void **state)
{
    (void)state;
    struct folder f = folder_make();
    struct adapter_stat st;
    struct error err;
    char path[200], other[200];
    assert_int_equal(adapter_stat(f.path, -1, &st, &err), STATUS_NOT_FOUND);
    assert_non_null(strstr(err.text, "no adapter_config.json"));
    put_adapter(f.path, 1);
    assert_int_equal(adapter_stat(f.path, -1, &st, &err), STATUS_OK);
    uint64_t first = st.signature, bytes = st.file_bytes;
    assert_false(st.is_file);
    assert_int_equal(signature_of(f.path), first);
    put_text(f.path, "README.md", "no part of it");
    assert_int_equal(signature_of(f.path), first);
    put_text(f.path, "probes.jsonl", "{}");
    assert_int_not_equal(signature_of(f.path), first); /* looked at, but no weight in the estimate */
    assert_int_equal(adapter_stat(f.path, -1, &st, &err), STATUS_OK);
    assert_int_equal(st.file_bytes, bytes);
    first = st.signature;

    /* Equal size and time, another inode: renamed into place. */
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", f.path);
    snprintf(other, sizeof other, "%s/other", f.path);
    struct folder twin = folder_make();
    put_adapter(twin.path, 1);
    char copied[200];
    snprintf(copied, sizeof copied, "%s/adapter_model.safetensors", twin.path);
    assert_int_equal(rename(copied, path), 0);
    assert_int_not_equal(signature_of(f.path), first);

    put_text(f.path, "x.gguf", "1234567");
    snprintf(path, sizeof path, "%s/x.gguf", f.path);
    assert_int_equal(adapter_stat(path, -1, &st, &err), STATUS_OK);
    assert_true(st.is_file && st.file_bytes == 7);
    snprintf(path, sizeof path, "%s/absent.gguf", f.path);
    assert_int_equal(adapter_stat(path, -1, &st, &err), STATUS_NOT_FOUND);
    folder_remove(&twin);
    folder_remove(&f);
}

static void count_found(const char *name, const char *path, void *data)
{
    struct adapter_stat st;
    struct error err;
    (void)name;
    assert_int_equal(adapter_stat(path, -1, &st, &err), STATUS_OK);
    ++*(unsigned *)data;
}

static double seconds_since(struct timespec begin)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) * 1e-9;
}

static void thousands_are_found_without_reading_them(void **state)
{
    (void)state;
    enum { N = 2000 };
    struct folder f = folder_make();
    struct error err;
    unsigned n = 0;
    for (int i = 0; i < N; i++) {
        char dir[100];
        snprintf(dir, sizeof dir, "%s/voice-%04d", f.path, i);
        assert_int_equal(mkdir(dir, 0700), 0);
        put_text(dir, "adapter_config.json", "not read");
        put_text(dir, "adapter_model.safetensors", "not read either");
    }
    struct timespec begin;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    assert_int_equal(adapters_scan(f.path, count_found, NULL, &n, &err), STATUS_OK);
    assert_int_equal(n, N);
    print_message("%.1f us an adapter\n", seconds_since(begin) * 1e6 / N);
    folder_remove(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_files_are_refused_by_name),
        cmocka_unit_test(links_stay_below_their_root),
        cmocka_unit_test(a_set_that_changes_meanwhile_is_refused),
        cmocka_unit_test(no_file_is_read_from_two_moments),
        cmocka_unit_test(digests_are_those_of_sha256sum),
        cmocka_unit_test(metadata_tells_changes),
        cmocka_unit_test(thousands_are_found_without_reading_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
