"""Voices of espeak-ng: an accent and a variant (`en-us+m3`), split so that no test voice is heard in training."""

ACCENTS = ("en-us", "en", "en-gb-x-rp", "en-gb-scotland")
# Variants that sound like people; near twins (steph, steph2, steph3) are never on both sides.
_TRAIN = """
    m1 m2 m3 m4 m6 m7 f1 f2 f4 Alex Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky Lee Marco Mario Michael Mike
    Nguyen Reed Storm adam anika aunty belinda benjamin boris caleb edward grandma grandpa john linda marcelo max miguel
    norbert pablo paul pedro quincy rob robert sandro travis victor zac
"""
TRAIN_VARIANTS = tuple(_TRAIN.split())
TEST_VARIANTS = ("m5", "m8", "ed", "david", "f3", "f5", "steph", "shelby")
