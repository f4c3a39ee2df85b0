"""Ask a checkpoint on a page in the browser."""

import importlib.util
import socket
from typing import Any

from dvp.commands.predict import open_checkpoint, require_checkpoint
from dvp.config import ex
from dvp.errors import UserError

GRADIO = "gradio>=6,<7"  # as requirements-page.txt has it


@ex.command(unobserved=True)
def demo(load_path, host, port, tokenizer, clip_model, num_gpus, precision, answer_by, max_new_tokens):
    """Show a page on which a checkpoint answers questions about pictures, and what it looked at.

    On this machine alone, unless host=0.0.0.0 lets others reach it; nothing is sent anywhere else.
    """
    require_checkpoint("demo", load_path)
    if importlib.util.find_spec("gradio") is None:
        raise UserError(f"demo needs Gradio, which is not installed here: pip install '{GRADIO}'.")
    require_free(host, port)
    options = {"answer_by": answer_by, "max_new_tokens": max_new_tokens}
    answering = open_checkpoint(load_path, tokenizer, clip_model, num_gpus, precision, **options)

    from dvp.page.layout import build_page, serve

    page = build_page(answering)
    address = serve(page, host, port)
    print(f"Ask it at {address} (Ctrl-C ends it).", flush=True)
    page.block_thread()


def require_free(host: Any, port: int) -> None:
    """Raise UserError where nothing can be served at this address, or something else is."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, _, _, address = found[0]
        with socket.socket(family, kind) as place:
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was closed just now is free
            place.bind(address)
    except OSError as error:
        raise UserError(
            f"The page cannot be served at host={host} port={port} ({error.strerror}): give another port, such as "
            f"port={port % 65535 + 1}, or an address of this machine."
        ) from error
