"""Where the prompt goes in: the rules that choose an arm, and their record on disk. No rule knows what an arm is."""

from dvp.search.bandit import KArmedBandit
from dvp.search.mean import MeanScores
from dvp.search.record import (
    Found,
    agreeing_search,
    latest_search,
    read_search,
    result_lines,
    search_beside,
    tables_of,
    trained_parts,
    useless,
    write_search,
)
from dvp.search.rule import Rule, Verdict

RULES: dict[str, type[Rule]] = {  # kab= -> the rule
    "published": KArmedBandit,
    "mean": MeanScores,
}

__all__ = [
    "RULES",
    "Found",
    "KArmedBandit",
    "MeanScores",
    "Rule",
    "Verdict",
    "agreeing_search",
    "latest_search",
    "read_search",
    "result_lines",
    "search_beside",
    "tables_of",
    "trained_parts",
    "useless",
    "write_search",
]
