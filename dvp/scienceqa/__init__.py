"""ScienceQA: LLaMA with routed adapters answers multiple-choice questions in words, one visual prompt at layer K."""
