/* Names that Jinja makes local before they have a value. A block of its own variables ("frame": the template,
 * a loop's body, a macro …) that sets a name before it reads it has that name from its beginning, without a
 * value, and the blocks inside see it so: not the request's variable of the same name. In
 *
 *   {% for m in messages %}{{ date }}{% endfor %}{% set date = 'x' %}
 *
 * date is undefined in the loop. A name that is set in some branches of an if only is read from outside
 * first. The rule is that of jinja2.idtracking; each frame's body keeps its list of such names. */
#include "jinja.h"

enum seen { UNSEEN, BLANK, KNOWN };

struct frame {
    const struct frame *outer;
    struct chat_template *t;
    unsigned char *seen; /* [names.n], enum seen */
    unsigned n_ifs;      /* around what is being seen */
    bool failed;         /* memory */
};

static bool frame_init(struct frame *f, const struct frame *outer, struct chat_template *t)
{
    *f = (struct frame){.outer = outer, .t = t, .seen = mem_zalloc(t->names.n)};
    return f->seen != NULL;
}

static bool outer_knows(const struct frame *f, uint32_t name)
{
    while ((f = f->outer))
        if (f->seen[name] != UNSEEN)
            return true;
    return false;
}

static void see_load(struct frame *f, uint32_t name)
{
    if (f->seen[name] == UNSEEN && !outer_knows(f, name))
        f->seen[name] = KNOWN;
}

static void see_store(struct frame *f, uint32_t name)
{
    if (f->seen[name] == UNSEEN)
        f->seen[name] = f->n_ifs || outer_knows(f, name) ? KNOWN : BLANK;
}

static void declare(struct frame *f, uint32_t name)
{
    f->seen[name] = KNOWN;
}

static void see(struct frame *f, const struct node *n);

static void see_target(struct frame *f, const struct node *target, void (*found)(struct frame *, uint32_t))
{
    if (target->kind == N_NSREF)
        see_load(f, target->name);
    else if (target->kind == N_NAME)
        found(f, target->name);
    for (size_t i = 0; i < target->n_list; i++)
        see_target(f, target->list[i], found);
}

/* ---- one frame: its own loads and stores, in order, without those of the frames inside */

static void see_children(struct frame *f, const struct node *n)
{
    see(f, n->a);
    see(f, n->b);
    see(f, n->c);
    for (size_t i = 0; i < n->n_list; i++)
        see(f, n->list[i]);
    for (size_t i = 0; n->args && i < n->args->n_pos; i++)
        see(f, n->args->pos[i]);
    for (size_t i = 0; n->args && i < n->args->n_kw; i++)
        see(f, n->args->kw[i].value);
    if (n->args) {
        see(f, n->args->star);
        see(f, n->args->star_star);
    }
}

static void see(struct frame *f, const struct node *n)
{
    if (!n || f->failed)
        return;
    switch (n->kind) {
    case N_NAME:
    case N_NSREF:
        see_load(f, n->name);
        break;
    case N_IF:
        see(f, n->list[0]);
        f->n_ifs++;
        see(f, n->c);
        for (size_t i = 1; i < n->n_list; i++)
            see(f, n->list[i]);
        f->n_ifs--;
        break;
    case N_MACRO:
        see_store(f, n->name);
        break;
    case N_SET:
        see(f, n->b);
        see_target(f, n->a, see_store);
        break;
    case N_SET_BLOCK:
        see_target(f, n->a, see_store);
        break;
    case N_FOR:
    case N_FILTER_BLOCK:
        see(f, n->b);
        break;
    case N_CALL_BLOCK:
        see(f, n->a);
        break;
    case N_WITH:
        for (size_t i = 1; i < n->n_list; i += 2)
            see(f, n->list[i]);
        break;
    case N_GENERATION:
    case N_SCOPE:
        break;
    default:
        see_children(f, n);
    }
}

/* ---- the frames inside */

static bool mark_inside(const struct frame *f, const struct node *n);

/* The list of names for body, whose frame is complete, and then for the frames in it. */
static bool mark_body(struct frame *f, struct node *body)
{
    size_t n = 0;
    see(f, body);
    for (size_t name = 0; !f->failed && name < f->t->names.n; name++)
        n += f->seen[name] == BLANK;
    if (n && !f->failed) {
        body->blank = arena_alloc(f->t->arena, n * sizeof *body->blank);
        f->failed = !body->blank;
    }
    for (size_t name = 0; body->blank && name < f->t->names.n; name++)
        if (f->seen[name] == BLANK)
            body->blank[body->n_blank++] = (uint32_t)name;
    bool ok = !f->failed && mark_inside(f, body);
    mem_free(f->seen);
    return ok;
}

static void declare_params(struct frame *f, const struct param_list *params)
{
    const struct known_names *k = &f->t->known;
    declare(f, k->caller);
    declare(f, k->varargs);
    declare(f, k->kwargs);
    for (size_t i = 0; i < params->n; i++)
        declare(f, params->items[i].name);
    for (size_t i = 0; i < params->n; i++)
        see(f, params->items[i].initial);
}

static bool mark_for(const struct frame *outer, const struct node *n)
{
    struct frame f;
    if (n->list[1] && (!frame_init(&f, outer, outer->t) || !mark_body(&f, n->list[1])))
        return false;
    if (!frame_init(&f, outer, outer->t))
        return false;
    see_target(&f, n->a, declare);
    declare(&f, f.t->known.loop);
    return mark_body(&f, n->c);
}

static bool mark_frame(const struct frame *outer, const struct node *n)
{
    struct frame f;
    if (!frame_init(&f, outer, outer->t))
        return false;
    if (n->params)
        declare_params(&f, n->params);
    for (size_t i = 0; n->kind == N_WITH && i < n->n_list; i += 2)
        see_target(&f, n->list[i], declare);
    return mark_body(&f, n->c);
}

static bool mark_inside(const struct frame *f, const struct node *n)
{
    switch (n->kind) {
    case N_BODY:
        for (size_t i = 0; i < n->n_list; i++)
            if (!mark_inside(f, n->list[i]))
                return false;
        return true;
    case N_IF:
        for (size_t i = 1; i < n->n_list; i += 2)
            if (!mark_inside(f, n->list[i]))
                return false;
        return !n->c || mark_inside(f, n->c);
    case N_FOR:
        return mark_for(f, n);
    case N_MACRO:
    case N_CALL_BLOCK:
    case N_SET_BLOCK:
    case N_FILTER_BLOCK:
    case N_WITH:
    case N_GENERATION:
    case N_SCOPE:
        return mark_frame(f, n);
    default:
        return true;
    }
}

enum status jinja_scope(struct chat_template *t, struct error *err)
{
    struct frame f;
    if (frame_init(&f, NULL, t) && mark_body(&f, t->root))
        return STATUS_OK;
    return fail(err, STATUS_NO_MEMORY, "%s: out of memory", t->shown);
}
