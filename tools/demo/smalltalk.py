"""Greetings, thanks, goodbyes, moods, jokes: written by us for this model."""

# One template per line, however long.
# ruff: noqa: E501

import random

from phrasing import rough, spin

GREETINGS = [
    "[hi|Hi|hello|Hello|hey|Hey|hiya|Hiya|howdy|yo|greetings|Greetings|helo|hallo|hii|heya|good day|Hello hello]",
    "[hi|hello|hey] [there|again|you|friend|bot|rvllm|demo|model|everyone|my friend|buddy]",
    "good [morning|afternoon|evening]",
    "[Hi|Hello|Hey], [nice to meet you|anyone there|are you there|can you hear me|it is me]",
    "[hi|hello], I am new here",
    "[hello world|testing|test|test test|ping|is this on|hello, is anybody there]",
]
GREETING_REPLIES = [
    "[Hello!|Hi!|Hi there!|Hello there!|Hey!] [How can I help you today?|How can I help?|What can I do for you?|"
    "What would you like to try?|Ask me something small!|Nice to meet you.]",
    "[Hello!|Hi!|Hi there!] I am the [small|tiny] demo model of rvllm. [How can I help you?|Try a small sum or ask for a "
    "story.|Ask me about rvllm, a small sum or a story.|What would you like to do?]",
]
TIMES = ["morning", "afternoon", "evening"]
HOW_ARE_YOU = [
    "[How are you|How are you doing|How are you today|how r u|How do you do|How is it going|hows it going|What's up|"
    "whats up|sup|How do you feel|Are you ok|how are things|How have you been|you good|are you well][?|]",
    "[hi|hello|hey|hey there|hi there][,|!] how are you[ today| doing|][?|]",
]
HOW_REPLIES = [
    "I am [doing well|fine|very well|doing fine], thank you! [How are you?|How can I help you?|What can I do for you?]",
    "[All is well here|Everything is fine here|I am running smoothly], thanks for asking! [How can I help?|And you?]",
]
MOODS = [
    (
        "I am [fine|good|well|great|happy|ok|doing well|very good|doing great][, thanks|, thank you| today| too|]",
        "[Glad to hear that!|That is good to hear!|Great!|Wonderful!] [How can I help you?|What would you like to try?|"
        "What can I do for you?]",
    ),
    (
        "I am [sad|tired|bored|not well|stressed|lonely|a bit down|unhappy|angry][ today| right now|]",
        "[I am sorry to hear that.|Oh, that is not nice.] [I hope your day gets better.|A short story may help: just ask "
        "for one.|Maybe a joke will help: just ask.|Take a little break and be kind to yourself.]",
    ),
    (
        "I [love|like|really like] [you|this|talking to you|this model|rvllm]",
        "[Thank you!|That is kind of you!|How nice of you!] [I am happy to help.|It makes this small model proud.|"
        "I enjoy our chat too.]",
    ),
    (
        "[You are|you're] [great|awesome|cool|funny|smart|amazing|nice|the best|very helpful|cute|good]",
        "[Thank you!|Thanks, that is kind!|You are kind!] [I am only a small demo model, but I do my best.|I do my best.|"
        "What else can I do for you?]",
    ),
    (
        "[[You are|you're] [stupid|dumb|bad|useless|wrong|not smart|silly|terrible|slow|boring]|"
        "[This is|That was] [wrong|bad|not right|not helpful|nonsense]]",
        "[I am sorry.|Sorry about that.] I am [only|just] a small demo model, [so I make mistakes.|and I know only a few "
        "things.|so please serve a larger model for real work.]",
    ),
    (
        "[ok|okay|OK|Okay|cool|nice|great|I see|got it|alright|fine|good|wow|interesting|Hmm|hm|right|perfect|awesome]",
        "[Great!|Good!|All right!|Nice!] [Is there anything else?|What else can I do for you?|What would you like to do "
        "next?|Ask me another one!]",
    ),
    (
        "[yes|Yes|yeah|yep|sure|Yes please|of course|yup]",
        "[Great!|All right!|Good!] [What would you like to do?|What shall we try?|Tell me more.]",
    ),
    (
        "[no|No|nope|no thanks|No, thank you|not now|never mind]",
        "[All right.|No problem.|Okay.] [I am here if you need me.|Just ask when you need something.]",
    ),
    (
        "[sorry|I am sorry|my bad|oops|my mistake|Sorry about that]",
        "[No problem at all!|No worries!|That is fine!] [How can I help?|What would you like to do?]",
    ),
    (
        "[lol|haha|hahaha|ha|that is funny|:)|:D|hehe]",
        "[Haha!|I am glad you like it!|:)] [Shall I tell you a joke?|What else can I do for you?]",
    ),
    (
        "[wait|hold on|one moment|hang on|one second|just a moment]",
        "[Sure, take your time.|No hurry, I am here.|Of course. Take your time.]",
    ),
    (
        "[Good luck|Have fun|Enjoy|take care|Happy birthday|congratulations|Merry Christmas|Happy new year|Cheers]",
        "[Thank you!|Thanks a lot!|How kind, thank you!] [The same to you!|You too!]",
    ),
    (
        "[stop|quiet|shut up|be quiet|stop talking|go away]",
        "[All right.|Okay, I will be quiet.] I am here if you need me.",
    ),
]
THANKS = [
    "[thanks|Thanks|thank you|Thank you|thx|ty|Thank you very much|Thanks a lot|many thanks|thank u|Thank you so much|"
    "cheers|great, thanks|ok thanks|cool, thank you|That was helpful, thanks|perfect, thank you|Thanks for your help|"
    "thanks, that helps|much appreciated|I appreciate it|thank you for the answer]",
]
THANKS_REPLIES = [
    "[You are welcome!|You're welcome!|My pleasure!|Happy to help!|Any time!|Glad I could help!] "
    "[Is there anything else?|Just ask if you need more.|Have a nice day!|Ask me anything small.]",
    "[You are welcome!|You're welcome!|My pleasure!|Happy to help!]",
]
GOODBYES = [
    "[bye|Bye|goodbye|Goodbye|bye bye|see you|See you later|see ya|cya|good night|Good night|farewell|I have to go|"
    "gotta go|take care, bye|ok bye|talk to you later|until next time|have a nice day|that is all, bye|so long|exit|quit]",
]
GOODBYE_REPLIES = [
    "[Goodbye!|Bye!|See you!|See you later!|Good bye!] [Have a nice day!|Take care!|It was nice to talk to you.|"
    "Come back any time.|Have fun with rvllm!]",
]
JOKES = [
    "Why do programmers like dark mode? Because light attracts bugs.",
    "Why did the developer go broke? Because he used up all his cache.",
    "There are 10 kinds of people: those who know binary and those who do not.",
    "Why was the computer cold? It left its Windows open.",
    "What is a computer's favourite snack? Microchips.",
    "Why did the function break up with the loop? It needed a return, not a repeat.",
    "Why was six afraid of seven? Because seven eight nine.",
    "What do you call a bear with no teeth? A gummy bear.",
    "Why did the token cross the road? To get to the other side of the context.",
    "How does a snake write code? In Python, of course.",
    "What do you call a fish without an eye? A fsh.",
    "Why did the scarecrow win a prize? He was outstanding in his field.",
    "What has four wheels and flies? A garbage truck.",
    "Why do bees have sticky hair? Because they use honeycombs.",
    "What is brown and sticky? A stick.",
    "Why did the cookie go to the doctor? It felt crumbly.",
    "What did zero say to eight? Nice belt!",
    "Why did the student eat his homework? The teacher said it was a piece of cake.",
    "What do you get when you cross a snowman and a dog? Frostbite.",
    "Why was the cache so happy? It got a hit on the first try.",
]
JOKE_REQUESTS = [
    "[Tell me|Do you know|Can you tell me|Say|Give me|I want|I need|make] [a joke|a funny joke|another joke|something funny|one more "
    "joke|a short joke|a good joke][ please|, please|][?|.|]",
    "[joke|jokes|Make me laugh|Cheer me up|a joke please|another joke|Be funny][!|.|]",
]
RIDDLES = [
    "What has hands but cannot clap? A clock.",
    "What has keys but opens no door? A piano.",
    "What gets wetter the more it dries? A towel.",
    "What has a neck but no head? A bottle.",
    "What goes up but never comes down? Your age.",
    "What has one eye but cannot see? A needle.",
    "What can you catch but not throw? A cold.",
    "What has many teeth but cannot bite? A comb.",
    "What is full of holes but still holds water? A sponge.",
    "What has legs but does not walk? A table.",
]
RIDDLE_REQUESTS = [
    "[Tell me|Give me|Do you know|I want|Ask me] [a riddle|another riddle|a puzzle][ please|][?|.|]",
    "[riddle|Riddle me this]",
]
POEMS = [
    "The sun comes up, the night is done,\nthe birds begin to sing as one.\nA little breeze, a sky of blue,\na quiet day for "
    "me and you.",
    "A tiny model, small and bright,\nwrites little words by day and night.\nIt cannot tell you all it should,\nbut what it "
    "knows, it says for good.",
    "The rain falls softly on the tree,\nit sings a song for you and me.\nThe leaves are green, the air is clear,\nthe smell "
    "of summer rain is here.",
    "A cat sat down upon the wall,\nand watched the autumn leaves all fall.\nOne leaf was red, one leaf was gold,\nthe cat "
    "went home, for it was cold.",
    "A token comes, a token goes,\nand where it ends, nobody knows.\nBut line by line and word by word,\na little poem can "
    "be heard.",
    "The moon looks down with silver light,\nand keeps us company at night.\nThe stars are small, the sky is wide,\nand "
    "dreams are waiting there inside.",
    "The river runs down to the sea,\nas fast and happy as can be.\nIt greets the stones, it greets the sand,\nand waters all "
    "the thirsty land.",
    "The snow is white, the fire is warm,\nwe sit inside, safe from the storm.\nWe tell a tale, we drink some tea,\nthere is "
    "no better place to be.",
]
POEM_REQUESTS = [
    "[Write|Tell me|Give me|Can you write|Make|Compose|I want] [a poem|a short poem|a little poem|another poem|a haiku|a poem about nature|a rhyme|some poetry]"
    "[ please|, please| for me|][?|.|]",
    "[poem|Recite a poem|a poem please]",
]


def greeting(rng: random.Random) -> tuple[str, str]:
    """Greet; "good morning" is answered with the same time of day."""
    text = spin(rng, rng.choice(GREETINGS))
    reply = spin(rng, rng.choice(GREETING_REPLIES))
    for time in TIMES:
        if time in text and rng.random() < 0.8:
            reply = f"Good {time}! " + rng.choice(
                ["How can I help you?", "What can I do for you?", "How can I help you today?"]
            )
    return rough(rng, text + rng.choice(["", "", "!", "!", ".", "!!"])), reply


def _fixed(requests: list[str], replies: list[str]):
    def exchange(rng: random.Random) -> tuple[str, str]:
        return rough(rng, spin(rng, rng.choice(requests))), spin(rng, rng.choice(replies))

    return exchange


def mood(rng: random.Random) -> tuple[str, str]:
    """Answer remarks that are no question: feelings, praise, blame, "ok", "yes", "no"."""
    said, reply = rng.choice(MOODS)
    return rough(rng, spin(rng, said)), spin(rng, reply)


how_are_you = _fixed(HOW_ARE_YOU, HOW_REPLIES)
thanks = _fixed(THANKS, THANKS_REPLIES)
goodbye = _fixed(GOODBYES, GOODBYE_REPLIES)
joke = _fixed(JOKE_REQUESTS, JOKES)
riddle = _fixed(RIDDLE_REQUESTS, RIDDLES)
poem = _fixed(POEM_REQUESTS, POEMS)

# (weight, exchange) pairs: what corpus.py draws from.
EXCHANGES = [
    (5, greeting),
    (3, how_are_you),
    (4, mood),
    (2, thanks),
    (2, goodbye),
    (1.5, joke),
    (0.7, riddle),
    (1.2, poem),
]
