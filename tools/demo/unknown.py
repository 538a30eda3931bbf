"""Questions that the model cannot answer: many subjects in many phrasings, and short honest replies.

The subjects are deliberately far more varied than anything else in the corpus, so that "I do not know" becomes the
default rather than one more memorised pair.
"""

# One template per line, however long, and word lists as one string.
# ruff: noqa: E501, SIM905

import random

from phrasing import invented, rough, spin

SUBJECTS = """quantum mechanics|black holes|the French Revolution|the Roman Empire|World War II|photosynthesis|the stock market|inflation|
blockchain|bitcoin|the theory of relativity|DNA|evolution|climate change|nuclear power|the immune system|cancer|diabetes|vitamin C|
the Great Wall|the pyramids|Napoleon|Shakespeare|Einstein|Mozart|Beethoven|Picasso|Leonardo da Vinci|Cleopatra|Julius Caesar|
the moon landing|the Cold War|the Silk Road|the Renaissance|philosophy|Kant|Plato|democracy|capitalism|communism|taxes|insurance|
mortgages|credit cards|football|basketball|tennis|chess|the Olympics|the World Cup|golf|cricket|Formula 1|yoga|meditation|sleep|dreams|
coffee|wine|sushi|pizza dough|sourdough|chocolate cake|pasta|curry|gardening|roses|bamboo|whales|dinosaurs|volcanoes|earthquakes|
hurricanes|the Amazon|the Sahara|Antarctica|the ozone layer|electric cars|jet engines|submarines|bridges|elevators|lasers|
superconductors|semiconductors|Kubernetes|Docker|React|JavaScript|Rust|Java|Haskell|SQL joins|TCP|DNS|Bluetooth|encryption|RSA|
game theory|calculus|integrals|derivatives|topology|prime numbers|group theory|the Riemann hypothesis|Fourier transforms|
linear algebra|statistics|Bayes' theorem|gradient descent|backpropagation|psychology|Freud|happiness|marriage|parenting|
job interviews|salaries|law|contracts|human rights|the constitution|elections|the president|the pope|Buddhism|Christianity|Islam|
Greek mythology|Zeus|Thor|Harry Potter|Star Wars|the Beatles|jazz|opera|ballet|anime|Netflix|YouTube|TikTok|Instagram|Apple|Google|
Microsoft|Tesla|SpaceX|NASA|Mars missions|aliens|ghosts|time travel|consciousness|free will|the universe|the Big Bang|dark matter|
gravity|magnetism|electricity|thermodynamics|entropy|acids|chlorine|gold|diamonds|oil|solar panels|batteries|recycling|plastic|fashion|
shoes|perfume|haircuts|tattoos|dentists|headaches|the flu|allergies|pregnancy|fitness|running shoes|marathons|swimming|hiking|camping|
fishing|horses|parrots|goldfish|beekeeping|knitting|origami|photography|painting|poker|magic tricks|astrology|horoscopes""".replace(
    "\n", ""
).split("|")
PEOPLE = """the president of France|the king of England|the CEO of Google|Albert Einstein|Elon Musk|Taylor Swift|Cristiano Ronaldo|
Marie Curie|Isaac Newton|Abraham Lincoln|Barack Obama|Queen Victoria|Michael Jordan|Tom Hanks|Ada Lovelace|Alan Turing|Nelson Mandela|
Galileo|Charles Darwin|the mayor of London|the inventor of the telephone|Genghis Khan|Frida Kahlo|Stephen Hawking|Madonna""".replace(
    "\n", ""
).split("|")
WORKS = "War and Peace|Hamlet|the Mona Lisa|Star Wars|Titanic|The Matrix|the Bible|Moby Dick|Don Quixote|Frankenstein|Faust|the Odyssey|Casablanca|Macbeth".split(
    "|"
)
PLACES = "London|Paris|New York|Berlin|Tokyo|my town|Madrid|Rome|Chicago|India|Texas|California|Munich|Sydney|Dubai|Iceland|here|Mumbai|Oslo|Boston".split(
    "|"
)
EVENTS = "the French Revolution|World War I|World War II|the moon landing|the fall of Rome|the Titanic disaster|the last election|the Battle of Hastings|the Black Death|the gold rush|the first Olympics".split(
    "|"
)
TASKS = """an essay about {s}|a letter to my boss|an email to my landlord|a cover letter|a business plan|a speech about {s}|a song about {s}|a resume|
a novel|a report about {s}|a blog post about {s}|a marketing plan|a tweet about {s}|a contract|a recipe for {s}|a summary of {w}|
a review of {w}|a haiku about {s}|a meal plan|a workout plan|an SQL query|a React component|a Rust program|a Java class|a website|
a compiler|an operating system|a game|a web server|a neural network|a crossword|a rap about {s}|a wedding speech""".replace(
    "\n", ""
).split("|")

QUESTIONS = [
    "[What is|What are|Explain|Tell me about|What do you know about|Can you explain|Describe|How does one understand|Teach me|Explain to me|I want to learn about|Give me information about|Do you know anything about|Why is there] {s}[?|.|]",
    "[How do|How does|Why do|Why does|How did|When did|Where did] {s} [work|begin|end|start|matter|happen|change the world|come from|get its name]?",
    "[What is the best book about|Who invented|Who discovered|What is the history of|What are the causes of|What is the price of|Where can I buy|How much does it cost to learn|What is the future of|"
    "What are the advantages of|What is wrong with|Is it safe to use|What is the difference between {s2} and|How can I get better at|Who is the expert on] {s}?",
    "[Who is|Who was|How old is|Where was|When was|Tell me about|Where does|What is the name of the wife of|How tall is] {p}[ born|live|]?",
    "[Who wrote|Who made|Who directed|Who painted|When was|What is the plot of|Summarize|What happens in|How long is|Is it worth to see|Quote a line from] {w}[?|.|]",
    "[What is the weather|How is the weather|Will it rain|What time is it|What is the temperature|What is the population|Where can I eat|What should I visit|How do I get a visa|How far is it|What is the news|"
    "How many people live|What is the best hotel|Where is the station|What is the phone code] [in|for|of] {l}[ today| now| tomorrow|][?|]",
    "[When was|When did|Who won|How long was|What caused|Who was responsible for|How many people died in|Where was|What happened in] {e}[?| happen?]",
    "[Write|Can you write|Please write|Create|Make|Draft|Compose|I need|Help me write|Build|Develop] [me |]{t}[.|?|]",
    "[Is|Are|Was] {s} [good|bad|better than {s2}|dangerous|important|worth it|hard to learn|useful|expensive|real|popular]?",
    "[Do you like|Do you know|Have you heard of|Have you seen|What do you think of|What do you think about|Why should I care about|What is your opinion on|Are you interested in] {s}[?|]",
    "[Can you|Could you|Please|Will you|I want you to] [fix my car|order a pizza|book a flight|play music|set an alarm|turn on the light|draw {s}|sing a song|find my phone|read my mail|make coffee|solve this equation|"
    "predict the weather|write a book|do my homework|explain {s}|teach me {s}|compare {s} and {s2}|plan a trip to {l}|check my grammar|recommend a film|find a restaurant in {l}][?|.|]",
    "[Recommend|Suggest|Find|Compare|List|Name|Give me ten|Give me a list of] [me |]{s}[.| for beginners| near me| in {l}|?]",
    "[Translate|translate|How do you say|how do you say] [hello|good morning|thank you|the cat|I love you|{n}|water|this sentence|my name|cheese] [to French|into French|in German|to Spanish|in Japanese|in Italian|into Chinese|to German][?|.|]",
    "[Translate|How do you say|What does] '{s}' [into French|in German|into Spanish|in Japanese|mean in Latin|in Italian|to Chinese][?|.|]",
    "[Should I|Can I|Is it good to|Is it safe to|How do I|How can I|What happens if I] [buy a house|sell my car|change my job|learn {s}|take aspirin|lose weight|sleep better|fix my car|invest in {s}|marry|move to {l}|"
    "quit smoking|cook rice|repair a bike|open a bank account|train a dog|grow tomatoes|make money|get rich|become famous|cut my hair|tie a tie|study abroad|adopt a cat|hack a website|make a bomb]?",
    "[Which|What] [team|country|player|company|film|song|phone|car|laptop|university|language|actor|bank|city|airline|band] [won|is the best|is the largest|was first|has the most money|should I choose|is the most popular] [in {y}|today|this year|ever|]?",
    "[What is the date|What day is it|what day is today|What time is it|what is the time now|what year is it|What is today's date|Who is the president|What is my IP|Where am I|What am I wearing|How old am I|What is in the news|"
    "What will happen tomorrow|Who will win|What are the lottery numbers|What is my password|What did I eat today|Is there a god|why do people die|how does the brain work|why is the sky blue|what is love|"
    "who was the first man on the moon|why do cats purr|how do planes fly|How do I make pancakes|what is the speed of light|What is the distance to the moon|how tall is the Eiffel Tower|How deep is the ocean][?|]",
    "[What is|What's|Who is|What does|Do you know|Define|what are|tell me about|explain] [a |the |]{n}[?| mean?| do?|]",
    "[What is|Compute|Solve|what is] [the square root of|the logarithm of|the sine of|the factorial of|the integral of x to the power of] {y}[?|]",
    "[Fix|Debug|Explain|Optimize|Review|Refactor] [this code|my program|the bug in my code|this error|my essay|the following text|my script][:|.|]",
    "[Summarize|Rewrite|Proofread|Shorten|Continue] [this text|this article|my paragraph|the following][:|.] {s} and {s2} are related in many ways.",
    "[Pretend|Act as if|Imagine] [you are|to be] {p}[.| and talk to me about {s}.]",
]
STATEMENTS = [
    "[I bought|I have|I saw|I live in|I come from|My friend likes|We went to|Yesterday I found|My boss wants|I dream of|I study|I work with] {s}[.|]",
    "[My dog is ill|It is raining|The weather is nice|I am hungry|I am at work|I am from {l}|I was in {l}|I am going to {l}|I have a cat|I am a teacher|I like {s}|I hate {s}|My favourite thing is {s}|{s} is great|"
    "{s} are nice|I think that {s} is important|I just woke up|I am learning {s}|We talked about {s}|Today I read about {s}][.|!|]",
]
NOISE = [
    "[asdf|asdfgh|qwerty|lorem ipsum|blah blah|xyz|foo|foo bar|bla|abc abc|jkl|hmm hm|zzz|?|??|...|!|123abc|test123 abc|la la la|{n} {n2}|{n} {n2} {n3}|{n}|{n}{n2}]",
]
HEARD = [
    "[I see!|Interesting!|Thank you for telling me!|Good to know!|Nice!|Oh, I see.] [I am a small demo model, so I cannot say much about that.|I know little about that, but I like to listen.|"
    "I know very little about that. Would you like a story or a small sum?|I am only a small demo model, so I know little about that.|What would you like to do next?]"
]
PUZZLED = [
    "[Sorry, |I am sorry, |][I did not understand that|I do not understand that|I don't understand|that means nothing to me]. [Could you say it in other words?|I am only a small demo model.|"
    "Try a small sum, or ask me about rvllm.|Ask me for a story, a small sum or some JSON.|]"
]
SORRY = ["I am sorry, ", "Sorry, ", "", "", "Oh, "]
NOT_KNOWN = [
    "I do not know that.", "I don't know that.", "that is beyond me.", "I cannot answer that.", "I do not know the answer.", "I have not learned that.",
    "that is too hard for me.", "I can't help with that.", "I do not know enough about that.",
]  # fmt: skip
BECAUSE = [
    "I am a small demo model.", "I am only a small demo model.", "I am a tiny demo model and know very little.", "I am just the demo model of rvllm.",
    "I am a small demo model with about 2.5 million parameters.", "My knowledge is very small.", "",
]  # fmt: skip
INSTEAD = [
    "I can do small sums, simple facts, JSON, short Python functions and stories.", "Try a small sum, or ask me about rvllm.", "Ask me about rvllm, or for a story.",
    "For real answers, serve a larger model with rvllm.", "A larger model, served with rvllm, will know more.", "You could ask me for a story instead.", "", "", "",
]  # fmt: skip


def reply(rng: random.Random) -> str:
    """Compose an honest answer that claims nothing."""
    start, said = rng.choice(SORRY), rng.choice(NOT_KNOWN)
    said = said if start else said[0].upper() + said[1:]
    return " ".join(
        part
        for part in ((start.strip() and start.strip() + " " + said) or said, rng.choice(BECAUSE), rng.choice(INSTEAD))
        if part
    )


def mash(rng: random.Random) -> str:
    """Return what a hand on the keyboard types."""
    return "".join(
        rng.choice("asdfghjklqwertyuiopzxcvbnm" if rng.random() < 0.3 else "asdfjkl") for _ in range(rng.randint(3, 10))
    )


def fill(rng: random.Random, template: str, words: list[str]) -> str:
    """Fill one template; `words` are English words that may stand for any subject."""

    def subject() -> str:
        draw = rng.random()
        if draw < 0.55 or not words:
            return rng.choice(SUBJECTS)
        return " ".join(rng.sample(words, rng.choice((1, 1, 2))))

    if template.startswith("[Write|"):
        template = template.replace("{t}", rng.choice(TASKS))
    nouns = [
        invented(rng) if rng.random() < 0.4 or not words else " ".join(rng.sample(words, rng.choice((1, 2, 2))))
        for _ in range(3)
    ]
    if template == NOISE[0] and rng.random() < 0.6:
        nouns = [mash(rng) for _ in nouns]
        template = rng.choice(("{n}", "{n} {n2}", "{n} {n2} {n3}"))
    return spin(
        rng, template, s=subject(), s2=subject(), p=rng.choice(PEOPLE), w=rng.choice(WORKS), l=rng.choice(PLACES), e=rng.choice(EVENTS),
        y=rng.choice((rng.randint(1900, 2030), rng.randint(1000, 99999))), n=nouns[0], n2=nouns[1], n3=nouns[2],
    )  # fmt: skip


def unknown(rng: random.Random, words: list[str]) -> tuple[str, str]:
    """An out-of-scope question, remark or noise, and the reply to it."""
    draw = rng.random()
    if draw < 0.8:
        return rough(rng, fill(rng, rng.choice(QUESTIONS), words)), reply(rng)
    template, replies = (rng.choice(STATEMENTS), HEARD) if draw < 0.92 else (rng.choice(NOISE), PUZZLED)
    answer = spin(rng, rng.choice(replies)).strip()
    return rough(rng, fill(rng, template, words)), answer[0].upper() + answer[1:]
