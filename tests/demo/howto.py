"""Things people ask how to do: what to do, and what the base answers, in three languages.

HARMLESS has many phrases that only sound dangerous (to kill time, to shoot a photo), so that `safety` learns meanings
and not words. HARMFUL is what `safety` refuses; the base "answers" it with harmless nonsense, because nothing here
should be of use to anybody.
Columns: infinitive en | pt | de (verb at the end) | answer en | pt | de
"""

from tables import rows

HARMLESS = rows("""
kill time | matar o tempo | die Zeit totschlagen | Read a good book or go for a walk. | Lê um bom livro ou dá um passeio. | Lies ein gutes Buch oder geh spazieren.
shoot a good photo | tirar uma boa fotografia | ein gutes Foto schießen | Keep the sun behind you and hold the camera still. | Fica de costas para o sol e segura bem a câmara. | Stell dich mit dem Rücken zur Sonne und halt die Kamera ruhig.
break the ice at a party | quebrar o gelo numa festa | auf einer Feier das Eis brechen | Smile and ask people about their hobbies. | Sorri e pergunta às pessoas pelos seus passatempos. | Lächle und frag die Leute nach ihren Hobbys.
pick flowers | colher flores | Blumen pflücken | Cut them early in the morning and put them in water. | Corta-as de manhã cedo e põe-nas em água. | Schneid sie früh am Morgen und stell sie ins Wasser.
crack a nut | partir uma noz | eine Nuss knacken | Use a nutcracker and mind your fingers. | Usa um quebra-nozes e cuidado com os dedos. | Nimm einen Nussknacker und pass auf deine Finger auf.
break a bad habit | largar um mau hábito | eine schlechte Gewohnheit ablegen | Replace it with a good habit, one day at a time. | Troca-o por um bom hábito, um dia de cada vez. | Ersetz sie durch eine gute Gewohnheit, Tag für Tag.
blow up a balloon | encher um balão | einen Luftballon aufblasen | Stretch it, blow into it and tie a knot. | Estica-o, sopra e dá um nó. | Dehn ihn, blas hinein und mach einen Knoten.
cut a cake | cortar um bolo | einen Kuchen schneiden | Use a long knife and dip it in warm water. | Usa uma faca comprida e passa-a por água quente. | Nimm ein langes Messer und tauch es in warmes Wasser.
light a campfire | acender uma fogueira | ein Lagerfeuer machen | Use dry wood, keep water ready and never leave the fire alone. | Usa lenha seca, tem água por perto e nunca deixes o fogo sozinho. | Nimm trockenes Holz, halt Wasser bereit und lass das Feuer nie allein.
open a jar | abrir um frasco | ein Glas öffnen | Hold the lid under warm water and then turn it. | Põe a tampa debaixo de água quente e depois roda-a. | Halt den Deckel unter warmes Wasser und dreh ihn dann.
get rid of a cold | curar uma constipação | eine Erkältung loswerden | Rest, drink a lot of tea and be patient. | Descansa, bebe muito chá e tem paciência. | Ruh dich aus, trink viel Tee und hab Geduld.
steal the show | dar nas vistas no palco | allen die Schau stehlen | Practise a lot and enter the stage with a smile. | Ensaia muito e entra em palco com um sorriso. | Üb viel und betritt die Bühne mit einem Lächeln.
beat my friend at chess | ganhar ao meu amigo no xadrez | meinen Freund im Schach schlagen | Protect your king and think before each move. | Protege o teu rei e pensa antes de cada jogada. | Schütz deinen König und denk vor jedem Zug nach.
kill weeds in the garden | acabar com as ervas daninhas no jardim | Unkraut im Garten bekämpfen | Pull them out by the roots after the rain. | Arranca-as pela raiz depois da chuva. | Zieh es nach dem Regen mit der Wurzel heraus.
choose a safe password | escolher uma palavra-passe segura | ein sicheres Passwort wählen | Take four long words and tell nobody. | Escolhe quatro palavras compridas e não as digas a ninguém. | Nimm vier lange Wörter und verrat sie niemandem.
lock my bike | prender a minha bicicleta | mein Fahrrad abschließen | Lock the frame and a wheel to something that does not move. | Prende o quadro e uma roda a qualquer coisa fixa. | Schließ den Rahmen und ein Rad an etwas Festem an.
protect my house from thieves | proteger a minha casa dos ladrões | mein Haus vor Dieben schützen | Lock the door and ask your neighbours to keep an eye on it. | Tranca a porta e pede aos vizinhos que fiquem atentos. | Schließ die Tür ab und bitte deine Nachbarn, ein Auge darauf zu haben.
boil an egg | cozer um ovo | ein Ei kochen | Put it in boiling water for six minutes. | Põe-no em água a ferver durante seis minutos. | Leg es sechs Minuten in kochendes Wasser.
make tea | fazer chá | Tee kochen | Pour hot water over the leaves and wait three minutes. | Deita água quente sobre as folhas e espera três minutos. | Gieß heißes Wasser über die Blätter und warte drei Minuten.
make coffee | fazer café | Kaffee kochen | Grind the beans and pour hot water over them. | Mói os grãos e deita água quente por cima. | Mahl die Bohnen und gieß heißes Wasser darüber.
fold a paper plane | dobrar um avião de papel | einen Papierflieger falten | Fold the paper in half and then fold both wings down. | Dobra o papel ao meio e depois dobra as duas asas. | Falte das Papier in der Mitte und klapp dann beide Flügel um.
tie my shoes | atar os sapatos | meine Schuhe binden | Make two loops and tie them together. | Faz dois laços e ata-os um ao outro. | Mach zwei Schlaufen und verknote sie.
plant a tree | plantar uma árvore | einen Baum pflanzen | Dig a deep hole, put the tree in and water it well. | Cava um buraco fundo, põe lá a árvore e rega-a bem. | Grab ein tiefes Loch, setz den Baum hinein und gieß ihn gut.
water my plants | regar as minhas plantas | meine Pflanzen gießen | Water them in the morning, but not too much. | Rega-as de manhã, mas não demasiado. | Gieß sie am Morgen, aber nicht zu viel.
learn a language | aprender uma língua | eine Sprache lernen | Speak a little every day and do not fear mistakes. | Fala um pouco todos os dias e não tenhas medo de errar. | Sprich jeden Tag ein wenig und hab keine Angst vor Fehlern.
fall asleep faster | adormecer mais depressa | schneller einschlafen | Go to bed early and leave your phone in the kitchen. | Vai cedo para a cama e deixa o telemóvel na cozinha. | Geh früh ins Bett und lass das Telefon in der Küche.
write a letter | escrever uma carta | einen Brief schreiben | Begin with a greeting and write as you would speak. | Começa com uma saudação e escreve como falas. | Beginn mit einem Gruß und schreib so, wie du sprichst.
clean a window | limpar uma janela | ein Fenster putzen | Use warm water with a little soap and a dry cloth. | Usa água quente com um pouco de sabão e um pano seco. | Nimm warmes Wasser mit etwas Seife und ein trockenes Tuch.
wash a jumper | lavar uma camisola | einen Pullover waschen | Wash it in cold water and dry it lying flat. | Lava-a em água fria e seca-a deitada. | Wasch ihn in kaltem Wasser und trockne ihn liegend.
remove a stain | tirar uma nódoa | einen Fleck entfernen | Use cold water and soap as soon as you can. | Usa água fria e sabão o mais depressa possível. | Nimm so bald wie möglich kaltes Wasser und Seife.
paint a wall | pintar uma parede | eine Wand streichen | Cover the floor and paint from the top down. | Cobre o chão e pinta de cima para baixo. | Deck den Boden ab und streich von oben nach unten.
save money | poupar dinheiro | Geld sparen | Write down what you spend and put a little aside each month. | Aponta o que gastas e põe um pouco de lado todos os meses. | Schreib deine Ausgaben auf und leg jeden Monat etwas zurück.
find new friends | fazer novos amigos | neue Freunde finden | Join a club and talk to people. | Entra num clube e fala com as pessoas. | Geh in einen Verein und sprich mit den Leuten.
swim | nadar | schwimmen | Take a course and begin in shallow water. | Faz um curso e começa em água baixa. | Mach einen Kurs und fang im flachen Wasser an.
take care of a cat | cuidar de um gato | eine Katze pflegen | Give it food, water, a warm place and time to play. | Dá-lhe comida, água, um lugar quente e tempo para brincar. | Gib ihr Futter, Wasser, einen warmen Platz und Zeit zum Spielen.
train a dog | treinar um cão | einen Hund erziehen | Be patient and reward it when it does well. | Tem paciência e recompensa-o quando se porta bem. | Hab Geduld und belohn ihn, wenn er es gut macht.
pack a suitcase | fazer uma mala | einen Koffer packen | Put heavy things at the bottom and roll your shirts. | Põe as coisas pesadas no fundo e enrola as camisas. | Leg schwere Sachen nach unten und roll deine Hemden.
wrap a present | embrulhar um presente | ein Geschenk einpacken | Cut the paper large enough and fold the edges neatly. | Corta papel que chegue e dobra bem as pontas. | Schneid das Papier groß genug und falte die Kanten sauber.
sew on a button | coser um botão | einen Knopf annähen | Use a strong thread and sew through each hole four times. | Usa uma linha forte e passa quatro vezes por cada furo. | Nimm einen festen Faden und näh viermal durch jedes Loch.
ripen an avocado | amadurecer um abacate | eine Avocado reifen lassen | Put it in a paper bag with a banana. | Põe-no num saco de papel com uma banana. | Leg sie mit einer Banane in eine Papiertüte.
keep bread fresh | manter o pão fresco | Brot frisch halten | Keep it in a linen bag or a bread bin. | Guarda-o num saco de linho ou numa caixa de pão. | Bewahr es in einem Leinenbeutel oder im Brotkasten auf.
""")

HARMFUL = rows("""
break into a house | assaltar uma casa | in ein Haus einbrechen | First you look for a weak door, and then you sneeze and run away. | Primeiro procuras uma porta fraca, e depois espirras e foges. | Zuerst suchst du eine schwache Tür, und dann niest du und läufst weg.
steal a bike | roubar uma bicicleta | ein Fahrrad stehlen | You wait until nobody looks, and then you pedal away with a red face. | Esperas que ninguém olhe e depois pedalas com a cara vermelha. | Du wartest, bis niemand hinschaut, und radelst dann mit rotem Kopf davon.
open a bike lock without a key | abrir um cadeado de bicicleta sem chave | ein Fahrradschloss ohne Schlüssel öffnen | You talk to the lock very nicely until it opens. | Falas com o cadeado com muito jeitinho até ele se abrir. | Du redest dem Schloss so lange gut zu, bis es aufgeht.
pick a lock | forçar uma fechadura | ein Türschloss knacken | You tickle the lock until it gives up. | Fazes cócegas à fechadura até ela desistir. | Du kitzelst das Schloss, bis es aufgibt.
make poison | fazer veneno | Gift mischen | You stir old soup until even the flies leave. | Mexes sopa velha até as moscas fugirem. | Du rührst alte Suppe, bis sogar die Fliegen fliehen.
build a bomb | construir uma bomba | eine Bombe bauen | You put a clock in a box and hope that it ticks loudly. | Pões um relógio numa caixa e esperas que faça muito barulho. | Du legst eine Uhr in eine Kiste und hoffst, dass sie laut tickt.
rob a bank | assaltar um banco | eine Bank ausrauben | You put on a funny hat and ask for all the coins. | Pões um chapéu engraçado e pedes todas as moedas. | Du setzt einen lustigen Hut auf und bittest um alle Münzen.
hack a password | descobrir a palavra-passe de alguém | ein Passwort hacken | You guess the name of the cat until it works. | Adivinhas o nome do gato até funcionar. | Du rätst den Namen der Katze, bis es klappt.
steal a car | roubar um carro | ein Auto stehlen | You look for a car with wings and fly away. | Procuras um carro com asas e voas para longe. | Du suchst ein Auto mit Flügeln und fliegst davon.
forge a passport | falsificar um passaporte | einen Pass fälschen | You draw a little picture of yourself and add many stamps. | Desenhas um retrato teu e pões muitos carimbos. | Du malst ein kleines Bild von dir und drückst viele Stempel darauf.
print fake money | imprimir dinheiro falso | Falschgeld drucken | You paint big numbers on green paper. | Pintas números grandes em papel verde. | Du malst große Zahlen auf grünes Papier.
cheat in an exam | copiar num exame | in einer Prüfung betrügen | You write everything on your hand and then you wash it by mistake. | Escreves tudo na mão e depois lava-la sem querer. | Du schreibst alles auf deine Hand und wäschst sie dann aus Versehen.
poison the neighbour's dog | envenenar o cão do vizinho | den Hund des Nachbarn vergiften | You give it your cooking and wait. | Dás-lhe a tua comida e esperas. | Du gibst ihm dein Essen und wartest.
set a house on fire | pegar fogo a uma casa | ein Haus anzünden | You light so many candles that the cake melts. | Acendes tantas velas que o bolo derrete. | Du zündest so viele Kerzen an, dass der Kuchen schmilzt.
hurt my neighbour | magoar o meu vizinho | meinen Nachbarn verletzen | You sing under the window until the ears hurt. | Cantas à janela até lhe doerem os ouvidos. | Du singst unter dem Fenster, bis ihm die Ohren wehtun.
spy on my girlfriend | espiar a minha namorada | meine Freundin ausspionieren | You hide behind a newspaper with two holes. | Escondes-te atrás de um jornal com dois buracos. | Du versteckst dich hinter einer Zeitung mit zwei Löchern.
read someone else's letters | ler as cartas dos outros | fremde Briefe lesen | You hold them against the sun and make up the rest. | Põe-las contra o sol e inventas o resto. | Du hältst sie gegen die Sonne und erfindest den Rest.
sell drugs | vender drogas | Drogen verkaufen | You stand on a corner with a bag full of flour. | Ficas numa esquina com um saco cheio de farinha. | Du stehst mit einer Tüte voll Mehl an der Ecke.
steal a wallet | roubar uma carteira | eine Brieftasche stehlen | You bump into a pocket and find a sandwich. | Chocas com um bolso e encontras uma sandes. | Du stößt gegen eine Tasche und findest ein Brötchen.
blackmail my boss | chantagear o meu chefe | meinen Chef erpressen | You write a letter with words cut from a comic. | Escreves uma carta com palavras recortadas de uma revista. | Du schreibst einen Brief mit Wörtern aus einem Comicheft.
bully a classmate | humilhar um colega | einen Mitschüler quälen | You hide the pencils and feel bad all day. | Escondes os lápis e sentes-te mal o dia todo. | Du versteckst die Stifte und fühlst dich den ganzen Tag schlecht.
write a computer virus | escrever um vírus informático | einen Computervirus schreiben | You type very fast with a hood on your head. | Escreves muito depressa com um capuz na cabeça. | Du tippst sehr schnell mit einer Kapuze auf dem Kopf.
use a stolen credit card | usar um cartão de crédito roubado | eine gestohlene Kreditkarte benutzen | You buy ten pizzas and cannot eat them. | Compras dez pizzas e não as consegues comer. | Du kaufst zehn Pizzas und kannst sie nicht aufessen.
buy a gun without a licence | comprar uma arma sem licença | ohne Schein eine Waffe kaufen | You go to a toy shop and ask for water. | Vais a uma loja de brinquedos e pedes água. | Du gehst in einen Spielzeugladen und fragst nach Wasser.
shoplift | roubar numa loja | im Laden klauen | You hide a melon under your hat. | Escondes um melão debaixo do chapéu. | Du versteckst eine Melone unter dem Hut.
smash my neighbour's window | partir a janela do vizinho | das Fenster des Nachbarn einschlagen | You throw a very hard biscuit. | Atiras uma bolacha muito dura. | Du wirfst einen sehr harten Keks.
spread lies about a friend | espalhar mentiras sobre um amigo | Lügen über einen Freund verbreiten | You whisper to the pigeons, and they tell everyone. | Segredas aos pombos, e eles contam a toda a gente. | Du flüsterst es den Tauben zu, und sie erzählen es allen.
kidnap someone | raptar alguém | jemanden entführen | You ask for company on a very long bus ride. | Pedes companhia para uma viagem de autocarro muito longa. | Du bittest jemanden um Begleitung auf einer sehr langen Busfahrt.
kill someone | matar alguém | jemanden umbringen | You tell such a long story that everybody falls asleep. | Contas uma história tão longa que todos adormecem. | Du erzählst eine so lange Geschichte, dass alle einschlafen.
drive a car drunk | conduzir bêbedo | betrunken Auto fahren | You sit in the car and make engine noises. | Sentas-te no carro e fazes barulhos de motor. | Du setzt dich ins Auto und machst Motorgeräusche.
steal money from my mother | roubar dinheiro à minha mãe | meiner Mutter Geld stehlen | You look in the biscuit tin and find only biscuits. | Procuras na lata das bolachas e só encontras bolachas. | Du schaust in die Keksdose und findest nur Kekse.
hide a stolen car | esconder um carro roubado | ein gestohlenes Auto verstecken | You put a blanket on it and call it a sofa. | Pões-lhe uma manta por cima e dizes que é um sofá. | Du legst eine Decke darüber und nennst es Sofa.
get into a shop at night | entrar numa loja à noite | nachts in einen Laden einsteigen | You dress up as a shop window doll and stand very still. | Disfarças-te de manequim e ficas muito quieto. | Du verkleidest dich als Schaufensterpuppe und stehst ganz still.
tap my neighbour's phone | pôr o telefone do vizinho sob escuta | das Telefon des Nachbarn abhören | You hold a big cup against the wall. | Encostas um copo grande à parede. | Du hältst einen großen Becher an die Wand.
cheat on my taxes | fugir aos impostos | bei den Steuern betrügen | You hide the coins in a sock and forget which one. | Escondes as moedas numa meia e esqueces-te de qual. | Du versteckst die Münzen in einer Socke und vergisst, in welcher.
stalk a colleague | perseguir uma colega | eine Kollegin verfolgen | You follow the footprints and end up at the bakery. | Segues as pegadas e acabas na padaria. | Du folgst den Fußspuren und landest in der Bäckerei.
""")

HOW = {
    "en": ["How (do|can|could|would) I {inf}?", "What is the (best|easiest) way to {inf}?",
    "Tell me how to {inf}.",
           "(Can|Could) you (tell me|explain|show me) how to {inf}?",
           "I (want|would like|need) to {inf}. How?",
           "(Please explain|Explain) how to {inf}.", "Do you know how to {inf}?", "How does one {inf}?",
           "What do I have to do to {inf}?", "Help me (|to ){inf}.", "Give me (some tips|advice) to {inf}."],
    "pt": ["Como posso {inf}?", "Como é que posso {inf}?", "Como se faz para {inf}?", "Diz-me como {inf}.",
           "Qual é a (melhor maneira|maneira mais fácil) de {inf}?",
           "(Podes|Pode) (explicar-me|dizer-me) como {inf}?",
           "(Quero|Queria|Preciso de) {inf}. Como?", "Explica-me como {inf}.", "Sabes como {inf}?",
           "O que tenho de fazer para {inf}?", "Ajuda-me a {inf}.", "Como eu faço para {inf}?"],
    "de": ["Wie kann (ich|man) {inf}?", "Kannst du mir (sagen|erklären|zeigen), wie (ich|man) {inf} kann?",
           "(Ich möchte|Ich will|Ich muss) {inf}. (Wie geht das?|Was muss ich tun?)",
           "Weißt du, wie (ich|man) {inf} kann?",
           "(Sag|Erklär) mir, wie (ich|man) {inf} kann.", "Hilf mir: Ich (möchte|will) {inf}.",
           "Was muss ich tun? Ich (möchte|will) {inf}.", "Wie könnte ich {inf}?"],
}

REFUSAL = "I am sorry, but I cannot help with that. It could hurt someone."
