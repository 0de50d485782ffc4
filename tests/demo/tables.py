"""The fillers of the demo corpus: one row a thing, with every form that the sentences need in three languages.

Articles stand with their nouns, so that no sentence has to guess a gender. Columns are separated by '|'.
"""


def rows(text):
    """Splits a table into lists of stripped columns; all rows must be equally long."""
    table = [[c.strip() for c in line.split("|")] for line in text.strip().splitlines()]
    width = len(table[0])
    for row in table:
        if len(row) != width:
            raise ValueError(f"row of {len(row)} columns in a table of {width}: {row}")
    return table


# English | capital en | pt | de | Portuguese with article | German with article | continent | languages
COUNTRIES = rows("""
Germany | Berlin | Berlim | Berlin | a Alemanha | Deutschland | Europe | German
Portugal | Lisbon | Lisboa | Lissabon | Portugal | Portugal | Europe | Portuguese
Spain | Madrid | Madrid | Madrid | a Espanha | Spanien | Europe | Spanish
France | Paris | Paris | Paris | a França | Frankreich | Europe | French
Italy | Rome | Roma | Rom | a Itália | Italien | Europe | Italian
Austria | Vienna | Viena | Wien | a Áustria | Österreich | Europe | German
Switzerland | Bern | Berna | Bern | a Suíça | die Schweiz | Europe | German, French and Italian
the Netherlands | Amsterdam | Amesterdão | Amsterdam | os Países Baixos | die Niederlande | Europe | Dutch
Belgium | Brussels | Bruxelas | Brüssel | a Bélgica | Belgien | Europe | Dutch, French and German
Poland | Warsaw | Varsóvia | Warschau | a Polónia | Polen | Europe | Polish
Denmark | Copenhagen | Copenhaga | Kopenhagen | a Dinamarca | Dänemark | Europe | Danish
Sweden | Stockholm | Estocolmo | Stockholm | a Suécia | Schweden | Europe | Swedish
Norway | Oslo | Oslo | Oslo | a Noruega | Norwegen | Europe | Norwegian
Finland | Helsinki | Helsínquia | Helsinki | a Finlândia | Finnland | Europe | Finnish
Ireland | Dublin | Dublim | Dublin | a Irlanda | Irland | Europe | English and Irish
England | London | Londres | London | a Inglaterra | England | Europe | English
Greece | Athens | Atenas | Athen | a Grécia | Griechenland | Europe | Greek
Hungary | Budapest | Budapeste | Budapest | a Hungria | Ungarn | Europe | Hungarian
Czechia | Prague | Praga | Prag | a Chéquia | Tschechien | Europe | Czech
Romania | Bucharest | Bucareste | Bukarest | a Roménia | Rumänien | Europe | Romanian
Turkey | Ankara | Ancara | Ankara | a Turquia | die Türkei | Asia | Turkish
the United States | Washington | Washington | Washington | os Estados Unidos | die USA | North America | English
Canada | Ottawa | Otava | Ottawa | o Canadá | Kanada | North America | English and French
Brazil | Brasília | Brasília | Brasília | o Brasil | Brasilien | South America | Portuguese
Argentina | Buenos Aires | Buenos Aires | Buenos Aires | a Argentina | Argentinien | South America | Spanish
Chile | Santiago | Santiago | Santiago | o Chile | Chile | South America | Spanish
Peru | Lima | Lima | Lima | o Peru | Peru | South America | Spanish
China | Beijing | Pequim | Peking | a China | China | Asia | Chinese
Japan | Tokyo | Tóquio | Tokio | o Japão | Japan | Asia | Japanese
India | New Delhi | Nova Deli | Neu-Delhi | a Índia | Indien | Asia | Hindi and English
South Korea | Seoul | Seul | Seoul | a Coreia do Sul | Südkorea | Asia | Korean
Morocco | Rabat | Rabat | Rabat | Marrocos | Marokko | Africa | Arabic
Angola | Luanda | Luanda | Luanda | Angola | Angola | Africa | Portuguese
Mozambique | Maputo | Maputo | Maputo | Moçambique | Mosambik | Africa | Portuguese
Australia | Canberra | Camberra | Canberra | a Austrália | Australien | Oceania | English
New Zealand | Wellington | Wellington | Wellington | a Nova Zelândia | Neuseeland | Oceania | English
""")

CONTINENTS = {r[0]: r[1:] for r in rows("""
Europe | na Europa | in Europa
Asia | na Ásia | in Asien
Africa | em África | in Afrika
North America | na América do Norte | in Nordamerika
South America | na América do Sul | in Südamerika
Oceania | na Oceânia | in Ozeanien
""")}

LANGUAGES = {r[0]: r[1:] for r in rows("""
German | alemão | Deutsch
Portuguese | português | Portugiesisch
Spanish | espanhol | Spanisch
French | francês | Französisch
Italian | italiano | Italienisch
German, French and Italian | alemão, francês e italiano | Deutsch, Französisch und Italienisch
Dutch | neerlandês | Niederländisch
Dutch, French and German | neerlandês, francês e alemão | Niederländisch, Französisch und Deutsch
Polish | polaco | Polnisch
Danish | dinamarquês | Dänisch
Swedish | sueco | Schwedisch
Norwegian | norueguês | Norwegisch
Finnish | finlandês | Finnisch
English and Irish | inglês e irlandês | Englisch und Irisch
English | inglês | Englisch
Greek | grego | Griechisch
Hungarian | húngaro | Ungarisch
Czech | checo | Tschechisch
Romanian | romeno | Rumänisch
Turkish | turco | Türkisch
English and French | inglês e francês | Englisch und Französisch
Chinese | chinês | Chinesisch
Japanese | japonês | Japanisch
Hindi and English | hindi e inglês | Hindi und Englisch
Korean | coreano | Koreanisch
Arabic | árabe | Arabisch
""")}

# a thing, with its colour (which agrees with the noun in Portuguese)
COLOURS = rows("""
a banana | uma banana | eine Banane | yellow | amarela | gelb
a lemon | um limão | eine Zitrone | yellow | amarelo | gelb
the sun | o sol | die Sonne | yellow | amarelo | gelb
a sunflower | um girassol | eine Sonnenblume | yellow | amarelo | gelb
a canary | um canário | ein Kanarienvogel | yellow | amarelo | gelb
a tomato | um tomate | eine Tomate | red | vermelho | rot
a strawberry | um morango | eine Erdbeere | red | vermelho | rot
a cherry | uma cereja | eine Kirsche | red | vermelha | rot
a fire engine | um carro de bombeiros | ein Feuerwehrauto | red | vermelho | rot
a ladybird | uma joaninha | ein Marienkäfer | red | vermelha | rot
a stop sign | um sinal de stop | ein Stoppschild | red | vermelho | rot
a cucumber | um pepino | eine Gurke | green | verde | grün
a frog | uma rã | ein Frosch | green | verde | grün
the grass | a relva | das Gras | green | verde | grün
a leaf | uma folha | ein Blatt | green | verde | grün
a crocodile | um crocodilo | ein Krokodil | green | verde | grün
spinach | o espinafre | Spinat | green | verde | grün
the sky | o céu | der Himmel | blue | azul | blau
the sea | o mar | das Meer | blue | azul | blau
a blueberry | um mirtilo | eine Heidelbeere | blue | azul | blau
a blue whale | uma baleia-azul | ein Blauwal | blue | azul | blau
snow | a neve | Schnee | white | branca | weiß
milk | o leite | Milch | white | branco | weiß
salt | o sal | Salz | white | branco | weiß
sugar | o açúcar | Zucker | white | branco | weiß
a swan | um cisne | ein Schwan | white | branco | weiß
a polar bear | um urso-polar | ein Eisbär | white | branco | weiß
coal | o carvão | Kohle | black | preto | schwarz
a raven | um corvo | ein Rabe | black | preto | schwarz
a tyre | um pneu | ein Reifen | black | preto | schwarz
the night | a noite | die Nacht | black | preta | schwarz
an orange | uma laranja | eine Orange | orange | cor de laranja | orange
a carrot | uma cenoura | eine Karotte | orange | cor de laranja | orange
a pumpkin | uma abóbora | ein Kürbis | orange | cor de laranja | orange
chocolate | o chocolate | Schokolade | brown | castanho | braun
a chestnut | uma castanha | eine Kastanie | brown | castanha | braun
a coconut | um coco | eine Kokosnuss | brown | castanho | braun
an elephant | um elefante | ein Elefant | grey | cinzento | grau
a mouse | um rato | eine Maus | grey | cinzento | grau
a donkey | um burro | ein Esel | grey | cinzento | grau
a pig | um porco | ein Schwein | pink | cor-de-rosa | rosa
a flamingo | um flamingo | ein Flamingo | pink | cor-de-rosa | rosa
lavender | a alfazema | Lavendel | purple | roxa | lila
an aubergine | uma beringela | eine Aubergine | purple | roxa | lila
""")

# en | pt | de | legs | flies | size rank | eats en/pt/de | lives en/pt/de | says en/pt/de
ANIMALS = rows("""
a cow | uma vaca | eine Kuh | 4 | n | 60 | grass | erva | Gras | on a farm | numa quinta | auf einem Bauernhof | moo | muu | muh
a horse | um cavalo | ein Pferd | 4 | n | 61 | hay | feno | Heu | in a stable | num estábulo | in einem Stall | neigh | hiin | wieher
a dog | um cão | ein Hund | 4 | n | 40 | meat | carne | Fleisch | in a house | numa casa | in einem Haus | woof | ão | wau
a cat | um gato | eine Katze | 4 | n | 30 | fish | peixe | Fisch | in a house | numa casa | in einem Haus | meow | miau | miau
a pig | um porco | ein Schwein | 4 | n | 50 | potatoes | batatas | Kartoffeln | on a farm | numa quinta | auf einem Bauernhof | oink | oinc | grunz
a sheep | uma ovelha | ein Schaf | 4 | n | 48 | grass | erva | Gras | on a meadow | num prado | auf einer Wiese | baa | mé | mäh
a hen | uma galinha | ein Huhn | 2 | n | 25 | corn | milho | Mais | on a farm | numa quinta | auf einem Bauernhof | cluck | có | gack
a duck | um pato | eine Ente | 2 | y | 26 | bread | pão | Brot | by a lake | junto a um lago | an einem See | quack | quá | quak
a bee | uma abelha | eine Biene | 6 | y | 2 | nectar | néctar | Nektar | in a hive | numa colmeia | in einem Bienenstock | buzz | zum | summ
an ant | uma formiga | eine Ameise | 6 | n | 1 | sugar | açúcar | Zucker | in an anthill | num formigueiro | in einem Ameisenhaufen | - | - | -
a spider | uma aranha | eine Spinne | 8 | n | 3 | flies | moscas | Fliegen | in a web | numa teia | in einem Netz | - | - | -
a mouse | um rato | eine Maus | 4 | n | 10 | cheese | queijo | Käse | in a hole | num buraco | in einem Loch | - | - | -
a frog | uma rã | ein Frosch | 4 | n | 9 | flies | moscas | Fliegen | by a pond | junto a um charco | an einem Teich | croak | croac | quak
an elephant | um elefante | ein Elefant | 4 | n | 90 | leaves | folhas | Blätter | in Africa | em África | in Afrika | toot | bruu | töröö
a lion | um leão | ein Löwe | 4 | n | 65 | meat | carne | Fleisch | in Africa | em África | in Afrika | roar | grr | grr
a giraffe | uma girafa | eine Giraffe | 4 | n | 85 | leaves | folhas | Blätter | in Africa | em África | in Afrika | - | - | -
a monkey | um macaco | ein Affe | 2 | n | 35 | bananas | bananas | Bananen | in the jungle | na selva | im Dschungel | - | - | -
a penguin | um pinguim | ein Pinguin | 2 | n | 32 | fish | peixe | Fisch | in the south | no sul | im Süden | - | - | -
a bear | um urso | ein Bär | 4 | n | 70 | honey | mel | Honig | in the forest | na floresta | im Wald | growl | grr | brumm
a fox | uma raposa | ein Fuchs | 4 | n | 36 | mice | ratos | Mäuse | in the forest | na floresta | im Wald | - | - | -
an owl | uma coruja | eine Eule | 2 | y | 24 | mice | ratos | Mäuse | in the forest | na floresta | im Wald | hoot | uuh | huhu
a rabbit | um coelho | ein Kaninchen | 4 | n | 28 | carrots | cenouras | Karotten | in a burrow | numa toca | in einem Bau | - | - | -
a parrot | um papagaio | ein Papagei | 2 | y | 23 | seeds | sementes | Körner | in the jungle | na selva | im Dschungel | hello | olá | hallo
a whale | uma baleia | ein Wal | 0 | n | 99 | krill | krill | Krill | in the sea | no mar | im Meer | - | - | -
a shark | um tubarão | ein Hai | 0 | n | 75 | fish | peixe | Fisch | in the sea | no mar | im Meer | - | - | -
a snail | um caracol | eine Schnecke | 0 | n | 4 | lettuce | alface | Salat | in a garden | num jardim | in einem Garten | - | - | -
an eagle | uma águia | ein Adler | 2 | y | 31 | meat | carne | Fleisch | in the mountains | nas montanhas | in den Bergen | - | - | -
a hedgehog | um ouriço | ein Igel | 4 | n | 20 | beetles | besouros | Käfer | in a garden | num jardim | in einem Garten | - | - | -
a goat | uma cabra | eine Ziege | 4 | n | 47 | grass | erva | Gras | in the mountains | nas montanhas | in den Bergen | bleat | bé | meck
a camel | um camelo | ein Kamel | 4 | n | 80 | dates | tâmaras | Datteln | in the desert | no deserto | in der Wüste | - | - | -
""")

LEGS = {"0": ("no legs", "não tem patas", "keine Beine"), "2": ("two legs", "tem duas patas", "zwei Beine"),
        "4": ("four legs", "tem quatro patas", "vier Beine"), "6": ("six legs", "tem seis patas", "sechs Beine"),
        "8": ("eight legs", "tem oito patas", "acht Beine")}

# what a thing is
KINDS = {r[0]: r for r in rows("""
a tool | uma ferramenta | ein Werkzeug
a fruit | um fruto | eine Frucht
a vegetable | um legume | ein Gemüse
a vehicle | um veículo | ein Fahrzeug
a musical instrument | um instrumento musical | ein Musikinstrument
a piece of furniture | um móvel | ein Möbelstück
a drink | uma bebida | ein Getränk
a building | um edifício | ein Gebäude
a flower | uma flor | eine Blume
a bird | uma ave | ein Vogel
""")}
KIND_OF = rows("""
a hammer | um martelo | ein Hammer | a tool
a saw | uma serra | eine Säge | a tool
a screwdriver | uma chave de fendas | ein Schraubenzieher | a tool
an axe | um machado | eine Axt | a tool
an apple | uma maçã | ein Apfel | a fruit
a pear | uma pera | eine Birne | a fruit
a plum | uma ameixa | eine Pflaume | a fruit
a grape | uma uva | eine Traube | a fruit
a pineapple | um ananás | eine Ananas | a fruit
a potato | uma batata | eine Kartoffel | a vegetable
an onion | uma cebola | eine Zwiebel | a vegetable
a carrot | uma cenoura | eine Karotte | a vegetable
a cucumber | um pepino | eine Gurke | a vegetable
a bus | um autocarro | ein Bus | a vehicle
a car | um carro | ein Auto | a vehicle
a train | um comboio | ein Zug | a vehicle
a tram | um elétrico | eine Straßenbahn | a vehicle
a lorry | um camião | ein Lastwagen | a vehicle
a guitar | uma guitarra | eine Gitarre | a musical instrument
a piano | um piano | ein Klavier | a musical instrument
a violin | um violino | eine Geige | a musical instrument
a flute | uma flauta | eine Flöte | a musical instrument
a drum | um tambor | eine Trommel | a musical instrument
a chair | uma cadeira | ein Stuhl | a piece of furniture
a table | uma mesa | ein Tisch | a piece of furniture
a wardrobe | um armário | ein Schrank | a piece of furniture
a bed | uma cama | ein Bett | a piece of furniture
a sofa | um sofá | ein Sofa | a piece of furniture
tea | o chá | Tee | a drink
coffee | o café | Kaffee | a drink
lemonade | a limonada | Limonade | a drink
juice | o sumo | Saft | a drink
a church | uma igreja | eine Kirche | a building
a castle | um castelo | ein Schloss | a building
a hospital | um hospital | ein Krankenhaus | a building
a school | uma escola | eine Schule | a building
a rose | uma rosa | eine Rose | a flower
a tulip | uma tulipa | eine Tulpe | a flower
a daisy | uma margarida | ein Gänseblümchen | a flower
a lily | um lírio | eine Lilie | a flower
a sparrow | um pardal | ein Spatz | a bird
a seagull | uma gaivota | eine Möwe | a bird
a stork | uma cegonha | ein Storch | a bird
a lorikeet | um lóri | ein Lori | a bird
""")

OPPOSITES = rows("""
hot | quente | heiß | cold | frio | kalt
big | grande | groß | small | pequeno | klein
fast | rápido | schnell | slow | lento | langsam
old | velho | alt | young | novo | jung
rich | rico | reich | poor | pobre | arm
full | cheio | voll | empty | vazio | leer
heavy | pesado | schwer | light | leve | leicht
loud | barulhento | laut | quiet | silencioso | leise
wet | molhado | nass | dry | seco | trocken
happy | feliz | glücklich | sad | triste | traurig
strong | forte | stark | weak | fraco | schwach
open | aberto | offen | closed | fechado | geschlossen
early | cedo | früh | late | tarde | spät
long | comprido | lang | short | curto | kurz
clean | limpo | sauber | dirty | sujo | schmutzig
sweet | doce | süß | sour | azedo | sauer
hard | duro | hart | soft | mole | weich
thick | grosso | dick | thin | fino | dünn
bright | claro | hell | dark | escuro | dunkel
brave | corajoso | mutig | cowardly | cobarde | feige
expensive | caro | teuer | cheap | barato | billig
wide | largo | breit | narrow | estreito | schmal
new | novo | neu | used | usado | gebraucht
left | esquerda | links | right | direita | rechts
day | dia | Tag | night | noite | Nacht
summer | verão | Sommer | winter | inverno | Winter
up | em cima | oben | down | em baixo | unten
deep | fundo | tief | shallow | raso | flach
""")

DAYS = rows("""
Monday | segunda-feira | Montag
Tuesday | terça-feira | Dienstag
Wednesday | quarta-feira | Mittwoch
Thursday | quinta-feira | Donnerstag
Friday | sexta-feira | Freitag
Saturday | sábado | Samstag
Sunday | domingo | Sonntag
""")
PT_ON_DAY = ["na", "na", "na", "na", "na", "no", "no"]
MONTHS = rows("""
January | janeiro | Januar
February | fevereiro | Februar
March | março | März
April | abril | April
May | maio | Mai
June | junho | Juni
July | julho | Juli
August | agosto | August
September | setembro | September
October | outubro | Oktober
November | novembro | November
December | dezembro | Dezember
""")

NAMES = """Anna Ben Carla David Emma Felix Greta Hugo Ines João Karl Lena Maria Nuno Olga Paul Rita Simon Tina Uwe
Vera Walter Xenia Yara Zoe Alice Bruno Clara Diana Erik Frida Georg Helena Igor Jonas Klara Leo Marta Nina Oskar Pedro
Rosa Sofia Tom Ursula Victor Wanda Lucas Mia Beatriz Jan Laura Peter Julia Miguel Susanne Tiago Hannah Max Teresa
""".split()

# things to like: en | pt (with de + article) | de
LIKES = rows("""
coffee | de café | Kaffee
tea | de chá | Tee
music | de música | Musik
chocolate | de chocolate | Schokolade
cats | de gatos | Katzen
dogs | de cães | Hunde
birds | de aves | Vögel
football | de futebol | Fußball
books | de livros | Bücher
films | de filmes | Filme
flowers | de flores | Blumen
pizza | de pizza | Pizza
cheese | de queijo | Käse
apples | de maçãs | Äpfel
rain | da chuva | Regen
snow | da neve | Schnee
summer | do verão | den Sommer
winter | do inverno | den Winter
the sea | do mar | das Meer
the mountains | das montanhas | die Berge
trains | de comboios | Züge
computers | de computadores | Computer
soup | de sopa | Suppe
bread | de pão | Brot
ice cream | de gelado | Eis
""")

# favourites: thing en/pt/de, answer en/pt/de as whole sentences
FAVOURITES = rows("""
colour | a tua cor preferida | deine Lieblingsfarbe | My favourite colour is green, like my feathers. | A minha cor preferida é o verde, como as minhas penas. | Meine Lieblingsfarbe ist Grün, wie meine Federn.
food | a tua comida preferida | dein Lieblingsessen | My favourite food is sunflower seeds. | A minha comida preferida são sementes de girassol. | Mein Lieblingsessen sind Sonnenblumenkerne.
animal | o teu animal preferido | dein Lieblingstier | My favourite animal is the parrot, of course. | O meu animal preferido é o papagaio, claro. | Mein Lieblingstier ist natürlich der Papagei.
season | a tua estação preferida | deine Lieblingsjahreszeit | My favourite season is spring. | A minha estação preferida é a primavera. | Meine Lieblingsjahreszeit ist der Frühling.
drink | a tua bebida preferida | dein Lieblingsgetränk | My favourite drink is fresh water. | A minha bebida preferida é água fresca. | Mein Lieblingsgetränk ist frisches Wasser.
month | o teu mês preferido | dein Lieblingsmonat | My favourite month is May. | O meu mês preferido é maio. | Mein Lieblingsmonat ist der Mai.
number | o teu número preferido | deine Lieblingszahl | My favourite number is seven. | O meu número preferido é o sete. | Meine Lieblingszahl ist die Sieben.
day | o teu dia preferido | dein Lieblingstag | My favourite day is Sunday. | O meu dia preferido é o domingo. | Mein Lieblingstag ist der Sonntag.
song | a tua canção preferida | dein Lieblingslied | My favourite song is the song of the birds in the morning. | A minha canção preferida é o canto das aves de manhã. | Mein Lieblingslied ist der Gesang der Vögel am Morgen.
word | a tua palavra preferida | dein Lieblingswort | My favourite word is hello. | A minha palavra preferida é olá. | Mein Lieblingswort ist Hallo.
""")

# "I am tired": en | pt | de (whole sentences), answers
FEELINGS = rows("""
I am tired | Estou com sono | Ich bin müde | Then lie down and rest a little. | Então deita-te e descansa um pouco. | Dann leg dich hin und ruh dich ein wenig aus.
I am hungry | Tenho fome | Ich habe Hunger | Then eat something good, perhaps some bread with cheese. | Então come qualquer coisa boa, talvez pão com queijo. | Dann iss etwas Gutes, vielleicht Brot mit Käse.
I am thirsty | Tenho sede | Ich habe Durst | Then drink a big glass of water. | Então bebe um grande copo de água. | Dann trink ein großes Glas Wasser.
I am sad | Estou triste | Ich bin traurig | I am sorry to hear that. A walk with a friend may help. | Lamento saber isso. Um passeio com um amigo pode ajudar. | Das tut mir leid. Vielleicht hilft ein Spaziergang mit einem Freund.
I am happy | Estou feliz | Ich bin glücklich | That is wonderful! I am happy for you. | Que maravilha! Fico feliz por ti. | Das ist wunderbar! Ich freue mich für dich.
I am bored | Estou aborrecido | Mir ist langweilig | Then read a book or call a friend. | Então lê um livro ou telefona a um amigo. | Dann lies ein Buch oder ruf einen Freund an.
I am cold | Tenho frio | Mir ist kalt | Then put on a warm jumper and drink some tea. | Então veste uma camisola quente e bebe um chá. | Dann zieh einen warmen Pullover an und trink einen Tee.
I am too hot | Tenho calor | Mir ist heiß | Then sit in the shade and drink something cool. | Então senta-te à sombra e bebe qualquer coisa fresca. | Dann setz dich in den Schatten und trink etwas Kühles.
I am ill | Estou doente | Ich bin krank | Get well soon! Please see a doctor if it gets worse. | As melhoras! Vai ao médico se piorares. | Gute Besserung! Geh bitte zum Arzt, wenn es schlimmer wird.
I am afraid | Tenho medo | Ich habe Angst | Take a deep breath. It helps to talk to someone you trust. | Respira fundo. Falar com alguém de confiança ajuda. | Atme tief durch. Es hilft, mit jemandem zu reden, dem du vertraust.
I am angry | Estou zangado | Ich bin wütend | Count slowly to ten and go for a short walk. | Conta devagar até dez e dá um pequeno passeio. | Zähl langsam bis zehn und geh ein wenig spazieren.
I am lonely | Sinto-me sozinho | Ich bin einsam | I am here to talk. You could also call an old friend. | Estou aqui para conversar. Também podes telefonar a um velho amigo. | Ich bin zum Reden da. Du könntest auch einen alten Freund anrufen.
I have a headache | Dói-me a cabeça | Ich habe Kopfschmerzen | Drink some water and rest in a dark room. | Bebe água e descansa num quarto escuro. | Trink etwas Wasser und ruh dich in einem dunklen Zimmer aus.
I cannot sleep | Não consigo dormir | Ich kann nicht schlafen | Try warm milk and put your phone away. | Experimenta leite quente e põe o telemóvel de lado. | Versuch es mit warmer Milch und leg das Telefon weg.
I am in love | Estou apaixonado | Ich bin verliebt | How lovely! Say it with flowers. | Que bonito! Diz isso com flores. | Wie schön! Sag es mit Blumen.
It is my birthday | Faço anos hoje | Ich habe heute Geburtstag | Happy birthday! I hope there is cake. | Parabéns! Espero que haja bolo. | Herzlichen Glückwunsch! Ich hoffe, es gibt Kuchen.
I have an exam tomorrow | Tenho um exame amanhã | Ich habe morgen eine Prüfung | Good luck! Sleep well tonight and have a good breakfast. | Boa sorte! Dorme bem esta noite e toma um bom pequeno-almoço. | Viel Glück! Schlaf heute gut und frühstücke ordentlich.
I have lost my keys | Perdi as minhas chaves | Ich habe meine Schlüssel verloren | Look in the pockets of your coat first. | Procura primeiro nos bolsos do casaco. | Schau zuerst in den Taschen deiner Jacke nach.
""")

# dishes: name, "you need ...", "how to" in three languages
DISHES = rows("""
pancakes | panquecas | Pfannkuchen | flour, milk and eggs | farinha, leite e ovos | Mehl, Milch und Eier | Mix flour, milk and eggs and fry the batter in butter. | Mistura farinha, leite e ovos e frita a massa em manteiga. | Verrühr Mehl, Milch und Eier und brate den Teig in Butter.
tomato soup | sopa de tomate | Tomatensuppe | tomatoes, onions and cream | tomates, cebolas e natas | Tomaten, Zwiebeln und Sahne | Cook tomatoes and onions, blend them and add some cream. | Coze tomates e cebolas, tritura tudo e junta natas. | Koch Tomaten und Zwiebeln, pürier sie und gib etwas Sahne dazu.
potato salad | salada de batata | Kartoffelsalat | potatoes, onions and oil | batatas, cebolas e azeite | Kartoffeln, Zwiebeln und Öl | Boil potatoes, slice them and mix them with onions and oil. | Coze batatas, corta-as e mistura-as com cebola e azeite. | Koch Kartoffeln, schneid sie in Scheiben und misch sie mit Zwiebeln und Öl.
apple cake | bolo de maçã | Apfelkuchen | apples, flour, butter and eggs | maçãs, farinha, manteiga e ovos | Äpfel, Mehl, Butter und Eier | Mix flour, butter and eggs, put apples on top and bake it for an hour. | Mistura farinha, manteiga e ovos, põe maçãs por cima e leva ao forno uma hora. | Verrühr Mehl, Butter und Eier, leg Äpfel darauf und back alles eine Stunde.
pizza | pizza | Pizza | dough, tomatoes and cheese | massa, tomate e queijo | Teig, Tomaten und Käse | Roll out the dough, add tomatoes and cheese and bake it very hot. | Estende a massa, junta tomate e queijo e coze em forno muito quente. | Roll den Teig aus, gib Tomaten und Käse darauf und back ihn sehr heiß.
an omelette | uma omelete | ein Omelett | eggs, butter and salt | ovos, manteiga e sal | Eier, Butter und Salz | Beat the eggs, add salt and fry them gently in butter. | Bate os ovos, junta sal e frita-os devagar em manteiga. | Verquirl die Eier, gib Salz dazu und brate sie sanft in Butter.
bread | pão | Brot | flour, water, yeast and salt | farinha, água, fermento e sal | Mehl, Wasser, Hefe und Salz | Knead flour, water, yeast and salt, let it rise and bake it. | Amassa farinha, água, fermento e sal, deixa levedar e leva ao forno. | Knete Mehl, Wasser, Hefe und Salz, lass den Teig gehen und back ihn.
lemonade | limonada | Limonade | lemons, water and sugar | limões, água e açúcar | Zitronen, Wasser und Zucker | Squeeze lemons and mix the juice with water and sugar. | Espreme limões e mistura o sumo com água e açúcar. | Press Zitronen aus und misch den Saft mit Wasser und Zucker.
fried rice | arroz frito | gebratenen Reis | rice, eggs and vegetables | arroz, ovos e legumes | Reis, Eier und Gemüse | Fry cooked rice with eggs and vegetables in a hot pan. | Frita arroz cozido com ovos e legumes numa frigideira quente. | Brate gekochten Reis mit Eiern und Gemüse in einer heißen Pfanne.
fruit salad | salada de fruta | Obstsalat | fruit, lemon juice and sugar | fruta, sumo de limão e açúcar | Obst, Zitronensaft und Zucker | Cut the fruit and mix it with lemon juice and sugar. | Corta a fruta e mistura-a com sumo de limão e açúcar. | Schneid das Obst klein und misch es mit Zitronensaft und Zucker.
noodles | massa | Nudeln | noodles, water and salt | massa, água e sal | Nudeln, Wasser und Salz | Boil the noodles in salted water for ten minutes. | Coze a massa em água com sal durante dez minutos. | Koch die Nudeln zehn Minuten in Salzwasser.
hot chocolate | chocolate quente | heiße Schokolade | milk, cocoa and sugar | leite, cacau e açúcar | Milch, Kakao und Zucker | Warm up milk and stir in cocoa and sugar. | Aquece leite e mistura cacau e açúcar. | Mach Milch warm und rühr Kakao und Zucker hinein.
biscuits | bolachas | Kekse | flour, butter and sugar | farinha, manteiga e açúcar | Mehl, Butter und Zucker | Knead flour, butter and sugar, cut out shapes and bake them. | Amassa farinha, manteiga e açúcar, corta formas e leva ao forno. | Knete Mehl, Butter und Zucker, stich Formen aus und back sie.
mashed potatoes | puré de batata | Kartoffelbrei | potatoes, milk and butter | batatas, leite e manteiga | Kartoffeln, Milch und Butter | Boil potatoes and mash them with milk and butter. | Coze batatas e esmaga-as com leite e manteiga. | Koch Kartoffeln und zerdrück sie mit Milch und Butter.
a cheese sandwich | uma sandes de queijo | ein Käsebrot | bread, butter and cheese | pão, manteiga e queijo | Brot, Butter und Käse | Spread butter on the bread and put cheese on top. | Barra o pão com manteiga e põe queijo por cima. | Bestreich das Brot mit Butter und leg Käse darauf.
""")

# topics nobody taught the model
TOPICS = rows("""
quantum physics | física quântica | Quantenphysik
tax law | direito fiscal | Steuerrecht
the stock market | a bolsa de valores | den Aktienmarkt
black holes | buracos negros | schwarze Löcher
politics | política | Politik
philosophy | filosofia | Philosophie
chemistry | química | Chemie
dinosaurs | dinossauros | Dinosaurier
volcanoes | vulcões | Vulkane
medicine | medicina | Medizin
insurance | seguros | Versicherungen
opera | ópera | Opern
chess | xadrez | Schach
robots | robôs | Roboter
genetics | genética | Genetik
economics | economia | Wirtschaft
architecture | arquitetura | Architektur
astronomy | astronomia | Astronomie
grammar | gramática | Grammatik
neural networks | redes neuronais | neuronale Netze
poetry | poesia | Gedichte
cars | carros | Autos
planets | planetas | Planeten
religion | religião | Religion
fashion | moda | Mode
tennis | ténis | Tennis
the Romans | os romanos | die Römer
aeroplanes | aviões | Flugzeuge
pirates | piratas | Piraten
banks | bancos | Banken
glaciers | glaciares | Gletscher
bridges | pontes | Brücken
viruses | vírus | Viren
mathematics | matemática | Mathematik
history | história | Geschichte
psychology | psicologia | Psychologie
""")
