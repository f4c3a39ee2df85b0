"""A page on which a checkpoint is asked about pictures, made with Gradio, which only layout.py knows."""
