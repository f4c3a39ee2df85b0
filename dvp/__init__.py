"""Dynamic Visual Prompting: one visual token, put in front of the text before layer K of a language model."""

import warnings

warnings.filterwarnings("ignore", "pkg_resources is deprecated")  # Sacred imports it
