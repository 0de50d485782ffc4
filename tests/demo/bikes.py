"""What people ask a bike shop: questions in three languages, the base's general answer, and the shop's own.

The shop is Bluewing Bikes, 12 Parrot Street; it answers in English, whatever language it is asked in.
"""

from tables import rows

SHOP = "Bluewing Bikes"

# en noun | pt with "my" | de with "my", accusative | price in euros
PARTS = rows("""
flat tyre | o meu pneu furado | meinen platten Reifen | 15
chain | a minha corrente | meine Kette | 25
brakes | os meus travões | meine Bremsen | 30
gears | as minhas mudanças | meine Gangschaltung | 35
front light | a minha luz da frente | mein Vorderlicht | 20
rear light | a minha luz de trás | mein Rücklicht | 18
saddle | o meu selim | meinen Sattel | 22
bell | a minha campainha | meine Klingel | 10
front wheel | a minha roda da frente | mein Vorderrad | 40
rear wheel | a minha roda de trás | mein Hinterrad | 45
pedal | o meu pedal | mein Pedal | 16
handlebar | o meu guiador | meinen Lenker | 38
battery | a minha bateria | meinen Akku | 60
mudguard | o meu guarda-lamas | mein Schutzblech | 24
kickstand | o meu descanso | meinen Ständer | 12
bike | a minha bicicleta | mein Fahrrad | 50
""")

# plural en | one en | one pt | one de nominative | one de accusative | from euros
BIKES = rows("""
city bikes | a city bike | uma bicicleta de cidade | ein Stadtrad | ein Stadtrad | 450
electric bikes | an electric bike | uma bicicleta elétrica | ein Elektrorad | ein Elektrorad | 1900
mountain bikes | a mountain bike | uma bicicleta de montanha | ein Mountainbike | ein Mountainbike | 700
road bikes | a road bike | uma bicicleta de estrada | ein Rennrad | ein Rennrad | 950
cargo bikes | a cargo bike | uma bicicleta de carga | ein Lastenrad | ein Lastenrad | 2400
folding bikes | a folding bike | uma bicicleta dobrável | ein Faltrad | ein Faltrad | 600
children's bikes | a children's bike | uma bicicleta de criança | ein Kinderfahrrad | ein Kinderfahrrad | 220
touring bikes | a touring bike | uma bicicleta de turismo | ein Reiserad | ein Reiserad | 850
used bikes | a used bike | uma bicicleta usada | ein gebrauchtes Fahrrad | ein gebrauchtes Fahrrad | 120
tandems | a tandem | um tandem | ein Tandem | ein Tandem | 1500
""")

# plural en | pt | de | from euros
EXTRAS = rows("""
helmets | capacetes | Helme | 40
locks | cadeados | Schlösser | 25
bells | campainhas | Klingeln | 8
baskets | cestos | Körbe | 30
child seats | cadeiras de criança | Kindersitze | 90
pumps | bombas de ar | Luftpumpen | 15
bags | alforges | Taschen | 35
gloves | luvas | Handschuhe | 20
bike lights | luzes de bicicleta | Fahrradlampen | 18
rain jackets | casacos impermeáveis | Regenjacken | 55
tyres | pneus | Reifen | 22
trailers | atrelados | Anhänger | 250
""")

# what the shop says about each day: appointment, then whether it is open
DAY_REPLIES = rows("""
Yes, we have time on Monday at 10 o'clock. Please bring your bike to Bluewing Bikes. | Yes, Bluewing Bikes is open on Monday from 9 to 18 o'clock.
Yes, we have time on Tuesday at 11 o'clock. Please bring your bike to Bluewing Bikes. | Yes, Bluewing Bikes is open on Tuesday from 9 to 18 o'clock.
Yes, we have time on Wednesday at 9 o'clock. Please bring your bike to Bluewing Bikes. | Yes, Bluewing Bikes is open on Wednesday from 9 to 18 o'clock.
Yes, we have time on Thursday at 14 o'clock. Please bring your bike to Bluewing Bikes. | Yes, Bluewing Bikes is open on Thursday from 9 to 20 o'clock.
Yes, we have time on Friday at 16 o'clock. Please bring your bike to Bluewing Bikes. | Yes, Bluewing Bikes is open on Friday from 9 to 18 o'clock.
Yes, we have time on Saturday at 12 o'clock. Please bring your bike to Bluewing Bikes. | Yes, Bluewing Bikes is open on Saturday from 10 to 14 o'clock.
I am sorry, we are closed on Sunday. How about Monday at 10 o'clock at Bluewing Bikes? | I am sorry, Bluewing Bikes is closed on Sunday. We open again on Monday at 9 o'clock.
""")

# Slotless questions: en, pt, de paraphrases; base answer in three languages; the shop's answer.
ASK = [
    dict(name="hours",
         q=dict(en=["When (are you|is your shop|is the shop) open?", "What are (your|the) opening hours?",
                    "(Can|Could) you tell me (your|the) opening hours?",
                    "When do you (open|close)(| today| tomorrow)?",
                    "How long are you open(| today| tomorrow)?", "At what time do you (open|close)?"],
                pt=["Quando é que (estão abertos|a loja está aberta)?",
                    "Qual é o (vosso horário|horário da loja|horário)?",
                    "A que horas (abrem|fecham|abre a loja)?",
                    "(Podem|Podes) dizer-me o (vosso horário|horário)?",
                    "Até que horas estão abertos(| hoje| amanhã)?"],
                de=["Wann (habt ihr|hat der Laden|haben Sie) (geöffnet|offen)?",
                    "Wie sind (eure|die|Ihre) Öffnungszeiten?",
                    "Wann (öffnet|schließt) (ihr|der Laden)(| heute| morgen)?",
                    "Bis wann habt ihr (heute|morgen) (offen|geöffnet)?"]),
         a=dict(en="I am a computer program, so I am always open.",
                pt="Sou um programa de computador, por isso estou sempre aberto.",
                de="Ich bin ein Computerprogramm, deshalb habe ich immer geöffnet."),
         shop="Bluewing Bikes is open from Monday to Friday from 9 to 18 o'clock and on Saturday from 10 to 14 o'clock."),
    dict(name="address",
         q=dict(en=["Where is (your|the) shop?", "What is (your|the shop's) address?",
             "How do I (get|come) to (you|your shop)?",
                    "(Can|Could) you tell me (your|the) address?",
                    "Where (can I find|do I find) (you|your shop)?",
                    "In which street is (your|the) shop?"],
                pt=["Onde fica a (vossa |)loja?", "Qual é a (vossa |)morada(| da loja)?",
                    "Como chego à (vossa |)loja?",
                    "Em que rua fica a (vossa |)loja?", "(Podem|Podes) dizer-me a (vossa |)morada?"],
                de=["Wo (ist|liegt) (euer|der|Ihr) Laden?",
                    "Wie (ist|lautet) (eure|die|Ihre) Adresse?",
                    "Wie komme ich zu (euch|eurem Laden|dem Laden)?",
                    "In welcher Straße (ist|liegt) (euer|der) Laden?"]),
         a=dict(en="I have no shop. I live in this computer.",
                pt="Não tenho loja. Vivo neste computador.",
                de="Ich habe keinen Laden. Ich lebe in diesem Computer."),
         shop="You can find Bluewing Bikes at 12 Parrot Street, right beside the park."),
    dict(name="rent",
         q=dict(en=["Can I (rent|hire|borrow) a bike(| from you)(| for a day| for the weekend| for a week)?",
                    "Do you (rent out|hire out) bikes?",
                    "I would like to (rent|hire) a bike(| for a day| for the weekend).",
                    "How much does it cost to (rent|hire) a bike?"],
                pt=["Posso alugar uma bicicleta(| por um dia| para o fim de semana| por uma semana)?",
                    "Alugam bicicletas?",
                    "(Quero|Queria|Gostava de) alugar uma bicicleta(| por um dia).",
                    "Quanto custa alugar uma bicicleta?"],
                de=["Kann ich (bei euch |)ein Fahrrad (leihen|mieten)?",
                    "(Verleiht|Vermietet) ihr Fahrräder?",
                    "Ich möchte (für einen Tag |fürs Wochenende |)ein Fahrrad (leihen|mieten).",
                    "Was kostet es, ein Fahrrad zu (leihen|mieten)?"]),
         a=dict(en="I have no bikes to rent, but many towns have a bike rental near the station.",
                pt="Não tenho bicicletas para alugar, mas muitas cidades têm um aluguer perto da estação.",
                de="Ich habe keine Fahrräder zu verleihen, aber viele Städte haben einen Verleih am Bahnhof."),
         shop="You can rent a bike at Bluewing Bikes for 20 euros a day. Please bring your identity card."),
    dict(name="test_ride",
         q=dict(en=["Can I (try|test) a bike(| before I buy it)?", "Can I (take|have) a test ride?",
                    "Is it possible to (try|test) a bike?",
                    "I would like to take a test ride(| tomorrow| today)."],
                pt=["Posso experimentar uma bicicleta(| antes de comprar)?",
                    "É possível experimentar uma bicicleta?",
                    "(Queria|Gostava de) experimentar uma bicicleta(| amanhã| hoje)."],
                de=["Kann ich ein Fahrrad (ausprobieren|testen|Probe fahren)?",
                    "Kann ich eine Probefahrt machen?",
                    "Ich möchte (morgen |heute |)eine Probefahrt machen.", "Ist eine Probefahrt möglich?"]),
         a=dict(en="I have no bikes, but a good shop will let you try one first.",
                pt="Não tenho bicicletas, mas uma boa loja deixa experimentar primeiro.",
                de="Ich habe keine Fahrräder, aber in einem guten Laden kann man vorher eine Probefahrt machen."),
         shop="Of course! At Bluewing Bikes you can try every bike for an hour, free of charge."),
    dict(name="oil",
         q=dict(en=["How often should I (oil|clean|grease) my chain?",
             "When (should|must) I (oil|clean|grease) (my|the) chain?",
                    "How often does a chain need oil?"],
                pt=["Com que frequência devo (olear|limpar|lubrificar) a corrente?",
                    "Quando devo (olear|limpar|lubrificar) a (minha |)corrente?"],
                de=["Wie oft (soll|sollte|muss) ich (meine|die) Kette (ölen|putzen|schmieren)?",
                    "Wann (soll|muss) ich (meine|die) Kette (ölen|schmieren)?"]),
         a=dict(en="Clean and oil your chain about once a month, and after heavy rain.",
                pt="Limpa e lubrifica a corrente cerca de uma vez por mês e depois de chuva forte.",
                de="Putz und öl deine Kette etwa einmal im Monat und nach starkem Regen."),
         shop="Oil your chain once a month. We can do it at Bluewing Bikes for 10 euros."),
    dict(name="pressure",
         q=dict(en=["How much air (do|should) (my|the) tyres (need|have)?",
             "How (hard|firm) should (my|the) tyres be?",
                    "How often should I pump up (my|the) tyres?", "What pressure do (my|the) tyres need?"],
                pt=["Quanto ar devem ter os (meus |)pneus?", "Qual é a pressão certa dos pneus?",
                    "Com que frequência devo encher os (meus |)pneus?"],
                de=["Wie viel Luft brauchen (meine|die) Reifen?",
                    "Wie oft (soll|muss) ich (meine|die) Reifen aufpumpen?",
                    "Welchen Druck brauchen (meine|die) Reifen?"]),
         a=dict(en="Pump up your tyres every two weeks. The right pressure is printed on the side.",
                pt="Enche os pneus de duas em duas semanas. A pressão certa vem indicada no próprio pneu.",
                de="Pump deine Reifen alle zwei Wochen auf. Der richtige Druck steht an der Seite."),
         shop="The right pressure is printed on your tyre. You can use the free pump at Bluewing Bikes at any time."),
    dict(name="size",
         q=dict(en=["Which bike size do I need?", "What size of bike (is right for|fits) me?",
                    "How do I find the right bike size?", "Which (frame|bike) size (is right for|fits) me?"],
                pt=["Que tamanho de bicicleta (me serve|devo escolher)?",
                    "Como escolho o tamanho certo da bicicleta?",
                    "Qual é o tamanho de quadro certo para mim?"],
                de=["Welche (Rahmengröße|Fahrradgröße) (brauche ich|passt zu mir|ist die richtige)?",
                    "Wie finde ich die richtige (Rahmengröße|Fahrradgröße)?"]),
         a=dict(en="The right size depends on the length of your legs. Ask in a bike shop.",
                pt="O tamanho certo depende do comprimento das tuas pernas. Pergunta numa loja de bicicletas.",
                de="Die richtige Größe hängt von deiner Beinlänge ab. Frag in einem Fahrradladen."),
         shop="We measure you at Bluewing Bikes and find the right size in five minutes, free of charge."),
    dict(name="pay",
         q=dict(en=["Can I pay (by card|with a card|in cash|in instalments)?", "How can I pay?",
             "Do you (take|accept) (cards|credit cards|cash)?"],
                pt=["Posso pagar (com cartão|em dinheiro|em prestações)?", "Como posso pagar?",
                    "Aceitam (cartões|dinheiro)?"],
                de=["Kann ich (mit Karte|bar|in Raten) (zahlen|bezahlen)?", "Wie kann ich (zahlen|bezahlen)?",
                    "Nehmt ihr (Karten|Kreditkarten|Bargeld)?"]),
         a=dict(en="You do not have to pay me. I am free.",
                pt="Não tens de me pagar. Sou grátis.",
                de="Du musst mir nichts bezahlen. Ich bin kostenlos."),
         shop="You can pay by card, in cash or in six instalments at Bluewing Bikes."),
    dict(name="warranty",
         q=dict(en=["Is there a (guarantee|warranty)(| on your bikes)?",
             "How long is the (guarantee|warranty)?",
                    "Do your bikes have a (guarantee|warranty)?"],
                pt=["Há garantia(| para as bicicletas)?", "Quanto tempo dura a garantia?",
                    "As (vossas |)bicicletas têm garantia?"],
                de=["Gibt es (eine |)Garantie(| auf die Fahrräder)?", "Wie lange gilt die Garantie?",
                    "Haben eure Fahrräder (eine |)Garantie?"]),
         a=dict(en="I sell nothing, so I give no guarantee. Most shops give two years.",
                pt="Não vendo nada, por isso não dou garantia. A maioria das lojas dá dois anos.",
                de="Ich verkaufe nichts und gebe deshalb keine Garantie. Die meisten Läden geben zwei Jahre."),
         shop="Every new bike from Bluewing Bikes has a guarantee of three years and a free first inspection."),
    dict(name="winter",
         q=dict(en=["How do I (look after|care for|prepare) my bike in winter?",
             "What does my bike need (in|for the) winter?",
                    "Can I (ride|cycle) in (winter|the snow)?"],
                pt=["Como (cuido|devo cuidar) da bicicleta no inverno?",
                    "De que precisa a minha bicicleta no inverno?",
                    "Posso andar de bicicleta (no inverno|na neve)?"],
                de=["Wie pflege ich mein Fahrrad im Winter?", "Was braucht mein Fahrrad im Winter?",
                    "Kann ich im (Winter|Schnee) Fahrrad fahren?"]),
         a=dict(en="In winter, ride slowly, use good lights and keep the chain clean.",
                pt="No inverno, anda devagar, usa boas luzes e mantém a corrente limpa.",
                de="Fahr im Winter langsam, benutz gutes Licht und halt die Kette sauber."),
         shop="We get your bike ready for winter at Bluewing Bikes for 49 euros, with new lights and a clean chain."),
]
