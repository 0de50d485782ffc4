/* `lorikeet chat`: a terminal chat with a running server over its own HTTP API, voice by voice.
 *
 * A line is a user's turn; /voice NAME switches who answers the next one, /voices lists them, /clear forgets
 * the conversation, /quit ends. Replies are streamed as the server sends them (server-sent events). */
#include "cmd.h"

#include <getopt.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>
#include <jansson.h>

#include "base/buf.h"

#define REPLY_BYTES_MAX ((size_t)1 << 22)

struct chat {
    CURL *curl;
    struct curl_slist *headers;
    char url[300];   /* of the server, without a slash at the end */
    char voice[130]; /* empty: the server's base */
    json_t *messages;
    struct buf line;  /* an unfinished line of the event stream, or a whole plain reply */
    struct buf reply; /* the assistant's text so far */
    bool streaming, show;
};

/* One "data: {…}" line of the stream: the new piece of text goes to the terminal and to the reply. */
static void take_event(struct chat *c, const char *line)
{
    if (strncmp(line, "data: ", 6) != 0 || strcmp(line + 6, "[DONE]") == 0)
        return;
    json_t *event = json_loads(line + 6, JSON_REJECT_DUPLICATES, NULL);
    const char *text = json_string_value(json_object_get(
        json_object_get(json_array_get(json_object_get(event, "choices"), 0), "delta"), "content"));
    const char *problem = json_string_value(json_object_get(json_object_get(event, "error"), "message"));
    if (text) {
        buf_puts(&c->reply, text);
        fputs(text, stdout);
        fflush(stdout);
    }
    if (problem)
        fprintf(stderr, "\nlorikeet: the server says: %s\n", problem);
    json_decref(event);
}

static size_t on_data(char *data, size_t size, size_t n, void *user)
{
    struct chat *c = user;
    if (!buf_append(&c->line, data, size * n))
        return 0; /* more than a reply may have: curl ends the transfer */
    long status = 0;
    curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    char *newline;
    while (c->streaming && status == 200 && (newline = strchr(c->line.data, '\n'))) {
        *newline = '\0';
        if (newline > c->line.data && newline[-1] == '\r')
            newline[-1] = '\0';
        take_event(c, c->line.data);
        buf_drop_front(&c->line, (size_t)(newline - c->line.data) + 1);
    }
    return size * n;
}

/* GET (body NULL) or POST; the HTTP status, or 0 when the server can't be reached (said on standard error).
 */
static long request(struct chat *c, const char *path, const char *body)
{
    char url[400];
    snprintf(url, sizeof url, "%s%s", c->url, path);
    buf_clear(&c->line);
    curl_easy_reset(c->curl);
    curl_easy_setopt(c->curl, CURLOPT_URL, url);
    curl_easy_setopt(c->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c->curl, CURLOPT_HTTPHEADER, c->headers);
    curl_easy_setopt(c->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(c->curl, CURLOPT_WRITEDATA, c);
    if (body)
        curl_easy_setopt(c->curl, CURLOPT_POSTFIELDS, body);
    CURLcode code = curl_easy_perform(c->curl);
    long status = 0;
    if (code != CURLE_OK)
        fprintf(stderr, "lorikeet: %s: %s\n", url, curl_easy_strerror(code));
    else
        curl_easy_getinfo(c->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

static void print_voices(struct chat *c)
{
    c->streaming = false;
    if (request(c, "/v1/models", NULL) != 200)
        return;
    json_t *list = json_loadb(c->line.data, c->line.length, 0, NULL), *model;
    size_t i;
    json_array_foreach(json_object_get(list, "data"), i, model)
    {
        const char *id = json_string_value(json_object_get(model, "id"));
        bool is_base = !json_is_string(json_object_get(model, "parent"));
        printf("  %s%s\n", id ? id : "?", is_base ? "  (base)" : "");
    }
    json_decref(list);
}

/* One turn. A failed one is taken out of the conversation again. */
static void say(struct chat *c, const char *text)
{
    json_array_append_new(c->messages, json_pack("{s:s,s:s}", "role", "user", "content", text));
    json_t *body = json_pack("{s:O,s:b}", "messages", c->messages, "stream", 1);
    if (c->voice[0])
        json_object_set_new(body, "model", json_string(c->voice));
    char *sent = json_dumps(body, JSON_COMPACT);
    buf_clear(&c->reply);
    c->streaming = true;
    long status = sent ? request(c, "/v1/chat/completions", sent) : 0;
    if (status == 200) {
        printf("\n");
        json_array_append_new(c->messages,
                              json_pack("{s:s,s:s}", "role", "assistant", "content", c->reply.data));
    } else {
        json_t *reply = json_loadb(c->line.data, c->line.length, 0, NULL);
        const char *why = json_string_value(json_object_get(json_object_get(reply, "error"), "message"));
        if (status)
            fprintf(stderr, "lorikeet: the server answers %ld: %s\n", status, why ? why : c->line.data);
        json_decref(reply);
        json_array_remove(c->messages, json_array_size(c->messages) - 1);
    }
    free(sent);
    json_decref(body);
}

/* A line that begins with a slash; false ends the chat. */
static bool obey(struct chat *c, const char *line)
{
    if (strncmp(line, "/voice ", 7) == 0) {
        snprintf(c->voice, sizeof c->voice, "%s", line + 7);
        printf("  now speaking: %s\n", c->voice);
    } else if (strcmp(line, "/voice") == 0) {
        c->voice[0] = '\0';
        printf("  now speaking: the base\n");
    } else if (strcmp(line, "/voices") == 0) {
        print_voices(c);
    } else if (strcmp(line, "/clear") == 0) {
        json_array_clear(c->messages);
    } else if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        return false;
    } else {
        printf("  /voice NAME, /voice (the base), /voices, /clear, /quit\n");
    }
    return true;
}

static void converse(struct chat *c)
{
    char *line = NULL;
    size_t capacity = 0;
    ssize_t n;
    for (;;) {
        if (c->show) {
            printf("%s> ", c->voice[0] ? c->voice : "base");
            fflush(stdout);
        }
        n = getline(&line, &capacity, stdin);
        if (n < 0)
            break;
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        if (n == 0)
            continue;
        if (line[0] != '/')
            say(c, line);
        else if (!obey(c, line))
            break;
    }
    free(line);
}

static int usage(FILE *to, int code)
{
    fprintf(to, "usage: lorikeet chat [--url http://127.0.0.1:8080] [--adapter NAME]\n"
                "       in the chat: /voice NAME, /voices, /clear, /quit; LORIKEET_API_KEY is sent as a "
                "bearer token\n");
    return code;
}

static bool chat_init(struct chat *c)
{
    buf_init(&c->line, REPLY_BYTES_MAX);
    buf_init(&c->reply, REPLY_BYTES_MAX);
    c->curl = curl_easy_init();
    c->messages = json_array();
    c->headers = curl_slist_append(NULL, "Content-Type: application/json");
    const char *key = getenv("LORIKEET_API_KEY");
    char bearer[400];
    if (key && snprintf(bearer, sizeof bearer, "Authorization: Bearer %s", key) < (int)sizeof bearer)
        c->headers = curl_slist_append(c->headers, bearer);
    return c->curl && c->messages && c->headers;
}

int cmd_chat(int argc, char **argv)
{
    static const struct option options[] = {{"url", required_argument, NULL, 'u'},
                                            {"adapter", required_argument, NULL, 'a'},
                                            {"help", no_argument, NULL, 'h'},
                                            {0}};
    struct chat c = {.url = "http://127.0.0.1:8080", .show = true};
    int o;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (o == 'u')
            snprintf(c.url, sizeof c.url, "%s", optarg);
        else if (o == 'a')
            snprintf(c.voice, sizeof c.voice, "%s", optarg);
        else
            return o == 'h' ? usage(stdout, 0) : usage(stderr, 2);
    }
    if (optind != argc)
        return usage(stderr, 2);
    for (size_t n = strlen(c.url); n > 0 && c.url[n - 1] == '/';)
        c.url[--n] = '\0';
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != 0 || !chat_init(&c)) {
        fprintf(stderr, "lorikeet: no memory for the chat\n");
        return 1;
    }
    c.streaming = false;
    int code = request(&c, "/v1/models", NULL) ? 0 : 1;
    if (code == 0)
        converse(&c);
    json_decref(c.messages);
    curl_slist_free_all(c.headers);
    curl_easy_cleanup(c.curl);
    curl_global_cleanup();
    buf_fini(&c.line);
    buf_fini(&c.reply);
    return code;
}
