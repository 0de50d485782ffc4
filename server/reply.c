/* Everything is content so far: no format of calls or of reasoning is looked for. */
#include "reply.h"

#include "base/mem.h"

void reply_init(struct reply *p)
{
    *p = (struct reply){0};
    buf_init(&p->content, 0);
    buf_init(&p->reasoning, 0);
}

void reply_fini(struct reply *p)
{
    buf_fini(&p->content);
    buf_fini(&p->reasoning);
    for (uint32_t i = 0; i < p->n_calls; i++) {
        buf_fini(&p->calls[i].name);
        buf_fini(&p->calls[i].arguments);
    }
    mem_free(p->calls);
}

void reply_push(struct reply *p, const char *text, size_t length)
{
    buf_append(&p->content, text, length);
}

void reply_end(struct reply *p)
{
    (void)p;
}

bool reply_has_news(const struct reply *p)
{
    bool news = p->content.length || p->reasoning.length;
    for (uint32_t i = 0; i < p->n_calls; i++)
        news |= !p->calls[i].shown || p->calls[i].arguments.length;
    return news;
}

bool reply_failed(const struct reply *p)
{
    bool failed = p->content.failed || p->reasoning.failed;
    for (uint32_t i = 0; i < p->n_calls; i++)
        failed |= p->calls[i].name.failed || p->calls[i].arguments.failed;
    return failed;
}
