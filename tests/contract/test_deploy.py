"""The files of deploy/: judged by the tools that they are for, where those are here; each says so where it is not.

``hadolint`` and a Python that has `helm-python-sdk` come from outside (see `.ci/run`); systemd's from Debian.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
CHART = DEPLOY / "helm" / "hansa"
HADOLINT = shutil.which("hadolint")
HELM = os.environ.get("HANSA_HELM_PYTHON", "")
RENDER = """
import json, sys
import helm_python as helm
found = helm.lint(sys.argv[1])
assert not found["errors"], found
bad = [one for one in found["messages"] if one["severity"] > 1]
assert not bad, bad
with helm.Chart.load(sys.argv[1]) as chart:
    print(json.dumps([chart.render(values, name="demo", namespace="n") for values in json.loads(sys.argv[2])]))
"""
VALUES = [
    {"image": {"repository": "r"}, "data": {"existingClaim": "data"}, "sealingSecret": "sealing", "gpus": 1},
    {"image": {"repository": "r"}, "role": "coordinator", "home": {"existingClaim": "home"}},
    {"image": {"repository": "r"}, "role": "auditor", "ledger": "league.example.org:8443"},
]


def test_the_files_are_there() -> None:
    assert len(DOCKERFILES) == 5
    assert len(UNITS) == 3
    assert (CHART / "Chart.yaml").exists()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_nothing_runs_as_root(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    users = [line for line in lines if line.startswith("USER ")]
    assert users[-1] == "USER 10001:10001"
    assert not any(re.match(r"(ADD|ARG|ENV) .*(KEY|SECRET|TOKEN)", line, re.IGNORECASE) for line in lines)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
@pytest.mark.skipif(HADOLINT is None, reason="hadolint is not here")
def test_hadolint_finds_nothing(path: Path) -> None:
    ran = subprocess.run([str(HADOLINT), "--no-color", path], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_systemd_takes_the_units_and_finds_them_walled_in(path: Path, tmp_path: Path) -> None:
    unit = tmp_path / path.name
    text = path.read_text(encoding="utf-8")
    assert "/opt/hansa/bin/hansa" in text
    unit.write_text(
        text.replace("/opt/hansa/bin/hansa", sys.executable), encoding="utf-8"
    )  # a program that exists
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stderr) == (0, "")
    # systemd's own measure, 0 to 10, of what a service could reach; a unit without hardening has 9.6
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=15", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-300:]


def test_every_service_of_the_demo_is_walled_in_and_has_no_way_out() -> None:
    tree = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    parties = {"coordinator", "north", "south", "east", "west", "harbour", "inspector"}
    assert parties <= set(tree["services"])
    for name in parties:
        service = tree["services"][name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"]
        assert "ports" not in service
        assert "enrol" in service["depends_on"]
    assert tree["networks"]["league"]["internal"] is True
    assert [name for name, one in tree["services"].items() if one.get("user") == "0:0"] == ["volume"]


@pytest.fixture(scope="module")
def rendered() -> list[dict[str, dict]]:
    """By role, the objects by kind."""
    if not HELM:
        pytest.skip("no Python with helm-python-sdk is named by HANSA_HELM_PYTHON")
    ran = subprocess.run(
        [HELM, "-c", RENDER, str(CHART), json.dumps(VALUES)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    files = json.loads(ran.stdout.splitlines()[-1])
    trees = [[tree for text in one.values() for tree in yaml.safe_load_all(text) if tree] for one in files]
    return [{tree["kind"]: tree for tree in one} for one in trees]


class TestChart:
    def test_each_role_is_one_pod_that_may_do_little(self, rendered) -> None:
        for one in rendered:
            spec = one["StatefulSet"]["spec"]
            pod = spec["template"]["spec"]
            (container,) = pod["containers"]
            assert spec["replicas"] == 1  # a ledger has one writer
            assert pod["automountServiceAccountToken"] is False
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }

    def test_only_the_coordinator_is_reached_and_it_reaches_nobody(self, rendered) -> None:
        node, coordinator, auditor = rendered
        assert [("Service" in one) for one in rendered] == [False, True, False]
        assert coordinator["NetworkPolicy"]["spec"]["egress"] == []
        for one in (node, auditor):
            assert one["NetworkPolicy"]["spec"]["ingress"] == []

    def test_a_nodes_data_and_sealing_key_are_read_only(self, rendered) -> None:
        (container,) = rendered[0]["StatefulSet"]["spec"]["template"]["spec"]["containers"]
        mounts = {one["name"]: one for one in container["volumeMounts"]}
        assert mounts["data"]["readOnly"] is True
        assert mounts["sealing"]["readOnly"] is True
        assert container["resources"]["limits"]["nvidia.com/gpu"] == 1

    def test_a_role_that_is_none_and_an_image_without_a_name_are_refused(self, rendered) -> None:
        assert rendered
        for values, words in (
            ({"role": "spy", "image": {"repository": "r"}}, "role"),
            ({}, "image.repository"),
        ):
            ran = subprocess.run(
                [HELM, "-c", RENDER, str(CHART), json.dumps([values])],
                capture_output=True,
                text=True,
                check=False,
            )
            assert ran.returncode != 0
            assert words in ran.stderr
