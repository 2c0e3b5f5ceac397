"""Who may import whom: the house's import rules, read from the sources."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Module -> the modules of this project that it may import (and theirs). Anything not listed is refused.
ALLOWED = {
    "_rans": set(),
    "numerics": set(),
    "kernels": {"numerics"},
    "transforms": set(),
    "entropy": set(),
    "container": {"_rans"},
    "sections": {"container"},
    "image": set(),
    "strips": {"image"},
    "data": {"image"},
    "model": {"transforms", "entropy", "numerics", "kernels"},
    "context": set(),
    "minnen": set(),
    "variant": {"context", "minnen", "model", "entropy", "numerics"},
    "scan": {"context", "model", "numerics", "variant"},
    "modelfile": {"model", "transforms", "entropy", "numerics"},
    "zone": {"model", "kernels", "numerics"},
    "deadzone": set(),
    "encoder": {
        "_rans",
        "container",
        "deadzone",
        "entropy",
        "image",
        "kernels",
        "model",
        "modelfile",
        "numerics",
        "sections",
        "strips",
        "zone",
    },
    "codec": {"_rans", "container", "encoder", "image", "model", "numerics", "sections", "strips"},
    "variantfile": {"context", "entropy", "model", "modelfile", "numerics", "variant"},
    "variantcodec": {
        "_rans",
        "codec",
        "encoder",
        "container",
        "context",
        "image",
        "kernels",
        "model",
        "numerics",
        "scan",
        "variant",
        "variantfile",
    },
    "loading": {"codec", "container", "modelfile", "variantcodec", "variantfile", "zone"},
    "recipe": {"data", "steps", "train", "variant", "variantfile"},
    "optim": set(),
    "steps": {"model", "optim"},
    "train": {"data", "model", "modelfile", "steps"},
    "fit": {"codec", "data", "entropy", "image", "loading", "modelfile", "numerics"},
    "rivals": set(),
    "evaluate": {"image", "rivals"},
    "report": {"evaluate", "image"},
    "files": set(),
    "_ans": set(),
    "compat": {"_ans", "kernels"},
    "cli": {"codec", "container", "image", "files", "recipe", "train", "fit", "evaluate", "report"},
    "__init__": {"codec", "container", "image", "loading"},
}
# Outside packages that only these may import.
ONLY = {
    "triton": {"kernels"},
    "matplotlib": {"report"},
    "bjontegaard": {"evaluate"},
    "compressai": {"compat"},
}


def sources():
    for path in sorted((ROOT / "ckbd").glob("*.py")):
        yield path.stem, path
    for path in sorted((ROOT / "ckbd/compat").rglob("*.py")):
        yield "compat", path
    for path in sorted((ROOT / "kernels").glob("*.py")):
        yield "kernels", path


def imports(path):
    """(project module or None, outside package or None) of every import statement in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno}: relative import"
            # `from ckbd import a, b` names modules; `from ckbd.a import b` names what is in one.
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "ckbd" else [node.module]
        for name in names:
            parts = name.split(".")
            assert parts[0] not in ("bench", "tests", "kernels"), f"{path.name}:{node.lineno}: imports {name}"
            yield (parts[1] if len(parts) > 1 else "__init__", None) if parts[0] == "ckbd" else (None, parts[0])


@pytest.mark.parametrize("module, path", list(sources()), ids=lambda v: v if isinstance(v, str) else v.name)
def test_imports_point_downwards(module, path):
    assert module in ALLOWED, f"{path.name}: say in ALLOWED what it may import"
    for inside, outside in imports(path):
        if inside and not (module == inside and module in ("kernels", "compat")) and inside != "__init__":
            assert inside in ALLOWED[module], f"{path.name} imports ckbd.{inside}"
        if inside == "__init__":
            assert module in ("cli", "__init__"), f"{path.name} imports the package itself"
        if outside in ONLY:
            assert module in ONLY[outside], f"{path.name} imports {outside}"


def test_every_permission_is_used():
    """A rule that allows more than the code needs would let an arrow slip in unseen."""
    used = {module: set() for module in ALLOWED}
    for module, path in sources():
        used[module] |= {inside for inside, _ in imports(path) if inside} - {"__init__", module}
    lazy = {"__init__": ALLOWED["__init__"]}  # looked up by name at run time
    assert {m: ALLOWED[m] - used[m] for m in ALLOWED if m not in lazy and ALLOWED[m] - used[m]} == {}


def test_the_exact_zone_imports_nothing_but_torch():
    for path in (ROOT / "kernels/numerics.py", ROOT / "kernels/reference.py"):
        outside = {o for _, o in imports(path)} - {None, "__future__", "typing"}
        assert outside == {"torch"}, path
