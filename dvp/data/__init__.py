"""Arrow files -> rows -> batches."""

from dvp.data.datamodule import QuestionData

__all__ = ["QuestionData"]
