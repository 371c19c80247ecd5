"""No module imports ONNX Runtime before its reporting is off, in any package and any image."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from penstock.local.root import project_root

REPORTING = {"onnxruntime", "onnxruntime_genai"}
VARIABLE = "ORT_DISABLE_TELEMETRY"


def sources() -> list[Path]:
    root = project_root()
    return [root / "shared" / "src", *sorted(root.glob("services/*/src"))]


def unprotected(source: Path) -> list[str]:
    """The places below a source folder that import it where neither their module nor a package around it is first."""
    found = []
    for path in sorted(source.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        own = turned_off(tree)
        packages = [folder / "__init__.py" for folder in path.parents if source in folder.parents]
        around = any(turned_off(ast.parse(each.read_text())) is not None for each in packages if each.exists())
        for line in imports(tree):
            if not around and (own is None or own > line):
                found.append(f"{path.relative_to(source)}:{line}")
    return found


def imports(tree: ast.Module) -> Iterator[int]:
    """The lines that import it, inside of functions too."""
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        if any(name.partition(".")[0] in REPORTING for name in names):
            yield node.lineno


def turned_off(tree: ast.Module) -> int | None:
    """The line, at the top level of a module, that sets the variable; None where there is none."""
    wanted = {f"os.environ.setdefault('{VARIABLE}', '1')", f"os.environ['{VARIABLE}'] = '1'"}
    return next((node.lineno for node in tree.body if ast.unparse(node) in wanted), None)


def test_no_module_imports_it_with_its_reporting_on() -> None:
    assert [place for source in sources() for place in unprotected(source)] == []


def test_the_packages_that_import_it_are_found() -> None:
    importing = {
        path.relative_to(source).parts[0]
        for source in sources()
        for path in source.rglob("*.py")
        if any(imports(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert importing >= {"penstock_inference", "penstock_safety", "penstock_tuning"}


@pytest.mark.parametrize(
    ("module", "package", "places"),
    [
        ("import onnxruntime", "", ["made/one.py:1"]),
        ("def load():\n    from onnxruntime_genai import Model", "", ["made/one.py:2"]),
        (f"import os\nimport onnxruntime.capi\nos.environ['{VARIABLE}'] = '1'", "", ["made/one.py:2"]),
        (f"import os\nos.environ.setdefault('{VARIABLE}', '0')\nimport onnxruntime", "", ["made/one.py:3"]),
        (f"import os\nos.environ.setdefault('{VARIABLE}', '1')\nimport onnxruntime", "", []),
        ("import onnxruntime", f"import os\nos.environ.setdefault('{VARIABLE}', '1')", []),
        ("import onnxruntime_extensions_of_others", "", []),
    ],
)
def test_what_is_not_protected_is_found(tmp_path: Path, module: str, package: str, places: list[str]) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "__init__.py").write_text(package)
    (tmp_path / "made" / "one.py").write_text(module)
    assert unprotected(tmp_path) == places


def test_images_turn_it_off_and_nothing_turns_it_on() -> None:
    root = project_root()
    images = [path for path in root.glob("deploy/**/Dockerfile") if "pip install" in path.read_text(encoding="utf-8")]
    assert root / "deploy" / "Dockerfile" in images
    for image in images:
        final = image.read_text(encoding="utf-8").rpartition("\nFROM ")[2]
        setting = re.search(rf"^ENV (?:.*\\\n)*.*\b{VARIABLE}=1\b", final, re.MULTILINE)
        assert setting is not None, image
        assert not re.search(r"^(?:RUN|CMD|ENTRYPOINT) .*python", final[: setting.start()], re.MULTILINE), image
    for path in [*root.glob("docker-compose*.yml"), *root.glob("deploy/**/docker-compose*.yml")]:
        for service in yaml.safe_load(path.read_text(encoding="utf-8"))["services"].values():
            environment = service.get("environment") or {}
            assert str(dict(environment).get(VARIABLE, "1")) == "1", path
