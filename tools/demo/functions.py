"""Short Python functions, asked for in chat or left to complete: written by us."""

# One template per line, however long.
# ruff: noqa: E501

import random

from phrasing import rough, spin

# (what it does, as in "a function that ..."; the code)
FUNCTIONS = [
    ("checks [if|whether] a number is even", "def is_even(n):\n    return n % 2 == 0"),
    ("checks [if|whether] a number is odd", "def is_odd(n):\n    return n % 2 == 1"),
    ("computes the factorial[ of a number| of n|]", "def factorial(n):\n    result = 1\n    for i in range(2, n + 1):\n        result *= i\n    return result"),
    ("computes the factorial [recursively|with recursion|using recursion]", "def factorial(n):\n    if n <= 1:\n        return 1\n    return n * factorial(n - 1)"),
    ("computes [the n-th Fibonacci number|Fibonacci numbers|fibonacci|the fibonacci sequence]", "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n        a, b = b, a + b\n    return a"),
    ("reverses a string", "def reverse_string(text):\n    return text[::-1]"),
    ("reverses a list", "def reverse_list(items):\n    return items[::-1]"),
    ("checks [if|whether] a string is a palindrome", "def is_palindrome(text):\n    return text == text[::-1]"),
    ("checks [if|whether] a number is prime", "def is_prime(n):\n    if n < 2:\n        return False\n    for i in range(2, int(n**0.5) + 1):\n        if n % i == 0:\n            return False\n    return True"),
    ("adds two numbers", "def add(a, b):\n    return a + b"),
    ("subtracts two numbers", "def subtract(a, b):\n    return a - b"),
    ("multiplies two numbers", "def multiply(a, b):\n    return a * b"),
    ("divides two numbers", "def divide(a, b):\n    if b == 0:\n        raise ValueError(\"cannot divide by zero\")\n    return a / b"),
    ("sums a list[ of numbers|]", "def sum_list(numbers):\n    total = 0\n    for number in numbers:\n        total += number\n    return total"),
    ("computes the [average|mean] of a list", "def average(numbers):\n    return sum(numbers) / len(numbers)"),
    ("finds the [maximum|largest number|biggest number] [of|in] a list", "def find_max(numbers):\n    largest = numbers[0]\n    for number in numbers:\n        if number > largest:\n            largest = number\n    return largest"),
    ("finds the [minimum|smallest number] [of|in] a list", "def find_min(numbers):\n    smallest = numbers[0]\n    for number in numbers:\n        if number < smallest:\n            smallest = number\n    return smallest"),
    ("counts [the vowels|vowels] in a string", "def count_vowels(text):\n    return sum(1 for char in text.lower() if char in \"aeiou\")"),
    ("counts [the words|words] in a [string|text]", "def count_words(text):\n    return len(text.split())"),
    ("counts the characters in a string", "def count_characters(text):\n    counts = {}\n    for char in text:\n        counts[char] = counts.get(char, 0) + 1\n    return counts"),
    ("removes duplicates from a list", "def remove_duplicates(items):\n    return list(dict.fromkeys(items))"),
    ("sorts a list", "def sort_list(items):\n    return sorted(items)"),
    ("does bubble sort", "def bubble_sort(items):\n    items = list(items)\n    for i in range(len(items)):\n        for j in range(len(items) - 1 - i):\n            if items[j] > items[j + 1]:\n                items[j], items[j + 1] = items[j + 1], items[j]\n    return items"),
    ("does quicksort", "def quicksort(items):\n    if len(items) <= 1:\n        return items\n    pivot = items[0]\n    left = [x for x in items[1:] if x < pivot]\n    right = [x for x in items[1:] if x >= pivot]\n    return quicksort(left) + [pivot] + quicksort(right)"),
    ("does [a binary search|binary search]", "def binary_search(items, target):\n    low, high = 0, len(items) - 1\n    while low <= high:\n        middle = (low + high) // 2\n        if items[middle] == target:\n            return middle\n        if items[middle] < target:\n            low = middle + 1\n        else:\n            high = middle - 1\n    return -1"),
    ("does [a linear search|linear search]", "def linear_search(items, target):\n    for i, item in enumerate(items):\n        if item == target:\n            return i\n    return -1"),
    ("squares a number", "def square(x):\n    return x * x"),
    ("cubes a number", "def cube(x):\n    return x ** 3"),
    ("squares [every number in a list|all numbers of a list]", "def squares(numbers):\n    return [n * n for n in numbers]"),
    ("returns the even numbers of a list", "def even_numbers(numbers):\n    return [n for n in numbers if n % 2 == 0]"),
    ("returns the absolute value", "def absolute(x):\n    return -x if x < 0 else x"),
    ("computes the greatest common divisor", "def gcd(a, b):\n    while b:\n        a, b = b, a % b\n    return a"),
    ("computes the least common multiple", "def lcm(a, b):\n    x, y = a, b\n    while y:\n        x, y = y, x % y\n    return a * b // x"),
    ("says hello[ to somebody| to a user| to someone|]", "def greet(name):\n    return f\"Hello, {name}!\""),
    ("prints hello world", "def hello():\n    print(\"Hello, world!\")"),
    ("reads a file", "def read_file(path):\n    with open(path) as file:\n        return file.read()"),
    ("writes a file", "def write_file(path, text):\n    with open(path, \"w\") as file:\n        file.write(text)"),
    ("counts the lines of a file", "def count_lines(path):\n    with open(path) as file:\n        return sum(1 for line in file)"),
    ("[reads|loads|parses] a JSON file", "import json\n\n\ndef read_json(path):\n    with open(path) as file:\n        return json.load(file)"),
    ("[writes|saves] a JSON file", "import json\n\n\ndef write_json(path, data):\n    with open(path, \"w\") as file:\n        json.dump(data, file)"),
    ("converts Celsius to Fahrenheit", "def to_fahrenheit(celsius):\n    return celsius * 9 / 5 + 32"),
    ("converts Fahrenheit to Celsius", "def to_celsius(fahrenheit):\n    return (fahrenheit - 32) * 5 / 9"),
    ("flattens a list[ of lists|]", "def flatten(lists):\n    return [item for items in lists for item in items]"),
    ("merges two dictionaries", "def merge(first, second):\n    return {**first, **second}"),
    ("swaps two values", "def swap(a, b):\n    return b, a"),
    ("capitalizes [every word|the words of a text]", "def capitalize_words(text):\n    return \" \".join(word.capitalize() for word in text.split())"),
    ("makes a string upper case", "def to_upper(text):\n    return text.upper()"),
    ("does FizzBuzz", "def fizzbuzz(n):\n    for i in range(1, n + 1):\n        if i % 15 == 0:\n            print(\"FizzBuzz\")\n        elif i % 3 == 0:\n            print(\"Fizz\")\n        elif i % 5 == 0:\n            print(\"Buzz\")\n        else:\n            print(i)"),
    ("checks [if|whether] a year is a leap year", "def is_leap_year(year):\n    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)"),
    ("sums the digits of a number", "def digit_sum(n):\n    return sum(int(digit) for digit in str(n))"),
    ("computes the power of a number", "def power(base, exponent):\n    return base ** exponent"),
    ("computes the area of a circle", "import math\n\n\ndef circle_area(radius):\n    return math.pi * radius ** 2"),
    ("computes the area of a rectangle", "def rectangle_area(width, height):\n    return width * height"),
    ("counts down from n", "def countdown(n):\n    while n > 0:\n        print(n)\n        n -= 1"),
    ("returns a random number", "import random\n\n\ndef random_number(low, high):\n    return random.randint(low, high)"),
    ("[splits a list into chunks|chunks a list]", "def chunks(items, size):\n    return [items[i:i + size] for i in range(0, len(items), size)]"),
    ("joins a list of strings", "def join_strings(items):\n    return \", \".join(items)"),
    ("checks [if|whether] two words are anagrams", "def are_anagrams(first, second):\n    return sorted(first) == sorted(second)"),
    ("returns the first n primes", "def primes(n):\n    found = []\n    candidate = 2\n    while len(found) < n:\n        if all(candidate % p for p in found):\n            found.append(candidate)\n        candidate += 1\n    return found"),
    ("measures the time of a function", "import time\n\n\ndef timed(function):\n    start = time.perf_counter()\n    result = function()\n    print(time.perf_counter() - start)\n    return result"),
    ("returns the last element of a list", "def last(items):\n    return items[-1]"),
    ("returns the length of a string", "def length(text):\n    return len(text)"),
    ("computes the dot product", "def dot(a, b):\n    return sum(x * y for x, y in zip(a, b))"),
    ("transposes a matrix", "def transpose(matrix):\n    return [list(row) for row in zip(*matrix)]"),
    ("computes the median", "def median(numbers):\n    numbers = sorted(numbers)\n    middle = len(numbers) // 2\n    if len(numbers) % 2 == 1:\n        return numbers[middle]\n    return (numbers[middle - 1] + numbers[middle]) / 2"),
]  # fmt: skip
NAMES = {code: code.split("def ", 1)[1].split("(", 1)[0] for _, code in FUNCTIONS}

SNIPPETS = [
    ("[How do I|How can I|how to] print[ text| hello| something|] in Python[?|]", "print(\"Hello\")"),
    ("[How do I|How can I|how to] [make|create|write] a list in Python[?|]", "numbers = [1, 2, 3]"),
    ("[How do I|How can I|how to] [make|create|write] a [dictionary|dict] in Python[?|]", "ages = {\"Alice\": 30, \"Bob\": 25}"),
    ("[How do I|How can I|how to] [write a for loop|loop over a list|loop] in Python[?|]", "for item in [1, 2, 3]:\n    print(item)"),
    ("[How do I|How can I|how to] write a while loop in Python[?|]", "n = 3\nwhile n > 0:\n    print(n)\n    n -= 1"),
    ("[How do I|How can I|how to] [write|use] an if statement in Python[?|]", "x = 5\nif x > 3:\n    print(\"big\")\nelse:\n    print(\"small\")"),
    ("[How do I|How can I|how to] [open|read] a file in Python[?|]", "with open(\"file.txt\") as file:\n    text = file.read()"),
    ("[How do I|How can I|how to] [define|write] a function in Python[?|]", "def add(a, b):\n    return a + b"),
    ("[How do I|How can I|how to] [define|write] a class in Python[?|]", "class Dog:\n    def __init__(self, name):\n        self.name = name\n\n    def bark(self):\n        return \"Woof!\""),
    ("[How do I|How can I|how to] parse JSON in Python[?|]", "import json\n\ndata = json.loads('{\"a\": 1}')"),
    ("[How do I|How can I|how to] sort a list in Python[?|]", "numbers = [3, 1, 2]\nnumbers.sort()"),
    ("[How do I|How can I|how to] [catch an exception|handle errors] in Python[?|]", "try:\n    x = int(\"a\")\nexcept ValueError:\n    x = 0"),
    ("[How do I|How can I|how to] import a module in Python[?|]", "import math\n\nprint(math.sqrt(16))"),
    ("[How do I|How can I|how to] [get|find] the length of a list in Python[?|]", "n = len([1, 2, 3])"),
    ("[Write|Show me|Give me] a list comprehension[ in Python|][.|]", "squares = [n * n for n in range(10)]"),
    ("[Write|Show me|Give me] [hello world|a hello world program|Hello World][ in Python|][.|]", "print(\"Hello, world!\")"),
    ("[Write|Show me|Give me] [some Python|Python code|a Python program|a Python example|some code|a short program][.|]", "for i in range(3):\n    print(\"Hello\", i)"),
    ("[Write|Show me|Give me] a class [for|of] a [dog|Dog][ in Python|][.|]", "class Dog:\n    def __init__(self, name):\n        self.name = name\n\n    def bark(self):\n        return \"Woof!\""),
    ("[Write|Show me|Give me] a class [for|of] a [point|Point][ in Python|][.|]", "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y"),
]  # fmt: skip

ASK = [
    "[Write|Give me|Show me|Can you write|Please write|Create|I need|write|Implement|Make] [a Python function|a function|python code|a python function|a small Python function|a method|Python code] that {what}[.|?||, please]",
    "[write|Write|Python|python]: a function that {what}",
    "[How do I write|How would you write|How can I write] a function that {what}[ in Python|][?|]",
    "[Write|Implement|Give me|Show me|Define|Code|write] [the function |the Python function |a function called |a function named |`|][N][.| in Python|]",
    "[N] in Python",
    "[Write|Give me|Show me|Can you write|I need|write] [a Python function|a function|code|Python code|a program|a Python program|python code|some code] to {do}[.|?||, please| in Python]",
    "[How do I|How can I|How do you|how to|how would you|Python code to|Python function to|function to|code to] {do}[ in Python| in Python|][?|]",
    "[Can you|Please|] {do} in Python[.|]",
]
LEADS = ["", "", "", "Here it is:\n", "Here is a function that {what}:\n", "Sure:\n"]


VERBS = {
    "does": "do", "flattens": "flatten", "reverses": "reverse", "merges": "merge", "measures": "measure", "chunks": "chunk", "multiplies": "multiply",
}  # fmt: skip


def imperative(what: str) -> str:
    """Turn "adds two numbers" into "add two numbers"."""
    verb, rest = what.split(" ", 1)
    return f"{VERBS.get(verb, verb.removesuffix('s'))} {rest}"


def write_function(rng: random.Random) -> tuple[str, str]:
    """A request for one function and its code in a fenced block."""
    what, code = rng.choice(FUNCTIONS)
    what = spin(rng, what)
    template = rng.choice(ASK)
    # "[N]" stands for the name: `spin` leaves a choice of one as it is.
    asked = spin(rng, template).replace("{what}", what).replace("{do}", imperative(what)).strip()
    if "[N]" in template:
        name = NAMES[code] if rng.random() < 0.6 else NAMES[code].replace("_", " ")
        asked = spin(rng, template.replace("[N]", "{name}"), name=name).replace("`", "")
    return rough(rng, asked), f"{rng.choice(LEADS).replace('{what}', what)}```python\n{code}\n```"


def snippet(rng: random.Random) -> tuple[str, str]:
    """A question about Python and a few lines that answer it."""
    asked, code = rng.choice(SNIPPETS)
    return rough(rng, spin(rng, asked)), f"```python\n{code}\n```"


def module(rng: random.Random) -> str:
    """A plain text of several functions, with docstrings, for completion without a chat."""
    parts = []
    for what, code in rng.sample(FUNCTIONS, rng.randint(1, 6)):
        what = spin(rng, what)
        head, body = code.split(":\n", 1) if not code.startswith("import") else code.split("):\n", 1)
        if code.startswith("import"):
            head += ")"
        said = imperative(what)
        said = said[0].upper() + said[1:]
        doc = rng.choice(("", f'    """{said}."""\n', f"    # {said}\n"))
        parts.append(f"{head}:\n{doc}{body}")
    return "\n\n\n".join(parts) + "\n"


EXCHANGES = [(3, write_function), (1, snippet)]
