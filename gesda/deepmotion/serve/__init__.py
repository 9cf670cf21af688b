"""``gesda deepmotion serve``: a web page to teach gestures to a recogniser, and to see what it sees.

``protocol`` says what page and server tell each other and checks it, ``security`` who may talk at all,
``workspace`` makes a recogniser follow what is taught, ``sessions`` keeps visitors apart, ``app`` puts them on the
web. Needs the extra ``gesda[deepmotion]``, which is imported when the server is made and not before.

>>> from gesda.deepmotion.serve import run
>>> run(model="gestures.gesda")  # doctest: +SKIP
The gestures' page is at http://127.0.0.1:8321/
Ctrl-C ends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from gesda.deepmotion.serve.protocol import Limits

__all__ = ["Limits", "create_app", "run"]


def create_app(make_recognizer: Callable[[str], Any], **options: Any) -> Any:
    """Make the web application; see `gesda.deepmotion.serve.app.create_app`.

    Raises
    ------
    ImportError
        A package of the extra is missing.
    """
    _check_packages()
    from gesda.deepmotion.serve.app import create_app as create

    return create(make_recognizer, **options)


def run(
    host: str = "127.0.0.1",
    port: int = 8321,
    *,
    token: str | None = None,
    model: str | None = None,
    make_recognizer: Callable[[str], Any] | None = None,
    background: Callable[[str], Iterable[Any]] | None = None,
    allowed_hosts: Iterable[str] = (),
    certificate: str | None = None,
    key: str | None = None,
    limits: Limits | None = None,
) -> None:
    """Serve the page until Ctrl-C.

    Parameters
    ----------
    host : str, default: "127.0.0.1"
        Address to bind to. Any but loopback's needs a token.
    port : int, default: 8321
        0 takes a free one.
    token : str, default: None
        What visitors must know. None makes one where the address is not loopback's, and asks for none where it is.
    model : str, default: None
        A model file to begin with.
    make_recognizer, background : callables, defaults: `gesda.deepmotion.serve.defaults`
        See `create_app`.
    allowed_hosts : iterable of str, default: ()
        Names that the server is reached by, besides its address and this machine's name.
    certificate, key : str, default: None
        PEM files, for https, which a phone's motion sensor asks for.
    limits : Limits, default: Limits()

    Raises
    ------
    ImportError
        A package of the extra is missing.
    OSError
        The address cannot be bound.
    ValueError
        The token is too short, the port out of range, or the model no model.
    """
    _check_packages()
    from gesda.deepmotion.serve.server import serve

    serve(
        host,
        port,
        token=token,
        model=model,
        make_recognizer=make_recognizer,
        background=background,
        allowed_hosts=allowed_hosts,
        certificate=certificate,
        key=key,
        limits=limits,
    )


def _check_packages() -> None:
    from importlib.util import find_spec

    missing = [name for name in ("starlette", "uvicorn", "websockets") if find_spec(name) is None]
    if missing:
        raise ImportError(f"the web page needs {', '.join(missing)}; install it with: pip install 'gesda[deepmotion]'")
