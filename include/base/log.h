/* The log: one line an event, as text for people or as JSON for machines, to a file descriptor.
 * A `struct log` is passed to who needs it; core rooms don't log, they return errors.
 * Thread: any; a line is written with one write(2). Lines longer than 4 KiB are cut. */
#ifndef LK_BASE_LOG_H
#define LK_BASE_LOG_H

#include <stdbool.h>
#include <stdint.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log {
    int fd;
    bool json;
    enum log_level level; /* lines below are dropped */
};

/* A key with a value; text values are escaped by the log. */
struct log_field {
    const char *key;
    const char *text; /* NULL: `number` is the value */
    double number;
};
#define LOG_TEXT(k, v) ((struct log_field){.key = (k), .text = (v) ? (v) : ""})
#define LOG_NUMBER(k, v) ((struct log_field){.key = (k), .number = (double)(v)})

/* text: 2026-01-02T03:04:05.678Z INFO message key=value …   json: {"time":…,"level":…,"message":…,key:…} */
void log_event(const struct log *log, enum log_level level, const char *message,
               const struct log_field *fields, int n_fields);
#define LOG_EVENT(log, level, message, ...)                                                                  \
    log_event((log), (level), (message), (const struct log_field[]){__VA_ARGS__},                            \
              (int)(sizeof((const struct log_field[]){__VA_ARGS__}) / sizeof(struct log_field)))
void log_line(const struct log *log, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
