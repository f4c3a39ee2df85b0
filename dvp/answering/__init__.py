"""One picture, one question: a checkpoint as a model that answers, what it looked at, and files of questions."""

from dvp.answering.asked import Answer, Candidate
from dvp.answering.model import Answering, load

__all__ = ["Answer", "Answering", "Candidate", "load"]
