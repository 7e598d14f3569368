"""Numbers as people say them digit by digit, 3 to 7 digits: phone numbers, dates, prices, sums, times.

A number has 13.9 bits, which are 2.2 bits per digit, its end included; a random string of 3 to 7 digits has 3.8. So
they are a domain that a language model can know. There are 17,498 of them, none of which is frequent: where 750 are
kept for tests, 92 % of what people say is left to learn from.
"""

import numpy as np

from qstudy.data.corpora.grammar import expand, parse

# As in `grammar`: `name = alternatives`, all equally likely, the first of which is a kind.
GRAMMAR = """
number = {phone} | {phone} | {phone} | {phone} | {date} | {date} | {date} | {price} | {sum} | {time}
phone = {area} {double} {digit} {digit} | {area} {digit} {digit} {double}  # numbers that one remembers
area = 2 1 2 | 3 1 2 | 4 1 5 | 8 0 0
date = {high} {day} {year}  # month first, January to September
day = {high} | 1 {digit} | 2 {digit}
year = 2 0 1 {digit} | 2 0 2 {digit}
price = {high} {digit} {digit} {cents}
cents = 9 9 | 9 5 | 5 0
sum = {high} {digit} {digit} 0 0 | {high} {digit} {digit} 0 0 0
time = {hour} {minute}
hour = {high} | 1 {digit} | 2 {low}
low = 0 | 1 | 2 | 3
minute = 0 0 | 1 0 | 1 5 | 2 0 | 3 0 | 4 0 | 4 5 | 5 0
high = 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9
digit = 0 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 8 | 9
double = 0 0 | 1 1 | 2 2 | 3 3 | 4 4 | 5 5 | 6 6 | 7 7 | 8 8 | 9 9
"""
RULES = parse(GRAMMAR)


def draw_number(generator: np.random.Generator) -> tuple[int, ...]:
    """One of them, 3 to 7 digits."""

    def choose(options: list[str]) -> str:
        return options[generator.integers(len(options))]

    return tuple(map(int, expand("{number}", RULES, choose).split()))
