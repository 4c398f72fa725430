"""deploy/kubernetes: valid by the published schemas, and its parts fit together and docs/container.md."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from exporter import cli, config

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / "deploy/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
OF_KUBERNETES = [path for path in FILES if path.stem not in ("kustomization", "podmonitor")]
# appArmorProfile came with 1.30.
RELEASES = ("1.30", "1.33", kubernetes_validate.latest_version())
COMMAND = re.findall(r"^podman run .*?^```$", (ROOT / "docs/container.md").read_text(), re.MULTILINE | re.DOTALL)[0]


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


DAEMONSET = read("daemonset.yaml")
POD = DAEMONSET["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
LABELS = DAEMONSET["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize(
    "path", [p for p in FILES if p.stem not in ("kustomization", "podmonitor")], ids=lambda p: p.stem
)
def test_it_is_valid_by_the_published_schema(path: Path, release: str) -> None:
    kubernetes_validate.validate(read(path.name), release, strict=True)


def test_a_wrong_key_would_be_found() -> None:
    wrong = read("daemonset.yaml")
    wrong["spec"]["template"]["spec"]["hostPid"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, RELEASES[0], strict=True)


def test_kustomize_takes_every_file() -> None:
    kustomization = read("kustomization.yaml")
    assert sorted(kustomization["resources"]) == [path.name for path in FILES if path.stem != "kustomization"]
    assert {read(name)["metadata"].get("namespace") for name in kustomization["resources"]} == {"bpf-exporter", None}
    assert [image["name"] for image in kustomization["images"]] == [CONTAINER["image"]]


def test_whoever_selects_selects_the_pods_of_the_daemonset() -> None:
    assert DAEMONSET["spec"]["selector"]["matchLabels"] == LABELS
    assert read("networkpolicy.yaml")["spec"]["podSelector"]["matchLabels"] == LABELS
    assert read("podmonitor.yaml")["spec"]["selector"]["matchLabels"] == LABELS
    assert POD["serviceAccountName"] == read("serviceaccount.yaml")["metadata"]["name"]


def test_the_pod_monitor_scrapes_under_the_name_that_the_alerts_know() -> None:
    """By hand, for its schema is the Prometheus operator's, not Kubernetes'."""
    monitor = read("podmonitor.yaml")
    assert (monitor["apiVersion"], monitor["kind"]) == ("monitoring.coreos.com/v1", "PodMonitor")
    assert set(monitor["spec"]) == {"jobLabel", "selector", "podMetricsEndpoints"}
    assert f'job="{LABELS[monitor["spec"]["jobLabel"]]}"' in (ROOT / "prometheus/alerts.yaml").read_text()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert set(endpoint) == {"port", "path", "interval", "scrapeTimeout", "relabelings"}
    assert endpoint["port"] in {port["name"] for port in CONTAINER["ports"]}
    assert int(endpoint["scrapeTimeout"].removesuffix("s")) < int(endpoint["interval"].removesuffix("s"))
    for rule in endpoint["relabelings"]:
        assert set(rule) == {"sourceLabels", "targetLabel", "action"}


def test_the_network_policy_lets_scrapers_in_and_nothing_out() -> None:
    spec = read("networkpolicy.yaml")["spec"]
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    assert spec["egress"] == []
    (rule,) = spec["ingress"]
    assert [port["port"] for port in rule["ports"]] == [port["name"] for port in CONTAINER["ports"]]


def test_its_rights_are_those_of_the_page() -> None:
    context = CONTAINER["securityContext"]
    assert context["capabilities"] == {"drop": ["ALL"], "add": re.findall(r"--cap-add (\w+)", COMMAND)}
    assert not context["privileged"]
    assert not context["allowPrivilegeEscalation"]
    assert context["readOnlyRootFilesystem"]
    assert "fsGroup" not in POD["securityContext"]
    assert not POD["automountServiceAccountToken"]


def test_its_mounts_are_those_of_the_page_and_only_its_own_are_writable() -> None:
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in CONTAINER["volumeMounts"]}
    volumes = dict.fromkeys(re.findall(r"--volume \S+?:(/[^:\s]+)", COMMAND))
    assert set(volumes) | {"/tmp"} <= set(mounts)
    writable = {path for path, read_only in mounts.items() if not read_only}
    assert writable == {"/tmp", cli.DEFAULT_CACHE, cli.DEFAULT_STATE}
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}


def test_its_arguments_and_paths_are_those_of_the_command() -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*CONTAINER["args"], "--help"])
    assert ended.value.code == 0
    (mount,) = (mount for mount in CONTAINER["volumeMounts"] if mount["name"] == "config")
    names = read("configmap.yaml")["data"]
    assert {f"{mount['mountPath']}/{name}" for name in names} == {cli.DEFAULT_CONFIG}


def test_a_configuration_as_kubelet_lays_it_down_is_trusted(tmp_path: Path) -> None:
    """A directory for all, a link to a link to the file: pkg/volume/util/atomic_writer.go. And another one later."""
    (volume,) = (volume["configMap"] for volume in POD["volumes"] if "configMap" in volume)
    text = read("configmap.yaml")["data"]["config.yaml"]
    tmp_path.chmod(0o777)
    for number, content in enumerate((text, text.replace("  - use: tcp_latency\n", ""))):
        place = tmp_path / f"..2026_11_21_00_00_00.{number}"
        place.mkdir(mode=0o755)
        (place / "config.yaml").write_text(content)
        (place / "config.yaml").chmod(volume["defaultMode"])
        (tmp_path / "..data_tmp").symlink_to(place.name)
        (tmp_path / "..data_tmp").rename(tmp_path / "..data")
        if not number:
            (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
        loaded = config.load(tmp_path / "config.yaml", trust_owner=[os.getuid()], strict=True, enforce_owner=True)
        assert len(loaded.config.programs) == content.count("use:") == 3 - number
