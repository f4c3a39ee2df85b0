"""Where the prompt goes in: the rules that choose an arm, and their record on disk. No rule knows what an arm is."""

from dvp.search.bandit import KArmedBandit
from dvp.search.record import latest_search

__all__ = ["KArmedBandit", "latest_search"]
