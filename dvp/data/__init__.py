"""Arrow files -> rows -> batches, and the image tokens that are kept on disk beside them."""

from dvp.data.arrow import read_answers
from dvp.data.datamodule import QuestionData
from dvp.data.questions import QuestionReader

__all__ = ["QuestionData", "QuestionReader", "read_answers"]
