"""Who may import whom: the house's import rules, read from the sources."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Room -> the rooms that its files may import. docs/architecture.md draws it; the order is that of the floors.
ROOMS = {
    "_rans": set(),
    "_ans": set(),
    "_passes": set(),
    "kernels": set(),
    "model": {"kernels"},
    "forks": set(),
    "codec": {"_rans", "_passes", "kernels", "model", "forks"},
    "pipeline": {"_rans", "kernels", "model", "codec", "forks"},
    "api": {"codec", "model", "pipeline"},
    "light": {"_rans", "_passes", "model", "codec"},
    "papers": {"_rans", "kernels", "model", "codec", "api"},
    "training": {"kernels", "model", "codec", "papers", "api", "evaluation"},
    "evaluation": {"codec"},
    "compat": {"_ans", "kernels"},
    "loading": {"codec", "model", "papers", "api"},
    "readers": {"codec", "model", "forks", "loading", "api"},
    "pillow": {"codec", "forks", "readers"},
    "opening": {"codec", "readers", "pillow", "api"},
    "shell": {"_rans", "_passes", "kernels", "model", "codec", "light", "evaluation", "api", "pipeline", "readers"},
    "cli": {"shell", "training"},
    "__main__": {"cli"},
    "__init__": {"codec", "loading", "api", "opening"},
}
# File -> all that it may import of this project, where the room's rule would let more through than is meant.
FILES = {
    "kernels/numerics.py": set(),
    "kernels/products.py": set(),
    "kernels/reference.py": {"kernels.network", "kernels.numerics", "kernels.products"},
    "codec/limits.py": set(),
    "codec/container.py": {"_rans", "codec.limits"},
    "codec/sections.py": {"codec.container", "codec.image", "codec.view"},
    "codec/view.py": set(),
    "codec/progress.py": set(),
    "codec/networks/tensors.py": {"codec.image"},
    "codec/checks.py": {"_rans", "codec.batches", "codec.container"},
    "codec/payload.py": {"_rans", "codec.checks", "codec.container"},
    "codec/image.py": {"codec.files.metadata", "codec.files.output", "codec.limits", "forks"},
    "codec/files/metadata.py": set(),
    "codec/files/output.py": set(),
    "codec/networks/windows.py": set(),
    "codec/networks/extents.py": {"codec.networks.windows"},
    "codec/networks/ends.py": {"model.config", "model.transforms"},
    "codec/networks/strips.py": {
        "codec.image",
        "codec.machine",
        "codec.networks.extents",
        "codec.networks.tensors",
        "codec.networks.windows",
        "codec.progress",
    },
    "codec/machine.py": {"forks"},
    "codec/batches.py": set(),
    "codec/deadzone.py": set(),
    "pipeline/flow.py": {"codec.machine"},
    "pipeline/lanes.py": {"forks"},
    "pipeline/pixels.py": {"kernels.transforms.pictures"},
    "pipeline/sources.py": {"codec.machine"},
    "codec/zone/steps.py": {"kernels.numerics", "kernels.reference"},
    "codec/zone/layers.py": {"_passes", "kernels.numerics", "kernels.products"},
    "codec/zone/carriers.py": {
        "codec.machine",
        "codec.networks.strips",
        "codec.zone.steps",
        "kernels.numerics",
        "kernels.reference",
        "model.model",
    },
    "codec/zone/integers.py": {
        "_passes",
        "codec.machine",
        "codec.networks.strips",
        "codec.zone.layers",
        "codec.zone.steps",
        "kernels.network",
        "kernels.numerics",
        "kernels.products",
        "model.model",
    },
    "codec/networks/floats.py": {
        "_passes",
        "codec.machine",
        "codec.networks.windows",
        "kernels.products",
        "model.transforms",
    },
    "codec/zone/kernels.py": {"codec.zone.steps", "kernels", "kernels.lattice", "model.model"},
    "model/config.py": set(),
    "model/proof.py": set(),
    "model/places.py": set(),
    "model/library.py": {"model.arrays", "model.places"},
    "model/arrays.py": {"model.config", "model.places", "model.proof"},
    "light/zone.py": {"_passes", "model.proof"},
    "light/synthesis.py": {"_passes", "codec.networks.windows", "codec.view", "model.config"},
    "model/quant.py": {"kernels.numerics", "model.proof"},
    "model/transforms.py": {"kernels.products"},
    "model/entropy.py": set(),
    "evaluation/bd.py": set(),
    "evaluation/ssimulacra.py": set(),
    "training/compiled.py": set(),
    "training/drawn.py": set(),
    "training/optim.py": {"training.compiled"},
}
# Outside packages that only these may import.
ONLY = {
    "triton": {"kernels"},
    "matplotlib": {"evaluation"},
    "bjontegaard": {"evaluation"},
    "compressai": {"compat"},
}
# Rooms of csrc/ -> those whose headers they include.
CSRC = {
    "common": set(),
    "rans": {"common"},
    "payload": {"common", "rans"},
    "streams": {"common", "rans", "payload"},
    "tracks": {"rans", "payload"},
    "ans": {"common"},
    "passes": {"common"},
    "bind": {"common", "rans", "payload", "streams", "tracks", "ans", "passes"},
}


def sources():
    """(name below ckbd, path) of every Python file that is installed."""
    for folder, prefix in ((ROOT / "ckbd", ""), (ROOT / "kernels", "kernels/")):
        for path in sorted(folder.rglob("*.py")):
            yield prefix + path.relative_to(folder).as_posix(), path


FOUND = dict(sources())


def module(name):
    """The dotted name below ckbd of a file of FOUND."""
    return name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")


MODULES = {module(name): name for name in FOUND}


def room(dotted):
    return dotted.split(".")[0]


def imports(path, package="ckbd"):
    """(dotted name below the package or None, outside package or None) of every import statement in a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            for a in node.names:
                # `from ckbd.codec import image` names a module, `from ckbd.codec.image import put` what is in one.
                inner = f"{node.module}.{a.name}"
                is_module = inner.startswith(f"{package}.") and exists(package, inner.partition(".")[2])
                names.append(inner if is_module else node.module)
        for name in names:
            top, _, below = name.partition(".")
            yield (below or "__init__", None) if top == package else (None, top)


def exists(package, dotted):
    if package == "ckbd":
        return dotted in MODULES or dotted in ("_rans", "_ans", "_passes")
    path = ROOT / package / dotted.replace(".", "/")
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


@pytest.mark.parametrize("name", FOUND)
def test_imports_point_downwards(name):
    own = room(module(name))
    assert own in ROOMS, f"{name}: say in ROOMS what it may import"
    for inside, outside in imports(FOUND[name]):
        if inside and inside != "__init__" and room(inside) != own:
            assert room(inside) in ROOMS[own], f"{name} imports ckbd.{inside}"
        if inside == "__init__":
            assert name in ("shell/coding.py", "shell/about.py", "__init__.py"), f"{name} imports the package itself"
        if inside and name in FILES:
            assert inside in FILES[name], f"{name} imports ckbd.{inside}"
        assert outside not in ("bench", "tests", "kernels", "fuzz"), f"{name} imports {outside}"
        if outside in ONLY:
            assert own in ONLY[outside], f"{name} imports {outside}"


def test_every_permission_is_used():
    """A rule that allows more than the code needs would let an arrow slip in unseen."""
    used = {one: set() for one in ROOMS}
    for name, path in FOUND.items():
        used[room(module(name)) or "__init__"] |= {room(inside) for inside, _ in imports(path) if inside}
    assert {one: ROOMS[one] - used[one] for one in ROOMS if ROOMS[one] - used[one]} == {}
    assert set(FILES) <= set(FOUND)
    unused = {name: FILES[name] - {inside for inside, _ in imports(FOUND[name])} for name in FILES}
    assert {name: left for name, left in unused.items() if left} == {}


def circles(arrows):
    """A circle among {name: names that it points to}, as a list of names; empty if there is none."""
    state, path = {}, []

    def visit(name):
        state[name] = "open"
        path.append(name)
        for other in sorted(arrows.get(name, ())):
            if state.get(other) == "open":
                return path[path.index(other) :]
            if other not in state and (found := visit(other)):
                return found
        state[name] = "done"
        path.pop()
        return []

    return next((found for name in sorted(arrows) if name not in state and (found := visit(name))), [])


def test_a_circle_is_seen():
    assert circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]


def test_there_is_no_circle_of_rooms_or_of_files():
    assert circles(ROOMS) == []
    # Packages' own files stand for what they hand on: who imports ckbd.kernels depends on its __init__.
    files = {m: {i for i, _ in imports(FOUND[name]) if i and i != "__init__"} - {m} for m, name in MODULES.items()}
    assert circles(files) == []


def test_there_is_no_circle_in_bench():
    arrows = {}
    for path in sorted((ROOT / "bench").rglob("*.py")):
        own = path.relative_to(ROOT / "bench").with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        arrows[own] = {inside for inside, _ in imports(path, "bench") if inside} - {own, "__init__"}
    assert "run" in arrows and arrows["run"], "the imports of bench were read"
    assert circles(arrows) == []
    assert [name for name, to in arrows.items() if "run" in to] == [], "bench.run stands above its cases"


@pytest.mark.parametrize("path", sorted((ROOT / "csrc").rglob("*.*")), ids=lambda p: p.name)
def test_headers_of_csrc_point_downwards(path):
    own = path.parent.name
    for header in re.findall(r'#include "([^"]+)"', path.read_text()):
        folder = header.partition("/")[0]
        assert (ROOT / "csrc" / header).is_file(), f"{path.name} includes {header}: expected a path below csrc/"
        assert folder == own or folder in CSRC[own], f"{path.name} includes {header}"
    if own != "bind":
        assert not re.search(r"pybind11|Python\.h", path.read_text()), f"{path.name} knows Python"


def test_the_exact_zone_imports_nothing_but_torch():
    for name in ("kernels/numerics.py", "kernels/products.py", "kernels/reference.py"):
        assert {o for _, o in imports(FOUND[name])} - {None, *sys.stdlib_module_names} == {"torch"}, name
