"""A small closed set of facts: days, months, colours, animals, capitals, opposites, letters, units."""

# One template per line, however long, and word lists as one string.
# ruff: noqa: E501, SIM905

import random

from phrasing import invented, listing, rough, spin, with_article

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
MONTH_DAYS = dict(zip(MONTHS, (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31), strict=True))
ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
SEASONS = ["spring", "summer", "autumn", "winter"]
PLANETS = "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()
COLOURS = "red blue green yellow orange purple pink brown black white grey".split()
ANIMALS = (
    "dog cat horse cow sheep pig lion tiger bear fox wolf rabbit mouse elephant monkey duck owl frog bee goat".split()
)
FRUITS = "apple banana orange pear grape cherry lemon mango peach plum".split()
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon", "England": "London",
    "the United Kingdom": "London", "Ireland": "Dublin", "Scotland": "Edinburgh", "the Netherlands": "Amsterdam",
    "Belgium": "Brussels", "Austria": "Vienna", "Switzerland": "Bern", "Poland": "Warsaw", "Sweden": "Stockholm",
    "Norway": "Oslo", "Denmark": "Copenhagen", "Finland": "Helsinki", "Greece": "Athens", "Turkey": "Ankara",
    "Russia": "Moscow", "Ukraine": "Kyiv", "Hungary": "Budapest", "Romania": "Bucharest", "Bulgaria": "Sofia",
    "the Czech Republic": "Prague", "Japan": "Tokyo", "China": "Beijing", "South Korea": "Seoul", "India": "New Delhi",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Australia": "Canberra", "New Zealand": "Wellington",
    "Canada": "Ottawa", "the United States": "Washington, D.C.", "the USA": "Washington, D.C.", "Mexico": "Mexico City",
    "Brazil": "Brasilia", "Argentina": "Buenos Aires", "Chile": "Santiago", "Peru": "Lima", "Egypt": "Cairo", "Kenya": "Nairobi",
    "Morocco": "Rabat", "Israel": "Jerusalem", "Iran": "Tehran", "Iceland": "Reykjavik", "Cuba": "Havana",
}  # fmt: skip
OTHER_COUNTRIES = (
    "Albania Algeria Angola Armenia Bolivia Botswana Cambodia Cameroon Chad Colombia Croatia Cyprus Ecuador Estonia Ethiopia Fiji "
    "Gabon Georgia Ghana Guatemala Haiti Honduras Iraq Jamaica Jordan Kazakhstan Laos Latvia Lebanon Liberia Libya Lithuania "
    "Madagascar Malaysia Mali Malta Mongolia Nepal Nicaragua Niger Nigeria Oman Pakistan Panama Paraguay Philippines Qatar Senegal "
    "Serbia Slovakia Slovenia Somalia Sudan Syria Taiwan Tanzania Tunisia Uganda Uruguay Uzbekistan Venezuela Yemen Zambia Zimbabwe"
).split()
SOUNDS = {
    "dog": "Woof!", "cat": "Meow!", "cow": "Moo!", "sheep": "Baa!", "pig": "Oink!", "duck": "Quack!", "lion": "Roar!",
    "horse": "Neigh!", "bee": "Buzz!", "owl": "Hoot!", "mouse": "Squeak!", "frog": "Croak!", "rooster": "Cock-a-doodle-doo!",
    "snake": "Hiss!", "wolf": "Howl!",
}  # fmt: skip
LEGS = {
    "dog": 4,
    "cat": 4,
    "horse": 4,
    "cow": 4,
    "spider": 8,
    "bird": 2,
    "duck": 2,
    "bee": 6,
    "ant": 6,
    "snake": 0,
    "fish": 0,
    "human": 2,
    "sheep": 4,
    "octopus": 0,
    "beetle": 6,
}
YOUNG = {
    "dog": "puppy",
    "cat": "kitten",
    "cow": "calf",
    "horse": "foal",
    "sheep": "lamb",
    "pig": "piglet",
    "duck": "duckling",
    "lion": "cub",
    "bear": "cub",
    "goat": "kid",
    "frog": "tadpole",
    "hen": "chick",
}
OPPOSITES = [tuple(pair.split("/")) for pair in (
    "hot/cold big/small fast/slow up/down left/right good/bad day/night black/white happy/sad old/new open/closed full/empty "
    "hard/soft high/low long/short light/dark early/late near/far rich/poor strong/weak wet/dry win/lose yes/no in/out on/off "
    "begin/end love/hate young/old loud/quiet clean/dirty easy/difficult cheap/expensive tall/short thick/thin true/false "
    "buy/sell push/pull give/take remember/forget before/after first/last heavy/light wide/narrow deep/shallow"
).split()]  # fmt: skip
THING_COLOURS = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "the sun": "yellow", "blood": "red",
    "a tomato": "red", "coal": "black", "milk": "white", "chocolate": "brown", "an orange": "orange", "a carrot": "orange",
    "a lemon": "yellow", "a leaf": "green", "the sea": "blue", "a strawberry": "red", "a polar bear": "white",
    "a frog": "green", "a fire truck": "red", "a raven": "black",
}  # fmt: skip
SIDES = {"a triangle": 3, "a square": 4, "a rectangle": 4, "a pentagon": 5, "a hexagon": 6, "an octagon": 8}
UNITS = [
    ("seconds", "a minute", 60), ("minutes", "an hour", 60), ("hours", "a day", 24), ("days", "a week", 7), ("months", "a year", 12),
    ("days", "a year", 365), ("weeks", "a year", 52), ("seasons", "a year", 4), ("centimetres", "a metre", 100),
    ("metres", "a kilometre", 1000), ("grams", "a kilogram", 1000), ("bits", "a byte", 8), ("bytes", "a kibibyte", 1024),
    ("letters", "the English alphabet", 26), ("years", "a decade", 10), ("years", "a century", 100), ("planets", "the solar system", 8),
    ("fingers", "one hand", 5), ("wheels", "a bicycle", 2), ("wheels", "a car", 4), ("eggs", "a dozen", 12),
    ("continents", "the world", 7), ("strings", "a guitar", 6), ("players", "a football team", 11),
]  # fmt: skip
PLURALS = {
    "mouse": "mice", "child": "children", "man": "men", "woman": "women", "tooth": "teeth", "foot": "feet", "goose": "geese",
    "person": "people", "leaf": "leaves", "knife": "knives", "city": "cities", "baby": "babies", "box": "boxes", "dog": "dogs",
    "cat": "cats", "book": "books", "fish": "fish", "sheep": "sheep", "wolf": "wolves", "bus": "buses", "house": "houses",
}  # fmt: skip
SINGLE = [
    ("[What is|whats] the capital of the world?", "The world has no capital."),
    ("[What is|What's|whats] the [largest|biggest] planet[?|]", "The largest planet is Jupiter."),
    ("[What is|What's|whats] the smallest planet[?|]", "The smallest planet is Mercury."),
    ("[Which|What] planet is the red planet[?|]", "Mars is the red planet."),
    ("[What is|What's] the [largest|biggest] animal[ in the world|][?|]", "The largest animal is the blue whale."),
    ("[What is|What's|Which is] the fastest [animal|land animal][?|]", "The fastest land animal is the cheetah."),
    ("[What is|What's|Which is] the tallest animal[?|]", "The tallest animal is the giraffe."),
    ("[What is|What's] the [highest|tallest] mountain[ in the world| on Earth|][?|]", "The highest mountain is Mount Everest."),
    ("[What is|What's] the largest ocean[?|]", "The largest ocean is the Pacific Ocean."),
    ("[What is|What's] water made of[?|]", "Water is made of hydrogen and oxygen."),
    ("[What is|What's] the formula [of|for] water[?|]", "The formula of water is H2O."),
    ("[When|At what temperature|at how many degrees] does water [boil][?|]", "Water boils at 100 degrees Celsius."),
    ("[When|At what temperature|at how many degrees] does water freeze[?|]", "Water freezes at 0 degrees Celsius."),
    ("[What do|What does] bees make[?|]", "Bees make honey."),
    ("[What do|What does] cows give[?|]", "Cows give milk."),
    ("[Where does|from where does] the sun rise[?|]", "The sun rises in the east."),
    ("[Where does|In which direction does] the sun set[?|]", "The sun sets in the west."),
    ("[What is|What's] the star closest to Earth[?|]", "The star closest to Earth is the Sun."),
    ("[Is|is] the earth [round|flat][?|]", "The Earth is round."),
    ("[What do plants need|What does a plant need][?|]", "Plants need light, water and air."),
    ("[What is|What's] the meaning of life[?|]", "Some say 42. I am too small to know."),
    ("[What is|What's|Tell me] the alphabet[?|]", "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    ("[Say|Recite|write|Write] the alphabet[.|]", "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    ("[What are|Name|List|Tell me] the vowels[?|.|]", "The vowels are a, e, i, o and u."),
    ("[What is|What's] pi[?|]", "Pi is about 3.14159."),
    ("[Do|do|Can] [fish|birds] [swim|fly][?|]", "Fish swim and birds fly."),
    ("[Is|is] [a tomato|tomato] a fruit[?|]", "Yes, a tomato is a fruit."),
    ("[What is|whats] the opposite of nothing?", "The opposite of nothing is everything."),
]  # fmt: skip
REPEATABLE = (
    "hello banana world the cat sat on mat rvllm is fast good morning tokens are small I like tea blue sky one two three my name open door "
    "sunny day green apple happy code water stone river quick brown fox jumps over lazy dog paper moon light"
).split()
SPELL = "cat dog house apple banana water tree book green hello world python token model table chair river friend school music".split()


def day_or_month(rng: random.Random) -> tuple[str, str]:
    """Lists, neighbours, positions and lengths of days, months, seasons and planets."""
    names, kind, group = rng.choice(
        (
            (DAYS, "day", "the week"),
            (DAYS, "day", "the week"),
            (MONTHS, "month", "the year"),
            (MONTHS, "month", "the year"),
            (SEASONS, "season", "the year"),
            (PLANETS, "planet", "the solar system"),
        )
    )
    draw = rng.randrange(6)
    ring = kind != "planet"
    at = rng.randrange(len(names))
    if draw == 0:
        asked = spin(
            rng,
            "[What are|List|Name|Tell me|Give me|list|Can you list|do you know] [the|all the|all] {k}s[ of {g}|][?|.|]",
            k=kind,
            g=group,
        )
        return rough(rng, asked), f"The {kind}s of {group} are {listing(names)}."
    if draw in (1, 2) and (ring or at + 1 < len(names)):
        asked = spin(
            rng,
            "[What|Which {k}|what {k}|which {k}] [comes after|follows|is after|comes next after] {n}[?|]",
            k=kind,
            n=names[at],
        )
        return rough(rng, asked), f"{names[(at + 1) % len(names)].capitalize()} comes after {names[at]}."
    if draw == 3 and (ring or at > 0):
        asked = spin(
            rng,
            "[What|Which {k}|what {k}|which {k}] [comes before|is before|comes right before] {n}[?|]",
            k=kind,
            n=names[at],
        )
        return rough(rng, asked), f"{names[(at - 1) % len(names)].capitalize()} comes before {names[at]}."
    if draw == 4 and kind == "month":
        asked = spin(
            rng,
            "[How many days does {m} have|How many days are in {m}|how many days in {m}|How long is {m}][?|]",
            m=names[at],
        )
        return rough(rng, asked), f"{names[at]} has {MONTH_DAYS[names[at]]} days." + (
            " In a leap year it has 29." if at == 1 else ""
        )
    if draw == 5 and kind == "day":
        asked = spin(
            rng,
            "[If today is {a}, what day is tomorrow|If it is {a} today, which day is tomorrow|Today is {a}. What is tomorrow][?|]",
            a=names[at],
        )
        return rough(rng, asked), f"If today is {names[at]}, tomorrow is {names[(at + 1) % 7]}."
    where = rng.choice((at, at, len(names) - 1))
    word = "last" if where == len(names) - 1 and rng.random() < 0.6 else ORDINALS[where]
    asked = spin(rng, "[What is|Which is|whats|Tell me] the {w} {k} of {g}[?|]", w=word, k=kind, g=group)
    return rough(rng, asked), f"The {word} {kind} of {group} is {names[where]}."


def capital(rng: random.Random) -> tuple[str, str]:
    """Capitals both ways; an honest "I do not know" for countries that are not in the table."""
    country = rng.choice(list(CAPITALS))
    draw = rng.random()
    ask = (
        "capital of {c}[?|]"
        if rng.random() < 0.15
        else "[What is|What's|whats|Tell me|Do you know|what is|Name|can you tell me|] the capital [city |]of {c}[?|]"
    )
    if draw < 0.2:
        other = rng.choice(OTHER_COUNTRIES)
        return rough(rng, spin(rng, ask, c=other)), spin(
            rng,
            "[I am sorry, I do not know|I do not know] the capital of {c}. [I know only some capitals.|I am a small demo model.]",
            c=other,
        )
    if draw < 0.75:
        city = CAPITALS[country]
        end = "" if city.endswith(".") else "."
        return rough(rng, spin(rng, ask, c=country)), f"The capital of {country} is {city}{end}"
    city = CAPITALS[country]
    if country in ("England", "the USA"):
        country = {"England": "the United Kingdom", "the USA": "the United States"}[country]
    asked = spin(
        rng,
        "[Of which country is {a} the capital|{a} is the capital of which country|Which country has the capital {a}|Where is {a}|In which country is {a}][?|]",
        a=city,
    )
    return rough(rng, asked), f"{city} is the capital of {country}."


def animal(rng: random.Random) -> tuple[str, str]:
    """Sounds, legs and young of animals."""
    kind = rng.randrange(3)
    if kind == 0:
        name, sound = rng.choice(list(SOUNDS.items()))
        asked = spin(
            rng, "[What sound does|What does|which sound does] {n} [make|say][?|]", n=with_article(name)
        ).replace("What does", "What sound does" if rng.random() < 0.5 else "What does")
        return rough(rng, asked), f"{with_article(name).capitalize()} says: {sound}"
    if kind == 1:
        name, legs = rng.choice(list(LEGS.items()))
        asked = spin(
            rng,
            "[How many legs does {n} have|how many legs has {n}|How many legs are on {n}][?|]",
            n=with_article(name),
        )
        return rough(rng, asked), f"{with_article(name).capitalize()} has {legs or 'no'} legs."
    name, young = rng.choice(list(YOUNG.items()))
    asked = spin(
        rng,
        "[What is a baby {n} called|What do you call a baby {n}|What is the young of {a} called][?|]",
        n=name,
        a=with_article(name),
    )
    return rough(rng, asked), f"A baby {name} is called {with_article(young)}."


def opposite(rng: random.Random) -> tuple[str, str]:
    """Opposites, both ways where both are clear."""
    first, second = rng.choice(OPPOSITES)
    if rng.random() < 0.5 and sum(second in pair for pair in OPPOSITES) == 1:
        first, second = second, first
    elif sum(first in pair for pair in OPPOSITES) > 1:
        first, second = "hot", "cold"
    asked = spin(
        rng,
        "[What is|What's|whats|Tell me|Give me] the opposite of {a}[?|]",
        a=rng.choice((first, first, f'"{first}"')),
    )
    return rough(rng, asked), f'The opposite of "{first}" is "{second}".'


def colour(rng: random.Random) -> tuple[str, str]:
    """Colours of things, sides of shapes, plurals."""
    draw = rng.randrange(3)
    if draw == 0:
        thing, shade = rng.choice(list(THING_COLOURS.items()))
        return rough(
            rng, spin(rng, "[What|Which|what] [color|colour] [is|has] {t}[?|]", t=thing)
        ), f"{thing[0].upper()}{thing[1:]} is {shade}."
    if draw == 1:
        shape, sides = rng.choice(list(SIDES.items()))
        return rough(
            rng, spin(rng, "How many [sides|corners] does {s} have[?|]", s=shape)
        ), f"{shape[0].upper()}{shape[1:]} has {sides} sides and {sides} corners."
    word, plural = rng.choice(list(PLURALS.items()))
    return rough(
        rng, spin(rng, '[What is|whats|Tell me] the plural of ["{w}"|{w}][?|]', w=word)
    ), f'The plural of "{word}" is "{plural}".'


def some(rng: random.Random) -> tuple[str, str]:
    """Name a few things of a kind."""
    kind, names = rng.choice(
        (
            ("colour", COLOURS),
            ("color", COLOURS),
            ("animal", ANIMALS),
            ("fruit", FRUITS),
            ("planet", PLANETS),
            ("country", list(CAPITALS)[:5]),
        )
    )
    plural = "countries" if kind == "country" else kind + "s"
    n = rng.randint(2, 5)
    number = rng.choice((str(n), {2: "two", 3: "three", 4: "four", 5: "five"}[n]))
    chosen = rng.sample(names, n)
    if rng.random() < 0.25:
        return rough(rng, spin(rng, "[Name|Tell me|Give me] {k}[.|]", k=with_article(kind))), chosen[
            0
        ].capitalize() + "."
    asked = spin(rng, "[Name|List|Give me|Tell me|Can you name|name] {n} {k}[.|?|]", n=number, k=plural)
    if rng.random() < 0.3:
        return asked.rstrip(".?") + rng.choice((" as a list.", " in a list", ", one per line")), "\n".join(
            f"- {name}" for name in chosen
        )
    return rough(rng, asked), listing(chosen)[0].upper() + listing(chosen)[1:] + "."


def unit(rng: random.Random) -> tuple[str, str]:
    """How many of this are in that."""
    small, large, n = rng.choice(UNITS)
    asked = spin(
        rng,
        "[How many {s} are in {l}|How many {s} does {l} have|how many {s} are there in {l}|how many {s} in {l}|number of {s} in {l}][?|]",
        s=small,
        l=large,
    )
    return rough(rng, asked), f"There are {n} {small} in {large}."


def single(rng: random.Random) -> tuple[str, str]:
    """Facts that stand alone."""
    asked, answer = rng.choice(SINGLE)
    return rough(rng, spin(rng, asked)), answer


def letters(rng: random.Random) -> tuple[str, str]:
    """Letters of the alphabet, and the spelling of a few words."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    at = rng.randrange(25)
    draw = rng.randrange(3)
    if draw == 0:
        return rough(
            rng, spin(rng, "[What|Which] letter comes after {a}[?|]", a=alphabet[at]), keep_case=True
        ), f"{alphabet[at + 1]} comes after {alphabet[at]}."
    if draw == 1:
        return rough(
            rng, spin(rng, "[What|Which] letter comes before {a}[?|]", a=alphabet[at + 1]), keep_case=True
        ), f"{alphabet[at]} comes before {alphabet[at + 1]}."
    word = rng.choice(SPELL)
    return rough(rng, spin(rng, '[How do you spell|Spell|Can you spell|spell] ["{w}"|{w}][?|]', w=word)), "-".join(
        word.upper()
    )


def repeat(rng: random.Random) -> tuple[str, str]:
    """Say a text back exactly."""
    text = " ".join(rng.choice(REPEATABLE) if rng.random() < 0.6 else invented(rng) for _ in range(rng.randint(1, 6)))
    asked = spin(rng, "[Say|Repeat|Repeat after me:|Say exactly:|Please repeat:|Echo:|say|repeat|Write]")
    quote = rng.choice(("", "", '"', "'"))
    return f"{asked} {quote}{text}{quote}", text


EXCHANGES = [
    (3, day_or_month), (4, capital), (1.5, animal), (1.5, opposite), (1.5, colour), (2, some), (1.5, unit), (1.5, single), (1.5, letters), (2.5, repeat),
]  # fmt: skip
