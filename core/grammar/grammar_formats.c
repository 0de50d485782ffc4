/* JSON schema's formats as regular expressions: RFC 3339's dates and times (with the length of each month and
 * leap years), addresses, identifiers. Each is narrower than its standard where that is loose, so that what
 * comes is accepted by all who check. */
#include <string.h>

#include "grammar_json.h"

#define YEAR "(?:[0-9]{3}[1-9]|[0-9]{2}[1-9]0|[0-9][1-9]00|[1-9]000)"
#define LEAP "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DAY28 "(?:0[1-9]|1[0-9]|2[0-8])"
#define DATE                                                                                                 \
    "(?:" YEAR "-(?:(?:0[13578]|1[02])-(?:" DAY28 "|29|3[01]|30)|(?:0[469]|11)-(?:" DAY28                    \
    "|29|30)|02-" DAY28 ")|" LEAP "-02-29)"
#define HOURS "(?:[01][0-9]|2[0-3])"
#define TIME HOURS ":[0-5][0-9]:[0-5][0-9](?:\\.[0-9]{1,6})?(?:Z|[+-]" HOURS ":[0-5][0-9])"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,30}[A-Za-z0-9])?"
#define HOST LABEL "(?:\\." LABEL "){1,3}"
#define BYTE "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define GROUP "[0-9a-fA-F]{1,4}"
#define COUNT "[0-9]{1,4}"
#define DATE_SPAN "(?:" COUNT "Y(?:" COUNT "M(?:" COUNT "D)?)?|" COUNT "M(?:" COUNT "D)?|" COUNT "D)"
#define TIME_SPAN "T(?:" COUNT "H(?:" COUNT "M(?:" COUNT "S)?)?|" COUNT "M(?:" COUNT "S)?|" COUNT "S)"
#define PART "[A-Za-z0-9]{1,30}"
#define EMAIL "^[A-Za-z0-9_+-]{1,32}(?:\\.[A-Za-z0-9_+-]{1,32}){0,3}@" HOST "$"
#define SITE "[a-z][a-z0-9+.-]{0,15}://" HOST "(?::[0-9]{1,4})?"
#define PATH "(?:/[A-Za-z0-9._~-]{0,64}){0,16}"
#define BEHIND "(?:\\?[A-Za-z0-9._~=&-]{0,128})?(?:#[A-Za-z0-9._~-]{0,64})?"
#define POINTER "(?:/(?:[^/~\"\\\\\\x00-\\x1f]|~[01])*)*"
#define HEX(n) "[0-9a-fA-F]{" n "}"

static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"duration", "^P(?:" COUNT "W|" DATE_SPAN "(?:" TIME_SPAN ")?|" TIME_SPAN ")$"},
    {"uuid", "^" HEX("8") "-" HEX("4") "-" HEX("4") "-" HEX("4") "-" HEX("12") "$"},
    {"uuid4", "^" HEX("8") "-" HEX("4") "-4" HEX("3") "-[89abAB]" HEX("3") "-" HEX("12") "$"},
    {"email", EMAIL},
    {"hostname", "^" LABEL "(?:\\." LABEL "){0,3}$"},
    {"ipv4", "^" BYTE "(?:\\." BYTE "){3}$"},
    {"ipv6", "^(?:(?:" GROUP ":){7}" GROUP "|(?:" GROUP ":){6}:" GROUP "|(?:" GROUP ":){5}(?::" GROUP
             "){1,2}|(?:" GROUP ":){4}(?::" GROUP "){1,3}|(?:" GROUP ":){3}(?::" GROUP "){1,4}|(?:" GROUP
             ":){2}(?::" GROUP "){1,5}|" GROUP ":(?::" GROUP "){1,6}|:(?::" GROUP "){1,7}|::)$"},
    {"idn-email", EMAIL},
    {"idn-hostname", "^" PART "(?:-" PART ")?(?:\\." PART "){0,3}$"},
    {"uri", "^" SITE PATH BEHIND "$"},
    {"iri", "^" SITE PATH BEHIND "$"},
    {"uri-reference", "^(?:" SITE ")?" PATH BEHIND "$"},
    {"iri-reference", "^(?:" SITE ")?" PATH BEHIND "$"},
    {"uri-template", "^(?:" SITE ")?(?:/(?:[A-Za-z0-9._~-]{0,64}|\\{[a-z]{1,32}\\})){0,16}$"},
    {"json-pointer", "^" POINTER "$"},
    {"relative-json-pointer", "^(?:0|[1-9]{1,4})(?:#|" POINTER ")$"},
};

const char *schema_format_pattern(const char *format)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(format, formats[i].name) == 0)
            return formats[i].pattern;
    return NULL;
}
