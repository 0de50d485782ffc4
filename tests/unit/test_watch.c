/* The watched folder: what is told, what is waited for, and what isn't worth a word. */
#include "tests/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "watch.h"

#define PATIENCE_MS 1500

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick;
    struct log log;
    struct watch *watch;
    char dir[64];
    int n_calls;
};

static const char config[] = "{\"peft_type\": \"LORA\"}";
/* One tensor of 8 bytes. */
static const char header[] = "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}";

static void on_change(void *data)
{
    struct fixture *f = data;
    f->n_calls++;
}

static void on_tick(uv_timer_t *t)
{
    (void)t;
}

static void put(const struct fixture *f, const char *name, const void *bytes, size_t n)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), (ssize_t)n);
    close(fd);
}

static size_t make_weights(char *out, char last)
{
    uint64_t n = sizeof header - 1;
    memcpy(out, &n, 8);
    memcpy(out + 8, header, n);
    memset(out + 8 + n, last, 8);
    return 8 + n + 8;
}

static void put_folder(const struct fixture *f, const char *name)
{
    char path[200];
    snprintf(path, sizeof path, "%s/%s", f->dir, name);
    assert_int_equal(mkdir(path, 0700), 0);
}

static void put_adapter(const struct fixture *f, const char *name, char last)
{
    char at[100], weights[200];
    put_folder(f, name);
    snprintf(at, sizeof at, "%s/adapter_config.json", name);
    put(f, at, config, sizeof config - 1);
    snprintf(at, sizeof at, "%s/adapter_model.safetensors", name);
    put(f, at, weights, make_weights(weights, last));
}

/* Runs the loop until there were n calls in all, or for ms. */
static bool calls(struct fixture *f, int n, int64_t ms)
{
    int64_t end = clock_now_ns() + ms * NS_PER_MS;
    while (f->n_calls < n && clock_now_ns() < end)
        uv_run(&f->loop, UV_RUN_ONCE);
    return f->n_calls >= n;
}

static void run_for(struct fixture *f, int64_t ms)
{
    (void)calls(f, 1000000, ms);
}

static void begin(struct fixture *f)
{
    *f = (struct fixture){.log = {.fd = STDERR_FILENO, .level = LOG_ERROR}};
    snprintf(f->dir, sizeof f->dir, "/tmp/lorikeet-watch-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->tick);
    uv_timer_start(&f->tick, on_tick, 10, 10);
}

static void start(struct fixture *f, uint32_t poll_ms, uint32_t watches_max)
{
    struct watch_options o = {.dir = f->dir,
                              .log = &f->log,
                              .poll_ms = poll_ms,
                              .quiet_ms = 50,
                              .patience_ms = PATIENCE_MS,
                              .watches_max = watches_max,
                              .on_change = on_change,
                              .data = f};
    struct error err;
    assert_int_equal(watch_create(&f->loop, &o, &f->watch, &err), STATUS_OK);
}

static void remove_all(const char *path)
{
    DIR *d = opendir(path);
    const struct dirent *e;
    char below[400];
    while (d && (e = readdir(d)) != NULL) {
        snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        if (e->d_name[0] == '.' && (!e->d_name[1] || e->d_name[1] == '.'))
            continue;
        if (unlink(below) != 0)
            remove_all(below);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static void end(struct fixture *f)
{
    watch_close(f->watch);
    uv_close((uv_handle_t *)&f->tick, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    remove_all(f->dir);
}

static void in_dir(const struct fixture *f, const char *name, char *path)
{
    snprintf(path, 200, "%s/%s", f->dir, name);
}

static void an_adapter_comes_changes_and_goes(void **state)
{
    (void)state;
    struct fixture f;
    char from[200], to[200], weights[200];
    begin(&f);
    start(&f, 0, 0);
    run_for(&f, 200);
    assert_int_equal(f.n_calls, 0); /* an empty folder is no news */
    put_adapter(&f, ".new", 'a');
    in_dir(&f, ".new", from);
    in_dir(&f, "pt", to);
    assert_int_equal(rename(from, to), 0);
    assert_true(calls(&f, 1, 60000));
    assert_true(watch_is_settled(f.watch, "pt"));
    assert_int_equal(watch_n_watched(f.watch), 1);
    run_for(&f, 300);
    assert_int_equal(f.n_calls, 1); /* told once */
    put(&f, "pt/adapter_model.safetensors.tmp", weights, make_weights(weights, 'b'));
    in_dir(&f, "pt/adapter_model.safetensors.tmp", from);
    in_dir(&f, "pt/adapter_model.safetensors", to);
    assert_int_equal(rename(from, to), 0); /* inside its folder */
    assert_true(calls(&f, 2, 60000));
    /* Another folder takes its name, and is watched then. */
    put_adapter(&f, ".new", 'c');
    in_dir(&f, "pt", from);
    in_dir(&f, ".old", to);
    assert_int_equal(rename(from, to), 0);
    in_dir(&f, ".new", from);
    in_dir(&f, "pt", to);
    assert_int_equal(rename(from, to), 0);
    assert_true(calls(&f, 3, 60000));
    run_for(&f, 200);
    put(&f, "pt/adapter_model.safetensors", weights, make_weights(weights, 'd'));
    assert_true(calls(&f, 4, 60000));
    remove_all(to);
    assert_true(calls(&f, 5, 60000));
    assert_int_equal(watch_n_watched(f.watch), 0);
    end(&f);
}

static void what_is_half_written_is_waited_for(void **state)
{
    (void)state;
    struct fixture f;
    char weights[200];
    size_t n = make_weights(weights, 'a');
    begin(&f);
    start(&f, 0, 0);
    run_for(&f, 200);
    put_folder(&f, "pt");
    put(&f, "pt/adapter_config.json", config, sizeof config - 1);
    run_for(&f, 300);
    assert_int_equal(f.n_calls, 0);
    assert_false(watch_is_settled(f.watch, "pt"));
    for (size_t part = 4; part < n; part += 20) { /* slower than the looks */
        put(&f, "pt/adapter_model.safetensors", weights, part);
        run_for(&f, 150);
    }
    assert_int_equal(f.n_calls, 0);
    put(&f, "pt/adapter_model.safetensors", weights, n);
    assert_true(calls(&f, 1, 60000));
    assert_true(watch_is_settled(f.watch, "pt"));
    end(&f);
}

static void what_stays_broken_is_told_in_the_end(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    start(&f, 0, 0);
    run_for(&f, 200);
    int64_t from = clock_now_ns();
    put(&f, "cut.gguf", "GGUF", 4);
    assert_true(calls(&f, 1, 60000));
    assert_true(clock_now_ns() - from >= PATIENCE_MS * NS_PER_MS);
    run_for(&f, 300);
    assert_int_equal(f.n_calls, 1);
    end(&f);
}

static void what_does_not_count(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f);
    start(&f, 0, 0);
    run_for(&f, 200);
    put_adapter(&f, ".hidden", 'a');
    put_adapter(&f, "half.tmp", 'a');
    put(&f, "x.gguf.part", "GGUF", 4);
    put(&f, "README.md", "x", 1);
    put_folder(&f, "empty");
    run_for(&f, PATIENCE_MS + 500);
    assert_int_equal(f.n_calls, 0);
    end(&f);
}

static void without_inotify_a_look_from_time_to_time_does(void **state)
{
    (void)state;
    struct fixture f;
    char weights[200];
    begin(&f);
    put_adapter(&f, "a", 'a');
    put_adapter(&f, "b", 'a');
    start(&f, 200, 1);                /* room for one own watch */
    assert_true(calls(&f, 1, 60000)); /* both are new enough to be told */
    run_for(&f, 300);
    f.n_calls = 0;
    assert_int_equal(watch_n_watched(f.watch), 1);
    put(&f, "b/adapter_model.safetensors", weights, make_weights(weights, 'b'));
    assert_true(calls(&f, 1, 60000));
    end(&f);
}

static void the_folder_itself_may_go_and_come_back(void **state)
{
    (void)state;
    struct fixture f;
    char other[100];
    begin(&f);
    f.log.level = LOG_ERROR + 1; /* that it is gone is an error in the log */
    start(&f, 100, 0);
    run_for(&f, 200);
    snprintf(other, sizeof other, "%s-other", f.dir);
    assert_int_equal(rename(f.dir, other), 0);
    run_for(&f, 300);
    assert_int_equal(mkdir(f.dir, 0700), 0);
    run_for(&f, 300);
    put_adapter(&f, "pt", 'a');
    assert_true(calls(&f, 1, 60000));
    remove_all(other);
    end(&f);
}

static void hundreds(void **state)
{
    (void)state;
    struct fixture f;
    char name[40], weights[200];
    begin(&f);
    f.log.level = LOG_ERROR + 1;
    for (int i = 0; i < 400; i++) {
        snprintf(name, sizeof name, "a%d", i);
        put_adapter(&f, name, 'a');
    }
    start(&f, 0, 0);
    assert_true(calls(&f, 1, 60000));
    run_for(&f, 300);
    f.n_calls = 0;
    put(&f, "a277/adapter_model.safetensors", weights, make_weights(weights, 'b'));
    assert_true(calls(&f, 1, 60000));
    end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_adapter_comes_changes_and_goes),
        cmocka_unit_test(what_is_half_written_is_waited_for),
        cmocka_unit_test(what_stays_broken_is_told_in_the_end),
        cmocka_unit_test(what_does_not_count),
        cmocka_unit_test(without_inotify_a_look_from_time_to_time_does),
        cmocka_unit_test(the_folder_itself_may_go_and_come_back),
        cmocka_unit_test(hundreds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
