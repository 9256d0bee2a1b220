"""ONNX Runtime Web: the program that runs the networks in a browser, copied into what ``export --format web`` writes.

It is the published npm package, one pinned version, known by its checksum; fetched once, into the cache of weights.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from capture.errors import UserError
from capture.files import write_atomically

log = logging.getLogger(__name__)

VERSION = "1.30.0"
ARCHIVE = f"onnxruntime-web-{VERSION}.tgz"
ADDRESS = f"https://registry.npmjs.org/onnxruntime-web/-/{ARCHIVE}"
SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
SIZE_MB = 33
TIMEOUT_S = 30  # of silence
# backend -> its script and its binary.  The one for WebGPU is twice as large, and only loaded where there is one.
FILES = {
    "wasm": ("ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"),
    "webgpu": ("ort.webgpu.bundle.min.mjs", "ort-wasm-simd-threaded.asyncify.wasm"),
}


def runtime_files(cache_dir: Path, given: Path | None = None) -> dict[str, bytes]:
    """The files of ``FILES`` by name, from the archive ``given`` or from the cache, fetched where it is not there.

    Raises UserError when the archive cannot be read or fetched, or is not the published one.
    """
    archive = given or cache_dir / ARCHIVE
    if not archive.is_file():
        if given is not None:
            raise UserError(f"--runtime {given}: no such file; {_remedy(cache_dir)}")
        _fetch(archive)
    content = archive.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise UserError(f"{archive}: not the published {ARCHIVE}; remove it, or {_remedy(cache_dir)}")
    names = [name for pair in FILES.values() for name in pair]
    with tarfile.open(archive) as packed:
        found = {name: packed.extractfile(f"package/dist/{name}") for name in names}
        return {name: file.read() for name, file in found.items() if file is not None}


def _fetch(archive: Path) -> None:
    log.info("fetching ONNX Runtime Web %s (%d MB, once) into %s", VERSION, SIZE_MB, archive.parent)
    try:
        with urllib.request.urlopen(ADDRESS, timeout=TIMEOUT_S) as answer:
            content = answer.read()
    except (OSError, urllib.error.URLError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{ADDRESS} does not answer ({reason}) and there is no {archive}; {_remedy(archive.parent)}"
        ) from None
    archive.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(archive, content)


def _remedy(cache_dir: Path) -> str:
    return f"fetch {ADDRESS} elsewhere, and put it into {cache_dir} or name it with --runtime"
