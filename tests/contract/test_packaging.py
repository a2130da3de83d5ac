"""What the distribution says about itself: dependencies are declared, used, pinned and documented."""

from __future__ import annotations

import ast
import re
import stat
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SOURCES = {
    "hansa": ROOT / "shared",
    "hansa_flower": ROOT / "shared",
    "hansa_client": ROOT / "client",
    "hansa_server": ROOT / "server",
    "hansa_simulations": ROOT / "simulations",
}


def declared(*extras: str) -> set[str]:
    """Names of direct dependencies: of the base install, or of the extras that are named."""
    lists = (
        [PROJECT["optional-dependencies"][extra] for extra in extras] if extras else [PROJECT["dependencies"]]
    )
    names = {canonicalize_name(Requirement(line).name) for lines in lists for line in lines}
    return names - {"hansa"}


BASE = declared()
RUNTIME = BASE | declared("client", "server", "simulation", "follow", "predict", "metrics", "tracking")
ALL = RUNTIME | declared("dev")


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in found)
    assert len({canonicalize_name(pin.name) for pin in found}) == len(found)
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in found}


def needed(names: set[str]) -> set[str]:
    """These distributions and everything that they need here, by installed metadata."""
    found: set[str] = set()
    waiting = [(name, "") for name in names]
    seen = set(waiting)
    while waiting:
        name, extra = waiting.pop()
        try:
            lines = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # an extra that this environment does not have
        found.add(canonicalize_name(name))
        for requirement in map(Requirement, lines):
            if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
                continue
            for wanted in ("", *requirement.extras):
                entry = (canonicalize_name(requirement.name), wanted)
                if entry not in seen:
                    seen.add(entry)
                    waiting.append(entry)
    return found


def imported(package: str, *, without: tuple[str, ...] = ()) -> set[str]:
    """Distributions whose modules a package imports anywhere, by its sources."""
    owners = packages_distributions()
    found: set[str] = set()
    files = list((SOURCES[package] / package).rglob("*.py"))
    assert files
    for path in files:
        if any(path.is_relative_to(SOURCES[package] / package / room) for room in without):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module]
            else:
                continue
            modules = {name.partition(".")[0] for name in names} - sys.stdlib_module_names - set(SOURCES)
            found |= {canonicalize_name(owners.get(module, [module])[0]) for module in modules}
    return found


REMOTE = ("following/remote.py", "observing/scraped.py", "tracking.py")  # what talks to services of others

# --- declared and used ---------------------------------------------------------------------------------------


def test_what_the_base_install_imports_it_brings():
    # whoever builds a model, runs a published one, follows a log from afar, or tracks runs, installs an extra
    apart = ("models", "v1", *REMOTE, "artifact/encoding.py", "artifact/confined_worker.py")
    assert imported("hansa", without=apart) <= BASE


def test_running_a_published_model_takes_a_small_extra():
    assert declared("predict") == {"onnxruntime", "tokenizers"}
    assert imported("hansa", without=("models", "v1", *REMOTE)) <= BASE | declared("predict")


def test_following_a_log_takes_a_small_extra():
    assert declared("follow") == {"grpcio", "protobuf"}
    apart = ("models", *REMOTE[1:], "artifact/encoding.py", "artifact/confined_worker.py")
    assert imported("hansa", without=apart) <= BASE | declared("follow")


@pytest.mark.parametrize(
    ("package", "extras"),
    [
        ("hansa", ("client", "follow", "metrics", "tracking")),
        ("hansa", ("server", "metrics", "tracking")),
        ("hansa_flower", ("client",)),
        ("hansa_flower", ("server",)),
        ("hansa_client", ("client", "metrics")),
        ("hansa_server", ("server", "metrics")),
        ("hansa_simulations", ("simulation", "client", "server", "tracking")),
    ],
)
def test_what_a_package_imports_its_extra_brings(package, extras):
    assert imported(package) <= BASE | declared(*extras)


def test_what_is_declared_is_imported():
    used = set().union(*(imported(package) for package in SOURCES))
    assert used >= RUNTIME, f"declared and never imported: {sorted(RUNTIME - used)}"


# --- pinned --------------------------------------------------------------------------------------------------


def test_everything_that_is_needed_is_pinned_and_fits_what_is_declared():
    pinned = pins()
    unpinned = needed(ALL) - set(pinned)
    # the CUDA libraries of a torch from the default index are pinned by torch itself
    unpinned = {name for name in unpinned if not name.startswith(("nvidia-", "cuda-", "triton"))}
    assert not unpinned
    lists = [PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()]
    for line in (line for lines in lists for line in lines):
        requirement = Requirement(line)
        if requirement.name != "hansa":
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


def test_the_versions_that_others_count_on():
    pinned = pins()
    assert pinned["torch"] == "2.13.0"
    assert pinned["flwr"].startswith("1.41.")


def test_the_makefile_installs_the_torch_that_is_pinned():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert re.findall(r"torch==([\d.]+)", makefile) == [pins()["torch"]]


# --- documented ----------------------------------------------------------------------------------------------


def documented() -> dict[str, list[str]]:
    """Rows of the tables of `docs/dependencies.md` up to what was turned down, by package."""
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").partition("## Turned down")[0]
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("|")
    ]
    rows = [cells for cells in rows if cells[0] != "package" and not set(cells[0]) <= set("- ")]
    assert len({cells[0] for cells in rows}) == len(rows)
    return {canonicalize_name(cells[0]): cells for cells in rows}


def test_every_direct_dependency_is_documented_and_nothing_else():
    assert set(documented()) == ALL


@pytest.mark.parametrize("name", sorted(ALL))
def test_a_documented_dependency_has_version_licence_and_purpose(name):
    cells = documented()[name]
    assert cells[1] == pins()[name]
    assert cells[2]
    assert len(cells[-1]) >= 5
    if len(cells) == 5:
        for extra in cells[3].split(", "):
            assert name in declared(extra)
        spelled = {
            extra
            for extra in ("client", "server", "follow", "predict", "metrics", "tracking")
            if name in declared(extra)
        }
        assert spelled <= set(cells[3].split(", "))


def test_what_was_turned_down_is_not_a_dependency():
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8").partition("## Turned down")[2]
    turned_down = {"plotly", "jcs", "pymerkle", "torchcsprng", "onnxscript", "torch-pruning", "torchao"}
    assert all(name in page for name in turned_down)
    assert not turned_down & needed(ALL)


def licence(name: str) -> str:
    """What a distribution's metadata say of its licence; whole licence texts are left out."""
    metadata = distribution(name).metadata
    stated = [metadata.get("License-Expression") or "", *(metadata.get_all("Classifier") or [])]
    short = metadata.get("License") or ""
    stated = [line for line in stated if "License ::" in line or "::" not in line]
    return " ".join([*stated, short if len(short) < 100 else ""]).strip()


def test_no_runtime_dependency_is_under_a_gpl():
    names = needed(RUNTIME)
    assert len(names) >= 60
    # "GPL… WITH GCC-exception" is the runtime library of a compiler, linked into wheels
    found = {name: re.sub(r"GPL\S* WITH GCC-exception\S*", "", licence(name)) for name in names}
    assert not {name for name, text in found.items() if re.search(r"\bA?GPL|GNU (Affero )?General", text)}


def test_every_runtime_dependency_states_a_licence():
    unstated = {name for name in needed(RUNTIME) if not licence(name)}
    assert not unstated


# --- entry points and files ----------------------------------------------------------------------------------


def test_the_script_leads_to_the_command_line():
    assert PROJECT["scripts"] == {"hansa": "hansa.cli:main"}
    assert PROJECT["requires-python"] == ">=3.11"
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").lstrip().startswith("Apache License")


@pytest.mark.parametrize("package", SOURCES)
def test_a_package_says_that_it_is_typed(package):
    assert (SOURCES[package] / package / "py.typed").exists()


def test_what_continuous_integration_starts_can_be_started():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert script.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


def test_every_target_of_the_makefile_has_help_and_stands_on_the_environment():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = dict(re.findall(r"^([a-z]+):(.*)$", makefile, flags=re.MULTILINE))
    assert set(targets) >= {"install", "demo", "test", "lint", "bench", "clean", "help"}
    for name, rest in targets.items():
        assert " ## " in rest or rest.startswith("  ## "), name
        if name not in ("help", "clean"):
            assert "$(STAMP)" in rest, name
