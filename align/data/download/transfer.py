"""One file over HTTP(S): resumed after any break, checked for length and SHA-256, whole or absent under its name.

An attempt asks for what is missing with ``Range`` and ``If-Range``. A server that does not know ranges, or whose file
has changed, answers with the whole file, which then replaces the part (`align.data.download.part`). A transfer without
a length, a checksum or chunks can be cut without anybody noticing; none of the published sources is of that kind.
"""

from __future__ import annotations

import http.client
import re
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from align.data.download.part import PIECE, Part, hash_file, human, open_part, require_space
from align.errors import UserError

_PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be another one in a minute
_REFUSED = {
    401: "wants an account (401); fetch the file in a browser and put it there by hand",
    403: "refuses the file (403); accept its terms in a browser, or try again later",
    404: "does not have the file (404); it was moved or removed",
    410: "does not have the file any more (410)",
}
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


@dataclass(frozen=True)
class Patience:
    """``attempts``: in a row without a new byte; ``timeout``: s of silence; ``wait``: s, doubled each time."""

    attempts: int = 5
    timeout: float = 30.0
    wait: float = 1.0


@dataclass(frozen=True)
class Fetched:
    """A whole file. ``kept``: bytes of an earlier call that did not have to be fetched again."""

    path: Path
    size: int
    sha256: str
    kept: int


class _CutError(Exception):
    """The transfer broke off; another attempt may help."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows http -> http(s) and https -> https; nothing else."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new != "https"):
            fp.close()
            raise UserError(f"{req.full_url} leads on to {newurl[:200]!r}, which is refused; only https is followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str, target: Path, sha256: str | None = None, patience: Patience | None = None, progress: bool = True
) -> Fetched:
    """Fetch ``url`` (http or https) to ``target``; the ``.part`` of an earlier call is continued.

    ``sha256``: what the file must have (hexadecimal); None: anything. ``progress``: a bar, on a terminal only.

    Raises
    ------
    UserError
        The server refuses, the connection fails ``patience.attempts`` times in a row without a new byte, the disk is
        full or too small (the part is kept), the checksum differs (the part is removed), another process is fetching
        the same file, or the address or a redirection is of another kind than http(s).
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise UserError(f"{url!r} is not an http or https address")
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{target.name}.part")
    with open_part(path) as file:
        part = Part(url, path, file, sha256 is not None)
        _persist(part, patience or Patience(), progress)
        found = hash_file(path)
        if sha256 is not None and found != sha256.lower():
            part.remove()
            raise UserError(
                f"{url} has SHA-256 {found}, expected {sha256.lower()}; the copy was removed. Run the same command "
                "again; when it repeats, the file has changed at its source"
            )
        size = part.size
        part.become(target)
        return Fetched(target, size, found, part.kept)


def _persist(part: Part, patience: Patience, progress: bool) -> None:
    """Attempt after attempt until the part is whole; a byte beyond the farthest so far renews the patience."""
    from tqdm import tqdm

    farthest, failures = part.size, 0
    name = part.path.name.removesuffix(".part")
    with tqdm(desc=name, unit="B", unit_scale=True, disable=None if progress else True, leave=False) as bar:
        while not part.whole:
            try:
                _attempt(part, patience.timeout, bar)
                return
            except _CutError as error:
                failures = 0 if part.size > farthest else failures + 1
                farthest = max(farthest, part.size)
                if failures >= patience.attempts:
                    raise UserError(
                        f"{part.url}: {error} ({failures} attempts without a new byte); {human(part.size)} are kept, "
                        "the same command goes on from there"
                    ) from error
                time.sleep(patience.wait * 2 ** max(failures - 1, 0))


def _attempt(part: Part, timeout: float, bar: Any) -> None:
    """Ask for what is missing and append it. Raises `_CutError` where another attempt may help."""
    try:
        with _open(_request(part), timeout) as answer:
            _fit(part, answer)
            bar.total = part.total
            bar.update(part.size - bar.n)
            while piece := answer.read1(PIECE):  # read() would lose what came before a break
                part.append(piece)
                bar.update(len(piece))
    except urllib.error.HTTPError as error:
        error.close()
        _refused(part, error)
    except (http.client.HTTPException, urllib.error.URLError, ConnectionError, TimeoutError) as error:
        raise _CutError(f"the connection broke off ({_reason(error)})") from error
    if part.total is not None and not part.whole:
        raise _CutError(f"the connection broke off after {part.size} of {part.total} bytes")


def _request(part: Part) -> urllib.request.Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": "shallow-recon"}
    if part.size:
        headers["Range"] = f"bytes={part.size}-"
        if part.validator:
            headers["If-Range"] = part.validator
    return urllib.request.Request(part.url, headers=headers)  # noqa: S310 - fetch checked the scheme


def _open(request: urllib.request.Request, timeout: float) -> Any:
    """Knows http and https alone; the stock opener would also take file: and ftp: addresses."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.UnknownHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        _Redirects,
    ):
        opener.add_handler(handler())
    return opener.open(request, timeout=timeout)


def _fit(part: Part, answer: Any) -> None:
    """Make the part fit the answer: keep it before the rest of the same file, empty it before a whole one.

    Raises `UserError` for an answer that is not the file, `_CutError` (the part emptied) for a rest of another one.
    """
    kind = answer.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/xhtml+xml"):
        raise UserError(f"{part.url} answers with a web page instead of the file; open it in a browser")
    packed = answer.headers.get("Content-Encoding", "identity").strip().lower()
    if packed not in ("", "identity"):
        raise UserError(f"{part.url} sends the file packed ({packed}), which was not asked for; fetch it in a browser")
    validator = _validator(answer.headers)
    if answer.status == 206:
        total = _total_of_rest(part, answer.headers.get("Content-Range", ""))
        if part.validator and validator and validator != part.validator:
            part.restart()
            raise _CutError("the file changed at its source between two attempts")
    else:
        part.restart()
        length = answer.headers.get("Content-Length", "").strip()
        total = int(length) if length.isascii() and length.isdigit() else None
    part.belongs(validator or part.validator, total)
    if total is not None:
        require_space(total - part.size, part.path.parent)


def _total_of_rest(part: Part, content_range: str) -> int | None:
    """Length of the whole file; raises `_CutError`, the part emptied, when the rest is not what was asked for."""
    match = _CONTENT_RANGE.fullmatch(content_range.strip())
    total = int(match[2]) if match and match[2] != "*" else None
    if match is None or int(match[1]) != part.size or (part.total is not None and total not in (None, part.total)):
        part.restart()
        raise _CutError(f"the server sent {content_range or 'an unnamed range'!r}, not the rest of the file")
    return total if total is not None else part.total


def _validator(headers: Any) -> str | None:
    """What If-Range takes: a strong ETag, else the date of the last change."""
    etag = (headers.get("ETag") or "").strip()
    if etag and not etag.startswith("W/"):
        return str(etag)
    return (headers.get("Last-Modified") or "").strip() or None


def _refused(part: Part, error: urllib.error.HTTPError) -> None:
    """Raise the `UserError` or `_CutError` of an answer that is no file."""
    if error.code == 416 and part.size:
        part.restart()
        raise _CutError("the server has fewer bytes than were fetched before (416)") from error
    if error.code in _PASSING:
        raise _CutError(f"the server is busy or broken ({error.code})") from error
    if error.code < 400:
        raise UserError(f"{part.url}: {' '.join(str(error.reason).split())[:200]}; refused") from error
    host = urlsplit(error.url or part.url).netloc
    raise UserError(f"{part.url}: {host} {_REFUSED.get(error.code, f'refuses the file ({error.code})')}") from error


def _reason(error: BaseException) -> str:
    """The innermost sentence of an error of the network."""
    inner = getattr(error, "reason", error)
    return " ".join(str(inner).split()) or type(inner).__name__
