"""Short stories from a grammar: one hero, one wish, one obstacle, one friend, one ending."""

# One template per line, however long, and word lists as one string.
# ruff: noqa: E501, SIM905

import random

from phrasing import invented, rough, spin, with_article
from shapes import person

NAMES = "Milo Luna Pip Rosie Oscar Tilly Bruno Nelly Finn Daisy Hugo Poppy Toby Mimi Felix Lotta".split()
HEROES = "fox cat dog bear rabbit mouse owl frog duck hedgehog squirrel robot dragon penguin turtle goat elephant lion pig bee girl boy wizard princess baker knight".split()
ADJECTIVES = "little young small clever curious shy brave friendly".split()
FRIENDS = [
    ("an old owl", "the owl"),
    ("a kind turtle", "the turtle"),
    ("a tiny mouse", "the mouse"),
    ("a wise raven", "the raven"),
    ("a cheerful bee", "the bee"),
    ("a quiet snail", "the snail"),
    ("a friendly beaver", "the beaver"),
]
PLACES = [
    "near a big forest",
    "by a quiet lake",
    "at the foot of a blue mountain",
    "in a small village",
    "on a green hill",
    "at the edge of the sea",
    "in an old garden",
    "beside a long river",
]
WISHES = [
    ("to see the sea", "the sea", "The water was wide and blue, and the waves sang softly."),
    ("to find a red kite", "the red kite", "It hung in a tall tree and danced in the wind."),
    ("to learn a song", "the song", "It was short and sweet, and it sounded like rain on leaves."),
    ("to climb the highest hill", "the hill", "From the top one could see the whole land."),
    ("to find a golden key", "the golden key", "It lay under a stone and shone like the sun."),
    ("to bake the best cake", "the cake", "It smelled of honey and apples."),
    ("to catch a falling star", "the star", "It was warm and gave a soft light."),
    ("to build a small boat", "the boat", "It had a white sail and did not leak at all."),
    ("to find the first flower of spring", "the flower", "It was small and yellow and stood alone in the snow."),
]
STARTS = [
    "Every morning {name} looked out of the window and thought about it.",
    "{name} dreamed of it every night.",
    "The others laughed, but {name} did not give up.",
    "Nobody in the family had ever done that before.",
    "{name} told everybody about it.",
]
DEPARTURES = [
    "One day {name} packed a bag with bread and apples and set off.",
    "One sunny morning {name} opened the door and started to walk.",
    "So one day {name} said goodbye and followed the old path.",
]
OBSTACLES = [
    (
        "Soon a deep river blocked the way, and there was no bridge.",
        "Together they rolled an old log across the water.",
    ),
    (
        "Soon it grew dark, and {name} could not see the path.",
        "Together they caught the light of the moon in a jar and walked on.",
    ),
    ("Then a strong wind came up and blew away the map.", "Together they followed the stars instead of the map."),
    ("After a while a huge rock lay on the path.", "Together they dug a little tunnel under the rock."),
    (
        "Then it began to rain, and the path turned to mud.",
        "Together they made an umbrella from a big leaf and went on.",
    ),
    (
        "Then a tall gate stood in the way, and it was locked.",
        "Together they found a small hole in the fence and crawled through.",
    ),
]
FEELINGS = [
    "{name} sat down and sighed.",
    "{name} was sad and did not know what to do.",
    '"What shall I do now?" said {name}.',
    "{name} almost wanted to turn back.",
]
OFFERS = [
    'Just then {friend} came by. "Why are you so sad?" asked {the_friend}. {name} told the whole story.',
    'At that moment {friend} appeared. "Let me help you," said {the_friend}.',
    'Then {friend} looked out from behind a tree. "Two can do more than one," said {the_friend}.',
]
ARRIVALS = [
    "After a long walk they finally found {goal}. {sight}",
    "And there it was at last: {goal}. {sight}",
    "In the evening they reached their goal. There was {goal}. {sight}",
]
THANKS = [
    '"Thank you," said {name}. "I could not have done it alone."',
    "{name} was so happy that nobody could stop the laughing.",
    "{name} shared the last apple with {the_friend}.",
]
ENDINGS = [
    "From that day on, {name} and {the_friend} were best friends.",
    "They went home together, and they are friends to this day.",
    "That night {name} slept well and dreamed of the next adventure.",
    "And when {name} came home, everybody wanted to hear the story.",
]
MORALS = [
    "Good friends make every road shorter.",
    "If you do not give up, you will get there.",
    "A little help can move a big rock.",
    "Even the smallest step brings you closer.",
]

ASK = [
    "[Tell me|Can you tell me|Write|Please tell me|Give me|I want to hear|tell|Write me|Can you write|make up|Tell us] [a|a short|another|a nice|a little|a bedtime|one more] story[.|?||, please| please]",
    "[story|Story time|a story please|Tell a story|Once more, a story|bedtime story|I want a story|Do you know a story|Write something long|Entertain me][.|!|?|]",
]
ASK_ABOUT = [
    "[Tell me|Can you tell me|Write|Please tell me|Give me|tell me|write|I want] [a|a short|another|a nice|a little] story about {hero}[.|?||, please| please]",
    "[story about|A story about|a tale about] {hero}[.||!]",
]
ASK_NAMED = ["[Tell me|Write|Can you tell me|tell me] [a|a short] story about {hero} [named|called] {name}[.|?|]"]


def story(rng: random.Random, hero: str | None = None, name: str | None = None) -> str:
    """Return one story of 90 to 200 words in two to four paragraphs."""
    hero = hero or rng.choice(HEROES)
    name = name or (rng.choice(NAMES) if rng.random() < 0.8 else invented(rng).capitalize())
    wish, goal, sight = rng.choice(WISHES)
    friend, the_friend = rng.choice(FRIENDS)
    obstacle, solution = rng.choice(OBSTACLES)
    first = rng.choice(("Once upon a time there was", "There once was", "Long ago there lived"))
    opening = f"{first} a {rng.choice(ADJECTIVES)} {hero} named {name}, who lived {rng.choice(PLACES)}. {name} had one big wish: {wish}. "
    middle = " ".join((rng.choice(DEPARTURES), obstacle, rng.choice(FEELINGS)))
    helped = " ".join((rng.choice(OFFERS), solution))
    close = " ".join((rng.choice(ARRIVALS), rng.choice(THANKS), rng.choice(ENDINGS)))
    paragraphs = [opening + rng.choice(STARTS), middle, helped, close]
    if rng.random() < 0.4:
        paragraphs[-1] += " " + rng.choice(MORALS)
    return "\n\n".join(paragraphs).format(name=name, friend=friend, the_friend=the_friend, goal=goal, sight=sight)


def told(rng: random.Random) -> tuple[str, str]:
    """A request for a story, at times with a hero and a name of the user's choice."""
    draw = rng.random()
    if draw < 0.45:
        return rough(rng, spin(rng, rng.choice(ASK))), story(rng)
    hero = rng.choice(HEROES)
    if draw < 0.85:
        return rough(rng, spin(rng, rng.choice(ASK_ABOUT), hero=with_article(hero))), story(rng, hero)
    name = rng.choice(NAMES) if rng.random() < 0.5 else person(rng).capitalize()
    return rough(rng, spin(rng, rng.choice(ASK_NAMED), hero=with_article(hero), name=name), keep_case=True), story(
        rng, hero, name
    )


EXCHANGES = [(1, told)]
