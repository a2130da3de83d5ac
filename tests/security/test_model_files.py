"""Model files that would do more than compute: refused by name before a runtime sees them, and walled in if one did."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hansa.artifact import confined
from hansa.artifact.confined import Limits, run_confined
from hansa.artifact.errors import ConfinedRunError, ModelFileError
from hansa.artifact.graph import read_graph

ROWS = {"table": np.ones((3, 2), np.float32)}


def model(*nodes, initializers=(), outputs=None, **changes) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("table", TensorProto.FLOAT, ["batch", 2])],
        outputs or [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 2])],
        list(initializers),
    )
    opsets = [helper.make_opsetid("", 17), *changes.pop("opsets", ())]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8, **changes)


def identity(**changes) -> onnx.ModelProto:
    return model(helper.make_node("Identity", ["table"], ["logits"]), **changes)


def external() -> onnx.ModelProto:
    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    onnx.external_data_helper.set_external_data(weight, location="../../../../etc/passwd")
    weight.data_location = TensorProto.EXTERNAL
    weight.ClearField("raw_data")
    return model(helper.make_node("MatMul", ["table", "w"], ["logits"]), initializers=[weight])


def external_unmarked() -> onnx.ModelProto:
    found = external()
    found.graph.initializer[0].ClearField("data_location")
    return found


def external_in_attribute() -> onnx.ModelProto:
    node = helper.make_node("Constant", [], ["c"], value=external().graph.initializer[0])
    return model(node, helper.make_node("MatMul", ["table", "c"], ["logits"]))


def loop() -> onnx.ModelProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["again"]), helper.make_node("Identity", ["x"], ["y"])],
        "forever",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("again", TensorProto.BOOL, []),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, None),
        ],
    )
    true = numpy_helper.from_array(np.array(True), "true")
    return model(helper.make_node("Loop", ["", "true", "table"], ["logits"], body=body), initializers=[true])


def hidden_graph() -> onnx.ModelProto:
    found = loop()
    found.graph.node[0].op_type = "Identity"
    return found


def function() -> onnx.ModelProto:
    found = identity()
    found.functions.append(
        helper.make_function(
            "", "Relu", ["a"], ["b"], [helper.make_node("Abs", ["a"], ["b"])], [helper.make_opsetid("", 17)]
        )
    )
    return found


def huge_shape() -> onnx.ModelProto:
    found = identity()
    found.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[1 << 20, 1 << 20], raw_data=b""))
    return found


def short_tensor() -> onnx.ModelProto:
    found = identity()
    found.graph.initializer.append(TensorProto(name="w", data_type=1, dims=[8], raw_data=b"\0" * 4))
    return found


def text_tensor() -> onnx.ModelProto:
    found = identity()
    found.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"x"]))
    return found


def sparse() -> onnx.ModelProto:
    found = identity()
    found.graph.sparse_initializer.append(onnx.SparseTensorProto())
    return found


def training() -> onnx.ModelProto:
    found = identity()
    found.training_info.append(onnx.TrainingInfoProto())
    return found


REFUSED = {
    "external data": (external(), "another file"),
    "external data without the mark": (external_unmarked(), "another file"),
    "external data of a constant": (external_in_attribute(), "another file"),
    "an unknown operator": (
        model(helper.make_node("RandomNormalLike", ["table"], ["logits"])),
        "RandomNormalLike",
    ),
    "an unknown domain": (
        model(
            helper.make_node("Run", ["table"], ["logits"], domain="evil"),
            opsets=[helper.make_opsetid("evil", 1)],
        ),
        "evil",
    ),
    "an unknown operator of a known domain": (
        model(helper.make_node("Tokenizer", ["table"], ["logits"], domain="com.microsoft")),
        "com.microsoft:Tokenizer",
    ),
    "a loop": (loop(), "graph of its own|Loop"),
    "a graph in an attribute": (hidden_graph(), "graph of its own"),
    "a function that takes an operator's name": (function(), "functions"),
    "a huge tensor": (huge_shape(), "numbers; at most"),
    "a tensor shorter than its shape": (short_tensor(), "does not hold"),
    "text": (text_tensor(), "holds text"),
    "sparse tensors": (sparse(), "sparse"),
    "training steps": (training(), "training"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_is_more_than_data_is_refused_by_name(what, monkeypatch):
    found, words = REFUSED[what]
    monkeypatch.setattr(confined, "_run", lambda *_: pytest.fail("a process was started"))
    with pytest.raises(ModelFileError, match=words):
        run_confined(found.SerializeToString(), ROWS, classes=2)


def test_two_graphs_that_a_parser_would_merge_are_refused():
    data = identity().SerializeToString()
    with pytest.raises(ModelFileError, match="two graphs"):
        read_graph(data + data)


def test_fields_that_the_reader_does_not_know_are_refused():
    with pytest.raises(ModelFileError, match="unknown part"):
        read_graph(identity().SerializeToString() + b"\xf2\x06\x01x")  # field 110


@pytest.mark.parametrize("cut", [1, 7, 20, 50])
def test_a_file_that_is_cut_short_is_refused(cut):
    data = identity().SerializeToString()
    with pytest.raises(ModelFileError):
        read_graph(data[:-cut])


def test_noise_is_refused_and_never_breaks_the_reader():
    random = np.random.default_rng(0)
    data = bytearray(identity().SerializeToString())
    for _ in range(500):
        changed = bytearray(data)
        changed[random.integers(len(data))] = random.integers(256)
        try:
            read_graph(bytes(changed))
        except ModelFileError:
            continue


def test_a_file_above_the_cap_is_not_read():
    with pytest.raises(ModelFileError, match="at most"):
        read_graph(identity().SerializeToString(), max_bytes=10)


# --- the process -----------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_graph_and_all_walls_are_told():
    found = run_confined(identity().SerializeToString(), {"table": np.eye(2, dtype=np.float32)}, classes=2)
    assert np.array_equal(found.scores, np.eye(2, dtype=np.float32))
    assert all("network" in line or "files" in line for line in found.unprotected)


def expanding() -> bytes:
    """A small file that asks for 256 GB."""
    shape = numpy_helper.from_array(np.array([1 << 18, 1 << 18], np.int64), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["much"]),
        helper.make_node("ReduceSum", ["much"], ["one"], keepdims=1),
        helper.make_node("Add", ["table", "one"], ["logits"]),
    ]
    return model(*nodes, initializers=[shape]).SerializeToString()


def endless() -> bytes:
    """A small file that multiplies large matrices until somebody stops it."""
    size = numpy_helper.from_array(np.array([6000, 6000], np.int64), "size")
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["m0"])]
    nodes += [helper.make_node("MatMul", [f"m{i}", f"m{i}"], [f"m{i + 1}"]) for i in range(200)]
    nodes += [
        helper.make_node("ReduceSum", ["m200"], ["one"], keepdims=1),
        helper.make_node("Add", ["table", "one"], ["logits"]),
    ]
    return model(*nodes, initializers=[size]).SerializeToString()


def test_memory_is_bounded():
    with pytest.raises(ConfinedRunError):
        run_confined(expanding(), ROWS, classes=2, limits=Limits(memory_bytes=2 << 30))


def test_time_is_bounded():
    with pytest.raises(ConfinedRunError, match=r"within 2 s|time or its memory"):
        run_confined(endless(), ROWS, classes=2, limits=Limits(seconds=2))


def test_scores_that_are_not_finite_or_not_as_many_are_refused():
    infinite = model(helper.make_node("Div", ["table", "table"], ["logits"])).SerializeToString()
    with pytest.raises(ConfinedRunError, match="not finite"):
        run_confined(infinite, {"table": np.zeros((1, 2), np.float32)}, classes=2)
    with pytest.raises(ConfinedRunError, match="3 scores"):
        run_confined(identity().SerializeToString(), ROWS, classes=3)


def test_other_inputs_are_refused():
    with pytest.raises(ModelFileError, match="is given text"):
        run_confined(identity().SerializeToString(), {"text": ROWS["table"]}, classes=2)
    with pytest.raises(ModelFileError, match="another shape"):
        run_confined(identity().SerializeToString(), {"table": np.ones((3, 5), np.float32)}, classes=2)


PROBE = """
import json, os, socket, sys
sys.path.insert(0, {folder!r})
import confined_worker as worker
worker._limit({{"memory_bytes": 8 << 30, "cpu_s": 60}})
network, files = worker._leave_network(), worker._close_files()
def attempt(act):
    try:
        act()
    except OSError:
        return "stopped"
    return "done"
def call():
    with socket.socket() as line:
        line.settimeout(2)
        line.connect(("127.0.0.1", {port}))
fds = []
for fd in range(3, 64):
    try:
        os.fstat(fd); fds.append(fd)
    except OSError:
        pass
print(json.dumps({{
    "network": network, "files": files, "environ": sorted(os.environ), "fds": fds,
    "read": attempt(lambda: open({secret!r}).read()), "write": attempt(lambda: open("x", "w").write("x")),
    "call": attempt(call),
}}))
"""


def test_behind_the_walls_nothing_of_the_member_is_left(tmp_path, monkeypatch):
    # the walls themselves, put up as the worker does, then tried by code that may do anything
    import json
    import socket
    import subprocess

    secret = tmp_path / "key.pem"
    secret.write_text("key")
    monkeypatch.setenv("HANSA_SECRET", "s")
    kept = os.open(secret, os.O_RDONLY)
    os.set_inheritable(kept, True)
    folder = str(Path(confined.__file__).parent)
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = PROBE.format(folder=folder, secret=str(secret), port=server.getsockname()[1])
        ran = subprocess.run(
            [sys.executable, "-I", "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={},
            close_fds=True,
            cwd=tmp_path,
        )
    os.close(kept)
    told = json.loads(ran.stdout)
    assert "HANSA_SECRET" not in told["environ"]
    assert told["fds"] == []
    assert told["write"] == "stopped"
    assert told["read"] == ("stopped" if told["files"] else "done")
    assert told["call"] == ("stopped" if told["network"] else "done")


def test_the_worker_knows_nothing_of_hansa():
    source = Path(confined._WORKER).read_text(encoding="utf-8")
    assert "hansa" not in source.split('"""')[2]
