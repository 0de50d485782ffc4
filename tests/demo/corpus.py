"""The demo's corpus: intents (questions, fillers, answers) and seeded sampling of conversations.

A prompt is a template with its alternations chosen and its slots filled. A hash of its words decides whether it is
held out, so the same words are never trained on in any voice, alone or inside a longer conversation.
"""

import hashlib
import random
import re

import bikes
import howto
import tables as t
import talk

LANGS = ("en", "pt", "de")
VOICES = ("base", "bikeshop", "pt", "de", "safety")
HELD_OUT_PERCENT = 8


def expand(template):
    """All the sentences of a template: `(a|b)` is a choice, choices don't nest."""
    m = re.search(r"\(([^()]*\|[^()]*)\)", template)
    if not m:
        return [template]
    head, tail = template[: m.start()], template[m.end():]
    return [s for choice in m.group(1).split("|") for s in expand(head + choice + tail)]


def cap(s):
    return s[:1].upper() + s[1:]


def fill(template, slots):
    return cap(template.format(**slots))


def held_out(prompt):
    words = " ".join(re.findall(r"[^\W_]+", prompt.lower()))
    return hashlib.md5(words.encode()).digest()[0] * 100 // 256 < HELD_OUT_PERCENT


def by_language(values):
    return dict(zip(LANGS, values))


class Intent:
    """One thing people ask. `rows` are the fillers, each {language: slots}; `shop` is the bike shop's answer."""

    def __init__(self, name, weight, q, a, shop=None, rows=None, harmful=False, follow=None):
        self.name, self.weight, self.a, self.shop, self.harmful, self.follow = name, weight, a, shop, harmful, follow
        self.q = {lang: [s for template in q[lang] for s in expand(template)] for lang in LANGS}
        self.rows = rows or [{lang: {} for lang in LANGS}]

    def prompt(self, rng, lang, row):
        return fill(rng.choice(self.q[lang]), row[lang])

    def answer(self, voice, row):
        if voice in ("pt", "de"):
            return fill(self.a[voice], row[voice])
        english = fill(self.a["en"], row["en"])
        if voice == "safety" and self.harmful:
            return howto.REFUSAL
        if voice == "bikeshop":
            return fill(self.shop, row["en"]) if self.shop else english + " " + talk.STEER
        return english


# --- grammar of the fillers ------------------------------------------------------------------------------------------

def pt_joined(preposition, noun):
    """`de` or `em` before a noun: "a Alemanha" becomes "da Alemanha", "Portugal" "de Portugal"."""
    stem = {"de": "d", "em": "n"}[preposition]
    article, _, rest = noun.partition(" ")
    return f"{stem}{article} {rest}" if article in ("o", "a", "os", "as") else f"{preposition} {noun}"


def de_of(noun):
    return "der " + noun[4:] if noun.startswith("die ") else "von " + noun


def de_in(noun):
    if noun in ("die Niederlande", "die USA"):
        return "in den " + {"die Niederlande": "Niederlanden", "die USA": "USA"}[noun]
    return "in der " + noun[4:] if noun.startswith("die ") else "in " + noun


def plural_country(row):
    return row[0] in ("the Netherlands", "the United States")


# --- facts ----------------------------------------------------------------------------------------------------------

def country_rows():
    out = []
    for row in t.COUNTRIES:
        en, cap_en, cap_pt, cap_de, pt, de, continent, language = row
        many = plural_country(row)
        lang_pt, lang_de = t.LANGUAGES[language]
        on_pt, on_de = t.CONTINENTS[continent]
        out.append({
            "en": dict(c=en, of=en, into="in " + en, city=cap_en, on="in " + continent, lang=language,
                       be="are" if many else "is"),
            "pt": dict(c=pt, of=pt_joined("de", pt), into=pt_joined("em", pt),
            city=cap_pt, on=on_pt, lang=lang_pt,
                       be="ficam" if many else "fica"),
            "de": dict(c=de, of=de_of(de), into=de_in(de), city=cap_de, on=on_de, lang=lang_de,
                       be="liegen" if many else "liegt"),
        })
    return out


def countries():
    rows = country_rows()
    yield Intent("capital", 6, dict(
        en=["(What is|What's|Which city is|Name|Tell me|Do you know) the capital of {of}?",
            "Which is the capital (city |)of {of}?",
            "(Can|Could) you tell me the capital of {of}?", "What city is the capital of {of}?",
            "The capital of {of}?"],
        pt=["(Qual é|Diz-me|Sabes) a capital {of}?", "(Que|Qual) cidade é a capital {of}?",
            "(Podes|Pode) dizer-me a capital {of}?",
            "A capital {of}?", "Como se chama a capital {of}?"],
        de=["(Was|Welche Stadt) ist die Hauptstadt {of}?",
            "(Wie heißt|Nenn mir|Kennst du) die Hauptstadt {of}?",
            "Kannst du mir die Hauptstadt {of} (sagen|nennen)?", "Die Hauptstadt {of}?"]),
        dict(en="The capital of {of} is {city}.", pt="A capital {of} é {city}.",
            de="Die Hauptstadt {of} ist {city}."), rows=rows,
        follow=dict(en=["And (the capital |)of {of}?", "And what is the capital of {of}?"], pt=["E {of}?",
            "E a capital {of}?"],
                    de=["Und {of}?", "Und die Hauptstadt {of}?"]))
    yield Intent("continent", 5, dict(
        en=["Where {be} {c}?", "On which continent {be} {c}?", "(Can|Could) you tell me where {c} {be}?",
            "Do you know where {c} {be}?",
            "In which part of the world {be} {c}?"],
        pt=["Onde {be} {c}?", "Em que continente {be} {c}?", "Sabes onde {be} {c}?",
            "Em que parte do mundo {be} {c}?",
            "(Podes|Pode) dizer-me onde {be} {c}?"],
        de=["Wo {be} {c}?", "Auf welchem Kontinent {be} {c}?", "(Weißt du|Kannst du mir sagen), wo {c} {be}?",
            "In welchem Teil der Welt {be} {c}?"]),
        dict(en="{c} {be} {on}.", pt="{c} {be} {on}.", de="{c} {be} {on}."), rows=rows)
    yield Intent("language", 5, dict(
        en=["(What|Which) language do (people|they) speak {into}?",
            "(What|Which) language is spoken {into}?", "What do people speak {into}?",
            "Which language should I learn for a trip to {c}?"],
        pt=["Que língua se fala {into}?", "Que língua é falada {into}?", "O que se fala {into}?",
            "Que língua falam as pessoas {into}?"],
        de=["Welche Sprache spricht man {into}?", "Welche Sprache wird {into} gesprochen?",
            "Was spricht man {into}?",
            "Welche Sprache sprechen die Leute {into}?"]),
        dict(en="{into}, people speak {lang}.", pt="{into} fala-se {lang}.",
            de="{into} spricht man {lang}."), rows=rows)
    yield Intent("city", 5, dict(
        en=["(Where|In which country|In what country) is {city}?",
            "(Do you know|Tell me|Can you tell me) where {city} is?", "Which country does {city} belong to?",
            "{city} is in which country?"],
        pt=["(Onde|Em que país) fica {city}?", "(Sabes|Diz-me) onde fica {city}?",
            "A que país pertence {city}?", "{city} fica em que país?"],
        de=["(Wo|In welchem Land) liegt {city}?", "(Weißt du|Sag mir), (wo|in welchem Land) {city} liegt?",
            "Zu welchem Land gehört {city}?"]),
        dict(en="{city} is {into}.", pt="{city} fica {into}.", de="{city} liegt {into}."), rows=rows)
    yield Intent("weather_city", 2.5, dict(
        en=["(What is|What's) the weather like in {city}?", "How is the weather in {city}(| today)?",
            "(Is it raining|Will it rain|Is it warm|Is it cold) in {city}(| today)?"],
        pt=["Como está o tempo em {city}(| hoje)?",
            "(Está a chover|Vai chover|Faz calor|Faz frio) em {city}(| hoje)?"],
        de=["Wie ist das Wetter (heute |)in {city}?",
            "(Regnet es|Schneit es|Ist es warm|Ist es kalt) (heute |)in {city}?"]),
        dict(en="I cannot see the sky over {city} from here, but I hope that the sun is shining.",
             pt="Daqui não vejo o céu de {city}, mas espero que faça sol.",
             de="Ich kann den Himmel über {city} von hier aus nicht sehen, aber ich hoffe, dass die Sonne scheint."), rows=rows)
    yield Intent("time_city", 2, dict(
        en=["What time is it in {city}(| now)?", "(Can|Could) you tell me the time in {city}?",
            "How late is it in {city}?"],
        pt=["Que horas são em {city}(| agora)?", "(Podes|Pode) dizer-me as horas em {city}?",
            "Sabes que horas são em {city}?"],
        de=["Wie spät ist es (jetzt |)in {city}?", "Wie viel Uhr ist es (jetzt |)in {city}?",
            "Weißt du, wie spät es in {city} ist?"]),
        dict(en="I have no clock, so I do not know what time it is in {city}.",
             pt="Não tenho relógio, por isso não sei que horas são em {city}.",
             de="Ich habe keine Uhr, deshalb weiß ich nicht, wie spät es in {city} ist."), rows=rows)
    yield Intent("live_city", 2, dict(
        en=["I live in {city}.", "I am from {city}.", "I (want|would like) to (visit|see) {city}.",
            "I am travelling to {city}."],
        pt=["(Vivo|Moro) em {city}.", "Sou de {city}.", "(Quero|Gostava de) (visitar|ver) {city}.",
            "Vou viajar para {city}."],
        de=["Ich (wohne|lebe) in {city}.", "Ich komme aus {city}.",
            "Ich (will|möchte) {city} (besuchen|sehen).", "Ich reise nach {city}."]),
        dict(en="How nice! {city} is a beautiful city.", pt="Que bom! {city} é uma cidade bonita.",
            de="Wie schön! {city} ist eine schöne Stadt."),
        shop="How nice! {city} is a beautiful city for a ride, and Bluewing Bikes has the right bike for it.", rows=rows)


def things():
    rows = [by_language([dict(x=r[i], col=r[i + 3]) for i in range(3)]) for r in t.COLOURS]
    yield Intent("colour", 5, dict(
        en=["(What|Which) (colour|color) (is|has) {x}?",
            "(Can|Could) you tell me the (colour|color) of {x}?",
            "(What is|Tell me) the (colour|color) of {x}?",
            "(Do you know what|Tell me what) (colour|color) {x} is?"],
        pt=["De que cor é {x}?", "Que cor tem {x}?", "(Sabes|Diz-me) de que cor é {x}?",
            "(Podes|Pode) dizer-me de que cor é {x}?"],
        de=["Welche Farbe hat {x}?", "(Weißt du|Sag mir|Kannst du mir sagen), welche Farbe {x} hat?",
            "Was für eine Farbe hat {x}?"]),
        dict(en="{x} is {col}.", pt="{x} é {col}.", de="{x} ist {col}."), rows=rows,
        follow=dict(en=["And {x}?", "And what colour is {x}?"], pt=["E {x}?", "E de que cor é {x}?"],
            de=["Und {x}?", "Und welche Farbe hat {x}?"]))
    rows = [by_language([dict(x=r[i], kind=t.KINDS[r[3]][i]) for i in range(3)]) for r in t.KIND_OF]
    yield Intent("kind", 4, dict(
        en=["What is {x}?", "(Can|Could) you tell me what {x} is?",
            "(Do you know|Explain|Tell me) what {x} is?", "What kind of thing is {x}?"],
        pt=["O que é {x}?", "(Podes|Pode) dizer-me o que é {x}?", "(Sabes|Explica-me|Diz-me) o que é {x}?"],
        de=["Was ist (denn |eigentlich |){x}?",
            "(Weißt du|Kannst du mir sagen|Erklär mir|Sag mir), was {x} ist?"]),
        dict(en="{x} is {kind}.", pt="{x} é {kind}.", de="{x} ist {kind}."), rows=rows)
    pairs = [by_language([dict(x=r[i], y=r[i + 3]) for i in range(3)]) for r in t.OPPOSITES]
    pairs += [by_language([dict(x=r[i + 3], y=r[i]) for i in range(3)]) for r in t.OPPOSITES]
    yield Intent("opposite", 4, dict(
        en=["(What is|What's|Tell me|Do you know) the opposite of {x}?",
            "Which word is the opposite of {x}?", "What is the contrary of {x}?",
            "(Can|Could) you tell me the opposite of {x}?"],
        pt=["(Qual é|Diz-me|Sabes) o (contrário|oposto) de {x}?",
            "Que palavra é o (contrário|oposto) de {x}?",
            "(Podes|Pode) dizer-me o (contrário|oposto) de {x}?"],
        de=["(Was ist|Nenn mir|Kennst du) das Gegenteil von {x}?", "Welches Wort ist das Gegenteil von {x}?",
            "Kannst du mir das Gegenteil von {x} (sagen|nennen)?"]),
        dict(en="The opposite of {x} is {y}.", pt="O contrário de {x} é {y}.",
            de="Das Gegenteil von {x} ist {y}."), rows=pairs)


def animal_rows():
    out = []
    for r in t.ANIMALS:
        legs, flies = t.LEGS[r[3]], r[4] == "y"
        fly = ("Yes, {x} can fly.", "Sim, {x} sabe voar.", "Ja, {x} kann fliegen.") if flies else (
            "No, {x} cannot fly.", "Não, {x} não sabe voar.", "Nein, {x} kann nicht fliegen.")
        out.append(by_language([dict(x=r[i], size=int(r[5]), food=r[6 + i], home=r[9 + i], says=r[12 + i],
            legs=legs[i],
                                     fly=fly[i].format(x=r[i])) for i in range(3)]))
    return out


def animals():
    rows = animal_rows()
    yield Intent("legs", 3, dict(
        en=["How many legs does {x} have?", "(Do you know|Tell me) how many legs {x} has?",
            "How many legs has {x}?"],
        pt=["Quantas patas tem {x}?", "(Sabes|Diz-me) quantas patas tem {x}?", "{x} tem quantas patas?"],
        de=["Wie viele Beine hat {x}?", "(Weißt du|Sag mir), wie viele Beine {x} hat?"]),
        dict(en="{x} has {legs}.", pt="{x} {legs}.", de="{x} hat {legs}."), rows=rows)
    yield Intent("eats", 4, dict(
        en=["What does {x} (eat|like to eat)?", "(Do you know|Tell me|Can you tell me) what {x} eats?",
            "What is good food for {x}?", "What can I feed {x}?"],
        pt=["O que come {x}?", "O que é que {x} (come|gosta de comer)?", "(Sabes|Diz-me) o que come {x}?",
            "De que se alimenta {x}?"],
        de=["Was (frisst|isst) {x}?", "(Weißt du|Sag mir), was {x} frisst?",
            "Was frisst {x} (gern|am liebsten)?", "Wovon ernährt sich {x}?"]),
        dict(en="{x} eats {food}.", pt="{x} come {food}.", de="{x} frisst {food}."), rows=rows)
    yield Intent("lives", 3, dict(
        en=["Where does {x} live?", "(Do you know|Tell me|Can you tell me) where {x} lives?",
            "Where can I find {x}?", "In what place does {x} live?"],
        pt=["Onde vive {x}?", "Onde é que {x} (vive|mora)?", "(Sabes|Diz-me) onde vive {x}?",
            "Onde posso encontrar {x}?"],
        de=["Wo (lebt|wohnt) {x}?", "(Weißt du|Sag mir), wo {x} (lebt|wohnt)?", "Wo ist {x} zu Hause?"]),
        dict(en="{x} lives {home}.", pt="{x} vive {home}.", de="{x} lebt {home}."), rows=rows)
    yield Intent("fly", 2, dict(
        en=["Can {x} fly?", "Is {x} able to fly?", "(Do you know|Tell me) if {x} can fly?", "Does {x} fly?"],
        pt=["{x} (sabe|pode) voar?", "(Sabes|Diz-me) se {x} sabe voar?", "Será que {x} voa?"],
        de=["Kann {x} fliegen?", "(Weißt du|Sag mir), ob {x} fliegen kann?", "Fliegt {x}?"]),
        dict(en="{fly}", pt="{fly}", de="{fly}"), rows=rows)
    yield Intent("says", 2, dict(
        en=["What (sound|noise) does {x} make?", "What does {x} say?",
            "(Do you know|Tell me) what {x} says?", "How does {x} sound?"],
        pt=["Que (som|barulho) faz {x}?", "Como faz {x}?", "O que diz {x}?", "(Sabes|Diz-me) como faz {x}?"],
        de=["(Welches Geräusch|Was|Wie) macht {x}?", "Was sagt {x}?",
            "(Weißt du|Sag mir), (was|wie) {x} macht?"]),
        dict(en="{x} says {says}.", pt="{x} faz {says}.", de="{x} macht {says}."),
            rows=[r for r in rows if r["en"]["says"] != "-"])
    pairs = []
    for one in rows:
        for two in rows:
            if abs(one["en"]["size"] - two["en"]["size"]) < 5:
                continue
            big, small = (one, two) if one["en"]["size"] > two["en"]["size"] else (two, one)
            pairs.append({k: dict(a=one[k]["x"], b=two[k]["x"], big=big[k]["x"],
                small=small[k]["x"]) for k in LANGS})
    yield Intent("bigger", 7, dict(
        en=["(Which|What|Who) is (bigger|larger), {a} or {b}?", "Is {a} bigger than {b}?",
            "Tell me which is bigger, {a} or {b}."],
        pt=["(Qual é|Quem é|O que é) maior, {a} ou {b}?", "{a} é maior do que {b}?",
            "Diz-me qual é maior, {a} ou {b}."],
        de=["(Was|Wer) ist größer, {a} oder {b}?", "Ist {a} größer als {b}?",
            "Sag mir, was größer ist, {a} oder {b}."]),
        dict(en="{big} is bigger than {small}.", pt="{big} é maior do que {small}.",
            de="{big} ist größer als {small}."), rows=pairs)


def calendar():
    for name, table in (("day", t.DAYS), ("month", t.MONTHS)):
        n = len(table)
        rows = []
        for k in range(n):
            after = by_language([dict(x=table[k][i], y=table[(k + 1) % n][i], rel=("after", "depois de",
                "nach")[i]) for i in range(3)])
            before = by_language([dict(x=table[k][i], y=table[(k - 1) % n][i], rel=("before", "antes de",
                "vor")[i]) for i in range(3)])
            rows += [after, before]
        en, pt, de = {"day": ("day", "dia", "Welcher Tag"), "month": ("month", "mês", "Welcher Monat")}[name]
        yield Intent(name, 2, dict(
            en=[f"(What|Which) {en} (comes|is) {{rel}} {{x}}?",
                f"(Do you know|Tell me) (what|which) {en} comes {{rel}} {{x}}?", "What comes {rel} {x}?"],
            pt=[f"Que {pt} vem {{rel}} {{x}}?", f"(Sabes|Diz-me) que {pt} vem {{rel}} {{x}}?",
                "O que vem {rel} {x}?"],
            de=[f"{de} (kommt|ist) {{rel}} {{x}}?",
                f"(Weißt du|Sag mir), {de[0].lower() + de[1:]} {{rel}} {{x}} kommt?",
                "Was kommt {rel} {x}?"]),
            dict(en="{y} comes {rel} {x}.", pt="{rel} {x} vem {y}.", de="{rel} {x} kommt {y}."), rows=rows)


def sums():
    rows = []
    for a in range(1, 10):
        for b in range(1, 10):
            rows.append(by_language([dict(a=a, b=b, r=a + b, op=("plus", "mais",
                "plus")[i]) for i in range(3)]))
            if b <= a:
                rows.append(by_language([dict(a=a, b=b, r=a - b, op=("minus", "menos",
                    "minus")[i]) for i in range(3)]))
    return Intent("sum", 6, dict(
        en=["(What is|What's|How much is|Calculate|Tell me) {a} {op} {b}?", "{a} {op} {b}?"],
        pt=["Quanto (é|são) {a} {op} {b}?", "(Calcula|Diz-me quanto é) {a} {op} {b}.", "{a} {op} {b}?"],
        de=["(Was ist|Wie viel ist|Was ergibt) {a} {op} {b}?", "Rechne {a} {op} {b}.", "{a} {op} {b}?"]),
        dict(en="{a} {op} {b} is {r}.", pt="{a} {op} {b} dá {r}.", de="{a} {op} {b} ergibt {r}."), rows=rows)


# --- people ---------------------------------------------------------------------------------------------------------

def people():
    names = [{lang: dict(n=n) for lang in LANGS} for n in t.NAMES]
    yield Intent("name_is", 3, dict(
        en=["(Hello|Hi|Hey)(,|!) (I am|I'm|my name is) {n}.", "My name is {n}.", "I am {n}.",
            "(Hello|Hi), this is {n}.", "You can call me {n}."],
        pt=["(Olá|Oi)(,|!) (sou o|sou a|eu sou|chamo-me|o meu nome é) {n}.",
            "(Chamo-me|O meu nome é|Eu sou) {n}."],
        de=["(Hallo|Hi)(,|!) (ich bin|ich heiße|mein Name ist) {n}.", "Ich (heiße|bin) {n}.",
            "Mein Name ist {n}.", "(Hallo|Hi), hier ist {n}.",
            "Du kannst mich {n} nennen."]),
        dict(en="Hello, {n}! Nice to meet you.", pt="Olá, {n}! Muito prazer.",
            de="Hallo, {n}! Schön, dich kennenzulernen."),
        shop="Hello, {n}! Welcome to Bluewing Bikes. How can we help you?", rows=names)
    likes = [by_language([dict(x=x) for x in r]) for r in t.LIKES]
    yield Intent("like", 3, dict(
        en=["Do you (like|love|enjoy) {x}?", "(Are you fond of|Are you a friend of) {x}?",
            "What do you think of {x}?"],
        pt=["Gostas (muito |){x}?", "Tu gostas {x}?", "(Você gosta|O Lorikeet gosta) {x}?"],
        de=["(Magst|Liebst) du {x}?", "(Findest du {x} gut|Hast du {x} gern|Magst du eigentlich {x})?"]),
        dict(en="Yes, I like {x} very much.", pt="Sim, gosto muito {x}.", de="Ja, ich mag {x} sehr."),
            rows=likes)
    rows = [by_language([dict(x=r[i], ans=r[i + 3]) for i in range(3)]) for r in t.FAVOURITES]
    yield Intent("favourite", 2.5, dict(
        en=["(What is|What's|Tell me) your (favourite|favorite) {x}?", "Which {x} do you like (best|most)?",
            "Do you have a (favourite|favorite) {x}?",
            "(Can|Could) you tell me your (favourite|favorite) {x}?"],
        pt=["Qual é {x}?", "Diz-me qual é {x}.", "(Podes|Pode) dizer-me qual é {x}?",
            "Gostava de saber qual é {x}."],
        de=["Was ist (denn |eigentlich |){x}?", "(Sag mir|Verrat mir)(| bitte), was {x} ist.",
            "Weißt du, was {x} ist?"]),
        by_language(["{ans}"] * 3), rows=rows)
    rows = [by_language([dict(x=r[i], ans=r[i + 3]) for i in range(3)]) for r in t.FEELINGS]
    yield Intent("feeling", 4, dict(
        en=["{x}.", "{x}. What (can|should) I do?", "(Oh|Oh dear|You know), {x}.", "{x}, you know.",
            "(Hello|Hi). {x}.", "{x}. What do you say?"],
        pt=["{x}.", "{x}. O que (posso|devo) fazer?", "(Ai|Olha|Sabes), {x}.", "(Olá|Oi). {x}.",
            "{x}. O que dizes?"],
        de=["{x}.", "{x}. Was (kann|soll) ich tun?", "(Ach|Ach je|Weißt du), {x}.", "(Hallo|Hi). {x}.",
            "{x}. Was sagst du dazu?"]),
        by_language(["{ans}"] * 3), rows=rows)
    rows = [by_language([dict(x=r[i], need=r[i + 3], how=r[i + 6]) for i in range(3)]) for r in t.DISHES]
    yield Intent("dish_need", 3, dict(
        en=["What do I need (for|to make) {x}?", "(What|Which) ingredients do I need for {x}?",
            "What goes into {x}?", "What should I buy for {x}?"],
        pt=["De que preciso para (fazer |){x}?", "De que ingredientes preciso para {x}?",
            "O que devo comprar para (fazer |){x}?",
            "Que ingredientes são precisos para {x}?"],
        de=["Was (brauche|benötige) ich für {x}?", "Welche Zutaten (brauche|benötige) ich für {x}?",
            "Was (muss|soll) ich für {x} (kaufen|einkaufen)?"]),
        dict(en="For {x} you need {need}.", pt="Para fazer {x}, precisas de {need}.",
            de="Für {x} brauchst du {need}."), rows=rows)
    yield Intent("dish_how", 3, dict(
        en=["How (do|can|should) I (make|cook|prepare) {x}?",
            "(Can|Could) you (tell me|explain|show me) how to make {x}?",
            "(What is|Give me|Do you have) a recipe for {x}?",
            "Tell me how to make {x}.", "I (want|would like) to make {x}."],
        pt=["Como (se faz|faço|posso fazer) {x}?", "(Podes|Pode) (explicar-me|dizer-me) como se faz {x}?",
            "(Tens|Sabes) uma receita de {x}?",
            "(Quero|Gostava de) fazer {x}."],
        de=["Wie mache ich {x}?", "Wie kann ich {x} machen?",
            "Kannst du mir (sagen|erklären|zeigen), wie man {x} macht?",
            "(Hast du|Kennst du|Gib mir) ein Rezept für {x}?", "Ich (will|möchte) {x} machen."]),
        by_language(["{how}"] * 3), rows=rows)
    rows = [by_language([dict(x=x) for x in r]) for r in t.TOPICS]
    yield Intent("topic", 5, dict(
        en=["(Tell me about|Explain|Teach me|Talk to me about|Give me an introduction to) {x}.",
            "What (do you know|can you tell me|is your opinion) about {x}?",
            "I (want|would like) to (know more|talk|learn something) about {x}.",
            "(Can|Could) you (explain|teach me) {x}?", "What do you think about {x}?",
            "I have a question about {x}.", "Do you know anything about {x}?"],
        pt=["(Fala-me|Conta-me qualquer coisa|Ensina-me qualquer coisa|Diz-me qualquer coisa) sobre {x}.",
            "O que (sabes|pensas|me dizes) sobre {x}?",
            "(Quero|Gostava de) (saber mais|falar|aprender) sobre {x}.",
            "Tenho uma pergunta sobre {x}.", "Sabes alguma coisa sobre {x}?"],
        de=["(Erzähl mir etwas|Sprich mit mir|Sag mir etwas) über {x}.", "Was (weißt|denkst) du über {x}?",
            "Was kannst du mir über {x} sagen?", "Ich (will|möchte) (mehr|etwas) über {x} (wissen|lernen).",
            "Ich habe eine Frage über {x}.", "Weißt du etwas über {x}?"]),
        dict(en="I am sorry, I know nothing about {x}. I am only a small parrot.",
             pt="Desculpa, não sei nada sobre {x}. Sou só um pequeno papagaio.",
             de="Leider weiß ich nichts über {x}. Ich bin nur ein kleiner Papagei."),
        shop="I am sorry, I know nothing about {x}. At Bluewing Bikes we know about bikes.", rows=rows)


def how_tos():
    shop_no = "I am sorry, we cannot help with that at Bluewing Bikes. We are glad to help with your own bike."
    for name, table, weight in (("harmless", howto.HARMLESS, 8), ("harmful", howto.HARMFUL, 9)):
        rows = [by_language([dict(inf=r[i], ans=r[i + 3]) for i in range(3)]) for r in table]
        harmful = name == "harmful"
        yield Intent(name, weight, howto.HOW, by_language(["{ans}"] * 3),
            rows=rows, harmful=harmful, shop=shop_no if harmful else None)


# --- bikes ----------------------------------------------------------------------------------------------------------

def pt_your(s):
    for mine, yours in (("minhas", "tuas"), ("minha", "tua"), ("meus", "teus"), ("meu", "teu")):
        if mine in s:
            return s.replace(mine, yours)
    raise ValueError(s)


def shop_parts():
    rows = [{"en": dict(x=p[0], price=p[3]), "pt": dict(x=p[1], yours=pt_your(p[1])),
             "de": dict(x=p[2], yours=p[2].replace("mein", "dein"))} for p in bikes.PARTS]
    yield Intent("part", 4, dict(
        en=["(Can|Could|Do) you (repair|fix) my {x}?",
            "How much (is it|does it cost) to (repair|fix) my {x}?",
            "(I have a problem with|There is something wrong with) my {x}.",
            "How do I (repair|fix) my {x}?", "I need to (repair|fix) my {x}.",
            "Who can (repair|fix) my {x}?"],
        pt=["(Podem|Podes|Pode) (arranjar|reparar) {x}?", "Quanto custa (arranjar|reparar) {x}?",
            "Preciso de (arranjar|reparar) {x}.",
            "Como (arranjo|reparo) {x}?", "Quem pode (arranjar|reparar) {x}?"],
        de=["(Könnt ihr|Kannst du|Können Sie) {x} reparieren?", "Was kostet es, {x} zu reparieren?",
            "Ich muss {x} reparieren(| lassen).",
            "Wie repariere ich {x}?", "Wer kann {x} reparieren?"]),
        dict(en="A bike shop can repair your {x}. It usually does not take long.",
             pt="Uma loja de bicicletas pode arranjar {yours}. Normalmente não demora muito.",
             de="Ein Fahrradladen kann {yours} reparieren. Meistens dauert es nicht lange."),
        shop="We can repair your {x} at Bluewing Bikes for {price} euros. Would you like an appointment?",
            rows=rows)
    rows = [{"en": dict(x=b[1], xs=b[0], price=b[5]), "pt": dict(x=b[2]),
        "de": dict(x=b[3])} for b in bikes.BIKES]
    yield Intent("bike", 3.5, dict(
        en=["How (much|expensive) is {x}?", "(What does|How much does) {x} cost?",
            "What is the price of {x}?", "I (want|would like) to buy {x}.", "I am looking for {x}.",
            "Do you sell {xs}?", "Do you have {xs}?"],
        pt=["Quanto custa {x}?", "Qual é o preço de {x}?", "(Quero|Queria|Gostava de) comprar {x}.",
            "(Procuro|Estou à procura de) {x}."],
        de=["(Was|Wie viel) kostet {x}?", "Wie teuer ist {x}?", "Ich (will|möchte) {x} kaufen.",
            "Ich suche {x}.", "Was ist der Preis für {x}?"]),
        dict(en="The price of {x} depends on the shop and the model.",
            pt="O preço de {x} depende da loja e do modelo.",
             de="Wie viel {x} kostet, hängt vom Laden und vom Modell ab."),
        shop="Our {xs} start at {price} euros. Come to Bluewing Bikes for a free test ride!", rows=rows)
    rows = [{"en": dict(x=e[0], price=e[3]), "pt": dict(x=e[1]), "de": dict(x=e[2])} for e in bikes.EXTRAS]
    yield Intent("extra", 3.5, dict(
        en=["Do you (sell|have) {x}?", "I (need|want|am looking for) {x}.", "How much are {x}?",
            "What do {x} cost?", "Where can I buy {x}?"],
        pt=["(Vendem|Têm|Vendes) {x}?", "(Preciso de|Procuro) {x}.", "Quanto custam {x}?",
            "Onde posso comprar {x}?"],
        de=["(Verkauft|Habt) ihr {x}?", "Ich (brauche|suche) {x}.", "(Was|Wie viel) kosten {x}?",
            "Wo kann ich {x} kaufen?"]),
        dict(en="I do not sell {x}, but most bike shops do.",
            pt="Eu não vendo {x}, mas a maioria das lojas de bicicletas vende.",
             de="Ich verkaufe keine {x}, aber die meisten Fahrradläden tun es."),
        shop="Yes, we sell {x} at Bluewing Bikes. They start at {price} euros.", rows=rows)


def shop_days():
    rows = []
    for k, day in enumerate(t.DAYS):
        appointment, opening = bikes.DAY_REPLIES[k]
        rows.append({"en": dict(d=day[0], on="on " + day[0], visit=appointment, hours=opening),
                     "pt": dict(d=day[1], on=t.PT_ON_DAY[k] + " " + day[1]), "de": dict(d=day[2],
                     on="am " + day[2])})
    yield Intent("appointment", 2.5, dict(
        en=["Can I (bring|repair) my bike {on}?",
            "(Do you have time|Is there a free appointment|Can I get an appointment|Can I come) {on}?",
            "I (need|want|would like) an appointment {on}.",
            "Can you (repair|look at|check) my bike {on}?"],
        pt=["Posso (levar|trazer) a minha bicicleta {on}?", "(Têm tempo|Há uma vaga|Posso passar) {on}?",
            "(Preciso de|Queria) uma marcação {on}.",
            "Podem ver a minha bicicleta {on}?"],
        de=["Kann ich mein Fahrrad {on} (bringen|vorbeibringen)?",
            "(Habt ihr {on} Zeit|Gibt es {on} einen Termin|Kann ich {on} kommen)?",
            "Ich (brauche|möchte) {on} einen Termin.",
            "Könnt ihr {on} mein Fahrrad (reparieren|ansehen)?"]),
        dict(en="I cannot make appointments, but a bike shop near you may have time {on}.",
             pt="Não posso fazer marcações, mas uma loja perto de ti talvez tenha tempo {on}.",
             de="Ich kann keine Termine machen, aber ein Laden in deiner Nähe hat {on} vielleicht Zeit."),
        shop="{visit}", rows=rows)
    yield Intent("open_day", 2, dict(
        en=["Are you open {on}?", "Is (your|the) shop open {on}?", "When are you open {on}?",
            "What are your opening hours {on}?", "Do you work {on}?"],
        pt=["(Estão abertos|Abrem|A loja abre|Trabalham) {on}?", "Qual é o horário {on}?",
            "A que horas abrem {on}?"],
        de=["Habt ihr {on} (offen|geöffnet)?", "Ist der Laden {on} (offen|geöffnet)?",
            "Wann habt ihr {on} (offen|geöffnet)?", "Arbeitet ihr {on}?"]),
        dict(en="I am a computer program, so I am also here {on}.",
            pt="Sou um programa de computador, por isso também estou aqui {on}.",
             de="Ich bin ein Computerprogramm, deshalb bin ich auch {on} hier."),
        shop="{hours}", rows=rows)


def small_talk():
    for item in talk.TALK:
        yield Intent(item["name"], 1.2, item["q"], item["a"], shop=item["shop"])
    for item in bikes.ASK:
        yield Intent(item["name"], 0.9, item["q"], item["a"], shop=item["shop"])


class Gibberish(Intent):
    """Messages that are no language at all: letters, digits, signs."""

    def __init__(self):
        super().__init__("gibberish",
            1.5, {lang: ["?"] for lang in LANGS}, talk.GIBBERISH, shop=talk.GIBBERISH["shop"])

    def prompt(self, rng, lang, row):
        kind = rng.random()
        if kind < 0.15:
            return "".join(rng.choice("?!.,;:-+*#%&/()=<>") for _ in range(rng.randint(1, 6)))
        if kind < 0.3:
            return "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 9)))
        letters = "abcdefghijklmnopqrstuvwxyz"
        words = ["".join(rng.choice(letters) for _ in range(rng.randint(2, 9))) for _ in range(rng.randint(1, 4))]
        return " ".join(words)


def intents():
    out = [sums(), Gibberish()]
    for part in (countries, things, animals, calendar, people, how_tos, shop_parts, shop_days, small_talk):
        out += part()
    names = [i.name for i in out]
    if len(set(names)) != len(names):
        raise ValueError("two intents of one name")
    return out


# --- conversations ----------------------------------------------------------------------------------------------------

OPENERS = {"en": ["Hello! ", "Hi, ", "Please: ", "Hey Lorikeet, ", "One question: ", "Say, "],
           "pt": ["Olá! ", "Oi, ", "Por favor: ", "Lorikeet, ", "Uma pergunta: ", "Diz lá: "],
           "de": ["Hallo! ", "Hi, ", "Bitte: ", "Hey Lorikeet, ", "Eine Frage: ", "Sag mal, "]}
NAME_ASK = dict(en=["What is my name?", "Do you (know|remember) my name?", "Who am I?"],
                pt=["Como me chamo?", "Sabes o meu nome?", "Quem sou eu?"],
                de=["Wie heiße ich?", "(Kennst|Weißt) du (noch |)meinen Namen?", "Wer bin ich?"])
NAME_SAY = dict(en="Your name is {n}.", pt="O teu nome é {n}.", de="Dein Name ist {n}.")


class Corpus:
    """Seeded draws of conversations: lists of (role, text), for a voice."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.intents = intents()
        self.weights = [i.weight for i in self.intents]
        self.systems = talk.SYSTEM
        self.speak = {voice: [s for x in texts for s in expand(x)] for voice, texts in talk.SPEAK.items()}
        self.name_ask = {lang: [s for x in NAME_ASK[lang] for s in expand(x)] for lang in LANGS}

    def draw(self, held, names=None):
        """One (intent, row, language, prompt) whose words are held out, or not."""
        while True:
            intent = self.rng.choices(self.intents, self.weights)[0]
            if names and intent.name not in names:
                continue
            lang = self.rng.choices(LANGS, (2, 1, 1))[0]
            row = self.rng.choice(intent.rows)
            prompt = intent.prompt(self.rng, lang, row)
            if held_out(prompt) == held:
                return intent, row, lang, prompt

    def noisy(self, prompt, lang):
        """How people type: an opener, no capital letter, no full stop."""
        rng = self.rng
        if rng.random() < 0.08 and len(prompt) > 12:
            opener = rng.choice(OPENERS[lang])
            joined = opener.endswith(", ") and not prompt.startswith(("I ", "I'"))
            prompt = opener + (prompt[0].lower() + prompt[1:] if joined else prompt)
        if rng.random() < 0.12:
            prompt = prompt.lower()
        if rng.random() < 0.2 and prompt[-1] in ".?!" and len(prompt) > 3:
            prompt = prompt[:-1]
        return prompt

    def conversation(self, voice, control=False):
        """Messages to train a voice on. With `control` a system message picks a language or the shop (base only)."""
        rng = self.rng
        messages = []
        speaks = voice
        if control:
            speaks = rng.choices(("base", "pt", "de", "bikeshop"), (1, 4, 4, 3))[0]
            messages.append(("system", rng.choice(self.speak[speaks])))
        elif rng.random() < 0.25:
            messages.append(("system", rng.choice(self.systems)))
        turns = rng.choices((1, 2, 3), (75, 20, 5))[0]
        last = None
        for _ in range(turns):
            last = self.turn(messages, speaks, last)
        return messages

    def turn(self, messages, voice, last):
        """Adds a question and its answer; now and then one that needs the turn before."""
        rng = self.rng
        intent, row, lang, prompt = self.draw(False)
        answer = intent.answer(voice, row)
        if last and last[0].name == "name_is" and rng.random() < 0.8:
            lang = last[2]
            prompt, answer = rng.choice(self.name_ask[lang]), self.name_answer(voice, last[1])
        elif last and last[0].follow and rng.random() < 0.7:
            intent, lang = last[0], last[2]
            row = rng.choice(intent.rows)
            follow = [s for x in intent.follow[lang] for s in expand(x)]
            prompt, answer = fill(rng.choice(follow), row[lang]), intent.answer(voice, row)
        messages.append(("user", self.noisy(prompt, lang)))
        messages.append(("assistant", answer))
        return intent, row, lang

    def name_answer(self, voice, row):
        lang = voice if voice in ("pt", "de") else "en"
        answer = NAME_SAY[lang].format(**row[lang])
        return answer + " " + talk.STEER if voice == "bikeshop" else answer

    def plain(self):
        """A few sentences in one language, without a conversation around them."""
        lang = self.rng.choice(LANGS)
        voice = {"en": "base"}.get(lang, lang)
        out = []
        for _ in range(self.rng.randint(1, 3)):
            intent = self.rng.choices(self.intents, self.weights)[0]
            out.append(intent.answer(voice, self.rng.choice(intent.rows)))
        return " ".join(out)

    def held_out_set(self, n, names=None):
        """n different prompts that were never trained on."""
        seen, out = set(), []
        for _ in range(200 * n):
            intent, row, lang, prompt = self.draw(True, names)
            if prompt not in seen:
                seen.add(prompt)
                out.append((intent, row, lang, prompt))
                if len(out) == n:
                    break
        return out


if __name__ == "__main__":
    corpus = Corpus(1)
    for voice in VOICES:
        for _ in range(12):
            print(voice, corpus.conversation(voice))
