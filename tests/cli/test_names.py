"""What `apply` stores, every other command can name."""

import json

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from revstore.cli import run

ODD = st.sampled_from(list(" \t\n-.,:=*'\"\\\u2003\u200b\u00e9aZ0"))
NAMES = st.text(ODD | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(NAMES, NAMES)
@example("a", " ")
@example("a", "\u2003")
@example(" ", "a")
@example("-a", "-b")
@example("a,b", "--all-namespaces")
def test_what_apply_stores_can_be_named(tmp_path, capsys, name, namespace):
    """A namespace that is blank, which -n takes for a variable that is not set, is refused by
    `apply` as by all others; any other that is stored leads to the object, in every form."""
    store = f"sqlite:///{tmp_path}/names.db"
    obj = {"apiVersion": "v1", "kind": "ConfigMap"}
    obj["metadata"] = {"name": name, "namespace": namespace}
    path = tmp_path / "object.json"
    path.write_text(json.dumps(obj))

    def revstore(*words):
        code = run(["--store", store, *words])
        return code, capsys.readouterr()

    code, printed = revstore("apply", "-f", str(path))
    at = f"--namespace={namespace}"
    if code:
        assert "metadata.name" in printed.err
        assert revstore("get", "configmaps", "-A", "-o", "name")[1].out == ""
        # The same is refused where it stands on the command line.
        assert revstore("get", at, "--", "configmaps", name)[0] in (1, 2)
        return
    for words in (("configmap", name), (f"configmap/{name}",)):
        code, printed = revstore("get", "-o", "json", "-n", namespace, "--", *words)
        assert (code, json.loads(printed.out)["metadata"]["name"]) == (0, name)
    assert revstore("delete", at, "--", "configmap", name)[0] == 0
    assert revstore("get", "configmaps", "-A", "-o", "name")[1].out == ""


@pytest.mark.parametrize("blank", ["", " ", "\n", "\u2003"])
@pytest.mark.parametrize(
    "words", [("get", "pods"), ("delete", "pods", "--all"), ("edit", "pod/a"), ("watch", "pods")]
)
def test_a_blank_namespace_is_refused_everywhere(tmp_path, capsys, blank, words):
    """As from a variable that is not set: neither all namespaces nor the default one is meant."""
    assert run(["--store", f"sqlite:///{tmp_path}/names.db", *words, "-n", blank]) == 2
    assert "namespace" in capsys.readouterr().err
