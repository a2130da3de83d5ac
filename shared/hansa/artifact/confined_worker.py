"""The process that runs a model's file: it knows the file, the inputs, and nothing else.

Started by `hansa.artifact.confined` as ``python -I confined_worker.py`` with an empty environment and no descriptor but
its three pipes. It imports nothing of Hansa. Walls go up in this order: limits of time, memory and files; a network
namespace without interfaces; then the runtime is loaded; then no new file can be opened (Landlock) and no privilege
gained; only then are the model's bytes read. What it could not put up it says in its answer; where all walls are asked for,
it answers that before it has read the model.

Both ways: the length of a JSON header (8 bytes, little endian), the header, and the arrays' bytes one after the other.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import sys
from typing import Any, BinaryIO

_NEWUSER, _NEWNET = 0x10000000, 0x40000000  # sched.h
_NO_NEW_PRIVILEGES = 38  # prctl.h
_LANDLOCK_CREATE, _LANDLOCK_RESTRICT = 444, 446  # the same number on every architecture
_VERSION_ONLY = 1
# All rights over files that a kernel's version of Landlock knows (linux/landlock.h); none is given back.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_DTYPES = ("float32", "int32", "int64", "int8")


def main() -> None:
    """Read one request from stdin, answer it on stdout."""
    source, target = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints does not write into the answer
    header = _header(source)
    _limit(header["limits"])
    open_walls = [] if _leave_network() else ["network"]
    import numpy as np
    import onnxruntime as ort

    ort.set_default_logger_severity(4)
    if not _close_files():
        open_walls.append("files")
    if open_walls and header["all_walls"]:
        _answer(target, {"shape": [], "open": open_walls}, b"")
        return
    model = _exactly(source, header["model_bytes"])
    inputs = {}
    for described in header["inputs"]:
        if described["dtype"] not in _DTYPES:
            raise ValueError("an input has another dtype")
        array = np.frombuffer(_exactly(source, described["bytes"]), dtype=described["dtype"])
        inputs[described["name"]] = array.reshape(described["shape"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = header["limits"]["threads"]
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    rows, batch = header["rows"], header["batch"]
    parts = [
        session.run(None, {name: value[at : at + batch] for name, value in inputs.items()})[0]
        for at in range(0, rows, batch)
    ]
    scores: Any = np.concatenate(parts) if parts else np.zeros((0, 0), np.float32)
    if scores.dtype != np.float32:
        raise ValueError("the scores are not float32")
    _answer(target, {"shape": list(scores.shape), "open": open_walls}, np.ascontiguousarray(scores).tobytes())


def _answer(target: BinaryIO, header: dict[str, Any], body: bytes) -> None:
    told = json.dumps(header).encode()
    target.write(len(told).to_bytes(8, "little") + told + body)
    target.flush()


def _header(source: BinaryIO) -> dict[str, Any]:
    length = int.from_bytes(_exactly(source, 8), "little")
    header: dict[str, Any] = json.loads(_exactly(source, length))
    return header


def _exactly(source: BinaryIO, count: int) -> bytes:
    data = source.read(count)
    if len(data) != count:
        raise EOFError("the request is cut short")
    return data


def _limit(limits: dict[str, int]) -> None:
    for what, value in (
        (resource.RLIMIT_AS, limits["memory_bytes"]),
        (resource.RLIMIT_CPU, limits["cpu_s"]),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        _soft, hard = resource.getrlimit(what)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(what, (most, most))


def _leave_network() -> bool:
    """Move into a network namespace of its own, which has no interface that is up."""
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.unshare(_NEWUSER | _NEWNET) == 0 or libc.unshare(_NEWNET) == 0)


def _close_files() -> bool:
    """Give up the right to open, make or change any file, for good; and any way to gain privileges."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    version = libc.syscall(_LANDLOCK_CREATE, None, ctypes.c_size_t(0), _VERSION_ONLY)
    if version < 1:
        return False
    handled = (ctypes.c_uint64 * 1)(_FILE_RIGHTS.get(version, _FILE_RIGHTS[5]))
    ruleset = libc.syscall(_LANDLOCK_CREATE, ctypes.byref(handled), ctypes.c_size_t(8), 0)
    if ruleset < 0:
        return False
    done = libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0) == 0
    os.close(ruleset)
    return bool(done)


if __name__ == "__main__":
    main()
