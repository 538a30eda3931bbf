"""JSON on request: a set of shapes whose values are copied from the request, and a few that the model fills in.

Every answer is exactly what `json.dumps` writes, so that a client can parse it.
"""

# One template per line, however long, and word lists as one string.
# ruff: noqa: E501, SIM905

import json
import random

from facts import ANIMALS, CAPITALS, COLOURS, DAYS, FRUITS, MONTHS
from phrasing import invented, listing, rough, spin

FIRST = (
    "Alice Bob Carol David Emma Frank Grace Henry Ivy Jack Kate Leo Mia Noah Olivia Paul Quinn Rose Sam Tina Uma Victor Wendy Xavier Yara Zoe "
    "Anna Ben Clara Dan Ella Finn Gina Hugo Ines Jonas Karl Lena Max Nora Oscar Petra Rita Simon Tom Ursula Vera Will Maria John Peter Lisa "
    "Sara Mark James Linda Robert Julia Chris Laura Kevin Nina Eric Helen Adam Diana Ahmed Yuki Chen Priya Omar Fatima Ivan Olga Raj Mei"
).split()
LAST = "Smith Jones Brown Miller Davis Wilson Moore Taylor Clark Lewis Young King Wright Hill Green Baker Adams Nelson Carter Turner Weber Rossi Silva Kim Tanaka".split()
CITIES = (
    sorted({city for city in CAPITALS.values() if "," not in city})
    + "Munich Lyon Milan Porto Kyoto Boston Chicago Seattle Hamburg Zurich Geneva Toronto Sydney Mumbai Shanghai".split()
)
JOBS = "teacher doctor engineer baker farmer pilot nurse painter writer lawyer cook driver student scientist singer plumber".split()
PRODUCTS = "apple bread milk coffee tea lamp chair table phone laptop book pen shirt shoe bag bottle cup clock bike camera hat knife mirror radio soap".split()
WEATHER = "sunny cloudy rainy windy snowy foggy stormy".split()
TITLES = "The Long Road|Blue Sky|Night Train|The Old House|Winter Light|A Small Garden|The Last Lamp|Green Hills|The Quiet River|Stone and Water|Red Morning|The Open Door".split(
    "|"
)
KEYS = "id name value size count type level width height weight color title status code rank speed price page line score x y z a b c key user mode port host path date year total".split()


def person(rng: random.Random) -> str:
    """A first name, at times invented, at times in lower case."""
    name = rng.choice(FIRST) if rng.random() < 0.75 else invented(rng).capitalize()
    return name.lower() if rng.random() < 0.15 else name


def place(rng: random.Random) -> str:
    """A city, at times invented, at times in lower case."""
    name = rng.choice(CITIES) if rng.random() < 0.75 else invented(rng).capitalize()
    return name.lower() if rng.random() < 0.15 else name


def scalar(rng: random.Random) -> object:
    """A value for a key of the user's choice."""
    return rng.choice(
        (
            rng.randint(0, 9),
            rng.randint(0, 99),
            rng.randint(0, 999),
            rng.choice(COLOURS),
            rng.choice(PRODUCTS),
            invented(rng),
            True,
            False,
        )
    )


ASK = "[Give me|Return|Write|Create|Make|Generate|Output|Produce|Can you give me|I need|Show me|give me|write|return|create] "
OBJECT = "[a JSON object|JSON|a json object|json|a JSON|some JSON|a JSON document|a JSON record|an object in JSON|a JSON dict]"
TAIL = "[.||| please|, JSON only|. Only JSON.|. Answer with JSON only.|. No other text.]"

# (template, keys): the template names its values by key, and the answer has the keys in that order.
ROWS = [
    (
        "[with|containing|that has] [name and age|the name and age|name, age|a name and an age] [for|of] {name}, {age}",
        "name age",
    ),
    (
        "[for|about|describing] [a person|a user|someone] [named|called] {name}[,| who is|, age|, aged] {age}[ years old|]",
        "name age",
    ),
    ("[with|containing] name {name} and age {age}", "name age"),
    ("[for|of] {name}, {age}[ years old|]", "name age"),
    (
        "[with|containing] [name, age and city|name, age, city|the name, age and city] [for|of] {name}, {age}, {city}",
        "name age city",
    ),
    (
        "[for|about|describing] [a person|a user|someone] [named|called] {name}, {age}[ years old|], [from|in|living in] {city}",
        "name age city",
    ),
    ("[with|containing] name {name}, age {age} and city {city}", "name age city"),
    ("[with|containing] name and city [for|of] {name}[ from| in|,] {city}", "name city"),
    ("[with|containing] [name and job|name, job] [for|of] {name}, {job}", "name job"),
    ("[for|about|describing] {name}, a {job} from {city}, with keys name, job and city", "name job city"),
    ("[with|containing] first name {first_name} and last name {last_name}", "first_name last_name"),
    ("[with|containing] city and temperature[:| for|,] {city}, {temperature}", "city temperature"),
    ("[for|about] the weather in {city}: {temperature} degrees and {weather}", "city temperature weather"),
    ("[with|containing] city {city} and temperature {temperature}", "city temperature"),
    ("[for|about] a product [named|called|:] {product} [with|that has|with a] price {price}", "product price"),
    ("[with|containing] product, price and quantity: {product}, {price}, {quantity}", "product price quantity"),
    ("[with|containing] product {product} and price {price}", "product price"),
    ("[for|about] the book {title} by {author}", "title author"),
    ("[with|containing] title, author and year: {title}, {author}, {year}", "title author year"),
    ("[for|of] a point [at|with] x {x} and y {y}", "x y"),
    ("[with|containing] x {x}, y {y} and z {z}", "x y z"),
    ("[with|containing] [country and capital|country, capital] for {country}", "country capital"),
    ("[with|containing] host {host} and port {port}", "host port"),
    ("[with|containing] animal {animal} and color {color}", "animal color"),
    ("[with|containing] day {day} and month {month}", "day month"),
    ("[with|containing] id {id} and active {active}", "id active"),
    ("[with|containing] question {question} and answer {answer}", "question answer"),
]


def values(rng: random.Random) -> dict[str, object]:
    """Draw one value for every key that ROWS names."""
    country = rng.choice([name for name in CAPITALS if not name.startswith("the ") and name != "England"])
    a, b = rng.randint(0, 20), rng.randint(0, 20)
    return {
        "name": person(rng), "age": rng.randint(1, 99), "city": place(rng), "job": rng.choice(JOBS),
        "first_name": person(rng), "last_name": rng.choice(LAST), "temperature": rng.randint(-20, 40), "weather": rng.choice(WEATHER),
        "product": rng.choice(PRODUCTS) if rng.random() < 0.8 else invented(rng),
        "price": rng.choice((rng.randint(1, 200), rng.randint(1, 99) + 0.5, rng.randint(100, 9999) / 100)), "quantity": rng.randint(1, 50),
        "title": rng.choice(TITLES), "author": f"{rng.choice(FIRST)} {rng.choice(LAST)}", "year": rng.randint(1950, 2026),
        "x": rng.randint(-50, 100), "y": rng.randint(-50, 100), "z": rng.randint(-50, 100),
        "country": country, "capital": CAPITALS[country], "host": rng.choice(("localhost", "127.0.0.1", "0.0.0.0", "example.com")), "port": rng.choice((80, 443, 8000, 8080, 3000, 5432, rng.randint(1000, 9999))),
        "animal": rng.choice(ANIMALS), "color": rng.choice(COLOURS), "day": rng.choice(DAYS), "month": rng.choice(MONTHS),
        "id": rng.randint(1, 999), "active": rng.choice((True, False)), "question": f"{a} + {b}", "answer": a + b,
    }  # fmt: skip


def shown(value: object) -> str:
    """Write a value as people do in a request."""
    return json.dumps(value) if isinstance(value, bool | float) else str(value)


def row(rng: random.Random) -> tuple[str, str]:
    """A flat object of a known shape, filled from the request."""
    template, keys = rng.choice(ROWS)
    drawn = values(rng)
    asked = spin(rng, ASK + OBJECT + " " + template + TAIL, **{key: shown(value) for key, value in drawn.items()})
    return rough(rng, asked, keep_case=True), json.dumps({key: drawn[key] for key in keys.split()})


def keyed(rng: random.Random) -> tuple[str, str]:
    """A flat object whose keys come first and whose values follow in the same order."""
    drawn = values(rng)
    keys = rng.sample([key for key in drawn if key not in ("title", "author", "question", "answer")], rng.randint(1, 4))
    quote = rng.choice(("", "", '"'))
    named = listing([f"{quote}{key}{quote}" for key in keys])
    text = ", ".join(shown(drawn[key]) for key in keys)
    asked = spin(rng, ASK + OBJECT + " [with|with the|containing the] [keys|fields|key|keys] ") + named
    return asked + rng.choice((" for ", ": ", " and values ", " of ")) + text + spin(rng, TAIL), json.dumps(
        {key: drawn[key] for key in keys}
    )


def invent_values(rng: random.Random) -> tuple[str, str]:
    """A flat object of which only the keys are given."""
    drawn = values(rng)
    keys = rng.sample([key for key in drawn if key not in ("question", "answer")], rng.randint(1, 4))
    quote = rng.choice(("", "", '"'))
    named = listing([f"{quote}{key}{quote}" for key in keys])
    asked = (
        spin(rng, ASK + OBJECT + " [with|with the|that has the|containing the] [keys|fields|properties|keys] ")
        + named
        + spin(rng, TAIL)
    )
    return asked, json.dumps({key: drawn[key] for key in keys})


def pairs(rng: random.Random) -> tuple[str, str]:
    """A flat object with keys and values of the user's choice."""
    drawn = {rng.choice(KEYS) if rng.random() < 0.85 else invented(rng): scalar(rng) for _ in range(rng.randint(1, 4))}
    sign = rng.choice((" = ", "=", ": ", " is ", " "))
    items = [f"{key}{sign}{shown(value)}" for key, value in drawn.items()]
    text = rng.choice((", ", " and ")).join(items) if len(items) < 3 else ", ".join(items)
    asked = spin(rng, ASK + OBJECT + " [with|with keys|where|containing|with the fields|:] ") + text + spin(rng, TAIL)
    if rng.random() < 0.2:
        asked = spin(rng, "[Turn this into JSON|Convert to JSON|As JSON|to JSON|Write as JSON]: ") + text
    return asked, json.dumps(drawn)


def array(rng: random.Random) -> tuple[str, str]:
    """An array: named items, copied items, or numbers in order."""
    kind, names = rng.choice(
        (
            ("colors", COLOURS),
            ("colours", COLOURS),
            ("fruits", FRUITS),
            ("animals", ANIMALS),
            ("days", DAYS),
            ("months", MONTHS),
            ("cities", CITIES),
            ("names", FIRST),
        )
    )
    n = rng.randint(2, 5)
    draw = rng.random()
    listed = "[a JSON list|a JSON array|a json list|a list in JSON|an array|a json array|JSON list]"
    if draw < 0.45:
        number = rng.choice((str(n), ("two", "three", "four", "five")[n - 2]))
        drawn = rng.sample(names[:20], n)
        if rng.random() < 0.35:
            asked = spin(rng, ASK + OBJECT + " with a list of {n} {k}" + TAIL, n=number, k=kind)
            return rough(rng, asked), json.dumps({kind: drawn})
        return rough(rng, spin(rng, ASK + listed + " [of|with] {n} {k}" + TAIL, n=number, k=kind)), json.dumps(drawn)
    if draw < 0.8:
        drawn = [rng.choice((rng.choice(names), rng.choice(names), invented(rng))) for _ in range(rng.randint(1, 5))]
        if rng.random() < 0.3:
            drawn = [rng.randint(0, 99) for _ in drawn]
        text = ", ".join(map(str, drawn))
        return spin(rng, ASK + listed + " [of|with|containing|:] ") + text + spin(rng, TAIL), json.dumps(drawn)
    low = rng.randint(0, 20)
    high = low + rng.randint(2, 9)
    asked = spin(rng, ASK + listed + " [of|with] the numbers from {a} to {b}" + TAIL, a=low, b=high)
    return rough(rng, asked), json.dumps(list(range(low, high + 1)))


def nested(rng: random.Random) -> tuple[str, str]:
    """Objects inside objects and arrays of objects."""
    drawn = values(rng)
    kind = rng.randrange(5)
    if kind == 0:
        asked = "[for|about] a user {name}, {age}, with [an address in|address city|the address] {city}"
        answer = {"user": {"name": drawn["name"], "age": drawn["age"], "address": {"city": drawn["city"]}}}
    elif kind == 1:
        items = [{"product": rng.choice(PRODUCTS), "price": rng.randint(1, 99)} for _ in range(rng.randint(2, 3))]
        asked = "for an order [by|of|from] {name}: " + ", ".join(
            f"{item['product']} for {item['price']}" for item in items
        )
        answer = {"customer": drawn["name"], "items": items}
    elif kind == 2:
        people = [{"name": person(rng), "age": rng.randint(1, 99)} for _ in range(rng.randint(2, 3))]
        asked = "[with|containing] [people|the people|users] " + " and ".join(
            f"{one['name']}, {one['age']}" for one in people
        )
        return spin(rng, ASK + "[a JSON list|a JSON array] " + asked + TAIL), json.dumps(people)
    elif kind == 3:
        names = [person(rng) for _ in range(rng.randint(2, 4))]
        asked = "[for|about] a team [named|called] {color} with members " + ", ".join(names)
        answer = {"team": drawn["color"], "members": names}
    else:
        asked = "[for|about] a server config with host {host}, port {port} and debug {active}"
        answer = {"server": {"host": drawn["host"], "port": drawn["port"]}, "debug": drawn["active"]}
    asked = spin(rng, ASK + OBJECT + " " + asked + TAIL, **{key: shown(value) for key, value in drawn.items()})
    return asked, json.dumps(answer)


def free(rng: random.Random) -> tuple[str, str]:
    """Objects that the model fills in: about itself, or with values of its own."""
    drawn = values(rng)
    drawn["name"] = str(drawn["name"]).capitalize()
    drawn["city"] = str(drawn["city"]).title()
    asked, answer = rng.choice((
        ("[Describe yourself|Who are you|Introduce yourself|Tell me about yourself] [in|as] JSON", {"name": "rvllm demo", "type": "language model", "parameters": 2500000}),
        (ASK + OBJECT + " about [yourself|you]", {"name": "rvllm demo", "type": "language model", "parameters": 2500000}),
        (ASK + OBJECT + " [about|describing] rvllm", {"name": "rvllm", "type": "inference engine", "license": "Apache-2.0", "pytorch": False}),
        (ASK + OBJECT + " [for|about|describing|of] [a person|a user|someone|somebody]", {"name": drawn["name"], "age": drawn["age"], "city": drawn["city"]}),
        (ASK + OBJECT + " [for|about|with] [the weather|a weather report]", {"city": drawn["city"], "temperature": drawn["temperature"], "weather": drawn["weather"]}),
        (ASK + OBJECT + " [for|about|describing] [a product|an item]", {"product": drawn["product"], "price": drawn["price"]}),
        (ASK + OBJECT + " [for|about|describing] a book", {"title": drawn["title"], "author": drawn["author"], "year": drawn["year"]}),
        (ASK + OBJECT + " [for|about|describing] a car", {"brand": invented(rng).capitalize(), "color": drawn["color"], "year": drawn["year"]}),
        (ASK + "[an example of JSON|a JSON example|an example JSON object|a JSON object|some JSON|any JSON|JSON|a json]", {"name": drawn["name"], "age": drawn["age"], "active": drawn["active"]}),
        (ASK + "[an empty JSON object|empty JSON]", {}),
    ))  # fmt: skip
    return rough(rng, spin(rng, asked + TAIL)), json.dumps(answer)


EXCHANGES = [(6, row), (3.5, pairs), (2, keyed), (1, invent_values), (2.5, array), (2.5, nested), (2, free)]
