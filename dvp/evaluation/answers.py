"""The official VQA evaluation's answer processing: what makes two spellings of an answer the same answer.

The rules and the table are those of GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py.
"""

import re
from functools import lru_cache

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
COMMA_IN_NUMBER = re.compile(r"\d,\d")
LOOSE_PERIOD = re.compile(r"\.(?!\d)")
# The evaluator hands a regular-expression flag (of value 32) to the parameter that limits the replacements.
MOST_PERIODS = 32

ARTICLES = {"a", "an", "the"}
DIGITS = "zero one two three four five six seven eight nine ten".split()
CONTRACTED = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
    he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
    needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
    somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
    that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll
    why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
""".split()


def _without_one_apostrophe(word: str) -> list[str]:
    return [word[:at] + word[at + 1 :] for at, mark in enumerate(word) if mark == "'"]


CONTRACTIONS = {loose: word for word in CONTRACTED for loose in _without_one_apostrophe(word)}
CONTRACTIONS["somebody'd"] = "somebodyd"  # the evaluator's own slip, key and value swapped
WORDS = {"none": "0"} | {word: str(number) for number, word in enumerate(DIGITS)}


def normalise_punctuation(text: str) -> str:
    """The text without punctuation, as the evaluator treats the annotators' answers when they differ."""
    number = COMMA_IN_NUMBER.search(text)
    kept = text
    for mark in PUNCTUATION:
        joined = number or f"{mark} " in text or f" {mark}" in text
        kept = kept.replace(mark, "" if joined else " ")
    return LOOSE_PERIOD.sub("", kept, count=MOST_PERIODS)


@lru_cache(maxsize=2**16)  # ten annotators mostly give the same few thousand answers
def normalise_answer(text: str) -> str:
    """The answer in its official form: punctuation, then number words and articles, then contractions."""
    text = normalise_punctuation(text.replace("\n", " ").replace("\t", " ").strip())
    words = [WORDS.get(word, word) for word in text.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)
