"""A grammar of voice-assistant commands: about 500 words, more sentences than anyone will ever speak."""

import random
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Literal

from qstudy.errors import UserError

Domain = Literal["all", "home", "world"]
"""Topics that sentences are of: all, or one half of them."""

# `name = alternatives`, all equally likely; `{name}` in one is replaced by an alternative of that rule.
GRAMMAR = """
# A topic first, so that topics with few patterns are as frequent as those with many.
sentence = {timer} | {timer} | {alarm} | {light} | {light} | {device} | {climate} | {door} | {music} | {music} |
    {volume} | {weather} | {weather} | {call} | {message} | {shopping} | {reminder} | {calendar} | {travel} |
    {number} | {number} | {digits} | {arithmetic} | {convert} | {sport} | {language} | {media} | {question}
timer = set a timer for {count} {duration} | set a {count} minute timer |
    start a timer for {small} hours and {count} minutes | cancel the {item} timer |
    how much time is left on the {item} timer | add {count} minutes to the timer |
    set a {item} timer for {count} minutes | pause the timer in the {room}
alarm = set an alarm for {time} | wake me up at {time} | wake me up at {time} on {weekday} |
    cancel the alarm at {time} | change my alarm to {time} | set an alarm for {time} every {weekday} |
    snooze for {count} minutes
light = turn {switch} the {room} {lamp} | turn the {room} {lamp} {switch} | dim the {room} lights to {count} percent
    | make the {room} lights {color} | change the color of the {lamp} in the {room} to {color} |
    make the {lamp} in the {room} {brighter} | set the {room} {lamp} to {color} |
    switch {switch} all the lights in the {room}
device = turn {switch} the {room} {appliance} | turn the {appliance} in the {room} {switch} |
    start the {appliance} at {time} | start the {appliance} in {count} minutes | stop the {appliance} |
    is the {appliance} in the {room} still running
climate = set the {room} temperature to {degrees} degrees | set the thermostat to {degrees} degrees |
    how {warm} is it in the {room} | make the {room} {warmer} | lower the heating in the {room} by {small} degrees
door = {lock} the {side} {door part} | is the {side} {door part} {locked} | who is at the {room} {door part} |
    {lock} the {room} {door part}
music = play {some} {genre} | play {some} {genre} in the {room} | play {some} {genre} on the {room} speaker |
    play something by {artist} | play {artist} in the {room} | {control} in the {room} |
    {control} on the {room} speaker | play my favorite song by {artist} | add {artist} to my playlist
volume = set the volume to {count} percent | turn the volume {direction} to {count} |
    turn the {room} speaker {direction} | make the music {louder} in the {room} |
    turn {direction} the {room} television
weather = what is the weather in {city} | what is the weather in {city} {day} | will it {rain} in {city} {day} |
    how {warm} is it in {city} | do i need an umbrella in {city} {day} | what is the forecast for {city} |
    when does the sun {sun} in {city} {day}
call = call {name} | call {name} at work | call {name} on the mobile phone | call {name} and {name} |
    video chat with {name} | call the {business} in {city} | dial {digits}
message = text {name} that {news} | send a message to {name} saying {news} | tell {name} that {news} |
    tell {name} {news} | read my messages from {name} | leave a voicemail for {name} | answer {name} that {news}
shopping = add {item} to the shopping list | add {item} and {item} to my grocery list |
    remove {item} from my shopping list | order {small} {package} of {item} | do we have enough {item} |
    what is on the grocery list | buy {item} and {item} | how much does a {single package} of {item} cost
reminder = remind me to {task} at {time} | remind me to {task} on {weekday} | remind me to {task} on {date} |
    remind me to {task} in {count} minutes | remind me to {task} {day} | remind {name} to {task}
calendar = {plan} my {event} with {name} on {date} | {plan} the {event} with {name} at {time} |
    when is my next {event} | what is on my calendar for {day} | what is on my calendar on {date} |
    move the {event} to {time} on {weekday}
travel = find a {transport} from {city} to {city} | find a {transport} to {city} on {date} |
    book a hotel in {city} for {small} nights | how far is {city} from {city} | navigate to {place} |
    show me directions to {place} | what time is it in {city} | how long does it take to drive to {city} |
    where is the nearest {place name} in {city} | when does the next {transport} leave
number = my code is {digits} | enter the pin {digits} | the zip code is {digits} | my account number is {digits} |
    call the number {digits} | the flight number is {digits}
arithmetic = what is {count} {operation} {count} | what is {count} percent of {hundreds} |
    how much is {hundreds} {operation} {count}
convert = convert {count} {unit} to {unit} | how many {unit} are in {count} {unit}
sport = did the {team} {win} {last} | when do the {team} play the {team} |
    what was the score of the {team} game {last} | how many points did the {team} score {last}
language = how do you say {phrase} in {tongue} | translate {phrase} to {tongue} | how do you spell {name}
media = watch {genre} on the {room} television | switch to channel {count} |
    switch the {room} television to channel {count} | read me the news about {topic} in {city} |
    show me pictures of {topic} on the {room} television
question = tell {name} a joke about {topic} | give me a recipe with {item} and {item} |
    how many people live in {city} | what is the traffic like in {city} {day} | how long do i boil {item} |
    find a recipe with {item}
digits = {digit} {digit} {digit} | {digit} {digit} {digit} {digit} | {digit} {digit} {digit} {digit} {digit} |
    {digit} {digit} {digit} {digit} {digit} {digit} | {digit} {digit} {digit} {digit} {digit} {digit} {digit} |
    {digit} {digit} {digit} {digit} {digit} {digit} {digit} {digit}

# Numbers, times and dates.
digit = zero | one | two | three | four | five | six | seven | eight | nine
unit digit = one | two | three | four | five | six | seven | eight | nine
teen = ten | eleven | twelve | thirteen | fourteen | fifteen | sixteen | seventeen | eighteen | nineteen
tens = twenty | thirty | forty | fifty | sixty | seventy | eighty | ninety
small = two | three | four | five | six | seven | eight | nine | ten | eleven | twelve
count = {small} | {teen} | {tens} | {tens} {unit digit}
hundreds = one hundred | {unit digit} hundred | {unit digit} hundred and fifty
degrees = fifty {unit digit} | sixty {unit digit} | seventy {unit digit} | eighty {unit digit}
duration = minutes | minutes | seconds | hours
hour = one | two | three | four | five | six | seven | eight | nine | ten | eleven | twelve
minute = oh five | ten | fifteen | twenty | twenty five | thirty | thirty five | forty | forty five | fifty |
    fifty five
half = a m | p m | in the morning | in the afternoon | in the evening
time = {hour} {half} | {hour} {minute} | {hour} {minute} {half} | {hour} o'clock | half past {hour} |
    quarter past {hour} | quarter to {hour} | noon | midnight
weekday = monday | tuesday | wednesday | thursday | friday | saturday | sunday
day = today | tomorrow | tonight | this weekend | next week | on {weekday} | next {weekday}
last = yesterday | last night | last week | on {weekday}
month = january | february | march | april | may | june | july | august | september | october | november | december
ordinal = first | second | third | fourth | fifth | sixth | seventh | eighth | ninth | tenth | twelfth | fifteenth |
    twentieth
date = {month} {ordinal} | the {ordinal} of {month}

# Home.
room = kitchen | bedroom | living room | bathroom | garage | hallway | office | basement | dining room | nursery |
    porch | attic | garden | laundry room | guest room
switch = on | off
lamp = lights | lamp | ceiling light
color = red | blue | green | yellow | purple | orange | pink | white | violet | turquoise
brighter = brighter | darker
appliance = fan | heater | television | air conditioner | coffee maker | vacuum | dishwasher | oven | radio |
    sprinkler | camera | washing machine
warm = warm | cold | hot | humid
warmer = warmer | colder | cooler
lock = lock | unlock | open | close
locked = locked | unlocked | open | closed
side = front | back | side | cellar | garden
door part = door | window | gate

# Music and media.
some = some | more | my favorite | the best
genre = jazz | rock | classical music | country music | hip hop | pop | blues | folk music | heavy metal | soul |
    dance music | piano music
artist = madonna | the beatles | queen | bob dylan | coldplay | adele | david bowie | johnny cash | pink floyd |
    mozart | beethoven
control = skip this song | pause the music | stop the music | resume playing | shuffle my playlist |
    repeat this track
direction = up | down
louder = louder | quieter | softer
topic = history | science | space | politics | cats | dogs | robots

# Places and people.
city = london | paris | berlin | new york | chicago | boston | seattle | tokyo | madrid | rome | sydney | toronto |
    dublin | moscow | denver | houston | dallas | miami | vienna | oslo | cairo | delhi | singapore
place name = airport | hospital | library | gas station | museum | train station | post office | bank
place = the {place name} | the {place name} in {city} | the {place name} in {city} | {city} | work | home
transport = flight | train | bus | taxi | ferry
rain = rain | snow | be sunny | be cloudy
sun = rise | set
name = john | mary | david | susan | michael | linda | james | sarah | robert | emma | peter | anna | thomas | laura
    | kevin | julia | daniel | alice | martin | sophie | george | helen | mom | dad | grandma
business = dentist | restaurant | doctor | school | bank
news = i am running late | dinner is ready | i will be home at {time} | the meeting is cancelled | i miss you |
    lunch is at {time} | the {transport} is late | we need more {item} | i am on my way | the {appliance} is broken
team = lakers | yankees | giants | bears | eagles | warriors | cowboys | bulls
win = win | lose | win against the {team} | lose to the {team}

# Things.
item = milk | eggs | bread | butter | apples | bananas | coffee | cheese | tomatoes | onions | chicken | rice |
    pasta | sugar | flour | toilet paper | batteries | soap | carrots | potatoes | orange juice | tea | honey |
    garlic | paper towels | salt
package = boxes | bags | bottles
single package = box | bag | bottle
task = call the {business} | take out the trash | water the plants | feed the cat | walk the dog | pay the rent |
    pick up the kids | buy {item} | take my medicine | check the mail | book a {transport} | clean the {room} |
    call {name} | text {name}
event = meeting | appointment | lunch | interview | party | class
plan = schedule | cancel | confirm | move
operation = plus | minus | times | divided by
unit = miles | kilometers | pounds | kilograms | inches | centimeters | cups | liters | feet | meters
phrase = good morning | thank you | where is the train station | how much does it cost | i am lost | good night |
    see you later
tongue = french | spanish | german | italian | japanese | chinese | russian
"""

HOME = ("timer", "alarm", "light", "device", "climate", "door", "music", "volume", "shopping", "reminder", "media")
"""Topics of the domain `home`; all others are of `world`. Each half has words that the other lacks."""

_SLOT = re.compile(r"\{([^{}]+)\}")


def sentence(generator: random.Random, domain: Domain = "all") -> str:
    """One random sentence of the grammar: lower-case words."""
    return expand(generator.choice(topics(domain)), RULES, generator.choice)


def expand(option: str, rules: Mapping[str, list[str]], choose: Callable[[list[str]], str]) -> str:
    """`option`, each slot of which is filled with the alternative that `choose` takes, and so on."""
    return _SLOT.sub(lambda slot: expand(choose(rules[slot[1]]), rules, choose), option)


@cache
def topics(domain: Domain) -> tuple[str, ...]:
    """The slots that a domain's sentences begin with, each as often as it is likely: `{timer}`."""
    every = RULES["sentence"]
    return tuple(topic for topic in every if domain == "all" or (topic[1:-1] in HOME) == (domain == "home"))


def vocabulary(domain: Domain = "all") -> set[str]:
    """All words of a domain."""
    words, seen, waiting = set[str](), set[str](), list(topics(domain))
    while waiting:
        option = waiting.pop()
        words.update(_SLOT.sub(" ", option).split())
        rules = set(_SLOT.findall(option)) - seen
        seen |= rules
        waiting += [inner for rule in rules for inner in RULES[rule]]
    return words


PATIENCE = 10_000
"""Sentences that were there before, beside a hundred for each new one, until a domain is taken to be used up."""


def distinct_sentences(count: int, generator: random.Random, taken: set[str], domain: Domain = "all") -> list[str]:
    """`count` different random sentences, none of them in `taken`, to which they are added.

    Raises:
        UserError: the domain has hardly as many.
    """
    found: list[str] = []
    again = 0
    while len(found) < count:
        candidate = sentence(generator, domain)
        if candidate not in taken:
            taken.add(candidate)
            found.append(candidate)
        elif (again := again + 1) > PATIENCE + 100 * len(found):
            raise UserError(
                f"--domain: {domain} has hardly more than {len(taken):,} different sentences; ask for fewer utterances."
            )
    return found


def parse(grammar: str) -> dict[str, list[str]]:
    """Rule -> its alternatives, of a text in the form of `GRAMMAR`."""
    rules: dict[str, list[str]] = {}
    text = re.sub(r"#.*|\n +", " ", grammar)  # comments go, indented lines continue the rule above them
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, alternatives = line.partition(" = ")
        rules[name] = [" ".join(option.split()) for option in alternatives.split("|")]
    return rules


RULES = parse(GRAMMAR)
